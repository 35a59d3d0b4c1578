//! See `outgoingd::fuzzing::frame`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outgoingd::fuzzing::frame(bytes));
