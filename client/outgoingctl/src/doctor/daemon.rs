//! The daemon: whether it answers, and what it says of itself.

use super::disk;
use super::report::{self, Finding, Report};
use crate::Failure;
use crate::tools::Tools;
use crate::{moment, show};
use outgoingd_client::Error;
use outgoingd_client::protocol::message::{Cause, Condition, Stats};
use std::path::Path;
use std::time::Instant;

/// A clock before this is wrong: 2026-01-01.
const SANE: u64 = 1_767_225_600;

/// Seconds by which two looks at one clock may differ.
const DIFFERENCE: u64 = 5;

/// How it is started.
pub(super) const START: &str = "systemctl status outgoingd.socket outgoingd.service; systemctl restart outgoingd.socket outgoingd.service (--socket, if it listens elsewhere)";

/// Where the directory of the state is no more. A daemon that is restarted begins with no flags.
const GONE: &str = "put it back; if nobody has it any more, first save what outgoingd still knows: outgoingctl export >/root/outgoingd-flags; systemctl restart outgoingd; outgoingctl import /root/outgoingd-flags";

/// Checks all that needs no Exim. What the daemon says of itself, if it does.
pub(super) fn look(tools: &mut Tools, report: &mut Report) -> Result<Option<Condition>, Failure> {
    let begun = Instant::now();
    // As Exim asks, with Exim's patience: one that hangs is found in two seconds.
    let answered = tools.client.check("outgoingctl-doctor", None);
    let took = begun.elapsed();
    if let Err(error) = answered {
        if !error.is_not_permitted() {
            report.unreachable();
        }
        report.blocked(&error.to_string());
        report.add(tools, "daemon", &report::unseen(&error.into(), START))?;
        return Ok(None);
    }
    let found = format!("answers at {} in {} µs", tools.socket.display(), took.as_micros());
    report.add(tools, "daemon", &Finding::ok(found))?;
    let stats = match tools.client.stats() {
        Ok(stats) => stats,
        Err(error) => {
            report.blocked(&error.to_string());
            report.add(tools, "versions", &report::unseen(&error.into(), "see journalctl -u outgoingd"))?;
            return Ok(None);
        }
    };
    report.add(tools, "versions", &versions(&stats))?;
    let condition = match tools.client.condition() {
        Ok(condition) => condition,
        Err(error) => {
            report.blocked("this outgoingd does not tell its condition");
            let old = matches!(&error, Error::Refused(refusal) if refusal.cause == Cause::Invalid);
            let why = if old { "it is of an earlier release".to_owned() } else { error.to_string() };
            let found = format!("outgoingd does not tell its condition: {why}");
            report.add(tools, "clock", &Finding::unknown(found, "systemctl restart outgoingd"))?;
            return Ok(None);
        }
    };
    report.add(tools, "clock", &clock(condition.now, moment::now()))?;
    let read = state(tools, &condition);
    report.add(tools, "state", &read)?;
    report.add(tools, "disk of the state", &disk::space(Path::new(&condition.state_dir), GONE))?;
    Ok(Some(condition))
}

fn versions(stats: &Stats) -> Finding {
    let (ours, theirs) = (env!("CARGO_PKG_VERSION"), show::safe(&stats.version));
    let found = format!("outgoingctl {ours}, outgoingd {theirs} since {}", moment::local(stats.started));
    if ours == theirs {
        Finding::ok(found)
    } else {
        Finding::warning(found, "install both of the same release, and: systemctl restart outgoingd")
    }
}

fn clock(theirs: u64, ours: u64) -> Finding {
    let found = format!("{} for outgoingd, {} here", moment::local(theirs), moment::local(ours));
    if theirs < SANE || ours < SANE {
        Finding::warning(found, "set the clock (timedatectl): flags end at the wrong time")
    } else if theirs.abs_diff(ours) > DIFFERENCE {
        Finding::warning(found, "let both have one clock (timedatectl): flags end at the wrong time")
    } else {
        Finding::ok(found)
    }
}

/// Reads every flag, and with it every page of the state file that has one.
fn state(tools: &mut Tools, condition: &Condition) -> Finding {
    let mut flags = 0_u64;
    let read = tools.client.list(None, |_| {
        flags += 1;
        Ok::<(), Failure>(())
    });
    let place = &condition.state_dir;
    if let Err(error) = read {
        let advice = format!(
            "journalctl -u outgoingd says more; {place} may be damaged, and what then is to be done stands there"
        );
        return report::unseen(&error, &advice);
    }
    match condition.troubles.as_slice() {
        [] => Finding::ok(format!("{flags} flags in {place}, all readable")),
        troubles => Finding::warning(troubles.join("; "), "mend that; journalctl -u outgoingd says more"),
    }
}
