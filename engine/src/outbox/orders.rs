//! Orders: several transactions that belong together, each a step whose state is kept. What a step does is text here and
//! known to [`crate::funds`]; so is the order in which they are done.
//!
//! A step's transactions are journaled under a purpose that names order, step and attempt. A new attempt begins only when
//! nothing of the one before can be mined any more, so that a step has its effect once.

use super::{Outbox, OutboxError, int, now_ms, unsigned};
use rusqlite::{OptionalExtension, Row, params};
use std::time::Duration;

/// How far an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderState {
    /// Steps are left.
    Open,
    /// Every step was done or given up.
    Done,
    /// Given up as a whole.
    Abandoned,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// Not done yet.
    Planned,
    /// In a block.
    Done,
    /// Given up.
    Failed,
}

impl OrderState {
    /// As it is stored and shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Abandoned => "abandoned",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Open, Self::Done, Self::Abandoned]
            .into_iter()
            .find(|state| state.name() == text)
    }
}

impl StepState {
    /// As it is stored and shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Planned, Self::Done, Self::Failed]
            .into_iter()
            .find(|state| state.name() == text)
    }
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its number.
    pub id: i64,
    /// On which chain.
    pub chain_id: u64,
    /// What kind of order.
    pub kind: String,
    /// Which of the kind's parts it is in.
    pub stage: String,
    /// How far it is.
    pub state: OrderState,
    /// Not to be gone on with before, milliseconds since 1970.
    pub not_before_ms: i64,
    /// What is to be said about it.
    pub detail: Option<String>,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
    /// When it ended, milliseconds since 1970.
    pub ended_ms: Option<i64>,
}

/// A step of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    /// Of which order.
    pub order: i64,
    /// Its place in the order, from 1.
    pub number: i64,
    /// What it does.
    pub body: String,
    /// How far it is.
    pub state: StepState,
    /// Attempts that are known to have failed.
    pub attempt: u32,
    /// Why the last one did.
    pub last_error: Option<String>,
    /// What it came to.
    pub outcome: Option<String>,
    /// True once it is in the ledger.
    pub recorded: bool,
}

const ORDER: &str = "id, chain_id, kind, stage, state, not_before_ms, detail, created_ms, ended_ms";
const STEP: &str = "order_id, number, body, state, attempt, last_error, outcome, recorded";

impl Outbox {
    /// Opens an order with its first steps.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn open_order(
        &self,
        chain_id: u64,
        kind: &str,
        stage: &str,
        bodies: &[String],
    ) -> Result<i64, OutboxError> {
        self.write(|t| {
            t.execute(
                "INSERT INTO orders (chain_id, kind, stage, state, created_ms) VALUES (?, ?, ?, 'open', ?)",
                params![int(chain_id), kind, stage, now_ms()],
            )?;
            let id = t.last_insert_rowid();
            add(t, id, bodies)?;
            Ok(id)
        })
    }

    /// Lets an order enter its next part, with that part's steps. False when it has left `from` already: nothing changes.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn advance_order(
        &self,
        id: i64,
        from: &str,
        to: &str,
        bodies: &[String],
    ) -> Result<bool, OutboxError> {
        self.write(|t| {
            let moved = t.execute(
                "UPDATE orders SET stage = ?, not_before_ms = 0 WHERE id = ? AND stage = ? AND state = 'open'",
                params![to, id, from],
            )?;
            if moved == 1 {
                add(t, id, bodies)?;
            }
            Ok(moved == 1)
        })
    }

    /// Ends an order.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn end_order(
        &self,
        id: i64,
        state: OrderState,
        detail: Option<&str>,
    ) -> Result<(), OutboxError> {
        self.write(|t| {
            t.execute(
                "UPDATE orders SET state = ?, detail = coalesce(?, detail), ended_ms = ? WHERE id = ? AND state = 'open'",
                params![state.name(), detail, now_ms(), id],
            )
            .map(drop)
        })
    }

    /// Puts an order off.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn postpone_order(&self, id: i64, by: Duration, why: &str) -> Result<(), OutboxError> {
        let until = now_ms().saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
        self.write(|t| {
            t.execute(
                "UPDATE orders SET not_before_ms = ?, detail = ? WHERE id = ? AND state = 'open'",
                params![until, why, id],
            )
            .map(drop)
        })
    }

    /// Open orders, oldest first.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn open_orders(&self, chain_id: u64) -> Result<Vec<Order>, OutboxError> {
        self.orders(
            "chain_id = ?1 AND state = 'open' ORDER BY id",
            params![int(chain_id)],
        )
    }

    /// The newest order of a kind.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn last_order(&self, chain_id: u64, kind: &str) -> Result<Option<Order>, OutboxError> {
        let found = self.orders(
            "chain_id = ?1 AND kind = ?2 ORDER BY id DESC LIMIT 1",
            params![int(chain_id), kind],
        )?;
        Ok(found.into_iter().next())
    }

    /// The newest orders of all kinds, newest first.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn recent_orders(&self, chain_id: u64, limit: u64) -> Result<Vec<Order>, OutboxError> {
        self.orders(
            "chain_id = ?1 ORDER BY id DESC LIMIT ?2",
            params![int(chain_id), int(limit)],
        )
    }

    /// One order.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn order(&self, id: i64) -> Result<Option<Order>, OutboxError> {
        Ok(self.orders("id = ?1", params![id])?.into_iter().next())
    }

    fn orders(
        &self,
        condition: &str,
        params: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<Order>, OutboxError> {
        let sql = format!("SELECT {ORDER} FROM orders WHERE {condition}");
        let rows: Vec<(Order, String)> =
            self.read(|c| c.prepare(&sql)?.query_map(params, order_row)?.collect())?;
        rows.into_iter()
            .map(|(mut order, state)| {
                order.state = OrderState::parse(&state)
                    .ok_or_else(|| self.bad(0, format!("order {} is {state:?}", order.id)))?;
                Ok(order)
            })
            .collect()
    }

    /// The steps of an order, in order.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn steps_of(&self, order: i64) -> Result<Vec<StepRow>, OutboxError> {
        self.steps("order_id = ?1 ORDER BY number", params![order])
    }

    /// Steps that are done and not in the ledger yet, oldest first.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn unrecorded_steps(&self) -> Result<Vec<StepRow>, OutboxError> {
        self.steps(
            "state = 'done' AND recorded = 0 ORDER BY order_id, number LIMIT 1000",
            params![],
        )
    }

    fn steps(
        &self,
        condition: &str,
        params: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<StepRow>, OutboxError> {
        let sql = format!("SELECT {STEP} FROM order_steps WHERE {condition}");
        let rows: Vec<(StepRow, String)> =
            self.read(|c| c.prepare(&sql)?.query_map(params, step_row)?.collect())?;
        rows.into_iter()
            .map(|(mut step, state)| {
                step.state = StepState::parse(&state).ok_or_else(|| {
                    self.bad(
                        0,
                        format!("step {}.{} is {state:?}", step.order, step.number),
                    )
                })?;
                Ok(step)
            })
            .collect()
    }

    /// The step is done, with this outcome.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn finish_order_step(
        &self,
        order: i64,
        number: i64,
        outcome: &str,
    ) -> Result<(), OutboxError> {
        self.change_step(
            "state = 'done', outcome = ?3, last_error = NULL",
            order,
            number,
            &outcome,
        )
    }

    /// An attempt at a step failed and cannot have its effect any more: the next one may sign anew.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn fail_attempt(&self, order: i64, number: i64, error: &str) -> Result<(), OutboxError> {
        self.change_step(
            "attempt = attempt + 1, last_error = ?3",
            order,
            number,
            &error,
        )
    }

    /// The step is given up.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn give_up_step(&self, order: i64, number: i64, error: &str) -> Result<(), OutboxError> {
        self.change_step("state = 'failed', last_error = ?3", order, number, &error)
    }

    /// The step is in the ledger, under this index where the agent said it.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn step_recorded(&self, order: i64, number: i64) -> Result<(), OutboxError> {
        self.write(|t| {
            t.execute(
                "UPDATE order_steps SET recorded = 1 WHERE order_id = ? AND number = ?",
                params![order, number],
            )
            .map(drop)
        })
    }

    fn change_step(
        &self,
        change: &str,
        order: i64,
        number: i64,
        value: &dyn rusqlite::ToSql,
    ) -> Result<(), OutboxError> {
        let sql = format!(
            "UPDATE order_steps SET {change}, updated_ms = ?4 WHERE order_id = ?1 AND number = ?2 AND state = 'planned'"
        );
        self.write(|t| {
            t.execute(&sql, params![order, number, value, now_ms()])
                .map(drop)
        })
    }

    /// Whether any transaction of this purpose may still be mined.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn is_live(&self, job: i64, purpose: &str) -> Result<bool, OutboxError> {
        self.read(|c| {
            c.prepare_cached(
                "SELECT 1 FROM txs WHERE job_id = ? AND purpose = ? AND state = 'live' LIMIT 1",
            )?
            .query_row(params![job, purpose], |_| Ok(()))
            .optional()
            .map(|found| found.is_some())
        })
    }
}

fn add(t: &rusqlite::Transaction<'_>, order: i64, bodies: &[String]) -> rusqlite::Result<()> {
    let last: i64 = t.query_row(
        "SELECT coalesce(max(number), 0) FROM order_steps WHERE order_id = ?",
        [order],
        |row| row.get(0),
    )?;
    for (number, body) in (last + 1..).zip(bodies) {
        t.execute(
            "INSERT INTO order_steps (order_id, number, body, state, updated_ms) VALUES (?, ?, ?, 'planned', ?)",
            params![order, number, body, now_ms()],
        )?;
    }
    Ok(())
}

fn order_row(row: &Row<'_>) -> rusqlite::Result<(Order, String)> {
    let order = Order {
        id: row.get(0)?,
        chain_id: unsigned(row.get(1)?),
        kind: row.get(2)?,
        stage: row.get(3)?,
        state: OrderState::Open,
        not_before_ms: row.get(5)?,
        detail: row.get(6)?,
        created_ms: row.get(7)?,
        ended_ms: row.get(8)?,
    };
    Ok((order, row.get(4)?))
}

fn step_row(row: &Row<'_>) -> rusqlite::Result<(StepRow, String)> {
    let step = StepRow {
        order: row.get(0)?,
        number: row.get(1)?,
        body: row.get(2)?,
        state: StepState::Planned,
        attempt: row.get(4)?,
        last_error: row.get(5)?,
        outcome: row.get(6)?,
        recorded: row.get(7)?,
    };
    Ok((step, row.get(3)?))
}

#[cfg(test)]
#[path = "orders_tests.rs"]
mod tests;
