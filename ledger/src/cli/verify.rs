//! `blockhost ledger verify`: everything, against what was kept elsewhere.

use super::context::{Context, Failure, read_keys, read_text};
use super::text::printable;
use crate::policy::Policy;
use crate::verify::{Trust, VerifyReport, verify, verify_features};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Options of `verify`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger verify --key ledger.vkey                               against the key you keep elsewhere
  blockhost ledger verify --key ledger.vkey --trusted-checkpoint kept/    and against every head you kept
  blockhost ledger verify --features                                      and the features in block files against a replay
  blockhost ledger verify --json | jq '.problems[]'

Exit codes: 0 good, 1 something is wrong, 3 it cannot be read.")]
pub struct Args {
    /// The log's first verifier key, or a file with its keys, one a line, oldest first. Without it the copy beside the
    /// ledger is used, which whoever can rewrite the ledger can replace
    #[arg(long, value_name = "VKEY")]
    key: Option<String>,
    /// A checkpoint kept elsewhere, or a directory of them (may be repeated): detects truncation, rollback and rewriting
    #[arg(long, value_name = "FILE|DIR")]
    trusted_checkpoint: Vec<PathBuf>,
    /// Witnesses, and how many of them must have cosigned a head of the log (C2SP tlog-policy)
    #[arg(long, value_name = "FILE")]
    witness_policy: Option<PathBuf>,
    /// Compute the features in block files again, too, from all records, and compare them: no hash covers them, and who
    /// reads them there relies on them. Takes several times as long
    #[arg(long)]
    features: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let ledger = context.ledger()?;
    let mut keys = args
        .key
        .as_deref()
        .map(read_keys)
        .transpose()?
        .unwrap_or_default()
        .into_iter();
    let trust = Trust {
        key: keys.next(),
        later_keys: keys.collect(),
        checkpoint: None,
        checkpoints: read_checkpoints(&args.trusted_checkpoint)?,
        witnesses: args
            .witness_policy
            .as_deref()
            .map(read_policy)
            .transpose()?,
    };
    let started = std::time::Instant::now();
    let bar = super::progress::bytes("verifying");
    let report = verify(&ledger, &trust, &mut |done, total| {
        bar.told(done, total);
    });
    bar.done();
    let mut report = report?;
    if args.features {
        let bar = super::progress::bar("replaying");
        verify_features(&ledger, &mut report, &mut |done, total| {
            bar.told(done, total);
        })?;
        bar.done();
    }
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

/// The checkpoints in the files, and in the files of the directories, that were named.
fn read_checkpoints(places: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    for place in places {
        if !place.is_dir() {
            notes.push(read_text(place, "checkpoint")?);
            continue;
        }
        let unreadable = |error: std::io::Error| {
            Failure::Unreadable(format!("cannot list {}: {error}", place.display()))
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(place).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.is_file() {
                files.push(path);
            }
        }
        if files.is_empty() {
            let text = format!("there is no checkpoint in {}", place.display());
            return Err(Failure::Unreadable(text));
        }
        files.sort();
        for file in files {
            notes.push(read_text(&file, "checkpoint")?);
        }
    }
    Ok(notes)
}

/// A witness policy.
pub(super) fn read_policy(file: &Path) -> Result<Policy, Failure> {
    Policy::parse(&read_text(file, "witness policy")?)
        .map_err(|error| Failure::Unreadable(format!("{}: {error}", file.display())))
}

fn print_report(out: &mut dyn Write, report: &VerifyReport) -> std::io::Result<()> {
    for problem in &report.problems {
        let height = problem
            .height
            .map_or(String::new(), |height| format!("height {height}: "));
        writeln!(
            out,
            "WRONG  {height}{}: {}",
            printable(&problem.place),
            printable(&problem.what)
        )?;
    }
    for note in &report.notes {
        writeln!(out, "note   {}", printable(note))?;
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
    if let Some(records) = report.features {
        writeln!(out, "       features of {records} records computed again")?;
    }
    if let Some(key) = &report.key {
        writeln!(out, "key    {key}")?;
    }
    for (number, key, after) in report.epochs.iter().skip(1) {
        writeln!(
            out,
            "key    {key} (epoch {number}, from height {})",
            after + 1
        )?;
    }
    if let Some(size) = report.witnessed {
        writeln!(
            out,
            "seen   enough witnesses cosigned the first {size} records"
        )?;
    }
    Ok(())
}
