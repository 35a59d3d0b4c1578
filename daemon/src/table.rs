//! What lookups see: all flags, passes and domain owners, in memory.
//!
//! One writer changes it (the writer thread: flags and passes; the watcher: owners), everyone reads. A lookup takes a
//! handful of read locks, each for one probe of a hash table. A writer holds a lock for one insertion; since the flags are
//! spread over [`SHARDS`] tables, the insertion that makes a table grow moves a fraction of them, even when there are a
//! million. The locks never leave this file and there is no `await` in it.
//!
//! A subject costs its text and 32 bytes or so: 16 for the text's address and length, 8 for the ends, the rest the table's own.
//! Everything that only administrators ask for (since, by, reason) stays on disk.

use crate::flag::{self, Ends, Flag, Kind, Timestamp, Verdict};
use crate::name::{Identity, MessageId, Subject};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Into how many tables the flags are spread.
const SHARDS: usize = 256;

type Flags = HashTable<(Box<str>, Ends)>;

/// Which account owns which domain; both in normal form, the domain without `@`.
pub type Owners = HashMap<Box<str>, Box<str>>;

/// All that a lookup needs.
#[derive(Debug)]
pub struct Table {
    hasher: RandomState,
    flags: Box<[RwLock<Flags>]>,
    /// Notices of suspended subjects that have one of their own.
    notices: RwLock<HashMap<Box<str>, Box<str>>>,
    passes: RwLock<HashSet<Box<str>>>,
    owners: RwLock<Arc<Owners>>,
}

impl Default for Table {
    fn default() -> Table {
        Table {
            hasher: RandomState::new(),
            flags: (0..SHARDS).map(|_| RwLock::default()).collect(),
            notices: RwLock::default(),
            passes: RwLock::default(),
            owners: RwLock::default(),
        }
    }
}

impl Table {
    /// The verdict on `identity` at `now`; where a hold decides, a pass for `message` lifts it.
    #[must_use]
    pub fn verdict(&self, identity: &Identity<'_>, message: Option<&MessageId<'_>>, now: Timestamp) -> Verdict {
        match self.decide(identity, now, |decision| decision.map(|decision| decision.kind)) {
            Some(Kind::Hold) if message.is_some_and(|id| self.has_pass(id)) => Verdict::Ok,
            Some(kind) => kind.into(),
            None => Verdict::Ok,
        }
    }

    /// What to tell `identity` when its mail is rejected.
    #[must_use]
    pub fn notice(&self, identity: &Identity<'_>, now: Timestamp) -> String {
        self.decide(identity, now, |decision| match decision {
            Some(decision) => match read(&self.notices).get(decision.subject) {
                Some(notice) if decision.kind == Kind::Suspend => notice.to_string(),
                _ => flag::default_notice(decision.subject),
            },
            None => flag::default_notice(identity.as_str()),
        })
    }

    /// The subject whose flag decides about `identity`, and its kind.
    #[must_use]
    pub fn deciding(&self, identity: &Identity<'_>, now: Timestamp) -> Option<(String, Kind)> {
        self.decide(identity, now, |decision| decision.map(|decision| (decision.subject.to_owned(), decision.kind)))
    }

    /// Whether there is a pass for `message`.
    #[must_use]
    pub fn has_pass(&self, message: &MessageId<'_>) -> bool {
        read(&self.passes).contains(message.as_str())
    }

    /// The subjects that may cover `identity`, the closest first.
    #[must_use]
    pub fn covering(&self, identity: &Identity<'_>) -> Vec<String> {
        let owners = read(&self.owners);
        flag::covering(identity, owner(&owners, identity)).map(str::to_owned).collect()
    }

    /// The account that owns `domain`.
    #[must_use]
    pub fn owner_of(&self, domain: &str) -> Option<String> {
        read(&self.owners).get(domain).map(ToString::to_string)
    }

    /// The domain-owner map as it is now.
    #[must_use]
    pub fn owners(&self) -> Arc<Owners> {
        read(&self.owners).clone()
    }

    /// Puts another domain-owner map in the place of the present one.
    pub fn replace_owners(&self, owners: Owners) {
        // What was there is dropped behind this line, when nobody waits for the lock any more.
        let _old = std::mem::replace(&mut *write(&self.owners), Arc::new(owners));
    }

    /// Hands every subject with a flag to `each`, in no order and holding no lock: each shard's are copied first. One that
    /// comes or goes meanwhile may be among them or not.
    ///
    /// # Errors
    ///
    /// What `each` returns.
    pub fn for_each_subject<E>(&self, mut each: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let mut subjects = String::new();
        self.flags.iter().try_for_each(|shard| {
            subjects.clear();
            for (subject, _) in read(shard).iter() {
                // The normal form knows no newline.
                subjects.push_str(subject);
                subjects.push('\n');
            }
            subjects.lines().try_for_each(&mut each)
        })
    }

    /// The ends of the flags on `subject`.
    #[must_use]
    pub fn ends_of(&self, subject: &str) -> Ends {
        let hash = self.hash(subject);
        read(self.shard(hash)).find(hash, |(key, _)| **key == *subject).map_or(Ends::default(), |(_, ends)| *ends)
    }

    /// Makes a flag, or its absence, visible. Returns the ends of the subject's flags before.
    pub fn put(&self, subject: &Subject, kind: Kind, flag: Option<&Flag>) -> Ends {
        let key = subject.as_str();
        if kind == Kind::Suspend {
            match flag.and_then(|flag| flag.notice.as_deref()) {
                Some(notice) => drop(write(&self.notices).insert(key.into(), notice.into())),
                None => drop(write(&self.notices).remove(key)),
            }
        }
        let hash = self.hash(key);
        let mut shard = write(self.shard(hash));
        match shard.entry(hash, |(known, _)| **known == *key, |(known, _)| self.hash(known)) {
            Entry::Occupied(mut entry) => {
                let before = entry.get().1;
                entry.get_mut().1.set(kind, flag);
                if entry.get().1.is_clear() {
                    entry.remove();
                }
                before
            }
            Entry::Vacant(entry) => {
                if flag.is_some() {
                    let mut ends = Ends::default();
                    ends.set(kind, flag);
                    entry.insert((key.into(), ends));
                }
                Ends::default()
            }
        }
    }

    /// Makes room for so many subjects, so that loading them moves none.
    pub fn reserve(&self, subjects: usize) {
        for shard in &self.flags {
            // A few more, since chance does not spread them evenly.
            write(shard).reserve(subjects / SHARDS + subjects / SHARDS / 8, |(known, _)| self.hash(known));
        }
    }

    /// Makes a pass, or its absence, visible.
    pub fn put_pass(&self, message: &MessageId<'_>, given: bool) {
        if given {
            write(&self.passes).insert(message.as_str().into());
        } else {
            write(&self.passes).remove(message.as_str());
        }
    }

    /// An empty table that [`Table::replace_flags`] can take over as it is.
    #[must_use]
    pub fn empty_twin(&self) -> Table {
        Table { hasher: self.hasher.clone(), ..Table::default() }
    }

    /// Takes over flags, notices and passes of a twin, shard by shard. No flag that both have is ever missing to a lookup.
    pub fn replace_flags(&self, twin: Table) {
        // What was there goes with the twin, when nobody waits for its locks any more.
        for (shard, mut other) in self.flags.iter().zip(twin.flags) {
            std::mem::swap(&mut *write(shard), other.get_mut().unwrap_or_else(PoisonError::into_inner));
        }
        let (mut notices, mut passes) = (twin.notices, twin.passes);
        std::mem::swap(&mut *write(&self.notices), notices.get_mut().unwrap_or_else(PoisonError::into_inner));
        std::mem::swap(&mut *write(&self.passes), passes.get_mut().unwrap_or_else(PoisonError::into_inner));
    }

    /// How many subjects are held, how many are suspended, and how many passes there are. Walks all flags.
    #[must_use]
    pub fn count(&self, now: Timestamp) -> (u64, u64, u64) {
        let (mut held, mut suspended) = (0, 0);
        for shard in &self.flags {
            for (_, ends) in read(shard).iter() {
                held += u64::from(ends.in_force(Kind::Hold, now));
                suspended += u64::from(ends.in_force(Kind::Suspend, now));
            }
        }
        (held, suspended, read(&self.passes).len() as u64)
    }

    fn decide<T>(
        &self,
        identity: &Identity<'_>,
        now: Timestamp,
        then: impl FnOnce(Option<flag::Decision<'_>>) -> T,
    ) -> T {
        let owners = read(&self.owners);
        then(flag::decide(identity, owner(&owners, identity), now, |subject| self.ends_of(subject)))
    }

    fn hash(&self, subject: &str) -> u64 {
        self.hasher.hash_one(subject)
    }

    /// The shard of a hash, by bits that the table in it does not go by: it takes the lowest and the highest.
    #[allow(clippy::cast_possible_truncation, reason = "the rest of a hash is not wanted")]
    fn shard(&self, hash: u64) -> &RwLock<Flags> {
        &self.flags[(hash >> 32) as usize % SHARDS]
    }
}

fn owner<'a>(owners: &'a Owners, identity: &Identity<'_>) -> Option<&'a str> {
    identity.at_domain().and_then(|at_domain| owners.get(&at_domain[1..])).map(|account| &**account)
}

/// A panic anywhere ends the daemon, so a poisoned lock guards sound data.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn flag(notice: Option<&str>) -> Flag {
        Flag { since: NOW, until: None, by: "root".into(), reason: None, notice: notice.map(str::to_owned) }
    }

    fn table(flags: &[(&str, Kind)]) -> Table {
        let table = Table::default();
        table.replace_owners(Owners::from([("example.com".into(), "alice".into())]));
        for (subject, kind) in flags {
            table.put(&Subject::new(subject).unwrap(), *kind, Some(&flag(None)));
        }
        table
    }

    fn verdict(table: &Table, identity: &str, message: Option<&str>) -> Verdict {
        let message = message.map(|id| MessageId::new(id).unwrap());
        table.verdict(&Identity::new(identity).unwrap(), message.as_ref(), NOW)
    }

    #[test]
    fn a_flag_on_the_owning_account_stops_the_mailboxes_of_its_domains() {
        let table = table(&[("alice", Kind::Hold)]);
        assert_eq!(verdict(&table, "bob@example.com", None), Verdict::Hold);
        assert_eq!(verdict(&table, "bob@example.org", None), Verdict::Ok);
        table.replace_owners(Owners::new());
        assert_eq!(verdict(&table, "bob@example.com", None), Verdict::Ok);
    }

    #[test]
    fn a_pass_lifts_a_hold_for_its_message_alone_and_never_a_suspend() {
        let table = table(&[("bob@example.com", Kind::Hold)]);
        table.put_pass(&MessageId::new("1rABCD-000abc-XY").unwrap(), true);
        assert_eq!(verdict(&table, "bob@example.com", Some("1rABCD-000abc-XY")), Verdict::Ok);
        assert_eq!(verdict(&table, "bob@example.com", Some("1rABCD-000abc-XZ")), Verdict::Hold);
        assert_eq!(verdict(&table, "bob@example.com", None), Verdict::Hold);
        table.put(&Subject::new("*").unwrap(), Kind::Suspend, Some(&flag(None)));
        assert_eq!(verdict(&table, "bob@example.com", Some("1rABCD-000abc-XY")), Verdict::Suspend);
    }

    #[test]
    fn clearing_one_flag_leaves_the_other() {
        let table = table(&[("alice", Kind::Hold), ("alice", Kind::Suspend)]);
        let alice = Subject::new("alice").unwrap();
        table.put(&alice, Kind::Suspend, None);
        assert_eq!(verdict(&table, "alice", None), Verdict::Hold);
        table.put(&alice, Kind::Hold, None);
        assert_eq!(verdict(&table, "alice", None), Verdict::Ok);
        assert_eq!(table.count(NOW), (0, 0, 0));
    }

    #[test]
    fn a_notice_is_the_deciding_flags_own_or_names_its_subject() {
        let table = table(&[("@example.com", Kind::Suspend)]);
        let bob = Identity::new("bob@example.com").unwrap();
        assert!(table.notice(&bob, NOW).contains("@example.com"));
        table.put(&Subject::new("bob@example.com").unwrap(), Kind::Suspend, Some(&flag(Some("call 555"))));
        assert_eq!(table.notice(&bob, NOW), "call 555");
        table.put(&Subject::new("bob@example.com").unwrap(), Kind::Suspend, None);
        assert!(table.notice(&bob, NOW).contains("@example.com"));
    }

    #[test]
    fn replacing_all_flags_keeps_what_both_tables_have() {
        let old = table(&[("alice", Kind::Hold), ("bob", Kind::Hold)]);
        let twin = old.empty_twin();
        twin.put(&Subject::new("alice").unwrap(), Kind::Hold, Some(&flag(None)));
        twin.put(&Subject::new("carol").unwrap(), Kind::Suspend, Some(&flag(None)));
        old.replace_flags(twin);
        assert_eq!(verdict(&old, "alice", None), Verdict::Hold);
        assert_eq!(verdict(&old, "bob", None), Verdict::Ok);
        assert_eq!(verdict(&old, "carol", None), Verdict::Suspend);
    }
}
