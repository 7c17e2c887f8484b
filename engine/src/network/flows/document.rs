//! The policy read from its JSON document: which keys there are, what stands in each, what is meant by leaving one out.
//! What has to fit together is in `check`.

use std::net::IpAddr;

use blockhost_proto::escape;
use blockhost_proto::value::{MeterUnit, NatAddress, Port};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::check;
use super::policy::{
    Bridge, Class, Container, Fragments, Hop, Internal, Limit, Metered, Name, Network, Outside,
    Peer, Policy, PrefixSet, Proto, Published, Qos, Route, Routed, Router, Rule, Rules, Service,
    Side, SwitchNat, Tenant, Way,
};
use super::read::{Fields, Node, PolicyError, Problem};
use super::wish::Wish;

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(input)?;
        Self::read(&value, "ovsflows").map_err(serde::de::Error::custom)
    }
}

impl Policy {
    /// Reads a policy that stands at `place` in its document, and checks that everything in it fits together.
    ///
    /// # Errors
    /// [`PolicyError`] with the place of the first thing that is wrong.
    pub fn read(value: &Value, place: &str) -> Result<Self, PolicyError> {
        let fields = Node::new(place, value).object(&["bridges"])?;
        let policy = Self {
            bridges: fields.list("bridges", bridge)?,
        };
        check::policy(&policy)?;
        Ok(policy)
    }
}

fn bridge(node: &Node<'_>) -> Result<Bridge, PolicyError> {
    let fields = node.object(&[
        "bridge",
        "fragments",
        "outside",
        "routers",
        "sets",
        "limits",
        "tenants",
        "containers",
    ])?;
    let fragments = [("track", Fragments::Track), ("drop", Fragments::Drop)];
    Ok(Bridge {
        name: fields.need("bridge")?.read()?,
        fragments: optional(&fields, "fragments", |node| node.word(&fragments))?
            .unwrap_or(Fragments::Track),
        outside: fields.list("outside", outside)?,
        routers: fields.list("routers", router)?,
        sets: fields.list("sets", set)?,
        limits: fields.list("limits", limit)?,
        tenants: fields.list("tenants", tenant)?,
        containers: fields.list("containers", container)?,
        place: node.place.clone(),
    })
}

fn optional<'a, T>(
    fields: &Fields<'a>,
    key: &str,
    read: impl Fn(&Node<'a>) -> Result<T, PolicyError>,
) -> Result<Option<T>, PolicyError> {
    fields.get(key).as_ref().map(read).transpose()
}

fn outside(node: &Node<'_>) -> Result<Outside, PolicyError> {
    let fields = node.object(&["port", "macs", "qos"])?;
    Ok(Outside {
        port: fields.need("port")?.read()?,
        macs: fields.list("macs", Node::read)?,
        qos: optional(&fields, "qos", qos)?,
        place: node.place.clone(),
    })
}

fn qos(node: &Node<'_>) -> Result<Qos, PolicyError> {
    let fields = node.object(&["max_kbps", "queues"])?;
    let qos = Qos {
        max_kbps: optional(&fields, "max_kbps", Node::read)?,
        queues: optional(&fields, "queues", Node::read)?.unwrap_or_default(),
    };
    if qos.max_kbps.is_none() && qos.queues.is_empty() {
        return Err(PolicyError::together(
            &node.place,
            "without max_kbps and queues it says nothing",
        ));
    }
    Ok(qos)
}

fn router(node: &Node<'_>) -> Result<Router, PolicyError> {
    let fields = node.object(&["name", "mac", "port", "mark", "vlan"])?;
    let by = match (fields.get("port"), fields.get("mark")) {
        (Some(port), None) => Hop::Port(port.read()?),
        (None, Some(mark)) => {
            Hop::Mark(mark.number(1..=u64::from(u32::MAX), "a mark from 1 to 4294967295")?)
        }
        _ => {
            let what = "a router has either a port, or a mark for the host's own routing";
            return Err(PolicyError::together(&node.place, what));
        }
    };
    Ok(Router {
        name: name(&fields.need("name")?)?,
        mac: fields.need("mac")?.read()?,
        by,
        vlan: optional(&fields, "vlan", Node::read)?,
        place: node.place.clone(),
    })
}

fn set(node: &Node<'_>) -> Result<PrefixSet, PolicyError> {
    let fields = node.object(&["name", "networks"])?;
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for item in fields.need("networks")?.items()? {
        match network(&item)? {
            Network::V4(prefix) => v4.push(prefix),
            Network::V6(prefix) => v6.push(prefix),
        }
    }
    // The same network twice would be the same flow twice.
    v4.sort_unstable();
    v4.dedup();
    v6.sort_unstable();
    v6.dedup();
    Ok(PrefixSet {
        name: name(&fields.need("name")?)?,
        v4,
        v6,
        place: node.place.clone(),
    })
}

fn network(node: &Node<'_>) -> Result<Network, PolicyError> {
    if node.text()?.contains(':') {
        node.read().map(Network::V6)
    } else {
        node.read().map(Network::V4)
    }
}

fn limit(node: &Node<'_>) -> Result<Limit, PolicyError> {
    let fields = node.object(&["name", "from", "kbps", "pktps", "burst"])?;
    Ok(Limit {
        name: name(&fields.need("name")?)?,
        from: fields
            .need("from")?
            .items()?
            .iter()
            .map(network)
            .collect::<Result<_, _>>()?,
        rate: metered(&fields)?,
        place: node.place.clone(),
    })
}

fn metered(fields: &Fields<'_>) -> Result<Metered, PolicyError> {
    let (unit, rate) = match (fields.get("kbps"), fields.get("pktps")) {
        (Some(rate), None) => (MeterUnit::Kbps, rate),
        (None, Some(rate)) => (MeterUnit::Pktps, rate),
        _ => {
            let what = "a rate is in kbps (kilobits per second) or in pktps (packets per second)";
            return Err(PolicyError::together(&fields.place, what));
        }
    };
    Ok(Metered {
        unit,
        rate: rate.read()?,
        burst: optional(fields, "burst", Node::read)?,
    })
}

fn tenant(node: &Node<'_>) -> Result<Tenant, PolicyError> {
    let fields = node.object(&["name", "zone", "vlan", "internal", "queue"])?;
    let internal = [("accept", Internal::Accept), ("rules", Internal::Rules)];
    Ok(Tenant {
        name: name(&fields.need("name")?)?,
        zone: fields
            .need("zone")?
            .number(1..=65_535, "a zone from 1 to 65535")?,
        vlan: optional(&fields, "vlan", Node::read)?,
        internal: optional(&fields, "internal", |node| node.word(&internal))?
            .unwrap_or(Internal::Accept),
        queue: optional(&fields, "queue", Node::read)?,
        place: node.place.clone(),
    })
}

/// Part of an owner's name, so shorter than that.
fn name(node: &Node<'_>) -> Result<Name, PolicyError> {
    let name: Name = node.read()?;
    if name.as_str().len() > 40 {
        return Err(PolicyError::together(
            &node.place,
            "a name has at most 40 characters",
        ));
    }
    Ok(name)
}

fn container(node: &Node<'_>) -> Result<Container, PolicyError> {
    let fields = node.object(&[
        "id",
        "port",
        "mac",
        "addresses",
        "tenant",
        "dhcp",
        "in",
        "out",
        "rate",
        "qos",
        "classes",
        "routes",
        "nat",
    ])?;
    let rate = fields
        .get("rate")
        .map(|node| node.object(&["out", "in"]))
        .transpose()?;
    let rate = |way: &str| {
        let Some(node) = rate.as_ref().and_then(|rate| rate.get(way)) else {
            return Ok(None);
        };
        metered(&node.object(&["kbps", "pktps", "burst"])?).map(Some)
    };
    let (inward, _) = rules(fields.get("in"), "from", &["accept", "drop"])?;
    let (outward, open) = rules(fields.get("out"), "to", &["default", "accept", "drop"])?;
    Ok(Container {
        id: name(&fields.need("id")?)?,
        port: fields.need("port")?.read()?,
        mac: fields.need("mac")?.read()?,
        addresses: fields.list("addresses", address)?,
        tenant: name(&fields.need("tenant")?)?,
        dhcp: optional(&fields, "dhcp", Node::read)?.unwrap_or(false),
        inward,
        outward,
        open,
        rate_out: rate("out")?,
        rate_in: rate("in")?,
        qos: optional(&fields, "qos", qos)?,
        classes: fields.list("classes", class)?,
        routes: fields.list("routes", route)?,
        nat: optional(&fields, "nat", nat)?,
        place: node.place.clone(),
    })
}

/// A unicast address of the container's own; link-local ones of IPv6 too.
fn address(node: &Node<'_>) -> Result<IpAddr, PolicyError> {
    if let Ok(IpAddr::V6(address)) = node.text()?.parse()
        && address.segments()[0] & 0xffc0 == 0xfe80
    {
        return Ok(address.into());
    }
    node.read::<NatAddress>().map(|address| address.address())
}

fn rules(
    node: Option<Node<'_>>,
    peers: &'static str,
    known: &[&str],
) -> Result<(Rules, bool), PolicyError> {
    let Some(node) = node else {
        return Ok((Rules::default(), true));
    };
    let fields = node.object(known)?;
    let read = |node: &Node<'_>| rule(node, peers);
    let open = [("accept", true), ("drop", false)];
    let found = Rules {
        accept: fields.list("accept", read)?,
        drop: fields.list("drop", read)?,
    };
    let open = optional(&fields, "default", |node| node.word(&open))?.unwrap_or(true);
    if known.contains(&"default") && open && !found.accept.is_empty() {
        let what = "accept says nothing while everything is accepted; set default to drop";
        return Err(PolicyError::together(fields.at("accept"), what));
    }
    Ok((found, open))
}

fn rule(node: &Node<'_>, peers: &'static str) -> Result<Rule, PolicyError> {
    let fields = node.object(&["proto", "ports", peers])?;
    Ok(Rule {
        service: service(&fields)?,
        peers: fields.list(peers, peer)?,
        place: node.place.clone(),
    })
}

fn peer(node: &Node<'_>) -> Result<Peer, PolicyError> {
    // A network begins with a digit or has a colon; a set's name begins with a letter, see `check`.
    let text = node.text()?;
    if text.contains([':', '/']) || text.starts_with(|c: char| c.is_ascii_digit()) {
        network(node).map(Peer::Network)
    } else {
        name(node).map(Peer::Set)
    }
}

const PROTOS: [(&str, Proto); 5] = [
    ("any", Proto::Any),
    ("tcp", Proto::Tcp),
    ("udp", Proto::Udp),
    ("sctp", Proto::Sctp),
    ("icmp", Proto::Icmp),
];

fn service(fields: &Fields<'_>) -> Result<Service, PolicyError> {
    let service = Service {
        proto: fields.need("proto")?.word(&PROTOS)?,
        ports: fields.list("ports", range)?,
    };
    if matches!(service.proto, Proto::Any | Proto::Icmp) && !service.ports.is_empty() {
        let what = "only tcp, udp and sctp have ports";
        return Err(PolicyError::together(fields.at("ports"), what));
    }
    Ok(service)
}

/// `80`, `"80"` or `"8000-8099"`.
fn range(node: &Node<'_>) -> Result<(u16, u16), PolicyError> {
    let Some((first, last)) = node.value.as_str().and_then(|text| text.split_once('-')) else {
        let port = match node.value {
            Value::String(text) => text
                .parse::<Port>()
                .map_err(|error| PolicyError::at(&node.place, error.into()))?,
            _ => node.read::<Port>()?,
        };
        return Ok((port.get(), port.get()));
    };
    let port = |text: &str| {
        text.parse::<Port>()
            .map(Port::get)
            .map_err(|error| PolicyError::at(&node.place, error.into()))
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(PolicyError::together(
            &node.place,
            "the first port is not above the last",
        ));
    }
    Ok((first, last))
}

fn class(node: &Node<'_>) -> Result<Class, PolicyError> {
    let fields = node.object(&["proto", "ports", "queue", "way", "side"])?;
    let way = [("out", Way::Out), ("in", Way::In)];
    let side = [("remote", Side::Remote), ("own", Side::Own)];
    Ok(Class {
        service: service(&fields)?,
        queue: fields.need("queue")?.read()?,
        way: optional(&fields, "way", |node| node.word(&way))?.unwrap_or(Way::Out),
        side: optional(&fields, "side", |node| node.word(&side))?.unwrap_or(Side::Remote),
        place: node.place.clone(),
    })
}

/// Services that one asks for by name: DNS also over TCP, TLS and QUIC, HTTPS also over QUIC.
fn known_service(word: &str) -> Option<Vec<Service>> {
    let port = |proto, port| Service {
        proto,
        ports: vec![(port, port)],
    };
    match word {
        "dns" => Some(vec![
            port(Proto::Udp, 53),
            port(Proto::Tcp, 53),
            port(Proto::Tcp, 853),
            port(Proto::Udp, 853),
        ]),
        "https" => Some(vec![port(Proto::Tcp, 443), port(Proto::Udp, 443)]),
        _ => None,
    }
}

fn route(node: &Node<'_>) -> Result<Route, PolicyError> {
    let fields = node.object(&["service", "proto", "ports", "to", "via"])?;
    let what = match (fields.get("service"), fields.get("to"), fields.get("proto")) {
        (Some(word), None, None) if fields.get("ports").is_none() => {
            let given = word.text()?;
            Routed::Services(known_service(given).ok_or_else(|| {
                let problem = Problem::Word {
                    given: escape::shown(given),
                    known: "dns, https".to_owned(),
                };
                PolicyError::at(&word.place, problem)
            })?)
        }
        (None, Some(set), None) if fields.get("ports").is_none() => Routed::To(name(&set)?),
        (None, None, Some(_)) => Routed::Services(vec![service(&fields)?]),
        _ => {
            let what = "a route is for a service (dns, https), for proto and ports, or to a set";
            return Err(PolicyError::together(&node.place, what));
        }
    };
    Ok(Route {
        what,
        via: name(&fields.need("via")?)?,
        place: node.place.clone(),
    })
}

fn nat(node: &Node<'_>) -> Result<SwitchNat, PolicyError> {
    let fields = node.object(&["source", "publish"])?;
    let source = fields.need("source")?;
    let IpAddr::V4(address) = source.read::<NatAddress>()?.address() else {
        let problem = Problem::Impossible(Wish::NatIpv6);
        return Err(PolicyError::at(&source.place, problem));
    };
    Ok(SwitchNat {
        source: address,
        publish: fields.list("publish", published)?,
        place: node.place.clone(),
    })
}

fn published(node: &Node<'_>) -> Result<Published, PolicyError> {
    let fields = node.object(&["proto", "port", "to_port"])?;
    let proto = fields.need("proto")?.word(&PROTOS[1..4])?;
    let port: Port = fields.need("port")?.read()?;
    Ok(Published {
        proto,
        port,
        to: optional(&fields, "to_port", Node::read)?.unwrap_or(port),
    })
}
