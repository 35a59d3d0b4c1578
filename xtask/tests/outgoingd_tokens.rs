//! Tokens, as the daemon keeps them: what one is good for, for whom, until when, and what the audit trail says of it.

use anyhow::{Context, Result};
use outgoingd_client::protocol::function;
use outgoingd_client::protocol::message::{Cause, LogEntry, Secret};
use outgoingd_client::{Client, Error, Terms};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::fs;
use std::thread;
use xtask::testbed::Daemon;

/// A user whom the configuration lets present tokens, and one whom it does not.
const PRESENTER: &str = "games";
const STRANGER: &str = "news";

fn daemon() -> Result<Daemon> {
    Daemon::builder()
        .accounts(&["alice", "bob"])
        .owner("shop.test", "alice")
        .for_everyone()
        .tables("[access]\ntoken-users = ['games']")
        .start()
}

/// Does something as another user: the kernel tells the daemon who connects, thread by thread.
fn as_user<T: Send>(user: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.starts_with(&format!("{user}:"))).context("no such user")?;
    let mut fields = line.split(':').skip(2).map(str::parse::<u32>);
    let (uid, gid) = fields.next().zip(fields.next()).context("no ids")?;
    let (uid, gid) = (Uid::from_raw(uid?), Gid::from_raw(gid?));
    let inside = || {
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        work()
    };
    thread::scope(|scope| scope.spawn(inside).join().map_err(|_| anyhow::anyhow!("{user} has failed"))?)
}

/// Why something was refused.
fn cause<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Cause {
    match outcome {
        Err(Error::Refused(refusal)) => refusal.cause,
        other => panic!("not refused: {other:?}"),
    }
}

fn create(daemon: &Daemon, name: &str, functions: &[&str]) -> Result<Secret> {
    let functions: Vec<String> = functions.iter().map(ToString::to_string).collect();
    Ok(Client::new(daemon.socket()).create_token(name, &functions, None)?)
}

fn log(daemon: &Daemon, about: &str) -> Result<Vec<LogEntry>> {
    let mut entries = Vec::new();
    Client::new(daemon.socket()).log::<Error>(Some(about), 100, |entry| {
        entries.push(entry);
        Ok(())
    })?;
    Ok(entries)
}

#[test]
fn whoever_presents_a_token_may_do_what_it_is_good_for_and_the_trail_names_it() -> Result<()> {
    let daemon = daemon()?;
    let secret = create(&daemon, "billing", &[])?;
    as_user(PRESENTER, || {
        let mut client = Client::new(daemon.socket());
        assert_eq!(client.present(&secret, "hold_outgoing_email")?.name, "billing");
        assert!(client.hold("alice", &Terms::default())?.changed);
        assert_eq!(client.status("alice")?.flags.len(), 1);
        assert_eq!(client.settle()?, None);
        Ok(())
    })?;
    let entry = log(&daemon, "alice")?.remove(0);
    assert_eq!((entry.by.as_str(), entry.on_behalf_of.as_deref()), (PRESENTER, Some("token billing")));
    Ok(())
}

#[test]
fn a_token_gives_no_more_than_its_function_takes_whatever_else_it_is_good_for() -> Result<()> {
    let daemon = daemon()?;
    let secret = create(&daemon, "billing", &[])?;
    let terms = Terms::default();
    as_user(PRESENTER, || {
        let mut client = Client::new(daemon.socket());
        client.present(&secret, "hold_outgoing_email")?;
        assert_eq!(cause(client.release("alice")), Cause::NotPermitted);
        assert_eq!(cause(client.suspend("alice", &terms)), Cause::NotPermitted);
        assert_eq!(cause(client.create_token("mine", &[], None)), Cause::NotPermitted);
        assert_eq!(cause(client.revoke_token("billing")), Cause::NotPermitted);
        assert_eq!(cause(client.tokens()), Cause::NotPermitted);
        assert_eq!(cause(client.stats()), Cause::NotPermitted);
        assert_eq!(cause(client.import(vec![])), Cause::NotPermitted);
        assert_eq!(cause(client.record_drop(vec![])), Cause::NotPermitted);
        assert_eq!(cause(client.list::<Error>(None, |_| Ok(()))), Cause::NotPermitted);
        assert_eq!(cause(client.watch::<Error>(None, None, |_| Ok(()))), Cause::NotPermitted);
        client.present(&secret, "unsuspend_outgoing")?;
        assert_eq!(cause(client.hold("ann@shop.test", &terms)), Cause::NotPermitted);
        client.unsuspend("ann@shop.test")?;
        client.present(&secret, "no_such_function")?;
        assert_eq!(cause(client.unsuspend("ann@shop.test")), Cause::NotPermitted);
        assert_eq!(cause(client.status("alice")), Cause::NotPermitted);
        Ok(())
    })
}

/// What only normal form turns into everyone, a domain, or a mailbox: Exim's escapes of a space that is not ASCII, and spaces.
const DISGUISED: [&str; 6] = ["*", " *", r"\302\240*", "@shop.test", " @shop.test", r"\343\200\200@shop.test"];

#[test]
fn by_a_token_nobody_but_one_account_or_one_mailbox_is_held_however_it_is_spelled() -> Result<()> {
    let daemon = daemon()?;
    let secret = create(&daemon, "billing", &[])?;
    as_user(PRESENTER, || {
        let mut client = Client::new(daemon.socket());
        let plain = Terms::default();
        for (function, one, other) in
            [("hold_outgoing_email", "alice", "ann@shop.test"), ("hold_outgoing", "ann@shop.test", "alice")]
        {
            client.present(&secret, function)?;
            for subject in DISGUISED.iter().chain([&other]) {
                assert_eq!(cause(client.hold(subject, &plain)), Cause::NotPermitted, "{function} {subject}");
            }
            // No function has words, or an end.
            for terms in [
                Terms { until: Some(4_000_000_000), ..Terms::default() },
                Terms { reason: Some("why".to_owned()), ..Terms::default() },
                Terms { notice: Some("call".to_owned()), ..Terms::default() },
            ] {
                assert_eq!(cause(client.hold(one, &terms)), Cause::NotPermitted, "{terms:?}");
            }
            assert_eq!(cause(client.hold("a b", &plain)), Cause::Invalid, "what means nothing is refused as such");
            assert!(client.hold(one, &plain)?.changed);
        }
        for function in ["release_outgoing_email", "release_outgoing", "accountsummary", "get_held_message_count"] {
            client.present(&secret, function)?;
            for subject in DISGUISED {
                assert_eq!(cause(client.status(subject)), Cause::NotPermitted, "{function} {subject}");
                assert_eq!(cause(client.release(subject)), Cause::NotPermitted, "{function} {subject}");
            }
        }
        Ok(())
    })
}

#[test]
fn a_token_that_is_limited_to_some_functions_is_good_for_no_other() -> Result<()> {
    let daemon = daemon()?;
    let secret = create(&daemon, "watcher", &["listaccts", "hold_outgoing_email"])?;
    as_user(PRESENTER, || {
        let mut client = Client::new(daemon.socket());
        let refused = client.present(&secret, "release_outgoing_email").unwrap_err();
        assert!(refused.to_string().contains("good for hold_outgoing_email, listaccts"), "{refused}");
        assert_eq!(cause(client.release("alice")), Cause::NotPermitted);
        for function in function::all().filter(|function| !["listaccts", "hold_outgoing_email"].contains(function)) {
            assert_eq!(cause(client.present(&secret, function)), Cause::NotPermitted, "{function}");
        }
        client.present(&secret, "listaccts")?;
        let mut accounts = Vec::new();
        client.accounts::<Error>(|account| {
            accounts.push(account);
            Ok(())
        })?;
        assert_eq!(accounts, ["alice", "bob"]);
        assert_eq!(cause(client.hold("alice", &Terms::default())), Cause::NotPermitted);
        Ok(())
    })
}

#[test]
fn by_a_token_it_is_seen_that_there_is_a_flag_and_not_who_set_it_and_why() -> Result<()> {
    let daemon = daemon()?;
    let secret = create(&daemon, "billing", &[])?;
    let terms = Terms { reason: Some("phished".to_owned()), ..Terms::default() };
    Client::new(daemon.socket()).suspend("alice", &terms)?;
    as_user(PRESENTER, || {
        let mut client = Client::new(daemon.socket());
        client.present(&secret, "accountsummary")?;
        let mut flags = client.status("alice")?.flags;
        client.present(&secret, "listaccts")?;
        client.list::<Error>(None, |flag| {
            flags.push(flag);
            Ok(())
        })?;
        assert_eq!(flags.len(), 2);
        for flag in flags {
            assert_eq!((flag.subject.as_str(), flag.by, flag.reason, flag.notice), ("alice", None, None, None));
        }
        Ok(())
    })
}

#[test]
fn without_a_token_its_users_may_nothing_and_a_token_helps_nobody_else() -> Result<()> {
    let daemon = daemon()?;
    let secret = create(&daemon, "billing", &[])?;
    let wrong = Secret("A".repeat(32));
    as_user(PRESENTER, || {
        let mut client = Client::new(daemon.socket());
        assert_eq!(cause(client.hold("alice", &Terms::default())), Cause::NotPermitted);
        assert_eq!(cause(client.stats()), Cause::NotPermitted);
        assert_eq!(cause(client.present(&wrong, "version")), Cause::NoSuchToken);
        assert_eq!(cause(client.present(&Secret(String::new()), "version")), Cause::NoSuchToken);
        // A wrong one takes back what the right one gave.
        client.present(&secret, "hold_outgoing_email")?;
        assert_eq!(cause(client.present(&wrong, "hold_outgoing_email")), Cause::NoSuchToken);
        assert_eq!(cause(client.hold("alice", &Terms::default())), Cause::NotPermitted);
        Ok(())
    })?;
    as_user(STRANGER, || {
        let mut client = Client::new(daemon.socket());
        assert_eq!(cause(client.present(&secret, "hold_outgoing_email")), Cause::NotPermitted);
        Ok(())
    })?;
    // Who may do everything may do less by a token.
    let mut client = Client::new(daemon.socket());
    client.present(&secret, "version")?;
    assert_eq!(cause(client.hold("alice", &Terms::default())), Cause::NotPermitted);
    Ok(())
}

#[test]
fn a_token_that_is_revoked_or_has_ended_is_good_for_nothing_from_that_moment_on() -> Result<()> {
    let start = 1_800_000_000;
    let daemon = Daemon::builder().accounts(&["alice"]).clock(start).start()?;
    let mut root = Client::new(daemon.socket());
    let secret = root.create_token("billing", &[], None)?;
    let short = root.create_token("short", &[], Some(start + 60))?;
    let (mut client, mut other) = (Client::new(daemon.socket()), Client::new(daemon.socket()));
    client.present(&secret, "hold_outgoing_email")?;
    other.present(&short, "hold_outgoing_email")?;
    client.hold("alice", &Terms::default())?;
    other.hold("alice", &Terms::default())?;
    assert!(root.revoke_token("billing")?.changed);
    assert_eq!(cause(client.hold("alice", &Terms::default())), Cause::NoSuchToken);
    assert_eq!(cause(client.present(&secret, "version")), Cause::NoSuchToken);
    daemon.set_clock(start + 60)?;
    assert_eq!(cause(other.hold("alice", &Terms::default())), Cause::NoSuchToken);
    assert_eq!(cause(other.present(&short, "version")), Cause::NoSuchToken);
    // One that has ended is still listed, and gives way to a new one of its name.
    assert_eq!(root.tokens()?.len(), 1);
    let again = root.create_token("short", &[], None)?;
    assert_ne!(again, short);
    other.present(&again, "version")?;
    assert_eq!(root.tokens()?.len(), 1);
    Ok(())
}

#[test]
fn tokens_outlive_the_daemon_and_their_secrets_are_nowhere_in_its_files() -> Result<()> {
    let mut daemon = daemon()?;
    let secret = create(&daemon, "billing", &["version"])?;
    daemon.kill9()?;
    daemon.start_again()?;
    let mut client = Client::new(daemon.socket());
    client.present(&secret, "version")?;
    daemon.restart()?;
    let tokens = Client::new(daemon.socket()).tokens()?;
    assert_eq!((tokens[0].name.as_str(), &tokens[0].functions[..]), ("billing", &["version".to_owned()][..]));
    Client::new(daemon.socket()).present(&secret, "version")?;
    for file in fs::read_dir(daemon.home().join("state"))? {
        let bytes = fs::read(file?.path())?;
        assert!(!bytes.windows(secret.0.len()).any(|window| window == secret.0.as_bytes()));
    }
    assert!(!daemon.log().contains(&secret.0));
    Ok(())
}

#[test]
fn the_trail_says_who_made_a_token_for_what_and_who_revoked_it() -> Result<()> {
    let daemon = daemon()?;
    create(&daemon, "billing", &["version", "applist"])?;
    create(&daemon, "all", &[])?;
    let mut root = Client::new(daemon.socket());
    root.on_behalf_of("ann");
    root.revoke_token("billing")?;
    let trail: Vec<String> = log(&daemon, "billing")?
        .into_iter()
        .map(|entry| format!("{:?} {:?} {} {:?}", entry.action, entry.reason, entry.by, entry.on_behalf_of))
        .collect();
    let expected = [r#"TokenRevoked None root Some("ann")"#, r#"TokenCreated Some("applist, version") root None"#];
    assert_eq!(trail, expected);
    assert_eq!(log(&daemon, "all")?[0].reason.as_deref(), Some("all functions"));
    Ok(())
}

#[test]
fn what_makes_no_token_is_refused_in_words() -> Result<()> {
    let daemon = daemon()?;
    let mut root = Client::new(daemon.socket());
    let long = "a".repeat(65);
    for name in ["", "Billing", "two words", "a/b", "a\nb", long.as_str()] {
        assert_eq!(cause(root.create_token(name, &[], None)), Cause::Invalid, "{name:?}");
    }
    let unknown = root.create_token("billing", &["createacct".to_owned()], None).unwrap_err().to_string();
    assert!(unknown.contains("no function \"createacct\"") && unknown.contains("listaccts"), "{unknown}");
    for until in [0, 1, u64::MAX] {
        assert_eq!(cause(root.create_token("billing", &[], Some(until))), Cause::Invalid);
    }
    root.create_token("billing", &[], None)?;
    let twice = root.create_token("billing", &[], None).unwrap_err().to_string();
    assert!(twice.contains("there is one of that name"), "{twice}");
    assert_eq!(cause(root.revoke_token("biling")), Cause::NoSuchSubject);
    for number in 1..500 {
        root.create_token(&format!("token{number}"), &function::all().map(str::to_owned).collect::<Vec<_>>(), None)?;
    }
    let many = root.create_token("one-more", &[], None).unwrap_err().to_string();
    assert!(many.contains("there are 500"), "{many}");
    assert_eq!(root.tokens()?.len(), 500);
    Ok(())
}

#[test]
fn accounts_are_those_of_the_list_those_with_a_domain_and_those_with_a_flag_a_page_at_a_time() -> Result<()> {
    let many: Vec<String> = (0..4000).map(|number| format!("user{number:05}")).collect();
    let names: Vec<&str> = many.iter().map(String::as_str).collect();
    let daemon = Daemon::builder().accounts(&names).owner("shop.test", "zoe").owner("b.test", "x@y.test").start()?;
    let mut client = Client::new(daemon.socket());
    client.hold("@shop.test", &Terms::default())?;
    client.hold("user00007", &Terms::default())?;
    let mut accounts = Vec::new();
    client.accounts::<Error>(|account| {
        accounts.push(account);
        Ok(())
    })?;
    let expected: Vec<String> = many.iter().cloned().chain(["zoe".to_owned()]).collect();
    assert_eq!(accounts, expected);
    Ok(())
}
