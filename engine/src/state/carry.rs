//! A plan carried out: one resource after the other, what is given up before what is taken, and what fails stops only what needs
//! it. What is planned and what becomes of the record is in [`super::engine`].

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Change, ResourceRef, Verdict};
use super::engine::{Engine, Event, Part};
use super::order;
use super::report::{ApplyReport, Fate, Outcome};
use super::run::{self, Checkpoint};

impl Engine<'_> {
    /// Resource after resource; what fails stops only what needs it.
    pub(super) fn carry_out(
        &mut self,
        order: &[Change],
        all: &[Change],
        parts: &[Part],
        report: &mut ApplyReport,
        tell: &mut dyn FnMut(Event<'_>),
    ) {
        let mut failed: BTreeSet<ResourceRef> = all
            .iter()
            .filter(|change| change.blocked.is_some())
            .map(|change| change.resource.clone())
            .collect();
        for gone in &report.errors {
            // What could not be looked at is not known to be right.
            let needed = all.iter().flat_map(|change| &change.needs);
            failed.extend(needed.filter(|n| n.plugin == gone.plugin).cloned());
        }
        let mut gone = false;
        let mut begun: Option<BTreeMap<ResourceRef, Checkpoint>> = None;
        for change in order {
            if change.verdict != Verdict::Delete && begun.is_none() {
                begun = Some(self.release(order));
            }
            let mut released = begun
                .as_mut()
                .and_then(|begun| begun.remove(&change.resource));
            let obstacle = order::obstacle(change, &failed, all).cloned();
            let mut outcome = Outcome {
                resource: change.resource.clone(),
                verdict: change.verdict,
                fate: Fate::Done,
                steps: Vec::new(),
                error: None,
                remains: Vec::new(),
                remarks: change.notes.clone(),
            };
            if let Some(why) = &change.blocked {
                outcome.fate = Fate::Blocked;
                outcome.error = Some(why.clone());
            } else if let Some(other) = obstacle {
                outcome.fate = Fate::Skipped;
                let relation = if change.verdict == Verdict::Delete {
                    "is still used by"
                } else {
                    "needs"
                };
                outcome.error = Some(format!("not tried: it {relation} {other}, which failed"));
            } else if gone {
                outcome.fate = Fate::Skipped;
                outcome.error = Some("not tried: the root agent cannot be reached".to_owned());
            } else if let Some(part) = parts
                .iter()
                .find(|part| self.plugins[part.plugin].name() == change.resource.plugin)
            {
                tell(Event::Begun(change));
                gone = self.one(change, part, released.take(), &mut outcome);
            }
            if let Some(checkpoint) = released {
                // Given up for others, and then nobody came to go on with it.
                outcome.remains = run::take_back(self.host, checkpoint);
            }
            if outcome.fate != Fate::Done {
                failed.insert(change.resource.clone());
            }
            tell(Event::Ended(&outcome));
            report.outcomes.push(outcome);
        }
    }

    /// What is given up is given up before anything is taken: two holders may change their addresses with each other. A step
    /// that fails here is met again when its resource has its turn.
    fn release(&mut self, order: &[Change]) -> BTreeMap<ResourceRef, Checkpoint> {
        let mut begun = BTreeMap::new();
        for change in order.iter().filter(|c| c.verdict == Verdict::Modify) {
            for step in change.steps.iter().filter(|step| step.releases) {
                let checkpoint: &mut Checkpoint = begun.entry(change.resource.clone()).or_default();
                if run::make(self.host, step, checkpoint).is_err() {
                    break;
                }
            }
        }
        begun
    }

    /// One resource; true when the agent cannot be reached any more.
    fn one(
        &mut self,
        change: &Change,
        part: &Part,
        released: Option<Checkpoint>,
        outcome: &mut Outcome,
    ) -> bool {
        let plugin = &self.plugins[part.plugin];
        let mut checkpoint = released.unwrap_or_else(|| plugin.checkpoint());
        let result = plugin
            .apply(
                self.host,
                change,
                &part.desired,
                &part.known,
                &mut checkpoint,
            )
            .and_then(|()| plugin.verify(self.host, change, &part.desired, &part.known));
        outcome.steps = checkpoint.done.clone();
        let error = match result {
            Ok(mut remarks) => {
                // What was waited for may be there now, and what was said of it no longer so.
                if !change.awaits.is_empty() {
                    outcome.remarks.clear();
                }
                remarks.retain(|remark| !outcome.remarks.contains(remark));
                outcome.remarks.extend(remarks);
                return false;
            }
            Err(error) => error,
        };
        outcome.error = Some(error.to_string());
        let lasting = checkpoint.lasting.clone();
        outcome.remains = if error.agent_is_gone {
            // Asking somebody who is not there for each step would only take long.
            let mut remains = checkpoint.done.clone();
            if !checkpoint.is_empty() {
                remains.push(
                    "the root agent cannot be reached to take it back; the next apply completes it"
                        .to_owned(),
                );
            }
            remains
        } else {
            let mut remains = plugin.rollback(self.host, checkpoint);
            remains.extend(lasting);
            remains
        };
        outcome.fate = if outcome.remains.is_empty() {
            Fate::RolledBack
        } else {
            Fate::Failed
        };
        error.agent_is_gone
    }
}
