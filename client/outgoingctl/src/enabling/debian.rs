//! Debian's split configuration: composing it aside and for good, having Exim check it, showing what differs, and reloading Exim.
//!
//! The programs that run here are in process groups of their own, so that Ctrl-C on a terminal is heard by us alone and never cuts
//! one of them short.

use super::files::{CONF_D, Change, cannot};
use super::home::{ANSWERS, COMPOSED, COMPOSER, DEBIAN};
use super::parts::{OPTIONS, set_twice, unused, value};
use crate::Failure;
use outgoingd_client::exim::Configuration;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// What the configuration would be.
pub(super) struct Candidate {
    directory: TempDir,
    /// Whether it would be another one.
    pub(super) differs: bool,
}

impl Candidate {
    /// Composes it in a directory that root alone may enter, of links to the files that stay and of those that are to be written.
    pub(super) fn compose(changes: &[Change]) -> Result<Candidate, Failure> {
        let failed = |source| Failure::Io { what: "cannot make a directory to compose in".to_owned(), source };
        let directory = tempfile::Builder::new().prefix("outgoingctl-").tempdir().map_err(failed)?;
        let base = directory.path().join("exim4");
        lay(&base, changes).map_err(failed)?;
        let composed = directory.path().join("composed");
        let words = [Path::new("--confdir"), &base, Path::new("--output"), &composed];
        let answer = run(Command::new(COMPOSER).args(words).env("TMPDIR", directory.path()))?;
        if !answer.status.success() {
            return Err(refused(&said(&answer)));
        }
        let text = fs::read(&composed).map_err(|error| cannot("read", &composed, error))?;
        // It says in itself what it is composed of.
        let text = replace(&text, base.as_os_str().as_bytes(), DEBIAN.as_bytes());
        fs::write(&composed, &text).map_err(|error| cannot("write", &composed, error))?;
        let differs = fs::read(COMPOSED).map_or(true, |now| now != text);
        Ok(Candidate { directory, differs })
    }

    /// What Exim says of it, if it does not accept it, with the line that it names.
    pub(super) fn accepted(&self, exim: &Configuration) -> Result<Result<(), String>, Failure> {
        let composed = self.directory.path().join("composed");
        Ok(exim.with(&composed).accepted()?.map_err(|said| {
            let text = fs::read(&composed).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let said = said.replace(&*composed.to_string_lossy(), "what was composed");
            let number =
                said.split_once(" in line ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok());
            match number.and_then(|number| text.lines().nth(number.checked_sub(1)?)) {
                Some(line) => format!("{said} (that line: \"{}\")", line.trim()),
                None => said,
            }
        }))
    }

    /// Whether outgoingd's parts are in use with it.
    pub(super) fn in_use(&self, exim: &Configuration) -> Result<Result<(), String>, Failure> {
        in_use(&exim.with(&self.directory.path().join("composed")))
    }

    /// How it differs from what is in use now: first the files of ours, then all that is composed of them.
    pub(super) fn difference(&self, changes: &[Change]) -> Result<String, Failure> {
        let files = difference(changes, &self.directory.path().join("exim4/conf.d"))?;
        Ok(files + &diff(Path::new(COMPOSED), &self.directory.path().join("composed"), COMPOSED)?)
    }
}

/// How the files of ours differ from those below `base`, which are not there if they are to be removed.
pub(super) fn difference(changes: &[Change], base: &Path) -> Result<String, Failure> {
    let mut difference = String::new();
    for Change { name, .. } in changes {
        difference += &diff(&Path::new(CONF_D).join(name), &base.join(name), &format!("{CONF_D}/{name}"))?;
    }
    Ok(difference)
}

/// What Debian's program reads, with the changes made.
fn lay(base: &Path, changes: &[Change]) -> std::io::Result<()> {
    fs::create_dir(base)?;
    symlink(Path::new(DEBIAN).join(ANSWERS), base.join(ANSWERS))?;
    let conf_d = base.join("conf.d");
    fs::create_dir(&conf_d)?;
    for section in fs::read_dir(CONF_D)? {
        let section = section?;
        if !section.path().is_dir() {
            continue;
        }
        fs::create_dir(conf_d.join(section.file_name()))?;
        for file in fs::read_dir(section.path())? {
            let file = file?.path();
            if !changes.iter().any(|change| change.path() == file) {
                symlink(&file, conf_d.join(section.file_name()).join(file.file_name().unwrap_or_default()))?;
            }
        }
    }
    for change in changes {
        if let Some(text) = &change.text {
            fs::write(conf_d.join(change.name), text)?;
        }
    }
    Ok(())
}

/// One text in place of another, wherever it stands. A configuration may be in any character set.
fn replace(mut text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(text.len());
    while let Some(position) = text.windows(from.len()).position(|window| window == from) {
        replaced.extend_from_slice(&text[..position]);
        replaced.extend_from_slice(to);
        text = &text[position + from.len()..];
    }
    replaced.extend_from_slice(text);
    replaced
}

/// Composes for good. Debian's program has Exim check it first.
pub(super) fn compose() -> Result<(), Failure> {
    let answer = run(&mut Command::new(COMPOSER))?;
    if answer.status.success() { Ok(()) } else { Err(refused(&said(&answer))) }
}

/// Whether Exim uses our ACLs, our options and our router; if not, what is in the way.
pub(super) fn in_use(exim: &Configuration) -> Result<Result<(), String>, Failure> {
    let said = exim.print(&OPTIONS)?.map(|options| (options, exim.print(&["router_list"]), exim.print(&["config"])));
    let (options, routers, configuration) = match said {
        Ok((options, routers, configuration)) => (options, routers?, configuration?),
        Err(said) => return Ok(Err(said)),
    };
    if let Some(what) = unused(&options) {
        return Ok(Err(what));
    }
    if let Some(twice) = configuration.ok().and_then(|configuration| set_twice(&configuration)) {
        return Ok(Err(twice));
    }
    if !value(&options, "hold_domains").contains("acl_m_outgoingd_verdict") {
        return Ok(Err("hold_domains is not outgoingd's".to_owned()));
    }
    Ok(match routers {
        Ok(routers) if routers.lines().any(|router| router == "outgoingd") => Ok(()),
        Ok(_) => Err("outgoingd's router is not among the routers".to_owned()),
        Err(said) => Err(said),
    })
}

/// What became of an Exim that may be running.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reloaded {
    /// It reads the new configuration.
    Yes,
    /// It does not run.
    NotRunning,
    /// Whether it runs is not for us to know.
    Unknown,
}

/// Has systemd tell Exim to read its configuration again.
pub(super) fn reload() -> Result<Reloaded, Failure> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Ok(Reloaded::Unknown);
    }
    if !run(Command::new("systemctl").args(["is-active", "--quiet", "exim4"]))?.status.success() {
        return Ok(Reloaded::NotRunning);
    }
    let answer = run(Command::new("systemctl").args(["reload", "exim4"]))?;
    if answer.status.success() {
        return Ok(Reloaded::Yes);
    }
    Err(Failure::Some(format!("systemctl reload exim4 failed: {}", said(&answer))))
}

fn refused(said: &str) -> Failure {
    Failure::Some(format!("{COMPOSER} refuses: {said}"))
}

/// Both files, as diff(1) shows them side by side; one that is not there is empty.
fn diff(now: &Path, then: &Path, name: &str) -> Result<String, Failure> {
    let [now_there, then_there] = [now, then].map(Path::exists);
    let nothing = Path::new("/dev/null");
    let label = |there: bool, state: &str| if there { format!("{name} ({state})") } else { "/dev/null".to_owned() };
    let mut command = Command::new("diff");
    command.args(["-u", "--label", &label(now_there, "now"), "--label", &label(then_there, "then")]);
    command.arg(if now_there { now } else { nothing }).arg(if then_there { then } else { nothing });
    let answer = run(&mut command)?;
    match answer.status.code() {
        Some(0 | 1) => Ok(String::from_utf8_lossy(&answer.stdout).into_owned()),
        _ => Err(Failure::Some(format!("diff failed: {}", said(&answer)))),
    }
}

fn run(command: &mut Command) -> Result<Output, Failure> {
    let command = command.env("LC_ALL", "C").process_group(0).stdin(Stdio::null());
    command.output().map_err(|source| {
        let program = command.get_program().display();
        let missing = if source.kind() == ErrorKind::NotFound { " (is it installed?)" } else { "" };
        Failure::Io { what: format!("cannot run {program}{missing}"), source }
    })
}

/// In one line, what a program complained of.
fn said(answer: &Output) -> String {
    let said = String::from_utf8_lossy(&answer.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    if said.is_empty() { format!("it ended with {} and said nothing", answer.status) } else { said }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mention_is_replaced_and_every_other_byte_stays() {
        assert_eq!(replace(b"/a/x \xfc /a/y", b"/a", b"/etc"), b"/etc/x \xfc /etc/y");
        assert_eq!(replace(b"", b"/a", b"/etc"), b"");
    }
}
