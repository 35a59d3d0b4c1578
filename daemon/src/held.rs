//! What administrators ask and say about mail on Exim's queue: the verdicts on its senders, passes, what is removed, how much
//! may stay held.
//!
//! The daemon never looks into the queue and never touches it: `outgoingctl` does, and asks here. So a judgement holds for
//! what it was asked about, at this moment, and a removal is on record before it is carried out, which the daemon does not
//! see. The bounds on how much may stay are kept here for `outgoingctl sweep`, and in force when that runs.

use crate::answer;
use crate::change::{Action, Change, Effect, Mail, Origin};
use crate::flag::{self, Timestamp, Verdict};
use crate::name::{Identity, MessageId, Subject};
use crate::requests::{PAGE, ROW, Requests, invalid, subject, unreadable};
use crate::table::Table;
use outgoingd_client::protocol::message::{
    Cause, Dropped, Judgement, MAX_MESSAGES, MAX_SUBJECTS, Refusal, Reply, Retention, Sent,
};
use outgoingd_client::protocol::text;
use std::collections::BTreeSet;

/// Messages that are judged before others have their turn.
const PART: usize = 50;

/// What holds for one message at `now`, and whether `subjects`, in normal form, cover its sender.
#[must_use]
pub fn judgement(sent: &Sent, subjects: &BTreeSet<&str>, table: &Table, now: Timestamp) -> Judgement {
    let passed = MessageId::new(&sent.message_id).is_ok_and(|message| table.has_pass(&message));
    // As Exim asks, so that whatever it is answered no verdict on has none here either.
    let question = text::Request::Check { message_id: None, identity: &sent.identity }.to_string();
    let named = match text::parse(question.as_bytes()) {
        Ok(text::Request::Check { identity, .. }) => answer::read(identity, table, now).ok().map(Identity::into_owned),
        _ => None,
    };
    // Without a verdict of ours, Exim knows of no passes.
    let passed = passed && named.is_some();
    let identity = named.unwrap_or_else(|| nameless(&sent.identity));
    let covered = subjects.is_empty()
        || if identity.is_root() {
            // Whatever is done to everyone is not done to root.
            subjects.contains("root")
        } else {
            table.covering(&identity).iter().any(|name| subjects.contains(name.as_str()))
        };
    let deciding = table.deciding(&identity, now);
    let verdict = deciding.as_ref().map_or(Verdict::Ok, |(_, kind)| (*kind).into());
    Judgement { verdict: verdict.into(), passed, through: deciding.map(|(name, _)| name), covered }
}

/// Whom Exim takes a sender for whose name has no normal form. It is answered `error` and goes by the fallback file, which knows
/// such a one as somebody of the domain, or as anybody. No flag is on either name itself.
fn nameless(raw: &str) -> Identity<'static> {
    let somebody = raw.rsplit_once('@').map(|(_, domain)| format!("*@{domain}"));
    let somebody = somebody.and_then(|name| Identity::new(&name).ok().map(Identity::into_owned));
    somebody.unwrap_or(Identity::from_normal_form("*"))
}

/// Takes the name of mail on the queue: a message id, or a subject.
pub(crate) fn mail(raw: &str) -> Result<Mail, Refusal> {
    match MessageId::new(raw.trim()) {
        Ok(message) => Ok(Mail::Message(message.into_owned())),
        Err(_) => subject(raw).map(Mail::Of),
    }
}

impl Requests {
    /// All of it is in memory, and done a part at a time: a thousand senders whose names are made to be read in many ways take a
    /// quarter of a second, in which others want to be served.
    pub(crate) async fn judge(&self, subjects: &[String], messages: &[Sent]) -> Result<Reply, Refusal> {
        few("subjects", subjects.len(), MAX_SUBJECTS)?;
        few("messages", messages.len(), MAX_MESSAGES)?;
        let subjects = subjects.iter().map(|raw| subject(raw)).collect::<Result<Vec<_>, _>>()?;
        let subjects = subjects.iter().map(Subject::as_str).collect();
        let (now, mut judgements) = (self.clock.now(), Vec::with_capacity(messages.len()));
        for part in messages.chunks(PART) {
            judgements.extend(part.iter().map(|sent| judgement(sent, &subjects, &self.table, now)));
            tokio::task::yield_now().await;
        }
        Ok(Reply::Judged(judgements))
    }

    /// Says how many entries it made. Whether the server sends mail does not matter: what waits may have come before.
    pub(crate) async fn record_drop(
        &self,
        origin: Result<Origin, Refusal>,
        dropped: Vec<Dropped>,
    ) -> Result<Reply, Refusal> {
        let origin = origin?;
        few("messages", dropped.len(), MAX_MESSAGES)?;
        let change = |Dropped { subject, reason }| {
            let mail = mail(&subject)?;
            let wrong = |error| Refusal {
                cause: Cause::Invalid,
                message: format!("nothing was recorded: the reason {error}; write one short line"),
            };
            let reason = reason.as_deref().map(flag::reason).transpose().map_err(wrong)?.flatten();
            Ok(Change { origin: origin.clone(), action: Action::Drop { mail, reason } })
        };
        self.write_counted(dropped.into_iter().map(change).collect::<Result<_, _>>()?).await
    }

    pub(crate) async fn forget(
        &self,
        origin: Result<Origin, Refusal>,
        message_ids: &[String],
    ) -> Result<Reply, Refusal> {
        let origin = origin?;
        few("messages", message_ids.len(), MAX_MESSAGES)?;
        let change = |raw: &String| {
            let message = MessageId::new(raw.trim()).map_err(|error| invalid(raw, &error))?.into_owned();
            Ok(Change { origin: origin.clone(), action: Action::ForgetPass { message } })
        };
        self.write_counted(message_ids.iter().map(change).collect::<Result<_, _>>()?).await
    }

    async fn write_counted(&self, changes: Vec<Change>) -> Result<Reply, Refusal> {
        let effects = self.write(changes).await?;
        let count = effects.iter().filter(|effect| **effect != Effect::Unchanged).count();
        Ok(Reply::Counted { count: u32::try_from(count).unwrap_or(u32::MAX) })
    }

    pub(crate) fn passes(&self, after: Option<&str>) -> Result<Reply, Refusal> {
        let (mut message_ids, mut size, mut more) = (Vec::new(), 0, false);
        let walked = self.store.passes_after(after, |message, _| {
            if size >= PAGE || !self.goes_on() {
                more = true;
                return false;
            }
            size += ROW + message.as_str().len();
            message_ids.push(message.as_str().to_owned());
            true
        });
        walked.map_err(|error| unreadable(&error))?;
        Ok(Reply::Passes { message_ids, more })
    }

    pub(crate) fn retention(&self) -> Retention {
        let policy = self.policy();
        Retention { max_age: policy.held.max_age.map(|age| age.0.as_secs()), max_messages: policy.held.max_messages }
    }
}

fn few(what: &str, count: usize, most: usize) -> Result<(), Refusal> {
    if count <= most {
        return Ok(());
    }
    Err(Refusal { cause: Cause::Invalid, message: format!("{count} {what} at once; send at most {most}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Answer, answer};
    use crate::flag::{Flag, Kind};
    use crate::table::Owners;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_000);
    const PASSED: &str = "1rABCD-000abc-XY";
    const OTHER: &str = "1rABCE-000abc-XY";

    fn table(everyone: Option<Kind>) -> Table {
        let table = Table::default();
        table.replace_owners(Owners::from([("example.com".into(), "alice".into())]));
        let flag = |until| Flag { since: Timestamp(0), until, by: "root".into(), reason: None, notice: None };
        for (subject, kind, until) in [
            ("alice", Kind::Hold, None),
            (r"dom\nick", Kind::Suspend, None),
            ("bob@example.com", Kind::Suspend, None),
            ("carol", Kind::Suspend, Some(NOW)),
            ("@b\u{fc}cher.example", Kind::Hold, None),
        ] {
            table.put(&Subject::new(subject).unwrap(), kind, Some(&flag(until)));
        }
        if let Some(kind) = everyone {
            table.put(&Subject::new("*").unwrap(), kind, Some(&flag(None)));
        }
        table.put_pass(&MessageId::new(PASSED).unwrap(), true);
        table
    }

    /// The judgement on `identity` says what a lookup about it is answered, with and without a pass. What is answered `error` is
    /// judged as somebody of its domain whom nobody has heard of, or else as anybody, and has no pass.
    fn agrees(identity: &str, table: &Table) -> Result<(), TestCaseError> {
        for message in ["", OTHER, PASSED] {
            let sent = Sent { message_id: message.to_owned(), identity: identity.to_owned() };
            let judged = judgement(&sent, &BTreeSet::new(), table, NOW);
            let answered = answer(format!("check id={message} {identity}").as_bytes(), table, NOW);
            prop_assert_eq!(judged.passed, message == PASSED && answered != Answer::Error);
            prop_assert_eq!(judged.through.is_some(), judged.verdict != text::Verdict::Ok);
            let lifted = judged.passed && judged.verdict == text::Verdict::Hold;
            let verdict = if lifted { text::Verdict::Ok } else { judged.verdict };
            let domain = identity
                .rsplit_once('@')
                .and_then(|(_, domain)| Identity::new(&format!("nobody@{domain}")).ok().map(Identity::into_owned));
            let somebody = domain.unwrap_or(Identity::from_normal_form("*"));
            let expected = match answered {
                Answer::Verdict(answered) => answered.into(),
                _ => table.verdict(&somebody, None, NOW).into(),
            };
            prop_assert!(judged.covered);
            prop_assert_eq!(verdict, expected, "{}", identity);
        }
        Ok(())
    }

    #[test]
    fn a_judgement_says_what_a_lookup_is_answered_whatever_the_login_looks_like() {
        let longest = "a".repeat(crate::name::MAX_NAME);
        let too_long = "\\b".repeat(text::MAX_REQUEST);
        for everyone in [None, Some(Kind::Hold), Some(Kind::Suspend)] {
            for identity in [
                "alice",
                " ALICE ",
                r"alice\n",
                r"\r\nAlice",
                r"ali\001ce",
                "ali\tce",
                "alice\n",
                r"DOM\nick",
                r"dom\nick\n",
                "dom\\nick",
                r"ro\001ot",
                "root",
                "ROOT",
                "bob@example.com",
                "ann@Example.COM.",
                r"ann@example.com\n",
                r"x@b\303\274cher.example",
                "x@xn--bcher-kva.example",
                "carol",
                "dave",
                "@example.com",
                "*",
                "a b",
                "",
                "a@b@c",
                "a\0b",
                "id=1rABCD-000abc-XY",
                &longest,
                &too_long,
            ] {
                agrees(identity, &table(everyone)).unwrap();
            }
        }
    }

    proptest! {
        #[test]
        fn a_judgement_says_what_a_lookup_is_answered(identity in r"(alice|dom.nick|x@example.com|\\n|\\001|\PC|[\x00-\x7f]){0,6}") {
            for everyone in [None, Some(Kind::Hold)] {
                agrees(&identity, &table(everyone))?;
            }
        }
    }
}
