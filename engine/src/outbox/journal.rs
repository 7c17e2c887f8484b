//! Signed transactions. A row is written before the network sees the bytes; while one of a job's rows is live or mined,
//! nothing new is signed for the same purpose.

use super::{Outbox, OutboxError, int, now_ms, unsigned};
use crate::chain::tx::{Call, Fees, Signed};
use crate::chain::{Address, B256, Bytes};
use rusqlite::{OptionalExtension, Row, params};
use std::fmt;

/// What became of a signed transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxState {
    /// May still be mined.
    Live,
    /// In a block, done.
    Mined,
    /// In a block, undone by the contract.
    Reverted,
    /// Its nonce went to another transaction: it can never be mined.
    Dead,
}

impl fmt::Display for TxState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Live => "live",
            Self::Mined => "mined",
            Self::Reverted => "reverted",
            Self::Dead => "dead",
        })
    }
}

/// A row of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalTx {
    /// The signed transaction.
    pub signed: Signed,
    /// What it does, to sign it again with other fees.
    pub call: Call,
    /// When it was signed, milliseconds since 1970.
    pub signed_ms: i64,
    /// The job it is for; 0 for what no event of the chain asked for.
    pub job: i64,
    /// What it is for: what has one purpose happens once.
    pub purpose: String,
}

pub(super) const COLUMNS: &str =
    "hash, raw, nonce, fees, gas_limit, recipient, data, signed_ms, value, job_id, purpose";

impl Outbox {
    /// Writes down a signed transaction.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn journal(
        &self,
        job: i64,
        purpose: &str,
        chain_id: u64,
        sender: Address,
        call: &Call,
        signed: &Signed,
    ) -> Result<(), OutboxError> {
        let recipient = call.to.map_or_else(String::new, |to| to.to_string());
        self.write(|t| {
            t.execute(
                "INSERT INTO txs (hash, job_id, purpose, chain_id, sender, recipient, data, nonce, gas_limit, fees, raw, state, signed_ms, value)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'live', ?, ?)",
                params![
                    signed.hash.to_string(),
                    job,
                    purpose,
                    int(chain_id),
                    sender.to_string(),
                    recipient,
                    call.data.as_ref(),
                    int(signed.nonce),
                    int(signed.gas_limit),
                    print_fees(signed.fees),
                    signed.raw.as_ref(),
                    now_ms(),
                    call.value.to_string()
                ],
            )
            .map(drop)
        })
    }

    /// The transactions of a job for one purpose that are live or mined, oldest first.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn journaled(&self, job: i64, purpose: &str) -> Result<Vec<JournalTx>, OutboxError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM txs WHERE job_id = ? AND purpose = ? AND state IN ('live', 'mined') ORDER BY signed_ms, hash"
        );
        let rows: Vec<_> = self.read(|c| {
            c.prepare_cached(&sql)?
                .query_map(params![job, purpose], raw_row)?
                .collect()
        })?;
        rows.into_iter()
            .map(|row| parse(row).map_err(|e| self.bad(job, e)))
            .collect()
    }

    /// Everything that was ever signed for one purpose with one nonce, whatever became of it: at most one of these is in a
    /// block. Another process may have added to them.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn siblings(
        &self,
        chain_id: u64,
        sender: Address,
        one: &JournalTx,
    ) -> Result<Vec<JournalTx>, OutboxError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM txs WHERE job_id = ? AND purpose = ? AND chain_id = ? AND sender = ? AND nonce = ? ORDER BY signed_ms, hash"
        );
        let rows: Vec<_> = self.read(|c| {
            c.prepare_cached(&sql)?
                .query_map(
                    params![
                        one.job,
                        one.purpose,
                        int(chain_id),
                        sender.to_string(),
                        int(one.signed.nonce)
                    ],
                    raw_row,
                )?
                .collect()
        })?;
        rows.into_iter()
            .map(|row| parse(row).map_err(|e| self.bad(one.job, e)))
            .collect()
    }

    /// The job that a journaled transaction belongs to.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn job_of_tx(&self, hash: B256) -> Result<Option<i64>, OutboxError> {
        self.read(|c| {
            c.prepare_cached("SELECT job_id FROM txs WHERE hash = ?")?
                .query_row([hash.to_string()], |row| row.get(0))
                .optional()
        })
    }

    /// All live transactions of an account, by nonce.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Content`].
    pub fn live_txs(&self, chain_id: u64, sender: Address) -> Result<Vec<JournalTx>, OutboxError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM txs WHERE chain_id = ? AND sender = ? AND state = 'live' ORDER BY nonce, signed_ms"
        );
        let rows: Vec<_> = self.read(|c| {
            c.prepare_cached(&sql)?
                .query_map(params![int(chain_id), sender.to_string()], raw_row)?
                .collect()
        })?;
        rows.into_iter()
            .map(|row| parse(row).map_err(|e| self.bad(0, e)))
            .collect()
    }

    /// Settles a transaction, in this block where it is in one. Those that shared its nonce are dead with that.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn settle(
        &self,
        signed: &Signed,
        state: TxState,
        block: Option<u64>,
    ) -> Result<(), OutboxError> {
        let hash = signed.hash.to_string();
        self.write(|t| {
            t.execute(
                "UPDATE txs SET state = ?, block = ? WHERE hash = ?",
                params![state.to_string(), block.map(int), hash],
            )?;
            if matches!(state, TxState::Mined | TxState::Reverted) {
                t.execute(
                    "UPDATE txs SET state = 'dead' WHERE state = 'live' AND hash <> ?1 AND (chain_id, sender, nonce) =
                     (SELECT chain_id, sender, nonce FROM txs WHERE hash = ?1)",
                    [hash],
                )?;
            }
            Ok(())
        })
    }
}

pub(super) type RawRow = (
    (String, Vec<u8>, i64, String, i64),
    (String, Vec<u8>, i64, String, i64, String),
);

pub(super) fn raw_row(row: &Row<'_>) -> rusqlite::Result<RawRow> {
    Ok((
        (
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get(3)?,
            row.get(4)?,
        ),
        (
            row.get(5)?,
            row.get(6)?,
            row.get(7)?,
            row.get(8)?,
            row.get(9)?,
            row.get(10)?,
        ),
    ))
}

pub(super) fn parse(
    ((hash, raw, nonce, fees, gas_limit), (recipient, data, signed_ms, value, job, purpose)): RawRow,
) -> Result<JournalTx, String> {
    let to = if recipient.is_empty() {
        None
    } else {
        Some(recipient.parse().map_err(|e| format!("recipient: {e}"))?)
    };
    let signed = Signed {
        hash: hash.parse().map_err(|e| format!("hash: {e}"))?,
        raw: Bytes::from(raw),
        nonce: unsigned(nonce),
        fees: parse_fees(&fees).ok_or_else(|| format!("fees {fees:?}"))?,
        gas_limit: unsigned(gas_limit),
    };
    Ok(JournalTx {
        signed,
        call: Call {
            to,
            data: Bytes::from(data),
            value: value.parse().map_err(|e| format!("value: {e}"))?,
        },
        signed_ms,
        job,
        purpose,
    })
}

fn print_fees(fees: Fees) -> String {
    match fees {
        Fees::Dynamic { max, tip } => format!("{max}/{tip}"),
        Fees::Legacy { price } => price.to_string(),
    }
}

fn parse_fees(text: &str) -> Option<Fees> {
    match text.split_once('/') {
        Some((max, tip)) => Some(Fees::Dynamic {
            max: max.parse().ok()?,
            tip: tip.parse().ok()?,
        }),
        None => Some(Fees::Legacy {
            price: text.parse().ok()?,
        }),
    }
}
