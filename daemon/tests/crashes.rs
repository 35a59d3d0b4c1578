//! The store on a disk that dies or fails at every single write and sync of a script of mixed changes.
//!
//! Promised: what is there afterwards is the state before the group of changes under way or the one behind it, everything
//! acknowledged included, the audit trail in agreement with the flags; and after an error nothing is acknowledged that a
//! later power failure could take back. What is expected comes from a model without any storage. At the end, the writer on
//! such a disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod faulty;

use faulty::{Fate, Fault, FaultyDisk};
use outgoingd::audit;
use outgoingd::change::{self, Action, Change, Effect, Mail, Origin, Terms};
use outgoingd::clock::Clock;
use outgoingd::flag::{Flag, Kind, Timestamp, Verdict};
use outgoingd::keeper::Keeper;
use outgoingd::name::{Identity, MessageId, Subject};
use outgoingd::stats::Stats;
use outgoingd::store::{JOURNAL_FILE, OpenError, STATE_FILE, Store, StoreError};
use outgoingd::table::Table;
use outgoingd::token::{self, Hash, Token};
use outgoingd::writer::{Handle, WriteError, Writer};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time;

/// Bound of the audit trail; the script reaches it.
const AUDIT_ENTRIES: u64 = 350;

/// One step of the script.
#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Change>),
    Settle,
    Close,
    /// Close nothing, open again.
    Restart,
}

/// What the state comes to: flags, passes, audit trail.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    flags: BTreeMap<(String, u8), Flag>,
    passes: BTreeSet<String>,
    tokens: BTreeMap<String, Token>,
    trail: Vec<String>,
}

impl Model {
    fn apply(&mut self, changes: &[Change], now: Timestamp) {
        for change in changes {
            let effect = self.effect(change, now);
            if let Some(entry) = audit::entry(change, &effect, now) {
                self.trail.push(format!("{entry:?}"));
            }
        }
        self.bound();
    }

    /// Gives up the oldest entries of the trail. Those that were given up may be there again behind a crash, up to the next
    /// change.
    fn bound(&mut self) {
        let surplus = self.trail.len().saturating_sub(usize::try_from(AUDIT_ENTRIES).unwrap());
        self.trail.drain(..surplus);
    }

    fn effect(&mut self, change: &Change, now: Timestamp) -> Effect {
        match &change.action {
            Action::Pass { message } if self.passes.insert(message.as_str().to_owned()) => Effect::Given,
            Action::ForgetPass { message } if self.passes.remove(message.as_str()) => Effect::Removed,
            Action::RevokeToken { name } if self.tokens.remove(name.as_str()).is_some() => Effect::Removed,
            Action::Pass { .. } | Action::ForgetPass { .. } | Action::RevokeToken { .. } => Effect::Unchanged,
            Action::Drop { mail, .. } if self.passes.remove(mail.as_str()) => Effect::Removed,
            Action::Drop { .. } => Effect::Recorded,
            Action::CreateToken { name, token } => {
                let effect = change::create_token(self.tokens.get(name.as_str()), now);
                if effect == Effect::Given {
                    self.tokens.insert(name.as_str().to_owned(), token.clone());
                }
                effect
            }
            Action::Set { subject, kind, .. } | Action::Clear { subject, kind } | Action::Expire { subject, kind } => {
                let key = (subject.as_str().to_owned(), *kind as u8);
                let flag = self.flags.get(&key);
                let effect = match &change.action {
                    Action::Set { terms, .. } => change::set(flag, terms, &change.origin, now),
                    Action::Clear { .. } => change::clear(flag, now),
                    _ => change::expire(flag, now),
                };
                match &effect {
                    Effect::Put(flag) => drop(self.flags.insert(key, flag.clone())),
                    Effect::Removed => drop(self.flags.remove(&key)),
                    Effect::Unchanged | Effect::Given | Effect::Recorded => {}
                }
                effect
            }
        }
    }

    /// What the store has.
    fn read(store: &Store) -> Model {
        let mut model = Model::default();
        store
            .for_each_flag(|subject, kind, flag| {
                model.flags.insert((subject.as_str().to_owned(), kind as u8), flag);
            })
            .unwrap();
        store
            .for_each_pass(|message, _| {
                model.passes.insert(message.as_str().to_owned());
            })
            .unwrap();
        model.tokens.extend(store.tokens().unwrap());
        store
            .log_before(None, |_, entry| {
                model.trail.push(format!("{entry:?}"));
                true
            })
            .unwrap();
        model.trail.reverse();
        model.bound();
        model
    }
}

fn change(action: Action) -> Change {
    let origin = Origin { by: "ann".to_owned(), uid: 1000, pid: 7, on_behalf_of: None };
    Change { origin, action }
}

fn set(number: usize, kind: Kind, until: Option<u64>) -> Change {
    let reason = Some(format!("ticket {number}"));
    let terms = Terms { until: until.map(Timestamp), reason, ..Terms::default() };
    change(Action::Set { subject: subject(number), kind, terms })
}

fn subject(number: usize) -> Subject {
    Subject::new(&format!("user{number}@example.com")).unwrap()
}

fn message(number: usize) -> MessageId<'static> {
    MessageId::new(&format!("1rABCD-{number:06}-XY")).unwrap().into_owned()
}

fn token(number: usize, until: Option<u64>) -> Change {
    let hash = Hash([u8::try_from(number % 256).unwrap(); 32]);
    let token =
        Token { hash, functions: vec![], since: Timestamp(1), until: until.map(Timestamp), by: "ann".to_owned() };
    change(Action::CreateToken { name: token_name(number), token })
}

fn revoke(number: usize) -> Change {
    change(Action::RevokeToken { name: token_name(number) })
}

fn token_name(number: usize) -> token::Name {
    token::Name::new(&format!("token{number}")).unwrap()
}

/// Small groups and large ones, each kind of change, changes that change nothing, a full journal, a settled one, restarts
/// behind a proper stop and behind none.
fn script() -> Vec<Step> {
    let one = |change| Step::Commit(vec![change]);
    let mixed = |from: usize| {
        vec![
            one(set(from, Kind::Hold, None)),
            one(set(from + 1, Kind::Suspend, Some(500))),
            one(change(Action::Pass { message: message(from) })),
            one(set(from, Kind::Hold, Some(900))),
            one(change(Action::Clear { subject: subject(from), kind: Kind::Hold })),
            one(change(Action::Clear { subject: subject(from), kind: Kind::Hold })),
            Step::Commit(vec![
                set(from + 2, Kind::Hold, None),
                set(from + 3, Kind::Suspend, None),
                change(Action::Clear { subject: subject(from + 2), kind: Kind::Hold }),
                change(Action::ForgetPass { message: message(from) }),
                change(Action::Pass { message: message(from + 1) }),
            ]),
            Step::Commit(vec![
                change(Action::Drop { mail: Mail::Message(message(from + 1)), reason: Some("spam".to_owned()) }),
                change(Action::Drop { mail: Mail::Of(subject(from)), reason: None }),
            ]),
            one(change(Action::Expire { subject: subject(from + 1), kind: Kind::Suspend })),
            one(token(from, Some(500))),
            Step::Commit(vec![token(from, None), token(from + 1, None), revoke(from + 1), token(from + 2, None)]),
            one(revoke(from + 2)),
        ]
    };
    let large = |from| Step::Commit((from..from + 60).map(|number| set(number, Kind::Hold, None)).collect());
    [
        mixed(0),
        vec![Step::Settle],
        mixed(10),
        vec![large(100)],
        mixed(20),
        vec![Step::Restart],
        mixed(30),
        vec![Step::Close, Step::Restart],
        mixed(40),
        vec![Step::Restart, Step::Settle, Step::Close, Step::Close],
        vec![large(600), Step::Close],
        // More than the journal holds.
        (300..560).map(|number| one(set(number, Kind::Suspend, None))).collect(),
        mixed(50),
    ]
    .concat()
}

/// A store on a faulty disk, and what it has acknowledged.
struct Desk {
    directory: TempDir,
    disk: FaultyDisk,
    store: Option<Store>,
    acknowledged: Model,
}

impl Desk {
    fn new() -> Desk {
        Desk {
            directory: tempfile::tempdir().unwrap(),
            disk: FaultyDisk::default(),
            store: None,
            acknowledged: Model::default(),
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Opens the store, as a daemon that starts does.
    fn open(&mut self) -> Result<(), OpenError> {
        self.store = None;
        let disk = Arc::new(self.disk.clone());
        self.store = Some(Store::open_on(disk, self.directory.path(), AUDIT_ENTRIES)?);
        Ok(())
    }

    /// Does a step; a commit that succeeds is acknowledged.
    fn step(&mut self, number: usize, step: &Step) -> Result<(), Failure> {
        let now = moment(number);
        match step {
            Step::Commit(changes) => {
                let effects = self.store().commit(changes, now).map_err(Failure::Store)?;
                assert_eq!(effects.len(), changes.len());
                self.acknowledged.apply(changes, now);
                Ok(())
            }
            Step::Settle => self.store().settle().map_err(Failure::Store),
            Step::Close => self.store().close().map_err(Failure::Store),
            Step::Restart => self.open().map_err(Failure::Open),
        }
    }

    /// What would have been acknowledged had this step not failed.
    fn behind(&self, number: usize, step: &Step) -> Model {
        let mut behind = self.acknowledged.clone();
        if let Step::Commit(changes) = step {
            behind.apply(changes, moment(number));
        }
        behind
    }

    /// What is there if the power fails now.
    fn after_a_power_failure(&self, fate: Fate) -> (TempDir, Model) {
        let left = tempfile::tempdir().unwrap();
        self.disk.power_failure(self.directory.path(), left.path(), fate);
        let found = open_there(left.path());
        (left, found)
    }
}

#[derive(Debug)]
#[allow(dead_code, reason = "shown when a test fails")]
enum Failure {
    Store(StoreError),
    Open(OpenError),
}

fn moment(number: usize) -> Timestamp {
    Timestamp(100 + number as u64)
}

fn open_there(directory: &Path) -> Model {
    // On a disk that does not fail, nor keeps anybody waiting.
    Model::read(&Store::open_on(Arc::new(FaultyDisk::default()), directory, AUDIT_ENTRIES).unwrap())
}

/// For each write and sync of the script, the step that it belongs to.
fn writes() -> Vec<usize> {
    let (mut desk, mut writes) = (Desk::new(), Vec::new());
    desk.open().unwrap();
    writes.resize(desk.disk.done(), 0);
    for (number, step) in script().iter().enumerate() {
        desk.step(number, step).unwrap();
        assert_eq!(Model::read(desk.store()), desk.acknowledged, "behind step {number}");
        writes.resize(desk.disk.done(), number);
    }
    writes
}

/// Where to fail: everywhere, but that the many changes that fill the journal are all alike.
fn points() -> Vec<usize> {
    let (writes, script) = (writes(), script());
    let filling = |step: usize| {
        let alike = |step: Option<&Step>| matches!(step, Some(Step::Commit(changes)) if changes.len() == 1);
        (step.saturating_sub(12)..step + 12).all(|near| alike(script.get(near)))
    };
    (0..writes.len()).filter(|point| !filling(writes[*point]) || point % 40 == 0).collect()
}

#[test]
fn a_crash_at_any_write_or_sync_leaves_the_old_state_or_the_new_one() {
    let script = script();
    for point in points() {
        let mut desk = Desk::new();
        desk.disk.plan(point, Fault::Dies);
        let mut expected = [Model::default(), Model::default()];
        if desk.open().is_ok() {
            let failed = script.iter().enumerate().find(|(number, step)| desk.step(*number, step).is_err());
            let (number, step) = failed.unwrap_or_else(|| panic!("nothing failed at write {point}"));
            expected = [desk.acknowledged.clone(), desk.behind(number, step)];
        }
        for fate in [Fate::Nothing, Fate::Everything, Fate::Some(point as u64), Fate::Some(!(point as u64))] {
            let (left, found) = desk.after_a_power_failure(fate);
            assert!(expected.contains(&found), "write {point}, {fate:?}: {found:#?}\ninstead of {expected:#?}");
            assert_eq!(open_there(left.path()), found, "write {point}, {fate:?}: opened once more");
        }
    }
}

#[test]
fn a_crash_in_the_start_behind_a_crash_loses_nothing_either() {
    for point in points().into_iter().step_by(9) {
        let mut first = Desk::new();
        first.disk.plan(point, Fault::Dies);
        if first.open().is_err() {
            continue;
        }
        let failed = script().into_iter().enumerate().find(|(number, step)| first.step(*number, step).is_err());
        assert!(failed.is_some());
        let left = tempfile::tempdir().unwrap();
        first.disk.power_failure(first.directory.path(), left.path(), Fate::Some(point as u64));
        let expected = {
            let copy = tempfile::tempdir().unwrap();
            first.disk.power_failure(first.directory.path(), copy.path(), Fate::Some(point as u64));
            open_there(copy.path())
        };
        for again in 0.. {
            let disk = FaultyDisk::default();
            disk.plan(again, Fault::Dies);
            let here = tempfile::tempdir().unwrap();
            first.disk.power_failure(first.directory.path(), here.path(), Fate::Some(point as u64));
            let opened = Store::open_on(Arc::new(disk.clone()), here.path(), AUDIT_ENTRIES);
            let over = !disk.has_failed();
            drop(opened);
            for fate in [Fate::Nothing, Fate::Everything, Fate::Some(again as u64)] {
                let there = tempfile::tempdir().unwrap();
                disk.power_failure(here.path(), there.path(), fate);
                assert_eq!(open_there(there.path()), expected, "write {point}, then {again}, {fate:?}");
            }
            if over {
                break;
            }
        }
    }
}

#[test]
fn behind_an_error_of_the_disk_nothing_is_acknowledged_that_a_power_failure_takes_back() {
    let script = script();
    for point in points() {
        let mut desk = Desk::new();
        desk.disk.plan(point, Fault::FailsOnce);
        if desk.open().is_err() {
            desk.open().unwrap();
        }
        let mut failed = None;
        for (number, step) in script.iter().enumerate() {
            let refused = desk.step(number, step).is_err();
            // Where nobody is told, as when a file is closed behind a crash, nothing may follow from it either.
            if refused || (failed.is_none() && desk.disk.has_failed()) {
                assert_eq!(failed.replace(number), None, "write {point}: it failed more than once");
            }
            if refused {
                let behind = desk.behind(number, step);
                // As the writer does. What is there then is the old state or the new one, and stays.
                match &desk.store {
                    Some(store) => store.recover().unwrap(),
                    None => desk.open().unwrap(),
                }
                let found = Model::read(desk.store());
                assert!(found == desk.acknowledged || found == behind, "write {point}: {found:#?}");
                desk.acknowledged = found;
            }
            let since = failed.map(|failed| number - failed);
            if matches!(since, Some(0 | 1 | 9)) {
                for fate in [Fate::Nothing, Fate::Some(number as u64)] {
                    let (_, found) = desk.after_a_power_failure(fate);
                    assert_eq!(found, desk.acknowledged, "write {point} failed, power behind step {number}, {fate:?}");
                }
            }
            if since == Some(9) {
                break;
            }
        }
        assert!(desk.disk.has_failed(), "nothing failed at write {point}");
    }
}

/// A writer at work on a faulty disk.
struct Working {
    directory: TempDir,
    disk: FaultyDisk,
    table: Arc<Table>,
    writer: Handle,
    work: JoinHandle<Result<(), String>>,
}

impl Working {
    fn new() -> Working {
        let (directory, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
        let store = Arc::new(Store::open_on(Arc::new(disk.clone()), directory.path(), AUDIT_ENTRIES).unwrap());
        let (table, stats) = (Arc::new(Table::default()), Arc::new(Stats::default()));
        let clock = Clock::new(|| Timestamp(100));
        let (writer, work) = Writer::new(store, table.clone(), stats, Keeper::default(), clock).unwrap();
        Working { directory, disk, table, writer, work: tokio::spawn(work.run()) }
    }

    async fn hold(&self, number: usize) -> Result<(), WriteError> {
        self.writer.submit(vec![set(number, Kind::Hold, None)]).await.map(drop)
    }

    fn is_held(&self, number: usize) -> bool {
        let identity = subject(number);
        self.table.verdict(&Identity::new(identity.as_str()).unwrap(), None, Timestamp(100)) == Verdict::Hold
    }

    fn refuses(&self) -> bool {
        self.writer.refusal().is_some()
    }

    fn held_after_a_power_failure(&self) -> usize {
        let left = tempfile::tempdir().unwrap();
        self.disk.power_failure(self.directory.path(), left.path(), Fate::Nothing);
        open_there(left.path()).flags.len()
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_disk_is_dead_changes_are_refused_and_lookups_go_on_until_it_is_mended() {
    let working = Working::new();
    working.hold(1).await.unwrap();
    working.disk.plan(0, Fault::Dies);
    for _ in 0..3 {
        let refused = working.hold(2).await.unwrap_err().to_string();
        assert!(refused.contains(STATE_FILE), "{refused}");
        assert!(working.refuses() && working.is_held(1) && !working.is_held(2));
    }
    working.disk.mend();
    working.hold(2).await.unwrap();
    working.hold(3).await.unwrap();
    assert!(!working.refuses() && working.is_held(2) && working.is_held(3));
    assert_eq!(working.held_after_a_power_failure(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_the_database_could_not_take_in_a_quiet_moment_it_takes_in_a_later_one() {
    let working = Working::new();
    // The second stands in the journal alone.
    working.hold(1).await.unwrap();
    working.hold(2).await.unwrap();
    working.disk.plan(0, Fault::Dies);
    time::sleep(Duration::from_secs(2)).await;
    assert!(working.refuses(), "it was not tried");
    working.disk.mend();
    time::sleep(Duration::from_secs(60)).await;
    assert!(!working.refuses(), "it was not tried again");
    let left = tempfile::tempdir().unwrap();
    working.disk.power_failure(working.directory.path(), left.path(), Fate::Nothing);
    fs::write(left.path().join(JOURNAL_FILE), "").unwrap();
    assert_eq!(open_there(left.path()).flags.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_state_file_that_the_disk_has_spoilt_ends_the_writer() {
    let working = Working::new();
    working.hold(1).await.unwrap();
    fs::write(working.directory.path().join(STATE_FILE), vec![0x5a; 200_000]).unwrap();
    working.disk.plan(0, Fault::FailsOnce);
    working.hold(2).await.unwrap_err();
    assert!(working.is_held(1));
    assert!(matches!(working.hold(3).await, Err(WriteError::Stopping)));
    assert!(working.work.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_state_file_that_is_gone_is_not_made_anew_and_what_is_in_memory_counts_until_it_is_back() {
    let working = Working::new();
    working.hold(1).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    for name in [STATE_FILE, JOURNAL_FILE] {
        fs::rename(working.directory.path().join(name), elsewhere.path().join(name)).unwrap();
    }
    let done = working.disk.done();
    for _ in 0..2 {
        assert!(working.hold(2).await.unwrap_err().to_string().contains("gone"));
    }
    assert_eq!(working.disk.done(), done, "a change was written where nobody finds it");
    time::sleep(Duration::from_secs(100)).await;
    assert!(working.refuses() && working.is_held(1) && !working.work.is_finished());
    assert!(!working.directory.path().join(STATE_FILE).exists());
    for name in [STATE_FILE, JOURNAL_FILE] {
        fs::rename(elsewhere.path().join(name), working.directory.path().join(name)).unwrap();
    }
    working.hold(3).await.unwrap();
    assert!(!working.refuses() && working.is_held(1) && working.is_held(3) && !working.is_held(2));
    assert_eq!(working.held_after_a_power_failure(), 2);
}

#[tokio::test(start_paused = true)]
async fn behind_an_error_of_the_disk_no_other_state_file_is_taken_for_the_one_that_is_gone() {
    let working = Working::new();
    working.hold(1).await.unwrap();
    working.disk.plan(0, Fault::Dies);
    working.hold(2).await.unwrap_err();
    let (place, elsewhere) = (working.directory.path().join(STATE_FILE), working.directory.path().join("elsewhere"));
    fs::rename(&place, &elsewhere).unwrap();
    working.disk.mend();
    assert!(working.hold(3).await.unwrap_err().to_string().contains("gone"));
    fs::copy(&elsewhere, &place).unwrap();
    assert!(working.hold(3).await.unwrap_err().to_string().contains("another file"));
    time::sleep(Duration::from_secs(100)).await;
    assert!(working.refuses() && working.is_held(1) && !working.work.is_finished());
    fs::rename(&elsewhere, &place).unwrap();
    working.hold(3).await.unwrap();
    assert!(!working.refuses() && working.is_held(1) && working.is_held(3));
}

#[tokio::test(start_paused = true)]
async fn that_a_file_is_out_of_its_place_and_back_again_is_noticed_though_nobody_changes_anything() {
    let working = Working::new();
    working.hold(1).await.unwrap();
    for name in [STATE_FILE, JOURNAL_FILE] {
        let (place, elsewhere) = (working.directory.path().join(name), working.directory.path().join("elsewhere"));
        for plant in [None, Some("another")] {
            fs::rename(&place, &elsewhere).unwrap();
            if let Some(bytes) = plant {
                fs::write(&place, bytes).unwrap();
            }
            time::sleep(Duration::from_secs(20)).await;
            let refusal = working.writer.refusal().unwrap();
            assert!(refusal.contains(name) && refusal.contains(plant.unwrap_or("gone")), "{refusal}");
            fs::rename(&elsewhere, &place).unwrap();
            time::sleep(Duration::from_secs(20)).await;
            assert_eq!(working.writer.refusal(), None);
        }
    }
    working.hold(2).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn changes_count_as_refused_until_the_disk_has_taken_something() {
    let working = Working::new();
    working.hold(1).await.unwrap();
    time::sleep(Duration::from_secs(5)).await;
    working.disk.plan(0, Fault::Dies);
    working.hold(2).await.unwrap_err();
    time::sleep(Duration::from_secs(300)).await;
    assert!(working.refuses());
    working.disk.mend();
    let before = working.disk.done();
    time::sleep(Duration::from_secs(60)).await;
    assert!(!working.refuses() && working.disk.done() > before);
}
