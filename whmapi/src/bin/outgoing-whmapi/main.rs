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
use outgoingd_whmapi::command_line::CommandLine;
use serve::StartError;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let CommandLine { config, check_config } = CommandLine::parse();
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
