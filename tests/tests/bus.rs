//! `dev.ovs.PortAgent1` on a real system bus: the host's dbus-daemon and polkitd with our packaged files, a real switch, a
//! real agent, and the clients that people use: busctl, gdbus, Python.

mod bus_world;
#[path = "bus_world/hostile.rs"]
mod hostile;

use std::path::PathBuf;
use std::time::Duration;

use blockhost_tests::command::{run, with_args};
use blockhost_tests::switch::eventually;
use blockhost_tests::world::bus::{As, NAME, PATH, Polkit, call, client};
use serde_json::{Value, json};

use bus_world::{asked, refusal, signals, stage, veth};

#[test]
fn the_bus_answers_busctl_gdbus_and_python_about_a_real_switch() {
    let Some(stage) = stage(
        "the_bus_answers_busctl_gdbus_and_python_about_a_real_switch",
        Polkit::Absent,
    ) else {
        return;
    };
    // Before there is any bridge.
    let state = asked(As::Blockhost, "GetSystemNetworkState", &[]);
    assert_eq!(
        state["networkmanager"],
        Value::Null,
        "absent is null: {state}"
    );
    assert_eq!(state["ovs_bridges"], json!([]));
    assert_eq!(
        asked(As::Root, "IntrospectNetworkManager", &[]),
        Value::Null
    );

    stage.bridge("ovsbr0");
    veth("veth100i0");
    let listener = stage.listen();
    asked(
        As::Root,
        "CreateContainerInterface",
        &["ssu", "veth100i0", "web-1", "100"],
    );

    let state = asked(As::Blockhost, "GetSystemNetworkState", &[]);
    assert_eq!(state["problems"], json!([]), "{state}");
    let bridge = &state["ovs_bridges"][0];
    assert_eq!(
        (bridge["name"].as_str(), bridge["datapath_type"].as_str()),
        (Some("ovsbr0"), Some("netdev"))
    );
    let bound = json!({"proxmox_veth": "veth100i0", "ovs_interface": "veth100i0", "vmid": 100, "bridge": "ovsbr0",
        "container": "web-1", "mac": null, "link": "up"});
    assert_eq!(state["interface_bindings"], json!({"vi100": bound}));
    assert_eq!(
        asked(As::Root, "get_interface_bindings", &[]),
        json!({"vi100": bound})
    );

    let topology = asked(As::Root, "GetBridgeTopology", &["s", "ovsbr0"]);
    let port = &topology["ports"][0];
    assert_eq!(
        (port["name"].as_str(), port["role"].as_str()),
        (Some("veth100i0"), Some("container"))
    );
    assert_eq!(
        port["altnames"],
        json!(["vi100"]),
        "the kernel has the other name, too"
    );
    let valid = asked(As::Root, "ValidateBridgeConnectivity", &["s", "ovsbr0"]);
    let checks = valid["checks"].as_array().expect("checks");
    let ok = |name: &str| {
        checks
            .iter()
            .any(|check| check["check"] == name && check["ok"] == true)
    };
    assert!(ok("bridge") && ok("ports") && ok("links"), "{valid}");
    assert_eq!(valid["valid"], false, "this host has no way out: {valid}");
    let flows = asked(As::Root, "DumpFlows", &["s", "ovsbr0"]);
    assert_eq!(
        flows["flows"].as_array().map(Vec::len),
        Some(1),
        "the usual one: {flows}"
    );
    assert_eq!(
        call(As::Root, "ListPorts", &[])
            .expect("a list")
            .stdout
            .trim(),
        "a(ssxu) 2 \"ovsbr0\" \"ovsbr0\" 65534 0 \"ovsbr0\" \"veth100i0\" 1 100"
    );

    // The ledger: by category, height and hash, whole, counted.
    let blocks = asked(As::Blockhost, "GetBlocksByCategory", &["s", "network"]);
    let newest = blocks["blocks"]
        .as_array()
        .and_then(|blocks| {
            blocks
                .iter()
                .find(|block| block["action"] == "ovs-add-port")
        })
        .expect("the port's record");
    assert_eq!(newest["phase"], "outcome", "the newest first");
    let hash = newest["hash"].as_str().expect("a hash");
    assert_eq!(
        &asked(As::Blockhost, "GetBlockByHash", &["s", hash]),
        newest
    );
    let range = asked(As::Blockhost, "GetBlocksByHeight", &["tt", "1", "3"]);
    assert_eq!(range["blocks"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        asked(As::Blockhost, "VerifyBlockchainIntegrity", &[])["ok"],
        true
    );
    let stats = asked(As::Blockhost, "GetBlockchainStats", &[]);
    let height = stage.records().len();
    assert!(
        stats.to_string().contains(&format!(":{height}")),
        "{height} records: {stats}"
    );

    // Signals of what the bus was asked, and of what the agent was asked behind its back.
    let seen = |what: &str| eventually(|| signals(&listener).contains(what));
    assert!(
        seen("PortAdded ('ovsbr0', 'veth100i0')"),
        "{}",
        signals(&listener)
    );
    let gone = [
        "agent",
        "call",
        "ovs-del-port",
        "bridge=ovsbr0",
        "port=veth100i0",
    ];
    stage
        .world
        .run("blockhost", &gone, Duration::from_secs(30))
        .expect("detached");
    assert!(
        seen("PortRemoved ('ovsbr0', 'veth100i0')"),
        "{}",
        signals(&listener)
    );
    let height = stage.records().len();
    assert!(
        seen(&format!("'LedgerHeight': <uint64 {height}>")),
        "{}",
        signals(&listener)
    );
    assert!(
        seen(&format!("LedgerAppended (uint64 {height}, uint64 ")),
        "{}",
        signals(&listener)
    );

    introspected();
    python();
    let shown = stage
        .world
        .run("blockhost", &["net", "show"], Duration::from_secs(30))
        .expect("shown")
        .stdout;
    assert!(
        shown.contains("bridge ovsbr0") && !shown.contains('\u{1b}'),
        "{shown}"
    );
    stage.end();
}

/// The description that `gdbus introspect` reads and every method's signature in it.
fn introspected() {
    let words = ["introspect", "--xml-interface"];
    let mut ask = client(As::Nobody, "busctl", &words);
    ask.args([NAME, PATH]);
    let xml = run(ask, Duration::from_secs(30))
        .expect("described to everybody")
        .stdout;
    let words = [
        "introspect",
        "--system",
        "--dest",
        NAME,
        "--object-path",
        PATH,
    ];
    let text = run(client(As::Nobody, "gdbus", &words), Duration::from_secs(30))
        .expect("read by gdbus")
        .stdout;
    for (method, alias, takes, gives) in [
        ("Ping", "ping", "", "s"),
        ("ListPorts", "list_ports", "", "a(ssxu)"),
        ("AddPort", "add_port", "ss", "x"),
        ("DelPort", "del_port", "ss", ""),
        (
            "CreateContainerInterface",
            "create_container_interface",
            "ssu",
            "s",
        ),
        (
            "RemoveContainerInterface",
            "remove_container_interface",
            "s",
            "",
        ),
        ("GetSystemNetworkState", "get_system_network_state", "", "s"),
        ("GetInterfaceBindings", "get_interface_bindings", "", "s"),
        ("GetBridgeTopology", "get_bridge_topology", "s", "s"),
        (
            "ValidateBridgeConnectivity",
            "validate_bridge_connectivity",
            "s",
            "s",
        ),
        (
            "IntrospectNetworkManager",
            "introspect_network_manager",
            "",
            "s",
        ),
        ("ApplyState", "apply_state", "s", "s"),
        ("QueryState", "query_state", "s", "s"),
        ("ShowDiff", "show_diff", "s", "s"),
        ("GetBlocksByCategory", "get_blocks_by_category", "s", "s"),
        ("GetBlocksByHeight", "get_blocks_by_height", "tt", "s"),
        ("GetBlockByHash", "get_block_by_hash", "s", "s"),
        (
            "VerifyBlockchainIntegrity",
            "verify_blockchain_integrity",
            "",
            "s",
        ),
        ("GetBlockchainStats", "get_blockchain_stats", "", "s"),
        ("DumpFlows", "dump_flows", "s", "s"),
    ] {
        for name in [method, alias] {
            let begun = xml
                .split_once(&format!("<method name=\"{name}\">"))
                .unwrap_or_else(|| panic!("no {name} in {xml}"))
                .1;
            let inside = begun.split("</method>").next().expect("an end");
            let of = |direction: &str| -> String {
                let arguments = inside.split("<arg ").skip(1);
                arguments
                    .filter(|argument| argument.contains(&format!("direction=\"{direction}\"")))
                    .filter_map(|argument| argument.split_once("type=\"")?.1.split('"').next())
                    .collect()
            };
            assert_eq!(
                (of("in").as_str(), of("out").as_str()),
                (takes, gives),
                "{name}"
            );
            assert!(
                text.contains(&format!("{name}(")),
                "gdbus does not know {name}:\n{text}"
            );
        }
    }
    for property in ["Version", "Backend", "LedgerHeight"] {
        assert!(
            xml.contains(&format!("<property name=\"{property}\"")),
            "{xml}"
        );
    }
    for signal in ["PortAdded", "PortRemoved", "StateApplied", "LedgerAppended"] {
        assert!(
            xml.contains(&format!("<signal name=\"{signal}\">")),
            "{xml}"
        );
    }
}

/// Python's own client, as a script of an operator would use it.
fn python() {
    const SCRIPT: &str = "\
import dbus, json
bus = dbus.SystemBus()
agent = dbus.Interface(bus.get_object('dev.ovs.PortAgent1', '/dev/ovs/PortAgent1'), 'dev.ovs.PortAgent1')
assert agent.Ping() == 'pong' and agent.ping() == 'pong'
state = json.loads(agent.GetSystemNetworkState())
assert state['ovs_bridges'][0]['name'] == 'ovsbr0', state
assert agent.GetBlocksByHeight(dbus.UInt64(1), dbus.UInt64(2))
properties = dbus.Interface(agent, 'org.freedesktop.DBus.Properties').GetAll('dev.ovs.PortAgent1')
assert properties['Backend'] == 'embedded' and properties['LedgerHeight'] > 3, properties
try:
    agent.GetBridgeTopology('nothing')
    raise SystemExit('not refused')
except dbus.exceptions.DBusException as error:
    assert error.get_dbus_name() == 'dev.ovs.PortAgent1.Error.NotFound', error
";
    let words = ["-c", "import dbus"];
    if run(
        client(As::Root, "/usr/bin/python3", &words),
        Duration::from_secs(20),
    )
    .is_err()
    {
        println!("skipped: Python's part needs the package python3-dbus");
        return;
    }
    let script = client(As::Blockhost, "/usr/bin/python3", &["-c", SCRIPT]);
    run(script, Duration::from_secs(60)).expect("Python's client");
}

/// What an administrator could write: the services' user may manage ports, and no containers.
const RULES: &str = "\
polkit.addRule(function(action, subject) {
    if (action.id == 'dev.ovs.portagent1.manage-ports' && subject.user == 'blockhost') return polkit.Result.YES;
});
";

#[test]
fn what_changes_anything_needs_polkit_and_is_on_record_with_who_wanted_it() {
    let Some(stage) = stage(
        "what_changes_anything_needs_polkit_and_is_on_record_with_who_wanted_it",
        Polkit::Rules(RULES),
    ) else {
        return;
    };
    stage.bridge("ovsbr0");
    veth("veth100i0");
    veth("veth100i9");
    veth("vethx");

    // Permitted by the rule, for ports only.
    assert_eq!(
        asked(As::Blockhost, "AddPort", &["ss", "ovsbr0", "veth100i9"]),
        json!(1)
    );
    let ports = stage.switch.vsctl("list-ports ovsbr0");
    assert_eq!(ports, "veth100i9");
    let denied = refusal(
        As::Blockhost,
        "CreateContainerInterface",
        &["veth100i0", "web-1", "100"],
    );
    assert!(
        denied.contains("dev.ovs.PortAgent1.Error.NotAuthorized"),
        "{denied}"
    );
    assert_eq!(stage.switch.vsctl("list-ports ovsbr0"), ports);
    // Who has nothing to do with us is stopped by the bus itself, but may ask whether we are there.
    for method in [
        "AddPort",
        "GetSystemNetworkState",
        "GetBlockchainStats",
        "add_port",
    ] {
        let arguments: &[&str] = if method.contains("dd") {
            &["ovsbr0", "veth100i9"]
        } else {
            &[]
        };
        let denied = refusal(As::Nobody, method, arguments);
        assert!(
            denied.contains("org.freedesktop.DBus.Error.AccessDenied"),
            "{method}: {denied}"
        );
    }
    assert_eq!(
        call(As::Nobody, "Ping", &[])
            .expect("answered")
            .stdout
            .trim(),
        "s \"pong\""
    );

    // Root may, by either name; the binding is there for Proxmox's side.
    let made = asked(
        As::Root,
        "create_container_interface",
        &["ssu", "veth100i0", "web-1", "100"],
    );
    assert_eq!(
        (made["interface"].as_str(), made["ofport"].as_u64()),
        (Some("vi100"), Some(2))
    );
    let place = stage.world.layout.state().join("bindings/vm-100");
    let link = std::fs::read_link(place.join("vi100")).expect("a link");
    assert_eq!(link, PathBuf::from("/sys/class/net/veth100i0"));
    assert!(link.exists(), "it leads to the device");
    let text = std::fs::read_to_string(place.join("vi100.conf")).expect("a file");
    assert!(
        text.contains("[interface.vi100]\ntype: veth\nbridge: ovsbr0\ncontainer: web-1\n"),
        "{text}"
    );
    assert_eq!(
        stage
            .switch
            .vsctl("get Interface veth100i0 external_ids:vm-id"),
        "\"100\""
    );
    assert!(
        run(
            with_args("ip", &["link", "show", "vi100"]),
            Duration::from_secs(10)
        )
        .is_ok()
    );
    // The same again is a success and changes nothing.
    let again = asked(
        As::Root,
        "CreateContainerInterface",
        &["ssu", "vi100", "web-1", "100"],
    );
    assert_eq!(again["ofport"], made["ofport"]);
    // Nor does it take a VLAN from a port, which would be in all of them then; who may only add ports gets it neither way.
    let vlan = "Port veth100i0 tag";
    stage.switch.vsctl("set Port veth100i0 tag=7");
    asked(
        As::Root,
        "CreateContainerInterface",
        &["ssu", "vi100", "web-1", "100"],
    );
    assert_eq!(stage.switch.vsctl(&format!("get {vlan}")), "7");
    let refused = refusal(As::Blockhost, "AddPort", &["ovsbr0", "veth100i0"]);
    assert!(refused.contains("Error.Conflict"), "{refused}");
    assert_eq!(stage.switch.vsctl(&format!("get {vlan}")), "7");
    assert_eq!(
        stage
            .switch
            .vsctl("get Interface veth100i0 external_ids:vm-id"),
        "\"100\""
    );
    // One that has nothing to lose is attached again, and stays what it is.
    assert_eq!(
        asked(As::Blockhost, "AddPort", &["ss", "ovsbr0", "veth100i9"]),
        json!(1)
    );
    // What is another's is refused with its own name.
    for (arguments, name) in [
        (["veth100i0", "web-2", "101"], "Conflict"),
        (["nothing", "web-1", "100"], "NotFound"),
        (["ovsbr0", "web-1", "100"], "InvalidArgument"),
        (["vethx", "web-1", "100"], "InvalidArgument"),
        (["veth100i0", "web-1", "99"], "InvalidArgument"),
        (["veth100i0", "Web 1\n", "100"], "InvalidArgument"),
    ] {
        let refused = refusal(As::Root, "CreateContainerInterface", &arguments);
        assert!(
            refused.contains(&format!("dev.ovs.PortAgent1.Error.{name}")),
            "{arguments:?}: {refused}"
        );
    }
    call(As::Root, "RemoveContainerInterface", &["s", "vi100"]).expect("removed");
    assert!(!place.exists());
    assert_eq!(stage.switch.vsctl("list-ports ovsbr0"), "veth100i9");
    let refused = refusal(As::Root, "RemoveContainerInterface", &["vi100"]);
    assert!(refused.contains("Error.NotFound"), "{refused}");
    // A port of no container is not taken away by that name.
    let refused = refusal(As::Root, "RemoveContainerInterface", &["veth100i9"]);
    assert!(refused.contains("Error.NotFound"), "{refused}");
    call(As::Blockhost, "DelPort", &["ss", "ovsbr0", "veth100i9"]).expect("removed");
    assert_eq!(stage.switch.vsctl("list-ports ovsbr0"), "");
    // The agent's own policy holds for what comes over the bus, too.
    let refused = refusal(As::Root, "AddPort", &["elsewhere", "veth100i9"]);
    assert!(refused.contains("Error.NotAuthorized"), "{refused}");

    let uid = stage.world.blockhost.uid;
    let asked_for: Vec<(String, u64)> = stage
        .records()
        .iter()
        .filter(|record| record["action"] == "bus-call")
        .map(|record| {
            let metadata = &record["metadata"];
            let method = metadata["method"].as_str().expect("a method").to_owned();
            (method, metadata["caller_uid"].as_u64().expect("a user"))
        })
        .collect();
    let expected = [
        ("AddPort", uid),
        ("CreateContainerInterface", 0),
        ("CreateContainerInterface", 0),
        ("CreateContainerInterface", 0),
        ("AddPort", uid),
        ("RemoveContainerInterface", 0),
        ("DelPort", uid),
        ("AddPort", 0),
    ];
    let expected: Vec<(String, u64)> = expected
        .into_iter()
        .map(|(method, uid)| (method.to_owned(), u64::from(uid)))
        .collect();
    assert_eq!(asked_for, expected, "and nothing of what was denied");
    stage.end();
}

/// One bridge, as a document of the declarative state.
const DOCUMENT: &str = r#"{"version": 1, "plugins": {"net": {"interfaces": [{"name": "ovsbr0", "type": "ovs-bridge", "datapath": "netdev"}]}}}"#;

#[test]
fn a_document_is_compared_and_applied_over_the_bus_by_whom_polkit_lets() {
    let Some(stage) = stage(
        "a_document_is_compared_and_applied_over_the_bus_by_whom_polkit_lets",
        Polkit::Rules(RULES),
    ) else {
        return;
    };
    let listener = stage.listen();
    let differs = asked(As::Blockhost, "ShowDiff", &["s", DOCUMENT]);
    assert_eq!(differs["counts"]["create"], 1, "{differs}");
    let denied = refusal(As::Blockhost, "ApplyState", &[DOCUMENT]);
    assert!(denied.contains("Error.NotAuthorized"), "{denied}");
    assert_eq!(stage.switch.vsctl("list-br"), "");

    let report = asked(As::Root, "ApplyState", &["s", DOCUMENT]);
    assert_eq!(report["outcomes"][0]["fate"], "done", "{report}");
    assert_eq!(stage.switch.vsctl("list-br"), "ovsbr0");
    let again = asked(As::Root, "apply_state", &["s", DOCUMENT]);
    assert_eq!(
        again["outcomes"],
        json!([]),
        "the second time nothing is done"
    );
    let differs = asked(As::Blockhost, "ShowDiff", &["s", DOCUMENT]);
    assert_eq!(differs["counts"]["unchanged"], 1, "{differs}");
    let state = asked(As::Blockhost, "QueryState", &["s", "net"]);
    assert!(
        state["plugins"]["net"].to_string().contains("ovsbr0"),
        "{state}"
    );
    let seen = || signals(&listener).contains("StateApplied ('net', true)");
    assert!(eventually(seen), "{}", signals(&listener));

    for (method, argument, name) in [
        ("QueryState", "nothing", "NotFound"),
        ("ShowDiff", "{", "InvalidArgument"),
        (
            "ShowDiff",
            r#"{"version": 1, "plugins": {"net": {"interfaces": [{"name": "-x"}]}}}"#,
            "InvalidArgument",
        ),
        (
            "ApplyState",
            r#"{"version": 1, "plugins": {"nothing": {}}}"#,
            "InvalidArgument",
        ),
    ] {
        let refused = refusal(As::Root, method, &[argument]);
        assert!(
            refused.contains(&format!("Error.{name}")),
            "{method} {argument}: {refused}"
        );
    }
    stage.end();
}

#[test]
fn without_polkit_only_root_may_change_anything_and_a_half_done_attachment_is_taken_back() {
    let Some(stage) = stage(
        "without_polkit_only_root_may_change_anything_and_a_half_done_attachment_is_taken_back",
        Polkit::Absent,
    ) else {
        return;
    };
    stage.bridge("ovsbr0");
    veth("veth100i0");
    for (method, arguments) in [
        ("AddPort", vec!["ovsbr0", "veth100i0"]),
        ("DelPort", vec!["ovsbr0", "ovsbr0"]),
        (
            "CreateContainerInterface",
            vec!["veth100i0", "web-1", "100"],
        ),
        ("RemoveContainerInterface", vec!["vi100"]),
    ] {
        let denied = refusal(As::Blockhost, method, &arguments);
        assert!(
            denied.contains("Error.NotAuthorized") && denied.contains("only root may"),
            "{method}: {denied}"
        );
    }
    assert_eq!(stage.switch.vsctl("list-ports ovsbr0"), "");

    // The binding cannot be written: the port does not stay.
    let place = stage.world.layout.state().join("bindings");
    std::fs::remove_dir(&place).expect("removed");
    std::fs::write(&place, "in the way").expect("a file");
    let refused = refusal(
        As::Root,
        "CreateContainerInterface",
        &["veth100i0", "web-1", "100"],
    );
    assert!(refused.contains("Error.Failed"), "{refused}");
    assert_eq!(stage.switch.vsctl("list-ports ovsbr0"), "");
    std::fs::remove_file(&place).expect("removed");
    std::fs::create_dir(&place).expect("a directory");
    let owner = stage.world.blockhost.uid;
    std::os::unix::fs::chown(&place, Some(owner), Some(stage.world.blockhost.gid)).expect("owner");
    call(
        As::Root,
        "CreateContainerInterface",
        &["ssu", "veth100i0", "web-1", "100"],
    )
    .expect("now it can");
    assert_eq!(stage.switch.vsctl("list-ports ovsbr0"), "veth100i0");
    stage.end();
}

#[test]
fn a_stale_binding_goes_and_the_port_of_another_machine_stays() {
    const TEST: &str = "a_stale_binding_goes_and_the_port_of_another_machine_stays";
    let Some(stage) = stage(TEST, Polkit::Absent) else {
        return;
    };
    stage.bridge("ovsbr0");
    veth("veth100i0");
    let create = ["ssu", "veth100i0", "web-1", "100"];
    asked(As::Root, "CreateContainerInterface", &create);
    let place = stage.world.layout.state().join("bindings/vm-100");
    assert!(place.join("vi100.conf").exists());
    // The device has become another machine's meanwhile, past the bus.
    let owner = "Interface veth100i0 external_ids:vm-id";
    stage.switch.vsctl(&format!("set {owner}=101"));
    call(As::Root, "RemoveContainerInterface", &["s", "vi100"]).expect("the binding goes");
    assert!(!place.exists());
    assert_eq!(stage.switch.vsctl("list-ports ovsbr0"), "veth100i0");
    // No machine's at all: neither.
    stage.switch.vsctl(&format!("set {owner}=100"));
    asked(As::Root, "CreateContainerInterface", &create);
    stage
        .switch
        .vsctl("remove Interface veth100i0 external_ids vm-id");
    call(As::Root, "RemoveContainerInterface", &["s", "veth100i0"]).expect("the binding goes");
    assert!(!place.exists());
    assert_eq!(stage.switch.vsctl("list-ports ovsbr0"), "veth100i0");
}
