//! `blockhost diff`, `apply`, `query` and `show-diff` with the real agent and a real switch, looked at with the tools of others;
//! and what is left when something is killed meanwhile.

mod state_ground;

use std::time::Duration;

use blockhost_tests::command::{run, with_args};
use blockhost_tests::world::services::start_agent;
use rustix::process::Signal;
use serde_json::{Value, json};
use state_ground::{Backend, Ground, eventually, ground, ground_with, tool, tunnel_daemon};

const NET: &str = r#"{"interfaces": [{"name": "ovsbr0", "type": "ovs-bridge", "datapath": "netdev", "fail_mode": "secure",
  "ports": [{"name": "int0", "type": "internal", "tag": 7}], "ipv4": {"addresses": ["10.0.0.1/24"]}}]}"#;

const CONTAINERS: &str = r#"{"containers": [
  {"id": "100", "veth": "vi100", "bridge": "ovsbr0", "running": true, "properties": {"network_type": "bridge",
   "template": "local:vztmpl/debian-12.tar.zst", "hostname": "web-1", "memory": 512, "storage": "local", "rootfs_size": 4,
   "ip": "10.0.0.100/24"}},
  {"id": "101", "interfaces": [{"bridge": "ovsbr0", "tag": 7}, {"name": "lan", "bridge": "ovsbr0"}],
   "properties": {"template": "local:vztmpl/debian-12.tar.zst", "storage": "local", "rootfs_size": 4}}]}"#;

const FLOWS: &str = r#"{"flows": [{"bridge": "ovsbr0", "owner": "web", "flows": [
  {"priority": 10, "match": {"in_port": "vi100"}, "actions": ["normal"]}, {"priority": 1, "actions": ["drop"]}]}]}"#;

const PUBLIC: &str = r#"{"pools": [{"range": "203.0.113.0/28", "gateway": "203.0.113.1"}],
  "assignments": [{"holder": "vm-100", "private": "10.0.0.100"}]}"#;

const NOTHING: &str =
    r#"{"version": 1, "plugins": {"net": {}, "lxc": {}, "ovsflows": {}, "publicip": {}}}"#;

fn document(plugins: &[(&str, &str)]) -> String {
    let plugins: serde_json::Map<String, Value> = plugins
        .iter()
        .map(|(name, text)| {
            (
                (*name).to_owned(),
                serde_json::from_str(text).expect("JSON"),
            )
        })
        .collect();
    json!({"version": 1, "plugins": plugins}).to_string()
}

fn everything() -> String {
    document(&[
        ("net", NET),
        ("lxc", CONTAINERS),
        ("ovsflows", FLOWS),
        ("publicip", PUBLIC),
    ])
}

fn fates(report: &Value) -> Vec<(String, String)> {
    let outcomes = report["outcomes"].as_array().expect("a list");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    outcomes
        .iter()
        .map(|outcome| (text(&outcome["resource"]), text(&outcome["fate"])))
        .collect()
}

/// What an apply in the background printed in the end.
fn report_of(ground: &Ground) -> Value {
    let log = std::fs::read_to_string(ground.world.logs.join("apply.log")).expect("a log");
    let line = log.lines().rev().find(|line| line.starts_with('{'));
    serde_json::from_str(line.unwrap_or_else(|| panic!("no report: {log}"))).expect("JSON")
}

#[test]
fn a_document_becomes_bridges_containers_and_flows_and_goes_again_and_others_stay() {
    const TEST: &str =
        "a_document_becomes_bridges_containers_and_flows_and_goes_again_and_others_stay";
    let Some(ground) = ground(TEST) else { return };
    ground
        .switch
        .vsctl("add-br ovsbr1 -- set bridge ovsbr1 datapath_type=netdev");
    let file = ground.document("state.json", &everything());
    let plan = ground.blockhost(&["diff", &file]);
    assert_eq!(plan.code, 2, "{plan:?}");
    for part in [
        "+ net/ovsbr0",
        "+ lxc/100",
        "+ ovsflows/ovsbr0/web",
        "+ publicip/vm-100",
        "6 to create",
    ] {
        assert!(plan.text.contains(part), "{part}: {}", plan.text);
    }
    assert!(!plan.text.contains('\u{1b}'), "colours are for terminals");
    let refused = ground.blockhost(&["apply", &file]);
    assert_eq!(refused.code, 64, "{refused:?}");
    assert_eq!(
        ground.switch.vsctl("list-br"),
        "ovsbr1",
        "nothing happened yet"
    );

    ground.converge(&file, &[]);
    let vsctl = |words: &str| ground.switch.vsctl(words);
    assert_eq!(vsctl("list-ports ovsbr0"), "int0\nvi100\nvi101\nvi101_1");
    assert_eq!(vsctl("get port vi101 tag"), "7");
    assert_eq!(vsctl("get interface vi100 external_ids:vm-id"), "\"100\"");
    assert_eq!(
        vsctl("get interface vi100 external_ids:attached-mac"),
        "\"02:00:00:00:00:64\""
    );
    assert_eq!(vsctl("get bridge ovsbr0 fail_mode"), "secure");
    assert_eq!(ground.switch.flows("ovsbr0").len(), 2);
    assert!(tool("ip -o -4 addr show ovsbr0").contains("10.0.0.1/24"));
    assert!(tool("nft list ruleset").contains("203.0.113.2"));

    let query = ground.blockhost(&["query", "--json"]).json();
    assert_eq!(query["plugins"]["lxc"]["100"]["status"], "running");
    assert_eq!(
        query["plugins"]["lxc"]["100"]["interfaces"]["0"]["port"]["link_up"],
        true
    );
    let footprints = ground.blockhost(&["ledger", "list", "--action", "state-applied", "--json"]);
    for plugin in ["net", "lxc", "ovsflows", "publicip"] {
        let name = format!("state:{plugin}");
        assert!(
            footprints.text.contains(&name),
            "{plugin}: {}",
            footprints.text
        );
    }

    // Behind our back: a port lost, a memory changed, flows gone.
    vsctl("del-port vi100");
    ground.switch.ofctl(&["del-flows", "ovsbr0"]);
    let drift = ground.blockhost(&["show-diff"]);
    assert_eq!(drift.code, 2, "{drift:?}");
    assert!(
        drift.text.contains("~ lxc/100") && drift.text.contains("ovsflows/ovsbr0/web"),
        "{drift:?}"
    );
    ground.converge(&file, &[]);
    assert_eq!(ground.blockhost(&["show-diff"]).code, 0);

    let changed = everything()
        .replace("512", "768")
        .replace("\"tag\":7", "\"tag\":9");
    let file = ground.document("changed.json", &changed);
    let plan = ground.blockhost(&["diff", &file]);
    assert!(plan.text.contains("\"512\" -> \"768\""), "{}", plan.text);
    ground.converge(&file, &[]);
    assert_eq!(vsctl("get port vi101 tag"), "9");

    let file = ground.document("nothing.json", NOTHING);
    let kept = ground.blockhost(&["apply", "--yes", &file]);
    assert!(kept.code == 0 && kept.text.contains("--prune"), "{kept:?}");
    assert_eq!(ground.containers(), ["100", "101"]);
    ground.converge(&file, &["--prune"]);
    assert_eq!(ground.containers(), Vec::<String>::new());
    assert_eq!(vsctl("list-br"), "ovsbr1", "made by others");
    assert!(!tool("nft list ruleset").contains("203.0.113.2"));
}

#[test]
fn a_real_container_answers_on_the_switch_that_the_document_attached_it_to() {
    const TEST: &str = "a_real_container_answers_on_the_switch_that_the_document_attached_it_to";
    let Some(ground) = ground_with(TEST, Backend::Real) else {
        return;
    };
    ground.small_template();
    let net = r#"{"interfaces": [{"name": "ovsbr0", "datapath": "netdev", "ipv4": {"addresses": ["10.0.0.1/24"]}}]}"#;
    let lxc = r#"{"containers": [{"id": "100", "veth": "vi100", "bridge": "ovsbr0", "properties": {"network_type": "netmaker",
      "template": "local:vztmpl/small.tar.gz", "hostname": "web-1", "memory": 64, "storage": "local", "rootfs_size": 1,
      "ip": "10.0.0.100/24", "gw": "10.0.0.1"}}]}"#;
    let file = ground.document("state.json", &document(&[("net", net), ("lxc", lxc)]));
    ground.converge(&file, &[]);
    tool("ping -c 1 -W 5 10.0.0.100");
    let learned = ground.switch.run("ovs-appctl", &["fdb/show", "ovsbr0"]);
    let mac = ground
        .switch
        .vsctl("get interface vi100 external_ids:attached-mac");
    let mac = mac.trim_matches('"').to_owned();
    assert!(learned.contains(&mac), "{mac}: {learned}");
    let query = ground
        .blockhost(&["query", "--plugin", "lxc", "--json"])
        .json();
    let port = &query["plugins"]["lxc"]["100"]["interfaces"]["0"]["port"];
    assert_eq!(port["heard"], true, "{query:#}");

    let changed = lxc
        .replace("\"memory\": 64", "\"memory\": 96")
        .replace("\"id\": \"100\"", "\"running\": false, \"id\": \"100\"");
    let file = ground.document("state.json", &document(&[("net", net), ("lxc", &changed)]));
    ground.converge(&file, &[]);
    let started = ground.document("state.json", &document(&[("net", net), ("lxc", lxc)]));
    ground.converge(&started, &[]);
    tool("ping -c 1 -W 5 10.0.0.100");
    let nothing = ground.document("nothing.json", NOTHING);
    ground.converge(&nothing, &["--prune"]);
    assert_eq!(ground.switch.vsctl("list-br"), "");
}

#[test]
fn a_switch_that_dies_in_the_middle_leaves_no_half_container_and_the_next_apply_makes_it() {
    const TEST: &str =
        "a_switch_that_dies_in_the_middle_leaves_no_half_container_and_the_next_apply_makes_it";
    let Some(mut ground) = ground(TEST) else {
        return;
    };
    let bridge = ground.document("net.json", &document(&[("net", NET)]));
    ground.converge(&bridge, &[]);
    let file = ground.document("state.json", &everything());
    let mut apply = ground.apply_until_held(&file, "start");
    ground.switch.kill_daemon();
    ground.hold("start", false);
    eventually("the apply ends", || apply.check().is_err());
    let report = report_of(&ground);
    let fates = fates(&report);
    assert!(
        fates.contains(&("lxc/100".to_owned(), "rolled_back".to_owned())),
        "{report:#}"
    );
    assert_eq!(ground.containers(), Vec::<String>::new());
    assert_eq!(ground.switch.vsctl("list-ports ovsbr0"), "int0");
    assert!(
        tool("ip -o link show")
            .lines()
            .all(|line| !line.contains("vi10"))
    );
    ground.switch.start_daemon();
    ground.converge(&file, &[]);
}

#[test]
fn an_apply_that_is_killed_leaves_what_the_next_one_completes_and_prune_removes_all_of_it() {
    const TEST: &str =
        "an_apply_that_is_killed_leaves_what_the_next_one_completes_and_prune_removes_all_of_it";
    let Some(ground) = ground(TEST) else { return };
    let file = ground.document("state.json", &everything());
    let nothing = ground.document("nothing.json", NOTHING);
    for verb in ["create", "start"] {
        let mut apply = ground.apply_until_held(&file, verb);
        let second = ground.blockhost(&["apply", "--yes", &file]);
        assert_eq!(second.code, 1, "{second:?}");
        assert!(
            second.error.contains("another apply is running"),
            "{second:?}"
        );
        apply.kill();
        ground.hold(verb, false);
        // What was under way in the agent goes on without anybody.
        eventually("the container is made", || !ground.containers().is_empty());
        ground.converge(&file, &[]);
        let interrupted = ground.blockhost(&[
            "ledger",
            "list",
            "--action",
            "state-apply-interrupted",
            "--json",
        ]);
        assert!(
            interrupted.text.contains("actions_sha256"),
            "{interrupted:?}"
        );
        ground.converge(&nothing, &["--prune"]);
        assert_eq!(ground.containers(), Vec::<String>::new());
        assert_eq!(ground.switch.vsctl("list-br"), "");
    }
    // Killed, and then the document changed: what was half made is ours all the same.
    let mut apply = ground.apply_until_held(&file, "start");
    apply.kill();
    ground.hold("start", false);
    eventually("the container runs", || {
        tool("ip -o link show").contains("vi100")
    });
    ground.converge(&nothing, &["--prune"]);
    assert_eq!(ground.containers(), Vec::<String>::new());
}

#[test]
fn an_agent_that_is_killed_and_comes_back_does_not_stop_an_apply() {
    const TEST: &str = "an_agent_that_is_killed_and_comes_back_does_not_stop_an_apply";
    let Some(mut ground) = ground(TEST) else {
        return;
    };
    let file = ground.document("state.json", &everything());
    let mut apply = ground.apply_until_held(&file, "start");
    ground.agent.signal(Signal::KILL);
    eventually("the agent is dead", || ground.agent.check().is_err());
    ground.hold("start", false);
    ground.agent = start_agent(&ground.world).expect("the agent starts again");
    eventually("the apply ends", || apply.check().is_err());
    let report = report_of(&ground);
    for (resource, fate) in fates(&report) {
        assert_eq!(fate, "done", "{resource}: {report:#}\n{}", ground.log());
    }
    ground.converge(&file, &[]);
}

#[test]
fn a_tunnel_is_made_as_the_document_says_and_its_keys_are_nowhere() {
    const TEST: &str = "a_tunnel_is_made_as_the_document_says_and_its_keys_are_nowhere";
    let Some(ground) = ground(TEST) else { return };
    let Some(_daemon) = tunnel_daemon(&ground, "wg0") else {
        println!("skipped: {TEST} needs wireguard-go");
        return;
    };
    const SHARED: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
    let text = |mtu: u16, shared: &str| {
        format!(
            "version: 1\nplugins:\n  wireguard:\n    tunnels:\n      - name: wg0\n        addresses: [10.8.0.1/24]\n        listen_port: 51820\n        mtu: {mtu}\n        peers:\n          - public_key: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n            allowed_ips: [10.8.0.2/32]\n            endpoint: 192.0.2.9:51999\n            preshared: {shared}\n"
        )
    };
    let file = ground.document("tunnel.yaml", &text(1400, SHARED));
    ground.converge(&file, &[]);
    let shown = tool("wg show wg0 dump");
    assert!(
        shown.contains("10.8.0.2/32") && shown.contains(SHARED),
        "{shown}"
    );
    assert!(tool("ip -o addr show wg0").contains("10.8.0.1/24"));
    let changed = ground.document("tunnel.yaml", &text(1380, "generate"));
    ground.converge(&changed, &[]);
    assert!(tool("ip -o link show wg0").contains("mtu 1380"));
    assert!(!tool("wg show wg0 dump").contains(SHARED));
    let root = ground.world.layout.root().display().to_string();
    let words = [
        "-rlF",
        "--exclude-dir=wireguard",
        "--exclude=tunnel.yaml",
        SHARED,
        &root,
    ];
    let found = run(with_args("grep", &words), Duration::from_secs(60));
    assert!(found.is_err(), "the shared key is in a file: {found:?}");
}
