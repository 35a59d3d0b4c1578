//! outgoingctl as administrators and their scripts see it: tables, JSON, words and exit statuses.

use anyhow::{Context, Result};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use xtask::testbed::Daemon;
use xtask::testbed::daemon::{EXIM_VARIABLE, NO_EXIM};

fn daemon() -> Result<Daemon> {
    Daemon::builder()
        .accounts(&["alice", "carol", "dave"])
        .owner("shop.test", "alice")
        .owner("club.test", "carol")
        .start()
}

#[test]
fn a_hold_is_set_shown_and_cleared() -> Result<()> {
    let daemon = daemon()?;
    assert_eq!(daemon.must(&["hold", "Alice", "--reason", "phished"])?, "alice: held\n");
    assert_eq!(daemon.must(&["hold", "alice"])?, "alice: is held so already, nothing to do\n");
    let list = daemon.must(&["list"])?;
    let row: Vec<&str> = list.lines().nth(1).context("no row")?.split_whitespace().collect();
    assert!(list.starts_with("SUBJECT"), "{list}");
    assert_eq!((row[0], row[1], row[4], row[5], row[6]), ("alice", "hold", "-", "root", "phished"));
    assert_eq!(daemon.must(&["list", "--suspended"])?, "");
    assert!(daemon.must(&["check", "ALICE"])?.starts_with("hold ("));
    assert_eq!(daemon.must(&["release", "--keep", "alice"])?, "alice: released\n");
    assert_eq!(daemon.must(&["release", "--keep", "alice"])?, "alice: is not held, nothing to do\n");
    assert_eq!(daemon.must(&["list"])?, "");
    Ok(())
}

#[test]
fn status_says_through_which_flag_a_subject_is_stopped() -> Result<()> {
    let daemon = daemon()?;
    assert_eq!(daemon.must(&["status", "bob@shop.test"])?, "bob@shop.test: ok, no flag covers it\n");
    daemon.must(&["hold", "alice"])?;
    assert!(
        daemon
            .must(&["status", "bob@shop.test"])?
            .starts_with("bob@shop.test: held through alice, which owns its domain\n")
    );
    daemon.must(&["hold", "bob@shop.test"])?;
    daemon.must(&["suspend", "@shop.test", "--notice", "call 555"])?;
    let status = daemon.must(&["status", "bob@shop.test"])?;
    assert!(status.starts_with("bob@shop.test: suspended through @shop.test\n"), "{status}");
    let flags: Vec<&str> = status.lines().skip(3).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(flags, ["@shop.test", "bob@shop.test", "alice"], "the deciding one first, then by closeness");
    let json = daemon.must(&["--json", "status", "bob@shop.test"])?;
    assert!(
        json.starts_with(
            r#"{"subject":"bob@shop.test","verdict":"suspend","owner":"alice","flags":[{"subject":"@shop.test","#
        ),
        "{json}"
    );
    Ok(())
}

#[test]
fn whoever_is_let_go_but_still_stopped_is_named_in_a_warning() -> Result<()> {
    let daemon = daemon()?;
    daemon.must(&["hold", "alice", "bob@shop.test"])?;
    let released = daemon.ctl(&["release", "--keep", "bob@shop.test"])?;
    assert_eq!(released.code(), 0);
    assert!(released.stderr.contains("bob@shop.test is still held through the hold of alice"), "{released:?}");
    Ok(())
}

#[test]
fn a_refusal_names_the_subject_the_reason_and_the_next_step() -> Result<()> {
    let daemon = daemon()?;
    let long = "x".repeat(2_000);
    let cases: [(&[&str], &str); 12] = [
        (&["hold", "root"], "root can be neither held nor suspended"),
        (&["suspend", "ROOT"], "root can be neither held nor suspended"),
        (&["hold", "alcie"], "no account alcie in"),
        (&["release", "--keep", "alcie"], "no account alcie in"),
        (&["status", "alcie"], "no account alcie in"),
        (&["hold", "bob@nowhere.test"], "no domain nowhere.test in"),
        (&["hold", "a b"], "\"a b\" has a space in it"),
        (&["hold", "*@shop.test"], "a domain (@example.com)"),
        (&["hold", "alice", "--until", "2001-01-01"], "its end lies in the past"),
        (&["hold", "alice", "--reason", &long], "alice was not held: the reason is longer than 1024 bytes"),
        (&["suspend", "alice", "--notice", "gesperrt für immer"], "printable ASCII"),
        (&["pass", "--keep", "not-an-id"], "is not a message id of Exim"),
    ];
    for (arguments, words) in cases {
        let refused = daemon.ctl(arguments)?;
        assert_eq!(refused.code(), 1, "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains(words), "{arguments:?}: {refused:?}");
    }
    assert_eq!(daemon.must(&["export"])?, "");
    Ok(())
}

#[test]
fn of_several_subjects_all_are_tried_and_each_result_is_printed() -> Result<()> {
    let daemon = daemon()?;
    let mixed = daemon.ctl(&["hold", "alice", "root", "nobody-here", "carol"])?;
    assert_eq!(mixed.code(), 1);
    assert_eq!(mixed.stdout, "alice: held\ncarol: held\n");
    assert!(mixed.stderr.ends_with("hold failed for 2 of 4\n"), "{mixed:?}");
    let mixed = daemon.ctl(&["--json", "release", "--keep", "alice", "nobody-here", "carol"])?;
    let lines: Vec<&str> = mixed.stdout.lines().collect();
    assert_eq!(lines[0], r#"{"subject":"alice","command":"release","changed":true}"#);
    assert!(
        lines[1].starts_with(r#"{"subject":"nobody-here","command":"release","error":"no account"#),
        "{}",
        lines[1]
    );
    assert!(lines[1].ends_with(r#""cause":"no-such-subject"}"#), "{}", lines[1]);
    assert_eq!(lines.len(), 3);
    Ok(())
}

#[test]
fn a_flag_with_an_end_says_when() -> Result<()> {
    let daemon = daemon()?;
    assert!(daemon.must(&["hold", "alice", "--for", "24h"])?.starts_with("alice: held until 20"));
    let json = daemon.must(&["--json", "suspend", "carol", "--until", "2035-01-31T08:00:00Z"])?;
    assert_eq!(
        json,
        "{\"subject\":\"carol\",\"command\":\"suspend\",\"changed\":true,\"until\":\"2035-01-31T08:00:00Z\"}\n"
    );
    assert_eq!(daemon.ctl(&["hold", "alice", "--for", "soon"])?.code(), 2);
    assert_eq!(daemon.must(&["hold", "alice"])?, "alice: held\n", "held without an end, whatever was said before");
    assert!(!daemon.must(&["--json", "list", "--held"])?.contains("until"));
    Ok(())
}

#[test]
fn the_log_says_who_did_what_and_on_whose_behalf() -> Result<()> {
    let daemon = daemon()?;
    assert_eq!(daemon.must(&["log"])?, "nothing on record\n");
    daemon.must(&["hold", "alice", "--reason", "phished"])?;
    let by_sudo = daemon.ctl_command().args(["release", "--keep", "alice"]).env("SUDO_USER", "ann").output()?;
    assert!(by_sudo.status.success());
    daemon.must(&["suspend", "carol"])?;
    daemon.must(&["pass", "--keep", "1rABCD-000abc-XY"])?;
    let log = daemon.must(&["--json", "log"])?;
    let actions: Vec<&str> =
        log.lines().filter_map(|line| line.split(r#""action":""#).nth(1)?.split('"').next()).collect();
    assert_eq!(actions, ["hold", "release", "suspend", "pass"], "the newest last");
    assert!(log.lines().nth(1).context("no line")?.contains(r#""by":"root","uid":0,"#));
    assert!(log.lines().nth(1).context("no line")?.contains(r#""on_behalf_of":"ann""#));
    let mut named = daemon.ctl_command();
    named.args(["unsuspend", "carol", "--on-behalf-of", "panel"]).env("SUDO_USER", "ann");
    assert!(named.output()?.status.success());
    assert!(
        daemon.must(&["--json", "log", "-n", "1"])?.contains(r#""on_behalf_of":"panel, by ann""#),
        "nobody hides behind a name"
    );
    assert_eq!(daemon.must(&["log", "alice"])?.lines().count(), 3, "a heading and two entries");
    assert_eq!(daemon.must(&["--json", "log", "-n", "1"])?.lines().count(), 1);
    assert!(daemon.must(&["log", "1rABCD-000abc-XY"])?.contains("pass"));
    Ok(())
}

#[test]
fn a_call_of_whms_is_answered_on_standard_output_whatever_becomes_of_it() -> Result<()> {
    let daemon = daemon()?;
    let refused = daemon.ctl(&["whmapi1", "no_such_function", "user=alice", "--output=json"])?;
    assert_eq!((refused.code(), refused.stderr.as_str()), (1, ""));
    assert!(refused.stdout.contains("Unknown app") && refused.stdout.contains(r#""result":0"#), "{refused:?}");
    let uapi = daemon.ctl(&["uapi", "--output=json", "Email", "no_such_function"])?;
    assert_eq!((uapi.code(), uapi.stderr.as_str()), (1, ""));
    assert!(uapi.stdout.contains(r#""module":"Email""#) && uapi.stdout.contains(r#""apiversion":3"#), "{uapi:?}");
    let no_argument = daemon.ctl(&["whmapi1", "version", "no-argument", "--output=json"])?;
    assert_eq!((no_argument.code(), no_argument.stderr.as_str()), (1, ""));
    assert!(no_argument.stdout.contains("an argument is NAME=VALUE"), "{no_argument:?}");
    for wrong in [&["whmapi1"][..], &["whmapi1", "version", "--no-option"], &["uapi", "Email"]] {
        let wrong = daemon.ctl(wrong)?;
        assert_eq!((wrong.code(), wrong.stdout.as_str()), (2, ""), "{wrong:?}");
    }
    // The same program under the name of WHM's.
    let link = daemon.home().join("whmapi1");
    symlink(daemon.program("outgoingctl"), &link)?;
    let named = Command::new(link)
        .args(["no_such_function", "user=alice", "--output=json"])
        .env("OUTGOINGCTL_SOCKET", daemon.socket())
        .output()?;
    assert_eq!((named.status.code(), String::from_utf8(named.stdout)?), (Some(1), refused.stdout));
    Ok(())
}

#[test]
fn a_token_is_made_once_shown_without_its_secret_and_revoked() -> Result<()> {
    let daemon = daemon()?;
    assert_eq!(daemon.must(&["token", "list"])?, "no tokens\n");
    let made = daemon.ctl(&["token", "create", "billing", "--function", "hold_outgoing_email", "--for", "90d"])?;
    assert_eq!(made.code(), 0, "{made:?}");
    let secret = made.stdout.strip_suffix('\n').context("no line")?;
    assert!(secret.len() >= 32 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric()), "nothing else: {made:?}");
    assert!(made.stderr.contains("billing: made") && !made.stderr.contains(secret), "{made:?}");
    let again = daemon.ctl(&["token", "create", "billing"])?;
    assert_eq!((again.code(), again.stdout.as_str()), (1, ""));
    assert!(again.stderr.contains("there is one of that name"), "{again:?}");
    let json = daemon.must(&["--json", "token", "create", "backup", "--until", "2090-01-31T00:00:00Z"])?;
    let begin = r#"{"command":"token create","name":"backup","secret":""#;
    assert!(json.starts_with(begin) && json.ends_with("\",\"until\":\"2090-01-31T00:00:00Z\"}\n"), "{json}");
    let table = daemon.must(&["token", "list"])?;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "FUNCTIONS", "SINCE", "UNTIL", "BY"]);
    assert_eq!((rows[1][0], rows[1][1], rows[1].last()), ("backup", "all", Some(&"root")));
    assert_eq!((rows[2][0], rows[2][1], rows.len()), ("billing", "hold_outgoing_email", 3));
    let revoked = daemon.ctl(&["token", "revoke", "billing", "nobodys", "backup"])?;
    assert_eq!((revoked.code(), revoked.stdout.as_str()), (1, "billing: revoked\nbackup: revoked\n"));
    assert!(revoked.stderr.contains("token revoke: there is no token nobodys"), "{revoked:?}");
    assert!(revoked.stderr.ends_with("outgoingctl: token revoke failed for 1 of 3\n"), "{revoked:?}");
    assert_eq!(daemon.must(&["--json", "token", "list"])?, "");
    let log = daemon.must(&["log"])?;
    assert!(log.contains("token-create") && log.contains("token-revoke") && !log.contains(secret), "{log}");
    Ok(())
}

#[test]
fn a_token_that_has_ended_is_marked() -> Result<()> {
    let daemon = Daemon::builder().accounts(&["alice"]).clock(1_000_000_000).start()?;
    daemon.must(&["token", "create", "old", "--until", "2001-09-10T00:00:00Z"])?;
    daemon.must(&["token", "create", "new", "--until", "2090-01-31T00:00:00Z"])?;
    let table = daemon.must(&["token", "list"])?;
    let marked: Vec<&str> = table.lines().filter(|line| line.contains("(ended)")).collect();
    assert!(marked.len() == 1 && marked[0].starts_with("old "), "{table}");
    let rows = daemon.must(&["--json", "token", "list"])?;
    let old = rows.lines().find(|row| row.contains(r#""name":"old""#)).context("no row")?;
    assert!(old.ends_with(r#""until":"2001-09-10T00:00:00Z","ended":true,"by":"root"}"#), "{old}");
    Ok(())
}

#[test]
fn a_token_is_not_made_for_a_function_that_is_none() -> Result<()> {
    let daemon = daemon()?;
    let wrong = daemon.ctl(&["token", "create", "billing", "--function", "format_disk"])?;
    assert_eq!(wrong.code(), 2);
    assert!(wrong.stderr.contains("hold_outgoing_email") && wrong.stderr.contains("delete_held_messages"), "{wrong:?}");
    assert_eq!(daemon.must(&["token", "list"])?, "no tokens\n");
    Ok(())
}

#[test]
fn what_is_exported_is_imported_again_with_all_it_says() -> Result<()> {
    let daemon = daemon()?;
    daemon.must(&["hold", "alice", "--reason", "phished \"twice\"", "--for", "7d"])?;
    daemon.must(&["suspend", "@shop.test", "--notice", "call 555"])?;
    let exported = daemon.must(&["export"])?;
    assert_eq!(exported.lines().count(), 2);
    let file = daemon.home().join("export");
    fs::write(&file, &exported)?;
    let file = file.display().to_string();
    assert_eq!(daemon.must(&["import", &file])?, "0 set, 2 already so, 0 refused\n");
    daemon.must(&["release", "--keep", "alice"])?;
    daemon.must(&["unsuspend", "@shop.test"])?;
    assert_eq!(daemon.must(&["import", &file])?, "2 set, 0 already so, 0 refused\n");
    assert_eq!(daemon.must(&["export"])?, exported);
    Ok(())
}

#[test]
fn wrong_lines_of_an_import_are_named_and_the_others_are_set() -> Result<()> {
    let daemon = daemon()?;
    let lines = "# comment\n\n{\"subject\":\"alice\",\"flag\":\"hold\"}\nnonsense here\n{\"subject\":\"root\",\"flag\":\"hold\"}\n{\"subject\":\"carol\"}\ndave\n";
    let imported = daemon.ctl_with_input(&["import", "-", "--as", "suspend"], lines)?;
    assert_eq!(imported.code(), 1);
    assert_eq!(imported.stdout, "2 set, 0 already so, 3 refused\n");
    for words in
        ["line 4: \"nonsense here\" has a space in it", "line 5: root can be neither", "line 6: is no flag in JSON"]
    {
        assert!(imported.stderr.contains(words), "{imported:?}");
    }
    assert!(daemon.must(&["check", "dave"])?.starts_with("suspend"));
    Ok(())
}

#[test]
fn cpanels_lists_are_read_by_their_names() -> Result<()> {
    let daemon = daemon()?;
    for (name, account) in [("outgoing_mail_hold_users", "alice"), ("outgoing_mail_suspended_users", "carol")] {
        let file = daemon.home().join(name);
        fs::write(&file, format!("{account}\n"))?;
        assert_eq!(daemon.must(&["import", &file.display().to_string()])?, "1 set, 0 already so, 0 refused\n");
    }
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"));
    assert!(daemon.must(&["check", "carol"])?.starts_with("suspend"));
    let unnamed = daemon.ctl_with_input(&["import", "-"], "dave\n")?;
    assert!(unnamed.code() == 1 && unnamed.stderr.contains("--as hold"), "{unnamed:?}");
    Ok(())
}

#[test]
fn a_list_longer_than_a_frame_comes_in_pages() -> Result<()> {
    let reason = "r".repeat(1_000);
    let accounts: Vec<String> = (0..3_000).map(|number| format!("user{number:05}")).collect();
    let daemon = Daemon::builder().accounts(&accounts.iter().map(String::as_str).collect::<Vec<_>>()).start()?;
    let lines: Vec<String> = accounts
        .iter()
        .map(|account| format!(r#"{{"subject":"{account}","flag":"hold","reason":"{reason}"}}"#))
        .collect();
    let imported = daemon.ctl_with_input(&["import", "-"], &lines.join("\n"))?;
    assert_eq!(imported.stdout, "3000 set, 0 already so, 0 refused\n", "{}", imported.stderr);
    let exported = daemon.must(&["export"])?;
    let subjects: Vec<&str> = exported.lines().filter_map(|line| line.split('"').nth(3)).collect();
    assert_eq!(subjects, accounts, "all of them, each once, in order");
    assert_eq!(daemon.must(&["--json", "log", "-n", "2500"])?.lines().count(), 2_500);
    assert_eq!(daemon.must(&["list"])?.lines().count(), 3_001);
    Ok(())
}

#[test]
fn a_daemon_that_stands_still_keeps_nobody_who_asks_longer_than_exim_even_if_its_queue_is_full() -> Result<()> {
    let daemon = daemon()?;
    daemon.stand_still()?;
    let _silent = daemon.fill_the_queue()?;
    let begun = Instant::now();
    let asked = daemon.ctl(&["check", "alice"])?;
    assert_eq!(asked.code(), 69, "{asked:?}");
    assert!(asked.stderr.contains("in time"), "{asked:?}");
    // Two seconds, and what a slow machine needs.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    Ok(())
}

#[test]
fn a_daemon_that_is_not_there_is_exit_status_69_with_advice() -> Result<()> {
    let mut daemon = daemon()?;
    daemon.stop()?;
    for arguments in [&["hold", "alice"][..], &["check", "alice"], &["list"]] {
        let failed = daemon.ctl(arguments)?;
        assert_eq!(failed.code(), 69, "{failed:?}");
        assert!(failed.stderr.contains("is it running?"), "{failed:?}");
    }
    Ok(())
}

#[test]
fn a_pipe_that_is_closed_early_is_no_error() -> Result<()> {
    let daemon = daemon()?;
    daemon.must(&["hold", "alice", "carol", "dave"])?;
    let piped = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "{{ {} --socket {} export; echo $? >&2; }} | true",
            daemon.program("outgoingctl").display(),
            daemon.socket().display()
        ))
        .env(EXIM_VARIABLE, NO_EXIM)
        .output()?;
    assert_eq!(String::from_utf8(piped.stderr)?, "0\n");
    Ok(())
}

#[test]
fn a_change_is_carried_out_to_its_end_though_nobody_reads_what_it_prints() -> Result<()> {
    let daemon = daemon()?;
    let piped = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "{{ {} --socket {} hold alice ROOT carol; echo $? >&2; }} | true",
            daemon.program("outgoingctl").display(),
            daemon.socket().display()
        ))
        .env(EXIM_VARIABLE, NO_EXIM)
        .output()?;
    let words = String::from_utf8(piped.stderr)?;
    assert!(words.ends_with("\n1\n"), "{words}");
    assert_eq!(daemon.must(&["export"])?.lines().count(), 2);
    Ok(())
}

#[test]
fn a_flag_that_has_ended_since_it_was_exported_is_no_error_to_import() -> Result<()> {
    let daemon = daemon()?;
    let line = "{\"subject\":\"alice\",\"flag\":\"hold\",\"until\":\"2001-01-01T00:00:00Z\"}\n";
    let imported = daemon.ctl_with_input(&["import", "-"], line)?;
    assert_eq!((imported.code(), imported.stdout.as_str()), (0, "0 set, 1 already so, 0 refused\n"));
    Ok(())
}

#[test]
fn a_name_copied_from_exims_log_is_the_sender_it_stands_for() -> Result<()> {
    let daemon = daemon()?;
    daemon.must(&["hold", r"b\303\274cher@shop.test"])?;
    assert!(daemon.must(&["check", "BÜCHER@shop.test"])?.starts_with("hold"));
    assert!(daemon.must(&["check", r"b\303\274cher@shop.test"])?.starts_with("hold"));
    Ok(())
}

#[test]
fn root_is_said_to_be_free_whatever_is_set() -> Result<()> {
    let daemon = daemon()?;
    daemon.must(&["hold", "*"])?;
    assert!(daemon.must(&["status", "root"])?.starts_with("root: ok, whatever is set\n"));
    assert!(daemon.must(&["check", "root"])?.starts_with("ok"));
    assert!(daemon.must(&["check", "anybody"])?.starts_with("hold"));
    Ok(())
}

/// Reads what Prometheus' own client library for Python makes of the text: each sample, a line each.
const EXPOSITION: &str = "\
import sys
from prometheus_client.parser import text_string_to_metric_families as families
for family in families(sys.stdin.read()):
    assert family.documentation and family.type in ('counter', 'gauge', 'histogram'), family
    for sample in family.samples:
        labels = ','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))
        print(family.type, sample.name, labels, sample.value)";

#[test]
fn stats_for_prometheus_are_read_by_a_parser_and_agree_with_the_others() -> Result<()> {
    let daemon = daemon()?;
    daemon.must(&["hold", "alice"])?;
    for identity in ["alice", "alice", "carol"] {
        daemon.must(&["check", identity])?;
    }
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", EXPOSITION])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    python.stdin.take().context("no stdin")?.write_all(daemon.must(&["stats", "--prometheus"])?.as_bytes())?;
    let read = python.wait_with_output()?;
    assert!(read.status.success());
    let samples = String::from_utf8(read.stdout)?;
    for expected in [
        "gauge outgoingd_build_info version=0.1.0 1.0",
        "gauge outgoingd_flags kind=hold 1.0",
        "counter outgoingd_lookups_total verdict=hold 2.0",
        "counter outgoingd_lookups_total verdict=ok 1.0",
        "counter outgoingd_changes_total  1.0",
        "histogram outgoingd_lookup_duration_seconds_count  3.0",
        "histogram outgoingd_lookup_duration_seconds_bucket le=+Inf 3.0",
    ] {
        assert!(samples.lines().any(|sample| sample == expected), "{expected} is not in\n{samples}");
    }
    let buckets =
        samples.lines().filter_map(|line| line.strip_prefix("histogram outgoingd_lookup_duration_seconds_bucket le="));
    let counts: Vec<f64> = buckets.filter_map(|bucket| bucket.rsplit(' ').next()?.parse().ok()).collect();
    assert!(counts.len() == 23 && counts.is_sorted(), "{counts:?}");
    assert!(daemon.ctl(&["stats", "--prometheus", "--json"])?.code() == 2, "one format or the other");
    Ok(())
}

#[test]
fn stats_count_lookups_by_verdict_and_tell_their_latency() -> Result<()> {
    let daemon = daemon()?;
    daemon.must(&["hold", "alice"])?;
    for identity in ["alice", "carol", "carol", "not a name"] {
        daemon.ctl(&["check", identity])?;
    }
    let stats = daemon.must(&["--json", "stats"])?;
    for counter in
        [r#""held":1,"#, r#""lookups_hold":1,"#, r#""lookups_ok":2,"#, r#""malformed":1,"#, r#""changes":1,"#]
    {
        assert!(stats.contains(counter), "{counter} in {stats}");
    }
    assert!(!stats.contains(r#""latency_p50_ns":0,"#), "{stats}");
    assert!(daemon.must(&["stats"])?.contains("latency p99"));
    Ok(())
}

#[test]
fn what_others_typed_cannot_play_with_the_terminal() -> Result<()> {
    let daemon = daemon()?;
    let refused = daemon.ctl(&["hold", "evil\x1b[2Jname"])?;
    assert!(!refused.stderr.contains('\x1b') && refused.stderr.contains("control character"), "{refused:?}");
    daemon.must(&["hold", "carol", "--reason", "turn \u{202e}round"])?;
    let shown = daemon.must(&["list"])?;
    assert!(shown.contains(r"turn \u{202e}round"), "{shown}");
    let refused = daemon.ctl(&["hold", "alice", "--reason", "line\nbreak"])?;
    assert!(refused.stderr.contains("line break"), "{refused:?}");
    Ok(())
}

#[test]
fn a_fallback_file_that_cannot_be_written_is_said_beside_the_change_which_stands() -> Result<()> {
    let daemon = Daemon::builder().accounts(&["alice"]).start()?;
    let mut obstacle = daemon.fallback().into_os_string();
    obstacle.push(".new");
    fs::create_dir(&obstacle)?;
    let held = daemon.ctl(&["hold", "alice"])?;
    assert_eq!((held.code(), held.stdout.as_str()), (0, "alice: held\n"));
    assert!(held.stderr.contains("cannot write the fallback file"), "{held:?}");
    assert!(daemon.must(&["check", "alice"])?.starts_with("hold"));
    fs::remove_dir(&obstacle)?;
    let released = daemon.ctl(&["release", "--keep", "alice"])?;
    assert_eq!((released.code(), released.stderr.as_str()), (0, ""));
    Ok(())
}
