//! The way of a lookup: accept, read what is there, answer, close. This is the product; everything else is off its way.
//!
//! Shape, and why: one thread accepts until nobody waits, reads each connection once without waiting, and answers at once
//! whatever is complete, which is what Exim sends. Only a peer whose request is not there yet gets a task, a deadline and
//! a place among the counted connections. A connection that begins like an administrator's frame is handed to the
//! administrators' thread. So a lookup takes accept, two reads (the second sees the end-of-file), one write, close; no
//! allocation, no timer, no other thread.
//!
//! Bounds: a request's length and deadline; connections that wait, in all and for one user; at descriptor exhaustion
//! accepting pauses and resumes. A peer that is turned away sees its connection closed without a reply, which Exim's
//! snippets take as "daemon failed" and look into the fallback file.

use crate::answer::answer;
use crate::clock::Clock;
use crate::connections::{Connections, Permit};
use crate::stats::Stats;
use crate::stop::Stop;
use crate::table::Table;
use outgoingd_client::protocol::{frame, text};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time;
use tracing::{debug, warn};

/// Connections accepted in a row before other tasks get their turn.
const BURST: usize = 64;

/// Shortest and longest pause in accepting when descriptors or memory have run out.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// The longest text request, its newline, and one byte to see that there is more.
const BUFFER: usize = text::MAX_REQUEST + 2;

/// What lookups share with the rest of the daemon.
#[derive(Clone, Debug)]
pub struct Lookups {
    /// The state.
    pub table: Arc<Table>,
    /// Counters.
    pub stats: Arc<Stats>,
    /// Who waits.
    pub connections: Connections,
    /// The time.
    pub clock: Clock,
    /// Time in which a request must be complete.
    pub deadline: Duration,
    /// Where connections of administrators go.
    pub administrators: mpsc::UnboundedSender<Visitor>,
}

/// A connection that began like an administrator's frame.
#[derive(Debug)]
pub struct Visitor {
    /// The connection, not blocking.
    pub stream: UnixStream,
    /// What was read of it.
    pub received: Vec<u8>,
    /// Its place among the counted connections.
    pub permit: Permit,
}

/// What the first read of a connection showed.
enum Look {
    /// A whole request of that length.
    Complete(usize),
    /// So many bytes, and more to come.
    Partial(usize),
    /// The beginning of a frame, so many bytes of it.
    Frame(usize),
    /// The peer is gone.
    Gone,
}

impl Lookups {
    /// Serves `listener` until `stop`; then answers who already waits in its queue if `drain`, and waits for the slow.
    ///
    /// # Errors
    ///
    /// The listener cannot be watched.
    pub async fn serve(self, listener: UnixListener, mut stop: Stop, drain: Drain) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        #[allow(
            deprecated,
            reason = "unsound only for a type that changes its descriptor, which std's listener does not; \
                                      the new spelling would be an `unsafe` of our own"
        )]
        let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
        let mut slow = JoinSet::new();
        let mut pause = PAUSE.0;
        loop {
            let mut ready = tokio::select! {
                biased;
                () = stop.stopped() => break,
                ready = listener.readable() => ready?,
            };
            match self.accept_burst(listener.get_ref(), &mut slow) {
                // The others on this thread, the slow peers, get their turn.
                Ok(Backlog::Waiting) => tokio::task::yield_now().await,
                Ok(Backlog::Empty) => {
                    ready.clear_ready();
                    pause = PAUSE.0;
                }
                Err(error) => {
                    warn!("cannot accept connections: {error}; trying again in {} ms", pause.as_millis());
                    time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
            while slow.try_join_next().is_some() {}
        }
        if drain == Drain::Queue {
            while let Ok(Backlog::Waiting) = self.accept_burst(listener.get_ref(), &mut slow) {}
        }
        drop(listener);
        while slow.join_next().await.is_some() {}
        Ok(())
    }

    /// Accepts and answers until nobody waits, or for [`BURST`] connections.
    fn accept_burst(&self, listener: &UnixListener, slow: &mut JoinSet<()>) -> Result<Backlog, Errno> {
        for _ in 0..BURST {
            match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(connection) => self.meet(connection, slow),
                Err(Errno::AGAIN) => return Ok(Backlog::Empty),
                // That one peer has gone already, or a signal came; the next may be there.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Backlog::Waiting)
    }

    fn meet(&self, connection: OwnedFd, slow: &mut JoinSet<()>) {
        let accepted = Instant::now();
        let mut buffer = [0; BUFFER];
        match look(&connection, &mut buffer) {
            Look::Complete(length) => self.reply(&connection, &buffer[..length], accepted),
            Look::Gone => {}
            Look::Partial(length) => {
                self.stats.slow_peers.fetch_add(1, Relaxed);
                if let Some(visitor) = self.admit(connection, &buffer[..length]) {
                    slow.spawn(self.clone().wait(visitor, accepted));
                }
            }
            Look::Frame(length) => {
                if let Some(visitor) = self.admit(connection, &buffer[..length]) {
                    self.hand_over(visitor);
                }
            }
        }
    }

    /// Counts a connection in, if there is a place for its user.
    fn admit(&self, connection: OwnedFd, received: &[u8]) -> Option<Visitor> {
        let uid = sockopt::socket_peercred(&connection).map(|peer| peer.uid.as_raw());
        let Some(permit) = uid.ok().and_then(|uid| self.connections.admit(uid)) else {
            self.stats.turned_away.fetch_add(1, Relaxed);
            debug!(uid = uid.ok(), "too many connections wait: one was closed");
            return None;
        };
        Some(Visitor { stream: connection.into(), received: received.to_vec(), permit })
    }

    fn hand_over(&self, visitor: Visitor) {
        // If the administrators' thread has ended, the daemon is stopping: closing is the answer.
        let _ = self.administrators.send(visitor);
    }

    /// Waits for the rest of a slow peer's request, within the deadline.
    async fn wait(self, visitor: Visitor, accepted: Instant) {
        match time::timeout(self.deadline, self.read_on(visitor, accepted)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!("lost a slow peer: {error}"),
            Err(_) => drop(self.stats.timed_out.fetch_add(1, Relaxed)),
        }
    }

    async fn read_on(&self, Visitor { stream, mut received, permit }: Visitor, accepted: Instant) -> io::Result<()> {
        let mut stream = tokio::net::UnixStream::from_std(stream)?;
        loop {
            let mut more = [0; BUFFER];
            let room = BUFFER - received.len();
            let read = stream.read(&mut more[..room]).await?;
            received.extend_from_slice(&more[..read]);
            match judge(&received, read == 0) {
                Look::Complete(length) => {
                    let connection = OwnedFd::from(stream.into_std()?);
                    self.reply(&connection, &received[..length], accepted);
                    return Ok(());
                }
                Look::Frame(_) => {
                    self.hand_over(Visitor { stream: stream.into_std()?, received, permit });
                    return Ok(());
                }
                Look::Gone => return Ok(()),
                Look::Partial(_) => {}
            }
        }
    }

    /// One write of one reply. It fits any socket buffer, so whoever cannot take it has hung up.
    fn reply(&self, connection: &OwnedFd, request: &[u8], accepted: Instant) {
        let answer = answer(request, &self.table, self.clock.now());
        answer.count(&self.stats);
        debug!(request = %request.escape_ascii(), ?answer, "lookup");
        let _ = send(connection, &answer.reply(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        self.stats.latency.record(accepted.elapsed());
    }
}

/// Whether more connections wait to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backlog {
    Waiting,
    Empty,
}

/// What becomes of connections that wait to be accepted when the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// They are answered: the socket goes with the daemon.
    Queue,
    /// They stay in the queue: the socket is systemd's, and the next daemon answers.
    Leave,
}

/// Reads what is there, without waiting.
fn look(connection: &OwnedFd, buffer: &mut [u8; BUFFER]) -> Look {
    let mut length = 0;
    loop {
        match recv(connection, &mut buffer[length..], RecvFlags::DONTWAIT) {
            Ok((_, read)) => {
                length += read;
                match judge(&buffer[..length], read == 0) {
                    Look::Partial(_) => {}
                    other => return other,
                }
            }
            Err(Errno::AGAIN) => return Look::Partial(length),
            Err(Errno::INTR) => {}
            Err(_) => return Look::Gone,
        }
    }
}

/// What `received` is, given whether the peer has ended it.
fn judge(received: &[u8], ended: bool) -> Look {
    if received.first() == Some(&frame::MAGIC[0]) {
        return Look::Frame(received.len());
    }
    match text::end_of_request(received) {
        // All of it, so that what stands behind the newline makes it malformed.
        Some(_) => Look::Complete(received.len()),
        None if received.len() == BUFFER => Look::Complete(received.len()),
        None if ended && received.is_empty() => Look::Gone,
        None if ended => Look::Complete(received.len()),
        None => Look::Partial(received.len()),
    }
}
