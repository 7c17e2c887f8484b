//! Looks at manager and host, and carries a plan out through the root agent. Decides nothing: every step may be repeated, and
//! what is left undone the next look finds again.

use blockhost_proto::action::{Action, ContainerDetach, ContainerLook, OvsList};
use blockhost_proto::client::CallError;
use blockhost_proto::client::tokio::Client;
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{InterfaceAddress, NamespaceInode};
use serde::Serialize;

use super::api::Listed;
use super::manager::{Manager, ManagerError};
use super::plan::{Candidate, Fate, Plan, State, Work, plan};
use crate::config::ContainersSection;
use crate::network::observe::{ObserveError, links, look_at_switch};

/// Why there is no plan, or why carrying it out was broken off.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The manager.
    #[error(transparent)]
    Manager(#[from] ManagerError),
    /// The host.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The root agent.
    #[error(transparent)]
    Agent(#[from] CallError),
}

/// What became of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Its id.
    pub id: String,
    /// What people call it; foreign text.
    pub name: String,
    /// Its network; foreign text.
    pub network: String,
    /// In a word.
    pub status: Status,
    /// The end on the host.
    pub port: String,
    /// Addresses inside.
    pub addresses: Vec<String>,
    /// Why it is not attached.
    pub reason: Option<String>,
}

/// In a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It has what it should have, also where it got it just now.
    Attached,
    /// It would get it.
    WouldAttach,
    /// It has nothing.
    NotAttached,
    /// Nothing was done, and what it has stays.
    Unknown,
    /// It should have something, and does not.
    Failed,
}

/// Looks at everything and plans.
///
/// # Errors
/// [`DiscoveryError`]; nothing may be concluded then.
pub async fn look(
    layout: &Layout,
    section: &ContainersSection,
    manager: &Manager,
) -> Result<Plan, DiscoveryError> {
    let mut agent = Client::connect_layout(layout).await?;
    let mut candidates = Vec::new();
    for listed in manager.list().await? {
        let state = state(manager, &mut agent, &listed).await;
        candidates.push(Candidate {
            id: listed.id,
            name: listed.name,
            network: listed.network,
            addresses: listed.addresses,
            state,
        });
    }
    let switch = look_at_switch(
        layout,
        &OvsList {
            bridge: None,
            flows: false,
            owner: None,
        },
    )
    .await?;
    Ok(plan(
        &section.networks,
        &candidates,
        &links()?,
        switch.as_ref(),
    ))
}

/// Asks the manager for the process, the agent for its network, and the manager once more: where it says the same, the process
/// was that of the container in between.
async fn state(manager: &Manager, agent: &mut Client, listed: &Listed) -> State {
    let unknown = |error: &dyn std::fmt::Display| State::Unknown(error.to_string());
    let before = match manager.inspect(&listed.id).await {
        Ok(Some(seen)) => seen,
        Ok(None) => return State::Stopped,
        Err(error) => return unknown(&error),
    };
    let Some(pid) = before.pid else {
        return State::Stopped;
    };
    if before.on_host {
        return State::Unsuitable("it is in the host's own network".to_owned());
    }
    let netns = match agent.call(&Action::from(ContainerLook { pid })).await {
        Ok(reply) => reply.extra.get("netns").and_then(serde_json::Value::as_u64),
        Err(CallError::Refused {
            code: ErrorCode::NotFound,
            ..
        }) => return State::Unknown("it ended while it was looked at".to_owned()),
        // A refusal may be about the process or about who asks: nothing follows from it.
        Err(error) => return unknown(&error),
    };
    let netns = netns.and_then(|number| NamespaceInode::try_from(number).ok());
    let Some(netns) = netns else {
        return State::Unknown("the agent's answer has no namespace".to_owned());
    };
    match manager.inspect(&listed.id).await {
        Ok(Some(after)) if after == before => State::Running { pid, netns },
        Ok(Some(_)) => State::Unknown("it was started anew while it was looked at".to_owned()),
        Ok(None) => State::Stopped,
        Err(error) => unknown(&error),
    }
}

/// What a plan comes to if nothing is done.
#[must_use]
pub fn outcomes(plan: &Plan) -> Vec<Outcome> {
    plan.rows.iter().map(|row| outcome(row, None)).collect()
}

fn outcome(row: &super::plan::Row, failure: Option<String>) -> Outcome {
    let (status, reason) = match (&row.fate, failure) {
        (_, Some(why)) => (Status::Failed, Some(why)),
        (Fate::Attached, None) => (Status::Attached, None),
        (Fate::Attach(_), None) => (Status::WouldAttach, None),
        (Fate::Not(why), None) => (Status::NotAttached, Some(why.clone())),
        (Fate::Kept(why), None) => (Status::Unknown, Some(why.clone())),
    };
    Outcome {
        id: row.candidate.id.to_string(),
        name: row.candidate.name.clone(),
        network: row.candidate.network.clone(),
        status,
        port: row.port.to_string(),
        addresses: row
            .addresses
            .iter()
            .map(InterfaceAddress::to_string)
            .collect(),
        reason,
    }
}

/// Carries a plan out: first what goes, then what comes. What fails is told, and the rest goes on.
///
/// # Errors
/// [`DiscoveryError::Agent`] where the agent cannot be reached any more.
pub async fn carry_out(
    layout: &Layout,
    plan: &Plan,
) -> Result<(Vec<Outcome>, Vec<String>), DiscoveryError> {
    let mut agent = Client::connect_layout(layout).await?;
    let mut problems = Vec::new();
    for removal in &plan.removals {
        let steps = [
            removal.port.clone().map(Action::from),
            removal.wire.clone().map(Action::from),
        ];
        for step in steps.into_iter().flatten() {
            if let Err(why) = unless_gone(agent.call(&step).await)? {
                problems.push(format!("{}: {why}", step.name()));
            }
        }
    }
    let mut outcomes = Vec::new();
    for row in &plan.rows {
        let mut done = match &row.fate {
            Fate::Attach(work) => outcome(row, attach(&mut agent, work).await?.err()),
            _ => outcome(row, None),
        };
        if done.status == Status::WouldAttach {
            done.status = Status::Attached;
        }
        outcomes.push(done);
    }
    Ok((outcomes, problems))
}

/// A refusal is told; a broken connection ends everything.
fn refusal<T>(result: Result<T, CallError>) -> Result<Result<T, String>, DiscoveryError> {
    match result {
        Ok(done) => Ok(Ok(done)),
        Err(CallError::Refused { message, .. }) => Ok(Err(message)),
        Err(error) => Err(error.into()),
    }
}

/// What is gone already need not go.
fn unless_gone<T>(result: Result<T, CallError>) -> Result<Result<(), String>, DiscoveryError> {
    match result {
        Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(Ok(())),
        other => refusal(other.map(drop)),
    }
}

async fn attach(agent: &mut Client, work: &Work) -> Result<Result<(), String>, DiscoveryError> {
    if let Some(before) = &work.before
        && let Err(why) = unless_gone(agent.call(&Action::from(before.clone())).await)?
    {
        return Ok(Err(why));
    }
    if let Some(wire) = &work.wire
        && let Err(why) = refusal(agent.call(&Action::from(wire.clone())).await)?
    {
        return Ok(Err(why));
    }
    let added = refusal(agent.call(&Action::from(work.port.clone())).await)?;
    let Err(why) = added else {
        return Ok(Ok(()));
    };
    // A wire that leads nowhere would look like a working one inside.
    if let Some(wire) = &work.wire {
        let undo = ContainerDetach {
            container: wire.container.clone(),
            port: wire.port.clone(),
        };
        if let Err(more) = unless_gone(agent.call(&Action::from(undo)).await)? {
            return Ok(Err(format!("{why}; and the wire stayed: {more}")));
        }
    }
    Ok(Err(why))
}
