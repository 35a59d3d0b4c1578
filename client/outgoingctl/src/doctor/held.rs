//! While the made-up sender is held: does its mail wait, without an end and without a word?

use super::exim::{Heard, Side};
use super::report::{Finding, Report};
use super::{not_asked, shortened, snippets};
use crate::Failure;
use crate::tools::Tools;
use outgoingd_client::exim::EximError;
use outgoingd_client::protocol::REHEARSAL_DOMAIN;
use outgoingd_client::protocol::text::Verdict;

/// The router of the snippets.
const ROUTER: &str = "outgoingd";

/// By what our first retry rule is known: `F,3650d,1s`, as Exim writes it.
const RETRY: &str = "F,521w3d,1s";

/// The same, as it is written.
const WRITTEN: &str = "{hold}{*}{}}\" * F,3650d,1s";

/// What `exim -bt` says of an address that waits.
const DEFERRED: &str = "cannot be resolved at this time";

/// What an expansion that is a condition says if it says no.
const NO: [&str; 4] = ["", "0", "no", "false"];

/// A check with the made-up sender.
type Check = fn(&Side<'_>) -> Result<Finding, EximError>;

pub(super) fn look(tools: &mut Tools, report: &mut Report, side: &Side<'_>, heard: &Heard) -> Result<(), Failure> {
    if side.expected != Some(Verdict::Hold) {
        return look_without(tools, report, side);
    }
    if heard.is_outside != Ok(true) {
        let (found, advice) = match &heard.is_outside {
            Err(why) => (
                format!("Exim cannot tell which domains are local (OUTGOINGD_OUTSIDE): {}", shortened(why)),
                "mend what +local_domains looks domains up in",
            ),
            Ok(_) => (
                format!(
                    "Exim takes {REHEARSAL_DOMAIN} for a local domain (OUTGOINGD_OUTSIDE), and maybe every other one"
                ),
                "let +local_domains, or OUTGOINGD_OUTSIDE, name only domains whose mail is kept here",
            ),
        };
        report.blocked(&found);
        report.add(tools, "hold_domains", &Finding::failed(found, advice))?;
        let delay = delay_warning(side).unwrap_or_else(|error| not_asked(&error));
        return report.add(tools, "delay_warning_condition", &delay);
    }
    let checks: [(&'static str, Check); 4] = [
        ("hold_domains", hold_domains),
        ("delay_warning_condition", delay_warning),
        ("router", router),
        ("retry rule", retry_rule),
    ];
    for (name, check) in checks {
        report.add(tools, name, &check(side).unwrap_or_else(|error| not_asked(&error)))?;
    }
    Ok(())
}

/// What is wrong to see without a rehearsal.
pub(super) fn look_without(tools: &mut Tools, report: &mut Report, side: &Side<'_>) -> Result<(), Failure> {
    if side.exim.option("hold_domains").is_ok_and(|value| value.is_empty()) {
        report.add(tools, "hold_domains", &not_set())?;
    }
    if side.exim.routers().is_ok_and(|routers| !routers.iter().any(|router| router == ROUTER)) {
        report.add(tools, "router", &no_router())?;
    }
    Ok(())
}

/// The option holds: it comes out as a list in which an outside domain is.
fn hold_domains(side: &Side<'_>) -> Result<Finding, EximError> {
    let value = side.exim.option("hold_domains")?;
    if value.is_empty() {
        return Ok(not_set());
    }
    let [list] = side.trial.expand([&value])?;
    let list = match list {
        Ok(list) => list,
        Err(why) => {
            let advice = "see whether OUTGOINGD_OTHER_HOLDS is forced to fail; held mail is not held now";
            return Ok(Finding::failed(format!("it cannot be expanded: {}", shortened(&why)), advice));
        }
    };
    // The list as text: within another expansion Exim would look for the end of the option's own braces.
    let plain = list.replace('\\', "\\\\").replace('$', "\\$").replace('}', "\\}").replace('{', "\\{");
    let question = format!("${{if match_domain{{{REHEARSAL_DOMAIN}}}{{{plain}}}{{held}}{{free}}}}");
    let [held] = side.trial.expand([&question])?;
    Ok(if held.as_deref() == Ok("held") {
        Finding::ok("outside mail of a held sender waits")
    } else {
        let found = format!("it is \"{}\" for a held sender, and {REHEARSAL_DOMAIN} is not in it", shortened(&list));
        Finding::failed(found, snippets::options())
    })
}

fn delay_warning(side: &Side<'_>) -> Result<Finding, EximError> {
    let value = side.exim.option("delay_warning_condition")?;
    let [said] = side.trial.expand([&value])?;
    Ok(match said {
        Ok(said) if NO.contains(&said.to_ascii_lowercase().as_str()) => {
            Finding::ok("a held sender is not told that the mail waits")
        }
        Ok(_) => Finding::failed("a held sender is told that the mail waits", snippets::options()),
        Err(why) => Finding::failed(format!("it cannot be expanded: {}", shortened(&why)), snippets::options()),
    })
}

/// The second line, for forced deliveries. Nothing must take an outside address before it.
fn router(side: &Side<'_>) -> Result<Finding, EximError> {
    let routers = side.exim.routers()?;
    let Some(place) = routers.iter().position(|router| router == ROUTER) else { return Ok(no_router()) };
    let (said, called) = side.trial.route(&format!("postmaster@{REHEARSAL_DOMAIN}"))?;
    let advice = snippets::move_up("routers", "to right after `begin routers`, before every router of yours");
    match called.first().map(String::as_str) {
        Some(ROUTER) => {}
        Some(first) => {
            let found =
                format!("the router {first} is asked before {ROUTER}: what it takes leaves in a forced delivery");
            return Ok(Finding::failed(found, advice));
        }
        None => {
            let found = format!("no router was asked about an outside address: {}", shortened(&said));
            return Ok(Finding::failed(found, advice));
        }
    }
    if !said.contains(DEFERRED) {
        let found = format!("{ROUTER} does not keep a held sender's mail: {}", shortened(&said));
        return Ok(Finding::failed(found, advice));
    }
    Ok(match &routers[..place] {
        [] => Finding::ok("first of all, and keeps a held sender's mail in forced deliveries"),
        before => {
            let found = format!(
                "{} before {ROUTER}: where one of them takes an outside address, suspended mail on the queue leaves, and held mail in a \
                 forced delivery",
                before.join(", ")
            );
            Finding::warning(found, advice)
        }
    })
}

/// With which held mail does not time out in a forced delivery.
fn retry_rule(side: &Side<'_>) -> Result<Finding, EximError> {
    let rule = side.trial.retry_rule(&format!("postmaster@{REHEARSAL_DOMAIN}"))?;
    let rules = side.exim.retry_rules()?;
    let place = rules.iter().position(|rule| rule.ends_with(WRITTEN));
    let advice = |place: Option<usize>| match place {
        Some(_) => snippets::move_up("retry", "to right after `begin retry`, before every rule of yours"),
        None => snippets::put("retry", "right after `begin retry`, before every rule of yours"),
    };
    if !rule.contains(RETRY) {
        let found = format!("for a held sender's mail Exim goes by another one: {}", shortened(&rule));
        return Ok(Finding::failed(found, advice(place)));
    }
    Ok(match &rules[..place.unwrap_or(0)] {
        [] => Finding::ok("first of all, and never ends for a held sender"),
        before => {
            let before = shortened(&before.join("; "));
            let found = format!("\"{before}\" before ours: not for {REHEARSAL_DOMAIN}, but for which others?");
            Finding::warning(found, advice(place))
        }
    })
}

fn not_set() -> Finding {
    Finding::failed("it is not set: held mail goes out", snippets::options())
}

fn no_router() -> Finding {
    let found = format!(
        "there is no router {ROUTER}: held mail leaves in forced deliveries, and suspended mail on the queue is not bounced"
    );
    Finding::failed(found, snippets::put("routers", "right after `begin routers`"))
}
