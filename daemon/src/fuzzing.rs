//! What must hold of every input, one function for each place where bytes of others come in. They panic where it does not
//! hold, and do nothing else.
//!
//! The fuzz targets of `fuzz/` call these functions with what the fuzzer makes up, and `daemon/tests/corpora.rs` with the
//! inputs that are kept in `fuzz/corpus/`. They are here since some of what they look at is the daemon's own business:
//! records on disk, lists of an administrator. No program uses them.
//!
//! Honest limits: what they look at is pure. Reading from a socket or a disk, and what a request then does, is other tests'.

#![allow(clippy::missing_panics_doc, reason = "to panic is what they are for")]

use crate::answer::{Answer, answer};
use crate::config::Config;
use crate::directory::{parse_accounts, parse_owners};
use crate::flag::{Flag, Kind, MAX_NOTICE, Timestamp, Verdict, default_notice};
use crate::name::{self, Identity, MAX_NAME, MessageId, NameError, Shape, Subject};
use crate::store::{journal, record};
use crate::table::{Owners, Table};
use outgoingd_client::protocol::frame::{HEADER_LEN, Header, MAGIC, MAX_PAYLOAD, seal_as};
use outgoingd_client::protocol::message::{Call, Reply};
use outgoingd_client::protocol::{codec, text};
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, LazyLock};

/// A function that looks at one input.
pub type Target = fn(&[u8]);

/// Every one of them, by the name of its fuzz target and of its corpus.
pub const TARGETS: [(&str, Target); 6] =
    [("config", config), ("frame", frame), ("name", name), ("owners", owners), ("record", record), ("text", text)];

/// The moment at which requests are answered here.
const NOW: Timestamp = Timestamp(1_700_000_000);

/// A message with a pass.
const PASSED: &str = "1rABCD-000abc-XY";

/// A flag of each kind, on a subject of each shape but everyone.
static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let table = Table::default();
    table.replace_owners(Owners::from([("example.net".into(), "alice".into())]));
    for (subject, kind, until, notice) in [
        ("alice", Kind::Hold, None, None),
        ("bob@example.com", Kind::Hold, Some(NOW.0), None),
        ("@example.com", Kind::Suspend, None, Some("call 555")),
        ("@xn--bcher-kva.example", Kind::Suspend, Some(NOW.0 + 1), None),
    ] {
        let flag = Flag {
            since: Timestamp(0),
            until: until.map(Timestamp),
            by: "root".to_owned(),
            reason: None,
            notice: notice.map(str::to_owned),
        };
        table.put(&Subject::new(subject).expect("a subject"), kind, Some(&flag));
    }
    table.put_pass(&MessageId::new(PASSED).expect("a message id"), true);
    table
});

/// What can be seen of a table from outside: flags, owners, counts.
type State = (Vec<String>, Arc<Owners>, (u64, u64, u64));

/// That of [`TABLE`] before the first request.
static AS_IT_WAS: LazyLock<State> = LazyLock::new(|| state(&TABLE));

/// A request of the text protocol.
pub fn text(bytes: &[u8]) {
    LazyLock::force(&AS_IT_WAS);
    let parsed = text::parse(bytes);
    let answer = answer(bytes, &TABLE, NOW);
    assert_eq!(answer, parsed.map_or(Answer::Error, expected), "{parsed:?}");
    if bytes.starts_with(&MAGIC[..1]) {
        assert_eq!(answer, Answer::Error, "the first byte of a frame begins no text");
    }
    let is_verdict = matches!(answer, Answer::Verdict(_));
    let reply = answer.reply();
    assert!(!reply.is_empty() && reply.len() <= MAX_NOTICE, "a reply of {} bytes", reply.len());
    assert!(reply.iter().all(|byte| matches!(byte, b' '..=b'~')), "{}", reply.escape_ascii());
    assert_eq!(text::Verdict::from_reply(&reply).is_some(), is_verdict, "{}", reply.escape_ascii());
    assert_eq!(state(&TABLE), *AS_IT_WAS, "a request changes nothing");
    if let Ok(request) = parsed {
        let end = text::end_of_request(bytes).unwrap_or(bytes.len());
        assert!(end + 1 >= bytes.len() && end <= text::MAX_REQUEST);
        // The short form is written as the long one, which may then be too long.
        let written = request.to_string();
        assert!(written.len() > text::MAX_REQUEST || text::parse(written.as_bytes()) == Ok(request), "{written:?}");
    }
}

/// A frame of an administrator, or its payload alone.
pub fn frame(bytes: &[u8]) {
    let payload = match bytes.split_first_chunk::<HEADER_LEN>() {
        Some((header, behind)) if header.starts_with(&MAGIC) => {
            let Ok(decoded) = Header::decode(header) else { return };
            assert_eq!(decoded.encode(), *header);
            let length = decoded.length as usize;
            assert!(length <= MAX_PAYLOAD);
            let Some(payload) = behind.get(..length) else { return };
            assert_eq!(seal_as(decoded.version, payload).expect("not too long"), bytes[..HEADER_LEN + length]);
            payload
        }
        _ => bytes,
    };
    survives(payload, codec::decode::<Call>, codec::encode);
    survives(payload, codec::decode::<Reply>, codec::encode);
}

/// A record of the state file or the journal, or a block of the journal.
pub fn record(bytes: &[u8]) {
    survives(bytes, record::decode_flag, record::encode_flag);
    // Who gave a pass is for people who read the file.
    survives(bytes, record::decode_pass, |at| record::encode_pass(*at, ""));
    survives(bytes, record::decode_entry, record::encode_entry);
    survives(bytes, record::decode_token, record::encode_token);
    survives(bytes, record::decode_group, |group| record::encode_group(group));
    // As a record in a block that is whole.
    match journal::seal(7, bytes) {
        Some(block) => {
            let block = block.first_chunk().expect("a block");
            assert_eq!(journal::open(block), Some((7, bytes)).filter(|_| !bytes.is_empty()));
        }
        None => assert!(bytes.len() > journal::BLOCK - journal::HEADER),
    }
    // As a block, or the beginning of one.
    let mut block = [0; journal::BLOCK];
    let length = bytes.len().min(block.len());
    block[..length].copy_from_slice(&bytes[..length]);
    if let Some((number, record)) = journal::open(&block) {
        let again = journal::seal(number, record).expect("what fitted fits");
        assert_eq!(journal::open(again.first_chunk().expect("a block")), Some((number, record)));
    }
}

/// The text of the configuration file.
pub fn config(bytes: &[u8]) {
    let (Ok(text), path) = (str::from_utf8(bytes), Path::new("o.toml")) else { return };
    match Config::parse(text, path) {
        Ok(config) => {
            assert!(config.validate(path).is_ok() && config.needs_restart(&config).is_empty());
            assert!(config.socket_mode.0 <= 0o777 && config.fallback_mode.0 <= 0o777);
            assert!(config.sources().all(Path::is_absolute));
        }
        Err(error) => {
            let words = error.to_string();
            let what = words.strip_prefix("the configuration o.toml is wrong: ").expect("the file is named");
            assert!(!what.trim().is_empty());
        }
    }
}

/// The domain-owner map, and the list of accounts.
pub fn owners(bytes: &[u8]) {
    let (Ok(text), path) = (str::from_utf8(bytes), Path::new("o")) else { return };
    match parse_owners(text, path) {
        Ok(owners) => {
            for (domain, account) in &owners {
                stays(domain, name::domain);
                stays(account, name::account);
                assert!(!domain.contains('@') && **domain != *"*", "{domain:?} is no domain");
            }
            let lines: Vec<String> = owners.iter().map(|(domain, account)| format!("{domain}: {account}\n")).collect();
            assert_eq!(parse_owners(&lines.concat(), path).expect("what was read is read"), owners);
        }
        Err(error) => names_a_line(&error.to_string(), text),
    }
    match parse_accounts(text, path) {
        Ok(accounts) => {
            for account in &accounts {
                stays(account, name::account);
                assert!(!account.contains('@'));
            }
        }
        Err(error) => names_a_line(&error.to_string(), text),
    }
}

/// A name, whatever it names.
pub fn name(bytes: &[u8]) {
    let Ok(raw) = str::from_utf8(bytes) else { return };
    if let Ok(identity) = Identity::new(raw) {
        stays(identity.as_str(), name::account);
        assert!(identity.at_domain().is_none_or(|domain| !domain.ends_with('.')), "{identity:?}");
        // As Exim has it, it is the same one, unless it has what looks like an escape.
        if let Some(escaped) = name::as_exim_escapes(identity.as_str()).filter(|_| !identity.as_str().contains('\\')) {
            assert!(escaped.is_ascii(), "{escaped:?}");
            // A domain may be longer in Unicode than in A-labels; a name that is too long is refused, not taken for another.
            let again = Identity::new(&escaped);
            assert!(again == Err(NameError::TooLong) || again.as_ref() == Ok(&identity), "{escaped:?}: {again:?}");
        }
    }
    // What Exim makes of a login is the same login: the same name, or refused for the same reason.
    if !raw.contains('\\') {
        let escape = |byte: &u8| {
            if byte.is_ascii() { char::from(*byte).to_string() } else { format!("\\{byte:03o}") }
        };
        let escaped: String = bytes.iter().map(escape).collect();
        assert_eq!(Identity::new(&escaped), Identity::new(raw), "{escaped:?}");
    }
    if let Ok(subject) = Subject::new(raw) {
        stays(subject.as_str(), name::account);
        assert_eq!(Subject::new(subject.as_str()), Ok(subject.clone()));
        assert_eq!(Identity::new(raw).as_ref().map(Identity::as_str), Ok(subject.as_str()));
        let whole = match subject.shape() {
            Shape::Everyone => "*".to_owned(),
            Shape::Account(account) => account.to_owned(),
            Shape::Domain(domain) => format!("@{domain}"),
            Shape::Mailbox(domain) => {
                let (local, _) = subject.as_str().split_once('@').expect("a mailbox has an @");
                assert!(!local.is_empty());
                format!("{local}@{domain}")
            }
        };
        assert_eq!(whole, subject.as_str());
    }
    if let Ok(message) = MessageId::new(raw) {
        assert!(message.as_str() == raw && [16, 23].contains(&raw.len()) && raw.is_ascii());
    }
    if let Ok(domain) = name::domain(raw) {
        stays(&domain, name::domain);
        let mailbox = format!("x@{domain}");
        if mailbox.len() <= MAX_NAME {
            let identity = Identity::new(&mailbox).expect("a mailbox in a domain is an identity");
            assert_eq!(identity.at_domain(), Some(&mailbox[1..]), "a domain is found behind an @");
        }
    }
}

/// The answer, from what is known of [`TABLE`].
fn expected(request: text::Request<'_>) -> Answer {
    let (text::Request::Check { identity: raw, .. } | text::Request::Notice { identity: raw }) = request;
    // The first of the strictest readings; if nobody is stopped by any, the name must be one as it is written.
    let read = |raw: &str| Identity::new(raw).ok().map(Identity::into_owned);
    let others = name::without_controls(raw).into_iter().filter_map(|reading| read(&reading));
    let stricter = others.filter(|reading| verdict_of(reading) > Verdict::Ok);
    let readings: Vec<_> = read(raw).into_iter().chain(stricter).collect();
    let Some(most) = readings.iter().map(verdict_of).max() else { return Answer::Error };
    let identity =
        readings.into_iter().find(|reading| verdict_of(reading) == most).expect("the maximum is one of them");
    let verdict = verdict_of(&identity);
    match request {
        text::Request::Check { message_id: Some(id), .. } if MessageId::new(id).is_err() => Answer::Error,
        text::Request::Check { message_id: Some(PASSED), .. } if verdict == Verdict::Hold => {
            Answer::Verdict(Verdict::Ok)
        }
        text::Request::Check { .. } => Answer::Verdict(verdict),
        text::Request::Notice { .. } => Answer::Notice(match (identity.at_domain(), verdict) {
            (Some("@example.com"), _) => "call 555".to_owned(),
            (Some(domain), Verdict::Suspend) => default_notice(domain),
            (Some(_), Verdict::Hold) => default_notice("alice"),
            _ => default_notice(identity.as_str()),
        }),
    }
}

/// The verdict, from what is known of [`TABLE`].
fn verdict_of(identity: &Identity<'_>) -> Verdict {
    match (identity.as_str(), identity.at_domain()) {
        (_, Some("@example.com" | "@xn--bcher-kva.example")) => Verdict::Suspend,
        ("alice", _) | (_, Some("@example.net")) => Verdict::Hold,
        _ => Verdict::Ok,
    }
}

fn state(table: &Table) -> State {
    let mut flags = Vec::new();
    let Ok::<(), std::convert::Infallible>(()) = table.for_each_subject(|subject| {
        flags.push(format!("{subject} {:?}", table.ends_of(subject)));
        Ok(())
    });
    flags.sort_unstable();
    (flags, table.owners(), table.count(NOW))
}

/// A value that is decoded is the same when it was encoded once more, which does not make it longer; and all bytes are its.
fn survives<T: PartialEq + Debug, E: Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Result<Vec<u8>, E>,
) {
    let Ok(value) = decode(bytes) else { return };
    let again = encode(&value).expect("what was decoded is encoded");
    assert!(again.len() <= bytes.len(), "{} bytes have become {}", bytes.len(), again.len());
    assert_eq!(decode(&again).expect("what was encoded is decoded"), value);
    assert!(decode(&[bytes, b"\0"].concat()).is_err(), "a byte behind the end is passed over");
}

/// `name` is in normal form: within its bounds, and making it normal again changes nothing.
fn stays<'a, T: AsRef<str>>(name: &'a str, normal_form: impl FnOnce(&'a str) -> Result<T, NameError>) {
    assert!((1..=MAX_NAME).contains(&name.len()), "{} bytes: {name:?}", name.len());
    assert!(!name.contains(|character: char| character.is_control() || character.is_whitespace()), "{name:?}");
    let again = normal_form(name).unwrap_or_else(|error| panic!("{name:?} is refused: {error}"));
    assert_eq!(again.as_ref(), name);
}

/// The words of an error say which line of `text` is wrong, and are one short line themselves.
fn names_a_line(words: &str, text: &str) {
    let number = words.strip_prefix("o, line ").and_then(|rest| rest.split_once(':')).map(|(number, _)| number);
    let number: usize = number.and_then(|number| number.parse().ok()).expect("a line is named");
    assert!((1..=text.lines().count()).contains(&number), "{words}");
    assert!(words.len() < 2000 && !words.contains(char::is_control), "{words:?}");
}
