//! Between the types of the wire and those of the domain. Nothing is decided here.

use crate::audit::{Deed, Entry};
use crate::flag::{Flag, Kind, Timestamp, Verdict};
use crate::token::Token;
use outgoingd_client::protocol::{message, text};

impl From<message::Kind> for Kind {
    fn from(kind: message::Kind) -> Kind {
        match kind {
            message::Kind::Hold => Kind::Hold,
            message::Kind::Suspend => Kind::Suspend,
        }
    }
}

impl From<Kind> for message::Kind {
    fn from(kind: Kind) -> message::Kind {
        match kind {
            Kind::Hold => message::Kind::Hold,
            Kind::Suspend => message::Kind::Suspend,
        }
    }
}

impl From<Verdict> for text::Verdict {
    fn from(verdict: Verdict) -> text::Verdict {
        match verdict {
            Verdict::Ok => text::Verdict::Ok,
            Verdict::Hold => text::Verdict::Hold,
            Verdict::Suspend => text::Verdict::Suspend,
        }
    }
}

impl From<Deed> for message::Action {
    fn from(deed: Deed) -> message::Action {
        match deed {
            Deed::Set(Kind::Hold) => message::Action::Hold,
            Deed::Set(Kind::Suspend) => message::Action::Suspend,
            Deed::Cleared(Kind::Hold) => message::Action::Release,
            Deed::Cleared(Kind::Suspend) => message::Action::Unsuspend,
            Deed::Expired(Kind::Hold) => message::Action::HoldExpired,
            Deed::Expired(Kind::Suspend) => message::Action::SuspendExpired,
            Deed::Passed => message::Action::Pass,
            Deed::Dropped => message::Action::Drop,
            Deed::TokenCreated => message::Action::TokenCreated,
            Deed::TokenRevoked => message::Action::TokenRevoked,
        }
    }
}

/// A flag with its key, as an administrator is shown it.
#[must_use]
pub fn flag(subject: &str, kind: Kind, flag: Flag) -> message::Flag {
    message::Flag {
        subject: subject.to_owned(),
        kind: kind.into(),
        since: Some(flag.since.0),
        until: seconds(flag.until),
        by: Some(flag.by),
        reason: flag.reason,
        notice: flag.notice,
    }
}

/// An entry of the audit trail, as an administrator is shown it.
#[must_use]
pub fn entry(sequence: u64, entry: Entry) -> message::LogEntry {
    message::LogEntry {
        sequence,
        at: entry.at.0,
        action: entry.deed.into(),
        subject: entry.subject,
        until: seconds(entry.until),
        reason: entry.reason,
        notice: entry.notice,
        by: entry.origin.by,
        uid: entry.origin.uid,
        pid: entry.origin.pid,
        on_behalf_of: entry.origin.on_behalf_of,
    }
}

/// A token, as an administrator is shown it.
#[must_use]
pub fn token(name: &str, Token { functions, since, until, by, hash: _ }: Token) -> message::Token {
    message::Token { name: name.to_owned(), functions, since: since.0, until: seconds(until), by }
}

fn seconds(timestamp: Option<Timestamp>) -> Option<u64> {
    timestamp.map(|timestamp| timestamp.0)
}
