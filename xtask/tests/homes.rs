//! The three homes of the snippets, put together as their pages say, line by line: Exim takes each configuration, decides right
//! in a rehearsal, and is as before when the lines are taken out again.

mod deciding;

use std::fs;

use anyhow::{Context, Result};
use deciding::{append, daemon, debian, decides_right};
use xtask::testbed::Host;

/// The rows of a page's tables: what stands in back quotes in the first two columns.
fn rows(host: &Host, page: &str) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(host.snippets().join(page))?;
    let quoted = |cell: &str| cell.split('`').nth(1).unwrap_or_default().to_owned();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.trim().strip_prefix('|')?.split('|');
        Some((quoted(cells.next()?), quoted(cells.next()?)))
    });
    Ok(rows.collect())
}

#[test]
fn debians_split_configuration_takes_the_snippets_in_and_lets_them_go_again() -> Result<()> {
    let (daemon, host) = (daemon()?, debian("true")?);
    append(&host.etc().join("conf.d/main/000_localmacros"), &Host::site_macros(&daemon))?;
    let before = host.compose()?;
    let source = host.snippets().join("debian/conf.d/.");
    host.run(&["cp", "-r", &source.to_string_lossy(), "/etc/exim4/conf.d/"])?;
    assert_ne!(host.compose()?, before);
    decides_right(&host)?;
    host.run(&["sh", "-c", "rm /etc/exim4/conf.d/*/*_outgoingd"])?;
    assert_eq!(host.compose()?, before);
    host.check()
}

#[test]
fn debians_unsplit_configuration_takes_the_snippets_in_and_lets_them_go_again() -> Result<()> {
    let (daemon, host) = (daemon()?, debian("false")?);
    let (macros, template) = (host.etc().join("exim4.conf.localmacros"), host.etc().join("exim4.conf.template"));
    append(&macros, &Host::site_macros(&daemon))?;
    let before = [host.compose()?, fs::read_to_string(&macros)?, fs::read_to_string(&template)?];

    let page = fs::read_to_string(host.snippets().join("debian/README.md"))?;
    let line = page.split('`').find(|quoted| quoted.ends_with("debian/conf.d/main/00_outgoingd"));
    append(&macros, &format!("{}\n", line.context("the page names no line")?))?;
    let mut text = before[2].clone();
    let rows = rows(&host, "debian/README.md")?.into_iter().filter(|(place, _)| place.starts_with("begin "));
    let rows: Vec<(String, String)> = rows.collect();
    assert_eq!(rows.len(), 3);
    for (place, line) in &rows {
        let place = format!("\n{place}\n");
        assert_eq!(text.matches(&place).count(), 1, "{place}");
        text = text.replace(&place, &format!("{place}{line}\n"));
    }
    fs::write(&template, &text)?;
    host.compose()?;
    decides_right(&host)?;

    for (_, line) in &rows {
        text = text.replace(&format!("{line}\n"), "");
    }
    fs::write(&template, text)?;
    fs::write(&macros, &before[1])?;
    assert_eq!([host.compose()?, fs::read_to_string(&macros)?, fs::read_to_string(&template)?], before);
    host.check()
}

#[test]
fn a_debian_site_keeps_the_acls_that_it_has_named_itself() -> Result<()> {
    let (daemon, host) = (daemon()?, debian("true")?);
    let own = "MAIN_ACL_CHECK_MAIL = acl_site_mail\nOUTGOINGD_NEXT_NOT_SMTP = acl_site_not_smtp\n";
    append(&host.etc().join("conf.d/main/000_localmacros"), &(Host::site_macros(&daemon) + own))?;
    let acls = "acl_site_mail:\n  deny senders = unwanted@local.test\n    message = not you\n  accept\n\
                acl_site_not_smtp:\n  deny senders = unwanted@local.test\n    message = not you\n  accept\n";
    append(&host.etc().join("conf.d/acl/50_site"), acls)?;
    let source = host.snippets().join("debian/conf.d/.");
    host.run(&["cp", "-r", &source.to_string_lossy(), "/etc/exim4/conf.d/"])?;
    host.compose()?;
    decides_right(&host)?;
    let session = host.exim_with_input(&["-bs"], "EHLO client.test\r\nMAIL FROM:<unwanted@local.test>\r\nQUIT\r\n")?;
    assert!(session.stdout.contains("550 not you"), "{session:?}");
    let program = host.exim_with_input(&["-f", "unwanted@local.test", "-oep", "postmaster@local.test"], "\nx\n")?;
    assert!(program.stderr.contains("not you"), "{program:?}");
    Ok(())
}

#[test]
fn the_hand_written_example_is_a_working_configuration_with_and_without_the_seven_lines() -> Result<()> {
    let (daemon, host) = (daemon()?, Host::new()?);
    for (file, text) in [("domains", "local.test\n"), ("aliases", ""), ("mailboxes", ""), ("passwords", "")] {
        fs::write(host.etc().join(file), text)?;
    }
    let example = fs::read_to_string(host.snippets().join("hand-written/exim.conf"))?;
    let example = example.replace("/etc/exim/", "/etc/exim4/");
    let configuration = host.etc().join("exim4.conf");
    fs::write(&configuration, Host::site_macros(&daemon) + &example)?;
    decides_right(&host)?;

    let rows = rows(&host, "hand-written/README.md")?;
    let lines: Vec<&str> = rows.iter().map(|(line, _)| &**line).filter(|line| line.starts_with(".include")).collect();
    let included: Vec<&str> = example.lines().filter(|line| line.starts_with(".include")).collect();
    assert_eq!(lines.len(), 7);
    assert_eq!(lines, included, "the page and the example name the same lines in the same order");
    let without = lines.iter().fold(example.clone(), |text, line| text.replace(&format!("{line}\n"), ""));
    fs::write(&configuration, without)?;
    host.check()?;
    assert_eq!(host.exim(&["-bP", "hold_domains"])?.stdout, "hold_domains = \n");
    Ok(())
}

/// A configuration with the boxes of WHM's editor at the places where the editor puts them.
const CPANEL: &str = "\
{CONFIG}
primary_hostname = host.test
domainlist local_domains = local.test
acl_smtp_mail = acl_smtp_mail
acl_smtp_rcpt = acl_smtp_rcpt
acl_not_smtp = outgoing_notsmtp_checkall
keep_environment =
begin acl
acl_smtp_mail:
{custom_begin_mail_pre}
  accept
acl_smtp_rcpt:
{custom_begin_recipient}
  accept hosts = :
  accept authenticated = *
  deny message = relay not permitted
    domains = !+local_domains
  accept
outgoing_notsmtp_checkall:
{custom_begin_outgoing_notsmtp_checkall}
  accept
begin routers
{PREROUTERS}
lookuphost:
  driver = dnslookup
  domains = !+local_domains
  transport = remote_smtp
  no_more
localuser:
  driver = accept
  transport = discarded
begin transports
remote_smtp:
  driver = smtp
discarded:
  driver = appendfile
  file = /dev/null
  user = nobody
begin retry
{RETRYSTART}
* * F,2h,15m; G,16h,1h,1.5; F,4d,8h
";

#[test]
fn cpanels_boxes_take_the_lines_that_the_page_puts_into_them() -> Result<()> {
    let (daemon, host) = (daemon()?, Host::new()?);
    let configuration = host.etc().join("exim4.conf");
    let empty = |text: &str| -> String {
        text.lines().filter(|line| !line.starts_with('{')).map(|l| l.to_owned() + "\n").collect()
    };
    let before = empty(CPANEL);
    fs::write(&configuration, &before)?;
    host.check()?;

    let mut boxes: Vec<(String, String)> = Vec::new();
    for (name, line) in rows(&host, "cpanel/README.md")?.into_iter().filter(|(_, line)| line.starts_with(".include")) {
        // A row without a name goes on in the box of the row above it.
        let name = if name.is_empty() { boxes.last().context("no box")?.0.clone() } else { name };
        boxes.push((name, line));
    }
    assert_eq!(boxes.len(), 7);
    let mut filled = CPANEL.replace("{CONFIG}", &format!("{}{{CONFIG}}", Host::site_macros(&daemon)));
    for (name, line) in &boxes {
        let place = format!("{{{name}}}\n");
        assert!(filled.contains(&place), "no box {name}");
        filled = filled.replace(&place, &format!("{line}\n{place}"));
    }
    fs::write(&configuration, empty(&filled))?;
    decides_right(&host)?;

    let undone = boxes.iter().fold(empty(&filled), |text, (_, line)| text.replace(&format!("{line}\n"), ""));
    let undone = undone.replace(&Host::site_macros(&daemon), "");
    assert_eq!(undone, before);
    Ok(())
}
