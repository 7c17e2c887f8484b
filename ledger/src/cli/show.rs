//! `blockhost ledger show`: one record.

use super::context::{Context, Failure, height};
use crate::merkle::{hex, leaf_hash};
use serde_json::{Value, json};

/// Options of `show`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Height of the record, from 1
    #[arg(value_name = "HEIGHT", value_parser = height())]
    height: u64,
    /// Print the record's exact bytes, the ones that are hashed
    #[arg(long)]
    raw: bool,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let bytes = context.reader()?.get(args.height - 1)?;
    if args.raw {
        context.out.write_all(&bytes)?;
        return Ok(());
    }
    let mut record: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    record["hash"] = json!(hex(&leaf_hash(&bytes)));
    let pretty = serde_json::to_string_pretty(&record).map_err(std::io::Error::from)?;
    // JSON escapes what a terminal would obey, except U+0080 to U+009F.
    let shown: String = pretty
        .chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    writeln!(context.out, "{shown}")?;
    Ok(())
}
