//! The edges of the rules for addresses and networks that are routed: as in `edges.rs`, the last value that is good and the
//! first that is not, on each side.

use super::edges::check;
use super::net::{routable_v4, routable_v6};
use super::*;

#[test]
fn only_addresses_that_a_host_may_route_are_routed() {
    let v6 = |text: &str| routable_v6(text.parse().unwrap());
    for good in ["2000::", "3fff:ffff::1", "fc00::1", "fdff::1"] {
        assert!(v6(good), "{good}");
    }
    for bad in [
        "::",
        "::1",
        "1fff::1",
        "4000::1",
        "fbff::1",
        "fe00::1",
        "fe80::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::1",
    ] {
        assert!(!v6(bad), "{bad}");
    }
    let v4 = |text: &str| routable_v4(text.parse().unwrap());
    for good in [
        "1.0.0.0",
        "10.0.0.1",
        "126.0.0.1",
        "128.0.0.1",
        "169.253.0.1",
        "223.255.255.255",
    ] {
        assert!(v4(good), "{good}");
    }
    for bad in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.0.1",
        "169.254.0.1",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        assert!(!v4(bad), "{bad}");
    }
    check::<HostIpv6>(
        &["fd00::1/128", "2001:db8::1/128"],
        &[
            "fd00::1",
            "fd00::1/64",
            "fe80::1/128",
            "::/128",
            "10.0.0.1/128",
            "fd00::1%1/128",
        ],
    );
    let source: SourceNet = "fd00::/8".parse().unwrap();
    assert_eq!((source.prefix(), source.is_ipv6()), (8, true));
    let source: SourceNet = "10.0.0.1".parse().unwrap();
    assert_eq!((source.prefix(), source.is_ipv6()), (32, false));
    check::<SourceNet>(
        &[
            "0.0.0.0/0",
            "::/0",
            "10.0.0.0/8",
            "10.0.0.1",
            "10.0.0.1/32",
            "fd00::/8",
            "fe80::/10",
            "febf::1",
            "2001:db8::1/128",
            "128.0.0.0/1",
        ],
        &[
            "0.0.0.0",
            "::",
            "0.0.0.0/8",
            "::/8",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/",
            "fd00::1/64",
            "fd00::/129",
            "fec0::1",
            "fe7f::1",
            "127.0.0.1",
            "224.0.0.0/4",
            "ff00::/8",
            "::ffff:10.0.0.1",
        ],
    );
}

#[test]
fn an_allocation_is_a_network_of_machines_with_a_router_that_they_can_reach() {
    check::<MachinePrefix>(
        &["2001:db8::/32", "fd77:b10c::/64", "fd77::/120", "3fff::/48"],
        &[
            "",
            "fd77::",
            "2001:db8::/31",
            "fd77::/121",
            "fd77::/128",
            "fd77::1/64",
            "fd77::/064",
            "fd77::/+64",
            "fe80::/64",
            "ff02::/64",
            "::/32",
            "4000::/48",
            "::ffff:10.0.0.0/120",
            "10.0.0.0/24",
            "fd77::%1/64",
        ],
    );
    let prefix: MachinePrefix = "2001:db8:0:f0::/60".parse().unwrap();
    assert_eq!(prefix.length(), 60);
    for (address, inside) in [
        ("2001:db8:0:f0::1", true),
        ("2001:db8:0:ff:ffff::", true),
        ("2001:db8:0:100::", false),
        ("2001:db8:0:ef::1", false),
        ("fe80::1", false),
    ] {
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        assert_eq!(prefix.contains(address), inside, "{address}");
        let gateway: GatewayIpv6 = address.to_string().parse().unwrap();
        let reached = inside || address.is_unicast_link_local();
        assert_eq!(gateway.serves(prefix), reached, "{address}");
    }
    check::<GatewayIpv6>(
        &["fe80::1", "febf::1", "fd77::1", "2001:db8::"],
        &[
            "",
            "fe80::",
            "fd77::1/64",
            "::1",
            "::",
            "ff02::1",
            "fec0::1",
            "10.0.0.1",
            "fe80::1%2",
        ],
    );
    let label = "a".repeat(63);
    let name = [label.as_str(); 4].join(".");
    check::<BrokerEndpoint>(
        &[
            "a:1",
            "broker.example:51820",
            "a-b.0c:65535",
            "192.0.2.1:51820",
            "[2001:db8::1]:51820",
            &format!("{}:1", &name[..253]),
        ],
        &[
            "",
            "a",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a:01",
            "A:1",
            "-a:1",
            "a-:1",
            "a..b:1",
            ".a:1",
            "a.:1",
            "a_b:1",
            "1.2.3.256:1",
            "127.0.0.1:1",
            "0.0.0.0:1",
            "[::1]:1",
            "[fe80::1%2]:1",
            "[fe80::1]:1",
            "2001:db8::1:1",
            "http://a:1",
            "a/b:1",
            "a b:1",
            &format!("{label}a:1"),
            &format!("{}:1", &name[..254]),
        ],
    );
}

#[test]
fn a_route_leads_to_a_network_and_never_everywhere() {
    check::<RouteNet>(
        &[
            "10.0.0.0/8",
            "10.0.0.1/32",
            "fd00::/16",
            "2001:db8::1/128",
            "203.0.113.0/24",
        ],
        &[
            "",
            "0.0.0.0/0",
            "::/0",
            "10.0.0.0/7",
            "fd00::/15",
            "10.0.0.1/24",
            "fd00::1/64",
            "10.0.0.0",
            "127.0.0.0/8",
            "224.0.0.0/8",
            "fe80::/64",
            "::ffff:10.0.0.0/120",
            "default",
        ],
    );
    check::<NextHop>(
        &["10.0.0.1", "fe80::1", "fd00::1", "203.0.113.1"],
        &[
            "",
            "10.0.0.1/32",
            "0.0.0.0",
            "127.0.0.1",
            "169.254.0.1",
            "::",
            "::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "fe80::1%2",
        ],
    );
}
