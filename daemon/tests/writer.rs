//! The writer with a real state file and a real fallback file, in one process and under a clock that the test turns.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use outgoingd::change::{Action, Change, Effect, Mail, Origin, Terms};
use outgoingd::clock::Clock;
use outgoingd::fallback::Fallback;
use outgoingd::flag::{Flag, Kind, Timestamp, Verdict};
use outgoingd::keeper::Keeper;
use outgoingd::name::{Identity, MessageId, Subject};
use outgoingd::stats::Stats;
use outgoingd::store::Store;
use outgoingd::table::{Owners, Table};
use outgoingd::writer::{Handle, Writer};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime;
use tokio::time::{self, Instant};

const START: u64 = 1_000_000;

/// A writer at work on a directory that goes away with it.
struct Desk {
    directory: TempDir,
    store: Arc<Store>,
    table: Arc<Table>,
    writer: Handle,
    keeper: Keeper,
    keeper_thread: Option<JoinHandle<()>>,
    clock: Clock,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.stop_keeper();
    }
}

impl Desk {
    /// To be called in a runtime, whose clock becomes the desk's.
    fn new(owners: &[(&str, &str)]) -> Desk {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path(), 1_000).unwrap());
        let table = Arc::new(Table::default());
        let owned = owners.iter().map(|(domain, account)| ((*domain).into(), (*account).into()));
        table.replace_owners(owned.collect());
        let start = Instant::now();
        let clock = Clock::new(move || Timestamp(START + start.elapsed().as_secs()));
        let fallback = Fallback::new(&directory.path().join("fallback"), 0o640).unwrap();
        let (stats, keeper) = (Arc::new(Stats::default()), Keeper::default());
        let (writer, work) =
            Writer::new(store.clone(), table.clone(), stats.clone(), keeper.clone(), clock.clone()).unwrap();
        let keeper_thread = Some(keeper.start(fallback, table.clone(), stats, clock.clone()).unwrap());
        tokio::spawn(work.run());
        Desk { directory, store, table, writer, keeper, keeper_thread, clock }
    }

    fn stop_keeper(&mut self) {
        self.keeper.stop();
        self.keeper_thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }

    async fn set(&self, subject: &str, kind: Kind, until: Option<u64>) -> Effect {
        let terms = Terms { until: until.map(|seconds| Timestamp(START + seconds)), ..Terms::default() };
        self.submit(Action::Set { subject: Subject::new(subject).unwrap(), kind, terms }).await
    }

    async fn clear(&self, subject: &str, kind: Kind) -> Effect {
        self.submit(Action::Clear { subject: Subject::new(subject).unwrap(), kind }).await
    }

    async fn submit(&self, action: Action) -> Effect {
        let effects = self.writer.submit(vec![Change { origin: Origin::daemon(), action }]).await.unwrap();
        effects[0].clone()
    }

    fn verdict(&self, identity: &str) -> Verdict {
        self.table.verdict(&Identity::new(identity).unwrap(), None, self.clock.now())
    }

    /// The lines of the fallback file behind its heading, in order, once the keeper has done what it was told.
    fn fallback(&self) -> Vec<String> {
        self.settled();
        let text = fs::read_to_string(self.directory.path().join("fallback")).unwrap();
        assert!(text.starts_with('#') && text.ends_with('\n'));
        let mut lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Waits for the keeper in real time, which passes elsewhere only where a test's own stands still.
    fn settled(&self) -> Option<String> {
        let wait =
            || runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(self.keeper.settled());
        thread::scope(|scope| scope.spawn(wait).join().unwrap())
    }

    /// The audit trail, oldest first: what was done to whom.
    fn trail(&self) -> Vec<String> {
        let mut trail = Vec::new();
        self.store
            .log_before(None, |_, entry| {
                trail.push(format!("{:?} {}", entry.deed, entry.subject));
                true
            })
            .unwrap();
        trail.reverse();
        trail
    }

    fn flags_on_disk(&self) -> Vec<(String, Kind, Flag)> {
        let mut flags = Vec::new();
        self.store.for_each_flag(|subject, kind, flag| flags.push((subject.as_str().to_owned(), kind, flag))).unwrap();
        flags
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_change_is_on_disk_in_the_table_and_in_the_trail_and_the_fallback_file_follows() {
    let desk = Desk::new(&[]);
    assert!(matches!(desk.set("bob@example.com", Kind::Hold, None).await, Effect::Put(_)));
    assert_eq!(desk.verdict("bob@example.com"), Verdict::Hold);
    assert_eq!(desk.flags_on_disk().len(), 1);
    assert_eq!(desk.trail(), ["Set(Hold) bob@example.com"]);
    assert_eq!(desk.fallback(), ["bob@example.com: hold"]);
    assert_eq!(desk.set("bob@example.com", Kind::Hold, None).await, Effect::Unchanged);
    assert_eq!(desk.trail().len(), 1, "what changed nothing is not on record");
    assert_eq!(desk.clear("bob@example.com", Kind::Hold).await, Effect::Removed);
    assert_eq!(desk.verdict("bob@example.com"), Verdict::Ok);
    assert_eq!(desk.fallback(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_flag_ends_without_anybodys_help() {
    let desk = Desk::new(&[]);
    desk.set("alice", Kind::Suspend, Some(600)).await;
    desk.set("alice", Kind::Hold, None).await;
    time::sleep(Duration::from_secs(599)).await;
    assert_eq!(desk.verdict("alice"), Verdict::Suspend);
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(desk.verdict("alice"), Verdict::Hold, "out of force to the second, whether removed yet or not");
    time::sleep(Duration::from_secs(30)).await;
    assert_eq!(desk.flags_on_disk().len(), 1);
    assert_eq!(desk.fallback(), ["alice: hold"]);
    assert_eq!(desk.trail().last().unwrap(), "Expired(Suspend) alice");
}

#[tokio::test(start_paused = true)]
async fn a_renewed_flag_ends_at_its_new_end() {
    let desk = Desk::new(&[]);
    desk.set("alice", Kind::Hold, Some(60)).await;
    desk.set("alice", Kind::Hold, Some(600)).await;
    desk.set("carol", Kind::Hold, Some(60)).await;
    desk.set("carol", Kind::Hold, None).await;
    time::sleep(Duration::from_secs(300)).await;
    assert_eq!((desk.verdict("alice"), desk.verdict("carol")), (Verdict::Hold, Verdict::Hold));
    time::sleep(Duration::from_secs(600)).await;
    assert_eq!((desk.verdict("alice"), desk.verdict("carol")), (Verdict::Ok, Verdict::Hold));
    assert_eq!(desk.flags_on_disk().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pass_is_forgotten_after_thirty_days() {
    let desk = Desk::new(&[]);
    let message = || MessageId::new("1rABCD-000abc-XY").unwrap().into_owned();
    desk.set("alice", Kind::Hold, None).await;
    assert_eq!(desk.submit(Action::Pass { message: message() }).await, Effect::Given);
    let verdict = || desk.table.verdict(&Identity::new("alice").unwrap(), Some(&message()), desk.clock.now());
    assert_eq!(verdict(), Verdict::Ok);
    time::sleep(Duration::from_secs(31 * 24 * 3600)).await;
    assert_eq!(verdict(), Verdict::Hold);
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_was_given_up_and_given_again_lasts_its_thirty_days() {
    let desk = Desk::new(&[]);
    let message = || MessageId::new("1rABCD-000abc-XY").unwrap().into_owned();
    desk.submit(Action::Pass { message: message() }).await;
    time::sleep(Duration::from_secs(20 * 24 * 3600)).await;
    assert_eq!(desk.submit(Action::ForgetPass { message: message() }).await, Effect::Removed);
    desk.submit(Action::Pass { message: message() }).await;
    time::sleep(Duration::from_secs(20 * 24 * 3600)).await;
    assert!(desk.table.has_pass(&message()));
    time::sleep(Duration::from_secs(11 * 24 * 3600)).await;
    assert!(!desk.table.has_pass(&message()));
}

#[tokio::test(start_paused = true)]
async fn the_trail_is_told_as_far_as_the_table_shows_it() {
    let desk = Desk::new(&[]);
    let trail = desk.writer.trail();
    assert_eq!(*trail.borrow(), 0);
    desk.set("alice", Kind::Hold, Some(60)).await;
    desk.set("alice", Kind::Hold, Some(60)).await;
    let message = MessageId::new("1rABCD-000abc-XY").unwrap().into_owned();
    desk.submit(Action::Pass { message: message.clone() }).await;
    assert_eq!(*trail.borrow(), 2);
    desk.submit(Action::ForgetPass { message: message.clone() }).await;
    assert_eq!(*trail.borrow(), 2, "what leaves no entry is no news");
    desk.submit(Action::Drop { mail: Mail::Message(message), reason: None }).await;
    time::sleep(Duration::from_secs(90)).await;
    assert_eq!(desk.trail().last().unwrap(), "Expired(Hold) alice");
    assert_eq!((*trail.borrow(), desk.store.last_entry().unwrap()), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn the_fallback_file_answers_as_the_daemon_would() {
    let desk = Desk::new(&[("example.com", "alice"), ("example.net", "alice"), ("example.org", "carol")]);
    desk.set("alice", Kind::Hold, None).await;
    desk.set("@example.net", Kind::Suspend, None).await;
    desk.set("bob@example.com", Kind::Suspend, None).await;
    desk.set("eve@example.net", Kind::Hold, None).await;
    desk.set("dave@example.org", Kind::Hold, None).await;
    let lines = [
        "*@example.com: hold",
        "*@example.net: suspend",
        "alice: hold",
        "bob@example.com: suspend",
        "dave@example.org: hold",
        // lsearch*@ stops at the first key that it finds, so the domain's suspend must stand here too.
        "eve@example.net: suspend",
    ];
    assert_eq!(desk.fallback(), lines);
    desk.set("*", Kind::Hold, None).await;
    let fallback = desk.fallback();
    assert!(fallback.contains(&"*: hold".to_owned()) && fallback.contains(&"root: ok".to_owned()), "{fallback:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_owners_reaches_the_fallback_file() {
    let desk = Desk::new(&[]);
    desk.set("alice", Kind::Hold, None).await;
    desk.table.replace_owners(Owners::from([("example.com".into(), "alice".into())]));
    desk.keeper.changed();
    assert_eq!(desk.fallback(), ["*@example.com: hold", "alice: hold"]);
}

#[tokio::test(start_paused = true)]
async fn keys_that_exim_would_cut_are_quoted() {
    let desk = Desk::new(&[]);
    desk.set("a:b\"c\\d@example.com", Kind::Hold, None).await;
    desk.set("#hash", Kind::Hold, None).await;
    assert_eq!(desk.fallback(), [r##""#hash": hold"##, r#""a:b\"c\\d@example.com": hold"#]);
}

#[tokio::test(start_paused = true)]
async fn keys_outside_ascii_stand_there_as_exim_spells_them_too() {
    let desk = Desk::new(&[]);
    desk.set("dücher@bücher.example", Kind::Hold, None).await;
    desk.set("@bücher.example", Kind::Hold, None).await;
    let lines = [
        r#""*@b\\303\\274cher.example": hold"#,
        r#""d\\303\\274cher@b\\303\\274cher.example": hold"#,
        "*@xn--bcher-kva.example: hold",
        "dücher@xn--bcher-kva.example: hold",
    ];
    assert_eq!(desk.fallback(), lines);
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_removed_while_changes_keep_coming() {
    let desk = Desk::new(&[]);
    desk.set("alice", Kind::Hold, Some(10)).await;
    for _ in 0..20 {
        desk.set("carol", Kind::Hold, None).await;
        desk.clear("carol", Kind::Hold).await;
        time::sleep(Duration::from_millis(900)).await;
    }
    assert!(desk.trail().contains(&"Expired(Hold) alice".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_no_longer_there_to_be_cleared() {
    let desk = Desk::new(&[]);
    desk.set("alice", Kind::Hold, Some(10)).await;
    time::sleep(Duration::from_millis(10_500)).await;
    assert_eq!(desk.clear("alice", Kind::Hold).await, Effect::Unchanged);
}

#[tokio::test(start_paused = true)]
async fn changes_that_wait_together_are_each_told_their_own_effect() {
    let desk = Desk::new(&[]);
    let change = |subject: &str| {
        let action = Action::Set { subject: Subject::new(subject).unwrap(), kind: Kind::Hold, terms: Terms::default() };
        vec![Change { origin: Origin::daemon(), action }]
    };
    let (first, second, third) =
        tokio::join!(desk.writer.submit(change("a")), desk.writer.submit(change("a")), desk.writer.submit(change("b")));
    assert!(matches!(first.unwrap()[..], [Effect::Put(_)]));
    assert!(matches!(second.unwrap()[..], [Effect::Unchanged]));
    assert!(matches!(third.unwrap()[..], [Effect::Put(_)]));
}

#[tokio::test(start_paused = true)]
async fn the_audit_trail_gives_up_its_oldest_entries() {
    let desk = Desk::new(&[]);
    for round in 0..510 {
        let effect = desk.set("alice", Kind::Hold, None).await;
        assert_ne!(effect, Effect::Unchanged, "round {round}");
        desk.clear("alice", Kind::Hold).await;
    }
    let mut sequences = Vec::new();
    desk.store
        .log_before(None, |sequence, _| {
            sequences.push(sequence);
            true
        })
        .unwrap();
    assert_eq!((sequences.len(), sequences.first(), sequences.last()), (1_000, Some(&1_020), Some(&21)));
}

#[tokio::test]
async fn whoever_waits_for_the_fallback_file_finds_the_change_in_it() {
    let desk = Desk::new(&[]);
    for number in 0..20 {
        desk.set(&format!("user{number}"), Kind::Hold, None).await;
        assert_eq!(desk.settled(), None);
        assert_eq!(desk.fallback().len(), number + 1);
    }
}

#[tokio::test]
async fn a_change_that_changes_nothing_leaves_the_fallback_file_alone() {
    let desk = Desk::new(&[]);
    let written = || fs::metadata(desk.directory.path().join("fallback")).unwrap().ino();
    desk.set("alice", Kind::Hold, None).await;
    assert_eq!(desk.settled(), None);
    let before = written();
    assert_eq!(desk.set("alice", Kind::Hold, None).await, Effect::Unchanged);
    assert_eq!(desk.settled(), None);
    assert_eq!(written(), before);
    desk.set("carol", Kind::Hold, None).await;
    assert_eq!(desk.settled(), None);
    assert_ne!(written(), before);
}

#[tokio::test]
async fn a_fallback_file_that_cannot_be_written_is_told_to_whoever_waits_and_is_tried_again() {
    let desk = Desk::new(&[]);
    let obstacle = desk.directory.path().join("fallback.new");
    fs::create_dir(&obstacle).unwrap();
    desk.set("alice", Kind::Hold, None).await;
    assert!(desk.settled().unwrap().contains("fallback"));
    assert_eq!(desk.verdict("alice"), Verdict::Hold, "the change stands");
    assert_eq!(desk.fallback(), Vec::<String>::new());
    fs::remove_dir(&obstacle).unwrap();
    let begun = Instant::now();
    while desk.settled().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it was not tried again");
    }
    assert_eq!(desk.fallback(), ["alice: hold"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_leaves_a_current_fallback_file() {
    let mut desk = Desk::new(&[]);
    for number in 0..50 {
        desk.set(&format!("user{number}"), Kind::Hold, None).await;
    }
    desk.stop_keeper();
    assert_eq!(desk.fallback().len(), 50);
}
