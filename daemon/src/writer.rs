//! The single writer: the one place where state changes.
//!
//! A change is made durable in the state file, then visible in the table, then acknowledged, in this order; the fallback
//! file follows ([`crate::keeper`]). Changes that wait are committed together. The writer also ends what has reached its
//! end: flags, and passes older than [`PASS_LIFETIME`].
//!
//! It runs on a thread of its own, since a commit waits for the disk. When a commit fails, nothing of it is acknowledged
//! and the state file is opened again; the table then takes over whichever whole state is on disk. Lookups go on
//! throughout. While the disk refuses, changes do, and it is tried again; so it is while the files are not where the next
//! start would look for them. A state file that turns out to be damaged ends the writer, and with it the daemon.

use crate::audit;
use crate::change::{Action, Change, Effect, Mail, Origin};
use crate::clock::Clock;
use crate::flag::{Kind, Timestamp};
use crate::keeper::Keeper;
use crate::name::{MessageId, Subject};
use crate::stats::Stats;
use crate::store::{OpenError, Store, StoreError};
use crate::table::Table;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time;
use tracing::{error, info, warn};

/// Changes that may wait for the writer; who comes then waits for a place.
const QUEUE: usize = 1024;

/// Changes in one transaction.
const GROUP: usize = 10_000;

/// How long a pass is kept. A message that was let through is gone or bounced long before.
const PASS_LIFETIME: u64 = 30 * 24 * 3600;

/// How long nobody must have wanted anything before the writer does what may be done later.
const QUIET: Duration = Duration::from_secs(1);

/// Longest sleep between looks at the clock, which may be set while the writer sleeps, and at the files, which may be moved.
const LONGEST_NAP: Duration = Duration::from_secs(10);

/// Changes on their way to the writer. The writer ends when all of these are dropped and what they sent is done.
#[derive(Clone, Debug)]
pub struct Handle {
    jobs: mpsc::Sender<Job>,
    trail: watch::Receiver<u64>,
    refusal: watch::Receiver<Option<String>>,
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

/// Changes, and where to say what became of them.
type Job = (Vec<Change>, oneshot::Sender<Result<Vec<Effect>, WriteError>>);

/// The writer's own.
#[derive(Debug)]
pub struct Writer {
    jobs: mpsc::Receiver<Job>,
    store: Arc<Store>,
    table: Arc<Table>,
    stats: Arc<Stats>,
    keeper: Keeper,
    clock: Clock,
    /// What will end, and when.
    ends: BTreeSet<(Timestamp, Ending)>,
    /// When each pass will.
    pass_ends: HashMap<String, Timestamp>,
    /// The newest entry of the audit trail of which the table shows what it records.
    trail: watch::Sender<u64>,
    /// Why changes are refused, while they are.
    refusal: watch::Sender<Option<String>>,
    /// The last commit failed and its outcome is not known yet.
    unsure: bool,
    /// Something may be durable in the journal only.
    unsettled: bool,
    /// What is wrong with the state file; then there is nothing more to do.
    damage: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Flag(Subject, Kind),
    Pass(String),
}

impl Handle {
    /// Makes `changes`, all or none, and waits until they are acknowledged. Says what each did.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: none was made.
    pub async fn submit(&self, changes: Vec<Change>) -> Result<Vec<Effect>, WriteError> {
        let (done, outcome) = oneshot::channel();
        self.jobs.send((changes, done)).await.map_err(|_| WriteError::Stopping)?;
        outcome.await.map_err(|_| WriteError::Stopping)?
    }

    /// The sequence number of the newest entry of the audit trail of which lookups see what it records, and word of each that
    /// comes. The writer's end closes it.
    #[must_use]
    pub fn trail(&self) -> watch::Receiver<u64> {
        self.trail.clone()
    }

    /// Why changes are refused, while they are.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.refusal.borrow().clone()
    }
}

impl Writer {
    /// Loads the table from the store.
    ///
    /// # Errors
    ///
    /// The state cannot be read.
    pub fn new(
        store: Arc<Store>,
        table: Arc<Table>,
        stats: Arc<Stats>,
        keeper: Keeper,
        clock: Clock,
    ) -> Result<(Handle, Writer), StoreError> {
        let (sender, jobs) = mpsc::channel(QUEUE);
        let (trail, last_entry) = watch::channel(0);
        let (refusal, refused) = watch::channel(None);
        let mut writer = Writer {
            jobs,
            store,
            table,
            stats,
            keeper,
            clock,
            ends: BTreeSet::new(),
            pass_ends: HashMap::new(),
            trail,
            refusal,
            unsure: false,
            unsettled: true,
            damage: None,
        };
        writer.load()?;
        Ok((Handle { jobs: sender, trail: last_entry, refusal: refused }, writer))
    }

    /// Works until every [`Handle`] is gone.
    ///
    /// # Errors
    ///
    /// What is wrong with the state file, if it turns out to be damaged. Nothing that was acknowledged waits then.
    pub async fn run(mut self) -> Result<(), String> {
        while self.damage.is_none() {
            let nap = time::sleep(self.nap());
            tokio::select! {
                job = self.jobs.recv() => match job {
                    Some(job) => self.work(job),
                    None => break,
                },
                () = nap => self.settle(),
            }
            self.end_what_has_reached_its_end();
        }
        if let Some(damage) = self.damage {
            return Err(damage);
        }
        if let Err(error) = self.store.close() {
            warn!("cannot write {}: {error}; what was acknowledged stands in its journal", self.store.path().display());
        }
        Ok(())
    }

    /// Nobody wants anything: time for what may be done later.
    fn settle(&mut self) {
        if self.unsure && self.recover().is_err() {
            return;
        }
        if self.unsettled {
            if let Err(error) = self.store.settle() {
                // What was acknowledged stands in the journal.
                self.failed(&error);
                return;
            }
            self.unsettled = false;
        }
        match self.store.in_place() {
            Ok(()) => self.accept(),
            Err(error) => drop(self.refuse(&error)),
        }
    }

    /// Does `first` and all that waits behind it, up to a bound.
    fn work(&mut self, first: Job) {
        let (mut changes, mut waiting) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some((mut wanted, done)) = next.take() {
            waiting.push((wanted.len(), done));
            changes.append(&mut wanted);
            if changes.len() < GROUP {
                next = self.jobs.try_recv().ok();
            }
        }
        let mut outcome = self.change(&changes);
        let mut changes = changes.as_slice();
        for (count, done) in waiting {
            let own_changes;
            (own_changes, changes) = changes.split_at(count);
            let own = outcome.as_mut().map(|effects| effects.drain(..count).collect::<Vec<_>>());
            let deeds = effective(own_changes, own.as_deref().unwrap_or_default());
            // Whoever asked may have hung up; what is done is done.
            let _ = done.send(own.map_err(|error| error.clone()));
            log(&deeds);
        }
    }

    /// Durable, then visible.
    fn change(&mut self, changes: &[Change]) -> Result<Vec<Effect>, WriteError> {
        if self.unsure {
            self.recover()?;
        }
        let now = self.clock.now();
        let effects = self.store.commit(changes, now).map_err(|error| self.failed(&error))?;
        if effects.iter().all(|effect| *effect == Effect::Unchanged) {
            return Ok(effects);
        }
        self.unsettled = true;
        self.accept();
        for (change, effect) in changes.iter().zip(&effects) {
            self.show(change, effect, now);
        }
        // Each has the next sequence number, from one commit to the next.
        let recorded =
            changes.iter().zip(&effects).filter(|(change, effect)| audit::is_recorded(change, effect)).count();
        if recorded > 0 {
            self.trail.send_modify(|last| *last += recorded as u64);
        }
        // Before the acknowledgement: whoever has that can wait for the fallback file.
        self.keeper.changed();
        Ok(effects)
    }

    /// Makes visible what one change did.
    fn show(&mut self, change: &Change, effect: &Effect, now: Timestamp) {
        match (&change.action, effect) {
            (_, Effect::Unchanged) => return,
            (Action::Pass { message }, _) => self.put_pass(message, now),
            (Action::ForgetPass { message } | Action::Drop { mail: Mail::Message(message), .. }, Effect::Removed) => {
                self.forget_pass(message);
            }
            // Lookups know no tokens.
            (
                Action::ForgetPass { .. }
                | Action::Drop { .. }
                | Action::CreateToken { .. }
                | Action::RevokeToken { .. },
                _,
            ) => {}
            (
                Action::Set { subject, kind, .. } | Action::Clear { subject, kind } | Action::Expire { subject, kind },
                effect,
            ) => {
                let flag = if let Effect::Put(flag) = effect { Some(flag) } else { None };
                if let Some(old) = self.table.put(subject, *kind, flag).until(*kind) {
                    self.ends.remove(&(old, Ending::Flag(subject.clone(), *kind)));
                }
                if let Some(until) = flag.and_then(|flag| flag.until) {
                    self.ends.insert((until, Ending::Flag(subject.clone(), *kind)));
                }
            }
        }
        self.stats.changes.fetch_add(1, Relaxed);
    }

    fn put_pass(&mut self, message: &MessageId<'_>, given: Timestamp) {
        self.table.put_pass(message, true);
        let end = Timestamp(given.0.saturating_add(PASS_LIFETIME));
        self.ends.insert((end, Ending::Pass(message.as_str().to_owned())));
        self.pass_ends.insert(message.as_str().to_owned(), end);
    }

    fn forget_pass(&mut self, message: &MessageId<'_>) {
        self.table.put_pass(message, false);
        // One that is given again must not end when this one would have.
        if let Some(end) = self.pass_ends.remove(message.as_str()) {
            self.ends.remove(&(end, Ending::Pass(message.as_str().to_owned())));
        }
    }

    fn end_what_has_reached_its_end(&mut self) {
        // The next change that is made, or the next quiet moment, shows whether the disk takes something again.
        if self.refusal.borrow().is_some() {
            return;
        }
        let now = self.clock.now();
        let due: Vec<_> = self.ends.iter().take_while(|(at, _)| *at <= now).take(GROUP).cloned().collect();
        let changes: Vec<Change> = due.iter().filter_map(|(_, ending)| ending.change()).collect();
        if due.is_empty() {
            return;
        }
        // A flag behind its end is out of force already; if it cannot be removed now, then at the next look.
        match self.change(&changes) {
            Ok(effects) => {
                log(&effective(&changes, &effects));
                self.ends.retain(|ending| due.binary_search(ending).is_err());
            }
            Err(error) => warn!("flags that have ended stay on disk for now: {error}"),
        }
    }

    /// How long to sleep when nobody wants anything.
    fn nap(&self) -> Duration {
        // A disk that refuses is not asked in a loop.
        if self.refusal.borrow().is_some() {
            return LONGEST_NAP;
        }
        let end = self.ends.first().map(|(at, _)| Duration::from_secs(at.0.saturating_sub(self.clock.now().0).max(1)));
        let settle = self.unsettled.then_some(QUIET);
        [end, settle].into_iter().flatten().fold(LONGEST_NAP, Duration::min)
    }

    /// A commit failed: nothing is acknowledged, and what is on disk is to be found out, if anything was tried.
    fn failed(&mut self, error: &StoreError) -> WriteError {
        let refusal = self.refuse(error);
        if matches!(error, StoreError::OutOfPlace(_)) {
            return refusal;
        }
        self.unsure = true;
        // If that fails too, it has said so, and the file stays closed for now.
        let _ = self.recover();
        refusal
    }

    /// Changes count as refused, for this reason, until the disk has taken something.
    fn refuse(&self, error: &dyn std::fmt::Display) -> WriteError {
        let refusal = self.storage_error(error);
        let why = refusal.to_string();
        if self.refusal.send_replace(Some(why.clone())).as_ref() != Some(&why) {
            error!("{why}");
        }
        refusal
    }

    /// The disk has taken something, and it stands where it belongs.
    fn accept(&self) {
        if self.refusal.send_replace(None).is_some() {
            info!("changes are taken again");
        }
    }

    /// Opens the state file again and takes over what is in it.
    fn recover(&mut self) -> Result<(), WriteError> {
        self.store.recover().map_err(|error| {
            if let OpenError::Unusable(damage) = &error {
                self.damage = Some(damage.clone());
            }
            self.refuse(&error)
        })?;
        self.load().map_err(|error| self.refuse(&error))?;
        (self.unsure, self.unsettled) = (false, true);
        self.keeper.changed();
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
        let mut pass_ends = HashMap::new();
        self.store.for_each_pass(|message, given| {
            fresh.put_pass(&message, true);
            let end = Timestamp(given.0.saturating_add(PASS_LIFETIME));
            ends.insert((end, Ending::Pass(message.as_str().to_owned())));
            pass_ends.insert(message.as_str().to_owned(), end);
        })?;
        let last_entry = self.store.last_entry()?;
        self.table.replace_flags(fresh);
        (self.ends, self.pass_ends) = (ends, pass_ends);
        self.trail.send_replace(last_entry);
        Ok(())
    }

    fn storage_error(&self, error: &dyn std::fmt::Display) -> WriteError {
        WriteError::Storage { path: self.store.path().display().to_string(), message: error.to_string() }
    }
}

/// The changes that changed something.
fn effective<'a>(changes: &'a [Change], effects: &[Effect]) -> Vec<&'a Change> {
    let pairs = changes.iter().zip(effects);
    pairs.filter(|(_, effect)| **effect != Effect::Unchanged).map(|(change, _)| change).collect()
}

/// Puts what one peer wanted at once on the operators' record: a single change in full, many as a count, whose parts are in
/// the audit trail.
fn log(deeds: &[&Change]) {
    let Some(Change { origin: Origin { by, uid, pid, on_behalf_of }, action }) = deeds.first() else { return };
    let on_behalf_of = on_behalf_of.as_deref().unwrap_or_default();
    if let [_] = deeds {
        let (deed, object) = action.describe();
        info!(target: "audit", deed, object, by, uid, pid, on_behalf_of, "{by}: {deed} {object}");
    } else {
        let changes = deeds.len();
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
            Action::Drop { mail, .. } => ("drop", mail.as_str()),
            Action::CreateToken { name, .. } => ("token create", name.as_str()),
            Action::RevokeToken { name } => ("token revoke", name.as_str()),
        }
    }
}
