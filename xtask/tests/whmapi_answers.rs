//! Both faces of WHM API 1 and UAPI give the same answer: one table of calls, made on the command line and over HTTP, in each format,
//! each time to a daemon of its own; read back by tools that nobody here wrote (jq, xmllint, Python's parsers), and compared.

use anyhow::{Context, Result, ensure};
use outgoingd_client::Client;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::process::{Command, Output, Stdio};
use xtask::testbed::{Daemon, Whmapi};

/// A call of WHM API 1 and what comes of it: `result`, what `reason` says, and `data`.
struct Case {
    function: &'static str,
    arguments: &'static [(&'static str, &'static str)],
    result: u8,
    /// A part of it.
    reason: &'static str,
    data: fn() -> Value,
}

/// The whole life of an account's flags, every refusal, and the listings. In this order.
const CASES: &[Case] = &[
    done("hold_outgoing_email", &[("user", "alice")]),
    // Twice is once.
    done("hold_outgoing_email", &[("user", "alice")]),
    returns("accountsummary", &[("user", "alice")], || accounts(&[("alice", 1, 0)])),
    done("suspend_outgoing_email", &[("user", "ALICE ")]),
    done("suspend_outgoing_email", &[("user", "carol")]),
    returns("accountsummary", &[("user", "alice")], || accounts(&[("alice", 1, 1)])),
    done("unsuspend_outgoing_email", &[("user", "alice")]),
    returns("listaccts", &[], || accounts(&[("alice", 1, 0), ("bob", 0, 0), ("carol", 0, 1)])),
    returns(
        "listaccts",
        &[
            ("api.filter.enable", "1"),
            ("api.filter.a.field", "outgoing_mail_hold"),
            ("api.filter.a.arg0", "1"),
            ("api.filter.a.type", "=="),
        ],
        || accounts(&[("alice", 1, 0)]),
    ),
    returns(
        "listaccts",
        &[("api.sort.enable", "1"), ("api.sort.a.field", "user"), ("api.sort.a.reverse", "1")],
        || accounts(&[("carol", 0, 1), ("bob", 0, 0), ("alice", 1, 0)]),
    ),
    returns("listaccts", &[("api.chunk.enable", "1"), ("api.chunk.size", "1"), ("api.chunk.start", "2")], || {
        accounts(&[("bob", 0, 0)])
    }),
    returns(
        "listaccts",
        &[("api.columns.enable", "1"), ("api.columns.a", "user")],
        || json!({ "acct": [{ "user": "alice" }, { "user": "bob" }, { "user": "carol" }] }),
    ),
    // Which users are held is asked of the one that is no longer.
    done("release_outgoing_email", &[("user", "alice")]),
    returns("accountsummary", &[("user", "alice")], || accounts(&[("alice", 0, 0)])),
    refused("hold_outgoing_email", &[], "\"user\" is missing"),
    refused("hold_outgoing_email", &[("user", "")], "\"user\" is missing"),
    refused("suspend_outgoing_email", &[("usr", "alice")], "\"user\" is missing"),
    refused("hold_outgoing_email", &[("user", "alcie")], "no account alcie"),
    refused("release_outgoing_email", &[("user", "alcie")], "no account alcie"),
    refused("unsuspend_outgoing_email", &[("user", "alcie")], "no account alcie"),
    refused("accountsummary", &[("user", "alcie")], "no account alcie"),
    refused("hold_outgoing_email", &[("user", "root")], "root can be neither held nor suspended"),
    refused("suspend_outgoing_email", &[("user", " Root")], "root can be neither held nor suspended"),
    refused("hold_outgoing_email", &[("user", "*")], "\"*\" is no account"),
    refused("hold_outgoing_email", &[("user", "@shop.test")], "\"@shop.test\" is no account"),
    refused("hold_outgoing_email", &[("user", "bob@shop.test")], "\"bob@shop.test\" is no account"),
    refused("hold_outgoing_email", &[("user", "al ice")], "has a space in it"),
    refused("accountsummary", &[("user", " @shop.test")], "\" @shop.test\" is no account"),
    returns("accountsummary", &[("user", "root")], || accounts(&[("root", 0, 0)])),
    refused("hold_outgoing_email", &[("user", "<b>&\"'\u{7}\u{fc}]]>")], "control character"),
    refused("listaccts", &[("api.filter.enable", "1"), ("api.filter.a.type", "like")], "api.filter.a"),
    refused("listaccts", &[("search", "alice")], "\"search\""),
    refused(
        "createacct",
        &[("username", "dave")],
        "Unknown app (\"createacct\") requested for this version (1) of the API.",
    ),
    returns("applist", &[], || json!({ "app": outgoingd_client::protocol::function::WHM })),
    returns("version", &[], || json!({ "version": "VERSION" })),
];

const fn done(function: &'static str, arguments: &'static [(&'static str, &'static str)]) -> Case {
    returns(function, arguments, || Value::Null)
}

const fn returns(
    function: &'static str,
    arguments: &'static [(&'static str, &'static str)],
    data: fn() -> Value,
) -> Case {
    Case { function, arguments, result: 1, reason: "OK", data }
}

const fn refused(
    function: &'static str,
    arguments: &'static [(&'static str, &'static str)],
    reason: &'static str,
) -> Case {
    Case { function, arguments, result: 0, reason, data: || Value::Null }
}

fn accounts(rows: &[(&str, u8, u8)]) -> Value {
    let row = |(user, hold, suspended): &(&str, u8, u8)| json!({ "user": user, "outgoing_mail_hold": hold, "outgoing_mail_suspended": suspended });
    json!({ "acct": rows.iter().map(row).collect::<Vec<_>>() })
}

/// One way to make a call and to read what comes back.
#[derive(Clone, Copy, Debug)]
enum Face {
    /// `outgoingctl whmapi1 --output=…`
    Command(&'static str),
    /// HTTP: the first part of the path, and how arguments are sent.
    Http(&'static str, Sending),
}

#[derive(Clone, Copy, Debug)]
enum Sending {
    Query,
    Form,
}

const FACES: [Face; 9] = [
    Face::Command("json"),
    Face::Command("jsonpretty"),
    Face::Command("yaml"),
    Face::Command("xml"),
    Face::Http("/json-api", Sending::Query),
    Face::Http("/json-api", Sending::Form),
    Face::Http("/cpsess0123456789/json-api", Sending::Query),
    Face::Http("/xml-api", Sending::Query),
    Face::Http("/cpsess1/xml-api", Sending::Form),
];

/// A daemon, and the two faces of it.
struct Stage {
    daemon: Daemon,
    whmapi: Whmapi,
    token: String,
}

impl Stage {
    fn new() -> Result<Stage> {
        Stage::with("")
    }

    /// With more keys in the daemon's configuration.
    fn with(keys: &str) -> Result<Stage> {
        let daemon = Daemon::builder()
            .accounts(&["alice", "bob", "carol"])
            .owner("shop.test", "alice")
            .for_everyone()
            .keys(keys)
            .tables(Whmapi::TOKEN_USERS)
            .start()?;
        let token = Client::new(daemon.socket()).create_token("billing", &[], None)?.0;
        let whmapi = Whmapi::builder(&daemon.socket()).start()?;
        Ok(Stage { daemon, whmapi, token })
    }

    /// What a call prints, and whether the exit status says that it was carried out.
    fn call(&self, face: Face, function: &str, arguments: &[(&str, &str)]) -> Result<(String, Option<bool>)> {
        match face {
            Face::Command(format) => {
                let words = arguments.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
                let words: Vec<String> = ["whmapi1".to_owned(), format!("--output={format}"), function.to_owned()]
                    .into_iter()
                    .chain(words)
                    .collect();
                let finished = self.daemon.ctl(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
                ensure!(finished.stderr.is_empty(), "{}", finished.stderr);
                let ended_well = finished.code() == 0;
                Ok((finished.stdout, Some(ended_well)))
            }
            Face::Http(path, sending) => {
                let all = [("api.version", "1")].into_iter().chain(arguments.iter().copied());
                let data: Vec<String> = all.map(|(name, value)| format!("{name}={value}")).collect();
                let authorization = format!("Authorization: whm root:{}", self.token);
                let mut words = vec!["--header", &authorization];
                words.extend(data.iter().flat_map(|data| ["--data-urlencode", data]));
                words.extend(matches!(sending, Sending::Query).then_some("--get"));
                let reply = self.whmapi.curl(&format!("{path}/{function}"), &words)?;
                ensure!(reply.status == 200, "{reply:?}");
                Ok((reply.body, None))
            }
        }
    }
}

/// A value as it is typed on WHM's command line.
fn encoded(value: &str) -> String {
    value
        .bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The trees that were printed, by a parser of somebody else.
fn read_back(face: Face, texts: &[String]) -> Result<Vec<Value>> {
    let all = texts.concat();
    let lines = match face {
        Face::Command("yaml") => filter(&["/usr/bin/python3", "-c", YAML_TO_JSON], &all)?,
        Face::Command("xml") | Face::Http("/xml-api" | "/cpsess1/xml-api", _) => {
            let documents: String = texts.iter().map(|text| text.trim_end()).collect();
            filter(&["xmllint", "--noout", "-"], &format!("<all>{documents}</all>"))?;
            filter(&["/usr/bin/python3", "-c", XML_TO_JSON], &all)?
        }
        _ => filter(&["jq", "--compact-output", "."], &all)?,
    };
    lines.lines().map(|line| serde_json::from_str(line).with_context(|| format!("{face:?}: {line}"))).collect()
}

const YAML_TO_JSON: &str = "\
import json, sys, yaml
for document in yaml.safe_load_all(sys.stdin):
    print(json.dumps(document))";

/// XML documents, one a line, as JSON: what has elements is an object, a name that comes twice is a list, all else is text.
const XML_TO_JSON: &str = "\
import json, sys, xml.etree.ElementTree as tree
def value(element):
    if not len(element):
        return element.text or ''
    members = {}
    for child in element:
        members.setdefault(child.tag, []).append(value(child))
    return {name: values if len(values) > 1 else values[0] for name, values in members.items()}
for line in sys.stdin:
    root = tree.fromstring(line)
    assert root.tag == 'result', root.tag
    print(json.dumps(value(root)))";

fn filter(command: &[&str], input: &str) -> Result<String> {
    let mut child =
        Command::new(command[0]).args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("no stdin")?.write_all(input.as_bytes())?;
    let Output { status, stdout, .. } = child.wait_with_output()?;
    ensure!(status.success(), "{command:?}: {status} of {input}");
    Ok(String::from_utf8(stdout)?)
}

/// A tree as XML can say it: text and nothing else, and a list of one is what is in it.
fn as_xml_says_it(tree: &Value) -> Value {
    match tree {
        Value::Object(object) => {
            let said: Map<String, Value> =
                object.iter().map(|(name, value)| (name.clone(), as_xml_says_it(value))).collect();
            if said.is_empty() { json!("") } else { said.into() }
        }
        Value::Array(values) => match &values[..] {
            [] => json!(""),
            [one] => as_xml_says_it(one),
            values => values.iter().map(as_xml_says_it).collect(),
        },
        // What XML cannot hold.
        Value::String(text) => json!(text.replace('\u{7}', "\u{fffd}")),
        Value::Null => json!(""),
        other => json!(other.to_string()),
    }
}

#[test]
fn every_call_of_whm_has_the_same_answer_on_every_face_in_every_format() -> Result<()> {
    let first = answers(FACES[0])?;
    let version = Daemon::builder().start()?.must(&["--version"])?;
    for (case, tree) in CASES.iter().zip(&first) {
        let about = format!("{} {:?}: {tree}", case.function, case.arguments);
        let metadata = tree["metadata"].as_object().context("no metadata")?;
        assert_eq!(metadata.keys().collect::<Vec<_>>(), ["version", "reason", "result", "command"], "{about}");
        assert_eq!((&metadata["version"], &metadata["result"]), (&json!(1), &json!(case.result)), "{about}");
        assert_eq!(metadata["command"], case.function, "{about}");
        let reason = metadata["reason"].as_str().context("no reason")?;
        assert!(if case.result == 1 { reason == case.reason } else { reason.contains(case.reason) }, "{about}");
        let data = (case.data)().to_string().replace("VERSION", version.trim().trim_start_matches("outgoingctl "));
        assert_eq!(tree["data"].to_string(), data, "{about}");
    }
    for face in &FACES[1..] {
        for (tree, first) in answers(*face)?.iter().zip(&first) {
            let is_xml = matches!(face, Face::Command("xml") | Face::Http("/xml-api" | "/cpsess1/xml-api", _));
            assert_eq!(*tree, if is_xml { as_xml_says_it(first) } else { first.clone() }, "{face:?}");
        }
    }
    Ok(())
}

/// What all calls are answered on one face.
fn answers(face: Face) -> Result<Vec<Value>> {
    let stage = Stage::new()?;
    let mut texts = Vec::new();
    for case in CASES {
        let (text, ended_well) = stage.call(face, case.function, case.arguments)?;
        assert_eq!(ended_well.unwrap_or(case.result == 1), case.result == 1, "{face:?}: {text}");
        texts.push(text.replace(&stage.daemon.home().display().to_string(), "/home"));
    }
    let mut trees = read_back(face, &texts)?;
    assert_eq!(trees.len(), CASES.len());
    for (case, tree) in CASES.iter().zip(&mut trees) {
        // Here is no Exim that could deliver, which is told in words of whoever should have.
        if let Some(output) = tree["metadata"].as_object_mut().and_then(|metadata| metadata.remove("output")) {
            assert_eq!(case.function, "release_outgoing_email", "{face:?}");
            assert!(output.to_string().contains("what has waited goes with Exim's next queue run"), "{output}");
        }
    }
    Ok(trees)
}

#[test]
fn the_functions_answer_to_the_letter() -> Result<()> {
    let stage = Stage::new()?;
    // The one that releases says more where there is no Exim: it is where there is one (whmapi_queue).
    for function in ["hold_outgoing_email", "suspend_outgoing_email", "unsuspend_outgoing_email"] {
        let json = format!(r#"{{"metadata":{{"version":1,"reason":"OK","result":1,"command":"{function}"}}}}"#);
        let xml = format!(
            "<result><metadata><version>1</version><reason>OK</reason><result>1</result><command>{function}</command></metadata></result>"
        );
        let yaml = format!("---\nmetadata:\n  command: {function}\n  reason: OK\n  result: 1\n  version: 1\n");
        for (face, expected) in [
            (FACES[0], format!("{json}\n")),
            (FACES[2], yaml),
            (FACES[3], format!("{xml}\n")),
            (FACES[4], format!("{json}\n")),
            (FACES[7], format!("{xml}\n")),
        ] {
            assert_eq!(stage.call(face, function, &[("user", "alice")])?.0, expected, "{face:?}");
        }
    }
    Ok(())
}

/// Why a call is refused, the same on all faces.
fn refusal(stage: &Stage, function: &str, arguments: &[(&str, &str)]) -> Result<String> {
    let mut reasons = Vec::new();
    for face in FACES {
        let (text, ended_well) = stage.call(face, function, arguments)?;
        assert_ne!(ended_well, Some(true), "{face:?}: {text}");
        let tree = read_back(face, &[text])?.remove(0);
        assert_eq!(tree["metadata"]["result"].to_string().trim_matches('"'), "0", "{face:?}: {tree}");
        reasons.push(tree["metadata"]["reason"].as_str().context("no reason")?.to_owned());
    }
    reasons.dedup();
    ensure!(reasons.len() == 1, "{reasons:?}");
    Ok(reasons.remove(0))
}

#[test]
fn without_the_role_and_without_the_daemon_every_face_says_so() -> Result<()> {
    let stage = Stage::with("mail-send = false")?;
    for function in
        ["hold_outgoing_email", "release_outgoing_email", "suspend_outgoing_email", "unsuspend_outgoing_email"]
    {
        let reason = refusal(&stage, function, &[("user", "alice")])?;
        assert!(reason.contains("MailSend role is off"), "{reason}");
    }
    let mut stage = Stage::new()?;
    stage.daemon.kill9()?;
    for (function, arguments) in [("hold_outgoing_email", &[("user", "alice")][..]), ("listaccts", &[])] {
        let reason = refusal(&stage, function, arguments)?;
        assert!(reason.starts_with("cannot reach outgoingd at "), "{reason}");
    }
    Ok(())
}

#[test]
fn an_account_that_there_is_not_is_none_though_everyone_is_held() -> Result<()> {
    let stage = Stage::new()?;
    stage.daemon.must(&["hold", "*"])?;
    assert!(refusal(&stage, "accountsummary", &[("user", "alcie")])?.contains("no account alcie"));
    Ok(())
}

#[test]
fn a_spelling_that_only_turns_out_to_mean_more_than_one_sender_changes_nothing_on_any_face() -> Result<()> {
    let stage = Stage::new()?;
    for name in [r"\302\240*", r"\343\200\200*", r"\302\240@shop.test"] {
        for function in ["hold_outgoing_email", "suspend_outgoing_email", "accountsummary"] {
            for face in [FACES[0], FACES[4]] {
                let (text, _) = stage.call(face, function, &[("user", name)])?;
                assert!(text.contains(r#""result":0"#), "{face:?} {name}: {text}");
            }
        }
        let email = format!("email={}", encoded(name));
        for function in ["hold_outgoing", "suspend_outgoing", "delete_held_messages", "get_held_message_count"] {
            assert_eq!(stage.daemon.ctl(&["uapi", "Email", function, &email])?.code(), 1, "{function} {name}");
            let authorization = format!("Authorization: cpanel alice:{}", stage.token);
            let words = ["--header", &authorization, "--data", &email];
            let reply = stage.whmapi.curl(&format!("/execute/Email/{function}"), &words)?;
            assert!(reply.body.contains(r#""status":0"#), "{function} {name}: {reply:?}");
        }
    }
    assert_eq!(stage.daemon.must(&["--json", "list"])?, "");
    Ok(())
}

#[test]
fn every_call_of_uapi_has_the_same_answer_on_both_faces() -> Result<()> {
    let done = |data: Value| json!({ "status": 1, "data": data, "errors": null, "messages": null, "metadata": {}, "warnings": null });
    let cases: [(&str, &str, &str, Result<Value, &str>); 14] = [
        ("Email", "hold_outgoing", "bob@shop.test", Ok(Value::Null)),
        ("Email", "suspend_outgoing", "Bob@SHOP.test ", Ok(json!(1))),
        ("Email", "unsuspend_outgoing", "bob@shop.test", Ok(Value::Null)),
        ("Email", "suspend_outgoing", "b\u{fc}b+news@shop.test", Ok(json!(1))),
        ("Email", "hold_outgoing", "", Err("\"email\" is missing")),
        ("Email", "hold_outgoing", "alice", Err("\"alice\" is no mailbox")),
        ("Email", "hold_outgoing", "@shop.test", Err("\"@shop.test\" is no mailbox")),
        ("Email", "hold_outgoing", "*", Err("\"*\" is no mailbox")),
        ("Email", "hold_outgoing", "bob@elsewhere.test", Err("no domain elsewhere.test")),
        ("Email", "release_outgoing", "bob@elsewhere.test", Err("no domain elsewhere.test")),
        ("Email", "get_held_message_count", "bob@elsewhere.test", Err("no domain elsewhere.test")),
        ("Email", "delete_held_messages", "shop.test", Err("is no mailbox")),
        ("Email", "list_pops", "bob@shop.test", Err("no function \"list_pops\"")),
        ("Ftp", "hold_outgoing", "bob@shop.test", Err("no module \"Ftp\"")),
    ];
    let (one, other) = (Stage::new()?, Stage::new()?);
    for (module, function, email, expected) in cases {
        let words = ["uapi", "--output=json", module, function, &format!("email={}", encoded(email))];
        let finished = one.daemon.ctl(&words)?;
        let on_the_command_line: Value = serde_json::from_str(&finished.stdout)?;
        let call = json!({ "apiversion": 3, "func": function, "module": module });
        for (name, value) in call.as_object().context("no object")? {
            assert_eq!(on_the_command_line[name], *value);
        }
        let authorization = format!("Authorization: whm root:{}", other.token);
        let data = format!("email={email}");
        let words = ["--header", &authorization, "--get", "--data-urlencode", &data];
        let reply = other.whmapi.curl(&format!("/execute/{module}/{function}"), &words)?;
        let home = |stage: &Stage| stage.daemon.home().display().to_string();
        let over_http = reply.body.replace(&home(&other), &home(&one));
        assert_eq!(on_the_command_line["result"], serde_json::from_str::<Value>(&over_http)?, "{function} {email}");
        assert_eq!((reply.status, finished.code()), (200, i32::from(expected.is_err())), "{reply:?}");
        match expected {
            Ok(data) => assert_eq!(on_the_command_line["result"], done(data)),
            Err(words) => {
                assert_eq!(on_the_command_line["result"]["status"], 0);
                let error = on_the_command_line["result"]["errors"][0].as_str().context("no error")?;
                assert!(error.contains(words), "{error}");
            }
        }
    }
    Ok(())
}
