//! A rehearsal: whether the Exim of a host, however its configuration came about, asks a daemon and does as it says.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use xtask::testbed::exim::EXIM_USER;
use xtask::testbed::{Daemon, Host};

const NOTICE: &str = "Call extension 42.";

/// A daemon that holds alice and suspends bob.
pub(crate) fn daemon() -> Result<Daemon> {
    let daemon = Daemon::builder().accounts(&["alice", "bob", "carol"]).start()?;
    daemon.must(&["hold", "alice"])?;
    daemon.must(&["suspend", "bob", "--notice", NOTICE])?;
    Ok(daemon)
}

/// Checks a configuration that delivers mail for `local.test` itself and sends all other mail outside.
pub(crate) fn decides_right(host: &Host) -> Result<()> {
    host.check()?;
    for (identity, verdict) in [("alice", "hold"), ("bob", "suspend"), ("carol", "ok")] {
        let asked = ["-oMai", identity, "-be", "OUTGOINGD_FRESH_VERDICT"];
        assert_eq!(host.exim(&asked)?.stdout.trim(), verdict, "{identity}");
        let as_exim = [&["runuser", "-u", EXIM_USER, "--", "/usr/sbin/exim4"], &asked[..]].concat();
        assert_eq!(host.run(&as_exim)?.stdout.trim(), verdict, "{identity}");
    }
    smtp_decides_right(host)?;
    programs_are_stopped(host)?;
    held_mail_stays(host)
}

fn smtp_decides_right(host: &Host) -> Result<()> {
    let replies = |identity: &str| -> Result<Vec<String>> {
        let commands = "EHLO client.test\r\n\
                        MAIL FROM:<sender@local.test>\r\n\
                        RCPT TO:<friend@outside.test>\r\n\
                        RCPT TO:<postmaster@local.test>\r\n\
                        QUIT\r\n";
        let session = host.exim_with_input(&["-oMai", identity, "-bs"], commands)?.stdout;
        let after_hello = session.split_once("250 HELP").map_or(&*session, |(_, rest)| rest);
        Ok(after_hello.lines().skip(1).map(str::to_owned).collect())
    };
    for identity in ["alice", "carol"] {
        let replies = replies(identity)?;
        assert!(replies[..3].iter().all(|reply| reply.starts_with("250")), "{identity}: {replies:?}");
    }
    let replies = replies("bob")?;
    assert!(replies[0].starts_with("250"), "{replies:?}");
    assert!(replies[1].starts_with("550") && replies[1].contains(NOTICE), "{replies:?}");
    assert!(replies[2].starts_with("250"), "{replies:?}");
    Ok(())
}

fn programs_are_stopped(host: &Host) -> Result<()> {
    let outside = ["-oMai", "bob", "-f", "bob@local.test", "-oep", "-odq", "friend@outside.test"];
    let refused = host.exim_with_input(&outside, "Subject: x\n\nx\n")?;
    ensure!(!refused.status.success() && refused.stderr.contains(NOTICE), "{refused:?}");
    Ok(())
}

fn held_mail_stays(host: &Host) -> Result<()> {
    let outside = ["-oMai", "alice", "-f", "alice@local.test", "-odf", "friend@outside.test"];
    let taken = host.exim_with_input(&outside, "Subject: x\n\nx\n")?;
    ensure!(taken.status.success(), "{taken:?}");
    host.exim(&["-qff"])?;
    let log = host.log()?;
    let is_held = |line: &str| line.contains("== friend@outside.test defer") && line.ends_with(": domain is held");
    assert!(log.lines().any(is_held), "{log}");
    assert!(log.contains("== friend@outside.test R=outgoingd defer"), "{log}");
    assert!(host.exim(&["-bp"])?.stdout.contains("friend@outside.test"));
    Ok(())
}

pub(crate) fn append(file: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// A Debian host that sends mail to the world and receives it for `local.test`, before outgoingd comes to it.
pub(crate) fn debian(split: &str) -> Result<Host> {
    let host = Host::new()?;
    let answers = format!(
        "dc_eximconfig_configtype='internet'\ndc_other_hostnames='local.test'\ndc_local_interfaces='127.0.0.1'\n\
         dc_use_split_config='{split}'\ndc_localdelivery='mail_spool'\nCFILEMODE='644'\n"
    );
    fs::write(host.etc().join("update-exim4.conf.conf"), answers)?;
    Ok(host)
}
