//! What a command prints: reports and listings, as text for people or as JSON for programs, one object a line.
//!
//! What changes something goes on to its end, and to its exit status, when nobody reads any more what it prints; a listing stops.
//! What goes to standard error is for people, and never what ends a command.

use crate::Failure;
use crate::rows::{Done, Failed, OverBounds, Removal};
use crate::tools::Refused;
use crate::{moment, show};
use outgoingd_client::protocol::message::Changed;
use serde::Serialize;
use std::io::{self, BufWriter, Write};

const CANNOT_PRINT: &str = "cannot print";

/// Where a command prints, and in which of the two forms.
pub(crate) struct Output {
    out: BufWriter<io::StdoutLock<'static>>,
    pub(crate) json: bool,
    /// Nobody reads any more.
    closed: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Output {
        Output { out: BufWriter::new(io::stdout().lock()), json, closed: false }
    }

    pub(crate) fn changed(
        &mut self,
        command: &str,
        done: &str,
        until: Option<u64>,
        changed: &Changed,
    ) -> Result<(), Failure> {
        let Changed { subject, changed, warning } = changed;
        if self.json {
            let until = until.map(moment::rfc3339);
            return self.json(&Done { subject, command, changed: *changed, until, warning: warning.as_deref() });
        }
        let subject = show::safe(subject);
        let end = until.map(|until| format!(" until {}", moment::local(until))).unwrap_or_default();
        match changed {
            true => self.text(&format!("{subject}: {done}{end}\n"))?,
            false => self.text(&format!("{subject}: {}, nothing to do\n", already(command)))?,
        }
        match warning {
            Some(warning) => self.warn(warning),
            None => Ok(()),
        }
    }

    /// How much was removed, of a subject's mail or of several subjects' together.
    pub(crate) fn removed(&mut self, removal: &Removal<'_>) -> Result<(), Failure> {
        if self.json {
            return self.json(removal);
        }
        let Removal { subject, removed, gone, left, .. } = removal;
        let whose = subject.map(|subject| format!("{}: ", show::safe(subject))).unwrap_or_default();
        let mut line = format!("{whose}{} removed", show::messages(*removed));
        for (count, what) in [(gone, "gone meanwhile"), (left, "left")] {
            if *count > 0 {
                line = format!("{line}, {count} {what}");
            }
        }
        self.text(&(line + "\n"))
    }

    /// How much of a subject's mail is over its bounds.
    pub(crate) fn excess(&mut self, subject: &str, excess: u64) -> Result<(), Failure> {
        if self.json {
            return self.json(&OverBounds { command: "sweep", subject, excess });
        }
        let over = if excess == 1 { "is over its bounds" } else { "are over its bounds" };
        self.text(&format!("{}: {} {over}\n", show::safe(subject), show::messages(excess)))
    }

    /// That a message was removed.
    pub(crate) fn message_removed(&mut self, command: &str, id: &str) -> Result<(), Failure> {
        if self.json {
            return self.json(&Removal { command, subject: Some(id), removed: 1, gone: 0, left: 0 });
        }
        self.text(&format!("{id}: removed\n"))
    }

    /// Something for people that programs see by what else is printed.
    pub(crate) fn note(&mut self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { self.text(&format!("{text}\n")) }
    }

    pub(crate) fn failed(&mut self, failed: &Failed<'_>) -> Result<(), Failure> {
        if self.json {
            return self.json(failed);
        }
        // Reports stand in the order of their subjects, wherever the two streams go.
        self.flush()?;
        match failed.line {
            Some(line) => complain(&format!("line {line}: {}", show::safe(failed.error))),
            None => complain(&format!("{}: {}", failed.command, show::safe(failed.error))),
        }
        Ok(())
    }

    /// That a message was named which is none for a command, and why.
    pub(crate) fn refused(&mut self, command: &str, id: &str, (error, cause): &Refused) -> Result<(), Failure> {
        self.failed(&Failed { line: None, subject: Some(id), command, error, cause })
    }

    /// How a command ends that was to do several things of which some failed.
    pub(crate) fn some_failed(&mut self, command: &str, failed: usize, all: usize) -> Result<(), Failure> {
        let words = match (failed, all) {
            (0, _) => return Ok(()),
            (1, 1) => format!("{command} failed"),
            (failed, all) => format!("{command} failed for {failed} of {all}"),
        };
        self.flush().and(Err(Failure::Some(words)))
    }

    pub(crate) fn warn(&mut self, warning: &str) -> Result<(), Failure> {
        self.flush()?;
        complain(&format!("outgoingctl: warning: {}", show::safe(warning)));
        Ok(())
    }

    /// A row of a listing, which ends when nobody reads it.
    pub(crate) fn row(&mut self, row: &impl Serialize) -> Result<(), Failure> {
        self.json(row)?;
        self.is_read()
    }

    pub(crate) fn is_read(&self) -> Result<(), Failure> {
        if self.closed { Err(Failure::NobodyReads) } else { Ok(()) }
    }

    pub(crate) fn json(&mut self, row: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(row)
            .map_err(|error| Failure::Io { what: CANNOT_PRINT.to_owned(), source: error.into() })?;
        self.text(&(line + "\n"))
    }

    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        let printed = self.out.write_all(text.as_bytes());
        self.printed(printed)
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let printed = self.out.flush();
        self.printed(printed)
    }

    fn printed(&mut self, printed: io::Result<()>) -> Result<(), Failure> {
        match printed {
            Err(_) if self.closed => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            printed => printed.map_err(|source| Failure::Io { what: CANNOT_PRINT.to_owned(), source }),
        }
    }
}

/// Prints a line on standard error, where somebody may read it or not.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// How things are when a command had nothing to do.
fn already(command: &str) -> &'static str {
    match command {
        "hold" => "is held so already",
        "release" => "is not held",
        "suspend" => "is suspended so already",
        "unsuspend" => "is not suspended",
        _ => "has a pass already",
    }
}
