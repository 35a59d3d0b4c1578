//! What the packages install, and where: the one list for both.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::licences;
use crate::cargo::WORKSPACE;
use crate::manual;

/// Programs, and the directories for them.
const PROGRAMS: [(&str, &str); 4] = [
    ("outgoingctl", "usr/bin"),
    ("outgoingd", "usr/sbin"),
    ("outgoing-whmapi", "usr/sbin"),
    ("outgoing-queue", "usr/sbin"),
];

/// Files and directories of the workspace, and what they are called where they are installed.
const FILES: [(&str, &str); 14] = [
    ("systemd/outgoingd.toml", "etc/outgoingd/outgoingd.toml"),
    ("systemd/whmapi.toml", "etc/outgoingd/whmapi.toml"),
    ("systemd/outgoingd.sysusers", "usr/lib/sysusers.d/outgoingd.conf"),
    ("systemd/outgoingd.tmpfiles", "usr/lib/tmpfiles.d/outgoingd.conf"),
    ("packaging/exim-group", "usr/lib/outgoingd/exim-group"),
    ("exim-snippets", "usr/share/outgoingd/exim-snippets"),
    ("README.md", "usr/share/doc/outgoingd/README.md"),
    // Without what the manual pages are made of.
    ("docs/demo.svg", "usr/share/doc/outgoingd/docs/demo.svg"),
    ("docs/comparison.md", "usr/share/doc/outgoingd/docs/comparison.md"),
    ("docs/performance.md", "usr/share/doc/outgoingd/docs/performance.md"),
    ("docs/threat-model.md", "usr/share/doc/outgoingd/docs/threat-model.md"),
    ("docs/whm.md", "usr/share/doc/outgoingd/docs/whm.md"),
    ("LICENSE-MIT", "usr/share/doc/outgoingd/LICENSE-MIT"),
    ("LICENSE-APACHE", "usr/share/doc/outgoingd/LICENSE-APACHE"),
];

/// What stands elsewhere on the two families of systems.
struct Family {
    name: &'static str,
    zsh: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family { name: "deb", zsh: "usr/share/zsh/vendor-completions/_outgoingctl" },
    Family { name: "rpm", zsh: "usr/share/zsh/site-functions/_outgoingctl" },
];

/// Puts everything into a directory for each family in `directory`, made anew. `programs` is where the programs are.
pub(super) fn put_together(programs: &Path, directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    let made = directory.join("made");
    manual::write(&made)?;
    let licences = licences::of_dependencies()?;
    for family in FAMILIES {
        let root = directory.join(family.name);
        for (program, place) in PROGRAMS {
            copy(&programs.join(program), &root.join(place).join(program))?;
        }
        for (source, place) in FILES {
            copy(&Path::new(WORKSPACE).join(source), &root.join(place))?;
        }
        for unit in units()? {
            let name = unit.file_name().context("a unit has a name")?;
            copy(&unit, &root.join("usr/lib/systemd/system").join(name))?;
        }
        for page in files(&made.join("man"))? {
            let section = page.extension().context("a manual page has a section")?.to_string_lossy().into_owned();
            let name = page.file_name().context("a manual page has a name")?.to_string_lossy().into_owned();
            let place = root.join(format!("usr/share/man/man{section}/{name}.gz"));
            write(&place, &compressed(&fs::read(page)?)?)?;
        }
        let shells = [
            ("outgoingctl.bash", "usr/share/bash-completion/completions/outgoingctl"),
            ("_outgoingctl", family.zsh),
            ("outgoingctl.fish", "usr/share/fish/vendor_completions.d/outgoingctl.fish"),
        ];
        for (source, place) in shells {
            copy(&made.join("completions").join(source), &root.join(place))?;
        }
        let doc = root.join("usr/share/doc/outgoingd");
        write(&doc.join("changelog.gz"), &compressed(&fs::read(Path::new(WORKSPACE).join("CHANGELOG.md"))?)?)?;
        write(&doc.join("THIRD-PARTY.gz"), &compressed(licences.as_bytes())?)?;
    }
    Ok(())
}

fn units() -> Result<Vec<PathBuf>> {
    let mut units = files(&Path::new(WORKSPACE).join("systemd"))?;
    units.retain(|path| {
        path.extension().is_some_and(|kind| ["service", "socket", "timer"].iter().any(|unit| kind == *unit))
    });
    Ok(units)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Copies a file with its mode, or a directory with all that is in it.
fn copy(source: &Path, place: &Path) -> Result<()> {
    if source.is_dir() {
        return files(source)?.iter().try_for_each(|path| {
            copy(path, &place.join(path.file_name().context("an entry of a directory has a name")?))
        });
    }
    fs::create_dir_all(place.parent().context("a file is in a directory")?)?;
    fs::copy(source, place).with_context(|| format!("cannot copy {}", source.display()))?;
    Ok(())
}

fn write(place: &Path, content: &[u8]) -> Result<()> {
    fs::create_dir_all(place.parent().context("a file is in a directory")?)?;
    fs::write(place, content).with_context(|| format!("cannot write {}", place.display()))
}

/// The same bytes for the same content, whenever it is made.
fn compressed(content: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = Command::new("gzip").args(["-9", "-n"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = gzip.stdin.take().context("gzip has a standard input")?;
    let content = content.to_vec();
    let writing = std::thread::spawn(move || stdin.write_all(&content));
    let output = gzip.wait_with_output()?;
    writing.join().ok().context("the writer to gzip panicked")??;
    ensure!(output.status.success(), "gzip: {}", output.status);
    Ok(output.stdout)
}
