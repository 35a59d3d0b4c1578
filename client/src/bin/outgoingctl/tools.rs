//! What the commands work with: the daemon, Exim, and where to print.

use crate::Failure;
use crate::output::Output;
use indicatif::{ProgressBar, ProgressStyle};
use outgoingd_client::exim::Exim;
use outgoingd_client::protocol::message::Cause;
use outgoingd_client::{Client, Error};
use std::path::PathBuf;

/// Rows of a table that are laid out together, so that a list of a million neither waits for its end nor fills memory.
pub(crate) const TABLE_ROWS: usize = 1000;

/// What every command is handed.
pub(crate) struct Tools {
    pub(crate) client: Client,
    /// Another connection, for what is to be on record while the first one is busy with the queue.
    pub(crate) recorder: Client,
    pub(crate) output: Output,
    /// Exim's command, where the command line names one.
    pub(crate) program: Option<PathBuf>,
}

impl Tools {
    /// Exim, which whoever runs us may operate. To be asked for before anything is changed.
    pub(crate) fn exim(&self) -> Result<Exim, Failure> {
        Ok(Exim::find(self.program.as_deref())?)
    }

    /// Warns of a subject that may be mistyped. What an account has sent that is no more may still wait, so it is no error.
    pub(crate) fn warn_of_unknown(&mut self, subject: &str) -> Result<(), Failure> {
        match self.client.status(subject) {
            Err(Error::Refused(refusal)) if refusal.cause == Cause::NoSuchSubject => self.output.warn(&refusal.message),
            known => Ok(known.map(drop)?),
        }
    }
}

/// A bar over Exim's queue, on a terminal; nothing elsewhere.
pub(crate) fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} on the queue {msg}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
