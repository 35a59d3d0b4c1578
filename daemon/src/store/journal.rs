//! The journal: small groups of changes, on disk before they are acknowledged, until the database has them durably.
//!
//! A durable commit of redb writes eight or nine scattered pages and syncs twice. A record of the journal is one block in
//! place, synced once. So a group of changes that fits into a block is written here and committed to the database without a
//! sync; the database catches up when the journal is full, when nobody wants anything for a second, and at the stop. What a
//! crash has left only here is put into the database again at the next start, and stays here until that has it durably: a
//! start takes no room on a full disk.
//!
//! The file has [`BLOCKS`] blocks from its beginning to its end, so that a write in it changes no metadata. A record never
//! shares a block, so that a torn write can hurt none but the one that was never acknowledged. Records are numbered without
//! gaps for ever, and the database knows the number of the last one in it: what is older counts no more, and writing starts
//! again at the first block.
//!
//! Honest limits: a last record that does not make sense counts as torn, since nothing tells it from one whose bits were
//! flipped after it was acknowledged. That is one group, and only behind a crash. A record that does not make sense while
//! a later one does is damage.

use super::open::OpenError;
use super::record::{self, Write};
use super::{Damage, StoreError};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Length of a block, and so the longest record with its header, in bytes. What disks and file systems write at once.
const BLOCK: usize = 4096;

/// Blocks in the file.
const BLOCKS: usize = 256;

/// In front of a record: the CRC-32 of all that follows, and the length of the record, each four bytes, little endian.
const HEADER: usize = 8;

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    /// The block that is written next.
    next: usize,
    /// The number of the last group, here or in the database.
    pub(super) last: u64,
}

/// What the journal has and the database does not.
pub(super) struct Pending {
    /// Groups in their order.
    pub(super) groups: Vec<Vec<Write>>,
    /// The number of the last one, or of the last one in the database.
    pub(super) last: u64,
    /// The blocks of their records.
    blocks: Range<usize>,
}

impl Pending {
    /// Nothing behind number `last`.
    pub(super) fn none(last: u64) -> Pending {
        Pending { groups: Vec::new(), last, blocks: 0..0 }
    }
}

/// Makes a journal without records, in the place of any that is there.
pub(super) fn create(path: &Path) -> Result<(), OpenError> {
    super::open::create_whole(path, |file| {
        // Written, not only made long: blocks that were never written would change metadata when they are.
        file.write_all_at(&vec![0; BLOCK * BLOCKS], 0)
    })
}

/// Reads the groups behind number `last`, which is the last one that the database has. Changes nothing.
pub(super) fn read(path: &Path, last: u64) -> Result<Pending, OpenError> {
    let damage = |what: String| OpenError::Unusable(format!("its journal {} {what}", path.display()));
    let (file, mut bytes) = (File::open(path)?, vec![0; BLOCK * BLOCKS]);
    let length = file.metadata()?.len();
    if length != bytes.len() as u64 {
        return Err(damage(format!("has {length} bytes instead of {}", bytes.len())));
    }
    file.read_exact_at(&mut bytes, 0)?;
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    let records = blocks.iter().map(parse).collect::<Result<Vec<_>, _>>().map_err(|error| damage(error.to_string()))?;
    let mut pending = Pending::none(last);
    for (block, record) in records.into_iter().enumerate() {
        let Some((number, group)) = record.filter(|(number, _)| *number > last) else { continue };
        if number != pending.last + 1 {
            return Err(damage(format!(
                "has a group {number}, but none before it behind {}; if it belongs to another state, move it away",
                pending.last
            )));
        }
        pending.blocks = if pending.groups.is_empty() { block..block + 1 } else { pending.blocks.start..block + 1 };
        pending.groups.push(group);
        pending.last = number;
    }
    Ok(pending)
}

/// The number and the group of a record, if the block has one that is whole.
fn parse(block: &[u8; BLOCK]) -> Result<Option<(u64, Vec<Write>)>, Damage> {
    let (header, rest) = block.split_at(HEADER);
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (checksum, length) = (number(0), number(4) as usize);
    match rest.get(..length) {
        Some(record) if length > 0 && checksum_of(&block[4..HEADER + length]) == checksum => {
            record::decode_group(record).map(Some)
        }
        _ => Ok(None),
    }
}

/// The block of a record, unless it is too long for one.
fn seal(record: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(record.len()).ok().filter(|_| HEADER + record.len() <= BLOCK)?;
    let mut block = vec![0; BLOCK];
    block[4..HEADER].copy_from_slice(&length.to_le_bytes());
    block[HEADER..HEADER + record.len()].copy_from_slice(record);
    let checksum = checksum_of(&block[4..HEADER + record.len()]);
    block[..4].copy_from_slice(&checksum.to_le_bytes());
    Some(block)
}

fn checksum_of(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

impl Journal {
    /// Opens a journal for appending behind what is pending in it. That is synced once more: what was read may be in
    /// memory alone, if a sync has failed.
    pub(super) fn open(path: &Path, Pending { last, blocks, .. }: &Pending) -> io::Result<Journal> {
        let file = File::options().read(true).write(true).open(path)?;
        if !blocks.is_empty() {
            let (mut bytes, start) = (vec![0; blocks.len() * BLOCK], (blocks.start * BLOCK) as u64);
            file.read_exact_at(&mut bytes, start)?;
            file.write_all_at(&bytes, start)?;
            file.sync_data()?;
        }
        Ok(Journal { file, next: blocks.end, last: *last })
    }

    /// Whether the database has durably all that is here.
    pub(super) fn is_empty(&self) -> bool {
        self.next == 0
    }

    /// Writes a group and syncs it. False, and nothing is written, if the group is too large or the journal full.
    pub(super) fn append(&mut self, group: &[Write]) -> Result<bool, StoreError> {
        if self.next == BLOCKS {
            return Ok(false);
        }
        let Some(block) = seal(&record::encode_group(self.last + 1, group)?) else { return Ok(false) };
        self.file.write_all_at(&block, (self.next * BLOCK) as u64)?;
        self.file.sync_data()?;
        self.next += 1;
        self.last += 1;
        Ok(true)
    }

    /// The database has durably all groups up to number `last`: writing starts again at the first block.
    pub(super) fn start_over(&mut self, last: u64) {
        (self.next, self.last) = (0, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn group(number: u64) -> Vec<Write> {
        vec![Write::Entry(number, vec![1, 2, 3])]
    }

    /// A journal with records of these numbers, one a block, and its path.
    fn journal(directory: &tempfile::TempDir, numbers: &[u64]) -> std::path::PathBuf {
        let path = directory.path().join("state.journal");
        create(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        for (block, number) in numbers.iter().enumerate() {
            let bytes = seal(&record::encode_group(*number, &group(*number)).unwrap()).unwrap();
            file.write_all_at(&bytes, (block * BLOCK) as u64).unwrap();
        }
        path
    }

    /// The numbers of the groups that are pending behind `last`, or what is wrong.
    fn pending(numbers: &[u64], last: u64, spoil: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u64>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = journal(&directory, numbers);
        let mut bytes = fs::read(&path).unwrap();
        spoil(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let outcome = read(&path, last);
        assert_eq!(fs::read(&path).unwrap(), bytes, "reading changes nothing");
        let pending = outcome.map_err(|error| error.to_string())?;
        let numbers: Vec<u64> = (last + 1..=pending.last).collect();
        assert_eq!(pending.groups, numbers.iter().copied().map(group).collect::<Vec<_>>());
        Ok(numbers)
    }

    #[test]
    fn a_record_is_these_bytes() {
        let block = seal(&record::encode_group(5, &group(5)).unwrap()).unwrap();
        assert_eq!(
            block[..18].escape_ascii().to_string(),
            r"c\x85mL\t\x00\x00\x00\x01\x05\x01\x02\x05\x03\x01\x02\x03\x00"
        );
        assert!(block[18..].iter().all(|byte| *byte == 0) && block.len() == BLOCK);
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
        for torn in [0, 4, 9, 12] {
            assert_eq!(pending(&[1, 2, 3], 0, |bytes| bytes[2 * BLOCK + torn] ^= 1).unwrap(), [1, 2], "byte {torn}");
        }
    }

    #[test]
    fn a_damaged_record_before_a_whole_one_is_damage() {
        let error = pending(&[1, 2, 3], 0, |bytes| bytes[BLOCK + 9] ^= 1).unwrap_err();
        assert!(error.contains("group 3") && error.contains("behind 1"), "{error}");
        assert!(pending(&[1, 2, 3], 0, |bytes| bytes[9] ^= 1).is_err());
    }

    #[test]
    fn a_journal_of_another_state_and_one_that_is_cut_off_are_refused() {
        // The database was put back from a backup, the journal was not.
        assert!(pending(&[230, 231], 100, |_| ()).is_err());
        assert!(pending(&[1], 0, |bytes| bytes.truncate(BLOCK)).unwrap_err().contains("4096 bytes"));
        assert!(pending(&[1], 0, Vec::clear).is_err());
    }

    #[test]
    fn a_record_of_a_later_version_is_refused() {
        let later = |bytes: &mut Vec<u8>| {
            let mut record = record::encode_group(1, &group(1)).unwrap();
            record[0] = 2;
            bytes[..BLOCK].copy_from_slice(&seal(&record).unwrap());
        };
        assert!(pending(&[], 0, later).unwrap_err().contains("version 2"));
    }

    #[test]
    fn a_group_that_fills_a_block_is_written_and_a_larger_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = journal(&directory, &[]);
        let mut journal = Journal::open(&path, &Pending::none(0)).unwrap();
        let entry = |length| vec![Write::Entry(1, vec![7; length])];
        let overhead = record::encode_group(1, &entry(4000)).unwrap().len() - 4000;
        let most = BLOCK - HEADER - overhead;
        assert!(!journal.append(&entry(most + 1)).unwrap());
        assert!(journal.is_empty());
        assert!(journal.append(&entry(most)).unwrap());
        assert_eq!(read(&path, 0).unwrap().groups, [entry(most)]);
    }

    #[test]
    fn a_full_journal_takes_no_more_until_it_starts_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = journal(&directory, &[]);
        let mut journal = Journal::open(&path, &Pending::none(0)).unwrap();
        for _ in 0..BLOCKS {
            assert!(journal.append(&group(journal.last + 1)).unwrap());
        }
        assert!(!journal.append(&group(journal.last + 1)).unwrap());
        assert_eq!(read(&path, 0).unwrap().groups.len(), BLOCKS);
        journal.start_over(257);
        assert!(journal.append(&group(258)).unwrap());
        assert_eq!(read(&path, 257).unwrap().groups, [group(258)]);
    }
}
