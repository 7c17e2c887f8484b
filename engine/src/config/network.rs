//! `network.yaml`: how the host's network is looked after. Other parts of it belong to other planners.

use super::broker::BrokerSection;
use super::containers::ContainersSection;
use super::file::{self, ConfigError, Warning};
use serde::{Deserialize, Deserializer};
use std::path::Path;

const KNOWN: &[&str] = &["flow_stats.every_s", "containers", "broker"];

/// The file. A missing one means: nothing of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct NetworkConfig {
    /// Section `flow_stats`; without it the switches' counters are not recorded.
    #[serde(default)]
    pub flow_stats: Option<FlowStatsSection>,
    /// Section `containers`; without it no container of another manager gets a wire.
    #[serde(default)]
    pub containers: Option<ContainersSection>,
    /// Section `broker`; without it no broker is asked for a network.
    #[serde(default)]
    pub broker: Option<BrokerSection>,
}

/// Section `flow_stats`: how often what the switches counted goes into the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowStatsSection {
    /// Seconds between two looks: 10 to 86400.
    #[serde(deserialize_with = "seconds")]
    pub every_s: u64,
}

impl Default for FlowStatsSection {
    fn default() -> Self {
        Self { every_s: 300 }
    }
}

fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let seconds = u64::deserialize(from)?;
    if (10..=86_400).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(serde::de::Error::custom(
            "it must be from 10 to 86400 seconds",
        ))
    }
}

impl NetworkConfig {
    /// Reads the file; a missing one gives the defaults.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), ConfigError> {
        let Some(text) = file::read(path)? else {
            return Ok((Self::default(), Vec::new()));
        };
        file::parse(path, &text, KNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(NetworkConfig, Vec<Warning>), String> {
        file::parse(Path::new("/etc/blockhost/network.yaml"), text, KNOWN)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn a_missing_section_records_nothing_and_an_empty_one_every_five_minutes() {
        let (config, _) = NetworkConfig::load(Path::new("/nonexistent/network.yaml")).unwrap();
        assert_eq!(config.flow_stats, None);
        assert_eq!(read("{}").unwrap().0.flow_stats, None);
        let (config, _) = read("flow_stats: {}\n").unwrap();
        assert_eq!(config.flow_stats.map(|section| section.every_s), Some(300));
    }

    #[test]
    fn what_is_wrong_is_told_with_file_line_and_key() {
        for (text, line, key) in [
            ("flow_stats:\n  every_s: 0\n", 2, "every_s"),
            ("\nflow_stats:\n\n  every_s: 86401\n", 4, "every_s"),
            ("flow_stats:\n  every_s: soon\n", 2, "every_s"),
            ("flow_stats:\n  every: 60\n", 2, "every"),
        ] {
            let error = read(text).unwrap_err();
            assert!(
                error.starts_with(&format!("/etc/blockhost/network.yaml:{line}:"))
                    && error.contains(key),
                "{text}: {error}"
            );
        }
        let (_, warnings) = read("flow_stat: {every_s: 60}\n").unwrap();
        assert_eq!(warnings.len(), 1);
    }
}
