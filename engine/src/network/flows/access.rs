//! Table 2: which connections may begin, looked at by connection tracking. What is known goes on, what is broken is
//! dropped, what is new needs a rule. Sets are conditions of two halves, so that containers and networks do not multiply.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::ground::{
    BASE, Draft, FAMILIES, Family, MULTICAST, and, container_owner, drop, flag, goto, reg, table,
};
use super::policy::{Container, Internal, Network, Peer, Proto, Rule, Service, Tenant};
use super::ports::masks;
use super::read::PolicyError;
use super::security::{addresses_v6, to_udp};

const TO_ALL: u32 = 31_000;
const BROKEN: u32 = 30_000;
const RELATED: u32 = 21_000;
const KNOWN: u32 = 20_000;
const TO_CLIENTS: u32 = 19_000;
const PUBLISHED: u32 = 16_500;
const INTERNAL: u32 = 15_000;
const TO_OTHERS: u32 = 14_000;
const OPEN: u32 = 12_000;

/// A kind of rules: which way, what happens, and the priority of those without sets. Those with a set stand below, each
/// set with a priority of its own, and above what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Band {
    /// What a container may not begin.
    DropOut,
    /// What others may not begin with it.
    DropIn,
    /// What others may begin.
    AcceptIn,
    /// What it may begin.
    AcceptOut,
}

impl Band {
    const ALL: [Self; 4] = [Self::DropOut, Self::DropIn, Self::AcceptIn, Self::AcceptOut];

    const fn priority(self) -> u32 {
        match self {
            Self::DropOut => 18_000,
            Self::DropIn => 17_000,
            Self::AcceptIn => 16_000,
            Self::AcceptOut => 13_000,
        }
    }

    const fn inward(self) -> bool {
        matches!(self, Self::DropIn | Self::AcceptIn)
    }

    fn rules(self, container: &Container) -> &[Rule] {
        match self {
            Self::DropOut => &container.outward.drop,
            Self::DropIn => &container.inward.drop,
            Self::AcceptIn => &container.inward.accept,
            Self::AcceptOut => &container.outward.accept,
        }
    }
}

/// A use of a set that containers of one tenant share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shared {
    pub(super) band: Band,
    pub(super) set: String,
    zone: u16,
    /// Connections that begin with a translation are begun by another action.
    nat: Option<Ipv4Addr>,
}

impl Shared {
    pub(super) fn key(&self) -> String {
        let Self {
            band,
            set,
            zone,
            nat,
        } = self;
        format!("access {band:?} {zone} {nat:?} {set}")
    }
}

/// What a container begins, and is translated for, with others outside.
fn nat_of(band: Band, container: &Container) -> Option<Ipv4Addr> {
    (band == Band::AcceptOut)
        .then(|| container.nat.as_ref().map(|nat| nat.source))
        .flatten()
}

/// Every use of a set by these containers.
pub(super) fn shared<'a>(
    containers: impl IntoIterator<Item = (&'a Container, &'a Tenant)>,
) -> BTreeSet<Shared> {
    let mut found = BTreeSet::new();
    for (container, tenant) in containers {
        for band in Band::ALL {
            for peer in band.rules(container).iter().flat_map(|rule| &rule.peers) {
                if let Peer::Set(name) = peer {
                    found.insert(Shared {
                        band,
                        set: name.to_string(),
                        zone: tenant.zone,
                        nat: nat_of(band, container),
                    });
                }
            }
        }
    }
    found
}

fn new(more: Value) -> Value {
    and(json!({"ct_state": {"trk": true, "new": true}}), more)
}

/// Remembers the connection and goes on. A translated packet is looked at again as what it has become.
fn begin(zone: u16, nat: Option<Value>) -> Vec<Value> {
    match nat {
        None => vec![
            json!({"ct": {"commit": true, "zone": zone}}),
            goto(table::TREAT),
        ],
        Some(nat) => {
            let ct = json!({"commit": true, "zone": zone, "table": table::TREAT, "nat": nat});
            vec![json!({ "ct": ct })]
        }
    }
}

pub(super) fn base(draft: &mut Draft<'_>) -> Result<(), PolicyError> {
    for family in FAMILIES {
        let mut put = |priority, state: Value, actions| {
            let matching = json!({"dl_type": family.dl_type, "ct_state": state});
            draft.put(BASE, table::ACCESS, priority, matching, actions)
        };
        let on = || vec![goto(table::TREAT)];
        put(BROKEN, json!({"trk": true, "inv": true}), drop())?;
        put(RELATED, json!({"trk": true, "rel": true}), on())?;
        put(KNOWN, json!({"trk": true, "est": true}), on())?;
    }
    // As in table 0, for what came in pieces whose first one does not show a port.
    let inside = json!({reg::FLAGS: {"value": flag::INSIDE, "mask": flag::INSIDE}});
    for answer in to_clients() {
        let matching = new(and(inside.clone(), answer));
        draft.put(BASE, table::ACCESS, TO_CLIENTS, matching, drop())?;
    }
    draft.put(BASE, table::ACCESS, 0, json!({}), drop())
}

/// What somebody who asks for addresses takes for an answer.
fn to_clients() -> [Value; 2] {
    [("ip", 68), ("ipv6", 546)].map(|(family, port)| to_udp(family, port))
}

/// What is spoken, in each family; of TCP, UDP and SCTP with the ports that it goes to.
pub(super) fn spoken(service: &Service, family: Family, port_field: &str) -> Vec<Value> {
    let proto = match service.proto {
        Proto::Any => return vec![json!({"dl_type": family.dl_type})],
        Proto::Tcp => "tcp",
        Proto::Udp => "udp",
        Proto::Sctp => "sctp",
        Proto::Icmp => family.icmp,
    };
    let plain = json!({"dl_type": family.dl_type, "nw_proto": proto});
    let pairs: Vec<(u16, u16)> = service
        .ports
        .iter()
        .flat_map(|(first, last)| masks(*first, *last))
        .collect();
    if pairs.is_empty() {
        return vec![plain];
    }
    pairs
        .into_iter()
        .map(|(value, mask)| {
            let port = match mask {
                0xffff => json!({ port_field: value }),
                0 => json!({}),
                _ => json!({port_field: {"value": value, "mask": mask}}),
            };
            and(plain.clone(), port)
        })
        .collect()
}

pub(super) fn container(draft: &mut Draft<'_>, container: &Container) -> Result<(), PolicyError> {
    let tenant = draft.tenant(container)?;
    let owner = container_owner(container);
    let mac = container.mac.to_string();
    not_to_all(draft, container, tenant)?;
    let inside = json!({reg::FLAGS: {"value": flag::INSIDE, "mask": flag::INSIDE}});
    let to = json!({reg::ZONE: tenant.zone, "dl_dst": mac});
    let from = json!({reg::SOURCE: draft.tag(container)});
    for band in Band::ALL {
        let whose = if band.inward() { &to } else { &from };
        for rule in band.rules(container) {
            self::rule(draft, container, tenant, band, rule, whose)?;
        }
    }
    publish(draft, container, tenant, &to)?;
    let mut put = |priority, matching, actions| {
        draft.put(&owner, table::ACCESS, priority, new(matching), actions)
    };
    for family in FAMILIES {
        let dl_type = json!({"dl_type": family.dl_type});
        if tenant.internal == Internal::Accept {
            let matching = and(and(to.clone(), inside.clone()), dl_type.clone());
            put(INTERNAL, matching, begin(tenant.zone, None))?;
        }
        if container.open {
            let nat = source_nat(container, family);
            put(OPEN, and(from.clone(), dl_type), begin(tenant.zone, nat))?;
        }
    }
    put(TO_OTHERS, and(inside, json!({"dl_dst": mac})), drop())
}

/// What is for the container alone comes to its hardware address, where its rules and its rate hold, and not with what goes to all.
fn not_to_all(
    draft: &mut Draft<'_>,
    container: &Container,
    tenant: &Tenant,
) -> Result<(), PolicyError> {
    let owner = container_owner(container);
    let v4 = container.addresses.iter().filter(|own| own.is_ipv4());
    let v4 = v4.map(|own| json!({"dl_type": "ip", "nw_dst": own}));
    let v6 = addresses_v6(container).into_iter();
    let v6 = v6.map(|own| json!({"dl_type": "ipv6", "ipv6_dst": own}));
    for address in v4.chain(v6) {
        let matching = and(
            json!({reg::ZONE: tenant.zone, "dl_dst": MULTICAST}),
            address,
        );
        draft.put(&owner, table::ACCESS, TO_ALL, matching, drop())?;
    }
    Ok(())
}

/// The translation of what the container begins, for the family that has one.
fn source_nat(container: &Container, family: Family) -> Option<Value> {
    let nat = container.nat.as_ref().filter(|_| family.dl_type == "ip")?;
    Some(json!({"src": nat.source}))
}

fn rule(
    draft: &mut Draft<'_>,
    container: &Container,
    tenant: &Tenant,
    band: Band,
    rule: &Rule,
    whose: &Value,
) -> Result<(), PolicyError> {
    let owner = container_owner(container);
    for family in FAMILIES {
        let actions = match band {
            Band::DropIn | Band::DropOut => drop(),
            Band::AcceptIn => begin(tenant.zone, None),
            Band::AcceptOut => begin(tenant.zone, source_nat(container, family)),
        };
        let field = if band.inward() {
            family.src
        } else {
            family.dst
        };
        for service in spoken(&rule.service, family, "tp_dst") {
            let matching = new(and(whose.clone(), service));
            if rule.peers.is_empty() {
                let (matching, actions) = (matching.clone(), actions.clone());
                draft.put(&owner, table::ACCESS, band.priority(), matching, actions)?;
            }
            for peer in &rule.peers {
                let (priority, matching, actions) = match (peer, family.dl_type) {
                    (Peer::Network(Network::V4(prefix)), "ip") => {
                        let matching = and(matching.clone(), json!({ field: prefix }));
                        (band.priority(), matching, actions.clone())
                    }
                    (Peer::Network(Network::V6(prefix)), "ipv6") => {
                        let matching = and(matching.clone(), json!({ field: prefix }));
                        (band.priority(), matching, actions.clone())
                    }
                    (Peer::Network(_), _) => continue,
                    (Peer::Set(name), _) => {
                        let shared = Shared {
                            band,
                            set: name.to_string(),
                            zone: tenant.zone,
                            nat: nat_of(band, container),
                        };
                        let id = draft.conjunction(&shared.key());
                        let half = json!({"conjunction": {"id": id, "clause": 1, "of": 2}});
                        let priority = set_priority(draft, band, name.as_str());
                        (priority, matching.clone(), vec![half])
                    }
                };
                draft.put(&owner, table::ACCESS, priority, matching, actions)?;
            }
        }
    }
    Ok(())
}

/// The first set of the document wins.
fn set_priority(draft: &Draft<'_>, band: Band, name: &str) -> u32 {
    let rank = draft
        .bridge
        .sets
        .iter()
        .position(|set| set.name.as_str() == name);
    band.priority() - 1 - rank.and_then(|rank| u32::try_from(rank).ok()).unwrap_or(0)
}

/// A port of the public address: the connection begins with the translation.
fn publish(
    draft: &mut Draft<'_>,
    container: &Container,
    tenant: &Tenant,
    to: &Value,
) -> Result<(), PolicyError> {
    let Some(nat) = &container.nat else {
        return Ok(());
    };
    let Some(own) = container.addresses.iter().find(|address| address.is_ipv4()) else {
        return Ok(());
    };
    let own: IpAddr = *own;
    for published in &nat.publish {
        let service = Service {
            proto: published.proto,
            ports: vec![(published.port.get(), published.port.get())],
        };
        let [v4, _] = FAMILIES;
        for service in spoken(&service, v4, "tp_dst") {
            let asked = and(service, json!({"nw_dst": nat.source}));
            let ports = format!("{0}-{0}", published.to);
            let actions = begin(tenant.zone, Some(json!({"dst": own, "ports": ports})));
            let owner = container_owner(container);
            draft.put(
                &owner,
                table::ACCESS,
                PUBLISHED,
                new(and(to.clone(), asked)),
                actions,
            )?;
        }
    }
    Ok(())
}

/// The other halves: the networks of each set, and what happens where both halves are met.
pub(super) fn sets(draft: &mut Draft<'_>, uses: &BTreeSet<Shared>) -> Result<(), PolicyError> {
    // Uses that look at the same packets share the networks' flows.
    let mut by_flow: BTreeMap<(Band, &str, u16), Vec<&Shared>> = BTreeMap::new();
    for shared in uses {
        let key = (shared.band, shared.set.as_str(), shared.zone);
        by_flow.entry(key).or_default().push(shared);
    }
    for ((band, name, zone), uses) in by_flow {
        let priority = set_priority(draft, band, name);
        let halves: Vec<Value> = uses
            .iter()
            .map(|shared| json!({"conjunction": {"id": draft.conjunction(&shared.key()), "clause": 2, "of": 2}}))
            .collect();
        if halves.len() > 64 {
            let what = format!(
                "the set {name} is used under out.accept by more than 64 translated containers of one tenant; name its networks in their rules"
            );
            return Err(PolicyError::together(&draft.bridge.place, what));
        }
        super::sets::networks(
            draft,
            name,
            table::ACCESS,
            priority,
            band.inward(),
            json!({reg::ZONE: zone}),
            &halves,
        );
        for shared in uses {
            let id = draft.conjunction(&shared.key());
            for family in FAMILIES {
                let nat = shared
                    .nat
                    .filter(|_| family.dl_type == "ip")
                    .map(|source| json!({"src": source}));
                let actions = match band {
                    Band::DropIn | Band::DropOut => drop(),
                    Band::AcceptIn | Band::AcceptOut => begin(zone, nat),
                };
                let matching = json!({"conj_id": id, "dl_type": family.dl_type});
                let owner = super::ground::set_owner(name);
                draft.put(&owner, table::ACCESS, priority, matching, actions)?;
            }
        }
    }
    Ok(())
}
