//! `blockhost funds`: what the funds manager did, does, and would do now.

use super::{fail, runtime};
use crate::config::{Config, SetupError};
use crate::funds::step::{Outcome, Step};
use crate::funds::teller::{self, FundsError};
use crate::funds::{Forecast, Manager};
use crate::outbox::{Order, Outbox, OutboxError, StepRow};
use crate::wallets::{Book, BookError};
use blockhost_proto::layout::Layout;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::watch;

/// The host's money.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct FundsArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Print a JSON object
    #[arg(long, global = true)]
    json: bool,
}

const EXAMPLES: &str = "\
Exit codes: 0 done; 1 failed: what was begun is gone on with by the engine, or by the next run.

Examples:
  blockhost funds
  blockhost funds status --json
  blockhost funds run --dry-run
  blockhost funds run";

#[derive(Debug, Subcommand)]
enum Verb {
    /// The newest orders with their transactions (the default)
    #[command(after_help = EXAMPLES)]
    Status {
        /// At most so many
        #[arg(long, default_value_t = 10)]
        limit: u64,
    },
    /// Go on with what was begun, buy gas where it is low, and do a round now
    #[command(after_help = EXAMPLES)]
    Run {
        /// Say what would be done, do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Funds(Box<FundsError>),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Book(#[from] BookError),
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
}

impl From<FundsError> for Failure {
    fn from(error: FundsError) -> Self {
        Self::Funds(Box::new(error))
    }
}

/// Runs the command.
#[must_use]
pub fn run(args: &FundsArgs, layout: &Layout) -> ExitCode {
    match act(args, layout) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail("blockhost", &e),
    }
}

fn act(args: &FundsArgs, layout: &Layout) -> Result<(), Failure> {
    let config = Config::load(layout).map_err(SetupError::from)?;
    let book = Book::load(layout)?;
    let chain_id = config.web3.blockchain.chain_id;
    let outbox = Arc::new(Outbox::open_to_send(&Outbox::path(layout))?);
    match args.verb {
        None => status(&outbox, &book, chain_id, 10, args.json),
        Some(Verb::Status { limit }) => status(&outbox, &book, chain_id, limit, args.json),
        Some(Verb::Run { dry_run }) => {
            crate::failpoint::arm();
            let (_running, stop) = watch::channel(false);
            let mut manager = Manager::new(config, outbox.clone(), stop)?;
            let runtime = runtime()?;
            if dry_run {
                let forecast = runtime.block_on(manager.forecast())?;
                tell(&forecast, &book, args.json);
                return Ok(());
            }
            let newest = outbox.recent_orders(chain_id, 1)?;
            let before = newest.first().map_or(0, |order| order.id);
            let done = runtime.block_on(manager.look(true));
            let orders = outbox.recent_orders(chain_id, 100)?;
            let new = orders.into_iter().filter(|order| order.id > before);
            show(&outbox, &Book::load(layout)?, new.collect(), args.json)?;
            Ok(done?)
        }
    }
}

fn status(
    outbox: &Outbox,
    book: &Book,
    chain_id: u64,
    limit: u64,
    as_json: bool,
) -> Result<(), Failure> {
    show(
        outbox,
        book,
        outbox.recent_orders(chain_id, limit)?,
        as_json,
    )
}

fn show(outbox: &Outbox, book: &Book, orders: Vec<Order>, as_json: bool) -> Result<(), Failure> {
    let mut all = Vec::with_capacity(orders.len());
    for order in orders {
        let rows = outbox.steps_of(order.id)?;
        let mut steps = Vec::with_capacity(rows.len());
        for row in rows {
            let step = teller::parse(&row)?;
            steps.push((row, step));
        }
        all.push((order, steps));
    }
    if as_json {
        let orders: Vec<Value> = all.iter().map(|(order, steps)| of(order, steps)).collect();
        say!("{}", json!({ "orders": orders }));
        return Ok(());
    }
    for (order, steps) in &all {
        let since = jiff::Timestamp::from_millisecond(order.created_ms)
            .map_or_else(|_| order.created_ms.to_string(), |time| time.to_string());
        say!(
            "order {}\t{}\t{}\t{since}",
            order.id,
            order.kind,
            order.state.name()
        );
        if let Some(detail) = &order.detail {
            say!("  {}", detail.escape_debug());
        }
        for (row, step) in steps {
            say!("  {}\t{}", row.state.name(), step.describe(book));
            if let Some(outcome) = outcome(row) {
                say!("    transaction {} in block {}", outcome.tx, outcome.block);
            }
            if let Some(error) = &row.last_error {
                say!("    {}", error.escape_debug());
            }
        }
    }
    Ok(())
}

fn outcome(row: &StepRow) -> Option<Outcome> {
    serde_json::from_str(row.outcome.as_deref()?).ok()
}

fn of(order: &Order, steps: &[(StepRow, Step)]) -> Value {
    let steps: Vec<Value> = steps
        .iter()
        .map(|(row, step)| {
            let mut value = step.json();
            value["state"] = row.state.name().into();
            value["attempts_failed"] = row.attempt.into();
            value["recorded"] = row.recorded.into();
            value["error"] = row.last_error.clone().into();
            if let (Some(value), Some(Value::Object(more))) =
                (value.as_object_mut(), outcome(row).map(|one| one.json()))
            {
                value.extend(more);
            }
            value
        })
        .collect();
    json!({
        "order": order.id, "kind": order.kind, "state": order.state.name(), "stage": order.stage,
        "detail": order.detail, "created_ms": order.created_ms, "ended_ms": order.ended_ms, "steps": steps,
    })
}

fn tell(forecast: &Forecast, book: &Book, as_json: bool) {
    let parts = [
        ("gas", &forecast.gas),
        ("withdrawals", &forecast.withdrawals),
        ("payments", &forecast.payments),
    ];
    if as_json {
        let mut value = json!({
            "dry_run": true, "makes_hot_wallet": forecast.makes_hot, "notes": forecast.notes,
        });
        for (name, steps) in parts {
            value[name] = steps.iter().map(Step::json).collect();
        }
        say!("{value}");
        return;
    }
    if forecast.makes_hot {
        say!("would: make the wallet hot");
    }
    for (_, steps) in parts {
        for step in steps {
            say!("would: {}", step.describe(book));
        }
    }
    for note in &forecast.notes {
        say!("note: {note}");
    }
}
