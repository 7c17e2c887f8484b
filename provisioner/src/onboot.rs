//! What starts with the host: machines and containers of the embedded backend with `onboot: 1`, in the order of their
//! numbers, which both share. Proxmox VE does this itself. `blockhost-vm-onboot` calls this, its unit calls that.

use blockhost_proto::action::{
    Action, AgentInfo, PctConfig, PctList, PctStart, QmConfig, QmList, QmStart,
};
use blockhost_proto::value::Vmid;
use serde_json::Value;

use crate::agent::Agent;
use crate::backend::BackendError;
use crate::record::{Status, VmRecord};

/// What a number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Machine,
    Container,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Machine => "VM",
            Self::Container => "CT",
        }
    }

    fn list(self) -> Action {
        match self {
            Self::Machine => QmList {}.into(),
            Self::Container => PctList {}.into(),
        }
    }

    fn config(self, vmid: Vmid) -> Action {
        match self {
            Self::Machine => QmConfig { vmid }.into(),
            Self::Container => PctConfig { vmid }.into(),
        }
    }

    fn start(self, vmid: Vmid) -> Action {
        match self {
            Self::Machine => QmStart { vmid }.into(),
            Self::Container => PctStart { vmid }.into(),
        }
    }
}

/// Starts all that is to run. One that cannot be started keeps no other from it; what failed is returned, everything is
/// said. What is suspended in the database stays off.
///
/// # Errors
/// When the agent does not say what backend it has.
pub fn start_all(
    agent: &impl Agent,
    records: &[VmRecord],
    say: &mut dyn FnMut(&str),
) -> Result<Vec<String>, BackendError> {
    let info = ask(agent, &AgentInfo {}.into())?;
    let backend = info.extra.get("backend").and_then(Value::as_str);
    match backend {
        Some("embedded") => {}
        Some(other) => {
            say(&format!("nothing to do: {other} starts its own"));
            return Ok(Vec::new());
        }
        None => return Err(odd("agent-info", "it has no field \"backend\"")),
    }
    let mut failed = Vec::new();
    let mut fail = |what: String, say: &mut dyn FnMut(&str), error: &BackendError| {
        say(&format!("{what}: {error}"));
        failed.push(what);
    };
    let mut all = Vec::new();
    for kind in [Kind::Machine, Kind::Container] {
        match numbers(agent, kind) {
            Ok(list) => all.extend(list.into_iter().map(|vmid| (vmid, kind))),
            Err(e) => fail(format!("the list of {}s", kind.word()), say, &e),
        }
    }
    all.sort_unstable();
    for (vmid, kind) in all {
        let what = format!("{} {vmid}", kind.word());
        let suspended = records
            .iter()
            .any(|record| record.vmid == vmid && record.status == Status::Suspended);
        match wanted(agent, kind, vmid) {
            Ok(false) => {}
            Ok(true) if suspended => say(&format!("{what} is suspended and stays off")),
            Ok(true) => match ask(agent, &kind.start(vmid)) {
                Ok(_) => say(&format!("{what} runs")),
                Err(e) => fail(what, say, &e),
            },
            Err(e) => fail(what, say, &e),
        }
    }
    Ok(failed)
}

fn ask(
    agent: &impl Agent,
    action: &Action,
) -> Result<blockhost_proto::client::Reply, BackendError> {
    agent
        .call(action, None)
        .map_err(|source| BackendError::Call {
            action: action.name(),
            what: action.ledger_resource(),
            source,
        })
}

fn odd(action: &'static str, problem: &str) -> BackendError {
    BackendError::Answer {
        action,
        problem: problem.to_owned(),
    }
}

fn answered(agent: &impl Agent, action: &Action) -> Result<Value, BackendError> {
    let reply = ask(agent, action)?;
    serde_json::from_str(&reply.output).map_err(|e| odd(action.name(), &e.to_string()))
}

fn numbers(agent: &impl Agent, kind: Kind) -> Result<Vec<Vmid>, BackendError> {
    let action = kind.list();
    let value = answered(agent, &action)?;
    let rows = value
        .as_array()
        .ok_or_else(|| odd(action.name(), "it is no list"))?;
    rows.iter()
        .map(|row| {
            let number = row.get("vmid").and_then(Value::as_u64);
            let number = number.ok_or_else(|| odd(action.name(), "a row has no vmid"))?;
            Ok(Vmid::try_from(number)?)
        })
        .collect()
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
            let what = format!("{} {number}", action.name());
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

    fn run(host: &Host, records: &[VmRecord]) -> (Vec<String>, Vec<String>, String) {
        let mut said = String::new();
        let failed = start_all(host, records, &mut |line| {
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
    fn proxmox_is_left_to_start_its_own() {
        let (started, failed, _) = run(&Host::new("proxmox", &[]), &[]);
        assert!(started.is_empty() && failed.is_empty());
        assert!(start_all(&Host::new("embedded", &["agent-info"]), &[], &mut |_| ()).is_err());
    }
}
