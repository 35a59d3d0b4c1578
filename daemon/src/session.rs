//! One administrator's connection: frame in, request carried out, frame out, and again.
//!
//! Sessions run on a thread of their own, so that nothing an administrator asks for, however large, delays a lookup. What
//! may wait for the disk or for NSS waits on yet another thread. A peer without any right is told so once and
//! disconnected.

use crate::authorise::{self, Peer, Right, Rules};
use crate::lookup::{Answers, Visitor};
use crate::requests::Requests;
use crate::slow;
use crate::stop::Stop;
use outgoingd_client::protocol::codec;
use outgoingd_client::protocol::frame::{self, FrameError, HEADER_LEN, Header};
use outgoingd_client::protocol::message::{Call, Cause, Refusal, Reply};
use rustix::net::sockopt;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time;
use tracing::debug;

/// How long a session may be silent between two requests.
const IDLE: Duration = Duration::from_secs(300);

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
    #[error("a helper thread failed: {0}")]
    Helper(#[from] tokio::task::JoinError),
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
    let credentials = sockopt::socket_peercred(&stream).map_err(io::Error::from)?;
    let mut stream = UnixStream::from_std(stream)?;
    let (uid, gid, pid) = (credentials.uid.as_raw(), credentials.gid.as_raw(), credentials.pid.as_raw_pid());
    let peer = tokio::task::spawn_blocking(move || Peer::identify(uid, gid, pid.cast_unsigned())).await?;
    loop {
        let first = tokio::select! {
            biased;
            first = time::timeout(IDLE, first_bytes(&mut stream, &mut received)) => first??,
            () = stop.stopped() => return Ok(()),
        };
        if first == First::End {
            return Ok(());
        }
        let (header, payload) = time::timeout(deadline, read_frame(&mut stream, &mut received)).await??;
        if header.version != frame::VERSION {
            let words = format!(
                "outgoingd speaks version {} of its protocol, this client version {}; use the outgoingctl of the same release",
                frame::VERSION,
                header.version
            );
            let refusal = frame::seal_as(frame::PLAIN_REFUSAL, words.as_bytes())?;
            return Ok(time::timeout(deadline, stream.write_all(&refusal)).await??);
        }
        let right = right_of(requests, &peer).await?;
        let reply = match codec::decode::<Call>(&payload) {
            Ok(call) if right >= authorise::needed(&call.request) => requests.handle(&peer, call).await,
            Ok(_) => Reply::Refused(not_permitted(&peer, right)),
            Err(error) => Reply::Refused(Refusal { cause: Cause::Invalid, message: error.to_string() }),
        };
        if let Reply::Refused(refusal) = &reply {
            requests.stats.refused.fetch_add(1, Relaxed);
            debug!(uid = peer.uid, cause = ?refusal.cause, "refused: {}", refusal.message);
        }
        let frame = frame::seal(&codec::encode(&reply)?)?;
        time::timeout(deadline, stream.write_all(&frame)).await??;
        if right == Right::Nothing {
            return Ok(());
        }
    }
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

/// Reads one frame; `received` holds what was read already, and takes what belongs to the next frame.
async fn read_frame(stream: &mut UnixStream, received: &mut Vec<u8>) -> Result<(Header, Vec<u8>), SessionError> {
    fill(stream, received, HEADER_LEN).await?;
    let mut header = [0; HEADER_LEN];
    header.copy_from_slice(&received[..HEADER_LEN]);
    let header = Header::decode(&header)?;
    let end = HEADER_LEN + header.length as usize;
    fill(stream, received, end).await?;
    let payload = received[HEADER_LEN..end].to_vec();
    received.drain(..end);
    Ok((header, payload))
}

async fn fill(stream: &mut UnixStream, received: &mut Vec<u8>, length: usize) -> Result<(), SessionError> {
    while received.len() < length {
        if stream.read_buf(received).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(())
}

/// Names and groups are looked up for each request: somebody who was taken out of a group loses the right at once.
async fn right_of(requests: &Requests, peer: &Peer) -> Result<Right, SessionError> {
    if peer.uid == 0 {
        return Ok(Right::Change);
    }
    let access = requests.policy().access.clone();
    let (rules, _unknown) = tokio::task::spawn_blocking(move || Rules::resolve(&access)).await?;
    Ok(authorise::right(peer, &rules))
}

fn not_permitted(peer: &Peer, right: Right) -> Refusal {
    let (may, where_to) = match right {
        Right::Look => ("may look but not change", "admin-users or admin-groups"),
        Right::Nothing | Right::Change => ("may neither look nor change", "one of the lists"),
    };
    let message = format!("{} {may}: become root, or be named in {where_to} of [access] in outgoingd.toml", peer.name);
    Refusal { cause: Cause::NotPermitted, message }
}
