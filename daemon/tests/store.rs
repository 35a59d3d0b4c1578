//! The state file and its journal against crashes, behind which everything acknowledged is there, and against damage, which
//! is reported and left exactly as it is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use outgoingd::change::{Action, Change, Effect, Origin, Terms};
use outgoingd::flag::{Kind, Timestamp};
use outgoingd::name::Subject;
use outgoingd::store::{JOURNAL_FILE, OpenError, STATE_FILE, Store, StoreError};
use outgoingd::token::{self, Hash, Token};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const SUBJECTS: usize = 40;

/// Holds `user{number}@example.com`, in a group of its own.
fn hold(store: &Store, number: usize) {
    store.commit(&[held(number)], Timestamp(1)).unwrap();
}

fn held(number: usize) -> Change {
    let subject = Subject::new(&format!("user{number}@example.com")).unwrap();
    let action = Action::Set { subject, kind: Kind::Hold, terms: Terms::default() };
    Change { origin: Origin::daemon(), action }
}

/// A state file as a daemon leaves it that was stopped properly.
fn filled(directory: &Path) -> Vec<u8> {
    let store = Store::open(directory, 1_000).unwrap();
    (0..SUBJECTS).for_each(|number| hold(&store, number));
    store.close().unwrap();
    drop(store);
    fs::read(directory.join(STATE_FILE)).unwrap()
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
    let path = directory.join(STATE_FILE);
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

/// What a crash leaves of one of the two files: its bytes at some moment.
fn snapshot(directory: &TempDir, name: &str) -> Vec<u8> {
    fs::read(directory.path().join(name)).unwrap()
}

/// Opens what a crash has left; once more what that start has left; and once more behind another change.
fn after_a_crash(state: &[u8], journal: &[u8]) -> Result<Vec<String>, OpenError> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(STATE_FILE), state).unwrap();
    fs::write(directory.path().join(JOURNAL_FILE), journal).unwrap();
    let found = contents(&Store::open(directory.path(), 1_000)?);
    let again = Store::open(directory.path(), 1_000)?;
    assert_eq!(contents(&again), found);
    hold(&again, 999_999);
    let behind = contents(&again);
    let (state, journal) = (snapshot(&directory, STATE_FILE), snapshot(&directory, JOURNAL_FILE));
    drop(again);
    fs::write(directory.path().join(STATE_FILE), state).unwrap();
    fs::write(directory.path().join(JOURNAL_FILE), journal).unwrap();
    assert_eq!(contents(&Store::open(directory.path(), 1_000)?), behind);
    Ok(found)
}

#[test]
fn whatever_was_acknowledged_is_there_after_a_crash_of_the_daemon_or_of_the_machine() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), 1_000).unwrap();
    // The first change behind a start is durable in the database, which then knows that it needs its journal.
    hold(&store, 0);
    let synced = snapshot(&directory, STATE_FILE);
    for number in 1..8 {
        hold(&store, number);
        let (state, journal) = (snapshot(&directory, STATE_FILE), snapshot(&directory, JOURNAL_FILE));
        let expected = contents(&store);
        assert_eq!(expected.len(), 2 * (number + 1));
        assert_eq!(after_a_crash(&state, &journal).unwrap(), expected, "killed");
        // Nothing of the database is synced before it catches up.
        assert_eq!(after_a_crash(&synced, &journal).unwrap(), expected, "power failed");
    }
}

#[test]
fn after_a_crash_between_catching_up_and_starting_over_nothing_is_done_twice() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), 1_000).unwrap();
    (0..3).for_each(|number| hold(&store, number));
    store.settle().unwrap();
    let expected = contents(&store);
    let (state, journal) = (snapshot(&directory, STATE_FILE), snapshot(&directory, JOURNAL_FILE));
    assert_eq!(after_a_crash(&state, &journal).unwrap(), expected);
    hold(&store, 3);
    assert_eq!(after_a_crash(&state, &snapshot(&directory, JOURNAL_FILE)).unwrap(), contents(&store));
}

#[test]
fn large_groups_full_journals_and_small_groups_follow_each_other_without_loss() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), 10_000).unwrap();
    (0..300).for_each(|number| hold(&store, number));
    store.commit(&(300..400).map(held).collect::<Vec<_>>(), Timestamp(1)).unwrap();
    (400..410).for_each(|number| hold(&store, number));
    let left = after_a_crash(&snapshot(&directory, STATE_FILE), &snapshot(&directory, JOURNAL_FILE)).unwrap();
    assert_eq!(left, contents(&store));
    assert_eq!(left.len(), 820);
}

#[test]
fn a_group_that_was_refused_because_its_sync_failed_is_found_whole_or_not_at_all() {
    // The database was closed behind the third group, as it is after an error; the fourth one stands in the journal behind them.
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), 1_000).unwrap();
    (0..3).for_each(|number| hold(&store, number));
    let (crashed, before) = (snapshot(&directory, STATE_FILE), snapshot(&directory, JOURNAL_FILE));
    hold(&store, 3);
    let (after, expected) = (snapshot(&directory, JOURNAL_FILE), contents(&store));
    drop(store);
    fs::write(directory.path().join(STATE_FILE), crashed).unwrap();
    fs::write(directory.path().join(JOURNAL_FILE), &before).unwrap();
    drop(Store::open(directory.path(), 1_000).unwrap());
    let closed = snapshot(&directory, STATE_FILE);
    assert_eq!(after_a_crash(&closed, &after).unwrap(), expected);
    assert_eq!(after_a_crash(&closed, &before).unwrap().len(), 6);
}

#[test]
fn a_journal_that_makes_no_sense_is_refused_and_both_files_stay_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), 1_000).unwrap();
    hold(&store, 0);
    let state = snapshot(&directory, STATE_FILE);
    (1..4).for_each(|number| hold(&store, number));
    let good = snapshot(&directory, JOURNAL_FILE);
    drop(store);
    let mut flipped = good.clone();
    flipped[2 * 4096 + 20] ^= 1;
    for (what, journal) in [("flipped", &flipped[..]), ("truncated", &good[..5000])] {
        fs::write(directory.path().join(STATE_FILE), &state).unwrap();
        fs::write(directory.path().join(JOURNAL_FILE), journal).unwrap();
        match Store::open(directory.path(), 1_000) {
            Err(OpenError::Unusable(message)) => assert!(message.contains(JOURNAL_FILE), "{what}: {message}"),
            other => panic!("{what}: {other:?}"),
        }
        assert!(snapshot(&directory, STATE_FILE) == state && snapshot(&directory, JOURNAL_FILE) == journal, "{what}");
    }
}

#[test]
fn a_state_file_that_was_closed_properly_needs_no_journal_and_takes_none_of_another_state() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = filled(directory.path());
    let journal = directory.path().join(JOURNAL_FILE);
    fs::remove_file(&journal).unwrap();
    let store = Store::open(directory.path(), 1_000).unwrap();
    assert_eq!(contents(&store), expected());
    // Three more, and the backup is put back: neither they nor the others are there again.
    (100..103).for_each(|number| hold(&store, number));
    drop(store);
    let later = fs::read(&journal).unwrap();
    assert_eq!(contents(&open(directory.path(), &bytes).unwrap()), expected());
    assert!(fs::read(directory.path().join("state.journal.before")).unwrap() == later, "kept for whoever wants them");
}

#[test]
fn a_state_file_that_was_not_closed_needs_its_journal() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), 1_000).unwrap();
    hold(&store, 0);
    let state = snapshot(&directory, STATE_FILE);
    drop(store);
    let journal = directory.path().join(JOURNAL_FILE);
    fs::remove_file(&journal).unwrap();
    match open(directory.path(), &state) {
        Err(OpenError::Unusable(message)) => assert!(message.contains(JOURNAL_FILE), "{message}"),
        other => panic!("{other:?}"),
    }
    // As the message says.
    fs::write(&journal, "").unwrap();
    assert_eq!(contents(&Store::open(directory.path(), 1_000).unwrap()).len(), 2);
}

#[test]
fn a_journal_without_its_state_file_is_kept_and_not_taken_for_that_of_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), 1_000).unwrap();
    (0..2).for_each(|number| hold(&store, number));
    drop(store);
    let (state, journal) = (snapshot(&directory, STATE_FILE), snapshot(&directory, JOURNAL_FILE));
    fs::remove_file(directory.path().join(STATE_FILE)).unwrap();
    let new = Store::open(directory.path(), 1_000).unwrap();
    assert!(contents(&new).is_empty());
    drop(new);
    assert!(snapshot(&directory, "state.journal.before") == journal);
    assert_eq!(after_a_crash(&state, &snapshot(&directory, "state.journal.before")).unwrap().len(), 4);
}

#[test]
fn a_change_behind_a_proper_stop_is_as_durable_as_any() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..3 {
        let store = Store::open(directory.path(), 1_000).unwrap();
        hold(&store, number);
        let crashed = after_a_crash(&snapshot(&directory, STATE_FILE), &snapshot(&directory, JOURNAL_FILE)).unwrap();
        assert_eq!(crashed, contents(&store));
        store.close().unwrap();
        hold(&store, 10 + number);
        let crashed = after_a_crash(&snapshot(&directory, STATE_FILE), &snapshot(&directory, JOURNAL_FILE)).unwrap();
        assert_eq!(crashed, contents(&store));
        store.close().unwrap();
        let alone = open(&beside(&directory), &snapshot(&directory, STATE_FILE)).unwrap();
        assert_eq!(contents(&alone), contents(&store));
    }
}

#[test]
fn a_state_file_that_was_not_closed_takes_no_journal_of_another_state() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let stores = directories.each_ref().map(|directory| Store::open(directory.path(), 1_000).unwrap());
    for number in 0..3 {
        for store in &stores {
            hold(store, number);
        }
        let state = snapshot(&directories[0], STATE_FILE);
        match after_a_crash(&state, &snapshot(&directories[1], JOURNAL_FILE)) {
            Err(OpenError::Unusable(message)) => assert!(message.contains("another state file"), "{message}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(after_a_crash(&state, &snapshot(&directories[0], JOURNAL_FILE)).unwrap().len(), 2 * (number + 1));
    }
}

/// A directory without a journal.
fn beside(directory: &TempDir) -> std::path::PathBuf {
    let beside = directory.path().join("beside");
    let _ = fs::remove_dir_all(&beside);
    fs::create_dir(&beside).unwrap();
    beside
}

/// A file of format 1, as outgoingd wrote it before there was a journal: pages with something in them, each behind its
/// position.
const FORMAT_1: &[u8] = include_bytes!("data/state-1.pages");

#[test]
fn a_state_file_of_format_1_is_read_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let file = File::create(directory.path().join(STATE_FILE)).unwrap();
    for page in FORMAT_1.chunks(8 + 4096) {
        file.write_all_at(&page[8..], u64::from_le_bytes(page[..8].try_into().unwrap())).unwrap();
    }
    let store = Store::open(directory.path(), 1_000).unwrap();
    let found = contents(&store);
    assert!(found[0].starts_with("alice Hold") && found[0].contains("phished"), "{found:?}");
    assert!(found[1].starts_with("bob@example.com Suspend") && found[1].contains("call 555"), "{found:?}");
    // Three holds and suspends, a release, a pass.
    assert_eq!(found.len(), 2 + 5);
    hold(&store, 0);
    let expected = contents(&store);
    drop(store);
    assert_eq!(contents(&Store::open(directory.path(), 1_000).unwrap()), expected);
}

#[test]
fn a_state_file_from_before_there_were_tokens_has_none_and_takes_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), 1_000).unwrap();
    hold(&store, 0);
    store.close().unwrap();
    drop(store);
    let database = redb::Database::open(directory.path().join(STATE_FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    let table: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("tokens");
    assert!(transaction.delete_table(table).unwrap(), "there was one");
    transaction.commit().unwrap();
    drop(database);
    let store = Store::open(directory.path(), 1_000).unwrap();
    assert_eq!(store.tokens().unwrap(), []);
    let token =
        Token { hash: Hash([7; 32]), functions: vec![], since: Timestamp(1), until: None, by: "ann".to_owned() };
    let action = Action::CreateToken { name: token::Name::new("billing").unwrap(), token: token.clone() };
    let change = Change { origin: Origin::daemon(), action };
    assert_eq!(store.commit(&[change], Timestamp(2)).unwrap(), [Effect::Given]);
    assert_eq!(store.tokens().unwrap(), [("billing".to_owned(), token)]);
}

#[test]
fn a_link_or_a_pipe_in_the_place_of_a_file_is_not_followed_nor_waited_for() {
    let elsewhere = tempfile::tempdir().unwrap();
    let precious = filled(elsewhere.path());
    for name in [STATE_FILE, JOURNAL_FILE] {
        for plant in ["link", "pipe"] {
            let directory = tempfile::tempdir().unwrap();
            drop(Store::open(directory.path(), 1_000).unwrap());
            let place = directory.path().join(name);
            fs::remove_file(&place).unwrap();
            if plant == "link" {
                std::os::unix::fs::symlink(elsewhere.path().join(STATE_FILE), &place).unwrap();
            } else {
                assert!(Command::new("mkfifo").arg(&place).status().unwrap().success());
            }
            match Store::open(directory.path(), 1_000) {
                Err(OpenError::Unusable(message)) => assert!(message.contains("no regular file"), "{message}"),
                other => panic!("{plant} as {name}: {other:?}"),
            }
        }
    }
    assert!(fs::read(elsewhere.path().join(STATE_FILE)).unwrap() == precious);
}

#[test]
fn while_a_file_is_not_in_its_place_a_change_is_refused_and_what_is_known_is_still_to_be_had() {
    for name in [STATE_FILE, JOURNAL_FILE] {
        for copied in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(directory.path(), 1_000).unwrap();
            (0..2).for_each(|number| hold(&store, number));
            let known = contents(&store);
            let (place, elsewhere) = (directory.path().join(name), directory.path().join("elsewhere"));
            fs::rename(&place, &elsewhere).unwrap();
            if copied {
                fs::copy(&elsewhere, &place).unwrap();
            }
            for change in [held(2), held(0)] {
                let refused = store.commit(&[change], Timestamp(1)).unwrap_err();
                assert!(matches!(refused, StoreError::OutOfPlace(_)), "{refused:?}");
                assert!(refused.to_string().contains("put"), "{refused}");
            }
            assert!(store.in_place().is_err() && store.recover().is_err());
            assert_eq!(contents(&store), known);
            fs::rename(&elsewhere, &place).unwrap();
            hold(&store, 2);
            let expected = contents(&store);
            assert_eq!(expected.len(), 6);
            let crashed = after_a_crash(&snapshot(&directory, STATE_FILE), &snapshot(&directory, JOURNAL_FILE));
            assert_eq!(crashed.unwrap(), expected);
        }
    }
}

#[test]
fn a_journal_that_was_removed_is_made_anew_behind_a_proper_stop_with_nothing_lost() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), 1_000).unwrap();
    (0..3).for_each(|number| hold(&store, number));
    fs::remove_file(directory.path().join(JOURNAL_FILE)).unwrap();
    assert!(store.commit(&[held(3)], Timestamp(1)).unwrap_err().to_string().contains("restart outgoingd"));
    let expected = contents(&store);
    store.close().unwrap();
    drop(store);
    assert_eq!(contents(&Store::open(directory.path(), 1_000).unwrap()), expected);
}
