//! Prints an answer in one of WHM's four formats. Pure.
//!
//! Whatever text is in the tree, a parser reads the same text again; XML alone has characters that it cannot hold (see
//! [`Format::Xml`]). Names are ours, and short: YAML has no place for one of a thousand characters. Every form ends with a
//! newline.
//!
//! YAML and the JSON for people are laid out as `whmapi1` and `uapi` lay them out, because scripts take them apart with
//! grep and awk. In YAML that is: names sorted, the dash of a list alone on its line before what has names, null as `~`,
//! every value on one line however long; what quotes it needs is left to serde-saphyr. In JSON: three spaces further in,
//! and ` : `.

use quick_xml::Writer;
use quick_xml::events::{BytesText, Event};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io;
use std::str::FromStr;

/// WHM's `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON, in one line; names in the order of the tree.
    Json,
    /// JSON for people; names in the order of the tree.
    JsonPretty,
    /// XML, in one line without a declaration, in the order of the tree: an element for each name. A list is its name's
    /// element again and again, an empty one is one empty element, as are null and an empty text; a list within a list is
    /// made of elements `item`. Yes and no are 1 and 0. What cannot stand in an element's name becomes `_`; a character
    /// that XML 1.0 forbids (most control characters, U+FFFE, U+FFFF) becomes U+FFFD.
    Xml,
    /// YAML; names sorted.
    Yaml,
}

/// What is none of [`Format::NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("WHM has no such format")]
pub struct UnknownFormat;

/// The answer in that format, with a newline at the end.
#[must_use]
pub fn render(tree: &Value, format: Format) -> String {
    match format {
        Format::Json => format!("{tree}\n"),
        Format::JsonPretty => json_pretty(tree),
        Format::Xml => xml(tree),
        Format::Yaml => yaml(tree),
    }
}

impl Format {
    /// The names that WHM has for them.
    pub const NAMES: [&str; 4] = ["json", "jsonpretty", "xml", "yaml"];

    /// What HTTP calls it.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json | Format::JsonPretty => "application/json; charset=utf-8",
            Format::Xml => "text/xml; charset=utf-8",
            Format::Yaml => "application/yaml; charset=utf-8",
        }
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Format, UnknownFormat> {
        match name {
            "json" => Ok(Format::Json),
            "jsonpretty" => Ok(Format::JsonPretty),
            "xml" => Ok(Format::Xml),
            "yaml" => Ok(Format::Yaml),
            _ => Err(UnknownFormat),
        }
    }
}

fn json_pretty(tree: &Value) -> String {
    let mut text = String::new();
    pretty(&mut text, 0, tree);
    text.push('\n');
    text
}

fn pretty(text: &mut String, depth: usize, value: &Value) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            let entries = object.iter().map(|(name, value)| (format!("{} : ", Value::from(name.as_str())), value));
            enclosed(text, depth, ['{', '}'], entries);
        }
        Value::Array(values) if !values.is_empty() => {
            enclosed(text, depth, ['[', ']'], values.iter().map(|value| (String::new(), value)));
        }
        _ => text.push_str(&value.to_string()),
    }
}

/// Entries in brackets, one on a line.
fn enclosed<'a>(
    text: &mut String,
    depth: usize,
    [open, close]: [char; 2],
    entries: impl Iterator<Item = (String, &'a Value)>,
) {
    text.push(open);
    let mut separator = "\n";
    for (head, value) in entries {
        text.push_str(separator);
        text.push_str(&"   ".repeat(depth + 1));
        text.push_str(&head);
        pretty(text, depth + 1, value);
        separator = ",\n";
    }
    text.push('\n');
    text.push_str(&"   ".repeat(depth));
    text.push(close);
}

fn xml(tree: &Value) -> String {
    let mut writer = Writer::new(Vec::new());
    element(&mut writer, "result", tree).expect("writing into memory does not fail");
    let mut text = String::from_utf8(writer.into_inner()).expect("made of strings");
    text.push('\n');
    text
}

/// One element, whatever is in it.
fn element(writer: &mut Writer<Vec<u8>>, name: &str, value: &Value) -> io::Result<()> {
    let name = element_name(name);
    writer.create_element(&*name).write_inner_content(|writer| content(writer, value))?;
    Ok(())
}

fn content(writer: &mut Writer<Vec<u8>>, value: &Value) -> io::Result<()> {
    match value {
        Value::Object(object) => object.iter().try_for_each(|(name, value)| elements(writer, name, value)),
        Value::Array(values) => values.iter().try_for_each(|value| element(writer, "item", value)),
        Value::Null => Ok(()),
        Value::Bool(yes) => content(writer, &json!(u8::from(*yes))),
        Value::Number(number) => characters(writer, &number.to_string()),
        Value::String(text) => characters(writer, text),
    }
}

/// What stands under a name: an element, or one for each value of a list.
fn elements(writer: &mut Writer<Vec<u8>>, name: &str, value: &Value) -> io::Result<()> {
    match value {
        Value::Array(values) if !values.is_empty() => values.iter().try_for_each(|value| element(writer, name, value)),
        _ => element(writer, name, value),
    }
}

fn characters(writer: &mut Writer<Vec<u8>>, text: &str) -> io::Result<()> {
    let text = text.replace(|character| !allowed(character), "\u{fffd}");
    writer.write_event(Event::Text(BytesText::new(&text)))
}

/// Whether XML 1.0 allows it; surrogates are in no string.
fn allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// A name that an element may have. A colon would stand behind a namespace.
fn element_name(name: &str) -> Cow<'_, str> {
    let starts = |character: char| character.is_ascii_alphabetic() || character == '_';
    let stays = |character: char| starts(character) || character.is_ascii_digit() || matches!(character, '-' | '.');
    let name = if name.chars().all(stays) { Cow::from(name) } else { name.replace(|c| !stays(c), "_").into() };
    if name.starts_with(starts) { name } else { format!("_{name}").into() }
}

fn yaml(tree: &Value) -> String {
    let mut tree = tree.clone();
    tree.sort_all_objects();
    let mut text = "---\n".to_owned();
    if leaf(&tree) {
        text.push_str(&scalar(&tree));
        text.push('\n');
    } else {
        block(&mut text, 0, &tree);
    }
    text
}

/// The lines of what has names or is a list.
fn block(text: &mut String, depth: usize, value: &Value) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                entry(text, depth, &format!("{}:", quoted(&json!(name))), value);
            }
        }
        Value::Array(values) => {
            for value in values {
                entry(text, depth, "-", value);
            }
        }
        _ => {}
    }
}

/// A name or a dash, and what it stands before: behind it on the line, or in lines further in.
fn entry(text: &mut String, depth: usize, head: &str, value: &Value) {
    text.push_str(&"  ".repeat(depth));
    text.push_str(head);
    if leaf(value) {
        text.push(' ');
        text.push_str(&scalar(value));
        text.push('\n');
    } else {
        text.push('\n');
        block(text, depth + 1, value);
    }
}

/// Whether it fits on a line: it has nothing in it.
fn leaf(value: &Value) -> bool {
    match value {
        Value::Object(object) => object.is_empty(),
        Value::Array(values) => values.is_empty(),
        _ => true,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "~".to_owned(),
        _ => quoted(value),
    }
}

/// With what quotes it needs: single ones, as WHM has it, where they will do.
fn quoted(value: &Value) -> String {
    let plain = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let single = serde_saphyr::ser_options! { prefer_block_scalars: false, quote_all: true };
    let print = |options| serde_saphyr::to_string_with_options(value, options);
    let mut text = print(plain).expect("text, numbers and what is empty all have a form in YAML");
    if text.starts_with('"') {
        text = print(single).expect("quotes change nothing about that");
    }
    text.truncate(text.trim_end_matches('\n').len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use quick_xml::Reader;

    fn done() -> Value {
        json!({"metadata": {"version": 1, "reason": "OK", "result": 1, "command": "hold_outgoing_email"}})
    }

    fn listing() -> Value {
        json!({
            "data": {"tokens": [{"name": "a", "expires": null, "functions": ["b", "c"]}, {"name": "d", "functions": []}]},
            "metadata": {"result": 1},
        })
    }

    #[test]
    fn what_a_function_that_returns_nothing_has_done_is_printed_to_the_letter() {
        let json = r#"{"metadata":{"version":1,"reason":"OK","result":1,"command":"hold_outgoing_email"}}"#;
        assert_eq!(render(&done(), Format::Json), format!("{json}\n"));
        let xml = "<result><metadata><version>1</version><reason>OK</reason><result>1</result>\
                   <command>hold_outgoing_email</command></metadata></result>\n";
        assert_eq!(render(&done(), Format::Xml), xml);
        let yaml = "---\nmetadata:\n  command: hold_outgoing_email\n  reason: OK\n  result: 1\n  version: 1\n";
        assert_eq!(render(&done(), Format::Yaml), yaml);
    }

    #[test]
    fn a_listing_in_json_for_people_has_what_awk_looks_for() {
        let expected = r#"{
   "data" : {
      "tokens" : [
         {
            "name" : "a",
            "expires" : null,
            "functions" : [
               "b",
               "c"
            ]
         },
         {
            "name" : "d",
            "functions" : []
         }
      ]
   },
   "metadata" : {
      "result" : 1
   }
}
"#;
        assert_eq!(render(&listing(), Format::JsonPretty), expected);
    }

    #[test]
    fn a_listing_in_yaml_has_every_name_on_a_line_of_its_own() {
        let expected = "---
data:
  tokens:
    -
      expires: ~
      functions:
        - b
        - c
      name: a
    -
      functions: []
      name: d
metadata:
  result: 1
";
        assert_eq!(render(&listing(), Format::Yaml), expected);
    }

    #[test]
    fn a_list_in_xml_is_its_element_again_and_again() {
        let expected = "<result><data><tokens><name>a</name><expires></expires><functions>b</functions>\
                        <functions>c</functions></tokens><tokens><name>d</name><functions></functions></tokens></data>\
                        <metadata><result>1</result></metadata></result>\n";
        assert_eq!(render(&listing(), Format::Xml), expected);
    }

    #[test]
    fn whatever_the_tree_is_xml_has_one_root_and_names_that_are_names() {
        let cases = [
            (json!(null), "<result></result>\n"),
            (json!([1, "a"]), "<result><item>1</item><item>a</item></result>\n"),
            (json!({"a": [[1, 2], []]}), "<result><a><item>1</item><item>2</item></a><a></a></result>\n"),
            (json!({"a": true, "b": false, "c": 1.5}), "<result><a>1</a><b>0</b><c>1.5</c></result>\n"),
            (json!({"": 1, "1st": 2, "x:y z": 3}), "<result><_>1</_><_1st>2</_1st><x_y_z>3</x_y_z></result>\n"),
            (json!({"a.example": "<&>"}), "<result><a.example>&lt;&amp;&gt;</a.example></result>\n"),
            (json!({"a": "\0\u{1b}\u{ffff}\t"}), "<result><a>\u{fffd}\u{fffd}\u{fffd}\t</a></result>\n"),
        ];
        for (tree, expected) in cases {
            assert_eq!(render(&tree, Format::Xml), expected);
        }
    }

    #[test]
    fn yaml_quotes_what_would_be_read_as_something_else() {
        let cases = [
            ("", "''"),
            ("12", "'12'"),
            ("1e3", "'1e3'"),
            ("0x1F", "'0x1F'"),
            ("12:30:45", "'12:30:45'"),
            (".inf", "'.inf'"),
            ("yes", "'yes'"),
            ("Off", "'Off'"),
            ("true", "'true'"),
            ("null", "'null'"),
            ("~", "'~'"),
            ("2024-01-01", "'2024-01-01'"),
            ("a: b", "'a: b'"),
            ("a #b", "'a #b'"),
            ("#a", "'#a'"),
            ("*@example.org", "'*@example.org'"),
            ("&a", "'&a'"),
            ("!a", "'!a'"),
            ("@example.org", "'@example.org'"),
            ("- a", "'- a'"),
            ("---", "'---'"),
            (" a", "' a'"),
            ("a\nb", r#""a\nb""#),
            ("\0", r#""\0""#),
            ("it's # yes", r#""it's # yes""#),
            ("user@example.org", "user@example.org"),
            ("2001:db8::1", "2001:db8::1"),
        ];
        for (text, expected) in cases {
            assert_eq!(render(&json!({"k": text}), Format::Yaml), format!("---\nk: {expected}\n"));
        }
        assert_eq!(render(&json!({"yes": 1, "a:": {"12": []}}), Format::Yaml), "---\n'a:':\n  '12': []\n'yes': 1\n");
    }

    #[test]
    fn yaml_never_breaks_a_line_within_a_value() {
        let long = "word ".repeat(1000) + "end";
        assert_eq!(render(&json!({ "k": long.as_str() }), Format::Yaml), format!("---\nk: {long}\n"));
    }

    #[test]
    fn a_format_has_the_name_that_whm_gives_it() {
        let formats = Format::NAMES.map(str::parse);
        assert_eq!(formats, [Format::Json, Format::JsonPretty, Format::Xml, Format::Yaml].map(Ok));
        assert_eq!("JSON".parse::<Format>(), Err(UnknownFormat));
        assert_eq!(Format::Json.content_type(), "application/json; charset=utf-8");
        assert_eq!(Format::Xml.content_type(), "text/xml; charset=utf-8");
    }

    /// The text of the one element within the root, as a parser reads it.
    fn text_of(xml: &str) -> String {
        let mut reader = Reader::from_str(xml.trim_end_matches('\n'));
        reader.config_mut().expand_empty_elements = true;
        let mut text = String::new();
        loop {
            match reader.read_event().unwrap() {
                Event::Text(part) => text.push_str(&part.xml10_content()),
                Event::GeneralRef(name) => {
                    let entity = format!("&{};", name.xml10_content());
                    text.push_str(&quick_xml::escape::unescape(&entity).unwrap());
                }
                Event::Eof => return text,
                Event::Start(_) | Event::End(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn any_tree() -> impl Strategy<Value = Value> {
        let text = || any::<String>().prop_map(Value::from);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text()
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn xml_holds_any_text_but_for_the_characters_that_it_forbids(text: String) {
            let expected = text.replace(|character| !allowed(character), "\u{fffd}");
            prop_assert_eq!(text_of(&render(&json!({ "k": text }), Format::Xml)), expected);
        }

        #[test]
        fn json_holds_any_tree(tree in any_tree()) {
            prop_assert_eq!(&serde_json::from_str::<Value>(&render(&tree, Format::Json)).unwrap(), &tree);
            prop_assert_eq!(&serde_json::from_str::<Value>(&render(&tree, Format::JsonPretty)).unwrap(), &tree);
        }

        #[test]
        fn any_tree_makes_xml_that_a_parser_takes(tree in any_tree()) {
            text_of(&render(&tree, Format::Xml));
        }

        #[test]
        fn yaml_has_any_text_on_one_line(text: String) {
            prop_assert_eq!(render(&json!({ "k": text }), Format::Yaml).lines().count(), 2);
        }
    }
}
