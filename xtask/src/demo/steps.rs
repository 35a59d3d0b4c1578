//! The steps of the story. Each one checks what it shows.

use std::fs;

use anyhow::{Result, ensure};

use super::story::Story;
use crate::interrupt::Interrupt;
use crate::testbed::smtp::{Reply, Session};
use crate::testbed::{Bed, Delivery, Finished, Letter};

const NOTICE: &str = "Your mail is suspended, call extension 42.";
const FRIEND: &str = "friend@outside.test";

/// The bed on which the story plays, and what is printed about it.
pub(super) struct Scene {
    pub(super) story: Story,
    bed: Bed,
}

type Step = (&'static str, fn(&mut Scene) -> Result<()>);

const STEPS: [Step; 5] = [
    ("1. alice writes to the outside, and the message leaves", Scene::delivered),
    ("2. alice is held: the local copy arrives, the outside copy waits, and can be looked at", Scene::held),
    ("3. alice is released, and what waited leaves", Scene::released),
    ("4. alice is suspended: new mail is rejected, what waits is bounced", Scene::suspended),
    ("5. The daemon is killed: Exim goes on by the fallback file", Scene::killed),
];

impl Scene {
    pub(super) fn new(bed: Bed, story: Story) -> Self {
        Self { story, bed }
    }

    /// All steps.
    pub(super) fn play(&mut self, interrupt: &Interrupt) -> Result<()> {
        for (title, step) in STEPS {
            interrupt.check()?;
            self.story.title(title)?;
            if let Err(error) = step(self) {
                interrupt.check_for_cause()?;
                return Err(error.context(format!("the demonstration failed at step {title:?}")));
            }
        }
        Ok(())
    }

    fn delivered(&mut self) -> Result<()> {
        self.submit("alice", &[FRIEND])?;
        ensure!(self.bed.outside.recipients() == [FRIEND], "the message did not come out");
        Ok(())
    }

    fn held(&mut self) -> Result<()> {
        self.control(&["hold", "alice", "--reason", "password stolen"])?;
        self.submit("alice", &[FRIEND, "bob@local.test"])?;
        let held = self.control(&["held", "alice"])?;
        ensure!(self.bed.outside.received().len() == 1, "the held copy came out");
        ensure!(self.bed.exim.mailbox("bob")?.len() == 1, "the local copy did not arrive");
        ensure!(held.contains(FRIEND), "nothing waits");
        Ok(())
    }

    fn released(&mut self) -> Result<()> {
        let released = self.control(&["release", "alice"])?;
        ensure!(released.ends_with("1 message delivered\n"), "it was not delivered");
        ensure!(self.bed.outside.recipients() == [FRIEND, FRIEND], "the message did not come out");
        ensure!(self.bed.exim.queue()?.is_empty(), "something still waits");
        Ok(())
    }

    fn suspended(&mut self) -> Result<()> {
        self.control(&["hold", "alice"])?;
        let waiting = self.submit("alice", &[FRIEND])?;
        self.control(&["suspend", "alice", "--notice", NOTICE])?;
        self.refused_by_smtp()?;
        self.run_queue()?;
        ensure!(self.bed.exim.queued(&waiting)?.is_none(), "it still waits");
        // The first run has made the bounce, the second one delivers it.
        self.run_queue()?;
        let bounces = self.bed.exim.bounces_to("alice")?;
        ensure!(bounces.len() == 1 && bounces[0].contains(NOTICE), "no bounce with the notice: {bounces:?}");
        ensure!(self.bed.outside.received().len() == 2, "something came out");
        Ok(())
    }

    fn killed(&mut self) -> Result<()> {
        let pid = self.bed.daemon.id()?;
        self.story.command(&format!("kill -9 {pid}"))?;
        self.bed.daemon.kill9()?;
        let check = self.try_control(&["check", "alice"])?;
        ensure!(check.code() == 69, "outgoingctl ended with {} and not with 69", check.code());
        self.story.command("cat fallback")?;
        self.story.output(&fs::read_to_string(self.bed.daemon.fallback())?)?;
        self.refused_by_smtp()?;
        self.submit("carol", &[FRIEND])?;
        ensure!(self.bed.outside.received().len() == 3, "carol's message did not come out");
        self.story.command("outgoingd &")?;
        self.bed.daemon.start_again()?;
        let check = self.control(&["check", "alice"])?;
        ensure!(check.starts_with("suspend"), "the suspension was forgotten");
        Ok(())
    }

    /// Runs `outgoingctl`, which must succeed, and returns what it printed.
    fn control(&mut self, arguments: &[&str]) -> Result<String> {
        let finished = self.try_control(arguments)?;
        ensure!(finished.status.success(), "outgoingctl ended with {}", finished.code());
        Ok(finished.stdout)
    }

    fn try_control(&mut self, arguments: &[&str]) -> Result<Finished> {
        let quoted = |word: &&str| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() };
        let words: Vec<String> = arguments.iter().map(quoted).collect();
        self.story.command(&format!("outgoingctl {}", words.join(" ")))?;
        let finished = self.bed.ctl(arguments)?;
        self.story.output(&finished.stdout)?;
        self.story.output(&finished.stderr)?;
        Ok(finished)
    }

    /// Hands in a message as a program of this user does, has it delivered at once, and shows what the log says.
    fn submit(&mut self, login: &str, recipients: &[&str]) -> Result<String> {
        let letter = Letter::new(&format!("{login}@local.test"), recipients);
        self.story.command(&format!("exim4 -oMai {login} -f {} {} < letter", letter.sender, recipients.join(" ")))?;
        let before = self.bed.exim.main_log()?.len();
        let id = self.bed.exim.submit_as(login, &letter, Delivery::AtOnce)?.accepted()?;
        self.show_log_from(before)?;
        Ok(id)
    }

    fn run_queue(&mut self) -> Result<()> {
        self.story.command("exim4 -q")?;
        let before = self.bed.exim.main_log()?.len();
        self.bed.exim.run_queue("-q")?;
        self.show_log_from(before)
    }

    /// What has come to the log since it had this length: deliveries, delays and failures.
    fn show_log_from(&mut self, length: usize) -> Result<()> {
        let log = self.bed.exim.main_log()?;
        let lines = log.get(length..).unwrap_or_default().lines();
        for line in lines.filter(|line| [" => ", " == ", " ** "].iter().any(|mark| line.contains(mark))) {
            self.story.output(&format!("log: {}", line.get(20..).unwrap_or(line)))?;
        }
        Ok(())
    }

    fn refused_by_smtp(&mut self) -> Result<()> {
        let mut session = self.bed.exim.smtp()?;
        self.story.command(&format!("telnet {} {}", self.bed.exim.address().ip(), self.bed.exim.address().port()))?;
        let welcome = session.login("alice")?;
        self.exchange("AUTH PLAIN (alice)", &welcome)?;
        self.say(&mut session, "MAIL FROM:<alice@local.test>")?;
        let refusal = self.say(&mut session, &format!("RCPT TO:<{FRIEND}>"))?;
        ensure!(refusal.code == 550, "the recipient was not refused");
        Ok(())
    }

    fn say(&mut self, session: &mut Session, line: &str) -> Result<Reply> {
        let reply = session.command(line)?;
        self.exchange(line, &reply)?;
        Ok(reply)
    }

    fn exchange(&mut self, line: &str, Reply { code, text }: &Reply) -> Result<()> {
        text.lines().enumerate().try_for_each(|(number, text)| {
            let line = if number == 0 { line } else { "" };
            self.story.output(&format!("{line:<31} -> {code} {text}"))
        })
    }

    /// For `--keep`: the commands that reach what runs.
    pub(super) fn say_how_to_go_on(&mut self) -> Result<()> {
        let Bed { exim, daemon, .. } = &self.bed;
        daemon.go_on_listening()?;
        // Only in there is the private configuration Exim's own.
        let inside = format!("nsenter -m -t {}", exim.pid());
        let exim4 = format!("{inside} exim4");
        let (program, socket) = (daemon.program("outgoingctl"), daemon.socket());
        let lines = [
            ("socket", socket.display().to_string()),
            ("outgoingctl", format!("{inside} {} --socket {} list", program.display(), socket.display())),
            ("send", format!("{exim4} -odf -oMai carol -f carol@local.test {FRIEND} </etc/hostname")),
            ("queue", format!("{exim4} -bp    and to run it: {exim4} -q")),
            ("SMTP", format!("{}, AUTH PLAIN with any login and password", exim.address())),
            ("Exim's log", exim.home().join("log/mainlog").display().to_string()),
            ("daemon's log", daemon.log_file().display().to_string()),
        ];
        self.story.title("It all goes on running. As root:")?;
        for (name, line) in lines {
            self.story.line(&format!("  {name:<12}  {line}"))?;
        }
        self.story.line("Enter or Ctrl-C stops and removes it all.")
    }

    /// What the programs have written down, for whoever wants to know why a step failed.
    pub(super) fn show_logs(&self) {
        eprintln!("--- Exim's log:\n{}", self.bed.exim.main_log().unwrap_or_default());
        eprintln!("--- outgoingd's log:\n{}", self.bed.daemon.log());
    }
}

#[cfg(test)]
mod tests {
    use super::STEPS;

    /// Whoever changes the story draws it anew: `cargo xtask demo --record docs/demo.svg`.
    #[test]
    fn the_picture_in_the_documentation_tells_these_steps() {
        let picture = include_str!("../../../docs/demo.svg");
        let missing: Vec<&str> =
            STEPS.iter().map(|(title, _)| *title).filter(|title| !picture.contains(title)).collect();
        assert!(missing.is_empty(), "not in docs/demo.svg: {missing:?}");
    }
}
