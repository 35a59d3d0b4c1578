//! Start, reload and stop of the service.

use crate::calls::{ALL_AT_ONCE, Calls};
use crate::config::{Config, ConfigError};
use crate::connections::Connections;
use crate::http;
use crate::listen::{self, ListenError};
use crate::tls::{Tls, TlsError};
use outgoingd_service::logging::Level;
use outgoingd_service::{Signals, manager};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime;
use tokio::sync::watch;
use tokio::{net, time};
use tracing::{info, warn};

/// Longest wait for the calls that are at work when the service is to stop.
const LAST_CALLS: Duration = Duration::from_secs(10);

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Certificate or key are wrong.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// There are no sockets.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// Tokens would cross a network as they are.
    #[error(
        "{0} can be reached over the network and there is no certificate: tokens would cross it in the clear. Set \
         certificate, or listen on 127.0.0.1 or [::1] only"
    )]
    InTheClear(SocketAddr),
    /// The system gives no threads, signals or events.
    #[error("the system does not give what outgoing-whmapi needs: {0}")]
    System(#[from] io::Error),
}

/// What a reload reads and changes.
struct Reloader {
    path: Option<PathBuf>,
    started_with: Config,
    tls: Option<Tls>,
    level: Level,
}

/// Starts, serves until a signal says stop, finishes the calls that are at work.
pub(crate) fn run(path: Option<PathBuf>, config: Config, level: Level) -> Result<(), StartError> {
    let tls = config.tls_files().map(Tls::load).transpose()?;
    let listeners = listen::obtain(&config)?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
    if tls.is_none()
        && let Some(open) = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback())
    {
        return Err(StartError::InTheClear(*open));
    }
    let status = status(tls.as_ref(), &addresses);
    let (stopper, stop) = watch::channel(false);
    let router = http::router(Calls::new(config.socket.clone(), config.queue_socket.clone()), &config.limits);
    let connections = Arc::new(Connections::new(router, tls.clone(), &config.limits, stop));
    let mut reloader = Reloader { path, started_with: config, tls, level };
    // One thread serves all connections; calls, which block, have theirs.
    let runtime = runtime::Builder::new_current_thread().enable_all().max_blocking_threads(ALL_AT_ONCE).build()?;
    let outcome = runtime.block_on(async {
        // Before READY: a signal that comes right behind it must find its handler.
        let signals = Signals::new()?;
        let listeners = listeners.into_iter().map(in_runtime).collect::<io::Result<Vec<_>>>()?;
        let accepting = tokio::spawn(connections.clone().accept(listeners));
        info!("outgoing-whmapi {} is ready: {status}", env!("CARGO_PKG_VERSION"));
        manager::ready(&status);
        let watchdog = tokio::spawn(keep_watchdog_quiet());
        attend(&mut reloader, signals, &status).await;
        watchdog.abort();
        manager::stopping();
        info!("stopping: finishing the calls that are at work");
        accepting.abort();
        // The sockets are closed when it has ended.
        let _ = accepting.await;
        // Whoever would hear it has ended otherwise.
        let _ = stopper.send(true);
        if time::timeout(LAST_CALLS, connections.ended()).await.is_err() {
            warn!("some calls did not end within {} s", LAST_CALLS.as_secs());
        }
        Ok(())
    });
    // What helper threads still wait for is nobody's any more.
    runtime.shutdown_background();
    info!("outgoing-whmapi has stopped");
    outcome
}

fn in_runtime(listener: TcpListener) -> io::Result<net::TcpListener> {
    listener.set_nonblocking(true)?;
    net::TcpListener::from_std(listener)
}

/// Keeps the watchdog quiet for as long as this thread, on which all connections are served, goes on; if the service manager
/// wants that.
async fn keep_watchdog_quiet() {
    let Some(third) = manager::third_of_watchdog() else { return };
    let mut thirds = time::interval(third);
    loop {
        thirds.tick().await;
        manager::quiet_watchdog();
    }
}

/// Waits for signals until one says stop.
async fn attend(reloader: &mut Reloader, mut signals: Signals, status: &str) {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hang_up.recv() => {
                manager::reloading();
                let wrong = reloader.reload();
                for what in &wrong {
                    warn!("{what}");
                }
                manager::ready(&one_line(status, &wrong));
            }
        }
    }
}

impl Reloader {
    /// Brings into force what can be. Says what is wrong, in which case what was in force stays.
    fn reload(&mut self) -> Vec<String> {
        let config = match Config::load(self.path.as_deref()) {
            Ok(config) => config,
            Err(error) => return vec![error.to_string()],
        };
        self.level.set(config.log_level);
        let mut wrong = Vec::new();
        if let (Some(tls), Some(files)) = (&self.tls, config.tls_files()) {
            match tls.reload(files) {
                Ok(()) => info!("certificate and key are read"),
                Err(error) => wrong.push(format!("{error}; those that were read before stay in force")),
            }
        }
        let waiting = self.started_with.needs_restart(&config);
        if !waiting.is_empty() {
            wrong.push(format!("these take effect at a restart: {}", waiting.join(", ")));
        }
        wrong
    }
}

/// What a person wants to see in `systemctl status`.
fn status(tls: Option<&Tls>, addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    format!("{} on {}", if tls.is_some() { "HTTPS" } else { "HTTP" }, addresses.join(", "))
}

/// A status is one line.
fn one_line(status: &str, wrong: &[String]) -> String {
    wrong.iter().fold(status.to_owned(), |line, what| format!("{line}; {}", what.replace('\n', " ").trim()))
}
