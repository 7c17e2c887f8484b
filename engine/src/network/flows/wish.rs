//! What people ask of a switch that no switch does, and where it is done instead: an honest no by type, found by the
//! keys and words that such wishes are written with.

use std::fmt;

/// A wish that OpenFlow cannot fulfil.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Packets held back, evenly or at random.
    Delay,
    /// Packets cut into smaller ones.
    Fragment,
    /// An action that lets a packet pass whatever comes later.
    Allow,
    /// A rate as a field of the packet.
    Rate,
    /// Largest packet of a link.
    Mtu,
    /// Largest segment that the ends of a connection agree on.
    Mss,
    /// Translation of IPv6 addresses.
    NatIpv6,
}

const KEYS: [(&str, Wish); 15] = [
    ("delay", Wish::Delay),
    ("delay_ms", Wish::Delay),
    ("jitter", Wish::Delay),
    ("jitter_ms", Wish::Delay),
    ("timing", Wish::Delay),
    ("fragment", Wish::Fragment),
    ("fragment_bytes", Wish::Fragment),
    ("allow", Wish::Allow),
    ("permit", Wish::Allow),
    ("rate_limit", Wish::Rate),
    ("mtu", Wish::Mtu),
    ("mss", Wish::Mss),
    ("mss_clamp", Wish::Mss),
    ("source6", Wish::NatIpv6),
    ("nat66", Wish::NatIpv6),
];

impl Wish {
    /// The wish behind a key or word, if it is one.
    #[must_use]
    pub fn of_key(key: &str) -> Option<Self> {
        KEYS.iter()
            .find(|(known, _)| *known == key)
            .map(|(_, wish)| *wish)
    }

    /// Why not, and what to do instead.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::Delay => {
                "a switch cannot delay packets: OpenFlow has no such action. Where the kernel has it, netem on the port does (`tc qdisc add dev PORT root netem delay 20ms 5ms`), and every packet of the port pays for it"
            }
            Self::Fragment => {
                "a switch cannot fragment packets: OpenFlow has no such action. A smaller MTU inside the container makes smaller packets; `fragments` says what happens to those that arrive in pieces"
            }
            Self::Allow => {
                "there is no action that allows: a packet passes when it reaches an output. Say which connections may begin, under `in.accept` and `out.accept`"
            }
            Self::Rate => {
                "a rate is no field of a packet: it is a meter. Say it under `rate` of a container or under `limits` of the bridge"
            }
            Self::Mtu => {
                "flows do not change the size of packets: the MTU belongs to the bridge (`mtu` of `ovs-add-br`) and to the container's interface (`mtu` of `net0`)"
            }
            Self::Mss => {
                "flows cannot rewrite TCP options: clamp the MSS where the packets are routed (nft: `tcp option maxseg size set rt mtu`), or set the MTU of the container's interface"
            }
            Self::NatIpv6 => {
                "a switch cannot answer neighbour solicitations for a translated IPv6 address: give the container an address of its own, or use `nat-map`, which answers for it"
            }
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why())
    }
}
