//! What the demonstration prints: titles, commands as one would type them, and what came back, indented.
//!
//! Bold only on a terminal. What was printed is kept, for the picture.

use std::io::{self, IsTerminal, StdoutLock, Write};

use anyhow::{Context, Result};

/// Standard output, and how to write on it.
pub(super) struct Story {
    out: StdoutLock<'static>,
    bold: (&'static str, &'static str),
    told: Vec<Told>,
}

/// A thing that was told.
pub(super) enum Told {
    Title(String),
    Command(String),
    /// One line of it.
    Output(String),
    Line(String),
}

impl Story {
    pub(super) fn begin() -> Self {
        let plain = !io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some();
        let bold = if plain { ("", "") } else { ("\x1b[1m", "\x1b[0m") };
        Self { out: io::stdout().lock(), bold, told: Vec::new() }
    }

    /// What comes now.
    pub(super) fn title(&mut self, text: &str) -> Result<()> {
        self.tell(Told::Title(text.to_owned()))
    }

    /// A command, as one would type it.
    pub(super) fn command(&mut self, text: &str) -> Result<()> {
        self.tell(Told::Command(text.to_owned()))
    }

    /// What came back; nothing for nothing.
    pub(super) fn output(&mut self, text: &str) -> Result<()> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.try_for_each(|line| self.tell(Told::Output(line.to_owned())))
    }

    /// A line as it is.
    pub(super) fn line(&mut self, text: &str) -> Result<()> {
        self.tell(Told::Line(text.to_owned()))
    }

    /// All of it, from the beginning.
    pub(super) fn told(&self) -> &[Told] {
        &self.told
    }

    fn tell(&mut self, told: Told) -> Result<()> {
        let (on, off) = self.bold;
        match &told {
            Told::Title(text) => writeln!(self.out, "\n{on}{text}{off}"),
            Told::Command(text) => writeln!(self.out, "  $ {on}{text}{off}"),
            Told::Output(text) => writeln!(self.out, "    {text}"),
            Told::Line(text) => writeln!(self.out, "{text}"),
        }
        .context("nobody reads on")?;
        self.told.push(told);
        Ok(())
    }
}
