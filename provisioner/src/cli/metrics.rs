//! `blockhost-vm-metrics`: what one machine or all of them use.

use std::process::ExitCode;

use blockhost_proto::value::VmName;
use clap::{CommandFactory as _, Parser};
use serde_json::{Value, json};

use super::{EXIT_CODES, Failure, Setup, exit, print, say};
use crate::lifecycle::{self, LifecycleError};
use crate::metrics::{Counters, Kept, Metrics, sample};
use crate::record::{Status, VmRecord};
use crate::store::Store as _;

/// Print what a machine uses, as JSON
///
/// Rates are those since the last call, or of a moment's watching when that is long ago. What this host cannot know is null.
#[derive(Debug, Parser)]
#[command(name = "blockhost-vm-metrics", version, after_help = format!("Examples:
  blockhost-vm-metrics web-1
  blockhost-vm-metrics web-1 | jq .cpu_percent
  blockhost-vm-metrics --all | jq -r '.[] | [.vm_name, .state, .cpu_percent] | @tsv'

{EXIT_CODES}"))]
struct Args {
    /// Name of the machine
    #[arg(required_unless_present = "all")]
    name: Option<VmName>,
    /// All machines that are not destroyed, as an array with their names; one look at the host for all of them
    #[arg(long, conflicts_with = "name")]
    all: bool,
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
    let value = match &args.name {
        Some(name) => one(&setup, &setup.store.get(name)?)?,
        None => all(&setup)?,
    };
    print(&value.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn looks(setup: &Setup, only: Option<&VmRecord>) -> Result<Vec<(Counters, Metrics)>, Failure> {
    let kept = Kept::of(&setup.layout);
    let only = only.map(|record| record.vmid);
    let mut warn = |text: String| say(&format!("warning: {text}"));
    Ok(sample(&setup.backend, &kept, only, &mut warn)?)
}

fn one(setup: &Setup, record: &VmRecord) -> Result<Value, Failure> {
    lifecycle::real(&setup.world(), record)?;
    let (look, metrics) = looks(setup, Some(record))?
        .into_iter()
        .find(|(look, _)| look.vmid == record.vmid)
        .ok_or_else(|| Failure::new(format!("the backend said nothing of VM {}", record.vmid)))?;
    if look.name.as_deref() != Some(record.vm_name.as_str()) {
        let found = look.name.unwrap_or_default();
        return Err(LifecycleError::Foreign {
            name: record.vm_name.clone(),
            vmid: record.vmid.get(),
            found: blockhost_proto::escape::shown(&found),
        }
        .into());
    }
    Ok(json!(metrics))
}

fn all(setup: &Setup) -> Result<Value, Failure> {
    let looks = looks(setup, None)?;
    let mut rows = Vec::new();
    for record in setup.store.list(None)? {
        if record.status == Status::Destroyed || lifecycle::real(&setup.world(), &record).is_err() {
            continue;
        }
        let look = looks.iter().find(|(look, _)| {
            look.vmid == record.vmid && look.name.as_deref() == Some(record.vm_name.as_str())
        });
        let Some((_, metrics)) = look else {
            say(&format!(
                "warning: the backend has no VM {} named {}",
                record.vmid, record.vm_name
            ));
            continue;
        };
        let mut row = json!(metrics);
        row["vm_name"] = json!(record.vm_name);
        row["vmid"] = json!(record.vmid);
        rows.push(row);
    }
    Ok(Value::Array(rows))
}
