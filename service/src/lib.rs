//! What outgoingd's services have in common: where their log lines go ([`logging`]), sockets that systemd hands over
//! ([`inherited`]), what the service manager is told ([`manager`]), and the signals that mean something to them ([`Signals`]).
//!
//! Each makes its own of it: which sockets it wants, what it does on a signal, when its watchdog may be content.

pub mod logging;

pub mod inherited;

pub mod manager;

mod signals;

pub use signals::Signals;
