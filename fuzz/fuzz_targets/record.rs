//! See `outgoingd::fuzzing::record`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outgoingd::fuzzing::record(bytes));
