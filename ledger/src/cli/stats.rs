//! `blockhost ledger stats`: how many records of which kind, since when, how fast, how large.

use super::context::{Context, Failure};
use super::progress;
use super::select::without_index;
use super::text::printable;
use crate::index::{self, Index};
use crate::query::{FEW, QueryError};
use crate::stats::{Stats, stats};
use std::io::Write;

/// Options of `stats`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger stats
  blockhost ledger stats --verified --json | jq '.counts.user'")]
pub struct Args {
    /// Count every record instead of using the index in your cache directory
    #[arg(long, visible_alias = "no-index")]
    verified: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let (ledger, reader) = (context.ledger()?, context.reader()?);
    let bar = progress::bar("counting");
    let progress = &mut |done, total| bar.told(done, total);
    let path = index::default_path(&context.dir).filter(|_| !args.verified && reader.size() > FEW);
    let index = path.and_then(|path| match Index::open(&path, &reader, progress) {
        Ok(index) => Some(index),
        Err(error) => {
            without_index(&error);
            None
        }
    });
    let stats = match stats(&ledger, &reader, index.as_ref(), progress) {
        Err(QueryError::Index(error)) => {
            without_index(&error);
            stats(&ledger, &reader, None, progress)
        }
        answer => answer,
    };
    bar.done();
    let stats = stats?;
    if args.json {
        let value = serde_json::to_value(&stats).map_err(std::io::Error::from)?;
        return context.json(&value);
    }
    Ok(print(context.out, &stats)?)
}

fn print(out: &mut dyn Write, stats: &Stats) -> std::io::Result<()> {
    writeln!(out, "records     {}", stats.records)?;
    if let (Some(first), Some(last)) = (stats.first_us, stats.last_us) {
        writeln!(out, "first       {}", time(first))?;
        writeln!(out, "last        {}", time(last))?;
    }
    writeln!(
        out,
        "rate        {} a day, {} in the last day",
        stats.per_day, stats.last_day
    )?;
    writeln!(
        out,
        "on disk     {} in segments ({} bytes a record), {} in block files",
        indicatif::BinaryBytes(stats.disk.segments),
        stats.bytes_per_record,
        indicatif::BinaryBytes(stats.disk.blocks)
    )?;
    if let Some(root) = &stats.root {
        writeln!(out, "root        {root}")?;
    }
    for (field, counts) in &stats.counts {
        let mut heading = *field;
        for count in counts.iter().take(12) {
            writeln!(
                out,
                "{heading:<10}  {:>10}  {}",
                count.records,
                printable(&count.value)
            )?;
            heading = "";
        }
        if counts.len() > 12 {
            writeln!(out, "{:<10}  {:>10}  ...", "", "")?;
        }
    }
    let by = if stats.counted {
        "counted from the records"
    } else {
        "counted by the index; --verified counts the records"
    };
    writeln!(out, "{by}")
}

fn time(us: i64) -> String {
    jiff::Timestamp::from_second(us.div_euclid(1_000_000))
        .map_or_else(|_| us.to_string(), |time| time.to_string())
}
