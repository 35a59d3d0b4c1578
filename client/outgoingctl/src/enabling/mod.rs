//! `exim enable` and `exim disable`: switching outgoingd on and off in Exim's configuration.
//!
//! Only Debian's split configuration is written, since it alone takes files that are nobody else's; for the other homes the lines
//! are printed. Nothing that Exim uses is touched before Exim has accepted the result, composed aside, and somebody has agreed to
//! the difference. If anything fails behind that, or we are asked to end, every file is put back. [`files`] has the order in which
//! even a power failure leaves a configuration that works.
//!
//! The daemon need not run, since packages call this while they are removed. A Ctrl-C in front of the question ends the program at
//! once, and may leave a directory of links in that for temporary files.

mod debian;
mod files;
mod home;
mod lines;
mod parts;

use crate::Failure;
use crate::arguments::{EximVerb, Switch};
use crate::interrupt::Interrupt;
use crate::output::{Output, complain};
use crate::rows::{Paste, Switched};
use crate::tools::{Tools, count};
use crate::{moment, show};
use debian::{Candidate, Reloaded};
use files::{Change, Swap};
use home::{Facts, Home};
use lines::OwnLines;
use outgoingd_client::exim::{Configuration, EximError};
use outgoingd_client::held::{Search, Stand};
use parts::{Extent, extent};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Carries out one of the two.
pub(crate) fn exim(tools: &mut Tools, verb: EximVerb) -> Result<(), Failure> {
    if !geteuid().is_root() {
        return Err(Failure::NotPermitted("only root may change Exim's configuration: nothing was changed".to_owned()));
    }
    match verb {
        EximVerb::Enable { switch, snippets } => enable(tools, switch, &snippets),
        EximVerb::Disable { switch } => disable(tools, switch),
    }
}

fn enable(tools: &mut Tools, switch: Switch, snippets: &Path) -> Result<(), Failure> {
    let exim = Configuration::find(tools.program.as_deref())?;
    let facts = Facts::gather(Some(&exim))?;
    if facts.home() != Home::DebianSplit {
        return tell_what_to_paste(tools, &exim, &facts, snippets);
    }
    let _alone = alone()?;
    let changes = files::to_enable(snippets)?;
    let site = Site { exim: Some(exim.clone()), home: Home::DebianSplit, composes: true };
    let candidate = Candidate::compose(&changes).map_err(|error| unchanged(&error))?;
    if let Err(said) = candidate.accepted(&exim)? {
        return Err(refused_aside(&exim, &said)?);
    }
    if let Err(said) = candidate.in_use(&exim)? {
        let advice = parts::advice(&said);
        return Err(Failure::Some(format!("not all of it would be in force: {said}{advice}; nothing was changed")));
    }
    if changes.is_empty() && debian::in_use(&exim)?.is_ok() {
        // One that was killed behind its writing may not have told Exim.
        if !switch.dry_run {
            debian::reload()?;
        }
        return site.nothing_to_do(&mut tools.output, ENABLE);
    }
    let difference = candidate.difference(&changes)?;
    let plan = Plan { command: ENABLE, difference, changes, waiting: None, put_back: Vec::new() };
    drop(candidate);
    plan.carry_out(tools, &site, switch, "Change Exim's configuration so?")
}

fn disable(tools: &mut Tools, switch: Switch) -> Result<(), Failure> {
    let exim = match Configuration::find(tools.program.as_deref()) {
        Ok(exim) => Some(exim),
        Err(EximError::NotFound) => None,
        Err(error) => return Err(error.into()),
    };
    let changes = files::to_disable()?;
    let composer = Path::new(home::COMPOSER).exists();
    let facts = Facts::gather(exim.as_ref())?;
    let home = if exim.is_some() { facts.home() } else { Home::DebianSplit };
    let site = Site { composes: composer && home == Home::DebianSplit, exim, home };
    let own = OwnLines::of(&facts);
    if changes.is_empty() && site.is_without_us(&own)? {
        return site.nothing_to_do(&mut tools.output, DISABLE);
    }
    // Where nothing is composed of our files, other lines may lead to them.
    if !own.sources.is_empty() && (changes.is_empty() || !site.composes)
        || changes.is_empty() && home != Home::DebianSplit
    {
        return Err(site.by_your_own_lines("nothing was changed", &own));
    }
    let _alone = alone()?;
    let candidate =
        if site.composes { Some(Candidate::compose(&changes).map_err(|error| unchanged(&error))?) } else { None };
    if let (Some(candidate), Some(exim)) = (&candidate, &site.exim)
        && let Err(said) = candidate.accepted(exim)?
    {
        return Err(refused_aside(exim, &said)?);
    }
    if changes.is_empty() && candidate.as_ref().is_none_or(|candidate| !candidate.differs) {
        return Err(site.by_your_own_lines("nothing was changed", &own));
    }
    let difference = match candidate {
        Some(candidate) => candidate.difference(&changes)?,
        None => debian::difference(&changes, Path::new("/nonexistent"))?,
    };
    let waiting = waiting(tools, &site)?;
    let plan = Plan { command: DISABLE, difference, changes, waiting, put_back: own.put_back };
    let question = match waiting {
        Some(0) => "Change Exim's configuration so?".to_owned(),
        Some(count) => {
            format!("{} of stopped senders will go out. Change Exim's configuration so?", show::messages(count))
        }
        None => "Mail of stopped senders will go out. Change Exim's configuration so?".to_owned(),
    };
    plan.carry_out(tools, &site, switch, &question)?;
    if switch.dry_run {
        return Ok(());
    }
    let own = OwnLines::of(&facts);
    if site.is_without_us(&own)? { Ok(()) } else { Err(site.by_your_own_lines("our own files are gone", &own)) }
}

const ENABLE: &str = "exim enable";
const DISABLE: &str = "exim disable";

/// The Exim of this host, and what is ours to do about it.
struct Site {
    /// It may be gone when we are to undo what we have done.
    exim: Option<Configuration>,
    home: Home,
    /// Whether its configuration is composed of the files that we change.
    composes: bool,
}

impl Site {
    /// How much of outgoingd is in use; none if Exim is not there or refuses what there is.
    fn extent(&self) -> Result<Option<Extent>, Failure> {
        let Some(exim) = &self.exim else { return Ok(None) };
        Ok(exim.print(&["config"])?.ok().map(|printed| extent(&printed)))
    }

    /// Whether Exim neither uses parts of ours nor has lines to take any in. One that refuses what there is has the lines alone.
    fn is_without_us(&self, own: &OwnLines) -> Result<bool, Failure> {
        Ok(!own.name_us() && matches!(self.extent()?, Some(Extent::None) | None))
    }

    /// That somebody has to take lines out, and what to do then.
    fn by_your_own_lines(&self, what: &str, own: &OwnLines) -> Failure {
        let steps = self.exim.as_ref().map_or_else(|| "reload Exim".to_owned(), |exim| self.home.steps(exim));
        if own.sources.is_empty() && !own.composed.is_empty() {
            let lines = own.composed.join("; ");
            return Failure::Some(format!(
                "{what}: outgoingd is in no file any more that Exim's configuration is composed of, but still in what was composed: \
                 {lines}; {steps}"
            ));
        }
        let found = match &*own.sources {
            [] => ", which name it".to_owned(),
            lines => format!(": {}", lines.join("; ")),
        };
        let put_back = match &*own.put_back {
            [] => String::new(),
            lines => format!("; put in, for nothing else sets it then: {}", lines.join("; ")),
        };
        Failure::Some(format!(
            "{what}: outgoingd is in Exim's configuration by lines of your own{found}; take them out{put_back}; {steps}"
        ))
    }

    fn nothing_to_do(&self, output: &mut Output, command: &'static str) -> Result<(), Failure> {
        if output.json {
            return output.json(&self.row(command));
        }
        output.text(match (command, self.home) {
            (ENABLE, Home::DebianSplit) => "Exim asks outgoingd already: nothing to do\n",
            (ENABLE, _) => {
                "all of outgoingd's parts are in Exim's configuration; outgoingctl doctor says whether they work\n"
            }
            _ => "Exim does not ask outgoingd: nothing to do\n",
        })
    }

    fn row(&self, command: &'static str) -> Switched<'static> {
        Switched { command, home: self.home.name(), ..Switched::default() }
    }

    /// Makes the changes, and puts everything back if they cannot all be made.
    fn make(&self, output: &mut Output, plan: &Plan, interrupt: &Interrupt) -> Result<Reloaded, Failure> {
        let mut swap = Swap::new();
        let mut told = false;
        match self.try_to_make(plan, interrupt, &mut swap, &mut told) {
            Ok(reloaded) => {
                if let Err(error) = swap.finish() {
                    output.warn(&format!("what was before is still kept beside the files: {error}"))?;
                }
                Ok(reloaded)
            }
            Err(why) => Err(self.put_back(&why, swap, told)),
        }
    }

    fn try_to_make(
        &self,
        plan: &Plan,
        interrupt: &Interrupt,
        swap: &mut Swap,
        told: &mut bool,
    ) -> Result<Reloaded, Failure> {
        let asked_to_end =
            || if interrupt.came() { Err(Failure::Interrupted("interrupted".to_owned())) } else { Ok(()) };
        if self.composes {
            swap.keep(Path::new(home::COMPOSED))?;
        }
        for change in &plan.changes {
            asked_to_end()?;
            swap.make(change)?;
        }
        asked_to_end()?;
        if !self.composes {
            return Ok(Reloaded::NotRunning);
        }
        debian::compose()?;
        asked_to_end()?;
        let Some(exim) = &self.exim else { return Ok(Reloaded::NotRunning) };
        let refuses = |said: String| Failure::Some(format!("Exim refuses its new configuration: {said}"));
        exim.accepted()?.map_err(refuses)?;
        if plan.command == ENABLE {
            debian::in_use(exim)?.map_err(refuses)?;
        }
        asked_to_end()?;
        *told = true;
        debian::reload()
    }

    /// Why it was not done, and what became of the files. An Exim that was `told` of the change is told that it is undone.
    fn put_back(&self, why: &Failure, swap: Swap, told: bool) -> Failure {
        let mut words = match swap.put_back() {
            Ok(()) => format!("{why}; every file was put back as it was"),
            Err(error) => format!("{why}; {error}; what was there is beside it, under a name with .outgoingctl-old"),
        };
        if let Some(Ok(Err(said))) = self.exim.as_ref().map(Configuration::accepted) {
            words = format!("{words}; Exim refuses that, too: {said}");
        }
        if told && let Err(error) = debian::reload() {
            words = format!("{words}; {error}");
        }
        if matches!(why, Failure::Interrupted(_)) { Failure::Interrupted(words) } else { Failure::Some(words) }
    }
}

/// What is to be done, and what is to be known before.
struct Plan {
    command: &'static str,
    changes: Vec<Change>,
    difference: String,
    /// Messages that are kept back now and will not be any more, if that is known.
    waiting: Option<u64>,
    /// Options that nothing sets any more then, though the site wants them.
    put_back: Vec<String>,
}

impl Plan {
    fn carry_out(&self, tools: &mut Tools, site: &Site, switch: Switch, question: &str) -> Result<(), Failure> {
        let output = &mut tools.output;
        let readable = printable(&self.difference);
        if !output.json {
            output.text(&readable)?;
            output.text(&self.to_put_back())?;
            self.tell_what_waits(output)?;
        } else if !switch.yes && !switch.dry_run {
            complain((readable + &self.to_put_back()).trim_end());
        }
        if switch.dry_run {
            output.note("nothing was changed: this was a dry run")?;
            return self.report(output, site, None);
        }
        output.flush()?;
        switch.must_be_agreed(question)?;
        let interrupt = Interrupt::note()?;
        let reloaded = site.make(output, self, &interrupt)?;
        self.report(output, site, Some(reloaded))
    }

    /// What whoever administers the host has to write, so that nothing is lost but us.
    fn to_put_back(&self) -> String {
        if self.put_back.is_empty() {
            return String::new();
        }
        let head = format!("nothing sets these without outgoingd, so put them back, into {}:\n", parts::MACROS);
        self.put_back.iter().fold(head, |text, line| text + "    " + &show::safe(line) + "\n")
    }

    fn tell_what_waits(&self, output: &mut Output) -> Result<(), Failure> {
        match self.waiting {
            None | Some(0) => Ok(()),
            Some(waiting) => output.note(&format!(
                "{} of held or suspended senders on the queue: the next queue run delivers what outgoingd has kept back",
                show::messages(waiting)
            )),
        }
    }

    /// `done` is what became of a running Exim, if anything was done.
    fn report(&self, output: &mut Output, site: &Site, done: Option<Reloaded>) -> Result<(), Failure> {
        let paths: Vec<PathBuf> = self.changes.iter().map(Change::path).collect();
        let files: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        if output.json {
            return output.json(&Switched {
                changed: done.is_some(),
                reloaded: done.map(|reloaded| reloaded == Reloaded::Yes),
                files,
                difference: Some(&self.difference),
                waiting: self.waiting,
                put_back: self.put_back.clone(),
                ..site.row(self.command)
            });
        }
        let Some(reloaded) = done else { return Ok(()) };
        let verb = if self.command == ENABLE { "written" } else { "removed" };
        for file in &files {
            output.text(&format!("{verb}: {file}\n"))?;
        }
        output.text(match (&site.exim, site.composes, reloaded) {
            (None, ..) => "there is no Exim here any more, so nothing else was done\n",
            (_, false, _) => "Exim's configuration did not use these files, and is as before\n",
            (_, _, Reloaded::Yes) => "Exim accepts its new configuration and was reloaded\n",
            (_, _, Reloaded::NotRunning) => "Exim accepts its new configuration; it does not run as exim4.service\n",
            (_, _, Reloaded::Unknown) => {
                "Exim accepts its new configuration; systemd does not run here: if Exim does, `service exim4 reload`\n"
            }
        })?;
        match self.command {
            ENABLE => output.text("next: outgoingctl doctor\n"),
            _ => output.text(&self.to_put_back()),
        }
    }
}

/// How many messages outgoingd keeps back or would bounce. Whoever switches it off may do so without knowing.
fn waiting(tools: &mut Tools, site: &Site) -> Result<Option<u64>, Failure> {
    if site.exim.is_none() {
        return Ok(None);
    }
    let search = Search { subjects: &[], of: Stand::Stopped, before: Some(moment::now() + 1) };
    match tools.exim().and_then(|exim| count(tools, &exim, search)) {
        Ok(waiting) => Ok(Some(waiting)),
        Err(error) => {
            tools
                .output
                .warn(&format!("how much mail of stopped senders waits, and will go out, is not known: {error}"))?;
            Ok(None)
        }
    }
}

/// For a home that is not ours to write: says what to paste where, unless it is there.
fn tell_what_to_paste(tools: &mut Tools, exim: &Configuration, facts: &Facts, snippets: &Path) -> Result<(), Failure> {
    let home = facts.home();
    let refuses = |said| Failure::Some(format!("Exim refuses its configuration as it is: {said}; nothing was changed"));
    let there = extent(&exim.print(&["config"])?.map_err(refuses)?);
    let site = Site { exim: Some(exim.clone()), home, composes: false };
    if there == Extent::All {
        return site.nothing_to_do(&mut tools.output, ENABLE);
    }
    let options = exim.print(&parts::OPTIONS)?.map_err(refuses)?;
    let snippets = snippets.to_string_lossy();
    let own = OwnLines::of(facts).sources;
    let there = if own.is_empty() { there } else { Extent::Some };
    let mut pastes = parts::pastes(home, &snippets, &facts.configuration.to_string_lossy(), &options);
    if home == Home::DebianUnsplit {
        pastes = parts::still_to_paste(pastes, &own);
    }
    let output = &mut tools.output;
    let waits = pastes.is_empty();
    if output.json {
        output.json(&Switched { paste: pastes, ..site.row(ENABLE) })?;
    } else if !waits {
        output.text(&instructions(exim, home, &pastes, there, &snippets))?;
    }
    output.flush()?;
    Err(Failure::Some(if waits {
        format!("nothing was changed: the lines are there; {}", home.steps(exim))
    } else {
        "nothing was changed".to_owned()
    }))
}

/// The same for people.
fn instructions(exim: &Configuration, home: Home, pastes: &[Paste], there: Extent, snippets: &str) -> String {
    let mut text = format!(
        "Exim's configuration here is {}, which this command does not write. Put these lines in:\n",
        home.words()
    );
    if there == Extent::Some {
        text += "(Some of outgoingd's parts are there already; Exim must have each of them once.)\n";
    }
    for Paste { file, place, lines } in pastes {
        text.extend(["\n", file, ", ", place, ":\n\n"]);
        text.extend(lines.iter().flat_map(|line| ["    ", line, "\n"]));
    }
    let by_hand = format!(
        "\nA section that is not there is made by its \"begin\" line at the end. If your list of local domains is not called\n\
         local_domains, define above the first of these lines: OUTGOINGD_OUTSIDE = !+YOUR_LIST\n\
         Then: {}.\n",
        home.steps(exim)
    );
    text += match home {
        Home::Cpanel => {
            "\nSave there: WHM tests the configuration and restarts Exim. The ACL boxes have a check mark, to be set.\n"
        }
        Home::DebianUnsplit => "\nThen: update-exim4.conf && exim4 -bV && systemctl reload exim4\n",
        Home::DebianSplit | Home::HandWritten => &by_hand,
    };
    let page = match home {
        Home::Cpanel => "cpanel",
        Home::DebianSplit | Home::DebianUnsplit => "debian",
        Home::HandWritten => "hand-written",
    };
    text + &format!("More: {snippets}/{page}/README.md\n\n")
}

/// That Exim would not accept the result, in its words; and whether it accepts what there is.
fn refused_aside(exim: &Configuration, said: &str) -> Result<Failure, Failure> {
    let before = match exim.accepted()? {
        Ok(()) => "Exim would refuse its configuration",
        Err(_) => "Exim refuses its configuration already, and would go on",
    };
    Ok(Failure::Some(format!("{before}: {said}{}; nothing was changed", parts::advice(said))))
}

fn unchanged(failure: &Failure) -> Failure {
    Failure::Some(format!("{failure}; nothing was changed"))
}

/// Whoever else does this at the same time has to wait for another time.
fn alone() -> Result<File, Failure> {
    let failed = |source| files::cannot("lock", Path::new(files::CONF_D), source);
    let directory = File::open(files::CONF_D).map_err(failed)?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory),
        Err(Errno::WOULDBLOCK) => {
            let words = "another outgoingctl is at it, or waits for an answer: end that one first; nothing was changed";
            Err(Failure::Some(words.to_owned()))
        }
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Lines of files, which are a terminal's to show and not to obey.
fn printable(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(show::safe).collect::<Vec<_>>().join("\t") + "\n";
    text.lines().map(line).collect()
}
