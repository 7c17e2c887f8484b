//! The rules as one question about a frame: may it pass? What is not named is dropped. Offsets are from the beginning of the
//! frame; every header that anything is read of has its fixed length there, and one of another length is not let pass.

use std::net::{Ipv4Addr, Ipv6Addr};

use blockhost_proto::qm::MacAddress;
use blockhost_proto::routing;

use super::program::{Size, Test};
use super::{Guard, Has};

const ETHER_TO: u32 = 0;
const ETHER_FROM: u32 = 6;
const ETHER_TYPE: u32 = 12;
const ARP: u32 = 0x0806;
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;

const ARP_KINDS: u32 = 14;
const ARP_OPERATION: u32 = 20;
const ARP_FROM_ETHER: u32 = 22;
const ARP_FROM: u32 = 28;
const ARP_ABOUT: u32 = 38;

const V4_FIRST: u32 = 14;
const V4_PIECE: u32 = 20;
const V4_PROTOCOL: u32 = 23;
const V4_FROM: u32 = 26;
const V4_TO: u32 = 30;
/// Behind a header without options, and behind one with the option that asks routers to look (RFC 2113).
const V4_INSIDE: [(u32, u32); 2] = [(0x45, 34), (0x46, 38)];

const V6_FIRST: u32 = 14;
const V6_LENGTH: u32 = 18;
const V6_NEXT: u32 = 20;
const V6_HOPS: u32 = 21;
const V6_FROM: u32 = 22;
const V6_TO: u32 = 38;
const V6_INSIDE: u32 = 54;
/// The address that neighbour discovery is about.
const ND_ABOUT: u32 = V6_INSIDE + 8;

const ICMP: u32 = 1;
const IGMP: u32 = 2;
const UDP: u32 = 17;
const FRAGMENT: u32 = 44;
const ICMPV6: u32 = 58;
const HOP_BY_HOP: u32 = 0;
/// TCP, tunnels, DCCP, GRE, ESP, L2TP, SCTP, UDP-Lite: what no neighbour takes for neighbour discovery, DHCP or a router's word
/// (OSPF, VRRP, EIGRP, PIM are protocols of their own). Not the headers that something of the kind could hide behind.
const PLAIN: [u32; 9] = [6, 4, 33, 41, 47, 50, 115, 132, 136];
const DHCP_CLIENT: u32 = 68;
const DHCPV6_CLIENT: u32 = 546;
/// Joining and leaving groups. Asking who is in one makes a bridge send its asker everything.
const IGMP_REPORTS: [u32; 4] = [0x12, 0x16, 0x17, 0x22];
const MLD_REPORTS: [u32; 3] = [131, 132, 143];
/// Errors, echoes and time stamps. A redirect (5) and an advertised router (9) are a router's word.
const HARMLESS_V4: [u32; 7] = [0, 3, 8, 11, 12, 13, 14];
/// Errors and echoes.
const HARMLESS: [u32; 6] = [1, 2, 3, 4, 128, 129];
const ROUTER_SOLICIT: u32 = 133;
const SOLICIT: u32 = 135;
const ADVERT: u32 = 136;
const SOURCE_OPTION: u32 = 1;
const TARGET_OPTION: u32 = 2;
const NONCE_OPTION: u32 = 14;
/// The hop limit of neighbour discovery (RFC 4861): no router has passed it on.
const NEVER_ROUTED: u32 = 255;

fn masked(at: u32, size: Size, mask: u32, value: u32) -> Test {
    Test::Field {
        at,
        size,
        mask,
        value,
    }
}

fn byte(at: u32, value: u32) -> Test {
    masked(at, Size::Byte, 0xff, value)
}

fn half(at: u32, value: u32) -> Test {
    masked(at, Size::Half, 0xffff, value)
}

fn word(at: u32, value: u32) -> Test {
    masked(at, Size::Word, u32::MAX, value)
}

fn all<const N: usize>(tests: [Test; N]) -> Test {
    Test::All(tests.into())
}

fn any<const N: usize>(tests: [Test; N]) -> Test {
    Test::Any(tests.into())
}

fn not(test: Test) -> Test {
    Test::Not(Box::new(test))
}

fn mac(at: u32, mac: MacAddress) -> Test {
    let [a, b, c, d, e, f] = mac.bytes();
    all([
        word(at, u32::from_be_bytes([a, b, c, d])),
        half(at + 4, u32::from(u16::from_be_bytes([e, f]))),
    ])
}

fn v4(at: u32, address: Ipv4Addr) -> Test {
    word(at, address.to_bits())
}

fn v6(at: u32, address: Ipv6Addr) -> Test {
    let bits = address.to_bits();
    let part = |index: u8| {
        let word_of = (bits >> (96 - 32 * u32::from(index))) & u128::from(u32::MAX);
        word(
            at + 4 * u32::from(index),
            u32::try_from(word_of).unwrap_or(0),
        )
    };
    // What differs most comes first.
    all([part(3), part(2), part(1), part(0)])
}

/// The link-local address that a hardware address makes (RFC 4291, appendix A).
fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.bytes();
    let high = [0xfe, 0x80, 0, 0, 0, 0, 0, 0];
    let low = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Ipv6Addr::from_bits(
        u128::from(u64::from_be_bytes(high)) << 64 | u128::from(u64::from_be_bytes(low)),
    )
}

/// UDP at `at` that is no router's word to routers, and no answer to who asks for addresses at port `client`.
fn plain_udp(at: u32, to_many: &Test, client: u32) -> Test {
    let ports = |ports: &[u16]| {
        let each = ports.iter().map(|port| half(at + 2, u32::from(*port)));
        Test::Any(each.collect())
    };
    not(any([
        half(at + 2, client),
        ports(&routing::PORTS),
        all([to_many.clone(), ports(&routing::GROUP_PORTS)]),
    ]))
}

/// What a packet holds that no neighbour takes for DHCP's answers, neighbour discovery or a router's word; its kind at `next`,
/// itself at `at`.
fn harmless(next: u32, at: u32) -> Test {
    let to_group = byte(V6_TO, 0xff);
    any([
        any(PLAIN.map(|protocol| byte(next, protocol))),
        all([byte(next, UDP), plain_udp(at, &to_group, DHCPV6_CLIENT)]),
        all([byte(next, ICMPV6), any(HARMLESS.map(|kind| byte(at, kind)))]),
    ])
}

impl Guard {
    /// May it pass?
    pub(super) fn rules(&self) -> Test {
        // Spanning tree, pause frames and others of their kind (IEEE 802.1D): the host itself would take them.
        let reserved = all([
            word(ETHER_TO, 0x0180_c200),
            masked(ETHER_TO + 4, Size::Half, 0xfff0, 0),
        ]);
        all([
            not(Test::Tagged),
            mac(ETHER_FROM, self.mac),
            not(reserved),
            any([
                all([half(ETHER_TYPE, IPV4), self.ipv4()]),
                all([half(ETHER_TYPE, IPV6), self.ipv6()]),
                all([half(ETHER_TYPE, ARP), self.arp()]),
            ]),
        ])
    }

    fn arp(&self) -> Test {
        let sender = match self.v4 {
            Has::Unknown => all([]),
            Has::None => any([]),
            // Who asks whether an address is in use has none yet.
            Has::One(own) => any([
                v4(ARP_FROM, own),
                all([
                    half(ARP_OPERATION, 1),
                    v4(ARP_FROM, Ipv4Addr::UNSPECIFIED),
                    v4(ARP_ABOUT, own),
                ]),
            ]),
        };
        all([
            // Ethernet, IPv4 and the lengths of their addresses.
            word(ARP_KINDS, 0x0001_0800),
            half(ARP_KINDS + 4, 0x0604),
            any([half(ARP_OPERATION, 1), half(ARP_OPERATION, 2)]),
            mac(ARP_FROM_ETHER, self.mac),
            sender,
        ])
    }

    fn ipv4(&self) -> Test {
        let source = match self.v4 {
            Has::Unknown => all([]),
            Has::None => any([]),
            Has::One(own) => v4(V4_FROM, own),
        };
        // Nobody puts it together without the first piece.
        let later_piece = not(masked(V4_PIECE, Size::Half, 0x1fff, 0));
        // Groups, and all on the link.
        let to_many = masked(V4_TO, Size::Byte, 0xe0, 0xe0);
        let (plain, inside) = V4_INSIDE[0];
        let reports = V4_INSIDE.map(|(first, inside)| {
            all([
                byte(V4_FIRST, first),
                any(IGMP_REPORTS.map(|kind| byte(inside, kind))),
            ])
        });
        all([
            masked(V4_FIRST, Size::Byte, 0xf0, 0x40),
            source,
            any([
                any(PLAIN.map(|protocol| byte(V4_PROTOCOL, protocol))),
                all([
                    any([ICMP, IGMP, UDP].map(|protocol| byte(V4_PROTOCOL, protocol))),
                    later_piece,
                ]),
                all([
                    byte(V4_PROTOCOL, UDP),
                    byte(V4_FIRST, plain),
                    plain_udp(inside, &to_many, DHCP_CLIENT),
                ]),
                all([
                    byte(V4_PROTOCOL, ICMP),
                    byte(V4_FIRST, plain),
                    any(HARMLESS_V4.map(|kind| byte(inside, kind))),
                ]),
                all([byte(V4_PROTOCOL, IGMP), any(reports)]),
            ]),
        ])
    }

    fn ipv6(&self) -> Test {
        let (own, own_or_none) = match self.v6 {
            Has::None => return any([]),
            Has::Unknown => (all([]), all([])),
            Has::One(_) => {
                let own = self.own(V6_FROM);
                let none = v6(V6_FROM, Ipv6Addr::UNSPECIFIED);
                (own.clone(), any([own, none]))
            }
        };
        let later_piece = not(masked(V6_INSIDE + 2, Size::Half, 0xfff8, 0));
        let pieces = any([later_piece, harmless(V6_INSIDE, V6_INSIDE + 8)]);
        all([
            masked(V6_FIRST, Size::Byte, 0xf0, 0x60),
            any([
                all([
                    own,
                    any([
                        harmless(V6_NEXT, V6_INSIDE),
                        all([byte(V6_NEXT, FRAGMENT), pieces]),
                    ]),
                ]),
                all([
                    own_or_none,
                    any([
                        all([byte(V6_NEXT, ICMPV6), self.neighbours()]),
                        // Joining groups, behind the option that asks routers to look.
                        all([
                            byte(V6_NEXT, HOP_BY_HOP),
                            half(V6_INSIDE, ICMPV6 << 8),
                            any(MLD_REPORTS.map(|kind| byte(V6_INSIDE + 8, kind))),
                        ]),
                    ]),
                ]),
            ]),
        ])
    }

    /// Neighbour discovery about itself. The sender is itself or, where that may be, nobody.
    fn neighbours(&self) -> Test {
        let is = |kind| all([byte(V6_INSIDE, kind), byte(V6_HOPS, NEVER_ROUTED)]);
        let about_itself = match self.v6 {
            Has::One(_) => self.own(ND_ABOUT),
            Has::Unknown | Has::None => all([]),
        };
        let nobody = v6(V6_FROM, Ipv6Addr::UNSPECIFIED);
        // Who asks whether its address is in use; a number that tells its question from others' (RFC 7527) may follow.
        let probe = all([
            nobody.clone(),
            about_itself.clone(),
            any([
                half(V6_LENGTH, 24),
                all([
                    half(V6_LENGTH, 32),
                    half(V6_INSIDE + 24, NONCE_OPTION << 8 | 1),
                ]),
            ]),
        ]);
        any([
            all([is(ROUTER_SOLICIT), self.only_option(8, SOURCE_OPTION)]),
            all([
                is(SOLICIT),
                any([
                    probe,
                    all([not(nobody.clone()), self.only_option(24, SOURCE_OPTION)]),
                ]),
            ]),
            all([
                is(ADVERT),
                not(nobody),
                about_itself,
                self.only_option(24, TARGET_OPTION),
            ]),
        ])
    }

    /// Nothing follows the first `length` bytes, or one option with its own hardware address.
    fn only_option(&self, length: u32, option: u32) -> Test {
        any([
            half(V6_LENGTH, length),
            all([
                half(V6_LENGTH, length + 8),
                half(V6_INSIDE + length, option << 8 | 1),
                mac(V6_INSIDE + length + 2, self.mac),
            ]),
        ])
    }

    fn own(&self, at: u32) -> Test {
        match self.v6 {
            Has::One(address) => any([v6(at, address), v6(at, link_local(self.mac))]),
            Has::Unknown => all([]),
            Has::None => any([]),
        }
    }
}

#[cfg(test)]
mod tests {
    use blockhost_netlink::guard::{DROP, GO_ON, Instruction};

    use super::super::frames::{self, ASKS, Frame, MAC, ONLY_V4, SOLD, guard};
    use super::super::program::{compile, tests::run};
    use super::*;

    fn program(ip: &str) -> Vec<Instruction> {
        compile(&guard(ip).rules()).unwrap()
    }

    /// What becomes of a frame; the kernel takes a tag out before it asks.
    fn verdict(program: &[Instruction], frame: &[u8]) -> u32 {
        match frame.get(12..14) {
            Some([0x81, 0] | [0x88, 0xa8]) if frame.len() >= 16 => {
                run(program, &[&frame[..12], &frame[16..]].concat(), true)
            }
            _ => run(program, frame, false),
        }
    }

    fn check(ip: &str, frames: &[Frame]) {
        let program = program(ip);
        for frame in frames {
            let expected = if frame.passes { GO_ON } else { DROP };
            let found = verdict(&program, &frame.bytes);
            assert_eq!(found, expected, "{ip}: {}: {:x?}", frame.what, frame.bytes);
        }
    }

    #[test]
    fn a_guest_sends_what_is_its_own_and_nothing_else() {
        check(SOLD, &frames::of_sold());
    }

    #[test]
    fn a_guest_of_unknown_addresses_is_held_to_its_hardware_address_and_is_no_router_and_no_server()
    {
        check(ASKS, &frames::of_unknown());
        check("", &frames::of_unknown());
    }

    #[test]
    fn a_guest_with_addresses_of_one_family_has_none_of_the_other() {
        check(ONLY_V4, &frames::of_only_v4());
        let program = program("ip6=fd09::5/128");
        for frame in frames::of_sold() {
            let v6 = frame.bytes.get(12..14) == Some(&[0x86, 0xdd]);
            let expected = if frame.passes && v6 { GO_ON } else { DROP };
            assert_eq!(verdict(&program, &frame.bytes), expected, "{}", frame.what);
        }
    }

    #[test]
    fn no_part_of_a_frame_that_may_not_pass_passes_and_none_ends_the_program_early() {
        for ip in [SOLD, ASKS, ONLY_V4, ""] {
            let program = program(ip);
            for frame in [
                frames::of_sold(),
                frames::of_unknown(),
                frames::of_only_v4(),
            ]
            .concat()
            {
                let whole = verdict(&program, &frame.bytes);
                for length in 0..frame.bytes.len() {
                    let found = verdict(&program, &frame.bytes[..length]);
                    assert!(
                        found == DROP || found == GO_ON && whole == GO_ON,
                        "{ip}: {} cut to {length}",
                        frame.what
                    );
                }
            }
        }
    }

    #[test]
    fn the_program_fits_and_the_link_local_address_is_that_of_the_hardware_address() {
        // The kernel takes 4096 (BPF_MAXINSNS).
        assert!(program(SOLD).len() < 2048, "{}", program(SOLD).len());
        let local = link_local(MacAddress::new(MAC).unwrap());
        assert_eq!(local, "fe80::be24:11ff:fe00:1".parse::<Ipv6Addr>().unwrap());
    }
}
