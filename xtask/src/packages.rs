//! Fetches the Debian packages that the tests and the demonstration need.
//!
//! Does nothing where they are present. Where one is missing it is installed by apt, which takes root; without root, and on
//! systems without apt, the error names the packages. No service is started by an installation: a temporary
//! `/usr/sbin/policy-rc.d` forbids it, unless the system has one, whose word then counts.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Each package, and a file by which its presence is known.
const NEEDED: [(&str, &str); 20] = [
    ("exim4-daemon-heavy", "/usr/sbin/exim4"),
    ("exim4-base", "/usr/sbin/exim_dumpdb"),
    ("systemd", "/usr/bin/systemd-socket-activate"),
    ("mount", "/usr/bin/mount"),
    ("e2fsprogs", "/usr/sbin/mkfs.ext4"),
    ("strace", "/usr/bin/strace"),
    // A mail program that speaks TLS.
    ("python3", "/usr/bin/python3"),
    // A terminal for a program.
    ("bsdutils", "/usr/bin/script"),
    // A clock for the daemon that a test sets.
    ("faketime", "/usr/bin/faketime"),
    // A client of the WHM service, and its certificate.
    ("curl", "/usr/bin/curl"),
    ("openssl", "/usr/bin/openssl"),
    // Who reads what it answers: JSON, XML, YAML.
    ("jq", "/usr/bin/jq"),
    ("libxml2-utils", "/usr/bin/xmllint"),
    ("python3-yaml", "/usr/lib/python3/dist-packages/yaml/__init__.py"),
    // Reads what is told to Prometheus.
    ("python3-prometheus-client", "/usr/lib/python3/dist-packages/prometheus_client/__init__.py"),
    // Fetches clients of WHM from PyPI.
    ("python3-pip", "/usr/bin/pip3"),
    // Two readers of manual pages, and two of the shells that complete.
    ("man-db", "/usr/bin/man"),
    ("mandoc", "/usr/bin/mandoc"),
    ("zsh", "/usr/bin/zsh"),
    ("fish", "/usr/bin/fish"),
];

/// What the benchmark compares with, besides.
const NEEDED_TO_COMPARE: [(&str, &str); 2] = [("tinycdb", "/usr/bin/cdb"), ("sqlite3", "/usr/bin/sqlite3")];

/// What the packages are built with.
const NEEDED_TO_PACK: [(&str, &str); 2] = [("dpkg-dev", "/usr/bin/dpkg-shlibdeps"), ("gzip", "/usr/bin/gzip")];

/// What makes the systems on which they are tried.
const NEEDED_TO_BOOT: [(&str, &str); 1] = [("mmdebstrap", "/usr/bin/mmdebstrap")];

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Forbids every start of a service.
const NO_SERVICES: &str = "#!/bin/sh\nexit 101\n";

/// Installs what the tests and the demonstration need and the system lacks.
pub fn install_missing() -> Result<()> {
    install(&NEEDED)
}

/// The same for the benchmark.
pub fn install_missing_to_compare() -> Result<()> {
    install(&NEEDED)?;
    install(&NEEDED_TO_COMPARE)
}

/// What `dist` needs.
pub fn install_missing_to_pack() -> Result<()> {
    install(&NEEDED_TO_PACK)
}

/// What guests need.
pub fn install_missing_to_boot() -> Result<()> {
    install(&NEEDED_TO_BOOT)
}

/// Whether we could.
pub(crate) fn may_install() -> bool {
    Path::new("/usr/bin/apt-get").exists() && rustix::process::geteuid().is_root()
}

/// Fetches a package and unpacks its files into `directory`, without installing it.
pub fn unpack(package: &str, directory: &Path) -> Result<()> {
    let run = |command: &mut Command| -> Result<()> {
        let status = command.current_dir(directory).status()?;
        ensure!(status.success(), "{}: {status}", command.get_program().display());
        Ok(())
    };
    // As root, who may write here; apt's own user may not.
    let download = || run(Command::new("apt-get").args(["-qq", "-o", "APT::Sandbox::User=root", "download", package]));
    download().or_else(|_| apt(&["update"]).and_then(|()| download()))?;
    let archive = fs::read_dir(directory)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let archive = archive.with_context(|| format!("apt-get has not brought {package}"))?;
    run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(directory))
}

fn install(needed: &[(&'static str, &str)]) -> Result<()> {
    let missing = missing(needed);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "missing: {names}; this is not a Debian system, install them by its own means"
    );
    ensure!(
        rustix::process::geteuid().is_root(),
        "missing: {names}; run this as root, or first: apt-get install --no-install-recommends {names}"
    );
    let _forbidden = ForbidServices::new()?;
    apt(&["update"])?;
    apt(&[&["install", "--yes", "--no-install-recommends"], &missing[..]].concat())?;
    let still = self::missing(needed);
    ensure!(still.is_empty(), "apt-get was content, but these have not brought their programs: {}", still.join(" "));
    Ok(())
}

fn missing(needed: &[(&'static str, &str)]) -> Vec<&'static str> {
    needed.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect()
}

fn apt(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("could not run apt-get")?;
    if !status.success() {
        bail!("apt-get {}: {status}", arguments.join(" "));
    }
    Ok(())
}

/// Stands for the policy file that we have written, and removes it.
struct ForbidServices {
    ours: bool,
}

impl ForbidServices {
    fn new() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(POLICY)
            .with_context(|| format!("could not write {POLICY}"))?;
        let written = Self { ours: true };
        file.write_all(NO_SERVICES.as_bytes())?;
        Ok(written)
    }
}

impl Drop for ForbidServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("remove {POLICY} by hand: {error}");
        }
    }
}
