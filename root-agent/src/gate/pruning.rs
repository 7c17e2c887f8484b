//! `ledger-prune`: the payloads of one old segment go. Everything in it is looked at before, in small steps between other
//! work; its record is durable before anything is deleted. What the last life had begun is done, or was not begun.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use blockhost_ledger::OpenIntent;
use blockhost_ledger::blobs::PLUGIN;
use blockhost_ledger::prune::{Order, PRUNE, PruneError, Pruned, Pruning};
use blockhost_ledger::record::Draft;
use blockhost_proto::action::LedgerPrune;
use blockhost_proto::response::ErrorCode;
use serde_json::{Map, Value};

use super::{Gate, Op};
use crate::compartment::{Done, Failure};
use crate::failpoint;
use crate::policy::Limits;
use crate::{log_error, log_info};

/// Between two steps of it, while nobody waits for anything, and while somebody does.
const STEP_EVERY: Duration = Duration::from_millis(1);
const STEP_BUSY: Duration = Duration::from_millis(10);
const DAY_S: u64 = 24 * 3600;

/// One under way. Before its record nothing is changed, so it may be dropped.
pub(super) struct Work {
    op: Op,
    /// Says in the record who asked for it, and why.
    heading: Draft,
    order: Order,
    pruning: Pruning,
    pub next_at: Instant,
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
    /// Begins what the intent in the ledger says; ends in [`Self::prune_step`].
    pub(super) fn begin_pruning(&mut self, op: Op, action: &LedgerPrune, intent: &Draft) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let oldest = now.unwrap_or_default().saturating_sub(self.retention);
        let order = Order {
            before: action.before.get(),
            not_after: i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX),
        };
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
                    pruning,
                    next_at: Instant::now(),
                });
            }
            Err(error) => self.conclude(op, Err(failure(&error))),
        }
    }

    /// The next step of a pruning, when it is time for one.
    pub(super) fn prune_step(&mut self, now: Instant) {
        let busy = !self.ops.is_empty();
        let Some(mut work) = self.pruning.take_if(|work| work.next_at <= now) else {
            return;
        };
        match work.pruning.step() {
            // What is being written may be block files that are about to go.
            Ok(done) if !done || self.desk.is_publishing() => {
                work.next_at = Instant::now() + if busy { STEP_BUSY } else { STEP_EVERY };
                self.pruning = Some(work);
            }
            Ok(_) => self.prune(work),
            Err(error) => self.conclude(work.op, Err(failure(&error))),
        }
    }

    fn prune(&mut self, work: Work) {
        let Work {
            op,
            heading,
            order,
            pruning,
            ..
        } = work;
        let bytes = pruning.bytes();
        let result = match self.writer.finish_pruning(&heading, pruning) {
            Ok((pruned, appended)) => {
                let (first, last) = (pruned.first_height, pruned.last_height());
                log_info!("ledger: the payloads of records {first} to {last} were pruned");
                let mut done = Done::default();
                for (name, value) in [
                    ("first", first),
                    ("last", last),
                    ("bytes", bytes),
                    ("record", appended.height),
                    ("left", self.left(order)),
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
        self.after_append();
        self.conclude(op, result);
    }

    fn left(&self, order: Order) -> u64 {
        let parts = self.writer.prunable().unwrap_or_default().into_iter();
        let covered = parts.filter(|p| p.last < order.before && p.timestamp <= order.not_after);
        covered.count() as u64
    }

    /// The agent stops: what was not recorded was not begun.
    pub(super) fn drop_pruning(&mut self) {
        if let Some(work) = self.pruning.take() {
            let text = "the agent stopped before it was recorded; nothing was deleted";
            self.conclude(work.op, Err(Failure::new(ErrorCode::Internal, text)));
        }
    }
}
