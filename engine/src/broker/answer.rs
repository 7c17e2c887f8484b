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

fn count(machines: &[String]) -> String {
    match machines.len() {
        1 => "one machine".to_owned(),
        many => format!("{many} machines"),
    }
}

fn named(machines: &[String]) -> String {
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
mod tests {
    use super::*;
    use blockhost_proto::value::Text as _;
    use proptest::prelude::*;
    use serde_json::json;

    const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    const OTHER: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

    fn good() -> Value {
        json!({"prefix": "2001:db8:b10c::/64", "gateway": "2001:db8:b10c::1", "broker_pubkey": KEY, "broker_endpoint": "192.0.2.9:51820"})
    }

    fn read(value: &Value) -> Result<Allocation, Nonsense> {
        Allocation::read(value.to_string().as_bytes())
    }

    fn key(text: &str) -> WgKey {
        WgKey::read(text).unwrap()
    }

    fn own(device: &str, address: &str) -> Own {
        let (address, length) = address.split_once('/').unwrap();
        Own {
            device: device.to_owned(),
            address: address.parse().unwrap(),
            length: length.parse().unwrap(),
        }
    }

    fn kept(prefix: &str) -> Kept {
        Kept {
            prefix: prefix.parse().unwrap(),
            gateway: None,
            key: Some(key(KEY)),
            endpoint: None,
            lease_until: None,
        }
    }

    #[test]
    fn an_answer_is_four_values_and_whatever_else_a_broker_says() {
        let mut answer = good();
        answer["note"] = json!({"welcome": [1, 2.5, null]});
        let read = read(&answer).unwrap();
        assert_eq!(read.prefix.to_string(), "2001:db8:b10c::/64");
        assert_eq!(read.gateway.to_string(), "2001:db8:b10c::1");
        assert_eq!(read.key, key(KEY));
        assert_eq!(read.endpoint.as_str(), "192.0.2.9:51820");
    }

    #[test]
    fn no_lie_of_a_brokers_becomes_an_allocation() {
        let lies = [
            ("prefix", json!(null), "no prefix"),
            ("prefix", json!("::/0"), "prefix"),
            ("prefix", json!("2000::/3"), "prefix"),
            ("prefix", json!("2001:db8::/31"), "prefix"),
            ("prefix", json!("2001:db8::/121"), "prefix"),
            ("prefix", json!("2001:db8::1/64"), "prefix"),
            ("prefix", json!("fe80::/64"), "prefix"),
            ("prefix", json!("ff00::/64"), "prefix"),
            ("prefix", json!("::ffff:10.0.0.0/120"), "prefix"),
            ("prefix", json!("10.0.0.0/24"), "prefix"),
            ("prefix", json!("2001:db8::/64\n"), "prefix"),
            ("prefix", json!(["2001:db8::/64"]), "prefix"),
            ("prefix", json!("2001:db8:b10c::/64, ::/0"), "prefix"),
            ("gateway", json!("2001:db8:b10d::1"), "neither"),
            ("gateway", json!("10.0.0.1"), "gateway"),
            ("gateway", json!("::1"), "gateway"),
            ("gateway", json!("2001:db8:b10c::1/64"), "gateway"),
            ("gateway", json!(null), "no gateway"),
            ("broker_pubkey", json!("AAAA"), "broker_pubkey"),
            (
                "broker_pubkey",
                json!("A".repeat(43) + "="),
                "broker_pubkey",
            ),
            (
                "broker_pubkey",
                json!(KEY.replace('=', "")),
                "broker_pubkey",
            ),
            (
                "broker_pubkey",
                json!(format!("{KEY}\nPrivateKey = {KEY}")),
                "broker_pubkey",
            ),
            ("broker_pubkey", json!(7), "broker_pubkey"),
            ("broker_endpoint", json!("192.0.2.9"), "broker_endpoint"),
            ("broker_endpoint", json!("192.0.2.9:0"), "broker_endpoint"),
            (
                "broker_endpoint",
                json!("192.0.2.9:65536"),
                "broker_endpoint",
            ),
            (
                "broker_endpoint",
                json!("127.0.0.1:51820"),
                "broker_endpoint",
            ),
            ("broker_endpoint", json!("0.0.0.0:51820"), "broker_endpoint"),
            (
                "broker_endpoint",
                json!("[ff02::1]:51820"),
                "broker_endpoint",
            ),
            (
                "broker_endpoint",
                json!("-o.example:51820"),
                "broker_endpoint",
            ),
            (
                "broker_endpoint",
                json!("a.example:51820\nPostUp=x"),
                "broker_endpoint",
            ),
            (
                "broker_endpoint",
                json!("[2001:db8:b10c::9]:51820"),
                "reached by the tunnel",
            ),
        ];
        for (key, lie, part) in lies {
            let mut answer = good();
            answer[key] = lie.clone();
            let error = read(&answer)
                .expect_err(&format!("{key} {lie}"))
                .to_string();
            assert!(
                error.contains(part) && !error.contains('\n'),
                "{key} {lie}: {error}"
            );
        }
        let twice = good()
            .to_string()
            .replacen('{', r#"{"prefix":"fd77::/64","#, 1);
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for text in ["", "null", "[]", "\"\"", "<html>", "{", &twice, &deep] {
            assert!(Allocation::read(text.as_bytes()).is_err(), "{text:.60}");
        }
        assert!(Allocation::read(b"\xff\xfe{}").is_err());
    }

    #[test]
    fn a_host_is_not_its_own_broker() {
        let allocation = read(&good()).unwrap();
        let mut host = Surroundings {
            own_key: key(KEY),
            addresses: Vec::new(),
            kept: None,
            machines: Vec::new(),
        };
        assert_eq!(allocation.judge(&host, Accept::InUse), Err(Refusal::OwnKey));
        host.own_key = key(OTHER);
        assert_eq!(allocation.judge(&host, Accept::Same), Ok(false));
        host.addresses = vec![own("eth0", "192.0.2.9/24")];
        let refused = allocation.judge(&host, Accept::InUse).unwrap_err();
        assert!(matches!(refused, Refusal::OwnEndpoint { .. }), "{refused}");
    }

    #[test]
    fn another_network_is_taken_only_where_that_is_meant_and_machines_are_told_of() {
        let allocation = read(&good()).unwrap();
        let (same, other) = (kept("2001:db8:b10c::/64"), kept("2001:db8:aaaa::/64"));
        let judge = |kept, machines: &[(&str, &str)], addresses: &[(&str, &str)], accept| {
            let host = Surroundings {
                own_key: key(OTHER),
                addresses: addresses
                    .iter()
                    .map(|(device, address)| own(device, address))
                    .collect(),
                kept,
                machines: machines
                    .iter()
                    .map(|(name, address)| ((*name).to_owned(), address.parse().unwrap()))
                    .collect(),
            };
            allocation.judge(&host, accept)
        };
        let inside = [("web-1", "2001:db8:aaaa::7")];
        let elsewhere = [("web-2", "2001:db8:bbbb::7")];
        let bridge = [("vmbr0", "2001:db8:b10c::1/64")];
        // The present one, whatever is in it.
        assert_eq!(
            judge(Some(&same), &inside, &bridge, Accept::Same),
            Ok(false)
        );
        // A first one, unless the host is in that network.
        assert_eq!(judge(None, &inside, &[], Accept::Same), Ok(false));
        let refused = judge(None, &[], &bridge, Accept::Same)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("vmbr0 of this host has 2001:db8:b10c::1"),
            "{refused}"
        );
        assert_eq!(judge(None, &[], &bridge, Accept::InUse), Ok(false));
        for (around, met) in [
            ("2001:db8::5/32", true),
            ("2001:db8:b10c:0:1::/80", true),
            ("2001:db8:b10c::9/128", true),
            ("2001:db8:b10d::5/64", false),
            ("2001:db8:b10d::5/128", false),
            ("10.0.0.1/8", false),
        ] {
            let judged = judge(None, &[], &[("eth0", around)], Accept::Same);
            assert_eq!(judged.is_err(), met, "{around}");
        }
        // Another one.
        let refused = judge(Some(&other), &elsewhere, &[], Accept::Same)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("--replace`") && refused.contains("2001:db8:aaaa::/64"),
            "{refused}"
        );
        assert_eq!(
            judge(Some(&other), &elsewhere, &[], Accept::Other),
            Ok(true)
        );
        for accept in [Accept::Same, Accept::Other] {
            let refused = judge(Some(&other), &inside, &[], accept)
                .unwrap_err()
                .to_string();
            assert!(
                refused.contains("addresses at one machine: web-1;"),
                "{refused}"
            );
        }
        assert_eq!(
            judge(Some(&other), &inside, &bridge, Accept::InUse),
            Ok(true)
        );
        assert!(judge(Some(&other), &[], &bridge, Accept::Other).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..200usize) {
            let _ = Allocation::read(&bytes);
            let mut text = good().to_string().into_bytes();
            if let (Some(byte), Some(other)) = (text.get_mut(at), bytes.first()) {
                *byte = *other;
            }
            let _ = Allocation::read(&text);
        }
    }
}
