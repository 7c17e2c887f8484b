//! Puts the contracts on a chain, from the bytecode that is committed.

use super::bindings::{AccessCredentialNFT, BlockhostSubscriptions, LedgerAnchor, MockUSD};
use super::rpc::{Chain, ChainError};
use super::tx::{Call, Wallet};
use super::{Address, Bytes};
use crate::sending;
use alloy::sol_types::{SolCall, SolConstructor};
use std::path::Path;

/// Name of the credentials on the chain.
pub const NFT_NAME: &str = "BlockHost Access Credential";
/// Their symbol.
pub const NFT_SYMBOL: &str = "BHAC";

/// A deployed contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployed {
    /// Its address.
    pub address: Address,
    /// The block it was made in.
    pub block: u64,
}

/// Deploys `AccessCredentialNFT`; the deployer becomes its owner.
///
/// # Errors
/// [`ChainError`].
pub async fn deploy_nft(
    chain: &Chain,
    wallet: &Wallet,
    state_dir: &Path,
) -> Result<Deployed, ChainError> {
    let arguments = AccessCredentialNFT::constructorCall {
        name: NFT_NAME.into(),
        symbol: NFT_SYMBOL.into(),
    };
    create(
        chain,
        wallet,
        state_dir,
        "deploying AccessCredentialNFT",
        &AccessCredentialNFT::BYTECODE,
        &arguments.abi_encode(),
    )
    .await
}

/// Deploys `BlockhostSubscriptions` ("pos", point of sale); the deployer becomes its owner.
///
/// # Errors
/// [`ChainError`].
pub async fn deploy_subscriptions(
    chain: &Chain,
    wallet: &Wallet,
    state_dir: &Path,
) -> Result<Deployed, ChainError> {
    create(
        chain,
        wallet,
        state_dir,
        "deploying BlockhostSubscriptions",
        &BlockhostSubscriptions::BYTECODE,
        &[],
    )
    .await
}

/// Deploys `LedgerAnchor`. Nobody owns it; one on a chain is enough for any number of hosts.
///
/// # Errors
/// [`ChainError`].
pub async fn deploy_ledger_anchor(
    chain: &Chain,
    wallet: &Wallet,
    state_dir: &Path,
) -> Result<Deployed, ChainError> {
    create(
        chain,
        wallet,
        state_dir,
        "deploying LedgerAnchor",
        &LedgerAnchor::BYTECODE,
        &[],
    )
    .await
}

/// Deploys a token that anyone may print. Callers make sure that the chain is a local one.
///
/// # Errors
/// [`ChainError`].
pub async fn deploy_mock_usd(
    chain: &Chain,
    wallet: &Wallet,
    state_dir: &Path,
) -> Result<Deployed, ChainError> {
    let arguments = MockUSD::constructorCall {
        name: "Mock USD".into(),
        symbol: "MUSD".into(),
        decimals_: 6,
    };
    create(
        chain,
        wallet,
        state_dir,
        "deploying MockUSD",
        &MockUSD::BYTECODE,
        &arguments.abi_encode(),
    )
    .await
}

/// Sends a call that changes a contract and waits until it is mined.
///
/// # Errors
/// [`ChainError`].
pub async fn send<C: SolCall + Sync>(
    chain: &Chain,
    wallet: &Wallet,
    state_dir: &Path,
    what: &'static str,
    to: Address,
    call: &C,
) -> Result<alloy::rpc::types::TransactionReceipt, ChainError> {
    sending::execute(
        chain,
        wallet,
        state_dir,
        what,
        &Call::contract(to, call.abi_encode()),
    )
    .await
}

async fn create(
    chain: &Chain,
    wallet: &Wallet,
    state_dir: &Path,
    what: &'static str,
    bytecode: &Bytes,
    arguments: &[u8],
) -> Result<Deployed, ChainError> {
    let call = Call::create([bytecode.as_ref(), arguments].concat());
    let receipt = sending::execute(chain, wallet, state_dir, what, &call).await?;
    let address = receipt
        .contract_address
        .ok_or_else(|| ChainError::Unexpected {
            what,
            detail: "the receipt names no contract".into(),
        })?;
    let block = receipt.block_number.unwrap_or(0);
    Ok(Deployed { address, block })
}
