//! The cargo that runs us, and what it builds for us.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

/// Where the workspace is.
pub(crate) const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// It, in the workspace, whatever directory we were called from.
pub(crate) fn cargo() -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(WORKSPACE);
    command
}

/// The target directory, where cargo has put this program into a directory of a profile.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let program = env::current_exe().context("where is this program?")?;
    // A test's is one directory deeper.
    let depth = if program.parent().is_some_and(|parent| parent.ends_with("deps")) { 3 } else { 2 };
    Ok(program.ancestors().nth(depth).context("this program is not in a target directory")?.to_owned())
}

/// A program that cargo can build, in the one version that we use.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

impl Tool {
    /// It, in the workspace. Where it is missing it is built, once, into `tools` of the target directory.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new(self.program()?);
        command.current_dir(WORKSPACE);
        Ok(command)
    }

    fn program(&self) -> Result<PathBuf> {
        let tools = target_directory()?.join("tools");
        let built = tools.join("bin").join(self.name);
        for program in [&built, Path::new(self.name)] {
            let version = Command::new(program).arg("--version").output();
            let is_ours = |output: &Output| String::from_utf8_lossy(&output.stdout).trim_end().ends_with(self.version);
            if version.is_ok_and(|output| output.status.success() && is_ours(&output)) {
                return Ok(program.to_owned());
            }
        }
        // Without optimisation: it is built in a third of the time and has little to do.
        let install =
            ["install", "--quiet", "--locked", "--force", "--debug", self.name, "--version", self.version, "--root"];
        let status = cargo().args(install).arg(&tools).status().context("could not run cargo")?;
        ensure!(status.success(), "cargo install {}: {status}", self.name);
        Ok(built)
    }
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
