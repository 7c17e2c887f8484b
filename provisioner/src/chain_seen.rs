//! How far the engine has read the chain: `/var/lib/blockhost/chain-seen.json`. The engine writes it, the garbage collector
//! judges by it: what was paid in a block that nobody has read yet is in no record, nor is what was read and waits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use blockhost_proto::Layout;
use serde::{Deserialize, Serialize};

use crate::store::{StoreError, file};
use crate::time::Time;

/// The last block that was read, events and all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainSeen {
    /// Its number.
    pub block: u64,
    /// When it was made, by the chain.
    pub block_time: Time,
    /// When this was noted, by this host's clock.
    pub at: Time,
    /// Machines, by name, that were paid for up to then in blocks which were read, by payments that are in no record yet: a
    /// job that waits its turn, or stands still.
    #[serde(default)]
    pub owed: BTreeMap<String, Time>,
}

/// What there is to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// This host sells on no chain: there is nothing to read.
    NoChain,
    /// So far.
    Upto(ChainSeen),
    /// There is a chain, and nobody says how far it was read.
    Unknown(String),
}

impl ChainSeen {
    /// Where it is in a world.
    #[must_use]
    pub fn path(layout: &Layout) -> PathBuf {
        layout.state().join("chain-seen.json")
    }

    /// Notes it, in place of what was noted before.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Locked`]; the old note stays.
    pub fn write(&self, layout: &Layout) -> Result<(), StoreError> {
        let path = Self::path(layout);
        let held = file::lock(&path)?;
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.push(b'\n');
        file::replace(&held, &path, &text)
    }
}

impl Reading {
    /// Looks. Whether there is a chain says the file that the engine does not start without.
    #[must_use]
    pub fn of(layout: &Layout) -> Self {
        let chain = layout.etc().join("web3-defaults.yaml");
        if matches!(chain.try_exists(), Ok(false)) {
            return Self::NoChain;
        }
        let path = ChainSeen::path(layout);
        match file::read(&path) {
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).map_or_else(
                |e| Self::Unknown(format!("{} is damaged ({e})", path.display())),
                Self::Upto,
            ),
            Ok(None) => Self::Unknown("the engine has read nothing of it yet".to_owned()),
            Err(e) => Self::Unknown(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_noted_is_read_back_and_only_a_host_without_a_chain_needs_no_note() {
        let world = tempfile::tempdir().unwrap();
        let layout = Layout::new(world.path());
        std::fs::create_dir_all(layout.etc()).unwrap();
        std::fs::create_dir_all(layout.state()).unwrap();
        assert_eq!(Reading::of(&layout), Reading::NoChain);
        std::fs::write(layout.etc().join("web3-defaults.yaml"), "").unwrap();
        assert!(matches!(Reading::of(&layout), Reading::Unknown(_)));
        let time = |text: &str| text.parse().unwrap();
        let mut seen = ChainSeen {
            block: 7,
            block_time: time("2026-01-01T00:00:00Z"),
            at: time("2026-01-01T00:00:09Z"),
            owed: BTreeMap::new(),
        };
        for block in [7, 8] {
            seen.block = block;
            seen.write(&layout).unwrap();
            assert_eq!(Reading::of(&layout), Reading::Upto(seen.clone()));
            let until = time("2027-01-01T00:00:00Z");
            seen.owed.insert("blockhost-001".into(), until);
        }
        // As an engine before this one wrote it.
        let old =
            r#"{"block": 7, "block_time": "2026-01-01T00:00:00Z", "at": "2026-01-01T00:00:09Z"}"#;
        std::fs::write(ChainSeen::path(&layout), old).unwrap();
        seen.block = 7;
        seen.owed.clear();
        assert_eq!(Reading::of(&layout), Reading::Upto(seen));
        std::fs::write(ChainSeen::path(&layout), "{\"block\": 9").unwrap();
        let Reading::Unknown(why) = Reading::of(&layout) else {
            panic!("half a note");
        };
        assert!(why.contains("chain-seen.json is damaged"), "{why}");
    }
}
