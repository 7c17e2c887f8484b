//! What is done with all machines and containers of this host at once, when it starts and when it stops, whether they were
//! sold or not. Their numbers, which both share, and what the agent says of them.

pub mod onboot;
pub mod stop_all;
pub mod unit_tries;

use blockhost_proto::action::{
    Action, AgentInfo, PctConfig, PctList, PctShutdown, PctStart, PctStop, QmConfig, QmList,
    QmShutdown, QmStart, QmStop,
};
use blockhost_proto::client::Reply;
use blockhost_proto::value::{Seconds, Vmid};
use serde_json::Value;

use crate::agent::Agent;
use crate::backend::{BackendError, odd};

/// What a number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Machine,
    Container,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Machine, Self::Container];

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

    fn shutdown(self, vmid: Vmid, timeout: Seconds) -> Action {
        match self {
            Self::Machine => QmShutdown { vmid, timeout }.into(),
            Self::Container => PctShutdown { vmid, timeout }.into(),
        }
    }

    fn stop(self, vmid: Vmid) -> Action {
        match self {
            Self::Machine => QmStop { vmid }.into(),
            Self::Container => PctStop { vmid }.into(),
        }
    }
}

/// One of either kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Guest {
    vmid: Vmid,
    kind: Kind,
}

impl std::fmt::Display for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.word(), self.vmid)
    }
}

/// A row of a list.
struct Row {
    vmid: Vmid,
    runs: bool,
}

/// The name of the backend where it is not the embedded one, which leaves both to us.
fn foreign_backend(agent: &impl Agent) -> Result<Option<String>, BackendError> {
    let info = ask(agent, &AgentInfo {}.into())?;
    match info.extra.get("backend").and_then(Value::as_str) {
        Some("embedded") => Ok(None),
        Some(other) => Ok(Some(other.to_owned())),
        None => Err(odd("agent-info", "it has no field \"backend\"")),
    }
}

fn ask(agent: &impl Agent, action: &Action) -> Result<Reply, BackendError> {
    agent
        .call(action, None)
        .map_err(|source| BackendError::Call {
            action: action.name(),
            what: action.ledger_resource(),
            source,
        })
}

fn answered(agent: &impl Agent, action: &Action) -> Result<Value, BackendError> {
    let reply = ask(agent, action)?;
    serde_json::from_str(&reply.output).map_err(|e| odd(action.name(), &e.to_string()))
}

fn rows(agent: &impl Agent, kind: Kind) -> Result<Vec<Row>, BackendError> {
    let action = kind.list();
    let value = answered(agent, &action)?;
    let rows = value
        .as_array()
        .ok_or_else(|| odd(action.name(), "it is no list"))?;
    rows.iter()
        .map(|row| {
            let number = row.get("vmid").and_then(Value::as_u64);
            let number = number.ok_or_else(|| odd(action.name(), "a row has no vmid"))?;
            Ok(Row {
                vmid: Vmid::try_from(number)?,
                // Paused or left over is not off either.
                runs: row.get("status").and_then(Value::as_str) != Some("stopped"),
            })
        })
        .collect()
}
