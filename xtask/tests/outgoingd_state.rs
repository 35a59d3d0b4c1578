//! What was acknowledged is there again, whatever happened in between; and a state that makes no sense stops the daemon.

use anyhow::{Context, Result, ensure};
use outgoingd_client::Client;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;
use xtask::soak::kill_under_load;
use xtask::testbed::daemon::{EXIM_VARIABLE, NO_EXIM};
use xtask::testbed::{Daemon, wait_until};

fn state_file(daemon: &Daemon) -> PathBuf {
    daemon.home().join("state/state.redb")
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// What `outgoingctl doctor` is told is wrong.
fn troubles(daemon: &Daemon) -> Result<String> {
    Ok(Client::new(daemon.socket()).condition()?.troubles.join("\n"))
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o7777)
}

#[test]
fn an_acknowledged_change_survives_kill_9_and_stands_in_the_fallback_file() -> Result<()> {
    let names: Vec<String> = (0..5).map(|number| format!("user{number}")).collect();
    let accounts: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut daemon = Daemon::builder().accounts(&accounts).start()?;
    for (round, name) in names.iter().enumerate() {
        daemon.must(&["hold", name, "--reason", "round"])?;
        daemon.kill9()?;
        let fallback = fs::read_to_string(daemon.fallback())?;
        assert!(fallback.lines().any(|line| line == format!("{name}: hold")), "{fallback}");
        daemon.start_again()?;
        for name in &names[..=round] {
            assert!(daemon.must(&["check", name])?.starts_with("hold"), "{name} after {round} kills");
        }
        assert_eq!(daemon.must(&["--json", "log"])?.lines().count(), round + 1);
        assert_eq!(sorted(&fs::read_to_string(daemon.fallback())?), sorted(&fallback));
    }
    daemon.must(&["release", "--keep", "user0"])?;
    daemon.kill9()?;
    daemon.start_again()?;
    assert!(daemon.must(&["check", "user0"])?.starts_with("ok"));
    Ok(())
}

#[test]
fn killed_at_any_moment_under_load_it_comes_back_with_all_that_was_acknowledged_and_nothing_invented() -> Result<()> {
    let changes = kill_under_load(10, || Ok(()))?;
    assert!(changes > 10, "{changes} changes are no load");
    Ok(())
}

#[test]
fn a_state_file_that_makes_no_sense_stops_the_daemon_with_78_and_is_left_alone() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice"]).start()?;
    daemon.must(&["hold", "alice", "--reason", "phished"])?;
    daemon.stop()?;
    let good = fs::read(state_file(&daemon))?;
    let mut flipped = good.clone();
    let reason = good.windows(7).position(|window| window == b"phished").context("no reason in the state file")?;
    flipped[reason] ^= 1;
    let fallback = fs::read(daemon.fallback())?;
    for (what, bytes) in [("empty", &[][..]), ("truncated", &good[..good.len() / 2]), ("flipped", &flipped)] {
        fs::write(state_file(&daemon), bytes)?;
        let refused = daemon.run_to_its_end(&[])?;
        let words = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(78), "{what}: {words}");
        let path = state_file(&daemon).display().to_string();
        assert!(
            [path.as_str(), "left as it is", "stop Exim first", "outgoingctl import"]
                .iter()
                .all(|part| words.contains(part)),
            "{what}: {words}"
        );
        assert!(fs::read(state_file(&daemon))? == bytes, "{what}: the file was touched");
        assert!(fs::read(daemon.fallback())? == fallback, "{what}: Exim must go on by the last known state");
    }
    fs::write(state_file(&daemon), &good)?;
    daemon.start_again()?;
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"));
    Ok(())
}

#[test]
fn exims_user_with_its_own_group_alone_may_ask_and_read() -> Result<()> {
    let daemon = Daemon::builder().accounts(&["alice"]).start()?;
    daemon.must(&["hold", "alice"])?;
    let program = daemon.home().join("outgoingctl");
    // By a process of its own: a descriptor for writing that another test's child inherits would make the program busy.
    Command::new("cp").arg(daemon.program("outgoingctl")).arg(&program).status()?;
    let as_exim = |program: &Path, arguments: &[&str]| {
        Command::new("setpriv")
            .args(["--reuid=Debian-exim", "--regid=Debian-exim", "--clear-groups", "--"])
            .arg(program)
            .args(arguments)
            .env(EXIM_VARIABLE, NO_EXIM)
            .output()
    };
    let socket = daemon.socket().display().to_string();
    let asked = as_exim(&program, &["--socket", &socket, "check", "alice"])?;
    assert!(asked.stdout.starts_with(b"hold"), "{asked:?}");
    let read = as_exim(Path::new("cat"), &[&daemon.fallback().display().to_string()])?;
    assert!(String::from_utf8_lossy(&read.stdout).contains("alice: hold"), "{read:?}");
    let written = as_exim(Path::new("touch"), &[&daemon.home().join("exim/x").display().to_string()])?;
    assert!(!written.status.success(), "Exim's user may write where only the daemon should");
    Ok(())
}

#[test]
fn a_state_that_was_lost_leaves_what_the_fallback_file_knew_to_be_imported() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice"]).owner("shop.test", "alice").start()?;
    daemon.must(&["hold", "alice", "bob@shop.test"])?;
    daemon.stop()?;
    fs::remove_file(state_file(&daemon))?;
    // A start that fails behind the making of a new state file.
    let (exim, well) = (daemon.home().join("exim"), fs::metadata(daemon.home().join("exim"))?.permissions());
    fs::set_permissions(&exim, fs::Permissions::from_mode(0o777))?;
    assert_eq!(daemon.run_to_its_end(&[])?.status.code(), Some(73));
    assert!(state_file(&daemon).exists());
    fs::set_permissions(&exim, well)?;
    daemon.start_again()?;
    let kept = daemon.home().join("exim/fallback.before").display().to_string();
    assert!(daemon.log().contains(&format!("outgoingctl import {kept}")), "{}", daemon.log());
    assert!(daemon.must(&["check", "alice"])?.starts_with("ok"));
    let told = troubles(&daemon)?;
    assert!(["Stop Exim first", &kept].iter().all(|part| told.contains(part)), "{told}");
    daemon.must(&["import", &kept])?;
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"));
    assert!(daemon.must(&["check", "bob@shop.test"])?.starts_with("hold"));
    assert_eq!(troubles(&daemon)?, "");
    Ok(())
}

#[test]
fn a_state_file_that_is_removed_under_the_running_daemon_is_noticed_and_what_it_knows_can_be_kept() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice", "carol"]).start()?;
    daemon.must(&["hold", "alice"])?;
    assert_eq!(troubles(&daemon)?, "");
    fs::remove_file(state_file(&daemon))?;
    // Nobody changes anything.
    wait_until("a status that says so", Duration::from_secs(30), || {
        Ok(daemon.notifications()?.iter().any(|line| {
            line.starts_with("STATUS=") && line.contains("changes are refused") && line.contains("it is gone")
        }))
    })?;
    let told = troubles(&daemon)?;
    assert!(told.contains("it is gone; put it back, or keep what `outgoingctl export` prints"), "{told}");
    let refused = daemon.ctl(&["hold", "carol"])?;
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(
        ["state.redb", "it is gone", "nothing was acknowledged"].iter().all(|part| refused.stderr.contains(part)),
        "{refused:?}"
    );
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"));
    assert!(daemon.must(&["check", "carol"])?.starts_with("ok"));
    assert!(!state_file(&daemon).exists());
    let kept = daemon.must(&["export"])?;
    daemon.restart()?;
    assert!(daemon.must(&["check", "alice"])?.starts_with("ok"));
    assert_eq!(daemon.ctl_with_input(&["import", "-"], &kept)?.code(), 0);
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"));
    Ok(())
}

#[test]
fn a_state_directory_that_is_moved_away_refuses_changes_until_the_very_one_is_back() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice", "carol"]).start()?;
    daemon.must(&["hold", "alice"])?;
    let (place, elsewhere) = (daemon.home().join("state"), daemon.home().join("elsewhere"));
    fs::rename(&place, &elsewhere)?;
    let refused = daemon.ctl(&["hold", "carol"])?;
    assert!(refused.code() == 1 && refused.stderr.contains("it is gone"), "{refused:?}");
    ensure!(Command::new("cp").arg("-a").args([&elsewhere, &place]).status()?.success());
    let refused = daemon.ctl(&["hold", "carol"])?;
    assert!(refused.code() == 1 && refused.stderr.contains("another file is in its place"), "{refused:?}");
    assert!(troubles(&daemon)?.contains("another file is in its place"));
    fs::remove_dir_all(&place)?;
    fs::rename(&elsewhere, &place)?;
    daemon.must(&["hold", "carol"])?;
    assert_eq!(troubles(&daemon)?, "");
    daemon.kill9()?;
    daemon.start_again()?;
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"));
    assert!(daemon.must(&["check", "carol"])?.starts_with("hold"));
    Ok(())
}

#[test]
fn a_second_daemon_on_the_same_state_or_socket_says_so_and_exits() -> Result<()> {
    let daemon = Daemon::builder().accounts(&["alice"]).start()?;
    daemon.must(&["hold", "alice"])?;
    let second = daemon.run_to_its_end(&[])?;
    let words = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(75), "{words}");
    assert!(words.contains("another outgoingd") && words.contains("state"), "{words}");

    let elsewhere = daemon.home().join("elsewhere").display().to_string();
    let second = daemon.run_to_its_end(&["--state-dir", &elsewhere])?;
    let words = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(75), "{words}");
    assert!(words.contains("listens on") && words.contains(&daemon.socket().display().to_string()), "{words}");
    let fallback = fs::read_to_string(daemon.fallback())?;
    assert!(fallback.contains("alice: hold"), "the first one's fallback file was overwritten: {fallback}");

    let socket = daemon.home().join("other-socket").display().to_string();
    let second = daemon.run_to_its_end(&["--state-dir", &elsewhere, "--socket", &socket])?;
    let words = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(75), "{words}");
    assert!(words.contains("another outgoingd writes this fallback file"), "{words}");
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"), "the first one goes on");
    Ok(())
}

#[test]
fn a_socket_left_behind_is_replaced_and_a_file_in_its_place_is_not() -> Result<()> {
    let mut daemon = Daemon::builder().start()?;
    daemon.kill9()?;
    assert!(daemon.socket().exists());
    daemon.start_again()?;
    daemon.stop()?;
    assert!(!daemon.socket().exists(), "a daemon that stops takes its socket with it");
    fs::write(daemon.socket(), "precious")?;
    let refused = daemon.run_to_its_end(&[])?;
    assert_eq!(refused.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no socket"));
    assert_eq!(fs::read_to_string(daemon.socket())?, "precious");
    Ok(())
}

#[test]
fn files_and_directories_have_their_modes_whatever_the_mask() -> Result<()> {
    let mut daemon = Daemon::builder().start()?;
    daemon.stop()?;
    let home = daemon.home().to_path_buf();
    let at = |name: &str| home.join(name).display().to_string();
    let configuration = format!(
        "socket = '{}'\nstate-dir = '{}'\nfallback-file = '{}'\n",
        at("run/socket"),
        at("new-state"),
        at("other/fallback")
    );
    fs::write(daemon.configuration(), configuration)?;
    let script = "umask 077; exec \"$0\" --config \"$1\"";
    let mut running = Command::new("sh")
        .args(["-c", script])
        .arg(daemon.program("outgoingd"))
        .arg(daemon.configuration())
        .env_remove("NOTIFY_SOCKET")
        .spawn()?;
    let modes = wait_until("the socket", Duration::from_secs(10), || {
        Ok(home.join("run/socket").exists()
            && home.join("other/fallback").exists()
            && mode(&home.join("run/socket"))? == 0o660)
    });
    running.kill()?;
    running.wait()?;
    modes?;
    let expected = [
        ("new-state", 0o700),
        ("new-state/state.redb", 0o600),
        ("run", 0o755),
        ("other", 0o750),
        ("other/fallback", 0o640),
    ];
    for (name, expected) in expected {
        assert_eq!(mode(&home.join(name))?, expected, "{name}");
    }
    Ok(())
}

/// A file system of its own for the state, small or read-only, gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, size: &str) -> Result<SmallDisk> {
        fs::create_dir_all(&at)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"])
            .arg(&at)
            .status()?;
        assert!(mounted.success(), "mounting a tmpfs takes root");
        Ok(SmallDisk(at))
    }

    fn remount(&self, option: &str) -> Result<()> {
        let mounted = Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(&self.0).status()?;
        assert!(mounted.success(), "cannot remount: {option}");
        Ok(())
    }

    /// Takes all that is left, down to the last page.
    fn fill(&self) -> Result<PathBuf> {
        let filler = self.0.join("filler");
        let file = fs::File::create(&filler)?;
        let page = [1; 4096];
        let full = (0..).map(|number| file.write_all_at(&page, number * 4096)).find_map(Result::err);
        assert_eq!(full.map(|error| error.kind()), Some(std::io::ErrorKind::StorageFull));
        Ok(filler)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_changes_whole_and_lookups_go_on() -> Result<()> {
    let names: Vec<String> = (0..2_000).map(|number| format!("user{number}")).collect();
    let accounts: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut daemon = Daemon::builder().accounts(&accounts).start()?;
    daemon.stop()?;
    let disk = SmallDisk::mount(daemon.home().join("state"), "4m")?;
    daemon.start_again()?;
    daemon.must(&["hold", "user0"])?;
    let filler = disk.fill()?;
    let list = names.join("\n");
    let refused = daemon.ctl_with_input(&["import", "-", "--as", "hold"], &list)?;
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(
        refused.stderr.contains("nothing was acknowledged") && refused.stderr.contains("state.redb"),
        "{refused:?}"
    );
    assert!(daemon.must(&["check", "user0"])?.starts_with("hold"));

    fs::remove_file(filler)?;
    let before = daemon.must(&["export"])?.lines().count();
    assert!(before % 1_000 == 1 || before == 1, "{before} flags: a batch was set in part");
    daemon.ctl_with_input(&["import", "-", "--as", "hold"], &list)?;
    assert_eq!(daemon.must(&["export"])?.lines().count(), 2_000, "the daemon recovers when the disk does");
    daemon.kill9()?;
    daemon.start_again()?;
    assert_eq!(daemon.must(&["export"])?.lines().count(), 2_000);
    daemon.stop()?;
    Ok(())
}

#[test]
fn on_a_disk_that_becomes_read_only_changes_are_refused_and_lookups_go_on() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice", "carol"]).start()?;
    daemon.stop()?;
    // An ext4 of its own, whose journal can be made to give up: it is then read-only, as after an error of the disk.
    let image = daemon.home().join("image");
    fs::File::create(&image)?.set_len(32 << 20)?;
    ensure!(Command::new("mkfs.ext4").arg("-q").arg(&image).status()?.success(), "cannot make a file system");
    let at = daemon.home().join("state");
    let mount = || -> Result<SmallDisk> {
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at).status()?;
        ensure!(mounted.success(), "mounting a file takes root and a loop device");
        Ok(SmallDisk(at.clone()))
    };
    let disk = mount()?;
    daemon.start_again()?;
    daemon.must(&["hold", "alice"])?;
    ensure!(Command::new("sync").arg("-f").arg(&at).status()?.success());
    disk.remount("abort")?;

    let refused = daemon.ctl(&["hold", "carol"])?;
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(refused.stderr.contains("ead-only") && refused.stderr.contains("nothing was acknowledged"), "{refused:?}");
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"));
    assert!(daemon.must(&["check", "carol"])?.starts_with("ok"));
    assert!(fs::read_to_string(daemon.fallback())?.contains("alice: hold"));

    // Mended, by whoever mends disks, and mounted again.
    daemon.stop()?;
    drop(disk);
    let _disk = mount()?;
    daemon.start_again()?;
    assert_eq!(daemon.must(&["export"])?.lines().count(), 1, "what was acknowledged, and nothing else");
    daemon.must(&["hold", "carol"])?;
    daemon.stop()?;
    Ok(())
}

#[test]
fn on_a_read_only_disk_the_daemon_does_not_start_and_leaves_the_state_for_later() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice", "carol"]).start()?;
    daemon.stop()?;
    let disk = SmallDisk::mount(daemon.home().join("state"), "8m")?;
    daemon.start_again()?;
    daemon.must(&["hold", "alice"])?;
    daemon.stop()?;
    disk.remount("ro")?;
    let refused = daemon.run_to_its_end(&[])?;
    let words = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(73), "{words}");
    assert!(words.contains("ead-only file system"), "{words}");
    disk.remount("rw")?;
    daemon.start_again()?;
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"));
    daemon.stop()?;
    Ok(())
}

/// Makes system calls of the running daemon fail until it is dropped.
struct Failing(Child);

impl Failing {
    fn attach(daemon: &Daemon, inject: &str) -> Result<Failing> {
        let id = daemon.id()?.to_string();
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={inject}"), "-p", &id])
            .spawn()?;
        let failing = Failing(strace);
        wait_until("strace on every thread", Duration::from_secs(10), || {
            for thread in fs::read_dir(format!("/proc/{id}/task"))? {
                let status = fs::read_to_string(thread?.path().join("status"))?;
                if status.lines().any(|line| line == "TracerPid:\t0") {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        Ok(failing)
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // Asked, it leaves the daemon as it found it; it may hang when there is no daemon any more.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let ended = wait_until("the end of strace", Duration::from_secs(5), || Ok(self.0.try_wait()?.is_some()));
        if ended.is_err() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

#[test]
fn while_syncs_fail_changes_are_refused_in_words_and_lookups_go_on_until_the_disk_is_well() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice", "carol", "dave"]).start()?;
    daemon.must(&["hold", "alice"])?;
    let failing = Failing::attach(&daemon, "fdatasync:error=EIO")?;
    for _ in 0..2 {
        let refused = daemon.ctl(&["hold", "carol"])?;
        assert_eq!(refused.code(), 1, "{refused:?}");
        assert!(
            refused.stderr.contains("nothing was acknowledged") && refused.stderr.contains("state.redb"),
            "{refused:?}"
        );
    }
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"));
    assert!(daemon.must(&["check", "carol"])?.starts_with("ok"));
    wait_until("a status that says so", Duration::from_secs(20), || {
        Ok(daemon
            .notifications()?
            .iter()
            .any(|line| line.starts_with("STATUS=") && line.contains("changes are refused")))
    })?;
    drop(failing);
    daemon.must(&["hold", "dave"])?;
    daemon.kill9()?;
    daemon.start_again()?;
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"));
    assert!(daemon.must(&["check", "dave"])?.starts_with("hold"));
    Ok(())
}

#[test]
fn a_state_file_that_is_spoilt_under_the_running_daemon_ends_it_with_78_and_exim_keeps_the_fallback_file() -> Result<()>
{
    let mut daemon = Daemon::builder().accounts(&["alice", "carol"]).start()?;
    daemon.must(&["hold", "alice"])?;
    let length = usize::try_from(fs::metadata(state_file(&daemon))?.len())?;
    fs::write(state_file(&daemon), vec![0x5a; length])?;
    let failing = Failing::attach(&daemon, "fdatasync:error=EIO:when=1")?;
    let refused = daemon.ctl(&["hold", "carol"])?;
    assert_eq!(refused.code(), 1, "{refused:?}");
    let ended = daemon.wait_for_exit()?;
    drop(failing);
    assert_eq!(ended.code(), Some(78), "{}", daemon.log());
    assert!(daemon.log().contains("outgoingctl import"), "{}", daemon.log());
    assert!(fs::read_to_string(daemon.fallback())?.contains("alice: hold"));
    Ok(())
}

#[test]
fn a_disk_that_cannot_read_the_state_file_just_now_is_not_taken_for_a_damaged_file() -> Result<()> {
    let mut daemon = Daemon::builder().accounts(&["alice"]).start()?;
    daemon.must(&["hold", "alice"])?;
    daemon.stop()?;
    let refused = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=pread64:error=EIO", "-P"])
        .arg(state_file(&daemon))
        .arg(daemon.program("outgoingd"))
        .arg("--config")
        .arg(daemon.configuration())
        .env_remove("NOTIFY_SOCKET")
        .output()?;
    let words = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(73), "{words}");
    assert!(words.contains("Input/output error"), "{words}");
    daemon.start_again()?;
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"));
    Ok(())
}
