//! The fallback file: what Exim reads, by `lsearch*@`, when the daemon does not answer.
//!
//! One line for each subject with a verdict other than ok, one for each domain of a flagged account, in the form
//! `bob@example.com: hold`, `*@example.com: suspend`, `*: hold`. `lsearch*@` takes the first of `bob@example.com`,
//! `*@example.com` and `*` that it finds and looks no further, so each line carries the verdict of everything that covers
//! its key. While everyone is stopped, `root: ok` says who is not.
//!
//! It is replaced by a rename, so a reader sees the old file or the new one. It is not synced before the rename (the
//! state file is what is durable; at a start this file is written before READY), but right behind it.
//!
//! Honest limits: passes are not in it, so a message with a pass waits while the daemon is down. Identities are compared as
//! Exim has them, without letter case but not in normal form otherwise.

use crate::flag::{Timestamp, Verdict};
use crate::name::{Identity, Shape, Subject};
use crate::store::{Store, StoreError};
use crate::table::Table;
use rustix::fs::Mode;
use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

/// The fallback file's place.
#[derive(Clone, Debug)]
pub struct Fallback {
    path: PathBuf,
    mode: u32,
}

/// Why the fallback file is not current.
#[derive(Debug, thiserror::Error)]
pub enum FallbackError {
    /// The system would not let it be written.
    #[error("cannot write the fallback file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The state could not be read.
    #[error("cannot read the state for the fallback file: {0}")]
    Store(#[from] StoreError),
}

impl Fallback {
    /// The file at `path`, with these permissions.
    #[must_use]
    pub fn new(path: PathBuf, mode: u32) -> Fallback {
        Fallback { path, mode }
    }

    /// Puts the present state in the place of the file. `store` names the subjects, `table` their verdicts.
    ///
    /// # Errors
    ///
    /// [`FallbackError`]; the file is then as it was.
    pub fn replace(&self, store: &Store, table: &Table, now: Timestamp) -> Result<(), FallbackError> {
        let temporary = self.path.with_extension("new");
        let written = self.write(&temporary, store, table, now);
        match written
            .and_then(|file| fs::rename(&temporary, &self.path).map(|()| file).map_err(|source| self.error(source)))
        {
            Ok(file) => {
                // Nothing waits for this; if it fails, the next start writes the file again.
                let _ = file.sync_data();
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_file(&temporary);
                Err(error)
            }
        }
    }

    fn write(&self, temporary: &PathBuf, store: &Store, table: &Table, now: Timestamp) -> Result<File, FallbackError> {
        let io = |source| self.error(source);
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        // O_EXCL: whatever somebody may have put there, it is not followed and not written to.
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(Mode::RUSR.bits() | Mode::WUSR.bits())
            .open(temporary)
            .map_err(io)?;
        file.set_permissions(Permissions::from_mode(self.mode)).map_err(io)?;
        let mut out = BufWriter::with_capacity(1 << 16, file);
        let mut lines = Lines { table, now, flagged: HashSet::new(), accounts: HashSet::new(), everyone: false };
        out.write_all(b"# Written by outgoingd at each change, for Exim to read while outgoingd does not answer.\n")
            .map_err(io)?;
        store.for_each_subject(|subject| lines.subject(subject, &mut out).map_err(io))?;
        lines.rest(&mut out).and_then(|()| out.flush()).map_err(io)?;
        out.into_inner().map_err(|error| io(error.into_error()))
    }

    fn error(&self, source: io::Error) -> FallbackError {
        FallbackError::Io { path: self.path.clone(), source }
    }
}

/// The file's lines as they come to be.
struct Lines<'a> {
    table: &'a Table,
    now: Timestamp,
    /// Domains that have a line already.
    flagged: HashSet<String>,
    /// Accounts whose domains need lines.
    accounts: HashSet<String>,
    everyone: bool,
}

impl Lines<'_> {
    /// The line of a subject that has a flag.
    fn subject(&mut self, subject: &str, out: &mut impl Write) -> io::Result<()> {
        let Ok(subject) = Subject::new(subject) else { return Ok(()) };
        let verdict = self.table.verdict(&subject.as_identity(), None, self.now);
        if verdict == Verdict::Ok {
            return Ok(());
        }
        match subject.shape() {
            Shape::Everyone => self.everyone = true,
            Shape::Account(account) => drop(self.accounts.insert(account.to_owned())),
            Shape::Domain(domain) => {
                self.flagged.insert(domain.to_owned());
                return line(&format!("*@{domain}"), verdict, out);
            }
            Shape::Mailbox(_) => {}
        }
        line(subject.as_str(), verdict, out)
    }

    /// The lines that follow from those before: domains of flagged accounts, and root.
    fn rest(&self, out: &mut impl Write) -> io::Result<()> {
        let mut domains = Vec::new();
        if !self.accounts.is_empty() {
            self.table.for_each_owner(|domain, account| {
                if self.accounts.contains(account) && !self.flagged.contains(domain) {
                    domains.push(domain.to_owned());
                }
            });
        }
        domains.sort_unstable();
        for domain in domains {
            let at_domain = format!("@{domain}");
            if let Ok(identity) = Identity::new(&at_domain) {
                line(&format!("*@{domain}"), self.table.verdict(&identity, None, self.now), out)?;
            }
        }
        if self.everyone { line("root", Verdict::Ok, out) } else { Ok(()) }
    }
}

/// A key in an lsearch file ends at white space or a colon unless it is quoted (specification, 9.3 "Single-key lookup
/// types").
fn line(key: &str, verdict: Verdict, out: &mut impl Write) -> io::Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@.-_*+=".contains(&byte) || !byte.is_ascii();
    if key.bytes().all(plain) {
        write!(out, "{key}")?;
    } else {
        write!(out, "\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))?;
    }
    writeln!(out, ": {}", verdict.as_str())
}
