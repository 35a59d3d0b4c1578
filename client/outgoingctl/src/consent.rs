//! Asking before messages are removed for good, and before Exim's configuration is changed.

use crate::Failure;
use crate::arguments::{Consent, Switch};
use std::io::{self, IsTerminal, Write};

impl Consent {
    /// For a command that does nothing else: asked on a terminal, and `--yes` is needed where there is none.
    pub(crate) fn must_be_given(self, question: &str) -> Result<(), Failure> {
        if self.yes { Ok(()) } else { must_ask(question, "removed") }
    }

    /// For one that was told with an option to remove something, too: asked on a terminal.
    pub(crate) fn may_be_refused(self, question: &str) -> Result<(), Failure> {
        if self.cannot_be_refused() { Ok(()) } else { ask(question) }
    }

    /// Whether that is not asked.
    pub(crate) fn cannot_be_refused(self) -> bool {
        self.yes || !io::stdin().is_terminal()
    }
}

impl Switch {
    /// Asked on a terminal, and `--yes` is needed where there is none.
    pub(crate) fn must_be_agreed(self, question: &str) -> Result<(), Failure> {
        if self.yes { Ok(()) } else { must_ask(question, "changed") }
    }
}

fn must_ask(question: &str, undone: &str) -> Result<(), Failure> {
    if io::stdin().is_terminal() {
        ask(question)
    } else {
        Err(Failure::Usage(format!("nothing was {undone}: nobody can be asked here; say --yes")))
    }
}

fn ask(question: &str) -> Result<(), Failure> {
    let failed = |source| Failure::Io { what: "cannot ask".to_owned(), source };
    let mut stderr = io::stderr();
    write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::Some("nothing was changed".to_owned())),
    }
}
