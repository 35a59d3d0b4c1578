//! The configuration file. Every key has a default that works; an unknown key is an error. This file is the one place for
//! each key: name, default, bounds and what it means. The doc comments of keys and tables are what whmapi.toml(5) says of them.

use outgoingd_service::logging::LogLevel;
use serde::Deserialize;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

/// Where the configuration is unless the command line says otherwise. Here, and only here, a missing file means defaults.
pub(crate) const DEFAULT_PATH: &str = "/etc/outgoingd/whmapi.toml";

/// Where the helper for Exim's queue listens unless the configuration says otherwise.
pub(crate) const DEFAULT_QUEUE_SOCKET: &str = "/run/outgoingd-queue/queue.sock";

/// Most addresses to listen on.
const MAX_LISTENERS: usize = 16;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Config {
    /// Addresses and ports, 1 to 16 of them. Under socket activation the `.socket` unit decides instead. Takes effect at
    /// a restart.
    pub(crate) listen: Vec<SocketAddr>,
    /// The certificate and those between it and its root, in PEM. None: plain HTTP, on loopback addresses only. Another
    /// file takes effect at a reload, having one at all at a restart.
    pub(crate) certificate: Option<PathBuf>,
    /// The key of the certificate, in PEM; none: it is in the certificate's file.
    pub(crate) private_key: Option<PathBuf>,
    /// The daemon's socket. Takes effect at a restart.
    pub(crate) socket: PathBuf,
    /// The socket of the helper that works on Exim's queue. Takes effect at a restart.
    pub(crate) queue_socket: PathBuf,
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`.
    pub(crate) log_level: LogLevel,
    /// What one peer, and all of them, may take.
    pub(crate) limits: Limits,
}

/// `[limits]`: bounds. They take effect at a restart.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Limits {
    /// Connections at the same time, 1 to 4096; more wait to be accepted.
    pub(crate) connections: usize,
    /// The same from one address (IPv6: one /64), 1 to 4096; more are closed.
    pub(crate) connections_per_address: usize,
    /// Milliseconds that a call may take from the end of its headers to its answer, 100 to 120000.
    pub(crate) request_deadline_ms: u64,
    /// Milliseconds for the TLS handshake, for the headers of a call, and between two calls on a connection, 100 to 120000.
    pub(crate) header_deadline_ms: u64,
    /// Failed authentications from one address (IPv6: one /64) in a minute, 1 to 1000; then it is refused for the rest of
    /// it.
    pub(crate) failed_authentications: u32,
}

/// The files that make the service speak TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TlsFiles<'a> {
    /// The certificate and those between it and its root.
    pub(crate) certificate: &'a Path,
    /// Its key.
    pub(crate) private_key: &'a Path,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file is no TOML, or a key is unknown or of the wrong type. The words quote the line.
    #[error("the configuration {} is wrong: {message}", path.display())]
    Parse { path: PathBuf, message: String },
    /// A value is out of its bounds.
    #[error("the configuration {} is wrong: {key} = {value}: expected {expected}", path.display())]
    Value { path: PathBuf, key: &'static str, value: String, expected: &'static str },
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: vec![SocketAddr::from(([0; 8], 2087))],
            certificate: None,
            private_key: None,
            socket: outgoingd_client::protocol::DEFAULT_SOCKET.into(),
            queue_socket: DEFAULT_QUEUE_SOCKET.into(),
            log_level: LogLevel::Info,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 256,
            connections_per_address: 32,
            request_deadline_ms: 10_000,
            header_deadline_ms: 10_000,
            failed_authentications: 10,
        }
    }
}

impl Config {
    /// Reads the file at `path`, or takes the defaults if `path` is none and there is no file at [`DEFAULT_PATH`].
    pub(crate) fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
        let place = path.unwrap_or(Path::new(DEFAULT_PATH));
        match fs::read_to_string(place) {
            Ok(text) => Config::parse(&text, place),
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
            Err(source) => Err(ConfigError::Read { path: place.to_path_buf(), source }),
        }
    }

    /// Takes a configuration from its text; `path` is for the words of errors only.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.to_path_buf(), message: error.to_string() })?;
        config.validate(path)?;
        Ok(config)
    }

    /// The files for TLS; none: plain HTTP.
    pub(crate) fn tls_files(&self) -> Option<TlsFiles<'_>> {
        let certificate = self.certificate.as_deref()?;
        Some(TlsFiles { certificate, private_key: self.private_key.as_deref().unwrap_or(certificate) })
    }

    /// The keys in which `other` differs and that only a restart brings into force.
    pub(crate) fn needs_restart(&self, other: &Config) -> Vec<&'static str> {
        [
            ("listen", self.listen != other.listen),
            ("certificate", self.certificate.is_some() != other.certificate.is_some()),
            ("socket", self.socket != other.socket),
            ("queue-socket", self.queue_socket != other.queue_socket),
            ("limits", self.limits != other.limits),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// Checks the bounds that types do not.
    fn validate(&self, path: &Path) -> Result<(), ConfigError> {
        let Limits {
            connections,
            connections_per_address,
            request_deadline_ms,
            header_deadline_ms,
            failed_authentications,
        } = self.limits;
        let wrong =
            |key, value: String, expected| Err(ConfigError::Value { path: path.to_path_buf(), key, value, expected });
        let absolute = |key, value: &Path| {
            if value.is_absolute() { Ok(()) } else { wrong(key, value.display().to_string(), "an absolute path") }
        };
        let within = |key, value: u64, bounds: RangeInclusive<u64>, expected| {
            if bounds.contains(&value) { Ok(()) } else { wrong(key, value.to_string(), expected) }
        };
        if !(1..=MAX_LISTENERS).contains(&self.listen.len()) {
            return wrong("listen", format!("{} addresses", self.listen.len()), "1 to 16, such as [\"[::]:2087\"]");
        }
        if let Some(certificate) = &self.certificate {
            absolute("certificate", certificate)?;
        }
        if let Some(key) = &self.private_key {
            absolute("private-key", key)?;
            if self.certificate.is_none() {
                return wrong("private-key", key.display().to_string(), "none, or a certificate that it is the key of");
            }
        }
        absolute("socket", &self.socket)?;
        absolute("queue-socket", &self.queue_socket)?;
        let milliseconds = "100 to 120000 milliseconds";
        within("limits.connections", connections as u64, 1..=4096, "1 to 4096")?;
        within("limits.connections-per-address", connections_per_address as u64, 1..=4096, "1 to 4096")?;
        within("limits.request-deadline-ms", request_deadline_ms, 100..=120_000, milliseconds)?;
        within("limits.header-deadline-ms", header_deadline_ms, 100..=120_000, milliseconds)?;
        within("limits.failed-authentications", failed_authentications.into(), 1..=1000, "1 to 1000")
    }
}

impl Limits {
    /// The time that a call may take from the end of its headers to its answer.
    pub(crate) fn request_deadline(&self) -> Duration {
        Duration::from_millis(self.request_deadline_ms)
    }

    /// The time for a handshake, for headers, and between two calls.
    pub(crate) fn header_deadline(&self) -> Duration {
        Duration::from_millis(self.header_deadline_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("w.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_default_and_the_default_is_valid() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(Config::default().listen[0].to_string(), "[::]:2087");
    }

    #[test]
    fn the_shipped_example_is_the_default_spelled_out() {
        let example = include_str!("../../../../systemd/whmapi.toml");
        assert_eq!(parse(example).unwrap(), Config::default());
        // Commented-out keys must be right too.
        let uncommented: String = example
            .lines()
            .map(|line| line.strip_prefix("#= ").unwrap_or(line))
            .fold(String::new(), |all, line| all + line + "\n");
        assert!(parse(&uncommented).unwrap().tls_files().is_some());
    }

    #[test]
    fn a_wrong_configuration_names_file_key_and_what_was_expected() {
        let error = parse("port = 2087").unwrap_err();
        assert!(error.contains("w.toml") && error.contains("port") && error.contains("expected"), "{error}");
        let error = parse("[limits]\nconnections = 0").unwrap_err();
        assert_eq!(error, "the configuration w.toml is wrong: limits.connections = 0: expected 1 to 4096");
        for (wrong, words) in [
            ("listen = []", "listen = 0 addresses: expected 1 to 16"),
            ("listen = [\"localhost:2087\"]", "listen"),
            ("listen = [\"2087\"]", "listen"),
            ("certificate = \"here.pem\"", "certificate = here.pem: expected an absolute path"),
            ("private-key = \"/k\"", "private-key = /k: expected none, or a certificate"),
            ("certificate = \"/c\"\nprivate-key = \"k\"", "private-key = k: expected an absolute path"),
            ("socket = \"s\"", "socket = s: expected an absolute path"),
            ("queue-socket = \"q\"", "queue-socket = q: expected an absolute path"),
            ("log-level = \"loud\"", "loud"),
            ("[limits]\nconnections-per-address = 4097", "limits.connections-per-address = 4097"),
            ("[limits]\nrequest-deadline-ms = 99", "99: expected 100 to 120000 milliseconds"),
            ("[limits]\nheader-deadline-ms = 120001", "120001: expected 100 to 120000 milliseconds"),
            ("[limits]\nfailed-authentications = 0", "limits.failed-authentications = 0: expected 1 to 1000"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains("w.toml") && error.contains(words), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_key_that_is_not_named_is_in_the_certificates_file() {
        let config = parse("certificate = \"/both.pem\"").unwrap();
        assert_eq!(config.tls_files().unwrap().private_key, Path::new("/both.pem"));
        let config = parse("certificate = \"/c\"\nprivate-key = \"/k\"").unwrap();
        assert_eq!(config.tls_files().unwrap().private_key, Path::new("/k"));
        assert!(Config::default().tls_files().is_none());
    }

    #[test]
    fn keys_that_need_a_restart_are_named_and_another_certificate_is_not_among_them() {
        let (one, other) = (parse("certificate = \"/c\"").unwrap(), parse("certificate = \"/d\"").unwrap());
        assert!(one.needs_restart(&other).is_empty());
        let other = parse("listen = [\"127.0.0.1:1\"]\n[limits]\nconnections = 8").unwrap();
        assert_eq!(one.needs_restart(&other), ["listen", "certificate", "limits"]);
    }
}
