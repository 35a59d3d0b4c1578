//! One daemon for each state directory and each socket, by locks that the kernel drops with their holder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "closing the file gives the lock back")] File);

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another process holds {0}")]
    Held(String),
    /// The system would not let it be made.
    #[error("cannot lock {0}: {1}")]
    Io(String, io::Error),
}

/// Takes the lock file at `path`, making it if there is none.
///
/// # Errors
///
/// Another process has it, or it cannot be made.
pub fn take(path: &Path) -> Result<Lock, LockError> {
    let shown = path.display().to_string();
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow).open(path);
    let file = file.map_err(|error| LockError::Io(shown.clone(), error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(LockError::Held(shown)),
        Err(TryLockError::Error(error)) => Err(LockError::Io(shown, error)),
    }
}
