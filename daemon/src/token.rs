//! Tokens: by which a program that has no right of its own may do what some functions take. Pure.
//!
//! Whoever shows the secret has the token. What is kept of a secret is its SHA-256: it is 160 random bits, which nobody finds
//! by trying, so that salting and slowing the hash would add nothing.

use crate::flag::Timestamp;
use crate::name::{Shape, Subject};
use outgoingd_client::protocol::function;
use outgoingd_client::protocol::message::{Kind as WireKind, Request, Secret};
use sha2::{Digest, Sha256};

/// Longest name in bytes.
pub const MAX_NAME: usize = 64;

/// Most tokens at a time, so that a list of them fits into one frame.
pub const MAX_TOKENS: usize = 500;

/// A token, but for its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Of its secret.
    pub hash: Hash,
    /// The functions it is good for; none: all of them.
    pub functions: Vec<String>,
    /// When it was made.
    pub since: Timestamp,
    /// The first moment at which it is good for nothing; none: when it is revoked.
    pub until: Option<Timestamp>,
    /// Who made it.
    pub by: String,
}

/// What is kept of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

/// The name of a token: 1 to [`MAX_NAME`] lower-case letters, digits, dots, dashes and underscores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

/// Why a token was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The name has not the form of one.
    #[error("a token's name is 1 to {MAX_NAME} lower-case letters, digits, dots, dashes and underscores")]
    Name,
    /// There is no such function.
    #[error("there is no function \"{}\"; there are {}", .0.escape_debug(), known())]
    Function(String),
}

impl Token {
    /// Whether it is good for anything at `now`.
    #[must_use]
    pub fn in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Whether `function` is among its functions. One that is good for all is good for those that do not exist, which do nothing.
    #[must_use]
    pub fn is_good_for(&self, function: &str) -> bool {
        self.functions.is_empty() || self.functions.iter().any(|good| good == function)
    }
}

impl Hash {
    /// Of this secret.
    #[must_use]
    pub fn of(secret: &Secret) -> Hash {
        Hash(Sha256::digest(secret.0.as_bytes()).into())
    }
}

impl Name {
    /// Takes a name as it was typed.
    ///
    /// # Errors
    ///
    /// It has not the form of one.
    pub fn new(raw: &str) -> Result<Name, TokenError> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        let well_formed = (1..=MAX_NAME).contains(&raw.len()) && raw.bytes().all(fits);
        if well_formed { Ok(Name(raw.to_owned())) } else { Err(TokenError::Name) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Takes the functions that a token is to be good for, each once.
///
/// # Errors
///
/// There is no such function.
pub fn functions(wanted: &[String]) -> Result<Vec<String>, TokenError> {
    match wanted.iter().find(|wanted| !function::all().any(|known| known == **wanted)) {
        Some(unknown) => Err(TokenError::Function(unknown.chars().take(MAX_NAME).collect())),
        None => {
            Ok(function::all().filter(|known| wanted.iter().any(|wanted| wanted == known)).map(str::to_owned).collect())
        }
    }
}

/// Whether `function` takes `request`. Whoever calls it by a token may ask for nothing else meanwhile: not for another subject than an
/// account, or for UAPI a mailbox, and not with words or ends, which no function has.
#[must_use]
pub fn covers(function: &str, request: &Request) -> bool {
    let is_whm = function::WHM.contains(&function);
    let flag = |kind: &WireKind, hold, suspend, subject: &str| {
        let name = match kind {
            WireKind::Hold => hold,
            WireKind::Suspend => suspend,
        };
        let name_fits = if is_whm { function.strip_suffix("_email") == Some(name) } else { function == name };
        name_fits && if is_whm { is_account(subject) } else { is_mailbox(subject) }
    };
    match request {
        Request::Set { kind, subject, until: None, reason: None, notice: None } => {
            flag(kind, "hold_outgoing", "suspend_outgoing", subject)
        }
        Request::Clear { kind, subject } => flag(kind, "release_outgoing", "unsuspend_outgoing", subject),
        Request::Settle => function.ends_with("_outgoing") || function.ends_with("_outgoing_email"),
        Request::List { .. } | Request::Accounts { .. } => function == "listaccts",
        Request::Status { subject } => {
            let is_about_somebody = function == "accountsummary" || function.ends_with("_outgoing_email");
            (is_whm && is_about_somebody && is_account(subject))
                || (function::EMAIL.contains(&function) && (is_mailbox(subject) || is_account(subject)))
        }
        _ => false,
    }
}

/// Whether what is meant, in whatever spelling, is an account. What means nothing is refused in words of its own.
fn is_account(raw: &str) -> bool {
    Subject::new(raw).map_or(true, |subject| matches!(subject.shape(), Shape::Account(_)))
}

fn is_mailbox(raw: &str) -> bool {
    Subject::new(raw).map_or(true, |subject| matches!(subject.shape(), Shape::Mailbox(_)))
}

fn known() -> String {
    function::all().collect::<Vec<_>>().join(", ")
}
