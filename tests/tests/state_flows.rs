//! A bridge's policy in a document: the compiler's flows, meters and queues on a real switch, through the real agent. What
//! somebody changes by hand is seen and made right, what fails is taken back, and a second apply sends nothing.

mod state_ground;

use serde_json::{Value, json};
use state_ground::{Ground, ground};

fn document(change: impl FnOnce(&mut Value)) -> String {
    let mut policy = json!({
    "bridge": "ovsbr0",
    "outside": [{"port": "int9", "qos": {"max_kbps": 100_000, "queues": [{"queue": 1, "min_kbps": 1000}]}}],
    "tenants": [{"name": "acme", "zone": 10}],
    "containers": [
        {"id": "100", "port": "int0", "mac": "02:00:00:00:01:64", "tenant": "acme", "addresses": ["10.0.1.100"],
         "in": {"accept": [{"proto": "tcp", "ports": [80]}]}, "rate": {"out": {"kbps": 50_000}},
         "qos": {"max_kbps": 20_000}, "classes": [{"proto": "tcp", "ports": [80], "queue": 1}]},
        {"id": "101", "port": "int1", "mac": "02:00:00:00:01:65", "tenant": "acme", "addresses": ["10.0.1.101"]},
    ]});
    change(&mut policy);
    let ports: Vec<Value> = ["int0", "int1", "int9"]
        .iter()
        .map(|name| json!({"name": name, "type": "internal"}))
        .collect();
    let bridge = json!({"name": "ovsbr0", "type": "ovs-bridge", "datapath": "netdev", "fail_mode": "secure", "ports": ports});
    json!({"version": 1, "plugins": {"net": {"interfaces": [bridge]}, "ovsflows": {"bridges": [policy],
        "flows": [{"bridge": "ovsbr0", "owner": "extra", "flows": [{"table": 200, "priority": 7, "actions": ["drop"]}]}]}}})
    .to_string()
}

/// Flows, meters, limits: what must be the same again.
fn all_of_it(ground: &Ground) -> Vec<String> {
    let mut all = ground.switch.flows("ovsbr0");
    all.sort();
    let list = ground.blockhost(&["agent", "call", "ovs-list"]);
    assert_eq!(list.code, 0, "{list:?}");
    let query = ground
        .blockhost(&["query", "--plugin", "ovsflows", "--json"])
        .json();
    let bridge = &query["plugins"]["ovsflows"]["ovsbr0"];
    all.push(bridge["meters"].to_string());
    all.push(bridge["limits"].to_string());
    all
}

fn steps(report: &Value, resource: &str) -> Vec<String> {
    let outcomes = report["outcomes"].as_array().expect("a list");
    let of = outcomes
        .iter()
        .find(|outcome| outcome["resource"] == resource);
    let steps = of.unwrap_or_else(|| panic!("{report}"))["steps"].as_array();
    steps
        .expect("steps")
        .iter()
        .map(|step| step.as_str().expect("text").to_owned())
        .collect()
}

#[test]
fn a_policy_in_a_document_is_set_once_and_what_somebody_changes_by_hand_is_made_right() {
    const TEST: &str =
        "a_policy_in_a_document_is_set_once_and_what_somebody_changes_by_hand_is_made_right";
    let Some(ground) = ground(TEST) else { return };
    let file = ground.document("state.json", &document(|_| {}));
    let plan = ground.blockhost(&["diff", &file]);
    assert!(plan.text.contains("+ ovsflows/ovsbr0\n"), "{}", plan.text);
    ground.converge(&file, &[]);
    let good = all_of_it(&ground);
    assert!(good.len() > 60, "{good:#?}");

    let query = ground
        .blockhost(&["query", "--plugin", "ovsflows", "--json"])
        .json();
    let bridge = &query["plugins"]["ovsflows"]["ovsbr0"];
    assert!(
        bridge["flows"]["net.ct.100"]
            .as_str()
            .is_some_and(|text| text.ends_with(" flows")),
        "{query}"
    );
    assert_eq!(
        bridge["limits"]["int9"],
        json!({"max_kbps": 100_000, "queues": [{"queue": 1, "min_kbps": 1000}]})
    );
    assert_eq!(
        query["plugins"]["ovsflows"]["ovsbr0/extra"],
        json!({"flows": 1, "as_set": true})
    );

    // The same places and as many flows: only what they do is another.
    ground
        .switch
        .ofctl(&["mod-flows", "ovsbr0", "table=2,actions=drop"]);
    assert_ne!(all_of_it(&ground), good);
    let drift = ground.blockhost(&["show-diff"]);
    assert_eq!(drift.code, 2, "{drift:?}");
    assert!(
        drift.text.contains("not as they were set"),
        "{}",
        drift.text
    );
    let report = ground
        .blockhost(&["apply", "--yes", "--json", &file])
        .json();
    let told = steps(&report, "ovsflows/ovsbr0");
    assert!(
        told.iter().all(|step| step.contains("flows of net.")),
        "no limit and no meter is sent again: {told:?}"
    );
    assert_eq!(all_of_it(&ground), good);

    let queue = ground.switch.vsctl("--bare --columns=_uuid list queue");
    ground
        .switch
        .vsctl(&format!("set queue {queue} other_config:min-rate=2000000"));
    let drift = ground.blockhost(&["show-diff", "--json"]).json();
    assert_eq!(
        drift["changes"][0]["fields"][0]["field"], "limits.int9",
        "{drift}"
    );
    let report = ground
        .blockhost(&["apply", "--yes", "--json", &file])
        .json();
    assert_eq!(steps(&report, "ovsflows/ovsbr0").len(), 1, "{report}");
    assert_eq!(all_of_it(&ground), good);

    // A port that was plugged anew has another number, and the flows mean that.
    ground.switch.vsctl("del-port int1 -- add-port ovsbr0 int1 -- set interface int1 type=internal -- set port int1 external_ids:blockhost-owner=root-agent");
    ground.converge(&file, &[]);
    let number = ground.switch.vsctl("get interface int1 ofport");
    let flows = ground.switch.flows("ovsbr0");
    assert!(
        flows
            .iter()
            .any(|flow| flow.contains(&format!("in_port={number},"))
                || flow.contains(&format!("in_port={number} "))),
        "{flows:#?}"
    );
}

#[test]
fn a_policy_that_changes_sends_only_the_difference_and_one_that_fails_is_taken_back() {
    const TEST: &str =
        "a_policy_that_changes_sends_only_the_difference_and_one_that_fails_is_taken_back";
    let Some(ground) = ground(TEST) else { return };
    let file = ground.document("state.json", &document(|_| {}));
    ground.converge(&file, &[]);
    let first = all_of_it(&ground);

    let rule = |policy: &mut Value| {
        policy["containers"][0]["in"]["accept"] = json!([{"proto": "tcp", "ports": [80, 443]}]);
    };
    let file = ground.document("rule.json", &document(rule));
    let plan = ground.blockhost(&["diff", &file]);
    assert!(plan.text.contains("flows.net.ct.100"), "{}", plan.text);
    let report = ground
        .blockhost(&["apply", "--yes", "--json", &file])
        .json();
    assert_eq!(
        steps(&report, "ovsflows/ovsbr0").len(),
        1,
        "one owner, one bundle: {report}"
    );
    let second = all_of_it(&ground);
    assert_ne!(first, second);
    assert_eq!(ground.blockhost(&["diff", &file]).code, 0);

    // Much of it can be done before it turns out that there is no such port to the world.
    let broken = |policy: &mut Value| {
        rule(policy);
        policy["outside"][0]["qos"]["max_kbps"] = 77_000.into();
        policy["containers"][0]["rate"]["out"]["kbps"] = 7.into();
        let outside = policy["outside"].as_array_mut().expect("a list");
        outside.push(json!({"port": "int7"}));
    };
    let broken = ground.document("broken.json", &document(broken));
    let failed = ground.blockhost(&["apply", "--yes", "--json", &broken]);
    assert_eq!(failed.code, 1, "{failed:?}");
    let report = failed.json();
    assert_eq!(report["outcomes"][0]["fate"], "rolled_back", "{report}");
    assert_eq!(all_of_it(&ground), second, "everything is as it was");
    assert_eq!(ground.blockhost(&["diff", &file]).code, 0);

    // A container less: its flows, its meter and its limit go.
    let file = ground.document(
        "less.json",
        &document(|policy| {
            policy["containers"]
                .as_array_mut()
                .expect("a list")
                .remove(0);
            policy["outside"][0]
                .as_object_mut()
                .expect("an object")
                .remove("qos");
        }),
    );
    ground.converge(&file, &[]);
    let query = ground
        .blockhost(&["query", "--plugin", "ovsflows", "--json"])
        .json();
    let bridge = &query["plugins"]["ovsflows"]["ovsbr0"];
    assert_eq!(
        (&bridge["meters"], &bridge["limits"]),
        (&json!({}), &json!({})),
        "{query}"
    );
    assert!(bridge["flows"].get("net.ct.100").is_none(), "{query}");

    // And all of it.
    let file = ground.document(
        "gone.json",
        &json!({"version": 1, "plugins": {"ovsflows": {}}}).to_string(),
    );
    ground.converge(&file, &["--prune"]);
    assert_eq!(ground.switch.flows("ovsbr0"), Vec::<String>::new());
}

#[test]
fn a_container_that_is_not_there_takes_no_flows_from_the_others() {
    const TEST: &str = "a_container_that_is_not_there_takes_no_flows_from_the_others";
    let Some(ground) = ground(TEST) else { return };
    let absent = document(|policy| {
        policy["containers"][1]["port"] = "vi101".into();
        policy["containers"][1]["rate"] = json!({"in": {"kbps": 1000}});
        policy["containers"][1]["qos"] = json!({"max_kbps": 1000});
    });
    let file = ground.document("state.json", &absent);
    let report = ground
        .blockhost(&["apply", "--yes", "--json", &file])
        .json();
    let outcomes = report["outcomes"].as_array().expect("a list");
    let policy = outcomes
        .iter()
        .find(|one| one["resource"] == "ovsflows/ovsbr0");
    let policy = policy.unwrap_or_else(|| panic!("{report}"));
    assert_eq!(policy["fate"], "done", "{report}");
    assert!(policy["remarks"].to_string().contains("vi101"), "{report}");
    let again = ground.blockhost(&["apply", "--yes", &file]);
    assert_eq!(again.code, 0, "{again:?}");
    let of_it = || {
        let query = ground
            .blockhost(&["query", "--plugin", "ovsflows", "--json"])
            .json();
        query["plugins"]["ovsflows"]["ovsbr0"]["flows"]["net.ct.101"].clone()
    };
    let before = of_it();
    // A row whose device is missing is no port either, and does not stand in the way.
    ground.switch.vsctl(
        "--no-wait add-port ovsbr0 vi101 -- set port vi101 external_ids:blockhost-owner=root-agent",
    );
    let report = ground.blockhost(&["apply", "--yes", "--json", &file]);
    assert_eq!(report.code, 0, "{report:?}");
    assert_eq!(of_it(), before);

    ground.switch.vsctl("set interface vi101 type=internal");
    ground.converge(&file, &[]);
    assert_ne!(of_it(), before, "it has its flows");
    // And it goes again.
    ground.switch.vsctl("del-port ovsbr0 vi101");
    let report = ground.blockhost(&["apply", "--yes", &file]);
    assert_eq!(report.code, 0, "{report:?}");
    assert_eq!(of_it(), before);
}

#[test]
fn a_bridge_with_a_policy_is_secure_and_passes_nothing_when_its_flows_are_gone() {
    const TEST: &str =
        "a_bridge_with_a_policy_is_secure_and_passes_nothing_when_its_flows_are_gone";
    let Some(mut ground) = ground(TEST) else {
        return;
    };
    let with_mode = |mode: Option<&str>, policy: bool| {
        let mut whole: Value = serde_json::from_str(&document(|_| {})).expect("JSON");
        let bridge = &mut whole["plugins"]["net"]["interfaces"][0];
        match mode {
            Some(mode) => bridge["fail_mode"] = mode.into(),
            None => drop(
                bridge
                    .as_object_mut()
                    .expect("an object")
                    .remove("fail_mode"),
            ),
        }
        if !policy {
            whole["plugins"]["ovsflows"] = json!({});
        }
        whole.to_string()
    };
    let refused = ground.document("open.json", &with_mode(Some("standalone"), true));
    let refused = ground.blockhost(&["diff", &refused]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.error.contains("fail_mode: ") && refused.error.contains("has a policy"),
        "{refused:?}"
    );

    // The bridge stands alone first; in the end it does not.
    let file = ground.document("state.json", &with_mode(None, true));
    ground.converge(&file, &[]);
    assert_eq!(ground.switch.vsctl("get bridge ovsbr0 fail_mode"), "secure");
    let good = all_of_it(&ground);
    assert!(good.len() > 60, "{good:#?}");
    ground.switch.kill_daemon();
    ground.switch.start_daemon();
    // It is told that it answers; and then it has nothing.
    ground.switch.vsctl("set bridge ovsbr0 other_config:x=1");
    assert_eq!(ground.switch.flows("ovsbr0"), Vec::<String>::new());
    let restored = ground.blockhost(&["net", "restore"]);
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(all_of_it(&ground), good);

    // Taken away it leaves nothing that everything passes by; that has to be asked for.
    let open = ground.document("open.json", &with_mode(Some("standalone"), false));
    let first = ground.blockhost(&["apply", "--yes", &open]);
    assert_eq!(first.code, 0, "{first:?}");
    assert_eq!(
        ground.switch.vsctl("get bridge ovsbr0 fail_mode"),
        "standalone"
    );
    assert_eq!(all_of_it(&ground), good, "the flows are kept");
    ground.converge(&open, &["--prune"]);
    let flows = ground.switch.flows("ovsbr0");
    assert!(flows.len() == 1 && flows[0].contains("NORMAL"), "{flows:?}");
}

#[test]
fn a_mistake_in_a_policy_names_its_line_and_changes_nothing() {
    const TEST: &str = "a_mistake_in_a_policy_names_its_line_and_changes_nothing";
    let Some(ground) = ground(TEST) else { return };
    let text = "version: 1\nplugins:\n  ovsflows:\n    bridges:\n      - bridge: ovsbr0\n        tenants:\n          - name: a\n            zone: 0\n";
    let file = ground.document("state.yaml", text);
    let refused = ground.blockhost(&["diff", &file]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused
            .error
            .contains("state.yaml:8: plugins.ovsflows.bridges[0].tenants[0].zone"),
        "{}",
        refused.error
    );
}
