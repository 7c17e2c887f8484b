//! Plans for one container, from what there is to the actions.

use std::collections::BTreeMap;

use super::*;
use crate::state::fields::Place;
use crate::state::lxc::{FoundBridge, section};

fn wanted(properties: &Value) -> Container {
    let item = json!({"id": 100, "bridge": "ovsbr0", "properties": properties});
    section::container(&item, Place::top()).expect("good")
}

fn port(bridge: &str, ours: bool) -> FoundPort {
    FoundPort {
        name: "vi100".into(),
        bridge: bridge.into(),
        ours,
        tag: None,
        attached_mac: Some("02:00:00:00:00:64".into()),
        works: true,
        link_up: true,
        error: None,
        heard: false,
    }
}

fn found(host_end: &str, named: bool, port: Option<FoundPort>) -> Found {
    let interface = FoundInterface {
        net: "name=eth0,bridge=ovsbr0,hwaddr=02:00:00:00:00:64,type=veth".into(),
        host_end: Some(host_end.into()),
        mtu: Some(1500),
        named,
        port,
    };
    let bridge = FoundBridge {
        on_switch: true,
        addresses: Vec::new(),
        forwards: true,
    };
    Found {
        status: "running".into(),
        ours: true,
        options: BTreeMap::from([
            ("memory".into(), "512".into()),
            ("rootfs".into(), "local:100/d.raw,size=8G".into()),
        ]),
        interfaces: BTreeMap::from([(0, interface)]),
        bridges: BTreeMap::from([("ovsbr0".into(), bridge)]),
        forwards_v6: true,
        narrowest: None,
    }
}

fn actions(planned: &Planned) -> Vec<String> {
    let steps = planned.steps.iter();
    steps
        .map(|step| format!("{} {}", step.action.name(), step.action.params()))
        .collect()
}

#[test]
fn a_containers_interface_is_named_and_attached_under_the_name_that_its_manager_keeps() {
    let wanted = wanted(&json!({}));
    let plan = |found: &Found| actions(&change(&wanted, found, None));
    let attach = |port: &str| {
        let params = json!({"bridge": "ovsbr0", "port": port, "vmid": 100, "kind": "system", "iface_id": "eth0", "attached_mac": "02:00:00:00:00:64"});
        format!("ovs-add-port {params}")
    };
    // As Proxmox leaves it, as the embedded backend does, and as it should be.
    assert_eq!(
        plan(&found("veth100i0", false, None)),
        [
            r#"veth-rename {"index":0,"vmid":100}"#.to_owned(),
            attach("veth100i0")
        ]
    );
    assert_eq!(plan(&found("vi100", true, None)), [attach("vi100")]);
    assert_eq!(
        plan(&found("vi100", true, Some(port("ovsbr0", true)))),
        Vec::<String>::new()
    );
    // Attached by the manager itself: left alone.
    assert_eq!(
        plan(&found("vi100", true, Some(port("ovsbr0", false)))),
        Vec::<String>::new()
    );
    // On the wrong bridge: moved, and back there when that fails.
    let planned = change(
        &wanted,
        &found("vi100", true, Some(port("ovsbr1", true))),
        None,
    );
    assert_eq!(planned.steps[0].action.name(), "ovs-del-port");
    assert_eq!(planned.steps[0].undo[0].action.name(), "ovs-add-port");
    assert_eq!(planned.steps[1].action.name(), "ovs-add-port");
}

#[test]
fn a_bridge_of_the_kernel_is_the_managers_to_attach_to() {
    let mut there = found("vi100", true, None);
    there
        .bridges
        .insert("ovsbr0".into(), FoundBridge::default());
    assert!(change(&wanted(&json!({})), &there, None).is_settled());
    assert_eq!(
        complaints(&wanted(&json!({})), &there),
        Vec::<String>::new()
    );
}

#[test]
fn only_what_differs_is_set_and_it_is_put_back_to_what_it_was() {
    let there = found("vi100", true, Some(port("ovsbr0", true)));
    let planned = change(&wanted(&json!({"memory": 1024})), &there, None);
    assert_eq!(
        actions(&planned),
        [r#"pct-set {"options":{"memory":"1024"},"vmid":100}"#]
    );
    let undo = planned.steps[0].undo[0].action.params();
    assert_eq!(undo["options"], json!({"memory": "512"}));
    // What was not set before cannot be unset.
    let planned = change(&wanted(&json!({"cores": 2})), &there, None);
    assert!(planned.steps[0].undo.is_empty());
    // A new address is a new wiring: reality decides what comes next.
    let planned = change(&wanted(&json!({"ip": "10.0.0.9/24"})), &there, None);
    assert!(planned.steps[0].look_again && planned.steps.len() == 1);
    let net = &planned.steps[0].action.params()["options"]["net0"];
    assert_eq!(
        net,
        "name=eth0,bridge=ovsbr0,hwaddr=02:00:00:00:00:64,ip=10.0.0.9/24"
    );
}

#[test]
fn the_root_file_system_is_not_made_anew_under_a_container() {
    let there = found("vi100", true, Some(port("ovsbr0", true)));
    let same = wanted(&json!({"storage": "local", "rootfs_size": 8}));
    assert!(change(&same, &there, None).is_settled());
    for (storage, size) in [("local", 9), ("fast", 8)] {
        let other = wanted(&json!({"storage": storage, "rootfs_size": size}));
        let planned = change(&other, &there, None);
        assert!(planned.blocked.is_some(), "{storage}:{size}");
    }
}

#[test]
fn a_container_that_cannot_be_made_is_refused_before_anything_is_tried() {
    assert!(create(&wanted(&json!({}))).blocked.is_some());
    let template = json!({"template": "local:vztmpl/d.tar.zst"});
    assert!(create(&wanted(&template)).blocked.is_some());
}

#[test]
fn what_is_wrong_with_a_port_is_said() {
    let with = |change: fn(&mut FoundPort)| {
        let mut port = port("ovsbr0", true);
        change(&mut port);
        complaints(&wanted(&json!({})), &found("vi100", true, Some(port)))
    };
    assert_eq!(with(|_| ()), Vec::<String>::new());
    assert!(with(|port| port.link_up = false)[0].contains("no carrier"));
    assert!(with(|port| port.works = false)[0].contains("cannot use"));
}

#[test]
fn a_routed_interface_is_told_what_on_the_host_does_not_fit_it() {
    let routed = |more: &[(&str, Value)]| {
        let mut properties =
            json!({"network_type": "netmaker", "ip": "10.20.0.100/24", "gw": "10.20.0.1"});
        for (key, value) in more {
            properties[*key] = value.clone();
        }
        wanted(&properties)
    };
    let host = |addresses: &[&str], forwards: bool| {
        let mut heard = port("ovsbr0", true);
        heard.heard = true;
        let mut found = found("vi100", true, Some(heard));
        let bridge = found.bridges.get_mut("ovsbr0").expect("it");
        bridge.addresses = addresses.iter().map(|text| (*text).to_owned()).collect();
        bridge.forwards = forwards;
        found
    };
    let fits = host(&["10.20.0.1/24", "fd20::1/64"], true);
    assert_eq!(remarks(&routed(&[]), &fits), Vec::<String>::new());
    let narrow = Found {
        narrowest: Some(("wg0".into(), 1380)),
        forwards_v6: false,
        ..fits.clone()
    };
    let small = routed(&[("mtu", 1380.into())]);
    let mut restarted = narrow.clone();
    restarted.interfaces.get_mut(&0).expect("it").mtu = Some(1380);
    for wanted in [&small, &routed(&[])] {
        assert_eq!(remarks(wanted, &restarted), Vec::<String>::new());
    }
    let six = [("ip6", "fd20::9/64".into()), ("gw6", "fd20::1".into())];
    for (wanted, found, told) in [
        (routed(&[]), host(&[], true), "has no address on ovsbr0"),
        (routed(&[]), host(&["10.20.0.1/24"], false), "section mesh"),
        (
            routed(&[]),
            host(&["10.20.0.1/26"], true),
            "the way back to 10.20.0.100 is missing",
        ),
        (
            routed(&[]),
            host(&["10.20.0.2/24"], true),
            "10.20.0.1, which is no address of the host",
        ),
        (routed(&[]), narrow.clone(), "`mtu: 1380` spares that"),
        (small, narrow.clone(), "its next start spares that"),
        (
            routed(&[("mtu", 1500.into())]),
            narrow.clone(),
            "`mtu: 1380` spares that",
        ),
        (routed(&six), narrow, "does not forward IPv6"),
    ] {
        let remarks = remarks(&wanted, &found).join("\n");
        assert!(remarks.contains(told), "{told}: {remarks}");
    }
}

#[test]
fn a_routed_interface_gets_the_mtu_of_the_narrowest_tunnel_unless_the_document_says_another() {
    let routed = json!({"network_type": "netmaker", "ip": "10.20.0.100/24", "gw": "10.20.0.1"});
    let with = |mut properties: Value, mtu: Option<u16>| {
        if let Some(mtu) = mtu {
            properties["mtu"] = mtu.into();
        }
        wanted(&properties)
    };
    let there = |net: &str, narrowest: u32| {
        let mut found = found("vi100", true, Some(port("ovsbr0", true)));
        found.narrowest = Some(("wg0".into(), narrowest));
        found.status = "stopped".into();
        let more = format!(",ip=10.20.0.100/24,gw=10.20.0.1{net}");
        found
            .interfaces
            .get_mut(&0)
            .expect("it")
            .net
            .push_str(&more);
        found
    };
    for (wanted, found, mtu) in [
        (with(routed.clone(), None), there("", 1380), Some(1380)),
        (
            with(routed.clone(), None),
            there(",mtu=1400", 1380),
            Some(1380),
        ),
        (with(routed.clone(), None), there(",mtu=1300", 1380), None),
        (with(routed.clone(), None), there("", 1500), None),
        (
            with(routed.clone(), Some(1500)),
            there("", 1380),
            Some(1500),
        ),
        (
            with(routed.clone(), Some(1280)),
            there("", 1380),
            Some(1280),
        ),
        (
            with(json!({"ip": "10.20.0.100/24", "gw": "10.20.0.1"}), None),
            there("", 1380),
            None,
        ),
    ] {
        let planned = change(&wanted, &found, None);
        let set = planned
            .steps
            .iter()
            .find(|step| step.action.name() == "pct-set");
        let text = set.map(|step| step.action.params().to_string());
        match mtu {
            Some(mtu) => {
                let text = text.unwrap_or_else(|| panic!("{:?}", found.interfaces));
                assert!(text.contains(&format!(",mtu={mtu}")), "{text}");
                let back = set.expect("it").undo[0].action.params().to_string();
                assert!(!back.contains(&format!(",mtu={mtu}")), "{back}");
            }
            None => assert_eq!(text, None, "{:?}", found.interfaces),
        }
    }
    // Nothing would come of it before its next start; it is said.
    let mut running = there("", 1380);
    running.status = "running".into();
    let planned = change(&with(routed, None), &running, None);
    assert!(
        planned
            .steps
            .iter()
            .all(|step| step.action.name() != "pct-set")
    );
}
