//! The cargo that runs us, and what it builds for us.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// It, in the workspace, whatever directory we were called from.
pub(crate) fn cargo() -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}

/// The target directory, where cargo has put this program into a directory of a profile.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let program = env::current_exe().context("where is this program?")?;
    Ok(program.ancestors().nth(2).context("this program is not in a target directory")?.to_owned())
}

/// Builds the programs that the test bed starts, unless somebody has named others.
pub(crate) fn build_programs() -> Result<()> {
    if env::var_os("OUTGOINGD_BIN_DIR").is_some() {
        return Ok(());
    }
    let mut command = cargo();
    command.args(["build", "--quiet", "--workspace", "--bins", "--locked"]);
    // The test bed looks beside this program, so the profile must be the same.
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let status = command.status().context("could not run cargo")?;
    if !status.success() {
        bail!("cargo build: {status}");
    }
    Ok(())
}
