//! From what a bridge should be told and what `ovs-list` says of it to the actions that are still needed, in an order in
//! which less passes meanwhile, never more. Pure.

use std::collections::{BTreeMap, BTreeSet};

use blockhost_proto::action::{Action, OvsSetFlows, OvsSetQos};
use blockhost_proto::value::SwitchIfName;
use serde_json::{Value, json};

use super::ground::FIRST_METER;
use super::seen::{Observed, ObservedBridge, ObservedOwner, limits_of, show_meter};
use super::{Compiled, rank};

/// What begins the name of every owner of ours.
pub const OURS: &str = "net.";

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// What: `flows.net.ct.100`, `meters.32768`, `limits.vi100`.
    pub field: String,
    /// As it is.
    pub from: Value,
    /// As it should be.
    pub to: Value,
    /// What makes it right.
    pub action: Action,
    /// What takes that back; none where nobody knows what there was.
    pub undo: Option<Action>,
}

/// What is needed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steps {
    /// In this order.
    pub actions: Vec<Action>,
    /// Ports of the bridges that no policy names: nothing passes there.
    pub strangers: Vec<(SwitchIfName, String)>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObservedError {
    /// Not what `ovs-list` answers.
    #[error("the answer of ovs-list has no {0} where one belongs")]
    Answer(&'static str),
    /// A bridge that is not there.
    #[error("there is no bridge {bridge}; make it first (ovs-add-br)")]
    NoBridge {
        /// The bridge.
        bridge: SwitchIfName,
    },
    /// Ports that are not there.
    #[error("the bridge {bridge} has no port {}; attach it first (ovs-add-port)", ports.join(", "))]
    NoPorts {
        /// The bridge.
        bridge: SwitchIfName,
        /// The ports that the policy names.
        ports: Vec<String>,
    },
}

/// What is needed for all of these bridges. What is as it was set for the same wish is left alone. Owners that the policy no
/// longer has lose their flows, meters without use go last.
///
/// # Errors
/// [`ObservedError`] where bridges or ports are missing.
pub fn plan(desired: &[Compiled], observed: &Observed) -> Result<Steps, ObservedError> {
    let mut steps = Steps::default();
    for compiled in desired {
        let bridge = &compiled.bridge;
        let Some(seen) = observed.bridges.get(bridge.as_str()) else {
            return Err(ObservedError::NoBridge {
                bridge: bridge.clone(),
            });
        };
        let named = compiled.ports();
        let missing: Vec<String> = named
            .iter()
            .filter(|port| !seen.ports.contains_key(port.as_str()))
            .map(ToString::to_string)
            .collect();
        if !missing.is_empty() {
            return Err(ObservedError::NoPorts {
                bridge: bridge.clone(),
                ports: missing,
            });
        }
        let strangers = strangers(compiled, seen);
        steps
            .strangers
            .extend(strangers.into_iter().map(|port| (bridge.clone(), port)));
        let needed = differences(compiled, &[], seen);
        steps
            .actions
            .extend(needed.into_iter().map(|difference| difference.action));
    }
    Ok(steps)
}

/// Ports of a bridge that its policy does not name.
#[must_use]
pub fn strangers(compiled: &Compiled, seen: &ObservedBridge) -> Vec<String> {
    let named = compiled.ports();
    let known = |port: &str| named.iter().any(|name| name.as_str() == port);
    let ports = seen.ports.keys();
    ports
        .filter(|port| !known(port) && *port != compiled.bridge.as_str())
        .cloned()
        .collect()
}

/// What of a bridge is not as it should be, in the order in which it is made right: what flows refer to, flows, then what
/// nothing refers to any more. `before` are the policies that may have been applied last, the likeliest first.
#[must_use]
pub fn differences(
    desired: &Compiled,
    before: &[&Compiled],
    seen: &ObservedBridge,
) -> Vec<Difference> {
    let bridge = &desired.bridge;
    let mut all = Vec::new();
    for wanted in desired.shapes().filter(|wanted| !seen.shapes(wanted)) {
        all.push(shape(wanted, seen));
    }
    for (id, wanted) in &desired.meters {
        if !seen.meters.get(id).is_some_and(|there| is(wanted, there)) {
            all.extend(meter(bridge, *id, Some(wanted), seen));
        }
    }
    for wanted in desired.sets().filter(|wanted| seen.needs(wanted)) {
        all.push(set(wanted, before, seen));
    }
    let is_wanted = |owner: &str| desired.sets().any(|set| set.owner.as_str() == owner);
    let retired = retire(bridge, seen, is_wanted);
    all.extend(retired.iter().map(|retired| set(retired, before, seen)));
    for id in seen.meters.keys() {
        if *id >= FIRST_METER && !desired.meters.contains_key(id) {
            all.extend(meter(bridge, *id, None, seen));
        }
    }
    let shaped = |port: &SwitchIfName| desired.shapes().any(|shape| shape.port == *port);
    let mut unshaped_ports = BTreeSet::new();
    for old in before.iter().flat_map(|before| before.shapes()) {
        // What somebody has changed since is theirs.
        if !shaped(&old.port) && seen.shapes(old) && unshaped_ports.insert(&old.port) {
            all.push(shape(&unshaped(old), seen));
        }
    }
    all
}

/// What is left of a policy on a bridge, in the order in which it goes: containers first, so that nothing passes unchecked
/// before the end.
#[must_use]
pub fn removal(
    bridge: &SwitchIfName,
    before: &[&Compiled],
    seen: &ObservedBridge,
) -> Vec<Difference> {
    let nothing = Compiled {
        bridge: bridge.clone(),
        qos: Vec::new(),
        meters: BTreeMap::new(),
        flows: Vec::new(),
        guests: BTreeSet::new(),
    };
    differences(&nothing, before, seen)
}

fn unshaped(old: &OvsSetQos) -> OvsSetQos {
    OvsSetQos {
        max_kbps: None,
        queues: Default::default(),
        ingress_kbps: None,
        ingress_burst_kbit: None,
        ..old.clone()
    }
}

fn shape(wanted: &OvsSetQos, seen: &ObservedBridge) -> Difference {
    let from = seen.limits.get(wanted.port.as_str());
    let mut back = json!({"bridge": wanted.bridge, "port": wanted.port});
    let known = match from {
        None => true,
        Some(limits) => {
            for (key, value) in limits.as_object().into_iter().flatten() {
                back[key] = value.clone();
            }
            limits.get("foreign").is_none()
        }
    };
    Difference {
        field: format!("limits.{}", wanted.port),
        from: from.cloned().unwrap_or_default(),
        to: limits_of(wanted).unwrap_or_default(),
        action: wanted.clone().into(),
        undo: known
            .then(|| Action::from_parts("ovs-set-qos", &back).ok())
            .flatten(),
    }
}

fn meter(
    bridge: &SwitchIfName,
    id: u32,
    wanted: Option<&Action>,
    seen: &ObservedBridge,
) -> Option<Difference> {
    let named = || json!({"bridge": bridge, "meter": id});
    let action = match wanted {
        Some(wanted) => wanted.clone(),
        None => Action::from_parts("ovs-set-meter", &named()).ok()?,
    };
    let mut back = named();
    let from = seen.meters.get(&id);
    if let Some((unit, rate, burst)) = from {
        back["unit"] = unit.clone().into();
        back["rate"] = (*rate).into();
        if *burst > 0 {
            back["burst"] = (*burst).into();
        }
    }
    let to = wanted.map(|wanted| {
        let params = wanted.params();
        let unit = params["unit"].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| params[key].as_u64().unwrap_or_default();
        Value::from(show_meter(&(unit, number("rate"), number("burst"))))
    });
    Some(Difference {
        field: format!("meters.{id}"),
        from: from
            .map(|there| show_meter(there).into())
            .unwrap_or_default(),
        to: to.unwrap_or_default(),
        action,
        undo: Action::from_parts("ovs-set-meter", &back).ok(),
    })
}

fn set(wanted: &OvsSetFlows, before: &[&Compiled], seen: &ObservedBridge) -> Difference {
    let owner = wanted.owner.as_str();
    let there = seen.owners.get(owner);
    let old = || {
        let sets = before.iter().flat_map(|before| before.sets());
        let its: Vec<&OvsSetFlows> = sets.filter(|set| set.owner.as_str() == owner).collect();
        // What was changed by hand goes back to what was applied.
        let held = its.iter().copied().find(|set| seen.has(set));
        held.or_else(|| its.first().copied())
    };
    let undo = match there {
        None => Some(OvsSetFlows {
            flows: Default::default(),
            ..wanted.clone()
        }),
        Some(_) => old().cloned(),
    };
    let count = wanted.flows.len();
    let to = match there {
        _ if count == 0 => Value::Null,
        Some(there) if there.flows == count as u64 => format!("{count} others").into(),
        _ => format!("{count} flows").into(),
    };
    Difference {
        field: format!("flows.{owner}"),
        from: there.map(ObservedOwner::show).unwrap_or_default(),
        to,
        action: wanted.clone().into(),
        undo: undo.map(Action::from),
    }
}

/// Everything of ours taken off a bridge: containers first, so that nothing passes unchecked before the end.
///
/// # Errors
/// [`ObservedError::NoBridge`].
pub fn clear(bridge: &SwitchIfName, observed: &Observed) -> Result<Vec<Action>, ObservedError> {
    let Some(seen) = observed.bridges.get(bridge.as_str()) else {
        return Err(ObservedError::NoBridge {
            bridge: bridge.clone(),
        });
    };
    let gone = removal(bridge, &[], seen);
    Ok(gone.into_iter().map(|gone| gone.action).collect())
}

fn retire(
    bridge: &SwitchIfName,
    seen: &ObservedBridge,
    wanted: impl Fn(&str) -> bool,
) -> Vec<OvsSetFlows> {
    let mut gone: Vec<&String> = seen
        .owners
        .keys()
        .filter(|owner| owner.starts_with(OURS) && !wanted(owner))
        .collect();
    gone.sort_by_key(|owner| std::cmp::Reverse(rank(owner)));
    gone.into_iter()
        .filter_map(|owner| {
            Some(OvsSetFlows {
                bridge: bridge.clone(),
                owner: owner.parse().ok()?,
                flows: Default::default(),
            })
        })
        .collect()
}

/// Whether a meter is set as wanted; where no burst is wanted, the switch's own is good.
fn is(wanted: &Action, (unit, rate, burst): &(String, u64, u64)) -> bool {
    let Action::OvsSetMeter(wanted) = wanted else {
        return false;
    };
    wanted.unit.as_str() == unit
        && wanted
            .rate
            .is_some_and(|wanted| u64::from(wanted.get()) == *rate)
        && wanted
            .burst
            .is_none_or(|wanted| u64::from(wanted.get()) == *burst)
}

impl Compiled {
    fn sets(&self) -> impl Iterator<Item = &OvsSetFlows> {
        self.flows.iter().filter_map(|(_, action)| match action {
            Action::OvsSetFlows(set) => Some(set),
            _ => None,
        })
    }

    fn shapes(&self) -> impl Iterator<Item = &OvsSetQos> {
        self.qos.iter().filter_map(|action| match action {
            Action::OvsSetQos(shape) => Some(shape),
            _ => None,
        })
    }

    /// Every port that flows or queues name.
    #[must_use]
    pub fn ports(&self) -> BTreeSet<SwitchIfName> {
        let in_flows = self.sets().flat_map(|set| set.flows.port_names());
        let shaped = self.shapes().map(|shape| &shape.port);
        in_flows.chain(shaped).cloned().collect()
    }
}
