//! `blockhost ledger witnesses`: who has cosigned how much of this ledger, and when; loud when it is not enough.

use super::context::{Context, Failure, read_text};
use super::verify::read_policy;
use crate::note::Checkpoint;
use crate::reader::ReadError;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Options of `witnesses`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger witnesses
  blockhost ledger witnesses --json | jq .enough

Exit codes: 0 enough witnesses cosigned, 1 not enough (or never), 3 something cannot be read.")]
pub struct Args {
    /// The witnesses, and how many are enough (C2SP tlog-policy)
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/blockhost/ledger-witnesses"
    )]
    policy: PathBuf,
    /// Look at this cosigned checkpoint instead of the one beside the ledger
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let policy = read_policy(&args.policy)?;
    let reader = context.reader()?;
    let size = reader.size();
    let note = match &args.checkpoint {
        Some(file) => Some(read_text(file, "checkpoint")?),
        None => context.ledger()?.cosigned().map_err(ReadError::from)?,
    };
    let unreadable = |error: crate::note::NoteError| Failure::Unreadable(error.to_string());
    let note = note.as_deref();
    // A head of another log, or one that the log never signed, counts for nothing here.
    let own = |note: &&str| reader.epochs().is_some_and(|keys| keys.open(note).is_ok());
    let head = note
        .filter(own)
        .map(Checkpoint::parse_unverified)
        .transpose()
        .map_err(unreadable)?;
    let count = note
        .filter(own)
        .map(|note| policy.check(note))
        .transpose()
        .map_err(unreadable)?;
    let cosigned = head.as_ref().map_or(0, |head| head.size);
    let behind = size.saturating_sub(cosigned);
    let found = count.as_ref().map(|count| count.found.as_slice());
    let witnesses = policy.witnesses().iter().enumerate();
    let lines: Vec<(String, Option<u64>)> = witnesses
        .map(|(at, witness)| {
            let found = found.and_then(|found| found.get(at)?.as_ref());
            (witness.name.clone(), found.map(|found| found.time_s))
        })
        .collect();
    let enough = count.is_some_and(|count| count.enough);
    if args.json {
        let list: Vec<Value> = lines
            .iter()
            .map(|(name, time_s)| json!({"name": name, "time_s": time_s}))
            .collect();
        context.json(&json!({
            "enough": enough, "cosigned": cosigned, "records": size, "behind": behind, "witnesses": list,
        }))?;
    } else {
        for (name, time_s) in lines {
            let when = time_s
                .and_then(|time_s| jiff::Timestamp::from_second(i64::try_from(time_s).ok()?).ok());
            let when = when.map_or_else(|| "not this head".to_owned(), |when| when.to_string());
            writeln!(context.out, "{name:<16}  {when}")?;
        }
        writeln!(
            context.out,
            "{cosigned} of {size} records are cosigned; {behind} stand on this host's word alone"
        )?;
    }
    if enough {
        return Ok(());
    }
    Err(Failure::NotVerified(
        "not enough witnesses have cosigned a head of this ledger".to_owned(),
    ))
}
