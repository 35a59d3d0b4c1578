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
    /// To which subject, message or token.
    pub subject: String,
    /// Until when a flag was set, or a token is good.
    pub until: Option<Timestamp>,
    /// The reason of the flag that was set, or of the removal; the functions of a token.
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
    /// Mail was to be removed from Exim's queue.
    Dropped,
    /// A token was made.
    TokenCreated,
    /// A token was revoked.
    TokenRevoked,
}

/// Whether what `change` did is worth recording. A pass that is given up is not: its message is gone.
#[must_use]
pub fn is_recorded(change: &Change, effect: &Effect) -> bool {
    *effect != Effect::Unchanged && !matches!(change.action, Action::ForgetPass { .. })
}

/// The entry that records what `change` did; none if it did nothing worth recording.
#[must_use]
pub fn entry(change: &Change, effect: &Effect, now: Timestamp) -> Option<Entry> {
    if !is_recorded(change, effect) {
        return None;
    }
    let (deed, subject) = match &change.action {
        Action::Set { subject, kind, .. } => (Deed::Set(*kind), subject.as_str()),
        Action::Clear { subject, kind } => (Deed::Cleared(*kind), subject.as_str()),
        Action::Expire { subject, kind } => (Deed::Expired(*kind), subject.as_str()),
        Action::Pass { message } => (Deed::Passed, message.as_str()),
        Action::Drop { mail, .. } => (Deed::Dropped, mail.as_str()),
        Action::CreateToken { name, .. } => (Deed::TokenCreated, name.as_str()),
        Action::RevokeToken { name } => (Deed::TokenRevoked, name.as_str()),
        Action::ForgetPass { .. } => return None,
    };
    let flag = if let Effect::Put(flag) = effect { Some(flag) } else { None };
    let (until, reason) = match &change.action {
        Action::Drop { reason, .. } => (None, reason.clone()),
        Action::CreateToken { token, .. } if token.functions.is_empty() => {
            (token.until, Some("all functions".to_owned()))
        }
        Action::CreateToken { token, .. } => (token.until, Some(token.functions.join(", "))),
        _ => (flag.and_then(|flag| flag.until), flag.and_then(|flag| flag.reason.clone())),
    };
    Some(Entry {
        at: now,
        deed,
        subject: subject.to_owned(),
        until,
        reason,
        notice: flag.and_then(|flag| flag.notice.clone()),
        origin: change.origin.clone(),
    })
}
