//! The commands `blockhost ledger ...`, a file per verb. The engine mounts them and says where the ledger is; everything
//! here reads only, unless a verb says otherwise. Exit codes: 0 good, 1 not verified, 2 usage, 3 cannot be read.
//!
//! A new verb: its file with `Args` and `run(&mut Context, Args)`, a line in [`LedgerCommand`], a line in [`dispatch`].

mod accept_loss;
mod anomalies;
#[cfg(feature = "age")]
mod blob;
mod checkpoint;
mod consistency;
mod context;
mod export;
mod grep;
mod head;
mod import;
mod list;
mod progress;
mod prove;
mod prune;
mod replay;
mod select;
mod show;
mod similar;
mod stats;
mod story;
mod table;
mod text;
mod verify;
mod verify_proof;
mod watch;
mod witnesses;

use clap::{Args, Subcommand};
use context::{Context, Failure};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `blockhost ledger`: look at the history of everything privileged, verify it, and prove parts of it to others.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  blockhost ledger list                      the last 20 records
  blockhost ledger watch                     what happens, as it happens
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
    Head(head::Args),
    /// List records, newest last
    List(list::Args),
    /// List records that contain a text, newest last
    Grep(grep::Args),
    /// Count: records by kind and user, their rate, their size on disk
    Stats(stats::Args),
    /// Keep, get back, list and erase confidential payloads
    #[cfg(feature = "age")]
    Blob(blob::Args),
    /// Show one record
    Show(show::Args),
    /// Watch what the root agent does, as it happens
    Watch(watch::Args),
    /// Tell what is unusual, a few findings a day, with reasons
    Anomalies(anomalies::Args),
    /// Find past operations like this one, and how they ended
    Similar(similar::Args),
    /// Show which witnesses have cosigned how much of this ledger
    Witnesses(witnesses::Args),
    /// Check everything: checksums, chain, tree, signatures, checkpoint, block files
    Verify(verify::Args),
    /// Say what of a damaged ledger is intact, and ask the agent to keep that and go on
    AcceptLoss(accept_loss::Args),
    /// Have the payloads of old records deleted; their hashes and every proof stay
    Prune(prune::Args),
    /// Write a .tlog-proof of one record, which verifies offline
    Prove(prove::Args),
    /// Verify a .tlog-proof offline, with nothing but the key
    VerifyProof(verify_proof::Args),
    /// Write the history as files for others' tools: C2SP tiles, block files, lines of JSON
    Export(export::Args),
    /// Write a file which shows that the history only grew since an earlier head
    Consistency(consistency::Args),
    /// Verify such a file offline, with nothing but the key
    VerifyConsistency(consistency::VerifyArgs),
    /// Take over the block files of an earlier program as events, through the agent
    Import(import::Args),
    /// Print the signed head to keep elsewhere, as text or as a QR code
    Checkpoint(checkpoint::Args),
}

/// The definition as a command of its own, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    LedgerArgs::augment_args(
        clap::Command::new("ledger")
            .about("Look at the history of everything privileged, verify it, prove parts of it"),
    )
}

fn dispatch(context: &mut Context, command: LedgerCommand) -> Result<(), Failure> {
    match command {
        LedgerCommand::Head(args) => head::run(context, &args),
        LedgerCommand::List(args) => list::run(context, &args),
        LedgerCommand::Grep(args) => grep::run(context, &args),
        LedgerCommand::Stats(args) => stats::run(context, &args),
        #[cfg(feature = "age")]
        LedgerCommand::Blob(args) => blob::run(context, &args),
        LedgerCommand::Show(args) => show::run(context, &args),
        LedgerCommand::Watch(args) => watch::run(context, &args),
        LedgerCommand::Anomalies(args) => anomalies::run(context, &args),
        LedgerCommand::Similar(args) => similar::run(context, &args),
        LedgerCommand::Verify(args) => verify::run(context, &args),
        LedgerCommand::AcceptLoss(args) => accept_loss::run(context, &args),
        LedgerCommand::Prune(args) => prune::run(context, &args),
        LedgerCommand::Witnesses(args) => witnesses::run(context, &args),
        LedgerCommand::Prove(args) => prove::run(context, &args),
        LedgerCommand::VerifyProof(args) => verify_proof::run(context, &args),
        LedgerCommand::Export(args) => export::run(context, &args),
        LedgerCommand::Consistency(args) => consistency::run(context, &args),
        LedgerCommand::VerifyConsistency(args) => consistency::verify(context, &args),
        LedgerCommand::Import(args) => import::run(context, &args),
        LedgerCommand::Checkpoint(args) => checkpoint::run(context, &args),
    }
}

/// Runs a command on the ledger in `default_dir` (or `--dir`); prints to standard output, errors to standard error.
#[must_use]
pub fn run(args: LedgerArgs, default_dir: &Path) -> ExitCode {
    run_with(args, default_dir, None)
}

/// Carries a request to the root agent: name of the action, parameters. The answer's fields, or a sentence.
pub type Ask<'a> = &'a dyn Fn(&str, &serde_json::Value) -> Result<serde_json::Value, String>;

/// The same with a way to the root agent, for the verbs that ask it for something.
#[must_use]
pub fn run_with(args: LedgerArgs, default_dir: &Path, ask: Option<Ask<'_>>) -> ExitCode {
    let dir = args.dir.unwrap_or_else(|| default_dir.to_owned());
    let mut out = std::io::stdout().lock();
    let mut context = Context {
        dir,
        out: &mut out,
        ask,
    };
    let result = dispatch(&mut context, args.command).and_then(|()| Ok(out.flush()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads us has seen enough (`list | head`): no complaint, as other tools do.
        Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(failure) => {
            // Names and reasons in it may come from files of others.
            let failure_text = text::printable(&failure.to_string());
            let _ = writeln!(std::io::stderr(), "blockhost ledger: {failure_text}");
            ExitCode::from(failure.code())
        }
    }
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
}
