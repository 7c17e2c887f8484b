//! The outbox as a whole: which subscriptions have work open, which purchases were minted by which transaction, and the
//! way back for a mint that the chain has forgotten. [`crate::reconcile`] asks.

use super::{JobState, Outbox, OutboxError, int, now_ms, unsigned};
use crate::chain::events::Event;
use crate::chain::{Address, B256};
use crate::reconcile::plan::{OpenJob, Stands};
use rusqlite::params;
use std::collections::BTreeMap;
use std::time::Duration;

/// Steps that follow from the mint: with it, they are done again.
const AFTER_MINT: &str = "('minted', 'registered', 'gecos', 'recorded')";

/// How many jobs there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// In each state that has any.
    pub by_state: Vec<(JobState, u64)>,
    /// The age of the oldest that is neither closed nor parked.
    pub oldest_open: Option<Duration>,
}

/// A purchase whose job was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purchase {
    /// Its job.
    pub job: i64,
    /// The transaction that minted its credential, once one was seen in a block.
    pub mint: Option<B256>,
}

impl Outbox {
    /// Of each subscription with open jobs the one that all others stand behind (see [`Outbox::claim`]): the one that runs, or
    /// else the cancellation, or else the oldest.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn open_jobs(
        &self,
        chain_id: u64,
        contract: Address,
    ) -> Result<BTreeMap<u64, OpenJob>, OutboxError> {
        // What waits for an event that is gone waits for a person.
        let rows: Vec<(i64, i64, bool, bool)> = self.read(|c| {
            c.prepare_cached(
                "SELECT subscription_id, id, state = 'parked' OR (state = 'pending' AND orphaned = 1), state = 'pending' AND waits > 0 FROM jobs
                 WHERE chain_id = ? AND contract = ? AND subscription_id > 0 AND state IN ('pending', 'running', 'parked')
                 ORDER BY state <> 'running', event <> 'SubscriptionCancelled' OR orphaned = 1, id",
            )?
            .query_map(params![int(chain_id), contract.to_string()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?
            .collect()
        })?;
        let mut open = BTreeMap::new();
        for (subscription, id, parked, waits) in rows {
            let stands = match (parked, waits) {
                (true, _) => Stands::Parked,
                (false, true) => Stands::Waits,
                (false, false) => Stands::Runs,
            };
            let job = OpenJob { id, stands };
            open.entry(unsigned(subscription)).or_insert(job);
        }
        Ok(open)
    }

    /// The purchases that are done, by subscription, with the transactions that minted.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn purchases(
        &self,
        chain_id: u64,
        contract: Address,
    ) -> Result<BTreeMap<u64, Purchase>, OutboxError> {
        let rows: Vec<(i64, i64, Option<String>)> = self.read(|c| {
            c.prepare_cached(
                "SELECT subscription_id, id, (SELECT hash FROM txs WHERE job_id = jobs.id AND purpose = 'mint' AND state = 'mined')
                 FROM jobs WHERE chain_id = ? AND contract = ? AND event = 'SubscriptionCreated' AND state = 'done' ORDER BY id",
            )?
            .query_map(params![int(chain_id), contract.to_string()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect()
        })?;
        rows.into_iter()
            .map(|(subscription, job, hash)| {
                let mint = hash
                    .map(|hash| {
                        hash.parse()
                            .map_err(|e| self.bad(job, format!("mint: {e}")))
                    })
                    .transpose()?;
                Ok((unsigned(subscription), Purchase { job, mint }))
            })
            .collect()
    }

    /// What was paid for and is in no record yet: subscriptions, and until when, by extensions that wait, run or are parked.
    /// One whose event is no longer on the chain pays for nothing.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn owed(
        &self,
        chain_id: u64,
        contract: Address,
    ) -> Result<BTreeMap<u64, i64>, OutboxError> {
        let rows: Vec<(i64, String)> = self.read(|c| {
            c.prepare_cached(
                "SELECT id, payload FROM jobs WHERE chain_id = ? AND contract = ? AND event = 'SubscriptionExtended'
                 AND orphaned = 0 AND state IN ('pending', 'running', 'parked')",
            )?
            .query_map(params![int(chain_id), contract.to_string()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect()
        })?;
        let mut owed = BTreeMap::new();
        for (id, payload) in rows {
            let event = serde_json::from_str(&payload)
                .map_err(|e| self.bad(id, format!("payload: {e}")))?;
            if let Event::SubscriptionExtended {
                subscription_id,
                new_expires_at,
                ..
            } = event
            {
                let until = owed.entry(subscription_id).or_insert(new_expires_at);
                *until = new_expires_at.max(*until);
            }
        }
        Ok(owed)
    }

    /// How many jobs there are in each state, and how old the oldest open one is.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn counts(&self) -> Result<Counts, OutboxError> {
        let rows: Vec<(String, i64)> = self.read(|c| {
            c.prepare_cached("SELECT state, count(*) FROM jobs GROUP BY state ORDER BY state")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        let counts = rows
            .into_iter()
            .map(|(state, n)| {
                let known = JobState::parse(&state);
                let known = known.ok_or_else(|| self.bad(0, format!("state {state:?}")))?;
                Ok((known, unsigned(n)))
            })
            .collect::<Result<_, OutboxError>>()?;
        let oldest: Option<i64> = self.read(|c| {
            c.query_row(
                "SELECT min(created_ms) FROM jobs WHERE state IN ('pending', 'running') AND orphaned = 0",
                [],
                |row| row.get(0),
            )
        })?;
        let age = |since: i64| Duration::from_millis(unsigned(now_ms().saturating_sub(since)));
        Ok(Counts {
            by_state: counts,
            oldest_open: oldest.map(age),
        })
    }

    /// Lets a job mint again: its transaction is no longer on the chain. The same signed bytes are sent first; they can be
    /// mined once at most.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn mint_again(&self, job: i64) -> Result<(), OutboxError> {
        self.write(|t| {
            let opened = t.execute(
                "UPDATE jobs SET state = 'pending', attempts = 0, waits = 0, not_before_ms = 0, updated_ms = ? WHERE id = ? AND state = 'done'",
                params![now_ms(), job],
            )?;
            if opened == 1 {
                t.execute(
                    "UPDATE txs SET state = 'live' WHERE job_id = ? AND purpose = 'mint' AND state = 'mined'",
                    [job],
                )?;
                t.execute(&format!("DELETE FROM steps WHERE job_id = ? AND name IN {AFTER_MINT}"), [job])?;
            }
            Ok(())
        })
    }
}
