//! The daemon's socket, raw bytes in and out: both languages, who may, and what a peer cannot do.

use anyhow::Result;
use outgoingd_client::protocol::codec;
use outgoingd_client::protocol::frame::{self, HEADER_LEN, Header};
use outgoingd_client::protocol::message::{Call, Cause, Reply, Request};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use xtask::testbed::daemon::{EXIM_VARIABLE, NO_EXIM};
use xtask::testbed::{Daemon, wait_until};

/// Longer than anything here takes, shorter than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(10);

fn connect(daemon: &Daemon) -> Result<UnixStream> {
    let stream = UnixStream::connect(daemon.socket())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// What comes back for these bytes and an end-of-file.
fn ask(daemon: &Daemon, request: &[u8]) -> Result<Vec<u8>> {
    let mut stream = connect(daemon)?;
    let sent = stream.write_all(request).and_then(|()| stream.shutdown(Shutdown::Write));
    match sent.map_err(|error| error.kind()) {
        // Whoever says too much is answered, and hung up on, before all of it is said.
        Ok(()) | Err(ErrorKind::BrokenPipe | ErrorKind::NotConnected | ErrorKind::ConnectionReset) => rest(&mut stream),
        Err(error) => Err(std::io::Error::from(error).into()),
    }
}

/// Everything up to the end. A peer that is hung up on with unread bytes is told so by the kernel; what came before counts.
fn rest(stream: &mut UnixStream) -> Result<Vec<u8>> {
    let mut reply = Vec::new();
    match stream.read_to_end(&mut reply) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(reply),
    }
}

fn call(stream: &mut UnixStream, request: Request) -> Result<Reply> {
    stream.write_all(&frame::seal(&codec::encode(&Call { on_behalf_of: None, request })?)?)?;
    let (_, payload) = read_frame(stream)?;
    Ok(codec::decode(&payload)?)
}

fn read_frame(stream: &mut UnixStream) -> Result<(Header, Vec<u8>)> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header)?;
    let header = Header::decode(&header)?;
    let mut payload = vec![0; header.length as usize];
    stream.read_exact(&mut payload)?;
    Ok((header, payload))
}

/// outgoingctl by the user `nobody`, who is in no group that matters.
fn ctl_by_nobody(daemon: &Daemon, arguments: &[&str]) -> Result<Output> {
    // The tree of the sources may be closed to other users.
    let program = daemon.home().join("outgoingctl");
    // By a process of its own: a descriptor for writing that another test's child inherits would make the program busy.
    Command::new("cp").arg(daemon.program("outgoingctl")).arg(&program).status()?;
    Ok(Command::new("setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"])
        .arg(program)
        .arg("--socket")
        .arg(daemon.socket())
        .args(arguments)
        .env(EXIM_VARIABLE, NO_EXIM)
        .output()?)
}

#[test]
fn a_text_request_gets_its_reply_and_nothing_more() -> Result<()> {
    let daemon = Daemon::builder().accounts(&["alice", "carol"]).owner("shop.test", "alice").start()?;
    daemon.must(&["hold", "alice"])?;
    daemon.must(&["suspend", "carol", "--notice", "call 555"])?;
    let cases: [(&[u8], &[u8]); 12] = [
        (b"check bob", b"ok"),
        (b"check alice", b"hold"),
        (b"check alice\n", b"hold"),
        (b"check id= ALICE", b"hold"),
        (b"check id=1rABCD-000abc-XY bob@shop.test", b"hold"),
        (b"check carol", b"suspend"),
        (b"notice carol", b"call 555"),
        (b"check root", b"ok"),
        (b"check alice\nx", b"error"),
        (b"check a b", b"error"),
        (b"check", b"error"),
        (b"\n", b"error"),
    ];
    for (request, reply) in cases {
        assert_eq!(ask(&daemon, request)?.escape_ascii().to_string(), reply.escape_ascii().to_string());
    }
    Ok(())
}

#[test]
fn a_newline_ends_a_request_without_an_end_of_file() -> Result<()> {
    let daemon = Daemon::builder().start()?;
    let mut stream = connect(&daemon)?;
    stream.write_all(b"check alice\n")?;
    assert_eq!(rest(&mut stream)?, b"ok");
    Ok(())
}

#[test]
fn a_request_may_come_byte_by_byte() -> Result<()> {
    let daemon = Daemon::builder().start()?;
    let mut stream = connect(&daemon)?;
    for byte in b"check alice" {
        stream.write_all(&[*byte])?;
        // Another lookup in between, so that the daemon has seen this byte alone.
        assert_eq!(ask(&daemon, b"check carol")?, b"ok");
    }
    stream.shutdown(Shutdown::Write)?;
    assert_eq!(rest(&mut stream)?, b"ok");
    Ok(())
}

#[test]
fn a_request_that_is_too_long_gets_error() -> Result<()> {
    let daemon = Daemon::builder().start()?;
    assert_eq!(ask(&daemon, format!("check {}", "a".repeat(1018)).as_bytes())?, b"error", "no identity is so long");
    assert_eq!(ask(&daemon, format!("check {}", "a".repeat(100_000)).as_bytes())?, b"error");
    assert_eq!(ask(&daemon, format!("check {}", "a".repeat(320)).as_bytes())?, b"ok");
    Ok(())
}

#[test]
fn a_peer_that_is_too_slow_gets_error_at_the_deadline_and_keeps_nobody_waiting() -> Result<()> {
    let daemon = Daemon::builder().tables("[limits]\nrequest-deadline-ms = 300").start()?;
    let (mut silent, mut half) = (connect(&daemon)?, connect(&daemon)?);
    half.write_all(b"check al")?;
    let mut half_frame = connect(&daemon)?;
    half_frame.write_all(&frame::MAGIC)?;
    assert_eq!(ask(&daemon, b"check alice")?, b"ok");
    for stream in [&mut silent, &mut half] {
        assert_eq!(rest(stream)?, b"error", "a reply is never empty");
    }
    assert_eq!(rest(&mut half_frame)?, b"");
    Ok(())
}

#[test]
fn a_request_without_a_byte_gets_error() -> Result<()> {
    let daemon = Daemon::builder().start()?;
    assert_eq!(ask(&daemon, b"")?, b"error");
    Ok(())
}

#[test]
fn peers_that_hang_up_early_give_their_places_back() -> Result<()> {
    let daemon = Daemon::builder().tables("[limits]\nmax-connections = 8\nmax-connections-per-uid = 8").start()?;
    let frame = frame::seal(&codec::encode(&Request::Stats)?)?;
    for _ in 0..100 {
        for beginning in [&b""[..], b"check al", b"check alice", &frame::MAGIC, &frame] {
            let mut stream = connect(&daemon)?;
            // Whoever comes while all places are taken may be hung up on before it has said a word.
            let _ = stream.write_all(beginning);
            drop(stream);
        }
    }
    wait_until("eight places", PATIENCE, || {
        // Places are given back behind the hanging up, so a first try may come too early.
        let waiting: Vec<UnixStream> = (0..8).map(|_| connect(&daemon)).collect::<Result<_>>()?;
        let answered = |mut stream: UnixStream| -> Result<bool> {
            stream.write_all(b"check al")?;
            stream.write_all(b"ice\n")?;
            Ok(rest(&mut stream)? == b"ok")
        };
        Ok(waiting.into_iter().map(answered).all(|answered| answered.is_ok_and(|answered| answered)))
    })
}

#[test]
fn no_text_changes_anything() -> Result<()> {
    let daemon = Daemon::builder().accounts(&["alice"]).start()?;
    for request in [
        "hold alice",
        "suspend alice",
        "set alice",
        "check alice\nhold alice",
        "pass 1rABCD-000abc-XY",
        "{\"hold\":\"alice\"}",
    ] {
        assert_eq!(ask(&daemon, request.as_bytes())?, b"error", "{request}");
    }
    assert_eq!(daemon.must(&["export"])?, "");
    assert_eq!(daemon.must(&["--json", "log"])?, "");
    Ok(())
}

#[test]
fn many_requests_follow_each_other_on_one_connection() -> Result<()> {
    let daemon = Daemon::builder().accounts(&["alice"]).start()?;
    let mut stream = connect(&daemon)?;
    for _ in 0..3 {
        assert!(matches!(call(&mut stream, Request::Stats)?, Reply::Stats(_)));
    }
    // Two in one write.
    let stats = frame::seal(&codec::encode(&Call { on_behalf_of: None, request: Request::Stats })?)?;
    stream.write_all(&stats.repeat(2))?;
    for _ in 0..2 {
        let (_, payload) = read_frame(&mut stream)?;
        assert!(matches!(codec::decode(&payload)?, Reply::Stats(_)));
    }
    Ok(())
}

#[test]
fn a_version_that_is_not_spoken_is_refused_in_words_that_name_both() -> Result<()> {
    let daemon = Daemon::builder().start()?;
    let mut stream = connect(&daemon)?;
    stream.write_all(&frame::seal_as(7, b"whatever that version says")?)?;
    let (header, words) = read_frame(&mut stream)?;
    assert_eq!(header.version, frame::PLAIN_REFUSAL);
    let words = String::from_utf8(words)?;
    assert!(words.contains("version 1 ") && words.contains("version 7"), "{words}");
    assert_eq!(rest(&mut stream)?, b"");
    Ok(())
}

#[test]
fn what_is_no_frame_and_what_claims_to_be_a_huge_one_is_hung_up_on() -> Result<()> {
    let daemon = Daemon::builder().start()?;
    for bytes in
        [&b"\xf5GET / HTTP/1.1\r\n"[..], b"\xf5OGD\x00\x01\xff\xff\xff\xff", b"\xf5OGD\x00\x01\x00\x10\x00\x01"]
    {
        assert_eq!(ask(&daemon, bytes)?, b"", "{}", bytes.escape_ascii());
    }
    let mut stream = connect(&daemon)?;
    stream.write_all(&frame::seal(b"\xff\xff\xff")?)?;
    let (_, payload) = read_frame(&mut stream)?;
    assert!(matches!(codec::decode(&payload)?, Reply::Refused(refusal) if refusal.cause == Cause::Invalid));
    Ok(())
}

#[test]
fn whoever_is_not_configured_may_ask_as_exim_does_and_nothing_else() -> Result<()> {
    let daemon = Daemon::builder().accounts(&["alice"]).for_everyone().start()?;
    let asked = ctl_by_nobody(&daemon, &["check", "alice"])?;
    assert!(asked.status.success() && asked.stdout.starts_with(b"ok "), "{asked:?}");
    for arguments in
        [&["hold", "alice"][..], &["list"], &["log"], &["stats"], &["pass", "--keep", "1rABCD-000abc-XY"], &["export"]]
    {
        let refused = ctl_by_nobody(&daemon, arguments)?;
        let words = String::from_utf8(refused.stderr)?;
        assert_eq!(refused.status.code(), Some(77), "{arguments:?}: {words}");
        assert!(words.contains("nobody") && words.contains("[access]"), "{words}");
    }
    assert_eq!(daemon.must(&["export"])?, "");
    Ok(())
}

#[test]
fn a_reader_may_look_and_an_administrator_may_change() -> Result<()> {
    let daemon =
        Daemon::builder().accounts(&["alice"]).for_everyone().tables("[access]\nreader-users = ['nobody']").start()?;
    assert!(ctl_by_nobody(&daemon, &["list"])?.status.success());
    assert_eq!(ctl_by_nobody(&daemon, &["hold", "alice"])?.status.code(), Some(77));

    let daemon =
        Daemon::builder().accounts(&["alice"]).for_everyone().tables("[access]\nadmin-groups = ['nogroup']").start()?;
    assert!(ctl_by_nobody(&daemon, &["hold", "alice"])?.status.success());
    let log = daemon.must(&["--json", "log"])?;
    assert!(log.contains(r#""by":"nobody","uid":65534"#), "{log}");
    Ok(())
}

#[test]
fn one_users_silent_connections_do_not_take_everybodys_place() -> Result<()> {
    let daemon =
        Daemon::builder().tables("[limits]\nmax-connections-per-uid = 4\nrequest-deadline-ms = 10000").start()?;
    let begun = Instant::now();
    let silent: Vec<_> = (0..6).map(|_| connect(&daemon)).collect::<Result<_>>()?;
    // Complete requests need no place, so they are answered before and behind the bound.
    assert_eq!(ask(&daemon, b"check alice")?, b"ok");
    let turned_away = |stream: &UnixStream| -> Result<bool> {
        stream.set_nonblocking(true)?;
        let mut reply = [0; 5];
        Ok((&*stream).read(&mut reply).is_ok_and(|length| &reply[..length] == b"error"))
    };
    let mut count = 0;
    wait_until("two of six to be turned away", PATIENCE, || {
        count += silent.iter().map(turned_away).collect::<Result<Vec<_>>>()?.into_iter().filter(|away| *away).count();
        Ok(count == 2)
    })?;
    assert!(begun.elapsed() < Duration::from_secs(9), "at once, not at the deadline");
    Ok(())
}

#[test]
fn whoever_may_do_nothing_is_told_so_before_a_payload_is_taken() -> Result<()> {
    let daemon = Daemon::builder().for_everyone().start()?;
    let file = daemon.home().join("list");
    let line = format!("{{\"subject\":\"alice\",\"flag\":\"hold\",\"reason\":\"{}\"}}\n", "r".repeat(1000));
    fs::write(&file, line.repeat(600))?;
    let refused = ctl_by_nobody(&daemon, &["import", &file.display().to_string()])?;
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    Ok(())
}

#[test]
fn an_administrator_in_another_pid_namespace_is_served() -> Result<()> {
    let daemon = Daemon::builder().accounts(&["alice"]).start()?;
    let mut foreign = Command::new("unshare");
    foreign
        .args(["--pid", "--fork", "--"])
        .arg(daemon.program("outgoingd"))
        .arg("--config")
        .arg(daemon.configuration());
    foreign.arg("--socket").arg(daemon.home().join("other")).arg("--state-dir").arg(daemon.home().join("other-state"));
    // The fallback file is the first daemon's; this one does without.
    let configuration = fs::read_to_string(daemon.configuration())?;
    let own = configuration.lines().filter(|line| !line.starts_with("fallback-file")).collect::<Vec<_>>().join("\n");
    fs::write(daemon.configuration(), format!("fallback-file = ''\n{own}"))?;
    let mut running = foreign.env_remove("NOTIFY_SOCKET").spawn()?;
    let socket = daemon.home().join("other");
    let held = wait_until("the other daemon", PATIENCE, || {
        let held = Command::new(daemon.program("outgoingctl"))
            .arg("--socket")
            .arg(&socket)
            .args(["hold", "alice"])
            .env(EXIM_VARIABLE, NO_EXIM)
            .output()?;
        Ok(held.status.success())
    });
    // unshare forks: its child ends with the namespace's first process, which is that child.
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.id()))?;
    for child in children.split_whitespace() {
        Command::new("kill").args(["-KILL", child]).status()?;
    }
    running.wait()?;
    held
}
