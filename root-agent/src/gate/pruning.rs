//! `ledger-prune`: the payloads of one old segment go. Everything in it is looked at before, in small steps between other
//! work; its record is durable before anything is deleted. What waits for the disk but the record itself does so at the desk.
//! What the last life had begun is done, or was not begun.

use std::time::{Duration, Instant};

use blockhost_ledger::OpenIntent;
use blockhost_ledger::blobs::PLUGIN;
use blockhost_ledger::prune::{Deletion, Kept, Order, PRUNE, PruneError, Pruned, Pruning};
use blockhost_ledger::record::Draft;
use blockhost_ledger::writer::Appended;
use blockhost_proto::action::LedgerPrune;
use blockhost_proto::response::ErrorCode;
use serde_json::{Map, Value};

use super::desk::{self, Cut};
use super::{Gate, Op};
use crate::compartment::{Done, Failure};
use crate::failpoint;
use crate::policy::Limits;
use crate::{log_error, log_info};

/// Between two steps of it, while nobody waits for anything, and while somebody does.
const STEP_EVERY: Duration = Duration::from_millis(1);
const STEP_BUSY: Duration = Duration::from_millis(10);
const DAY_S: u64 = 24 * 3600;

/// One under way.
pub(super) struct Work {
    op: Op,
    /// Says in the record who asked for it, and why.
    heading: Draft,
    order: Order,
    stage: Stage,
    pub next_at: Instant,
}

/// How far it is. Before its record nothing is deleted, so it may be dropped.
enum Stage {
    Looking(Box<Pruning>),
    Keeping,
    Kept(Box<Kept>),
    Deleting,
}

/// How long payloads have to be kept.
pub(super) fn retention(limits: &Limits) -> Duration {
    Duration::from_secs(limits.ledger_retention_days.saturating_mul(DAY_S))
}

/// The outcome of a pruning that the last life left open: where its record was written, opening the ledger finished it.
pub(super) fn outcome_of_open(open: &OpenIntent, prunes: &[Pruned]) -> Option<Map<String, Value>> {
    if open.action != PRUNE || open.plugin_id != PLUGIN {
        return None;
    }
    let mut facts = Map::new();
    facts.insert("intent_index".to_owned(), open.index.into());
    // Prunings go one after the other.
    match prunes.iter().find(|pruned| pruned.by > open.index + 1) {
        Some(pruned) => {
            facts.insert("result".to_owned(), "ok".into());
            facts.insert("record".to_owned(), pruned.by.into());
        }
        None => {
            facts.insert("result".to_owned(), "error".into());
            let text = "the agent ended before it was recorded, so nothing was deleted";
            facts.insert("error".to_owned(), text.into());
        }
    }
    Some(facts)
}

fn failure(error: &PruneError) -> Failure {
    let code = match error {
        PruneError::Nothing { .. } => ErrorCode::NotFound,
        PruneError::Young { .. } => ErrorCode::Conflict,
        PruneError::Damaged(..)
        | PruneError::Kept(..)
        | PruneError::Record(_)
        | PruneError::File(_) => ErrorCode::Failed,
    };
    Failure::new(code, error.to_string())
}

impl Gate {
    fn order(&self, action: &LedgerPrune) -> Order {
        Order {
            before: action.before.get(),
            kept: self.retention,
        }
    }

    /// Records an intent for which there is no space: a pruning is what makes some, so it may use a part of what is kept for
    /// outcomes. One that would prune nothing takes none of it.
    pub(super) fn record_without_space(
        &mut self,
        action: &LedgerPrune,
        intent: &Draft,
    ) -> Result<Appended, Failure> {
        let unrecorded = |mut failure: Failure| {
            failure
                .message
                .push_str(" (nor recorded: the ledger has no space)");
            failure
        };
        let begun = self.writer.begin_pruning(self.order(action));
        begun.map_err(|error| unrecorded(failure(&error)))?;
        let appended = self.writer.append_making_room(intent);
        appended.map_err(|error| failure(&PruneError::Record(error)))
    }

    /// Begins what the intent in the ledger says; ends in [`Self::prune_step`].
    pub(super) fn begin_pruning(&mut self, op: Op, action: &LedgerPrune, intent: &Draft) {
        let order = self.order(action);
        let reason = Value::from(action.reason.as_str());
        let heading = Draft {
            metadata: Map::from_iter([("reason".to_owned(), reason)]),
            ..intent.clone()
        };
        match self.writer.begin_pruning(order) {
            Ok(pruning) => {
                self.pruning = Some(Work {
                    op,
                    heading,
                    order,
                    stage: Stage::Looking(Box::new(pruning)),
                    next_at: Instant::now(),
                });
            }
            Err(error) => self.conclude(op, Err(failure(&error))),
        }
    }

    /// The next step of a pruning, when it is time for one.
    pub(super) fn prune_step(&mut self, now: Instant) {
        let Some(mut work) = self.pruning.take_if(|work| work.next_at <= now) else {
            return;
        };
        let next = match work.stage {
            Stage::Looking(mut pruning) => match pruning.step() {
                Ok(false) => Ok(Stage::Looking(pruning)),
                Ok(true) => {
                    self.desk.prune(Cut::Keep(pruning));
                    Ok(Stage::Keeping)
                }
                Err(error) => Err(error),
            },
            Stage::Kept(kept) if !self.desk.is_publishing() => self.record(&work.heading, *kept),
            // What is being written may be block files that are about to go.
            Stage::Kept(kept) => Ok(Stage::Kept(kept)),
            waiting @ (Stage::Keeping | Stage::Deleting) => match self.desk.pruned(false) {
                None => Ok(waiting),
                Some(desk::Pruned::Kept(kept)) => kept.map(Stage::Kept),
                Some(desk::Pruned::Deleted(deletion, deleted)) => {
                    return self.pruned(work.op, work.order, &deletion, deleted);
                }
            },
        };
        match next {
            Ok(stage) => {
                let busy = !self.ops.is_empty();
                work.stage = stage;
                work.next_at = Instant::now() + if busy { STEP_BUSY } else { STEP_EVERY };
                self.pruning = Some(work);
            }
            Err(error) => {
                log_error!("ledger: pruning: {error}");
                self.conclude(work.op, Err(failure(&error)));
            }
        }
    }

    fn record(&mut self, heading: &Draft, kept: Kept) -> Result<Stage, PruneError> {
        let deletion = self.writer.record_pruning(heading, kept)?;
        self.after_append();
        self.desk.prune(Cut::Delete(Box::new(deletion)));
        Ok(Stage::Deleting)
    }

    fn pruned(
        &mut self,
        op: Op,
        order: Order,
        deletion: &Deletion,
        deleted: Result<(), PruneError>,
    ) {
        let Deletion {
            pruned,
            record,
            bytes,
            ..
        } = deletion;
        let result = match deleted {
            Ok(()) => {
                let (first, last) = (pruned.first_height, pruned.last_height());
                log_info!("ledger: the payloads of records {first} to {last} were pruned");
                let mut done = Done::default();
                for (name, value) in [
                    ("first", first),
                    ("last", last),
                    ("bytes", *bytes),
                    ("record", record.height),
                    ("left", self.writer.prunable(order).unwrap_or_default()),
                ] {
                    done.extra.insert(name.to_owned(), value.into());
                }
                Ok(done)
            }
            Err(error) => {
                log_error!("ledger: pruning: {error}");
                Err(failure(&error))
            }
        };
        failpoint::reach("gate-finished", PRUNE.as_bytes());
        self.conclude(op, result);
    }

    /// The agent stops: what was not recorded was not begun, and what was is finished.
    pub(super) fn drop_pruning(&mut self) {
        let Some(work) = self.pruning.take() else {
            return;
        };
        let ended = match work.stage {
            Stage::Keeping | Stage::Deleting => self.desk.pruned(true),
            Stage::Looking(_) | Stage::Kept(_) => None,
        };
        match ended {
            Some(desk::Pruned::Deleted(deletion, deleted)) => {
                self.pruned(work.op, work.order, &deletion, deleted);
            }
            Some(desk::Pruned::Kept(_)) | None => {
                let text = "the agent stopped before it was recorded; nothing was deleted";
                self.conclude(work.op, Err(Failure::new(ErrorCode::Internal, text)));
            }
        }
    }
}
