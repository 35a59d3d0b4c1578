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

/// What a function of WHM API 1 has done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done {
    /// `data`, if the function returns any.
    pub data: Option<Value>,
    /// `metadata.reason`; none: `OK`.
    pub reason: Option<&'static str>,
    /// What else stands in `metadata`.
    pub metadata: Object,
}

/// A call that was not carried out, in words that name the parameter or the account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl Answer {
    /// In the envelope of WHM API 1: `data` behind or before `metadata` with version, reason, result and command.
    #[must_use]
    pub fn whm(command: &str, outcome: Result<Done, Refused>) -> Answer {
        let (result, reason, done) = match outcome {
            Ok(done) => (1, done.reason.unwrap_or("OK").to_owned(), done),
            Err(Refused(reason)) => (0, reason, Done::default()),
        };
        let mut metadata = Object::new();
        metadata.extend([
            ("version".to_owned(), json!(1)),
            ("reason".to_owned(), json!(reason)),
            ("result".to_owned(), json!(result)),
            ("command".to_owned(), json!(command)),
        ]);
        metadata.extend(done.metadata);
        let mut tree = Object::new();
        if let Some(data) = done.data {
            tree.insert("data".to_owned(), data);
        }
        tree.insert("metadata".to_owned(), Value::Object(metadata));
        Answer { tree: Value::Object(tree), done: result == 1 }
    }

    /// In the envelope of UAPI, as it comes back over HTTP.
    #[must_use]
    pub fn uapi(outcome: Result<Value, Refused>) -> Answer {
        let done = outcome.is_ok();
        let (data, errors) = match outcome {
            Ok(data) => (data, Value::Null),
            Err(Refused(reason)) => (Value::Null, json!([reason])),
        };
        let tree = json!({
            "status": u8::from(done),
            "data": data,
            "errors": errors,
            "messages": null,
            "metadata": {},
            "warnings": null,
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
