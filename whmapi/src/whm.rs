//! The functions of WHM API 1.
//!
//! The four that hold, release, suspend and unsuspend an account's mail do what the verbs of `outgoingctl` do. Listings know of an
//! account what is outgoingd's: its name and its two flags. What there is no function for is answered as WHM answers it.

use crate::Arguments;
use crate::answer::{Answer, Done, Object, Refused, object};
use crate::listing;
use crate::server::{Change, Server};
use outgoingd_client::Error;
use outgoingd_client::protocol::function::WHM;
use outgoingd_client::protocol::message::{Kind, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// How long a session is said to last. Nothing ends with it: the prefix of a session opens nothing, each call has its token.
const SESSION: Duration = Duration::from_secs(900);

/// Arguments by which WHM's own listing picks accounts, and this one does not: answered with all accounts, they would do harm.
const PICKING: [&str; 3] = ["search", "searchtype", "searchmethod"];

/// Carries out a call.
#[must_use]
pub fn call(server: &mut Server<'_>, function: &str, arguments: &Arguments) -> Answer {
    // Said or not on the command line, as WHM's.
    if let Some(version) = arguments.get("api.version").filter(|version| *version != "1") {
        let version = version.escape_debug();
        let other = format!("there is no version \"{version}\" of the API here: say api.version=1");
        return Answer::whm(function, Err(Refused(other)));
    }
    let outcome = match function {
        "hold_outgoing_email" => change(server, Change::Hold, arguments),
        "release_outgoing_email" => change(server, Change::Release, arguments),
        "suspend_outgoing_email" => change(server, Change::Suspend, arguments),
        "unsuspend_outgoing_email" => change(server, Change::Unsuspend, arguments),
        "accountsummary" => summary(server, arguments),
        "listaccts" => list(server, arguments),
        "applist" => Ok(returns(json!({ "app": WHM }))),
        "version" => Ok(returns(json!({ "version": env!("CARGO_PKG_VERSION") }))),
        "create_user_session" => session(arguments),
        unknown => Err(Refused(format!("Unknown app (\"{unknown}\") requested for this version (1) of the API."))),
    };
    Answer::whm(function, outcome)
}

fn change(server: &mut Server<'_>, change: Change, arguments: &Arguments) -> Result<Done, Refused> {
    let account = account(server, arguments)?.subject;
    let warnings = server.change(change, &account)?;
    Ok(Done { warnings, ..Done::default() })
}

/// What flags an account has.
fn summary(server: &mut Server<'_>, arguments: &Arguments) -> Result<Done, Refused> {
    let status = account(server, arguments)?;
    let has = |kind| status.flags.iter().any(|flag| flag.subject == status.subject && flag.kind == kind);
    let row = row(&status.subject, Flags { hold: has(Kind::Hold), suspend: has(Kind::Suspend) });
    accounts(vec![row], arguments)
}

/// What flags each account has.
fn list(server: &mut Server<'_>, arguments: &Arguments) -> Result<Done, Refused> {
    if let Some(name) = PICKING.into_iter().find(|name| arguments.is_set(name)) {
        return Err(Refused(format!("the parameter \"{name}\" is not known here; use api.filter")));
    }
    let mut flags: BTreeMap<String, Flags> = BTreeMap::new();
    server.client.accounts::<Error>(|account| {
        flags.insert(account, Flags::default());
        Ok(())
    })?;
    server.client.list::<Error>(None, |flag| {
        if let Some(of_account) = flags.get_mut(&flag.subject) {
            match flag.kind {
                Kind::Hold => of_account.hold = true,
                Kind::Suspend => of_account.suspend = true,
            }
        }
        Ok(())
    })?;
    accounts(flags.into_iter().map(|(account, flags)| row(&account, flags)).collect(), arguments)
}

#[derive(Clone, Copy, Default)]
struct Flags {
    hold: bool,
    suspend: bool,
}

fn row(account: &str, flags: Flags) -> Object {
    object([
        ("user", json!(account)),
        ("outgoing_mail_hold", json!(u8::from(flags.hold))),
        ("outgoing_mail_suspended", json!(u8::from(flags.suspend))),
    ])
}

fn accounts(rows: Vec<Object>, arguments: &Arguments) -> Result<Done, Refused> {
    let (rows, metadata) = listing::select(rows, arguments)?;
    Ok(Done { metadata, ..returns(json!({ "acct": rows })) })
}

/// What clients need that ask for a session before anything else: the prefix of a path. It gives no right.
fn session(arguments: &Arguments) -> Result<Done, Refused> {
    let (user, service) = (arguments.required("user")?, arguments.required("service")?);
    if user != "root" || service != "whostmgrd" {
        return Err(Refused("there are sessions for user=root and service=whostmgrd only".to_owned()));
    }
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|error| Refused(format!("no session: the system gave no random bits: {error}")))?;
    let number = u32::from_le_bytes(random);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let data = json!({
        "cp_security_token": format!("/cpsess{number:010}"),
        "expires": (now + SESSION).as_secs(),
        "service": service,
    });
    Ok(Done { reason: Some("Created session"), ..returns(data) })
}

fn returns(data: Value) -> Done {
    Done { data: Some(data), ..Done::default() }
}

fn account(server: &mut Server<'_>, arguments: &Arguments) -> Result<Status, Refused> {
    named(server, arguments.required("user")?)
}

/// The account of that name, in normal form: what looks like none, or turns out to be none, is not worked on, since a function of
/// WHM holds no domain, and not everyone.
pub(crate) fn named(server: &mut Server<'_>, name: &str) -> Result<Status, Refused> {
    let is_account = |name: &str| !name.contains('@') && name != "*";
    if is_account(name.trim()) {
        let status = server.client.status(name)?;
        if is_account(&status.subject) {
            return Ok(status);
        }
    }
    let name = name.escape_debug();
    Err(Refused(format!("\"{name}\" is no account; the parameter \"user\" names one, as in user=alice")))
}
