//! The way of a lookup: accept, read what is there, answer, close. This is the product; everything else is off its way.
//!
//! Shape, and why: [`THREADS`] threads block in accept, read each connection once, and answer at once what is complete there, or a
//! moment later, which is what Exim sends. So a lookup takes accept, a read (two, if it is the end-of-file that ends the
//! request), one write, close; no allocation, no timer, no event loop, no other thread. Behind an event loop a
//! lookup took longer in every run (ARCHITECTURE.md has the figures).
//!
//! Only a peer whose request is not there yet ([`slow`](crate::slow)) and one that begins like an administrator's frame
//! ([`session`](crate::session)) are handed to the administration thread, counted and with a deadline. So a peer can keep a
//! lookup thread for a fifth of a millisecond, once in a while, and no longer.
//!
//! Bounds: a request's length and deadline; connections that wait, in all and for one user; at descriptor exhaustion
//! accepting pauses and resumes. A peer that is turned away is told `error`, as one that is too slow, which Exim's snippets
//! take as "daemon failed" and look into the fallback file.

use crate::answer::answer;
use crate::clock::Clock;
use crate::connections::{Connections, Permit};
use crate::stats::Stats;
use crate::stop::Stop;
use crate::table::Table;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use outgoingd_client::protocol::{frame, text};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

/// Threads that answer. One would do; with a second, one that the kernel has put aside keeps nobody waiting.
pub const THREADS: usize = 2;

/// Shortest and longest pause in accepting when descriptors or memory have run out.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// How long a lookup thread waits for a request that is not there yet, once, before it hands the connection over. Long enough
/// for a peer between its connect and its write, short enough to cost the next one nothing that shows.
const GRACE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000 };

/// How long a lookup thread does not wait again for a user who had nothing to ask in that time, and how many such users there are
/// when it waits for nobody. So one costs a hundredth of its time, however often it connects, and all together a sixth.
const DISAPPOINTED: Duration = Duration::from_millis(20);
const DISAPPOINTING: usize = 16;

/// The longest text request, its newline, and one byte to see that there is more.
pub(crate) const BUFFER: usize = text::MAX_REQUEST + 2;

/// Answers complete requests.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The state.
    pub table: Arc<Table>,
    /// Counters.
    pub stats: Arc<Stats>,
    /// The time.
    pub clock: Clock,
}

/// Accepts connections, and answers or hands over.
#[derive(Clone, Debug)]
pub struct Lookups {
    /// The answers.
    pub answers: Answers,
    /// Who waits.
    pub connections: Connections,
    /// Where everybody goes who is not answered at once.
    pub visitors: mpsc::UnboundedSender<Visitor>,
}

/// A connection that is not answered at once.
#[derive(Debug)]
pub struct Visitor {
    /// The connection, not blocking.
    pub stream: UnixStream,
    /// What was read of it.
    pub received: Vec<u8>,
    /// When it was accepted.
    pub accepted: Instant,
    /// Its place among the counted connections.
    pub permit: Permit,
}

/// What has come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// All of it.
    Complete,
    /// Not all of it.
    Partial,
    /// The beginning of an administrator's frame.
    Frame,
    /// Nothing, and nothing will.
    Gone,
}

impl Lookups {
    /// Accepts and answers until `stop`, and until one more connection has come: see [`wake`]. Blocks its thread.
    pub fn serve(&self, listener: &UnixListener, stop: &Stop) {
        let (mut pause, mut grace) = (None, Grace::default());
        while !stop.is_said() {
            match accept(listener) {
                Ok(connection) => {
                    if pause.take().is_some() {
                        info!("connections are accepted again");
                    }
                    self.meet(connection, &mut grace);
                }
                // That one peer has gone already, or a signal came; the next may be there.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO) => {}
                Err(error) => {
                    // Said once, however long it lasts.
                    if pause.is_none() {
                        warn!("cannot accept connections: {error}; trying again, up to every {} s", PAUSE.1.as_secs());
                    }
                    let next = pause.map_or(PAUSE.0, |last: Duration| (last * 2).min(PAUSE.1));
                    thread::sleep(next);
                    pause = Some(next);
                }
            }
        }
    }

    /// Accepts and answers who waits already, and nobody who comes later than that.
    pub fn drain(&self, listener: &UnixListener) {
        if listener.set_nonblocking(true).is_ok() {
            let mut grace = Grace::default();
            while let Ok(connection) = accept(listener) {
                self.meet(connection, &mut grace);
            }
        }
    }

    fn meet(&self, connection: OwnedFd, grace: &mut Grace) {
        let accepted = Instant::now();
        let mut buffer = [0; BUFFER];
        let (mut look, mut length) = read(&connection, &mut buffer, 0);
        let mut uid = None;
        if matches!(look, Look::Partial | Look::Frame) {
            uid = getsockopt(&connection, PeerCredentials).ok().map(|peer| peer.uid());
        }
        if let (Look::Partial, Some(uid)) = (look, uid)
            && grace.is_given(uid, accepted)
        {
            // Whatever comes of it, the next read tells.
            let _ = poll(&mut [PollFd::new(&connection, PollFlags::IN)], Some(&GRACE));
            (look, length) = read(&connection, &mut buffer, length);
            if length == 0 || look == Look::Partial {
                grace.was_in_vain(uid, accepted);
            }
        }
        let received = &buffer[..length];
        match look {
            Look::Complete => self.answers.give(&connection, received, accepted),
            Look::Gone => {}
            Look::Partial | Look::Frame => self.hand_over(connection, received, uid, accepted),
        }
    }

    /// Counts a connection in, if there is a place for its user, and hands it over.
    fn hand_over(&self, connection: OwnedFd, received: &[u8], uid: Option<u32>, accepted: Instant) {
        let Some(permit) = uid.and_then(|uid| self.connections.admit(uid)) else {
            self.answers.stats.turned_away.fetch_add(1, Relaxed);
            debug!(uid, "too many connections wait, or the peer is unknown: one was turned away");
            refuse(&connection);
            return;
        };
        let visitor = Visitor { stream: connection.into(), received: received.to_vec(), accepted, permit };
        // If nobody takes it, the daemon is stopping: closing is the answer.
        let _ = self.visitors.send(visitor);
    }
}

impl Answers {
    /// One write of one reply. It fits any socket buffer, so whoever cannot take it has hung up.
    pub(crate) fn give(&self, connection: &impl AsFd, request: &[u8], accepted: Instant) {
        let answer = answer(request, &self.table, self.clock.now());
        answer.count(&self.stats);
        debug!(request = %request.escape_ascii(), ?answer, "lookup");
        let _ = rustix::net::send(connection, &answer.reply(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        self.stats.latency.record(accepted.elapsed());
    }
}

/// Tells a peer of the text protocol that it has no answer, without one that could be taken for a verdict. An administrator
/// takes it for a connection that was lost.
pub(crate) fn refuse(connection: &impl AsFd) {
    let _ = rustix::net::send(connection, text::ERROR.as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

/// Makes a thread that blocks in accept look up, by a connection that says nothing.
///
/// # Errors
///
/// There is no way to connect; the thread then sees `stop` when its next peer comes.
pub fn wake(socket: &Path) -> rustix::io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connection = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&connection, &SocketAddrUnix::new(socket)?) {
        // The queue is full, so the thread has enough to wake it.
        Err(Errno::AGAIN) => Ok(()),
        outcome => outcome,
    }
}

fn accept(listener: &UnixListener) -> rustix::io::Result<OwnedFd> {
    rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

/// For whose questions a lookup thread waits a moment: everybody's, but for those who let it wait in vain lately.
#[derive(Debug, Default)]
struct Grace(Vec<(u32, Instant)>);

impl Grace {
    fn is_given(&mut self, uid: u32, now: Instant) -> bool {
        self.0.retain(|(_, when)| now.saturating_duration_since(*when) < DISAPPOINTED);
        self.0.len() < DISAPPOINTING && self.0.iter().all(|(other, _)| *other != uid)
    }

    fn was_in_vain(&mut self, uid: u32, now: Instant) {
        self.0.push((uid, now));
    }
}

/// Reads what is there, behind what was read before.
fn read(connection: &OwnedFd, buffer: &mut [u8; BUFFER], mut length: usize) -> (Look, usize) {
    loop {
        match rustix::net::recv(connection, &mut buffer[length..], RecvFlags::DONTWAIT) {
            Ok((_, read)) => {
                length += read;
                match judge(&buffer[..length], read == 0) {
                    Look::Partial => {}
                    decided => return (decided, length),
                }
            }
            Err(Errno::AGAIN) => return (Look::Partial, length),
            Err(Errno::INTR) => {}
            Err(_) => return (Look::Gone, length),
        }
    }
}

/// What `received` is, given whether the peer has ended it.
pub(crate) fn judge(received: &[u8], ended: bool) -> Look {
    if received.first() == Some(&frame::MAGIC[0]) {
        return Look::Frame;
    }
    // What stands behind the newline is part of the request, and makes it malformed.
    match text::end_of_request(received) {
        Some(_) => Look::Complete,
        None if received.len() >= BUFFER => Look::Complete,
        None if ended => Look::Complete,
        None => Look::Partial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_waited_for_in_vain_is_not_waited_for_again_for_a_while_and_others_are() {
        let (mut grace, start) = (Grace::default(), Instant::now());
        assert!(grace.is_given(1000, start));
        grace.was_in_vain(1000, start);
        assert!(!grace.is_given(1000, start + DISAPPOINTED / 2));
        assert!(grace.is_given(1001, start + DISAPPOINTED / 2));
        assert!(grace.is_given(1000, start + DISAPPOINTED));
    }

    #[test]
    fn nobody_is_waited_for_while_many_let_it_wait_in_vain() {
        let (mut grace, start) = (Grace::default(), Instant::now());
        for uid in (1000..).take(DISAPPOINTING) {
            assert!(grace.is_given(uid, start));
            grace.was_in_vain(uid, start);
        }
        assert!(!grace.is_given(0, start));
        assert!(grace.is_given(0, start + DISAPPOINTED));
    }
}
