//! The daemon's command line and exit statuses (sysexits(3)).

use clap::Parser;
use outgoingd::authorise::Rules;
use outgoingd::daemon::{self, StartError};
use outgoingd::directory;
use outgoingd::reload::{Overrides, unknown_names};
use outgoingd::requests::Policy;
use outgoingd::table::Owners;
use outgoingd_service::logging;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Holds and suspends the outgoing mail of single senders on an Exim server.
///
/// Exim asks it over a Unix socket; administrators use outgoingctl.
#[derive(Debug, Parser)]
#[command(
    name = "outgoingd",
    version,
    after_help = "Exit status: 0 stopped by a signal; 2 wrong usage; 71 the system does not give what is needed; \
                  73 the state or the socket cannot be made; 75 another outgoingd runs there; \
                  78 the configuration or the state file is wrong."
)]
struct Arguments {
    /// The configuration file [default: /etc/outgoingd/outgoingd.toml if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Path of the socket, instead of the configuration's
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Directory of the state file, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Check FILE and the lists that it names, say what is wrong, and exit
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "socket", "state_dir"])]
    check_config: Option<PathBuf>,
}

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
