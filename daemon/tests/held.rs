//! What administrators ask and say about held mail, and the audit trail as it comes: requests as they are carried out, with a
//! real state file, in one process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use outgoingd::authorise::Peer;
use outgoingd::change::{Action, Change, Origin, Terms};
use outgoingd::clock::Clock;
use outgoingd::config::Config;
use outgoingd::flag::{Kind, Timestamp, Verdict};
use outgoingd::follow::Follower;
use outgoingd::keeper::Keeper;
use outgoingd::name::{MessageId, Subject};
use outgoingd::requests::{Policy, Requests};
use outgoingd::stats::Stats;
use outgoingd::stop::{self, Stopper};
use outgoingd::store::Store;
use outgoingd::table::Table;
use outgoingd::writer::Writer;
use outgoingd_client::protocol::codec;
use outgoingd_client::protocol::message::{
    self, Call, Cause, Dropped, Judgement, LogEntry, MAX_MESSAGES, MAX_SUBJECTS, Refusal, Reply, Request, Retention,
    Sent,
};
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::time::Instant;

const START: u64 = 1_000_000;

/// Longest silence that the protocol allows.
const SILENCE: Duration = Duration::from_secs(10);

/// A daemon without a socket.
struct Desk {
    requests: Requests,
    stopper: Stopper,
    _directory: TempDir,
}

impl Desk {
    fn new(configuration: &str, audit_entries: u64) -> Desk {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path(), audit_entries).unwrap());
        let (table, stats, keeper) = (Arc::new(Table::default()), Arc::new(Stats::default()), Keeper::default());
        let start = Instant::now();
        let clock = Clock::new(move || Timestamp(START + start.elapsed().as_secs()));
        let (writer, work) =
            Writer::new(store.clone(), table.clone(), stats.clone(), keeper.clone(), clock.clone()).unwrap();
        tokio::spawn(work.run());
        let (stopper, stop) = stop::pair();
        let config =
            Config::parse(&format!("{configuration}\n[accounts]\nsource = 'any'"), Path::new("o.toml")).unwrap();
        let requests = Requests {
            store,
            table,
            writer,
            keeper,
            stats,
            started: clock.now(),
            clock,
            stop,
            policy: Arc::new(RwLock::new(Arc::new(Policy::load(&config).unwrap()))),
            lost: Arc::default(),
            fallback: None,
            identifying: Arc::new(Semaphore::new(1)),
        };
        Desk { requests, stopper, _directory: directory }
    }

    async fn ask(&self, request: Request) -> Reply {
        let peer = Peer { uid: 0, pid: 7, name: "root".to_owned(), groups: [0].into() };
        self.requests.handle(&peer, Call { on_behalf_of: None, request }).await
    }

    async fn refused(&self, request: Request) -> Refusal {
        match self.ask(request).await {
            Reply::Refused(refusal) => refusal,
            reply => panic!("{reply:?}"),
        }
    }

    async fn counted(&self, request: Request) -> u32 {
        match self.ask(request).await {
            Reply::Counted { count } => count,
            reply => panic!("{reply:?}"),
        }
    }

    async fn judged(&self, subjects: &[&str], identity: &str) -> Judgement {
        let subjects = subjects.iter().map(ToString::to_string).collect();
        match self.ask(Request::Judge { subjects, messages: vec![sent(identity)] }).await {
            Reply::Judged(mut judgements) => judgements.remove(0),
            reply => panic!("{reply:?}"),
        }
    }

    /// All that is told about one subject, newest first.
    async fn log(&self, subject: Option<&str>) -> Vec<LogEntry> {
        let request = Request::Log { subject: subject.map(str::to_owned), before: None, limit: u32::MAX };
        match self.ask(request).await {
            Reply::Log { entries, before: None } => entries,
            reply => panic!("{reply:?}"),
        }
    }

    async fn hold(&self, subjects: impl Iterator<Item = String>) {
        let hold = |subject: String| Change {
            origin: Origin::daemon(),
            action: Action::Set { subject: Subject::new(&subject).unwrap(), kind: Kind::Hold, terms: Terms::default() },
        };
        self.requests.writer.submit(subjects.map(hold).collect()).await.unwrap();
    }

    async fn pass(&self, messages: impl Iterator<Item = usize>) {
        let pass = |number| Change { origin: Origin::daemon(), action: Action::Pass { message: message(number) } };
        self.requests.writer.submit(messages.map(pass).collect()).await.unwrap();
    }

    async fn follow(&self, about: Option<&str>, after: Option<u64>) -> Follower {
        Follower::new(&self.requests, about, after).await.unwrap()
    }
}

fn message(number: usize) -> MessageId<'static> {
    MessageId::new(&format!("1rABCD-{number:06}-XY")).unwrap().into_owned()
}

fn id(number: usize) -> String {
    message(number).as_str().to_owned()
}

fn sent(identity: &str) -> Sent {
    Sent { message_id: id(1), identity: identity.to_owned() }
}

fn dropped(subject: &str, reason: Option<&str>) -> Dropped {
    Dropped { subject: subject.to_owned(), reason: reason.map(str::to_owned) }
}

/// What comes next, within the silence that is allowed.
async fn next(follower: &mut Follower) -> Vec<LogEntry> {
    let begun = Instant::now();
    let entries = follower.next().await.unwrap();
    assert!(begun.elapsed() <= SILENCE, "nothing was heard for {:?}", begun.elapsed());
    entries
}

/// The sequence numbers of what comes, up to the first time that nothing does behind something.
async fn sequences(follower: &mut Follower) -> Vec<u64> {
    let mut sequences = Vec::new();
    for _ in 0..100 {
        let entries = next(follower).await;
        if entries.is_empty() && !sequences.is_empty() {
            break;
        }
        sequences.extend(entries.iter().map(|entry| entry.sequence));
    }
    sequences
}

#[tokio::test(start_paused = true)]
async fn a_drop_is_on_record_with_its_reason_and_gives_up_the_pass_of_its_message() {
    // Mail may wait from before the role was taken away.
    let desk = Desk::new("mail-send = false", 1_000);
    desk.pass(0..2).await;
    let verdict = |number: usize| desk.requests.table.has_pass(&message(number));
    let drop = Request::Drop { dropped: vec![dropped(&id(0), Some(" spam ")), dropped(" Gone@SHOP.test", None)] };
    assert_eq!(desk.counted(drop).await, 2);
    assert!(!verdict(0) && verdict(1));
    let entries = desk.log(None).await;
    let told: Vec<_> =
        entries.iter().map(|entry| (entry.action, entry.subject.as_str(), entry.reason.as_deref())).collect();
    let passed = |subject| (message::Action::Pass, subject, None);
    let (first, second) = (id(0), id(1));
    let expected = [
        (message::Action::Drop, "gone@shop.test", None),
        (message::Action::Drop, first.as_str(), Some("spam")),
        passed(second.as_str()),
        passed(first.as_str()),
    ];
    assert_eq!(told, expected);
    assert_eq!((entries[0].by.as_str(), entries[0].pid), ("root", 7));
    // Once more is once more.
    assert_eq!(desk.counted(Request::Drop { dropped: vec![dropped(&id(0), None)] }).await, 1);
    assert_eq!(desk.log(Some(&id(0))).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_drop_with_something_wrong_in_it_records_nothing() {
    let desk = Desk::new("", 1_000);
    for wrong in [dropped("a b", None), dropped("alice", Some("a\nb")), dropped("alice", Some(&"r".repeat(1025)))] {
        let refusal = desk.refused(Request::Drop { dropped: vec![dropped("alice", None), wrong] }).await;
        assert_eq!(refusal.cause, Cause::Invalid, "{}", refusal.message);
    }
    let many = vec![dropped("alice", None); MAX_MESSAGES + 1];
    let refusal = desk.refused(Request::Drop { dropped: many }).await;
    assert_eq!(refusal.message, "1001 messages at once; send at most 1000");
    assert_eq!(desk.log(None).await, []);
}

#[tokio::test(start_paused = true)]
async fn passes_are_told_page_by_page_in_order_and_given_up_without_a_word_in_the_trail() {
    let desk = Desk::new("", 100_000);
    desk.pass((0..20_000).rev()).await;
    let (mut all, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let reply = desk.ask(Request::Passes { after: after.take() }).await;
        assert!(codec::encode(&reply).is_ok(), "a page fits a frame");
        let Reply::Passes { message_ids, more } = reply else { panic!("{reply:?}") };
        after = message_ids.last().cloned();
        all.extend(message_ids);
        pages += 1;
        if !more {
            break;
        }
    }
    assert_eq!(all, (0..20_000).map(id).collect::<Vec<_>>());
    assert!(pages > 1);

    let entries = desk.log(Some(&id(3))).await.len();
    let unknown = "1rABCE-000000-XY".to_owned();
    assert_eq!(desk.counted(Request::Forget { message_ids: vec![id(3), unknown, id(4), id(3)] }).await, 2);
    assert_eq!(desk.requests.table.count(Timestamp(START)).2, 19_998);
    assert_eq!(desk.log(Some(&id(3))).await.len(), entries);
    let refusal = desk.refused(Request::Forget { message_ids: vec![id(5), "alice".to_owned()] }).await;
    assert_eq!(refusal.cause, Cause::Invalid);
    assert!(desk.requests.table.has_pass(&message(5)), "all or none");
}

#[tokio::test(start_paused = true)]
async fn a_judgement_names_the_deciding_flag_and_whom_it_covers() {
    let desk = Desk::new("", 1_000);
    desk.requests.table.replace_owners([("shop.test".into(), "alice".into())].into());
    desk.hold(["alice".to_owned(), "*".to_owned()].into_iter()).await;
    desk.pass(1..2).await;
    let judged = desk.judged(&["alice"], "Bob@shop.test").await;
    let expected =
        Judgement { verdict: Verdict::Hold.into(), passed: true, through: Some("alice".to_owned()), covered: true };
    assert_eq!(judged, expected);
    for (subjects, identity, covered) in [
        (&["@SHOP.test"][..], "bob@shop.test", true),
        (&["carol", " BOB@shop.test "], "bob@shop.test", true),
        (&["*"], "bob@shop.test", true),
        (&["carol", "@other.test", "ann@shop.test"], "bob@shop.test", false),
        (&["@shop.test"], "alice", false),
        (&[], "carol", true),
        // Held as itself, through everyone.
        (&["alice"], r"alice\n", false),
        (&["*"], "root", false),
        (&["root"], "root", true),
        (&[], "root", true),
        // Of whom Exim has no answer is anybody, or anybody of the domain.
        (&[], "a b", true),
        (&["*"], "a b", true),
        (&["alice"], "a b", false),
        (&["alice"], "a b@shop.test", true),
    ] {
        assert_eq!(desk.judged(subjects, identity).await.covered, covered, "{identity} by {subjects:?}");
    }
    // Who is stopped as alice alone is covered as alice: the reading that counts for the verdict counts for this.
    let other = Desk::new("", 1_000);
    other.hold(std::iter::once("alice".to_owned())).await;
    assert!(other.judged(&["alice"], r"alice\n").await.covered);
    let root = desk.judged(&[], "root").await;
    assert_eq!((root.verdict, root.through), (Verdict::Ok.into(), None));
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_about_messages_is_bounded_and_so_is_the_reply() {
    let desk = Desk::new("", 1_000);
    let longest = format!("{}@shop.test", "a".repeat(310));
    desk.hold(std::iter::once(longest.clone())).await;
    let ask = |subjects: usize, messages: usize| Request::Judge {
        subjects: vec![longest.clone(); subjects],
        messages: vec![sent(&longest); messages],
    };
    assert_eq!(desk.ask(ask(0, 0)).await, Reply::Judged(Vec::new()));
    let reply = desk.ask(ask(MAX_SUBJECTS, MAX_MESSAGES)).await;
    assert!(matches!(&reply, Reply::Judged(judgements) if judgements.len() == MAX_MESSAGES));
    assert!(codec::encode(&reply).is_ok(), "it fits a frame");
    for (subjects, messages) in [(MAX_SUBJECTS + 1, 0), (0, MAX_MESSAGES + 1)] {
        let refusal = desk.refused(ask(subjects, messages)).await;
        assert!(refusal.cause == Cause::Invalid && refusal.message.contains("at most"), "{refusal:?}");
    }
    let refusal = desk.refused(Request::Judge { subjects: vec!["a@b@c".to_owned()], messages: Vec::new() }).await;
    assert_eq!(refusal.cause, Cause::Invalid);
}

#[tokio::test(start_paused = true)]
async fn retention_is_what_the_configuration_says() {
    let retention = async |configuration| Desk::new(configuration, 1_000).ask(Request::Retention).await;
    assert_eq!(retention("").await, Reply::Retention(Retention::default()));
    let both = Retention { max_age: Some(14 * 24 * 3600), max_messages: Some(500) };
    assert_eq!(retention("[held]\nmax-age = '2w'\nmax-messages = 500").await, Reply::Retention(both));
}

#[tokio::test(start_paused = true)]
async fn a_follower_hears_something_at_once_and_then_within_ten_seconds_whatever_happens() {
    let desk = Desk::new("", 1_000);
    let begun = Instant::now();
    let mut follower = desk.follow(None, None).await;
    assert_eq!(next(&mut follower).await, []);
    assert!(begun.elapsed() < Duration::from_millis(100), "the first word comes at once");
    for _ in 0..3 {
        assert_eq!(next(&mut follower).await, []);
    }
    assert!(begun.elapsed() > Duration::from_secs(3), "and not all the time");
    desk.hold(std::iter::once("alice".to_owned())).await;
    assert_eq!(next(&mut follower).await, desk.log(None).await);
}

#[tokio::test(start_paused = true)]
async fn a_follower_gets_each_entry_once_in_order_from_wherever_it_starts() {
    let desk = Desk::new("", 100_000);
    for hundred in 0..50 {
        desk.hold((0..100).map(|number| format!("user{}", hundred * 100 + number))).await;
    }
    assert_eq!(sequences(&mut desk.follow(None, Some(0)).await).await, (1..=5_000).collect::<Vec<_>>());
    let mut follower = desk.follow(None, Some(1_234)).await;
    let mut heard = next(&mut follower).await;
    assert_eq!(heard.remove(0).sequence, 1_235);
    // In the middle: what comes meanwhile follows behind.
    let last = heard.last().unwrap().sequence;
    assert!(last < 5_000, "a page is bounded");
    desk.hold(std::iter::once("late".to_owned())).await;
    assert_eq!(sequences(&mut follower).await, (last + 1..=5_001).collect::<Vec<_>>());
    // Behind the end there is only what comes.
    let mut follower = desk.follow(None, Some(u64::MAX)).await;
    assert_eq!(next(&mut follower).await, []);
    desk.hold(std::iter::once("later".to_owned())).await;
    assert_eq!(sequences(&mut follower).await, [5_002]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_of_one_subject_hears_of_that_alone_however_long_the_trail_is() {
    let desk = Desk::new("", 100_000);
    desk.pass(0..25_000).await;
    desk.hold(["alice".to_owned(), "carol".to_owned()].into_iter()).await;
    let mut follower = desk.follow(Some(" ALICE"), Some(0)).await;
    assert_eq!(sequences(&mut follower).await, [25_001]);
    let mut follower = desk.follow(Some(&id(20_000)), Some(0)).await;
    assert_eq!(sequences(&mut follower).await, [20_001]);
    let refused = Follower::new(&desk.requests, Some("a b"), None).await;
    assert!(matches!(refused, Err(refusal) if refusal.cause == Cause::Invalid));
}

#[tokio::test(start_paused = true)]
async fn entries_that_were_given_up_before_a_follower_came_to_them_are_not_there() {
    let desk = Desk::new("", 1_000);
    let mut follower = desk.follow(None, Some(0)).await;
    assert_eq!(next(&mut follower).await, []);
    desk.pass(0..3_000).await;
    assert_eq!(sequences(&mut follower).await, (2_001..=3_000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_what_follows() {
    let desk = Desk::new("", 1_000);
    let mut follower = desk.follow(None, None).await;
    assert_eq!(next(&mut follower).await, []);
    let begun = Instant::now();
    let (outcome, ()) = tokio::join!(follower.next(), async { desk.stopper.stop() });
    assert_eq!(outcome.unwrap_err().cause, Cause::Stopping);
    assert!(begun.elapsed() < Duration::from_millis(100));
}
