//! What a run would do, as a pure function of what was observed. Nothing is read or changed here; `run` does that.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use blockhost_proto::value::Vmid;
use blockhost_provisioner::backend::SwitchPort;
use blockhost_provisioner::chain_seen::Reading;
use blockhost_provisioner::record::{Reservation, Status, VmRecord};
use blockhost_provisioner::time::Time;

/// A run may always suspend and destroy this many machines, however few there are: a small host must be able to clean up.
pub const ALWAYS_ALLOWED: usize = 3;

/// What was paid within the last hours may not have been read: with an older reading, nothing is destroyed.
pub const READING_HOURS: u32 = 6;

/// What was seen of the world.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// All records of the database.
    pub records: Vec<VmRecord>,
    /// Reservations whose maker no longer runs: crash leftovers.
    pub abandoned: Vec<Reservation>,
    /// Reservations of machines that are being made right now.
    pub in_the_making: Vec<Reservation>,
    /// Machines that the backend has inside our range, templates left out; `None` when it was not asked.
    pub machines: Option<BTreeSet<Vmid>>,
    /// Those of them that are not off.
    pub running: BTreeSet<Vmid>,
    /// Containers that the backend has; `None` when it was not asked or has no answer.
    pub containers: Option<BTreeSet<Vmid>>,
    /// Host routes inside our IPv6 pool.
    pub routes: Vec<Route>,
    /// Ports that the agent made for machines inside our range.
    pub ports: Vec<SwitchPort>,
}

/// A host route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The address.
    pub address: Ipv6Addr,
    /// The device it points to.
    pub device: String,
}

/// The operator's wishes.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// This host: machines of others that share the database are theirs to judge.
    pub node: String,
    /// Whether hosts share the database: a record that names none is then nobody's to judge.
    pub shared: bool,
    /// The moment to judge by.
    pub now: Time,
    /// How far the engine has read what was paid: nothing is judged by a later moment than that.
    pub chain: Reading,
    /// Days between suspension and destruction.
    pub grace_days: u32,
    /// Part of the living machines that one run may suspend, and that it may destroy.
    pub max_destroy_fraction: f64,
    /// Phase 1.
    pub suspend: bool,
    /// Phase 2.
    pub destroy: bool,
    /// Suspend and destroy however many there are, and also when nobody has read the chain of late.
    pub force: bool,
}

impl Wishes {
    /// The moment that both phases judge by; `None` while nothing may be judged.
    #[must_use]
    pub fn judged_by(&self) -> Option<Time> {
        match &self.chain {
            Reading::NoChain => Some(self.now),
            Reading::Upto(seen) => Some(self.now.min(seen.block_time)),
            Reading::Unknown(_) => self.force.then_some(self.now),
        }
    }

    /// Until when the machine is paid for: by its record, or by a payment that the engine has read and not entered yet.
    #[must_use]
    fn paid_until(&self, record: &VmRecord) -> Time {
        let owed = match &self.chain {
            Reading::Upto(seen) => seen.owed.get(record.vm_name.as_str()),
            Reading::NoChain | Reading::Unknown(_) => None,
        };
        owed.map_or(record.expires_at, |owed| record.expires_at.max(*owed))
    }

    /// Whether the reading is too old for anything that cannot be taken back.
    #[must_use]
    pub fn reading_is_old(&self) -> bool {
        match &self.chain {
            Reading::Upto(seen) => seen.at.plus_hours(READING_HOURS) <= self.now,
            Reading::NoChain | Reading::Unknown(_) => false,
        }
    }
}

/// What a run would do.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Active machines past their expiry.
    pub suspend: Vec<VmRecord>,
    /// Suspended machines past their grace.
    pub destroy: Vec<VmRecord>,
    /// Reservations to be cleaned up and freed.
    pub free: Vec<Reservation>,
    /// Routes that lead to no machine.
    pub routes: Vec<Route>,
    /// Ports of switches whose machine or container is gone.
    pub ports: Vec<SwitchPort>,
    /// Machines of the backend that the database does not know: for the operator's eyes only.
    pub unknown: Vec<Vmid>,
    /// Suspended machines that run.
    pub stop: Vec<VmRecord>,
    /// Due by their record and the clock, and not by what was read of the chain: they wait.
    pub waiting: Vec<VmRecord>,
    /// Suspended, though they are paid for.
    pub paid: Vec<VmRecord>,
    /// Of no host, in a database that hosts share.
    pub nobodys: Vec<VmRecord>,
    /// Set when a phase is more than the guard allows; nothing is then to be carried out.
    pub too_many: Option<TooMany>,
}

/// The guard against a wrong clock or a wrong database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{wanted} of {living} machines would be {deed}, more than the {allowed} that one run may; check the clock and the \
     database, then run again with --force if this is right"
)]
pub struct TooMany {
    /// `suspended` or `destroyed`.
    pub deed: &'static str,
    /// Machines that would go.
    pub wanted: usize,
    /// Machines that are not destroyed yet.
    pub living: usize,
    /// Machines that may go.
    pub allowed: usize,
}

/// Decides.
#[must_use]
pub fn plan(observed: &Observed, wishes: &Wishes) -> Plan {
    let living: Vec<&VmRecord> = observed
        .records
        .iter()
        .filter(|r| r.status != Status::Destroyed)
        .collect();
    let ours: Vec<&VmRecord> = living
        .iter()
        .filter(|r| match &r.node {
            Some(node) => *node == wishes.node,
            None => !wishes.shared,
        })
        .copied()
        .collect();
    let mut plan = Plan::default();
    let judged = wishes.judged_by();
    let expired = |r: &VmRecord, at: Time| r.status == Status::Active && r.expires_at <= at;
    let over = |r: &VmRecord, at: Time| r.is_due(at, wishes.grace_days);
    if wishes.suspend {
        plan.suspend = pick(&ours, |r| {
            judged.is_some_and(|at| expired(r, at) && wishes.paid_until(r) <= at)
        });
        plan.stop = pick(&ours, |r| {
            r.status == Status::Suspended
                && observed.running.contains(&r.vmid)
                && judged.is_some_and(|at| wishes.paid_until(r) <= at)
        });
        plan.waiting = pick(&ours, |r| expired(r, wishes.now));
        plan.too_many = guard("suspended", plan.suspend.len(), ours.len(), wishes);
    }
    if wishes.destroy {
        // What this very run suspends is not destroyed by it: the owner gets the grace, even of zero days.
        let may = wishes.force || !wishes.reading_is_old();
        plan.destroy = pick(&ours, |r| {
            may && judged.is_some_and(|at| over(r, at) && wishes.paid_until(r) <= at)
        });
        plan.waiting.extend(pick(&ours, |r| over(r, wishes.now)));
        let wiped = guard("destroyed", plan.destroy.len(), ours.len(), wishes);
        plan.too_many = wiped.or(plan.too_many);
    }
    let at_once: BTreeSet<_> = plan
        .suspend
        .iter()
        .chain(&plan.destroy)
        .map(|r| r.vmid)
        .collect();
    plan.waiting.retain(|r| !at_once.contains(&r.vmid));
    plan.nobodys = pick(&living, |r| wishes.shared && r.node.is_none());
    plan.paid = pick(&ours, |r| {
        r.status == Status::Suspended && r.expires_at > wishes.now
    });
    // The phases can be chosen; crash leftovers are nobody's choice.
    plan.free.clone_from(&observed.abandoned);
    plan.routes = orphaned_routes(observed, &living);
    let known = known_machines(observed, &living);
    plan.ports = orphaned_ports(observed, &known);
    if let Some(machines) = &observed.machines {
        plan.unknown = machines.difference(&known).copied().collect();
    }
    plan
}

fn pick(records: &[&VmRecord], wanted: impl Fn(&VmRecord) -> bool) -> Vec<VmRecord> {
    records
        .iter()
        .filter(|r| wanted(r))
        .map(|r| (*r).clone())
        .collect()
}

fn guard(deed: &'static str, wanted: usize, living: usize, wishes: &Wishes) -> Option<TooMany> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a part between 0 and 1 of a number of machines, rounded down"
    )]
    let part = (living as f64 * wishes.max_destroy_fraction.clamp(0.0, 1.0)) as usize;
    let allowed = part.max(ALWAYS_ALLOWED);
    (wanted > allowed && !wishes.force).then_some(TooMany {
        deed,
        wanted,
        living,
        allowed,
    })
}

fn orphaned_routes(observed: &Observed, living: &[&VmRecord]) -> Vec<Route> {
    // Suspended machines keep their address but not their route; an abandoned reservation's route goes with it.
    let wanted: BTreeSet<Ipv6Addr> = living
        .iter()
        .filter_map(|r| r.ipv6_address)
        .chain(observed.in_the_making.iter().filter_map(|r| r.ipv6))
        .chain(observed.abandoned.iter().filter_map(|r| r.ipv6))
        .collect();
    let mut routes: Vec<Route> = observed
        .routes
        .iter()
        .filter(|route| !wanted.contains(&route.address))
        .cloned()
        .collect();
    routes.sort();
    routes.dedup();
    routes
}

/// Numbers that the database speaks of.
fn known_machines(observed: &Observed, living: &[&VmRecord]) -> BTreeSet<Vmid> {
    living
        .iter()
        .map(|r| r.vmid)
        .chain(observed.in_the_making.iter().map(|r| r.vmid))
        .chain(observed.abandoned.iter().map(|r| r.vmid))
        .collect()
}

/// A port is left over when neither the database nor the backend has anything of its number. When the backend could not be
/// asked for both machines and containers, nothing is.
fn orphaned_ports(observed: &Observed, known: &BTreeSet<Vmid>) -> Vec<SwitchPort> {
    let (Some(machines), Some(containers)) = (&observed.machines, &observed.containers) else {
        return Vec::new();
    };
    let gone = |port: &&SwitchPort| {
        ![known, machines, containers]
            .iter()
            .any(|list| list.contains(&port.vmid))
    };
    let mut ports: Vec<SwitchPort> = observed.ports.iter().filter(gone).cloned().collect();
    ports.sort();
    ports.dedup();
    ports
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
