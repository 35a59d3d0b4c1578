//! What administrators ask for, carried out: names into normal form, existence seen to, changes to the writer, pages from
//! the store. Every refusal names the subject, the reason and what to do next.

use crate::authorise::{self, Peer, Right, Rules};
use crate::change::{Action, Change, Effect, Origin, Terms};
use crate::clock::Clock;
use crate::config::{Access, Held};
use crate::directory::Accounts;
use crate::flag::{self, Kind, MAX_UNTIL, Timestamp};
use crate::held;
use crate::keeper::Keeper;
use crate::name::{Identity, MessageId, Shape, Subject};
use crate::stats::Stats;
use crate::stop::Stop;
use crate::store::Store;
use crate::table::Table;
use crate::wire;
use crate::writer::{self, WriteError};
use nix::errno::Errno;
use nix::sys::socket::UnixCredentials;
use outgoingd_client::protocol::REHEARSAL_DOMAIN;
use outgoingd_client::protocol::message::{
    Call, Cause, Changed, Condition, Flag as WireFlag, Imported, Kind as WireKind, LogEntry, Refusal, Reply, Request,
    Stats as WireStats, Status,
};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time;

/// A page of a reply ends when it has about this many bytes, well below the bound of a frame.
pub(crate) const PAGE: usize = 512 << 10;

/// Bytes of a flag, log entry or pass beside its texts, at most.
pub(crate) const ROW: usize = 64;

/// Flags in one import; a client sends more in parts. So a reply with a refusal for each stays within a frame.
const MAX_IMPORT: usize = 1000;

/// Characters of what a peer typed that go into an answer.
const SHOWN: usize = 100;

/// Longest wait for the disk or for NSS.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that requests work on.
#[derive(Clone, Debug)]
pub struct Requests {
    /// The state on disk.
    pub store: Arc<Store>,
    /// The state that lookups see.
    pub table: Arc<Table>,
    /// The writer.
    pub writer: writer::Handle,
    /// Who keeps the fallback file current.
    pub keeper: Keeper,
    /// Counters.
    pub stats: Arc<Stats>,
    /// The time.
    pub clock: Clock,
    /// When the daemon started.
    pub started: Timestamp,
    /// Ends walks through long tables.
    pub stop: Stop,
    /// What the configuration says, replaced as a whole when it changes.
    pub policy: Arc<RwLock<Arc<Policy>>>,
    /// What the start has found lost, until something is imported.
    pub lost: Arc<Mutex<Option<String>>>,
    /// The fallback file; none: none is written.
    pub fallback: Option<PathBuf>,
    /// Places for questions to NSS about peers: fewer than there are helper threads, so that peers without any right do not keep
    /// all of those from administrators.
    pub identifying: Arc<Semaphore>,
}

/// The part of the configuration that requests go by.
#[derive(Debug)]
pub struct Policy {
    /// Who may do what.
    pub access: Access,
    /// Which accounts exist.
    pub accounts: Arc<Accounts>,
    /// Where the domain-owner map comes from; without one every domain exists.
    pub owners: Option<PathBuf>,
    /// The server's `MailSend` role.
    pub mail_send: bool,
    /// How much may stay held.
    pub held: Held,
    /// What was wrong when all this was read again, and was left as it was.
    pub wrong: Vec<String>,
}

impl Requests {
    /// The policy now in force.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who is there, and what it may do. Names and groups are looked up for each request: somebody who was taken out of a
    /// group loses the right at once.
    ///
    /// # Errors
    ///
    /// The user database fails or does not answer.
    pub async fn identify(&self, credentials: &UnixCredentials) -> Result<(Peer, Right), Refusal> {
        let (uid, gid, pid) = (credentials.uid(), credentials.gid(), credentials.pid().unsigned_abs());
        // root is root, whatever the user database says, or however long it takes to say it.
        if uid == 0 {
            return Ok((Peer { uid, pid, name: "root".to_owned(), groups: [gid].into() }, Right::Change));
        }
        let waiting = time::timeout(PATIENCE, self.identifying.clone().acquire_owned()).await;
        let place = waiting.map_err(|_| no_answer())?;
        self.blocking(move |this| {
            // Kept for as long as NSS takes, whether somebody still waits for it or not.
            let _place = place;
            let failed = |error: Errno| Refusal {
                cause: Cause::Storage,
                message: format!("cannot ask the user database who uid {uid} is: {error}; try again"),
            };
            let peer = Peer::identify(uid, gid, pid).map_err(failed)?;
            let (rules, _unknown) = Rules::resolve(&this.policy().access).map_err(failed)?;
            let right = authorise::right(&peer, &rules);
            Ok((peer, right))
        })
        .await
    }

    /// Carries out a request whose peer has the right to it.
    pub async fn handle(&self, peer: &Peer, call: Call) -> Reply {
        let origin = || origin(peer, call.on_behalf_of.as_deref());
        let reply = match call.request {
            Request::Set { kind, subject, until, reason, notice } => {
                let flag = WireFlag { subject, kind, since: None, until, by: None, reason, notice };
                self.set(origin(), flag).await.map(Reply::Changed)
            }
            Request::Rehearse { kind, subject, until, reason, notice } => {
                let flag = WireFlag { subject, kind, since: None, until, by: None, reason, notice };
                let may = self.may_set(origin(), flag).await;
                may.map(|(_, subject)| Reply::Changed(Changed { subject, changed: false, warning: None }))
            }
            Request::Clear { kind, subject } => self.clear(origin(), kind.into(), &subject).await.map(Reply::Changed),
            Request::Pass { message_id } => self.pass(origin(), &message_id).await.map(Reply::Changed),
            Request::Import { flags } => self.import(origin(), flags).await.map(Reply::Imported),
            Request::Status { subject } => self.blocking(move |this| this.status(&subject)).await.map(Reply::Status),
            Request::List { kind, after } => self.blocking(move |this| this.list(kind, after.as_ref())).await,
            Request::Log { subject, before, limit } => {
                self.blocking(move |this| this.log(subject.as_deref(), before, limit)).await
            }
            Request::Settle => Ok(Reply::Settled { warning: self.keeper.settled().await }),
            Request::Stats => self.blocking(|this| Ok(Reply::Stats(Box::new(this.stats())))).await,
            Request::Condition => Ok(Reply::Condition(self.condition())),
            Request::Latencies => Ok(Reply::Latencies(self.stats.latency.by_powers())),
            Request::Judge { subjects, messages } => self.judge(&subjects, &messages).await,
            Request::Drop { dropped } => self.record_drop(origin(), dropped).await,
            Request::Passes { after } => self.blocking(move |this| this.passes(after.as_deref())).await,
            Request::Forget { message_ids } => self.forget(origin(), &message_ids).await,
            Request::Retention => Ok(Reply::Retention(self.retention())),
            Request::Accounts { after } => self.blocking(move |this| this.accounts(after.as_deref())).await,
            Request::CreateToken { name, functions, until } => {
                self.create_token(origin(), &name, &functions, until).await
            }
            Request::RevokeToken { name } => self.revoke_token(origin(), &name).await.map(Reply::Changed),
            Request::Tokens => self.blocking(Requests::list_tokens).await,
            // The session's own.
            Request::Watch { .. } | Request::Present { .. } => {
                Err(Refusal { cause: Cause::Invalid, message: "nobody listens here".to_owned() })
            }
        };
        reply.unwrap_or_else(Reply::Refused)
    }

    async fn set(&self, origin: Result<Origin, Refusal>, flag: WireFlag) -> Result<Changed, Refusal> {
        let (change, name) = self.may_set(origin, flag).await?;
        self.write_one(change, name).await
    }

    /// The change that sets a flag, and the subject's name.
    async fn may_set(&self, origin: Result<Origin, Refusal>, flag: WireFlag) -> Result<(Change, String), Refusal> {
        self.mail_sends()?;
        let origin = origin?;
        let change = self.see_whether(&flag.subject.clone(), move |this| this.change_of(&origin, flag)).await?;
        let name = change.action.subject().to_owned();
        Ok((change, name))
    }

    async fn clear(&self, origin: Result<Origin, Refusal>, kind: Kind, raw: &str) -> Result<Changed, Refusal> {
        self.mail_sends()?;
        let (origin, subject) = (origin?, subject(raw)?);
        let name = subject.as_str().to_owned();
        // What has a flag can be let go, whether it still exists or not; what has none must exist, or it is mistyped.
        if self.table.ends_of(&name).is_clear() {
            let subject = subject.clone();
            self.see_whether(raw, move |this| this.must_exist(&subject)).await?;
        }
        let action = Action::Clear { subject: subject.clone(), kind };
        let mut changed = self.write_one(Change { origin, action }, name).await?;
        // Whoever lets somebody go must learn that somebody is still stopped.
        if let Some((through, kind)) = self.table.deciding(&subject.as_identity(), self.clock.now()) {
            let still = format!("{subject} is still {} through the {} of {through}", kind.participle(), kind.as_str());
            changed.warning = Some(still);
        }
        Ok(changed)
    }

    async fn pass(&self, origin: Result<Origin, Refusal>, raw: &str) -> Result<Changed, Refusal> {
        let message = MessageId::new(raw.trim()).map_err(|error| invalid(raw, &error))?.into_owned();
        let name = message.as_str().to_owned();
        self.write_one(Change { origin: origin?, action: Action::Pass { message } }, name).await
    }

    /// Sets those of `flags` that can be set, in one transaction.
    async fn import(&self, origin: Result<Origin, Refusal>, flags: Vec<WireFlag>) -> Result<Imported, Refusal> {
        self.mail_sends()?;
        let origin = origin?;
        if flags.len() > MAX_IMPORT {
            let message = format!("nothing was imported: {} flags at once; send at most {MAX_IMPORT}", flags.len());
            return Err(Refusal { cause: Cause::Invalid, message });
        }
        // What has ended since it was exported is as it should be.
        let (all, now) = (flags.len(), self.clock.now().0);
        let flags: Vec<(u32, WireFlag)> =
            (0..).zip(flags).filter(|(_, flag)| flag.until.is_none_or(|until| now < until)).collect();
        let ended = u32::try_from(all - flags.len()).unwrap_or(u32::MAX);
        let outcomes = self
            .blocking(move |this| {
                Ok(flags
                    .into_iter()
                    .map(|(position, flag)| (position, this.change_of(&origin, flag)))
                    .collect::<Vec<_>>())
            })
            .await?;
        let (mut changes, mut imported) = (Vec::new(), Imported { unchanged: ended, ..Imported::default() });
        for (position, outcome) in outcomes {
            match outcome {
                Ok(change) => changes.push(change),
                Err(refusal) => imported.refused.push((position, refusal)),
            }
        }
        for effect in self.write(changes).await? {
            match effect {
                Effect::Unchanged => imported.unchanged += 1,
                _ => imported.changed += 1,
            }
        }
        if imported.changed > 0 {
            *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(imported)
    }

    /// The change that sets a flag, if it may be set.
    fn change_of(&self, origin: &Origin, flag: WireFlag) -> Result<Change, Refusal> {
        let WireFlag { subject: raw, kind, since, until, by, reason, notice } = flag;
        let (subject, kind, now) = (subject(&raw)?, Kind::from(kind), self.clock.now());
        if subject.is_root() {
            let message = format!("root can be neither held nor suspended; name the account that sends, not {subject}");
            return Err(Refusal { cause: Cause::Root, message });
        }
        let wrong = |what: String| Refusal {
            cause: Cause::Invalid,
            message: format!("{subject} was not {}: {what}", kind.participle()),
        };
        match until {
            Some(until) if until <= now.0 => {
                return Err(wrong("its end lies in the past; give a later one, or none".to_owned()));
            }
            Some(until) if until >= MAX_UNTIL.0 => {
                return Err(wrong("its end lies behind the year 2105; give an earlier one, or none".to_owned()));
            }
            _ => {}
        }
        if notice.is_some() && kind == Kind::Hold {
            return Err(wrong(
                "a notice is shown on rejection, and a hold rejects nothing; use --reason, or suspend".to_owned(),
            ));
        }
        let text = |name, text: Option<String>, take: fn(&str) -> Result<Option<String>, flag::TextError>| match text {
            Some(text) => take(&text).map_err(|error| wrong(format!("the {name} {error}; write one short line"))),
            None => Ok(None),
        };
        let terms = Terms {
            since: since.map(Timestamp).filter(|since| *since <= now),
            until: until.map(Timestamp),
            by: text("name behind \"by\"", by, flag::reason)?,
            reason: text("reason", reason, flag::reason)?,
            notice: text("notice", notice, flag::notice)?,
        };
        self.must_exist(&subject)?;
        Ok(Change { origin: origin.clone(), action: Action::Set { subject, kind, terms } })
    }

    fn must_exist(&self, subject: &Subject) -> Result<(), Refusal> {
        let policy = self.policy();
        let message = match (subject.shape(), &policy.owners) {
            (Shape::Everyone | Shape::Mailbox(REHEARSAL_DOMAIN), _) | (Shape::Domain(_) | Shape::Mailbox(_), None) => {
                return Ok(());
            }
            (Shape::Domain(domain) | Shape::Mailbox(domain), Some(owners)) => {
                if self.table.owner_of(domain).is_some() {
                    return Ok(());
                }
                format!("no domain {domain} in {}; check the spelling of {subject}", owners.display())
            }
            (Shape::Account(account), _) => match policy.accounts.has(account) {
                Ok(true) => return Ok(()),
                Ok(false) => format!(
                    "no account {account} in {}; check the spelling, or [accounts] in outgoingd.toml",
                    policy.accounts.place()
                ),
                Err(error) => format!(
                    "cannot see whether there is an account {account} in {}: {error}; try again",
                    policy.accounts.place()
                ),
            },
        };
        Err(Refusal { cause: Cause::NoSuchSubject, message })
    }

    fn mail_sends(&self) -> Result<(), Refusal> {
        if self.policy().mail_send {
            return Ok(());
        }
        let message = "this server's MailSend role is off, so there is no outgoing mail to stop; set mail-send = true in outgoingd.toml if that is wrong";
        Err(Refusal { cause: Cause::RoleOff, message: message.to_owned() })
    }

    pub(crate) async fn write_one(&self, change: Change, subject: String) -> Result<Changed, Refusal> {
        let effects = self.write(vec![change]).await?;
        Ok(Changed { subject, changed: effects != [Effect::Unchanged], warning: None })
    }

    /// Has changes made, all or none; says what each did.
    pub(crate) async fn write(&self, changes: Vec<Change>) -> Result<Vec<Effect>, Refusal> {
        self.writer.submit(changes).await.map_err(|error| {
            let cause = if matches!(error, WriteError::Stopping) { Cause::Stopping } else { Cause::Storage };
            let message =
                format!("{error}; nothing was acknowledged: mend that, look with `outgoingctl status`, and repeat it");
            Refusal { cause, message }
        })
    }

    fn status(&self, raw: &str) -> Result<Status, Refusal> {
        let subject = subject(raw)?;
        let (identity, now) = (subject.as_identity(), self.clock.now());
        let mut flags = Vec::new();
        for name in self.covering(&identity) {
            for (kind, flag) in self.store.flags_of(&name).map_err(|error| unreadable(&error))? {
                if flag.in_force(now) {
                    flags.push(wire::flag(&name, kind, flag));
                }
            }
        }
        // What has a flag may have been there before. root always is, whatever a list of accounts says.
        if flags.iter().all(|flag| flag.subject == "*") && !subject.is_root() {
            self.must_exist(&subject)?;
        }
        let deciding = self.table.deciding(&identity, now).map(|(name, kind)| (name, WireKind::from(kind)));
        // Stable: behind the deciding flag, the order of closeness stays.
        flags.sort_by_key(|flag| {
            deciding.as_ref().is_none_or(|(name, kind)| *name != flag.subject || *kind != flag.kind)
        });
        let owner = identity.at_domain().and_then(|at_domain| self.table.owner_of(&at_domain[1..]));
        let verdict = self.table.verdict(&identity, None, now).into();
        Ok(Status { subject: subject.as_str().to_owned(), owner, verdict, flags })
    }

    /// The subjects that may cover `identity`, each once.
    fn covering(&self, identity: &Identity<'_>) -> Vec<String> {
        let mut names = self.table.covering(identity);
        names.dedup();
        names
    }

    fn list(&self, wanted: Option<WireKind>, after: Option<&(String, WireKind)>) -> Result<Reply, Refusal> {
        let now = self.clock.now();
        let (mut flags, mut size, mut more) = (Vec::new(), 0, false);
        let after = after.map(|(subject, kind)| (subject.as_str(), Kind::from(*kind)));
        let walked = self.store.flags_after(after, |(subject, kind, flag)| {
            if !self.goes_on() {
                return false;
            }
            if !flag.in_force(now) || wanted.is_some_and(|wanted| wanted != kind.into()) {
                return true;
            }
            if size >= PAGE {
                more = true;
                return false;
            }
            let flag = wire::flag(subject.as_str(), kind, flag);
            size += size_of_texts(&[Some(&flag.subject), flag.by.as_ref(), flag.reason.as_ref(), flag.notice.as_ref()]);
            flags.push(flag);
            true
        });
        walked.map_err(|error| unreadable(&error))?;
        Ok(Reply::Flags { flags, more })
    }

    fn log(&self, about: Option<&str>, before: Option<u64>, limit: u32) -> Result<Reply, Refusal> {
        let about = about.map(held::mail).transpose()?;
        let (mut entries, mut size, mut older) = (Vec::new(), 0, None);
        let walked = self.store.log_before(before, |sequence, entry| {
            if !self.goes_on() {
                return false;
            }
            if about.as_ref().is_some_and(|about| about.as_str() != entry.subject) {
                return true;
            }
            if entries.len() >= limit as usize || size >= PAGE {
                older = Some(sequence + 1);
                return false;
            }
            let entry = wire::entry(sequence, entry);
            size += size_of_entry(&entry);
            entries.push(entry);
            true
        });
        walked.map_err(|error| unreadable(&error))?;
        Ok(Reply::Log { entries, before: older })
    }

    fn stats(&self) -> WireStats {
        let (held, suspended, passes) = self.table.count(self.clock.now());
        let [p50, p90, p99, p999] = self.stats.latency.percentiles([500, 900, 990, 999]);
        WireStats {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started.0,
            held,
            suspended,
            passes,
            lookups_ok: self.stats.lookups_ok.load(Relaxed),
            lookups_hold: self.stats.lookups_hold.load(Relaxed),
            lookups_suspend: self.stats.lookups_suspend.load(Relaxed),
            notices: self.stats.notices.load(Relaxed),
            malformed: self.stats.malformed.load(Relaxed),
            slow_peers: self.stats.slow_peers.load(Relaxed),
            timed_out: self.stats.timed_out.load(Relaxed),
            turned_away: self.stats.turned_away.load(Relaxed),
            changes: self.stats.changes.load(Relaxed),
            refused: self.stats.refused.load(Relaxed),
            fallback_writes: self.stats.fallback_writes.load(Relaxed),
            fallback_failures: self.stats.fallback_failures.load(Relaxed),
            latency_p50_ns: p50,
            latency_p90_ns: p90,
            latency_p99_ns: p99,
            latency_p999_ns: p999,
        }
    }

    fn condition(&self) -> Condition {
        let paths = [self.store.path().parent(), self.fallback.as_deref()];
        let [state_dir, fallback_file] = paths.map(|path| path.map(|path| path.display().to_string()));
        let mut troubles = self.policy().wrong.clone();
        troubles.extend(self.keeper.failure());
        troubles.extend(self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone());
        troubles.extend(self.writer.refusal().map(|why| format!("changes are refused: {why}")));
        Condition { now: self.clock.now().0, state_dir: state_dir.unwrap_or_default(), fallback_file, troubles }
    }

    /// Does what sees whether there is such a subject: at once, unless NSS is asked; all else is in memory.
    async fn see_whether<T: Send + 'static>(
        &self,
        subject: &str,
        work: impl FnOnce(&Requests) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        match *self.policy().accounts {
            Accounts::Passwd if !subject.contains('@') => self.blocking(work).await,
            _ => work(self),
        }
    }

    /// Does on a thread of its own what may wait for the disk or for NSS.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Requests) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let this = self.clone();
        let outcome = time::timeout(PATIENCE, tokio::task::spawn_blocking(move || work(&this))).await;
        match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(unreadable(&error)),
            Err(_) => Err(no_answer()),
        }
    }

    /// Whether a walk through a long table should go on.
    pub(crate) fn goes_on(&self) -> bool {
        !self.stop.is_said()
    }
}

impl Action {
    /// The subject or message that it is about.
    fn subject(&self) -> &str {
        match self {
            Action::Set { subject, .. } | Action::Clear { subject, .. } | Action::Expire { subject, .. } => {
                subject.as_str()
            }
            Action::Pass { message } | Action::ForgetPass { message } => message.as_str(),
            Action::Drop { mail, .. } => mail.as_str(),
            Action::CreateToken { name, .. } | Action::RevokeToken { name } => name.as_str(),
        }
    }
}

fn origin(peer: &Peer, on_behalf_of: Option<&str>) -> Result<Origin, Refusal> {
    let on_behalf_of = match on_behalf_of.map(flag::reason).transpose() {
        Ok(whom) => whom.flatten(),
        Err(error) => {
            let message = format!("nothing was changed: the name on whose behalf {error}; write one short line");
            return Err(Refusal { cause: Cause::Invalid, message });
        }
    };
    Ok(Origin { by: peer.name.clone(), uid: peer.uid, pid: peer.pid, on_behalf_of })
}

pub(crate) fn subject(raw: &str) -> Result<Subject, Refusal> {
    Subject::new(raw).map_err(|error| invalid(raw, &error))
}

pub(crate) fn invalid(raw: &str, error: &crate::name::NameError) -> Refusal {
    // What was typed may be anything: escaped, and not all of it.
    let shown: String = raw.escape_debug().take(SHOWN).collect();
    Refusal { cause: Cause::Invalid, message: format!("\"{shown}\" {error}") }
}

fn no_answer() -> Refusal {
    let seconds = PATIENCE.as_secs();
    let message = format!("the disk or the user database did not answer within {seconds} s; try again");
    Refusal { cause: Cause::Storage, message }
}

pub(crate) fn stopping() -> Refusal {
    Refusal { cause: Cause::Stopping, message: WriteError::Stopping.to_string() }
}

pub(crate) fn unreadable(error: &dyn std::fmt::Display) -> Refusal {
    Refusal { cause: Cause::Storage, message: format!("cannot read the state: {error}; see the daemon's log") }
}

pub(crate) fn size_of_entry(entry: &LogEntry) -> usize {
    size_of_texts(&[
        Some(&entry.subject),
        Some(&entry.by),
        entry.reason.as_ref(),
        entry.notice.as_ref(),
        entry.on_behalf_of.as_ref(),
    ])
}

fn size_of_texts(texts: &[Option<&String>]) -> usize {
    ROW + texts.iter().flatten().map(|text| text.len()).sum::<usize>()
}
