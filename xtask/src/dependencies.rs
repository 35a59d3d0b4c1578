//! Looks at the dependencies as `deny.toml` wants them: known vulnerabilities, licences, sources, duplicates.
//!
//! cargo-deny does it, in the one version that is named here, which takes a minute to build where it is missing. The database of vulnerabilities comes from github.com. Where it cannot be fetched, the rest
//! is looked at, and a line says what was not.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cargo::{Tool, cargo};

const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };

/// What needs no network.
const OFFLINE: [&str; 3] = ["bans", "licenses", "sources"];

/// Fails at the first that `deny.toml` does not allow.
pub(crate) fn check() -> Result<()> {
    let deny = |arguments: &[&str]| -> Result<Command> {
        let mut command = DENY.command()?;
        command.args(arguments);
        Ok(command)
    };
    let fetched = deny(&["fetch", "db"])?.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if !fetched.success() {
        eprintln!("NOT looked at: known vulnerabilities, since their database cannot be fetched here");
    }
    // Those of other systems too, which no build here has needed.
    let crates = cargo().args(["fetch", "--locked"]).status().context("could not run cargo")?;
    ensure!(crates.success(), "cargo fetch: {crates}");
    let advisories = fetched.success().then_some("advisories");
    let what: Vec<&str> = ["--offline", "check"].into_iter().chain(advisories).chain(OFFLINE).collect();
    let status = deny(&what)?.status()?;
    ensure!(status.success(), "cargo deny {}: {status}", what.join(" "));
    Ok(())
}
