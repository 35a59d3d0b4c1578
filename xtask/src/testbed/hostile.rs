//! Users of the same host who wish the daemon ill: threads that have given up root for the uid of another user.
//!
//! The kernel takes a connection's credentials from the thread that connects, so to the daemon each is that user.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use outgoingd_client::protocol::codec;
use outgoingd_client::protocol::frame::{self, Header};
use outgoingd_client::protocol::message::{Call, Dropped, Kind, Request};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// A user of this host and one of its groups, by their numbers.
#[derive(Clone, Copy, Debug)]
pub struct User {
    uid: Uid,
    gid: Gid,
}

/// What a peer does, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Connects and says nothing; as many of it as it can have.
    Silence,
    /// The same, with a byte a second.
    Drip,
    /// The same, with half a frame each.
    HalfFrame,
    /// Connects and hangs up at once.
    Storm,
    /// Connects, waits for as long as it thinks it is waited for, and hangs up.
    Loiter,
    /// Asks and hangs up before the answer.
    HangUp,
    /// Says what is no request: NUL, newlines, 64 KiB, invalid UTF-8, frames that claim gigabytes, payloads that are none.
    Nonsense,
    /// Commands that it has no right to.
    Commands,
}

impl Attack {
    /// All of them.
    pub const ALL: [Attack; 8] = [
        Attack::Silence,
        Attack::Drip,
        Attack::HalfFrame,
        Attack::Storm,
        Attack::Loiter,
        Attack::HangUp,
        Attack::Nonsense,
        Attack::Commands,
    ];
}

/// Peers at work until this is dropped.
#[derive(Debug)]
pub struct Hostile {
    over: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl User {
    /// Asks the system who that is.
    pub fn named(user: &str, group: &str) -> Result<User> {
        let number = |database: &str, name: &str| -> Result<u32> {
            let entry = Command::new("getent").args([database, name]).output()?;
            let entry = String::from_utf8(entry.stdout)?;
            entry.split(':').nth(2).and_then(|id| id.parse().ok()).with_context(|| format!("no {name} in {database}"))
        };
        Ok(User { uid: Uid::from_raw(number("passwd", user)?), gid: Gid::from_raw(number("group", group)?) })
    }

    /// Does something as this user, on a thread of its own.
    pub fn does<T: Send + 'static>(self, work: impl FnOnce() -> Result<T> + Send + 'static) -> JoinHandle<Result<T>> {
        thread::spawn(move || {
            let User { uid, gid } = self;
            set_thread_groups(&[gid])?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
            work()
        })
    }
}

impl Hostile {
    /// Sends so many peers of a user against a socket, and waits until they have been at it.
    pub fn start(user: User, attack: Attack, peers: usize, socket: &Path) -> Result<Hostile> {
        let mut hostile = Hostile { over: Arc::default(), connections: Arc::default(), threads: Vec::new() };
        for _ in 0..peers {
            let (over, connections, socket) = (hostile.over.clone(), hostile.connections.clone(), socket.to_owned());
            hostile.threads.push(user.does(move || Peer { socket, over, connections }.attack(attack)));
        }
        super::wait_until("the first attacks", Duration::from_secs(10), || Ok(hostile.connections() > 200))?;
        Ok(hostile)
    }

    /// How many connections they have made.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Ends it; an attack that could not be made is an error.
    pub fn stop(mut self) -> Result<()> {
        self.over.store(true, Relaxed);
        self.threads.drain(..).try_for_each(|thread| thread.join().map_err(|_| anyhow!("a hostile peer panicked"))?)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
    }
}

struct Peer {
    socket: PathBuf,
    over: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
}

impl Peer {
    fn attack(&self, attack: Attack) -> Result<()> {
        let nonsense = nonsense();
        let commands = commands()?;
        let half_frame = Header { version: frame::VERSION, length: 1 << 20 }.encode();
        for round in 0.. {
            match attack {
                Attack::Silence => return self.keep(b""),
                Attack::Drip => return self.keep(b"c"),
                Attack::HalfFrame => return self.keep(&half_frame),
                Attack::Storm => drop(self.connect()?),
                Attack::Loiter => {
                    let peer = self.connect()?;
                    thread::sleep(Duration::from_micros(150));
                    drop(peer);
                }
                Attack::HangUp => self.say(b"check alice\n")?,
                Attack::Nonsense => self.say_and_listen(&nonsense[round % nonsense.len()])?,
                Attack::Commands => self.say_and_listen(&commands[round % commands.len()])?,
            }
            if self.over.load(Relaxed) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn connect(&self) -> Result<UnixStream> {
        let peer = UnixStream::connect(&self.socket).context("a hostile peer could not connect")?;
        peer.set_read_timeout(Some(Duration::from_secs(5)))?;
        self.connections.fetch_add(1, Relaxed);
        Ok(peer)
    }

    /// Has a hundred connections at any time, each with these words, and a byte more each second if they are few.
    fn keep(&self, words: &[u8]) -> Result<()> {
        let open = || -> Result<UnixStream> {
            let mut peer = self.connect()?;
            let _ = peer.write_all(words);
            peer.set_nonblocking(true)?;
            Ok(peer)
        };
        let mut peers = (0..100).map(|_| open()).collect::<Result<Vec<_>>>()?;
        let mut second = Instant::now();
        while !self.over.load(Relaxed) {
            let drips = second.elapsed() > Duration::from_secs(1) && words.len() == 1;
            for peer in &mut peers {
                let gone = match peer.read(&mut [0; 16]) {
                    Err(error) => error.kind() != ErrorKind::WouldBlock,
                    Ok(_) => true,
                };
                if gone || (drips && peer.write_all(words).is_err()) {
                    *peer = open()?;
                }
            }
            if drips {
                second = Instant::now();
            }
        }
        Ok(())
    }

    fn say(&self, words: &[u8]) -> Result<()> {
        // Whoever is hung up on is hung up on.
        let _ = self.connect()?.write_all(words);
        Ok(())
    }

    fn say_and_listen(&self, words: &[u8]) -> Result<()> {
        let mut peer = self.connect()?;
        let _ = peer.write_all(words).and_then(|()| peer.shutdown(std::net::Shutdown::Write));
        let mut reply = Vec::new();
        match peer.read_to_end(&mut reply) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(anyhow!("no answer to {}", shown(words))),
            _ => {
                let verdict = [&b"ok"[..], b"hold", b"suspend"].contains(&&reply[..]);
                ensure!(!verdict, "{} was answered by {}", shown(words), reply.escape_ascii());
                Ok(())
            }
        }
    }
}

fn shown(words: &[u8]) -> String {
    words.escape_ascii().take(80).map(char::from).collect()
}

/// What is no request.
fn nonsense() -> Vec<Vec<u8>> {
    let claim = |length: u32| [&frame::MAGIC[..], &frame::VERSION.to_be_bytes(), &length.to_be_bytes()].concat();
    vec![
        b"\0".to_vec(),
        b"check \0\n".to_vec(),
        b"check alice\0bob\n".to_vec(),
        b"\n".repeat(1000),
        b"check alice\nhold alice\n".to_vec(),
        b"check \xff\xfe\xc3\n".to_vec(),
        [b"check ".to_vec(), vec![b'a'; 64 << 10]].concat(),
        vec![b'\n'; 64 << 10],
        vec![0xff; 64 << 10],
        claim(u32::MAX),
        claim((1 << 20) + 1),
        claim(1 << 20),
        [claim(7), b"\xff\xff\xff\xff\xff\xff\xff".to_vec()].concat(),
        [&claim(0)[..], &claim(0)].concat(),
        b"\xf5GET / HTTP/1.1\r\n\r\n".to_vec(),
    ]
}

/// What takes a right.
fn commands() -> Result<Vec<Vec<u8>>> {
    let subject = || "alice".to_owned();
    let requests = [
        Request::Set { kind: Kind::Hold, subject: subject(), until: None, reason: None, notice: None },
        Request::Clear { kind: Kind::Hold, subject: subject() },
        Request::Pass { message_id: "1rABCD-000abc-XY".to_owned() },
        Request::List { kind: None, after: None },
        Request::Log { subject: None, before: None, limit: u32::MAX },
        Request::Stats,
        Request::Settle,
        Request::Judge { subjects: vec![subject()], messages: Vec::new() },
        Request::Drop { dropped: vec![Dropped { subject: subject(), reason: None }] },
        Request::Passes { after: None },
        Request::Forget { message_ids: vec!["1rABCD-000abc-XY".to_owned()] },
        Request::Retention,
        Request::Watch { subject: None, after: Some(0) },
    ];
    let call = |request| Ok(frame::seal(&codec::encode(&Call { on_behalf_of: Some("root".to_owned()), request })?)?);
    requests.into_iter().map(call).collect()
}
