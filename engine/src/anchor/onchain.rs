//! The contract `LedgerAnchor`, read: the newest head of a log, and all its anchors from the newest back to the first.

use crate::chain::bindings::LedgerAnchor;
use crate::chain::{Address, B256, Chain, ChainError};
use crate::cli::mint_nft::contract_error;
use alloy::eips::BlockId;
use alloy::providers::Provider;
use alloy::rpc::types::Filter;
use alloy::sol_types::{SolCall, SolEvent};
use blockhost_ledger::merkle::{Hash, sha256};

/// Anchors that a history may have: one a minute for two years. More is a node that makes them up.
const MOST_ANCHORS: u64 = 1 << 20;

/// Whose log, where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogId {
    /// `LedgerAnchor`.
    pub contract: Address,
    /// The account that anchors.
    pub owner: Address,
    /// SHA-256 of the log's name.
    pub origin: B256,
}

impl LogId {
    /// The log with this name in its checkpoints.
    #[must_use]
    pub fn new(contract: Address, owner: Address, origin: &str) -> Self {
        Self {
            contract,
            owner,
            origin: sha256(origin.as_bytes()).into(),
        }
    }
}

/// What the contract keeps of a log; all zero when nothing was anchored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Number of records.
    pub size: u64,
    /// RFC 6962 root.
    pub root: Hash,
    /// Seconds since 1970, of the block.
    pub time_s: u64,
    /// The block of the event.
    pub block: u64,
    /// Anchors so far.
    pub count: u64,
}

/// One anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchored {
    /// What was anchored.
    pub kept: Kept,
    /// By which transaction.
    pub tx: B256,
    previous_block: u64,
}

/// The newest head of a log, now or as of a block.
///
/// # Errors
/// [`ChainError`]; also when there is no such contract.
pub async fn latest(chain: &Chain, log: LogId, at: Option<u64>) -> Result<Kept, ChainError> {
    let block = at.map_or_else(BlockId::latest, BlockId::number);
    let head = chain
        .call("reading the newest anchor", |node| async move {
            LedgerAnchor::new(log.contract, node)
                .latest(log.owner, log.origin)
                .block(block)
                .call()
                .await
                .map_err(contract_error)
        })
        .await?;
    Ok(Kept {
        size: head.size,
        root: head.root.0,
        time_s: head.time,
        block: head.blockNumber,
        count: head.count,
    })
}

/// The anchors with these numbers in one block.
async fn in_block(chain: &Chain, log: LogId, block: u64) -> Result<Vec<Anchored>, ChainError> {
    let filter = Filter::new()
        .address(log.contract)
        .event_signature(LedgerAnchor::Anchored::SIGNATURE_HASH)
        .topic1(B256::left_padding_from(log.owner.as_slice()))
        .topic2(log.origin)
        .from_block(block)
        .to_block(block);
    let logs = chain
        .call("reading the anchors of a block", |node| {
            let filter = filter.clone();
            async move { node.get_logs(&filter).await }
        })
        .await?;
    let mut anchors = Vec::with_capacity(logs.len());
    for found in logs {
        let (Ok(event), Some(tx)) = (
            LedgerAnchor::Anchored::decode_log_validate(&found.inner),
            found.transaction_hash,
        ) else {
            continue;
        };
        // A node may answer with more than it was asked for.
        if found.inner.address != log.contract
            || event.owner != log.owner
            || event.origin != log.origin
        {
            continue;
        }
        anchors.push(Anchored {
            kept: Kept {
                size: event.size,
                root: event.root.0,
                time_s: event.time,
                block,
                count: event.count,
            },
            tx,
            previous_block: event.previousBlock,
        });
    }
    Ok(anchors)
}

/// The event of a head that the contract keeps.
///
/// # Errors
/// [`ChainError`]; [`ChainError::Unexpected`] when the node has the head and not its event.
pub async fn event_of(chain: &Chain, log: LogId, kept: Kept) -> Result<Anchored, ChainError> {
    let found = in_block(chain, log, kept.block).await?;
    found
        .into_iter()
        .find(|anchor| anchor.kept == kept)
        .ok_or_else(|| missing(kept.count, kept.block))
}

/// All anchors of a log, newest first, following the events from the newest back. None can be left out unseen: they are
/// numbered.
///
/// # Errors
/// [`ChainError`]; [`ChainError::Unexpected`] when one is missing or the numbers make no sense.
pub async fn history(chain: &Chain, log: LogId, newest: Kept) -> Result<Vec<Anchored>, ChainError> {
    if newest.count > MOST_ANCHORS {
        return Err(ChainError::Unexpected {
            what: "reading the anchors",
            detail: format!("the node says there are {}", newest.count),
        });
    }
    let mut anchors: Vec<Anchored> = Vec::new();
    let (mut block, mut of_block) = (newest.block, None);
    for count in (1..=newest.count).rev() {
        let found = match of_block.take() {
            Some((number, found)) if number == block => found,
            _ => in_block(chain, log, block).await?,
        };
        let anchor = found
            .iter()
            .find(|anchor| anchor.kept.count == count)
            .copied();
        let anchor = anchor.ok_or_else(|| missing(count, block))?;
        let fits = match anchors.last() {
            None => anchor.kept == newest,
            Some(later) => anchor.kept.size < later.kept.size,
        };
        if !fits {
            return Err(ChainError::Unexpected {
                what: "reading the anchors",
                detail: format!("number {count} in block {block} contradicts the one after it"),
            });
        }
        of_block = Some((block, found));
        block = anchor.previous_block;
        anchors.push(anchor);
    }
    Ok(anchors)
}

fn missing(count: u64, block: u64) -> ChainError {
    ChainError::Unexpected {
        what: "reading the anchors",
        detail: format!(
            "the node does not show anchor number {count}, which is in block {block}; ask another node"
        ),
    }
}

/// The call that anchors a head.
#[must_use]
pub fn anchor_call(log: LogId, size: u64, root: Hash, proof: &[Hash]) -> crate::chain::tx::Call {
    let call = LedgerAnchor::anchorCall {
        origin: log.origin,
        newSize: size,
        newRoot: root.into(),
        proof: proof.iter().map(|hash| B256::from(*hash)).collect(),
    };
    crate::chain::tx::Call::contract(log.contract, call.abi_encode())
}
