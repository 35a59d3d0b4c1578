//! The commands: each asks the daemon and prints what came back.
//!
//! A command for several subjects tries all of them and reports each; it fails if any did. With `--json` a report is one
//! object a line on standard output, errors of single subjects included; what concerns the command as a whole goes to
//! standard error as text.

use crate::Failure;
use crate::arguments::{Arguments, Consent, Subjects, Verb};
use crate::delivery;
use crate::doctor;
use crate::enabling;
use crate::exposition;
use crate::held::{self, View};
use crate::import::{self, Batch};
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::removal::{self, Sweep};
use crate::rows::{self, Bouncing, CheckRow, Failed, ImportRow, LogRow, StatusRow};
use crate::tools::{self, TABLE_ROWS, Tools};
use crate::{api, moment, show, token, turn};
use indicatif::{ProgressBar, ProgressStyle};
use outgoingd_client::exim::Exim;
use outgoingd_client::held::{Search, Stand};
use outgoingd_client::protocol::message::{Cause, Flag, Imported, Kind, LogEntry};
use outgoingd_client::{Client, Error, Terms};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::time::Instant;

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { socket, exim, json, on_behalf_of, verb } = arguments;
    // Under sudo or doas the kernel names root; the audit trail shall name the person too.
    let login = std::env::var("SUDO_USER").or_else(|_| std::env::var("DOAS_USER")).ok();
    let whom = match (on_behalf_of, login) {
        (Some(whom), Some(login)) => Some(format!("{whom}, by {login}")),
        (whom, login) => whom.or(login),
    };
    let [client, recorder] = [(); 2].map(|()| {
        let mut client = Client::new(&socket);
        if let Some(whom) = &whom {
            client.on_behalf_of(whom);
        }
        client
    });
    let output = Output::new(json);
    let mut tools = Tools { client, recorder, output, socket, program: exim, on_behalf_of: whom };
    let changing = verb.changes();
    let done = obey(&mut tools, verb);
    // Also behind a failure, since something may have been done before it; but a daemon that did not answer is not asked again.
    let silent = matches!(done, Err(Failure::Client(Error::Unreachable { .. } | Error::Lost { .. })));
    if changing && !silent {
        settle(&mut tools)?;
    }
    done?;
    tools.output.flush()
}

fn obey(tools: &mut Tools, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Hold { subjects, reason, end } => {
            hold(tools, &subjects.subjects, &Terms { until: end.until(), reason, notice: None })
        }
        Verb::Release { subjects: Subjects { subjects }, keep: true, .. } => release(tools, &subjects, &mut Vec::new()),
        Verb::Release { subjects: Subjects { subjects }, drop: true, consent, .. } => {
            release_and_drop(tools, &subjects, consent)
        }
        Verb::Release { subjects: Subjects { subjects }, jobs, .. } => release_and_deliver(tools, &subjects, jobs),
        Verb::Deliver { subjects: Subjects { subjects }, in_turn, jobs } => {
            // Who may not have it delivered is told so before he waits for a turn.
            let exim = tools.exim()?;
            let _turn = in_turn.then(|| turn::take(&tools.socket)).transpose()?;
            deliver(tools, &exim, &subjects, jobs)
        }
        Verb::Suspend { subjects, reason, notice, end, drop, consent } => {
            let terms = Terms { until: end.until(), reason, notice };
            if drop {
                suspend_and_drop(tools, &subjects.subjects, &terms, consent)
            } else {
                suspend(tools, &subjects.subjects, &terms)
            }
        }
        Verb::Unsuspend { subjects } => unsuspend(tools, &subjects.subjects),
        Verb::Held { subject, summary, older, limit } => {
            let view = if summary { View::Summary } else { View::Messages(limit.unwrap_or(u64::MAX)) };
            held::held(tools, subject, older, view)
        }
        Verb::Pass { message_ids, keep: true } => pass(tools, &message_ids),
        Verb::Pass { message_ids, keep: false } => delivery::pass(tools, &message_ids),
        Verb::Drop { subject: Some(subject), held, older, consent, .. } => {
            let stand = if held { Stand::Held } else { Stand::Stopped };
            removal::drop_subject(tools, &subject, stand, older, consent)
        }
        Verb::Drop { message_ids, consent, .. } => removal::drop_messages(tools, &message_ids, consent),
        Verb::Sweep { dry_run } => removal::sweep(tools, if dry_run { Sweep::Try } else { Sweep::Remove }),
        Verb::Status { subject } => status(tools, &subject),
        Verb::List { held, suspended } => {
            let kind = match (held, suspended) {
                (true, _) => Some(Kind::Hold),
                (_, true) => Some(Kind::Suspend),
                _ => None,
            };
            list(tools, kind)
        }
        Verb::Export => export(tools),
        Verb::Check { identity, id } => check(tools, &identity, id.as_deref()),
        Verb::Log { subject, lines } => log(tools, subject.as_deref(), lines),
        Verb::Watch { subject } => watch(tools, subject.as_deref()),
        Verb::Import { file, kind } => import_file(tools, &file, kind.map(Kind::from)),
        Verb::Stats { prometheus: true } => prometheus(tools),
        Verb::Stats { prometheus: false } => stats(tools),
        Verb::Exim(verb) => enabling::exim(tools, verb),
        Verb::Doctor => doctor::doctor(tools),
        Verb::Token(verb) => token::token(tools, verb),
        Verb::Whm(call) => api::whm(tools, &call),
        Verb::Uapi { user, module, call } => api::uapi(tools, user.as_deref(), &module, &call),
    }
}

fn hold(tools: &mut Tools, subjects: &[String], terms: &Terms) -> Result<(), Failure> {
    each(tools, "hold", subjects, |Tools { client, output, .. }, subject| {
        output.changed("hold", "held", terms.until, &client.hold(subject, terms)?)
    })
}

fn unsuspend(tools: &mut Tools, subjects: &[String]) -> Result<(), Failure> {
    each(tools, "unsuspend", subjects, |Tools { client, output, .. }, subject| {
        output.changed("unsuspend", "unsuspended", None, &client.unsuspend(subject)?)
    })
}

/// Gives passes, and leaves the rest to Exim, which need not be here.
fn pass(tools: &mut Tools, message_ids: &[String]) -> Result<(), Failure> {
    each(tools, "pass", message_ids, |Tools { client, output, .. }, message_id| {
        output.changed("pass", "may be delivered", None, &client.pass(message_id)?)
    })
}

/// Clears holds. `released` takes the subjects that are free now, whether they were held or not.
fn release(tools: &mut Tools, subjects: &[String], released: &mut Vec<String>) -> Result<(), Failure> {
    each(tools, "release", subjects, |Tools { client, output, .. }, subject| {
        let changed = client.release(subject)?;
        output.changed("release", "released", None, &changed)?;
        released.push(changed.subject);
        Ok(())
    })
}

fn release_and_deliver(tools: &mut Tools, subjects: &[String], jobs: u8) -> Result<(), Failure> {
    // Who may not have it delivered is told so before anything is changed.
    let exim = tools.exim()?;
    let mut released = Vec::new();
    let done = release(tools, subjects, &mut released);
    if !released.is_empty() {
        tools.output.flush()?;
        delivery::deliver(tools, &exim, &released, "release", jobs)?;
    }
    done
}

/// The second half of a release: what was released before goes, whoever has released it.
fn deliver(tools: &mut Tools, exim: &Exim, subjects: &[String], jobs: u8) -> Result<(), Failure> {
    subjects.iter().try_for_each(|subject| tools.warn_of_unknown(subject))?;
    delivery::deliver(tools, exim, subjects, "deliver", jobs)
}

fn release_and_drop(tools: &mut Tools, subjects: &[String], consent: Consent) -> Result<(), Failure> {
    let exim = tools.exim()?;
    // What comes in behind the question was not asked about.
    let before = moment::now() + 1;
    removal::ask(tools, &exim, subjects, Stand::Held, consent, ", and release")?;
    let interrupt = Interrupt::listen()?;
    each(tools, "release", subjects, |tools, subject| removal::release(tools, &exim, subject, before, &interrupt))
}

fn suspend(tools: &mut Tools, subjects: &[String], terms: &Terms) -> Result<(), Failure> {
    let mut suspended = Vec::new();
    let done = each(tools, "suspend", subjects, |Tools { client, output, .. }, subject| {
        let changed = client.suspend(subject, terms)?;
        output.changed("suspend", "suspended", terms.until, &changed)?;
        suspended.push(changed.subject);
        Ok(())
    });
    if !suspended.is_empty() {
        tools.output.flush()?;
        tell_what_will_bounce(tools, &suspended)?;
    }
    done
}

/// Whoever is suspended is so, whether that can be told or not.
fn tell_what_will_bounce(tools: &mut Tools, subjects: &[String]) -> Result<(), Failure> {
    let search = Search { subjects, of: Stand::Bouncing, before: None };
    let waiting = match tools.exim().and_then(|exim| tools::count(tools, &exim, search)) {
        Ok(waiting) => waiting,
        Err(error) => {
            return tools.output.warn(&format!("how many messages wait, and will be bounced, is not known: {error}"));
        }
    };
    if tools.output.json {
        return tools.output.json(&Bouncing { command: "suspend", waiting });
    }
    if waiting == 0 {
        return Ok(());
    }
    let next = subjects.iter().map(|subject| format!("outgoingctl drop --subject '{}'", show::safe(subject)));
    let next = next.collect::<Vec<_>>().join("; ");
    tools.output.text(&format!(
        "{} on the queue will be bounced by the next queue run; to remove them instead: {next}\n",
        show::messages(waiting)
    ))
}

fn suspend_and_drop(tools: &mut Tools, subjects: &[String], terms: &Terms, consent: Consent) -> Result<(), Failure> {
    let exim = tools.exim()?;
    removal::ask(tools, &exim, subjects, Stand::Any, consent, ", and suspend")?;
    let interrupt = Interrupt::listen()?;
    each(tools, "suspend", subjects, |tools, subject| removal::suspend(tools, &exim, subject, terms, &interrupt))
}

/// Whoever reads that a sender is stopped may count on it, even if the daemon is killed in the next moment.
fn settle(Tools { client, output, .. }: &mut Tools) -> Result<(), Failure> {
    match client.settle() {
        Ok(None) => Ok(()),
        Ok(Some(warning)) => output.warn(&warning),
        // Who was refused the change is refused this, and has been told.
        Err(error) if error.is_not_permitted() => Ok(()),
        Err(error) => output.warn(&format!("whether the fallback file shows what was changed is not known: {error}")),
    }
}

/// Does the same for each subject, and fails if any was refused; each that was is reported.
pub(crate) fn each(
    tools: &mut Tools,
    command: &str,
    subjects: &[String],
    mut act: impl FnMut(&mut Tools, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut failed = 0;
    for subject in subjects {
        match act(tools, subject) {
            Ok(()) => {}
            Err(Failure::Client(Error::Refused(refusal))) if refusal.cause != Cause::NotPermitted => {
                failed += 1;
                let cause = rows::cause(refusal.cause);
                let subject = Some(subject.as_str());
                tools.output.failed(&Failed { line: None, subject, command, error: &refusal.message, cause })?;
            }
            // That messages of one stay is no reason to leave the next one alone.
            Err(Failure::Some(error)) if subjects.len() > 1 => {
                failed += 1;
                let subject = Some(subject.as_str());
                tools.output.failed(&Failed { line: None, subject, command, error: &error, cause: "failed" })?;
            }
            // Whatever else happened would happen to the next one too.
            Err(error) => return tools.output.flush().and(Err(error)),
        }
    }
    tools.output.some_failed(command, failed, subjects.len())
}

fn status(Tools { client, output, .. }: &mut Tools, subject: &str) -> Result<(), Failure> {
    let status = client.status(subject)?;
    if output.json { output.json(&StatusRow::from(status)) } else { output.text(&show::status(&status)) }
}

fn export(Tools { client, output, .. }: &mut Tools) -> Result<(), Failure> {
    client.list(None, |flag| output.row(&rows::Flag::from(flag)))
}

fn prometheus(Tools { client, output, .. }: &mut Tools) -> Result<(), Failure> {
    let (stats, latencies) = (client.stats()?, client.latencies()?);
    output.text(&exposition::text(&stats, &latencies))
}

fn stats(Tools { client, output, .. }: &mut Tools) -> Result<(), Failure> {
    let stats = client.stats()?;
    let object = || rows::stats(&stats).into_iter().collect::<BTreeMap<_, _>>();
    if output.json { output.json(&object()) } else { output.text(&show::stats(&stats)) }
}

fn list(Tools { client, output, .. }: &mut Tools, kind: Option<Kind>) -> Result<(), Failure> {
    if output.json {
        return client.list(kind, |flag| output.row(&rows::Flag::from(flag)));
    }
    let mut rows: Vec<Flag> = Vec::new();
    let mut any = false;
    let mut print = |output: &mut Output, flags: &mut Vec<Flag>| {
        let mut table = show::table(if any { &[] } else { &show::FLAGS });
        table.add_rows(flags.drain(..).map(|flag| show::flag(&flag)));
        any = true;
        output.text(&show::text(&table))?;
        output.is_read()
    };
    client.list(kind, |flag| {
        rows.push(flag);
        if rows.len() < TABLE_ROWS { Ok(()) } else { print(output, &mut rows) }
    })?;
    if rows.is_empty() { Ok(()) } else { print(output, &mut rows) }
}

fn check(Tools { client, output, .. }: &mut Tools, identity: &str, message_id: Option<&str>) -> Result<(), Failure> {
    let asked = Instant::now();
    let verdict = client.check(identity, message_id)?;
    let took = asked.elapsed();
    if output.json {
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        output.json(&CheckRow { identity, verdict: verdict.as_str(), microseconds })
    } else {
        output.text(&format!("{verdict} ({} µs)\n", took.as_micros()))
    }
}

fn log(Tools { client, output, .. }: &mut Tools, subject: Option<&str>, lines: u64) -> Result<(), Failure> {
    let mut entries: Vec<LogEntry> = Vec::new();
    client.log(subject, lines, |entry| {
        entries.push(entry);
        Ok::<(), Failure>(())
    })?;
    entries.reverse();
    if output.json {
        return entries.into_iter().try_for_each(|entry| output.row(&LogRow::from(entry)));
    }
    if entries.is_empty() {
        return output.text("nothing on record\n");
    }
    let mut table = show::table(&show::LOG);
    table.add_rows(entries.iter().map(show::log));
    output.text(&show::text(&table))
}

/// Each change as it happens, a line each, until Ctrl-C.
fn watch(Tools { client, output, .. }: &mut Tools, subject: Option<&str>) -> Result<(), Failure> {
    client.watch(subject, None, |entries| {
        for entry in entries {
            if output.json {
                output.json(&LogRow::from(entry.clone()))?;
            } else {
                output.text(&format!("{}\n", show::log(entry).join("  ")))?;
            }
        }
        output.flush()?;
        output.is_read()
    })
}

/// The state of an import under way.
struct Import<'a> {
    output: &'a mut Output,
    client: &'a mut Client,
    batch: Batch,
    total: ImportRow,
    progress: ProgressBar,
}

fn import_file(Tools { client, output, .. }: &mut Tools, file: &Path, kind: Option<Kind>) -> Result<(), Failure> {
    let io = |source| Failure::Io { what: format!("cannot read {}", file.display()), source };
    let stdin = file == Path::new("-");
    let kind = kind.or_else(|| import::kind_by_name(file));
    let (reader, length): (Box<dyn Read>, _) = if stdin {
        (Box::new(io::stdin()), None)
    } else {
        let opened = File::open(file).map_err(io)?;
        let length = opened.metadata().map_err(io)?.len();
        (Box::new(opened), Some(length))
    };
    let total = ImportRow { changed: 0, unchanged: 0, refused: 0 };
    let mut import = Import { output, client, batch: Batch::default(), total, progress: progress(length) };
    let mut reader = BufReader::new(reader);
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(io)?;
        if read == 0 {
            break;
        }
        number += 1;
        import.progress.inc(read as u64);
        import.line(number, &line, kind)?;
    }
    import.send()?;
    import.finish()
}

impl Import<'_> {
    fn line(&mut self, number: u64, line: &[u8], kind: Option<Kind>) -> Result<(), Failure> {
        let parsed =
            str::from_utf8(line).map_err(|_| "is not UTF-8".to_owned()).and_then(|line| import::parse(line, kind));
        match parsed {
            Ok(Some(flag)) => self.batch.add(number, flag),
            Ok(None) => {}
            Err(error) => self.refused(number, None, &error, "invalid")?,
        }
        if self.batch.is_full() { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Failure> {
        let Batch { flags, lines, .. } = std::mem::take(&mut self.batch);
        if flags.is_empty() {
            return Ok(());
        }
        let subjects: Vec<String> = flags.iter().map(|flag| flag.subject.clone()).collect();
        let Imported { changed, unchanged, refused } = self.client.import(flags)?;
        self.total.changed += u64::from(changed);
        self.total.unchanged += u64::from(unchanged);
        for (position, refusal) in refused {
            let position = position as usize;
            let line = lines.get(position).copied().unwrap_or(0);
            self.refused(
                line,
                subjects.get(position).map(String::as_str),
                &refusal.message,
                rows::cause(refusal.cause),
            )?;
        }
        Ok(())
    }

    fn refused(&mut self, line: u64, subject: Option<&str>, error: &str, cause: &str) -> Result<(), Failure> {
        self.total.refused += 1;
        let failed = Failed { line: Some(line), subject, command: "import", error, cause };
        self.progress.suspend(|| self.output.failed(&failed))
    }

    fn finish(self) -> Result<(), Failure> {
        self.progress.finish_and_clear();
        let ImportRow { changed, unchanged, refused } = self.total;
        if self.output.json {
            self.output.json(&self.total)?;
        } else {
            self.output.text(&format!("{changed} set, {unchanged} already so, {refused} refused\n"))?;
        }
        match refused {
            0 => Ok(()),
            refused => self.output.flush().and(Err(Failure::Some(format!("import failed for {refused} lines")))),
        }
    }
}

/// A bar on a terminal, nothing elsewhere.
fn progress(length: Option<u64>) -> ProgressBar {
    match length {
        Some(length) => ProgressBar::new(length).with_style(
            ProgressStyle::with_template("{bar:40} {percent}% {bytes_per_sec}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        ),
        None => ProgressBar::no_length(),
    }
}
