//! Who has failed to authenticate too often, which tokens were good before, and how much of that is told in the log. Pure: the clock is a parameter.
//!
//! The first failure from an address opens a minute; so many in it, and the address is refused for the rest of it. A
//! success changes nothing: whoever has one good token may not try others. Calls that are on their way to the daemon at
//! the same time are all let through, so that the bound can be passed by as many.

use outgoingd_client::protocol::message::Secret;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// How long failures count.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// Most addresses that are known; then the one that would be forgotten first is.
const MAX_NETWORKS: usize = 4096;

/// Most tokens that are known to have been good.
const MAX_KNOWN: usize = 1024;

/// Most lines a minute about failures.
const MAX_LINES: u32 = 20;

/// From where a peer comes: an IPv4 address, or the 64 bits of an IPv6 address that a host can rarely choose. All of the own host is
/// one: every local user may choose among its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Network(IpAddr);

/// Counts failures.
#[derive(Debug)]
pub(crate) struct Guard {
    most: u32,
    failures: HashMap<Network, Failures>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    since: Instant,
    count: u32,
}

/// Tokens that were good when they were shown last. Whoever shares an address with somebody who tries tokens (a host with local users, a
/// network behind one address) is not kept out by that. Nothing of a secret is kept, and whether it is good is still the daemon's word.
#[derive(Debug, Default)]
pub(crate) struct Known {
    keyed: RandomState,
    tokens: HashSet<u64>,
}

/// Says what goes into the log.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    since: Option<Instant>,
    count: u32,
    left_out: u64,
}

impl Network {
    /// That of an address.
    pub(crate) fn of(address: IpAddr) -> Network {
        let address = address.to_canonical();
        if address.is_loopback() {
            return Network(IpAddr::from([127, 0, 0, 1]));
        }
        match address {
            IpAddr::V6(address) => Network(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
            address @ IpAddr::V4(_) => Network(address),
        }
    }
}

impl Guard {
    /// Takes so many failures from each address in a minute.
    pub(crate) fn new(most: u32) -> Guard {
        Guard { most, failures: HashMap::new() }
    }

    /// How long this address is refused from now on; none: it is not.
    pub(crate) fn refused(&self, network: Network, now: Instant) -> Option<Duration> {
        let failures = self.failures.get(&network)?;
        let left = WINDOW.saturating_sub(now.saturating_duration_since(failures.since));
        (failures.count >= self.most && !left.is_zero()).then_some(left)
    }

    /// Takes note of a failure; says the how-many-th it is in its minute.
    pub(crate) fn failed(&mut self, network: Network, now: Instant) -> u32 {
        if self.failures.len() >= MAX_NETWORKS && !self.failures.contains_key(&network) {
            self.make_room(now);
        }
        let fresh = Failures { since: now, count: 0 };
        let failures = self.failures.entry(network).or_insert(fresh);
        if has_ended(failures, now) {
            *failures = fresh;
        }
        failures.count = failures.count.saturating_add(1);
        failures.count
    }

    fn make_room(&mut self, now: Instant) {
        self.failures.retain(|_, failures| !has_ended(failures, now));
        if self.failures.len() >= MAX_NETWORKS
            && let Some(first) = self.failures.iter().min_by_key(|(_, failures)| failures.since)
        {
            let first = *first.0;
            self.failures.remove(&first);
        }
    }
}

impl Known {
    /// Whether this one was good.
    pub(crate) fn has(&self, secret: &Secret) -> bool {
        self.tokens.contains(&self.keyed.hash_one(&secret.0))
    }

    /// It was good.
    pub(crate) fn add(&mut self, secret: &Secret) {
        if self.tokens.len() >= MAX_KNOWN {
            self.tokens.clear();
        }
        self.tokens.insert(self.keyed.hash_one(&secret.0));
    }

    /// It is no longer.
    pub(crate) fn remove(&mut self, secret: &Secret) {
        self.tokens.remove(&self.keyed.hash_one(&secret.0));
    }
}

fn has_ended(failures: &Failures, now: Instant) -> bool {
    now.saturating_duration_since(failures.since) >= WINDOW
}

impl Lines {
    /// Whether there is a line for what happens now; if so, how many were left out before it.
    pub(crate) fn next(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            (self.since, self.count) = (Some(now), 0);
        }
        if self.count >= MAX_LINES {
            self.left_out += 1;
            return None;
        }
        self.count += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str) -> Network {
        Network::of(address.parse().unwrap())
    }

    #[test]
    fn so_many_failures_and_an_address_is_refused_until_the_minute_ends() {
        let (mut guard, here, begun) = (Guard::new(3), network("192.0.2.1"), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        for second in [0, 10, 20] {
            assert_eq!(guard.refused(here, at(second)), None);
            guard.failed(here, at(second));
        }
        assert_eq!(guard.refused(here, at(20)), Some(Duration::from_secs(40)));
        assert_eq!(guard.refused(here, at(59)), Some(Duration::from_secs(1)));
        assert_eq!(guard.refused(here, at(60)), None);
        guard.failed(here, at(61));
        assert_eq!(guard.refused(here, at(61)), None, "a new minute begins with one failure");
        assert_eq!(guard.refused(network("192.0.2.2"), at(20)), None);
    }

    #[test]
    fn neighbours_in_a_64_are_one_and_an_address_of_version_4_is_one_however_it_is_written() {
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_eq!((network("127.8.0.9"), network("::1")), (network("127.0.0.1"), network("127.0.0.1")));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }

    #[test]
    fn a_token_that_was_good_is_known_until_it_is_not_and_there_are_not_too_many() {
        let (mut known, secret) = (Known::default(), |number: usize| Secret(format!("secret{number}")));
        known.add(&secret(1));
        assert!(known.has(&secret(1)) && !known.has(&secret(2)));
        known.remove(&secret(1));
        assert!(!known.has(&secret(1)));
        for number in 0..=MAX_KNOWN {
            known.add(&secret(number));
        }
        assert!(known.has(&secret(MAX_KNOWN)) && known.tokens.len() <= MAX_KNOWN);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_oldest_first() {
        let (mut guard, begun) = (Guard::new(1), Instant::now());
        let from = |number: u32| Network::of(IpAddr::from(number.to_be_bytes()));
        for number in 0..u32::try_from(MAX_NETWORKS).unwrap() + 10 {
            guard.failed(from(number), begun + Duration::from_millis(number.into()));
        }
        assert_eq!(guard.failures.len(), MAX_NETWORKS);
        let now = begun + Duration::from_secs(10);
        assert_eq!(guard.refused(from(9), now), None);
        assert!(guard.refused(from(10), now).is_some());
        // Those whose minute is over make room before one that counts.
        guard.failed(from(1 << 24), begun + Duration::from_secs(100));
        assert_eq!(guard.failures.len(), 1);
    }

    #[test]
    fn the_log_has_so_many_lines_a_minute_and_says_how_many_are_missing() {
        let (mut lines, begun) = (Lines::default(), Instant::now());
        for _ in 0..MAX_LINES {
            assert_eq!(lines.next(begun), Some(0));
        }
        assert_eq!(lines.next(begun), None);
        assert_eq!(lines.next(begun + Duration::from_secs(59)), None);
        assert_eq!(lines.next(begun + Duration::from_secs(60)), Some(2));
        assert_eq!(lines.next(begun + Duration::from_secs(60)), Some(0));
    }
}
