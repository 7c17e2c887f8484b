//! `blockhost reconcile`: what the engine found when it last compared machines with the chain.

use super::fail;
use crate::reconcile::report::{Entry, Report};
use blockhost_proto::layout::Layout;
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

/// What of machines and chain does not fit together.
#[derive(Debug, Args)]
#[command(after_help = "\
The engine compares every few minutes (reconcile.every_s in blockhost.yaml); this prints what its last look found.
Exit code: 0 when everything fits, 1 when something does not, or when there is no report.

Examples:
  blockhost reconcile
  blockhost reconcile --json | jq -r '.findings[].text'")]
pub struct ReconcileArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: &ReconcileArgs, layout: &Layout) -> ExitCode {
    let report = match Report::load(layout) {
        Ok(report) => report,
        Err(e) => return fail("blockhost reconcile", &e),
    };
    let Some(report) = report else {
        eprintln!(
            "blockhost reconcile: the engine has not compared anything yet; it does so after a few minutes: systemctl status blockhost-engine"
        );
        return ExitCode::FAILURE;
    };
    if args.json {
        say!("{}", json!(report));
    } else {
        print(&report);
    }
    if report.findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn print(report: &Report) {
    say!("compared at {}, block {}", report.looked_at, report.block);
    if report.findings.is_empty() {
        say!("machines and chain fit together");
    }
    let line = |entry: &Entry| {
        // Names come from the database, which others write too.
        entry.text.escape_debug().to_string()
    };
    for entry in &report.findings {
        let who = if entry.automatic {
            "the engine is at it"
        } else {
            "for you"
        };
        say!("{}\t{who}", line(entry));
    }
    for entry in &report.repaired {
        say!("mended {}\t{}", entry.at, line(entry));
    }
}
