//! Reading the lines of an import. Pure: what a line means is decided here, what becomes of it by the daemon.
//!
//! A line is a JSON object as `export` prints it; a name and its verdict, as in the daemon's fallback file
//! (`bob@example.com: hold`, `*@example.com: suspend`); or a plain name, as in cPanel's `/etc/outgoing_mail_hold_users` and
//! `/etc/outgoing_mail_suspended_users`. Empty lines and lines that start with `#` do not count.

use crate::rows;
use outgoingd_client::protocol::message::{Flag, Kind};
use std::path::Path;

/// Flags in one batch at most, and bytes of their texts, well below the bound of a frame.
const BATCH: (usize, usize) = (1000, 256 << 10);

/// Lines on their way to the daemon.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) flags: Vec<Flag>,
    /// The line that each flag came from, from 1.
    pub(crate) lines: Vec<u64>,
    size: usize,
}

/// The flag in a line, or none if it does not count. `plain` says what a plain name means, if that is known.
pub(crate) fn parse(line: &str, plain: Option<Kind>) -> Result<Option<Flag>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if line.starts_with('{') {
        let row: rows::Flag = serde_json::from_str(line).map_err(|error| format!("is no flag in JSON: {error}"))?;
        return Flag::try_from(row).map(Some);
    }
    if let Some((key, verdict)) = line.rsplit_once(": ") {
        let kind = match verdict {
            "hold" => Kind::Hold,
            "suspend" => Kind::Suspend,
            "ok" => return Ok(None),
            _ => return Err("is no name with hold or suspend behind it".to_owned()),
        };
        return Ok(Some(bare(subject_of(key), kind)));
    }
    let kind = plain.ok_or("is a plain name; say with --as hold or --as suspend what it means")?;
    Ok(Some(bare(line.to_owned(), kind)))
}

fn bare(subject: String, kind: Kind) -> Flag {
    Flag { subject, kind, since: None, until: None, by: None, reason: None, notice: None }
}

/// The subject of a key in a fallback file, where a domain is `*@example.com` and what Exim would cut is quoted.
fn subject_of(key: &str) -> String {
    let key = match key.strip_prefix('"').and_then(|key| key.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => key.to_owned(),
    };
    match key.strip_prefix("*@") {
        Some(domain) => format!("@{domain}"),
        None => key,
    }
}

/// What the plain names in a file mean, by the file's name: cPanel's lists say it in theirs.
pub(crate) fn kind_by_name(file: &Path) -> Option<Kind> {
    let name = file.file_name()?.to_str()?;
    match (name.contains("hold"), name.contains("suspend")) {
        (true, false) => Some(Kind::Hold),
        (false, true) => Some(Kind::Suspend),
        _ => None,
    }
}

impl Batch {
    pub(crate) fn add(&mut self, line: u64, flag: Flag) {
        let texts = [Some(&flag.subject), flag.by.as_ref(), flag.reason.as_ref(), flag.notice.as_ref()];
        self.size += texts.into_iter().flatten().map(String::len).sum::<usize>();
        self.flags.push(flag);
        self.lines.push(line);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.flags.len() >= BATCH.0 || self.size >= BATCH.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_export_prints_is_read_again() {
        let flag = Flag {
            subject: "bob@example.com".to_owned(),
            kind: Kind::Suspend,
            since: Some(1_700_000_000),
            until: Some(1_900_000_000),
            by: Some("root".to_owned()),
            reason: Some("phished \"again\"".to_owned()),
            notice: Some("call 555".to_owned()),
        };
        let line = serde_json::to_string(&rows::Flag::from(flag.clone())).unwrap();
        assert_eq!(parse(&line, None), Ok(Some(flag)));
    }

    #[test]
    fn a_plain_name_means_what_its_file_or_the_command_line_says() {
        assert_eq!(kind_by_name(Path::new("/etc/outgoing_mail_hold_users")), Some(Kind::Hold));
        assert_eq!(kind_by_name(Path::new("/etc/outgoing_mail_suspended_users")), Some(Kind::Suspend));
        assert_eq!(kind_by_name(Path::new("/tmp/list")), None);
        assert_eq!(parse("alice", Some(Kind::Hold)).unwrap().unwrap().kind, Kind::Hold);
        assert!(parse("alice", None).unwrap_err().contains("--as"));
        assert_eq!(parse("  # comment", None), Ok(None));
    }

    #[test]
    fn the_lines_of_a_fallback_file_are_read() {
        let read = |line| parse(line, None).unwrap().map(|flag| (flag.subject, flag.kind));
        assert_eq!(read("bob@example.com: hold"), Some(("bob@example.com".to_owned(), Kind::Hold)));
        assert_eq!(read("*@example.com: suspend"), Some(("@example.com".to_owned(), Kind::Suspend)));
        assert_eq!(read("*: hold"), Some(("*".to_owned(), Kind::Hold)));
        assert_eq!(read("root: ok"), None);
        assert_eq!(read(r#""a:b\"c\\d@example.com": hold"#), Some((r#"a:b"c\d@example.com"#.to_owned(), Kind::Hold)));
        assert!(parse("alice: maybe", None).is_err());
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong() {
        assert!(parse("{\"subject\":\"a\"}", None).unwrap_err().contains("flag"));
        assert!(parse("{\"subject\":\"a\",\"flag\":\"hold\",\"until\":\"soon\"}", None).unwrap_err().contains("until"));
        assert!(parse("{\"subject\":\"a\",\"flag\":\"hold\",\"colour\":1}", None).unwrap_err().contains("colour"));
    }
}
