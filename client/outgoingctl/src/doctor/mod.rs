//! `doctor`: whether enforcement works, from the daemon to what Exim decides, and what to mend where it does not.
//!
//! Proof goes before reading: a made-up sender is held and suspended for a moment, and Exim is asked what it would do, as its
//! own user. Nothing is queued and nothing is sent; the flags end by themselves within ten minutes, so that a `doctor` that is
//! killed leaves nothing behind, and the audit trail has them.
//!
//! No check stops another one. What could not be looked at is reported as unknown, and counts as not working.
//!
//! Honest limits: it looks at the configuration on disk, and not at the one that a running Exim has read; and it tries one login
//! from one outside address, without TLS. A site's own rule for other senders, hosts, ports or recipients before ours is warned of
//! where it can be read, and can go unseen where it stands in another ACL that is called.

mod daemon;

mod disk;

mod exim;

mod rehearsal;

mod held;

mod suspended;

mod report;

mod rights;

mod snippets;

use crate::Failure;
use crate::tools::Tools;
use exim::Side;
use outgoingd_client::exim::Exim;
use outgoingd_client::protocol::REHEARSAL_DOMAIN;
use outgoingd_client::protocol::message::Condition;
use outgoingd_client::protocol::text::Verdict;
use rehearsal::Rehearsal;
pub(crate) use report::Diagnosis;
use report::{Finding, Report};
use std::path::PathBuf;
use std::process;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Longest wait for a first answer of Exim's.
const PATIENCE: Duration = Duration::from_secs(20);

/// Every check, in the order of the report. One that was not come to is unknown.
const CHECKS: [&str; 21] = [
    "daemon",
    "versions",
    "clock",
    "state",
    "disk of the state",
    "Exim",
    "disk of the queue",
    "snippets",
    "socket",
    "verdict",
    "fallback file",
    "hold_domains",
    "delay_warning_condition",
    "router",
    "retry rule",
    "acl_smtp_mail",
    "acl_smtp_rcpt",
    "acl_smtp_rcpt, exim -bs",
    "acl_not_smtp",
    "cutthrough_delivery",
    "rehearsal",
];

/// Checks everything, and prints each finding as it comes.
pub(crate) fn doctor(tools: &mut Tools) -> Result<(), Failure> {
    let mut report = Report::default();
    let condition = daemon::look(tools, &mut report)?;
    let identity = format!("doctor-{}@{REHEARSAL_DOMAIN}", process::id());
    match find(tools.program.clone()) {
        Ok(exim) => look_at_exim(tools, &mut report, &exim, &identity, condition.as_ref())?,
        Err(error) => {
            let finding = exim::not_found(&error);
            report.blocked(&finding.found);
            report.add(tools, "Exim", &finding)?;
        }
    }
    report.end(tools)
}

/// Exim, unless it hangs: then that process is left to itself.
fn find(program: Option<PathBuf>) -> Result<Exim, Failure> {
    let (sender, found) = mpsc::channel();
    thread::spawn(move || sender.send(Exim::find(program.as_deref())));
    match found.recv_timeout(PATIENCE) {
        Ok(exim) => Ok(exim?),
        Err(_) => Err(Failure::Some(format!("Exim does not answer within {} s", PATIENCE.as_secs()))),
    }
}

fn look_at_exim(
    tools: &mut Tools,
    report: &mut Report,
    exim: &Exim,
    identity: &str,
    condition: Option<&Condition>,
) -> Result<(), Failure> {
    report.add(tools, "Exim", &exim::version(exim))?;
    report.add(
        tools,
        "disk of the queue",
        &disk::space(exim.queue.spool(), "put it back: Exim has its queue there"),
    )?;
    let trial = match exim.trial(identity) {
        Ok(trial) => trial,
        Err(error) => {
            report.blocked(&format!("Exim cannot be asked as its own user: {error}"));
            return report.add(
                tools,
                "snippets",
                &report::unseen(&error.into(), "see what Exim says to -bP exim_user exim_group"),
            );
        }
    };
    let rehearsal = condition.map(|condition| Rehearsal::begin(&mut tools.client, identity, condition.now));
    let expected = condition.and_then(|_| tools.client.check(identity, None).ok());
    if expected != Some(Verdict::Hold) {
        report.blocked(&why_not_held(rehearsal.as_ref()));
    }
    let side = Side { exim, trial: &trial, identity, expected };
    let looked = look_at_sides(tools, report, &side, condition, rehearsal.as_ref());
    // Whatever was found, and whether it could be printed: nothing stays.
    let ended = rehearsal.map(|rehearsal| rehearsal.end(&mut tools.client));
    looked?;
    let Some(ended) = ended else { return Ok(()) };
    // An Exim that asks nobody, or is not answered, need not be asked what it hears.
    if ended.is_ok() && !report.was_made("verdict") {
        return Ok(());
    }
    let finding = exim::released(tools, &side, ended);
    report.add(tools, "rehearsal", &finding)
}

fn why_not_held(rehearsal: Option<&Rehearsal<'_>>) -> String {
    match rehearsal.map(|rehearsal| &rehearsal.held) {
        Some(Err(error)) => format!("the made-up sender cannot be held: {error}"),
        Some(Ok(())) => "outgoingd does not hold the made-up sender: is everyone suspended?".to_owned(),
        None => "outgoingd does not answer, so there is no rehearsal".to_owned(),
    }
}

fn look_at_sides(
    tools: &mut Tools,
    report: &mut Report,
    side: &Side<'_>,
    condition: Option<&Condition>,
    rehearsal: Option<&Rehearsal<'_>>,
) -> Result<(), Failure> {
    let Some(heard) = exim::ask(tools, report, side)? else { return Ok(()) };
    report.add(tools, "snippets", &exim::snippets(&heard))?;
    let socket = exim::socket(tools, side, &heard);
    report.add(tools, "socket", &socket)?;
    let unanswered = heard.unanswered(side);
    if let Some(why) = unanswered {
        report.blocked(why);
    } else if side.expected.is_some() {
        report.add(tools, "verdict", &exim::verdict(side, &heard))?;
    }
    let unsettled = rehearsal.and_then(|rehearsal| rehearsal.unsettled.as_deref());
    report.add(tools, "fallback file", &exim::fallback(side, &heard, condition, unsettled))?;
    if unanswered.is_some() {
        return held::look_without(tools, report, side);
    }
    held::look(tools, report, side, &heard)?;
    let Some(rehearsal) = rehearsal.filter(|rehearsal| rehearsal.held.is_ok()) else { return Ok(()) };
    match rehearsal.suspend(&mut tools.client) {
        Ok(()) => suspended::look(tools, report, side, &heard),
        Err(error) => {
            report.blocked(&format!("the made-up sender cannot be suspended: {error}"));
            Ok(())
        }
    }
}

/// A text of Exim's that may be long, from its beginning.
fn shortened(text: &str) -> String {
    let text = text.trim().replace('\n', " ");
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// What Exim could not be asked.
fn not_asked(error: &outgoingd_client::exim::EximError) -> Finding {
    Finding::unknown(error.to_string(), "see Exim's panic log, and try again")
}
