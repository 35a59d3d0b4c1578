//! Sockets that systemd hands over (`sd_listen_fds(3)`).

use rustix::net::{AddressFamily, SocketType, sockopt};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// What is wrong with what was handed over.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// The variable makes no sense.
    #[error("a wrong LISTEN_FDS ({0})")]
    Variable(String),
    /// One is not what the service can use.
    #[error("something else than a listening {0} socket")]
    Kind(&'static str),
}

/// All that were handed over, which must be stream sockets that listen, of one of these families; `what` says which in words. To be
/// called once, at the start: what it returns is owned from then on.
///
/// # Errors
///
/// [`InheritedError`].
pub fn sockets(families: &[AddressFamily], what: &'static str) -> Result<Vec<OwnedFd>, InheritedError> {
    let descriptors = sd_notify::listen_fds().map_err(|error| InheritedError::Variable(error.to_string()))?;
    descriptors.map(|descriptor| socket(descriptor, families).ok_or(InheritedError::Kind(what))).collect()
}

fn socket(descriptor: RawFd, families: &[AddressFamily]) -> Option<OwnedFd> {
    // SAFETY: `LISTEN_FDS` gives this descriptor to this process (sd_listen_fds(3)), and nothing else in it uses it: the
    // only caller goes through them once, at the start.
    #[allow(unsafe_code, reason = "an inherited descriptor is a number until somebody says that it is owned")]
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let fits = sockopt::socket_domain(&socket).is_ok_and(|family| families.contains(&family))
        && sockopt::socket_type(&socket) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(&socket) == Ok(true);
    fits.then_some(socket)
}
