//! outgoingctl: administrators' commands to outgoingd.
//!
//! The way of a command: [`arguments`] says what can be typed, [`verbs`] asks the daemon, and Exim by way of [`held`],
//! [`delivery`] and [`removal`]; [`token`] and [`api`] are for those who call functions of WHM; [`enabling`] switches Exim's side on
//! and off, and [`doctor`] looks whether all of it works; [`show`] and [`rows`] make of what came back tables for people or JSON
//! for programs, which [`output`] prints. Exit statuses are decided here and nowhere else.

mod arguments;

mod verbs;

mod held;

mod delivery;

mod removal;

mod import;

mod doctor;

mod token;

mod api;

mod enabling;

mod tools;

mod turn;

mod consent;

mod interrupt;

mod output;

mod show;

mod rows;

mod exposition;

mod moment;

use arguments::Arguments;
use clap::{Command, CommandFactory, Parser};
use doctor::Diagnosis;
use outgoingd_client::Error;
use outgoingd_client::exim::{EximError, QueueError};
use outgoingd_client::held::HeldError;
use outgoingd_client::protocol::message::Cause;
use std::env;
use std::io::{self, ErrorKind};
use std::process::ExitCode;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The daemon said no, or could not be asked.
    #[error("{0}")]
    Client(#[from] Error),
    /// Exim said no, or could not be asked.
    #[error("{0}")]
    Exim(#[from] EximError),
    /// Something that must be said on the command line was not.
    #[error("{0}")]
    Usage(String),
    /// Whoever runs us may not do that.
    #[error("{0}")]
    NotPermitted(String),
    /// As much was found as was asked for.
    #[error("enough")]
    Enough,
    /// Something outside the daemon: a file to import, standard output.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// Whoever read what a listing prints has enough: head(1), a pager.
    #[error("nobody reads what is printed")]
    NobodyReads,
    /// Some of several subjects or lines failed; each was reported as it happened.
    #[error("{0}")]
    Some(String),
    /// A call was not carried out; the answer that was printed says why.
    #[error("the call was not carried out")]
    Answered,
    /// The checks of `doctor` say that not all is well, or could not all be made.
    #[error("not all is well")]
    Diagnosed(Diagnosis),
    /// We were asked to end before all was done.
    #[error("{0}")]
    Interrupted(String),
}

/// What `main` does: carries out the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse_from(api::words(env::args_os()));
    let in_doubt = arguments.verb.in_doubt();
    match verbs::run(arguments) {
        Ok(()) | Err(Failure::NobodyReads | Failure::Enough) => ExitCode::SUCCESS,
        Err(Failure::Answered) => ExitCode::FAILURE,
        Err(failure @ Failure::Diagnosed(_)) => ExitCode::from(exit_status(&failure)),
        Err(failure) => {
            let advice = advice(&failure).or(in_doubt.filter(|_| was_lost(&failure)));
            let words = show::safe(&failure.to_string());
            output::complain(&format!("outgoingctl: {words}{}", advice.unwrap_or_default()));
            ExitCode::from(exit_status(&failure))
        }
    }
}

impl From<HeldError> for Failure {
    fn from(error: HeldError) -> Failure {
        match error {
            HeldError::Client(error) => Failure::Client(error),
            HeldError::Exim(error) => Failure::Exim(error),
        }
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Failure {
        Failure::Exim(error.into())
    }
}

/// The definition of the command line, from which the manual page and the completions are made.
#[must_use]
pub fn command() -> Command {
    Arguments::command()
}

/// The statuses are part of the interface; 2, wrong usage, is clap's. 69 and 77 are `EX_UNAVAILABLE` and `EX_NOPERM` of `sysexits(3)`.
fn exit_status(failure: &Failure) -> u8 {
    match failure {
        Failure::Client(error) if error.is_not_permitted() => 77,
        Failure::Exim(error) if error.is_not_permitted() => 77,
        Failure::NotPermitted(_) | Failure::Diagnosed(Diagnosis::NotPermitted) => 77,
        Failure::Usage(_) => 2,
        Failure::Client(Error::Unreachable { .. } | Error::Lost { .. })
        | Failure::Diagnosed(Diagnosis::Unreachable) => 69,
        Failure::Client(Error::Refused(refusal)) if refusal.cause == Cause::Stopping => 69,
        Failure::Client(_)
        | Failure::Exim(_)
        | Failure::Io { .. }
        | Failure::NobodyReads
        | Failure::Enough
        | Failure::Some(_)
        | Failure::Answered
        | Failure::Diagnosed(Diagnosis::Ill)
        | Failure::Interrupted(_) => 1,
    }
}

/// What to do next, where the error does not say it itself.
fn advice(failure: &Failure) -> Option<&'static str> {
    let source = match failure {
        Failure::Client(Error::Unreachable { source, .. }) => source,
        Failure::Exim(EximError::Run { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Some("; name Exim's command with --exim");
        }
        _ => return None,
    };
    Some(match source.kind() {
        ErrorKind::PermissionDenied => "; become root, or a member of the socket's group",
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            "; is it running? (systemctl status outgoingd.socket outgoingd.service)"
        }
        _ => "; see systemctl status outgoingd",
    })
}

/// Whether the answer was lost, and with it what became of the request.
fn was_lost(failure: &Failure) -> bool {
    matches!(failure, Failure::Client(Error::Lost { .. }))
}
