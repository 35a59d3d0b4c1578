//! What one lookup asks of the kernel, counted.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use xtask::testbed::{Daemon, wait_until};

/// The system calls of a lookup behind its accept, by their names and in their order, for each of several lookups.
fn system_calls_of(question: &[u8], reply: &[u8]) -> Result<Vec<Vec<String>>> {
    let daemon = Daemon::builder().accounts(&["alice"]).start()?;
    daemon.must(&["hold", "alice"])?;
    let record = daemon.home().join("calls");
    let mut tracer = Command::new("strace")
        .args(["--follow-forks", "--output-separately", "--attach", &daemon.id()?.to_string(), "--output"])
        .arg(&record)
        .stderr(Stdio::null())
        .spawn()
        .context("strace counts the calls")?;
    let tasks = format!("/proc/{}/task", daemon.id()?);
    wait_until("strace to watch every thread", Duration::from_secs(10), || {
        let watched = |status: String| !status.lines().any(|line| line == "TracerPid:\t0");
        fs::read_dir(&tasks)?
            .try_fold(true, |all, task| Ok(all && watched(fs::read_to_string(task?.path().join("status"))?)))
    })?;
    for _ in 0..20 {
        // The daemon stands still until the question is all there, as it is when another lookup was before it.
        daemon.signal(Signal::STOP)?;
        let mut stream = UnixStream::connect(daemon.socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(question)?;
        stream.shutdown(Shutdown::Write)?;
        daemon.signal(Signal::CONT)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        assert_eq!(answer, reply);
    }
    kill_process(Pid::from_child(&tracer), Signal::INT)?;
    wait_until("the end of strace", Duration::from_secs(10), || Ok(tracer.try_wait()?.is_some()))?;
    let mut lookups = Vec::new();
    for entry in fs::read_dir(daemon.home())? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("calls.")) {
            lookups.extend(lookups_in(&fs::read_to_string(&path)?));
        }
    }
    // A daemon does not stand still at once: a question that it met before all of it was there is another case.
    lookups.retain(|calls| !calls.iter().any(|call| call == "ppoll" || call == "poll"));
    assert!(lookups.len() >= 5, "of 20 lookups, {} were recorded", lookups.len());
    Ok(lookups)
}

/// The lookups in the record of one thread: what stands between one accept and the next, where something was sent.
fn lookups_in(record: &str) -> Vec<Vec<String>> {
    let names = record.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name.to_owned());
    // Without optimisation, the standard library asks whether a descriptor is open before it closes it.
    let names: Vec<String> = names.filter(|name| name != "fcntl" || !cfg!(debug_assertions)).collect();
    let between = names.split(|name| name == "accept4").skip(1);
    between.filter(|calls| calls.iter().any(|call| call == "sendto")).map(<[String]>::to_vec).collect()
}

#[test]
fn a_lookup_is_accept_receive_send_close() -> Result<()> {
    for calls in system_calls_of(b"check id= alice\n", b"hold")? {
        assert_eq!(calls, ["recvfrom", "sendto", "close"]);
    }
    Ok(())
}

#[test]
fn a_question_without_a_newline_costs_one_more_receive() -> Result<()> {
    for calls in system_calls_of(b"check id= alice", b"hold")? {
        assert_eq!(calls, ["recvfrom", "recvfrom", "sendto", "close"]);
    }
    Ok(())
}

#[test]
fn a_daemon_that_nobody_asks_burns_no_processor() -> Result<()> {
    let daemon = Daemon::builder().start()?;
    let spent = || -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.id()?))?;
        // Behind the name: user and system time are the 12th and 13th, in hundredths of a second (proc(5)).
        let behind = stat.rsplit_once(')').context("no name")?.1;
        let ticks = behind.split_whitespace().skip(11).take(2).map(str::parse::<u64>).collect::<Result<Vec<_>, _>>()?;
        Ok(ticks.iter().sum())
    };
    let before = spent()?;
    // Something that takes a second and does not ask the daemon.
    let mut idle = Command::new("sleep").arg("1").stdout(Stdio::piped()).spawn()?;
    let mut nothing = String::new();
    idle.stdout.take().context("no output")?.read_to_string(&mut nothing)?;
    idle.wait()?;
    let ticks = spent()? - before;
    assert!(ticks <= 1, "{ticks} hundredths of a second in one idle second");
    Ok(())
}
