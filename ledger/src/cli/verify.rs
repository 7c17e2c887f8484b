//! `blockhost ledger verify`: everything, against what was kept elsewhere.

use super::context::{Context, Failure, read_key, read_text};
use crate::verify::{Trust, VerifyReport, verify};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

/// Options of `verify`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The verifier key, or a file with it. Without it the copy beside the ledger is used, which whoever can
    /// rewrite the ledger can replace
    #[arg(long, value_name = "VKEY")]
    key: Option<String>,
    /// A checkpoint kept elsewhere: detects truncation, rollback and rewriting
    #[arg(long, value_name = "FILE")]
    trusted_checkpoint: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let ledger = context.ledger()?;
    let trust = Trust {
        key: args.key.as_deref().map(read_key).transpose()?,
        checkpoint: args
            .trusted_checkpoint
            .as_deref()
            .map(|file| read_text(file, "checkpoint"))
            .transpose()?,
    };
    let started = std::time::Instant::now();
    let bar = super::progress::bytes("verifying");
    let report = verify(&ledger, &trust, &mut |done, total| {
        bar.told(done, total);
    });
    bar.done();
    let report = report?;
    let seconds = started.elapsed();
    if args.json {
        let mut value = serde_json::to_value(&report).map_err(std::io::Error::from)?;
        value["milliseconds"] = json!(u64::try_from(seconds.as_millis()).unwrap_or(u64::MAX));
        context.json(&value)?;
    } else {
        print_report(context.out, &report)?;
    }
    match report.problems.first() {
        None => Ok(()),
        Some(first) => {
            let height = first
                .height
                .map_or(String::new(), |height| format!(" from height {height}"));
            Err(Failure::NotVerified(format!(
                "not verified{height}: {} problem(s)",
                report.problems.len()
            )))
        }
    }
}

fn print_report(out: &mut dyn Write, report: &VerifyReport) -> std::io::Result<()> {
    for problem in &report.problems {
        let height = problem
            .height
            .map_or(String::new(), |height| format!("height {height}: "));
        writeln!(out, "WRONG  {height}{}: {}", problem.place, problem.what)?;
    }
    for note in &report.notes {
        writeln!(out, "note   {note}")?;
    }
    writeln!(
        out,
        "{}  {} records, {} commits, {} segment(s), {} block file(s); root {}",
        if report.ok { "good " } else { "WRONG" },
        report.records,
        report.commits,
        report.segments,
        report.blocks,
        report.root
    )?;
    if let Some(key) = &report.key {
        writeln!(out, "key    {key}")?;
    }
    Ok(())
}
