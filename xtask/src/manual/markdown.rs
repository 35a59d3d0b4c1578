//! Markdown to manual pages: headings, paragraphs, lists, tables, code, links. Anything else is an error, so that nothing is
//! lost.
//!
//! A table becomes paragraphs with its first column as their tags, which read well in a terminal of any width; where there
//! are more than two columns, what stands below a tag says which column it is of.

use super::roff::{Roff, Text};
use anyhow::{Context, Result, bail, ensure};
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use std::iter::Peekable;

/// Writes `source` to a page on `name`. Relative links lead below `links`; where that is none, there must not be any.
pub(super) fn write(source: &str, links: Option<&str>, name: &str, page: &mut Roff) -> Result<()> {
    let mut converter = Converter { events: Parser::new_ext(source, Options::ENABLE_TABLES).peekable(), links };
    while let Some(event) = converter.events.next() {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                let heading = converter.plain(TagEnd::Heading(level))?;
                match level {
                    HeadingLevel::H1 => {
                        page.section("Name");
                        page.paragraph(&Text::new().roman(&format!("{name} - ")).roman(&heading));
                        // What stands between the title and the first heading.
                        if converter.events.peek().is_some_and(|next| *next == Event::Start(Tag::Paragraph)) {
                            page.section("Description");
                        }
                    }
                    HeadingLevel::H2 => page.section(&heading),
                    HeadingLevel::H3 => page.subsection(&heading),
                    _ => bail!("\"{heading}\": headings have three levels at most"),
                }
            }
            Event::Start(tag) => converter.block(tag, page)?,
            other => bail!("cannot convert {other:?}"),
        }
    }
    Ok(())
}

/// The text of a single paragraph, such as a doc comment.
pub(super) fn text(source: &str) -> Result<Text> {
    let mut converter = Converter { events: Parser::new(source).peekable(), links: None };
    ensure!(converter.events.next() == Some(Event::Start(Tag::Paragraph)), "this is no paragraph: {source}");
    let text = converter.inline(TagEnd::Paragraph)?;
    ensure!(converter.events.next().is_none(), "this is more than one paragraph: {source}");
    Ok(text)
}

struct Converter<'a> {
    events: Peekable<Parser<'a>>,
    links: Option<&'a str>,
}

impl<'a> Converter<'a> {
    fn next(&mut self) -> Result<Event<'a>> {
        self.events.next().context("the Markdown ends too early")
    }

    fn block(&mut self, tag: Tag<'a>, page: &mut Roff) -> Result<()> {
        match tag {
            Tag::Paragraph => page.paragraph(&self.inline(TagEnd::Paragraph)?),
            Tag::CodeBlock(_) => self.code(page)?,
            Tag::List(first) => self.list(first, page)?,
            Tag::Table(_) => self.table(page)?,
            other => bail!("cannot convert {other:?}"),
        }
        Ok(())
    }

    fn code(&mut self, page: &mut Roff) -> Result<()> {
        let mut lines = String::new();
        loop {
            match self.next()? {
                Event::Text(text) => lines += &text,
                Event::End(TagEnd::CodeBlock) => break page.code(&lines),
                other => bail!("cannot convert {other:?} in code"),
            }
        }
        Ok(())
    }

    fn list(&mut self, first: Option<u64>, page: &mut Roff) -> Result<()> {
        let mut number = first;
        while self.next()? == Event::Start(Tag::Item) {
            let mark = number.map_or("*".to_owned(), |number| format!("{number}."));
            number = number.map(|number| number + 1);
            let text = match self.events.next_if_eq(&Event::Start(Tag::Paragraph)) {
                Some(_) => self.inline(TagEnd::Paragraph)?,
                None => self.tight()?,
            };
            page.item(&mark, &text);
            self.below(TagEnd::Item, page)?;
        }
        Ok(())
    }

    /// What else an item has.
    fn below(&mut self, end: TagEnd, page: &mut Roff) -> Result<()> {
        loop {
            match self.next()? {
                Event::End(tag) if tag == end => return Ok(()),
                Event::Start(Tag::Paragraph) => page.further(&self.inline(TagEnd::Paragraph)?),
                Event::Start(tag) => {
                    page.indent();
                    self.block(tag, page)?;
                    page.outdent();
                }
                other => bail!("cannot convert {other:?} in a list"),
            }
        }
    }

    fn table(&mut self, page: &mut Roff) -> Result<()> {
        let mut headings = Vec::new();
        loop {
            match self.next()? {
                Event::Start(Tag::TableHead) => headings = self.cells(TagEnd::TableHead)?,
                Event::Start(Tag::TableRow) => {
                    let cells = self.cells(TagEnd::TableRow)?;
                    let (tag, further) = cells.split_first().context("a row without cells")?;
                    let labels = headings.iter().skip(1);
                    let lines: Vec<Text> = match further {
                        [only] => vec![only.clone()],
                        _ => labels.zip(further).map(|(label, cell)| label.clone().roman(": ").join(cell)).collect(),
                    };
                    page.tagged(tag, &lines);
                }
                Event::End(TagEnd::Table) => return Ok(()),
                other => bail!("cannot convert {other:?} in a table"),
            }
        }
    }

    fn cells(&mut self, end: TagEnd) -> Result<Vec<Text>> {
        let mut cells = Vec::new();
        loop {
            match self.next()? {
                Event::Start(Tag::TableCell) => cells.push(self.inline(TagEnd::TableCell)?),
                Event::End(tag) if tag == end => return Ok(cells),
                other => bail!("cannot convert {other:?} in a row"),
            }
        }
    }

    /// The text of an item without paragraphs, up to its end or to a block in it.
    fn tight(&mut self) -> Result<Text> {
        let mut text = Text::new();
        loop {
            let block =
                |tag: &Tag<'_>| matches!(tag, Tag::List(_) | Tag::CodeBlock(_) | Tag::Paragraph | Tag::Table(_));
            match self.events.peek().context("the Markdown ends too early")? {
                Event::End(_) => return Ok(text),
                Event::Start(tag) if block(tag) => return Ok(text),
                _ => {
                    let event = self.next()?;
                    text = self.piece(event, text, Text::roman)?;
                }
            }
        }
    }

    fn inline(&mut self, end: TagEnd) -> Result<Text> {
        self.styled(end, Text::roman)
    }

    fn styled(&mut self, end: TagEnd, font: fn(Text, &str) -> Text) -> Result<Text> {
        let mut text = Text::new();
        loop {
            match self.next()? {
                Event::End(tag) if tag == end => return Ok(text),
                event => text = self.piece(event, text, font)?,
            }
        }
    }

    fn piece(&mut self, event: Event<'a>, text: Text, font: fn(Text, &str) -> Text) -> Result<Text> {
        Ok(match event {
            Event::Text(words) => font(text, &words),
            Event::Code(words) => text.bold(&words),
            Event::SoftBreak => text.roman(" "),
            Event::Start(Tag::Emphasis) => text.join(&self.styled(TagEnd::Emphasis, Text::italic)?),
            Event::Start(Tag::Strong) => text.join(&self.styled(TagEnd::Strong, Text::bold)?),
            Event::Start(Tag::Link { dest_url, .. }) => {
                let words = self.styled(TagEnd::Link, font)?;
                text.join(&words).roman(" <").bold(&self.place(&dest_url)?).roman(">")
            }
            other => bail!("cannot convert {other:?} in text"),
        })
    }

    /// Where a link leads on a server.
    fn place(&self, link: &str) -> Result<String> {
        if link.starts_with("https://") {
            return Ok(link.to_owned());
        }
        let links = self.links.with_context(|| format!("a link to {link} leads nowhere on a server"))?;
        ensure!(!link.starts_with(['.', '/', '#']), "a link to {link} leads out of {links}");
        Ok(format!("{links}/{link}"))
    }

    fn plain(&mut self, end: TagEnd) -> Result<String> {
        let mut plain = String::new();
        loop {
            match self.next()? {
                Event::End(tag) if tag == end => return Ok(plain),
                Event::Text(words) | Event::Code(words) => plain += &words,
                other => bail!("cannot convert {other:?} in a heading"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(source: &str) -> Result<String> {
        let mut page = Roff::new("x", 7, "1.0");
        write(source, Some("/usr/share/x"), "x", &mut page)?;
        let whole = page.finish();
        Ok(whole.split_once(".ad l\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    #[test]
    fn each_block_of_markdown_has_its_request() -> Result<()> {
        assert_eq!(
            body("# What\n\nOne `a-b`\n**two**.\n\nThree.")?,
            ".SH \"NAME\"\nx \\- What\n.SH \"DESCRIPTION\"\nOne \\fBa\\-b\\fR \\fBtwo\\fR.\n.PP\nThree.\n"
        );
        assert_eq!(
            body("## A\n\n- b\n  c\n- d\n\n  e\n\n1. f")?,
            ".SH \"A\"\n.IP \\(bu 2\nb c\n.IP \\(bu 2\nd\n.IP\ne\n.IP 1. 4\nf\n"
        );
        assert_eq!(body("| a | b |\n| --- | --- |\n| `c \\| d` | e |")?, ".TP\n\\fBc | d\\fR\ne\n");
        assert_eq!(body("| a | b | c |\n| - | - | - |\n| d | e | f |")?, ".TP\nd\nb: e\n.br\nc: f\n");
        assert_eq!(body("[y](z/README.md)")?, "y <\\fB/usr/share/x/z/README.md\\fR>\n");
        Ok(())
    }

    #[test]
    fn what_cannot_be_converted_is_an_error() {
        for wrong in ["<b>x</b>", "> x", "![x](y)", "[x](../y)", "#### x", "---"] {
            assert!(body(wrong).is_err(), "{wrong}");
        }
        assert!(text("one\n\ntwo").is_err());
    }
}
