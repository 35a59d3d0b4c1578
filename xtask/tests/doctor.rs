//! `outgoingctl doctor`: a good set-up is all well, each way to break it is found by its own line, and the rehearsal leaves nothing
//! behind.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xtask::testbed::daemon::{DaemonBuilder, UNPRIVILEGED};
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
    let (daemon, host) = (builder().start()?, Host::new()?);
    let answers = "dc_eximconfig_configtype='internet'\ndc_other_hostnames='local.test'\ndc_use_split_config='true'\n\
                   dc_localdelivery='mail_spool'\nCFILEMODE='644'\n";
    fs::write(host.etc().join("update-exim4.conf.conf"), answers)?;
    host.compose()?;
    let without = examine(&host, &daemon)?;
    assert_eq!((without.code, without.field("snippets", "result")), (1, "failed"));
    assert!(without.field("snippets", "advice").contains("outgoingctl exim enable"));
    fs::write(host.etc().join("conf.d/main/000_localmacros"), Host::site_macros(&daemon))?;
    let source = host.snippets().join("debian/conf.d/.");
    host.run(&["cp", "-r", &source.to_string_lossy(), "/etc/exim4/conf.d/"])?;
    host.compose()?;
    let with = examine(&host, &daemon)?;
    assert_eq!((with.not_ok(), with.code), (vec![], 0), "{:#?}", with.lines);
    Ok(())
}

#[test]
fn a_daemon_that_is_not_there_or_hangs_is_exit_status_69_and_the_rest_is_looked_at_all_the_same() -> Result<()> {
    let mut daemon = builder().start()?;
    let host = host(&daemon, &spoilt(".include /usr/share/outgoingd/exim-snippets/routers\n", ""))?;
    let is_found = |daemon: &Daemon| -> Result<()> {
        let diagnosis = examine(&host, daemon)?;
        assert_eq!((diagnosis.code, diagnosis.field("daemon", "result")), (69, "failed"));
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
    examine(&host(&daemon, GOOD)?, &daemon)?.finds(&["fallback file", "rehearsal"], "Permission denied");
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
