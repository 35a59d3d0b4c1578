//! Start and stop: what is made in which order, and taken down in which.
//!
//! The main thread does the *administration*: sessions, slow peers, signals, watching, status. Some threads answer *lookups*, one
//! is the *writer*, one keeps the fallback file. None waits for another's work.

use crate::authorise::Rules;
use crate::clock::Clock;
use crate::config::{self, Config, ConfigError};
use crate::connections::Connections;
use crate::directory::{self, DirectoryError};
use crate::fallback::Fallback;
use crate::keeper::Keeper;
use crate::lock::{self, LockError};
use crate::lookup::{self, Answers, Lookups, THREADS};
use crate::reload::{Overrides, Reloader, unknown_names};
use crate::requests::{Policy, Requests};
use crate::safe;
use crate::session;
use crate::socket::{self, Socket, SocketError};
use crate::stats::Stats;
use crate::stop;
use crate::store::{self, OpenError, STATE_FILE, Store, StoreError};
use crate::table::Table;
use crate::watch::Watch;
use crate::watchdog;
use crate::writer::Writer;
use outgoingd_service::logging::Level;
use outgoingd_service::{Signals, manager};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::{self, Runtime};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time;
use tracing::{info, warn};

/// How often the status line is brought up to date.
const STATUS_PERIOD: Duration = Duration::from_secs(10);

/// How long a stop waits for visits under way. The service's `TimeoutStopSec=` is longer.
const LAST_VISITS: Duration = Duration::from_secs(12);

/// How long a stop waits for the lookups under way, of which each is over in microseconds.
const LAST_LOOKUPS: Duration = Duration::from_secs(2);

/// Descriptors that are not waiting connections: state file and journal, event queues, logging, what NSS opens, lookups under
/// way.
const OTHER_DESCRIPTORS: usize = 64;

/// Threads for what waits for the disk or NSS. Few, since each may keep a core busy that lookups need.
const HELPERS: usize = 4;

/// Why the daemon did not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A list that the configuration names is wrong.
    #[error("{0}; mend it, or change the configuration")]
    Directory(#[from] DirectoryError),
    /// Another daemon has the state directory.
    #[error("{0}: another outgoingd runs on this state directory; stop it first (systemctl stop outgoingd)")]
    Running(String),
    /// Another daemon writes the fallback file.
    #[error("{0}: another outgoingd writes this fallback file; stop it first, or choose another fallback-file")]
    FallbackHeld(String),
    /// The state directory cannot be used.
    #[error("cannot use the state directory {}: {source}", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else could put a fallback file there.
    #[error("cannot keep the fallback file {}: {source}", path.display())]
    FallbackDir {
        /// The file.
        path: PathBuf,
        /// Who.
        source: io::Error,
    },
    /// The state file makes no sense.
    #[error(
        "the state file {} cannot be used: {message}. It was left as it is, and outgoingd does not start empty in its \
         place; Exim goes by the fallback file meanwhile. Put back a copy from a backup; or stop Exim first, its \
         queue runs too, then move the file away, start outgoingd, give it what you know, and start Exim: the last \
         fallback file is kept beside the new one, as .before, and `outgoingctl import` takes that, an export, and \
         cPanel's lists", path.display()
    )]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The state file cannot be opened or made.
    #[error("cannot open the state file {}: {message}", path.display())]
    OpenState {
        /// The file.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// There is no socket.
    #[error("{0}")]
    Socket(#[from] SocketError),
    /// The system gives no threads, signals or events.
    #[error("the system does not give what outgoingd needs: {0}")]
    System(#[from] io::Error),
}

/// Starts, serves until a signal says stop, finishes what was accepted.
///
/// # Errors
///
/// [`StartError`].
pub fn run(overrides: Overrides, config: &Config, level: Level) -> Result<(), StartError> {
    let mut watch = Watch::new();
    watch.follow(sources(&overrides, config));
    // Read again now that a change would be seen: what follows goes by this, and whatever comes later is told by the watch.
    let config = &overrides.load()?;
    watch.follow(sources(&overrides, config));
    let clock = Clock::system();
    let stats = Arc::new(Stats::default());
    let table = Arc::new(Table::default());
    let policy = Arc::new(RwLock::new(Arc::new(Policy::load(config)?)));
    if let Some(owners) = &config.domains.owners {
        table.replace_owners(directory::load_owners(owners, &table.owners())?);
    }
    warn_of_unknown_names(config);
    let (state_dir, _state_lock) = lock_state(&config.state_dir)?;
    let store = Arc::new(open_store(config, &state_dir)?);
    // The socket first: until it is ours, another daemon may live here, whose fallback file is not ours to write.
    let Socket { listener, path: socket, own } = socket::obtain(config)?;
    // systemd's is not blocking; nobody but this process accepts on it.
    listener.set_nonblocking(false)?;
    let keeper = Keeper::default();
    let fallback = fallback_of(config, &keeper, &stats)?;
    let known = fallback.as_ref().map(|fallback| keep_what_was_known(&store, fallback)).transpose();
    let lost = known.map_err(|error| unusable(&store, &error))?.flatten();
    let (writer_handle, writer) =
        Writer::new(store.clone(), table.clone(), stats.clone(), keeper.clone(), clock.clone())
            .map_err(|error| unusable(&store, &error))?;
    let connections = Connections::new(places(config), config.limits.max_connections_per_uid);

    // From here on a panic is a defect that must not leave half a daemon: systemd starts a whole one.
    abort_on_panic();
    let (stopper, stop) = stop::pair();
    let (visitors, arrivals) = mpsc::unbounded_channel();
    let answers = Answers { table: table.clone(), stats: stats.clone(), clock: clock.clone() };
    let lookups = Lookups { answers: answers.clone(), connections, visitors };
    let keep = |fallback| keeper.start(fallback, table.clone(), stats.clone(), clock.clone());
    let keeper_thread = fallback.map(keep).transpose()?;
    let (writer_thread, mut damage) = start_writer(writer)?;
    let listener = Arc::new(listener);
    let lookup_threads = (0..THREADS)
        .map(|_| {
            let (lookups, listener, stop) = (lookups.clone(), listener.clone(), stop.clone());
            spawn("lookup", move || lookups.serve(&listener, &stop))
        })
        .collect::<io::Result<Vec<_>>>()?;

    let started = clock.now();
    let requests = Requests {
        store,
        table: table.clone(),
        writer: writer_handle,
        keeper: keeper.clone(),
        stats,
        clock,
        started,
        stop: stop.clone(),
        policy: policy.clone(),
        lost: Arc::new(Mutex::new(lost)),
        fallback: Some(config.fallback_file.clone()).filter(|path| !path.as_os_str().is_empty()),
        identifying: Arc::new(Semaphore::new(HELPERS / 2)),
    };
    let mut reloader = Reloader {
        overrides,
        started_with: config.clone(),
        config: config.clone(),
        policy,
        table,
        keeper: keeper.clone(),
        level,
    };
    let runtime = one_thread()?;
    let outcome = runtime.block_on(async {
        // Before READY: a signal that comes right behind it must find its handler.
        let signals = Signals::new()?;
        let visits = session::serve(requests.clone(), answers, arrivals, config.limits.request_deadline(), stop);
        let visits = tokio::spawn(visits);
        info!(socket = %socket.display(), state = %config.state_dir.display(), "outgoingd {} is ready", env!("CARGO_PKG_VERSION"));
        manager::ready(&status_line(&requests));
        let watchdog = tokio::spawn(watchdog::keep_quiet(socket.clone()));
        let outcome = tokio::select! {
            () = attend(&requests, &mut reloader, signals, watch) => Ok(()),
            Ok(message) = &mut damage => Err(StartError::State { path: requests.store.path().to_path_buf(), message }),
        };
        watchdog.abort();
        manager::stopping();
        info!("stopping: finishing what was accepted");
        stopper.stop();
        let visits_end = time::Instant::now() + LAST_VISITS;
        let lookups_ended = stop_lookups(&lookup_threads, &socket);
        // A socket of our own goes with us, and so whoever waits in its queue is answered. systemd's stays, with its queue,
        // for the next daemon.
        if let Some(own) = own {
            drop(own);
            if lookups_ended {
                lookups.drain(&listener);
            }
        }
        // The last who could send visitors; the visits end with their channel.
        drop((lookups, listener));
        if time::timeout_at(visits_end, visits).await.is_err() {
            warn!("some visits did not end within {} s", LAST_VISITS.as_secs());
        }
        outcome
    });
    // The last who could send changes. What helper threads still wait for is nobody's any more.
    drop((requests, reloader));
    runtime.shutdown_background();
    join(writer_thread);
    keeper.stop();
    keeper_thread.into_iter().for_each(join);
    info!("outgoingd has stopped");
    outcome
}

/// Starts the writer's thread; what is received is what it found wrong with the state file, if that ends it.
fn start_writer(writer: Writer) -> io::Result<(thread::JoinHandle<()>, oneshot::Receiver<String>)> {
    let (runtime, (found, damage)) = (one_thread()?, oneshot::channel());
    let thread = spawn("writer", move || {
        if let Err(message) = runtime.block_on(writer.run()) {
            // Whoever listens no more is stopping.
            let _ = found.send(message);
        }
    })?;
    Ok((thread, damage))
}

/// Ends the lookup threads, each behind one more connection: that of somebody else, or one of ours. Whether they have ended;
/// otherwise they do with the process.
fn stop_lookups(threads: &[thread::JoinHandle<()>], socket: &Path) -> bool {
    let woken: rustix::io::Result<()> = threads.iter().try_for_each(|_| lookup::wake(socket));
    if let Err(error) = woken {
        warn!("cannot wake the lookup threads through {}: {error}; they end with the process", socket.display());
        return false;
    }
    let begun = Instant::now();
    while threads.iter().any(|thread| !thread.is_finished()) {
        if begun.elapsed() > LAST_LOOKUPS {
            warn!("some lookup threads do not end; they end with the process");
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Waits for signals and changed files, and keeps the status line, until a signal says stop.
async fn attend(requests: &Requests, reloader: &mut Reloader, mut signals: Signals, mut watch: Watch) {
    let mut status_ticks = time::interval(STATUS_PERIOD);
    let mut last_status = String::new();
    loop {
        watch.follow(sources(&reloader.overrides, &reloader.config));
        tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hang_up.recv() => {
                manager::reloading();
                reloader.reload().await;
                manager::ready(&status_line(requests));
            }
            () = watch.changed() => {
                // A directory may be another one now, and is to be watched before it is read.
                watch.follow(sources(&reloader.overrides, &reloader.config));
                reloader.reload().await;
            }
            _ = status_ticks.tick() => {}
        }
        let status = status_line(requests);
        if status != last_status {
            manager::status(&status);
            last_status = status;
        }
    }
}

/// The files and directories that a reload reads.
fn sources<'a>(overrides: &'a Overrides, config: &'a Config) -> impl Iterator<Item = &'a Path> {
    let configuration = overrides.config.as_deref().unwrap_or(Path::new(config::DEFAULT_PATH));
    iter::once(configuration).chain(config.sources())
}

/// What a person wants to see in `systemctl status`.
fn status_line(requests: &Requests) -> String {
    let (held, suspended, _) = requests.table.count(requests.clock.now());
    let stale = if requests.stats.fallback_stale.load(Relaxed) { "; the fallback file cannot be written" } else { "" };
    let line = format!("{held} held, {suspended} suspended; {} lookups{stale}", requests.stats.lookups());
    let refused = requests.writer.refusal().map(|why| format!("changes are refused: {why}"));
    // A status is one line.
    let policy = requests.policy();
    refused.iter().chain(&policy.wrong).fold(line, |line, what| format!("{line}; {}", what.replace('\n', " ").trim()))
}

fn lock_state(directory: &Path) -> Result<(PathBuf, lock::Lock), StartError> {
    let state_dir = |source| StartError::StateDir { path: directory.to_path_buf(), source };
    let directory = safe::directory(directory, 0o700).map_err(state_dir)?;
    safe::keep_private(&directory).map_err(state_dir)?;
    let lock = lock::take(&directory.join("lock")).map_err(|error| match error {
        LockError::Held(_) => StartError::Running(error.to_string()),
        LockError::Io(_, source) => state_dir(source),
    })?;
    Ok((directory, lock))
}

fn open_store(config: &Config, directory: &Path) -> Result<Store, StartError> {
    Store::open(directory, config.limits.audit_entries).map_err(|error| {
        let path = directory.join(STATE_FILE);
        match error {
            OpenError::Unusable(message) => StartError::State { path, message },
            error => StartError::OpenState { path, message: error.to_string() },
        }
    })
}

fn unusable(store: &Store, error: &StoreError) -> StartError {
    StartError::State { path: store.path().to_path_buf(), message: error.to_string() }
}

fn fallback_of(config: &Config, keeper: &Keeper, stats: &Stats) -> Result<Option<Fallback>, StartError> {
    let path = &config.fallback_file;
    if path.as_os_str().is_empty() {
        warn!("fallback-file is empty: while outgoingd is down nothing is held or suspended");
        return Ok(None);
    }
    match Fallback::new(path, config.fallback_mode.0) {
        Ok(fallback) => Ok(Some(fallback)),
        Err(error @ LockError::Held(_)) => Err(StartError::FallbackHeld(error.to_string())),
        Err(LockError::Io(path, source)) if source.raw_os_error().is_none() => {
            Err(StartError::FallbackDir { path: path.into(), source })
        }
        // Lookups are better than none.
        Err(error) => {
            let why = format!("{error}; while outgoingd is down Exim goes by an older fallback file, or by none");
            warn!("{why}");
            stats.fallback_stale.store(true, Relaxed);
            keeper.give_up(why);
            Ok(None)
        }
    }
}

/// Whether nothing has ever been done. By what is in it: the file may be there since a start that failed.
fn is_new(store: &Store) -> Result<bool, StoreError> {
    let mut deeds = false;
    store.log_before(None, |_, _| {
        deeds = true;
        false
    })?;
    Ok(!deeds && store.count_flags()? == 0)
}

/// A new state knows nobody. If the fallback file does, the state was lost or moved away, and that file is all that is left. Says
/// what was lost.
fn keep_what_was_known(store: &Store, fallback: &Fallback) -> Result<Option<String>, StoreError> {
    if !is_new(store)? {
        return Ok(None);
    }
    let lost = match fallback.set_aside() {
        Ok(Some(kept)) => format!(
            "the state is new, but the fallback file names who was stopped; they are free now. Stop Exim first, its queue \
             runs too; `outgoingctl import {}` stops them again; then start Exim",
            kept.display()
        ),
        Ok(None) => return Ok(None),
        Err(error) => error.to_string(),
    };
    warn!("{lost}");
    Ok(Some(lost))
}

fn warn_of_unknown_names(config: &Config) {
    match Rules::resolve(&config.access) {
        Ok((_, unknown)) => unknown_names(&unknown).into_iter().for_each(|what| warn!("{what}")),
        Err(error) => warn!("cannot ask the user database for the names in [access]: {error}"),
    }
}

/// How many connections may wait: what the configuration says, or less where the process may not have so many descriptors.
fn places(config: &Config) -> usize {
    let wanted = config.limits.max_connections;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Nothing here uses select(2), for whose sake the soft limit is low.
    let granted = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map_or(current, |()| maximum);
    let most = granted
        .and_then(|limit| usize::try_from(limit).ok())
        .map_or(wanted, |limit| limit.saturating_sub(OTHER_DESCRIPTORS));
    if most < wanted {
        warn!("limits.max-connections = {wanted} is more than LimitNOFILE= allows: {most} are in force");
    }
    wanted.min(most)
}

fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !store::is_rehearsing() {
            report(info);
            std::process::abort();
        }
    }));
}

fn one_thread() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().max_blocking_threads(HELPERS).build()
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

fn join(thread: thread::JoinHandle<()>) {
    // A thread that panicked has taken the process with it.
    let _ = thread.join();
}
