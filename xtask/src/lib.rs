//! The project's chores, and the stage on which its tests run.
//!
//! [`testbed`] starts the real things on the loopback interface, each in a directory of its own that removes itself: an Exim, the
//! daemon, a mail server of the outside world, and a stand-in for the daemon that misbehaves on demand. The integration tests
//! beside this crate and the demonstration ([`demo`]) are written with it. [`checks`] is the list of what must pass before anything is
//! merged, and [`packages`] fetches the one thing that they need from the system: Exim. [`fuzz`] looks for inputs of which nobody
//! has thought, and [`soak`] for what a kill at the wrong moment loses. [`manual`] makes the manual pages.
//!
//! Nothing here is part of what is installed on a server.

// Every error in this crate ends one test or one chore and is printed as a chain of sentences; there is nobody to handle it.
#![allow(clippy::missing_errors_doc)]

pub mod bench;
pub mod checks;
pub mod demo;
pub mod dist;
pub mod fuzz;
pub mod manual;
pub mod packages;
pub mod soak;
pub mod testbed;

mod cargo;
mod dependencies;
mod interrupt;
