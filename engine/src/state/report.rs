//! What queries, plans and applies answer: data for `--json`, for the bus and for the terminal. Nothing is decided here.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::change::{Change, ResourceRef, Verdict};

/// A plugin that could not be looked at: nothing of it is planned or changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PluginError {
    /// Which one.
    pub plugin: &'static str,
    /// Why.
    pub error: String,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct QueryReport {
    /// By plugin, by resource.
    pub plugins: BTreeMap<&'static str, BTreeMap<String, Value>>,
    /// What could not be looked at.
    pub errors: Vec<PluginError>,
}

/// How many resources, by what is to become of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// To be made.
    pub create: usize,
    /// To be changed.
    pub modify: usize,
    /// To be deleted.
    pub delete: usize,
    /// As they should be.
    pub unchanged: usize,
    /// Of those to be made, changed or deleted: those that cannot be.
    pub blocked: usize,
}

impl Counts {
    pub(super) fn of(changes: &[Change]) -> Self {
        let mut counts = Self::default();
        for change in changes {
            *match change.verdict {
                Verdict::Create => &mut counts.create,
                Verdict::Modify => &mut counts.modify,
                Verdict::Delete => &mut counts.delete,
                Verdict::NoOp => &mut counts.unchanged,
            } += 1;
            counts.blocked += usize::from(change.blocked.is_some());
        }
        counts
    }
}

/// What would be done.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DiffReport {
    /// Every resource that differs, or that there is something to say about, in the order in which an apply goes.
    pub changes: Vec<Change>,
    /// All resources, counted.
    pub counts: Counts,
    /// What could not be looked at.
    pub errors: Vec<PluginError>,
}

impl DiffReport {
    /// True when an apply would change nothing and nothing is in its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty() && !self.changes.iter().any(Change::is_pending)
    }
}

/// What became of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is as it should be now.
    Done,
    /// A step failed, and what was done before it was taken back.
    RolledBack,
    /// A step failed, and not everything that was done before it could be taken back.
    Failed,
    /// It cannot be made right; nothing was tried.
    Blocked,
    /// Something that it needs failed; nothing was tried.
    Skipped,
}

/// One resource of an apply.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Which.
    pub resource: ResourceRef,
    /// What was to become of it.
    pub verdict: Verdict,
    /// What became of it.
    pub fate: Fate,
    /// What was done, in order.
    pub steps: Vec<String>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was done and is still there although it should not be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remains: Vec<String>,
    /// What somebody should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// Where a footprint is in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Footprint {
    /// Of which plugin.
    pub plugin: &'static str,
    /// Number of the record; none where the ledger did not say.
    pub index: Option<u64>,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ApplyReport {
    /// Every resource that was to change, in the order in which it was done.
    pub outcomes: Vec<Outcome>,
    /// What somebody should know of resources that did not change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Ports that are not there yet and may come by themselves, such as those of machines that are just starting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub awaited: Vec<String>,
    /// All resources, counted as they were before.
    pub counts: Counts,
    /// What it left in the ledger.
    pub footprints: Vec<Footprint>,
    /// What could not be looked at, and footprints that could not be left.
    pub errors: Vec<PluginError>,
}

impl ApplyReport {
    /// True when everything is as it should be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.errors.is_empty() && self.outcomes.iter().all(|o| o.fate == Fate::Done)
    }
}
