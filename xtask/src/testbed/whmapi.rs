//! The real WHM service on a loopback port, called through curl(1).
//!
//! It runs as its unit runs it: as a user without any capability, whom the daemon must have in `token-users`
//! ([`Whmapi::TOKEN_USERS`]) and let connect. It is ready when it has been started, and says its port in its status line.

use std::fs::{self, OpenOptions, Permissions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::daemon::{UNPRIVILEGED, programs, read};
use super::manager::{Manager, PATIENCE};
use super::{public_directory, wait_until};

/// The service, running or not.
#[derive(Debug)]
pub struct Whmapi {
    home: TempDir,
    manager: Manager,
    address: SocketAddr,
    tls: bool,
    child: Option<Child>,
}

/// What a test wants of it; see [`Whmapi::builder`].
#[derive(Clone, Debug)]
pub struct WhmapiBuilder {
    socket: PathBuf,
    tls: bool,
    keys: String,
    limits: String,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The header lines.
    pub headers: Vec<String>,
    /// The body.
    pub body: String,
}

impl WhmapiBuilder {
    /// It speaks TLS, with a certificate of its own making for 127.0.0.1.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// More keys.
    #[must_use]
    pub fn keys(mut self, toml: &str) -> Self {
        self.keys += toml;
        self.keys.push('\n');
        self
    }

    /// Keys of `[limits]`.
    #[must_use]
    pub fn limits(mut self, toml: &str) -> Self {
        self.limits += toml;
        self.limits.push('\n');
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(&self) -> Result<Whmapi> {
        let mut whmapi = self.prepare()?;
        let home = whmapi.home().display().to_string();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", UNPRIVILEGED, "--regid=nogroup", "--clear-groups"])
            .args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"])
            .args([format!("{home}/outgoing-whmapi"), "--config".to_owned(), format!("{home}/whmapi.toml")]);
        whmapi.spawn(&mut command)?;
        Ok(whmapi)
    }

    /// Makes its files and starts nothing.
    pub fn prepare(&self) -> Result<Whmapi> {
        let programs = programs(&["outgoing-whmapi"])?;
        let home = public_directory()?;
        let manager = Manager::listening(home.path().join("manager"))?;
        fs::set_permissions(manager.path(), Permissions::from_mode(0o666))?;
        // The tree of the sources may be closed to other users.
        let copied = Command::new("cp").arg(programs.join("outgoing-whmapi")).arg(home.path()).status()?;
        ensure!(copied.success(), "cannot copy outgoing-whmapi");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let whmapi = Whmapi { home, manager, address, tls: self.tls, child: None };
        let Self { socket, tls, keys, limits } = self;
        let socket = socket.display();
        let mut text = format!("listen = ['{address}']\nsocket = '{socket}'\n{keys}\n[limits]\n{limits}");
        if *tls {
            whmapi.make_certificate("127.0.0.1")?;
            let home = whmapi.home().display();
            text = format!("certificate = '{home}/certificate.pem'\nprivate-key = '{home}/key.pem'\n{text}");
        }
        fs::write(whmapi.configuration(), text)?;
        Ok(whmapi)
    }
}

impl Whmapi {
    /// What the daemon's `[access]` must say.
    pub const TOKEN_USERS: &str = "[access]\ntoken-users = ['nobody']\n";

    /// The way to one for the daemon on this socket: choose, then [`WhmapiBuilder::start`].
    #[must_use]
    pub fn builder(socket: &Path) -> WhmapiBuilder {
        WhmapiBuilder { socket: socket.to_owned(), tls: false, keys: String::new(), limits: String::new() }
    }

    /// The directory of everything that belongs to it.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Its configuration file.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.home().join("whmapi.toml")
    }

    /// A copy of the program that every user may run.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.home().join("outgoing-whmapi")
    }

    /// Its certificate, if it speaks TLS.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.home().join("certificate.pem")
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn id(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("outgoing-whmapi does not run")?.id())
    }

    /// Makes a certificate for this address, and its key, in the place of those that are there.
    pub fn make_certificate(&self, address: &str) -> Result<()> {
        let made = Command::new("openssl")
            .current_dir(self.home())
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", &format!("/CN={address}"), "-addext", &format!("subjectAltName=IP:{address}")])
            .args(["-keyout", "key.pem", "-out", "certificate.pem"])
            .output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(fs::set_permissions(self.home().join("key.pem"), Permissions::from_mode(0o644))?)
    }

    /// Starts it by a command, with its log and its service manager, and waits until it is ready.
    pub fn spawn(&mut self, command: &mut Command) -> Result<()> {
        self.manager.forget()?;
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        command
            .env("NOTIFY_SOCKET", self.manager.path())
            .env_remove("JOURNAL_STREAM")
            .stdout(log.try_clone()?)
            .stderr(log);
        self.child = Some(command.spawn().context("could not start outgoing-whmapi")?);
        self.wait_for("READY=1")?;
        let status = self.notifications()?.iter().rev().find_map(|line| line.strip_prefix("STATUS="));
        let address = status.and_then(|status| status.split(" on ").nth(1));
        self.address = address.context("no address in the status line")?.parse()?;
        Ok(())
    }

    /// Runs the program to its end, which is to come by itself.
    pub fn run_to_its_end(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE.as_secs().to_string()).arg(self.program());
        Ok(command.args(arguments).env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM").output()?)
    }

    /// A connection to it, on which reading takes so long at most.
    pub fn connect(&self, patience: Duration) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(stream)
    }

    /// Calls it with curl(1): a path, and more arguments.
    pub fn curl(&self, path: &str, arguments: &[&str]) -> Result<Reply> {
        let output = self.curl_command(path, arguments).output().context("could not start curl")?;
        ensure!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), self.log());
        Reply::from_text(&String::from_utf8_lossy(&output.stdout))
    }

    /// The same, to be started by the caller.
    #[must_use]
    pub fn curl_command(&self, path: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--include", "--max-time", "30", "--globoff", "--path-as-is"]);
        if self.tls {
            command.arg("--cacert").arg(self.certificate());
        }
        let scheme = if self.tls { "https" } else { "http" };
        command.args(arguments).arg(format!("{scheme}://{}{path}", self.address));
        command
    }

    /// What it has told the service manager since it was started or reloaded, a line each.
    pub fn notifications(&mut self) -> Result<&[String]> {
        self.manager.heard()
    }

    /// Waits until it has told the service manager this, since it was started or reloaded.
    pub fn wait_for(&mut self, notification: &str) -> Result<()> {
        let log = self.log_file();
        self.manager.wait_for(notification, self.child.as_mut(), || read(&log))
    }

    /// Waits until it tells the service manager this once more.
    pub fn hear(&mut self, notification: &str) -> Result<()> {
        self.manager.forget()?;
        self.wait_for(notification)
    }

    /// Asks it to read its files again (SIGHUP) and waits until it has.
    pub fn reload(&mut self) -> Result<()> {
        self.manager.forget()?;
        self.signal(Signal::HUP)?;
        self.wait_for("RELOADING=1")?;
        self.wait_for("READY=1")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("outgoing-whmapi does not run")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_for_exit()
    }

    /// Waits for its end.
    pub fn wait_for_exit(&mut self) -> Result<ExitStatus> {
        let child = self.child.as_mut().context("outgoing-whmapi does not run")?;
        let mut status = None;
        wait_until("the end of outgoing-whmapi", PATIENCE, || {
            status = child.try_wait()?;
            Ok(status.is_some())
        })?;
        self.child = None;
        status.context("outgoing-whmapi has no exit status")
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        read(&self.log_file())
    }

    fn log_file(&self) -> PathBuf {
        self.home().join("log")
    }
}

impl Reply {
    /// Takes a reply as it comes over a connection, those before it that say to go on left out.
    pub fn from_text(text: &str) -> Result<Self> {
        let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no reply: {text:?}"))?;
        let mut lines = head.lines();
        let first = lines.next().unwrap_or_default();
        let status = first.split(' ').nth(1).with_context(|| format!("no status: {first:?}"))?.parse()?;
        if status == 100 {
            return Self::from_text(body);
        }
        Ok(Self { status, headers: lines.map(str::to_owned).collect(), body: body.to_owned() })
    }

    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            line.to_ascii_lowercase().starts_with(&format!("{name}: ")).then(|| &line[name.len() + 2..])
        })
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {self:?}"))
    }
}

impl Drop for Whmapi {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- outgoing-whmapi's log:\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
