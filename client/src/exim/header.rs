//! Reads a message's `-H` file, in which Exim keeps envelope, state and headers (Exim's specification, "Format of spool
//! files"). Pure: bytes in, values out.
//!
//! Read is what Exim 4.94 and later write, with the shorter and the longer message ids (4.97), tainted values included. A file
//! that does not look so is an error that names the line; it is never taken for a message without recipients. What no listing
//! asks for is passed over. Nothing is allocated for a number that the file claims.

use super::id::MessageId;
use std::collections::HashSet;

/// The variable of the message in which the Exim snippets keep who is sending.
const SENDER: &[u8] = b"_outgoingd_sender";

/// The one that says that they have decided it.
const VERDICT: &[u8] = b"_outgoingd_verdict";

/// The name of the header that a listing shows.
const SUBJECT: &[u8] = b"subject:";

/// No message has more recipients. Exim's own bound is 50,000 unless a site lifts it (`recipients_max`).
const MOST_RECIPIENTS: u64 = 500_000;

/// So many bytes of it are kept.
const LONGEST_SUBJECT: usize = 1000;

/// What a `-H` file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message's id, which is the file's name without `-H`.
    pub id: MessageId,
    /// Who is sending, as Exim says it when it asks the daemon; none: nobody, so that nothing stops the message.
    pub identity: Option<String>,
    /// The envelope sender; empty for a bounce.
    pub sender: String,
    /// When it came in, in Unix seconds.
    pub received: u64,
    /// Whether it is frozen.
    pub frozen: bool,
    /// The recipients to whom it had not been delivered when the file was written; [`Place::read`](super::Place::read) leaves out
    /// those who have been served since.
    pub to_go: Vec<String>,
    /// Bytes of the headers that will be sent.
    pub size: u64,
    /// The text of the first `Subject:`, as it was sent: folded, encoded (RFC 2047), without the white space round
    /// it, and not more than a thousand bytes of it.
    pub subject: Option<Vec<u8>>,
}

/// Why a file is no `-H` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected {expected}")]
pub struct HeaderError {
    /// The line, from 1.
    pub line: usize,
    /// What should have been there.
    pub expected: &'static str,
}

impl Header {
    /// Reads a whole file.
    ///
    /// # Errors
    ///
    /// It is none, or not all of one.
    pub fn parse(file: &[u8]) -> Result<Header, HeaderError> {
        let mut lines = Lines { rest: file, line: 0 };
        let id = lines.parsed("a message id and -H", |line| {
            MessageId::new(str::from_utf8(line.strip_suffix(b"-H")?).ok()?).ok()
        })?;
        lines.parsed("login, user id and group id", |line| (!line.is_empty()).then_some(()))?;
        let sender = lines
            .parsed("the sender in angle brackets", |line| line.strip_prefix(b"<")?.strip_suffix(b">").map(text))?;
        let received = lines
            .parsed("the time of arrival", |line| number(line.split(|byte| *byte == b' ').next().unwrap_or(line)))?;
        let options = Options::read(&mut lines)?;
        let served = served(&mut lines)?;
        let to_go = recipients(&mut lines, &served)?;
        lines.parsed("an empty line", |line| line.is_empty().then_some(()))?;
        let (size, subject) = headers(&mut lines)?;
        let frozen = options.frozen;
        let identity = options.identity(&sender);
        Ok(Header { id, identity, sender, received, frozen, to_go, size, subject })
    }
}

/// What the lines that start with a hyphen say.
#[derive(Default)]
struct Options {
    decided: bool,
    decided_sender: Option<String>,
    authenticated_id: Option<String>,
    ident: Option<String>,
    from_another_host: bool,
    frozen: bool,
}

impl Options {
    fn read(lines: &mut Lines<'_>) -> Result<Options, HeaderError> {
        let mut options = Options::default();
        while lines.rest.first() == Some(&b'-') {
            let line = lines.next("an option")?;
            let (name, value) = split(option(line));
            match name {
                b"acl" | b"aclm" | b"aclc" => {
                    let (variable, length) = split(value);
                    let length = number(length).ok_or(lines.expected("the length of a variable"))?;
                    let content = lines.bytes(length, "the text of a variable")?;
                    match (name, variable) {
                        // As Exim's `def:` does, which is true of what is not empty.
                        (b"aclm", VERDICT) => options.decided = !content.is_empty(),
                        (b"aclm", SENDER) => options.decided_sender = Some(text(content)),
                        _ => {}
                    }
                }
                b"auth_id" => options.authenticated_id = Some(text(value)),
                b"ident" => options.ident = Some(text(value)),
                b"host_address" => options.from_another_host = true,
                b"frozen" => options.frozen = true,
                _ => {}
            }
        }
        Ok(options)
    }

    /// As `OUTGOINGD_IDENTITY` of the snippets has it: decided when the message came in, and for one from before they were
    /// installed the login. What another host said of its user (RFC 1413) is nobody's login here, and in a bounce it is
    /// Exim's user.
    fn identity(self, sender: &str) -> Option<String> {
        let local_user = || self.ident.filter(|_| !self.from_another_host && !sender.is_empty());
        let identity = if self.decided { self.decided_sender } else { self.authenticated_id.or_else(local_user) };
        identity.filter(|identity| !identity.is_empty())
    }
}

/// An option without what says that it came from outside: `-name`, `--name`, `--(quoter)name`.
fn option(line: &[u8]) -> &[u8] {
    let Some(tainted) = line.strip_prefix(b"--") else { return line.strip_prefix(b"-").unwrap_or(line) };
    match tainted.strip_prefix(b"(") {
        Some(quoted) => quoted.iter().position(|byte| *byte == b')').map_or(tainted, |end| &quoted[end + 1..]),
        None => tainted,
    }
}

/// The addresses to which nothing more is sent: a tree, a line for each node, its left branch before its right one. `Y` and
/// `N` say which branches follow; `XX` stands for no tree.
fn served<'a>(lines: &mut Lines<'a>) -> Result<HashSet<&'a [u8]>, HeaderError> {
    let mut served = HashSet::new();
    let mut nodes_to_come = 1_usize;
    while nodes_to_come > 0 {
        let line = lines.next("the addresses already served")?;
        let branches = match line.get(..2) {
            Some(b"XX") if line.len() == 2 && served.is_empty() => return Ok(served),
            Some(b"NN") => 0,
            Some(b"YN" | b"NY") => 1,
            Some(b"YY") => 2,
            _ => return Err(lines.expected("a node of the addresses already served, or XX")),
        };
        let address = line[2..].strip_prefix(b" ").ok_or(lines.expected("an address already served"))?;
        served.insert(address);
        nodes_to_come = nodes_to_come - 1 + branches;
    }
    Ok(served)
}

fn recipients(lines: &mut Lines<'_>, served: &HashSet<&[u8]>) -> Result<Vec<String>, HeaderError> {
    let count = lines.parsed("the number of recipients, at most 500000", |line| {
        number(line).filter(|count| *count <= MOST_RECIPIENTS)
    })?;
    let mut to_go = Vec::new();
    for _ in 0..count {
        let recipient = lines.parsed("a recipient", recipient)?;
        if !served.contains(recipient) {
            to_go.push(text(recipient));
        }
    }
    Ok(to_go)
}

/// The address in a recipient's line. Behind it may stand `ORIGINAL LENGTH,FLAGS ERRORS-TO LENGTH,PARENT#BITS`, where bit 0
/// says that the second pair is there and bit 1 that the first one is.
fn recipient(line: &[u8]) -> Option<&[u8]> {
    let hash = line.iter().rposition(|byte| !byte.is_ascii_digit())?;
    if line[hash] != b'#' || hash + 1 == line.len() {
        return Some(line);
    }
    let (mut address, bits) = (&line[..hash], number(&line[hash + 1..])?);
    for bit in [1, 2] {
        if bits & bit == 0 {
            continue;
        }
        let pair = address.iter().rposition(|byte| !byte.is_ascii_digit() && !b",-".contains(byte))? + 1;
        let length = number(address[pair..].split(|byte| *byte == b',').next()?)?;
        // The text stands before its length, with a space between them, and one before.
        let end = pair.checked_sub(usize::try_from(length).ok()?.checked_add(2)?)?;
        address = &address[..end];
    }
    Some(address)
}

/// Bytes of the headers that will be sent, and the text of the subject.
fn headers(lines: &mut Lines<'_>) -> Result<(u64, Option<Vec<u8>>), HeaderError> {
    let (mut size, mut subject) = (0, None);
    while !lines.rest.is_empty() {
        let digits = lines.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (length, kind) = number(&lines.rest[..digits])
            .zip(lines.rest.get(digits).copied())
            .filter(|_| lines.rest.get(digits + 1) == Some(&b' '))
            .ok_or(lines.expected("length and kind of a header"))?;
        lines.rest = &lines.rest[digits + 2..];
        let header = lines.bytes_to_the_end_of_a_line(length, "the text of a header")?;
        // Replaced by another one: kept, and not sent.
        if kind == b'*' {
            continue;
        }
        size += length;
        if subject.is_none() && header.get(..SUBJECT.len()).is_some_and(|name| name.eq_ignore_ascii_case(SUBJECT)) {
            let text = header[SUBJECT.len()..].trim_ascii();
            subject = Some(text[..text.len().min(LONGEST_SUBJECT)].to_vec());
        }
    }
    Ok((size, subject))
}

/// The rest of a file, and how far in it we are.
struct Lines<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Lines<'a> {
    /// The next line, without its end.
    fn next(&mut self, expected: &'static str) -> Result<&'a [u8], HeaderError> {
        self.line += 1;
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or(self.expected(expected))?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(line)
    }

    /// What `parse` makes of the next line.
    fn parsed<T>(
        &mut self,
        expected: &'static str,
        parse: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Result<T, HeaderError> {
        let line = self.next(expected)?;
        parse(line).ok_or(self.expected(expected))
    }

    /// So many bytes, which may be lines, and the end of the line behind them.
    fn bytes(&mut self, length: u64, expected: &'static str) -> Result<&'a [u8], HeaderError> {
        let length = usize::try_from(length).ok().filter(|length| self.rest.get(*length) == Some(&b'\n'));
        let (content, rest) = self.rest.split_at(length.ok_or(self.expected(expected))?);
        self.line += content.split(|byte| *byte == b'\n').count();
        self.rest = &rest[1..];
        Ok(content)
    }

    /// So many bytes, of which the last one ends a line.
    fn bytes_to_the_end_of_a_line(&mut self, length: u64, expected: &'static str) -> Result<&'a [u8], HeaderError> {
        self.bytes(length.checked_sub(1).ok_or(self.expected(expected))?, expected)
    }

    fn expected(&self, expected: &'static str) -> HeaderError {
        HeaderError { line: self.line, expected }
    }
}

/// Both sides of the first space.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let space = line.iter().position(|byte| *byte == b' ');
    space.map_or((line, &[][..]), |space| (&line[..space], &line[space + 1..]))
}

fn number(digits: &[u8]) -> Option<u64> {
    // Not more than digits: `parse` takes a sign, too.
    let digits = digits.iter().all(u8::is_ascii_digit).then_some(digits)?;
    str::from_utf8(digits).ok()?.parse().ok()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As Exim 4.96 writes it for a message of alice with one local recipient, who was served.
    const MESSAGE: &str = "1xUjtO-0001Zo-3B-H\n\
        root 0 0\n\
        <alice@local.test>\n\
        1795262910 0\n\
        -received_time_usec .986933\n\
        -ident root\n\
        -received_protocol local\n\
        -aclm _outgoingd_silent 0\n\
        \n\
        --aclm _outgoingd_sender 5\n\
        alice\n\
        -aclm _outgoingd_verdict 4\n\
        hold\n\
        -body_linecount 1\n\
        --auth_id carol\n\
        -tls_resumption A\n\
        NN bob@local.test\n\
        2\n\
        friend@outside.test\n\
        bob@local.test\n\
        \n\
        035P Received: from root by bed.test\n\
        \tx\n\
        018* Subject: replaced\n\
        018  suBject: hey\n two\n\
        038  Date: Sat, 21 Nov 2026 12:08:30 +0000\n";

    fn parse(file: &str) -> Header {
        Header::parse(file.as_bytes()).unwrap()
    }

    /// The message with something in place of something else, which must be there.
    fn with(from: &str, to: &str) -> String {
        assert!(MESSAGE.contains(from), "{from:?}");
        MESSAGE.replacen(from, to, 1)
    }

    #[test]
    fn a_message_is_read_with_sender_recipients_to_go_and_subject() {
        let expected = Header {
            id: MessageId::new("1xUjtO-0001Zo-3B").unwrap(),
            identity: Some("alice".to_owned()),
            sender: "alice@local.test".to_owned(),
            received: 1_795_262_910,
            frozen: false,
            to_go: vec!["friend@outside.test".to_owned()],
            size: 35 + 18 + 38,
            subject: Some(b"hey\n two".to_vec()),
        };
        assert_eq!(parse(MESSAGE), expected);
        assert!(parse(&with("-tls_resumption A\n", "-frozen 1795262911\n")).frozen);
        let longer = with("1xUjtO-0001Zo-3B", "1xUjtO-00000000abc-XYZ0");
        assert_eq!(parse(&longer).id.as_str(), "1xUjtO-00000000abc-XYZ0");
        let bounce = with("<alice@local.test>", "<>");
        assert_eq!(parse(&bounce).sender, "");
    }

    #[test]
    fn who_is_sending_is_what_was_decided_when_the_message_came_in_else_the_login() {
        let decided = "--aclm _outgoingd_sender 5\nalice\n-aclm _outgoingd_verdict 4\nhold\n";
        let identity = |file: &str| parse(file).identity;
        assert_eq!(identity(&with(decided, "")).as_deref(), Some("carol"));
        assert_eq!(identity(&with("--auth_id carol\n", "")).as_deref(), Some("alice"));
        // Decided: nobody. The login does not count then, as for Exim.
        assert_eq!(identity(&with("--aclm _outgoingd_sender 5\nalice\n", "-aclm _outgoingd_sender 0\n\n")), None);
        // Quoted for a lookup, which Exim 4.95 and later note.
        assert_eq!(
            identity(&with(decided, "--(mysql)auth_id dave\n").replace("--auth_id carol\n", "")).as_deref(),
            Some("dave")
        );
        let nameless = with(decided, "").replace("--auth_id carol\n", "");
        assert_eq!(identity(&nameless).as_deref(), Some("root"), "a user of this host");
        assert_eq!(identity(&nameless.replace("-ident root\n", "-ident root\n--host_address 10.0.0.1.25\n")), None);
        assert_eq!(identity(&nameless.replace("<alice@local.test>", "<>")), None, "a bounce");
    }

    #[test]
    fn the_text_of_a_variable_is_taken_by_its_length_whatever_is_in_it() {
        let odd =
            with("-aclm _outgoingd_silent 0\n\n", "-aclm _other 43\nx\n-auth_id mallory\n--aclm _outgoingd_sender\n");
        assert_eq!(parse(&odd).identity.as_deref(), Some("alice"));
        let odd = with("-aclm _outgoingd_silent 0\n\n", "-aclc 9 3\n\n\n\n\n-acl 3 2\nab\n");
        assert_eq!(parse(&odd).identity.as_deref(), Some("alice"));
    }

    #[test]
    fn recipients_with_what_dsn_and_redirection_put_behind_them_are_read() {
        let lines = "6\n\
            friend@out.test rfc822;Friend+20x@out.test 26,12  0,-1#3\n\
            \"q u\"@out.test\n\
            UPPER@OUT.Test  0,2  0,-1#3\n\
            \"b b\"@ext.test  0,0 err@local.test 14,2#3\n\
            a#1@ext.test  0,2#1\n\
            b#1@ext7\n";
        let message = with("2\nfriend@outside.test\nbob@local.test\n", lines);
        let to_go =
            ["friend@out.test", "\"q u\"@out.test", "UPPER@OUT.Test", "\"b b\"@ext.test", "a#1@ext.test", "b#1@ext7"];
        assert_eq!(parse(&message).to_go, to_go);
    }

    #[test]
    fn every_address_of_the_tree_of_those_served_counts() {
        let tree = "YY m@x.test\nYN f@x.test\nNN a@x.test\nNY t@x.test\nNN z@x.test\n7\nm@x.test\nf@x.test\na@x.test\nt@x.test\nz@x.test\n";
        let message = with("NN bob@local.test\n2\n", tree);
        assert_eq!(parse(&message).to_go, ["friend@outside.test", "bob@local.test"]);
        assert_eq!(parse(&with("NN bob@local.test\n", "XX\n")).to_go, ["friend@outside.test", "bob@local.test"]);
    }

    #[test]
    fn what_is_no_message_is_an_error_that_names_the_line() {
        for (from, to, expected) in [
            ("1xUjtO-0001Zo-3B-H", "1xUjtO-0001Zo-3B-D", "line 1: expected a message id and -H"),
            ("<alice@local.test>", "alice@local.test", "line 3: expected the sender in angle brackets"),
            ("1795262910 0", "now", "line 4: expected the time of arrival"),
            ("_outgoingd_sender 5", "_outgoingd_sender 4", "line 10: expected the text of a variable"),
            ("NN bob", "NX bob", "line 17: expected a node of the addresses already served, or XX"),
            ("NN bob", "YY bob", "line 18: expected a node of the addresses already served, or XX"),
            ("2\nfriend", "3\nfriend", "line 21: expected a recipient"),
            ("2\nfriend", "-2\nfriend", "line 18: expected the number of recipients, at most 500000"),
            ("2\nfriend", "600000\nfriend", "line 18: expected the number of recipients, at most 500000"),
            ("035P", "036P", "line 21: expected the text of a header"),
            ("035P", "P", "line 21: expected length and kind of a header"),
        ] {
            let error = Header::parse(with(from, to).as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected, "{to}");
        }
        assert!(Header::parse(b"").is_err());
    }

    #[test]
    fn a_file_that_is_cut_off_anywhere_is_no_message_but_for_between_two_headers() {
        let whole = parse(MESSAGE);
        for length in 0..MESSAGE.len() {
            let cut = Header::parse(&MESSAGE.as_bytes()[..length]);
            assert!(cut.is_err() || cut.is_ok_and(|cut| cut.to_go == whole.to_go), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0..MESSAGE.len(), bytes: Vec<u8>) {
            let mut file = MESSAGE.as_bytes().to_vec();
            file.splice(at..(at + bytes.len()).min(MESSAGE.len()), bytes);
            let _ = Header::parse(&file);
        }
    }
}
