//! What Exim makes of a string: its expansions, tried out.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::Exim;
use crate::testbed::letter::Letter;

/// The result of expanding a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expansion {
    /// What it expanded to.
    Text(String),
    /// Why it failed.
    Failure(String),
}

impl Exim {
    /// Expands a string (`-be`), which must be one line.
    pub fn expand(&self, expression: &str) -> Result<Expansion> {
        self.expand_by(&["-be"], expression)
    }

    /// Expands a string that may use the headers of a letter, which are tainted as all that comes from outside (`-bem`).
    pub fn expand_with(&self, letter: &Letter, expression: &str) -> Result<Expansion> {
        let file = self.home().join("letter");
        fs::write(&file, letter.text())?;
        self.expand_by(&["-bem", &file.to_string_lossy()], expression)
    }

    /// Expands many strings, a line each, in one process, and returns what Exim prints.
    pub fn expand_lines(&self, expressions: &str) -> Result<String> {
        Ok(self.run(&[], &["-be"], expressions)?.stdout)
    }

    /// By standard input: as an argument, Exim takes at most 256 bytes.
    fn expand_by(&self, arguments: &[&str], expression: &str) -> Result<Expansion> {
        ensure!(!expression.contains('\n'), "more than one line: {expression:?}");
        let finished = self.run(&[], arguments, &format!("{expression}\n"))?;
        let answer = finished.stdout.strip_prefix("> ");
        let answer = answer.and_then(|answer| answer.strip_suffix("\n> \n"));
        let answer = answer.with_context(|| format!("no expansion: {finished:?}"))?;
        Ok(match answer.strip_prefix("Failed: ") {
            Some(reason) => Expansion::Failure(reason.to_owned()),
            None => Expansion::Text(answer.to_owned()),
        })
    }
}
