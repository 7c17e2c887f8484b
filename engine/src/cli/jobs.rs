//! `blockhost jobs`: what the engine has done, does and gave up.

use super::{fail, runtime};
use crate::agent::{self, RecordError};
use crate::chain::ChainError;
use crate::config::{Config, SetupError};
use crate::monitor::{Again, MonitorError, read_again};
use crate::outbox::{JobState, JobView, Outbox, OutboxError};
use blockhost_proto::layout::Layout;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::process::ExitCode;

/// The engine's jobs.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct JobsArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

const EXAMPLES: &str = "\
A job is parked when it was tried engine.max_attempts times (blockhost.yaml), or when only a person can decide. Attempts that
failed because no node answers, gas is too dear, or database or agent are away do not count: they are repeated, at most 15
minutes apart.

Exit codes: 0 done; 1 failed, or there is no such job, or it is neither parked nor closed by hand; 2 wrong usage.

Examples:
  blockhost jobs
  blockhost jobs list --state parked --json
  blockhost jobs show 17
  blockhost jobs retry 17
  blockhost jobs close 17 --why 'refunded by hand'
  blockhost jobs read --from 5201000 --to 5202000";

/// A reason is a sentence, not a document.
const LONGEST_WHY: usize = 500;

#[derive(Debug, Subcommand)]
enum Verb {
    /// Jobs, newest first (the default)
    #[command(after_help = EXAMPLES)]
    List {
        /// Only those in this state
        #[arg(long, value_enum)]
        state: Option<StateArg>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u64,
    },
    /// One job with its steps
    #[command(after_help = EXAMPLES)]
    Show {
        /// Its number
        id: i64,
    },
    /// Let a job run again that is parked or was closed by hand, from the step where it stopped
    #[command(after_help = EXAMPLES)]
    Retry {
        /// Its number
        id: i64,
    },
    /// Close a parked job that is not to be done: those behind it go on. It is on record; what the job did stays
    #[command(after_help = EXAMPLES)]
    Close {
        /// Its number
        id: i64,
        /// Why, for those who read the job or the ledger later
        #[arg(long, value_parser = reason)]
        why: String,
    },
    /// Read blocks of the chain again, for a purchase that was not seen: what is known already stays as it is, and what is
    /// about subscriptions that are over is left out
    #[command(after_help = EXAMPLES)]
    Read {
        /// The first block
        #[arg(long)]
        from: u64,
        /// The last block; without it, the last one that the engine has read
        #[arg(long)]
        to: Option<u64>,
    },
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.len() > LONGEST_WHY || text.chars().any(char::is_control) {
        return Err(format!(
            "it is one line of 1 to {LONGEST_WHY} bytes, without control characters"
        ));
    }
    Ok(text.to_owned())
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    #[error("the job was not closed: {0}")]
    Record(#[from] RecordError),
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StateArg {
    Pending,
    Running,
    Done,
    Parked,
    Superseded,
}

impl From<StateArg> for JobState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Pending => Self::Pending,
            StateArg::Running => Self::Running,
            StateArg::Done => Self::Done,
            StateArg::Parked => Self::Parked,
            StateArg::Superseded => Self::Superseded,
        }
    }
}

/// Runs the command.
#[must_use]
pub fn run(args: JobsArgs, layout: &Layout) -> ExitCode {
    match act(args, layout) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail("blockhost", &e),
    }
}

fn act(args: JobsArgs, layout: &Layout) -> Result<(), Failure> {
    let outbox = Outbox::open_beside(&Outbox::path(layout))?;
    match args.verb.unwrap_or(Verb::List {
        state: None,
        limit: 50,
    }) {
        Verb::List { state, limit } => {
            let jobs = outbox.list(state.map(JobState::from), limit)?;
            if args.json {
                print_json(&jobs)
            } else {
                print_table(&jobs)
            }
        }
        Verb::Show { id } => {
            let job = outbox.show(id)?;
            if args.json {
                print_json(&job)
            } else {
                print_job(&job)
            }
        }
        Verb::Retry { id } => {
            outbox.retry(id)?;
            if args.json {
                print_json(&outbox.show(id)?)
            } else {
                eprintln!("job {id} will run again")
            }
        }
        Verb::Close { id, why } => {
            close(&outbox, layout, id, &why)?;
            if args.json {
                print_json(&outbox.show(id)?)
            } else {
                eprintln!("job {id} is closed")
            }
        }
        Verb::Read { from, to } => {
            let config = Config::load(layout).map_err(SetupError::from)?;
            let (chain, contract) = (config.chain()?, config.subscription_contract()?);
            let range = config.web3.blockchain.log_range();
            let reading = read_again(&chain, &outbox, contract, (from, to), range);
            let again = runtime()?.block_on(reading)?;
            if args.json {
                print_json(&again)
            } else {
                print_again(&again)
            }
        }
    }
    Ok(())
}

/// First the record: what is closed without one would be gone without a trace of who wanted it.
fn close(outbox: &Outbox, layout: &Layout, id: i64, why: &str) -> Result<(), Failure> {
    let job = outbox.show(id)?;
    if !job.is_parked() {
        let state = job.state;
        return Err(OutboxError::NotParked { id, state }.into());
    }
    let resource = match job.subscription_id {
        0 => format!("contract:{}", job.contract),
        subscription => format!("subscription:{subscription}"),
    };
    let data = json!({
        "job": id,
        "event": job.event,
        "event_tx": job.tx_hash,
        "chain_id": job.chain_id,
        "contract": job.contract,
        "steps": job.steps,
        "why": why,
    });
    let recording = agent::record(layout, "job-closed", &resource, data);
    runtime()?.block_on(recording)?;
    Ok(outbox.close(id, why)?)
}

fn print_again(again: &Again) {
    say!(
        "blocks {} to {}: {} events, {} new jobs",
        again.from,
        again.to,
        again.events,
        again.new
    );
    if !again.over.is_empty() {
        let over: Vec<String> = again.over.iter().map(u64::to_string).collect();
        say!("over, left out: subscriptions {}", over.join(", "));
    }
}

fn print_json(value: &impl serde::Serialize) {
    say!("{}", serde_json::json!(value));
}

fn print_table(jobs: &[JobView]) {
    say!("ID\tSTATE\tEVENT\tSUBSCRIPTION\tBLOCK\tATTEMPTS\tERROR");
    for job in jobs {
        let behind = job.behind.map(|other| format!("behind job {other}"));
        let said = [behind.as_deref(), job.last_error.as_deref()];
        let said: Vec<&str> = said.into_iter().flatten().collect();
        let error = said.join("; ").replace(['\t', '\n'], " ");
        let subscription = if job.subscription_id == 0 {
            "-".to_owned()
        } else {
            job.subscription_id.to_string()
        };
        say!(
            "{}\t{}\t{}\t{subscription}\t{}\t{}\t{error}",
            job.id,
            job.state,
            job.event,
            job.block_number,
            job.attempts
        );
    }
}

fn print_job(job: &JobView) {
    let time = |ms: i64| {
        jiff::Timestamp::from_millisecond(ms).map_or_else(|_| "-".to_owned(), |t| format!("{t:.0}"))
    };
    say!("job           {}", job.id);
    say!(
        "state         {}{}",
        job.state,
        if job.orphaned {
            " (its event is no longer on the chain)"
        } else {
            ""
        }
    );
    say!("event         {}", job.event);
    say!("subscription  {}", job.subscription_id);
    say!(
        "contract      {} on chain id {}",
        job.contract,
        job.chain_id
    );
    say!(
        "transaction   {} in block {}",
        job.tx_hash,
        job.block_number
    );
    let waits = match job.waits {
        0 => String::new(),
        waits => format!(", {waits} of them waited for something else and do not count"),
    };
    say!("attempts      {}{waits}", job.attempts);
    say!(
        "steps done    {}",
        if job.steps.is_empty() {
            "none".to_owned()
        } else {
            job.steps.join(", ")
        }
    );
    say!("since         {}", time(job.created_ms));
    say!("changed       {}", time(job.updated_ms));
    if let Some(other) = job.behind {
        say!("behind        job {other} of this subscription, which goes first");
    }
    if job.state == JobState::Pending && job.not_before_ms > 0 {
        say!("next attempt  {}", time(job.not_before_ms));
    }
    if let Some(error) = &job.last_error {
        say!("last error    {error}");
    }
}
