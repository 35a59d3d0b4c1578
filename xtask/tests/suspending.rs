//! What suspending a sender does to real mail, from the command of the administrator to the outside server.

use anyhow::Result;
use xtask::testbed::{Bed, Delivery, Letter};

const NOTICE: &str = "Your mail is suspended, call extension 42.";

fn letter() -> Letter {
    Letter::new("alice@local.test", &["friend@outside.test"])
}

#[test]
fn by_smtp_outside_recipients_are_refused_with_the_notice_and_local_ones_are_served() -> Result<()> {
    let bed = Bed::start()?;
    bed.suspend("alice", NOTICE)?;
    let mut session = bed.exim.smtp()?;
    session.login("alice")?;
    let letter = Letter::new("alice@local.test", &["bob@local.test"]);
    assert!(session.mail_from(&letter.sender)?.is_positive());
    let refusal = session.rcpt_to("friend@outside.test")?;
    assert_eq!(refusal.code, 550);
    assert!(refusal.text.contains(NOTICE), "{refusal:?}");
    assert!(session.rcpt_to("bob@local.test")?.is_positive());
    assert!(session.data(&letter.text())?.is_positive());
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.exim.mailbox("bob")?.len(), 1);
    assert!(bed.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn a_program_that_hands_in_outside_mail_fails_and_nothing_leaves() -> Result<()> {
    let bed = Bed::start()?;
    bed.suspend("alice", NOTICE)?;
    let mixed = Letter::new("alice@local.test", &["bob@local.test", "friend@outside.test"]);
    for letter in [letter(), mixed] {
        let submission = bed.exim.submit_as("alice", &letter, Delivery::AtOnce)?;
        assert_ne!(submission.status, 0);
        assert_eq!(submission.id, None);
    }
    bed.exim.run_queue("-q")?;
    assert!(bed.exim.mailbox("bob")?.is_empty());
    assert!(bed.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn a_program_that_asks_for_errors_on_its_standard_error_gets_the_notice_there() -> Result<()> {
    let bed = Bed::start()?;
    bed.suspend("alice", NOTICE)?;
    let options = ["-oMai", "alice", "-oep"];
    let submission = bed.exim.submit_by("root", &options, &letter(), Delivery::Queued)?;
    assert_ne!(submission.status, 0);
    assert!(submission.stderr.contains(NOTICE), "{submission:?}");
    assert!(bed.exim.queue()?.is_empty());
    Ok(())
}

#[test]
fn a_program_that_asks_for_nothing_gets_the_notice_by_mail() -> Result<()> {
    let bed = Bed::start()?;
    bed.suspend("alice", NOTICE)?;
    assert_ne!(bed.exim.submit_as("alice", &letter(), Delivery::Queued)?.status, 0);
    bed.exim.run_queue("-q")?;
    let mail = bed.exim.mailbox("alice")?;
    assert_eq!(mail.len(), 1);
    assert!(mail[0].contains(NOTICE), "{}", mail[0]);
    Ok(())
}

/// Hands in outside mail of alice, who is suspended, under this envelope sender, as Debian lets every user choose it.
fn rejected_under(envelope_sender: &str) -> Result<Bed> {
    let bed = Bed::start()?;
    bed.suspend("alice", NOTICE)?;
    let letter = Letter::new(envelope_sender, &["friend@outside.test", "bob@local.test"]);
    assert_ne!(bed.exim.submit_as("alice", &letter, Delivery::AtOnce)?.status, 0);
    bed.exim.run_queue("-q")?;
    bed.exim.run_queue("-q")?;
    assert!(bed.exim.queue()?.is_empty());
    assert_eq!(bed.outside.received(), []);
    assert!(bed.exim.mailbox("bob")?.is_empty());
    Ok(bed)
}

#[test]
fn a_program_cannot_have_its_message_sent_back_to_an_outside_address() -> Result<()> {
    let bed = rejected_under("victim@outside.test")?;
    let log = bed.exim.main_log()?;
    let said = "outgoing mail of alice is suspended, and a rejection would go outside, to <victim@outside.test>";
    assert!(log.lines().any(|line| line.contains(" => blackhole ") && line.ends_with(said)), "{log}");
    Ok(())
}

#[test]
fn a_program_that_names_no_sender_or_a_local_one_is_rejected_as_usual() -> Result<()> {
    for envelope_sender in ["", "alice@local.test"] {
        let log = rejected_under(envelope_sender)?.exim.main_log()?;
        let said = "rejected by non-SMTP ACL: outgoing mail of alice is suspended";
        assert!(log.lines().any(|line| line.ends_with(said)), "{log}");
        assert!(!log.contains("blackhole"), "{log}");
    }
    Ok(())
}

#[test]
fn a_program_may_still_write_to_local_recipients_under_any_envelope_sender() -> Result<()> {
    let bed = Bed::start()?;
    bed.suspend("alice", NOTICE)?;
    let local = Letter::new("victim@outside.test", &["bob@local.test"]);
    bed.exim.submit_as("alice", &local, Delivery::AtOnce)?.accepted()?;
    assert_eq!(bed.exim.mailbox("bob")?.len(), 1);
    Ok(())
}

#[test]
fn a_program_may_still_hand_in_mail_for_local_recipients() -> Result<()> {
    let bed = Bed::start()?;
    bed.suspend("alice", NOTICE)?;
    let local = Letter::new("alice@local.test", &["bob@local.test"]);
    bed.exim.submit_as("alice", &local, Delivery::AtOnce)?.accepted()?;
    assert_eq!(bed.exim.mailbox("bob")?.len(), 1);
    Ok(())
}

#[test]
fn without_a_notice_the_refusal_still_says_something() -> Result<()> {
    let bed = Bed::start()?;
    bed.daemon.must(&["suspend", "alice"])?;
    let mut session = bed.exim.smtp()?;
    session.login("alice")?;
    let refusal = session.send(&letter())?;
    assert_eq!(refusal.code, 550);
    assert!(refusal.text.contains("suspended"), "{refusal:?}");
    Ok(())
}

#[test]
fn what_waits_is_bounced_to_its_sender_by_the_next_queue_run_and_local_copies_are_not_affected() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let letter = Letter::new("alice@local.test", &["friend@outside.test", "bob@local.test"]);
    let id = bed.exim.submit_as("alice", &letter, Delivery::AtOnce)?.accepted()?;
    bed.suspend("alice", NOTICE)?;
    bed.exim.run_queue("-q")?;
    assert!(bed.exim.queued(&id)?.is_none());
    bed.exim.run_queue("-q")?;
    let bounces = bed.exim.bounces_to("alice")?;
    assert_eq!(bounces.len(), 1);
    assert!(bounces[0].contains("friend@outside.test"), "{}", bounces[0]);
    assert!(bounces[0].contains(NOTICE), "{}", bounces[0]);
    assert!(!bounces[0].contains("bob@local.test"), "{}", bounces[0]);
    assert_eq!(bed.exim.mailbox("bob")?.len(), 1);
    assert!(bed.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn what_waits_for_a_receiver_that_said_later_is_bounced_when_its_retry_time_has_come() -> Result<()> {
    let bed = Bed::varied(|exim| exim.retry("* * F,4d,1h"))?;
    bed.outside.refuse_everyone("451 not now");
    let id = bed.exim.submit_as("alice", &letter(), Delivery::AtOnce)?.accepted()?;
    bed.suspend("alice", NOTICE)?;
    bed.outside.accept_everyone();
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.waiting(&id)?, ["friend@outside.test"], "until then Exim asks no router");
    bed.exim.run_queue("-qf")?;
    assert!(bed.exim.queued(&id)?.is_none());
    assert!(bed.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn a_suspension_wins_over_a_hold_and_leaves_it_behind() -> Result<()> {
    let bed = Bed::start()?;
    bed.suspend("alice", NOTICE)?;
    bed.hold("alice")?;
    assert_ne!(bed.exim.submit_as("alice", &letter(), Delivery::AtOnce)?.status, 0);
    bed.unsuspend("alice")?;
    let id = bed.exim.submit_as("alice", &letter(), Delivery::AtOnce)?.accepted()?;
    assert_eq!(bed.waiting(&id)?, ["friend@outside.test"]);
    bed.release("alice")?;
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.outside.recipients(), ["friend@outside.test"]);
    Ok(())
}

#[test]
fn a_suspension_is_in_force_in_a_session_that_is_already_open() -> Result<()> {
    let bed = Bed::start()?;
    let mut session = bed.exim.smtp()?;
    session.login("alice")?;
    assert!(session.send(&letter())?.is_positive());
    bed.suspend("alice", NOTICE)?;
    assert_eq!(session.send(&letter())?.code, 550);
    bed.unsuspend("alice")?;
    session.command("RSET")?;
    assert!(session.send(&letter())?.is_positive());
    Ok(())
}

#[test]
fn mail_to_a_suspended_sender_is_delivered() -> Result<()> {
    let bed = Bed::start()?;
    bed.suspend("alice", NOTICE)?;
    let letter = Letter::new("stranger@outside.test", &["alice@local.test"]);
    assert!(bed.exim.smtp()?.send(&letter)?.is_positive());
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.exim.mailbox("alice")?.len(), 1);
    Ok(())
}

#[test]
fn capital_letters_in_the_identity_are_no_way_round() -> Result<()> {
    let bed = Bed::start()?;
    bed.suspend("alice", NOTICE)?;
    for identity in ["ALICE", "aLice", "Sales@SHOP.test"] {
        let mut session = bed.exim.smtp()?;
        session.login(identity)?;
        assert_eq!(session.send(&letter())?.code, 550, "{identity}");
    }
    Ok(())
}

#[test]
fn a_suspension_of_the_mailbox_the_domain_or_the_account_that_owns_it_each_stops_a_mailbox() -> Result<()> {
    let bed = Bed::start()?;
    for subject in ["sales@shop.test", "@shop.test", "alice"] {
        bed.suspend(subject, NOTICE)?;
        let mut session = bed.exim.smtp()?;
        session.login("sales@shop.test")?;
        assert_eq!(session.send(&letter())?.code, 550, "{subject}");
        let submission = bed.exim.submit_as("sales@shop.test", &letter(), Delivery::Queued)?;
        assert_ne!(submission.status, 0, "{subject}");
        bed.unsuspend(subject)?;
        bed.exim.submit_as("sales@shop.test", &letter(), Delivery::Queued)?.accepted()?;
    }
    Ok(())
}

#[test]
fn other_senders_are_not_affected() -> Result<()> {
    let bed = Bed::start()?;
    bed.suspend("alice", NOTICE)?;
    bed.exim.submit_as("carol", &letter(), Delivery::AtOnce)?.accepted()?;
    assert_eq!(bed.outside.recipients(), ["friend@outside.test"]);
    Ok(())
}
