//! What must hold of every `-H` file, for the fuzz target of that name in `fuzz/` and for its corpus in the tests. It panics
//! where it does not hold, and does nothing else. No program uses it.

#![allow(clippy::missing_panics_doc, reason = "to panic is what it is for")]

use crate::exim::Header;

/// A function that looks at one input.
pub type Target = fn(&[u8]);

/// It, by the name of its fuzz target and of its corpus.
pub const TARGETS: [(&str, Target); 1] = [("spool", spool)];

/// Bytes are a message or none; a message has nothing that is not in them, and is none without its last byte unless that ends a
/// header.
pub fn spool(bytes: &[u8]) {
    let Ok(header) = Header::parse(bytes) else { return };
    let text = String::from_utf8_lossy(bytes);
    assert!(bytes.starts_with(header.id.as_str().as_bytes()), "another id");
    assert!(header.to_go.len() <= bytes.len(), "more recipients than lines");
    for part in header.to_go.iter().chain(&header.identity).chain([&header.sender]) {
        // What is no UTF-8 is replaced, by itself and within the whole in the same way or not.
        assert!(text.contains(part.as_str()) || part.contains(char::REPLACEMENT_CHARACTER), "{part:?} is not in it");
    }
    assert!(header.identity.as_deref() != Some(""), "nobody has a name");
    assert!(header.size <= bytes.len() as u64, "headers longer than all of it");
    if let Some(subject) = &header.subject {
        assert!(subject.is_empty() || bytes.windows(subject.len()).any(|window| window == subject), "another subject");
    }
    if let Ok(shorter) = Header::parse(&bytes[..bytes.len() - 1]) {
        assert_eq!((shorter.to_go, shorter.identity), (header.to_go, header.identity), "the last byte decides");
    }
}
