//! The manual pages and the completions of shells, made from the definitions.
//!
//! What a program takes comes from clap's definition of it ([`program`]), what a configuration key means from its doc
//! comment ([`keys`], [`configuration`]), prose from Markdown in `docs/man/` and from `exim-snippets/README.md`
//! ([`markdown`]). A line of that Markdown which is a word in braces, such as `{options}`, stands for what is made; so the
//! order of a page is seen in its Markdown.
//!
//! The same sources make the same bytes: a page has the version that it is of, and no date. Pages are pure ASCII, and right
//! in any locale. What the converter does not know ends the chore, rather than being left out.

mod configuration;

mod keys;

mod markdown;

mod program;

mod roff;

use crate::cargo::target_directory;
use anyhow::{Context, Result, bail, ensure};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use keys::Table;
use roff::Roff;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the links of `exim-snippets/README.md` lead on a server.
const SNIPPETS: &str = "/usr/share/outgoingd/exim-snippets";

/// A finished page.
#[derive(Debug)]
pub struct Page {
    /// What it is about, such as `outgoingctl`.
    pub name: &'static str,
    /// The section of the manual.
    pub section: u8,
    /// Its source in roff.
    pub text: String,
}

/// What a page is made from beside its prose.
enum Definition {
    Program(Box<Command>),
    Configuration(Vec<Table>),
    None,
}

/// Writes all below `output`, by default below `manual` in the target directory, and says where that is.
pub fn run(output: Option<PathBuf>) -> Result<()> {
    let directory = output.map_or_else(|| target_directory().map(|target| target.join("manual")), Ok)?;
    write(&directory)?;
    eprintln!("written to {}", directory.display());
    Ok(())
}

/// Writes the pages into `man` and the completions into `completions` below `directory`.
pub fn write(directory: &Path) -> Result<()> {
    let pages_directory = directory.join("man");
    fs::create_dir_all(&pages_directory).with_context(|| pages_directory.display().to_string())?;
    for page in pages()? {
        let path = pages_directory.join(page.file_name());
        fs::write(&path, page.text).with_context(|| path.display().to_string())?;
    }
    let completions = directory.join("completions");
    fs::create_dir_all(&completions).with_context(|| completions.display().to_string())?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut outgoingctl::command(), "outgoingctl", &completions)?;
    }
    Ok(())
}

/// All pages.
pub fn pages() -> Result<Vec<Page>> {
    let program = |command: Command| Definition::Program(Box::new(program::built(command)));
    let configuration = |types, shipped| Ok::<_, anyhow::Error>(Definition::Configuration(keys::read(types, shipped)?));
    let of_the_daemon = configuration("daemon/src/config.rs", "systemd/outgoingd.toml")?;
    let of_the_service = configuration("whmapi/src/bin/outgoing-whmapi/config.rs", "systemd/whmapi.toml")?;
    [
        ("outgoingctl", 8, program(outgoingctl::command())),
        ("outgoingd", 8, program(outgoingd::arguments::Arguments::command())),
        ("outgoingd.toml", 5, of_the_daemon),
        ("outgoingd-exim", 7, Definition::None),
        ("outgoing-whmapi", 8, program(outgoingd_whmapi::command_line::CommandLine::command())),
        ("whmapi.toml", 5, of_the_service),
    ]
    .into_iter()
    .map(|(name, section, definition)| {
        page(name, section, &definition).with_context(|| format!("the manual page {name}({section})"))
    })
    .collect()
}

impl Page {
    /// Such as `outgoingctl.8`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.{}", self.name, self.section)
    }
}

fn page(name: &'static str, section: u8, definition: &Definition) -> Result<Page> {
    let mut roff = Roff::new(name, section, outgoingctl::command().get_version().context("no version")?);
    if let Definition::Program(command) = definition {
        program::name_and_synopsis(command, &mut roff);
    }
    if name == "outgoingd-exim" {
        prose("exim-snippets/README.md", Some(SNIPPETS), name, definition, &mut roff)?;
    }
    prose(&format!("docs/man/{name}.{section}.md"), None, name, definition, &mut roff)?;
    Ok(Page { name, section, text: roff.finish() })
}

/// The Markdown at `path`, with what its lines in braces stand for. Its title is what the page is about. `links` is where
/// its relative links lead.
fn prose(path: &str, links: Option<&str>, name: &str, definition: &Definition, roff: &mut Roff) -> Result<()> {
    let source = source(path)?;
    let mut piece = String::new();
    for line in source.lines() {
        match line.strip_prefix('{').and_then(|line| line.strip_suffix('}')) {
            Some(word) => {
                markdown::write(&piece, links, name, roff).with_context(|| path.to_owned())?;
                piece.clear();
                made(word, definition, roff).with_context(|| path.to_owned())?;
            }
            None => piece.extend([line, "\n"]),
        }
    }
    markdown::write(&piece, links, name, roff).with_context(|| path.to_owned())
}

/// What stands for `word`.
fn made(word: &str, definition: &Definition, roff: &mut Roff) -> Result<()> {
    match (word, definition) {
        ("commands", Definition::Program(command)) => program::commands(command, roff),
        ("options", Definition::Program(command)) => program::options(command, roff),
        ("environment", Definition::Program(command)) => program::environment(command, roff),
        ("exit-status", Definition::Program(command)) => return program::exit_status(command, roff),
        ("keys", Definition::Configuration(tables)) => return configuration::keys(tables, roff),
        _ => bail!("nothing is made for {{{word}}} here"),
    }
    Ok(())
}

/// A file of the project.
fn source(path: &str) -> Result<String> {
    let whole = root().join(path);
    let text = fs::read_to_string(&whole).with_context(|| format!("cannot read {}", whole.display()))?;
    ensure!(!text.is_empty(), "{} is empty", whole.display());
    Ok(text)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
