//! What is done with the daemon's command line, and its exit statuses (sysexits(3)).

use clap::Parser;
use outgoingd::arguments::Arguments;
use outgoingd::authorise::Rules;
use outgoingd::daemon::{self, StartError};
use outgoingd::directory;
use outgoingd::reload::{Overrides, unknown_names};
use outgoingd::requests::Policy;
use outgoingd::table::Owners;
use outgoingd_service::logging;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Arguments { config, socket, state_dir, check_config } = Arguments::parse();
    let outcome = match check_config {
        Some(file) => check(&file),
        // The file is watched by its whole path.
        None => start(Overrides { config: config.map(whole), socket, state_dir }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outgoingd: {error}");
            ExitCode::from(exit_status(&error))
        }
    }
}

fn whole(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn start(overrides: Overrides) -> Result<(), StartError> {
    let config = overrides.load()?;
    let level = logging::start("outgoingd", config.log_level);
    daemon::run(overrides, &config, level)
}

#[allow(clippy::print_stdout, reason = "the answer to --check-config")]
fn check(file: &Path) -> Result<(), StartError> {
    let config = Overrides { config: Some(file.to_path_buf()), ..Overrides::default() }.load()?;
    Policy::load(&config)?;
    if let Some(owners) = &config.domains.owners {
        directory::load_owners(owners, &Owners::new())?;
    }
    // A name that nobody has gives nobody a right; it may be there tomorrow.
    if let Ok((_, unknown)) = Rules::resolve(&config.access)
        && let Some(warning) = unknown_names(&unknown)
    {
        eprintln!("outgoingd: warning: {warning}");
    }
    println!("{}: ok", file.display());
    Ok(())
}

fn exit_status(error: &StartError) -> u8 {
    use outgoingd::socket::SocketError;
    match error {
        StartError::Config(_)
        | StartError::Directory(_)
        | StartError::State { .. }
        | StartError::Socket(SocketError::NoGroup(_) | SocketError::Inherited(_) | SocketError::NoSocket(_)) => 78,
        StartError::Running(_) | StartError::FallbackHeld(_) | StartError::Socket(SocketError::InUse(_)) => 75,
        StartError::StateDir { .. }
        | StartError::FallbackDir { .. }
        | StartError::OpenState { .. }
        | StartError::Socket(SocketError::Io { .. }) => 73,
        StartError::System(_) => 71,
    }
}
