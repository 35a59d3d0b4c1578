//! What the daemon needs: a user of its own and nothing else. What others can plant where it writes: nothing that it follows.

use anyhow::{Result, ensure};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use xtask::testbed::Daemon;

/// Runs a program as a user with one group.
fn run_as(user: &str, group: &str, command: &[&str]) -> Result<Output> {
    let mut setpriv = Command::new("setpriv");
    setpriv.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).args(["--clear-groups", "--"]);
    Ok(setpriv.args(command).output()?)
}

#[test]
fn without_any_privilege_it_does_all_that_it_is_for() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice", "carol"]).unprivileged().start()?;
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id()?))?;
    for none in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{none}:\t0000000000000000\n")), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Uid:\t65534\t65534\t65534\t65534\n"), "{status}");
    daemon.must(&["hold", "alice"])?;
    daemon.kill9()?;
    daemon.start_again()?;
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"));
    daemon.reload()?;
    daemon.must(&["suspend", "carol", "--notice", "call 555"])?;
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn the_state_is_the_daemons_alone_and_the_fallback_file_exims_to_read_and_nobodys_to_write() -> Result<()> {
    let daemon = Daemon::builder().accounts(&["alice"]).unprivileged().start()?;
    daemon.must(&["hold", "alice"])?;
    let state = daemon.home().join("state");
    assert_eq!(fs::metadata(&state)?.mode() & 0o7777, 0o700, "whatever it was before");
    for file in fs::read_dir(&state)? {
        let file = file?;
        assert_eq!(file.metadata()?.mode() & 0o077, 0, "{:?}", file.path());
    }
    let fallback = daemon.fallback().display().to_string();
    let exim = |command: &[&str]| run_as("Debian-exim", "Debian-exim", command);
    let stranger = |command: &[&str]| run_as("games", "games", command);
    assert!(exim(&["cat", &fallback])?.status.success());
    assert!(!stranger(&["cat", &fallback])?.status.success());
    let beside = format!("{fallback}.new");
    for command in [&["cp", "/dev/null", &fallback][..], &["rm", "-f", &fallback], &["touch", &beside]] {
        assert!(!exim(command)?.status.success(), "Exim's user may {command:?}");
        assert!(!stranger(command)?.status.success(), "a stranger may {command:?}");
    }
    assert!(!exim(&["ls", &state.display().to_string()])?.status.success());
    assert!(fs::read_to_string(&fallback)?.contains("alice: hold"));
    Ok(())
}

#[test]
fn a_directory_where_somebody_else_could_put_a_file_is_refused_in_words() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice"]).start()?;
    daemon.must(&["hold", "alice"])?;
    daemon.stop()?;
    let home = daemon.home();
    for directory in [home.join("state"), home.to_path_buf(), home.join("exim")] {
        let well = fs::metadata(&directory)?.permissions();
        fs::set_permissions(&directory, Permissions::from_mode(0o777))?;
        let refused = daemon.run_to_its_end(&[])?;
        let words = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(73), "{words}");
        assert!(words.contains("chmod go-w"), "{words}");
        fs::set_permissions(&directory, well)?;

        ensure!(Command::new("chown").arg("games").arg(&directory).status()?.success());
        let refused = daemon.run_to_its_end(&[])?;
        let words = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(73), "{words}");
        assert!(words.contains("belongs to uid"), "{words}");
        ensure!(Command::new("chown").arg("root").arg(&directory).status()?.success());
    }
    daemon.start_again()?;
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"));
    Ok(())
}

#[test]
fn links_where_it_writes_are_refused_or_replaced_and_what_they_point_to_stays_as_it_is() -> Result<()> {
    let precious = |daemon: &Daemon| daemon.home().join("precious");
    let plant = |daemon: &Daemon, name: &str| -> Result<()> {
        fs::write(precious(daemon), "precious")?;
        fs::set_permissions(precious(daemon), Permissions::from_mode(0o600))?;
        let place = daemon.home().join(name);
        let _ = fs::remove_file(&place);
        Ok(symlink(precious(daemon), place)?)
    };
    let is_untouched = |daemon: &Daemon, name: &str| -> Result<()> {
        assert_eq!(fs::read_to_string(precious(daemon))?, "precious", "through {name}");
        assert_eq!(fs::metadata(precious(daemon))?.mode() & 0o7777, 0o600, "through {name}");
        Ok(())
    };
    for (name, code) in
        [("socket", 78), ("socket.lock", 73), ("state/lock", 73), ("state/state.redb", 78), ("state/state.journal", 78)]
    {
        let mut daemon = Daemon::builder().accounts(&["alice"]).start()?;
        daemon.must(&["hold", "alice"])?;
        daemon.stop()?;
        plant(&daemon, name)?;
        let refused = daemon.run_to_its_end(&[])?;
        assert_eq!(refused.status.code(), Some(code), "{name}: {}", String::from_utf8_lossy(&refused.stderr));
        is_untouched(&daemon, name)?;
    }
    let replaced = [
        "exim/fallback",
        "exim/fallback.new",
        "exim/fallback.before",
        "state/state.redb.new",
        "state/state.journal.new",
    ];
    for name in replaced {
        let mut daemon = Daemon::builder().accounts(&["alice"]).start()?;
        daemon.must(&["hold", "alice"])?;
        daemon.stop()?;
        plant(&daemon, name)?;
        // A new state, so that everything is written again.
        fs::remove_file(daemon.home().join("state/state.redb"))?;
        fs::remove_file(daemon.home().join("state/state.journal"))?;
        daemon.start_again()?;
        daemon.must(&["hold", "alice"])?;
        is_untouched(&daemon, name)?;
        assert!(fs::read_to_string(daemon.fallback())?.contains("alice: hold"));
        assert!(is_no_link(&daemon.fallback())?);
    }
    Ok(())
}

#[test]
fn a_link_that_somebody_can_make_point_elsewhere_is_followed_once() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice"]).start()?;
    daemon.must(&["hold", "alice"])?;
    daemon.stop()?;
    let (home, real) = (daemon.home().to_path_buf(), daemon.home().join("exim"));
    let (theirs, elsewhere) = (home.join("theirs"), home.join("elsewhere"));
    fs::create_dir(&theirs)?;
    ensure!(Command::new("chown").arg("games").arg(&theirs).status()?.success());
    fs::create_dir(&elsewhere)?;
    symlink(&real, theirs.join("link"))?;
    let configuration = fs::read_to_string(daemon.configuration())?;
    let through = configuration.replace(&real.display().to_string(), &theirs.join("link").display().to_string());
    ensure!(through != configuration, "{configuration}");
    fs::write(daemon.configuration(), through)?;
    daemon.start_again()?;
    fs::remove_file(theirs.join("link"))?;
    symlink(&elsewhere, theirs.join("link"))?;
    daemon.must(&["release", "--keep", "alice"])?;
    daemon.must(&["hold", "alice"])?;
    assert_eq!(fs::read_dir(&elsewhere)?.count(), 0);
    assert!(fs::read_to_string(real.join("fallback"))?.contains("alice: hold"));
    Ok(())
}

#[test]
fn a_directory_is_not_made_where_somebody_else_could_replace_it() -> Result<()> {
    let mut daemon = Daemon::builder().start()?;
    daemon.stop()?;
    let open = daemon.home().join("open");
    fs::create_dir(&open)?;
    fs::set_permissions(&open, Permissions::from_mode(0o777))?;
    let state = open.join("state");
    let refused = daemon.run_to_its_end(&["--state-dir", &state.display().to_string()])?;
    assert_eq!(refused.status.code(), Some(73), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(!state.exists());
    Ok(())
}

fn is_no_link(path: &Path) -> Result<bool> {
    Ok(fs::symlink_metadata(path)?.is_file())
}
