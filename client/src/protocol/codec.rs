//! The administrators' side of the socket, the encoding of values: bincode 2, standard configuration.
//!
//! One of the two files of the project that know bincode's name; the other writes the records on disk. Golden bytes in
//! the tests of [`message`](super::message) pin the layout.

use super::frame::MAX_PAYLOAD;
use serde::{Serialize, de::DeserializeOwned};

/// The bytes are not one encoded value and nothing more, or the value cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(String);

/// The payload of `value`.
///
/// # Errors
///
/// The payload would be longer than [`MAX_PAYLOAD`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let payload = bincode::serde::encode_to_vec(value, bincode::config::standard())
        .map_err(|error| CodecError(format!("cannot encode a message: {error}")))?;
    if payload.len() > MAX_PAYLOAD {
        return Err(CodecError(format!(
            "a message of {} bytes is longer than the {MAX_PAYLOAD} that are allowed",
            payload.len()
        )));
    }
    Ok(payload)
}

/// The value in `payload`. Claimed lengths are checked against [`MAX_PAYLOAD`] before memory is taken for them; what a payload
/// makes this allocate stays below nine times that bound.
///
/// # Errors
///
/// The payload is cut off, is no `T`, or goes on behind it.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, CodecError> {
    let configuration = bincode::config::standard().with_limit::<MAX_PAYLOAD>();
    let (value, read) = bincode::serde::decode_from_slice(payload, configuration)
        .map_err(|error| CodecError(format!("cannot decode a message: {error}")))?;
    if read != payload.len() {
        return Err(CodecError(format!("cannot decode a message: {} bytes behind its end", payload.len() - read)));
    }
    Ok(value)
}
