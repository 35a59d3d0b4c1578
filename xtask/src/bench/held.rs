//! Held mail: what `outgoingctl held` costs on a long queue, beside Exim's own listing of that.
//!
//! The queue lies in a split spool: messages of a hundred senders, all of them held, each message to a recipient in a domain of
//! its own outside, which is the most that a listing can have to ask.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::changes::median;
use super::figures::{Bound, Figure};
use super::{Length, progress};
use crate::testbed::{Bed, Queued};

/// How many senders have mail on the queue.
const SENDERS: usize = 100;

/// The times at which messages came in are spread over so many seconds, as many as a split spool has directories.
const SPREAD: u64 = 62;

/// How many times more messages the long queue has than the short one, with which its memory is compared.
const TIMES: usize = 10;

/// The ways to look at a queue that are timed.
const WAYS: usize = 3;

/// Times and memory of the listing of held mail.
pub(super) fn on_a_long_queue(length: Length) -> Result<Vec<Figure>> {
    let messages = match length {
        Length::Full => 100_000,
        Length::Quick => 20_000,
    };
    progress("the listing of held mail beside Exim's own listing of the queue");
    let bed = bed_with(messages)?;
    let mut times: [Vec<Duration>; WAYS] = Default::default();
    // In turn, so that what disturbs the machine disturbs all of them.
    for _ in 0..length.rounds(5).max(3) {
        times[0].push(run(&mut bed.ctl_command(&["held", "--json"]))?);
        times[1].push(run(&mut bed.ctl_command(&["held", "--summary"]))?);
        times[2].push(run(&mut bed.exim.command(&["-bpr"]))?);
    }
    let [json, summary, exim] = times.map(|mut times| median(&mut times).as_secs_f64() * 1e3);
    let short = bed_with(messages / TIMES)?;
    let (many, few) = (peak(&bed, messages)?, peak(&short, messages / TIMES)?);
    Ok(vec![
        Figure::ratio("held mail listed, against exim -bpr", json, exim, "ms", Bound::AtMost(2.0)),
        Figure::ratio("held mail summed up, against exim -bpr", summary, exim, "ms", Bound::AtMost(2.0)),
        Figure::absolute("held mail of a long queue listed", json / 1e3, "s", Bound::AtMost(5.0)),
        Figure::ratio("peak memory of the listing, 10 times the messages", many, few, "MiB", Bound::AtMost(2.0)),
    ])
}

/// A bed with so many held messages on the queue.
fn bed_with(messages: usize) -> Result<Bed> {
    let bed = Bed::varied(|exim| exim.main("split_spool_directory = true"))?;
    let senders: Vec<String> = (0..SENDERS).map(|number| format!("user{number}@shop.test")).collect();
    let held: Vec<&str> = senders.iter().map(String::as_str).collect();
    bed.daemon.must(&[&["hold"], &held[..]].concat())?;
    bed.exim.fill_queue(messages, |number| {
        let age = Duration::from_secs(number as u64 % SPREAD);
        Queued::new(&senders[number % SENDERS], &[&format!("friend@{number}.test")]).age(age)
    })?;
    Ok(bed)
}

/// How long a program takes that must succeed, and whose output nobody reads.
fn run(command: &mut Command) -> Result<Duration> {
    let begun = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(begun.elapsed())
}

/// The most memory that the listing has had, in MiB, and whether it has listed what is held.
///
/// Looked up behind each line of its output: what it does behind its last 64 KiB of that, which the pipe takes in, may not be seen.
fn peak(bed: &Bed, messages: usize) -> Result<f64> {
    let mut child = bed.ctl_command(&["held", "--json"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("no standard output")?;
    let (status, mut peak, mut lines) = (format!("/proc/{}/status", child.id()), None, 0);
    for line in BufReader::new(output).lines() {
        line?;
        lines += 1;
        // None once it is about to end.
        let text = fs::read_to_string(&status)?;
        peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(str::to_owned).or(peak);
    }
    let ended = child.wait()?;
    ensure!(ended.success(), "outgoingctl held: {ended}");
    ensure!(lines == messages, "{lines} lines of {messages} held messages");
    let kibibytes: f64 = peak.context("no VmHWM")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes / 1024.0)
}
