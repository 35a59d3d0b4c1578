//! WHM API 1 and UAPI for outgoingd: what existing scripts and client libraries call, answered as they expect.
//!
//! A client of the daemon like any other. A call is a function and its [`Arguments`]; [`whm`] and [`uapi`] carry it out on a
//! [`Server`], and what they return is a tree of values ([`Answer`]) that [`render`] prints in one of WHM's four formats. Both
//! entries, the command line and the HTTP service, go this way, so that they answer alike.

pub mod arguments;

pub mod answer;

pub mod whm;

pub mod uapi;

pub mod listing;

pub mod server;

pub mod outgoingctl;

pub mod helper;

pub mod render;

#[cfg(feature = "command-line")]
pub mod command_line;

pub use answer::Answer;
pub use arguments::Arguments;
pub use outgoingctl::Outgoingctl;
pub use render::Format;
pub use server::{Queue, Server};
