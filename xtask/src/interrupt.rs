//! Ctrl-C, and the other ways of asking a program to end, as something to look at between two steps.
//!
//! Values are dropped then as at any other end, which is what stops the servers and removes their files.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// The error of whoever ends early because of it.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl Display for Interrupted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted; everything that was started has been stopped and removed")
    }
}

impl std::error::Error for Interrupted {}

/// Listens from the time when it was made.
pub(crate) struct Interrupt {
    asked: Receiver<()>,
    ask: Sender<()>,
}

impl Interrupt {
    /// From now on none of these signals ends the program.
    pub(crate) fn listen() -> Result<Self> {
        let (ask, asked) = mpsc::channel();
        let runtime = Builder::new_current_thread().enable_io().build().context("cannot listen for signals")?;
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        drop(entered);
        let signalled = ask.clone();
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            // Nobody waits any more: the program is ending already.
            let _ = signalled.send(());
        });
        Ok(Self { asked, ask })
    }

    /// Fails if we have been asked to end.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        match self.asked.try_recv() {
            Err(TryRecvError::Empty) => Ok(()),
            Ok(()) | Err(TryRecvError::Disconnected) => Err(Interrupted),
        }
    }

    /// The same after a failure. Ctrl-C reaches the programs that we run too, and may have ended one of them before we hear of it.
    pub(crate) fn check_for_cause(&self) -> Result<(), Interrupted> {
        match self.asked.recv_timeout(Duration::from_millis(200)) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Interrupted),
        }
    }

    /// Waits until we are asked to end, or somebody presses Enter.
    pub(crate) fn wait(self) {
        let entered = self.ask.clone();
        thread::spawn(move || {
            let mut line = String::new();
            // The end of input is no key: with /dev/null there, only a signal ends the wait.
            if io::stdin().read_line(&mut line).is_ok_and(|length| length > 0) {
                let _ = entered.send(());
            }
        });
        let _ = self.asked.recv();
    }
}
