//! Mail is removed from a real queue without a bounce: `outgoingctl drop`, `release --drop`, `suspend --drop` and `sweep`.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use xtask::testbed::{Bed, Daemon, Delivery, Exim, Letter, Outside, Queued, RETRY_AS_ON_DEBIAN, Running, wait_until};

const FRIEND: &str = "friend@outside.test";

const PATIENCE: Duration = Duration::from_secs(30);

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A message of this sender that is so many days old.
fn days_old(identity: &str, days: u32) -> Queued {
    Queued::new(identity, &[FRIEND]).age(24 * HOUR * days + HOUR)
}

fn fill(bed: &Bed, identity: &str, count: usize) -> Result<Vec<String>> {
    bed.exim.fill_queue(count, |_| Queued::new(identity, &[FRIEND]))
}

fn set<const COUNT: usize>(ids: [&String; COUNT]) -> BTreeSet<String> {
    ids.into_iter().cloned().collect()
}

/// Nobody has got anything: neither those to whom it was written, nor the sender a bounce.
fn nobody_got_anything(bed: &Bed) -> Result<()> {
    bed.exim.run_queue("-qff")?;
    assert_eq!(bed.outside.recipients(), Vec::<String>::new());
    for account in ["alice", "bob", "carol"] {
        assert_eq!(bed.exim.mailbox(account)?, Vec::<String>::new(), "{account}");
    }
    assert_eq!(bed.exim.panic_log()?, "");
    Ok(())
}

/// What the audit trail has, oldest first: what was done, and to what.
fn trail(bed: &Bed) -> Result<Vec<String>> {
    let log = bed.daemon.must(&["--json", "log"])?;
    let word = |line: &str, name: &str| {
        let value = line.split(&format!("\"{name}\":\"")).nth(1).and_then(|rest| rest.split('"').next());
        value.map(str::to_owned).with_context(|| format!("no {name} in {line}"))
    };
    log.lines().map(|line| Ok(format!("{} {}", word(line, "action")?, word(line, "subject")?))).collect()
}

/// `outgoingctl` on a terminal: when it asks, `meanwhile` happens, and then `answer` is typed. Its exit status, and what the terminal showed.
fn ask(bed: &Bed, arguments: &[&str], meanwhile: impl FnOnce() -> Result<()>, answer: &str) -> Result<(i32, String)> {
    let beside = bed.ctl_command(arguments);
    let words = [beside.get_program()].into_iter().chain(beside.get_args());
    let quoted: Vec<String> =
        words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))).collect();
    let mut terminal = Command::new("timeout")
        .args(["60", "script", "-qec", &quoted.join(" "), "/dev/null"])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (mut typed, mut screen) =
        (terminal.stdin.take().context("no stdin")?, terminal.stdout.take().context("no stdout")?);
    let (mut shown, mut buffer) = (Vec::new(), [0; 512]);
    while !String::from_utf8_lossy(&shown).contains("[y/N] ") {
        let length = screen.read(&mut buffer)?;
        ensure!(length > 0, "it did not ask: {}", String::from_utf8_lossy(&shown));
        shown.extend_from_slice(&buffer[..length]);
    }
    meanwhile()?;
    typed.write_all(answer.as_bytes())?;
    drop(typed);
    screen.read_to_end(&mut shown)?;
    Ok((terminal.wait()?.code().unwrap_or(-1), String::from_utf8_lossy(&shown).into_owned()))
}

/// Waits for the next second of the clock: what comes in from now on is newer than what was there.
fn next_second() -> Result<()> {
    let seconds = || Ok::<_, anyhow::Error>(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
    let now = seconds()?;
    wait_until("the next second", PATIENCE, || Ok(seconds()? > now))
}

#[test]
fn single_messages_of_stopped_senders_are_removed_without_a_bounce_and_on_record() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    bed.suspend("bob", "call 555")?;
    let held = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    let stays = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    let suspended = bed.exim.enqueue(&Queued::new("bob", &[FRIEND]))?;
    let printed = bed.must(&["drop", "--yes", &held, &suspended])?;
    assert_eq!(printed, format!("{held}: removed\n{suspended}: removed\n"));
    assert_eq!(bed.exim.ids()?, set([&stays]));
    assert!(bed.exim.log_of(&held)?.iter().any(|line| line.starts_with("removed by root")));
    assert_eq!(trail(&bed)?[2..], [format!("drop {held}"), format!("drop {suspended}")]);
    let log = bed.daemon.must(&["--json", "log", &held])?;
    assert!(log.contains(r#""reason":"alice""#) && log.contains(r#""by":"root","uid":0"#), "{log}");
    let json = bed.must(&["--json", "drop", "--yes", &stays])?;
    assert_eq!(json, format!("{{\"command\":\"drop\",\"subject\":\"{stays}\",\"removed\":1,\"left\":0}}\n"));
    nobody_got_anything(&bed)
}

#[test]
fn messages_that_are_not_stopped_are_not_removed() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let held = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    let passed = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    let free = bed.exim.enqueue(&Queued::new("carol", &[FRIEND]))?;
    bed.must(&["pass", "--keep", &passed])?;
    for (id, words) in [
        (free.as_str(), "is neither held nor suspended"),
        (&passed, "has a pass"),
        ("1rABCD-000abc-XY", "no message 1rABCD-000abc-XY on Exim's queue"),
        ("nonsense", "message id"),
    ] {
        let refused = bed.ctl(&["drop", id, "--yes"])?;
        assert_eq!(refused.code(), 1, "{id}: {refused:?}");
        assert!(refused.stderr.contains(words), "{id}: {refused:?}");
    }
    assert_eq!(trail(&bed)?.len(), 2, "a hold and a pass");
    let mixed = bed.ctl(&["drop", "--yes", &free, &held, "nonsense"])?;
    assert_eq!((mixed.code(), mixed.stdout), (1, format!("{held}: removed\n")));
    assert_eq!(bed.must(&["drop", "--subject", "*", "--yes"])?, "*: nothing that is held or suspended waits\n");
    assert_eq!(bed.exim.ids()?, set([&passed, &free]));
    Ok(())
}

#[test]
fn of_a_subject_all_that_is_stopped_is_removed_and_of_nobody_else() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    bed.suspend("info@shop.test", "call 555")?;
    for identity in ["alice", "sales@shop.test", "info@shop.test"] {
        bed.exim.enqueue(&Queued::new(identity, &[FRIEND]))?;
    }
    let free = bed.exim.enqueue(&Queued::new("carol", &[FRIEND]))?;
    bed.hold("bob")?;
    let other = bed.exim.enqueue(&Queued::new("bob", &[FRIEND]))?;
    let local = bed.exim.enqueue(&Queued::new("alice", &["bob@local.test"]))?;
    assert_eq!(bed.must(&["drop", "--subject", "alice", "--yes"])?, "alice: 3 messages removed\n");
    assert_eq!(bed.exim.ids()?, set([&free, &other, &local]));
    let trail = trail(&bed)?;
    assert_eq!(trail.last().map(String::as_str), Some("drop alice"));
    let log = bed.daemon.must(&["--json", "log", "-n", "1"])?;
    assert!(log.contains(r#""reason":"3 messages, drop","by":"root""#), "{log}");
    Ok(())
}

#[test]
fn mail_of_suspended_senders_is_left_alone_if_that_is_said() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    bed.suspend("sales@shop.test", "call 555")?;
    let held = bed.exim.enqueue(&Queued::new("info@shop.test", &[FRIEND]))?;
    let passed = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    let suspended = bed.exim.enqueue(&Queued::new("sales@shop.test", &[FRIEND]))?;
    bed.daemon.must(&["pass", "--keep", &passed])?;
    let none = bed.must(&["drop", "--subject", "sales@shop.test", "--held", "--yes"])?;
    assert_eq!(none, "sales@shop.test: nothing that is held waits\n");
    assert_eq!(bed.exim.ids()?, set([&held, &passed, &suspended]));
    assert_eq!(bed.must(&["drop", "--subject", "alice", "--held", "--yes"])?, "alice: 1 message removed\n");
    assert_eq!(bed.exim.ids()?, set([&passed, &suspended]));
    Ok(())
}

#[test]
fn only_what_is_older_is_removed_if_that_is_said() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    for days in [30, 2] {
        bed.exim.enqueue(&days_old("alice", days))?;
    }
    let younger = bed.exim.enqueue(&days_old("alice", 1))?;
    let printed = bed.must(&["--json", "drop", "--subject", "alice", "--older", "2d", "--yes"])?;
    assert_eq!(printed, "{\"command\":\"drop\",\"subject\":\"alice\",\"removed\":2,\"left\":0}\n");
    assert_eq!(bed.exim.ids()?, set([&younger]));
    nobody_got_anything(&bed)
}

#[test]
fn where_nobody_can_be_asked_nothing_is_removed_without_yes() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let ids = fill(&bed, "alice", 2)?;
    for arguments in [&["drop", "--subject", "alice"][..], &["drop", &ids[0]], &["--json", "drop", &ids[0], &ids[1]]] {
        let refused = bed.ctl(arguments)?;
        assert_eq!((refused.code(), refused.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(refused.stderr.contains("--yes"), "{refused:?}");
    }
    assert_eq!(bed.exim.queue()?.len(), 2);
    assert_eq!(trail(&bed)?, ["hold alice"]);
    Ok(())
}

#[test]
fn on_a_terminal_it_is_asked_first_and_only_a_yes_removes() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let ids = fill(&bed, "alice", 3)?;
    let subject = ["drop", "--subject", "alice"];
    for no in ["\n", "n\n", "what?\n", ""] {
        let asked = bed.ctl_on_terminal(&subject, no)?;
        assert_eq!(asked.code(), 1, "{no:?}: {asked:?}");
        assert!(asked.stdout.contains("Remove 3 messages of alice for good, without a bounce? [y/N] "), "{asked:?}");
        assert!(asked.stdout.contains("nothing was changed"), "{asked:?}");
    }
    let asked = bed.ctl_on_terminal(&["drop", &ids[0]], "n\n")?;
    assert!(asked.code() == 1 && asked.stdout.contains("Remove 1 message for good"), "{asked:?}");
    assert_eq!(bed.exim.queue()?.len(), 3);
    assert_eq!(trail(&bed)?, ["hold alice"]);
    let asked = bed.ctl_on_terminal(&["drop", &ids[0]], "y\n")?;
    assert!(asked.code() == 0 && asked.stdout.contains(&format!("{}: removed", ids[0])), "{asked:?}");
    let asked = bed.ctl_on_terminal(&subject, "Yes\n")?;
    assert!(asked.code() == 0 && asked.stdout.contains("alice: 2 messages removed"), "{asked:?}");
    assert_eq!(bed.exim.ids()?, BTreeSet::new());
    Ok(())
}

#[test]
fn what_comes_in_after_the_question_is_not_removed() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    fill(&bed, "alice", 2)?;
    for (arguments, words) in [
        (&["drop", "--subject", "alice"][..], "alice: 2 messages removed"),
        (&["release", "alice", "--drop"], "alice: 1 message removed"),
    ] {
        let mut later = String::new();
        let meanwhile = || {
            next_second()?;
            later = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
            Ok(())
        };
        let (status, shown) = ask(&bed, arguments, meanwhile, "y\n")?;
        assert!(status == 0 && shown.contains(words), "{status} {shown}");
        assert_eq!(bed.exim.ids()?, set([&later]), "{arguments:?}");
    }
    Ok(())
}

#[test]
fn nothing_to_remove_is_no_error_and_not_on_record() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let dropped = bed.ctl(&["drop", "--subject", "alice"])?;
    assert_eq!((dropped.code(), dropped.stdout.as_str()), (0, "alice: nothing that is held or suspended waits\n"));
    let json = bed.must(&["--json", "drop", "--subject", "alice"])?;
    assert_eq!(json, "{\"command\":\"drop\",\"subject\":\"alice\",\"removed\":0,\"left\":0}\n");
    assert_eq!(trail(&bed)?, ["hold alice"]);
    // It need not exist any more.
    let gone = bed.must(&["drop", "--subject", "nobody-here"])?;
    assert_eq!(gone, "nobody-here: nothing that is held or suspended waits\n");
    assert_eq!(bed.must(&["release", "alice", "--drop"])?, "alice: 0 messages removed\nalice: released\n");
    assert_eq!(bed.must(&["suspend", "bob", "--drop"])?, "bob: suspended\nbob: 0 messages removed\n");
    assert_eq!(trail(&bed)?, ["hold alice", "release alice", "hold bob", "suspend bob", "release bob"]);
    Ok(())
}

#[test]
fn two_thousand_messages_are_removed_and_on_record_by_the_hundreds() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    fill(&bed, "alice", 2_000)?;
    let stays = bed.exim.enqueue(&Queued::new("carol", &[FRIEND]))?;
    assert_eq!(bed.must(&["drop", "--subject", "alice", "--yes"])?, "alice: 2000 messages removed\n");
    assert_eq!(bed.exim.ids()?, set([&stays]));
    assert_eq!(trail(&bed)?, ["hold alice", "drop alice", "drop alice", "drop alice", "drop alice"]);
    Ok(())
}

#[test]
fn mail_on_named_queues_and_in_a_split_spool_is_removed_too() -> Result<()> {
    let bed = Bed::varied(|exim| exim.main("split_spool_directory"))?;
    bed.hold("alice")?;
    bed.exim.fill_queue(6, |number| {
        let message = Queued::new("alice", &[FRIEND]).age(Duration::from_secs(number as u64));
        if number.is_multiple_of(2) { message } else { message.on_queue("bulk") }
    })?;
    let single = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]).on_queue("bulk"))?;
    assert_eq!(bed.must(&["drop", &single, "--yes"])?, format!("{single}: removed\n"));
    assert_eq!(bed.must(&["drop", "--subject", "alice", "--yes"])?, "alice: 6 messages removed\n");
    assert_eq!(bed.must(&["held"])?, "no held mail\n");
    nobody_got_anything(&bed)
}

#[test]
fn what_is_being_delivered_is_waited_for_and_not_said_to_be_removed_when_it_was_delivered() -> Result<()> {
    let bed = Bed::start()?;
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    bed.outside.stall();
    let finished = bed.exim.deliver_beside(&id, || {
        bed.outside.wait_until_stalled(1)?;
        bed.hold("alice")?;
        bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
        let dropping = bed.spawn_ctl(&["drop", "--subject", "alice", "--yes"])?;
        wait_until("the other message to be removed", PATIENCE, || Ok(bed.exim.ids()? == set([&id])))?;
        bed.outside.go_on();
        dropping.finish()
    })?;
    assert_eq!(finished.code(), 0, "{finished:?}");
    assert_eq!(finished.stdout, "alice: 1 message removed, 1 gone meanwhile\n");
    assert_eq!(bed.outside.recipients(), [FRIEND]);
    assert_eq!(bed.exim.ids()?, BTreeSet::new());
    assert_eq!(bed.exim.panic_log()?, "");
    Ok(())
}

#[test]
fn a_single_message_that_was_delivered_instead_is_said_to_be_gone() -> Result<()> {
    let bed = Bed::start()?;
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    bed.outside.stall();
    let finished = bed.exim.deliver_beside(&id, || {
        bed.outside.wait_until_stalled(1)?;
        bed.hold("alice")?;
        let other = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
        let dropping = bed.spawn_ctl(&["drop", &other, &id, "--yes"])?;
        wait_until("the other message to be removed", PATIENCE, || Ok(bed.exim.ids()? == set([&id])))?;
        bed.outside.go_on();
        let finished = dropping.finish()?;
        assert_eq!(finished.stdout, format!("{other}: removed\n"));
        Ok(finished)
    })?;
    assert_eq!(finished.code(), 1, "{finished:?}");
    assert!(finished.stderr.contains(&format!("{id} has left the queue before it could be removed")), "{finished:?}");
    assert_eq!(bed.outside.recipients(), [FRIEND]);
    Ok(())
}

#[test]
fn what_is_being_delivered_for_too_long_is_named_and_not_lost_and_does_not_keep_other_subjects_waiting() -> Result<()> {
    let bed = Bed::start()?;
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    bed.outside.stall();
    let [by_subject, by_id, released] = bed.exim.deliver_beside(&id, || {
        bed.outside.wait_until_stalled(1)?;
        for subject in ["alice", "carol"] {
            bed.hold(subject)?;
        }
        fill(&bed, "carol", 2)?;
        // All at once, since each of them waits its ten seconds.
        let running = [
            bed.spawn_ctl(&["drop", "--subject", "alice", "--yes"])?,
            bed.spawn_ctl(&["--json", "drop", &id, "--yes"])?,
            bed.spawn_ctl(&["release", "--drop", "alice", "carol"])?,
        ];
        let [by_subject, by_id, released] = running.map(Running::finish);
        assert_eq!(bed.exim.ids()?, set([&id]));
        bed.outside.go_on();
        Ok([by_subject?, by_id?, released?])
    })?;
    assert_eq!((by_subject.code(), by_subject.stdout.as_str()), (1, "alice: 0 messages removed, 1 left\n"));
    assert!(by_subject.stderr.contains(&format!("{id} is still on the queue: ")), "{by_subject:?}");
    assert!(by_subject.stderr.contains("locked"), "{by_subject:?}");
    assert!(
        by_subject.stderr.ends_with("drop could not remove 1 message; what is left waits as before\n"),
        "{by_subject:?}"
    );
    assert_eq!(by_id.code(), 1, "{by_id:?}");
    assert!(by_id.stdout.contains(&format!(r#"{{"subject":"{id}","command":"drop","error":""#)), "{by_id:?}");
    assert!(by_id.stdout.ends_with("\"cause\":\"stuck\"}\n"), "{by_id:?}");
    assert_eq!(released.code(), 1, "{released:?}");
    assert_eq!(released.stdout, "alice: 0 messages removed, 1 left\ncarol: 2 messages removed\ncarol: released\n");
    assert!(released.stderr.ends_with("release failed for 1 of 2\n"), "{released:?}");
    assert!(bed.daemon.must(&["check", "alice"])?.starts_with("hold"), "what is left stays held");
    assert_eq!(bed.outside.recipients(), [FRIEND], "it was delivered");
    Ok(())
}

#[test]
fn suspending_tells_how_much_will_be_bounced() -> Result<()> {
    let bed = Bed::start()?;
    fill(&bed, "alice", 3)?;
    bed.exim.enqueue(&Queued::new("sales@shop.test", &[FRIEND]))?;
    fill(&bed, "carol", 2)?;
    let printed = bed.must(&["suspend", "alice"])?;
    assert!(printed.starts_with("alice: suspended\n4 messages on the queue will be bounced"), "{printed}");
    assert!(printed.contains("outgoingctl drop --subject"), "{printed}");
    let json = bed.must(&["--json", "suspend", "carol"])?;
    assert_eq!(
        json,
        "{\"subject\":\"carol\",\"command\":\"suspend\",\"changed\":true}\n{\"command\":\"suspend\",\"waiting\":2}\n"
    );
    assert_eq!(bed.must(&["suspend", "bob"])?, "bob: suspended\n");
    assert_eq!(bed.exim.queue()?.len(), 6);
    Ok(())
}

#[test]
fn a_sender_is_suspended_though_exim_cannot_be_asked_what_waits() -> Result<()> {
    let bed = Bed::start()?;
    let suspended = bed.daemon.ctl(&["suspend", "alice"])?;
    assert_eq!((suspended.code(), suspended.stdout.as_str()), (0, "alice: suspended\n"));
    assert!(suspended.stderr.contains("warning: how many messages wait"), "{suspended:?}");
    assert!(bed.daemon.must(&["check", "alice"])?.starts_with("suspend"));
    Ok(())
}

#[test]
fn nothing_bounces_when_a_sender_is_suspended_and_the_mail_dropped_however_often_the_queue_is_run() -> Result<()> {
    let bed = Bed::start()?;
    bed.outside.refuse_everyone("450 come back");
    fill(&bed, "alice", 60)?;
    let (done, runs) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| -> Result<()> {
        let running = scope.spawn(|| -> Result<()> {
            while !done.load(Relaxed) {
                bed.exim.run_queue("-qff")?;
                runs.store(true, Relaxed);
            }
            Ok(())
        });
        let outcome = wait_until("the first queue run", PATIENCE, || Ok(runs.load(Relaxed)))
            .and_then(|()| bed.must(&["suspend", "alice", "--drop", "--reason", "phished"]));
        done.store(true, Relaxed);
        running.join().expect("the queue runner does not panic")?;
        assert_eq!(outcome?, "alice: suspended\nalice: 60 messages removed\n");
        Ok(())
    })?;
    assert_eq!(bed.exim.ids()?, BTreeSet::new());
    assert_eq!(trail(&bed)?, ["hold alice", "drop alice", "suspend alice", "release alice"]);
    let exported = bed.daemon.must(&["export"])?;
    assert_eq!(exported.lines().count(), 1, "suspended, and no longer held: {exported}");
    assert!(exported.contains(r#""flag":"suspend""#) && exported.contains("phished"), "{exported}");
    bed.outside.accept_everyone();
    nobody_got_anything(&bed)
}

#[test]
fn a_hold_that_was_there_before_a_suspend_with_drop_stays_as_it_was() -> Result<()> {
    let bed = Bed::start()?;
    bed.must(&["hold", "alice", "--for", "7d", "--reason", "slow down"])?;
    fill(&bed, "alice", 2)?;
    let before = bed.daemon.must(&["export"])?;
    assert_eq!(bed.must(&["suspend", "alice", "--drop"])?, "alice: suspended\nalice: 2 messages removed\n");
    let after = bed.daemon.must(&["export"])?;
    assert!(after.contains(&before) && after.lines().count() == 2, "{before}{after}");
    // Without its end while that goes on, and with the same one behind it.
    assert_eq!(trail(&bed)?, ["hold alice", "hold alice", "drop alice", "suspend alice", "hold alice"]);
    nobody_got_anything(&bed)
}

/// `suspend alice --drop` is interrupted while it waits for a message that is being delivered; before it, `first` happens.
fn interrupted_suspend(bed: &Bed, first: impl FnOnce() -> Result<()>) -> Result<()> {
    fill(bed, "alice", 2)?;
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    bed.outside.stall();
    let finished = bed.exim.deliver_beside(&id, || {
        bed.outside.wait_until_stalled(1)?;
        first()?;
        let mut suspending = bed.spawn_ctl(&["suspend", "alice", "--drop"])?;
        wait_until("the others to be removed", PATIENCE, || Ok(bed.exim.ids()? == set([&id])))?;
        suspending.interrupt()?;
        let finished = suspending.finish();
        bed.outside.refuse_everyone("450 come back");
        bed.outside.go_on();
        finished
    })?;
    assert_eq!((finished.code(), finished.stdout.as_str()), (1, "alice: 2 messages removed, 1 left\n"));
    assert!(finished.stderr.contains("alice is held and not suspended"), "{finished:?}");
    assert!(bed.daemon.must(&["check", "alice"])?.starts_with("hold"));
    Ok(())
}

#[test]
fn a_suspend_with_drop_that_is_interrupted_leaves_the_sender_held_and_nothing_bounces() -> Result<()> {
    let bed = Bed::start()?;
    interrupted_suspend(&bed, || Ok(()))?;
    let flags = bed.daemon.must(&["export"])?;
    assert!(flags.contains("until what waits is removed"), "{flags}");
    bed.exim.run_queue("-qff")?;
    assert!(bed.exim.mailbox("alice")?.is_empty());
    assert_eq!(bed.must(&["suspend", "alice", "--drop"])?, "alice: suspended\nalice: 0 messages removed\n");
    Ok(())
}

#[test]
fn a_suspend_with_drop_that_cannot_remove_a_message_leaves_the_sender_held() -> Result<()> {
    let bed = Bed::start()?;
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    bed.outside.stall();
    let suspended = bed.exim.deliver_beside(&id, || {
        bed.outside.wait_until_stalled(1)?;
        let suspended = bed.ctl(&["suspend", "alice", "--drop"])?;
        bed.outside.go_on();
        Ok(suspended)
    })?;
    assert_eq!((suspended.code(), &*suspended.stdout), (1, "alice: 0 messages removed, 1 left\n"), "{suspended:?}");
    assert!(suspended.stderr.ends_with("so that what is left neither leaves nor bounces\n"), "{suspended:?}");
    assert!(bed.daemon.must(&["check", "alice"])?.starts_with("hold"));
    assert_eq!(bed.must(&["suspend", "alice", "--drop"])?, "alice: suspended\nalice: 0 messages removed\n");
    Ok(())
}

/// A message that Exim has not tried yet, to the outside and to somebody here.
fn to(bed: &Bed, here: &str, identity: &str) -> Result<String> {
    let letter = Letter::new("alice@local.test", &[FRIEND, here]);
    bed.exim.submit_as(identity, &letter, Delivery::Queued)?.accepted()
}

#[test]
fn whoever_is_on_this_host_gets_what_is_held_before_it_is_removed() -> Result<()> {
    let list = ADDRESSES.replace("data = friend@outside.test", "data = ann@outside.test, bob@local.test");
    let bed = Bed::varied(|exim| exim.routers(&list))?;
    for (here, mailbox) in [("bob@local.test", "bob"), ("list@local.test", "list")] {
        let mut letters = 0;
        for command in [
            &["drop", "--subject", "alice", "--yes"][..],
            &["drop", "ID", "--yes"],
            &["release", "alice", "--drop"],
            &["suspend", "alice", "--drop"],
        ] {
            bed.hold("alice")?;
            let id = to(&bed, here, "alice")?;
            let command = command.iter().map(|word| if *word == "ID" { &*id } else { word }).collect::<Vec<_>>();
            bed.must(&command)?;
            letters += 1;
            assert_eq!(bed.exim.mailbox(mailbox)?.len(), letters, "{here}: {command:?}");
            assert_eq!(bed.exim.ids()?, BTreeSet::new(), "{here}: {command:?}");
        }
        bed.unsuspend("alice")?;
    }
    assert_eq!(bed.outside.recipients(), Vec::<String>::new());
    assert!(bed.exim.mailbox("alice")?.is_empty(), "nothing bounced");
    Ok(())
}

#[test]
fn where_exim_does_not_ask_no_attempt_is_made_for_somebody_on_this_host() -> Result<()> {
    let outside = Outside::start()?;
    let exim = Exim::builder().outside(&outside).start()?;
    let bed = Bed { daemon: Daemon::builder().accounts(&["alice"]).start()?, exim, outside };
    bed.hold("alice")?;
    let id = to(&bed, "bob@local.test", "alice")?;
    let dropped = bed.ctl(&["drop", "--subject", "alice", "--yes"])?;
    assert!(dropped.code() == 1 && dropped.stderr.contains("bob@local.test"), "{dropped:?}");
    assert_eq!(bed.exim.ids()?, set([&id]));
    assert_eq!(bed.outside.recipients(), Vec::<String>::new());
    Ok(())
}

#[test]
fn what_somebody_on_this_host_has_not_got_is_left_where_he_cannot_have_it_at_once() -> Result<()> {
    let bed = Bed::configured(
        |daemon| daemon.tables("[held]\nmax-messages = 1"),
        |exim| exim.routers(ADDRESSES).retry(RETRY_AS_ON_DEBIAN),
    )?;
    let suspended = to(&bed, "bob@local.test", "carol")?;
    bed.suspend("carol", "call 555")?;
    let put_off = to(&bed, "later@local.test", "alice")?;
    bed.hold("alice")?;
    let untried = [to(&bed, "bob@local.test", "alice")?, to(&bed, "bob@local.test", "alice")?];
    assert_eq!(bed.must(&["sweep"])?, "no held mail is over its bounds\n");
    assert_eq!(bed.exim.ids()?, set([&suspended, &put_off, &untried[0], &untried[1]]));
    for (subject, id, who, removed) in
        [("carol", &suspended, "bob@local.test", 0), ("alice", &put_off, "later@local.test", 2)]
    {
        let dropped = bed.ctl(&["drop", "--subject", subject, "--yes"])?;
        let said = format!("{id} was not removed: {who} is on this host and has not got it\n");
        assert!(dropped.code() == 1 && dropped.stderr.contains(&said), "{dropped:?}");
        assert!(dropped.stdout.starts_with(&format!("{subject}: {removed} messages removed, 1 left\n")), "{dropped:?}");
        let dropped = bed.ctl(&["drop", id, "--yes"])?;
        assert!(dropped.code() == 1 && dropped.stderr.contains(said.trim_end()), "{dropped:?}");
    }
    assert_eq!(bed.exim.ids()?, set([&suspended, &put_off]));
    assert_eq!(bed.exim.mailbox("bob")?.len(), 2);
    assert!(bed.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn a_suspend_with_drop_that_is_interrupted_leaves_a_sender_held_who_was_held_before() -> Result<()> {
    let bed = Bed::start()?;
    interrupted_suspend(&bed, || bed.must(&["hold", "alice", "--reason", "before"]).map(drop))?;
    let flags = bed.daemon.must(&["export"])?;
    assert!(flags.contains(r#""reason":"before""#), "{flags}");
    bed.exim.run_queue("-qff")?;
    assert!(bed.exim.mailbox("alice")?.is_empty());
    Ok(())
}

#[test]
fn a_release_with_drop_removes_what_waits_and_clears_the_hold_then() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    fill(&bed, "alice", 3)?;
    let asked = bed.ctl_on_terminal(&["release", "alice", "--drop"], "n\n")?;
    assert!(asked.code() == 1 && asked.stdout.contains("Remove 3 messages of alice"), "{asked:?}");
    assert_eq!(bed.exim.queue()?.len(), 3);
    assert_eq!(trail(&bed)?, ["hold alice"]);
    // It has been told with an option, so where nobody can be asked it is done.
    assert_eq!(bed.must(&["release", "alice", "--drop"])?, "alice: 3 messages removed\nalice: released\n");
    assert!(bed.daemon.must(&["check", "alice"])?.starts_with("ok"));
    assert_eq!(trail(&bed)?, ["hold alice", "drop alice", "release alice"]);
    nobody_got_anything(&bed)
}

#[test]
fn a_release_with_drop_leaves_what_another_hold_keeps() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("*")?;
    bed.hold("alice")?;
    let of_alice = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    bed.exim.enqueue(&Queued::new("carol", &[FRIEND]))?;
    assert_eq!(bed.must(&["release", "*", "--drop", "--yes"])?, "*: 1 message removed\n*: released\n");
    assert_eq!(bed.exim.ids()?, set([&of_alice]));
    nobody_got_anything(&bed)
}

#[test]
fn without_bounds_a_sweep_removes_nothing_and_says_so() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    bed.exim.enqueue(&days_old("alice", 1_000))?;
    let printed = bed.must(&["sweep"])?;
    assert_eq!(printed, "neither held.max-age nor held.max-messages is set, so held mail stays\n");
    assert_eq!(bed.must(&["--json", "sweep"])?, "{\"command\":\"sweep\",\"passes_gone\":0}\n");
    assert_eq!(bed.exim.queue()?.len(), 1);
    Ok(())
}

#[test]
fn a_sweep_removes_for_each_held_subject_the_oldest_over_its_bounds_and_nothing_else() -> Result<()> {
    let bounds = "[held]\nmax-age = '2d'\nmax-messages = 3";
    let bed = Bed::configured(|daemon| daemon.tables(bounds), |exim| exim)?;
    let old = |subject| format!("{{\"subject\":\"{subject}\",\"flag\":\"hold\",\"since\":\"2020-01-01T00:00:00Z\"}}\n");
    let holds = bed.daemon.ctl_with_input(&["import", "-"], &["alice", "carol", "bob"].map(old).concat())?;
    assert_eq!(holds.code(), 0, "{holds:?}");
    // What has waited for other reasons before it was held has not been held for so long.
    bed.hold("new@shop.test")?;
    bed.suspend("info@shop.test", "call 555")?;
    let mut stay = BTreeSet::new();
    let mut enqueue = |identity: &str, days: u32, stays: bool| -> Result<()> {
        let id = bed.exim.enqueue(&days_old(identity, days))?;
        if stays {
            stay.insert(id);
        }
        Ok(())
    };
    // Too old and not too many, too many and not too old, both.
    for (identity, days, stays) in [
        ("alice", 3, false),
        ("alice", 2, false),
        ("sales@shop.test", 1, true),
        ("carol", 1, false),
        ("carol", 0, true),
        ("carol", 0, true),
        ("carol", 0, true),
        ("bob", 9, false),
        ("bob", 8, false),
        ("bob", 1, false),
        ("bob", 0, true),
        ("bob", 0, true),
        ("bob", 0, true),
        ("new@shop.test", 9, true),
    ] {
        enqueue(identity, days, stays)?;
    }
    bed.exim.run_queue("-q")?;
    // What Exim has not tried yet, what is suspended, and what nothing stops.
    for (identity, days) in [("alice", 4), ("info@shop.test", 9), ("free@elsewhere.test", 9)] {
        enqueue(identity, days, true)?;
    }
    let before = (bed.exim.ids()?, trail(&bed)?);
    let tried = bed.must(&["--json", "sweep", "--dry-run"])?;
    let left = |subject: &str, left| format!("{{\"command\":\"sweep\",\"subject\":\"{subject}\",\"excess\":{left}}}\n");
    let forgotten = "{\"command\":\"sweep\",\"passes_gone\":0}\n";
    assert_eq!(tried, format!("{forgotten}{}{}{}", left("alice", 2), left("bob", 3), left("carol", 1)));
    assert_eq!((bed.exim.ids()?, trail(&bed)?), before, "nothing was done");
    let printed = bed.must(&["sweep"])?;
    let over = "alice: 2 messages are over its bounds\nbob: 3 messages are over its bounds\ncarol: 1 message is over its bounds\n";
    assert_eq!(printed, format!("{over}6 messages removed\n"), "of no single subject, and not of everyone");
    assert_eq!(bed.exim.ids()?, stay);
    assert_eq!(trail(&bed)?[5..], ["drop alice", "drop bob", "drop carol"]);
    let log = bed.daemon.must(&["--json", "log", "alice", "-n", "1"])?;
    assert!(log.contains("2 messages, over held.max-age or held.max-messages"), "{log}");
    assert_eq!(bed.must(&["sweep"])?, "no held mail is over its bounds\n");
    assert_eq!(bed.exim.panic_log()?, "");
    assert!(bed.exim.mailbox("bob")?.is_empty() && bed.exim.mailbox("alice")?.is_empty());
    Ok(())
}

#[test]
fn a_sweep_forgets_passes_of_messages_that_are_gone_and_keeps_the_others() -> Result<()> {
    let bed = Bed::configured(|daemon| daemon.tables("[held]\nmax-messages = 1"), |exim| exim)?;
    bed.hold("alice")?;
    let passed = bed.exim.enqueue(&days_old("alice", 3))?;
    let held = bed.exim.enqueue(&days_old("alice", 2))?;
    bed.must(&["pass", "--keep", &passed, "1rABCD-000abc-XY", "1rABCD-000abd-XY"])?;
    let tried = bed.must(&["sweep", "--dry-run"])?;
    assert_eq!(tried, "passes of messages that are gone: 2\nno held mail is over its bounds\n");
    let stats = |bed: &Bed| bed.daemon.must(&["--json", "stats"]);
    assert!(stats(&bed)?.contains(r#""passes":3"#));
    assert_eq!(bed.must(&["sweep"])?, tried);
    assert!(stats(&bed)?.contains(r#""passes":1"#));
    assert!(bed.daemon.must(&["check", "alice", "--id", &passed])?.starts_with("ok"));
    assert_eq!(bed.exim.ids()?, set([&passed, &held]), "what has a pass is not held");
    Ok(())
}

#[test]
fn exims_user_sweeps_if_it_comes_with_the_group_for_that_and_may_change_nothing_else() -> Result<()> {
    let tables = "[held]\nmax-messages = 1\n[access]\nsweep-groups = ['games']";
    let bed = Bed::configured(|daemon| daemon.for_everyone().tables(tables), |exim| exim)?;
    bed.hold("alice")?;
    let oldest = bed.exim.enqueue(&days_old("alice", 2))?;
    let newest = bed.exim.enqueue(&days_old("alice", 1))?;
    bed.exim.run_queue("-q")?;
    bed.must(&["pass", "--keep", "1rABCD-000abc-XY"])?;

    let refused = bed.ctl_by_mere("Debian-exim", "Debian-exim", &["sweep"])?;
    assert!(refused.code() == 77 && refused.stderr.contains("[access]"), "{refused:?}");
    for arguments in [&["hold", "bob"][..], &["release", "--keep", "alice"], &["pass", "--keep", &oldest]] {
        let refused = bed.ctl_by_mere("Debian-exim", "games", arguments)?;
        assert!(refused.code() == 77 && refused.stderr.contains("admin-users"), "{arguments:?}: {refused:?}");
    }
    assert_eq!(bed.exim.ids()?, set([&oldest, &newest]));

    let swept = bed.ctl_by_mere("Debian-exim", "games", &["sweep"])?;
    assert_eq!(swept.code(), 0, "{swept:?}");
    assert!(swept.stdout.ends_with("1 message removed\n"), "{swept:?}");
    assert_eq!(bed.exim.ids()?, set([&newest]));
    assert!(bed.daemon.must(&["--json", "stats"])?.contains(r#""passes":0"#));
    let log = bed.daemon.must(&["--json", "log", "alice", "-n", "1"])?;
    assert!(log.contains(r#""action":"drop""#) && log.contains(r#""by":"Debian-exim""#), "{log}");
    assert_eq!(bed.exim.panic_log()?, "");
    Ok(())
}

/// Local addresses: `list` leads outside; `alias` leads to `later`, whose mailbox is put off.
const ADDRESSES: &str = "list:\n  driver = redirect\n  domains = +local_domains\n  local_parts = list\n  \
     data = friend@outside.test\n\
     alias:\n  driver = redirect\n  domains = +local_domains\n  local_parts = alias\n  data = later@local.test\n\
     later:\n  driver = redirect\n  domains = +local_domains\n  local_parts = later\n  allow_defer\n  \
     data = :defer: not now\n";

#[test]
fn mail_that_only_root_sees_to_be_local_is_not_swept_by_exims_user() -> Result<()> {
    let private = tempfile::tempdir()?;
    fs::set_permissions(private.path(), Permissions::from_mode(0o700))?;
    fs::write(private.path().join("local.test"), "")?;
    let mine = format!("domainlist mine = ${{if exists{{{}/$domain}}{{$domain}}}}", private.path().display());
    let bed = Bed::configured(
        |daemon| daemon.for_everyone().tables("[held]\nmax-messages = 1\n[access]\nsweep-groups = ['games']"),
        |exim| exim.macros("OUTGOINGD_OUTSIDE = outside.test : !+mine").main(&mine).routers(ADDRESSES),
    )?;
    bed.hold("alice")?;
    let hours_old = |hours, recipients: &[&str]| Queued::new("alice", recipients).age(HOUR * hours);
    let outside = bed.exim.enqueue(&hours_old(5, &[FRIEND]))?;
    let mut stay = BTreeSet::new();
    for message in [
        hours_old(4, &["later@local.test"]),
        hours_old(3, &["later@local.test", FRIEND]),
        hours_old(2, &["later@local.test"]),
        hours_old(1, &[FRIEND]),
    ] {
        stay.insert(bed.exim.enqueue(&message)?);
    }
    bed.exim.run_queue("-q")?;
    let ask = ["exim4", "-be", "${if match_domain{local.test}{!+mine}{outside}{here}}"];
    let exims_user = ["setpriv", "--reuid", "Debian-exim", "--regid", "games", "--clear-groups", "--no-new-privs"];
    for (user, answer) in [(&[][..], "here"), (&exims_user, "outside")] {
        let said = bed.command_beside(&[user, &ask].concat()).output()?;
        assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), answer);
    }
    let swept = bed.ctl_by_mere("Debian-exim", "games", &["sweep"])?;
    assert_eq!(swept.code(), 0, "{swept:?}");
    assert!(!bed.exim.ids()?.contains(&outside), "{swept:?}");
    assert_eq!(bed.exim.ids()?, stay);
    Ok(())
}

#[test]
fn mail_of_a_held_sender_to_a_local_address_that_leads_outside_is_held_mail_for_every_command() -> Result<()> {
    for split in ["", "split_spool_directory"] {
        let bed = Bed::varied(|exim| exim.main(split).routers(ADDRESSES).retry(RETRY_AS_ON_DEBIAN))?;
        let tried = |recipient: &str| -> Result<String> {
            let letter = Letter::new("alice@local.test", &[recipient]);
            bed.exim.submit_as("alice", &letter, Delivery::AtOnce)?.accepted()
        };
        bed.hold("alice")?;
        let (local, other) = (tried("later@local.test")?, tried("alias@local.test")?);
        let led = tried("list@local.test")?;
        let log = bed.exim.log_of(&led)?;
        assert!(log.iter().any(|line| line.contains("domain is held")), "{log:?}");
        let listed = bed.must(&["--json", "held"])?;
        assert_eq!(listed.lines().count(), 1, "{listed}");
        assert!(listed.contains(&led) && listed.contains(r#""recipients":["friend@outside.test"]"#), "{listed}");
        assert_eq!(bed.must(&["drop", "--subject", "alice", "--yes"])?, "alice: 1 message removed\n");
        assert_eq!(bed.exim.ids()?, set([&local, &other]));

        tried("list@local.test")?;
        bed.release("alice")?;
        assert_eq!(bed.must(&["suspend", "alice", "--drop"])?, "alice: suspended\nalice: 1 message removed\n");
        bed.exim.run_queue("-qff")?;
        nobody_got_anything(&bed)?;
        assert_eq!(bed.exim.ids()?, set([&local, &other]));

        bed.unsuspend("alice")?;
        bed.hold("alice")?;
        tried("list@local.test")?;
        assert_eq!(bed.must(&["release", "alice"])?, "alice: released\n1 message delivered\n");
        assert_eq!(bed.outside.recipients(), [FRIEND]);
    }
    Ok(())
}

#[test]
fn of_what_a_local_address_leads_to_only_those_who_have_not_got_it_count() -> Result<()> {
    let list = ADDRESSES.replace("data = friend@outside.test", "data = friend@outside.test, ann@outside.test");
    let bed = Bed::varied(|exim| exim.routers(&list).retry(RETRY_AS_ON_DEBIAN))?;
    bed.hold("alice")?;
    let letter = Letter::new("alice@local.test", &["list@local.test"]);
    let id = bed.exim.submit_as("alice", &letter, Delivery::AtOnce)?.accepted()?;
    let recipients = |expected: &str| -> Result<()> {
        let listed = bed.must(&["--json", "held"])?;
        assert!(listed.contains(&format!("\"recipients\":[{expected}]")), "{listed}");
        Ok(())
    };
    recipients(r#""ann@outside.test","friend@outside.test""#)?;
    bed.release("alice")?;
    bed.outside.refuse(FRIEND, "450 come back");
    bed.exim.deliver(&id)?;
    bed.hold("alice")?;
    assert_eq!(bed.outside.recipients(), ["ann@outside.test"]);
    recipients(r#""friend@outside.test""#)
}

#[test]
fn a_suspend_with_drop_whose_terms_are_refused_changes_nothing() -> Result<()> {
    let bed = Bed::start()?;
    for identity in ["alice", "nobody-here"] {
        fill(&bed, identity, 2)?;
    }
    let state = || Ok::<_, anyhow::Error>((bed.exim.ids()?, trail(&bed)?, bed.daemon.must(&["export"])?));
    let before = state()?;
    let notice = "a".repeat(600);
    for arguments in [
        &["suspend", "alice", "--drop", "--notice", &notice][..],
        &["suspend", "alice", "--drop", "--yes", "--until", "2020-01-01T00:00:00Z"],
        &["suspend", "nobody-here", "--drop"],
    ] {
        let refused = bed.ctl(arguments)?;
        assert_eq!((refused.code(), refused.stdout.as_str()), (1, ""), "{refused:?}");
        assert_eq!(state()?, before, "{arguments:?}");
    }
    Ok(())
}

#[test]
fn a_hold_that_ends_meanwhile_lets_nothing_out_before_the_sender_is_suspended() -> Result<()> {
    let bed = Bed::start()?;
    fill(&bed, "alice", 3)?;
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    bed.outside.stall();
    let (finished, later) = bed.exim.deliver_beside(&id, || {
        let act = || {
            bed.outside.wait_until_stalled(1)?;
            // Whatever is tried from now on is noted, and does not wait.
            bed.outside.refuse_everyone("450 come back");
            bed.must(&["hold", "alice", "--for", "2s"])?;
            let suspending = bed.spawn_ctl(&["suspend", "alice", "--drop"])?;
            wait_until("the others to be removed", PATIENCE, || Ok(bed.exim.ids()? == set([&id])))?;
            for _ in 0..3 {
                next_second()?;
            }
            let later = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
            bed.exim.run_queue("-qff")?;
            Ok((suspending, later))
        };
        let acted: Result<(Running, String)> = act();
        bed.outside.go_on();
        let (suspending, later) = acted?;
        Ok((suspending.finish()?, later))
    })?;
    let log = bed.exim.log_of(&later)?;
    assert!(!log.iter().any(|line| line.contains("450 come back")), "{log:?}");
    assert_eq!(finished.stdout, "alice: suspended\nalice: 4 messages removed, 1 gone meanwhile\n", "{finished:?}");
    assert_eq!(bed.outside.count(), 1, "only what was on its way");
    let flags = bed.daemon.must(&["export"])?;
    assert!(flags.lines().count() == 1 && flags.contains(r#""flag":"suspend""#), "{flags}");
    Ok(())
}

#[test]
fn a_suspend_with_drop_of_thousands_that_is_interrupted_leaves_the_rest_held() -> Result<()> {
    const ALL: usize = 3_000;
    let bed = Bed::start()?;
    fill(&bed, "alice", ALL)?;
    let input = bed.exim.spool().join("input");
    let left = || -> Result<usize> {
        let names = fs::read_dir(&input)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
        Ok(names.iter().filter(|name| name.to_string_lossy().ends_with("-H")).count())
    };
    let mut suspending = bed.spawn_ctl(&["suspend", "alice", "--drop"])?;
    wait_until("the first ones to be removed", PATIENCE, || Ok(left()? < ALL))?;
    suspending.interrupt()?;
    let finished = suspending.finish()?;
    let (code, left) = (finished.code(), left()?);
    assert_eq!(code, 1, "{finished:?}");
    assert!(left > 0, "{finished:?}");
    assert_eq!(finished.stdout, format!("alice: {} messages removed, {left} left\n", ALL - left));
    assert!(finished.stderr.contains("alice is held and not suspended"), "{finished:?}");
    let flags = bed.daemon.must(&["export"])?;
    assert!(flags.lines().count() == 1 && flags.contains(r#""flag":"hold""#), "{flags}");
    // The last ones are enough: all are alike.
    let queue: Vec<String> = bed.exim.ids()?.into_iter().collect();
    let run = bed.exim.exim(&["-qf", &queue[queue.len() - 30]])?;
    assert!(run.status.success(), "{run:?}");
    assert!(bed.exim.log_of(&queue[queue.len() - 1])?.iter().any(|line| line.contains("is held")));
    assert_eq!(bed.exim.ids()?.len(), left);
    assert_eq!((bed.exim.mailbox("alice")?.len(), bed.outside.count()), (0, 0));
    Ok(())
}

#[test]
fn while_a_message_cannot_be_read_a_release_with_drop_leaves_the_hold_and_a_drop_removes_the_others() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let ids = fill(&bed, "alice", 3)?;
    fs::write(bed.exim.spool().join("input").join(format!("{}-H", ids[0])), "")?;
    let dropped = bed.ctl(&["drop", "--yes", &ids[0], &ids[1]])?;
    assert_eq!((dropped.code(), &dropped.stdout), (1, &format!("{}: removed\n", ids[1])), "{dropped:?}");
    assert!(dropped.stderr.contains(&format!("{} was not removed", ids[0])), "{dropped:?}");
    let released = bed.ctl(&["release", "alice", "--drop"])?;
    assert_eq!(released.code(), 1, "{released:?}");
    assert!(!released.stdout.contains("released"), "{released:?}");
    assert!(released.stderr.contains("could not read 1 message"), "{released:?}");
    assert!(bed.daemon.must(&["check", "alice"])?.starts_with("hold"));
    Ok(())
}

/// `outside.test` is outside, and of any other domain Exim cannot say whether it is.
const IN_DOUBT: (&str, &str) =
    ("OUTGOINGD_OUTSIDE = outside.test : !+looked_up", "domainlist looked_up = ${readfile{/nonexistent/domains}}");

const DOUBT: &str = "Exim cannot say whether local.test is local: unable to complete match";

#[test]
fn mail_to_a_domain_of_which_exim_cannot_say_whether_it_is_local_is_listed_and_never_removed() -> Result<()> {
    let bed = Bed::varied(|exim| exim.macros(IN_DOUBT.0).main(IN_DOUBT.1))?;
    bed.hold("alice")?;
    let enqueue = |recipients: &[&str]| bed.exim.enqueue(&Queued::new("alice", recipients));
    let (alone, both) = (enqueue(&["bob@local.test"])?, enqueue(&[FRIEND, "bob@local.test"])?);
    assert_eq!(bed.must(&["--json", "held"])?.lines().count(), 2, "whoever looks sees it");
    for command in [&["drop", "--subject", "alice", "--yes"][..], &["release", "alice", "--drop", "--yes"]] {
        let outside = enqueue(&[FRIEND])?;
        let removed = bed.ctl(command)?;
        assert_eq!((removed.code(), &*removed.stdout), (1, "alice: 1 message removed, 2 left\n"), "{removed:?}");
        for id in [&alone, &both] {
            assert!(removed.stderr.contains(&format!("{id} was not removed: {DOUBT}")), "{removed:?}");
        }
        assert!(removed.stderr.contains("2 messages, which are or may be local"), "{removed:?}");
        assert!(!bed.exim.ids()?.contains(&outside));
    }
    assert!(bed.daemon.must(&["check", "alice"])?.starts_with("hold"));
    let outside = enqueue(&[FRIEND])?;
    let single = bed.ctl(&["--json", "drop", "--yes", &alone, &outside, &both])?;
    assert_eq!(single.code(), 1, "{single:?}");
    assert_eq!(single.stdout.matches(r#""cause":"doubtful""#).count(), 2, "{single:?}");
    assert!(single.stdout.contains(DOUBT) && !bed.exim.ids()?.contains(&outside), "{single:?}");
    let outside = enqueue(&[FRIEND])?;
    let suspended = bed.ctl(&["suspend", "alice", "--drop"])?;
    assert_eq!(suspended.code(), 1, "{suspended:?}");
    assert_eq!(suspended.stderr.matches(DOUBT).count(), 2, "each is warned of once: {suspended:?}");
    assert!(!bed.exim.ids()?.contains(&outside));
    assert_eq!(bed.exim.ids()?, set([&alone, &both]));
    assert!(trail(&bed)?.iter().all(|line| !line.contains(&alone) && !line.contains(&both)));
    Ok(())
}

#[test]
fn a_sweep_leaves_what_may_be_local_and_does_not_remove_other_mail_for_its_sake() -> Result<()> {
    let bounds = "[held]\nmax-messages = 2";
    let bed = Bed::configured(|daemon| daemon.tables(bounds), |exim| exim.macros(IN_DOUBT.0).main(IN_DOUBT.1))?;
    bed.hold("alice")?;
    let oldest = bed.exim.enqueue(&days_old("alice", 9))?;
    let mut stay = BTreeSet::new();
    for days in [8, 7] {
        stay.insert(bed.exim.enqueue(&days_old("alice", days))?);
    }
    for days in [6, 5, 4] {
        let local = Queued::new("alice", &["bob@local.test"]).age(24 * HOUR * days);
        stay.insert(bed.exim.enqueue(&local)?);
    }
    bed.exim.run_queue("-q")?;
    let swept = bed.ctl(&["sweep"])?;
    let over = "alice: 1 message is over its bounds\n";
    assert_eq!((swept.code(), swept.stdout), (1, format!("{over}1 message removed, 1 left\n")), "{}", swept.stderr);
    assert_eq!(swept.stderr.matches(DOUBT).count(), 1, "{}", swept.stderr);
    assert!(!bed.exim.ids()?.contains(&oldest));
    assert_eq!(bed.exim.ids()?, stay);
    let swept = bed.ctl(&["--json", "sweep"])?;
    assert_eq!(swept.code(), 1);
    assert!(swept.stdout.ends_with("{\"command\":\"sweep\",\"removed\":0,\"left\":1}\n"), "{swept:?}");
    Ok(())
}
