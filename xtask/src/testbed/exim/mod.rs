//! A private Exim: the system's program with a configuration, spool, log and mailboxes of its own.
//!
//! It listens on a free loopback port. Messages that it takes wait for a queue run or a forced delivery, so that tests decide
//! when something is delivered; every method returns when the Exim that it started, and all deliveries that this one started,
//! have ended. The server and whatever it started are killed when the value is dropped. If a test panics, the log is shown.
//!
//! The system's own configuration stays as it is: each Exim sees a directory of the bed in place of `/etc/exim4`, in a mount
//! namespace of its own, and so does whatever it starts. Hence root is needed, and the paths of Debian are assumed. (An Exim that
//! is given a configuration on its command line would be another program: it gives up root in the processes that it starts.)

mod configuration;
mod expansion;
mod queue;
mod queued;
mod spool;
mod submission;
mod traces;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;

use super::command::Finished;
use super::letter::Letter;
use super::namespace::Namespace;
use super::public_directory;
use super::smtp::Session;

pub use self::configuration::{EximBuilder, Policy, RETRY_AS_ON_DEBIAN, RETRY_FOR_SECONDS, RETRY_NEVER};
pub use self::expansion::Expansion;
pub use self::queue::QueuedMessage;
pub use self::queued::Queued;
pub use self::submission::{Delivery, Submission};

/// The program.
pub const EXIM: &str = "/usr/sbin/exim4";

/// The user that Debian's Exim runs as.
pub const EXIM_USER: &str = "Debian-exim";

/// Which Exim this system has, such as `(4, 96)`.
pub fn version() -> Result<(u32, u32)> {
    // Whatever it thinks of the system's configuration.
    let said = Command::new(EXIM).arg("-bV").output()?.stdout;
    let said = String::from_utf8_lossy(&said);
    let number = said.lines().find_map(|line| line.strip_prefix("Exim version ")?.split(' ').next());
    let mut parts = number.unwrap_or_default().split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("{EXIM} does not say its version: {said}"),
    }
}

/// The running server and its files.
#[derive(Debug)]
pub struct Exim {
    address: SocketAddr,
    server: Child,
    namespace: Namespace,
    home: TempDir,
}

impl Exim {
    /// The way to one: choose, then [`EximBuilder::start`].
    #[must_use]
    pub fn builder() -> EximBuilder {
        EximBuilder::default()
    }

    fn start(wanted: &EximBuilder) -> Result<Self> {
        check_host()?;
        let home = public_directory()?;
        lay_out(home.path(), &wanted.text(home.path()))?;
        let namespace = Namespace::showing(vec![(home.path().join("etc"), "/etc/exim4")]);
        check_configuration(&namespace)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let address = listener.local_addr()?;
        // Exim takes over the listening socket, so the port is never free for anyone else and connections never fail.
        let server = namespace
            .command(&[EXIM, "-bw"])
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(File::create(home.path().join("stderr"))?)
            .spawn()
            .context("could not start Exim")?;
        Ok(Self { address, server, namespace, home })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory of everything that belongs to it.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The process of the server, in whose mount namespace its configuration is seen.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    /// The spool directory.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.home().join("spool")
    }

    /// Opens an SMTP session, not authenticated yet.
    pub fn smtp(&self) -> Result<Session> {
        Session::open(self.address)
    }

    /// Sends a letter over SMTP, authenticated as `identity`, and returns the message's name.
    pub fn send_as(&self, identity: &str, letter: &Letter) -> Result<String> {
        let mut session = self.smtp()?;
        let reply = session.login(identity)?;
        ensure!(reply.is_positive(), "the login was answered by {reply:?}");
        let id = session.send(letter)?.queue_id()?;
        session.quit()?;
        Ok(id)
    }

    /// Runs the queue to its end. `kind` is Exim's option: `-q`, `-qf`, `-qff`.
    pub fn run_queue(&self, kind: &str) -> Result<()> {
        self.succeed(&[kind])
    }

    /// Delivers one message now, whatever retry times and holds say (`-M`).
    pub fn force(&self, id: &str) -> Result<()> {
        self.succeed(&["-M", id])
    }

    /// Delivers one message as a queue run would (`-Mc`).
    pub fn deliver(&self, id: &str) -> Result<()> {
        self.succeed(&["-Mc", id])
    }

    /// Has something done while one message is being delivered ([`Exim::deliver`]), and waits for the end of both. What is done must
    /// let the delivery go on.
    pub fn deliver_beside<Outcome>(&self, id: &str, act: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
        thread::scope(|scope| {
            let delivery = scope.spawn(|| self.deliver(id));
            let outcome = act();
            delivery.join().map_err(|_| anyhow!("the delivery has panicked"))??;
            outcome
        })
    }

    /// Freezes a message (`-Mf`).
    pub fn freeze(&self, id: &str) -> Result<()> {
        self.succeed(&["-Mf", id])
    }

    /// Runs Exim with these arguments and waits for it and all that it started.
    pub fn exim(&self, arguments: &[&str]) -> Result<Finished> {
        self.run(&[], arguments, "")
    }

    /// The same as a Unix user other than root.
    pub fn exim_by(&self, user: &str, arguments: &[&str]) -> Result<Finished> {
        self.run(&["runuser", "-u", user, "--"], arguments, "")
    }

    /// The same with something to read, such as an SMTP dialogue (`-bs`).
    pub fn talk_by(&self, user: &str, arguments: &[&str], input: &str) -> Result<Finished> {
        self.run(&["runuser", "-u", user, "--"], arguments, input)
    }

    /// The same dialogue behind STARTTLS; returns what Exim said. Python speaks TLS.
    pub fn talk_by_tls(&self, user: &str, arguments: &[&str], lines: &[&str]) -> Result<Finished> {
        let wrapper = ["runuser", "-u", user, "--", "python3", "-c", include_str!("starttls.py")];
        self.run(&wrapper, arguments, &lines.join("\n"))
    }

    /// Exim with these arguments, to be started by the caller.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_beside(&[&[EXIM], arguments].concat())
    }

    /// Any program, for which this Exim is the system's.
    pub(super) fn command_beside(&self, words: &[&str]) -> Command {
        self.namespace.command(words)
    }

    /// Runs any program, for which this Exim is the system's, and waits for it and all that it has started.
    pub(super) fn run_beside(&self, words: &[&str], input: &str) -> Result<Finished> {
        self.namespace.run(words, input)
    }

    fn succeed(&self, arguments: &[&str]) -> Result<()> {
        let finished = self.exim(arguments)?;
        ensure!(finished.status.success(), "exim {arguments:?}: {finished:?}");
        Ok(())
    }

    fn run(&self, wrapper: &[&str], arguments: &[&str], input: &str) -> Result<Finished> {
        self.run_beside(&[wrapper, &[EXIM], arguments].concat(), input)
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- Exim's log:\n{}", self.main_log().unwrap_or_default());
            eprintln!("--- Exim's panic log:\n{}", self.panic_log().unwrap_or_default());
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

pub(super) fn check_host() -> Result<()> {
    if !Path::new(EXIM).exists() {
        bail!("{EXIM} is missing: `cargo xtask test` installs it, or: apt-get install exim4-daemon-heavy");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("a private Exim can only be started by root, because it changes users itself");
    }
    Ok(())
}

fn lay_out(home: &Path, text: &str) -> Result<()> {
    fs::create_dir(home.join("etc"))?;
    fs::write(home.join("etc/exim4.conf"), text)?;
    for name in ["spool", "log", "mail"] {
        fs::create_dir(home.join(name))?;
    }
    give_to_exim(home, &["spool", "log", "mail"])
}

/// Lets Exim's user own these directories.
pub(super) fn give_to_exim(home: &Path, directories: &[&str]) -> Result<()> {
    let status =
        Command::new("chown").arg(format!("{EXIM_USER}:{EXIM_USER}")).args(directories).current_dir(home).status()?;
    ensure!(status.success(), "could not give Exim its directories");
    Ok(())
}

fn check_configuration(namespace: &Namespace) -> Result<()> {
    let finished = namespace.run(&[EXIM, "-bV"], "")?;
    let Finished { stdout, stderr, .. } = &finished;
    ensure!(finished.status.success(), "Exim refuses its configuration: {stdout}{stderr}");
    Ok(())
}
