//! One message as a mail program composes it: envelope, a few headers, one line of text.
//!
//! Every letter has a `Message-ID` of its own, by which it is found again in Exim's log.

use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

static COMPOSED: AtomicU64 = AtomicU64::new(0);

/// A message that has not been sent yet.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Envelope sender.
    pub sender: String,
    /// Envelope recipients.
    pub recipients: Vec<String>,
    /// `Subject:`
    pub subject: String,
    /// `Message-ID:` without the angle brackets.
    pub message_id: String,
}

impl Letter {
    /// A letter with a subject nobody cares about.
    #[must_use]
    pub fn new(sender: &str, recipients: &[&str]) -> Self {
        let number = COMPOSED.fetch_add(1, Ordering::Relaxed);
        Self {
            sender: sender.to_owned(),
            recipients: recipients.iter().map(ToString::to_string).collect(),
            subject: format!("letter {number}"),
            message_id: format!("{number}.{}@letters.test", process::id()),
        }
    }

    /// The same letter with this subject.
    #[must_use]
    pub fn subject(mut self, subject: &str) -> Self {
        subject.clone_into(&mut self.subject);
        self
    }

    /// Headers and body, lines ended by a bare newline.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "From: <{}>\nTo: undisclosed-recipients:;\nSubject: {}\nMessage-ID: <{}>\n\nGood morning.\n",
            self.sender, self.subject, self.message_id
        )
    }
}
