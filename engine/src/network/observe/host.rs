//! Devices, addresses and routes, from the kernel by netlink. No privileges needed.

use std::collections::HashMap;
use std::net::IpAddr;

use blockhost_netlink::netconf::Scope;
use blockhost_netlink::survey::Device;
use blockhost_netlink::{Netlink, link};
use serde::{Deserialize, Serialize};

use super::ObserveError;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its first name.
    pub name: String,
    /// Its other names, such as `vi100`.
    pub altnames: Vec<String>,
    /// What kind of device, such as `veth`, `bridge` or `wireguard`; none for hardware.
    pub kind: Option<String>,
    /// What a program or an administrator wrote beside it.
    pub alias: Option<String>,
    /// Hardware address.
    pub mac: Option<String>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// What it can do now: `up`, `down`, `lowerlayerdown`, `unknown`, ...
    pub operstate: String,
    /// Whether there is a signal; not every device says.
    pub carrier: Option<bool>,
    /// The bridge or other device that it belongs to.
    pub master: Option<String>,
    /// Its other end or what it stands on, where that is in the same network namespace.
    pub lower: Option<String>,
    /// Its addresses with the length of their networks, `192.0.2.1/24`; link-local ones too.
    pub addresses: Vec<String>,
    /// What went through.
    pub counters: Counters,
}

/// What went through a device since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Packets that came in.
    pub rx_packets: u64,
    /// Bytes that came in.
    pub rx_bytes: u64,
    /// Packets dropped on their way in.
    pub rx_dropped: u64,
    /// Broken packets that came in.
    pub rx_errors: u64,
    /// Packets that went out.
    pub tx_packets: u64,
    /// Bytes that went out.
    pub tx_bytes: u64,
    /// Packets dropped on their way out.
    pub tx_dropped: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// `192.0.2.0/24`; `0.0.0.0/0` and `::/0` are the default routes.
    pub destination: String,
    /// Where it goes; more than one where it spreads over several.
    pub hops: Vec<Hop>,
    /// Smaller is preferred.
    pub metric: u32,
    /// Number of its table; 254 is the main one.
    pub table: u32,
    /// Which program or protocol made it, by the kernel's number.
    pub protocol: u8,
}

/// One way of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The device.
    pub link: Option<String>,
    /// The gateway; none for what is reached directly.
    pub gateway: Option<IpAddr>,
}

/// What the host passes on that is not for itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Forwarding {
    /// Devices that IPv4 packets come in by to be forwarded.
    pub ipv4: Vec<String>,
    /// Whether IPv6 packets are, whatever they come in by.
    pub ipv6: bool,
    /// Devices where neighbour solicitations for others may be answered.
    pub ipv6_proxy: Vec<String>,
}

/// What is forwarded, and where.
///
/// # Errors
/// [`ObserveError::Netlink`].
pub fn forwarding() -> Result<Forwarding, ObserveError> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    // By netlink: `/proc/sys` is out of a sandboxed service's sight.
    let settings = netlink.netconf_v6()?;
    let of = |scope: Scope| settings.iter().find(|one| one.scope == scope);
    let all = of(Scope::All);
    let answers = |link: &link::Link| {
        let own = of(Scope::Device(link.index));
        [all, own].into_iter().flatten().any(|one| one.proxies)
    };
    let names = |chosen: &dyn Fn(&link::Link) -> bool| {
        let chosen = links
            .iter()
            .filter(|link| link.name != "lo" && chosen(link));
        chosen.map(|link| link.name.clone()).collect()
    };
    Ok(Forwarding {
        ipv4: names(&|link| link.forwards),
        ipv6: all.is_some_and(|all| all.forwards),
        ipv6_proxy: names(&answers),
    })
}

impl Link {
    /// Whether this is one of its names.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.altnames.iter().any(|other| other == name)
    }
}

impl Route {
    /// Whether it is for everything that no other route is for.
    #[must_use]
    pub fn is_default(&self) -> bool {
        matches!(self.destination.as_str(), "0.0.0.0/0" | "::/0")
    }
}

/// Every device, by number.
///
/// # Errors
/// [`ObserveError::Netlink`].
pub fn links() -> Result<Vec<Link>, ObserveError> {
    let mut netlink = Netlink::open()?;
    let devices = netlink.devices()?;
    let mut addresses: HashMap<u32, Vec<String>> = HashMap::new();
    for (index, address) in netlink.all_addresses()? {
        addresses.entry(index).or_default().push(written(address));
    }
    let names: HashMap<u32, String> = devices
        .iter()
        .map(|device| (device.link.index, device.link.name.clone()))
        .collect();
    Ok(devices
        .into_iter()
        .map(|device| {
            let addresses = addresses.remove(&device.link.index).unwrap_or_default();
            shown(device, addresses, &names)
        })
        .collect())
}

fn written(link::Address { address, length }: link::Address) -> String {
    format!("{address}/{length}")
}

fn shown(device: Device, addresses: Vec<String>, names: &HashMap<u32, String>) -> Link {
    let Device {
        link,
        mac,
        state,
        carrier,
        master,
        lower,
        counters,
    } = device;
    let named = |index: Option<u32>| index.and_then(|index| names.get(&index).cloned());
    Link {
        index: link.index,
        name: link.name,
        altnames: link.alternative,
        kind: link.kind,
        alias: link.alias,
        mac: mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":")),
        mtu: link.mtu,
        up: link.up,
        operstate: state.as_str().to_owned(),
        carrier,
        master: named(master),
        lower: named(lower),
        addresses,
        counters: Counters {
            rx_packets: counters.rx_packets,
            rx_bytes: counters.rx_bytes,
            rx_dropped: counters.rx_dropped,
            rx_errors: counters.rx_errors,
            tx_packets: counters.tx_packets,
            tx_bytes: counters.tx_bytes,
            tx_dropped: counters.tx_dropped,
            tx_errors: counters.tx_errors,
        },
    }
}

/// Every route of both families; `links` gives the devices their names.
///
/// # Errors
/// [`ObserveError::Netlink`].
pub fn routes(links: &[Link]) -> Result<Vec<Route>, ObserveError> {
    let routes = Netlink::open()?.routes()?;
    let named = |index: u32| {
        links
            .iter()
            .find(|link| link.index == index)
            .map(|link| link.name.clone())
    };
    Ok(routes
        .into_iter()
        .filter(|route| route.leads)
        .map(|route| Route {
            destination: written(route.destination),
            hops: route
                .hops
                .iter()
                .map(|hop| Hop {
                    link: hop.device.and_then(named),
                    gateway: hop.gateway,
                })
                .collect(),
            metric: route.metric,
            table: route.table,
            protocol: route.protocol,
        })
        .collect())
}
