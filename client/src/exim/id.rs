//! Exim's message ids.

use std::fmt::{self, Debug, Display, Formatter};

/// Bytes of the longer ones.
const LONGEST: usize = 23;

/// Bytes of the parts between the hyphens: up to Exim 4.96, and since.
const PARTS: [[usize; 3]; 2] = [[6, 6, 2], [6, 11, 4]];

/// A message id: digits and letters in three parts, the first of which is the time of arrival. So the order of ids is that of
/// arrival (Exim's specification, "Message identification").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Its bytes, and zeros behind them.
    bytes: [u8; LONGEST],
}

/// A text that is no message id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a message id of Exim, such as 1rABCD-000abc-XY", .0.escape_debug())]
pub struct NoMessageId(pub String);

impl MessageId {
    /// Takes an id as Exim writes it.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn new(text: &str) -> Result<MessageId, NoMessageId> {
        let lengths = text.split('-').map(str::len);
        let well_formed = PARTS.iter().any(|parts| lengths.clone().eq(*parts))
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !well_formed {
            return Err(NoMessageId(text.chars().take(LONGEST + 1).collect()));
        }
        let mut bytes = [0; LONGEST];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(MessageId { bytes })
    }

    /// As Exim writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(LONGEST);
        // Only ASCII went in.
        str::from_utf8(&self.bytes[..end]).unwrap_or_default()
    }
}

impl Display for MessageId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Debug for MessageId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lengths_are_ids_and_nothing_else_is() {
        for id in ["1rABCD-000abc-XY", "1rABCD-00000000abc-XYZ0"] {
            assert_eq!(MessageId::new(id).unwrap().as_str(), id);
        }
        for wrong in
            ["", "1rABCD-000abc-X", "1rABCD-000abc-XYZ0", "-rABCD-000abc-XY", "1rABCD-000abc-X/", "1rABCD 000abc XY"]
        {
            assert!(MessageId::new(wrong).is_err(), "{wrong}");
        }
        assert!(MessageId::new("1rABCD-000abc-\u{1d7ce}").is_err());
    }

    #[test]
    fn the_order_of_ids_is_that_of_arrival() {
        let ids =
            ["0zzzzz-zzzzzz-zz", "1rABCD-000abc-XY", "1rABCD-000abc-Xa", "1rABCD-000abd-00", "1raaaa-00000000abc-0000"];
        let ids: Vec<MessageId> = ids.iter().map(|id| MessageId::new(id).unwrap()).collect();
        assert!(ids.is_sorted());
    }
}
