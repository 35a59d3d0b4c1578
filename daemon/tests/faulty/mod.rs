//! A disk that fails on command, with the memory that a kernel puts in front of it.
//!
//! Writes go to the file at once, as into the kernel's page cache, where every reader sees them. What would survive a power failure
//! is kept apart: a page becomes durable when it is synced, and a page that a failed sync has dropped is in the file, looks well,
//! and is never written to the disk again unless somebody writes it again (as on Linux since 4.13, fsync(2)). A power failure
//! leaves of each page that is not durable the old one, the new one, or some sectors of each, in any combination.
//!
//! What it does not do: directories and renames are durable at once, since the store syncs a file and its directory itself when
//! it makes one.

use outgoingd::store::Disk;
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// The disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk(Arc<Mutex<State>>);

/// What happens at the chosen write or sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The disk works no more.
    Dies,
    /// That one fails, the next ones do not.
    FailsOnce,
}

/// What a power failure leaves of the pages that were not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The old ones.
    Nothing,
    /// The new ones; so it is when the daemon is killed.
    Everything,
    /// Some of each, and some torn, by this seed.
    Some(u64),
}

#[derive(Debug, Default)]
struct State {
    /// By inode.
    files: BTreeMap<u64, Pages>,
    /// Writes, syncs and changes of length so far.
    done: usize,
    /// The one that fails, and how.
    fault: Option<(usize, Fault)>,
    dead: bool,
}

/// A file's pages that differ from what is durable.
#[derive(Debug)]
struct Pages {
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Debug)]
struct FaultyFile {
    file: FileBackend,
    inode: u64,
    disk: FaultyDisk,
}

impl FaultyDisk {
    /// So many writes and syncs from now, this happens; 0: at the next.
    pub(crate) fn plan(&self, after: usize, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.done + after, fault));
    }

    /// The disk works again.
    pub(crate) fn mend(&self) {
        let mut state = self.state();
        (state.fault, state.dead) = (None, false);
    }

    /// Writes, syncs and changes of length so far.
    pub(crate) fn done(&self) -> usize {
        self.state().done
    }

    /// Whether what was planned has happened.
    pub(crate) fn has_failed(&self) -> bool {
        let state = self.state();
        state.fault.is_some_and(|(at, _)| at < state.done)
    }

    /// Puts into `to` what a power failure at this moment leaves of the files in `from`.
    pub(crate) fn power_failure(&self, from: &Path, to: &Path, fate: Fate) {
        let state = self.state();
        let mut dice = Dice(if let Fate::Some(seed) = fate { seed } else { 0 });
        let mut paths: Vec<_> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let seen = fs::read(&path).unwrap();
            let left = match state.files.get(&fs::metadata(&path).unwrap().ino()) {
                Some(pages) => pages.left(&seen, fate, &mut dice),
                None => seen,
            };
            fs::write(to.join(path.file_name().unwrap()), left).unwrap();
        }
    }

    fn attach(&self, file: File) -> FaultyFile {
        let metadata = file.metadata().unwrap();
        let inode = metadata.ino();
        let mut state = self.state();
        // An inode may be another file's by now, which then has just been made.
        if metadata.len() == 0 || !state.files.contains_key(&inode) {
            let mut durable = vec![0; usize::try_from(metadata.len()).unwrap()];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut durable, 0).unwrap();
            state.files.insert(inode, Pages { durable, dirty: BTreeSet::new() });
        }
        drop(state);
        FaultyFile { file: FileBackend::new(file).unwrap(), inode, disk: self.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for FaultyDisk {
    fn database(&self, builder: &Builder, file: File) -> Result<Database, DatabaseError> {
        builder.create_with_backend(self.attach(file))
    }

    fn journal(&self, file: File) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(self.attach(file)))
    }
}

impl State {
    /// What becomes of the next write or sync.
    fn next(&mut self) -> Outcome {
        if self.dead {
            return Outcome::Dead;
        }
        self.done += 1;
        match self.fault {
            Some((at, Fault::Dies)) if at + 1 == self.done => {
                self.dead = true;
                Outcome::Dying
            }
            Some((at, Fault::FailsOnce)) if at + 1 == self.done => Outcome::Failed,
            _ => Outcome::Done,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
    /// A write reaches the kernel, and perhaps the disk; nobody hears of it.
    Dying,
    Dead,
}

impl Outcome {
    fn told(self) -> io::Result<()> {
        if self == Outcome::Done { Ok(()) } else { Err(rustix::io::Errno::IO.into()) }
    }

    fn reaches_the_kernel(self) -> bool {
        matches!(self, Outcome::Done | Outcome::Dying)
    }
}

impl Pages {
    fn left(&self, seen: &[u8], fate: Fate, dice: &mut Dice) -> Vec<u8> {
        let mut left = match fate {
            Fate::Nothing => return self.durable.clone(),
            Fate::Everything => return seen.to_vec(),
            Fate::Some(_) => self.durable.clone(),
        };
        if dice.throw(2) == 0 {
            left.resize(seen.len(), 0);
        }
        for page in &self.dirty {
            let whole = dice.throw(3);
            for sector in 0..PAGE / SECTOR {
                let start = page * PAGE + sector * SECTOR;
                let end = (start + SECTOR).min(left.len()).min(seen.len());
                if start < end && (whole == 0 || (whole == 1 && dice.throw(2) == 0)) {
                    left[start..end].copy_from_slice(&seen[start..end]);
                }
            }
        }
        left
    }
}

impl StorageBackend for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.next();
        if outcome.reaches_the_kernel() {
            let before = pages_in(self.file.len()?);
            self.file.set_len(length)?;
            let (now, pages) = (pages_in(length), state.files.get_mut(&self.inode).unwrap());
            pages.dirty.retain(|page| *page < now);
            // What was cut off and is there again is zero.
            pages.dirty.extend(before..now.min(pages_in(pages.durable.len() as u64)));
        }
        outcome.told()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.next();
        if outcome.reaches_the_kernel() {
            self.file.write(offset, data)?;
            let first = usize::try_from(offset).unwrap() / PAGE;
            state.files.get_mut(&self.inode).unwrap().dirty.extend(first..pages_in(offset + data.len() as u64));
        }
        outcome.told()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let (outcome, done) = (state.next(), state.done as u64);
        let length = usize::try_from(self.file.len()?).unwrap();
        let pages = state.files.get_mut(&self.inode).unwrap();
        match outcome {
            // Behind a failure, what could not be written counts as clean, and is in memory only; what could is on the disk.
            Outcome::Done | Outcome::Failed => {
                let mut durable = vec![0; length];
                let kept = pages.durable.len().min(length);
                durable[..kept].copy_from_slice(&pages.durable[..kept]);
                pages.durable = durable;
                let mut dice = Dice(done);
                for page in std::mem::take(&mut pages.dirty) {
                    if outcome == Outcome::Done || dice.throw(2) == 0 {
                        let (start, end) = (page * PAGE, ((page + 1) * PAGE).min(length));
                        self.file.read(start as u64, &mut pages.durable[start..end])?;
                    }
                }
            }
            Outcome::Dying | Outcome::Dead => {}
        }
        outcome.told()
    }
}

/// So many pages has a file of that length.
fn pages_in(length: u64) -> usize {
    usize::try_from(length).unwrap().div_ceil(PAGE)
}

/// The same numbers for the same seed.
struct Dice(u64);

impl Dice {
    /// splitmix64.
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}
