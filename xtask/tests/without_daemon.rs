//! Enforcement goes on while the daemon does not run, from the state that it left behind, and after it has come back.

use anyhow::Result;
use xtask::testbed::{Bed, Behaviour, Delivery, Impostor, Letter};

fn letter() -> Letter {
    Letter::new("sender@local.test", &["friend@outside.test"])
}

/// A bed in which alice is held, bob and the domain `evil.test` are suspended, and carol is free.
fn bed() -> Result<Bed> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    bed.suspend("bob", "no more")?;
    bed.suspend("@evil.test", "no more")?;
    Ok(bed)
}

fn enforcement_is_in_force(bed: &Bed) -> Result<()> {
    for held in ["alice", "ALICE", "sales@shop.test"] {
        let id = bed.exim.send_as(held, &letter())?;
        bed.exim.run_queue("-q")?;
        assert_eq!(bed.waiting(&id)?, ["friend@outside.test"], "{held}");
    }
    for suspended in ["bob", "someone@evil.test"] {
        let submission = bed.exim.submit_as(suspended, &letter(), Delivery::Queued)?;
        assert_ne!(submission.status, 0, "{suspended}: {submission:?}");
        assert_eq!(submission.id, None, "{suspended}");
    }
    let before = bed.outside.received().len();
    bed.exim.submit_as("carol", &letter(), Delivery::AtOnce)?.accepted()?;
    assert_eq!(bed.outside.received().len(), before + 1);
    Ok(())
}

#[test]
fn enforcement_goes_on_after_the_daemon_was_killed() -> Result<()> {
    let mut bed = bed()?;
    enforcement_is_in_force(&bed)?;
    bed.daemon.kill9()?;
    enforcement_is_in_force(&bed)
}

#[test]
fn enforcement_goes_on_after_the_daemon_was_stopped() -> Result<()> {
    let mut bed = bed()?;
    assert!(bed.daemon.stop()?.success());
    enforcement_is_in_force(&bed)
}

#[test]
fn enforcement_goes_on_while_something_else_hangs_up_or_talks_nonsense_on_the_socket() -> Result<()> {
    let mut bed = bed()?;
    assert!(bed.daemon.stop()?.success());
    enforcement_is_in_force(&bed)?;
    let impostor = Impostor::start(&bed.daemon.socket(), Behaviour::HangsUp)?;
    enforcement_is_in_force(&bed)?;
    impostor.becomes(Behaviour::says(b"hold ok suspend\n\xff\0"));
    enforcement_is_in_force(&bed)?;
    assert!(!impostor.take_questions().is_empty());
    Ok(())
}

#[test]
fn names_that_the_fallback_file_must_quote_are_found_in_it() -> Result<()> {
    let mut bed = Bed::start()?;
    let names = [r"dom\user@shop.test", "o'brien@shop.test", "quo\"te@shop.test", "a+b@shop.test"];
    for name in names {
        bed.hold(name)?;
    }
    bed.daemon.kill9()?;
    for name in names {
        let id = bed.exim.send_as(name, &letter())?;
        bed.exim.run_queue("-q")?;
        assert_eq!(bed.waiting(&id)?, ["friend@outside.test"], "{name}");
    }
    Ok(())
}

#[test]
fn what_was_acknowledged_is_in_force_even_if_the_daemon_is_killed_right_after_it() -> Result<()> {
    let mut bed = Bed::start()?;
    bed.hold("alice")?;
    bed.daemon.kill9()?;
    let id = bed.exim.submit_as("alice", &letter(), Delivery::AtOnce)?.accepted()?;
    assert_eq!(bed.waiting(&id)?, ["friend@outside.test"]);
    bed.daemon.start_again()?;
    bed.suspend("alice", "no more")?;
    bed.daemon.kill9()?;
    let mut session = bed.exim.smtp()?;
    session.login("alice")?;
    assert_eq!(session.send(&letter())?.code, 550);
    bed.exim.run_queue("-q")?;
    assert!(bed.exim.queued(&id)?.is_none(), "what waited is bounced");
    assert!(bed.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn a_daemon_that_was_killed_comes_back_with_everything_it_had_acknowledged() -> Result<()> {
    let mut bed = bed()?;
    bed.daemon.kill9()?;
    bed.daemon.start_again()?;
    enforcement_is_in_force(&bed)?;
    bed.release("alice")?;
    bed.exim.run_queue("-q")?;
    assert!(bed.exim.queue()?.is_empty());
    Ok(())
}

#[test]
fn a_release_is_in_force_even_if_the_daemon_is_killed_right_after_it() -> Result<()> {
    let mut bed = bed()?;
    bed.release("alice")?;
    bed.daemon.kill9()?;
    bed.exim.submit_as("alice", &letter(), Delivery::AtOnce)?.accepted()?;
    assert_eq!(bed.outside.recipients(), ["friend@outside.test"]);
    Ok(())
}

#[test]
fn the_command_says_that_the_daemon_is_not_there() -> Result<()> {
    let mut bed = Bed::start()?;
    bed.daemon.kill9()?;
    let finished = bed.daemon.ctl(&["hold", "alice"])?;
    assert_eq!(finished.code(), 69, "{finished:?}");
    Ok(())
}
