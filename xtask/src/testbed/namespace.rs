//! Programs that see directories of the bed in place of the system's, in a mount namespace of their own.
//!
//! What they start sees the same. The system's own directories stay as they are and are not seen by anybody in there. When the
//! value is dropped, everything that still runs in there is killed. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::command::{Finished, finish};
use super::wait_until;

/// No command of a test takes this many seconds; one that does is killed.
const LONGEST_COMMAND: &str = "60";

/// The exit status by which `timeout` says that it killed the command.
const KILLED_BY_TIMEOUT: i32 = 124;

/// Shows each directory in its place, up to the word `--`, and becomes the command behind it.
const SHOW_AND_BECOME: &str =
    r#"while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit; shift 2; done; shift; exec "$@""#;

/// Which directories are shown where.
#[derive(Debug)]
pub(super) struct Namespace {
    shown: Vec<(PathBuf, &'static str)>,
}

impl Namespace {
    /// Shows the first of each pair in place of the second.
    pub(super) fn showing(shown: Vec<(PathBuf, &'static str)>) -> Self {
        Self { shown }
    }

    /// A command that will run in there.
    pub(super) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "sh", "-c", SHOW_AND_BECOME, "sh"]);
        for (directory, place) in &self.shown {
            command.arg(directory).arg(place);
        }
        command.arg("--").args(words).current_dir("/");
        command
    }

    /// Runs a command and waits for it and all that it has started.
    pub(super) fn run(&self, words: &[&str], input: &str) -> Result<Finished> {
        let limited = [&["timeout", LONGEST_COMMAND], words].concat();
        let finished = finish(&mut self.command(&limited), input)?;
        ensure!(finished.code() != KILLED_BY_TIMEOUT, "{words:?} did not end in {LONGEST_COMMAND} seconds");
        Ok(finished)
    }

    /// Running processes that see what is shown.
    fn processes(&self) -> Result<Vec<Pid>> {
        let Some((directory, place)) = self.shown.first() else {
            return Ok(Vec::new());
        };
        let mark = format!("{} {place} ", tail(directory).display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let directory = entry?.path();
            let name = directory.file_name().unwrap_or_default().to_string_lossy();
            let Some(pid) = name.parse().ok().and_then(Pid::from_raw) else {
                continue;
            };
            // A process may end while it is looked at.
            let mounts = fs::read_to_string(directory.join("mountinfo")).unwrap_or_default();
            if mounts.contains(&mark) {
                found.push(pid);
            }
        }
        Ok(found)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let gone = wait_until("the programs of a namespace to end", Duration::from_secs(10), || {
            let left = self.processes()?;
            for pid in &left {
                let _ = kill_process(*pid, Signal::KILL);
            }
            Ok(left.is_empty())
        });
        if let Err(error) = gone {
            eprintln!("{error:#}");
        }
    }
}

/// The last two parts of a path. The kernel lists a mount by its path from the root of its file system, which may be below `/`;
/// the directories of the bed have names that nothing else has.
fn tail(path: &Path) -> PathBuf {
    let parts: Vec<_> = path.iter().collect();
    parts[parts.len().saturating_sub(2)..].iter().collect()
}
