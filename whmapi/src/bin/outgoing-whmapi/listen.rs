//! The listening sockets: those that systemd hands over, else some of our own.

use crate::config::Config;
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Why there are no sockets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// Somebody listens there.
    #[error(
        "cannot listen on {0}: the address is in use (a [::] takes IPv4 as well); stop who uses it, or change listen"
    )]
    InUse(SocketAddr),
    /// The system would not let it be made.
    #[error("cannot listen on {address}: {source}")]
    Io { address: SocketAddr, source: io::Error },
    /// What systemd handed over is not what this service can use.
    #[error("systemd handed over {0}; every ListenStream= of outgoing-whmapi.socket must have a port")]
    Inherited(String),
}

/// The sockets that systemd handed over, else those of the configuration.
pub(crate) fn obtain(config: &Config) -> Result<Vec<TcpListener>, ListenError> {
    let descriptors =
        sd_notify::listen_fds().map_err(|error| ListenError::Inherited(format!("a wrong LISTEN_FDS ({error})")))?;
    let inherited: Vec<TcpListener> = descriptors.map(inherited).collect::<Result<_, _>>()?;
    if inherited.is_empty() { config.listen.iter().copied().map(listen).collect() } else { Ok(inherited) }
}

fn inherited(descriptor: RawFd) -> Result<TcpListener, ListenError> {
    // SAFETY: `LISTEN_FDS` gives this descriptor to this process (sd_listen_fds(3)), and nothing else in it uses it: the
    // only caller goes through them once, at the start.
    #[allow(unsafe_code, reason = "an inherited descriptor is a number until somebody says that it is owned")]
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let fits = matches!(sockopt::socket_domain(&socket), Ok(AddressFamily::INET | AddressFamily::INET6))
        && sockopt::socket_type(&socket) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(&socket) == Ok(true);
    if fits {
        Ok(socket.into())
    } else {
        Err(ListenError::Inherited("something else than a listening TCP socket".to_owned()))
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse(address),
        _ => ListenError::Io { address, source },
    })
}
