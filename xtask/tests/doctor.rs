//! `outgoingctl doctor`: a good set-up is all well, each way to break it is found by its own line, and the rehearsal leaves nothing
//! behind.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xtask::testbed::daemon::{DaemonBuilder, UNPRIVILEGED};
use xtask::testbed::exim::version;
use xtask::testbed::{Bed, Daemon, Finished, Host};

/// A configuration with all parts at their places, and places at which a test puts what spoils it.
const GOOD: &str = "\
{MACROS}
.include /usr/share/outgoingd/exim-snippets/macros
.include /usr/share/outgoingd/exim-snippets/main
primary_hostname = host.test
domainlist local_domains = local.test
acl_smtp_mail = acl_check_mail
acl_smtp_rcpt = acl_check_rcpt
acl_not_smtp = acl_check_not_smtp
keep_environment =
begin acl
acl_check_mail:
# before mail
.include /usr/share/outgoingd/exim-snippets/acl-mail
  accept
acl_check_rcpt:
# before rcpt
.include /usr/share/outgoingd/exim-snippets/acl-rcpt
  accept hosts = :
  accept authenticated = *
  deny message = relay not permitted
    domains = !+local_domains
  accept
acl_check_not_smtp:
# before not_smtp
.include /usr/share/outgoingd/exim-snippets/acl-not-smtp
  accept
begin routers
# before routers
.include /usr/share/outgoingd/exim-snippets/routers
outside:
  driver = manualroute
  domains = !+local_domains
  route_list = * 127.0.0.1 byname
  self = send
  transport = discarded
local:
  driver = accept
  transport = discarded
begin transports
discarded:
  driver = appendfile
  file = /dev/null
  user = nobody
begin retry
# before retry
.include /usr/share/outgoingd/exim-snippets/retry
* * F,2h,15m; G,16h,1h,1.5; F,4d,8h
";

/// Debian's answers for a host with the split configuration.
const SPLIT: &str = "dc_eximconfig_configtype='internet'\ndc_other_hostnames='local.test'\ndc_use_split_config='true'\n\
    dc_localdelivery='mail_spool'\nCFILEMODE='644'\n";

fn builder() -> DaemonBuilder {
    Daemon::builder().accounts(&["alice"]).owner("shop.test", "alice")
}

fn host(daemon: &Daemon, configuration: &str) -> Result<Host> {
    let host = Host::new()?;
    let text = configuration.replace("{MACROS}", &Host::site_macros(daemon));
    fs::write(host.etc().join("exim4.conf"), host.here(&text))?;
    Ok(host)
}

/// What the good configuration comes to with this in place of that.
fn spoilt(that: &str, this: &str) -> String {
    assert_eq!(GOOD.matches(that).count(), 1, "{that}");
    GOOD.replace(that, this)
}

/// What `doctor` has said.
struct Diagnosis {
    code: i32,
    lines: Vec<serde_json::Value>,
}

impl Diagnosis {
    fn new(finished: &Finished) -> Result<Diagnosis> {
        ensure!(finished.stderr.is_empty(), "{finished:?}");
        let lines = finished.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        Ok(Diagnosis { code: finished.code(), lines: lines.with_context(|| format!("{finished:?}"))? })
    }

    fn field(&self, check: &str, field: &str) -> &str {
        let line = self.lines.iter().find(|line| line["check"] == check);
        line.and_then(|line| line[field].as_str()).unwrap_or_default()
    }

    /// The checks with another result than `ok`, but for what this machine's disks say.
    fn not_ok(&self) -> Vec<(&str, &str)> {
        let lines = self.lines.iter().filter_map(|line| Some((line["check"].as_str()?, line["result"].as_str()?)));
        lines.filter(|(check, result)| *result != "ok" && !check.starts_with("disk")).collect()
    }

    /// It fails, by these lines and no other, and each says what to do.
    fn finds(&self, checks: &[&str], words: &str) {
        let failed: Vec<(&str, &str)> = checks.iter().map(|check| (*check, "failed")).collect();
        assert_eq!(self.not_ok(), [&failed[..], &[("enforcement", "failed")]].concat(), "{:#?}", self.lines);
        assert_eq!(self.code, 1);
        let found = self.field(checks[0], "found");
        assert!(found.contains(words), "{found}");
        assert!(checks.iter().all(|check| !self.field(check, "advice").is_empty()), "{:#?}", self.lines);
    }
}

fn run(host: &Host, daemon: &Daemon, arguments: &[&str]) -> Result<Finished> {
    let [program, socket] = [daemon.program("outgoingctl"), daemon.socket()].map(|path| path.display().to_string());
    host.run(&[&[&*program, "--socket", &*socket], arguments].concat())
}

fn examine(host: &Host, daemon: &Daemon) -> Result<Diagnosis> {
    Diagnosis::new(&run(host, daemon, &["--json", "doctor"])?)
}

/// A host on which a package has put the snippets, and what gives things to Exim's group, where packages put them.
struct Installed {
    host: Host,
    package: PathBuf,
}

/// Lays the files of the package, which is named first, over the system's own, and becomes the command behind it.
const INSTALL: &str = "for place in share lib; do \
    mount -t overlay overlay -o lowerdir=\"$1/$place:/usr/$place\" /usr/$place || exit; done; shift; exec \"$@\"";

/// Shows the first of two directories in place of the usual one of the fallback file besides.
const SHOW: &str = "mount -t overlay overlay -o lowerdir=\"$2:/var/lib\" /var/lib && \
    mount --bind \"$1\" /var/lib/outgoingd-exim && shift 2 && exec \"$@\"";

impl Installed {
    fn new() -> Result<Installed> {
        let host = Host::new()?;
        let package = host.etc().with_file_name("package");
        let [share, lib] = ["share", "lib"].map(|place| package.join(place).join("outgoingd"));
        for directory in [&share, &lib, &package.join("var/outgoingd-exim")] {
            fs::create_dir_all(directory)?;
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (from, to) in [("exim-snippets", &share), ("packaging/exim-group", &lib)] {
            let copied = Command::new("cp").arg("-r").arg(source.join(from)).arg(to).status()?;
            ensure!(copied.success(), "cannot copy {from}");
        }
        Ok(Installed { host, package })
    }

    /// With Debian's split configuration, and our files in it.
    fn on_debian(daemon: &Daemon) -> Result<Installed> {
        let installed = Installed::new()?;
        fs::write(installed.host.etc().join("update-exim4.conf.conf"), SPLIT)?;
        fs::write(installed.conf_d("main/000_localmacros"), Host::site_macros(daemon))?;
        let source = "/usr/share/outgoingd/exim-snippets/debian/conf.d/.";
        installed.run(&["cp", "-r", source, "/etc/exim4/conf.d/"])?;
        Ok(installed)
    }

    fn conf_d(&self, name: &str) -> PathBuf {
        self.host.etc().join("conf.d").join(name)
    }

    fn snippet(&self, name: &str) -> PathBuf {
        self.package.join("share/outgoingd/exim-snippets").join(name)
    }

    fn run(&self, words: &[&str]) -> Result<Finished> {
        self.host.run(&[&["sh", "-c", INSTALL, "sh", &self.package.to_string_lossy()], words].concat())
    }

    /// Composes, and examines.
    fn examine(&self, daemon: &Daemon) -> Result<Diagnosis> {
        let composed = self.run(&["update-exim4.conf"])?;
        ensure!(composed.code() == 0, "{composed:?}");
        self.doctor(daemon, &[])
    }

    fn doctor(&self, daemon: &Daemon, before: &[&str]) -> Result<Diagnosis> {
        let [program, socket] = [daemon.program("outgoingctl"), daemon.socket()].map(|path| path.display().to_string());
        Diagnosis::new(&self.run(&[before, &[&*program, "--socket", &*socket, "--json", "doctor"]].concat())?)
    }
}

fn examine_with(configuration: &str) -> Result<Diagnosis> {
    let daemon = builder().start()?;
    let diagnosis = examine(&host(&daemon, configuration)?, &daemon)?;
    assert_eq!(daemon.must(&["export"])?, "", "nothing is left");
    Ok(diagnosis)
}

#[test]
fn where_all_is_well_every_check_says_so_and_nothing_is_left_but_the_record() -> Result<()> {
    let daemon = builder().start()?;
    let host = host(&daemon, GOOD)?;
    let diagnosis = examine(&host, &daemon)?;
    assert_eq!((diagnosis.not_ok(), diagnosis.code), (vec![], 0), "{:#?}", diagnosis.lines);
    assert_eq!(diagnosis.field("enforcement", "found").split(';').next(), Some("works"));
    assert_eq!(daemon.must(&["export"])?, "");
    let log = daemon.must(&["--json", "log"])?;
    assert_eq!(log.lines().count(), 4, "{log}");
    assert!(log.lines().take(2).all(|line| line.contains("rehearsal of outgoingctl doctor")), "{log}");
    assert!(log.lines().take(2).all(|line| line.contains("\"until\":")), "a killed one ends by itself: {log}");
    assert_eq!(host.exim(&["-bpc"])?.stdout, "0\n", "nothing is queued");
    let text = run(&host, &daemon, &["doctor"])?;
    assert!(text.stdout.contains("\nok       router                   first of all"), "{text:?}");
    assert!(text.stdout.contains("\nenforcement works"), "{text:?}");
    Ok(())
}

#[test]
fn debians_configuration_with_the_snippets_is_well_and_without_them_is_told_of_the_command() -> Result<()> {
    let (daemon, without) = (builder().start()?, Installed::new()?);
    fs::write(without.host.etc().join("update-exim4.conf.conf"), SPLIT)?;
    let without = without.examine(&daemon)?;
    assert_eq!((without.code, without.field("snippets", "result")), (1, "failed"));
    assert!(without.field("snippets", "advice").starts_with("outgoingctl exim enable"));
    let with = Installed::on_debian(&daemon)?.examine(&daemon)?;
    assert_eq!((with.not_ok(), with.code), (vec![], 0), "{:#?}", with.lines);
    Ok(())
}

#[test]
fn debians_files_of_ours_that_are_missing_or_older_are_put_right_by_the_command_and_never_included_twice() -> Result<()>
{
    let daemon = builder().start()?;
    let debian = Installed::on_debian(&daemon)?;
    let eager = "eager:\n  driver = accept\n  domains = partner.test\n  transport = remote_smtp\n";
    fs::write(debian.conf_d("router/040_mine"), eager)?;
    fs::write(debian.conf_d("retry/05_mine"), "vip.example * F,1s,1s\n")?;
    let before = debian.examine(&daemon)?;
    assert_eq!((before.not_ok(), before.code), (vec![("router", "warning"), ("retry rule", "warning")], 0));
    for (check, ours) in [("router", "behind 050_outgoingd;"), ("retry rule", "behind 10_outgoingd;")] {
        assert!(before.field(check, "advice").contains(ours), "{:#?}", before.lines);
    }
    // That it says what mends it, is seen by doing it.
    for (section, new) in [("router/040_mine", "router/051_mine"), ("retry/05_mine", "retry/11_mine")] {
        fs::rename(debian.conf_d(section), debian.conf_d(new))?;
    }
    assert_eq!(debian.examine(&daemon)?.not_ok(), []);

    let old =
        fs::read_to_string(debian.snippet("debian/conf.d/retry/10_outgoingd"))?.replace("before Debian's", "here");
    fs::write(debian.conf_d("retry/10_outgoingd"), old)?;
    let changed = debian.examine(&daemon)?;
    assert_eq!((changed.not_ok(), changed.code), (vec![("snippets", "warning")], 0), "{:#?}", changed.lines);
    assert_eq!(changed.field("snippets", "advice"), "outgoingctl exim enable");
    fs::remove_file(debian.conf_d("retry/10_outgoingd"))?;
    let missing = debian.examine(&daemon)?;
    missing.finds(&["snippets", "retry rule"], "there is no /etc/exim4/conf.d/retry/10_outgoingd");
    assert_eq!(missing.field("retry rule", "advice"), "outgoingctl exim enable");
    Ok(())
}

#[test]
fn where_a_file_of_the_package_is_missing_it_is_to_be_installed_again() -> Result<()> {
    let daemon = builder().start()?;
    let debian = Installed::on_debian(&daemon)?;
    fs::remove_file(debian.snippet("macros"))?;
    let macros = debian.examine(&daemon)?;
    assert_eq!((macros.code, macros.field("snippets", "result")), (1, "failed"));
    assert!(
        macros.field("snippets", "advice").starts_with("install the package outgoingd again"),
        "{:#?}",
        macros.lines
    );

    let by_hand = Installed::new()?;
    fs::write(by_hand.host.etc().join("exim4.conf"), GOOD.replace("{MACROS}", &Host::site_macros(&daemon)))?;
    assert_eq!(by_hand.doctor(&daemon, &[])?.not_ok(), []);
    fs::remove_file(by_hand.snippet("routers"))?;
    let routers = by_hand.doctor(&daemon, &[])?;
    assert_eq!((routers.code, routers.field("Exim", "result")), (1, "failed"));
    assert!(routers.field("Exim", "found").contains("exim-snippets/routers"), "{:#?}", routers.lines);
    assert!(routers.field("Exim", "advice").starts_with("install the package outgoingd again"), "{:#?}", routers.lines);
    Ok(())
}

#[test]
fn a_socket_and_a_directory_of_another_group_are_given_to_exims_by_one_command_and_nothing_else_is_advised()
-> Result<()> {
    let (daemon, installed) = (builder().start()?, Installed::new()?);
    let fallback = daemon.fallback();
    let directory = fallback.parent().context("no directory")?;
    let macros = format!(
        "OUTGOINGD_SOCKET = {}\nOUTGOINGD_FALLBACK = /var/lib/outgoingd-exim/fallback\n",
        daemon.socket().display()
    );
    fs::write(installed.host.etc().join("exim4.conf"), GOOD.replace("{MACROS}", &macros))?;
    let (directory, package) = (directory.to_string_lossy(), installed.package.join("var"));
    let show = ["sh", "-c", SHOW, "sh", &*directory, &*package.to_string_lossy()];
    assert_eq!(installed.doctor(&daemon, &show)?.not_ok(), []);
    let given =
        Command::new("chgrp").arg("root").args([daemon.socket(), fallback.clone()]).arg(&*directory).status()?;
    ensure!(given.success(), "cannot give them away");
    let diagnosis = installed.doctor(&daemon, &show)?;
    assert_eq!(diagnosis.code, 1);
    for check in ["socket", "fallback file"] {
        assert_eq!(diagnosis.field(check, "result"), "failed", "{:#?}", diagnosis.lines);
        assert!(
            diagnosis.field(check, "advice").starts_with("/usr/lib/outgoingd/exim-group ("),
            "{:#?}",
            diagnosis.lines
        );
    }
    let unseen = diagnosis.lines.iter().filter(|line| line["result"] == "unknown");
    let unseen: Vec<_> = unseen.map(|line| (line["found"].as_str(), line["advice"].as_str())).collect();
    assert_eq!(unseen, vec![(Some("not looked at: Exim's user gets no answer"), None); 11]);
    Ok(())
}

#[test]
fn a_fallback_directory_that_is_missing_is_made_before_the_daemon_is_restarted() -> Result<()> {
    let mut daemon = builder().start()?;
    let elsewhere = host(&daemon, GOOD)?;
    let directory = daemon.fallback().parent().context("no directory")?.to_path_buf();
    fs::remove_dir_all(&directory)?;
    let advice =
        format!("install -d -o outgoingd -g Debian-exim -m 2750 {}; systemctl restart outgoingd", directory.display());
    assert_eq!(examine(&elsewhere, &daemon)?.field("fallback file", "advice"), advice);
    daemon.kill9()?;
    let usual = GOOD.replace("{MACROS}", &format!("OUTGOINGD_SOCKET = {}", daemon.socket().display()));
    fs::write(elsewhere.etc().join("exim4.conf"), elsewhere.here(&usual))?;
    let advice = "systemd-tmpfiles --create outgoingd.conf; systemctl restart outgoingd";
    assert_eq!(examine(&elsewhere, &daemon)?.field("fallback file", "advice"), advice);
    Ok(())
}

#[test]
fn a_state_directory_that_is_gone_is_a_failure_and_what_the_daemon_knows_is_saved_before_a_restart() -> Result<()> {
    let daemon = builder().start()?;
    let host = host(&daemon, GOOD)?;
    daemon.must(&["hold", "alice"])?;
    fs::rename(daemon.home().join("state"), daemon.home().join("moved"))?;
    let gone = examine(&host, &daemon)?;
    assert_eq!((gone.code, gone.field("disk of the state", "result")), (1, "failed"), "{:#?}", gone.lines);
    assert!(gone.field("disk of the state", "advice").starts_with("put it back"), "{:#?}", gone.lines);
    assert!(daemon.must(&["export"])?.contains("alice"), "as it advises");
    fs::rename(daemon.home().join("moved"), daemon.home().join("state"))?;
    // The daemon sees at the next change that it is back, or in a quiet moment.
    daemon.must(&["release", "alice", "--keep"])?;
    assert_eq!(examine(&host, &daemon)?.not_ok(), []);
    Ok(())
}

#[test]
fn a_daemon_that_is_not_there_or_hangs_is_exit_status_69_and_the_rest_is_looked_at_all_the_same() -> Result<()> {
    let mut daemon = builder().start()?;
    let host = host(&daemon, &spoilt(".include /usr/share/outgoingd/exim-snippets/routers\n", ""))?;
    let is_found = |daemon: &Daemon| -> Result<()> {
        let diagnosis = examine(&host, daemon)?;
        assert_eq!((diagnosis.code, diagnosis.field("daemon", "result")), (69, "failed"));
        let restart = "systemctl restart outgoingd.socket outgoingd.service";
        assert!(diagnosis.field("daemon", "advice").contains(restart), "{:#?}", diagnosis.lines);
        assert_eq!((diagnosis.field("Exim", "result"), diagnosis.field("snippets", "result")), ("ok", "ok"));
        assert_eq!(diagnosis.field("router", "result"), "failed");
        assert_eq!(diagnosis.field("retry rule", "result"), "unknown");
        assert!(diagnosis.field("fallback file", "found").contains("can read"), "{:#?}", diagnosis.lines);
        assert_eq!(diagnosis.lines.len(), 22, "each check has its line");
        Ok(())
    };
    daemon.stand_still()?;
    let begun = Instant::now();
    is_found(&daemon)?;
    // Some time-outs of two seconds, and what a slow machine needs.
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    daemon.kill9()?;
    is_found(&daemon)
}

#[test]
fn a_socket_that_is_closed_to_exims_user_is_found_though_the_fallback_file_answers_for_it() -> Result<()> {
    let daemon = builder().start()?;
    let host = host(&daemon, GOOD)?;
    fs::set_permissions(daemon.socket(), Permissions::from_mode(0o600))?;
    let diagnosis = examine(&host, &daemon)?;
    diagnosis.finds(&["socket"], "Permission denied");
    assert!(diagnosis.field("socket", "advice").contains("Debian-exim"));
    Ok(())
}

#[test]
fn a_fallback_file_that_exims_user_cannot_read_or_reach_is_found_before_it_is_needed() -> Result<()> {
    let daemon = builder().keys("fallback-mode = '0600'").start()?;
    let unreadable = examine(&host(&daemon, GOOD)?, &daemon)?;
    unreadable.finds(&["fallback file", "rehearsal"], "Permission denied");
    let advice = "set fallback-mode = \"0640\" in /etc/outgoingd/outgoingd.toml; systemctl restart outgoingd";
    assert_eq!(unreadable.field("fallback file", "advice"), advice, "another mode would not last");
    let daemon = builder().start()?;
    let directory = daemon.fallback().parent().context("no directory")?.to_path_buf();
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    examine(&host(&daemon, GOOD)?, &daemon)?.finds(&["fallback file"], "does not find");
    Ok(())
}

#[test]
fn another_fallback_file_or_socket_than_the_daemons_is_found() -> Result<()> {
    let daemon = builder().start()?;
    let macros = Host::site_macros(&daemon);
    let fallback = macros.replace("exim/fallback", "exim/other");
    let diagnosis = examine(&host(&daemon, &GOOD.replace("{MACROS}", &fallback))?, &daemon)?;
    diagnosis.finds(&["fallback file"], "exim/other, and outgoingd writes");
    let other = builder().start()?;
    let socket = macros.replace(&*daemon.socket().to_string_lossy(), &other.socket().to_string_lossy());
    let diagnosis = examine(&host(&daemon, &GOOD.replace("{MACROS}", &socket))?, &daemon)?;
    assert_eq!((diagnosis.code, diagnosis.field("socket", "result")), (1, "failed"));
    assert!(diagnosis.field("socket", "found").contains("Exim asks at"), "{:#?}", diagnosis.lines);
    let mut none = builder().start()?;
    let configuration = fs::read_to_string(none.configuration())?;
    let without: String =
        configuration.lines().filter(|line| !line.starts_with("fallback-file")).map(|l| l.to_owned() + "\n").collect();
    fs::write(none.configuration(), format!("fallback-file = ''\n{without}"))?;
    none.restart()?;
    let diagnosis = examine(&host(&none, GOOD)?, &none)?;
    assert_eq!(diagnosis.field("fallback file", "found"), "outgoingd writes none");
    Ok(())
}

#[test]
fn hold_domains_and_delay_warnings_that_know_nothing_of_holds_are_found() -> Result<()> {
    let main = ".include /usr/share/outgoingd/exim-snippets/main";
    let verdict = "${if eq{OUTGOINGD_CACHED_VERDICT}{hold}";
    let no_hold = format!("hold_domains = other.test\ndelay_warning_condition = {verdict}{{no}}{{yes}}}}");
    examine_with(&spoilt(main, &no_hold))?.finds(&["hold_domains"], "other.test");
    let no_delay = format!("hold_domains = {verdict}{{!+local_domains}}{{}}}}");
    examine_with(&spoilt(main, &no_delay))?.finds(&["delay_warning_condition"], "is told");
    examine_with(&spoilt(main, ""))?.finds(&["hold_domains", "delay_warning_condition"], "not set");
    Ok(())
}

#[test]
fn a_statement_that_accepts_before_ours_is_found_and_named() -> Result<()> {
    let login = examine_with(&spoilt("# before rcpt", "  accept authenticated = *"))?;
    login.finds(&["acl_smtp_rcpt"], "\"accept\" (/etc/exim4/exim4.conf");
    let programs = examine_with(&spoilt("# before rcpt", "  accept hosts = :"))?;
    let expected = [("acl_smtp_rcpt", "warning"), ("acl_smtp_rcpt, exim -bs", "failed"), ("enforcement", "failed")];
    assert_eq!(programs.not_ok(), expected, "{:#?}", programs.lines);
    let both = ["acl_smtp_mail", "acl_smtp_rcpt", "acl_smtp_rcpt, exim -bs"];
    examine_with(&spoilt("# before mail", "  accept"))?.finds(&both, "before anybody has asked");
    examine_with(&spoilt("# before not_smtp", "  accept"))?.finds(&["acl_not_smtp"], "programs");
    examine_with(&spoilt("acl_not_smtp = acl_check_not_smtp\n", ""))?.finds(&["acl_not_smtp"], "names no ACL");
    Ok(())
}

#[test]
fn what_one_trial_cannot_prove_for_every_sender_is_warned_of() -> Result<()> {
    let warned = |configuration: &str, checks: &[&str], words: &str| -> Result<()> {
        let diagnosis = examine_with(configuration)?;
        let expected: Vec<_> = checks.iter().map(|check| (*check, "warning")).collect();
        assert_eq!((diagnosis.not_ok(), diagnosis.code), (expected, 0), "{:#?}", diagnosis.lines);
        assert!(diagnosis.field(checks[0], "found").contains(words), "{:#?}", diagnosis.lines);
        Ok(())
    };
    let rcpt = ["acl_smtp_rcpt"];
    let over_tls = "  accept authenticated = *\n    encrypted = *";
    warned(&spoilt("# before rcpt", over_tls), &rcpt, "accept authenticated = * encrypted = *")?;
    warned(&spoilt("# before mail", "  accept hosts = 10.0.0.0/8"), &["acl_smtp_mail"], "accept hosts = 10.0.0.0/8")?;
    let by_port = "acl_smtp_rcpt = ${if eq{$received_port}{587}{acl_other}{acl_check_rcpt}}";
    warned(&spoilt("acl_smtp_rcpt = acl_check_rcpt", by_port), &rcpt, "received_port")?;
    let eager = "  warn authenticated = *\n    control = cutthrough_delivery";
    warned(&spoilt("# before rcpt", eager), &["cutthrough_delivery"], "sends mail on")
}

#[test]
fn an_acl_for_programs_that_asks_and_refuses_nobody_is_found() -> Result<()> {
    let only_asks = spoilt("acl_not_smtp = acl_check_not_smtp", "acl_not_smtp = acl_check_mail");
    examine_with(&only_asks)?.finds(&["acl_not_smtp"], "refuses nobody's");
    // What no expansion may do cannot be tried, and is no accusation.
    let untried = examine_with(&spoilt("# before not_smtp", "  warn add_header = X-A: b"))?;
    assert_eq!((untried.not_ok(), untried.code), (vec![("acl_not_smtp", "warning")], 0), "{:#?}", untried.lines);
    Ok(())
}

#[test]
fn an_exim_that_takes_nothing_by_smtp_is_well() -> Result<()> {
    let sends_only = spoilt("acl_smtp_rcpt = acl_check_rcpt\n", "");
    let diagnosis = examine_with(&sends_only)?;
    assert_eq!((diagnosis.not_ok(), diagnosis.code), (vec![], 0), "{:#?}", diagnosis.lines);
    assert!(diagnosis.field("acl_smtp_rcpt", "found").contains("takes no mail by SMTP"));
    Ok(())
}

#[test]
fn where_exim_refuses_the_rehearsal_for_another_reason_the_configuration_is_read_and_that_is_said() -> Result<()> {
    let demand = "  deny message = TLS first\n    !encrypted = *";
    let demanding = examine_with(&spoilt("# before mail", demand))?;
    let warned = ["acl_smtp_mail", "acl_smtp_rcpt", "acl_smtp_rcpt, exim -bs"].map(|check| (check, "warning"));
    assert_eq!((demanding.not_ok(), demanding.code), (warned.to_vec(), 0), "{:#?}", demanding.lines);
    let both = demand.to_owned() + "\n  accept sender_domains = local.test";
    let diagnosis = examine_with(&spoilt("# before mail", &both))?;
    assert_eq!((diagnosis.field("acl_smtp_mail", "result"), diagnosis.code), ("failed", 1), "{:#?}", diagnosis.lines);
    Ok(())
}

#[test]
fn a_router_or_a_retry_rule_before_ours_is_found() -> Result<()> {
    let router = |domains: &str| {
        format!(
            "eager:\n  driver = manualroute\n  domains = {domains}\n  route_list = * 127.0.0.1 byname\n  self = send\n  transport = discarded"
        )
    };
    examine_with(&spoilt("# before routers", &router("!+local_domains")))?.finds(&["router"], "router eager");
    let partner = examine_with(&spoilt("# before routers", &router("partner.test")))?;
    assert_eq!((partner.not_ok(), partner.code), (vec![("router", "warning")], 0));
    examine_with(&spoilt(".include /usr/share/outgoingd/exim-snippets/routers\n", ""))?.finds(&["router"], "no router");
    let narrow = examine_with(&spoilt("# before retry", "vip.example * F,1s,1s"))?;
    assert_eq!((narrow.not_ok(), narrow.code), (vec![("retry rule", "warning")], 0), "{:#?}", narrow.lines);
    assert!(
        narrow.field("retry rule", "found").contains("\"vip.example * F,1s,1s\" before ours"),
        "{:#?}",
        narrow.lines
    );
    assert!(narrow.field("retry rule", "advice").starts_with("move the line `.include /usr/share/outgoingd/"));
    assert!(partner.field("router", "advice").starts_with("move the line"), "Exim accepts no second one");
    examine_with(&spoilt("# before retry", "* * F,1h,5m"))?.finds(&["retry rule"], "F,1h,5m");
    examine_with(&spoilt(".include /usr/share/outgoingd/exim-snippets/retry\n", ""))?.finds(&["retry rule"], "F,2h");
    Ok(())
}

#[test]
fn without_the_snippets_the_finding_is_that_and_nothing_behind_it_passes() -> Result<()> {
    let without: String = GOOD
        .replace("{MACROS}\n", "")
        .lines()
        .filter(|line| !line.starts_with(".include"))
        .map(|l| l.to_owned() + "\n")
        .collect();
    let diagnosis = examine_with(&without)?;
    assert_eq!((diagnosis.code, diagnosis.field("snippets", "result")), (1, "failed"));
    for check in ["socket", "fallback file", "hold_domains", "router", "retry rule", "acl_smtp_rcpt", "acl_not_smtp"] {
        assert_eq!(diagnosis.field(check, "result"), "unknown", "{check}");
    }
    Ok(())
}

#[test]
fn an_exim_whose_configuration_is_wrong_or_that_is_not_there_is_found() -> Result<()> {
    let wrong = examine_with(&spoilt("primary_hostname = host.test", "no_such_option = x"))?;
    assert_eq!((wrong.code, wrong.field("Exim", "result"), wrong.field("daemon", "result")), (1, "failed", "ok"));
    assert!(wrong.field("Exim", "found").contains("no_such_option"), "{:#?}", wrong.lines);
    assert!(wrong.field("Exim", "advice").starts_with("mend Exim's configuration: "), "{:#?}", wrong.lines);
    assert!(wrong.field("Exim", "advice").ends_with("exim4 -bV"), "{:#?}", wrong.lines);
    // Our part is named, and is not to blame. Exim 4.100 takes an option twice.
    let twice = "hold_domains = other.test\n.include /usr/share/outgoingd/exim-snippets/main";
    let twice = examine_with(&spoilt(".include /usr/share/outgoingd/exim-snippets/main", twice))?;
    if version()? < (4, 100) {
        assert!(twice.field("Exim", "found").contains("for the second time"), "{:#?}", twice.lines);
        assert!(twice.field("Exim", "advice").starts_with("mend Exim's configuration: "), "{:#?}", twice.lines);
    } else {
        assert_eq!(twice.field("Exim", "result"), "ok", "{:#?}", twice.lines);
    }
    let daemon = builder().start()?;
    let without = Diagnosis::new(&daemon.ctl(&["--json", "doctor"])?)?;
    assert_eq!((without.code, without.field("Exim", "result")), (1, "failed"));
    assert_eq!(without.field("socket", "result"), "unknown");
    Ok(())
}

#[test]
fn an_exim_that_hangs_is_not_waited_for_without_end() -> Result<()> {
    let daemon = builder().start()?;
    let program = daemon.home().join("hanging");
    // By a process of its own: a descriptor for writing that another test's child inherits would make the program busy.
    let write = "printf '#!/bin/sh\\nexec sleep 60\\n' >\"$1\" && chmod 755 \"$1\"";
    ensure!(Command::new("sh").args(["-c", write, "sh"]).arg(&program).status()?.success(), "cannot write a program");
    let begun = Instant::now();
    let hanging = Diagnosis::new(&daemon.ctl(&["--json", "--exim", &program.to_string_lossy(), "doctor"])?)?;
    assert_eq!((hanging.code, hanging.field("Exim", "result")), (1, "failed"));
    assert!(hanging.field("Exim", "found").contains("does not answer"), "{:#?}", hanging.lines);
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    Ok(())
}

#[test]
fn who_may_not_find_out_is_told_so_by_exit_status_77() -> Result<()> {
    let bed = Bed::configured(DaemonBuilder::for_everyone, |exim| exim)?;
    let diagnosis = Diagnosis::new(&bed.ctl_by(UNPRIVILEGED, &["--json", "doctor"])?)?;
    assert_eq!((diagnosis.code, diagnosis.field("daemon", "result")), (77, "ok"));
    assert_eq!((diagnosis.field("versions", "result"), diagnosis.field("Exim", "result")), ("unknown", "unknown"));
    let by_root = Diagnosis::new(&bed.ctl(&["--json", "doctor"])?)?;
    assert_eq!((by_root.not_ok(), by_root.code), (vec![], 0), "{:#?}", by_root.lines);
    Ok(())
}

#[test]
fn a_daemon_that_changes_nothing_or_keeps_an_older_configuration_says_so() -> Result<()> {
    let mut daemon = builder().keys("mail-send = false").start()?;
    let host = host(&daemon, GOOD)?;
    let refused = examine(&host, &daemon)?;
    assert_eq!((refused.code, refused.field("rehearsal", "result")), (1, "failed"));
    assert!(refused.field("rehearsal", "found").contains("MailSend"), "{:#?}", refused.lines);
    assert_eq!((refused.field("socket", "result"), refused.field("router", "result")), ("ok", "unknown"));
    let configuration = fs::read_to_string(daemon.configuration())?.replace("mail-send = false", "");
    fs::write(daemon.configuration(), &configuration)?;
    daemon.reload()?;
    fs::write(daemon.configuration(), configuration + "[no-such-table]\n")?;
    daemon.reload()?;
    let kept = examine(&host, &daemon)?;
    assert_eq!((kept.not_ok(), kept.code), (vec![("state", "warning")], 0), "{:#?}", kept.lines);
    assert!(kept.field("state", "found").contains("no-such-table"));
    Ok(())
}

#[test]
fn an_emergency_stop_of_everyone_is_no_illness() -> Result<()> {
    let daemon = builder().start()?;
    daemon.must(&["hold", "*"])?;
    let diagnosis = examine(&host(&daemon, GOOD)?, &daemon)?;
    assert_eq!((diagnosis.not_ok(), diagnosis.code), (vec![], 0), "{:#?}", diagnosis.lines);
    assert_eq!(daemon.must(&["export"])?.lines().count(), 1);
    // Nor a suspend, though what a hold does cannot be seen while it lasts.
    daemon.must(&["suspend", "*"])?;
    let diagnosis = examine(&host(&daemon, GOOD)?, &daemon)?;
    let unseen = ["hold_domains", "delay_warning_condition", "router", "retry rule"].map(|check| (check, "unknown"));
    assert_eq!(diagnosis.not_ok(), [&unseen[..], &[("enforcement", "failed")]].concat(), "{:#?}", diagnosis.lines);
    assert!(diagnosis.field("router", "found").contains("is everyone suspended?"), "{:#?}", diagnosis.lines);
    Ok(())
}

#[test]
fn a_mailbox_for_rehearsals_exists_whatever_the_owner_map_says_and_its_domain_does_not() -> Result<()> {
    let daemon = builder().start()?;
    daemon.must(&["hold", "anybody@outgoingd.invalid"])?;
    for other in ["@outgoingd.invalid", "x@other.invalid", "x@sub.outgoingd.invalid"] {
        assert_eq!(daemon.ctl(&["hold", other])?.code(), 1, "{other}");
    }
    Ok(())
}
