//! Who says to be calling: what stands in `Authorization`. Pure.
//!
//! WHM's own scheme is `whm root:TOKEN`, that of cPanel accounts `cpanel USER:TOKEN`, which goes for UAPI only. Whether
//! the token is one is for the daemon to say.

use outgoingd_client::protocol::message::Secret;

/// Longest token in bytes; the daemon's have 32.
const MAX_TOKEN: usize = 128;

/// Longest name of an account in bytes.
const MAX_ACCOUNT: usize = 64;

/// What was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The token's.
    pub(crate) secret: Secret,
    /// The account on whose behalf it is, which may speak for its own mailboxes only; none: any.
    pub(crate) account: Option<String>,
}

/// Which schemes go where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schemes {
    /// Where functions of WHM are called.
    Whm,
    /// Where functions of UAPI are called.
    WhmAndCpanel,
}

/// Why nobody was let in. The words quote nothing of what was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// There is no such header.
    #[error("there is no Authorization; expected: Authorization: whm root:TOKEN")]
    Missing,
    /// There is more than one.
    #[error("there is more than one Authorization")]
    Several,
    /// A password.
    #[error(
        "passwords are not taken; expected: Authorization: whm root:TOKEN, with a token of outgoingctl token create"
    )]
    Basic,
    /// Some other scheme.
    #[error("this scheme of Authorization is not known; expected: Authorization: whm root:TOKEN")]
    Scheme,
    /// An account where only administrators may call.
    #[error("cPanel accounts may call UAPI only; expected: Authorization: whm root:TOKEN")]
    CpanelHere,
    /// A reseller.
    #[error("nobody but root may call here; expected: Authorization: whm root:TOKEN")]
    NotRoot,
    /// It has not the form.
    #[error("this Authorization is not well formed; expected: Authorization: whm root:TOKEN")]
    Malformed,
}

impl Schemes {
    /// What is shown, by the values of all the headers of that name.
    pub(crate) fn credentials<'a>(self, headers: impl IntoIterator<Item = &'a [u8]>) -> Result<Credentials, Unusable> {
        let mut headers = headers.into_iter();
        let header = headers.next().ok_or(Unusable::Missing)?;
        if headers.next().is_some() {
            return Err(Unusable::Several);
        }
        let header = str::from_utf8(header).map_err(|_| Unusable::Malformed)?;
        let (scheme, rest) = header.trim_ascii().split_once(' ').ok_or(Unusable::Malformed)?;
        if scheme.eq_ignore_ascii_case("basic") {
            return Err(Unusable::Basic);
        }
        let cpanel = scheme.eq_ignore_ascii_case("cpanel");
        if !cpanel && !scheme.eq_ignore_ascii_case("whm") {
            return Err(Unusable::Scheme);
        }
        let (user, token) = rest.trim_ascii_start().split_once(':').ok_or(Unusable::Malformed)?;
        let secret = secret(token)?;
        match (cpanel, self) {
            (true, Schemes::Whm) => Err(Unusable::CpanelHere),
            (true, Schemes::WhmAndCpanel) => Ok(Credentials { secret, account: Some(account(user)?) }),
            (false, _) if user == "root" => Ok(Credentials { secret, account: None }),
            (false, _) => Err(Unusable::NotRoot),
        }
    }

    /// `WWW-Authenticate`: what would be taken (RFC 9110, section 11.6.1).
    pub(crate) fn challenge(self) -> &'static str {
        match self {
            Schemes::Whm => "whm realm=\"WHM\"",
            Schemes::WhmAndCpanel => "whm realm=\"WHM\", cpanel realm=\"cPanel\"",
        }
    }
}

fn secret(token: &str) -> Result<Secret, Unusable> {
    let fits = (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(Secret(token.to_owned())) } else { Err(Unusable::Malformed) }
}

fn account(user: &str) -> Result<String, Unusable> {
    let fits = (1..=MAX_ACCOUNT).contains(&user.len()) && user.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(user.to_owned()) } else { Err(Unusable::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whm(header: &str) -> Result<Credentials, Unusable> {
        Schemes::Whm.credentials([header.as_bytes()])
    }

    fn uapi(header: &str) -> Result<Credentials, Unusable> {
        Schemes::WhmAndCpanel.credentials([header.as_bytes()])
    }

    #[test]
    fn roots_token_goes_everywhere_and_the_word_before_it_in_any_case() {
        let root = Credentials { secret: Secret("T0KEN".to_owned()), account: None };
        for header in ["whm root:T0KEN", "WHM root:T0KEN", "Whm  root:T0KEN", " whm root:T0KEN "] {
            assert_eq!(whm(header).as_ref(), Ok(&root), "{header}");
            assert_eq!(uapi(header).as_ref(), Ok(&root), "{header}");
        }
    }

    #[test]
    fn a_cpanel_account_may_call_uapi_and_nothing_else() {
        let alice = Credentials { secret: Secret("T0KEN".to_owned()), account: Some("alice".to_owned()) };
        assert_eq!(uapi("cpanel alice:T0KEN"), Ok(alice.clone()));
        assert_eq!(uapi("CPANEL alice:T0KEN"), Ok(alice));
        assert_eq!(whm("cpanel alice:T0KEN"), Err(Unusable::CpanelHere));
    }

    #[test]
    fn nobody_but_root_is_taken_for_an_administrator() {
        for user in ["reseller", "Root", "", "root "] {
            assert_eq!(whm(&format!("whm {user}:T0KEN")), Err(Unusable::NotRoot), "{user}");
        }
    }

    #[test]
    fn passwords_and_other_schemes_are_refused_in_words_of_their_own() {
        assert_eq!(whm("Basic cm9vdDpzM2NyZXQ="), Err(Unusable::Basic));
        assert_eq!(whm("Bearer T0KEN"), Err(Unusable::Scheme));
        assert_eq!(Schemes::Whm.credentials([]), Err(Unusable::Missing));
        let twice: [&[u8]; 2] = [b"whm root:T0KEN", b"whm root:T0KEN"];
        assert_eq!(Schemes::Whm.credentials(twice), Err(Unusable::Several));
    }

    #[test]
    fn what_has_not_the_form_is_refused() {
        let long = format!("whm root:{}", "x".repeat(MAX_TOKEN + 1));
        for header in ["", "whm", "whm root", "whm root:", "whm root:a b", "whm root:a\tb", "whm root:\u{e9}", &long] {
            assert_eq!(whm(header), Err(Unusable::Malformed), "{header}");
        }
        let long = format!("cpanel {}:T0KEN", "x".repeat(MAX_ACCOUNT + 1));
        for header in ["cpanel :T0KEN", "cpanel a b:T0KEN", &long] {
            assert_eq!(uapi(header), Err(Unusable::Malformed), "{header}");
        }
        assert_eq!(Schemes::Whm.credentials([&b"whm root:\xff"[..]]), Err(Unusable::Malformed));
    }

    #[test]
    fn no_words_show_a_secret() {
        assert!(!format!("{:?}", whm("whm root:T0KEN")).contains("T0KEN"));
    }
}
