//! Reads the listing that `exim -bpu` prints.
//!
//! Pure. A listing that does not look as expected is an error: a queue that cannot be read is not an empty queue.

use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A message on the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedMessage {
    /// Exim's name for it.
    pub id: String,
    /// How long ago it came in, as exactly as the listing says.
    pub age: Duration,
    /// Envelope sender; empty for bounces.
    pub sender: String,
    /// Recipients to whom it has not been delivered.
    pub remaining: Vec<String>,
    /// Whether it is frozen.
    pub frozen: bool,
}

/// Reads a whole listing.
pub(super) fn parse(listing: &str) -> Result<Vec<QueuedMessage>> {
    let mut messages: Vec<QueuedMessage> = Vec::new();
    for line in listing.lines().filter(|line| !line.trim().is_empty()) {
        match (line.strip_prefix("          "), messages.last_mut()) {
            (Some(recipient), Some(message)) => message.remaining.push(recipient.trim().to_owned()),
            (Some(_), None) => bail!("a recipient before the first message: {listing:?}"),
            (None, _) => messages.push(heading(line).with_context(|| format!("in {line:?}"))?),
        }
    }
    Ok(messages)
}

fn heading(line: &str) -> Result<QueuedMessage> {
    let mut words = line.split_whitespace();
    let age = age(words.next().context("no age")?)?;
    let id = words.nth(1).context("no message id")?.to_owned();
    let (_, rest) = line.split_once('<').context("no sender")?;
    let (sender, rest) = rest.split_once('>').context("no sender")?;
    Ok(QueuedMessage {
        id,
        age,
        sender: sender.to_owned(),
        remaining: Vec::new(),
        frozen: rest.contains("*** frozen ***"),
    })
}

fn age(word: &str) -> Result<Duration> {
    let (count, unit) = word.split_at_checked(word.len() - 1).context("no unit")?;
    let count: u64 = count.parse().context("no number")?;
    let seconds = match unit {
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => bail!("unknown unit of time {unit:?}"),
    };
    Ok(Duration::from_secs(count * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_with_its_recipients_and_marks() {
        let listing = " 3m   246 1xUPIl-0001Em-1l <a@b> (root)\n          c@d\n          e@f\n\n\
                       25h  1.2K 1xUPIl-0001En-2m <> *** frozen ***\n          g@h\n\n";
        let [first, second] = &parse(listing).unwrap()[..] else {
            panic!("not two messages");
        };
        assert_eq!(first.id, "1xUPIl-0001Em-1l");
        assert_eq!(first.age, Duration::from_secs(180));
        assert_eq!(first.sender, "a@b");
        assert_eq!(first.remaining, ["c@d", "e@f"]);
        assert!(!first.frozen);
        assert_eq!((second.sender.as_str(), second.frozen), ("", true));
    }

    #[test]
    fn what_is_not_a_listing_is_not_an_empty_queue() {
        assert!(parse("exim: permission denied\n").is_err());
    }
}
