//! Which records a verb is about: the options that `list` and `grep` share, times as people write them, and the question
//! they become. How answers look is in `table`.

use super::context::{Context, Failure, height};
use super::progress;
use crate::index::{self, IndexError};
use crate::query::{self, Answer, Filter, Means, Order, Query, QueryError, Resource};
use crate::reader::Reader;
use crate::record::Phase;
use std::io::Write as _;
use std::path::PathBuf;

/// Options that choose records.
#[derive(Debug, Clone, clap::Args)]
pub struct Select {
    /// How many of the newest that match
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
    last: usize,
    /// The oldest that match instead of the newest
    #[arg(long)]
    oldest: bool,
    /// From this height on
    #[arg(long, value_name = "HEIGHT", value_parser = height())]
    from: Option<u64>,
    /// Up to this height
    #[arg(long, value_name = "HEIGHT", value_parser = height())]
    to: Option<u64>,
    /// Not before: 90s, 30m, 2h, 7d, 4w ago, or a time such as 2026-01-31, 2026-01-31T14:00 (UTC), or with an offset
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<i64>,
    /// Before that time; written like --since
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<i64>,
    /// Only this category (network, settings, users, storage, compute, chain, ...)
    #[arg(long)]
    category: Option<String>,
    /// Only this part of the product (qm, net, event, agent, ...)
    #[arg(long)]
    plugin: Option<String>,
    /// Only this action or event
    #[arg(long)]
    action: Option<String>,
    /// Only this operation (create, modify, delete, apply, query)
    #[arg(long)]
    operation: Option<String>,
    /// Only this resource; with a star at the end all that begin so: 'vm:*'
    #[arg(long)]
    resource: Option<String>,
    /// Only this user
    #[arg(long)]
    user: Option<String>,
    /// Only this phase (intent, outcome, event, epoch, recovery, prune, shred, anchor)
    #[arg(long, value_parser = phase)]
    phase: Option<Phase>,
    /// Only the intent and outcome of this operation
    #[arg(long, value_name = "ID")]
    op_id: Option<String>,
    /// Only the record with this hash
    #[arg(long, value_name = "HEX", value_parser = query::parse_hash)]
    hash: Option<crate::merkle::Hash>,
    /// Look at every record of the range and at every hash up to the signed head: then the answer is complete
    #[arg(long)]
    verified: bool,
    /// Do not use or make the index of this ledger in your cache directory
    #[arg(long)]
    no_index: bool,
    /// Write a proof of each record into this directory
    #[arg(long, value_name = "DIR")]
    prove: Option<PathBuf>,
    /// Print one JSON object a line: the record and its hash; with --verified a last line with `coverage`
    #[arg(long)]
    pub json: bool,
}

impl Select {
    /// Asks, with a progress bar on a terminal, and prints the answer.
    pub(super) fn answer(
        &self,
        context: &mut Context,
        text: Option<query::Text>,
    ) -> Result<(), Failure> {
        let reader = context.reader()?;
        if reader.size() == 0 {
            // Otherwise a wrong --dir, or a directory that was emptied, would look like a quiet host.
            let dir = super::text::printable(&context.dir.display().to_string());
            let _ = writeln!(
                std::io::stderr(),
                "blockhost ledger: there are no records in {dir}"
            );
        }
        let mut answer = self.ask(context, &reader, text)?;
        if !self.oldest {
            answer.found.reverse();
        }
        if self.json {
            super::table::print_json(context.out, &answer.found)?;
            if self.verified {
                context
                    .json(&serde_json::json!({"coverage": answer.coverage, "more": answer.more}))?;
            }
        } else {
            super::table::print(context.out, &answer.found)?;
            if self.verified {
                writeln!(context.out, "{}", answer.coverage)?;
            }
        }
        if let Some(dir) = &self.prove {
            write_proofs(dir, &reader, &answer)?;
        }
        Ok(())
    }

    fn ask(
        &self,
        context: &Context,
        reader: &Reader,
        text: Option<query::Text>,
    ) -> Result<Answer, Failure> {
        let query = Query {
            filter: self.filter(text),
            order: if self.oldest {
                Order::Oldest
            } else {
                Order::Newest
            },
            limit: self.last,
        };
        let bar = progress::bar("looking");
        let progress = &mut |done, total| bar.told(done, total);
        let answer = if self.verified {
            query::run(reader, &Means::Verified, &query, progress)
        } else {
            let path = (!self.no_index)
                .then(|| index::default_path(&context.dir))
                .flatten();
            query::best(
                reader,
                path.as_deref(),
                &query,
                progress,
                &mut without_index,
            )
        };
        bar.done();
        Ok(answer?)
    }

    fn filter(&self, text: Option<query::Text>) -> Filter {
        let heights = (self.from.is_some() || self.to.is_some())
            .then(|| self.from.unwrap_or(1)..=self.to.unwrap_or(u64::MAX));
        Filter {
            heights,
            since_us: self.since,
            until_us: self.until,
            category: self.category.clone(),
            plugin: self.plugin.clone(),
            action: self.action.clone(),
            operation: self.operation.clone(),
            user: self.user.clone(),
            resource: self.resource.as_deref().map(Resource::parse),
            phase: self.phase,
            op_id: self.op_id.clone(),
            hash: self.hash,
            text,
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Read(error) => error.into(),
            QueryError::Root { .. } => Self::NotVerified(error.to_string()),
            QueryError::Index(_) => Self::Unreadable(error.to_string()),
        }
    }
}

/// The answer comes without it, only slower: said, so that somebody can mend it.
pub(super) fn without_index(error: &IndexError) {
    let _ = writeln!(
        std::io::stderr(),
        "blockhost ledger: looking at every record instead: {error}"
    );
}

fn write_proofs(dir: &std::path::Path, reader: &Reader, answer: &Answer) -> Result<(), Failure> {
    let fail = |error: std::io::Error| {
        Failure::Unreadable(format!("cannot write proofs to {}: {error}", dir.display()))
    };
    std::fs::create_dir_all(dir).map_err(fail)?;
    for found in &answer.found {
        let proof = reader.prove(found.height - 1, true)?;
        let file = dir.join(format!("{}.tlog-proof", found.height));
        std::fs::write(file, proof).map_err(fail)?;
    }
    Ok(())
}

fn phase(word: &str) -> Result<Phase, String> {
    Phase::parse(word).ok_or_else(|| {
        let words: Vec<_> = Phase::ALL.into_iter().map(Phase::as_str).collect();
        format!("it is one of {}", words.join(", "))
    })
}

/// A time in microseconds since 1970 UTC.
pub(super) fn moment(text: &str) -> Result<i64, String> {
    moment_at(text, jiff::Timestamp::now())
}

fn moment_at(text: &str, now: jiff::Timestamp) -> Result<i64, String> {
    let wrong = || {
        "a time is 90s, 30m, 2h, 7d or 4w (ago), 2026-01-31, 2026-01-31T14:00 (UTC) or 2026-01-31T14:00:00+02:00".to_owned()
    };
    let ago = text.strip_suffix("ago").unwrap_or(text).trim();
    if let Some((number, unit)) = ago.split_at_checked(ago.len().saturating_sub(1))
        && let Ok(number) = number.parse::<u32>()
    {
        let seconds: i64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return Err(wrong()),
        };
        let before = i64::from(number) * seconds * 1_000_000;
        return Ok(now.as_microsecond().saturating_sub(before));
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_microsecond());
    }
    let civil = text.parse::<jiff::civil::DateTime>().or_else(|_| {
        text.parse::<jiff::civil::Date>()
            .map(|date| date.at(0, 0, 0, 0))
    });
    let time = civil
        .and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC))
        .map_err(|_| wrong())?;
    Ok(time.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them_and_nonsense_is_refused() {
        let now: jiff::Timestamp = "2026-01-31T12:00:00Z".parse().expect("a time");
        let at = |text| moment_at(text, now);
        for (text, same) in [
            ("90s", "2026-01-31T11:58:30Z"),
            ("2h", "2026-01-31T10:00:00Z"),
            ("2h ago", "2026-01-31T10:00:00Z"),
            ("1w", "2026-01-24T12:00:00Z"),
            ("2026-01-30", "2026-01-30T00:00:00Z"),
            ("2026-01-30T14:05", "2026-01-30T14:05:00Z"),
            ("2026-01-30 14:05:06", "2026-01-30T14:05:06Z"),
            ("2026-01-30T14:05:06+02:00", "2026-01-30T12:05:06Z"),
        ] {
            assert_eq!(at(text), at(same), "{text}");
        }
        for text in [
            "",
            "h",
            "-2h",
            "2y",
            "2.5h",
            "now",
            "2026-13-01",
            "99999999999h",
            "ago",
            "2\u{e9}",
            "\u{e9}",
        ] {
            assert!(at(text).is_err(), "{text:?}");
        }
    }
}
