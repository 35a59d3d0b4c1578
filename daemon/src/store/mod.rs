//! The state file: flags, passes and the audit trail in one redb database, `state.redb` in the state directory.
//!
//! [`Store::commit`] makes a group of changes durable in one transaction, their audit entries included: all of them or
//! none. When it returns, they are on disk (two-phase commit, each phase ended by `fdatasync`). There is one caller, the
//! writer thread. Reading is for administrators and the start; lookups never come here.
//!
//! After any error of the disk, redb refuses further work until the file is opened again; [`Store::recover`] does that.
//! What a failed commit has left is then one of the two whole states, the old one or the new one, so the caller must load
//! the table again from here.

mod open;
mod record;

use crate::audit::{self, Entry};
use crate::change::{self, Action, Change, Effect};
use crate::flag::{Flag, Kind, Timestamp};
use crate::name::{MessageId, Subject};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

pub use open::{OpenError, is_rehearsing};

/// Flags by subject and number of the kind.
const FLAGS: TableDefinition<'_, (&str, u8), &[u8]> = TableDefinition::new("flags");
/// Passes by message id.
const PASSES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("passes");
/// The audit trail by sequence number, from 1.
const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");
/// Numbers about the file itself.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Name of the state file in its directory.
pub const STATE_FILE: &str = "state.redb";

/// Key in [`META`]: the layout of the file.
const FORMAT: &str = "format";
/// The layout that this code writes.
const FORMAT_NOW: u64 = 1;

/// The state file, open.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Oldest entries of the audit trail go when there are more than this.
    audit_entries: u64,
    /// None only between a failed reopening and the next.
    database: RwLock<Option<Database>>,
}

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or redb, said so.
    #[error("{0}")]
    Database(redb::Error),
    /// A record makes no sense.
    #[error("{0}")]
    Damage(#[from] Damage),
    /// An earlier error closed the file and it could not be opened again yet.
    #[error("the state file is closed after an earlier error")]
    Closed,
}

/// redb has an error type for each step; here they are one.
macro_rules! from_redb {
    ($($step:ident),*) => {$(
        impl From<redb::$step> for StoreError {
            fn from(error: redb::$step) -> StoreError {
                StoreError::Database(error.into())
            }
        }
    )*};
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub(crate) String);

/// One flag with its key.
pub type FlagRow = (Subject, Kind, Flag);

impl Store {
    /// Opens the state file in `directory`, or creates it if there is none; `directory` must exist and be the caller's
    /// alone (see [`crate::lock`]). `audit_entries` bounds the audit trail.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. Whatever is wrong with it, a file that exists is left as it is.
    pub fn open(directory: &Path, audit_entries: u64) -> Result<Store, OpenError> {
        let path = directory.join(STATE_FILE);
        let database = open::open(&path)?;
        Ok(Store { path, audit_entries, database: RwLock::new(Some(database)) })
    }

    /// Opens the state file again after an error.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; every call then fails with [`StoreError::Closed`] until a later recovery succeeds.
    pub fn recover(&self) -> Result<(), OpenError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *database = None;
        *database = Some(open::open(&self.path)?);
        Ok(())
    }

    /// The path of the state file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Applies `changes` in their order, with their audit entries, durably: all or none. Says what each did.
    ///
    /// # Errors
    ///
    /// The disk is full, broken or read-only; [`Store::recover`] is then needed.
    pub fn commit(&self, changes: &[Change], now: Timestamp) -> Result<Vec<Effect>, StoreError> {
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_two_phase_commit(true);
            let effects = self.write(&transaction, changes, now)?;
            if effects.iter().all(|effect| *effect == Effect::Unchanged) {
                transaction.abort()?;
            } else {
                transaction.commit()?;
            }
            Ok(effects)
        })
    }

    /// How many flags there are.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn count_flags(&self) -> Result<usize, StoreError> {
        self.read(|transaction| Ok(usize::try_from(transaction.open_table(FLAGS)?.len()?).unwrap_or(usize::MAX)))
    }

    /// Hands every flag to `each`, in the order of their subjects.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a record makes no sense.
    pub fn for_each_flag(&self, mut each: impl FnMut(Subject, Kind, Flag)) -> Result<(), StoreError> {
        self.read(|transaction| {
            for row in transaction.open_table(FLAGS)?.iter()? {
                let (subject, kind, flag) = flag_row(row)?;
                each(subject, kind, flag);
            }
            Ok(())
        })
    }

    /// Hands every pass, with the moment it was given, to `each`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a record makes no sense.
    pub fn for_each_pass(&self, mut each: impl FnMut(MessageId<'_>, Timestamp)) -> Result<(), StoreError> {
        self.read(|transaction| {
            for row in transaction.open_table(PASSES)?.iter()? {
                let (key, record) = row?;
                let message =
                    MessageId::new(key.value()).map_err(|error| Damage(format!("a pass for what {error}")))?;
                each(message, record::decode_pass(record.value())?);
            }
            Ok(())
        })
    }

    /// The flags set on `subject`, expired or not.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a record makes no sense.
    pub fn flags_of(&self, subject: &str) -> Result<Vec<(Kind, Flag)>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(FLAGS)?;
            let mut flags = Vec::new();
            for kind in Kind::BOTH {
                if let Some(record) = table.get((subject, record::kind_number(kind)))? {
                    flags.push((kind, record::decode_flag(record.value())?));
                }
            }
            Ok(flags)
        })
    }

    /// The flags behind position `after`, in the order of their subjects, for as long as `take` says so.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a record makes no sense.
    pub fn flags_after(
        &self,
        after: Option<(&str, Kind)>,
        mut take: impl FnMut(FlagRow) -> bool,
    ) -> Result<(), StoreError> {
        self.read(|transaction| {
            let start = match after {
                Some((subject, kind)) => Bound::Excluded((subject, record::kind_number(kind))),
                None => Bound::Unbounded,
            };
            let table = transaction.open_table(FLAGS)?;
            for row in table.range::<(&str, u8)>((start, Bound::Unbounded))? {
                if !take(flag_row(row)?) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// The entries of the audit trail before sequence number `before`, newest first, for as long as `take` says so.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a record makes no sense.
    pub fn log_before(&self, before: Option<u64>, mut take: impl FnMut(u64, Entry) -> bool) -> Result<(), StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(AUDIT)?;
            for row in table.range(..before.unwrap_or(u64::MAX))?.rev() {
                let (sequence, record) = row?;
                if !take(sequence.value(), record::decode_entry(record.value())?) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn write(
        &self,
        transaction: &WriteTransaction,
        changes: &[Change],
        now: Timestamp,
    ) -> Result<Vec<Effect>, StoreError> {
        let mut flags = transaction.open_table(FLAGS)?;
        let mut passes = transaction.open_table(PASSES)?;
        let mut audit = transaction.open_table(AUDIT)?;
        let mut sequence = audit.last()?.map_or(0, |(sequence, _)| sequence.value());
        let mut effects = Vec::with_capacity(changes.len());
        for change in changes {
            let effect = match &change.action {
                Action::Set { subject, kind, terms } => {
                    let current = current(&flags, subject, *kind)?;
                    put(&mut flags, subject, *kind, change::set(current.as_ref(), terms, &change.origin, now))?
                }
                Action::Clear { subject, kind } => {
                    let current = current(&flags, subject, *kind)?;
                    put(&mut flags, subject, *kind, change::clear(current.as_ref(), now))?
                }
                Action::Expire { subject, kind } => {
                    let current = current(&flags, subject, *kind)?;
                    put(&mut flags, subject, *kind, change::expire(current.as_ref(), now))?
                }
                Action::Pass { message } => {
                    if passes.get(message.as_str())?.is_some() {
                        Effect::Unchanged
                    } else {
                        passes.insert(message.as_str(), record::encode_pass(now, &change.origin.by)?.as_slice())?;
                        Effect::Given
                    }
                }
                Action::ForgetPass { message } => match passes.remove(message.as_str())? {
                    Some(_) => Effect::Removed,
                    None => Effect::Unchanged,
                },
            };
            if let Some(entry) = audit::entry(change, &effect, now) {
                sequence += 1;
                audit.insert(sequence, record::encode_entry(&entry)?.as_slice())?;
            }
            effects.push(effect);
        }
        while audit.len()? > self.audit_entries {
            audit.pop_first()?;
        }
        Ok(effects)
    }

    fn read<T>(&self, then: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(|database| then(&database.begin_read()?))
    }

    fn with<T>(&self, then: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        then(database.as_ref().ok_or(StoreError::Closed)?)
    }
}

type FlagTable<'a> = redb::Table<'a, (&'static str, u8), &'static [u8]>;

fn current(flags: &FlagTable<'_>, subject: &Subject, kind: Kind) -> Result<Option<Flag>, StoreError> {
    let record = flags.get((subject.as_str(), record::kind_number(kind)))?;
    record.map(|record| Ok(record::decode_flag(record.value())?)).transpose()
}

fn put(flags: &mut FlagTable<'_>, subject: &Subject, kind: Kind, effect: Effect) -> Result<Effect, StoreError> {
    let key = (subject.as_str(), record::kind_number(kind));
    match &effect {
        Effect::Put(flag) => {
            flags.insert(key, record::encode_flag(flag)?.as_slice())?;
        }
        Effect::Removed => {
            flags.remove(key)?;
        }
        Effect::Unchanged | Effect::Given => {}
    }
    Ok(effect)
}

type Row<'a> = (redb::AccessGuard<'a, (&'static str, u8)>, redb::AccessGuard<'a, &'static [u8]>);

fn flag_row(row: Result<Row<'_>, redb::StorageError>) -> Result<FlagRow, StoreError> {
    let (key, record) = row?;
    let (subject, kind) = key.value();
    let name = Subject::new(subject).map_err(|error| Damage(format!("a flag on what {error}")))?;
    if name.as_str() != subject {
        return Err(Damage(format!("a flag on \"{}\", which is not in normal form", subject.escape_debug())).into());
    }
    Ok((name, record::kind_of(kind)?, record::decode_flag(record.value())?))
}
