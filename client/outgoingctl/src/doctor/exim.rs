//! Exim's side as a whole: which Exim, whether the snippets are in its configuration, and what its own user hears.

use super::report::{self, Finding, Report};
use super::rights::{self, Group};
use super::{not_asked, shortened, snippets};
use crate::Failure;
use crate::tools::Tools;
use outgoingd_client::Error;
use outgoingd_client::exim::{Configuration, Exim, EximError, Trial};
use outgoingd_client::protocol::REHEARSAL_DOMAIN;
use outgoingd_client::protocol::message::Condition;
use outgoingd_client::protocol::text::Verdict;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The oldest Exim that the snippets are for.
const OLDEST: (u32, u32) = (4, 94);

/// With whom the checks of Exim's side are made.
pub(super) struct Side<'a> {
    pub(super) exim: &'a Exim,
    pub(super) trial: &'a Trial<'a>,
    /// The made-up sender.
    pub(super) identity: &'a str,
    /// What the daemon says about that one; none: it says nothing.
    pub(super) expected: Option<Verdict>,
}

/// What Exim's user hears in the name of the made-up sender: values, or why there are none.
pub(super) struct Heard {
    verdict: Result<String, String>,
    last_known: Result<String, String>,
    answer: Result<String, String>,
    file: Result<String, String>,
    socket: PathBuf,
    fallback: PathBuf,
    release: String,
    /// Whom the ACLs take the made-up sender for.
    pub(super) origin: Result<String, String>,
    /// By what a rejection is known to be ours while the daemon gives no words for it.
    pub(super) own_words: String,
    /// Whether the made-up sender's own domain is one of the outside.
    pub(super) is_outside: Result<bool, String>,
    /// The number of Exim's group.
    group: Option<u32>,
}

impl Heard {
    /// Why the rest cannot be seen: no answer comes, or somebody else's, and the fallback file does not stand in for it.
    pub(super) fn unanswered(&self, side: &Side<'_>) -> Option<&'static str> {
        let expected = side.expected?.as_str();
        let hears = |answer: &Result<String, String>| answer.as_deref() == Ok(expected);
        match &self.answer {
            _ if hears(&self.answer) || hears(&self.verdict) => None,
            Ok(_) => Some("Exim's user gets another answer"),
            Err(_) => Some("Exim's user gets no answer"),
        }
    }
}

/// Where Exim's command was not found, or does not say where its queue is.
pub(super) fn not_found(failure: &Failure) -> Finding {
    let Failure::Exim(error @ (EximError::Unexpected { .. } | EximError::Queue(_))) = failure else {
        return report::unseen(failure, "name Exim's command with --exim");
    };
    let EximError::Unexpected { program, .. } = error else {
        return report::unseen(failure, "put Exim's spool_directory back: its queue is there");
    };
    // It may be no Exim at all.
    match Configuration::find(Some(program)).and_then(|configuration| configuration.accepted()) {
        Ok(Err(what)) if what.contains("onfiguration") => {
            let error = EximError::Unexpected { program: program.clone(), what: format!("says: {what}") };
            Finding::failed(error.to_string(), snippets::mend(&error))
        }
        _ => report::unseen(failure, "name Exim's command with --exim"),
    }
}

/// Which Exim it is, with a valid configuration.
pub(super) fn version(exim: &Exim) -> Finding {
    let version = match exim.version() {
        Ok(version) => version,
        Err(error) => return Finding::failed(error.to_string(), snippets::mend(&error)),
    };
    let number = |part: &str| part.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    let mut parts = version.split('.').map(number);
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => {
            Finding::ok(format!("{version}, with a valid configuration"))
        }
        _ => Finding::failed(format!("{version} is too old"), "install Exim 4.94 or newer"),
    }
}

/// Asks once for all that an expansion can tell. None, and a finding, if the snippets are not there.
pub(super) fn ask(tools: &mut Tools, report: &mut Report, side: &Side<'_>) -> Result<Option<Heard>, Failure> {
    let question =
        format!("${{readsocket{{OUTGOINGD_SOCKET}}{{check id= {}\\n}}{{OUTGOINGD_TIMEOUT}}}}", side.identity);
    let outside = format!("${{if match_domain{{{REHEARSAL_DOMAIN}}}{{OUTGOINGD_OUTSIDE}}{{outside}}{{here}}}}");
    let asked = side.trial.expand([
        "OUTGOINGD_SOCKET",
        "OUTGOINGD_FALLBACK",
        "OUTGOINGD_RELEASE",
        &question,
        "OUTGOINGD_FRESH_VERDICT",
        "OUTGOINGD_LAST_KNOWN",
        "${if exists{OUTGOINGD_FALLBACK}{there}{absent}}",
        "OUTGOINGD_ORIGIN",
        "OUTGOINGD_OWN_WORDS",
        &outside,
        "$caller_gid",
    ]);
    let [socket, fallback, release, answer, verdict, last_known, file, origin, own_words, outside, group] = match asked
    {
        Ok(answers) => answers,
        Err(error) => {
            report.blocked(&error.to_string());
            report.add(tools, "snippets", &not_asked(&error))?;
            return Ok(None);
        }
    };
    let text = |value: Result<String, String>| value.unwrap_or_else(|why| why);
    let socket = text(socket);
    // A macro that nobody defines stays as it is; where the socket is, a site may say without us.
    if verdict.as_deref() == Ok("OUTGOINGD_FRESH_VERDICT") {
        report.blocked("the snippets are not in Exim's configuration");
        let found = "the snippets are not in Exim's configuration: it asks nobody, and nobody is held";
        report.add(tools, "snippets", &Finding::failed(found, snippets::absent()))?;
        return Ok(None);
    }
    let is_outside = outside.map(|said| said == "outside");
    let (socket, fallback) = (socket.into(), text(fallback).into());
    let (release, own_words) = (text(release), text(own_words));
    let group = group.ok().and_then(|group| group.parse().ok());
    Ok(Some(Heard {
        verdict,
        last_known,
        answer,
        file,
        socket,
        fallback,
        release,
        origin,
        own_words,
        is_outside,
        group,
    }))
}

pub(super) fn snippets(heard: &Heard) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    if let Some(finding) = snippets::files() {
        finding
    } else if heard.release == ours {
        Finding::ok(format!("in Exim's configuration, of release {ours}"))
    } else {
        let theirs = if heard.release == "OUTGOINGD_RELEASE" { "an earlier release" } else { &heard.release };
        let advice = "install outgoingd and outgoingctl of one release, with /usr/share/outgoingd/exim-snippets, and reload Exim";
        Finding::warning(format!("in Exim's configuration, of {theirs}; outgoingctl is {ours}"), advice)
    }
}

/// Whether Exim's own user, with its own group alone, gets an answer, and from this daemon.
pub(super) fn socket(tools: &Tools, side: &Side<'_>, heard: &Heard) -> Finding {
    let (theirs, ours) = (heard.socket.display(), tools.socket.display());
    if !is_same(&heard.socket, &tools.socket) {
        let define = snippets::define("OUTGOINGD_SOCKET", &ours.to_string());
        let advice = format!("{define}; or, if Exim is right, ask that daemon: --socket {theirs}");
        return Finding::failed(format!("Exim asks at {theirs}, and not at {ours}"), advice);
    }
    let (user, group) = (side.trial.user(), side.trial.group());
    match (&heard.answer, side.expected) {
        (Err(why), _) if !why.contains("Permission denied") => {
            let found = format!("{user}, with group {group} alone, gets no answer: {}", shortened(why));
            Finding::failed(found, super::daemon::START)
        }
        (Err(why), _) => {
            let advice = rights::to_socket(&heard.socket, &Group { name: group, id: heard.group });
            Finding::failed(format!("{user}, with group {group} alone, gets no answer: {}", shortened(why)), advice)
        }
        (Ok(answer), Some(expected)) if answer == expected.as_str() => {
            Finding::ok(format!("{user}, with group {group} alone, is answered at {theirs}"))
        }
        (Ok(answer), _) => {
            let expected = expected_of(side);
            let found = format!("{user} is answered \"{}\" at {theirs}, and outgoingctl {expected}", shortened(answer));
            Finding::failed(found, "see what listens there: systemctl status outgoingd.socket")
        }
    }
}

/// What the snippets make of it.
pub(super) fn verdict(side: &Side<'_>, heard: &Heard) -> Finding {
    let expected = expected_of(side);
    match &heard.verdict {
        Ok(verdict) if *verdict == expected => Finding::ok(format!("Exim hears \"{verdict}\" about {}", side.identity)),
        Ok(verdict) => {
            let found =
                format!("Exim hears \"{}\" about {}, and outgoingctl {expected}", shortened(verdict), side.identity);
            Finding::failed(
                found,
                "a macro of ours has been changed: take out what your configuration defines of OUTGOINGD_ and /usr/share/outgoingd/exim-snippets/README.md does not list, or install the package outgoingd again",
            )
        }
        Err(why) => Finding::failed(
            format!("Exim cannot find out: {}", shortened(why)),
            "mend what is said of socket and fallback file",
        ),
    }
}

/// The file by which Exim goes while the daemon is down: the one that the daemon writes, readable, current.
pub(super) fn fallback(
    side: &Side<'_>,
    heard: &Heard,
    condition: Option<&Condition>,
    unsettled: Option<&str>,
) -> Finding {
    let theirs = heard.fallback.display();
    let written = condition.map(|condition| condition.fallback_file.as_deref());
    match written {
        Some(None) => {
            let advice = format!(
                "set fallback-file = \"{theirs}\" in /etc/outgoingd/outgoingd.toml, and systemctl restart outgoingd: while it is down, all mail goes out"
            );
            return Finding::failed("outgoingd writes none", advice);
        }
        Some(Some(ours)) if !is_same(&heard.fallback, Path::new(ours)) => {
            let advice = snippets::define("OUTGOINGD_FALLBACK", ours);
            return Finding::failed(format!("Exim reads {theirs}, and outgoingd writes {ours}"), advice);
        }
        _ => {}
    }
    let (user, group) = (side.trial.user(), side.trial.group());
    let rights = || rights::to_fallback(&heard.fallback, &Group { name: group, id: heard.group });
    match (&heard.file, &heard.last_known, side.expected) {
        (_, Err(why), _) => Finding::failed(format!("{user} cannot read it: {}", shortened(why)), rights()),
        (Ok(file), ..) if file != "there" => {
            let found = format!("{user} does not find {theirs}: it is not there, or its directory is closed");
            Finding::failed(found, rights())
        }
        (_, Ok(_), None) => {
            let found = format!("{user} can read {theirs}; whether it is current only outgoingd knows");
            Finding::unknown(found, super::daemon::START)
        }
        (_, Ok(known), Some(expected)) if known == expected.as_str() && unsettled.is_none() => {
            Finding::ok(format!("{user} can read {theirs}, and it is current"))
        }
        (_, Ok(known), Some(expected)) => {
            let why = unsettled.map(|why| format!(": {why}")).unwrap_or_default();
            let found = format!("{theirs} says \"{known}\" where outgoingd says \"{expected}\"{why}");
            Finding::failed(found, "see journalctl -u outgoingd, and whether there is room on the disk")
        }
    }
}

/// How the rehearsal ended: nothing is left of it, and Exim knows.
pub(super) fn released(tools: &mut Tools, side: &Side<'_>, ended: Result<(), Error>) -> Finding {
    let identity = side.identity;
    if let Err(error) = ended {
        let advice =
            format!("see what outgoingd says; whatever was set on {identity} ends by itself within ten minutes");
        return report::unseen(&error.into(), &advice);
    }
    let free = tools.client.check(identity, None).map(Verdict::as_str);
    let heard = side.trial.expand(["OUTGOINGD_FRESH_VERDICT", "OUTGOINGD_LAST_KNOWN"]);
    match (free, heard) {
        (Ok(free), Ok([Ok(verdict), Ok(known)])) if verdict == free && known == free => {
            Finding::ok(format!("{identity} was held, suspended and let go; Exim hears \"{free}\" again"))
        }
        (Ok(free), Ok([verdict, known])) => {
            let text = |heard: Result<String, String>| shortened(&heard.unwrap_or_else(|why| why));
            let (verdict, known) = (text(verdict), text(known));
            let found = format!(
                "let go, outgoingd says \"{free}\"; Exim hears \"{verdict}\", and reads \"{known}\" in the fallback file"
            );
            Finding::failed(found, "mend what is said above, and run `outgoingctl doctor` again")
        }
        (Err(error), _) => Finding::failed(error.to_string(), "see systemctl status outgoingd"),
        (_, Err(error)) => not_asked(&error),
    }
}

/// Where one of the ACLs' parts is missing.
pub(super) fn no_acl(option: &str, part: &str) -> Finding {
    // Exim refuses where an ACL ends, and every recipient where there is none: only that one must stay so.
    let rest = if option == "acl_smtp_rcpt" { "your own conditions" } else { "`accept`" };
    let place = format!("set {option} = NAME in the main section, and in that ACL, first, with {rest} behind it");
    Finding::failed(format!("{option} names no ACL"), snippets::put(part, &place))
}

fn expected_of(side: &Side<'_>) -> String {
    side.expected.map_or_else(|| "nothing".to_owned(), |verdict| verdict.as_str().to_owned())
}

/// Whether two paths lead to the same thing, or are the same where there is none.
fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => one == other,
    }
}
