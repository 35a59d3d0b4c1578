//! What exactly Exim asks, and how often. A stand-in answers and takes notes.

use anyhow::Result;
use xtask::testbed::{Behaviour, Delivery, Letter, Stage};

fn letter_to(count: usize) -> Letter {
    let recipients: Vec<String> = (0..count).map(|number| format!("friend{number}@outside.test")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    Letter::new("alice@local.test", &recipients)
}

#[test]
fn a_message_with_100_recipients_asks_once_at_reception_and_once_at_delivery() -> Result<()> {
    let stage = Stage::with(Behaviour::verdicts(&[]))?;
    let id = stage.exim.send_as("alice", &letter_to(100))?;
    assert_eq!(stage.take_questions().len(), 1, "at reception");
    stage.exim.run_queue("-q")?;
    assert_eq!(stage.take_questions(), [format!("check id={id} alice\n")]);
    assert_eq!(stage.outside.recipients().len(), 100);
    Ok(())
}

#[test]
fn a_held_message_asks_a_few_times_at_an_attempt_and_not_once_for_each_recipient() -> Result<()> {
    let stage = Stage::with(Behaviour::verdicts(&[("alice", "hold")]))?;
    let id = stage.exim.submit_as("alice", &letter_to(100), Delivery::Queued)?.accepted()?;
    assert_eq!(stage.take_questions().len(), 1, "at reception");
    // Exim empties its cache after routing; what it asks afterwards, for retry times and for the warning, is asked anew.
    for run in ["-q", "-qff"] {
        stage.exim.run_queue(run)?;
        let expected = format!("check id={id} alice\n");
        assert_eq!(stage.take_questions(), [expected.clone(), expected], "{run}");
    }
    assert_eq!(stage.exim.queue()?[0].remaining.len(), 100);
    Ok(())
}

#[test]
fn a_suspended_message_with_100_recipients_asks_for_the_verdict_and_the_notice_once_each() -> Result<()> {
    let stage = Stage::with(Behaviour::verdicts(&[]))?;
    let id = stage.exim.send_as("alice", &letter_to(100))?;
    let _ = stage.take_questions();
    stage.becomes(Behaviour::verdicts(&[("alice", "suspend")]));
    stage.exim.run_queue("-q")?;
    assert_eq!(stage.take_questions(), [format!("check id={id} alice\n"), "notice alice\n".to_owned()]);
    assert!(stage.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn no_question_is_asked_for_unauthenticated_mail_from_outside() -> Result<()> {
    let stage = Stage::with(Behaviour::says("suspend"))?;
    let letter = Letter::new("stranger@outside.test", &["bob@local.test"]);
    assert!(stage.exim.smtp()?.send(&letter)?.is_positive());
    stage.exim.run_queue("-q")?;
    assert_eq!(stage.exim.mailbox("bob")?.len(), 1);
    assert_eq!(stage.impostor.as_ref().unwrap().connections(), 0);
    Ok(())
}

#[test]
fn no_question_is_asked_for_bounces() -> Result<()> {
    let stage = Stage::with(Behaviour::verdicts(&[]))?;
    stage.outside.refuse_everyone("550 no such user");
    let id = stage.exim.submit_as("alice", &letter_to(1), Delivery::AtOnce)?.accepted()?;
    // The message itself at reception and at delivery, and nothing about the bounce that this delivery makes.
    let expected = format!("check id={id} alice\n");
    assert_eq!(stage.take_questions(), [expected.clone(), expected]);
    stage.exim.run_queue("-q")?;
    assert_eq!(stage.exim.bounces_to("alice")?.len(), 1);
    assert!(stage.take_questions().is_empty());
    Ok(())
}

#[test]
fn one_long_session_asks_again_for_every_message() -> Result<()> {
    let stage = Stage::with(Behaviour::verdicts(&[]))?;
    let mut session = stage.exim.smtp()?;
    session.login("alice")?;
    assert!(session.send(&letter_to(1))?.is_positive());
    stage.becomes(Behaviour::verdicts(&[("alice", "suspend")]));
    assert_eq!(session.send(&letter_to(1))?.code, 550);
    Ok(())
}

/// What is asked when this identity has logged in and starts a message.
fn asked_about(stage: &Stage, identity: &[u8]) -> Result<Vec<String>> {
    let mut session = stage.exim.smtp()?;
    session.login(identity)?;
    session.mail_from("alice@local.test")?;
    session.quit()?;
    Ok(stage.take_questions())
}

#[test]
fn the_identity_is_asked_as_it_was_given_and_the_daemon_decides_what_it_means() -> Result<()> {
    let stage = Stage::with(Behaviour::says("ok"))?;
    for identity in ["Alice", " alice", "al ice", "alice@EXAMPLE.com", "${nope}", "a}b{c", "a\\b", "id=x alice"] {
        let question = format!("check id= {identity}\n");
        assert_eq!(asked_about(&stage, identity.as_bytes())?, [question]);
    }
    Ok(())
}

#[test]
fn bytes_of_an_identity_that_are_not_printable_ascii_are_asked_as_escapes() -> Result<()> {
    let stage = Stage::with(Behaviour::says("error"))?;
    assert_eq!(asked_about(&stage, b"alice\ncheck bob")?, ["check id= alice\\ncheck bob\n"]);
    assert_eq!(asked_about(&stage, b"alice\r\x01")?, ["check id= alice\\r\\001\n"]);
    assert_eq!(asked_about(&stage, "bob@b\u{fc}cher.test".as_bytes())?, ["check id= bob@b\\303\\274cher.test\n"]);
    Ok(())
}

#[test]
fn no_question_is_asked_about_a_recipient() -> Result<()> {
    let stage = Stage::with(Behaviour::verdicts(&[]))?;
    let mut session = stage.exim.smtp()?;
    session.login("alice")?;
    session.mail_from("alice@local.test")?;
    let _ = stage.take_questions();
    assert!(session.rcpt_to("friend@outside.test")?.is_positive());
    assert!(session.rcpt_to("bob@local.test")?.is_positive());
    assert!(stage.take_questions().is_empty());
    Ok(())
}
