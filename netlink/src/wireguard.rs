//! WireGuard devices of the kernel, by generic netlink: what is set, and reading what there is. The layout is the
//! kernel's `include/uapi/linux/wireguard.h`. Called by the net compartment.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use rustix::net::netlink::GENERIC;
use zeroize::Zeroize;

use super::message::{Builder, NLM_F_DUMP, attribute, attributes, u16_at, u32_at, u64_at};
use super::{Netlink, NetlinkError};

const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

const VERSION: u8 = 1;
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
const DEVICE_IFNAME: u16 = 2;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_LISTEN_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;
const PEER_PUBLIC_KEY: u16 = 1;
const PEER_PRESHARED_KEY: u16 = 2;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_LAST_HANDSHAKE: u16 = 6;
const PEER_RX_BYTES: u16 = 7;
const PEER_TX_BYTES: u16 = 8;
const PEER_ALLOWED_IPS: u16 = 9;
const REMOVE_ME: u32 = 1;
const REPLACE_ALLOWED_IPS: u32 = 2;
const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_LENGTH: u16 = 3;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const GENERIC_HEADER: usize = 4;

/// One message stays below this, so that its list of peers fits an attribute, whose length has 16 bits.
const MAX_REQUEST: usize = 48 * 1024;

/// A network as WireGuard routes by it.
pub type Network = (IpAddr, u8);

/// A peer as the device has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its public key.
    pub public_key: [u8; 32],
    /// The shared key; zeros for none.
    pub preshared: [u8; 32],
    /// Where it was last heard of, or is expected.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalive packets, 0 for none.
    pub keepalive: u16,
    /// Its networks, sorted.
    pub allowed_ips: Vec<Network>,
    /// Seconds since 1970 of the last handshake, 0 for never.
    pub last_handshake_s: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.preshared.zeroize();
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("endpoint", &self.endpoint)
            .field("keepalive", &self.keepalive)
            .field("allowed_ips", &self.allowed_ips)
            .finish_non_exhaustive()
    }
}

/// A device as far as it matters here. Its private key is not read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// UDP port.
    pub listen_port: u16,
    /// Its peers, sorted by key.
    pub peers: Vec<Peer>,
}

/// What is to become of one peer. Peers without a change are not touched, so their sessions go on.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerChange {
    /// Which.
    pub public_key: [u8; 32],
    /// It goes; everything below is nothing then.
    pub remove: bool,
    /// New shared key, zeros for none.
    pub preshared: Option<[u8; 32]>,
    /// New endpoint.
    pub endpoint: Option<SocketAddr>,
    /// New interval, 0 for none.
    pub keepalive: Option<u16>,
    /// All its networks from now on.
    pub allowed_ips: Option<Vec<Network>>,
}

impl PeerChange {
    /// Nothing changes yet.
    #[must_use]
    pub const fn of(public_key: [u8; 32]) -> Self {
        Self {
            public_key,
            remove: false,
            preshared: None,
            endpoint: None,
            keepalive: None,
            allowed_ips: None,
        }
    }
}

impl PeerChange {
    /// The peer goes.
    #[must_use]
    pub const fn removal(public_key: [u8; 32]) -> Self {
        let mut change = Self::of(public_key);
        change.remove = true;
        change
    }
}

impl Drop for PeerChange {
    fn drop(&mut self) {
        self.preshared.zeroize();
    }
}

/// A socket address as the kernel lays it out.
fn sockaddr(endpoint: SocketAddr) -> Vec<u8> {
    let port = endpoint.port().to_be_bytes();
    match endpoint {
        SocketAddr::V4(v4) => {
            let family = AF_INET.to_ne_bytes();
            [&family[..], &port, &v4.ip().octets(), &[0; 8]].concat()
        }
        SocketAddr::V6(v6) => {
            let family = AF_INET6.to_ne_bytes();
            let (flow, scope) = ([0; 4], [0; 4]);
            [&family[..], &port, &flow, &v6.ip().octets(), &scope].concat()
        }
    }
}

fn endpoint(value: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(value.get(2..4)?.try_into().ok()?);
    match u16_at(value, 0)? {
        AF_INET => {
            let octets: [u8; 4] = value.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::from((octets, port)))
        }
        AF_INET6 => {
            let octets: [u8; 16] = value.get(8..24)?.try_into().ok()?;
            Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, u32_at(value, 24)?).into())
        }
        _ => None,
    }
}

fn network_inside((address, length): Network) -> Builder {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, v6.octets().to_vec()),
    };
    Builder::inside()
        .attribute(ALLOWED_FAMILY, &family.to_ne_bytes())
        .attribute(ALLOWED_ADDRESS, &octets)
        .attribute(ALLOWED_LENGTH, &[length])
}

fn peer_inside(change: &PeerChange) -> Builder {
    let mut inside = Builder::inside().attribute(PEER_PUBLIC_KEY, &change.public_key);
    if change.remove {
        return inside.u32(PEER_FLAGS, REMOVE_ME);
    }
    if let Some(key) = &change.preshared {
        inside = inside.attribute(PEER_PRESHARED_KEY, key);
    }
    if let Some(endpoint) = change.endpoint {
        inside = inside.attribute(PEER_ENDPOINT, &sockaddr(endpoint));
    }
    if let Some(seconds) = change.keepalive {
        inside = inside.attribute(PEER_KEEPALIVE, &seconds.to_ne_bytes());
    }
    if let Some(networks) = &change.allowed_ips {
        let list = networks.iter().fold(Builder::inside(), |list, network| {
            list.nest(0, network_inside(*network))
        });
        inside = inside
            .u32(PEER_FLAGS, REPLACE_ALLOWED_IPS)
            .nest(PEER_ALLOWED_IPS, list);
    }
    inside
}

/// The lists of peers for as few messages as they fit in; one, but for hundreds of changes.
fn peer_lists(changes: &[PeerChange]) -> Vec<Builder> {
    let mut lists = Vec::new();
    let mut list = Builder::inside();
    for change in changes {
        let peer = peer_inside(change);
        if !list.is_empty() && list.len() + peer.len() > MAX_REQUEST {
            lists.push(std::mem::take(&mut list));
        }
        list = list.nest(0, peer);
    }
    if !list.is_empty() {
        lists.push(list);
    }
    lists
}

fn parse_network(value: &[u8]) -> Option<Network> {
    let address = attribute(value, ALLOWED_ADDRESS)?;
    let address = match u16_at(attribute(value, ALLOWED_FAMILY)?, 0)? {
        AF_INET => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        AF_INET6 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        _ => return None,
    };
    Some((address, *attribute(value, ALLOWED_LENGTH)?.first()?))
}

fn parse_peer(value: &[u8]) -> Option<Peer> {
    let key = |kind| attribute(value, kind).and_then(|key| <[u8; 32]>::try_from(key).ok());
    let counter = |kind| attribute(value, kind).and_then(|number| u64_at(number, 0));
    let networks = attribute(value, PEER_ALLOWED_IPS).unwrap_or_default();
    Some(Peer {
        public_key: key(PEER_PUBLIC_KEY)?,
        preshared: key(PEER_PRESHARED_KEY).unwrap_or_default(),
        endpoint: attribute(value, PEER_ENDPOINT).and_then(endpoint),
        keepalive: attribute(value, PEER_KEEPALIVE)
            .and_then(|value| u16_at(value, 0))
            .unwrap_or(0),
        allowed_ips: attributes(networks)
            .filter_map(|(_, network)| parse_network(network))
            .collect(),
        last_handshake_s: counter(PEER_LAST_HANDSHAKE).unwrap_or(0),
        rx_bytes: counter(PEER_RX_BYTES).unwrap_or(0),
        tx_bytes: counter(PEER_TX_BYTES).unwrap_or(0),
    })
}

/// Adds what one message says about a device. A peer whose networks do not fit goes on in the next message.
pub fn read_device(device: &mut Device, body: &[u8]) {
    let rest = body.get(GENERIC_HEADER..).unwrap_or_default();
    if let Some(port) = attribute(rest, DEVICE_LISTEN_PORT).and_then(|value| u16_at(value, 0)) {
        device.listen_port = port;
    }
    let peers = attribute(rest, DEVICE_PEERS).unwrap_or_default();
    for mut peer in attributes(peers).filter_map(|(_, peer)| parse_peer(peer)) {
        match device.peers.last_mut() {
            Some(last) if last.public_key == peer.public_key => {
                last.allowed_ips.append(&mut peer.allowed_ips);
            }
            _ => device.peers.push(peer),
        }
    }
}

impl Netlink {
    /// Opens a socket for generic netlink.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn open_generic() -> Result<Self, NetlinkError> {
        Self::open_protocol(Some(GENERIC))
    }

    /// The number that the kernel gave the family, once its module is there.
    fn wireguard_family(&mut self) -> Result<u16, NetlinkError> {
        let request = Builder::request(CONTROL, 0)
            .raw(&[GET_FAMILY, VERSION, 0, 0])
            .text(FAMILY_NAME, "wireguard");
        self.ask(request)?
            .as_deref()
            .and_then(|body| u16_at(attribute(body.get(GENERIC_HEADER..)?, FAMILY_ID)?, 0))
            .ok_or(NetlinkError::Malformed("a family without a number"))
    }

    /// A device with its peers.
    ///
    /// # Errors
    /// `ENODEV` where there is none of that name, `EOPNOTSUPP` where it is of another kind.
    pub fn wireguard_get(&mut self, name: &str) -> Result<Device, NetlinkError> {
        let family = self.wireguard_family()?;
        let request = Builder::request(family, NLM_F_DUMP)
            .raw(&[GET_DEVICE, VERSION, 0, 0])
            .text(DEVICE_IFNAME, name);
        let mut device = Device::default();
        self.dump(request, |body| read_device(&mut device, body))?;
        device.peers.sort_by_key(|peer| peer.public_key);
        for peer in &mut device.peers {
            peer.allowed_ips.sort_unstable();
        }
        Ok(device)
    }

    /// Sets a device's private key and port; without a port the kernel's choice stays.
    ///
    /// # Errors
    /// As for [`Netlink::wireguard_get`].
    pub fn wireguard_set(
        &mut self,
        name: &str,
        private_key: &[u8; 32],
        listen_port: Option<u16>,
    ) -> Result<(), NetlinkError> {
        let family = self.wireguard_family()?;
        let request = set_device(family, name).attribute(DEVICE_PRIVATE_KEY, private_key);
        let request = match listen_port {
            Some(port) => request.attribute(DEVICE_LISTEN_PORT, &port.to_ne_bytes()),
            None => request,
        };
        self.ask(request).map(drop)
    }

    /// Changes peers.
    ///
    /// # Errors
    /// As for [`Netlink::wireguard_get`].
    pub fn wireguard_change(
        &mut self,
        name: &str,
        changes: &[PeerChange],
    ) -> Result<(), NetlinkError> {
        let family = self.wireguard_family()?;
        peer_lists(changes).into_iter().try_for_each(|list| {
            let request = set_device(family, name).nest(DEVICE_PEERS, list);
            self.ask(request).map(drop)
        })
    }
}

fn set_device(family: u16, name: &str) -> Builder {
    Builder::request(family, 0)
        .raw(&[SET_DEVICE, VERSION, 0, 0])
        .text(DEVICE_IFNAME, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change() -> PeerChange {
        let mut change = PeerChange::of([7; 32]);
        change.preshared = Some([3; 32]);
        change.endpoint = Some("192.0.2.9:51820".parse().unwrap());
        change.keepalive = Some(25);
        change.allowed_ips = Some(vec![("10.8.0.2".parse().unwrap(), 32)]);
        change
    }

    /// Byte by byte as `wg set` sends it: nested attributes carry the flag 0x8000, values are padded to four.
    #[test]
    #[cfg(target_endian = "little")]
    fn a_peer_is_laid_out_as_the_kernels_header_says() {
        let bytes = set_device(0x1c, "wg0")
            .nest(DEVICE_PEERS, peer_lists(&[change()]).remove(0))
            .done(9);
        let mut wanted: Vec<u8> = vec![1, 1, 0, 0]; // WG_CMD_SET_DEVICE, version
        wanted.extend([8, 0, 2, 0, b'w', b'g', b'0', 0]); // WGDEVICE_A_IFNAME
        wanted.extend([148, 0, 8, 0x80]); // WGDEVICE_A_PEERS
        wanted.extend([144, 0, 0, 0x80]); // the first peer
        wanted.extend([36, 0, 1, 0]); // WGPEER_A_PUBLIC_KEY
        wanted.extend([7; 32]);
        wanted.extend([36, 0, 2, 0]); // WGPEER_A_PRESHARED_KEY
        wanted.extend([3; 32]);
        wanted.extend([20, 0, 4, 0, 2, 0, 0xca, 0x6c, 192, 0, 2, 9]); // WGPEER_A_ENDPOINT: sockaddr_in
        wanted.extend([0; 8]);
        wanted.extend([6, 0, 5, 0, 25, 0, 0, 0]); // WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL
        wanted.extend([8, 0, 3, 0, 2, 0, 0, 0]); // WGPEER_A_FLAGS: REPLACE_ALLOWEDIPS
        wanted.extend([32, 0, 9, 0x80]); // WGPEER_A_ALLOWEDIPS
        wanted.extend([28, 0, 0, 0x80]); // the first network
        wanted.extend([6, 0, 1, 0, 2, 0, 0, 0]); // WGALLOWEDIP_A_FAMILY
        wanted.extend([8, 0, 2, 0, 10, 8, 0, 2]); // WGALLOWEDIP_A_IPADDR
        wanted.extend([5, 0, 3, 0, 32, 0, 0, 0]); // WGALLOWEDIP_A_CIDR_MASK
        assert_eq!(bytes[16..], wanted);
        assert_eq!(bytes[4..8], [0x1c, 0, 5, 0]); // the family, NLM_F_REQUEST | NLM_F_ACK
        assert_eq!(u32_at(&bytes, 0), Some(u32::try_from(bytes.len()).unwrap()));
    }

    #[test]
    fn what_is_written_is_what_is_read_and_a_peer_in_two_messages_is_one() {
        let mut second = change();
        second.allowed_ips = Some(vec![("fd00::".parse().unwrap(), 8)]);
        let mut device = Device::default();
        for change in [change(), second] {
            let list = peer_lists(&[change]).remove(0);
            let message = Builder::inside()
                .raw(&[0; 4])
                .attribute(DEVICE_LISTEN_PORT, &51_820u16.to_ne_bytes())
                .nest(DEVICE_PEERS, list)
                .done_inside();
            read_device(&mut device, &message);
        }
        assert_eq!(device.listen_port, 51_820);
        let [peer] = device.peers.as_slice() else {
            panic!("{device:?}");
        };
        assert_eq!((peer.public_key, peer.preshared), ([7; 32], [3; 32]));
        assert_eq!(peer.endpoint, change().endpoint);
        assert_eq!(peer.allowed_ips.len(), 2);
        assert!(
            !format!("{device:?}").contains("3, 3"),
            "a shared key is printed"
        );
    }

    #[test]
    fn many_changes_are_cut_into_messages_that_fit() {
        let changes: Vec<PeerChange> = (0..2000).map(|_| change()).collect();
        let lists = peer_lists(&changes);
        assert!(lists.len() > 1);
        assert!(lists.iter().all(|list| list.len() <= MAX_REQUEST));
        let mut most = change();
        most.allowed_ips = Some(vec![("fd00::".parse().unwrap(), 8); 512]);
        assert!(peer_inside(&most).len() < MAX_REQUEST);
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            read_device(&mut Device::default(), &bytes);
            let _ = parse_peer(&bytes);
            let _ = endpoint(&bytes);
        }
    }
}
