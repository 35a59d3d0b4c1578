//! See `outgoingd::fuzzing::name`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outgoingd::fuzzing::name(bytes));
