//! The edges of the rules for tunnels: as in `edges.rs`, the last value that is good and the first that is not, on each side.

use std::net::Ipv4Addr;

use serde_json::json;

use super::edges::check;
use super::*;

/// A key of bytes that are all the same.
fn key(byte: u8) -> WgKey {
    WgKey::new([byte; 32]).unwrap()
}

fn peer(public: u8, networks: &[&str]) -> Value {
    json!({"public_key": key(public).to_string(), "allowed_ips": networks})
}

#[test]
fn a_key_has_one_text_and_is_not_all_zero() {
    let one = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    assert_eq!(key(1).to_string(), one);
    assert_eq!(WgKey::read(one), Some(key(1)));
    assert_eq!(WgKey::read(one).unwrap().bytes(), &[1; 32]);
    let mut counted = [0; 32];
    for (at, byte) in counted.iter_mut().enumerate() {
        *byte = u8::try_from(at * 8 + 3).unwrap();
    }
    let counted = WgKey::new(counted).unwrap();
    assert_eq!(WgKey::read(&counted.to_string()), Some(counted));
    assert_eq!(
        counted.to_string(),
        "AwsTGyMrMztDS1NbY2tze4OLk5ujq7O7w8vT2+Pr8/s="
    );
    assert_eq!(key(0xff).to_string(), format!("{}8=", "/".repeat(42)));
    assert_eq!(WgKey::new([0; 32]), None);
    assert_eq!(format!("{:?}", key(1)), "WgKey(..)");
    let other = |from: &str, to: &str| one.replacen(from, to, 1);
    check::<WgKey>(
        &[],
        &[
            &format!("{}=", "A".repeat(43)),
            "",
            "=",
            &one[1..],
            &format!("A{one}"),
            &other("=", "A"),
            &other("=", ""),
            &format!("{one}="),
            &other("E=", "F="),
            &other("E=", "G="),
            &other("A", "-"),
            &other("A", " "),
        ],
    );
    check::<Preshared>(&["generate", one], &["", "Generate", &one[1..]]);
    assert_eq!(Preshared::read("generate"), Some(Preshared::Generate));
    assert_eq!(Preshared::Generate.to_string(), "generate");
    assert_eq!(Preshared::read("kept"), Some(Preshared::Kept));
    assert_eq!(Preshared::Kept.to_string(), "kept");
    assert_eq!(Preshared::Given(key(1)).to_string(), one);
}

#[test]
fn an_endpoint_is_an_address_and_a_port_and_no_name() {
    check::<WgEndpoint>(
        &[
            "10.0.0.1:1",
            "198.51.100.1:65535",
            "[2001:db8::1]:51820",
            "[fd00::1]:1",
        ],
        &[
            "10.0.0.1",
            "10.0.0.1:",
            "10.0.0.1:0",
            "10.0.0.1:00",
            "10.0.0.1:01",
            "10.0.0.1:+1",
            "10.0.0.1:65536",
            "0.0.0.0:1",
            "127.0.0.1:1",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "2001:db8::1:51820",
            "[::1]:1",
            "[fe80::1]:1",
            "[fe80::1%1]:1",
            "[fd00::1%1]:1",
            "[::ffff:10.0.0.1]:1",
            "vpn.example.org:1",
            "",
        ],
    );
    let endpoint = WgEndpoint::read("[fd00::1]:7").unwrap();
    assert_eq!(endpoint.socket().port(), 7);
    assert_eq!(endpoint.to_string(), "[fd00::1]:7");
}

#[test]
fn an_allowed_network_may_be_everything_but_has_no_host_bits() {
    check::<AllowedIp>(
        &[
            "0.0.0.0/0",
            "::/0",
            "10.0.0.1/32",
            "10.0.0.0/31",
            "128.0.0.0/1",
            "fd00::1/128",
            "fd00::/16",
            "224.0.0.0/4",
            "::fffe:0:0/96",
            "::1:0:0/96",
        ],
        &[
            "10.0.0.1",
            "10.0.0.1/31",
            "10.0.0.1/0",
            "10.0.0.1/33",
            "10.0.0.1/",
            "10.0.0.1/032",
            "fd00::1/127",
            "fd00::1/129",
            "fd00::1/256",
            "::ffff:10.0.0.1/128",
            "::ffff:0:0/96",
            "/32",
            "a/32",
        ],
    );
    let network = AllowedIp::read("10.0.0.0/31").unwrap();
    assert_eq!(
        (network.address().to_string(), network.length()),
        ("10.0.0.0".into(), 31)
    );
    assert_eq!(network.to_string(), "10.0.0.0/31");
    let many = |count: u32| {
        let list: Vec<String> = (0..count)
            .map(|at| format!("{}/32", Ipv4Addr::from(at)))
            .collect();
        AllowedIps::from_json(&json!(list))
    };
    assert_eq!(many(512).unwrap().iter().count(), 512);
    assert!(many(513).is_err());
    assert!(many(0).unwrap().iter().next().is_none());
    assert!(AllowedIps::from_json(&json!(["10.0.0.0/8", "fd00::/64", "10.0.0.0/8"])).is_err());
}

#[test]
fn no_two_peers_of_a_tunnel_share_a_key_or_a_network() {
    let read = |list: Value| WgPeers::from_json(&list);
    let two = read(json!([
        peer(2, &["10.0.0.2/32", "fd00::/64"]),
        peer(1, &["10.0.0.1/32"])
    ]))
    .unwrap();
    let keys: Vec<WgKey> = two.iter().map(|peer| peer.public_key).collect();
    assert_eq!(keys, [key(1), key(2)]);
    assert!(!two.holds_secret());
    for bad in [
        json!([peer(1, &["10.0.0.1/32"]), peer(1, &["10.0.0.2/32"])]),
        json!([peer(1, &["10.0.0.1/32"]), peer(2, &["10.0.0.1/32"])]),
        json!([
            peer(1, &["10.0.0.1/32"]),
            peer(2, &["10.0.0.3/32"]),
            peer(3, &["10.0.0.1/32"])
        ]),
        json!([{"public_key": key(1).to_string()}]),
        json!([{"allowed_ips": []}]),
        json!([{"public_key": key(1).to_string(), "allowed_ips": [], "fwmark": 1}]),
    ] {
        let refused = read(bad.clone()).unwrap_err().to_string();
        assert!(!refused.is_empty(), "{bad}");
    }
    let with = |preshared: &str| {
        let mut one = peer(1, &[]);
        one["preshared"] = json!(preshared);
        one["endpoint"] = json!("10.0.0.1:5");
        one["keepalive"] = json!(25);
        let peers = read(json!([one])).unwrap();
        assert_eq!(peers.to_json().unwrap(), json!([one]));
        peers.holds_secret()
    };
    assert!(!with("generate"));
    assert!(with(&key(9).to_string()));
    let many = |count: u16| {
        let one = |at: u16| {
            let mut bytes = [1; 32];
            bytes[..2].copy_from_slice(&at.to_be_bytes());
            json!({"public_key": WgKey::new(bytes).unwrap().to_string(), "allowed_ips": []})
        };
        read((0..count).map(one).collect())
    };
    assert_eq!(many(4096).unwrap().iter().count(), 4096);
    assert!(many(4097).is_err());
}
