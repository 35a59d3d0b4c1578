//! Where log lines go: to the journal when standard error is the journal, else to standard error.
//!
//! Calls are told at `info`. What a stranger can trigger is at `debug`, but for failed authentications, which are at
//! `warn` and so many a minute at most.

use crate::config::LogLevel;
use std::io;
use std::os::unix::fs::MetadataExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

/// Changes what is logged while the service runs.
#[derive(Clone, Debug)]
pub(crate) struct Level(reload::Handle<LevelFilter, Registry>);

/// Begins to log. To be called once.
pub(crate) fn start(level: LogLevel) -> Level {
    let (filter, handle) = reload::Layer::new(LevelFilter::from(level));
    let registry = tracing_subscriber::registry().with(filter);
    match journal() {
        Some(journal) => registry.with(journal).init(),
        None => registry.with(fmt::layer().with_writer(io::stderr).with_target(false).with_ansi(false)).init(),
    }
    Level(handle)
}

impl Level {
    /// Logs from now on what `level` says.
    pub(crate) fn set(&self, level: LogLevel) {
        // Fails only when the subscriber is gone, with the process.
        let _ = self.0.reload(LevelFilter::from(level));
    }
}

/// The journal, if standard error is connected to it (systemd.exec(5), `$JOURNAL_STREAM`).
fn journal() -> Option<tracing_journald::Layer> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let (device, inode) = stream.split_once(':')?;
    let stderr = std::fs::metadata("/proc/self/fd/2").ok()?;
    if (device.parse(), inode.parse()) != (Ok(stderr.dev()), Ok(stderr.ino())) {
        return None;
    }
    tracing_journald::layer()
        .ok()
        .map(|layer| layer.with_field_prefix(None).with_syslog_identifier("outgoing-whmapi".to_owned()))
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> LevelFilter {
        match level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        }
    }
}
