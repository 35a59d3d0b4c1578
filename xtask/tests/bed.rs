//! The parts of the test bed that tests of queues stand on: `outgoingctl` beside a private Exim, and an outside world that dawdles.

use std::time::{Duration, Instant};

use anyhow::Result;
use xtask::testbed::{Bed, Queued, wait_until};

const FRIEND: &str = "friend@outside.test";

#[test]
fn what_runs_beside_the_exim_of_a_bed_finds_this_exim_and_its_daemon() -> Result<()> {
    let bed = Bed::start()?;
    let spool = bed.exim.spool().display().to_string();
    let found = bed.on_terminal(&["exim4", "-bP", "spool_directory"], "")?;
    assert_eq!(found.stdout.trim(), format!("spool_directory = {spool}"));
    assert_eq!(bed.must(&["hold", "alice"])?, "alice: held\n");
    assert!(bed.daemon.must(&["check", "alice"])?.starts_with("hold"));
    assert_eq!(bed.ctl(&["hold", "nobody-here"])?.code(), 1);
    assert_eq!(bed.ctl_with_input(&["import", "-", "--as", "suspend"], "carol\n")?.code(), 0);
    assert!(bed.must(&["check", "carol"])?.starts_with("suspend"));
    Ok(())
}

#[test]
fn another_user_runs_outgoingctl_as_that_user() -> Result<()> {
    let bed = Bed::start()?;
    for user in ["Debian-exim", "Debian-exim", "nobody"] {
        let refused = bed.ctl_by(user, &["hold", "alice"])?;
        assert_eq!(refused.code(), 77, "{refused:?}");
    }
    assert!(bed.ctl_by("Debian-exim", &["check", "alice"])?.stdout.starts_with("ok"));
    Ok(())
}

#[test]
fn on_a_terminal_a_program_has_one_and_reads_what_is_typed() -> Result<()> {
    let bed = Bed::start()?;
    for descriptor in ["0", "1", "2"] {
        assert_eq!(bed.on_terminal(&["test", "-t", descriptor], "")?.code(), 0, "{descriptor}");
    }
    let read = bed.on_terminal(&["sh", "-c", "read word; echo \"<$word's>\"; stty size; exit 3"], "yes\n")?;
    assert!(read.stdout.ends_with("<yes's>\r\n24 100\r\n"), "{read:?}");
    assert_eq!(read.code(), 3);
    let ended = bed.on_terminal(&["sh", "-c", "read word || echo nothing more"], "")?;
    assert!(ended.stdout.ends_with("nothing more\r\n"), "{ended:?}");
    let held = bed.ctl_on_terminal(&["hold", "alice", "--reason", "it's so"], "")?;
    assert_eq!((held.code(), held.stdout.trim_end()), (0, "alice: held"));
    Ok(())
}

#[test]
fn a_program_in_the_background_is_interrupted_while_it_works() -> Result<()> {
    let bed = Bed::start()?;
    assert_eq!(bed.spawn_ctl(&["hold", "alice"])?.finish()?.stdout, "alice: held\n");
    bed.daemon.stand_still()?;
    let mut waiting = bed.spawn_ctl(&["check", "alice"])?;
    waiting.interrupt()?;
    let finished = waiting.finish()?;
    assert_ne!(finished.code(), 0, "{finished:?}");
    assert_eq!(finished.stdout, "");
    Ok(())
}

#[test]
fn the_outside_stalls_a_delivery_in_its_middle_until_it_goes_on() -> Result<()> {
    let bed = Bed::start()?;
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    bed.outside.stall();
    let locked = bed.exim.deliver_beside(&id, || {
        bed.outside.wait_until_stalled(1)?;
        let locked = bed.exim.exim(&["-Mrm", &id]);
        bed.outside.go_on();
        locked
    })?;
    assert!(locked.stdout.contains("is locked"), "{locked:?}");
    assert_eq!(bed.outside.recipients(), [FRIEND]);
    assert_eq!(bed.exim.queue()?, []);
    Ok(())
}

#[test]
fn the_outside_refuses_for_now_for_ever_and_one_alone() -> Result<()> {
    let bed = Bed::start()?;
    let message = Queued::new("alice", &[FRIEND, "other@outside.test"]);
    let id = bed.exim.enqueue(&message)?;
    bed.outside.refuse(FRIEND, "450 not now");
    bed.exim.deliver(&id)?;
    assert_eq!(bed.waiting(&id)?, [FRIEND]);
    assert_eq!(bed.outside.recipients(), ["other@outside.test"]);
    bed.outside.refuse_everyone("550 never");
    let refused = bed.exim.enqueue(&message)?;
    bed.exim.deliver(&refused)?;
    assert_eq!(bed.waiting(&refused)?, [FRIEND], "refused for now before for ever");
    bed.outside.accept_everyone();
    bed.exim.force(&id)?;
    assert_eq!(bed.waiting(&id)?, Vec::<String>::new());
    assert_eq!(bed.outside.count(), 2);
    Ok(())
}

#[test]
fn the_outside_takes_its_time() -> Result<()> {
    let bed = Bed::start()?;
    let delay = Duration::from_millis(300);
    bed.outside.take_time(delay);
    let id = bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    let begun = Instant::now();
    bed.exim.deliver(&id)?;
    assert!(begun.elapsed() >= delay);
    wait_until("the message", Duration::from_secs(10), || Ok(bed.outside.count() == 1))
}
