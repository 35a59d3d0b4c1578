//! Messages through a real Exim, with outgoingd's policy and without.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::figures::{Bound, Figure};
use super::{Length, progress};
use crate::testbed::{Bed, Exim, Letter, Outside};

/// Messages of one round.
const MESSAGES: usize = 60;

/// Messages a second, received by SMTP with a login and delivered to the outside.
pub(super) fn through_exim(length: Length) -> Result<Vec<Figure>> {
    progress("messages through a real Exim, policy on and off");
    let bed = Bed::start()?;
    let outside = Outside::start()?;
    let plain = Exim::builder().outside(&outside).start()?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..length.rounds(60) {
        // The order changes, so that neither always comes behind the other.
        if round % 2 == 0 {
            with.push(passed(&bed.exim)?);
            without.push(passed(&plain)?);
        } else {
            without.push(passed(&plain)?);
            with.push(passed(&bed.exim)?);
        }
    }
    let name = "messages a second through Exim, policy on, against off";
    Ok(vec![Figure::ratio(name, best(&with), best(&without), "/s", Bound::AtLeast(0.97))])
}

/// How long the messages take from the first MAIL to the last delivery.
fn passed(exim: &Exim) -> Result<Duration> {
    let letter = Letter::new("bob@local.test", &["friend@outside.test"]);
    let mut session = exim.smtp()?;
    let begun = Instant::now();
    session.login("bob")?;
    for _ in 0..MESSAGES {
        session.send(&letter)?;
    }
    exim.run_queue("-q")?;
    Ok(begun.elapsed())
}

/// The rate of the quickest round: what disturbs a round makes it slower and never quicker.
fn best(rounds: &[Duration]) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "some dozens")]
    let messages = MESSAGES as f64;
    rounds.iter().min().map_or(f64::NAN, |round| messages / round.as_secs_f64())
}
