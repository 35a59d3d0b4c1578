//! The configuration and the lists that it names, read at the start and again when they change or on SIGHUP.
//!
//! What has become unreadable or wrong keeps its last good version in force, each piece for itself, and the log and the
//! status line say so until it is mended.

use crate::authorise::Rules;
use crate::config::{Config, ConfigError};
use crate::directory::{self, Accounts, DirectoryError};
use crate::logging::Level;
use crate::requests::Policy;
use crate::table::{Owners, Table};
use crate::writer;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use tracing::{info, warn};

/// What the command line says over the configuration.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config`; none: the default path, where a missing file means defaults.
    pub config: Option<PathBuf>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
}

/// Reads again, and puts in force.
#[derive(Debug)]
pub struct Reloader {
    /// What the command line says.
    pub overrides: Overrides,
    /// What was in force at the start, for keys that only a restart changes.
    pub started_with: Config,
    /// What is in force.
    pub config: Config,
    /// Where requests look.
    pub policy: Arc<RwLock<Arc<Policy>>>,
    /// Where lookups look.
    pub table: Arc<Table>,
    /// Who writes the fallback file when owners change.
    pub writer: writer::Handle,
    /// What is logged.
    pub level: Level,
}

impl Overrides {
    /// Reads the configuration and lets the command line have its way.
    ///
    /// # Errors
    ///
    /// The configuration, or what the command line says, is wrong.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut config = Config::load(self.config.as_deref())?;
        if let Some(socket) = &self.socket {
            config.socket.clone_from(socket);
        }
        if let Some(state_dir) = &self.state_dir {
            config.state_dir.clone_from(state_dir);
        }
        config.validate().map_err(|(key, value, expected)| ConfigError::Value {
            path: PathBuf::from("of the command line"),
            key,
            value,
            expected: expected.to_owned(),
        })?;
        Ok(config)
    }
}

impl Policy {
    /// Reads the account list that the configuration names.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn load(config: &Config) -> Result<Policy, DirectoryError> {
        Accounts::load(&config.accounts).map(|accounts| Policy::new(config, Arc::new(accounts)))
    }

    fn new(config: &Config, accounts: Arc<Accounts>) -> Policy {
        Policy {
            access: config.access.clone(),
            accounts,
            owners: config.domains.owners.clone(),
            mail_send: config.mail_send,
        }
    }
}

impl Reloader {
    /// Reads everything again. Says what is wrong and was left as it was; nothing if all is well. Waits for the disk.
    pub async fn reload(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        match self.overrides.load() {
            Ok(config) => self.config = config,
            Err(error) => wrong.push(error.to_string()),
        }
        let (_, unknown) = Rules::resolve(&self.config.access);
        if !unknown.is_empty() {
            wrong.push(format!("[access] names whom this system does not know: {}", unknown.join(", ")));
        }
        let later = self.started_with.needs_restart(&self.config);
        if !later.is_empty() {
            wrong.push(format!("restart outgoingd to bring into force: {}", later.join(", ")));
        }
        self.level.set(self.config.log_level);
        let accounts = match Accounts::load(&self.config.accounts) {
            Ok(accounts) => Arc::new(accounts),
            Err(error) => {
                wrong.push(error.to_string());
                self.policy.read().unwrap_or_else(PoisonError::into_inner).accounts.clone()
            }
        };
        let owners = self.config.domains.owners.as_deref().map_or_else(|| Ok(Owners::new()), directory::load_owners);
        match owners {
            Ok(owners) => {
                self.table.replace_owners(owners);
                self.writer.refresh().await;
            }
            Err(error) => wrong.push(error.to_string()),
        }
        let policy = Arc::new(Policy::new(&self.config, accounts));
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
        match wrong.as_slice() {
            [] => info!("configuration and lists read again"),
            wrong => wrong.iter().for_each(|what| warn!("left as it was: {what}")),
        }
        wrong
    }
}
