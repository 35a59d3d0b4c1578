//! The arguments of a call: names and values, in the order in which they came.

use percent_encoding::percent_decode_str;

/// Names and values. A name that comes twice has its last value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments(Vec<(String, String)>);

/// Why words are no arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// There is no `=` in it.
    #[error("\"{}\" is no argument: an argument is NAME=VALUE", .0.escape_debug())]
    NoValue(String),
    /// What is URI-encoded is not UTF-8.
    #[error("\"{}\" does not encode UTF-8", .0.escape_debug())]
    Encoding(String),
}

impl Arguments {
    /// Takes a query string or the body of a form (`application/x-www-form-urlencoded`). What is not UTF-8 is replaced, and then
    /// names nobody.
    #[must_use]
    pub fn from_form(form: &[u8]) -> Arguments {
        Arguments(form_urlencoded::parse(form).into_owned().collect())
    }

    /// Takes words of a command line, `NAME=VALUE`, the value URI-encoded (RFC 3986; a `+` is a `+`).
    ///
    /// # Errors
    ///
    /// A word has no `=`, or does not encode UTF-8.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Arguments, ArgumentError> {
        let argument = |word: &str| {
            let (name, value) = word.split_once('=').ok_or_else(|| ArgumentError::NoValue(word.to_owned()))?;
            let value = percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_| ArgumentError::Encoding(word.to_owned()))?.into_owned();
            Ok((name.to_owned(), value))
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
