//! Held mail is let go: `outgoingctl release` and `pass`, on a real queue.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use xtask::testbed::{Bed, EximBuilder, Queued, RETRY_AS_ON_DEBIAN, Running, wait_until};

const FRIEND: &str = "friend@outside.test";

const PATIENCE: Duration = Duration::from_secs(30);

/// The recipient of one of many messages.
fn friend(number: usize) -> String {
    format!("friend{number}@outside.test")
}

/// So many messages of this sender, each to a recipient of its own.
fn fill(bed: &Bed, identity: &str, count: usize) -> Result<Vec<String>> {
    bed.exim.fill_queue(count, |number| Queued::new(identity, &[&friend(number)]))
}

/// Every message of [`fill`] has come, and none of them twice.
fn has_each_once(bed: &Bed, count: usize) {
    let recipients = bed.outside.recipients();
    let all: BTreeSet<String> = (0..count).map(friend).collect();
    assert_eq!(recipients.len(), count, "{recipients:?}");
    assert_eq!(recipients.into_iter().collect::<BTreeSet<_>>(), all);
}

/// Ctrl-C, which the program has taken note of when this returns.
fn interrupt(running: &mut Running) -> Result<()> {
    running.interrupt()?;
    let status = format!("/proc/{}/status", running.id());
    wait_until("the signal to be taken", PATIENCE, || {
        let Ok(status) = fs::read_to_string(&status) else { return Ok(true) };
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
        Ok(pending.is_none_or(|signals| signals.trim().bytes().all(|digit| digit == b'0')))
    })
}

/// How many passes the daemon knows.
fn passes(bed: &Bed) -> Result<String> {
    let stats = bed.daemon.must(&["stats"])?;
    let line = stats.lines().find_map(|line| line.strip_prefix("passes ")).context("no passes in stats")?;
    Ok(line.trim().to_owned())
}

#[test]
fn of_500_messages_each_reaches_the_outside_once_and_nobody_elses_mail_is_touched() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    fill(&bed, "alice", 500)?;
    let others = bed.exim.fill_queue(3, |_| Queued::new("carol", &["other@outside.test"]))?;
    let printed = bed.must(&["release", "alice", "--jobs", "6"])?;
    assert_eq!(printed, "alice: released\n500 messages delivered\n");
    has_each_once(&bed, 500);
    assert_eq!(bed.exim.ids()?, others.iter().cloned().collect());
    for id in others {
        assert_eq!(bed.exim.log_of(&id)?, Vec::<String>::new(), "nobody has tried it");
    }
    assert_eq!(bed.exim.panic_log()?, "");
    Ok(())
}

#[test]
fn as_many_messages_as_there_are_jobs_are_delivered_at_the_same_time_and_no_more() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    fill(&bed, "alice", 12)?;
    bed.outside.stall();
    bed.outside.take_time(Duration::from_millis(30));
    let release = bed.spawn_ctl(&["release", "alice", "--jobs", "3"])?;
    bed.outside.wait_until_stalled(3)?;
    bed.outside.go_on();
    let finished = release.finish()?;
    assert_eq!((finished.code(), finished.stdout.as_str()), (0, "alice: released\n12 messages delivered\n"));
    assert_eq!(bed.outside.most_at_once(), 3);
    has_each_once(&bed, 12);
    bed.hold("alice")?;
    fill(&bed, "alice", 4)?;
    let before = bed.outside.count();
    bed.outside.stall();
    let release = bed.spawn_ctl(&["release", "alice", "--jobs", "1"])?;
    bed.outside.wait_until_stalled(1)?;
    bed.outside.go_on();
    assert_eq!(release.finish()?.code(), 0);
    assert_eq!(bed.outside.count(), before + 4);
    Ok(())
}

#[test]
fn one_job_delivers_one_message_after_the_other() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    fill(&bed, "alice", 6)?;
    bed.outside.take_time(Duration::from_millis(30));
    bed.must(&["release", "alice", "--jobs", "1"])?;
    assert_eq!(bed.outside.most_at_once(), 1);
    has_each_once(&bed, 6);
    Ok(())
}

#[test]
fn the_json_has_a_row_for_each_message_and_a_total() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let delivered = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    let deferred = bed.exim.enqueue(&Queued::new("alice", &["later@outside.test"]))?;
    let failed = bed.exim.enqueue(&Queued::new("alice", &["never@outside.test"]))?;
    bed.outside.refuse("later@outside.test", "450 come back");
    bed.outside.refuse("never@outside.test", "550 no such user");
    let printed = bed.must(&["--json", "release", "alice"])?;
    let rows: Vec<&str> = printed.lines().collect();
    assert_eq!(rows.len(), 5, "{printed}");
    assert_eq!(rows[0], r#"{"subject":"alice","command":"release","changed":true}"#);
    let row = |id: &str| rows.iter().copied().find(|row| row.contains(id)).context("no row");
    let begin = |id: &str| format!(r#"{{"command":"release","message_id":"{id}","outcome":"#);
    assert_eq!(row(&delivered)?, begin(&delivered) + r#""delivered"}"#);
    let waiting = row(&deferred)?;
    assert!(waiting.starts_with(&(begin(&deferred) + r#""waiting","reason":""#)), "{waiting}");
    assert!(waiting.contains("450 come back"), "{waiting}");
    let bounced = row(&failed)?;
    assert!(bounced.starts_with(&(begin(&failed) + r#""failed","reason":""#)), "{bounced}");
    assert!(bounced.contains("550 no such user"), "{bounced}");
    assert_eq!(rows[4], r#"{"command":"release","delivered":1,"failed":1,"waiting":1,"left":0}"#);
    Ok(())
}

#[test]
fn what_was_released_and_kept_is_delivered_later_and_what_is_still_held_stays() -> Result<()> {
    let bed = Bed::start()?;
    for subject in ["alice", "bob"] {
        bed.hold(subject)?;
    }
    let kept = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    let held = bed.exim.enqueue(&Queued::new("bob", &[FRIEND]))?;
    let others = bed.exim.enqueue(&Queued::new("carol", &[FRIEND]))?;
    bed.release("alice")?;
    let before = (bed.daemon.must(&["export"])?, bed.daemon.must(&["log"])?);
    let printed = bed.must(&["deliver", "alice", "bob"])?;
    assert_eq!(printed, "1 message delivered, 1 still waiting\n  1: still held through bob\n");
    assert_eq!(bed.exim.ids()?, BTreeSet::from([held.clone(), others]));
    assert!(bed.exim.log_of(&kept)?.iter().any(|line| line == "Completed"));
    assert_eq!(bed.must(&["deliver", "alice"])?, "nothing waited\n");
    let mistyped = bed.ctl(&["deliver", "alcie"])?;
    assert_eq!((mistyped.code(), mistyped.stdout.as_str()), (0, "nothing waited\n"));
    assert!(mistyped.stderr.contains("warning: no account alcie"), "{mistyped:?}");
    let rows = bed.must(&["--json", "deliver", "bob"])?;
    let begin = r#"{"command":"deliver","on_queue":2}"#;
    let row = format!(
        r#"{{"command":"deliver","message_id":"{held}","outcome":"waiting","reason":"still held through bob"}}"#
    );
    let total = r#"{"command":"deliver","delivered":0,"failed":0,"waiting":1,"left":0}"#;
    assert_eq!(rows.lines().collect::<Vec<_>>(), [begin, &row, total]);
    assert_eq!((bed.daemon.must(&["export"])?, bed.daemon.must(&["log"])?), before, "no flag and no record of one");
    Ok(())
}

#[test]
fn a_delivery_goes_on_when_nobody_reads_what_it_prints() -> Result<()> {
    let bed = Bed::start()?;
    let ids = fill(&bed, "alice", 4)?;
    // Standard error is told of a message that cannot be read.
    fs::write(bed.exim.spool().join("input").join(format!("{}-H", ids[0])), "")?;
    bed.outside.stall();
    let (nobody, stderr) = io::pipe()?;
    drop(nobody);
    let mut command = bed.ctl_command(&["--json", "deliver", "alice", "--jobs", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    assert_eq!(line, "{\"command\":\"deliver\",\"on_queue\":4}\n", "before anything is delivered");
    bed.outside.wait_until_stalled(1)?;
    bed.outside.go_on();
    wait_until("the delivery to end", PATIENCE, || Ok(child.try_wait()?.is_some()))?;
    assert_eq!((child.wait()?.code(), bed.outside.count()), (Some(0), 3));
    Ok(())
}

#[test]
fn what_the_remote_does_not_want_now_waits_and_is_delivered_by_a_release_later() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let later = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    bed.outside.refuse(FRIEND, "450 not now");
    let printed = bed.must(&["release", "alice"])?;
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[..2], ["alice: released", "0 messages delivered, 1 still waiting"]);
    assert!(lines[2].starts_with("  1: ") && lines[2].contains("450 not now"), "{printed}");
    assert_eq!(bed.waiting(&later)?, [FRIEND]);
    bed.outside.accept_everyone();
    assert_eq!(bed.must(&["release", "alice"])?, "alice: is not held, nothing to do\n1 message delivered\n");
    assert_eq!(bed.must(&["release", "alice"])?, "alice: is not held, nothing to do\nnothing waited\n");
    assert_eq!(bed.outside.recipients(), [FRIEND]);
    Ok(())
}

#[test]
fn what_is_frozen_waits_and_so_does_what_nobody_takes() -> Result<()> {
    let bed = Bed::varied(|exim| {
        exim.retry(RETRY_AS_ON_DEBIAN).routers(
            "nobody_there:\n  driver = manualroute\n  domains = refusing.test\n  route_list = * 127.0.0.1::1 byname\n  \
             self = send\n  transport = smtp\n",
        )
    })?;
    bed.hold("alice")?;
    let frozen = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]).frozen())?;
    let refused = bed.exim.enqueue(&Queued::new("alice", &["friend@refusing.test"]))?;
    let printed = bed.must(&["release", "alice"])?;
    assert!(printed.starts_with("alice: released\n0 messages delivered, 2 still waiting\n"), "{printed}");
    assert!(printed.contains("  1: ") && printed.to_lowercase().contains("frozen"), "{printed}");
    assert!(printed.contains("Connection refused"), "{printed}");
    let again = bed.must(&["release", "alice"])?;
    assert!(again.starts_with("alice: is not held, nothing to do\n0 messages delivered, 2 still waiting\n"), "{again}");
    assert!(again.contains("retry time not reached"), "{again}");
    assert!(bed.exim.queued(&frozen)?.context("gone")?.frozen);
    assert_eq!(bed.waiting(&refused)?, ["friend@refusing.test"]);
    assert_eq!(bed.outside.count(), 0);
    Ok(())
}

#[test]
fn what_another_flag_stops_waits_and_the_flag_is_named() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    bed.hold("sales@shop.test")?;
    let stays = bed.exim.enqueue(&Queued::new("sales@shop.test", &[FRIEND]))?;
    let leaves = bed.exim.enqueue(&Queued::new("info@shop.test", &[FRIEND]))?;
    let released = bed.ctl(&["release", "alice"])?;
    assert_eq!(released.code(), 0, "{released:?}");
    assert_eq!(
        released.stdout,
        "alice: released\n1 message delivered, 1 still waiting\n  1: still held through sales@shop.test\n"
    );
    bed.suspend("alice", "call 555")?;
    let released = bed.ctl(&["--json", "release", "sales@shop.test"])?;
    assert_eq!(released.code(), 0, "{released:?}");
    assert!(released.stderr.is_empty() && released.stdout.contains("still"), "{released:?}");
    assert!(
        released.stdout.contains(r#""outcome":"waiting","reason":"still suspended through alice""#),
        "{released:?}"
    );
    assert_eq!(bed.exim.ids()?, BTreeSet::from([stays]));
    assert!(bed.exim.log_of(&leaves)?.iter().any(|line| line == "Completed"));
    assert_eq!(bed.outside.count(), 1);
    Ok(())
}

#[test]
fn what_the_remote_never_wants_is_counted_as_failed_and_bounced() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    bed.outside.refuse_everyone("550 no such user here");
    let printed = bed.must(&["release", "alice"])?;
    assert!(printed.starts_with("alice: released\n0 messages delivered, 1 failed, and bounced\n  1: failed: "));
    assert!(printed.contains("550 no such user here"), "{printed}");
    assert!(bed.exim.queued(&id)?.is_none());
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.exim.bounces_to("alice")?.len(), 1);
    Ok(())
}

#[test]
fn of_a_message_that_was_partly_delivered_only_the_rest_is_delivered() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let message = Queued::new("alice", &["ann@outside.test", "ben@outside.test", "cis@outside.test", "bob@local.test"]);
    bed.exim.enqueue(&message.delivered(&["ann@outside.test"]).journalled(&["ben@outside.test", "bob@local.test"]))?;
    assert_eq!(bed.must(&["release", "alice"])?, "alice: released\n1 message delivered\n");
    assert_eq!(bed.outside.recipients(), ["cis@outside.test"]);
    assert!(bed.exim.mailbox("bob")?.is_empty());
    assert_eq!(bed.exim.ids()?, BTreeSet::new());
    Ok(())
}

#[test]
fn kept_mail_is_not_touched_and_no_exim_is_needed() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let ids = fill(&bed, "alice", 2)?;
    // There is no Exim.
    assert_eq!(bed.daemon.must(&["release", "alice", "--keep"])?, "alice: released\n");
    bed.hold("alice")?;
    assert_eq!(bed.must(&["release", "alice", "--keep"])?, "alice: released\n");
    bed.hold("alice")?;
    assert_eq!(bed.daemon.must(&["pass", "--keep", &ids[0]])?, format!("{}: may be delivered\n", ids[0]));
    for id in &ids {
        assert_eq!(bed.exim.log_of(id)?, Vec::<String>::new());
    }
    let refused = bed.daemon.ctl(&["release", "alice"])?;
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(refused.stderr.contains("/nonexistent/exim"), "{refused:?}");
    assert!(bed.daemon.must(&["check", "alice"])?.starts_with("hold"), "nothing was changed");
    assert_eq!(bed.exim.queue()?.len(), 2);
    Ok(())
}

#[test]
fn of_several_subjects_all_are_released_and_the_mail_of_all_is_delivered() -> Result<()> {
    let bed = Bed::start()?;
    for subject in ["alice", "carol", "bob"] {
        bed.hold(subject)?;
        bed.exim.enqueue(&Queued::new(subject, &[&format!("{subject}@outside.test")]))?;
    }
    let released = bed.ctl(&["release", "alice", "nobody-here", "carol"])?;
    assert_eq!(released.code(), 1, "{released:?}");
    assert_eq!(released.stdout, "alice: released\ncarol: released\n2 messages delivered\n");
    assert!(released.stderr.contains("no account nobody-here"), "{released:?}");
    let mut recipients = bed.outside.recipients();
    recipients.sort();
    assert_eq!(recipients, ["alice@outside.test", "carol@outside.test"]);
    assert_eq!(bed.exim.queue()?.len(), 1);
    Ok(())
}

#[test]
fn more_subjects_than_the_daemon_takes_at_once_are_released_with_their_mail() -> Result<()> {
    let bed = Bed::start()?;
    let subjects: Vec<String> = (0..101).map(|number| format!("user{number}@evil.test")).collect();
    let all = |verb| [verb].into_iter().chain(subjects.iter().map(String::as_str)).collect::<Vec<_>>();
    bed.must(&all("hold"))?;
    for subject in [&subjects[0], &subjects[100]] {
        bed.exim.enqueue(&Queued::new(subject, &[FRIEND]))?;
    }
    let printed = bed.must(&all("release"))?;
    assert!(printed.ends_with("user100@evil.test: released\n2 messages delivered\n"), "{printed}");
    assert_eq!(bed.outside.count(), 2);
    Ok(())
}

#[test]
fn mail_on_named_queues_and_in_a_split_spool_is_delivered_too() -> Result<()> {
    let bed = Bed::varied(|exim| exim.main("split_spool_directory"))?;
    bed.hold("alice")?;
    bed.exim.fill_queue(9, |number| {
        // On three queues, and in as many directories of each as it has messages.
        let message = Queued::new("alice", &[&friend(number)]).age(Duration::from_secs(number as u64));
        if number.is_multiple_of(3) { message } else { message.on_queue(&format!("bulk{}", number % 3)) }
    })?;
    assert_eq!(bed.must(&["release", "alice"])?, "alice: released\n9 messages delivered\n");
    has_each_once(&bed, 9);
    let passed = bed.exim.enqueue(&Queued::new("carol", &[FRIEND]).on_queue("bulk1"))?;
    bed.hold("carol")?;
    assert_eq!(bed.must(&["pass", &passed])?, format!("{passed}: delivered\n"));
    Ok(())
}

#[test]
fn with_connections_that_carry_several_messages_each_is_delivered_once_and_counted_once() -> Result<()> {
    let bed = Bed::varied(|exim| exim.reuse_connections().main("queue_smtp_domains = outside.test"))?;
    // Without the domain that waits for queue runs, Exim would not note which messages could go the same way.
    for _ in 0..2 {
        bed.hold("alice")?;
        fill(&bed, "alice", 20)?;
        let printed = bed.must(&["release", "alice"])?;
        assert!(printed.starts_with("alice: released\n"), "{printed}");
        bed.exim.run_queue("-q")?;
    }
    let recipients = bed.outside.recipients();
    assert_eq!(recipients.len(), 40, "{recipients:?}");
    assert_eq!(bed.exim.ids()?, BTreeSet::new());
    Ok(())
}

#[test]
fn ctrl_c_ends_what_is_in_flight_properly_begins_nothing_new_and_the_same_command_delivers_the_rest() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    fill(&bed, "alice", 20)?;
    bed.outside.stall();
    let mut release = bed.spawn_ctl(&["release", "alice", "--jobs", "2"])?;
    bed.outside.wait_until_stalled(2)?;
    interrupt(&mut release)?;
    bed.outside.go_on();
    let finished = release.finish()?;
    assert_eq!(finished.code(), 1, "{finished:?}");
    assert_eq!(finished.stdout, "alice: released\n2 messages delivered, 18 left\n");
    assert!(finished.stderr.contains("interrupted"), "{finished:?}");
    assert_eq!(bed.outside.count(), 2);
    assert_eq!(bed.exim.queue()?.len(), 18);
    let printed = bed.must(&["release", "alice"])?;
    assert_eq!(printed, "alice: is not held, nothing to do\n18 messages delivered\n");
    has_each_once(&bed, 20);
    assert_eq!(bed.exim.ids()?, BTreeSet::new());
    Ok(())
}

#[test]
fn the_second_ctrl_c_ends_at_once_and_what_is_in_flight_is_delivered_once() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    fill(&bed, "alice", 4)?;
    bed.outside.stall();
    let mut release = bed.spawn_ctl(&["release", "alice", "--jobs", "2"])?;
    bed.outside.wait_until_stalled(2)?;
    interrupt(&mut release)?;
    assert!(!release.has_ended()?, "it waits for what is in flight");
    release.interrupt()?;
    let finished = release.finish()?;
    assert_eq!(finished.code(), 1, "{finished:?}");
    assert_eq!(bed.outside.count(), 0, "the deliveries are still in their middle");
    bed.outside.go_on();
    wait_until("the deliveries to end", PATIENCE, || Ok(bed.exim.ids()?.len() == 2))?;
    assert_eq!(bed.outside.count(), 2);
    bed.must(&["release", "alice"])?;
    has_each_once(&bed, 4);
    assert_eq!(bed.exim.ids()?, BTreeSet::new());
    Ok(())
}

/// Nothing that `arguments` say has happened.
fn is_refused_to(bed: &Bed, user: &str, arguments: &[&str]) -> Result<()> {
    let before = (bed.daemon.must(&["export"])?, bed.daemon.must(&["log"])?, bed.exim.ids()?, passes(bed)?);
    let refused = bed.ctl_by(user, arguments)?;
    assert_eq!(refused.code(), 77, "{arguments:?} by {user}: {refused:?}");
    assert_eq!(refused.stdout, "", "{arguments:?} by {user}");
    assert!(
        ["may not", "become root", "Permission denied"].iter().any(|words| refused.stderr.contains(words)),
        "{refused:?}"
    );
    let after = (bed.daemon.must(&["export"])?, bed.daemon.must(&["log"])?, bed.exim.ids()?, passes(bed)?);
    assert_eq!(before, after, "{arguments:?} by {user}");
    Ok(())
}

#[test]
fn whoever_may_not_operate_exim_or_not_administer_the_daemon_changes_nothing() -> Result<()> {
    let administrators = "[access]\nadmin-users = ['nobody']\nreader-users = ['Debian-exim']";
    let bed = Bed::configured(|daemon| daemon.for_everyone().tables(administrators), |exim| exim)?;
    bed.hold("alice")?;
    let ids = fill(&bed, "alice", 2)?;
    let id = ids[0].as_str();
    // One may administer the daemon and not operate Exim, the other one the other way round.
    for user in ["nobody", "Debian-exim"] {
        for arguments in [
            &["release", "alice"][..],
            &["release", "alice", "--drop", "--yes"],
            &["pass", id],
            &["drop", id, "--yes"],
            &["drop", "--subject", "alice", "--yes"],
            &["suspend", "alice", "--drop", "--yes"],
        ] {
            is_refused_to(&bed, user, arguments)?;
        }
    }
    // This changes nothing, and whoever may operate Exim could have the mail delivered without us.
    is_refused_to(&bed, "nobody", &["deliver", "alice"])?;
    let kept = bed.ctl_by("nobody", &["pass", "--keep", id])?;
    assert_eq!(kept.code(), 0, "what needs no Exim needs no right to it: {kept:?}");
    let kept = bed.ctl_by("nobody", &["release", "--keep", "alice"])?;
    assert_eq!(kept.code(), 0, "{kept:?}");
    Ok(())
}

#[test]
fn who_is_an_administrator_of_exim_and_cannot_read_its_queue_changes_nothing() -> Result<()> {
    let bed = Bed::configured(
        |daemon| daemon.for_everyone().tables("[access]\nadmin-users = ['nobody']"),
        |exim| exim.main("admin_groups = nogroup"),
    )?;
    bed.hold("alice")?;
    fill(&bed, "alice", 2)?;
    let listed = bed.exim.exim_by("nobody", &["-bp"])?;
    assert!(listed.status.success() && listed.stdout.contains("alice@"), "Exim lets it: {listed:?}");
    for arguments in
        [&["release", "alice"][..], &["release", "alice", "--drop", "--yes"], &["suspend", "alice", "--drop", "--yes"]]
    {
        is_refused_to(&bed, "nobody", arguments)?;
    }
    Ok(())
}

#[test]
fn what_somebody_else_delivers_meanwhile_is_gone_and_not_counted_as_delivered() -> Result<()> {
    let bed = Bed::start()?;
    for arguments in [&["release", "alice"][..], &["--json", "release", "alice"]] {
        let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
        let before = bed.outside.count();
        bed.outside.stall();
        let release = || {
            bed.outside.wait_until_stalled(1)?;
            bed.hold("alice")?;
            let release = bed.spawn_ctl(arguments)?;
            wait_until("the message to be found locked", PATIENCE, || {
                Ok(bed.exim.log_of(&id)?.iter().any(|line| line.contains("locked")))
            })?;
            Ok(release)
        };
        let releasing = bed.exim.deliver_beside(&id, || {
            let releasing = release();
            bed.outside.go_on();
            releasing
        })?;
        let released = releasing.finish()?;
        assert_eq!(released.code(), 0, "{released:?}");
        assert_eq!(bed.outside.count(), before + 1);
        if arguments.len() == 2 {
            assert_eq!(released.stdout, "alice: released\n0 messages delivered, 1 gone meanwhile\n");
        } else {
            let rows: Vec<&str> = released.stdout.lines().collect();
            let row = format!(r#"{{"command":"release","message_id":"{id}","outcome":"gone"}}"#);
            let total = r#"{"command":"release","delivered":0,"gone":1,"failed":0,"waiting":0,"left":0}"#;
            assert_eq!(rows[1..], [row.as_str(), total]);
        }
    }
    Ok(())
}

#[test]
fn a_pass_delivers_its_message_now_leaves_the_siblings_and_is_forgotten_then() -> Result<()> {
    let bed = Bed::varied(EximBuilder::reuse_connections)?;
    bed.hold("alice")?;
    let ids = bed.exim.fill_queue(3, |_| Queued::new("alice", &[FRIEND]))?;
    // Exim notes that they could all go the same way.
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.must(&["pass", &ids[1]])?, format!("{}: delivered\n", ids[1]));
    assert_eq!(bed.outside.count(), 1);
    assert_eq!(bed.exim.ids()?, BTreeSet::from([ids[0].clone(), ids[2].clone()]));
    assert_eq!(passes(&bed)?, "0");
    assert!(bed.daemon.must(&["log", &ids[1]])?.contains("pass"));
    let printed = bed.must(&["--json", "pass", &ids[0]])?;
    assert_eq!(printed, format!("{{\"command\":\"pass\",\"message_id\":\"{}\",\"outcome\":\"delivered\"}}\n", ids[0]));
    assert!(bed.daemon.must(&["check", "alice"])?.starts_with("hold"));
    bed.exim.run_queue("-qff")?;
    assert_eq!(bed.exim.ids()?, BTreeSet::from([ids[2].clone()]));
    Ok(())
}

#[test]
fn a_pass_that_the_remote_puts_off_stays_and_the_reason_is_printed() -> Result<()> {
    let bed = Bed::varied(|exim| exim.retry(RETRY_AS_ON_DEBIAN))?;
    bed.hold("alice")?;
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    bed.outside.refuse_everyone("450 come back");
    let printed = bed.must(&["pass", &id])?;
    assert!(printed.starts_with(&format!("{id}: may be delivered, and waits: ")), "{printed}");
    assert!(printed.contains("450 come back"), "{printed}");
    assert_eq!(passes(&bed)?, "1");
    assert!(bed.daemon.must(&["check", "alice", "--id", &id])?.starts_with("ok"));
    bed.outside.accept_everyone();
    // In a queue run its time would not have come.
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.outside.count(), 0);
    assert_eq!(bed.must(&["pass", &id])?, format!("{id}: delivered\n"));
    assert_eq!(passes(&bed)?, "0");
    Ok(())
}

#[test]
fn a_frozen_message_with_a_pass_is_tried_at_once() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]).frozen())?;
    assert_eq!(bed.must(&["pass", &id])?, format!("{id}: delivered\n"));
    assert_eq!(bed.outside.count(), 1);
    Ok(())
}

#[test]
fn a_pass_for_what_the_remote_never_wants_says_that_it_bounced() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    bed.outside.refuse_everyone("550 no such user here");
    let failed = bed.ctl(&["pass", &id])?;
    assert_eq!(failed.code(), 1, "{failed:?}");
    assert!(failed.stderr.contains("bounced") && failed.stderr.contains("550 no such user here"), "{failed:?}");
    assert!(bed.exim.queued(&id)?.is_none());
    assert_eq!(passes(&bed)?, "0");
    Ok(())
}

#[test]
fn no_pass_is_given_where_it_would_not_do_what_is_meant() -> Result<()> {
    let bed = Bed::start()?;
    bed.suspend("bob", "call 555")?;
    bed.hold("alice")?;
    let suspended = bed.exim.enqueue(&Queued::new("bob", &[FRIEND]))?;
    let free = bed.exim.enqueue(&Queued::new("carol", &[FRIEND]))?;
    let incoming = bed.exim.enqueue(&Queued::new("", &["alice@local.test"]).sender("stranger@outside.test"))?;
    let held = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    for (id, words) in [
        (suspended.as_str(), "its sender bob is suspended"),
        (&free, "its sender carol is not held"),
        (&incoming, "needs no pass"),
        ("1rABCD-000abc-XY", "no message 1rABCD-000abc-XY on Exim's queue"),
        ("../../etc/passwd", "message id"),
    ] {
        let refused = bed.ctl(&["pass", id])?;
        assert_eq!(refused.code(), 1, "{id}: {refused:?}");
        assert!(refused.stderr.contains(words), "{id}: {refused:?}");
    }
    assert_eq!(passes(&bed)?, "0");
    assert_eq!(bed.exim.queue()?.len(), 4);
    for id in [&suspended, &free, &incoming, &held] {
        assert_eq!(bed.exim.log_of(id)?, Vec::<String>::new(), "nothing was tried");
    }
    // All are tried, and the good one of them goes.
    let mixed = bed.ctl(&["pass", &free, &held, "nonsense"])?;
    assert_eq!((mixed.code(), mixed.stdout.as_str()), (1, format!("{held}: delivered\n").as_str()));
    assert!(mixed.stderr.ends_with("pass failed for 2 of 3\n"), "{mixed:?}");
    Ok(())
}
