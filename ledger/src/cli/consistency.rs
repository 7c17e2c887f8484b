//! `blockhost ledger consistency` and `verify-consistency`: that a later head only added to an earlier one.

use super::context::{Context, Failure, read_keys, read_text};
use crate::claim::Claim;
use crate::merkle::hex;
use crate::note::{Checkpoint, Vkey, parse_decimal};
use crate::reader::{ReadError, Reader};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Options of `consistency`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger consistency last-month.txt -o since.consistency   from a checkpoint you kept to the head
  blockhost ledger consistency 1000                                  from the first 1000 records to the head
  blockhost ledger consistency last-year.txt last-month.txt
  blockhost ledger verify-consistency since.consistency --key ledger.vkey")]
pub struct Args {
    /// The earlier head: a checkpoint file, or a number of records
    #[arg(value_name = "OLD")]
    old: String,
    /// The later head: a checkpoint file; the newest when left out
    #[arg(value_name = "NEW")]
    new: Option<PathBuf>,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let reader = context.reader()?;
    let new = match &args.new {
        None => reader.head()?.note,
        Some(file) => {
            let note = read_text(file, "later checkpoint")?;
            let keys = reader.epochs().ok_or(ReadError::NoKey)?;
            // It has to be signed, or the claim would show nothing.
            keys.open(&note).map_err(|error| refused(file, &error))?;
            note
        }
    };
    let head = part(&reader, &new, "later")?;
    let (old, old_root, old_note) = match parse_decimal(&args.old) {
        Some(size) => {
            if size > head.size {
                return Err(Failure::Usage(format!(
                    "the later head has only {} records, not {size}",
                    head.size
                )));
            }
            (size, reader.root_of_range(0, size)?, None)
        }
        None => {
            let note = read_text(Path::new(&args.old), "earlier checkpoint")?;
            let old = part(&reader, &note, "earlier")?;
            (old.size, old.root, Some(note))
        }
    };
    if old > head.size {
        return Err(Failure::Usage(format!(
            "the earlier head has {old} records and the later one {}: give them the other way round",
            head.size
        )));
    }
    let proof = reader.prove_growth(old, head.size)?;
    let claim = Claim {
        old_size: old,
        old_root,
        proof,
        new,
        old: old_note,
    };
    let Some(file) = &args.output else {
        return Ok(write!(context.out, "{claim}")?);
    };
    std::fs::write(file, claim.to_string()).map_err(|error| {
        Failure::Unreadable(format!("cannot write {}: {error}", file.display()))
    })?;
    Ok(writeln!(
        context.out,
        "{}: the {} records begin with the {old} of the earlier head",
        file.display(),
        head.size
    )?)
}

/// What a checkpoint says, when this ledger has it.
fn part(reader: &Reader, note: &str, which: &str) -> Result<Checkpoint, Failure> {
    let found = Checkpoint::parse_unverified(note)
        .map_err(|error| Failure::Unreadable(format!("the {which} checkpoint: {error}")))?;
    let ours = Checkpoint::parse_unverified(&reader.head()?.note)
        .map_err(|error| Failure::Unreadable(error.to_string()))?;
    if found.origin != ours.origin {
        return Err(Failure::NotVerified(format!(
            "the {which} checkpoint is of the log {:?}, this ledger is {:?}",
            found.origin, ours.origin
        )));
    }
    if found.size > reader.size() {
        return Err(Failure::NotVerified(format!(
            "the {which} checkpoint has {} records, the ledger only {}: its end was cut off or an old copy was put back",
            found.size,
            reader.size()
        )));
    }
    if reader.root_of_range(0, found.size)? != found.root {
        return Err(Failure::NotVerified(format!(
            "the first {} records do not have the root of the {which} checkpoint: the history was rewritten",
            found.size
        )));
    }
    Ok(found)
}

fn refused(file: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::NotVerified(format!("{}: {error}", file.display()))
}

/// Options of `verify-consistency`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger verify-consistency since.consistency --key ledger.vkey
  blockhost ledger verify-consistency since.consistency --key ledger.vkey --trusted-checkpoint last-month.txt --json

Exit codes: 0 shown, 1 not shown, 3 a file cannot be read.")]
pub struct VerifyArgs {
    /// The claim, `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The verifier key you trust, or a file with it
    #[arg(long, value_name = "VKEY")]
    key: String,
    /// A checkpoint you kept: the earlier head has to be this one
    #[arg(long, value_name = "FILE")]
    trusted_checkpoint: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn verify(context: &mut Context, args: &VerifyArgs) -> Result<(), Failure> {
    let keys = read_keys(&args.key)?;
    let name = keys.first().map_or("", Vkey::name);
    let text = read_text(&args.file, "consistency file")?;
    let kept = args.trusted_checkpoint.as_deref();
    let kept = kept.map(|file| read_text(file, "checkpoint")).transpose()?;
    let checked = Claim::parse(&text)
        .and_then(|claim| claim.verify(&keys))
        .map_err(|error| error.to_string())
        .and_then(|shown| match kept.as_deref().map(Checkpoint::parse_unverified) {
            None => Ok(shown),
            Some(Ok(kept)) if kept.origin == name && (kept.size, kept.root) == shown.old => {
                Ok(shown)
            }
            Some(Ok(kept)) => Err(format!(
                "the earlier head in the file, of {} records, is not the checkpoint you kept, of {}",
                shown.old.0, kept.size
            )),
            Some(Err(error)) => Err(format!("the checkpoint you kept: {error}")),
        });
    let shown = match checked {
        Ok(shown) => shown,
        Err(error) => {
            if args.json {
                context.json(&json!({"ok": false, "error": error}))?;
            }
            return Err(Failure::NotVerified(format!("not shown: {error}")));
        }
    };
    if args.json {
        return context.json(&json!({
            "ok": true, "old_records": shown.old.0, "old_root": hex(&shown.old.1), "old_signed": shown.old_signed,
            "records": shown.new.0, "root": hex(&shown.new.1),
        }));
    }
    let how = match (kept.is_some(), shown.old_signed) {
        (true, _) => "the checkpoint you kept",
        (false, true) => "signed too",
        (false, false) => "its signature was not checked: compare it with what you kept",
    };
    Ok(writeln!(
        context.out,
        "consistent: the {} records signed by {} begin with the {} of root {} ({how})",
        shown.new.0,
        name,
        shown.old.0,
        hex(&shown.old.1)
    )?)
}
