//! Something that is not the daemon, listening where the daemon should: it answers as told and remembers what it was asked.
//!
//! For tests of what Exim does when the daemon is broken ([`Behaviour::HangsUp`] and its like), and of what exactly Exim asks
//! ([`Behaviour::Verdicts`] and [`Impostor::questions`]). Every connection has a thread of its own, which ends with its peer.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

/// How the impostor treats a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Closes at once, without having read the question.
    HangsUp,
    /// Reads the question, sends these bytes, closes.
    Says(Vec<u8>),
    /// Reads the question and keeps the connection open without a word.
    Silent,
    /// Reads the question and sends these bytes singly, with a pause before each.
    Dribbles(Vec<u8>, Duration),
    /// Answers as the daemon would that knows these identities; every other one is `ok`.
    Verdicts(BTreeMap<String, String>),
}

impl Behaviour {
    /// The same bytes for everyone.
    pub fn says(reply: impl AsRef<[u8]>) -> Self {
        Self::Says(reply.as_ref().to_owned())
    }

    /// The daemon's part, from pairs of identity and verdict.
    #[must_use]
    pub fn verdicts(verdicts: &[(&str, &str)]) -> Self {
        let owned = |(identity, verdict): &(&str, &str)| ((*identity).into(), (*verdict).into());
        Self::Verdicts(verdicts.iter().map(owned).collect())
    }
}

/// The listener.
#[derive(Debug)]
pub struct Impostor {
    path: PathBuf,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    let_go: Condvar,
}

#[derive(Debug)]
struct State {
    behaviour: Behaviour,
    questions: Vec<String>,
    connections: usize,
    closing: bool,
}

impl Impostor {
    /// Listens at `path`, for every user.
    pub fn start(path: &Path, behaviour: Behaviour) -> Result<Self> {
        let listener = UnixListener::bind(path).with_context(|| format!("could not listen at {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(0o666))?;
        let state = State { behaviour, questions: Vec::new(), connections: 0, closing: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), let_go: Condvar::new() });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept_all(&listener, &shared)
        });
        Ok(Self { path: path.to_owned(), shared, acceptor: Some(acceptor) })
    }

    /// From the next connection on, behaves like this.
    pub fn becomes(&self, behaviour: Behaviour) {
        self.shared.state().behaviour = behaviour;
    }

    /// What it was asked, in order; nothing for connections that it did not listen to.
    #[must_use]
    pub fn questions(&self) -> Vec<String> {
        self.shared.state().questions.clone()
    }

    /// The questions since the last call of this method.
    #[must_use]
    pub fn take_questions(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().questions)
    }

    /// How many connections have been made to it.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.let_go.notify_all();
        // Wakes the acceptor; if even that fails it stays, harmless, until the process ends.
        if UnixStream::connect(&self.path).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            let _ = acceptor.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept_all(listener: &UnixListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let mut state = shared.state();
        if state.closing {
            return;
        }
        state.connections += 1;
        let behaviour = state.behaviour.clone();
        drop(state);
        let Ok(stream) = stream else { continue };
        if behaviour == Behaviour::HangsUp {
            continue;
        }
        let shared = Arc::clone(shared);
        thread::spawn(move || answer(stream, &behaviour, &shared));
    }
}

/// A peer that has gone away is part of the play: errors end the connection and nothing else.
fn answer(mut stream: UnixStream, behaviour: &Behaviour, shared: &Shared) {
    let mut question = Vec::new();
    if stream.read_to_end(&mut question).is_err() {
        return;
    }
    let question = String::from_utf8_lossy(&question).into_owned();
    shared.state().questions.push(question.clone());
    match behaviour {
        Behaviour::HangsUp => {}
        Behaviour::Says(reply) => drop(stream.write_all(reply)),
        Behaviour::Silent => wait_for_the_end(shared),
        Behaviour::Dribbles(reply, pause) => dribble(&mut stream, reply, *pause),
        Behaviour::Verdicts(known) => drop(stream.write_all(verdict(known, &question).as_bytes())),
    }
}

fn wait_for_the_end(shared: &Shared) {
    let open = |state: &mut State| !state.closing;
    drop(shared.let_go.wait_while(shared.state(), open));
}

fn dribble(stream: &mut UnixStream, reply: &[u8], pause: Duration) {
    for byte in reply {
        thread::sleep(pause);
        if stream.write_all(&[*byte]).is_err() {
            return;
        }
    }
}

fn verdict(known: &BTreeMap<String, String>, question: &str) -> String {
    let question = question.strip_suffix('\n').unwrap_or(question);
    let Some((verb, rest)) = question.split_once(' ') else {
        return "error".to_owned();
    };
    let identity = match rest.split_once(' ') {
        Some((id, identity)) if id.starts_with("id=") => identity,
        _ => rest,
    };
    let identity = identity.to_lowercase();
    match verb {
        "check" => known.get(&identity).map_or("ok", String::as_str).to_owned(),
        "notice" => format!("outgoing mail of {identity} is suspended"),
        _ => "error".to_owned(),
    }
}
