//! Tunnels: names, keys, endpoints and networks that are none, or another peer's.

use super::{Hostile, action};

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

const PARAMS: &[(&str, &str, &str)] = &[
    (
        "no addresses",
        "wg-setup",
        r#"{"name":"wg0","addresses":[]}"#,
    ),
    (
        "an address twice",
        "wg-setup",
        r#"{"name":"wg0","addresses":["10.8.0.1/24","10.8.0.1/16"]}"#,
    ),
    (
        "an address as text",
        "wg-setup",
        r#"{"name":"wg0","addresses":"10.8.0.1/24"}"#,
    ),
    (
        "seventeen addresses",
        "wg-setup",
        r#"{"name":"wg0","addresses":["10.0.0.1/32","10.0.0.2/32","10.0.0.3/32","10.0.0.4/32","10.0.0.5/32","10.0.0.6/32","10.0.0.7/32","10.0.0.8/32","10.0.0.9/32","10.0.0.10/32","10.0.0.11/32","10.0.0.12/32","10.0.0.13/32","10.0.0.14/32","10.0.0.15/32","10.0.0.16/32","10.0.0.17/32"]}"#,
    ),
    (
        "a private key",
        "wg-setup",
        r#"{"name":"wg0","addresses":["10.8.0.1/24"],"private_key":"yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="}"#,
    ),
    (
        "port zero",
        "wg-setup",
        r#"{"name":"wg0","addresses":["10.8.0.1/24"],"listen_port":0}"#,
    ),
    (
        "an MTU of 68",
        "wg-setup",
        r#"{"name":"wg0","addresses":["10.8.0.1/24"],"mtu":68}"#,
    ),
    (
        "a hook",
        "wg-setup",
        r#"{"name":"wg0","addresses":["10.8.0.1/24"],"post_up":"id"}"#,
    ),
    (
        "peers as an object",
        "wg-set-peers",
        r#"{"name":"wg0","peers":{}}"#,
    ),
    ("no peers given", "wg-set-peers", r#"{"name":"wg0"}"#),
    (
        "a peer as text",
        "wg-set-peers",
        r#"{"name":"wg0","peers":["a"]}"#,
    ),
    (
        "a peer without networks",
        "wg-set-peers",
        r#"{"name":"wg0","peers":[{"public_key":"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="}]}"#,
    ),
    (
        "a peer with another key",
        "wg-set-peers",
        r#"{"name":"wg0","peers":[{"public_key":"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=","allowed_ips":[],"remove":true}]}"#,
    ),
    (
        "a tunnel's key",
        "wg-show",
        r#"{"name":"wg0","private":true}"#,
    ),
];

const NOT_A_TUNNEL: &[(&str, &str)] = &[
    ("empty", ""),
    ("a climb", ".."),
    ("a path", "../wg0"),
    ("a path below", "a/wg0"),
    ("a dot", "wg0.key"),
    ("an option", "-wg0"),
    ("a digit in front", "0wg"),
    ("a capital", "WG0"),
    ("a space", "wg 0"),
    ("a newline", "wg0\\n"),
    ("a NUL", "wg0\\u0000"),
    ("a percent sign, which the kernel counts up", "wg%d"),
    ("sixteen bytes", "wgwgwgwgwgwgwgwg"),
    ("a look-alike letter", "w\u{261}0"),
];

const NOT_A_PEER: &[(&str, &str)] = &[
    (
        "an endpoint by name",
        r#""allowed_ips":[],"endpoint":"example.org:51820""#,
    ),
    (
        "an endpoint without a port",
        r#""allowed_ips":[],"endpoint":"192.0.2.1""#,
    ),
    (
        "an endpoint at port zero",
        r#""allowed_ips":[],"endpoint":"192.0.2.1:0""#,
    ),
    (
        "an endpoint at loopback",
        r#""allowed_ips":[],"endpoint":"127.0.0.1:51820""#,
    ),
    (
        "an endpoint at a multicast address",
        r#""allowed_ips":[],"endpoint":"[ff02::1]:51820""#,
    ),
    (
        "an endpoint with a zone",
        r#""allowed_ips":[],"endpoint":"[fe80::1%eth0]:51820""#,
    ),
    (
        "an endpoint with a plus",
        r#""allowed_ips":[],"endpoint":"192.0.2.1:+80""#,
    ),
    (
        "an endpoint without brackets",
        r#""allowed_ips":[],"endpoint":"2001:db8::1:51820""#,
    ),
    (
        "an endpoint with a newline",
        r#""allowed_ips":[],"endpoint":"192.0.2.1:51820\nprivate_key=00""#,
    ),
    (
        "a network with host bits",
        r#""allowed_ips":["10.0.0.1/8"]"#,
    ),
    (
        "a network without a prefix",
        r#""allowed_ips":["10.0.0.1"]"#,
    ),
    (
        "a network twice",
        r#""allowed_ips":["10.0.0.0/8","10.0.0.0/8"]"#,
    ),
    (
        "a mapped network",
        r#""allowed_ips":["::ffff:10.0.0.1/128"]"#,
    ),
    (
        "two networks in one",
        r#""allowed_ips":["10.0.0.0/8,0.0.0.0/0"]"#,
    ),
    ("networks as text", r#""allowed_ips":"10.0.0.0/8""#),
    ("a keepalive of zero", r#""allowed_ips":[],"keepalive":0"#),
    (
        "a keepalive as text",
        r#""allowed_ips":[],"keepalive":"25""#,
    ),
    (
        "a keepalive of 65536",
        r#""allowed_ips":[],"keepalive":65536"#,
    ),
    (
        "a preshared key that is a path",
        r#""allowed_ips":[],"preshared":"/etc/shadow""#,
    ),
    (
        "a preshared key of zeros",
        r#""allowed_ips":[],"preshared":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=""#,
    ),
    ("preshared true", r#""allowed_ips":[],"preshared":true"#),
];

const NOT_A_KEY: &[(&str, &str)] = &[
    ("empty", ""),
    ("all zeros", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    (
        "43 characters",
        "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg",
    ),
    (
        "without its end",
        "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dgx",
    ),
    (
        "a second spelling of the same bytes",
        "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dh=",
    ),
    (
        "the alphabet of URLs",
        "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp-_g=",
    ),
    (
        "hexadecimal",
        "c53201039adba14be71f886da1d8dbe9eebded08cb111b75340078999aa9f038",
    ),
    (
        "a newline",
        "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\\n",
    ),
];

pub(super) fn tunnels() -> Vec<Hostile> {
    let mut list: Vec<Hostile> = PARAMS
        .iter()
        .map(|(name, verb, params)| action(format!("{verb}: {name}"), verb, params))
        .collect();
    for (name, value) in NOT_A_TUNNEL {
        for verb in ["wg-show", "wg-teardown"] {
            list.push(action(
                format!("{verb}: name {name}"),
                verb,
                &format!(r#"{{"name":"{value}"}}"#),
            ));
        }
        for verb in ["route-from-set", "route-from-del"] {
            list.push(action(
                format!("{verb}: tunnel {name}"),
                verb,
                &format!(r#"{{"from":"fd77::/64","dev":"{value}"}}"#),
            ));
        }
    }
    let peers = |inner: &str| format!(r#"{{"name":"wg0","peers":[{inner}]}}"#);
    for (name, members) in NOT_A_PEER {
        list.push(action(
            format!("peer: {name}"),
            "wg-set-peers",
            &peers(&format!(r#"{{"public_key":"{KEY}",{members}}}"#)),
        ));
    }
    for (name, key) in NOT_A_KEY {
        list.push(action(
            format!("public key: {name}"),
            "wg-set-peers",
            &peers(&format!(r#"{{"public_key":"{key}","allowed_ips":[]}}"#)),
        ));
    }
    let peer = |key: &str, network: &str| {
        format!(r#"{{"public_key":"{key}","allowed_ips":["{network}"]}}"#)
    };
    let other = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
    list.push(action(
        "peers: one key twice",
        "wg-set-peers",
        &peers(&[peer(KEY, "10.0.0.1/32"), peer(KEY, "10.0.0.2/32")].join(",")),
    ));
    list.push(action(
        "peers: one network at two, which the kernel would take from the first",
        "wg-set-peers",
        &peers(&[peer(KEY, "10.0.0.1/32"), peer(other, "10.0.0.1/32")].join(",")),
    ));
    list
}
