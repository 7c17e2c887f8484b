//! How the subscription stands, in a file that `blockhost status` and `/metrics` read: the engine alone writes it, whole
//! each time. Nothing is decided by it.

use crate::told::{self, ToldError};
use blockhost_proto::layout::Layout;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is larger is not ours.
const LARGEST: u64 = 64 << 10;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Whether a node tells of new blocks.
    pub connected: bool,
    /// Which, without its key: the one that does, or the last that was tried.
    pub endpoint: String,
    /// Since when this is so, RFC 3339.
    pub since: String,
    /// How often new blocks were told of since the engine started.
    pub told: u64,
    /// Subscriptions that were made since then.
    pub sessions: u64,
    /// Why the last one ended, or none could be made.
    pub problem: Option<String>,
}

impl State {
    /// `/var/lib/blockhost/heads.json`.
    #[must_use]
    pub fn path(layout: &Layout) -> PathBuf {
        layout.state().join("heads.json")
    }

    /// As it was last written; none before an engine subscribed.
    ///
    /// # Errors
    /// [`ToldError`].
    pub fn load(layout: &Layout) -> Result<Option<Self>, ToldError> {
        told::load(&Self::path(layout), LARGEST)
    }

    /// Writes it in one step.
    ///
    /// # Errors
    /// [`ToldError::Io`].
    pub fn store(&self, layout: &Layout) -> Result<(), ToldError> {
        told::store(&Self::path(layout), self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_back_as_it_was_written_and_junk_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        std::fs::create_dir_all(layout.state()).unwrap();
        assert_eq!(State::load(&layout).unwrap(), None);
        let state = State {
            connected: true,
            endpoint: "node.example".into(),
            since: "2026-01-01T00:00:00Z".into(),
            told: 7,
            sessions: 2,
            problem: None,
        };
        state.store(&layout).unwrap();
        assert_eq!(State::load(&layout).unwrap(), Some(state));
        for junk in ["{", &"x".repeat(100_000)] {
            std::fs::write(State::path(&layout), junk).unwrap();
            let error = State::load(&layout).unwrap_err().to_string();
            assert!(error.contains("heads.json"), "{error}");
        }
    }
}
