//! The compiler without a switch: places in errors, the pipeline's structure, what a change touches. What a switch makes of
//! it is tested in `tests/tests/network_*.rs`.

use super::*;
use blockhost_proto::flow::{Field, Flow, FlowAction};
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

/// The example of the documentation.
fn example() -> Value {
    let text = include_str!("../../../../docs/network.md");
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

/// Every object of a document with its place as errors write it, and as JSON pointer.
fn objects(value: &Value, place: &str, pointer: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            found.push((place.to_owned(), pointer.to_owned()));
            for (key, inner) in map {
                objects(
                    inner,
                    &format!("{place}.{key}"),
                    &format!("{pointer}/{key}"),
                    found,
                );
            }
        }
        Value::Array(items) => {
            for (at, inner) in items.iter().enumerate() {
                objects(
                    inner,
                    &format!("{place}[{at}]"),
                    &format!("{pointer}/{at}"),
                    found,
                );
            }
        }
        _ => {}
    }
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
fn an_unknown_key_is_refused_in_every_object_with_its_place() {
    let mut places = Vec::new();
    objects(&example(), "ovsflows", "", &mut places);
    assert!(places.len() > 30);
    for (place, pointer) in places {
        let mut wrong = example();
        wrong.pointer_mut(&pointer).expect("there")["surprise"] = json!(1);
        let error = read(&wrong).expect_err(&place).to_string();
        // Queues are read by the catalog, which names the queue and not the place inside.
        let near = place.split(".queues[").next().expect("a place");
        assert!(
            error.starts_with(near) && error.contains("surprise"),
            "{place}: {error}"
        );
    }
}

#[test]
fn a_list_in_place_of_an_object_is_refused_everywhere_and_so_is_a_null() {
    let mut places = Vec::new();
    objects(&example(), "ovsflows", "", &mut places);
    for (place, pointer) in places {
        for other in [
            json!([]),
            json!(["a", "b"]),
            json!(null),
            json!("x"),
            json!(7),
        ] {
            let mut wrong = example();
            *wrong.pointer_mut(&pointer).expect("there") = other.clone();
            let error = read(&wrong).expect_err(&place).to_string();
            let near = place.split(".queues[").next().expect("a place");
            assert!(error.starts_with(near), "{place}: {other}: {error}");
        }
    }
}

#[test]
fn what_a_switch_cannot_do_is_refused_with_the_reason() {
    for (key, wish) in [
        ("delay", Wish::Delay),
        ("jitter_ms", Wish::Delay),
        ("timing", Wish::Delay),
        ("fragment", Wish::Fragment),
        ("allow", Wish::Allow),
        ("rate_limit", Wish::Rate),
        ("mtu", Wish::Mtu),
        ("mss_clamp", Wish::Mss),
        ("nat66", Wish::NatIpv6),
    ] {
        let mut wrong = example();
        wrong["bridges"][0]["containers"][1][key] = json!(20);
        let error = read(&wrong).expect_err(key);
        assert_eq!(
            error.place,
            format!("ovsflows.bridges[0].containers[1].{key}")
        );
        assert_eq!(error.problem, Problem::Impossible(wish), "{key}");
    }
    let mut wrong = example();
    wrong["bridges"][0]["containers"][1]["nat"]["source"] = json!("2001:db8::1");
    let error = read(&wrong).expect_err("IPv6");
    assert_eq!(error.problem, Problem::Impossible(Wish::NatIpv6));
    wrong = example();
    wrong["bridges"][0]["containers"][1]["out"]["default"] = json!("allow");
    assert_eq!(
        read(&wrong).expect_err("allow").problem,
        Problem::Impossible(Wish::Allow)
    );
}

#[test]
fn every_mistake_names_its_place() {
    let container = |at: usize, key: &str| format!("/bridges/0/containers/{at}/{key}");
    for (pointer, value, place, words) in [
        (
            "/bridges/0/bridge",
            json!("all"),
            "bridges[0].bridge",
            "switch port name",
        ),
        (
            "/bridges/0/fragments",
            json!("cut"),
            "bridges[0].fragments",
            "track, drop",
        ),
        (
            "/bridges/0/tenants/1/zone",
            json!(10),
            "bridges[0].tenants[1]",
            "zone 10 is also at",
        ),
        (
            "/bridges/0/tenants/1/zone",
            json!(0),
            "bridges[0].tenants[1].zone",
            "zone from 1",
        ),
        (
            "/bridges/0/tenants/1/zone",
            json!(65536),
            "bridges[0].tenants[1].zone",
            "zone from 1",
        ),
        (
            "/bridges/0/tenants/1/queue",
            json!(9),
            "bridges[0].tenants[1]",
            "no port outside has a queue 9",
        ),
        (
            "/bridges/0/routers/0/mark",
            json!(3),
            "bridges[0].routers[0]",
            "either a port, or a mark",
        ),
        (
            "/bridges/0/routers/0/vlan",
            json!(7),
            "bridges[0].routers[0]",
            "no tenant has VLAN 7",
        ),
        (
            "/bridges/0/sets/0/networks",
            json!(["192.0.2.1/24"]),
            "bridges[0].sets[0].networks[0]",
            "host bits",
        ),
        (
            "/bridges/0/sets/0/networks",
            json!([]),
            "bridges[0].sets[0]",
            "without networks",
        ),
        (
            "/bridges/0/sets/0/name",
            json!("office"),
            "bridges[0].sets[1]",
            "set office is also at",
        ),
        (
            "/bridges/0/limits/0/pktps",
            json!(1),
            "bridges[0].limits[0]",
            "kbps",
        ),
        (
            "/bridges/0/outside/1/port",
            json!("uplink0"),
            "bridges[0].outside[1]",
            "port uplink0 is also at",
        ),
        (
            &container(1, "tenant"),
            json!("nobody"),
            "bridges[0].containers[1].tenant",
            "no tenant \"nobody\"",
        ),
        (
            &container(1, "mac"),
            json!("02:00:00:00:01:64"),
            "bridges[0].containers[1]",
            "is also at ovsflows.bridges[0].containers[0]",
        ),
        (
            &container(1, "mac"),
            json!("01:00:00:00:01:64"),
            "bridges[0].containers[1].mac",
            "unicast",
        ),
        (
            &container(1, "port"),
            json!("vi100"),
            "bridges[0].containers[1]",
            "port vi100 is also at",
        ),
        (
            &container(1, "id"),
            json!("100"),
            "bridges[0].containers[1]",
            "container 100 is also at",
        ),
        (
            &container(1, "id"),
            json!("x".repeat(41)),
            "bridges[0].containers[1].id",
            "40 characters",
        ),
        (
            &container(1, "addresses"),
            json!(["10.0.1.100"]),
            "bridges[0].containers[1].addresses[0]",
            "address 10.0.1.100 is also at",
        ),
        (
            &container(1, "addresses"),
            json!([]),
            "bridges[0].containers[1].addresses",
            "0 addresses",
        ),
        (
            &container(1, "addresses"),
            json!(["127.0.0.1"]),
            "bridges[0].containers[1].addresses[0]",
            "loopback",
        ),
        (
            &container(1, "addresses"),
            json!(["fd77::1"]),
            "bridges[0].containers[1].nat",
            "no IPv4 address",
        ),
        (
            &container(1, "nat/source"),
            json!("10.0.1.100"),
            "bridges[0].containers[1].nat",
            "is also at",
        ),
        (
            &container(1, "nat/publish/0/proto"),
            json!("icmp"),
            "bridges[0].containers[1].nat.publish[0].proto",
            "tcp, udp, sctp",
        ),
        (
            &container(1, "out/accept/0/to/0"),
            json!("mars"),
            "bridges[0].containers[1].out.accept[0]",
            "no set \"mars\"",
        ),
        (
            &container(1, "out/accept/0/ports/0"),
            json!("9-8"),
            "bridges[0].containers[1].out.accept[0].ports[0]",
            "not above",
        ),
        (
            &container(1, "out/accept/0/ports/0"),
            json!("+8"),
            "bridges[0].containers[1].out.accept[0].ports[0]",
            "port",
        ),
        (
            &container(1, "out/default"),
            json!("accept"),
            "bridges[0].containers[1].out.accept",
            "says nothing",
        ),
        (
            &container(0, "in/accept/2/ports"),
            json!([1]),
            "bridges[0].containers[0].in.accept[2].ports",
            "only tcp",
        ),
        (
            &container(0, "in/accept/0/to"),
            json!(["us"]),
            "bridges[0].containers[0].in.accept[0].to",
            "no key \"to\"",
        ),
        (
            &container(0, "classes/1/queue"),
            json!(1),
            "bridges[0].containers[0].classes[1]",
            "no queue 1",
        ),
        (
            &container(0, "routes/0/via"),
            json!("tor"),
            "bridges[0].containers[0].routes[0].via",
            "no router \"tor\"",
        ),
        (
            &container(0, "routes/0/service"),
            json!("smtp"),
            "bridges[0].containers[0].routes[0].service",
            "dns, https",
        ),
        (
            &container(0, "routes/2/to"),
            json!("mars"),
            "bridges[0].containers[0].routes[2].to",
            "no set",
        ),
        (
            &container(2, "routes"),
            json!([{"service": "dns", "via": "vpn"}]),
            "bridges[0].containers[2].routes[0].via",
            "not in the VLAN",
        ),
    ] {
        let mut wrong = example();
        let (parent, key) = pointer.rsplit_once('/').expect("a parent");
        match wrong.pointer_mut(parent).expect("there") {
            Value::Array(items) => items[key.parse::<usize>().expect("an index")] = value.clone(),
            other => other[key] = value.clone(),
        }
        let error = read(&wrong).expect_err(pointer).to_string();
        let place = format!("ovsflows.{place}: ");
        assert!(
            error.starts_with(&place) && error.contains(words),
            "{pointer} = {value}: {error}"
        );
    }
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

fn observed(bridges: Value) -> Observed {
    Observed::read(&json!({ "bridges": bridges })).expect("an answer of ovs-list")
}

fn ports(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name})).collect()
}

const PORTS: [&str; 6] = ["ovsbr0", "uplink0", "vr_vpn", "vi100", "vi101", "vi102"];

#[test]
fn a_plan_sets_what_differs_and_takes_away_what_is_gone() {
    let desired = [compiled(&example())];
    let (id, _) = desired[0].meters.iter().next().expect("a meter");
    let Action::OvsSetMeter(meter) = &desired[0].meters[id] else {
        panic!();
    };
    let there = json!({"meter": id, "unit": meter.unit, "rate": meter.rate.expect("set").get(),
        "burst": meter.burst.map_or(0, |burst| burst.get())});
    let mut names = PORTS.to_vec();
    names.push("tap7");
    let seen = observed(json!([{"name": "ovsbr0", "ports": ports(&names),
        "owners": [{"owner": "net.ct.77"}, {"owner": "net.tenant.old"}, {"owner": "vm-5"}, {"owner": null}],
        "meters": [there, {"meter": 1, "unit": "kbps", "rate": 5, "burst": 0},
            {"meter": 40_000, "unit": "kbps", "rate": 5, "burst": 0}]}]));
    let steps = plan(&desired, &seen).expect("a plan");
    let told: Vec<String> = steps
        .actions
        .iter()
        .map(|action| format!("{} {}", action.name(), action.ledger_resource()))
        .collect();
    let meters = told
        .iter()
        .filter(|step| step.starts_with("ovs-set-meter"))
        .count();
    assert_eq!(
        meters,
        2 + 1,
        "two that are not there, one that is gone: {told:?}"
    );
    let tail: Vec<&str> = told
        .iter()
        .rev()
        .take(3)
        .rev()
        .map(String::as_str)
        .collect();
    assert_eq!(
        tail,
        [
            "ovs-set-flows flows:ovsbr0/net.ct.77",
            "ovs-set-flows flows:ovsbr0/net.tenant.old",
            "ovs-set-meter meter:ovsbr0/40000"
        ],
        "containers before their tenant, meters when nothing uses them; others' are left alone"
    );
    assert_eq!(steps.strangers.len(), 1, "{:?}", steps.strangers);
    assert_eq!(steps.strangers[0].1, "tap7");
    let cleared = clear(&desired[0].bridge, &seen).expect("there");
    assert_eq!(cleared.len(), 4, "two owners, two meters of ours");
}

#[test]
fn a_plan_for_what_is_not_there_says_what_to_make_first() {
    let desired = [compiled(&example())];
    let error = plan(&desired, &observed(json!([])))
        .expect_err("no bridge")
        .to_string();
    assert!(error.contains("no bridge ovsbr0"), "{error}");
    let seen = observed(
        json!([{"name": "ovsbr0", "ports": ports(&["ovsbr0", "uplink0", "vi100"]), "owners": [], "meters": []}]),
    );
    let error = plan(&desired, &seen).expect_err("no ports").to_string();
    assert!(error.contains("vi101, vi102, vr_vpn"), "{error}");
    for torn in [
        json!({}),
        json!({"bridges": {}}),
        json!({"bridges": [{"name": 1}]}),
        json!({"bridges": [{"name": "a", "ports": []}]}),
    ] {
        assert!(Observed::read(&torn).is_err(), "{torn}");
    }
}

/// Policies of all shapes: some containers of some tenants with some of everything.
fn any_policy() -> impl Strategy<Value = Value> {
    let container = (0usize..3, any::<[bool; 8]>(), 1u16..9000, 0u16..40);
    (proptest::collection::vec(container, 0..8), any::<[bool; 4]>()).prop_map(|(containers, on)| {
        let tenant = |n: usize| {
            let mut tenant = json!({"name": format!("t{n}"), "zone": n + 1});
            if n == 1 && on[0] {
                tenant["vlan"] = json!(100);
            }
            if n == 2 && on[1] {
                tenant["internal"] = json!("rules");
            }
            tenant
        };
        let containers: Vec<Value> = containers
            .into_iter()
            .enumerate()
            .map(|(n, (tenant, has, first, more))| {
                let mut c = json!({"id": format!("c{n}"), "port": format!("vi{}", 100 + n), "tenant": format!("t{tenant}"),
                    "mac": format!("02:00:00:00:00:{n:02x}"), "addresses": [format!("10.0.0.{}", n + 1)], "dhcp": has[0]});
                let ports = json!([format!("{first}-{}", first + more)]);
                if has[1] {
                    c["addresses"] = json!([format!("10.0.0.{}", n + 1), format!("fd00::{:x}", n + 1)]);
                }
                if has[2] {
                    c["in"] = json!({"accept": [{"proto": "tcp", "ports": ports, "from": ["a", "192.0.2.0/24"]}, {"proto": "icmp"}],
                        "drop": [{"proto": "any", "from": ["b"]}]});
                }
                if has[3] {
                    c["out"] = json!({"default": "drop", "accept": [{"proto": "udp", "ports": ports, "to": ["a", "b", "2001:db8::/32"]}]});
                }
                if has[4] {
                    c["rate"] = json!({"out": {"kbps": 1000}, "in": {"pktps": 10, "burst": 5}});
                }
                if has[5] {
                    c["nat"] = json!({"source": format!("203.0.113.{}", n + 1), "publish": [{"proto": "tcp", "port": 80}]});
                }
                if has[6] && !(tenant == 1 && on[0]) {
                    c["routes"] = json!([{"to": "b", "via": "r"}, {"service": "dns", "via": "r"}, {"to": "a", "via": "m"}]);
                }
                if has[7] {
                    c["classes"] = json!([{"proto": "tcp", "ports": ports, "queue": 1}, {"proto": "any", "queue": 1, "side": "own"}]);
                }
                c
            })
            .collect();
        json!({"bridges": [{"bridge": "ovsbr0", "fragments": if on[2] { "drop" } else { "track" },
            "outside": [{"port": "uplink0", "qos": {"queues": [{"queue": 1, "max_kbps": 9000}]}}, {"port": "ovsbr0", "macs": ["02:00:00:00:ff:01"]}],
            "routers": [{"name": "r", "port": "vr0", "mac": "02:00:00:00:ff:02"}, {"name": "m", "mark": 1, "mac": "02:00:00:00:ff:03"}],
            "sets": [{"name": "a", "networks": ["192.0.2.0/24", "2001:db8::/32", "198.51.100.0/24"]}, {"name": "b", "networks": ["192.0.2.0/25"]}],
            "limits": if on[3] { json!([{"name": "l", "from": ["203.0.113.0/24"], "pktps": 100}]) } else { json!([]) },
            "tenants": [tenant(0), tenant(1), tenant(2)], "containers": containers}]})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_policy_compiles_to_flows_in_distinct_places(document in any_policy()) {
        let compiled = compiled(&document);
        let mut places = HashMap::new();
        for (owner, flow) in flows(&compiled) {
            let place = format!("{:?}", flow.identity());
            prop_assert_eq!(places.insert(place, owner), None, "{}", flow);
        }
    }

    #[test]
    fn the_order_of_containers_changes_no_containers_flows(document in any_policy()) {
        let mut turned = document.clone();
        if let Some(list) = turned["bridges"][0]["containers"].as_array_mut() {
            list.reverse();
        }
        let (one, other) = (compiled(&document), compiled(&turned));
        let own = |compiled: &Compiled| -> Vec<(FlowOwner, Action)> {
            compiled.flows.iter().filter(|(owner, _)| owner.as_str().starts_with("net.ct.")).cloned().collect()
        };
        prop_assert_eq!(own(&one), own(&other));
        prop_assert_eq!(&one.meters, &other.meters);
    }

    #[test]
    fn each_rule_of_access_holds_for_both_families(document in any_policy()) {
        // Every new connection that IPv4 may begin without addresses in the rule, IPv6 may begin as well.
        let flows = flows(&compiled(&document));
        let shape = |flow: &Flow, family: u128| -> Option<String> {
            let of = flow.matching.get(Field::DlType).map(|bits| bits.value) == Some(family);
            let address = [Field::NwSrc, Field::NwDst, Field::Ipv6Src, Field::Ipv6Dst];
            let bound = address.iter().any(|field| flow.matching.get(*field).is_some());
            let conjunction = flow.matching.get(Field::ConjId).is_some();
            if !of || bound || conjunction || !(2..=3).contains(&flow.table.get()) {
                return None;
            }
            let rest: Vec<String> = flow.matching.fields()
                .filter(|(field, _)| *field != Field::DlType)
                .map(|(field, bits)| match (field, bits.value) {
                    (Field::NwProto, 1 | 58) => "icmp".to_owned(),
                    _ => format!("{field:?} {bits:?}"),
                })
                .collect();
            Some(format!("{} {} {rest:?}", flow.table, flow.priority))
        };
        let of = |family: u128| -> BTreeSet<String> { flows.iter().filter_map(|(_, flow)| shape(flow, family)).collect() };
        prop_assert_eq!(of(0x800), of(0x86dd));
    }
}
