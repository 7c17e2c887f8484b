//! `blockhost-engine`: the daemon's command line.

use super::fail;
use crate::config::Config;
use crate::daemon::{self, DaemonError};
use blockhost_proto::layout::Layout;
use clap::{CommandFactory, Parser};
use std::process::ExitCode;

/// Watch the chain and turn paid subscriptions into machines.
#[derive(Parser)]
#[command(name = "blockhost-engine", version, after_help = EXAMPLES)]
struct Cli {
    /// Process what is there, try every job that is due once, and end; fails when jobs are left
    #[arg(long)]
    once: bool,
}

const EXAMPLES: &str = "\
Runs as user blockhost, in the foreground, and logs to stderr. Configured in web3-defaults.yaml and blockhost.yaml;
check them with `blockhost config check`. SIGTERM ends it: running steps end, jobs go on at the next start.

Exit codes: 0 ended by a signal, or with --once everything is done; 1 failed; 2 wrong usage.

Examples:
  blockhost-engine
  blockhost-engine --once";

/// The command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail("blockhost-engine", &e),
    }
}

fn run(cli: &Cli) -> Result<(), DaemonError> {
    crate::failpoint::arm();
    let config = Config::load(&Layout::from_env()).map_err(crate::config::SetupError::from)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(DaemonError::Signals)?;
    let ended = runtime.block_on(daemon::run(config, cli.once));
    // Blocking calls wait for file locks of others; nothing of ours is lost when they end with the process.
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
