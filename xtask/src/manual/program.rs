//! What clap knows of a program: synopsis, commands, options, environment, exit statuses.
//!
//! Hidden arguments and commands are left out. `clap_mangen` makes whole sections, or a page for each command; here one page
//! has all commands, each with what can be typed behind it.

use super::roff::{Roff, Text};
use anyhow::{Context, Result};
use clap::{Arg, ArgAction, Command};

/// The words before exit statuses in what help ends with.
const EXIT_STATUS: &str = "Exit status: ";

/// The definition with what clap adds to it.
pub(super) fn built(mut command: Command) -> Command {
    command.build();
    command
}

/// What every page of a program begins with.
pub(super) fn name_and_synopsis(command: &Command, page: &mut Roff) {
    page.section("Name");
    page.paragraph(&Text::new().roman(&format!("{} - {}", command.get_name(), lower(&about(command)))));
    page.section("Synopsis");
    let mut lines = synopsis(command, command.get_name());
    if command.has_subcommands() {
        lines = lines.into_iter().map(|line| line.roman(" ").italic("COMMAND").roman(" ...")).collect();
    }
    page.lines(&lines);
}

/// Each command, and those below it, with its arguments.
pub(super) fn commands(program: &Command, page: &mut Roff) {
    for command in program.get_subcommands().filter(|command| shown(command)) {
        self::command(command, program.get_name(), command.get_name(), page);
    }
}

/// The options that all commands have, or those of a program without commands.
pub(super) fn options(program: &Command, page: &mut Roff) {
    for argument in program.get_arguments().filter(|argument| !argument.is_hide_set()) {
        described(argument, page);
    }
}

/// The environment variables that stand for options.
pub(super) fn environment(program: &Command, page: &mut Roff) {
    for argument in program.get_arguments().filter(|argument| !argument.is_hide_set() && !argument.is_hide_env_set()) {
        if let (Some(variable), Some(long)) = (argument.get_env(), argument.get_long()) {
            let meaning =
                Text::new().roman("The same as ").bold(&format!("--{long}")).roman(", where that is not given.");
            page.tagged(&Text::new().bold(&variable.to_string_lossy()), &[meaning]);
        }
    }
}

/// The statuses, of which the last words of the help tell.
pub(super) fn exit_status(program: &Command, page: &mut Roff) -> Result<()> {
    let help = program.get_after_help().context("no help behind the options")?.to_string();
    let (_, behind) = help.split_once(EXIT_STATUS).context("no exit status in the help")?;
    let list = behind.lines().next().unwrap_or_default().trim_end_matches('.');
    for status in list.split("; ") {
        let (number, meaning) = status.split_once(' ').with_context(|| format!("no status: {status}"))?;
        page.tagged(&Text::new().bold(number), &[Text::new().roman(meaning)]);
    }
    Ok(())
}

fn command(command: &Command, program: &str, words: &str, page: &mut Roff) {
    page.subsection(words);
    let below: Vec<&Command> = command.get_subcommands().filter(|command| shown(command)).collect();
    if below.is_empty() {
        page.lines(&synopsis(command, &format!("{program} {words}")));
    }
    page.paragraph(&Text::new().roman(&sentence(&about(command))));
    for argument in own_arguments(command) {
        described(argument, page);
    }
    if let Some(help) = command.get_after_help() {
        page.paragraph(&Text::new().roman(&help.to_string()));
    }
    for inner in below {
        self::command(inner, program, &format!("{words} {}", inner.get_name()), page);
    }
}

/// What of a command is not the same for all, the positional ones first.
fn own_arguments(command: &Command) -> Vec<&Arg> {
    let own = |argument: &&Arg| !argument.is_global_set() && !argument.is_hide_set() && !is_claps_own(argument);
    let mut arguments: Vec<&Arg> = command.get_arguments().filter(own).collect();
    arguments.sort_by_key(|argument| !argument.is_positional());
    arguments
}

fn is_claps_own(argument: &Arg) -> bool {
    matches!(argument.get_id().as_str(), "help" | "version")
}

/// clap's own command `help` says what the page says.
fn shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// What can be typed: in one line, with bars between what excludes each other, and in a line of its own what excludes all
/// else.
fn synopsis(command: &Command, words: &str) -> Vec<Text> {
    let arguments: Vec<&Arg> = if command.has_subcommands() {
        command.get_arguments().filter(|argument| !argument.is_hide_set() && !is_claps_own(argument)).collect()
    } else {
        own_arguments(command)
    };
    let is_alone = |argument: &Arg| {
        let mut others = arguments.iter().filter(|other| other.get_id() != argument.get_id());
        arguments.len() > 2 && others.all(|other| exclude_each_other(command, argument, other))
    };
    let (alone, mut together): (Vec<&Arg>, Vec<&Arg>) = arguments.iter().partition(|argument| is_alone(argument));
    let mut line = Text::new().bold(words);
    while !together.is_empty() {
        line = line.roman(" ").join(&alternatives(command, &choice(command, &mut together)));
    }
    let lines = alone.iter().map(|argument| Text::new().bold(words).roman(" ").join(&typed(argument)));
    std::iter::once(line).chain(lines).collect()
}

fn alternatives(command: &Command, choice: &[&Arg]) -> Text {
    let words = choice.iter().map(|argument| typed(argument)).reduce(|all, next| all.roman(" | ").join(&next));
    let (open, close) = match (is_required(command, choice), choice) {
        (true, [_]) => ("", ""),
        (true, _) => ("{", "}"),
        // Behind a name alone, dots are behind it; behind an option, it is the whole that can be repeated.
        (false, [option]) if !option.is_positional() && is_repeated(option) => ("[", "]..."),
        (false, _) => ("[", "]"),
    };
    Text::new().roman(open).join(&words.unwrap_or_default()).roman(close)
}

/// Takes the first of `waiting`, and those that exclude it and one another.
fn choice<'a>(command: &Command, waiting: &mut Vec<&'a Arg>) -> Vec<&'a Arg> {
    let mut choice = vec![waiting.remove(0)];
    waiting.retain(|argument| {
        let joins = choice.iter().all(|other| exclude_each_other(command, argument, other));
        if joins {
            choice.push(argument);
        }
        !joins
    });
    choice
}

fn exclude_each_other(command: &Command, one: &Arg, other: &Arg) -> bool {
    let named = |one: &Arg, other: &Arg| {
        command.get_arg_conflicts_with(one).iter().any(|argument| argument.get_id() == other.get_id())
    };
    let in_a_group = command.get_groups().any(|group| {
        let has = |argument: &Arg| group.get_args().any(|id| id == argument.get_id());
        !group.clone().is_multiple() && has(one) && has(other)
    });
    in_a_group || named(one, other) || named(other, one)
}

fn is_required(command: &Command, choice: &[&Arg]) -> bool {
    let groups = || command.get_groups().filter(|group| group.is_required_set());
    choice.iter().any(|argument| argument.is_required_set())
        || groups().any(|group| choice.iter().all(|argument| group.get_args().any(|id| id == argument.get_id())))
}

/// An argument as it is typed, in the shorter of two ways.
fn typed(argument: &Arg) -> Text {
    let word = match (argument.get_short(), argument.get_long()) {
        (_, Some(long)) => Text::new().bold(&format!("--{long}")),
        (Some(short), None) => Text::new().bold(&format!("-{short}")),
        (None, None) => return value(argument),
    };
    valued(argument, word)
}

fn is_repeated(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Append | ArgAction::Count)
}

/// An argument with what its help says.
fn described(argument: &Arg, page: &mut Roff) {
    let options =
        [argument.get_short().map(|short| format!("-{short}")), argument.get_long().map(|long| format!("--{long}"))];
    let words =
        options.iter().flatten().map(|option| Text::new().bold(option)).reduce(|one, two| one.roman(", ").join(&two));
    let tag = words.map_or_else(|| value(argument), |words| valued(argument, words));
    page.tagged(&tag, &[meaning(argument)]);
}

fn meaning(argument: &Arg) -> Text {
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    // clap's own option for help tells how it differs in its long form; a page does not.
    let mut text = Text::new().roman(&sentence(if argument.get_id() == "help" { "Print help" } else { &help }));
    let values = argument.get_possible_values();
    let values = values.iter().filter(|value| !value.is_hide_set()).map(|value| Text::new().bold(value.get_name()));
    if takes_value(argument)
        && !argument.is_hide_possible_values_set()
        && let Some(values) = values.reduce(|all, next| all.roman(", ").join(&next))
    {
        text = text.roman(" One of ").join(&values).roman(".");
    }
    if takes_value(argument)
        && !argument.is_hide_default_value_set()
        && let [default] = argument.get_default_values()
    {
        text = text.roman(" Default: ").bold(&default.to_string_lossy()).roman(".");
    }
    text
}

fn takes_value(argument: &Arg) -> bool {
    argument.get_action().takes_values()
}

fn valued(argument: &Arg, words: Text) -> Text {
    if takes_value(argument) { words.unbroken_space().join(&value(argument)) } else { words }
}

/// The name of an argument's value; where several can follow each other, with dots.
fn value(argument: &Arg) -> Text {
    let name = match argument.get_value_names() {
        Some([name, ..]) => name.to_string(),
        _ => argument.get_id().as_str().to_uppercase().replace('_', "-"),
    };
    let several = argument.is_positional() && argument.get_num_args().is_some_and(|range| range.max_values() > 1);
    Text::new().italic(&name).roman(if several { "..." } else { "" })
}

fn sentence(words: &str) -> String {
    let mut characters = words.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if words.ends_with('.') { "" } else { "." };
    first + characters.as_str() + end
}

/// Without a capital at the start, unless that is an abbreviation's.
fn lower(words: &str) -> String {
    match words.chars().nth(1) {
        Some(second) if second.is_lowercase() => words[..1].to_lowercase() + &words[1..],
        _ => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ArgGroup;

    fn flag(name: &'static str) -> Arg {
        Arg::new(name).long(name).action(ArgAction::SetTrue)
    }

    fn page(command: Command) -> String {
        let mut page = Roff::new("x", 8, "1.0");
        let command = built(command);
        name_and_synopsis(&command, &mut page);
        commands(&command, &mut page);
        options(&command, &mut page);
        page.finish()
    }

    #[test]
    fn a_synopsis_says_what_must_be_typed_and_what_excludes_what() {
        let option = |name: &'static str| Arg::new(name).long(name).value_name("N");
        let what = ArgGroup::new("what").required(true).args(["id", "of"]);
        let command = Command::new("x")
            .args([Arg::new("id").num_args(1..), option("of"), flag("a").conflicts_with("b"), flag("b")])
            .args([
                option("each").action(ArgAction::Append),
                flag("alone").conflicts_with_all(["id", "of", "a", "b", "each"]),
            ])
            .group(what);
        let page = page(command);
        let (_, synopsis) = page.split_once("\"SYNOPSIS\"\n").unwrap();
        let expected = "\\fBx\\fR {\\fIID\\fR... | \\fB\\-\\-of\\fR\\ \\fIN\\fR} [\\fB\\-\\-a\\fR | \\fB\\-\\-b\\fR] [\\fB\\-\\-each\\fR\\ \\fIN\\fR]...\n\
                        .br\n\\fBx\\fR \\fB\\-\\-alone\\fR\n";
        assert!(synopsis.starts_with(expected), "{synopsis}");
    }

    #[test]
    fn what_is_hidden_stays_hidden() {
        let inner = |name: &'static str| Command::new(name).arg(flag("seen")).arg(flag("secret").hide(true));
        let secret = [inner("open"), inner("secret").hide(true)];
        let page = page(Command::new("x").subcommands(secret).arg(flag("secret").global(true).hide(true)));
        assert!(page.contains("seen") && !page.contains("secret"), "{page}");
    }
}
