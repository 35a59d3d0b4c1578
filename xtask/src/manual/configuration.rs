//! The keys of a configuration file, as they stand on its page.

use super::keys::{Key, Table};
use super::markdown;
use super::roff::{Roff, Text};
use anyhow::{Context, Result};

/// What stands before the first table, then the tables.
pub(super) fn keys(tables: &[Table], page: &mut Roff) -> Result<()> {
    for table in tables {
        if let Some(name) = &table.name {
            page.subsection(&format!("[{name}]"));
            page.paragraph(&markdown::text(&capital(&table.meaning))?);
        }
        for key in &table.keys {
            self::key(key, page).with_context(|| key.name.clone())?;
        }
    }
    Ok(())
}

fn key(key: &Key, page: &mut Roff) -> Result<()> {
    let tag = Text::new().bold(&key.name).roman(&format!(" ({})", key.kind));
    page.tagged(&tag, &[markdown::text(&key.meaning)?]);
    if !key.values.is_empty() {
        page.indent();
        for (word, meaning) in &key.values {
            page.tagged(&Text::new().bold(&format!("\"{word}\"")), &[markdown::text(meaning)?]);
        }
        page.outdent();
    }
    let default = Text::new().roman("Default: ");
    let default = match &key.default {
        Some(value) => default.bold(value),
        None => default.roman("none"),
    };
    let text = match &key.example {
        Some(example) => default.roman(". Example: ").bold(example),
        None => default,
    };
    page.further(&text.roman("."));
    Ok(())
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    first + characters.as_str()
}
