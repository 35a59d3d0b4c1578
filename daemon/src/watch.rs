//! Watches the configuration and the lists that it names, and says when one may have changed.
//!
//! Watched are the directories that hold them, since editors and control panels replace files; what else happens there is
//! passed over. A burst of changes is one change, told when it has been quiet for [`QUIET`].
//!
//! Honest limits: where a name on the way is a symbolic link into another directory, a change there is not seen; SIGHUP is.
//! Whatever is opened in a watched directory wakes the watcher's thread for some microseconds, so a list in a directory of its
//! own is better than one in a busy `/etc`.

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time;
use tracing::{info, warn};

/// How long nothing must have happened before a change is told.
const QUIET: Duration = Duration::from_millis(200);

/// Watches, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    /// What is waited for; shared with the watcher's thread.
    sources: Arc<Mutex<HashSet<PathBuf>>>,
    directories: HashSet<PathBuf>,
    /// Those that cannot be watched, as was said already.
    unwatched: HashSet<PathBuf>,
    changes: mpsc::Receiver<()>,
}

impl Watch {
    /// Begins, with nothing to watch yet. Where the system gives no watch, the log says so and only SIGHUP reloads.
    #[must_use]
    pub fn new() -> Watch {
        let sources: Arc<Mutex<HashSet<PathBuf>>> = Arc::default();
        let (sender, changes) = mpsc::channel(1);
        let wanted = sources.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if event.is_ok_and(|event| concerns(&event, &wanted)) {
                // A full channel holds a change that was not told yet, which is the same.
                let _ = sender.try_send(());
            }
        });
        let watcher = watcher.map_err(|error| warn!("cannot watch files, so only SIGHUP reloads: {error}")).ok();
        Watch { watcher, sources, directories: HashSet::new(), unwatched: HashSet::new(), changes }
    }

    /// Watches these files and directories, and no others any more. To be called again when something has happened: a
    /// directory that was replaced is another one under the old name.
    pub fn follow<'a>(&mut self, sources: impl Iterator<Item = &'a Path>) {
        let sources: HashSet<PathBuf> = sources.map(Path::to_path_buf).collect();
        let parents = sources.iter().filter_map(|path| path.parent()).map(Path::to_path_buf);
        let directories: HashSet<PathBuf> =
            parents.chain(sources.iter().filter(|path| path.is_dir()).cloned()).collect();
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = sources;
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.directories.difference(&directories) {
            let _ = watcher.unwatch(gone);
        }
        let mut unwatched = HashSet::new();
        for directory in &directories {
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                if !self.unwatched.contains(directory) {
                    info!("cannot watch {}: {error}", directory.display());
                }
                unwatched.insert(directory.clone());
            }
        }
        self.directories = directories;
        self.unwatched = unwatched;
    }

    /// Returns when something that is watched has changed and quiet has come back.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            // There is no watcher; the caller waits for something else.
            return std::future::pending().await;
        }
        while time::timeout(QUIET, self.changes.recv()).await.is_ok_and(|change| change.is_some()) {}
    }
}

/// Whether an event may mean that one of `sources`, or what is in one, is another now.
fn concerns(event: &Event, sources: &HashSet<PathBuf>) -> bool {
    let changes = match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    };
    changes
        && event
            .paths
            .iter()
            .any(|path| sources.contains(path) || path.parent().is_some_and(|parent| sources.contains(parent)))
}

impl Default for Watch {
    fn default() -> Watch {
        Watch::new()
    }
}
