//! What administrators ask and say about tokens, and what whoever presents one may do; and the list of accounts, which only those
//! who list them by token ask for.

use crate::change::{Action, Change, Origin};
use crate::directory::Accounts;
use crate::flag::{MAX_UNTIL, Timestamp};
use crate::name::Shape;
use crate::requests::{PAGE, Requests, unreadable};
use crate::token::{self, Hash, MAX_TOKENS, Token, TokenError};
use crate::wire;
use outgoingd_client::protocol::message::{Cause, Changed, Refusal, Reply, Secret, Token as WireToken};
use std::collections::BTreeSet;

/// The letters of a secret (RFC 4648, base 32): five bits each.
const LETTERS: [u8; 32] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Letters of a secret: as many as one of cPanel's has.
const SECRET_LEN: usize = 32;

/// Bytes of a name in a page beside the name, at most.
const LENGTH: usize = 3;

impl Requests {
    pub(crate) async fn create_token(
        &self,
        origin: Result<Origin, Refusal>,
        raw: &str,
        functions: &[String],
        until: Option<u64>,
    ) -> Result<Reply, Refusal> {
        let (origin, name) = (origin?, name(raw)?);
        let wrong = |why: String| refused(Cause::Invalid, format!("token {} was not made: {why}", name.as_str()));
        let functions = token::functions(functions).map_err(|error| wrong(error.to_string()))?;
        let since = self.clock.now();
        if until.is_some_and(|until| until <= since.0 || until >= MAX_UNTIL.0) {
            return Err(wrong("its end must lie between now and the year 2105".to_owned()));
        }
        let tokens = self.blocking(Requests::tokens).await?;
        if tokens.iter().filter(|(other, _)| other != name.as_str()).count() >= MAX_TOKENS {
            return Err(wrong(format!("there are {MAX_TOKENS}; revoke one that is not needed")));
        }
        let secret = new_secret().map_err(|error| wrong(format!("the system gave no random bits: {error}")))?;
        let until = until.map(Timestamp);
        let token = Token { hash: Hash::of(&secret), functions, since, until, by: origin.by.clone() };
        let action = Action::CreateToken { name: name.clone(), token };
        if self.write_one(Change { origin, action }, name.as_str().to_owned()).await?.changed {
            Ok(Reply::Secret { secret })
        } else {
            Err(wrong("there is one of that name; revoke it first, or choose another".to_owned()))
        }
    }

    pub(crate) async fn revoke_token(&self, origin: Result<Origin, Refusal>, raw: &str) -> Result<Changed, Refusal> {
        let (origin, name) = (origin?, name(raw)?);
        let changed = self.write_one(Change { origin, action: Action::RevokeToken { name } }, raw.to_owned()).await?;
        if changed.changed {
            return Ok(changed);
        }
        Err(refused(Cause::NoSuchSubject, format!("there is no token {raw}; `outgoingctl token list` shows them")))
    }

    pub(crate) fn list_tokens(&self) -> Result<Reply, Refusal> {
        let tokens = self.tokens()?.into_iter().map(|(name, token)| wire::token(&name, token));
        Ok(Reply::Tokens(tokens.collect()))
    }

    /// The token with that secret, if it is good for `function` now.
    pub(crate) async fn present(&self, hash: Hash, function: &str) -> Result<WireToken, Refusal> {
        let (tokens, now) = (self.blocking(Requests::tokens).await?, self.clock.now());
        let found = tokens.into_iter().find(|(_, token)| token.hash == hash && token.in_force(now));
        let Some((name, token)) = found else {
            let message = "there is no such token, or it has ended; `outgoingctl token create` makes one";
            return Err(refused(Cause::NoSuchToken, message.to_owned()));
        };
        if token.is_good_for(function) {
            return Ok(wire::token(&name, token));
        }
        let good = token.functions.join(", ");
        Err(refused(Cause::NotPermitted, format!("token {name} is good for {good}, and not for what was called")))
    }

    fn tokens(&self) -> Result<Vec<(String, Token)>, Refusal> {
        self.store.tokens().map_err(|error| unreadable(&error))
    }

    /// The accounts behind `after` that are known by name: those of the list, those that own a domain, those that have a flag.
    pub(crate) fn accounts(&self, after: Option<&str>) -> Result<Reply, Refusal> {
        let (mut page, mut size, mut more) = (BTreeSet::new(), 0, false);
        let mut add = |account: &str| {
            let is_new = after.is_none_or(|after| account > after) && !page.contains(account);
            if is_new && matches!(Shape::of(account), Shape::Account(_)) {
                page.insert(account.to_owned());
                size += LENGTH + account.len();
                // The first in their order stay.
                while size > PAGE {
                    size -= page.pop_last().map_or(size, |last| LENGTH + last.len());
                    more = true;
                }
            }
            self.goes_on()
        };
        if let Accounts::Listed(accounts, _) = &*self.policy().accounts {
            accounts.iter().all(|account| add(account));
        }
        self.table.owners().values().all(|account| add(account));
        let walked = self.store.flags_after(None, |(subject, ..)| add(subject.as_str()));
        walked.map_err(|error| unreadable(&error))?;
        Ok(Reply::Accounts { accounts: page.into_iter().collect(), more })
    }
}

/// A new secret, from the system's source of randomness.
///
/// # Errors
///
/// The system has none.
fn new_secret() -> Result<Secret, getrandom::Error> {
    let mut random = [0; SECRET_LEN];
    getrandom::fill(&mut random)?;
    // 256 is a multiple of 32, so that each letter is as likely as any other.
    Ok(Secret(random.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()))
}

fn name(raw: &str) -> Result<token::Name, Refusal> {
    token::Name::new(raw).map_err(|error: TokenError| refused(Cause::Invalid, error.to_string()))
}

fn refused(cause: Cause, message: String) -> Refusal {
    Refusal { cause, message }
}

/// Whoever is named in the trail beside the user for what is done by a token.
pub(crate) fn on_behalf_of(token: &WireToken) -> String {
    format!("token {}", token.name)
}

/// A reply to whoever asks by a token: which flags there are. Who set them and why is for those who have a right.
pub(crate) fn without_words(mut reply: Reply) -> Reply {
    let flags = match &mut reply {
        Reply::Flags { flags, .. } => flags,
        Reply::Status(status) => &mut status.flags,
        _ => return reply,
    };
    for flag in flags {
        (flag.by, flag.reason, flag.notice) = (None, None, None);
    }
    reply
}

/// The answer to whoever asks by a token for something that its function does not take.
pub(crate) fn not_covered(function: &str) -> Refusal {
    let function: String = function.escape_debug().take(token::MAX_NAME).collect();
    refused(Cause::NotPermitted, format!("this is not what {function} takes"))
}
