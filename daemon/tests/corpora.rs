//! The corpora of the fuzz targets, input by input, through the functions that the fuzzer calls: what it has found once
//! stays found, on any toolchain. Also how much memory an input takes. One test alone in its program, since that is the
//! process's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use outgoingd_client::protocol::frame::MAX_PAYLOAD;
use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// What decoding the longest payload may take at its peak.
const BOUND: usize = 9 * MAX_PAYLOAD;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// What is in a directory of `fuzz/`.
fn entries(directory: &str) -> Vec<PathBuf> {
    let mut entries: Vec<_> =
        fs::read_dir(fuzz().join(directory)).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

fn names(directory: &str) -> BTreeSet<String> {
    entries(directory).iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_input_of_every_corpus_passes_within_its_memory_and_every_target_has_a_corpus() {
    let all = || {
        let daemon = outgoingd::fuzzing::TARGETS.into_iter().map(|(name, target)| ("outgoingd", name, target));
        let client = outgoingd_client::fuzzing::TARGETS.into_iter();
        daemon.chain(client.map(|(name, target)| ("outgoingd_client", name, target)))
    };
    let targets: BTreeSet<String> = all().map(|(_, name, _)| name.to_owned()).collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
    let mut failed = Vec::new();
    for (of, name, target) in all() {
        let source = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("{of}::fuzzing::{name}(bytes)")), "{name} fuzzes something else");
        let inputs = entries(&format!("corpus/{name}"));
        assert!(!inputs.is_empty(), "{name} has an empty corpus");
        // What is made once and kept.
        target(b"");
        for path in inputs {
            let input = fs::read(&path).unwrap();
            let profiler = dhat::Profiler::builder().testing().build();
            let passed = panic::catch_unwind(|| target(&input)).is_ok();
            let peak = dhat::HeapStats::get().max_bytes;
            drop(profiler);
            if !passed || peak > BOUND {
                failed.push(format!("{} ({peak} bytes)", path.display()));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
