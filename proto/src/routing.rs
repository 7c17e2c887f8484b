//! What routers tell one another, and hosts believe: who takes over an address, where networks are. Nobody who rents a machine
//! or container has a say in that; whoever holds their interfaces to their own drops it.

/// IP protocols that carry nothing else (IANA's list of protocol numbers): IGRP, EIGRP (RFC 7868), OSPF (RFC 2328, RFC 5340),
/// PIM (RFC 7761), VRRP and CARP (RFC 9568).
pub const PROTOCOLS: [u8; 5] = [9, 88, 89, 103, 112];

/// Kinds of ICMP that lead elsewhere: redirect (RFC 792), router advertisement (RFC 1256). Those of IPv6 are neighbour
/// discovery's.
pub const ICMP_KINDS: [u8; 2] = [5, 9];

/// UDP ports that nobody's answer is for: RIP (RFC 2453), RIPng (RFC 2080), LDP (RFC 5036), OLSR (RFC 3626).
pub const PORTS: [u16; 4] = [520, 521, 646, 698];

/// UDP ports that are a router's where packets go to groups or to all, and may be a client's own elsewhere: HSRP (RFC 2281) and
/// that of IPv6, GLBP, Babel (RFC 8966).
pub const GROUP_PORTS: [u16; 4] = [1985, 2029, 3222, 6696];
