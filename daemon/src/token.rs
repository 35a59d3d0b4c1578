//! Tokens: by which a program that has no right of its own may do what some functions take. Pure.
//!
//! Whoever shows the secret has the token. What is kept of a secret is its SHA-256: it is 160 random bits, which nobody finds
//! by trying, so that salting and slowing the hash would add nothing.

use crate::flag::{Kind, Timestamp};
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

/// Whether `function` takes `request`. Whoever calls it by a token may ask for nothing else meanwhile, whatever it names besides.
#[must_use]
pub fn covers(function: &str, request: &Request) -> bool {
    let whm = |name| function.strip_suffix("_email").is_some_and(|function| function == name);
    let either = |name| function == name || whm(name);
    match request {
        Request::Set { kind, .. } => match Kind::from(*kind) {
            Kind::Hold => either("hold_outgoing"),
            Kind::Suspend => either("suspend_outgoing"),
        },
        Request::Clear { kind: WireKind::Hold, .. } => either("release_outgoing"),
        Request::Clear { kind: WireKind::Suspend, .. } => either("unsuspend_outgoing"),
        Request::Settle => function.ends_with("_outgoing") || function.ends_with("_outgoing_email"),
        Request::List { .. } | Request::Accounts { .. } => function == "listaccts",
        Request::Status { .. } => {
            function == "accountsummary"
                || function::EMAIL.contains(&function)
                || (function::WHM.contains(&function) && function.ends_with("_outgoing_email"))
        }
        _ => false,
    }
}

fn known() -> String {
    function::all().collect::<Vec<_>>().join(", ")
}
