//! Exim's command: finding it, asking it where its queue is, and having it deliver and remove messages.
//!
//! Every Exim that is started here is in a process group of its own: Ctrl-C on a terminal ends us between two messages, and never
//! Exim within one.

use super::id::MessageId;
use super::queue::{Place, Queue, QueueError};
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

/// What Exim may be called, the first one first: Debian has both, and the second one for compatibility.
const NAMES: [&str; 2] = ["exim4", "exim"];

/// Where it is looked for behind `PATH`, which of users other than root often lacks such places.
const PLACES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/usr/exim/bin"];

/// Longest line of Exim's that is looked at, in bytes.
const LONGEST_LINE: u64 = 16 << 10;

/// An Exim that whoever runs us may operate.
#[derive(Clone, Debug)]
pub struct Exim {
    program: PathBuf,
    /// Its queue.
    pub queue: Queue,
}

/// Why Exim did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum EximError {
    /// There is none.
    #[error("found no Exim (looked for exim4 and exim in PATH and {}); name it with --exim", PLACES.join(", "))]
    NotFound,
    /// It could not be started.
    #[error("cannot run {}: {source}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Exim does not let this user do that.
    #[error("this user may not operate Exim ({}): become root, or a member of Exim's own group", program.display())]
    NotPermitted {
        /// The program.
        program: PathBuf,
    },
    /// It said something else than expected.
    #[error("{} {what}", program.display())]
    Unexpected {
        /// The program.
        program: PathBuf,
        /// What it said.
        what: String,
    },
    /// The queue could not be read.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// How a message is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Nearly as a queue run would: holds, freezing and the retry times of hosts are respected, those of addresses are not (`-Mc`).
    LikeQueueRun,
    /// Whatever `hold_domains`, retry times and freezing say (`-M`).
    Forced,
}

/// What became of a message that Exim was to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Exim has removed it.
    Done,
    /// It has left the queue otherwise: delivered in this moment, mostly.
    Gone,
    /// It is still there; why: it is being delivered in this moment, mostly.
    Stuck(String),
}

/// What became of a message that Exim was to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exim has delivered it, and it has left the queue.
    Delivered,
    /// It has left the queue in another way: somebody else delivered or removed it.
    Gone,
    /// It has left the queue, and a bounce was made for some recipients; why, for the last of them.
    Failed(String),
    /// It is still on the queue; why.
    Waiting(String),
}

impl Outcome {
    /// Whether somebody else is delivering it in this moment, so that it may be tried again soon.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self, Outcome::Waiting(why) if why.starts_with("Spool file ") && why.contains(" is locked"))
    }
}

impl EximError {
    /// Whether it is because of who this user is.
    #[must_use]
    pub fn is_not_permitted(&self) -> bool {
        match self {
            EximError::NotPermitted { .. } => true,
            EximError::Queue(QueueError::Io { source, .. }) => source.kind() == ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

impl Exim {
    /// Finds Exim and asks it where its queue is; `program` if that is given, else the first one that is found.
    ///
    /// # Errors
    ///
    /// There is none, it is not understood, or whoever runs us may not operate it ([`EximError::NotPermitted`]).
    pub fn find(program: Option<&Path>) -> Result<Exim, EximError> {
        let program = self::program(program)?;
        // Debugging is for those who may operate Exim, whatever its options say of who may list or run the queue, and with this
        // command it changes nothing. What it prints goes to standard error.
        let mut answer = ask(&program, &["-d-all+acl", "-bP", "spool_directory"])?;
        if !answer.status.success() {
            answer = ask(&program, &["-bP", "spool_directory"])?;
            return Err(if answer.status.success() {
                EximError::NotPermitted { program }
            } else {
                no_queue(&program, &last_line(&answer))
            });
        }
        let answer = String::from_utf8_lossy(&answer.stdout);
        let spool = answer.lines().find_map(|line| line.strip_prefix("spool_directory = ")).map(Path::new);
        match spool.filter(|spool| spool.is_absolute()) {
            Some(spool) => {
                let queue = Queue::new(spool);
                queue.must_be_readable()?;
                Ok(Exim { program, queue })
            }
            None => Err(no_queue(&program, &format!("\"{}\"", answer.escape_debug()))),
        }
    }

    /// Has Exim try to deliver a message, and waits until it has.
    ///
    /// # Errors
    ///
    /// Exim cannot be run, or the queue cannot be read.
    pub fn deliver(&self, place: &Place, manner: Manner) -> Result<Outcome, EximError> {
        let option = match manner {
            Manner::LikeQueueRun => "-Mc",
            Manner::Forced => "-M",
        };
        let failed = |source| EximError::Run { program: self.program.clone(), source };
        // Not a pipe: Exim may go on to other messages on the same connection in processes of their own, which nobody waits for.
        let said = memfd_create("exim", MemfdFlags::CLOEXEC).map(File::from).map_err(|error| failed(error.into()))?;
        let stderr = said.try_clone().map_err(failed)?;
        let mut command = self.command();
        on_queue(&mut command, place).args(["-v", option, place.id.as_str()]).stdout(Stdio::null()).stderr(stderr);
        command.status().map_err(failed)?;
        let said = (&said).rewind().and_then(|()| Said::read(BufReader::new(&said))).map_err(failed)?;
        Ok(match (place.is_there()?, said.failed) {
            (true, _) => {
                Outcome::Waiting(said.deferred.or(said.last).unwrap_or_else(|| "Exim does not say why".to_owned()))
            }
            (false, Some(why)) => Outcome::Failed(why),
            (false, None) if said.completed => Outcome::Delivered,
            (false, None) => Outcome::Gone,
        })
    }

    /// Has Exim remove messages from its queue without a bounce. Says of each what became of it.
    ///
    /// # Errors
    ///
    /// Exim cannot be run, or the queue cannot be read.
    pub fn remove<'a>(&self, places: &'a [Place]) -> Result<Vec<(&'a Place, Removed)>, EximError> {
        let mut by_queue: BTreeMap<Option<&str>, Vec<&Place>> = BTreeMap::new();
        for place in places {
            by_queue.entry(place.queue.as_deref()).or_default().push(place);
        }
        let mut removed = Vec::with_capacity(places.len());
        for places in by_queue.into_values() {
            let Some(first) = places.first() else { continue };
            let mut command = self.command();
            on_queue(&mut command, first).arg("-Mrm").args(places.iter().map(|place| place.id.as_str()));
            let answer = run(&self.program, &mut command)?;
            for place in places {
                let about = about(place.id, &answer);
                removed.push((
                    place,
                    if place.is_there()? {
                        Removed::Stuck(about.unwrap_or_else(|| last_line(&answer)))
                    } else if about.is_some_and(|line| line.ends_with("has been removed")) {
                        Removed::Done
                    } else {
                        Removed::Gone
                    },
                ));
            }
        }
        Ok(removed)
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    pub(super) fn command(&self) -> Command {
        command(&self.program)
    }
}

/// What Exim says of a delivery, as it says it to its log.
#[derive(Default)]
struct Said {
    /// Of the last recipient who waits.
    deferred: Option<String>,
    /// Of the last recipient who will not get it.
    failed: Option<String>,
    /// Nothing is left of the message.
    completed: bool,
    /// The last line of all.
    last: Option<String>,
}

impl Said {
    /// Reads what `-v` prints: each line of the log indented by two spaces behind a line with `LOG:`, and SMTP dialogues between
    /// them.
    fn read(mut stderr: impl BufRead) -> io::Result<Said> {
        let (mut said, mut line, mut logged) = (Said::default(), Vec::new(), false);
        loop {
            line.clear();
            if (&mut stderr).take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
                return Ok(said);
            }
            let text = String::from_utf8_lossy(&line);
            let entry = text.strip_prefix("  ").filter(|_| logged).map(|entry| entry.trim_end().to_owned());
            logged = text.starts_with("LOG: ");
            let Some(entry) = entry else { continue };
            said.completed |= entry == "Completed";
            match entry.get(..3) {
                Some("== ") => said.deferred = Some(reason(&entry).to_owned()),
                Some("** ") => said.failed = Some(reason(&entry).to_owned()),
                _ => {}
            }
            said.last = Some(entry);
        }
    }
}

/// What several recipients and messages have in common: `defer (-1): text` of `== x@y R=router T=transport defer (-1): text`, which
/// from Exim 4.100 on has no number, and `text` of `** x@y R=router: text`.
fn reason(entry: &str) -> &str {
    let ends = |at: usize| matches!(entry.as_bytes().get(at + " defer".len()), None | Some(b' ' | b':'));
    let put_off = entry.match_indices(" defer").find(|(at, _)| entry.starts_with("== ") && ends(*at));
    match (put_off, entry.find(": ")) {
        (Some((at, _)), _) => &entry[at + 1..],
        (None, Some(colon)) => &entry[colon + 2..],
        (None, None) => entry,
    }
}

/// What Exim says about a message that it was to remove: `Message ID has been removed`, `Message ID is locked` and such.
fn about(id: MessageId, answer: &Output) -> Option<String> {
    let said = [&answer.stdout, &answer.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    said.iter()
        .flat_map(|text| text.lines())
        .find(|line| line.contains(id.as_str()))
        .map(|line| line.trim_end().to_owned())
}

/// The one that is named, or else the one that is found first.
pub(super) fn program(named: Option<&Path>) -> Result<PathBuf, EximError> {
    let Some(named) = named else { return search() };
    // A name alone is looked for where commands are; some are run in another directory than ours.
    let is_path = named.components().count() > 1;
    Ok(if is_path { std::path::absolute(named).unwrap_or_else(|_| named.to_path_buf()) } else { named.to_path_buf() })
}

/// The program that is found first.
fn search() -> Result<PathBuf, EximError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = env::split_paths(&path).chain(PLACES.iter().map(PathBuf::from)).collect();
    let mut candidates = NAMES.iter().flat_map(|name| places.iter().map(move |place| place.join(name)));
    candidates.find(|candidate| candidate.is_file()).ok_or(EximError::NotFound)
}

fn ask(program: &Path, arguments: &[&str]) -> Result<Output, EximError> {
    run(program, command(program).args(arguments))
}

fn run(program: &Path, command: &mut Command) -> Result<Output, EximError> {
    command.output().map_err(|source| match source.kind() {
        ErrorKind::PermissionDenied => EximError::NotPermitted { program: program.to_path_buf() },
        _ => EximError::Run { program: program.to_path_buf(), source },
    })
}

pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.process_group(0).stdin(Stdio::null());
    command
}

/// Tells Exim on which queue the message is.
fn on_queue<'a>(command: &'a mut Command, place: &Place) -> &'a mut Command {
    match &place.queue {
        Some(queue) => command.arg("-MCG").arg(&**queue),
        None => command,
    }
}

pub(super) fn last_line(answer: &Output) -> String {
    let said = [&answer.stderr, &answer.stdout].map(|bytes| String::from_utf8_lossy(bytes));
    let line = said.iter().find_map(|text| text.lines().rfind(|line| !line.trim().is_empty()));
    line.map_or_else(|| format!("it ended with {} and said nothing", answer.status), str::to_owned)
}

/// All that it said on standard error, in one line: of an error in a configuration the second line says what it is.
pub(super) fn words(answer: &Output) -> String {
    let said = String::from_utf8_lossy(&answer.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { last_line(answer) } else { lines.join(" ") }
}

fn no_queue(program: &Path, said: &str) -> EximError {
    unexpected(program, format!("does not say where its queue is: {said}; if it is no Exim, name one with --exim"))
}

/// Runs a command that is told something, to its end. Its standard error is as the caller has set it.
pub(super) fn talk(command: &mut Command, words: String) -> io::Result<Output> {
    let mut exim = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let stdin = exim.stdin.take();
    // Exim answers while it is asked, and a pipe takes only so much of either.
    let asking = thread::spawn(move || stdin.map_or(Ok(()), |mut stdin| stdin.write_all(words.as_bytes())));
    let output = exim.wait_with_output()?;
    // One that broke off has not answered everything, which is seen.
    drop(asking.join());
    Ok(output)
}

pub(super) fn unexpected(program: &Path, what: String) -> EximError {
    EximError::Unexpected { program: program.to_path_buf(), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_recipient_waits_or_does_not_get_it_is_told_from_who_and_by_what() {
        for (entry, why) in [
            ("== a@x.test defer (-23): domain is held", "defer (-23): domain is held"),
            ("== a@x.test <l@y.test> defer: domain is held", "defer: domain is held"),
            ("== a@x.test R=deferred T=smtp defer H=x.test [::1]: 450 no", "defer H=x.test [::1]: 450 no"),
            (
                "== a@x.test R=r T=smtp defer (110) H=x.test [10.0.0.1]: Connection timed out",
                "defer (110) H=x.test [10.0.0.1]: Connection timed out",
            ),
            ("** a@x.test R=r: no: we defer (and deny)", "no: we defer (and deny)"),
            ("** a@x.test", "** a@x.test"),
        ] {
            assert_eq!(reason(entry), why);
        }
    }
}
