//! What Exim's `readsocket` does, with something on the socket that we control. The snippets are built on these facts.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use tempfile::TempDir;
use xtask::testbed::exim::Expansion;
use xtask::testbed::{Behaviour, Exim, Impostor, Letter, public_directory};

/// An Exim without any policy, and a stand-in on a socket.
struct Setup {
    exim: Exim,
    impostor: Impostor,
    socket: PathBuf,
    _directory: TempDir,
}

impl Setup {
    fn new(behaviour: Behaviour) -> Result<Self> {
        let directory = public_directory()?;
        let socket = directory.path().join("socket");
        Ok(Self {
            exim: Exim::builder().start()?,
            impostor: Impostor::start(&socket, behaviour)?,
            socket,
            _directory: directory,
        })
    }

    /// `readsocket` with this request and these options, `FAIL` if there is no answer.
    fn asking(&self, request: &str, options: &str) -> String {
        let socket = self.socket.display();
        format!("${{readsocket{{{socket}}}{{{request}}}{{{options}}}{{}}{{FAIL}}}}")
    }

    fn ask(&self, request: &str) -> Result<Expansion> {
        self.exim.expand(&self.asking(request, "2s"))
    }
}

fn text(text: &str) -> Expansion {
    Expansion::Text(text.to_owned())
}

#[test]
fn the_tests_run_on_an_exim_that_the_snippets_are_written_for() -> Result<()> {
    let exim = Exim::builder().start()?;
    let version = exim.expand("$version_number")?;
    println!("Exim {version:?}");
    let Expansion::Text(version) = version else {
        panic!("no version");
    };
    let (major, minor) =
        version.split_once('.').ok_or_else(|| anyhow::anyhow!("a version without a dot: {version}"))?;
    let minor: String = minor.chars().take_while(char::is_ascii_digit).collect();
    assert!((major.parse::<u32>()?, minor.parse::<u32>()?) >= (4, 94), "{version}");
    Ok(())
}

#[test]
fn every_call_opens_a_connection_of_its_own() -> Result<()> {
    let setup = Setup::new(Behaviour::says("ok"))?;
    let ask = setup.asking("check alice", "2s");
    assert_eq!(setup.exim.expand(&format!("{ask} {ask} {ask}"))?, text("ok ok ok"));
    assert_eq!(setup.impostor.connections(), 3);
    Ok(())
}

#[test]
fn the_request_is_sent_without_a_newline_and_then_writing_is_shut_down() -> Result<()> {
    let setup = Setup::new(Behaviour::says("ok"))?;
    // The stand-in answers only after it has read to the end of the request.
    assert_eq!(setup.ask("check alice")?, text("ok"));
    assert_eq!(setup.impostor.questions(), ["check alice"]);
    Ok(())
}

#[test]
fn a_newline_at_the_end_of_the_reply_is_kept() -> Result<()> {
    let setup = Setup::new(Behaviour::says("ok\n"))?;
    let asked = setup.asking("check alice", "2s");
    let compared = format!("${{if eq{{{asked}}}{{ok}}{{equal}}{{different}}}}");
    assert_eq!(setup.exim.expand(&compared)?, text("different"));
    assert_eq!(setup.ask("check alice")?, text("ok\n"));
    Ok(())
}

#[test]
fn an_empty_reply_is_a_success_and_not_a_failure() -> Result<()> {
    let setup = Setup::new(Behaviour::says(""))?;
    assert_eq!(setup.ask("check alice")?, text(""));
    Ok(())
}

#[test]
fn a_peer_that_hangs_up_unheard_yields_an_empty_success_or_the_failure_string() -> Result<()> {
    let setup = Setup::new(Behaviour::HangsUp)?;
    let answer = setup.ask("check alice")?;
    // Which one depends on who is faster; the snippets treat both alike.
    assert!([text(""), text("FAIL")].contains(&answer), "{answer:?}");
    Ok(())
}

#[test]
fn a_refused_connection_yields_the_failure_string() -> Result<()> {
    let setup = Setup::new(Behaviour::says("ok"))?;
    let asked = setup.asking("check alice", "2s");
    drop(setup.impostor);
    assert_eq!(setup.exim.expand(&asked)?, text("FAIL"));
    Ok(())
}

#[test]
fn without_a_failure_string_a_refused_connection_fails_the_whole_expansion() -> Result<()> {
    let exim = Exim::builder().start()?;
    let expansion = exim.expand("before ${readsocket{/nonexistent}{check alice}{2s}} after")?;
    assert!(matches!(expansion, Expansion::Failure(_)), "{expansion:?}");
    Ok(())
}

#[test]
fn a_silent_peer_yields_the_failure_string_when_the_time_is_up() -> Result<()> {
    let setup = Setup::new(Behaviour::Silent)?;
    let started = Instant::now();
    let answer = setup.exim.expand(&setup.asking("check alice", "1s"))?;
    assert_eq!(answer, text("FAIL"));
    assert!(started.elapsed() < Duration::from_secs(5));
    Ok(())
}

#[test]
fn an_answer_in_single_bytes_is_put_together() -> Result<()> {
    let pause = Duration::from_millis(20);
    let setup = Setup::new(Behaviour::Dribbles(b"suspend".to_vec(), pause))?;
    assert_eq!(setup.ask("check alice")?, text("suspend"));
    Ok(())
}

#[test]
fn the_cache_asks_once_for_any_number_of_calls() -> Result<()> {
    let setup = Setup::new(Behaviour::says("hold"))?;
    let ask = setup.asking("check alice", "2s:cache=yes");
    let answers = setup.exim.expand(&format!("{ask} {ask} {ask}"))?;
    assert_eq!(answers, text("hold hold hold"));
    assert_eq!(setup.impostor.connections(), 1);
    Ok(())
}

#[test]
fn the_cache_tells_requests_apart() -> Result<()> {
    let setup = Setup::new(Behaviour::verdicts(&[("alice", "hold")]))?;
    let alice = setup.asking("check alice", "2s:cache=yes");
    let bob = setup.asking("check bob", "2s:cache=yes");
    let answers = setup.exim.expand(&format!("{alice} {bob} {alice}"))?;
    assert_eq!(answers, text("hold ok hold"));
    assert_eq!(setup.impostor.connections(), 2);
    Ok(())
}

#[test]
fn one_call_without_the_cache_empties_it_for_the_same_socket() -> Result<()> {
    let setup = Setup::new(Behaviour::says("hold"))?;
    let cached = setup.asking("check alice", "2s:cache=yes");
    let fresh = setup.asking("check bob", "2s");
    let answers = setup.exim.expand(&format!("{cached} {cached} {fresh} {cached}"))?;
    assert_eq!(answers, text("hold hold hold hold"));
    assert_eq!(setup.impostor.questions(), ["check alice", "check bob", "check alice"]);
    Ok(())
}

#[test]
fn the_cache_ends_with_its_process() -> Result<()> {
    let setup = Setup::new(Behaviour::says("hold"))?;
    let ask = setup.asking("check alice", "2s:cache=yes");
    setup.exim.expand(&ask)?;
    setup.exim.expand(&ask)?;
    assert_eq!(setup.impostor.connections(), 2);
    Ok(())
}

#[test]
fn a_request_may_contain_what_came_from_outside() -> Result<()> {
    let setup = Setup::new(Behaviour::says("ok"))?;
    let letter = Letter::new("alice@local.test", &[]).subject("mallory");
    let ask = setup.asking("check $h_subject:", "2s");
    assert_eq!(setup.exim.expand_with(&letter, &ask)?, text("ok"));
    assert_eq!(setup.impostor.questions(), ["check mallory"]);
    Ok(())
}

#[test]
fn the_path_may_not_contain_what_came_from_outside() -> Result<()> {
    let setup = Setup::new(Behaviour::says("ok"))?;
    let letter = Letter::new("alice@local.test", &[]).subject(&setup.socket.to_string_lossy());
    let ask = "${readsocket{$h_subject:}{check alice}{2s}{}{FAIL}}";
    assert_eq!(setup.exim.expand_with(&letter, ask)?, text("FAIL"));
    assert_eq!(setup.impostor.connections(), 0);
    Ok(())
}

#[test]
fn a_path_longer_than_107_bytes_is_cut_without_a_word() -> Result<()> {
    let directory = public_directory()?;
    let cut = path_of_length(directory.path(), 107);
    let _impostor = Impostor::start(&cut, Behaviour::says("another socket"))?;
    let exim = Exim::builder().start()?;
    let longer = format!("{}-and-more", cut.display());
    let ask = format!("${{readsocket{{{longer}}}{{check alice}}{{2s}}{{}}{{FAIL}}}}");
    assert_eq!(exim.expand(&ask)?, text("another socket"));
    Ok(())
}

fn path_of_length(directory: &Path, length: usize) -> PathBuf {
    let so_far = directory.as_os_str().as_bytes().len() + 1;
    directory.join("s".repeat(length - so_far))
}
