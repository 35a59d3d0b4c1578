//! One lookup inside one Exim process (`exim -be`), beside what people use today.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{Length, daemon_with, progress};
use crate::packages;
use crate::testbed::{Exim, public_directory, wait_until};

/// Records of the databases.
const RECORDS: usize = 100_000;

/// Rounds of which the median counts.
const ROUNDS: usize = 7;

/// Expansions in one process, whose answers fit into a pipe that nobody empties yet.
const EXPANSIONS: usize = 4_000;

/// From key to key; a prime, so that all records have their turn.
const STRIDE: usize = 7_919;

/// One way to look a sender up, and what one lookup takes.
#[derive(Clone, Debug)]
pub(super) struct Rival {
    pub(super) name: String,
    pub(super) microseconds: f64,
}

/// Times thousands of expansions of each kind in one Exim process.
pub(super) fn inside_one_exim(length: Length) -> Result<Vec<Rival>> {
    progress("one lookup inside one Exim, beside greylistd, lsearch, cdb and sqlite");
    let count = if length == Length::Full { EXPANSIONS } else { EXPANSIONS / 5 };
    let home = public_directory()?;
    let daemon = daemon_with(1_000)?;
    let exim = Exim::builder().start()?;
    let mut rivals = Vec::new();
    let mut add = |name: &str, microseconds: f64| rivals.push(Rival { name: name.to_owned(), microseconds });
    let socket = daemon.socket().display().to_string();
    let asked = |key: &str| format!("${{readsocket{{{socket}}}{{check id= {key}\\n}}{{2s}}{{}}{{failed}}}}");
    add("outgoingd", expanded(&exim, count, 1_000, asked)?);
    let greylistd = Greylistd::start()?;
    let socket = greylistd.home.path().join("socket").display().to_string();
    let asked = |key: &str| {
        format!("${{readsocket{{{socket}}}{{--grey 192.0.2.1 {key} friend@outside.test}}{{2s}}{{}}{{failed}}}}")
    };
    add("greylistd", expanded(&exim, count, 1_000, asked)?);
    for lines in [1_000, 10_000, 100_000] {
        let file = home.path().join(format!("list{lines}"));
        fs::write(
            &file,
            (0..lines).fold(String::new(), |all, number| all + &format!("user{number}@bench.test: hold\n")),
        )?;
        let file = file.display().to_string();
        // A long list takes milliseconds a lookup; fewer say as much. No key comes twice: Exim remembers what it has found.
        let count = if lines > 10_000 { count / 10 } else { count.min(lines) };
        let searched = |key: &str| format!("${{lookup{{{key}}}lsearch{{{file}}}{{$value}}{{ok}}}}");
        add(&format!("lsearch, {lines} lines"), expanded(&exim, count, lines, searched)?);
    }
    let cdb = cdb(home.path())?;
    add(
        "cdb, 100000 records",
        expanded(&exim, count, RECORDS, |key| format!("${{lookup{{{key}}}cdb{{{cdb}}}{{$value}}{{ok}}}}"))?,
    );
    let sqlite = sqlite(home.path())?;
    let queried = |key: &str| {
        format!("${{lookup sqlite,file={sqlite} {{select verdict from flags where subject='{key}';}}{{$value}}{{ok}}}}")
    };
    add("sqlite, 100000 rows", expanded(&exim, count, RECORDS, queried)?);
    Ok(rivals)
}

/// Microseconds that one expansion takes more than one that looks nothing up: the median of rounds, in each of which both have
/// their turn. Each expansion has another key, spread over so many records.
fn expanded(exim: &Exim, count: usize, among: usize, expression: impl Fn(&str) -> String) -> Result<f64> {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let looked_up = timed(exim, count, among, &expression)?;
        rounds.push(looked_up - timed(exim, count, among, |key| format!("${{lc:{key}}}"))?);
    }
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[ROUNDS / 2])
}

fn timed(exim: &Exim, count: usize, among: usize, expression: impl Fn(&str) -> String) -> Result<f64> {
    let mut input = String::new();
    for number in 0..count {
        let _ = writeln!(input, "{}", expression(&format!("user{}@bench.test", number * STRIDE % among)));
    }
    let begun = Instant::now();
    let answers = exim.expand_lines(&input)?;
    let took = begun.elapsed();
    ensure!(answers.lines().count() >= count, "Exim answered {} of {count} expansions", answers.lines().count());
    ensure!(!answers.contains("Failed") && !answers.contains("failed"), "an expansion failed: {answers:.200}");
    #[allow(clippy::cast_precision_loss, reason = "thousands")]
    Ok(took.as_secs_f64() * 1e6 / count as f64)
}

/// Debian's greylistd on files of its own, unpacked and not installed; it ends with the value.
struct Greylistd {
    child: Child,
    home: TempDir,
}

impl Greylistd {
    fn start() -> Result<Self> {
        let home = public_directory()?;
        packages::unpack("greylistd", home.path())?;
        let at = |name: &str| home.path().join(name);
        let (socket, states, triplets) = (at("socket"), at("states"), at("triplets"));
        let configuration = format!(
            "[socket]\npath = {}\nowner = root:root\nmode = 0666\n[data]\nstatefile = {}\ntripletfile = {}\n",
            socket.display(),
            states.display(),
            triplets.display()
        );
        fs::write(at("config"), configuration)?;
        let child = Command::new("python3").arg(at("usr/sbin/greylistd")).arg(at("config")).spawn()?;
        let greylistd = Self { child, home };
        wait_until("greylistd", Duration::from_secs(10), || Ok(UnixStream::connect(&socket).is_ok()))?;
        Ok(greylistd)
    }
}

impl Drop for Greylistd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cdb(directory: &Path) -> Result<String> {
    let path = directory.join("list.cdb");
    let mut records = String::new();
    for number in 0..RECORDS {
        let key = format!("user{number}@bench.test");
        let _ = writeln!(records, "+{},4:{key}->hold", key.len());
    }
    records.push('\n');
    fed(Command::new("cdb").arg("-c").arg(&path), &records).context("the package tinycdb makes cdb files")?;
    Ok(path.display().to_string())
}

fn sqlite(directory: &Path) -> Result<String> {
    let path = directory.join("list.sqlite");
    let mut statements = "create table flags (subject text primary key, verdict text); begin;\n".to_owned();
    for number in 0..RECORDS {
        let _ = writeln!(statements, "insert into flags values ('user{number}@bench.test', 'hold');");
    }
    statements.push_str("commit;\n");
    fed(Command::new("sqlite3").arg(&path), &statements).context("the package sqlite3 makes sqlite files")?;
    Ok(path.display().to_string())
}

/// Runs a program that reads something, and must succeed.
fn fed(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// A table for people.
pub(super) fn table(rivals: &[Rival]) -> String {
    let mut out = "\none lookup inside one Exim process\n".to_owned();
    for Rival { name, microseconds } in rivals {
        let _ = writeln!(out, "{name:24} {microseconds:10.1} µs");
    }
    out
}
