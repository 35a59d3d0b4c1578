//! `cargo xtask CHORE`: the project's chores. Exit status 0 when done, 1 when something failed, 2 on wrong usage.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use xtask::bench::{self, Length, Purpose};
use xtask::checks::{self, Extent};
use xtask::demo::{self, Afterwards};
use xtask::{dist, fuzz, manual, soak};

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
    Test {
        /// Leave out the packages, and the tests that install them on a systemd.
        #[arg(long)]
        quick: bool,
    },
    /// Build the packages for Debian and for Fedora and their relatives, into `dist` of the target directory.
    Dist,
    /// Measure what outgoingd costs, each figure a ratio within one run; four to five minutes.
    Bench {
        #[command(flatten)]
        length: LengthArgument,
        /// Fail if a figure misses its bound.
        #[arg(long)]
        check: bool,
    },
    /// What `bench` does when it has built everything.
    #[command(hide = true)]
    Measure {
        #[command(flatten)]
        length: LengthArgument,
        #[arg(long)]
        check: bool,
    },
    /// The server that `bench` compares with.
    #[command(hide = true)]
    Floor { socket: PathBuf },
    /// Kill the daemon at random moments under load, again and again, and look whether anything is missing; then storm it.
    Soak {
        /// How often it is killed.
        #[arg(long, default_value_t = 200)]
        rounds: usize,
    },
    /// Look for inputs that break a promise; needs cargo-fuzz (`cargo install cargo-fuzz --locked`).
    Fuzz {
        /// How long to look, for each target.
        #[arg(long, default_value_t = 1)]
        minutes: u64,
        /// Only this one of `fuzz/fuzz_targets`.
        #[arg(long)]
        target: Option<String>,
    },
    /// Make the manual pages and the completions of shells.
    Manual {
        /// Where they are written to; by default `manual` in the target directory.
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// Show on this machine, with real programs, what outgoingd does; installs Exim where it is missing.
    Demo {
        /// Leave everything running until Enter or Ctrl-C.
        #[arg(long)]
        keep: bool,
        /// Draw what is printed into this file, as SVG.
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct LengthArgument {
    /// In half the time, and less exact.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Test { quick: true } => checks::run(Extent::Quick),
        Chore::Test { quick: false } => checks::run(Extent::Everything),
        Chore::Dist => dist::run(),
        Chore::Bench { length, check } => {
            let flags = [("--quick", length.quick), ("--check", check)];
            bench::run(&flags.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag).collect::<Vec<_>>())
        }
        Chore::Measure { length, check } => bench::measure(
            if length.quick { Length::Quick } else { Length::Full },
            if check { Purpose::Check } else { Purpose::Show },
        ),
        Chore::Floor { socket } => bench::floor::serve(&socket),
        Chore::Soak { rounds } => soak::run(rounds),
        Chore::Fuzz { minutes, target } => fuzz::run(minutes, target.as_deref()),
        Chore::Demo { keep, record } => {
            demo::run(if keep { Afterwards::Keep } else { Afterwards::Stop }, record.as_deref())
        }
        Chore::Manual { output } => manual::run(output),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
