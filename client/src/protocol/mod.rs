//! What is said on the daemon's socket: two languages, told apart by the first byte of a connection.
//!
//! - [`text`]: Exim's side, one request a connection. Pure functions from bytes to values and back.
//! - [`frame`], [`codec`], [`message`]: the administrators' side, frames that hold one encoded value each.
//!   [`function`] names what a token can be good for.
//!
//! Nothing here does I/O, reads a clock or logs. Numbers of times are Unix seconds, as everywhere in the project.
//!
//! A peer's strings are carried as they were typed: their normal form is the daemon's business alone, so that there is
//! one place where it is decided.

pub mod text;

pub mod frame;

pub mod message;

pub mod codec;

pub mod function;

/// Where the daemon listens unless it was told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/outgoingd/outgoingd.sock";

/// The domain whose mailboxes exist for the daemon whatever the owner map says, so that a rehearsal can hold one. They are nobody's:
/// no mail can come from a name in `.invalid` (RFC 2606).
pub const REHEARSAL_DOMAIN: &str = "outgoingd.invalid";
