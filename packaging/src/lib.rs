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

/// Writes `man/<name>.<section>` (one page more for every subcommand) and completions for bash, zsh and fish below
/// `directory`; returns how many files.
///
/// # Errors
/// [`WriteError`] names the file.
pub fn generate(program: &Program, directory: &Path) -> Result<usize, WriteError> {
    let mut files = 0;
    let name = program.name();
    manual(
        &program.command,
        name,
        program.section,
        directory,
        &mut files,
    )?;
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

fn manual(
    command: &Command,
    name: &str,
    section: &str,
    directory: &Path,
    files: &mut usize,
) -> Result<(), WriteError> {
    let mut page = Vec::new();
    let path = directory.join("man").join(format!("{name}.{section}"));
    clap_mangen::Man::new(command.clone().name(name.to_owned()))
        .section(section)
        .manual("BlockHost")
        .source(concat!("BlockHost ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)
        .map_err(|source| WriteError {
            path: path.clone(),
            source,
        })?;
    write(&path, &page)?;
    *files += 1;
    for sub in command.get_subcommands() {
        if sub.is_hide_set() || sub.get_name() == "help" {
            continue;
        }
        manual(
            sub,
            &format!("{name}-{}", sub.get_name()),
            section,
            directory,
            files,
        )?;
    }
    Ok(())
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
    fn every_program_has_valid_definitions_a_manual_and_completions() {
        let directory = tempfile::tempdir().unwrap();
        for program in programs::all() {
            program.command.clone().debug_assert();
            let files = generate(&program, directory.path()).unwrap();
            assert!(files >= 4, "{}", program.name());
            let page = format!("man/{}.{}", program.name(), program.section);
            let text = fs::read_to_string(directory.path().join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{}", program.name());
        }
    }

    #[test]
    fn every_program_says_what_it_does_and_shows_an_example() {
        for program in programs::all() {
            let help = program.command.clone().render_long_help().to_string();
            let name = program.name();
            assert!(
                help.to_lowercase().contains("example"),
                "{name} --help has no example"
            );
            assert!(
                program.command.get_about().is_some(),
                "{name} does not say what it is"
            );
        }
    }

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
                // What only holds something open for others runs nothing of ours.
                if line == "/bin/true" {
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
