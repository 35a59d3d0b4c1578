//! What the commands work with: the daemon, Exim and its queue, and where to print.

use crate::Failure;
use crate::output::Output;
use indicatif::{ProgressBar, ProgressStyle};
use outgoingd_client::exim::{Exim, MessageId};
use outgoingd_client::held::{HeldError, Message, Search, Seen, Walk};
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
    /// The daemon's.
    pub(crate) socket: PathBuf,
    /// Exim's command, where the command line names one.
    pub(crate) program: Option<PathBuf>,
    /// Whom the audit trail names beside the user.
    pub(crate) on_behalf_of: Option<String>,
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

/// Why a message that was named is not one for a command: in words, and the word for programs.
pub(crate) type Refused = (String, &'static str);

/// The message that was named, if it is there and can be read; `undone` is what was not done to it otherwise.
pub(crate) fn find(walk: &mut Walk<'_>, raw: &str, undone: &str) -> Result<Result<Message, Refused>, Failure> {
    let id = match MessageId::new(raw.trim()) {
        Ok(id) => id,
        Err(error) => return Ok(Err((error.to_string(), "invalid"))),
    };
    Ok(match walk.find(id) {
        Err(HeldError::Exim(error)) if !error.is_not_permitted() => {
            Err((format!("{id} was not {undone}: {error}"), "unreadable"))
        }
        found => found?.ok_or_else(|| (format!("there is no message {id} on Exim's queue"), "no-such-message")),
    })
}

/// Hands what a search finds to `each`, with a bar. Says how many messages could not be read, each of which was warned of.
pub(crate) fn walk(
    client: &mut Client,
    output: &mut Output,
    exim: &Exim,
    search: Search<'_>,
    mut each: impl FnMut(&mut Output, Message) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let (bar, mut unreadable) = (bar(), 0);
    let begin = |total| bar.set_length(total);
    let walked = Walk::new(client, exim).along(search, begin, |seen| match seen {
        Seen::Message(message) => bar.suspend(|| each(output, *message)),
        Seen::Unreadable(error) => {
            unreadable += 1;
            bar.suspend(|| output.warn(&error.to_string()))
        }
        Seen::Further(count) => {
            bar.inc(count);
            Ok(())
        }
    });
    bar.finish_and_clear();
    walked.map(|()| unreadable)
}

/// How many messages a search finds.
pub(crate) fn count(Tools { client, output, .. }: &mut Tools, exim: &Exim, search: Search<'_>) -> Result<u64, Failure> {
    let mut count = 0;
    walk(client, output, exim, search, |_, _| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// A bar over Exim's queue, on a terminal; nothing elsewhere.
pub(crate) fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} on the queue {msg}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
