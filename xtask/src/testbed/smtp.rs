//! A mail program: one SMTP session, one command at a time, every reply kept with its code and text.
//!
//! A reply that refuses something is a value, not an error; errors are broken connections and replies that are not SMTP. Nothing
//! waits longer than [`PATIENCE`]. No pipelining, no TLS.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::letter::Letter;

/// How long one reply may take. Longer than the time that Exim waits for the daemon.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An answer of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The text of all its lines, joined by newlines.
    pub text: String,
}

impl Reply {
    /// Whether the code starts with 2 or 3.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        (200..400).contains(&self.code)
    }

    /// The queue's name for the message, which Exim gives when it has taken one.
    pub fn queue_id(&self) -> Result<String> {
        let id = self.text.split_once("id=").map(|(_, id)| id.trim());
        let id = id.with_context(|| format!("no message id in {self:?}"))?;
        Ok(id.to_owned())
    }
}

/// A connection on which EHLO has been said.
#[derive(Debug)]
pub struct Session {
    stream: BufReader<TcpStream>,
}

impl Session {
    /// Connects, reads the greeting and says EHLO.
    pub fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)
            .with_context(|| format!("no SMTP server answers at {server}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut session = Self { stream: BufReader::new(stream) };
        session.expect_positive("the greeting", Self::reply)?;
        session.expect_positive("EHLO", |session| session.command("EHLO client.test"))?;
        Ok(session)
    }

    /// AUTH PLAIN. The identity may be any bytes but NUL, which separates it from the password.
    pub fn login(&mut self, identity: impl AsRef<[u8]>) -> Result<Reply> {
        let credentials = [b"\0", identity.as_ref(), b"\0password"].concat();
        self.command(&format!("AUTH PLAIN {}", base64(&credentials)))
    }

    /// MAIL FROM.
    pub fn mail_from(&mut self, sender: &str) -> Result<Reply> {
        self.command(&format!("MAIL FROM:<{sender}>"))
    }

    /// RCPT TO.
    pub fn rcpt_to(&mut self, recipient: &str) -> Result<Reply> {
        self.command(&format!("RCPT TO:<{recipient}>"))
    }

    /// DATA and the message, if the server wants it. The text must have no line that starts with a dot.
    pub fn data(&mut self, text: &str) -> Result<Reply> {
        let reply = self.command("DATA")?;
        if reply.code != 354 {
            return Ok(reply);
        }
        let text = text.replace('\n', "\r\n");
        self.command(&format!("{text}."))
    }

    /// A whole letter; returns the first refusal, or the answer to the message itself.
    pub fn send(&mut self, letter: &Letter) -> Result<Reply> {
        let reply = self.mail_from(&letter.sender)?;
        if !reply.is_positive() {
            return Ok(reply);
        }
        for recipient in &letter.recipients {
            let reply = self.rcpt_to(recipient)?;
            if !reply.is_positive() {
                return Ok(reply);
            }
        }
        self.data(&letter.text())
    }

    /// QUIT, and the end of the connection. Exim takes 200 ms to say goodbye, for which nobody waits.
    pub fn quit(mut self) -> Result<()> {
        self.stream.get_mut().write_all(b"QUIT\r\n").context("could not send QUIT")
    }

    /// Any command, and its answer.
    pub fn command(&mut self, line: &str) -> Result<Reply> {
        let bytes = format!("{line}\r\n");
        self.stream.get_mut().write_all(bytes.as_bytes()).with_context(|| format!("could not send {line:?}"))?;
        self.reply().with_context(|| format!("after {line:?}"))
    }

    fn expect_positive(&mut self, what: &str, ask: impl FnOnce(&mut Self) -> Result<Reply>) -> Result<()> {
        let reply = ask(self)?;
        ensure!(reply.is_positive(), "{what} was answered by {reply:?}");
        Ok(())
    }

    fn reply(&mut self) -> Result<Reply> {
        let (mut lines, mut first) = (Vec::new(), None);
        loop {
            let mut line = String::new();
            let length = self.stream.read_line(&mut line).context("no reply")?;
            ensure!(length > 0, "the server closed the connection");
            let line = line.trim_end();
            let (code, rest) = line.split_at_checked(3).context("reply too short")?;
            let code: u16 = code.parse().context("reply without a code")?;
            ensure!(code == *first.get_or_insert(code), "not the code that the reply began with: {line:?}");
            lines.push(rest.get(1..).unwrap_or_default().to_owned());
            match rest.as_bytes().first() {
                Some(b'-') => {}
                None | Some(b' ') => {
                    let text = lines.join("\n");
                    return Ok(Reply { code, text });
                }
                Some(_) => bail!("not an SMTP reply: {line:?}"),
            }
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0_u8; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) as usize % 64;
            let padding = place > chunk.len();
            text.push(if padding { '=' } else { ALPHABET[index].into() });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_pads_short_groups() {
        let encoded = [&b""[..], b"f", b"fo", b"foo", b"\0a\0b"].map(base64);
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "AGEAYg=="]);
    }
}
