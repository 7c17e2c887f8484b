//! What a run would do: a pure function from the database, the backend's machines, the moment and the limits.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use blockhost_proto::value::Vmid;
use blockhost_provisioner::backend::Machine;
use blockhost_provisioner::record::{Reservation, Status, VmRecord};
use blockhost_provisioner::time::Time;

/// A run may always destroy this many machines.
pub const ALWAYS_ALLOWED: usize = 3;

/// Which phases run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phases {
    /// Suspend, destroy, free leftovers.
    #[default]
    All,
    /// Only suspend.
    Suspend,
    /// Only destroy.
    Destroy,
}

/// Settings of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// The moment to judge by.
    pub now: Time,
    /// Days between suspension and destruction.
    pub grace_days: u32,
    /// Which phases.
    pub phases: Phases,
    /// Part of all living machines that one run may destroy.
    pub max_destroy_fraction: f64,
    /// Numbers that are ours.
    pub vmids: RangeInclusive<u32>,
    /// The template's number.
    pub template: Vmid,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Observed {
    /// All records.
    pub records: Vec<VmRecord>,
    /// Reservations whose maker is dead.
    pub dead_reservations: Vec<Reservation>,
    /// Reservations whose maker is alive.
    pub live_reservations: Vec<Reservation>,
    /// The backend's machines; `None` when it was not asked.
    pub machines: Option<Vec<Machine>>,
    /// Host routes to addresses of our prefix.
    pub routes: Vec<Ipv6Addr>,
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Active and expired: to suspend.
    pub suspend: Vec<VmRecord>,
    /// Suspended for longer than the grace: to destroy.
    pub destroy: Vec<VmRecord>,
    /// Left by a crash: to take back.
    pub free: Vec<Reservation>,
    /// Host routes without a machine: to remove.
    pub stray_routes: Vec<Ipv6Addr>,
    /// Machines in our range that the database does not know. Reported only.
    pub unknown: Vec<Machine>,
    /// Records that are not destroyed and whose machine is gone. Reported only.
    pub missing: Vec<VmRecord>,
    /// Set when more would be destroyed than one run may without `--force`.
    pub over_limit: Option<OverLimit>,
}

/// A run that wants to destroy too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverLimit {
    /// How many.
    pub wanted: usize,
    /// How many it may.
    pub allowed: usize,
    /// Of how many.
    pub living: usize,
}

/// Decides.
#[must_use]
pub fn plan(observed: &Observed, rules: &Rules) -> Plan {
    let living: Vec<&VmRecord> = observed
        .records
        .iter()
        .filter(|vm| vm.status != Status::Destroyed)
        .collect();
    let expired = |vm: &&&VmRecord| vm.status == Status::Active && vm.expires_at <= rules.now;
    // A suspended record without a date (another version's) counts from its expiry.
    let forgotten = |vm: &&&VmRecord| {
        vm.status == Status::Suspended
            && vm
                .suspended_at
                .unwrap_or(vm.expires_at)
                .plus_days(rules.grace_days)
                <= rules.now
    };
    let take = |wanted: bool, list: Vec<VmRecord>| if wanted { list } else { Vec::new() };
    let suspend = take(
        rules.phases != Phases::Destroy,
        living
            .iter()
            .filter(expired)
            .map(|vm| (*vm).clone())
            .collect(),
    );
    let destroy = take(
        rules.phases != Phases::Suspend,
        living
            .iter()
            .filter(forgotten)
            .map(|vm| (*vm).clone())
            .collect(),
    );
    let free = if rules.phases == Phases::All {
        observed.dead_reservations.clone()
    } else {
        Vec::new()
    };

    let allowed = allowed(living.len(), rules.max_destroy_fraction);
    let over_limit = (destroy.len() > allowed).then_some(OverLimit {
        wanted: destroy.len(),
        allowed,
        living: living.len(),
    });

    let (mut unknown, mut missing) = (Vec::new(), Vec::new());
    if let Some(machines) = &observed.machines {
        let reservations = observed
            .dead_reservations
            .iter()
            .chain(&observed.live_reservations);
        let known: BTreeSet<Vmid> = living
            .iter()
            .map(|vm| vm.vmid)
            .chain(reservations.map(|r| r.vmid))
            .collect();
        let ours = |m: &&Machine| {
            rules.vmids.contains(&m.vmid.get())
                && m.vmid != rules.template
                && !known.contains(&m.vmid)
        };
        unknown = machines.iter().filter(ours).cloned().collect();
        let there: BTreeSet<Vmid> = machines.iter().map(|machine| machine.vmid).collect();
        missing = living
            .iter()
            .filter(|vm| !vm.mock && !there.contains(&vm.vmid))
            .map(|vm| (*vm).clone())
            .collect();
    }
    let mut stray_routes = Vec::new();
    if rules.phases == Phases::All {
        let reservations = observed
            .dead_reservations
            .iter()
            .chain(&observed.live_reservations);
        let known: BTreeSet<Ipv6Addr> = living
            .iter()
            .filter_map(|vm| vm.ipv6_address)
            .chain(reservations.filter_map(|r| r.ipv6))
            .collect();
        stray_routes = observed
            .routes
            .iter()
            .filter(|address| !known.contains(address))
            .copied()
            .collect();
    }
    Plan {
        suspend,
        destroy,
        free,
        stray_routes,
        unknown,
        missing,
        over_limit,
    }
}

/// The larger of [`ALWAYS_ALLOWED`] and the fraction, rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the fraction is 0 to 1 and there are fewer than a million machines"
)]
fn allowed(living: usize, fraction: f64) -> usize {
    ALWAYS_ALLOWED.max((living as f64 * fraction).floor() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn record(vmid: u32, status: Status, since: &str) -> VmRecord {
        let value = serde_json::json!({
            "vm_name": format!("vm-{vmid}"), "vmid": vmid, "status": status, "created_at": "2026-01-01T00:00:00Z",
            "expires_at": since, "suspended_at": if status == Status::Suspended { Some(since) } else { None },
        });
        serde_json::from_value(value).unwrap()
    }

    fn rules(now: &str) -> Rules {
        Rules {
            now: time(now),
            grace_days: 7,
            phases: Phases::All,
            max_destroy_fraction: 0.25,
            vmids: 100..=999,
            template: Vmid::try_from(900_u32).unwrap(),
        }
    }

    fn observed(records: Vec<VmRecord>) -> Observed {
        Observed {
            records,
            dead_reservations: vec![],
            live_reservations: vec![],
            machines: None,
            routes: vec![],
        }
    }

    fn names(list: &[VmRecord]) -> Vec<&str> {
        list.iter().map(|vm| vm.vm_name.as_str()).collect()
    }

    #[test]
    fn a_database_with_everything_forgotten_does_not_empty_the_host() {
        let records: Vec<VmRecord> = (100..140)
            .map(|n| record(n, Status::Suspended, "2026-01-01T00:00:00Z"))
            .collect();
        let plan = plan(&observed(records), &rules("2026-06-01T00:00:00Z"));
        assert_eq!(
            plan.over_limit,
            Some(OverLimit {
                wanted: 40,
                allowed: 10,
                living: 40
            })
        );
    }

    #[test]
    fn three_may_always_go() {
        let records = |n: u32| {
            (100..100 + n)
                .map(|n| record(n, Status::Suspended, "2026-01-01T00:00:00Z"))
                .collect()
        };
        assert_eq!(
            plan(&observed(records(3)), &rules("2026-06-01T00:00:00Z")).over_limit,
            None
        );
        assert!(
            plan(&observed(records(4)), &rules("2026-06-01T00:00:00Z"))
                .over_limit
                .is_some()
        );
    }

    #[test]
    fn a_clock_that_jumped_backwards_touches_nothing() {
        let records = vec![
            record(100, Status::Active, "2026-03-01T00:00:00Z"),
            record(101, Status::Suspended, "2026-03-01T00:00:00Z"),
        ];
        assert_eq!(
            plan(&observed(records), &rules("1999-01-01T00:00:00Z")),
            Plan::default()
        );
    }

    #[test]
    fn expired_machines_are_suspended_and_only_old_suspended_ones_destroyed() {
        let records = vec![
            record(100, Status::Active, "2026-03-01T00:00:00Z"),
            record(101, Status::Active, "2026-03-10T00:00:01Z"),
            record(102, Status::Suspended, "2026-03-03T00:00:00Z"),
            record(103, Status::Suspended, "2026-03-03T00:00:01Z"),
            record(104, Status::Destroyed, "2026-01-01T00:00:00Z"),
        ];
        let observed = observed(records);
        let rules = rules("2026-03-10T00:00:00Z");
        let both = plan(&observed, &rules);
        assert_eq!(
            (names(&both.suspend), names(&both.destroy)),
            (vec!["vm-100"], vec!["vm-102"])
        );
        let only = plan(
            &observed,
            &Rules {
                phases: Phases::Suspend,
                ..rules.clone()
            },
        );
        assert_eq!((only.suspend.len(), only.destroy.len()), (1, 0));
        let only = plan(
            &observed,
            &Rules {
                phases: Phases::Destroy,
                ..rules
            },
        );
        assert_eq!((only.suspend.len(), only.destroy.len()), (0, 1));
    }

    #[test]
    fn a_route_is_stray_when_neither_a_machine_nor_a_reservation_has_its_address() {
        let mut vm = record(100, Status::Active, "2027-01-01T00:00:00Z");
        vm.ipv6_address = Some("fd77::5".parse().unwrap());
        let mut gone = record(101, Status::Destroyed, "2027-01-01T00:00:00Z");
        gone.ipv6_address = Some("fd77::6".parse().unwrap());
        let routes = vec!["fd77::5".parse().unwrap(), "fd77::6".parse().unwrap()];
        let plan = plan(
            &Observed {
                routes,
                ..observed(vec![vm, gone])
            },
            &rules("2026-03-10T00:00:00Z"),
        );
        assert_eq!(plan.stray_routes, ["fd77::6".parse::<Ipv6Addr>().unwrap()]);
    }

    #[test]
    fn machines_nobody_knows_are_reported_within_our_range_and_without_the_template() {
        let machine = |n: u32| Machine {
            vmid: Vmid::try_from(n).unwrap(),
            name: "x".into(),
            status: "running".into(),
        };
        let observed = Observed {
            machines: Some(vec![
                machine(100),
                machine(101),
                machine(900),
                machine(5000),
            ]),
            ..observed(vec![
                record(100, Status::Active, "2027-01-01T00:00:00Z"),
                record(102, Status::Active, "2027-01-01T00:00:00Z"),
            ])
        };
        let plan = plan(&observed, &rules("2026-03-10T00:00:00Z"));
        assert_eq!(plan.unknown, [machine(101)]);
        assert_eq!(names(&plan.missing), ["vm-102"]);
    }
}
