//! Following the audit trail: what is new in it, page by page, for one peer who watches.
//!
//! Nothing is queued for a peer. The writer says how far the trail goes, each follower remembers how far it has come and
//! reads what is between from the store; so a slow one takes no memory and misses nothing but entries that were given up by
//! age before it came to them. It is told of an entry when lookups see what that records, not before.

use crate::held;
use crate::requests::{Requests, size_of_entry, stopping, unreadable};
use crate::stop::Stop;
use crate::store::{Store, StoreError};
use crate::wire;
use outgoingd_client::protocol::message::{LogEntry, Refusal};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{self, Instant};

/// How long a watcher hears nothing when nothing happens: half of what the protocol promises.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Pause behind a page with which a follower has caught up. Whatever comes meanwhile is one page, so that many watchers and
/// many changes at once do not keep the disk and a core busy.
const REST: Duration = Duration::from_millis(20);

/// A page ends when it has about this many bytes: little enough for a slow peer to take in time.
const PAGE: usize = 64 << 10;

/// And when so many entries were looked at, whether they are wanted or not.
const LOOKED_AT: usize = 10_000;

/// One peer's way along the audit trail.
#[derive(Debug)]
pub struct Follower {
    requests: Requests,
    stop: Stop,
    /// How far the trail goes.
    trail: watch::Receiver<u64>,
    /// Only entries about this.
    about: Option<String>,
    /// The entry up to which all were looked at.
    position: u64,
    /// The end of the pause.
    rest: Instant,
    /// When there was something to tell, or to say that there is nothing.
    told: Option<Instant>,
}

impl Follower {
    /// Starts behind sequence number `after`, or now.
    ///
    /// # Errors
    ///
    /// `about` is no subject and no message id, or the state cannot be read.
    pub async fn new(requests: &Requests, about: Option<&str>, after: Option<u64>) -> Result<Follower, Refusal> {
        let about = about.map(held::mail).transpose()?.map(|mail| mail.as_str().to_owned());
        let trail = requests.writer.trail();
        let newest = *trail.borrow();
        let position = match after {
            // Of a moment ago, and not shown yet; or of another state, such as one before a backup was put back.
            Some(after) if after > newest => {
                let last = |this: &Requests| this.store.last_entry().map_err(|error| unreadable(&error));
                after.min(requests.blocking(last).await?.max(newest))
            }
            Some(after) => after,
            None => newest,
        };
        let (requests, stop) = (requests.clone(), requests.stop.clone());
        Ok(Follower { requests, stop, trail, about, position, rest: Instant::now(), told: None })
    }

    /// What comes next, oldest first, or nothing: at the first call, and when nothing has happened for some seconds.
    ///
    /// # Errors
    ///
    /// The daemon stops, or the state cannot be read. There is no more behind that.
    pub async fn next(&mut self) -> Result<Vec<LogEntry>, Refusal> {
        while !self.stop.is_said() {
            let behind = self.position < *self.trail.borrow_and_update();
            let entries = if behind { self.page().await? } else { Vec::new() };
            let heard_of = self.told.is_some_and(|told| told.elapsed() < HEARTBEAT);
            if !entries.is_empty() || !heard_of {
                self.told = Some(Instant::now());
                return Ok(entries);
            }
            if behind {
                continue;
            }
            let told = self.told.unwrap_or_else(Instant::now);
            tokio::select! {
                changed = self.trail.changed() => if changed.is_err() { break },
                () = time::sleep_until(told + HEARTBEAT) => {}
                () = self.stop.stopped() => {}
            }
        }
        Err(stopping())
    }

    /// The next page, and a step on.
    async fn page(&mut self) -> Result<Vec<LogEntry>, Refusal> {
        time::sleep_until(self.rest).await;
        let (newest, after, about) = (*self.trail.borrow_and_update(), self.position, self.about.clone());
        let page = move |this: &Requests| {
            let page = events(&this.store, about.as_deref(), after, newest, || this.goes_on());
            page.map_err(|error| unreadable(&error))
        };
        let (entries, position) = self.requests.blocking(page).await?;
        self.position = position;
        if position >= newest {
            self.rest = Instant::now() + REST;
        }
        Ok(entries)
    }
}

/// One page of the entries behind `after` and up to `newest`, and the one up to which all were looked at.
fn events(
    store: &Store,
    about: Option<&str>,
    after: u64,
    newest: u64,
    goes_on: impl Fn() -> bool,
) -> Result<(Vec<LogEntry>, u64), StoreError> {
    let (mut entries, mut size, mut looked_at, mut position) = (Vec::new(), 0, 0, newest);
    store.log_after(after, |sequence, entry| {
        if sequence > newest {
            return false;
        }
        if size >= PAGE || looked_at >= LOOKED_AT || !goes_on() {
            position = sequence - 1;
            return false;
        }
        looked_at += 1;
        if about.is_none_or(|about| about == entry.subject) {
            let entry = wire::entry(sequence, entry);
            size += size_of_entry(&entry);
            entries.push(entry);
        }
        true
    })?;
    Ok((entries, position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Action, Change, Origin};
    use crate::flag::Timestamp;
    use crate::name::MessageId;

    /// The sequence numbers of a page, and the position behind it.
    fn page(store: &Store, about: Option<&str>, after: u64, newest: u64) -> (Vec<u64>, u64) {
        let (entries, position) = events(store, about, after, newest, || true).unwrap();
        (entries.iter().map(|entry| entry.sequence).collect(), position)
    }

    #[test]
    fn nothing_is_told_that_lookups_do_not_see_yet_and_nothing_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), 100_000).unwrap();
        let pass = |number| {
            let message = MessageId::new(&format!("1rABCD-{number:06}-XY")).unwrap().into_owned();
            Change { origin: Origin::daemon(), action: Action::Pass { message } }
        };
        store.commit(&(1..=20_000).map(pass).collect::<Vec<_>>(), Timestamp(1)).unwrap();
        assert_eq!(page(&store, None, 3, 7), (vec![4, 5, 6, 7], 7));
        assert_eq!(page(&store, None, 7, 7), (vec![], 7));
        assert_eq!(page(&store, Some("1rABCD-000005-XY"), 0, 4), (vec![], 4));
        assert_eq!(page(&store, Some("1rABCD-000005-XY"), 4, 9), (vec![5], 9));
        // Where a page ends for its size, or since it has taken long enough, the next one goes on.
        let (first, position) = page(&store, None, 0, 20_000);
        assert_eq!(first, (1..=position).collect::<Vec<_>>());
        assert!(position < 10_000);
        assert_eq!(page(&store, None, position, 20_000).0[0], position + 1);
        assert_eq!(page(&store, Some("1rABCD-019999-XY"), 0, 20_000), (vec![], 10_000));
        assert_eq!(page(&store, Some("1rABCD-019999-XY"), 10_000, 20_000), (vec![19_999], 20_000));
        // A stop is no way to pass something over either.
        assert_eq!(events(&store, None, 3, 7, || false).unwrap().1, 3);
    }
}
