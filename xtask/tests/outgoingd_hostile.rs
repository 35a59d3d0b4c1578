//! Users of the same host who may connect and wish the daemon ill: what they cost it is bounded, and Exim is answered.

use anyhow::{Context, Result, anyhow, ensure};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::fs;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use xtask::testbed::{Attack, Daemon, Hostile, User, wait_until};

/// How long Exim waits for an answer, as the snippets have it.
const EXIMS_PATIENCE: Duration = Duration::from_secs(2);

/// Peers of one attack at the same time.
const PEERS: usize = 4;

/// Bytes that an attack may add to the daemon's memory: a thousand connections, and what was allocated for them and is kept.
const MEMORY: u64 = 24 << 20;

fn daemon() -> Result<Daemon> {
    let daemon = Daemon::builder().accounts(&["alice", "carol"]).start()?;
    daemon.must(&["hold", "alice"])?;
    Ok(daemon)
}

/// A user whom the administrator has let into the socket's group.
fn neighbour() -> Result<User> {
    User::named("games", "Debian-exim")
}

/// Questions as Exim asks them, by its user, until `count` are answered; the longest wait.
fn asked_by_exim(daemon: &Daemon, count: usize) -> Result<Duration> {
    let socket = daemon.socket();
    let asking = User::named("Debian-exim", "Debian-exim")?.does(move || {
        let waits = (0..count).map(|_| ask(&socket, b"check id= alice\n", b"hold"));
        waits.collect::<Result<Vec<_>>>()
    });
    let waits = asking.join().map_err(|_| anyhow!("Exim's user panicked"))??;
    waits.into_iter().max().context("nothing was asked")
}

fn ask(socket: &Path, question: &[u8], answer: &[u8]) -> Result<Duration> {
    let begun = Instant::now();
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(EXIMS_PATIENCE))?;
    stream.write_all(question)?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    ensure!(reply == answer, "the answer is {}", reply.escape_ascii());
    Ok(begun.elapsed())
}

#[test]
fn during_every_attack_exim_is_answered_and_an_administrator_obeyed_and_behind_it_nothing_is_left() -> Result<()> {
    let daemon = daemon()?;
    let (trail, log) = (daemon.must(&["--json", "log"])?, daemon.log());
    let (descriptors_before, memory_before) = (daemon.descriptors()?, daemon.memory()?);
    for attack in Attack::ALL {
        let hostile = Hostile::start(neighbour()?, attack, PEERS, &daemon.socket())?;
        let longest = asked_by_exim(&daemon, 300).with_context(|| format!("{attack:?}"))?;
        assert!(longest < EXIMS_PATIENCE, "{attack:?}: {longest:?}");
        assert!(daemon.must(&["check", "carol"])?.starts_with("ok"), "{attack:?}");
        daemon.must(&["status", "alice"]).with_context(|| format!("{attack:?}"))?;
        hostile.stop().with_context(|| format!("{attack:?}"))?;
        wait_until("all places to be given back", Duration::from_secs(10), || {
            Ok(daemon.descriptors()? <= descriptors_before + 1)
        })
        .with_context(|| format!("{attack:?}"))?;
    }
    assert_eq!(daemon.must(&["--json", "log"])?, trail, "somebody changed something");
    assert!(daemon.memory()? < memory_before + MEMORY, "{} bytes, {memory_before} before", daemon.memory()?);
    let said = daemon.log()[log.len()..].to_owned();
    assert!(said.lines().count() < 20, "what a peer can have logged is bounded:\n{said}");
    Ok(())
}

/// What comes back for a question of which the second half is sent when the daemon has seen the first.
fn ask_slowly(daemon: &Daemon, user: User) -> Result<Vec<u8>> {
    let (socket, turns) = (daemon.socket(), Arc::new(Barrier::new(2)));
    let own_turns = turns.clone();
    let asking = user.does(move || {
        let stream = UnixStream::connect(&socket);
        // Whoever is turned away is told so, and hung up on.
        let _ = stream.as_ref().map(|mut stream| stream.write_all(b"check al"));
        own_turns.wait();
        own_turns.wait();
        let (mut stream, mut reply) = (stream?, Vec::new());
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let _ = stream.write_all(b"ice\n");
        let _ = stream.read_to_end(&mut reply);
        Ok(reply)
    });
    turns.wait();
    // Connections are taken in their order, by two threads.
    let asked = (0..3).try_for_each(|_| ask(&daemon.socket(), b"check id= alice\n", b"hold").map(drop));
    turns.wait();
    let reply = asking.join().map_err(|_| anyhow!("a peer panicked"))?;
    asked.and(reply)
}

#[test]
fn a_user_who_has_taken_all_its_places_takes_nobody_elses() -> Result<()> {
    let limits = "[limits]\nmax-connections = 100\nmax-connections-per-uid = 50\nrequest-deadline-ms = 10000";
    let daemon = Daemon::builder().accounts(&["alice"]).tables(limits).start()?;
    daemon.must(&["hold", "alice"])?;
    let hostile = Hostile::start(neighbour()?, Attack::Silence, 1, &daemon.socket())?;
    let patience = Duration::from_secs(10);
    wait_until("all its places to be taken", patience, || Ok(ask_slowly(&daemon, neighbour()?)? == b"error"))?;
    let exim = User::named("Debian-exim", "Debian-exim")?;
    assert_eq!(ask_slowly(&daemon, exim)?, b"hold");
    // Another neighbour, and all places are taken but those for who has none; whoever asks in one go needs none.
    let news = User::named("news", "Debian-exim")?;
    let other = Hostile::start(news, Attack::Silence, 1, &daemon.socket())?;
    wait_until("both to have all they get", patience, || Ok(ask_slowly(&daemon, news)? == b"error"))?;
    assert_eq!(ask_slowly(&daemon, exim)?, b"hold");
    ask(&daemon.socket(), b"check id= alice\n", b"hold")?;
    daemon.must(&["status", "alice"])?;
    hostile.stop()?;
    other.stop()?;
    wait_until("places again", patience, || Ok(ask_slowly(&daemon, news)? == b"hold"))
}

#[test]
fn out_of_descriptors_the_daemon_waits_without_haste_and_goes_on_when_there_are_some() -> Result<()> {
    let daemon = daemon()?;
    let id = daemon.id()?.to_string();
    let limit = |most: usize| -> Result<()> {
        let set = Command::new("prlimit").args(["--pid", &id, &format!("--nofile={most}:4096")]).status()?;
        ensure!(set.success(), "cannot change the daemon's limit");
        Ok(())
    };
    let before = daemon.log().len();
    let times_said = |what: &str| daemon.log()[before..].matches(what).count();
    // Each of the two threads that wait for connections has the descriptor of its next one already (accept(2)).
    let mut most = 4096;
    wait_until("both threads to be without descriptors", Duration::from_secs(10), || {
        // Never more than before: one that finds a descriptor again would say it once more.
        most = lowest_free_descriptor(&daemon)?.min(most);
        limit(most)?;
        let _ = ask(&daemon.socket(), b"check id= alice\n", b"hold");
        Ok(times_said("cannot accept connections: Too many open files") == 2)
    })?;
    let mut waiting = UnixStream::connect(daemon.socket())?;
    waiting.write_all(b"check alice\n")?;
    let busy = processor_time(&daemon)?;
    // Several of its pauses long.
    waiting.set_read_timeout(Some(Duration::from_secs(3)))?;
    let unanswered = waiting.read(&mut [0; 16]);
    assert!(unanswered.is_err(), "{unanswered:?}");
    let spent = processor_time(&daemon)? - busy;
    assert!(spent < 30, "{spent} hundredths of a second of processor time for waiting three seconds");
    limit(4096)?;
    let mut reply = [0; 16];
    waiting.set_read_timeout(Some(Duration::from_secs(10)))?;
    let length = waiting.read(&mut reply)?;
    assert_eq!(&reply[..length], b"hold");
    ask(&daemon.socket(), b"check id= carol\n", b"ok")?;
    assert!(times_said("accepted again") > 0);
    assert!(daemon.log()[before..].lines().count() <= 4, "said once by each: {}", &daemon.log()[before..]);
    Ok(())
}

fn lowest_free_descriptor(daemon: &Daemon) -> Result<usize> {
    let id = daemon.id()?;
    (0..4096).find(|number| !Path::new(&format!("/proc/{id}/fd/{number}")).exists()).context("no number is free")
}

/// Hundredths of a second that it has been running on a processor.
fn processor_time(daemon: &Daemon) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.id()?))?;
    // Behind the name in parentheses: state is the first, utime the 12th, stime the 13th.
    let fields = stat.rsplit(") ").next().context("no fields")?;
    let field = |number: usize| fields.split(' ').nth(number).and_then(|ticks| ticks.parse::<u64>().ok());
    field(11).zip(field(12)).map(|(user, system)| user + system).context("no times in stat")
}

#[test]
fn descriptors_that_a_peer_sends_along_are_refused_by_the_kernel_where_it_can_and_kept_by_nobody() -> Result<()> {
    let daemon = daemon()?;
    let before = daemon.descriptors()?;
    let peer = UnixStream::connect(daemon.socket())?;
    let precious = fs::File::open("/dev/null")?;
    let (fds, mut space) = ([precious.as_fd()], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
    let mut along = SendAncillaryBuffer::new(&mut space);
    ensure!(along.push(SendAncillaryMessage::ScmRights(&fds)), "no room for a descriptor");
    let sent = rustix::net::sendmsg(&peer, &[IoSlice::new(b"check alice\n")], &mut along, SendFlags::NOSIGNAL);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    match sent {
        Err(error) => assert_eq!(error, rustix::io::Errno::PERM),
        Ok(_) => assert!((numbers.next(), numbers.next()) < (Some(6), Some(16)), "Linux {release}"),
    }
    wait_until("nothing to be left", Duration::from_secs(10), || Ok(daemon.descriptors()? <= before + 1))?;
    ask(&daemon.socket(), b"check id= alice\n", b"hold").map(drop)
}
