//! Opening the state file: rehearse on a copy in memory, then open for real.
//!
//! redb repairs a file that was not closed properly and, where the newest state is damaged, falls back to the one before:
//! right after a crash, wrong after a bit flip, which would silently undo acknowledged changes. So the file is first opened
//! through [`Rehearsal`], a storage back end whose writes stay in memory, with every checksum verified and every record
//! read. Only a file that passes is opened for writing; any other is reported and left exactly as it is.
//!
//! A new file is made under another name, filled, synced and then renamed: there is never half a state file.

use super::{AUDIT, FLAGS, FORMAT, FORMAT_NOW, META, PASSES, Store, StoreError};
use redb::{Builder, Database, ReadableDatabase, StorageBackend};
use std::cell::Cell;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};

/// Memory that redb may use for pages. The flags themselves are in the table; the file is read by administrators only.
const CACHE: usize = 8 << 20;

/// Why the state file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is there and makes no sense: damaged, empty, or written by a newer version.
    #[error("{0}")]
    Unusable(String),
    /// The system would not let it be read, written or created.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// redb could not open or create it, for a reason that is not in the file.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Opens the file at `path`, or creates it if there is none.
pub(super) fn open(path: &Path) -> Result<Database, OpenError> {
    match File::open(path) {
        Ok(file) => rehearse(file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path)?,
        Err(error) => return Err(error.into()),
    }
    Ok(builder().open(path).map_err(StoreError::from)?)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

fn create(path: &Path) -> Result<(), OpenError> {
    let unfinished = path.with_extension("redb.new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&unfinished)?;
    fill(file)?;
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, path)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn fill(file: File) -> Result<(), StoreError> {
    let database = builder().create_file(file)?;
    let transaction = database.begin_write()?;
    transaction.open_table(FLAGS)?;
    transaction.open_table(PASSES)?;
    transaction.open_table(AUDIT)?;
    transaction.open_table(META)?.insert(FORMAT, FORMAT_NOW)?;
    transaction.commit()?;
    Ok(())
}

/// Goes through everything in the file without writing to it.
fn rehearse(file: File) -> Result<(), OpenError> {
    if file.metadata()?.len() == 0 {
        return Err(OpenError::Unusable("the file is empty".to_owned()));
    }
    // redb asserts in places what a damaged file does not keep.
    REHEARSING.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| verify(file)));
    REHEARSING.set(false);
    outcome.unwrap_or_else(|_| Err(OpenError::Unusable("its inner structure is damaged".to_owned())))
}

thread_local! {
    static REHEARSING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is trying out a file that may be damaged: then a panic is caught, and becomes an [`OpenError`].
#[must_use]
pub fn is_rehearsing() -> bool {
    REHEARSING.get()
}

fn verify(file: File) -> Result<(), OpenError> {
    let rehearsal = Rehearsal { length: Mutex::new(file.metadata()?.len()), file, written: Mutex::default() };
    let unusable = |error: &dyn std::fmt::Display| OpenError::Unusable(error.to_string());
    let mut database = builder().create_with_backend(rehearsal).map_err(|error| unusable(&error))?;
    if !database.check_integrity().map_err(|error| unusable(&error))? {
        return Err(OpenError::Unusable("its checksums do not match".to_owned()));
    }
    let format = format_of(&database).map_err(|error| unusable(&error))?;
    if format != Some(FORMAT_NOW) {
        let format = format.map_or("no format".to_owned(), |format| format!("format {format}"));
        return Err(OpenError::Unusable(format!("it has {format}, where this outgoingd knows format {FORMAT_NOW}")));
    }
    let store = Store { path: "the rehearsal".into(), audit_entries: 0, database: RwLock::new(Some(database)) };
    store
        .for_each_flag(|_, _, _| {})
        .and_then(|()| store.for_each_pass(|_, _| {}))
        .and_then(|()| store.log_before(None, |_, _| true))
        .map_err(|error| unusable(&error))
}

fn format_of(database: &Database) -> Result<Option<u64>, StoreError> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    Ok(meta.get(FORMAT)?.map(|format| format.value()))
}

/// The state file with everything that redb would write to it kept in memory.
#[derive(Debug)]
struct Rehearsal {
    file: File,
    length: Mutex<u64>,
    /// What was written, in pages of [`PAGE`] bytes.
    written: Mutex<BTreeMap<u64, Box<[u8]>>>,
}

const PAGE: usize = 4096;

impl Rehearsal {
    /// What is in the file; what lies behind its end is zero.
    fn file_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < out.len() {
            match self.file.read_at(&mut out[filled..], offset + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        out[filled..].fill(0);
        Ok(())
    }

    fn page_of_file(&self, page: u64) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; PAGE].into_boxed_slice();
        self.file_at(page * PAGE as u64, &mut bytes)?;
        Ok(bytes)
    }

    /// Splits a range at the borders of pages: page, where in it the piece begins, where in the range, and its length.
    #[allow(clippy::cast_possible_truncation, reason = "a position in a page")]
    fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = offset + done as u64;
            let in_page = (at % PAGE as u64) as usize;
            let piece = (at / PAGE as u64, in_page, done, (PAGE - in_page).min(length - done));
            done += piece.3;
            (piece.3 > 0).then_some(piece)
        })
    }
}

impl StorageBackend for Rehearsal {
    fn len(&self) -> io::Result<u64> {
        Ok(*self.length.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| self.len().is_ok_and(|length| end > length)) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is cut off"));
        }
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        self.file_at(offset, out)?;
        let first = offset / PAGE as u64;
        if written.range(first..).next().is_some() {
            for (page, in_page, in_range, length) in Rehearsal::pieces(offset, out.len()) {
                if let Some(bytes) = written.get(&page) {
                    out[in_range..in_range + length].copy_from_slice(&bytes[in_page..in_page + length]);
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        *self.length.lock().unwrap_or_else(PoisonError::into_inner) = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        for (page, in_page, in_range, length) in Rehearsal::pieces(offset, data.len()) {
            let bytes = match written.entry(page) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.page_of_file(page)?),
            };
            bytes[in_page..in_page + length].copy_from_slice(&data[in_range..in_range + length]);
        }
        Ok(())
    }
}
