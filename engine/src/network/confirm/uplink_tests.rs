use super::*;
use crate::network::confirm::plan::gateways;
use crate::network::confirm::verify::{self, holds};
use crate::network::observe::{Bridge, Hop, ManagedDevice, NetworkManager, Port, Problem, Switch};

const MAC: &str = "02:00:00:00:00:01";

fn link(name: &str, mac: &str, addresses: &[&str]) -> Link {
    let value = json!({
        "index": 2, "name": name, "altnames": [], "kind": null, "alias": null, "mac": mac, "mtu": 1500, "up": true,
        "operstate": "up", "carrier": true, "master": null, "lower": null, "addresses": addresses,
        "counters": {"rx_packets": 0, "rx_bytes": 0, "rx_dropped": 0, "rx_errors": 0,
            "tx_packets": 0, "tx_bytes": 0, "tx_dropped": 0, "tx_errors": 0},
    });
    serde_json::from_value(value).expect("a link")
}

fn route(destination: &str, dev: &str, gateway: Option<&str>) -> Route {
    Route {
        destination: destination.to_owned(),
        hops: vec![Hop {
            link: Some(dev.to_owned()),
            gateway: gateway.map(|g| g.parse().expect("an address")),
        }],
        metric: 100,
        table: 254,
        protocol: 4,
    }
}

fn bridge(name: &str, ports: Vec<Port>) -> Bridge {
    let mut bridge: Bridge =
        serde_json::from_value(json!({"name": name, "ours": true})).expect("a bridge");
    bridge.ports = ports;
    bridge
}

fn port(value: Value) -> Port {
    serde_json::from_value(value).expect("a port")
}

fn host() -> Observed {
    Observed {
        links: Some(vec![link(
            "eth0",
            MAC,
            &["192.0.2.2/24", "fd99::2/64", "fe80::1/64"],
        )]),
        routes: Some(vec![
            route("0.0.0.0/0", "eth0", Some("192.0.2.1")),
            route("192.0.2.0/24", "eth0", None),
            route("fe80::/64", "eth0", None),
        ]),
        switch: Some(Switch { bridges: vec![] }),
        ..Observed::default()
    }
}

fn attached() -> Observed {
    let mut host = host();
    host.links = Some(vec![
        link("eth0", MAC, &["fe80::1/64"]),
        link(
            "ovsbr0",
            MAC,
            &["10.77.0.1/24", "192.0.2.2/24", "fe80::2/64"],
        ),
    ]);
    host.routes = Some(vec![
        route("0.0.0.0/0", "ovsbr0", Some("192.0.2.1")),
        route("192.0.2.0/24", "ovsbr0", None),
        route("10.77.0.0/24", "ovsbr0", None),
        route("10.78.0.0/24", "ovsbr0", Some("10.77.0.9")),
    ]);
    let on = json!({"name": "eth0", "ours": true, "ofport": 1, "tag": 7, "trunks": [8, 9]});
    host.switch = Some(Switch {
        bridges: vec![bridge("ovsbr0", vec![port(on)])],
    });
    host
}

fn uplink() -> Uplink {
    Uplink {
        bridge: SwitchIfName::read("ovsbr0").expect("a name"),
        uplink: SwitchIfName::read("eth0").expect("a name"),
        datapath: Some("netdev".to_owned()),
        keep: vec![],
    }
}

fn words(plan: &Plan) -> (Vec<String>, Vec<String>) {
    let forward = plan.steps.iter().map(|step| step.forward.to_string());
    let steps = plan.steps.iter().rev();
    let back = steps.flat_map(|step| step.inverse.iter().map(|undo| undo.call.to_string()));
    (forward.collect(), back.collect())
}

#[test]
fn a_new_bridge_has_the_uplinks_address_and_gets_what_it_carries_and_the_way_back_is_the_opposite()
{
    let plan = attach(&host(), &uplink()).expect("a plan");
    let (forward, back) = words(&plan);
    assert_eq!(
        forward,
        [
            r#"ovs-add-br {"bridge":"ovsbr0","options":{"datapath_type":"netdev","hwaddr":"02:00:00:00:00:01"}}"#,
            r#"ovs-add-port {"bridge":"ovsbr0","kind":"system","port":"eth0"}"#,
            r#"link-handover {"from":"eth0","to":"ovsbr0"}"#,
        ]
    );
    assert_eq!(
        back,
        [
            r#"link-handover {"from":"ovsbr0","to":"eth0"}"#,
            r#"ovs-del-port {"bridge":"ovsbr0","port":"eth0"}"#,
            r#"ovs-del-br {"bridge":"ovsbr0"}"#,
        ]
    );
    assert_eq!(
        plan.expect.links[0].addresses,
        ["192.0.2.2/24", "fd99::2/64"]
    );
    assert_eq!(plan.expect.routes.len(), 2);
}

#[test]
fn a_bridge_that_is_there_is_not_deleted_on_the_way_back_and_keeps_what_it_had() {
    let mut host = host();
    let mut own = link("ovsbr0", "02:00:00:00:00:99", &["10.77.0.1/24"]);
    own.up = false;
    host.links.as_mut().expect("links").push(own);
    host.switch = Some(Switch {
        bridges: vec![bridge("ovsbr0", vec![])],
    });
    let plan = attach(&host, &uplink()).expect("a plan");
    let (forward, back) = words(&plan);
    assert!(forward[0].starts_with("ovs-add-port"), "{forward:?}");
    assert_eq!(
        back,
        [
            r#"link-handover {"from":"ovsbr0","keep":["10.77.0.1/24"],"to":"eth0"}"#,
            r#"link-set {"dev":"ovsbr0","up":false}"#,
            r#"ovs-del-port {"bridge":"ovsbr0","port":"eth0"}"#,
        ]
    );
    // Taken back once, the bridge has its own address again, and a second time must not give that to the uplink.
    let undo = &plan.steps[1].inverse[0];
    let condition = undo.only_if.as_ref().expect("a condition");
    assert!(!holds(condition, host.links.as_ref().expect("links")));
    assert!(holds(condition, attached().links.as_ref().expect("links")));
}

#[test]
fn an_uplink_comes_back_without_what_stays_and_its_port_would_be_as_it_was() {
    let mut change = uplink();
    change.keep = vec![InterfaceAddress::read("10.77.0.1/24").expect("an address")];
    let plan = detach(&attached(), &change).expect("a plan");
    let (forward, back) = words(&plan);
    assert_eq!(
        forward,
        [
            r#"link-handover {"from":"ovsbr0","keep":["10.77.0.1/24"],"to":"eth0"}"#,
            r#"ovs-del-port {"bridge":"ovsbr0","port":"eth0"}"#,
        ]
    );
    assert_eq!(
        back,
        [
            r#"ovs-add-port {"bridge":"ovsbr0","kind":"system","port":"eth0","tag":7,"trunks":[8,9]}"#,
            r#"link-handover {"from":"eth0","to":"ovsbr0"}"#,
        ]
    );
    let to: Vec<&str> = plan.expect.routes.iter().map(|r| &*r.destination).collect();
    assert_eq!(to, ["0.0.0.0/0", "192.0.2.0/24"]);
}

#[test]
fn what_cannot_be_taken_back_exactly_is_not_begun() {
    let refused = |edit: &dyn Fn(&mut Observed), why: &str| {
        let mut host = host();
        edit(&mut host);
        let error = attach(&host, &uplink()).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(&|h| h.links.as_mut().expect("l")[0].up = false, "is down");
    refused(
        &|h| h.links.as_mut().expect("l")[0].master = Some("br1".to_owned()),
        "belongs to br1",
    );
    refused(
        &|h| h.links.as_mut().expect("l").clear(),
        "no network device eth0",
    );
    refused(&|h| h.switch = None, "Open vSwitch");
    refused(
        &|h| {
            h.problems.push(Problem {
                part: "routes".to_owned(),
                what: "half of it".to_owned(),
            });
        },
        "half of it",
    );
    refused(
        &|h| {
            h.links
                .as_mut()
                .expect("l")
                .push(link("ovsbr0", "02:00:00:00:00:09", &[]))
        },
        "no bridge of the switch",
    );
    refused(
        &|h| {
            let on = port(json!({"name": "eth0", "ours": true}));
            h.switch = Some(Switch {
                bridges: vec![bridge("other", vec![on])],
            });
        },
        "on other already",
    );
    refused(
        &|h| {
            let hops = &mut h.routes.as_mut().expect("r")[0].hops;
            hops.push(Hop {
                link: Some("eth1".to_owned()),
                gateway: None,
            });
        },
        "several devices",
    );
    refused(
        &|h| {
            h.links
                .as_mut()
                .expect("l")
                .push(link("ovsbr0", MAC, &["192.0.2.2/24"]));
            h.switch = Some(Switch {
                bridges: vec![bridge("ovsbr0", vec![])],
            });
        },
        "both have the address 192.0.2.2/24",
    );
    let refused = |edit: &dyn Fn(&mut Port), why: &str| {
        let mut host = attached();
        edit(&mut host.switch.as_mut().expect("s").bridges[0].ports[0]);
        let error = detach(&host, &uplink()).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(&|p| p.ours = false, "not attached by the root agent");
    refused(&|p| p.qos = true, "queues");
    refused(&|p| p.name = Some("eth9".to_owned()), "nothing to do");
    let mut change = uplink();
    change.keep = vec![InterfaceAddress::read("10.99.0.1/24").expect("an address")];
    assert!(detach(&attached(), &change).is_err());
}

#[test]
fn who_renews_what_moved_is_told_about() {
    let mut host = host();
    host.routes.as_mut().expect("routes")[0].protocol = DHCP;
    host.network_manager = Some(NetworkManager {
        version: String::new(),
        state: String::new(),
        connectivity: String::new(),
        active_connections: 0,
        total_connections: 0,
        devices: 1,
        device_list: vec![ManagedDevice {
            path: "/d/1".to_owned(),
            interface: "eth0".to_owned(),
            managed: true,
            device_type: 1,
            state: 100,
        }],
    });
    let notes = attach(&host, &uplink()).expect("a plan").notes;
    assert!(
        notes[0].contains("DHCP") && notes[1].contains("NetworkManager"),
        "{notes:?}"
    );
}

#[test]
fn a_plan_that_is_read_back_is_validated_again() {
    let plan = attach(&host(), &uplink()).expect("a plan");
    let text = serde_json::to_string(&plan).expect("JSON");
    assert_eq!(serde_json::from_str::<Plan>(&text).expect("a plan"), plan);
    for (good, bad) in [
        ("ovs-del-br", "rm-rf"),
        (r#""bridge":"ovsbr0""#, r#""bridge":"../../x""#),
        (r#""port":"eth0""#, r#""port":"--eth0""#),
        (r#""what":"#, r#""whatever":"#),
    ] {
        let text = text.replace(good, bad);
        assert!(serde_json::from_str::<Plan>(&text).is_err(), "{bad}");
    }
}

#[test]
fn what_a_plan_expects_is_so_after_it_and_not_before() {
    let plan = attach(&host(), &uplink()).expect("a plan");
    let mut after = attached();
    after.links.as_mut().expect("links")[1]
        .addresses
        .push("fd99::2/64".to_owned());
    assert_eq!(verify::switch(&plan.expect, &after), Vec::<String>::new());
    assert_eq!(verify::links(&plan.expect, &after), Vec::<String>::new());
    assert!(!verify::switch(&plan.expect, &host()).is_empty());
    assert!(verify::links(&plan.expect, &host()).len() >= 3);
}

#[test]
fn only_gateways_of_the_main_table_count() {
    let mut host = host();
    let mut other = route("0.0.0.0/0", "eth0", Some("192.0.2.9"));
    other.table = 77;
    host.routes.as_mut().expect("routes").push(other);
    let gateway: IpAddr = "192.0.2.1".parse().expect("an address");
    assert_eq!(gateways(&host), [(gateway, "eth0".to_owned())]);
}
