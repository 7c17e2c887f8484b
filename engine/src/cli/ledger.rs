//! `blockhost ledger ...`: where the ledger is in this world. The commands themselves live in the ledger crate.

pub use blockhost_ledger::cli::LedgerArgs;
use blockhost_proto::layout::Layout;
use std::process::ExitCode;

/// Runs a ledger command on this world's ledger.
#[must_use]
pub fn run(args: LedgerArgs, layout: &Layout) -> ExitCode {
    blockhost_ledger::cli::run(args, &layout.ledger())
}
