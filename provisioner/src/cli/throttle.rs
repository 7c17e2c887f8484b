//! `blockhost-vm-throttle`: limits on what a machine may use.

use std::process::ExitCode;

use blockhost_proto::value::{CpuUnits, Iops, RateKbps, VmName};
use clap::{CommandFactory as _, Parser};
use serde_json::json;

use super::{EXIT_CODES, Failure, Setup, exit, print, say};
use crate::lifecycle;
use crate::store::Store as _;
use crate::throttle::{Change, CpuQuota, Throttle};

/// Limit what a machine may use
///
/// Limits that are not named stay. They are kept in its record and put in force again whenever it starts. Without any option
/// the limits are printed.
#[derive(Debug, Parser)]
#[command(name = "blockhost-vm-throttle", version, after_help = format!("Examples:
  blockhost-vm-throttle web-1 --cpu-quota 50 --bandwidth-out 20000
  blockhost-vm-throttle web-1 --iops-read 500 --iops-write 200
  blockhost-vm-throttle web-1 --reset --cpu-shares 50
  blockhost-vm-throttle web-1 --reset
  blockhost-vm-throttle web-1 --json

{EXIT_CODES}"))]
struct Args {
    /// Name of the machine
    name: VmName,
    /// Weight among the machines when the processor is short, 1 to 10000; without limit it is 100
    #[arg(long, value_name = "N")]
    cpu_shares: Option<CpuUnits>,
    /// Percent of one processor that it may use at most, 1 to 12800: 150 is one and a half
    #[arg(long, value_name = "PCT")]
    cpu_quota: Option<CpuQuota>,
    /// Kilobits (1000 bits) per second that it may receive, on each interface
    #[arg(long, value_name = "KBPS")]
    bandwidth_in: Option<RateKbps>,
    /// Kilobits per second that it may send, on each interface
    #[arg(long, value_name = "KBPS")]
    bandwidth_out: Option<RateKbps>,
    /// Reads per second, of each disk
    #[arg(long, value_name = "N")]
    iops_read: Option<Iops>,
    /// Writes per second, of each disk
    #[arg(long, value_name = "N")]
    iops_write: Option<Iops>,
    /// Take all limits away before setting those that are named
    #[arg(long)]
    reset: bool,
    /// Print the limits as JSON when done
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
    let setup = Setup::load()?;
    let record = setup.store.get(&args.name)?;
    let change = Change {
        named: Throttle {
            cpu_shares: args.cpu_shares,
            cpu_quota: args.cpu_quota,
            bandwidth_in: args.bandwidth_in,
            bandwidth_out: args.bandwidth_out,
            iops_read: args.iops_read,
            iops_write: args.iops_write,
        },
        reset: args.reset,
    };
    let asked = change != Change::default();
    let record = if asked {
        let done = lifecycle::throttle(&setup.world(), &record, &change)?;
        if done.at_next_start {
            say("it is off: limits on its network come into force when it starts");
        }
        done.record
    } else {
        record
    };
    if args.json {
        print(&json!(record.throttle).to_string())?;
    } else if asked {
        say(&format!("{}: {}", args.name, shown(&record.throttle)));
    } else {
        print(&shown(&record.throttle))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(throttle: &Throttle) -> String {
    let limits = [
        throttle
            .cpu_shares
            .map(|n| format!("cpu-shares {}", n.get())),
        throttle
            .cpu_quota
            .map(|n| format!("cpu-quota {} %", u16::from(n))),
        throttle
            .bandwidth_in
            .map(|n| format!("bandwidth-in {} kbit/s", n.get())),
        throttle
            .bandwidth_out
            .map(|n| format!("bandwidth-out {} kbit/s", n.get())),
        throttle.iops_read.map(|n| format!("iops-read {}", n.get())),
        throttle
            .iops_write
            .map(|n| format!("iops-write {}", n.get())),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    if limits.is_empty() {
        return "no limits".to_owned();
    }
    limits.join(", ")
}
