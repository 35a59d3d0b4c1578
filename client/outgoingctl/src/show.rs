//! Tables for people. What others have typed is escaped where it could play with a terminal.

use crate::moment;
use crate::rows::{self, HeldRow, SummaryRow};
use comfy_table::{ContentArrangement, Table, presets};
use outgoingd_client::protocol::message::{Flag, Kind, LogEntry, Stats, Status, Token};
use outgoingd_client::protocol::text::Verdict;
use std::fmt::Write as _;

/// A table that grows row by row; without a header it goes on with one that was printed.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    if !header.is_empty() {
        table.set_header(header.to_vec());
    }
    table
}

/// The table as text, without the blanks at the ends of its lines.
pub(crate) fn text(table: &Table) -> String {
    table.trim_fmt().lines().fold(String::new(), |all, line| all + line.trim() + "\n")
}

pub(crate) const FLAGS: [&str; 7] = ["SUBJECT", "FLAG", "SINCE", "UNTIL", "BY", "REASON", "NOTICE"];

pub(crate) fn flag(flag: &Flag) -> Vec<String> {
    vec![
        safe(&flag.subject),
        kind(flag.kind).to_owned(),
        flag.since.map_or_else(none, moment::local),
        flag.until.map_or_else(none, moment::local),
        flag.by.as_deref().map_or_else(none, safe),
        flag.reason.as_deref().map_or_else(none, safe),
        flag.notice.as_deref().map_or_else(none, safe),
    ]
}

pub(crate) const LOG: [&str; 6] = ["TIME", "WHO", "WHAT", "SUBJECT", "UNTIL", "REASON"];

pub(crate) fn log(entry: &LogEntry) -> Vec<String> {
    let mut who = format!("{} (uid {}, pid {})", safe(&entry.by), entry.uid, entry.pid);
    if let Some(whom) = &entry.on_behalf_of {
        let _ = write!(who, " for {}", safe(whom));
    }
    vec![
        moment::local(entry.at),
        who,
        rows::action(entry.action).to_owned(),
        safe(&entry.subject),
        entry.until.map_or_else(none, moment::local),
        entry.reason.as_deref().map_or_else(none, safe),
    ]
}

pub(crate) const HELD: [&str; 8] =
    ["MESSAGE-ID", "AGE", "SIZE", "HELD THROUGH", "IDENTITY", "SENDER", "SUBJECT LINE", "RECIPIENTS TO GO"];

/// Characters of a subject line, and recipients, that are shown; JSON has all.
const SHOWN: (usize, usize) = (40, 2);

pub(crate) fn held(row: &HeldRow) -> Vec<String> {
    let mut age = moment::age(row.age);
    if row.frozen {
        age += ", frozen";
    }
    let mut line = row.subject_line.as_deref().map_or_else(none, safe);
    if let Some((end, _)) = line.char_indices().nth(SHOWN.0) {
        line.truncate(end);
        line.push('…');
    }
    let mut recipients =
        row.recipients.iter().take(SHOWN.1).map(|recipient| safe(recipient)).collect::<Vec<_>>().join(", ");
    if row.recipients.len() > SHOWN.1 {
        let _ = write!(recipients, " and {} more", row.recipients.len() - SHOWN.1);
    }
    vec![
        row.message_id.clone(),
        age,
        size(row.size),
        safe(&row.held_through),
        safe(&row.identity),
        format!("<{}>", safe(&row.sender)),
        line,
        recipients,
    ]
}

pub(crate) const SUMMARY: [&str; 5] = ["SUBJECT", "MESSAGES", "SIZE", "RECIPIENTS TO GO", "OLDEST"];

pub(crate) fn summary(row: &SummaryRow<'_>, age: u64) -> Vec<String> {
    vec![safe(row.subject), row.messages.to_string(), size(row.size), row.recipients.to_string(), moment::age(age)]
}

pub(crate) const TOKENS: [&str; 5] = ["NAME", "FUNCTIONS", "SINCE", "UNTIL", "BY"];

pub(crate) fn token(token: &Token, now: u64) -> Vec<String> {
    let ended = if rows::has_ended(token, now) { " (ended)" } else { "" };
    vec![
        safe(&token.name),
        if token.functions.is_empty() { "all".to_owned() } else { safe(&token.functions.join(", ")) },
        moment::local(token.since),
        token.until.map_or_else(none, |until| moment::local(until) + ended),
        safe(&token.by),
    ]
}

/// So many messages, in words.
pub(crate) fn messages(count: u64) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

/// A size as Exim's listings have it: `284`, `1.5K`, `12M`; but that they know no `G`.
pub(crate) fn size(bytes: u64) -> String {
    let (unit, letter) = match bytes {
        0..1024 => return bytes.to_string(),
        1024..1_048_576 => (1024, 'K'),
        1_048_576..1_073_741_824 => (1 << 20, 'M'),
        _ => (1 << 30, 'G'),
    };
    if bytes < 10 * unit {
        // As printf(3) rounds: a half goes to the even neighbour.
        let (tenths, rest) = (bytes * 10 / unit, bytes * 10 % unit);
        let tenths = if rest * 2 + tenths % 2 > unit { tenths + 1 } else { tenths };
        format!("{}.{}{letter}", tenths / 10, tenths % 10)
    } else {
        format!("{}{letter}", (bytes + unit / 2) / unit)
    }
}

/// The verdict in a sentence, and the flags that lead to it.
pub(crate) fn status(status: &Status) -> String {
    let subject = safe(&status.subject);
    let mut out = match (status.verdict, status.flags.first()) {
        (Verdict::Ok, Some(_)) => format!("{subject}: ok, whatever is set\n"),
        (_, None) => format!("{subject}: ok, no flag covers it\n"),
        (verdict, Some(deciding)) if deciding.subject == status.subject => {
            format!("{subject}: {}\n", participle(verdict))
        }
        (verdict, Some(deciding)) => {
            let through = safe(&deciding.subject);
            let owner = if status.owner.as_deref() == Some(&deciding.subject) { ", which owns its domain" } else { "" };
            format!("{subject}: {} through {through}{owner}\n", participle(verdict))
        }
    };
    if !status.flags.is_empty() {
        let mut flags = table(&FLAGS);
        flags.add_rows(status.flags.iter().map(flag));
        out += "\n";
        out += &text(&flags);
    }
    out
}

/// Counters and latencies, one a line.
pub(crate) fn stats(stats: &Stats) -> String {
    let mut table = table(&[]);
    for (name, value) in rows::stats(stats) {
        let (name, value) = match (name.strip_suffix("_ns"), value.as_u64()) {
            (Some(name), Some(nanoseconds)) => (name, microseconds(nanoseconds)),
            _ => (name, value.as_str().map_or_else(|| value.to_string(), safe)),
        };
        table.add_row([name.replace('_', " "), value]);
    }
    text(&table)
}

/// `held` or `suspended`.
pub(crate) const fn participle(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Hold => "held",
        Verdict::Suspend => "suspended",
    }
}

/// What a terminal and its reader cannot be misled by: control characters escaped, and those that have no shape of their own
/// or turn the direction of others.
pub(crate) fn safe(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, character| {
        match character {
            '"' | '\'' | '\\' => out.push(character),
            _ => out.extend(character.escape_debug()),
        }
        out
    })
}

fn microseconds(nanoseconds: u64) -> String {
    format!("{}.{} µs", nanoseconds / 1000, nanoseconds % 1000 / 100)
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Hold => "hold",
        Kind::Suspend => "suspend",
    }
}

fn none() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_two_digits_at_least_and_one_unit() {
        let sizes = [0, 1023, 1024, 1536, 10_240, 1_048_575, 1_048_576, 12 << 30].map(size);
        assert_eq!(sizes, ["0", "1023", "1.0K", "1.5K", "10K", "1024K", "1.0M", "12G"]);
        let rounded = [1075, 1076, 1280, 1281, 1408, 10_239, 10_751, 10_752].map(size);
        assert_eq!(rounded, ["1.0K", "1.1K", "1.2K", "1.3K", "1.4K", "10.0K", "10K", "11K"]);
    }
}
