//! Takes turns: of deliveries that nobody waits for, eight are under way at a time, however many are begun.
//!
//! A turn is a lock on one of eight files beside the daemon's socket (flock(2)), and ends with the process. The files stay. Whoever
//! may not write there gets no turn.

use crate::Failure;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Turns at the same time.
const PLACES: u8 = 8;

/// How long to wait for one.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// A turn, for as long as it is kept.
pub(crate) struct Turn(#[allow(dead_code, reason = "its lock is what it is for")] OwnedFd);

/// Waits for a turn.
pub(crate) fn take(socket: &Path) -> Result<Turn, Failure> {
    let begun = Instant::now();
    loop {
        for place in 1..=PLACES {
            if let Some(turn) = try_one(socket, place)? {
                return Ok(turn);
            }
        }
        if begun.elapsed() >= PATIENCE {
            return Err(Failure::Some(format!("{PLACES} deliveries are under way")));
        }
        thread::sleep(PAUSE);
    }
}

fn try_one(socket: &Path, place: u8) -> Result<Option<Turn>, Failure> {
    let mut path = socket.as_os_str().to_owned();
    path.push(format!(".delivery-{place}"));
    let failed = |errno: Errno| Failure::Io { what: format!("cannot lock {}", path.display()), source: errno.into() };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Turn(file))),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(failed(errno)),
    }
}
