//! The edges of the rules for switches, interfaces and sets of options: as in `edges.rs`, the last value that is
//! good and the first that is not, on each side.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::json;

use super::edges::{check, long};
use super::object::Object;
use super::*;
use crate::options::{Args, Options};
use crate::qm::{QmKey, QmOption, QmOptions};

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
