//! What the root agent has to be asked so that the tunnel to a broker is as an allocation says: device, the broker as its only
//! peer, the way out for what machines send. Pure; what is so already is not asked for again.

use std::net::{IpAddr, Ipv6Addr};

use blockhost_proto::action::{Action, ActionError};
use blockhost_proto::value::{MachinePrefix, WgEndpoint, WgKey};
use serde_json::json;

use super::TUNNEL;
use crate::network::observe::{Peer, Tunnel};

/// The tunnel's own address on this host: unique local, and nobody else's business. The network's own addresses are on the
/// bridge and at the machines.
pub const ADDRESS: &str = "fd62:6c6f:636b::1/128";
/// Seconds between signs of life: the host is the one that keeps ways through other people's firewalls open.
const KEEPALIVE: u16 = 25;
/// Seconds after which a peer that was not heard of is looked for where it is expected. WireGuard renews its keys every two
/// minutes.
const SILENCE_S: u64 = 300;
/// Rank of the route to the network as a whole, behind all that lead to machines and to their bridge: what is for nobody ends
/// in the tunnel, whose peer may not have it, instead of going back to the internet.
pub const LAST: u32 = 4096;

/// The tunnel as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The network that comes by it.
    pub prefix: MachinePrefix,
    /// The broker's key.
    pub key: WgKey,
    /// Where the broker listens, as its name says now; the first that can be.
    pub endpoints: Vec<WgEndpoint>,
}

/// What there is of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The tunnel; none yet.
    pub tunnel: Option<Tunnel>,
    /// Networks whose packets go out of it by a route of the agent's.
    pub ways: Vec<String>,
    /// Networks that end in it by a route of the agent's.
    pub ends: Vec<String>,
}

/// The networks that the broker may send from and be sent to: everything of the prefix's kind but the prefix itself. So a
/// packet with a machine's source does not come in from outside, and one for nobody does not go out again.
#[must_use]
pub fn beyond(prefix: MachinePrefix) -> Vec<String> {
    let bits = prefix.address().to_bits();
    let local = bits >> 121 == 0xfc >> 1;
    let first: u8 = if local { 7 } else { 3 };
    (first..prefix.length())
        .map(|at| {
            let shift = 127 - u32::from(at);
            let network = Ipv6Addr::from_bits((bits >> shift ^ 1) << shift);
            format!("{network}/{}", at + 1)
        })
        .collect()
}

/// The steps, in their order; none where everything is so. `now` is in seconds since 1970.
///
/// # Errors
/// [`ActionError`] where a step is not in the catalog's form.
pub fn steps(wanted: &Wanted, seen: &Seen, now: u64) -> Result<Vec<Action>, ActionError> {
    let mut steps = Vec::new();
    if let Some(setup) = setup(seen)? {
        steps.push(setup);
    }
    let allowed = beyond(wanted.prefix);
    let peers = seen.tunnel.as_ref().map_or(&[][..], |tunnel| &tunnel.peers);
    if !matches!(peers, [peer] if is_so(peer, wanted, &allowed, now)) {
        let mut peer = json!({
            "public_key": wanted.key.to_string(), "allowed_ips": allowed, "keepalive": KEEPALIVE,
        });
        if let Some(endpoint) = wanted.endpoints.first() {
            peer["endpoint"] = endpoint.to_string().into();
        }
        let params = json!({"name": TUNNEL, "peers": [peer]});
        steps.push(Action::from_parts("wg-set-peers", &params)?);
    }
    let prefix = wanted.prefix.to_string();
    for old in seen.ways.iter().filter(|way| **way != prefix) {
        let params = json!({"from": old, "dev": TUNNEL});
        steps.push(Action::from_parts("route-from-del", &params)?);
    }
    for old in seen.ends.iter().filter(|end| **end != prefix) {
        let params = json!({"dest": old, "dev": TUNNEL, "metric": LAST});
        steps.push(Action::from_parts("route-del", &params)?);
    }
    // Before machines have a way out, what is for nobody has an end.
    if !seen.ends.contains(&prefix) {
        let params = json!({"dest": prefix, "dev": TUNNEL, "metric": LAST});
        steps.push(Action::from_parts("route-set", &params)?);
    }
    if !seen.ways.contains(&prefix) {
        let params = json!({"from": prefix, "dev": TUNNEL});
        steps.push(Action::from_parts("route-from-set", &params)?);
    }
    Ok(steps)
}

/// The device, where it is not there, not up, or not ours in address and key.
///
/// # Errors
/// [`ActionError`] where the step is not in the catalog's form.
pub fn setup(seen: &Seen) -> Result<Option<Action>, ActionError> {
    let is_so = seen.tunnel.as_ref().is_some_and(|tunnel| {
        tunnel.up
            && tunnel.public_key.is_some()
            && tunnel.addresses.iter().any(|address| address == ADDRESS)
    });
    if is_so {
        return Ok(None);
    }
    let params = json!({"name": TUNNEL, "addresses": [ADDRESS]});
    Action::from_parts("wg-setup", &params).map(Some)
}

fn is_so(peer: &Peer, wanted: &Wanted, allowed: &[String], now: u64) -> bool {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort_unstable();
        list
    };
    let heard = peer
        .last_handshake
        .is_some_and(|at| now.saturating_sub(at) < SILENCE_S);
    let expected = peer.endpoint.as_ref().is_some_and(|endpoint| {
        let expected = wanted.endpoints.iter().map(ToString::to_string);
        expected.into_iter().any(|one| one == *endpoint)
    });
    peer.public_key.as_deref() == Some(wanted.key.to_string().as_str())
        && sorted(&peer.allowed_ips) == sorted(allowed)
        && peer.keepalive == Some(KEEPALIVE)
        && !peer.preshared
        // One that is heard of may have moved; one whose name leads nowhere just now is left where it was.
        && (heard || expected || wanted.endpoints.is_empty() && peer.endpoint.is_some())
}

/// Of the addresses that a broker's name has, those that a tunnel can lead to: not one of its own network.
#[must_use]
pub fn usable(prefix: MachinePrefix, found: impl Iterator<Item = WgEndpoint>) -> Vec<WgEndpoint> {
    let inside = |endpoint: &WgEndpoint| matches!(endpoint.socket().ip(), IpAddr::V6(v6) if prefix.contains(v6));
    let mut list: Vec<WgEndpoint> = found.filter(|endpoint| !inside(endpoint)).collect();
    // One order for one set: a name that turns its addresses round is no reason to move.
    list.sort_unstable_by_key(|endpoint| endpoint.socket());
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockhost_proto::value::Text as _;
    use proptest::prelude::*;

    const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    const NOW: u64 = 1_800_000_000;

    fn wanted() -> Wanted {
        Wanted {
            prefix: "2001:db8:b10c::/64".parse().unwrap(),
            key: WgKey::read(KEY).unwrap(),
            endpoints: vec![WgEndpoint::read("192.0.2.9:51820").unwrap()],
        }
    }

    fn names(steps: &[Action]) -> Vec<&'static str> {
        steps.iter().map(Action::name).collect()
    }

    fn settled() -> Seen {
        let wanted = wanted();
        Seen {
            tunnel: Some(Tunnel {
                name: TUNNEL.into(),
                public_key: Some("TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=".into()),
                listen_port: 51820,
                mtu: 1420,
                up: true,
                addresses: vec![ADDRESS.into(), "fe80::1/64".into()],
                peers: vec![Peer {
                    public_key: Some(KEY.into()),
                    endpoint: Some("192.0.2.9:51820".into()),
                    allowed_ips: beyond(wanted.prefix).into_iter().rev().collect(),
                    keepalive: Some(KEEPALIVE),
                    preshared: false,
                    last_handshake: None,
                    rx_bytes: 0,
                    tx_bytes: 0,
                }],
            }),
            ways: vec!["2001:db8:b10c::/64".into()],
            ends: vec!["2001:db8:b10c::/64".into()],
        }
    }

    #[test]
    fn from_nothing_everything_is_asked_for_and_when_it_is_there_nothing() {
        let all = steps(&wanted(), &Seen::default(), NOW).unwrap();
        assert_eq!(
            names(&all),
            ["wg-setup", "wg-set-peers", "route-set", "route-from-set"]
        );
        let peer = &all[1].params()["peers"][0];
        assert_eq!(peer["endpoint"], "192.0.2.9:51820");
        assert_eq!(peer["keepalive"], 25);
        assert_eq!(steps(&wanted(), &settled(), NOW).unwrap(), []);
    }

    #[test]
    fn each_difference_is_one_step() {
        type Change = fn(&mut Tunnel);
        let changes: [(Change, &str); 8] = [
            (|t| t.up = false, "wg-setup"),
            (|t| t.public_key = None, "wg-setup"),
            (|t| t.addresses.clear(), "wg-setup"),
            (|t| t.peers.clear(), "wg-set-peers"),
            (
                |t| t.peers[0].allowed_ips.push("::/0".into()),
                "wg-set-peers",
            ),
            (|t| t.peers[0].keepalive = None, "wg-set-peers"),
            (
                |t| t.peers[0].endpoint = Some("192.0.2.7:1".into()),
                "wg-set-peers",
            ),
            (|t| t.peers.push(t.peers[0].clone()), "wg-set-peers"),
        ];
        for (at, (change, step)) in changes.into_iter().enumerate() {
            let mut seen = settled();
            change(seen.tunnel.as_mut().unwrap());
            assert_eq!(
                names(&steps(&wanted(), &seen, NOW).unwrap()),
                [step],
                "{at}"
            );
        }
        let mut seen = settled();
        seen.ways.clear();
        seen.ends = vec!["fd77::/64".into()];
        assert_eq!(
            names(&steps(&wanted(), &seen, NOW).unwrap()),
            ["route-del", "route-set", "route-from-set"]
        );
        seen = settled();
        seen.ways.push("fd77::/64".into());
        assert_eq!(
            names(&steps(&wanted(), &seen, NOW).unwrap()),
            ["route-from-del"]
        );
    }

    #[test]
    fn a_broker_that_moved_is_followed_and_one_that_fell_silent_is_looked_for() {
        let moved = |handshake: Option<u64>, endpoints: &[&str]| {
            let mut seen = settled();
            let peer = &mut seen.tunnel.as_mut().unwrap().peers[0];
            peer.endpoint = Some("198.51.100.1:7".into());
            peer.last_handshake = handshake;
            let mut wanted = wanted();
            wanted.endpoints = endpoints
                .iter()
                .map(|e| WgEndpoint::read(e).unwrap())
                .collect();
            names(&steps(&wanted, &seen, NOW).unwrap())
        };
        assert!(moved(Some(NOW - 10), &["192.0.2.9:51820"]).is_empty());
        assert_eq!(
            moved(Some(NOW - 301), &["192.0.2.9:51820"]),
            ["wg-set-peers"]
        );
        assert!(moved(None, &["192.0.2.9:51820", "198.51.100.1:7"]).is_empty());
        assert!(
            moved(None, &[]).is_empty(),
            "its name leads nowhere just now"
        );
    }

    #[test]
    fn an_endpoint_in_the_network_itself_is_none() {
        let found = [
            "192.0.2.9:1",
            "[2001:db8:b10c::9]:1",
            "[2001:db8::9]:1",
            "192.0.2.9:1",
        ];
        let found = found.iter().map(|text| WgEndpoint::read(text).unwrap());
        let list: Vec<String> = usable(wanted().prefix, found)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(list, ["192.0.2.9:1", "[2001:db8::9]:1"]);
    }

    proptest! {
        #[test]
        fn what_the_broker_may_have_is_everything_of_its_kind_but_the_network(bits: u128, address: u128, length in 32..=120_u8, local: bool, near in 0..=128_u32) {
            let kind = |bits: u128| if local { bits << 7 >> 7 | 0xfc << 120 } else { bits << 3 >> 3 | 1 << 125 };
            let network = kind(bits) >> (128 - length) << (128 - length);
            let prefix: MachinePrefix = format!("{}/{length}", Ipv6Addr::from_bits(network)).parse().unwrap();
            let list = beyond(prefix);
            prop_assert!(list.len() <= 512);
            let inside = |address: u128| list.iter().filter(|net| {
                let (net, length) = net.split_once('/').unwrap();
                let (net, length): (Ipv6Addr, u32) = (net.parse().unwrap(), length.parse().unwrap());
                (net.to_bits() ^ address).checked_shr(128 - length).unwrap_or(0) == 0
            }).count();
            // Also addresses that have much in common with the network.
            let mixed = address.checked_shr(near).unwrap_or(0) ^ network;
            for address in [kind(address), kind(mixed)] {
                let own = prefix.contains(Ipv6Addr::from_bits(address));
                prop_assert_eq!(inside(address), usize::from(!own));
            }
        }
    }
}
