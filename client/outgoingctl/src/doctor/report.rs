//! What the checks have found: printed one by one, and summed up.

use super::CHECKS;
use crate::Failure;
use crate::rows::FindingRow;
use crate::show;
use crate::tools::Tools;
use std::collections::BTreeSet;

/// What one check has found.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) result: Outcome,
    pub(crate) found: String,
    pub(crate) advice: Option<String>,
    /// Only because of who asks.
    not_permitted: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Warning,
    Failed,
    Unknown,
}

/// Why not all is well, as the exit status tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Diagnosis {
    /// Enforcement does not work, or nobody knows.
    Ill,
    /// The daemon does not answer.
    Unreachable,
    /// Who asks may not find out.
    NotPermitted,
}

/// All findings so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    made: BTreeSet<&'static str>,
    warnings: usize,
    failed: usize,
    unknown: usize,
    unreachable: bool,
    not_permitted: bool,
    blocked: Option<String>,
}

impl Finding {
    pub(crate) fn ok(found: impl Into<String>) -> Finding {
        Finding { result: Outcome::Ok, found: found.into(), advice: None, not_permitted: false }
    }

    pub(crate) fn warning(found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { result: Outcome::Warning, advice: Some(advice.into()), ..Finding::ok(found) }
    }

    pub(crate) fn failed(found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { result: Outcome::Failed, advice: Some(advice.into()), ..Finding::ok(found) }
    }

    pub(crate) fn unknown(found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { result: Outcome::Unknown, advice: Some(advice.into()), ..Finding::ok(found) }
    }
}

/// What could not be done: unknown where this user may not, otherwise failed.
pub(crate) fn unseen(failure: &Failure, advice: &str) -> Finding {
    let not_permitted = match failure {
        Failure::Client(error) => error.is_not_permitted(),
        Failure::Exim(error) => error.is_not_permitted(),
        _ => false,
    };
    if not_permitted {
        let advice = "run it as root, and the rest can be seen";
        Finding { not_permitted, ..Finding::unknown(failure.to_string(), advice) }
    } else {
        Finding::failed(failure.to_string(), advice)
    }
}

impl Report {
    /// Takes note of a finding, and prints it.
    pub(crate) fn add(&mut self, tools: &mut Tools, check: &'static str, finding: &Finding) -> Result<(), Failure> {
        self.made.insert(check);
        self.not_permitted |= finding.not_permitted;
        match finding.result {
            Outcome::Ok => {}
            Outcome::Warning => self.warnings += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Unknown => self.unknown += 1,
        }
        print(tools, check, finding)
    }

    /// Whether that check has been made.
    pub(crate) fn was_made(&self, check: &str) -> bool {
        self.made.contains(check)
    }

    /// The daemon does not answer.
    pub(crate) fn unreachable(&mut self) {
        self.unreachable = true;
        self.blocked("outgoingd does not answer");
    }

    /// Why checks that come later cannot be made; the first reason counts.
    pub(crate) fn blocked(&mut self, why: &str) {
        self.blocked.get_or_insert_with(|| why.to_owned());
    }

    /// Names the checks that were not made, and sums up.
    pub(crate) fn end(mut self, tools: &mut Tools) -> Result<(), Failure> {
        let why = self.blocked.take().unwrap_or_else(|| "an earlier check failed".to_owned());
        for check in CHECKS {
            if !self.made.contains(check) {
                // What to do about that has been said.
                let found = format!("not looked at: {why}");
                self.add(tools, check, &Finding { result: Outcome::Unknown, ..Finding::ok(found) })?;
            }
        }
        let is_well = self.failed + self.unknown == 0;
        let words = match (self.failed, self.unknown, self.warnings) {
            (0, 0, 0) => "works".to_owned(),
            (0, 0, warnings) => format!("works; {} to look at", things(warnings)),
            (0, unknown, _) => format!("is not known to work: {} could not be seen", things(unknown)),
            (failed, 0, _) => format!("does not work: {} to mend", things(failed)),
            (failed, unknown, _) => {
                format!("does not work: {} to mend, and {unknown} could not be seen", things(failed))
            }
        };
        if tools.output.json {
            let result = if is_well { "ok" } else { "failed" };
            tools.output.json(&FindingRow { check: "enforcement", result, found: &words, advice: None })?;
        } else {
            tools.output.text(&format!("\nenforcement {words}\n"))?;
        }
        tools.output.flush()?;
        match self {
            Report { unreachable: true, .. } => Err(Failure::Diagnosed(Diagnosis::Unreachable)),
            Report { not_permitted: true, .. } => Err(Failure::Diagnosed(Diagnosis::NotPermitted)),
            _ if is_well => Ok(()),
            _ => Err(Failure::Diagnosed(Diagnosis::Ill)),
        }
    }
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Warning => "warning",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        }
    }
}

fn print(tools: &mut Tools, check: &str, finding: &Finding) -> Result<(), Failure> {
    let Finding { result, found, advice, .. } = finding;
    if tools.output.json {
        tools.output.json(&FindingRow { check, result: result.word(), found, advice: advice.as_deref() })?;
    } else {
        // What fails is to be seen.
        let word = if *result == Outcome::Failed { "FAILED" } else { result.word() };
        tools.output.text(&format!("{word:<8} {check:<24} {}\n", show::safe(found)))?;
        if let Some(advice) = advice {
            tools.output.text(&format!("{:<8} to do: {}\n", "", show::safe(advice)))?;
        }
    }
    // Some checks take seconds.
    tools.output.flush()
}

fn things(count: usize) -> String {
    if count == 1 { "1 thing".to_owned() } else { format!("{count} things") }
}
