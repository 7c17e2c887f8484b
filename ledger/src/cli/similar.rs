//! `blockhost ledger similar`: past operations like this one, and how they ended.

use super::context::{Context, Failure, height};
use super::replay::{replay, up_to};
use super::text::{field, time};
use crate::features::{Generations, History};
use crate::similar::{Ending, Like, Operations};
use serde_json::{Value, json};

/// Options of `similar`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger similar 4711          the ten operations before it that were most like it
  blockhost ledger similar 4711 -n 50 --json")]
pub struct Args {
    /// Height of the record, from 1: an intent or an event
    #[arg(value_name = "HEIGHT", value_parser = height())]
    height: u64,
    /// How many
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    most: usize,
    /// Print one JSON object: the operations and how they ended
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let reader = context.reader()?;
    let index = up_to(&reader, Some(args.height))? - 1;
    let mut features = Generations::<History>::new(0);
    let mut operations = Operations::default();
    // To the end: how what began before ended may stand behind the record.
    let size = reader.size();
    replay(&reader, 0, size, "comparing", |index, record| {
        let vector = features.push(record);
        operations.push(index, record, &vector);
    })?;
    let Some(like) = operations.like(index, args.most) else {
        return Err(Failure::Usage(format!(
            "record {} is an outcome; give the height of its intent, which `blockhost ledger show {}` tells",
            args.height, args.height
        )));
    };
    let mut found = Vec::new();
    for like in like {
        let record: Value = serde_json::from_slice(&reader.get(like.index)?).unwrap_or_default();
        found.push((like, record));
    }
    let count = |ending| {
        found
            .iter()
            .filter(|(like, _)| like.ending == ending)
            .count()
    };
    let (ok, failed, unknown) = (
        count(Ending::Ok),
        count(Ending::Failed),
        count(Ending::Unknown),
    );
    if args.json {
        let list: Vec<Value> = found.iter().map(as_json).collect();
        return context.json(&json!({"height": args.height, "similar": list, "ok": ok, "failed": failed, "unknown": unknown}));
    }
    for (like, record) in &found {
        writeln!(
            context.out,
            "{:>7}  {}  {:<7}  {:<16}  {:<16}  {:<12}  distance {}",
            like.index + 1,
            time(record),
            like.ending.as_str(),
            field(record, "action"),
            field(record, "resource"),
            field(record, "user"),
            like.distance,
        )?;
    }
    match ok + failed {
        0 => writeln!(
            context.out,
            "{} alike; of none is known how it ended",
            found.len()
        )?,
        known => writeln!(
            context.out,
            "{failed} of {known} failed ({}%){}",
            failed * 100 / known,
            if unknown > 0 {
                format!("; {unknown} unknown")
            } else {
                String::new()
            }
        )?,
    }
    Ok(())
}

fn as_json((like, record): &(Like, Value)) -> Value {
    json!({
        "height": like.index + 1,
        "distance": like.distance,
        "ended": like.ending.as_str(),
        "timestamp": record["timestamp"],
        "action": record["action"],
        "resource": record["resource"],
        "user": record["user"],
    })
}
