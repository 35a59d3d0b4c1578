//! The JSON that programs see: one object a line. Names and shapes here are part of the interface.

use crate::moment;
use mail_parser::MessageParser;
use outgoingd_client::exim::{MessageId, Outcome};
use outgoingd_client::held::Message;
use outgoingd_client::protocol::message::{self, Action, Cause, Kind, LogEntry, Stats, Status, Token};
use serde::{Deserialize, Serialize};

/// A flag, as `list`, `status` and `export` print it and `import` reads it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flag {
    pub(crate) subject: String,
    #[serde(rename = "flag")]
    pub(crate) kind: KindName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) notice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KindName {
    Hold,
    Suspend,
}

/// What became of one subject or message.
#[derive(Serialize)]
pub(crate) struct Done<'a> {
    pub(crate) subject: &'a str,
    pub(crate) command: &'a str,
    pub(crate) changed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warning: Option<&'a str>,
}

/// What became of Exim's configuration, or would with `--dry-run`.
#[derive(Default, Serialize)]
pub(crate) struct Switched<'a> {
    pub(crate) command: &'a str,
    /// Whose configuration it is.
    pub(crate) home: &'a str,
    pub(crate) changed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reloaded: Option<bool>,
    /// Those that are written or removed.
    pub(crate) files: Vec<String>,
    /// As diff(1) shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) difference: Option<&'a str>,
    /// Messages of stopped senders that go out then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waiting: Option<u64>,
    /// What is left to whoever administers the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) paste: Vec<Paste>,
    /// Options of the site's own that outgoingd's parts have set from macros, and that nothing sets without them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) put_back: Vec<String>,
}

/// Lines, and where they belong.
#[derive(Serialize)]
pub(crate) struct Paste {
    pub(crate) file: String,
    pub(crate) place: String,
    pub(crate) lines: Vec<String>,
}

/// What did not become of one subject, message or line.
#[derive(Serialize)]
pub(crate) struct Failed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<&'a str>,
    pub(crate) command: &'a str,
    pub(crate) error: &'a str,
    pub(crate) cause: &'a str,
}

#[derive(Serialize)]
pub(crate) struct StatusRow {
    subject: String,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// The first one decides.
    flags: Vec<Flag>,
}

#[derive(Serialize)]
pub(crate) struct CheckRow<'a> {
    pub(crate) identity: &'a str,
    pub(crate) verdict: &'static str,
    pub(crate) microseconds: u64,
}

#[derive(Serialize)]
pub(crate) struct LogRow {
    sequence: u64,
    at: String,
    action: &'static str,
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<String>,
    by: String,
    uid: u32,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_behalf_of: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct ImportRow {
    pub(crate) changed: u64,
    pub(crate) unchanged: u64,
    pub(crate) refused: u64,
}

/// A held message.
#[derive(Serialize)]
pub(crate) struct HeldRow {
    pub(crate) message_id: String,
    /// The subject whose hold keeps it back.
    pub(crate) held_through: String,
    pub(crate) received: String,
    /// Seconds.
    pub(crate) age: u64,
    /// Bytes, headers included.
    pub(crate) size: u64,
    pub(crate) identity: String,
    /// Envelope sender; empty for a bounce.
    pub(crate) sender: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subject_line: Option<String>,
    pub(crate) recipients: Vec<String>,
    pub(crate) frozen: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) queue: Option<String>,
}

/// What one subject's hold keeps back.
#[derive(Serialize)]
pub(crate) struct SummaryRow<'a> {
    pub(crate) subject: &'a str,
    pub(crate) messages: u64,
    pub(crate) size: u64,
    pub(crate) recipients: u64,
    /// When the oldest one came in.
    pub(crate) oldest: String,
}

/// That Exim is about to deliver what waits; so many messages are on its queue, whosesoever they are.
#[derive(Serialize)]
pub(crate) struct Delivering<'a> {
    pub(crate) command: &'a str,
    pub(crate) on_queue: u64,
}

/// What became of one message that Exim was to deliver.
#[derive(Serialize)]
pub(crate) struct Delivered {
    command: &'static str,
    message_id: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What became of all of them.
#[derive(Serialize)]
pub(crate) struct DeliveredTotal {
    pub(crate) command: &'static str,
    pub(crate) delivered: u64,
    /// Delivered or removed by somebody else before we came to it.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) gone: u64,
    pub(crate) failed: u64,
    pub(crate) waiting: u64,
    pub(crate) left: u64,
}

/// What was removed from Exim's queue.
#[derive(Serialize)]
pub(crate) struct Removal<'a> {
    pub(crate) command: &'a str,
    /// A subject or a message id; none for what a sweep removed of all subjects together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<&'a str>,
    pub(crate) removed: u64,
    /// Delivered before they could be removed, or gone in another way.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) gone: u64,
    /// Still on the queue.
    pub(crate) left: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

/// How much held mail is over its bounds.
#[derive(Serialize)]
pub(crate) struct OverBounds<'a> {
    pub(crate) command: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) excess: u64,
}

/// Passes of messages that are gone.
#[derive(Serialize)]
pub(crate) struct Forgotten {
    pub(crate) command: &'static str,
    pub(crate) passes_gone: u64,
}

/// What waits of senders who were suspended, and will be bounced.
#[derive(Serialize)]
pub(crate) struct Bouncing {
    pub(crate) command: &'static str,
    pub(crate) waiting: u64,
}

/// What `doctor` has found by one check.
#[derive(Serialize)]
pub(crate) struct FindingRow<'a> {
    pub(crate) check: &'a str,
    /// `ok`, `warning`, `failed` or `unknown`.
    pub(crate) result: &'a str,
    pub(crate) found: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<&'a str>,
}

/// A token that was made.
#[derive(Serialize)]
pub(crate) struct NewToken<'a> {
    pub(crate) command: &'static str,
    pub(crate) name: &'a str,
    pub(crate) secret: &'a str,
    /// None: all of them.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(crate) functions: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<String>,
}

/// A token, without its secret.
#[derive(Serialize)]
pub(crate) struct TokenRow {
    name: String,
    /// None: all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    functions: Vec<String>,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// Whether that has come.
    ended: bool,
    by: String,
}

impl TokenRow {
    pub(crate) fn new(token: Token, now: u64) -> TokenRow {
        let ended = has_ended(&token, now);
        let Token { name, functions, since, until, by } = token;
        TokenRow { name, functions, since: moment::rfc3339(since), until: until.map(moment::rfc3339), ended, by }
    }
}

/// Whether a token is good for nothing any more.
pub(crate) fn has_ended(token: &Token, now: u64) -> bool {
    token.until.is_some_and(|until| until <= now)
}

impl HeldRow {
    pub(crate) fn new(message: Message, size: u64, now: u64) -> HeldRow {
        let Message { place, header, judgement, .. } = message;
        HeldRow {
            message_id: place.id.to_string(),
            held_through: judgement.through.unwrap_or_default(),
            received: moment::rfc3339(header.received),
            age: now.saturating_sub(header.received),
            size,
            identity: header.identity.unwrap_or_default(),
            sender: header.sender,
            subject_line: header.subject.as_deref().and_then(readable),
            recipients: header.to_go,
            frozen: header.frozen,
            queue: place.queue.map(|queue| queue.to_string()),
        }
    }
}

/// A subject line as people read it.
fn readable(raw: &[u8]) -> Option<String> {
    let header = [b"Subject: ", raw, b"\n\n"].concat();
    MessageParser::default().parse_headers(&header[..])?.subject().map(str::to_owned)
}

impl Delivered {
    pub(crate) fn new(command: &'static str, id: MessageId, outcome: &Outcome) -> Delivered {
        let (outcome, reason) = match outcome {
            Outcome::Delivered => ("delivered", None),
            Outcome::Gone => ("gone", None),
            Outcome::Failed(reason) => ("failed", Some(reason.clone())),
            Outcome::Waiting(reason) => ("waiting", Some(reason.clone())),
        };
        Delivered { command, message_id: id.to_string(), outcome, reason }
    }
}

/// Counters by name, for people and programs alike.
pub(crate) fn stats(stats: &Stats) -> Vec<(&'static str, serde_json::Value)> {
    let Stats {
        version,
        started,
        held,
        suspended,
        passes,
        lookups_ok,
        lookups_hold,
        lookups_suspend,
        notices,
        malformed,
        slow_peers,
        timed_out,
        turned_away,
        changes,
        refused,
        fallback_writes,
        fallback_failures,
        latency_p50_ns,
        latency_p90_ns,
        latency_p99_ns,
        latency_p999_ns,
    } = stats;
    let numbers = [
        ("held", held),
        ("suspended", suspended),
        ("passes", passes),
        ("lookups_ok", lookups_ok),
        ("lookups_hold", lookups_hold),
        ("lookups_suspend", lookups_suspend),
        ("notices", notices),
        ("malformed", malformed),
        ("slow_peers", slow_peers),
        ("timed_out", timed_out),
        ("turned_away", turned_away),
        ("changes", changes),
        ("refused", refused),
        ("fallback_writes", fallback_writes),
        ("fallback_failures", fallback_failures),
        ("latency_p50_ns", latency_p50_ns),
        ("latency_p90_ns", latency_p90_ns),
        ("latency_p99_ns", latency_p99_ns),
        ("latency_p999_ns", latency_p999_ns),
    ];
    let words = [("version", version.clone().into()), ("started", moment::rfc3339(*started).into())];
    words.into_iter().chain(numbers.map(|(name, number)| (name, (*number).into()))).collect()
}

impl From<message::Flag> for Flag {
    fn from(flag: message::Flag) -> Flag {
        Flag {
            subject: flag.subject,
            kind: flag.kind.into(),
            since: flag.since.map(moment::rfc3339),
            until: flag.until.map(moment::rfc3339),
            by: flag.by,
            reason: flag.reason,
            notice: flag.notice,
        }
    }
}

impl TryFrom<Flag> for message::Flag {
    type Error = String;

    fn try_from(flag: Flag) -> Result<message::Flag, String> {
        let time = |name, text: Option<String>| {
            text.map(|text| moment::parse(&text).map_err(|error| format!("{name}: {error}"))).transpose()
        };
        Ok(message::Flag {
            kind: flag.kind.into(),
            since: time("since", flag.since)?,
            until: time("until", flag.until)?,
            subject: flag.subject,
            by: flag.by,
            reason: flag.reason,
            notice: flag.notice,
        })
    }
}

impl From<Status> for StatusRow {
    fn from(status: Status) -> StatusRow {
        StatusRow {
            subject: status.subject,
            verdict: status.verdict.as_str(),
            owner: status.owner,
            flags: status.flags.into_iter().map(Flag::from).collect(),
        }
    }
}

impl From<LogEntry> for LogRow {
    fn from(entry: LogEntry) -> LogRow {
        LogRow {
            sequence: entry.sequence,
            at: moment::rfc3339(entry.at),
            action: action(entry.action),
            subject: entry.subject,
            until: entry.until.map(moment::rfc3339),
            reason: entry.reason,
            notice: entry.notice,
            by: entry.by,
            uid: entry.uid,
            pid: entry.pid,
            on_behalf_of: entry.on_behalf_of,
        }
    }
}

impl From<Kind> for KindName {
    fn from(kind: Kind) -> KindName {
        match kind {
            Kind::Hold => KindName::Hold,
            Kind::Suspend => KindName::Suspend,
        }
    }
}

impl From<KindName> for Kind {
    fn from(kind: KindName) -> Kind {
        match kind {
            KindName::Hold => Kind::Hold,
            KindName::Suspend => Kind::Suspend,
        }
    }
}

/// The word for an entry of the audit trail.
pub(crate) const fn action(action: Action) -> &'static str {
    match action {
        Action::Hold => "hold",
        Action::Release => "release",
        Action::Suspend => "suspend",
        Action::Unsuspend => "unsuspend",
        Action::Pass => "pass",
        Action::HoldExpired => "hold-expired",
        Action::SuspendExpired => "suspend-expired",
        Action::Drop => "drop",
        Action::TokenCreated => "token-create",
        Action::TokenRevoked => "token-revoke",
    }
}

/// The word for a refusal.
pub(crate) const fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Invalid => "invalid",
        Cause::NoSuchSubject => "no-such-subject",
        Cause::Root => "root",
        Cause::RoleOff => "role-off",
        Cause::NotPermitted => "not-permitted",
        Cause::Storage => "storage",
        Cause::Stopping => "stopping",
        Cause::NoSuchToken => "no-such-token",
    }
}
