//! The watchdog of the service manager, kept quiet by asking as Exim does.

use outgoingd_service::manager;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::warn;

/// Keeps the watchdog quiet for as long as lookups are answered, if the service manager wants that: asks over `socket` as
/// Exim does, three times in each period.
pub async fn keep_quiet(socket: PathBuf) {
    let Some(third) = manager::third_of_watchdog() else { return };
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
            Ok(reply) if reply == b"ok" => manager::quiet_watchdog(),
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
