//! A change as a value, and what it does to one flag. Pure: the clock and the present flag come in, the new one goes out.
//!
//! Everything that changes state is one [`Change`] with one [`Origin`], whoever it came from; the writer takes nothing
//! else.

use crate::flag::{Flag, Kind, Timestamp};
use crate::name::{MessageId, Subject};
use crate::token::{self, Token};

/// One change and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who wants it.
    pub origin: Origin,
    /// What is wanted.
    pub action: Action,
}

/// Where a change came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Login of the peer; `outgoingd` for what the daemon does itself.
    pub by: String,
    /// The peer's user id.
    pub uid: u32,
    /// The peer's process.
    pub pid: u32,
    /// On whose behalf, as the peer said.
    pub on_behalf_of: Option<String>,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set a flag, or renew it.
    Set {
        /// On what.
        subject: Subject,
        /// Which flag.
        kind: Kind,
        /// How.
        terms: Terms,
    },
    /// Clear a flag.
    Clear {
        /// On what.
        subject: Subject,
        /// Which flag.
        kind: Kind,
    },
    /// Remove a flag if it has reached its end.
    Expire {
        /// On what.
        subject: Subject,
        /// Which flag.
        kind: Kind,
    },
    /// Let one message of a held sender be delivered.
    Pass {
        /// The message.
        message: MessageId<'static>,
    },
    /// Give up a pass.
    ForgetPass {
        /// The message.
        message: MessageId<'static>,
    },
    /// Record that mail is being removed from Exim's queue, and give up its pass.
    Drop {
        /// Which.
        mail: Mail,
        /// Why.
        reason: Option<String>,
    },
    /// Make a token, unless there is one of that name that has not ended.
    CreateToken {
        /// Its name.
        name: token::Name,
        /// What it is.
        token: Token,
    },
    /// End a token.
    RevokeToken {
        /// Its name.
        name: token::Name,
    },
}

/// Mail on Exim's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mail {
    /// One message.
    Message(MessageId<'static>),
    /// The held mail of a subject.
    Of(Subject),
}

/// How a flag is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// When it was set first; none: as it was, or now.
    pub since: Option<Timestamp>,
    /// When it ends; none: when it is cleared, even if it had an end before.
    pub until: Option<Timestamp>,
    /// Who set it; none: the origin.
    pub by: Option<String>,
    /// Why; none: as it was.
    pub reason: Option<String>,
    /// What a rejected sender is shown; none: as it was.
    pub notice: Option<String>,
}

/// What a change did to a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it was already so.
    Unchanged,
    /// The flag is now this.
    Put(Flag),
    /// The flag, the pass, or the token, is gone.
    Removed,
    /// The pass, or the token, is given.
    Given,
    /// Nothing here; what is done elsewhere is on record.
    Recorded,
}

impl Mail {
    /// The message id, or the subject.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Mail::Message(message) => message.as_str(),
            Mail::Of(subject) => subject.as_str(),
        }
    }
}

/// Sets a flag. A renewed one keeps its beginning, and its reason and notice unless the terms bring new ones. Its end is that
/// of the terms: whoever holds without an end means without an end, whatever an earlier hold said.
#[must_use]
pub fn set(current: Option<&Flag>, terms: &Terms, origin: &Origin, now: Timestamp) -> Effect {
    let current = current.filter(|flag| flag.in_force(now));
    let flag = Flag {
        since: terms.since.or(current.map(|flag| flag.since)).unwrap_or(now),
        until: terms.until,
        by: terms.by.clone().unwrap_or_else(|| origin.by.clone()),
        reason: terms.reason.clone().or_else(|| current?.reason.clone()),
        notice: terms.notice.clone().or_else(|| current?.notice.clone()),
    };
    match current {
        // Who said the same again is no news: the flag stays theirs who set it.
        Some(current) if *current == (Flag { by: current.by.clone(), ..flag.clone() }) => Effect::Unchanged,
        _ => Effect::Put(flag),
    }
}

/// Clears a flag. One that has reached its end is as good as gone, and left to [`expire`].
#[must_use]
pub fn clear(current: Option<&Flag>, now: Timestamp) -> Effect {
    match current {
        Some(flag) if flag.in_force(now) => Effect::Removed,
        _ => Effect::Unchanged,
    }
}

/// Makes a token. Where there is one of that name, it is to be revoked first, unless it has ended: programs may still use it.
#[must_use]
pub fn create_token(current: Option<&Token>, now: Timestamp) -> Effect {
    if current.is_some_and(|token| token.in_force(now)) { Effect::Unchanged } else { Effect::Given }
}

/// Removes a flag that has reached its end.
#[must_use]
pub fn expire(current: Option<&Flag>, now: Timestamp) -> Effect {
    match current {
        Some(flag) if !flag.in_force(now) => Effect::Removed,
        _ => Effect::Unchanged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn origin(by: &str) -> Origin {
        Origin { by: by.to_owned(), uid: 0, pid: 1, on_behalf_of: None }
    }

    fn held(until: Option<u64>) -> Flag {
        Flag {
            since: Timestamp(500),
            until: until.map(Timestamp),
            by: "root".to_owned(),
            reason: Some("phished".to_owned()),
            notice: None,
        }
    }

    #[test]
    fn a_renewed_hold_keeps_its_beginning_and_reason_and_takes_the_new_end() {
        let effect = set(Some(&held(Some(2_000))), &Terms::default(), &origin("ann"), NOW);
        assert_eq!(effect, Effect::Put(Flag { until: None, by: "ann".to_owned(), ..held(None) }));
    }

    #[test]
    fn the_same_again_changes_nothing() {
        assert_eq!(set(Some(&held(None)), &Terms::default(), &origin("ann"), NOW), Effect::Unchanged);
    }

    #[test]
    fn a_hold_behind_its_end_begins_anew() {
        let effect = set(Some(&held(Some(900))), &Terms::default(), &origin("ann"), NOW);
        let fresh = Flag { since: NOW, until: None, by: "ann".to_owned(), reason: None, notice: None };
        assert_eq!(effect, Effect::Put(fresh));
    }

    #[test]
    fn clearing_what_is_not_set_changes_nothing() {
        assert_eq!(clear(None, NOW), Effect::Unchanged);
        assert_eq!(clear(Some(&held(Some(900))), NOW), Effect::Unchanged);
        assert_eq!(clear(Some(&held(None)), NOW), Effect::Removed);
    }

    #[test]
    fn only_a_flag_behind_its_end_expires() {
        assert_eq!(expire(Some(&held(Some(1_001))), NOW), Effect::Unchanged);
        assert_eq!(expire(Some(&held(None)), NOW), Effect::Unchanged);
        assert_eq!(expire(Some(&held(Some(1_000))), NOW), Effect::Removed);
        assert_eq!(expire(None, NOW), Effect::Unchanged);
    }
}
