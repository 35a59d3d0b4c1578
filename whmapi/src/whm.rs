//! The functions of WHM API 1.

use crate::answer::{Answer, Done, Refused};
use crate::{Arguments, Server};

/// Carries out a call.
#[must_use]
pub fn call(_server: &mut Server, function: &str, _arguments: &Arguments) -> Answer {
    let reason = format!("Unknown app (\"{}\") requested for this version (1) of the API.", function.escape_debug());
    Answer::whm(function, Err::<Done, _>(Refused(reason)))
}
