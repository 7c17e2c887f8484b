//! The decisions, without a host.

use std::collections::BTreeMap;

use blockhost_provisioner::chain_seen::ChainSeen;
use blockhost_provisioner::record::VmRecord;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const DAY: i64 = 86_400;

fn at(day: i64) -> Time {
    Time::from_unix(20_000 * DAY + day * DAY)
}

fn record(n: u32, status: &str, expires: i64, suspended: Option<i64>) -> VmRecord {
    let mut value = json!({
        "vm_name": format!("blockhost-{n:03}"), "vmid": 100 + n, "ip_address": null,
        "ipv6_address": format!("fd77:b10c::{n:x}"), "expires_at": at(expires).to_string(), "owner": "o",
        "status": status, "created_at": at(-90).to_string(), "purpose": "", "wallet_address": null,
    });
    if let Some(day) = suspended {
        value["suspended_at"] = at(day).to_string().into();
    }
    serde_json::from_value(value).unwrap()
}

fn wishes() -> Wishes {
    Wishes {
        node: "here".into(),
        shared: false,
        now: at(0),
        chain: Reading::NoChain,
        grace_days: 7,
        max_destroy_fraction: 0.25,
        suspend: true,
        destroy: true,
        force: false,
    }
}

fn names(records: &[VmRecord]) -> Vec<String> {
    records.iter().map(|r| r.vm_name.to_string()).collect()
}

#[test]
fn a_paid_machine_is_never_touched() {
    let observed = Observed {
        records: vec![record(1, "active", 1, None)],
        ..Observed::default()
    };
    let plan = plan(&observed, &wishes());
    assert!(plan.suspend.is_empty() && plan.destroy.is_empty());
}

#[test]
fn expired_machines_are_suspended_and_only_suspended_ones_past_their_grace_are_destroyed() {
    let observed = Observed {
        records: vec![
            record(1, "active", -30, None),
            record(2, "suspended", -10, Some(-8)),
            record(3, "suspended", -10, Some(-6)),
            record(4, "destroyed", -90, Some(-80)),
        ],
        ..Observed::default()
    };
    let plan = plan(&observed, &wishes());
    assert_eq!(names(&plan.suspend), ["blockhost-001"]);
    assert_eq!(names(&plan.destroy), ["blockhost-002"]);
}

#[test]
fn a_machine_that_was_paid_for_while_it_was_suspended_is_not_destroyed() {
    // Its resumption fails, or its host was away: it is suspended still, long past the grace.
    let observed = Observed {
        records: vec![
            record(1, "suspended", 20, Some(-30)),
            record(2, "suspended", -40, Some(-30)),
        ],
        ..Observed::default()
    };
    let plan = plan(&observed, &wishes());
    assert_eq!(names(&plan.destroy), ["blockhost-002"]);
    assert!(plan.suspend.is_empty());
}

#[test]
fn a_suspended_machine_that_runs_is_stopped_unless_it_is_paid_for() {
    let observed = Observed {
        records: vec![
            record(1, "suspended", -2, Some(-2)),
            record(2, "suspended", -2, Some(-2)),
            record(3, "suspended", 2, Some(-2)),
            record(4, "active", 2, None),
        ],
        running: [101u32, 103, 104]
            .map(|n| Vmid::try_from(n).unwrap())
            .into(),
        ..Observed::default()
    };
    assert_eq!(names(&plan(&observed, &wishes()).stop), ["blockhost-001"]);
    // Whether it was paid in the meantime, nobody has read yet.
    let behind = Wishes {
        chain: read_upto(-3, 0),
        ..wishes()
    };
    assert!(plan(&observed, &behind).stop.is_empty());
}

#[test]
fn each_phase_can_be_left_out() {
    let observed = Observed {
        records: vec![
            record(1, "active", -1, None),
            record(2, "suspended", -10, Some(-8)),
        ],
        ..Observed::default()
    };
    let only = |suspend, destroy| {
        plan(
            &observed,
            &Wishes {
                suspend,
                destroy,
                ..wishes()
            },
        )
    };
    assert!(only(false, true).suspend.is_empty());
    assert!(only(true, false).destroy.is_empty());
}

#[test]
fn a_host_on_which_everything_has_expired_is_not_wiped() {
    let records = (1..=20)
        .map(|n| record(n, "suspended", -90, Some(-80)))
        .collect();
    let observed = Observed {
        records,
        ..Observed::default()
    };
    let refused = plan(&observed, &wishes());
    assert_eq!(
        refused.too_many,
        Some(TooMany {
            deed: "destroyed",
            wanted: 20,
            living: 20,
            allowed: 5
        })
    );
    assert_eq!(
        plan(
            &observed,
            &Wishes {
                force: true,
                ..wishes()
            }
        )
        .too_many,
        None
    );
}

#[test]
fn a_small_host_can_still_clean_up() {
    let records = (1..=3)
        .map(|n| record(n, "suspended", -90, Some(-80)))
        .collect();
    let observed = Observed {
        records,
        ..Observed::default()
    };
    assert_eq!(plan(&observed, &wishes()).too_many, None);
}

#[test]
fn routes_of_machines_and_of_machines_in_the_making_are_kept() {
    let route = |n: u16| Route {
        address: Ipv6Addr::new(0xfd77, 0xb10c, 0, 0, 0, 0, 0, n),
        device: "vmbr0".into(),
    };
    let reservation: Reservation = serde_json::from_value(json!({
        "name": "new", "vmid": 150, "ip": "10.77.0.150", "ipv6": "fd77:b10c::2", "pid": 1, "pid_start": 1,
        "boot_id": "b", "created_at": at(0).to_string(),
    }))
    .unwrap();
    let observed = Observed {
        records: vec![
            record(1, "active", 5, None),
            record(3, "destroyed", -5, None),
        ],
        in_the_making: vec![reservation],
        machines: Some(
            [101u32, 150, 177]
                .into_iter()
                .map(|n| Vmid::try_from(n).unwrap())
                .collect(),
        ),
        routes: vec![route(1), route(2), route(3), route(4), route(4)],
        ..Observed::default()
    };
    let plan = plan(&observed, &wishes());
    assert_eq!(plan.routes, [route(3), route(4)]);
    assert_eq!(plan.unknown, [Vmid::try_from(177u32).unwrap()]);
}

#[test]
fn a_clock_that_went_back_destroys_nothing_and_one_that_leapt_ahead_is_stopped_by_the_guard() {
    let records: Vec<VmRecord> = (1..=20)
        .map(|n| record(n, "suspended", -1, Some(0)))
        .collect();
    let observed = Observed {
        records,
        ..Observed::default()
    };
    let judged = |day: i64| {
        plan(
            &observed,
            &Wishes {
                now: at(day),
                ..wishes()
            },
        )
    };
    for day in [-400, -8, 0, 6] {
        let plan = judged(day);
        assert!(plan.destroy.is_empty() && plan.too_many.is_none(), "{day}");
    }
    for day in [7, 400, 100_000] {
        assert!(judged(day).too_many.is_some(), "{day}");
    }
    // Active machines, all expired at once: the guard stops that, too; none is destroyed by the same run, however far it is.
    let observed = Observed {
        records: (1..=20).map(|n| record(n, "active", 1, None)).collect(),
        ..Observed::default()
    };
    let leapt = plan(
        &observed,
        &Wishes {
            now: at(100_000),
            grace_days: 0,
            ..wishes()
        },
    );
    assert_eq!((leapt.suspend.len(), leapt.destroy.len()), (20, 0));
    let guard = leapt.too_many.expect("the guard");
    assert_eq!(
        (guard.deed, guard.wanted, guard.allowed),
        ("suspended", 20, 5)
    );
}

/// The engine has read up to a block of that day, that many hours ago.
fn read_upto(day: i64, hours: i64) -> Reading {
    Reading::Upto(ChainSeen {
        block: 7,
        block_time: at(day),
        at: Time::from_unix(at(0).unix() - hours * 3600),
        owed: BTreeMap::new(),
    })
}

#[test]
fn what_may_have_been_paid_in_a_block_that_nobody_has_read_is_neither_suspended_nor_destroyed() {
    let observed = Observed {
        records: vec![
            record(1, "active", -3, None),
            record(2, "active", -1, None),
            record(3, "suspended", -20, Some(-10)),
            record(4, "suspended", -20, Some(-8)),
            record(5, "active", 1, None),
            record(6, "suspended", 5, Some(-30)),
        ],
        ..Observed::default()
    };
    let judged = |chain, force| {
        let plan = plan(
            &observed,
            &Wishes {
                chain,
                force,
                ..wishes()
            },
        );
        assert_eq!(names(&plan.paid), ["blockhost-006"]);
        let numbers = |records: &[VmRecord]| -> Vec<u32> {
            records.iter().map(|r| r.vmid.get() - 100).collect()
        };
        (
            numbers(&plan.suspend),
            numbers(&plan.destroy),
            numbers(&plan.waiting),
        )
    };
    let all = (vec![1, 2], vec![3, 4], vec![]);
    assert_eq!(judged(Reading::NoChain, false), all);
    // A chain ahead of the clock is no reason to judge by its time.
    assert_eq!(judged(read_upto(3, 0), false), all);
    assert_eq!(
        judged(read_upto(-2, 0), false),
        (vec![1], vec![3], vec![2, 4])
    );
    // An engine that was away: what was paid meanwhile may be much.
    let away = judged(read_upto(-2, 6), false);
    assert_eq!(away, (vec![1], vec![], vec![2, 3, 4]));
    assert_eq!(
        judged(read_upto(-2, 6), true),
        (vec![1], vec![3], vec![2, 4])
    );
    assert_eq!(
        judged(read_upto(-2, 5), false),
        (vec![1], vec![3], vec![2, 4])
    );
    let unknown = || Reading::Unknown("nobody says".into());
    assert_eq!(judged(unknown(), false), (vec![], vec![], vec![1, 2, 3, 4]));
    assert_eq!(judged(unknown(), true), all);
}

/// The payment's block was read, so that nothing is held back for it; its job waits behind others, or was parked.
#[test]
fn what_was_paid_and_read_and_is_in_no_record_yet_is_neither_suspended_nor_destroyed() {
    let runs = 103..=104;
    let observed = Observed {
        records: vec![
            record(1, "active", -3, None),
            record(2, "suspended", -20, Some(-10)),
            record(3, "suspended", -20, Some(-5)),
            record(4, "suspended", -20, Some(-5)),
            record(5, "suspended", -20, Some(-10)),
            record(6, "active", -3, None),
        ],
        running: runs.map(|n: u32| Vmid::try_from(n).unwrap()).collect(),
        ..Observed::default()
    };
    let read = |owed: &[(u32, i64)]| {
        let name = |n: &u32| format!("blockhost-{n:03}");
        Reading::Upto(ChainSeen {
            block: 7,
            block_time: at(-1),
            at: at(0),
            owed: owed.iter().map(|(n, day)| (name(n), at(*day))).collect(),
        })
    };
    let judged = |owed: &[(u32, i64)]| {
        let chain = read(owed);
        let plan = plan(&observed, &Wishes { chain, ..wishes() });
        [&plan.suspend, &plan.destroy, &plan.stop, &plan.waiting].map(|some| names(some).join(" "))
    };
    assert_eq!(
        judged(&[]),
        [
            "blockhost-001 blockhost-006",
            "blockhost-002 blockhost-005",
            "blockhost-003 blockhost-004",
            ""
        ]
    );
    // What was paid for a time that is over by now keeps nothing, as in a record.
    assert_eq!(
        judged(&[(1, 30), (2, 1), (3, 30), (5, -2), (6, -1)]),
        [
            "blockhost-006",
            "blockhost-005",
            "blockhost-004",
            "blockhost-001 blockhost-002"
        ]
    );
}

#[test]
fn machines_of_another_host_are_not_ours_to_judge_nor_to_count() {
    let mut records: Vec<VmRecord> = (1..=40)
        .map(|n| record(n, "suspended", -90, Some(-80)))
        .collect();
    for record in &mut records[4..] {
        record.node = Some("there".into());
    }
    records[0].node = Some("here".into());
    let observed = Observed {
        records,
        machines: Some([101u32, 110].map(|n| Vmid::try_from(n).unwrap()).into()),
        ..Observed::default()
    };
    let plan = plan(&observed, &wishes());
    assert_eq!(plan.destroy.len(), 4, "three of no host, and our own");
    assert_eq!(
        plan.too_many,
        Some(TooMany {
            deed: "destroyed",
            wanted: 4,
            living: 4,
            allowed: 3
        })
    );
    assert!(plan.unknown.is_empty(), "a number of theirs is known");
    // Where hosts share the database, a record without a host is not everybody's.
    let shared = super::plan(
        &observed,
        &Wishes {
            shared: true,
            ..wishes()
        },
    );
    assert_eq!(names(&shared.destroy), ["blockhost-001"]);
    assert_eq!(
        names(&shared.nobodys),
        ["blockhost-002", "blockhost-003", "blockhost-004"]
    );
    assert!(plan.nobodys.is_empty() && shared.unknown.is_empty());
}

#[test]
fn only_ports_of_numbers_that_nobody_knows_are_left_over() {
    let port = |n: u32| SwitchPort {
        bridge: "ovsbr0".parse().unwrap(),
        port: format!("vi{n}").parse().unwrap(),
        vmid: Vmid::try_from(n).unwrap(),
    };
    let numbers = |list: &[u32]| list.iter().map(|n| Vmid::try_from(*n).unwrap()).collect();
    let mut observed = Observed {
        records: vec![
            record(1, "suspended", 5, None),
            record(2, "destroyed", -5, None),
        ],
        machines: Some(numbers(&[103])),
        containers: Some(numbers(&[104])),
        ports: [101, 102, 103, 104, 105, 105].map(port).to_vec(),
        ..Observed::default()
    };
    assert_eq!(plan(&observed, &wishes()).ports, [port(102), port(105)]);
    // Nothing is judged while the backend does not answer.
    observed.containers = None;
    assert!(plan(&observed, &wishes()).ports.is_empty());
    observed.containers = Some(numbers(&[]));
    observed.machines = None;
    assert!(plan(&observed, &wishes()).ports.is_empty());
}

proptest! {
    #[test]
    fn nothing_is_planned_twice_and_the_guard_bounds_what_goes(
        machines in proptest::collection::vec((0u8..3, -40i64..40, proptest::option::of(-40i64..0)), 0..60),
        fraction in 0.0f64..1.0,
    ) {
        let records: Vec<VmRecord> = machines.iter().enumerate().map(|(n, (status, expires, suspended))| {
            let status = ["active", "suspended", "destroyed"][usize::from(*status)];
            record(u32::try_from(n).unwrap(), status, *expires, *suspended)
        }).collect();
        let observed = Observed { records, ..Observed::default() };
        let plan = plan(&observed, &Wishes { max_destroy_fraction: fraction, ..wishes() });
        for r in &plan.suspend { prop_assert!(!plan.destroy.contains(r)); }
        for r in plan.suspend.iter().chain(&plan.destroy) { prop_assert!(r.expires_at <= at(0)); }
        let living = observed.records.iter().filter(|r| r.status != Status::Destroyed).count();
        let part = living as f64 * fraction;
        let within = |some: &[VmRecord]| some.len() <= ALWAYS_ALLOWED || some.len() as f64 <= part;
        prop_assert_eq!(plan.too_many.is_none(), within(&plan.suspend) && within(&plan.destroy));
    }
}
