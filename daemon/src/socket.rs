//! The listening socket: inherited from systemd, or one of our own, made safely.
//!
//! Made safely: a lock file beside it says who may; a socket that somebody answers on is left alone; what is no socket is
//! left alone; and from its first moment nobody may connect whom the configured permissions do not let.

use crate::config::Config;
use crate::lock::{self, Lock, LockError};
use crate::safe;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt::SetBool};
use outgoingd_service::inherited;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// Connections that may wait to be accepted; the kernel's `net.core.somaxconn` is the bound above it. Who comes then waits in
/// connect. Few, since they are served in their order: a peer that connects in a loop delays everybody by a whole queue.
const BACKLOG: i32 = 128;

/// The listening socket and whose it is.
#[derive(Debug)]
pub struct Socket {
    /// Where connections come from.
    pub listener: UnixListener,
    /// Its path.
    pub path: PathBuf,
    /// Removes it at the end, if it is ours.
    pub own: Option<OwnSocket>,
}

/// A socket that this process made. Dropping it removes it.
#[derive(Debug)]
pub struct OwnSocket {
    path: PathBuf,
    inode: u64,
    _lock: Lock,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody listens there.
    #[error("another process listens on {}: stop it, or choose another socket", .0.display())]
    InUse(PathBuf),
    /// A file of another kind is in the way.
    #[error("{} is there and is no socket: move it away, or choose another socket", .0.display())]
    NoSocket(PathBuf),
    /// The configured group is unknown.
    #[error("no group {0} on this system: create it, or change socket-group")]
    NoGroup(String),
    /// What systemd handed over is not what this daemon can use.
    #[error("systemd handed over {0}; outgoingd.socket must have exactly one ListenStream= with a path")]
    Inherited(String),
    /// The system would not let it be made.
    #[error("cannot listen on {}: {source}", path.display())]
    Io {
        /// Path of the socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The socket that systemd handed over, else one at the configured path.
///
/// # Errors
///
/// [`SocketError`].
pub fn obtain(config: &Config) -> Result<Socket, SocketError> {
    let socket = inherited_or_made(config)?;
    refuse_descriptors(&socket.listener);
    Ok(socket)
}

/// Has the kernel refuse descriptors that a peer sends along (`SO_PASSRIGHTS`, Linux 6.16), on this socket and on all that are
/// accepted from it. Nobody here would take them; but dropping the last reference to a TCP socket with `SO_LINGER` set keeps whoever
/// drops it waiting for as long as the peer likes.
fn refuse_descriptors(listener: &UnixListener) {
    match setsockopt(listener, PassRights, &false) {
        // An older kernel: who may connect can keep lookups waiting. The socket's permissions are all that there is against it.
        Err(nix::errno::Errno::ENOPROTOOPT) => {
            info!("this kernel lets peers send descriptors along: let nobody but Exim and administrators connect");
        }
        Err(error) => warn!("cannot have the kernel refuse descriptors: {error}"),
        Ok(()) => {}
    }
}

/// socket(7) does not have it yet; the number is in `asm-generic/socket.h`, which all of Rust's Linux targets but MIPS, PA-RISC and
/// SPARC go by.
const SO_PASSRIGHTS: libc::c_int = 83;

#[derive(Clone, Copy, Debug)]
struct PassRights;

nix::setsockopt_impl!(PassRights, libc::SOL_SOCKET, SO_PASSRIGHTS, bool, SetBool);

fn inherited_or_made(config: &Config) -> Result<Socket, SocketError> {
    match inherited()? {
        Some(listener) => {
            let address = listener.local_addr().ok();
            let path = address.as_ref().and_then(SocketAddr::as_pathname);
            let path = path.ok_or_else(|| SocketError::Inherited("a socket without a path".to_owned()))?.to_path_buf();
            Ok(Socket { listener, path, own: None })
        }
        None => make(config),
    }
}

/// The socket that systemd handed over, if there is one.
fn inherited() -> Result<Option<UnixListener>, SocketError> {
    let mut sockets = inherited::sockets(&[AddressFamily::UNIX], "Unix stream")
        .map_err(|error| SocketError::Inherited(error.to_string()))?;
    match sockets.len() {
        0 | 1 => Ok(sockets.pop().map(UnixListener::from)),
        more => Err(SocketError::Inherited(format!("{more} sockets"))),
    }
}

fn make(config: &Config) -> Result<Socket, SocketError> {
    let io = |source| SocketError::Io { path: config.socket.clone(), source };
    let (Some(directory), Some(name)) = (config.socket.parent(), config.socket.file_name()) else {
        return Err(io(io::ErrorKind::InvalidInput.into()));
    };
    let path = &safe::directory(directory, 0o755).map_err(io)?.join(name);
    let lock = lock::take(&lock_path(path)).map_err(|error| match error {
        LockError::Held(_) => SocketError::InUse(path.clone()),
        LockError::Io(_, source) => io(source),
    })?;
    clear_the_way(path)?;
    let listener = bind(path).map_err(|error| io(error.into()))?;
    set_owner(config, path)?;
    fs::set_permissions(path, Permissions::from_mode(config.socket_mode.0)).map_err(io)?;
    let inode = fs::symlink_metadata(path).map_err(io)?.ino();
    Ok(Socket { listener, path: path.clone(), own: Some(OwnSocket { path: path.clone(), inode, _lock: lock }) })
}

/// Removes a socket that nobody listens on any more.
fn clear_the_way(path: &Path) -> Result<(), SocketError> {
    let io = |source| SocketError::Io { path: path.to_path_buf(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io(error)),
        Ok(there) if !there.file_type().is_socket() => Err(SocketError::NoSocket(path.to_path_buf())),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(io),
            Err(error) => Err(io(error)),
            Ok(_) => Err(SocketError::InUse(path.to_path_buf())),
        },
    }
}

/// Binds with permissions for the owner alone; who else may is set when the owner is right.
fn bind(path: &Path) -> Result<UnixListener, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // The mask is the process's; no other thread of it makes files at this time.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &address);
    rustix::process::umask(before);
    bound?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn set_owner(config: &Config, path: &Path) -> Result<(), SocketError> {
    let name = &config.socket_group;
    if name.is_empty() {
        return Ok(());
    }
    let io = |source| SocketError::Io { path: path.to_path_buf(), source };
    let group = nix::unistd::Group::from_name(name).map_err(|error| io(error.into()))?;
    let group = group.ok_or_else(|| SocketError::NoGroup(name.clone()))?;
    std::os::unix::fs::lchown(path, None, Some(group.gid.as_raw())).map_err(io)
}

fn lock_path(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        // Only if it is still the one that was made: somebody may have put another in its place.
        if fs::symlink_metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
