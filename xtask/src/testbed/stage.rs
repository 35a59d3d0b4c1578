//! The snippets at work: an Exim that includes them, an outside world, and a stand-in for the daemon between them.
//!
//! For tests of what Exim asks, and of what it does when the answer is no answer. The fallback file is written by the test.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use tempfile::TempDir;

use super::exim::{Exim, EximBuilder, Policy};
use super::impostor::{Behaviour, Impostor};
use super::outside::Outside;
use super::public_directory;

/// How long the Exim of a stage waits for an answer. The shortest that Exim can count.
pub const STAGE_TIMEOUT: &str = "1s";

/// All of it; stopped in the order of the fields.
#[derive(Debug)]
pub struct Stage {
    /// The Exim in the middle.
    pub exim: Exim,
    /// Where mail for other domains goes.
    pub outside: Outside,
    /// What is asked; take it away to have nobody listen.
    pub impostor: Option<Impostor>,
    directory: TempDir,
}

impl Stage {
    /// A stage with this behaviour on the socket, and an empty fallback file.
    pub fn with(behaviour: Behaviour) -> Result<Self> {
        Self::varied(behaviour, |exim| exim)
    }

    /// The same with another configuration of Exim.
    pub fn varied(behaviour: Behaviour, vary: impl FnOnce(EximBuilder) -> EximBuilder) -> Result<Self> {
        let directory = public_directory()?;
        let socket = directory.path().join("socket");
        let fallback = directory.path().join("fallback");
        fs::write(&fallback, "")?;
        let outside = Outside::start()?;
        let policy = Policy::new(&socket, &fallback).timeout(STAGE_TIMEOUT);
        let exim = vary(Exim::builder().outside(&outside).policy(policy)).start()?;
        let impostor = Some(Impostor::start(&socket, behaviour)?);
        Ok(Self { exim, outside, impostor, directory })
    }

    /// The fallback file.
    #[must_use]
    pub fn fallback(&self) -> PathBuf {
        self.directory.path().join("fallback")
    }

    /// Writes the fallback file, as the daemon would.
    pub fn fall_back_to(&self, lines: &str) -> Result<()> {
        Ok(fs::write(self.fallback(), lines)?)
    }

    /// From now on, what is asked behaves like this; nothing changes if nobody listens.
    pub fn becomes(&self, behaviour: Behaviour) {
        if let Some(impostor) = &self.impostor {
            impostor.becomes(behaviour);
        }
    }

    /// The questions since the last call of this method; none if nobody listens.
    #[must_use]
    pub fn take_questions(&self) -> Vec<String> {
        self.impostor.as_ref().map(Impostor::take_questions).unwrap_or_default()
    }
}
