//! The functions of UAPI's module Email.

use crate::answer::{Answer, Refused};
use crate::{Arguments, Server};

/// Carries out a call. `account` is the cPanel account on whose behalf it is, which may speak for its own mailboxes only; none: any.
#[must_use]
pub fn call(
    _server: &mut Server,
    module: &str,
    function: &str,
    _account: Option<&str>,
    _arguments: &Arguments,
) -> Answer {
    Answer::uapi(Err(Refused(format!("there is no function {function} in module {module}"))))
}
