//! `cargo xtask bench`: what outgoingd costs, each figure a ratio of two things measured in turn in one run.
//!
//! Absolute times wander on shared machines; ratios of alternating rounds do much less. The programs are built in release
//! mode, and so is this one, which starts itself again from there. The *floor* is a process that accepts on plain threads,
//! reads once, writes a constant and closes: what the kernel alone costs.
//!
//! Everything runs on private sockets and directories; nothing of the machine's own mail is touched.

pub mod floor;

mod changes;
mod cores;
mod figures;
mod held;
mod lookups;
mod mail;
mod rivals;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use self::figures::{Bound, Figure};
use crate::cargo::cargo;
use crate::packages;
use crate::testbed::Daemon;

/// How long the benchmark takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Four to five minutes.
    Full,
    /// One.
    Quick,
}

impl Length {
    /// How many rounds there are of what has `full` in the full length.
    fn rounds(self, full: usize) -> usize {
        match self {
            Length::Full => full,
            Length::Quick => full.div_ceil(8),
        }
    }
}

/// What is done with the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// They are shown.
    Show,
    /// One that misses its bound is a failure.
    Check,
}

/// Builds everything for release and runs the benchmark from there.
pub fn run(arguments: &[&str]) -> Result<()> {
    packages::install_missing_to_compare()?;
    let built = cargo().args(["build", "--release", "--workspace", "--bins", "--locked"]).status()?;
    ensure!(built.success(), "cargo build --release: {built}");
    let program = workspace().join("target/release/xtask");
    let measured = Command::new(&program).arg("measure").args(arguments).status();
    let measured = measured.with_context(|| format!("could not start {}", program.display()))?;
    ensure!(measured.success(), "the benchmark failed, or a figure missed its bound");
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the table is the result")]
/// Measures, prints a table and writes `target/bench.json`.
pub fn measure(length: Length, purpose: Purpose) -> Result<()> {
    let started = Instant::now();
    let mut figures = Vec::new();
    let small = daemon_with(1_000)?;
    figures.extend(lookups::against_the_floor(&small, length)?);
    figures.extend(lookups::among_hostile_peers(&small, length)?);
    figures.extend(changes::one_at_a_time(&small, length)?);
    figures.extend(changes::imported(length)?);
    drop(small);
    figures.extend(lookups::while_changes_pour_in(length)?);
    figures.extend(with_a_million(length)?);
    figures.extend(mail::through_exim(length)?);
    figures.extend(held::on_a_long_queue(length)?);
    print!("\n{}", figures::table(&figures));
    let rivals = rivals::inside_one_exim(length)?;
    print!("{}", rivals::table(&rivals));
    let path = workspace().join("target/bench.json");
    fs::write(&path, figures::json(&figures, &rivals))?;
    eprintln!("{:.0} s; {}", started.elapsed().as_secs_f64(), path.display());
    let missed: Vec<&str> = figures.iter().filter(|figure| !figure.holds()).map(|figure| figure.name).collect();
    if purpose == Purpose::Check && !missed.is_empty() {
        bail!("missed: {}", missed.join("; "));
    }
    Ok(())
}

/// Figures that need a million subjects: lookups beside a thousand, memory, start.
fn with_a_million(length: Length) -> Result<Vec<Figure>> {
    progress("a million subjects");
    let small = daemon_with(1_000)?;
    let mut large = daemon_with(1_000_000)?;
    let mut figures = lookups::many_subjects_beside_few(&small, &large, length)?;
    large.stop()?;
    let begun = Instant::now();
    large.start_again()?;
    let took = begun.elapsed().as_secs_f64();
    figures.push(Figure::absolute("start to READY with 1,000,000 subjects", took, "s", Bound::AtMost(2.0)));
    let resident = resident(&large)? / f64::from(1 << 20);
    figures.push(Figure::absolute("resident memory with 1,000,000 subjects", resident, "MiB", Bound::AtMost(128.0)));
    Ok(figures)
}

/// A daemon with so many held mailboxes, `user0@bench.test` and on.
fn daemon_with(subjects: usize) -> Result<Daemon> {
    let daemon = Daemon::builder().accounts(&["alice", "carol"]).owner("bench.test", "alice").start()?;
    changes::import(&daemon, 0..subjects)?;
    Ok(daemon)
}

/// Bytes of memory that the daemon occupies.
fn resident(daemon: &Daemon) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024.0)
}

fn progress(what: &str) {
    eprintln!("measuring: {what}");
}

fn workspace() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
