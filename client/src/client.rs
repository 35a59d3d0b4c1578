//! A blocking client: one connection, one method for each command.
//!
//! A client connects when it is first used, and again after an error, or when the daemon has closed a connection that was silent for
//! minutes. Every method sends one request and waits for its reply, at most [`TIMEOUT`]; [`Client::watch`] goes on for as long as
//! replies come. A change whose reply was lost may have been made; all changes can be repeated without harm.

use crate::protocol::codec::{self, CodecError};
use crate::protocol::frame::{self, FrameError, HEADER_LEN, Header};
use crate::protocol::message::{
    Call, Cause, Changed, Condition, Dropped, Flag, Imported, Judgement, Kind, Latencies, LogEntry, Refusal, Reply,
    Request, Retention, Secret, Sent, Stats, Status, Token,
};
use crate::protocol::text::{self, Verdict};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, recv};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for the daemon, for each read and write. A change waits for the disk, so this is generous.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Flags or log entries that [`Client::log`] asks for at once.
const LOG_PAGE: u32 = 1000;

/// Longest wait for the answer to a question as Exim asks it: what Exim's snippets wait.
const EXIMS_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: Option<UnixStream>,
    on_behalf_of: Option<String>,
    /// The secret and the function that each new connection begins with.
    token: Option<(Secret, String)>,
}

/// With what a flag is set.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// When it ends, in Unix seconds; none: when it is cleared.
    pub until: Option<u64>,
    /// Why, for administrators. None leaves the reason of a flag that is already set.
    pub reason: Option<String>,
    /// What a rejected sender is shown; goes with suspend only. None leaves the notice of a flag that is already set.
    pub notice: Option<String>,
}

/// Why a command had no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket, or this user may not connect.
    #[error("cannot reach outgoingd at {}: {source}", socket.display())]
    Unreachable {
        /// Path of the socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, or the daemon did not answer in time ([`TIMEOUT`], or for a question as Exim asks it 2 s).
    #[error("no answer from outgoingd at {}: {}", socket.display(), loss(source))]
    Lost {
        /// Path of the socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon refused; its words say which subject, why, and what to do next.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The daemon speaks another version of the protocol; its words name both.
    #[error("{0}")]
    Version(String),
    /// What came back is not a reply to what was asked.
    #[error("outgoingd sent what this client cannot read: {0}")]
    Garbled(String),
}

impl Client {
    /// A client of the daemon at `socket`. Connects to nothing yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Client {
        Client { socket: socket.into(), stream: None, on_behalf_of: None, token: None }
    }

    /// From now on, the audit trail names `whom` beside the user that the kernel names. It gives no right.
    pub fn on_behalf_of(&mut self, whom: impl Into<String>) {
        self.on_behalf_of = Some(whom.into());
    }

    /// From now on, everything is asked for by the token with this secret, and for this function, whose rights then count and not
    /// those of this user. Says which token it is.
    ///
    /// # Errors
    ///
    /// There is no such token, it has ended, or it is not good for the function; or any other [`Error`].
    pub fn present(&mut self, secret: &Secret, function: &str) -> Result<Token, Error> {
        let request = Request::Present { secret: secret.clone(), function: function.to_owned() };
        self.token = None;
        match self.call(request)? {
            Reply::Presented(token) => {
                self.token = Some((secret.clone(), function.to_owned()));
                Ok(token)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a token that is good for `functions`, or for all if there are none, until it is revoked or `until`, in Unix seconds. Its
    /// secret comes back, this once.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn create_token(&mut self, name: &str, functions: &[String], until: Option<u64>) -> Result<Secret, Error> {
        let request = Request::CreateToken { name: name.to_owned(), functions: functions.to_vec(), until };
        match self.call(request)? {
            Reply::Secret { secret } => Ok(secret),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends a token.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn revoke_token(&mut self, name: &str) -> Result<Changed, Error> {
        self.changed(Request::RevokeToken { name: name.to_owned() })
    }

    /// All tokens, in the order of their names.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn tokens(&mut self) -> Result<Vec<Token>, Error> {
        match self.call(Request::Tokens)? {
            Reply::Tokens(tokens) => Ok(tokens),
            other => Err(unexpected(&other)),
        }
    }

    /// Hands every account that the daemon knows by name to `each`, in their order: those of its list, and those that own a
    /// domain or have a flag. Where accounts are asked for and not listed, others may exist. Pages are fetched as they are needed.
    ///
    /// # Errors
    ///
    /// Any [`Error`], or what `each` returns.
    pub fn accounts<E: From<Error>>(&mut self, mut each: impl FnMut(String) -> Result<(), E>) -> Result<(), E> {
        let mut after = None;
        loop {
            let (accounts, more) = match self.call(Request::Accounts { after: after.take() })? {
                Reply::Accounts { accounts, more } => (accounts, more),
                other => return Err(unexpected(&other).into()),
            };
            after = accounts.last().cloned();
            accounts.into_iter().try_for_each(&mut each)?;
            if !more || after.is_none() {
                return Ok(());
            }
        }
    }

    /// Holds `subject`: its external mail waits on the queue. A hold that is set already is renewed: its end becomes
    /// that of `terms`.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn hold(&mut self, subject: &str, terms: &Terms) -> Result<Changed, Error> {
        self.set(Kind::Hold, subject, terms)
    }

    /// Clears the hold of `subject`. What waits leaves with Exim's next queue run.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn release(&mut self, subject: &str) -> Result<Changed, Error> {
        self.clear(Kind::Hold, subject)
    }

    /// Suspends `subject`: its external mail is rejected, and bounced where it waits. A suspend that is set already is
    /// renewed: its end becomes that of `terms`.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn suspend(&mut self, subject: &str, terms: &Terms) -> Result<Changed, Error> {
        self.set(Kind::Suspend, subject, terms)
    }

    /// Clears the suspend of `subject`.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn unsuspend(&mut self, subject: &str) -> Result<Changed, Error> {
        self.clear(Kind::Suspend, subject)
    }

    /// Lets one message of a held sender be delivered.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn pass(&mut self, message_id: &str) -> Result<Changed, Error> {
        self.changed(Request::Pass { message_id: message_id.to_owned() })
    }

    /// What covers `subject`, and to which verdict that leads.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn status(&mut self, subject: &str) -> Result<Status, Error> {
        match self.call(Request::Status { subject: subject.to_owned() })? {
            Reply::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// Hands every flag, or every flag of one kind, to `each`, in the order of their subjects. Pages are fetched as they
    /// are needed; a flag that changes meanwhile is seen as it was or as it is.
    ///
    /// # Errors
    ///
    /// Any [`Error`], or what `each` returns.
    pub fn list<E: From<Error>>(
        &mut self,
        kind: Option<Kind>,
        mut each: impl FnMut(Flag) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut after = None;
        loop {
            let (flags, more) = match self.call(Request::List { kind, after: after.take() })? {
                Reply::Flags { flags, more } => (flags, more),
                other => return Err(unexpected(&other).into()),
            };
            after = flags.last().map(|flag| (flag.subject.clone(), flag.kind));
            for flag in flags {
                each(flag)?;
            }
            if !more || after.is_none() {
                return Ok(());
            }
        }
    }

    /// Hands the newest `limit` entries of the audit trail, or of what it says about `subject`, to `each`, newest first.
    ///
    /// # Errors
    ///
    /// Any [`Error`], or what `each` returns.
    pub fn log<E: From<Error>>(
        &mut self,
        subject: Option<&str>,
        limit: u64,
        mut each: impl FnMut(LogEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut wanted, mut before) = (limit, None);
        while wanted > 0 {
            let limit = u32::try_from(wanted).unwrap_or(LOG_PAGE).min(LOG_PAGE);
            let request = Request::Log { subject: subject.map(str::to_owned), before, limit };
            let (entries, older) = match self.call(request)? {
                Reply::Log { entries, before } => (entries, before),
                other => return Err(unexpected(&other).into()),
            };
            wanted = wanted.saturating_sub(entries.len() as u64);
            for entry in entries {
                each(entry)?;
            }
            if older.is_none() {
                break;
            }
            before = older;
        }
        Ok(())
    }

    /// Sets many flags in one transaction. Those that are refused do not keep the others from being set.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; at most 1000 flags are taken at once, and what fits into one frame of 1 MiB.
    pub fn import(&mut self, flags: Vec<Flag>) -> Result<Imported, Error> {
        match self.call(Request::Import { flags })? {
            Reply::Imported(imported) => Ok(imported),
            other => Err(unexpected(&other)),
        }
    }

    /// Counters and latencies since the daemon started.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn stats(&mut self) -> Result<Stats, Error> {
        match self.call(Request::Stats)? {
            Reply::Stats(stats) => Ok(*stats),
            other => Err(unexpected(&other)),
        }
    }

    /// How long lookups have taken since the daemon started.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn latencies(&mut self) -> Result<Latencies, Error> {
        match self.call(Request::Latencies)? {
            Reply::Latencies(latencies) => Ok(latencies),
            other => Err(unexpected(&other)),
        }
    }

    /// Where the daemon keeps what it knows, and what is wrong with that.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; a daemon of an earlier release refuses.
    pub fn condition(&mut self) -> Result<Condition, Error> {
        match self.call(Request::Condition)? {
            Reply::Condition(condition) => Ok(condition),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until the fallback file, by which Exim goes while the daemon is down, shows all that was changed before; two
    /// seconds at most, which writing it takes only where there are a million flags or the disk is slow. Says why it does not.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn settle(&mut self) -> Result<Option<String>, Error> {
        match self.call(Request::Settle)? {
            Reply::Settled { warning } => Ok(warning),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether [`Client::suspend`] would be refused with these terms. Nothing is changed.
    ///
    /// # Errors
    ///
    /// Why it would, or any other [`Error`].
    pub fn rehearse_suspend(&mut self, subject: &str, terms: &Terms) -> Result<(), Error> {
        let Terms { until, reason, notice } = terms.clone();
        self.changed(Request::Rehearse { kind: Kind::Suspend, subject: subject.to_owned(), until, reason, notice })
            .map(drop)
    }

    /// What holds for messages on Exim's queue, in their order, and whether one of `subjects`, if there are any, covers their
    /// senders. Without messages it says whether the subjects are well formed.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; at most [`MAX_MESSAGES`] messages and [`MAX_SUBJECTS`] subjects are taken at once.
    ///
    /// [`MAX_MESSAGES`]: crate::protocol::message::MAX_MESSAGES
    /// [`MAX_SUBJECTS`]: crate::protocol::message::MAX_SUBJECTS
    pub fn judge(&mut self, subjects: &[String], messages: Vec<Sent>) -> Result<Vec<Judgement>, Error> {
        let sent = messages.len();
        match self.call(Request::Judge { subjects: subjects.to_vec(), messages })? {
            Reply::Judged(judgements) if judgements.len() == sent => Ok(judgements),
            Reply::Judged(judgements) => {
                Err(Error::Garbled(format!("{} judgements on {sent} messages", judgements.len())))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Writes into the audit trail that messages are being removed from Exim's queue; to be called before they are. Says how
    /// many entries that made. Removes nothing.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; at most [`MAX_MESSAGES`](crate::protocol::message::MAX_MESSAGES) are taken at once.
    pub fn record_drop(&mut self, dropped: Vec<Dropped>) -> Result<u32, Error> {
        self.counted(Request::Drop { dropped })
    }

    /// Hands the message id of every pass to `each`, in their order. Pages are fetched as they are needed.
    ///
    /// # Errors
    ///
    /// Any [`Error`], or what `each` returns.
    pub fn passes<E: From<Error>>(&mut self, mut each: impl FnMut(String) -> Result<(), E>) -> Result<(), E> {
        let mut after = None;
        loop {
            let (message_ids, more) = match self.call(Request::Passes { after: after.take() })? {
                Reply::Passes { message_ids, more } => (message_ids, more),
                other => return Err(unexpected(&other).into()),
            };
            after = message_ids.last().cloned();
            message_ids.into_iter().try_for_each(&mut each)?;
            if !more || after.is_none() {
                return Ok(());
            }
        }
    }

    /// Gives up the passes of messages that are gone. Says how many there were.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; at most [`MAX_MESSAGES`](crate::protocol::message::MAX_MESSAGES) are taken at once.
    pub fn forget(&mut self, message_ids: Vec<String>) -> Result<u32, Error> {
        self.counted(Request::Forget { message_ids })
    }

    /// What may stay held, as the configuration says it now.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn retention(&mut self) -> Result<Retention, Error> {
        match self.call(Request::Retention)? {
            Reply::Retention(retention) => Ok(retention),
            other => Err(unexpected(&other)),
        }
    }

    /// Follows the audit trail, or what it says about `subject`, oldest entry first: from behind the sequence number
    /// `after`, or from now on. Hands what has come to `each`: nothing at first, if nothing is there yet, and from that call
    /// on nothing is missed; nothing, too, every few seconds in which nothing happens.
    ///
    /// # Errors
    ///
    /// It ends with one: what `each` returns, or any [`Error`]; a daemon that stops refuses to go on. Whoever starts again
    /// behind the last sequence number that it was handed misses nothing and gets nothing twice.
    pub fn watch<E: From<Error>>(
        &mut self,
        subject: Option<&str>,
        after: Option<u64>,
        mut each: impl FnMut(&[LogEntry]) -> Result<(), E>,
    ) -> Result<(), E> {
        // The connection goes with the stream: there is no other way to end it.
        let (mut stream, mut reply) = self.begin(Request::Watch { subject: subject.map(str::to_owned), after })?;
        loop {
            match reply {
                Reply::Events { entries } => each(&entries)?,
                Reply::Refused(refusal) => return Err(Error::Refused(refusal).into()),
                other => return Err(unexpected(&other).into()),
            }
            reply = self.next(&mut stream, Ok(()))?;
        }
    }

    /// Asks as Exim does: in the text protocol, on a connection of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the identity, or the message id, is none; [`Error::Garbled`] when the answer is no verdict.
    pub fn check(&self, identity: &str, message_id: Option<&str>) -> Result<Verdict, Error> {
        let reply = self.ask(&text::Request::Check { message_id, identity })?;
        if reply == text::ERROR.as_bytes() {
            let message = format!(
                "outgoingd cannot take \"{}\" for a sender identity, or takes no more requests",
                identity.escape_debug()
            );
            return Err(Error::Refused(Refusal { cause: Cause::Invalid, message }));
        }
        Verdict::from_reply(&reply)
            .ok_or_else(|| Error::Garbled(format!("the answer \"{}\" is no verdict", reply.escape_ascii())))
    }

    /// Asks for a sender's notice as Exim does.
    ///
    /// # Errors
    ///
    /// [`Error::Garbled`] when the answer is not UTF-8.
    pub fn notice(&self, identity: &str) -> Result<String, Error> {
        let reply = self.ask(&text::Request::Notice { identity })?;
        String::from_utf8(reply).map_err(|_| Error::Garbled("the notice is not UTF-8".to_owned()))
    }

    fn set(&mut self, kind: Kind, subject: &str, terms: &Terms) -> Result<Changed, Error> {
        let Terms { until, reason, notice } = terms.clone();
        self.changed(Request::Set { kind, subject: subject.to_owned(), until, reason, notice })
    }

    fn clear(&mut self, kind: Kind, subject: &str) -> Result<Changed, Error> {
        self.changed(Request::Clear { kind, subject: subject.to_owned() })
    }

    fn changed(&mut self, request: Request) -> Result<Changed, Error> {
        match self.call(request)? {
            Reply::Changed(changed) => Ok(changed),
            other => Err(unexpected(&other)),
        }
    }

    fn counted(&mut self, request: Request) -> Result<u32, Error> {
        match self.call(request)? {
            Reply::Counted { count } => Ok(count),
            other => Err(unexpected(&other)),
        }
    }

    /// One request and its reply; a refusal is an error.
    fn call(&mut self, request: Request) -> Result<Reply, Error> {
        let (stream, reply) = self.begin(request)?;
        // Only a connection of which everything was understood is used again.
        self.stream = Some(stream);
        match reply {
            Reply::Refused(refusal) => Err(Error::Refused(refusal)),
            reply => Ok(reply),
        }
    }

    /// One request and the first reply to it, with the connection on which more may come.
    fn begin(&mut self, request: Request) -> Result<(UnixStream, Reply), Error> {
        // The daemon hangs up on who is silent for minutes. What it has not taken yet can go another way; what it may have taken
        // is not sent twice.
        let stream = match self.stream.take().filter(is_open) {
            Some(stream) => stream,
            None => self.connect()?,
        };
        self.send(stream, request)
    }

    fn connect(&self) -> Result<UnixStream, Error> {
        let stream = connect(&self.socket, TIMEOUT)?;
        let Some((secret, function)) = self.token.clone() else { return Ok(stream) };
        match self.send(stream, Request::Present { secret, function })? {
            (stream, Reply::Presented(_)) => Ok(stream),
            (_, Reply::Refused(refusal)) => Err(Error::Refused(refusal)),
            (_, other) => Err(unexpected(&other)),
        }
    }

    fn send(&self, mut stream: UnixStream, request: Request) -> Result<(UnixStream, Reply), Error> {
        let call = Call { on_behalf_of: self.on_behalf_of.clone(), request };
        // Whoever is refused before all is read cannot write the rest, but can read why.
        let sent = stream.write_all(&frame::seal(&codec::encode(&call)?)?);
        let reply = self.next(&mut stream, sent)?;
        Ok((stream, reply))
    }

    /// The next reply on a connection. If there is none, what went wrong when the request was `sent` is the reason.
    fn next(&self, stream: &mut UnixStream, sent: io::Result<()>) -> Result<Reply, Error> {
        let (header, payload) = receive(stream).map_err(|error| self.lost(sent.err().unwrap_or(error)))??;
        match header.version {
            frame::VERSION => Ok(codec::decode(&payload)?),
            frame::PLAIN_REFUSAL => Err(Error::Version(String::from_utf8_lossy(&payload).into_owned())),
            theirs => Err(Error::Version(format!(
                "outgoingd answers in protocol version {theirs}; this client speaks {}",
                frame::VERSION
            ))),
        }
    }

    fn ask(&self, request: &text::Request<'_>) -> Result<Vec<u8>, Error> {
        let mut stream = connect(&self.socket, EXIMS_TIMEOUT)?;
        let mut reply = Vec::new();
        stream
            .write_all(request.to_string().as_bytes())
            .and_then(|()| stream.shutdown(Shutdown::Write))
            .and_then(|()| stream.read_to_end(&mut reply))
            .map_err(|source| self.lost(source))?;
        Ok(reply)
    }

    fn lost(&self, source: io::Error) -> Error {
        Error::Lost { socket: self.socket.clone(), source }
    }
}

impl Error {
    /// Whether the daemon refused because this user may not do that.
    #[must_use]
    pub fn is_not_permitted(&self) -> bool {
        match self {
            Error::Refused(refusal) => refusal.cause == Cause::NotPermitted,
            Error::Unreachable { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Error::Lost { .. } | Error::Version(_) | Error::Garbled(_) => false,
        }
    }
}

impl From<CodecError> for Error {
    fn from(error: CodecError) -> Error {
        Error::Garbled(error.to_string())
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Error {
        Error::Garbled(error.to_string())
    }
}

fn receive(stream: &mut UnixStream) -> io::Result<Result<(Header, Vec<u8>), FrameError>> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header)?;
    let header = match Header::decode(&header) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    let mut payload = vec![0; header.length as usize];
    stream.read_exact(&mut payload)?;
    Ok(Ok((header, payload)))
}

/// Connects to a Unix stream socket. Connecting waits while its queue is full, each write and each read for its peer, so long at most.
///
/// # Errors
///
/// Nobody listens there, this user may not connect, or it took too long (`WouldBlock`).
pub fn connect_within(timeout: Duration, socket: &Path) -> io::Result<UnixStream> {
    let stream = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // In force for connect(2) too, which std would let wait for ever (unix(7)).
    sockopt::set_socket_timeout(&stream, Timeout::Send, Some(timeout))?;
    sockopt::set_socket_timeout(&stream, Timeout::Recv, Some(timeout))?;
    rustix::net::connect(&stream, &SocketAddrUnix::new(socket)?)?;
    Ok(stream.into())
}

fn connect(socket: &Path, timeout: Duration) -> Result<UnixStream, Error> {
    connect_within(timeout, socket).map_err(|source| {
        let source = match source.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "it did not let us in in time"),
            _ => source,
        };
        Error::Unreachable { socket: socket.to_path_buf(), source }
    })
}

/// Whether the other end has neither hung up nor said anything that nobody asked for.
fn is_open(stream: &UnixStream) -> bool {
    recv(stream, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_err_and(|error| error == Errno::AGAIN)
}

/// What became of a connection, in words.
fn loss(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        io::ErrorKind::WouldBlock => "not in time".to_owned(),
        _ => source.to_string(),
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::Garbled(format!("a reply to something else: {reply:?}"))
}
