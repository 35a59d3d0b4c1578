//! What the files of a configuration say of outgoingd in lines of a site's own: which of our parts they take in, and what they have
//! put into our macros. Read as text, for a part that has no effect is none that Exim shows, and is missed when it is gone.
//!
//! Comments do not count. Conditions are not decided: a line behind an `.ifdef` counts. Macros in the name of a file that is
//! included are not put in.

use super::home::{COMPOSED, Facts, Home};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that are looked at; Debian has about eighty.
const MOST_FILES: usize = 2000;

/// The macros of ours to which a site gives what it has itself, and the options that only our parts set then.
const GIVEN: [(&str, &str); 3] = [
    ("OUTGOINGD_NEXT_NOT_SMTP", "acl_not_smtp"),
    ("OUTGOINGD_OTHER_HOLDS", "hold_domains"),
    ("OUTGOINGD_DELAY_WARNING", "delay_warning_condition"),
];

/// What there is of a site's own. Lines are behind their places.
#[derive(Default)]
pub(super) struct OwnLines {
    /// Those that take in parts of ours, in the files that somebody writes.
    pub(super) sources: Vec<String>,
    /// The same in what Debian has composed of them.
    pub(super) composed: Vec<String>,
    /// Options that nothing sets without us.
    pub(super) put_back: Vec<String>,
}

impl OwnLines {
    /// Reads them. What cannot be read says nothing.
    pub(super) fn of(facts: &Facts) -> OwnLines {
        let sources = read_all(&facts.sources());
        let composed = match facts.home() {
            Home::DebianSplit | Home::DebianUnsplit => read_all(&[COMPOSED.into()]),
            Home::Cpanel | Home::HandWritten => Vec::new(),
        };
        OwnLines { sources: naming_us(&sources), composed: naming_us(&composed), put_back: put_back(&sources) }
    }

    /// Whether Exim is told to take in a part of ours, or would be as soon as it is composed.
    pub(super) fn name_us(&self) -> bool {
        !self.sources.is_empty() || !self.composed.is_empty()
    }
}

/// A line that is neither empty nor a comment.
struct Line {
    file: PathBuf,
    number: usize,
    text: String,
}

impl Line {
    /// The file that it takes in.
    fn included(&self) -> Option<&str> {
        // Exim does not tell capitals from small letters here.
        let lower = self.text.to_ascii_lowercase();
        let rest = lower.strip_prefix(".include_if_exists").or_else(|| lower.strip_prefix(".include"))?;
        Some(self.text[self.text.len() - rest.len()..].trim().trim_matches('"'))
    }

    fn names_us(&self) -> bool {
        self.included().is_some_and(|file| file.to_ascii_lowercase().contains("outgoingd"))
    }
}

fn naming_us(lines: &[Line]) -> Vec<String> {
    let ours = lines.iter().filter(|line| line.names_us());
    ours.map(|line| format!("{}:{}: {}", line.file.display(), line.number, line.text)).collect()
}

fn put_back(lines: &[Line]) -> Vec<String> {
    let given = GIVEN.iter().filter_map(|(name, option)| {
        let value = (0..lines.len()).rev().find_map(|position| value(&lines[position..], name))?;
        (!value.is_empty()).then(|| format!("{option} = {value}"))
    });
    given.collect()
}

/// What the first line defines a macro as, with the lines on which it goes on.
fn value(lines: &[Line], name: &str) -> Option<String> {
    let (first, others) = lines.split_first()?;
    let value = first.text.strip_prefix(name)?.trim_start().strip_prefix('=')?;
    let mut value = value.strip_prefix('=').unwrap_or(value).trim_start().to_owned();
    for next in others {
        let Some(begun) = value.strip_suffix('\\') else { break };
        value = format!("{begun}{}", next.text);
    }
    Some(value)
}

fn read_all(places: &[PathBuf]) -> Vec<Line> {
    let (mut seen, mut lines) = (BTreeSet::new(), Vec::new());
    for place in places {
        read(place, &mut seen, &mut lines);
    }
    lines
}

/// Reads a file and what it includes, or the files below a directory that Debian composes.
fn read(place: &Path, seen: &mut BTreeSet<PathBuf>, lines: &mut Vec<Line>) {
    if seen.len() >= MOST_FILES || !seen.insert(place.to_path_buf()) {
        return;
    }
    if let Ok(entries) = fs::read_dir(place) {
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| is_composed(path));
        paths.sort();
        return paths.iter().for_each(|path| read(path, seen, lines));
    }
    let text = fs::read(place).unwrap_or_default();
    for (index, text) in String::from_utf8_lossy(&text).lines().map(str::trim).enumerate() {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let line = Line { file: place.to_path_buf(), number: index + 1, text: text.to_owned() };
        // What our parts say is not the site's.
        let included = line.included().filter(|_| !line.names_us()).map(PathBuf::from);
        lines.push(line);
        if let Some(included) = included.filter(|file| file.is_file()) {
            read(&included, seen, lines);
        }
    }
}

/// Whether Debian's program takes a file of that name, or looks into a directory. It passes over copies that editors leave.
fn is_composed(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
    let name = name.strip_suffix(".rul").unwrap_or(&name);
    !name.is_empty() && name.chars().all(plain) && (path.is_file() || !path.is_symlink())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn the_lines_that_take_us_in_are_found_wherever_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| at(directory.path(), name, text).display().to_string();
        let a = at(
            "main/a",
            "# .include /usr/share/outgoingd/main\nx = y\n  .include_if_exists /usr/share/outgoingd/macros\n",
        );
        let other = at("other/c.conf", ".INCLUDE \"/opt/OUTGOINGD/acl-mail\"\n");
        let b = at("b", &format!(".include {other}\n.include {other}\n.include /opt/outgoingd/routers\n"));
        at("main/a.dpkg-old", ".include /opt/outgoingd/routers\n");
        at("main/.b.swp", ".include /opt/outgoingd/routers\n");
        let expected = [
            format!("{other}:1: .INCLUDE \"/opt/OUTGOINGD/acl-mail\""),
            format!("{b}:3: .include /opt/outgoingd/routers"),
            format!("{a}:3: .include_if_exists /usr/share/outgoingd/macros"),
        ];
        assert_eq!(naming_us(&read_all(&[directory.path().into()])), expected);
        assert_eq!(naming_us(&read_all(&[b.into()])), expected[..2]);
        assert!(naming_us(&read_all(&[directory.path().join("none")])).is_empty());
    }

    #[test]
    fn what_a_site_gave_to_our_macros_is_to_be_put_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let text = "OUTGOINGD_TIMEOUT = 1s\nOUTGOINGD_NEXT_NOT_SMTP = first\nOUTGOINGD_NEXT_NOT_SMTP==acl_mine\n\
                    OUTGOINGD_OTHER_HOLDS = a.test : \\\n  # a comment\n   b.test\n#OUTGOINGD_DELAY_WARNING = no\n";
        let file = at(directory.path(), "macros", text);
        let expected = ["acl_not_smtp = acl_mine", "hold_domains = a.test : b.test"];
        assert_eq!(put_back(&read_all(&[file])), expected);
        let empty = at(directory.path(), "empty", "OUTGOINGD_OTHER_HOLDS =\nOUTGOINGD_DELAY_WARNINGS = x\n");
        assert!(put_back(&read_all(&[empty])).is_empty());
    }
}
