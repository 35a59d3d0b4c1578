//! The arguments of a call: names and values, in the order in which they came.

use crate::answer::{Object, Refused};
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// Names and values. A name that comes twice has its last value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments(Vec<(String, String)>);

/// Why words are no arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// There is no `=` in it.
    #[error("\"{}\" is no argument: an argument is NAME=VALUE", .0.escape_debug())]
    NoValue(String),
    /// It is no object in JSON, or has something else in it than texts, numbers, yes and no.
    #[error("the arguments are no object of JSON with one value for each name")]
    Json,
}

impl Arguments {
    /// Takes a query string or the body of a form (`application/x-www-form-urlencoded`). What is not UTF-8 is replaced, and then
    /// names nobody.
    #[must_use]
    pub fn from_form(form: &[u8]) -> Arguments {
        Arguments(form_urlencoded::parse(form).into_owned().collect())
    }

    /// Takes an object in JSON, whose members are the arguments; yes and no are 1 and 0.
    ///
    /// # Errors
    ///
    /// It is none, or a member is a list, an object or null.
    pub fn from_json(text: &[u8]) -> Result<Arguments, ArgumentError> {
        let object: Object = serde_json::from_slice(text).map_err(|_| ArgumentError::Json)?;
        let argument = |(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            Value::Number(number) => Ok((name, number.to_string())),
            Value::Bool(yes) => Ok((name, u8::from(yes).to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => Err(ArgumentError::Json),
        };
        object.into_iter().map(argument).collect::<Result<_, _>>().map(Arguments)
    }

    /// Takes words of a command line, `NAME=VALUE`, the value URI-encoded (RFC 3986; a `+` is a `+`). What is not UTF-8 is replaced, as
    /// in a form.
    ///
    /// # Errors
    ///
    /// A word has no `=`.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Arguments, ArgumentError> {
        let argument = |word: &str| {
            let (name, value) = word.split_once('=').ok_or_else(|| ArgumentError::NoValue(word.to_owned()))?;
            Ok((name.to_owned(), percent_decode_str(value).decode_utf8_lossy().into_owned()))
        };
        words.into_iter().map(argument).collect::<Result<_, _>>().map(Arguments)
    }

    /// Adds those of another source, which come last.
    #[must_use]
    pub fn and(mut self, others: Arguments) -> Arguments {
        self.0.extend(others.0);
        self
    }

    /// The value of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of a name that there must be. White space is none.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn required(&self, name: &str) -> Result<&str, Refused> {
        let value = self.get(name).filter(|value| !value.trim().is_empty());
        value.ok_or_else(|| Refused(format!("the parameter \"{name}\" is missing")))
    }

    /// Whether the value of that name is what WHM takes for yes: anything but nothing and 0.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !value.is_empty() && value != "0")
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(arguments: &Arguments) -> Vec<(&str, &str)> {
        arguments.iter().collect()
    }

    #[test]
    fn a_form_an_object_and_words_say_the_same() {
        let form = Arguments::from_form(b"api.version=1&email=bob%2Bnews%40shop.test&reason=a+b");
        let json = br#"{"api.version":1,"email":"bob+news@shop.test","reason":"a b"}"#;
        let words = ["api.version=1", "email=bob+news%40shop.test", "reason=a%20b"];
        assert_eq!(pairs(&form), [("api.version", "1"), ("email", "bob+news@shop.test"), ("reason", "a b")]);
        assert_eq!(Arguments::from_json(json), Ok(form.clone()));
        assert_eq!(Arguments::from_words(words), Ok(form));
    }

    #[test]
    fn the_last_of_two_counts_and_a_body_comes_behind_a_query() {
        let arguments = Arguments::from_form(b"user=alice&user=bob");
        assert_eq!(arguments.get("user"), Some("bob"));
        assert_eq!(arguments.and(Arguments::from_form(b"user=carol")).get("user"), Some("carol"));
    }

    #[test]
    fn what_is_set_is_anything_but_nothing_and_0() {
        let arguments = Arguments::from_form(b"a=1&b=0&c=&d=yes&e");
        let set = ["a", "b", "c", "d", "e", "f"].map(|name| arguments.is_set(name));
        assert_eq!(set, [true, false, false, true, false, false]);
    }

    #[test]
    fn what_is_no_argument_is_refused() {
        for word in ["user", "", "user%3Dalice"] {
            assert_eq!(Arguments::from_words([word]), Err(ArgumentError::NoValue(word.to_owned())));
        }
        assert_eq!(Arguments::from_words(["user=%ff"]), Ok(Arguments::from_form(b"user=%ff")));
        for json in ["", "[]", "1", "{\"user\":null}", "{\"user\":[\"alice\"]}", "{\"user\":{}}", "{\"user\":\"a\"} x"]
        {
            assert_eq!(Arguments::from_json(json.as_bytes()), Err(ArgumentError::Json), "{json}");
        }
    }
}
