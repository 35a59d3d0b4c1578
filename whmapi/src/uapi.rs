//! The functions of UAPI's module Email that are about outgoing mail: the same as those of WHM API 1, for single mailboxes.

use crate::Arguments;
use crate::answer::{Answer, Done, Refused};
use crate::server::{Change, Server};
use crate::whm;
use serde_json::json;

/// Carries out a call. `account` is the cPanel account on whose behalf it is, which may speak for its own mailboxes only; none: any.
#[must_use]
pub fn call(
    server: &mut Server<'_>,
    module: &str,
    function: &str,
    account: Option<&str>,
    arguments: &Arguments,
) -> Answer {
    if module != "Email" {
        return Answer::uapi(Err(Refused(format!("there is no module \"{module}\" here, but Email"))));
    }
    let change = match function {
        "hold_outgoing" => Change::Hold,
        "release_outgoing" => Change::Release,
        "suspend_outgoing" => Change::Suspend,
        "unsuspend_outgoing" => Change::Unsuspend,
        "get_held_message_count" => return Answer::uapi(count(server, account, arguments)),
        "delete_held_messages" => return Answer::uapi(delete(server, account, arguments)),
        unknown => {
            return Answer::uapi(Err(Refused(format!("there is no function \"{unknown}\" in the module Email here"))));
        }
    };
    let outcome = mailbox(server, account, arguments).and_then(|mailbox| server.change(change, &mailbox));
    // As cPanel's own documentation has it.
    let data = (change == Change::Suspend).then(|| json!(1));
    Answer::uapi(outcome.map(|warnings| Done { data, warnings, ..Done::default() }))
}

/// How many messages are held, of a mailbox or, without one, of the account.
fn count(server: &mut Server<'_>, account: Option<&str>, arguments: &Arguments) -> Result<Done, Refused> {
    let subject = match (account, arguments.get("email")) {
        (Some(account), None) => whm::named(server, account)?.subject,
        _ => mailbox(server, account, arguments)?,
    };
    let count = server.queue.count(&subject)?;
    Ok(Done { data: Some(json!(count)), ..Done::default() })
}

fn delete(server: &mut Server<'_>, account: Option<&str>, arguments: &Arguments) -> Result<Done, Refused> {
    let mailbox = mailbox(server, account, arguments)?;
    let deleted = server.queue.delete(&mailbox)?;
    Ok(Done { data: Some(json!(deleted)), ..Done::default() })
}

/// The mailbox that a call is about, in normal form.
fn mailbox(server: &mut Server<'_>, account: Option<&str>, arguments: &Arguments) -> Result<String, Refused> {
    let email = arguments.required("email")?;
    let is_mailbox =
        |name: &str| name.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    let wrong = || {
        let email = email.escape_debug();
        Refused(format!("\"{email}\" is no mailbox; the parameter \"email\" names one, as in email=bob@example.com"))
    };
    if !is_mailbox(email.trim()) {
        return Err(wrong());
    }
    let status = server.client.status(email)?;
    // What looks like one may turn out to be a domain.
    if !is_mailbox(&status.subject) {
        return Err(wrong());
    }
    match account {
        Some(account) if status.owner.as_deref() != Some(account.trim().to_lowercase().as_str()) => {
            Err(Refused(format!("{} does not belong to {}", status.subject, account.escape_debug())))
        }
        _ => Ok(status.subject),
    }
}
