//! The host's network as people think of it: bridges, what hangs on them and whose it is, tunnels. A pure view of what was
//! observed; shown by `blockhost net show` and answered by the bus service. Foreign texts in it are not escaped yet.

use serde::Serialize;

use super::bindings;
use super::observe::{Bridge, Forwarding, Link, Meter, Observed, Port, Problem, Tunnel};

/// The whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Picture {
    /// Bridges of the switch first, then those of the kernel.
    pub bridges: Vec<BridgePicture>,
    /// Tunnels with their other sides.
    pub tunnels: Vec<Tunnel>,
    /// Whether a switch answers.
    pub switch: bool,
    /// What is passed on that is for others; none where it cannot be told.
    pub forwarding: Option<Forwarding>,
    /// Default routes: gateway and device.
    pub default_routes: Vec<DefaultRoute>,
    /// What is there and could not be read.
    pub problems: Vec<Problem>,
}

/// A default route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DefaultRoute {
    /// The gateway; none for a device that needs none.
    pub gateway: Option<String>,
    /// The device.
    pub link: Option<String>,
    /// Smaller is preferred.
    pub metric: u32,
}

/// What forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Open vSwitch.
    Ovs,
    /// The kernel's own bridge.
    Linux,
}

/// A bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BridgePicture {
    /// Its name.
    pub name: String,
    /// What forwards.
    pub kind: Kind,
    /// `system` or `netdev`, of the switch only.
    pub datapath_type: Option<String>,
    /// `standalone` or `secure`, of the switch only.
    pub fail_mode: Option<String>,
    /// Whether the root agent made it.
    pub ours: bool,
    /// Whether its own device is up; none where it cannot be told.
    pub up: Option<bool>,
    /// Addresses of the host on it.
    pub addresses: Vec<String>,
    /// Why it does not work.
    pub error: Option<String>,
    /// What hangs on it, its own device left out.
    pub ports: Vec<PortPicture>,
    /// Number of flows, of the switch only.
    pub flows: Option<u64>,
    /// Rate limits.
    pub meters: Vec<Meter>,
}

/// What a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Leads out of the host: hardware, a bond or VLAN of it.
    Uplink,
    /// A virtual machine's.
    Machine,
    /// A container's.
    Container,
    /// Leads through a tunnel.
    Tunnel,
    /// A device of the switch for the host itself.
    Internal,
    /// Something else.
    Other,
}

impl Role {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uplink => "uplink",
            Self::Machine => "machine",
            Self::Container => "container",
            Self::Tunnel => "tunnel",
            Self::Internal => "internal",
            Self::Other => "other",
        }
    }
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortPicture {
    /// Its name.
    pub name: String,
    /// Its device's other names.
    pub altnames: Vec<String>,
    /// What it is.
    pub role: Role,
    /// Number of the machine or container on it.
    pub vmid: Option<u32>,
    /// What the machine's end is called, where the switch knows.
    pub container: Option<String>,
    /// Hardware address of the machine's end, where the switch knows.
    pub attached_mac: Option<String>,
    /// `up`, `down` or `missing`.
    pub state: &'static str,
    /// What the switch says is wrong with it.
    pub error: Option<String>,
    /// Its OpenFlow number, of the switch only.
    pub ofport: Option<i64>,
    /// Its VLAN.
    pub vlan: Option<i64>,
    /// The VLANs that it carries tagged.
    pub trunks: Vec<i64>,
    /// Bytes that came from it.
    pub rx_bytes: u64,
    /// Bytes that went to it.
    pub tx_bytes: u64,
    /// Packets dropped in both directions.
    pub dropped: u64,
    /// Packets broken or failed in both directions.
    pub errors: u64,
}

/// Draws it.
#[must_use]
pub fn picture(observed: &Observed) -> Picture {
    let links = observed.links.as_deref().unwrap_or_default();
    let of_switch = observed.switch.iter().flat_map(|switch| &switch.bridges);
    let mut bridges: Vec<_> = of_switch
        .map(|bridge| ovs_bridge(bridge, observed))
        .collect();
    bridges.extend(
        links
            .iter()
            .filter(|link| link.kind.as_deref() == Some("bridge"))
            .map(|bridge| linux_bridge(bridge, links)),
    );
    let routes = observed.routes.iter().flatten();
    let default_routes = routes.filter(|route| route.is_default() && route.table == MAIN_TABLE);
    Picture {
        bridges,
        tunnels: observed.tunnels.clone().unwrap_or_default(),
        switch: observed.switch.is_some(),
        forwarding: observed.forwarding.clone(),
        default_routes: default_routes
            .flat_map(|route| {
                route.hops.iter().map(|hop| DefaultRoute {
                    gateway: hop.gateway.map(|gateway| gateway.to_string()),
                    link: hop.link.clone(),
                    metric: route.metric,
                })
            })
            .collect(),
        problems: observed.problems.clone(),
    }
}

/// The kernel's table that is asked when no rule says otherwise.
const MAIN_TABLE: u32 = 254;

fn is_up(link: &Link) -> bool {
    link.up
        && !matches!(
            link.operstate.as_str(),
            "down" | "lowerlayerdown" | "notpresent"
        )
}

fn ovs_bridge(bridge: &Bridge, observed: &Observed) -> BridgePicture {
    let own = observed.link(&bridge.name);
    BridgePicture {
        name: bridge.name.clone(),
        kind: Kind::Ovs,
        datapath_type: Some(bridge.datapath_type.clone()),
        fail_mode: Some(bridge.fail_mode.clone()),
        ours: bridge.ours,
        up: own.map(is_up),
        addresses: own.map(|own| own.addresses.clone()).unwrap_or_default(),
        error: bridge.error.clone(),
        ports: bridge
            .ports
            .iter()
            .filter(|port| port.name.as_deref() != Some(&bridge.name))
            .map(|port| ovs_port(port, observed))
            .collect(),
        flows: Some(bridge.owners.iter().map(|owner| owner.flows).sum()),
        meters: bridge.meters.clone(),
    }
}

fn ovs_port(port: &Port, observed: &Observed) -> PortPicture {
    let name = port.name.clone().unwrap_or_default();
    let link = observed.link(&name);
    let counters = port.counters.unwrap_or_default();
    let missing = port.ofport.is_none_or(|number| number < 0);
    PortPicture {
        role: role_on_switch(port, link),
        vmid: port.vmid,
        container: port.iface_id.clone(),
        attached_mac: port.attached_mac.clone(),
        state: match (missing, port.link.as_deref()) {
            (true, _) => "missing",
            (false, Some("up")) => "up",
            (false, _) => "down",
        },
        error: port.error.clone(),
        ofport: port.ofport,
        vlan: port.tag,
        trunks: port.trunks.clone(),
        rx_bytes: counters.rx_bytes,
        tx_bytes: counters.tx_bytes,
        dropped: counters.rx_dropped.saturating_add(counters.tx_dropped),
        errors: counters.rx_errors.saturating_add(counters.tx_errors),
        altnames: link.map(|link| link.altnames.clone()).unwrap_or_default(),
        name,
    }
}

/// By what the switch knows of the port; a name says nothing here.
fn role_on_switch(port: &Port, link: Option<&Link>) -> Role {
    let kind = link.and_then(|link| link.kind.as_deref());
    match (port.kind.as_str(), port.vmid, kind) {
        (_, Some(_), Some("veth")) => Role::Container,
        (_, Some(_), _) => Role::Machine,
        ("internal", None, _) => Role::Internal,
        ("vxlan" | "gre" | "geneve" | "stt", ..) => Role::Tunnel,
        _ => role_of(link),
    }
}

fn role_of(link: Option<&Link>) -> Role {
    match link.map(|link| link.kind.as_deref()) {
        Some(None | Some("bond" | "vlan" | "team")) => Role::Uplink,
        Some(Some("wireguard" | "vxlan" | "gre" | "geneve" | "sit" | "ipip")) => Role::Tunnel,
        _ => Role::Other,
    }
}

fn linux_bridge(bridge: &Link, links: &[Link]) -> BridgePicture {
    BridgePicture {
        name: bridge.name.clone(),
        kind: Kind::Linux,
        datapath_type: None,
        fail_mode: None,
        ours: false,
        up: Some(is_up(bridge)),
        addresses: bridge.addresses.clone(),
        error: None,
        ports: links
            .iter()
            .filter(|link| link.master.as_deref() == Some(&bridge.name))
            .map(linux_port)
            .collect(),
        flows: None,
        meters: Vec::new(),
    }
}

fn linux_port(link: &Link) -> PortPicture {
    // A bridge of the kernel knows nothing of its ports but their names, which backends give by construction.
    let whose = whose(link);
    PortPicture {
        name: link.name.clone(),
        altnames: link.altnames.clone(),
        role: whose.map_or_else(|| role_of(Some(link)), |(role, _)| role),
        vmid: whose.map(|(_, vmid)| vmid),
        container: None,
        attached_mac: None,
        state: if is_up(link) { "up" } else { "down" },
        error: None,
        ofport: None,
        vlan: None,
        trunks: Vec::new(),
        rx_bytes: link.counters.rx_bytes,
        tx_bytes: link.counters.tx_bytes,
        dropped: link
            .counters
            .rx_dropped
            .saturating_add(link.counters.tx_dropped),
        errors: link
            .counters
            .rx_errors
            .saturating_add(link.counters.tx_errors),
    }
}

/// `tap<vmid>i<n>` of a machine, `veth<vmid>i<n>` of a container, `fwpr<vmid>p<n>` of either behind a firewall bridge.
fn whose(link: &Link) -> Option<(Role, u32)> {
    let of = |prefix: &str, between: char| {
        let (vmid, index) = link.name.strip_prefix(prefix)?.split_once(between)?;
        bindings::parse_name(&format!("vi{vmid}"))
            .filter(|_| index.parse::<u8>().is_ok())
            .map(|(vmid, _)| vmid.get())
    };
    of("tap", 'i')
        .map(|vmid| (Role::Machine, vmid))
        .or_else(|| Some((Role::Container, of("veth", 'i')?)))
        .or_else(|| Some((Role::Machine, of("fwpr", 'p')?)))
}

impl Picture {
    /// The bridge of this name.
    #[must_use]
    pub fn bridge(&self, name: &str) -> Option<&BridgePicture> {
        self.bridges.iter().find(|bridge| bridge.name == name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A small host with everything on it, names as a hostile container or switch could have them.
    pub(crate) fn sample(evil: &str) -> Observed {
        let counters = json!({"rx_packets": 1, "rx_bytes": 2048, "rx_dropped": 3, "rx_errors": 0,
            "tx_packets": 1, "tx_bytes": 5_000_000, "tx_dropped": 4, "tx_errors": 1});
        let link = |index: u32, name: &str, kind: Option<&str>, master: Option<&str>| {
            json!({"index": index, "name": name, "altnames": [], "kind": kind, "alias": null, "mac": null, "mtu": 1500,
                "up": true, "operstate": "up", "carrier": true, "master": master, "lower": null,
                "addresses": [format!("192.0.2.{index}/24")], "counters": counters})
        };
        let port = |name: &str, vmid: Option<u32>, ofport: i64| {
            json!({"name": name, "ofport": ofport, "type": "system", "vmid": vmid, "iface_id": evil, "link": "up",
                "error": (ofport < 0).then_some(evil), "counters": counters, "tag": 7})
        };
        serde_json::from_value(json!({
            "links": [
                link(1, "lo", None, None), link(2, "eth0", None, None), link(3, "ovsbr0", Some("tun"), None),
                link(4, "veth100i0", Some("veth"), None), link(5, "vmbr0", Some("bridge"), None),
                link(6, "tap101i0", Some("tun"), Some("vmbr0")), link(7, "eth1", None, Some("vmbr0")),
            ],
            "routes": [{"destination": "0.0.0.0/0", "hops": [{"link": "eth0", "gateway": "192.0.2.254"}], "metric": 100,
                "table": 254, "protocol": 4}],
            "switch": {"bridges": [{"name": "ovsbr0", "ours": true, "datapath_type": "netdev", "fail_mode": "standalone",
                "ports": [port("ovsbr0", None, 65534), port("veth100i0", Some(100), 1), port("eth0", None, 2),
                    port(evil, Some(102), -1)],
                "owners": [{"owner": null, "cookie": "0x0", "flows": 3, "packets": 0, "bytes": 0}]}]},
            "tunnels": [{"name": "wg0", "public_key": "K=", "listen_port": 51820, "mtu": 1420, "up": true,
                "addresses": ["10.8.0.1/24"], "peers": [{"public_key": "P=", "endpoint": "192.0.2.9:51820",
                "allowed_ips": ["10.8.0.2/32"], "keepalive": 25, "preshared": true, "last_handshake": 1, "rx_bytes": 1,
                "tx_bytes": 2}]}],
            "network_manager": null,
            "problems": [{"part": "switch", "what": evil}],
        }))
        .expect("an observation")
    }

    #[test]
    fn every_port_is_said_to_be_whose_it_is() {
        let picture = picture(&sample("web-1"));
        let ports = |bridge: &str| -> Vec<(String, Role, Option<u32>, &str)> {
            let bridge = picture.bridge(bridge).expect("there");
            let shown = |port: &PortPicture| (port.name.clone(), port.role, port.vmid, port.state);
            bridge.ports.iter().map(shown).collect()
        };
        assert_eq!(
            ports("ovsbr0"),
            [
                ("veth100i0".to_owned(), Role::Container, Some(100), "up"),
                ("eth0".to_owned(), Role::Uplink, None, "up"),
                ("web-1".to_owned(), Role::Machine, Some(102), "missing"),
            ]
        );
        assert_eq!(
            ports("vmbr0"),
            [
                ("tap101i0".to_owned(), Role::Machine, Some(101), "up"),
                ("eth1".to_owned(), Role::Uplink, None, "up"),
            ]
        );
        let bridge = picture.bridge("ovsbr0").expect("there");
        assert_eq!((bridge.flows, bridge.up), (Some(3), Some(true)));
        assert_eq!((bridge.ports[0].dropped, bridge.ports[0].errors), (7, 1));
        assert_eq!(
            picture.default_routes[0].gateway.as_deref(),
            Some("192.0.2.254")
        );
    }

    #[test]
    fn a_host_where_nothing_could_be_read_is_drawn_with_its_problems() {
        let observed = Observed {
            problems: sample("no").problems,
            ..Observed::default()
        };
        let picture = picture(&observed);
        assert!(picture.bridges.is_empty() && !picture.switch);
        assert_eq!(picture.problems.len(), 1);
    }
}
