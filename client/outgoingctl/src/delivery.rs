//! Having Exim deliver what waited: `release` and `deliver`, and `pass` for single messages.

use crate::Failure;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::rows::{Delivered, DeliveredTotal, Delivering};
use crate::show;
use crate::tools::{Refused, Tools, bar, find};
use indicatif::ProgressBar;
use outgoingd_client::Client;
use outgoingd_client::exim::{Exim, EximError, Manner, Outcome, Place, QueueError};
use outgoingd_client::held::{Search, Seen, Stand, Walk};
use outgoingd_client::protocol::message::Judgement;
use outgoingd_client::protocol::text::Verdict;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Reports that may wait to be printed.
const REPORTS: usize = 64;

/// Different reasons that are counted; more of them are counted as one.
const REASONS: usize = 20;

/// How long to wait for a message that somebody else is delivering, between two tries.
const PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1)];

/// What becomes known while messages are delivered.
enum Report {
    /// So many are on the queue, to be looked at.
    Begin(u64),
    /// So many more were looked at.
    Further(u64),
    /// Exim has tried one, or would not have delivered it.
    Tried(Place, Outcome),
    /// One is left alone, since we were asked to end.
    Left,
    /// One could not be read.
    Unreadable(QueueError),
    /// What makes it useless to go on.
    Broken(Failure),
}

/// Has Exim deliver, a few messages at a time, what waits of the senders that `subjects` cover and that nothing stops any more:
/// as a queue run would, so that what waits for another reason goes on waiting. What another flag still stops is counted, and the
/// flag named. `command` is what was typed.
pub(crate) fn deliver(
    tools: &mut Tools,
    exim: &Exim,
    subjects: &[String],
    command: &'static str,
    jobs: u8,
) -> Result<(), Failure> {
    let interrupt = Interrupt::listen()?;
    let Tools { client, output, .. } = tools;
    let (report, reports) = sync_channel(REPORTS);
    // No place to wait: the next message is looked for when somebody can deliver it.
    let (found, places) = sync_channel(0);
    let places = &Mutex::new(places);
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (report, interrupt) = (report.clone(), interrupt.clone());
            scope.spawn(move || work(exim, places, &report, &interrupt));
        }
        let searching = interrupt.clone();
        scope.spawn(move || {
            if let Err(failure) = search(client, exim, subjects, &found, &report, &searching) {
                // Nobody listens if nobody can go on.
                let _ = report.send(Report::Broken(failure));
            }
        });
        attend(output, reports, command, &interrupt)
    })
}

/// Delivers what is found, until nothing more is.
fn work(exim: &Exim, places: &Mutex<Receiver<Place>>, report: &SyncSender<Report>, interrupt: &Interrupt) {
    loop {
        let place = places.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(place) = place else { return };
        let outcome = if interrupt.came() {
            Report::Left
        } else {
            match deliver_unlocked(exim, &place, interrupt) {
                Ok(outcome) => Report::Tried(place, outcome),
                Err(error) => Report::Broken(error.into()),
            }
        };
        if report.send(outcome).is_err() {
            return;
        }
    }
}

/// Has Exim deliver a message, again for a while if somebody else is at it: who may have begun before it was released.
fn deliver_unlocked(exim: &Exim, place: &Place, interrupt: &Interrupt) -> Result<Outcome, EximError> {
    let mut outcome = exim.deliver(place, Manner::LikeQueueRun)?;
    for pause in PAUSES {
        if !outcome.is_locked() || interrupt.came() {
            break;
        }
        thread::sleep(pause);
        outcome = exim.deliver(place, Manner::LikeQueueRun)?;
    }
    Ok(outcome)
}

/// Finds what can be delivered.
fn search(
    client: &mut Client,
    exim: &Exim,
    subjects: &[String],
    found: &SyncSender<Place>,
    report: &SyncSender<Report>,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    // Whoever listens does so until nobody can say anything any more.
    let tell = |what| report.send(what).map_err(|_| Failure::Enough);
    let begin = |total| drop(tell(Report::Begin(total)));
    let see = |seen| match seen {
        Seen::Message(message) if !Stand::Free.fits(&message.judgement) => {
            let Judgement { verdict, through, .. } = message.judgement;
            let why = format!("still {} through {}", show::participle(verdict), through.unwrap_or_default());
            tell(Report::Tried(message.place, Outcome::Waiting(why)))
        }
        Seen::Message(_) if interrupt.came() => tell(Report::Left),
        Seen::Message(message) => found.send(message.place).map_err(|_| Failure::Enough),
        Seen::Unreadable(error) => tell(Report::Unreadable(error)),
        Seen::Further(count) => tell(Report::Further(count)),
    };
    Walk::new(client, exim).along(Search { subjects, of: Stand::Any, before: None }, begin, see)
}

/// Prints what becomes known, until all is done. Never ends before, or the others would wait for it.
fn attend(
    output: &mut Output,
    reports: Receiver<Report>,
    command: &'static str,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let (bar, mut tally, mut broken) = (bar(), Tally { command, ..Tally::default() }, None);
    for report in reports {
        let attended = match report {
            Report::Begin(total) => {
                bar.set_length(total);
                begin(output, command, total)
            }
            Report::Further(count) => {
                bar.inc(count);
                Ok(())
            }
            Report::Tried(place, outcome) => tally.tried(output, &bar, &place, outcome),
            Report::Left => {
                tally.left += 1;
                Ok(())
            }
            Report::Unreadable(error) => bar.suspend(|| output.warn(&error.to_string())),
            Report::Broken(failure) => Err(failure),
        };
        if let Err(failure) = attended {
            interrupt.stop();
            broken.get_or_insert(failure);
        }
    }
    bar.finish_and_clear();
    // Whoever could not look does not know that nothing waited.
    if broken.is_none() || tally.is_some() {
        tally.print(output)?;
    }
    match broken {
        Some(failure) => Err(failure),
        None if interrupt.came() => output.flush().and(Err(Failure::Interrupted(
            "interrupted: what is left goes with Exim's next queue run, or with the same command again".to_owned(),
        ))),
        None => Ok(()),
    }
}

/// Tells whoever started a `deliver` and does not wait for its end that nothing was in its way.
fn begin(output: &mut Output, command: &str, on_queue: u64) -> Result<(), Failure> {
    if output.json && command == "deliver" {
        output.json(&Delivering { command, on_queue })?;
        output.flush()?;
    }
    Ok(())
}

/// What has become of the messages so far.
#[derive(Default)]
struct Tally {
    command: &'static str,
    delivered: u64,
    gone: u64,
    failed: u64,
    waiting: u64,
    left: u64,
    /// Why messages failed or wait, and how many of each.
    reasons: BTreeMap<String, u64>,
}

impl Tally {
    fn tried(
        &mut self,
        output: &mut Output,
        bar: &ProgressBar,
        place: &Place,
        outcome: Outcome,
    ) -> Result<(), Failure> {
        let row = Delivered::new(self.command, place.id, &outcome);
        let printed = if output.json { bar.suspend(|| output.json(&row)) } else { Ok(()) };
        match outcome {
            Outcome::Delivered => self.delivered += 1,
            Outcome::Gone => self.gone += 1,
            Outcome::Failed(reason) => {
                self.failed += 1;
                self.count(format!("failed: {reason}"));
            }
            Outcome::Waiting(reason) => {
                self.waiting += 1;
                self.count(reason);
            }
        }
        bar.set_message(format!("({} delivered, {} still waiting)", self.delivered, self.waiting));
        printed
    }

    fn count(&mut self, reason: String) {
        let known = self.reasons.contains_key(&reason) || self.reasons.len() < REASONS;
        *self.reasons.entry(if known { reason } else { "other reasons".to_owned() }).or_default() += 1;
    }

    /// Whether there was anything.
    fn is_some(&self) -> bool {
        self.delivered + self.gone + self.failed + self.waiting + self.left > 0
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        let Tally { command, delivered, gone, failed, waiting, left, reasons } = self;
        if output.json {
            let (delivered, gone, failed, waiting, left) = (*delivered, *gone, *failed, *waiting, *left);
            return output.json(&DeliveredTotal { command, delivered, gone, failed, waiting, left });
        }
        if !self.is_some() {
            return output.text("nothing waited\n");
        }
        let mut parts = vec![format!("{} delivered", show::messages(*delivered))];
        for (count, what) in
            [(gone, "gone meanwhile"), (failed, "failed, and bounced"), (waiting, "still waiting"), (left, "left")]
        {
            if *count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        output.text(&format!("{}\n", parts.join(", ")))?;
        reasons.iter().try_for_each(|(reason, count)| output.text(&format!("  {count}: {}\n", show::safe(reason))))
    }
}

/// Lets single messages of held senders go, and has Exim deliver them now. All are tried.
pub(crate) fn pass(tools: &mut Tools, message_ids: &[String]) -> Result<(), Failure> {
    let exim = tools.exim()?;
    let mut failed = 0;
    for raw in message_ids {
        if let Err(refused) = pass_one(tools, &exim, raw)? {
            failed += 1;
            tools.output.refused("pass", raw, &refused)?;
        }
    }
    tools.output.some_failed("pass", failed, message_ids.len())
}

/// Refused: nothing was changed, or Exim could not deliver the message.
fn pass_one(tools: &mut Tools, exim: &Exim, raw: &str) -> Result<Result<(), Refused>, Failure> {
    let message = match find(&mut Walk::new(&mut tools.client, exim), raw, "let through")? {
        Ok(message) => message,
        Err(refused) => return Ok(Err(refused)),
    };
    let (id, identity) = (message.place.id, message.header.identity.as_deref().unwrap_or("nobody"));
    match message.judgement.verdict {
        Verdict::Hold => {}
        Verdict::Suspend => {
            let why = format!(
                "{id} was not let through: its sender {identity} is suspended, so Exim would bounce it; unsuspend first"
            );
            return Ok(Err((why, "suspended")));
        }
        Verdict::Ok => {
            let why =
                format!("{id} needs no pass: its sender {identity} is not held; see `exim -Mvl {id}` for why it waits");
            return Ok(Err((why, "not-held")));
        }
    }
    tools.client.pass(id.as_str())?;
    let outcome = exim.deliver(&message.place, Manner::Forced)?;
    if !matches!(outcome, Outcome::Waiting(_)) {
        // Nothing is left that it could be for.
        tools.client.forget(vec![id.to_string()])?;
    }
    let words = match &outcome {
        Outcome::Failed(reason) => {
            return Ok(Err((format!("{id} was let through, and bounced: {reason}"), "failed")));
        }
        _ if tools.output.json => return tools.output.json(&Delivered::new("pass", id, &outcome)).map(Ok),
        Outcome::Delivered => "delivered".to_owned(),
        Outcome::Gone => "has left the queue by itself".to_owned(),
        Outcome::Waiting(reason) => format!("may be delivered, and waits: {}", show::safe(reason)),
    };
    tools.output.text(&format!("{id}: {words}\n")).map(Ok)
}
