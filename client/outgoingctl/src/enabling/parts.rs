//! Whether the parts are in a configuration, as Exim prints it; and what to paste where, for homes that we do not write. Pure.

use super::home::{Home, LOCAL_MACROS, TEMPLATE};
use crate::rows::Paste;

/// What Exim is asked for, to see the ACLs and options that our files set.
pub(super) const OPTIONS: [&str; 4] = ["hold_domains", "acl_smtp_mail", "acl_smtp_rcpt", "acl_not_smtp"];

/// Our ACLs on Debian, by the options that name them, with what a site does that names its own elsewhere.
const ACLS: [(&str, &str, &str); 3] = [
    ("acl_smtp_mail", "acl_outgoingd_mail", "name your ACL there by MAIN_ACL_CHECK_MAIL"),
    ("acl_smtp_rcpt", "acl_outgoingd_rcpt", "name your ACL there by MAIN_ACL_CHECK_RCPT"),
    ("acl_not_smtp", "acl_outgoingd_not_smtp", "name your ACL there by OUTGOINGD_NEXT_NOT_SMTP"),
];

/// Where a Debian site has its own macros.
pub(super) const MACROS: &str = "/etc/exim4/conf.d/main/000_localmacros";

/// How much of outgoingd is in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Nothing.
    None,
    /// Some parts and not others.
    Some,
    /// All seven.
    All,
}

/// What `exim -bP config` prints shows it: macros are put in there, and files that are included.
pub(super) fn extent(configuration: &str) -> Extent {
    let count = |mark: &str| configuration.lines().filter(|line| line.trim_start().starts_with(mark)).count();
    let has = |mark: &str, word: &str| {
        configuration.lines().any(|line| line.trim_start().starts_with(mark) && line.contains(word))
    };
    let parts = [
        count("OUTGOINGD_CACHED_VERDICT") > 0,
        has("hold_domains", "acl_m_outgoingd_verdict"),
        has("delay_warning_condition", "acl_m_outgoingd_verdict"),
        // The ACL for MAIL and the one for programs.
        count("set acl_m_outgoingd_verdict = unknown") > 1,
        // The one for RCPT and the one for programs.
        count("log_message = outgoing mail of ${escape:$acl_m_outgoingd_sender} is suspended") > 2,
        count("outgoingd:") > 0,
        has("\"${if", "F,3650d"),
    ];
    match parts.iter().filter(|part| **part).count() {
        0 => Extent::None,
        count if count == parts.len() => Extent::All,
        _ => Extent::Some,
    }
}

/// The value of an option, from what `exim -bP` prints of several.
pub(super) fn value<'a>(printed: &'a str, option: &str) -> &'a str {
    let value = printed.lines().find_map(|line| line.strip_prefix(option)?.strip_prefix(" ="));
    value.unwrap_or_default().trim()
}

/// What is in the way of our files on Debian, if Exim accepts them and does not use them, and what to do.
pub(super) fn unused(printed: &str) -> Option<String> {
    let (option, ours, next) = ACLS.iter().find(|(option, ours, _)| value(printed, option) != *ours)?;
    let theirs = value(printed, option);
    Some(format!("{option} would be \"{theirs}\" and not {ours}: take it out where it is set, and {next} in {MACROS}"))
}

/// What Exim says of an option of ours that is set again: from 4.100 on it does not, and the last one counts.
pub(super) fn set_twice(configuration: &str) -> Option<String> {
    let main = configuration.lines().map(str::trim).take_while(|line| !line.starts_with("begin "));
    let main: Vec<&str> = main.map(|line| line.strip_prefix("hide ").unwrap_or(line).trim_start()).collect();
    let is_set_twice = |option: &&str| {
        let sets = |line: &&&str| line.strip_prefix(*option).is_some_and(|rest| rest.trim_start().starts_with('='));
        main.iter().filter(sets).count() > 1
    };
    let twice = OPTIONS.iter().chain(&["delay_warning_condition"]).find(|option| is_set_twice(option))?;
    Some(format!("\"{twice}\" option set for the second time"))
}

/// What a Debian site does about what Exim says of our files.
pub(super) fn advice(said: &str) -> &'static str {
    let about = |word: &str| said.contains(word);
    let twice = about("for the second time");
    if twice && about("hold_domains") {
        "; take your line out, and put its value into OUTGOINGD_OTHER_HOLDS in /etc/exim4/conf.d/main/000_localmacros"
    } else if twice && about("delay_warning_condition") {
        "; take your line out, and put its value into OUTGOINGD_DELAY_WARNING in /etc/exim4/conf.d/main/000_localmacros"
    } else if twice && about("acl_not_smtp") {
        "; take your line out, and name your ACL in /etc/exim4/conf.d/main/000_localmacros: OUTGOINGD_NEXT_NOT_SMTP = NAME"
    } else if twice && about("acl_smtp_") {
        "; take your line out, and name your ACL in /etc/exim4/conf.d/main/000_localmacros: MAIN_ACL_CHECK_MAIL or MAIN_ACL_CHECK_RCPT = NAME"
    } else if about("MAIN_ACL_CHECK_") {
        "; move your definition of it to /etc/exim4/conf.d/main/000_localmacros"
    } else {
        ""
    }
}

/// What to paste where. `printed` is what Exim prints of [`OPTIONS`]; `file` is what it reads.
pub(super) fn pastes(home: Home, snippets: &str, file: &str, printed: &str) -> Vec<Paste> {
    let include = |part: &str| format!(".include {snippets}/{part}");
    let paste = |file: &str, place: String, lines: Vec<String>| Paste { file: file.to_owned(), place, lines };
    match home {
        Home::DebianSplit => Vec::new(),
        Home::DebianUnsplit => {
            let main = vec![include("debian/conf.d/main/00_outgoingd")];
            vec![
                paste(LOCAL_MACROS, "at its end; make the file if it is not there".into(), main),
                paste(TEMPLATE, behind("begin acl"), vec![include("debian/conf.d/acl/10_outgoingd")]),
                paste(TEMPLATE, behind("begin routers"), vec![include("routers")]),
                paste(TEMPLATE, behind("begin retry"), vec![include("retry")]),
            ]
        }
        Home::Cpanel => [
            ("the box CONFIG, at the top", &["macros", "main"][..]),
            ("the box custom_begin_mail_pre", &["acl-mail"]),
            ("the box custom_begin_recipient", &["acl-rcpt"]),
            ("the box custom_begin_outgoing_notsmtp_checkall", &["acl-not-smtp"]),
            ("the box PREROUTERS", &["routers"]),
            ("the box RETRYSTART", &["retry"]),
        ]
        .into_iter()
        .map(|(place, parts)| {
            let lines = parts.iter().map(|part| include(part)).collect();
            paste("WHM, Exim Configuration Manager, Advanced Editor", place.to_owned(), lines)
        })
        .collect(),
        Home::HandWritten => {
            hand_written(&include, printed).into_iter().map(|(place, lines)| paste(file, place, lines)).collect()
        }
    }
}

/// What is left of it where some lines are in the files already and wait to be composed: `there` are those that take in parts.
pub(super) fn still_to_paste(pastes: Vec<Paste>, there: &[String]) -> Vec<Paste> {
    let is_there = |line: &str| {
        let part = line.rsplit(' ').next().unwrap_or(line);
        line.starts_with(".include") && there.iter().any(|there| there.trim_end_matches('"').ends_with(part))
    };
    let left = pastes.into_iter().map(|mut paste| {
        paste.lines.retain(|line| !is_there(line));
        paste
    });
    left.filter(|paste| !paste.lines.is_empty()).collect()
}

/// The same for a configuration of one's own, where the ACLs have names that Exim knows, or are to be made.
fn hand_written(include: &dyn Fn(&str) -> String, printed: &str) -> Vec<(String, Vec<String>)> {
    let (mut main, mut acls) = (vec![include("macros"), include("main")], Vec::new());
    let mut made = Vec::new();
    for (option, part, ours) in [
        ("acl_smtp_mail", "acl-mail", "acl_outgoingd_mail"),
        ("acl_smtp_rcpt", "acl-rcpt", ""),
        ("acl_not_smtp", "acl-not-smtp", "acl_outgoingd_not_smtp"),
    ] {
        let named = value(printed, option);
        let is_name = named.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
        match named {
            // Where nothing checks recipients, Exim takes none that comes by SMTP.
            "" if ours.is_empty() => {}
            "" => {
                main.push(format!("{option} = {ours}"));
                made.extend([format!("{ours}:"), include(part), "  accept".to_owned()]);
            }
            named if is_name => acls.push((behind(&format!("{named}:")), vec![include(part)])),
            named => acls.push((format!("first in the ACL to which {option} = {named} leads"), vec![include(part)])),
        }
    }
    let place =
        "in the main section, above its first line that starts with \"begin\", below your own macros OUTGOINGD_…";
    let mut pastes = vec![(place.to_owned(), main)];
    if !made.is_empty() {
        pastes.push((behind("begin acl"), made));
    }
    pastes.append(&mut acls);
    pastes.push((behind("begin routers"), vec![include("routers")]));
    pastes.push((behind("begin retry"), vec![include("retry")]));
    pastes
}

fn behind(line: &str) -> String {
    format!("after the line \"{line}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `exim -bP config` prints of a configuration with all parts, a line each.
    const ALL: [&str; 9] = [
        "OUTGOINGD_CACHED_VERDICT = ${if def:acl_m_outgoingd_verdict}",
        "hold_domains = ${if def:acl_m_outgoingd_verdict}",
        "delay_warning_condition = ${if def:acl_m_outgoingd_verdict}",
        "    set acl_m_outgoingd_verdict = unknown\n    set acl_m_outgoingd_verdict = unknown",
        "    log_message = outgoing mail of ${escape:$acl_m_outgoingd_sender} is suspended",
        "    log_message = outgoing mail of ${escape:$acl_m_outgoingd_sender} is suspended, and a rejection",
        "    log_message = outgoing mail of ${escape:$acl_m_outgoingd_sender} is suspended",
        "  outgoingd:",
        "  \"${if eq{}{}}\" * F,3650d,1s",
    ];

    #[test]
    fn every_part_that_is_missing_shows() {
        assert_eq!(extent(&ALL.join("\n")), Extent::All);
        assert_eq!(extent("hold_domains = x\nOUTGOINGD_OTHER_HOLDS = y\n"), Extent::None);
        for (position, missing) in ALL.iter().enumerate() {
            let mut lines = ALL.to_vec();
            lines.remove(position);
            assert_eq!(extent(&lines.join("\n")), Extent::Some, "{missing}");
        }
    }

    #[test]
    fn an_acl_that_is_not_ours_is_named_with_what_to_do() {
        let printed =
            "acl_smtp_mail = acl_outgoingd_mail\nacl_smtp_rcpt = mine\nacl_not_smtp = acl_outgoingd_not_smtp\n";
        let said = unused(printed).unwrap();
        assert!(said.contains("acl_smtp_rcpt would be \"mine\"") && said.contains("MAIN_ACL_CHECK_RCPT"), "{said}");
        assert_eq!(unused(&printed.replace("mine", "acl_outgoingd_rcpt")), None);
    }

    #[test]
    fn an_option_of_ours_that_is_set_twice_is_named_though_exim_takes_the_last() {
        let ours = "# 3 \"x\"\nhold_domains = ours\ndelay_warning_condition = ours\nhold_domains_other = x\n";
        let routers = "begin routers\na:\n  hold_domains = x\n";
        assert_eq!(set_twice(&format!("{ours}{routers}")), None);
        let said = |own: &str| set_twice(&format!("{own}{ours}{routers}"));
        assert!(advice(&said("hold_domains = a.test\n").unwrap()).contains("OUTGOINGD_OTHER_HOLDS"));
        assert!(advice(&said("hide delay_warning_condition=no\n").unwrap()).contains("OUTGOINGD_DELAY_WARNING"));
        let acls = "acl_smtp_rcpt = a\nacl_smtp_rcpt = b\n";
        assert!(advice(&said(acls).unwrap()).contains("MAIN_ACL_CHECK_RCPT"));
    }

    #[test]
    fn what_a_site_has_set_itself_has_a_macro() {
        for (said, word) in [
            ("\"hold_domains\" option set for the second time", "OUTGOINGD_OTHER_HOLDS"),
            ("\"delay_warning_condition\" option set for the second time", "OUTGOINGD_DELAY_WARNING"),
            ("\"acl_not_smtp\" option set for the second time", "OUTGOINGD_NEXT_NOT_SMTP"),
            ("macro \"MAIN_ACL_CHECK_RCPT\" is already defined", "000_localmacros"),
        ] {
            assert!(advice(said).contains(word), "{said}");
        }
        assert_eq!(advice("main option \"x\" unknown"), "");
    }

    #[test]
    fn an_acl_that_is_there_is_added_to_and_one_that_is_missing_is_made() {
        let printed = "hold_domains = \nacl_smtp_mail = \nacl_smtp_rcpt = check_rcpt\nacl_not_smtp = ${if x}\n";
        let pastes = pastes(Home::HandWritten, "/s", "/etc/exim/exim.conf", printed);
        let places: Vec<&str> = pastes.iter().map(|paste| &*paste.place).collect();
        assert_eq!(pastes[0].lines, [".include /s/macros", ".include /s/main", "acl_smtp_mail = acl_outgoingd_mail"]);
        assert_eq!(pastes[1].lines, ["acl_outgoingd_mail:", ".include /s/acl-mail", "  accept"]);
        assert_eq!(places[2], "after the line \"check_rcpt:\"");
        assert_eq!(places[3], "first in the ACL to which acl_not_smtp = ${if x} leads");
        assert!(pastes.iter().all(|paste| paste.file == "/etc/exim/exim.conf"));
    }

    #[test]
    fn an_exim_that_takes_nothing_by_smtp_is_not_made_to_take_everything() {
        let pastes = pastes(Home::HandWritten, "/s", "/f", "acl_smtp_mail = \nacl_smtp_rcpt = \nacl_not_smtp = \n");
        assert!(pastes.iter().flat_map(|paste| &paste.lines).all(|line| !line.contains("rcpt")));
    }
}
