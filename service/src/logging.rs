//! Where log lines go: to the journal with their fields when standard error is the journal, else to standard error.
//!
//! Audiences are told apart by target and level: `audit` at `info` says who changed what; everything else at `info` and above
//! is for operators; `debug` and `trace` are for developers. What a stranger can trigger is at `debug`, or so many lines a
//! minute at most.

use serde::Deserialize;
use std::io;
use std::os::unix::fs::MetadataExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// What needs somebody.
    Error,
    /// What somebody should look at.
    Warn,
    /// Changes or calls, starts and stops.
    Info,
    /// What developers want to see.
    Debug,
    /// Everything.
    Trace,
}

/// Changes what is logged while the service runs.
#[derive(Clone, Debug)]
pub struct Level(reload::Handle<LevelFilter, Registry>);

/// Begins to log, in the journal under this name. To be called once.
#[must_use]
pub fn start(name: &str, level: LogLevel) -> Level {
    let (filter, handle) = reload::Layer::new(LevelFilter::from(level));
    let registry = tracing_subscriber::registry().with(filter);
    match journal(name) {
        Some(journal) => registry.with(journal).init(),
        None => registry.with(fmt::layer().with_writer(io::stderr).with_target(false).with_ansi(false)).init(),
    }
    Level(handle)
}

impl Level {
    /// Logs from now on what `level` says.
    pub fn set(&self, level: LogLevel) {
        // Fails only when the subscriber is gone, with the process.
        let _ = self.0.reload(LevelFilter::from(level));
    }
}

/// The journal, if standard error is connected to it (systemd.exec(5), `$JOURNAL_STREAM`).
fn journal(name: &str) -> Option<tracing_journald::Layer> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let (device, inode) = stream.split_once(':')?;
    let stderr = std::fs::metadata("/proc/self/fd/2").ok()?;
    if (device.parse(), inode.parse()) != (Ok(stderr.dev()), Ok(stderr.ino())) {
        return None;
    }
    tracing_journald::layer().ok().map(|layer| layer.with_field_prefix(None).with_syslog_identifier(name.to_owned()))
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
