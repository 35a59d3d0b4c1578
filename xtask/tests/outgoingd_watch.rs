//! The audit trail as it comes, and what is asked and said about held mail, through the real daemon's socket.

use anyhow::{Context, Result, anyhow, bail, ensure};
use outgoingd_client::protocol::codec;
use outgoingd_client::protocol::frame::{self, HEADER_LEN, Header};
use outgoingd_client::protocol::message::{
    Action, Call, Cause, Dropped, Flag, Kind, LogEntry, Reply, Request, Retention, Sent,
};
use outgoingd_client::protocol::text::Verdict;
use outgoingd_client::{Client, Error, Terms};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use xtask::testbed::{Daemon, User, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// Shorter than any silence of the daemon to a watcher, so what happens sooner does not happen by that.
const AT_ONCE: Duration = Duration::from_secs(3);

const START: u64 = 1_800_000_000;
const MESSAGE: &str = "1rABCD-000abc-XY";

/// One who watches, on a thread of its own.
struct Watcher {
    entries: Receiver<LogEntry>,
    end: JoinHandle<Error>,
}

impl Watcher {
    /// Returns when nothing is missed any more.
    fn start(daemon: &Daemon, subject: Option<&'static str>) -> Result<Watcher> {
        let ((beginning, begun), (told, entries)) = (mpsc::channel(), mpsc::channel());
        let mut client = Client::new(daemon.socket());
        let end = thread::spawn(move || {
            let each = |new: &[LogEntry]| {
                // Whoever listens no more has seen enough; the daemon's end then ends this.
                let _ = beginning.send(());
                for entry in new {
                    let _ = told.send(entry.clone());
                }
                Ok::<(), Error>(())
            };
            match client.watch(subject, None, each) {
                Ok(()) => unreachable!("a watch ends with an error"),
                Err(error) => error,
            }
        });
        begun.recv_timeout(PATIENCE).context("the watch did not begin")?;
        Ok(Watcher { entries, end })
    }

    fn next(&self) -> Result<LogEntry> {
        self.entries.recv_timeout(PATIENCE).context("an entry did not come")
    }

    fn why_it_ended(self) -> Result<Error> {
        self.end.join().map_err(|_| anyhow!("the watcher panicked"))
    }
}

/// Watches by hand; returns when nothing is missed any more.
fn watch_raw(daemon: &Daemon, after: Option<u64>) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(daemon.socket())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    send(&mut stream, Request::Watch { subject: None, after })?;
    match read(&mut stream)? {
        Reply::Events { .. } => Ok(stream),
        reply => bail!("{reply:?}"),
    }
}

fn send(stream: &mut UnixStream, request: Request) -> Result<()> {
    Ok(stream.write_all(&frame::seal(&codec::encode(&Call { on_behalf_of: None, request })?)?)?)
}

fn read(stream: &mut UnixStream) -> Result<Reply> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header)?;
    let mut payload = vec![0; Header::decode(&header)?.length as usize];
    // In small pieces, as a peer that is slow.
    for piece in payload.chunks_mut(512) {
        stream.read_exact(piece)?;
    }
    Ok(codec::decode(&payload)?)
}

fn flags(from: usize) -> Vec<Flag> {
    let flag = |number| Flag {
        subject: format!("user{number}@shop.test"),
        kind: Kind::Hold,
        since: None,
        until: None,
        by: None,
        reason: Some("a reason of some length, as an administrator may give".to_owned()),
        notice: None,
    };
    (from..from + 1000).map(flag).collect()
}

fn whole_log(client: &mut Client) -> Result<Vec<LogEntry>> {
    let mut log = Vec::new();
    client.log(None, u64::MAX, |entry| {
        log.push(entry);
        Ok::<(), Error>(())
    })?;
    log.reverse();
    Ok(log)
}

fn dropped(subject: &str) -> Dropped {
    Dropped { subject: subject.to_owned(), reason: Some("spam".to_owned()) }
}

#[test]
fn a_watcher_sees_every_change_in_order_as_the_log_has_it() -> Result<()> {
    use Action::{Drop, Hold, HoldExpired, Pass, Release, Suspend, Unsuspend};
    let daemon = Daemon::builder().accounts(&["alice", "carol"]).clock(START).start()?;
    let mut client = Client::new(daemon.socket());
    client.hold("carol", &Terms::default())?;
    let (all, of_alice) = (Watcher::start(&daemon, None)?, Watcher::start(&daemon, Some(" Alice"))?);
    let soon = Terms { until: Some(START + 60), reason: Some("phished".to_owned()), ..Terms::default() };
    client.hold("alice", &soon)?;
    client.suspend("alice", &Terms { until: Some(START + 50), ..Terms::default() })?;
    client.hold("alice", &soon)?;
    client.unsuspend("alice")?;
    client.pass(MESSAGE)?;
    assert_eq!(client.record_drop(vec![dropped(MESSAGE), dropped("alice")])?, 2);
    daemon.set_clock(START + 61)?;
    // The writer looks at the clock behind each change, and whenever it wakes by itself: the end may come first.
    client.release("carol")?;
    let expected = [Hold, Suspend, Unsuspend, Pass, Drop, Drop];
    let seen = (0..expected.len() + 2).map(|_| all.next()).collect::<Result<Vec<_>>>()?;
    let actions: Vec<Action> = seen.iter().map(|entry| entry.action).collect();
    assert_eq!(actions[..expected.len()], expected);
    assert!(matches!(actions[expected.len()..], [Release, HoldExpired] | [HoldExpired, Release]), "{actions:?}");
    assert_eq!(seen, whole_log(&mut client)?[1..]);
    for action in [Hold, Suspend, Unsuspend, Drop, HoldExpired] {
        let entry = of_alice.next()?;
        assert_eq!((entry.action, entry.subject.as_str()), (action, "alice"));
    }
    Ok(())
}

#[test]
fn a_watcher_that_reads_slowly_misses_nothing_of_five_thousand_flags() -> Result<()> {
    let daemon =
        Daemon::builder().owner("shop.test", "alice").tables("[limits]\nrequest-deadline-ms = 10000").start()?;
    let mut stream = watch_raw(&daemon, None)?;
    let mut client = Client::new(daemon.socket());
    // More than the socket takes waits for the peer, who comes when all is done.
    for thousand in 0..5 {
        assert_eq!(client.import(flags(thousand * 1000))?.changed, 1000);
    }
    let mut seen = Vec::new();
    while seen.len() < 5000 {
        match read(&mut stream)? {
            Reply::Events { entries } => seen.extend(entries),
            reply => bail!("{reply:?}"),
        }
    }
    assert_eq!(seen, whole_log(&mut client)?);
    Ok(())
}

#[test]
fn whoever_watches_again_behind_the_last_entry_has_neither_a_gap_nor_a_double() -> Result<()> {
    let daemon = Daemon::builder().accounts(&["alice"]).start()?;
    let mut client = Client::new(daemon.socket());
    client.hold("alice", &Terms::default())?;
    let changing = thread::spawn({
        let mut client = Client::new(daemon.socket());
        move || -> Result<()> {
            for _ in 0..200 {
                client.suspend("alice", &Terms::default())?;
                client.unsuspend("alice")?;
            }
            Ok(())
        }
    });
    let mut seen: Vec<u64> = Vec::new();
    while seen.last().is_none_or(|last| *last < 401) {
        // Hangs up behind each seventh, in the middle of a page or not.
        let mut left = 7;
        let watched = client.watch(None, Some(seen.last().copied().unwrap_or(0)), |new| {
            for entry in new {
                seen.push(entry.sequence);
                left -= 1;
                if left == 0 || entry.sequence == 401 {
                    return Err(anyhow!("enough"));
                }
            }
            Ok(())
        });
        ensure!(watched.as_ref().is_err_and(|end| end.to_string() == "enough"), "{watched:?}");
    }
    changing.join().map_err(|_| anyhow!("panicked"))??;
    assert_eq!(seen, (1..=401).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn who_has_no_right_is_refused_and_who_loses_it_is_told_so_and_nothing_more() -> Result<()> {
    let daemon = Daemon::builder().for_everyone().tables("[access]\nreader-users = ['games']");
    let mut daemon = daemon.start()?;
    let watch = |socket: PathBuf, beginning: mpsc::Sender<()>| {
        move || {
            let watched = Client::new(socket).watch(None, None, |_| {
                let _ = beginning.send(());
                Ok::<(), Error>(())
            });
            match watched {
                Err(Error::Refused(refusal)) => Ok(refusal),
                other => Err(anyhow!("{other:?}")),
            }
        }
    };
    let nobody = User::named("nobody", "nogroup")?.does(watch(daemon.socket(), mpsc::channel().0));
    let refusal = nobody.join().map_err(|_| anyhow!("panicked"))??;
    assert!(refusal.cause == Cause::NotPermitted && refusal.message.contains("nobody"), "{refusal:?}");

    let (beginning, begun) = mpsc::channel();
    let reader = User::named("games", "games")?.does(watch(daemon.socket(), beginning));
    begun.recv_timeout(PATIENCE).context("a reader may watch")?;
    let configuration = fs::read_to_string(daemon.configuration())?;
    fs::write(daemon.configuration(), configuration.replace("['games']", "[]"))?;
    daemon.reload()?;
    let reloaded = Instant::now();
    let refusal = reader.join().map_err(|_| anyhow!("panicked"))??;
    assert!(refusal.cause == Cause::NotPermitted && refusal.message.contains("games"), "{refusal:?}");
    // Sooner than it would be looked at again anyway.
    assert!(reloaded.elapsed() < PATIENCE, "{:?}", reloaded.elapsed());
    Ok(())
}

#[test]
fn a_watcher_that_hangs_up_or_says_something_frees_its_place_at_once() -> Result<()> {
    let daemon = Daemon::builder().tables("[limits]\nmax-connections-per-uid = 4").start()?;
    let four = || (0..4).map(|_| watch_raw(&daemon, None)).collect::<Result<Vec<_>>>();
    let watchers = four()?;
    assert!(watch_raw(&daemon, None).is_err(), "there are four places");
    drop(watchers);
    let mut watchers = Vec::new();
    wait_until("the places of those who have hung up", AT_ONCE, || {
        watchers.extend(watch_raw(&daemon, None));
        Ok(watchers.len() == 4)
    })?;
    for watcher in &mut watchers {
        send(watcher, Request::Stats)?;
        // Hung up on, with what was said unread or not.
        ensure!(read(watcher).is_err(), "what a watcher says is no request");
    }
    let mut others = Vec::new();
    wait_until("the places of those who have said something", AT_ONCE, || {
        others.extend(watch_raw(&daemon, None));
        Ok(others.len() == 4)
    })?;
    Ok(())
}

#[test]
fn a_watcher_that_takes_nothing_is_dropped_at_the_deadline() -> Result<()> {
    let daemon = Daemon::builder().owner("shop.test", "alice").tables("[limits]\nrequest-deadline-ms = 200").start()?;
    let mut stream = watch_raw(&daemon, None)?;
    let open = daemon.descriptors()?;
    let mut client = Client::new(daemon.socket());
    for thousand in 0..8 {
        client.import(flags(thousand * 1000))?;
    }
    drop(client);
    wait_until("the end of the watcher's session", PATIENCE, || Ok(daemon.descriptors()? < open))?;
    // What was written before is there, and then the end.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!rest.is_empty());
    Ok(())
}

#[test]
fn a_stop_ends_a_watch_promptly_and_says_so() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice"]).start()?;
    let watcher = Watcher::start(&daemon, None)?;
    let begun = Instant::now();
    assert!(daemon.stop()?.success());
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    match watcher.why_it_ended()? {
        Error::Refused(refusal) if refusal.cause == Cause::Stopping => Ok(()),
        error => bail!("{error:?}"),
    }
}

#[test]
fn a_judgement_is_what_a_question_about_the_same_sender_is_answered() -> Result<()> {
    let accounts = ["alice", "carol", "dave", r"dom\nick"];
    let daemon =
        Daemon::builder().accounts(&accounts).owner("shop.test", "alice").owner("other.test", "carol").start()?;
    let mut client = Client::new(daemon.socket());
    client.hold("alice", &Terms::default())?;
    client.suspend("bob@shop.test", &Terms::default())?;
    client.suspend("@other.test", &Terms::default())?;
    client.suspend(r"dom\nick", &Terms::default())?;
    client.pass(MESSAGE)?;
    let identities = [
        "alice",
        " ALICE",
        r"alice\n",
        r"ali\001ce",
        "ali\tce",
        "bob@shop.test",
        "ann@SHOP.test.",
        r"bob@shop.test\r\n",
        "x@other.test",
        "carol",
        "dave",
        r"DOM\nick",
        r"dom\nick\n",
        r"domnick",
        "root",
        r"root\n",
        "a b",
        "",
        "*",
    ];
    for everyone in [false, true] {
        if everyone {
            client.hold("*", &Terms::default())?;
        }
        for message_id in [MESSAGE, "1rABCE-000abc-XY"] {
            let sent = |identity: &&str| Sent { message_id: message_id.to_owned(), identity: (*identity).to_owned() };
            let judged = client.judge(&[], identities.iter().map(sent).collect())?;
            for (identity, judgement) in identities.iter().zip(judged) {
                assert!(judgement.covered);
                let lifted = judgement.passed && judgement.verdict == Verdict::Hold;
                let verdict = if lifted { Verdict::Ok } else { judgement.verdict };
                match client.check(identity, Some(message_id)) {
                    Ok(answer) => {
                        assert_eq!((verdict, judgement.passed), (answer, message_id == MESSAGE), "{identity:?}");
                    }
                    // Exim goes by the fallback file then, for which such a name is anybody's, and which knows no passes.
                    Err(Error::Refused(_)) => {
                        let anybody = if everyone { Verdict::Hold } else { Verdict::Ok };
                        assert_eq!((verdict, judgement.passed), (anybody, false), "{identity:?}");
                    }
                    Err(error) => bail!(error),
                }
            }
        }
    }
    Ok(())
}

#[test]
fn drops_are_in_the_log_passes_are_listed_and_given_up_and_bounds_follow_the_configuration() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice"]).start()?;
    let mut client = Client::new(daemon.socket());
    let passes = |client: &mut Client| {
        let mut passes = Vec::new();
        client.passes(|message| {
            passes.push(message);
            Ok::<(), Error>(())
        })?;
        Ok::<_, Error>(passes)
    };
    let ids: Vec<String> = (0..5).map(|number| format!("1rABC{number}-000abc-XY")).collect();
    for id in ids.iter().rev() {
        client.pass(id)?;
    }
    assert_eq!(passes(&mut client)?, ids);
    client.on_behalf_of("ann");
    assert_eq!(client.record_drop(vec![dropped(&ids[0]), dropped("nobody-any-more")])?, 2);
    assert_eq!(passes(&mut client)?, ids[1..]);
    assert_eq!(client.forget(vec![ids[1].clone(), ids[0].clone(), ids[2].clone()])?, 2);
    assert_eq!(passes(&mut client)?, ids[3..]);
    let log = daemon.must(&["--json", "log", &ids[0]])?;
    let newest = log.lines().last().context("no line")?;
    for part in [r#""action":"drop""#, r#""reason":"spam""#, r#""on_behalf_of":"ann""#] {
        assert!(newest.contains(part), "{newest}");
    }
    client.record_drop(vec![dropped("alice")])?;
    // Behind the acknowledgement.
    wait_until("the line in the daemon's own log", PATIENCE, || Ok(daemon.log().contains("root: drop alice")))?;
    // As after a restart.
    daemon.restart()?;
    let mut client = Client::new(daemon.socket());
    assert_eq!(passes(&mut client)?, ids[3..]);

    assert_eq!(client.retention()?, Retention::default());
    let configuration = fs::read_to_string(daemon.configuration())?;
    fs::write(daemon.configuration(), format!("{configuration}\n[held]\nmax-age = '30d'\nmax-messages = 500\n"))?;
    daemon.reload()?;
    assert_eq!(client.retention()?, Retention { max_age: Some(30 * 24 * 3600), max_messages: Some(500) });
    Ok(())
}
