//! What stands on disk: one versioned record for each flag, pass, token and entry of the audit trail, and for each group of
//! changes in the journal.
//!
//! A record is one byte of version, then bincode 2 in standard configuration. One of the two files of the project that
//! know bincode's name. Golden bytes in the tests pin the layout: a change to a record is a new version beside the old
//! one, which stays readable.

use super::Damage;
use crate::audit::{Deed, Entry};
use crate::change::Origin;
use crate::flag::{Flag, Kind, Timestamp};
use crate::token::{Hash, Token};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Version of all records that are written.
const VERSION: u8 = 1;

/// No record is longer than this many bytes; what claims to be is damaged.
const MAX_RECORD: usize = 16 << 10;

#[derive(Serialize, Deserialize)]
struct FlagRecord {
    since: u64,
    until: Option<u64>,
    by: String,
    reason: Option<String>,
    notice: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct PassRecord {
    at: u64,
    by: String,
}

#[derive(Serialize, Deserialize)]
struct TokenRecord {
    hash: [u8; 32],
    functions: Vec<String>,
    since: u64,
    until: Option<u64>,
    by: String,
}

#[derive(Serialize, Deserialize)]
struct AuditRecord {
    at: u64,
    deed: u8,
    subject: String,
    until: Option<u64>,
    reason: Option<String>,
    notice: Option<String>,
    by: String,
    uid: u32,
    pid: u32,
    on_behalf_of: Option<String>,
}

/// One write to the database: what stands under a key from now on, or that nothing does. Doing it twice is doing it once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Write {
    /// The record of a flag, by subject and number of the kind.
    Flag(String, u8, Option<Vec<u8>>),
    /// The record of a pass, by message id.
    Pass(String, Option<Vec<u8>>),
    /// The record of an entry of the audit trail, by sequence number.
    Entry(u64, Vec<u8>),
    /// The record of a token, by its name.
    Token(String, Option<Vec<u8>>),
}

/// The record of a group of changes in the journal.
pub(crate) fn encode_group(writes: &[Write]) -> Result<Vec<u8>, Damage> {
    encode(&writes)
}

/// The group in a record of the journal.
pub(crate) fn decode_group(record: &[u8]) -> Result<Vec<Write>, Damage> {
    decode(record)
}

/// The record of a flag.
pub(crate) fn encode_flag(flag: &Flag) -> Result<Vec<u8>, Damage> {
    encode(&FlagRecord {
        since: flag.since.0,
        until: flag.until.map(|until| until.0),
        by: flag.by.clone(),
        reason: flag.reason.clone(),
        notice: flag.notice.clone(),
    })
}

/// The flag in a record.
pub(crate) fn decode_flag(record: &[u8]) -> Result<Flag, Damage> {
    let FlagRecord { since, until, by, reason, notice } = decode(record)?;
    Ok(Flag { since: Timestamp(since), until: until.map(Timestamp), by, reason, notice })
}

/// The record of a pass: when it was given, and by whom.
pub(crate) fn encode_pass(at: Timestamp, by: &str) -> Result<Vec<u8>, Damage> {
    encode(&PassRecord { at: at.0, by: by.to_owned() })
}

/// When the pass in a record was given.
pub(crate) fn decode_pass(record: &[u8]) -> Result<Timestamp, Damage> {
    let PassRecord { at, by: _ } = decode(record)?;
    Ok(Timestamp(at))
}

/// The record of a token.
pub(crate) fn encode_token(token: &Token) -> Result<Vec<u8>, Damage> {
    encode(&TokenRecord {
        hash: token.hash.0,
        functions: token.functions.clone(),
        since: token.since.0,
        until: token.until.map(|until| until.0),
        by: token.by.clone(),
    })
}

/// The token in a record.
pub(crate) fn decode_token(record: &[u8]) -> Result<Token, Damage> {
    let TokenRecord { hash, functions, since, until, by } = decode(record)?;
    Ok(Token { hash: Hash(hash), functions, since: Timestamp(since), until: until.map(Timestamp), by })
}

/// The record of an entry of the audit trail.
pub(crate) fn encode_entry(entry: &Entry) -> Result<Vec<u8>, Damage> {
    encode(&AuditRecord {
        at: entry.at.0,
        deed: deed_number(entry.deed),
        subject: entry.subject.clone(),
        until: entry.until.map(|until| until.0),
        reason: entry.reason.clone(),
        notice: entry.notice.clone(),
        by: entry.origin.by.clone(),
        uid: entry.origin.uid,
        pid: entry.origin.pid,
        on_behalf_of: entry.origin.on_behalf_of.clone(),
    })
}

/// The entry of the audit trail in a record.
pub(crate) fn decode_entry(record: &[u8]) -> Result<Entry, Damage> {
    let AuditRecord { at, deed, subject, until, reason, notice, by, uid, pid, on_behalf_of } = decode(record)?;
    Ok(Entry {
        at: Timestamp(at),
        deed: deed_of(deed)?,
        subject,
        until: until.map(Timestamp),
        reason,
        notice,
        origin: Origin { by, uid, pid, on_behalf_of },
    })
}

/// The number under which a kind is part of a flag's key.
pub(super) const fn kind_number(kind: Kind) -> u8 {
    match kind {
        Kind::Hold => 0,
        Kind::Suspend => 1,
    }
}

/// The kind of a number in a flag's key.
pub(super) fn kind_of(number: u8) -> Result<Kind, Damage> {
    Kind::BOTH
        .into_iter()
        .find(|&kind| kind_number(kind) == number)
        .ok_or_else(|| Damage(format!("a flag of the unknown kind {number}")))
}

const fn deed_number(deed: Deed) -> u8 {
    match deed {
        Deed::Set(Kind::Hold) => 0,
        Deed::Cleared(Kind::Hold) => 1,
        Deed::Set(Kind::Suspend) => 2,
        Deed::Cleared(Kind::Suspend) => 3,
        Deed::Passed => 4,
        Deed::Expired(Kind::Hold) => 5,
        Deed::Expired(Kind::Suspend) => 6,
        Deed::Dropped => 7,
        Deed::TokenCreated => 8,
        Deed::TokenRevoked => 9,
    }
}

fn deed_of(number: u8) -> Result<Deed, Damage> {
    let deeds = [Deed::Passed, Deed::Dropped, Deed::TokenCreated, Deed::TokenRevoked]
        .into_iter()
        .chain(Kind::BOTH.into_iter().flat_map(|kind| [Deed::Set(kind), Deed::Cleared(kind), Deed::Expired(kind)]));
    deeds
        .into_iter()
        .find(|&deed| deed_number(deed) == number)
        .ok_or_else(|| Damage(format!("an audit entry of the unknown kind {number}")))
}

fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, Damage> {
    let mut bytes = vec![VERSION];
    bincode::serde::encode_into_std_write(record, &mut bytes, bincode::config::standard())
        .map_err(|error| Damage(format!("a record that cannot be encoded: {error}")))?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Damage> {
    let body = match bytes {
        [VERSION, body @ ..] => body,
        [version, ..] => {
            return Err(Damage(format!("a record of version {version}, where this outgoingd knows {VERSION}")));
        }
        [] => return Err(Damage("an empty record".to_owned())),
    };
    match bincode::serde::decode_from_slice(body, bincode::config::standard().with_limit::<MAX_RECORD>()) {
        Ok((record, read)) if read == body.len() => Ok(record),
        Ok((_, read)) => Err(Damage(format!("a record with {} bytes behind its end", body.len() - read))),
        Err(error) => Err(Damage(format!("a record that cannot be read: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flag() -> Flag {
        Flag {
            since: Timestamp(1_700_000_000),
            until: Some(Timestamp(1_700_086_400)),
            by: "root".to_owned(),
            reason: Some("phished".to_owned()),
            notice: None,
        }
    }

    fn entry() -> Entry {
        Entry {
            at: Timestamp(1_700_000_000),
            deed: Deed::Expired(Kind::Suspend),
            subject: "@example.com".to_owned(),
            until: None,
            reason: None,
            notice: Some("call 555".to_owned()),
            origin: Origin { by: "ann".to_owned(), uid: 1000, pid: 4242, on_behalf_of: Some("bob".to_owned()) },
        }
    }

    #[test]
    fn records_of_version_1_are_these_bytes() {
        assert_eq!(
            encode_flag(&flag()).unwrap().escape_ascii().to_string(),
            r"\x01\xfc\x00\xf1Se\x01\xfc\x80BUe\x04root\x01\x07phished\x00"
        );
        assert_eq!(
            encode_pass(Timestamp(1_700_000_000), "ann").unwrap().escape_ascii().to_string(),
            r"\x01\xfc\x00\xf1Se\x03ann"
        );
        assert_eq!(
            encode_entry(&entry()).unwrap().escape_ascii().to_string(),
            r"\x01\xfc\x00\xf1Se\x06\x0c@example.com\x00\x00\x01\x08call 555\x03ann\xfb\xe8\x03\xfb\x92\x10\x01\x03bob"
        );
    }

    fn token() -> Token {
        Token {
            hash: Hash(std::array::from_fn(|at| u8::try_from(at).unwrap())),
            functions: vec!["version".to_owned()],
            since: Timestamp(1_700_000_000),
            until: None,
            by: "root".to_owned(),
        }
    }

    fn group() -> Vec<Write> {
        vec![
            Write::Flag("bob".to_owned(), 1, Some(vec![7, 8])),
            Write::Flag("bob".to_owned(), 0, None),
            Write::Pass("1rABCD-000abc-XY".to_owned(), Some(vec![9])),
            Write::Pass("1rABCD-000abc-XY".to_owned(), None),
            Write::Entry(300, vec![10]),
            Write::Token("billing".to_owned(), Some(vec![11])),
            Write::Token("billing".to_owned(), None),
        ]
    }

    #[test]
    fn a_group_of_version_1_is_these_bytes() {
        assert_eq!(
            encode_group(&group()).unwrap().escape_ascii().to_string(),
            r"\x01\x07\x00\x03bob\x01\x01\x02\x07\x08\x00\x03bob\x00\x00\x01\x101rABCD-000abc-XY\x01\x01\t\x01\x101rABCD-000abc-XY\x00\x02\xfb,\x01\x01\n\x03\x07billing\x01\x01\x0b\x03\x07billing\x00"
        );
    }

    #[test]
    fn a_token_of_version_1_is_these_bytes() {
        assert_eq!(
            encode_token(&token()).unwrap().escape_ascii().to_string(),
            r"\x01\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b\x0c\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x01\x07version\xfc\x00\xf1Se\x00\x04root"
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(decode_group(&encode_group(&group()).unwrap()).unwrap(), group());
        assert_eq!(decode_flag(&encode_flag(&flag()).unwrap()).unwrap(), flag());
        assert_eq!(decode_entry(&encode_entry(&entry()).unwrap()).unwrap(), entry());
        assert_eq!(decode_token(&encode_token(&token()).unwrap()).unwrap(), token());
        for number in 0..=9 {
            assert_eq!(deed_number(deed_of(number).unwrap()), number);
        }
    }

    #[test]
    fn a_record_that_is_cut_off_padded_or_of_another_version_is_damage() {
        let good = encode_flag(&flag()).unwrap();
        assert!(decode_flag(&good[..good.len() - 1]).is_err());
        assert!(decode_flag(&[&good[..], b"x"].concat()).is_err());
        assert!(decode_flag(&[&[2], &good[1..]].concat()).unwrap_err().0.contains("version 2"));
        assert!(decode_flag(&[]).is_err());
        assert!(deed_of(10).is_err() && kind_of(2).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(record: Vec<u8>) {
            let _ = (decode_flag(&record), decode_pass(&record), decode_entry(&record), decode_group(&record));
            let _ = decode_token(&record);
        }
    }
}
