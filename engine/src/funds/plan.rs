//! What is to be moved, from what there is: pure functions from balances, prices and settings to steps. Nothing here can
//! overflow, whatever a node claims.

use super::shares::{Recipient, WHOLE_BPS};
use super::step::{Account, Deed, Step};
use crate::chain::{Address, U256};
use crate::wallets::Token;
use crate::wallets::amount::mul_div;

/// Millionths of a dollar: what worth is counted in.
pub const USD_DECIMALS: u8 = 6;

/// What a token is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Price {
    /// A stablecoin: one is a dollar.
    Dollar,
    /// By the reserves of a pair with a stablecoin.
    Pair {
        /// Of the token, in base units.
        token_reserve: U256,
        /// Of the stablecoin, in its base units.
        stable_reserve: U256,
        /// Its decimals.
        stable_decimals: u8,
    },
    /// Nobody says so, or too little stands behind it.
    Unknown,
}

/// So much of a token somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Which.
    pub token: Token,
    /// How much, in base units.
    pub amount: U256,
    /// What it is worth.
    pub price: Price,
}

impl Holding {
    /// Its worth in millionths of a dollar. `None` where that is unknown or beyond all bounds.
    #[must_use]
    pub fn worth(&self) -> Option<U256> {
        let (units, decimals) = match self.price {
            Price::Dollar => (self.amount, self.token.decimals),
            Price::Pair {
                token_reserve,
                stable_reserve,
                stable_decimals,
            } => (
                mul_div(self.amount, stable_reserve, token_reserve)?,
                stable_decimals,
            ),
            Price::Unknown => return None,
        };
        mul_div(units, power_of_ten(USD_DECIMALS)?, power_of_ten(decimals)?)
    }

    fn is_worth(&self, least: U256) -> bool {
        !self.amount.is_zero() && self.worth().is_some_and(|worth| worth >= least)
    }
}

/// 10^n, where that fits.
#[must_use]
pub fn power_of_ten(n: u8) -> Option<U256> {
    U256::from(10).checked_pow(U256::from(n))
}

/// Takes out of the contract what is worth a transaction.
#[must_use]
pub fn withdrawals(
    contract: Address,
    held: &[Holding],
    least: U256,
    server: &Account,
    hot: Address,
) -> Vec<Step> {
    held.iter()
        .filter(|holding| holding.is_worth(least))
        .map(|holding| Step {
            from: server.clone(),
            deed: Deed::Withdraw {
                contract,
                token: holding.token,
                amount: holding.amount,
                to: hot,
            },
            why: "what customers paid".into(),
        })
        .collect()
}

/// What there is before the hot wallet pays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The account that owns the contracts.
    pub server: Account,
    /// The one that pays.
    pub hot: Account,
    /// Who gets the rest.
    pub admin: Address,
    /// The server's coin, in wei.
    pub server_eth: U256,
    /// The hot wallet's, in wei.
    pub hot_eth: U256,
    /// The primary stablecoin, and how much the server has of it.
    pub stable: Option<(Token, U256)>,
    /// The hot wallet's tokens.
    pub held: Vec<Holding>,
}

/// By which rules it pays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Worth less than this, in millionths of a dollar, a token stays where it is.
    pub least: U256,
    /// What the hot wallet should have for gas, in wei.
    pub hot_gas: U256,
    /// What the server should have of the stablecoin, in millionths of a dollar.
    pub buffer: U256,
    /// Who gets which part.
    pub recipients: Vec<Recipient>,
}

/// What cannot be planned. Nothing moves then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The hot wallet could not pay for its transactions, and the server cannot help.
    #[error(
        "the hot wallet has no eth for gas and the server has too little to give it {} eth",
        crate::wallets::amount::format(.0, 18)
    )]
    NoGas(U256),
    /// The shares come to more than there is.
    #[error("the shares of the revenue come to more than 100 percent")]
    TooMuch,
}

/// Gas for the hot wallet, the server's buffer, the recipients' shares, the rest to the admin. What is paid of a token
/// comes exactly to what there is of it.
///
/// # Errors
/// [`PlanError`].
pub fn payments(seen: &Seen, rules: &Rules) -> Result<Vec<Step>, PlanError> {
    let shares: u32 = rules.recipients.iter().map(|one| u32::from(one.bps)).sum();
    if shares > u32::from(WHOLE_BPS) {
        return Err(PlanError::TooMuch);
    }
    let mut steps = Vec::new();
    let missing = rules.hot_gas.saturating_sub(seen.hot_eth);
    if !missing.is_zero() {
        // As much again stays with the server, which has to pay for mints.
        if seen.server_eth / U256::from(2) >= missing {
            steps.push(pay(
                &seen.server,
                Token::ETH,
                missing,
                seen.hot.address,
                "gas of the hot wallet",
            ));
        } else if seen.hot_eth.is_zero() {
            return Err(PlanError::NoGas(missing));
        }
    }
    for holding in seen.held.iter().filter(|one| one.is_worth(rules.least)) {
        steps.extend(payments_of(seen, rules, holding));
    }
    Ok(steps)
}

fn payments_of(seen: &Seen, rules: &Rules, holding: &Holding) -> Vec<Step> {
    let token = holding.token;
    let mut steps = Vec::new();
    let mut left = holding.amount;
    let mut give = |amount: U256, to: Address, why: &str| {
        if !amount.is_zero() && to != seen.hot.address {
            steps.push(pay(&seen.hot, token, amount, to, why));
        }
    };
    if let Some((stable, server_has)) = seen.stable
        && stable == token
    {
        let wanted = power_of_ten(token.decimals)
            .zip(power_of_ten(USD_DECIMALS))
            .and_then(|(unit, dollar)| mul_div(rules.buffer, unit, dollar))
            .unwrap_or(U256::ZERO);
        let buffer = wanted.saturating_sub(server_has).min(left);
        give(buffer, seen.server.address, "the server's buffer");
        left -= buffer;
    }
    let whole = left;
    for one in &rules.recipients {
        // Each rounded down, and at most the whole together: the shares are at most 100 percent.
        let part = mul_div(whole, U256::from(one.bps), U256::from(WHOLE_BPS)).unwrap_or(U256::ZERO);
        give(part, one.to, &format!("share of {}", one.name));
        left = left.saturating_sub(part);
    }
    give(left, seen.admin, "the admin's");
    steps
}

fn pay(from: &Account, token: Token, amount: U256, to: Address, why: &str) -> Step {
    Step {
        from: from.clone(),
        deed: Deed::Transfer { token, amount, to },
        why: why.to_owned(),
    }
}

/// What a swap is decided by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GasSeen {
    /// Who needs gas.
    pub server: Account,
    /// What its coin is worth, in millionths of a dollar.
    pub worth: U256,
    /// The stablecoin, and how much the server has of it.
    pub stable: Token,
    /// In base units.
    pub has: U256,
    /// What the router may take already.
    pub allowance: U256,
    /// Uniswap's router.
    pub router: Address,
}

/// Why no gas is bought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gas {
    /// There is enough.
    Enough,
    /// There is too little of it, and of the stablecoin too.
    Poor,
    /// It is bought, so.
    Buy(Vec<Step>),
}

/// Buys gas when the server has less than `low` of it, for `amount`; both in millionths of a dollar.
#[must_use]
pub fn gas(seen: &GasSeen, low: U256, amount: U256, slippage_bps: u16) -> Gas {
    if seen.worth >= low {
        return Gas::Enough;
    }
    let units = power_of_ten(seen.stable.decimals)
        .zip(power_of_ten(USD_DECIMALS))
        .and_then(|(unit, dollar)| mul_div(amount, unit, dollar))
        .unwrap_or(U256::ZERO);
    if units.is_zero() || seen.has < units {
        return Gas::Poor;
    }
    Gas::Buy(swap(
        &seen.server,
        seen.stable,
        units,
        seen.allowance,
        seen.router,
        slippage_bps,
        "gas of the server",
    ))
}

/// The steps of a swap: exactly so much is approved, if it isn't already.
#[must_use]
pub fn swap(
    from: &Account,
    token: Token,
    amount: U256,
    allowance: U256,
    router: Address,
    slippage_bps: u16,
    why: &str,
) -> Vec<Step> {
    let step = |deed| Step {
        from: from.clone(),
        deed,
        why: why.to_owned(),
    };
    let approve = |amount| {
        step(Deed::Approve {
            token,
            amount,
            spender: router,
        })
    };
    let mut steps = Vec::new();
    if allowance < amount {
        // Some tokens refuse to change one that is not nothing.
        if !allowance.is_zero() {
            steps.push(approve(U256::ZERO));
        }
        steps.push(approve(amount));
    }
    steps.push(step(Deed::Swap {
        token,
        amount,
        router,
        slippage_bps,
    }));
    steps
}

/// The least that a swap has to bring, of what is quoted.
#[must_use]
pub fn least_out(quoted: U256, slippage_bps: u16) -> U256 {
    let kept = WHOLE_BPS.saturating_sub(slippage_bps);
    mul_div(quoted, U256::from(kept), U256::from(WHOLE_BPS)).unwrap_or(quoted)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
