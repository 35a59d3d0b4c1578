//! The packages on a real systemd: what installing, running, upgrading, removing and purging them does to a Debian with Exim.
//!
//! They take the packages, which `cargo xtask test` builds before it runs them, and root.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use outgoingd_client::{Client, Terms};
use xtask::dist;
use xtask::testbed::{Finished, Guest, Outside, wait_until};

/// How long something in a guest may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// Debian's Exim as the package configures it for a mail server, with the split configuration, and ways to an outside world.
const EXIM: &str = "dc_eximconfig_configtype='internet'
dc_other_hostnames='local.test'
dc_local_interfaces='127.0.0.1'
dc_use_split_config='true'
dc_localdelivery='mail_spool'
CFILEMODE='644'
";

/// A guest with a running Exim, and the package in `/root`, not yet installed.
fn guest() -> Result<Guest> {
    let guest = Guest::boot()?;
    guest.put(&dist::built()?.deb, "/root/outgoingd.deb")?;
    guest.write("/etc/exim4/update-exim4.conf.conf", EXIM)?;
    guest.must(
        "useradd --create-home alice && useradd --create-home bob && update-exim4.conf && systemctl start exim4",
    )?;
    Ok(guest)
}

/// The same with the package installed.
fn installed() -> Result<Guest> {
    let guest = guest()?;
    guest.must("dpkg --install /root/outgoingd.deb")?;
    Ok(guest)
}

/// One property of a unit.
fn property(guest: &Guest, unit: &str, name: &str) -> Result<String> {
    Ok(guest.must(&format!("systemctl show --value --property={name} {unit}"))?.trim().to_owned())
}

/// Asks without a pause until it is told to stop, and returns how often it was answered.
struct Asking {
    enough: Arc<AtomicBool>,
    askers: Vec<thread::JoinHandle<Result<u64>>>,
}

impl Asking {
    fn start(guest: &Guest) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let ask = |client: Client| {
            let enough = Arc::clone(&enough);
            thread::spawn(move || {
                let mut answered = 0;
                while !enough.load(Ordering::Relaxed) {
                    let verdict = client.check("alice", None)?;
                    ensure!(verdict.as_str() == "hold", "{verdict}");
                    answered += 1;
                }
                Ok(answered)
            })
        };
        let askers = (0..2).map(|_| ask(guest.client())).collect();
        Self { enough, askers }
    }

    fn stop(self) -> Result<u64> {
        self.enough.store(true, Ordering::Relaxed);
        let answered = self.askers.into_iter().map(|asker| asker.join().map_err(|_| anyhow!("an asker panicked"))?);
        Ok(answered.collect::<Result<Vec<_>>>()?.iter().sum())
    }
}

#[test]
#[ignore = "takes root and the packages: cargo xtask test"]
fn installing_starts_what_exim_can_ask_and_nobody_else_and_says_the_next_step() -> Result<()> {
    let guest = guest()?;
    let said = guest.must("dpkg --install /root/outgoingd.deb 2>&1")?;
    assert!(said.contains("outgoingctl exim enable"), "{said}");
    for unit in ["outgoingd.socket", "outgoingd.service"] {
        assert_eq!(
            guest.must(&format!("systemctl is-active {unit}; systemctl is-enabled {unit}"))?,
            "active\nenabled\n"
        );
    }
    for unit in ["outgoing-whmapi.socket", "outgoing-queue.socket", "outgoingd-sweep.timer", "outgoingd-metrics.timer"]
    {
        let state = guest.run(&format!("systemctl is-enabled {unit}; systemctl is-active {unit}"))?;
        assert_eq!(state.stdout, "disabled\ninactive\n", "{unit}");
    }
    let owners = "stat --format='%A %U %G %n' /run/outgoingd/outgoingd.sock /var/lib/outgoingd /var/lib/outgoingd-exim \
                  /var/lib/outgoingd-exim/fallback";
    let expected = "srw-rw---- outgoingd Debian-exim /run/outgoingd/outgoingd.sock\n\
                    drwx------ outgoingd outgoingd /var/lib/outgoingd\n\
                    drwxr-s--- outgoingd Debian-exim /var/lib/outgoingd-exim\n\
                    -rw-r----- outgoingd Debian-exim /var/lib/outgoingd-exim/fallback\n";
    assert_eq!(guest.must(owners)?, expected);
    let ask = |user: &str| {
        guest.run(&format!("setpriv --reuid {user} --regid {user} --clear-groups outgoingctl check alice --json"))
    };
    assert!(ask("Debian-exim")?.stdout.contains(r#""verdict":"ok""#));
    assert_eq!(ask("alice")?.code(), 77);
    Ok(())
}

#[test]
#[ignore = "takes root and the packages: cargo xtask test"]
fn a_question_starts_a_service_that_was_stopped_and_its_status_says_what_it_holds() -> Result<()> {
    let guest = installed()?;
    guest.must("outgoingctl hold alice && systemctl stop outgoingd.service")?;
    assert_eq!(property(&guest, "outgoingd.service", "ActiveState")?, "inactive");
    assert_eq!(guest.client().check("alice", None)?.as_str(), "hold");
    // The manager learns of READY=1 in its own time; the answer does not wait for that.
    guest.wait_for("the service to be active", "systemctl is-active outgoingd.service")?;
    let status = property(&guest, "outgoingd.service", "StatusText")?;
    assert!(status.contains("1 held"), "{status}");
    let journal = guest.must("journalctl --unit=outgoingd --output=cat")?;
    assert!(journal.contains("is ready") && journal.contains("hold alice"), "{journal}");
    Ok(())
}

#[test]
#[ignore = "takes root and the packages: cargo xtask test"]
fn without_the_directory_for_the_fallback_file_the_daemon_starts_answers_and_says_so() -> Result<()> {
    let guest = installed()?;
    guest.must(
        "outgoingctl hold alice && rm --recursive /var/lib/outgoingd-exim && systemctl restart outgoingd.service",
    )?;
    assert_eq!(guest.client().check("alice", None)?.as_str(), "hold");
    let status = property(&guest, "outgoingd.service", "StatusText")?;
    assert!(status.contains("fallback file cannot be written"), "{status}");
    guest.must("systemd-tmpfiles --create outgoingd.conf && systemctl restart outgoingd.service")?;
    let read = "setpriv --reuid Debian-exim --regid Debian-exim --clear-groups cat /var/lib/outgoingd-exim/fallback";
    assert!(guest.must(read)?.contains("alice: hold"));
    Ok(())
}

#[test]
#[ignore = "takes root and the packages: cargo xtask test"]
fn no_lookup_fails_while_the_service_restarts_again_and_again() -> Result<()> {
    let guest = installed()?;
    guest.client().hold("alice", &Terms::default())?;
    let asking = Asking::start(&guest);
    for _ in 0..10 {
        guest.must("systemctl restart outgoingd.service")?;
    }
    assert!(asking.stop()? > 100);
    Ok(())
}

#[test]
#[ignore = "takes root and the packages: cargo xtask test"]
fn an_upgrade_keeps_the_state_and_fails_no_lookup() -> Result<()> {
    let guest = installed()?;
    guest.client().hold("alice", &Terms::default())?;
    // The next version: the same files, and a setting that somebody has changed meanwhile.
    guest.must(
        "dpkg-deb --raw-extract /root/outgoingd.deb /root/next && \
         sed --in-place 's/^Version: .*/Version: 99.0-1/' /root/next/DEBIAN/control && \
         dpkg-deb --build /root/next /root/next.deb && \
         sed --in-place 's/^log-level = .*/log-level = \"debug\"/' /etc/outgoingd/outgoingd.toml",
    )?;
    let before = property(&guest, "outgoingd.service", "MainPID")?;
    let asking = Asking::start(&guest);
    let said = guest.must("dpkg --install /root/next.deb 2>&1")?;
    asking.stop()?;
    assert!(!said.contains("exim enable"), "{said}");
    assert_ne!(property(&guest, "outgoingd.service", "MainPID")?, before);
    assert_eq!(guest.client().check("alice", None)?.as_str(), "hold");
    assert!(guest.must("cat /etc/outgoingd/outgoingd.toml")?.contains("log-level = \"debug\""));
    // With a configuration that has become wrong, the daemon that runs is better than one that would not start. Files for Exim
    // that have become older are told of.
    guest.must(
        "echo 'mail-send = maybe' >>/etc/outgoingd/outgoingd.toml; outgoingctl exim enable --yes; \
         echo '# older' >>/etc/exim4/conf.d/retry/10_outgoingd; \
         sed --in-place 's/^Version: .*/Version: 99.0-2/' /root/next/DEBIAN/control && dpkg-deb --build /root/next /root/next.deb",
    )?;
    let running = property(&guest, "outgoingd.service", "MainPID")?;
    let said = guest.must("dpkg --install /root/next.deb 2>&1")?;
    assert!(said.contains("mail-send") && said.contains("mend its configuration"), "{said}");
    assert!(said.contains("newer than those in use"), "{said}");
    assert_eq!(property(&guest, "outgoingd.service", "MainPID")?, running);
    assert_eq!(guest.client().check("alice", None)?.as_str(), "hold");
    guest.must("sed --in-place '/maybe/d' /etc/outgoingd/outgoingd.toml")?;
    // What an administrator has stopped and disabled stays so.
    guest.must("systemctl disable --now outgoingd.socket outgoingd.service 2>&1")?;
    guest.must(
        "sed --in-place 's/^Version: .*/Version: 99.1-1/' /root/next/DEBIAN/control && \
                dpkg-deb --build /root/next /root/next.deb && dpkg --install /root/next.deb 2>&1",
    )?;
    let states =
        guest.run("systemctl is-active outgoingd.socket outgoingd.service; systemctl is-enabled outgoingd.service")?;
    assert_eq!(states.stdout, "inactive\ninactive\ndisabled\n");
    Ok(())
}

#[test]
#[ignore = "takes root and the packages: cargo xtask test"]
fn a_reload_brings_a_change_into_force_and_a_wrong_one_keeps_the_old_and_shows_in_the_status() -> Result<()> {
    let guest = installed()?;
    guest.must(
        "sed --in-place 's/^mail-send = .*/mail-send = false/' /etc/outgoingd/outgoingd.toml && \
                systemctl reload outgoingd.service",
    )?;
    let refused = guest.run("outgoingctl hold alice")?;
    assert!(refused.code() == 1 && refused.stderr.contains("MailSend"), "{refused:?}");
    guest.must("echo 'mail-send = maybe' >/etc/outgoingd/outgoingd.toml; systemctl reload outgoingd.service")?;
    guest.wait_for("the status to say so", "systemctl status outgoingd.service | grep 'Status:.*outgoingd.toml'")?;
    assert_eq!(property(&guest, "outgoingd.service", "ActiveState")?, "active");
    let refused = guest.run("outgoingctl hold alice")?;
    assert!(refused.stderr.contains("MailSend"), "{refused:?}");
    guest.must("echo 'mail-send = true' >/etc/outgoingd/outgoingd.toml; systemctl reload outgoingd.service")?;
    guest.must("outgoingctl hold alice")?;
    guest.wait_for(
        "the status to be good again",
        "! systemctl status outgoingd.service | grep 'Status:.*outgoingd.toml'",
    )
}

#[test]
#[ignore = "takes root and the packages: cargo xtask test"]
fn the_watchdog_ends_a_daemon_that_stands_still_and_another_one_answers() -> Result<()> {
    let guest = installed()?;
    // As it is, but sooner.
    guest.write("/etc/systemd/system/outgoingd.service.d/soon.conf", "[Service]\nWatchdogSec=2s\n")?;
    guest.must("systemctl daemon-reload && systemctl restart outgoingd.service && outgoingctl hold alice")?;
    let standing = property(&guest, "outgoingd.service", "MainPID")?;
    guest.must(&format!("kill -STOP {standing}"))?;
    guest.wait_for("another daemon", &format!(
        "pid=$(systemctl show --value --property=MainPID outgoingd.service); [ $pid != 0 ] && [ $pid != {standing} ]"
    ))?;
    assert_eq!(guest.client().check("alice", None)?.as_str(), "hold");
    assert_eq!(property(&guest, "outgoingd.service", "NRestarts")?, "1");
    assert!(guest.must("journalctl --unit=outgoingd --output=cat")?.contains("Watchdog timeout"));
    Ok(())
}

#[test]
#[ignore = "takes root and the packages: cargo xtask test"]
fn systemd_finds_nothing_wrong_with_the_units_and_little_that_they_expose() -> Result<()> {
    let guest = installed()?;
    let units = guest.must("dpkg --listfiles outgoingd | grep ^/usr/lib/systemd/system/.")?;
    for unit in units.lines().filter(|unit| !unit.contains('@')) {
        let said = guest.run(&format!("systemd-analyze verify --recursive-errors=yes --man=no {unit} 2>&1"))?;
        assert_eq!((said.code(), said.stdout.as_str()), (0, ""), "{unit}");
    }
    let services = units.lines().filter(|unit| unit.ends_with(".service"));
    for service in services {
        // Times ten. One runs Exim as root, to deliver to the mailboxes of all users and through their programs: what its unit
        // leaves open, Exim needs, and it says what for.
        let threshold = if service.ends_with("/outgoing-queue@.service") { 35 } else { 15 };
        let command = format!("systemd-analyze security --no-pager --offline=true --threshold={threshold} {service}");
        let said = guest.run(&command)?;
        assert_eq!(said.code(), 0, "{service}: {}", said.stdout.lines().last().unwrap_or_default());
    }
    Ok(())
}

/// Has the guest's Exim send what is for the outside world to `outside`.
fn lead_outside(guest: &Guest, outside: &Outside) -> Result<()> {
    let port = outside.address().port();
    guest.write(
        "/etc/exim4/conf.d/router/100_outside",
        "outside:\n  driver = manualroute\n  domains = outside.test\n  route_list = * 127.0.0.1\n  self = send\n  \
         transport = outside\n  no_more\n",
    )?;
    let transport = format!("outside:\n  driver = smtp\n  port = {port}\n  allow_localhost\n");
    guest.write("/etc/exim4/conf.d/transport/10_outside", &transport)
}

/// A guest whose Exim asks, with an outside world.
fn enforcing() -> Result<(Guest, &'static Outside)> {
    let guest = installed()?;
    let outside = guest.outside()?;
    lead_outside(&guest, outside)?;
    guest.must("outgoingctl exim enable --yes")?;
    Ok((guest, outside))
}

/// Has a user of the guest send a letter, as a program does, and waits until Exim has done with it what it does at once.
fn send(guest: &Guest, user: &str, recipients: &str) -> Result<Finished> {
    let command = format!("setpriv --reuid {user} --regid {user} --init-groups sendmail -odf -oep {recipients}");
    guest.run_with_input(&command, "Subject: letter\n\nText.\n")
}

/// The numbers of messages that wait, as `held` counts them.
fn held(guest: &Guest) -> Result<usize> {
    Ok(guest.must("outgoingctl held --json")?.lines().count())
}

#[test]
#[ignore = "takes root and the packages: cargo xtask test"]
fn exim_delivers_holds_rejects_and_lets_go_from_one_command_behind_the_installation() -> Result<()> {
    let (guest, outside) = enforcing()?;
    guest.must("outgoingctl doctor")?;
    assert_eq!(send(&guest, "alice", "friend@outside.test")?.code(), 0);
    assert_eq!(outside.recipients(), ["friend@outside.test"]);

    guest.must("outgoingctl hold alice && outgoingctl suspend bob --notice 'Call extension 42.'")?;
    assert_eq!(send(&guest, "alice", "friend@outside.test bob@local.test")?.code(), 0);
    let rejected = send(&guest, "bob", "friend@outside.test")?;
    assert!(rejected.code() != 0 && rejected.stderr.contains("Call extension 42."), "{rejected:?}");
    assert_eq!(outside.count(), 1);
    assert_eq!(held(&guest)?, 1);
    assert!(guest.must("cat /var/mail/bob")?.contains("Subject: letter"));

    // The daemon away, and its socket: Exim goes by the last known state.
    guest.must("systemctl stop outgoingd.socket outgoingd.service")?;
    assert_eq!(send(&guest, "alice", "friend@outside.test")?.code(), 0);
    assert_ne!(send(&guest, "bob", "friend@outside.test")?.code(), 0);
    guest.must("exim4 -qff")?;
    assert_eq!(outside.count(), 1);

    guest.must("systemctl start outgoingd.socket && outgoingctl release alice")?;
    assert_eq!(outside.count(), 3);
    assert_eq!(held(&guest)?, 0);
    Ok(())
}

#[test]
#[ignore = "takes root and the packages: cargo xtask test"]
fn the_sweep_the_metrics_and_the_release_by_token_work_within_their_units() -> Result<()> {
    let (guest, outside) = enforcing()?;
    guest.must(
        "sed --in-place -e 's/^token-users = .*/token-users = [\"outgoing-whmapi\"]/' -e 's/^#= max-messages = .*/max-messages = 1/' \
         /etc/outgoingd/outgoingd.toml && systemctl reload outgoingd.service && outgoingctl hold alice",
    )?;
    for _ in 0..3 {
        send(&guest, "alice", "friend@outside.test")?;
    }
    guest.must(
        "systemctl start outgoingd-sweep.service || { journalctl --unit=outgoingd-sweep --output=cat >&2; false; }",
    )?;
    assert_eq!(held(&guest)?, 1);
    assert!(guest.must("outgoingctl log alice --json -n 1")?.contains(r#""by":"Debian-exim""#));
    let by_itself = "setpriv --reuid Debian-exim --regid Debian-exim --clear-groups outgoingctl log";
    assert_eq!(guest.run(by_itself)?.code(), 77, "Exim's user is not the sweep");

    guest.must("mkdir --parents /var/lib/prometheus/node-exporter && systemctl start outgoingd-metrics.service")?;
    assert!(guest.must("cat /var/lib/prometheus/node-exporter/outgoingd.prom")?.contains("outgoingd_flags"));

    guest.write(
        "/etc/systemd/system/outgoing-whmapi.socket.d/loopback.conf",
        "[Socket]\nListenStream=\nListenStream=127.0.0.1:2087\n",
    )?;
    guest.must("systemctl daemon-reload && systemctl start outgoing-whmapi.socket outgoing-queue.socket")?;
    let token = guest.must("outgoingctl token create test --json")?;
    let token: serde_json::Value = serde_json::from_str(&token)?;
    let token = token["secret"].as_str().context("no secret")?;
    let call = format!(
        "GET /json-api/release_outgoing_email?api.version=1&user=alice HTTP/1.0\\r\\nAuthorization: whm root:{token}\\r\\n\\r\\n"
    );
    let answer = guest.must(&format!("bash -c \"exec 3<>/dev/tcp/127.0.0.1/2087; printf '{call}' >&3; cat <&3\""))?;
    assert!(answer.contains(r#""result":1"#), "{answer}");
    wait_until("the delivery", PATIENCE, || Ok(outside.count() == 1))
}

/// What is on record of the guest's files, users and groups, but for what a running system writes anyway.
fn traces(guest: &Guest) -> Result<BTreeSet<String>> {
    let files = guest.must(
        "find /etc /usr /opt /srv /var /run -xdev \\( -path '/var/log/*' -o -path '/var/lib/dpkg/*' -o -path '/var/spool/exim4/*' \
         -o -path '/var/mail/*' -o -path '/run/systemd/*' -o -path '/run/exim4/*' \
         -o -path '/var/cache/*' -o -path '/var/lib/exim4/*' -o -path '/etc/*-' -o -path '/var/tmp/*' -o -path '/run/dbus/*' \\) -prune \
         -o -print; getent passwd; getent group",
    )?;
    // The manager's own, of which it makes one for the first timer.
    Ok(files.lines().filter(|line| *line != "/var/lib/systemd/timers").map(str::to_owned).collect())
}

#[test]
#[ignore = "takes root and the packages: cargo xtask test"]
fn removing_leaves_the_state_and_a_working_exim_and_purging_leaves_no_trace() -> Result<()> {
    let guest = guest()?;
    let outside = guest.outside()?;
    lead_outside(&guest, outside)?;
    guest.must("update-exim4.conf")?;
    let (before, configuration) = (traces(&guest)?, guest.must("cat /var/lib/exim4/config.autogenerated")?);
    guest.must("dpkg --install /root/outgoingd.deb && outgoingctl exim enable --yes && outgoingctl hold alice")?;
    guest.must("systemctl enable --now outgoingd-sweep.timer outgoing-queue.socket")?;
    assert_ne!(guest.must("cat /var/lib/exim4/config.autogenerated")?, configuration);

    guest.must("dpkg --remove outgoingd")?;
    assert_eq!(guest.must("cat /var/lib/exim4/config.autogenerated")?, configuration);
    assert_eq!(send(&guest, "alice", "friend@outside.test")?.code(), 0);
    assert_eq!(outside.count(), 1);
    // The state is back, and what was enabled runs, but Exim does not ask.
    let said = guest.must("dpkg --install /root/outgoingd.deb 2>&1")?;
    assert!(said.contains("outgoingctl exim enable"), "{said}");
    assert_eq!(guest.client().check("alice", None)?.as_str(), "hold");
    guest.must("systemctl is-active outgoingd-sweep.timer outgoing-queue.socket")?;

    guest.must("dpkg --purge outgoingd")?;
    let after = traces(&guest)?;
    assert_eq!(after.symmetric_difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(guest.must("systemctl list-units --all --plain --no-legend 'outgoing*'")?, "");
    Ok(())
}

#[test]
#[ignore = "takes root and the packages: cargo xtask test"]
fn the_package_stays_while_lines_that_were_put_in_by_hand_need_it() -> Result<()> {
    let guest = installed()?;
    guest.write(
        "/etc/exim4/conf.d/main/000_localmacros",
        ".include /usr/share/outgoingd/exim-snippets/macros\n.include /usr/share/outgoingd/exim-snippets/main\n",
    )?;
    guest.must("update-exim4.conf")?;
    let refused = guest.run("dpkg --remove outgoingd 2>&1")?;
    assert!(refused.code() != 0 && refused.stdout.contains("/usr/share/outgoingd/exim-snippets/macros"), "{refused:?}");
    guest.must("exim4 -bV && systemctl is-active outgoingd.socket outgoingd.service")?;
    guest.must("rm /etc/exim4/conf.d/main/000_localmacros && update-exim4.conf && dpkg --remove outgoingd")?;
    Ok(())
}

#[test]
#[ignore = "takes root and the packages: cargo xtask test"]
fn the_package_can_go_behind_an_exim_that_has_left_its_configuration() -> Result<()> {
    let guest = installed()?;
    guest.must("outgoingctl exim enable --yes")?;
    guest.must("dpkg --remove --force-depends exim4-daemon-light exim4-base exim4-config 2>&1")?;
    let left = guest.must(
        "find /etc/exim4/conf.d /var/lib/exim4/config.autogenerated -name '*outgoingd' -o -type f -name 'config.*'",
    )?;
    assert!(left.contains("00_outgoingd") && left.contains("config.autogenerated"), "{left}");
    guest.must("dpkg --remove outgoingd 2>&1")?;
    assert_eq!(guest.must("find /etc/exim4/conf.d -name '*outgoingd'")?, "");
    Ok(())
}

#[test]
#[ignore = "takes root and the packages: cargo xtask test"]
fn the_rpm_gives_what_exim_reaches_to_the_group_that_exim_has_there() -> Result<()> {
    let guest = Guest::boot()?;
    guest.put(&dist::built()?.rpm, "/root/outgoingd.rpm")?;
    // As on Fedora: no Debian-exim, and an Exim that does not say what it runs as before it has a configuration.
    guest.must(
        "dpkg --purge --force-depends exim4-daemon-light exim4-config exim4-base && userdel Debian-exim; \
                useradd --system --user-group exim && useradd alice",
    )?;
    let said = guest.must("rpm --install --nodeps /root/outgoingd.rpm")?;
    assert!(said.contains("outgoingctl exim enable"), "{said}");
    let owners = guest.must("stat --format='%A %U %G' /run/outgoingd/outgoingd.sock /var/lib/outgoingd-exim")?;
    assert_eq!(owners, "srw-rw---- outgoingd exim\ndrwxr-s--- outgoingd exim\n");
    for unit in ["outgoing-whmapi.service", "outgoingd-sweep.service"] {
        assert_eq!(property(&guest, unit, "SupplementaryGroups")?, "exim", "{unit}");
    }
    assert_eq!(property(&guest, "outgoingd-sweep.service", "User")?, "exim");
    guest.must("outgoingctl hold alice")?;
    let asked = guest.must("setpriv --reuid exim --regid exim --clear-groups outgoingctl check alice")?;
    assert!(asked.starts_with("hold"), "{asked}");

    // Another Exim comes, with another group.
    guest.must("useradd --system --user-group mailnull && userdel exim && /usr/lib/outgoingd/exim-group")?;
    assert_eq!(
        guest.must("stat --format='%A %U %G' /run/outgoingd/outgoingd.sock /var/lib/outgoingd-exim")?,
        "srw-rw---- outgoingd mailnull\ndrwxr-s--- outgoingd mailnull\n"
    );
    let asked = guest.must("setpriv --reuid mailnull --regid mailnull --clear-groups outgoingctl check alice")?;
    assert!(asked.starts_with("hold"), "{asked}");

    guest.must("rpm --erase --nodeps outgoingd")?;
    assert_eq!(guest.run("ls /etc/systemd/system/*/50-exim-group.conf /etc/tmpfiles.d/outgoingd.conf")?.stdout, "");
    guest.must("test -e /var/lib/outgoingd/state.redb && ! test -e /usr/sbin/outgoingd")?;
    guest.must("! ls -d /usr/share/outgoingd /usr/lib/outgoingd /etc/outgoingd /run/outgoingd 2>/dev/null")?;
    Ok(())
}
