//! The keys of a configuration file: from the types that it is read into, with their doc comments, and the file that is
//! shipped.
//!
//! The sources are read as text, so that the programs need no description of themselves inside. What serde would do
//! otherwise than we think is an error: every type has kebab-case names, and no field has an attribute for serde.

use super::source;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::collections::HashMap;
use syn::{
    Attribute, Expr, Field, Fields, GenericArgument, Item, ItemEnum, ItemStruct, Lit, Meta, PathArguments, Type,
};

/// Types that are written in more than one program.
const SHARED: &str = "service/src/logging.rs";

/// A table of the file, or what stands before the first.
#[derive(Debug)]
pub(super) struct Table {
    /// None: before the first table.
    pub(super) name: Option<String>,
    /// In Markdown.
    pub(super) meaning: String,
    pub(super) keys: Vec<Key>,
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: String,
    /// What a value is, such as `array of strings`.
    pub(super) kind: String,
    /// In Markdown.
    pub(super) meaning: String,
    /// Words that are possible values, each with its meaning in Markdown.
    pub(super) values: Vec<(String, String)>,
    /// As it is written in the file. None: none.
    pub(super) default: Option<String>,
    /// What the shipped file has in a comment.
    pub(super) example: Option<String>,
}

/// The tables that the type `Config` in the file `types` reads, with the defaults of the file `shipped`.
pub(super) fn read(types: &str, shipped: &str) -> Result<Vec<Table>> {
    let types = Types::read(&[types, SHARED])?;
    let text = source(shipped)?;
    let uncommented: String =
        text.lines().map(|line| line.strip_prefix("#= ").unwrap_or(line)).flat_map(|line| [line, "\n"]).collect();
    let values = |text: &str| toml::from_str::<Map<String, Value>>(text).with_context(|| shipped.to_owned());
    let shipped = Shipped { defaults: values(&text)?, examples: values(&uncommented)? };
    types.tables(&shipped)
}

/// The values in the shipped file, without and with those in its comments.
struct Shipped {
    defaults: Map<String, Value>,
    examples: Map<String, Value>,
}

impl Shipped {
    fn values(&self, table: Option<&str>, key: &str) -> (Option<String>, Option<String>) {
        let value = |all: &Map<String, Value>| {
            let table = table.map_or(Some(all), |table| all.get(table)?.as_object());
            // An array of JSON is one of TOML, and so are strings, numbers and booleans.
            table.and_then(|table| table.get(key)).map(ToString::to_string)
        };
        let default = value(&self.defaults);
        let example = value(&self.examples).filter(|example| default.as_ref() != Some(example));
        (default, example)
    }
}

/// Structs and enums by their names.
#[derive(Default)]
struct Types {
    structs: HashMap<String, ItemStruct>,
    enums: HashMap<String, ItemEnum>,
}

impl Types {
    fn read(paths: &[&str]) -> Result<Types> {
        let mut types = Types::default();
        for path in paths {
            let file = syn::parse_file(&source(path)?).with_context(|| (*path).to_owned())?;
            for item in file.items {
                match item {
                    Item::Struct(item) => drop(types.structs.insert(item.ident.to_string(), item)),
                    Item::Enum(item) => drop(types.enums.insert(item.ident.to_string(), item)),
                    _ => {}
                }
            }
        }
        Ok(types)
    }

    fn tables(&self, shipped: &Shipped) -> Result<Vec<Table>> {
        let mut first = Table { name: None, meaning: String::new(), keys: Vec::new() };
        let mut tables = Vec::new();
        for field in self.fields("Config")? {
            let (name, kind) = (field_name(field)?, last_word(&field.ty)?);
            match self.structs.get(&kind).filter(|item| matches!(item.fields, Fields::Named(_))) {
                Some(item) => tables.push(self.table(&name, &kind, item, shipped).with_context(|| name)?),
                None => first.keys.push(self.key(None, field, shipped).with_context(|| name)?),
            }
        }
        tables.insert(0, first);
        Ok(tables)
    }

    fn table(&self, name: &str, kind: &str, item: &ItemStruct, shipped: &Shipped) -> Result<Table> {
        let keys = self.fields(kind)?.map(|field| self.key(Some(name), field, shipped)).collect::<Result<_>>()?;
        let doc = doc(&item.attrs)?;
        let meaning = doc.strip_prefix(&format!("`[{name}]`: ")).context("its doc comment does not name it first")?;
        Ok(Table { name: Some(name.to_owned()), meaning: meaning.to_owned(), keys })
    }

    fn key(&self, table: Option<&str>, field: &Field, shipped: &Shipped) -> Result<Key> {
        let name = field_name(field)?;
        let (default, example) = shipped.values(table, &name);
        let kind = self.kind(&field.ty).with_context(|| name.clone())?;
        let meaning = doc(&field.attrs)?;
        let innermost = last_word(innermost(&field.ty)?)?;
        let values = self.enums.get(&innermost).map(words).transpose()?.unwrap_or_default();
        Ok(Key { name, kind, meaning, values, default, example })
    }

    /// What the values of a type are in TOML.
    fn kind(&self, kind: &Type) -> Result<String> {
        let name = last_word(kind)?;
        Ok(match name.as_str() {
            "Option" => self.kind(argument(kind)?)?,
            "Vec" => format!("array of {}s", self.kind(argument(kind)?)?),
            "PathBuf" | "String" | "SocketAddr" => "string".to_owned(),
            "bool" => "boolean".to_owned(),
            "u32" | "u64" | "usize" => "integer".to_owned(),
            // Something of our own, which is read from a string.
            word if self.enums.contains_key(word) => "string".to_owned(),
            word if self
                .structs
                .get(word)
                .is_some_and(|item| serde(&item.attrs).any(|is| is == "try_from = \"String\"")) =>
            {
                "string".to_owned()
            }
            other => bail!("no word for the type {other}"),
        })
    }

    fn fields(&self, name: &str) -> Result<impl Iterator<Item = &Field>> {
        let item = self.structs.get(name).with_context(|| format!("no struct {name}"))?;
        is_kebab_case(&item.attrs).with_context(|| name.to_owned())?;
        for field in &item.fields {
            ensure!(serde(&field.attrs).next().is_none(), "a field of {name} has an attribute for serde");
        }
        Ok(item.fields.iter())
    }
}

/// The words of an enum with their meanings.
fn words(item: &ItemEnum) -> Result<Vec<(String, String)>> {
    is_kebab_case(&item.attrs).with_context(|| item.ident.to_string())?;
    let word = |variant: &syn::Variant| {
        let name = variant.ident.to_string();
        ensure!(!name[1..].contains(char::is_uppercase), "{name} is not one word");
        ensure!(serde(&variant.attrs).next().is_none(), "{name} has an attribute for serde");
        Ok((name.to_lowercase(), doc(&variant.attrs)?))
    };
    item.variants.iter().map(word).collect()
}

fn field_name(field: &Field) -> Result<String> {
    Ok(field.ident.as_ref().context("a field without a name")?.to_string().replace('_', "-"))
}

fn is_kebab_case(attributes: &[Attribute]) -> Result<()> {
    let named = serde(attributes).any(|attribute| attribute.contains("rename_all = \"kebab-case\""));
    ensure!(named, "its names are not in kebab-case");
    Ok(())
}

/// What is told to serde, as it is written.
fn serde(attributes: &[Attribute]) -> impl Iterator<Item = String> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("serde")).filter_map(|attribute| {
        match &attribute.meta {
            Meta::List(list) => Some(list.tokens.to_string()),
            _ => None,
        }
    })
}

/// A doc comment in one line.
fn doc(attributes: &[Attribute]) -> Result<String> {
    let mut lines = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        if let Meta::NameValue(pair) = &attribute.meta
            && let Expr::Lit(literal) = &pair.value
            && let Lit::Str(text) = &literal.lit
        {
            lines.push(text.value().trim().to_owned());
        }
    }
    ensure!(!lines.is_empty(), "something has no doc comment");
    Ok(lines.join(" "))
}

fn last_word(kind: &Type) -> Result<String> {
    Ok(last_segment(kind)?.ident.to_string())
}

fn last_segment(kind: &Type) -> Result<&syn::PathSegment> {
    match kind {
        Type::Path(path) => path.path.segments.last().context("a type without a name"),
        _ => bail!("a type that is no name"),
    }
}

/// What is between the angles of `Option<...>` or `Vec<...>`.
fn argument(kind: &Type) -> Result<&Type> {
    let PathArguments::AngleBracketed(list) = &last_segment(kind)?.arguments else {
        bail!("a type without an argument")
    };
    match list.args.first() {
        Some(GenericArgument::Type(kind)) => Ok(kind),
        _ => bail!("an argument that is no type"),
    }
}

fn innermost(kind: &Type) -> Result<&Type> {
    match last_word(kind)?.as_str() {
        "Option" | "Vec" => innermost(argument(kind)?),
        _ => Ok(kind),
    }
}
