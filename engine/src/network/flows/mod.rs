//! The flow compiler: from the policy of `ovsflows` to catalog actions. Every container gets its own flows, every tenant its
//! zone; nothing is forwarded before access control; IPv4 and IPv6 alike. Pure: the root agent does what comes out.
//!
//! Table 0 port security, 1 connection tracking, 2 access control, 3 treatment, 4 and behind delivery. See
//! `docs/network.md`.

mod absent;
mod access;
mod check;
mod deliver;
mod document;
mod ground;
mod plan;
pub mod policy;
mod ports;
mod read;
mod security;
mod seen;
mod sets;
mod track;
mod treat;
mod wish;

pub use plan::{
    Difference, OURS, ObservedError, Steps, clear, differences, plan, removal, strangers,
};
pub use policy::Policy;
pub use read::{PolicyError, Problem};
pub use seen::{Observed, ObservedBridge, ObservedOwner};
pub use wish::Wish;

use std::collections::{BTreeMap, BTreeSet};

use blockhost_proto::action::Action;
use blockhost_proto::value::{FlowOwner, SwitchIfName};
use serde_json::{Value, json};

use ground::{Draft, in_key, limit_key, out_key};
use policy::{Bridge, Metered, Qos};

/// What one bridge has to be told, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The bridge.
    pub bridge: SwitchIfName,
    /// `ovs-set-qos`, for each port with a limit or queues.
    pub qos: Vec<Action>,
    /// `ovs-set-meter`, by the meter's number.
    pub meters: BTreeMap<u32, Action>,
    /// `ovs-set-flows`, by owner, in the order in which they are to be set.
    pub flows: Vec<(FlowOwner, Action)>,
    /// The containers' ports: what is left is set without those that are not there.
    pub guests: BTreeSet<SwitchIfName>,
}

impl Compiled {
    /// Everything in the order in which it is done: what flows refer to, then what holds for all, then networks, tenants,
    /// containers. Between two of them less passes than in the end, never more.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        let flows = self.flows.iter().map(|(_, action)| action);
        self.qos.iter().chain(self.meters.values()).chain(flows)
    }
}

/// Owners in the order in which their flows are set.
fn rank(owner: &str) -> u8 {
    match owner {
        _ if owner.starts_with("net.set.") => 1,
        _ if owner.starts_with("net.tenant.") => 2,
        _ if owner.starts_with("net.ct.") => 3,
        _ => 0,
    }
}

/// Compiles a whole policy.
///
/// # Errors
/// [`PolicyError`] for what only shows when all of it is put together, such as more flows than an owner can have.
pub fn compile(policy: &Policy) -> Result<Vec<Compiled>, PolicyError> {
    policy.bridges.iter().map(compile_bridge).collect()
}

fn compile_bridge(bridge: &Bridge) -> Result<Compiled, PolicyError> {
    let with_tenants = || {
        bridge.containers.iter().filter_map(|container| {
            let tenant = bridge
                .tenants
                .iter()
                .find(|tenant| tenant.name == container.tenant)?;
            Some((container, tenant))
        })
    };
    let shared = access::shared(with_tenants());
    let ways = sets::ways(&bridge.containers);
    let keys = shared
        .iter()
        .map(access::Shared::key)
        .chain(ways.iter().map(sets::Way::key));
    let mut draft = Draft::new(bridge, keys.collect::<Vec<_>>());
    security::base(&mut draft)?;
    track::base(&mut draft)?;
    access::base(&mut draft)?;
    treat::base(&mut draft)?;
    deliver::base(&mut draft)?;
    access::sets(&mut draft, &shared)?;
    treat::sets(&mut draft, &ways)?;
    for tenant in &bridge.tenants {
        track::tenant(&mut draft, tenant)?;
        deliver::tenant(&mut draft, tenant)?;
    }
    for container in &bridge.containers {
        security::container(&mut draft, container)?;
        track::container(&mut draft, container)?;
        access::container(&mut draft, container)?;
        treat::container(&mut draft, container)?;
        deliver::container(&mut draft, container)?;
    }
    let meters = meters(bridge, &draft)?;
    let flows = finish(bridge, draft.into_flows())?;
    Ok(Compiled {
        bridge: bridge.name.clone(),
        qos: qos(bridge)?,
        meters,
        flows,
        guests: (bridge.containers.iter())
            .map(|container| container.port.clone())
            .collect(),
    })
}

/// A catalog action, checked by the catalog.
fn action(place: &str, name: &str, params: &Value) -> Result<Action, PolicyError> {
    Action::from_parts(name, params)
        .map_err(|error| PolicyError::together(place, error.to_string()))
}

fn finish(
    bridge: &Bridge,
    flows: BTreeMap<String, Vec<Value>>,
) -> Result<Vec<(FlowOwner, Action)>, PolicyError> {
    let mut found = Vec::new();
    for (owner, flows) in flows {
        let params = json!({"bridge": bridge.name, "owner": owner, "flows": flows});
        let action = action(&bridge.place, "ovs-set-flows", &params)?;
        let owner: FlowOwner =
            owner
                .parse()
                .map_err(|error: blockhost_proto::value::ValueError| {
                    PolicyError::at(&bridge.place, error.into())
                })?;
        found.push((owner, action));
    }
    found.sort_by_key(|(owner, _)| rank(owner.as_str()));
    Ok(found)
}

fn meters(bridge: &Bridge, draft: &Draft<'_>) -> Result<BTreeMap<u32, Action>, PolicyError> {
    let limits = bridge
        .limits
        .iter()
        .map(|limit| (limit_key(limit.name.as_str()), limit.rate, &limit.place));
    let containers = bridge.containers.iter().flat_map(|container| {
        let out = container
            .rate_out
            .map(|rate| (out_key(container), rate, &container.place));
        let into = container
            .rate_in
            .map(|rate| (in_key(container), rate, &container.place));
        out.into_iter().chain(into)
    });
    limits
        .chain(containers)
        .map(|(key, rate, place)| {
            let Metered { unit, rate, burst } = rate;
            let number = draft.meter(&key);
            let mut params =
                json!({"bridge": bridge.name, "meter": number, "unit": unit, "rate": rate.get()});
            if let Some(burst) = burst {
                params["burst"] = burst.get().into();
            }
            Ok((number, action(place, "ovs-set-meter", &params)?))
        })
        .collect()
}

fn qos(bridge: &Bridge) -> Result<Vec<Action>, PolicyError> {
    let outside = bridge
        .outside
        .iter()
        .map(|port| (&port.port, port.qos.as_ref(), &port.place));
    let containers = bridge
        .containers
        .iter()
        .map(|container| (&container.port, container.qos.as_ref(), &container.place));
    outside
        .chain(containers)
        .filter_map(|(port, qos, place)| Some((port, qos?, place)))
        .map(|(port, qos, place)| {
            let Qos { max_kbps, queues } = qos;
            let mut params = json!({"bridge": bridge.name, "port": port});
            if let Some(rate) = max_kbps {
                params["max_kbps"] = rate.get().into();
            }
            if let Some(queues) = blockhost_proto::value::Param::to_json(queues) {
                params["queues"] = queues;
            }
            action(place, "ovs-set-qos", &params)
        })
        .collect()
}

#[cfg(test)]
mod tests;
