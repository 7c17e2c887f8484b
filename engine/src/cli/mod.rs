//! The command lines. Each module exposes `command()` for man pages and completions, and `main()` for its shim in
//! `src/bin`. Nothing here decides; it parses, calls, prints.

/// Prints a line of the result. A reader that leaves early, as `head` does, is no error.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout().lock(), $($text)*);
    }};
}

pub mod ab;
pub mod admin;
pub mod agent;
pub mod anchors;
pub mod bhcrypt;
pub mod broker;
pub mod bus;
pub mod bw;
pub mod config;
pub mod deploy;
pub mod engine;
pub mod funds;
pub mod generate_signup;
pub mod is;
pub mod jobs;
pub mod ledger;
pub mod mint_nft;
pub mod net;
pub mod net_revert;
pub mod operator;
pub mod reconcile;
pub mod state;
pub mod status;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Prints an error with its causes on stderr and gives the exit code for failure.
pub(crate) fn fail(program: &str, error: &dyn std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Most of our errors carry their cause in their own sentence.
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    eprintln!("{program}: {text}");
    ExitCode::FAILURE
}

/// A runtime for a command that runs once.
pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Replaces a file in one step, keeping its mode and owner; a new one can be read by everybody.
pub(crate) fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let old = match std::fs::metadata(path) {
        Ok(old) => Some(old),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = Path::new(&name);
    let written = (|| {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(temporary)?;
        if let Some(old) = &old {
            // Not ours to give away, perhaps: then the owner stays who runs this, and the mode says who may read.
            let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
        }
        let mode = old.map_or(0o644, |old| old.mode() & 0o7777);
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(temporary, path)?;
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        std::fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(temporary);
    }
    written
}
