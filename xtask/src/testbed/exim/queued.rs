//! A message as it lies in the spool, and the text of its files, as Exim 4.96 writes them.
//!
//! Pure. By default it is what a program of this host has handed in and nobody has tried to deliver yet, with the variables that
//! the snippets keep with it. Limits: no bounces with all their marks, no TLS, no DKIM, no files in wire format.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use crate::testbed::LOCAL_DOMAIN;

/// Exim's digits.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Exim counts fractions of a second in these for a message's name.
const MICROSECONDS: u64 = 5_000;

/// A message that somebody wants on the queue; see [`Exim::enqueue`](super::Exim::enqueue).
#[derive(Clone, Debug)]
pub struct Queued {
    identity: String,
    sender: String,
    recipients: Vec<String>,
    /// What stands behind a recipient in its line; of as many as there are.
    recipient_data: Vec<String>,
    delivered: Vec<String>,
    journal: Vec<String>,
    subject: String,
    age: Duration,
    frozen: bool,
    body_size: usize,
    queue: String,
    /// What the snippets heard when it came in, if they were there.
    verdict: Option<String>,
}

/// When a message came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Unix time.
    pub(super) seconds: u64,
    /// Of the second.
    pub(super) microseconds: u64,
}

impl Queued {
    /// A message of this identity, one moment old. An empty identity is mail that came in without a login.
    #[must_use]
    pub fn new(identity: &str, recipients: &[&str]) -> Self {
        let sender = if identity.contains('@') { identity.to_owned() } else { format!("{identity}@{LOCAL_DOMAIN}") };
        Self {
            identity: identity.to_owned(),
            sender,
            recipients: recipients.iter().map(ToString::to_string).collect(),
            recipient_data: vec![String::new(); recipients.len()],
            delivered: Vec::new(),
            journal: Vec::new(),
            subject: "good morning".to_owned(),
            age: Duration::ZERO,
            frozen: false,
            body_size: 14,
            queue: String::new(),
            verdict: Some("ok".to_owned()),
        }
    }

    /// Another envelope sender than the identity's own address; empty for none.
    #[must_use]
    pub fn sender(mut self, sender: &str) -> Self {
        sender.clone_into(&mut self.sender);
        self
    }

    /// Some of its recipients, to whom it has been delivered in an attempt before (`-H`).
    #[must_use]
    pub fn delivered(mut self, recipients: &[&str]) -> Self {
        self.delivered.extend(recipients.iter().map(ToString::to_string));
        self
    }

    /// Some of its recipients, to whom it has been delivered in an attempt that has not come to its end (`-J`).
    #[must_use]
    pub fn journalled(mut self, recipients: &[&str]) -> Self {
        self.journal.extend(recipients.iter().map(ToString::to_string));
        self
    }

    /// The sender has asked to be told if it fails (RFC 3461), of all recipients that it has so far.
    #[must_use]
    pub fn notify(mut self) -> Self {
        for (recipient, data) in self.recipients.iter().zip(&mut self.recipient_data) {
            let original = format!("rfc822;{recipient}");
            *data = format!(" {original} {},8  0,-1#3", original.len());
        }
        self
    }

    /// A recipient whom a mailing list with `one_time` has brought, in place of the first recipient; bounces go to `owner`.
    #[must_use]
    pub fn list_member(mut self, recipient: &str, owner: &str) -> Self {
        self.delivered.extend(self.recipients.first().cloned());
        self.recipients.push(recipient.to_owned());
        self.recipient_data.push(format!("  0,0 {owner} {},0#3", owner.len()));
        self
    }

    /// `Subject:`
    #[must_use]
    pub fn subject(mut self, subject: &str) -> Self {
        subject.clone_into(&mut self.subject);
        self
    }

    /// How long ago it came in.
    #[must_use]
    pub fn age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// It is frozen.
    #[must_use]
    pub fn frozen(mut self) -> Self {
        self.frozen = true;
        self
    }

    /// How many bytes its text has, headers not counted.
    #[must_use]
    pub fn body_size(mut self, bytes: usize) -> Self {
        self.body_size = bytes;
        self
    }

    /// It waits on a named queue.
    #[must_use]
    pub fn on_queue(mut self, name: &str) -> Self {
        name.clone_into(&mut self.queue);
        self
    }

    /// What the snippets heard when it came in, if it was not `ok`.
    #[must_use]
    pub fn verdict(mut self, verdict: &str) -> Self {
        self.verdict = Some(verdict.to_owned());
        self
    }

    /// It came in when there were no snippets yet.
    #[must_use]
    pub fn before_the_snippets(mut self) -> Self {
        self.verdict = None;
        self
    }

    /// The named queue that it waits on; empty for the usual one.
    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    /// When it came in, if it is this time now.
    pub(super) fn arrival(&self, now: u64, microseconds: u64) -> Arrival {
        Arrival { seconds: now.saturating_sub(self.age.as_secs()), microseconds }
    }

    /// What is in the file whose name ends in `-D`.
    pub(super) fn data_file(&self, id: &str) -> String {
        format!("{id}-D\n{}", self.body())
    }

    /// What is in the file whose name ends in `-J`, if there is one.
    pub(super) fn journal_file(&self) -> Option<String> {
        (!self.journal.is_empty()).then(|| self.journal.join("\n") + "\n")
    }

    /// What is in the file whose name ends in `-H`.
    pub(super) fn header_file(&self, id: &str, arrival: Arrival, now: u64) -> String {
        let Arrival { seconds, microseconds } = arrival;
        let mut text = format!(
            "{id}-H\nroot 0 0\n<{}>\n{seconds} 0\n-received_time_usec .{microseconds:06}\n\
             -received_time_complete {seconds}.{microseconds:06}\n-ident root\n-received_protocol local\n",
            self.sender
        );
        self.add_variables(&mut text);
        let (headers, body) = (self.headers(), self.body());
        let longest = headers.iter().map(|(_, header)| header.len()).chain(body.lines().map(str::len)).max();
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "-body_linecount {}\n-max_received_linelength {}\n",
            body.lines().count(),
            longest.unwrap_or_default()
        );
        if !self.identity.is_empty() {
            let _ = writeln!(text, "--auth_id {}", self.identity);
        }
        text += "-allow_unqualified_recipient\n-allow_unqualified_sender\n";
        if self.delivered.is_empty() && self.journal.is_empty() && !self.frozen {
            text += "-deliver_firsttime\n";
        }
        if self.frozen {
            let _ = writeln!(text, "-frozen {now}");
        }
        text += "-tls_resumption A\n";
        self.add_recipients(&mut text);
        text.push('\n');
        let date = date(seconds);
        let recipient =
            if let [recipient] = &self.recipients[..] { format!("\n\tfor {recipient}") } else { String::new() };
        let received = format!(
            "Received: from root by bed.test with local (Exim 4.96)\n\t(envelope-from <{}>)\n\tid {id}{recipient};\n\t{date}",
            self.sender
        );
        let added = [('I', format!("Message-Id: <E{id}@bed.test>")), (' ', format!("Date: {date}"))];
        for (mark, header) in [('P', received)].into_iter().chain(headers).chain(added) {
            let _ = writeln!(text, "{:03}{mark} {header}", header.len() + 1);
        }
        text
    }

    /// What the snippets keep with a message, in the order in which Exim's tree of three variables comes out.
    fn add_variables(&self, text: &mut String) {
        let Some(verdict) = &self.verdict else { return };
        let tainted = if self.identity.is_empty() { "-" } else { "--" };
        for (dashes, name, value) in
            [("-", "silent", ""), (tainted, "sender", self.identity.as_str()), ("-", "verdict", verdict)]
        {
            let _ = write!(text, "{dashes}aclm _outgoingd_{name} {}\n{value}\n", value.len());
        }
    }

    /// The tree of whom it has been delivered to, and the recipients.
    fn add_recipients(&self, text: &mut String) {
        // Exim notes an address as it was written and as it has routed it, with its domain in small letters.
        let mut done = BTreeSet::new();
        for recipient in &self.delivered {
            let (local_part, domain) = recipient.rsplit_once('@').unwrap_or((recipient, ""));
            done.insert(recipient.clone());
            done.insert(format!("{local_part}@{}", domain.to_ascii_lowercase()));
        }
        if done.is_empty() {
            text.push_str("XX\n");
        } else {
            add_tree(text, &done.into_iter().collect::<Vec<_>>());
        }
        let _ = writeln!(text, "{}", self.recipients.len());
        for (recipient, data) in self.recipients.iter().zip(&self.recipient_data) {
            let _ = writeln!(text, "{recipient}{data}");
        }
    }

    /// The headers that came with it, each with Exim's mark.
    fn headers(&self) -> [(char, String); 3] {
        [
            ('F', format!("From: <{}>", self.sender)),
            ('T', "To: undisclosed-recipients:;".to_owned()),
            (' ', format!("Subject: {}", self.subject)),
        ]
    }

    /// So many bytes, in lines.
    fn body(&self) -> String {
        let mut body = "Good morning.\n".repeat(self.body_size.div_ceil(14));
        body.truncate(self.body_size);
        if body.pop().is_some() {
            body.push('\n');
        }
        body
    }
}

/// The name that Exim gives to a message that came in at this time, in a process of this number.
pub(super) fn message_id(arrival: Arrival, process: u64) -> String {
    let Arrival { seconds, microseconds } = arrival;
    format!("{}-{}-{}", base62::<6>(seconds), base62::<6>(process), base62::<2>(microseconds / MICROSECONDS))
}

/// The name of the directory in which Exim puts a message when it spreads its spool over several: the last digit of its time.
pub(super) fn split_directory(id: &str) -> &str {
    &id[5..6]
}

fn base62<const LENGTH: usize>(mut number: u64) -> String {
    let mut digits = [0; LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(number % 62) as usize];
        number /= 62;
    }
    digits.map(char::from).iter().collect()
}

/// A balanced tree of sorted names, each line with whether it has a left and a right branch, which follow it.
fn add_tree(text: &mut String, names: &[String]) {
    let (left, rest) = names.split_at(names.len() / 2);
    let Some((name, right)) = rest.split_first() else { return };
    let mark = |branch: &[String]| if branch.is_empty() { 'N' } else { 'Y' };
    let _ = writeln!(text, "{}{} {name}", mark(left), mark(right));
    add_tree(text, left);
    add_tree(text, right);
}

/// As in a header, in UTC.
fn date(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
    let (mut day, mut year, mut month) = (days, 1970, 0);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month];
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{weekday}, {:02} {month} {year} {hour:02}:{minute:02}:{second:02} +0000", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_name_that_exim_gave_to_one_of_that_moment() {
        let arrival = Arrival { seconds: 1_795_263_433, microseconds: 763_888 };
        assert_eq!(message_id(arrival, 9_446), "1xUk1p-0002SM-2S");
        assert_eq!(split_directory("1xUk1p-0002SM-2S"), "p");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(date(951_782_400), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(date(1_795_263_433), "Sat, 21 Nov 2026 12:17:13 +0000");
    }

    #[test]
    fn a_tree_says_of_each_name_which_branches_follow() {
        let mut text = String::new();
        add_tree(&mut text, &["a", "b", "c"].map(str::to_owned));
        add_tree(&mut text, &["d", "e"].map(str::to_owned));
        assert_eq!(text, "YY b\nNN a\nNN c\nYN e\nNN d\n");
    }
}
