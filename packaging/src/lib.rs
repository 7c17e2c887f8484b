//! What is generated from the programs themselves: manual pages, shell completions, the protocol reference, clients in
//! other languages.
//! One table of programs; packages and documentation are built from it, so that nothing can be forgotten in one place.
#![forbid(unsafe_code)]

pub mod clients;
pub mod programs;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;

use programs::Program;

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; check that the directory can be written", path.display())]
pub struct WriteError {
    path: PathBuf,
    source: std::io::Error,
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let at = |source| WriteError {
        path: path.to_owned(),
        source,
    };
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(at)?;
    }
    fs::write(path, bytes).map_err(at)
}

/// A program and its visible verbs at any depth, each with its own options and those that it has of its parents.
#[must_use]
pub fn verbs(program: &Program) -> Vec<Command> {
    fn collect(command: &Command, all: &mut Vec<Command>) {
        all.push(command.clone());
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            collect(verb, all);
        }
    }
    // `help` says nothing that a manual does not.
    let mut whole = program.command.clone().disable_help_subcommand(true);
    // Only now a verb has the options of its parents.
    whole.build();
    let mut all = Vec::new();
    collect(&whole, &mut all);
    all
}

/// What the manual of a program or a verb is called: `blockhost-net-show`.
#[must_use]
pub fn manual_name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

/// Writes `man/<name>.<section>` (one page more for every verb) and completions for bash, zsh and fish below
/// `directory`; returns how many files.
///
/// # Errors
/// [`WriteError`] names the file.
pub fn generate(program: &Program, directory: &Path) -> Result<usize, WriteError> {
    let mut files = 0;
    for verb in verbs(program) {
        manual(verb, program.section, directory)?;
        files += 1;
    }
    let name = program.name();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let file = match shell {
            Shell::Zsh => format!("_{name}"),
            Shell::Fish => format!("{name}.fish"),
            _ => format!("{name}.bash"),
        };
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut program.command.clone(), name, &mut text);
        write(&directory.join("completions").join(file), &text)?;
        files += 1;
    }
    Ok(files)
}

fn manual(command: Command, section: &str, directory: &Path) -> Result<(), WriteError> {
    let mut page = Vec::new();
    let name = manual_name(&command);
    let path = directory.join("man").join(format!("{name}.{section}"));
    clap_mangen::Man::new(command)
        .section(section)
        .manual("BlockHost")
        .source(concat!("BlockHost ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)
        .map_err(|source| WriteError {
            path: path.clone(),
            source,
        })?;
    write(&path, &page)
}

/// The protocol reference, as `docs/protocol.md` holds it.
#[must_use]
pub fn protocol() -> String {
    blockhost_proto::catalog::to_markdown()
}

/// Writes the protocol reference.
///
/// # Errors
/// [`WriteError`] names the file.
pub fn write_protocol(path: &Path) -> Result<(), WriteError> {
    write(path, protocol().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_protocol_reference_is_what_the_catalog_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
        let committed = fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == protocol(),
            "docs/protocol.md is out of date: run `make docs`"
        );
    }

    #[test]
    fn units_run_programs_that_are_packaged() {
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
        let mut seen = 0;
        for entry in fs::read_dir(units).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let text = fs::read_to_string(path).unwrap();
            for line in text.lines().filter_map(|l| l.strip_prefix("ExecStart=")) {
                // Behind the tool that only lays privileges down first.
                let mut paths = line
                    .split(' ')
                    .map(|word| word.trim_start_matches('!'))
                    .filter(|word| word.starts_with('/') && !word.ends_with("/setpriv"));
                let program = paths.next().and_then(|p| p.rsplit('/').next()).unwrap();
                // What only holds something open for others runs nothing of ours, and a tunnel's process is Debian's.
                if line == "/bin/true" || program == "wireguard-go" {
                    continue;
                }
                assert!(
                    programs::all().iter().any(|p| p.name() == program),
                    "{line}"
                );
                seen += 1;
            }
        }
        assert!(seen >= 3);
    }
}
