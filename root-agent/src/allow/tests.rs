//! Every action against every list: closing a list has to refuse what is named by it, and nothing else.

use std::collections::BTreeSet;

use blockhost_proto::catalog::CATALOG;
use serde_json::{Value, json};

use super::*;

fn action(name: &str, params: &Value) -> Action {
    Action::from_parts(name, params).unwrap_or_else(|e| panic!("{name} {params}: {e}"))
}

fn lists(text: &str) -> Allowlists {
    serde_saphyr::from_str(text).expect("lists")
}

/// Lists that have room for everything that the examples of the catalog name.
fn open() -> Allowlists {
    lists(
        "{uplinks: [eth0], public_pools: ['203.0.113.0/24'], route_prefixes: ['fd00::/16'], \
          route_networks: ['10.0.0.0/8', '2001:db8::/32'], container_ports: ['bhc*', 'vi*'], reserved_wallets: [vault]}",
    )
}

/// The lists of which each one alone can refuse the action: those that are asked.
fn asked(name: &str, params: &Value) -> BTreeSet<String> {
    let action = action(name, params);
    let open = open();
    assert_eq!(open.check(&action), Ok(()), "{name} {params}");
    let Ok(Value::Object(all)) = serde_json::to_value(&open) else {
        panic!("the lists are an object")
    };
    let mut refusing = BTreeSet::new();
    for list in all.keys() {
        let mut closed = all.clone();
        let nothing = match list.as_str() {
            "vmids" | "clone_from" => json!({"first": 999_999, "last": 999_999}),
            "route_prefixes" => json!(["fd99::/16"]),
            "reserved_wallets" => json!(["hot"]),
            _ => json!([]),
        };
        closed.insert(list.clone(), nothing);
        let closed: Allowlists = serde_json::from_value(closed.into()).expect("lists");
        let Err(failure) = closed.check(&action) else {
            continue;
        };
        assert_eq!(failure.code, ErrorCode::Forbidden);
        // What may be on either of several lists is said to be about one of them.
        let key = match (name, list.as_str()) {
            ("link-handover", _) => "uplinks",
            ("route-set" | "route-del" | "proxy-set", "route_devices") => "link_devices",
            (_, list) => list,
        };
        let place = format!("(allow.{key} of root-agent.yaml)");
        assert!(failure.message.ends_with(&place), "{}", failure.message);
        refusing.insert(list.clone());
    }
    refusing
}

fn set(lists: &[&str]) -> BTreeSet<String> {
    lists.iter().map(|&list| list.to_owned()).collect()
}

#[test]
fn each_action_of_the_catalog_asks_the_lists_of_what_it_names_and_no_other() {
    for spec in CATALOG {
        let expected: &[&str] = match spec.name {
            "addressbook-save" | "agent-info" | "container-look" | "iptables-list"
            | "masquerade-list" | "nat-list" | "pct-list" | "qm-list" => &[],
            name if name.starts_with("ledger-") => &[],
            "broker-renew" => &["broker_prefixes"],
            "container-attach" => &[
                "container_addresses",
                "container_interfaces",
                "container_ports",
            ],
            "container-detach" => &["container_ports"],
            "generate-wallet" => &["reserved_wallets"],
            "ip6-route-add" | "ip6-route-del" => &["route_devices", "route_prefixes"],
            "iptables-open" | "iptables-close" | "iptables-set" => &["firewall_ports"],
            "link-handover" => &["ovs_bridges", "uplinks"],
            "link-set" => &["link_addresses", "link_devices"],
            "nat-map" | "nat-unmap" | "nat-set" => &["nat_private", "public_pools"],
            "ovs-add-port" | "ovs-del-port" | "ovs-set-qos" => {
                &["ovs_bridges", "ovs_ports", "vmids"]
            }
            name if name.starts_with("ovs-") => &["ovs_bridges"],
            "pct-create" => &["bridges", "storages", "template_storages", "vmids"],
            "proxy-set" => &["link_devices", "public_pools", "uplinks"],
            "proxy-del" => &["public_pools", "uplinks"],
            "qm-clone" => &["clone_from", "vmids"],
            "qm-create" => &["bridges", "storages", "vmids"],
            "qm-importdisk" => &["image_dirs", "storages", "vmids"],
            "masquerade-set" => &["nat_private", "wg_names"],
            "route-from-set" | "route-from-del" => &["route_networks", "wg_names"],
            "route-set" | "route-del" => &["link_devices", "route_networks"],
            "sysctl-set" => &["host_settings", "uplinks"],
            "virt-customize" => &["image_dirs"],
            "wg-setup" => &["wg_addresses", "wg_names", "wg_ports"],
            name if name.starts_with("wg-") => &["wg_names"],
            // What is left is done to one machine.
            _ => &["vmids"],
        };
        let found = asked(spec.name, &spec.example_params());
        assert_eq!(found, set(expected), "{}", spec.name);
    }
}

#[test]
fn what_an_example_does_not_name_is_asked_where_it_is_named() {
    let template = "/var/lib/vz/template/cache/debian.tar.zst";
    for (name, params, expected) in [
        (
            "qm-set",
            json!({"vmid": 100, "options": {"cicustom": "user=local:snippets/a.yaml"}}),
            &["snippet_storages", "vmids"][..],
        ),
        (
            "qm-set",
            json!({"vmid": 100, "options": {"scsi1": "local:9000/base-9000-disk-0.qcow2/100/vm-100-disk-0.qcow2"}}),
            &["clone_from", "storages", "vmids"],
        ),
        (
            "qm-create",
            json!({"vmid": 100, "name": "a", "args": ["--virtio0", "local-lvm:base-9000-disk-0/vm-100-disk-0"]}),
            &["clone_from", "storages", "vmids"],
        ),
        (
            "qm-set",
            json!({"vmid": 100, "options": {"scsi1": "local-lvm:8"}}),
            &["storages", "vmids"],
        ),
        (
            "qm-set",
            json!({"vmid": 100, "options": {"net1": "virtio,bridge=vmbr0"}}),
            &["bridges", "vmids"],
        ),
        (
            "pct-set",
            json!({"vmid": 100, "options": {"net1": "name=eth1,bridge=vmbr0,ip=dhcp"}}),
            &["bridges", "vmids"],
        ),
        (
            "pct-create",
            json!({"vmid": 100, "template": template, "hostname": "a", "options": {"rootfs": "local:8"}}),
            &["storages", "template_dirs", "vmids"],
        ),
        ("qm-metrics", json!({}), &[]),
        ("ovs-list", json!({}), &[]),
        (
            "ovs-add-port",
            json!({"bridge": "ovsbr1", "port": "bhcx"}),
            &["ovs_bridges", "ovs_ports"],
        ),
        (
            "ovs-add-port",
            json!({"bridge": "ovsbr1", "port": "bhcx", "vmid": 100}),
            &["ovs_bridges", "ovs_ports", "vmids"],
        ),
        (
            "route-set",
            json!({"dest": "203.0.113.7/32", "dev": "vmbr0"}),
            &["public_pools", "route_devices"],
        ),
        (
            "route-del",
            json!({"dest": "10.9.0.0/24", "dev": "vi100"}),
            &["link_devices", "route_networks", "vmids"],
        ),
        (
            "proxy-set",
            json!({"address": "203.0.113.7", "dev": "eth0", "behind": "vi100"}),
            &["link_devices", "public_pools", "uplinks", "vmids"],
        ),
        (
            "link-set",
            json!({"dev": "vi100", "up": true}),
            &["link_devices", "vmids"],
        ),
        (
            "container-detach",
            json!({"container": "4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01", "port": "vi100"}),
            &["container_ports", "vmids"],
        ),
        (
            "wg-setup",
            json!({"name": "wg0", "addresses": ["10.8.0.1/24"]}),
            &["wg_addresses", "wg_names"],
        ),
        (
            "link-handover",
            json!({"from": "eth0", "to": "vmbr0"}),
            &["bridges", "uplinks"],
        ),
    ] {
        assert_eq!(asked(name, &params), set(expected), "{name} {params}");
    }
}

#[test]
fn what_may_be_cloned_is_what_may_be_touched_where_no_list_of_its_own_says_otherwise() {
    let clone = |text: &str, vmid: u32, newid: u32| {
        let params = json!({"vmid": vmid, "newid": newid, "name": "a"});
        lists(text)
            .check(&action("qm-clone", &params))
            .map_err(|failure| failure.message)
    };
    let own = "vmids: {first: 200, last: 299}";
    assert_eq!(clone(own, 200, 201), Ok(()));
    let why = clone(own, 9000, 201).expect_err("not ours");
    assert!(why.contains("allow.vmids"), "{why}");
    let apart = "{vmids: {first: 200, last: 299}, clone_from: {first: 9000, last: 9001}}";
    assert_eq!(clone(apart, 9000, 201), Ok(()));
    for vmid in [200, 8999, 9002] {
        let why = clone(apart, vmid, 201).expect_err("no source");
        assert!(
            why.contains("9000-9001 (allow.clone_from of"),
            "{vmid}: {why}"
        );
    }
    // Only a source: it is neither made nor changed by being on that list.
    let why = clone(apart, 9000, 9001).expect_err("no machine of ours");
    assert!(why.contains("allow.vmids"), "{why}");
}

#[test]
fn a_file_that_goes_into_an_image_is_below_the_same_directories_as_the_image() {
    let customize = |image: &str, file: &str| {
        let commands = json!([["upload", format!("{file}:/root/a")]]);
        let params = json!({"image_path": image, "commands": commands});
        open()
            .check(&action("virt-customize", &params))
            .map_err(|failure| failure.message)
    };
    let own = "/var/lib/blockhost/images/a.qcow2";
    assert_eq!(customize(own, "/var/lib/blockhost/images/b"), Ok(()));
    for (image, file) in [
        ("/etc/a.qcow2", "b"),
        (own, "/etc/b"),
        (own, "/var/lib/blockhost/imagesque/b"),
    ] {
        let why = customize(image, file).expect_err("outside");
        assert!(why.contains("/var/lib/blockhost/images"), "{why}");
    }
}

#[test]
fn a_network_has_to_lie_in_one_prefix_whole() {
    let lists = lists("{route_networks: ['10.8.0.0/16', 'fd00:8::/32'], public_pools: []}");
    for (dest, good) in [
        ("10.8.0.0/16", true),
        ("10.8.255.0/24", true),
        ("10.8.0.0/15", false),
        ("10.9.0.0/16", false),
        ("fd00:8::/32", true),
        ("fd00:8:ffff::/48", true),
        ("fd00:8::/31", false),
        ("fd00:9::/32", false),
    ] {
        let set = action("route-set", &json!({"dest": dest, "dev": "vmbr0"}));
        assert_eq!(lists.check(&set).is_ok(), good, "{dest}");
    }
    let refused = |dest: &str| {
        let set = action("route-set", &json!({"dest": dest, "dev": "vmbr0"}));
        lists.check(&set).expect_err(dest).message
    };
    // What has to be set is another list for a public address.
    for dest in ["203.0.113.7/32", "2001:db8::/64"] {
        let why = refused(dest);
        assert!(
            why.contains("inside public_pools, public networks behind the device inside route_networks (allow.public_pools of"),
            "{why}"
        );
    }
    assert!(!refused("10.9.0.0/16").contains("public_pools"));
    let one = |pool: &str, address: &str, private: &str| {
        let list = format!("{{public_pools: ['{pool}'], nat_private: ['{private}']}}");
        let pair = json!({"public": address, "private": "10.0.0.7", "comment": "x"});
        self::lists(&list).check(&action("nat-map", &pair)).is_ok()
    };
    assert!(one("203.0.113.7/32", "203.0.113.7", "10.0.0.7/32"));
    assert!(!one("203.0.113.7/32", "203.0.113.8", "10.0.0.7/32"));
    assert!(!one("203.0.113.7/32", "203.0.113.7", "10.0.0.8/32"));
}

#[test]
fn an_empty_list_of_prefixes_for_routes_is_any_address_and_a_full_one_is_not() {
    let route = |prefixes: &str, address: &str| {
        let params = json!({"address": address, "dev": "vmbr0"});
        let lists = lists(&format!("route_prefixes: [{prefixes}]"));
        lists
            .check(&action("ip6-route-add", &params))
            .map_err(|failure| failure.message)
    };
    assert_eq!(route("", "fd00:1::1/128"), Ok(()));
    assert_eq!(
        route("'fd00:2::/32','fd00:1::/32'", "fd00:1::1/128"),
        Ok(())
    );
    let why = route("'fd00:2::/32','fd00:3::/32'", "fd00:1::1/128").expect_err("elsewhere");
    assert!(why.contains("fd00:2::/32, fd00:3::/32"), "{why}");
}

#[test]
fn a_handover_is_between_devices_that_are_known_and_one_of_them_leads_out() {
    let lists = lists("{bridges: [vmbr0, vmbr1], ovs_bridges: [ovsbr0], uplinks: [eth0, eth1]}");
    for (from, to, good) in [
        ("eth0", "vmbr0", true),
        ("vmbr0", "eth0", true),
        ("ovsbr0", "eth1", true),
        ("eth0", "eth1", true),
        ("vmbr0", "vmbr1", false),
        ("vmbr0", "ovsbr0", false),
        ("eth0", "eth2", false),
        ("eth2", "eth0", false),
        ("eth2", "vmbr0", false),
    ] {
        let action = action("link-handover", &json!({"from": from, "to": to}));
        assert_eq!(lists.check(&action).is_ok(), good, "{from} to {to}");
    }
}

#[test]
fn what_the_compartment_takes_over_is_what_an_action_could_have_made() {
    let lists = lists(
        "{bridges: [vmbr0], ovs_bridges: [ovsbr0], uplinks: [eth0], link_devices: [lan0, 'br*', 'vi*'], \
          wg_names: [wg-a], route_devices: [vmbr1], vmids: {first: 100, last: 199}, \
          link_addresses: ['10.0.0.0/8'], route_networks: ['10.0.0.0/8'], public_pools: ['203.0.113.0/24']}",
    );
    for (name, device, bridge, hand, uplink, route) in [
        ("lan0", true, false, true, false, false),
        ("br7", true, false, false, false, false),
        ("br*", false, false, true, false, false),
        ("wg-a", true, false, false, false, false),
        ("wg-b", false, false, false, false, false),
        ("vi100", true, false, false, false, false),
        ("vi200", false, false, false, false, false),
        ("vmbr0", false, true, false, false, false),
        ("ovsbr0", false, true, false, false, false),
        ("eth0", false, false, false, true, false),
        ("vmbr1", false, false, false, false, true),
        ("", false, false, false, false, false),
    ] {
        let found = (
            lists.names_bridge(name),
            lists.names_by_hand(name),
            lists.names_uplink(name),
            lists.names_route_device(name),
        );
        assert_eq!(found, (bridge, hand, uplink, route), "{name}");
        // No device has a name with a star in it.
        let named = lists.names_device(name) && !name.contains('*');
        assert_eq!(named, device, "{name}");
    }
    let at = |text: &str| text.parse::<IpAddr>().expect("address");
    assert!(lists.names_address(at("10.1.2.3"), 8) && lists.names_address(at("10.1.2.3"), 32));
    assert!(!lists.names_address(at("10.1.2.3"), 7) && !lists.names_address(at("192.168.0.1"), 24));
    let dest = |text: &str| RouteNet::read(text).expect("network");
    let (private, public) = (dest("10.9.0.0/24"), dest("203.0.113.7/32"));
    assert!(lists.is_public(public) && !lists.is_public(private));
    for (device, good) in [
        ("lan0", true),
        ("vmbr1", true),
        ("vi100", true),
        ("vi200", false),
        ("eth0", false),
        ("a device", false),
    ] {
        assert_eq!(lists.names_route(private, device), good, "{device}");
        assert_eq!(lists.names_route(public, device), good, "{device}");
    }
    assert!(!lists.names_route(dest("192.168.0.0/24"), "lan0"));
}

#[test]
fn a_device_is_a_machines_when_its_name_has_the_form_and_the_number_of_one() {
    for (name, vmid) in [
        ("vi100", Some(100)),
        ("vi0100", Some(100)),
        ("vi100_3", Some(100)),
        ("veth101i0", Some(101)),
        ("tap102i12", Some(102)),
        ("fwln103o0", Some(103)),
        ("fwln103i0", Some(103)),
        ("fwpr104p0", Some(104)),
        ("vi", None),
        ("vi99", None),
        ("vi0", None),
        ("vi100_", None),
        ("vi100_a", None),
        ("vi_1", None),
        ("vi10a", None),
        ("vi+100", None),
        ("veth101", None),
        ("veth101i", None),
        ("vethi0", None),
        ("veth1a1i0", None),
        ("tap102", None),
        ("fwpr104", None),
        ("eth0", None),
        ("", None),
    ] {
        assert_eq!(machine_of(name).map(Vmid::get), vmid, "{name}");
        assert_eq!(is_machines(name), vmid.is_some(), "{name}");
    }
    for (name, other) in [
        ("vi100", Some("veth100i0")),
        ("vi100_3", Some("veth100i3")),
        ("vi99", None),
        ("vi100_x", None),
        ("veth100i0", None),
        ("", None),
    ] {
        assert_eq!(alternative_of(name).as_deref(), other, "{name}");
    }
}

#[test]
fn what_may_be_named_is_said_and_that_nothing_may() {
    let start = action("qm-start", &json!({"vmid": 300}));
    let two = "vmids: [{first: 100, last: 199}, {first: 9000, last: 9000}]";
    let why = lists(two).check(&start).expect_err("not listed").message;
    assert_eq!(
        why,
        "machine 300 is not allowed; allowed: 100-199, 9000-9000 (allow.vmids of root-agent.yaml)"
    );
    let open = action("iptables-open", &json!({"port": 22, "comment": "x"}));
    let ports = |text: &str| lists(text).check(&open).expect_err("not listed").message;
    assert!(ports("firewall_ports: ['1-21', '23']").contains("allowed: 1-21, 23-23 ("));
    assert!(ports("firewall_ports: []").contains("allowed: none ("));
}

fn attaches(port: &str, list: &[&str]) -> bool {
    let allow = Allowlists {
        ovs_ports: list.iter().map(|entry| (*entry).to_owned()).collect(),
        ..Allowlists::default()
    };
    let params = json!({"bridge": "ovsbr0", "port": port});
    let action = Action::from_parts("ovs-add-port", &params).expect("valid");
    allow.check(&action).is_ok()
}

#[test]
fn a_star_stands_for_machines_devices_and_not_for_what_others_call_alike() {
    let usual = Allowlists::default().ovs_ports;
    let usual: Vec<&str> = usual.iter().map(String::as_str).collect();
    for machines in [
        "vi100",
        "vi100_1",
        "veth100i0",
        "tap100i1",
        "fwln100o0",
        "bhc7xk2mq4a",
    ] {
        assert!(attaches(machines, &usual), "{machines}");
    }
    for others in [
        // Docker, OpenVPN, libvirt, and a name that only begins like one.
        "veth1a2b3c4",
        "vethwg0",
        "tap0",
        "tap_vpn",
        "tapestry",
        "virbr0",
        "virbr0-nic",
        "vip0",
        "fwln",
        "fwlnx",
        "fwpr100p",
        "veth100i",
        "veth100i0x",
        "vethi0",
        "tap100",
        "tap99i0",
        "tap1000000i0",
        "tap+100i0",
        "vi",
        "vi_1",
        "vi100_",
        "eth0",
    ] {
        if SwitchIfName::read(others).is_none() {
            continue;
        }
        assert!(!attaches(others, &usual), "{others}");
        assert!(!attaches(others, &["t*", "v*", "f*"]), "{others}");
        assert!(attaches(others, &[others]), "{others} was named whole");
    }
    // Machines that the policy leaves out stay out, however they are written.
    for zeros in ["tap0100i0", "veth00100i0"] {
        let allow = Allowlists {
            vmids: Vmids::range(200, 300),
            ..Allowlists::default()
        };
        let params = json!({"bridge": "ovsbr0", "port": zeros});
        let action = Action::from_parts("ovs-add-port", &params).expect("valid");
        assert!(allow.check(&action).is_err(), "{zeros}");
    }
    // Other programs' names are the operator's to list as ever.
    assert!(attaches("patch-left", &["patch-*"]));
    assert!(attaches("dpdk0", &["*"]));
}
