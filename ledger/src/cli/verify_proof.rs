//! `blockhost ledger verify-proof`: a proof from somebody else, offline.

use super::context::{Context, Failure, read_file, read_keys};
use super::text::{field, time};
use crate::compact::{is_compact, unpack};
use crate::merkle::{hex, leaf_hash};
use crate::note::NoteError;
use crate::proof::{ProofError, verify_proof};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Options of `verify-proof`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger verify-proof 42.tlog-proof --key ledger.vkey
  blockhost ledger verify-proof 42.proof --key ledger.vkey --record 42.json --json | jq .ok

Exit codes: 0 proved, 1 not proved, 3 a file cannot be read.")]
pub struct Args {
    /// The proof, `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The verifier key you trust, or a file with the keys of the log, one a line
    #[arg(long, value_name = "VKEY")]
    key: String,
    /// The record's exact bytes, when the proof does not carry them or to compare with your own copy
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let keys = read_keys(&args.key)?;
    let bytes = read_file(&args.file, "proof")?;
    let record = args
        .record
        .as_deref()
        .map(|file| read_file(file, "record"))
        .transpose()?;
    let text = match &record {
        Some(record) if is_compact(&bytes) => unpack(&bytes, record).map(|proof| proof.to_string()),
        None if is_compact(&bytes) => Err(ProofError::NoRecord),
        _ => String::from_utf8(bytes).map_err(|_| ProofError::Shape("it is not text")),
    };
    // The head of a proof is signed by the key of its time, which is any of the log's.
    let mut result = Err(ProofError::NoRecord);
    for key in keys.iter().rev() {
        let verified = text.as_ref().map_err(Clone::clone);
        let verified = verified.and_then(|text| verify_proof(text, record.as_deref(), key));
        result = verified.map(|proven| (proven, key));
        if !matches!(
            result,
            Err(ProofError::Checkpoint(NoteError::NoSignature { .. }))
        ) {
            break;
        }
    }
    let (proven, key) = match result {
        Ok(proven) => proven,
        Err(error) => {
            if args.json {
                context.json(&json!({"ok": false, "error": error.to_string()}))?;
            }
            return Err(Failure::NotVerified(format!("not proved: {error}")));
        }
    };
    let value: Value = serde_json::from_slice(&proven.record).unwrap_or_default();
    if args.json {
        return context.json(&json!({
            "ok": true, "height": proven.index + 1, "index": proven.index, "records": proven.size,
            "root": hex(&proven.root), "leaf": hex(&leaf_hash(&proven.record)), "record": value,
        }));
    }
    writeln!(
        context.out,
        "proved: record {} of the {} records signed by {}",
        proven.index + 1,
        proven.size,
        key.name()
    )?;
    writeln!(
        context.out,
        "        {}  {} {} {} by {}",
        time(&value),
        field(&value, "phase"),
        field(&value, "action"),
        field(&value, "resource"),
        field(&value, "user")
    )?;
    Ok(())
}
