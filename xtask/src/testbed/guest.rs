//! A Debian system with a systemd of its own, for what only a real one shows: packages, units, restarts.
//!
//! It is a handful of namespaces on this kernel (`guest.sh`), with a network that is loopback alone, and a file system that is a
//! copy-on-write view of a minimal Debian, made once from Debian's packages and kept in the target directory. Nothing that happens
//! in it is seen outside or stays. It ends when the value is dropped, and with this process whatever ends that. Needs root.
//!
//! Not as on a machine: control groups have no controllers, so that bounds on memory and tasks are not in force, and devices and
//! `/sys` are not there to be protected.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use outgoingd_client::Client;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use super::command::{Finished, finish};
use super::{Outside, public_directory, wait_until};
use crate::cargo::target_directory;

/// What boots it.
const BOOT: &str = include_str!("guest.sh");

/// The releases of Debian that there are guests of: the one that the packages are built on, and the next one, with a later Exim and
/// a later systemd.
pub const RELEASES: [&str; 2] = ["bookworm", "trixie"];

/// The environment variable that says of which of them a guest is; without it, of the first.
pub const RELEASE: &str = "OUTGOINGD_GUEST";

/// What is in the tree besides what every Debian has.
const PACKAGES: &str = "systemd-sysv,dbus,libnss-systemd,procps,exim4-daemon-light,rpm";

/// No command in a guest takes this many seconds; one that does is killed.
const LONGEST_COMMAND: &str = "120";

/// How long something in a guest may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// The system.
#[derive(Debug)]
pub struct Guest {
    boot: Child,
    /// Its process 1, as it is called outside.
    manager: u32,
    _directory: TempDir,
}

impl Guest {
    /// Boots one.
    pub fn boot() -> Result<Self> {
        let release = env::var(RELEASE);
        let tree = tree(release.as_deref().unwrap_or(RELEASES[0]))?;
        let directory = public_directory()?;
        let console = directory.path().join("console");
        let mut boot = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--", "bash", "-c", BOOT, "guest.sh"])
            .args([&tree, directory.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&console)?)
            .spawn()?;
        let stdout = boot.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let Ok(manager) = line.trim().parse() else {
            boot.wait()?;
            bail!("no guest: {}", fs::read_to_string(console)?);
        };
        Ok(Self { boot, manager, _directory: directory })
    }

    /// Its file of that name, as it is reached from outside.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.manager))
    }

    /// Puts a file of ours into it.
    pub fn put(&self, file: &Path, path: &str) -> Result<()> {
        fs::copy(file, self.path(path)).with_context(|| format!("cannot put {} into the guest", file.display()))?;
        Ok(())
    }

    /// Writes a file in it.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let file = self.path(path);
        fs::create_dir_all(file.parent().context("a file is in a directory")?)?;
        Ok(fs::write(file, text)?)
    }

    /// Runs a command of its shell, and waits for it and all that it has started.
    pub fn run(&self, command: &str) -> Result<Finished> {
        self.run_with_input(command, "")
    }

    /// The same, with something to read for the command.
    pub fn run_with_input(&self, command: &str, input: &str) -> Result<Finished> {
        let target = self.manager.to_string();
        let mut enter = Command::new("timeout");
        enter.args([LONGEST_COMMAND, "nsenter", "--target", &target]);
        enter.args(["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--net", "--root", "--"]);
        enter.args([
            "env",
            "-i",
            "-C",
            "/",
            "HOME=/root",
            "TERM=dumb",
            "LANG=C.UTF-8",
            "DEBIAN_FRONTEND=noninteractive",
        ]);
        enter.args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-c", command]);
        finish(&mut enter, input)
    }

    /// Runs a command of its shell that must succeed, and returns what it has printed.
    pub fn must(&self, command: &str) -> Result<String> {
        let finished = self.run(command)?;
        ensure!(finished.code() == 0, "{command}: {finished:#?}");
        Ok(finished.stdout)
    }

    /// Waits until a command of its shell succeeds.
    pub fn wait_for(&self, what: &str, command: &str) -> Result<()> {
        wait_until(what, PATIENCE, || Ok(self.run(command)?.code() == 0))
    }

    /// A client of the daemon that listens in it.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.path("/run/outgoingd/outgoingd.sock"))
    }

    /// A mail server of the outside world that its Exim reaches on loopback. Stays until this process ends.
    pub fn outside(&self) -> Result<&'static Outside> {
        let network = File::open(format!("/proc/{}/ns/net", self.manager))?;
        // A socket is in the network of the thread that makes it.
        let start = thread::spawn(move || {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&network), Some(LinkNameSpaceType::Network))?;
            Outside::start()
        });
        let outside = start.join().map_err(|_| anyhow!("the thread panicked"))??;
        Ok(Box::leak(Box::new(outside)))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.boot.stdin.take());
        if let Err(error) = self.boot.wait() {
            eprintln!("a guest has not ended: {error}");
        }
    }
}

/// The minimal Debian that guests of a release begin with, made where it is missing. Takes half a minute, once.
pub fn tree(release: &str) -> Result<PathBuf> {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let tree = target_directory()?.join("guest").join(release);
    let made = tree.join("made");
    if fs::read_to_string(&made).is_ok_and(|text| text == PACKAGES) {
        return Ok(tree.join("tree"));
    }
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    fs::create_dir_all(&tree)?;
    let status = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", &format!("--include={PACKAGES}"), release])
        .arg(tree.join("tree"))
        .status()
        .context("could not run mmdebstrap")?;
    ensure!(status.success(), "mmdebstrap: {status}");
    fs::write(made, PACKAGES)?;
    Ok(tree.join("tree"))
}
