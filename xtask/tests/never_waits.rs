//! Exim waits for the daemon one time-out and no longer, whatever state the daemon is in, and then goes by the fallback
//! file: a held sender's mail is taken and stays, a suspended one's is refused, everybody else's is delivered.
//!
//! These are the real daemon's bad states: it stands still, nobody can connect to it any more, its socket is gone, it is
//! killed and started again under traffic. Answers that are none are in `snippets_fallback`, and a daemon that does not
//! run is in `without_daemon`. The bound on a wait is less than two time-outs.
//!
//! Limit: that a delivery with many recipients waits once is in `snippets_fallback`, with a stand-in for the daemon.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use xtask::testbed::smtp::Reply;
use xtask::testbed::{Bed, Behaviour, Delivery, Exim, Impostor, Letter, wait_until};

/// How long Exim waits for one answer: `OUTGOINGD_TIMEOUT`, which the bed leaves as it is.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The promise: one time-out, and not a second one, for a message that comes in, and for an attempt to deliver it.
const TWO_TIMEOUTS: Duration = TIMEOUT.saturating_mul(2);

/// How long the daemon may need until it answers again.
const RECOVERY: Duration = Duration::from_secs(20);

const FRIEND: &str = "friend@outside.test";

/// How often each sender sends while the daemon is killed again and again.
const ROUNDS: usize = 12;

/// A bed in which alice is held, bob is suspended and carol is free.
fn bed() -> Result<Bed> {
    let bed = Bed::start()?;
    bed.hold("alice")?;
    bed.suspend("bob", "no more")?;
    Ok(bed)
}

fn letter() -> Letter {
    Letter::new("sender@local.test", &[FRIEND])
}

/// Does something that may cost one time-out.
fn in_time<T>(what: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let outcome = action()?;
    let took = started.elapsed();
    assert!(took < TWO_TIMEOUTS, "{what} took {took:?}");
    Ok(outcome)
}

/// Sends a letter by SMTP: the answer to it, or to its recipient.
fn send(exim: &Exim, identity: &str) -> Result<Reply> {
    let mut session = exim.smtp()?;
    session.login(identity)?;
    let letter = letter();
    let reply = in_time(&format!("{identity}, MAIL and RCPT"), || {
        session.mail_from(&letter.sender)?;
        session.rcpt_to(FRIEND)
    })?;
    let reply = if reply.is_positive() { in_time("DATA", || session.data(&letter.text()))? } else { reply };
    session.quit()?;
    Ok(reply)
}

/// Mail by SMTP and from a program, in time, of all three senders.
fn the_last_known_state_is_in_force(bed: &Bed) -> Result<()> {
    let before = bed.outside.recipients().len();
    let by_program = |identity: &str| {
        in_time(&format!("{identity}, from a program"), || bed.exim.submit_as(identity, &letter(), Delivery::Queued))
    };
    let deliver = |identity: &str, id: &str| in_time(&format!("{identity}, delivery attempt"), || bed.exim.deliver(id));

    for id in [send(&bed.exim, "alice")?.queue_id()?, by_program("alice")?.accepted()?] {
        deliver("alice", &id)?;
        assert_eq!(bed.waiting(&id)?, [FRIEND]);
    }
    assert_eq!(bed.outside.recipients().len(), before);

    assert_eq!(send(&bed.exim, "bob")?.code, 550);
    let refused = by_program("bob")?;
    assert_ne!(refused.status, 0, "{refused:?}");
    assert_eq!(refused.id, None);

    for id in [send(&bed.exim, "carol")?.queue_id()?, by_program("carol")?.accepted()?] {
        deliver("carol", &id)?;
        assert!(bed.waiting(&id)?.is_empty());
    }
    assert_eq!(bed.outside.recipients().len(), before + 2);
    Ok(())
}

/// A released sender's mail leaves, and the fallback file, which says otherwise, does not count.
fn the_daemon_decides_again(bed: &Bed) -> Result<()> {
    wait_until("the daemon to answer", RECOVERY, || Ok(bed.daemon.ctl(&["check", "alice"])?.status.success()))?;
    let held = bed.exim.queue()?.into_iter().filter(|message| message.remaining == [FRIEND]).count();
    let before = bed.outside.recipients().len();
    assert_ne!(held, 0);
    bed.release("alice")?;
    fs::write(bed.daemon.fallback(), "*: hold\n")?;
    bed.exim.run_queue("-q")?;
    assert!(bed.exim.queue()?.is_empty());
    assert_eq!(bed.outside.recipients().len(), before + held);
    Ok(())
}

#[test]
fn a_daemon_that_stands_still_costs_one_time_out_and_decides_again_when_it_goes_on() -> Result<()> {
    let bed = bed()?;
    bed.daemon.stand_still()?;
    the_last_known_state_is_in_force(&bed)?;
    bed.daemon.signal(Signal::CONT)?;
    the_daemon_decides_again(&bed)
}

#[test]
fn a_daemon_to_which_nobody_can_connect_any_more_costs_one_time_out_and_decides_again_when_it_goes_on() -> Result<()> {
    let bed = bed()?;
    bed.daemon.stand_still()?;
    let silent = bed.daemon.fill_the_queue()?;
    // One more than listen(2) was told, where net.core.somaxconn is not less.
    assert_eq!(silent.len(), 129, "a long queue is a long wait for whoever is behind those who fill it");
    the_last_known_state_is_in_force(&bed)?;
    bed.daemon.signal(Signal::CONT)?;
    drop(silent);
    the_daemon_decides_again(&bed)
}

#[test]
fn a_socket_that_is_gone_while_the_daemon_runs_leaves_the_last_known_state_in_force_until_a_restart() -> Result<()> {
    let mut bed = bed()?;
    fs::remove_file(bed.daemon.socket())?;
    the_last_known_state_is_in_force(&bed)?;
    bed.daemon.restart()?;
    the_daemon_decides_again(&bed)
}

#[test]
fn an_answer_that_comes_in_bytes_slower_than_the_time_out_costs_one_time_out_and_is_none() -> Result<()> {
    let mut bed = bed()?;
    bed.daemon.stop()?;
    // Each byte comes in time, and the whole answer does not.
    let pause = TIMEOUT * 3 / 4;
    let impostor = Impostor::start(&bed.daemon.socket(), Behaviour::Dribbles(b"ok".to_vec(), pause))?;
    the_last_known_state_is_in_force(&bed)?;
    assert_ne!(impostor.connections(), 0);
    Ok(())
}

/// What three senders send while the daemon comes and goes.
#[derive(Debug, Default)]
struct Traffic {
    messages: AtomicUsize,
    ended: AtomicBool,
}

impl Traffic {
    /// The names of the messages of alice, and of carol.
    fn send(&self, exim: &Exim) -> Result<(Vec<String>, Vec<String>)> {
        let outcome = self.send_all(exim);
        self.ended.store(true, Ordering::Relaxed);
        outcome
    }

    fn send_all(&self, exim: &Exim) -> Result<(Vec<String>, Vec<String>)> {
        let (mut held, mut free) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            held.push(send(exim, "alice")?.queue_id()?);
            self.count();
            let refusal = send(exim, "bob")?;
            ensure!(refusal.code == 550, "bob: {refusal:?}");
            self.count();
            free.push(send(exim, "carol")?.queue_id()?);
            self.count();
            exim.run_queue("-q")?;
        }
        Ok((held, free))
    }

    fn count(&self) {
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for one more message, or for the end.
    fn wait_for_more(&self) -> Result<()> {
        let before = self.messages.load(Ordering::Relaxed);
        let more = || self.messages.load(Ordering::Relaxed) > before || self.ended.load(Ordering::Relaxed);
        wait_until("another message", RECOVERY, || Ok(more()))
    }
}

#[test]
fn a_daemon_that_is_killed_and_started_again_and_again_lets_nothing_out_and_nothing_get_lost() -> Result<()> {
    let Bed { exim, outside, mut daemon } = bed()?;
    let traffic = Traffic::default();
    let (sent, kills) = thread::scope(|scope| -> Result<_> {
        let sender = scope.spawn(|| traffic.send(&exim));
        let mut kills = 0;
        while !traffic.ended.load(Ordering::Relaxed) {
            traffic.wait_for_more()?;
            daemon.kill9()?;
            kills += 1;
            traffic.wait_for_more()?;
            daemon.start_again()?;
        }
        let sent = sender.join().map_err(|_| anyhow::anyhow!("the traffic broke off"))??;
        Ok((sent, kills))
    })?;
    let (held, free) = sent;
    assert!(kills >= ROUNDS / 2, "{kills} kills in {ROUNDS} rounds");
    exim.run_queue("-q")?;
    let mut waiting: Vec<_> = exim.queue()?.into_iter().map(|message| message.id).collect();
    let mut expected = held.clone();
    waiting.sort();
    expected.sort();
    assert_eq!(waiting, expected, "alice's mail and no other waits");
    assert_eq!(outside.recipients().len(), free.len(), "carol's mail and no other has left");
    for id in &free {
        assert!(exim.log_of(id)?.iter().any(|line| line.starts_with(&format!("=> {FRIEND}"))), "{id}");
    }
    daemon.must(&["release", "alice", "--keep"])?;
    exim.run_queue("-q")?;
    assert!(exim.queue()?.is_empty());
    assert_eq!(outside.recipients().len(), free.len() + held.len());
    Ok(())
}
