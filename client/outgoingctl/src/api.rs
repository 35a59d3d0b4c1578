//! `whmapi1` and `uapi`: functions of WHM API 1 and of UAPI, for scripts that call them by these names.
//!
//! Whatever becomes of a call stands in its answer, on standard output; standard error is for wrong usage.

use crate::Failure;
use crate::arguments::Call;
use crate::tools::Tools;
use outgoingd_whmapi::answer::Refused;
use outgoingd_whmapi::{Answer, Arguments, Format, Outgoingctl, Queue, Server, render, uapi, whm};
use std::env;
use std::ffi::OsString;
use std::path::Path;

/// The names under which this program is one of these commands.
const NAMES: [&str; 2] = ["whmapi1", "uapi"];

/// The words of the command line, with the name under which the program was started as its command if it is one of [`NAMES`].
pub(crate) fn words(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let name = words.first().and_then(|word| Path::new(word).file_name()?.to_str());
    if let Some(name) = NAMES.into_iter().find(|known| name == Some(known)) {
        words.splice(..1, ["outgoingctl".into(), name.into()]);
    }
    words
}

pub(crate) fn whm(tools: &mut Tools, Call { output, function, arguments }: &Call) -> Result<(), Failure> {
    let answer = match read(arguments) {
        Ok(arguments) => whm::call(&mut server(tools)?, function, &arguments),
        Err(refused) => Answer::whm(function, Err(refused)),
    };
    print(tools, &answer, *output)
}

/// `user` is the account on whose behalf it is; none: any.
pub(crate) fn uapi(tools: &mut Tools, user: Option<&str>, module: &str, call: &Call) -> Result<(), Failure> {
    let Call { output, function, arguments } = call;
    let answer = match read(arguments) {
        Ok(arguments) => uapi::call(&mut server(tools)?, module, function, user, &arguments),
        Err(refused) => Answer::uapi(Err(refused)),
    };
    print(tools, &answer.with_call(module, function), *output)
}

fn read(words: &[String]) -> Result<Arguments, Refused> {
    Arguments::from_words(words.iter().map(String::as_str)).map_err(|error| Refused(error.to_string()))
}

/// What a call works on: the daemon, and this program itself for what concerns Exim's queue.
fn server(tools: &mut Tools) -> Result<Server<'_>, Failure> {
    let program =
        env::current_exe().map_err(|source| Failure::Io { what: "cannot find this program".to_owned(), source })?;
    let (socket, exim, on_behalf_of) = (tools.socket.clone(), tools.program.clone(), tools.on_behalf_of.clone());
    let queue = Queue::Command(Outgoingctl { program, socket, exim, on_behalf_of });
    Ok(Server { client: &mut tools.client, queue })
}

fn print(tools: &mut Tools, answer: &Answer, format: Option<Format>) -> Result<(), Failure> {
    let unless_said = if tools.output.json { Format::Json } else { Format::Yaml };
    let format = format.unwrap_or(unless_said);
    tools.output.text(&render::render(&answer.tree, format))?;
    if answer.done { Ok(()) } else { tools.output.flush().and(Err(Failure::Answered)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_another_name_it_is_another_command() {
        let read = |raw: &[&str]| words(raw.iter().map(OsString::from));
        assert_eq!(read(&["/usr/local/bin/whmapi1", "version"]), ["outgoingctl", "whmapi1", "version"]);
        assert_eq!(read(&["uapi"]), ["outgoingctl", "uapi"]);
        for same in [&["/usr/bin/outgoingctl", "uapi"][..], &["/whmapi1/outgoingctl", "list"], &[]] {
            assert_eq!(read(same), same);
        }
    }
}
