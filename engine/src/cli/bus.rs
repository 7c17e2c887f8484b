//! `blockhost-bus`: the D-Bus service's command line.

use super::fail;
use crate::bus::{self, RunError};
use blockhost_proto::layout::Layout;
use clap::{CommandFactory, Parser};
use std::process::ExitCode;

/// Answer for the host's network and the ledger on the system bus, as dev.ovs.PortAgent1.
#[derive(Parser)]
#[command(name = "blockhost-bus", version, after_help = EXAMPLES)]
struct Cli {}

const EXAMPLES: &str = "\
Runs as user blockhost, in the foreground, and logs to stderr. The bus starts it when somebody calls. Root and the
group blockhost may ask; what changes anything needs polkit's permission and goes through the root agent.

Exit codes: 0 ended by a signal; 1 failed; 2 wrong usage.

Examples:
  busctl call dev.ovs.PortAgent1 /dev/ovs/PortAgent1 dev.ovs.PortAgent1 Ping
  gdbus introspect --system --dest dev.ovs.PortAgent1 --object-path /dev/ovs/PortAgent1
  busctl monitor dev.ovs.PortAgent1";

/// The command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let Cli {} = Cli::parse();
    crate::failpoint::arm();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("blockhost-bus", &error),
    }
}

fn run() -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Questions to the ledger; more than that wait for each other.
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .map_err(RunError::Signals)?;
    let ended = runtime.block_on(bus::run(Layout::from_env()));
    // Reading loses nothing when it ends with the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    ended
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
