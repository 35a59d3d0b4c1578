//! What Exim leaves behind, for tests to look at: logs, mailboxes, the queue, retry records.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::Exim;
use super::queue::{self, QueuedMessage};
use crate::testbed::LOCAL_DOMAIN;

impl Exim {
    /// The main log.
    pub fn main_log(&self) -> Result<String> {
        read_or_empty(&self.home().join("log/mainlog"))
    }

    /// The panic log, in which nothing should be.
    pub fn panic_log(&self) -> Result<String> {
        read_or_empty(&self.home().join("log/paniclog"))
    }

    /// The lines of the main log about one message, without time and message id.
    pub fn log_of(&self, id: &str) -> Result<Vec<String>> {
        let log = self.main_log()?;
        let separator = format!(" {id} ");
        let events = log.lines().filter_map(|line| line.split_once(&separator));
        Ok(events.map(|(_, event)| event.to_owned()).collect())
    }

    /// What waits.
    pub fn queue(&self) -> Result<Vec<QueuedMessage>> {
        let listing = self.exim(&["-bpu"])?;
        queue::parse(&listing.stdout)
    }

    /// The ids of what waits.
    pub fn ids(&self) -> Result<BTreeSet<String>> {
        Ok(self.queue()?.into_iter().map(|message| message.id).collect())
    }

    /// One message that waits, or nothing.
    pub fn queued(&self, id: &str) -> Result<Option<QueuedMessage>> {
        Ok(self.queue()?.into_iter().find(|message| message.id == id))
    }

    /// The messages delivered to a local part, oldest first.
    pub fn mailbox(&self, local_part: &str) -> Result<Vec<String>> {
        let directory = self.home().join("mail/new");
        if !directory.exists() {
            return Ok(Vec::new());
        }
        let mut messages: Vec<(SystemTime, String)> = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            messages.push((entry.metadata()?.modified()?, read_or_empty(&entry.path())?));
        }
        messages.sort();
        let recipient = format!("Envelope-to: {local_part}@{LOCAL_DOMAIN}\n");
        let texts = messages.into_iter().map(|(_, text)| text);
        Ok(texts.filter(|text| text.contains(&recipient)).collect())
    }

    /// The reports of failed deliveries that a local part has got.
    pub fn bounces_to(&self, local_part: &str) -> Result<Vec<String>> {
        self.mailbox_with(local_part, "\nSubject: Mail delivery failed")
    }

    /// The reports of delayed deliveries that a local part has got.
    pub fn delay_warnings_to(&self, local_part: &str) -> Result<Vec<String>> {
        self.mailbox_with(local_part, "\nSubject: Warning: message ")
    }

    fn mailbox_with(&self, local_part: &str, mark: &str) -> Result<Vec<String>> {
        let messages = self.mailbox(local_part)?.into_iter();
        Ok(messages.filter(|text| text.contains(mark)).collect())
    }

    /// The keys of what Exim remembers of failed deliveries, such as `R:bob@outside.test`.
    pub fn retry_records(&self) -> Result<Vec<String>> {
        if !self.spool().join("db/retry").exists() {
            return Ok(Vec::new());
        }
        let spool = self.spool();
        let dump = Command::new("/usr/sbin/exim_dumpdb")
            .arg(&spool)
            .arg("retry")
            .output()
            .context("could not run exim_dumpdb")?;
        let text = String::from_utf8_lossy(&dump.stdout);
        let keys = text.lines().filter_map(|line| line.trim_start().split(' ').next());
        let is_record = |key: &&str| key.starts_with("R:") || key.starts_with("T:");
        Ok(keys.filter(is_record).map(str::to_owned).collect())
    }

    /// Lets a message that waits have arrived that much earlier.
    ///
    /// Exim counts a message's age from the time in the fourth line of its header file.
    pub fn make_older(&self, id: &str, age: Duration) -> Result<()> {
        let path = self.header_file(id)?;
        let text = fs::read(&path)?;
        let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        let line = lines.get_mut(3).context("header file too short")?;
        let times = String::from_utf8_lossy(line);
        let (received, warnings) = times.split_once(' ').context("no time in header file")?;
        let received: u64 = received.parse().context("no time in header file")?;
        let changed = format!("{} {warnings}", received.saturating_sub(age.as_secs()));
        *line = changed.as_bytes();
        let text = lines.join(&b'\n');
        // In place: the file keeps its owner and mode.
        fs::write(&path, text).with_context(|| format!("could not change {}", path.display()))
    }

    fn header_file(&self, id: &str) -> Result<PathBuf> {
        let input = self.spool().join("input");
        let name = format!("{id}-H");
        let mut candidates = vec![input.join(&name)];
        for entry in fs::read_dir(&input)? {
            candidates.push(entry?.path().join(&name));
        }
        let found = candidates.into_iter().find(|path| path.is_file());
        found.with_context(|| format!("{id} is not on the queue"))
    }
}

fn read_or_empty(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    if path.exists() {
        File::open(path)?.read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
