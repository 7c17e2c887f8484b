//! kill -9 of the attach process at every step of a wire: afterwards the same request makes it whole, and taking it away
//! leaves nothing, wherever it was interrupted. And who may ask for wires, of a whole agent.

mod common;
mod compartment_world;
mod crash_world;
mod second_net;

use common::{Agent, World};
use crash_world::{in_namespace, killed_at, verify_ledger};
use second_net::SecondNet;
use serde_json::{Value, json};

const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// A user of no part of the product.
const OTHER: u32 = 64_199;

fn policy() -> World {
    World::new("containers: {attach: true}\n")
}

fn netns(net: &SecondNet) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let path = format!("/proc/{}/ns/net", net.pid());
    std::fs::metadata(path).expect("a namespace").ino()
}

fn attach(net: &SecondNet) -> Value {
    json!({"action": "container-attach", "params": {
        "container": ONE, "pid": net.pid(), "netns": netns(net), "port": "bhc1", "interface": "bh0",
        "mtu": 1400, "addresses": ["10.101.0.7/24"], "gateway4": "10.101.0.1",
    }})
}

fn detach() -> Value {
    json!({"action": "container-detach", "params": {"container": ONE, "port": "bhc1"}})
}

fn wires(agent: &Agent) -> usize {
    in_namespace(agent, &["ip", "-o", "link", "show"], "bhc1")
}

/// Where the process is killed, and what is asked for before in the same life.
const STEPS: [(&str, &str); 6] = [
    ("compartment-taken", "container-attach"),
    ("attach", "made"),
    ("attach", "up"),
    ("net-address", "given"),
    ("attach", "addressed"),
    ("compartment-done", "container-attach"),
];

#[test]
fn killed_at_any_step_of_a_wire_the_same_request_makes_it_whole() {
    for (point, detail) in STEPS {
        println!("{point} {detail}");
        let net = SecondNet::new();
        let step = ("attach", point, detail);
        let (agent, answer) = killed_at("", policy(), step, &attach(&net));
        assert_eq!(answer["ok"], false, "{answer}");
        let again = agent.client().call(&attach(&net));
        assert_eq!(again["ok"], true, "{point} {detail}: {again}");
        assert_eq!(wires(&agent), 1);
        let shown = net.run("ip addr show bh0") + &net.run("ip route show default");
        assert!(
            shown.contains("10.101.0.7/24") && shown.contains("mtu 1400"),
            "{shown}"
        );
        assert!(shown.contains("default via 10.101.0.1"), "{shown}");
        let gone = agent.client().call(&detach());
        assert_eq!(gone["ok"], true, "{gone}");
        assert_eq!(wires(&agent), 0);
        assert!(!net.try_run("ip link show bh0").0, "its other end stayed");
        verify_ledger(&agent.world);
    }
}

#[test]
fn what_a_killed_process_left_is_also_removed_without_being_finished_first() {
    let net = SecondNet::new();
    let step = ("attach", "attach", "made");
    let (agent, _) = killed_at("", policy(), step, &attach(&net));
    assert_eq!(wires(&agent), 1, "the test is about what is left");
    let gone = agent.client().call(&detach());
    assert_eq!(gone["ok"], true, "{gone}");
    assert_eq!(wires(&agent), 0);
    let none = agent.client().call(&detach());
    assert_eq!(none["code"], "not_found", "{none}");
}

#[test]
fn wires_are_for_those_whom_a_rule_names_and_into_no_process_of_the_agent() {
    let world = World::new(&format!(
        "containers: {{attach: true}}\nrules:\n\
         - {{user: 0, actions: ['*']}}\n\
         - {{user: {}, actions: ['container-*'], only: {{container_ports: ['bhcx*'], container_interfaces: [bh1]}}}}\n\
         - {{user: {}, actions: ['ovs-*']}}\n",
        common::BLOCKHOST,
        OTHER
    ));
    let agent = Agent::start_in(world);
    let net = SecondNet::new();
    let asked = |uid: u32, changes: &Value| {
        let mut request = attach(&net);
        let params = request["params"].as_object_mut().expect("an object");
        params.extend(changes.as_object().expect("an object").clone());
        agent.client_as(uid, common::BLOCKHOST).call(&request)
    };
    let good = json!({"port": "bhcx1", "interface": "bh1"});
    for (uid, changes) in [
        (OTHER, &good),
        (
            common::BLOCKHOST,
            &json!({"port": "bhc1", "interface": "bh1"}),
        ),
        (
            common::BLOCKHOST,
            &json!({"port": "bhcx1", "interface": "bh0"}),
        ),
        (
            common::BLOCKHOST,
            &json!({"port": "eth0", "interface": "bh1"}),
        ),
        (
            common::BLOCKHOST,
            &json!({"port": "bhcx1", "interface": "bh1", "addresses": ["203.0.113.7/24"], "gateway4": "203.0.113.1"}),
        ),
    ] {
        let answer = asked(uid, changes);
        assert_eq!(answer["code"], "forbidden", "{uid} {changes}: {answer}");
    }
    let mut ours: Vec<i32> = common::ROLES
        .iter()
        .filter_map(|role| agent.pid(role))
        .collect();
    ours.push(agent.supervisor());
    for pid in ours {
        let answer = asked(
            common::BLOCKHOST,
            &json!({"port": "bhcx1", "interface": "bh1", "pid": pid}),
        );
        assert_eq!(answer["code"], "forbidden", "{pid}: {answer}");
        let look = json!({"action": "container-look", "params": {"pid": pid}});
        assert_eq!(agent.client().call(&look)["code"], "forbidden");
    }
    let answer = asked(
        common::BLOCKHOST,
        &json!({"port": "bhcx1", "interface": "bh1", "netns": 1}),
    );
    assert_eq!(answer["code"], "conflict", "{answer}");
    assert_eq!(in_namespace(&agent, &["ip", "-o", "link"], "bhc"), 0);
    let answer = asked(common::BLOCKHOST, &good);
    assert_eq!(answer["ok"], true, "{answer}");
}

#[test]
fn left_off_by_the_policy_the_request_is_refused_and_on_record() {
    let agent = Agent::start("");
    let net = SecondNet::new();
    let answer = agent.client().call(&attach(&net));
    assert_eq!(answer["code"], "forbidden", "{answer}");
    assert!(
        answer["error"]
            .as_str()
            .expect("text")
            .contains("containers.attach")
    );
    assert_eq!(in_namespace(&agent, &["ip", "-o", "link"], "bhc"), 0);
}
