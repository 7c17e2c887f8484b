//! Reads command lines out of text and asks the programs' own definitions whether they would be taken.

use std::sync::LazyLock;

use blockhost_packaging::programs;
use clap::{Arg, Command};

/// All programs, with the options that verbs have of their parents.
static PROGRAMS: LazyLock<Vec<Command>> = LazyLock::new(|| {
    let built = |mut command: Command| {
        command.build();
        command
    };
    programs::all()
        .into_iter()
        .map(|program| built(program.command))
        .collect()
});

/// What a text showed.
#[derive(Debug, Default)]
pub struct Found {
    /// How many of our commands.
    pub commands: usize,
    /// What their definitions would refuse.
    pub wrong: Vec<String>,
}

/// Words of a shell, with quotes taken off; each command of a line by itself. Not a shell: it knows what manuals use.
fn commands_of(line: &str) -> Vec<Vec<String>> {
    let (mut all, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut quote = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '|' | ';' | '&' | '(' | ')' | '{' | '}' | '`') => {
                words.extend(word.take());
                all.push(std::mem::take(&mut words));
            }
            (None, '>' | '<') => {
                words.extend(word.take());
                while chars
                    .peek()
                    .is_some_and(|c| !c.is_alphanumeric() && *c != '/')
                {
                    chars.next();
                }
                // The file.
                while chars.peek().is_some_and(|c| !c.is_whitespace()) {
                    chars.next();
                }
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word.take());
    all.push(words);
    all
}

/// Checks every command of ours in a line as a manual or a document shows it.
#[must_use]
pub fn check_line(line: &str) -> Found {
    let mut found = Found::default();
    let line = line.trim().trim_start_matches("$ ");
    // Behind a gap stands what it does.
    let line = line.split_once("  ").map_or(line, |(command, _)| command);
    for words in commands_of(line) {
        // Who it is run as comes before it.
        let ours = (0..words.len())
            .find(|at| program(&words[*at]).is_some() && (*at == 0 || words[at - 1] != "-u"));
        let Some(at) = ours.filter(|at| words[..*at].iter().all(|word| is_prefix(word))) else {
            continue;
        };
        found.commands += 1;
        let command = program(&words[at]).expect("found above");
        if let Err(what) = check(command, &words[at + 1..]) {
            found.wrong.push(format!("`{}`: {what}", words.join(" ")));
        }
    }
    found
}

fn program(word: &str) -> Option<&'static Command> {
    let name = word.rsplit('/').next().unwrap_or(word);
    PROGRAMS.iter().find(|program| program.get_name() == name)
}

fn is_prefix(word: &str) -> bool {
    ["sudo", "runuser", "--", "setpriv", "--clear-groups", "$"].contains(&word)
        || word.starts_with('-')
        || word.starts_with("blockhost")
        || word.contains('=')
}

fn check(mut command: &Command, words: &[String]) -> Result<(), String> {
    let mut words = words.iter().map(String::as_str).peekable();
    // Options in brackets may be missing.
    let bare = |word: &str| word.trim_matches(['[', ']', ',', '.']).to_owned();
    while let Some(word) = words.next() {
        let word = bare(word);
        if word == "--" {
            return Ok(());
        }
        if let Some(long) = word.strip_prefix("--").filter(|long| !long.is_empty()) {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            let option = command
                .get_arguments()
                .find(|arg| {
                    arg.get_long_and_visible_aliases()
                        .unwrap_or_default()
                        .contains(&name)
                })
                .ok_or_else(|| format!("there is no --{name}"))?;
            let (least, most) = values_of(option);
            if value.is_some() {
                if most == 0 {
                    return Err(format!("--{name} takes no value"));
                }
                continue;
            }
            for at in 0..most {
                // What is not needed is taken only where it cannot be the next option.
                if at >= least && words.peek().is_none_or(|next| next.starts_with('-')) {
                    break;
                }
                if words.next().is_none() {
                    return Err(format!("--{name} wants a value"));
                }
            }
        } else if let Some(short) = word.strip_prefix('-').and_then(|rest| rest.chars().next()) {
            if short.is_ascii_digit() {
                continue;
            }
            let option = command
                .get_arguments()
                .find(|arg| arg.get_short() == Some(short))
                .ok_or_else(|| format!("there is no -{short}"))?;
            if values_of(option).0 > 0 && word.len() == 2 {
                words.next();
            }
        } else if let Some(verb) = command.find_subcommand(&word) {
            command = verb;
        } else if command.has_subcommands() {
            // A name in capitals, or dots, stands for any of them.
            let open = word.is_empty() || word.chars().all(|c| !c.is_lowercase());
            if !open && command.get_positionals().next().is_none() {
                return Err(format!("{} has no verb \"{word}\"", command.get_name()));
            }
        } else if command.get_positionals().any(Arg::is_trailing_var_arg_set) {
            // What follows is another program's, or read by itself.
            let before = command
                .get_positionals()
                .filter(|arg| !arg.is_trailing_var_arg_set());
            if before.count() == 0 || words.peek().is_some_and(|next| next.starts_with('-')) {
                return Ok(());
            }
        } else if command.get_positionals().next().is_none() {
            return Err(format!("{} takes no \"{word}\"", command.get_name()));
        }
    }
    Ok(())
}

/// How many values an option takes at least and at most.
fn values_of(arg: &Arg) -> (usize, usize) {
    if !arg.get_action().takes_values() {
        return (0, 0);
    }
    arg.get_num_args()
        .map_or((1, 1), |number| (number.min_values(), number.max_values()))
}
