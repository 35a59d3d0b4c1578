//! What functions of WHM do with Exim's queue, by running `outgoingctl` and by way of the helper, on a real queue.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use outgoingd_client::protocol::message::Secret;
use outgoingd_whmapi::{Outgoingctl, Queue};
use rustix::fs::{FlockOperation, flock};
use xtask::testbed::daemon::{DaemonBuilder, EXIM_VARIABLE};
use xtask::testbed::exim::EXIM;
use xtask::testbed::{Bed, Queued, Whmapi, wait_until};

const FRIEND: &str = "friend@outside.test";

const PATIENCE: Duration = Duration::from_secs(30);

const INFO: &str = "info@shop.test";

/// `outgoingctl` beside the bed's Exim, behind some other words. A program of its own, since the test is not beside it.
fn outgoingctl(bed: &Bed, behind: &[&str]) -> Result<Outgoingctl> {
    // Every user may run it, wherever the sources are.
    let copy = bed.exim.home().join("copy-of-outgoingctl");
    let copied =
        Command::new("cp").arg("--remove-destination").arg(bed.daemon.program("outgoingctl")).arg(&copy).status()?;
    ensure!(copied.success(), "cannot copy outgoingctl");
    let copy = copy.display().to_string();
    let command = bed.command_beside(&[behind, &[&copy]].concat());
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let quoted: Vec<String> =
        words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))).collect();
    let program = bed.exim.home().join(format!("outgoingctl-behind-{}", behind.len()));
    fs::write(&program, format!("#!/bin/sh\nexec {} \"$@\"\n", quoted.join(" ")))?;
    ensure!(Command::new("chmod").arg("+x").arg(&program).status()?.success(), "cannot make a program");
    let (socket, exim) = (bed.daemon.socket(), Some(PathBuf::from(EXIM)));
    Ok(Outgoingctl { program, socket, exim, on_behalf_of: Some("panel".to_owned()) })
}

fn command(bed: &Bed) -> Result<Queue> {
    Ok(Queue::Command(outgoingctl(bed, &[])?))
}

/// The helper beside the bed's Exim, one process for each connection, as its units start it.
struct Helper {
    socket: PathBuf,
    listener: Child,
}

impl Helper {
    fn start(bed: &Bed) -> Result<Helper> {
        let (socket, program) = (bed.exim.home().join("queue"), bed.daemon.program("outgoing-queue"));
        ensure!(program.is_file(), "{} is not built: run `cargo build --workspace --bins`", program.display());
        let environment = [
            format!("--setenv=OUTGOINGCTL={}", bed.daemon.program("outgoingctl").display()),
            format!("--setenv=OUTGOINGCTL_SOCKET={}", bed.daemon.socket().display()),
            format!("--setenv={EXIM_VARIABLE}={EXIM}"),
        ];
        let (at, program) = (socket.display().to_string(), program.display().to_string());
        let mut words = vec!["systemd-socket-activate", "--accept", "--inetd", "--listen", &at];
        words.extend(environment.iter().map(String::as_str));
        words.push(&program);
        let listener = bed.command_beside(&words).stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let helper = Helper { socket, listener };
        wait_until("the helper's socket", PATIENCE, || Ok(helper.socket.exists()))?;
        Ok(helper)
    }

    /// The queue for a call of this function by the token with this secret.
    fn queue(&self, secret: &Secret, function: &str) -> Queue {
        Queue::Helper { socket: self.socket.clone(), secret: secret.clone(), function: function.to_owned() }
    }

    /// What it answers to these bytes.
    fn answer(&self, request: &[u8]) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.listener.kill();
        let _ = self.listener.wait();
    }
}

/// The secret of a token that is good for these functions.
fn token(bed: &Bed, name: &str, functions: &[&str]) -> Result<Secret> {
    let mut words = vec!["token", "create", name];
    words.extend(functions.iter().flat_map(|function| ["--function", function]));
    Ok(Secret(bed.daemon.must(&words)?.trim_end().to_owned()))
}

/// Holds alice and suspends sales@shop.test; queues two messages of info@shop.test, which is held thereby, one of which has a pass,
/// and one of everybody else. Returns those of info@shop.test, the one with a pass last, and the others.
fn fill(bed: &Bed) -> Result<([String; 2], BTreeSet<String>)> {
    bed.hold("alice")?;
    bed.suspend("sales@shop.test", "call 555")?;
    let queue = |identity: &str| bed.exim.enqueue(&Queued::new(identity, &[FRIEND]));
    let own = [queue(INFO)?, queue(INFO)?];
    bed.daemon.must(&["pass", "--keep", &own[1]])?;
    let others = [queue("alice")?, queue("sales@shop.test")?, queue("carol")?];
    Ok((own, others.into()))
}

const RELEASED: &str =
    "{\"metadata\":{\"version\":1,\"reason\":\"OK\",\"result\":1,\"command\":\"release_outgoing_email\"}}\n";

#[test]
fn over_http_held_mail_is_counted_and_deleted_and_what_is_released_is_delivered() -> Result<()> {
    let bed = Bed::configured(|daemon| daemon.for_everyone().tables(Whmapi::TOKEN_USERS), |exim| exim)?;
    let helper = Helper::start(&bed)?;
    fs::set_permissions(&helper.socket, Permissions::from_mode(0o666))?;
    let keys = format!("queue-socket = '{}'", helper.socket.display());
    let whmapi = Whmapi::builder(&bed.daemon.socket()).keys(&keys).start()?;
    let secret = token(&bed, "billing", &[])?.0;
    let call = |path: &str, user: &str| {
        let authorization = format!("Authorization: {user}:{secret}");
        whmapi.curl(path, &["--header", &authorization]).map(|reply| reply.body)
    };
    let uapi = |path: &str, user: &str| -> Result<String> {
        let answer: serde_json::Value = serde_json::from_str(&call(path, user)?)?;
        ensure!(answer["status"] == 1, "{answer}");
        Ok(answer["data"].to_string())
    };
    call("/json-api/hold_outgoing_email?api.version=1&user=alice", "whm root")?;
    for identity in ["alice", "alice", INFO, "carol"] {
        bed.exim.enqueue(&Queued::new(identity, &[FRIEND]))?;
    }
    assert_eq!(uapi(&format!("/execute/Email/get_held_message_count?email={INFO}"), "whm root")?, "1");
    assert_eq!(uapi("/execute/Email/get_held_message_count", "cpanel alice")?, "3");
    assert_eq!(uapi(&format!("/execute/Email/delete_held_messages?email={INFO}"), "cpanel alice")?, "1");
    let release = call("/json-api/release_outgoing_email?api.version=1&user=alice", "whm root")?;
    assert_eq!(release, RELEASED);
    wait_until("alice's mail to be delivered", PATIENCE, || Ok(bed.exim.ids()?.len() == 1))?;
    assert_eq!(bed.outside.count(), 2, "carol's waits for a queue run");
    let trail = bed.daemon.must(&["--json", "log"])?;
    let by_token = trail.lines().filter(|line| line.contains(r#""on_behalf_of":"token billing""#)).count();
    assert_eq!(by_token, 3, "a hold, a removal and a release: {trail}");
    Ok(())
}

#[test]
fn on_the_command_line_what_is_released_is_delivered_behind_the_answer() -> Result<()> {
    let bed = Bed::start()?;
    let call = |words: &[&str]| bed.must(&[&["whmapi1", "--output=json"], words].concat());
    call(&["hold_outgoing_email", "user=alice"])?;
    bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    assert!(bed.must(&["uapi", "Email", "get_held_message_count", "email=info@shop.test"])?.contains("data: 0\n"));
    bed.outside.stall();
    assert_eq!(call(&["release_outgoing_email", "user=alice"])?, RELEASED);
    bed.outside.wait_until_stalled(1)?;
    assert_eq!(bed.outside.count(), 0, "the answer has not waited for it");
    bed.outside.go_on();
    wait_until("alice's mail to be delivered", PATIENCE, || Ok(bed.exim.ids()?.is_empty()))?;
    assert_eq!(bed.outside.count(), 1);
    Ok(())
}

#[test]
fn deliveries_that_nobody_waits_for_take_turns_and_a_release_without_one_says_so() -> Result<()> {
    let bed = Bed::start()?;
    bed.exim.enqueue(&Queued::new("alice", &[FRIEND]))?;
    let mut turns = Vec::new();
    for place in 1..=8 {
        let turn = File::create(format!("{}.delivery-{place}", bed.daemon.socket().display()))?;
        flock(&turn, FlockOperation::NonBlockingLockExclusive)?;
        turns.push(turn);
    }
    let release = || bed.must(&["whmapi1", "--output=json", "release_outgoing_email", "user=alice"]);
    let answer = release()?;
    assert!(answer.contains(r#""result":1"#) && answer.contains("8 deliveries are under way"), "{answer}");
    assert_eq!(bed.outside.count(), 0);
    turns.pop();
    assert_eq!(release()?, RELEASED);
    wait_until("alice's mail to be delivered", PATIENCE, || Ok(bed.exim.ids()?.is_empty()))?;
    Ok(())
}

fn newest_in_trail(bed: &Bed) -> Result<String> {
    bed.daemon.must(&["--json", "log", "-n", "1"])
}

fn counts_and_deletes(bed: &Bed, count: &Queue, delete: &Queue, whom: &str) -> Result<()> {
    let ([held, passed], others) = fill(bed)?;
    assert_eq!(count.count(INFO), Ok(1));
    assert_eq!(count.count("sales@shop.test"), Ok(0), "that is suspended, and not held");
    assert_eq!(delete.delete("sales@shop.test"), Ok(0), "what is not counted is not removed");
    assert_eq!(delete.delete(INFO), Ok(1));
    let left = bed.exim.ids()?;
    assert!(!left.contains(&held) && left.contains(&passed) && left.is_superset(&others), "{left:?}");
    assert_eq!((count.count(INFO), delete.delete(INFO)), (Ok(0), Ok(0)));
    let newest = newest_in_trail(bed)?;
    assert!(newest.contains(&format!(r#""action":"drop","subject":"{INFO}","reason":"1 message, drop""#)), "{newest}");
    assert!(newest.contains(&format!(r#""on_behalf_of":"{whom}""#)), "{newest}");
    assert_eq!(bed.outside.count(), 0, "nothing has left");
    Ok(())
}

#[test]
fn what_is_held_of_a_mailbox_is_counted_and_removed_and_nothing_else() -> Result<()> {
    let bed = Bed::start()?;
    let queue = command(&bed)?;
    counts_and_deletes(&bed, &queue, &queue, "panel")
}

#[test]
fn the_helper_counts_and_removes_for_a_token_which_the_trail_names() -> Result<()> {
    let bed = Bed::start()?;
    let helper = Helper::start(&bed)?;
    let secret = token(&bed, "billing", &["get_held_message_count", "delete_held_messages"])?;
    let [count, delete] =
        ["get_held_message_count", "delete_held_messages"].map(|function| helper.queue(&secret, function));
    counts_and_deletes(&bed, &count, &delete, "token billing")
}

/// A delivery is begun while the outside does not answer, and done when it does; `program` runs below `parent` meanwhile, and has
/// ended and is waited for in the end.
fn delivers(bed: &Bed, queue: &Queue, parent: u32, program: &str) -> Result<()> {
    bed.hold("alice")?;
    let ids = bed.exim.fill_queue(6, |_| Queued::new("alice", &[FRIEND]))?;
    bed.release("alice")?;
    bed.outside.stall();
    queue.deliver("alice")?;
    bed.outside.wait_until_stalled(1)?;
    assert_eq!(bed.outside.count(), 0);
    assert!(has_child(parent, program)?, "no {program} runs");
    bed.outside.go_on();
    wait_until("all to be delivered", PATIENCE, || Ok(bed.exim.ids()?.is_empty()))?;
    assert_eq!(bed.outside.count(), ids.len());
    queue.deliver("alice")?;
    wait_until("the deliveries to be gone", PATIENCE, || Ok(!has_child(parent, program)?))
}

/// Whether a process has a child of that name, or one that has ended and that nobody has waited for.
fn has_child(parent: u32, name: &str) -> Result<bool> {
    let parent = parent.to_string();
    for entry in fs::read_dir("/proc")? {
        // A process may end while it is looked at.
        let stat = fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
        let its_parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        if stat.contains(&format!("({name})")) && its_parent == Some(parent.as_str()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn a_delivery_goes_on_when_its_call_has_been_answered_and_leaves_nothing_behind() -> Result<()> {
    let bed = Bed::start()?;
    // Names end at 15 bytes.
    delivers(&bed, &command(&bed)?, std::process::id(), "copy-of-outgoin")
}

#[test]
fn the_helper_delivers_for_a_token_and_lives_as_long_as_that_takes() -> Result<()> {
    let bed = Bed::start()?;
    let helper = Helper::start(&bed)?;
    let secret = token(&bed, "billing", &["release_outgoing_email"])?;
    let queue = helper.queue(&secret, "release_outgoing_email");
    delivers(&bed, &queue, helper.listener.id(), "outgoing-queue")
}

/// Everybody on the queue is still there, and nothing more is on record.
fn refuses(bed: &Bed, words: &str, call: impl FnOnce() -> std::result::Result<(), String>) -> Result<()> {
    let before = (bed.exim.ids()?, bed.daemon.must(&["log"])?);
    let refused = call().expect_err("it was done");
    assert!(refused.contains(words), "{refused:?} instead of {words:?}");
    assert_eq!((bed.exim.ids()?, bed.daemon.must(&["log"])?), before, "{words}");
    Ok(())
}

#[test]
fn a_token_that_is_none_or_not_good_for_the_function_does_nothing() -> Result<()> {
    let bed = Bed::start()?;
    let helper = Helper::start(&bed)?;
    fill(&bed)?;
    let secret = token(&bed, "billing", &["get_held_message_count", "release_outgoing_email"])?;
    let delete = |secret: &Secret| {
        let queue = helper.queue(secret, "delete_held_messages");
        queue.delete(INFO).map(drop).map_err(|refused| refused.0)
    };
    refuses(&bed, "token billing is good for", || delete(&secret))?;
    refuses(&bed, "there is no such token", || delete(&Secret("A".repeat(32))))?;
    let deliver = helper.queue(&secret, "release_outgoing");
    refuses(&bed, "token billing is good for", || deliver.deliver(INFO).map_err(|refused| refused.0))?;
    assert_eq!(helper.queue(&secret, "get_held_message_count").count(INFO), Ok(1), "that it may do");
    bed.daemon.must(&["token", "revoke", "billing"])?;
    let count = helper.queue(&secret, "get_held_message_count");
    refuses(&bed, "there is no such token", || count.count(INFO).map(drop).map_err(|refused| refused.0))
}

#[test]
fn one_operation_is_never_taken_for_another() -> Result<()> {
    let bed = Bed::start()?;
    let helper = Helper::start(&bed)?;
    fill(&bed)?;
    let secret = token(&bed, "all", &[])?;
    let delete = helper.queue(&secret, "delete_held_messages");
    refuses(&bed, "not what the function", || delete.count(INFO).map(drop).map_err(|refused| refused.0))?;
    refuses(&bed, "not what the function", || delete.deliver(INFO).map_err(|refused| refused.0))?;
    let request = |function: &str, subject: &str| {
        let row = format!(r#"{{"secret":"{}","function":"{function}","subject":"{subject}"}}"#, secret.0);
        helper.answer(format!("{row}\n").as_bytes())
    };
    for (function, subject, words) in [
        ("version", INFO, "version does nothing with Exim's queue"),
        ("hold_outgoing_email", INFO, "does nothing"),
        ("delete_held_messages", "*", "is no mailbox"),
        ("delete_held_messages", "@shop.test", "is no mailbox"),
        ("delete_held_messages", "alice", "is no mailbox"),
        ("delete_held_messages", "", "is no mailbox"),
        ("delete_held_messages", " @shop.test", "not what delete_held_messages takes"),
        ("delete_held_messages", r"\\302\\240@shop.test", "not what delete_held_messages takes"),
        ("get_held_message_count", " *", "not what get_held_message_count takes"),
        ("delete_held_messages", "--older=0s@shop.test", "is no mailbox"),
        ("release_outgoing_email", "-alice", "is no account or mailbox"),
        ("release_outgoing_email", "*", "is no account or mailbox"),
        ("release_outgoing_email", r"ali\nce", "is no account or mailbox"),
    ] {
        refuses(&bed, words, || Err(request(function, subject).unwrap_or_default()))?;
    }
    for malformed in ["", "\n", "GET / HTTP/1.1\r\n", "[]\n", r#"{"secret":7,"function":"version","subject":"a"}"#] {
        refuses(&bed, "no secret", || Err(helper.answer(malformed.as_bytes()).unwrap_or_default()))?;
    }
    assert_eq!(helper.answer(&vec![b'a'; 100_000]).unwrap_or_default(), "", "what has no end has no answer");
    Ok(())
}

#[test]
fn why_nothing_can_be_done_is_said_in_outgoingctls_words() -> Result<()> {
    let administrator = |daemon: DaemonBuilder| daemon.for_everyone().tables("[access]\nadmin-users = ['nobody']");
    let mut bed = Bed::configured(administrator, |exim| exim)?;
    fill(&bed)?;
    let queue = Queue::Command(outgoingctl(&bed, &["runuser", "-u", "nobody", "--"])?);
    refuses(&bed, "may not operate Exim", || queue.deliver(INFO).map_err(|refused| refused.0))?;
    refuses(&bed, "may not operate Exim", || queue.delete(INFO).map(drop).map_err(|refused| refused.0))?;
    let queue = command(&bed)?;
    refuses(&bed, "control character", || queue.count("x\u{7}@shop.test").map(drop).map_err(|refused| refused.0))?;
    bed.daemon.kill9()?;
    for refused in [queue.count(INFO).map(drop), queue.delete(INFO).map(drop), queue.deliver(INFO)] {
        let words = refused.expect_err("there is no daemon").0;
        assert!(words.starts_with("cannot reach outgoingd at "), "{words}");
    }
    let none = Queue::Command(Outgoingctl { program: "/nonexistent/outgoingctl".into(), ..outgoingctl(&bed, &[])? });
    let words = none.count(INFO).expect_err("there is no program").0;
    assert!(words.starts_with("cannot run /nonexistent/outgoingctl: "), "{words}");
    let nobody = Queue::Helper {
        socket: "/nonexistent/queue".into(),
        secret: Secret(String::new()),
        function: "get_held_message_count".to_owned(),
    };
    let words = nobody.count(INFO).expect_err("there is no helper").0;
    assert!(words.contains("/nonexistent/queue") && words.contains("outgoing-queue.socket"), "{words}");
    Ok(())
}
