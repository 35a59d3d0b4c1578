//! One administrator's connection: frame in, request carried out, frame out, and again; or, for one who watches, frames out for as
//! long as both sides want.
//!
//! Sessions run on the administration thread, so that nothing an administrator asks for, however large, delays a lookup. What
//! may wait for the disk or for NSS waits on helper threads. A peer without any right is told so once and
//! disconnected.

use crate::authorise::{self, Peer, Right};
use crate::follow::Follower;
use crate::lookup::{Answers, Visitor};
use crate::requests::Requests;
use crate::slow;
use crate::stop::Stop;
use crate::token::{self, Hash};
use crate::tokens;
use nix::sys::socket::{UnixCredentials, getsockopt, sockopt::PeerCredentials};
use outgoingd_client::protocol::codec;
use outgoingd_client::protocol::frame::{self, FrameError, HEADER_LEN, Header};
use outgoingd_client::protocol::message::{Call, Cause, Refusal, Reply, Request};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tracing::debug;

/// How long a session may be silent between two requests.
const IDLE: Duration = Duration::from_secs(300);

/// How long a watcher is taken to have the right that it had, if the configuration stays as it is.
const RIGHT_HOLDS: Duration = Duration::from_secs(30);

/// Why a session ended before its peer hung up.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the peer did not complete a frame, or take a reply, in time")]
    Slow(#[from] time::error::Elapsed),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Codec(#[from] codec::CodecError),
}

/// Serves visitors, slow peers and administrators alike, until nobody can send any more; `stop` ends sessions between two
/// requests. Returns when all have finished what they were at.
pub async fn serve(
    requests: Requests,
    answers: Answers,
    mut visitors: mpsc::UnboundedReceiver<Visitor>,
    deadline: Duration,
    stop: Stop,
) {
    let mut tasks = JoinSet::new();
    while let Some(visitor) = visitors.recv().await {
        let (requests, answers, stop) = (requests.clone(), answers.clone(), stop.clone());
        tasks.spawn(async move {
            let Some(administrator) = slow::attend(&answers, visitor, deadline).await else { return };
            if let Err(error) = session(&requests, administrator, deadline, stop).await {
                debug!("a session of an administrator ended: {error}");
            }
        });
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

async fn session(
    requests: &Requests,
    visitor: Visitor,
    deadline: Duration,
    mut stop: Stop,
) -> Result<(), SessionError> {
    let Visitor { stream, mut received, permit: _permit, accepted: _ } = visitor;
    let credentials = getsockopt(&stream, PeerCredentials).map_err(io::Error::from)?;
    let mut stream = UnixStream::from_std(stream)?;
    // The token by which this peer asks, and for which function.
    let mut presented: Option<(Hash, String)> = None;
    loop {
        let first = tokio::select! {
            biased;
            first = time::timeout(IDLE, first_bytes(&mut stream, &mut received)) => first??,
            () = stop.stopped() => return Ok(()),
        };
        if first == First::End {
            return Ok(());
        }
        let header = time::timeout(deadline, read_header(&mut stream, &mut received)).await??;
        if header.version != frame::VERSION {
            let refusal = frame::seal_as(frame::PLAIN_REFUSAL, wrong_version(header.version).as_bytes())?;
            return Ok(time::timeout(deadline, stream.write_all(&refusal)).await??);
        }
        // Who may do nothing here is told so before anything is kept of what it sends.
        let (peer, right) = match requests.identify(&credentials).await {
            Ok((peer, Right::Nothing)) => {
                return send(requests, &mut stream, deadline, Reply::Refused(not_permitted(&peer, Right::Nothing)))
                    .await;
            }
            Ok(identified) => identified,
            Err(refusal) => return send(requests, &mut stream, deadline, Reply::Refused(refusal)).await,
        };
        let payload =
            time::timeout(deadline, read_payload(&mut stream, &mut received, header.length as usize)).await??;
        let reply = match codec::decode::<Call>(&payload) {
            Ok(Call { request: Request::Present { secret, function }, .. }) => {
                let hash = Hash::of(&secret);
                let outcome = requests.present(hash, &function).await;
                presented = outcome.is_ok().then_some((hash, function));
                outcome.map_or_else(Reply::Refused, Reply::Presented)
            }
            Ok(call) => match (&presented, call.request) {
                (Some((hash, function)), request) => by_token(requests, &peer, request, *hash, function).await,
                (None, request) if right < authorise::needed(&request) => Reply::Refused(not_permitted(&peer, right)),
                (None, Request::Watch { subject, after }) => {
                    if received.is_empty() {
                        watch(requests, &credentials, &mut stream, deadline, (subject, after)).await?;
                    }
                    return Ok(());
                }
                (None, request) => requests.handle(&peer, Call { request, ..call }).await,
            },
            Err(error) => Reply::Refused(Refusal { cause: Cause::Invalid, message: error.to_string() }),
        };
        send(requests, &mut stream, deadline, reply).await?;
        if stop.is_said() {
            return Ok(());
        }
    }
}

/// Carries out what is asked for by a token. It may have ended, or been revoked, since it was presented.
async fn by_token(requests: &Requests, peer: &Peer, request: Request, hash: Hash, function: &str) -> Reply {
    if !token::covers(function, &request) {
        return Reply::Refused(tokens::not_covered(function));
    }
    match requests.present(hash, function).await {
        Ok(token) => {
            let on_behalf_of = Some(tokens::on_behalf_of(&token));
            tokens::without_words(requests.handle(peer, Call { on_behalf_of, request }).await)
        }
        Err(refusal) => Reply::Refused(refusal),
    }
}

/// Sends what comes in the trail about a subject, or all of it, from behind an entry or from now on, until there is a reason
/// against it, which is sent too; or until the peer hangs up or says something.
async fn watch(
    requests: &Requests,
    credentials: &UnixCredentials,
    stream: &mut UnixStream,
    deadline: Duration,
    (subject, after): (Option<String>, Option<u64>),
) -> Result<(), SessionError> {
    let (mut reading, mut writing) = stream.split();
    let sending = async {
        let mut follower = match Follower::new(requests, subject.as_deref(), after).await {
            Ok(follower) => follower,
            Err(refusal) => return send(requests, &mut writing, deadline, Reply::Refused(refusal)).await,
        };
        let (mut policy, mut looked_at) = (requests.policy(), Instant::now());
        loop {
            let mut next = follower.next().await;
            // Whoever has lost the right since is not told this any more.
            if looked_at.elapsed() >= RIGHT_HOLDS || !Arc::ptr_eq(&policy, &requests.policy()) {
                (policy, looked_at) = (requests.policy(), Instant::now());
                match requests.identify(credentials).await {
                    Ok((_, right)) if right >= Right::Look => {}
                    Ok((peer, right)) => next = Err(not_permitted(&peer, right)),
                    Err(refusal) => next = Err(refusal),
                }
            }
            match next {
                Ok(entries) => send(requests, &mut writing, deadline, Reply::Events { entries }).await?,
                Err(refusal) => return send(requests, &mut writing, deadline, Reply::Refused(refusal)).await,
            }
        }
    };
    let mut anything = [0];
    tokio::select! {
        outcome = sending => outcome,
        _ = reading.read(&mut anything) => Ok(()),
    }
}

async fn send(
    requests: &Requests,
    stream: &mut (impl AsyncWrite + Unpin),
    deadline: Duration,
    reply: Reply,
) -> Result<(), SessionError> {
    if let Reply::Refused(refusal) = &reply {
        requests.stats.refused.fetch_add(1, Relaxed);
        debug!(cause = ?refusal.cause, "refused: {}", refusal.message);
    }
    let frame = frame::seal(&codec::encode(&reply)?)?;
    Ok(time::timeout(deadline, stream.write_all(&frame)).await??)
}

fn wrong_version(theirs: u16) -> String {
    let ours = frame::VERSION;
    format!(
        "outgoingd speaks version {ours} of its protocol, this client version {theirs}; use the outgoingctl of the same release"
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Some,
    End,
}

/// Waits for the first bytes of a frame, if none are here yet.
async fn first_bytes(stream: &mut UnixStream, received: &mut Vec<u8>) -> io::Result<First> {
    let came = !received.is_empty() || stream.read_buf(received).await? > 0;
    Ok(if came { First::Some } else { First::End })
}

/// Reads a header; `received` holds what was read already, and keeps what comes behind.
async fn read_header(stream: &mut UnixStream, received: &mut Vec<u8>) -> Result<Header, SessionError> {
    fill(stream, received, HEADER_LEN).await?;
    let behind = received.split_off(HEADER_LEN);
    let mut header = [0; HEADER_LEN];
    header.copy_from_slice(received);
    *received = behind;
    Ok(Header::decode(&header)?)
}

/// Reads a payload of that length; `received` keeps what belongs to the next frame.
async fn read_payload(stream: &mut UnixStream, received: &mut Vec<u8>, length: usize) -> Result<Vec<u8>, SessionError> {
    received.reserve(length.saturating_sub(received.len()));
    fill(stream, received, length).await?;
    let behind = received.split_off(length);
    Ok(std::mem::replace(received, behind))
}

async fn fill(stream: &mut UnixStream, received: &mut Vec<u8>, length: usize) -> Result<(), SessionError> {
    while received.len() < length {
        if stream.read_buf(received).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(())
}

fn not_permitted(peer: &Peer, right: Right) -> Refusal {
    let (may, where_to) = match right {
        Right::Look => ("may look but not change", "admin-users or admin-groups"),
        Right::Sweep => ("may look, record removals and forget passes, but not change", "admin-users or admin-groups"),
        Right::Present => ("may only do what a token is good for, and has presented none", "another of the lists"),
        Right::Nothing | Right::Change => {
            ("may neither look nor change", "one of the lists (token-users, if it is to present tokens)")
        }
    };
    let message = format!("{} {may}: become root, or be named in {where_to} of [access] in outgoingd.toml", peer.name);
    Refusal { cause: Cause::NotPermitted, message }
}
