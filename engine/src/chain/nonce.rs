//! Which transaction used a nonce of an account, as the blocks say it. Receipts do not: a node that was set up anew, or one
//! of several behind an address, has none of what is in its own blocks, and "no receipt" is then no reason to pay again.

use super::rpc::{Endpoint, describe};
use super::{Address, B256, ChainError};
use alloy::providers::Provider;
use alloy::rpc::types::BlockNumberOrTag;
use serde::Deserialize;

/// Blocks that are read one by one where a node has no older states: a full node keeps those of 128 blocks.
const MOST_READ: u64 = 400;

/// Who has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// It is not used.
    Nobody,
    /// It is used.
    Transaction {
        /// By this one.
        hash: B256,
        /// In this block.
        block: u64,
    },
}

/// As much of a block as is looked at: chains have kinds of transactions that no program knows all of.
#[derive(Debug, Deserialize)]
struct Block {
    transactions: Vec<Transaction>,
}

#[derive(Debug, Deserialize)]
struct Transaction {
    hash: B256,
    from: Address,
    #[serde(default)]
    nonce: Option<alloy::primitives::U64>,
}

/// Finds it. `hint` is a block that it was seen in.
///
/// # Errors
/// [`ChainError::Unexpected`] where the node cannot tell: it then is not known, and nothing may be signed in its place.
pub async fn holder(
    node: &Endpoint,
    account: Address,
    nonce: u64,
    hint: Option<u64>,
) -> Result<Holder, ChainError> {
    let look = Look {
        node,
        account,
        nonce,
    };
    let head = node.provider().get_block_number().await;
    let head = head.map_err(|e| look.failed(&describe(&e)))?;
    if let Some(block) = hint.filter(|block| *block > head) {
        return Err(look.failed(&format!(
            "is at block {head} and has not seen block {block} yet"
        )));
    }
    if let Some(block) = hint
        && let Some(hash) = look.in_block(block).await?
    {
        return Ok(Holder::Transaction { hash, block });
    }
    if !look.is_used_at(head).await? {
        return Ok(Holder::Nobody);
    }
    // Backwards in growing steps: what is looked for is near the head, and nodes forget old states.
    let (mut used, mut step) = (head, 1);
    let mut first = loop {
        let Some(before) = used.checked_sub(step) else {
            break 0;
        };
        match look.is_used_at(before).await {
            Ok(true) => (used, step) = (before, step.saturating_mul(2)),
            Ok(false) => break before + 1,
            Err(e) => return look.read_back(used, e).await,
        }
    };
    while first < used {
        let middle = first.midpoint(used);
        match look.is_used_at(middle).await {
            Ok(true) => used = middle,
            Ok(false) => first = middle + 1,
            Err(e) => return look.read_back(used, e).await,
        }
    }
    match look.in_block(used).await? {
        Some(hash) => Ok(Holder::Transaction { hash, block: used }),
        None => Err(look.failed(&format!(
            "says that block {used} used it, and no transaction there did"
        ))),
    }
}

struct Look<'a> {
    node: &'a Endpoint,
    account: Address,
    nonce: u64,
}

impl Look<'_> {
    async fn is_used_at(&self, block: u64) -> Result<bool, ChainError> {
        let count = self.node.provider().get_transaction_count(self.account);
        let count = count.number(block).await;
        count
            .map(|count| count > self.nonce)
            .map_err(|e| self.failed(&describe(&e)))
    }

    /// Looks through blocks from `used` on backwards, where a node does not say what was before. Blocks it has without old
    /// states, too.
    async fn read_back(&self, used: u64, why: ChainError) -> Result<Holder, ChainError> {
        for block in (used.saturating_sub(MOST_READ)..=used).rev() {
            if let Some(hash) = self.in_block(block).await? {
                return Ok(Holder::Transaction { hash, block });
            }
        }
        Err(why)
    }

    async fn in_block(&self, number: u64) -> Result<Option<B256>, ChainError> {
        let number_of = BlockNumberOrTag::Number(number);
        let asked = self
            .node
            .provider()
            .raw_request::<_, Option<Block>>("eth_getBlockByNumber".into(), (number_of, true))
            .await
            .map_err(|e| self.failed(&describe(&e)))?;
        let block = asked.ok_or_else(|| self.failed(&format!("does not have block {number}")))?;
        let found = block.transactions.into_iter().find(|one| {
            one.from == self.account
                && one
                    .nonce
                    .is_some_and(|nonce| nonce.to::<u64>() == self.nonce)
        });
        Ok(found.map(|one| one.hash))
    }

    fn failed(&self, why: &str) -> ChainError {
        ChainError::Unexpected {
            what: "finding out which transaction used a nonce",
            detail: format!(
                "nonce {} of {}: {} {why}; nothing is signed in its place until a node says it. If this stays so, put one that \
                 keeps older states first in blockchain.rpc_urls",
                self.nonce,
                self.account,
                self.node.host()
            ),
        }
    }
}
