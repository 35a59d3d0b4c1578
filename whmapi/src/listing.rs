//! What `api.filter`, `api.sort`, `api.columns` and `api.chunk` make of the rows of a listing. Pure.
//!
//! WHM documents the arguments, and not all that they do; cPanel's own client library shows some more. Where neither says
//! anything it is decided here:
//!
//! - Rows are filtered, sorted, cut into chunks, then into columns. So one may sort by a column that is not wanted.
//! - Filters and sort keys go by the letters in their names, in the order of the letters (after `z` the library goes on
//!   with `za`). Other words do as well, and none: older pages have `api.sort.field`. A row must pass every filter.
//! - `contains` and `begins` do not mind ASCII case, as UAPI documents it for its own; `eq` does. What is no number passes
//!   no numeric filter; `unlimited` is more than any number to those that handle it. A filter finds in a list what any
//!   value of it has. No row has a field that is not there.
//! - Where nothing is named, nothing is filtered out, sorted or left out, whatever is enabled; a column that is not there
//!   is none.
//! - What is no number or no address sorts before those that are, and `unlimited` behind them; what is equal stays in
//!   order.
//! - A chunk without a size goes to the end; `-1` as its start, by which the library asks for everything, is the first
//!   record.
//! - `metadata.chunk` and `metadata.filter` come with `api.chunk.verbose` and `api.filter.verbose`, with the members that
//!   the library reads: `records` (rows behind the filters), `size`, `start`, `chunks`, `current` (the chunk's number), and
//!   `filtered` (rows before the filters).
//!
//! An argument that cannot be followed is refused, since a script that acts on a listing must not be given more than it
//! asked for.

use crate::Arguments;
use crate::answer::{Object, Refused};
use core::net::Ipv4Addr;
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Filters, sort keys, and columns, that a call may have of each.
const MAX: usize = 100;

/// The rows that are wanted, and what goes into `metadata` besides.
///
/// # Errors
///
/// An argument is not what it should be; the words name it.
pub fn select(mut rows: Vec<Object>, arguments: &Arguments) -> Result<(Vec<Object>, Object), Refused> {
    let mut metadata = Object::new();
    if arguments.is_set("api.filter.enable") {
        let filters = filters(arguments)?;
        if arguments.is_set("api.filter.verbose") {
            metadata.insert("filter".to_owned(), json!({ "filtered": rows.len() }));
        }
        rows.retain(|row| filters.iter().all(|filter| filter.lets_pass(row)));
    }
    if arguments.is_set("api.sort.enable") {
        rows = sorted(rows, &sorts(arguments)?);
    }
    if arguments.is_set("api.chunk.enable") {
        let chunk = Chunk::of(arguments)?;
        if arguments.is_set("api.chunk.verbose") {
            metadata.insert("chunk".to_owned(), chunk.description(rows.len()));
        }
        rows = rows.into_iter().skip(chunk.start - 1).take(chunk.size.unwrap_or(usize::MAX)).collect();
    }
    if arguments.is_set("api.columns.enable") {
        let columns = columns(arguments)?;
        for row in &mut rows {
            row.retain(|name, _| columns.is_empty() || columns.contains(name.as_str()));
        }
    }
    Ok((rows, metadata))
}

/// One of `api.filter`.
#[derive(Clone, Debug)]
struct Filter<'a> {
    /// Which field; none: any.
    field: Option<&'a str>,
    test: Test,
}

/// What a field must be.
#[derive(Clone, Debug)]
enum Test {
    Contains(String),
    Begins(String),
    Is(String),
    Number(Comparison, f64),
    /// As the one before, and what is unlimited is more than any number.
    Amount(Comparison, f64),
}

type Comparison = fn(&f64, &f64) -> bool;

/// What a filter may be called.
const TYPES: &str = "contains, begins, eq, ==, lt, lt_equal, lt_handle_unlimited, gt, gt_equal, gt_handle_unlimited";

fn filters(arguments: &Arguments) -> Result<Vec<Filter<'_>>, Refused> {
    members(arguments, "api.filter.")?.into_iter().map(|member| filter(arguments, member)).collect()
}

fn filter<'a>(arguments: &'a Arguments, member: &str) -> Result<Filter<'a>, Refused> {
    let field = given(arguments, &format!("{member}field"))?;
    let name = format!("{member}arg0");
    let argument = given(arguments, &name)?;
    let kind = format!("{member}type");
    let found = |value: Option<f64>| value.ok_or_else(|| Refused(format!("{name} is no number")));
    let test = match arguments.get(&kind).unwrap_or("contains") {
        "contains" => Test::Contains(argument.to_ascii_lowercase()),
        "begins" => Test::Begins(argument.to_ascii_lowercase()),
        "eq" => Test::Is(argument.to_owned()),
        "==" => Test::Number(f64::eq, found(number(argument))?),
        "lt" => Test::Number(f64::lt, found(number(argument))?),
        "lt_equal" => Test::Number(f64::le, found(number(argument))?),
        "lt_handle_unlimited" => Test::Amount(f64::lt, found(amount(argument))?),
        "gt" => Test::Number(f64::gt, found(number(argument))?),
        "gt_equal" => Test::Number(f64::ge, found(number(argument))?),
        "gt_handle_unlimited" => Test::Amount(f64::gt, found(amount(argument))?),
        _ => return Err(Refused(format!("{kind} is none of {TYPES}"))),
    };
    Ok(Filter { field: (field != "*").then_some(field), test })
}

impl Filter<'_> {
    fn lets_pass(&self, row: &Object) -> bool {
        match self.field {
            Some(field) => row.get(field).is_some_and(|value| self.test.holds(value)),
            None => row.values().any(|value| self.test.holds(value)),
        }
    }
}

impl Test {
    fn holds(&self, value: &Value) -> bool {
        match value {
            Value::Array(values) => values.iter().any(|value| self.holds(value)),
            Value::Object(object) => object.values().any(|value| self.holds(value)),
            _ => self.holds_for(&text(value)),
        }
    }

    fn holds_for(&self, text: &str) -> bool {
        match self {
            Test::Contains(part) => text.to_ascii_lowercase().contains(part),
            Test::Begins(part) => text.to_ascii_lowercase().starts_with(part),
            Test::Is(whole) => text == whole,
            Test::Number(compare, limit) => number(text).is_some_and(|value| compare(&value, limit)),
            Test::Amount(compare, limit) => amount(text).is_some_and(|value| compare(&value, limit)),
        }
    }
}

/// One of `api.sort`.
#[derive(Clone, Copy, Debug)]
struct Sort<'a> {
    field: &'a str,
    method: Method,
    reverse: bool,
}

#[derive(Clone, Copy, Debug)]
enum Method {
    Lexicographic,
    Numeric,
    NumericZeroAsMax,
    Ipv4,
}

/// What a row is sorted by. A number is never NaN, so that there is always an order.
#[derive(Debug, PartialEq, PartialOrd)]
enum Key {
    Text(String),
    Number(Option<f64>),
    Address(Option<Ipv4Addr>),
}

fn sorts(arguments: &Arguments) -> Result<Vec<Sort<'_>>, Refused> {
    members(arguments, "api.sort.")?.into_iter().map(|member| sort(arguments, member)).collect()
}

fn sort<'a>(arguments: &'a Arguments, member: &str) -> Result<Sort<'a>, Refused> {
    let field = given(arguments, &format!("{member}field"))?;
    let name = format!("{member}method");
    let method = match arguments.get(&name).unwrap_or("lexicographic") {
        "lexicographic" => Method::Lexicographic,
        "numeric" => Method::Numeric,
        "numeric_zero_as_max" => Method::NumericZeroAsMax,
        "ipv4" => Method::Ipv4,
        _ => return Err(Refused(format!("{name} is none of lexicographic, numeric, numeric_zero_as_max, ipv4"))),
    };
    Ok(Sort { field, method, reverse: arguments.is_set(&format!("{member}reverse")) })
}

impl Sort<'_> {
    fn key(&self, row: &Object) -> Key {
        let text = row.get(self.field).map(text).unwrap_or_default();
        match self.method {
            Method::Lexicographic => Key::Text(text),
            Method::Numeric => Key::Number(amount(&text)),
            Method::NumericZeroAsMax => Key::Number(amount(&text).map(|n| if n == 0.0 { f64::INFINITY } else { n })),
            Method::Ipv4 => Key::Address(text.parse().ok()),
        }
    }

    fn order(&self, one: &Key, other: &Key) -> Ordering {
        let order = one.partial_cmp(other).unwrap_or(Ordering::Equal);
        if self.reverse { order.reverse() } else { order }
    }
}

fn sorted(rows: Vec<Object>, sorts: &[Sort<'_>]) -> Vec<Object> {
    let keys = |row: &Object| sorts.iter().map(|sort| sort.key(row)).collect::<Vec<_>>();
    let mut rows: Vec<_> = rows.into_iter().map(|row| (keys(&row), row)).collect();
    rows.sort_by(|(one, _), (other, _)| {
        let mut orders = sorts.iter().zip(one.iter().zip(other)).map(|(sort, (one, other))| sort.order(one, other));
        orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    });
    rows.into_iter().map(|(_, row)| row).collect()
}

/// `api.chunk`.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    /// The first record, from 1.
    start: usize,
    /// Records; none: all that come.
    size: Option<usize>,
}

impl Chunk {
    fn of(arguments: &Arguments) -> Result<Chunk, Refused> {
        let start = match arguments.get("api.chunk.start") {
            None | Some("-1") => 1,
            Some(start) => counted("api.chunk.start", start)?,
        };
        let size = arguments.get("api.chunk.size").map(|size| counted("api.chunk.size", size)).transpose()?;
        Ok(Chunk { start, size })
    }

    fn description(self, records: usize) -> Value {
        let size = self.size.unwrap_or(records.max(1));
        json!({
            "records": records,
            "size": size,
            "start": self.start,
            "chunks": records.div_ceil(size),
            "current": (self.start - 1) / size + 1,
        })
    }
}

fn counted(name: &str, value: &str) -> Result<usize, Refused> {
    let count = value.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| Refused(format!("{name} is no number from 1 on")))
}

/// The fields that are wanted; none: all.
fn columns(arguments: &Arguments) -> Result<BTreeSet<&str>, Refused> {
    let named = arguments.iter().filter_map(|(name, value)| Some((name.strip_prefix("api.columns.")?, value)));
    let columns = named.filter(|(letter, _)| *letter != "enable").map(|(_, value)| value).collect();
    bounded(columns, "api.columns.")
}

/// What names such as `api.filter.a.field` have in common, up to the last dot, in the order of the letters.
fn members<'a>(arguments: &'a Arguments, prefix: &str) -> Result<BTreeSet<&'a str>, Refused> {
    let names = arguments.iter().map(|(name, _)| name);
    let names =
        names.filter(|name| name.strip_prefix(prefix).is_some_and(|rest| !matches!(rest, "enable" | "verbose")));
    let members = names.filter_map(|name| name.rfind('.').map(|dot| &name[..=dot])).collect();
    bounded(members, prefix)
}

fn bounded<'a>(members: BTreeSet<&'a str>, prefix: &str) -> Result<BTreeSet<&'a str>, Refused> {
    if members.len() > MAX {
        return Err(Refused(format!("there are more than {MAX} of {prefix}a")));
    }
    Ok(members)
}

/// A value, which may be nothing: a filter may look for that.
fn given<'a>(arguments: &'a Arguments, name: &str) -> Result<&'a str, Refused> {
    arguments.get(name).ok_or_else(|| Refused(format!("{name} is missing")))
}

/// What a value is when it is looked at as text: nothing for what has values of its own.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(yes) => u8::from(*yes).to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A number, or `unlimited`.
fn amount(text: &str) -> Option<f64> {
    if text.eq_ignore_ascii_case("unlimited") { Some(f64::INFINITY) } else { number(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Vec<Object> {
        let rows = json!([
            {"id": "m1", "sender": "Ann@a.example", "size": 10, "limit": "unlimited", "ip": "10.0.0.9", "to": ["x@b.example"]},
            {"id": "m2", "sender": "bob@b.example", "size": "9", "limit": 0, "ip": "9.0.0.1", "to": []},
            {"id": "m3", "sender": "cy@a.example", "size": 0, "limit": "5", "ip": null, "to": ["y@c.example", "z@d.example"]},
            {"id": "m4", "sender": "ann@a.example.org", "size": 100, "limit": 7.5, "ip": "10.0.0.10"},
        ]);
        rows.as_array().unwrap().iter().map(|row| row.as_object().unwrap().clone()).collect()
    }

    fn arguments(query: &str) -> Arguments {
        Arguments::from_form(query.as_bytes())
    }

    /// The ids of what is left, one behind the other.
    fn ids(query: &str) -> String {
        let (rows, _) = select(listing(), &arguments(query)).unwrap_or_else(|refused| panic!("{query}: {refused}"));
        rows.iter().map(|row| row["id"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    fn refused(query: &str) -> String {
        select(listing(), &arguments(query)).map(|(rows, _)| rows.len()).expect_err(query).0
    }

    fn metadata(query: &str) -> Value {
        Value::Object(select(listing(), &arguments(query)).unwrap().1)
    }

    #[test]
    fn nothing_changes_unless_it_is_enabled() {
        let all = "api.filter.a.field=id&api.filter.a.arg0=m1&api.sort.a.field=id&api.sort.a.reverse=1&api.chunk.size=1\
                   &api.columns.a=id&api.filter.b.type=nonsense";
        for query in
            ["", all, &format!("api.filter.enable=0&api.sort.enable=0&api.chunk.enable=0&api.columns.enable=&{all}")]
        {
            assert_eq!(select(listing(), &arguments(query)), Ok((listing(), Object::new())));
        }
    }

    #[test]
    fn nothing_changes_where_nothing_is_named() {
        let query = "api.filter.enable=1&api.sort.enable=1&api.chunk.enable=1&api.columns.enable=1";
        assert_eq!(select(listing(), &arguments(query)), Ok((listing(), Object::new())));
    }

    #[test]
    fn a_filter_lets_pass_what_its_type_says() {
        let cases = [
            ("sender", "a.example", "", "m1 m3 m4"),
            ("sender", "a.example", "contains", "m1 m3 m4"),
            ("sender", "ANN@", "contains", "m1 m4"),
            ("sender", "ann", "begins", "m1 m4"),
            ("sender", "a.example", "begins", ""),
            ("sender", "ann@a.example", "eq", ""),
            ("sender", "Ann@a.example", "eq", "m1"),
            ("size", "9", "eq", "m2"),
            ("size", "1", "contains", "m1 m4"),
            ("size", "9", "==", "m2"),
            ("size", "9.0", "==", "m2"),
            ("size", "10", "lt", "m2 m3"),
            ("size", "10", "lt_equal", "m1 m2 m3"),
            ("size", "9", "gt", "m1 m4"),
            ("size", "10", "gt_equal", "m1 m4"),
            ("limit", "6", "gt", "m4"),
            ("limit", "6", "gt_equal", "m4"),
            ("limit", "6", "gt_handle_unlimited", "m1 m4"),
            ("limit", "6", "lt", "m2 m3"),
            ("limit", "6", "lt_handle_unlimited", "m2 m3"),
            ("limit", "Unlimited", "lt_handle_unlimited", "m2 m3 m4"),
            ("limit", "unlimited", "eq", "m1"),
            ("sender", "0", "gt", ""),
            ("ip", "", "eq", "m3"),
            ("to", "c.example", "contains", "m3"),
            ("to", "z@", "begins", "m3"),
            ("to", "", "contains", "m1 m3"),
            ("nothing", "", "contains", ""),
            ("*", "10", "==", "m1"),
            ("*", "b.example", "contains", "m1 m2"),
        ];
        for (field, argument, kind, expected) in cases {
            let kind = if kind.is_empty() { String::new() } else { format!("&api.filter.a.type={kind}") };
            let query = format!("api.filter.enable=1&api.filter.a.field={field}&api.filter.a.arg0={argument}{kind}");
            assert_eq!(ids(&query), expected, "{query}");
        }
    }

    #[test]
    fn a_row_must_pass_every_filter() {
        let two = "api.filter.enable=1&api.filter.a.field=size&api.filter.a.arg0=9&api.filter.a.type=gt\
                   &api.filter.za.field=size&api.filter.za.arg0=100&api.filter.za.type=lt";
        assert_eq!(ids(two), "m1");
    }

    #[test]
    fn rows_are_sorted_as_the_method_says() {
        let cases = [
            ("a.field=sender", "m1 m4 m2 m3"),
            ("a.field=sender&api.sort.a.reverse=1", "m3 m2 m4 m1"),
            ("a.field=sender&api.sort.a.reverse=0", "m1 m4 m2 m3"),
            ("a.field=size", "m3 m1 m4 m2"),
            ("a.field=size&api.sort.a.method=lexicographic", "m3 m1 m4 m2"),
            ("a.field=size&api.sort.a.method=numeric", "m3 m2 m1 m4"),
            ("a.field=size&api.sort.a.method=numeric&api.sort.a.reverse=1", "m4 m1 m2 m3"),
            ("a.field=size&api.sort.a.method=numeric_zero_as_max", "m2 m1 m4 m3"),
            ("a.field=limit&api.sort.a.method=numeric", "m2 m3 m4 m1"),
            ("a.field=sender&api.sort.a.method=numeric", "m1 m2 m3 m4"),
            ("a.field=ip&api.sort.a.method=ipv4", "m3 m2 m1 m4"),
            ("a.field=ip", "m3 m4 m1 m2"),
            ("a.field=nothing", "m1 m2 m3 m4"),
            ("a.field=nothing&api.sort.a.reverse=1", "m1 m2 m3 m4"),
            ("field=size", "m3 m1 m4 m2"),
        ];
        for (sort, expected) in cases {
            assert_eq!(ids(&format!("api.sort.enable=1&api.sort.{sort}")), expected, "{sort}");
        }
    }

    #[test]
    fn what_one_key_leaves_equal_the_next_letter_sorts() {
        let rows = |pairs: &[(&str, u8)]| -> Vec<Object> {
            pairs.iter().map(|(a, b)| json!({"a": a, "b": b}).as_object().unwrap().clone()).collect()
        };
        // The letters count, not the places.
        let query =
            "api.sort.b.field=b&api.sort.b.method=numeric&api.sort.b.reverse=1&api.sort.a.field=a&api.sort.enable=1";
        let (sorted, _) = select(rows(&[("y", 1), ("x", 9), ("y", 10), ("x", 10)]), &arguments(query)).unwrap();
        assert_eq!(sorted, rows(&[("x", 10), ("x", 9), ("y", 10), ("y", 1)]));
    }

    #[test]
    fn a_chunk_is_so_many_records_from_the_first_that_is_wanted() {
        let cases = [
            ("size=2", "m1 m2"),
            ("size=2&api.chunk.start=1", "m1 m2"),
            ("size=2&api.chunk.start=2", "m2 m3"),
            ("size=2&api.chunk.start=4", "m4"),
            ("size=2&api.chunk.start=5", ""),
            ("size=99999999999", "m1 m2 m3 m4"),
            ("start=3", "m3 m4"),
            ("start=-1", "m1 m2 m3 m4"),
        ];
        for (chunk, expected) in cases {
            assert_eq!(ids(&format!("api.chunk.enable=1&api.chunk.{chunk}")), expected, "{chunk}");
        }
    }

    #[test]
    fn metadata_tells_what_there_is_besides_if_it_is_asked_for() {
        let chunk = "api.chunk.enable=1&api.chunk.verbose=1&api.chunk.start=3&api.chunk.size=2";
        let filter = "api.filter.enable=1&api.filter.verbose=1&api.filter.a.field=id&api.filter.a.arg0=m1";
        let cases = [
            (chunk.to_owned(), json!({"chunk": {"records": 4, "size": 2, "start": 3, "chunks": 2, "current": 2}})),
            (
                "api.chunk.enable=1&api.chunk.verbose=1&api.chunk.start=-1".to_owned(),
                json!({"chunk": {"records": 4, "size": 4, "start": 1, "chunks": 1, "current": 1}}),
            ),
            (filter.to_owned(), json!({"filter": {"filtered": 4}})),
            (
                format!("{chunk}&{filter}"),
                json!({
                    "filter": {"filtered": 4},
                    "chunk": {"records": 1, "size": 2, "start": 3, "chunks": 1, "current": 2},
                }),
            ),
            ("api.chunk.enable=1&api.chunk.size=2".to_owned(), json!({})),
            ("api.chunk.verbose=1&api.filter.verbose=1".to_owned(), json!({})),
        ];
        for (query, expected) in cases {
            assert_eq!(metadata(&query), expected, "{query}");
        }
        let none = "api.chunk.enable=1&api.chunk.verbose=1";
        let expected = json!({"chunk": {"records": 0, "size": 1, "start": 1, "chunks": 0, "current": 1}});
        assert_eq!(Value::Object(select(Vec::new(), &arguments(none)).unwrap().1), expected);
    }

    #[test]
    fn only_the_columns_that_are_wanted_stay_in_the_order_of_the_row() {
        let query = "api.columns.enable=1&api.columns.a=size&api.columns.b=id&api.columns.c=nothing\
                     &api.chunk.enable=1&api.chunk.size=1";
        let (rows, _) = select(listing(), &arguments(query)).unwrap();
        assert_eq!(Value::from(rows).to_string(), r#"[{"id":"m1","size":10}]"#);
    }

    #[test]
    fn rows_are_filtered_then_sorted_then_cut_into_chunks_then_into_columns() {
        let query = "api.columns.enable=1&api.columns.a=id&api.chunk.enable=1&api.chunk.size=1&api.chunk.start=2\
                     &api.sort.enable=1&api.sort.a.field=size&api.sort.a.method=numeric&api.sort.a.reverse=1\
                     &api.filter.enable=1&api.filter.a.field=sender&api.filter.a.arg0=a.example";
        let (rows, _) = select(listing(), &arguments(query)).unwrap();
        assert_eq!(Value::from(rows), json!([{"id": "m1"}]));
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        let types = format!("api.filter.a.type is none of {TYPES}");
        let cases = [
            ("filter.enable=1&api.filter.a.arg0=x", "api.filter.a.field is missing"),
            ("filter.enable=1&api.filter.a.field=x", "api.filter.a.arg0 is missing"),
            ("filter.enable=1&api.filter.typo=x", "api.filter.field is missing"),
            ("filter.enable=1&api.filter.a.field=x&api.filter.a.arg0=x&api.filter.a.type=ends", types.as_str()),
            (
                "filter.enable=1&api.filter.b.field=x&api.filter.b.arg0=x&api.filter.b.type=lt",
                "api.filter.b.arg0 is no number",
            ),
            (
                "filter.enable=1&api.filter.a.field=x&api.filter.a.arg0=nan&api.filter.a.type===",
                "api.filter.a.arg0 is no number",
            ),
            (
                "filter.enable=1&api.filter.a.field=x&api.filter.a.arg0=unlimited&api.filter.a.type=gt",
                "api.filter.a.arg0 is no number",
            ),
            ("sort.enable=1&api.sort.a.method=numeric", "api.sort.a.field is missing"),
            (
                "sort.enable=1&api.sort.a.field=x&api.sort.a.method=x",
                "api.sort.a.method is none of lexicographic, numeric, numeric_zero_as_max, ipv4",
            ),
            ("chunk.enable=1&api.chunk.size=0", "api.chunk.size is no number from 1 on"),
            ("chunk.enable=1&api.chunk.size=ten", "api.chunk.size is no number from 1 on"),
            ("chunk.enable=1&api.chunk.size=-1", "api.chunk.size is no number from 1 on"),
            ("chunk.enable=1&api.chunk.size=99999999999999999999", "api.chunk.size is no number from 1 on"),
            ("chunk.enable=1&api.chunk.start=0", "api.chunk.start is no number from 1 on"),
            ("chunk.enable=1&api.chunk.start=", "api.chunk.start is no number from 1 on"),
        ];
        for (query, expected) in cases {
            assert_eq!(refused(&format!("api.{query}")), expected, "{query}");
        }
    }

    #[test]
    fn of_filters_sort_keys_and_columns_there_may_be_a_hundred() {
        let many = |kind: &str, count: usize| -> String {
            let one = |n: usize| match kind {
                "columns" => format!("&api.columns.c{n}=f{n}"),
                _ => format!("&api.{kind}.c{n}.field=id&api.{kind}.c{n}.arg0=m"),
            };
            format!("api.{kind}.enable=1") + &(0..count).map(one).collect::<String>()
        };
        for kind in ["filter", "sort", "columns"] {
            assert!(select(listing(), &arguments(&many(kind, MAX))).is_ok());
            assert_eq!(refused(&many(kind, MAX + 1)), format!("there are more than 100 of api.{kind}.a"));
        }
    }
}
