//! Builds the packages: a `.deb` and an `.rpm`, in `dist` of the target directory.
//!
//! What is to be installed is put together once, by [`tree`], for both; cargo-deb and cargo-generate-rpm only pack it. They are
//! built in the versions that are named here where they are missing, which takes one to three minutes, once.

mod licences;

mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::cargo::{Tool, cargo, target_directory};
use crate::packages;

const DEB: Tool = Tool { name: "cargo-deb", version: "3.8.0" };

const RPM: Tool = Tool { name: "cargo-generate-rpm", version: "0.21.1" };

/// What is built, and what brings it.
const BUILD: [&str; 11] = [
    "build",
    "--release",
    "--locked",
    "--bins",
    "-p",
    "outgoingd",
    "-p",
    "outgoingctl",
    "-p",
    "outgoingd-whmapi",
    "--quiet",
];

/// The two packages.
#[derive(Debug)]
pub struct Packages {
    /// For Debian and its relatives.
    pub deb: PathBuf,
    /// For Fedora and its relatives.
    pub rpm: PathBuf,
}

/// Builds both, and says where they are.
pub fn run() -> Result<()> {
    packages::install_missing_to_pack()?;
    let Packages { deb, rpm } = build()?;
    for package in [deb, rpm] {
        eprintln!("{}", package.display());
    }
    Ok(())
}

/// Where they are, once they have been built.
pub fn built() -> Result<Packages> {
    let directory = target_directory()?.join("dist");
    let find = |extension: &str| -> Result<PathBuf> {
        let files =
            fs::read_dir(&directory).ok().into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
        files
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .max()
            .with_context(|| format!("there is no .{extension} in {}: cargo xtask dist", directory.display()))
    };
    Ok(Packages { deb: find("deb")?, rpm: find("rpm")? })
}

fn build() -> Result<Packages> {
    let target = target_directory()?;
    let status = cargo().args(BUILD).status().context("could not run cargo")?;
    ensure!(status.success(), "cargo {}: {status}", BUILD.join(" "));
    let programs = target.join("release");
    tree::put_together(&programs, &programs.join("package"))?;
    let directory = target.join("dist");
    // Nobody shall take a package of yesterday for today's.
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir(&directory)?;
    pack(&DEB, &["deb", "--no-build", "--no-strip", "--quiet", "-p", "outgoingd", "--output"], &directory)?;
    pack(&RPM, &["generate-rpm", "-p", "daemon", "--output"], &directory)?;
    built()
}

fn pack(tool: &Tool, arguments: &[&str], directory: &Path) -> Result<()> {
    let status = tool.command()?.args(arguments).arg(directory).status()?;
    ensure!(status.success(), "{}: {status}", tool.name);
    Ok(())
}
