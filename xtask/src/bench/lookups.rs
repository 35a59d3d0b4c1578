//! Lookups as Exim makes them, from connect to end-of-file, timed on this side.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use outgoingd::stats::Histogram;
use tempfile::TempDir;

use super::figures::{Bound, Figure};
use super::{Length, changes, cores, daemon_with, progress};
use crate::testbed::{Daemon, public_directory, wait_until};

/// Lookups in one round, behind a few that warm up.
const ROUND: usize = 1_500;
const WARM_UP: usize = 100;

/// Clients that ask at the same time.
const CLIENTS: usize = 16;

/// Entries that each of two threads makes in the histogram.
const ENTRIES: u32 = 5_000_000;

/// Peers that say nothing, and that send a byte a second.
const SILENT: usize = 200;
const DRIPPING: usize = 50;

/// Latencies in microseconds.
#[derive(Debug, Default)]
struct Samples(Vec<f64>);

/// The floor's process, which ends with the value.
struct Floor {
    child: Child,
    home: TempDir,
}

/// One client against the floor, and many.
pub(super) fn against_the_floor(daemon: &Daemon, length: Length) -> Result<Vec<Figure>> {
    progress("one lookup, and many at once, beside the floor");
    let floor = Floor::start()?;
    let sockets = [daemon.socket(), floor.socket()];
    let servers = [daemon.id()?, floor.child.id()];
    let [mut ours, mut floors] = cores::apart(&servers, || in_turn(&sockets, length.rounds(160)))?;
    let (mut our_rate, mut floor_rate) = (Samples::default(), Samples::default());
    for _ in 0..length.rounds(24) {
        our_rate.0.push(rate(&sockets[0])?);
        floor_rate.0.push(rate(&sockets[1])?);
    }
    let lookup = ours.at(500) * 1e3;
    Ok(vec![
        Figure::ratio("counting a latency, against the lookup", counting(), lookup, "ns", Bound::AtMost(0.01)),
        Figure::ratio(
            "one lookup, 1 client, p50, against the floor",
            ours.at(500),
            floors.at(500),
            "µs",
            Bound::AtMost(1.15),
        ),
        Figure::ratio(
            "one lookup, 1 client, p99, against the floor's",
            ours.at(990),
            floors.at(990),
            "µs",
            Bound::AtMost(1.3),
        ),
        Figure::ratio(
            "lookups a second, 16 clients, against the floor's",
            our_rate.at(500),
            floor_rate.at(500),
            "/s",
            Bound::AtLeast(0.90),
        ),
    ])
}

/// What one entry in the daemon's histogram costs, in nanoseconds, while another thread makes entries in the same buckets, as the
/// daemon's second lookup thread may.
fn counting() -> f64 {
    let histogram = Histogram::default();
    let count = || {
        let start = Instant::now();
        for number in 0..ENTRIES {
            histogram.record(Duration::from_nanos(20_000 + u64::from(number % 4_096)));
        }
        start.elapsed()
    };
    let took = thread::scope(|scope| {
        let other = scope.spawn(count);
        let own = count();
        other.join().map_or(own, |other| own.max(other))
    });
    took.as_secs_f64() * 1e9 / f64::from(ENTRIES)
}

/// A million subjects against a thousand.
pub(super) fn many_subjects_beside_few(few: &Daemon, many: &Daemon, length: Length) -> Result<Vec<Figure>> {
    let (sockets, servers) = ([many.socket(), few.socket()], [many.id()?, few.id()?]);
    let [mut many, mut few] = cores::apart(&servers, || in_turn(&sockets, length.rounds(160)))?;
    let name = "p50 with 1,000,000 subjects, against 1,000";
    Ok(vec![Figure::ratio(name, many.at(500), few.at(500), "µs", Bound::AtMost(1.05))])
}

/// While 100,000 changes are imported, against when nobody changes anything.
pub(super) fn while_changes_pour_in(length: Length) -> Result<Vec<Figure>> {
    progress("lookups while changes are imported");
    let daemon = daemon_with(1_000)?;
    let (mut busy, mut idle) = (Samples::default(), Samples::default());
    for round in 0..length.rounds(16) {
        idle.0.extend(asked(&daemon.socket(), 4 * ROUND)?.0);
        let first = 1_000 + round * 100_000;
        thread::scope(|scope| -> Result<()> {
            let import = scope.spawn(|| changes::import(&daemon, first..first + 100_000));
            while !import.is_finished() {
                busy.0.extend(asked(&daemon.socket(), 50)?.0);
            }
            import.join().map_err(|_| anyhow::anyhow!("the import panicked"))?.map(drop)
        })?;
    }
    let name = "p99 while 100,000 changes are imported, against idle";
    Ok(vec![Figure::ratio(name, busy.at(990), idle.at(990), "µs", Bound::AtMost(2.0))])
}

/// With hundreds of peers that keep the daemon waiting, against without.
pub(super) fn among_hostile_peers(daemon: &Daemon, length: Length) -> Result<Vec<Figure>> {
    progress("lookups among peers that send nothing, or a byte a second");
    let (mut hostile, mut alone) = (Samples::default(), Samples::default());
    for _ in 0..length.rounds(16) {
        alone.0.extend(asked(&daemon.socket(), 4 * ROUND)?.0);
        let over = AtomicBool::new(false);
        thread::scope(|scope| -> Result<()> {
            let peers = scope.spawn(|| keep_peers(&daemon.socket(), &over));
            let asked = asked(&daemon.socket(), 4 * ROUND);
            over.store(true, Relaxed);
            hostile.0.extend(asked?.0);
            peers.join().map_err(|_| anyhow::anyhow!("the peers panicked"))?
        })?;
    }
    let name = "p99 with 200 silent peers and 50 dripping ones, against without";
    Ok(vec![Figure::ratio(name, hostile.at(990), alone.at(990), "µs", Bound::AtMost(1.5))])
}

/// Keeps so many connections open, and opens new ones for those that are hung up on.
fn keep_peers(socket: &Path, over: &AtomicBool) -> Result<()> {
    let open = || -> Result<UnixStream> {
        let stream = UnixStream::connect(socket)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    let mut peers = (0..SILENT + DRIPPING).map(|_| open()).collect::<Result<Vec<_>>>()?;
    let mut drip = Instant::now();
    while !over.load(Relaxed) {
        let drips = drip.elapsed() >= Duration::from_secs(1);
        for (number, peer) in peers.iter_mut().enumerate() {
            let mut reply = [0; 16];
            let gone = peer.read(&mut reply).is_ok();
            if gone || (drips && number < DRIPPING && peer.write_all(b"c").is_err()) {
                *peer = open()?;
            }
        }
        if drips {
            drip = Instant::now();
        }
        // A fifth of a second between looks: the peers shall cost the daemon something, and this thread little.
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Rounds of lookups on each socket, one after the other.
fn in_turn<const N: usize>(sockets: &[PathBuf; N], rounds: usize) -> Result<[Samples; N]> {
    let mut samples = [const { Samples(Vec::new()) }; N];
    for _ in 0..rounds {
        for (samples, socket) in samples.iter_mut().zip(sockets) {
            samples.0.extend(asked(socket, ROUND)?.0);
        }
    }
    Ok(samples)
}

fn asked(socket: &Path, count: usize) -> Result<Samples> {
    for _ in 0..WARM_UP.min(count) {
        ask(socket, 0)?;
    }
    let latencies = (0..count).map(|number| Ok(ask(socket, number)?.as_secs_f64() * 1e6));
    latencies.collect::<Result<Vec<_>>>().map(Samples)
}

/// Lookups a second, with many clients at once.
fn rate(socket: &Path) -> Result<f64> {
    let begun = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| (0..ROUND).try_for_each(|number| ask(socket, number).map(drop))))
            .collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })?;
    #[allow(clippy::cast_precision_loss, reason = "a few ten thousand")]
    Ok((CLIENTS * ROUND) as f64 / begun.elapsed().as_secs_f64())
}

/// One lookup, as Exim makes it: connect, send, shut down writing, read to end-of-file.
fn ask(socket: &Path, number: usize) -> Result<Duration> {
    let question = format!("check id=1rABCD-000abc-XY user{number}@bench.test\n");
    let begun = Instant::now();
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(question.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let (mut reply, mut length) = ([0; 16], 0);
    loop {
        match stream.read(&mut reply[length..])? {
            0 => break,
            read => length += read,
        }
    }
    let took = begun.elapsed();
    ensure!([&b"ok"[..], b"hold"].contains(&&reply[..length]), "the answer is {}", reply[..length].escape_ascii());
    Ok(took)
}

impl Samples {
    /// The sample below which so many of a thousand lie.
    fn at(&mut self, per_mille: usize) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0.get(self.0.len() * per_mille / 1000).copied().unwrap_or(f64::NAN)
    }
}

impl Floor {
    fn start() -> Result<Self> {
        let home = public_directory()?;
        let socket = home.path().join("floor");
        let child = Command::new(std::env::current_exe()?).arg("floor").arg(&socket).spawn()?;
        let floor = Self { child, home };
        wait_until("the floor", Duration::from_secs(10), || Ok(UnixStream::connect(&socket).is_ok()))?;
        Ok(floor)
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("floor")
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
