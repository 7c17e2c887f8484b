//! `blockhost-vm-onboot`: run once when the host has started.

use std::process::ExitCode;

use blockhost_proto::Layout;
use clap::{CommandFactory as _, Parser};

use super::{EXIT_CODES, Failure, Setup, exit, say};
use crate::agent::SocketAgent;
use crate::config::DbConfig;
use crate::host::onboot::{Sold, start_all};
use crate::store::Store as _;

/// Start every machine and container with onboot: 1
///
/// In the order of their numbers; what runs already is fine, what is suspended stays off, and one that fails keeps no
/// other from starting. The host routes to the machines' IPv6 addresses and the limits of the database are put in force
/// again. Proxmox VE starts its own; there only routes and limits are seen to.
#[derive(Debug, Parser)]
#[command(name = "blockhost-vm-onboot", version, after_help = format!("Examples:
  blockhost-vm-onboot
  systemctl enable blockhost-onboot.service      at every start of the host

{EXIT_CODES}"))]
struct OnbootArgs {}

/// The definition.
#[must_use]
pub fn command() -> clap::Command {
    OnbootArgs::command()
}

/// The program `blockhost-vm-onboot`.
#[must_use]
pub fn main() -> ExitCode {
    let OnbootArgs {} = OnbootArgs::parse();
    exit(run())
}

fn run() -> Result<ExitCode, Failure> {
    let layout = Layout::from_env();
    // A host that sells nothing has no database, and may have containers all the same.
    let sold = if DbConfig::path(&layout).exists() {
        let Setup { config, store, .. } = Setup::load()?;
        let mut records = store.list(None)?;
        records.retain(|record| config.is_here(record.node.as_deref()));
        Some((config, records))
    } else {
        None
    };
    let sold = sold.as_ref().map(|(config, records)| Sold {
        records,
        bridge: &config.host.bridge,
    });
    let failed = start_all(&SocketAgent::new(&layout), sold, &mut |line| say(line))?;
    if failed.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::new(format!(
            "not started or not as it should be: {}",
            failed.join(", ")
        )))
    }
}
