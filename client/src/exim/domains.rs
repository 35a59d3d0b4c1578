//! Which recipients are outside: as the Exim snippets have it (`OUTGOINGD_OUTSIDE`), and only Exim can say it, since its domain
//! lists may look anything up. It is asked by `exim -be`, many domains at a time and each of them once. A domain of which Exim
//! cannot say it (a database is down) counts as outside, and whoever removes mail is told of the doubt.

use super::command::{Exim, EximError, talk, unexpected};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::process::{Output, Stdio};

/// The macro of the snippets; without them the word stands for itself.
const MACRO: &str = "OUTGOINGD_OUTSIDE";

/// What it is unless a site says otherwise.
const DEFAULT: &str = "!+local_domains";

/// Domains whose answers are kept.
const KEPT: usize = 1 << 14;

/// Who knows which domains are outside.
#[derive(Debug)]
pub struct Domains {
    exim: Exim,
    /// The list of domains that are outside, as Exim is asked; none: not known yet.
    outside: Option<&'static str>,
    known: HashMap<String, Side>,
}

/// Where a domain is.
#[derive(Debug)]
enum Side {
    Outside,
    Here,
    /// Exim cannot tell, in its words.
    Unknown(String),
}

impl Domains {
    /// Asks nothing yet.
    #[must_use]
    pub fn of(exim: &Exim) -> Domains {
        Domains { exim: exim.clone(), outside: None, known: HashMap::new() }
    }

    /// Keeps, of each list of recipients, those who are outside, and those of whom Exim cannot say it: then its words are what
    /// comes back for that list.
    ///
    /// # Errors
    ///
    /// Exim does not say which those are.
    pub fn keep_outside<'a>(
        &mut self,
        lists: impl Iterator<Item = &'a mut Vec<String>>,
    ) -> Result<Vec<Option<String>>, EximError> {
        let lists: Vec<&mut Vec<String>> = lists.collect();
        if self.known.len() > KEPT {
            self.known.clear();
        }
        let domains = lists.iter().flat_map(|list| list.iter()).filter_map(|recipient| domain(recipient));
        let unknown: BTreeSet<String> = domains.filter(|domain| !self.known.contains_key(domain)).collect();
        self.learn(unknown.into_iter().collect())?;
        let kept = lists.into_iter().map(|list| {
            let mut doubt = None;
            list.retain(|recipient| match domain(recipient).and_then(|domain| self.known.get_key_value(&domain)) {
                Some((_, Side::Here)) => false,
                Some((domain, Side::Unknown(said))) => {
                    doubt.get_or_insert_with(|| format!("Exim cannot say whether {domain} is local: {said}"));
                    true
                }
                Some((_, Side::Outside)) | None => true,
            });
            doubt
        });
        Ok(kept.collect())
    }

    fn learn(&mut self, domains: Vec<String>) -> Result<(), EximError> {
        if domains.is_empty() {
            return Ok(());
        }
        let outside = self.list_of_outside()?;
        let question = |domain: &String| format!("${{if match_domain{{{domain}}}{{{outside}}}{{outside}}{{here}}}}");
        let answers = self.ask(&domains.iter().map(question).collect::<Vec<_>>())?;
        for (domain, answer) in domains.into_iter().zip(answers) {
            let side = match answer.as_str() {
                "outside" => Side::Outside,
                "here" => Side::Here,
                // Exim does not deliver to it either: whoever looks shall see the message.
                said => Side::Unknown(said.strip_prefix("Failed: ").unwrap_or(said).to_owned()),
            };
            self.known.insert(domain, side);
        }
        Ok(())
    }

    fn list_of_outside(&mut self) -> Result<&'static str, EximError> {
        if let Some(outside) = self.outside {
            return Ok(outside);
        }
        // A line that begins with a capital letter would define a macro.
        let line = format!("={MACRO}");
        let outside = if self.ask(std::slice::from_ref(&line))? == [line] { DEFAULT } else { MACRO };
        Ok(*self.outside.insert(outside))
    }

    /// What each line expands to.
    fn ask(&self, lines: &[String]) -> Result<Vec<String>, EximError> {
        let failed = |source| EximError::Run { program: self.exim.program().to_path_buf(), source };
        let Output { stdout, status, .. } = self.expand(lines.join("\n") + "\n").map_err(failed)?;
        // Exim prompts for each line, and once more.
        let answers: Vec<String> = String::from_utf8_lossy(&stdout)
            .lines()
            .filter_map(|line| line.strip_prefix("> "))
            .take(lines.len())
            .map(|answer| answer.trim_end().to_owned())
            .collect();
        if answers.len() < lines.len() || !status.success() {
            let what =
                format!("answers {} of {} questions about domains, and ends with {status}", answers.len(), lines.len());
            return Err(unexpected(self.exim.program(), what));
        }
        Ok(answers)
    }

    fn expand(&self, lines: String) -> io::Result<Output> {
        let mut command = self.exim.command();
        talk(command.arg("-be").stderr(Stdio::null()), lines)
    }
}

/// The domain of a recipient, in lower case. None if there is none, or one that does not go into an expansion as it is: then
/// the recipient counts as outside.
fn domain(recipient: &str) -> Option<String> {
    let (_, domain) = recipient.rsplit_once('@')?;
    let plain =
        |character: char| !character.is_ascii() || character.is_ascii_alphanumeric() || "-._[]:".contains(character);
    (!domain.is_empty() && domain.chars().all(plain)).then(|| domain.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_domain_is_an_expansion() {
        assert_eq!(domain("a@Example.COM"), Some("example.com".to_owned()));
        assert_eq!(domain("\"a@b\"@[10.0.0.1]"), Some("[10.0.0.1]".to_owned()));
        assert_eq!(domain("a@b\u{fc}cher.example"), Some("b\u{fc}cher.example".to_owned()));
        for odd in ["a", "a@", "a@x}{*}{outside}{here}}${run{/bin/false}}", "a@x y", "a@x\ny", "a@x\\ny", "a@$x"] {
            assert_eq!(domain(odd), None, "{odd}");
        }
    }
}
