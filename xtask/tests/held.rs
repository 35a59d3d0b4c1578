//! `outgoingctl held`: a real Exim's queue, seen with a real daemon's verdicts.
//!
//! What is listed is right, complete and in order, whatever else is on the queue, and while the queue changes. What Exim's user or
//! a sender puts there neither hides anything nor plays with who looks.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::testbed::{Bed, Daemon, Delivery, Exim, Finished, Letter, Outside, Policy, Queued, wait_until};

const FRIEND: &str = "friend@outside.test";
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The rows that programs get; complains of anything that is not one.
fn rows(bed: &Bed, arguments: &[&str]) -> Result<Vec<Value>> {
    parse(&bed.must(&[&["--json", "held"], arguments].concat())?)
}

fn parse(listing: &str) -> Result<Vec<Value>> {
    listing.lines().map(|line| serde_json::from_str(line).with_context(|| format!("in {line:?}"))).collect()
}

fn ids_of(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["message_id"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The ids of what is listed, in the order of the listing.
fn listed(bed: &Bed, arguments: &[&str]) -> Result<Vec<String>> {
    Ok(ids_of(&rows(bed, arguments)?))
}

fn row(bed: &Bed, id: &str) -> Result<Value> {
    let found = rows(bed, &[])?.into_iter().find(|row| row["message_id"] == id);
    found.with_context(|| format!("{id} is not listed"))
}

/// Where a file of a message is, in a spool that is not split.
fn file(exim: &Exim, name: &str) -> PathBuf {
    exim.spool().join("input").join(name)
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

// --- What is shown --------------------------------------------------------------------------------------------------------

#[test]
fn programs_get_all_that_is_known_of_a_held_message() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let letter = Letter::new("desk@shop.test", &["Ann@Outside.test", "bob@local.test", FRIEND]);
    let id = bed.exim.submit_as("alice", &letter.subject("the third reminder"), Delivery::AtOnce)?.accepted()?;
    let mut row = row(&bed, &id)?;
    let received = row["received"].take();
    let (age, size) = (row["age"].take(), row["size"].take());
    let expected = json!({
        "message_id": id, "held_through": "alice", "received": null, "age": null, "size": null, "identity": "alice",
        "sender": "desk@shop.test", "subject_line": "the third reminder",
        "recipients": ["Ann@Outside.test", FRIEND], "frozen": false
    });
    assert_eq!(row, expected);
    assert!(age.as_u64().is_some_and(|age| age < 60), "{age}");
    let listing = bed.exim.exim(&["-bp"])?.stdout;
    assert_eq!(listing.split_whitespace().nth(1), Some(size.to_string().as_str()), "{listing}");
    let (received, moment) = (received.as_str().context("no time")?, now()?.to_string());
    let parsed = Command::new("date").args(["-d", received, "+%s"]).output()?;
    let parsed = String::from_utf8(parsed.stdout)?;
    assert_eq!(parsed.trim()[..7], moment[..7], "{received}");
    Ok(())
}

#[test]
fn people_get_a_line_for_each_message_under_a_heading_and_a_total_below() -> Result<()> {
    let bed = Bed::start()?;
    assert_eq!(bed.must(&["held"])?, "no held mail\n");
    bed.hold("@shop.test")?;
    bed.hold("bob")?;
    let friends = ["ann@outside.test", "ben@outside.test", "cis@outside.test", "dot@outside.test"];
    let long = "0123456789 ".repeat(5);
    let old = Queued::new("desk@shop.test", &friends).age(26 * HOUR).subject(&long).body_size(3_000);
    let old = bed.exim.enqueue(&old)?;
    let young = bed.exim.enqueue(&Queued::new("bob", &friends[..2]).sender("").frozen())?;
    let listing = bed.must(&["held"])?;
    let lines: Vec<&str> = listing.lines().collect();
    let words = |line: &str| {
        line.split("  ").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let heading =
        ["MESSAGE-ID", "AGE", "SIZE", "HELD THROUGH", "IDENTITY", "SENDER", "SUBJECT LINE", "RECIPIENTS TO GO"];
    assert_eq!(words(lines[0]), heading);
    let size = |id: &str| -> Result<String> {
        let listing = bed.exim.exim(&["-bp"])?.stdout;
        let line = listing.lines().find(|line| line.contains(id)).context("not listed by Exim")?;
        Ok(line.split_whitespace().nth(1).context("no size")?.to_owned())
    };
    let shown = "0123456789 012345678 0123456789 01234567".len();
    let short = format!("{}…", &long[..shown]);
    let first = [
        &*old,
        "26h",
        &size(&old)?,
        "@shop.test",
        "desk@shop.test",
        "<desk@shop.test>",
        &short,
        "ann@outside.test, ben@outside.test and 2 more",
    ];
    assert_eq!(words(lines[1]), first);
    let second = [
        &*young,
        "0m, frozen",
        &size(&young)?,
        "bob",
        "bob",
        "<>",
        "good morning",
        "ann@outside.test, ben@outside.test",
    ];
    assert_eq!(words(lines[2]), second);
    let sizes: u64 = rows(&bed, &[])?.iter().filter_map(|row| row["size"].as_u64()).sum();
    assert_eq!(lines[3], "");
    assert_eq!(lines[4], format!("2 messages, {}.{}K", sizes / 1024, (sizes % 1024 * 20 + 1024) / 2048));
    assert_eq!(lines.len(), 5, "{listing}");
    let one = bed.must(&["held", "bob"])?;
    assert!(one.lines().last().is_some_and(|total| total.starts_with("1 message, ")), "{one}");
    Ok(())
}

#[test]
fn the_size_of_a_message_is_the_one_that_exim_says() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    for bytes in
        [0, 1, 500, 800, 1_600, 1_619, 9_800, 9_900, 10_200, 104_000, 1_048_000, 2_000_000, 10_450_000, 12_000_000]
    {
        bed.exim.enqueue(&Queued::new("alice", &[FRIEND]).body_size(bytes))?;
    }
    let listing = bed.exim.exim(&["-bp"])?.stdout;
    let heads: Vec<Vec<&str>> =
        listing.lines().filter(|line| line.contains('<')).map(|line| line.split_whitespace().collect()).collect();
    let shown = bed.must(&["held"])?;
    for head in &heads {
        let row = row(&bed, head[2])?;
        let line = shown.lines().find(|line| line.contains(head[2])).context("not shown")?;
        assert_eq!(line.split_whitespace().nth(2), Some(head[1]), "{row}");
        if let Ok(bytes) = head[1].parse::<u64>() {
            assert_eq!(row["size"], bytes, "{head:?}");
        }
    }
    assert_eq!(heads.len(), 14, "{listing}");
    Ok(())
}

#[test]
fn a_subject_line_is_shown_as_its_reader_would_see_it() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let cases = [
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe_aus?= Ulm", json!("Grüße aus Ulm")),
        ("=?ISO-8859-1?B?R3L832U=?=", json!("Grüße")),
        ("=?utf-8?b?0YHRh9GR0YI=?=\n =?utf-8?b?IOKEliA3?=", json!("счёт № 7")),
        ("a line that\n\tgoes on\n here", json!("a line that goes on here")),
        ("Grüße, as they are", json!("Grüße, as they are")),
        ("=?utf-8?q?broken", json!("=?utf-8?q?broken")),
        ("", Value::Null),
    ];
    for (raw, shown) in &cases {
        let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]).subject(raw))?;
        assert_eq!(row(&bed, &id)?.get("subject_line").unwrap_or(&Value::Null), shown, "{raw:?}");
        let taken = Letter::new("alice@local.test", &[FRIEND]).subject(raw);
        let taken = bed.exim.submit_as("alice", &taken, Delivery::Queued)?.accepted()?;
        assert_eq!(row(&bed, &taken)?.get("subject_line").unwrap_or(&Value::Null), shown, "taken by Exim: {raw:?}");
    }
    // Bytes of no known set of characters.
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]).subject("GrXXe"))?;
    let (path, mut bytes) = (file(&bed.exim, &format!("{id}-H")), Vec::new());
    for part in fs::read(&path)?.split_inclusive(|byte| *byte == b'X') {
        bytes.extend_from_slice(part);
        if bytes.ends_with(b"GrX") || bytes.ends_with(b"Gr\xfcX") {
            *bytes.last_mut().context("empty")? = if bytes.ends_with(b"GrX") { 0xfc } else { 0xdf };
        }
    }
    fs::write(&path, bytes)?;
    let line = row(&bed, &id)?["subject_line"].as_str().context("no subject line")?.to_owned();
    assert!(line.starts_with("Gr") && line.ends_with('e') && !line.contains('X'), "{line}");
    Ok(())
}

// --- Whose mail -----------------------------------------------------------------------------------------------------------

/// Messages of several senders, and who they are.
fn senders(bed: &Bed) -> Result<Vec<(&'static str, String)>> {
    let identities = ["alice", "desk@shop.test", "info@shop.test", "bob", "x@evil.test", "carol", "root", ""];
    let put = |identity| Ok((identity, bed.exim.enqueue(&Queued::new(identity, &[FRIEND]))?));
    identities.into_iter().map(put).collect()
}

#[test]
fn a_message_is_held_mail_from_the_hold_on_whatever_covers_its_sender_to_the_release() -> Result<()> {
    let bed = Bed::start()?;
    let messages = senders(&bed)?;
    let cases: [(&str, &[&str]); 5] = [
        ("desk@shop.test", &["desk@shop.test"]),
        ("@shop.test", &["desk@shop.test", "info@shop.test"]),
        ("alice", &["alice", "desk@shop.test", "info@shop.test"]),
        ("carol", &["x@evil.test", "carol"]),
        ("*", &["alice", "desk@shop.test", "info@shop.test", "bob", "x@evil.test", "carol"]),
    ];
    for (subject, senders) in cases {
        bed.hold(subject)?;
        let held = rows(&bed, &[])?;
        assert!(held.iter().all(|row| row["held_through"] == subject), "{held:?}");
        let expected: Vec<&String> =
            messages.iter().filter(|(sender, _)| senders.contains(sender)).map(|(_, id)| id).collect();
        assert_eq!(ids_of(&held).iter().collect::<Vec<_>>(), expected, "{subject}");
        bed.release(subject)?;
        assert_eq!(listed(&bed, &[])?, [""; 0], "{subject}");
    }
    Ok(())
}

#[test]
fn mail_of_a_suspended_sender_and_a_message_with_a_pass_are_not_held_mail() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    bed.hold("bob")?;
    let message = |identity| bed.exim.enqueue(&Queued::new(identity, &[FRIEND]));
    let (first, second, third) = (message("alice")?, message("alice")?, message("bob")?);
    assert_eq!(listed(&bed, &[])?, [&*first, &second, &third]);
    bed.must(&["pass", "--keep", &first])?;
    assert_eq!(listed(&bed, &[])?, [&*second, &third]);
    bed.suspend("alice", "no more")?;
    assert_eq!(listed(&bed, &[])?, [&*third], "suspend wins");
    bed.unsuspend("alice")?;
    assert_eq!(listed(&bed, &[])?, [&*second, &third]);
    Ok(())
}

#[test]
fn a_subject_narrows_the_listing_to_senders_whom_it_covers_whatever_holds_them() -> Result<()> {
    let bed = Bed::start()?;
    let messages = senders(&bed)?;
    bed.hold("*")?;
    bed.hold("alice")?;
    let cases: [(&str, &[&str]); 7] = [
        ("desk@shop.test", &["desk@shop.test"]),
        ("Desk@SHOP.test", &["desk@shop.test"]),
        ("@shop.test", &["desk@shop.test", "info@shop.test"]),
        ("alice", &["alice", "desk@shop.test", "info@shop.test"]),
        ("@evil.test", &["x@evil.test"]),
        ("root", &[]),
        ("*", &["alice", "desk@shop.test", "info@shop.test", "bob", "x@evil.test", "carol"]),
    ];
    for (subject, senders) in cases {
        let expected: Vec<&String> =
            messages.iter().filter(|(sender, _)| senders.contains(sender)).map(|(_, id)| id).collect();
        assert_eq!(listed(&bed, &[subject])?.iter().collect::<Vec<_>>(), expected, "{subject}");
    }
    Ok(())
}

#[test]
fn a_subject_that_is_none_is_an_error_even_when_there_is_nothing_to_list() -> Result<()> {
    let bed = Bed::start()?;
    for (subject, words) in [("a b", "has a space in it"), ("*@shop.test", "a domain (@example.com)")] {
        for form in [&[][..], &["--summary"], &["--json"]] {
            let refused = bed.ctl(&[&["held", subject], form].concat())?;
            assert_eq!((refused.code(), &*refused.stdout), (1, ""), "{subject}: {refused:?}");
            assert!(refused.stderr.contains(words), "{subject}: {refused:?}");
        }
    }
    Ok(())
}

#[test]
fn who_is_sending_is_what_the_snippets_have_kept_and_before_them_the_login() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let kept = bed.exim.send_as("ALICE", &Letter::new("someone@else.test", &[FRIEND]))?;
    let login = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]).before_the_snippets())?;
    let rows = rows(&bed, &[])?;
    assert_eq!(ids_of(&rows).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([kept, login]));
    let identities: BTreeSet<&str> = rows.iter().filter_map(|row| row["identity"].as_str()).collect();
    assert_eq!(identities, BTreeSet::from(["ALICE", "alice"]));
    Ok(())
}

/// With nobody's login in the bed's Exim that relays for the whole host, as one does for customers' hosts.
#[test]
fn bounces_and_mail_from_other_hosts_are_never_listed() -> Result<()> {
    let bed = Bed::start()?;
    bed.outside.refuse(FRIEND, "550 never");
    let failing = bed.exim.send_as("alice", &Letter::new("alice@outside.test", &[FRIEND]))?;
    bed.exim.deliver(&failing)?;
    let bounce = bed.exim.queue()?.into_iter().next().context("no bounce")?;
    assert_eq!((&*bounce.sender, &*bounce.remaining), ("", &["alice@outside.test".to_owned()][..]));
    // From another host to a local list that leads outside again.
    let options = ["-oMa", "192.0.2.1.25", "-oMt", "mallory", "-f", "mallory@else.test", "-odq", FRIEND];
    let finished = bed.exim.exim(&options)?;
    ensure!(finished.status.success(), "{finished:?}");
    let forwarded = Queued::new("", &["list@local.test"]).list_member(FRIEND, "owner@local.test");
    bed.exim.enqueue(&forwarded.sender("visitor@else.test"))?;
    let own = bed.exim.enqueue(&Queued::new("bob", &[FRIEND]))?;
    bed.hold("*")?;
    assert_eq!(bed.exim.queue()?.len(), 4);
    assert_eq!(listed(&bed, &[])?, [&*own]);
    // Nor if they have been there since before the snippets, when only Exim's own notes say who is sending.
    for message in bed.exim.queue()? {
        let path = file(&bed.exim, &format!("{}-H", message.id));
        let (mut kept, text) = (String::new(), fs::read_to_string(&path)?);
        let mut lines = text.split_inclusive('\n');
        while let Some(line) = lines.next() {
            if line.trim_start_matches('-').starts_with("aclm _outgoingd_") {
                lines.next()
            } else {
                kept.push_str(line);
                None
            };
        }
        assert!(kept.len() < text.len(), "{text}");
        fs::write(&path, kept)?;
    }
    assert_eq!(listed(&bed, &[])?, [own]);
    Ok(())
}

/// The daemon has no verdict on such a login, so Exim goes by the fallback file.
#[test]
fn what_exim_keeps_back_of_a_login_that_is_no_name_is_held_mail_as_well() -> Result<()> {
    let bed = Bed::start()?;
    let logins =
        ["two words", "two words@shop.test", "a\u{1b}[2Jb", "line\nbreak", "no\u{2028}line", "a@b@shop.test", "UPPER."];
    for subject in ["*", "alice", "@shop.test"] {
        bed.hold(subject)?;
        for login in logins {
            let id = bed.exim.send_as(login, &Letter::new("someone@local.test", &[FRIEND]))?;
            bed.exim.deliver(&id)?;
            let kept_back = bed.exim.queued(&id)?.is_some();
            assert!(kept_back || subject != "*", "{login:?}");
            let held: Vec<Value> = rows(&bed, &[subject])?.into_iter().filter(|row| row["message_id"] == id).collect();
            assert_eq!(held.len(), usize::from(kept_back), "{login:?} by {subject}: {:?}", bed.exim.log_of(&id)?);
            assert!(held.iter().all(|row| row["held_through"] == subject), "{held:?}");
        }
        bed.must(&["release", subject])?;
        assert_eq!(bed.exim.queue()?, [], "all that was held through {subject} leaves with it");
    }
    Ok(())
}

// --- Which recipients -----------------------------------------------------------------------------------------------------

#[test]
fn a_message_counts_while_it_has_recipients_outside_to_go_and_no_others_are_shown() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let many: Vec<String> = (0..3_000).map(|number| format!("friend{number}@d{}.test", number % 700)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let message = |recipients: &[&str]| Queued::new("alice", recipients);
    let both = [FRIEND, "bob@local.test"];
    let list =
        message(&["list@local.test"]).list_member(FRIEND, "o@local.test").list_member("bob@local.test", "o@local.test");
    let odd = "\"two words#1\"@outside.test";
    let cases: [(Queued, &[&str]); 14] = [
        (message(&both), &both[..1]),
        (message(&both).delivered(&both[1..]), &both[..1]),
        (message(&both).delivered(&both[..1]), &[]),
        (message(&both).journalled(&both[..1]), &[]),
        (message(&both[1..]), &[]),
        (message(&["Bob@LOCAL.Test"]), &[]),
        (message(&["Bob@LOCAL.Test", "Ann@OUTSIDE.Test"]), &["Ann@OUTSIDE.Test"]),
        (message(&["Ann@OUTSIDE.Test", FRIEND]).delivered(&["Ann@OUTSIDE.Test"]), &[FRIEND]),
        (message(&many), &many),
        (message(&many).delivered(&many[..1_000]).journalled(&many[1_000..2_000]), &many[2_000..]),
        (message(&[FRIEND, "ann@outside.test"]).notify().delivered(&[FRIEND]), &["ann@outside.test"]),
        (list, &[FRIEND]),
        (message(&[odd]).notify(), &[odd]),
        (message(&["ann@[192.0.2.7]", "bob@sub.local.test"]), &["ann@[192.0.2.7]", "bob@sub.local.test"]),
    ];
    let mut expected = Vec::new();
    for (message, to_go) in &cases {
        let id = bed.exim.enqueue(message)?;
        if !to_go.is_empty() {
            expected.push((id, to_go.to_vec()));
        }
    }
    let rows = rows(&bed, &[])?;
    let recipients = |row: &Value| row["recipients"].as_array().cloned().unwrap_or_default();
    assert_eq!(ids_of(&rows), expected.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>());
    for (row, (id, to_go)) in rows.iter().zip(&expected) {
        assert_eq!(recipients(row), *to_go, "{id}");
    }
    Ok(())
}

#[test]
fn what_a_site_calls_outside_is_outside() -> Result<()> {
    let site = "OUTGOINGD_OUTSIDE = !+local_domains : !partner.test : !*.partner.test";
    let bed = Bed::varied(|exim| exim.macros(site))?;
    bed.hold("alice")?;
    let recipients = ["a@partner.test", "b@WEB.partner.test", "c@notpartner.test", "d@local.test"];
    let id = bed.exim.enqueue(&Queued::new("alice", &recipients))?;
    bed.exim.enqueue(&Queued::new("alice", &recipients[..2]))?;
    let rows = rows(&bed, &[])?;
    assert_eq!((ids_of(&rows), &rows[0]["recipients"]), (vec![id], &json!(["c@notpartner.test"])));
    Ok(())
}

#[test]
fn whom_a_delivery_under_way_has_served_is_no_longer_to_go() -> Result<()> {
    let fast = Outside::start()?;
    let way = format!(
        "fast:\n  driver = manualroute\n  domains = fast.test\n  route_list = * 127.0.0.1::{} byname\n  \
         self = send\n  transport = smtp\n",
        fast.address().port()
    );
    let bed = Bed::varied(|exim| exim.routers(&way))?;
    let letter = Letter::new("alice@local.test", &["Ann@FAST.Test", FRIEND]);
    let id = bed.exim.submit_as("alice", &letter, Delivery::Queued)?.accepted()?;
    bed.outside.stall();
    let row = bed.exim.deliver_beside(&id, || {
        bed.outside.wait_until_stalled(1)?;
        bed.hold("alice")?;
        let journal = file(&bed.exim, &format!("{id}-J"));
        let noted = wait_until("the journal", Duration::from_secs(20), || {
            Ok(fs::read_to_string(&journal).is_ok_and(|journal| journal.ends_with('\n')))
        });
        let row = noted.and_then(|()| row(&bed, &id));
        bed.outside.go_on();
        row
    })?;
    assert_eq!(row["recipients"], json!([FRIEND]));
    assert_eq!(listed(&bed, &[])?, [""; 0], "delivered");
    Ok(())
}

// --- How much, and in which order -----------------------------------------------------------------------------------------

#[test]
fn the_oldest_comes_first_wherever_exim_keeps_it() -> Result<()> {
    for more in ["", "split_spool_directory = true"] {
        let bed = Bed::varied(|exim| exim.main(more))?;
        bed.hold("alice")?;
        let mut expected = Vec::new();
        for number in 0..40_u32 {
            // Not in the order in which they come into the directories.
            let age = HOUR * (number * 17 % 40) + Duration::from_secs(u64::from(number) * 7);
            let queue = ["", "slow", "", "Night"][number as usize % 4];
            let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]).age(age).on_queue(queue))?;
            expected.push((std::cmp::Reverse(age), id, queue));
        }
        expected.sort();
        let rows = rows(&bed, &[])?;
        assert_eq!(ids_of(&rows), expected.iter().map(|(_, id, _)| id.clone()).collect::<Vec<_>>(), "{more}");
        for (row, (_, _, queue)) in rows.iter().zip(&expected) {
            assert_eq!(row.get("queue").and_then(Value::as_str).unwrap_or(""), *queue, "{row}");
        }
    }
    Ok(())
}

#[test]
fn a_listing_is_shortened_to_the_oldest_or_to_what_is_older() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let message = |hours: u32| bed.exim.enqueue(&Queued::new("alice", &[FRIEND]).age(HOUR * hours));
    let ids = [message(50)?, message(30)?, message(3)?, message(0)?];
    for limit in 1..=5 {
        let limited = listed(&bed, &["--limit", &limit.to_string()])?;
        assert_eq!(limited, ids[..limit.min(4)], "{limit}");
    }
    for (older, count) in [("30m", 3), ("24h", 2), ("2d", 1), ("1w", 0)] {
        assert_eq!(listed(&bed, &["--older", older])?, ids[..count], "{older}");
    }
    assert_eq!(listed(&bed, &["--older", "1d", "--limit", "1"])?, ids[..1]);
    assert!(bed.must(&["held", "--limit", "2"])?.contains("\n2 messages, "));
    assert_eq!(bed.must(&["held", "--older", "1w"])?, "no held mail\n");
    for wrong in [["--limit", "0"], ["--limit", "-1"], ["--older", "soon"], ["--older", "-1d"]] {
        assert_eq!(bed.ctl(&[&["held"], &wrong[..]].concat())?.code(), 2, "{wrong:?}");
    }
    Ok(())
}

#[test]
fn a_summary_has_totals_for_each_subject_that_holds_something() -> Result<()> {
    let bed = Bed::start()?;
    assert_eq!(
        (bed.must(&["held", "--summary"])?, bed.must(&["--json", "held", "--summary"])?),
        ("no held mail\n".to_owned(), String::new())
    );
    for subject in ["alice", "@shop.test", "bob", "carol"] {
        bed.hold(subject)?;
    }
    let friends = [FRIEND, "ann@outside.test", "bob@local.test"];
    for (identity, hours) in [("alice", 5), ("alice", 30), ("desk@shop.test", 60), ("info@shop.test", 1), ("bob", 0)] {
        bed.exim.enqueue(&Queued::new(identity, &friends).age(HOUR * hours).body_size(1_000))?;
    }
    let rows = rows(&bed, &[])?;
    let size = |subject: &str| -> u64 {
        rows.iter().filter(|row| row["held_through"] == subject).filter_map(|row| row["size"].as_u64()).sum()
    };
    let oldest = |subject: &str| rows.iter().find(|row| row["held_through"] == subject).map(|row| &row["received"]);
    let totals = parse(&bed.must(&["--json", "held", "--summary"])?)?;
    let expected = [("@shop.test", 2), ("alice", 2), ("bob", 1)].map(|(subject, messages)| {
        json!({"subject": subject, "messages": messages, "size": size(subject), "recipients": 2 * messages, "oldest": oldest(subject)})
    });
    assert_eq!(totals, expected);
    let table = bed.must(&["held", "--summary"])?;
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0].join(" "), "SUBJECT MESSAGES SIZE RECIPIENTS TO GO OLDEST");
    let columns = |row: usize| [words[row][0], words[row][1], words[row][3], words[row][4]];
    assert_eq!(columns(1), ["@shop.test", "2", "4", "2d"]);
    assert_eq!(columns(2), ["alice", "2", "4", "30h"]);
    assert_eq!(columns(3), ["bob", "1", "2", "0m"]);
    assert_eq!(words.len(), 4, "{table}");
    let narrow = parse(&bed.must(&["--json", "held", "alice", "--summary", "--older", "12h"])?)?;
    let counts: Vec<_> = narrow.iter().map(|row| (&row["subject"], &row["messages"])).collect();
    assert_eq!(counts, [(&json!("@shop.test"), &json!(1)), (&json!("alice"), &json!(1))]);
    Ok(())
}

#[test]
fn of_thousands_every_held_one_is_listed_and_no_other() -> Result<()> {
    let bed = Bed::varied(|exim| exim.main("split_spool_directory = true"))?;
    bed.hold("alice")?;
    bed.hold("@evil.test")?;
    let identity = |number: usize| ["alice", "bob", "desk@shop.test", "x@evil.test", "carol", ""][number % 6];
    let ids = bed.exim.fill_queue(5_000, |number| {
        let age = Duration::from_secs(number as u64 * 31 % 5_000);
        Queued::new(identity(number), &[FRIEND]).age(age)
    })?;
    let held = |number: &usize| matches!(number % 6, 0 | 2 | 3);
    let mut expected: Vec<&String> = (0..5_000).filter(held).map(|number| &ids[number]).collect();
    expected.sort();
    // The end of the queue is worth a warning, which shows who comes there.
    let youngest = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    fs::write(file(&bed.exim, &youngest[5..6]).join(format!("{youngest}-H")), "")?;
    let rows = rows(&bed, &[])?;
    assert!(ids_of(&rows).iter().eq(expected.iter().copied()), "{} of {}", rows.len(), expected.len());
    let Finished { stdout: table, stderr: warnings, .. } = bed.ctl(&["held"])?;
    assert!(warnings.contains(&youngest), "{warnings}");
    // Headed once, however many tables are printed one after another.
    let shown = table.lines().skip(1).take(expected.len()).filter_map(|line| line.split_whitespace().next());
    assert!(shown.eq(expected.iter().map(|id| id.as_str())), "{table}");
    assert!(table.lines().nth(expected.len() + 2).is_some_and(|total| total.starts_with("2500 messages, ")));
    for arguments in [&["held"][..], &["--json", "held"]] {
        let mut listing = bed.ctl_command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(listing.stdout.take().context("no output")?).read_line(&mut line)?;
        let ended = listing.wait_with_output()?;
        assert!(line.contains(if arguments.len() == 1 { "MESSAGE-ID" } else { expected[0] }), "{line}");
        assert_eq!((ended.status.code(), String::from_utf8(ended.stderr)?), (Some(0), String::new()));
    }
    Ok(())
}

#[test]
fn a_listing_is_right_at_every_moment_of_a_queue_that_changes() -> Result<()> {
    let bed = Bed::varied(|exim| exim.main("split_spool_directory = true"))?;
    bed.hold("alice")?;
    let stay = bed
        .exim
        .fill_queue(300, |number| Queued::new("alice", &[FRIEND]).age(Duration::from_secs(number as u64 * 3)))?;
    let stay: BTreeSet<&str> = stay.iter().map(String::as_str).collect();
    let done = AtomicBool::new(false);
    let change = || -> Result<usize> {
        let mut changes = 0;
        while !done.load(Ordering::Relaxed) {
            let put = |number: usize| {
                let identity = ["alice", "bob"][number % 2];
                Queued::new(identity, &[FRIEND, "bob@local.test"]).age(Duration::from_secs(number as u64 * 50))
            };
            let ids = bed.exim.fill_queue(20, put)?;
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let letter = Letter::new("alice@local.test", &[FRIEND, "bob@local.test"]);
            let taken = bed.exim.submit_as("alice", &letter, Delivery::AtOnce)?.accepted()?;
            // To the local recipient only, to both, and to nobody.
            bed.exim.exim(&[&["-Mc"], &ids[..10]].concat())?;
            bed.exim.exim(&[&["-Mf"], &ids[10..15]].concat())?;
            bed.exim.exim(&[&["-Mrm", &*taken], &ids[..]].concat())?;
            changes += 1;
        }
        Ok(changes)
    };
    thread::scope(|scope| -> Result<()> {
        let changing = scope.spawn(change);
        let listings: Result<Vec<Vec<String>>> = (0..40).map(|_| listed(&bed, &[])).collect();
        done.store(true, Ordering::Relaxed);
        let changes = changing.join().expect("no panic")?;
        let listings = listings?;
        for ids in &listings {
            assert!(ids.is_sorted_by(|one, next| one < next), "in order, and none twice: {ids:?}");
            let seen = ids.iter().map(String::as_str).collect();
            assert!(stay.is_subset(&seen), "missing: {:?}", stay.difference(&seen));
        }
        let passing = listings.iter().filter(|ids| ids.len() > stay.len()).count();
        assert!(changes > 0 && passing > 0, "{changes} changes, {passing} listings with more than what stays");
        Ok(())
    })?;
    assert_eq!(listed(&bed, &[])?.len(), stay.len());
    Ok(())
}

// --- What may be in the way -----------------------------------------------------------------------------------------------

#[test]
fn what_is_no_message_is_named_in_a_warning_and_hides_nothing() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let message = || bed.exim.enqueue(&Queued::new("alice", &[FRIEND]).age(HOUR));
    let first = message()?;
    let strange: Vec<(String, &str)> =
        ["line 1", "it names another message", "regular", "link", "regular", "32 MiB", "line", "cannot read"]
            .into_iter()
            .map(|words| Ok((message()?, words)))
            .collect::<Result<_>>()?;
    let last = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    let path = |number: usize| file(&bed.exim, &format!("{}-H", strange[number].0));
    let whole = fs::read(path(6))?;
    for number in 0..strange.len() {
        fs::remove_file(path(number))?;
    }
    let secret = bed.daemon.home().join("secret");
    fs::write(&secret, "the crown jewels\n")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    fs::write(path(0), "")?;
    fs::copy(file(&bed.exim, &format!("{first}-H")), path(1))?;
    ensure!(Command::new("mkfifo").arg(path(2)).status()?.success(), "no pipe");
    symlink(&secret, path(3))?;
    DirBuilder::new().create(path(4))?;
    File::create(path(5))?.set_len(33 << 20)?;
    fs::write(path(6), &whole[..whole.len() / 2])?;
    let _socket = std::os::unix::net::UnixListener::bind(path(7))?;
    for arguments in [&["--json", "held"][..], &["held"], &["held", "--summary"]] {
        let finished = bed.ctl(arguments)?;
        assert_eq!(finished.code(), 0, "{finished:?}");
        for (number, (_, words)) in strange.iter().enumerate() {
            let name = path(number).display().to_string();
            let warnings: Vec<&str> = finished.stderr.lines().filter(|line| line.contains(&name)).collect();
            assert!(
                matches!(warnings[..], [line] if line.starts_with("outgoingctl: warning: ") && line.contains(words)),
                "{words}: {warnings:?}"
            );
        }
        assert_eq!(finished.stderr.lines().count(), strange.len(), "{finished:?}");
        assert!(!format!("{finished:?}").contains("crown jewels"), "{finished:?}");
        if arguments[0] == "--json" {
            assert_eq!(ids_of(&parse(&finished.stdout)?), [&*first, &last]);
        } else {
            let (found, word) =
                if arguments.len() == 1 { (finished.stdout.contains(&first), "2 messages") } else { (true, "  2 ") };
            assert!(found && finished.stdout.contains(word), "{finished:?}");
        }
    }
    Ok(())
}

/// What Exim's user could make in its directories, and what a file system of its own has in its root.
#[test]
fn links_that_exims_user_makes_lead_nowhere_and_hide_nothing() -> Result<()> {
    let reader = "[access]\nreader-users = ['games']";
    let bed = Bed::configured(|daemon| daemon.for_everyone().tables(reader), |exim| exim)?;
    bed.hold("alice")?;
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    let odd_log = bed.exim.enqueue(&Queued::new("alice", &[FRIEND, "bob@local.test"]))?;
    let linked = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    let (spool, elsewhere) = (bed.exim.spool(), bed.daemon.home().join("elsewhere"));
    let split = &linked[5..6];
    // With a message wherever one could be found.
    for place in ["", split, "input", &format!("input/{split}")] {
        let directory = elsewhere.join(place);
        fs::create_dir_all(&directory)?;
        for suffix in ["-H", "-D"] {
            let name = format!("{linked}{suffix}");
            fs::copy(file(&bed.exim, &name), directory.join(name))?;
        }
    }
    for suffix in ["-H", "-D"] {
        fs::remove_file(file(&bed.exim, &format!("{linked}{suffix}")))?;
    }
    let owner = fs::metadata(&spool)?;
    let link = |target: &Path, name: &str| -> Result<()> {
        symlink(target, spool.join(name))?;
        Ok(lchown(spool.join(name), Some(owner.uid()), Some(owner.gid()))?)
    };
    fs::create_dir(spool.join("queue"))?;
    link(Path::new("loop"), "loop")?;
    link(Path::new("a"), "input/a")?;
    link(&elsewhere, "linked")?;
    link(&elsewhere, "queue/input")?;
    link(&elsewhere, &format!("input/{split}"))?;
    DirBuilder::new().create(spool.join("lost+found"))?;
    fs::set_permissions(spool.join("lost+found"), fs::Permissions::from_mode(0o700))?;
    fs::create_dir_all(spool.join("msglog").join(&odd_log))?;
    for finished in [bed.ctl(&["--json", "held"])?, bed.ctl_by_member("games", "Debian-exim", &["--json", "held"])?] {
        assert_eq!((finished.code(), &*finished.stderr), (0, ""), "{finished:?}");
        assert_eq!(ids_of(&parse(&finished.stdout)?), [&*id, &odd_log]);
    }
    let refused = bed.ctl(&["drop", "--yes", &linked])?;
    assert!(refused.code() == 1 && refused.stderr.contains("there is no message"), "{refused:?}");
    Ok(())
}

#[test]
fn subjects_of_almost_a_megabyte_and_claims_of_recipients_cost_no_memory() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let subject = "x".repeat(900_000);
    bed.exim.fill_queue(100, |_| Queued::new("alice", &[FRIEND]).subject(&subject))?;
    let claiming = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    let path = file(&bed.exim, &format!("{claiming}-H"));
    let text = fs::read_to_string(&path)?;
    let claim = text.replace("\n1\nfriend@", "\n600000\nfriend@");
    assert_ne!(text, claim);
    fs::write(&path, claim)?;
    let listing = bed.ctl_command(&["--json", "held", "--summary"]);
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--data={}", 60 << 20)).arg(listing.get_program()).args(listing.get_args());
    let finished = limited.output()?;
    let (totals, warnings) = (String::from_utf8(finished.stdout)?, String::from_utf8(finished.stderr)?);
    assert!(finished.status.success(), "{}: {warnings}", finished.status);
    assert_eq!(parse(&totals)?[0]["messages"], 100);
    assert!(warnings.contains(&claiming) && warnings.contains("at most 500000"), "{warnings}");
    assert_eq!(warnings.lines().count(), 1, "{warnings}");
    Ok(())
}

#[test]
fn a_subject_that_is_no_account_is_worth_a_warning() -> Result<()> {
    let bed = Bed::start()?;
    for (arguments, shown) in [
        (&["held", "typo"][..], "no held mail\n"),
        (&["--json", "held", "typo"], ""),
        (&["drop", "--subject", "typo"], "typo: nothing that is held or suspended waits\n"),
    ] {
        let finished = bed.ctl(arguments)?;
        assert_eq!((finished.code(), &*finished.stdout), (0, shown), "{finished:?}");
        assert!(finished.stderr.contains("warning: ") && finished.stderr.contains("no account typo"), "{finished:?}");
    }
    Ok(())
}

#[test]
fn what_a_sender_writes_cannot_play_with_the_terminal_of_who_looks() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("*")?;
    let evil = "x\u{1b}[2J\u{7}\u{9b}31m\u{202e}\u{2066}\u{2028}\u{200b}\rz";
    let encoded = "=?utf-8?q?=1B]0;owned=07_=E2=80=AE_=0D=0A=0Afake?=";
    let address = format!("\"{evil}\"@outside.test");
    let id = bed.exim.enqueue(&Queued::new(evil, &[&address]).sender(&address).subject(evil))?;
    bed.exim.enqueue(&Queued::new("alice", &[FRIEND]).subject(encoded))?;
    for arguments in [&["held"][..], &["held", "--summary"]] {
        for shown in [bed.must(arguments)?, bed.ctl_on_terminal(arguments, "")?.stdout.replace("\r\n", "\n")] {
            let unsafe_one = |character: char| {
                character.is_control() && character != '\n' || "\u{202e}\u{2066}\u{2028}\u{200b}".contains(character)
            };
            // On a terminal a bar is drawn and taken away again before.
            let shown = shown.rsplit_once("\r\u{1b}[2K").map_or(&*shown, |(_, shown)| shown);
            assert!(!shown.contains(unsafe_one), "{shown:?}");
        }
    }
    let table = bed.must(&["held"])?;
    assert_eq!(table.lines().count(), 5, "a line for each: {table}");
    let escaped = r"x\u{1b}[2J\u{7}\u{9b}31m\u{202e}\u{2066}\u{2028}\u{200b}\rz";
    assert!(table.contains(&format!("<\"{escaped}\"@outside.test>")), "{table}");
    assert!(table.contains(&escaped[..40]), "{table}");
    let listing = bed.must(&["--json", "held"])?;
    assert!(!listing.contains(['\u{1b}', '\u{7}', '\r']), "{listing:?}");
    let row = row(&bed, &id)?;
    assert_eq!((&row["sender"], &row["recipients"][0]), (&json!(address), &json!(address)));
    assert_eq!(row["identity"], evil);
    Ok(())
}

// --- Who may look, and with what ------------------------------------------------------------------------------------------

#[test]
fn only_who_may_operate_exim_and_ask_the_daemon_sees_held_mail() -> Result<()> {
    let daemon = Daemon::builder()
        .accounts(&["alice"])
        .for_everyone()
        .tables("[access]\nreader-users = ['games', 'man']")
        .start()?;
    let outside = Outside::start()?;
    let policy = Policy::new(&daemon.socket(), &daemon.fallback());
    let exim = Exim::builder()
        .outside(&outside)
        .policy(policy)
        .macros("OUTGOINGD_OUTSIDE = !+local_domains : !near.test")
        .start()?;
    let bed = Bed { exim, outside, daemon };
    bed.hold("alice")?;
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND, "ann@near.test"]))?;
    let group = "Debian-exim";
    let reader = bed.ctl_by_member("games", group, &["--json", "held"])?;
    assert_eq!((reader.code(), &*reader.stderr), (0, ""), "{reader:?}");
    let rows = parse(&reader.stdout)?;
    assert_eq!((ids_of(&rows), &rows[0]["recipients"]), (vec![id], &json!([FRIEND])));
    for (arguments, form) in [(&["held"][..], "table"), (&["--json", "held", "--summary"], "totals")] {
        let stranger = bed.ctl_by("man", arguments)?;
        assert_eq!((stranger.code(), &*stranger.stdout), (77, ""), "{form}: {stranger:?}");
        assert!(
            stranger
                .stderr
                .contains("may not operate Exim (/usr/sbin/exim4): become root, or a member of Exim's own group"),
            "{stranger:?}"
        );
        let unknown = bed.ctl_by_member("bin", group, arguments)?;
        assert_eq!((unknown.code(), &*unknown.stdout), (77, ""), "{form}: {unknown:?}");
        assert!(unknown.stderr.contains("bin may neither look nor change: become root, or be named"), "{unknown:?}");
        let own = bed.ctl_by(group, arguments)?;
        assert_eq!(own.code(), 77, "Exim's own user is no administrator of the daemon: {own:?}");
        let nobody = bed.ctl_by("nobody", arguments)?;
        assert_eq!(nobody.code(), 77, "{nobody:?}");
    }
    Ok(())
}

#[test]
fn without_an_exim_it_is_said_how_to_name_one() -> Result<()> {
    let bed = Bed::start()?;
    let cases = [
        ("/nonexistent/exim", "cannot run /nonexistent/exim"),
        ("/bin/false", "/bin/false does not say where its queue is"),
        ("/bin/true", "/bin/true does not say where its queue is"),
        ("/bin/echo", "/bin/echo does not say where its queue is"),
    ];
    for (program, words) in cases {
        let failed = bed.ctl(&["held", "--exim", program])?;
        assert_eq!((failed.code(), &*failed.stdout), (1, ""), "{program}: {failed:?}");
        assert!(failed.stderr.contains(words) && failed.stderr.contains("--exim"), "{program}: {failed:?}");
    }
    // None in PATH, nor where it is looked for behind PATH.
    let mut command = Command::new("unshare");
    let hide =
        "for place in /usr/sbin /usr/local/sbin; do mount --bind \"$1\" $place || exit 99; done; shift; exec \"$@\"";
    let empty = bed.exim.home().join("mail");
    let ctl = bed.daemon.program("outgoingctl");
    command.args(["--mount", "--propagation", "private", "--", "sh", "-c", hide, "sh"]).arg(&empty).arg(&ctl);
    let socket = bed.daemon.socket();
    command.arg("--socket").arg(&socket).args(["held"]).env("PATH", "/usr/bin:/bin").env_remove("OUTGOINGCTL_EXIM");
    let failed = command.output()?;
    let said = String::from_utf8(failed.stderr)?;
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(
        said.contains("found no Exim (looked for exim4 and exim in PATH and /usr/sbin") && said.contains("--exim"),
        "{said}"
    );
    let unread = bed.ctl(&["held", "--exim", "/usr/sbin/exim4"])?;
    assert_eq!((unread.code(), &*unread.stdout), (0, "no held mail\n"));
    Ok(())
}
