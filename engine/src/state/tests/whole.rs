//! The properties, and the cases that are worth a name.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::documents::{document, nothing};
use super::model::{Bridge, Container, FAULTS, Fault, Port, Things};
use super::{World, fates};
use crate::state::engine::{Engine, StateError};
use crate::state::{Document, Fate, Verdict};

fn one_container() -> Value {
    json!({"version": 1, "plugins": {
        "net": {"interfaces": [{"name": "br0"}]},
        "lxc": {"containers": [{"id": "100", "bridge": "br0", "properties": {
            "template": "local:vztmpl/d.tar.zst", "storage": "local", "rootfs_size": 4, "memory": 64}}]}}})
}

/// What others made, which must be there afterwards as it was before.
fn foreign() -> Things {
    let mut things = Things::default();
    let port = Port {
        kind: "system".into(),
        ..Port::default()
    };
    let bridge = Bridge {
        fail_mode: "standalone".into(),
        ports: [("eth9".to_owned(), port)].into(),
        flows: [("others".to_owned(), json!([{"actions": ["drop"]}]))].into(),
        ..Bridge::default()
    };
    things.bridges.insert("vmbr9".into(), bridge);
    let config = [
        ("hostname", "theirs"),
        ("tags", "web;prod"),
        ("rootfs", "local:200/d,size=4G"),
    ];
    let config = config.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let running = true;
    things.containers.insert(200, Container { config, running });
    things.tunnels.insert("wg9".into(), Value::Null);
    let pair = ["203.0.113.99", "10.0.0.99", "theirs"].map(str::to_owned);
    things.pairs.insert(pair.into());
    things.devices = ["eth1", "eth2", "eth9"].map(str::to_owned).into();
    things
}

#[test]
fn each_list_is_asked_for_once_however_many_look_at_it() {
    let mut world = World::new();
    let mut document = one_container();
    document["plugins"]["ovsflows"] = json!({"flows": [
        {"bridge": "br0", "owner": "web", "flows": [{"priority": 1, "actions": ["drop"]}]}]});
    world.converge(&document, false);
    let lists = |world: &mut World| -> Vec<&'static str> {
        let looks = std::mem::take(&mut world.model.looks);
        let lists = looks.iter().map(|action| action.name());
        let mut lists: Vec<_> = lists.filter(|name| name.ends_with("-list")).collect();
        lists.sort_unstable();
        lists
    };
    lists(&mut world);
    world.diff(&document, false);
    assert_eq!(lists(&mut world), ["ovs-list", "pct-list"]);
    let query = Engine::new(&world.layout, &mut world.model).query(None);
    let report = query.expect("a query");
    assert!(report.errors.is_empty(), "{report:?}");
    assert!(report.plugins["ovsflows"].contains_key("br0/web"));
    assert_eq!(
        lists(&mut world),
        ["masquerade-list", "nat-list", "ovs-list", "pct-list"]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_apply_makes_it_so_another_does_nothing_and_pruning_leaves_what_others_made(first in document(), second in document(), proxmox in any::<bool>()) {
        let mut world = World::new();
        world.model.things = foreign();
        world.model.proxmox = proxmox;
        world.model.watch_flows = !proxmox;
        world.converge(&first, false);
        world.converge(&second, true);
        world.converge(&nothing(), true);
        prop_assert_eq!(&world.model.things, &foreign());
    }

    #[test]
    fn whatever_fails_wherever_the_next_apply_completes_it(first in document(), second in document(), at in 0usize..30, fault in 0usize..6) {
        let mut world = World::new();
        world.model.things = foreign();
        world.model.watch_flows = at % 2 == 0;
        world.converge(&first, false);
        world.model.fault = Some((at, FAULTS[fault]));
        world.apply_or_die(&second, true);
        world.model.fault = None;
        world.model.gone = false;
        world.converge(&second, true);
        world.converge(&nothing(), true);
        prop_assert_eq!(&world.model.things, &foreign());
    }
}

#[test]
fn a_port_that_the_host_may_be_reached_by_is_changed_with_care_and_a_machines_is_not() {
    let of = |ports: &Value, addresses: &[&str]| {
        json!({"version": 1, "plugins": {"net": {"interfaces": [
            {"name": "br0", "ipv4": {"addresses": addresses}, "ports": ports}]}}})
    };
    for (addresses, expected) in [(&["10.0.0.1/24"][..], [1, 2, 2, 3]), (&[], [0; 4])] {
        let mut world = World::new();
        world.model.things.devices = ["eth1", "eth2", "vi102"].map(str::to_owned).into();
        let first =
            json!([{"name": "eth1", "tag": 2}, {"name": "eth2"}, {"name": "vi102", "tag": 2}]);
        world.converge(&of(&first, addresses), false);
        assert_eq!(world.model.watched, 0, "what comes takes nothing away");
        let mut seen = Vec::new();
        for ports in [
            json!([{"name": "eth1", "tag": 3}, {"name": "eth2"}, {"name": "vi102", "tag": 2}]),
            json!([{"name": "eth1", "tag": 3}, {"name": "eth2", "trunks": [4, 5]}, {"name": "vi102", "tag": 2}]),
            json!([{"name": "eth1", "tag": 3}, {"name": "eth2", "trunks": [4, 5]}, {"name": "vi102", "tag": 7}]),
            json!([{"name": "eth1", "tag": 3}]),
        ] {
            world.converge(&of(&ports, addresses), true);
            seen.push(world.model.watched);
        }
        assert_eq!(seen, expected, "{addresses:?}");
    }
}

#[test]
fn a_step_that_fails_takes_back_the_steps_before_it_and_leaves_no_trace() {
    for proxmox in [false, true] {
        let mut world = World::new();
        world.model.proxmox = proxmox;
        world.converge(&one_container(), false);
        world.model.take_done();
        world.converge(&nothing(), true);
        let mut at = 0;
        loop {
            let mut world = World::new();
            world.model.proxmox = proxmox;
            let bridge =
                json!({"version": 1, "plugins": {"net": one_container()["plugins"]["net"]}});
            world.converge(&bridge, false);
            let before = world.model.things.clone();
            world.model.fault = Some((at, Fault::Fails));
            let report = world.apply(&one_container(), false);
            if world.model.fault.is_some() {
                assert!(at >= 3, "created, started, attached");
                break;
            }
            assert_eq!(
                fates(&report),
                [("lxc/100".to_owned(), Fate::RolledBack)],
                "{at}"
            );
            assert_eq!(world.model.things, before, "{at}");
            let data = &world.model.events.last().expect("a footprint")["data"];
            assert_eq!(data["result"]["success"], false);
            assert!(
                data["result"]["errors"][0]
                    .as_str()
                    .expect("text")
                    .contains("taken back")
            );
            at += 1;
        }
    }
}

#[test]
fn a_pair_that_was_made_by_hand_outlives_the_document_that_names_it() {
    let mut world = World::new();
    let pair = ["203.0.113.10", "10.0.0.1", "web"].map(str::to_owned);
    world.model.things.pairs.insert(pair.into());
    let before = world.model.things.clone();
    let document = json!({"version": 1, "plugins": {"publicip": {
        "pools": [{"range": "203.0.113.10-203.0.113.20"}],
        "assignments": [{"holder": "web", "private": "10.0.0.1"}, {"holder": "vm-100", "private": "10.0.0.2"}]}}});
    world.converge(&document, false);
    assert_eq!(world.model.things.pairs.len(), 2);
    world.converge(&nothing(), true);
    assert_eq!(world.model.things, before);
}

#[test]
fn what_does_not_need_the_one_that_failed_goes_on_and_what_needs_it_is_not_tried() {
    let mut world = World::new();
    let mut document = one_container();
    document["plugins"]["net"]["interfaces"] = json!([{"name": "br0"}, {"name": "br1"}]);
    document["plugins"]["wireguard"] =
        json!({"tunnels": [{"name": "wg0", "addresses": ["10.8.0.1/24"]}]});
    world.model.fault = Some((0, Fault::Fails));
    let report = world.apply(&document, false);
    assert_eq!(
        fates(&report),
        [
            ("net/br0".to_owned(), Fate::RolledBack),
            ("net/br1".to_owned(), Fate::Done),
            ("wireguard/wg0".to_owned(), Fate::Done),
            ("lxc/100".to_owned(), Fate::Skipped),
        ]
    );
    world.converge(&document, false);
}

#[test]
fn a_killed_apply_is_on_record_with_the_next_one() {
    let mut world = World::new();
    world.model.fault = Some((1, Fault::KilledAfter));
    assert!(world.apply_or_die(&one_container(), false).is_none());
    world.converge(&one_container(), false);
    let actions: Vec<&str> = world
        .model
        .events
        .iter()
        .map(|event| event["action"].as_str().expect("text"))
        .collect();
    assert!(actions.contains(&"state-apply-interrupted"), "{actions:?}");
}

#[test]
fn nothing_is_deleted_without_being_asked_and_never_what_bears_no_mark() {
    let mut world = World::new();
    world.converge(&one_container(), false);
    let things = world.model.things.clone();
    let report = world.apply(&nothing(), false);
    assert!(report.is_good() && report.notes.iter().any(|note| note.contains("--prune")));
    assert_eq!(world.model.things, things);
    // Destroyed behind our back and made again by somebody else under the same number.
    let container = world.model.things.containers.get_mut(&100).expect("there");
    container.config.insert("tags".into(), "theirs".into());
    let things = world.model.things.clone();
    let report = world.apply(&nothing(), true);
    assert_eq!(
        fates(&report),
        [
            ("lxc/100".to_owned(), Fate::Blocked),
            ("net/br0".to_owned(), Fate::Skipped)
        ]
    );
    assert_eq!(world.model.things, things);
}

#[test]
fn a_container_or_bridge_of_others_is_left_alone_even_when_the_document_names_it() {
    let mut world = World::new();
    world.model.things = foreign();
    let document = json!({"version": 1, "plugins": {
        "net": {"interfaces": [{"name": "vmbr9", "fail_mode": "secure", "ports": ["eth1"]}]},
        "lxc": {"containers": [{"id": 200, "properties": {"memory": 64}}]},
        "wireguard": {"tunnels": [{"name": "wg9", "addresses": ["10.8.0.1/24"]}]}}});
    let report = world.apply(&document, true);
    for (resource, fate) in fates(&report) {
        let blocked = matches!(fate, Fate::Blocked | Fate::Skipped);
        assert!(blocked, "{resource}: {fate:?}");
    }
    assert_eq!(world.model.things, foreign());
    // Named as it is, it is neither refused nor taken over.
    let as_it_is = json!({"version": 1, "plugins": {
        "net": {"interfaces": [{"name": "vmbr9", "fail_mode": "standalone"}]},
        "lxc": {"containers": [{"id": 200}]}}});
    world.converge(&as_it_is, true);
    world.converge(&nothing(), true);
    assert_eq!(world.model.things, foreign());
}

#[test]
fn two_holders_change_their_addresses_with_each_other_in_one_apply() {
    let document = |a: &str, b: &str| {
        json!({"version": 1, "plugins": {"publicip": {"pools": [{"range": "203.0.113.0/28"}], "assignments": [
            {"holder": "a", "private": "10.0.0.1", "public": a}, {"holder": "b", "private": "10.0.0.2", "public": b}]}}})
    };
    let (one, two) = ("203.0.113.1", "203.0.113.2");
    let mut world = World::new();
    world.converge(&document(one, two), false);
    let before = world.model.things.pairs.clone();
    for fault in [None, Some((3, Fault::Fails))] {
        world.model.fault = fault;
        let report = world.apply(&document(two, one), false);
        assert_eq!(report.is_good(), fault.is_none(), "{report:#?}");
        world.converge(&document(two, one), false);
        world.converge(&document(one, two), false);
        assert_eq!(world.model.things.pairs, before);
    }
}

#[test]
fn a_bridge_that_something_still_stands_on_is_not_deleted() {
    // By the document itself.
    let mut world = World::new();
    world.converge(&one_container(), false);
    let mut document = one_container();
    document["plugins"]["net"] = json!({});
    let report = world.apply(&document, true);
    assert_eq!(fates(&report), [("net/br0".to_owned(), Fate::Blocked)]);
    // By a port that somebody else put there.
    let mut world = World::new();
    world.converge(
        &json!({"version": 1, "plugins": {"net": one_container()["plugins"]["net"]}}),
        false,
    );
    world.model.things.devices.insert("eth9".into());
    let bridge = world.model.things.bridges.get_mut("br0").expect("there");
    bridge.ports.insert("eth9".into(), Port::default());
    let report = world.apply(&json!({"version": 1, "plugins": {"net": {}}}), true);
    assert_eq!(fates(&report), [("net/br0".to_owned(), Fate::RolledBack)]);
    assert!(
        report.outcomes[0]
            .error
            .as_ref()
            .expect("why")
            .contains("eth9")
    );
}

#[test]
fn a_device_that_carries_the_hosts_addresses_does_not_become_a_port() {
    let mut world = World::new();
    world.model.things.devices.insert("eth1".into());
    let addresses = vec!["192.0.2.7/24".to_owned()];
    world
        .model
        .things
        .addresses
        .insert("eth1".into(), addresses);
    let document = json!({"version": 1, "plugins": {"net": {"interfaces": [{"name": "br0", "ports": ["eth1"]}]}}});
    let report = world.apply(&document, false);
    assert_eq!(
        fates(&report),
        [
            ("net/br0".to_owned(), Fate::Done),
            ("net/br0/eth1".to_owned(), Fate::Blocked)
        ]
    );
    assert!(world.model.things.bridges["br0"].ports.is_empty());
}

#[test]
fn a_shared_key_is_in_no_record_no_report_and_no_footprint_and_a_new_one_is_noticed() {
    let key = |text: &str| {
        json!({"version": 1, "plugins": {"wireguard": {"tunnels": [{"name": "wg0", "addresses": ["10.8.0.1/24"],
            "peers": [{"public_key": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", "allowed_ips": ["10.8.0.2/32"], "preshared": text}]}]}}})
    };
    let (first, second) = (
        "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
        "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=",
    );
    let mut world = World::new();
    let diff = world.diff(&key(first), false);
    let report = world.apply(&key(first), false);
    world.is_settled(&key(first), false);
    let record =
        std::fs::read_to_string(crate::state::record::path(&world.layout)).expect("a record");
    let texts = [
        json!(diff).to_string(),
        json!(report).to_string(),
        record,
        json!(world.model.events).to_string(),
    ];
    assert!(texts.iter().all(|text| !text.contains(first)), "{texts:?}");
    assert!(!world.diff(&key(second), false).is_empty());
    world.converge(&key(second), false);
}

#[test]
fn what_was_changed_behind_our_back_is_seen_and_made_right() {
    let mut world = World::new();
    world.converge(&one_container(), false);
    let drift = |world: &mut World| {
        let report = Engine::new(&world.layout, &mut world.model)
            .drift(None)
            .expect("a look");
        let changes = report.changes.iter().filter(|c| c.verdict != Verdict::NoOp);
        changes
            .map(|c| (c.resource.to_string(), c.verdict))
            .collect::<Vec<_>>()
    };
    assert_eq!(drift(&mut world), []);
    let container = world.model.things.containers.get_mut(&100).expect("there");
    container.config.insert("memory".into(), "4096".into());
    world
        .model
        .things
        .bridges
        .get_mut("br0")
        .expect("there")
        .ports
        .clear();
    assert_eq!(drift(&mut world), [("lxc/100".to_owned(), Verdict::Modify)]);
    world.converge(&one_container(), false);
    assert_eq!(drift(&mut world), []);
}

#[test]
fn two_applies_exclude_each_other() {
    let mut world = World::new();
    let _lock = crate::state::record::Lock::take(&world.layout).expect("free");
    let refused = world.try_apply(&one_container(), false).expect_err("taken");
    assert!(matches!(refused, StateError::Record(_)), "{refused}");
    assert_eq!(world.model.take_done(), Vec::<String>::new());
}

#[test]
fn wrong_documents_are_refused_with_file_line_and_place_before_anything_happens() {
    let plugins = crate::state::plugins();
    for (text, expected) in [
        (
            "{\"version\": 2,\n\"plugins\": {}}",
            "d:1: version: must be 1",
        ),
        (
            "{\"version\": 1}",
            "d:1: the document: the key \"plugins\" is missing",
        ),
        (
            "{\"version\": 1,\n\"plugins\": {\n\"docker\": {}}}",
            "d:3: plugins.docker: unknown key",
        ),
        (
            "{\"version\": 1, \"plugins\": {}, \"x\": 1}",
            "d:1: x: unknown key",
        ),
        ("{\"version\": 1, \"version\": 1}", "d:1: "),
        (
            "version: 1\nplugins:\n  lxc:\n    containers:\n      - id: 100\n        running: maybe\n",
            "d:6: plugins.lxc.containers[0].running: ",
        ),
        (
            "version: 1\nplugins:\n  lxc:\n    containers:\n      - id: 100\n      - id: 100\n",
            "d:6: plugins.lxc.containers[1].id: ",
        ),
        ("version: 1\nplugins: [\n", "d:"),
    ] {
        let error = Document::parse("d", text)
            .and_then(|document| document.desired(&plugins).map(|_| ()))
            .expect_err(text)
            .to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_thousand_containers_that_are_there_are_compared_and_none_is_touched() {
    let mut world = World::new();
    let containers: Vec<Value> = (100..1100)
        .map(|id| {
            let mut item = one_container()["plugins"]["lxc"]["containers"][0].clone();
            item["id"] = id.into();
            item
        })
        .collect();
    let mut document = one_container();
    document["plugins"]["lxc"]["containers"] = containers[..3].into();
    world.converge(&document, false);
    // The others as if they had been made one by one, which the model would take long for.
    for id in 103..1100u64 {
        let mut container = world.model.things.containers[&100].clone();
        let net = container.config["net0"].replace(":64", &format!(":{:02X}", id % 256));
        container
            .config
            .insert("hostname".into(), format!("ct{id}"));
        container.config.insert("net0".into(), net.clone());
        world.model.things.containers.insert(id, container);
        let mut port = world.model.things.bridges["br0"].ports["vi100"].clone();
        port.vmid = Some(id);
        port.mac = net
            .split(',')
            .find_map(|part| part.strip_prefix("hwaddr="))
            .map(str::to_lowercase);
        let bridge = world.model.things.bridges.get_mut("br0").expect("there");
        bridge.ports.insert(format!("vi{id}"), port);
    }
    document["plugins"]["lxc"]["containers"] = containers.into();
    let diff = world.diff(&document, true);
    assert!(diff.is_empty(), "{:#?}", diff.changes.first());
    assert_eq!(diff.counts.unchanged, 1001);
}
