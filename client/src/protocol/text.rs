//! Exim's side of the socket: one line of text in, one word (or one notice) out, then end-of-file.
//!
//! | request | reply |
//! | --- | --- |
//! | `check IDENTITY` | `ok`, `hold` or `suspend` |
//! | `check id=MESSAGE-ID IDENTITY` | the same, a pass for that message counted |
//! | `notice IDENTITY` | the text to show a rejected sender |
//! | anything else | `error` |
//!
//! A request ends at end-of-file or at its first newline, behind which nothing may follow. `id=` may be empty (a
//! message that has no id yet) and is then the same as none. Whoever asks about identities that strangers choose uses
//! the form with `id=` always: it is the one form in which an identity that itself starts with `id=` stays an identity,
//! and so the short form refuses those.
//!
//! Parsing cuts the request into its words and looks no further: whether an identity or a message id is well formed is
//! decided by whoever looks it up.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest request in bytes, the final newline not counted.
pub const MAX_REQUEST: usize = 1024;

/// The reply to everything that is not understood or has no answer.
pub const ERROR: &str = "error";

/// One request, borrowing from the bytes it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// May this sender's mail leave?
    Check {
        /// The message that asks, where the request named one.
        message_id: Option<&'a str>,
        /// The sender identity, not yet in normal form.
        identity: &'a str,
    },
    /// What to tell this sender when mail is rejected.
    Notice {
        /// The sender identity, not yet in normal form.
        identity: &'a str,
    },
}

/// The answer to [`Request::Check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Mail goes its way.
    Ok,
    /// External copies wait on the queue.
    Hold,
    /// External copies are rejected, and bounced where they already wait.
    Suspend,
}

/// The request was not one of the three forms. There is one reply to all of these, [`ERROR`], and so one error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a request of the text protocol")]
pub struct Malformed;

/// Where the request in `received` ends: the index of the first newline, if there is one yet.
#[must_use]
pub fn end_of_request(received: &[u8]) -> Option<usize> {
    received.iter().position(|&byte| byte == b'\n')
}

/// Cuts a complete request (everything up to end-of-file, or up to and including its newline) into its words.
///
/// # Errors
///
/// [`Malformed`] when the request is too long, is not UTF-8, goes on after its newline or has not one of the three forms.
pub fn parse(request: &[u8]) -> Result<Request<'_>, Malformed> {
    let line = request.strip_suffix(b"\n").unwrap_or(request);
    if line.len() > MAX_REQUEST || line.contains(&b'\n') {
        return Err(Malformed);
    }
    let line = str::from_utf8(line).map_err(|_| Malformed)?;
    match line.split_once(' ') {
        Some(("check", rest)) => match rest.strip_prefix("id=") {
            Some(rest) => {
                let (message_id, identity) = rest.split_once(' ').ok_or(Malformed)?;
                let message_id = Some(message_id).filter(|id| !id.is_empty());
                Ok(Request::Check { message_id, identity })
            }
            None => Ok(Request::Check { message_id: None, identity: rest }),
        },
        Some(("notice", identity)) => Ok(Request::Notice { identity }),
        _ => Err(Malformed),
    }
}

/// Writes a request in the form that [`parse`] reads, without a final newline.
impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Check { message_id, identity } => {
                write!(f, "check id={} {identity}", message_id.unwrap_or_default())
            }
            Request::Notice { identity } => write!(f, "notice {identity}"),
        }
    }
}

impl Verdict {
    /// The reply's one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Hold => "hold",
            Verdict::Suspend => "suspend",
        }
    }

    /// The verdict that `reply` is, compared byte for byte; nothing else is one.
    #[must_use]
    pub fn from_reply(reply: &[u8]) -> Option<Verdict> {
        [Verdict::Ok, Verdict::Hold, Verdict::Suspend].into_iter().find(|verdict| verdict.as_str().as_bytes() == reply)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<'a>(message_id: Option<&'a str>, identity: &'a str) -> Request<'a> {
        Request::Check { message_id, identity }
    }

    #[test]
    fn a_request_is_one_of_three_forms() {
        assert_eq!(parse(b"check alice"), Ok(check(None, "alice")));
        assert_eq!(
            parse(b"check id=1abcDE-000abc-Xy bob@example.com"),
            Ok(check(Some("1abcDE-000abc-Xy"), "bob@example.com"))
        );
        assert_eq!(parse(b"notice alice"), Ok(Request::Notice { identity: "alice" }));
    }

    #[test]
    fn one_final_newline_is_allowed_and_nothing_behind_it() {
        assert_eq!(parse(b"check alice\n"), Ok(check(None, "alice")));
        assert_eq!(parse(b"check alice\n\n"), Err(Malformed));
        assert_eq!(parse(b"check alice\ncheck bob"), Err(Malformed));
        assert_eq!(end_of_request(b"check alice\nx"), Some(11));
        assert_eq!(end_of_request(b"check alice"), None);
    }

    #[test]
    fn an_empty_message_id_is_no_message_id() {
        assert_eq!(parse(b"check id= alice"), Ok(check(None, "alice")));
    }

    #[test]
    fn an_identity_that_starts_with_id_is_an_identity_in_the_long_form_and_refused_in_the_short_one() {
        assert_eq!(parse(b"check id= id=1abcDE-000abc-Xy"), Ok(check(None, "id=1abcDE-000abc-Xy")));
        assert_eq!(parse(b"check id=1abcDE-000abc-Xy"), Err(Malformed));
    }

    #[test]
    fn everything_else_is_malformed() {
        for request in [
            &b""[..],
            b"\n",
            b"check",
            b"notice",
            b"CHECK alice",
            b"checkalice",
            b"hold alice",
            b"check\talice",
            b"\xf5OGD",
            b"check \xff",
        ] {
            assert_eq!(parse(request), Err(Malformed), "{}", request.escape_ascii());
        }
    }

    #[test]
    fn a_request_may_have_1024_bytes_and_its_newline() {
        let longest = format!("check {}", "a".repeat(MAX_REQUEST - 6));
        assert!(parse(longest.as_bytes()).is_ok());
        assert!(parse(format!("{longest}\n").as_bytes()).is_ok());
        assert_eq!(parse(format!("{longest}a").as_bytes()), Err(Malformed));
    }

    #[test]
    fn a_verdict_is_read_from_its_exact_bytes_only() {
        assert_eq!(Verdict::from_reply(b"hold"), Some(Verdict::Hold));
        for reply in [&b""[..], b"hold\n", b"HOLD", b" hold", b"error"] {
            assert_eq!(Verdict::from_reply(reply), None);
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(request: Vec<u8>) {
            let _ = parse(&request);
        }

        #[test]
        fn what_is_written_is_read_again(message_id in "[0-9A-Za-z-]{0,23}", identity in "[^\n]{0,300}") {
            let message_id = Some(message_id.as_str()).filter(|id| !id.is_empty());
            let request = Request::Check { message_id, identity: &identity };
            let written = request.to_string();
            prop_assert_eq!(parse(written.as_bytes()), Ok(request));
        }
    }
}
