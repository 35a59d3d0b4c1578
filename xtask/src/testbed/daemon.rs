//! The real daemon with files of its own, asked through the real command.
//!
//! [`Daemon::start_again`] and [`DaemonBuilder::start`] return when the daemon has said `READY=1` on the socket that service
//! managers listen on; whatever else it says there is kept. The programs are those that cargo has built beside the running one,
//! or those in the directory that `OUTGOINGD_BIN_DIR` names; a missing one is an error that says how to build it.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::command::{Finished, finish};
use super::manager::{Manager, PATIENCE};
use super::{public_directory, wait_until};

/// Exim's own group on Debian, to whom the socket and the fallback file belong, as installed.
const EXIM_GROUP: &str = "Debian-exim";

/// A user whom nothing belongs to.
pub const UNPRIVILEGED: &str = "nobody";

/// What tells `outgoingctl` which program Exim is.
pub const EXIM_VARIABLE: &str = "OUTGOINGCTL_EXIM";

/// An Exim that is not there.
pub const NO_EXIM: &str = "/nonexistent/exim";

/// The daemon, running or not.
#[derive(Debug)]
pub struct Daemon {
    home: TempDir,
    programs: PathBuf,
    manager: Manager,
    /// Who runs it, if it is not whoever runs the test.
    user: Option<&'static str>,
    child: Option<Child>,
}

/// What a test wants of its daemon; see [`Daemon::builder`].
#[derive(Clone, Debug, Default)]
pub struct DaemonBuilder {
    accounts: Vec<String>,
    owners: Vec<(String, String)>,
    keys: String,
    tables: String,
    for_everyone: bool,
    unprivileged: bool,
    clock: Option<u64>,
}

impl DaemonBuilder {
    /// Accounts that exist.
    #[must_use]
    pub fn accounts(mut self, names: &[&str]) -> Self {
        self.accounts.extend(names.iter().map(ToString::to_string));
        self
    }

    /// A domain, and the account that owns it.
    #[must_use]
    pub fn owner(mut self, domain: &str, account: &str) -> Self {
        self.owners.push((domain.to_owned(), account.to_owned()));
        self
    }

    /// Every local user may connect, not only Exim.
    #[must_use]
    pub fn for_everyone(mut self) -> Self {
        self.for_everyone = true;
        self
    }

    /// It runs as a user of its own ([`UNPRIVILEGED`]), without any capability, as its unit runs it; every local user may connect.
    #[must_use]
    pub fn unprivileged(mut self) -> Self {
        self.unprivileged = true;
        self.for_everyone()
    }

    /// Its clock stands still at this moment, in Unix seconds, until it is set again ([`Daemon::set_clock`]). Only the time of day:
    /// what it waits for takes as long as ever.
    #[must_use]
    pub fn clock(mut self, now: u64) -> Self {
        self.clock = Some(now);
        self
    }

    /// More keys, before all tables.
    #[must_use]
    pub fn keys(mut self, toml: &str) -> Self {
        self.keys.push_str(toml);
        self.keys.push('\n');
        self
    }

    /// More tables.
    #[must_use]
    pub fn tables(mut self, toml: &str) -> Self {
        self.tables.push_str(toml);
        self.tables.push('\n');
        self
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start(&self) -> Result<Daemon> {
        let programs = programs(&["outgoingd", "outgoingctl"])?;
        let home = public_directory()?;
        let manager = Manager::listening(home.path().join("manager"))?;
        let mut daemon = Daemon { home, programs, manager, user: None, child: None };
        self.write_files(&daemon)?;
        if self.unprivileged {
            daemon.give_to(UNPRIVILEGED)?;
        }
        if let Some(now) = self.clock {
            daemon.set_clock(now)?;
        }
        daemon.start_again()?;
        Ok(daemon)
    }

    fn write_files(&self, daemon: &Daemon) -> Result<()> {
        let Self { keys, tables, .. } = self;
        // Only who is in a group may give a file to it. Its unit has systemd do so.
        let socket_group = if self.unprivileged { "" } else { EXIM_GROUP };
        let mode = if self.for_everyone { "0666" } else { "0660" };
        let home = daemon.home().display();
        let configuration = format!(
            "socket = '{home}/socket'\n\
             socket-mode = '{mode}'\n\
             socket-group = '{socket_group}'\n\
             state-dir = '{home}/state'\n\
             fallback-file = '{home}/exim/fallback'\n\
             {keys}\
             [accounts]\nsource = 'file'\npath = '{home}/accounts'\n\n\
             [domains]\nowners = '{home}/owners'\n\n\
             {tables}"
        );
        fs::write(daemon.configuration(), configuration)?;
        fs::create_dir(daemon.home().join("state"))?;
        // As the tmpfiles line makes it: what is in it belongs to Exim's own group.
        let exim = daemon.home().join("exim");
        fs::create_dir(&exim)?;
        let group = Command::new("chgrp").arg(EXIM_GROUP).arg(&exim).status()?;
        ensure!(group.success(), "no group {EXIM_GROUP}: it comes with Exim");
        fs::set_permissions(&exim, Permissions::from_mode(0o2750))?;
        fs::write(daemon.home().join("accounts"), self.account_list())?;
        fs::write(daemon.home().join("owners"), self.owner_map())?;
        Ok(())
    }

    fn account_list(&self) -> String {
        self.accounts.join("\n") + "\n"
    }

    fn owner_map(&self) -> String {
        let mut text = String::new();
        for (domain, account) in &self.owners {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{domain}: {account}");
        }
        text
    }
}

impl Daemon {
    /// The way to one: choose, then [`DaemonBuilder::start`].
    #[must_use]
    pub fn builder() -> DaemonBuilder {
        DaemonBuilder::default()
    }

    /// The directory of everything that belongs to it.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Its configuration file.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.home().join("outgoingd.toml")
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.home().join("socket")
    }

    /// The file that Exim reads while the daemon does not answer.
    #[must_use]
    pub fn fallback(&self) -> PathBuf {
        self.home().join("exim/fallback")
    }

    /// Its process.
    pub fn id(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("outgoingd does not run")?.id())
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.id()?))?.count())
    }

    /// How many bytes of memory it has.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }

    /// The path of one of the built programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Starts it, with the files it had before, and waits until it is ready.
    pub fn start_again(&mut self) -> Result<()> {
        self.manager.forget()?;
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let child = self
            .command()
            .arg("--config")
            .arg(self.configuration())
            .env("NOTIFY_SOCKET", self.manager.path())
            .env_remove("LISTEN_FDS")
            .env_remove("JOURNAL_STREAM")
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("could not start outgoingd")?;
        self.child = Some(child);
        self.wait_for("READY=1")
    }

    /// Sets the clock that it goes by, once it was started with one of its own.
    pub fn set_clock(&self, now: u64) -> Result<()> {
        // Whole or not at all: it is read for every look at the clock.
        let next = self.home().join("clock.new");
        fs::write(&next, now.to_string())?;
        Ok(fs::rename(next, self.clock_file())?)
    }

    fn clock_file(&self) -> PathBuf {
        self.home().join("clock")
    }

    fn command(&self) -> Command {
        let Some(user) = self.user else {
            let mut command = Command::new(self.program("outgoingd"));
            if self.clock_file().exists() {
                // As faketime(1) does it, whose own variable for a fixed time would take precedence over a file.
                command
                    .env("LD_PRELOAD", format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", env::consts::ARCH))
                    .env("FAKETIME_TIMESTAMP_FILE", self.clock_file())
                    .envs([("FAKETIME_FMT", "%s"), ("FAKETIME_NO_CACHE", "1"), ("NO_FAKE_STAT", "1")])
                    .envs([("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("DONT_FAKE_MONOTONIC", "1"), ("TZ", "UTC")]);
            }
            return command;
        };
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", user, "--regid=nogroup", "--clear-groups"])
            .args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"])
            .arg(self.home().join("outgoingd"));
        command
    }

    /// Gives the directories to a user, who will run the daemon.
    fn give_to(&mut self, user: &'static str) -> Result<()> {
        for directory in ["", "state", "exim"] {
            let given = Command::new("chown").arg(user).arg(self.home().join(directory)).status()?;
            ensure!(given.success(), "cannot give a directory to {user}");
        }
        fs::set_permissions(self.manager.path(), Permissions::from_mode(0o666))?;
        // The tree of the sources may be closed to other users.
        let copied = Command::new("cp").arg(self.program("outgoingd")).arg(self.home()).status()?;
        ensure!(copied.success(), "cannot copy outgoingd");
        self.user = Some(user);
        Ok(())
    }

    /// Runs another one to its end, with the same files and more arguments.
    pub fn run_to_its_end(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.program("outgoingd"));
        command.arg("--config").arg(self.configuration()).args(arguments).env_remove("NOTIFY_SOCKET");
        Ok(command.output()?)
    }

    /// Kills it without a chance to say goodbye.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("outgoingd does not run")?;
        child.kill()?;
        Ok(child.wait()?)
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_for_exit()
    }

    /// Stops and starts it.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Asks it to read its files again (SIGHUP) and waits until it has.
    pub fn reload(&mut self) -> Result<()> {
        self.manager.forget()?;
        self.signal(Signal::HUP)?;
        self.wait_for("RELOADING=1")?;
        self.wait_for("READY=1")
    }

    /// Waits for the end of a daemon that ends by itself.
    pub fn wait_for_exit(&mut self) -> Result<ExitStatus> {
        let child = self.child.as_mut().context("outgoingd does not run")?;
        let mut status = None;
        wait_until("the end of outgoingd", PATIENCE, || {
            status = child.try_wait()?;
            Ok(status.is_some())
        })?;
        self.child = None;
        status.context("outgoingd has no exit status")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("outgoingd does not run")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Lets it stand still (SIGSTOP), and returns when every thread of it does.
    pub fn stand_still(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let tasks = format!("/proc/{}/task", self.id()?);
        wait_until("every thread of the daemon to stand still", PATIENCE, || {
            fs::read_dir(&tasks)?.try_fold(true, |all, task| {
                let status = fs::read_to_string(task?.path().join("status"))?;
                Ok(all && status.contains("\nState:\tT"))
            })
        })
    }

    /// Connections that say nothing, as many as wait for it, while it stands still, before nobody else can.
    pub fn fill_the_queue(&self) -> Result<Vec<OwnedFd>> {
        let (address, mut silent) = (SocketAddrUnix::new(self.socket())?, Vec::new());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            let connection = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            match rustix::net::connect(&connection, &address) {
                Ok(()) => silent.push(connection),
                Err(Errno::AGAIN) => return Ok(silent),
                Err(error) => return Err(error).context("the queue of the socket could not be filled"),
            }
        }
    }

    /// `outgoingctl` on its socket, still without arguments.
    ///
    /// It finds no Exim, for the one that it would find is the machine's own. Beside an Exim of the test bed, it is started by
    /// [`Bed::ctl_command`](super::Bed::ctl_command).
    #[must_use]
    pub fn ctl_command(&self) -> Command {
        let mut command = Command::new(self.program("outgoingctl"));
        command.arg("--socket").arg(self.socket()).env(EXIM_VARIABLE, NO_EXIM);
        command
    }

    /// Runs `outgoingctl` on its socket, without any Exim.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Finished> {
        self.ctl_with_input(arguments, "")
    }

    /// The same with something to read.
    pub fn ctl_with_input(&self, arguments: &[&str], input: &str) -> Result<Finished> {
        finish(self.ctl_command().args(arguments), input)
    }

    /// Runs `outgoingctl`, which must succeed, and returns what it printed.
    pub fn must(&self, arguments: &[&str]) -> Result<String> {
        let finished = self.ctl(arguments)?;
        if !finished.status.success() {
            bail!("outgoingctl {arguments:?}: {finished:?}\n{}", self.log());
        }
        Ok(finished.stdout)
    }

    /// What it has told the service manager since it was started, a line each.
    pub fn notifications(&mut self) -> Result<&[String]> {
        self.manager.heard()
    }

    /// From now on listens to what it tells the service manager, and forgets it. A daemon whose manager does not listen waits for that.
    pub fn go_on_listening(&self) -> Result<()> {
        self.manager.go_on_listening()
    }

    /// Waits until it has told the service manager this, since it was started or reloaded.
    pub fn wait_for(&mut self, notification: &str) -> Result<()> {
        let log = self.log_file();
        self.manager.wait_for(notification, self.child.as_mut(), || read(&log))
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        read(&self.log_file())
    }

    /// The file of what it has printed.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.home().join("log")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- outgoingd's log:\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What is in a log.
pub(super) fn read(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_else(|error| format!("no log: {error}"))
}

/// The directory of the built programs, in which these are.
pub(super) fn programs(names: &[&str]) -> Result<PathBuf> {
    let directory = match env::var_os("OUTGOINGD_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => beside_this_program()?,
    };
    for name in names {
        if !directory.join(name).is_file() {
            bail!("{} is not built: run `cargo build --workspace --bins`", directory.join(name).display());
        }
    }
    Ok(directory)
}

/// Cargo puts programs in `target/PROFILE` and the executables of tests in `deps` below it.
fn beside_this_program() -> Result<PathBuf> {
    let program = env::current_exe().context("where is this program?")?;
    let directory = program.parent().context("a program without a directory")?;
    let directory = match directory.parent() {
        Some(above) if directory.ends_with("deps") => above,
        _ => directory,
    };
    Ok(directory.to_owned())
}
