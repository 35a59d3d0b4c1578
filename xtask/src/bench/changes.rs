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
    let (change, sync) = costs(daemon, length.rounds(80))?;
    let name = "one durable change, acknowledged, p50, against 4 KiB synced";
    Ok(vec![Figure::ratio(name, micros(change), micros(sync), "µs", Bound::AtMost(3.0))])
}

/// Many changes at once against one at a time.
pub(super) fn imported(length: Length) -> Result<Vec<Figure>> {
    progress("100,000 changes at once");
    let (mut ratios, mut took, mut allowed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..length.rounds(16) {
        let daemon = super::daemon_with(1_000)?;
        let (change, sync) = costs(&daemon, 4)?;
        let many = import(&daemon, 1_000..1_000 + MANY)?;
        #[allow(clippy::cast_precision_loss, reason = "a hundred thousand")]
        ratios.push(change.as_secs_f64() * MANY as f64 / many.as_secs_f64());
        took.push(many);
        // Where a sync takes longer than a millisecond, so may the import.
        allowed.push(sync.max(Duration::from_millis(1)) * 2_000);
    }
    let (took, allowed) = (median(&mut took).as_secs_f64(), median(&mut allowed).as_secs_f64());
    ratios.sort_by(f64::total_cmp);
    let times_faster = ratios[ratios.len() / 2];
    Ok(vec![
        Figure::absolute("100,000 changes imported, against one at a time", times_faster, "", Bound::AtLeast(50.0)),
        Figure::absolute("100,000 changes imported", took, "s", Bound::AtMost(allowed)),
    ])
}

/// The medians of a change and of a synced write, measured in turn.
fn costs(daemon: &Daemon, rounds: usize) -> Result<(Duration, Duration)> {
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

pub(super) fn median(durations: &mut [Duration]) -> Duration {
    durations.sort();
    durations.get(durations.len() / 2).copied().unwrap_or_default()
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
