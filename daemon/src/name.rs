//! Names that a peer can type: sender identities, subjects, message ids. One validating constructor each.
//!
//! Normal form of identities and subjects: trimmed, lower case, no control characters, no inner spaces, 1 to 320 bytes
//! of UTF-8 (RFC 3696 errata 1690: 64 + 1 + 255), the domain as A-labels (UTS 46, RFC 5890) without a final dot, Exim's
//! octal escapes of letters outside ASCII undone. So neither a capital letter nor a dot, the Unicode spelling of a domain or
//! a copy from Exim's log is a way round a flag. A name that already is in normal form is borrowed, which on the way of a
//! lookup is the rule.
//!
//! Honest limits: a local part with letters outside ASCII is folded character by character and is not composed (NFC);
//! an authenticator that treats two compositions as one sender must compose them itself.

use std::borrow::Cow;

/// Longest name in bytes, in normal form.
pub const MAX_NAME: usize = 320;

/// Who is sending, as Exim says, in normal form. Anything in normal form is an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity<'a>(Cow<'a, str>);

/// What a flag is set on, in normal form and of one of the four shapes of [`Shape`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Box<str>);

/// The four shapes of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape<'a> {
    /// `*`: everyone but root.
    Everyone,
    /// `@example.com`: every identity in that domain.
    Domain(&'a str),
    /// `bob@example.com`: that identity; here, its domain.
    Mailbox(&'a str),
    /// `alice`: that identity, and every identity in a domain that the account owns.
    Account(&'a str),
}

/// An Exim message id: `1rABCD-000abc-XY`, or since Exim 4.97 `1rABCD-0000000abcd-XYZW`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageId<'a>(Cow<'a, str>);

/// Why a name was refused. The words come behind the name, as in `"x y": has a space in it`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left after trimming.
    #[error("is empty")]
    Empty,
    /// Longer than [`MAX_NAME`].
    #[error("is longer than {MAX_NAME} bytes")]
    TooLong,
    /// A control character.
    #[error("has a control character in it")]
    Control,
    /// A space between other characters.
    #[error("has a space in it")]
    Space,
    /// The domain has no A-label form.
    #[error("has a domain that is no valid internationalised domain name")]
    Domain,
    /// A subject of none of the four shapes.
    #[error(
        "is no subject: a subject is an account (alice), a mailbox (bob@example.com), a domain (@example.com) or everyone (*)"
    )]
    NotASubject,
    /// Not the form of a message id.
    #[error("is not a message id of Exim, such as 1rABCD-000abc-XY")]
    NotAMessageId,
}

impl<'a> Identity<'a> {
    /// Brings `raw` into normal form.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn new(raw: &'a str) -> Result<Identity<'a>, NameError> {
        normal_form(raw).map(Identity)
    }

    /// Takes what is in normal form already, such as a key of the table.
    pub(crate) fn from_normal_form(name: &'a str) -> Identity<'a> {
        Identity(Cow::Borrowed(name))
    }

    /// The normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same identity, owning its text.
    #[must_use]
    pub fn into_owned(self) -> Identity<'static> {
        Identity(Cow::Owned(self.0.into_owned()))
    }

    /// `@example.com` of `bob@example.com`, the key under which a flag on the domain is kept.
    #[must_use]
    pub fn at_domain(&self) -> Option<&str> {
        self.0.rfind('@').map(|at| &self.0[at..])
    }

    /// Whether this is root, whom no flag touches.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0 == "root"
    }
}

impl Subject {
    /// Brings `raw` into normal form and sees to its shape.
    ///
    /// # Errors
    ///
    /// It has no normal form or none of the four shapes.
    pub fn new(raw: &str) -> Result<Subject, NameError> {
        let name = normal_form(raw)?;
        let well_shaped = match name.rsplit_once('@') {
            None => name == "*" || !name.contains('*'),
            Some((local, domain)) => !domain.is_empty() && !local.contains('@') && !name.contains('*'),
        };
        if well_shaped { Ok(Subject(name.into())) } else { Err(NameError::NotASubject) }
    }

    /// The normal form, which is also the key in every table.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which of the four shapes it has.
    #[must_use]
    pub fn shape(&self) -> Shape<'_> {
        Shape::of(&self.0)
    }

    /// The subject taken as an identity, to ask which flags cover it. A domain is covered by what covers all of it.
    #[must_use]
    pub fn as_identity(&self) -> Identity<'_> {
        Identity(Cow::Borrowed(&self.0))
    }

    /// Whether this is root, whom no flag may be set on.
    #[must_use]
    pub fn is_root(&self) -> bool {
        &*self.0 == "root"
    }
}

impl<'a> Shape<'a> {
    /// The shape of a subject's normal form.
    pub(crate) fn of(name: &'a str) -> Shape<'a> {
        match name.rsplit_once('@') {
            None if name == "*" => Shape::Everyone,
            None => Shape::Account(name),
            Some(("", domain)) => Shape::Domain(domain),
            Some((_, domain)) => Shape::Mailbox(domain),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl<'a> MessageId<'a> {
    /// Takes `raw` if it has the form of a message id (specification, chapter "How Exim receives and delivers mail",
    /// "Message identification"). Case counts.
    ///
    /// # Errors
    ///
    /// It has another form.
    pub fn new(raw: &'a str) -> Result<MessageId<'a>, NameError> {
        let mut parts = raw.split('-').map(|part| (part.len(), part.bytes().all(|byte| byte.is_ascii_alphanumeric())));
        let form = [parts.next(), parts.next(), parts.next(), parts.next()];
        match form {
            [Some((6, true)), Some((6, true)), Some((2, true)), None]
            | [Some((6, true)), Some((11, true)), Some((4, true)), None] => Ok(MessageId(Cow::Borrowed(raw))),
            _ => Err(NameError::NotAMessageId),
        }
    }

    /// The id as Exim writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same id, owning its text.
    #[must_use]
    pub fn into_owned(self) -> MessageId<'static> {
        MessageId(Cow::Owned(self.0.into_owned()))
    }
}

/// The account name in an administrator's file, folded as an account that is typed is.
///
/// # Errors
///
/// It has no normal form.
pub fn account(raw: &str) -> Result<Cow<'_, str>, NameError> {
    normal_form(raw)
}

/// The domain in an administrator's file, as it stands behind the `@` of an identity in normal form.
///
/// # Errors
///
/// It has no normal form, or nothing with an `@` in it can stand there.
pub fn domain(raw: &str) -> Result<Cow<'_, str>, NameError> {
    let name = normal_form(raw)?;
    if name.contains('@') {
        return Err(NameError::Domain);
    }
    // A-labels may be longer than what they stand for, and a dot may be all there was.
    bounded(match fold_domain(&name)? {
        Cow::Borrowed(folded) if folded.len() == name.len() => name,
        folded => Cow::Owned(folded.into_owned()),
    })
}

fn normal_form(raw: &str) -> Result<Cow<'_, str>, NameError> {
    let raw = unescape(raw);
    bounded(match raw {
        Cow::Borrowed(raw) => fold(raw)?,
        Cow::Owned(raw) => Cow::Owned(fold(&raw)?.into_owned()),
    })
}

fn bounded(name: Cow<'_, str>) -> Result<Cow<'_, str>, NameError> {
    match name.len() {
        0 => Err(NameError::Empty),
        1..=MAX_NAME => Ok(name),
        _ => Err(NameError::TooLong),
    }
}

fn fold(raw: &str) -> Result<Cow<'_, str>, NameError> {
    let trimmed = raw.trim();
    // The bytes are counted before anything is made of them, so that a hostile name costs nothing.
    if trimmed.len() > MAX_NAME {
        return Err(NameError::TooLong);
    }
    for character in trimmed.chars() {
        if character.is_control() {
            return Err(NameError::Control);
        }
        if character.is_whitespace() {
            return Err(NameError::Space);
        }
    }
    let lower = if trimmed.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
        Cow::Owned(trimmed.chars().flat_map(char::to_lowercase).collect())
    } else {
        Cow::Borrowed(trimmed)
    };
    Ok(match lower.rfind('@') {
        Some(at) => match fold_domain(&lower[at + 1..])? {
            Cow::Borrowed(domain) if at + 1 + domain.len() == lower.len() => lower,
            domain => Cow::Owned(format!("{}{domain}", &lower[..=at])),
        },
        None => lower,
    })
}

/// What a name was before Exim made it printable. Exim keeps in `$authenticated_id`, and writes into its logs, each byte
/// outside printable ASCII as `\` and three octal digits, so that a login in UTF-8 would be another name than the one its
/// flag is set on. What comes to no UTF-8 (a login in Latin-1) stays as Exim wrote it, and so do control characters.
fn unescape(identity: &str) -> Cow<'_, str> {
    if !identity.contains('\\') {
        return Cow::Borrowed(identity);
    }
    let mut bytes = Vec::with_capacity(identity.len());
    let mut rest = identity.as_bytes();
    while let [first, behind @ ..] = rest {
        if let [b'\\', a @ b'2'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', behind @ ..] = rest {
            bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = behind;
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(identity), Cow::Owned)
}

/// Most backslashes of which [`without_controls`] asks whether they were typed.
const TYPED: usize = 64;

/// The other ways to read an identity that may have control characters in it: without any, and with one of what looks like one
/// kept as it stands.
///
/// Exim has a tab in `$authenticated_id` as it is, the others below U+0080 as `\` and a letter or three octal digits, and
/// those above as the octal digits of their two bytes (see [`unescape`]). But a backslash that was typed stays as it is: what
/// looks like a newline may be the middle of `DOMAIN\nick`, and a real one may stand behind that.
#[must_use]
pub fn without_controls(identity: &str) -> Vec<String> {
    if !identity.bytes().any(|byte| byte == b'\\' || byte.is_ascii_control()) {
        return Vec::new();
    }
    let (bare, sequences) = strip(identity, None);
    if bare.len() == identity.len() {
        return Vec::new();
    }
    let kept = (0..sequences.min(TYPED)).map(|kept| strip(identity, Some(kept)).0);
    [bare].into_iter().chain(kept).collect()
}

/// Takes out what may be control characters, but for one that begins with a backslash; says how many of those there are.
fn strip(identity: &str, kept: Option<usize>) -> (String, usize) {
    let (mut left, mut sequences) = (Vec::with_capacity(identity.len()), 0);
    let mut rest = identity.as_bytes();
    while let [first, behind @ ..] = rest {
        let sequence = match rest {
            [b'\\', b'b' | b'f' | b'n' | b'r' | b'v', ..] => 2,
            [b'\\', b'0' | b'1', b'0'..=b'7', b'0'..=b'7', ..] => 4,
            [b'\\', b'3', b'0', b'2', b'\\', b'2', b'0'..=b'3', b'0'..=b'7', ..] => 8,
            _ => 0,
        };
        if sequence > 0 {
            if kept == Some(sequences) {
                left.extend_from_slice(&rest[..sequence]);
            }
            sequences += 1;
            rest = &rest[sequence..];
        } else {
            if !first.is_ascii_control() {
                left.push(*first);
            }
            rest = behind;
        }
    }
    // What was taken out is ASCII, so UTF-8 is left.
    (String::from_utf8_lossy(&left).into_owned(), sequences)
}

/// `name` as Exim has it in `$authenticated_id`, the inverse of what the normal form undoes: bytes outside ASCII as octal
/// escapes, the domain in Unicode if that is where they are and it has such a form. None where that is the name itself.
#[must_use]
pub fn as_exim_escapes(name: &str) -> Option<String> {
    let spelled = match name.rsplit_once('@') {
        Some((local, domain)) => {
            let unicode = idna::domain_to_unicode(domain).0;
            let has_form = fold_domain(&unicode).is_ok_and(|folded| folded == domain);
            if has_form { format!("{local}@{unicode}") } else { name.to_owned() }
        }
        None => name.to_owned(),
    };
    let escape = |byte: u8| if byte.is_ascii() { char::from(byte).to_string() } else { format!("\\{byte:03o}") };
    let escaped: String = spelled.bytes().map(escape).collect();
    (escaped != name).then_some(escaped)
}

/// The A-label form of a domain in lower case, without final dots.
fn fold_domain(domain: &str) -> Result<Cow<'_, str>, NameError> {
    let folded = if domain.is_ascii() {
        Cow::Borrowed(domain)
    } else {
        idna::domain_to_ascii_cow(domain.as_bytes(), idna::AsciiDenyList::URL).map_err(|_| NameError::Domain)?
    };
    Ok(match folded {
        Cow::Borrowed(folded) => Cow::Borrowed(folded.trim_end_matches('.')),
        Cow::Owned(folded) => Cow::Owned(folded.trim_end_matches('.').to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity(raw: &str) -> Result<String, NameError> {
        Identity::new(raw).map(|identity| identity.as_str().to_owned())
    }

    #[test]
    fn a_name_is_trimmed_and_in_lower_case() {
        assert_eq!(identity("  Alice\t").unwrap(), "alice");
        assert_eq!(identity("BOB@Example.COM").unwrap(), "bob@example.com");
        assert_eq!(identity("ÄRGER@example.com").unwrap(), "ärger@example.com");
    }

    #[test]
    fn a_domain_compares_as_its_a_label_without_a_final_dot() {
        assert_eq!(identity("bob@BÜCHER.example").unwrap(), "bob@xn--bcher-kva.example");
        assert_eq!(identity("bob@xn--bcher-kva.example").unwrap(), "bob@xn--bcher-kva.example");
        assert_eq!(identity("bob@example.com.").unwrap(), "bob@example.com");
        assert_eq!(domain("Bücher.example.").unwrap(), "xn--bcher-kva.example");
    }

    #[test]
    fn a_domain_in_a_file_is_one_that_can_stand_behind_an_at_sign() {
        for nothing in [".", "...", "\u{3002}", "\u{ad}"] {
            assert_eq!(domain(nothing), Err(NameError::Empty), "{nothing:?}");
        }
        // Of 300 bytes, whose A-labels come to 799.
        assert_eq!(domain(&"\u{fc}.".repeat(100)), Err(NameError::TooLong));
        assert_eq!(domain("bob@example.com"), Err(NameError::Domain));
    }

    #[test]
    fn what_has_no_normal_form_is_refused_with_its_reason() {
        assert_eq!(identity("  "), Err(NameError::Empty));
        assert_eq!(identity("a b"), Err(NameError::Space));
        assert_eq!(identity("a\u{a0}b"), Err(NameError::Space));
        assert_eq!(identity("a\0b"), Err(NameError::Control));
        assert_eq!(identity("a\nb"), Err(NameError::Control));
        assert_eq!(identity(&"a".repeat(321)), Err(NameError::TooLong));
        assert_eq!(identity("bob@exa\u{ff20}mple"), Err(NameError::Domain));
        assert!(identity(&"a".repeat(320)).is_ok());
    }

    #[test]
    fn a_name_in_normal_form_is_borrowed() {
        assert!(matches!(normal_form("bob@example.com"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn a_subject_has_one_of_four_shapes() {
        let shape = |raw| Subject::new(raw).map(|subject| format!("{:?}", subject.shape()));
        assert_eq!(shape("*").unwrap(), "Everyone");
        assert_eq!(shape("@Example.com").unwrap(), "Domain(\"example.com\")");
        assert_eq!(shape("bob@example.com").unwrap(), "Mailbox(\"example.com\")");
        assert_eq!(shape("alice").unwrap(), "Account(\"alice\")");
        for raw in ["@", "bob@", "a@b@c", "*@example.com", "al*"] {
            assert_eq!(Subject::new(raw), Err(NameError::NotASubject), "{raw}");
        }
    }

    #[test]
    fn the_domain_of_an_identity_stands_behind_its_last_at_sign() {
        assert_eq!(Identity::new("a@b@c").unwrap().at_domain(), Some("@c"));
        assert_eq!(Identity::new("alice").unwrap().at_domain(), None);
    }

    #[test]
    fn message_ids_of_old_and_new_exims_are_known_and_case_counts() {
        assert!(MessageId::new("1rABCD-000abc-XY").is_ok());
        assert!(MessageId::new("1rABCD-0000000abcd-XYZW").is_ok());
        for raw in
            ["", "1rABCD-000abc-X", "1rABCD-000abc-XY-", "1rABCD-000abc-X/", "../etc-passwd-XY", "1rABCD-000abc-XY\n"]
        {
            assert!(MessageId::new(raw).is_err(), "{raw}");
        }
        assert_ne!(MessageId::new("1rABCD-000abc-XY"), MessageId::new("1rabcd-000abc-xy"));
    }

    #[test]
    fn a_login_in_utf_8_is_known_behind_exims_escapes() {
        assert_eq!(unescape(r"b\303\274cher"), "bücher");
        assert_eq!(unescape(r"a\n\\\07\377\001"), r"a\n\\\07\377\001");
        assert_eq!(unescape(r"\303"), r"\303");
        assert_eq!(unescape("plain"), "plain");
        assert_eq!(identity(r"b\303\274cher@b\303\234cher.example").unwrap(), "bücher@xn--bcher-kva.example");
        assert_eq!(as_exim_escapes("bücher@xn--bcher-kva.example").unwrap(), r"b\303\274cher@b\303\274cher.example");
        assert_eq!(as_exim_escapes("bob@example.com"), None);
        // What looks like an A-label and is none stands for nothing in Unicode.
        assert_eq!(as_exim_escapes("bob@xn--a.example"), None);
        assert_eq!(as_exim_escapes("bob@xn--xn---epa"), None);
        assert_eq!(as_exim_escapes("b\u{fc}@xn--a.example").unwrap(), r"b\303\274@xn--a.example");
    }

    #[test]
    fn control_characters_as_exim_writes_them_can_be_taken_out() {
        let bare = |raw| without_controls(raw).into_iter().next();
        assert_eq!(bare(r"\nal\001ice\r\177\302\200").unwrap(), "alice");
        assert_eq!(bare(r"b\303\274cher\f").unwrap(), r"b\303\274cher");
        assert_eq!(bare("büch\ter\\b").unwrap(), "bücher");
        for kept in ["alice", r"alice\", r"DOM\tom", r"\303\274", r"\302\240", r"\08", "bücher"] {
            assert_eq!(bare(kept), None, "{kept}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_of_a_normal_form_is_itself(raw in "\\PC{0,40}(@\\PC{0,30})?") {
            if let Ok(name) = identity(&raw) {
                prop_assert!(name.len() <= MAX_NAME);
                prop_assert_eq!(identity(&name), Ok(name));
            }
        }

        #[test]
        fn no_text_panics(raw: String) {
            let _ = (identity(&raw), Subject::new(&raw), MessageId::new(&raw), domain(&raw), without_controls(&raw));
        }
    }
}
