//! The demonstration as a picture of a terminal, for the README: an SVG.
//!
//! Every character in it was printed; only lines that are too long for the picture go on in the next one, as on a terminal, but
//! between words. It brings its own background, so it can be read on white pages and on black ones. There is no script in it. Lines
//! appear one after the other; where nothing moves, or shall not, all of them are there.

use std::fmt::Write;

use super::story::Told;

/// Characters a line: SMTP's answers and the lines of Exim's log are whole.
const COLUMNS: usize = 116;
/// So many in the widest of the usual fonts, with the margins.
const WIDTH: usize = 950;
const MARGIN: usize = 20;
const LINE: usize = 19;
/// What the window's title takes.
const TITLE: usize = 38;

const STYLE: &str = r#"<style>
text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #c9d1d9; white-space: pre }
.title { font-weight: bold; fill: #ffb454 }
.command { font-weight: bold; fill: #f0f6fc }
.sign { fill: #6e7681 }
.went { fill: #7ee787 }
.waits { fill: #79c0ff }
.failed { fill: #ff938a }
.window { text-anchor: middle; fill: #8b949e }
@keyframes appear { from { opacity: 0 } }
@media (prefers-reduced-motion: no-preference) { g text { animation: appear 0.1s backwards; animation-delay: calc(var(--n) * 0.16s) } }
</style>"#;

/// The picture of what was told.
pub(super) fn draw(told: &[Told]) -> String {
    let rows: Vec<Row> = told.iter().flat_map(rows).collect();
    let (height, middle) = (TITLE + rows.len() * LINE + MARGIN, WIDTH / 2);
    let mut picture = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" xml:space="preserve" role="img">
<title>cargo xtask demo</title>
{STYLE}
<rect x="0.5" y="0.5" width="{}" height="{}" rx="10" fill="#0d1117" stroke="#484f58"/>
<circle cx="22" cy="20" r="6" fill="#ff5f57"/>
<circle cx="42" cy="20" r="6" fill="#febc2e"/>
<circle cx="62" cy="20" r="6" fill="#28c840"/>
<text class="window" x="{middle}" y="24"># cargo xtask demo</text>
<g>
"##,
        WIDTH - 1,
        height - 1,
    );
    for (number, row) in rows.iter().enumerate().filter(|(_, row)| !row.text.is_empty()) {
        let y = TITLE + (number + 1) * LINE;
        let _ = writeln!(picture, "<text x=\"{MARGIN}\" y=\"{y}\" style=\"--n:{number}\">{}</text>", row.marked_up());
    }
    picture.push_str("</g>\n</svg>\n");
    picture
}

/// A line of the picture: how far in it begins, what it is, what it says.
struct Row {
    indent: &'static str,
    class: &'static str,
    text: String,
}

impl Row {
    fn marked_up(&self) -> String {
        let Self { indent, class, text } = self;
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        match indent.strip_suffix("$ ") {
            Some(indent) => format!("{indent}<tspan class=\"sign\">$ </tspan><tspan class=\"{class}\">{text}</tspan>"),
            None if class.is_empty() => format!("{indent}{text}"),
            None => format!("{indent}<tspan class=\"{class}\">{text}</tspan>"),
        }
    }
}

/// The rows of a thing that was told.
fn rows(told: &Told) -> Vec<Row> {
    let (indent, class, text) = match told {
        Told::Title(text) => ("", "title", text),
        Told::Command(text) => ("  $ ", "command", text),
        Told::Output(text) => ("    ", fate(text), text),
        Told::Line(text) => ("", "", text),
    };
    let empty = matches!(told, Told::Title(_)).then_some(String::new());
    let row = |text| Row { indent, class, text };
    empty.into_iter().chain(text.lines().flat_map(|line| wrapped(line, COLUMNS - indent.len()))).map(row).collect()
}

/// What a line says about mail, which is its colour: Exim's log says it by an arrow, SMTP by the first digit.
fn fate(line: &str) -> &'static str {
    let says = |marks: [&str; 2]| marks.iter().any(|mark| line.contains(mark));
    match line {
        _ if says([" => ", "-> 2"]) => "went",
        _ if says([" == ", "-> 4"]) => "waits",
        _ if says([" ** ", "-> 5"]) => "failed",
        _ => "",
    }
}

/// A line in pieces of so many characters, each ending behind a space if it has one.
fn wrapped(line: &str, columns: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut length = 0;
    for word in line.split_inclusive(' ') {
        let long = word.chars().count();
        if length > 0 && length + word.trim_end().chars().count() > columns {
            pieces.push(String::new());
            length = 0;
        }
        length += long;
        pieces.last_mut().expect("there is one from the start").push_str(word);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_stands_in_the_picture_and_is_no_markup() {
        let picture =
            draw(&[Told::Command("exim4 < letter & true".to_owned()), Told::Output("<alice@local.test>".to_owned())]);
        assert!(picture.contains(">exim4 &lt; letter &amp; true</tspan>"), "{picture}");
        assert!(picture.contains(">    &lt;alice@local.test&gt;</text>"), "{picture}");
    }

    #[test]
    fn a_long_line_goes_on_between_words_and_loses_nothing() {
        let line = "one two  three four";
        assert_eq!(wrapped(line, 9), ["one two  ", "three ", "four"]);
        assert_eq!(wrapped(line, 9).concat(), line);
        assert_eq!(wrapped("", 9), [""]);
        assert_eq!(wrapped("unbreakable", 4), ["unbreakable"]);
    }
}
