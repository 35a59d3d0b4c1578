//! Everything together, as on a server: the daemon, an Exim with the snippets, and an outside world.
//!
//! The accounts are alice, bob and carol; alice owns the domain `shop.test`, carol owns `evil.test` and `bücher.test`. Nobody is
//! held.
//!
//! `outgoingctl` can be run in two places: beside this Exim ([`Bed::ctl`]), which is then the one whose queue it reads, and
//! where there is no Exim ([`Daemon::ctl`]).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};

use super::command::Finished;
use super::daemon::{Daemon, DaemonBuilder, EXIM_VARIABLE};
use super::exim::{EXIM, Exim, EximBuilder, Policy};
use super::outside::Outside;
use super::running::Running;

/// All of it; stopped in the order of the fields.
#[derive(Debug)]
pub struct Bed {
    /// The Exim in the middle.
    pub exim: Exim,
    /// Where mail for other domains goes.
    pub outside: Outside,
    /// What Exim asks.
    pub daemon: Daemon,
}

impl Bed {
    /// Starts all three.
    pub fn start() -> Result<Self> {
        Self::varied(|exim| exim)
    }

    /// The same with another configuration of Exim.
    pub fn varied(vary: impl FnOnce(EximBuilder) -> EximBuilder) -> Result<Self> {
        Self::configured(|daemon| daemon, vary)
    }

    /// The same with another configuration of the daemon, too.
    pub fn configured(
        configure: impl FnOnce(DaemonBuilder) -> DaemonBuilder,
        vary: impl FnOnce(EximBuilder) -> EximBuilder,
    ) -> Result<Self> {
        let daemon = Daemon::builder()
            .accounts(&["alice", "bob", "carol"])
            .owner("shop.test", "alice")
            .owner("evil.test", "carol")
            .owner("bücher.test", "carol");
        let daemon = configure(daemon).start()?;
        let outside = Outside::start()?;
        let policy = Policy::new(&daemon.socket(), &daemon.fallback());
        let exim = vary(Exim::builder().outside(&outside).policy(policy)).start()?;
        Ok(Self { exim, outside, daemon })
    }

    /// Holds a subject's outgoing mail.
    pub fn hold(&self, subject: &str) -> Result<()> {
        self.daemon.must(&["hold", subject]).map(drop)
    }

    /// Releases a subject and leaves its mail to the next queue run.
    pub fn release(&self, subject: &str) -> Result<()> {
        self.daemon.must(&["release", subject, "--keep"]).map(drop)
    }

    /// Suspends a subject's outgoing mail; `notice` is what its senders are told.
    pub fn suspend(&self, subject: &str, notice: &str) -> Result<()> {
        self.daemon.must(&["suspend", subject, "--notice", notice]).map(drop)
    }

    /// Ends a suspension.
    pub fn unsuspend(&self, subject: &str) -> Result<()> {
        self.daemon.must(&["unsuspend", subject]).map(drop)
    }

    /// The recipients, outside, to whom a message on the queue has not been delivered; none if it is not on the queue.
    pub fn waiting(&self, id: &str) -> Result<Vec<String>> {
        Ok(self.exim.queued(id)?.map(|message| message.remaining).unwrap_or_default())
    }

    /// `outgoingctl` beside this Exim, to be started by the caller.
    #[must_use]
    pub fn ctl_command(&self, arguments: &[&str]) -> Command {
        let words = self.ctl_words(&self.daemon.program("outgoingctl"), arguments);
        self.exim.command_beside(&borrowed(&words))
    }

    /// Any program for which this Exim is the system's, to be started by the caller.
    #[must_use]
    pub fn command_beside(&self, words: &[&str]) -> Command {
        self.exim.command_beside(words)
    }

    /// Runs `outgoingctl` beside this Exim.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Finished> {
        self.ctl_with_input(arguments, "")
    }

    /// The same with something to read.
    pub fn ctl_with_input(&self, arguments: &[&str], input: &str) -> Result<Finished> {
        let words = self.ctl_words(&self.daemon.program("outgoingctl"), arguments);
        self.exim.run_beside(&borrowed(&words), input)
    }

    /// Runs `outgoingctl` beside this Exim, which must succeed, and returns what it printed.
    pub fn must(&self, arguments: &[&str]) -> Result<String> {
        let finished = self.ctl(arguments)?;
        if !finished.status.success() {
            bail!("outgoingctl {arguments:?}: {finished:?}\n{}", self.daemon.log());
        }
        Ok(finished.stdout)
    }

    /// Runs `outgoingctl` beside this Exim as a Unix user other than root.
    pub fn ctl_by(&self, user: &str, arguments: &[&str]) -> Result<Finished> {
        self.ctl_behind(&["runuser", "-u", user, "--"], arguments)
    }

    /// The same as a user who is a member of this group besides, though the system's files do not say so.
    pub fn ctl_by_member(&self, user: &str, group: &str, arguments: &[&str]) -> Result<Finished> {
        self.ctl_behind(&["setpriv", "--reuid", user, "--regid", user, "--groups", group, "--"], arguments)
    }

    /// The same as this user with this group instead of the user's own, and with no way to more rights than those two have.
    pub fn ctl_by_mere(&self, user: &str, group: &str, arguments: &[&str]) -> Result<Finished> {
        let ids = ["--reuid", user, "--regid", group, "--clear-groups"];
        let wrapper = [&["setpriv"][..], &ids, &["--no-new-privs", "--bounding-set", "-all", "--"]].concat();
        self.ctl_behind(&wrapper, arguments)
    }

    fn ctl_behind(&self, wrapper: &[&str], arguments: &[&str]) -> Result<Finished> {
        let words = self.ctl_words(&self.public_ctl()?, arguments);
        self.exim.run_beside(&[wrapper, &borrowed(&words)].concat(), "")
    }

    /// Runs `outgoingctl` beside this Exim on a terminal of 100 columns, on which this is typed, and then Ctrl-D.
    ///
    /// What the terminal shows is the standard output, lines ended by `\r\n`: both outputs, and what is typed.
    pub fn ctl_on_terminal(&self, arguments: &[&str], typed: &str) -> Result<Finished> {
        let words = self.ctl_words(&self.daemon.program("outgoingctl"), arguments);
        self.on_terminal(&borrowed(&words), typed)
    }

    /// Runs any program beside this Exim on such a terminal.
    pub fn on_terminal(&self, words: &[&str], typed: &str) -> Result<Finished> {
        let quoted: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
        let line = format!("stty rows 24 cols 100 && exec {}", quoted.join(" "));
        self.exim.run_beside(&["env", "SHELL=/bin/sh", "script", "-qec", &line, "/dev/null"], typed)
    }

    /// Starts `outgoingctl` beside this Exim, and returns when it runs.
    pub fn spawn_ctl(&self, arguments: &[&str]) -> Result<Running> {
        Running::start(&mut self.ctl_command(arguments), &self.daemon.program("outgoingctl"))
    }

    fn ctl_words(&self, program: &Path, arguments: &[&str]) -> Vec<String> {
        let socket = self.daemon.socket();
        let program = [program, Path::new("--socket"), &socket].map(|word| word.display().to_string());
        let mut words = vec!["env".to_owned(), format!("{EXIM_VARIABLE}={EXIM}")];
        words.extend(program);
        words.extend(arguments.iter().map(ToString::to_string));
        words
    }

    /// A copy that every user may run: the tree of the sources may be closed to them.
    fn public_ctl(&self) -> Result<PathBuf> {
        let copy = self.exim.home().join("outgoingctl");
        // By a process of its own: a descriptor for writing that another test's child inherits would make the program busy. A copy
        // that runs stays as it is, under no name.
        let program = self.daemon.program("outgoingctl");
        let copied = Command::new("cp").arg("--remove-destination").arg(&program).arg(&copy).status()?;
        ensure!(copied.success(), "cannot copy {}", program.display());
        Ok(copy)
    }
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}
