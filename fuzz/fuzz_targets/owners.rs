//! See `outgoingd::fuzzing::owners`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outgoingd::fuzzing::owners(bytes));
