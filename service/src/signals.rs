//! The signals that mean something to a service.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// From when they are made on, these signals no longer end the process. To be made before READY, so that one that comes right
/// behind it finds its handler.
#[derive(Debug)]
pub struct Signals {
    /// Stop.
    pub terminate: Signal,
    /// Stop, from a terminal.
    pub interrupt: Signal,
    /// Read the files again.
    pub hang_up: Signal,
}

impl Signals {
    /// Within a runtime.
    ///
    /// # Errors
    ///
    /// The system gives no handlers.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}
