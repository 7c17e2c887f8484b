//! `blockhost ledger prune`: has the agent delete the payloads of old records, a segment at a time. Says before what would
//! go, and asks. Reads what could go from the ledger; what may go is the agent's to decide.

use super::context::{Context, Failure, ask, confirmed, height};
use super::{progress, select, text};
use crate::prune::{PRUNE, Prunable, prunable_segments};
use serde_json::json;

/// Options of `prune`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger prune --older-than 104w --dry-run       what would go; changes nothing
  blockhost ledger prune --older-than 104w --reason 'older than two years'
  blockhost ledger prune --before 1310721 --reason 'archived on tape 7' --yes

Whole segments go, 65 536 records each, the oldest first, never the newest two. Hashes, signatures and every proof stay, and
so does what a start needs. What is gone is gone: export or back up before what somebody may want to read. The agent keeps
what is younger than limits.ledger_retention_days in its policy, whoever asks.

Exit codes: 0 done (or nothing to do), 1 refused, 2 wrong usage, 3 the ledger or the agent cannot be reached.")]
#[command(group(clap::ArgGroup::new("what").args(["older_than", "before"]).required(true).multiple(true)))]
pub struct Args {
    /// Only records older than that: 90d, 52w, 2024-12-31
    #[arg(long, value_name = "TIME", value_parser = select::moment)]
    older_than: Option<i64>,
    /// Only records below that height
    #[arg(long, value_name = "HEIGHT", value_parser = height())]
    before: Option<u64>,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What of these the options cover: the oldest, up to the first that has to stay. A time that is yet to come says nothing: what
/// has one is as old as what comes behind it, at least.
fn covered<'a>(parts: &'a [Prunable], args: &Args, now: i64) -> &'a [Prunable] {
    let below = args.before.unwrap_or(u64::MAX);
    let not_after = args
        .older_than
        .map_or(i64::MAX, |us| us.div_euclid(1_000_000));
    let is_old = |part: &Prunable| part.timestamp <= not_after;
    let stays = |part: &Prunable| part.last >= below || !(is_old(part) || part.timestamp > now);
    let end = parts.iter().position(stays).unwrap_or(parts.len());
    let last = parts[..end].iter().rposition(is_old);
    &parts[..last.map_or(0, |last| last + 1)]
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let parts = prunable_segments(&context.ledger()?)
        .map_err(|error| Failure::Unreadable(error.to_string()))?;
    let now = jiff::Timestamp::now().as_second();
    let plan = covered(&parts, args, now);
    let records: u64 = plan.iter().map(|part| part.last - part.first + 1).sum();
    let bytes: u64 = plan.iter().map(|part| part.bytes).sum();
    if args.json && (args.dry_run || plan.is_empty()) {
        return context.json(&json!({"parts": plan, "records": records, "bytes": bytes}));
    }
    let Some(last) = plan.last() else {
        return Ok(writeln!(context.out, "nothing to prune")?);
    };
    if !args.json {
        show(context, plan, (records, bytes))?;
    }
    let Some(reason) = args.reason.as_ref().filter(|_| !args.dry_run) else {
        return Ok(writeln!(context.out, "nothing was changed")?);
    };
    let question = format!("Delete the payloads of these {records} records for good?");
    if !args.yes && !confirmed(&question, &records.to_string())? {
        return Err(Failure::NotVerified("nothing was changed".to_owned()));
    }
    let params = json!({"before": last.last + 1, "reason": reason});
    let bar = progress::bar("pruning segments");
    let mut done = 0;
    let mut freed = 0;
    while done < plan.len() {
        bar.told(done as u64, plan.len() as u64);
        let answer = ask(context, PRUNE, &params).map_err(|failure| {
            Failure::NotVerified(format!(
                "{failure}; {done} of {} segments were pruned",
                plan.len()
            ))
        })?;
        done += 1;
        freed += answer["bytes"].as_u64().unwrap_or(0);
        if args.json {
            context.json(&answer)?;
        }
        // Somebody else may have pruned some of them meanwhile.
        if answer["left"].as_u64() == Some(0) {
            break;
        }
    }
    bar.done();
    if args.json {
        return Ok(());
    }
    let freed = text::bytes(freed);
    Ok(writeln!(
        context.out,
        "{done} segment(s) pruned, {freed} freed; block files of these records are gone, too"
    )?)
}

fn show(
    context: &mut Context,
    plan: &[Prunable],
    (records, bytes): (u64, u64),
) -> Result<(), Failure> {
    for part in plan {
        let until = text::moment(part.timestamp.saturating_mul(1_000_000));
        writeln!(
            context.out,
            "records {} to {}  until {until}  {}",
            part.first,
            part.last,
            text::bytes(part.bytes)
        )?;
    }
    let bytes = text::bytes(bytes);
    Ok(writeln!(
        context.out,
        "in all {} records, {bytes} and their block files",
        text::grouped(records)
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Ok(Command::try_parse_from([&["prune"], words].concat())?.args)
    }

    #[test]
    fn only_whole_parts_that_are_old_and_below_are_covered_and_none_behind_one_that_stays() {
        let part = |first, timestamp| Prunable {
            first,
            last: first + 99,
            bytes: 1,
            timestamp,
        };
        let now = 1_000_000_000;
        let parts = [part(1, 100), part(101, 200), part(201, 150), part(301, 400)];
        for (words, expected) in [
            (&["--before", "100"][..], 0),
            (&["--before", "101"], 1),
            (&["--before", "200"], 1),
            (&["--before", "401"], 4),
            (&["--older-than", "1970-01-01T00:02:00Z"], 1),
            (&["--older-than", "1970-01-01T00:03:20Z"], 3),
            (&["--older-than", "1d"], 4),
            (&["--older-than", "1d", "--before", "250"], 2),
        ] {
            let args = parse(&[words, &["--dry-run"]].concat()).expect("valid");
            assert_eq!(covered(&parts, &args, now).len(), expected, "{words:?}");
        }
        // One that was written while the clock was ahead, among others and behind them.
        let args = parse(&["--older-than", "1970-01-01T00:03:20Z", "--dry-run"]).expect("valid");
        let mut parts = [100, now + 5, 150, now + 5, 400].map(|time| part(1, time));
        assert_eq!(covered(&parts, &args, now).len(), 3);
        parts[4].timestamp = 170;
        assert_eq!(covered(&parts, &args, now).len(), 5);
        assert_eq!(covered(&parts[3..4], &args, now).len(), 0);
    }

    #[test]
    fn nothing_is_pruned_without_a_bound_and_a_reason() {
        assert!(parse(&["--dry-run"]).is_err());
        assert!(parse(&["--before", "5"]).is_err());
        assert!(parse(&["--before", "0", "--reason", "x"]).is_err());
        assert!(parse(&["--before", "5", "--reason", "x"]).is_ok());
    }
}
