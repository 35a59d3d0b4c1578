//! What a hostile payload can make the decoder allocate. One test alone in its program, since the count is the process's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use outgoingd_client::protocol::codec;
use outgoingd_client::protocol::frame::MAX_PAYLOAD;
use outgoingd_client::protocol::message::{Call, Dropped, Flag, Judgement, Kind, Reply, Request, Sent};
use outgoingd_client::protocol::text::Verdict;
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// The bytes that decoding `payload` holds at its peak, beside those held before.
fn peak(payload: &[u8]) -> usize {
    let profiler = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get().curr_bytes;
    let _ = black_box((codec::decode::<Call>(payload), codec::decode::<Reply>(payload)));
    let peak = dhat::HeapStats::get().max_bytes - before;
    drop(profiler);
    peak
}

#[test]
fn no_payload_makes_the_decoder_allocate_beyond_its_bound() {
    // A flag of seven bytes takes 128 in memory, of which bincode's limit counts a part, and a list grows by doubling.
    let bound = 9 * MAX_PAYLOAD;
    // Lengths that are claimed and do not follow: flags of an import, the text of a subject, message ids, entries of a log,
    // flags, judgements, events.
    let claims: [&[u8]; 7] = [b"\x00\x06", b"\x00\x03", b"\x00\x0c", b"\x04", b"\x03", b"\x08", b"\x0c"];
    for claim in claims {
        for length in [&b"\xfb\xff\xff"[..], b"\xfc\xff\xff\xff\xff", b"\xfd\xff\xff\xff\xff\xff\xff\xff\x7f"] {
            let payload = [claim, length, &[0; 64]].concat();
            assert!(peak(&payload) <= bound, "{}", payload.escape_ascii());
        }
    }
    // As many flags as a payload holds, as small as they can be.
    let flag = Flag {
        subject: String::new(),
        kind: Kind::Hold,
        since: None,
        until: None,
        by: None,
        reason: None,
        notice: None,
    };
    for count in [1_000, 5_000, 50_000, 100_000, 125_000, 140_000] {
        let call = Call { on_behalf_of: None, request: Request::Import { flags: vec![flag.clone(); count] } };
        assert!(peak(&codec::encode(&call).unwrap()) <= bound, "{count} flags");
    }
    // As many short things as a payload holds in each other list.
    let nothing = String::new;
    for count in [50_000, 262_144, 500_000, 524_288, 1_000_000] {
        let requests = [
            Request::Forget { message_ids: vec![nothing(); count] },
            Request::Judge { subjects: vec![nothing(); count], messages: Vec::new() },
            Request::Judge {
                subjects: Vec::new(),
                messages: vec![Sent { message_id: nothing(), identity: nothing() }; count],
            },
            Request::Drop { dropped: vec![Dropped { subject: nothing(), reason: None }; count] },
        ];
        for request in requests {
            if let Ok(payload) = codec::encode(&Call { on_behalf_of: None, request }) {
                assert!(peak(&payload) <= bound, "{count}: {} {}", peak(&payload), payload[..8].escape_ascii());
            }
        }
        let judgement = Judgement { verdict: Verdict::Ok, passed: false, through: None, covered: false };
        let replies =
            [Reply::Passes { message_ids: vec![nothing(); count], more: false }, Reply::Judged(vec![judgement; count])];
        for reply in replies {
            if let Ok(payload) = codec::encode(&reply) {
                assert!(peak(&payload) <= bound, "{count}: {} {}", peak(&payload), payload[..8].escape_ascii());
            }
        }
    }
    // Bytes without a plan, the same in each run.
    let mut state = 1_u64;
    for length in (0..4096).step_by(7) {
        let payload: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        assert!(peak(&payload) <= bound, "{length} bytes");
    }
}
