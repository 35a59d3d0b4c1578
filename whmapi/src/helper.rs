//! The helper: does with Exim's queue what the HTTP service may not, for whoever has a token.
//!
//! A connection is one request, a line of JSON (`{"secret":"…","function":"…","subject":"…"}`), and one answer, another one
//! (`{"count":2}` or `{"error":"…"}`). The helper has the rights of root and trusts nobody: it asks the daemon itself whether the
//! token is good for the function, does what that function takes and nothing else, to one account or mailbox, and has the token
//! named in the audit trail. One process serves one connection.

use crate::answer::Refused;
use crate::outgoingctl::{LONGEST, Outgoingctl};
use crate::server::Operation;
use outgoingd_client::protocol::function;
use outgoingd_client::protocol::message::Secret;
use outgoingd_client::{Client, connect_within};
use serde_json::{Value, json};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// How long a request may take to come, and anything to be sent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest request and longest answer in bytes.
const LONGEST_MESSAGE: usize = 32 << 10;

/// Asks the helper that listens at `socket` to do with what waits of `subject` what `function` takes. A delivery has begun then.
pub(crate) fn ask(socket: &Path, secret: &Secret, function: &str, subject: &str) -> Result<u64, Refused> {
    let failed = |error: io::Error| {
        let at = socket.display();
        Refused(format!("cannot ask for Exim's queue at {at}: {error}; see systemctl status outgoing-queue.socket"))
    };
    let mut stream = connect_within(PATIENCE, socket).map_err(failed)?;
    let request = json!({ "secret": secret.0, "function": function, "subject": subject });
    writeln!(stream, "{request}").and_then(|()| stream.shutdown(Shutdown::Write)).map_err(failed)?;
    let answer = read_line(&mut stream, LONGEST + PATIENCE).map_err(failed)?;
    if answer.is_empty() {
        return Err(failed(io::Error::new(
            ErrorKind::UnexpectedEof,
            "it said nothing: too many ask at once, or it failed",
        )));
    }
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    match (answer.get("count").and_then(Value::as_u64), answer.get("error").and_then(Value::as_str)) {
        (Some(count), _) => Ok(count),
        (None, Some(error)) => Err(Refused(error.to_owned())),
        (None, None) => Err(failed(io::Error::new(ErrorKind::InvalidData, "it sent what is no answer"))),
    }
}

/// Serves one connection, and returns when all is done that it asked for: long after the answer, where that is a delivery.
/// `outgoingctl` says how that is run; on whose behalf, the token decides.
///
/// # Errors
///
/// The connection broke.
pub fn serve(mut stream: UnixStream, outgoingctl: &Outgoingctl) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = read_line(&mut stream, PATIENCE)?;
    let (answer, delivery) = match carry_out(&request, outgoingctl) {
        Ok((count, delivery)) => (json!({ "count": count }), delivery),
        Err(Refused(words)) => (json!({ "error": words }), None),
    };
    let answered = writeln!(stream, "{answer}");
    drop(stream);
    // The service manager ends what a service leaves behind.
    delivery.map(|mut child| child.wait()).transpose()?;
    answered
}

fn carry_out(request: &[u8], outgoingctl: &Outgoingctl) -> Result<(u64, Option<Child>), Refused> {
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    let text = |name: &str| {
        let text = request.get(name).and_then(Value::as_str);
        text.ok_or_else(|| {
            Refused(format!("a request is one line of JSON with secret, function and subject; no {name}"))
        })
    };
    let (secret, function, subject) = (Secret(text("secret")?.to_owned()), text("function")?, text("subject")?);
    let operation = Operation::of(function)
        .ok_or_else(|| Refused(format!("{} does nothing with Exim's queue", function.escape_debug())))?;
    must_be_one_sender(function, subject)?;
    let mut client = Client::new(&outgoingctl.socket);
    let token = client.present(&secret, function)?;
    // In normal form: what looks like one sender may turn out to be a domain.
    let subject = &client.status(subject)?.subject;
    must_be_one_sender(function, subject)?;
    let on_behalf_of = Some(format!("token {}", token.name));
    let outgoingctl = Outgoingctl { on_behalf_of, ..outgoingctl.clone() };
    match operation {
        Operation::Deliver => outgoingctl.deliver(subject).map(|child| (0, Some(child))),
        Operation::Count => outgoingctl.count(subject).map(|count| (count, None)),
        Operation::Delete => outgoingctl.delete(subject).map(|count| (count, None)),
    }
}

/// No function takes more than an account or a mailbox, and what removes mail takes a mailbox: a token is no way to the mail of a
/// whole domain or of everyone. Nor is a name an option in disguise.
fn must_be_one_sender(function: &str, subject: &str) -> Result<(), Refused> {
    let is_name = !subject.is_empty() && !subject.starts_with(['-', '@', '*']) && !subject.contains(char::is_control);
    let takes_accounts = function::WHM.contains(&function) || function == "get_held_message_count";
    if is_name && (takes_accounts || subject.contains('@')) {
        return Ok(());
    }
    let wanted = if takes_accounts { "account or mailbox" } else { "mailbox" };
    Err(Refused(format!("\"{}\" is no {wanted}, and {function} takes one", subject.escape_debug())))
}

/// A line, or what came before the end, all within this time.
fn read_line(stream: &mut UnixStream, patience: Duration) -> io::Result<Vec<u8>> {
    let (deadline, mut line, mut buffer) = (Instant::now() + patience, Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "not in time"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(line),
            Ok(length) => line.extend_from_slice(&buffer[..length]),
            // The deadline has passed, or is about to.
            Err(error) if [ErrorKind::Interrupted, ErrorKind::WouldBlock].contains(&error.kind()) => {}
            Err(error) => return Err(error),
        }
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Ok(line);
        }
        if line.len() > LONGEST_MESSAGE {
            return Err(io::Error::new(ErrorKind::InvalidData, "longer than any message"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_line_is_read_up_to_its_end_or_that_of_the_connection() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"one\ntwo").unwrap();
        assert_eq!(read_line(&mut ours, PATIENCE).unwrap(), b"one");
        theirs.write_all(b"three").unwrap();
        drop(theirs);
        assert_eq!(read_line(&mut ours, PATIENCE).unwrap(), b"three", "what came behind a line was no line");
    }

    #[test]
    fn who_sends_a_byte_now_and_then_has_no_more_time_than_who_sends_none() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let dripping = thread::spawn(move || {
            while theirs.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        assert_eq!(read_line(&mut ours, Duration::from_millis(100)).unwrap_err().kind(), ErrorKind::TimedOut);
        drop(ours);
        dripping.join().unwrap();
    }

    #[test]
    fn what_is_longer_than_any_message_is_not_read_to_its_end() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let sending = thread::spawn(move || while theirs.write_all(&[b'x'; 4096]).is_ok() {});
        assert_eq!(read_line(&mut ours, PATIENCE).unwrap_err().kind(), ErrorKind::InvalidData);
        drop(ours);
        sending.join().unwrap();
    }

    #[test]
    fn a_name_is_that_of_one_sender() {
        for (function, subject) in
            [("release_outgoing_email", "alice"), ("release_outgoing_email", "a@b.c"), ("release_outgoing", "a@b.c")]
        {
            assert_eq!(must_be_one_sender(function, subject), Ok(()));
        }
        for subject in ["", "*", "@shop.test", "-a@b.c", "a\n@b.c"] {
            for function in ["release_outgoing_email", "delete_held_messages"] {
                assert!(must_be_one_sender(function, subject).is_err(), "{function} {subject:?}");
            }
        }
        assert!(must_be_one_sender("delete_held_messages", "alice").is_err());
    }
}
