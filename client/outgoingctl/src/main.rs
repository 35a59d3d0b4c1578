//! outgoingctl: the program. What it does is in the library, since manual page and completions are made from its definition.

use std::process::ExitCode;

fn main() -> ExitCode {
    outgoingctl::run()
}
