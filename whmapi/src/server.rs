//! What functions work on: the daemon, and Exim's queue by way of `outgoingctl`.

use outgoingd_client::Client;
use std::path::PathBuf;

/// The daemon and Exim's queue.
#[derive(Debug)]
pub struct Server {
    /// The daemon.
    pub client: Client,
    /// Exim's queue.
    pub queue: Queue,
}

/// How Exim's queue is reached.
#[derive(Clone, Debug)]
pub enum Queue {
    /// By running `outgoingctl`, which stands there.
    Command(PathBuf),
    /// By asking a helper that listens there.
    Helper(PathBuf),
}
