//! `cargo xtask CHORE`: the project's chores. Exit status 0 when done, 1 when something failed, 2 on wrong usage.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::demo::{self, Afterwards};

/// The project's chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Run everything that must pass before a change is merged; installs Exim where it is missing.
    Test,
    /// Show on this machine, with real programs, what outgoingd does; installs Exim where it is missing.
    Demo {
        /// Leave everything running until Enter or Ctrl-C.
        #[arg(long)]
        keep: bool,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Test => xtask::checks::run(),
        Chore::Demo { keep: true } => demo::run(Afterwards::Keep),
        Chore::Demo { keep: false } => demo::run(Afterwards::Stop),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
