//! Opening the state file: rehearse on a copy in memory, read the journal, then open for real.
//!
//! redb repairs a file that was not closed properly and, where the newest state is damaged, falls back to the one before:
//! right after a crash, wrong after a bit flip, which would silently undo acknowledged changes. So the file is first opened
//! through [`Rehearsal`], a storage back end whose writes stay in memory, with every checksum verified and every record
//! read. Only if it passes, and the journal beside it makes sense if one is needed, is anything written; what does not is
//! reported, and left exactly as it is. What the journal alone has is then put into the database, where the table is loaded
//! from and administrators look.
//!
//! A new file is made under another name, filled, synced and then renamed: there is never half a one.

use super::journal::{self, Journal, Pending};
use super::tables::{self, META, Tables};
use super::{CLEAN, Damage, Disk, FORMAT, FORMAT_NOW, Files, IDENTITY, JOURNAL, JOURNAL_FILE, StoreError, Writing};
use redb::{Builder, Database, Durability, ReadableDatabase, StorageBackend};
use std::cell::Cell;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fs::{self, File, Metadata};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::iter;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tracing::warn;

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

/// A file that is open, and where it belongs. The system lets anybody who may write to the directory remove or replace it, and
/// goes on taking what is written to it, which nobody finds again.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl Place {
    fn new(path: &Path, file: &File) -> io::Result<Place> {
        Ok(Place { path: path.to_path_buf(), file: device_and_inode(&file.metadata()?) })
    }

    /// Whether the file stands where it belongs.
    fn has_its_file(&self) -> io::Result<Standing> {
        match fs::symlink_metadata(&self.path) {
            Ok(there) if device_and_inode(&there) == self.file => Ok(Standing::Itself),
            Ok(_) => Ok(Standing::Other),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(Standing::Nothing)
            }
            Err(error) => Err(error),
        }
    }
}

/// What stands where a file belongs.
enum Standing {
    Itself,
    Other,
    Nothing,
}

fn device_and_inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Sees that the state file and the journal that are open still stand in their places.
pub(super) fn in_place([state, journal]: &[Place; 2]) -> io::Result<()> {
    let beside = journal.path.display();
    let wrong = match (state.has_its_file()?, journal.has_its_file()?) {
        (Standing::Itself, Standing::Itself) => return Ok(()),
        (Standing::Nothing, _) => GONE.to_owned(),
        (Standing::Other, _) => {
            "another file is in its place; put back its own, or restart outgoingd to go by the other".to_owned()
        }
        // A proper stop leaves a state file that needs none.
        (_, Standing::Nothing) => format!("its journal {beside} is gone; put it back, or restart outgoingd"),
        (_, Standing::Other) => {
            format!("another file is in the place of its journal {beside}; put back its own, or restart outgoingd")
        }
    };
    Err(io::Error::other(wrong))
}

const GONE: &str =
    "it is gone; put it back, or keep what `outgoingctl export` prints: a restart would begin with an empty one";

/// Opens the state file at `path` and the journal beside it, or creates them if there are none.
pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<(Files, [Place; 2]), OpenError> {
    if length(path)?.is_none() {
        create_whole(path, |file| fill(disk, file, draw()))?;
    }
    open_again(disk, path)
}

/// Opens the state file at `path`, which must be there, and the journal beside it.
pub(super) fn open_again(disk: &dyn Disk, path: &Path) -> Result<(Files, [Place; 2]), OpenError> {
    let journal = path.with_file_name(JOURNAL_FILE);
    if length(path)?.is_none() {
        // Not made anew, nor a reason to end: what is in memory is right, and the file may come back, as that of a volume does.
        return Err(io::Error::new(io::ErrorKind::NotFound, GONE).into());
    }
    let found = rehearse(File::open(path)?)?;
    let pending = pending(disk, &journal, &found)?;
    let file = File::options().read(true).write(true).open(path)?;
    let beside = File::options().read(true).write(true).open(&journal)?;
    let places = [Place::new(path, &file)?, Place::new(&journal, &beside)?];
    let database = disk.database(&builder(), file).map_err(StoreError::from)?;
    let Found { format, last, clean, identity: _ } = found;
    let journal = Journal::open(disk, beside, last, &pending)?;
    if format != FORMAT_NOW || !pending.groups.is_empty() {
        catch_up(&database, &pending, &found)?;
    }
    Ok((Files { database, writing: Mutex::new(Writing { journal, clean }) }, places))
}

/// The length of a file, if there is one. Links, and what else is no file, are nothing that the store has made.
fn length(path: &Path) -> Result<Option<u64>, OpenError> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_file() => Ok(Some(there.len())),
        Ok(_) => Err(OpenError::Unusable(format!("{} is no regular file", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What the state file says about itself.
#[derive(Debug)]
struct Found {
    format: u64,
    identity: u64,
    /// The last group of the journal that the database has.
    last: u64,
    /// It needs no journal.
    clean: bool,
}

/// Sees to it that there is a journal, and what in it is not in the database.
fn pending(disk: &dyn Disk, journal: &Path, found: &Found) -> Result<Pending, OpenError> {
    match (found.clean, length(journal)?) {
        (false, Some(1..)) => return journal::read(journal, found.identity, found.last),
        (false, None) => {
            return Err(OpenError::Unusable(format!(
                "its journal {} is gone; put it back, or create an empty file in its place to go on with what the state file \
                 has",
                journal.display()
            )));
        }
        (true, Some(1..)) => match journal::read(journal, found.identity, found.last) {
            Ok(pending) if pending.groups.is_empty() => return Ok(pending),
            _ => set_aside(journal)?,
        },
        // An empty one is somebody's wish.
        (true, _) | (false, Some(0)) => {}
    }
    journal::create(disk, journal, found.identity)?;
    Ok(Pending::default())
}

/// Keeps a journal that the state file does not need: it may be another's, whom somebody has moved away.
fn set_aside(journal: &Path) -> Result<(), OpenError> {
    let names = iter::once("journal.before".to_owned()).chain((2..).map(|number| format!("journal.before.{number}")));
    let mut paths = names.map(|name| journal.with_extension(name));
    let Some(kept) = paths.find(|path| !path.exists()) else { return Ok(()) };
    fs::rename(journal, &kept)?;
    warn!("{} is not this state file's, or damaged and not needed; it is now {}", journal.display(), kept.display());
    Ok(())
}

/// A number that no other state file has.
fn draw() -> u64 {
    // std's own source of chance.
    RandomState::new().build_hasher().finish()
}

/// Puts into the database what only the journal has, and gives it the present format.
fn catch_up(database: &Database, pending: &Pending, found: &Found) -> Result<(), StoreError> {
    let mut transaction = database.begin_write()?;
    if found.format == 1 {
        tables::convert(&transaction)?;
    }
    let mut tables = Tables::open(&transaction)?;
    pending.groups.iter().flatten().try_for_each(|write| tables.apply(write))?;
    drop(tables);
    let mut meta = transaction.open_table(META)?;
    meta.insert(JOURNAL, found.last + pending.groups.len() as u64)?;
    if found.format == 1 {
        meta.insert(FORMAT, FORMAT_NOW)?;
        meta.insert(IDENTITY, found.identity)?;
        meta.insert(CLEAN, 1)?;
    }
    drop(meta);
    if found.format != FORMAT_NOW {
        return super::commit_durably(transaction);
    }
    // Durable in the journal.
    transaction.set_durability(Durability::None)?;
    Ok(transaction.commit()?)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

/// Creates the file at `path` with what `fill` writes, in the place of any that is there: whole, or not at all.
pub(super) fn create_whole<E: Into<OpenError>>(
    path: &Path,
    fill: impl FnOnce(File) -> Result<(), E>,
) -> Result<(), OpenError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let new = File::options().read(true).write(true).create_new(true).mode(0o600).open(&beside)?;
    fill(new).map_err(Into::into)?;
    File::open(&beside)?.sync_all()?;
    fs::rename(&beside, path)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn fill(disk: &dyn Disk, file: File, identity: u64) -> Result<(), StoreError> {
    let database = disk.database(&builder(), file)?;
    let transaction = database.begin_write()?;
    drop(Tables::open(&transaction)?);
    let mut meta = transaction.open_table(META)?;
    meta.insert(FORMAT, FORMAT_NOW)?;
    meta.insert(IDENTITY, identity)?;
    meta.insert(JOURNAL, 0)?;
    meta.insert(CLEAN, 1)?;
    drop(meta);
    transaction.commit()?;
    Ok(())
}

/// Goes through everything in the file without writing to it.
fn rehearse(file: File) -> Result<Found, OpenError> {
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

fn verify(file: File) -> Result<Found, OpenError> {
    let rehearsal = Rehearsal { length: Mutex::new(file.metadata()?.len()), file, written: Mutex::default() };
    let mut database = builder().create_with_backend(rehearsal).map_err(|error| blame(error.into()))?;
    if !database.check_integrity().map_err(|error| blame(error.into()))? {
        return Err(OpenError::Unusable("its checksums do not match".to_owned()));
    }
    go_through(&database).map_err(blame)
}

/// Whether the file is damaged, or the disk would not read it just now.
fn blame(error: StoreError) -> OpenError {
    match error {
        StoreError::Database(redb::Error::Io(error)) if error.raw_os_error().is_some() => OpenError::Io(error),
        error => OpenError::Unusable(error.to_string()),
    }
}

/// Reads everything, behind a conversion if the format is an old one.
fn go_through(database: &Database) -> Result<Found, StoreError> {
    let found = found(database)?;
    if found.format != FORMAT_NOW {
        catch_up(database, &Pending::default(), &found)?;
    }
    let transaction = database.begin_read()?;
    tables::flags(&transaction, None, |_| true)?;
    tables::passes(&transaction, None, |_, _| true)?;
    tables::tokens(&transaction)?;
    tables::entries(&transaction, None, |_, _| true)?;
    Ok(found)
}

fn found(database: &Database) -> Result<Found, StoreError> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let number = |key| Ok::<_, StoreError>(meta.get(key)?.map(|number| number.value()));
    match number(FORMAT)? {
        Some(1) => Ok(Found { format: 1, identity: draw(), last: 0, clean: true }),
        Some(FORMAT_NOW) => {
            let damage = || Damage("it does not say which journal is its own".to_owned());
            let (identity, last) = number(IDENTITY)?.zip(number(JOURNAL)?).ok_or_else(damage)?;
            Ok(Found { format: FORMAT_NOW, identity, last, clean: number(CLEAN)?.is_some() })
        }
        Some(format) => {
            Err(Damage(format!("it has format {format}, where this outgoingd knows formats 1 to {FORMAT_NOW}")).into())
        }
        None => Err(Damage("it has no format".to_owned()).into()),
    }
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
