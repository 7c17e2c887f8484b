//! The plans of the subscription contract, as it has them. `bw plan` changes them; `blockhost status` and
//! `blockhost config check` look.

use super::bindings::BlockhostSubscriptions;
use super::{Address, Chain, ChainError, U256};
use crate::cli::mint_nft::contract_error;
use alloy::rpc::types::BlockId;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

/// More plans than any contract has in earnest.
const MOST: u64 = 1000;
/// Questions to a node at the same time.
const AT_ONCE: usize = 8;

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its number, from 1.
    pub id: u64,
    /// Its name, as whoever owned the contract wrote it.
    pub name: String,
    /// US cents for a day.
    pub cents: U256,
    /// Whether it can be bought, and what runs on it be extended.
    pub active: bool,
}

/// How many there are: their numbers are 1 to this.
///
/// # Errors
/// [`ChainError`].
pub async fn count(chain: &Chain, contract: Address) -> Result<u64, ChainError> {
    const WHAT: &str = "counting the plans";
    let count = chain
        .call(WHAT, |node| async move {
            let pos = BlockhostSubscriptions::new(contract, node);
            pos.getTotalPlanCount().call().await.map_err(contract_error)
        })
        .await?;
    u64::try_from(count)
        .ok()
        .filter(|count| *count <= MOST)
        .ok_or_else(|| ChainError::Unexpected {
            what: WHAT,
            detail: format!("there are {count} of them, more than the {MOST} that are looked at"),
        })
}

/// Some of them, in this order; as they are now, or as they were after a block.
///
/// # Errors
/// [`ChainError`]; refused for a number that no plan has.
pub async fn some(
    chain: &Chain,
    contract: Address,
    ids: impl IntoIterator<Item = u64>,
    after: Option<u64>,
) -> Result<Vec<Plan>, ChainError> {
    let block = after.map_or_else(BlockId::latest, BlockId::number);
    let one = |id: u64| async move {
        let found = chain
            .call("reading a plan", |node| async move {
                let pos = BlockhostSubscriptions::new(contract, node);
                let plan = pos.getPlan(U256::from(id)).block(block);
                plan.call().await.map_err(contract_error)
            })
            .await?;
        Ok(Plan {
            id,
            name: found.name,
            cents: found.pricePerDayUsdCents,
            active: found.active,
        })
    };
    let asked = stream::iter(ids).map(one).buffered(AT_ONCE);
    asked.try_collect().await
}

/// All of them.
///
/// # Errors
/// [`ChainError`].
pub async fn all(chain: &Chain, contract: Address) -> Result<Vec<Plan>, ChainError> {
    let last = count(chain, contract).await?;
    some(chain, contract, 1..=last, None).await
}
