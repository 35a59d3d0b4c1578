//! `outgoingctl watch`: what is done to senders and their mail, as it happens.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use xtask::testbed::{Bed, Queued, Running, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

/// A watcher who has seen what was done to `subject`, and so sees what is done from now on.
fn watcher(bed: &Bed, arguments: &[&str], subject: &str) -> Result<Running> {
    let watching = bed.spawn_ctl(arguments)?;
    wait_until("a watcher to see something", PATIENCE, || {
        bed.daemon.must(&["suspend", subject])?;
        bed.daemon.must(&["unsuspend", subject])?;
        Ok(watching.stdout().lines().any(|line| line.contains("unsuspend")))
    })?;
    Ok(watching)
}

/// Does everything that can be done to alice and her mail, and waits until the last of it has been seen.
fn do_everything(bed: &Bed, watching: &Running) -> Result<String> {
    bed.must(&["hold", "alice", "--reason", "phished"])?;
    let id = bed.exim.enqueue(&Queued::new("alice", &["friend@outside.test"]))?;
    bed.must(&["pass", &id])?;
    bed.exim.enqueue(&Queued::new("alice", &["friend@outside.test"]))?;
    bed.must(&["drop", "--subject", "alice", "--yes"])?;
    bed.must(&["release", "alice"])?;
    bed.must(&["suspend", "alice"])?;
    bed.must(&["hold", "carol"])?;
    bed.must(&["unsuspend", "alice"])?;
    bed.must(&["hold", "alice", "--for", "1s"])?;
    wait_until("the end of a hold to be seen", PATIENCE, || {
        let seen = watching.stdout();
        Ok(seen.contains("hold-expired") && seen.ends_with('\n'))
    })?;
    Ok(id)
}

/// What was done, and to what, of each line of text.
fn deeds(printed: &str) -> Vec<String> {
    let cells = |line: &str| line.split("  ").map(str::to_owned).collect::<Vec<_>>();
    printed.lines().map(cells).map(|cells| format!("{} {}", cells[2], cells[3])).collect()
}

#[test]
fn each_change_and_each_end_is_a_line_in_the_order_in_which_they_happen() -> Result<()> {
    let bed = Bed::start()?;
    let watching = watcher(&bed, &["watch"], "bob")?;
    let id = do_everything(&bed, &watching)?;
    let printed = watching.stdout();
    let of_others = |deed: &&String| !deed.ends_with(" bob");
    let deeds: Vec<String> = deeds(&printed).iter().filter(of_others).cloned().collect();
    let passed = format!("pass {id}");
    let wanted = [
        "hold alice",
        &passed,
        "drop alice",
        "release alice",
        "suspend alice",
        "hold carol",
        "unsuspend alice",
        "hold alice",
        "hold-expired alice",
    ];
    assert_eq!(deeds, wanted);
    assert!(printed.contains("  phished\n") && printed.contains("root (uid 0, pid "), "{printed}");
    Ok(())
}

#[test]
fn the_json_is_that_of_the_log() -> Result<()> {
    let bed = Bed::start()?;
    let watching = watcher(&bed, &["--json", "watch"], "bob")?;
    do_everything(&bed, &watching)?;
    let (seen, log) = (watching.stdout(), bed.daemon.must(&["--json", "log"])?);
    assert!(log.ends_with(&seen), "{seen}\n{log}");
    assert!(seen.lines().count() >= 10, "{seen}");
    Ok(())
}

#[test]
fn who_watches_one_subject_or_message_sees_nothing_else() -> Result<()> {
    let bed = Bed::start()?;
    let watching = watcher(&bed, &["watch", "ALICE"], "alice")?;
    bed.hold("carol")?;
    bed.hold("sales@shop.test")?;
    bed.hold("alice")?;
    wait_until("the hold to be seen", PATIENCE, || Ok(watching.stdout().contains("  hold  ")))?;
    let deeds = deeds(&watching.stdout());
    assert!(deeds.iter().all(|deed| deed.ends_with(" alice")), "{deeds:?}");
    let wrong = bed.ctl(&["watch", "a b"])?;
    assert!(wrong.code() == 1 && wrong.stderr.contains("has a space in it"), "{wrong:?}");
    let refused = bed.ctl_by("Debian-exim", &["watch"])?;
    assert_eq!(refused.code(), 77, "{refused:?}");
    Ok(())
}

#[test]
fn the_end_of_the_daemon_is_exit_status_69() -> Result<()> {
    let mut bed = Bed::start()?;
    let watching = watcher(&bed, &["watch"], "bob")?;
    bed.daemon.stop()?;
    let finished = watching.finish()?;
    assert_eq!(finished.code(), 69, "{finished:?}");
    assert!(finished.stderr.contains("outgoingd is stopping"), "{finished:?}");
    bed.daemon.start_again()?;
    let watching = watcher(&bed, &["watch"], "bob")?;
    bed.daemon.kill9()?;
    let finished = watching.finish()?;
    assert_eq!(finished.code(), 69, "{finished:?}");
    assert!(finished.stderr.contains("it closed the connection"), "{finished:?}");
    Ok(())
}

#[test]
fn it_ends_when_nobody_reads_any_more() -> Result<()> {
    let bed = Bed::start()?;
    let status = bed.daemon.home().join("status");
    let script = format!(
        "{{ {} --socket {} watch; echo $? > {}; }} | head -n 1",
        bed.daemon.program("outgoingctl").display(),
        bed.daemon.socket().display(),
        status.display()
    );
    let mut piped = Command::new("timeout").args(["60", "sh", "-c", &script]).stdout(Stdio::null()).spawn()?;
    wait_until("the watcher to end", PATIENCE, || {
        bed.daemon.must(&["suspend", "bob"])?;
        bed.daemon.must(&["unsuspend", "bob"])?;
        Ok(piped.try_wait()?.is_some())
    })?;
    assert_eq!(fs::read_to_string(status)?, "0\n");
    Ok(())
}
