//! From a document to a plan, and from a plan to reality: all plugins together. What a resource needs comes first, what fails
//! stops only what needs it, the record says what is ours whatever is killed when, and the ledger is told.

use std::collections::{BTreeMap, BTreeSet};

use blockhost_proto::layout::Layout;
use serde_json::{Map, Value, json};

use super::change::{Change, ResourceRef, Verdict};
use super::claims::{adopt, claim, settle};
use super::document::{Document, DocumentError};
use super::flows::Flows;
use super::footprint::{self, Footprint, event, hash};
use super::host::Host;
use super::kind::{Known, Scope};
use super::lxc::Lxc;
use super::mesh::Mesh;
use super::net::Net;
use super::once::Once;
use super::order;
use super::plugin::{Adapter, Current, Desired, StatePlugin};
use super::publicip::PublicIp;
use super::record::{Lock, Record, RecordError};
use super::report::{
    self, ApplyReport, Counts, DiffReport, Fate, Outcome, PluginError, QueryReport,
};
use super::wireguard::Wireguard;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The record of what was applied, or the lock.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// No such plugin.
    #[error("there is no plugin \"{given}\"; known: {known}")]
    NoPlugin {
        /// The name given, escaped.
        given: String,
        /// Those there are.
        known: String,
    },
    /// A fault of this program.
    #[error("the work broke off; what was begun is completed by the next apply")]
    Broken,
}

/// How to apply.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Delete what was made here and is in the document no longer.
    pub prune: bool,
}

/// What whoever watches an apply hears.
#[derive(Debug)]
pub enum Event<'a> {
    /// A resource is begun.
    Begun(&'a Change),
    /// A resource is done with.
    Ended(&'a Outcome),
}

/// The plugins there are, in the order in which resources that do not need each other are made.
#[must_use]
pub fn plugins() -> Vec<Box<dyn StatePlugin>> {
    vec![
        Box::new(Adapter(Net)),
        Box::new(Adapter(Wireguard)),
        Box::new(Adapter(Mesh)),
        Box::new(Adapter(Lxc)),
        Box::new(Adapter(PublicIp)),
        Box::new(Adapter(Flows)),
    ]
}

/// All plugins with the world that they look at and act upon.
pub struct Engine<'a> {
    pub(super) layout: Layout,
    pub(super) host: &'a mut dyn Host,
    pub(super) plugins: Vec<Box<dyn StatePlugin>>,
}

/// One plugin's part of a plan.
pub(super) struct Part {
    pub(super) plugin: usize,
    pub(super) desired: Desired,
    current: Current,
    pub(super) known: Known,
    pub(super) changes: Vec<Change>,
}

/// What is to be carried out.
pub(super) struct Plan {
    pub(super) parts: Vec<Part>,
    /// What could not be looked at.
    pub(super) errors: Vec<PluginError>,
    /// What is known, and neither wanted nor there.
    pub(super) gone: Vec<(&'static str, String)>,
    /// How it is called in the ledger.
    pub(super) event: &'static str,
}

impl<'a> Engine<'a> {
    /// An engine for this world.
    pub fn new(layout: &Layout, host: &'a mut dyn Host) -> Self {
        Self {
            layout: layout.clone(),
            host,
            plugins: plugins(),
        }
    }

    fn chosen(&self, name: Option<&str>) -> Result<Vec<usize>, StateError> {
        let chosen: Vec<usize> = (0..self.plugins.len())
            .filter(|at| name.is_none_or(|name| self.plugins[*at].name() == name))
            .collect();
        match (name, chosen.is_empty()) {
            (Some(given), true) => {
                let names: Vec<&str> = self.plugins.iter().map(|p| p.name()).collect();
                Err(StateError::NoPlugin {
                    given: blockhost_proto::escape::shown(given),
                    known: names.join(", "),
                })
            }
            _ => Ok(chosen),
        }
    }

    /// What there is.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn query(&mut self, plugin: Option<&str>) -> Result<QueryReport, StateError> {
        let mut report = QueryReport::default();
        let record = Record::load(&self.layout)?;
        let chosen = self.chosen(plugin)?;
        let mut host = Once::new(self.host);
        for at in chosen {
            let plugin = &self.plugins[at];
            let name = plugin.name();
            let looked = plugin.query(&mut host, Scope::Everything).and_then(|all| {
                // What has no list of its own is known from the record.
                let known = record.of(name).into_keys();
                let known: BTreeSet<String> =
                    known.filter(|id| !all.shown.contains_key(id)).collect();
                let more = plugin.query(&mut host, Scope::These(&known))?;
                let mut shown = all.shown;
                shown.extend(more.shown);
                Ok(shown)
            });
            match looked {
                Ok(shown) => {
                    report.plugins.insert(name, shown);
                }
                Err(error) => report.errors.push(PluginError {
                    plugin: name,
                    error: error.to_string(),
                }),
            }
        }
        Ok(report)
    }

    /// What an apply of this document would do.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn diff(&mut self, document: &Document, prune: bool) -> Result<DiffReport, StateError> {
        let desired = document.desired(&self.plugins)?;
        let record = Record::load(&self.layout)?;
        let (parts, errors) = self.plan_whole(desired, &record, prune);
        Ok(self.report(parts, errors))
    }

    /// What has become different since the last apply.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn drift(&mut self, plugin: Option<&str>) -> Result<DiffReport, StateError> {
        let record = Record::load(&self.layout)?;
        let desired = self
            .chosen(plugin)?
            .into_iter()
            .map(|at| {
                let plugin = &self.plugins[at];
                (plugin.name(), plugin.recorded(&record.of(plugin.name())))
            })
            .collect();
        let (parts, errors) = self.plan_whole(desired, &record, false);
        Ok(self.report(parts, errors))
    }

    /// [`Self::plan`], with what waits for something of it.
    fn plan_whole(
        &mut self,
        desired: BTreeMap<&'static str, Desired>,
        record: &Record,
        prune: bool,
    ) -> (Vec<Part>, Vec<PluginError>) {
        let (mut parts, errors) = self.plan(desired, record, prune);
        wake(&mut parts);
        (parts, errors)
    }

    pub(super) fn plan(
        &mut self,
        mut desired: BTreeMap<&'static str, Desired>,
        record: &Record,
        prune: bool,
    ) -> (Vec<Part>, Vec<PluginError>) {
        let (mut parts, mut errors) = (Vec::new(), Vec::new());
        let mut host = Once::new(self.host);
        for (at, plugin) in self.plugins.iter().enumerate() {
            let Some(mut desired) = desired.remove(plugin.name()) else {
                continue;
            };
            let known = record.of(plugin.name());
            let ids: BTreeSet<String> = desired.shown.keys().chain(known.keys()).cloned().collect();
            match plugin.query(&mut host, Scope::These(&ids)) {
                Ok(current) => {
                    plugin.resolve(&current, &mut desired, &known);
                    let changes = plugin.diff(&current, &desired, &known, prune);
                    parts.push(Part {
                        plugin: at,
                        desired,
                        current,
                        known,
                        changes,
                    });
                }
                Err(error) => errors.push(PluginError {
                    plugin: plugin.name(),
                    error: error.to_string(),
                }),
            }
        }
        keep_what_is_needed(&mut parts);
        (parts, errors)
    }

    /// What a plugin knows, and what is neither wanted nor there.
    fn gone(&self, part: &Part) -> Vec<(&'static str, String)> {
        let name = self.plugins[part.plugin].name();
        let (wanted, there) = (&part.desired.shown, &part.current.shown);
        part.known
            .keys()
            .filter(|id| !wanted.contains_key(*id) && !there.contains_key(*id))
            .map(|id| (name, id.clone()))
            .collect()
    }

    fn last(&self) -> BTreeSet<&'static str> {
        let last = self.plugins.iter().filter(|p| p.is_deleted_last());
        last.map(|plugin| plugin.name()).collect()
    }

    pub(super) fn report(&self, parts: Vec<Part>, errors: Vec<PluginError>) -> DiffReport {
        let all: Vec<Change> = parts.into_iter().flat_map(|part| part.changes).collect();
        let counts = Counts::of(&all);
        let mut changes: Vec<Change> = order::sorted(&all, &self.last())
            .into_iter()
            .cloned()
            .collect();
        changes.extend(
            all.into_iter()
                .filter(|c| !c.is_pending() && !c.notes.is_empty()),
        );
        DiffReport {
            changes,
            counts,
            errors,
        }
    }

    /// Makes it so.
    ///
    /// # Errors
    /// [`StateError`] before anything was done; what fails later is in the report.
    pub fn apply(
        &mut self,
        document: &Document,
        options: Options,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<ApplyReport, StateError> {
        let desired = document.desired(&self.plugins)?;
        let lock = Lock::take(&self.layout)?;
        let before = Record::load(&self.layout)?;
        let (parts, errors) = self.plan_whole(desired, &before, options.prune);
        let gone: Vec<(&'static str, String)> = parts.iter().flat_map(|p| self.gone(p)).collect();
        let plan = Plan {
            parts,
            errors,
            gone,
            event: footprint::APPLIED,
        };
        self.make(&lock, &before, plan, tell)
    }

    /// Carries a plan out.
    ///
    /// # Errors
    /// [`StateError::Record`]: nothing was begun.
    pub(super) fn make(
        &mut self,
        lock: &Lock,
        before: &Record,
        plan: Plan,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<ApplyReport, StateError> {
        let Plan {
            parts,
            errors,
            gone,
            event,
        } = plan;
        let all: Vec<Change> = parts.iter().flat_map(|p| p.changes.clone()).collect();
        let order: Vec<Change> = order::sorted(&all, &self.last())
            .into_iter()
            .cloned()
            .collect();
        let mut report = ApplyReport {
            counts: Counts::of(&all),
            errors,
            notes: notes(&all),
            ..ApplyReport::default()
        };

        let mut record = before.clone();
        record.interrupted = None;
        adopt(&mut record, &all, &gone);
        let begins = order.iter().any(|change| change.blocked.is_none());
        if begins {
            claim(&mut record, &order);
            record.interrupted = Some(self.summary(&order));
            record.save(lock, &self.layout)?;
        }

        self.carry_out(&order, &all, &parts, &mut report, tell);

        for outcome in &report.outcomes {
            settle(&mut record, before, outcome, &order);
        }
        let interrupted = before.interrupted.as_ref();
        self.leave_footprints(event, &order, &parts, interrupted, &mut report);
        record.interrupted = None;
        if begins || record != *before {
            // The work is done and in the ledger; without this the next apply looks twice, and changes nothing.
            if let Err(error) = record.save(lock, &self.layout) {
                report.errors.push(PluginError {
                    plugin: "state",
                    error: error.to_string(),
                });
            }
        }
        Ok(report)
    }

    /// What the record says while an apply runs.
    fn summary(&self, order: &[Change]) -> Value {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for change in order {
            *counts.entry(change.resource.plugin).or_default() += 1;
        }
        let actions: Vec<Value> = order.iter().map(Change::as_action).collect();
        json!({
            "pid": std::process::id(),
            "timestamp": now(),
            "changes": counts,
            "actions_sha256": hash(&actions.into()),
        })
    }

    fn leave_footprints(
        &mut self,
        name_of_event: &'static str,
        order: &[Change],
        parts: &[Part],
        interrupted: Option<&Value>,
        report: &mut ApplyReport,
    ) {
        let mut actions = Vec::new();
        if let Some(Value::Object(about)) = interrupted {
            let data: Map<String, Value> = about.clone();
            actions.push(("state", event("state", "state-apply-interrupted", data)));
        }
        for part in parts {
            let name = self.plugins[part.plugin].name();
            let changes: Vec<&Change> =
                order.iter().filter(|c| c.resource.plugin == name).collect();
            let outcomes: Vec<&Outcome> = report
                .outcomes
                .iter()
                .filter(|o| o.resource.plugin == name)
                .collect();
            if !outcomes.iter().any(|o| tried(o)) {
                continue;
            }
            let footprint = Footprint {
                event: name_of_event,
                plugin: name,
                changes,
                outcomes,
                timestamp: now(),
                current_hash: hash(&json!(part.current.shown)),
                desired_hash: hash(&json!(part.desired.shown)),
            };
            actions.push((name, footprint.action()));
        }
        for (plugin, action) in actions {
            let left = action.and_then(|action| {
                footprint::leave(self.host, &action).map_err(|error| error.to_string())
            });
            match left {
                Ok(index) => report.footprints.push(report::Footprint { plugin, index }),
                Err(error) => report.errors.push(PluginError {
                    plugin,
                    error: format!("no footprint was left in the ledger: {error}"),
                }),
            }
        }
    }
}

/// What the rest of the document stands on is not deleted under it.
fn keep_what_is_needed(parts: &mut [Part]) {
    let mut needed: BTreeMap<ResourceRef, ResourceRef> = BTreeMap::new();
    let stays = parts.iter().flat_map(|part| &part.changes);
    for change in stays.filter(|c| c.verdict != Verdict::Delete && c.wanted.is_some()) {
        for need in change.needs.iter().chain(&change.after) {
            needed.insert(need.clone(), change.resource.clone());
        }
    }
    for change in parts.iter_mut().flat_map(|part| &mut part.changes) {
        if change.verdict == Verdict::Delete
            && let Some(by) = needed.get(&change.resource)
        {
            let why = format!("{by} of this document needs it");
            change.blocked.get_or_insert(why);
            change.steps.clear();
        }
    }
}

/// What waits for something that this very plan makes has its turn after it.
pub(super) fn wake(parts: &mut [Part]) {
    let all = parts.iter().flat_map(|part| &part.changes);
    let made = all
        .filter(|c| matches!(c.verdict, Verdict::Create | Verdict::Modify) && c.blocked.is_none());
    let made: BTreeSet<ResourceRef> = made.map(|change| change.resource.clone()).collect();
    for change in parts.iter_mut().flat_map(|part| &mut part.changes) {
        let waits = change.awaits.iter().any(|other| made.contains(other));
        if waits && change.verdict == Verdict::NoOp && change.wanted.is_some() {
            change.verdict = Verdict::Modify;
        }
    }
}

fn tried(outcome: &Outcome) -> bool {
    !matches!(outcome.fate, Fate::Blocked | Fate::Skipped)
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn notes(all: &[Change]) -> Vec<String> {
    all.iter()
        .filter(|change| !change.is_pending())
        .flat_map(|change| {
            let name = &change.resource;
            change
                .notes
                .iter()
                .map(move |note| format!("{name}: {note}"))
        })
        .collect()
}
