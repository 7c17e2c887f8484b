//! The configuration files that the engine reads, each as one typed struct. Errors name file, line and key; keys
//! nobody knows are warnings, because the files are shared with other programs.

mod broker;
mod containers;
mod file;
mod funds;
mod host;
mod network;
mod signup;
mod web3;

pub use broker::BrokerSection;
pub use containers::{ContainerNetwork, ContainersSection};
pub use file::{ConfigError, Warning};
pub use funds::FundManagerSection;
pub use host::{
    AdminSection, DestinationMode, EngineSection, HostConfig, LedgerAnchorSection, MetricsSection,
    ReconcileSection,
};
pub use network::{FlowStatsSection, NetworkConfig};
pub use signup::{SignupSection, endpoint as signup_endpoint};
pub use web3::{Blockchain, Web3Config};

use crate::chain::tx::Wallet;
use crate::chain::{Address, Chain, ChainError};
use crate::crypto::keys::{KeyFileError, PrivateKey};
use blockhost_proto::layout::Layout;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Chain ids of development chains that never reorganise by themselves.
pub const LOCAL_CHAIN_ID: u64 = 31337;
/// Blocks on top of an event before it counts, elsewhere.
pub const DEFAULT_CONFIRMATIONS: u64 = 12;
/// How long a node may take to answer.
const RPC_TIMEOUT: Duration = Duration::from_secs(20);

/// All files, read and checked together.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything lies.
    pub layout: Layout,
    /// `web3-defaults.yaml`.
    pub web3: Web3Config,
    /// `blockhost.yaml`.
    pub host: HostConfig,
    /// `network.yaml`.
    pub network: NetworkConfig,
    /// Keys that nobody knows.
    pub warnings: Vec<Warning>,
}

/// Something needed is not configured or not readable.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file is missing, unreadable or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key that this program needs is not set.
    #[error("{file} does not set {key}; {hint}", file = .file.display())]
    Missing {
        /// Where it belongs.
        file: PathBuf,
        /// Dotted key.
        key: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The endpoints.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl Config {
    /// Reads `web3-defaults.yaml` and, where they exist, `blockhost.yaml` and `network.yaml`.
    ///
    /// # Errors
    /// [`ConfigError`], naming file, line and key.
    pub fn load(layout: &Layout) -> Result<Self, ConfigError> {
        let (web3, mut warnings) = Web3Config::load(&Self::web3_path(layout))?;
        let (host, more) = HostConfig::load(&Self::host_path(layout))?;
        warnings.extend(more);
        let (network, more) = NetworkConfig::load(&Self::network_path(layout))?;
        warnings.extend(more);
        Ok(Self {
            layout: layout.clone(),
            web3,
            host,
            network,
            warnings,
        })
    }

    /// `/etc/blockhost/web3-defaults.yaml`.
    #[must_use]
    pub fn web3_path(layout: &Layout) -> PathBuf {
        layout.etc().join("web3-defaults.yaml")
    }

    /// `/etc/blockhost/blockhost.yaml`.
    #[must_use]
    pub fn host_path(layout: &Layout) -> PathBuf {
        layout.etc().join("blockhost.yaml")
    }

    /// `/etc/blockhost/network.yaml`.
    #[must_use]
    pub fn network_path(layout: &Layout) -> PathBuf {
        layout.etc().join("network.yaml")
    }

    /// The endpoints.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn chain(&self) -> Result<Chain, ChainError> {
        Chain::new(
            self.web3.blockchain.chain_id,
            &self.web3.blockchain.urls(),
            RPC_TIMEOUT,
        )
    }

    /// Blocks on top of an event before it counts.
    #[must_use]
    pub fn confirmations(&self) -> u64 {
        let chain = &self.web3.blockchain;
        chain
            .confirmations
            .unwrap_or(if chain.chain_id == LOCAL_CHAIN_ID {
                0
            } else {
                DEFAULT_CONFIRMATIONS
            })
    }

    /// The subscription contract.
    ///
    /// # Errors
    /// [`SetupError::Missing`].
    pub fn subscription_contract(&self) -> Result<Address, SetupError> {
        self.need(
            self.web3.blockchain.subscription_contract,
            "blockchain.subscription_contract",
        )
    }

    /// The credential contract.
    ///
    /// # Errors
    /// [`SetupError::Missing`].
    pub fn nft_contract(&self) -> Result<Address, SetupError> {
        self.need(self.web3.blockchain.nft_contract, "blockchain.nft_contract")
    }

    /// The contract that the ledger is anchored with.
    ///
    /// # Errors
    /// [`SetupError::Missing`].
    pub fn ledger_anchor_contract(&self) -> Result<Address, SetupError> {
        self.web3
            .blockchain
            .ledger_anchor_contract
            .ok_or_else(|| SetupError::Missing {
                file: Self::web3_path(&self.layout),
                key: "blockchain.ledger_anchor_contract",
                hint: "run `blockhost-deploy-contracts anchor --write-config`, or enter the deployed address",
            })
    }

    fn need(&self, value: Option<Address>, key: &'static str) -> Result<Address, SetupError> {
        value.ok_or_else(|| SetupError::Missing {
            file: Self::web3_path(&self.layout),
            key,
            hint: "run blockhost-deploy-contracts --write-config, or enter the deployed address",
        })
    }

    /// Path of the deployer's key: `deployer.private_key_file` of the one file, `deployer.key_file` of the other, or
    /// the usual place.
    #[must_use]
    pub fn deployer_key_path(&self) -> PathBuf {
        let configured = self
            .web3
            .deployer_key_file
            .as_deref()
            .or(self.host.deployer_key_file.as_deref());
        self.place(configured.unwrap_or(Path::new("/etc/blockhost/deployer.key")))
    }

    /// Path of the server's key.
    #[must_use]
    pub fn server_key_path(&self) -> PathBuf {
        self.place(
            self.host
                .server_key_file
                .as_deref()
                .unwrap_or(Path::new("/etc/blockhost/server.key")),
        )
    }

    /// The account that owns the contracts.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn deployer(&self) -> Result<Wallet, KeyFileError> {
        Ok(Wallet::new(&PrivateKey::from_file(
            &self.deployer_key_path(),
        )?))
    }

    /// The key that buyers encrypt to.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn server_key(&self) -> Result<PrivateKey, KeyFileError> {
        PrivateKey::from_file(&self.server_key_path())
    }

    /// Configured paths are those of the host; in another world they hang under its root, unless they name it already.
    fn place(&self, path: &Path) -> PathBuf {
        if self.layout.is_host() || path.starts_with(self.layout.root()) {
            path.to_owned()
        } else {
            self.layout.join(path)
        }
    }
}
