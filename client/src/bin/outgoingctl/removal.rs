//! Removing messages from Exim's queue without a bounce: `drop`, `--drop` of `release` and `suspend`, and `sweep`.
//!
//! The audit trail has it before Exim is told: what is removed must not be removed by nobody. Only messages that were on the queue
//! when the command began are removed, so that a question that was answered was about all of them. A message that is being
//! delivered in this moment is tried again for a while, and named if it stays.

use crate::Failure;
use crate::arguments::Consent;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::rows::{Failed, Forgotten};
use crate::tools::{Tools, bar};
use crate::{moment, show};
use outgoingd_client::exim::{Exim, EximError, MessageId, Place};
use outgoingd_client::held::{Message, Search, Seen, Stand, Walk};
use outgoingd_client::protocol::message::{Dropped, MAX_MESSAGES, Retention};
use outgoingd_client::{Error, Terms};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// Messages that one Exim is told to remove: after so many we look whether we were asked to end.
const AT_ONCE: usize = 100;

/// How long messages that are being delivered are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait between two looks at them.
const PAUSE: Duration = Duration::from_millis(100);

/// `drop --subject`: removes what waits of stopped senders whom `subject` covers.
pub(crate) fn drop_subject(
    tools: &mut Tools,
    subject: &str,
    before: Option<u64>,
    consent: Consent,
) -> Result<(), Failure> {
    let exim = tools.exim()?;
    let subjects = [subject.to_owned()];
    let now = of(&subjects, Stand::Stopped);
    let search = Search { before: before.or(now.before), ..now };
    let waiting = count(tools, &exim, search)?;
    if waiting == 0 && !tools.output.json {
        return tools.output.text(&format!("{}: nothing that is held or suspended waits\n", show::safe(subject)));
    }
    if waiting > 0 {
        consent
            .must_be_given(&format!("Remove {} of {subject} for good, without a bounce?", show::messages(waiting)))?;
        record(tools, subject, &show::messages(waiting))?;
    }
    let interrupt = Interrupt::listen()?;
    let removal = remove(tools, &exim, search, &interrupt, |_| true)?;
    removal.report(&mut tools.output, "drop", subject)?;
    removal.ended(&mut tools.output, "drop", &interrupt)
}

/// `drop ID…`: removes single messages of stopped senders. All are tried.
pub(crate) fn drop_messages(tools: &mut Tools, message_ids: &[String], consent: Consent) -> Result<(), Failure> {
    let exim = tools.exim()?;
    let (mut chosen, mut failed) = (Vec::new(), 0);
    let mut walk = Walk::new(&mut tools.client, &exim);
    for raw in message_ids {
        match stopped(&mut walk, raw.trim())? {
            Ok(message) => chosen.push(message),
            Err((error, cause)) => {
                failed += 1;
                tools.output.failed(&Failed {
                    line: None,
                    subject: Some(raw),
                    command: "drop",
                    error: &error,
                    cause,
                })?;
            }
        }
    }
    drop(walk);
    if !chosen.is_empty() {
        let what = show::messages(chosen.len() as u64);
        consent.must_be_given(&format!("Remove {what} for good, without a bounce?"))?;
    }
    let interrupt = Interrupt::listen()?;
    let mut removal = Removal::default();
    for messages in chosen.chunks(AT_ONCE) {
        if !interrupt.came() {
            let dropped = messages.iter().map(|message| Dropped {
                subject: message.place.id.to_string(),
                reason: message.header.identity.clone(),
            });
            tools.client.record_drop(dropped.collect())?;
        }
        let places: Vec<Place> = messages.iter().map(|message| message.place.clone()).collect();
        removal.take(&exim, &places, &interrupt)?;
    }
    removal.try_again(&exim, &interrupt)?;
    for Message { place, .. } in &chosen {
        if !place.is_there().map_err(EximError::from)? {
            tools.output.message_removed("drop", place.id.as_str())?;
        }
    }
    removal.ended(&mut tools.output, "drop", &interrupt)?;
    tools.output.some_failed("drop", failed, message_ids.len())
}

/// The message of that id, if its sender is stopped; else why it is none to drop, and the word for programs.
fn stopped(walk: &mut Walk<'_>, raw: &str) -> Result<Result<Message, (String, &'static str)>, Failure> {
    let id = match MessageId::new(raw) {
        Ok(id) => id,
        Err(error) => return Ok(Err((error.to_string(), "invalid"))),
    };
    let Some(message) = walk.find(id)? else {
        return Ok(Err((format!("there is no message {id} on Exim's queue"), "no-such-message")));
    };
    if Stand::Stopped.fits(&message.judgement) {
        return Ok(Ok(message));
    }
    let identity = message.header.identity.as_deref().unwrap_or("nobody");
    let why = if message.judgement.passed { "has a pass" } else { "is neither held nor suspended" };
    Ok(Err((format!("{id} of {identity} was not removed: it {why}; `exim -Mrm {id}` removes any message"), "not-held")))
}

/// Asks before what waits of all these senders is removed because an option said so. `what` is the rest of the question.
pub(crate) fn ask(
    tools: &mut Tools,
    exim: &Exim,
    subjects: &[String],
    stand: Stand,
    consent: Consent,
    what: &str,
) -> Result<(), Failure> {
    if consent.cannot_be_refused() {
        return Ok(());
    }
    let (waiting, whose) = (count(tools, exim, of(subjects, stand))?, show::safe(&subjects.join(", ")));
    consent.may_be_refused(&format!("Remove {} of {whose} for good, without a bounce{what}?", show::messages(waiting)))
}

/// `release --drop`: removes what `subject`'s hold keeps back, and clears it then, so that nothing of it gets out.
pub(crate) fn release(tools: &mut Tools, exim: &Exim, subject: &str, interrupt: &Interrupt) -> Result<(), Failure> {
    record(tools, subject, "release --drop")?;
    let removal = remove(tools, exim, of(&[subject.to_owned()], Stand::Held), interrupt, |_| true)?;
    removal.report(&mut tools.output, "release", subject)?;
    // What is left stays held.
    removal.ended(&mut tools.output, "release", interrupt)?;
    let changed = tools.client.release(subject)?;
    tools.output.changed("release", "released", None, &changed)
}

/// `suspend --drop`: suspends `subject`, and removes what waits of it instead of having it bounced. A queue run in between would
/// bounce it, so `subject` is held first, and suspended when nothing waits any more.
pub(crate) fn suspend(
    tools: &mut Tools,
    exim: &Exim,
    subject: &str,
    terms: &Terms,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let (status, subjects) = (tools.client.status(subject)?, [subject.to_owned()]);
    let stopped_already = status.flags.iter().any(|flag| flag.subject == status.subject);
    if !stopped_already {
        let reason = Some("until what waits is removed".to_owned());
        tools.client.hold(subject, &Terms { reason, ..Terms::default() })?;
    }
    record(tools, subject, "suspend --drop")?;
    let mut removal = remove(tools, exim, of(&subjects, Stand::Stopped), interrupt, |_| true)?;
    if interrupt.came() && !stopped_already {
        removal.report(&mut tools.output, "suspend", subject)?;
        let words =
            format!("interrupted: {subject} is held and not suspended, so what is left neither leaves nor bounces");
        return tools.output.flush().and(Err(Failure::Some(words)));
    }
    let changed = tools.client.suspend(subject, terms)?;
    tools.output.changed("suspend", "suspended", terms.until, &changed)?;
    // What came in while the rest was removed.
    removal.add(remove(tools, exim, of(&subjects, Stand::Stopped), interrupt, |_| true)?);
    if !stopped_already {
        tools.client.release(subject)?;
    }
    removal.report(&mut tools.output, "suspend", subject)?;
    removal.ended(&mut tools.output, "suspend", interrupt)
}

/// What a sweep does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sweep {
    /// It removes.
    Remove,
    /// It only says what it would remove.
    Try,
}

/// `sweep`, for a timer: removes held mail that is over what the configuration allows, and forgets passes of messages that are
/// gone.
pub(crate) fn sweep(tools: &mut Tools, what: Sweep) -> Result<(), Failure> {
    let exim = tools.exim()?;
    let interrupt = Interrupt::listen()?;
    forget_passes(tools, &exim, what)?;
    let Retention { max_age, max_messages } = tools.client.retention()?;
    if max_age.is_none() && max_messages.is_none() {
        return tools.output.note("neither held.max-age nor held.max-messages is set, so held mail stays");
    }
    let begin = moment::now();
    let search = of(&[], Stand::Held);
    let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    walk(tools, &exim, search, |message| {
        let too_old = max_age.is_some_and(|age| message.header.received.saturating_add(age) < begin);
        let (messages, old) = counts.entry(through(&message)).or_default();
        (*messages, *old) = (*messages + 1, *old + u64::from(too_old));
        Ok(())
    })?;
    // The oldest come first, so those who are too old and those who are too many are the same from there on.
    let excess = |(messages, old): (u64, u64)| max_messages.map_or(old, |most| old.max(messages.saturating_sub(most)));
    let mut to_go: BTreeMap<String, u64> = counts
        .into_iter()
        .map(|(subject, counts)| (subject, excess(counts)))
        .filter(|(_, excess)| *excess > 0)
        .collect();
    for (subject, excess) in &to_go {
        match what {
            Sweep::Try if tools.output.json => tools.output.removed("sweep", subject, 0, *excess)?,
            Sweep::Try => {
                let (subject, messages) = (show::safe(subject), show::messages(*excess));
                tools.output.text(&format!("{subject}: {messages} would be removed\n"))?;
            }
            Sweep::Remove => {
                record(tools, subject, &format!("{} over held.max-age or held.max-messages", show::messages(*excess)))?;
            }
        }
    }
    if to_go.is_empty() {
        return tools.output.note("no held mail is over its bounds");
    }
    if what == Sweep::Try {
        return Ok(());
    }
    let mut removed: BTreeMap<String, u64> = BTreeMap::new();
    let removal = remove(tools, &exim, search, &interrupt, |message| {
        let subject = through(message);
        let Some(left) = to_go.get_mut(&subject).filter(|left| **left > 0) else { return false };
        *left -= 1;
        *removed.entry(subject).or_default() += 1;
        true
    })?;
    for (subject, removed) in removed {
        let left = to_go.get(&subject).copied().unwrap_or(0);
        tools.output.removed("sweep", &subject, removed, left)?;
    }
    removal.ended(&mut tools.output, "sweep", &interrupt)
}

/// Forgets the passes of messages that are gone.
fn forget_passes(tools: &mut Tools, exim: &Exim, what: Sweep) -> Result<(), Failure> {
    let mut gone = Vec::new();
    tools.client.passes(|id| {
        // What is no id is nobody's.
        let there = MessageId::new(&id).ok().map(|id| exim.queue.find(id)).transpose().map_err(EximError::from)?;
        if there.flatten().is_none() {
            gone.push(id);
        }
        Ok::<(), Failure>(())
    })?;
    if what == Sweep::Remove {
        for ids in gone.chunks(MAX_MESSAGES) {
            tools.client.forget(ids.to_vec())?;
        }
    }
    let passes_forgotten = gone.len() as u64;
    match (tools.output.json, passes_forgotten) {
        (true, _) => tools.output.json(&Forgotten { command: "sweep", passes_forgotten }),
        (false, 0) => Ok(()),
        (false, count) => tools.output.text(&format!("passes of messages that are gone: {count}\n")),
    }
}

/// The subject whose flag stops a message.
fn through(message: &Message) -> String {
    message.judgement.through.clone().unwrap_or_default()
}

/// What is on the queue now.
fn of(subjects: &[String], of: Stand) -> Search<'_> {
    Search { subjects, of, before: Some(moment::now() + 1) }
}

/// Writes into the audit trail what is about to be removed.
fn record(tools: &mut Tools, subject: &str, what: &str) -> Result<(), Error> {
    let dropped = Dropped { subject: subject.to_owned(), reason: Some(what.to_owned()) };
    tools.client.record_drop(vec![dropped]).map(drop)
}

/// How many messages a search finds.
pub(crate) fn count(tools: &mut Tools, exim: &Exim, search: Search<'_>) -> Result<u64, Failure> {
    let mut count = 0;
    walk(tools, exim, search, |_| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// Hands what a search finds to `each`, with a bar.
fn walk(
    tools: &mut Tools,
    exim: &Exim,
    search: Search<'_>,
    mut each: impl FnMut(Message) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Tools { client, output, .. } = tools;
    let bar = bar();
    let walked = Walk::new(client, exim).along(
        search,
        |total| bar.set_length(total),
        |seen| match seen {
            Seen::Message(message) => each(*message),
            Seen::Unreadable(error) => bar.suspend(|| output.warn(&error.to_string())),
            Seen::Further(count) => {
                bar.inc(count);
                Ok(())
            }
        },
    );
    bar.finish_and_clear();
    walked
}

/// Has Exim remove what a search finds, if it is `chosen`.
fn remove(
    tools: &mut Tools,
    exim: &Exim,
    search: Search<'_>,
    interrupt: &Interrupt,
    mut chosen: impl FnMut(&Message) -> bool,
) -> Result<Removal, Failure> {
    let (mut removal, mut batch) = (Removal::default(), Vec::new());
    walk(tools, exim, search, |message| {
        if !chosen(&message) {
            return Ok(());
        }
        batch.push(message.place);
        if batch.len() >= AT_ONCE { removal.take(exim, &std::mem::take(&mut batch), interrupt) } else { Ok(()) }
    })?;
    removal.take(exim, &batch, interrupt)?;
    removal.try_again(exim, interrupt)?;
    Ok(removal)
}

/// What was removed so far.
#[derive(Default)]
struct Removal {
    removed: u64,
    /// Left alone, since we were asked to end.
    left: u64,
    /// What Exim did not remove, and why.
    stuck: Vec<(Place, String)>,
}

impl Removal {
    /// Has Exim remove some, unless we were asked to end.
    fn take(&mut self, exim: &Exim, places: &[Place], interrupt: &Interrupt) -> Result<(), Failure> {
        if interrupt.came() {
            self.left += places.len() as u64;
            return Ok(());
        }
        let stuck = exim.remove(places)?;
        self.removed += (places.len() - stuck.len()) as u64;
        self.stuck.extend(stuck.into_iter().map(|(place, why)| (place.clone(), why)));
        Ok(())
    }

    /// Waits for what is being delivered, for a while.
    fn try_again(&mut self, exim: &Exim, interrupt: &Interrupt) -> Result<(), Failure> {
        let begun = Instant::now();
        while !self.stuck.is_empty() && begun.elapsed() < PATIENCE && !interrupt.came() {
            thread::sleep(PAUSE);
            let places: Vec<Place> = std::mem::take(&mut self.stuck).into_iter().map(|(place, _)| place).collect();
            self.take(exim, &places, interrupt)?;
        }
        Ok(())
    }

    fn add(&mut self, other: Removal) {
        self.removed += other.removed;
        self.left += other.left;
        self.stuck.extend(other.stuck);
    }

    /// Says how it went.
    fn report(&self, output: &mut Output, command: &str, subject: &str) -> Result<(), Failure> {
        output.removed(command, subject, self.removed, self.left + self.stuck.len() as u64)
    }

    /// Names what is still there, and fails if anything is.
    fn ended(self, output: &mut Output, command: &str, interrupt: &Interrupt) -> Result<(), Failure> {
        let stuck = self.stuck.len();
        for (place, why) in self.stuck {
            let error = format!("{} is still on the queue: {why}", place.id);
            let id = place.id.to_string();
            output.failed(&Failed { line: None, subject: Some(&id), command, error: &error, cause: "stuck" })?;
        }
        let words = if interrupt.came() {
            format!("{command} was interrupted; what is left waits as before")
        } else if stuck > 0 {
            format!("{command} could not remove {}", show::messages(stuck as u64))
        } else {
            return Ok(());
        };
        output.flush().and(Err(Failure::Some(words)))
    }
}
