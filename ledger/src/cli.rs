//! The commands `blockhost ledger ...`: head, list, show, verify, prove, verify-proof. The engine mounts them and says
//! where the ledger is; everything here reads only. Exit codes: 0 good, 1 not verified, 2 usage, 3 cannot be read.

use crate::dir::LedgerDir;
use crate::merkle::{hex, leaf_hash};
use crate::note::Vkey;
use crate::proof::{MAX_PROOF_BYTES, verify_proof};
use crate::reader::{ReadError, Reader};
use crate::verify::{Trust, VerifyReport, verify};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::{IsTerminal as _, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `blockhost ledger`: look at the history of everything privileged, verify it, and prove parts of it to others.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  blockhost ledger list                      the last 20 records
  blockhost ledger verify --key ledger.vkey  check everything against the key you keep elsewhere
  blockhost ledger prove 42 -o 42.tlog-proof a file that proves record 42 to anybody
  blockhost ledger verify-proof 42.tlog-proof --key ledger.vkey

Exit codes: 0 good, 1 not verified, 2 wrong usage, 3 the ledger or file cannot be read.")]
pub struct LedgerArgs {
    /// Another ledger directory, for example a copy or a backup
    #[arg(long, global = true, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub command: LedgerCommand,
}

/// The verbs of `blockhost ledger`.
#[derive(Debug, Clone, Subcommand)]
pub enum LedgerCommand {
    /// Show the signed head: how many records, which root
    Head {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List records, newest last
    List {
        /// How many of the newest that match
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
        last: usize,
        /// From this height on
        #[arg(long, value_name = "HEIGHT", value_parser = clap::value_parser!(u64).range(1..))]
        from: Option<u64>,
        /// Only this action
        #[arg(long)]
        action: Option<String>,
        /// Only this phase (intent, outcome, event, recovery, ...)
        #[arg(long)]
        phase: Option<String>,
        /// Only this resource
        #[arg(long)]
        resource: Option<String>,
        /// Only this user
        #[arg(long)]
        user: Option<String>,
        /// Print one JSON object a line: the record and its hash
        #[arg(long)]
        json: bool,
    },
    /// Show one record
    Show {
        /// Height of the record, from 1
        #[arg(value_name = "HEIGHT", value_parser = clap::value_parser!(u64).range(1..))]
        height: u64,
        /// Print the record's exact bytes, the ones that are hashed
        #[arg(long)]
        raw: bool,
    },
    /// Check everything: checksums, chain, tree, signatures, checkpoint, block files
    Verify {
        /// The verifier key, or a file with it. Without it the copy beside the ledger is used, which whoever can
        /// rewrite the ledger can replace
        #[arg(long, value_name = "VKEY")]
        key: Option<String>,
        /// A checkpoint kept elsewhere: detects truncation, rollback and rewriting
        #[arg(long, value_name = "FILE")]
        trusted_checkpoint: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a .tlog-proof of one record, which verifies offline
    Prove {
        /// Height of the record, from 1
        #[arg(value_name = "HEIGHT", value_parser = clap::value_parser!(u64).range(1..))]
        height: u64,
        /// Write to this file instead of standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Leave the record itself out of the file
        #[arg(long)]
        bare: bool,
    },
    /// Verify a .tlog-proof offline, with nothing but the key
    VerifyProof {
        /// The proof, `-` for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The verifier key you trust, or a file with it
        #[arg(long, value_name = "VKEY")]
        key: String,
        /// The record's exact bytes, when the proof does not carry them or to compare with your own copy
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// The definition as a command of its own, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    LedgerArgs::augment_args(
        clap::Command::new("ledger")
            .about("Look at the history of everything privileged, verify it, prove parts of it"),
    )
}

/// Why a command ends without its answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    NotVerified(String),
    #[error("{0}")]
    Unreadable(String),
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged(_) | ReadError::Changed { .. } => {
                Self::NotVerified(error.to_string())
            }
            ReadError::File(error) if error.errno() == Some(rustix::io::Errno::ACCESS) => {
                Self::Unreadable(format!(
                    "cannot {error}; readers must be root or in the group blockhost"
                ))
            }
            other => Self::Unreadable(other.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Unreadable(format!("cannot write the answer: {error}"))
    }
}

/// Runs a command on the ledger in `default_dir` (or `--dir`); prints to standard output, errors to standard error.
#[must_use]
pub fn run(args: LedgerArgs, default_dir: &Path) -> ExitCode {
    let dir = args.dir.clone().unwrap_or_else(|| default_dir.to_owned());
    let out = &mut std::io::stdout().lock();
    let result = match args.command {
        LedgerCommand::Head { json } => head(out, &dir, json),
        LedgerCommand::List {
            last,
            from,
            action,
            phase,
            resource,
            user,
            json,
        } => {
            let filters = [
                ("action", action),
                ("phase", phase),
                ("resource", resource),
                ("user", user),
            ];
            list(out, &dir, last, from, &filters, json)
        }
        LedgerCommand::Show { height, raw } => show(out, &dir, height, raw),
        LedgerCommand::Verify {
            key,
            trusted_checkpoint,
            json,
        } => verify_all(
            out,
            &dir,
            key.as_deref(),
            trusted_checkpoint.as_deref(),
            json,
        ),
        LedgerCommand::Prove {
            height,
            output,
            bare,
        } => prove(out, &dir, height, output.as_deref(), bare),
        LedgerCommand::VerifyProof {
            file,
            key,
            record,
            json,
        } => check_proof(out, &file, &key, record.as_deref(), json),
    };
    match result.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = if matches!(failure, Failure::NotVerified(_)) {
                1
            } else {
                3
            };
            let _ = writeln!(std::io::stderr(), "blockhost ledger: {failure}");
            ExitCode::from(code)
        }
    }
}

fn open(dir: &Path) -> Result<LedgerDir, Failure> {
    LedgerDir::open(dir).map_err(|error| ReadError::from(error).into())
}

fn head(out: &mut dyn Write, dir: &Path, json: bool) -> Result<(), Failure> {
    let head = Reader::open(open(dir)?, None)?.head()?;
    if json {
        writeln!(
            out,
            "{}",
            json!({"records": head.size, "root": hex(&head.root), "checkpoint": head.note})
        )?;
    } else {
        write!(out, "{}", head.note)?;
    }
    Ok(())
}

fn list(
    out: &mut dyn Write,
    dir: &Path,
    last: usize,
    from: Option<u64>,
    filters: &[(&str, Option<String>)],
    json: bool,
) -> Result<(), Failure> {
    let reader = Reader::open(open(dir)?, None)?;
    let mut picked = Vec::new();
    // From the end: the newest are wanted, and old ones need not be read for them.
    for item in reader.records(from.unwrap_or(1) - 1).rev() {
        if picked.len() == last {
            break;
        }
        let (_, bytes) = item?;
        let record: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let wanted = |(key, value): &(&str, Option<String>)| {
            value.as_deref().is_none_or(|value| record[*key] == *value)
        };
        if filters.iter().all(wanted) {
            picked.push((bytes, record));
        }
    }
    for (bytes, record) in picked.into_iter().rev() {
        if json {
            out.write_all(bytes.strip_suffix(b"}").unwrap_or(&bytes))?;
            writeln!(out, ",\"hash\":\"{}\"}}", hex(&leaf_hash(&bytes)))?;
            continue;
        }
        let text = |key: &str| printable(record[key].as_str().unwrap_or_default());
        writeln!(
            out,
            "{:>7}  {}  {:<8}  {:<16}  {:<16}  {}",
            record["height"].as_u64().unwrap_or_default(),
            time(&record),
            text("phase"),
            text("action"),
            text("resource"),
            text("user"),
        )?;
    }
    Ok(())
}

fn show(out: &mut dyn Write, dir: &Path, height: u64, raw: bool) -> Result<(), Failure> {
    let bytes = Reader::open(open(dir)?, None)?.get(height - 1)?;
    if raw {
        out.write_all(&bytes)?;
        return Ok(());
    }
    let mut record: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    record["hash"] = json!(hex(&leaf_hash(&bytes)));
    let pretty = serde_json::to_string_pretty(&record).map_err(std::io::Error::from)?;
    // JSON escapes what a terminal would obey, except U+0080 to U+009F.
    let shown: String = pretty
        .chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    writeln!(out, "{shown}")?;
    Ok(())
}

fn verify_all(
    out: &mut dyn Write,
    dir: &Path,
    key: Option<&str>,
    checkpoint: Option<&Path>,
    json: bool,
) -> Result<(), Failure> {
    let ledger = open(dir)?;
    let trust = Trust {
        key: key.map(read_key).transpose()?,
        checkpoint: checkpoint
            .map(|file| read_text(file, "checkpoint"))
            .transpose()?,
    };
    let started = std::time::Instant::now();
    let bar = (!json && std::io::stderr().is_terminal()).then(|| {
        let style = indicatif::ProgressStyle::with_template(
            "verifying {bar:30} {bytes}/{total_bytes} {eta}",
        );
        let bar = indicatif::ProgressBar::new(0);
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar
    });
    let report = verify(&ledger, &trust, &mut |done, total| {
        if let Some(bar) = &bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let report = report?;
    let seconds = started.elapsed();
    if json {
        let mut value = serde_json::to_value(&report).map_err(std::io::Error::from)?;
        value["milliseconds"] = json!(u64::try_from(seconds.as_millis()).unwrap_or(u64::MAX));
        writeln!(out, "{value}")?;
    } else {
        print_report(out, &report)?;
    }
    match report.problems.first() {
        None => Ok(()),
        Some(first) => {
            let height = first
                .height
                .map_or(String::new(), |height| format!(" from height {height}"));
            Err(Failure::NotVerified(format!(
                "not verified{height}: {} problem(s)",
                report.problems.len()
            )))
        }
    }
}

fn print_report(out: &mut dyn Write, report: &VerifyReport) -> std::io::Result<()> {
    for problem in &report.problems {
        let height = problem
            .height
            .map_or(String::new(), |height| format!("height {height}: "));
        writeln!(out, "WRONG  {height}{}: {}", problem.place, problem.what)?;
    }
    for note in &report.notes {
        writeln!(out, "note   {note}")?;
    }
    writeln!(
        out,
        "{}  {} records, {} commits, {} segment(s), {} block file(s); root {}",
        if report.ok { "good " } else { "WRONG" },
        report.records,
        report.commits,
        report.segments,
        report.blocks,
        report.root
    )?;
    if let Some(key) = &report.key {
        writeln!(out, "key    {key}")?;
    }
    Ok(())
}

fn prove(
    out: &mut dyn Write,
    dir: &Path,
    height: u64,
    output: Option<&Path>,
    bare: bool,
) -> Result<(), Failure> {
    let proof = Reader::open(open(dir)?, None)?.prove(height - 1, !bare)?;
    match output {
        None => out.write_all(proof.as_bytes())?,
        Some(file) => {
            std::fs::write(file, proof).map_err(|error| {
                Failure::Unreadable(format!("cannot write {}: {error}", file.display()))
            })?;
            writeln!(out, "{}: proof of record {height}", file.display())?;
        }
    }
    Ok(())
}

fn check_proof(
    out: &mut dyn Write,
    file: &Path,
    key: &str,
    record: Option<&Path>,
    json: bool,
) -> Result<(), Failure> {
    let key = read_key(key)?;
    let text = read_text(file, "proof")?;
    let record = record.map(|file| read_file(file, "record")).transpose()?;
    let proven = match verify_proof(&text, record.as_deref(), &key) {
        Ok(proven) => proven,
        Err(error) => {
            if json {
                writeln!(out, "{}", json!({"ok": false, "error": error.to_string()}))?;
            }
            return Err(Failure::NotVerified(format!("not proved: {error}")));
        }
    };
    let value: Value = serde_json::from_slice(&proven.record).unwrap_or_default();
    if json {
        let answer = json!({
            "ok": true, "height": proven.index + 1, "index": proven.index, "records": proven.size,
            "root": hex(&proven.root), "leaf": hex(&leaf_hash(&proven.record)), "record": value,
        });
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    let text = |name: &str| printable(value[name].as_str().unwrap_or_default());
    writeln!(
        out,
        "proved: record {} of the {} records signed by {}",
        proven.index + 1,
        proven.size,
        key.name()
    )?;
    writeln!(
        out,
        "        {}  {} {} {} by {}",
        time(&value),
        text("phase"),
        text("action"),
        text("resource"),
        text("user")
    )?;
    Ok(())
}

/// A key given as text or as a file that has it on its last line.
fn read_key(given: &str) -> Result<Vkey, Failure> {
    if let Ok(key) = Vkey::parse(given) {
        return Ok(key);
    }
    let text = read_text(Path::new(given), "verifier key")?;
    let line = text
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or_default();
    Vkey::parse(line).map_err(|error| Failure::Unreadable(error.to_string()))
}

fn read_text(file: &Path, what: &str) -> Result<String, Failure> {
    String::from_utf8(read_file(file, what)?)
        .map_err(|_| Failure::Unreadable(format!("the {what} {} is not text", file.display())))
}

fn read_file(file: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    let fail = |error: std::io::Error| {
        Failure::Unreadable(format!(
            "cannot read the {what} {}: {error}",
            file.display()
        ))
    };
    let reader: Box<dyn std::io::Read> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(file).map_err(fail)?)
    };
    let mut bytes = Vec::new();
    reader
        .take(MAX_PROOF_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    Ok(bytes)
}

/// Nothing that a terminal would obey.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

fn time(record: &Value) -> String {
    let seconds = record["timestamp"].as_i64().unwrap_or_default();
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn height_zero_is_not_a_height() {
        for verb in ["show", "prove"] {
            assert!(
                command()
                    .try_get_matches_from(["ledger", verb, "0"])
                    .is_err()
            );
            assert!(
                command()
                    .try_get_matches_from(["ledger", verb, "1"])
                    .is_ok()
            );
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(printable("a\u{1b}[2J\u{9b}b"), "a\\u{1b}[2J\\u{9b}b");
    }
}
