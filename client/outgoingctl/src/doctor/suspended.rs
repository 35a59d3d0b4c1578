//! While the made-up sender is suspended: is its mail refused, whichever way it comes?

use super::exim::{Heard, Side, no_acl};
use super::rehearsal::NOTICE;
use super::report::{Finding, Report};
use super::{not_asked, shortened, snippets};
use crate::Failure;
use crate::tools::Tools;
use outgoingd_client::exim::{Caller, EximError, Session, statements};
use outgoingd_client::protocol::REHEARSAL_DOMAIN;

/// The variable in which the ACLs keep the verdict.
const VERDICT: &str = "acl_m_outgoingd_verdict";

/// With which a control is for mail that is not held.
const NOT_HELD: &str = "condition = ${if !eq{$acl_m_outgoingd_verdict}{hold}}";

pub(super) fn look(tools: &mut Tools, report: &mut Report, side: &Side<'_>, heard: &Heard) -> Result<(), Failure> {
    if heard.origin.as_deref() != Ok(side.identity) {
        let whom = heard.origin.as_ref().map_or_else(Clone::clone, |whom| format!("\"{whom}\""));
        report.blocked(&format!(
            "OUTGOINGD_ORIGIN makes {} of the made-up sender, so a real one must be tried by hand (/usr/share/outgoingd/exim-snippets/README.md)",
            shortened(&whom)
        ));
        return Ok(());
    }
    smtp(tools, report, side, heard)?;
    report.add(tools, "acl_not_smtp", &not_smtp(side).unwrap_or_else(|finding| finding))?;
    report.add(tools, "cutthrough_delivery", &cutthrough(side).unwrap_or_else(|error| not_asked(&error)))
}

/// An ACL that an option names.
struct Acl {
    /// As the option has it.
    option: String,
    /// What that comes to for the made-up sender.
    name: String,
    lines: Vec<String>,
}

impl Acl {
    /// None if the option is not set.
    fn named(side: &Side<'_>, option: &str) -> Result<Option<Acl>, Finding> {
        let failed = |error| not_asked(&error);
        let option = side.exim.option(option).map_err(failed)?;
        if option.is_empty() {
            return Ok(None);
        }
        let [name] = side.trial.expand([&option]).map_err(failed)?;
        let name = name.map_err(|why| {
            let found = format!("which ACL it is cannot be expanded: {}", shortened(&why));
            Finding::unknown(found, "try it with a real login of a sender whom you suspend for that")
        })?;
        let lines = side.exim.acl(&name).map_err(failed)?;
        Ok(Some(Acl { option, name, lines }))
    }

    /// Where a part of ours belongs in it.
    fn place(&self, part: &str) -> String {
        snippets::put(part, &format!("first in the ACL {}, before anything that accepts", shortened(&self.name)))
    }

    /// A trial went well: whether others can come another way, by an ACL of their own, or by what accepts before our statement.
    fn proved(&self, found: &str, mark: &str, part: &str) -> Finding {
        if self.option.contains('$') {
            let advice = format!("see that each of those ACLs has ours first: {}", self.place(part));
            return Finding::warning(
                format!("{found}; which ACL it is hangs on \"{}\"", shortened(&self.option)),
                advice,
            );
        }
        match accepts_before(&self.lines, mark) {
            Some(statement) => {
                let found = format!("{found}; \"{}\" stands before that: for whom?", shortened(&statement));
                Finding::warning(found, self.place(part))
            }
            None => Finding::ok(found),
        }
    }

    /// What can be said by reading where no trial comes so far: our statement stands before any that accepts.
    fn read(&self, mark: &str, found: String, part: &str) -> Finding {
        if self.lines.iter().any(|line| line.contains(mark)) && accepts_before(&self.lines, mark).is_none() {
            let found = format!("{found}; by what is written, our statement stands before any that accepts");
            Finding::warning(found, "try it with a real login of a sender whom you suspend for that")
        } else if self.lines.is_empty() {
            let advice = "try it with a real login of a sender whom you suspend for that";
            Finding::unknown(format!("{found}; there is no ACL {} to read", shortened(&self.name)), advice)
        } else {
            Finding::failed(found, self.place(part))
        }
    }
}

/// The statement that accepts before the one with `mark` in it.
fn accepts_before(lines: &[String], mark: &str) -> Option<String> {
    let place = lines.iter().position(|line| line.contains(mark))?;
    // The verb of our own statement stands before its mark.
    let before = statements(&lines[..place]);
    let ours = usize::from(!lines[..place].is_empty());
    before[..before.len() - ours]
        .iter()
        .find(|statement| statement.split_whitespace().next() == Some("accept"))
        .cloned()
}

/// What asks about the sender, and what refuses one who is suspended.
fn marks() -> [String; 2] {
    [format!("set {VERDICT} = ${{"), format!("eq{{${VERDICT}}}{{suspend}}")]
}

fn smtp(tools: &mut Tools, report: &mut Report, side: &Side<'_>, heard: &Heard) -> Result<(), Failure> {
    let none = || Finding::ok("Exim takes no mail by SMTP: it has no acl_smtp_rcpt");
    let rcpt_acl = match Acl::named(side, "acl_smtp_rcpt").and_then(|acl| acl.ok_or_else(none)) {
        Ok(acl) => acl,
        Err(finding) => {
            return ["acl_smtp_mail", "acl_smtp_rcpt", "acl_smtp_rcpt, exim -bs"]
                .into_iter()
                .try_for_each(|check| report.add(tools, check, &finding));
        }
    };
    let outside = session(side, Caller::Outside);
    report.add(tools, "acl_smtp_mail", &mail(side, &outside).unwrap_or_else(|finding| finding))?;
    if heard.is_outside == Ok(true) {
        report.add(tools, "acl_smtp_rcpt", &rcpt(&rcpt_acl, heard, Caller::Outside, &outside))?;
        let here = session(side, Caller::Here);
        report.add(tools, "acl_smtp_rcpt, exim -bs", &rcpt(&rcpt_acl, heard, Caller::Here, &here))?;
    }
    Ok(())
}

fn session(side: &Side<'_>, caller: Caller) -> Result<Session, EximError> {
    side.trial.session(caller, side.identity, &format!("postmaster@{REHEARSAL_DOMAIN}"))
}

/// The ACL for MAIL asks, and keeps the verdict.
fn mail(side: &Side<'_>, session: &Result<Session, EximError>) -> Result<Finding, Finding> {
    let Some(acl) = Acl::named(side, "acl_smtp_mail")? else { return Ok(no_acl("acl_smtp_mail", "acl-mail")) };
    let session = session.as_ref().map_err(not_asked)?;
    let [asks, _] = marks();
    Ok(match (session.has_set(VERDICT, "suspend"), session.mail()) {
        (true, _) => acl.proved("asks, and keeps the verdict with the message", &asks, "acl-mail"),
        (false, Some(reply)) if reply.starts_with('2') => {
            Finding::failed("MAIL is accepted before anybody has asked about the sender", acl.place("acl-mail"))
        }
        (false, reply) => {
            let found = format!("Exim refuses the rehearsal before it asks: {}", shortened(reply.unwrap_or("nothing")));
            acl.read(&asks, found, "acl-mail")
        }
    })
}

/// The ACL for RCPT refuses outside recipients, in our words.
fn rcpt(acl: &Acl, heard: &Heard, caller: Caller, session: &Result<Session, EximError>) -> Finding {
    let session = match session {
        Ok(session) => session,
        Err(error) => return not_asked(error),
    };
    let [_, refuses] = marks();
    let is_ours = |reply: &str| [NOTICE, &heard.own_words].iter().any(|words| reply.contains(words));
    match session.rcpt() {
        Some(reply) if reply.starts_with('5') && is_ours(reply) => {
            let found = format!("refuses a suspended sender's outside recipients to {caller}");
            match caller {
                Caller::Outside => acl.proved(&found, &refuses, "acl-rcpt"),
                // It is the same ACL, of which that has been said.
                Caller::Here => Finding::ok(found),
            }
        }
        Some(reply) if reply.starts_with('2') => {
            let by = session.decided().map(|statement| format!(", by {}", shortened(statement))).unwrap_or_default();
            let found = format!("a suspended sender's outside recipient is taken from {caller}{by}");
            Finding::failed(found, acl.place("acl-rcpt"))
        }
        reply => {
            let reply = reply.or(session.replies.last().map(String::as_str)).unwrap_or("nothing");
            let found = format!("Exim refuses {caller} for a reason of its own: {}", shortened(reply));
            acl.read(&refuses, found, "acl-rcpt")
        }
    }
}

/// The ACL for programs asks, keeps the verdict, and has statements that go by it.
fn not_smtp(side: &Side<'_>) -> Result<Finding, Finding> {
    let Some(acl) = Acl::named(side, "acl_not_smtp")? else { return Ok(no_acl("acl_not_smtp", "acl-not-smtp")) };
    // A statement behind ours may not be for such an expansion; what ours have set stays set.
    let run = format!("${{if acl{{{{{}}}}}{{accepted}}{{denied}}}}", acl.name);
    let expanded = side.trial.expand([&run, &format!("${VERDICT}")]);
    let [ran, verdict] = expanded.map_err(|error| not_asked(&error))?;
    let [asks, refuses] = marks();
    let has = |mark: &str| acl.lines.iter().any(|line| line.contains(mark));
    Ok(match (verdict.as_deref() == Ok("suspend"), ran) {
        (true, _) if has(&asks) && !has(&refuses) => {
            let found = "it asks about the mail of programs, and refuses nobody's";
            Finding::failed(found, acl.place("acl-not-smtp"))
        }
        (true, _) => acl.proved("asks about the mail of programs, and refuses it", &asks, "acl-not-smtp"),
        (false, Err(why)) => acl.read(&asks, format!("it cannot be tried: {}", shortened(&why)), "acl-not-smtp"),
        (false, Ok(_)) => {
            let found = "it accepts the mail of programs before anybody has asked about the sender";
            Finding::failed(found, acl.place("acl-not-smtp"))
        }
    })
}

/// Nothing sends mail on while it comes in, before it can be held.
fn cutthrough(side: &Side<'_>) -> Result<Finding, EximError> {
    let statements = side.exim.acl_statements()?;
    let statement = statements.iter().find(|text| sends_held_mail_on(text));
    Ok(match statement {
        None => Finding::ok("no ACL sends mail on before it can be held"),
        Some(statement) => Finding::warning(
            format!(
                "\"{}\" sends mail on while it comes in, held or not, where it is for mail with a login",
                shortened(statement)
            ),
            format!("give it {NOT_HELD}, in a line before the control"),
        ),
    })
}

/// Whether a statement does so, and without our condition in front of it: what stands behind a control comes too late for it.
fn sends_held_mail_on(statement: &str) -> bool {
    let before = statement.split_once("cutthrough_delivery").map(|(before, _)| before);
    before.is_some_and(|before| !before.contains(NOT_HELD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_condition_counts_in_front_of_the_control_alone() {
        let control = "control = cutthrough_delivery";
        assert!(sends_held_mail_on(&format!("warn authenticated = * {control}")));
        assert!(sends_held_mail_on(&format!("warn authenticated = * {control} {NOT_HELD}")));
        assert!(sends_held_mail_on(&format!("warn {} {control}/defer=pass", NOT_HELD.replace("hold", "suspend"))));
        assert!(!sends_held_mail_on(&format!("warn authenticated = * {NOT_HELD} {control}")));
        assert!(!sends_held_mail_on("accept"));
    }

    #[test]
    fn what_accepts_before_ours_is_told_with_its_conditions() {
        let before = |text: &str| accepts_before(&text.lines().map(str::to_owned).collect::<Vec<_>>(), "set it");
        assert_eq!(before("deny\nmessage = accept\nwarn\nset it = x\naccept"), None);
        assert_eq!(before("accept\nhosts = :\nwarn\nset it = x").as_deref(), Some("accept hosts = :"));
        assert_eq!(before("accept\nset it = x"), None);
        assert_eq!(before("accept"), None);
        assert_eq!(before(""), None);
    }
}
