//! Reading logs in pieces: public nodes limit `eth_getLogs` by range or size of the answer, each with words of its own,
//! so any refusal halves the piece and success doubles it again.

use super::rpc::TransportError;
use super::transport::TooLarge;
use super::{Address, B256};
use alloy::network::Ethereum;
use alloy::providers::{Provider, RootProvider};
use alloy::rpc::types::{Filter, Log};
use alloy::transports::RpcError;

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

/// Logs of a contract within `from..=to`, in chain order, those with these topics.
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
    let mut filter = Filter::new()
        .address(contract)
        .from_block(from)
        .to_block(to);
    for (wanted, topic) in filter.topics.iter_mut().zip(topics) {
        if let Some(topic) = topic {
            *wanted = topic.into();
        }
    }
    let mut logs = node.get_logs(&filter).await?;
    // A node should send nothing else and nothing twice; ours to check, not to hope.
    logs.retain(|log| {
        !log.removed
            && log.inner.address == contract
            && log.block_number.is_some_and(|n| (from..=to).contains(&n))
            && (topics.iter().enumerate())
                .all(|(place, topic)| topic.is_none() || log.topics().get(place) == topic.as_ref())
    });
    logs.sort_by_key(|log| (log.block_number, log.log_index));
    logs.dedup_by_key(|log| (log.block_number, log.log_index));
    Ok(logs)
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
