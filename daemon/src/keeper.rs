//! The thread that keeps the fallback file current.
//!
//! Whoever changes what the file depends on, flags or owners, calls [`Keeper::changed`] and goes on; the file follows at
//! once, as fast as it can be written and synced: within a millisecond or so for a thousand flags, a second for a million.
//! Then the thread rests thirty times as long, unless somebody waits, so that a row of changes costs a thirtieth of a core
//! and of the disk however long the file is. What cannot be written is said once and tried again.
//!
//! So a change is acknowledged when it is durable and visible, and whoever wants the fallback file to show it too waits for
//! that ([`Keeper::settled`]), as `outgoingctl` does, and cuts the rest short.

use crate::clock::Clock;
use crate::fallback::{Fallback, FallbackError};
use crate::stats::Stats;
use crate::table::Table;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time;
use tracing::{info, warn};

/// Rest behind a write, in times that it took.
const REST: u32 = 30;

/// Rest behind a write that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Longest wait for the file to show what has changed.
const PATIENCE: Duration = Duration::from_secs(2);

/// The way to the thread. Until [`Keeper::start`] there is none, and nothing is kept.
#[derive(Clone, Debug, Default)]
pub struct Keeper(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    wanted: Mutex<Wanted>,
    wake: Condvar,
    written: watch::Sender<Written>,
}

#[derive(Debug, Default)]
struct Wanted {
    /// How often something has changed.
    changes: u64,
    /// There is a thread.
    kept: bool,
    /// Somebody waits for the file to show the changes up to this one, and cuts the rest short.
    awaited: u64,
    /// The daemon stops.
    stop: bool,
}

/// How the last write went.
#[derive(Debug, Default)]
struct Written {
    /// The changes that it was for.
    changes: u64,
    /// Why it failed.
    failure: Option<String>,
}

impl Keeper {
    /// Writes the file and keeps it current, on a thread, until [`Keeper::stop`]. Where there is none at all, returns when it
    /// is written. A file that cannot be written is logged: lookups are better than none.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub fn start(
        &self,
        fallback: Fallback,
        table: Arc<Table>,
        stats: Arc<Stats>,
        clock: Clock,
    ) -> io::Result<JoinHandle<()>> {
        let changes = {
            let mut wanted = self.wanted();
            wanted.kept = true;
            // Whatever the file shows, this process has not written it.
            wanted.changes += 1;
            wanted.changes
        };
        let is_there = fallback.is_there();
        let write = move || fallback.replace(&table, clock.now());
        if !is_there {
            self.take_note(&stats, changes, &write());
        }
        let own = self.clone();
        let keep = move || own.keep(&stats, write);
        thread::Builder::new().name("keeper".to_owned()).spawn(keep)
    }

    /// There will be no file, for this reason, of which whoever waits for it is told.
    pub fn give_up(&self, why: String) {
        self.wanted().kept = true;
        self.0.written.send_replace(Written { changes: u64::MAX, failure: Some(why) });
    }

    /// Has the file written again.
    pub fn changed(&self) {
        self.wanted().changes += 1;
        self.0.wake.notify_one();
    }

    /// Waits until the file shows all that has changed so far, or could not be written since; two seconds at most, which
    /// only a file of a million lines or a slow disk takes. Says why it does not show it.
    pub async fn settled(&self) -> Option<String> {
        let changes = {
            let mut wanted = self.wanted();
            if !wanted.kept {
                return None;
            }
            wanted.awaited = wanted.changes;
            wanted.changes
        };
        self.0.wake.notify_one();
        let mut written = self.0.written.subscribe();
        let outcome = time::timeout(PATIENCE, written.wait_for(|written| written.changes >= changes)).await;
        match outcome {
            Ok(Ok(written)) => written.failure.clone(),
            _ => Some("the fallback file does not show this yet; it follows".to_owned()),
        }
    }

    /// Why the file does not show what it should, if the last write failed or there is to be no file.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.0.written.borrow().failure.clone()
    }

    /// Ends the thread, behind one more write if the file is not current.
    pub fn stop(&self) {
        self.wanted().stop = true;
        self.0.wake.notify_one();
    }

    fn keep(&self, stats: &Stats, write: impl Fn() -> Result<(), FallbackError>) {
        loop {
            let current = {
                let written = self.0.written.borrow();
                written.failure.is_none().then_some(written.changes)
            };
            let idle = |wanted: &mut Wanted| current == Some(wanted.changes) && !wanted.stop;
            let wanted = self.0.wake.wait_while(self.wanted(), idle).unwrap_or_else(PoisonError::into_inner);
            let (changes, stop) = (wanted.changes, wanted.stop);
            drop(wanted);
            if current != Some(changes) {
                let begun = Instant::now();
                let written = write();
                let rest = if written.is_ok() { begun.elapsed() * REST } else { RETRY };
                self.take_note(stats, changes, &written);
                let rests = |wanted: &mut Wanted| !wanted.stop && (written.is_err() || wanted.awaited <= changes);
                drop(self.0.wake.wait_timeout_while(self.wanted(), rest, rests));
            }
            if stop {
                return;
            }
        }
    }

    /// Makes known how a write went that was for so many changes; what keeps the file from being current is said when that
    /// begins and when it ends.
    fn take_note(&self, stats: &Stats, changes: u64, written: &Result<(), FallbackError>) {
        let counter = if written.is_ok() { &stats.fallback_writes } else { &stats.fallback_failures };
        counter.fetch_add(1, Relaxed);
        stats.fallback_stale.store(written.is_err(), Relaxed);
        let error = written.as_ref().err();
        let failure = error.map(|error| format!("{error}; while outgoingd is down Exim would go by an older state"));
        let before = self.0.written.send_replace(Written { changes, failure: failure.clone() });
        match (&before.failure, &failure) {
            (None, Some(failure)) => warn!("{failure}"),
            (Some(_), None) => info!("the fallback file is current again"),
            _ => {}
        }
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        // A panic anywhere ends the daemon, so a poisoned lock guards sound data.
        self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
