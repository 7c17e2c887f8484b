//! An alarm of the anchoring that stands, in a file that `blockhost status` reads: the engine alone writes it, and takes it
//! away once the ledger is again the one that was anchored.

use crate::told::{self, ToldError};
use blockhost_proto::layout::Layout;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A file that is larger is not one of ours.
const LARGEST: u64 = 64 << 10;

/// An alarm that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// When it was raised, RFC 3339.
    pub since: String,
    /// What it says.
    pub alarm: String,
}

impl Standing {
    /// `/var/lib/blockhost/anchor-alarm.json`.
    #[must_use]
    pub fn path(layout: &Layout) -> PathBuf {
        layout.state().join("anchor-alarm.json")
    }

    /// The alarm that stands, if there is one.
    ///
    /// # Errors
    /// [`ToldError`].
    pub fn load(layout: &Layout) -> Result<Option<Self>, ToldError> {
        told::load(&Self::path(layout), LARGEST)
    }

    /// Raises one. One that says the same stands since it was raised first.
    ///
    /// # Errors
    /// [`ToldError::Io`].
    pub fn raise(layout: &Layout, alarm: &str) -> Result<(), ToldError> {
        if let Ok(Some(standing)) = Self::load(layout)
            && standing.alarm == alarm
        {
            return Ok(());
        }
        let standing = Self {
            since: jiff::Timestamp::now().to_string(),
            alarm: alarm.to_owned(),
        };
        told::store(&Self::path(layout), &standing)
    }

    /// Takes it away, where there is one.
    ///
    /// # Errors
    /// [`ToldError::Io`].
    pub fn clear(layout: &Layout) -> Result<(), ToldError> {
        let path = Self::path(layout);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(ToldError::Io { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_stands_since_it_was_raised_first_until_it_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        std::fs::create_dir_all(layout.state()).unwrap();
        Standing::clear(&layout).unwrap();
        assert_eq!(Standing::load(&layout).unwrap(), None);
        Standing::raise(&layout, "shorter").unwrap();
        let first = Standing::load(&layout).unwrap();
        Standing::raise(&layout, "shorter").unwrap();
        assert_eq!(Standing::load(&layout).unwrap(), first);
        Standing::raise(&layout, "rewritten").unwrap();
        assert_eq!(Standing::load(&layout).unwrap().unwrap().alarm, "rewritten");
        Standing::clear(&layout).unwrap();
        assert_eq!(Standing::load(&layout).unwrap(), None);
    }
}
