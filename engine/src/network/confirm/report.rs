//! What became of a change, for people and programs.

use serde::Serialize;

use super::plan::Plan;
use super::probe::Loss;
use super::record::{Ended, Record};
use super::verify::Levels;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was planned and rehearsed, and not made.
    Planned,
    /// It stays.
    Confirmed,
    /// It was taken back.
    Reverted,
    /// It waits for the operator.
    Waiting,
    /// It did not stay, and the root agent refuses to take it back.
    Stuck,
}

/// A step that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// The action.
    pub action: String,
    /// With what.
    pub params: serde_json::Value,
    /// What the agent said.
    pub output: String,
    /// Where the ledger has it.
    pub receipt: Option<u64>,
}

/// A change and its end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Its name; none where it was only planned.
    pub id: Option<String>,
    /// What it does.
    pub what: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was taken back.
    pub reason: Option<String>,
    /// What was done, in order.
    pub steps: Vec<StepReport>,
    /// The plan, where it was only planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// What the last look found wrong.
    pub levels: Levels,
    /// What had to be reachable.
    pub reached: Vec<String>,
    /// What was lost meanwhile; none where it could not be measured.
    pub loss: Option<Loss>,
    /// What whoever asked for it should know.
    pub notes: Vec<String>,
    /// Milliseconds until it was judged.
    pub took_ms: u64,
    /// Whether NetworkManager kept a checkpoint beside ours.
    pub checkpoint: bool,
    /// What went wrong on the way back, and was tried again.
    pub problems: Vec<String>,
}

impl Report {
    fn new(plan: &Plan, outcome: Outcome) -> Self {
        Self {
            id: None,
            what: plan.what.clone(),
            outcome,
            reason: None,
            steps: Vec::new(),
            plan: None,
            levels: Levels::default(),
            reached: Vec::new(),
            loss: None,
            notes: plan.notes.clone(),
            took_ms: 0,
            checkpoint: false,
            problems: Vec::new(),
        }
    }

    /// One that was taken back, of this description; for models of what this module does.
    #[cfg(test)]
    pub(crate) fn of(what: &str) -> Self {
        let plan = Plan {
            what: what.to_owned(),
            ..Plan::default()
        };
        Self::new(&plan, Outcome::Reverted)
    }

    pub(super) fn planned(plan: &Plan) -> Self {
        Self {
            plan: Some(plan.clone()),
            ..Self::new(plan, Outcome::Planned)
        }
    }

    /// Until the contrary is known it was taken back.
    pub(super) fn begun(record: &Record) -> Self {
        Self {
            id: Some(record.id.clone()),
            ..Self::new(&record.plan, Outcome::Reverted)
        }
    }

    pub(super) fn reverted(&mut self, ended: &Ended) {
        self.outcome = if ended.stuck {
            Outcome::Stuck
        } else {
            Outcome::Reverted
        };
        self.reason.clone_from(&ended.reason);
        self.problems.clone_from(&ended.problems);
    }
}
