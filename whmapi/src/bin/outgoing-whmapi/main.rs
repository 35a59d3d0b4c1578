//! outgoing-whmapi: WHM API 1 and UAPI over HTTP.
//!
//! The way of a call: [`connections`] accepts and bounds, [`http`] makes a call of a request, [`guard`] and
//! [`authentication`] say whether the daemon is worth asking, [`calls`] asks it whose token it is and has the function
//! carried out. The process has no right of its own: it can do what the tokens can that are shown to it. Exit statuses
//! (sysexits(3)) are decided here.

mod serve;

mod listen;

mod connections;

mod http;

mod authentication;

mod guard;

mod calls;

mod tls;

mod config;

use clap::Parser;
use config::Config;
use listen::ListenError;
use outgoingd_service::logging;
use serve::StartError;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// WHM API 1 and UAPI over HTTP, for the functions that outgoingd has.
///
/// Whoever calls shows a token of `outgoingctl token create`.
#[derive(Debug, Parser)]
#[command(
    name = "outgoing-whmapi",
    version,
    after_help = "Exit status: 0 stopped by a signal; 2 wrong usage; 71 the system does not give what is needed; \
                  75 the address is in use; 78 the configuration, the certificate or the key is wrong."
)]
struct Arguments {
    /// The configuration file [default: /etc/outgoingd/whmapi.toml if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check FILE, and the certificate and key that it names, say what is wrong, and exit
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    check_config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Arguments { config, check_config } = Arguments::parse();
    let outcome = match check_config {
        Some(file) => check(&file),
        None => start(config),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outgoing-whmapi: {error}");
            ExitCode::from(exit_status(&error))
        }
    }
}

fn start(path: Option<PathBuf>) -> Result<(), StartError> {
    let config = Config::load(path.as_deref())?;
    let level = logging::start("outgoing-whmapi", config.log_level);
    serve::run(path, config, level)
}

#[allow(clippy::print_stdout, reason = "the answer to --check-config")]
fn check(file: &Path) -> Result<(), StartError> {
    let config = Config::load(Some(file))?;
    match config.tls_files() {
        Some(files) => drop(tls::Tls::load(files)?),
        // Which addresses there are may be for the .socket unit to say.
        None => eprintln!("outgoing-whmapi: warning: without a certificate it starts on loopback addresses only"),
    }
    println!("{}: ok", file.display());
    Ok(())
}

fn exit_status(error: &StartError) -> u8 {
    match error {
        StartError::Config(_)
        | StartError::Tls(_)
        | StartError::InTheClear(_)
        | StartError::Listen(ListenError::Inherited(_)) => 78,
        StartError::Listen(ListenError::InUse(_)) => 75,
        StartError::Listen(ListenError::Io { .. }) | StartError::System(_) => 71,
    }
}
