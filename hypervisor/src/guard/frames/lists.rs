//! The frames themselves.

use super::*;

/// A list as it grows.
#[derive(Default)]
struct List(Vec<Frame>);

impl List {
    fn may(&mut self, what: &'static str, bytes: Vec<u8>) {
        let passes = true;
        self.0.push(Frame {
            what,
            bytes,
            passes,
        });
    }

    fn not(&mut self, what: &'static str, bytes: Vec<u8>) {
        let passes = false;
        self.0.push(Frame {
            what,
            bytes,
            passes,
        });
    }
}

/// Frames of a guest that has [`SOLD`] addresses.
#[must_use]
pub fn of_sold() -> Vec<Frame> {
    let mut list = List::default();
    packets_v4(&mut list);
    arps(&mut list);
    packets_v6(&mut list);
    neighbours(&mut list);
    others(&mut list);
    list.0
}

fn packets_v4(list: &mut List) {
    list.may("a packet of its own", udp4(OWN, 5000, 53));
    let mut foreign = udp4(OWN, 5000, 53);
    foreign[6..12].copy_from_slice(&OTHER_MAC);
    list.not("under a neighbour's hardware address", foreign);
    let mut reserved = udp4(OWN, 5000, 53);
    reserved[..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0]);
    list.not("to the bridges themselves", reserved);
    list.may("TCP", ipv4(OWN, 6, 0, &[], &[7; 20]));
    list.may("a ping", ipv4(OWN, 1, 0, &[], &[8, 0, 0, 0]));
    list.may(
        "the later piece of a packet",
        ipv4(OWN, 17, 185, &[], &udp(1, 68)),
    );
    list.may(
        "the first piece",
        ipv4(OWN, 17, 0x2000, &[], &udp(5000, 53)),
    );
    list.not("from a neighbour's address", udp4(OTHER, 5000, 53));
    list.not("from the router's", ipv4(ROUTER, 6, 0, &[], &[7; 20]));
    list.not("from none", ipv4(NONE, 6, 0, &[], &[7; 20]));
    list.not(
        "a later piece from a neighbour's",
        ipv4(OTHER, 17, 185, &[], &udp(1, 2)),
    );
    list.not(
        "asking for addresses though it has some",
        udp4(NONE, 68, 67),
    );
    list.may("renewing what it has", udp4(OWN, 68, 67));
    list.not("giving out addresses", udp4(OWN, 67, 68));
    list.not("the same from another port", udp4(OWN, 5000, 68));
    list.not(
        "the same as a first piece",
        ipv4(OWN, 17, 0x2000, &[], &udp(67, 68)),
    );
    list.not(
        "the same behind an option",
        ipv4(OWN, 17, 0, &[1; 4], &udp(67, 68)),
    );
    list.may(
        "joining a group",
        ipv4(OWN, 2, 0, &[0x94, 4, 0, 0], &[0x22; 8]),
    );
    list.may(
        "joining a group, without the option",
        ipv4(OWN, 2, 0, &[], &[0x16; 8]),
    );
    list.not("asking who is in a group", ipv4(OWN, 2, 0, &[], &[0x11; 8]));
    list.not(
        "the same behind the option",
        ipv4(OWN, 2, 0, &[0x94, 4, 0, 0], &[0x11; 8]),
    );
    routers_v4(list);
    let mut version = udp4(OWN, 5000, 53);
    version[14] = 0x65;
    list.not("another version than its kind", version);
}

fn routers_v4(list: &mut List) {
    for (protocol, what) in [
        (103, "calling itself a router of groups"),
        (112, "taking over the router's address (VRRP)"),
        (89, "saying where networks are (OSPF)"),
        (88, "saying where networks are (EIGRP)"),
        (51, "something behind authentication"),
        (0, "a protocol that nobody knows"),
    ] {
        list.not(what, ipv4(OWN, protocol, 0, &[], &[0x20; 8]));
    }
    list.not(
        "a later piece of VRRP",
        ipv4(OWN, 112, 185, &[], &[0x20; 8]),
    );
    let redirect = [5, 1, 0, 0, 10, 9, 0, 5];
    list.not("leading others elsewhere", ipv4(OWN, 1, 0, &[], &redirect));
    list.not(
        "the same behind an option",
        ipv4(OWN, 1, 0, &[1; 4], &redirect),
    );
    list.not(
        "advertising a router",
        ipv4(OWN, 1, 0, &[], &[9, 0, 0, 0, 1, 2, 7, 8]),
    );
    list.may("an error", ipv4(OWN, 1, 0, &[], &[3, 3, 0, 0, 0, 0, 0, 0]));
    list.may(
        "the later piece of a long ping",
        ipv4(OWN, 1, 185, &[], &redirect),
    );
    let alone = |mut frame: Vec<u8>| {
        frame[30..34].copy_from_slice(&ROUTER.octets());
        frame
    };
    list.not("saying where networks are (RIP)", udp4(OWN, 520, 520));
    list.not("the same to the router alone", alone(udp4(OWN, 5000, 520)));
    list.not(
        "the same as a first piece",
        ipv4(OWN, 17, 0x2000, &[], &udp(520, 520)),
    );
    list.not(
        "taking over the router's address (HSRP)",
        udp4(OWN, 1985, 1985),
    );
    list.may(
        "an answer to a client of that port",
        alone(udp4(OWN, 53, 1985)),
    );
}

fn arps(list: &mut List) {
    list.may("asking for the router", arp(1, MAC, OWN, ROUTER));
    list.may("answering for itself", arp(2, MAC, OWN, ROUTER));
    list.may("telling all where it is", arp(1, MAC, OWN, OWN));
    list.may("asking whether its address is free", arp(1, MAC, NONE, OWN));
    list.not(
        "asking whether a neighbour's is free",
        arp(1, MAC, NONE, OTHER),
    );
    list.not("an answer from no address", arp(2, MAC, NONE, OWN));
    list.not("answering for the router", arp(2, MAC, ROUTER, OTHER));
    list.not("asking in the router's name", arp(1, MAC, ROUTER, ROUTER));
    list.not("answering for a neighbour", arp(2, MAC, OTHER, ROUTER));
    list.not(
        "leading its address elsewhere",
        arp(2, OTHER_MAC, OWN, ROUTER),
    );
    list.not("another operation", arp(3, MAC, OWN, OWN));
    let mut lengths = arp(2, MAC, OWN, ROUTER);
    lengths[18] = 5;
    list.not("addresses of other lengths", lengths);
}

fn packets_v6(list: &mut List) {
    list.may("IPv6 of its own", udp6("fd09::5", 5000, 53));
    list.may(
        "TCP from its link-local address",
        ipv6(LOCAL, 6, 64, &[7; 20]),
    );
    list.may("an echo", icmp("fd09::5", 64, short(128, &[])));
    list.not("from a neighbour's", udp6("fd09::6", 5000, 53));
    list.not(
        "from one that differs in its first bits",
        ipv6("fd0a::5", 6, 64, &[7; 20]),
    );
    list.not(
        "from the router's link-local address",
        ipv6(ROUTER_LOCAL, 6, 64, &[7; 20]),
    );
    list.not(
        "from a link-local address of its choice",
        ipv6(STABLE, 6, 64, &[7; 20]),
    );
    list.not("from none", ipv6(NOBODY, 6, 64, &[7; 20]));
    list.not("advertising a router", nd(LOCAL, advertised_router()));
    list.not(
        "the same under its address",
        nd("fd09::5", advertised_router()),
    );
    list.not(
        "the same in the router's name",
        nd(ROUTER_LOCAL, advertised_router()),
    );
    for (header, what) in [
        (0, "the same behind options for all"),
        (60, "the same behind options"),
        (43, "the same behind a route"),
    ] {
        list.not(
            what,
            ipv6(LOCAL, header, 255, &behind_options(&advertised_router())),
        );
    }
    list.not(
        "the same as one piece",
        ipv6(LOCAL, 44, 255, &piece(58, 0, &advertised_router())),
    );
    list.not(
        "the first piece of the same behind options",
        ipv6(LOCAL, 44, 255, &piece(60, 1, &behind_options(&[]))),
    );
    list.not(
        "leading others elsewhere",
        nd(LOCAL, discovery(137, "fd09::6", None)),
    );
    list.may(
        "the first piece of UDP",
        ipv6("fd09::5", 44, 64, &piece(17, 1, &udp(5000, 53))),
    );
    list.may(
        "the later piece",
        ipv6("fd09::5", 44, 64, &piece(17, 1448, &udp(1, 546))),
    );
    list.may(
        "the first piece of a long echo",
        ipv6("fd09::5", 44, 64, &piece(58, 1, &short(128, &[]))),
    );
    list.not(
        "a piece from a neighbour's",
        ipv6("fd09::6", 44, 64, &piece(17, 1448, &udp(1, 2))),
    );
    routers_v6(list);
    list.not("giving out addresses in IPv6", udp6(LOCAL, 547, 546));
    list.not("the same from another port", udp6("fd09::5", 5000, 546));
    list.not(
        "the same as a first piece",
        ipv6(LOCAL, 44, 64, &piece(17, 1, &udp(547, 546))),
    );
    let mut version = udp6("fd09::5", 5000, 53);
    version[14] = 0x40;
    list.not("another version than its kind", version);
}

fn routers_v6(list: &mut List) {
    for (protocol, what) in [
        (103, "calling itself a router of groups, in IPv6"),
        (112, "taking over the router's address (VRRP)"),
        (89, "saying where networks are (OSPF)"),
        (88, "saying where networks are (EIGRP)"),
    ] {
        list.not(what, ipv6(LOCAL, protocol, 255, &[0x20; 8]));
    }
    list.not("saying where networks are (RIPng)", udp6(LOCAL, 521, 521));
    list.not("the same (Babel)", udp6(LOCAL, 6696, 6696));
    list.not(
        "the same as a first piece",
        ipv6(LOCAL, 44, 64, &piece(17, 1, &udp(6696, 6696))),
    );
    list.not("taking over the router's address", udp6(LOCAL, 2029, 2029));
    let mut alone = udp6("fd09::5", 53, 6696);
    alone[38..54].copy_from_slice(&v6("fd09::1").octets());
    list.may("an answer to a client of that port, in IPv6", alone);
}

fn neighbours(list: &mut List) {
    let mine = Some((2, MAC));
    list.may(
        "advertising itself",
        nd("fd09::5", discovery(136, "fd09::5", mine)),
    );
    list.may(
        "the same without its hardware address",
        nd("fd09::5", discovery(136, "fd09::5", None)),
    );
    list.may(
        "its link-local address",
        nd(LOCAL, discovery(136, LOCAL, mine)),
    );
    list.not(
        "advertising a neighbour",
        nd("fd09::5", discovery(136, "fd09::6", mine)),
    );
    list.not(
        "advertising the router",
        nd(LOCAL, discovery(136, ROUTER_LOCAL, mine)),
    );
    list.not(
        "in the router's name",
        nd(ROUTER_LOCAL, discovery(136, ROUTER_LOCAL, mine)),
    );
    list.not(
        "leading its address elsewhere",
        nd("fd09::5", discovery(136, "fd09::5", Some((2, OTHER_MAC)))),
    );
    list.not(
        "advertising itself from afar",
        icmp("fd09::5", 64, discovery(136, "fd09::5", mine)),
    );
    list.not(
        "advertising from no address",
        nd(NOBODY, discovery(136, "fd09::5", mine)),
    );
    let mut two = discovery(136, "fd09::5", mine);
    two.extend([2, 1, 0xbc, 0x24, 0x11, 0, 0, 2]);
    list.not(
        "a second option with another hardware address",
        nd("fd09::5", two),
    );
    list.not(
        "advertising a neighbour behind options",
        ipv6(
            "fd09::5",
            60,
            255,
            &behind_options(&discovery(136, "fd09::6", mine)),
        ),
    );
    list.may(
        "asking for the router",
        nd("fd09::5", discovery(135, "fd09::1", Some((1, MAC)))),
    );
    list.may(
        "the same from its link-local address",
        nd(LOCAL, discovery(135, ROUTER_LOCAL, Some((1, MAC)))),
    );
    list.not(
        "asking in a neighbour's name",
        nd("fd09::6", discovery(135, "fd09::1", Some((1, MAC)))),
    );
    list.not(
        "asking with a neighbour's hardware address",
        nd("fd09::5", discovery(135, "fd09::1", Some((1, OTHER_MAC)))),
    );
    list.may(
        "asking whether its address is free",
        nd(NOBODY, discovery(135, "fd09::5", None)),
    );
    list.may(
        "the same with a number",
        nd(NOBODY, discovery(135, LOCAL, Some((14, [7; 6])))),
    );
    list.not(
        "asking whether a neighbour's is free",
        nd(NOBODY, discovery(135, "fd09::6", None)),
    );
    list.may(
        "asking for routers",
        nd(LOCAL, short(133, &[1, 1, 0xbc, 0x24, 0x11, 0, 0, 1])),
    );
    list.may("the same from no address", nd(NOBODY, short(133, &[])));
    list.not(
        "the same with a neighbour's hardware address",
        nd(LOCAL, short(133, &[1, 1, 0xbc, 0x24, 0x11, 0, 0, 2])),
    );
    list.may("joining groups", groups(LOCAL, 143));
    list.may("the same from no address", groups(NOBODY, 143));
    list.not("the same from a neighbour's", groups("fd09::6", 143));
    list.not("asking who is in a group", groups(LOCAL, 130));
    list.not(
        "the same without the option",
        icmp(LOCAL, 1, short(130, &[])),
    );
    list.not(
        "calling itself a router of groups",
        icmp(LOCAL, 1, short(151, &[])),
    );
}

fn others(list: &mut List) {
    let tagged = |kind: u16, tag: u16| {
        let frame = udp4(OWN, 5000, 53);
        [
            &frame[..12],
            &kind.to_be_bytes(),
            &tag.to_be_bytes(),
            &frame[12..],
        ]
        .concat()
    };
    list.not("with a VLAN tag", tagged(0x8100, 7));
    list.not(
        "with a tag that is a priority alone",
        tagged(0x8100, 0xe000),
    );
    list.not("with a provider's tag", tagged(0x88a8, 7));
    let twice = tagged(0x8100, 7);
    list.not(
        "with two tags",
        [&twice[..12], &[0x81, 0, 0, 8], &twice[12..]].concat(),
    );
    list.not("LLDP", ether(ALL, MAC, 0x88cc, &[7; 46]));
    list.not(
        "spanning tree",
        ether(ALL, MAC, 38, &[0x42, 0x42, 3, 0, 0, 0, 0, 0, 0, 0]),
    );
    // The old framing (RFC 1042), which receivers take off.
    let hidden = nd(LOCAL, advertised_router());
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0][..], &hidden[12..]].concat();
    let length = u16::try_from(snap.len()).expect("short");
    let framed = ether(ALL, MAC, length, &snap);
    list.not("advertising a router in another framing", framed);
    list.not("PPPoE", ether(ALL, MAC, 0x8863, &[7; 46]));
    list.not("RARP", ether(ALL, MAC, 0x8035, &[7; 46]));
    list.not("a key exchange", ether(ALL, MAC, 0x888e, &[7; 46]));
}

/// Frames of a guest that [`ASKS`] for its addresses, or of whose addresses nothing is said.
#[must_use]
pub fn of_unknown() -> Vec<Frame> {
    let mut list = List::default();
    list.may("asking for addresses", udp4(NONE, 68, 67));
    list.may("what it got", ipv4(OTHER, 6, 0, &[], &[7; 20]));
    list.may("answering for it", arp(2, MAC, OTHER, ROUTER));
    list.not(
        "answering with another's hardware address",
        arp(2, OTHER_MAC, OTHER, ROUTER),
    );
    list.not("giving out addresses", udp4(OTHER, 67, 68));
    list.may(
        "asking for addresses in IPv6",
        ipv6(STABLE, 17, 1, &udp(546, 547)),
    );
    list.may("what it chose", ipv6("fd09::1234", 6, 64, &[7; 20]));
    list.may(
        "asking whether it is free",
        nd("::", discovery(135, "fd09::1234", None)),
    );
    list.may(
        "advertising it",
        ipv6(
            "fd09::1234",
            58,
            255,
            &discovery(136, "fd09::1234", Some((2, MAC))),
        ),
    );
    list.not(
        "advertising it elsewhere",
        ipv6(
            "fd09::1234",
            58,
            255,
            &discovery(136, "fd09::1234", Some((2, OTHER_MAC))),
        ),
    );
    list.not("advertising a router", nd(STABLE, advertised_router()));
    list.not(
        "the same behind options",
        ipv6(STABLE, 60, 255, &behind_options(&advertised_router())),
    );
    list.not("giving out addresses in IPv6", udp6(STABLE, 547, 546));
    list.not("LLDP", ether(ALL, MAC, 0x88cc, &[7; 46]));
    list.0
}

/// Frames of a guest that has [`ONLY_V4`].
#[must_use]
pub fn of_only_v4() -> Vec<Frame> {
    let mut list = List::default();
    list.may("a packet of its own", udp4(OWN, 5000, 53));
    list.not("IPv6, which it has not", udp6(LOCAL, 5000, 53));
    list.not(
        "advertising itself",
        nd(LOCAL, discovery(136, LOCAL, Some((2, MAC)))),
    );
    list.0
}
