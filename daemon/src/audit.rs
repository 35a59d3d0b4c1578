//! Entries of the audit trail: who did what, when, from where. A value and how it follows from a change; the store writes
//! it in the same transaction as the change.

use crate::change::{Action, Change, Effect, Origin};
use crate::flag::{Kind, Timestamp};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What was done.
    pub deed: Deed,
    /// To which subject or message.
    pub subject: String,
    /// Until when a flag was set.
    pub until: Option<Timestamp>,
    /// The reason of the flag that was set.
    pub reason: Option<String>,
    /// The notice of the flag that was set.
    pub notice: Option<String>,
    /// Who did it.
    pub origin: Origin,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A flag was set or renewed.
    Set(Kind),
    /// A flag was cleared.
    Cleared(Kind),
    /// A flag reached its end.
    Expired(Kind),
    /// A pass was given.
    Passed,
}

/// The entry that records what `change` did; none if it did nothing worth recording.
#[must_use]
pub fn entry(change: &Change, effect: &Effect, now: Timestamp) -> Option<Entry> {
    if *effect == Effect::Unchanged {
        return None;
    }
    let (deed, subject) = match &change.action {
        Action::Set { subject, kind, .. } => (Deed::Set(*kind), subject.as_str()),
        Action::Clear { subject, kind } => (Deed::Cleared(*kind), subject.as_str()),
        Action::Expire { subject, kind } => (Deed::Expired(*kind), subject.as_str()),
        Action::Pass { message } => (Deed::Passed, message.as_str()),
        Action::ForgetPass { .. } => return None,
    };
    let flag = if let Effect::Put(flag) = effect { Some(flag) } else { None };
    Some(Entry {
        at: now,
        deed,
        subject: subject.to_owned(),
        until: flag.and_then(|flag| flag.until),
        reason: flag.and_then(|flag| flag.reason.clone()),
        notice: flag.and_then(|flag| flag.notice.clone()),
        origin: change.origin.clone(),
    })
}
