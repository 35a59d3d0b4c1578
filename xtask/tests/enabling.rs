//! `outgoingctl exim enable` and `disable` on a Debian host: what they write works and goes away again without a trace; what they
//! cannot do leaves everything as it was, whatever refuses and whenever; what they print for other homes works when it is pasted.

mod deciding;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use deciding::{append, daemon, debian, decides_right};
use serde_json::Value;
use xtask::testbed::exim::version;
use xtask::testbed::{Daemon, Finished, Host};

/// What `enable` says where it does not write, and the parts are in.
const PARTS_ARE_THERE: &str =
    "all of outgoingd's parts are in Exim's configuration; outgoingctl doctor says whether they work\n";

/// Our files, by their place in `conf.d`.
const FILES: [&str; 4] = ["acl/10_outgoingd", "main/00_outgoingd", "retry/10_outgoingd", "router/050_outgoingd"];

/// A host with a daemon, and a configuration that is composed and in use.
struct Site {
    daemon: Daemon,
    host: Host,
}

impl Site {
    fn split() -> Result<Site> {
        let (daemon, host) = (daemon()?, debian("true")?);
        append(&host.etc().join("conf.d/main/000_localmacros"), &Host::site_macros(&daemon))?;
        host.compose()?;
        Ok(Site { daemon, host })
    }

    fn directory(&self) -> PathBuf {
        self.host.etc().with_file_name("")
    }

    /// A file of the site's own in `conf.d`, in use.
    fn with(self, file: &str, text: &str) -> Result<Site> {
        append(&self.host.etc().join("conf.d").join(file), text)?;
        self.host.compose()?;
        Ok(self)
    }

    /// A program of the site's own.
    fn program(&self, name: &str, text: &str) -> Result<String> {
        let path = self.directory().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(path.display().to_string())
    }

    fn words<'a>(&self, arguments: &[&'a str]) -> Vec<std::borrow::Cow<'a, str>> {
        let shown = |path: PathBuf| path.display().to_string().into();
        let mut words = vec![shown(self.daemon.program("outgoingctl")), "--socket".into(), shown(self.daemon.socket())];
        words.extend(arguments.iter().map(|argument| (*argument).into()));
        if arguments.contains(&"enable") {
            words.extend(["--snippets".into(), shown(self.host.snippets())]);
        }
        words
    }

    /// `outgoingctl`, where nobody can be asked.
    fn ctl(&self, arguments: &[&str]) -> Result<Finished> {
        let words = self.words(arguments);
        self.host.run(&words.iter().map(|word| &**word).collect::<Vec<_>>())
    }

    fn must(&self, arguments: &[&str]) -> Result<String> {
        let finished = self.ctl(arguments)?;
        ensure!(finished.status.success(), "{arguments:?}: {finished:?}");
        Ok(finished.stdout)
    }

    /// The same behind `prepare`, a shell's command in the host.
    fn ctl_behind(&self, prepare: &str, arguments: &[&str]) -> Result<Finished> {
        let script = format!("{prepare} && exec \"$@\"");
        let words = self.words(arguments);
        let shell = ["sh", "-c", &script, "sh"];
        self.host.run(&shell.into_iter().chain(words.iter().map(|word| &**word)).collect::<Vec<_>>())
    }

    /// Everything that Exim's configuration is made of, by path: mode, owner and text.
    fn state(&self) -> Result<BTreeMap<PathBuf, String>> {
        let mut state = BTreeMap::new();
        let mut waiting = vec![self.directory().join("etc"), self.directory().join("lib")];
        while let Some(path) = waiting.pop() {
            let metadata = fs::symlink_metadata(&path)?;
            let owner = format!("{:o} {}:{}", metadata.mode(), metadata.uid(), metadata.gid());
            if metadata.is_dir() {
                waiting.extend(fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?);
                state.insert(path, owner);
            } else {
                let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
                state.insert(path, format!("{owner}\n{text}"));
            }
        }
        Ok(state)
    }

    fn must_be(&self, before: &BTreeMap<PathBuf, String>) -> Result<()> {
        let now = self.state()?;
        let paths = |state: &BTreeMap<PathBuf, String>| state.keys().cloned().collect::<Vec<_>>();
        assert_eq!(paths(&now), paths(before));
        for (path, text) in before {
            assert_eq!(&now[path], text, "{}", path.display());
        }
        self.host.check()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.host.etc().join("conf.d").join(name)
    }
}

fn one_object(printed: &str) -> Result<Value> {
    serde_json::from_str(printed).with_context(|| printed.to_owned())
}

#[test]
fn one_command_switches_it_on_and_another_one_off_without_a_trace() -> Result<()> {
    let site = Site::split()?;
    let before = site.state()?;
    let said = site.must(&["exim", "enable", "--yes"])?;
    assert!(said.contains("+++ /etc/exim4/conf.d/main/00_outgoingd (then)"), "{said}");
    assert!(said.contains("+++ /var/lib/exim4/config.autogenerated (then)"), "{said}");
    assert!(said.ends_with("next: outgoingctl doctor\n"), "{said}");
    decides_right(&site.host)?;

    let enabled = site.state()?;
    assert_eq!(site.must(&["exim", "enable", "--yes"])?, "Exim asks outgoingd already: nothing to do\n");
    site.must_be(&enabled)?;

    let said = site.ctl(&["exim", "disable", "--yes"])?;
    assert!(said.status.success() && said.stdout.contains("1 message of held or suspended senders"), "{said:?}");
    site.must_be(&before)?;
    assert_eq!(site.must(&["exim", "disable", "--yes"])?, "Exim does not ask outgoingd: nothing to do\n");
    site.must_be(&before)
}

#[test]
fn programs_get_one_object() -> Result<()> {
    let site = Site::split()?;
    let enabled = one_object(&site.must(&["--json", "exim", "enable", "--yes"])?)?;
    assert_eq!((&enabled["command"], &enabled["home"]), (&"exim enable".into(), &"debian-split".into()));
    assert_eq!((&enabled["changed"], enabled["files"].as_array().map(Vec::len)), (&true.into(), Some(4)));
    assert!(enabled["difference"].as_str().is_some_and(|text| text.contains("+.include")), "{enabled}");
    let again = one_object(&site.must(&["--json", "exim", "enable", "--yes"])?)?;
    assert_eq!((&again["changed"], &again["files"]), (&false.into(), &Value::Array(Vec::new())));
    let disabled = one_object(&site.must(&["--json", "exim", "disable", "--yes"])?)?;
    assert_eq!((&disabled["changed"], &disabled["waiting"]), (&true.into(), &0.into()));
    Ok(())
}

#[test]
fn a_dry_run_shows_the_difference_and_changes_nothing() -> Result<()> {
    let site = Site::split()?;
    let before = site.state()?;
    let said = site.must(&["exim", "enable", "--dry-run"])?;
    assert!(said.contains("+acl_not_smtp = acl_outgoingd_not_smtp") && said.contains("nothing was changed"), "{said}");
    site.must_be(&before)?;
    site.must(&["exim", "enable", "--yes"])?;
    let enabled = site.state()?;
    let said = site.must(&["exim", "disable", "--dry-run"])?;
    assert!(said.contains("-acl_not_smtp = acl_outgoingd_not_smtp"), "{said}");
    site.must_be(&enabled)
}

#[test]
fn nothing_is_changed_without_an_answer() -> Result<()> {
    let site = Site::split()?;
    let before = site.state()?;
    let said = site.ctl(&["exim", "enable"])?;
    assert_eq!(said.code(), 2);
    assert!(said.stderr.contains("nothing was changed: nobody can be asked here; say --yes"), "{said:?}");
    site.must_be(&before)?;

    for (answer, changed) in [("n\n", false), ("y\n", true)] {
        let words = site.words(&["exim", "enable"]).join(" ");
        let said = site.host.run(&["sh", "-c", &format!("printf '{answer}' | script -qec '{words}' /dev/null")])?;
        assert!(said.stdout.contains("Change Exim's configuration so? [y/N]"), "{said:?}");
        assert_eq!(site.file(FILES[0]).exists(), changed, "{said:?}");
        if !changed {
            assert!(said.stdout.contains("nothing was changed"), "{said:?}");
            site.must_be(&before)?;
        }
    }
    decides_right(&site.host)
}

#[test]
fn who_is_not_root_is_told_so_before_anything() -> Result<()> {
    let site = Site::split()?;
    let before = site.state()?;
    let copy = site.directory().join("outgoingctl").display().to_string();
    fs::copy(site.daemon.program("outgoingctl"), &copy)?;
    for verb in ["enable", "disable"] {
        let said = site.host.run(&["runuser", "-u", "nobody", "--", &copy, "exim", verb, "--dry-run"])?;
        assert_eq!(said.code(), 77, "{said:?}");
    }
    site.must_be(&before)
}

#[test]
fn a_value_that_the_site_sets_behind_our_back_is_told_with_what_to_do_when_it_is_enabled_again() -> Result<()> {
    let site = Site::split()?;
    let enabled = site.ctl(&["exim", "enable", "--yes"])?;
    assert_eq!(enabled.code(), 0, "{enabled:?}");
    append(&site.host.etc().join("conf.d/main/00_z_site"), "hold_domains = a.test\n")?;
    let said = site.ctl(&["exim", "enable", "--yes"])?;
    assert!(said.code() == 1 && said.stderr.contains("OUTGOINGD_OTHER_HOLDS"), "{said:?}");
    Ok(())
}

#[test]
fn a_value_that_the_site_has_set_itself_is_refused_in_exims_words_with_what_to_do() -> Result<()> {
    // Exim 4.100 takes an option twice, and the last one counts.
    let not_smtp = if version()? < (4, 100) {
        "\"acl_not_smtp\" option set for the second time"
    } else {
        "acl_not_smtp would be \"acl_check_mail\""
    };
    let guards = |own: &str| if own.contains("==") { (".ifdef MAIN_ACL_CHECK_RCPT\n", ".endif\n") } else { ("", "") };
    for (own, words, advice) in [
        ("hold_domains = a.test\n", "\"hold_domains\" option set for the second time", "OUTGOINGD_OTHER_HOLDS"),
        ("acl_not_smtp = acl_check_mail\n", not_smtp, "OUTGOINGD_NEXT_NOT_SMTP"),
        ("MAIN_ACL_CHECK_RCPT = acl_check_rcpt\n", "\"MAIN_ACL_CHECK_RCPT\" is already defined", "000_localmacros"),
        ("MAIN_ACL_CHECK_RCPT == acl_check_rcpt\n", "acl_smtp_rcpt would be \"acl_check_rcpt\"", "MAIN_ACL_CHECK_RCPT"),
    ] {
        let (guard, end) = guards(own);
        // Behind ours, which there is nothing to define again without.
        let site = Site::split()?.with("main/00_z_site", &format!("{guard}{own}{end}"))?;
        let before = site.state()?;
        let said = site.ctl(&["exim", "enable", "--yes"])?;
        assert_eq!(said.code(), 1, "{own}");
        for word in [words, advice, "; nothing was changed"] {
            assert!(said.stderr.contains(word), "{own}: {said:?}");
        }
        assert_eq!(said.stdout, "");
        site.must_be(&before)?;
    }
    Ok(())
}

#[test]
fn an_exim_that_refuses_only_what_is_in_use_gets_everything_back() -> Result<()> {
    let site = Site::split()?;
    // An earlier version of ours, and one that somebody keeps elsewhere.
    fs::write(site.file(FILES[2]), "# an earlier version\n")?;
    fs::set_permissions(site.file(FILES[2]), Permissions::from_mode(0o600))?;
    let elsewhere = site.directory().join("elsewhere");
    fs::write(&elsewhere, "# kept elsewhere\n")?;
    symlink(elsewhere, site.file(FILES[3]))?;
    site.host.compose()?;
    let before = site.state()?;
    let refusing = "#!/bin/sh\n[ \"$*\" = -bV ] && [ -e /etc/exim4/conf.d/main/00_outgoingd ] && \
                    { echo 'this Exim is not amused' >&2; exit 1; }\nexec /usr/sbin/exim4 \"$@\"\n";
    let exim = site.program("refusing", refusing)?;
    let said = site.ctl(&["--exim", &exim, "exim", "enable", "--yes"])?;
    assert_eq!(said.code(), 1);
    assert!(said.stderr.contains("this Exim is not amused; every file was put back as it was"), "{said:?}");
    site.must_be(&before)
}

#[test]
fn ctrl_c_at_any_time_behind_the_first_change_puts_everything_back() -> Result<()> {
    let site = Site::split()?;
    let before = site.state()?;
    // At this moment everything is written and composed. Whoever is impatient is no nearer to the end.
    // Our command is the parent of timeout(1), which runs this.
    let interrupting = "#!/bin/sh\nread -r _ _ _ us _ </proc/$PPID/stat\n\
                        [ \"$*\" = -bV ] && kill -INT $us && kill -TERM $us && kill -INT $us\n\
                        exec /usr/sbin/exim4 \"$@\"\n";
    let exim = site.program("interrupting", interrupting)?;
    let said = site.ctl(&["--exim", &exim, "exim", "enable", "--yes"])?;
    assert_eq!(said.code(), 1);
    assert!(said.stderr.contains("interrupted; every file was put back as it was"), "{said:?}");
    site.must_be(&before)?;

    site.must(&["exim", "enable", "--yes"])?;
    let enabled = site.state()?;
    let said = site.ctl(&["--exim", &exim, "exim", "disable", "--yes"])?;
    assert!(said.stderr.contains("interrupted; every file was put back as it was"), "{said:?}");
    site.must_be(&enabled)?;
    decides_right(&site.host)
}

#[test]
fn exim_is_reloaded_where_systemd_runs_it_and_a_reload_that_fails_puts_everything_back() -> Result<()> {
    let site = Site::split()?;
    let before = site.state()?;
    let bin = site.directory().join("bin");
    fs::create_dir(&bin)?;
    let told = site.directory().join("told");
    let systemctl = |reload: &str| {
        site.program(
            "bin/systemctl",
            &format!("#!/bin/sh\necho \"$@\" >> {}\n[ $1 != reload ] || {reload}\n", told.display()),
        )
    };
    let systemd =
        format!("mount -t tmpfs none /run && mkdir -p /run/systemd/system && export PATH={}:$PATH", bin.display());
    systemctl("{ echo it is stubborn >&2; exit 1; }")?;
    let said = site.ctl_behind(&systemd, &["exim", "enable", "--yes"])?;
    assert!(said.stderr.contains("systemctl reload exim4 failed: it is stubborn; every file was put back"), "{said:?}");
    site.must_be(&before)?;
    assert_eq!(fs::read_to_string(&told)?.matches("reload exim4").count(), 2, "it is told of what was put back, too");
    systemctl("true")?;
    let said = site.ctl_behind(&systemd, &["exim", "enable", "--yes"])?;
    assert!(said.stdout.contains("Exim accepts its new configuration and was reloaded"), "{said:?}");
    // What is there already may not have been told; but nothing is told for a try.
    let reloads = || Ok::<_, anyhow::Error>(fs::read_to_string(&told)?.matches("reload exim4").count());
    let before = reloads()?;
    site.ctl_behind(&systemd, &["exim", "enable", "--dry-run"])?;
    assert_eq!(reloads()?, before);
    site.ctl_behind(&systemd, &["exim", "enable", "--yes"])?;
    assert_eq!(reloads()?, before + 1);
    decides_right(&site.host)
}

#[test]
fn what_a_power_failure_leaves_works_as_before_and_is_completed_by_the_next_call() -> Result<()> {
    let site = Site::split()?;
    let acl = site.host.exim(&["-bP", "acl_smtp_mail"])?.stdout;
    for name in ["acl/10_outgoingd", "retry/10_outgoingd", "router/050_outgoingd"] {
        fs::copy(site.host.snippets().join("debian/conf.d").join(name), site.file(name))?;
        site.host.compose()?;
        site.host.check()?;
        assert_eq!(site.host.exim(&["-bP", "acl_smtp_mail"])?.stdout, acl);
        assert!(!site.host.exim(&["-bP", "router_list"])?.stdout.contains("outgoingd"));
    }
    fs::write(site.file("main/.00_outgoingd.outgoingctl-new"), "half")?;
    let said = site.must(&["exim", "enable", "--yes"])?;
    assert!(!site.file("main/.00_outgoingd.outgoingctl-new").exists());
    decides_right(&site.host)?;
    let in_turn = |said: &str, word: &str| {
        said.lines().filter_map(|line| line.strip_prefix(word)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(in_turn(&said, "written: "), ["/etc/exim4/conf.d/main/00_outgoingd"]);
    let removed = in_turn(&site.must(&["exim", "disable", "--yes"])?, "removed: ");
    let mut written = in_turn(&site.must(&["exim", "enable", "--yes"])?, "written: ");
    assert_eq!(removed.first().map(|path| &**path), Some("/etc/exim4/conf.d/main/00_outgoingd"));
    written.reverse();
    assert_eq!(written, removed);
    Ok(())
}

#[test]
fn edited_files_are_shown_and_replaced_and_removed() -> Result<()> {
    let site = Site::split()?;
    site.must(&["exim", "enable", "--yes"])?;
    let enabled = site.state()?;
    append(&site.file("retry/10_outgoingd"), "# mine\n")?;
    let said = site.must(&["exim", "enable", "--yes"])?;
    assert!(said.contains("-# mine") && said.contains("written: /etc/exim4/conf.d/retry/10_outgoingd\n"), "{said}");
    site.must_be(&enabled)?;
    append(&site.file("retry/10_outgoingd"), "# mine\n")?;
    let said = site.must(&["exim", "disable", "--yes"])?;
    assert!(said.contains("-# mine"), "{said}");
    assert!(FILES.iter().all(|name| !site.file(name).exists()));
    Ok(())
}

#[test]
fn our_files_stay_while_lines_of_ones_own_lead_to_them() -> Result<()> {
    let site = Site::split()?;
    site.must(&["exim", "enable", "--yes"])?;
    // Exim reads a configuration of one's own now, which takes in what is below conf.d.
    let own = "domainlist local_domains = local.test\n.include /etc/exim4/conf.d/main/00_outgoingd\nbegin acl\n\
               acl_check_mail:\n  accept\nacl_check_rcpt:\n  accept\n\
               .include /etc/exim4/conf.d/acl/10_outgoingd\n";
    fs::write(site.host.etc().join("exim4.conf"), own)?;
    let before = site.state()?;
    let said = site.ctl(&["exim", "disable", "--yes"])?;
    assert_eq!(said.code(), 1, "{said:?}");
    assert!(said.stderr.contains("nothing was changed") && said.stderr.contains("exim4.conf:2: .include"), "{said:?}");
    site.must_be(&before)
}

#[test]
fn it_is_switched_off_without_a_daemon_and_without_an_exim() -> Result<()> {
    let mut site = Site::split()?;
    let before = site.state()?;
    site.must(&["exim", "enable", "--yes"])?;
    site.daemon.stop()?;
    let said = site.ctl(&["exim", "disable", "--yes"])?;
    assert!(said.status.success() && said.stderr.contains("is not known"), "{said:?}");
    site.must_be(&before)?;

    site.must(&["exim", "enable", "--yes"])?;
    let without = "mount --bind /dev/null /usr/sbin/exim4";
    let said = site.ctl_behind(without, &["exim", "disable", "--yes"])?;
    assert!(said.status.success() && said.stdout.contains("there is no Exim here any more"), "{said:?}");
    site.must_be(&before)?;
    let said = site.ctl_behind(without, &["exim", "disable", "--yes"])?;
    assert_eq!(said.stdout, "Exim does not ask outgoingd: nothing to do\n");
    Ok(())
}

#[test]
fn where_outgoingd_was_removed_and_the_files_stayed_exim_works_as_without_it() -> Result<()> {
    let own = "OUTGOINGD_NEXT_NOT_SMTP = acl_site\nOUTGOINGD_OTHER_HOLDS = a.test\n";
    let site = Site::split()?
        .with("main/000_localmacros", own)?
        .with("acl/50_site", "acl_site:\n  deny senders = unwanted@local.test\n    message = not you\n  accept\n")?;
    site.must(&["exim", "enable", "--yes"])?;
    decides_right(&site.host)?;
    let (parts, gone) = (site.host.snippets(), site.directory().join("gone"));

    fs::set_permissions(&parts, Permissions::from_mode(0o700))?;
    let said = site.host.run(&["runuser", "-u", "nobody", "--", "/usr/sbin/exim4", "-bV"])?;
    assert!(!said.status.success() && said.stderr.contains("failed to open included"), "{said:?}");
    fs::set_permissions(&parts, Permissions::from_mode(0o755))?;
    for part in ["macros", "routers"] {
        fs::set_permissions(parts.join(part), Permissions::from_mode(0o600))?;
        let as_exim = ["runuser", "-u", "Debian-exim", "--", "/usr/sbin/exim4", "-bP", "hold_domains"];
        let said = site.host.run(&as_exim)?;
        let read_as_root = part == "macros" && said.status.success() && said.stdout.contains("readsocket");
        assert!(read_as_root || said.stderr.contains("failed to open included"), "{part}: {said:?}");
        fs::set_permissions(parts.join(part), Permissions::from_mode(0o644))?;
    }

    fs::rename(&parts, &gone)?;
    site.host.check()?;
    site.host.compose()?;
    assert_eq!(site.host.exim(&["-bP", "hold_domains"])?.stdout, "hold_domains = a.test\n");
    let replies = "EHLO client.test\r\nMAIL FROM:<bob@local.test>\r\nRCPT TO:<friend@outside.test>\r\nQUIT\r\n";
    let session = site.host.exim_with_input(&["-oMai", "bob", "-bs"], replies)?.stdout;
    assert!(session.contains("250 Accepted") && !session.contains("\n55"), "{session}");
    let refused =
        site.host.exim_with_input(&["-f", "unwanted@local.test", "-oep", "postmaster@local.test"], "\nx\n")?;
    assert!(refused.stderr.contains("not you"), "{refused:?}");
    let taken = site.host.exim_with_input(&["-oMai", "alice", "-odi", "nobody@local.test"], "Subject: x\n\nx\n")?;
    ensure!(taken.status.success(), "{taken:?}");
    let log = site.host.log()?;
    assert!(log.lines().last().is_some_and(|line| line.ends_with("Completed")), "{log}");

    // What is left of it is taken away all the same.
    site.must(&["exim", "disable", "--yes"])?;
    assert!(FILES.iter().all(|name| !site.file(name).exists()));
    site.host.check()
}

#[test]
fn parts_that_are_missing_or_closed_are_not_taken_in() -> Result<()> {
    let site = Site::split()?;
    let before = site.state()?;
    fs::set_permissions(site.host.snippets().join("retry"), Permissions::from_mode(0o600))?;
    let said = site.ctl(&["exim", "enable", "--yes"])?;
    assert!(said.code() == 1 && said.stderr.contains("chmod go+r"), "{said:?}");
    fs::remove_file(site.host.snippets().join("retry"))?;
    let said = site.ctl(&["exim", "enable", "--yes"])?;
    assert!(said.code() == 1 && said.stderr.contains("cannot find"), "{said:?}");
    site.must_be(&before)
}

/// Does what was said, as an administrator would.
fn paste(host: &Host, said: &Value) -> Result<()> {
    for paste in said["paste"].as_array().context("nothing to paste")? {
        let (file, place) = (paste["file"].as_str().context("no file")?, paste["place"].as_str().context("no place")?);
        let lines: Vec<&str> =
            paste["lines"].as_array().context("no lines")?.iter().filter_map(Value::as_str).collect();
        let lines = lines.join("\n") + "\n";
        let path = host.etc().join(Path::new(file).strip_prefix("/etc/exim4")?);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let text = if let Some(line) = place.strip_prefix("after the line \"") {
            let line = format!("\n{}\n", line.trim_end_matches('"'));
            assert_eq!(text.matches(&line).count(), 1, "{place}");
            text.replace(&line, &format!("{line}{lines}"))
        } else if place.starts_with("in the main section") {
            let end = text.find("\nbegin ").context("no section")? + 1;
            format!("{}{lines}{}", &text[..end], &text[end..])
        } else {
            assert!(place.starts_with("at its end"), "{place}");
            text + &lines
        };
        fs::write(path, text)?;
    }
    Ok(())
}

/// Enables nothing, and says what to paste.
fn told(site: &Site) -> Result<Value> {
    let before = site.state()?;
    let plain = site.ctl(&["exim", "enable", "--yes"])?;
    assert_eq!((plain.code(), &*plain.stderr), (1, "outgoingctl: nothing was changed\n"));
    assert!(plain.stdout.contains(".include /"), "{plain:?}");
    let said = site.ctl(&["--json", "exim", "enable", "--yes"])?;
    assert_eq!(said.code(), 1);
    site.must_be(&before)?;
    one_object(&said.stdout)
}

#[test]
fn what_is_said_for_debians_unsplit_configuration_works_when_it_is_pasted() -> Result<()> {
    let site = Site { daemon: daemon()?, host: debian("false")? };
    append(&site.host.etc().join("exim4.conf.localmacros"), &Host::site_macros(&site.daemon))?;
    site.host.compose()?;
    assert_eq!(site.must(&["exim", "disable", "--yes"])?, "Exim does not ask outgoingd: nothing to do\n");
    let said = told(&site)?;
    assert_eq!(said["home"], "debian-unsplit");
    paste(&site.host, &said)?;
    let pasted = site.state()?;
    let waits = site.ctl(&["exim", "enable", "--yes"])?;
    assert_eq!((waits.code(), &*waits.stdout), (1, ""), "nothing is to be pasted again: {waits:?}");
    assert!(waits.stderr.contains("the lines are there; run update-exim4.conf"), "{waits:?}");
    let waits = one_object(&site.ctl(&["--json", "exim", "enable", "--yes"])?.stdout)?;
    assert_eq!((&waits["changed"], waits.get("paste")), (&false.into(), None));
    site.must_be(&pasted)?;
    site.host.compose()?;
    decides_right(&site.host)?;
    assert_eq!(site.must(&["exim", "enable", "--yes"])?, PARTS_ARE_THERE);
    let said = site.ctl(&["exim", "disable", "--yes"])?;
    assert!(said.code() == 1 && said.stderr.contains("nothing was changed"), "{said:?}");
    assert!(said.stderr.contains("run update-exim4.conf, check with /usr/sbin/exim4 -bV and reload Exim"), "{said:?}");
    Ok(())
}

#[test]
fn of_lines_of_which_some_are_in_a_file_already_only_the_others_are_to_be_pasted() -> Result<()> {
    let site = Site { daemon: daemon()?, host: debian("false")? };
    site.host.compose()?;
    let said = told(&site)?;
    let mut first = said.clone();
    first["paste"].as_array_mut().context("nothing to paste")?.truncate(1);
    paste(&site.host, &first)?;
    let left = told(&site)?;
    assert_eq!(left["paste"].as_array(), said["paste"].as_array().map(|all| all[1..].to_vec()).as_ref());
    Ok(())
}

/// A part of ours, on a host that has it.
const PART: &str = ".include_if_exists /usr/share/outgoingd/exim-snippets/acl-mail";

/// `exim disable` changes nothing and fails, and says all of these.
fn must_fail_naming(site: &Site, words: &[&str]) -> Result<()> {
    let before = site.state()?;
    let said = site.ctl(&["exim", "disable", "--yes"])?;
    assert_eq!((said.code(), &*said.stdout), (1, ""), "{said:?}");
    for word in words.iter().chain(&["nothing was changed"]) {
        assert!(said.stderr.contains(word), "{word}: {said:?}");
    }
    let now = site.state()?;
    assert!(now == before);
    Ok(())
}

#[test]
fn a_single_line_that_is_left_is_named_whether_it_is_composed_or_not() -> Result<()> {
    let site = Site { daemon: daemon()?, host: debian("false")? };
    let template = site.host.etc().join("exim4.conf.template");
    let (untouched, run) = (fs::read_to_string(&template)?, "run update-exim4.conf");
    // What an editor keeps is nobody's configuration, and neither is a comment.
    fs::write(template.with_extension("template.bak"), PART)?;
    fs::write(&template, format!("# {PART}\n{untouched}"))?;
    site.host.compose()?;
    assert_eq!(site.must(&["exim", "disable", "--yes"])?, "Exim does not ask outgoingd: nothing to do\n");
    let acl = format!(".include {}", site.host.snippets().join("debian/conf.d/acl/10_outgoingd").display());
    fs::write(&template, untouched.replace("\nbegin acl\n", &format!("\nbegin acl\n{acl}\n")))?;
    let place = "/etc/exim4/exim4.conf.template:";
    must_fail_naming(&site, &[place, &acl, "lines of your own", run])?;
    site.host.compose()?;
    must_fail_naming(&site, &[place, &acl, run])?;
    fs::write(&template, &untouched)?;
    must_fail_naming(&site, &["/var/lib/exim4/config.autogenerated:", &acl, run])?;
    site.host.compose()?;
    site.must(&["exim", "disable", "--yes"])?;
    Ok(())
}

#[test]
fn lines_of_ones_own_are_named_though_exim_refuses_its_configuration() -> Result<()> {
    let site = Site::split()?.with("acl/20_site", &format!("{PART}\n"))?;
    let place = format!("/etc/exim4/conf.d/acl/20_site:1: {PART}");
    must_fail_naming(&site, &[&place])?;
    fs::write(site.file("acl/20_site"), format!("{PART}\n"))?;
    append(&site.file("main/00_z_site"), "no_such_option = x\n")?;
    fs::write(site.host.etc().with_file_name("lib").join("config.autogenerated"), "no_such_option = x\n")?;
    must_fail_naming(&site, &[&place])
}

#[test]
fn lines_that_a_configuration_of_ones_own_includes_are_named_with_exim_by_its_own_name() -> Result<()> {
    let site = Site::split()?;
    fs::write(site.host.etc().join("site.conf"), format!("{PART}\n"))?;
    fs::write(site.host.etc().join("exim4.conf"), "begin acl\na:\n.include /etc/exim4/site.conf\n  accept\n")?;
    site.host.check()?;
    must_fail_naming(&site, &["/etc/exim4/site.conf:1: ", "check with /usr/sbin/exim4 -bV and reload Exim"])?;
    append(&site.host.etc().join("exim4.conf"), "no such thing\n")?;
    must_fail_naming(&site, &["/etc/exim4/site.conf:1: "])
}

#[test]
fn what_a_site_had_moved_into_our_macros_is_to_be_put_back_and_said_before_and_behind() -> Result<()> {
    let own = "OUTGOINGD_NEXT_NOT_SMTP = acl_site\nOUTGOINGD_OTHER_HOLDS = a.test : \\\n  b.test\n";
    let site = Site::split()?.with("main/000_localmacros", own)?.with("acl/50_site", "acl_site:\n  accept\n")?;
    append(&site.file("main/000_mine"), "OUTGOINGD_DELAY_WARNING = yes\n")?;
    site.must(&["exim", "enable", "--yes"])?;
    let lines = ["acl_not_smtp = acl_site", "hold_domains = a.test : b.test", "delay_warning_condition = yes"];
    let shown = lines.map(|line| format!("    {line}\n")).concat();
    let enabled = site.state()?;
    let tried = site.must(&["exim", "disable", "--dry-run"])?;
    assert!(tried.contains(&format!("000_localmacros:\n{shown}")), "{tried}");
    let unanswered = site.ctl(&["exim", "disable"])?;
    assert!(unanswered.code() == 2 && unanswered.stdout.contains(&shown), "{unanswered:?}");
    site.must_be(&enabled)?;
    let said = site.must(&["exim", "disable", "--yes"])?;
    assert!(said.matches(&shown).count() == 2 && said.ends_with(&shown), "{said}");
    assert_eq!(site.host.exim(&["-bP", "hold_domains"])?.stdout, "hold_domains = \n");
    append(&site.file("main/000_localmacros"), &lines.map(|line| format!("{line}\n")).concat())?;
    site.host.compose()?;
    site.host.check()?;
    assert_eq!(site.host.exim(&["-bP", "acl_not_smtp"])?.stdout, "acl_not_smtp = acl_site\n");
    Ok(())
}

#[test]
fn programs_are_told_what_is_to_be_put_back() -> Result<()> {
    let site = Site::split()?.with("main/000_localmacros", "OUTGOINGD_OTHER_HOLDS = a.test\n")?;
    let enabled = one_object(&site.must(&["--json", "exim", "enable", "--yes"])?)?;
    assert_eq!(enabled.get("put_back"), None);
    let disabled = one_object(&site.must(&["--json", "exim", "disable", "--yes"])?)?;
    assert_eq!(disabled["put_back"], serde_json::json!(["hold_domains = a.test"]));
    Ok(())
}

#[test]
fn what_is_said_for_a_configuration_of_ones_own_works_when_it_is_pasted() -> Result<()> {
    for strip in [&[][..], &["acl_smtp_mail", "acl_not_smtp"]] {
        // Split answers are there too, and Exim reads none of what is composed of them.
        let site = Site::split()?;
        for (file, text) in [("domains", "local.test\n"), ("aliases", ""), ("mailboxes", ""), ("passwords", "")] {
            fs::write(site.host.etc().join(file), text)?;
        }
        let example = fs::read_to_string(site.host.snippets().join("hand-written/exim.conf"))?;
        let kept = example.lines().filter(|line| !line.starts_with(".include"));
        let kept = kept.filter(|line| !strip.iter().any(|option| line.starts_with(option)));
        let text = kept.collect::<Vec<_>>().join("\n").replace("/etc/exim/", "/etc/exim4/") + "\n";
        fs::write(site.host.etc().join("exim4.conf"), Host::site_macros(&site.daemon) + &text)?;
        let said = told(&site)?;
        assert_eq!(said["home"], "hand-written");
        paste(&site.host, &said)?;
        decides_right(&site.host)?;
        assert_eq!(site.must(&["exim", "enable", "--yes"])?, PARTS_ARE_THERE);
    }
    Ok(())
}
