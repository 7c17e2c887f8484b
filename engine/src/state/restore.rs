//! What was applied last, made so again: after a start of the machine, which takes tunnels, addresses, routes, forwarding,
//! announcements and flows with it. Nothing is deleted, and what held data is not made anew. Called by `blockhost net restore`,
//! which a unit runs at each start.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Change, ResourceRef, Verdict};
use super::engine::{Engine, Event, Plan, StateError, wake};
use super::footprint;
use super::kind::{Entry, Kind as _, Known};
use super::lxc::{Lxc, owner_of};
use super::net::Net;
use super::plugin::Desired;
use super::record::{Lock, Record};
use super::report::{ApplyReport, DiffReport};

const GONE: &str = "it is not there any more, and a start of the machine makes no new one, which would be empty; `blockhost apply` does";
const INTERRUPTED: &str = "an apply that was to make it or to take it away was interrupted; `blockhost apply` completes it";
const UNREADABLE: &str =
    "what was recorded of it cannot be read any more; `blockhost apply` makes it again";
const SUSPENDED: &str = "its subscription is suspended or over, so it is not started";

/// What must not be started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Off {
    /// Numbers of machines and containers.
    pub numbers: BTreeSet<String>,
    /// Set where nobody knows: then none is started.
    pub unknown: Option<String>,
}

impl Off {
    fn holds(&self, number: &str) -> Option<String> {
        if self.numbers.contains(number) {
            return Some(SUSPENDED.to_owned());
        }
        let why = self.unknown.as_ref()?;
        Some(format!(
            "whether its subscription lasts is not known: {why}"
        ))
    }
}

/// What of a record stands, and of what it is not known.
fn standing(known: &Known) -> (Known, BTreeSet<String>) {
    let (mut stand, mut torn) = (Known::new(), BTreeSet::new());
    for (id, entry) in known {
        match entry.standing() {
            Some(wanted) => {
                stand.insert(id.clone(), Entry::applied(wanted.clone()));
            }
            None => {
                torn.insert(id.clone());
            }
        }
    }
    (stand, torn)
}

/// One that nothing is done about, and why.
fn left_out(plugin: &'static str, id: &str, why: &str) -> Change {
    Change {
        resource: ResourceRef::new(plugin, id),
        verdict: Verdict::Create,
        fields: Vec::new(),
        steps: Vec::new(),
        notes: Vec::new(),
        blocked: Some(why.to_owned()),
        needs: Vec::new(),
        after: Vec::new(),
        awaits: Vec::new(),
        wanted: None,
        ours: false,
        watched: false,
    }
}

/// Ports that are not there although nothing says that they should not be: of those of our own containers the containers
/// say it, of those of others their subscription.
fn awaited(plan: &Plan, off: &Off) -> Vec<String> {
    let changes = || plan.parts.iter().flat_map(|part| &part.changes);
    let known = |container: &ResourceRef| {
        changes().any(|change| change.resource == *container) || off.holds(&container.id).is_some()
    };
    let mut ports = BTreeSet::new();
    for change in changes() {
        let waits = change
            .awaits
            .iter()
            .filter(|other| other.plugin == Net::NAME);
        for port in waits {
            let name = port.id.split_once('/').map_or("", |(_, name)| name);
            let owner = owner_of(name).map(|id| ResourceRef::new(Lxc::NAME, id));
            if !owner.as_ref().is_some_and(known) {
                ports.insert(port.id.clone());
            }
        }
    }
    ports.into_iter().collect()
}

impl Engine<'_> {
    fn restoration(&mut self, record: &Record, off: &Off) -> Plan {
        let mut missing: Vec<Change> = Vec::new();
        let mut desired: BTreeMap<&'static str, Desired> = BTreeMap::new();
        for plugin in &self.plugins {
            let name = plugin.name();
            let (stand, torn) = standing(&record.of(name));
            let revived = plugin.recorded(&stand);
            let unread = stand.keys().filter(|id| !revived.shown.contains_key(*id));
            missing.extend(unread.map(|id| left_out(name, id, UNREADABLE)));
            missing.extend(torn.iter().map(|id| left_out(name, id, INTERRUPTED)));
            desired.insert(name, revived);
        }
        let (mut parts, errors) = self.plan(desired, record, false);
        for part in &mut parts {
            let plugin = &self.plugins[part.plugin];
            let name = plugin.name();
            // Of what is not wanted there is nothing to say: nobody gave a document.
            part.changes.retain(|change| change.wanted.is_some());
            for change in part.changes.iter_mut().filter(|c| c.is_pending()) {
                let why = match change.verdict {
                    Verdict::Create if !plugin.is_made_again() => Some(GONE.to_owned()),
                    _ if name == Lxc::NAME => off.holds(&change.resource.id),
                    _ => None,
                };
                if let Some(why) = why {
                    change.steps.clear();
                    change.blocked.get_or_insert(why);
                }
            }
            let of_it = |change: &Change| change.resource.plugin == name;
            part.changes
                .extend(missing.extract_if(.., |change| of_it(change)));
        }
        wake(&mut parts);
        Plan {
            parts,
            errors,
            gone: Vec::new(),
            event: footprint::RESTORED,
        }
    }

    /// What a restoration would do.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn look_at_restoration(&mut self, off: &Off) -> Result<DiffReport, StateError> {
        let record = Record::load(&self.layout)?;
        let plan = self.restoration(&record, off);
        Ok(self.report(plan.parts, plan.errors))
    }

    /// Makes what was applied last so again. One that fails stops only what needs it; what is as it should be is left alone,
    /// so that it can be done any number of times, and goes on where it was killed.
    ///
    /// # Errors
    /// [`StateError`] before anything was done; what fails later is in the report.
    pub fn restore(
        &mut self,
        off: &Off,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<ApplyReport, StateError> {
        let before = Record::load(&self.layout)?;
        if before == Record::default() {
            return Ok(ApplyReport::default());
        }
        let lock = Lock::take(&self.layout)?;
        let before = Record::load(&self.layout)?;
        let plan = self.restoration(&before, off);
        let waits = !awaited(&plan, off).is_empty();
        let mut report = self.make(&lock, &before, plan, tell)?;
        if waits {
            let after = Record::load(&self.layout)?;
            report.awaited = awaited(&self.restoration(&after, off), off);
        }
        Ok(report)
    }
}
