//! What comes back: a tree of values in the envelope of WHM API 1 or of UAPI.

use serde_json::{Map, Value, json};

/// A row or an object of an answer.
pub type Object = Map<String, Value>;

/// An answer, in its envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The whole of it.
    pub tree: Value,
    /// Whether the call was carried out: WHM's `result`, UAPI's `status`.
    pub done: bool,
}

/// What a function has done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done {
    /// `data`, if the function returns any.
    pub data: Option<Value>,
    /// `metadata.reason` of WHM API 1; none: `OK`.
    pub reason: Option<&'static str>,
    /// What else stands in `metadata`.
    pub metadata: Object,
    /// What the caller should know about it: where there is any, `metadata.output.warnings` of WHM API 1, and `warnings` of UAPI.
    pub warnings: Vec<String>,
}

/// A call that was not carried out, in words that name the parameter or the account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl Answer {
    /// In the envelope of WHM API 1: `metadata` with version, reason, result and command, and `data` if there is any.
    #[must_use]
    pub fn whm(command: &str, outcome: Result<Done, Refused>) -> Answer {
        let (result, reason, done) = match outcome {
            Ok(done) => (1, done.reason.unwrap_or("OK").to_owned(), done),
            Err(Refused(reason)) => (0, reason, Done::default()),
        };
        let mut metadata = object([
            ("version", json!(1)),
            ("reason", json!(reason)),
            ("result", json!(result)),
            ("command", json!(command)),
        ]);
        metadata.extend(done.metadata);
        if !done.warnings.is_empty() {
            metadata.insert("output".to_owned(), json!({ "warnings": done.warnings }));
        }
        let mut tree = Object::new();
        tree.extend(done.data.map(|data| ("data".to_owned(), data)));
        tree.insert("metadata".to_owned(), Value::Object(metadata));
        Answer { tree: Value::Object(tree), done: result == 1 }
    }

    /// In the envelope of UAPI, as it comes back over HTTP.
    #[must_use]
    pub fn uapi(outcome: Result<Done, Refused>) -> Answer {
        let done = outcome.is_ok();
        let (data, errors, metadata, warnings) = match outcome {
            Ok(Done { data, metadata, warnings, reason: _ }) => (data, Value::Null, metadata, warnings),
            Err(Refused(reason)) => (None, json!([reason]), Object::new(), Vec::new()),
        };
        let tree = json!({
            "status": u8::from(done),
            "data": data,
            "errors": errors,
            "messages": null,
            "metadata": metadata,
            "warnings": if warnings.is_empty() { Value::Null } else { json!(warnings) },
        });
        Answer { tree, done }
    }

    /// The answer of UAPI as its command line prints it, where what comes back over HTTP is the `result`.
    #[must_use]
    pub fn with_call(self, module: &str, function: &str) -> Answer {
        let tree = json!({ "apiversion": 3, "func": function, "module": module, "result": self.tree });
        Answer { tree, done: self.done }
    }
}

/// An object of these fields, in this order.
#[must_use]
pub fn object<const N: usize>(fields: [(&str, Value); N]) -> Object {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
