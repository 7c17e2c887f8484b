//! Flows of a document under confirm-or-revert, on a real switch with the real agent: what nobody confirms, or whoever is killed
//! over it, the flows that were applied before come back.

mod net_world;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use net_world::{Running, World, guards, in_namespaces, kill, run, stopped};
use serde_json::{Value, json};

/// Every moment of a change of the flows of two owners, up to the decision.
const POINTS: [&str; 8] = [
    "recorded",
    "watched",
    "starting-0",
    "done-0",
    "starting-1",
    "done-1",
    "judged",
    "waiting",
];

const ALLOW: &str = "  ovs_bridges: [ovsbr0]\n";

fn in_world(test: &str, body: impl FnOnce(&mut World)) {
    in_namespaces(test, || body(&mut World::with(ALLOW)));
}

/// A bridge, and two owners whose packets to these networks pass.
fn document(world: &World, networks: &[&str]) -> PathBuf {
    let owner = |owner: &str, priority: u16| {
        let mut flows: Vec<Value> = networks
            .iter()
            .map(|net| json!({"priority": priority, "match": {"dl_type": "ip", "nw_dst": net}, "actions": ["normal"]}))
            .collect();
        flows.push(
            json!({"priority": priority - 1, "match": {"dl_type": "ip"}, "actions": ["drop"]}),
        );
        json!({"bridge": "ovsbr0", "owner": owner, "flows": flows})
    };
    let document = json!({"version": 1, "plugins": {
        "net": {"interfaces": [{"name": "ovsbr0", "type": "ovs-bridge", "datapath": "netdev"}]},
        "ovsflows": {"flows": [owner("db", 20), owner("web", 10)]}}});
    let path = world
        .layout
        .root()
        .join(format!("state-{}.json", networks.len()));
    std::fs::write(&path, document.to_string()).expect("a document");
    path
}

fn flows(world: &World) -> Vec<String> {
    let socket = world.layout.switch_sockets().join("ovsbr0.mgmt");
    let text = run(&format!(
        "ovs-ofctl -O OpenFlow14 --no-stats dump-flows unix:{}",
        socket.display()
    ));
    let lines = text.lines().filter(|line| line.contains("cookie="));
    let mut lines: Vec<String> = lines.map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines
}

fn are_again(world: &World, before: &[String], what: &str) {
    let mut now = Vec::new();
    for _ in 0..300 {
        now = flows(world);
        if now == before {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(now, before, "{what}\n{}", world.agent_log());
}

fn apply<'a>(file: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let file = file.to_str().expect("text");
    [&["apply", "--yes", "--json", file], more].concat()
}

const ASKED: [&str; 2] = ["--confirm-within", "60"];
const SOON: [&str; 2] = ["--confirm-within", "5"];

/// Starts an apply that stops at a fail point.
fn stopped_at(world: &World, file: &Path, point: &str) -> Running {
    let at = ("BLOCKHOST_FAIL_POINT", point);
    stopped(world, &apply(file, &ASKED), at, "net-change")
}

fn started(world: &World, words: &[&str]) -> std::process::Child {
    world
        .command(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("blockhost")
}

/// Confirms each change of flows as it comes up, until the apply ends.
fn confirmed(world: &World, file: &Path, asked: &[&str]) -> Value {
    let mut child = started(world, &apply(file, asked));
    while child.try_wait().expect("a child").is_none() {
        let (status, _) = world.json(&["net", "status", "--json"]);
        if status["open"][0]["state"] == "waiting for you" {
            let _ = world.blockhost(&["net", "confirm", "--json"]);
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let output = child.wait_with_output().expect("an end");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn flows_that_nobody_confirms_go_back_and_confirmed_ones_stay() {
    in_world(
        "flows_that_nobody_confirms_go_back_and_confirmed_ones_stay",
        |world| {
            let first = document(world, &["10.1.0.0/16"]);
            let (report, code) = world.json(&apply(&first, &[]));
            assert_eq!(code, 0, "{report}");
            let before = flows(world);
            assert_eq!(before.len(), 4, "{before:?}");
            let second = document(world, &["10.1.0.0/16", "10.2.0.0/16"]);
            let (report, code) = world.json(&apply(&second, &SOON));
            assert_eq!(code, 1, "{report}");
            for outcome in report["outcomes"].as_array().expect("a list") {
                assert_eq!(outcome["fate"], "rolled_back", "{report}");
            }
            are_again(world, &before, "nobody confirmed");
            world.is_over();
            let (diff, code) = world.json(&["diff", "--json", first.to_str().expect("text")]);
            assert_eq!(code, 0, "the record says so, too: {diff}");

            let report = confirmed(world, &second, &ASKED);
            for outcome in report["outcomes"].as_array().expect("a list") {
                assert_eq!(outcome["fate"], "done", "{report}");
            }
            assert_eq!(flows(world).len(), 6);
            let records = world.records().len();
            let (again, code) = world.json(&apply(&second, &ASKED));
            assert_eq!((&again["outcomes"], code), (&json!([]), 0), "{again}");
            let new = world.records();
            let changes = new.iter().skip(records);
            let changes = changes.filter(|record| record["operation"] != "query");
            assert_eq!(changes.count(), 0, "a second apply changes nothing");
        },
    );
}

#[test]
fn an_apply_of_flows_that_is_killed_at_any_step_leaves_the_old_flows() {
    in_world(
        "an_apply_of_flows_that_is_killed_at_any_step_leaves_the_old_flows",
        |world| {
            let first = document(world, &["10.1.0.0/16"]);
            let (report, code) = world.json(&apply(&first, &[]));
            assert_eq!(code, 0, "{report}");
            let before = flows(world);
            let second = document(world, &["10.1.0.0/16", "10.2.0.0/16"]);
            let changed = policy(world);
            for (file, points) in [(&second, &POINTS[..4]), (&changed, &POINTS[..])] {
                for point in points {
                    let mut apply = stopped_at(world, file, point);
                    if *point == "waiting" {
                        // The operator may come back from elsewhere: it goes back when the time is over, or at once like this.
                        guards().into_iter().for_each(kill);
                    }
                    apply.kill();
                    if matches!(*point, "recorded" | "waiting") {
                        let (found, _) = world.json(&["net", "recover", "--wait", "--json"]);
                        assert!(found[0]["reverted"]["id"].is_string(), "{point}: {found}");
                    }
                    are_again(world, &before, point);
                    world.is_over();
                }
            }
            // Nobody is left at all: whoever applies next takes it back first.
            let mut killed = stopped_at(world, &second, "done-0");
            guards().into_iter().for_each(kill);
            killed.kill();
            assert_ne!(flows(world), before, "it was on its way");
            let report = confirmed(world, &second, &ASKED);
            assert!(
                report["outcomes"]
                    .as_array()
                    .is_some_and(|all| all.iter().all(|one| one["fate"] == "done")),
                "{report}"
            );
            assert_eq!(flows(world).len(), 6);
            world.is_over();
        },
    );
}

#[test]
fn a_deletion_of_flows_that_is_killed_at_any_step_is_taken_back_and_keeps_its_way_back() {
    in_world(
        "a_deletion_of_flows_that_is_killed_at_any_step_is_taken_back_and_keeps_its_way_back",
        |world| {
            let (report, code) = world.json(&apply(&policy(world), &[]));
            assert_eq!(code, 0, "{report}");
            let before = flows(world);
            let less = world.layout.root().join("state-less.json");
            let text = json!({"version": 1, "plugins": {"ovsflows": {}}}).to_string();
            std::fs::write(&less, text).expect("a document");
            let owners = document(world, &["10.1.0.0/16"]);
            let asked = [&["--prune"][..], &ASKED].concat();
            // A policy goes, then all there is. What has no way back would be refused before any of these points.
            for (file, points) in [(&owners, &POINTS[..]), (&less, &POINTS[..4])] {
                for point in points {
                    let at = ("BLOCKHOST_FAIL_POINT", *point);
                    let mut killed = stopped(world, &apply(file, &asked), at, "net-change");
                    guards().into_iter().for_each(kill);
                    killed.kill();
                    let (found, _) = world.json(&["net", "recover", "--wait", "--json"]);
                    assert!(found[0]["reverted"]["id"].is_string(), "{point}: {found}");
                    are_again(world, &before, point);
                    world.is_over();
                }
            }
            // One that is not watched over is killed half-way: what is left of it can be taken away with a way back.
            let at = ("BLOCKHOST_FAIL_POINT", "state-apply:Removed");
            let mut unwatched = stopped(world, &apply(&less, &["--prune"]), at, "state-apply");
            unwatched.kill();
            let left = flows(world);
            assert!(!left.is_empty() && left.len() < before.len(), "{left:?}");
            let (report, code) = world.json(&apply(&less, &[&["--prune"][..], &SOON].concat()));
            assert_eq!(code, 1, "{report}");
            let outcomes = report["outcomes"].as_array().expect("a list");
            assert!(!outcomes.is_empty(), "{report}");
            for outcome in outcomes {
                assert_eq!(outcome["fate"], "rolled_back", "{report}");
            }
            are_again(world, &left, "nobody confirmed");

            let report = confirmed(world, &less, &asked);
            for outcome in report["outcomes"].as_array().expect("a list") {
                assert_eq!(outcome["fate"], "done", "{report}");
            }
            assert_eq!(flows(world), Vec::<String>::new());
        },
    );
}

#[test]
fn flows_of_the_way_out_are_not_changed_where_nobody_knows_the_way_back() {
    in_world(
        "flows_of_the_way_out_are_not_changed_where_nobody_knows_the_way_back",
        |world| {
            let wanted = document(world, &["10.1.0.0/16"]);
            let bridge = world.layout.root().join("state-bridge.json");
            let text = json!({"version": 1, "plugins": {"net": {"interfaces": [
                {"name": "ovsbr0", "type": "ovs-bridge", "datapath": "netdev"}]}}});
            std::fs::write(&bridge, text.to_string()).expect("a document");
            // A new bridge is nothing that could be watched over, and that is said to whoever asked for it.
            let made = world.blockhost(&apply(&bridge, &ASKED));
            assert!(made.status.success(), "{made:?}");
            let said = String::from_utf8(made.stderr).expect("text");
            assert!(said.contains("net/ovsbr0 is not watched over"), "{said}");
            // Somebody's, past any document.
            let by_hand = json!({"bridge": "ovsbr0", "owner": "web", "flows": [{"priority": 3, "actions": ["drop"]}]});
            let by_hand = by_hand.to_string();
            let set = world.blockhost(&["agent", "call", "ovs-set-flows", &by_hand]);
            assert!(set.status.success(), "{set:?}");
            run("ip link set ovsbr0 up");
            run("ip addr add 10.9.0.1/24 dev ovsbr0");
            run("ip route add default via 10.9.0.254 dev ovsbr0 metric 7");
            let (report, code) = world.json(&apply(&wanted, &[]));
            assert_eq!(code, 1, "{report}");
            let outcomes = report["outcomes"].as_array().expect("a list").iter();
            let of = |id: &str| {
                let mut all = outcomes.clone();
                all.find(|one| one["resource"] == id)
                    .unwrap_or_else(|| panic!("{report}"))
            };
            let web = of("ovsflows/ovsbr0/web");
            let why = web["error"].to_string();
            assert!(why.contains("nobody knows what was set before"), "{report}");
            assert_eq!(of("ovsflows/ovsbr0/db")["fate"], "done", "{report}");
            assert!(flows(world).iter().any(|flow| flow.contains("priority=3")));
            // Elsewhere it is made as ever.
            run("ip route del default via 10.9.0.254 dev ovsbr0 metric 7");
            let (report, code) = world.json(&apply(&wanted, &[]));
            assert_eq!(code, 0, "{report}");
        },
    );
}

/// A policy for a bridge that has no ports but its own, beside the two owners: several owners' flows in one change.
fn policy(world: &World) -> PathBuf {
    let text = std::fs::read_to_string(document(world, &["10.1.0.0/16"])).expect("a document");
    let mut document: Value = serde_json::from_str(&text).expect("JSON");
    document["plugins"]["ovsflows"]["bridges"] = json!([{
        "bridge": "ovsbr0",
        "outside": [{"port": "ovsbr0", "macs": ["02:00:00:00:00:fe"]}],
        "sets": [{"name": "us", "networks": ["192.0.2.0/24"]}],
        "tenants": [{"name": "acme", "zone": 10}],
        "containers": []}]);
    let path = world.layout.root().join("state-policy.json");
    std::fs::write(&path, document.to_string()).expect("a document");
    path
}
