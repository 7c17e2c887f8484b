//! `blockhost ledger prove`: a file that proves one record to anybody.

use super::context::{Context, Failure, height};
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
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let proof = context.reader()?.prove(args.height - 1, !args.bare)?;
    let Some(file) = &args.output else {
        return Ok(context.out.write_all(proof.as_bytes())?);
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
