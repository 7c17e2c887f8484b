//! `blockhost-vm-status` and `blockhost-vm-list`: reading the database.

use std::process::ExitCode;

use blockhost_proto::value::VmName;
use clap::{CommandFactory as _, Parser, ValueEnum};
use serde_json::Value;

use super::{EXIT_CODES, Failure, Setup, exit, print, say};
use crate::lifecycle::LifecycleError;
use crate::record::{Status, VmRecord};
use crate::store::{Store as _, StoreError};

/// Print a machine's status
///
/// One of active, suspended, destroyed, unknown; the exit code is 0 always.
#[derive(Debug, Parser)]
#[command(
    name = "blockhost-vm-status",
    version,
    after_help = "Examples:
  blockhost-vm-status web-1
  blockhost-vm-status web-1 --json

Exit code: 0 always, for a machine that is not there too; 2 for wrong usage."
)]
struct StatusArgs {
    /// Name of the machine
    name: String,
    /// Print the whole record as JSON; null when there is none
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// List machines
#[derive(Debug, Parser)]
#[command(name = "blockhost-vm-list", version, after_help = format!("Examples:
  blockhost-vm-list
  blockhost-vm-list --status suspended --format json

{EXIT_CODES}"))]
struct ListArgs {
    /// Table with tabs, or a JSON array
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// The same as --format json
    #[arg(long)]
    json: bool,
    /// Only active, suspended or destroyed ones
    #[arg(long, value_name = "STATUS")]
    status: Option<Status>,
}

/// The definition of `blockhost-vm-status`.
#[must_use]
pub fn status_command() -> clap::Command {
    StatusArgs::command()
}

/// The definition of `blockhost-vm-list`.
#[must_use]
pub fn list_command() -> clap::Command {
    ListArgs::command()
}

/// The program `blockhost-vm-status`.
#[must_use]
pub fn status_main() -> ExitCode {
    let args = StatusArgs::parse();
    let record = match find(&args.name) {
        Ok(record) => record,
        Err(failure) => {
            // Callers rely on a word and on exit code 0; the reason is on stderr.
            say(&format!("error: {}", failure.message));
            None
        }
    };
    let text = match (&record, args.json) {
        (record, true) => record
            .as_ref()
            .map_or_else(|| "null".into(), |r| row(r).to_string()),
        (Some(record), false) => record.status.to_string(),
        (None, false) => "unknown".to_owned(),
    };
    if let Err(failure) = print(&text) {
        say(&format!("error: {}", failure.message));
    }
    ExitCode::SUCCESS
}

fn find(name: &str) -> Result<Option<VmRecord>, Failure> {
    let Ok(name) = name.parse::<VmName>() else {
        return Ok(None);
    };
    match Setup::load()?.store.get(&name) {
        Ok(record) => Ok(Some(record)),
        Err(StoreError::UnknownVm { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The program `blockhost-vm-list`.
#[must_use]
pub fn list_main() -> ExitCode {
    exit(list(&ListArgs::parse()))
}

/// The record with the short keys in front that older callers read.
fn row(record: &VmRecord) -> Value {
    let mut value = serde_json::to_value(record).unwrap_or_default();
    value["name"] = serde_json::json!(record.vm_name);
    value["ip"] = serde_json::json!(record.ip_address);
    value["created"] = serde_json::json!(record.created_at);
    value
}

fn list(args: &ListArgs) -> Result<ExitCode, Failure> {
    let Setup { config, store, .. } = Setup::load()?;
    let records = store.list(args.status)?;
    for record in records.iter().filter(|record| config.is_nobodys(record)) {
        say(&format!(
            "warning: {}",
            LifecycleError::Nobodys(record.vm_name.clone())
        ));
    }
    if args.json || args.format == Format::Json {
        print(&Value::Array(records.iter().map(row).collect()).to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    print("NAME\tSTATUS\tIP\tCREATED")?;
    for record in records {
        let ip = record
            .ip_address
            .map_or_else(|| "-".into(), |ip| ip.to_string());
        print(&format!(
            "{}\t{}\t{ip}\t{}",
            record.vm_name, record.status, record.created_at
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
