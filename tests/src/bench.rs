//! The program `blockhost-bench`: starts our agent and its peers in one private world, puts the same load on all with the
//! same client code, in turns, and prints one table with ratios and the machine it ran on.

mod chain;
mod create;
mod crowd;
mod floor;
mod load;
mod machine;
mod measure;
mod memory;
mod metrics;
mod network;
mod peers;
mod row;
mod startup;
mod state;
mod switches;
mod times;
mod uplink;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::namespace;
use crate::report::say;
use crate::world::init_program;

/// Our root agent beside others of its kind, measured in one run.
#[derive(Parser)]
#[command(name = "blockhost-bench", version, after_help = EXAMPLES)]
struct Cli {
    /// Where the private world lives; the file system whose fsync is measured
    #[arg(long, default_value = "/var/tmp/blockhost-bench", value_name = "DIR")]
    dir: PathBuf,
    /// Requests per measurement
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(50..))]
    requests: u32,
    /// Only the rows about the switch: flows, ports, an uplink handed over, documents, the bus
    #[arg(long)]
    switches: bool,
    /// Only the rows about the engine and its chain; these take some minutes
    #[arg(long, conflicts_with = "switches")]
    chain: bool,
    /// Only the rows about making a machine; the first time, a template is built
    #[arg(long, conflicts_with_all = ["switches", "chain"])]
    create: bool,
    /// Only the rows about looking at a hundred machines that run
    #[arg(long, conflicts_with_all = ["switches", "chain", "create"])]
    metrics: bool,
    /// Print a JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Exit with 1 when a promise of docs/specification.md is missed
    #[arg(long)]
    check: bool,
}

const EXAMPLES: &str = "\
Needs root. Close other programs first: the numbers are latencies. The peers are a plain Python agent, systemd's
varlink, a D-Bus service, oslo.privsep, sudo and ip; `bash scripts/setup.sh peers` installs those that are missing.

Examples:
  blockhost-bench
  blockhost-bench --json | jq '.rows[] | select(.kept == false)'
  blockhost-bench --check --requests 200
  blockhost-bench --switches
  blockhost-bench --chain
  blockhost-bench --create
  blockhost-bench --metrics";

/// The command line, for man pages and completions.
#[must_use]
pub fn command_line() -> clap::Command {
    Cli::command()
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if !namespace::inside() {
        let refused = namespace::check_host().and_then(|()| namespace::enter(&init_program()));
        let Err(error) = refused;
        eprintln!("blockhost-bench: {error}");
        return ExitCode::from(77);
    }
    let measured = if cli.switches {
        measure::switches(&cli.dir)
    } else if cli.chain {
        chain::measure(&cli.dir)
    } else if cli.create {
        create::measure(&cli.dir)
    } else if cli.metrics {
        metrics::measure(&cli.dir)
    } else {
        measure::everything(&cli.dir, cli.requests as usize)
    };
    match measured {
        Ok(results) => {
            if cli.json {
                say!("{}", results.as_json(&cli.dir));
            } else {
                results.print_table(&cli.dir);
            }
            let missed = results.rows.iter().any(|row| !row.kept());
            ExitCode::from(u8::from(cli.check && missed))
        }
        Err(error) => {
            eprintln!("blockhost-bench: {error}");
            let logs = cli.dir.join("logs");
            eprintln!("blockhost-bench: the logs are in {}", logs.display());
            ExitCode::FAILURE
        }
    }
}
