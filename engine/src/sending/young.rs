//! A look at what is in a block that may still be taken back: is it there? Where there is no receipt, the blocks say it. What
//! the chain has forgotten is live again, as the same signed bytes with the same nonce, so that it happens once whatever
//! history wins. What follows for an order is [`crate::funds`]'s.

use super::SendError;
use crate::chain::nonce::{self, Holder};
use crate::chain::rpc::Endpoint;
use crate::chain::rpc::describe;
use crate::chain::{B256, Chain, ChainError};
use crate::outbox::{JournalTx, Outbox, StepKey, TxState, Young};
use alloy::providers::Provider;
use alloy::rpc::types::TransactionReceipt;
use std::time::Duration;

/// A transaction so many blocks below the head is not asked for again.
const FINAL_DEPTH: u64 = 256;
/// Transactions that are looked at in one look, the newest first.
const MOST: u64 = 200;
/// Before a node is believed that a transaction is gone: it may be in the middle of changing its mind.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// A transaction that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenBack {
    /// The transaction.
    pub row: JournalTx,
    /// The block in which it was seen.
    pub block: u64,
    /// True when it is in another block now, where the contract undid it; else it is in none.
    pub reverted: bool,
    /// True when a step of an order is to be done again for it.
    pub reopened: bool,
}

/// Looks at all of them. `step_of` says which step of an order a purpose is.
///
/// # Errors
/// [`SendError`]; what was found up to there is kept.
pub async fn look(
    chain: &Chain,
    outbox: &Outbox,
    step_of: impl Fn(&str) -> Option<StepKey>,
) -> Result<Vec<TakenBack>, SendError> {
    let young = outbox.young_txs(chain.chain_id(), MOST)?;
    if young.is_empty() {
        return Ok(Vec::new());
    }
    // One node for the whole look: two of them may see different histories.
    let (node, head) = chain.select().await?;
    let mut suspects = Vec::new();
    // In the order in which they were signed: what comes first is done again first.
    for one in young.into_iter().rev() {
        // A node that is behind has not seen it yet.
        if head >= one.block && found(outbox, node, head, &one).await? != Found::There {
            suspects.push(one);
        }
    }
    if suspects.is_empty() {
        return Ok(Vec::new());
    }
    tokio::time::sleep(SECOND_LOOK).await;
    let mut gone = Vec::new();
    for one in suspects {
        let mut found = found(outbox, node, head, &one).await?;
        if found == Found::Nowhere && is_in_a_block(outbox, node, head, &one).await? {
            found = Found::There;
        }
        let (now, why) = match found {
            Found::There => continue,
            Found::Reverted => (
                TxState::Reverted,
                "undone by the contract in another block, after a reorganisation",
            ),
            Found::Nowhere => (TxState::Live, "taken back by a reorganisation of the chain"),
        };
        let hash = one.row.signed.hash;
        let why = format!("transaction {hash} was {why}");
        let reopened = outbox.taken_back(hash, now, step_of(&one.row.purpose), &why)?;
        gone.push(TakenBack {
            row: one.row,
            block: one.block,
            reverted: found == Found::Reverted,
            reopened,
        });
    }
    Ok(gone)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// In a block, and it did what it should.
    There,
    /// In a block, without effect.
    Reverted,
    /// In none.
    Nowhere,
}

/// Where it is, from one answer. Where that is another block than before, or a deep one, that is kept.
async fn found(
    outbox: &Outbox,
    node: &Endpoint,
    head: u64,
    one: &Young,
) -> Result<Found, SendError> {
    let receipt = match receipt(node, one.row.signed.hash).await? {
        None => return Ok(Found::Nowhere),
        Some(receipt) if !receipt.status() => return Ok(Found::Reverted),
        Some(receipt) => receipt,
    };
    note(outbox, head, one, receipt.block_number.unwrap_or(one.block))?;
    Ok(Found::There)
}

/// Whether a block has it although the node has no receipt of it.
async fn is_in_a_block(
    outbox: &Outbox,
    node: &Endpoint,
    head: u64,
    one: &Young,
) -> Result<bool, SendError> {
    let hint = Some(one.block);
    match nonce::holder(node, one.sender, one.row.signed.nonce, hint).await? {
        Holder::Transaction { hash, block } if hash == one.row.signed.hash => {
            note(outbox, head, one, block)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn note(outbox: &Outbox, head: u64, one: &Young, block: u64) -> Result<(), SendError> {
    let is_final = head.saturating_sub(block) >= FINAL_DEPTH;
    if is_final || block != one.block {
        outbox.seen_in(one.row.signed.hash, (!is_final).then_some(block))?;
    }
    Ok(())
}

/// The receipt, as this node has it.
pub(crate) async fn receipt(
    node: &Endpoint,
    hash: B256,
) -> Result<Option<TransactionReceipt>, SendError> {
    let asked = node.provider().get_transaction_receipt(hash);
    asked.await.map_err(|e| {
        SendError::Chain(ChainError::Unexpected {
            what: "looking for a receipt",
            detail: format!("{} {}", node.host(), describe(&e)),
        })
    })
}
