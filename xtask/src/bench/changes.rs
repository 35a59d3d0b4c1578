//! Changes: what one costs beside the disk, and many at once beside one at a time.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use outgoingd_client::protocol::message::{Flag, Kind};
use outgoingd_client::{Client, Terms};

use super::figures::{Bound, Figure};
use super::{Length, progress};
use crate::testbed::Daemon;

/// Flags that an import sends at once.
const BATCH: usize = 1_000;

/// Flags of the import that is measured.
const MANY: usize = 100_000;

/// One durable change against one write that is synced, on the same file system.
pub(super) fn one_at_a_time(daemon: &Daemon, length: Length) -> Result<Vec<Figure>> {
    progress("one durable change beside write and fdatasync");
    let (change, sync) = costs(daemon, length)?;
    let name = "one durable change, acknowledged, p50, against 4 KiB synced";
    Ok(vec![Figure::ratio(name, micros(change), micros(sync), "µs", Bound::AtMost(3.0))])
}

/// Many changes at once against one at a time.
pub(super) fn imported(length: Length) -> Result<Vec<Figure>> {
    progress("100,000 changes at once");
    let daemon = super::daemon_with(1_000)?;
    let (change, sync) = costs(&daemon, length)?;
    let took = import(&daemon, 1_000..1_000 + MANY)?;
    let rate = |count: f64, time: Duration| count / time.as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "a hundred thousand")]
    let (at_once, single) = (rate(MANY as f64, took), rate(1.0, change));
    // Where a sync takes longer than a millisecond, so may the import.
    let slower = (sync.as_secs_f64() / 0.001).max(1.0);
    Ok(vec![
        Figure::ratio("100,000 changes imported, against one at a time", at_once, single, "/s", Bound::AtLeast(50.0)),
        Figure::absolute("100,000 changes imported", took.as_secs_f64(), "s", Bound::AtMost(2.0 * slower)),
    ])
}

/// The medians of a change and of a synced write, measured in turn.
fn costs(daemon: &Daemon, length: Length) -> Result<(Duration, Duration)> {
    let rounds = if length == Length::Full { 20 } else { 5 };
    let mut client = Client::new(daemon.socket());
    let (mut changes, mut syncs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for _ in 0..10 {
            changes.push(timed(|| Ok(client.hold("carol", &Terms::default()).map(drop)?))?);
            changes.push(timed(|| Ok(client.release("carol").map(drop)?))?);
        }
        syncs.extend(synced_writes(daemon.home(), 20)?);
    }
    Ok((median(&mut changes), median(&mut syncs)))
}

/// Writes 4 KiB over and over, each time synced, as a database does.
fn synced_writes(directory: &Path, count: usize) -> Result<Vec<Duration>> {
    let mut file = File::create(directory.join("synced"))?;
    file.write_all(&[1; 4096])?;
    file.sync_all()?;
    (0..count)
        .map(|_| {
            timed(|| {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&[2; 4096])?;
                Ok(file.sync_data()?)
            })
        })
        .collect()
}

/// Holds `user{N}@bench.test` for each number; says how long it took.
pub(super) fn import(daemon: &Daemon, numbers: Range<usize>) -> Result<Duration> {
    let flag = |number| Flag {
        subject: format!("user{number}@bench.test"),
        kind: Kind::Hold,
        since: None,
        until: None,
        by: None,
        reason: None,
        notice: None,
    };
    let mut client = Client::new(daemon.socket());
    let numbers: Vec<usize> = numbers.collect();
    timed(|| {
        for batch in numbers.chunks(BATCH) {
            let imported = client.import(batch.iter().copied().map(flag).collect())?;
            ensure!(imported.refused.is_empty(), "refused: {:?}", imported.refused.first());
        }
        Ok(())
    })
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

fn median(durations: &mut [Duration]) -> Duration {
    durations.sort();
    durations.get(durations.len() / 2).copied().unwrap_or_default()
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
