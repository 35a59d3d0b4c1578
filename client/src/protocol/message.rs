//! The administrators' side of the socket, inner layer: the requests and replies that frames carry.
//!
//! The order of variants and fields is the wire format. A change that is not a new variant at the end of an `enum`
//! needs a new [`VERSION`](super::frame::VERSION). Times are Unix seconds. Strings are as the peer typed them; the
//! daemon brings them into normal form or refuses them.

use super::text::Verdict;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most messages, or things dropped, that one request may name.
pub const MAX_MESSAGES: usize = 1000;

/// Most subjects that one [`Request::Judge`] may name.
pub const MAX_SUBJECTS: usize = 100;

/// What a client sends: a request, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// On whose behalf, as the client says: the login behind `sudo`, the name of a token. Goes into the audit trail
    /// beside the user that the kernel names, and gives no right.
    pub on_behalf_of: Option<String>,
    /// What is wanted.
    pub request: Request,
}

/// What is wanted of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Sets a flag, or renews it. [`Reply::Changed`].
    Set {
        /// Which flag.
        kind: Kind,
        /// On what.
        subject: String,
        /// End of the flag; none: until it is cleared.
        until: Option<u64>,
        /// For administrators; none: as it was.
        reason: Option<String>,
        /// Shown to a rejected sender; none: as it was. Goes with [`Kind::Suspend`] only.
        notice: Option<String>,
    },
    /// Clears a flag. [`Reply::Changed`].
    Clear {
        /// Which flag.
        kind: Kind,
        /// On what.
        subject: String,
    },
    /// Leave to deliver for one message of a held sender. [`Reply::Changed`].
    Pass {
        /// Exim's message id.
        message_id: String,
    },
    /// What covers a subject, and to which verdict it leads. [`Reply::Status`].
    Status {
        /// An account, mailbox, domain or `*`.
        subject: String,
    },
    /// One page of all flags, in the order of their subjects. [`Reply::Flags`].
    List {
        /// Only these; none: both kinds.
        kind: Option<Kind>,
        /// The position behind which the page starts, as the page before gave it.
        after: Option<(String, Kind)>,
    },
    /// One page of the audit trail, newest first. [`Reply::Log`].
    Log {
        /// Only entries about this subject.
        subject: Option<String>,
        /// Only entries older than this sequence number.
        before: Option<u64>,
        /// At most so many entries.
        limit: u32,
    },
    /// Sets many flags at once: one transaction, one acknowledgement. [`Reply::Imported`].
    Import {
        /// The flags, with what they say about themselves.
        flags: Vec<Flag>,
    },
    /// Counters and latencies. [`Reply::Stats`].
    Stats,
    /// Waits, a bounded time, until the fallback file shows all that was changed before. [`Reply::Settled`].
    Settle,
    /// What holds for messages on Exim's queue, whose senders are read as a lookup reads them. [`Reply::Judged`].
    Judge {
        /// Whom it is about, at most [`MAX_SUBJECTS`], which need not exist; none: everyone.
        subjects: Vec<String>,
        /// The messages, at most [`MAX_MESSAGES`]. None is allowed: the subjects are looked at.
        messages: Vec<Sent>,
    },
    /// Writes into the audit trail that messages are being removed from Exim's queue. It comes before the removal, so that
    /// the trail has what was ordered; what Exim did is in Exim's log. A pass of such a message is given up in the same
    /// transaction. [`Reply::Counted`].
    Drop {
        /// What is removed, at most [`MAX_MESSAGES`].
        dropped: Vec<Dropped>,
    },
    /// One page of all passes, in the order of their message ids. [`Reply::Passes`].
    Passes {
        /// The message id behind which the page starts.
        after: Option<String>,
    },
    /// Gives up passes of messages that are gone. [`Reply::Counted`].
    Forget {
        /// At most [`MAX_MESSAGES`]; one without a pass counts for nothing.
        message_ids: Vec<String>,
    },
    /// What may stay held, as the configuration says it now. [`Reply::Retention`].
    Retention,
    /// Follows the audit trail: many [`Reply::Events`] on this connection, until either side closes it or
    /// [`Reply::Refused`] says why it ends. Whatever the peer sends meanwhile ends it.
    Watch {
        /// Only entries about this subject or message.
        subject: Option<String>,
        /// The sequence number behind which to start; none: what comes from now on.
        after: Option<u64>,
    },
    /// Whether [`Request::Set`] with the same would be refused. Changes nothing. [`Reply::Changed`], unchanged.
    Rehearse {
        /// Which flag.
        kind: Kind,
        /// On what.
        subject: String,
        /// End of the flag.
        until: Option<u64>,
        /// For administrators.
        reason: Option<String>,
        /// Shown to a rejected sender.
        notice: Option<String>,
    },
    /// One page of the accounts that are known by name, in their order. [`Reply::Accounts`].
    Accounts {
        /// The account behind which the page starts.
        after: Option<String>,
    },
    /// Makes a token, by which whoever has its secret may do what some functions take. [`Reply::Secret`].
    CreateToken {
        /// By which it is listed, revoked, and named in the audit trail.
        name: String,
        /// The functions it is good for, of [`super::function`]; none: all of them.
        functions: Vec<String>,
        /// When it ends; none: when it is revoked.
        until: Option<u64>,
    },
    /// Ends a token. [`Reply::Changed`].
    RevokeToken {
        /// Its name.
        name: String,
    },
    /// All tokens, without their secrets, which nobody has. [`Reply::Tokens`].
    Tokens,
    /// Presents a token. If it is good for the function, [`Reply::Presented`] comes back, and whatever is asked for on this
    /// connection from then on is asked for by that token, and for that function: until another is presented.
    Present {
        /// The token's secret.
        secret: Secret,
        /// The function that is to be called.
        function: String,
    },
    /// How long lookups have taken since the daemon started. [`Reply::Latencies`].
    Latencies,
    /// Where the daemon keeps what it knows, and what is wrong with that. [`Reply::Condition`].
    Condition,
}

/// What whoever has a token shows. It is not for logs: nothing of it is printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its name.
    pub name: String,
    /// The functions it is good for; none: all of them.
    pub functions: Vec<String>,
    /// When it was made.
    pub since: u64,
    /// When it ends; none: when it is revoked.
    pub until: Option<u64>,
    /// Who made it.
    pub by: String,
}

/// A message on Exim's queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Exim's message id.
    pub message_id: String,
    /// Who sent it, as Exim would ask.
    pub identity: String,
}

/// What is removed from Exim's queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// A message id, or the subject whose held mail it is.
    pub subject: String,
    /// Why, for administrators.
    pub reason: Option<String>,
}

/// The two flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// External mail waits on the queue.
    Hold,
    /// External mail is rejected, and bounced where it already waits.
    Suspend,
}

/// One flag and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    /// On what.
    pub subject: String,
    /// Which flag.
    pub kind: Kind,
    /// When it was set first. In an import, none: now.
    pub since: Option<u64>,
    /// When it ends; none: when it is cleared.
    pub until: Option<u64>,
    /// Who set it last. In an import, none: the peer.
    pub by: Option<String>,
    /// Why, for administrators.
    pub reason: Option<String>,
    /// What a rejected sender is shown.
    pub notice: Option<String>,
}

/// The daemon's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The request was not carried out.
    Refused(Refusal),
    /// The change is on disk, and lookups see it. The fallback file follows: [`Request::Settle`].
    Changed(Changed),
    /// Answer to [`Request::Status`].
    Status(Status),
    /// Answer to [`Request::List`].
    Flags {
        /// The page.
        flags: Vec<Flag>,
        /// Whether another page follows.
        more: bool,
    },
    /// Answer to [`Request::Log`].
    Log {
        /// The page, newest first.
        entries: Vec<LogEntry>,
        /// The sequence number before which to go on, if older entries may follow.
        before: Option<u64>,
    },
    /// Answer to [`Request::Import`].
    Imported(Imported),
    /// Answer to [`Request::Stats`].
    Stats(Box<Stats>),
    /// Answer to [`Request::Settle`].
    Settled {
        /// Why the fallback file does not show what was changed.
        warning: Option<String>,
    },
    /// Answer to [`Request::Judge`]: one for each message, in their order.
    Judged(Vec<Judgement>),
    /// Answer to [`Request::Drop`] and [`Request::Forget`].
    Counted {
        /// How many were recorded, or given up.
        count: u32,
    },
    /// Answer to [`Request::Passes`].
    Passes {
        /// The page.
        message_ids: Vec<String>,
        /// Whether another page follows.
        more: bool,
    },
    /// Answer to [`Request::Retention`].
    Retention(Retention),
    /// Answers to [`Request::Watch`]. The first comes at once and says that nothing is missed from now on; an empty one
    /// comes at least every ten seconds and says that the daemon is still there.
    Events {
        /// What has been done, oldest first.
        entries: Vec<LogEntry>,
    },
    /// Answer to [`Request::Accounts`].
    Accounts {
        /// The page.
        accounts: Vec<String>,
        /// Whether another page follows.
        more: bool,
    },
    /// Answer to [`Request::CreateToken`]: the token is on disk, as a hash. Its secret is told this once.
    Secret {
        /// The secret.
        secret: Secret,
    },
    /// Answer to [`Request::Tokens`], in the order of their names.
    Tokens(Vec<Token>),
    /// Answer to [`Request::Present`].
    Presented(Token),
    /// Answer to [`Request::Latencies`].
    Latencies(Latencies),
    /// Answer to [`Request::Condition`].
    Condition(Condition),
}

/// Where the daemon keeps what it knows, and what is wrong with that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// The time by the daemon's clock.
    pub now: u64,
    /// The directory of the state file.
    pub state_dir: String,
    /// The fallback file; none: none is written.
    pub fallback_file: Option<String>,
    /// What is not as it should be, a sentence each: files that cannot be written, a configuration that is wrong.
    pub troubles: Vec<String>,
}

/// How long lookups have taken, from accept to reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latencies {
    /// Each with its upper bound in nanoseconds, which belongs to it, and the lookups that took longer than the bound before
    /// and no longer than its own. Bounds ascend. What took longer than the last is in none.
    pub buckets: Vec<(u64, u64)>,
    /// How many lookups there were.
    pub count: u64,
    /// How long all of them took together, in nanoseconds.
    pub sum_ns: u64,
}

/// What holds for one message on Exim's queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The verdict on its sender, a pass not counted. `Ok` where the identity is none.
    pub verdict: Verdict,
    /// Whether the message has a pass.
    pub passed: bool,
    /// The subject of the flag that decides; none: no flag does.
    pub through: Option<String>,
    /// Whether one of the subjects asked about covers the sender, or none was asked about.
    pub covered: bool,
}

/// What may stay held, for each held subject by itself; none: whatever there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Oldest message, in seconds.
    pub max_age: Option<u64>,
    /// Most messages.
    pub max_messages: Option<u64>,
}

/// A request that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of refusal, for programs.
    pub cause: Cause,
    /// The subject, the reason and the next step, for people.
    pub message: String,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Something in the request is not well formed.
    Invalid,
    /// The subject does not exist.
    NoSuchSubject,
    /// `root` can be neither held nor suspended.
    Root,
    /// The server's `MailSend` role is off.
    RoleOff,
    /// The peer may not do that.
    NotPermitted,
    /// The state file could not be read or written. Nothing was changed.
    Storage,
    /// The daemon is stopping.
    Stopping,
    /// There is no token with that secret, or it has ended.
    NoSuchToken,
}

/// A change that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The subject in normal form, or the message id.
    pub subject: String,
    /// False when everything was already as wanted.
    pub changed: bool,
    /// What whoever made the change should know about it.
    pub warning: Option<String>,
}

/// What covers a subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The subject in normal form.
    pub subject: String,
    /// The account that owns the subject's domain, where the domain-owner map names one.
    pub owner: Option<String>,
    /// The verdict on the subject now.
    pub verdict: Verdict,
    /// The flags that cover the subject, unexpired, the deciding one first.
    pub flags: Vec<Flag>,
}

/// One entry of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Position in the trail, from 1, without gaps but for entries given up by age.
    pub sequence: u64,
    /// When.
    pub at: u64,
    /// What was done.
    pub action: Action,
    /// To which subject or message.
    pub subject: String,
    /// Until when the flag was set.
    pub until: Option<u64>,
    /// The reason given.
    pub reason: Option<String>,
    /// The notice given.
    pub notice: Option<String>,
    /// Login of the peer, as the kernel's credentials name it.
    pub by: String,
    /// Its user id.
    pub uid: u32,
    /// Its process.
    pub pid: u32,
    /// On whose behalf, as the peer said.
    pub on_behalf_of: Option<String>,
}

/// What an entry of the audit trail records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// A hold was set or renewed.
    Hold,
    /// A hold was cleared.
    Release,
    /// A suspend was set or renewed.
    Suspend,
    /// A suspend was cleared.
    Unsuspend,
    /// A pass was given.
    Pass,
    /// A hold reached its end.
    HoldExpired,
    /// A suspend reached its end.
    SuspendExpired,
    /// Mail was to be removed from Exim's queue.
    Drop,
    /// A token was made.
    TokenCreated,
    /// A token was revoked.
    TokenRevoked,
}

/// Outcome of one batch of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Flags set or renewed.
    pub changed: u32,
    /// Flags that were already so.
    pub unchanged: u32,
    /// Position in the batch, from 0, and why, of each flag that was not set.
    pub refused: Vec<(u32, Refusal)>,
}

/// Counters since the start of the daemon, and latencies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Version of the daemon.
    pub version: String,
    /// When the daemon started.
    pub started: u64,
    /// Subjects that are held, expired ones not counted.
    pub held: u64,
    /// Subjects that are suspended, expired ones not counted.
    pub suspended: u64,
    /// Passes on record.
    pub passes: u64,
    /// Lookups answered `ok`.
    pub lookups_ok: u64,
    /// Lookups answered `hold`.
    pub lookups_hold: u64,
    /// Lookups answered `suspend`.
    pub lookups_suspend: u64,
    /// Notices given.
    pub notices: u64,
    /// Requests answered `error`.
    pub malformed: u64,
    /// Peers whose request was not complete when they were accepted.
    pub slow_peers: u64,
    /// Peers that did not complete their request in time.
    pub timed_out: u64,
    /// Connections closed unread because a bound was reached.
    pub turned_away: u64,
    /// Changes carried out.
    pub changes: u64,
    /// Requests of administrators refused.
    pub refused: u64,
    /// Times the fallback file was written.
    pub fallback_writes: u64,
    /// Times it could not be written.
    pub fallback_failures: u64,
    /// Latency of lookups from accept to reply, in nanoseconds, upper bound of the bucket: half of them are faster.
    pub latency_p50_ns: u64,
    /// Nine of ten are faster.
    pub latency_p90_ns: u64,
    /// 99 of 100 are faster.
    pub latency_p99_ns: u64,
    /// 999 of 1000 are faster.
    pub latency_p999_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codec::{decode, encode};
    use proptest::prelude::*;
    use std::fmt::Debug;

    fn flag(kind: Kind) -> Flag {
        Flag {
            subject: "bob@example.com".to_owned(),
            kind,
            since: Some(1_700_000_000),
            until: None,
            by: Some("root".to_owned()),
            reason: Some("phished".to_owned()),
            notice: None,
        }
    }

    fn refusal(cause: Cause) -> Refusal {
        Refusal { cause, message: "no account alcie".to_owned() }
    }

    fn entry(action: Action) -> LogEntry {
        LogEntry {
            sequence: 7,
            at: 1_700_000_000,
            action,
            subject: "alice".to_owned(),
            until: Some(1_700_086_400),
            reason: None,
            notice: Some("call 555".to_owned()),
            by: "root".to_owned(),
            uid: 0,
            pid: 4242,
            on_behalf_of: Some("ann".to_owned()),
        }
    }

    /// Every variant of every type of a request.
    fn requests() -> Vec<Request> {
        let subject = || "alice".to_owned();
        let mut requests = vec![
            Request::Pass { message_id: "1rABCD-000abc-XY".to_owned() },
            Request::Status { subject: subject() },
            Request::List { kind: None, after: None },
            Request::Log { subject: None, before: Some(7), limit: 100 },
            Request::Import { flags: vec![flag(Kind::Hold), flag(Kind::Suspend)] },
            Request::Stats,
            Request::Settle,
        ];
        for kind in [Kind::Hold, Kind::Suspend] {
            requests.push(Request::Set { kind, subject: subject(), until: Some(1), reason: None, notice: None });
            requests.push(Request::Clear { kind, subject: subject() });
            requests.push(Request::List { kind: Some(kind), after: Some((subject(), kind)) });
        }
        let message = || "1rABCD-000abc-XY".to_owned();
        let sent = Sent { message_id: message(), identity: subject() };
        requests.extend([
            Request::Judge { subjects: vec![subject()], messages: vec![sent] },
            Request::Drop { dropped: vec![Dropped { subject: message(), reason: Some("spam".to_owned()) }] },
            Request::Passes { after: Some(message()) },
            Request::Forget { message_ids: vec![message()] },
            Request::Retention,
            Request::Watch { subject: Some(subject()), after: Some(7) },
            Request::Watch { subject: None, after: None },
            Request::Rehearse { kind: Kind::Suspend, subject: subject(), until: None, reason: None, notice: None },
        ]);
        let (name, function) = (|| "billing".to_owned(), || "version".to_owned());
        requests.extend([
            Request::Accounts { after: Some(subject()) },
            Request::CreateToken { name: name(), functions: vec![function()], until: Some(1) },
            Request::RevokeToken { name: name() },
            Request::Tokens,
            Request::Present { secret: Secret("s3cret".to_owned()), function: function() },
            Request::Latencies,
            Request::Condition,
        ]);
        requests
    }

    /// Every variant of every type of a reply.
    fn replies() -> Vec<Reply> {
        use Action::{
            Drop, Hold, HoldExpired, Pass, Release, Suspend, SuspendExpired, TokenCreated, TokenRevoked, Unsuspend,
        };
        use Cause::{Invalid, NoSuchSubject, NoSuchToken, NotPermitted, RoleOff, Root, Stopping, Storage};
        let actions = [Hold, Release, Suspend, Unsuspend, Pass, HoldExpired, SuspendExpired, Drop];
        let mut replies = vec![
            Reply::Changed(Changed { subject: "alice".to_owned(), changed: true, warning: Some("but".to_owned()) }),
            Reply::Flags { flags: vec![flag(Kind::Hold)], more: true },
            Reply::Log { entries: actions.map(entry).to_vec(), before: Some(3) },
            Reply::Imported(Imported { changed: 1, unchanged: 2, refused: vec![(3, refusal(Root))] }),
            Reply::Stats(Box::new(Stats { version: "0.1.0".to_owned(), lookups_ok: 1 << 40, ..Stats::default() })),
            Reply::Settled { warning: Some("but".to_owned()) },
        ];
        replies.extend([Verdict::Ok, Verdict::Hold, Verdict::Suspend].map(|verdict| {
            let flags = vec![flag(Kind::Suspend)];
            Reply::Status(Status { subject: "alice".to_owned(), owner: None, verdict, flags })
        }));
        let causes = [Invalid, NoSuchSubject, Root, RoleOff, NotPermitted, Storage, Stopping];
        replies.extend(causes.map(|cause| Reply::Refused(refusal(cause))));
        let judgement =
            Judgement { verdict: Verdict::Hold, passed: true, through: Some("*".to_owned()), covered: true };
        replies.extend([
            Reply::Judged(vec![judgement]),
            Reply::Counted { count: 3 },
            Reply::Passes { message_ids: vec!["1rABCD-000abc-XY".to_owned()], more: true },
            Reply::Retention(Retention { max_age: Some(2_592_000), max_messages: Some(500) }),
            Reply::Events { entries: vec![entry(Drop)] },
        ]);
        let functions = vec!["version".to_owned()];
        let token = Token { name: "billing".to_owned(), functions, since: 1, until: Some(2), by: "root".to_owned() };
        replies.extend([
            Reply::Accounts { accounts: vec!["alice".to_owned()], more: true },
            Reply::Secret { secret: Secret("s3cret".to_owned()) },
            Reply::Tokens(vec![token.clone()]),
            Reply::Presented(token),
            Reply::Events { entries: vec![entry(TokenCreated), entry(TokenRevoked)] },
            Reply::Refused(refusal(NoSuchToken)),
            Reply::Latencies(Latencies { buckets: vec![(1023, 1), (2047, 2)], count: 4, sum_ns: 9000 }),
            Reply::Condition(Condition {
                now: 1,
                state_dir: "/s".to_owned(),
                fallback_file: Some("/f".to_owned()),
                troubles: vec!["but".to_owned()],
            }),
        ]);
        replies
    }

    fn survives<T: Serialize + serde::de::DeserializeOwned + PartialEq + Debug>(value: &T) {
        assert_eq!(decode::<T>(&encode(value).unwrap()).unwrap(), *value);
    }

    fn bytes<T: Serialize>(value: &T) -> String {
        encode(value).unwrap().escape_ascii().to_string()
    }

    #[test]
    fn every_request_and_every_reply_survives_the_round_trip() {
        for request in requests() {
            survives(&Call { on_behalf_of: Some("ann".to_owned()), request });
        }
        replies().iter().for_each(survives);
    }

    #[test]
    fn requests_of_version_1_are_these_bytes() {
        let call = |request| bytes(&Call { on_behalf_of: None, request });
        let expected = [
            r"\x00\x02\x101rABCD-000abc-XY",
            r"\x00\x03\x05alice",
            r"\x00\x04\x00\x00",
            r"\x00\x05\x00\x01\x07d",
            r"\x00\x06\x02\x0fbob@example.com\x00\x01\xfc\x00\xf1Se\x00\x01\x04root\x01\x07phished\x00\x0fbob@example.com\x01\x01\xfc\x00\xf1Se\x00\x01\x04root\x01\x07phished\x00",
            r"\x00\x07",
            r"\x00\x08",
            r"\x00\x00\x00\x05alice\x01\x01\x00\x00",
            r"\x00\x01\x00\x05alice",
            r"\x00\x04\x01\x00\x01\x05alice\x00",
            r"\x00\x00\x01\x05alice\x01\x01\x00\x00",
            r"\x00\x01\x01\x05alice",
            r"\x00\x04\x01\x01\x01\x05alice\x01",
            r"\x00\t\x01\x05alice\x01\x101rABCD-000abc-XY\x05alice",
            r"\x00\n\x01\x101rABCD-000abc-XY\x01\x04spam",
            r"\x00\x0b\x01\x101rABCD-000abc-XY",
            r"\x00\x0c\x01\x101rABCD-000abc-XY",
            r"\x00\r",
            r"\x00\x0e\x01\x05alice\x01\x07",
            r"\x00\x0e\x00\x00",
            r"\x00\x0f\x01\x05alice\x00\x00\x00",
            r"\x00\x10\x01\x05alice",
            r"\x00\x11\x07billing\x01\x07version\x01\x01",
            r"\x00\x12\x07billing",
            r"\x00\x13",
            r"\x00\x14\x06s3cret\x07version",
            r"\x00\x15",
            r"\x00\x16",
        ];
        assert_eq!(requests().into_iter().map(call).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn replies_of_version_1_are_these_bytes() {
        let digest: Vec<String> = replies().iter().map(bytes).collect();
        let expected = [
            r"\x01\x05alice\x01\x01\x03but",
            r"\x03\x01\x0fbob@example.com\x00\x01\xfc\x00\xf1Se\x00\x01\x04root\x01\x07phished\x00\x01",
        ];
        assert_eq!(digest[..2], expected);
        let stats = r"\x06\x050.1.0\x00\x00\x00\x00\xfd\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
        assert_eq!(digest[4], stats);
        assert_eq!(digest[5], r"\x07\x01\x03but");
        assert_eq!(digest[9], r"\x00\x00\x10no account alcie");
        assert_eq!(digest[15], r"\x00\x06\x10no account alcie");
        let of_held_mail = [
            r"\x08\x01\x01\x01\x01\x01*\x01",
            r"\t\x03",
            r"\n\x01\x101rABCD-000abc-XY\x01",
            r"\x0b\x01\xfc\x00\x8d\'\x00\x01\xfb\xf4\x01",
            r"\x0c\x01\x07\xfc\x00\xf1Se\x07\x05alice\x01\xfc\x80BUe\x00\x01\x08call 555\x04root\x00\xfb\x92\x10\x01\x03ann",
        ];
        assert_eq!(digest[16..21], of_held_mail);
        let of_tokens = [
            r"\r\x01\x05alice\x01",
            r"\x0e\x06s3cret",
            r"\x0f\x01\x07billing\x01\x07version\x01\x01\x02\x04root",
            r"\x10\x07billing\x01\x07version\x01\x01\x02\x04root",
        ];
        assert_eq!(digest[21..25], of_tokens);
        assert_eq!(digest[26], r"\x00\x07\x10no account alcie");
        assert_eq!(digest[27], r"\x11\x02\xfb\xff\x03\x01\xfb\xff\x07\x02\x04\xfb(#");
        assert_eq!(digest[28], r"\x12\x01\x02/s\x01\x02/f\x01\x03but");
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        // An import of 2^63 flags, in a dozen bytes.
        let payload = b"\x00\x06\xfd\xff\xff\xff\xff\xff\xff\xff\x7f\x00";
        assert!(decode::<Call>(payload).is_err());
        // A subject of 4 GiB.
        assert!(decode::<Call>(b"\x00\x03\xfc\xff\xff\xff\xffalice").is_err());
    }

    #[test]
    fn bytes_behind_a_message_are_refused() {
        let mut payload = encode(&Call { on_behalf_of: None, request: Request::Stats }).unwrap();
        payload.push(0);
        assert!(decode::<Call>(&payload).is_err());
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload: Vec<u8>) {
            let _ = (decode::<Call>(&payload), decode::<Reply>(&payload));
        }
    }
}
