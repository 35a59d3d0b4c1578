//! The daemon as a service: what it tells the service manager, sockets that are handed to it, reloading, stopping.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use xtask::testbed::{Attack, Daemon, Hostile, User, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);

fn ask(daemon: &Daemon, request: &str) -> Result<String> {
    let mut stream = UnixStream::connect(daemon.socket())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}

fn status(daemon: &mut Daemon) -> Result<String> {
    let last = daemon.notifications()?.iter().rev().find(|line| line.starts_with("STATUS="));
    Ok(last.context("no STATUS yet")?.clone())
}

/// A process of the test's, which ends with it.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_first_lookup_behind_ready_is_answered() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice"]).start()?;
    daemon.must(&["hold", "alice"])?;
    for _ in 0..5 {
        daemon.restart()?;
        assert_eq!(ask(&daemon, "check alice")?, "hold");
    }
    Ok(())
}

#[test]
fn the_status_line_counts_what_a_person_wants_to_see() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice", "carol"]).start()?;
    daemon.must(&["hold", "alice"])?;
    daemon.must(&["suspend", "carol"])?;
    ask(&daemon, "check alice")?;
    daemon.reload()?;
    let status = status(&mut daemon)?;
    assert!(status.starts_with("STATUS=1 held, 1 suspended; 1 lookups"), "{status}");
    Ok(())
}

#[test]
fn a_reload_is_told_with_its_moment_and_its_end() -> Result<()> {
    let mut daemon = Daemon::builder().start()?;
    daemon.reload()?;
    let told = daemon.notifications()?.join("\n");
    let moment = told
        .lines()
        .position(|line| line.strip_prefix("MONOTONIC_USEC=").is_some_and(|usec| usec.parse::<u64>().is_ok()));
    let reloading = told.lines().position(|line| line == "RELOADING=1");
    let ready = told.lines().position(|line| line == "READY=1");
    assert!(moment.is_some() && reloading < ready && moment < ready, "{told}");
    Ok(())
}

#[test]
fn a_wrong_configuration_leaves_the_running_daemon_as_it_is_and_shows_in_its_status() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice"]).start()?;
    let good = fs::read_to_string(daemon.configuration())?;
    fs::write(daemon.configuration(), format!("colour = 'blue'\n{good}"))?;
    daemon.reload()?;
    let shown = status(&mut daemon)?;
    assert!(shown.contains("colour") && shown.contains("outgoingd.toml") && shown.contains("expected"), "{shown}");
    daemon.must(&["hold", "alice"])?;
    fs::write(daemon.configuration(), good)?;
    daemon.reload()?;
    assert!(!status(&mut daemon)?.contains("colour"));
    Ok(())
}

#[test]
fn a_configuration_that_is_replaced_is_read_without_a_word_from_anybody() -> Result<()> {
    let daemon = Daemon::builder().accounts(&["alice"]).start()?;
    daemon.must(&["hold", "alice"])?;
    let good = fs::read_to_string(daemon.configuration())?;
    // As an editor saves: another file under the old name.
    let new = daemon.home().join("new");
    fs::write(&new, format!("mail-send = false\n{good}"))?;
    fs::rename(&new, daemon.configuration())?;
    wait_until("the role to be off", PATIENCE, || Ok(daemon.ctl(&["hold", "alice"])?.stderr.contains("MailSend")))?;
    let verbs: [&[&str]; 4] = [&["hold"], &["release", "--keep"], &["suspend"], &["unsuspend"]];
    for verb in verbs {
        let refused = daemon.ctl(&[verb, &["alice"]].concat())?;
        assert!(refused.code() == 1 && refused.stderr.contains("MailSend role is off"), "{refused:?}");
    }
    Ok(())
}

#[test]
fn owners_that_cannot_be_read_when_they_are_named_leave_it_as_it_was_without_any() -> Result<()> {
    let mut daemon = Daemon::builder().start()?;
    let file = daemon.configuration();
    let text = fs::read_to_string(&file)?;
    let owners = text.lines().find(|line| line.starts_with("owners = ")).context("no owners")?;
    fs::write(&file, text.replace(owners, ""))?;
    daemon.restart()?;
    fs::write(&file, text.replace(owners, "owners = '/nonexistent/owners'"))?;
    // Once more, when that is what the configuration says already.
    for subject in ["bob@shop.test", "carol@shop.test"] {
        daemon.reload()?;
        daemon.must(&["hold", subject])?;
        let shown = status(&mut daemon)?;
        assert!(shown.contains("/nonexistent/owners"), "{shown}");
    }
    Ok(())
}

#[test]
fn accounts_and_owners_are_followed_and_a_wrong_list_keeps_the_last_good_one() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice"]).owner("shop.test", "alice").start()?;
    daemon.must(&["hold", "alice"])?;
    assert_eq!(ask(&daemon, "check bob@shop.test")?, "hold");
    fs::write(daemon.home().join("accounts"), "alice\nnewcomer\n")?;
    wait_until("the new account", PATIENCE, || Ok(daemon.ctl(&["hold", "newcomer"])?.code() == 0))?;
    fs::write(daemon.home().join("owners"), "shop.test: newcomer\nnew.test: alice\n")?;
    wait_until("the new owner", PATIENCE, || Ok(ask(&daemon, "check bob@new.test")? == "hold"))?;
    daemon.must(&["release", "--keep", "newcomer"])?;
    assert_eq!(ask(&daemon, "check bob@shop.test")?, "ok");
    wait_until("the fallback file", PATIENCE, || {
        Ok(fs::read_to_string(daemon.fallback())?.contains("*@new.test: hold"))
    })?;

    fs::write(daemon.home().join("owners"), "no colon here\n")?;
    daemon.reload()?;
    assert_eq!(ask(&daemon, "check bob@new.test")?, "hold", "the last good map stays in force");
    let shown = status(&mut daemon)?;
    assert!(shown.contains("owners") && shown.contains("line 1"), "{shown}");
    fs::remove_file(daemon.home().join("accounts"))?;
    daemon.reload()?;
    daemon.must(&["hold", "newcomer"])?;
    Ok(())
}

#[test]
fn a_signal_right_behind_ready_finds_its_handler() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice"]).start()?;
    for _ in 0..10 {
        daemon.stop()?;
        daemon.start_again()?;
        daemon.reload()?;
    }
    assert_eq!(ask(&daemon, "check alice")?, "ok");
    Ok(())
}

#[test]
fn a_directory_of_accounts_that_is_replaced_is_followed() -> Result<()> {
    let daemon = Daemon::builder().start()?;
    let users = daemon.home().join("users");
    fs::create_dir(&users)?;
    let configuration = fs::read_to_string(daemon.configuration())?;
    let accounts = daemon.home().join("accounts").display().to_string();
    let changed = configuration
        .replace("source = 'file'", "source = 'directory'")
        .replace(&accounts, &users.display().to_string());
    fs::write(daemon.configuration(), changed)?;
    for round in 0..3 {
        for name in ["first", "second"] {
            let name = format!("{name}{round}");
            fs::write(users.join(&name), "")?;
            wait_until(&name, PATIENCE, || Ok(daemon.ctl(&["hold", &name])?.code() == 0))?;
        }
        fs::remove_dir_all(&users)?;
        fs::create_dir(&users)?;
    }
    Ok(())
}

#[test]
fn an_owner_map_that_is_emptied_keeps_the_last_good_one() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice"]).owner("shop.test", "alice").start()?;
    daemon.must(&["hold", "alice"])?;
    fs::write(daemon.home().join("owners"), "")?;
    daemon.reload()?;
    assert_eq!(ask(&daemon, "check bob@shop.test")?, "hold");
    assert!(status(&mut daemon)?.contains("is empty and had 1 domains before"));
    Ok(())
}

#[test]
fn a_stop_does_not_wait_for_an_administrator_who_never_stops_asking() -> Result<()> {
    let mut daemon = Daemon::builder().start()?;
    let socket = daemon.socket();
    let asking = std::thread::spawn(move || {
        let mut client = outgoingd_client::Client::new(socket);
        while client.stats().is_ok() {}
    });
    let begun = Instant::now();
    assert!(daemon.stop()?.success());
    assert!(begun.elapsed() < Duration::from_secs(10));
    asking.join().map_err(|_| anyhow::anyhow!("the asking thread panicked"))?;
    Ok(())
}

#[test]
fn what_was_accepted_is_finished_before_the_daemon_stops() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice"]).tables("[limits]\nrequest-deadline-ms = 10000").start()?;
    daemon.must(&["hold", "alice"])?;
    let mut slow = UnixStream::connect(daemon.socket())?;
    slow.set_read_timeout(Some(PATIENCE))?;
    slow.write_all(b"check al")?;
    // Answered behind the slow one, so the slow one has been accepted.
    ask(&daemon, "check alice")?;
    daemon.signal(Signal::TERM)?;
    daemon.wait_for("STOPPING=1")?;
    slow.write_all(b"ice\n")?;
    let mut reply = String::new();
    slow.read_to_string(&mut reply)?;
    assert_eq!(reply, "hold");
    assert!(daemon.wait_for_exit()?.success());
    Ok(())
}

#[test]
fn a_stop_does_not_wait_for_an_administrator_who_says_nothing() -> Result<()> {
    let mut daemon = Daemon::builder().tables("[limits]\nrequest-deadline-ms = 10000").start()?;
    let mut client = outgoingd_client::Client::new(daemon.socket());
    client.stats()?;
    let begun = Instant::now();
    assert!(daemon.stop()?.success());
    assert!(begun.elapsed() < Duration::from_secs(5));
    Ok(())
}

/// Waits for four signs of life from a daemon whose watchdog wants one so often.
fn kept_quiet(daemon: &mut Daemon, period: Duration, meanwhile: impl FnOnce(&Daemon) -> Result<()>) -> Result<()> {
    daemon.stop()?;
    let manager = UnixDatagram::bind(daemon.home().join("watching"))?;
    manager.set_read_timeout(Some(PATIENCE))?;
    let _running = Ending(
        Command::new(daemon.program("outgoingd"))
            .arg("--config")
            .arg(daemon.configuration())
            .env("NOTIFY_SOCKET", daemon.home().join("watching"))
            .env("WATCHDOG_USEC", period.as_micros().to_string())
            .env_remove("WATCHDOG_PID")
            .spawn()?,
    );
    let hear = |what: &str| -> Result<()> {
        let mut datagram = [0; 4096];
        loop {
            match manager.recv(&mut datagram) {
                Ok(length) if String::from_utf8_lossy(&datagram[..length]).lines().any(|line| line == what) => {
                    return Ok(());
                }
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
        }
    };
    hear("READY=1")?;
    meanwhile(daemon)?;
    hear("WATCHDOG=1")?;
    for _ in 0..3 {
        let last = Instant::now();
        hear("WATCHDOG=1")?;
        let gap = last.elapsed();
        assert!(gap < period, "{gap:?} between two signs of life, where the watchdog wants one every {period:?}");
    }
    Ok(())
}

#[test]
fn the_watchdog_is_kept_quiet() -> Result<()> {
    kept_quiet(&mut Daemon::builder().start()?, Duration::from_secs(1), |_| Ok(()))
}

#[test]
fn the_watchdog_is_kept_quiet_while_a_neighbour_connects_as_fast_as_it_can() -> Result<()> {
    let (mut daemon, mut storm) = (Daemon::builder().start()?, None);
    kept_quiet(&mut daemon, Duration::from_secs(3), |daemon| {
        storm = Some(Hostile::start(User::named("games", "Debian-exim")?, Attack::Storm, 4, &daemon.socket())?);
        Ok(())
    })?;
    // The daemon is gone by now, so that connecting fails.
    let connections = storm.map_or(0, |storm| storm.connections());
    assert!(connections > 1_000, "{connections} connections are no storm");
    Ok(())
}

#[test]
fn a_socket_that_is_handed_over_is_used_and_left_in_its_place() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice"]).start()?;
    daemon.must(&["hold", "alice"])?;
    daemon.stop()?;
    // Listens as systemd does, and starts the daemon at the first connection, which waits for it.
    let activator = Command::new("systemd-socket-activate")
        .arg("--listen")
        .arg(daemon.socket())
        .arg(daemon.program("outgoingd"))
        .arg("--config")
        .arg(daemon.configuration())
        .spawn();
    let running = Ending(activator.context("systemd-socket-activate is part of the package systemd")?);
    wait_until("the socket", PATIENCE, || Ok(ask(&daemon, "check alice").is_ok_and(|reply| reply == "hold")))?;
    assert!(daemon.must(&["list"])?.contains("alice"));
    // The activator has become the daemon.
    let mut running = running;
    kill_process(Pid::from_child(&running.0), Signal::TERM)?;
    wait_until("its end", PATIENCE, || Ok(running.0.try_wait()?.is_some()))?;
    assert!(running.0.wait()?.success());
    assert!(daemon.socket().exists(), "the socket is not the daemon's to remove");
    Ok(())
}

#[test]
fn a_configuration_is_checked_without_starting_anything() -> Result<()> {
    let daemon = Daemon::builder().accounts(&["alice"]).start()?;
    let check =
        |path: &std::path::Path| Command::new(daemon.program("outgoingd")).arg("--check-config").arg(path).output();
    let good = check(&daemon.configuration())?;
    assert!(good.status.success() && good.stdout.ends_with(b": ok\n"), "{good:?}");
    let wrong = daemon.home().join("wrong.toml");
    for (text, words) in [
        ("socket-mode = 660", "socket-mode"),
        ("[limits]\nmax-connections = 1", "limits.max-connections = 1: expected 8 to 65536"),
        ("[accounts]\nsource = 'file'\npath = '/nonexistent/accounts'", "/nonexistent/accounts"),
        ("[domains]\nowners = 'here'", "absolute"),
        ("fallbackfile = '/x'", "fallbackfile"),
    ] {
        fs::write(&wrong, text)?;
        let refused = check(&wrong)?;
        let shown = String::from_utf8(refused.stderr)?;
        assert_eq!(refused.status.code(), Some(78), "{shown}");
        assert!(shown.contains(words), "{shown}");
    }
    Ok(())
}

#[test]
fn wrong_usage_is_exit_status_2() -> Result<()> {
    let daemon = Daemon::builder().start()?;
    for program in ["outgoingd", "outgoingctl"] {
        let refused = Command::new(daemon.program(program)).arg("--colour").output()?;
        ensure!(refused.status.code() == Some(2), "{refused:?}");
        let helped = Command::new(daemon.program(program)).arg("--help").output()?;
        ensure!(helped.status.success() && String::from_utf8(helped.stdout)?.contains("Exit status"));
    }
    Ok(())
}
