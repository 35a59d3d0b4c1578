//! The administrators' side of the socket, outer layer: a header, then as many bytes of payload as it says.
//!
//! ```text
//! offset  bytes  what
//!      0      4  magic F5 4F 47 44; F5 begins no text in UTF-8, so no request of the text protocol starts so
//!      4      2  version of the payload, big-endian
//!      6      4  length of the payload in bytes, big-endian, at most 1 MiB
//!     10         payload
//! ```
//!
//! Version 0 is outside of all versions and stays what it is: its payload is a refusal in plain UTF-8 for people. With
//! it a daemon answers a version that it does not speak.

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = [0xF5, b'O', b'G', b'D'];

/// The version of [`message`](super::message) that this crate speaks.
pub const VERSION: u16 = 1;

/// The version of a frame whose payload is a refusal in plain text.
pub const PLAIN_REFUSAL: u16 = 0;

/// Bytes of a header.
pub const HEADER_LEN: usize = 10;

/// Longest payload in bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The version in which the payload is written.
    pub version: u16,
    /// Bytes of payload, at most [`MAX_PAYLOAD`].
    pub length: u32,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first four bytes are not [`MAGIC`].
    #[error("not a frame of outgoingd: wrong first bytes")]
    Magic,
    /// The payload is longer than [`MAX_PAYLOAD`].
    #[error("a frame of {0} bytes is longer than the {MAX_PAYLOAD} that are allowed")]
    TooLong(u64),
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.version.to_be_bytes());
        bytes[6..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Reads a header. Its version is for the caller to compare: only the caller can answer it.
    ///
    /// # Errors
    ///
    /// Wrong magic, or a length over [`MAX_PAYLOAD`]: nothing is allocated before that is checked.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Header, FrameError> {
        let [a, b, c, d, v1, v0, l3, l2, l1, l0] = *bytes;
        if [a, b, c, d] != MAGIC {
            return Err(FrameError::Magic);
        }
        let length = u32::from_be_bytes([l3, l2, l1, l0]);
        if length as usize > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length.into()));
        }
        Ok(Header { version: u16::from_be_bytes([v1, v0]), length })
    }
}

/// A whole frame of this crate's version around `payload`.
///
/// # Errors
///
/// The payload is longer than [`MAX_PAYLOAD`].
pub fn seal(payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    seal_as(VERSION, payload)
}

/// A whole frame of any version around `payload`.
///
/// # Errors
///
/// The payload is longer than [`MAX_PAYLOAD`].
pub fn seal_as(version: u16, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|_| payload.len() <= MAX_PAYLOAD)
        .ok_or(FrameError::TooLong(payload.len() as u64))?;
    let mut frame = Vec::with_capacity(HEADER_LEN + payload.len());
    frame.extend_from_slice(&Header { version, length }.encode());
    frame.extend_from_slice(payload);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_is_these_bytes() {
        assert_eq!(seal(b"xyz").unwrap(), b"\xf5OGD\x00\x01\x00\x00\x00\x03xyz");
    }

    #[test]
    fn the_first_byte_is_no_text() {
        assert!(str::from_utf8(&MAGIC[..1]).is_err());
        assert!(super::super::text::parse(&MAGIC).is_err());
    }

    #[test]
    fn a_length_over_the_bound_is_refused_before_anything_is_allocated() {
        assert_eq!(Header::decode(b"\xf5OGD\x00\x01\x00\x10\x00\x01"), Err(FrameError::TooLong(0x10_0001)));
        assert_eq!(Header::decode(b"\xf5OGD\x00\x01\xff\xff\xff\xff"), Err(FrameError::TooLong(0xffff_ffff)));
        assert!(Header::decode(b"\xf5OGD\x00\x01\x00\x10\x00\x00").is_ok());
        assert!(seal(&vec![0; MAX_PAYLOAD + 1]).is_err());
    }

    #[test]
    fn wrong_first_bytes_are_refused() {
        assert_eq!(Header::decode(b"GET / HTTP"), Err(FrameError::Magic));
    }

    proptest! {
        #[test]
        fn a_header_survives_the_round_trip(version: u16, length in 0..=u32::try_from(MAX_PAYLOAD).unwrap()) {
            let header = Header { version, length };
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn no_header_panics(bytes: [u8; HEADER_LEN]) {
            let _ = Header::decode(&bytes);
        }
    }
}
