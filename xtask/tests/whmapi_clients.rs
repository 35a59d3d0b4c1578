//! Client libraries that nobody here wrote, as they are on `PyPI`, call outgoingd as they would call WHM: with another host name, and
//! nothing else.

use anyhow::{Context, Result, ensure};
use outgoingd_client::Client;
use outgoingd_client::protocol::text::Verdict;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use xtask::testbed::{Daemon, Whmapi};

/// What is installed, in these versions.
const PACKAGES: [&str; 2] = ["WhamBamPy==0.0.7", "cpanel-api==0.3.0"];

/// Where it is installed, beside what else the tests leave in the target directory.
const LIBRARIES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/python");

static INSTALLED: LazyLock<Result<(), String>> = LazyLock::new(|| {
    let mut pip = Command::new("pip3");
    pip.args(["install", "--quiet", "--upgrade", "--root-user-action=ignore", "--target", LIBRARIES]).args(PACKAGES);
    match pip.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    }
});

/// A daemon, its WHM service with TLS, and a token for it.
fn stage(functions: &[&str]) -> Result<(Daemon, Whmapi, String)> {
    let daemon = Daemon::builder()
        .accounts(&["alice", "bob"])
        .owner("shop.test", "alice")
        .for_everyone()
        .tables(Whmapi::TOKEN_USERS)
        .start()?;
    let functions: Vec<String> = functions.iter().map(ToString::to_string).collect();
    let token = Client::new(daemon.socket()).create_token("billing", &functions, None)?.0;
    let whmapi = Whmapi::builder(&daemon.socket()).tls().start()?;
    Ok((daemon, whmapi, token))
}

/// Runs a program in Python, which finds port and token in `sys.argv` and prints JSON.
fn python(program: &str, whmapi: &Whmapi, token: &str) -> Result<Value> {
    if let Err(error) = &*INSTALLED {
        anyhow::bail!("cannot install {PACKAGES:?}: {error}");
    }
    ensure!(Path::new(LIBRARIES).exists(), "pip has installed nothing");
    let mut python = Command::new("/usr/bin/python3");
    python.env("PYTHONPATH", LIBRARIES).env_remove("http_proxy").env_remove("https_proxy");
    let output = python.arg("-c").arg(program).arg(whmapi.address().port().to_string()).arg(token).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("no JSON")
}

fn verdict(daemon: &Daemon, identity: &str) -> Result<Verdict> {
    Ok(Client::new(daemon.socket()).check(identity, None)?)
}

#[test]
fn whambampy_gets_its_session_and_holds_and_releases_an_account() -> Result<()> {
    let (daemon, whmapi, token) = stage(&[])?;
    let program = "
import json, sys
from whambampy import whm
server = whm('127.0.0.1', 'root', sys.argv[2], whm_port=sys.argv[1])
answers = [server.call('hold_outgoing_email', user='alice'), server.call('suspend_outgoing_email', user='bob'),
           server.call('accountsummary', user='alice'), server.call('release_outgoing_email', user='bob'),
           server.call('hold_outgoing_email', user='nobody-here'), server.call('version'), server.call('listaccts')]
json.dump([server._sec_token] + answers, sys.stdout)";
    let answers = python(program, &whmapi, &token)?;
    let session = answers[0].as_str().and_then(|path| path.strip_prefix("/cpsess")).context("no session")?;
    assert!(!session.is_empty() && session.bytes().all(|byte| byte.is_ascii_digit()), "{session}");
    let metadata = |command| json!({ "metadata": { "version": 1, "reason": "OK", "result": 1, "command": command } });
    assert_eq!(answers[1], metadata("hold_outgoing_email"));
    assert_eq!(answers[2], metadata("suspend_outgoing_email"));
    assert_eq!(answers[3]["data"]["acct"][0]["outgoing_mail_hold"], 1);
    assert_eq!(answers[4]["metadata"]["result"], 1);
    assert_eq!(answers[5]["metadata"]["result"], 0);
    assert!(answers[5]["metadata"]["reason"].as_str().context("no reason")?.contains("nobody-here"));
    let version = daemon.must(&["--version"])?;
    assert_eq!(answers[6]["data"]["version"].as_str(), version.trim().strip_prefix("outgoingctl "));
    assert_eq!(answers[7]["data"]["acct"].as_array().map(Vec::len), Some(2));
    assert_eq!((verdict(&daemon, "alice")?, verdict(&daemon, "bob")?), (Verdict::Hold, Verdict::Suspend));
    Ok(())
}

#[test]
fn whambampy_is_told_that_its_token_is_none() -> Result<()> {
    let (_daemon, whmapi, _) = stage(&[])?;
    let program = "
import json, sys
from whambampy import whm
try:
    whm('127.0.0.1', 'root', 'A' * 32, whm_port=sys.argv[1])
except PermissionError as error:
    json.dump(str(error), sys.stdout)";
    assert_eq!(python(program, &whmapi, "")?, "Unable to login with the provided credentials");
    Ok(())
}

#[test]
fn cpanel_api_holds_and_suspends_mailboxes_as_root_and_as_the_account() -> Result<()> {
    let (daemon, whmapi, token) = stage(&["hold_outgoing", "suspend_outgoing", "unsuspend_outgoing"])?;
    let program = "
import json, sys
from cpanel_api import CPanelApi
def client(user, kind):
    return CPanelApi('127.0.0.1', user, sys.argv[2], port=int(sys.argv[1]), auth_type=kind)
root, alice, bob = client('root', 'hash'), client('alice', 'utoken'), client('bob', 'utoken')
json.dump([root.uapi.Email.hold_outgoing(email='ann@shop.test'), alice.uapi.Email.suspend_outgoing(email='joe@shop.test'),
           bob.uapi.Email.hold_outgoing(email='joe@shop.test'), alice.uapi.Email.hold_outgoing({'email': 'x@elsewhere.test'}),
           root.uapi.Email.release_outgoing(email='ann@shop.test')], sys.stdout)";
    let answers = python(program, &whmapi, &token)?;
    let envelope =
        |data| json!({ "status": 1, "data": data, "errors": null, "messages": null, "metadata": {}, "warnings": null });
    assert_eq!(answers[0], envelope(Value::Null));
    assert_eq!(answers[1], envelope(json!(1)));
    for (answer, words) in
        [(2, "joe@shop.test does not belong to bob"), (3, "elsewhere.test"), (4, "not for what was called")]
    {
        assert_eq!(answers[answer]["status"], 0, "{answers}");
        assert!(answers[answer]["errors"][0].as_str().context("no error")?.contains(words), "{answers}");
    }
    assert_eq!(verdict(&daemon, "ann@shop.test")?, Verdict::Hold);
    assert_eq!(verdict(&daemon, "joe@shop.test")?, Verdict::Suspend);
    Ok(())
}
