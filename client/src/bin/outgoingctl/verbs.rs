//! The commands: each asks the daemon and prints what came back.
//!
//! A command for several subjects tries all of them and reports each; it fails if any did. With `--json` a report is one
//! object a line on standard output, errors of single subjects included; what concerns the command as a whole goes to
//! standard error as text. What changes something goes on to its end, and to its exit status, when nobody reads any more
//! what it prints; a listing stops.

use crate::Failure;
use crate::arguments::{Arguments, Verb};
use crate::import::{self, Batch};
use crate::rows::{self, CheckRow, Done, Failed, ImportRow, LogRow, StatusRow};
use crate::{moment, show};
use indicatif::{ProgressBar, ProgressStyle};
use outgoingd_client::protocol::message::{Changed, Flag, Imported, Kind, LogEntry};
use outgoingd_client::{Client, Error, Terms};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::time::Instant;

/// Rows of a table that are laid out together, so that a list of a million neither waits for its end nor fills memory.
const TABLE_ROWS: usize = 1000;

/// Where a command prints, and in which of the two forms.
struct Output {
    out: BufWriter<io::StdoutLock<'static>>,
    json: bool,
    /// Nobody reads any more.
    closed: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { socket, json, verb } = arguments;
    let mut output = Output { out: BufWriter::new(io::stdout().lock()), json, closed: false };
    let mut client = Client::new(socket);
    // Under sudo or doas the kernel names root; the audit trail shall name the person too.
    if let Ok(login) = std::env::var("SUDO_USER").or_else(|_| std::env::var("DOAS_USER")) {
        client.on_behalf_of(login);
    }
    let changing = verb.changes();
    let done = match verb {
        Verb::Hold { subjects, reason, end } => {
            let terms = Terms { until: end.until(), reason, notice: None };
            each(&mut output, "hold", "held", &subjects.subjects, terms.until, |subject| client.hold(subject, &terms))
        }
        // With and without --keep, what waits is left to the next queue run.
        Verb::Release { subjects, keep: _ } => {
            each(&mut output, "release", "released", &subjects.subjects, None, |subject| client.release(subject))
        }
        Verb::Suspend { subjects, reason, notice, end } => {
            let terms = Terms { until: end.until(), reason, notice };
            each(&mut output, "suspend", "suspended", &subjects.subjects, terms.until, |subject| {
                client.suspend(subject, &terms)
            })
        }
        Verb::Unsuspend { subjects } => {
            each(&mut output, "unsuspend", "unsuspended", &subjects.subjects, None, |subject| client.unsuspend(subject))
        }
        Verb::Pass { message_ids } => {
            each(&mut output, "pass", "may be delivered", &message_ids, None, |message_id| client.pass(message_id))
        }
        Verb::Status { subject } => {
            let status = client.status(&subject)?;
            if json { output.json(&StatusRow::from(status)) } else { output.text(&show::status(&status)) }
        }
        Verb::List { held, suspended } => {
            let kind = match (held, suspended) {
                (true, _) => Some(Kind::Hold),
                (_, true) => Some(Kind::Suspend),
                _ => None,
            };
            list(&mut output, &mut client, kind)
        }
        Verb::Export => client.list(None, |flag| output.row(&rows::Flag::from(flag))),
        Verb::Check { identity, id } => check(&mut output, &client, &identity, id.as_deref()),
        Verb::Log { subject, lines } => log(&mut output, &mut client, subject.as_deref(), lines),
        Verb::Import { file, kind } => import_file(&mut output, &mut client, &file, kind.map(Kind::from)),
        Verb::Stats => {
            let stats = client.stats()?;
            let object = || rows::stats(&stats).into_iter().collect::<BTreeMap<_, _>>();
            if json { output.json(&object()) } else { output.text(&show::stats(&stats)) }
        }
    };
    // Also behind a failure, since something may have been done before it; but a daemon that did not answer is not asked again.
    let silent = matches!(done, Err(Failure::Client(Error::Unreachable { .. } | Error::Lost { .. })));
    if changing && !silent {
        settle(&mut output, &mut client)?;
    }
    done?;
    output.flush()
}

/// Whoever reads that a sender is stopped may count on it, even if the daemon is killed in the next moment.
fn settle(output: &mut Output, client: &mut Client) -> Result<(), Failure> {
    match client.settle() {
        Ok(None) => Ok(()),
        Ok(Some(warning)) => output.warn(&warning),
        // Who was refused the change is refused this, and has been told.
        Err(error) if error.is_not_permitted() => Ok(()),
        Err(error) => output.warn(&format!("whether the fallback file shows what was changed is not known: {error}")),
    }
}

/// Does the same for each subject, reports each, and fails if any failed.
fn each(
    output: &mut Output,
    command: &str,
    done: &str,
    subjects: &[String],
    until: Option<u64>,
    mut act: impl FnMut(&str) -> Result<Changed, Error>,
) -> Result<(), Failure> {
    let mut failed = 0;
    for subject in subjects {
        match act(subject) {
            Ok(changed) => output.changed(command, done, until, &changed)?,
            Err(Error::Refused(refusal)) if !Error::Refused(refusal.clone()).is_not_permitted() => {
                failed += 1;
                let cause = rows::cause(refusal.cause);
                output.failed(&Failed {
                    line: None,
                    subject: Some(subject),
                    command,
                    error: &refusal.message,
                    cause,
                })?;
            }
            // Whatever else happened would happen to the next one too.
            Err(error) => {
                output.flush()?;
                return Err(error.into());
            }
        }
    }
    match (failed, subjects.len()) {
        (0, _) => Ok(()),
        (1, 1) => output.flush().and(Err(Failure::Some(format!("{command} failed")))),
        (failed, all) => output.flush().and(Err(Failure::Some(format!("{command} failed for {failed} of {all}")))),
    }
}

fn list(output: &mut Output, client: &mut Client, kind: Option<Kind>) -> Result<(), Failure> {
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

fn check(output: &mut Output, client: &Client, identity: &str, message_id: Option<&str>) -> Result<(), Failure> {
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

fn log(output: &mut Output, client: &mut Client, subject: Option<&str>, lines: u64) -> Result<(), Failure> {
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

/// The state of an import under way.
struct Import<'a> {
    output: &'a mut Output,
    client: &'a mut Client,
    batch: Batch,
    total: ImportRow,
    progress: ProgressBar,
}

fn import_file(output: &mut Output, client: &mut Client, file: &Path, kind: Option<Kind>) -> Result<(), Failure> {
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

impl Output {
    fn changed(&mut self, command: &str, done: &str, until: Option<u64>, changed: &Changed) -> Result<(), Failure> {
        let Changed { subject, changed, warning } = changed;
        if self.json {
            let until = until.map(moment::rfc3339);
            return self.json(&Done { subject, command, changed: *changed, until, warning: warning.as_deref() });
        }
        let subject = show::safe(subject);
        let end = until.map(|until| format!(" until {}", moment::local(until))).unwrap_or_default();
        match changed {
            true => self.text(&format!("{subject}: {done}{end}\n"))?,
            false => self.text(&format!("{subject}: {}, nothing to do\n", already(command)))?,
        }
        match warning {
            Some(warning) => self.warn(warning),
            None => Ok(()),
        }
    }

    fn failed(&mut self, failed: &Failed<'_>) -> Result<(), Failure> {
        if self.json {
            return self.json(failed);
        }
        // Reports stand in the order of their subjects, wherever the two streams go.
        self.flush()?;
        match failed.line {
            Some(line) => eprintln!("line {line}: {}", show::safe(failed.error)),
            None => eprintln!("{}: {}", failed.command, show::safe(failed.error)),
        }
        Ok(())
    }

    fn warn(&mut self, warning: &str) -> Result<(), Failure> {
        self.flush()?;
        eprintln!("outgoingctl: warning: {}", show::safe(warning));
        Ok(())
    }

    /// A row of a listing, which ends when nobody reads it.
    fn row(&mut self, row: &impl Serialize) -> Result<(), Failure> {
        self.json(row)?;
        self.is_read()
    }

    fn is_read(&self) -> Result<(), Failure> {
        if self.closed { Err(Failure::NobodyReads) } else { Ok(()) }
    }

    fn json(&mut self, row: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(row)
            .map_err(|error| Failure::Io { what: CANNOT_PRINT.to_owned(), source: error.into() })?;
        self.text(&(line + "\n"))
    }

    fn text(&mut self, text: &str) -> Result<(), Failure> {
        let printed = self.out.write_all(text.as_bytes());
        self.printed(printed)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let printed = self.out.flush();
        self.printed(printed)
    }

    fn printed(&mut self, printed: io::Result<()>) -> Result<(), Failure> {
        match printed {
            Err(_) if self.closed => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            printed => printed.map_err(|source| Failure::Io { what: CANNOT_PRINT.to_owned(), source }),
        }
    }
}

const CANNOT_PRINT: &str = "cannot print";

/// How things are when a command had nothing to do.
fn already(command: &str) -> &'static str {
    match command {
        "hold" => "is held so already",
        "release" => "is not held",
        "suspend" => "is suspended so already",
        "unsuspend" => "is not suspended",
        _ => "has a pass already",
    }
}
