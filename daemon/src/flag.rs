//! The words of the domain: flags, verdicts, moments. Values and pure functions; nothing here knows a table, a socket or
//! a disk.

use crate::name::Identity;

/// A moment of the wall clock: whole Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// Ends of flags lie before this moment, 2106-02-07: they are kept in 32 bits where a million of them are kept.
pub const MAX_UNTIL: Timestamp = Timestamp(u32::MAX as u64);

/// Longest reason in bytes.
pub const MAX_REASON: usize = 1024;

/// Longest notice in bytes. With code and enhanced status it fits a reply line of 512 octets (RFC 5321, 4.5.3.1.5).
pub const MAX_NOTICE: usize = 480;

/// The two flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// External mail waits on the queue.
    Hold,
    /// External mail is rejected, and bounced where it already waits.
    Suspend,
}

/// What to do with mail of one sender identity at one moment; the stricter, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It goes its way.
    Ok,
    /// External copies wait.
    Hold,
    /// External copies are refused.
    Suspend,
}

/// One flag on one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// When it was set first.
    pub since: Timestamp,
    /// The first moment at which it is no longer in force; none: it ends when it is cleared.
    pub until: Option<Timestamp>,
    /// Who set it last.
    pub by: String,
    /// Why, for administrators.
    pub reason: Option<String>,
    /// What a rejected sender is shown.
    pub notice: Option<String>,
}

/// The ends of both flags of one subject: all that a verdict needs to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    hold: End,
    suspend: End,
}

/// When a flag ends: 0 is never set, `u32::MAX` is never ended, else the Unix second of `until`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct End(u32);

/// The flag that decides a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The flag's kind, which is the verdict.
    pub kind: Kind,
    /// The subject it is set on.
    pub subject: &'a str,
}

/// Free text that was refused. The words come behind `reason` or `notice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Over its bound.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// More than one line, or unprintable.
    #[error("has a line break or another control character in it")]
    Control,
    /// Not what an SMTP reply may hold.
    #[error("may hold printable ASCII only, as SMTP replies do (RFC 5321, 4.2)")]
    NotAscii,
}

/// The subjects that cover `identity`, the closest first: itself, its domain, the account that owns its domain, all.
pub fn covering<'a>(identity: &'a Identity<'_>, owner: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    [Some(identity.as_str()), identity.at_domain(), owner, Some("*")].into_iter().flatten()
}

/// The flag that decides about `identity` at `now`: the closest suspend in force, else the closest hold in force.
///
/// `ends_of` looks a subject up. Passes are not counted here.
pub fn decide<'a>(
    identity: &'a Identity<'_>,
    owner: Option<&'a str>,
    now: Timestamp,
    ends_of: impl Fn(&str) -> Ends,
) -> Option<Decision<'a>> {
    if identity.is_root() {
        return None;
    }
    let mut hold = None;
    for subject in covering(identity, owner) {
        let ends = ends_of(subject);
        if ends.in_force(Kind::Suspend, now) {
            return Some(Decision { kind: Kind::Suspend, subject });
        }
        if hold.is_none() && ends.in_force(Kind::Hold, now) {
            hold = Some(Decision { kind: Kind::Hold, subject });
        }
    }
    hold
}

/// The notice shown where a flag has none of its own: it names the subject, in ASCII as all notices.
#[must_use]
pub fn default_notice(subject: &str) -> String {
    if subject == "*" {
        return "Outgoing mail is suspended on this server. Please contact the postmaster.".to_owned();
    }
    let subject = subject.replace(|character: char| !character.is_ascii_graphic(), "?");
    format!("Outgoing mail of {subject} is suspended. Please contact the postmaster.")
}

/// Takes a reason: one line of printable text, or none if it is empty.
///
/// # Errors
///
/// Too long, or with control characters, which would play with an administrator's terminal.
pub fn reason(text: &str) -> Result<Option<String>, TextError> {
    line(text, MAX_REASON)
}

/// Takes a notice: one line of printable ASCII, or none if it is empty.
///
/// # Errors
///
/// Not what fits an SMTP reply line.
pub fn notice(text: &str) -> Result<Option<String>, TextError> {
    let text = line(text, MAX_NOTICE)?;
    if text.as_deref().is_some_and(|text| !text.is_ascii()) { Err(TextError::NotAscii) } else { Ok(text) }
}

fn line(text: &str, bound: usize) -> Result<Option<String>, TextError> {
    let text = text.trim();
    if text.len() > bound {
        return Err(TextError::TooLong(bound));
    }
    if text.chars().any(char::is_control) {
        return Err(TextError::Control);
    }
    Ok(Some(text).filter(|text| !text.is_empty()).map(str::to_owned))
}

impl Flag {
    /// Whether it is in force at `now`.
    #[must_use]
    pub fn in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Ends {
    /// Notes that a flag is set with this end, or not set.
    pub fn set(&mut self, kind: Kind, flag: Option<&Flag>) {
        *self.end_mut(kind) = match flag {
            None => End(0),
            // An `until` that does not fit was refused where it came in; kept as "never" it errs on the safe side.
            Some(flag) => End(flag.until.map_or(u32::MAX, |until| u32::try_from(until.0).unwrap_or(u32::MAX))),
        };
    }

    /// Whether the flag of that kind is set and has not ended.
    #[must_use]
    pub fn in_force(self, kind: Kind, now: Timestamp) -> bool {
        let End(end) = self.end(kind);
        end == u32::MAX || now.0 < u64::from(end)
    }

    /// When the flag of that kind ends, if it is set and has an end.
    #[must_use]
    pub fn until(self, kind: Kind) -> Option<Timestamp> {
        match self.end(kind) {
            End(0 | u32::MAX) => None,
            End(end) => Some(Timestamp(end.into())),
        }
    }

    /// Whether neither flag is set.
    #[must_use]
    pub fn is_clear(self) -> bool {
        self == Ends::default()
    }

    fn end(self, kind: Kind) -> End {
        match kind {
            Kind::Hold => self.hold,
            Kind::Suspend => self.suspend,
        }
    }

    fn end_mut(&mut self, kind: Kind) -> &mut End {
        match kind {
            Kind::Hold => &mut self.hold,
            Kind::Suspend => &mut self.suspend,
        }
    }
}

impl Kind {
    /// Both kinds.
    pub const BOTH: [Kind; 2] = [Kind::Hold, Kind::Suspend];

    /// The command that sets it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Hold => "hold",
            Kind::Suspend => "suspend",
        }
    }

    /// What a subject is on which it is set.
    #[must_use]
    pub const fn participle(self) -> &'static str {
        match self {
            Kind::Hold => "held",
            Kind::Suspend => "suspended",
        }
    }
}

impl Verdict {
    /// The word for it, on the socket and in the fallback file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Hold => Kind::Hold.as_str(),
            Verdict::Suspend => Kind::Suspend.as_str(),
        }
    }
}

impl From<Kind> for Verdict {
    fn from(kind: Kind) -> Verdict {
        match kind {
            Kind::Hold => Verdict::Hold,
            Kind::Suspend => Verdict::Suspend,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn flag(until: Option<u64>) -> Flag {
        Flag { since: NOW, until: until.map(Timestamp), by: "root".into(), reason: None, notice: None }
    }

    /// Decides about `identity`, whose domain `alice` owns, where `flags` are set.
    fn decided<'a>(identity: &str, flags: &[(&'a str, Kind, Option<u64>)], now: Timestamp) -> Option<(Kind, &'a str)> {
        let identity = Identity::new(identity).unwrap();
        let owner = identity.at_domain().is_some_and(|domain| domain == "@example.com").then_some("alice");
        let ends_of = |subject: &str| {
            let mut ends = Ends::default();
            for (_, kind, until) in flags.iter().filter(|(flagged, ..)| *flagged == subject) {
                ends.set(*kind, Some(&flag(*until)));
            }
            ends
        };
        let decision = decide(&identity, owner, now, ends_of)?;
        let (subject, ..) = flags.iter().find(|(flagged, ..)| *flagged == decision.subject).unwrap();
        Some((decision.kind, subject))
    }

    #[test]
    fn a_mailbox_is_stopped_by_a_flag_on_itself_its_domain_its_owner_or_everyone() {
        for subject in ["bob@example.com", "@example.com", "alice", "*"] {
            for kind in Kind::BOTH {
                assert_eq!(decided("bob@example.com", &[(subject, kind, None)], NOW), Some((kind, subject)));
            }
        }
        for subject in ["bob", "example.com", "@example.org", "carol@example.com", "bob@example.org"] {
            assert_eq!(decided("bob@example.com", &[(subject, Kind::Hold, None)], NOW), None, "{subject}");
        }
    }

    #[test]
    fn an_account_is_stopped_by_a_flag_on_itself_or_everyone_alone() {
        assert_eq!(decided("alice", &[("alice", Kind::Hold, None)], NOW), Some((Kind::Hold, "alice")));
        assert_eq!(decided("alice", &[("*", Kind::Hold, None)], NOW), Some((Kind::Hold, "*")));
        assert_eq!(decided("alice", &[("@example.com", Kind::Hold, None)], NOW), None);
    }

    #[test]
    fn suspend_beats_hold_however_far_away_it_is_set() {
        let flags = [("bob@example.com", Kind::Hold, None), ("*", Kind::Suspend, None)];
        assert_eq!(decided("bob@example.com", &flags, NOW), Some((Kind::Suspend, "*")));
    }

    #[test]
    fn among_equals_the_closest_flag_decides() {
        let flags = [("*", Kind::Hold, None), ("alice", Kind::Hold, None), ("@example.com", Kind::Hold, None)];
        assert_eq!(decided("bob@example.com", &flags, NOW), Some((Kind::Hold, "@example.com")));
    }

    #[test]
    fn a_flag_is_in_force_until_the_second_in_which_it_ends() {
        let flags = [("bob@example.com", Kind::Hold, Some(1_000))];
        assert!(decided("bob@example.com", &flags, Timestamp(999)).is_some());
        assert!(decided("bob@example.com", &flags, Timestamp(1_000)).is_none());
        assert!(flag(Some(1_000)).in_force(Timestamp(999)));
        assert!(!flag(Some(1_000)).in_force(Timestamp(1_000)));
    }

    #[test]
    fn a_suspend_that_has_ended_uncovers_a_hold() {
        let flags = [("bob@example.com", Kind::Suspend, Some(900)), ("bob@example.com", Kind::Hold, None)];
        assert_eq!(decided("bob@example.com", &flags, NOW), Some((Kind::Hold, "bob@example.com")));
    }

    #[test]
    fn root_is_stopped_by_nothing() {
        assert_eq!(decided("root", &[("*", Kind::Suspend, None), ("root", Kind::Hold, None)], NOW), None);
    }

    #[test]
    fn a_reason_is_one_printable_line_and_a_notice_is_ascii_too() {
        assert_eq!(reason(" gephischt, für immer "), Ok(Some("gephischt, für immer".to_owned())));
        assert_eq!(reason(""), Ok(None));
        assert_eq!(reason("a\x1b[2J"), Err(TextError::Control));
        assert_eq!(reason(&"a".repeat(MAX_REASON + 1)), Err(TextError::TooLong(MAX_REASON)));
        assert_eq!(notice("für"), Err(TextError::NotAscii));
        assert_eq!(notice("call 555"), Ok(Some("call 555".to_owned())));
    }

    #[test]
    fn the_default_notice_names_the_subject_and_fits_its_bound() {
        assert!(default_notice("bob@example.com").contains("bob@example.com"));
        assert!(default_notice(&"a".repeat(crate::name::MAX_NAME)).len() <= MAX_NOTICE);
    }
}
