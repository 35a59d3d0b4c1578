//! Exim's configuration, as Exim itself sees it: whether it accepts one, which file it reads, what an option comes to.
//!
//! Nothing here writes. Exim is not asked where its queue is, which it cannot say while its configuration is broken: that is the
//! time when somebody looks.

use super::command::{EximError, program, words};
use super::trial::ask_in_time;
use std::path::{Path, PathBuf};

/// An Exim that is asked about its configuration, or about a file that may become it.
#[derive(Clone, Debug)]
pub struct Configuration {
    program: PathBuf,
    /// In place of the one that Exim reads.
    file: Option<PathBuf>,
}

impl Configuration {
    /// Of the Exim that `named` is if that is given, else of the first one that is found.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn find(named: Option<&Path>) -> Result<Configuration, EximError> {
        Ok(Configuration { program: program(named)?, file: None })
    }

    /// The program that is asked.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The same Exim, with `file` in place of its configuration.
    #[must_use]
    pub fn with(&self, file: &Path) -> Configuration {
        Configuration { program: self.program.clone(), file: Some(file.to_path_buf()) }
    }

    /// Whether Exim accepts it (`-bV`). If not, what Exim says, in one line. Errors within expansions show only when they are used.
    ///
    /// # Errors
    ///
    /// Exim cannot be run.
    pub fn accepted(&self) -> Result<Result<(), String>, EximError> {
        Ok(self.ask(&["-bV"])?.map(drop))
    }

    /// What Exim prints about its configuration (`-bP`); what it says if it does not accept it.
    ///
    /// # Errors
    ///
    /// Exim cannot be run.
    pub fn print(&self, what: &[&str]) -> Result<Result<String, String>, EximError> {
        self.ask(&[&["-bP"], what].concat())
    }

    fn ask(&self, arguments: &[&str]) -> Result<Result<String, String>, EximError> {
        let file = self.file.as_ref().map(|file| file.to_string_lossy().into_owned());
        let chosen: Vec<&str> = file.iter().flat_map(|file| ["-C", file]).collect();
        let answer = ask_in_time(&self.program, &[&chosen, arguments].concat())?;
        Ok(if answer.status.success() {
            Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
        } else {
            Err(words(&answer))
        })
    }
}
