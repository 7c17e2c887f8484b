//! What there is: balances and prices, asked of the chain. Numbers from a node are taken as claims; the planner can take
//! any.

use super::plan::{Holding, Price};
use crate::chain::bindings::{BlockhostSubscriptions, IERC20, IUniswapV2Pair, IUniswapV2Router02};
use crate::chain::{Address, Chain, ChainError, U256};
use crate::cli::mint_nft::contract_error;
use crate::config::Config;
use crate::wallets::amount::mul_div;
use crate::wallets::{Token, TokenError};

/// More ways to pay than any contract has in earnest.
const MAX_METHODS: usize = 64;
/// Uniswap's own routers, by chain id (docs.uniswap.org, "V2 deployment addresses").
const ROUTERS: [(u64, &str); 7] = [
    (1, "0x7a250d5630B4cF539739dF2C5dAcb4c659F2488D"),
    (10, "0x4A7b5Da61326A6379179b40d00F57E5bbDC962c2"),
    (56, "0x4752ba5DBc23f44D87826276BF6Fd6b1C372aD24"),
    (137, "0xedf6066a2b290C185783862C7F4776A2C8077AD1"),
    (8453, "0x4752ba5DBc23f44D87826276BF6Fd6b1C372aD24"),
    (42161, "0x4752ba5DBc23f44D87826276BF6Fd6b1C372aD24"),
    (11_155_111, "0xeE567Fe1712Faf6149d80dA1E6934E354124CfE3"),
];

/// Where this host swaps: what is configured, or Uniswap's own router.
#[must_use]
pub fn router(config: &Config) -> Option<Address> {
    config.web3.uniswap_router.or_else(|| {
        let chain_id = config.web3.blockchain.chain_id;
        ROUTERS
            .iter()
            .find(|(id, _)| *id == chain_id)
            .and_then(|(_, router)| router.parse().ok())
    })
}

/// A token that customers can pay with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Which.
    pub token: Token,
    /// What it is worth.
    pub price: Price,
}

/// All tokens that customers can pay with, also those that were accepted once: their money is still there.
///
/// # Errors
/// [`TokenError`].
pub async fn accepted(chain: &Chain, contract: Address) -> Result<Vec<Accepted>, TokenError> {
    let (ids, least) = chain
        .call("reading the payment methods", |node| async move {
            let pos = BlockhostSubscriptions::new(contract, node);
            let ids = pos
                .getPaymentMethodIds()
                .call()
                .await
                .map_err(contract_error)?;
            let least = pos.minLiquidityUsd().call().await.map_err(contract_error)?;
            Ok((ids, least))
        })
        .await?;
    let mut found: Vec<Accepted> = Vec::new();
    for id in ids.into_iter().take(MAX_METHODS) {
        let method = chain
            .call("reading a payment method", |node| async move {
                BlockhostSubscriptions::new(contract, node)
                    .getPaymentMethod(id)
                    .call()
                    .await
                    .map_err(contract_error)
            })
            .await?;
        // Decimals as the token says now: what the contract remembers is for its own prices.
        let token = match Token::of(chain, method.token).await {
            Ok(token) => token,
            // One broken token must not keep the money of the others.
            Err(TokenError::Amount(_) | TokenError::Chain(ChainError::Refused { .. })) => continue,
            Err(e) => return Err(e),
        };
        if found.iter().any(|known| known.token == token) {
            continue;
        }
        let price = if method.pair.is_zero() {
            Price::Dollar
        } else {
            pair_price(chain, token, method.pair, method.stablecoin, least).await?
        };
        found.push(Accepted { token, price });
    }
    Ok(found)
}

async fn pair_price(
    chain: &Chain,
    token: Token,
    pair: Address,
    stablecoin: Address,
    least: U256,
) -> Result<Price, TokenError> {
    let stable = Token::of(chain, stablecoin).await?;
    let (first, reserves) = chain
        .call("reading the reserves of a pair", |node| async move {
            let pair = IUniswapV2Pair::new(pair, node);
            let first = pair.token0().call().await.map_err(contract_error)?;
            let reserves = pair.getReserves().call().await.map_err(contract_error)?;
            Ok((first, reserves))
        })
        .await?;
    let (one, other) = (U256::from(reserves.reserve0), U256::from(reserves.reserve1));
    let (token_reserve, stable_reserve) = if Some(first) == token.address {
        (one, other)
    } else {
        (other, one)
    };
    let depth = Holding {
        token: stable,
        amount: stable_reserve,
        price: Price::Dollar,
    };
    // Little behind a price is a price that somebody made up.
    let deep = depth.worth().is_some_and(|worth| worth >= least);
    Ok(if deep {
        Price::Pair {
            token_reserve,
            stable_reserve,
            stable_decimals: stable.decimals,
        }
    } else {
        Price::Unknown
    })
}

/// What somebody has of these tokens.
///
/// # Errors
/// [`ChainError`].
pub async fn holdings(
    chain: &Chain,
    accepted: &[Accepted],
    owner: Address,
) -> Result<Vec<Holding>, ChainError> {
    let mut held = Vec::with_capacity(accepted.len());
    for one in accepted {
        held.push(Holding {
            token: one.token,
            amount: one.token.balance(chain, owner).await?,
            price: one.price,
        });
    }
    Ok(held)
}

/// How much a contract may take of a token.
///
/// # Errors
/// [`ChainError`].
pub async fn allowance(
    chain: &Chain,
    token: Address,
    owner: Address,
    spender: Address,
) -> Result<U256, ChainError> {
    chain
        .call("reading an allowance", |node| async move {
            IERC20::new(token, node)
                .allowance(owner, spender)
                .call()
                .await
                .map_err(contract_error)
        })
        .await
}

/// The wrapped coin of a router.
///
/// # Errors
/// [`ChainError`].
pub async fn wrapped(chain: &Chain, router: Address) -> Result<Address, ChainError> {
    chain
        .call("asking Uniswap's router for its coin", |node| async move {
            IUniswapV2Router02::new(router, node)
                .WETH()
                .call()
                .await
                .map_err(contract_error)
        })
        .await
}

/// What the router gives for an amount of one token in another, now.
///
/// # Errors
/// [`ChainError`]; refused where there is no pair.
pub async fn quote(
    chain: &Chain,
    router: Address,
    amount: U256,
    from: Address,
    to: Address,
) -> Result<U256, ChainError> {
    let amounts = chain
        .call("asking Uniswap's router for a price", |node| async move {
            IUniswapV2Router02::new(router, node)
                .getAmountsOut(amount, vec![from, to])
                .call()
                .await
                .map_err(contract_error)
        })
        .await?;
    amounts
        .last()
        .copied()
        .filter(|_| amounts.len() == 2)
        .ok_or_else(|| ChainError::Unexpected {
            what: "asking Uniswap's router for a price",
            detail: format!("it answered with {} amounts", amounts.len()),
        })
}

/// What an amount of the chain's own coin is worth in millionths of a dollar, by what one of it brings in the stablecoin: a
/// little amount itself would be priced with the rounding of the pair.
///
/// # Errors
/// [`ChainError`].
pub async fn worth_of_eth(
    chain: &Chain,
    router: Address,
    wrapped: Address,
    stable: Token,
    amount: U256,
) -> Result<U256, ChainError> {
    let one = U256::from(10).pow(U256::from(18));
    let stablecoin = stable.address.unwrap_or_default();
    let price = quote(chain, router, one, wrapped, stablecoin).await?;
    let whole = Holding {
        token: stable,
        amount: mul_div(amount, price, one).unwrap_or(U256::MAX),
        price: Price::Dollar,
    };
    Ok(whole.worth().unwrap_or(U256::MAX))
}

#[cfg(test)]
mod tests {
    use super::ROUTERS;

    #[test]
    fn every_router_is_written_without_a_mistake() {
        for (id, text) in ROUTERS {
            let found = crate::wallets::party::address(text);
            assert!(found.is_ok(), "{id}: {found:?}");
        }
    }
}
