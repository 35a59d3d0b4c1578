//! Real programs for tests, each started in a private directory and stopped when its value goes out of scope.
//!
//! - [`Exim`]: a real Exim that listens on a loopback port, with or without the project's snippets.
//! - [`Outside`]: the mail server of the outside world; it keeps what reaches it.
//! - [`Queued`]: a message that is put straight into the spool.
//! - [`Daemon`]: the real `outgoingd`, asked through the real `outgoingctl`.
//! - [`Whmapi`]: the real `outgoing-whmapi`, called through curl(1).
//! - [`Impostor`]: something else on the daemon's socket.
//! - [`Hostile`]: users of the same host who wish the daemon ill.
//! - [`Host`]: the directories of a Debian host, to put the snippets in as an administrator does.
//! - [`Bed`]: an Exim with the snippets, an outside world and a daemon, put together.
//! - [`Running`]: a program in the background.
//! - [`Stage`]: an Exim with the snippets, an outside world and an impostor, put together.
//! - [`smtp::Session`], [`Letter`]: a mail program, and what it sends.
//!
//! What a method starts has ended, with all deliveries, when the method returns; a test needs no pauses. Values are independent
//! of one another: tests run side by side.
//!
//! Limits: Debian and root are needed, because Exim changes users and reads its configuration from a fixed place (see [`exim`]). A test process that is killed outright leaves its servers running.

pub mod bed;
pub mod daemon;
pub mod exim;
pub mod guest;
pub mod host;
pub mod hostile;
pub mod impostor;
pub mod letter;
pub mod outside;
pub mod smtp;
pub mod stage;
pub mod whmapi;

mod command;
mod manager;
mod namespace;
mod running;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

pub use self::bed::Bed;
pub use self::command::Finished;
pub use self::daemon::Daemon;
pub use self::exim::{
    Delivery, Exim, EximBuilder, Policy, Queued, QueuedMessage, RETRY_AS_ON_DEBIAN, RETRY_FOR_SECONDS, RETRY_NEVER,
};
pub use self::guest::Guest;
pub use self::host::Host;
pub use self::hostile::{Attack, Hostile, User};
pub use self::impostor::{Behaviour, Impostor};
pub use self::letter::Letter;
pub use self::outside::Outside;
pub use self::running::Running;
pub use self::stage::Stage;
pub use self::whmapi::{Reply, Whmapi, WhmapiBuilder};

/// The domain that the Exim of the test bed delivers itself.
pub const LOCAL_DOMAIN: &str = "local.test";

/// Waits for something that notifies nobody, by looking again and again.
///
/// Fails with `what` when `deadline` has passed, and at once when the condition itself fails.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !condition()? {
        if started.elapsed() > deadline {
            bail!("waited {deadline:?} in vain for {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A directory that every user may pass through, so that Exim's user reaches the sockets and files in it.
///
/// Its path is short: a socket's path ends at 107 bytes.
pub fn public_directory() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("outgoingd-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir()
        .context("could not make a temporary directory")
}
