//! The state file: flags, passes, tokens and the audit trail in one redb database, `state.redb` in the state directory, with a
//! journal in front of it, `state.journal`.
//!
//! [`Store::commit`] makes a group of changes durable, their audit entries included: all of them or none. A small group is
//! durable in the journal, and in the database when that catches up ([`Store::settle`]); a large one, and the first behind a
//! proper stop, is durable in the database at once (two-phase commit, each phase ended by `fdatasync`). There is one caller,
//! the writer thread. Reading is for administrators and the start; lookups never come here.
//!
//! After any error of the disk, the files are to be opened again; [`Store::recover`] does that. What a failed commit has left
//! is then one of the two whole states, the old one or the new one, so the caller must load the table again from here.

mod disk;
pub(crate) mod journal;
mod open;
pub(crate) mod record;
mod tables;

use crate::audit::{self, Entry};
use crate::change::{Change, Effect};
use crate::flag::{Flag, Kind, Timestamp};
use crate::name::{MessageId, Subject};
use crate::token::Token;
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTableMetadata, WriteTransaction};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use self::journal::Journal;
use self::open::Place;
use self::record::Write;
use self::tables::{FLAGS, META, Tables};

pub use disk::{Disk, SystemDisk};
pub use open::{OpenError, is_rehearsing};

/// Name of the state file in its directory.
pub const STATE_FILE: &str = "state.redb";

/// Name of the journal beside it.
pub const JOURNAL_FILE: &str = "state.journal";

/// Key in [`META`]: the layout of the file. Format 1 had no journal.
const FORMAT: &str = "format";
/// The layout that this code writes.
const FORMAT_NOW: u64 = 2;
/// Key in [`META`]: a random number by which the journal is known for this file's own.
const IDENTITY: &str = "identity";
/// Key in [`META`]: the number of the last group of the journal that the database has.
const JOURNAL: &str = "journal";
/// Key in [`META`], there from a proper stop until the first change behind it: the database needs no journal.
const CLEAN: &str = "clean";

/// The state file, open.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    /// Oldest entries of the audit trail go when there are more than this.
    audit_entries: u64,
    /// None only between a failed reopening and the next.
    files: RwLock<Option<Files>>,
    /// Of the state file and the journal. They outlast a reopening that failed.
    places: Mutex<[Place; 2]>,
}

/// What is open.
#[derive(Debug)]
struct Files {
    database: Database,
    writing: Mutex<Writing>,
}

/// What the one who writes goes by.
#[derive(Debug)]
struct Writing {
    journal: Journal,
    /// The database says that it needs no journal.
    clean: bool,
}

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, or redb, said so.
    #[error("{0}")]
    Database(redb::Error),
    /// The disk said so of the journal.
    #[error("the journal: {0}")]
    Journal(#[from] io::Error),
    /// A record makes no sense.
    #[error("{0}")]
    Damage(#[from] Damage),
    /// An earlier error closed the file and it could not be opened again yet.
    #[error("the state file is closed after an earlier error")]
    Closed,
    /// A file is not where it belongs: a change would be lost. Nothing was written, and nothing needs recovery.
    #[error("{0}")]
    OutOfPlace(io::Error),
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

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError, SetDurabilityError);

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
    /// [`OpenError`]. The files are then as they were, but that a journal may have been set aside that is not needed.
    pub fn open(directory: &Path, audit_entries: u64) -> Result<Store, OpenError> {
        Store::open_on(Arc::new(SystemDisk), directory, audit_entries)
    }

    /// The same on another disk than the system's.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_on(disk: Arc<dyn Disk>, directory: &Path, audit_entries: u64) -> Result<Store, OpenError> {
        let path = directory.join(STATE_FILE);
        let (files, places) = open::open(&*disk, &path)?;
        Ok(Store { path, disk, audit_entries, files: RwLock::new(Some(files)), places: Mutex::new(places) })
    }

    /// Opens the files again after an error. A state file that is gone is not made anew, and none that is another is taken.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; every call then fails with [`StoreError::Closed`] until a later recovery succeeds.
    pub fn recover(&self) -> Result<(), OpenError> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        open::in_place(&places)?;
        *files = None;
        let opened;
        (opened, *places) = open::open_again(&*self.disk, &self.path)?;
        *files = Some(opened);
        Ok(())
    }

    /// Sees that the files which are open are those that the next start will find.
    ///
    /// # Errors
    ///
    /// [`StoreError::OutOfPlace`], until the very files are back.
    pub fn in_place(&self) -> Result<(), StoreError> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        open::in_place(&places).map_err(StoreError::OutOfPlace)
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
    /// The disk is full, broken or read-only; [`Store::recover`] is then needed. Or [`StoreError::OutOfPlace`].
    pub fn commit(&self, changes: &[Change], now: Timestamp) -> Result<Vec<Effect>, StoreError> {
        self.in_place()?;
        self.with(|Files { database, writing }| {
            let mut writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
            let Writing { journal, clean } = &mut *writing;
            let mut transaction = database.begin_write()?;
            let (effects, writes) = self.write(&transaction, changes, now)?;
            if writes.is_empty() {
                transaction.abort()?;
                return Ok(effects);
            }
            let number = journal.last + 1;
            let mut meta = transaction.open_table(META)?;
            meta.insert(JOURNAL, number)?;
            meta.remove(CLEAN)?;
            drop(meta);
            // The database must know durably that it is not clean before anything stands in the journal only. If that fails
            // behind the write, opening again finds out whether the group is there.
            if !*clean && journal.append(&writes)? {
                transaction.set_durability(Durability::None)?;
                transaction.commit()?;
            } else {
                commit_durably(transaction)?;
                journal.last = number;
                journal.start_over();
                *clean = false;
            }
            Ok(effects)
        })
    }

    /// Makes durable in the database what is so in the journal only. Writes in any case, which shows whether the disk takes
    /// something.
    ///
    /// # Errors
    ///
    /// The disk is full, broken or read-only; [`Store::recover`] is then needed. Nothing is lost.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.with(|Files { database, writing }| {
            let Writing { journal, .. } = &mut *writing.lock().unwrap_or_else(PoisonError::into_inner);
            commit_durably(database.begin_write()?)?;
            journal.start_over();
            Ok(())
        })
    }

    /// For a proper stop: settles, and leaves a state file that needs no journal. A change may still follow.
    ///
    /// # Errors
    ///
    /// As [`Store::settle`].
    pub fn close(&self) -> Result<(), StoreError> {
        self.with(|Files { database, writing }| {
            let Writing { journal, clean } = &mut *writing.lock().unwrap_or_else(PoisonError::into_inner);
            if *clean {
                return Ok(());
            }
            let transaction = database.begin_write()?;
            transaction.open_table(META)?.insert(CLEAN, 1)?;
            commit_durably(transaction)?;
            journal.start_over();
            *clean = true;
            Ok(())
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
        self.flags_after(None, |(subject, kind, flag)| {
            each(subject, kind, flag);
            true
        })
    }

    /// Hands every pass, with the moment it was given, to `each`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a record makes no sense.
    pub fn for_each_pass(&self, mut each: impl FnMut(MessageId<'_>, Timestamp)) -> Result<(), StoreError> {
        self.passes_after(None, |message, given| {
            each(message, given);
            true
        })
    }

    /// The passes behind position `after`, with the moment they were given, in the order of their message ids, for as long as
    /// `take` says so.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a record makes no sense.
    pub fn passes_after(
        &self,
        after: Option<&str>,
        take: impl FnMut(MessageId<'_>, Timestamp) -> bool,
    ) -> Result<(), StoreError> {
        self.read(|transaction| tables::passes(transaction, after, take))
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
                if let Some(record) = table.get((subject.as_bytes(), record::kind_number(kind)))? {
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
        take: impl FnMut(FlagRow) -> bool,
    ) -> Result<(), StoreError> {
        self.read(|transaction| tables::flags(transaction, after, take))
    }

    /// The entries of the audit trail before sequence number `before`, newest first, for as long as `take` says so.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a record makes no sense.
    pub fn log_before(&self, before: Option<u64>, take: impl FnMut(u64, Entry) -> bool) -> Result<(), StoreError> {
        self.read(|transaction| tables::entries(transaction, before, take))
    }

    /// The entries of the audit trail behind sequence number `after`, oldest first, for as long as `take` says so.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a record makes no sense.
    pub fn log_after(&self, after: u64, take: impl FnMut(u64, Entry) -> bool) -> Result<(), StoreError> {
        self.read(|transaction| tables::entries_after(transaction, after, take))
    }

    /// All tokens with their names, ended or not, in the order of their names.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a record makes no sense.
    pub fn tokens(&self) -> Result<Vec<(String, Token)>, StoreError> {
        self.read(tables::tokens)
    }

    /// The sequence number of the newest entry of the audit trail; 0 if there is none.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn last_entry(&self) -> Result<u64, StoreError> {
        self.read(tables::last_entry)
    }

    /// Applies `changes`; says what each did, and what that wrote.
    fn write(
        &self,
        transaction: &WriteTransaction,
        changes: &[Change],
        now: Timestamp,
    ) -> Result<(Vec<Effect>, Vec<Write>), StoreError> {
        let mut tables = Tables::open(transaction)?;
        let mut sequence = tables.last_entry()?;
        let (mut effects, mut writes) = (Vec::with_capacity(changes.len()), Vec::with_capacity(2 * changes.len()));
        for change in changes {
            let (effect, write) = tables.carry_out(change, now)?;
            let mut entry = None;
            if let Some(deed) = audit::entry(change, &effect, now) {
                sequence += 1;
                entry = Some(Write::Entry(sequence, record::encode_entry(&deed)?));
            }
            for write in write.into_iter().chain(entry) {
                tables.apply(&write)?;
                writes.push(write);
            }
            effects.push(effect);
        }
        tables.keep_entries(self.audit_entries)?;
        Ok((effects, writes))
    }

    fn read<T>(&self, then: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(|files| then(&files.database.begin_read()?))
    }

    fn with<T>(&self, then: impl FnOnce(&Files) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        then(files.as_ref().ok_or(StoreError::Closed)?)
    }
}

fn commit_durably(mut transaction: WriteTransaction) -> Result<(), StoreError> {
    transaction.set_two_phase_commit(true);
    Ok(transaction.commit()?)
}
