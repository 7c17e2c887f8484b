//! The edges of the rules for switches, tunnels, translations and sets of options: as in `edges.rs`, the last value that is
//! good and the first that is not, on each side.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::json;

use super::object::Object;
use super::*;
use crate::options::{Args, Options};
use crate::qm::{QmKey, QmOption, QmOptions};

fn check<T: Text>(good: &[&str], bad: &[&str]) {
    for text in good {
        assert!(T::read(text).is_some(), "{} {text:?} is refused", T::KIND);
    }
    for text in bad {
        assert!(T::read(text).is_none(), "{} {text:?} is accepted", T::KIND);
    }
}

fn long(first: &str, count: usize) -> String {
    format!("{first}{}", "a".repeat(count - first.len()))
}

/// A key of bytes that are all the same.
fn key(byte: u8) -> WgKey {
    WgKey::new([byte; 32]).unwrap()
}

fn peer(public: u8, networks: &[&str]) -> Value {
    json!({"public_key": key(public).to_string(), "allowed_ips": networks})
}

#[test]
fn names_at_a_switch_begin_with_a_letter_and_are_no_word_of_its_own() {
    check::<SwitchIfName>(
        &["a", "Z", "a0_.-", "allx", "in_por", &long("a", 15)],
        &[
            "",
            "0a",
            "_a",
            ".a",
            "-a",
            "a/b",
            "a b",
            "a:1",
            "ä",
            &long("a", 16),
        ],
    );
    for word in RESERVED_PORTS {
        check::<SwitchIfName>(&[], &[word, &word.to_uppercase()]);
    }
    check::<WgName>(
        &["a", "z", "a0", "a_", "a-", &long("a", 15)],
        &[
            "",
            "A",
            "aA",
            "0",
            "_a",
            "-a",
            "a.b",
            "a/b",
            "a b",
            &long("a", 16),
        ],
    );
    check::<FlowOwner>(
        &["a", &long("a", 64)],
        &["", "-a", "A", "a b", &long("a", 65)],
    );
}

#[test]
fn a_cookie_is_the_mark_and_the_first_six_bytes_of_the_owners_digest() {
    // printf a | sha256sum
    assert_eq!(
        FlowOwner::read("a").unwrap().cookie(),
        0xb10c_ca97_8112_ca1b
    );
    assert_ne!(
        FlowOwner::read("b").unwrap().cookie(),
        FlowOwner::read("a").unwrap().cookie()
    );
}

#[test]
fn words_are_taken_as_they_are_written_and_no_others() {
    check::<DatapathType>(&["system", "netdev"], &["", "System", "dpdk"]);
    check::<FailMode>(&["standalone", "secure"], &["", "SECURE", "open"]);
    check::<PortKind>(&["system", "internal"], &["", "patch", "vxlan"]);
    check::<MeterUnit>(&["kbps", "pktps"], &["", "bps"]);
    for word in ["kbps", "pktps"] {
        assert_eq!(MeterUnit::read(word).unwrap().to_string(), word);
    }
    for word in ["standalone", "secure"] {
        assert_eq!(FailMode::read(word).unwrap().as_str(), word);
    }
}

#[test]
fn a_trunk_carries_one_to_all_tags_each_once() {
    let read = |tags: Value| Trunks::from_json(&tags);
    let tags = |trunks: Trunks| trunks.iter().map(VlanTag::get).collect::<Vec<_>>();
    assert_eq!(tags(read(json!([7, 1, 4094])).unwrap()), [1, 7, 4094]);
    let all: Vec<u16> = (1..=4094).collect();
    assert_eq!(tags(read(json!(all)).unwrap()).len(), 4094);
    for bad in [
        json!([]),
        json!([0]),
        json!([4095]),
        json!([5, 5]),
        json!([1, 2, 1]),
        json!({}),
        json!([1, "2"]),
        json!([1].iter().cycle().take(4095).collect::<Vec<_>>()),
    ] {
        let refused = read(bad.clone()).unwrap_err().to_string();
        assert!(!refused.is_empty(), "{bad}");
    }
}

#[test]
fn a_queue_has_a_rate_and_guarantees_no_more_than_it_allows() {
    let read = |queue: Value| Queue::from_json(&queue);
    for good in [
        json!({"queue": 0, "min_kbps": 100}),
        json!({"queue": 1, "max_kbps": 100}),
        json!({"queue": 2, "min_kbps": 100, "max_kbps": 100}),
        json!({"queue": 2, "min_kbps": 100, "max_kbps": 101, "burst_kbit": 10, "priority": 1}),
    ] {
        let queue = read(good.clone()).unwrap_or_else(|e| panic!("{good}: {e}"));
        assert_eq!(queue.to_json(), Some(good));
    }
    for bad in [
        json!({"queue": 0}),
        json!({"queue": 0, "burst_kbit": 10, "priority": 1}),
        json!({"queue": 0, "min_kbps": 101, "max_kbps": 100}),
        json!({"min_kbps": 100}),
        json!({"queue": 0, "min_kbps": 100, "other": 1}),
        json!([]),
    ] {
        assert!(read(bad.clone()).is_err(), "{bad}");
    }
    let queues = |count: u64, first: u64| {
        let list: Vec<Value> = (0..count)
            .map(|at| json!({"queue": (first + at) % 256, "max_kbps": 100}))
            .collect();
        Queues::from_json(&json!(list))
    };
    let all = queues(256, 100).unwrap();
    let numbers: Vec<u64> = all
        .iter()
        .map(|queue| u64::from(queue.queue.get()))
        .collect();
    assert_eq!(numbers, (0..256).collect::<Vec<_>>(), "sorted");
    assert!(!all.is_empty() && all.to_json().unwrap().as_array().unwrap().len() == 256);
    assert!(queues(0, 0).unwrap().is_empty(), "none removes them");
    assert!(queues(257, 0).is_err());
    let twice = json!([{"queue": 3, "max_kbps": 1000}, {"queue": 3, "max_kbps": 2000}]);
    assert!(
        Queues::from_json(&twice)
            .unwrap_err()
            .to_string()
            .contains('3')
    );
}

#[test]
fn a_bridge_takes_five_options_and_says_back_what_it_was_given() {
    let all = json!({"datapath_type": "netdev", "fail_mode": "secure", "hwaddr": "02:00:00:00:00:01", "mtu": 1500, "mcast_snooping": true});
    let options = BridgeOptions::from_json(&all).unwrap();
    assert_eq!(options.to_json(), Some(all));
    assert_eq!(
        BridgeOptions::from_json(&json!({})).unwrap(),
        BridgeOptions::default()
    );
    assert_eq!(BridgeOptions::default().to_json(), Some(json!({})));
    for bad in [
        json!({"protocols": "OpenFlow10"}),
        json!({"mtu": "1500"}),
        json!([]),
    ] {
        assert!(BridgeOptions::from_json(&bad).is_err(), "{bad}");
    }
}

#[test]
fn an_object_has_its_keys_and_no_others_and_says_where_it_is_wrong() {
    let value = json!({"a": 1, "b": true});
    let read = |keys: &[&str]| Object::read("thing", "a rule", &value, keys).map(|_| ());
    assert!(read(&["a", "b", "c"]).is_ok());
    let unknown = read(&["a"]).unwrap_err().to_string();
    assert!(
        unknown.contains('b') && unknown.contains("a rule"),
        "{unknown}"
    );
    let object = Object::read("thing", "a rule", &value, &["a", "b", "c"]).unwrap();
    assert_eq!(object.raw("a"), Some(&json!(1)));
    assert_eq!(object.raw("c"), None);
    assert_eq!(object.get::<bool>("b").unwrap(), Some(true));
    assert_eq!(object.get::<bool>("c").unwrap(), None);
    assert!(
        object
            .get::<bool>("a")
            .unwrap_err()
            .to_string()
            .contains('a')
    );
    assert!(object.need::<bool>("b").unwrap());
    let missing = object.need::<bool>("c").unwrap_err().to_string();
    assert!(missing.contains("missing key"), "{missing}");
    assert!(Object::read("thing", "a rule", &json!([]), &[]).is_err());
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

#[test]
fn a_match_is_an_address_or_a_network_of_at_least_one_bit() {
    check::<Ipv4Prefix>(
        &[
            "0.0.0.0",
            "255.255.255.255",
            "0.0.0.0/32",
            "128.0.0.0/1",
            "10.0.0.0/31",
        ],
        &[
            "10.0.0.0/0",
            "0.0.0.0/0",
            "64.0.0.0/1",
            "10.0.0.1/31",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/",
            "fd00::",
        ],
    );
    check::<Ipv6Prefix>(
        &[
            "::",
            "ff02::1",
            "8000::/1",
            "fd00::/127",
            "fd00::1/128",
            "::fffe:0:0",
            "::1:0:0:0",
        ],
        &[
            "::/0",
            "fd00::1/127",
            "fd00::/129",
            "::ffff:10.0.0.1",
            "::ffff:0:0/96",
            "10.0.0.1",
        ],
    );
    for (text, mask) in [
        ("10.0.0.0/8", 0xff00_0000_u32),
        ("128.0.0.0/1", 0x8000_0000),
        ("10.0.0.0/31", 0xffff_fffe),
        ("10.0.0.1", u32::MAX),
    ] {
        let prefix = Ipv4Prefix::read(text).unwrap();
        assert_eq!((prefix.mask(), prefix.to_string()), (mask, text.to_owned()));
    }
    for (text, mask) in [
        ("8000::/1", 1_u128 << 127),
        ("fd00::/16", 0xffff_u128 << 112),
        ("fd00::/127", u128::MAX - 1),
        ("fd00::1", u128::MAX),
    ] {
        let prefix = Ipv6Prefix::read(text).unwrap();
        assert_eq!((prefix.mask(), prefix.to_string()), (mask, text.to_owned()));
    }
    let four = Ipv4Prefix::read("10.0.0.0/8").unwrap();
    assert_eq!(
        (four.address(), four.length()),
        (Ipv4Addr::new(10, 0, 0, 0), 8)
    );
    let six = Ipv6Prefix::read("fd00::/64").unwrap();
    assert_eq!(
        (six.address(), six.length()),
        ("fd00::".parse::<Ipv6Addr>().unwrap(), 64)
    );
}

#[test]
fn an_interface_has_unicast_addresses_in_a_network_of_sensible_size() {
    check::<InterfaceAddress>(
        &[
            "10.0.0.1/8",
            "10.0.0.1/32",
            "fd00::1/16",
            "fd00::1/128",
            "223.255.255.255/24",
        ],
        &[
            "10.0.0.1",
            "10.0.0.1/7",
            "10.0.0.1/33",
            "10.0.0.1/08",
            "255.255.255.255/32",
            "127.0.0.1/8",
            "224.0.0.1/24",
            "0.0.0.0/8",
            "fd00::1/15",
            "fd00::1/129",
            "fe80::1/64",
            "::1/128",
            "::ffff:10.0.0.1/128",
        ],
    );
    let one = InterfaceAddress::read("10.0.0.1/24").unwrap();
    assert_eq!(
        (one.address().to_string(), one.length()),
        ("10.0.0.1".into(), 24)
    );
    check::<NatAddress>(
        &["10.0.0.1", "fd00::1", "2001:db8::1"],
        &[
            "10.0.0.1/32",
            "255.255.255.255",
            "127.0.0.1",
            "224.0.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "",
        ],
    );
    assert_eq!(
        NatAddress::read("fd00::1").unwrap().address().to_string(),
        "fd00::1"
    );
    let list = |count: u8| -> Value {
        (0..count)
            .map(|at| json!(format!("10.0.1.{at}/24")))
            .collect()
    };
    assert_eq!(
        InterfaceAddresses::from_json(&list(16))
            .unwrap()
            .iter()
            .count(),
        16
    );
    assert!(InterfaceAddresses::from_json(&list(17)).is_err());
    assert!(InterfaceAddresses::from_json(&list(0)).is_err());
    assert_eq!(
        DeviceAddresses::from_json(&list(64))
            .unwrap()
            .iter()
            .count(),
        64
    );
    assert!(DeviceAddresses::from_json(&list(65)).is_err());
    assert!(
        DeviceAddresses::from_json(&list(0))
            .unwrap()
            .iter()
            .next()
            .is_none()
    );
    // One address is one, whatever its network.
    let twice = json!(["10.0.0.1/24", "10.0.0.2/24", "10.0.0.1/25"]);
    for refused in [
        InterfaceAddresses::from_json(&twice).map(drop),
        DeviceAddresses::from_json(&twice).map(drop),
    ] {
        assert!(refused.unwrap_err().to_string().contains("10.0.0.1/25"));
    }
}

#[test]
fn a_set_of_options_counts_what_it_holds_and_says_what_it_replaced() {
    let memory = |mib: &str| QmOption::parse("memory", mib).unwrap();
    let mut options = QmOptions::new();
    assert!(options.is_empty());
    assert_eq!(options.len(), 0);
    assert_eq!(options.set(memory("512")), None);
    assert_eq!(options.set(memory("1024")), Some(memory("512")));
    assert_eq!(options.get(QmKey::Memory), Some(&memory("1024")));
    options.add("cores", "2").unwrap();
    assert!(!options.is_empty() && options.len() == 2);
    assert_eq!(options.to_args(), ["--cores", "2", "--memory", "1024"]);
    let args: Args<QmOption> = options.clone().into();
    assert_eq!(*args, options);
    assert!(Args::<QmOption>::default().is_empty());
    for bad in [
        json!({"memory": -1}),
        json!({"memory": 512.5}),
        // The texts of these would do.
        json!({"description": 1.5}),
        json!({"description": -1}),
        json!({"memory": true}),
        json!({"memory": null}),
        json!({"cpulimit": "1"}),
        json!({}),
        json!([]),
    ] {
        assert!(Options::<QmOption>::from_json(&bad).is_err(), "{bad}");
    }
    for bad in [
        json!(["--memory"]),
        json!(["memory", "512"]),
        json!(["--memory", "512", "--memory", "512"]),
        json!([["--memory", "512", "x"]]),
        json!([["--memory"]]),
        json!([["--memory", "512"], "--cores"]),
        json!({"--memory": "512"}),
    ] {
        assert!(Args::<QmOption>::from_json(&bad).is_err(), "{bad}");
    }
}
