//! Removing messages from Exim's queue without a bounce: `drop`, `--drop` of `release` and `suspend`, and `sweep`.
//!
//! The audit trail has it before Exim is told: what is removed must not be removed by nobody. Only messages that were on the queue
//! when the command began are removed, so that a question that was answered was about all of them. A message that is being
//! delivered in this moment is tried again for a while, and named if it stays. One that may be local, since Exim cannot say of a
//! domain whether it is, or that somebody on this host has not got yet, is left and warned of. Of held ones Exim is told to serve
//! those first: then what is left of the message is what is held.

use crate::Failure;
use crate::arguments::Consent;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::rows::{self, Forgotten};
use crate::tools::{Refused, Tools, count, find, walk};
use crate::{moment, show};
use outgoingd_client::exim::{Exim, EximError, Manner, MessageId, Place, Removed};
use outgoingd_client::held::{Message, Search, Stand, Walk};
use outgoingd_client::protocol::message::{Dropped, Kind, MAX_MESSAGES, Retention};
use outgoingd_client::{Client, Error, Terms};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::thread;
use std::time::{Duration, Instant};

/// Messages that one Exim is told to remove, and that have one entry in the audit trail: after so many we look whether we were asked
/// to end.
const AT_ONCE: usize = 500;

/// What becomes of what is left, mostly.
const WAITS: &str = "what is left waits as before";

/// Characters of a sender's name that go into the audit trail with a message.
const MOST_OF_A_NAME: usize = 200;

/// How long messages that are being delivered are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait between two looks at them.
const PAUSE: Duration = Duration::from_millis(100);

/// `drop --subject`: removes what waits of stopped senders whom `subject` covers, and stands so.
pub(crate) fn drop_subject(
    tools: &mut Tools,
    subject: &str,
    stand: Stand,
    before: Option<u64>,
    consent: Consent,
) -> Result<(), Failure> {
    let exim = tools.exim()?;
    let subjects = [subject.to_owned()];
    let now = of(&subjects, stand);
    let search = Search { before: before.or(now.before), ..now };
    tools.warn_of_unknown(subject)?;
    let waiting = count(tools, &exim, search)?;
    if waiting == 0 && tools.output.json {
        return Removal::default().report(&mut tools.output, "drop", Some(subject));
    }
    if waiting == 0 {
        let what = if stand == Stand::Held { "held" } else { "held or suspended" };
        return tools.output.text(&format!("{}: nothing that is {what} waits\n", show::safe(subject)));
    }
    let (waiting, whose) = (show::messages(waiting), show::safe(subject));
    consent.must_be_given(&format!("Remove {waiting} of {whose} for good, without a bounce?"))?;
    let interrupt = Interrupt::listen()?;
    let mut removal = Removal::default();
    let done = removal.remove(tools, &exim, search, "drop", &interrupt, |_| Some(subject.to_owned()));
    removal.close(done, &mut tools.output, ("drop", Some(subject)), WAITS, &interrupt)
}

/// `drop ID…`: removes single messages of stopped senders. All are tried.
pub(crate) fn drop_messages(tools: &mut Tools, message_ids: &[String], consent: Consent) -> Result<(), Failure> {
    let exim = tools.exim()?;
    let (mut chosen, mut failed, mut removal) = (Vec::new(), 0, Removal::default());
    let mut walk = Walk::new(&mut tools.client, &exim);
    for raw in message_ids {
        match find_stopped(&mut walk, &exim, &removal, raw)? {
            Ok(message) if chosen.iter().any(|other: &Message| other.place.id == message.place.id) => {}
            Ok(message) => chosen.push(message),
            Err(refused) => {
                failed += 1;
                tools.output.refused("drop", raw, &refused)?;
            }
        }
    }
    drop(walk);
    if !chosen.is_empty() {
        let what = show::messages(chosen.len() as u64);
        consent.must_be_given(&format!("Remove {what} for good, without a bounce?"))?;
    }
    let interrupt = Interrupt::listen()?;
    for messages in chosen.chunks(AT_ONCE) {
        if !interrupt.came() {
            let dropped = messages.iter().map(|message| Dropped {
                subject: message.place.id.to_string(),
                reason: message
                    .header
                    .identity
                    .as_deref()
                    .map(|identity| show::safe(identity).chars().take(MOST_OF_A_NAME).collect()),
            });
            tools.client.record_drop(dropped.collect())?;
        }
        let places: Vec<Place> = messages.iter().map(|message| message.place.clone()).collect();
        removal.take(&exim, &places, &interrupt)?;
    }
    removal.try_again(&exim, &interrupt)?;
    for id in &removal.removed {
        tools.output.message_removed("drop", id.as_str())?;
    }
    for id in &removal.gone {
        failed += 1;
        let refused = (format!("{id} has left the queue before it could be removed"), "gone");
        tools.output.refused("drop", id.as_str(), &refused)?;
    }
    removal.ended(&mut tools.output, "drop", WAITS, &interrupt)?;
    tools.output.some_failed("drop", failed, message_ids.len())
}

/// The message that was named, if its sender is stopped and there is no doubt that it is one to remove.
fn find_stopped(
    walk: &mut Walk<'_>,
    exim: &Exim,
    removal: &Removal,
    raw: &str,
) -> Result<Result<Message, Refused>, Failure> {
    let message = match find(walk, raw, "removed")?.and_then(must_be_stopped) {
        Ok(message) => message,
        refused => return Ok(refused),
    };
    let message = walk.examine(message)?;
    let id = message.place.id;
    Ok(match removal.must_stay(exim, &message)? {
        Some(why) => Err((format!("{id} was not removed: {why}; `exim -Mrm {id}` removes any message"), "doubtful")),
        None => Ok(message),
    })
}

/// The message, if its sender is stopped.
fn must_be_stopped(message: Message) -> Result<Message, Refused> {
    if Stand::Stopped.fits(&message.judgement) {
        return Ok(message);
    }
    let (id, identity) = (message.place.id, message.header.identity.as_deref().unwrap_or("nobody"));
    let why = if message.judgement.passed { "has a pass" } else { "is neither held nor suspended" };
    Err((format!("{id} of {identity} was not removed: it {why}; `exim -Mrm {id}` removes any message"), "not-held"))
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

/// `release --drop`: removes what `subject`'s hold has kept back until `before`, and clears it then, so that nothing of it gets out.
pub(crate) fn release(
    tools: &mut Tools,
    exim: &Exim,
    subject: &str,
    before: u64,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let own = tools.client.status(subject)?.subject;
    // What another hold keeps back as well is not let go, and so is none of what is asked for.
    let freed = |message: &Message| message.judgement.through.clone().filter(|through| *through == own);
    let (subjects, mut removal) = ([subject.to_owned()], Removal::default());
    let search = Search { before: Some(before), ..of(&subjects, Stand::Held) };
    let done = removal.remove(tools, exim, search, "release --drop", interrupt, freed);
    // What is left stays held.
    removal.close(done, &mut tools.output, ("release", Some(subject)), WAITS, interrupt)?;
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
    // Whatever is wrong with the terms is found before anything is removed.
    tools.client.rehearse_suspend(subject, terms)?;
    let status = tools.client.status(subject)?;
    let own = |kind| status.flags.iter().find(|flag| flag.subject == status.subject && flag.kind == kind);
    let (hold_before, mut suspended) = (own(Kind::Hold), own(Kind::Suspend).is_some());
    let interim = !suspended && hold_before.is_none_or(|hold| hold.until.is_some());
    if interim {
        // The reason of a hold that is there stays with it.
        let reason = hold_before.is_none().then(|| "until what waits is removed".to_owned());
        tools.client.hold(subject, &Terms { reason, ..Terms::default() })?;
    }
    let mut removal = Removal::default();
    let mut done = clear_and_suspend(tools, exim, subject, terms, interrupt, &mut removal, &mut suspended);
    if suspended && interim {
        let restored = match hold_before.and_then(|hold| hold.until).filter(|until| *until > moment::now()) {
            Some(until) => tools.client.hold(subject, &Terms { until: Some(until), ..Terms::default() }),
            None => tools.client.release(subject),
        };
        if let Err(error) = restored {
            tools.output.warn(&format!("{} is still held besides", show::safe(subject)))?;
            done = done.and(Err(error.into()));
        }
    }
    let whose = show::safe(subject);
    let left = if suspended {
        format!("what is left of {whose} will be bounced by the next queue run")
    } else {
        format!("{whose} is held and not suspended, so that what is left neither leaves nor bounces")
    };
    if done.is_err() {
        tools.output.warn(&left)?;
    }
    removal.close(done, &mut tools.output, ("suspend", Some(subject)), &left, interrupt)
}

/// Removes, suspends, and removes what came in meanwhile; stops in front of the suspend when we are asked to end.
fn clear_and_suspend(
    tools: &mut Tools,
    exim: &Exim,
    subject: &str,
    terms: &Terms,
    interrupt: &Interrupt,
    removal: &mut Removal,
    suspended: &mut bool,
) -> Result<(), Failure> {
    let subjects = [subject.to_owned()];
    let clear = |tools: &mut Tools, removal: &mut Removal| {
        let own = |_: &Message| Some(subject.to_owned());
        removal.remove(tools, exim, of(&subjects, Stand::Stopped), "suspend --drop", interrupt, own)
    };
    clear(tools, removal)?;
    // What came in meanwhile: little, so that next to nothing comes in while that is removed.
    clear(tools, removal)?;
    // What is left would be bounced.
    if !*suspended && (interrupt.came() || !removal.stuck.is_empty() || !removal.doubtful.is_empty()) {
        return Ok(());
    }
    let changed = tools.client.suspend(subject, terms)?;
    *suspended = true;
    tools.output.changed("suspend", "suspended", terms.until, &changed)?;
    clear(tools, removal)
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
    let (search, now) = (of(&[], Stand::Held), moment::now());
    // Nobody looks on, and Exim may be asked by a user who sees less than root. So what it has not kept back itself is left.
    let counts = |message: &Message| {
        message.here.is_empty() && (message.doubt.is_some() || message.place.has_kept_back(&message.header.to_go))
    };
    // What may be local takes nobody's place, and is counted by itself.
    let pile = |message: &Message| (through(message), message.doubt.is_some());
    let mut holds: BTreeMap<(String, bool), Hold> = BTreeMap::new();
    let Tools { client, recorder, output, .. } = tools;
    walk(client, output, &exim, search, |_, message| {
        if !counts(&message) {
            return Ok(());
        }
        let pile = pile(&message);
        if !holds.contains_key(&pile) {
            let since = held_since(recorder, &pile.0)?.unwrap_or(now);
            holds.insert(pile.clone(), Hold { since, messages: 0, too_old: 0, newest: VecDeque::new() });
        }
        if let Some(hold) = holds.get_mut(&pile) {
            hold.too_old += u64::from(hold.has_too_old(&message, now, max_age));
            hold.count(message.place.id, max_messages);
        }
        Ok(())
    })?;
    // The oldest come first, so those who are too old and those who are too many are the same from there on.
    let too_many = |hold: &Hold| max_messages.map_or(0, |most| hold.messages.saturating_sub(most));
    // A hold on everyone is for an emergency, and what waits then is anybody's.
    holds.retain(|(subject, _), hold| subject != "*" && hold.too_old.max(too_many(hold)) > 0);
    for ((subject, _), hold) in holds.iter().filter(|((_, doubtful), _)| !doubtful) {
        output.excess(subject, hold.too_old.max(too_many(hold)))?;
    }
    if holds.is_empty() {
        return output.note("no held mail is over its bounds");
    }
    if what == Sweep::Try {
        return Ok(());
    }
    let why = "over held.max-age or held.max-messages";
    let mut removal = Removal::default();
    let done = removal.remove(tools, &exim, search, why, &interrupt, |message| {
        let pile = pile(message);
        let hold = holds.get(&pile)?;
        let is_over = hold.is_too_much(message.place.id) || hold.has_too_old(message, now, max_age);
        (is_over && counts(message)).then_some(pile.0)
    });
    removal.close(done, &mut tools.output, ("sweep", None), WAITS, &interrupt)
}

/// What one hold keeps back.
struct Hold {
    /// When it was set, in Unix seconds.
    since: u64,
    messages: u64,
    too_old: u64,
    /// As many as may stay.
    newest: VecDeque<MessageId>,
}

impl Hold {
    /// Counts the next message, which is newer than those before.
    fn count(&mut self, id: MessageId, max_messages: Option<u64>) {
        self.messages += 1;
        let Some(most) = max_messages else { return };
        self.newest.push_back(id);
        if self.newest.len() as u64 > most {
            self.newest.pop_front();
        }
    }

    /// Whether a message is older than those that may stay. By its id and not by its place in the queue, for others may have removed
    /// some before it meanwhile.
    fn is_too_much(&self, id: MessageId) -> bool {
        self.newest.front().is_some_and(|oldest| id < *oldest)
    }

    /// Whether a message has been on hold for longer than that. The time before the hold does not count: it waited for other reasons.
    fn has_too_old(&self, message: &Message, now: u64, max_age: Option<u64>) -> bool {
        let held_for = now.saturating_sub(message.header.received.max(self.since));
        max_age.is_some_and(|age| held_for > age)
    }
}

/// When a subject was held, if it is.
fn held_since(client: &mut Client, subject: &str) -> Result<Option<u64>, Error> {
    let status = client.status(subject)?;
    let hold = status.flags.into_iter().find(|flag| flag.kind == Kind::Hold && flag.subject == status.subject);
    Ok(hold.and_then(|hold| hold.since))
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
    let passes_gone = gone.len() as u64;
    match (tools.output.json, passes_gone) {
        (true, _) => tools.output.json(&Forgotten { command: "sweep", passes_gone }),
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

/// What was removed so far.
#[derive(Default)]
struct Removal {
    removed: Vec<MessageId>,
    /// Not there any more when Exim was to remove it: delivered, mostly.
    gone: Vec<MessageId>,
    /// Left alone, since we were asked to end.
    left: u64,
    /// What Exim did not remove, and why.
    stuck: Vec<(Place, String)>,
    /// Of whom these are is not known.
    unreadable: u64,
    /// Left alone, since they are not, or may not be, for the outside alone.
    doubtful: BTreeSet<MessageId>,
    /// Whether Exim keeps back what is held. Asked once, when it matters.
    keeps_back: OnceCell<bool>,
}

impl Removal {
    /// Has Exim remove what a search finds, if `of_whom` says on whose account it goes into the audit trail, with `why`. What was left
    /// before is found again.
    fn remove(
        &mut self,
        Tools { client, recorder, output, .. }: &mut Tools,
        exim: &Exim,
        search: Search<'_>,
        why: &str,
        interrupt: &Interrupt,
        mut of_whom: impl FnMut(&Message) -> Option<String>,
    ) -> Result<(), Failure> {
        let tried_before = !self.stuck.is_empty();
        self.left = 0;
        self.stuck.clear();
        let (mut batch, mut whose) = (Vec::new(), BTreeMap::new());
        let mut take = |removal: &mut Removal, batch: &mut Vec<Place>, whose: &mut BTreeMap<String, u64>| {
            if !interrupt.came() && !batch.is_empty() {
                let dropped = std::mem::take(whose).into_iter().map(|(subject, count)| Dropped {
                    subject,
                    reason: Some(format!("{}, {why}", show::messages(count))),
                });
                recorder.record_drop(dropped.collect())?;
            }
            removal.take(exim, &std::mem::take(batch), interrupt)
        };
        let unreadable = walk(client, output, exim, search, |output, message| {
            let Some(subject) = of_whom(&message) else { return Ok(()) };
            let why = if interrupt.came() { message.doubt.clone() } else { self.must_stay(exim, &message)? };
            if let Some(why) = why {
                return self.leave(message.place.id, &why, output);
            }
            self.doubtful.remove(&message.place.id);
            *whose.entry(subject).or_default() += 1;
            batch.push(message.place);
            if batch.len() < AT_ONCE { Ok(()) } else { take(self, &mut batch, &mut whose) }
        })?;
        take(self, &mut batch, &mut whose)?;
        self.unreadable = self.unreadable.max(unreadable);
        // Once is enough.
        if tried_before { Ok(()) } else { self.try_again(exim, interrupt) }
    }

    /// Why a message is not to be removed, if there is anything against it.
    fn must_stay(&self, exim: &Exim, message: &Message) -> Result<Option<String>, Failure> {
        if message.doubt.is_some() || message.here.is_empty() {
            return Ok(message.doubt.clone());
        }
        let mut waiting = message.here.clone();
        // Where Exim does not ask the daemon, it would send the message out.
        let holds = || exim.option("hold_domains").is_ok_and(|value| value.contains("acl_m_outgoingd_verdict"));
        if Stand::Held.fits(&message.judgement) && *self.keeps_back.get_or_init(holds) {
            exim.deliver(&message.place, Manner::LikeQueueRun)?;
            waiting = message.still_here().map_err(EximError::from)?;
        }
        Ok(waiting.first().map(|recipient| format!("{} is on this host and has not got it", show::safe(recipient))))
    }

    /// Leaves a message alone, and says why, once.
    fn leave(&mut self, id: MessageId, why: &str, output: &mut Output) -> Result<(), Failure> {
        if self.doubtful.insert(id) { output.warn(&format!("{id} was not removed: {why}")) } else { Ok(()) }
    }

    /// Has Exim remove some, unless we were asked to end.
    fn take(&mut self, exim: &Exim, places: &[Place], interrupt: &Interrupt) -> Result<(), Failure> {
        if interrupt.came() {
            self.left += places.len() as u64;
            return Ok(());
        }
        let stuck_before = self.stuck.len();
        for (place, removed) in exim.remove(places)? {
            match removed {
                Removed::Done => self.removed.push(place.id),
                Removed::Gone => self.gone.push(place.id),
                Removed::Stuck(why) => self.stuck.push((place.clone(), why)),
            }
        }
        // Not all of so many are being delivered in this moment.
        match self.stuck.last() {
            Some((_, why)) if self.stuck.len() - stuck_before >= AT_ONCE => {
                Err(Failure::Some(format!("Exim removes nothing: {why}")))
            }
            _ => Ok(()),
        }
    }

    /// Waits for what is being delivered, for a while.
    fn try_again(&mut self, exim: &Exim, interrupt: &Interrupt) -> Result<(), Failure> {
        // Exim writes a line into its log for each try.
        let (begun, mut pause) = (Instant::now(), PAUSE);
        while !self.stuck.is_empty() && begun.elapsed() < PATIENCE && !interrupt.came() {
            thread::sleep(pause);
            pause *= 2;
            let places: Vec<Place> = std::mem::take(&mut self.stuck).into_iter().map(|(place, _)| place).collect();
            places.chunks(AT_ONCE).try_for_each(|places| self.take(exim, places, interrupt))?;
        }
        Ok(())
    }

    /// Says how it went.
    fn report(&self, output: &mut Output, command: &str, subject: Option<&str>) -> Result<(), Failure> {
        let (removed, gone) = (self.removed.len() as u64, self.gone.len() as u64);
        let left = self.left + self.stuck.len() as u64 + self.doubtful.len() as u64;
        output.removed(&rows::Removal { command, subject, removed, gone, left })
    }

    /// Says how it went, also of what was done before it broke off, and ends as `done` or for what is still there.
    fn close(
        self,
        done: Result<(), Failure>,
        output: &mut Output,
        (command, subject): (&str, Option<&str>),
        left: &str,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        if done.is_ok() || !self.removed.is_empty() {
            self.report(output, command, subject)?;
        }
        done.and_then(|()| self.ended(output, command, left, interrupt))
    }

    /// Names what is still there, and fails if anything is; `left` says what becomes of that.
    fn ended(self, output: &mut Output, command: &str, left: &str, interrupt: &Interrupt) -> Result<(), Failure> {
        let stuck = self.stuck.len();
        for (place, why) in self.stuck {
            let refused = (format!("{} is still on the queue: {why}", place.id), "stuck");
            output.refused(command, place.id.as_str(), &refused)?;
        }
        let failure = if interrupt.came() {
            Failure::Interrupted(format!("{command} was interrupted; {left}"))
        } else if stuck > 0 {
            Failure::Some(format!("{command} could not remove {}; {left}", show::messages(stuck as u64)))
        } else if self.unreadable > 0 {
            let messages = show::messages(self.unreadable);
            Failure::Some(format!("{command} could not read {messages}, and of whom they are is not known; {left}"))
        } else if !self.doubtful.is_empty() {
            let messages = show::messages(self.doubtful.len() as u64);
            Failure::Some(format!("{command} did not remove {messages}, which are or may be local; {left}"))
        } else {
            return Ok(());
        };
        output.flush().and(Err(failure))
    }
}
