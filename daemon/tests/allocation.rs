//! What a lookup allocates. One test alone in its program, since the count is the process's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use outgoingd::answer::answer;
use outgoingd::flag::{Flag, Kind, Timestamp};
use outgoingd::name::Subject;
use outgoingd::table::{Owners, Table};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

#[test]
fn a_lookup_allocates_nothing() {
    let table = Table::default();
    table.replace_owners(Owners::from([("example.com".into(), "alice".into())]));
    let flag = Flag { since: Timestamp(0), until: None, by: "root".to_owned(), reason: None, notice: None };
    table.put(&Subject::new("alice").unwrap(), Kind::Hold, Some(&flag));
    let requests =
        ["check id=1rABCD-000abc-XY bob@example.com\n", "check id= carol\n", "check alice", "check a b", "nonsense"];
    let _profiler = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get().total_blocks;
    for request in requests {
        black_box(answer(request.as_bytes(), &table, Timestamp(1)).reply());
    }
    assert_eq!(dhat::HeapStats::get().total_blocks, before);
    // The count does count.
    black_box(answer(b"notice alice", &table, Timestamp(1)).reply());
    assert!(dhat::HeapStats::get().total_blocks > before);
}
