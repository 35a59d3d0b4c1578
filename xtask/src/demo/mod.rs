//! `cargo xtask demo`: what outgoingd does, shown on this machine with real programs.
//!
//! Builds the programs, starts the daemon, a private Exim and a mail server that stands for the outside world, all on the loopback
//! interface and in directories of their own, and goes through a short story. Each step shows the commands and what they really
//! answered, and checks that it has done what its title says; the first one that has not ends the demonstration with an error
//! that names it. Whatever was started is stopped and removed at the end, also after Ctrl-C. The system's own Exim, if there
//! is one, notices nothing.

mod picture;
mod steps;
mod story;

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use self::steps::Scene;
use self::story::Story;
use crate::cargo::build_programs;
use crate::interrupt::{Interrupt, Interrupted};
use crate::packages;
use crate::testbed::Bed;

/// What happens when the story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// Everything is stopped.
    Stop,
    /// Everything stays until Enter or Ctrl-C, to be tried out by hand.
    Keep,
}

/// Tells the whole story, and draws what was printed into this file, if there is one.
pub fn run(afterwards: Afterwards, picture: Option<&Path>) -> Result<()> {
    let interrupt = Interrupt::listen()?;
    packages::install_missing()?;
    build_programs()?;
    interrupt.check()?;
    let started = Instant::now();
    let mut story = Story::begin();
    story.line("outgoingd, a real Exim, and a mail server that stands for the outside world (*@outside.test)")?;
    let mut scene = Scene::new(Bed::start()?, story);
    if let Err(error) = scene.play(&interrupt) {
        if !error.is::<Interrupted>() {
            scene.show_logs();
        }
        return Err(error);
    }
    scene.story.line(&format!("\nAll of it was so, in {:.1} s.", started.elapsed().as_secs_f64()))?;
    if let Some(file) = picture {
        let drawn = picture::draw(scene.story.told());
        fs::write(file, drawn).with_context(|| format!("cannot write the picture {}", file.display()))?;
    }
    if afterwards == Afterwards::Keep {
        scene.say_how_to_go_on()?;
        interrupt.wait();
        scene.story.line("Stopped.")?;
    }
    Ok(())
}
