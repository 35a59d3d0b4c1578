//! What the service manager is told (`sd_notify(3)`). Without one, nothing happens.

use sd_notify::NotifyState;
use std::time::Duration;
use tokio::time;
use tracing::warn;

/// The next connection will be served.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Configuration, certificate and key are being read again; [`ready`] says when that is done.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!("cannot tell the service manager of a reload: {error}"),
    }
}

/// Nothing new is accepted any more.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Keeps the watchdog quiet for as long as this thread, on which all connections are served, goes on; if the service manager
/// wants that.
pub(crate) async fn keep_watchdog_quiet() {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let mut thirds = time::interval((period / 3).max(Duration::from_millis(1)));
    loop {
        thirds.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("cannot tell the service manager: {error}");
    }
}
