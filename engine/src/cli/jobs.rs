//! `blockhost jobs`: what the engine has done, does and gave up.

use crate::outbox::{JobState, JobView, Outbox, OutboxError};
use blockhost_proto::layout::Layout;
use clap::{Args, Subcommand, ValueEnum};

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

Exit codes: 0 done; 1 failed, or there is no such job, or it is not parked; 2 wrong usage.

Examples:
  blockhost jobs
  blockhost jobs list --state parked --json
  blockhost jobs show 17
  blockhost jobs retry 17";

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
    /// Let a parked job run again, from the step where it stopped
    #[command(after_help = EXAMPLES)]
    Retry {
        /// Its number
        id: i64,
    },
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
///
/// # Errors
/// [`OutboxError`].
pub fn run(args: JobsArgs, layout: &Layout) -> Result<(), OutboxError> {
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
    }
    Ok(())
}

fn print_json(value: &impl serde::Serialize) {
    say!("{}", serde_json::json!(value));
}

fn print_table(jobs: &[JobView]) {
    say!("ID\tSTATE\tEVENT\tSUBSCRIPTION\tBLOCK\tATTEMPTS\tERROR");
    for job in jobs {
        let error = job
            .last_error
            .as_deref()
            .unwrap_or("")
            .replace(['\t', '\n'], " ");
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
    if job.state == JobState::Pending && job.not_before_ms > 0 {
        say!("next attempt  {}", time(job.not_before_ms));
    }
    if let Some(error) = &job.last_error {
        say!("last error    {error}");
    }
}
