//! `blockhost ledger prove`: a file that proves one record to anybody.

use super::context::{Context, Failure, height};
use crate::compact::pack;
use crate::proof::TlogProof;
use std::path::PathBuf;

/// Options of `prove`.
#[derive(Debug, Clone, clap::Args)]
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
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let with_record = !args.bare && !args.compact;
    let proof = context.reader()?.prove(args.height - 1, with_record)?;
    let Some(file) = &args.output else {
        return Ok(context.out.write_all(proof.as_bytes())?);
    };
    let proof = if args.compact {
        let packed = TlogProof::parse(&proof).ok().and_then(|proof| pack(&proof));
        packed.ok_or_else(|| Failure::Unreadable("the head has no plain signature".to_owned()))?
    } else {
        proof.into_bytes()
    };
    std::fs::write(file, proof).map_err(|error| {
        Failure::Unreadable(format!("cannot write {}: {error}", file.display()))
    })?;
    Ok(writeln!(
        context.out,
        "{}: proof of record {}",
        file.display(),
        args.height
    )?)
}
