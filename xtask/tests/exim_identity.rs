//! Whom Exim says is sending. No daemon and no snippets here: `hold_domains` shows what a delivery knows.

use std::fs;

use anyhow::Result;
use xtask::testbed::exim::EXIM_USER;
use xtask::testbed::{Delivery, Exim, Letter};

/// Whether a message waits because its identity, at delivery, is this one.
fn is_delivered_as(exim: &Exim, id: &str) -> Result<bool> {
    exim.run_queue("-q")?;
    let log = exim.log_of(id)?;
    Ok(log.iter().any(|line| line.starts_with("== ") && line.ends_with(": domain is held")))
}

fn exim_that_holds(identity: &str) -> Result<Exim> {
    let option = format!("hold_domains = ${{if eq{{$authenticated_id}}{{{identity}}}{{*}}{{}}}}");
    Exim::builder().main(&option).start()
}

fn letter() -> Letter {
    Letter::new("someone@local.test", &["bob@local.test"])
}

#[test]
fn a_local_submission_carries_the_callers_login_until_its_delivery() -> Result<()> {
    let exim = exim_that_holds("nobody")?;
    let id = exim.submit_by("nobody", &[], &letter(), Delivery::Queued)?.accepted()?;
    assert!(is_delivered_as(&exim, &id)?);
    Ok(())
}

#[test]
fn a_trusted_caller_may_name_another_identity() -> Result<()> {
    let exim = exim_that_holds("alice")?;
    let id = exim.submit_as("alice", &letter(), Delivery::Queued)?.accepted()?;
    assert!(is_delivered_as(&exim, &id)?);
    Ok(())
}

#[test]
fn an_ordinary_user_may_not_name_another_identity() -> Result<()> {
    let exim = exim_that_holds("nobody")?;
    let id = exim.submit_by("nobody", &["-oMai", "alice"], &letter(), Delivery::Queued)?.accepted()?;
    assert!(is_delivered_as(&exim, &id)?);
    Ok(())
}

#[test]
fn an_authenticated_message_carries_its_login_until_its_delivery_letter_by_letter() -> Result<()> {
    let exim = exim_that_holds("Alice")?;
    let id = exim.send_as("Alice", &letter())?;
    assert!(is_delivered_as(&exim, &id)?);
    let id = exim.send_as("alice", &letter())?;
    assert!(!is_delivered_as(&exim, &id)?);
    Ok(())
}

#[test]
fn unauthenticated_mail_from_outside_has_no_identity() -> Result<()> {
    let exim = exim_that_holds("")?;
    let id = exim.smtp()?.send(&letter())?.queue_id()?;
    assert!(is_delivered_as(&exim, &id)?);
    Ok(())
}

#[test]
fn an_exim_of_the_test_bed_keeps_root_so_that_queue_runs_can_deliver() -> Result<()> {
    let exim = Exim::builder().start()?;
    let id = exim.smtp()?.send(&letter())?.queue_id()?;
    exim.run_queue("-q")?;
    assert!(exim.queued(&id)?.is_none());
    assert_eq!(exim.mailbox("bob")?.len(), 1);
    assert_eq!(exim.panic_log()?, "");
    Ok(())
}

#[test]
fn a_configuration_on_the_command_line_costs_exims_own_user_its_root_unless_the_file_is_listed() -> Result<()> {
    let exim = Exim::builder().start()?;
    let copy = exim.home().join("copy.conf");
    fs::copy(exim.home().join("etc/exim4.conf"), &copy)?;
    let copy = copy.to_string_lossy();
    let complaints = || -> Result<usize> {
        exim.exim_by(EXIM_USER, &["-C", &copy, "-q"])?;
        Ok(exim.panic_log()?.matches("exim user lost privilege for using -C option").count())
    };
    assert_eq!(complaints()?, 1);
    fs::write(exim.home().join("etc/trusted_configs"), format!("{copy}\n"))?;
    assert_eq!(complaints()?, 1, "no further one");
    Ok(())
}
