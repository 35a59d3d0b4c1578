//! The fallback file: what Exim reads, by `lsearch*@`, when the daemon does not answer.
//!
//! One line for each subject with a verdict other than ok, one for each domain of a flagged account, in the form
//! `bob@example.com: hold`, `*@example.com: suspend`, `*: hold`, in no order. `lsearch*@` takes the first of
//! `bob@example.com`, `*@example.com` and `*` that it finds and looks no further, so each line carries the verdict of
//! everything that covers its key. While everyone is stopped, `root: ok` says who is not. A key with letters outside ASCII
//! stands there once more as Exim spells it.
//!
//! It is replaced by a rename, so a reader sees the old file or the new one; and synced before, so that a power failure leaves
//! one of them. Other threads may change the table meanwhile: each line is right for some moment since the writing began, and
//! what had changed before is in it.
//!
//! Honest limits: passes are not in it, so a message with a pass waits while the daemon is down. Identities are compared as
//! Exim has them, without letter case but not in normal form otherwise.

use crate::flag::{Timestamp, Verdict};
use crate::lock::{self, Lock, LockError};
use crate::name::{self, Identity, Shape};
use crate::safe;
use crate::table::Table;
use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The fallback file's place, which is this daemon's while the value lives.
#[derive(Debug)]
pub struct Fallback {
    path: PathBuf,
    temporary: PathBuf,
    mode: u32,
    _lock: Lock,
}

/// Why the fallback file is not current.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the fallback file {}: {source}", path.display())]
pub struct FallbackError {
    path: PathBuf,
    source: io::Error,
}

impl Fallback {
    /// Takes the file at `path`, which need not be there, and gives it these permissions when it is written.
    ///
    /// # Errors
    ///
    /// Another daemon writes it, or its directory cannot be used.
    pub fn new(path: &Path, mode: u32) -> Result<Fallback, LockError> {
        let io = |error| LockError::Io(path.display().to_string(), error);
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io(io::ErrorKind::InvalidInput.into()));
        };
        let path = safe::directory(directory, 0o750).map_err(io)?.join(name);
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let lock = lock::take(&beside(".lock"))?;
        Ok(Fallback { temporary: beside(".new"), path, mode, _lock: lock })
    }

    /// Puts the present state in the place of the file, synced.
    ///
    /// # Errors
    ///
    /// [`FallbackError`]; the file is then as it was.
    pub fn replace(&self, table: &Table, now: Timestamp) -> Result<(), FallbackError> {
        let written = self.write(table, now).and_then(|()| fs::rename(&self.temporary, &self.path));
        written.map_err(|source| {
            let _ = fs::remove_file(&self.temporary);
            FallbackError { path: self.path.clone(), source }
        })
    }

    /// Whether there is a file, whatever is in it.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// Keeps the present file, if it names anybody, under its name and `.before`; says where.
    ///
    /// # Errors
    ///
    /// [`FallbackError`]; the file is then where it was.
    pub fn set_aside(&self) -> Result<Option<PathBuf>, FallbackError> {
        let error = |source| FallbackError { path: self.path.clone(), source };
        match fs::read_to_string(&self.path) {
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(error(source)),
            Ok(text) if text.lines().all(|line| line.starts_with('#')) => Ok(None),
            Ok(text) => {
                let mut kept = self.path.as_os_str().to_owned();
                kept.push(".before");
                let kept = PathBuf::from(kept);
                // A copy: until the new file stands in its place, Exim goes by this one.
                let copied =
                    self.create().and_then(|mut copy| copy.write_all(text.as_bytes()).and_then(|()| copy.sync_data()));
                copied.and_then(|()| fs::rename(&self.temporary, &kept)).map_err(error)?;
                Ok(Some(kept))
            }
        }
    }

    /// Makes the temporary file, with the permissions of the one whose place it will take.
    fn create(&self) -> io::Result<File> {
        // O_EXCL: whatever somebody may have put there is not followed and not written to. What a crash has left is removed.
        let create = || File::options().write(true).create_new(true).mode(0o600).open(&self.temporary);
        let file = match create() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&self.temporary)?;
                create()?
            }
            created => created?,
        };
        file.set_permissions(Permissions::from_mode(self.mode))?;
        Ok(file)
    }

    fn write(&self, table: &Table, now: Timestamp) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 16, self.create()?);
        out.write_all(
            b"# Written by outgoingd behind each change, for Exim to read while outgoingd does not answer.\n",
        )?;
        render(table, now, &mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()
    }
}

/// Writes a line for each key.
fn render(table: &Table, now: Timestamp, out: &mut impl Write) -> io::Result<()> {
    let (mut accounts, mut domains, mut everyone) = (HashSet::new(), HashSet::new(), false);
    table.for_each_subject(|subject| {
        let verdict = table.verdict(&Identity::from_normal_form(subject), None, now);
        if verdict == Verdict::Ok {
            return Ok(());
        }
        match Shape::of(subject) {
            Shape::Everyone => everyone = true,
            Shape::Account(account) => drop(accounts.insert(account.to_owned())),
            Shape::Domain(domain) => drop(domains.insert(domain.to_owned())),
            Shape::Mailbox(_) => {}
        }
        lines(subject, verdict, out)
    })?;
    if !accounts.is_empty() {
        for (domain, account) in table.owners().iter() {
            if accounts.contains(&**account) && !domains.contains(&**domain) {
                let subject = format!("@{domain}");
                lines(&subject, table.verdict(&Identity::from_normal_form(&subject), None, now), out)?;
            }
        }
    }
    if everyone { line("root", Verdict::Ok, out) } else { Ok(()) }
}

/// The line of a subject, and another where Exim spells it otherwise.
fn lines(subject: &str, verdict: Verdict, out: &mut impl Write) -> io::Result<()> {
    let wildcard;
    let key = if subject.starts_with('@') {
        wildcard = format!("*{subject}");
        &wildcard
    } else {
        subject
    };
    line(key, verdict, out)?;
    // Letters outside ASCII stand there as they are, or as an A-label.
    let spelled = if key.is_ascii() && !key.contains("xn--") { None } else { name::as_exim_escapes(key) };
    spelled.map_or(Ok(()), |key| line(&key, verdict, out))
}

/// A key in an lsearch file ends at white space or a colon unless it is quoted (specification, 9.3 "Single-key lookup
/// types").
fn line(key: &str, verdict: Verdict, out: &mut impl Write) -> io::Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@.-_*+=".contains(&byte) || !byte.is_ascii();
    if key.bytes().all(plain) {
        out.write_all(key.as_bytes())?;
    } else {
        write!(out, "\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))?;
    }
    out.write_all(b": ")?;
    out.write_all(verdict.as_str().as_bytes())?;
    out.write_all(b"\n")
}
