//! Frames that a guest might send, each with what has to become of it: for the tests of the rules here and for those that send
//! them through a kernel. Checksums are zero; nothing on the way looks at them.

use std::net::{Ipv4Addr, Ipv6Addr};

use blockhost_proto::qm::{IpConfig, MacAddress};

use super::Guard;

mod lists;

pub use lists::{of_only_v4, of_sold, of_unknown};

/// A frame and its fate.
#[derive(Debug, Clone)]
pub struct Frame {
    /// What it is.
    pub what: &'static str,
    /// The frame as it is sent.
    pub bytes: Vec<u8>,
    /// Whether it may pass.
    pub passes: bool,
}

/// The guest's hardware address.
pub const MAC: [u8; 6] = [0xbc, 0x24, 0x11, 0, 0, 1];
/// Its neighbour's.
pub const OTHER_MAC: [u8; 6] = [0xbc, 0x24, 0x11, 0, 0, 2];
/// `ipconfig0` of a machine that is sold.
pub const SOLD: &str = "ip=10.9.0.5/24,gw=10.9.0.1,ip6=fd09::5/128,gw6=fd09::1";
/// Of one that asks for its addresses.
pub const ASKS: &str = "ip=dhcp,ip6=auto";
/// Of one with addresses of one family alone.
pub const ONLY_V4: &str = "ip=10.9.0.5/24,gw=10.9.0.1";

const ALL: [u8; 6] = [0xff; 6];
const OWN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 5);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 6);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// The guard of a guest with this `ipconfigN`.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn guard(ip: &str) -> Guard {
    let (ip4, ip6) = IpConfig::read(ip)
        .map(|ip| (ip.ip4, ip.ip6))
        .unwrap_or_default();
    assert!(ip.is_empty() || ip4.is_some() || ip6.is_some(), "{ip}");
    Guard::new(MacAddress::new(MAC).expect("an address"), ip4, ip6)
}

fn ether(to: [u8; 6], from: [u8; 6], kind: u16, inside: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), inside].concat()
}

fn arp(operation: u16, mac: [u8; 6], from: Ipv4Addr, about: Ipv4Addr) -> Vec<u8> {
    let inside = [
        &[0, 1, 8, 0, 6, 4][..],
        &operation.to_be_bytes(),
        &mac,
        &from.octets(),
        &[0; 6],
        &about.octets(),
    ];
    ether(ALL, MAC, 0x0806, &inside.concat())
}

/// `piece`: flags and offset.
fn ipv4(from: Ipv4Addr, protocol: u8, piece: u16, options: &[u8], inside: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).expect("short");
    let length = u16::try_from(20 + options.len() + inside.len()).expect("short");
    let packet = [
        &[0x40 | words, 0][..],
        &length.to_be_bytes(),
        &[0, 7],
        &piece.to_be_bytes(),
        &[64, protocol, 0, 0],
        &from.octets(),
        &[255; 4],
        options,
        inside,
    ];
    ether(ALL, MAC, 0x0800, &packet.concat())
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [from, to, 16, 0]
        .map(u16::to_be_bytes)
        .concat()
        .into_iter()
        .chain([7; 8])
        .collect()
}

fn udp4(from: Ipv4Addr, port: u16, to: u16) -> Vec<u8> {
    ipv4(from, 17, 0, &[], &udp(port, to))
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

fn ipv6(from: &str, next: u8, hops: u8, inside: &[u8]) -> Vec<u8> {
    let length = u16::try_from(inside.len()).expect("short");
    let packet = [
        &[0x60, 0, 0, 0][..],
        &length.to_be_bytes(),
        &[next, hops],
        &v6(from).octets(),
        &v6("ff02::1").octets(),
        inside,
    ];
    ether([0x33, 0x33, 0, 0, 0, 1], MAC, 0x86dd, &packet.concat())
}

fn udp6(from: &str, port: u16, to: u16) -> Vec<u8> {
    ipv6(from, 17, 64, &udp(port, to))
}

fn icmp(from: &str, hops: u8, message: Vec<u8>) -> Vec<u8> {
    ipv6(from, 58, hops, &message)
}

/// Neighbour discovery as it has to be sent.
fn nd(from: &str, message: Vec<u8>) -> Vec<u8> {
    icmp(from, 255, message)
}

/// A message about groups, behind the option that asks routers to look.
fn groups(from: &str, kind: u8) -> Vec<u8> {
    let alert = [5, 2, 0, 0, 1, 0];
    ipv6(from, 0, 1, &behind(58, alert, &short(kind, &[])))
}

/// A message of neighbour discovery; an option by its kind and content.
fn discovery(kind: u8, about: &str, option: Option<(u8, [u8; 6])>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(v6(about).octets());
    if let Some((kind, content)) = option {
        message.extend([kind, 1]);
        message.extend(content);
    }
    message
}

/// Router solicitation or the like: a short message, and an option.
fn short(kind: u8, option: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], option].concat()
}

fn advertised_router() -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8];
    message.extend([0; 8]);
    message
}

/// Something behind a header of IPv6 that is 8 bytes long.
fn behind(next: u8, rest: [u8; 6], inside: &[u8]) -> Vec<u8> {
    [&[next, 0][..], &rest, inside].concat()
}

fn behind_options(message: &[u8]) -> Vec<u8> {
    behind(58, [1, 4, 0, 0, 0, 0], message)
}

fn piece(next: u8, offset: u16, inside: &[u8]) -> Vec<u8> {
    [&[next, 0][..], &offset.to_be_bytes(), &[0, 0, 0, 7], inside].concat()
}

/// The guest's own link-local address, another one, the router's, and none.
const LOCAL: &str = "fe80::be24:11ff:fe00:1";
const STABLE: &str = "fe80::1234:5678:9abc:def0";
const ROUTER_LOCAL: &str = "fe80::1";
const NOBODY: &str = "::";
