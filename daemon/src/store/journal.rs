//! The journal: small groups of changes, on disk before they are acknowledged, until the database has them durably.
//!
//! A durable commit of redb writes eight or nine scattered pages and syncs twice. A record of the journal is one block in
//! place, synced once. So a group of changes that fits into a block is written here and committed to the database without a
//! sync; the database catches up when the journal is full, when nobody wants anything for a second, and at the stop. What a
//! crash has left only here is put into the database again at the next start, and stays here until that has it durably: a
//! start takes no room on a full disk.
//!
//! The file has [`BLOCKS`] blocks from its beginning to its end, so that a write in it changes no metadata. The first says to
//! which database it belongs. A record never shares a block, so that a torn write can hurt none but the one that was never
//! acknowledged. Groups are numbered without gaps for ever, and the database knows the number of the last one in it: what is
//! older counts no more, and writing starts again behind the first block. A daemon that stops properly leaves a database that
//! has everything and says so; until the first change behind the next start it needs no journal.
//!
//! Honest limits: a last record that does not make sense counts as torn, since nothing tells it from one whose bits were
//! flipped after it was acknowledged. That is one group, and only behind a crash. A record that does not make sense while
//! a later one does is damage.

use super::open::OpenError;
use super::record::{self, Write};
use super::{Disk, StoreError};
use redb::StorageBackend;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Length of a block, and so the longest record with its header, in bytes. What disks and file systems write at once.
pub(crate) const BLOCK: usize = 4096;

/// Blocks in the file.
const BLOCKS: usize = 256;

/// The block of the first record.
const FIRST: usize = 1;

/// The record in the first block, whose number is the database's identity.
const TITLE: &[u8] = b"journal of outgoingd";

/// In front of a record, little endian: the CRC-32 of all that follows (4 bytes), the length of the record (4), the number of
/// the group (8).
pub(crate) const HEADER: usize = 16;

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    file: Box<dyn StorageBackend>,
    /// The block that is written next.
    next: usize,
    /// The number of the last group, here or in the database.
    pub(super) last: u64,
}

/// What the journal has and the database does not.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Groups in their order.
    pub(super) groups: Vec<Vec<Write>>,
    /// The blocks of their records.
    blocks: Range<usize>,
}

/// Makes a journal without records for the database of that identity, in the place of any that is there.
pub(super) fn create(disk: &dyn Disk, path: &Path, identity: u64) -> Result<(), OpenError> {
    // Written, not only made long: blocks that were never written would change metadata when they are.
    let mut bytes = vec![0; BLOCK * BLOCKS];
    let title = seal(identity, TITLE).expect("a title of a few bytes fits into a block");
    bytes[..BLOCK].copy_from_slice(&title);
    super::open::create_whole(path, |file| {
        let file = disk.journal(file)?;
        file.set_len(bytes.len() as u64)?;
        file.write(0, &bytes)?;
        file.sync_data()
    })
}

/// Reads the groups behind number `last`, which is the last one that the database of that identity has. Changes nothing.
pub(super) fn read(path: &Path, identity: u64, last: u64) -> Result<Pending, OpenError> {
    let damage = |what: String| OpenError::Unusable(format!("its journal {} {what}", path.display()));
    let (file, mut bytes) = (File::open(path)?, vec![0; BLOCK * BLOCKS]);
    let length = file.metadata()?.len();
    if length != bytes.len() as u64 {
        return Err(damage(format!("has {length} bytes instead of {}", bytes.len())));
    }
    file.read_exact_at(&mut bytes, 0)?;
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    match blocks.first().and_then(open) {
        Some((number, TITLE)) if number == identity => {}
        Some((_, TITLE)) => {
            return Err(damage(
                "belongs to another state file; put back its own, or move it away and create an empty file in its place to \
                 go on with what the state file has"
                    .to_owned(),
            ));
        }
        _ => return Err(damage("does not begin as a journal".to_owned())),
    }
    let mut pending = Pending::default();
    for (position, block) in blocks.iter().enumerate().skip(FIRST) {
        let Some((number, record)) = open(block).filter(|(number, _)| *number > last) else { continue };
        let expected = last + 1 + pending.groups.len() as u64;
        if number != expected {
            return Err(damage(format!("has group {number} and not group {expected} before it")));
        }
        if pending.groups.is_empty() {
            pending.blocks.start = position;
        }
        pending.blocks.end = position + 1;
        pending.groups.push(record::decode_group(record).map_err(|error| damage(format!("has {error}")))?);
    }
    Ok(pending)
}

/// The number of the group and the record in a block, if there is a whole one.
pub(crate) fn open(block: &[u8; BLOCK]) -> Option<(u64, &[u8])> {
    let (checksum, rest) = block.split_first_chunk()?;
    let (length, numbered) = rest.split_first_chunk()?;
    let (number, _) = numbered.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    let record = block.get(HEADER..HEADER.checked_add(length)?)?;
    let whole = length > 0 && crc32fast::hash(&block[4..HEADER + length]) == u32::from_le_bytes(*checksum);
    whole.then_some((u64::from_le_bytes(*number), record))
}

/// The block of a record, unless it is too long for one.
pub(crate) fn seal(number: u64, record: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(record.len()).ok().filter(|_| HEADER + record.len() <= BLOCK)?;
    let mut block = [&[0; 4][..], &length.to_le_bytes(), &number.to_le_bytes(), record].concat();
    let checksum = crc32fast::hash(&block[4..]);
    block[..4].copy_from_slice(&checksum.to_le_bytes());
    block.resize(BLOCK, 0);
    Some(block)
}

impl Journal {
    /// Opens a journal for appending behind what is pending in it, when the database has all groups up to number `last`. What
    /// is pending is synced once more: what was read may be in memory alone, if a sync has failed.
    pub(super) fn open(disk: &dyn Disk, file: File, last: u64, pending: &Pending) -> io::Result<Journal> {
        let file = disk.journal(file)?;
        let Pending { groups, blocks } = pending;
        if !blocks.is_empty() {
            let (mut bytes, start) = (vec![0; blocks.len() * BLOCK], (blocks.start * BLOCK) as u64);
            file.read(start, &mut bytes)?;
            file.write(start, &bytes)?;
            file.sync_data()?;
        }
        Ok(Journal { file, next: blocks.end.max(FIRST), last: last + groups.len() as u64 })
    }

    /// Writes a group and syncs it. False, and nothing is written, if the group is too large or the journal full.
    pub(super) fn append(&mut self, group: &[Write]) -> Result<bool, StoreError> {
        if self.next == BLOCKS {
            return Ok(false);
        }
        let Some(block) = seal(self.last + 1, &record::encode_group(group)?) else { return Ok(false) };
        self.file.write((self.next * BLOCK) as u64, &block)?;
        self.file.sync_data()?;
        self.next += 1;
        self.last += 1;
        Ok(true)
    }

    /// The database has durably all that is here: writing starts again behind the first block.
    pub(super) fn start_over(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::super::SystemDisk;
    use super::*;
    use std::fs;

    fn group(number: u64) -> Vec<Write> {
        vec![Write::Entry(number, vec![1, 2, 3])]
    }

    /// A journal with records of these numbers, one a block, and its path.
    fn journal(directory: &tempfile::TempDir, numbers: &[u64]) -> std::path::PathBuf {
        let path = directory.path().join("state.journal");
        create(&SystemDisk, &path, 7).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        for (block, number) in (FIRST..).zip(numbers) {
            let bytes = seal(*number, &record::encode_group(&group(*number)).unwrap()).unwrap();
            file.write_all_at(&bytes, (block * BLOCK) as u64).unwrap();
        }
        path
    }

    fn file(path: &Path) -> File {
        File::options().read(true).write(true).open(path).unwrap()
    }

    /// The numbers of the groups that are pending behind `last`, or what is wrong.
    fn pending(numbers: &[u64], last: u64, spoil: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u64>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = journal(&directory, numbers);
        let mut bytes = fs::read(&path).unwrap();
        spoil(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let outcome = read(&path, 7, last);
        assert_eq!(fs::read(&path).unwrap(), bytes, "reading changes nothing");
        let pending = outcome.map_err(|error| error.to_string())?;
        let numbers: Vec<u64> = (last + 1..).take(pending.groups.len()).collect();
        assert_eq!(pending.groups, numbers.iter().copied().map(group).collect::<Vec<_>>());
        Ok(numbers)
    }

    #[test]
    fn a_record_is_these_bytes() {
        let block = seal(5, &record::encode_group(&group(5)).unwrap()).unwrap();
        assert_eq!(
            block[..25].escape_ascii().to_string(),
            r"\x99C\xea\xbf\x08\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x01\x01\x02\x05\x03\x01\x02\x03\x00"
        );
        assert!(block[25..].iter().all(|byte| *byte == 0) && block.len() == BLOCK);
    }

    #[test]
    fn what_the_database_does_not_have_is_read_in_its_order() {
        let unspoilt = |numbers: &[u64], last| pending(numbers, last, |_| ()).unwrap();
        assert_eq!(unspoilt(&[], 0), []);
        assert_eq!(unspoilt(&[1, 2, 3], 0), [1, 2, 3]);
        // The round before had five.
        assert_eq!(unspoilt(&[6, 7, 3, 4, 5], 5), [6, 7]);
        // The database caught up, and the daemon ended before it could start over.
        assert_eq!(unspoilt(&[1, 2, 3], 3), []);
        assert_eq!(unspoilt(&[1, 2, 3], 2), [3]);
    }

    #[test]
    fn a_last_record_that_was_torn_counts_as_never_written() {
        for torn in [0, 4, 9, 17, 20] {
            assert_eq!(pending(&[1, 2, 3], 0, |bytes| bytes[3 * BLOCK + torn] ^= 1).unwrap(), [1, 2], "byte {torn}");
        }
    }

    #[test]
    fn a_damaged_record_before_a_whole_one_is_damage() {
        let error = pending(&[1, 2, 3], 0, |bytes| bytes[2 * BLOCK + 20] ^= 1).unwrap_err();
        assert!(error.contains("group 3 and not group 2"), "{error}");
        assert!(pending(&[1, 2, 3], 0, |bytes| bytes[BLOCK + 20] ^= 1).is_err());
    }

    #[test]
    fn a_journal_of_another_state_and_one_that_is_cut_off_are_refused() {
        // The database was put back from a backup, the journal was not.
        assert!(pending(&[230, 231], 100, |_| ()).is_err());
        let directory = tempfile::tempdir().unwrap();
        assert!(read(&journal(&directory, &[]), 8, 0).unwrap_err().to_string().contains("another state file"));
        assert!(pending(&[1], 0, |bytes| bytes[..BLOCK].fill(0)).unwrap_err().contains("does not begin"));
        assert!(pending(&[1], 0, |bytes| bytes.truncate(BLOCK)).unwrap_err().contains("4096 bytes"));
        assert!(pending(&[1], 0, Vec::clear).is_err());
    }

    #[test]
    fn a_record_of_a_later_version_is_refused_while_it_counts() {
        let later = |bytes: &mut Vec<u8>| {
            let mut record = record::encode_group(&group(1)).unwrap();
            record[0] = 2;
            bytes[BLOCK..2 * BLOCK].copy_from_slice(&seal(1, &record).unwrap());
        };
        assert!(pending(&[], 0, later).unwrap_err().contains("version 2"));
        assert_eq!(pending(&[], 1, later).unwrap(), [], "it does not count any more");
    }

    #[test]
    fn a_group_that_fills_a_block_is_written_and_a_larger_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = journal(&directory, &[]);
        let mut journal = Journal::open(&SystemDisk, file(&path), 0, &Pending::default()).unwrap();
        let entry = |length| vec![Write::Entry(1, vec![7; length])];
        let overhead = record::encode_group(&entry(4000)).unwrap().len() - 4000;
        let most = BLOCK - HEADER - overhead;
        assert!(!journal.append(&entry(most + 1)).unwrap());
        assert_eq!(journal.next, FIRST);
        assert!(journal.append(&entry(most)).unwrap());
        assert_eq!(read(&path, 7, 0).unwrap().groups, [entry(most)]);
    }

    #[test]
    fn a_full_journal_takes_no_more_until_it_starts_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = journal(&directory, &[]);
        let mut journal = Journal::open(&SystemDisk, file(&path), 0, &Pending::default()).unwrap();
        for _ in FIRST..BLOCKS {
            assert!(journal.append(&group(journal.last + 1)).unwrap());
        }
        assert!(!journal.append(&group(journal.last + 1)).unwrap());
        assert_eq!(read(&path, 7, 0).unwrap().groups.len(), BLOCKS - FIRST);
        journal.last += 1;
        journal.start_over();
        assert!(journal.append(&group(257)).unwrap());
        assert_eq!(read(&path, 7, 256).unwrap().groups, [group(257)]);
    }
}
