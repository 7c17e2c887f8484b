//! What the last look came to, in a file that `blockhost reconcile` and `blockhost status` read: the engine alone
//! writes it, whole each time.

use super::plan::Finding;
use crate::told::{self, ToldError};
use blockhost_proto::layout::Layout;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Repairs that are kept in sight.
const KEPT_REPAIRS: usize = 50;
/// A report that is larger is not one of ours.
const LARGEST: u64 = 64 << 20;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When contract and database were compared, RFC 3339.
    pub looked_at: String,
    /// The block whose state was compared.
    pub block: u64,
    /// What does not fit and is still to be mended.
    pub findings: Vec<Entry>,
    /// What was mended, newest first.
    pub repaired: Vec<Entry>,
}

/// A line of the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was found or mended, RFC 3339.
    pub at: String,
    /// Whether the engine mends it by itself.
    pub automatic: bool,
    /// What it is, and what to do.
    pub text: String,
    /// The finding's own fields.
    #[serde(flatten)]
    pub finding: Map<String, Value>,
}

impl Entry {
    /// A finding, as of `at`.
    #[must_use]
    pub fn new(finding: &Finding, at: &str) -> Self {
        let fields = serde_json::to_value(finding).ok();
        Self {
            at: at.to_owned(),
            automatic: finding.is_repaired(),
            text: finding.sentence(),
            finding: fields
                .and_then(|value| value.as_object().cloned())
                .unwrap_or_default(),
        }
    }
}

impl Report {
    /// `/var/lib/blockhost/reconcile.json`.
    #[must_use]
    pub fn path(layout: &Layout) -> PathBuf {
        layout.state().join("reconcile.json")
    }

    /// The last report; none before the first look.
    ///
    /// # Errors
    /// [`ToldError`].
    pub fn load(layout: &Layout) -> Result<Option<Self>, ToldError> {
        told::load(&Self::path(layout), LARGEST)
    }

    /// Puts repairs in front of those that are kept.
    pub fn add_repairs(&mut self, repaired: Vec<Entry>) {
        self.repaired.splice(0..0, repaired);
        self.repaired.truncate(KEPT_REPAIRS);
    }

    /// Writes it in one step: a reader sees the old or the new one.
    ///
    /// # Errors
    /// [`ToldError::Io`].
    pub fn store(&self, layout: &Layout) -> Result<(), ToldError> {
        told::store(&Self::path(layout), self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Problem;
    use super::*;

    #[test]
    fn a_report_is_read_back_as_it_was_written_and_junk_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        std::fs::create_dir_all(layout.state()).unwrap();
        assert_eq!(Report::load(&layout).unwrap(), None);
        let finding = Finding {
            subscription: 7,
            vm_name: "blockhost-007".into(),
            problem: Problem::Cancelled,
        };
        let mut report = Report {
            looked_at: "2026-01-01T00:00:00Z".into(),
            block: 12,
            findings: vec![Entry::new(&finding, "2026-01-01T00:00:00Z")],
            repaired: Vec::new(),
        };
        for _ in 0..60 {
            report.add_repairs(vec![Entry::new(&finding, "2026-01-01T00:00:00Z")]);
        }
        assert_eq!(report.repaired.len(), KEPT_REPAIRS);
        report.store(&layout).unwrap();
        assert_eq!(Report::load(&layout).unwrap(), Some(report));
        std::fs::write(Report::path(&layout), "{\"block\": -1").unwrap();
        let error = Report::load(&layout).unwrap_err().to_string();
        assert!(
            error.contains("reconcile.json") && error.contains("remove it"),
            "{error}"
        );
    }
}
