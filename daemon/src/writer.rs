//! The single writer: the one place where state changes.
//!
//! A change is written to the state file and synced, then made visible in the table, then in the fallback file, then
//! acknowledged, in this order. Changes that wait are committed together: one transaction, one sync, one fallback file.
//! Only where the fallback file is so long that writing it takes its time (tens of thousands of flags), it follows behind a
//! row of changes instead of each ([`UNHURRIED`]). The writer also ends what has reached its end: flags, and passes older
//! than [`PASS_LIFETIME`].
//!
//! It runs on a thread of its own, since a commit waits for the disk. When a commit fails, nothing of it is acknowledged
//! and the state file is opened again; the table then takes over whichever whole state is on disk. Lookups go on
//! throughout.

use crate::change::{Action, Change, Effect, Origin};
use crate::clock::Clock;
use crate::fallback::Fallback;
use crate::flag::{Kind, Timestamp};
use crate::name::{MessageId, Subject};
use crate::stats::Stats;
use crate::store::{Store, StoreError};
use crate::table::Table;
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time;
use tracing::{error, info, warn};

/// Changes that may wait for the writer; who comes then waits for a place.
const QUEUE: usize = 1024;

/// Changes in one transaction.
const GROUP: usize = 10_000;

/// How long a pass is kept. A message that was let through is gone or bounced long before.
const PASS_LIFETIME: u64 = 30 * 24 * 3600;

/// A fallback file longer than this many bytes (some 30,000 flags) is written once for all changes of a while that is ten
/// times as long as writing it takes.
const UNHURRIED: u64 = 1 << 20;

/// Longest sleep between looks at the clock, which may be set while the writer sleeps.
const LONGEST_NAP: Duration = Duration::from_secs(30);

/// Changes on their way to the writer. The writer ends when all of these are dropped and what they sent is done.
#[derive(Clone, Debug)]
pub struct Handle {
    jobs: mpsc::Sender<Job>,
}

/// What the writer did with a list of changes.
#[derive(Debug)]
pub struct Outcome {
    /// What each change did.
    pub effects: Vec<Effect>,
    /// What went wrong beside the changes, which stand.
    pub warning: Option<String>,
}

/// Why changes were not made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The state file could not be written.
    #[error("cannot write {path}: {message}")]
    Storage {
        /// The state file.
        path: String,
        /// What the disk or redb said.
        message: String,
    },
    /// The writer has ended.
    #[error("outgoingd is stopping")]
    Stopping,
}

#[derive(Debug)]
enum Job {
    /// Make these changes.
    Change(Vec<Change>, oneshot::Sender<Result<Outcome, WriteError>>),
    /// Something else that the fallback file depends on has changed.
    Refresh,
}

/// The writer's own.
#[derive(Debug)]
pub struct Writer {
    jobs: mpsc::Receiver<Job>,
    store: Arc<Store>,
    table: Arc<Table>,
    stats: Arc<Stats>,
    fallback: Option<Fallback>,
    clock: Clock,
    /// What will end, and when.
    ends: BTreeSet<(Timestamp, Ending)>,
    /// The last commit failed and its outcome is not known yet.
    unsure: bool,
    file: FileState,
    /// The fallback file, to be synced when nobody waits.
    unsynced: Option<File>,
}

/// How the fallback file stands.
#[derive(Debug)]
struct FileState {
    /// It does not show the last changes.
    stale: bool,
    /// Why it could not be written, as was said already.
    failure: Option<String>,
    /// How long it is, how long writing it took, and when it was written.
    size: u64,
    took: Duration,
    at: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Flag(Subject, Kind),
    Pass(String),
}

impl Handle {
    /// Makes `changes`, all or none, and waits until they are acknowledged.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: none was made.
    pub async fn submit(&self, changes: Vec<Change>) -> Result<Outcome, WriteError> {
        let (done, outcome) = oneshot::channel();
        self.jobs.send(Job::Change(changes, done)).await.map_err(|_| WriteError::Stopping)?;
        outcome.await.map_err(|_| WriteError::Stopping)?
    }

    /// Has the fallback file written again, because the owners have changed.
    pub async fn refresh(&self) {
        // A writer that has ended needs no refreshing.
        let _ = self.jobs.send(Job::Refresh).await;
    }
}

impl Writer {
    /// Loads the table from the store and writes the fallback file.
    ///
    /// # Errors
    ///
    /// The state cannot be read. A fallback file that cannot be written is logged: lookups are better than none.
    pub fn new(
        store: Arc<Store>,
        table: Arc<Table>,
        stats: Arc<Stats>,
        fallback: Option<Fallback>,
        clock: Clock,
    ) -> Result<(Handle, Writer), StoreError> {
        let (sender, jobs) = mpsc::channel(QUEUE);
        let file = FileState { stale: true, failure: None, size: 0, took: Duration::ZERO, at: Instant::now() };
        let mut writer = Writer {
            jobs,
            store,
            table,
            stats,
            fallback,
            clock,
            ends: BTreeSet::new(),
            unsure: false,
            file,
            unsynced: None,
        };
        writer.load()?;
        writer.write_fallback(Haste::Now);
        Ok((Handle { jobs: sender }, writer))
    }

    /// Works until every [`Handle`] is gone.
    pub async fn run(mut self) {
        loop {
            let nap = time::sleep(self.nap());
            tokio::select! {
                job = self.jobs.recv() => match job {
                    Some(job) => self.work(job),
                    None => break,
                },
                () = nap => self.sync_fallback(),
            }
            self.end_what_has_reached_its_end();
            if self.file.stale {
                self.write_fallback(Haste::Unhurried);
            }
        }
        if self.file.stale {
            self.write_fallback(Haste::Now);
        }
        self.sync_fallback();
    }

    /// Does `first` and all that waits behind it, up to a bound.
    fn work(&mut self, first: Job) {
        let (mut changes, mut waiting) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(job) = next.take() {
            match job {
                Job::Change(mut wanted, done) => {
                    waiting.push((wanted.len(), done));
                    changes.append(&mut wanted);
                }
                Job::Refresh => self.file.stale = true,
            }
            if changes.len() < GROUP {
                next = self.jobs.try_recv().ok();
            }
        }
        let outcome = if waiting.is_empty() { return } else { self.change(&changes) };
        let (mut changes, mut effects) =
            (changes.as_slice(), outcome.as_ref().map_or(&[][..], |outcome| &outcome.effects));
        for (count, done) in waiting {
            let (own_changes, own_effects);
            (own_changes, changes) = changes.split_at(count);
            (own_effects, effects) = effects.split_at(count.min(effects.len()));
            let told = |outcome: &Outcome| Outcome { effects: own_effects.to_vec(), warning: outcome.warning.clone() };
            // Whoever asked may have hung up; what is done is done.
            let _ = done.send(outcome.as_ref().map(told).map_err(Clone::clone));
            log(own_changes, own_effects);
        }
    }

    /// Durable, then visible, then in the fallback file.
    fn change(&mut self, changes: &[Change]) -> Result<Outcome, WriteError> {
        if self.unsure {
            self.recover()?;
        }
        let now = self.clock.now();
        let effects = self.store.commit(changes, now).map_err(|error| self.failed(&error))?;
        for (change, effect) in changes.iter().zip(&effects) {
            self.show(change, effect, now);
        }
        if self.file.stale {
            self.write_fallback(Haste::Unhurried);
        }
        Ok(Outcome { effects, warning: self.file.failure.clone() })
    }

    /// Makes visible what one change did.
    fn show(&mut self, change: &Change, effect: &Effect, now: Timestamp) {
        match (&change.action, effect) {
            (_, Effect::Unchanged) => return,
            (Action::Pass { message }, _) => self.put_pass(message, now),
            (Action::ForgetPass { message }, _) => self.table.put_pass(message, false),
            (
                Action::Set { subject, kind, .. } | Action::Clear { subject, kind } | Action::Expire { subject, kind },
                effect,
            ) => {
                let flag = if let Effect::Put(flag) = effect { Some(flag) } else { None };
                if let Some(old) = self.table.ends_of(subject.as_str()).until(*kind) {
                    self.ends.remove(&(old, Ending::Flag(subject.clone(), *kind)));
                }
                self.table.put(subject, *kind, flag);
                if let Some(until) = flag.and_then(|flag| flag.until) {
                    self.ends.insert((until, Ending::Flag(subject.clone(), *kind)));
                }
            }
        }
        self.file.stale = true;
        self.stats.changes.fetch_add(1, Relaxed);
    }

    fn put_pass(&mut self, message: &MessageId<'_>, given: Timestamp) {
        self.table.put_pass(message, true);
        self.ends.insert((Timestamp(given.0 + PASS_LIFETIME), Ending::Pass(message.as_str().to_owned())));
    }

    fn end_what_has_reached_its_end(&mut self) {
        let now = self.clock.now();
        let due: Vec<_> = self.ends.iter().take_while(|(at, _)| *at <= now).take(GROUP).cloned().collect();
        let changes: Vec<Change> = due.iter().filter_map(|(_, ending)| ending.change()).collect();
        if due.is_empty() {
            return;
        }
        // A flag behind its end is out of force already; if it cannot be removed now, then at the next look.
        match self.change(&changes) {
            Ok(outcome) => {
                log(&changes, &outcome.effects);
                self.ends.retain(|ending| due.binary_search(ending).is_err());
            }
            Err(error) => warn!("flags that have ended stay on disk for now: {error}"),
        }
    }

    /// Syncs the fallback file, when nobody has wanted anything for a while: whoever waits for a change need not wait for this.
    fn sync_fallback(&mut self) {
        if let Some(file) = self.unsynced.take() {
            // It stands in its place; if it cannot be synced, the next start writes it again.
            let _ = file.sync_data();
        }
    }

    /// How long to sleep when nobody wants anything.
    fn nap(&self) -> Duration {
        // A disk that refuses is not asked in a loop.
        if self.unsure {
            return LONGEST_NAP;
        }
        let end = self.ends.first().map(|(at, _)| Duration::from_secs(at.0.saturating_sub(self.clock.now().0).max(1)));
        let file = self.file.stale.then(|| self.file.rest().max(Duration::from_secs(1)));
        let sync = self.unsynced.is_some().then_some(Duration::from_secs(1));
        [end, file, sync].into_iter().flatten().fold(LONGEST_NAP, Duration::min)
    }

    /// A commit failed: nothing is acknowledged, and what is on disk is to be found out.
    fn failed(&mut self, error: &StoreError) -> WriteError {
        error!("cannot write {}: {error}", self.store.path().display());
        self.unsure = true;
        let refusal = self.storage_error(error);
        if let Err(error) = self.recover() {
            warn!("the state file stays closed for now: {error}");
        }
        refusal
    }

    /// Opens the state file again and takes over what is in it.
    fn recover(&mut self) -> Result<(), WriteError> {
        self.store.recover().map_err(|error| self.storage_error(&error))?;
        self.load().map_err(|error| self.storage_error(&error))?;
        self.unsure = false;
        self.write_fallback(Haste::Now);
        Ok(())
    }

    /// Puts the state on disk in the place of what the table shows.
    fn load(&mut self) -> Result<(), StoreError> {
        let fresh = self.table.empty_twin();
        fresh.reserve(self.store.count_flags()?);
        let mut ends = BTreeSet::new();
        self.store.for_each_flag(|subject, kind, flag| {
            fresh.put(&subject, kind, Some(&flag));
            if let Some(until) = flag.until {
                ends.insert((until, Ending::Flag(subject, kind)));
            }
        })?;
        self.store.for_each_pass(|message, given| {
            fresh.put_pass(&message, true);
            ends.insert((Timestamp(given.0.saturating_add(PASS_LIFETIME)), Ending::Pass(message.as_str().to_owned())));
        })?;
        self.table.replace_flags(fresh);
        self.ends = ends;
        Ok(())
    }

    /// Brings the fallback file up to date, now or when there is time. What keeps it from being so is said once.
    fn write_fallback(&mut self, haste: Haste) {
        let Some(fallback) = &self.fallback else {
            self.file.stale = false;
            return;
        };
        if haste == Haste::Unhurried && !self.file.rest().is_zero() {
            return;
        }
        let (begun, mut size) = (Instant::now(), 0);
        let failure = match fallback.replace(&self.table, self.clock.now()) {
            Ok(file) => {
                self.stats.fallback_writes.fetch_add(1, Relaxed);
                size = file.metadata().map_or(0, |file| file.len());
                self.unsynced = Some(file);
                None
            }
            Err(error) => {
                self.stats.fallback_failures.fetch_add(1, Relaxed);
                Some(format!("{error}; while outgoingd is down Exim would go by an older state"))
            }
        };
        match &failure {
            Some(failure) if self.file.failure.is_none() => warn!("{failure}"),
            None if self.file.failure.is_some() => info!("the fallback file is current again"),
            _ => {}
        }
        self.file = FileState { stale: failure.is_some(), failure, size, took: begun.elapsed(), at: Instant::now() };
        self.stats.fallback_stale.store(self.file.failure.is_some(), Relaxed);
    }

    fn storage_error(&self, error: &dyn std::fmt::Display) -> WriteError {
        WriteError::Storage { path: self.store.path().display().to_string(), message: error.to_string() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Haste {
    /// Whatever it takes.
    Now,
    /// Unless it takes long and was done just now.
    Unhurried,
}

impl FileState {
    /// How long to leave the file alone, since writing it takes so long.
    fn rest(&self) -> Duration {
        if self.size < UNHURRIED { Duration::ZERO } else { (self.took * 10).saturating_sub(self.at.elapsed()) }
    }
}

/// Puts what one peer wanted at once on the operators' record: a single change in full, many as a count, whose parts are in
/// the audit trail.
fn log(changes: &[Change], effects: &[Effect]) {
    let done = changes.iter().zip(effects).filter(|(_, effect)| **effect != Effect::Unchanged);
    let done: Vec<&Change> = done.map(|(change, _)| change).collect();
    let Some(Change { origin: Origin { by, uid, pid, on_behalf_of }, action }) = done.first() else { return };
    let on_behalf_of = on_behalf_of.as_deref().unwrap_or_default();
    if let [_] = done.as_slice() {
        let (deed, object) = action.describe();
        info!(target: "audit", deed, object, by, uid, pid, on_behalf_of, "{by}: {deed} {object}");
    } else {
        let changes = done.len();
        info!(target: "audit", changes, by, uid, pid, on_behalf_of, "{by}: {changes} changes at once");
    }
}

impl Origin {
    /// What the daemon does itself.
    #[must_use]
    pub fn daemon() -> Origin {
        Origin {
            by: "outgoingd".to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            pid: std::process::id(),
            on_behalf_of: None,
        }
    }
}

impl Ending {
    fn change(&self) -> Option<Change> {
        let action = match self {
            Ending::Flag(subject, kind) => Action::Expire { subject: subject.clone(), kind: *kind },
            Ending::Pass(id) => Action::ForgetPass { message: MessageId::new(id).ok()?.into_owned() },
        };
        Some(Change { origin: Origin::daemon(), action })
    }
}

impl Action {
    /// The command's word and its object, for a log line.
    fn describe(&self) -> (&'static str, &str) {
        match self {
            Action::Set { subject, kind, .. } => (kind.as_str(), subject.as_str()),
            Action::Clear { subject, kind: Kind::Hold } => ("release", subject.as_str()),
            Action::Clear { subject, kind: Kind::Suspend } => ("unsuspend", subject.as_str()),
            Action::Expire { subject, kind: Kind::Hold } => ("end of hold", subject.as_str()),
            Action::Expire { subject, kind: Kind::Suspend } => ("end of suspend", subject.as_str()),
            Action::Pass { message } => ("pass", message.as_str()),
            Action::ForgetPass { message } => ("end of pass", message.as_str()),
        }
    }
}
