//! When the daemon gives no answer, or one that is none, the fallback file decides: neither does held mail leave, nor is
//! anybody else's mail stopped. Each test breaks the daemon in another way; all of them promise the same.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use xtask::testbed::exim::version;
use xtask::testbed::{Behaviour, Delivery, Letter, Stage};

const LAST_KNOWN: &str = "alice: hold\nbob: suspend\ncarol@example.com: suspend\n*@example.com: hold\n";

/// Checks every decision of the fallback file, for mail that comes in by SMTP and on the command line.
fn the_fallback_file_decides(stage: &Stage) -> Result<()> {
    stage.fall_back_to(LAST_KNOWN)?;
    held_mail_is_taken_and_stays(stage, "alice")?;
    held_mail_is_taken_and_stays(stage, "dave@example.com")?;
    suspended_mail_is_refused(stage, "bob")?;
    suspended_mail_is_refused(stage, "carol@example.com")?;
    others_are_delivered(stage, "erin")?;
    others_are_delivered(stage, "erin@example.org")
}

fn held_mail_is_taken_and_stays(stage: &Stage, identity: &str) -> Result<()> {
    let before = stage.outside.recipients();
    let letter = Letter::new("sender@local.test", &["friend@outside.test", "local@local.test"]);
    let sent = stage.exim.send_as(identity, &letter)?;
    let submitted = stage.exim.submit_as(identity, &letter, Delivery::Queued)?.accepted()?;
    stage.exim.run_queue("-q")?;
    for id in [&sent, &submitted] {
        let waiting = stage.exim.queued(id)?.map(|message| message.remaining);
        assert_eq!(waiting, Some(vec!["friend@outside.test".to_owned()]), "{identity}");
    }
    assert_eq!(stage.outside.recipients(), before, "{identity}");
    Ok(())
}

fn suspended_mail_is_refused(stage: &Stage, identity: &str) -> Result<()> {
    let letter = Letter::new("sender@local.test", &["friend@outside.test"]);
    let mut session = stage.exim.smtp()?;
    session.login(identity)?;
    let reply = session.send(&letter)?;
    assert_eq!(reply.code, 550, "{identity}: {reply:?}");
    let submission = stage.exim.submit_as(identity, &letter, Delivery::Queued)?;
    assert_ne!(submission.status, 0, "{identity}: {submission:?}");
    assert_eq!(submission.id, None);
    Ok(())
}

fn others_are_delivered(stage: &Stage, identity: &str) -> Result<()> {
    let before = stage.outside.received().len();
    let letter = Letter::new("sender@local.test", &["friend@outside.test"]);
    stage.exim.send_as(identity, &letter)?;
    stage.exim.submit_as(identity, &letter, Delivery::AtOnce)?.accepted()?;
    stage.exim.run_queue("-q")?;
    assert_eq!(stage.outside.received().len(), before + 2, "{identity}");
    Ok(())
}

#[test]
fn the_fallback_file_decides_when_nobody_listens() -> Result<()> {
    let mut stage = Stage::with(Behaviour::Silent)?;
    stage.impostor = None;
    the_fallback_file_decides(&stage)
}

#[test]
fn the_fallback_file_decides_when_the_daemon_hangs_up_unheard() -> Result<()> {
    the_fallback_file_decides(&Stage::with(Behaviour::HangsUp)?)
}

#[test]
fn the_fallback_file_decides_when_the_answer_is_empty() -> Result<()> {
    the_fallback_file_decides(&Stage::with(Behaviour::says(""))?)
}

#[test]
fn the_fallback_file_decides_when_the_answer_is_garbage() -> Result<()> {
    the_fallback_file_decides(&Stage::with(Behaviour::says(b"\xff\xfe{}${nope}\\ \x01"))?)
}

#[test]
fn the_fallback_file_decides_when_the_answer_is_an_error() -> Result<()> {
    the_fallback_file_decides(&Stage::with(Behaviour::says("error"))?)
}

#[test]
fn the_fallback_file_decides_when_a_newline_follows_the_answer() -> Result<()> {
    the_fallback_file_decides(&Stage::with(Behaviour::says("ok\n"))?)?;
    the_fallback_file_decides(&Stage::with(Behaviour::says("suspend\n"))?)
}

#[test]
fn the_fallback_file_decides_when_the_answer_only_begins_or_ends_like_one() -> Result<()> {
    the_fallback_file_decides(&Stage::with(Behaviour::says("okay"))?)?;
    the_fallback_file_decides(&Stage::with(Behaviour::says("not ok"))?)?;
    the_fallback_file_decides(&Stage::with(Behaviour::says("hol"))?)
}

#[test]
fn a_silent_daemon_costs_a_session_one_time_out_for_each_message_and_then_the_fallback_file_decides() -> Result<()> {
    let stage = Stage::with(Behaviour::Silent)?;
    stage.fall_back_to(LAST_KNOWN)?;
    let started = Instant::now();
    let mut session = stage.exim.smtp()?;
    session.login("bob")?;
    session.mail_from("sender@local.test")?;
    let mail = started.elapsed();
    assert!(mail >= Duration::from_millis(900) && mail < Duration::from_secs(3), "{mail:?}");
    assert_eq!(session.rcpt_to("friend@outside.test")?.code, 550);
    Ok(())
}

#[test]
fn a_silent_daemon_costs_no_further_time_out_for_each_recipient_that_is_refused() -> Result<()> {
    let stage = Stage::with(Behaviour::Silent)?;
    stage.fall_back_to(LAST_KNOWN)?;
    let mut session = stage.exim.smtp()?;
    session.login("bob")?;
    for message in 1..=2 {
        session.mail_from("sender@local.test")?;
        for recipient in ["x@outside.test", "y@outside.test", "z@outside.test"] {
            let refusal = session.rcpt_to(recipient)?;
            assert_eq!(refusal.code, 550);
            assert!(refusal.text.contains("Your outgoing mail is suspended."), "{refusal:?}");
        }
        session.command("RSET")?;
        assert_eq!(stage.take_questions(), ["check id= bob\n"], "message {message}");
    }
    Ok(())
}

/// Delivers a message to five recipients while the daemon is silent; the questions, and how many recipients got it.
fn delivery_in_silence(identity: &str, run: &str) -> Result<(usize, usize)> {
    let stage = Stage::with(Behaviour::verdicts(&[]))?;
    stage.fall_back_to(LAST_KNOWN)?;
    let recipients = ["v@outside.test", "w@outside.test", "x@outside.test", "y@outside.test", "z@outside.test"];
    let letter = Letter::new("a@local.test", &recipients);
    stage.exim.submit_as(identity, &letter, Delivery::Queued)?.accepted()?;
    let _ = stage.take_questions();
    stage.becomes(Behaviour::Silent);
    stage.exim.run_queue(run)?;
    Ok((stage.take_questions().len(), stage.outside.recipients().len()))
}

#[test]
fn a_silent_daemon_costs_a_delivery_one_time_out_however_many_recipients_and_then_the_fallback_file_decides()
-> Result<()> {
    for run in ["-q", "-qff"] {
        assert_eq!(delivery_in_silence("alice", run)?, (1, 0), "held, {run}");
        assert_eq!(delivery_in_silence("bob", run)?, (1, 0), "suspended, {run}");
        assert_eq!(delivery_in_silence("erin", run)?, (1, 5), "free, {run}");
    }
    Ok(())
}

#[test]
fn a_daemon_that_was_silent_is_asked_again_at_the_next_attempt() -> Result<()> {
    let stage = Stage::with(Behaviour::Silent)?;
    stage.fall_back_to(LAST_KNOWN)?;
    let letter = Letter::new("a@local.test", &["friend@outside.test"]);
    let id = stage.exim.submit_as("alice", &letter, Delivery::Queued)?.accepted()?;
    stage.exim.run_queue("-q")?;
    assert!(stage.exim.queued(&id)?.is_some());
    stage.becomes(Behaviour::verdicts(&[]));
    stage.exim.run_queue("-q")?;
    assert_eq!(stage.outside.recipients(), ["friend@outside.test"]);
    Ok(())
}

#[test]
fn an_answer_that_comes_in_single_bytes_counts() -> Result<()> {
    let pause = Duration::from_millis(10);
    let stage = Stage::with(Behaviour::Dribbles(b"suspend".to_vec(), pause))?;
    suspended_mail_is_refused(&stage, "alice")
}

#[test]
fn the_daemons_answer_counts_and_not_the_fallback_file_while_it_answers() -> Result<()> {
    let stage = Stage::with(Behaviour::verdicts(&[("erin", "hold")]))?;
    stage.fall_back_to(LAST_KNOWN)?;
    others_are_delivered(&stage, "alice")?;
    others_are_delivered(&stage, "bob")?;
    held_mail_is_taken_and_stays(&stage, "erin")
}

#[test]
fn without_a_daemon_and_a_fallback_file_nobody_is_held() -> Result<()> {
    let mut stage = Stage::with(Behaviour::Silent)?;
    stage.impostor = None;
    fs::remove_file(stage.fallback())?;
    others_are_delivered(&stage, "alice")
}

#[test]
fn a_fallback_file_that_cannot_be_read_lets_nothing_out_and_loses_nothing() -> Result<()> {
    let mut stage = Stage::with(Behaviour::verdicts(&[]))?;
    let letter = Letter::new("sender@local.test", &["friend@outside.test"]);
    let mut kept = vec![stage.exim.submit_as("erin", &letter, Delivery::Queued)?.accepted()?];
    stage.impostor = None;
    fs::remove_file(stage.fallback())?;
    fs::create_dir(stage.fallback())?;
    let by_program = stage.exim.submit_as("erin", &letter, Delivery::Queued)?;
    let mut session = stage.exim.smtp()?;
    session.login("erin")?;
    let reply = session.send(&letter)?;
    if version()? < (4, 97) {
        kept.extend([by_program.accepted()?, reply.queue_id()?]);
    } else {
        // Not taken; who sends it knows, and a client that it may try again.
        assert_ne!(by_program.status, 0, "{by_program:?}");
        assert_eq!(reply.code, 451, "{reply:?}");
    }
    for run in ["-q", "-qff"] {
        stage.exim.run_queue(run)?;
        for id in &kept {
            assert!(stage.exim.queued(id)?.is_some(), "{run}: {kept:?}");
        }
    }
    assert!(stage.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn capital_letters_in_the_identity_are_no_way_round_the_fallback_file() -> Result<()> {
    let mut stage = Stage::with(Behaviour::Silent)?;
    stage.impostor = None;
    stage.fall_back_to(LAST_KNOWN)?;
    held_mail_is_taken_and_stays(&stage, "ALICE")?;
    held_mail_is_taken_and_stays(&stage, "Dave@Example.COM")?;
    suspended_mail_is_refused(&stage, "Bob")?;
    suspended_mail_is_refused(&stage, "cAROL@example.com")
}
