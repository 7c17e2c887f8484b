//! The edges of what came after `edges_network.rs`: encrypted files, proofs, brokers, and lists of ports and pairs.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::*;
use crate::qm::to_base64;

fn at(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An age file of that many bytes.
fn age_file(length: usize) -> Vec<u8> {
    let body = "A".repeat(43);
    let mut file =
        format!("age-encryption.org/v1\n-> X25519 {body}\n{body}\n--- {body}\n").into_bytes();
    file.resize(length, 0xa5);
    file
}

#[test]
fn an_encrypted_file_has_at_most_40960_bytes_and_comes_back_whole() {
    let longest = age_file(AgeFile::MAX_BYTES);
    let read = AgeFile::read(&to_base64(&longest)).expect("the longest is good");
    assert_eq!(read.bytes(), longest);
    assert_eq!(read.hash(), Sha256Hex::of(&longest));
    for more in 1..4 {
        let text = to_base64(&age_file(AgeFile::MAX_BYTES + more));
        assert!(AgeFile::read(&text).is_none(), "{more}");
    }
}

#[test]
fn a_proof_has_at_most_64_hashes_in_the_order_given() {
    let hash = |byte: u8| format!("{byte:02x}").repeat(32);
    let list = |count: u8| Value::from((1..=count).map(hash).collect::<Vec<_>>());
    let path = HashPath::from_json(&list(64)).expect("64 hashes");
    let expected: Vec<[u8; 32]> = (1..=64).map(|byte| [byte; 32]).collect();
    assert_eq!(path.hashes(), expected);
    assert!(HashPath::from_json(&list(65)).is_err());
    assert_eq!(HashPath::from_json(&json!([])).unwrap().hashes().len(), 0);
}

#[test]
fn a_peers_networks_come_back_and_its_secret_has_a_form() {
    let given = json!(["10.8.0.2/32", "fd00:8::/64"]);
    let networks = AllowedIps::from_json(&given).expect("valid");
    assert_eq!(networks.to_json(), Some(given));
    let pattern = Preshared::schema()["pattern"].clone();
    assert_eq!(pattern, "^(generate|kept|[A-Za-z0-9+/]{43}=)$");
}

#[test]
fn a_prefix_of_machines_has_no_bit_behind_its_length() {
    for (text, good) in [
        ("2001:db8::/32", true),
        ("2001:db8::/120", true),
        ("2001:db8::1:0/112", true),
        ("fd00:8000::/33", true),
        ("2001:db8::/31", false),
        ("2001:db8::/121", false),
        ("2001:db8::8000/112", false),
        ("2001:db8::2/120", false),
        ("2001:db8:8000::/32", false),
        ("fe80::/64", false),
        ("2001:db8::", false),
    ] {
        assert_eq!(MachinePrefix::read(text).is_some(), good, "{text}");
    }
    let gateway = GatewayIpv6::read("2001:DB8::1").expect("valid");
    assert_eq!(gateway.to_string(), "2001:db8::1");
    assert_eq!(IpAddr::V6(gateway.address()), at("2001:db8::1"));
}

#[test]
fn an_address_reaches_what_is_in_its_network_and_nothing_of_another_family() {
    for (own, other, reached) in [
        ("10.1.2.3/24", "10.1.2.0", true),
        ("10.1.2.3/24", "10.1.2.255", true),
        ("10.1.2.3/24", "10.1.3.0", false),
        ("10.1.2.3/24", "10.1.1.255", false),
        ("10.1.2.3/24", "::a01:203", false),
        ("10.1.2.3/32", "10.1.2.3", true),
        ("10.1.2.3/32", "10.1.2.2", false),
        ("10.1.2.3/8", "10.255.255.255", true),
        ("fd00:1::1/64", "fd00:1::ffff:0:0:0", true),
        ("fd00:1::1/64", "fd00:1:0:1::1", false),
        ("fd00:1::1/128", "fd00:1::1", true),
        ("fd00:1::1/128", "fd00:1::2", false),
        ("fd00:1::1/64", "10.1.2.3", false),
    ] {
        let address = InterfaceAddress::read(own).expect(own);
        assert_eq!(address.reaches(at(other)), reached, "{own} {other}");
    }
    let network = RouteNet::read("10.8.0.0/16").expect("valid");
    assert_eq!((network.address(), network.length()), (at("10.8.0.0"), 16));
    assert!(network.contains(at("10.8.255.255")) && !network.contains(at("10.9.0.0")));
}

#[test]
fn ports_and_pairs_are_each_once_in_order_and_said_whole() {
    let ports = json!([
        {"port": 443, "comment": "web"},
        {"port": 22, "proto": "udp", "comment": "x", "source": "192.0.2.0/24"},
    ]);
    let ports = OpenPorts::from_json(&ports).expect("valid");
    let said: Vec<String> = ports.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["22/udp from 192.0.2.0/24 (x)", "443/tcp (web)"]);
    let twice = json!([{"port": 22, "comment": "x"}, {"port": 22, "comment": "x"}]);
    assert!(OpenPorts::from_json(&twice).is_err());

    let pair =
        |public: &str, private: &str| json!({"public": public, "private": private, "comment": "x"});
    let read = |pairs: &[Value]| NatPairs::from_json(&Value::from(pairs.to_vec()));
    let pairs = read(&[
        pair("203.0.113.9", "10.0.0.7"),
        pair("203.0.113.7", "10.0.0.9"),
    ]);
    let said: Vec<String> = pairs
        .expect("valid")
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        said,
        [
            "203.0.113.7 for 10.0.0.9 (x)",
            "203.0.113.9 for 10.0.0.7 (x)"
        ]
    );
    for bad in [
        [
            pair("203.0.113.9", "10.0.0.7"),
            pair("203.0.113.9", "10.0.0.8"),
        ],
        [
            pair("203.0.113.9", "10.0.0.7"),
            pair("203.0.113.8", "10.0.0.7"),
        ],
    ] {
        assert!(read(&bad).is_err(), "{bad:?}");
    }
    for (public, private) in [("10.0.0.7", "10.0.0.7"), ("2001:db8::1", "10.0.0.7")] {
        let error = read(&[pair(public, private)])
            .expect_err("no pair")
            .to_string();
        assert!(
            error.contains(&format!("{public} for {private} (x)")),
            "{error}"
        );
    }
}
