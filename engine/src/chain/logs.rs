//! Reading logs in pieces: public nodes limit `eth_getLogs` by range or size of the answer, each with words of its own,
//! so any refusal halves the piece and success doubles it again. A single block that is refused is asked for event by event,
//! and subscription by subscription: what one buyer puts into it must not keep everybody's events away.

use super::bindings::BlockhostSubscriptions;
use super::rpc::{Incredible, TransportError};
use super::transport::TooLarge;
use super::{Address, B256, U256, events};
use alloy::network::Ethereum;
use alloy::providers::{Provider, RootProvider};
use alloy::rpc::types::{Filter, Log};
use alloy::transports::{RpcError, TransportErrorKind};
use std::ops::RangeInclusive;

/// Subscriptions that are asked for at a time where a block is refused.
const AT_ONCE: u64 = 256;
/// More subscriptions than a contract can have sold.
const MOST_SOLD: u64 = 1 << 24;

/// How many blocks to ask for at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkSize {
    now: u64,
    most: u64,
}

impl ChunkSize {
    /// Starts at `most` blocks; at least one.
    #[must_use]
    pub fn new(most: u64) -> Self {
        let most = most.max(1);
        Self { now: most, most }
    }

    /// The last block of a piece that begins at `from` and ends at the latest at `to`.
    #[must_use]
    pub fn end(&self, from: u64, to: u64) -> u64 {
        from.saturating_add(self.now - 1).min(to)
    }

    /// The node accepted a piece.
    pub fn accepted(&mut self) {
        self.now = self.now.saturating_mul(2).min(self.most);
    }

    /// The node refused a piece. False when it was a single block already.
    pub fn refused(&mut self) -> bool {
        let shrinks = self.now > 1;
        self.now = (self.now / 2).max(1);
        shrinks
    }
}

/// Whether a smaller range could help: the node answered, with an error; or its answer took too long or broke off.
#[must_use]
pub fn may_shrink(error: &TransportError) -> bool {
    match error {
        RpcError::ErrorResp(_) | RpcError::DeserError { .. } => true,
        RpcError::Transport(alloy::transports::TransportErrorKind::HttpError(e)) => {
            matches!(e.status, 400 | 413 | 500 | 502 | 503 | 504)
        }
        RpcError::Transport(alloy::transports::TransportErrorKind::Custom(e)) => {
            let late = e.downcast_ref::<reqwest::Error>();
            late.is_some_and(reqwest::Error::is_timeout) || e.is::<TooLarge>()
        }
        _ => false,
    }
}

/// What logs are asked for: event, and what its first two indexed values are, where that matters.
pub type Topics = [Option<B256>; 3];

/// Logs of a contract within `from..=to`, in chain order, those with these topics. All logs of a single block come in parts
/// where the node refuses them together: then those of the subscription contract, which are all that anybody asks for so.
///
/// # Errors
/// What the node says.
pub async fn fetch(
    node: &RootProvider<Ethereum>,
    contract: Address,
    from: u64,
    to: u64,
    topics: Topics,
) -> Result<Vec<Log>, TransportError> {
    let range = from..=to;
    let wanted = topics.map(|topic| topic.into_iter().collect());
    let mut logs = match ask(node, contract, &range, &wanted).await {
        Err(e) if from == to && topics == [None; 3] && may_shrink(&e) => {
            match in_parts(node, contract, from).await {
                Ok(logs) => logs,
                // What it said first says more than what it said about a part.
                Err(_) => return Err(e),
            }
        }
        asked => asked?,
    };
    logs.sort_by_key(|log| (log.block_number, log.log_index));
    logs.dedup_by_key(|log| (log.block_number, log.log_index));
    Ok(logs)
}

/// Logs of a block that have one of these in each place; an empty place is open to all.
async fn ask(
    node: &RootProvider<Ethereum>,
    contract: Address,
    range: &RangeInclusive<u64>,
    topics: &[Vec<B256>; 3],
) -> Result<Vec<Log>, TransportError> {
    let mut filter = Filter::new()
        .address(contract)
        .from_block(*range.start())
        .to_block(*range.end());
    for (wanted, topics) in filter.topics.iter_mut().zip(topics) {
        *wanted = topics.clone().into();
    }
    let mut logs = node.get_logs(&filter).await?;
    // A node should send nothing else and nothing twice; ours to check, not to hope.
    logs.retain(|log| {
        let is_wanted = |(place, topics): (usize, &Vec<B256>)| {
            let topic = log.topics().get(place);
            topics.is_empty() || topic.is_some_and(|topic| topics.contains(topic))
        };
        !log.removed
            && log.inner.address == contract
            && log.block_number.is_some_and(|n| range.contains(&n))
            && topics.iter().enumerate().all(is_wanted)
    });
    Ok(logs)
}

/// The events of the subscription contract in one block, kind by kind.
async fn in_parts(
    node: &RootProvider<Ethereum>,
    contract: Address,
    block: u64,
) -> Result<Vec<Log>, TransportError> {
    let range = block..=block;
    let mut all = Vec::new();
    for event in events::topics() {
        let kind = [vec![event], Vec::new(), Vec::new()];
        match ask(node, contract, &range, &kind).await {
            Ok(logs) => all.extend(logs),
            Err(e) if may_shrink(&e) && events::is_about_a_subscription(event) => {
                all.extend(by_subscription(node, contract, block, event).await?);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

/// Those of one kind, for as few subscriptions at a time as the node wants.
async fn by_subscription(
    node: &RootProvider<Ethereum>,
    contract: Address,
    block: u64,
    event: B256,
) -> Result<Vec<Log>, TransportError> {
    let range = block..=block;
    // Of now: it only grows, and a node may have forgotten what it was then.
    let shop = BlockhostSubscriptions::new(contract, node);
    let sold = shop.getTotalSubscriptionCount().call().await;
    let sold = sold.map_err(crate::cli::mint_nft::contract_error)?;
    let sold = u64::try_from(sold).unwrap_or(u64::MAX);
    if sold > MOST_SOLD {
        let claim = format!("says that {sold} subscriptions were sold");
        return Err(TransportErrorKind::custom(Incredible(claim)));
    }
    let mut all = Vec::new();
    let mut next = 1;
    let mut size = AT_ONCE;
    while next <= sold {
        let last = next.saturating_add(size - 1).min(sold);
        let ids = (next..=last).map(|id| B256::from(U256::from(id))).collect();
        match ask(node, contract, &range, &[vec![event], ids, Vec::new()]).await {
            Ok(logs) => {
                all.extend(logs);
                next = last + 1;
                size = size.saturating_mul(2).min(AT_ONCE);
            }
            Err(e) if may_shrink(&e) && size > 1 => size /= 2,
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

/// [`fetch`] over any range, in pieces.
///
/// # Errors
/// What the node says about a single block.
pub async fn fetch_all(
    node: &RootProvider<Ethereum>,
    contract: Address,
    from: u64,
    to: u64,
    topics: Topics,
    chunk: &mut ChunkSize,
) -> Result<Vec<Log>, TransportError> {
    let mut all = Vec::new();
    let mut next = from;
    while next <= to {
        let end = chunk.end(next, to);
        match fetch(node, contract, next, end, topics).await {
            Ok(logs) => {
                all.extend(logs);
                chunk.accepted();
                next = end + 1;
            }
            Err(e) if may_shrink(&e) && chunk.refused() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_refused_single_block_cannot_shrink() {
        let mut chunk = ChunkSize::new(3);
        assert!(chunk.refused());
        assert_eq!(chunk.end(10, 100), 10);
        assert!(!chunk.refused());
    }

    proptest! {
        #[test]
        fn pieces_cover_the_range_once_whatever_the_node_refuses(from in 0u64..1000, length in 0u64..500, most in 0u64..64, mut limits in prop::collection::vec(1u64..64, 1..50)) {
            let to = from + length;
            let mut chunk = ChunkSize::new(most);
            let mut next = from;
            let mut covered = 0;
            while next <= to {
                let end = chunk.end(next, to);
                let limit = limits.pop().unwrap_or(1);
                if end - next < limit {
                    covered += end - next + 1;
                    next = end + 1;
                    chunk.accepted();
                } else {
                    prop_assert!(chunk.refused());
                }
            }
            prop_assert_eq!(covered, length + 1);
        }
    }
}
