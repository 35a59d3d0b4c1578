//! The state file against damage: whatever is wrong with it, it is reported and left exactly as it is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use outgoingd::change::{Action, Change, Origin, Terms};
use outgoingd::flag::{Kind, Timestamp};
use outgoingd::name::Subject;
use outgoingd::store::{OpenError, Store};
use std::fs;
use std::path::Path;

const SUBJECTS: usize = 40;

/// A state file as a daemon leaves it that was stopped properly.
fn filled(directory: &Path) -> Vec<u8> {
    let store = Store::open(directory, 1_000).unwrap();
    for number in 0..SUBJECTS {
        let subject = Subject::new(&format!("user{number}@example.com")).unwrap();
        let action = Action::Set { subject, kind: Kind::Hold, terms: Terms::default() };
        store.commit(&[Change { origin: Origin::daemon(), action }], Timestamp(1)).unwrap();
    }
    drop(store);
    fs::read(directory.join("state.redb")).unwrap()
}

/// All flags and audit entries.
fn contents(store: &Store) -> Vec<String> {
    let mut contents = Vec::new();
    store.for_each_flag(|subject, kind, flag| contents.push(format!("{subject} {kind:?} {flag:?}"))).unwrap();
    store
        .log_before(None, |sequence, entry| {
            contents.push(format!("{sequence} {entry:?}"));
            true
        })
        .unwrap();
    contents
}

/// What is in the file of [`filled`].
fn expected() -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let contents = contents(&Store::open(directory.path(), 1_000).unwrap());
    assert_eq!(contents.len(), 2 * SUBJECTS);
    contents
}

/// Puts `bytes` in the place of the state file and opens it; where that fails, the file must be untouched.
fn open(directory: &Path, bytes: &[u8]) -> Result<Store, OpenError> {
    let path = directory.join("state.redb");
    fs::write(&path, bytes).unwrap();
    let outcome = Store::open(directory, 1_000);
    if outcome.is_err() {
        assert!(fs::read(&path).unwrap() == bytes, "a file that was refused was changed");
    }
    outcome
}

#[test]
fn a_state_file_is_found_again_as_it_was_left() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = filled(directory.path());
    assert_eq!(contents(&open(directory.path(), &bytes).unwrap()), expected());
}

#[test]
fn an_empty_a_truncated_and_a_foreign_file_are_unusable() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = filled(directory.path());
    for length in [0, 1, 64, 320, 4096, 5000, bytes.len() / 2, bytes.len() - 4096, bytes.len() - 1] {
        let outcome = open(directory.path(), &bytes[..length]);
        assert!(matches!(outcome, Err(OpenError::Unusable(_))), "{length} bytes: {outcome:?}");
    }
    let outcome = open(directory.path(), &b"SQLite format 3\0".repeat(1000));
    assert!(matches!(outcome, Err(OpenError::Unusable(_))), "{outcome:?}");
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_says_something() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = filled(directory.path());
    let expected = expected();
    let mut unusable = 0;
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let positions = (0..320).chain((320..used).step_by(509));
    for (round, position) in positions.enumerate() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 1 << (round % 8);
        match open(directory.path(), &damaged) {
            // Free space, padding, or a copy of something: then nothing is missing.
            Ok(store) => assert_eq!(contents(&store), expected, "bit {round} of byte {position}"),
            Err(OpenError::Unusable(_)) => unusable += 1,
            Err(error) => panic!("bit of byte {position}: {error}"),
        }
    }
    assert!(unusable > 20, "only {unusable} flips were noticed");
}

#[test]
fn a_state_file_that_was_never_finished_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("state.redb.new"), "cut off by a crash").unwrap();
    assert!(contents(&Store::open(directory.path(), 1_000).unwrap()).is_empty());
    assert!(!directory.path().join("state.redb.new").exists());
}

#[test]
fn after_a_recovery_everything_committed_is_there() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let store = Store::open(directory.path(), 1_000).unwrap();
    store.recover().unwrap();
    assert_eq!(contents(&store), expected());
}
