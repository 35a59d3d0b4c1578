//! What can be typed. One definition feeds parsing, help and usage errors.

use crate::moment;
use clap::{Args, Parser, Subcommand, ValueEnum};
use outgoingd_client::protocol::{DEFAULT_SOCKET, message};
use std::path::PathBuf;

/// Stops the outgoing mail of single senders on an Exim server, and lets it go again.
///
/// A SUBJECT is an account (alice), a mailbox (bob@example.com), a domain (@example.com) or everyone (*).
#[derive(Debug, Parser)]
#[command(
    name = "outgoingctl",
    version,
    subcommand_required = true,
    after_help = "Exit status: 0 done; 1 refused or failed; 2 wrong usage; 69 outgoingd not reachable; 77 not permitted."
)]
pub(crate) struct Arguments {
    /// Path of the daemon's socket
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    /// Exim's command; by default exim4 or exim, whichever is found first
    #[arg(long, global = true, value_name = "PROGRAM", env = "OUTGOINGCTL_EXIM", hide_env_values = true)]
    pub(crate) exim: Option<PathBuf>,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Hold: external mail of the subjects is accepted and waits on Exim's queue
    Hold {
        #[command(flatten)]
        subjects: Subjects,
        /// Why, for administrators
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        end: End,
    },
    /// Clear the hold, and have Exim deliver what waited
    Release {
        #[command(flatten)]
        subjects: Subjects,
        /// Leave what waits to Exim's next queue run
        #[arg(long, conflicts_with = "drop")]
        keep: bool,
        /// Remove what waits, without a bounce, instead of delivering it
        #[arg(long)]
        drop: bool,
        #[command(flatten)]
        consent: Consent,
        /// Messages that are delivered at the same time
        #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=100), conflicts_with_all = ["keep", "drop"])]
        jobs: u8,
    },
    /// Suspend: external mail of the subjects is rejected, and bounced where it already waits
    Suspend {
        #[command(flatten)]
        subjects: Subjects,
        /// Why, for administrators
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// What a rejected sender is shown
        #[arg(long, value_name = "TEXT")]
        notice: Option<String>,
        #[command(flatten)]
        end: End,
        /// Remove what waits, without a bounce, instead of having it bounced
        #[arg(long)]
        drop: bool,
        #[command(flatten)]
        consent: Consent,
    },
    /// Clear the suspend
    Unsuspend {
        #[command(flatten)]
        subjects: Subjects,
    },
    /// Show which flags cover the subject, and which of them decides
    Status {
        /// An account, mailbox, domain or *
        subject: String,
    },
    /// Show every flag
    List {
        /// Only holds
        #[arg(long, conflicts_with = "suspended")]
        held: bool,
        /// Only suspends
        #[arg(long)]
        suspended: bool,
    },
    /// Ask as Exim does: print the verdict on a sender identity, and the time it took
    Check {
        /// The sender identity, as Exim has it
        identity: String,
        /// The message that would be delivered, whose pass counts
        #[arg(long, value_name = "MESSAGE-ID")]
        id: Option<String>,
    },
    /// Show held mail: what waits on Exim's queue because its sender is held, the oldest first
    Held {
        /// Only mail of senders whom this account, mailbox, domain or * covers
        subject: Option<String>,
        /// Totals by the subject that is held
        #[arg(long, conflicts_with = "limit")]
        summary: bool,
        /// Only what has been on the queue for longer than this, such as 90m, 24h or 7d
        #[arg(long, value_name = "DURATION", value_parser = moment::before)]
        older: Option<u64>,
        /// At most so many messages, the oldest
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
    },
    /// Let single messages of held senders be delivered, now
    Pass {
        /// Exim's message ids
        #[arg(required = true, value_name = "MESSAGE-ID")]
        message_ids: Vec<String>,
        /// Leave them to Exim's next queue run
        #[arg(long)]
        keep: bool,
    },
    /// Remove messages of held or suspended senders from Exim's queue, without a bounce
    Drop {
        /// Exim's message ids
        #[arg(value_name = "MESSAGE-ID", required_unless_present = "subject", conflicts_with = "subject")]
        message_ids: Vec<String>,
        /// All that waits of senders whom this account, mailbox, domain or * covers
        #[arg(long, value_name = "SUBJECT")]
        subject: Option<String>,
        /// Only what has been on the queue for longer than this, such as 90m, 24h or 7d
        #[arg(long, value_name = "DURATION", value_parser = moment::before, conflicts_with = "message_ids")]
        older: Option<u64>,
        #[command(flatten)]
        consent: Consent,
    },
    /// Remove held mail over the bounds of the configuration, and forget passes of messages that are gone
    Sweep {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Show who did what, when and from where, the newest last
    Log {
        /// Only what was done to this subject or message
        subject: Option<String>,
        /// At most so many entries, the newest
        #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
        lines: u64,
    },
    /// Show changes and ends as they happen, one a line, until Ctrl-C
    Watch {
        /// Only what is done to this subject or message
        subject: Option<String>,
    },
    /// Print every flag as JSON, one object a line, as import reads it
    Export,
    /// Set the flags in FILE: what export prints, or one of cPanel's two lists
    Import {
        /// The file; - is standard input
        file: PathBuf,
        /// Which flag the lines of a plain list mean, where the file's name does not say so
        #[arg(long = "as", value_name = "FLAG")]
        kind: Option<Kind>,
    },
    /// Show counters and latencies since the daemon started
    Stats,
}

#[derive(Debug, Args)]
pub(crate) struct Subjects {
    /// Accounts, mailboxes, domains or *
    #[arg(required = true, value_name = "SUBJECT")]
    pub(crate) subjects: Vec<String>,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Consent {
    /// Remove messages without asking
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct End {
    /// End by itself after this time, such as 90m, 24h or 7d
    #[arg(long = "for", value_name = "DURATION", value_parser = moment::after)]
    after: Option<u64>,
    /// End by itself then: 2030-01-31, "2030-01-31 08:00" in local time, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    until: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    Hold,
    Suspend,
}

impl Verb {
    /// Whether it changes something.
    pub(crate) fn changes(&self) -> bool {
        match self {
            Verb::Hold { .. }
            | Verb::Release { .. }
            | Verb::Suspend { .. }
            | Verb::Unsuspend { .. }
            | Verb::Pass { .. }
            | Verb::Drop { .. }
            | Verb::Sweep { .. }
            | Verb::Import { .. } => true,
            Verb::Status { .. }
            | Verb::List { .. }
            | Verb::Check { .. }
            | Verb::Held { .. }
            | Verb::Log { .. }
            | Verb::Watch { .. }
            | Verb::Export
            | Verb::Stats => false,
        }
    }
}

impl End {
    /// In Unix seconds.
    pub(crate) fn until(&self) -> Option<u64> {
        self.until.or(self.after)
    }
}

impl From<Kind> for message::Kind {
    fn from(kind: Kind) -> message::Kind {
        match kind {
            Kind::Hold => message::Kind::Hold,
            Kind::Suspend => message::Kind::Suspend,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_flag_has_one_end_at_most() {
        assert!(
            Arguments::try_parse_from(["outgoingctl", "hold", "a", "--for", "1h", "--until", "2030-01-31"]).is_err()
        );
        assert!(Arguments::try_parse_from(["outgoingctl", "hold"]).is_err());
        assert!(Arguments::try_parse_from(["outgoingctl", "--json", "hold", "a", "b", "--socket", "/x"]).is_ok());
    }

    #[test]
    fn what_waits_is_kept_or_dropped_and_what_is_dropped_is_named_in_one_way() {
        for wrong in [
            &["release", "a", "--keep", "--drop"][..],
            &["release", "a", "--jobs", "0"],
            &["drop"],
            &["drop", "1rABCD-000abc-XY", "--subject", "a"],
            &["drop", "1rABCD-000abc-XY", "--older", "1d"],
            &["held", "--summary", "--limit", "3"],
            &["held", "--limit", "0"],
        ] {
            assert!(Arguments::try_parse_from([&["outgoingctl"], wrong].concat()).is_err(), "{wrong:?}");
        }
    }
}
