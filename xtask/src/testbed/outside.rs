//! The mail server of the outside world: accepts SMTP on a loopback port and keeps every message that reaches it.
//!
//! It takes everything until told to refuse it. The server stops listening when the value is dropped; connections that are still
//! open end with their peer or after a minute of silence.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// How long a test waits for a message to be stalled.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Envelope sender.
    pub sender: String,
    /// Envelope recipients.
    pub recipients: Vec<String>,
    /// Headers and body, lines ended by a bare newline.
    pub data: String,
}

/// The server.
#[derive(Debug)]
pub struct Outside {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something about stalled messages has changed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    received: Vec<Received>,
    refusal: Option<String>,
    refusals: HashMap<String, String>,
    delay: Duration,
    stalling: bool,
    stalled: usize,
    /// Messages of which the end has not been answered yet, now and at most so far.
    under_way: usize,
    most_under_way: usize,
    closing: bool,
}

impl Outside {
    /// Starts to listen on a free port.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept_all(&listener, &shared)
        });
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All messages so far, in order of arrival.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.state().received.clone()
    }

    /// The recipients of all messages so far, in order of arrival.
    #[must_use]
    pub fn recipients(&self) -> Vec<String> {
        self.received().into_iter().flat_map(|message| message.recipients).collect()
    }

    /// How many messages have arrived so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.state().received.len()
    }

    /// The most messages so far that were under way at the same time, from `DATA` to the answer to their end.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.shared.state().most_under_way
    }

    /// From now on answers every recipient by `reply`: `450 not now`, `550 never`.
    pub fn refuse_everyone(&self, reply: &str) {
        self.shared.state().refusal = Some(reply.to_owned());
    }

    /// From now on answers this recipient by `reply`.
    pub fn refuse(&self, recipient: &str, reply: &str) {
        self.shared.state().refusals.insert(recipient.to_owned(), reply.to_owned());
    }

    /// Takes everything again.
    pub fn accept_everyone(&self) {
        let mut state = self.shared.state();
        state.refusal = None;
        state.refusals.clear();
    }

    /// From now on takes this long over each message, once it is there as a whole.
    pub fn take_time(&self, delay: Duration) {
        self.shared.state().delay = delay;
    }

    /// From now on leaves the client of each message without an answer, once the message is there as a whole, until
    /// [`Outside::go_on`]. Only then is it received, also if its client has gone by then.
    pub fn stall(&self) {
        self.shared.state().stalling = true;
    }

    /// Waits until so many messages are stalled: their clients are in the middle of a delivery.
    pub fn wait_until_stalled(&self, messages: usize) -> Result<()> {
        let state = self.shared.state();
        let waited = self.shared.changed.wait_timeout_while(state, PATIENCE, |state| state.stalled < messages);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(state.stalled >= messages, "{} of {messages} messages are stalled after {PATIENCE:?}", state.stalled);
        Ok(())
    }

    /// Answers all stalled messages, and stalls no more.
    pub fn go_on(&self) {
        self.shared.state().stalling = false;
        self.shared.changed.notify_all();
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.changed.notify_all();
        // Wakes the acceptor; if even that fails it stays, harmless, until the process ends.
        if TcpStream::connect(self.address).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, message: Received) {
        self.state().received.push(message);
    }

    /// Counts a message as long as the value lives.
    fn begin(&self) -> UnderWay<'_> {
        let mut state = self.state();
        state.under_way += 1;
        state.most_under_way = state.most_under_way.max(state.under_way);
        UnderWay(self)
    }

    /// What this recipient is answered by instead of being taken.
    fn refusal(&self, recipient: &str) -> Option<String> {
        let state = self.state();
        state.refusals.get(recipient).or(state.refusal.as_ref()).cloned()
    }

    /// Returns when a message may be answered.
    fn dawdle(&self) {
        let delay = self.state().delay;
        thread::sleep(delay);
        let mut state = self.state();
        if !state.stalling {
            return;
        }
        state.stalled += 1;
        self.changed.notify_all();
        let waited = self.changed.wait_while(state, |state| state.stalling && !state.closing);
        waited.unwrap_or_else(PoisonError::into_inner).stalled -= 1;
    }
}

/// A message that is counted as under way.
struct UnderWay<'a>(&'a Shared);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
    }
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.state().closing {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        // A peer that breaks off is the peer's affair: its test sees that no message has come.
        thread::spawn(move || Conversation::hold(stream, &shared));
    }
}

/// One SMTP connection, seen from the server.
struct Conversation<'a> {
    stream: BufReader<TcpStream>,
    shared: &'a Shared,
    sender: String,
    recipients: Vec<String>,
}

impl<'a> Conversation<'a> {
    fn hold(stream: TcpStream, shared: &'a Shared) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut conversation =
            Self { stream: BufReader::new(stream), shared, sender: String::new(), recipients: Vec::new() };
        conversation.say("220 outside.test ESMTP")?;
        while let Some(line) = conversation.line()? {
            conversation.obey(&line)?;
        }
        Ok(())
    }

    fn obey(&mut self, line: &str) -> io::Result<()> {
        let verb = line.split([' ', ':']).next().unwrap_or_default();
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" | "HELO" | "NOOP" => self.say("250 outside.test"),
            "MAIL" => {
                self.sender = address_in(line);
                self.recipients.clear();
                self.say("250 sender taken")
            }
            "RCPT" => self.recipient(address_in(line)),
            "DATA" if self.recipients.is_empty() => self.say("503 no recipients"),
            "DATA" => self.message(),
            "RSET" => {
                self.recipients.clear();
                self.say("250 forgotten")
            }
            "QUIT" => self.say("221 good day"),
            _ => self.say("502 unknown command"),
        }
    }

    fn recipient(&mut self, recipient: String) -> io::Result<()> {
        if let Some(refusal) = self.shared.refusal(&recipient) {
            return self.say(&refusal);
        }
        self.recipients.push(recipient);
        self.say("250 recipient taken")
    }

    fn message(&mut self) -> io::Result<()> {
        let under_way = self.shared.begin();
        self.say("354 go ahead")?;
        let mut data = String::new();
        loop {
            let line = self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line == "." {
                break;
            }
            data.push_str(line.strip_prefix('.').unwrap_or(&line));
            data.push('\n');
        }
        self.shared.dawdle();
        self.shared.keep(Received { sender: self.sender.clone(), recipients: self.recipients.clone(), data });
        // Before it is answered: a client that has heard the answer may begin with the next one.
        drop(under_way);
        self.say("250 message taken")
    }

    fn say(&mut self, reply: &str) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{reply}\r\n").as_bytes())
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let length = self.stream.read_line(&mut line)?;
        let line = line.trim_end_matches(['\r', '\n']);
        Ok((length > 0).then(|| line.to_owned()))
    }
}

fn address_in(line: &str) -> String {
    let address = line.split(['<', '>']).nth(1);
    address.unwrap_or_default().to_owned()
}
