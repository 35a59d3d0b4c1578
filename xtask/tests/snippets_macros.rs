//! The macros of the snippets that a site may set, each set to something else.

use anyhow::Result;
use xtask::testbed::{Bed, Delivery, Letter};

fn letter() -> Letter {
    Letter::new("alice@local.test", &["friend@outside.test"])
}

#[test]
fn a_site_may_say_who_is_sending() -> Result<()> {
    let bed = Bed::varied(|exim| {
        exim.macros("OUTGOINGD_ORIGIN = ${if eq{$authenticated_id}{web}{carol}{$authenticated_id}}")
    })?;
    bed.hold("carol")?;
    let held = bed.exim.submit_as("web", &letter(), Delivery::Queued)?.accepted()?;
    let free = bed.exim.submit_as("alice", &letter(), Delivery::Queued)?.accepted()?;
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.waiting(&held)?, ["friend@outside.test"]);
    assert!(bed.waiting(&free)?.is_empty());
    Ok(())
}

#[test]
fn nobody_is_a_sender_too_and_is_never_stopped() -> Result<()> {
    let bed =
        Bed::varied(|exim| exim.macros("OUTGOINGD_ORIGIN = ${if eq{$authenticated_id}{list}{}{$authenticated_id}}"))?;
    bed.hold("*")?;
    let free = bed.exim.submit_as("list", &letter(), Delivery::Queued)?.accepted()?;
    let held = bed.exim.submit_as("alice", &letter(), Delivery::Queued)?.accepted()?;
    bed.exim.run_queue("-q")?;
    assert!(bed.waiting(&free)?.is_empty());
    assert_eq!(bed.waiting(&held)?, ["friend@outside.test"]);
    Ok(())
}

#[test]
fn mail_of_a_held_sender_whose_identity_is_put_off_is_not_taken_for_nobodys() -> Result<()> {
    // A site's own way to say who is sending, that cannot be asked just now.
    let bed = Bed::varied(|exim| exim.macros("OUTGOINGD_ORIGIN = ${readsocket{/nonexistent/socket}{who?}{1s}}"))?;
    bed.hold("alice")?;
    let id = bed.exim.submit_as("alice", &letter(), Delivery::Queued)?.accepted()?;
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.waiting(&id)?, ["friend@outside.test"]);
    assert!(bed.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn a_site_may_count_more_domains_as_its_own() -> Result<()> {
    let bed = Bed::varied(|exim| exim.macros("OUTGOINGD_OUTSIDE = !partner.test : !+local_domains"))?;
    bed.hold("alice")?;
    let both = Letter::new("alice@local.test", &["friend@outside.test", "colleague@partner.test"]);
    let id = bed.exim.submit_as("alice", &both, Delivery::Queued)?.accepted()?;
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.waiting(&id)?, ["friend@outside.test"]);
    assert_eq!(bed.outside.recipients(), ["colleague@partner.test"]);
    Ok(())
}

#[test]
fn a_site_may_hold_domains_of_its_own() -> Result<()> {
    let bed = Bed::varied(|exim| exim.macros("OUTGOINGD_OTHER_HOLDS = later.test"))?;
    let both = Letter::new("alice@local.test", &["friend@outside.test", "friend@later.test"]);
    let id = bed.exim.submit_as("alice", &both, Delivery::Queued)?.accepted()?;
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.waiting(&id)?, ["friend@later.test"]);
    assert_eq!(bed.outside.recipients(), ["friend@outside.test"]);
    Ok(())
}

#[test]
fn a_site_may_choose_the_words_for_a_rejection_without_a_notice() -> Result<()> {
    let bed = Bed::varied(|exim| exim.macros("OUTGOINGD_OWN_WORDS = Ask Bob."))?;
    bed.suspend("alice", "x")?;
    let mut daemon = bed.daemon;
    daemon.kill9()?;
    let mut session = bed.exim.smtp()?;
    session.login("alice")?;
    session.mail_from("alice@local.test")?;
    let reply = session.rcpt_to("friend@outside.test")?;
    assert!(reply.text.contains("Ask Bob."), "{reply:?}");
    Ok(())
}
