//! `web3-defaults.yaml`: chain, contracts, keys.

use super::file::{self, ConfigError, Warning};
use crate::chain::Address;
use serde::{Deserialize, Deserializer};
use std::path::{Path, PathBuf};

const KNOWN: &[&str] = &[
    "blockchain.chain_id",
    "blockchain.rpc_url",
    "blockchain.rpc_urls",
    "blockchain.nft_contract",
    "blockchain.subscription_contract",
    "blockchain.usdc_address",
    "blockchain.ledger_anchor_contract",
    "blockchain.start_block",
    "blockchain.confirmations",
    "blockchain.poll_interval_s",
    "blockchain.max_log_range",
    "deployer.private_key_file",
    "server.public_key",
    "uniswap.router",
    // Of other programs.
    "auth",
    "signing_page",
];

/// The file.
#[derive(Debug, Clone)]
pub struct Web3Config {
    /// Section `blockchain`.
    pub blockchain: Blockchain,
    /// `deployer.private_key_file`: file with the key of the contracts' owner.
    pub deployer_key_file: Option<PathBuf>,
    /// `server.public_key`: what buyers encrypt to.
    pub server_public_key: Option<String>,
    /// `uniswap.router`: where tokens are swapped; without it, Uniswap's own on the chains that have one.
    pub uniswap_router: Option<Address>,
}

/// Section `blockchain`.
#[derive(Debug, Clone, Deserialize)]
pub struct Blockchain {
    /// Which chain; nodes of another are not used.
    pub chain_id: u64,
    /// The first RPC endpoint.
    #[serde(default)]
    pub rpc_url: Option<String>,
    /// More of them, in order of preference. Those with `ws:` or `wss:` tell of new blocks, the others answer questions.
    #[serde(default)]
    pub rpc_urls: Vec<String>,
    /// `AccessCredentialNFT`.
    #[serde(default, deserialize_with = "address")]
    pub nft_contract: Option<Address>,
    /// `BlockhostSubscriptions`.
    #[serde(default, deserialize_with = "address")]
    pub subscription_contract: Option<Address>,
    /// The primary stablecoin.
    #[serde(default, deserialize_with = "address")]
    pub usdc_address: Option<Address>,
    /// `LedgerAnchor`; nothing is anchored without it.
    #[serde(default, deserialize_with = "address")]
    pub ledger_anchor_contract: Option<Address>,
    /// Block to begin with when nothing was processed yet; without it, the one in which the contract was made.
    #[serde(default)]
    pub start_block: Option<u64>,
    /// Blocks on top of an event before it counts.
    #[serde(default)]
    pub confirmations: Option<u64>,
    /// Seconds between two looks at the chain.
    #[serde(default)]
    pub poll_interval_s: Option<u64>,
    /// Most blocks in one request for logs.
    #[serde(default)]
    pub max_log_range: Option<u64>,
}

const DEFAULT_LOG_RANGE: u64 = 2000;

impl Blockchain {
    /// Most blocks in one request for logs.
    #[must_use]
    pub fn log_range(&self) -> u64 {
        self.max_log_range.unwrap_or(DEFAULT_LOG_RANGE)
    }

    /// All endpoints, each once, in order of preference.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let mut urls: Vec<String> = Vec::new();
        for url in self
            .rpc_url
            .iter()
            .chain(&self.rpc_urls)
            .filter(|url| !url.is_empty())
        {
            if !urls.contains(url) {
                urls.push(url.clone());
            }
        }
        urls
    }
}

#[derive(Deserialize)]
struct Raw {
    blockchain: Blockchain,
    #[serde(default)]
    deployer: RawDeployer,
    #[serde(default)]
    server: RawServer,
    #[serde(default)]
    uniswap: RawUniswap,
}

#[derive(Default, Deserialize)]
struct RawUniswap {
    #[serde(default, deserialize_with = "address")]
    router: Option<Address>,
}

#[derive(Default, Deserialize)]
struct RawDeployer {
    #[serde(default)]
    private_key_file: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
struct RawServer {
    #[serde(default)]
    public_key: Option<String>,
}

impl Web3Config {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`]; a missing file is one.
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), ConfigError> {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let text = file::read(path)?.ok_or_else(|| ConfigError::Read {
            path: path.to_owned(),
            source: missing(),
        })?;
        let (raw, warnings) = file::parse::<Raw>(path, &text, KNOWN)?;
        let config = Self {
            blockchain: raw.blockchain,
            deployer_key_file: raw.deployer.private_key_file,
            server_public_key: raw.server.public_key,
            uniswap_router: raw.uniswap.router,
        };
        Ok((config, warnings))
    }
}

/// An address or nothing: files written before the contracts exist leave it empty.
pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Address>, D::Error> {
    let text = Option::<String>::deserialize(from)?.unwrap_or_default();
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    crate::wallets::party::address(text)
        .map(Some)
        .map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Web3Config, String> {
        file::parse::<Raw>(Path::new("web3-defaults.yaml"), text, KNOWN)
            .map(|(raw, _)| Web3Config {
                blockchain: raw.blockchain,
                deployer_key_file: None,
                server_public_key: None,
                uniswap_router: raw.uniswap.router,
            })
            .map_err(|e| e.to_string())
    }

    #[test]
    fn an_address_with_a_mistyped_digit_is_named_with_its_line() {
        let error = load("blockchain:\n  chain_id: 1\n  nft_contract: '0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92265'\n").unwrap_err();
        assert!(
            error.contains(":3:") && error.contains("nft_contract") && error.contains("checksum"),
            "{error}"
        );
    }

    #[test]
    fn a_file_from_before_the_deployment_is_accepted() {
        let config = load("blockchain: {chain_id: 31337, rpc_url: 'http://127.0.0.1:8545', nft_contract: '', subscription_contract: null}").unwrap();
        assert!(config.blockchain.nft_contract.is_none());
    }

    #[test]
    fn endpoints_are_taken_once_in_order() {
        let config = load("blockchain: {chain_id: 1, rpc_url: a, rpc_urls: [b, a, c]}").unwrap();
        assert_eq!(config.blockchain.urls(), ["a", "b", "c"]);
    }
}
