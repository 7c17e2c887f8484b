//! `blockhost ledger head`: the signed head.

use super::context::{Context, Failure};
use crate::merkle::hex;
use serde_json::json;

/// Options of `head`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger head
  blockhost ledger head --json | jq .records")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let head = context.reader()?.head()?;
    if args.json {
        return context.json(
            &json!({"records": head.size, "root": hex(&head.root), "checkpoint": head.note}),
        );
    }
    Ok(write!(context.out, "{}", head.note)?)
}
