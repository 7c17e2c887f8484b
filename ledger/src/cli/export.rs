//! `blockhost ledger export`: the history as files that others' tools read.

use super::context::{Context, Failure};
use super::progress;
use crate::dir::LedgerDir;
use crate::export::{ExportError, Exported, to_blocks, to_c2sp, to_jsonl};
use serde_json::json;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Options of `export`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger export --c2sp /srv/ledger       a static tlog-tiles log; again later: only what is new
  blockhost ledger export --blocks /mnt/copy       block files with 256 records each, and their index
  blockhost ledger export --jsonl | jq .action     a line for each record

Files get the rights of the directory: a new one is readable by you and your group. Whoever may read an export reads
every record in it.")]
#[command(group(clap::ArgGroup::new("to").args(["c2sp", "blocks", "jsonl"]).required(true)))]
pub struct Args {
    /// A static C2SP tlog-tiles directory: checkpoint, tiles, entries
    #[arg(long, value_name = "DIR")]
    c2sp: Option<PathBuf>,
    /// The block files and index.json
    #[arg(long, value_name = "DIR")]
    blocks: Option<PathBuf>,
    /// One JSON object a line, the record and its hash; standard output without FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    jsonl: Option<PathBuf>,
    /// Print what was done as JSON (not with --jsonl on standard output)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let ledger = context.ledger()?;
    let reader = context.reader()?;
    let bar = progress::bar("exporting records");
    let mut progress = |done, total| bar.told(done, total);
    let (done, place) = if let Some(dir) = &args.c2sp {
        // The published checkpoint may carry cosignatures; what was signed is checked before it is passed on.
        let cosigned = ledger
            .read(crate::dir::CHECKPOINT, 64 * 1024)
            .ok()
            .flatten();
        let cosigned = cosigned.and_then(|bytes| String::from_utf8(bytes).ok());
        let cosigned = match (reader.epochs(), cosigned) {
            (Some(epochs), Some(note)) => epochs.open(&note).is_ok().then_some(note),
            _ => None,
        };
        let target = target(dir)?;
        (
            to_c2sp(&reader, &target, cosigned.as_deref(), &mut progress),
            dir,
        )
    } else if let Some(dir) = &args.blocks {
        (to_blocks(&reader, &target(dir)?, &mut progress), dir)
    } else if let Some(file) = args.jsonl.as_ref().filter(|file| **file != Path::new("-")) {
        (
            into_file(file, |out| to_jsonl(&reader, out, &mut progress)),
            file,
        )
    } else {
        let written = to_jsonl(&reader, context.out, &mut progress);
        bar.done();
        return written.map(|_| ()).map_err(Failure::from);
    };
    bar.done();
    let done = done?;
    if args.json {
        return context.json(&json!(done));
    }
    Ok(writeln!(
        context.out,
        "{}: {} records, {} of them new; {} file(s) with {} bytes written",
        place.display(),
        done.records,
        done.new_records,
        done.files,
        done.bytes
    )?)
}

/// The directory to write into, made (for owner and group) when it is missing.
fn target(dir: &Path) -> Result<LedgerDir, Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    match std::fs::DirBuilder::new().mode(0o750).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(Failure::Unreadable(format!(
                "cannot make {}: {error}",
                dir.display()
            )));
        }
    }
    LedgerDir::open(dir).map_err(|error| ExportError::from(error).into())
}

/// Writes a file whole or not at all.
fn into_file(
    file: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<Exported, ExportError>,
) -> Result<Exported, ExportError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let written = (|| {
        let mut options = std::fs::OpenOptions::new();
        let made = options
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&temporary)?;
        let mut out = BufWriter::new(made);
        let mut done = write(&mut out)?;
        out.get_ref().sync_all()?;
        std::fs::rename(&temporary, file)?;
        done.files = 1;
        Ok(done)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Read(error) => error.into(),
            ExportError::Write(error) => error.into(),
            ExportError::Shorter { .. } | ExportError::Foreign { .. } => {
                Self::NotVerified(error.to_string())
            }
            other => Self::Unreadable(other.to_string()),
        }
    }
}
