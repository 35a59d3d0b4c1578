//! Looks at the dependencies as `deny.toml` wants them: known vulnerabilities, licences, sources, duplicates.
//!
//! cargo-deny does it, in the one version that is named here; where that is missing it is built, once, into `tools` of the target
//! directory, which takes a minute. The database of vulnerabilities comes from github.com. Where it cannot be fetched, the rest
//! is looked at, and a line says what was not.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cargo::{cargo, target_directory};

const VERSION: &str = "0.20.2";

/// What needs no network.
const OFFLINE: [&str; 3] = ["bans", "licenses", "sources"];

/// Fails at the first that `deny.toml` does not allow.
pub(crate) fn check() -> Result<()> {
    let program = program()?;
    let deny = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        // As cargo does when it runs a subcommand.
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args(arguments);
        command
    };
    let fetched = deny(&["fetch", "db"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if !fetched.success() {
        eprintln!("NOT looked at: known vulnerabilities, since their database cannot be fetched here");
    }
    // Those of other systems too, which no build here has needed.
    let crates = cargo().args(["fetch", "--locked"]).status().context("could not run cargo")?;
    ensure!(crates.success(), "cargo fetch: {crates}");
    let advisories = fetched.success().then_some("advisories");
    let what: Vec<&str> = ["--offline", "check"].into_iter().chain(advisories).chain(OFFLINE).collect();
    let status = deny(&what).status()?;
    ensure!(status.success(), "cargo deny {}: {status}", what.join(" "));
    Ok(())
}

/// cargo-deny, built if need be.
fn program() -> Result<PathBuf> {
    let tools = target_directory()?.join("tools");
    for program in [tools.join("bin/cargo-deny"), PathBuf::from("cargo-deny")] {
        let version = Command::new(&program).arg("--version").output();
        if version.is_ok_and(|output| output.stdout == format!("cargo-deny {VERSION}\n").as_bytes()) {
            return Ok(program);
        }
    }
    // Without optimisation: it is built in a third of the time and has little to do.
    let install =
        ["install", "--quiet", "--locked", "--force", "--debug", "cargo-deny", "--version", VERSION, "--root"];
    let status = cargo().args(install).arg(&tools).status().context("could not run cargo")?;
    ensure!(status.success(), "cargo install cargo-deny: {status}");
    Ok(tools.join("bin/cargo-deny"))
}
