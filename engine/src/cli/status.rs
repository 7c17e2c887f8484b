//! `blockhost status`: one screen.

use super::{fail, runtime};
use crate::status::{gather, prometheus, text};
use blockhost_proto::layout::Layout;
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

/// Everything at a glance.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 when nothing needs you, 1 when something does.

Examples:
  blockhost status
  blockhost status --json | jq -r '.attention[]'
  blockhost status --prometheus >/var/lib/prometheus/node-exporter/blockhost.prom")]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long, conflicts_with = "prometheus")]
    json: bool,
    /// Print Prometheus's text format, as `GET /metrics` of the engine gives it
    #[arg(long)]
    prometheus: bool,
}

/// Runs the command.
#[must_use]
pub fn run(args: &StatusArgs, layout: &Layout) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(e) => return fail("blockhost status", &e),
    };
    let status = runtime.block_on(gather::status(layout));
    // Reading the database waits for a lock that somebody may hold.
    runtime.shutdown_background();
    let wanted = status.attention();
    if args.prometheus {
        say!("{}", prometheus::render(&status).trim_end());
    } else if args.json {
        let mut all = json!(status);
        all["attention"] = json!(wanted);
        say!("{all}");
    } else {
        say!("{}", text::render(&status).trim_end());
    }
    ExitCode::from(u8::from(!wanted.is_empty()))
}
