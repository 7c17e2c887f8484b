//! The compiler without a switch: places in errors, the pipeline's structure, what a change touches. What a switch makes of
//! it is tested in `tests/tests/network_*.rs`.

mod mistakes;
mod plans;
mod shapes;

use super::*;
use blockhost_proto::flow::{Field, Flow, FlowAction};
use std::collections::{BTreeSet, HashMap};

/// The example of the documentation.
fn example() -> Value {
    let text = include_str!("../../../../../docs/network.md");
    let from = text.find("```json").expect("an example") + 7;
    let length = text[from..].find("```").expect("its end");
    serde_json::from_str(&text[from..from + length]).expect("JSON")
}

fn read(value: &Value) -> Result<Policy, PolicyError> {
    Policy::read(value, "ovsflows")
}

fn compiled(value: &Value) -> Compiled {
    let policy = read(value).unwrap_or_else(|error| panic!("{error}"));
    let mut all = compile(&policy).unwrap_or_else(|error| panic!("{error}"));
    all.remove(0)
}

fn flows(compiled: &Compiled) -> Vec<(String, Flow)> {
    let mut found = Vec::new();
    for (owner, action) in &compiled.flows {
        let Action::OvsSetFlows(set) = action else {
            panic!("{action:?}");
        };
        found.extend(
            set.flows
                .iter()
                .map(|flow| (owner.to_string(), flow.clone())),
        );
    }
    found
}

#[test]
fn the_documented_example_is_a_good_policy() {
    let compiled = compiled(&example());
    let owners: Vec<&str> = compiled
        .flows
        .iter()
        .map(|(owner, _)| owner.as_str())
        .collect();
    assert_eq!(
        owners,
        [
            "net.base",
            "net.set.office",
            "net.set.us",
            "net.tenant.acme",
            "net.tenant.globex",
            "net.ct.100",
            "net.ct.101",
            "net.ct.web.eu"
        ],
        "in the order in which they are set"
    );
    assert_eq!((compiled.meters.len(), compiled.qos.len()), (3, 2));
    let by_serde: Policy = serde_json::from_value(example()).expect("through serde, too");
    assert_eq!(by_serde, read(&example()).expect("good"));
}

#[test]
fn no_two_owners_have_flows_in_one_place() {
    // The agent refuses that, half way through.
    let mut places = HashMap::new();
    for (owner, flow) in flows(&compiled(&example())) {
        let place = format!("{:?}", flow.identity());
        if let Some(other) = places.insert(place, owner.clone()) {
            panic!("{owner} and {other}: {flow}");
        }
    }
}

#[test]
fn nothing_leaves_before_access_control_but_what_asks_for_addresses() {
    let compiled = compiled(&example());
    for (owner, flow) in flows(&compiled) {
        let exact = |field| flow.matching.get(field).map(|bits| bits.value);
        let outputs = flow.actions.iter().any(|action| {
            matches!(
                action,
                FlowAction::Output(_) | FlowAction::Normal | FlowAction::Flood | FlowAction::Local
            )
        });
        let dhcp = exact(Field::TpDst) == Some(67) || exact(Field::TpDst) == Some(547);
        let routers = exact(Field::NwProto) == Some(58);
        match flow.table.get() {
            0 => assert!(!outputs || dhcp || routers, "{owner}: {flow}"),
            1 | 2 => assert!(!outputs, "{owner}: {flow}"),
            _ => {}
        }
        assert!(
            !flow.actions.contains(&FlowAction::Normal),
            "{owner}: {flow}"
        );
        // Around the tables 1 and 2 goes only ARP and ND, or what is not for anybody here.
        let skips = flow.actions.iter().any(|action| {
            matches!(action, FlowAction::Goto(table) if table.get() > 2) && flow.table.get() == 0
        });
        if skips && owner.starts_with("net.ct.") {
            let nd = matches!(exact(Field::IcmpType), Some(135 | 136));
            assert!(nd || exact(Field::DlType) == Some(0x806), "{owner}: {flow}");
        }
    }
}

#[test]
fn every_flow_that_a_containers_port_may_use_names_its_address_and_no_tag() {
    for (owner, flow) in flows(&compiled(&example())) {
        if flow.table.get() != 0
            || !owner.starts_with("net.ct.")
            || flow.actions == [FlowAction::Drop]
        {
            continue;
        }
        assert!(flow.matching.in_port().is_some(), "{flow}");
        assert!(flow.matching.get(Field::DlSrc).is_some(), "{flow}");
        assert_eq!(
            flow.matching.get(Field::Vlan).map(|bits| bits.value),
            Some(0),
            "{flow}"
        );
        let bound = [Field::NwSrc, Field::Ipv6Src, Field::ArpSpa];
        assert!(
            bound
                .iter()
                .any(|field| flow.matching.get(*field).is_some()),
            "{flow}"
        );
    }
}

#[test]
fn another_container_changes_nothing_of_the_others() {
    let before = compiled(&example());
    let mut more = example();
    let mut another = more["bridges"][0]["containers"][0].clone();
    another["id"] = json!("another");
    another["port"] = json!("vi999");
    another["mac"] = json!("02:00:00:00:09:99");
    another["addresses"] = json!(["10.0.1.99", "fd77::99"]);
    let containers = more["bridges"][0]["containers"]
        .as_array_mut()
        .expect("a list");
    containers.insert(0, another);
    let after = compiled(&more);
    let changed: BTreeSet<&str> = after
        .flows
        .iter()
        .filter(|entry| !before.flows.contains(entry))
        .map(|(owner, _)| owner.as_str())
        .collect();
    // Broadcasts reach it, and it brings its own.
    assert_eq!(
        changed.into_iter().collect::<Vec<_>>(),
        ["net.base", "net.ct.another", "net.tenant.acme"]
    );
    for (id, meter) in &before.meters {
        assert_eq!(
            after.meters.get(id),
            Some(meter),
            "a meter got another number"
        );
    }
}

#[test]
fn broadcasts_to_more_ports_than_a_flow_may_name_go_on_in_the_next_table() {
    let containers: Vec<Value> = (0..200)
        .map(|n| {
            json!({"id": format!("{}", 1000 + n), "port": format!("vi{}", 1000 + n), "tenant": "t",
                "mac": format!("02:00:00:01:{:02x}:{:02x}", n / 256, n % 256), "addresses": [format!("10.1.0.{}", n + 1)]})
        })
        .collect();
    let document = json!({"bridges": [{"bridge": "ovsbr0", "outside": [{"port": "uplink0"}],
        "tenants": [{"name": "t", "zone": 1}], "containers": containers}]});
    let compiled = compiled(&document);
    for owner in ["net.base", "net.tenant.t"] {
        let reached: BTreeSet<String> = flows(&compiled)
            .iter()
            .filter(|(of, flow)| of == owner && flow.priority.get() == 12_500)
            .flat_map(|(_, flow)| flow.actions.clone())
            .filter_map(|action| match action {
                FlowAction::Output(port) => Some(port.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(reached.len(), 201, "{owner}");
    }
}
