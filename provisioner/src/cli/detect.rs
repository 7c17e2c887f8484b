//! `blockhost-provisioner-detect`.

use std::process::ExitCode;

use blockhost_proto::Layout;
use clap::{CommandFactory as _, Parser};

use super::{Failure, exit, print};
use crate::agent::SocketAgent;
use crate::backend::{ActionsBackend, Backend as _};

/// Say whether this host has a usable backend
///
/// The root agent is asked, for it is the one who would use it.
#[derive(Debug, Parser)]
#[command(
    name = "blockhost-provisioner-detect",
    version,
    after_help = "Examples:
  blockhost-provisioner-detect && echo usable
  blockhost-provisioner-detect --json

Exit codes: 0 usable, 1 not, 6 the root agent cannot be reached."
)]
struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The definition.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<ExitCode, Failure> {
    let backend = ActionsBackend::new(SocketAgent::new(&Layout::from_env()));
    let kind = backend.kind()?;
    // The backend has to answer, not only to be configured.
    let machines = backend.machines()?;
    if args.json {
        print(&serde_json::json!({"backend": kind, "machines": machines.len()}).to_string())?;
    } else {
        print(&kind)?;
    }
    Ok(ExitCode::SUCCESS)
}
