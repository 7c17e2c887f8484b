//! `blockhost ledger prove`: a file that proves one record to anybody.

use super::context::{Context, Failure, height};
use crate::compact::pack;
use crate::merkle::hex;
use crate::note::Checkpoint;
use crate::proof::TlogProof;
use serde_json::json;
use std::path::PathBuf;

/// Options of `prove`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger prove 42 -o 42.tlog-proof         the record with its proof; verify-proof needs only the key
  blockhost ledger prove 42 --bare > 42.tlog-proof   for whoever has the record already
  blockhost ledger prove 42 --compact -o 42.proof    less than a kibibyte, binary
  blockhost ledger prove 42 --json | jq -r .proof")]
pub struct Args {
    /// Height of the record, from 1
    #[arg(value_name = "HEIGHT", value_parser = height())]
    height: u64,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave the record itself out of the file
    #[arg(long)]
    bare: bool,
    /// As few bytes as there are, binary, without the record: at most 1 KiB for any ledger of a real host
    #[arg(long, requires = "output", conflicts_with = "bare")]
    compact: bool,
    /// Print JSON: the proof with its place in the log; with --output what was written
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let with_record = !args.bare && !args.compact;
    let proof = context.reader()?.prove(args.height - 1, with_record)?;
    let mut told = if args.json {
        let unreadable = |error: &dyn std::fmt::Display| Failure::Unreadable(error.to_string());
        let parsed = TlogProof::parse(&proof).map_err(|error| unreadable(&error))?;
        let head = Checkpoint::parse_unverified(&parsed.checkpoint).map_err(|e| unreadable(&e))?;
        json!({
            "height": args.height, "index": parsed.index, "records": head.size, "root": hex(&head.root),
        })
    } else {
        serde_json::Value::Null
    };
    let Some(file) = &args.output else {
        if args.json {
            told["proof"] = proof.into();
            return context.json(&told);
        }
        return Ok(context.out.write_all(proof.as_bytes())?);
    };
    let proof = if args.compact {
        let packed = TlogProof::parse(&proof).ok().and_then(|proof| pack(&proof));
        packed.ok_or_else(|| Failure::Unreadable("the head has no plain signature".to_owned()))?
    } else {
        proof.into_bytes()
    };
    std::fs::write(file, &proof).map_err(|error| {
        Failure::Unreadable(format!("cannot write {}: {error}", file.display()))
    })?;
    if args.json {
        told["file"] = file.display().to_string().into();
        told["bytes"] = proof.len().into();
        return context.json(&told);
    }
    Ok(writeln!(
        context.out,
        "{}: proof of record {}",
        file.display(),
        args.height
    )?)
}
