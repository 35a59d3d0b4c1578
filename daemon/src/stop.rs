//! The word to stop, given once and heard by everyone who waits for it.

use tokio::sync::watch;

/// Hears the word. Clones hear it too, also when it was given before.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Gives the word: by [`Stopper::stop`], or by being dropped.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// A pair of the one who says it and the one who hears it.
#[must_use]
pub fn pair() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Says it.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether it was said.
    #[must_use]
    pub fn is_said(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when it was said.
    pub async fn stopped(&mut self) {
        // An error is a dropped stopper, which says the same.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
