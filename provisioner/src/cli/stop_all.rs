//! `blockhost-vm-stop-all`: run once when the host goes down, and by hand before work on it.

use std::process::ExitCode;

use blockhost_proto::Layout;
use blockhost_proto::value::Seconds;
use clap::{CommandFactory as _, Parser};
use serde_json::json;

use super::{EXIT_CODES, Failure, exit, print, say};
use crate::agent::SocketAgent;
use crate::host::stop_all::{Afterwards, stop_all, would_stop};

/// Shut down every machine and container that runs
///
/// All of this host, sold or not, 32 at a time. One that does not shut down within its time is stopped by force, and one
/// that cannot be stopped keeps no other from it. Their records and subscriptions stay as they are: what has onboot: 1 comes
/// back with the host, or with blockhost-vm-onboot. Proxmox VE shuts its own down; there nothing is done.
#[derive(Debug, Parser)]
#[command(name = "blockhost-vm-stop-all", version, after_help = format!("Examples:
  blockhost-vm-stop-all --dry-run
  blockhost-vm-stop-all --timeout 300 --no-force
  systemctl enable --now blockhost-stop-all.service      at every end of the host

{EXIT_CODES}"))]
struct Args {
    /// Seconds that each has to shut itself down
    #[arg(long, value_name = "S", default_value = "120")]
    timeout: Seconds,
    /// Leave running what does not shut itself down
    #[arg(long)]
    no_force: bool,
    /// Say what runs and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print what became of each as JSON
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
    let agent = SocketAgent::new(&Layout::from_env());
    if args.dry_run {
        let runs = would_stop(&agent, &mut |line| say(line))?;
        let text = if args.json {
            json!({ "would_stop": runs }).to_string()
        } else {
            runs.join("\n")
        };
        if !text.is_empty() {
            print(&text)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let afterwards = if args.no_force {
        Afterwards::Leave
    } else {
        Afterwards::Force
    };
    let stopped = stop_all(&agent, args.timeout, afterwards, &mut |line| say(line))?;
    if args.json {
        print(&json!(stopped).to_string())?;
    }
    if stopped.failed.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::new(format!(
            "not stopped: {}",
            stopped.failed.join(", ")
        )))
    }
}
