//! What is in a block that a reorganisation may still take back: remembered with that block, and the way back for a
//! transaction that the chain has forgotten, and for the step that it did. [`crate::sending::young`] asks.

use super::journal::{COLUMNS, parse, raw_row};
use super::{JournalTx, Outbox, OutboxError, TxState, int, now_ms, unsigned};
use crate::chain::{Address, B256};
use rusqlite::params;

/// What may still be mined, or mined again.
pub(super) const UNSETTLED: &str = "chain_id = ? AND sender = ? AND nonce >= ?
    AND (state = 'live' OR (state = 'mined' AND block IS NOT NULL)) ORDER BY nonce, signed_ms";

/// The step of an order that a transaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepKey {
    /// Which order.
    pub order: i64,
    /// Its step, from 1.
    pub number: i64,
    /// Which attempt at it.
    pub attempt: u32,
}

/// A transaction that may be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Young {
    /// The transaction.
    pub row: JournalTx,
    /// Whose it is.
    pub sender: Address,
    /// The block it was last seen in.
    pub block: u64,
}

impl Outbox {
    /// Transactions of no job that are in a block which may still be taken back, newest first, at most so many. Mints are
    /// not among them: they belong to jobs, and what becomes of them [`crate::reconcile`] sees.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn young_txs(&self, chain_id: u64, most: u64) -> Result<Vec<Young>, OutboxError> {
        let sql = format!(
            "SELECT {COLUMNS}, block, sender FROM txs WHERE job_id = 0 AND chain_id = ? AND state = 'mined' AND block IS NOT NULL
             ORDER BY signed_ms DESC, nonce DESC LIMIT ?"
        );
        self.placed(&sql, params![int(chain_id), int(most)])
    }

    /// A transaction that is in a block which may still be taken back; none where that is known to be deep.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn young_tx(&self, hash: B256) -> Result<Option<Young>, OutboxError> {
        let sql = format!(
            "SELECT {COLUMNS}, block, sender FROM txs WHERE hash = ? AND state = 'mined' AND block IS NOT NULL"
        );
        let found = self.placed(&sql, params![hash.to_string()])?;
        Ok(found.into_iter().next())
    }

    fn placed(&self, sql: &str, which: &[&dyn rusqlite::ToSql]) -> Result<Vec<Young>, OutboxError> {
        let rows: Vec<_> = self.read(|c| {
            c.prepare_cached(sql)?
                .query_map(which, |row| {
                    let at = (row.get::<_, i64>(11)?, row.get::<_, String>(12)?);
                    Ok((raw_row(row)?, at))
                })?
                .collect()
        })?;
        rows.into_iter()
            .map(|(row, (block, sender))| {
                let sender = sender.parse();
                Ok(Young {
                    row: parse(row).map_err(|e| self.bad(0, e))?,
                    sender: sender.map_err(|e| self.bad(0, format!("sender: {e}")))?,
                    block: unsigned(block),
                })
            })
            .collect()
    }

    /// Everything that was ever signed for one purpose of no job, whatever became of it.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn signed_for(&self, chain_id: u64, purpose: &str) -> Result<Vec<JournalTx>, OutboxError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM txs WHERE job_id = 0 AND chain_id = ? AND purpose = ? ORDER BY nonce, signed_ms"
        );
        let rows: Vec<_> = self.read(|c| {
            c.prepare_cached(&sql)?
                .query_map(params![int(chain_id), purpose], raw_row)?
                .collect()
        })?;
        rows.into_iter()
            .map(|row| parse(row).map_err(|e| self.bad(0, e)))
            .collect()
    }

    /// Transactions of an account that may be mined, or mined again, with this nonce or a later one, by nonce.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn unsettled_txs(
        &self,
        chain_id: u64,
        sender: Address,
        from: u64,
    ) -> Result<Vec<JournalTx>, OutboxError> {
        let sql = format!("SELECT {COLUMNS} FROM txs WHERE {UNSETTLED}");
        let rows: Vec<_> = self.read(|c| {
            c.prepare_cached(&sql)?
                .query_map(
                    params![int(chain_id), sender.to_string(), int(from)],
                    raw_row,
                )?
                .collect()
        })?;
        rows.into_iter()
            .map(|row| parse(row).map_err(|e| self.bad(0, e)))
            .collect()
    }

    /// A transaction was seen in another block than before; none when its block is too deep to be taken back.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn seen_in(&self, hash: B256, block: Option<u64>) -> Result<(), OutboxError> {
        self.write(|t| {
            t.execute(
                "UPDATE txs SET block = ? WHERE hash = ? AND state = 'mined'",
                params![block.map(int), hash.to_string()],
            )
            .map(drop)
        })
    }

    /// The chain has forgotten a transaction, or undid it in another block: it is `now` that. The step that it did, if its
    /// order was not given up, is to be done again, in one change with that. Gives whether there was such a step.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn taken_back(
        &self,
        hash: B256,
        now: TxState,
        step: Option<StepKey>,
        why: &str,
    ) -> Result<bool, OutboxError> {
        self.write(|t| {
            let changed = t.execute(
                "UPDATE txs SET state = ?, block = NULL WHERE hash = ? AND state = 'mined'",
                params![now.to_string(), hash.to_string()],
            )?;
            let Some(step) = step.filter(|_| changed == 1) else {
                return Ok(false);
            };
            // What was given up as a whole must not go on because a part of it was undone.
            let reopened = t.execute(
                "UPDATE order_steps SET state = 'planned', outcome = NULL, recorded = 0, last_error = ?4, updated_ms = ?5
                 WHERE order_id = ?1 AND number = ?2 AND attempt = ?3 AND state = 'done'
                 AND order_id IN (SELECT id FROM orders WHERE state IN ('open', 'done'))",
                params![step.order, step.number, step.attempt, why, now_ms()],
            )?;
            if reopened == 1 {
                t.execute(
                    "UPDATE orders SET state = 'open', ended_ms = NULL, not_before_ms = 0, detail = ? WHERE id = ?",
                    params![why, step.order],
                )?;
            }
            Ok(reopened == 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{OrderState, SCHEMA, SCHEMA_2, StepState};
    use super::*;
    use crate::chain::tx::{Call, Fees, Signed, Wallet, sign};
    use crate::chain::{Address, U256};
    use crate::crypto::keys::PrivateKey;

    const CHAIN: u64 = 31337;
    const STEP: StepKey = StepKey {
        order: 1,
        number: 1,
        attempt: 0,
    };

    fn paid(outbox: &Outbox, job: i64, nonce: u64) -> Signed {
        let wallet = Wallet::new(&PrivateKey::from_hex(&"01".repeat(32)).unwrap());
        let call = Call::pay(Address::repeat_byte(2), U256::from(7));
        let fees = Fees::Legacy { price: 5 };
        let signed = sign(&wallet, CHAIN, &call, nonce, 21_000, fees).unwrap();
        outbox
            .journal(job, "funds 1.1.0", CHAIN, wallet.address(), &call, &signed)
            .unwrap();
        outbox.settle(&signed, TxState::Mined, Some(10)).unwrap();
        signed
    }

    fn ordered(outbox: &Outbox, end: OrderState) -> Signed {
        let bodies = ["{}".to_owned(), "{}".to_owned()];
        let order = outbox.open_order(CHAIN, "round", "pay", &bodies).unwrap();
        let signed = paid(outbox, 0, 3);
        outbox.finish_order_step(order, 1, "{}").unwrap();
        outbox.step_recorded(order, 1).unwrap();
        outbox.end_order(order, end, None).unwrap();
        signed
    }

    #[test]
    fn what_was_taken_back_is_to_be_done_again_once_and_recorded_again() {
        let outbox = Outbox::in_memory().unwrap();
        let hash = ordered(&outbox, OrderState::Done).hash;
        let young = outbox.young_txs(CHAIN, 10).unwrap().remove(0);
        assert_eq!(young.block, 10);
        assert_eq!(outbox.young_tx(hash).unwrap(), Some(young));
        let taken = |now| outbox.taken_back(hash, now, Some(STEP), "gone").unwrap();
        assert!(taken(TxState::Live));
        assert!(!taken(TxState::Live), "once");
        assert_eq!(outbox.young_txs(CHAIN, 10).unwrap(), []);
        assert_eq!(outbox.young_tx(hash).unwrap(), None);
        assert_eq!(outbox.journaled(0, "funds 1.1.0").unwrap().len(), 1);
        assert!(outbox.is_live(0, "funds 1.1.0").unwrap());
        let order = outbox.open_orders(CHAIN).unwrap().remove(0);
        assert_eq!((order.id, order.ended_ms), (1, None));
        let step = outbox.steps_of(1).unwrap().remove(0);
        assert_eq!(
            (step.state, step.recorded, step.outcome),
            (StepState::Planned, false, None)
        );
    }

    #[test]
    fn a_step_of_an_order_that_was_given_up_or_of_another_attempt_stays_as_it_is() {
        let outbox = Outbox::in_memory().unwrap();
        let hash = ordered(&outbox, OrderState::Abandoned).hash;
        assert!(
            !outbox
                .taken_back(hash, TxState::Live, Some(STEP), "gone")
                .unwrap()
        );
        assert_eq!(outbox.open_orders(CHAIN).unwrap(), []);
        assert!(
            outbox.is_live(0, "funds 1.1.0").unwrap(),
            "sent again all the same"
        );

        let outbox = Outbox::in_memory().unwrap();
        let hash = ordered(&outbox, OrderState::Done).hash;
        let later = StepKey { attempt: 1, ..STEP };
        assert!(
            !outbox
                .taken_back(hash, TxState::Live, Some(later), "gone")
                .unwrap()
        );
        assert_eq!(outbox.steps_of(1).unwrap()[0].state, StepState::Done);
    }

    #[test]
    fn a_nonce_that_may_be_free_again_is_known_until_the_block_is_deep() {
        let outbox = Outbox::in_memory().unwrap();
        let (ours, mint) = (paid(&outbox, 0, 3), paid(&outbox, 7, 4));
        let sender = Wallet::new(&PrivateKey::from_hex(&"01".repeat(32)).unwrap()).address();
        let nonces = || -> Vec<u64> {
            let rows = outbox.unsettled_txs(CHAIN, sender, 3).unwrap();
            rows.iter().map(|row| row.signed.nonce).collect()
        };
        assert_eq!(nonces(), [3, 4]);
        assert_eq!(
            outbox.young_txs(CHAIN, 10).unwrap().len(),
            1,
            "mints are jobs'"
        );
        outbox.seen_in(ours.hash, Some(12)).unwrap();
        assert_eq!(outbox.young_txs(CHAIN, 10).unwrap()[0].block, 12);
        outbox.seen_in(ours.hash, None).unwrap();
        outbox.seen_in(mint.hash, None).unwrap();
        assert_eq!(nonces(), Vec::<u64>::new());
        let signed = outbox.signed_for(CHAIN, "funds 1.1.0").unwrap();
        assert_eq!((signed.len(), signed[0].signed.nonce), (1, 3));
    }

    #[test]
    fn what_was_mined_before_there_was_this_is_taken_to_be_deep() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox.db");
        {
            let old = rusqlite::Connection::open(&path).unwrap();
            old.execute_batch(SCHEMA).unwrap();
            old.execute_batch(SCHEMA_2).unwrap();
            old.pragma_update(None, "user_version", 2).unwrap();
            old.execute(
                "INSERT INTO txs VALUES ('0x01', 0, 'pay', 31337, 'a', 'b', x'', 3, 21000, '5', x'', 'mined', 1, '0')",
                [],
            )
            .unwrap();
        }
        let outbox = Outbox::open_to_send(&path).unwrap();
        assert_eq!(outbox.young_txs(CHAIN, 10).unwrap(), []);
        drop(outbox);
        assert!(Outbox::open_to_send(&path).is_ok(), "opened again");
    }
}
