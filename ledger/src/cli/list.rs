//! `blockhost ledger list`: the newest records that match.

use super::context::{Context, Failure};
use super::select::Select;

/// Options of `list`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger list --category network --since 2h
  blockhost ledger list --resource 'vm:*' --user blockhost -n 100 --json
  blockhost ledger list --action qm-destroy --since 2026-01-31 --verified --prove proofs/

Times are UTC. Without --verified an index in your cache directory may be used to find the records; they are always read
and hashed from the ledger itself.")]
pub struct Args {
    #[command(flatten)]
    select: Select,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    args.select.answer(context, None)
}
