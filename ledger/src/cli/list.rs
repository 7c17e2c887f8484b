//! `blockhost ledger list`: the newest records that match.

use super::context::{Context, Failure, height};
use super::text::{field, time};
use crate::merkle::{hex, leaf_hash};
use serde_json::Value;

/// Options of `list`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many of the newest that match
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
    last: usize,
    /// From this height on
    #[arg(long, value_name = "HEIGHT", value_parser = height())]
    from: Option<u64>,
    /// Only this action
    #[arg(long)]
    action: Option<String>,
    /// Only this phase (intent, outcome, event, recovery, ...)
    #[arg(long)]
    phase: Option<String>,
    /// Only this resource
    #[arg(long)]
    resource: Option<String>,
    /// Only this user
    #[arg(long)]
    user: Option<String>,
    /// Print one JSON object a line: the record and its hash
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let filters = [
        ("action", &args.action),
        ("phase", &args.phase),
        ("resource", &args.resource),
        ("user", &args.user),
    ];
    let reader = context.reader()?;
    let mut picked = Vec::new();
    // From the end: the newest are wanted, and old ones need not be read for them.
    for item in reader.records(args.from.unwrap_or(1) - 1).rev() {
        if picked.len() == args.last {
            break;
        }
        let (_, bytes) = item?;
        let record: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let wanted = |(key, value): &(&str, &Option<String>)| {
            value.as_deref().is_none_or(|value| record[*key] == *value)
        };
        if filters.iter().all(wanted) {
            picked.push((bytes, record));
        }
    }
    for (bytes, record) in picked.into_iter().rev() {
        if args.json {
            context
                .out
                .write_all(bytes.strip_suffix(b"}").unwrap_or(&bytes))?;
            writeln!(context.out, ",\"hash\":\"{}\"}}", hex(&leaf_hash(&bytes)))?;
            continue;
        }
        writeln!(
            context.out,
            "{:>7}  {}  {:<8}  {:<16}  {:<16}  {}",
            record["height"].as_u64().unwrap_or_default(),
            time(&record),
            field(&record, "phase"),
            field(&record, "action"),
            field(&record, "resource"),
            field(&record, "user"),
        )?;
    }
    Ok(())
}
