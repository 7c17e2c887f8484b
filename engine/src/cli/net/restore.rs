//! `blockhost net restore`: the firewall as the ledger says, after a start of the machine or whenever somebody changed it by
//! hand. The work is done in [`crate::network::restore`].

use std::process::ExitCode;

use blockhost_proto::layout::Layout;
use clap::Args;

use crate::cli::fail;
use crate::network::restore::restore;

/// What `restore` takes.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// Only say what stands by the ledger; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &RestoreArgs, layout: &Layout) -> ExitCode {
    let done = match restore(layout, args.dry_run) {
        Ok(done) => done,
        Err(error) => return fail("blockhost", &error),
    };
    if args.json {
        match serde_json::to_string_pretty(&done) {
            Ok(text) => say!("{text}"),
            Err(error) => return fail("blockhost", &error),
        }
    } else {
        for port in &done.ports {
            say!("open\t{port}");
        }
        for pair in &done.pairs {
            say!("mapped\t{pair}");
        }
        for said in &done.said {
            say!("{said}");
        }
    }
    for one in &done.left_out {
        eprintln!(
            "blockhost: {one} stands by the ledger, but the agent's policy does not permit it any more"
        );
    }
    for gap in &done.gaps {
        eprintln!("blockhost: {gap}");
    }
    if done.gaps.is_empty() && done.left_out.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INCOMPLETE)
    }
}

/// All that could be restored is, and something could not.
const INCOMPLETE: u8 = 2;
