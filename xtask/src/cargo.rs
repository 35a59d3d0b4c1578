//! The cargo that runs us.

use std::env;
use std::ffi::OsString;
use std::process::Command;

/// It, in the workspace, whatever directory we were called from.
pub(crate) fn cargo() -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}
