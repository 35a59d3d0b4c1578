//! Exim's side as a whole: which Exim, whether the snippets are in its configuration, and what its own user hears.

use super::report::{self, Finding, Report};
use super::{include, not_asked, shortened};
use crate::Failure;
use crate::tools::Tools;
use outgoingd_client::Error;
use outgoingd_client::exim::{Exim, Trial};
use outgoingd_client::protocol::REHEARSAL_DOMAIN;
use outgoingd_client::protocol::message::Condition;
use outgoingd_client::protocol::text::Verdict;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The oldest Exim that the snippets are for.
const OLDEST: (u32, u32) = (4, 94);

/// By what Debian's packages of Exim are known.
const DEBIAN: &str = "/usr/sbin/update-exim4.conf";

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
    pub(super) is_outside: bool,
}

/// Which Exim it is, with a valid configuration.
pub(super) fn version(exim: &Exim) -> Finding {
    let version = match exim.version() {
        Ok(version) => version,
        Err(error) => return Finding::failed(error.to_string(), "mend Exim's configuration: exim -bV"),
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
    ]);
    let [socket, fallback, release, answer, verdict, last_known, file, origin, own_words, outside] = match asked {
        Ok(answers) => answers,
        Err(error) => {
            report.blocked(&error.to_string());
            report.add(tools, "snippets", &not_asked(&error))?;
            return Ok(None);
        }
    };
    let text = |value: Result<String, String>| value.unwrap_or_else(|why| why);
    let socket = text(socket);
    if socket == "OUTGOINGD_SOCKET" {
        report.blocked("the snippets are not in Exim's configuration");
        let advice = if Path::new(DEBIAN).exists() {
            "outgoingctl exim enable (what it does: /usr/share/outgoingd/exim-snippets/debian/README.md)"
        } else {
            "put them in: /usr/share/outgoingd/exim-snippets/README.md says where"
        };
        let found = "the snippets are not in Exim's configuration: it asks nobody, and nobody is held";
        report.add(tools, "snippets", &Finding::failed(found, advice))?;
        return Ok(None);
    }
    let is_outside = outside.as_deref() == Ok("outside");
    let (socket, fallback) = (socket.into(), text(fallback).into());
    let (release, own_words) = (text(release), text(own_words));
    Ok(Some(Heard { verdict, last_known, answer, file, socket, fallback, release, origin, own_words, is_outside }))
}

pub(super) fn snippets(heard: &Heard) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    if heard.release == ours {
        Finding::ok(format!("in Exim's configuration, of release {ours}"))
    } else {
        let theirs = if heard.release == "OUTGOINGD_RELEASE" { "an earlier release" } else { &heard.release };
        let advice = "install the exim-snippets of this release in their place, check with exim -bV, and reload Exim";
        Finding::warning(format!("in Exim's configuration, of {theirs}; outgoingctl is {ours}"), advice)
    }
}

/// Whether Exim's own user, with its own group alone, gets an answer, and from this daemon.
pub(super) fn socket(tools: &Tools, side: &Side<'_>, heard: &Heard) -> Finding {
    let (theirs, ours) = (heard.socket.display(), tools.socket.display());
    if !is_same(&heard.socket, &tools.socket) {
        let advice = format!(
            "define OUTGOINGD_SOCKET = {ours} before the line that includes macros, or, if Exim is right, ask that daemon: --socket {theirs}"
        );
        return Finding::failed(format!("Exim asks at {theirs}, and not at {ours}"), advice);
    }
    let (user, group) = (side.trial.user(), side.trial.group());
    match (&heard.answer, side.expected) {
        (Err(why), _) if !why.contains("Permission denied") => {
            let found = format!("{user}, with group {group} alone, gets no answer: {}", shortened(why));
            Finding::failed(found, super::daemon::START)
        }
        (Err(why), _) => {
            let advice = format!(
                "let the socket belong to group {group} with mode 0660: SocketGroup= and SocketMode= in outgoingd.socket, then systemctl daemon-reload and systemctl restart outgoingd.socket; and let everybody pass through its directory"
            );
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
                "take the macros as they are from exim-snippets/macros: one of them has been changed",
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
                "set fallback-file = \"{theirs}\" in outgoingd.toml: while outgoingd is down, all mail goes out"
            );
            return Finding::failed("outgoingd writes none", advice);
        }
        Some(Some(ours)) if !is_same(&heard.fallback, Path::new(ours)) => {
            let advice = format!("define OUTGOINGD_FALLBACK = {ours} before the line that includes macros");
            return Finding::failed(format!("Exim reads {theirs}, and outgoingd writes {ours}"), advice);
        }
        _ => {}
    }
    let (user, group) = (side.trial.user(), side.trial.group());
    let directory = heard.fallback.parent().unwrap_or(Path::new("/")).display();
    let rights = format!("chgrp {group} {directory} {theirs}; chmod 2750 {directory}; chmod 640 {theirs}");
    match (&heard.file, &heard.last_known, side.expected) {
        (_, Err(why), _) => Finding::failed(format!("{user} cannot read it: {}", shortened(why)), rights),
        (Ok(file), ..) if file != "there" => {
            let found = format!("{user} does not find {theirs}: it is not there, or its directory is closed");
            Finding::failed(found, format!("{rights}; systemctl restart outgoingd writes it anew"))
        }
        (_, Ok(_), None) => {
            let found = format!("{user} can read {theirs}; whether it is current only outgoingd knows");
            Finding::unknown(found, "start outgoingd")
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
    let place = format!("set {option} to an ACL whose first lines are those of the part");
    Finding::failed(format!("{option} names no ACL"), include(part, &place))
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
