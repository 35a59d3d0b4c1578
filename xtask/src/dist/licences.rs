//! The licences of what the programs are linked with: most of them want their text to go along.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::cargo::cargo;

/// The packages that have programs in them.
const PROGRAMS: [&str; 6] = ["-p", "outgoingd", "-p", "outgoingctl", "-p", "outgoingd-whmapi"];

/// A text with name, version, licence and the licence files of each crate that is linked in.
pub(super) fn of_dependencies() -> Result<String> {
    let manifests = manifests()?;
    let listed = output(
        &[&["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}|{l}"], &PROGRAMS[..]]
            .concat(),
    )?;
    let mut crates: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('|')).collect();
    crates.sort_unstable();
    crates.dedup_by_key(|(name, _)| name.trim_end_matches(" (*)"));
    let mut text = String::from("outgoingd's programs are linked with the following.\n");
    for (package, licence) in crates {
        let mut words = package.split(' ');
        let (name, version) =
            (words.next().unwrap_or_default(), words.next().unwrap_or_default().trim_start_matches('v'));
        // Our own are listed with their directory.
        let Some(directory) = manifests.get(&(name.to_owned(), version.to_owned())) else { continue };
        write!(text, "\n---- {name} {version}: {} ----\n", licence.trim_end_matches(" (*)"))?;
        for file in licence_files(directory)? {
            writeln!(text, "\n{}", fs::read_to_string(&file)?.trim_end())?;
        }
    }
    Ok(text)
}

/// Where the source of each crate from a registry is.
fn manifests() -> Result<BTreeMap<(String, String), PathBuf>> {
    let metadata: serde_json::Value =
        serde_json::from_str(&output(&["metadata", "--locked", "--format-version", "1"])?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let place = |package: &serde_json::Value| {
        package["source"].as_str()?;
        let manifest = Path::new(package["manifest_path"].as_str()?).parent()?.to_owned();
        Some(((package["name"].as_str()?.to_owned(), package["version"].as_str()?.to_owned()), manifest))
    };
    Ok(packages.iter().filter_map(place).collect())
}

fn licence_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        path.is_file()
            && ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"].iter().any(|word| name.starts_with(word))
    });
    files.sort();
    Ok(files)
}

fn output(arguments: &[&str]) -> Result<String> {
    let output = cargo().args(arguments).output().context("could not run cargo")?;
    ensure!(output.status.success(), "cargo {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
