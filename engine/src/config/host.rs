//! `blockhost.yaml`: identities of the host, and how the engine works.

use super::file::{self, ConfigError, Warning};
use serde::{Deserialize, Deserializer};
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
    // Of other programs and of issues to come.
    "proxmox",
    "vm",
    "admin",
    "fund_manager",
    "signup",
    "reconcile",
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

fn positive<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
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
    /// Attempts before a job is parked.
    pub max_attempts: u32,
    /// Seconds before the first retry; doubles each time.
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
    fn the_seeds_example_is_understood_without_warnings() {
        let text = "server: {address: '0x00', key_file: '/etc/blockhost/server.key'}\n\
                    deployer: {key_file: '/etc/blockhost/deployer.key'}\n\
                    proxmox: {node: 'proxmox', storage: 'local-lvm', bridge: 'vmbr0'}\n\
                    admin: {wallet_address: '0x00', destination_mode: 'self'}\n";
        let (raw, warnings) = file::parse::<Raw>(Path::new("blockhost.yaml"), text, KNOWN).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(
            raw.server.key_file.unwrap(),
            Path::new("/etc/blockhost/server.key")
        );
    }
}
