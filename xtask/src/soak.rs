//! `cargo xtask soak`: the real daemon, killed again and again at random moments while several administrators change things;
//! then a million connections of a hostile neighbour.
//!
//! Behind each kill everything acknowledged must be there, nothing that nobody asked for, and of what was under way all or
//! nothing; and the audit trail must say just that. The tests run a few rounds of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use outgoingd_client::protocol::message::{Action, Flag, Kind};
use outgoingd_client::{Client, Error, Terms};

use crate::cargo::build_programs;
use crate::interrupt::Interrupt;
use crate::packages;
use crate::testbed::{Attack, Daemon, Hostile, User, wait_until};

/// Administrators at work at the same time, each on subjects of its own.
const WRITERS: usize = 4;

/// Subjects of each.
const SUBJECTS: usize = 8;

/// A kill comes behind so many changes at most.
const CHANGES: u64 = 60;

/// How many connections the neighbour makes.
const CONNECTIONS: u64 = 1_000_000;

/// Bytes that those may add to the daemon's memory.
const MEMORY: u64 = 24 << 20;

/// What an administrator asks for.
#[derive(Clone, Debug)]
enum Wish {
    Set(Kind, String, String),
    Clear(Kind, String),
    /// All or none.
    Import(Vec<(Kind, String, String)>),
}

/// The flags of one administrator's subjects, with their reasons, and what the trail says of them.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    flags: BTreeMap<(String, Kind), String>,
    trail: Vec<(Action, String)>,
}

/// How a round went for one administrator.
struct Round {
    acknowledged: Known,
    /// The same with the wish that had no answer.
    perhaps: Known,
}

/// Kills the daemon so many times, then has it stormed; says how it goes.
pub fn run(rounds: usize) -> Result<()> {
    let interrupt = Interrupt::listen()?;
    packages::install_missing()?;
    build_programs()?;
    let go_on = || Ok(interrupt.check()?);
    let begun = Instant::now();
    // The daemon hears Ctrl-C too, and may end before we hear of it.
    let changes = kill_under_load(rounds, go_on)
        .or_else(|error| interrupt.check_for_cause().map_err(Into::into).and(Err(error)))?;
    eprintln!("{rounds} kills, {changes} acknowledged changes, none lost and none invented: {:.0?}", begun.elapsed());
    let begun = Instant::now();
    let connections = storm(go_on)?;
    eprintln!("{connections} connections of a neighbour, descriptors and memory bounded: {:.0?}", begun.elapsed());
    Ok(())
}

/// Kills the daemon so many times at random moments under load; how many changes were acknowledged.
///
/// Fails at the first that is missing, or that nobody asked for, and when `go_on` does.
pub fn kill_under_load(rounds: usize, go_on: impl Fn() -> Result<()>) -> Result<u64> {
    let accounts: Vec<String> =
        (0..WRITERS).flat_map(|writer| (0..SUBJECTS).map(move |n| subject(writer, n))).collect();
    let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
    let mut daemon = Daemon::builder().accounts(&accounts).start()?;
    let mut known = vec![Known::default(); WRITERS];
    let mut total = 0;
    for round in 1..=rounds {
        go_on()?;
        let acknowledged = AtomicU64::new(0);
        let kill_at = fastrand::u64(0..CHANGES);
        let outcomes = thread::scope(|scope| -> Result<Vec<Round>> {
            let (socket, acknowledged) = (daemon.socket(), &acknowledged);
            let writers: Vec<_> = known
                .iter()
                .enumerate()
                .map(|(writer, known)| {
                    let client = Client::new(&socket);
                    scope.spawn(move || work(writer, client, known.clone(), acknowledged))
                })
                .collect();
            let reached = wait_until("the changes of a round", Duration::from_secs(60), || {
                Ok(acknowledged.load(Relaxed) >= kill_at)
            });
            // And some way into the next ones.
            thread::sleep(Duration::from_micros(fastrand::u64(0..3_000)));
            daemon.kill9()?;
            let joined = writers.into_iter().map(|writer| writer.join().map_err(|_| anyhow!("a writer panicked"))?);
            let outcomes = joined.collect();
            reached.and(outcomes)
        })?;
        daemon.start_again()?;
        let mut client = Client::new(daemon.socket());
        for (writer, Round { acknowledged, perhaps }) in outcomes.into_iter().enumerate() {
            let found = find(writer, &mut client)?;
            ensure!(
                found == acknowledged || found == perhaps,
                "round {round}: {found:#?}\nis neither what was acknowledged, {acknowledged:#?}\nnor that and what was under way, \
                 {perhaps:#?}"
            );
            known[writer] = found;
        }
        total += acknowledged.load(Relaxed);
        if round % 20 == 0 {
            eprintln!("{round} of {rounds} kills, {total} acknowledged changes");
        }
    }
    Ok(total)
}

/// Changes one thing after the other until the daemon is gone.
fn work(writer: usize, mut client: Client, mut known: Known, acknowledged: &AtomicU64) -> Result<Round> {
    loop {
        let wish = wish(writer);
        let mut perhaps = known.clone();
        perhaps.take(&wish);
        match carry_out(&mut client, &wish) {
            Ok(()) => {
                known = perhaps;
                acknowledged.fetch_add(1, Relaxed);
            }
            Err(Error::Lost { .. }) => return Ok(Round { acknowledged: known, perhaps }),
            Err(Error::Unreachable { .. }) => return Ok(Round { acknowledged: known.clone(), perhaps: known }),
            Err(error) => return Err(error.into()),
        }
    }
}

fn wish(writer: usize) -> Wish {
    let subject = || subject(writer, fastrand::usize(0..SUBJECTS));
    let kind = || if fastrand::bool() { Kind::Hold } else { Kind::Suspend };
    // No two are alike, so that each one changes something and is found again.
    let reason = || format!("{:016x}", fastrand::u64(..));
    match fastrand::u8(0..10) {
        0..5 => Wish::Set(kind(), subject(), reason()),
        5..9 => Wish::Clear(kind(), subject()),
        _ => Wish::Import((0..fastrand::usize(2..100)).map(|_| (kind(), subject(), reason())).collect()),
    }
}

fn carry_out(client: &mut Client, wish: &Wish) -> Result<(), Error> {
    match wish {
        Wish::Set(kind, subject, reason) => {
            let terms = Terms { reason: Some(reason.clone()), ..Terms::default() };
            match kind {
                Kind::Hold => client.hold(subject, &terms).map(drop),
                Kind::Suspend => client.suspend(subject, &terms).map(drop),
            }
        }
        Wish::Clear(Kind::Hold, subject) => client.release(subject).map(drop),
        Wish::Clear(Kind::Suspend, subject) => client.unsuspend(subject).map(drop),
        Wish::Import(all) => {
            let flag = |(kind, subject, reason): &(Kind, String, String)| Flag {
                subject: subject.clone(),
                kind: *kind,
                since: None,
                until: None,
                by: None,
                reason: Some(reason.clone()),
                notice: None,
            };
            client.import(all.iter().map(flag).collect()).map(drop)
        }
    }
}

impl Known {
    fn take(&mut self, wish: &Wish) {
        match wish {
            Wish::Set(kind, subject, reason) => self.set(*kind, subject, reason),
            Wish::Import(all) => all.iter().for_each(|(kind, subject, reason)| self.set(*kind, subject, reason)),
            Wish::Clear(kind, subject) => {
                if self.flags.remove(&(subject.clone(), *kind)).is_some() {
                    let action = if *kind == Kind::Hold { Action::Release } else { Action::Unsuspend };
                    self.trail.push((action, subject.clone()));
                }
            }
        }
    }

    fn set(&mut self, kind: Kind, subject: &str, reason: &str) {
        self.flags.insert((subject.to_owned(), kind), reason.to_owned());
        let action = if kind == Kind::Hold { Action::Hold } else { Action::Suspend };
        self.trail.push((action, format!("{subject} {reason}")));
    }
}

/// What the daemon knows of one administrator's subjects.
fn find(writer: usize, client: &mut Client) -> Result<Known> {
    let (mut found, own) = (Known::default(), format!("w{writer}-"));
    client.list(None, |flag| {
        if flag.subject.starts_with(&own) {
            found.flags.insert((flag.subject, flag.kind), flag.reason.unwrap_or_default());
        }
        Ok::<(), Error>(())
    })?;
    client.log(None, u64::MAX, |entry| {
        if entry.subject.starts_with(&own) {
            let reason = entry.reason.map_or(String::new(), |reason| format!(" {reason}"));
            found.trail.push((entry.action, entry.subject + &reason));
        }
        Ok::<(), Error>(())
    })?;
    found.trail.reverse();
    Ok(found)
}

fn subject(writer: usize, number: usize) -> String {
    format!("w{writer}-{number}")
}

/// A million connections in a loop; how many there were.
fn storm(go_on: impl Fn() -> Result<()>) -> Result<u64> {
    let daemon = Daemon::builder().start()?;
    let (descriptors, memory) = (daemon.descriptors()?, daemon.memory()?);
    let storm = Hostile::start(User::named("games", "Debian-exim")?, Attack::Storm, WRITERS, &daemon.socket())?;
    wait_until("a million connections", Duration::from_secs(600), || {
        go_on().map(|()| storm.connections() >= CONNECTIONS)
    })?;
    let connections = storm.connections();
    storm.stop()?;
    wait_until("all of them to be closed", Duration::from_secs(10), || Ok(daemon.descriptors()? <= descriptors + 1))?;
    let grown = daemon.memory()?.saturating_sub(memory);
    ensure!(grown < MEMORY, "the daemon's memory has grown by {grown} bytes");
    Ok(connections)
}
