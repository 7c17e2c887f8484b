//! The start of a host, with a recorder in the agent's place.

use std::cell::RefCell;
use std::time::Duration;

use blockhost_proto::ErrorCode;
use blockhost_proto::action::Action;
use blockhost_proto::client::{CallError, Reply};
use serde_json::json;

use super::*;

/// A host that writes down what it started, and fails at these.
struct Host {
    backend: &'static str,
    started: RefCell<Vec<String>>,
    broken: &'static [&'static str],
}

impl Host {
    fn new(backend: &'static str, broken: &'static [&'static str]) -> Self {
        Self {
            backend,
            started: RefCell::default(),
            broken,
        }
    }
}

impl Agent for Host {
    fn call(&self, action: &Action, _: Option<Duration>) -> Result<Reply, CallError> {
        let number = action.params()["vmid"].as_u64().unwrap_or_default();
        let what = match action {
            Action::Ip6RouteAdd(route) => {
                format!("{} {} {}", action.name(), route.address, route.dev)
            }
            _ => format!("{} {number}", action.name()),
        };
        let refused = |code| {
            Err(CallError::Refused {
                code,
                message: "on purpose".to_owned(),
            })
        };
        if self.broken.contains(&what.trim_end_matches(" 0")) {
            return refused(ErrorCode::Failed);
        }
        let mut reply = Reply {
            output: String::new(),
            receipt: None,
            extra: serde_json::Map::new(),
        };
        reply.output = match action {
            Action::AgentInfo(_) => {
                reply.extra.insert("backend".into(), self.backend.into());
                String::new()
            }
            Action::QmList(_) => json!([{"vmid": 105}, {"vmid": 101}, {"vmid": 102}]).to_string(),
            Action::PctList(_) => {
                json!([{"vmid": 104}, {"vmid": 100}, {"vmid": 103}, {"vmid": 106}]).to_string()
            }
            Action::QmConfig(_) | Action::PctConfig(_) => match number {
                102 => json!({"onboot": "0"}),
                103 => json!({"hostname": "x"}),
                105 => json!({"onboot": "1", "template": "1"}),
                106 => return refused(ErrorCode::NotFound),
                _ => json!({"onboot": "1"}),
            }
            .to_string(),
            Action::QmStatus(_) => match number {
                102 => json!({"status": "stopped"}).to_string(),
                103 => return refused(ErrorCode::NotFound),
                _ => json!({"status": "running"}).to_string(),
            },
            _ => {
                self.started.borrow_mut().push(what);
                String::new()
            }
        };
        Ok(reply)
    }
}

fn suspended(vmid: u32) -> VmRecord {
    serde_json::from_value(
        json!({"vm_name": "web-1", "vmid": vmid, "status": "suspended",
        "expires_at": "2026-01-01T00:00:00Z", "created_at": "2026-01-01T00:00:00Z"}),
    )
    .unwrap()
}

#[test]
fn what_is_suspended_and_runs_all_the_same_is_stopped_on_either_backend() {
    let mut paid = suspended(104);
    paid.expires_at = "9999-01-01T00:00:00Z".parse().unwrap();
    // 102 is stopped, 103 is not there; the others run.
    let records = [101, 102, 103].map(suspended);
    let records = [&records[..], &[paid]].concat();
    for backend in ["embedded", "proxmox"] {
        let (done, failed, said) = run(&Host::new(backend, &[]), &records);
        assert_eq!(done[..2], ["qm-set 101", "qm-shutdown 101"], "{backend}");
        assert!(!done.iter().any(|what| what == "qm-start 101"), "{done:?}");
        let others = ["102", "103"].iter().any(|n| done.concat().contains(n));
        assert!(!others && failed.is_empty(), "{done:?} {failed:?}");
        assert!(
            said.contains("VM 101 is suspended and was stopped"),
            "{said}"
        );

        let deaf = Host::new(backend, &["qm-shutdown 101"]);
        let (done, failed, _) = run(&deaf, &records);
        assert_eq!(done[..2], ["qm-set 101", "qm-stop 101"], "{backend}");
        assert!(failed.is_empty());

        let stuck = Host::new(backend, &["qm-shutdown 101", "qm-stop 101"]);
        let (_, failed, _) = run(&stuck, &records);
        assert_eq!(failed, ["VM 101, which is suspended"]);
    }
}

/// One that may receive 8000 kbit/s.
fn limited(vmid: u32, status: &str) -> VmRecord {
    let mut record = suspended(vmid);
    record.status = serde_json::from_value(json!(status)).unwrap();
    record.throttle.bandwidth_in = Some("8000".parse().unwrap());
    record
}

fn run(host: &Host, records: &[VmRecord]) -> (Vec<String>, Vec<String>, String) {
    let bridge = &"vmbr0".parse().unwrap();
    let now = &Meanwhile(&[]);
    run_with(
        host,
        Sold::Known {
            records,
            bridge,
            now,
        },
    )
}

/// A database in which these have changed since the records were read.
#[derive(Debug)]
struct Meanwhile(&'static [(u32, Changed)]);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Changed {
    Suspended,
    Paid,
    Gone,
    Busy,
}

impl Now for Meanwhile {
    fn hold(&self, record: &VmRecord) -> Result<Option<Held>, LifecycleError> {
        let mut record = record.clone();
        let lock = None;
        let changed = self.0.iter().find(|(vmid, _)| record.vmid.get() == *vmid);
        match changed.map(|(_, changed)| changed) {
            None => {}
            Some(Changed::Suspended) => record.status = Status::Suspended,
            Some(Changed::Paid) => {
                record.status = Status::Active;
                record.expires_at = "9999-01-01T00:00:00Z".parse().unwrap();
            }
            Some(Changed::Gone) => return Ok(None),
            Some(Changed::Busy) => {
                return Err(LifecycleError::Busy {
                    name: record.vm_name,
                    maker: "another".into(),
                });
            }
        }
        Ok(Some(Held { record, lock }))
    }
}

#[test]
fn what_was_paid_suspended_or_destroyed_while_the_host_started_is_treated_as_what_it_is_now() {
    let changed = |record: VmRecord, backend, now: Meanwhile| {
        let bridge = &"vmbr0".parse().unwrap();
        let sold = Sold::Known {
            records: &[record],
            bridge,
            now: &now,
        };
        let (mut done, failed, said) = run_with(&Host::new(backend, &[]), sold);
        done.retain(|what| !what.starts_with("pct-"));
        (done, failed, said)
    };
    // It ran already, as whoever has paid for it wished.
    let (done, failed, _) = changed(
        suspended(101),
        "proxmox",
        Meanwhile(&[(101, Changed::Paid)]),
    );
    assert!(done.is_empty() && failed.is_empty(), "{done:?} {failed:?}");
    let (done, _, _) = changed(
        suspended(101),
        "embedded",
        Meanwhile(&[(101, Changed::Paid)]),
    );
    assert_eq!(done, ["qm-start 101"]);
    let (done, failed, said) = changed(
        limited(101, "active"),
        "embedded",
        Meanwhile(&[(101, Changed::Suspended)]),
    );
    assert!(done.is_empty() && failed.is_empty(), "{done:?} {failed:?}");
    assert!(said.contains("is suspended and stays off"), "{said}");
    for backend in ["embedded", "proxmox"] {
        for record in [suspended(101), limited(101, "active")] {
            let (done, failed, _) = changed(record, backend, Meanwhile(&[(101, Changed::Gone)]));
            assert!(done.is_empty() && failed.is_empty(), "{done:?} {failed:?}");
        }
    }
    // Nobody knows what becomes of it, so it is tried again.
    let busy = || Meanwhile(&[(101, Changed::Busy)]);
    let (done, failed, _) = changed(limited(101, "active"), "embedded", busy());
    assert_eq!((done.len(), &failed[..]), (0, &["VM 101".to_owned()][..]));
    let (done, failed, _) = changed(suspended(101), "proxmox", busy());
    assert!(done.is_empty());
    assert_eq!(failed, ["VM 101, which is suspended"]);
    let (done, failed, _) = changed(limited(101, "active"), "proxmox", busy());
    assert!(done.is_empty());
    assert_eq!(failed, ["the limits of VM 101"]);
}

fn run_with(host: &Host, sold: Sold<'_>) -> (Vec<String>, Vec<String>, String) {
    let mut said = String::new();
    let failed = start_all(host, sold, &Tries::ALL, &mut |line| {
        said.push_str(&format!("{line}\n"))
    })
    .unwrap();
    (host.started.take(), failed, said)
}

#[test]
fn what_is_to_run_is_started_in_the_order_of_numbers_and_nothing_else_is() {
    let (started, failed, _) = run(&Host::new("embedded", &[]), &[]);
    assert_eq!(started, ["pct-start 100", "qm-start 101", "pct-start 104"]);
    assert!(failed.is_empty());
}

#[test]
fn a_pass_that_is_tried_again_touches_only_what_failed() {
    let records = [limited(101, "active"), suspended(102)];
    let bridge = &"vmbr0".parse().unwrap();
    let sold = Sold::Known {
        records: &records,
        bridge,
        now: &Meanwhile(&[]),
    };
    let pass = |host: &Host, failed: &[&str]| {
        let tries = Tries::again(failed.iter().map(|what| (*what).to_owned()));
        let failed = start_all(host, sold, &tries, &mut |_| ()).unwrap();
        (host.started.take(), failed)
    };
    let whole = run_with(&Host::new("embedded", &[]), sold).0;
    assert!(whole.len() > 3, "{whole:?}");
    let (done, failed) = pass(&Host::new("embedded", &["pct-start 104"]), &["CT 104"]);
    assert!(done.is_empty(), "{done:?}");
    assert_eq!(failed, ["CT 104"]);
    let (done, _) = pass(&Host::new("embedded", &[]), &["CT 104"]);
    assert_eq!(done, ["pct-start 104"]);
    // It was started in the pass before, and is not once more.
    let (done, _) = pass(&Host::new("embedded", &[]), &["the limits of VM 101"]);
    assert_eq!(done, ["vm-throttle 101"]);
    // Nobody knew then what there is, and what was known was done.
    let again = |unknown| pass(&Host::new("embedded", &[]), &[unknown]).0;
    assert_eq!(again("the list of CTs"), ["pct-start 100", "pct-start 104"]);
    assert_eq!(
        again("the list of VMs"),
        ["qm-start 101", "vm-throttle 101"]
    );
    let done = again("the machines' routes and limits");
    assert_eq!(done, ["vm-throttle 101"], "102 is off, and 101 was started");
    let records = [reached(101, "active"), suspended(107)];
    let host = Host::new("embedded", &[]);
    let sold = Sold::Known {
        records: &records,
        bridge,
        now: &Meanwhile(&[]),
    };
    let tries = Tries::again(["the machines' routes and limits".to_owned()]);
    assert!(
        start_all(&host, sold, &tries, &mut |_| ())
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        host.started.take(),
        [
            "ip6-route-add fd77::101/128 vmbr0",
            "qm-set 107",
            "qm-shutdown 107"
        ]
    );
}

#[test]
fn what_is_suspended_stays_off() {
    let (started, failed, said) = run(&Host::new("embedded", &[]), &[suspended(101)]);
    assert_eq!(started[2..], ["pct-start 100", "pct-start 104"]);
    assert!(
        failed.is_empty() && said.contains("VM 101 is suspended"),
        "{said}"
    );
}

#[test]
fn one_that_fails_keeps_no_other_from_starting_and_is_named() {
    let (started, failed, said) = run(&Host::new("embedded", &["pct-start 100", "qm-list"]), &[]);
    assert_eq!(started, ["pct-start 104"]);
    assert_eq!(failed, ["the list of VMs", "CT 100"]);
    assert!(said.contains("on purpose"), "{said}");
    let (started, failed, _) = run(&Host::new("embedded", &["pct-config 100"]), &[]);
    assert_eq!(started, ["qm-start 101", "pct-start 104"]);
    assert_eq!(failed, ["CT 100"]);
}

#[test]
fn limits_are_put_in_force_again_and_one_that_fails_keeps_no_other_from_starting() {
    let records = [
        limited(101, "destroyed"),
        limited(101, "active"),
        limited(102, "active"),
    ];
    let (started, failed, _) = run(&Host::new("embedded", &[]), &records);
    let order = [
        "pct-start 100",
        "qm-start 101",
        "vm-throttle 101",
        "pct-start 104",
    ];
    assert_eq!(started, order, "102 is not to run");
    assert!(failed.is_empty());
    let (started, failed, said) = run(&Host::new("embedded", &["vm-throttle 101"]), &records);
    assert_eq!(started, ["pct-start 100", "qm-start 101", "pct-start 104"]);
    assert_eq!(failed, ["the limits of VM 101"]);
    assert!(said.contains("on purpose"), "{said}");
}

/// One with the address `fd77::VMID`.
fn reached(vmid: u32, status: &str) -> VmRecord {
    let mut record = suspended(vmid);
    record.status = serde_json::from_value(json!(status)).unwrap();
    record.ipv6_address = Some(format!("fd77::{vmid}").parse().unwrap());
    record
}

#[test]
fn the_host_route_of_each_active_machine_comes_back_on_either_backend_and_one_that_fails_is_named()
{
    let mut made_up = reached(104, "active");
    made_up.mock = true;
    let records = [
        reached(100, "destroyed"),
        reached(101, "active"),
        reached(102, "active"),
        reached(103, "suspended"),
        made_up,
        limited(105, "active"),
    ];
    let routes = |of: &[&str]| -> Vec<String> {
        of.iter()
            .map(|vmid| format!("ip6-route-add fd77::{vmid}/128 vmbr0"))
            .collect()
    };
    for backend in ["embedded", "proxmox"] {
        let (done, failed, _) = run(&Host::new(backend, &[]), &records);
        assert_eq!(done[..2], routes(&["101", "102"]), "{backend}: {done:?}");
        assert!(failed.is_empty(), "{failed:?}");
        let broken = &["ip6-route-add fd77::101/128 vmbr0"];
        let (done, failed, said) = run(&Host::new(backend, broken), &records);
        assert_eq!(done[..1], routes(&["102"]), "{backend}: {done:?}");
        assert_eq!(failed, ["the route to VM 101"]);
        assert!(said.contains("on purpose"), "{said}");
        let starts = done.contains(&"qm-start 101".to_owned());
        assert_eq!(starts, backend == "embedded", "{done:?}");
    }
}

#[test]
fn without_the_database_all_is_started_that_nobody_can_have_bought() {
    let sold = |vmids| Sold::Unknown {
        vmids,
        why: "the database is away",
    };
    let (started, failed, said) = run_with(&Host::new("embedded", &[]), sold(&(100..=199)));
    assert_eq!(started, ["pct-start 100", "pct-start 104"]);
    assert_eq!(failed, ["the machines' routes and limits", "VM 101"]);
    assert!(said.contains("the database is away"), "{said}");
    assert!(said.contains("VM 101: held back"), "{said}");
    let (started, failed, _) = run_with(&Host::new("embedded", &[]), sold(&(102..=199)));
    assert_eq!(started, ["pct-start 100", "qm-start 101", "pct-start 104"]);
    assert_eq!(failed, ["the machines' routes and limits"]);
    let (started, failed, _) = run_with(&Host::new("proxmox", &[]), sold(&(100..=199)));
    assert!(started.is_empty());
    assert_eq!(failed, ["the machines' routes and limits"]);
}

#[test]
fn proxmox_is_left_to_start_its_own_and_what_it_started_is_limited() {
    let (started, failed, _) = run(&Host::new("proxmox", &[]), &[]);
    assert!(started.is_empty() && failed.is_empty());
    let records = [
        limited(103, "suspended"),
        limited(101, "active"),
        limited(102, "active"),
        limited(103, "active"),
        limited(104, "active"),
    ];
    let host = Host::new("proxmox", &["vm-throttle 101"]);
    let (started, failed, _) = run(&host, &records);
    assert_eq!(started, ["vm-throttle 104"]);
    assert_eq!(failed, ["the limits of VM 101"]);
    assert!(
        start_all(
            &Host::new("embedded", &["agent-info"]),
            Sold::Nothing,
            &Tries::ALL,
            &mut |_| ()
        )
        .is_err()
    );
}
