//! What functions work on: the daemon, and Exim's queue by way of `outgoingctl`.
//!
//! Whoever calls a function need not have a right on Exim's queue. One who has runs `outgoingctl` ([`Queue::Command`]); one who
//! has not, such as the HTTP service, asks a helper that runs it ([`Queue::Helper`], [`crate::helper`]).

use crate::answer::Refused;
use crate::helper;
use crate::outgoingctl::Outgoingctl;
use outgoingd_client::protocol::message::Secret;
use outgoingd_client::{Client, Error, Terms};
use std::path::PathBuf;
use std::thread;

/// The daemon and Exim's queue.
#[derive(Debug)]
pub struct Server<'a> {
    /// The daemon.
    pub client: &'a mut Client,
    /// Exim's queue.
    pub queue: Queue,
}

/// What can be done to an account's or a mailbox's outgoing mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It waits.
    Hold,
    /// It waits no longer, and Exim delivers what has waited.
    Release,
    /// It is rejected.
    Suspend,
    /// It is rejected no longer.
    Unsuspend,
}

/// How Exim's queue is reached.
#[derive(Clone, Debug)]
pub enum Queue {
    /// By running `outgoingctl`.
    Command(Outgoingctl),
    /// By asking a helper, which goes by a token and the function that is called.
    Helper {
        /// Where it listens.
        socket: PathBuf,
        /// The token's.
        secret: Secret,
        /// What is called by the token.
        function: String,
    },
}

/// What is done with Exim's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// What nothing stops any more is delivered.
    Deliver,
    /// What is held is counted.
    Count,
    /// What is held is removed.
    Delete,
}

impl Server<'_> {
    /// Changes a flag of `subject`, durably. Says what the caller should know: none of it undoes the change.
    ///
    /// # Errors
    ///
    /// In the daemon's words, which name the subject.
    pub fn change(&mut self, change: Change, subject: &str) -> Result<Vec<String>, Refused> {
        let (client, terms) = (&mut *self.client, Terms::default());
        let changed = match change {
            Change::Hold => client.hold(subject, &terms),
            Change::Release => client.release(subject),
            Change::Suspend => client.suspend(subject, &terms),
            Change::Unsuspend => client.unsuspend(subject),
        }?;
        let mut warnings = match changed.warning {
            Some(warning) if self.is_stopped_elsewhere(&changed.subject) => vec![warning],
            _ => Vec::new(),
        };
        // Whoever reads that a sender is stopped may count on it, even if the daemon is killed in the next moment.
        match self.client.settle() {
            Ok(warning) => warnings.extend(warning),
            Err(error) => {
                warnings.push(format!("whether the fallback file shows what was changed is not known: {error}"));
            }
        }
        if change == Change::Release
            && let Err(Refused(why)) = self.queue.deliver(&changed.subject)
        {
            warnings.push(format!("what has waited goes with Exim's next queue run: {why}"));
        }
        Ok(warnings)
    }

    /// Whether what still stops a sender is a flag on something else, of which WHM knows nothing. That of its own two flags the other
    /// one may be set, whoever calls WHM knows.
    fn is_stopped_elsewhere(&mut self, subject: &str) -> bool {
        let status = self.client.status(subject);
        status.is_ok_and(|status| status.flags.first().is_some_and(|deciding| deciding.subject != status.subject))
    }
}

impl Queue {
    /// Begins to have Exim deliver what waits of an account or a mailbox and nothing stops any more. That may take hours, and goes
    /// on by itself.
    ///
    /// # Errors
    ///
    /// It could not begin; the words are those of `outgoingctl`, or of the helper.
    pub fn deliver(&self, subject: &str) -> Result<(), Refused> {
        match self {
            Queue::Command(outgoingctl) => {
                let mut child = outgoingctl.deliver(subject)?;
                // Nothing is left of it when it has ended, however long this process lives; where it ends first, init waits.
                thread::Builder::new().spawn(move || child.wait()).map(drop).map_err(|error| no_thread(&error))
            }
            Queue::Helper { .. } => self.ask(Operation::Deliver, subject).map(drop),
        }
    }

    /// How many messages of an account or a mailbox are held, through whichever flag. What waits of suspended senders is not, and
    /// neither is what has a pass.
    ///
    /// # Errors
    ///
    /// They could not be counted.
    pub fn count(&self, subject: &str) -> Result<u64, Refused> {
        match self {
            Queue::Command(outgoingctl) => outgoingctl.count(subject),
            Queue::Helper { .. } => self.ask(Operation::Count, subject),
        }
    }

    /// Removes what [`Queue::count`] counts, and nothing else, from Exim's queue, without a bounce. Says how many messages that were.
    ///
    /// # Errors
    ///
    /// Some could not be removed; others may have been.
    pub fn delete(&self, subject: &str) -> Result<u64, Refused> {
        match self {
            Queue::Command(outgoingctl) => outgoingctl.delete(subject),
            Queue::Helper { .. } => self.ask(Operation::Delete, subject),
        }
    }

    /// The helper goes by the function alone, so that it must be the one that takes this operation.
    fn ask(&self, operation: Operation, subject: &str) -> Result<u64, Refused> {
        match self {
            Queue::Helper { socket, secret, function } if Operation::of(function) == Some(operation) => {
                helper::ask(socket, secret, function, subject)
            }
            _ => Err(Refused("this is not what the function that was called does with Exim's queue".to_owned())),
        }
    }
}

impl Operation {
    /// What a function does, if it does anything with Exim's queue.
    #[must_use]
    pub fn of(function: &str) -> Option<Operation> {
        match function {
            "release_outgoing_email" | "release_outgoing" => Some(Operation::Deliver),
            "get_held_message_count" => Some(Operation::Count),
            "delete_held_messages" => Some(Operation::Delete),
            _ => None,
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused(error.to_string())
    }
}

/// Why nothing can be done beside something else.
pub(crate) fn no_thread(error: &std::io::Error) -> Refused {
    Refused(format!("the system gives no thread: {error}"))
}
