//! What holding a sender does to real mail, from the command of the administrator to the outside server.

use std::time::Duration;

use anyhow::Result;
use xtask::testbed::exim::version;
use xtask::testbed::{Bed, Delivery, Letter, RETRY_AS_ON_DEBIAN, RETRY_NEVER, wait_until};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn letter() -> Letter {
    Letter::new("alice@local.test", &["friend@outside.test"])
}

fn letter_with_a_local_copy() -> Letter {
    Letter::new("alice@local.test", &["friend@outside.test", "bob@local.test"])
}

#[test]
fn the_outside_copy_waits_and_the_local_copy_is_delivered_at_once_when_it_comes_by_smtp() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let id = bed.exim.send_as("alice", &letter_with_a_local_copy())?;
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.exim.mailbox("bob")?.len(), 1);
    assert_eq!(bed.waiting(&id)?, ["friend@outside.test"]);
    assert!(bed.outside.recipients().is_empty());
    assert!(bed.exim.retry_records()?.is_empty());
    Ok(())
}

#[test]
fn the_outside_copy_waits_and_the_local_copy_is_delivered_at_once_when_a_program_hands_it_in() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let id = bed.exim.submit_as("alice", &letter_with_a_local_copy(), Delivery::AtOnce)?.accepted()?;
    assert_eq!(bed.exim.mailbox("bob")?.len(), 1);
    assert_eq!(bed.waiting(&id)?, ["friend@outside.test"]);
    assert!(bed.outside.recipients().is_empty());
    assert!(bed.exim.retry_records()?.is_empty());
    Ok(())
}

#[test]
fn after_a_release_one_ordinary_queue_run_delivers() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    bed.exim.submit_as("alice", &letter(), Delivery::AtOnce)?.accepted()?;
    bed.exim.run_queue("-q")?;
    bed.release("alice")?;
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.outside.recipients(), ["friend@outside.test"]);
    assert!(bed.exim.queue()?.is_empty());
    Ok(())
}

#[test]
fn held_mail_older_than_every_retry_rule_is_neither_delivered_nor_bounced_by_forced_deliveries() -> Result<()> {
    let bed = Bed::varied(|exim| exim.retry(RETRY_NEVER))?;
    bed.hold("alice")?;
    let id = bed.exim.submit_as("alice", &letter(), Delivery::Queued)?.accepted()?;
    bed.exim.make_older(&id, 100 * DAY)?;
    let forced: [&[&str]; 8] = [
        &["-q"],
        &["-qf"],
        &["-qff"],
        &["-M", &id],
        &["-R", "outside.test"],
        &["-Rff", "outside.test"],
        &["-S", "alice"],
        &["-Sff", "alice"],
    ];
    for arguments in forced {
        bed.exim.exim(arguments)?;
        assert_eq!(bed.waiting(&id)?, ["friend@outside.test"], "{arguments:?}");
    }
    assert!(bed.outside.recipients().is_empty());
    assert!(bed.exim.mailbox("alice")?.is_empty());
    Ok(())
}

#[test]
fn held_mail_that_has_seen_forced_deliveries_leaves_seconds_after_its_release() -> Result<()> {
    let bed = Bed::varied(|exim| exim.retry(RETRY_NEVER))?;
    bed.hold("alice")?;
    let id = bed.exim.submit_as("alice", &letter(), Delivery::Queued)?.accepted()?;
    bed.exim.make_older(&id, 100 * DAY)?;
    bed.exim.run_queue("-qff")?;
    bed.release("alice")?;
    // A forced delivery leaves a retry time of one second behind.
    wait_until("an ordinary queue run that delivers", Duration::from_secs(10), || {
        bed.exim.run_queue("-q")?;
        Ok(!bed.outside.recipients().is_empty())
    })?;
    assert!(bed.exim.mailbox("alice")?.is_empty());
    Ok(())
}

#[test]
fn other_senders_mail_to_the_same_recipient_is_not_delayed() -> Result<()> {
    let bed = Bed::varied(|exim| exim.retry(RETRY_AS_ON_DEBIAN))?;
    bed.hold("alice")?;
    bed.exim.submit_as("alice", &letter(), Delivery::Queued)?.accepted()?;
    bed.exim.run_queue("-q")?;
    let same = Letter::new("carol@local.test", &["friend@outside.test"]);
    bed.exim.submit_as("carol", &same, Delivery::Queued)?.accepted()?;
    bed.exim.run_queue("-q")?;
    let received = bed.outside.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].sender, "carol@local.test");
    Ok(())
}

#[test]
fn a_forced_delivery_of_held_mail_delays_other_senders_mail_to_the_same_recipient_by_a_second_and_no_more() -> Result<()>
{
    let bed = Bed::varied(|exim| exim.retry(RETRY_AS_ON_DEBIAN))?;
    bed.hold("alice")?;
    let id = bed.exim.submit_as("alice", &letter(), Delivery::Queued)?.accepted()?;
    bed.exim.run_queue("-qff")?;
    let same = Letter::new("carol@local.test", &["friend@outside.test"]);
    bed.exim.submit_as("carol", &same, Delivery::Queued)?.accepted()?;
    // With an interval as sites have it, a quarter of an hour, this would be in vain.
    wait_until("an ordinary queue run that delivers", Duration::from_secs(10), || {
        bed.exim.run_queue("-q")?;
        Ok(!bed.outside.recipients().is_empty())
    })?;
    assert_eq!(bed.outside.received()[0].sender, "carol@local.test");
    assert_eq!(bed.waiting(&id)?, ["friend@outside.test"]);
    Ok(())
}

#[test]
fn held_mail_is_not_carried_along_on_a_connection_that_another_senders_mail_has_opened() -> Result<()> {
    let bed = Bed::varied(|exim| exim.reuse_connections().main("queue_smtp_domains = later.test"))?;
    let held = Letter::new("alice@local.test", &["friend@later.test"]);
    let held = bed.exim.submit_as("alice", &held, Delivery::AtOnce)?.accepted()?;
    bed.hold("alice")?;
    let other = Letter::new("carol@local.test", &["someone@outside.test"]);
    bed.exim.submit_as("carol", &other, Delivery::Queued)?.accepted()?;
    bed.exim.run_queue("-q")?;
    let log = bed.exim.log_of(&held)?;
    // Exim 4.100 minds hold_domains there.
    let by = if version()? < (4, 100) { "R=outgoingd defer" } else { "defer: domain is held" };
    assert!(log.iter().any(|line| line.contains(by)), "it was not tried: {log:#?}");
    assert_eq!(bed.waiting(&held)?, ["friend@later.test"]);
    assert_eq!(bed.outside.recipients(), ["someone@outside.test"]);
    Ok(())
}

#[test]
fn mail_that_came_in_during_a_long_hold_survives_a_temporary_error_after_its_release() -> Result<()> {
    let bed = Bed::varied(|exim| exim.retry(RETRY_AS_ON_DEBIAN))?;
    bed.hold("alice")?;
    let id = bed.exim.send_as("alice", &letter())?;
    bed.exim.make_older(&id, 10 * DAY)?;
    bed.exim.run_queue("-q")?;
    bed.release("alice")?;
    bed.outside.refuse_everyone("451 come back in a minute");
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.waiting(&id)?, ["friend@outside.test"]);
    bed.outside.accept_everyone();
    bed.exim.run_queue("-qf")?;
    assert_eq!(bed.outside.recipients(), ["friend@outside.test"]);
    Ok(())
}

#[test]
fn mail_to_a_held_sender_is_delivered() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let letter = Letter::new("stranger@outside.test", &["alice@local.test"]);
    assert!(bed.exim.smtp()?.send(&letter)?.is_positive());
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.exim.mailbox("alice")?.len(), 1);
    Ok(())
}

#[test]
fn a_held_sender_is_not_told_that_the_mail_waits_while_others_are() -> Result<()> {
    let bed = Bed::varied(|exim| exim.main("delay_warning = 1h").retry(RETRY_AS_ON_DEBIAN))?;
    bed.hold("alice")?;
    bed.outside.refuse_everyone("451 not now");
    let others = Letter::new("carol@local.test", &["friend@outside.test"]);
    for (identity, letter) in [("alice", letter()), ("carol", others)] {
        let id = bed.exim.submit_as(identity, &letter, Delivery::Queued)?.accepted()?;
        bed.exim.make_older(&id, 2 * HOUR)?;
    }
    bed.exim.run_queue("-q")?;
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.exim.delay_warnings_to("carol")?.len(), 1);
    assert!(bed.exim.mailbox("alice")?.is_empty());
    Ok(())
}

#[test]
fn a_pass_lets_one_message_out_while_its_sibling_stays() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let first = bed.exim.submit_as("alice", &letter(), Delivery::AtOnce)?.accepted()?;
    let second = bed.exim.submit_as("alice", &letter(), Delivery::AtOnce)?.accepted()?;
    bed.daemon.must(&["pass", "--keep", &first])?;
    bed.exim.run_queue("-q")?;
    assert!(bed.exim.queued(&first)?.is_none());
    assert_eq!(bed.waiting(&second)?, ["friend@outside.test"]);
    assert_eq!(bed.outside.received().len(), 1);
    Ok(())
}

#[test]
fn capital_letters_in_the_identity_are_no_way_round() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    bed.hold("@shop.test")?;
    for identity in ["ALICE", "aLice", "sales@SHOP.test", "Sales@shop.TEST"] {
        let id = bed.exim.send_as(identity, &letter())?;
        bed.exim.run_queue("-q")?;
        assert_eq!(bed.waiting(&id)?, ["friend@outside.test"], "{identity}");
    }
    assert!(bed.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn a_hold_on_the_mailbox_the_domain_or_the_account_that_owns_it_each_stops_a_mailbox() -> Result<()> {
    let bed = Bed::start()?;
    for subject in ["sales@shop.test", "@shop.test", "alice"] {
        bed.hold(subject)?;
        let sent = bed.exim.send_as("sales@shop.test", &letter())?;
        let submitted = bed.exim.submit_as("sales@shop.test", &letter(), Delivery::Queued)?.accepted()?;
        bed.exim.run_queue("-q")?;
        for id in [&sent, &submitted] {
            assert_eq!(bed.waiting(id)?, ["friend@outside.test"], "{subject}");
        }
        bed.release(subject)?;
        bed.exim.run_queue("-q")?;
        assert!(bed.exim.queue()?.is_empty(), "{subject}");
    }
    Ok(())
}

#[test]
fn a_login_in_utf_8_is_known_although_exim_escapes_its_bytes() -> Result<()> {
    let bed = Bed::start()?;
    for (subject, login) in [
        ("bücher@shop.test", "bücher@shop.test"),
        ("bücher@shop.test", "BÜCHER@shop.test"),
        ("@bücher.test", "sales@bücher.test"),
        ("@bücher.test", "sales@xn--bcher-kva.test"),
        ("@xn--bcher-kva.test", "sales@bücher.test"),
        ("carol", "sales@BÜCHER.test"),
    ] {
        bed.hold(subject)?;
        let id = bed.exim.send_as(login, &letter())?;
        bed.exim.run_queue("-q")?;
        assert_eq!(bed.waiting(&id)?, ["friend@outside.test"], "{login} under a hold on {subject}");
        bed.release(subject)?;
        bed.exim.run_queue("-q")?;
        assert!(bed.exim.queue()?.is_empty(), "{login} after a release of {subject}");
    }
    Ok(())
}

#[test]
fn a_backslash_in_a_login_is_a_backslash_and_exim_does_not_double_it() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold(r"dom\user@shop.test")?;
    let held = bed.exim.send_as(r"DOM\user@shop.test", &letter())?;
    let free = [r"dom\\user@shop.test", "domuser@shop.test"].map(|login| bed.exim.send_as(login, &letter()));
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.waiting(&held)?, ["friend@outside.test"]);
    for id in free {
        assert!(bed.exim.queued(&id?)?.is_none());
    }
    Ok(())
}

#[test]
fn an_account_covers_the_mailboxes_of_its_domains_and_no_others() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    let held = bed.exim.send_as("sales@shop.test", &letter())?;
    let free = bed.exim.send_as("sales@other.test", &letter())?;
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.waiting(&held)?, ["friend@outside.test"]);
    assert!(bed.exim.queued(&free)?.is_none());
    Ok(())
}

#[test]
fn a_mailbox_can_be_held_alone() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("sales@shop.test")?;
    let held = bed.exim.send_as("sales@shop.test", &letter())?;
    let neighbour = bed.exim.send_as("info@shop.test", &letter())?;
    let account = bed.exim.send_as("alice", &letter())?;
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.waiting(&held)?, ["friend@outside.test"]);
    assert!(bed.exim.queued(&neighbour)?.is_none());
    assert!(bed.exim.queued(&account)?.is_none());
    Ok(())
}

#[test]
fn everyone_can_be_held_and_root_and_strangers_are_not() -> Result<()> {
    let bed = Bed::start()?;
    bed.hold("*")?;
    let carol = bed.exim.send_as("carol", &letter())?;
    let root = bed.exim.submit_as("root", &letter(), Delivery::Queued)?.accepted()?;
    let incoming = Letter::new("stranger@outside.test", &["alice@local.test"]);
    assert!(bed.exim.smtp()?.send(&incoming)?.is_positive());
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.waiting(&carol)?, ["friend@outside.test"]);
    assert!(bed.exim.queued(&root)?.is_none());
    assert_eq!(bed.exim.mailbox("alice")?.len(), 1);
    Ok(())
}

#[test]
fn root_and_accounts_that_do_not_exist_cannot_be_held() -> Result<()> {
    let bed = Bed::start()?;
    for subject in ["root", "nobody-of-that-name"] {
        let refused = bed.daemon.ctl(&["hold", subject])?;
        assert_eq!(refused.code(), 1, "{refused:?}");
        assert!(refused.stderr.contains(subject), "{refused:?}");
    }
    Ok(())
}

#[test]
fn a_hold_is_in_force_for_the_next_message_of_a_session_that_is_already_open() -> Result<()> {
    let bed = Bed::start()?;
    let mut session = bed.exim.smtp()?;
    session.login("alice")?;
    let before = session.send(&letter())?.queue_id()?;
    bed.exim.run_queue("-q")?;
    bed.hold("alice")?;
    let after = session.send(&letter())?.queue_id()?;
    bed.exim.run_queue("-q")?;
    assert!(bed.exim.queued(&before)?.is_none());
    assert_eq!(bed.waiting(&after)?, ["friend@outside.test"]);
    Ok(())
}

#[test]
fn mail_that_was_on_the_queue_before_the_hold_waits_too() -> Result<()> {
    let bed = Bed::start()?;
    let id = bed.exim.send_as("alice", &letter())?;
    bed.hold("alice")?;
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.waiting(&id)?, ["friend@outside.test"]);
    Ok(())
}
