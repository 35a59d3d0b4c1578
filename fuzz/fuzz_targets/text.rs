//! See `outgoingd::fuzzing::text`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outgoingd::fuzzing::text(bytes));
