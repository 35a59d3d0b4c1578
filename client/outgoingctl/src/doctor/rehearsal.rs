//! A made-up sender, held and suspended for a moment.
//!
//! Its flags end by themselves, so that a `doctor` that is killed leaves nothing behind for long. The audit trail has them.

use outgoingd_client::protocol::message::{Cause, Refusal};
use outgoingd_client::{Client, Error, Terms};

/// What the audit trail says of it.
const REASON: &str = "rehearsal of outgoingctl doctor";

/// By what a rejection is known to be ours.
pub(super) const NOTICE: &str = "This is a rehearsal of outgoingctl doctor.";

/// Seconds until the flags end by themselves: longer than an Exim takes that waits for the DNS at every question.
const END: u64 = 600;

/// The made-up sender.
pub(super) struct Rehearsal<'a> {
    identity: &'a str,
    /// Whether the daemon holds it.
    pub(super) held: Result<(), Error>,
    /// Why the fallback file does not show that.
    pub(super) unsettled: Option<String>,
    until: u64,
}

impl<'a> Rehearsal<'a> {
    /// Holds it; `now` is the daemon's time.
    pub(super) fn begin(client: &mut Client, identity: &'a str, now: u64) -> Rehearsal<'a> {
        let until = now.saturating_add(END);
        let held = client.hold(identity, &terms(until, None)).map(drop);
        let unsettled = if held.is_ok() { settle(client) } else { None };
        Rehearsal { identity, held, unsettled, until }
    }

    /// Suspends it besides.
    pub(super) fn suspend(&self, client: &mut Client) -> Result<(), Error> {
        client.suspend(self.identity, &terms(self.until, Some(NOTICE.to_owned())))?;
        // For an Exim that gets no answer, and goes by the file. What is wrong with that was said when it was held.
        settle(client);
        Ok(())
    }

    /// Clears both. Why something is left, if it is; or why it never was held.
    pub(super) fn end(self, client: &mut Client) -> Result<(), Error> {
        // One whose answer was lost may have been made.
        let unsuspended = client.unsuspend(self.identity);
        let released = client.release(self.identity);
        self.held?;
        unsuspended.and(released)?;
        let status = client.status(self.identity)?;
        if status.flags.iter().any(|flag| flag.subject == self.identity) {
            let message = format!("a flag on {} is still there", self.identity);
            return Err(Error::Refused(Refusal { cause: Cause::Storage, message }));
        }
        settle(client);
        Ok(())
    }
}

fn terms(until: u64, notice: Option<String>) -> Terms {
    Terms { until: Some(until), reason: Some(REASON.to_owned()), notice }
}

fn settle(client: &mut Client) -> Option<String> {
    client.settle().unwrap_or_else(|error| Some(error.to_string()))
}
