//! Translation, interface names, devices and routes. Tunnels are in `tunnel`.

use super::values::{NOT_A_DEVICE, NOT_A_VMID};
use super::{Hostile, action};

const PARAMS: &[(&str, &str, &str)] = &[
    (
        "two families",
        "nat-map",
        r#"{"public":"203.0.113.7","private":"fd00::7","comment":"a"}"#,
    ),
    (
        "one address twice",
        "nat-map",
        r#"{"public":"203.0.113.7","private":"203.0.113.7","comment":"a"}"#,
    ),
    (
        "no comment",
        "nat-map",
        r#"{"public":"203.0.113.7","private":"10.0.0.7"}"#,
    ),
    (
        "a rule in the comment",
        "nat-map",
        r#"{"public":"203.0.113.7","private":"10.0.0.7","comment":"a\n-A INPUT -j ACCEPT"}"#,
    ),
    (
        "an option in the comment",
        "nat-unmap",
        r#"{"public":"203.0.113.7","private":"10.0.0.7","comment":"--jump"}"#,
    ),
    (
        "no private address",
        "nat-unmap",
        r#"{"public":"203.0.113.7","comment":"a"}"#,
    ),
    (
        "a port besides",
        "nat-map",
        r#"{"public":"203.0.113.7","private":"10.0.0.7","comment":"a","port":22}"#,
    ),
    ("a filter", "nat-list", r#"{"public":"203.0.113.7"}"#),
    ("a table", "iptables-list", r#"{"table":"nat"}"#),
    ("no list", "iptables-set", r#"{}"#),
    (
        "an object in place of a list",
        "iptables-set",
        r#"{"rules":{"port":22,"comment":"a"}}"#,
    ),
    (
        "one port twice",
        "iptables-set",
        r#"{"rules":[{"port":22,"comment":"a"},{"port":22,"comment":"a","proto":"tcp"}]}"#,
    ),
    (
        "a rule in the comment of one of several",
        "iptables-set",
        r#"{"rules":[{"port":22,"comment":"a"},{"port":23,"comment":"a\n-A INPUT -j ACCEPT"}]}"#,
    ),
    (
        "another verdict",
        "iptables-set",
        r#"{"rules":[{"port":22,"comment":"a","target":"DROP"}]}"#,
    ),
    (
        "a chain besides",
        "iptables-set",
        r#"{"rules":[],"chain":"INPUT"}"#,
    ),
    (
        "one public address twice",
        "nat-set",
        r#"{"pairs":[{"public":"203.0.113.7","private":"10.0.0.7","comment":"a"},{"public":"203.0.113.7","private":"10.0.0.8","comment":"a"}]}"#,
    ),
    (
        "a pair of two families",
        "nat-set",
        r#"{"pairs":[{"public":"203.0.113.7","private":"fd00::7","comment":"a"}]}"#,
    ),
    (
        "an option in a comment",
        "nat-set",
        r#"{"pairs":[{"public":"203.0.113.7","private":"10.0.0.7","comment":"-F"}]}"#,
    ),
    (
        "a network",
        "proxy-set",
        r#"{"address":"203.0.113.0/24","dev":"eth0","behind":"ovsbr0"}"#,
    ),
    (
        "one device twice",
        "proxy-set",
        r#"{"address":"203.0.113.7","dev":"eth0","behind":"eth0"}"#,
    ),
    (
        "no device behind",
        "proxy-set",
        r#"{"address":"203.0.113.7","dev":"eth0"}"#,
    ),
    (
        "a path for a device",
        "proxy-set",
        r#"{"address":"203.0.113.7","dev":"../all","behind":"ovsbr0"}"#,
    ),
    (
        "everything hidden",
        "masquerade-set",
        r#"{"dev":"wg0","networks":["0.0.0.0/0"]}"#,
    ),
    (
        "one network twice",
        "masquerade-set",
        r#"{"dev":"wg0","networks":["10.20.0.0/24","10.20.0.0/24"]}"#,
    ),
    (
        "a network with bits of a host",
        "masquerade-set",
        r#"{"dev":"wg0","networks":["10.20.0.1/24"]}"#,
    ),
    (
        "a rule in the network",
        "masquerade-set",
        r#"{"dev":"wg0","networks":["10.20.0.0/24 -j ACCEPT\n-A INPUT"]}"#,
    ),
    (
        "every device",
        "masquerade-set",
        r#"{"dev":"+","networks":["10.20.0.0/24"]}"#,
    ),
    (
        "every tunnel",
        "masquerade-set",
        r#"{"dev":"wg+","networks":["10.20.0.0/24"]}"#,
    ),
    ("a tunnel", "masquerade-list", r#"{"dev":"wg0"}"#),
    (
        "the kernel's name of a setting",
        "sysctl-set",
        r#"{"setting":"net.ipv6.conf.all.forwarding","on":true}"#,
    ),
    (
        "another setting",
        "sysctl-set",
        r#"{"setting":"accept_source_route","dev":"eth0","on":true}"#,
    ),
    (
        "a number for a switch",
        "sysctl-set",
        r#"{"setting":"ipv6-forwarding","on":2}"#,
    ),
    (
        "a setting of all devices for one",
        "sysctl-set",
        r#"{"setting":"ipv6-forwarding","dev":"eth0","on":true}"#,
    ),
    (
        "a setting of one device for none",
        "sysctl-set",
        r#"{"setting":"ipv6-proxy","on":true}"#,
    ),
    (
        "a setting of one device for all",
        "sysctl-set",
        r#"{"setting":"ipv6-proxy","dev":"all","on":true}"#,
    ),
    (
        "a setting of devices to come",
        "sysctl-set",
        r#"{"setting":"ipv4-forwarding","dev":"default","on":true}"#,
    ),
    (
        "a path for a device of a setting",
        "sysctl-set",
        r#"{"setting":"ipv6-proxy","dev":"../../kernel","on":true}"#,
    ),
    ("no state", "sysctl-set", r#"{"setting":"ipv6-forwarding"}"#),
    (
        "forwarding as a text",
        "link-set",
        r#"{"dev":"ovsbr0","forward":"yes"}"#,
    ),
    (
        "everything",
        "route-set",
        r#"{"dest":"0.0.0.0/0","dev":"wg0"}"#,
    ),
    (
        "everything of IPv6",
        "route-set",
        r#"{"dest":"::/0","dev":"wg0"}"#,
    ),
    (
        "half of everything",
        "route-set",
        r#"{"dest":"128.0.0.0/1","dev":"wg0"}"#,
    ),
    (
        "a router of the other family",
        "route-set",
        r#"{"dest":"10.9.0.0/24","dev":"wg0","via":"fd00::1"}"#,
    ),
    (
        "a source of the other family",
        "route-set",
        r#"{"dest":"fd90::/64","dev":"wg0","src":"10.0.0.1"}"#,
    ),
    (
        "no device",
        "route-set",
        r#"{"dest":"10.9.0.0/24","via":"10.0.0.1"}"#,
    ),
    (
        "a table",
        "route-set",
        r#"{"dest":"10.9.0.0/24","dev":"wg0","table":"local"}"#,
    ),
    (
        "a metric of zero",
        "route-set",
        r#"{"dest":"10.9.0.0/24","dev":"wg0","metric":0}"#,
    ),
    (
        "a router's prefix",
        "route-del",
        r#"{"dest":"10.9.0.0/24","dev":"wg0","via":"10.0.0.1"}"#,
    ),
    (
        "host bits",
        "route-del",
        r#"{"dest":"10.9.0.1/24","dev":"wg0"}"#,
    ),
    (
        "what comes from everybody",
        "route-from-set",
        r#"{"from":"::/0","dev":"wg0"}"#,
    ),
    (
        "what comes from a third of the internet",
        "route-from-set",
        r#"{"from":"2000::/3","dev":"wg0"}"#,
    ),
    (
        "what comes from one address",
        "route-from-set",
        r#"{"from":"fd77::1/128","dev":"wg0"}"#,
    ),
    (
        "a source with host bits",
        "route-from-set",
        r#"{"from":"fd77::1/64","dev":"wg0"}"#,
    ),
    (
        "a source of the other family",
        "route-from-set",
        r#"{"from":"10.0.0.0/24","dev":"wg0"}"#,
    ),
    (
        "a source of the link",
        "route-from-set",
        r#"{"from":"fe80::/64","dev":"wg0"}"#,
    ),
    (
        "two sources",
        "route-from-set",
        r#"{"from":["fd77::/64","fd78::/64"],"dev":"wg0"}"#,
    ),
    (
        "a source with a newline",
        "route-from-set",
        r#"{"from":"fd77::/64\n","dev":"wg0"}"#,
    ),
    ("no source", "route-from-set", r#"{"dev":"wg0"}"#),
    (
        "a source without a device",
        "route-from-set",
        r#"{"from":"fd77::/64"}"#,
    ),
    (
        "a router for what comes from machines",
        "route-from-set",
        r#"{"from":"fd77::/64","dev":"wg0","via":"fd00::1"}"#,
    ),
    (
        "a destination besides",
        "route-from-set",
        r#"{"from":"fd77::/64","dev":"wg0","dest":"::/0"}"#,
    ),
    (
        "a metric besides",
        "route-from-del",
        r#"{"from":"fd77::/64","dev":"wg0","metric":1}"#,
    ),
    ("nothing to set", "link-set", r#"{"dev":"vi100"}"#),
    ("no device", "link-set", r#"{"up":true}"#),
    ("up as a text", "link-set", r#"{"dev":"vi100","up":"yes"}"#),
    (
        "an MTU without room for IPv6",
        "link-set",
        r#"{"dev":"vi100","mtu":1279}"#,
    ),
    (
        "an address for all",
        "link-set",
        r#"{"dev":"vi100","addresses":["10.0.0.1/24","10.0.0.1/16"]}"#,
    ),
    (
        "addresses as an object",
        "link-set",
        r#"{"dev":"vi100","addresses":{"add":["10.0.0.1/24"]}}"#,
    ),
    (
        "a name to give",
        "link-set",
        r#"{"dev":"vi100","up":true,"name":"eth0"}"#,
    ),
    (
        "a namespace to move to",
        "link-set",
        r#"{"dev":"vi100","up":true,"netns":1}"#,
    ),
    (
        "one device twice",
        "link-handover",
        r#"{"from":"eth0","to":"eth0"}"#,
    ),
    ("nowhere", "link-handover", r#"{"from":"eth0"}"#),
    ("a climb", "link-handover", r#"{"from":"eth0","to":".."}"#),
    (
        "kept as a text",
        "link-handover",
        r#"{"from":"eth0","to":"br0","keep":"10.0.0.1/24"}"#,
    ),
    ("index 32", "veth-rename", r#"{"vmid":100,"index":32}"#),
    (
        "a negative index",
        "veth-rename",
        r#"{"vmid":100,"index":-1}"#,
    ),
    (
        "an index as text",
        "veth-rename",
        r#"{"vmid":100,"index":"0"}"#,
    ),
    (
        "a name of its own",
        "veth-rename",
        r#"{"vmid":100,"name":"eth0"}"#,
    ),
];

const NOT_A_NAT_ADDRESS: &[(&str, &str)] = &[
    ("empty", ""),
    ("with a prefix", "203.0.113.7/32"),
    ("with a port", "203.0.113.7:80"),
    ("a range", "203.0.113.7-203.0.113.9"),
    ("a name", "localhost"),
    ("a negation", "!203.0.113.7"),
    ("an option behind", "203.0.113.7 -j ACCEPT"),
    ("a newline and a rule", "203.0.113.7\\n-A INPUT -j ACCEPT"),
    ("a NUL", "203.0.113.7\\u0000"),
    ("unspecified", "0.0.0.0"),
    ("loopback", "127.0.0.1"),
    ("broadcast", "255.255.255.255"),
    ("multicast", "224.0.0.1"),
    ("link-local", "169.254.0.1"),
    ("IPv6 loopback", "::1"),
    ("IPv6 link-local", "fe80::1"),
    ("a zone", "fe80::1%eth0"),
    ("v4-mapped", "::ffff:203.0.113.7"),
    ("in brackets", "[2001:db8::1]"),
    ("octal", "0203.0.113.7"),
];

const NOT_AN_INTERFACE_ADDRESS: &[(&str, &str)] = &[
    ("without a prefix", "10.8.0.1"),
    ("half of the internet", "10.8.0.1/1"),
    ("IPv4 /7", "10.8.0.1/7"),
    ("IPv6 /15", "fd00::1/15"),
    ("/33", "10.8.0.1/33"),
    ("/129", "fd00::1/129"),
    ("a prefix with a sign", "10.8.0.1/+24"),
    ("loopback", "127.0.0.1/8"),
    ("IPv6 loopback", "::1/128"),
    ("link-local", "fe80::1/64"),
    ("multicast", "ff02::1/64"),
    ("v4-mapped", "::ffff:10.0.0.1/120"),
    ("unspecified", "0.0.0.0/8"),
    ("a device behind", "10.8.0.1/24 dev eth0"),
    ("a newline", "10.8.0.1/24\\n"),
];

/// Members of a peer, after its public key.
pub(super) fn network() -> Vec<Hostile> {
    let mut list: Vec<Hostile> = PARAMS
        .iter()
        .map(|(name, verb, params)| action(format!("{verb}: {name}"), verb, params))
        .collect();
    for (name, value) in NOT_A_VMID {
        list.push(action(
            format!("veth-rename: vmid {name}"),
            "veth-rename",
            &format!(r#"{{"vmid":{value}}}"#),
        ));
    }
    for (name, value) in NOT_A_NAT_ADDRESS {
        for (side, other) in [("public", "private"), ("private", "public")] {
            list.push(action(
                format!("nat: {side} {name}"),
                "nat-map",
                &format!(r#"{{"{side}":"{value}","{other}":"10.0.0.7","comment":"a"}}"#),
            ));
        }
    }
    for (name, value) in NOT_AN_INTERFACE_ADDRESS {
        list.push(action(
            format!("tunnel address: {name}"),
            "wg-setup",
            &format!(r#"{{"name":"wg0","addresses":["{value}"]}}"#),
        ));
        list.push(action(
            format!("device address: {name}"),
            "link-set",
            &format!(r#"{{"dev":"vi100","addresses":["{value}"]}}"#),
        ));
        list.push(action(
            format!("kept address: {name}"),
            "link-handover",
            &format!(r#"{{"from":"eth0","to":"br0","keep":["{value}"]}}"#),
        ));
    }
    for (name, value) in NOT_A_DEVICE {
        list.push(action(
            format!("device to set: {name}"),
            "link-set",
            &format!(r#"{{"dev":"{value}","up":true}}"#),
        ));
        for verb in ["route-set", "route-del"] {
            list.push(action(
                format!("{verb}: device {name}"),
                verb,
                &format!(r#"{{"dest":"10.9.0.0/24","dev":"{value}"}}"#),
            ));
        }
        for (side, other) in [("from", "to"), ("to", "from")] {
            list.push(action(
                format!("handover: {side} {name}"),
                "link-handover",
                &format!(r#"{{"{side}":"{value}","{other}":"br0"}}"#),
            ));
        }
    }
    list
}
