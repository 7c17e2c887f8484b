//! `blockhost.yaml`: identities of the host, and how the engine works.

use super::file::{self, ConfigError, Warning};
use super::funds::FundManagerSection;
use super::signup::SignupSection;
use crate::chain::Address;
use serde::{Deserialize, Deserializer};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

const KNOWN: &[&str] = &[
    "server.address",
    "server.key_file",
    "deployer.key_file",
    "public_secret",
    "engine.workers",
    "engine.max_attempts",
    "engine.first_retry_s",
    "engine.create_timeout_s",
    "engine.command_timeout_s",
    "engine.replace_after_s",
    "engine.ssh_port",
    "engine.username",
    "engine.max_fee_gwei",
    "ledger_anchor.every_records",
    "ledger_anchor.every_hours",
    "ledger_anchor.max_fee_gwei",
    "ledger_anchor.look_every_s",
    "fund_manager.enabled",
    "fund_manager.fund_cycle_interval_hours",
    "fund_manager.gas_check_interval_minutes",
    "fund_manager.min_withdrawal_usd",
    "fund_manager.hot_wallet_gas_eth",
    "fund_manager.server_stablecoin_buffer_usd",
    "fund_manager.gas_low_threshold_usd",
    "fund_manager.gas_swap_amount_usd",
    "fund_manager.slippage_bps",
    "fund_manager.max_fee_gwei",
    "fund_manager.look_every_s",
    "signup.title",
    "signup.description",
    "signup.chain_name",
    "signup.currency",
    "signup.rpc_urls",
    "signup.explorer_url",
    "signup.contact",
    "signup.terms_url",
    "signup.hue",
    // Of other programs and of issues to come.
    "proxmox",
    "vm",
    "plans",
    "admin.wallet_address",
    "admin.destination_mode",
    "admin.destination_address",
    "admin.max_command_age",
    "reconcile.every_s",
    "metrics.listen",
    "network",
];

/// The file. Everything in it may be missing.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    /// `server.key_file`.
    pub server_key_file: Option<PathBuf>,
    /// `deployer.key_file`.
    pub deployer_key_file: Option<PathBuf>,
    /// `public_secret`: the text that buyers sign.
    pub public_secret: Option<String>,
    /// Section `engine`.
    pub engine: EngineSection,
    /// Section `ledger_anchor`.
    pub ledger_anchor: LedgerAnchorSection,
    /// Section `fund_manager`.
    pub fund_manager: FundManagerSection,
    /// Section `signup`.
    pub signup: SignupSection,
    /// Section `reconcile`.
    pub reconcile: ReconcileSection,
    /// Section `metrics`.
    pub metrics: MetricsSection,
    /// Section `admin`.
    pub admin: AdminSection,
}

/// Section `admin`: who may send commands by the chain, and where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSection {
    /// The administrator's wallet; without it no commands are taken.
    #[serde(deserialize_with = "super::web3::address")]
    pub wallet_address: Option<Address>,
    /// Where commands are sent to.
    pub destination_mode: DestinationMode,
    /// The address for the mode `null`.
    pub destination_address: Address,
    /// Seconds that a command may be old.
    #[serde(deserialize_with = "positive")]
    pub max_command_age: u64,
}

/// Where an administrator's transaction has to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DestinationMode {
    /// Anywhere.
    Any,
    /// To the administrator's own wallet.
    #[serde(rename = "self")]
    Own,
    /// To the address of the server's key.
    Server,
    /// To `destination_address`, which nobody has the key of.
    Null,
}

impl Default for AdminSection {
    fn default() -> Self {
        Self {
            wallet_address: None,
            destination_mode: DestinationMode::Own,
            destination_address: alloy::primitives::address!(
                "000000000000000000000000000000000000dEaD"
            ),
            max_command_age: 300,
        }
    }
}

impl AdminSection {
    /// The address that commands go to; none for anywhere.
    #[must_use]
    pub fn destination(&self, wallet: Address, server: Address) -> Option<Address> {
        match self.destination_mode {
            DestinationMode::Any => None,
            DestinationMode::Own => Some(wallet),
            DestinationMode::Server => Some(server),
            DestinationMode::Null => Some(self.destination_address),
        }
    }
}

/// Section `metrics`: for Prometheus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSection {
    /// Address and port of `GET /metrics`; without it nothing listens. It has no password: keep it to the host or to the
    /// network of the monitoring.
    pub listen: Option<SocketAddr>,
}

/// Section `reconcile`: comparing machines with the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReconcileSection {
    /// Seconds between two looks.
    #[serde(deserialize_with = "positive")]
    pub every_s: u64,
}

impl Default for ReconcileSection {
    fn default() -> Self {
        Self { every_s: 300 }
    }
}

/// Section `ledger_anchor`: when the ledger's head goes onto the chain. The contract is in `web3-defaults.yaml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerAnchorSection {
    /// After so many new records.
    #[serde(deserialize_with = "positive")]
    pub every_records: u64,
    /// And after so many hours, when there is anything new.
    #[serde(deserialize_with = "positive")]
    pub every_hours: u64,
    /// The most that a unit of gas may cost for it, in gwei; above it, the ledger waits.
    #[serde(deserialize_with = "positive")]
    pub max_fee_gwei: u64,
    /// Seconds between two looks at ledger and contract.
    #[serde(deserialize_with = "positive")]
    pub look_every_s: u64,
}

impl Default for LedgerAnchorSection {
    fn default() -> Self {
        Self {
            every_records: 10_000,
            every_hours: 24,
            max_fee_gwei: 1000,
            look_every_s: 60,
        }
    }
}

pub(super) fn positive<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match u64::deserialize(from)? {
        0 => Err(serde::de::Error::custom("it must be at least 1")),
        number => Ok(number),
    }
}

/// Section `engine`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EngineSection {
    /// Jobs of different subscriptions at the same time.
    pub workers: usize,
    /// Attempts before a job is parked. What fails for want of chain, gas, database or agent is no attempt.
    pub max_attempts: u32,
    /// Seconds before the first retry; doubles each time, up to 15 minutes.
    pub first_retry_s: u64,
    /// Seconds that a create may take.
    pub create_timeout_s: u64,
    /// Seconds that any other command may take.
    pub command_timeout_s: u64,
    /// Seconds without a receipt before a transaction is replaced by one that pays more.
    pub replace_after_s: u64,
    /// The most that a unit of gas may cost, in gwei, whatever a node says; above it, transactions wait.
    pub max_fee_gwei: u64,
    /// The port that access details name.
    pub ssh_port: u16,
    /// The user they name where the provisioner does not say.
    pub username: String,
}

impl Default for EngineSection {
    fn default() -> Self {
        Self {
            workers: 4,
            max_attempts: 8,
            first_retry_s: 5,
            create_timeout_s: 900,
            command_timeout_s: 180,
            replace_after_s: 90,
            max_fee_gwei: 1000,
            ssh_port: 22,
            username: "admin".into(),
        }
    }
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    server: KeyFile,
    #[serde(default)]
    deployer: KeyFile,
    #[serde(default)]
    public_secret: Option<String>,
    #[serde(default)]
    engine: EngineSection,
    #[serde(default)]
    ledger_anchor: LedgerAnchorSection,
    #[serde(default)]
    fund_manager: FundManagerSection,
    #[serde(default)]
    reconcile: ReconcileSection,
    #[serde(default)]
    metrics: MetricsSection,
    #[serde(default)]
    admin: AdminSection,
    #[serde(default)]
    signup: SignupSection,
}

#[derive(Default, Deserialize)]
struct KeyFile {
    #[serde(default)]
    key_file: Option<PathBuf>,
}

impl HostConfig {
    /// Reads the file; a missing one gives the defaults.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), ConfigError> {
        let Some(text) = file::read(path)? else {
            return Ok((Self::default(), Vec::new()));
        };
        let (raw, warnings) = file::parse::<Raw>(path, &text, KNOWN)?;
        let config = Self {
            server_key_file: raw.server.key_file,
            deployer_key_file: raw.deployer.key_file,
            public_secret: raw.public_secret,
            engine: raw.engine,
            ledger_anchor: raw.ledger_anchor,
            fund_manager: raw.fund_manager,
            reconcile: raw.reconcile,
            metrics: raw.metrics,
            admin: raw.admin,
            signup: raw.signup,
        };
        Ok((config, warnings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_gives_the_defaults() {
        let (config, warnings) =
            HostConfig::load(Path::new("/nonexistent/blockhost.yaml")).unwrap();
        assert_eq!(config.engine, EngineSection::default());
        assert!(warnings.is_empty());
    }

    #[test]
    fn never_and_all_the_time_are_no_ways_to_anchor() {
        let read = |text: &str| {
            file::parse::<Raw>(Path::new("blockhost.yaml"), text, KNOWN)
                .map(|(raw, _)| raw.ledger_anchor)
                .map_err(|e| e.to_string())
        };
        assert_eq!(read("{}").unwrap(), LedgerAnchorSection::default());
        let section = read("ledger_anchor: {every_records: 5, every_hours: 1}").unwrap();
        assert_eq!((section.every_records, section.every_hours), (5, 1));
        for bad in [
            "every_records: 0",
            "every_hours: 0",
            "every_hours: -1",
            "max_fee_gwei: 0",
            "look_every_s: 0",
            "every_hour: 1",
        ] {
            let key = bad.split(':').next().unwrap();
            let error = read(&format!("ledger_anchor:\n  {bad}\n")).unwrap_err();
            assert!(error.contains(key), "{bad}: {error}");
        }
    }

    #[test]
    fn metrics_have_an_address_and_a_port_or_are_off() {
        let read = |text: &str| {
            file::parse::<Raw>(Path::new("blockhost.yaml"), text, KNOWN)
                .map(|(raw, _)| raw.metrics.listen)
                .map_err(|e| e.to_string())
        };
        assert_eq!(read("{}").unwrap(), None);
        let listen = read("metrics: {listen: '[::1]:9469'}").unwrap().unwrap();
        assert!(listen.ip().is_loopback() && listen.port() == 9469);
        for bad in ["9469", "localhost", "127.0.0.1", "'127.0.0.1:99999'"] {
            let error = read(&format!("metrics:\n  listen: {bad}\n")).unwrap_err();
            assert!(error.contains("listen"), "{bad}: {error}");
        }
    }

    #[test]
    fn an_administrators_commands_go_where_the_mode_says() {
        let read = |text: &str| {
            file::parse::<Raw>(Path::new("blockhost.yaml"), text, KNOWN)
                .map(|(raw, _)| raw.admin)
                .map_err(|e| e.to_string())
        };
        let (wallet, server) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let dead: Address = "0x000000000000000000000000000000000000dEaD"
            .parse()
            .unwrap();
        for (mode, expected) in [
            ("any", None),
            ("self", Some(wallet)),
            ("server", Some(server)),
            ("'null'", Some(dead)),
        ] {
            let section = read(&format!("admin: {{destination_mode: {mode}}}")).unwrap();
            assert_eq!(section.destination(wallet, server), expected, "{mode}");
        }
        assert_eq!(read("{}").unwrap().max_command_age, 300);
        for bad in [
            "wallet_address: '0x00'",
            "destination_mode: all",
            "max_command_age: 0",
            "wallet: '0x00'",
        ] {
            assert!(read(&format!("admin:\n  {bad}\n")).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_seeds_example_is_understood_without_warnings() {
        let text = "server: {address: '0x00', key_file: '/etc/blockhost/server.key'}\n\
                    deployer: {key_file: '/etc/blockhost/deployer.key'}\n\
                    proxmox: {node: 'proxmox', storage: 'local-lvm', bridge: 'vmbr0'}\n\
                    admin: {wallet_address: '0x00000000000000000000000000000000000000aa', destination_mode: 'self'}\n";
        let (raw, warnings) = file::parse::<Raw>(Path::new("blockhost.yaml"), text, KNOWN).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(
            raw.server.key_file.unwrap(),
            Path::new("/etc/blockhost/server.key")
        );
    }
}
