//! From the peers that a tunnel has to those it should have: what to tell the device, and nothing about peers that stay
//! as they are, so that their sessions go on. Pure.

use std::net::SocketAddr;

use blockhost_proto::value::{Keepalive, WgKey, WgPeer};
use zeroize::Zeroize;

use blockhost_netlink::wireguard::{Device, Network, Peer, PeerChange};

/// A peer as it should be, its shared key decided.
pub(super) struct Wanted {
    public_key: [u8; 32],
    preshared: [u8; 32],
    endpoint: Option<SocketAddr>,
    keepalive: u16,
    allowed_ips: Vec<Network>,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.preshared.zeroize();
    }
}

impl Wanted {
    pub(super) fn new(peer: &WgPeer, preshared: Option<WgKey>) -> Self {
        let mut allowed_ips: Vec<Network> = peer
            .allowed_ips
            .iter()
            .map(|network| (network.address(), network.length()))
            .collect();
        allowed_ips.sort_unstable();
        Self {
            public_key: *peer.public_key.bytes(),
            preshared: preshared.map_or([0; 32], |key| *key.bytes()),
            endpoint: peer.endpoint.map(|endpoint| endpoint.socket()),
            keepalive: peer.keepalive.map_or(0, Keepalive::get),
            allowed_ips,
        }
    }

    /// What turns `present` into this; `None` when it is so already.
    fn change(&self, present: Option<&Peer>) -> Option<PeerChange> {
        let nobody = Peer {
            public_key: self.public_key,
            preshared: [0; 32],
            endpoint: None,
            keepalive: 0,
            allowed_ips: Vec::new(),
            last_handshake_s: 0,
            rx_bytes: 0,
            tx_bytes: 0,
        };
        let old = present.unwrap_or(&nobody);
        let change = PeerChange {
            preshared: (self.preshared != old.preshared).then_some(self.preshared),
            // A peer that moved is left where it was last heard of unless another place is asked for.
            endpoint: self.endpoint.filter(|new| old.endpoint != Some(*new)),
            keepalive: (self.keepalive != old.keepalive).then_some(self.keepalive),
            allowed_ips: (self.allowed_ips != old.allowed_ips).then(|| self.allowed_ips.clone()),
            public_key: self.public_key,
            remove: false,
        };
        (present.is_none() || change != PeerChange::of(self.public_key)).then_some(change)
    }
}

/// What to tell the device: who goes first, then who comes or changes.
pub(super) fn changes(device: &Device, wanted: &[Wanted]) -> Vec<PeerChange> {
    let gone = device
        .peers
        .iter()
        .filter(|peer| wanted.iter().all(|new| new.public_key != peer.public_key))
        .map(|peer| PeerChange::removal(peer.public_key));
    let others = wanted.iter().filter_map(|new| {
        let present = device
            .peers
            .binary_search_by_key(&new.public_key, |peer| peer.public_key)
            .ok()
            .and_then(|at| device.peers.get(at));
        new.change(present)
    });
    gone.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(key: u8, networks: &[&str]) -> Wanted {
        Wanted {
            public_key: [key; 32],
            preshared: [9; 32],
            endpoint: Some("192.0.2.9:51820".parse().unwrap()),
            keepalive: 25,
            allowed_ips: networks
                .iter()
                .map(|text| (text.parse().unwrap(), 32))
                .collect(),
        }
    }

    fn device(peers: &[Wanted]) -> Device {
        let peers = peers
            .iter()
            .map(|new| Peer {
                public_key: new.public_key,
                preshared: new.preshared,
                endpoint: new.endpoint,
                keepalive: new.keepalive,
                allowed_ips: new.allowed_ips.clone(),
                last_handshake_s: 1,
                rx_bytes: 1,
                tx_bytes: 1,
            })
            .collect();
        Device {
            listen_port: 1,
            peers,
        }
    }

    #[test]
    fn a_peer_that_stays_is_not_told_anything() {
        let same = [wanted(1, &["10.0.0.1"]), wanted(2, &["10.0.0.2"])];
        assert!(changes(&device(&same), &same).is_empty());
    }

    #[test]
    fn one_goes_one_comes_one_changes_and_only_in_what_is_new() {
        let before = device(&[wanted(1, &["10.0.0.1"]), wanted(2, &["10.0.0.2"])]);
        let after = [wanted(2, &["10.0.0.3"]), wanted(3, &["10.0.0.1"])];
        let told = changes(&before, &after);
        assert_eq!(told.len(), 3);
        assert!(told[0].remove && told[0].public_key == [1; 32]);
        assert!(told[1].allowed_ips.is_some() && told[1].preshared.is_none());
        assert!(told[1].endpoint.is_none() && told[1].keepalive.is_none());
        assert!(told[2].preshared.is_some() && told[2].endpoint.is_some());
    }

    #[test]
    fn a_new_peer_without_anything_is_still_told() {
        let mut bare = wanted(1, &[]);
        bare.preshared = [0; 32];
        bare.endpoint = None;
        bare.keepalive = 0;
        let list = [bare];
        let told = changes(&Device::default(), &list);
        assert_eq!(told.len(), 1);
        assert!(!told[0].remove);
    }

    #[test]
    fn a_keepalive_and_a_shared_key_that_are_no_longer_wanted_are_taken_back() {
        let before = device(&[wanted(1, &["10.0.0.1"])]);
        let mut plain = wanted(1, &["10.0.0.1"]);
        plain.preshared = [0; 32];
        plain.keepalive = 0;
        let told = changes(&before, &[plain]);
        assert_eq!(
            (told[0].preshared, told[0].keepalive),
            (Some([0; 32]), Some(0))
        );
    }
}
