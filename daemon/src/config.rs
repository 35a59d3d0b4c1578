//! The configuration file. Every key has a default that works; an unknown key is an error. This file is the one place for
//! each key: name, default, bounds and what it means. The doc comments of keys and tables are what outgoingd.toml(5) says of them.

use jiff::{Span, SpanRelativeTo};
use outgoingd_service::logging::LogLevel;
use serde::Deserialize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

/// Where the configuration is unless the command line says otherwise. Here, and only here, a missing file means defaults.
pub const DEFAULT_PATH: &str = "/etc/outgoingd/outgoingd.toml";

/// Longest path of a Unix socket that the kernel takes whole (unix(7): 108 bytes with the final NUL).
const MAX_SOCKET_PATH: usize = 107;

/// Least that `held.max-age` may be: less is a slip, and costs mail.
const SHORTEST_AGE: Duration = Duration::from_secs(60);

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// Path of the socket, at most 107 bytes. Under socket activation the `.socket` unit decides instead. Takes effect at a
    /// restart.
    pub socket: PathBuf,
    /// Permissions of the socket, where the daemon makes it itself, in octal, such as `"0660"`. Takes effect at a restart.
    pub socket_mode: Mode,
    /// Group of the socket, where the daemon makes it itself; empty: the daemon's own. Takes effect at a restart.
    pub socket_group: String,
    /// Directory of the state file, the daemon's alone. Takes effect at a restart.
    pub state_dir: PathBuf,
    /// The file that Exim reads when the daemon does not answer; empty: none is written. Its directory must be writable
    /// for the daemon and nobody else. Takes effect at a restart.
    pub fallback_file: PathBuf,
    /// Permissions of the fallback file, in octal, such as `"0640"`. Takes effect at a restart.
    pub fallback_mode: Mode,
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: LogLevel,
    /// Whether this server has the `MailSend` role. Off: hold, release, suspend and unsuspend are refused.
    pub mail_send: bool,
    /// Who may do what.
    pub access: Access,
    /// Which accounts exist.
    pub accounts: Accounts,
    /// Which domains exist.
    pub domains: Domains,
    /// How much may stay held.
    pub held: Held,
    /// What one peer, and all of them, may take.
    pub limits: Limits,
}

/// `[access]`: who may do what beside uid 0, who may do everything.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Access {
    /// Users who may change and look.
    pub admin_users: Vec<String>,
    /// Groups whose members may change and look.
    pub admin_groups: Vec<String>,
    /// Users who may look.
    pub reader_users: Vec<String>,
    /// Groups whose members may look.
    pub reader_groups: Vec<String>,
    /// Groups whose members may look, record what they have removed from Exim's queue, and forget passes. The default is the group
    /// that `outgoingd-sweep.service` has, and need not exist.
    pub sweep_groups: Vec<String>,
    /// Users who may do what a token is good for that they present, such as that of the WHM service; nothing without one.
    pub token_users: Vec<String>,
}

/// `[accounts]`: where to see whether an account exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Accounts {
    /// Which kind of place that is.
    pub source: Source,
    /// The file or directory, for the two sources that are one.
    pub path: Option<PathBuf>,
}

/// `accounts.source`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The system's users, through NSS. Names in lower case.
    #[default]
    Passwd,
    /// Every name is an account.
    Any,
    /// `path` lists one account a line.
    File,
    /// `path` has one entry for each account, as `/var/cpanel/users`.
    Directory,
}

/// `[domains]`: which domains exist, and whose they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Domains {
    /// A file with `domain: account` lines, as cPanel's `/etc/userdomains`. Without one every domain counts as existing
    /// and no account owns any.
    pub owners: Option<PathBuf>,
}

/// `[held]`: how much mail may stay held, for each held subject by itself, but for `*`. The daemon does not touch Exim's queue:
/// `outgoingctl sweep` asks for these and removes what is over them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Held {
    /// How long a message may be on hold, at least one minute; none: however long. What it has waited before does not count. A
    /// number and its unit, such as `"30d"`, `"12h"` or `"2w"`: s, m, h, d or w. A day is 24 hours.
    pub max_age: Option<Age>,
    /// Most messages, at least 1; none: however many.
    pub max_messages: Option<u64>,
}

/// How old something may get, written as a string with units: `"30d"`, `"12h"`, `"2w"`; s, m, h, d and w. A day is 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Age(pub Duration);

/// `[limits]`: bounds. They take effect at a restart.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Limits {
    /// Milliseconds in which a request must be complete, 10 to 10000: a stop waits as long.
    pub request_deadline_ms: u64,
    /// Connections that wait for their peers at the same time, 8 to 65536. Lookups that are complete when they are
    /// accepted are answered at once and do not count.
    pub max_connections: usize,
    /// The same for one user id, 4 to 65536.
    pub max_connections_per_uid: usize,
    /// Entries that the audit trail keeps, at least 1000.
    pub audit_entries: u64,
}

/// File permissions, written as a string in octal: `"0660"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mode(pub u32);

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no TOML, or a key is unknown or of the wrong type. The words quote the line.
    #[error("the configuration {} is wrong: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, key and what was expected.
        message: String,
    },
    /// A value is out of its bounds.
    #[error("the configuration {} is wrong: {key} = {value}: expected {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// What it is set to.
        value: String,
        /// What was expected.
        expected: String,
    },
}

impl Default for Config {
    fn default() -> Config {
        Config {
            socket: outgoingd_client::protocol::DEFAULT_SOCKET.into(),
            socket_mode: Mode(0o660),
            socket_group: String::new(),
            state_dir: "/var/lib/outgoingd".into(),
            fallback_file: "/var/lib/outgoingd-exim/fallback".into(),
            fallback_mode: Mode(0o640),
            log_level: LogLevel::Info,
            mail_send: true,
            access: Access::default(),
            accounts: Accounts::default(),
            domains: Domains::default(),
            held: Held::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Access {
    fn default() -> Access {
        Access {
            admin_users: Vec::new(),
            admin_groups: Vec::new(),
            reader_users: Vec::new(),
            reader_groups: Vec::new(),
            sweep_groups: vec!["outgoingd-sweep".to_owned()],
            token_users: Vec::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            request_deadline_ms: 2_000,
            max_connections: 1_024,
            max_connections_per_uid: 256,
            audit_entries: 1_000_000,
        }
    }
}

impl Config {
    /// Reads the file at `path`, or takes the defaults if `path` is none and there is no file at [`DEFAULT_PATH`].
    ///
    /// # Errors
    ///
    /// The file cannot be read or is wrong; the words name file, key and what was expected.
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
        let place = path.unwrap_or(Path::new(DEFAULT_PATH));
        match fs::read_to_string(place) {
            Ok(text) => Config::parse(&text, place),
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
            Err(source) => Err(ConfigError::Read { path: place.to_path_buf(), source }),
        }
    }

    /// Takes a configuration from its text; `path` is for the words of errors only.
    ///
    /// # Errors
    ///
    /// The text is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.to_path_buf(), message: error.to_string() })?;
        config.validate(path)?;
        Ok(config)
    }

    /// Checks the bounds that types do not; `path` is for the words of errors.
    ///
    /// # Errors
    ///
    /// A value is out of its bounds.
    pub fn validate(&self, path: &Path) -> Result<(), ConfigError> {
        let Limits { request_deadline_ms, max_connections, max_connections_per_uid, audit_entries } = self.limits;
        let wrong = |key, value: String, expected: &str| {
            Err(ConfigError::Value { path: path.to_path_buf(), key, value, expected: expected.to_owned() })
        };
        let absolute = |key, value: &Path| {
            if value.is_absolute() { Ok(()) } else { wrong(key, value.display().to_string(), "an absolute path") }
        };
        let within = |key, value: u64, bounds: RangeInclusive<u64>, expected| {
            if bounds.contains(&value) { Ok(()) } else { wrong(key, value.to_string(), expected) }
        };
        absolute("socket", &self.socket)?;
        absolute("state-dir", &self.state_dir)?;
        if self.socket.as_os_str().len() > MAX_SOCKET_PATH {
            return wrong("socket", self.socket.display().to_string(), "a path of at most 107 bytes (unix(7))");
        }
        if !self.fallback_file.as_os_str().is_empty() {
            absolute("fallback-file", &self.fallback_file)?;
        }
        match (self.accounts.source, &self.accounts.path) {
            (Source::File | Source::Directory, Some(path)) => absolute("accounts.path", path)?,
            (Source::File | Source::Directory, None) => {
                return wrong(
                    "accounts.path",
                    "none".to_owned(),
                    "a path, since accounts.source names a file or directory",
                );
            }
            (Source::Passwd | Source::Any, Some(path)) => {
                let expected = "none, or accounts.source = \"file\" or \"directory\"";
                return wrong("accounts.path", path.display().to_string(), expected);
            }
            (Source::Passwd | Source::Any, None) => {}
        }
        if let Some(path) = &self.domains.owners {
            absolute("domains.owners", path)?;
        }
        if let Some(Age(age)) = self.held.max_age
            && age < SHORTEST_AGE
        {
            return wrong("held.max-age", format!("{} s", age.as_secs()), "at least one minute, such as \"30d\"");
        }
        if let Some(most) = self.held.max_messages {
            within("held.max-messages", most, 1..=u64::MAX, "at least 1")?;
        }
        within("limits.request-deadline-ms", request_deadline_ms, 10..=10_000, "10 to 10000 milliseconds")?;
        within("limits.max-connections", max_connections as u64, 8..=65_536, "8 to 65536")?;
        within("limits.max-connections-per-uid", max_connections_per_uid as u64, 4..=65_536, "4 to 65536")?;
        within("limits.audit-entries", audit_entries, 1_000..=u64::MAX, "at least 1000")
    }

    /// The keys in which `other` differs and that only a restart brings into force.
    #[must_use]
    pub fn needs_restart(&self, other: &Config) -> Vec<&'static str> {
        [
            ("socket", self.socket != other.socket),
            ("socket-mode", self.socket_mode != other.socket_mode),
            ("socket-group", self.socket_group != other.socket_group),
            ("state-dir", self.state_dir != other.state_dir),
            ("fallback-file", self.fallback_file != other.fallback_file),
            ("fallback-mode", self.fallback_mode != other.fallback_mode),
            ("limits", self.limits != other.limits),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// The files and directories outside the configuration that it makes the daemon read.
    pub fn sources(&self) -> impl Iterator<Item = &Path> {
        self.accounts.path.as_deref().into_iter().chain(self.domains.owners.as_deref())
    }
}

impl Limits {
    /// The time in which a request must be complete.
    #[must_use]
    pub fn request_deadline(&self) -> Duration {
        Duration::from_millis(self.request_deadline_ms)
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Mode, String> {
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o777 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Mode(mode)),
            _ => Err(format!("\"{text}\" is no file mode: expected octal digits such as \"0660\"")),
        }
    }
}

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> Result<Age, String> {
        let wrong = || format!("\"{text}\" is no age: expected a number and s, m, h, d or w, such as \"30d\"");
        let span: Span = text.parse().map_err(|_| wrong())?;
        // Months and years have no length of their own, and are refused.
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
        Duration::try_from(duration).map(Age).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("o.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_default_and_the_default_is_valid() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert!(Config::default().validate(Path::new("o.toml")).is_ok());
    }

    #[test]
    fn the_shipped_example_is_the_default_spelled_out() {
        let example = include_str!("../../systemd/outgoingd.toml");
        assert_eq!(parse(example).unwrap(), Config::default());
        // Commented-out keys must be right too.
        let uncommented: String = example
            .lines()
            .map(|line| line.strip_prefix("#= ").unwrap_or(line))
            .fold(String::new(), |all, line| all + line + "\n");
        assert!(parse(&uncommented).is_ok(), "{:?}", parse(&uncommented));
    }

    #[test]
    fn a_wrong_configuration_names_file_key_and_what_was_expected() {
        let error = parse("sockett = \"/x\"").unwrap_err();
        assert!(error.contains("o.toml") && error.contains("sockett") && error.contains("expected"), "{error}");
        let error = parse("[limits]\nrequest-deadline-ms = 5").unwrap_err();
        assert_eq!(
            error,
            "the configuration o.toml is wrong: limits.request-deadline-ms = 5: expected 10 to 10000 milliseconds"
        );
        let error = parse("socket-mode = \"9\"").unwrap_err();
        assert!(error.contains("socket-mode") && error.contains("octal"), "{error}");
        let error = parse(&format!("socket = \"/{}\"", "x".repeat(107))).unwrap_err();
        assert!(error.contains("107 bytes"), "{error}");
        let error = parse("[accounts]\nsource = \"ldap\"").unwrap_err();
        assert!(error.contains("ldap") && error.contains("expected"), "{error}");
        for wrong in
            ["source = \"file\"", "path = \"/x\"", "source = \"passwd\"\npath = \"/x\"", "source = \"any\"\nbogus = 1"]
        {
            let error = parse(&format!("[accounts]\n{wrong}")).unwrap_err();
            assert!(error.contains("accounts.path") || error.contains("bogus"), "{error}");
        }
        assert_eq!(parse("[accounts]").unwrap(), Config::default());
        let error = parse("state-dir = \"here\"").unwrap_err();
        assert!(error.contains("absolute"), "{error}");
    }

    #[test]
    fn an_age_has_a_unit_and_is_a_minute_at_least() {
        let held = |age: &str| parse(&format!("[held]\nmax-age = \"{age}\"")).map(|config| config.held.max_age);
        for (age, minutes) in [("60s", 1), ("1m", 1), ("12h", 720), ("30d", 43_200), ("2w", 20_160), ("1d 12h", 2_160)]
        {
            assert_eq!(held(age), Ok(Some(Age(Duration::from_secs(minutes * 60)))), "{age}");
        }
        for wrong in ["", "30", "d", "-30d", "30d ago", "59s", "0s", "1mo", "1y", "99999999999999w", "soon"] {
            let error = held(wrong).unwrap_err();
            assert!(
                error.contains("max-age") && error.contains("expected") && error.contains("30d"),
                "{wrong}: {error}"
            );
        }
        assert!(parse("[held]\nmax-age = 30").is_err());
        let error = parse("[held]\nmax-messages = 0").unwrap_err();
        assert!(error.contains("held.max-messages = 0: expected at least 1"), "{error}");
        assert_eq!(parse("[held]\nmax-messages = 500").unwrap().held.max_messages, Some(500));
        assert_eq!(parse("[held]").unwrap(), Config::default());
    }

    #[test]
    fn how_much_may_stay_held_takes_effect_at_a_reload() {
        let other = parse("[held]\nmax-age = \"30d\"\nmax-messages = 500").unwrap();
        assert!(Config::default().needs_restart(&other).is_empty());
    }

    #[test]
    fn keys_that_need_a_restart_are_named() {
        let other = parse("socket = \"/run/x\"\nmail-send = false\n[limits]\nmax-connections = 8").unwrap();
        assert_eq!(Config::default().needs_restart(&other), ["socket", "limits"]);
    }
}
