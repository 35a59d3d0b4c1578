//! From the bytes of a text request to the bytes of its reply. Pure: no socket, no clock.
//!
//! A reply is never empty and never has a newline: a verdict and `error` are words, and a notice is taken only if it is one
//! printable line.

use crate::flag::{Timestamp, Verdict};
use crate::name::{self, Identity, MessageId, NameError};
use crate::stats::Stats;
use crate::table::Table;
use outgoingd_client::protocol::text::{self, Request};
use std::borrow::Cow;
use std::sync::atomic::Ordering::Relaxed;

/// What the reply is, for counting, and what it says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The verdict on an identity.
    Verdict(Verdict),
    /// A notice for a rejected sender.
    Notice(String),
    /// The request was not understood or its names have no normal form.
    Error,
}

/// Answers a complete request.
#[must_use]
pub fn answer(request: &[u8], table: &Table, now: Timestamp) -> Answer {
    // Whatever is wrong, and with which part, the reply is the same word.
    text::parse(request).ok().and_then(|request| look_up(&request, table, now).ok()).unwrap_or(Answer::Error)
}

fn look_up(request: &Request<'_>, table: &Table, now: Timestamp) -> Result<Answer, NameError> {
    match request {
        Request::Check { message_id, identity } => {
            let message = message_id.map(MessageId::new).transpose()?;
            Ok(Answer::Verdict(table.verdict(&read(identity, table, now)?, message.as_ref(), now)))
        }
        Request::Notice { identity } => Ok(Answer::Notice(table.notice(&read(identity, table, now)?, now))),
    }
}

/// Whom Exim means. Directories take a login with control characters for the one without (RFC 4518, 2.2 "Map"), so such a
/// login must be no way round a flag; but Exim's spelling of it may also be the name itself. The strictest reading counts.
///
/// # Errors
///
/// None of the readings has a normal form that would stop anybody, and as it stands it has none at all.
pub fn read<'a>(raw: &'a str, table: &Table, now: Timestamp) -> Result<Identity<'a>, NameError> {
    let verdict = |identity: &Identity<'_>| table.verdict(identity, None, now);
    let mut strictest = Identity::new(raw);
    for reading in name::without_controls(raw) {
        if let Ok(reading) = Identity::new(&reading)
            && verdict(&reading) > strictest.as_ref().map_or(Verdict::Ok, verdict)
        {
            strictest = Ok(reading.into_owned());
        }
    }
    strictest
}

impl Answer {
    /// The reply's bytes.
    #[must_use]
    pub fn reply(self) -> Cow<'static, [u8]> {
        match self {
            Answer::Verdict(verdict) => Cow::Borrowed(verdict.as_str().as_bytes()),
            Answer::Notice(notice) => Cow::Owned(notice.into_bytes()),
            Answer::Error => Cow::Borrowed(text::ERROR.as_bytes()),
        }
    }

    /// Counts it.
    pub fn count(&self, stats: &Stats) {
        let counter = match self {
            Answer::Verdict(Verdict::Ok) => &stats.lookups_ok,
            Answer::Verdict(Verdict::Hold) => &stats.lookups_hold,
            Answer::Verdict(Verdict::Suspend) => &stats.lookups_suspend,
            Answer::Notice(_) => &stats.notices,
            Answer::Error => &stats.malformed,
        };
        counter.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::{Flag, Kind};
    use crate::name::Subject;
    use proptest::prelude::*;

    fn table() -> Table {
        let table = Table::default();
        let flag = |notice: Option<&str>| Flag {
            since: Timestamp(0),
            until: None,
            by: "root".into(),
            reason: None,
            notice: notice.map(str::to_owned),
        };
        table.put(&Subject::new("alice").unwrap(), Kind::Hold, Some(&flag(None)));
        table.put(&Subject::new("@example.com").unwrap(), Kind::Suspend, Some(&flag(Some("call 555"))));
        table.put_pass(&MessageId::new("1rABCD-000abc-XY").unwrap(), true);
        table
    }

    fn reply(request: &[u8]) -> String {
        String::from_utf8(answer(request, &table(), Timestamp(1)).reply().into_owned()).unwrap()
    }

    #[test]
    fn requests_get_the_replies_of_the_protocol() {
        assert_eq!(reply(b"check carol"), "ok");
        assert_eq!(reply(b"check Alice"), "hold");
        assert_eq!(reply(b"check id=1rABCD-000abc-XY alice"), "ok");
        assert_eq!(reply(b"check id=1rABCD-000abc-XZ alice"), "hold");
        assert_eq!(reply(b"check id= alice\n"), "hold");
        assert_eq!(reply(b"check bob@example.com"), "suspend");
        assert_eq!(reply(b"notice bob@example.com"), "call 555");
    }

    #[test]
    fn a_name_without_a_normal_form_gets_error() {
        for request in
            [&b"check "[..], b"check a b", b"check id=x alice", b"check id= ", b"notice a\0b", b"suspend alice"]
        {
            assert_eq!(reply(request), "error", "{}", request.escape_ascii());
        }
    }

    #[test]
    fn a_control_character_is_no_way_round_a_flag() {
        for identity in [r"alice\n", r"\r\nAlice", r"ali\001ce", "ali\tce", r"alice \177", r"alice\302\200"] {
            assert_eq!(reply(format!("check id= {identity}").as_bytes()), "hold", "{identity}");
        }
        assert_eq!(reply(b"check id= bob@example.com\\n"), "suspend");
        assert_eq!(reply(b"check id=1rABCD-000abc-XY alice\\n"), "ok");
        assert_eq!(reply(b"notice bob@example.com\\n"), "call 555");
    }

    #[test]
    fn a_typed_backslash_stays_part_of_a_name() {
        let table = table();
        let flag = Flag { since: Timestamp(0), until: None, by: "root".into(), reason: None, notice: None };
        table.put(&Subject::new(r"dom\nick").unwrap(), Kind::Suspend, Some(&flag));
        table.put(&Subject::new("*").unwrap(), Kind::Hold, Some(&flag));
        let verdict = |request: &[u8]| answer(request, &table, Timestamp(1));
        for spelling in [
            br"DOM\nick".as_slice(),
            br"DOM\nick\n",
            br"DOM\ni\001ck",
            b"DOM\\nic\tk",
            br"\rdom\nick\n",
            br"\n\n\n\n\n\n\n\n\n\n\ndom\nick",
        ] {
            let request = [b"check id= ", spelling].concat();
            assert_eq!(verdict(&request), Answer::Verdict(Verdict::Suspend), "{}", spelling.escape_ascii());
        }
        assert_eq!(verdict(br"check id= ro\001ot"), Answer::Verdict(Verdict::Hold), "whoever this is, root it is not");
        assert_eq!(verdict(br"check id= root"), Answer::Verdict(Verdict::Ok));
    }

    #[test]
    fn no_identity_is_taken_for_another_one() {
        // Each of these names alice somewhere; none of them is alice.
        for identity in ["id=1rABCD-000abc-XY", "xalice", "alice@example.org", "alice\u{200b}"] {
            assert_eq!(reply(format!("check id= {identity}").as_bytes()), "ok", "{identity}");
        }
    }

    proptest! {
        #[test]
        fn a_reply_is_never_empty_and_has_no_newline(request: Vec<u8>) {
            let reply = answer(&request, &table(), Timestamp(1)).reply();
            prop_assert!(!reply.is_empty() && !reply.contains(&b'\n'));
        }

        #[test]
        fn whoever_is_asked_about_the_reply_is_one_of_the_words(identity in "\\PC{0,60}") {
            let reply = reply(format!("check id= {identity}").as_bytes());
            prop_assert!(["ok", "hold", "suspend", "error"].contains(&&*reply));
        }
    }
}
