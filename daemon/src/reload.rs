//! The configuration and the lists that it names, read at the start and again when they change or on SIGHUP.
//!
//! What has become unreadable or wrong keeps its last good version in force, each piece for itself, and the log and the
//! status line say so until it is mended.

use crate::authorise::Rules;
use crate::config::{Config, ConfigError};
use crate::directory::{self, Accounts, DirectoryError};
use crate::keeper::Keeper;
use crate::requests::Policy;
use crate::table::{Owners, Table};
use outgoingd_service::logging::Level;
use std::path::{Path, PathBuf};
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
    /// Who must know when owners change.
    pub keeper: Keeper,
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
        config.validate(Path::new("of the command line"))?;
        Ok(config)
    }
}

/// What was read, with what is wrong with it.
#[derive(Debug)]
struct Loaded {
    config: Config,
    policy: Policy,
    /// None: as they were.
    owners: Option<Owners>,
    wrong: Vec<String>,
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
            held: config.held,
            wrong: Vec::new(),
        }
    }
}

impl Loaded {
    /// Reads everything; what cannot be read stays as it is in `config`, `known` and `owners`. Waits for disk and NSS.
    fn load(overrides: &Overrides, config: Config, known: &Policy, owners: &Owners) -> Loaded {
        let mut wrong = Vec::new();
        let config = overrides.load().unwrap_or_else(|error| {
            wrong.push(error.to_string());
            config
        });
        match Rules::resolve(&config.access) {
            Ok((_, unknown)) => wrong.extend(unknown_names(&unknown)),
            Err(error) => wrong.push(format!("cannot ask the user database for the names in [access]: {error}")),
        }
        let accounts = Accounts::load(&config.accounts).map_or_else(
            |error| {
                wrong.push(error.to_string());
                known.accounts.clone()
            },
            Arc::new,
        );
        let owners = match config.domains.owners.as_deref().map(|path| directory::load_owners(path, owners)) {
            None => Some(Owners::new()),
            Some(Ok(owners)) => Some(owners),
            Some(Err(error)) => {
                wrong.push(error.to_string());
                None
            }
        };
        let mut policy = Policy::new(&config, accounts);
        if owners.is_none() {
            policy.owners.clone_from(&known.owners);
        }
        Loaded { config, policy, owners, wrong }
    }
}

/// What to say of names in `[access]` that nobody has.
#[must_use]
pub fn unknown_names(unknown: &[String]) -> Option<String> {
    (!unknown.is_empty()).then(|| format!("[access] names whom this system does not know: {}", unknown.join(", ")))
}

impl Reloader {
    /// Reads everything again. What is wrong and was left as it was stands in the policy: nothing if all is well.
    pub async fn reload(&mut self) {
        let (overrides, config, owners) = (self.overrides.clone(), self.config.clone(), self.table.owners());
        let known = self.policy.read().unwrap_or_else(PoisonError::into_inner).clone();
        let accounts = known.accounts.clone();
        let loading = tokio::task::spawn_blocking(move || Loaded::load(&overrides, config, &known, &owners));
        let Loaded { config, mut policy, owners, mut wrong } = loading.await.unwrap_or_else(|error| Loaded {
            config: self.config.clone(),
            policy: Policy::new(&self.config, accounts),
            owners: None,
            wrong: vec![format!("cannot read the configuration again: {error}")],
        });
        self.config = config;
        let later = self.started_with.needs_restart(&self.config);
        if !later.is_empty() {
            wrong.push(format!("restart outgoingd to bring into force: {}", later.join(", ")));
        }
        self.level.set(self.config.log_level);
        if let Some(owners) = owners {
            self.table.replace_owners(owners);
            self.keeper.changed();
        }
        match wrong.as_slice() {
            [] => info!("configuration and lists read again"),
            wrong => wrong.iter().for_each(|what| warn!("left as it was: {what}")),
        }
        policy.wrong = wrong;
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }
}
