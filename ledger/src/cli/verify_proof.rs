//! `blockhost ledger verify-proof`: a proof from somebody else, offline.

use super::context::{Context, Failure, read_file, read_keys};
use super::text::{field, time};
use crate::compact::{is_compact, unpack};
use crate::merkle::{hex, leaf_hash};
use crate::note::{NoteError, short_name};
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
    /// The verifier key you trust, best the newest only, or a file with the keys of the log, oldest first, one a line
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
    for (place, key) in keys.iter().enumerate().rev() {
        let verified = text.as_ref().map_err(Clone::clone);
        let verified = verified.and_then(|text| verify_proof(text, record.as_deref(), key));
        result = verified.map(|proven| (proven, place, key));
        if !matches!(
            result,
            Err(ProofError::Checkpoint(NoteError::NoSignature { .. }))
        ) {
            break;
        }
    }
    let (proven, place, key) = match result {
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
            "key": short_name(key), "key_number": place + 1, "keys": keys.len(),
        }));
    }
    writeln!(
        context.out,
        "proved: record {} of the {} records signed by {}",
        proven.index + 1,
        proven.size,
        short_name(key)
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
    if place + 1 < keys.len() {
        // How large its epoch was stands in the ledger only; nothing here shows that this head is not larger.
        writeln!(
            context.out,
            "warning: this is key {} of the {} given, one that was replaced: whoever got hold of it since could have made\n\
             this proof. Ask for a new one, and give --key the newest key only",
            place + 1,
            keys.len()
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Signer;
    use crate::merkle::root_of;
    use crate::note::Checkpoint;
    use crate::proof::TlogProof;

    #[test]
    fn it_says_which_key_signed_and_warns_of_one_that_was_replaced() {
        let dir = tempfile::tempdir().expect("temp dir");
        let signer = |seed| Signer::from_bytes("h/l", 1, &[seed; 32]).expect("valid");
        let (signed, other) = (signer(3), signer(9));
        let checkpoint = signed.sign_checkpoint(&Checkpoint {
            origin: "h/l".into(),
            size: 1,
            root: root_of(&[leaf_hash(b"{}")]),
        });
        let proof = TlogProof {
            extra: Some(b"{}".to_vec()),
            index: 0,
            path: Vec::new(),
            checkpoint,
        };
        let (file, keys) = (dir.path().join("proof"), dir.path().join("keys"));
        std::fs::write(&file, proof.to_string()).expect("write");
        for (list, number) in [([&other, &signed], 2), ([&signed, &other], 1)] {
            let list = format!("{}\n{}\n", list[0].vkey(), list[1].vkey());
            std::fs::write(&keys, list).expect("write");
            for json in [false, true] {
                let mut out = Vec::new();
                let mut context = Context {
                    dir: "/nonexistent".into(),
                    out: &mut out,
                    ask: None,
                };
                let args = Args {
                    file: file.clone(),
                    key: keys.display().to_string(),
                    record: None,
                    json,
                };
                run(&mut context, &args).expect("proved");
                let text = String::from_utf8(out).expect("text");
                assert!(text.contains(&short_name(signed.vkey())), "{text}");
                let told = if json {
                    text.contains(&format!("\"key_number\":{number}"))
                } else {
                    text.contains("was replaced") == (number == 1)
                };
                assert!(told, "{text}");
            }
        }
    }
}
