//! Runs `outgoingctl` for what is done with Exim's queue.
//!
//! A child process prints JSON, one object a line, which is read as it comes and never kept as a whole. Why it failed, it says
//! itself. It is ended when it takes too long, but for a delivery, which may take hours and is nobody's to wait for.

use crate::answer::Refused;
use crate::server::no_thread;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long counting and removing may take: a queue of a million messages takes less.
pub const LONGEST: Duration = Duration::from_secs(10 * 60);

/// How long a delivery may take to begin: Exim is asked where its queue is, and the daemon what it knows of the subject.
const BEGIN: Duration = Duration::from_secs(60);

/// Longest line of its output that is read, in bytes.
const LONGEST_LINE: u64 = 64 << 10;

/// How much of what it complains of is kept, in bytes.
const COMPLAINTS: u64 = 16 << 10;

/// Rows that may wait to be looked at.
const ROWS: usize = 16;

/// What begins what it says for people.
const PREFIX: &str = "outgoingctl: ";

/// The command, and what it is told each time.
#[derive(Clone, Debug)]
pub struct Outgoingctl {
    /// Where it stands.
    pub program: PathBuf,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Exim's command, where it is not the one that is found first.
    pub exim: Option<PathBuf>,
    /// Whom the audit trail names beside the user who runs it.
    pub on_behalf_of: Option<String>,
}

/// One that runs.
struct Running {
    child: Child,
    rows: Receiver<Value>,
    complaints: JoinHandle<String>,
}

impl Outgoingctl {
    /// Begins to have Exim deliver what waits of a subject and nothing stops any more. What it returns goes on by itself, and is to
    /// be waited for by whoever lives longer.
    ///
    /// # Errors
    ///
    /// It could not begin.
    pub fn deliver(&self, subject: &str) -> Result<Child, Refused> {
        let mut command = self.command(&["deliver", "--in-turn", "--", subject]);
        // Ctrl-C on a terminal is meant for whoever has begun it.
        command.process_group(0);
        let running = Running::start(command)?;
        match running.rows.recv_timeout(BEGIN) {
            // It goes on though nobody reads what it prints.
            Ok(_) => Ok(running.child),
            Err(RecvTimeoutError::Disconnected) => Err(running.end()?),
            Err(RecvTimeoutError::Timeout) => Err(running.kill("a delivery has not begun", BEGIN)),
        }
    }

    /// How many messages of a subject are held.
    ///
    /// # Errors
    ///
    /// They could not be counted.
    pub fn count(&self, subject: &str) -> Result<u64, Refused> {
        self.total(&["held", "--summary", "--", subject], "messages", "held mail was not counted")
    }

    /// Removes held mail of a subject, and says how many messages that were.
    ///
    /// # Errors
    ///
    /// Some could not be removed; others may have been.
    pub fn delete(&self, subject: &str) -> Result<u64, Refused> {
        let subject = format!("--subject={subject}");
        self.total(&["drop", "--held", "--yes", &subject], "removed", "held mail was not removed completely")
    }

    /// What the rows that it prints have under `name`, added up; `undone` says what has not happened when it takes too long.
    fn total(&self, words: &[&str], name: &str, undone: &str) -> Result<u64, Refused> {
        let (mut running, deadline, mut total) = (Running::start(self.command(words))?, Instant::now() + LONGEST, 0);
        loop {
            match running.rows.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(row) => total += row.get(name).and_then(Value::as_u64).unwrap_or(0),
                Err(RecvTimeoutError::Timeout) => return Err(running.kill(undone, LONGEST)),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = running.child.wait().map_err(|error| lost(&error))?;
        if status.success() { Ok(total) } else { Err(running.end()?) }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // Under another name it would be another command.
        command.arg0("outgoingctl").arg("--json").arg("--socket").arg(&self.socket);
        // Whom that names is known here.
        command.env_remove("SUDO_USER").env_remove("DOAS_USER");
        if let Some(exim) = &self.exim {
            command.arg("--exim").arg(exim);
        }
        if let Some(whom) = &self.on_behalf_of {
            command.arg(format!("--on-behalf-of={whom}"));
        }
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Running {
    fn start(mut command: Command) -> Result<Running, Refused> {
        let name = command.get_program().display().to_string();
        let mut child = command.spawn().map_err(|error| Refused(format!("cannot run {name}: {error}")))?;
        let (sender, rows) = sync_channel(ROWS);
        let begun = Running::listen(child.stdout.take(), child.stderr.take(), sender);
        match begun {
            Ok(complaints) => Ok(Running { child, rows, complaints }),
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(no_thread(&error))
            }
        }
    }

    fn listen(
        stdout: Option<ChildStdout>,
        stderr: Option<ChildStderr>,
        rows: SyncSender<Value>,
    ) -> io::Result<JoinHandle<String>> {
        thread::Builder::new().spawn(move || stdout.map(|stdout| hand_on(stdout, &rows)))?;
        thread::Builder::new().spawn(move || stderr.map(keep).unwrap_or_default())
    }

    /// Why it failed, when it has ended or is about to.
    fn end(mut self) -> Result<Refused, Refused> {
        let status = self.child.wait().map_err(|error| lost(&error))?;
        let complaints = self.complaints.join().unwrap_or_default();
        let mut lines = complaints.lines();
        let own = lines.clone().rev().find_map(|line| line.strip_prefix(PREFIX));
        let words = own.or_else(|| lines.find(|line| !line.trim().is_empty()));
        Ok(Refused(words.map_or_else(|| format!("outgoingctl ended without a word ({status})"), str::to_owned)))
    }

    /// Ends one that takes too long.
    fn kill(mut self, undone: &str, longest: Duration) -> Refused {
        let _ = self.child.kill().and_then(|()| self.child.wait());
        Refused(format!("{undone} in {} seconds; outgoingctl was ended", longest.as_secs()))
    }
}

/// Hands on each object that is printed, until nobody takes it or no more comes.
fn hand_on(stdout: ChildStdout, rows: &SyncSender<Value>) {
    let (mut reader, mut line) = (BufReader::new(stdout), Vec::new());
    loop {
        line.clear();
        match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(1..) if line.ends_with(b"\n") => {}
            _ => return,
        }
        // What is no object says nothing.
        if rows.send(serde_json::from_slice(&line).unwrap_or_default()).is_err() {
            return;
        }
    }
}

/// The beginning of what is complained of; the rest is read and forgotten, so that nobody waits for it to be read.
fn keep(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    let _ = stderr.by_ref().take(COMPLAINTS).read_to_end(&mut kept);
    let _ = io::copy(&mut stderr, &mut io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}

fn lost(error: &io::Error) -> Refused {
    Refused(format!("what became of outgoingctl is not known: {error}"))
}
