//! What the commands work with: the daemon, Exim, and where to print.

use crate::Failure;
use crate::output::Output;
use indicatif::{ProgressBar, ProgressStyle};
use outgoingd_client::Client;
use outgoingd_client::exim::Exim;
use std::path::PathBuf;

/// Rows of a table that are laid out together, so that a list of a million neither waits for its end nor fills memory.
pub(crate) const TABLE_ROWS: usize = 1000;

/// What every command is handed.
pub(crate) struct Tools {
    pub(crate) client: Client,
    pub(crate) output: Output,
    /// Exim's command, where the command line names one.
    pub(crate) program: Option<PathBuf>,
}

impl Tools {
    /// Exim, which whoever runs us may operate. To be asked for before anything is changed.
    pub(crate) fn exim(&self) -> Result<Exim, Failure> {
        Ok(Exim::find(self.program.as_deref())?)
    }
}

/// A bar over Exim's queue, on a terminal; nothing elsewhere.
pub(crate) fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} on the queue {msg}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
