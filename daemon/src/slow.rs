//! Peers whose request was not complete when they were accepted: each waits in a task of its own, for the rest or for the
//! deadline, on the administration thread.

use crate::lookup::{Answers, BUFFER, Look, Visitor, judge, refuse};
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::{self, Instant};
use tracing::debug;

/// Waits for the rest of a request and answers it. Gives the visitor back if it turns out to be an administrator.
pub async fn attend(answers: &Answers, visitor: Visitor, deadline: Duration) -> Option<Visitor> {
    if judge(&visitor.received, false) == Look::Frame {
        return Some(visitor);
    }
    answers.stats.slow_peers.fetch_add(1, Relaxed);
    match read_on(answers, visitor, Instant::now() + deadline).await {
        Ok(administrator) => administrator,
        Err(error) => {
            debug!("lost a slow peer: {error}");
            None
        }
    }
}

async fn read_on(answers: &Answers, visitor: Visitor, deadline: Instant) -> io::Result<Option<Visitor>> {
    let Visitor { stream, mut received, accepted, permit } = visitor;
    let mut stream = UnixStream::from_std(stream)?;
    loop {
        let mut more = [0; BUFFER];
        let Ok(read) = time::timeout_at(deadline, stream.read(&mut more[..BUFFER - received.len()])).await else {
            answers.stats.timed_out.fetch_add(1, Relaxed);
            refuse(&stream);
            return Ok(None);
        };
        let read = read?;
        received.extend_from_slice(&more[..read]);
        match judge(&received, read == 0) {
            Look::Complete => {
                answers.give(&stream, &received, accepted);
                return Ok(None);
            }
            Look::Frame => return Ok(Some(Visitor { stream: stream.into_std()?, received, accepted, permit })),
            Look::Gone => return Ok(None),
            Look::Partial => {}
        }
    }
}
