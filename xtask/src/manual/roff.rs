//! The language of manual pages, man(7): a page with its blocks, and text in three fonts.
//!
//! Whatever goes in comes out as it was: nothing in a text can become a request, and what can be copied from a page keeps its
//! dashes, quotes and carets. The crate `roff` makes a minus of every hyphen and cannot quote what stands in a heading.

use std::fmt::Write;

/// A page as it is written.
#[derive(Debug)]
pub(super) struct Roff {
    text: String,
    /// Right behind a heading, where a paragraph needs no request.
    fresh: bool,
}

/// A stretch of text in roman, bold and italic, with everything escaped.
#[derive(Clone, Debug, Default)]
pub(super) struct Text(String);

impl Roff {
    /// An empty page. No date, since it is the same whenever it is made.
    pub(super) fn new(name: &str, section: u8, version: &str) -> Roff {
        // No hyphens within words, which would be copied, and no wide gaps.
        let name = literal(&name.to_uppercase());
        let text =
            format!(".nr HY 0\n.TH {name} {section} \"\" \"outgoingd {version}\" \"Manual of outgoingd\"\n.ad l\n");
        Roff { text, fresh: true }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    pub(super) fn section(&mut self, heading: &str) {
        let _ = writeln!(self.text, ".SH \"{}\"", literal(&heading.to_uppercase()));
        self.fresh = true;
    }

    pub(super) fn subsection(&mut self, heading: &str) {
        let _ = writeln!(self.text, ".SS \"{}\"", literal(heading));
        self.fresh = true;
    }

    pub(super) fn paragraph(&mut self, text: &Text) {
        self.lines(std::slice::from_ref(text));
    }

    /// A paragraph of lines that each stand by themselves.
    pub(super) fn lines(&mut self, lines: &[Text]) {
        if !self.fresh {
            self.text += ".PP\n";
        }
        self.broken(lines);
    }

    /// A tag, and below it lines that each stand by themselves.
    pub(super) fn tagged(&mut self, tag: &Text, lines: &[Text]) {
        self.text += ".TP\n";
        self.line(tag);
        self.broken(lines);
    }

    /// One more paragraph below the last tag or item.
    pub(super) fn further(&mut self, text: &Text) {
        self.text += ".IP\n";
        self.line(text);
    }

    /// An item of a list behind its mark.
    pub(super) fn item(&mut self, mark: &str, text: &Text) {
        let (mark, width) = if mark == "*" { (r"\(bu", 2) } else { (mark, 4) };
        let _ = writeln!(self.text, ".IP {mark} {width}");
        self.line(text);
    }

    /// Lines that stay as they are.
    pub(super) fn code(&mut self, lines: &str) {
        if !self.fresh {
            self.text += ".PP\n";
        }
        self.text += ".RS 4\n.EX\n";
        for line in lines.lines() {
            self.line(&Text(literal(line)));
        }
        self.text += ".EE\n.RE\n";
    }

    /// What follows is where the text of the last tag or item is, up to [`Roff::outdent`].
    pub(super) fn indent(&mut self) {
        self.text += ".RS\n";
        self.fresh = false;
    }

    pub(super) fn outdent(&mut self) {
        self.text += ".RE\n";
        self.fresh = false;
    }

    fn broken(&mut self, lines: &[Text]) {
        for (index, line) in lines.iter().enumerate() {
            if index > 0 {
                self.text += ".br\n";
            }
            self.line(line);
        }
    }

    fn line(&mut self, Text(text): &Text) {
        // A line that starts with one of these is a request.
        let guard = if text.starts_with(['.', '\'']) { r"\&" } else { "" };
        let _ = writeln!(self.text, "{guard}{text}");
        self.fresh = false;
    }
}

impl Text {
    pub(super) fn new() -> Text {
        Text::default()
    }

    /// Prose: a hyphen between letters is a hyphen.
    pub(super) fn roman(mut self, text: &str) -> Text {
        self.0 += &prose(text);
        self
    }

    /// What is typed as it stands.
    pub(super) fn bold(mut self, text: &str) -> Text {
        let _ = write!(self.0, r"\fB{}\fR", literal(text));
        self
    }

    /// What is stressed, or stands for something else.
    pub(super) fn italic(mut self, text: &str) -> Text {
        let _ = write!(self.0, r"\fI{}\fR", literal(text));
        self
    }

    /// A space at which no line ends.
    pub(super) fn unbroken_space(mut self) -> Text {
        self.0 += r"\ ";
        self
    }

    pub(super) fn join(mut self, Text(other): &Text) -> Text {
        self.0 += other;
        self
    }
}

fn literal(text: &str) -> String {
    text.chars().map(|character| if character == '-' { r"\-".to_owned() } else { escaped(character) }).collect()
}

fn prose(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let within_a_word = |index: usize| {
        let beside =
            |index: Option<usize>| index.and_then(|index| characters.get(index)).is_some_and(|c| c.is_alphanumeric());
        beside(index.checked_sub(1)) && beside(Some(index + 1))
    };
    characters
        .iter()
        .enumerate()
        .map(|(index, character)| match character {
            '-' if within_a_word(index) => "-".to_owned(),
            '-' => r"\-".to_owned(),
            other => escaped(*other),
        })
        .collect()
}

fn escaped(character: char) -> String {
    match character {
        '\\' => r"\(rs".to_owned(),
        '\'' => r"\(aq".to_owned(),
        '"' => r"\(dq".to_owned(),
        '`' => r"\(ga".to_owned(),
        '^' => r"\(ha".to_owned(),
        '~' => r"\(ti".to_owned(),
        '…' => "...".to_owned(),
        ascii if ascii.is_ascii() => ascii.to_string(),
        other => format!(r"\[u{:04X}]", u32::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_becomes_a_request_or_an_escape() {
        let mut page = Roff::new("a-b", 8, "1.0");
        page.section("It's \"so\"");
        page.paragraph(&Text::new().roman(".so /etc/passwd"));
        page.code("'br\n\\fB -x ~^`\n");
        let (_, body) = page.text.split_once(".ad l\n").unwrap();
        let expected = ".SH \"IT\\(aqS \\(dqSO\\(dq\"\n\\&.so /etc/passwd\n.PP\n.RS 4\n.EX\n\\(aqbr\n\\(rsfB \\-x \\(ti\\(ha\\(ga\n.EE\n.RE\n";
        assert_eq!(body, expected);
    }

    #[test]
    fn a_dash_that_is_typed_is_a_minus_and_one_within_a_word_is_a_hyphen() {
        assert_eq!(Text::new().roman("re-read, - or --keep…").0, r"re-read, \- or \-\-keep...");
        assert_eq!(Text::new().bold("re-read").0, r"\fBre\-read\fR");
        assert_eq!(Text::new().roman("µ").0, r"\[u00B5]");
    }
}
