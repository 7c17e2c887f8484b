//! What all tables of the pipeline share: their numbers, the registers, the priorities, the numbers given to containers,
//! meters and conjunctions, and the draft that flows are collected in.

use std::collections::{BTreeMap, BTreeSet};

use blake2::{Blake2s256, Digest};
use serde_json::{Map, Value, json};

use super::policy::{Bridge, Container, Internal, Router, Tenant};
use super::read::PolicyError;

/// The tables, in the order in which a packet sees them.
pub(super) mod table {
    /// Port security: who may send what.
    pub const SECURITY: u8 = 0;
    /// Whose connections: the zone.
    pub const TRACK: u8 = 1;
    /// Which connections may begin.
    pub const ACCESS: u8 = 2;
    /// Queues and other ways.
    pub const TREAT: u8 = 3;
    /// Out of which port. Broadcasts to many ports go on in the tables behind it.
    pub const DELIVER: u8 = 4;
    /// The last one that broadcasts may use.
    pub const LAST: u8 = 253;
}

/// The registers. All are 0 when a packet comes in.
pub(super) mod reg {
    /// Number of the container that sent it; 0 from outside.
    pub const SOURCE: &str = "reg0";
    /// Zone of the tenant that it belongs to; 0 while nobody's.
    pub const ZONE: &str = "reg1";
    /// Bit 0: sent by a container. Bit 1: needs no tracking, and may go to whoever it is for.
    pub const FLAGS: &str = "reg2";
    /// VLAN that it has outside; 0 without.
    pub const VLAN: &str = "reg3";
}

/// Bits of [`reg::FLAGS`].
pub(super) mod flag {
    /// Sent by a container.
    pub const INSIDE: u32 = 1;
    /// ARP, ND, DHCP.
    pub const FREE: u32 = 2;
}

/// In [`reg::VLAN`]: a tag that is no tenant's; passed on between ports outside as it is.
pub(super) const FOREIGN: u16 = 0xfff;
/// Broadcast and multicast addresses: they have this bit set.
pub(super) const MULTICAST: &str = "01:00:00:00:00:00/01:00:00:00:00:00";
/// Addresses of one machine: they have it not set.
pub(super) const SINGLE: &str = "00:00:00:00:00:00/01:00:00:00:00:00";
/// Hardware addresses of IPv6's groups.
pub(super) const GROUPS_V6: &str = "33:33:00:00:00:00/ff:ff:00:00:00:00";
pub(super) const BROADCAST: &str = "ff:ff:ff:ff:ff:ff";

/// Meters below belong to others; see `docs/network.md`.
pub(super) const FIRST_METER: u32 = 0x8000;
const LAST_METER: u32 = 0xffff;
/// Names get numbers from here on; numbers are their own.
const FIRST_TAG: u32 = 1 << 30;

/// The two families: `dl_type`, and its fields for source and destination.
pub(super) const FAMILIES: [Family; 2] = [
    Family {
        dl_type: "ip",
        src: "nw_src",
        dst: "nw_dst",
        icmp: "icmp",
        many: "224.0.0.0/3",
    },
    Family {
        dl_type: "ipv6",
        src: "ipv6_src",
        dst: "ipv6_dst",
        icmp: "icmp6",
        many: "ff00::/8",
    },
];

/// How one family is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    pub(super) dl_type: &'static str,
    pub(super) src: &'static str,
    pub(super) dst: &'static str,
    pub(super) icmp: &'static str,
    /// Groups, and the address of all.
    pub(super) many: &'static str,
}

/// A match with more conditions.
pub(super) fn and(mut matching: Value, more: Value) -> Value {
    if let (Some(map), Value::Object(more)) = (matching.as_object_mut(), more) {
        map.extend(more);
    }
    matching
}

/// `{"set_field": {field: value}}`
pub(super) fn set(field: &str, value: impl Into<Value>) -> Value {
    let mut map = Map::new();
    map.insert(field.to_owned(), value.into());
    json!({ "set_field": map })
}

/// `{"goto_table": table}`
pub(super) fn goto(table: u8) -> Value {
    json!({ "goto_table": table })
}

pub(super) fn drop() -> Vec<Value> {
    vec![json!("drop")]
}

/// Numbers for keys: the key's hash, or the next free one. The same keys always get the same numbers, and another key
/// seldom changes them.
pub(super) fn numbers(
    keys: impl IntoIterator<Item = String>,
    first: u32,
    last: u32,
) -> BTreeMap<String, u32> {
    let keys: BTreeSet<String> = keys.into_iter().collect();
    let span = u64::from(last - first) + 1;
    let mut taken = BTreeSet::new();
    let mut given = BTreeMap::new();
    for key in keys {
        let hash = Blake2s256::digest(key.as_bytes());
        let start = hash
            .iter()
            .take(6)
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let free = (0..span)
            .map(|more| u32::try_from((start + more) % span).unwrap_or(0) + first)
            .find(|number| !taken.contains(number));
        // Checked before: there are never more keys than numbers.
        if let Some(number) = free {
            taken.insert(number);
            given.insert(key, number);
        }
    }
    given
}

/// One bridge while it is compiled.
pub(super) struct Draft<'a> {
    pub(super) bridge: &'a Bridge,
    meters: BTreeMap<String, u32>,
    tags: BTreeMap<String, u32>,
    conjunctions: BTreeMap<String, u32>,
    flows: BTreeMap<String, Vec<Value>>,
    places: BTreeMap<String, (String, Value)>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(bridge: &'a Bridge, conjunctions: impl IntoIterator<Item = String>) -> Self {
        let meters = bridge
            .limits
            .iter()
            .map(|limit| limit_key(limit.name.as_str()))
            .chain(bridge.containers.iter().flat_map(|container| {
                let out = container.rate_out.map(|_| out_key(container));
                let into = container.rate_in.map(|_| in_key(container));
                out.into_iter().chain(into)
            }));
        let named = bridge
            .containers
            .iter()
            .filter(|container| own_number(container).is_none())
            .map(|container| container.id.to_string());
        Self {
            meters: numbers(meters, FIRST_METER, LAST_METER),
            tags: numbers(named, FIRST_TAG, u32::MAX),
            conjunctions: numbers(conjunctions, 1, u32::MAX),
            flows: BTreeMap::new(),
            places: BTreeMap::new(),
            bridge,
        }
    }

    /// The number of a meter.
    pub(super) fn meter(&self, key: &str) -> u32 {
        self.meters.get(key).copied().unwrap_or(FIRST_METER)
    }

    /// The number of a conjunction.
    pub(super) fn conjunction(&self, key: &str) -> u32 {
        self.conjunctions.get(key).copied().unwrap_or(1)
    }

    /// The number of a container in [`reg::SOURCE`].
    pub(super) fn tag(&self, container: &Container) -> u32 {
        own_number(container)
            .or_else(|| self.tags.get(container.id.as_str()).copied())
            .unwrap_or(FIRST_TAG)
    }

    /// Its tenant.
    pub(super) fn tenant(&self, container: &Container) -> Result<&'a Tenant, PolicyError> {
        self.bridge
            .tenants
            .iter()
            .find(|tenant| tenant.name == container.tenant)
            .ok_or_else(|| PolicyError::together(&container.place, "its tenant is gone"))
    }

    /// A router by its name.
    pub(super) fn router(&self, name: &str) -> Option<&'a Router> {
        self.bridge
            .routers
            .iter()
            .find(|router| router.name.as_str() == name)
    }

    /// The VLANs that packets can have outside: none, and those of tenants.
    pub(super) fn vlans(&self) -> Vec<u16> {
        let tagged = self.bridge.tenants.iter().filter_map(|tenant| tenant.vlan);
        std::iter::once(0)
            .chain(tagged.map(|vlan| vlan.get()))
            .collect()
    }

    /// Whether a tenant's connections may be translated ones.
    pub(super) fn translates(&self, tenant: &Tenant) -> bool {
        self.bridge
            .containers
            .iter()
            .any(|container| container.tenant == tenant.name && container.nat.is_some())
    }

    /// `ct` that only looks, and goes on in the table of access.
    pub(super) fn track(&self, tenant: &Tenant) -> Value {
        let mut ct = json!({"zone": tenant.zone, "table": table::ACCESS});
        if self.translates(tenant) {
            ct["nat"] = json!({});
        }
        json!({ "ct": ct })
    }

    /// A flow. The same flow twice is one flow; two flows in one place are a contradiction that `check` has not seen.
    pub(super) fn put(
        &mut self,
        owner: &str,
        table: u8,
        priority: u32,
        matching: Value,
        actions: Vec<Value>,
    ) -> Result<(), PolicyError> {
        let flow =
            json!({"table": table, "priority": priority, "match": matching, "actions": actions});
        let place = json!([table, priority, matching]).to_string();
        match self.places.get(&place) {
            Some((_, there)) if *there == flow => return Ok(()),
            Some((other, _)) => {
                let what = format!(
                    "{owner} and {other} need different flows for the same packets: {flow}"
                );
                return Err(PolicyError::together(&self.bridge.place, what));
            }
            None => {}
        }
        self.places.insert(place, (owner.to_owned(), flow.clone()));
        self.flows.entry(owner.to_owned()).or_default().push(flow);
        Ok(())
    }

    /// Many flows that differ in one field, as one with rows.
    pub(super) fn put_rows(
        &mut self,
        owner: &str,
        mut flow: Value,
        column: &str,
        values: Vec<String>,
    ) {
        if values.is_empty() {
            return;
        }
        flow["columns"] = json!([column]);
        flow["rows"] = values.into_iter().map(|value| json!([value])).collect();
        self.flows.entry(owner.to_owned()).or_default().push(flow);
    }

    /// What was collected, by owner.
    pub(super) fn into_flows(self) -> BTreeMap<String, Vec<Value>> {
        self.flows
    }
}

/// A tag in front of what goes outside, where there is one.
fn tagged(vlan: u16) -> Option<Value> {
    (vlan != 0 && vlan != FOREIGN).then(|| json!({ "push_vlan": vlan }))
}

/// Out of every port outside where nobody is known to be, with the VLAN's tag; nothing where there is none.
pub(super) fn to_the_world(bridge: &Bridge, vlan: u16) -> Vec<Value> {
    let ports = bridge.outside.iter().filter(|port| port.macs.is_empty());
    let outputs: Vec<Value> = ports.map(|port| json!({"output": port.port})).collect();
    if outputs.is_empty() {
        return outputs;
    }
    tagged(vlan).into_iter().chain(outputs).collect()
}

/// Out of every port outside.
pub(super) fn to_all_outside(bridge: &Bridge, vlan: u16) -> Vec<Value> {
    if bridge.outside.is_empty() {
        return Vec::new();
    }
    let outputs = bridge
        .outside
        .iter()
        .map(|port| json!({"output": port.port}));
    tagged(vlan).into_iter().chain(outputs).collect()
}

/// Out of one port outside.
pub(super) fn to_one(port: &str, vlan: u16) -> Vec<Value> {
    tagged(vlan)
        .into_iter()
        .chain([json!({ "output": port })])
        .collect()
}

/// The actions, or `drop` where there is none.
pub(super) fn or_drop(actions: Vec<Value>) -> Vec<Value> {
    if actions.is_empty() { drop() } else { actions }
}

/// The container's number where its name is one.
fn own_number(container: &Container) -> Option<u32> {
    let text = container.id.as_str();
    let number: u32 = text.parse().ok()?;
    (number > 0 && number < FIRST_TAG && number.to_string() == text).then_some(number)
}

/// Whether containers of the tenant hear each other's broadcasts.
pub(super) fn hear_each_other(tenant: &Tenant) -> bool {
    tenant.internal == Internal::Accept
}

pub(super) fn vlan_of(tenant: &Tenant) -> u16 {
    tenant.vlan.map_or(0, |vlan| vlan.get())
}

/// Owner of what belongs to no container.
pub(super) const BASE: &str = "net.base";

/// Owner of a container's flows.
pub(super) fn container_owner(container: &Container) -> String {
    format!("net.ct.{}", container.id)
}

/// Owner of a tenant's flows.
pub(super) fn tenant_owner(tenant: &Tenant) -> String {
    format!("net.tenant.{}", tenant.name)
}

/// Owner of a set's flows.
pub(super) fn set_owner(name: &str) -> String {
    format!("net.set.{name}")
}

pub(super) fn limit_key(name: &str) -> String {
    format!("limit {name}")
}

pub(super) fn out_key(container: &Container) -> String {
    format!("out {}", container.id)
}

pub(super) fn in_key(container: &Container) -> String {
    format!("in {}", container.id)
}
