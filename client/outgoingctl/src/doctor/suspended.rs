//! While the made-up sender is suspended: is its mail refused, whichever way it comes?

use super::exim::{Heard, Side, no_acl};
use super::rehearsal::NOTICE;
use super::report::{Finding, Report};
use super::{not_asked, shortened, snippets};
use crate::Failure;
use crate::tools::Tools;
use outgoingd_client::exim::{Caller, EximError, Session};
use outgoingd_client::protocol::REHEARSAL_DOMAIN;

/// The variable in which the ACLs keep the verdict.
const VERDICT: &str = "acl_m_outgoingd_verdict";

pub(super) fn look(tools: &mut Tools, report: &mut Report, side: &Side<'_>, heard: &Heard) -> Result<(), Failure> {
    if heard.origin.as_deref() != Ok(side.identity) {
        let whom = heard.origin.as_ref().map_or_else(Clone::clone, |whom| format!("\"{whom}\""));
        report.blocked(&format!(
            "OUTGOINGD_ORIGIN makes {} of the made-up sender, so a real one must be tried by hand (/usr/share/outgoingd/exim-snippets/README.md)",
            shortened(&whom)
        ));
        return Ok(());
    }
    let outside = session(side, Caller::Outside);
    report.add(tools, "acl_smtp_mail", &mail(side, &outside).unwrap_or_else(|error| not_asked(&error)))?;
    if heard.is_outside {
        report.add(tools, "acl_smtp_rcpt", &rcpt(side, heard, Caller::Outside, &outside))?;
        let here = session(side, Caller::Here);
        report.add(tools, "acl_smtp_rcpt, exim -bs", &rcpt(side, heard, Caller::Here, &here))?;
    }
    report.add(tools, "acl_not_smtp", &not_smtp(side).unwrap_or_else(|error| not_asked(&error)))
}

fn session(side: &Side<'_>, caller: Caller) -> Result<Session, EximError> {
    side.trial.session(caller, side.identity, &format!("postmaster@{REHEARSAL_DOMAIN}"))
}

/// The ACL for MAIL asks, and keeps the verdict.
fn mail(side: &Side<'_>, session: &Result<Session, EximError>) -> Result<Finding, EximError> {
    let option = "acl_smtp_mail";
    let acl = side.exim.option(option)?;
    if acl.is_empty() {
        return Ok(no_acl(option, "acl-mail"));
    }
    let session = match session {
        Ok(session) => session,
        Err(error) => return Ok(not_asked(error)),
    };
    let advice =
        snippets::put("acl-mail", &format!("first in the ACL {}, before anything that accepts", shortened(&acl)));
    Ok(match (session.has_set(VERDICT, "suspend"), session.mail()) {
        (true, _) => Finding::ok("asks, and keeps the verdict with the message"),
        (false, Some(reply)) if reply.starts_with('2') => {
            Finding::failed("MAIL is accepted before anybody has asked about the sender", advice)
        }
        (false, reply) => {
            let found = format!("Exim refuses the rehearsal before it asks: {}", shortened(reply.unwrap_or("nothing")));
            read(side, &acl, &format!("set {VERDICT} = ${{"), found, &advice)
        }
    })
}

/// What can be said by reading where no trial comes so far: our statement stands before any that accepts.
fn read(side: &Side<'_>, acl: &str, mark: &str, found: String, advice: &str) -> Finding {
    match side.exim.acl(acl) {
        Ok(lines) if stands_first(&lines, mark) => {
            let found = format!("{found}; by what is written, our statement stands before any that accepts");
            Finding::warning(found, "try it with a real login of a sender whom you suspend for that")
        }
        Ok(_) => Finding::failed(found, advice),
        Err(error) => not_asked(&error),
    }
}

/// Whether the statement with `mark` in it comes before any `accept`.
fn stands_first(lines: &[String], mark: &str) -> bool {
    let Some(place) = lines.iter().position(|line| line.contains(mark)) else { return false };
    !lines[..place].iter().any(|line| line.split_whitespace().next() == Some("accept"))
}

/// The ACL for RCPT refuses outside recipients, in our words.
fn rcpt(side: &Side<'_>, heard: &Heard, caller: Caller, session: &Result<Session, EximError>) -> Finding {
    let option = "acl_smtp_rcpt";
    let acl = match side.exim.option(option) {
        Ok(acl) if acl.is_empty() => return no_acl(option, "acl-rcpt"),
        Ok(acl) => acl,
        Err(error) => return not_asked(&error),
    };
    let session = match session {
        Ok(session) => session,
        Err(error) => return not_asked(error),
    };
    let advice =
        snippets::put("acl-rcpt", &format!("first in the ACL {}, before anything that accepts", shortened(&acl)));
    let is_ours = |reply: &str| [NOTICE, &heard.own_words].iter().any(|words| reply.contains(words));
    match session.rcpt() {
        Some(reply) if reply.starts_with('5') && is_ours(reply) => {
            Finding::ok(format!("refuses a suspended sender's outside recipients to {caller}"))
        }
        Some(reply) if reply.starts_with('2') => {
            let by = session.decided().map(|statement| format!(", by {}", shortened(statement))).unwrap_or_default();
            Finding::failed(format!("a suspended sender's outside recipient is taken from {caller}{by}"), advice)
        }
        reply => {
            let reply = reply.or(session.replies.last().map(String::as_str)).unwrap_or("nothing");
            let found = format!("Exim refuses {caller} for a reason of its own: {}", shortened(reply));
            read(side, &acl, &format!("eq{{${VERDICT}}}{{suspend}}"), found, &advice)
        }
    }
}

/// The ACL for programs asks, and keeps the verdict; the statements that go by it stand right behind.
fn not_smtp(side: &Side<'_>) -> Result<Finding, EximError> {
    let option = "acl_not_smtp";
    let acl = side.exim.option(option)?;
    if acl.is_empty() {
        return Ok(no_acl(option, "acl-not-smtp"));
    }
    // A statement behind ours may not be for such an expansion; what ours have set stays set.
    let run = format!("${{if acl{{{{{acl}}}}}{{accepted}}{{denied}}}}");
    let [_, verdict] = side.trial.expand([&run, &format!("${VERDICT}")])?;
    Ok(if verdict.as_deref() == Ok("suspend") {
        Finding::ok("asks about the mail of programs")
    } else {
        let found = "it accepts the mail of programs before anybody has asked about the sender";
        let place = format!("first in the ACL {}, before anything that accepts", shortened(&acl));
        Finding::failed(found, snippets::put("acl-not-smtp", &place))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_stands_first_if_none_before_it_accepts() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert!(stands_first(&lines("deny message = accept\nwarn set it = x\naccept"), "set it"));
        assert!(!stands_first(&lines("accept hosts = :\nwarn set it = x"), "set it"));
        assert!(!stands_first(&lines("accept"), "set it"));
        assert!(!stands_first(&[], "set it"));
    }
}
