//! Ctrl-C, and the other ways of asking a program to end, as something to look at between two messages.

use crate::Failure;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether we have been asked to end.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the first of these signals is noted, and the second one ends the program at once, with status 1.
    pub(crate) fn listen() -> Result<Interrupt, Failure> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            // In this order: whoever asks first finds the flag down.
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&asked))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .map_err(cannot_listen)?;
        }
        Ok(Interrupt(asked))
    }

    /// From now on these signals are noted, however many come, and none ends the program: for what must not be left half done.
    pub(crate) fn note() -> Result<Interrupt, Failure> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&asked)).map_err(cannot_listen)?;
        }
        Ok(Interrupt(asked))
    }

    /// Whether we have been asked.
    pub(crate) fn came(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// As if we had been.
    pub(crate) fn stop(&self) {
        self.0.store(true, Relaxed);
    }
}

fn cannot_listen(source: io::Error) -> Failure {
    Failure::Io { what: "cannot listen for signals".to_owned(), source }
}
