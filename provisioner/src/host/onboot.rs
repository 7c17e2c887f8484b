//! What starts with the host: machines and containers of the embedded backend with `onboot: 1`, in the order of their
//! numbers, which both share. Proxmox VE does this itself. Either way the kernel gets the host route of each sold machine
//! again and each its limits, which nothing keeps when its host stops. `blockhost-vm-onboot` calls this, its unit calls that.

use std::ops::RangeInclusive;

use blockhost_proto::action::{Ip6RouteAdd, QmStatus};
use blockhost_proto::value::{IfName, Vmid};
use serde_json::Value;

use super::{Guest, Kind, answered, ask, foreign_backend, rows};
use crate::agent::Agent;
use crate::backend::BackendError;
use crate::lifecycle::route_of;
use crate::record::{Status, VmRecord};

/// What is known of the machines that this host has sold.
#[derive(Debug, Clone, Copy)]
pub enum Sold<'a> {
    /// There are none: the host sells nothing.
    Nothing,
    /// All of them.
    Known {
        /// Records of this host, whatever their status.
        records: &'a [VmRecord],
        /// The bridge of the machines.
        bridge: &'a IfName,
    },
    /// The database does not say: a machine with such a number may be one that is suspended.
    Unknown {
        /// The numbers that are given to what is sold.
        vmids: &'a RangeInclusive<u32>,
        /// Why it does not.
        why: &'a str,
    },
}

impl Sold<'_> {
    fn records(&self) -> &[VmRecord] {
        match self {
            Self::Known { records, .. } => records,
            Self::Nothing | Self::Unknown { .. } => &[],
        }
    }

    /// Whether nobody knows if it is to run. Containers are not sold.
    fn may_be_suspended(&self, guest: Guest) -> bool {
        match self {
            Self::Unknown { vmids, .. } => {
                guest.kind == Kind::Machine && vmids.contains(&guest.vmid.get())
            }
            Self::Nothing | Self::Known { .. } => false,
        }
    }
}

/// Starts all that is to run, with its host route, and limits it as its record says. One that cannot be reached, started or
/// limited keeps no other from it; what failed is returned, everything is said. What is suspended in the database stays off,
/// and what may be it when the database does not answer.
///
/// # Errors
/// When the agent does not say what backend it has.
pub fn start_all(
    agent: &impl Agent,
    sold: Sold<'_>,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<String>, BackendError> {
    let foreign = foreign_backend(agent)?;
    let records = sold.records();
    // Before the machines: a guest that is up and cannot be reached is down for its owner.
    let mut failed = match sold {
        Sold::Nothing => Vec::new(),
        Sold::Known { records, bridge } => set_routes(agent, records, bridge, say),
        Sold::Unknown { why, .. } => {
            say(&format!("what is sold is not known: {why}"));
            vec!["the machines' routes and limits".to_owned()]
        }
    };
    if let Some(other) = foreign {
        say(&format!("{other} starts its own"));
        failed.extend(limit_running(agent, records, say));
        return Ok(failed);
    }
    let mut fail = |what: String, say: &mut dyn FnMut(&str), why: &dyn std::fmt::Display| {
        say(&format!("{what}: {why}"));
        failed.push(what);
    };
    let mut all = Vec::new();
    for kind in Kind::ALL {
        match rows(agent, kind) {
            Ok(list) => all.extend(list.into_iter().map(|row| Guest {
                vmid: row.vmid,
                kind,
            })),
            Err(e) => fail(format!("the list of {}s", kind.word()), say, &e),
        }
    }
    all.sort_unstable();
    for guest in all {
        let Guest { vmid, kind } = guest;
        let what = guest.to_string();
        let record = records
            .iter()
            .find(|record| record.vmid == vmid && record.status != Status::Destroyed);
        let suspended = record.is_some_and(|record| record.status == Status::Suspended);
        match wanted(agent, kind, vmid) {
            Ok(false) => {}
            Ok(true) if sold.may_be_suspended(guest) => {
                fail(what, say, &"held back, since it may be suspended");
            }
            Ok(true) if suspended => say(&format!("{what} is suspended and stays off")),
            Ok(true) => match ask(agent, &kind.start(vmid)) {
                Ok(_) => {
                    say(&format!("{what} runs"));
                    if let Some(record) = record
                        && let Err(e) = limit(agent, record)
                    {
                        fail(limits_of(record), say, &e);
                    }
                }
                Err(e) => fail(what, say, &e),
            },
            Err(e) => fail(what, say, &e),
        }
    }
    Ok(failed)
}

/// Sets the host routes that the kernel forgot with the host's end, or with the bridge; one that is there is fine.
fn set_routes(
    agent: &impl Agent,
    records: &[VmRecord],
    bridge: &IfName,
    say: &mut dyn FnMut(&str),
) -> Vec<String> {
    let mut failed = Vec::new();
    let reached = |record: &&VmRecord| record.status == Status::Active && !record.mock;
    for record in records.iter().filter(reached) {
        let Some(address) = route_of(record) else {
            continue;
        };
        let action = Ip6RouteAdd {
            address,
            dev: bridge.clone(),
        };
        if let Err(e) = ask(agent, &action.into()) {
            let what = format!("the route to VM {}", record.vmid);
            say(&format!("{what}: {e}"));
            failed.push(what);
        }
    }
    failed
}

fn limits_of(record: &VmRecord) -> String {
    format!("the limits of VM {}", record.vmid)
}

fn limit(agent: &impl Agent, record: &VmRecord) -> Result<(), BackendError> {
    match record.throttle.action(record.vmid, false, true)? {
        Some(action) => ask(agent, &action.into()).map(drop),
        None => Ok(()),
    }
}

/// Limits those that another has started.
fn limit_running(
    agent: &impl Agent,
    records: &[VmRecord],
    say: &mut dyn FnMut(&str),
) -> Vec<String> {
    let mut failed = Vec::new();
    let limited = |record: &&VmRecord| {
        record.status == Status::Active && !record.mock && !record.throttle.is_none()
    };
    for record in records.iter().filter(limited) {
        let done = running(agent, record.vmid).and_then(|running| {
            if running {
                limit(agent, record)?;
            }
            Ok(running)
        });
        match done {
            Ok(true) => say(&format!("VM {} is limited", record.vmid)),
            Ok(false) => {}
            Err(e) => {
                say(&format!("{}: {e}", limits_of(record)));
                failed.push(limits_of(record));
            }
        }
    }
    failed
}

/// Whether a machine runs; one that is not there does not.
fn running(agent: &impl Agent, vmid: Vmid) -> Result<bool, BackendError> {
    match answered(agent, &QmStatus { vmid }.into()) {
        Err(e) if e.is_not_found() => Ok(false),
        other => Ok(other?.get("status").and_then(Value::as_str) == Some("running")),
    }
}

/// Whether it is to run. One that went away meanwhile is not.
fn wanted(agent: &impl Agent, kind: Kind, vmid: Vmid) -> Result<bool, BackendError> {
    let config = match answered(agent, &kind.config(vmid)) {
        Err(e) if e.is_not_found() => return Ok(false),
        other => other?,
    };
    let set = |key: &str| match config.get(key) {
        Some(Value::String(text)) => text == "1",
        Some(value) => value.as_u64() == Some(1),
        None => false,
    };
    Ok(set("onboot") && !set("template"))
}

#[cfg(test)]
mod tests {
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
                Action::QmList(_) => {
                    json!([{"vmid": 105}, {"vmid": 101}, {"vmid": 102}]).to_string()
                }
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

    /// One that may receive 8000 kbit/s.
    fn limited(vmid: u32, status: &str) -> VmRecord {
        let mut record = suspended(vmid);
        record.status = serde_json::from_value(json!(status)).unwrap();
        record.throttle.bandwidth_in = Some("8000".parse().unwrap());
        record
    }

    fn run(host: &Host, records: &[VmRecord]) -> (Vec<String>, Vec<String>, String) {
        let bridge = &"vmbr0".parse().unwrap();
        run_with(host, Sold::Known { records, bridge })
    }

    fn run_with(host: &Host, sold: Sold<'_>) -> (Vec<String>, Vec<String>, String) {
        let mut said = String::new();
        let failed =
            start_all(host, sold, &mut |line| said.push_str(&format!("{line}\n"))).unwrap();
        (host.started.take(), failed, said)
    }

    #[test]
    fn what_is_to_run_is_started_in_the_order_of_numbers_and_nothing_else_is() {
        let (started, failed, _) = run(&Host::new("embedded", &[]), &[]);
        assert_eq!(started, ["pct-start 100", "qm-start 101", "pct-start 104"]);
        assert!(failed.is_empty());
    }

    #[test]
    fn what_is_suspended_stays_off() {
        let (started, failed, said) = run(&Host::new("embedded", &[]), &[suspended(101)]);
        assert_eq!(started, ["pct-start 100", "pct-start 104"]);
        assert!(
            failed.is_empty() && said.contains("VM 101 is suspended"),
            "{said}"
        );
    }

    #[test]
    fn one_that_fails_keeps_no_other_from_starting_and_is_named() {
        let (started, failed, said) =
            run(&Host::new("embedded", &["pct-start 100", "qm-list"]), &[]);
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
            limited(100, "suspended"),
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
                &mut |_| ()
            )
            .is_err()
        );
    }
}
