//! Everything together, as on a server: the daemon, an Exim with the snippets, and an outside world.
//!
//! The accounts are alice, bob and carol; alice owns the domain `shop.test`, carol owns `evil.test` and `bücher.test`. Nobody is
//! held.

use anyhow::Result;

use super::daemon::Daemon;
use super::exim::{Exim, EximBuilder, Policy};
use super::outside::Outside;

/// All of it; stopped in the order of the fields.
#[derive(Debug)]
pub struct Bed {
    /// The Exim in the middle.
    pub exim: Exim,
    /// Where mail for other domains goes.
    pub outside: Outside,
    /// What Exim asks.
    pub daemon: Daemon,
}

impl Bed {
    /// Starts all three.
    pub fn start() -> Result<Self> {
        Self::varied(|exim| exim)
    }

    /// The same with another configuration of Exim.
    pub fn varied(vary: impl FnOnce(EximBuilder) -> EximBuilder) -> Result<Self> {
        let daemon = Daemon::builder()
            .accounts(&["alice", "bob", "carol"])
            .owner("shop.test", "alice")
            .owner("evil.test", "carol")
            .owner("bücher.test", "carol")
            .start()?;
        let outside = Outside::start()?;
        let policy = Policy::new(&daemon.socket(), &daemon.fallback());
        let exim = vary(Exim::builder().outside(&outside).policy(policy)).start()?;
        Ok(Self { exim, outside, daemon })
    }

    /// Holds a subject's outgoing mail.
    pub fn hold(&self, subject: &str) -> Result<()> {
        self.daemon.must(&["hold", subject]).map(drop)
    }

    /// Releases a subject and leaves its mail to the next queue run.
    pub fn release(&self, subject: &str) -> Result<()> {
        self.daemon.must(&["release", subject, "--keep"]).map(drop)
    }

    /// Suspends a subject's outgoing mail; `notice` is what its senders are told.
    pub fn suspend(&self, subject: &str, notice: &str) -> Result<()> {
        self.daemon.must(&["suspend", subject, "--notice", notice]).map(drop)
    }

    /// Ends a suspension.
    pub fn unsuspend(&self, subject: &str) -> Result<()> {
        self.daemon.must(&["unsuspend", subject]).map(drop)
    }

    /// The recipients, outside, to whom a message on the queue has not been delivered; none if it is not on the queue.
    pub fn waiting(&self, id: &str) -> Result<Vec<String>> {
        Ok(self.exim.queued(id)?.map(|message| message.remaining).unwrap_or_default())
    }
}
