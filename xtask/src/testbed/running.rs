//! A program that runs while a test does something else, with all that it prints kept.
//!
//! It is killed when the value is dropped. Its output is taken in as it comes, so it never waits for a reader.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::command::Finished;
use super::wait_until;

/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that may not have ended yet.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Heard,
    stderr: Heard,
}

impl Running {
    /// Starts a command that becomes `program`, perhaps by way of others, and returns when it has.
    ///
    /// Before that, a signal would end one of those others. What the program does about signals by then is its own affair: a test
    /// waits for a sign of it first.
    pub(super) fn start(command: &mut Command, program: &Path) -> Result<Self> {
        let program = program.canonicalize().with_context(|| format!("no program {}", program.display()))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {}", command.get_program().display()))?;
        let stdout = Heard::listen(child.stdout.take().context("no standard output")?);
        let stderr = Heard::listen(child.stderr.take().context("no standard error")?);
        let mut running = Self { child, stdout, stderr };
        let executable = format!("/proc/{}/exe", running.id());
        wait_until("a program to be started by others", PATIENCE, || {
            // One that has ended already has been it.
            Ok(running.has_ended()? || fs::read_link(&executable).is_ok_and(|path| path == program))
        })?;
        Ok(running)
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has complained of so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Sends a signal; an error if it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(!self.has_ended()?, "it has ended: {:?} {:?}", self.stdout(), self.stderr());
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// What Ctrl-C sends (SIGINT); an error if it has ended.
    pub fn interrupt(&mut self) -> Result<()> {
        self.signal(Signal::INT)
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<Finished> {
        wait_until("a program to end", PATIENCE, || self.has_ended())?;
        let status = self.child.wait()?;
        Ok(Finished { status, stdout: self.stdout.whole(), stderr: self.stderr.whole() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What comes out of a pipe.
#[derive(Debug)]
struct Heard {
    bytes: Arc<Mutex<Vec<u8>>>,
    listener: Option<JoinHandle<()>>,
}

impl Heard {
    fn listen(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let listener = thread::spawn({
            let bytes = Arc::clone(&bytes);
            move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                    bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..length]);
                }
            }
        });
        Self { bytes, listener: Some(listener) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// The whole, once nobody can add to it.
    fn whole(&mut self) -> String {
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        self.text()
    }
}
