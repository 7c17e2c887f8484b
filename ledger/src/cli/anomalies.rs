//! `blockhost ledger anomalies`: what is unusual, at most so much a day, with reasons. Advice; nothing is refused.

use super::context::{Context, Failure, height};
use super::replay::{replay, up_to};
use super::text::{field, printable};
use crate::anomaly::{Budget, Days, Finding, Scorer, reasons};
use crate::features::{FEATURES, Generations, NAMES, Vector};
use crate::reader::Reader;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Options of `anomalies`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  blockhost ledger anomalies                    the last seven days, at most 5 findings a day
  blockhost ledger anomalies --since 2026-01-01 --budget 2
  blockhost ledger anomalies --at 5000          what it said when the log had 5000 records
  blockhost ledger anomalies --json | jq .reasons

A finding is advice, not a verdict: look at it with `blockhost ledger show HEIGHT`.")]
pub struct Args {
    /// From when on: 12h, 7d, 4w before the newest record, or a day (2026-01-31, UTC)
    #[arg(long, default_value = "7d", value_name = "WHEN", value_parser = since)]
    since: Since,
    /// Most findings a day (UTC)
    #[arg(long, default_value_t = Budget::default().per_day, value_name = "N")]
    budget: usize,
    /// As if the log ended at this height: the same answer as then
    #[arg(long, value_name = "HEIGHT", value_parser = height())]
    at: Option<u64>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// From when on. Relative to the newest record and not to a clock, so that an answer can be had again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    SecondsBefore(i64),
    Time(i64),
}

fn since(text: &str) -> Result<Since, String> {
    let wrong = || "it is 12h, 7d, 4w or a day such as 2026-01-31".to_owned();
    if let Ok(date) = text.parse::<jiff::civil::Date>() {
        let start = date
            .to_zoned(jiff::tz::TimeZone::UTC)
            .map_err(|_| wrong())?;
        return Ok(Since::Time(start.timestamp().as_second()));
    }
    let unit_s = match text.chars().last() {
        Some('h') => 3600,
        Some('d') => 86_400,
        Some('w') => 604_800,
        _ => return Err(wrong()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    Ok(Since::SecondsBefore(i64::from(number) * unit_s))
}

/// A finding with what it is told from.
struct Told {
    finding: Finding,
    record: Value,
    vector: Vector,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<(), Failure> {
    let reader = context.reader()?;
    let to = up_to(&reader, args.at)?;
    let told = find(&reader, to, args)?;
    for told in &told {
        if args.json {
            context.json(&as_json(told))?;
        } else {
            print(context, told)?;
        }
    }
    if told.is_empty() && !args.json {
        writeln!(
            context.out,
            "nothing unusual among the records up to height {to}"
        )?;
    }
    Ok(())
}

fn find(reader: &Reader, to: u64, args: &Args) -> Result<Vec<Told>, Failure> {
    let time = |index: u64| -> Result<i64, Failure> {
        let record: Value = serde_json::from_slice(&reader.get(index)?).unwrap_or_default();
        Ok(record["timestamp"].as_i64().unwrap_or_default())
    };
    let from_s = match args.since {
        Since::Time(time_s) => time_s,
        Since::SecondsBefore(seconds) => time(to - 1)?.saturating_sub(seconds),
    };
    // Times grow with heights but for a clock that was set back.
    let (mut low, mut high) = (0, to);
    while low < high {
        let middle = low + (high - low) / 2;
        if time(middle)? < from_s {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let mut scorer = Generations::<Scorer>::new(low.min(to - 1));
    let mut days = Days::new(Budget {
        per_day: args.budget,
        ..Budget::default()
    });
    let mut findings = Vec::new();
    let mut vectors: HashMap<u64, Vector> = HashMap::new();
    replay(reader, scorer.next(), to, "looking", |index, record| {
        let (vector, score) = scorer.push(record);
        if score.total >= Budget::default().least {
            vectors.insert(index, vector);
        }
        findings.extend(days.push(index, score));
    })?;
    findings.extend(days.end_of_day());
    let mut told = Vec::new();
    for finding in findings {
        if finding.index < low {
            continue;
        }
        let record = serde_json::from_slice(&reader.get(finding.index)?).unwrap_or_default();
        let vector = vectors
            .get(&finding.index)
            .copied()
            .unwrap_or(Vector([0; FEATURES]));
        told.push(Told {
            finding,
            record,
            vector,
        });
    }
    Ok(told)
}

fn print(context: &mut Context, told: &Told) -> Result<(), Failure> {
    let Told {
        finding,
        record,
        vector,
    } = told;
    let more = match finding.records - 1 {
        0 => String::new(),
        1 => "; and 1 more record within the hour".to_owned(),
        more => format!("; and {more} more records within the hour"),
    };
    let height = finding.index + 1;
    writeln!(
        context.out,
        "{}  {} on {} by {}  (score {}.{}{more})",
        super::text::time(record),
        field(record, "action"),
        field(record, "resource"),
        field(record, "user"),
        finding.score.total / 1000,
        finding.score.total % 1000 / 100,
    )?;
    for reason in reasons(record, vector, &finding.score) {
        writeln!(context.out, "    {}", printable(&reason))?;
    }
    writeln!(context.out, "    -> blockhost ledger show {height}")?;
    Ok(())
}

fn as_json(told: &Told) -> Value {
    let Told {
        finding,
        record,
        vector,
    } = told;
    let parts: Map<String, Value> = finding
        .score
        .parts
        .iter()
        .filter_map(|(feature, part)| Some(((*NAMES.get(*feature)?).to_owned(), json!(part))))
        .collect();
    json!({
        "height": finding.index + 1,
        "last_height": finding.last + 1,
        "records": finding.records,
        "score_milli": finding.score.total,
        "parts_milli": parts,
        "reasons": reasons(record, vector, &finding.score),
        "timestamp": record["timestamp"],
        "user": record["user"],
        "action": record["action"],
        "resource": record["resource"],
        "op_id": record["op_id"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_nonsense_is_refused() {
        assert_eq!(since("7d"), Ok(Since::SecondsBefore(604_800)));
        assert_eq!(since("1970-01-02"), Ok(Since::Time(86_400)));
        for text in [
            "",
            "d",
            "-1d",
            "1.5h",
            "7 d",
            "\u{e9}",
            "7\u{e9}",
            "99999999999d",
            "2026-13-01",
        ] {
            assert!(since(text).is_err(), "{text:?}");
        }
    }
}
