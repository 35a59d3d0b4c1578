//! What Exim does with mail that must wait: each way of making it wait, alone, so that one sees why the snippets take two at once.
//!
//! No daemon and no snippets here: a file decides whether mail from alice is held.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;
use xtask::testbed::exim::version;
use xtask::testbed::{Delivery, Exim, EximBuilder, Letter, Outside, RETRY_NEVER, public_directory};

/// Older than anything in a configuration of these tests.
const LONG: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The main option that holds.
const HOLD_DOMAINS: &str = "hold_domains = ${if HELD{!+local_domains : *}{}}";

/// The router that holds.
const HOLD_ROUTER: &str = "\
held:
  driver = redirect
  domains = !+local_domains
  condition = ${if HELD}
  allow_defer
  data = :defer: held
  no_verify
";

/// The retry rule that keeps what the router holds.
const HOLD_RETRY: &str = "\"${if HELD{*}{}}\" * F,3650d,15m";

/// An outside world, and the file whose existence holds alice's mail.
struct Setup {
    outside: Outside,
    held: PathBuf,
    _directory: TempDir,
}

impl Setup {
    fn new() -> Result<Self> {
        let directory = public_directory()?;
        let setup = Self { outside: Outside::start()?, held: directory.path().join("held"), _directory: directory };
        setup.hold()?;
        Ok(setup)
    }

    fn exim(&self) -> EximBuilder {
        Exim::builder().outside(&self.outside)
    }

    fn filled_in(&self, text: &str) -> String {
        let held = format!("and{{{{eq{{$authenticated_id}}{{alice}}}}{{exists{{{}}}}}}}", self.held.display());
        text.replace("HELD", &held)
    }

    fn hold(&self) -> Result<()> {
        Ok(fs::write(&self.held, "")?)
    }

    fn release(&self) -> Result<()> {
        Ok(fs::remove_file(&self.held)?)
    }
}

fn letter_of_alice() -> Letter {
    Letter::new("alice@local.test", &["friend@outside.test"])
}

fn queued_letter_of_alice(exim: &Exim) -> Result<String> {
    exim.submit_as("alice", &letter_of_alice(), Delivery::Queued)?.accepted()
}

#[test]
fn hold_domains_keeps_the_outside_copy_and_delivers_the_local_one_at_once() -> Result<()> {
    let setup = Setup::new()?;
    let exim = setup.exim().main(&setup.filled_in(HOLD_DOMAINS)).start()?;
    let letter = Letter::new("alice@local.test", &["friend@outside.test", "bob@local.test"]);
    let id = exim.submit_as("alice", &letter, Delivery::AtOnce)?.accepted()?;
    let log = exim.log_of(&id)?;
    let is_held =
        |line: &String| line.starts_with("== friend@outside.test defer") && line.ends_with(": domain is held");
    assert!(log.iter().any(is_held), "{log:#?}");
    assert_eq!(exim.mailbox("bob")?.len(), 1);
    assert_eq!(exim.queue()?[0].remaining, ["friend@outside.test"]);
    assert!(setup.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn hold_domains_leaves_no_retry_record_and_after_a_release_one_ordinary_queue_run_delivers() -> Result<()> {
    let setup = Setup::new()?;
    let exim = setup.exim().main(&setup.filled_in(HOLD_DOMAINS)).start()?;
    exim.submit_as("alice", &letter_of_alice(), Delivery::AtOnce)?.accepted()?;
    exim.run_queue("-q")?;
    assert!(exim.retry_records()?.is_empty());
    setup.release()?;
    exim.run_queue("-q")?;
    assert_eq!(setup.outside.recipients(), ["friend@outside.test"]);
    assert!(exim.queue()?.is_empty());
    Ok(())
}

#[test]
fn hold_domains_never_times_a_message_out() -> Result<()> {
    let setup = Setup::new()?;
    let exim = setup.exim().main(&setup.filled_in(HOLD_DOMAINS)).retry(RETRY_NEVER).start()?;
    let id = queued_letter_of_alice(&exim)?;
    exim.make_older(&id, LONG)?;
    exim.run_queue("-q")?;
    exim.run_queue("-q")?;
    assert_eq!(exim.queue()?.len(), 1);
    assert!(exim.bounces_to("alice")?.is_empty());
    Ok(())
}

/// Whether one queue command lets alice's mail out although `hold_domains` says to keep it.
fn leaks(run: impl FnOnce(&Exim, &str) -> Result<()>) -> Result<bool> {
    let setup = Setup::new()?;
    let exim = setup.exim().main(&setup.filled_in(HOLD_DOMAINS)).start()?;
    let id = queued_letter_of_alice(&exim)?;
    run(&exim, &id)?;
    Ok(!setup.outside.recipients().is_empty())
}

#[test]
fn hold_domains_alone_is_skipped_by_forced_deliveries() -> Result<()> {
    assert!(leaks(Exim::force)?);
    assert!(leaks(|exim, _| exim.run_queue("-qf"))?);
    assert!(leaks(|exim, _| exim.run_queue("-qff"))?);
    assert!(leaks(|exim, _| exim.exim(&["-Rf", "outside.test"]).map(drop))?);
    assert!(leaks(|exim, _| exim.exim(&["-Sf", "alice"]).map(drop))?);
    Ok(())
}

#[test]
fn hold_domains_alone_is_skipped_for_the_first_message_that_is_chosen_by_recipient_or_sender() -> Result<()> {
    assert!(leaks(|exim, _| exim.exim(&["-R", "outside.test"]).map(drop))?);
    assert!(leaks(|exim, _| exim.exim(&["-S", "alice"]).map(drop))?);
    Ok(())
}

#[test]
fn hold_domains_alone_is_skipped_for_mail_that_follows_another_message_on_its_connection_before_exim_4_100()
-> Result<()> {
    let setup = Setup::new()?;
    setup.release()?;
    let hold = setup.filled_in(HOLD_DOMAINS);
    let exim = setup.exim().main(&hold).reuse_connections().main("queue_smtp_domains = later.test").start()?;
    let letter = Letter::new("alice@local.test", &["friend@later.test"]);
    exim.submit_as("alice", &letter, Delivery::AtOnce)?.accepted()?;
    setup.hold()?;
    let other = Letter::new("carol@local.test", &["someone@outside.test"]);
    exim.submit_as("carol", &other, Delivery::Queued)?.accepted()?;
    exim.run_queue("-q")?;
    let got = ["someone@outside.test", "friend@later.test"];
    assert_eq!(setup.outside.recipients(), if version()? < (4, 100) { &got[..] } else { &got[..1] });
    Ok(())
}

#[test]
fn hold_domains_alone_withstands_deliveries_that_are_not_forced() -> Result<()> {
    assert!(!leaks(Exim::deliver)?);
    assert!(!leaks(|exim, _| exim.run_queue("-q"))?);
    assert!(!leaks(|exim, _| exim.run_queue("-qq"))?);
    Ok(())
}

#[test]
fn a_deferring_router_alone_loses_held_mail_when_the_retry_rules_run_out() -> Result<()> {
    let setup = Setup::new()?;
    let exim = setup.exim().routers(&setup.filled_in(HOLD_ROUTER)).retry(RETRY_NEVER).start()?;
    let id = queued_letter_of_alice(&exim)?;
    exim.make_older(&id, LONG)?;
    exim.run_queue("-q")?;
    let log = exim.log_of(&id)?;
    assert!(log.iter().any(|line| line.ends_with("retry timeout exceeded")), "{log:#?}");
    exim.run_queue("-q")?;
    assert_eq!(exim.bounces_to("alice")?.len(), 1);
    assert!(exim.queue()?.is_empty());
    Ok(())
}

#[test]
fn a_deferring_router_alone_delays_other_senders_mail_to_the_same_recipient() -> Result<()> {
    let setup = Setup::new()?;
    let exim = setup.exim().routers(&setup.filled_in(HOLD_ROUTER)).retry("* * F,4d,15m").start()?;
    queued_letter_of_alice(&exim)?;
    exim.run_queue("-q")?;
    assert_eq!(exim.retry_records()?, ["R:friend@outside.test"]);
    let letter = Letter::new("carol@local.test", &["friend@outside.test"]);
    let id = exim.submit_as("carol", &letter, Delivery::Queued)?.accepted()?;
    exim.run_queue("-q")?;
    assert!(exim.queued(&id)?.is_some(), "carol is held by nobody, and still waits");
    assert!(setup.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn option_router_and_retry_rule_together_keep_mail_that_is_older_than_every_rule() -> Result<()> {
    let setup = Setup::new()?;
    let exim = setup
        .exim()
        .main(&setup.filled_in(HOLD_DOMAINS))
        .routers(&setup.filled_in(HOLD_ROUTER))
        .retry(&format!("{}\n{RETRY_NEVER}", setup.filled_in(HOLD_RETRY)))
        .start()?;
    let id = queued_letter_of_alice(&exim)?;
    exim.make_older(&id, LONG)?;
    for run in ["-q", "-qf", "-qff"] {
        exim.run_queue(run)?;
    }
    exim.force(&id)?;
    assert_eq!(exim.queue()?.len(), 1);
    assert!(exim.bounces_to("alice")?.is_empty());
    assert!(setup.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn without_its_retry_rule_the_router_bounces_old_mail_on_a_forced_run() -> Result<()> {
    let setup = Setup::new()?;
    let exim = setup
        .exim()
        .main(&setup.filled_in(HOLD_DOMAINS))
        .routers(&setup.filled_in(HOLD_ROUTER))
        .retry(RETRY_NEVER)
        .start()?;
    let id = queued_letter_of_alice(&exim)?;
    exim.make_older(&id, LONG)?;
    exim.run_queue("-qff")?;
    assert!(exim.queued(&id)?.is_none());
    exim.run_queue("-q")?;
    assert_eq!(exim.bounces_to("alice")?.len(), 1);
    Ok(())
}

#[test]
fn a_held_sender_is_warned_of_the_delay_unless_the_condition_says_no() -> Result<()> {
    let setup = Setup::new()?;
    let hold = setup.filled_in(HOLD_DOMAINS);
    let quiet = setup.filled_in("delay_warning_condition = ${if HELD{no}{yes}}");
    let warned = |more: &str| -> Result<usize> {
        let exim = setup.exim().main(&hold).main("delay_warning = 1h").main(more).start()?;
        let id = queued_letter_of_alice(&exim)?;
        exim.make_older(&id, Duration::from_secs(2 * 60 * 60))?;
        exim.run_queue("-q")?;
        exim.run_queue("-q")?;
        Ok(exim.delay_warnings_to("alice")?.len())
    };
    assert_eq!(warned("")?, 1);
    assert_eq!(warned(&quiet)?, 0);
    Ok(())
}

#[test]
fn freezing_is_no_hold_because_frozen_mail_is_bounced_after_its_time() -> Result<()> {
    let setup = Setup::new()?;
    let exim = setup.exim().main("timeout_frozen_after = 7d").start()?;
    let id = queued_letter_of_alice(&exim)?;
    exim.freeze(&id)?;
    exim.run_queue("-q")?;
    assert!(exim.queued(&id)?.is_some_and(|message| message.frozen));
    exim.make_older(&id, LONG)?;
    exim.run_queue("-q")?;
    assert!(exim.queued(&id)?.is_none());
    exim.run_queue("-q")?;
    assert_eq!(exim.bounces_to("alice")?.len(), 1);
    assert!(setup.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn a_message_on_the_queue_waits_for_its_retry_time_as_the_rules_of_seconds_say() -> Result<()> {
    let setup = Setup::new()?;
    setup.release()?;
    let exim = setup.exim().retry("* * F,1h,30m").start()?;
    setup.outside.refuse_everyone("451 not now");
    let id = queued_letter_of_alice(&exim)?;
    exim.run_queue("-q")?;
    setup.outside.accept_everyone();
    exim.run_queue("-q")?;
    assert!(exim.queued(&id)?.is_some(), "its time has not come");
    exim.run_queue("-qf")?;
    assert!(exim.queued(&id)?.is_none());
    Ok(())
}
