//! The policy of a host's switches, the section `ovsflows` of `state.json`: who is on which port, with which addresses,
//! who may talk to whom, how fast, by which way. Types only: reading is in
//! `document`, what has to fit together in `check`.

use std::net::{IpAddr, Ipv4Addr};

use blockhost_proto::qm::MacAddress;
use blockhost_proto::value::{
    Burst, FlowOwner, Ipv4Prefix, Ipv6Prefix, MeterUnit, Port, QueueId, Queues, Rate, SwitchIfName,
    VlanTag,
};

/// All bridges whose flows are ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The bridges.
    pub bridges: Vec<Bridge>,
}

/// A name within a bridge's part: of a tenant, a set, a router, a limit, a container.
pub type Name = FlowOwner;

/// Everything about one bridge. A port that is not named here gets and sends nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: SwitchIfName,
    /// What happens to packets in pieces.
    pub fragments: Fragments,
    /// Ports behind which the rest of the world is.
    pub outside: Vec<Outside>,
    /// Ways that packets of some kinds take instead.
    pub routers: Vec<Router>,
    /// Lists of networks.
    pub sets: Vec<PrefixSet>,
    /// Sources that are held to a rate.
    pub limits: Vec<Limit>,
    /// Who owns containers.
    pub tenants: Vec<Tenant>,
    /// The containers (and machines).
    pub containers: Vec<Container>,
    /// Where it stands in the document.
    pub place: String,
}

/// What happens to packets in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragments {
    /// Connection tracking puts them together, looks, and sends them on.
    Track,
    /// They are dropped.
    Drop,
}

/// A port behind which others are: an uplink, or the host itself (a port with the bridge's own name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// The port.
    pub port: SwitchIfName,
    /// Who is there, where that is known: packets to these addresses go only there, and no others do.
    pub macs: Vec<MacAddress>,
    /// Limit and queues of what goes out there.
    pub qos: Option<Qos>,
    /// Its place in the document.
    pub place: String,
}

/// Limit and queues of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qos {
    /// For all that goes out of the port.
    pub max_kbps: Option<Rate>,
    /// The queues.
    pub queues: Queues,
}

/// A way for packets of some kinds: a routing namespace behind a port, or the host's own routing by a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    /// Its name.
    pub name: Name,
    /// Hardware address of the router's end.
    pub mac: MacAddress,
    /// How packets get there.
    pub by: Hop,
    /// The VLAN that it belongs to; the port itself carries no tags.
    pub vlan: Option<VlanTag>,
    /// Its place in the document.
    pub place: String,
}

/// How packets get to a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hop {
    /// Out of this port.
    Port(SwitchIfName),
    /// To the host itself, with this mark for its `ip rule`.
    Mark(u32),
}

/// A named list of networks: a country, a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixSet {
    /// Its name.
    pub name: Name,
    /// IPv4.
    pub v4: Vec<Ipv4Prefix>,
    /// IPv6.
    pub v6: Vec<Ipv6Prefix>,
    /// Its place in the document.
    pub place: String,
}

/// Sources that are held to a rate, all together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Its name.
    pub name: Name,
    /// The sources.
    pub from: Vec<Network>,
    /// The rate.
    pub rate: Metered,
    /// Its place in the document.
    pub place: String,
}

/// A rate and what may pass at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metered {
    /// Kilobits or packets.
    pub unit: MeterUnit,
    /// Per second.
    pub rate: Rate,
    /// At once.
    pub burst: Option<Burst>,
}

/// A network of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    V4(Ipv4Prefix),
    /// IPv6.
    V6(Ipv6Prefix),
}

/// Who owns containers. Tenants of one bridge never reach each other by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub name: Name,
    /// The zone of its connections: 1 to 65535.
    pub zone: u16,
    /// The VLAN that its packets have outside.
    pub vlan: Option<VlanTag>,
    /// Whether its containers reach each other without further rules.
    pub internal: Internal,
    /// The queue of what it sends outside, where no class says another.
    pub queue: Option<QueueId>,
    /// Its place in the document.
    pub place: String,
}

/// What containers of one tenant may ask of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Internal {
    /// Everything.
    Accept,
    /// What `in.accept` says, as for everybody.
    Rules,
}

/// One interface of a container or machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// What it is called; a number for machines.
    pub id: Name,
    /// Its port.
    pub port: SwitchIfName,
    /// The hardware address that it has and no other.
    pub mac: MacAddress,
    /// The addresses that it has and no others; of IPv6 also the link-local one of its hardware address.
    pub addresses: Vec<IpAddr>,
    /// Name of its tenant.
    pub tenant: Name,
    /// Whether it may ask for addresses by DHCP.
    pub dhcp: bool,
    /// Connections that others begin.
    pub inward: Rules,
    /// Connections that it begins; nothing under `accept` and `open` means all that are not dropped.
    pub outward: Rules,
    /// Whether it may begin any connection that is not dropped.
    pub open: bool,
    /// What it may send.
    pub rate_out: Option<Metered>,
    /// What it may be sent.
    pub rate_in: Option<Metered>,
    /// Limit and queues of its port.
    pub qos: Option<Qos>,
    /// Which packets go into which queue.
    pub classes: Vec<Class>,
    /// Which packets go which way.
    pub routes: Vec<Route>,
    /// Its address to others.
    pub nat: Option<SwitchNat>,
    /// Its place in the document.
    pub place: String,
}

/// What may and may not begin. What is dropped is dropped whatever is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// What may.
    pub accept: Vec<Rule>,
    /// What may not.
    pub drop: Vec<Rule>,
}

/// Connections of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What is spoken.
    pub service: Service,
    /// With whom; with everybody where it is empty.
    pub peers: Vec<Peer>,
    /// Its place in the document.
    pub place: String,
}

/// What is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The protocol.
    pub proto: Proto,
    /// Ports, first and last; all where it is empty.
    pub ports: Vec<(u16, u16)>,
}

/// Protocols of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proto {
    /// All.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP, and of IPv6 ICMPv6.
    Icmp,
}

/// With whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A network.
    Network(Network),
    /// The networks of a set.
    Set(Name),
}

/// Packets that go into a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// What is spoken.
    pub service: Service,
    /// The queue, of the ports outside or of the container's own.
    pub queue: QueueId,
    /// Which way.
    pub way: Way,
    /// Whose ports the service's are.
    pub side: Side,
    /// Its place in the document.
    pub place: String,
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the container.
    Out,
    /// To the container.
    In,
}

/// Whose ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The other's: it is the client there.
    Remote,
    /// The container's: it serves.
    Own,
}

/// Packets that go another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What is meant.
    pub what: Routed,
    /// Name of the router.
    pub via: Name,
    /// Its place in the document.
    pub place: String,
}

/// Which packets go another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routed {
    /// Of these services.
    Services(Vec<Service>),
    /// To the networks of this set.
    To(Name),
}

/// A container's address to others, translated in the switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchNat {
    /// What others see, and what the switch answers for.
    pub source: Ipv4Addr,
    /// Ports of it that lead to the container.
    pub publish: Vec<Published>,
    /// Its place in the document.
    pub place: String,
}

/// A port of the public address that leads to the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// TCP, UDP or SCTP.
    pub proto: Proto,
    /// The port that others see.
    pub port: Port,
    /// The container's.
    pub to: Port,
}
