//! Writes manual pages, completions, the protocol reference and the generated files of the clients. Used by `make docs`,
//! `make clients` and the package build.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use blockhost_packaging::{clients, generate, programs, write_protocol};
use clap::Parser;

/// Generate manual pages, shell completions, the protocol reference and clients from the programs themselves.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  blockhost-docs --out target/docs --protocol docs/protocol.md --clients proto/clients"
)]
struct Args {
    /// Write man/ and completions/ below this directory.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the protocol reference to this file.
    #[arg(long, value_name = "FILE")]
    protocol: Option<PathBuf>,
    /// Write the generated files of the Python and TypeScript clients below this directory.
    #[arg(long, value_name = "DIR")]
    clients: Option<PathBuf>,
    /// Print the names of all programs, one a line.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("blockhost-docs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), blockhost_packaging::WriteError> {
    if args.list {
        for program in programs::all() {
            println!("{}", program.name());
        }
    }
    if let Some(directory) = &args.out {
        let mut files = 0;
        for program in programs::all() {
            files += generate(&program, directory)?;
        }
        eprintln!("wrote {files} files below {}", directory.display());
    }
    if let Some(path) = &args.protocol {
        write_protocol(path)?;
        eprintln!("wrote {}", path.display());
    }
    if let Some(directory) = &args.clients {
        let files = clients::write_all(directory)?;
        eprintln!("wrote {files} files below {}", directory.display());
    }
    Ok(())
}
