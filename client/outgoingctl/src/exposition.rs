//! Counters and latencies in the text format of Prometheus (exposition formats, text format 0.0.4).
//!
//! Names follow Prometheus' own practice: base units, `_total` for what only grows. All counters begin with the daemon, whose start
//! is told, too.

use outgoingd_client::protocol::message::{Latencies, Stats};
use std::fmt::Write;

/// The whole text.
pub(crate) fn text(stats: &Stats, latencies: &Latencies) -> String {
    let mut text = Text(String::new());
    let version = [("version", stats.version.as_str())];
    text.metric("build_info", "gauge", "Version of the daemon.", &[(&version, 1)]);
    text.metric("start_time_seconds", "gauge", "When the daemon started, in Unix time.", &[(&[], stats.started)]);
    let flags: [(&[_], _); 2] = [(&[("kind", "hold")], stats.held), (&[("kind", "suspend")], stats.suspended)];
    text.metric("flags", "gauge", "Subjects that are held or suspended now.", &flags);
    text.metric("passes", "gauge", "Messages that have a pass.", &[(&[], stats.passes)]);
    let lookups: [(&[_], _); 3] = [
        (&[("verdict", "ok")], stats.lookups_ok),
        (&[("verdict", "hold")], stats.lookups_hold),
        (&[("verdict", "suspend")], stats.lookups_suspend),
    ];
    text.metric("lookups_total", "counter", "Lookups answered with a verdict.", &lookups);
    for (name, help, value) in [
        ("notices_total", "Notices given to rejected senders.", stats.notices),
        ("malformed_requests_total", "Requests answered with an error.", stats.malformed),
        ("slow_peers_total", "Peers whose request was not complete when they were accepted.", stats.slow_peers),
        ("timed_out_peers_total", "Peers that did not complete their request in time.", stats.timed_out),
        ("turned_away_connections_total", "Connections closed unread at a bound.", stats.turned_away),
        ("changes_total", "Changes carried out.", stats.changes),
        ("refused_requests_total", "Requests of administrators refused.", stats.refused),
        ("fallback_writes_total", "Times the fallback file was written.", stats.fallback_writes),
        ("fallback_failures_total", "Times the fallback file could not be written.", stats.fallback_failures),
    ] {
        text.metric(name, "counter", help, &[(&[], value)]);
    }
    text.histogram("lookup_duration_seconds", "Time of lookups from accept to reply.", latencies);
    text.0
}

struct Text(String);

/// Values with their labels.
type Samples<'a> = [(&'a [(&'a str, &'a str)], u64)];

impl Text {
    fn line(&mut self, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(&format!("# HELP outgoingd_{name} {help}"));
        self.line(&format!("# TYPE outgoingd_{name} {kind}"));
    }

    fn metric(&mut self, name: &str, kind: &str, help: &str, samples: &Samples<'_>) {
        self.head(name, kind, help);
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            self.line(&format!("outgoingd_{name}{labels} {value}"));
        }
    }

    fn histogram(&mut self, name: &str, help: &str, Latencies { buckets, count, sum_ns }: &Latencies) {
        self.head(name, "histogram", help);
        let mut seen = 0;
        for (bound, in_it) in buckets {
            seen += in_it;
            self.line(&format!("outgoingd_{name}_bucket{{le=\"{}\"}} {seen}", seconds(*bound)));
        }
        self.line(&format!("outgoingd_{name}_bucket{{le=\"+Inf\"}} {count}"));
        self.line(&format!("outgoingd_{name}_sum {}", seconds(*sum_ns)));
        self.line(&format!("outgoingd_{name}_count {count}"));
    }
}

/// Nanoseconds as seconds, exactly.
fn seconds(nanoseconds: u64) -> String {
    format!("{}.{:09}", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)
}

/// The value of a label.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_all_below_their_bounds_and_nothing_is_rounded() {
        let latencies = Latencies { buckets: vec![(1023, 2), (2047, 3)], count: 6, sum_ns: 12_000_000_001 };
        let text = text(&Stats::default(), &latencies);
        for line in [
            "outgoingd_lookup_duration_seconds_bucket{le=\"0.000001023\"} 2",
            "outgoingd_lookup_duration_seconds_bucket{le=\"0.000002047\"} 5",
            "outgoingd_lookup_duration_seconds_bucket{le=\"+Inf\"} 6",
            "outgoingd_lookup_duration_seconds_sum 12.000000001",
            "outgoingd_lookup_duration_seconds_count 6",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn what_a_label_says_stays_in_its_quotes() {
        let stats = Stats { version: "a\\b\"c\nd".to_owned(), ..Stats::default() };
        let text = text(&stats, &Latencies::default());
        assert!(text.contains(r#"outgoingd_build_info{version="a\\b\"c\nd"} 1"#), "{text}");
    }
}
