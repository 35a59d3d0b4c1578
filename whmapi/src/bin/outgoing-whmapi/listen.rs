//! The listening sockets: those that systemd hands over, else some of our own.

use crate::config::Config;
use outgoingd_service::inherited;
use rustix::net::AddressFamily;
use std::io;
use std::net::{SocketAddr, TcpListener};

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
    let inherited = inherited::sockets(&[AddressFamily::INET, AddressFamily::INET6], "TCP")
        .map_err(|error| ListenError::Inherited(error.to_string()))?;
    if inherited.is_empty() {
        return config.listen.iter().copied().map(listen).collect();
    }
    Ok(inherited.into_iter().map(TcpListener::from).collect())
}

fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse(address),
        _ => ListenError::Io { address, source },
    })
}
