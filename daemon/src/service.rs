//! What the service manager is told (`sd_notify(3)`). Without one, nothing happens.

use sd_notify::NotifyState;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time;
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
/// Exim does, twice in each period.
pub async fn keep_watchdog_quiet(socket: PathBuf) {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let half = (period / 2).max(Duration::from_millis(1));
    let mut ticks = time::interval(half);
    loop {
        ticks.tick().await;
        match time::timeout(half, ask(&socket)).await {
            Ok(Ok(reply)) if reply == b"ok" => tell(&[NotifyState::Watchdog]),
            outcome => warn!("a lookup of my own was not answered: {outcome:?}"),
        }
    }
}

async fn ask(socket: &Path) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    // root's verdict is ok, whatever is set.
    stream.write_all(b"check id= root\n").await?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await?;
    Ok(reply)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("cannot tell the service manager: {error}");
    }
}
