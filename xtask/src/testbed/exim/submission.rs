//! Mail that a program on this host hands in on Exim's command line.

use anyhow::{Context, Result};

use super::Exim;
use crate::testbed::letter::Letter;

/// A message handed in on the command line.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Exit status of the submitting program.
    pub status: i32,
    /// What the submitting user was told.
    pub stderr: String,
    /// Exim's name for the message, if it took one.
    pub id: Option<String>,
}

impl Submission {
    /// The message's name; an error with what the user was told if it was not taken.
    pub fn accepted(self) -> Result<String> {
        let Self { status, stderr, id } = self;
        id.with_context(|| format!("not taken: status {status}, {stderr}"))
    }
}

/// When a message handed in on the command line is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Before the submitting program returns.
    AtOnce,
    /// By a later queue run.
    Queued,
}

impl Exim {
    /// Hands in a letter on the command line, as a program of the Unix user `login` does.
    pub fn submit_as(&self, login: &str, letter: &Letter, when: Delivery) -> Result<Submission> {
        self.submit(&[], &["-oMai", login], letter, when)
    }

    /// Hands in a letter as this Unix user in earnest, who must exist, with more options of Exim's.
    pub fn submit_by(&self, user: &str, options: &[&str], letter: &Letter, when: Delivery) -> Result<Submission> {
        self.submit(&["runuser", "-u", user, "--"], options, letter, when)
    }

    fn submit(&self, wrapper: &[&str], options: &[&str], letter: &Letter, when: Delivery) -> Result<Submission> {
        let delivery = match when {
            Delivery::AtOnce => "-odf",
            Delivery::Queued => "-odq",
        };
        let mut arguments = [options, &[delivery, "-f", &letter.sender]].concat();
        arguments.extend(letter.recipients.iter().map(String::as_str));
        let finished = self.run(wrapper, &arguments, &letter.text())?;
        Ok(Submission { status: finished.code(), stderr: finished.stderr, id: self.id_of(letter)? })
    }

    fn id_of(&self, letter: &Letter) -> Result<Option<String>> {
        let log = self.main_log()?;
        let mark = format!(" id={}", letter.message_id);
        let arrival = log.lines().find(|line| line.ends_with(&mark) || line.contains(&format!("{mark} ")));
        // Date, time, message id.
        let id = arrival.and_then(|line| line.split(' ').nth(2));
        Ok(id.map(str::to_owned))
    }
}
