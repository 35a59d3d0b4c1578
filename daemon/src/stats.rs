//! Counters and the latency histogram. Written by whoever counts, read by whoever asks; all relaxed atomics, so that
//! counting costs a lookup a few nanoseconds and waits for nobody.

use outgoingd_client::protocol::message::Latencies;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets for each power of two of nanoseconds.
const PARTS: usize = 8;

/// Powers of two covered, 1 ns to about 18 minutes.
const POWERS: usize = 40;

/// The powers of two of nanoseconds that are told one by one: about 1 µs to about 2 s.
const TOLD: RangeInclusive<usize> = 9..=30;

/// Everything that is counted since the start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Lookups answered `ok`.
    pub lookups_ok: AtomicU64,
    /// Lookups answered `hold`.
    pub lookups_hold: AtomicU64,
    /// Lookups answered `suspend`.
    pub lookups_suspend: AtomicU64,
    /// Notices given.
    pub notices: AtomicU64,
    /// Requests answered `error`.
    pub malformed: AtomicU64,
    /// Peers whose request was not complete when they were accepted.
    pub slow_peers: AtomicU64,
    /// Peers that did not complete their request in time.
    pub timed_out: AtomicU64,
    /// Connections closed unread because a bound was reached.
    pub turned_away: AtomicU64,
    /// Changes carried out.
    pub changes: AtomicU64,
    /// Requests of administrators refused.
    pub refused: AtomicU64,
    /// Times the fallback file was written.
    pub fallback_writes: AtomicU64,
    /// Times it could not be written.
    pub fallback_failures: AtomicU64,
    /// The fallback file could not be written the last time.
    pub fallback_stale: AtomicBool,
    /// Lookups from accept to reply.
    pub latency: Histogram,
}

impl Stats {
    /// Lookups answered with a verdict.
    #[must_use]
    pub fn lookups(&self) -> u64 {
        self.lookups_ok.load(Relaxed) + self.lookups_hold.load(Relaxed) + self.lookups_suspend.load(Relaxed)
    }
}

/// A histogram of durations with buckets an eighth of a power of two wide: a percentile is at most 12.5 % too high.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; PARTS * POWERS],
    nanoseconds: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: [const { AtomicU64::new(0) }; PARTS * POWERS], nanoseconds: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanoseconds)].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    /// What was counted, by powers of two.
    #[must_use]
    pub fn by_powers(&self) -> Latencies {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        let powers: Vec<u64> = counts.chunks(PARTS).map(|parts| parts.iter().sum()).collect();
        let bound = |power: usize| upper_bound(power * PARTS + PARTS - 1);
        let first = (bound(*TOLD.start()), powers[..=*TOLD.start()].iter().sum());
        let others = TOLD.skip(1).map(|power| (bound(power), powers[power]));
        Latencies {
            buckets: [first].into_iter().chain(others).collect(),
            count: powers.iter().sum(),
            sum_ns: self.nanoseconds.load(Relaxed),
        }
    }

    /// The durations below which the given parts of a thousand lie, as upper bounds of their buckets, in nanoseconds; 0
    /// while nothing was counted. `per_mille` must ascend.
    #[must_use]
    pub fn percentiles<const N: usize>(&self, per_mille: [u64; N]) -> [u64; N] {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        per_mille.map(|part| {
            let rank = (total * part).div_ceil(1000);
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= rank && total > 0
            });
            found.map_or(0, upper_bound)
        })
    }
}

#[allow(clippy::cast_possible_truncation, reason = "three bits")]
/// The bucket of a value: its power of two, and which eighth of it.
fn bucket(value: u64) -> usize {
    let power = value.max(1).ilog2() as usize;
    let part = if power >= 3 { (value >> (power - 3)) as usize & (PARTS - 1) } else { 0 };
    (power * PARTS + part).min(PARTS * POWERS - 1)
}

/// The largest value in a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let (power, part) = (bucket / PARTS, (bucket % PARTS) as u64);
    if power >= 3 { ((PARTS as u64 + part + 1) << (power - 3)) - 1 } else { (2 << power) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentiles_are_upper_bounds_of_their_buckets() {
        let histogram = Histogram::default();
        assert_eq!(histogram.percentiles([500, 990]), [0, 0]);
        for microseconds in 1..=1000 {
            histogram.record(Duration::from_micros(microseconds));
        }
        let [p50, p99] = histogram.percentiles([500, 990]);
        assert!((500_000..=562_500).contains(&p50), "{p50}");
        assert!((990_000..=1_113_750).contains(&p99), "{p99}");
    }

    #[test]
    fn powers_of_two_have_all_that_was_counted_up_to_their_bounds() {
        let histogram = Histogram::default();
        assert_eq!(histogram.by_powers().buckets.len(), 22);
        for nanoseconds in [0, 1, 1023, 1024, 2047, 2048, (1 << 31) - 1, 1 << 31] {
            histogram.record(Duration::from_nanos(nanoseconds));
        }
        let Latencies { buckets, count, sum_ns } = histogram.by_powers();
        assert_eq!(buckets[..4], [(1023, 3), (2047, 2), (4095, 1), (8191, 0)]);
        assert_eq!(buckets.last(), Some(&((1 << 31) - 1, 1)));
        assert_eq!((count, sum_ns), (8, 1 + 1023 + 1024 + 2047 + 2048 + (1 << 32) - 1));
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket(value in 8_u64..1 << 39) {
            let bucket = bucket(value);
            prop_assert!(value <= upper_bound(bucket));
            prop_assert!(value > upper_bound(bucket - 1));
            prop_assert!(upper_bound(bucket) - value <= value / 8);
        }
    }
}
