//! Limits and metrics of machines, with a recorder in the agent's place: what is asked, what is recorded, and in which order.

mod common;

use blockhost_provisioner::lifecycle::{self, LifecycleError};
use blockhost_provisioner::metrics::{Kept, sample};
use blockhost_provisioner::record::{Holder, Status, VmRecord};
use blockhost_provisioner::store::{Store as _, StoreError, Wanted};
use blockhost_provisioner::throttle::{Change, Throttle};
use common::{FakeMachine, TestWorld};
use serde_json::json;

fn machine(world: &TestWorld, name: &str) -> VmRecord {
    let reservation = world
        .store
        .allocate(&Wanted {
            name: name.parse().unwrap(),
            vmid: None,
            ip: None,
            ipv6: None,
            avoid: vec![],
            holder: Holder::current(),
            mock: false,
        })
        .unwrap();
    let record: VmRecord = serde_json::from_value(json!({
        "vm_name": name, "vmid": reservation.vmid, "ip_address": reservation.ip, "ipv6_address": null,
        "expires_at": "2099-01-01T00:00:00Z", "owner": "o", "status": "active",
        "created_at": "2026-01-01T00:00:00Z", "purpose": "", "wallet_address": null,
    }))
    .unwrap();
    world.store.register_vm(&record).unwrap();
    let fake = FakeMachine {
        name: name.into(),
        running: true,
        template: false,
        onboot: false,
    };
    world
        .recorder
        .machines
        .borrow_mut()
        .insert(record.vmid.get(), fake);
    record
}

fn limits() -> Throttle {
    Throttle {
        cpu_quota: Some("50".parse().unwrap()),
        bandwidth_out: Some("20000".parse().unwrap()),
        ..Throttle::default()
    }
}

fn change(named: Throttle) -> Change {
    Change {
        named,
        reset: false,
    }
}

/// What was asked of the agent since the last look, as it stands in a request.
fn asked(world: &TestWorld) -> Vec<serde_json::Value> {
    world.recorder.limits.borrow_mut().split_off(0)
}

#[test]
fn limits_are_asked_for_recorded_and_asked_for_again_at_every_start() {
    let world = TestWorld::new();
    let vm = machine(&world, "web-1");
    let done = world
        .with(|w| lifecycle::throttle(w, &vm, &change(limits())))
        .unwrap();
    assert!(!done.at_next_start);
    assert_eq!(done.record.throttle, limits());
    let full = json!({"vmid": 100, "cpulimit": "0.5", "rate_out_kbps": 20000, "reset": false});
    assert_eq!(asked(&world), std::slice::from_ref(&full));
    // Another limit: only it is asked for, and all are kept.
    let more = Throttle {
        iops_read: Some("500".parse().unwrap()),
        ..Throttle::default()
    };
    let record = world
        .with(|w| lifecycle::throttle(w, &vm, &change(more)))
        .unwrap()
        .record;
    assert_eq!(
        asked(&world),
        [json!({"vmid": 100, "iops_rd": 500, "reset": false})]
    );
    world.with(|w| lifecycle::kill(w, &record)).unwrap();
    world.with(|w| lifecycle::start(w, &record)).unwrap();
    let mut all = full;
    all["iops_rd"] = json!(500);
    assert_eq!(asked(&world), [all.clone()]);
    world
        .with(|w| lifecycle::suspend(w, &record, record.expires_at))
        .unwrap();
    let suspended = world.store.get(&record.vm_name).unwrap();
    world
        .with(|w| lifecycle::resume(w, &suspended, None))
        .unwrap();
    assert_eq!(asked(&world), [all]);
    // A machine without limits is started without a word about them.
    let other = machine(&world, "web-2");
    world.with(|w| lifecycle::start(w, &other)).unwrap();
    assert!(asked(&world).is_empty());
}

#[test]
fn limits_on_the_network_of_a_machine_that_is_off_wait_for_its_start() {
    let world = TestWorld::new();
    let vm = machine(&world, "web-1");
    world.with(|w| lifecycle::kill(w, &vm)).unwrap();
    let done = world
        .with(|w| lifecycle::throttle(w, &vm, &change(limits())))
        .unwrap();
    assert!(done.at_next_start);
    assert_eq!(
        asked(&world),
        [json!({"vmid": 100, "cpulimit": "0.5", "reset": false})]
    );
    world.with(|w| lifecycle::start(w, &done.record)).unwrap();
    assert_eq!(asked(&world)[0]["rate_out_kbps"], 20000);
}

#[test]
fn reset_can_be_said_again_and_takes_everything_from_the_record() {
    let world = TestWorld::new();
    let vm = machine(&world, "web-1");
    world
        .with(|w| lifecycle::throttle(w, &vm, &change(limits())))
        .unwrap();
    asked(&world);
    let reset = Change {
        reset: true,
        ..Change::default()
    };
    for _ in 0..2 {
        let record = world
            .with(|w| lifecycle::throttle(w, &vm, &reset))
            .unwrap()
            .record;
        assert!(record.throttle.is_none());
        assert_eq!(asked(&world), [json!({"vmid": 100, "reset": true})]);
    }
    let text = std::fs::read_to_string(world.store.path()).unwrap();
    assert!(!text.contains("throttle"), "{text}");
}

#[test]
fn what_the_agent_refuses_is_not_recorded_and_a_start_without_limits_is_said() {
    let world = TestWorld::new();
    let vm = machine(&world, "web-1");
    let record = world
        .with(|w| lifecycle::throttle(w, &vm, &change(limits())))
        .unwrap()
        .record;
    world.recorder.broken.borrow_mut().push("vm-throttle");
    let more = Throttle {
        cpu_quota: Some("99".parse().unwrap()),
        ..Throttle::default()
    };
    assert!(
        world
            .with(|w| lifecycle::throttle(w, &record, &change(more)))
            .is_err()
    );
    assert_eq!(world.store.get(&vm.vm_name).unwrap().throttle, limits());
    let error = world.with(|w| lifecycle::start(w, &record)).unwrap_err();
    assert!(matches!(error, LifecycleError::Unlimited { .. }), "{error}");
    // Paid for and running: that the limits are missing does not make it suspended.
    let suspended = world
        .store
        .mark_suspended(&record, record.created_at)
        .unwrap();
    let error = world
        .with(|w| lifecycle::resume(w, &suspended, None))
        .unwrap_err();
    assert!(matches!(error, LifecycleError::Unlimited { .. }), "{error}");
    assert_eq!(world.store.get(&vm.vm_name).unwrap().status, Status::Active);
}

#[test]
fn machines_that_are_destroyed_made_up_or_of_another_host_have_no_limits() {
    let world = TestWorld::new();
    let vm = machine(&world, "web-1");
    let mock = VmRecord {
        mock: true,
        ..vm.clone()
    };
    let elsewhere = VmRecord {
        node: Some("another-host".into()),
        ..vm.clone()
    };
    let gone = VmRecord {
        status: Status::Destroyed,
        ..vm.clone()
    };
    let try_it = |record: &VmRecord| {
        world
            .with(|w| lifecycle::throttle(w, record, &change(limits())))
            .unwrap_err()
    };
    assert!(matches!(try_it(&mock), LifecycleError::Mock(_)));
    assert!(matches!(
        try_it(&elsewhere),
        LifecycleError::Elsewhere { .. }
    ));
    assert!(matches!(
        try_it(&gone),
        LifecycleError::Store(StoreError::WrongStatus { .. })
    ));
    let record = &elsewhere;
    for result in [
        world.with(|w| lifecycle::start(w, record)),
        world.with(|w| lifecycle::stop(w, record)),
        world.with(|w| lifecycle::kill(w, record)),
        world.with(|w| lifecycle::resume(w, record, None)).map(drop),
        world.with(|w| lifecycle::suspend(w, record, record.expires_at)),
    ] {
        assert!(
            matches!(result, Err(LifecycleError::Elsewhere { .. })),
            "{result:?}"
        );
    }
    assert!(asked(&world).is_empty());
}

#[test]
fn who_comes_regularly_waits_for_one_look_and_who_comes_first_for_two() {
    let world = TestWorld::new();
    let vm = machine(&world, "web-1");
    let kept = Kept::of(&world.layout);
    let look = |only| {
        world.recorder.asked.borrow_mut().clear();
        let rows = world
            .with(|w| sample(w.backend, &kept, only, &mut |text| panic!("{text}")))
            .unwrap();
        let looks = world
            .recorder
            .asked
            .borrow()
            .iter()
            .filter(|name| **name == "qm-metrics")
            .count();
        (rows, looks)
    };
    let (rows, looks) = look(None);
    assert_eq!((rows.len(), looks), (1, 2));
    // The recorder's machines read 1000 bytes in a second.
    assert_eq!(rows[0].1.disk_read_bytes_sec, Some(1000));
    let (rows, looks) = look(Some(vm.vmid));
    assert_eq!((rows.len(), looks), (1, 1));
    assert_eq!(rows[0].1.disk_read_bytes_sec, Some(1000));
    // Another machine that nobody has looked at: once more for all.
    machine(&world, "web-2");
    assert_eq!(look(None).1, 2);
    assert_eq!(look(None).1, 1);
    world.with(|w| lifecycle::kill(w, &vm)).unwrap();
    let (rows, looks) = look(None);
    assert_eq!(looks, 1, "one that is off needs no second look");
    assert_eq!(
        (rows[0].1.state.as_str(), rows[0].1.disk_read_bytes_sec),
        ("stopped", Some(0))
    );
}
