//! The contracts of a world: who owns them, putting them on the chain, and telling the host where they are.

use std::time::Duration;

use alloy::primitives::Address;

use super::ScenarioError;
use crate::customer::Wallet;
use crate::world::config::{self, Deployed, RPC_URL};
use crate::world::{World, at};

/// The contracts of the world.
#[derive(Debug, Clone, Copy)]
pub struct Contracts {
    /// `AccessCredentialNFT`.
    pub nft: Address,
    /// `BlockhostSubscriptions`.
    pub subscriptions: Address,
    /// The stablecoin of the local chain.
    pub stablecoin: Address,
    /// First block that can hold an event of theirs.
    pub block: u64,
}

/// The owner of the contracts: who the key of the host's `deployer` belongs to.
///
/// # Errors
/// [`ScenarioError`] when the key cannot be read.
pub fn owner(world: &World) -> Result<Wallet, ScenarioError> {
    let path = world.layout.etc().join("deployer.key");
    let text = at("reading", &path, std::fs::read_to_string(&path))?;
    let key = hex::decode(text.trim())
        .map_err(|error| ScenarioError::Wrong(format!("{}: {error}", path.display())))?;
    Ok(Wallet::new(&key, RPC_URL)?)
}

/// Deploys the contracts with the product's own command and writes the host's configuration. The owner is the
/// administrator, too, and gets ether for it.
///
/// # Errors
/// [`ScenarioError`].
pub fn deploy(world: &World, operator: &Wallet) -> Result<Contracts, ScenarioError> {
    operator.give_ether(operator.address(), 100)?;
    config::write_chain(world, None, &operator.address_text())?;
    let args = ["--dev-stablecoin", "--json"];
    let output = world.run("blockhost-deploy-contracts", &args, Duration::from_secs(60))?;
    let answer: serde_json::Value = serde_json::from_str(output.last_line()).unwrap_or_default();
    let address = |key: &str| {
        let text = answer[key].as_str().unwrap_or_default();
        text.parse::<Address>().map_err(|_| {
            ScenarioError::Wrong(format!(
                "blockhost-deploy-contracts printed no {key}: {answer}"
            ))
        })
    };
    let contracts = Contracts {
        nft: address("nft_contract")?,
        subscriptions: address("subscription_contract")?,
        stablecoin: address("usdc_address")?,
        block: answer["block"].as_u64().ok_or_else(|| {
            ScenarioError::Wrong(format!(
                "blockhost-deploy-contracts printed no block: {answer}"
            ))
        })?,
    };
    let deployed = Deployed {
        nft: contracts.nft.to_string(),
        subscriptions: contracts.subscriptions.to_string(),
        stablecoin: contracts.stablecoin.to_string(),
        block: contracts.block,
    };
    config::write_chain(world, Some(&deployed), &operator.address_text())?;
    Ok(contracts)
}
