//! Plans of attachments, from tables of devices and ports.

use super::*;
use serde_json::json;

fn observed(links: &serde_json::Value, switch: &serde_json::Value) -> Observed {
    let links: Vec<Link> = links
        .as_array()
        .expect("a list")
        .iter()
        .zip(1..)
        .map(|(link, index)| {
            let mut whole = json!({"index": index, "altnames": [], "kind": "veth", "alias": null, "mac": null,
                "mtu": 1500, "up": true, "operstate": "up", "carrier": true, "master": null, "lower": null,
                "addresses": [], "counters": {"rx_packets": 0, "rx_bytes": 0, "rx_dropped": 0, "rx_errors": 0,
                "tx_packets": 0, "tx_bytes": 0, "tx_dropped": 0, "tx_errors": 0}});
            for (key, value) in link.as_object().expect("a link") {
                whole[key] = value.clone();
            }
            serde_json::from_value(whole).expect("a link")
        })
        .collect();
    let switch: Switch = serde_json::from_value(json!({"bridges": switch})).expect("a switch");
    Observed {
        links: Some(links),
        switch: Some(switch),
        ..Observed::default()
    }
}

fn wanted(device: &str) -> Wanted {
    Wanted {
        device: device.parse().expect("a name"),
        container: "web-1".parse().expect("a name"),
        vmid: Vmid::from_decimal("100").expect("a number"),
    }
}

#[test]
fn a_managed_device_is_renamed_by_its_number_and_attached_under_its_own_name() {
    let seen = observed(&json!([{"name": "veth100i1"}]), &json!([{"name": "br-a"}]));
    let plan = plan(&wanted("veth100i1"), &seen, &[]).expect("a plan");
    assert_eq!(
        plan.rename.map(|rename| rename.wanted_name()).as_deref(),
        Some("vi100_1")
    );
    assert_eq!(
        (plan.add.port.as_str(), plan.add.bridge.as_str()),
        ("veth100i1", "br-a")
    );
    assert_eq!(
        plan.add.iface_id.map(|id| id.to_string()).as_deref(),
        Some("web-1")
    );
}

#[test]
fn the_second_time_nothing_is_renamed_and_the_port_stays_where_it_is() {
    let seen = observed(
        &json!([{"name": "veth100i0", "altnames": ["vi100"], "master": "ovs-system"}]),
        &json!([{"name": "ovsbr0"}, {"name": "other", "ports": [{"name": "veth100i0", "vmid": 100}]}]),
    );
    let plan = plan(&wanted("vi100"), &seen, &[]).expect("a plan");
    assert!(plan.rename.is_none() && plan.attached_before);
    assert_eq!(plan.add.bridge.as_str(), "other");
}

#[test]
fn what_is_anothers_or_no_containers_is_refused() {
    let bridges = json!([{"name": "ovsbr0", "ports": [{"name": "vethx", "vmid": 101}]}]);
    let links = json!([
        {"name": "veth101i0"}, {"name": "eth0", "kind": null}, {"name": "vethx"},
        {"name": "veth100i5", "master": "fwbr100i0"}, {"name": "veth100i0"}, {"name": "other", "altnames": ["vi100"]},
        {"name": "vethy"}, {"name": "docker7", "altnames": ["lan"]}, {"name": "vi102"}, {"name": "fwln101o0"},
        {"name": "veth100i6", "altnames": ["vi101"]}
    ]);
    let seen = observed(&links, &bridges);
    let refused = |device: &str| plan(&wanted(device), &seen, &[]).expect_err("refused");
    assert!(matches!(refused("veth101i0"), AttachError::Taken(_)));
    assert!(matches!(refused("eth0"), AttachError::Unsuitable(_)));
    assert!(matches!(refused("vethx"), AttachError::Taken(_)));
    assert!(matches!(refused("veth100i5"), AttachError::Taken(_)));
    assert!(
        matches!(refused("veth100i0"), AttachError::Taken(_)),
        "vi100 is another device"
    );
    for nobodys in ["vethy", "docker7", "lan"] {
        assert!(
            matches!(refused(nobodys), AttachError::Unsuitable(_)),
            "{nobodys}"
        );
    }
    for anothers in ["vi102", "fwln101o0", "veth100i6", "vi101"] {
        assert!(
            matches!(refused(anothers), AttachError::Taken(_)),
            "{anothers}"
        );
    }
    assert!(matches!(refused("nothing"), AttachError::NotFound(_)));
}

#[test]
fn a_port_that_is_attached_again_keeps_its_vlan_and_its_address() {
    let port = json!({"name": "vi100", "vmid": 100, "tag": 7, "trunks": [8, 9], "attached_mac": "02:00:00:00:01:64"});
    let with = |port: serde_json::Value| {
        let bridges = json!([{"name": "ovsbr0", "ports": [port]}]);
        plan(
            &wanted("vi100"),
            &observed(&json!([{"name": "vi100"}]), &bridges),
            &[],
        )
    };
    let add = with(port.clone()).expect("a plan").add;
    assert_eq!(add.tag, VlanTag::from_checked(7));
    let trunks = add
        .trunks
        .as_ref()
        .map(|trunks| trunks.iter().map(|tag| tag.get()).collect());
    assert_eq!(trunks, Some(vec![8, 9]));
    assert_eq!(add.attached_mac, MacAddress::read("02:00:00:00:01:64"));
    // What cannot be said again would be lost, so nothing is done.
    for (key, value) in [
        ("tag", json!(0)),
        ("tag", json!(-7)),
        ("trunks", json!([0])),
        ("trunks", json!([7, 5000])),
        ("attached_mac", json!("somewhere")),
    ] {
        let mut port = port.clone();
        port[key] = value;
        assert!(
            matches!(with(port.clone()), Err(AttachError::Unsuitable(_))),
            "{port}"
        );
    }
}

#[test]
fn a_plain_port_takes_nothing_from_one_that_is_there() {
    let at = |bridge: &str, port: &serde_json::Value| {
        let bridges = json!([{"name": "ovsbr0", "ports": [port]}, {"name": "ovsbr1"}]);
        let seen = observed(&json!([]), &bridges);
        let names = (
            bridge.parse().expect("a name"),
            "vi100".parse().expect("a name"),
        );
        plain(names.0, names.1, seen.switch.as_ref().expect("a switch"))
    };
    let bare = json!({"name": "vi100"});
    at("ovsbr0", &bare).expect("the same again");
    at("ovsbr0", &json!({"name": "vi101", "tag": 7})).expect("another one's");
    assert!(matches!(at("ovsbr1", &bare), Err(AttachError::Taken(_))));
    for (key, value) in [
        ("tag", json!(7)),
        ("trunks", json!([7])),
        ("vmid", json!(100)),
        ("iface_id", json!("web-1")),
        ("attached_mac", json!("02:00:00:00:01:64")),
    ] {
        let mut port = bare.clone();
        port[key] = value;
        assert!(
            matches!(at("ovsbr0", &port), Err(AttachError::Taken(_))),
            "{port}"
        );
    }
}

#[test]
fn a_port_that_the_host_may_be_reached_by_is_not_taken_off_unwatched() {
    let bridges = json!([{"name": "ovsbr0", "ports": [
        {"name": "eth0"}, {"name": "vi100"}, {"name": "tap0", "vmid": 100}]}]);
    let go = |links: &serde_json::Value, port: &str| {
        let seen = observed(links, &bridges);
        let bridge = "ovsbr0".parse().expect("a name");
        is_free_to_go(&bridge, &port.parse().expect("a name"), &seen)
    };
    let bare = json!([{"name": "ovsbr0", "addresses": ["fe80::1/64"]}]);
    let carries = json!([{"name": "ovsbr0", "addresses": ["fe80::1/64", "192.0.2.7/24"]}]);
    go(&bare, "eth0").expect("nothing of the host is there");
    let refused = go(&carries, "eth0").expect_err("the way in");
    assert!(refused.to_string().contains("192.0.2.7/24"), "{refused}");
    for machines in ["vi100", "tap0", "nothing"] {
        go(&carries, machines).expect("no way in");
    }
    let bridge = "ovsbr0".parse().expect("a name");
    let mut unseen = observed(&carries, &bridges);
    unseen.links = None;
    assert!(is_free_to_go(&bridge, &"eth0".parse().expect("a name"), &unseen).is_err());
}

#[test]
fn which_bridge_is_never_guessed() {
    let links = json!([{"name": "vi100"}]);
    let with = |bridges| plan(&wanted("vi100"), &observed(&links, &bridges), &[]);
    assert!(matches!(with(json!([])), Err(AttachError::NotFound(_))));
    let two = json!([{"name": "a"}, {"name": "b"}]);
    assert!(matches!(with(two), Err(AttachError::Unsuitable(_))));
    let usual = json!([{"name": "a"}, {"name": "ovsbr0"}]);
    assert_eq!(with(usual).expect("a plan").add.bridge.as_str(), "ovsbr0");
}

fn binding(device: &str, index: u64) -> Binding {
    Binding {
        vmid: Vmid::from_decimal("100").expect("a number"),
        index: IfIndex::from_checked(index).expect("a number"),
        device: device.parse().expect("a name"),
        bridge: "ovsbr0".parse().expect("a name"),
        container: "web-1".parse().expect("a name"),
        created: String::new(),
    }
}

#[test]
fn a_port_of_the_container_with_another_name_gets_the_first_free_number_and_keeps_it() {
    let port = json!({"name": "vethy", "vmid": 100});
    let bridges = json!([{"name": "ovsbr0", "ports": [port]}]);
    let seen = observed(&json!([{"name": "vethy"}]), &bridges);
    let index = |known: &[Binding]| {
        plan(&wanted("vethy"), &seen, known)
            .expect("a plan")
            .index
            .get()
    };
    assert_eq!(index(&[]), 0);
    assert_eq!(index(&[binding("a", 0), binding("b", 2)]), 1);
    assert_eq!(index(&[binding("a", 0), binding("vethy", 2)]), 2);
}

#[test]
fn every_name_that_a_host_s_end_of_the_container_has_will_do() {
    let bridges = json!([{"name": "ovsbr0"}]);
    for (link, index) in [
        (json!({"name": "veth100i3"}), 3),
        (json!({"name": "vi100_2"}), 2),
        (json!({"name": "fwln100o1"}), 1),
        (json!({"name": "lxc7", "altnames": ["vi100"]}), 0),
    ] {
        let name = link["name"].as_str().expect("a name").to_owned();
        let seen = observed(&json!([link]), &bridges);
        let plan = plan(&wanted(&name), &seen, &[]).expect("a plan");
        assert_eq!(plan.index.get(), index, "{name}");
        assert_eq!(plan.rename.is_some(), name == "veth100i3", "{name}");
    }
}

#[test]
fn a_binding_that_is_older_than_its_port_says_nothing_about_it() {
    let port = |vmid: serde_json::Value| -> Port {
        serde_json::from_value(json!({"name": "veth100i0", "vmid": vmid})).expect("a port")
    };
    let known = binding("veth100i0", 0);
    assert!(is_of(&port(json!(100)), Some(&known)));
    assert!(
        !is_of(&port(json!(101)), Some(&known)),
        "it is another machine's now"
    );
    assert!(
        !is_of(&port(json!(null)), Some(&known)),
        "it is no machine's now"
    );
    assert!(is_of(&port(json!(101)), None) && !is_of(&port(json!(null)), None));
}
