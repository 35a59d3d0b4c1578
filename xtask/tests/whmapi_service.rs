//! The WHM service as a service: its configuration and certificate, sockets that are handed to it, reloading, stopping,
//! and what peers can take that are slow, many, or no clients at all.

use anyhow::{Context, Result};
use outgoingd_client::Client;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::Signal;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use xtask::testbed::{Daemon, Reply, Whmapi, WhmapiBuilder, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// Where there is no daemon, for tests that need none.
const NO_DAEMON: &str = "/nonexistent/socket";

/// Longer than any test waits, so that nothing ends for this reason.
const NO_DEADLINE: &str = "header-deadline-ms = 120000";

/// A call that has an answer, though there be no daemon, and behind which the connection stays open.
const CALL: &str = "GET /json-api/version?api.version=1 HTTP/1.1\r\nHost: x\r\nAuthorization: whm root:TOKEN\r\n\r\n";

fn alone() -> WhmapiBuilder {
    Whmapi::builder(Path::new(NO_DAEMON))
}

fn status(whmapi: &mut Whmapi) -> Result<String> {
    let last = whmapi.notifications()?.iter().rev().find(|line| line.starts_with("STATUS="));
    Ok(last.context("no STATUS yet")?.clone())
}

/// All that comes until the other end closes the connection, which it must. That it is closed with words unread is no fault.
fn to_the_end(stream: &mut TcpStream) -> Result<String> {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(length) => all.extend_from_slice(&part[..length]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error).context("the connection was not closed"),
        }
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

/// One reply on a connection that stays open.
fn one_reply(stream: &mut TcpStream) -> Result<Reply> {
    let (mut all, mut byte) = (Vec::new(), [0]);
    while !all.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        all.push(byte[0]);
    }
    let reply = Reply::from_text(&String::from_utf8(all)?)?;
    let mut body = vec![0; reply.header("content-length").context("no length")?.parse()?];
    stream.read_exact(&mut body)?;
    Ok(Reply { body: String::from_utf8(body)?, ..reply })
}

#[test]
fn the_status_line_says_where_it_listens_and_the_first_call_behind_ready_is_answered() -> Result<()> {
    let mut whmapi = alone().start()?;
    let address = whmapi.address();
    assert_eq!(status(&mut whmapi)?, format!("STATUS=HTTP on {address}"));
    assert_eq!(whmapi.curl("/", &[])?.status, 404);
    assert!(whmapi.stop()?.success());
    assert!(TcpStream::connect(address).is_err());
    Ok(())
}

#[test]
fn without_a_certificate_it_starts_on_loopback_addresses_only() -> Result<()> {
    let whmapi = alone().prepare()?;
    let configuration = whmapi.configuration().display().to_string();
    for open in ["0.0.0.0:0", "[::]:0"] {
        fs::write(whmapi.configuration(), format!("listen = ['127.0.0.1:0', '{open}']"))?;
        let refused = whmapi.run_to_its_end(&["--config", &configuration])?;
        let shown = String::from_utf8(refused.stderr)?;
        assert_eq!(refused.status.code(), Some(78), "{shown}");
        assert!(shown.contains("in the clear") && shown.contains("certificate"), "{shown}");
    }
    // Handed over, too: what counts is where it listens.
    fs::write(whmapi.configuration(), "listen = ['127.0.0.1:0']")?;
    let address = free_address(Ipv4Addr::UNSPECIFIED)?;
    let mut activator = Command::new("systemd-socket-activate")
        .args(["--listen", &address])
        .arg(whmapi.program())
        .args(["--config", &configuration])
        .stderr(Stdio::null())
        .spawn()?;
    wait_until("the refusal of a socket that is open to all", PATIENCE, || {
        let _ = TcpStream::connect(&address);
        Ok(activator.try_wait()?.is_some())
    })?;
    assert_eq!(activator.wait()?.code(), Some(78));
    Ok(())
}

#[test]
fn an_address_in_use_is_said_so() -> Result<()> {
    let whmapi = alone().prepare()?;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    fs::write(whmapi.configuration(), format!("listen = ['{}']", taken.local_addr()?))?;
    let refused = whmapi.run_to_its_end(&["--config", &whmapi.configuration().display().to_string()])?;
    let shown = String::from_utf8(refused.stderr)?;
    assert!(refused.status.code() == Some(75) && shown.contains("in use"), "{shown}");
    Ok(())
}

/// An address on which nobody listens; somebody else may before it is used.
fn free_address(address: Ipv4Addr) -> Result<String> {
    Ok(TcpListener::bind((address, 0))?.local_addr()?.to_string())
}

#[test]
fn a_socket_that_is_handed_over_is_used() -> Result<()> {
    let mut whmapi = alone().prepare()?;
    let address = free_address(Ipv4Addr::LOCALHOST)?;
    // Listens as systemd does, and starts the service at the first connection, which waits for it. As in its unit, the
    // service has a network of its own, in which nothing is.
    let mut command = Command::new("systemd-socket-activate");
    command.args(["--listen", &address, "--setenv=NOTIFY_SOCKET", "unshare", "--net"]);
    command.arg(whmapi.program()).arg("--config").arg(whmapi.configuration());
    let waiting = thread::spawn({
        let address = address.clone();
        move || -> Result<Reply> {
            let mut stream = None;
            wait_until("the socket", PATIENCE, || {
                stream = TcpStream::connect(&address).ok();
                Ok(stream.is_some())
            })?;
            let mut stream = stream.context("no socket")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(CALL.as_bytes())?;
            one_reply(&mut stream)
        }
    });
    whmapi.spawn(&mut command)?;
    assert_eq!(waiting.join().map_err(|_| anyhow::anyhow!("the client panicked"))??.status, 200);
    assert_eq!(status(&mut whmapi)?, format!("STATUS=HTTP on {address}"));
    assert!(whmapi.stop()?.success());
    Ok(())
}

#[test]
fn the_watchdog_is_kept_quiet() -> Result<()> {
    let mut whmapi = alone().prepare()?;
    let mut command = Command::new(whmapi.program());
    command.arg("--config").arg(whmapi.configuration()).env("WATCHDOG_USEC", "600000").env_remove("WATCHDOG_PID");
    whmapi.spawn(&mut command)?;
    for _ in 0..3 {
        let start = Instant::now();
        whmapi.hear("WATCHDOG=1")?;
        assert!(start.elapsed() < Duration::from_millis(600), "{:?}", start.elapsed());
    }
    Ok(())
}

#[test]
fn a_configuration_is_checked_without_starting_anything() -> Result<()> {
    let whmapi = alone().tls().prepare()?;
    let check = |path: &Path| whmapi.run_to_its_end(&["--check-config", &path.display().to_string()]);
    let good = check(&whmapi.configuration())?;
    assert!(good.status.success() && good.stdout.ends_with(b": ok\n") && good.stderr.is_empty(), "{good:?}");
    let wrong = whmapi.home().join("wrong.toml");
    for (text, words) in [
        ("port = 2087", "port"),
        ("[limits]\nconnections = 0", "limits.connections = 0: expected 1 to 4096"),
        ("certificate = '/nonexistent.pem'", "cannot read a certificate from /nonexistent.pem: No such file"),
        ("certificate = '/etc/passwd'", "cannot read a certificate from /etc/passwd: there is none in it"),
    ] {
        fs::write(&wrong, text)?;
        let refused = check(&wrong)?;
        let shown = String::from_utf8(refused.stderr)?;
        assert_eq!(refused.status.code(), Some(78), "{shown}");
        assert!(shown.contains(words), "{shown}");
    }
    fs::write(&wrong, "")?;
    let warned = check(&wrong)?;
    assert!(warned.status.success() && String::from_utf8(warned.stderr)?.contains("loopback"));
    assert_eq!(whmapi.run_to_its_end(&["--colour"])?.status.code(), Some(2));
    let helped = whmapi.run_to_its_end(&["--help"])?;
    assert!(helped.status.success() && String::from_utf8(helped.stdout)?.contains("Exit status"));
    Ok(())
}

#[test]
fn it_speaks_tls_and_takes_a_new_certificate_at_a_reload() -> Result<()> {
    let mut whmapi = alone().tls().start()?;
    assert!(status(&mut whmapi)?.starts_with("STATUS=HTTPS on 127.0.0.1:"));
    assert_eq!(whmapi.curl("/", &["--tlsv1.3"])?.status, 404);
    assert_eq!(whmapi.curl("/", &["--tls-max", "1.2"])?.status, 404);
    let old = whmapi.home().join("old.pem");
    fs::copy(whmapi.certificate(), &old)?;
    whmapi.make_certificate("127.0.0.1")?;
    assert!(whmapi.curl("/", &[]).is_err(), "the new certificate is not in force yet");
    whmapi.reload()?;
    assert_eq!(whmapi.curl("/", &[])?.status, 404);
    let with_old = whmapi.curl("/", &["--cacert", &old.display().to_string()]);
    assert!(with_old.is_err() || whmapi.curl("/", &[])?.status == 404);
    let told = whmapi.notifications()?.join("\n");
    assert!(
        told.lines().any(|line| line.strip_prefix("MONOTONIC_USEC=").is_some_and(|usec| usec.parse::<u64>().is_ok()))
    );
    Ok(())
}

#[test]
fn a_wrong_certificate_or_configuration_leaves_the_old_one_in_force_and_shows_in_status_and_log() -> Result<()> {
    let mut whmapi = alone().tls().start()?;
    let good = fs::read_to_string(whmapi.configuration())?;
    let (certificate, key) = (whmapi.certificate(), whmapi.home().join("key.pem"));
    let before = [fs::read(&certificate)?, fs::read(&key)?];
    let shows = |whmapi: &mut Whmapi, words: &str| -> Result<()> {
        whmapi.reload()?;
        let shown = status(whmapi)?;
        assert!(shown.contains(words) && whmapi.log().contains(words), "{shown}\n{}", whmapi.log());
        let trusted = whmapi.home().join("trusted.pem");
        fs::write(&trusted, &before[0])?;
        assert_eq!(whmapi.curl("/", &["--cacert", &trusted.display().to_string()])?.status, 404);
        Ok(())
    };
    fs::write(&certificate, "no certificate")?;
    shows(&mut whmapi, "cannot read a certificate from")?;
    // Whole, but not the one of that key.
    whmapi.make_certificate("127.0.0.1")?;
    fs::write(&key, &before[1])?;
    shows(&mut whmapi, "cannot use the certificate")?;
    fs::remove_file(&key)?;
    shows(&mut whmapi, "cannot read a private key from")?;
    fs::write(whmapi.configuration(), format!("colour = 'blue'\n{good}"))?;
    shows(&mut whmapi, "colour")?;
    fs::write(&certificate, &before[0])?;
    fs::write(&key, &before[1])?;
    fs::write(whmapi.configuration(), format!("{good}connections = 7\n"))?;
    shows(&mut whmapi, "these take effect at a restart: limits")?;
    fs::write(whmapi.configuration(), good)?;
    whmapi.reload()?;
    assert!(!status(&mut whmapi)?.contains(';'), "{}", status(&mut whmapi)?);
    Ok(())
}

#[test]
fn calls_that_are_at_work_are_finished_before_it_stops() -> Result<()> {
    let daemon = Daemon::builder().for_everyone().tables(Whmapi::TOKEN_USERS).start()?;
    let secret = Client::new(daemon.socket()).create_token("billing", &[], None)?.0;
    let mut whmapi = Whmapi::builder(&daemon.socket()).limits(NO_DEADLINE).start()?;
    let mut idle = whmapi.connect(PATIENCE)?;
    idle.write_all(CALL.replace("TOKEN", &secret).as_bytes())?;
    one_reply(&mut idle)?;
    daemon.stand_still()?;
    let header = format!("Authorization: whm root:{secret}");
    let descriptors = format!("/proc/{}/fd", whmapi.id()?);
    let before = fs::read_dir(&descriptors)?.count();
    let calling = whmapi
        .curl_command("/json-api/no_such_function?api.version=1", &["--header", &header])
        .stdout(Stdio::piped())
        .spawn()?;
    // It has a connection from curl, and one to the daemon.
    wait_until("the call to be at work", PATIENCE, || Ok(fs::read_dir(&descriptors)?.count() >= before + 2))?;
    whmapi.signal(Signal::TERM)?;
    whmapi.wait_for("STOPPING=1")?;
    let start = Instant::now();
    assert_eq!(to_the_end(&mut idle)?, "");
    assert!(start.elapsed() < Duration::from_secs(5), "who has no call at work is not waited for");
    assert!(TcpStream::connect(whmapi.address()).is_err(), "nobody is let in any more");
    daemon.signal(Signal::CONT)?;
    let reply = Reply::from_text(&String::from_utf8(calling.wait_with_output()?.stdout)?)?;
    assert!(reply.status == 200 && reply.body.contains("no_such_function"), "{reply:?}");
    assert!(whmapi.wait_for_exit()?.success());
    Ok(())
}

#[test]
fn a_stop_does_not_wait_for_who_has_not_called() -> Result<()> {
    for builder in [alone(), alone().tls()] {
        let mut whmapi = builder.limits(NO_DEADLINE).start()?;
        let _silent = whmapi.connect(PATIENCE)?;
        // Answered behind the silent one, so the silent one has been accepted.
        assert_eq!(whmapi.curl("/", &[])?.status, 404);
        let start = Instant::now();
        assert!(whmapi.stop()?.success());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    Ok(())
}

#[test]
fn who_is_slow_with_headers_or_the_next_call_is_not_waited_for() -> Result<()> {
    let whmapi = alone().limits("header-deadline-ms = 300").start()?;
    for begun in ["", "GET /json-api/version HTTP/1.1\r\nHost:", "\r\n", CALL] {
        let mut stream = whmapi.connect(PATIENCE)?;
        let start = Instant::now();
        stream.write_all(begun.as_bytes())?;
        let heard = to_the_end(&mut stream)?;
        let waited = start.elapsed();
        assert!((Duration::from_millis(250)..Duration::from_secs(5)).contains(&waited), "{begun:?}: {waited:?}");
        assert_eq!(heard.starts_with("HTTP/1.1 200"), begun == CALL, "{begun:?}: {heard:?}");
    }
    // Not even one who says a little all the time.
    let mut stream = whmapi.connect(PATIENCE)?;
    let start = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\n")?;
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    while stream.write_all(b"X: y\r\n").is_ok() {
        match stream.read(&mut [0; 512]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => break,
        }
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    Ok(())
}

#[test]
fn who_is_slow_with_the_handshake_is_not_waited_for_and_who_speaks_no_tls_is_nobody() -> Result<()> {
    let whmapi = alone().tls().limits("header-deadline-ms = 300").start()?;
    let start = Instant::now();
    let mut stream = whmapi.connect(PATIENCE)?;
    assert_eq!(to_the_end(&mut stream)?, "");
    assert!(start.elapsed() < Duration::from_secs(5));
    let mut stream = whmapi.connect(PATIENCE)?;
    stream.write_all(CALL.as_bytes())?;
    assert!(!to_the_end(&mut stream)?.contains("HTTP/1.1"));
    assert_eq!(whmapi.curl("/", &[])?.status, 404);
    Ok(())
}

#[test]
fn who_is_slow_with_the_body_is_told_so() -> Result<()> {
    let whmapi = alone().limits("request-deadline-ms = 300").start()?;
    let mut stream = whmapi.connect(PATIENCE)?;
    let head =
        "POST /json-api/version HTTP/1.1\r\nHost: x\r\nAuthorization: whm root:x\r\nContent-Length: 10\r\n\r\nuser";
    stream.write_all(head.as_bytes())?;
    let reply = Reply::from_text(&to_the_end(&mut stream)?)?;
    assert!(reply.status == 408 && reply.json()?["metadata"]["result"] == 0, "{reply:?}");
    Ok(())
}

#[test]
fn who_sends_too_much_is_told_so_when_all_is_sent() -> Result<()> {
    let whmapi = alone().start()?;
    let mut stream = whmapi.connect(PATIENCE)?;
    let length = 4 << 20;
    let head = format!("POST /json-api/version HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&vec![b'x'; length])?;
    assert_eq!(one_reply(&mut stream)?.status, 413);
    Ok(())
}

#[test]
fn who_does_not_take_the_answers_is_not_waited_for() -> Result<()> {
    let whmapi = alone().limits("request-deadline-ms = 100\nheader-deadline-ms = 100").start()?;
    // Before it connects: one that shrinks later does not take what says that the connection has ended.
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    set_socket_recv_buffer_size(&socket, 4096)?;
    rustix::net::connect(&socket, &whmapi.address())?;
    let mut stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    let calls = CALL.repeat(1000);
    let start = Instant::now();
    // It takes no calls while it cannot say its answers, and in the end it gives up.
    let end = loop {
        match stream.write_all(calls.as_bytes()) {
            Ok(()) => assert!(start.elapsed() < Duration::from_secs(120), "it never stopped taking calls"),
            Err(error) => break error.kind(),
        }
    };
    assert!(matches!(end, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "it never gave up: {end:?}");
    assert_eq!(whmapi.curl("/", &[])?.status, 404);
    Ok(())
}

#[test]
fn headers_have_their_bounds() -> Result<()> {
    let whmapi = alone().start()?;
    let long = format!("X: {}", "x".repeat(8 << 10));
    assert_eq!(whmapi.curl("/", &["--header", &long])?.status, 431);
    let long = format!("/?{}", "x".repeat(9 << 10));
    assert!(matches!(whmapi.curl(&long, &[])?.status, 414 | 431));
    let many: Vec<String> = (0..70).map(|number| format!("X-{number}: y")).collect();
    let many: Vec<&str> = many.iter().flat_map(|header| ["--header", header]).collect();
    assert_eq!(whmapi.curl("/", &many)?.status, 431);
    let fits = format!("X: {}", "x".repeat(7 << 10));
    assert_eq!(whmapi.curl("/", &["--header", &fits])?.status, 404);
    Ok(())
}

#[test]
fn what_is_no_http_ends_the_connection_and_nothing_else() -> Result<()> {
    let whmapi = alone().start()?;
    for noise in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = whmapi.connect(PATIENCE)?;
        stream.write_all(noise.as_bytes())?;
        let heard = to_the_end(&mut stream)?;
        assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 400"), "{noise:?}: {heard:?}");
    }
    assert_eq!(whmapi.curl("/", &[])?.status, 404);
    Ok(())
}

#[test]
fn one_address_has_so_many_connections() -> Result<()> {
    let whmapi = alone().limits("connections-per-address = 2").limits(NO_DEADLINE).start()?;
    let call = |stream: &mut TcpStream| -> Result<u16> {
        stream.write_all(CALL.as_bytes())?;
        Ok(one_reply(stream)?.status)
    };
    let mut open = [whmapi.connect(PATIENCE)?, whmapi.connect(PATIENCE)?];
    for stream in &mut open {
        assert_eq!(call(stream)?, 200);
    }
    let mut third = whmapi.connect(PATIENCE)?;
    assert_eq!(to_the_end(&mut third)?, "");
    drop(open);
    wait_until("a place", PATIENCE, || Ok(call(&mut whmapi.connect(PATIENCE)?).is_ok_and(|status| status == 200)))
}

#[test]
fn calls_that_read_the_queue_have_few_places_and_take_none_from_others() -> Result<()> {
    let daemon = Daemon::builder().accounts(&["alice"]).owner("shop.test", "alice").for_everyone();
    let daemon = daemon.tables(Whmapi::TOKEN_USERS).start()?;
    let secret = Client::new(daemon.socket()).create_token("billing", &[], None)?.0;
    // A helper whose work takes long.
    let queue = daemon.home().join("queue");
    let _helper = UnixListener::bind(&queue)?;
    fs::set_permissions(&queue, Permissions::from_mode(0o666))?;
    let keys = format!("queue-socket = '{}'", queue.display());
    let whmapi = Whmapi::builder(&daemon.socket()).keys(&keys).limits("request-deadline-ms = 60000").start()?;
    let header = format!("Authorization: whm root:{secret}");
    let count = "/execute/Email/get_held_message_count?email=ann@shop.test";
    let descriptors = format!("/proc/{}/fd", whmapi.id()?);
    let before = fs::read_dir(&descriptors)?.count();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(whmapi.curl_command(count, &["--header", &header]).stdout(Stdio::null()).spawn()?);
    }
    // Each has a connection from curl, one to the daemon and one to the helper.
    wait_until("four to be at work", PATIENCE, || Ok(fs::read_dir(&descriptors)?.count() >= before + 12))?;
    assert_eq!(whmapi.curl(count, &["--header", &header])?.status, 503);
    let hold = whmapi.curl("/json-api/hold_outgoing_email?api.version=1&user=alice", &["--header", &header])?;
    assert!(hold.status == 200 && hold.body.contains(r#""result":1"#), "{hold:?}");
    for mut curl in waiting {
        curl.kill()?;
        curl.wait()?;
    }
    Ok(())
}

#[test]
fn who_has_shown_nothing_good_keeps_no_place() -> Result<()> {
    let whmapi = alone().limits(NO_DEADLINE).start()?;
    for call in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /json-api/version HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = whmapi.connect(PATIENCE)?;
        stream.write_all(call.as_bytes())?;
        let heard = to_the_end(&mut stream)?;
        assert!(heard.starts_with("HTTP/1.1 40") && heard.contains("connection: close"), "{heard}");
    }
    Ok(())
}

#[test]
fn who_has_said_all_is_answered_though_he_closes_his_side() -> Result<()> {
    let whmapi = alone().limits(NO_DEADLINE).start()?;
    let mut stream = whmapi.connect(PATIENCE)?;
    stream.write_all(CALL.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    assert!(to_the_end(&mut stream)?.contains("cannot reach outgoingd"));
    Ok(())
}

#[test]
fn more_connections_than_there_are_places_wait() -> Result<()> {
    let whmapi = alone().limits("connections = 2").limits(NO_DEADLINE).start()?;
    let mut open = [whmapi.connect(PATIENCE)?, whmapi.connect(PATIENCE)?];
    for stream in &mut open {
        stream.write_all(CALL.as_bytes())?;
        one_reply(stream)?;
    }
    let mut third = whmapi.connect(Duration::from_millis(300))?;
    third.write_all(CALL.as_bytes())?;
    let early = third.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(early, Err(ErrorKind::WouldBlock), "there was no place");
    drop(open);
    third.set_read_timeout(Some(PATIENCE))?;
    assert_eq!(one_reply(&mut third)?.status, 200);
    Ok(())
}

#[test]
fn a_shortage_of_descriptors_passes() -> Result<()> {
    let mut whmapi = alone().prepare()?;
    let line =
        format!("ulimit -n 20 && exec {} --config {}", whmapi.program().display(), whmapi.configuration().display());
    whmapi.spawn(Command::new("sh").args(["-c", &line]))?;
    let many = (0..20).map(|_| whmapi.connect(PATIENCE)).collect::<Result<Vec<_>>>()?;
    wait_until("a shortage", PATIENCE, || Ok(whmapi.log().contains("cannot accept a connection: ")))?;
    drop(many);
    assert_eq!(whmapi.curl("/", &[])?.status, 404);
    assert!(whmapi.log().lines().filter(|line| line.contains("cannot accept")).count() < 20, "{}", whmapi.log());
    Ok(())
}
