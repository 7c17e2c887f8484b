//! What a plan is: the actions, how each is taken back exactly, and what has to be true afterwards. Pure; nothing is asked or
//! done here. Made by `uplink` and by the declarative state, kept in the revert record.

use std::fmt;
use std::net::IpAddr;

use blockhost_proto::Action;
use blockhost_proto::catalog::Compartment;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::network::observe::{Observed, Route};

/// The main routing table.
const MAIN: u32 = 254;

/// A change with the way back.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What it does, for people.
    pub what: String,
    /// In order; taken back in the opposite one.
    pub steps: Vec<Step>,
    /// What has to be true afterwards.
    pub expect: Expect,
    /// Devices whose connectivity is at stake: NetworkManager makes a checkpoint of those that it manages.
    pub devices: Vec<String>,
    /// What whoever asked for it should know.
    pub notes: Vec<String>,
}

/// One action and how it is taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What has to be true before it is carried out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Condition>,
    /// The action.
    pub forward: Call,
    /// What takes it back, in order. Each may be carried out any number of times, and where the action never happened.
    pub inverse: Vec<Undo>,
}

/// One part of taking a step back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// Only where this is true; always, where there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_if: Option<Condition>,
    /// The action. That what it is about is not there is no failure.
    pub call: Call,
}

/// Something about a device that can be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Condition {
    /// It has this hardware address.
    Hardware {
        /// The device.
        dev: String,
        /// The address.
        mac: String,
    },
    /// It has this hardware address, or one of these addresses.
    Carries {
        /// The device.
        dev: String,
        /// The hardware address.
        mac: Option<String>,
        /// The addresses.
        addresses: Vec<String>,
    },
}

/// An action of the catalog as it is kept: read back, it is validated again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call(pub Action);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    action: String,
    params: Value,
}

impl Serialize for Call {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored {
            action: self.0.name().to_owned(),
            params: self.0.params(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Call {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(from)?;
        let action =
            Action::from_parts(&stored.action, &stored.params).map_err(serde::de::Error::custom)?;
        let spec = action.spec();
        if !matches!(spec.compartment, Compartment::Net | Compartment::Ovs) {
            let why = format!("{} is no change of the network", spec.name);
            return Err(serde::de::Error::custom(why));
        }
        Ok(Self(action))
    }
}

impl<A: Into<Action>> From<A> for Call {
    fn from(action: A) -> Self {
        Self(action.into())
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.name(), self.0.params())
    }
}

/// What has to be true when all steps are done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// Ports that are on a bridge, and work.
    pub ports: Vec<(String, String)>,
    /// Names that no port has.
    pub no_ports: Vec<String>,
    /// Devices.
    pub links: Vec<ExpectLink>,
    /// Routes.
    pub routes: Vec<ExpectRoute>,
}

/// What has to be true of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExpectLink {
    /// The device; it is up.
    pub dev: String,
    /// Its hardware address.
    pub mac: Option<String>,
    /// Addresses that it has.
    pub addresses: Vec<String>,
    /// Addresses that it does not have.
    pub no_addresses: Vec<String>,
}

/// A route that has to be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectRoute {
    /// Where to.
    pub destination: String,
    /// Through this device.
    pub dev: String,
    /// Over this gateway.
    pub gateway: Option<IpAddr>,
    /// With this metric.
    pub metric: u32,
    /// In this table.
    pub table: u32,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Something of the host could not be read: nobody plans on half of a picture.
    #[error("the host's network cannot be planned on: {0}")]
    Unseen(String),
    /// No device of that name.
    #[error("there is no network device {0} on this host; `ip link` lists them")]
    NoDevice(String),
    /// No bridge of that name.
    #[error("there is no bridge {0} on the switch; `blockhost agent call ovs-list` lists them")]
    NoBridge(String),
    /// It cannot be an uplink, or be put on this bridge.
    #[error("{dev} cannot be the uplink of {bridge}: {why}")]
    NotFit {
        /// The device.
        dev: String,
        /// The bridge.
        bridge: String,
        /// What is in the way.
        why: String,
    },
    /// A route would go with an address and could not be given back.
    #[error(
        "{dev} would lose the route to {destination} with an address, and it could not be given back; move the route first, or keep the address"
    )]
    LosesRoute {
        /// The device.
        dev: String,
        /// Where the route leads to.
        destination: String,
    },
    /// What is wanted is so already.
    #[error("{0}; there is nothing to do")]
    Nothing(String),
    /// The catalog does not take it.
    #[error("the change does not fit the catalog: {0}")]
    Catalog(String),
}

/// The default gateways that a device leads to, with the device they are reached by.
#[must_use]
pub fn gateways(observed: &Observed) -> Vec<(IpAddr, String)> {
    let mut found = Vec::new();
    let default = |route: &&Route| route.is_default() && route.table == MAIN;
    for route in observed.routes.iter().flatten().filter(default) {
        for hop in &route.hops {
            if let (Some(gateway), Some(link)) = (hop.gateway, &hop.link) {
                let entry = (gateway, link.clone());
                if !found.contains(&entry) {
                    found.push(entry);
                }
            }
        }
    }
    found
}
