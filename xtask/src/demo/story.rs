//! What the demonstration prints: titles, commands as one would type them, and what came back, indented.
//!
//! Bold only on a terminal.

use std::io::{self, IsTerminal, StdoutLock, Write};

use anyhow::{Context, Result};

/// Standard output, and how to write on it.
pub(super) struct Story {
    out: StdoutLock<'static>,
    bold: (&'static str, &'static str),
}

impl Story {
    pub(super) fn begin() -> Self {
        let plain = !io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some();
        let bold = if plain { ("", "") } else { ("\x1b[1m", "\x1b[0m") };
        Self { out: io::stdout().lock(), bold }
    }

    /// What comes now.
    pub(super) fn title(&mut self, text: &str) -> Result<()> {
        let (on, off) = self.bold;
        self.line(&format!("\n{on}{text}{off}"))
    }

    /// A command, as one would type it.
    pub(super) fn command(&mut self, text: &str) -> Result<()> {
        let (on, off) = self.bold;
        self.line(&format!("  $ {on}{text}{off}"))
    }

    /// What came back; nothing for nothing.
    pub(super) fn output(&mut self, text: &str) -> Result<()> {
        text.lines().filter(|line| !line.trim().is_empty()).try_for_each(|line| self.line(&format!("    {line}")))
    }

    /// A line as it is.
    pub(super) fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "{text}").context("nobody reads on")
    }
}
