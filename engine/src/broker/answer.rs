//! What a broker answered: read into types, and judged by what this host is and has. A broker is believed as far as that; none
//! of its words reaches the root agent in another form. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use blockhost_proto::json;
use blockhost_proto::value::{
    BrokerEndpoint, GatewayIpv6, MachinePrefix, Param, ValueError, WgKey,
};
use serde_json::{Map, Value};

use super::kept::Kept;

/// An allocation as the broker gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The network that machines draw their addresses from.
    pub prefix: MachinePrefix,
    /// Their router: the host's address on their bridge.
    pub gateway: GatewayIpv6,
    /// The key of the broker's end of the tunnel.
    pub key: WgKey,
    /// Where that end listens.
    pub endpoint: BrokerEndpoint,
}

/// Words that are no allocation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// Not JSON, or not strictly.
    #[error("it is no JSON: {0}")]
    Json(#[from] json::JsonError),
    /// Not an object.
    #[error("it is {kind}, not an object")]
    Kind {
        /// What it is.
        kind: &'static str,
    },
    /// A key that is not there.
    #[error("it has no {key}")]
    Missing {
        /// Which.
        key: &'static str,
    },
    /// A value that cannot be.
    #[error("{key}: {problem}")]
    Value {
        /// Of which key.
        key: &'static str,
        /// What is wrong.
        problem: ValueError,
    },
    /// A router that the machines cannot have.
    #[error("the gateway {gateway} is neither in {prefix} nor link-local")]
    Gateway {
        /// The router.
        gateway: GatewayIpv6,
        /// The network.
        prefix: MachinePrefix,
    },
    /// The tunnel would lead into itself.
    #[error("the endpoint {endpoint} is in {prefix}, which is reached by the tunnel only")]
    Inside {
        /// The endpoint.
        endpoint: BrokerEndpoint,
        /// The network.
        prefix: MachinePrefix,
    },
}

/// An allocation that this host does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The host would be its own peer.
    #[error("the broker's public key is this host's own")]
    OwnKey,
    /// The tunnel would end where it begins.
    #[error("the broker's endpoint {endpoint} is an address of this host ({device})")]
    OwnEndpoint {
        /// The endpoint.
        endpoint: BrokerEndpoint,
        /// Who has it.
        device: String,
    },
    /// The host is in that network already.
    #[error(
        "{device} of this host has {address}, and the broker gives {prefix}: machines would get addresses of a network that is in use \
         here; nothing was changed. Take the address away, or accept it by `blockhost broker request --replace-in-use`"
    )]
    InUse {
        /// Who is in it.
        device: String,
        /// With which address.
        address: IpAddr,
        /// The network.
        prefix: MachinePrefix,
    },
    /// Another network than the present one.
    #[error(
        "the broker gives {new} now, and this host has {old}; nothing was changed, and {old} is used until its lease ends. Ask the \
         broker for {old} again, or accept the other one by `blockhost broker request --replace`"
    )]
    Other {
        /// The present one.
        old: String,
        /// The broker's.
        new: MachinePrefix,
    },
    /// The same, with machines in the present one.
    #[error(
        "the broker gives {new} now, and this host has {old}, with addresses at {}: {}; nothing was changed, and {old} is used \
         until its lease ends. Ask the broker for {old} again. To give it up, destroy or renumber these machines, then \
         `blockhost broker request --replace`; with --replace-in-use at once, and they are not reached by IPv6 from then on",
        count(.machines), named(.machines)
    )]
    Renumbers {
        /// The present one.
        old: String,
        /// The broker's.
        new: MachinePrefix,
        /// Machines that have addresses of it.
        machines: Vec<String>,
    },
}

/// So many machines, in words.
pub(super) fn count(machines: &[String]) -> String {
    match machines.len() {
        1 => "one machine".to_owned(),
        many => format!("{many} machines"),
    }
}

/// Their names, as many as anybody reads.
pub(super) fn named(machines: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = machines[..machines.len().min(SHOWN)].join(", ");
    if machines.len() > SHOWN {
        text.push_str(", ...");
    }
    text
}

/// What the operator takes into the bargain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Accept {
    /// The present network, or a first one.
    Same,
    /// Another one, where nothing has addresses of the present one.
    Other,
    /// Another one, whatever has addresses of either.
    InUse,
}

/// An address of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The device that has it.
    pub device: String,
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix in bits.
    pub length: u8,
}

impl Own {
    /// Whether the address is in a network, or the network in the address's own.
    fn meets(&self, prefix: MachinePrefix) -> bool {
        let IpAddr::V6(own) = self.address else {
            return false;
        };
        let apart = own.to_bits() ^ prefix.address().to_bits();
        let width = 128_u32.saturating_sub(self.length.min(prefix.length()).into());
        apart.checked_shr(width).unwrap_or(0) == 0
    }
}

/// What the judgement goes by.
#[derive(Debug, Clone)]
pub struct Surroundings<'a> {
    /// The tunnel's public key on this host.
    pub own_key: WgKey,
    /// The host's addresses, but for the tunnel's own.
    pub addresses: Vec<Own>,
    /// The present allocation.
    pub kept: Option<&'a Kept>,
    /// Machines with their addresses.
    pub machines: Vec<(String, Ipv6Addr)>,
}

impl Allocation {
    /// Reads an answer. What it says besides is not looked at.
    ///
    /// # Errors
    /// [`Nonsense`].
    pub fn read(body: &[u8]) -> Result<Self, Nonsense> {
        let object = match json::parse(body)? {
            Value::Object(object) => object,
            other => {
                let kind = json::kind(&other);
                return Err(Nonsense::Kind { kind });
            }
        };
        let read = Self {
            prefix: value(&object, "prefix")?,
            gateway: value(&object, "gateway")?,
            key: value(&object, "broker_pubkey")?,
            endpoint: value(&object, "broker_endpoint")?,
        };
        let (prefix, gateway) = (read.prefix, read.gateway);
        if !gateway.serves(prefix) {
            return Err(Nonsense::Gateway { gateway, prefix });
        }
        if matches!(address(&read.endpoint), Some(IpAddr::V6(v6)) if prefix.contains(v6)) {
            let endpoint = read.endpoint;
            return Err(Nonsense::Inside { endpoint, prefix });
        }
        Ok(read)
    }

    /// Whether this host takes it, and if so, whether it replaces another network.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn judge(&self, host: &Surroundings<'_>, accept: Accept) -> Result<bool, Refusal> {
        if self.key == host.own_key {
            return Err(Refusal::OwnKey);
        }
        if let Some(at) = address(&self.endpoint)
            && let Some(own) = host.addresses.iter().find(|own| own.address == at)
        {
            return Err(Refusal::OwnEndpoint {
                endpoint: self.endpoint.clone(),
                device: own.device.clone(),
            });
        }
        let old = host.kept.map(|kept| kept.prefix);
        if old == Some(self.prefix) {
            return Ok(false);
        }
        if let Some(old) = old {
            let in_old = |(_, address): &&(String, Ipv6Addr)| old.contains(*address);
            let machines: Vec<String> = host
                .machines
                .iter()
                .filter(in_old)
                .map(|(name, _)| name.clone())
                .collect();
            let new = self.prefix;
            let old = old.to_string();
            if !machines.is_empty() && accept < Accept::InUse {
                return Err(Refusal::Renumbers { old, new, machines });
            }
            if accept < Accept::Other {
                return Err(Refusal::Other { old, new });
            }
        }
        let met = host.addresses.iter().find(|own| own.meets(self.prefix));
        match met {
            Some(own) if accept < Accept::InUse => Err(Refusal::InUse {
                device: own.device.clone(),
                address: own.address,
                prefix: self.prefix,
            }),
            _ => Ok(old.is_some()),
        }
    }
}

/// The address of an endpoint that is one.
fn address(endpoint: &BrokerEndpoint) -> Option<IpAddr> {
    let socket: SocketAddr = endpoint.as_str().parse().ok()?;
    Some(socket.ip())
}

fn value<T: Param>(object: &Map<String, Value>, key: &'static str) -> Result<T, Nonsense> {
    let value = object.get(key).filter(|value| !value.is_null());
    let value = value.ok_or(Nonsense::Missing { key })?;
    T::from_json(value).map_err(|problem| Nonsense::Value { key, problem })
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
