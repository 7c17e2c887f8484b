//! The command lines. Each module exposes `command()` for man pages and completions, and `main()` for its shim in
//! `src/bin`. Nothing here decides; it parses, calls, prints.

/// Prints a line of the result. A reader that leaves early, as `head` does, is no error.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout().lock(), $($text)*);
    }};
}

pub mod admin;
pub mod agent;
pub mod anchors;
pub mod bhcrypt;
pub mod bus;
pub mod config;
pub mod deploy;
pub mod engine;
pub mod jobs;
pub mod ledger;
pub mod mint_nft;
pub mod net;
pub mod net_revert;
pub mod operator;
pub mod reconcile;
pub mod state;
pub mod status;

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
