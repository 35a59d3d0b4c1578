//! The tables in the database: what a change writes to them, and how they are read.

use super::record::{self, Write};
use super::{Damage, FlagRow, StoreError};
use crate::audit::Entry;
use crate::change::{self, Action, Change, Effect, Mail};
use crate::flag::{Flag, Kind, Timestamp};
use crate::name::{MessageId, Subject};
use crate::token::{self, Token};
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, TableError, WriteTransaction};
use std::ops::Bound;

/// Flags by subject and number of the kind. Bytes, since redb looks through a `str` each time it compares two.
pub(super) const FLAGS: TableDefinition<'_, (&[u8], u8), &[u8]> = TableDefinition::new("flags by bytes");
/// The same in format 1.
const FLAGS_1: TableDefinition<'_, (&str, u8), &[u8]> = TableDefinition::new("flags");
/// Passes by message id.
pub(super) const PASSES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("passes");
/// Tokens by name. A file that was made before there were any has no such table until the first change.
const TOKENS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tokens");
/// The audit trail by sequence number, from 1.
pub(super) const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");
/// Numbers about the file itself.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The tables of a transaction that writes.
pub(super) struct Tables<'a> {
    flags: redb::Table<'a, (&'static [u8], u8), &'static [u8]>,
    passes: redb::Table<'a, &'static str, &'static [u8]>,
    audit: redb::Table<'a, u64, &'static [u8]>,
    tokens: redb::Table<'a, &'static str, &'static [u8]>,
}

impl Tables<'_> {
    /// Opens them, or makes them if there are none.
    pub(super) fn open(transaction: &WriteTransaction) -> Result<Tables<'_>, StoreError> {
        Ok(Tables {
            flags: transaction.open_table(FLAGS)?,
            passes: transaction.open_table(PASSES)?,
            audit: transaction.open_table(AUDIT)?,
            tokens: transaction.open_table(TOKENS)?,
        })
    }

    /// What a change does, and what that writes to the flags and passes. Writes nothing yet.
    pub(super) fn carry_out(
        &self,
        Change { action, origin }: &Change,
        now: Timestamp,
    ) -> Result<(Effect, Option<Write>), StoreError> {
        match action {
            Action::Set { subject, kind, terms } => {
                self.on_flag(subject, *kind, |flag| change::set(flag, terms, origin, now))
            }
            Action::Clear { subject, kind } => self.on_flag(subject, *kind, |flag| change::clear(flag, now)),
            Action::Expire { subject, kind } => self.on_flag(subject, *kind, |flag| change::expire(flag, now)),
            Action::Pass { message } => {
                let given = Some(record::encode_pass(now, &origin.by)?);
                self.on_pass(message, false, Effect::Given, given)
            }
            Action::ForgetPass { message } => self.on_pass(message, true, Effect::Removed, None),
            Action::Drop { mail: Mail::Message(message), .. } => {
                Ok(match self.on_pass(message, true, Effect::Removed, None)? {
                    (Effect::Unchanged, _) => (Effect::Recorded, None),
                    forgotten => forgotten,
                })
            }
            Action::Drop { mail: Mail::Of(_), .. } => Ok((Effect::Recorded, None)),
            Action::CreateToken { name, token } => {
                let effect = change::create_token(self.token(name)?.as_ref(), now);
                let record = record::encode_token(token)?;
                let write = (effect == Effect::Given).then(|| Write::Token(name.as_str().to_owned(), Some(record)));
                Ok((effect, write))
            }
            Action::RevokeToken { name } => Ok(match self.token(name)? {
                Some(_) => (Effect::Removed, Some(Write::Token(name.as_str().to_owned(), None))),
                None => (Effect::Unchanged, None),
            }),
        }
    }

    fn on_flag(
        &self,
        subject: &Subject,
        kind: Kind,
        decide: impl FnOnce(Option<&Flag>) -> Effect,
    ) -> Result<(Effect, Option<Write>), StoreError> {
        let key = record::kind_number(kind);
        let record = self.flags.get((subject.as_str().as_bytes(), key))?;
        let flag = record.map(|record| record::decode_flag(record.value())).transpose()?;
        let effect = decide(flag.as_ref());
        let record = match &effect {
            Effect::Put(flag) => Some(record::encode_flag(flag)?),
            Effect::Removed => None,
            Effect::Unchanged | Effect::Given | Effect::Recorded => return Ok((effect, None)),
        };
        Ok((effect, Some(Write::Flag(subject.as_str().to_owned(), key, record))))
    }

    fn token(&self, name: &token::Name) -> Result<Option<Token>, StoreError> {
        let record = self.tokens.get(name.as_str())?;
        Ok(record.map(|record| record::decode_token(record.value())).transpose()?)
    }

    /// Writes `record` for a message if it has a pass, or has none, as it `must`.
    fn on_pass(
        &self,
        message: &MessageId<'_>,
        must: bool,
        effect: Effect,
        record: Option<Vec<u8>>,
    ) -> Result<(Effect, Option<Write>), StoreError> {
        let has = self.passes.get(message.as_str())?.is_some();
        let write = (has == must).then(|| Write::Pass(message.as_str().to_owned(), record));
        Ok((if write.is_some() { effect } else { Effect::Unchanged }, write))
    }

    /// Writes.
    pub(super) fn apply(&mut self, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::Flag(subject, kind, Some(record)) => {
                drop(self.flags.insert((subject.as_bytes(), *kind), record.as_slice())?);
            }
            Write::Flag(subject, kind, None) => drop(self.flags.remove((subject.as_bytes(), *kind))?),
            Write::Pass(message, Some(record)) => drop(self.passes.insert(message.as_str(), record.as_slice())?),
            Write::Pass(message, None) => drop(self.passes.remove(message.as_str())?),
            Write::Entry(sequence, record) => drop(self.audit.insert(sequence, record.as_slice())?),
            Write::Token(name, Some(record)) => drop(self.tokens.insert(name.as_str(), record.as_slice())?),
            Write::Token(name, None) => drop(self.tokens.remove(name.as_str())?),
        }
        Ok(())
    }

    /// The sequence number of the newest entry of the audit trail; 0 if there is none.
    pub(super) fn last_entry(&self) -> Result<u64, StoreError> {
        Ok(self.audit.last()?.map_or(0, |(sequence, _)| sequence.value()))
    }

    /// Gives up the oldest entries of the audit trail, but for so many.
    pub(super) fn keep_entries(&mut self, most: u64) -> Result<(), StoreError> {
        while self.audit.len()? > most {
            self.audit.pop_first()?;
        }
        Ok(())
    }
}

/// Turns the flags of format 1 into those of format 2.
pub(super) fn convert(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let (old, mut new) = (transaction.open_table(FLAGS_1)?, transaction.open_table(FLAGS)?);
    for row in old.iter()? {
        let (key, record) = row?;
        let (subject, kind) = key.value();
        new.insert((subject.as_bytes(), kind), record.value())?;
    }
    drop(old);
    transaction.delete_table(FLAGS_1)?;
    Ok(())
}

/// Hands the flags behind position `after` to `take`, in the order of their subjects, for as long as it says so.
pub(super) fn flags(
    transaction: &ReadTransaction,
    after: Option<(&str, Kind)>,
    mut take: impl FnMut(FlagRow) -> bool,
) -> Result<(), StoreError> {
    let start = match after {
        Some((subject, kind)) => Bound::Excluded((subject.as_bytes(), record::kind_number(kind))),
        None => Bound::Unbounded,
    };
    let table = transaction.open_table(FLAGS)?;
    for row in table.range::<(&[u8], u8)>((start, Bound::Unbounded))? {
        if !take(flag_row(row)?) {
            break;
        }
    }
    Ok(())
}

/// Hands the passes behind position `after`, with the moment they were given, to `take`, in the order of their messages, for as
/// long as it says so.
pub(super) fn passes(
    transaction: &ReadTransaction,
    after: Option<&str>,
    mut take: impl FnMut(MessageId<'_>, Timestamp) -> bool,
) -> Result<(), StoreError> {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let table = transaction.open_table(PASSES)?;
    for row in table.range::<&str>((start, Bound::Unbounded))? {
        let (key, record) = row?;
        let message = MessageId::new(key.value()).map_err(|error| Damage(format!("a pass for what {error}")))?;
        if !take(message, record::decode_pass(record.value())?) {
            break;
        }
    }
    Ok(())
}

/// All tokens with their names, in the order of these.
pub(super) fn tokens(transaction: &ReadTransaction) -> Result<Vec<(String, Token)>, StoreError> {
    let table = match transaction.open_table(TOKENS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut tokens = Vec::new();
    for row in table.range::<&str>(..)? {
        let (name, record) = row?;
        tokens.push((name.value().to_owned(), record::decode_token(record.value())?));
    }
    Ok(tokens)
}

/// Hands the entries of the audit trail before sequence number `before` to `take`, newest first, for as long as it says so.
pub(super) fn entries(
    transaction: &ReadTransaction,
    before: Option<u64>,
    mut take: impl FnMut(u64, Entry) -> bool,
) -> Result<(), StoreError> {
    let table = transaction.open_table(AUDIT)?;
    for row in table.range(..before.unwrap_or(u64::MAX))?.rev() {
        let (sequence, record) = row?;
        if !take(sequence.value(), record::decode_entry(record.value())?) {
            break;
        }
    }
    Ok(())
}

/// Hands the entries of the audit trail behind sequence number `after` to `take`, oldest first, for as long as it says so.
pub(super) fn entries_after(
    transaction: &ReadTransaction,
    after: u64,
    mut take: impl FnMut(u64, Entry) -> bool,
) -> Result<(), StoreError> {
    let table = transaction.open_table(AUDIT)?;
    for row in table.range((Bound::Excluded(after), Bound::Unbounded))? {
        let (sequence, record) = row?;
        if !take(sequence.value(), record::decode_entry(record.value())?) {
            break;
        }
    }
    Ok(())
}

/// The sequence number of the newest entry of the audit trail; 0 if there is none.
pub(super) fn last_entry(transaction: &ReadTransaction) -> Result<u64, StoreError> {
    Ok(transaction.open_table(AUDIT)?.last()?.map_or(0, |(sequence, _)| sequence.value()))
}

type Row<'a> = (redb::AccessGuard<'a, (&'static [u8], u8)>, redb::AccessGuard<'a, &'static [u8]>);

fn flag_row(row: Result<Row<'_>, redb::StorageError>) -> Result<FlagRow, StoreError> {
    let (key, record) = row?;
    let (subject, kind) = key.value();
    let subject = str::from_utf8(subject).map_err(|error| Damage(format!("a flag on what {error}")))?;
    let name = Subject::new(subject).map_err(|error| Damage(format!("a flag on what {error}")))?;
    if name.as_str() != subject {
        return Err(Damage(format!("a flag on \"{}\", which is not in normal form", subject.escape_debug())).into());
    }
    Ok((name, record::kind_of(kind)?, record::decode_flag(record.value())?))
}
