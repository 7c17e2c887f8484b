//! Reading blocks once more that were read already, because somebody asks for it: what a node left out then becomes a job
//! now. The cursor stays; what is known stays as it is. [`crate::cli::jobs`] asks.

use super::{MonitorError, block_hash, failed};
use crate::chain::bindings::BlockhostSubscriptions;
use crate::chain::events::{Event, Located};
use crate::chain::logs::{self, ChunkSize};
use crate::chain::rpc::{Endpoint, describe};
use crate::chain::{Address, Chain, U256, events};
use crate::outbox::{Outbox, now_ms};
use serde::Serialize;
use std::collections::BTreeSet;

/// What reading again brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Again {
    /// The first block.
    pub from: u64,
    /// The last one.
    pub to: u64,
    /// Events in them.
    pub events: usize,
    /// New jobs.
    pub new: usize,
    /// Subscriptions that were left out: they are over, and nothing was ever done for them.
    pub over: BTreeSet<u64>,
}

/// Reads `from` and what follows, up to `to` or to what was read already.
///
/// # Errors
/// [`MonitorError`]; what was taken over before it is right by itself, and reading again takes over the rest.
pub async fn read_again(
    chain: &Chain,
    outbox: &Outbox,
    contract: Address,
    (from, to): (u64, Option<u64>),
    max_range: u64,
) -> Result<Again, MonitorError> {
    let cursor = outbox.cursor(chain.chain_id(), contract)?;
    let read = cursor.map(|cursor| cursor.number);
    let Some(cursor) = cursor.filter(|cursor| from <= cursor.number) else {
        return Err(MonitorError::NotYet { from, read });
    };
    let to = to.map_or(cursor.number, |to| to.min(cursor.number));
    let (node, _) = chain.select().await?;
    let mut chunk = ChunkSize::new(max_range);
    let mut again = Again {
        from,
        to,
        ..Again::default()
    };
    let mut next = from;
    while next <= to {
        let end = chunk.end(next, to);
        let logs = match logs::fetch(node.provider(), contract, next, end, [None; 3]).await {
            Ok(logs) => logs,
            Err(e) if logs::may_shrink(&e) && chunk.refused() => continue,
            Err(e) => return Err(failed("reading logs", node, &e)),
        };
        chunk.accepted();
        let mut found = Vec::with_capacity(logs.len());
        for log in &logs {
            found.extend(events::decode(log)?);
        }
        again.events += found.len();
        let wanted = without_over(chain, outbox, (node, contract), found, &mut again.over).await?;
        // A node on another history would bring what is none of ours.
        if block_hash(node, cursor.number).await? != Some(cursor.hash) {
            return Err(MonitorError::OtherHistory {
                host: node.host().to_owned(),
                block: cursor.number,
            });
        }
        let taken = outbox.ingest_again(chain.chain_id(), contract, &wanted)?;
        again.new += taken.new;
        next = end + 1;
    }
    Ok(again)
}

/// Leaves out what is about subscriptions that are over and that nothing was done for: a machine that nobody pays for would
/// be made, and destroyed again.
async fn without_over(
    chain: &Chain,
    outbox: &Outbox,
    (node, contract): (&Endpoint, Address),
    found: Vec<Located>,
    over: &mut BTreeSet<u64>,
) -> Result<Vec<Located>, MonitorError> {
    let mut asked = BTreeSet::new();
    for located in &found {
        let id = located.event.subscription_id();
        if id == 0 || !asked.insert(id) || outbox.knows(chain.chain_id(), contract, id)? {
            continue;
        }
        if is_over(node, contract, id).await? {
            over.insert(id);
        }
    }
    let is_wanted = |event: &Event| !over.contains(&event.subscription_id());
    Ok(found
        .into_iter()
        .filter(|located| is_wanted(&located.event))
        .collect())
}

async fn is_over(node: &Endpoint, contract: Address, id: u64) -> Result<bool, MonitorError> {
    let pos = BlockhostSubscriptions::new(contract, node.provider());
    let asked = pos.getSubscription(U256::from(id)).call().await;
    let found = asked.map_err(|e| MonitorError::Node {
        what: "reading a subscription",
        host: node.host().to_owned(),
        reason: describe(&crate::cli::mint_nft::contract_error(e)),
    })?;
    let expires_at = i64::try_from(found.expiresAt).unwrap_or(i64::MAX);
    Ok(found.cancelled || expires_at <= now_ms() / 1000)
}
