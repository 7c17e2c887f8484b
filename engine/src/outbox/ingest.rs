//! From the chain into the outbox: events and cursor in one transaction, and what a reorganisation takes back.

use super::jobs::ENDED;
use super::{Outbox, OutboxError, int, now_ms, unsigned};
use crate::chain::events::{Event, Located};
use crate::chain::{Address, B256};
use rusqlite::{OptionalExtension, params};

/// Blocks whose hashes are kept to find where two histories part.
const KEPT_BLOCKS: u64 = 4096;

/// The job of an event that a reorganisation took away.
pub(super) const ORPHAN: &str = "SELECT id FROM jobs
    WHERE chain_id = ? AND contract = ? AND subscription_id = ? AND event = ? AND tx_hash = ? AND orphaned = 1 ORDER BY id LIMIT 1";

/// Why a job that was closed by hand is parked.
const RETURNED: &str = "it was closed by hand; the chain has changed its history since, and its event is in it (again): decide anew, \
    with `blockhost jobs retry` or `blockhost jobs close`";

/// How far the chain was processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The last processed block.
    pub number: u64,
    /// Its hash then.
    pub hash: B256,
}

/// What one piece of the chain brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ingested {
    /// New jobs.
    pub new: usize,
    /// Started jobs whose event a reorganisation moved: found again.
    pub adopted: usize,
    /// Jobs that contradict one that was started before a reorganisation: parked at once.
    pub contradicting: Vec<i64>,
    /// Jobs that were closed by hand and whose event a reorganisation took away and brought back: parked at once.
    pub returned: Vec<i64>,
}

/// What a reorganisation took back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolledBack {
    /// Jobs that had not begun and are gone.
    pub removed: usize,
    /// Jobs that had begun: their event is not on the chain any more. Somebody has to know.
    pub started: Vec<i64>,
}

impl Outbox {
    /// The last processed block of a contract.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn cursor(&self, chain_id: u64, contract: Address) -> Result<Option<Cursor>, OutboxError> {
        Ok(self.known_blocks(chain_id, contract, 1)?.into_iter().next())
    }

    /// Processed blocks whose hash is known, newest first.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn known_blocks(
        &self,
        chain_id: u64,
        contract: Address,
        limit: usize,
    ) -> Result<Vec<Cursor>, OutboxError> {
        let rows: Vec<(i64, String)> = self.read(|c| {
            c.prepare_cached("SELECT number, hash FROM blocks WHERE chain_id = ? AND contract = ? ORDER BY number DESC LIMIT ?")?
                .query_map(params![int(chain_id), contract.to_string(), int(limit as u64)], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        rows.into_iter()
            .map(|(number, hash)| {
                Ok(Cursor {
                    number: unsigned(number),
                    hash: hash.parse().map_err(|e| self.bad(0, e))?,
                })
            })
            .collect()
    }

    /// Takes over the events up to and including the block `to`, and remembers that block, in one step. Seeing an event
    /// again changes nothing.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn ingest(
        &self,
        chain_id: u64,
        contract: Address,
        events: &[Located],
        to: Cursor,
    ) -> Result<Ingested, OutboxError> {
        self.write(|t| {
            let mut ingested = Ingested::default();
            for located in events {
                take(t, chain_id, contract, located, &mut ingested)?;
            }
            let key = (int(chain_id), contract.to_string());
            t.execute("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?)", params![key.0, key.1, int(to.number), to.hash.to_string()])?;
            let oldest = int(to.number.saturating_sub(KEPT_BLOCKS));
            // One older block stays as the last resort of a search for the common ancestor.
            t.execute(
                "DELETE FROM blocks WHERE chain_id = ?1 AND contract = ?2 AND number < ?3 AND number NOT IN
                 (SELECT max(number) FROM blocks WHERE chain_id = ?1 AND contract = ?2 AND number < ?3)",
                params![key.0, key.1, oldest],
            )?;
            Ok(ingested)
        })
    }

    /// Takes over events of blocks that were read before; how far was read stays as it is.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn ingest_again(
        &self,
        chain_id: u64,
        contract: Address,
        events: &[Located],
    ) -> Result<Ingested, OutboxError> {
        self.write(|t| {
            let mut ingested = Ingested::default();
            for located in events {
                take(t, chain_id, contract, located, &mut ingested)?;
            }
            Ok(ingested)
        })
    }

    /// Whether the purchase of a subscription was ever seen.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn knows(
        &self,
        chain_id: u64,
        contract: Address,
        subscription: u64,
    ) -> Result<bool, OutboxError> {
        self.read(|c| {
            c.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM jobs WHERE chain_id = ? AND contract = ? AND subscription_id = ? AND event = 'SubscriptionCreated')",
            )?
            .query_row(
                params![int(chain_id), contract.to_string(), int(subscription)],
                |row| row.get(0),
            )
        })
    }

    /// Forgets everything above the block `ancestor`: the chain has another history from there on. `None` forgets all.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn roll_back(
        &self,
        chain_id: u64,
        contract: Address,
        ancestor: Option<u64>,
    ) -> Result<RolledBack, OutboxError> {
        self.write(|t| {
            let above = ancestor.map_or(-1, int);
            let key = params![int(chain_id), contract.to_string(), above];
            let removed = t.execute("DELETE FROM jobs WHERE chain_id = ? AND contract = ? AND block_number > ? AND started = 0", key)?;
            let started = t
                .prepare(
                    "UPDATE jobs SET orphaned = 1 WHERE chain_id = ? AND contract = ? AND block_number > ? AND orphaned = 0 RETURNING id",
                )?
                .query_map(key, |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            t.execute("DELETE FROM blocks WHERE chain_id = ? AND contract = ? AND number > ?", key)?;
            Ok(RolledBack { removed, started })
        })
    }
}

fn take(
    t: &rusqlite::Transaction<'_>,
    chain_id: u64,
    contract: Address,
    located: &Located,
    ingested: &mut Ingested,
) -> rusqlite::Result<()> {
    let Located { position, event } = located;
    let (chain, contract) = (int(chain_id), contract.to_string());
    let (subscription, name) = (int(event.subscription_id()), event.name());
    let (block, index) = (position.block_hash.to_string(), int(position.log_index));
    let payload = serde_json::to_string(event)
        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;

    // The same event of the same transaction, moved to another block by a reorganisation: the job goes on.
    let orphan: Option<i64> = t
        .query_row(
            ORPHAN,
            params![
                chain,
                contract,
                subscription,
                name,
                position.tx_hash.to_string()
            ],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(id) = orphan {
        t.execute(
            "UPDATE jobs SET orphaned = 0, block_number = ?, block_hash = ?, log_index = ?, payload = ?, updated_ms = ? WHERE id = ?",
            params![int(position.block_number), block, index, payload, now_ms(), id],
        )?;
        ingested.adopted += 1;
        // Perhaps it was closed because it was gone: then nobody has decided about it as it is now.
        let returned = t.execute(
            &format!("UPDATE jobs AS job SET state = 'parked', last_error = ? WHERE id = ? AND state = 'superseded' AND NOT {ENDED}"),
            params![RETURNED, id],
        )?;
        if returned == 1 {
            ingested.returned.push(id);
        }
        return Ok(());
    }
    // Ids are given once: a second purchase under one id means that the first one's history is gone.
    let contradicts = matches!(event, Event::SubscriptionCreated { .. })
        && t.query_row(
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE chain_id = ? AND contract = ? AND subscription_id = ? AND event = ? AND started = 1
             AND NOT (block_hash = ? AND log_index = ?))",
            params![chain, contract, subscription, name, block, index],
            |row| row.get(0),
        )?;
    let (state, error) = if contradicts {
        (
            "parked",
            Some(
                "another purchase with this id was started before the chain changed its history; decide by hand which one is served",
            ),
        )
    } else {
        ("pending", None)
    };
    let now = now_ms();
    let inserted = t.execute(
        "INSERT OR IGNORE INTO jobs (chain_id, contract, subscription_id, event, block_number, block_hash, log_index, tx_hash, payload,
         state, last_error, created_ms, updated_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            chain,
            contract,
            subscription,
            name,
            int(position.block_number),
            block,
            index,
            position.tx_hash.to_string(),
            payload,
            state,
            error,
            now,
            now
        ],
    )?;
    ingested.new += inserted;
    if inserted == 1 && contradicts {
        ingested.contradicting.push(t.last_insert_rowid());
    }
    Ok(())
}
