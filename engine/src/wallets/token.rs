//! Which money: the chain's own coin, the primary stablecoin, or a token by its address.

use super::amount::{self, AmountError, Decimal, MAX_DECIMALS};
use super::party::{self, PartyError};
use crate::chain::bindings::{BlockhostSubscriptions, IERC20};
use crate::chain::{Address, Chain, ChainError, U256};
use crate::cli::mint_nft::contract_error;
use crate::config::Config;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A token as people name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenName {
    /// The chain's own coin.
    Eth,
    /// The primary stablecoin of the subscription contract.
    Stable,
    /// A token by its contract.
    Contract(Address),
}

impl FromStr for TokenName {
    type Err = PartyError;

    fn from_str(text: &str) -> Result<Self, PartyError> {
        match text {
            "eth" => Ok(Self::Eth),
            "stable" => Ok(Self::Stable),
            _ if text.starts_with("0x") => party::address(text).map(Self::Contract),
            _ => Err(PartyError::Name {
                text: text.chars().take(42).collect(),
                reason: "a token is eth, stable, or the address of its contract".into(),
            }),
        }
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eth => f.write_str("eth"),
            Self::Stable => f.write_str("stable"),
            Self::Contract(address) => write!(f, "{address}"),
        }
    }
}

/// A token that is known: which one, and how finely it divides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its contract; none for the chain's own coin.
    pub address: Option<Address>,
    /// Digits after the point.
    pub decimals: u8,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => f.write_str("eth"),
            Some(address) => write!(f, "{address}"),
        }
    }
}

/// Why a token could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The endpoints, or the token's contract.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// It says absurd things about itself.
    #[error(transparent)]
    Amount(#[from] AmountError),
    /// There is no stablecoin yet.
    #[error(
        "no primary stablecoin is set; set one with `bw config stable <address>`, or name the token by its address"
    )]
    NoStable,
}

impl Token {
    /// The chain's own coin.
    pub const ETH: Self = Self {
        address: None,
        decimals: 18,
    };

    /// Finds out about a token.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn find(chain: &Chain, config: &Config, name: TokenName) -> Result<Self, TokenError> {
        match name {
            TokenName::Eth => Ok(Self::ETH),
            TokenName::Contract(address) => Self::of(chain, address).await,
            TokenName::Stable => {
                let address = primary_stablecoin(chain, config)
                    .await?
                    .ok_or(TokenError::NoStable)?;
                Self::of(chain, address).await
            }
        }
    }

    /// The token of a contract.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn of(chain: &Chain, address: Address) -> Result<Self, TokenError> {
        let decimals = chain
            .call("reading a token's decimals", |node| async move {
                IERC20::new(address, node)
                    .decimals()
                    .call()
                    .await
                    .map_err(contract_error)
            })
            .await?;
        if decimals > MAX_DECIMALS {
            return Err(AmountError::Decimals(decimals).into());
        }
        Ok(Self {
            address: Some(address),
            decimals,
        })
    }

    /// How much of it somebody has, in base units.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn balance(self, chain: &Chain, owner: Address) -> Result<U256, ChainError> {
        let Some(address) = self.address else {
            return crate::chain::tx::balance(chain, owner).await;
        };
        chain
            .call("reading a token's balance", |node| async move {
                IERC20::new(address, node)
                    .balanceOf(owner)
                    .call()
                    .await
                    .map_err(contract_error)
            })
            .await
    }

    /// An amount of it in base units; more than nothing.
    ///
    /// # Errors
    /// [`AmountError`].
    pub fn units(self, amount: &Decimal) -> Result<U256, AmountError> {
        amount.positive_units(self.decimals)
    }

    /// An amount of it as people write it.
    #[must_use]
    pub fn show(self, units: &U256) -> String {
        amount::format(units, self.decimals)
    }
}

/// The stablecoin that the subscription contract takes first; what is configured, where there is no contract yet.
///
/// # Errors
/// [`ChainError`].
pub async fn primary_stablecoin(
    chain: &Chain,
    config: &Config,
) -> Result<Option<Address>, ChainError> {
    let Some(contract) = config.web3.blockchain.subscription_contract else {
        return Ok(config.web3.blockchain.usdc_address);
    };
    let found = chain
        .call("reading the primary stablecoin", |node| async move {
            BlockhostSubscriptions::new(contract, node)
                .getPrimaryStablecoin()
                .call()
                .await
                .map_err(contract_error)
        })
        .await?;
    Ok(Some(found).filter(|address| !address.is_zero()))
}
