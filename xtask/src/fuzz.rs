//! `cargo xtask fuzz`: the fuzz targets of `fuzz/`, one behind the other, each for some minutes.
//!
//! The fuzzer starts from the corpus in `fuzz/corpus/` and from what earlier runs on this machine have found. New finds are
//! kept in `fuzz` of the target directory, as are logs and the inputs that failed; nothing in the sources changes. An input
//! worth keeping is copied into the corpus by hand, with a name that says what it is, and is from then on one of those that
//! `daemon/tests/corpora.rs` tries.
//!
//! Needs cargo-fuzz and a C++ compiler, but no nightly toolchain.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{cargo, target_directory};

/// A single input may take so many seconds.
const TIMEOUT: u32 = 10;

/// And ask for so many MiB at once: what a claimed length makes a decoder allocate is far below that.
const ALLOCATION: u32 = 32;

/// Runs `target`, or every one, for so many minutes each.
#[allow(clippy::print_stdout, reason = "a line for each target is the result")]
pub fn run(minutes: u64, target: Option<&str>) -> Result<()> {
    let seconds = minutes.checked_mul(60).filter(|&seconds| seconds > 0).context("--minutes: at least one")?;
    let mut targets = targets()?;
    if let Some(wanted) = target {
        ensure!(targets.iter().any(|target| target == wanted), "no target {wanted}; there are: {}", targets.join(", "));
        targets.retain(|target| target == wanted);
    }
    let there = cargo().args(["fuzz", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        bail!("cargo-fuzz is missing: `cargo install cargo-fuzz --locked`");
    }
    let mut failed = 0;
    for target in &targets {
        eprintln!("== {target}: building, then {minutes} min");
        let Outcome { executions, failure } = fuzz(target, seconds)?;
        failed += usize::from(failure.is_some());
        let how = failure.map_or("no failure".to_owned(), |failure| format!("FAILED\n{failure}"));
        println!("{target:8} {executions:>12} executions, {how}");
    }
    ensure!(failed == 0, "{failed} of {} targets failed", targets.len());
    Ok(())
}

/// How a run has ended.
struct Outcome {
    executions: u64,
    /// The input, and how to try it again.
    failure: Option<String>,
}

fn fuzz(target: &str, seconds: u64) -> Result<Outcome> {
    let (sources, kept) = (sources()?, target_directory()?.join("fuzz"));
    let (found, failures) = (kept.join("found").join(target), kept.join("failures").join(target));
    for directory in [&found, &failures] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let cargo_fuzz = |verb: &str| {
        let mut command = cargo();
        command.current_dir(&sources).args(["fuzz", verb, "--target-dir"]).arg(kept.join("build")).arg(target);
        // Coverage and the address sanitizer, which is on by default, are flags that a stable compiler refuses otherwise.
        // The sanitizer's library comes with it.
        command.env("RUSTC_BOOTSTRAP", "1");
        command
    };
    // By itself, so that an error of the compiler is not taken for a find.
    let built = cargo_fuzz("build").status()?;
    ensure!(built.success(), "cargo fuzz build {target}: {built}");
    let path = kept.join(format!("{target}.log"));
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let status = cargo_fuzz("run")
        // New finds go into the first of these.
        .args([&found, &sources.join("corpus").join(target)])
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-malloc_limit_mb={ALLOCATION}"))
        .arg(format!("-artifact_prefix={}/", failures.display()))
        .arg("-print_final_stats=1")
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()?;
    // Inputs are among the words of a log, and may be anything.
    let log = fs::read(&path)?;
    let log = String::from_utf8_lossy(&log);
    let executions = value(&log, "stat::number_of_executed_units:").and_then(|number| number.parse().ok());
    if status.success() {
        let executions = executions.with_context(|| format!("{} does not say how many executions", path.display()))?;
        return Ok(Outcome { executions, failure: None });
    }
    let failure = match value(&log, "Test unit written to ") {
        Some(input) => {
            let (sources, target_directory) = (sources.display(), kept.join("build"));
            let again = format!("cargo fuzz run --target-dir {} {target} {input}", target_directory.display());
            format!("  input: {input}\n  again: cd {sources} && RUSTC_BOOTSTRAP=1 {again}\n  log:   {}", path.display())
        }
        None => format!("  {status}, and no input was kept; log: {}", path.display()),
    };
    Ok(Outcome { executions: executions.unwrap_or(0), failure: Some(failure) })
}

/// What stands behind `key` in the last line of a log that has it.
fn value<'a>(log: &'a str, key: &str) -> Option<&'a str> {
    log.lines().rev().find_map(|line| line.split_once(key)).map(|(_, value)| value.trim())
}

/// The names of all targets, in their order.
fn targets() -> Result<Vec<String>> {
    let path = sources()?.join("fuzz_targets");
    let entries = fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut targets = Vec::new();
    for entry in entries {
        let path = entry?.path();
        targets.push(path.file_stem().and_then(|stem| stem.to_str()).context("a target without a name")?.to_owned());
    }
    targets.sort();
    Ok(targets)
}

fn sources() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is not in a workspace")?.join("fuzz"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_is_the_last_that_was_written() {
        let log =
            "x\nTest unit written to slow-unit-1\nTest unit written to crash-2\nstat::number_of_executed_units: 37\n";
        assert_eq!(value(log, "Test unit written to "), Some("crash-2"));
        assert_eq!(value(log, "stat::number_of_executed_units:"), Some("37"));
        assert_eq!(value(log, "stat::peak_rss_mb:"), None);
    }
}
