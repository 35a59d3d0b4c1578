//! What can be typed when the HTTP service is started. One definition feeds parsing, help, usage errors and the manual page.

use clap::Parser;
use std::path::PathBuf;

/// WHM API 1 and UAPI over HTTP, for the functions that outgoingd has.
///
/// Whoever calls shows a token of `outgoingctl token create`.
#[derive(Debug, Parser)]
#[command(
    name = "outgoing-whmapi",
    version,
    after_help = "Exit status: 0 stopped by a signal; 2 wrong usage; 71 the system does not give what is needed; \
                  75 the address is in use; 78 the configuration, the certificate or the key is wrong.\n\n\
                  See outgoing-whmapi(8)."
)]
pub struct CommandLine {
    /// The configuration file [default: /etc/outgoingd/whmapi.toml if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check FILE, and the certificate and key that it names, say what is wrong, and exit
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub check_config: Option<PathBuf>,
}
