//! See `outgoingd_client::fuzzing::spool`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| outgoingd_client::fuzzing::spool(bytes));
