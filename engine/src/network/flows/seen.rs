//! What `ovs-list` says of bridges, as far as policies are about it, and whether that is what is wanted. Pure; what is to be
//! done about it is in `plan`.

use std::collections::{BTreeMap, BTreeSet};

use blockhost_proto::action::{Action, OvsSetFlows, OvsSetQos};
use blockhost_proto::value::SwitchIfName;
use serde_json::{Map, Value, json};

use super::ground::FIRST_METER;
use super::plan::{OURS, ObservedError};

/// What a host says of its bridges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    pub(super) bridges: BTreeMap<String, ObservedBridge>,
}

/// What a host says of one bridge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedBridge {
    /// Whether everything passes once its flows are gone, as after a restart of the switch; unknown where it does not answer.
    standalone: bool,
    /// Whether the root agent made it.
    ours: bool,
    /// Whether it has no flows of anybody, and drops everything without.
    passes_nothing: bool,
    /// Whether it says that flows were lost of which every owner has some.
    found_again: bool,
    /// Its ports, with the numbers that they have.
    pub(super) ports: BTreeMap<String, Option<u16>>,
    /// Ports of which the switch says that their devices are not there.
    dead: BTreeSet<String>,
    pub(super) owners: BTreeMap<String, ObservedOwner>,
    /// Unit, rate, burst.
    pub(super) meters: BTreeMap<u32, (String, u64, u64)>,
    /// Limits and queues in the words of `ovs-set-qos`, of ports that have any.
    pub(super) limits: BTreeMap<String, Value>,
}

/// What a bridge has of one owner.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedOwner {
    /// How many flows.
    pub flows: u64,
    /// Whether they are as they were set; unknown where an older agent set them.
    pub as_set: Option<bool>,
    /// Fingerprint of what was asked for then.
    asked: Option<String>,
}

impl Observed {
    /// Reads the `output` of `ovs-list`.
    ///
    /// # Errors
    /// [`ObservedError::Answer`].
    pub fn read(answer: &Value) -> Result<Self, ObservedError> {
        let mut bridges = BTreeMap::new();
        for bridge in list(answer, "bridges")? {
            bridges.insert(text(bridge, "name")?, ObservedBridge::read(bridge)?);
        }
        Ok(Self { bridges })
    }

    /// Its bridges by name.
    pub fn into_bridges(self) -> impl Iterator<Item = (String, ObservedBridge)> {
        self.bridges.into_iter()
    }
}

impl ObservedBridge {
    fn read(bridge: &Value) -> Result<Self, ObservedError> {
        let mut seen = Self {
            standalone: bridge["fail_mode"] == "standalone",
            ours: bridge["ours"] == true,
            ..Self::default()
        };
        for port in list(bridge, "ports")? {
            let name = text(port, "name")?;
            let number = port["ofport"].as_u64().and_then(|n| u16::try_from(n).ok());
            if !port["limits"].is_null() {
                seen.limits.insert(name.clone(), port["limits"].clone());
            }
            if port["ofport"].as_i64().is_some_and(|number| number < 0) {
                seen.dead.insert(name.clone());
            }
            seen.ports.insert(name, number.filter(|number| *number > 0));
        }
        // A bridge that does not answer has neither.
        if bridge.get("error").is_some() {
            return Ok(seen);
        }
        let owners = list(bridge, "owners")?;
        let secure = bridge["fail_mode"] == "secure";
        seen.passes_nothing = secure && owners.iter().all(|owner| owner["flows"] == 0);
        seen.found_again =
            bridge["flows_lost"] == true && owners.iter().all(|owner| owner["flows"] != 0);
        for owner in owners {
            let Some(name) = owner["owner"].as_str() else {
                continue;
            };
            let about = ObservedOwner {
                flows: owner["flows"].as_u64().unwrap_or_default(),
                as_set: owner["as_set"].as_bool(),
                asked: owner["asked"].as_str().map(str::to_owned),
            };
            seen.owners.insert(name.to_owned(), about);
        }
        for meter in list(bridge, "meters")? {
            let number = |key| meter[key].as_u64().ok_or(ObservedError::Answer(key));
            let id = u32::try_from(number("meter")?).map_err(|_| ObservedError::Answer("meter"))?;
            let burst = meter["burst"].as_u64().unwrap_or(0);
            let about = (text(meter, "unit")?, number("rate")?, burst);
            seen.meters.insert(id, about);
        }
        Ok(seen)
    }

    /// Its owners by name.
    #[must_use]
    pub const fn owners(&self) -> &BTreeMap<String, ObservedOwner> {
        &self.owners
    }

    /// Whether everything passes once its flows are gone, as after a restart of the switch.
    #[must_use]
    pub const fn is_standalone(&self) -> bool {
        self.standalone
    }

    /// Whether nothing passes on it: it has no flows, and drops everything without.
    #[must_use]
    pub const fn passes_nothing(&self) -> bool {
        self.passes_nothing
    }

    /// Whether the root agent made it, and so may change it.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        self.ours
    }

    pub(super) fn has_port(&self, port: &SwitchIfName) -> bool {
        self.ports.contains_key(port.as_str())
    }

    /// Whether no flow can name this port. One that was just attached has no number yet, which the agent waits for.
    pub(super) fn lacks(&self, port: &SwitchIfName) -> bool {
        !self.has_port(port) || self.dead.contains(port.as_str())
    }

    /// Whether there is anything on it that a policy made.
    #[must_use]
    pub fn has_policy(&self) -> bool {
        self.owners.keys().any(|owner| owner.starts_with(OURS))
            || self.meters.keys().any(|meter| *meter >= FIRST_METER)
    }

    /// Whether these flows are there as they were set, and were set for just this, with ports that have the numbers that
    /// they had then.
    #[must_use]
    pub fn has(&self, wanted: &OvsSetFlows) -> bool {
        let Some(there) = self.owners.get(wanted.owner.as_str()) else {
            return wanted.flows.is_empty();
        };
        let number = |name: &SwitchIfName| *self.ports.get(name.as_str())?;
        there.as_set == Some(true)
            && there.asked.is_some()
            && there.asked.as_deref()
                == wanted.flows.fingerprint(number).as_ref().map(AsRef::as_ref)
    }

    /// Whether these flows have to be set: they are not there, or setting them once more has the agent forget that some were
    /// lost. Where those of others are missing that changes nothing.
    #[must_use]
    pub fn needs(&self, wanted: &OvsSetFlows) -> bool {
        !self.has(wanted) || self.found_again && !wanted.flows.is_empty()
    }

    pub(super) fn shapes(&self, wanted: &OvsSetQos) -> bool {
        self.limits.get(wanted.port.as_str()) == limits_of(wanted).as_ref()
    }

    /// For people and programs.
    #[must_use]
    pub fn show(&self) -> Value {
        let owners = self.owners.iter();
        let ours = owners.filter(|(name, _)| name.starts_with(OURS));
        let ours: Map<String, Value> = ours
            .map(|(name, owner)| (name.clone(), owner.show()))
            .collect();
        let meters = self.meters.iter().filter(|(id, _)| **id >= FIRST_METER);
        let meters: Map<String, Value> = meters
            .map(|(id, meter)| (id.to_string(), show_meter(meter).into()))
            .collect();
        json!({"flows": ours, "meters": meters, "limits": self.limits})
    }
}

impl ObservedOwner {
    /// For people and programs.
    #[must_use]
    pub fn show(&self) -> Value {
        match self.as_set {
            Some(false) => format!("{} flows, not as they were set", self.flows).into(),
            _ => format!("{} flows", self.flows).into(),
        }
    }
}

pub(super) fn show_meter((unit, rate, burst): &(String, u64, u64)) -> String {
    match burst {
        0 => format!("{rate} {unit}"),
        burst => format!("{rate} {unit}, burst {burst}"),
    }
}

/// Limits and queues as `ovs-list` shows them; none for none.
pub(super) fn limits_of(wanted: &OvsSetQos) -> Option<Value> {
    let Value::Object(mut params) = Action::from(wanted.clone()).params() else {
        return None;
    };
    params.retain(|key, value| {
        let about_what = key == "bridge" || key == "port";
        !about_what && !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty())
    });
    (!params.is_empty()).then_some(params.into())
}

fn list<'a>(value: &'a Value, key: &'static str) -> Result<&'a Vec<Value>, ObservedError> {
    value[key].as_array().ok_or(ObservedError::Answer(key))
}

fn text(value: &Value, key: &'static str) -> Result<String, ObservedError> {
    value[key]
        .as_str()
        .map(str::to_owned)
        .ok_or(ObservedError::Answer(key))
}
