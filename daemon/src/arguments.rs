//! What can be typed when the daemon is started. One definition feeds parsing, help, usage errors and the manual page.

use clap::Parser;
use std::path::PathBuf;

/// Holds and suspends the outgoing mail of single senders on an Exim server.
///
/// Exim asks it over a Unix socket; administrators use outgoingctl.
#[derive(Debug, Parser)]
#[command(
    name = "outgoingd",
    version,
    after_help = "Exit status: 0 stopped by a signal; 2 wrong usage; 71 the system does not give what is needed; \
                  73 the state or the socket cannot be made; 75 another outgoingd runs there; \
                  78 the configuration or the state file is wrong.\n\nSee outgoingd(8)."
)]
pub struct Arguments {
    /// The configuration file [default: /etc/outgoingd/outgoingd.toml if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Path of the socket, instead of the configuration's
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Directory of the state file, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Check FILE and the lists that it names, say what is wrong, and exit
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "socket", "state_dir"])]
    pub check_config: Option<PathBuf>,
}
