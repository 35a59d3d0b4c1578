//! Held mail: Exim's queue, seen with the daemon's verdicts.
//!
//! There is no list of held messages anywhere. A message is held while its sender's verdict is hold, it has no pass, and
//! recipients outside are to go; so whoever wants to know reads the queue, asks the daemon about the senders, and Exim about the
//! recipients' domains.
//!
//! Both ends may change while that goes on. What is handed out was so when it was asked.

use crate::client::{Client, Error};
use crate::exim::{Domains, Exim, EximError, Header, MessageId, Place, PutOff, QueueError, as_routed};
use crate::protocol::message::{Judgement, MAX_MESSAGES, MAX_SUBJECTS, Sent};
use crate::protocol::text::{MAX_REQUEST, Verdict};
use std::collections::HashSet;

/// Messages, and recipients of theirs, that are in memory at the same time: thousands, since each time that Exim is asked about
/// domains costs as much as reading hundreds of messages.
const BATCH: usize = 8000;

/// Messages behind which it is said how far the walk has come.
const STRIDE: u64 = 250;

/// A message that waits for a recipient outside.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it is.
    pub place: Place,
    /// What Exim wrote down about it; `to_go` are those outside only.
    pub header: Header,
    /// What the daemon says of its sender.
    pub judgement: Judgement,
    /// That Exim cannot say of a domain whether it is outside, and why: then this may be no mail of ours to remove.
    pub doubt: Option<String>,
    /// Recipients on this host who have not got it yet. Removing the message would take it from them.
    pub here: Vec<String>,
}

/// What a walk along the queue comes by.
#[derive(Debug)]
pub enum Seen {
    /// A message that was looked for.
    Message(Box<Message>),
    /// One that could not be read.
    Unreadable(QueueError),
    /// So many more of the queue were looked at.
    Further(u64),
}

/// Why a walk ended early, or a message was not judged.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// The daemon.
    #[error(transparent)]
    Client(#[from] Error),
    /// Exim, or its queue.
    #[error(transparent)]
    Exim(#[from] EximError),
}

/// Which messages a walk looks for.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// Only those whose sender one of these covers; empty: everybody's.
    pub subjects: &'a [String],
    /// Only those of which this holds.
    pub of: Stand,
    /// Only those that came in before this moment, in Unix seconds.
    pub before: Option<u64>,
}

/// How a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Nothing stops it: the verdict on its sender is ok, or it has a pass.
    Free,
    /// It is held.
    Held,
    /// Its sender is suspended, so the next attempt to deliver it makes a bounce.
    Bouncing,
    /// One of the two.
    Stopped,
    /// Whatever it is.
    Any,
}

impl Stand {
    /// Whether a message stands so.
    #[must_use]
    pub fn fits(self, judgement: &Judgement) -> bool {
        match self {
            Stand::Free => !Stand::Stopped.fits(judgement),
            Stand::Held => judgement.verdict == Verdict::Hold && !judgement.passed,
            Stand::Bouncing => judgement.verdict == Verdict::Suspend,
            Stand::Stopped => Stand::Held.fits(judgement) || Stand::Bouncing.fits(judgement),
            Stand::Any => true,
        }
    }
}

/// A walk along Exim's queue, the oldest message first. Memory does not grow with the queue.
#[derive(Debug)]
pub struct Walk<'a> {
    client: &'a mut Client,
    exim: &'a Exim,
    domains: Domains,
}

impl<'a> Walk<'a> {
    /// Begins nothing yet.
    pub fn new(client: &'a mut Client, exim: &'a Exim) -> Walk<'a> {
        Walk { client, exim, domains: Domains::of(exim) }
    }

    /// Hands what is looked for to `see`, until that fails. First of all `begin` is told how many messages are on the queue.
    ///
    /// # Errors
    ///
    /// [`HeldError`], or what `see` returns.
    pub fn along<E: From<HeldError>>(
        &mut self,
        search: Search<'_>,
        begin: impl FnOnce(u64),
        mut see: impl FnMut(Seen) -> Result<(), E>,
    ) -> Result<(), E> {
        // Wrong subjects are refused however empty the queue is.
        self.judge(search.subjects, Vec::new())?;
        let mut messages = self.exim.queue.messages().map_err(in_queue)?;
        begin(messages.total());
        let (mut batch, mut size, mut passed, mut buffer) = (Vec::new(), 0, 0, Vec::new());
        loop {
            let place = messages.next().transpose().map_err(in_queue)?;
            let last = place.is_none();
            if let Some(place) = place {
                passed += 1;
                match place.read(&mut buffer) {
                    Ok(Some(header))
                        if header.identity.is_some() && search.before.is_none_or(|end| header.received < end) =>
                    {
                        size += 1 + header.to_go.len();
                        batch.push((place, header));
                    }
                    Ok(_) => {}
                    Err(error) => see(Seen::Unreadable(error))?,
                }
            }
            if last || size >= BATCH {
                size = 0;
                for message in self.choose(search, std::mem::take(&mut batch))? {
                    see(Seen::Message(Box::new(message)))?;
                }
            }
            if last || passed >= STRIDE {
                see(Seen::Further(std::mem::take(&mut passed)))?;
            }
            if last {
                return Ok(());
            }
        }
    }

    /// One message, whatever stops it and whoever is to get it; none if it is not on the queue. Its recipients to go are all of
    /// them, and Exim is asked about none.
    ///
    /// # Errors
    ///
    /// [`HeldError`]
    pub fn find(&mut self, id: MessageId) -> Result<Option<Message>, HeldError> {
        let Some(place) = self.exim.queue.find(id).map_err(EximError::from)? else { return Ok(None) };
        let Some(header) = place.read(&mut Vec::new()).map_err(EximError::from)? else { return Ok(None) };
        let judgement = match &header.identity {
            Some(identity) => self.judge(&[], vec![sent(id, identity)])?.pop(),
            None => None,
        };
        let judgement =
            judgement.unwrap_or(Judgement { verdict: Verdict::Ok, passed: false, through: None, covered: true });
        Ok(Some(Message { place, header, judgement, doubt: None, here: Vec::new() }))
    }

    /// The same message with what Exim says of its recipients, as a walk has it.
    ///
    /// # Errors
    ///
    /// [`HeldError`]
    pub fn examine(&mut self, message: Message) -> Result<Message, HeldError> {
        let mut one = [message];
        self.keep_outside(&mut one)?;
        let [message] = one;
        Ok(message)
    }

    /// Those of the batch that are looked for.
    fn choose(&mut self, search: Search<'_>, batch: Vec<(Place, Header)>) -> Result<Vec<Message>, HeldError> {
        let senders =
            batch.iter().map(|(place, header)| sent(place.id, header.identity.as_deref().unwrap_or_default()));
        let senders: Vec<Sent> = senders.collect();
        let mut judgements = Vec::with_capacity(senders.len());
        for senders in senders.chunks(MAX_MESSAGES) {
            judgements.append(&mut self.judge(search.subjects, senders.to_vec())?);
        }
        let judged = batch.into_iter().zip(judgements);
        let mut chosen: Vec<Message> = judged
            .filter(|(_, judgement)| judgement.covered && search.of.fits(judgement))
            .map(|((place, header), judgement)| Message { place, header, judgement, doubt: None, here: Vec::new() })
            .collect();
        self.keep_outside(&mut chosen)?;
        chosen.retain(|message| !message.header.to_go.is_empty());
        Ok(chosen)
    }

    /// Keeps, of the recipients to go of each message, those who are outside, with what is in doubt, and says who is here.
    fn keep_outside(&mut self, messages: &mut [Message]) -> Result<(), HeldError> {
        let all: Vec<Vec<String>> = messages.iter().map(|message| message.header.to_go.clone()).collect();
        let doubts = self.domains.keep_outside(messages.iter_mut().map(|message| &mut message.header.to_go))?;
        // A recipient here may have led to addresses outside, which is what waits then.
        let led = messages.iter().zip(&all).map(|(message, all)| {
            let has_one_here = message.header.to_go.len() < all.len();
            if has_one_here { message.place.put_off() } else { Vec::new() }
        });
        let led: Vec<Vec<PutOff>> = led.collect();
        let mut addresses: Vec<Vec<String>> =
            led.iter().map(|led| led.iter().map(|put_off| put_off.address.clone()).collect()).collect();
        let more_doubts = self.domains.keep_outside(addresses.iter_mut())?;
        let found = all.into_iter().zip(led).zip(addresses).zip(doubts.into_iter().zip(more_doubts));
        for (message, (((all, led), outside), (doubt, more_doubt))) in messages.iter_mut().zip(found) {
            message.here = here(all, &message.header.to_go, &led, &outside);
            message.header.to_go.extend(outside);
            message.doubt = doubt.or(more_doubt);
        }
        Ok(())
    }

    fn judge(&mut self, subjects: &[String], messages: Vec<Sent>) -> Result<Vec<Judgement>, HeldError> {
        let Some((first, others)) = subjects.split_at_checked(MAX_SUBJECTS).filter(|(_, others)| !others.is_empty())
        else {
            return Ok(self.client.judge(subjects, messages)?);
        };
        // The daemon takes so many subjects at once; any of them may cover a sender.
        let mut judgements = self.judge(others, messages.clone())?;
        for (judgement, more) in judgements.iter_mut().zip(self.client.judge(first, messages)?) {
            judgement.covered |= more.covered;
        }
        Ok(judgements)
    }
}

impl Message {
    /// Its size in bytes as Exim counts it, headers and body; none if it has left the queue.
    ///
    /// # Errors
    ///
    /// The queue cannot be read.
    pub fn size(&self) -> Result<Option<u64>, QueueError> {
        // And the empty line between the two.
        Ok(self.place.body_size()?.map(|body| self.header.size + 1 + body))
    }

    /// Those of [`Message::here`] who have not got it after another attempt. One who has led to outside addresses that were kept back
    /// stays among the recipients, and is none of them.
    ///
    /// # Errors
    ///
    /// The queue cannot be read.
    pub fn still_here(&self) -> Result<Vec<String>, QueueError> {
        let header = self.place.read(&mut Vec::new())?;
        let to_go: HashSet<String> = header.into_iter().flat_map(|header| header.to_go).collect();
        let led = self.place.put_off();
        let led_outside = |recipient: &str| {
            let name = as_routed(recipient);
            let addresses = led.iter().filter(|put_off| put_off.of == name).map(|put_off| put_off.address.clone());
            let addresses: Vec<String> = addresses.collect();
            !addresses.is_empty() && self.place.has_kept_back(&addresses)
        };
        let waits = |recipient: &&String| to_go.contains(*recipient) && !led_outside(recipient);
        Ok(self.here.iter().filter(waits).cloned().collect())
    }
}

/// Of all recipients to go those who are not outside, and have not led to addresses outside alone.
fn here(all: Vec<String>, to_go: &[String], led: &[PutOff], outside: &[String]) -> Vec<String> {
    let outside: HashSet<&String> = outside.iter().collect();
    let (led_outside, led_here): (Vec<&PutOff>, Vec<&PutOff>) =
        led.iter().partition(|put_off| outside.contains(&put_off.address));
    let names = |led: Vec<&PutOff>| led.into_iter().map(|put_off| put_off.of.clone()).collect::<HashSet<String>>();
    let (led_outside, led_here) = (names(led_outside), names(led_here));
    // In the same order, and some are left out.
    let mut to_go = to_go.iter().peekable();
    let is_here = |recipient: &String| {
        let name = as_routed(recipient);
        to_go.next_if_eq(&recipient).is_none() && (!led_outside.contains(&name) || led_here.contains(&name))
    };
    all.into_iter().filter(is_here).collect()
}

fn sent(id: MessageId, identity: &str) -> Sent {
    // About a longer name nobody can ask; the daemon takes it for that of anybody, as it takes any other that is none.
    let identity = if identity.len() <= MAX_REQUEST { identity } else { "" };
    Sent { message_id: id.as_str().to_owned(), identity: identity.to_owned() }
}

fn in_queue(error: QueueError) -> HeldError {
    HeldError::Exim(error.into())
}
