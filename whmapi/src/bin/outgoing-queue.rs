//! outgoing-queue: the helper that does with Exim's queue what the HTTP service may not.
//!
//! A service manager starts one for each connection, which is its standard input. The environment says where things are if they
//! are elsewhere: `OUTGOINGCTL` is the command, `OUTGOINGCTL_SOCKET` the daemon's socket, `OUTGOINGCTL_EXIM` Exim's command.

use outgoingd_client::protocol::DEFAULT_SOCKET;
use outgoingd_whmapi::helper;
use outgoingd_whmapi::outgoingctl::Outgoingctl;
use std::env;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where packages put the command.
const OUTGOINGCTL: &str = "/usr/bin/outgoingctl";

fn main() -> ExitCode {
    let served = connection().and_then(|connection| helper::serve(connection, &outgoingctl()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "outgoing-queue: cannot serve the connection on standard input: {error}");
            ExitCode::FAILURE
        }
    }
}

fn connection() -> io::Result<UnixStream> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

fn outgoingctl() -> Outgoingctl {
    let path = |name| env::var_os(name).map(PathBuf::from);
    Outgoingctl {
        program: path("OUTGOINGCTL").unwrap_or_else(|| OUTGOINGCTL.into()),
        socket: path("OUTGOINGCTL_SOCKET").unwrap_or_else(|| DEFAULT_SOCKET.into()),
        exim: path("OUTGOINGCTL_EXIM"),
        on_behalf_of: None,
    }
}
