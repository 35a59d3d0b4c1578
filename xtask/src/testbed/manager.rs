//! The service manager as a service sees it: a socket on which it hears `READY=1` and the rest (`sd_notify(3)`).

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long starting, reloading and stopping may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A service manager, and all that it was told.
#[derive(Debug)]
pub(super) struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    /// One that listens there.
    pub(super) fn listening(path: PathBuf) -> Result<Self> {
        let socket = UnixDatagram::bind(&path)?;
        Ok(Self { path, socket, heard: Vec::new() })
    }

    /// What `NOTIFY_SOCKET` is to be.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it was told since it last forgot, a line each.
    pub(super) fn heard(&mut self) -> Result<&[String]> {
        self.listen(Duration::from_millis(1))?;
        Ok(&self.heard)
    }

    /// Forgets what it was told so far.
    pub(super) fn forget(&mut self) -> Result<()> {
        self.listen(Duration::from_millis(1))?;
        self.heard.clear();
        Ok(())
    }

    /// From now on takes in what it is told, and forgets it. A service whose manager does not listen waits for that.
    pub(super) fn go_on_listening(&self) -> Result<()> {
        let socket = self.socket.try_clone()?;
        socket.set_read_timeout(None)?;
        thread::spawn(move || while socket.recv(&mut [0; 4096]).is_ok() {});
        Ok(())
    }

    /// Waits until it was told this by a service that still runs.
    pub(super) fn wait_for(
        &mut self,
        notification: &str,
        mut service: Option<&mut Child>,
        log: impl Fn() -> String,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.heard.iter().any(|line| line == notification) {
            if Instant::now() > deadline {
                bail!("no {notification} in {PATIENCE:?}; the log:\n{}", log());
            }
            if let Some(child) = &mut service
                && let Some(status) = child.try_wait()?
            {
                bail!("the end ({status}) instead of {notification}; the log:\n{}", log());
            }
            self.listen(Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// Takes in what has been said, and waits this long for more.
    fn listen(&mut self, patience: Duration) -> Result<()> {
        self.socket.set_read_timeout(Some(patience))?;
        let mut datagram = [0; 4096];
        loop {
            let length = match self.socket.recv(&mut datagram) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("the notification socket failed"),
            };
            let text = String::from_utf8_lossy(&datagram[..length]);
            self.heard.extend(text.lines().map(str::to_owned));
            self.socket.set_read_timeout(Some(Duration::from_millis(1)))?;
        }
    }
}
