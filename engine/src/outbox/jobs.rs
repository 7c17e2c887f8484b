//! The life of a job: claimed in order, its steps remembered, retried with growing pauses, parked at last.

use super::{Outbox, OutboxError, int, now_ms, unsigned};
use crate::chain::events::Event;
use crate::chain::{Address, B256};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::time::Duration;

/// The step that settles how large a bought machine is.
pub const SIZE: &str = "size";
/// What it was settled to before somebody had the job run again: a machine that stands already is as large as that.
pub const FORMER_SIZE: &str = "former-size";
/// The step after which there is a machine.
pub const CREATED: &str = "created";
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(900);

/// Whether `other` has to go before `job`, which is of the same subscription: it runs, or it came earlier, or it cancels. Whatever
/// comes before a cancellation waits even while that waits or is parked itself: the machine may be gone by then.
macro_rules! goes_first {
    () => {
        "other.state IN ('pending', 'running', 'parked') AND other.subscription_id = job.subscription_id
        AND other.contract = job.contract AND other.chain_id = job.chain_id AND (other.state = 'running' OR job.event <> 'SubscriptionCancelled'
        AND (other.id < job.id OR other.event = 'SubscriptionCancelled' AND other.orphaned = 0))"
    };
}

/// Takes the next job whose turn it is.
pub(super) const CLAIM: &str = concat!(
    "UPDATE jobs SET state = 'running', started = 1, attempts = attempts + 1, updated_ms = ?1 WHERE id = (
    SELECT id FROM jobs AS job WHERE state IN ('pending', 'running') AND state = 'pending' AND not_before_ms <= ?1 AND orphaned = 0
    AND NOT EXISTS (SELECT 1 FROM jobs AS other WHERE ",
    goes_first!(),
    ") ORDER BY id LIMIT 1
) RETURNING id, contract, block_number, tx_hash, payload, max(attempts - waits, 1), waits"
);
/// The job that a pending one stands behind: the one that runs, or else cancels, or else is the oldest.
const BEHIND: &str = concat!(
    "SELECT other.id FROM jobs AS other WHERE job.state = 'pending' AND job.orphaned = 0 AND ",
    goes_first!(),
    " ORDER BY other.state <> 'running', other.event <> 'SubscriptionCancelled', other.id LIMIT 1"
);
/// When the next job that waits is due.
pub(super) const NEXT_DUE: &str = "SELECT min(not_before_ms) FROM jobs WHERE state IN ('pending', 'running') AND state = 'pending' AND orphaned = 0";
/// What a cancellation closes with itself.
pub(super) const SUPERSEDE: &str = "UPDATE jobs SET state = 'superseded', updated_ms = ?1
    WHERE state IN ('pending', 'running', 'parked') AND state <> 'running' AND id < ?2 AND (chain_id, contract, subscription_id) =
    (SELECT c.chain_id, c.contract, c.subscription_id FROM jobs AS c WHERE c.id = ?2 AND c.event = 'SubscriptionCancelled')";

/// Whether a cancellation of its subscription came after `job`.
macro_rules! cancelled_after {
    ($which:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM jobs AS later WHERE later.chain_id = job.chain_id AND later.contract = job.contract
            AND later.subscription_id = job.subscription_id AND later.id > job.id AND later.event = 'SubscriptionCancelled'",
            $which,
            ")"
        )
    };
}

/// What is closed then was not closed by hand.
pub(super) const ENDED: &str = cancelled_after!("");
/// The same, where the chain has that cancellation still.
const ENDED_STILL: &str = cancelled_after!(" AND later.orphaned = 0");
/// For `retry`: what a job made may be destroyed again by a cancellation that the chain has taken back since, so it is made
/// anew. Not where something was signed for it: that may be mined, and tells of the machine as it was.
const FORGET: &str = concat!(
    "DELETE FROM steps WHERE job_id = ?1 AND name NOT IN (?2, ?3) AND EXISTS (SELECT 1 FROM jobs AS job WHERE id = ?1 AND ",
    cancelled_after!(" AND later.orphaned = 1"),
    ") AND NOT EXISTS (SELECT 1 FROM txs WHERE job_id = ?1 AND state IN ('live', 'mined'))"
);

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for its turn or its next attempt.
    Pending,
    /// Somebody works on it.
    Running,
    /// Closed.
    Done,
    /// Given up until somebody retries it.
    Parked,
    /// Made pointless by a cancellation, or parked and closed by somebody.
    Superseded,
}

impl JobState {
    pub(super) fn parse(text: &str) -> Option<Self> {
        [
            Self::Pending,
            Self::Running,
            Self::Done,
            Self::Parked,
            Self::Superseded,
        ]
        .into_iter()
        .find(|s| s.to_string() == text)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Parked => "parked",
            Self::Superseded => "superseded",
        })
    }
}

/// A claimed job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its number in the outbox.
    pub id: i64,
    /// The contract.
    pub contract: Address,
    /// Block of the event.
    pub block_number: u64,
    /// Transaction of the event.
    pub tx_hash: B256,
    /// What happened.
    pub event: Event,
    /// Which attempt this is, from 1; those that only waited are not counted.
    pub attempt: u32,
    /// How often it waited.
    pub waits: u32,
}

/// A job as operators see it.
#[derive(Debug, Clone, Serialize)]
pub struct JobView {
    /// Its number.
    pub id: i64,
    /// Where it stands.
    pub state: JobState,
    /// Name of the event.
    pub event: String,
    /// The subscription; 0 for events about none.
    pub subscription_id: u64,
    /// Chain.
    pub chain_id: u64,
    /// Contract.
    pub contract: String,
    /// Block of the event.
    pub block_number: u64,
    /// Transaction of the event.
    pub tx_hash: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Those of them that failed for a reason that was not the job's: they do not count.
    pub waits: u32,
    /// A reorganisation took its event away.
    pub orphaned: bool,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// The job of the same subscription that it waits for.
    pub behind: Option<i64>,
    /// Not tried before, milliseconds since 1970.
    pub not_before_ms: i64,
    /// When it came, milliseconds since 1970.
    pub created_ms: i64,
    /// When it last changed, milliseconds since 1970.
    pub updated_ms: i64,
    /// The steps that are done.
    pub steps: Vec<String>,
}

impl JobView {
    /// Whether nothing becomes of it until somebody decides: it is parked, or its event is no longer on the chain.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.state == JobState::Parked || self.state == JobState::Pending && self.orphaned
    }
}

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts before a job is parked.
    pub max_attempts: u32,
    /// Pause after the first failure; doubles each time, up to 15 minutes.
    pub first: Duration,
}

impl Retry {
    /// The pause after attempt number `attempt` (from 1), or none if it was the last. `jitter` in 0..=1 spreads it by a
    /// fifth to both sides, so that jobs that failed together do not return together.
    #[must_use]
    pub fn pause(&self, attempt: u32, jitter: f64) -> Option<Duration> {
        (attempt < self.max_attempts).then(|| self.grown(attempt, jitter))
    }

    /// The pause of a job that has waited `waits` times before for what is not its own: the same, without an end.
    #[must_use]
    pub fn wait(&self, waits: u32, jitter: f64) -> Duration {
        self.grown(waits.saturating_add(1), jitter)
    }

    fn grown(&self, number: u32, jitter: f64) -> Duration {
        self.first
            .saturating_mul(2_u32.saturating_pow(number.saturating_sub(1)))
            .min(LONGEST_PAUSE)
            .mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
    }
}

impl Outbox {
    pub(super) fn recover(&self) -> Result<(), OutboxError> {
        self.write(|t| {
            t.execute(
                "UPDATE jobs SET state = 'pending' WHERE state = 'running'",
                [],
            )
            .map(drop)
        })
    }

    /// Takes the next job whose turn it is: the oldest that is due and has neither a running job of the same subscription
    /// beside it nor an open one before it nor an open cancellation at all. A cancellation waits only for one that runs:
    /// whatever else is before it stands still from then on, and is closed by it.
    ///
    /// # Errors
    /// [`OutboxError::Database`]; [`OutboxError::Content`] for a job that cannot be read, which is parked.
    pub fn claim(&self) -> Result<Option<Job>, OutboxError> {
        let found = self.write(|t| {
            t.query_row(CLAIM, params![now_ms()], |row| {
                Ok((
                    row.get(0)?,
                    row.get::<_, String>(1)?,
                    row.get(2)?,
                    row.get::<_, String>(3)?,
                    row.get::<_, String>(4)?,
                    row.get(5)?,
                    row.get(6)?,
                ))
            })
            .optional()
        })?;
        let Some((id, contract, block_number, tx_hash, payload, attempt, waits)) = found else {
            return Ok(None);
        };
        let parsed = (|| {
            let contract = contract.parse().map_err(|e| format!("contract: {e}"))?;
            let tx_hash = tx_hash.parse().map_err(|e| format!("tx_hash: {e}"))?;
            let event = serde_json::from_str(&payload).map_err(|e| format!("payload: {e}"))?;
            Ok::<_, String>(Job {
                id,
                contract,
                block_number: unsigned(block_number),
                tx_hash,
                event,
                attempt,
                waits,
            })
        })();
        match parsed {
            Ok(job) => Ok(Some(job)),
            Err(reason) => {
                self.park(id, &reason)?;
                Err(self.bad(id, reason))
            }
        }
    }

    /// Closes a job. A cancellation also closes what is open before it.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn finish(&self, id: i64) -> Result<(), OutboxError> {
        self.write(|t| {
            let now = now_ms();
            t.execute(
                "UPDATE jobs SET state = 'done', last_error = NULL, updated_ms = ? WHERE id = ?",
                params![now, id],
            )?;
            t.execute(SUPERSEDE, params![now, id]).map(drop)
        })
    }

    /// Puts a job back for another attempt after a pause.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn postpone(&self, id: i64, pause: Duration, error: &str) -> Result<(), OutboxError> {
        self.later(id, pause, error, 0)
    }

    /// The same for a job that failed for a reason that is not its own: the attempt does not count.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn wait(&self, id: i64, pause: Duration, error: &str) -> Result<(), OutboxError> {
        self.later(id, pause, error, 1)
    }

    fn later(&self, id: i64, pause: Duration, error: &str, waits: u32) -> Result<(), OutboxError> {
        let at = now_ms().saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
        self.write(|t| {
            t.execute(
                "UPDATE jobs SET state = 'pending', waits = waits + ?, not_before_ms = ?, last_error = ?, updated_ms = ? WHERE id = ?",
                params![waits, at, error, now_ms(), id],
            )
            .map(drop)
        })
    }

    /// Puts a job back as if this attempt had not been: the engine stops.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn put_back(&self, id: i64) -> Result<(), OutboxError> {
        self.write(|t| {
            t.execute("UPDATE jobs SET state = 'pending', attempts = max(attempts - 1, 0) WHERE id = ? AND state = 'running'", [id]).map(drop)
        })
    }

    /// Gives a job up until somebody retries it.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn park(&self, id: i64, error: &str) -> Result<(), OutboxError> {
        self.write(|t| {
            t.execute(
                "UPDATE jobs SET state = 'parked', last_error = ?, updated_ms = ? WHERE id = ?",
                params![error, now_ms(), id],
            )
            .map(drop)
        })
    }

    /// Lets a job run again that is parked or was closed by hand, from the step where it stopped, with all its attempts.
    /// Somebody decided so: also when a reorganisation took its event away. What a cancellation closed stays closed, unless a
    /// reorganisation took that away.
    ///
    /// # Errors
    /// [`OutboxError::NoJob`], [`OutboxError::NotParked`], [`OutboxError::Database`].
    pub fn retry(&self, id: i64) -> Result<(), OutboxError> {
        self.decide(id, &[JobState::Parked, JobState::Superseded], |t| {
            t.execute(FORGET, params![id, SIZE, FORMER_SIZE])?;
            // A size that could not be had would be tried for ever.
            t.execute(
                "UPDATE OR REPLACE steps SET name = ?3 WHERE job_id = ?1 AND name = ?2 AND NOT EXISTS (SELECT 1 FROM steps WHERE job_id = ?1 AND name = ?4)",
                params![id, SIZE, FORMER_SIZE, CREATED],
            )?;
            t.execute(
                "UPDATE jobs SET state = 'pending', orphaned = 0, attempts = 0, waits = 0, not_before_ms = 0, updated_ms = ?2 WHERE id = ?1",
                params![id, now_ms()],
            )
        })
    }

    /// Closes a parked job for good: somebody decided that it is not to be done.
    ///
    /// # Errors
    /// [`OutboxError::NoJob`], [`OutboxError::NotParked`], [`OutboxError::Database`].
    pub fn close(&self, id: i64, why: &str) -> Result<(), OutboxError> {
        self.decide(id, &[JobState::Parked], |t| {
            t.execute(
                "UPDATE jobs SET state = 'superseded', last_error = ?3, updated_ms = ?2 WHERE id = ?1",
                params![id, now_ms(), format!("closed by hand: {why}")],
            )
        })
    }

    /// Changes a job that waits for a decision: one in these states.
    fn decide(
        &self,
        id: i64,
        open: &[JobState],
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<usize>,
    ) -> Result<(), OutboxError> {
        let found: Option<(String, bool)> = self.write(|t| {
            // One that waits for an event that is gone is as good as parked.
            let asked = format!(
                "SELECT iif(state = 'pending' AND orphaned = 1, 'parked', state), state = 'superseded' AND {ENDED_STILL} FROM jobs AS job WHERE id = ?"
            );
            let found: Option<(String, bool)> = t
                .query_row(&asked, [id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            if let Some((state, false)) = &found
                && JobState::parse(state).is_some_and(|state| open.contains(&state))
            {
                change(t)?;
            }
            Ok(found)
        })?;
        let (state, ended) = found.ok_or(OutboxError::NoJob(id))?;
        match JobState::parse(&state) {
            Some(state) if open.contains(&state) && !ended => Ok(()),
            Some(state) => Err(OutboxError::NotParked { id, state }),
            None => Err(self.bad(id, format!("state {state:?}"))),
        }
    }

    /// What a step of a job gave, if it was done.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn step<T: DeserializeOwned>(
        &self,
        job: i64,
        name: &str,
    ) -> Result<Option<T>, OutboxError> {
        let text: Option<String> = self.read(|c| {
            c.prepare_cached("SELECT result FROM steps WHERE job_id = ? AND name = ?")?
                .query_row(params![job, name], |row| row.get(0))
                .optional()
        })?;
        text.map(|text| {
            serde_json::from_str(&text).map_err(|e| self.bad(job, format!("step {name}: {e}")))
        })
        .transpose()
    }

    /// Remembers that a step is done and what it gave. The first result stays.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn record_step<T: Serialize>(
        &self,
        job: i64,
        name: &str,
        result: &T,
    ) -> Result<(), OutboxError> {
        let text = serde_json::to_string(result)
            .map_err(|e| self.bad(job, format!("step {name}: {e}")))?;
        self.write(|t| {
            let new = t.execute(
                "INSERT OR IGNORE INTO steps VALUES (?, ?, ?, ?)",
                params![job, name, text, now_ms()],
            )?;
            if new == 1 {
                // It goes on: what it waits for next is another thing, and its pauses begin small again.
                t.execute(
                    "UPDATE jobs SET attempts = max(attempts - waits, 0), waits = 0 WHERE id = ?",
                    [job],
                )?;
            }
            Ok(())
        })
    }

    /// When the next waiting job becomes due, in milliseconds from now; none if nothing waits.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn next_due(&self) -> Result<Option<Duration>, OutboxError> {
        let at: Option<i64> = self.read(|c| c.query_row(NEXT_DUE, [], |row| row.get(0)))?;
        Ok(at.map(|at| Duration::from_millis(unsigned(at.saturating_sub(now_ms())))))
    }

    /// Jobs, newest first, optionally of one state.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn list(&self, state: Option<JobState>, limit: u64) -> Result<Vec<JobView>, OutboxError> {
        self.views(
            "?1 IS NULL OR state = ?1",
            params![state.map(|s| s.to_string()), int(limit)],
        )
    }

    /// One job.
    ///
    /// # Errors
    /// [`OutboxError::NoJob`], [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn show(&self, id: i64) -> Result<JobView, OutboxError> {
        self.views("id = ?1", params![id, 1])?
            .pop()
            .ok_or(OutboxError::NoJob(id))
    }

    fn views(
        &self,
        condition: &str,
        params: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<JobView>, OutboxError> {
        let sql = format!(
            "SELECT id, state, event, subscription_id, chain_id, contract, block_number, tx_hash, attempts, orphaned, last_error,
             not_before_ms, created_ms, updated_ms, (SELECT json_group_array(name) FROM (SELECT name FROM steps WHERE job_id = job.id ORDER BY done_ms, name)), waits,
             ({BEHIND}) FROM jobs AS job WHERE {condition} ORDER BY id DESC LIMIT ?2"
        );
        let rows: Vec<(String, String, JobView)> =
            self.read(|c| c.prepare(&sql)?.query_map(params, view)?.collect())?;
        rows.into_iter()
            .map(|(state, steps, mut view)| {
                view.state = JobState::parse(&state)
                    .ok_or_else(|| self.bad(view.id, format!("state {state:?}")))?;
                view.steps = serde_json::from_str(&steps).map_err(|e| self.bad(view.id, e))?;
                Ok(view)
            })
            .collect()
    }
}

fn view(row: &Row<'_>) -> rusqlite::Result<(String, String, JobView)> {
    let view = JobView {
        id: row.get(0)?,
        state: JobState::Pending,
        event: row.get(2)?,
        subscription_id: unsigned(row.get(3)?),
        chain_id: unsigned(row.get(4)?),
        contract: row.get(5)?,
        block_number: unsigned(row.get(6)?),
        tx_hash: row.get(7)?,
        attempts: row.get(8)?,
        waits: row.get(15)?,
        orphaned: row.get(9)?,
        last_error: row.get(10)?,
        behind: row.get(16)?,
        not_before_ms: row.get(11)?,
        created_ms: row.get(12)?,
        updated_ms: row.get(13)?,
        steps: Vec::new(),
    };
    Ok((row.get(1)?, row.get(14)?, view))
}
