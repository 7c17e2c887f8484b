//! What every command line says of itself, in `--help` and in the manual that is made of the same definition: what it is for,
//! what each option means, an example that works, how it exits.

mod common;

use std::collections::BTreeSet;
use std::fs;

use blockhost_packaging::programs::{self, Program};
use blockhost_packaging::{generate, manual_name, verbs};
use clap::{Arg, ArgAction, Command};

/// A verb that only has further verbs says nothing more than its parent and they do.
fn is_group(command: &Command) -> bool {
    command.has_subcommands() && command.is_subcommand_required_set()
}

fn help_below(command: &Command) -> String {
    let text = command
        .get_after_long_help()
        .or_else(|| command.get_after_help());
    text.map(ToString::to_string).unwrap_or_default()
}

/// Each program with its verbs.
fn each(mut look: impl FnMut(&Program, &Command)) {
    for program in programs::all() {
        for verb in verbs(&program) {
            look(&program, &verb);
        }
    }
}

fn fail_with(wrong: &BTreeSet<String>) {
    let text: Vec<&str> = wrong.iter().map(String::as_str).collect();
    assert!(wrong.is_empty(), "\n{}", text.join("\n"));
}

#[test]
fn every_verb_has_a_manual_with_all_that_its_definition_says() {
    let directory = tempfile::tempdir().unwrap();
    let (mut wrong, mut pages) = (BTreeSet::new(), 0);
    for program in programs::all() {
        program.command.clone().debug_assert();
        let all = verbs(&program);
        let files = generate(&program, directory.path()).unwrap();
        assert_eq!(files, all.len() + 3, "{}", program.name());
        for verb in all {
            let name = manual_name(&verb).to_owned();
            let path = directory.path().join("man");
            let page = fs::read_to_string(path.join(format!("{name}.{}", program.section)))
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            // As it is written, without what only says how it is set.
            let plain = page
                .replace("\\*(Aq", "'")
                .replace("\\fB", "")
                .replace("\\fI", "")
                .replace("\\fR", "")
                .replace('\\', "");
            for option in verb.get_arguments().filter_map(Arg::get_long) {
                if !plain.contains(&format!("--{option}")) {
                    wrong.insert(format!("{name}: the manual has no --{option}"));
                }
            }
            for below in verb.get_subcommands().filter(|v| !v.is_hide_set()) {
                let below = format!("{}({})", manual_name(below), program.section);
                if !plain.contains(&below) {
                    wrong.insert(format!("{name}: the manual does not name {below}"));
                }
            }
            for section in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"] {
                if !page.contains(section) {
                    wrong.insert(format!("{name}: the manual has no {section}"));
                }
            }
            for line in help_below(&verb).lines().map(str::trim) {
                if !plain.contains(&line.replace('\\', "")) {
                    wrong.insert(format!("{name}: the manual lacks the line {line:?}"));
                }
            }
            pages += 1;
        }
    }
    fail_with(&wrong);
    let written = fs::read_dir(directory.path().join("man")).unwrap().count();
    assert_eq!(written, pages, "two verbs share the name of a manual");
}

#[test]
fn every_verb_says_what_it_does_and_every_option_what_it_means() {
    let mut wrong = BTreeSet::new();
    each(|_, verb| {
        let name = manual_name(verb);
        match verb.get_about().map(ToString::to_string) {
            None => drop(wrong.insert(format!("{name} does not say what it does"))),
            Some(about) if about.lines().count() != 1 => {
                wrong.insert(format!("{name} needs more than a line to say what it does"));
            }
            Some(_) => {}
        }
        for arg in verb.get_arguments().filter(|arg| !arg.is_hide_set()) {
            if arg.get_help().is_none() {
                wrong.insert(format!("{name}: {} has no meaning", arg.get_id()));
            }
        }
    });
    fail_with(&wrong);
}

#[test]
fn every_verb_shows_an_example_that_its_own_definition_takes() {
    let (mut wrong, mut seen) = (BTreeSet::new(), 0);
    each(|_, verb| {
        let (name, help) = (manual_name(verb), help_below(verb));
        let mut lines: Vec<String> = help
            .lines()
            .filter(|line| line.starts_with("  "))
            .map(str::to_owned)
            .collect();
        if !is_group(verb) && !help.contains("Example") {
            wrong.insert(format!("{name} shows no example"));
        }
        // A line goes on behind a backslash.
        for at in (1..lines.len()).rev() {
            if lines[at - 1].ends_with('\\') {
                let rest = lines.remove(at);
                lines[at - 1] = format!("{} {}", lines[at - 1].trim_end_matches('\\'), rest.trim());
            }
        }
        for line in lines {
            let found = common::check_line(&line);
            seen += found.commands;
            wrong.extend(
                found
                    .wrong
                    .into_iter()
                    .map(|what| format!("{name}: {what}")),
            );
        }
    });
    fail_with(&wrong);
    assert!(
        seen > 150,
        "only {seen} commands were found in the examples"
    );
}

#[test]
fn every_program_says_how_it_exits() {
    let mut wrong = BTreeSet::new();
    for program in programs::all() {
        let says = |verb: &Command| {
            let help = help_below(verb).to_lowercase();
            help.contains("exit code") || help.contains("exit status")
        };
        let all = verbs(&program);
        if says(&all[0]) {
            continue;
        }
        let silent = all.iter().filter(|verb| !is_group(verb) && !says(verb));
        wrong.extend(silent.map(|verb| format!("{} does not say how it exits", manual_name(verb))));
    }
    fail_with(&wrong);
}

#[test]
fn options_of_one_name_are_alike_everywhere() {
    let mut wrong = BTreeSet::new();
    each(|_, verb| {
        for arg in verb.get_arguments() {
            let name = manual_name(verb);
            let flag = matches!(arg.get_action(), ArgAction::SetTrue);
            match arg.get_long() {
                Some("json" | "dry-run" | "yes") if !flag => {
                    wrong.insert(format!("{name}: --{} takes a value", arg.get_id()));
                }
                Some("timeout" | "every" | "confirm-within" | "duration") if flag => {
                    wrong.insert(format!("{name}: --{} takes no value", arg.get_id()));
                }
                _ => {}
            }
        }
    });
    fail_with(&wrong);
}
