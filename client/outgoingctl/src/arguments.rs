//! What can be typed. One definition feeds parsing, help and usage errors.

use crate::moment;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use outgoingd_client::protocol::{DEFAULT_SOCKET, function, message};
use outgoingd_whmapi::Format;
use std::path::PathBuf;

/// Stops the outgoing mail of single senders on an Exim server, and lets it go again.
///
/// A SUBJECT is an account (alice), a mailbox (bob@example.com), a domain (@example.com) or everyone (*).
#[derive(Debug, Parser)]
#[command(
    name = "outgoingctl",
    version,
    subcommand_required = true,
    after_help = "Exit status: 0 done; 1 refused or failed; 2 wrong usage; 69 outgoingd not reachable; 77 not permitted.\n\n\
                  See outgoingctl(8)."
)]
pub(crate) struct Arguments {
    /// Path of the daemon's socket
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET, env = "OUTGOINGCTL_SOCKET", hide_env_values = true)]
    pub(crate) socket: PathBuf,
    /// Exim's command; by default exim4 or exim, whichever is found first
    #[arg(long, global = true, value_name = "PROGRAM", env = "OUTGOINGCTL_EXIM", hide_env_values = true)]
    pub(crate) exim: Option<PathBuf>,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Whom the audit trail names beside the user who runs this; by default the one behind sudo or doas
    #[arg(long, global = true, value_name = "WHOM")]
    pub(crate) on_behalf_of: Option<String>,
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
    /// Have Exim deliver what waits and nothing stops any more, as release does, and change no flag
    Deliver {
        #[command(flatten)]
        subjects: Subjects,
        /// Only when fewer than eight others with this option are at it; wait five seconds for that at most
        #[arg(long)]
        in_turn: bool,
        /// Messages that are delivered at the same time
        #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=100))]
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
    #[command(group(ArgGroup::new("what").required(true).args(["message_ids", "subject"])))]
    Drop {
        /// Exim's message ids
        #[arg(value_name = "MESSAGE-ID")]
        message_ids: Vec<String>,
        /// All that waits of senders whom this account, mailbox, domain or * covers
        #[arg(long, value_name = "SUBJECT")]
        subject: Option<String>,
        /// Only of held senders, not of suspended ones
        #[arg(long, conflicts_with = "message_ids")]
        held: bool,
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
    Stats {
        /// For Prometheus, in its text format, with a histogram of latencies
        #[arg(long, conflicts_with = "json")]
        prometheus: bool,
    },
    /// Switch outgoingd on and off in Exim's configuration
    #[command(name = "exim", subcommand)]
    Exim(EximVerb),
    /// Check whether enforcement works, from the daemon to Exim's decisions, and say what to mend
    ///
    /// Holds and suspends a made-up sender for a moment and asks Exim what it would do. Nothing is sent.
    #[command(after_help = DIAGNOSIS)]
    Doctor,
    /// Make, show and revoke tokens, by which programs call functions of WHM API 1 and UAPI
    #[command(subcommand)]
    Token(TokenVerb),
    /// Call a function of WHM API 1, as WHM's command of that name does; also under the name whmapi1
    #[command(name = "whmapi1", after_help = ANSWER)]
    Whm(Call),
    /// Call a function of UAPI, as cPanel's command of that name does; also under the name uapi
    #[command(after_help = ANSWER)]
    Uapi {
        /// The account on whose behalf it is, which may speak for its own mailboxes only; by default any
        #[arg(long, value_name = "ACCOUNT")]
        user: Option<String>,
        /// The module, such as Email
        module: String,
        #[command(flatten)]
        call: Call,
    },
}

/// What is told of the statuses of [`Verb::Doctor`].
const DIAGNOSIS: &str = "Exit status: 0 enforcement works; 1 it does not, or some of it could not be seen; 69 outgoingd not reachable; 77 not permitted to find out.";

/// What is told of the answer to a [`Call`].
const ANSWER: &str = "Exit status: 0 if the answer says that it was done, otherwise 1; 2 wrong usage.";

#[derive(Debug, Args)]
pub(crate) struct Call {
    /// The format of the answer; by default yaml
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(Format::NAMES).try_map(|name| name.parse::<Format>()))]
    pub(crate) output: Option<Format>,
    /// The function
    pub(crate) function: String,
    /// Its arguments, the values URI-encoded
    #[arg(value_name = "NAME=VALUE")]
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EximVerb {
    /// Have Exim ask outgoingd: writes Debian's split configuration, and says for any other what to paste where
    Enable {
        #[command(flatten)]
        switch: Switch,
        /// Where outgoingd's files for Exim are
        #[arg(long, value_name = "DIRECTORY", default_value = SNIPPETS)]
        snippets: PathBuf,
    },
    /// Have Exim go on without outgoingd: what is on hold goes out with the next queue run
    Disable {
        #[command(flatten)]
        switch: Switch,
    },
}

/// Where the packages put them.
const SNIPPETS: &str = "/usr/share/outgoingd/exim-snippets";

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Switch {
    /// Change Exim's configuration without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Only show what would be changed
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a token, and print its secret, this once
    Create {
        /// Its name: lower-case letters, digits, dots, dashes and underscores
        name: String,
        /// A function that it is good for, and it alone; can be given several times
        #[arg(long = "function", value_name = "FUNCTION", value_parser = PossibleValuesParser::new(function::all()))]
        functions: Vec<String>,
        #[command(flatten)]
        end: End,
    },
    /// Show all tokens, without their secrets
    List,
    /// Revoke tokens: nobody can use them from now on
    Revoke {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
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
    /// Whether it changes a flag or a pass, or removes mail, and does not say in an answer of its own what became of that.
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
            Verb::Deliver { .. }
            | Verb::Status { .. }
            | Verb::List { .. }
            | Verb::Check { .. }
            | Verb::Held { .. }
            | Verb::Log { .. }
            | Verb::Watch { .. }
            | Verb::Export
            | Verb::Stats { .. }
            | Verb::Exim(_)
            | Verb::Doctor
            | Verb::Token(_)
            | Verb::Whm(_)
            | Verb::Uapi { .. } => false,
        }
    }

    /// What to say when the daemon's answer was lost.
    pub(crate) fn in_doubt(&self) -> Option<&'static str> {
        match self {
            Verb::Token(TokenVerb::Create { .. } | TokenVerb::Revoke { .. }) => Some(
                "; it may have been done or not: look with `outgoingctl token list`, and revoke a token whose secret you have not seen",
            ),
            verb => verb.changes().then_some(
                "; the change may have been made or not: look with `outgoingctl status`, or repeat it, which does no harm",
            ),
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
    fn a_token_is_good_for_functions_that_there_are() {
        let create =
            |function| Arguments::try_parse_from(["outgoingctl", "token", "create", "billing", "--function", function]);
        assert!(create("hold_outgoing_email").is_ok());
        let refused = create("format_disk").unwrap_err().to_string();
        assert!(function::all().all(|function| refused.contains(function)), "{refused}");
    }

    #[test]
    fn a_call_has_its_options_anywhere_among_its_words() {
        let call = |words: &[&str]| Arguments::try_parse_from([&["outgoingctl"], words].concat()).map(|read| read.verb);
        for words in [
            &["whmapi1", "--output=jsonpretty", "hold_outgoing_email", "user=alice"][..],
            &["whmapi1", "hold_outgoing_email", "--output=jsonpretty", "user=alice"],
            &["whmapi1", "hold_outgoing_email", "user=alice", "--output", "jsonpretty"],
        ] {
            let Ok(Verb::Whm(Call { output: Some(Format::JsonPretty), function, arguments })) = call(words) else {
                panic!("{words:?}")
            };
            assert_eq!((function.as_str(), arguments), ("hold_outgoing_email", vec!["user=alice".to_owned()]));
        }
        let words = ["uapi", "Email", "hold_outgoing", "--user=alice", "email=bob%40shop.test", "--output=json"];
        let Ok(Verb::Uapi { user, module, call: named }) = call(&words) else { panic!("{words:?}") };
        assert_eq!(
            (user.as_deref(), module.as_str(), named.function.as_str()),
            (Some("alice"), "Email", "hold_outgoing")
        );
        for wrong in [&["whmapi1"][..], &["uapi", "Email"], &["whmapi1", "version", "--output=csv"]] {
            assert!(call(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_waits_is_kept_or_dropped_and_what_is_dropped_is_named_in_one_way() {
        for wrong in [
            &["release", "a", "--keep", "--drop"][..],
            &["release", "a", "--jobs", "0"],
            &["drop"],
            &["drop", "1rABCD-000abc-XY", "--subject", "a"],
            &["drop", "1rABCD-000abc-XY", "--older", "1d"],
            &["drop", "1rABCD-000abc-XY", "--held"],
            &["deliver"],
            &["deliver", "a", "--keep"],
            &["held", "--summary", "--limit", "3"],
            &["held", "--limit", "0"],
        ] {
            assert!(Arguments::try_parse_from([&["outgoingctl"], wrong].concat()).is_err(), "{wrong:?}");
        }
    }
}
