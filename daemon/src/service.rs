//! What the service manager is told (`sd_notify(3)`). Without one, nothing happens.

use sd_notify::NotifyState;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::warn;

/// The next lookup will be answered.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Configuration and lists are being read again; [`ready`] says when that is done.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!("cannot tell the service manager of a reload: {error}"),
    }
}

/// Nothing new is accepted any more.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Keeps the watchdog quiet for as long as lookups are answered, if the service manager wants that: asks over `socket` as
/// Exim does, three times in each period.
pub async fn keep_watchdog_quiet(socket: PathBuf) {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let third = (period / 3).max(Duration::from_millis(1));
    let (outcomes, mut told) = mpsc::channel(1);
    // On a thread of its own, which may wait: while the queue of the socket is full, and others have to, nothing is wrong.
    let asking = move || {
        while outcomes.blocking_send(ask(&socket, third)).is_ok() {
            thread::sleep(third);
        }
    };
    if let Err(error) = thread::Builder::new().name("watchdog".to_owned()).spawn(asking) {
        warn!("cannot ask myself for the watchdog: {error}");
        return;
    }
    while let Some(outcome) = told.recv().await {
        match outcome {
            Ok(reply) if reply == b"ok" => tell(&[NotifyState::Watchdog]),
            outcome => warn!("a lookup of my own was not answered: {outcome:?}"),
        }
    }
}

fn ask(socket: &Path, patience: Duration) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    // root's verdict is ok, whatever is set.
    stream.write_all(b"check id= root\n")?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    Ok(reply)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("cannot tell the service manager: {error}");
    }
}
