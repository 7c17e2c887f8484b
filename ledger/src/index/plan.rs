//! A filter as a question to SQLite, and between which heights its answer can be.

use super::{Counted, Index, short, unsigned};
use crate::merkle::sha256;
use crate::query::{Filter, Resource};
use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, params};

/// What to ask of SQLite.
pub(super) struct Plan {
    pub(super) conditions: String,
    pub(super) values: Vec<Value>,
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Plan {
    fn and(&mut self, condition: &str, value: impl Into<Value>) {
        self.conditions.push_str(condition);
        self.conditions.push_str(" AND ");
        self.values.push(value.into());
    }
}

impl Index {
    /// The question for a filter; none where the index knows that there is no such record.
    pub(super) fn plan(
        &self,
        filter: &Filter,
        first: u64,
        last: u64,
    ) -> Result<Option<Plan>, rusqlite::Error> {
        let mut plan = Plan {
            conditions: String::new(),
            values: Vec::new(),
            first,
            last,
        };
        let phase = filter.phase.map(|phase| phase.as_str().to_owned());
        let equal = [
            (Counted::Phase, &phase),
            (Counted::Category, &filter.category),
            (Counted::Plugin, &filter.plugin),
            (Counted::Operation, &filter.operation),
            (Counted::Action, &filter.action),
            (Counted::User, &filter.user),
        ];
        let mut kinds = Vec::new();
        for (field, wanted) in equal {
            let Some(wanted) = wanted else { continue };
            let sql = "SELECT word, first, last FROM tally JOIN word ON word.id = tally.word WHERE field = ? AND text = ?";
            let row = self
                .db
                .prepare_cached(sql)?
                .query_row(params![field.number() as i64, wanted], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()?;
            let Some((word, from, to)) = row else {
                return Ok(None);
            };
            plan.first = plan.first.max(unsigned(from));
            plan.last = plan.last.min(unsigned(to));
            kinds.push(format!("{} = ?", field.name()));
            plan.values.push(Value::from(word));
        }
        if !kinds.is_empty() {
            let kinds = kinds.join(" AND ");
            plan.conditions = format!("kind IN (SELECT id FROM kind WHERE {kinds}) AND ");
        }
        if let Some(since) = filter.since_us {
            plan.and("ts >= ?", since);
        }
        if let Some(until) = filter.until_us {
            plan.and("ts < ?", until);
        }
        if let Some(op_id) = &filter.op_id {
            plan.and("op = ?", short(&sha256(op_id.as_bytes())));
        }
        if let Some(hash) = &filter.hash {
            plan.and("hash = ?", short(hash));
        }
        match &filter.resource {
            None => {}
            Some(Resource::Exact(text)) => plan.and(
                "resource = (SELECT id FROM word WHERE text = ?)",
                text.clone(),
            ),
            Some(Resource::Prefix(text)) => {
                // U+10FFFF sorts behind all other characters, and is itself no part of a resource's name.
                plan.values.push(Value::from(text.clone()));
                plan.and(
                    "resource IN (SELECT id FROM word WHERE text >= ? AND text < ?)",
                    format!("{text}\u{10ffff}"),
                );
            }
        }
        Ok(Some(plan))
    }
}
