//! Names that try to be more than a name. The authenticator of these tests lets everyone in under whatever they type, so
//! what they type reaches every place where Exim names the sender: reception, delivery, retry rules, fallback file,
//! rejections.
//!
//! Promised is that a name is asked about and nothing else comes of it, that nobody gets round a flag by spelling, and that
//! no notice is more than one reply.
//!
//! Limits: what an authenticator takes for the same name beyond letter case, white space round it and control characters is
//! not tried; and names spelt outside ASCII are told apart by the fallback file, as the snippets' page says.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use outgoingd_client::protocol::text::MAX_REQUEST;
use xtask::testbed::exim::Expansion;
use xtask::testbed::smtp::Reply;
use xtask::testbed::{Bed, Delivery, Exim, EximBuilder, Letter, RETRY_NEVER};

const FRIEND: &str = "friend@outside.test";

/// Names that are none of alice, bob and root.
fn strange_names(canary: &Path) -> Vec<Vec<u8>> {
    let canary = canary.display();
    let expansions = [
        format!("${{run{{/bin/touch {canary}}}}}"),
        format!("}}}}}}${{run{{/bin/touch {canary}}}}}{{{{{{"),
        format!("\\N${{run{{/bin/touch {canary}}}}}\\N"),
        format!("${{acl{{accept continue = ${{run{{/bin/touch {canary}}}}}}}}}"),
    ];
    let plain = [
        "${readfile{/etc/passwd}}",
        "${lookup{root}lsearch{/etc/passwd}}",
        "$acl_m_outgoingd_verdict",
        "$authenticated_id",
        "OUTGOINGD_OWN_WORDS",
        "}}}{",
        "{{{",
        "\"alice",
        "a\\",
        "%s%n%d",
        "a,b:c;d",
        "+local_domains : !*",
        "<; a",
        "!alice",
        "*",
        "@",
        "*@*",
        "^.*",
        "lsearch;/etc/passwd",
        "# alice",
        ":include:/etc/passwd",
        "ok",
        "check bob",
        "check id= bob",
        "id=1rABCD-000abc-XY bob",
        "id= bob",
        "bob\ncheck id= carol",
        "bob\r\n\r\n.\r\nok",
        "\x1b[2Jx",
        "m\u{fc}ller@b\u{fc}cher.test",
        "\u{202e}ecila",
        " ",
        "\n",
        "",
    ];
    // Exim itself gives up a session (421) when it rejects a name that takes more than 32 KiB to write.
    let long = [vec![b'a'; 320], vec![b'a'; 321], vec![b'a'; 10 * 1024], vec![0xff; 5 * 1024], vec![b' '; 2 * 1024]];
    let mut names: Vec<Vec<u8>> = expansions.into_iter().map(String::into_bytes).collect();
    names.extend(plain.map(|name| name.as_bytes().to_vec()));
    names.extend(long);
    names.push(b"\xff\xfe\x80".to_vec());
    names
}

/// What a login is in `$authenticated_id`, or what stands for it.
fn as_exim_writes(name: &[u8]) -> String {
    if name.is_empty() {
        return "*".to_owned();
    }
    let escaped = |byte: &u8| match byte {
        b'\n' => "\\n".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'\t' | b' '..=b'~' => char::from(*byte).to_string(),
        other => format!("\\{other:03o}"),
    };
    name.iter().map(escaped).collect()
}

/// What came of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Taken(String),
    Refused(Reply),
}

impl Fate {
    fn id(&self) -> Result<&str> {
        match self {
            Self::Taken(id) => Ok(id),
            Self::Refused(reply) => anyhow::bail!("refused: {reply:?}"),
        }
    }
}

/// Logs in under this name and sends one message outside.
fn send_as(exim: &Exim, name: &[u8]) -> Result<Fate> {
    let letter = Letter::new("sender@local.test", &[FRIEND]);
    let mut session = exim.smtp()?;
    let login = session.login(name)?;
    assert_eq!(login.code, 235, "{}: {login:?}", name.escape_ascii());
    let reply = session.send(&letter)?;
    // Whatever was answered, the dialogue goes on as it should.
    assert_eq!(session.command("RSET")?.code, 250, "{}", name.escape_ascii());
    session.quit()?;
    Ok(if reply.is_positive() { Fate::Taken(reply.queue_id()?) } else { Fate::Refused(reply) })
}

/// Every one of these names sends; all that is taken must still wait after an ordinary queue run and a forced one.
fn all_are_held(bed: &Bed, names: &[Vec<u8>]) -> Result<()> {
    let before = bed.outside.recipients();
    let mut sent = Vec::new();
    for name in names {
        sent.push((name, send_as(&bed.exim, name)?));
    }
    for run in ["-q", "-qff"] {
        bed.exim.run_queue(run)?;
        let queue = bed.exim.queue()?;
        for (name, fate) in &sent {
            let id = fate.id()?;
            assert!(queue.iter().any(|message| message.id == id), "{run}, {}", name.escape_ascii());
        }
    }
    assert_eq!(bed.outside.recipients(), before);
    Ok(())
}

fn all_are_delivered(bed: &Bed, names: &[&[u8]]) -> Result<()> {
    let before = bed.outside.recipients().len();
    for name in names {
        let fate = send_as(&bed.exim, name)?;
        bed.exim.deliver(fate.id()?)?;
        assert!(bed.waiting(fate.id()?)?.is_empty(), "{}", name.escape_ascii());
    }
    assert_eq!(bed.outside.recipients().len(), before + names.len());
    Ok(())
}

fn all_are_refused(bed: &Bed, names: &[Vec<u8>]) -> Result<()> {
    for name in names {
        let fate = send_as(&bed.exim, name)?;
        let Fate::Refused(reply) = &fate else { panic!("{}: {fate:?}", name.escape_ascii()) };
        assert_eq!(reply.code, 550, "{}: {reply:?}", name.escape_ascii());
        assert!(unfolded(reply).starts_with("5.7.1 "), "{}: {reply:?}", name.escape_ascii());
    }
    assert_eq!(bed.outside.recipients(), [""; 0]);
    Ok(())
}

/// The text of a refusal, which Exim breaks at spaces where it is long.
fn unfolded(reply: &Reply) -> String {
    let text = reply.text.replace("\n5.7.1 ", " ");
    assert!(!text.contains('\n'), "{reply:?}");
    text
}

/// Where an expansion that should not happen would leave something. Exim's user could.
fn canary(exim: &Exim) -> Result<PathBuf> {
    let canary = exim.home().join("spool/canary");
    let touched = exim.expand(&format!("${{run{{/bin/touch {}}}}}", canary.display()))?;
    assert_eq!(touched, Expansion::Text(String::new()));
    fs::remove_file(&canary).context("an expansion leaves nothing, so nothing would show")?;
    Ok(canary)
}

/// A bed whose messages have outlived every retry rule but ours, with a daemon that logs what it is asked.
fn bed() -> Result<Bed> {
    let mut bed = Bed::varied(|exim| exim.retry(RETRY_NEVER))?;
    log_requests(&mut bed)?;
    Ok(bed)
}

fn log_requests(bed: &mut Bed) -> Result<()> {
    let configuration = fs::read_to_string(bed.daemon.configuration())?;
    fs::write(bed.daemon.configuration(), format!("log-level = 'debug'\n{configuration}"))?;
    bed.daemon.restart()
}

/// What the daemon has been asked so far, escaped.
fn asked(bed: &Bed) -> Vec<String> {
    let log = bed.daemon.log();
    let requests = log.lines().filter_map(|line| line.split_once(" lookup request="));
    requests.filter_map(|(_, rest)| rest.rsplit_once(" answer=")).map(|(request, _)| request.to_owned()).collect()
}

/// A request as the daemon logs it; it reads one byte more than a request may have with its newline.
fn logged(request: &str) -> String {
    let read = &request.as_bytes()[..request.len().min(MAX_REQUEST + 2)];
    read.escape_ascii().to_string()
}

#[test]
fn whatever_the_name_is_exim_asks_about_it_and_nothing_else_comes_of_it() -> Result<()> {
    let bed = bed()?;
    let canary = canary(&bed.exim)?;
    let state = || Ok::<_, anyhow::Error>((bed.daemon.must(&["export"])?, bed.daemon.must(&["log"])?));
    let before = state()?;
    let mut expected = Vec::new();
    for name in strange_names(&canary) {
        let written = as_exim_writes(&name);
        let fate = send_as(&bed.exim, &name)?;
        expected.push(logged(&format!("check id= {written}\n")));
        expected.push(logged(&format!("check id={} {written}\n", fate.id()?)));
    }
    bed.exim.run_queue("-q")?;
    assert!(bed.exim.queue()?.is_empty());
    let mut asked = asked(&bed);
    asked.sort();
    expected.sort();
    assert_eq!(asked, expected);
    assert_eq!(state()?, before);
    assert!(!canary.exists());
    assert_eq!(bed.exim.panic_log()?, "");
    Ok(())
}

#[test]
fn a_hold_on_everyone_holds_every_name_with_the_daemon_and_without_it() -> Result<()> {
    let mut bed = bed()?;
    let canary = canary(&bed.exim)?;
    let names = strange_names(&canary);
    bed.hold("*")?;
    all_are_held(&bed, &names)?;
    bed.daemon.kill9()?;
    all_are_held(&bed, &names)?;
    assert!(!canary.exists());
    assert_eq!(bed.exim.panic_log()?, "");
    Ok(())
}

#[test]
fn a_suspension_of_everyone_stops_every_name_with_the_daemon_and_without_it() -> Result<()> {
    let mut bed = bed()?;
    let canary = canary(&bed.exim)?;
    let names = strange_names(&canary);
    let mut waiting = Vec::new();
    for name in &names {
        waiting.push(send_as(&bed.exim, name)?);
    }
    bed.daemon.must(&["suspend", "*"])?;
    all_are_refused(&bed, &names)?;
    let notices = asked(&bed).into_iter().filter(|request| request.starts_with("notice"));
    let expected = names.iter().map(|name| logged(&format!("notice {}\n", as_exim_writes(name))));
    assert_eq!(notices.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    bed.daemon.kill9()?;
    all_are_refused(&bed, &names)?;
    // What was taken before is bounced, which expands the notice in a router.
    bed.exim.run_queue("-q")?;
    for fate in &waiting {
        assert!(bed.exim.queued(fate.id()?)?.is_none());
    }
    assert_eq!(bed.outside.recipients(), [""; 0]);
    assert!(!canary.exists());
    assert_eq!(bed.exim.panic_log()?, "");
    Ok(())
}

/// Spellings of alice, and of a mailbox in a domain of hers.
const SPELLINGS: &[&[u8]] = &[
    b"alice",
    b"ALICE",
    b"aLiCe",
    b" alice",
    b"alice ",
    b"\talice\t",
    b"alice\n",
    b"alice\r\n",
    b"\nalice",
    b"alice \n",
    b"\x0balice\x0c",
    b"alice\x08",
    b"alice\x01",
    b"ali\x01ce",
    b"ali\tce",
    b"alice\x7f",
    b"alice\xc2\x85",
    b"alice\xc2\x80",
    b"sales@shop.test",
    b"Sales@SHOP.test",
    b"sales@shop.test.",
    b"sales@shop.test ",
    b"sales@shop.test .",
    b"sales@shop.test\n",
    b"sales@shop.test\x01",
    b"sales@shop.\ntest",
    b"sal\xc3\xa9s@shop.test",
    b"al ice@shop.test",
    b"a@b@shop.test",
    b"*@shop.test",
];

fn spellings() -> Vec<Vec<u8>> {
    let padding = vec![b' '; 5 * 1024];
    let padded = [&b"alice"[..], &padding].concat();
    SPELLINGS.iter().map(|name| name.to_vec()).chain([padded]).collect()
}

#[test]
fn no_spelling_of_a_held_name_is_a_way_out_with_the_daemon_and_without_it() -> Result<()> {
    let mut bed = bed()?;
    bed.hold("alice")?;
    all_are_held(&bed, &spellings())?;
    bed.daemon.kill9()?;
    all_are_held(&bed, &spellings())
}

#[test]
fn no_spelling_of_a_suspended_name_is_a_way_out_with_the_daemon_and_without_it() -> Result<()> {
    let mut bed = bed()?;
    bed.suspend("alice", "Call extension 42.")?;
    bed.hold("bob")?;
    all_are_refused(&bed, &spellings())?;
    bed.daemon.kill9()?;
    all_are_refused(&bed, &spellings())
}

#[test]
fn spellings_outside_ascii_of_what_is_held_are_no_way_out_while_the_daemon_answers() -> Result<()> {
    let bed = bed()?;
    bed.hold("alice")?;
    bed.hold("m\u{fc}ller@b\u{fc}cher.test")?;
    let spellings = [
        "alice\u{a0}",
        "\u{3000}alice",
        "sales@\u{ff33}hop.test",
        "sales@shop\u{3002}test",
        "M\u{dc}LLER@B\u{dc}CHER.test",
        "m\u{fc}ller@xn--bcher-kva.test",
        "m\u{fc}ller@b\u{fc}cher.test\n",
    ];
    all_are_held(&bed, &spellings.map(|name| name.as_bytes().to_vec()))
}

#[test]
fn a_backslash_that_was_typed_is_not_taken_for_a_control_character() -> Result<()> {
    let mut bed = bed()?;
    bed.hold(r"dom\nick@shop.test")?;
    bed.hold("bob")?;
    let held = [br"DOM\nick@shop.test".to_vec()];
    let free: [&[u8]; 4] = [br"dom\nicole@shop.test", br"dom\tom", br"bob\", br"b\ob"];
    all_are_held(&bed, &held)?;
    all_are_delivered(&bed, &free)?;
    bed.daemon.kill9()?;
    all_are_held(&bed, &held)?;
    all_are_delivered(&bed, &free)
}

#[test]
fn a_control_character_beside_a_typed_backslash_is_no_way_out_while_the_daemon_answers() -> Result<()> {
    let bed = bed()?;
    bed.hold(r"dom\nick@shop.test")?;
    all_are_held(&bed, &[b"DOM\\nick@shop.test\n".to_vec(), b"DOM\\ni\x01ck@shop.test".to_vec()])
}

#[test]
fn a_pass_that_is_named_in_a_login_passes_nothing() -> Result<()> {
    let bed = bed()?;
    bed.hold("*")?;
    let fate = send_as(&bed.exim, b"bob")?;
    bed.daemon.must(&["pass", "--keep", fate.id()?])?;
    let id = fate.id()?;
    let names = [format!("id={id} bob"), format!("id={id}"), format!("id={id} id={id} bob"), format!("bob id={id}")];
    let sent = names.iter().map(|name| send_as(&bed.exim, name.as_bytes())).collect::<Result<Vec<_>>>()?;
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.outside.recipients(), [FRIEND], "the message that has the pass");
    for (name, fate) in names.iter().zip(&sent) {
        assert_eq!(bed.waiting(fate.id()?)?, [FRIEND], "{name}");
    }
    Ok(())
}

#[test]
fn a_notice_is_one_line_of_the_reply_and_of_the_bounce_whatever_is_in_it() -> Result<()> {
    let bed = bed()?;
    let canary = canary(&bed.exim)?;
    let notices = [
        "250 2.0.0 OK".to_owned(),
        "421 4.3.2 closing".to_owned(),
        r"no\r\n250 OK\n.\n".to_owned(),
        format!("${{run{{/bin/touch {}}}}}", canary.display()),
        "$acl_m_outgoingd_verdict OUTGOINGD_OWN_WORDS".to_owned(),
        "\"quoted\", <bob@local.test>, :include:/etc/passwd".to_owned(),
        ":blackhole:".to_owned(),
        "# not a comment".to_owned(),
        "}}}{ %s%n 100% \\".to_owned(),
        "error, he said".to_owned(),
        "x".repeat(480),
    ];
    for notice in notices {
        let waiting = send_as(&bed.exim, b"alice")?;
        bed.suspend("alice", &notice)?;
        let Fate::Refused(reply) = send_as(&bed.exim, b"alice")? else { panic!("{notice}") };
        assert_eq!((reply.code, unfolded(&reply)), (550, format!("5.7.1 {notice}")));
        bed.exim.run_queue("-q")?;
        let log = bed.exim.log_of(waiting.id()?)?;
        // What looks like a reply code of a router's own is left out.
        let text = notice.trim_start_matches("250 2.0.0 ").trim_start_matches("421 4.3.2 ");
        // Exim 4.100 writes a blank before the colon.
        let bounced = |blank| log.contains(&format!("** {FRIEND} R=outgoingd{blank}: {text}"));
        assert!(bounced("") || bounced(" "), "{notice}: {log:#?}");
        bed.unsuspend("alice")?;
    }
    assert_eq!(bed.outside.recipients(), [""; 0]);
    assert!(!canary.exists());
    Ok(())
}

#[test]
fn a_notice_of_more_than_one_line_is_not_taken() -> Result<()> {
    let bed = Bed::start()?;
    for notice in ["no\r\n250 OK", "no\n250 OK", "no\r250 OK", "no\u{85}yes", "no\u{2028}yes", "\u{1b}[2Jno"] {
        let finished = bed.daemon.ctl(&["suspend", "alice", "--notice", notice])?;
        assert_eq!(finished.code(), 1, "{}: {finished:?}", notice.escape_debug());
    }
    assert_eq!(bed.daemon.must(&["export"])?, "");
    Ok(())
}

#[test]
fn a_subject_that_the_default_notice_names_breaks_no_reply() -> Result<()> {
    let bed = bed()?;
    let mut names = [
        r"250\r\n250@shop.test",
        "\"a,b\"@shop.test",
        "m\u{fc}ller@shop.test",
        "a}{b%n@shop.test",
        "#:fail:@shop.test",
        "${readfile{/etc/passwd}}@shop.test",
        "$acl_m_outgoingd_verdict@shop.test",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push(format!("{}@shop.test", "a".repeat(310)));
    for name in names {
        bed.daemon.must(&["suspend", &name])?;
        let Fate::Refused(reply) = send_as(&bed.exim, name.as_bytes())? else { panic!("{name}") };
        let shown = name.replace(|character: char| !character.is_ascii(), "?");
        let expected = format!("5.7.1 Outgoing mail of {shown} is suspended. Please contact the postmaster.");
        assert_eq!((reply.code, unfolded(&reply)), (550, expected));
    }
    Ok(())
}

#[test]
fn a_program_that_may_name_anybody_is_asked_about_under_that_name_and_no_other() -> Result<()> {
    let bed = bed()?;
    let canary = canary(&bed.exim)?;
    let names = strange_names(&canary).into_iter().filter_map(|name| String::from_utf8(name).ok());
    // Exim takes a longer name for a mistake, and keeps one with a newline so that it cannot read it again.
    let names = names.filter(|name| !name.is_empty() && name.len() < 256 && !name.contains(['\n', '\r']));
    let mut expected = Vec::new();
    for name in names {
        let letter = Letter::new("sender@local.test", &[FRIEND]);
        let id = bed.exim.submit_as(&name, &letter, Delivery::Queued)?.accepted()?;
        let question = logged(&format!("check id={id} {name}\n"));
        expected.extend([question.clone(), question]);
    }
    bed.exim.run_queue("-q")?;
    let mut asked = asked(&bed);
    asked.sort();
    expected.sort();
    assert_eq!(asked, expected);
    assert!(!canary.exists());
    Ok(())
}

#[test]
fn a_user_of_this_host_is_who_he_is_whatever_he_says() -> Result<()> {
    let bed = bed()?;
    bed.hold("*")?;
    let letter = Letter::new("root@local.test", &[FRIEND]);
    let options = ["-oMai", "root", "-oMas", "root", "-oMt", "root"];
    bed.exim.submit_by("nobody", &options, &letter, Delivery::Queued)?.accepted()?;
    let dialogue = format!(
        "EHLO client.test\r\nMAIL FROM:<root@local.test> AUTH=root\r\nRCPT TO:<{FRIEND}>\r\nDATA\r\n{}.\r\nQUIT\r\n",
        letter.text().replace('\n', "\r\n")
    );
    let said = bed.exim.talk_by("nobody", &["-oMai", "root", "-bs"], &dialogue)?.stdout;
    assert!(said.contains("250 OK id="), "{said}");
    assert_eq!(bed.exim.queue()?.len(), 2);
    bed.exim.run_queue("-q")?;
    bed.exim.run_queue("-qff")?;
    assert_eq!(bed.exim.queue()?.len(), 2);
    assert!(asked(&bed).iter().all(|request| request.ends_with(r" nobody\n")), "{:#?}", asked(&bed));
    Ok(())
}

#[test]
fn a_user_of_this_host_stays_who_he_is_behind_starttls() -> Result<()> {
    let mut bed = Bed::varied(EximBuilder::starttls)?;
    log_requests(&mut bed)?;
    bed.hold("*")?;
    let rcpt = format!("RCPT TO:<{FRIEND}>");
    let dialogue = ["EHLO client.test", "MAIL FROM:<x@local.test>", &rcpt, "DATA", "Subject: x", "", "x", "."];
    let held = bed.exim.talk_by_tls("nobody", &["-bs"], &dialogue)?;
    assert!(held.stdout.contains("250 OK id="), "{held:?}");
    bed.exim.run_queue("-q")?;
    assert_eq!(bed.exim.queue()?.len(), 1);
    assert!(asked(&bed).iter().all(|request| request.ends_with(r" nobody\n")), "{:#?}", asked(&bed));
    bed.suspend("*", "no more")?;
    let refused = bed.exim.talk_by_tls("nobody", &["-bs"], &dialogue[..3])?;
    assert!(refused.stdout.contains("550-5.7.1") || refused.stdout.contains("550 5.7.1"), "{refused:?}");
    assert!(bed.outside.recipients().is_empty());
    Ok(())
}

#[test]
fn what_follows_mail_from_and_a_second_login_change_nobodys_name() -> Result<()> {
    let bed = bed()?;
    bed.suspend("alice", "no")?;
    for parameter in ["AUTH=<>", "AUTH=bob", "AUTH=bob@local.test", "AUTH=root", "AUTH=bob+0Acheck"] {
        let mut session = bed.exim.smtp()?;
        session.login("alice")?;
        assert!(!session.login("bob")?.is_positive());
        let reply = session.command(&format!("MAIL FROM:<bob@local.test> {parameter}"))?;
        assert!(reply.is_positive(), "{parameter}: {reply:?}");
        assert_eq!(session.rcpt_to(FRIEND)?.code, 550, "{parameter}");
    }
    let before = asked(&bed);
    let mut stranger = bed.exim.smtp()?;
    assert!(stranger.command("MAIL FROM:<alice@local.test> AUTH=alice")?.is_positive());
    assert!(stranger.rcpt_to("bob@local.test")?.is_positive());
    assert_eq!(asked(&bed), before, "nobody has logged in");
    assert!(before.iter().all(|request| request.ends_with(r" alice\n")), "{before:#?}");
    Ok(())
}
