//! Calls over HTTP: paths, methods, bodies, who is let in, and in what the answers come. The client is curl(1).

use anyhow::Result;
use outgoingd_client::Client;
use rustix::process::Signal;
use std::fs;
use std::process::Stdio;
use std::time::Duration;
use xtask::testbed::{Daemon, Reply, Whmapi, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// A function that no server has, so that what is seen is the way of the call and not what it does.
const NOTHING: &str = "no_such_function";

fn daemon() -> Result<Daemon> {
    let owned = Daemon::builder().accounts(&["alice"]).owner("shop.test", "alice").owner("other.test", "bob");
    owned.for_everyone().tables(Whmapi::TOKEN_USERS).start()
}

/// The secret of a new token, good for these functions, or for all.
fn token(daemon: &Daemon, name: &str, functions: &[&str]) -> Result<String> {
    let functions: Vec<String> = functions.iter().map(ToString::to_string).collect();
    Ok(Client::new(daemon.socket()).create_token(name, &functions, None)?.0)
}

fn by_root(secret: &str) -> String {
    format!("Authorization: whm root:{secret}")
}

/// `result` and `reason` of an answer of WHM.
fn whm(reply: &Reply) -> Result<(u64, String)> {
    let metadata = &reply.json()?["metadata"];
    assert_eq!(metadata["version"], 1, "{reply:?}");
    Ok((metadata["result"].as_u64().unwrap_or(9), metadata["reason"].as_str().unwrap_or_default().to_owned()))
}

/// `status` and the first error of an answer of UAPI.
fn uapi(reply: &Reply) -> Result<(u64, String)> {
    let answer = reply.json()?;
    Ok((answer["status"].as_u64().unwrap_or(9), answer["errors"][0].as_str().unwrap_or_default().to_owned()))
}

#[test]
fn a_call_is_answered_in_the_format_of_its_face() -> Result<()> {
    let daemon = daemon()?;
    let (secret, whmapi) = (token(&daemon, "billing", &[])?, Whmapi::builder(&daemon.socket()).start()?);
    for prefix in ["", "/cpsess1234567890"] {
        for (path, kind) in [
            (format!("{prefix}/json-api/{NOTHING}?api.version=1"), "application/json; charset=utf-8"),
            (format!("{prefix}/xml-api/{NOTHING}?api.version=1"), "text/xml; charset=utf-8"),
            (format!("{prefix}/execute/Email/{NOTHING}"), "application/json; charset=utf-8"),
        ] {
            let reply = whmapi.curl(&path, &["--header", &by_root(&secret)])?;
            assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)), "{reply:?}");
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            assert_eq!((reply.header("server"), reply.header("access-control-allow-origin")), (None, None));
            assert!(reply.body.contains(NOTHING), "{reply:?}");
        }
    }
    let reply = whmapi.curl(&format!("/json-api/{NOTHING}?api.version=1"), &["--header", &by_root(&secret)])?;
    assert_eq!((whm(&reply)?.0, &reply.json()?["metadata"]["command"]), (0, &NOTHING.into()));
    Ok(())
}

#[test]
fn what_is_no_function_is_not_found() -> Result<()> {
    let daemon = daemon()?;
    let (secret, whmapi) = (token(&daemon, "billing", &[])?, Whmapi::builder(&daemon.socket()).start()?);
    let long = format!("/json-api/{}", "x".repeat(65));
    for path in [
        "/",
        "/json-api",
        "/json-api/",
        "/json-api/version/",
        "/json-api/version/more",
        "/json-api/%ff",
        "/json-api/../json-api/version",
        "//json-api/version",
        "/execute/Email",
        "/cpsess/json-api/version",
        "/cpsessx1/json-api/version",
        "/cpsess1/cpsess1/json-api/version",
        "/login/",
        &long,
    ] {
        let reply = whmapi.curl(&format!("{path}?api.version=1"), &["--header", &by_root(&secret)])?;
        assert_eq!((reply.status, reply.header("content-type")), (404, Some("text/plain; charset=utf-8")), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
    }
    assert!(!whmapi.log().contains("called"), "{}", whmapi.log());
    Ok(())
}

#[test]
fn other_methods_are_refused_with_those_that_are_taken() -> Result<()> {
    let daemon = daemon()?;
    let (secret, whmapi) = (token(&daemon, "billing", &[])?, Whmapi::builder(&daemon.socket()).start()?);
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "BREW"] {
        let reply = whmapi.curl("/json-api/version?api.version=1", &["-X", method, "--header", &by_root(&secret)])?;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, POST")), "{method}");
        assert_eq!(whm(&reply)?.0, 0);
    }
    let reply = whmapi.curl("/execute/Email/hold_outgoing", &["--head"])?;
    assert_eq!((reply.status, reply.header("allow"), reply.body.as_str()), (405, Some("GET, POST"), ""));
    assert!(!whmapi.log().contains("called"), "{}", whmapi.log());
    Ok(())
}

#[test]
fn arguments_come_by_query_and_by_form_and_are_told_in_one_line_of_the_log() -> Result<()> {
    let daemon = daemon()?;
    let (secret, whmapi) = (token(&daemon, "billing", &[])?, Whmapi::builder(&daemon.socket()).start()?);
    let authorization = by_root(&secret);
    let path = format!("/json-api/{NOTHING}");
    let query = format!("{path}?api.version=1&user=query");
    let calls: [(&str, &[&str], &str); 5] = [
        (&query, &[], " user=query:"),
        (&path, &["--data", "api.version=1&user=form"], " user=form:"),
        (&query, &["--data", "user=both"], " user=both:"),
        (&query, &["--data", "email=a%40shop.test", "--get"], " user=query email=a@shop.test:"),
        (&path, &["--data", "api.version=1&user=a%0Ab%1B[31m"], " user=a\\nb\\u{1b}[31m:"),
    ];
    for (path, arguments, line) in calls {
        let reply = whmapi.curl(path, &[arguments, &["--header", &authorization]].concat())?;
        assert_eq!(reply.status, 200);
        assert!(whm(&reply)?.1.contains(NOTHING), "the version was seen: {reply:?}");
        let log = whmapi.log();
        let told = format!("token billing from 127.0.0.1 called {NOTHING}{line}");
        assert_eq!(log.lines().filter(|line| line.contains(&told)).count(), 1, "{told}\n{log}");
    }
    assert!(!whmapi.log().contains(&secret));
    Ok(())
}

#[test]
fn a_body_is_a_form_or_an_object_and_has_its_bound() -> Result<()> {
    let daemon = daemon()?;
    let (secret, whmapi) = (token(&daemon, "billing", &[])?, Whmapi::builder(&daemon.socket()).start()?);
    let authorization = by_root(&secret);
    let post = |kind: &str, arguments: &[&str]| {
        let kind = format!("Content-Type: {kind}");
        let path = format!("/json-api/{NOTHING}");
        whmapi.curl(&path, &[&["--header", &authorization, "--header", &kind], arguments].concat())
    };
    for kind in ["application/jsonp", "multipart/form-data; boundary=x", "text/plain", "application/x-www-form"] {
        let reply = post(kind, &["--data", "{}"])?;
        assert_eq!((reply.status, whm(&reply)?.0), (415, 0), "{kind}");
    }
    let object = post("Application/JSON; charset=utf-8", &["--data", r#"{"api.version":1}"#])?;
    assert!(whm(&object)?.1.contains(NOTHING), "{object:?}");
    for broken in ["{", "[]", r#"{"user":["alice"]}"#] {
        assert_eq!(post("application/json", &["--data", broken])?.status, 400, "{broken}");
    }
    let form = "Application/X-WWW-Form-Urlencoded; charset=utf-8";
    assert!(whm(&post(form, &["--data", "api.version=1"])?)?.1.contains(NOTHING));
    assert!(whm(&post("text/plain", &["--data", ""])?)?.1.contains(NOTHING), "no body is no other body");
    let file = whmapi.home().join("body");
    let body = format!("@{}", file.display());
    let start = "api.version=1&x=";
    for (length, chunked, status) in [
        (65_536, false, 200),
        (65_537, false, 413),
        (65_536, true, 200),
        (65_537, true, 413),
        (1 << 20, true, 413),
        (1 << 23, false, 413),
    ] {
        fs::write(&file, start.to_owned() + &"x".repeat(length - start.len()))?;
        let how: &[&str] = if chunked { &["--header", "Transfer-Encoding: chunked"] } else { &[] };
        let reply = post(form, &[&["--data-binary", &body], how].concat())?;
        assert_eq!((reply.status, whm(&reply)?.0), (status, 0), "{length} {chunked}");
    }
    // Who is refused before anybody looks at the body is told why, too.
    fs::write(&file, "x".repeat(1 << 16))?;
    assert_eq!(whmapi.curl("/json-api/version", &["--data-binary", &body])?.status, 401);
    Ok(())
}

#[test]
fn nobody_is_let_in_without_a_token_and_is_told_what_is_expected() -> Result<()> {
    let daemon = daemon()?;
    let (secret, whmapi) = (
        token(&daemon, "billing", &[])?,
        Whmapi::builder(&daemon.socket()).limits("failed-authentications = 100").start()?,
    );
    let cpanel = format!("cpanel alice:{secret}");
    let reseller = format!("whm reseller:{secret}");
    let (whm_only, both) = ("whm realm=\"WHM\"", "whm realm=\"WHM\", cpanel realm=\"cPanel\"");
    for (path, challenge) in [("/json-api/version", whm_only), ("/execute/Email/hold_outgoing", both)] {
        for (shown, words) in [
            ("", "there is no Authorization"),
            ("Basic cm9vdDpzM2NyZXQ=", "passwords are not taken"),
            ("Bearer x", "not known"),
            (&reseller, "nobody but root"),
            ("whm root", "not well formed"),
            ("whm root:NOSUCHTOKEN", "no such token"),
        ] {
            let header = format!("Authorization: {shown}");
            let reply = whmapi.curl(&format!("{path}?api.version=1"), &["--header", &header])?;
            assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some(challenge)), "{shown}");
            let (done, reason) = if challenge == both { uapi(&reply)? } else { whm(&reply)? };
            assert!(done == 0 && reason.contains(words), "{shown}: {reason}");
        }
    }
    let reply = whmapi.curl("/json-api/version?api.version=1", &["--header", &format!("Authorization: {cpanel}")])?;
    assert!(reply.status == 401 && whm(&reply)?.1.contains("UAPI only"), "{reply:?}");
    for secret in [&secret, "NOSUCHTOKEN", "cm9vdDpzM2NyZXQ="] {
        assert!(!whmapi.log().contains(secret), "a secret in the log");
    }
    assert!(whmapi.log().contains("WARN 127.0.0.1: failed authentication: "), "{}", whmapi.log());
    Ok(())
}

#[test]
fn a_cpanel_account_calls_uapi_on_its_own_behalf() -> Result<()> {
    let daemon = daemon()?;
    let (secret, whmapi) = (token(&daemon, "billing", &[])?, Whmapi::builder(&daemon.socket()).start()?);
    let call = |user: &str, email: &str| {
        let header = format!("Authorization: cPanel {user}:{secret}");
        uapi(&whmapi.curl(&format!("/execute/Email/hold_outgoing?email={email}"), &["--header", &header])?)
    };
    assert_eq!(call("alice", "ann@shop.test")?.0, 1);
    assert_eq!(call("ALICE", "Ann@SHOP.test.")?.0, 1);
    for (user, email) in [("bob", "ann@shop.test"), ("alice", "ann@other.test"), ("root", "ann@shop.test")] {
        let (status, words) = call(user, email)?;
        assert!(status == 0 && words.contains(&format!("{email} does not belong to {user}")), "{words}");
    }
    let told = "token billing for account alice from 127.0.0.1 called hold_outgoing email=ann@shop.test: OK";
    assert!(whmapi.log().contains(told), "{}", whmapi.log());
    Ok(())
}

#[test]
fn a_token_that_is_not_good_for_a_function_is_told_so() -> Result<()> {
    let daemon = daemon()?;
    let (secret, whmapi) = (token(&daemon, "holding", &["hold_outgoing"])?, Whmapi::builder(&daemon.socket()).start()?);
    let call = |path: &str| whmapi.curl(path, &["--header", &by_root(&secret)]);
    let reply = call("/json-api/listaccts?api.version=1")?;
    assert!(reply.status == 403 && whm(&reply)?.1.contains("token holding is good for hold_outgoing"), "{reply:?}");
    let reply = call("/execute/Email/release_outgoing")?;
    assert!(reply.status == 403 && uapi(&reply)?.1.contains("hold_outgoing"), "{reply:?}");
    assert_eq!(call("/execute/Email/hold_outgoing")?.status, 200);
    Client::new(daemon.socket()).revoke_token("holding")?;
    assert_eq!(call("/execute/Email/hold_outgoing")?.status, 401);
    Ok(())
}

#[test]
fn a_service_that_may_not_present_tokens_is_told_which_key_lets_it() -> Result<()> {
    let daemon = Daemon::builder().for_everyone().start()?;
    let (secret, whmapi) = (token(&daemon, "billing", &[])?, Whmapi::builder(&daemon.socket()).start()?);
    let reply = whmapi.curl("/json-api/version?api.version=1", &["--header", &by_root(&secret)])?;
    assert!(reply.status == 403 && whm(&reply)?.1.contains("[access]"), "{reply:?}");
    Ok(())
}

#[test]
fn too_many_failed_authentications_and_an_address_is_refused_without_a_question_to_the_daemon() -> Result<()> {
    let mut daemon = daemon()?;
    let (secret, whmapi) = (
        token(&daemon, "billing", &[])?,
        Whmapi::builder(&daemon.socket()).limits("failed-authentications = 3").start()?,
    );
    let never_shown = token(&daemon, "other", &[])?;
    let path = format!("/json-api/{NOTHING}?api.version=1");
    let call = |header: &str| whmapi.curl(&path, &["--header", header]);
    for shown in ["whm root:WRONG", "Basic eDp5", "whm root:WRONGTOO"] {
        assert_eq!(call(&by_root(&secret))?.status, 200, "neither a success nor nothing shown changes the count");
        assert_eq!(call("X: y")?.status, 401);
        assert_eq!(call(&format!("Authorization: {shown}"))?.status, 401);
    }
    daemon.stop()?;
    // Whoever shares an address with somebody who tries tokens is not kept out, if his was good before.
    let known = call(&by_root(&secret))?;
    assert!(known.status == 200 && whm(&known)?.1.starts_with("cannot reach outgoingd"), "{known:?}");
    for header in [&by_root(&never_shown), "Authorization: whm root:WRONG", "X: y"] {
        let reply = call(header)?;
        assert_eq!((reply.status, whm(&reply)?.0), (429, 0));
        let after: u64 = reply.header("retry-after").unwrap_or_default().parse()?;
        assert!((1..=60).contains(&after), "{after}");
    }
    Ok(())
}

#[test]
fn another_version_of_the_api_is_refused_in_the_answer() -> Result<()> {
    let daemon = daemon()?;
    let (secret, whmapi) = (token(&daemon, "billing", &[])?, Whmapi::builder(&daemon.socket()).start()?);
    for (query, words) in [("", "say api.version=1"), ("?api.version=0", "\"0\""), ("?api.version=2", "\"2\"")] {
        let reply = whmapi.curl(&format!("/json-api/version{query}"), &["--header", &by_root(&secret)])?;
        let (result, reason) = whm(&reply)?;
        assert!(reply.status == 200 && result == 0 && reason.contains(words), "{reply:?}");
    }
    Ok(())
}

#[test]
fn a_daemon_that_is_down_is_a_refusal_that_names_it() -> Result<()> {
    let mut daemon = daemon()?;
    let (secret, whmapi) = (token(&daemon, "billing", &[])?, Whmapi::builder(&daemon.socket()).start()?);
    let call = |path: &str| whmapi.curl(path, &["--header", &by_root(&secret)]);
    daemon.stop()?;
    let reply = call("/json-api/version?api.version=1")?;
    let (result, reason) = whm(&reply)?;
    assert!(reply.status == 200 && result == 0 && reason.starts_with("cannot reach outgoingd at "), "{reply:?}");
    let reply = call("/execute/Email/hold_outgoing")?;
    assert!(reply.status == 200 && uapi(&reply)?.1.starts_with("cannot reach outgoingd at "), "{reply:?}");
    daemon.start_again()?;
    assert!(whm(&call(&format!("/json-api/{NOTHING}?api.version=1"))?)?.1.contains(NOTHING));
    Ok(())
}

#[test]
fn a_daemon_that_stands_still_takes_so_many_calls_and_whoever_comes_then_is_told_to_come_back() -> Result<()> {
    let daemon = daemon()?;
    let whmapi = Whmapi::builder(&daemon.socket()).limits("request-deadline-ms = 1500").start()?;
    let header = by_root(&token(&daemon, "billing", &[])?);
    let path = format!("/json-api/{NOTHING}?api.version=1");
    daemon.stand_still()?;
    let waiting: Vec<_> = (0..16)
        .map(|_| whmapi.curl_command(&path, &["--header", &header]).stdout(Stdio::piped()).spawn())
        .collect::<Result<_, _>>()?;
    let mut replies = Vec::new();
    for child in waiting {
        replies.push(Reply::from_text(&String::from_utf8(child.wait_with_output()?.stdout)?)?);
    }
    for reply in replies {
        let (result, reason) = whm(&reply)?;
        assert!(reply.status == 200 && result == 0 && reason.contains("no answer after 1500 ms"), "{reply:?}");
    }
    // All sixteen are still at work.
    let reply = whmapi.curl(&path, &["--header", &header])?;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{reply:?}");
    assert_eq!(whm(&reply)?.0, 0);
    daemon.signal(Signal::CONT)?;
    wait_until("a place", PATIENCE, || Ok(whmapi.curl(&path, &["--header", &header])?.status == 200))
}
