//! The plugins as everybody else sees them: one object-safe trait, and the adapter that makes one of each [`Kind`]. What
//! holds for all of them is here: nothing is changed that was not made here, deleting needs to be asked for, an apply goes
//! on until reality agrees, and what a failed one did is taken back.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::careful::make_carefully;
use super::change::{Change, Planned, ResourceRef, Step, Verdict, all_new};
use super::fields::{Fields, Place, Wrong};
use super::host::{Host, HostError};
use super::kind::{Entry, Kind, Known, Scope};
use super::run::{self, Checkpoint, StepError};

/// A plugin's section, as it should be.
pub struct Desired {
    /// Every resource as it is printed and recorded.
    pub shown: BTreeMap<String, Value>,
    /// Why a resource cannot be had.
    refused: BTreeMap<String, String>,
    typed: Box<dyn Any + Send + Sync>,
}

/// A plugin's resources, as they are.
pub struct Current {
    /// Every resource as it is printed.
    pub shown: BTreeMap<String, Value>,
    typed: Box<dyn Any + Send + Sync>,
}

/// A plugin. The order of calls is: `read`, `query`, `resolve`, `diff`, and for each change `checkpoint`, `apply`,
/// `verify`; `rollback` where one of the last two fails.
pub trait StatePlugin: Send + Sync {
    /// Its section in the document.
    fn name(&self) -> &'static str;

    /// True for what others stand on: deleted after everything else.
    fn is_deleted_last(&self) -> bool;

    /// Whether a resource that is gone is made again at a start of the machine.
    fn is_made_again(&self) -> bool;

    /// Takes its section apart.
    ///
    /// # Errors
    /// [`Wrong`] with the place.
    fn read(&self, section: &Value, place: Place) -> Result<Desired, Wrong>;

    /// What was applied last, as far as it was recorded.
    fn recorded(&self, known: &Known) -> Desired;

    /// What there is.
    ///
    /// # Errors
    /// [`HostError`].
    fn query(&self, host: &mut dyn Host, scope: Scope<'_>) -> Result<Current, HostError>;

    /// Decides what the document leaves open.
    fn resolve(&self, current: &Current, desired: &mut Desired, known: &Known);

    /// What has to be done. Pure.
    fn diff(&self, current: &Current, desired: &Desired, known: &Known, prune: bool)
    -> Vec<Change>;

    /// The way back to how it is now; [`apply`](Self::apply) notes in it what it does.
    fn checkpoint(&self) -> Checkpoint {
        Checkpoint::default()
    }

    /// Makes one resource as it should be: steps, a look, more steps, until there is nothing left to do.
    ///
    /// # Errors
    /// [`StepError`] with the step that failed.
    fn apply(
        &self,
        host: &mut dyn Host,
        change: &Change,
        desired: &Desired,
        known: &Known,
        checkpoint: &mut Checkpoint,
    ) -> Result<(), StepError>;

    /// Reads reality once more: remarks when it is right, an error when it is not.
    ///
    /// # Errors
    /// [`StepError`] saying what is not as it should be.
    fn verify(
        &self,
        host: &mut dyn Host,
        change: &Change,
        desired: &Desired,
        known: &Known,
    ) -> Result<Vec<String>, StepError>;

    /// Takes back what was done since the checkpoint. Answers what remains.
    fn rollback(&self, host: &mut dyn Host, checkpoint: Checkpoint) -> Vec<String> {
        run::take_back(host, checkpoint)
    }
}

/// Makes a [`StatePlugin`] of a [`Kind`].
pub struct Adapter<K>(pub K);

type WantedOf<K> = BTreeMap<String, <K as Kind>::Wanted>;
type FoundOf<K> = BTreeMap<String, <K as Kind>::Found>;

/// Steps, a look, steps, a look: more rounds than any plan has turns.
const ROUNDS: usize = 16;
/// What was done and cannot be seen yet may take a moment.
const SETTLE: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(800),
    Duration::from_secs(2),
];
/// How long a complaint may take to pass.
const COMPLAINTS_PASS: Duration = Duration::from_secs(10);

impl<K: Kind> Adapter<K> {
    fn wanted<'a>(&self, desired: &'a Desired, id: &str) -> Option<&'a K::Wanted> {
        desired.typed.downcast_ref::<WantedOf<K>>()?.get(id)
    }

    fn desired(&self, wanted: WantedOf<K>) -> Desired {
        let shown = wanted
            .iter()
            .map(|(id, wanted)| (id.clone(), self.0.show(wanted)))
            .collect();
        Desired {
            shown,
            refused: BTreeMap::new(),
            typed: Box::new(wanted),
        }
    }

    /// What there is, given by somebody who knows.
    #[must_use]
    pub fn current(&self, found: BTreeMap<String, K::Found>) -> Current {
        let shown = found
            .iter()
            .map(|(id, found)| {
                let value = serde_json::to_value(found).unwrap_or(Value::Null);
                (id.clone(), value)
            })
            .collect();
        Current {
            shown,
            typed: Box::new(found),
        }
    }

    fn look_at(&self, host: &mut dyn Host, id: &str) -> Result<Option<K::Found>, HostError> {
        let ids = BTreeSet::from([id.to_owned()]);
        Ok(self.0.look(host, Scope::These(&ids))?.remove(id))
    }

    /// What is still to be done about a change, now.
    fn plan_now(
        &self,
        change: &Change,
        wanted: Option<&K::Wanted>,
        found: Option<&K::Found>,
        before: Option<&Entry>,
        begun: bool,
    ) -> Planned {
        let id = &change.resource.id;
        match (wanted, found, before) {
            (Some(wanted), found, before) => {
                let mut planned = self.0.plan(id, wanted, found, before);
                // What was not there before our first step is what we made.
                planned.ours |= begun && change.verdict == Verdict::Create;
                protect::<K>(
                    &mut planned,
                    found.is_some_and(|found| self.0.is_there(found)),
                );
                planned
            }
            (None, Some(found), Some(before)) if self.0.is_there(found) => {
                let mut planned = self.0.plan_delete(id, found, before);
                protect::<K>(&mut planned, true);
                planned
            }
            _ => Planned::nothing(true),
        }
    }
}

/// What was not made here is not changed.
fn protect<K: Kind>(planned: &mut Planned, exists: bool) {
    if exists && !planned.ours && !planned.steps.is_empty() {
        let why = format!(
            "it exists and was not made here, so it is left alone; {}",
            K::HANDOVER
        );
        planned.block(why);
    }
    if planned.blocked.is_some() {
        planned.steps.clear();
    }
}

pub(super) fn error(change: &Change, why: impl Into<String>) -> StepError {
    StepError {
        say: change.resource.to_string(),
        why: why.into(),
        unsure: false,
        agent_is_gone: false,
    }
}

/// The record that there will be of a change that succeeded.
fn as_applied(change: &Change) -> Entry {
    Entry::applied(change.wanted.clone().unwrap_or(Value::Null))
}

fn unseen(change: &Change, why: &HostError) -> StepError {
    StepError {
        agent_is_gone: why.is_connection(),
        ..error(change, why.to_string())
    }
}

impl<K: Kind> StatePlugin for Adapter<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn is_deleted_last(&self) -> bool {
        K::DELETED_LAST
    }

    fn is_made_again(&self) -> bool {
        K::MADE_AGAIN
    }

    fn read(&self, section: &Value, place: Place) -> Result<Desired, Wrong> {
        let wanted = self.0.read(Fields::new(section, place)?)?;
        Ok(self.desired(wanted))
    }

    fn recorded(&self, known: &Known) -> Desired {
        let wanted = known
            .iter()
            .filter_map(|(id, entry)| Some((id.clone(), self.0.revive(id, &entry.wanted)?)))
            .collect();
        self.desired(wanted)
    }

    fn query(&self, host: &mut dyn Host, scope: Scope<'_>) -> Result<Current, HostError> {
        // Nothing is asked for nothing.
        let found = match scope {
            Scope::These(ids) if ids.is_empty() => BTreeMap::new(),
            scope => self.0.look(host, scope)?,
        };
        Ok(self.current(found))
    }

    fn resolve(&self, current: &Current, desired: &mut Desired, known: &Known) {
        let none = BTreeMap::new();
        let found = current.typed.downcast_ref::<FoundOf<K>>().unwrap_or(&none);
        let Some(wanted) = desired.typed.downcast_mut::<WantedOf<K>>() else {
            return;
        };
        desired.refused = self.0.resolve(wanted, found, known);
        desired.shown = wanted
            .iter()
            .map(|(id, wanted)| (id.clone(), self.0.show(wanted)))
            .collect();
    }

    fn diff(
        &self,
        current: &Current,
        desired: &Desired,
        known: &Known,
        prune: bool,
    ) -> Vec<Change> {
        let (no_found, no_wanted) = (BTreeMap::new(), BTreeMap::new());
        let found = current
            .typed
            .downcast_ref::<FoundOf<K>>()
            .unwrap_or(&no_found);
        let wanted = desired
            .typed
            .downcast_ref::<WantedOf<K>>()
            .unwrap_or(&no_wanted);
        let mut changes = Vec::with_capacity(wanted.len());
        for (id, one) in wanted {
            let there = found.get(id);
            let mut planned = self.0.plan(id, one, there, known.get(id));
            if let Some(why) = desired.refused.get(id) {
                planned.block(why);
            }
            let exists = there.is_some_and(|there| self.0.is_there(there));
            protect::<K>(&mut planned, exists);
            let verdict = match exists {
                _ if planned.is_settled() => Verdict::NoOp,
                false => Verdict::Create,
                true => Verdict::Modify,
            };
            let shown = desired.shown.get(id).cloned();
            if verdict == Verdict::Create {
                planned.fields = all_new(shown.as_ref().unwrap_or(&Value::Null));
            }
            let mut change = change(K::NAME, id, verdict, planned, shown);
            change.needs = self.0.needs(id, one);
            change.after = self.0.after(id, one);
            changes.push(change);
        }
        for (id, entry) in known {
            let there = found.get(id).filter(|there| self.0.is_there(there));
            let (None, Some(there)) = (wanted.get(id), there) else {
                continue;
            };
            let mut planned = self.0.plan_delete(id, there, entry);
            protect::<K>(&mut planned, true);
            if !prune {
                planned = Planned::nothing(true);
                let note = "not in the document any more; --prune deletes it";
                planned.notes.push(note.to_owned());
            }
            let verdict = if prune {
                Verdict::Delete
            } else {
                Verdict::NoOp
            };
            // What it stood on may only go after it.
            let mut change = change(K::NAME, id, verdict, planned, None);
            if let Some(before) = self.0.revive(id, &entry.wanted) {
                change.needs = self.0.needs(id, &before);
                change.after = self.0.after(id, &before);
            }
            changes.push(change);
        }
        changes
    }

    fn apply(
        &self,
        host: &mut dyn Host,
        change: &Change,
        desired: &Desired,
        known: &Known,
        checkpoint: &mut Checkpoint,
    ) -> Result<(), StepError> {
        let id = &change.resource.id;
        let wanted = self.wanted(desired, id);
        let applied = as_applied(change);
        let mut before = known.get(id);
        let mut last: Option<Vec<Step>> = None;
        let (mut settle, mut appear) = (SETTLE.iter(), SETTLE.iter());
        for _ in 0..ROUNDS {
            let found = self.look_at(host, id).map_err(|e| unseen(change, &e))?;
            let begun = !checkpoint.is_empty();
            let planned = self.plan_now(change, wanted, found.as_ref(), before, begun);
            if let Some(why) = planned.blocked {
                return Err(error(change, why));
            }
            if planned.steps.is_empty() {
                match (wanted, &found) {
                    // A device that is just being made, for instance: there may be more to do when it is there.
                    (Some(wanted), Some(found)) if !self.0.complaints(wanted, found).is_empty() => {
                        let Some(pause) = appear.next() else {
                            return Ok(());
                        };
                        host.pause(*pause);
                        continue;
                    }
                    _ => return Ok(()),
                }
            }
            if let (None, Some(found)) = (wanted, &found)
                && let Some(why) = self.0.in_use(found)
            {
                return Err(error(change, why));
            }
            if last.as_ref() == Some(&planned.steps) {
                // All of it was done or may have been, and nothing of it is to be seen.
                match settle.next() {
                    Some(pause) => host.pause(*pause),
                    None => return Err(error(change, "what was done does not take effect")),
                }
            }
            if let Some(careful) = &planned.careful
                && host.watches_over(careful)
            {
                if last.as_ref() == Some(&planned.steps) {
                    return Err(error(change, "what was done does not take effect"));
                }
                make_carefully(host, change, careful, &planned.steps, checkpoint)?;
                last = Some(planned.steps);
                continue;
            }
            let mut sure = true;
            for step in &planned.steps {
                match run::make(host, step, checkpoint) {
                    Ok(()) => {}
                    Err(failed) if failed.unsure && settle.len() > 0 => {
                        sure = false;
                        break;
                    }
                    Err(failed) => return Err(failed),
                }
                if step.look_again {
                    sure = false;
                    break;
                }
            }
            if sure && change.verdict != Verdict::Delete {
                // What cannot be read back is taken to be what was just set.
                before = Some(&applied);
            }
            last = Some(planned.steps);
        }
        Err(error(change, "it does not come to rest"))
    }

    fn verify(
        &self,
        host: &mut dyn Host,
        change: &Change,
        desired: &Desired,
        known: &Known,
    ) -> Result<Vec<String>, StepError> {
        let id = &change.resource.id;
        let wanted = self.wanted(desired, id);
        let mut waited = Duration::ZERO;
        let mut wait = Duration::from_millis(50);
        let applied = as_applied(change);
        let before = if change.verdict == Verdict::Delete {
            known.get(id)
        } else {
            Some(&applied)
        };
        loop {
            let found = self.look_at(host, id).map_err(|e| unseen(change, &e))?;
            let planned = self.plan_now(change, wanted, found.as_ref(), before, true);
            let mut wrong: Vec<String> = planned.steps.iter().map(|s| s.say.clone()).collect();
            wrong.extend(planned.blocked);
            if let (Some(wanted), Some(found)) = (wanted, &found) {
                wrong.extend(self.0.complaints(wanted, found));
            }
            if wrong.is_empty() {
                return Ok(match (wanted, &found) {
                    (Some(wanted), Some(found)) => self.0.remarks(wanted, found),
                    _ => Vec::new(),
                });
            }
            if waited >= COMPLAINTS_PASS {
                return Err(error(
                    change,
                    format!("not as it should be: {}", wrong.join("; ")),
                ));
            }
            host.pause(wait);
            waited += wait;
            wait = (wait * 2).min(Duration::from_secs(1));
        }
    }
}

fn change(
    plugin: &'static str,
    id: &str,
    verdict: Verdict,
    planned: Planned,
    wanted: Option<Value>,
) -> Change {
    Change {
        resource: ResourceRef::new(plugin, id),
        verdict,
        fields: planned.fields,
        steps: planned.steps,
        notes: planned.notes,
        blocked: planned.blocked,
        needs: Vec::new(),
        after: Vec::new(),
        awaits: planned.awaits,
        wanted,
        ours: planned.ours,
        watched: planned.careful.is_some(),
    }
}
