//! The program `blockhost-demo`: enters the private namespaces, runs [`crate::scenario`], prints the result as the last
//! line. All decisions about the main job are in the scenario.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use serde::Serialize;
use serde_json::json;

use crate::namespace;
use crate::report::{Report, Style, say};
use crate::scenario::{self, Outcome};
use crate::world::{built_programs, init_program};

/// From a paid subscription to a running machine, on real components, in a private world.
#[derive(Parser)]
#[command(name = "blockhost-demo", version, after_help = EXAMPLES)]
struct Cli {
    /// Where the private world, its logs and the built template live
    #[arg(long, default_value = "/var/tmp/blockhost-demo", value_name = "DIR")]
    dir: PathBuf,
    /// Leave the world's files for a look afterwards (nothing keeps running either way)
    #[arg(long)]
    keep: bool,
    /// Print nothing but the JSON line
    #[arg(long)]
    json_only: bool,
}

const EXAMPLES: &str = "\
Needs root: it makes network, mount and process namespaces, and starts the root agent in them. Whatever happens, the
kernel ends everything inside when this program ends. A second run reuses the template in DIR.

The last line on stdout is JSON. Exit status: 0 done, 1 a step failed (the reason is on stderr, the logs in DIR/logs),
2 wrong usage, 77 this machine cannot run it.

Examples:
  blockhost-demo
  blockhost-demo --keep && ls /var/tmp/blockhost-demo/world/var/lib/blockhost
  blockhost-demo --json-only | jq .seconds";

/// The command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if !namespace::inside() {
        let refused = namespace::check_host().and_then(|()| namespace::enter(&init_program()));
        let Err(error) = refused;
        eprintln!("blockhost-demo: {error}");
        return ExitCode::from(77);
    }
    let mut report = Report::new(Style::detect(cli.json_only));
    let result = inside(&cli, &mut report)
        .and_then(|outcome| last_line(&outcome, &report).map_err(|error| error.to_string()));
    match result {
        Ok(line) => {
            say!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let logs = scenario::logs(&cli.dir);
            eprintln!("blockhost-demo: {error}");
            eprintln!("blockhost-demo: the logs are in {}", logs.display());
            say!(
                "{}",
                json!({"ok": false, "error": error, "logs": logs, "seconds": report.seconds()})
            );
            ExitCode::FAILURE
        }
    }
}

fn inside(cli: &Cli, report: &mut Report) -> Result<Outcome, String> {
    namespace::prepare().map_err(|error| error.to_string())?;
    let (outcome, world) =
        scenario::run(&cli.dir, &built_programs(), report).map_err(|error| error.to_string())?;
    if !cli.keep {
        world.remove().map_err(|error| error.to_string())?;
    }
    Ok(outcome)
}

/// The line that other programs read; its fields in the order that people expect.
#[derive(Serialize)]
struct LastLine<'a> {
    ok: bool,
    subscription: u64,
    vm: &'a str,
    vmid: u32,
    ip: Ipv4Addr,
    ipv6: Ipv6Addr,
    nft_token_id: u64,
    guest: Guest<'a>,
    ledger: Ledger<'a>,
    seconds: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize)]
struct Guest<'a> {
    hostname: &'a str,
    gecos: &'a str,
}

#[derive(Serialize)]
struct Ledger<'a> {
    records: u64,
    verified: bool,
    head: &'a str,
}

fn last_line(outcome: &Outcome, report: &Report) -> Result<String, serde_json::Error> {
    serde_json::to_string(&LastLine {
        ok: true,
        subscription: outcome.purchase.subscription,
        vm: &outcome.record.name,
        vmid: outcome.record.vmid,
        ip: outcome.record.ip,
        ipv6: outcome.record.ipv6,
        nft_token_id: outcome.nft_token_id,
        guest: Guest {
            hostname: &outcome.guest.hostname,
            gecos: &outcome.guest.gecos,
        },
        ledger: Ledger {
            records: outcome.ledger.records,
            verified: outcome.ledger.verified,
            head: &outcome.ledger.head,
        },
        seconds: report.seconds(),
    })
}
