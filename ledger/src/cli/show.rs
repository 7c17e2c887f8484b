//! `blockhost ledger show`: one record as people read it, as JSON, or its exact bytes.

use super::context::{Context, Failure, height};
use super::story::story;
use super::text::now_us;

/// Options of `show`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger show 42          what happened, who asked, how it ended
  blockhost ledger show 42 --json | jq .outcome.metadata
  { printf '\\0'; blockhost ledger show 42 --raw; } | sha256sum     its hash, by hand")]
pub struct Args {
    /// Height of the record, from 1
    #[arg(value_name = "HEIGHT", value_parser = height())]
    height: u64,
    /// Print the record's exact bytes, the ones that are hashed
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Print JSON: the record, its hash, and the intent or outcome that belongs to it
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let reader = context.reader()?;
    if args.raw {
        let bytes = reader.get(args.height - 1)?;
        return Ok(context.out.write_all(&bytes)?);
    }
    let story = story(&reader, args.height)?;
    if args.json {
        return context.json(&story.json());
    }
    let lines = story.lines(now_us());
    let width = lines.iter().map(|(name, _)| name.chars().count()).max();
    for (name, text) in &lines {
        writeln!(
            context.out,
            "{name:<width$}  {text}",
            width = width.unwrap_or(0)
        )?;
    }
    Ok(())
}
