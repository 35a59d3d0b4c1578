//! Exim's configuration as Exim itself understands it, and trials of it that change nothing: for whoever wants to know what it does.
//!
//! Exim is asked what it would do: what an expansion comes to (`-be`), where an address would go (`-bt`), by which rule it would be
//! tried again (`-brt`), what it would say in a session (`-bh`, `-bs` without a message). Nothing is queued and nothing is sent; what
//! `-bs` refuses, Exim writes to its log.
//!
//! In a [`Trial`] it runs as its own user with its own group alone, as it does when it asks the daemon. All of it is bounded in time.

use super::command::{Exim, EximError, command, last_line, talk, unexpected};
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Longest wait for one answer of Exim's, in seconds: it may look names up in the DNS.
const PATIENCE: &str = "20";

/// Longest part of a line that Exim reads at once, in bytes, with something to spare (1023).
const LONGEST_PART: usize = 900;

/// How timeout(1) says that it ended what it ran, and what it could not end otherwise.
const TIMED_OUT: [i32; 2] = [124, 137];

/// Exim, as its own user, in the name of a made-up sender.
#[derive(Debug)]
pub struct Trial<'a> {
    exim: &'a Exim,
    user: String,
    group: String,
    identity: &'a str,
}

/// Where a session seems to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Another host, with a login. Exim plays it through without its log (`-bh`).
    Outside,
    /// A program on this host that speaks SMTP to Exim's standard input (`-bs`).
    Here,
}

/// What came of a session with one message of which nothing but the sender and one recipient was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The replies, each in one line: greeting, EHLO, MAIL, RCPT, QUIT, as far as they came.
    pub replies: Vec<String>,
    /// What Exim says of how it came to them; of [`Caller::Outside`] only.
    pub trace: String,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Caller::Outside => "a login from outside",
            Caller::Here => "a program on this host (exim -bs)",
        })
    }
}

impl Exim {
    /// Which Exim it is, such as `4.96`. Its configuration is valid if there is an answer.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration, or with Exim.
    pub fn version(&self) -> Result<String, EximError> {
        let said = self.question(&["-bV"])?;
        let version = said.lines().find_map(|line| line.strip_prefix("Exim version ")?.split(' ').next());
        version.map(str::to_owned).ok_or_else(|| unexpected(self.program(), "does not say its version".to_owned()))
    }

    /// The value of a main option, macros put in and nothing expanded; empty where it has none.
    ///
    /// # Errors
    ///
    /// Exim does not say it.
    pub fn option(&self, name: &str) -> Result<String, EximError> {
        let said = self.question(&["-bP", name])?;
        let value = said.strip_prefix(name).and_then(|rest| rest.trim_start().strip_prefix('='));
        let value = value.map(|value| value.trim().to_owned());
        value.ok_or_else(|| unexpected(self.program(), format!("answers -bP {name} by \"{}\"", said.escape_debug())))
    }

    /// The names of the routers, in their order.
    ///
    /// # Errors
    ///
    /// Exim does not say it.
    pub fn routers(&self) -> Result<Vec<String>, EximError> {
        Ok(self.question(&["-bP", "router_list"])?.lines().map(str::to_owned).collect())
    }

    /// The lines of an ACL, as Exim has read them, the included ones too; none if it has no ACL of that name.
    ///
    /// # Errors
    ///
    /// Exim does not say it.
    pub fn acl(&self, name: &str) -> Result<Vec<String>, EximError> {
        Ok(acl_of(&self.question(&["-bP", "config"])?, name))
    }

    /// The statements of all ACLs, as Exim has read them: verb, conditions and modifiers, each in one line.
    ///
    /// # Errors
    ///
    /// Exim does not say it.
    pub fn acl_statements(&self) -> Result<Vec<String>, EximError> {
        Ok(statements(&section(&self.question(&["-bP", "config"])?, "acl")))
    }

    /// The retry rules in their order, as Exim has read them, the included ones too.
    ///
    /// # Errors
    ///
    /// Exim does not say it.
    pub fn retry_rules(&self) -> Result<Vec<String>, EximError> {
        Ok(section(&self.question(&["-bP", "config"])?, "retry"))
    }

    /// Exim as its own user, in the name of `identity`.
    ///
    /// # Errors
    ///
    /// Whoever runs us cannot become that user, or Exim does not say who it is.
    pub fn trial<'a>(&'a self, identity: &'a str) -> Result<Trial<'a>, EximError> {
        if !rustix::process::geteuid().is_root() {
            return Err(EximError::NotPermitted { program: self.program().to_path_buf() });
        }
        let [user, group] = ["exim_user", "exim_group"].map(|name| self.option(name));
        Ok(Trial { exim: self, user: user?, group: group?, identity })
    }

    fn question(&self, arguments: &[&str]) -> Result<String, EximError> {
        let answer = ask_in_time(self.program(), arguments)?;
        if !answer.status.success() {
            return Err(unexpected(self.program(), format!("says: {}", last_line(&answer))));
        }
        Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
    }
}

impl Trial<'_> {
    /// Exim's own user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Its group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// What each line expands to, or why it does not. A line may name macros.
    ///
    /// # Errors
    ///
    /// Exim cannot be run, or does not answer all of them.
    pub fn expand<const N: usize>(&self, lines: [&str; N]) -> Result<[Result<String, String>; N], EximError> {
        // A line that begins with a capital letter would define a macro, one that begins with a dot might be an order.
        let words: String = lines.iter().map(|line| in_parts(&format!("={line}")) + "\n").collect();
        let answer = self.run(&["-be"], words)?;
        let said = String::from_utf8_lossy(&answer.stdout);
        let answers: Vec<Result<String, String>> =
            said.lines().filter_map(|line| line.strip_prefix("> ")).take(N).map(expansion).collect();
        answers.try_into().map_err(|answers: Vec<_>| {
            let (count, why) = (answers.len(), last_line(&answer));
            unexpected(self.exim.program(), format!("-be answers {count} of {N} questions: {why}"))
        })
    }

    /// Where mail to an address would go, in Exim's words, and which routers were called for it, in their order.
    ///
    /// # Errors
    ///
    /// Exim cannot be run.
    pub fn route(&self, address: &str) -> Result<(String, Vec<String>), EximError> {
        let answer = self.run(&["-d-all+route", "-bt", address], String::new())?;
        let [said, trace] = [&answer.stdout, &answer.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        // Exim 4.98 does not indent what it traces here, 4.100 does.
        let called =
            trace.lines().filter_map(|line| line.trim_start().strip_prefix("calling ")?.strip_suffix(" router"));
        Ok((said.trim().to_owned(), called.map(str::to_owned).collect()))
    }

    /// The retry rule for an address, in Exim's words.
    ///
    /// # Errors
    ///
    /// Exim cannot be run.
    pub fn retry_rule(&self, address: &str) -> Result<String, EximError> {
        let answer = self.run(&["-brt", address], String::new())?;
        Ok(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
    }

    /// What Exim replies to somebody who is about to send from `sender` to `recipient`, and then does not.
    ///
    /// # Errors
    ///
    /// Exim cannot be run.
    pub fn session(&self, caller: Caller, sender: &str, recipient: &str) -> Result<Session, EximError> {
        let arguments: &[&str] = match caller {
            // An address of RFC 5737, which is nobody's.
            Caller::Outside => &["-oMaa", "outgoingctl-doctor", "-bh", "192.0.2.25"],
            Caller::Here => &["-bs"],
        };
        let words = format!("EHLO [192.0.2.25]\r\nMAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nQUIT\r\n");
        let answer = self.run(arguments, words)?;
        let [said, trace] = [&answer.stdout, &answer.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let replies = replies(&said);
        Ok(Session { replies, trace: trace.into_owned() })
    }

    fn run(&self, arguments: &[&str], words: String) -> Result<Output, EximError> {
        let mut command = bounded();
        // Not by the system calls themselves, which leave our own supplementary groups.
        command.args(["setpriv", "--reuid", &self.user, "--regid", &self.group, "--clear-groups", "--"]);
        command.arg(self.exim.program()).args(["-oMai", self.identity]).args(arguments);
        finish(self.exim.program(), &mut command, arguments, words)
    }
}

impl Session {
    /// The reply to MAIL.
    #[must_use]
    pub fn mail(&self) -> Option<&str> {
        self.replies.get(2).map(String::as_str)
    }

    /// The reply to RCPT.
    #[must_use]
    pub fn rcpt(&self) -> Option<&str> {
        self.replies.get(3).map(String::as_str)
    }

    /// Whether an ACL has set this variable to this value.
    #[must_use]
    pub fn has_set(&self, variable: &str, value: &str) -> bool {
        let mut setting = false;
        self.trace.lines().filter_map(|line| line.strip_prefix(">>> ")).any(|line| {
            let found = setting && line.trim_start().strip_prefix("= ") == Some(value);
            setting = line.starts_with("check set ") && line[10..].starts_with(variable)
                || setting && !line.starts_with("check ");
            found
        })
    }

    /// The statement that ended the ACL for RCPT: its verb, and where it stands.
    #[must_use]
    pub fn decided(&self) -> Option<&str> {
        self.trace.lines().filter_map(|line| line.strip_prefix(">>> processing ")).next_back()
    }
}

/// What Exim says to a command line, within [`PATIENCE`].
pub(super) fn ask_in_time(program: &Path, arguments: &[&str]) -> Result<Output, EximError> {
    let mut command = bounded();
    command.arg(program).args(arguments);
    finish(program, &mut command, arguments, String::new())
}

fn finish(program: &Path, command: &mut Command, arguments: &[&str], words: String) -> Result<Output, EximError> {
    let ran = talk(command.stderr(Stdio::piped()), words);
    let answer = ran.map_err(|source| EximError::Run { program: program.to_path_buf(), source })?;
    let program = program.to_path_buf();
    match answer.status.code() {
        Some(code) if TIMED_OUT.contains(&code) => {
            Err(unexpected(&program, format!("{} did not end within {PATIENCE} s", arguments.join(" "))))
        }
        // As timeout(1) and setpriv(1) say it; Exim has no such statuses.
        Some(126) => Err(EximError::NotPermitted { program }),
        Some(127) => Err(EximError::Run { program, source: ErrorKind::NotFound.into() }),
        _ => Ok(answer),
    }
}

/// A command that ends within [`PATIENCE`], with what it has started.
fn bounded() -> Command {
    let mut bounded = command("timeout");
    bounded.args(["-k", "1", PATIENCE]).current_dir("/");
    bounded
}

/// The lines of a section, in what `-bP config` prints, without what is for people.
fn section(configuration: &str, name: &str) -> Vec<String> {
    let lines = configuration.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let section = lines.skip_while(|line| line.strip_prefix("begin ") != Some(name)).skip(1);
    section.take_while(|line| !line.starts_with("begin ")).map(str::to_owned).collect()
}

fn is_label(line: &str) -> bool {
    line.strip_suffix(':').is_some_and(|name| !name.contains(char::is_whitespace))
}

/// The lines behind the label of an ACL, up to the next one.
fn acl_of(configuration: &str, name: &str) -> Vec<String> {
    let lines = section(configuration, "acl").into_iter();
    let from = lines.skip_while(|line| line.strip_suffix(':') != Some(name)).skip(1);
    from.take_while(|line| !is_label(line)).collect()
}

/// Lines of ACLs, those of a statement in one.
#[must_use]
pub fn statements(lines: &[String]) -> Vec<String> {
    const VERBS: [&str; 7] = ["accept", "defer", "deny", "discard", "drop", "require", "warn"];
    let mut statements: Vec<String> = Vec::new();
    for line in lines.iter().filter(|line| !is_label(line)) {
        match statements.last_mut() {
            Some(last) if !line.split_whitespace().next().is_some_and(|word| VERBS.contains(&word)) => {
                *last += " ";
                *last += line;
            }
            _ => statements.push(line.clone()),
        }
    }
    statements
}

/// A line of any length as `-be` reads it: in parts that end with a backslash but for the last one. Exim takes away white space
/// round the end of a part, so it is cut where there is none.
fn in_parts(line: &str) -> String {
    let is_blank = |index: usize| line.as_bytes().get(index).is_none_or(u8::is_ascii_whitespace);
    let (mut parts, mut rest) = (String::new(), 0);
    while line.len() - rest > LONGEST_PART {
        let fits = |&end: &usize| line.is_char_boundary(end) && !is_blank(end) && !is_blank(end - 1);
        let Some(end) = (rest + 1..=rest + LONGEST_PART).rev().find(fits) else { break };
        parts += &line[rest..end];
        parts += "\\\n";
        rest = end;
    }
    parts + &line[rest..]
}

fn expansion(answer: &str) -> Result<String, String> {
    match (answer.strip_prefix('='), answer.strip_prefix("Failed: ")) {
        (Some(value), _) => Ok(value.trim_end().to_owned()),
        (None, Some(why)) => Err(why.trim_end().to_owned()),
        (None, None) => Err(answer.to_owned()),
    }
}

/// Each reply in one line, code first, without the enhanced status codes: Exim repeats them in each line into which it breaks one.
fn replies(said: &str) -> Vec<String> {
    let (mut replies, mut reply) = (Vec::new(), String::new());
    for line in said.lines() {
        let Some((code, text)) = line.split_at_checked(3) else { continue };
        let Some(text) = text.strip_prefix(['-', ' ']).filter(|_| code.bytes().all(|byte| byte.is_ascii_digit()))
        else {
            continue;
        };
        if reply.is_empty() {
            code.clone_into(&mut reply);
        }
        reply = format!("{reply} {}", without_status(text.trim_end()));
        if line.as_bytes().get(3) == Some(&b' ') {
            replies.push(std::mem::take(&mut reply));
        }
    }
    replies
}

/// `no` of `5.7.1 no`.
fn without_status(text: &str) -> &str {
    let is_status =
        |word: &str| word.split('.').count() == 3 && word.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit());
    match text.split_once(' ') {
        Some((word, rest)) if is_status(word) => rest,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_several_lines_is_one_with_its_words_in_a_row() {
        let said = "**** a testing session\r\n220 x ESMTP\r\n250-x Hello\r\n250 HELP\r\n250 OK\r\n550-5.7.1 Ask\r\n550 5.7.1 us 1.2 times.\r\n";
        assert_eq!(replies(said), ["220 x ESMTP", "250 x Hello HELP", "250 OK", "550 Ask us 1.2 times."]);
        assert!(replies(">>> host\n25\u{e9} 1\n250\n\n").is_empty());
    }

    #[test]
    fn an_acl_ends_at_the_next_label() {
        let text = "x = y\nbegin acl\n\n  a:\n# 18 \"/etc/exim.conf\"\n    deny\n    domains = a:b\n  b:\n    accept\n\nbegin routers\n  a:\n";
        assert_eq!(acl_of(text, "a"), ["deny", "domains = a:b"]);
        assert_eq!(acl_of(text, "b"), ["accept"]);
        assert!(acl_of(text, "c").is_empty());
        assert_eq!(statements(&section(text, "acl")), ["deny domains = a:b", "accept"]);
    }

    #[test]
    fn the_retry_rules_end_at_the_next_section() {
        let text = "begin acl\na:\n  accept\n\nbegin retry\n# 4 \"x\"\n  vip.example * F,1s,1s\n\n  * * F,2h,15m\n\nbegin rewrite\n  *@x y\n";
        assert_eq!(section(text, "retry"), ["vip.example * F,1s,1s", "* * F,2h,15m"]);
        assert!(section("begin acl\na:\n  accept\n", "retry").is_empty());
    }

    #[test]
    fn a_long_line_comes_in_parts_that_are_the_line() {
        let line = "ab c\\d\u{fc} ".repeat(300);
        let parts = in_parts(&line);
        assert!(parts.lines().count() > 2 && parts.lines().all(|part| part.len() <= LONGEST_PART + 1));
        assert_eq!(parts.replace("\\\n", ""), line);
        let blank = |part: &str| part.starts_with(' ') || part.ends_with(" \\");
        assert!(!parts.lines().any(blank));
        assert_eq!(in_parts("short"), "short");
    }

    #[test]
    fn an_expansion_that_fails_is_told_from_one_that_says_so() {
        assert_eq!(expansion("=Failed: x "), Ok("Failed: x".to_owned()));
        assert_eq!(expansion("Failed: to connect"), Err("to connect".to_owned()));
    }
}
