//! The manual pages and the completions say what the programs take, and nothing else; and they can be read.

use anyhow::{Context, Result, ensure};
use clap::{Arg, Command, CommandFactory};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use xtask::manual::{self, Page};

type Names = BTreeSet<String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(name: &str) -> Result<Page> {
    manual::pages()?.into_iter().find(|page| page.name == name).with_context(|| format!("no page {name}"))
}

/// The programs that have a page, as clap knows them.
fn programs() -> [Command; 3] {
    [
        outgoingctl::command(),
        outgoingd::arguments::Arguments::command(),
        outgoingd_whmapi::command_line::CommandLine::command(),
    ]
}

/// What a reader sees of a line of roff.
fn seen(line: &str) -> String {
    let fonts = line.replace("\\fB", "").replace("\\fI", "").replace("\\fR", "");
    let quotes = fonts.replace("\\(dq", "\"").replace("\\(aq", "'").replace("\\(rs", "\\");
    quotes.replace("\\-", "-").replace("\\ ", " ").replace("\\&", "")
}

/// The lines of a section, up to the next.
fn section<'a>(page: &'a Page, heading: &str) -> Result<Vec<&'a str>> {
    let start = format!(".SH \"{heading}\"");
    let mut lines = page.text.lines().skip_while(|line| **line != *start);
    lines.next().with_context(|| format!("{} has no {heading}", page.name))?;
    Ok(lines.take_while(|line| !line.starts_with(".SH")).collect())
}

/// The subsections of a section, by name, the lines before the first under the empty one.
fn subsections<'a>(page: &'a Page, heading: &str) -> Result<Vec<(String, Vec<&'a str>)>> {
    let mut found = vec![(String::new(), Vec::new())];
    for line in section(page, heading)? {
        match line.strip_prefix(".SS \"") {
            Some(name) => found.push((seen(name.trim_end_matches('"')), Vec::new())),
            None => found.last_mut().context("none")?.1.push(line),
        }
    }
    Ok(found)
}

/// The tags of paragraphs, as a reader sees them.
fn tags(lines: &[&str]) -> Vec<String> {
    lines.windows(2).filter(|pair| pair[0] == ".TP").map(|pair| seen(pair[1])).collect()
}

/// The words of `text` that are options.
fn options(text: &str) -> Names {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '-'));
    words.filter(|word| word.trim_start_matches('-').len() > 1 && word.starts_with("--")).map(str::to_owned).collect()
}

/// An argument as it must stand in its tag.
fn tag(argument: &Arg) -> String {
    let short = argument.get_short().map(|short| format!("-{short}"));
    let long = argument.get_long().map(|long| format!("--{long}"));
    let words: Vec<String> = short.into_iter().chain(long).collect();
    let value = match argument.get_value_names() {
        Some(names) if argument.get_action().takes_values() => names.join(" "),
        _ => String::new(),
    };
    format!("{} {value}", words.join(", ")).trim().to_owned()
}

/// Every command that can be typed, and those that only lead to others, with the words that lead to it.
fn commands(above: &Command, words: &str) -> Vec<(String, Command)> {
    let inner = above.get_subcommands().filter(|command| !command.is_hide_set());
    let named = |command: &Command| format!("{words} {}", command.get_name()).trim().to_owned();
    inner
        .flat_map(|command| [vec![(named(command), command.clone())], commands(command, &named(command))].concat())
        .collect()
}

fn without_dots(tags: Vec<String>) -> Names {
    tags.into_iter().map(|tag| tag.trim_end_matches("...").to_owned()).collect()
}

/// The arguments of a command that a user is told of.
fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|argument| !argument.is_hide_set())
}

#[test]
fn each_command_is_on_the_page_with_what_it_takes_and_nothing_else_is() -> Result<()> {
    let page = page("outgoingctl")?;
    let on_the_page = subsections(&page, "COMMANDS")?;
    let known = commands(&outgoingctl::command(), "");
    assert!(known.len() > 20, "{known:?}");
    let names: Names = on_the_page.iter().skip(1).map(|(name, _)| name.clone()).collect();
    assert_eq!(names, known.iter().map(|(name, _)| name.clone()).collect());
    for (name, command) in known {
        let (_, lines) = on_the_page.iter().find(|(heading, _)| *heading == name).context("no such heading")?;
        let arguments = || arguments(&command).filter(|argument| !argument.is_global_set());
        assert_eq!(without_dots(tags(lines)), arguments().map(tag).collect(), "{name}");
        let text = lines.iter().map(|line| seen(line)).collect::<Vec<_>>().join("\n");
        for value in arguments().flat_map(Arg::get_possible_values) {
            let flag = matches!(value.get_name(), "true" | "false");
            assert!(flag || text.contains(value.get_name()), "{name} does not name {}", value.get_name());
        }
        let about = command.get_about().context("no help")?.to_string();
        assert!(text.contains(&about), "{name} does not say: {about}");
        if command.get_subcommands().next().is_none() {
            let line = text.lines().next().context("nothing is said")?;
            assert!(line.starts_with(&format!("outgoingctl {name}")), "{line}");
            let in_the_line = options(line);
            assert_eq!(in_the_line, arguments().flat_map(|argument| options(&tag(argument))).collect(), "{name}");
        }
    }
    Ok(())
}

#[test]
fn each_option_of_a_program_and_each_variable_is_on_its_page_and_nothing_else_is() -> Result<()> {
    for program in programs() {
        let page = page(program.get_name())?;
        let arguments = || arguments(&program);
        let mut expected: Names = arguments().map(tag).collect();
        // What clap adds to every program.
        expected.extend(["-h, --help", "-V, --version"].map(str::to_owned));
        assert_eq!(without_dots(tags(&section(&page, "OPTIONS")?)), expected, "{}", page.name);
        let variables: Names =
            arguments().filter_map(Arg::get_env).map(|name| name.to_string_lossy().into_owned()).collect();
        let named = section(&page, "ENVIRONMENT").map(|lines| tags(&lines)).unwrap_or_default();
        let ours: Names = named.into_iter().filter(|name| name.starts_with("OUTGOING")).collect();
        assert_eq!(ours, variables, "{}", page.name);
    }
    Ok(())
}

#[test]
fn no_page_of_a_program_speaks_of_an_option_that_nobody_has() -> Result<()> {
    let mut known: Names = ["--help", "--version"].map(str::to_owned).into();
    for program in programs() {
        let all = commands(&program, "").into_iter().map(|(_, command)| command).chain([program]);
        known.extend(all.flat_map(|command| {
            command.get_arguments().flat_map(|argument| options(&tag(argument))).collect::<Names>()
        }));
    }
    for page in manual::pages()?.iter().filter(|page| page.section != 7) {
        let named: Names = page.text.lines().flat_map(|line| options(&seen(line))).collect();
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", page.name);
    }
    Ok(())
}

/// The lines of code on a page, with those that go on joined.
fn code(page: &Page) -> String {
    let mut lines = String::new();
    let mut within = false;
    for line in page.text.lines() {
        match line {
            ".EX" => within = true,
            ".EE" => within = false,
            line if within => lines.extend([seen(line).as_str(), "\n"]),
            _ => {}
        }
    }
    lines.replace("\\\n", " ")
}

#[test]
fn every_example_is_one_that_the_programs_understand() -> Result<()> {
    let mut understood = 0;
    for page in manual::pages()? {
        for line in code(&page).lines() {
            for program in programs() {
                if line.split_whitespace().next() != Some(program.get_name()) {
                    continue;
                }
                // As a shell cuts it into words.
                let cut = process::Command::new("sh").args(["-c", &format!("printf '%s\\n' {line}")]).output()?;
                let words = String::from_utf8(cut.stdout)?;
                let read = program.try_get_matches_from(words.lines());
                assert!(
                    read.is_ok(),
                    "{}: {line}: {}",
                    page.name,
                    read.err().map(|error| error.to_string()).unwrap_or_default()
                );
                understood += 1;
            }
        }
    }
    ensure!(understood > 10, "{understood} examples");
    Ok(())
}

#[test]
fn the_readme_has_every_command_and_no_other() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let table = readme
        .lines()
        .skip_while(|line| *line != "| command | what |")
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let leaves = commands(&outgoingctl::command(), "")
        .into_iter()
        .filter(|(_, command)| command.get_subcommands().next().is_none());
    let known: Names = leaves.map(|(name, _)| name).collect();
    let mut named = Names::new();
    for row in table {
        let cell = row.split(" | ").next().unwrap_or_default();
        for code in cell.split('`').skip(1).step_by(2) {
            // What is written small comes before what stands for something else.
            let small = |word: &&str| word.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
            named.insert(code.split(' ').take_while(small).collect::<Vec<_>>().join(" "));
        }
    }
    assert_eq!(named, known);
    Ok(())
}

/// What the program says that it knows, when it meets something else in that table of its configuration.
fn keys_that_are_read(program: &str, table: &str) -> Result<Names> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("wrong.toml");
    fs::write(&file, format!("{table}\nno-such-key = 1\n"))?;
    let refused = process::Command::new(built(program)?).arg("--check-config").arg(&file).output()?;
    let words = String::from_utf8(refused.stderr)?;
    let (_, expected) = words.split_once(", expected ").with_context(|| format!("{program} {table}: {words}"))?;
    Ok(expected.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

/// A program that is built, beside this one.
fn built(program: &str) -> Result<PathBuf> {
    let beside = match std::env::var_os("OUTGOINGD_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => std::env::current_exe()?.ancestors().nth(2).context("not in a target directory")?.to_owned(),
    };
    let path = beside.join(program);
    ensure!(path.is_file(), "{} is not built: run `cargo build --workspace --bins`", path.display());
    Ok(path)
}

#[test]
fn each_configuration_key_is_on_its_page_in_the_program_and_in_the_shipped_file() -> Result<()> {
    for (name, program) in [("outgoingd.toml", "outgoingd"), ("whmapi.toml", "outgoing-whmapi")] {
        let page = page(name)?;
        let shipped = fs::read_to_string(root().join("systemd").join(name))?;
        let tables = subsections(&page, "KEYS")?;
        let headings = tables.iter().skip(1).map(|(heading, _)| heading.trim_matches(['[', ']']).to_owned());
        let mut at_the_top: Names = headings.collect();
        for (heading, lines) in &tables {
            // A key stands with its type; the words that can be its value do not.
            let keys: Names =
                tags(lines).iter().filter_map(|tag| tag.split_once(" (")).map(|(key, _)| key.to_owned()).collect();
            for key in &keys {
                // As a key, as one in an example, or in the words on another.
                let has = |line: &str| {
                    let before = line.split_once(&format!("{key} = ")).map(|(before, _)| before);
                    before.is_some_and(|before| before.is_empty() || before == "#= " || before.ends_with('('))
                };
                assert!(shipped.lines().any(has), "systemd/{name} does not name {key} of {heading}");
            }
            if heading.is_empty() {
                at_the_top.extend(keys);
            } else {
                assert!(shipped.lines().any(|line| line == heading), "systemd/{name} has no {heading}");
                assert_eq!(keys, keys_that_are_read(program, heading)?, "{heading}");
            }
        }
        assert_eq!(at_the_top, keys_that_are_read(program, "")?, "{name}");
    }
    Ok(())
}

#[test]
fn two_readers_show_every_page_without_a_word_of_complaint() -> Result<()> {
    let directory = tempfile::tempdir()?;
    manual::write(directory.path())?;
    for page in manual::pages()? {
        let path = directory.path().join("man").join(page.file_name());
        assert_eq!(fs::read_to_string(&path)?, page.text, "it is not the same each time");
        assert!(page.text.is_ascii(), "{} is not right in every locale", page.name);
        let man =
            process::Command::new("man").args(["--warnings=w", "-l"]).arg(&path).env("MANWIDTH", "80").output()?;
        assert!(man.status.success() && man.stderr.is_empty(), "{}", String::from_utf8_lossy(&man.stderr));
        let name = format!("{}({})", page.name.to_uppercase(), page.section);
        assert!(String::from_utf8_lossy(&man.stdout).starts_with(&name), "{name}");
        let mandoc = process::Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&path).output()?;
        let complaints = String::from_utf8(mandoc.stdout)?;
        // A page has no date, so that it is the same whenever it is made.
        let complaints: Vec<&str> = complaints.lines().filter(|line| !line.contains("missing date")).collect();
        assert!(complaints.is_empty(), "{complaints:?}");
        // What whatis(1) and apropos(1) go by.
        let lexgrog = process::Command::new("lexgrog").arg(&path).output()?;
        assert!(String::from_utf8_lossy(&lexgrog.stdout).contains(&format!("\"{} - ", page.name)), "{lexgrog:?}");
    }
    Ok(())
}

/// The pages of ours that `text` names, such as `outgoingd(8)`.
fn named(text: &str) -> Names {
    let ends_a_name = |character: char| !(character.is_ascii_alphanumeric() || "-.".contains(character));
    let mut names = Names::new();
    for (place, _) in text.match_indices('(') {
        let name = text[..place].rsplit(ends_a_name).next().unwrap_or_default();
        let section = text[place..].get(..3).filter(|section| section.ends_with(')'));
        if let Some(section) = section
            && (name.starts_with("outgoing") || name == "whmapi.toml")
        {
            names.insert(format!("{name}{section}"));
        }
    }
    names
}

#[test]
fn every_page_that_is_named_is_there_and_programs_and_units_name_theirs() -> Result<()> {
    let pages = manual::pages()?;
    let there: Names = pages.iter().map(|page| format!("{}({})", page.name, page.section)).collect();
    for page in &pages {
        let refers = named(&section(page, "SEE ALSO")?.iter().map(|line| seen(line)).collect::<String>());
        assert!(!refers.is_empty() && !refers.contains(&format!("{}({})", page.name, page.section)), "{}", page.name);
        let all: Names = page.text.lines().flat_map(|line| named(&seen(line))).collect();
        assert!(all.is_subset(&there), "{}: {all:?}", page.name);
    }
    for program in programs() {
        let help = program.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.ends_with(&format!("See {}(8).", program.get_name())), "{help}");
    }
    let mut units = 0;
    for entry in fs::read_dir(root().join("systemd"))? {
        let path = entry?.path();
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if ["service", "socket", "timer"].contains(&extension.as_str()) {
            let unit = fs::read_to_string(&path)?;
            let line = unit.lines().find_map(|line| line.strip_prefix("Documentation="));
            let line = line.with_context(|| format!("{} does not name a page", path.display()))?;
            for word in line.split(' ') {
                let name = word.strip_prefix("man:").unwrap_or_default();
                assert!(there.contains(name), "{}: {word}", path.display());
            }
            units += 1;
        }
    }
    ensure!(units >= 9, "{units} units");
    Ok(())
}

#[test]
fn the_shells_complete_commands_options_and_values() -> Result<()> {
    let directory = tempfile::tempdir()?;
    manual::write(directory.path())?;
    let completions = directory.path().join("completions");
    let run = |program: &str, arguments: &[&str]| -> Result<String> {
        let output = process::Command::new(program)
            .args(arguments)
            .current_dir(&completions)
            .env("HOME", directory.path())
            .output()?;
        ensure!(output.status.success() && output.stderr.is_empty(), "{program} {arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    run("zsh", &["-n", "_outgoingctl"])?;
    for (typed, expected) in
        [("rel", "release"), ("release --ke", "--keep"), ("import --as sus", "suspend"), ("token rev", "revoke")]
    {
        // As the shell does when Tab is pressed.
        let bash = format!(
            "set -u; source outgoingctl.bash; COMP_WORDS=(outgoingctl {typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _outgoingctl outgoingctl \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; echo \"${{COMPREPLY[@]}}\""
        );
        assert_eq!(run("bash", &["--norc", "-c", &bash])?.trim(), expected, "{typed}");
        let fish = run(
            "fish",
            &["--no-config", "-c", &format!("source outgoingctl.fish; complete -C 'outgoingctl {typed}'")],
        )?;
        assert_eq!(fish.split_whitespace().next(), Some(expected), "{typed}");
    }
    Ok(())
}
