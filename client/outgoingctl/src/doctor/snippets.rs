//! What to do about Exim's side: for which part, in which file, so that it works when it is followed to the letter.
//!
//! Reads the file system and no configuration. It knows Debian's split configuration by our files there; everywhere else it says
//! which line goes where.

use super::report::Finding;
use outgoingd_client::exim::EximError;
use std::fs;
use std::path::Path;

/// Where the packages put what Exim includes.
const INSTALLED: &str = "/usr/share/outgoingd/exim-snippets";

/// Where Debian keeps its small files.
const CONF_D: &str = "/etc/exim4/conf.d";

/// Ours among them.
const FILES: [&str; 4] = ["main/00_outgoingd", "acl/10_outgoingd", "router/050_outgoingd", "retry/10_outgoingd"];

/// What Debian's Exim reads in place of what is composed of them.
const OWN: &str = "/etc/exim4/exim4.conf";

/// How what was changed there comes into use.
const COMPOSE: &str = "update-exim4.conf; systemctl reload exim4";

/// What makes our files on Debian what they shall be.
const ENABLE: &str = "outgoingctl exim enable";

/// How our files on Debian stand.
enum Files {
    /// Another kind of configuration, or one without us.
    None,
    /// This one is missing.
    Missing(&'static str),
    /// This one is not the one that is installed.
    Changed(&'static str),
    /// All are there, and as they shall be.
    Whole,
}

impl Files {
    fn look() -> Files {
        let read = |base: &str, name: &str| fs::read(Path::new(base).join(name)).ok();
        let ours = FILES.map(|name| (name, read(CONF_D, name), read(&format!("{INSTALLED}/debian/conf.d"), name)));
        if Path::new(OWN).exists() || ours.iter().all(|(_, there, _)| there.is_none()) {
            return Files::None;
        }
        if let Some((name, ..)) = ours.iter().find(|(_, there, _)| there.is_none()) {
            return Files::Missing(name);
        }
        // What is not installed cannot be compared.
        let changed = ours.iter().find(|(_, there, installed)| installed.is_some() && there != installed);
        changed.map_or(Files::Whole, |(name, ..)| Files::Changed(name))
    }
}

/// What is wrong with our files on Debian, if anything is.
pub(super) fn files() -> Option<Finding> {
    match Files::look() {
        Files::None | Files::Whole => None,
        Files::Missing(name) => Some(Finding::failed(format!("there is no {CONF_D}/{name}"), ENABLE)),
        Files::Changed(name) => {
            let found = format!("{CONF_D}/{name} is not the one that is installed: an upgrade has brought another");
            Some(Finding::warning(found, ENABLE))
        }
    }
}

/// Where none of it is in Exim's configuration.
pub(super) fn absent() -> &'static str {
    if Path::new(INSTALLED).join("macros").exists() {
        "outgoingctl exim enable (which says what goes where if it cannot write it: /usr/share/outgoingd/exim-snippets/README.md)"
    } else {
        "install the package outgoingd again, or /usr/share/outgoingd/exim-snippets: it is not there; then outgoingctl exim enable"
    }
}

/// For a part that is not in the configuration.
pub(super) fn put(part: &str, place: &str) -> String {
    let line = || format!("{place}, put `.include {INSTALLED}/{part}` ({INSTALLED}/README.md)");
    on_debian(part).unwrap_or_else(line)
}

/// For a part that is in the configuration, and not where it shall be: it must not be there twice.
pub(super) fn move_up(part: &str, place: &str) -> String {
    let line = || format!("move the line `.include {INSTALLED}/{part}` {place} ({INSTALLED}/README.md)");
    on_debian(part).unwrap_or_else(line)
}

/// For a macro of ours that has another value than it must have.
pub(super) fn define(name: &str, value: &str) -> String {
    match Files::look() {
        Files::None => format!("let `{name} = {value}` be its only definition, before the line that includes macros"),
        _ => format!("let `{name} = {value}` be its only definition, in {CONF_D}/main/000_localmacros; {COMPOSE}"),
    }
}

/// For a main option of ours that comes out wrong. Exim accepts none twice.
pub(super) fn options() -> String {
    let out = "take your hold_domains and delay_warning_condition out, if you have them (OUTGOINGD_OTHER_HOLDS and \
               OUTGOINGD_DELAY_WARNING are for their values)";
    match Files::look() {
        Files::Missing(_) | Files::Changed(_) => ENABLE.to_owned(),
        Files::Whole => format!("{out}, and nothing else; {COMPOSE}"),
        Files::None => put("main", &format!("{out}, and in their place, after the line with macros")),
    }
}

/// For an Exim that does not accept its configuration.
pub(super) fn mend(error: &EximError) -> String {
    let program = match error {
        EximError::Unexpected { program, .. } => program.display().to_string(),
        _ => "exim".to_owned(),
    };
    let says = |words: &str| error.to_string().contains(words);
    // Where a part meets something of the site's own, both are named as well, and the part is not to blame.
    let is_twice = ["for the second time", "there are two", "already defined"].into_iter().any(says);
    if says("/outgoingd/exim-snippets/") && !is_twice {
        format!("install the package outgoingd again, and see that {program} -bV is content")
    } else {
        format!("mend Exim's configuration: {program} -bV")
    }
}

/// Where the parts are in files of their own, which come in the order of their names. None: they are not.
fn on_debian(part: &str) -> Option<String> {
    match Files::look() {
        Files::None => return None,
        Files::Missing(_) | Files::Changed(_) => return Some(ENABLE.to_owned()),
        Files::Whole => {}
    }
    let behind = |section: &str, ours: &str| {
        format!("rename your file in {CONF_D}/{section} so that it sorts behind {ours}; {COMPOSE}")
    };
    let name = |option: &str, name: &str| {
        format!(
            "take {option} out where it is set, and name your ACL in {CONF_D}/main/000_localmacros: {name} = NAME; {COMPOSE}"
        )
    };
    Some(match part {
        "routers" => behind("router", "050_outgoingd"),
        "retry" => behind("retry", "10_outgoingd"),
        "acl-mail" => name("acl_smtp_mail or MAIN_ACL_CHECK_MAIL", "MAIN_ACL_CHECK_MAIL"),
        "acl-rcpt" => name("acl_smtp_rcpt or MAIN_ACL_CHECK_RCPT", "MAIN_ACL_CHECK_RCPT"),
        "acl-not-smtp" => name("acl_not_smtp", "OUTGOINGD_NEXT_NOT_SMTP"),
        _ => return None,
    })
}
