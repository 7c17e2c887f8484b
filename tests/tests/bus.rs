//! `dev.ovs.PortAgent1` on a real system bus: the host's dbus-daemon and polkitd with our packaged files, a real switch, a
//! real agent, and the clients that people use: busctl, gdbus, Python.

use std::path::PathBuf;
use std::time::Duration;

use blockhost_tests::command::{RunError, run, with_args};
use blockhost_tests::namespace::test_ran_inside;
use blockhost_tests::switch::{self, Switch, eventually};
use blockhost_tests::world::bus::{As, NAME, PATH, Polkit, SystemBus, call, client, missing};
use blockhost_tests::world::services::{Service, start_agent};
use blockhost_tests::world::{World, built_programs};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(300);
const PROGRAMS: &[&str] = &[
    "blockhost-root-agent",
    "blockhost-qm",
    "blockhost-bus",
    "blockhost",
];

/// Everything that runs, in the order in which it is to end.
struct Stage {
    bus: SystemBus,
    agent: Service,
    switch: Switch,
    world: World,
    _directory: tempfile::TempDir,
}

/// A stage, or `None` where the body has run elsewhere or cannot run here.
fn stage(test: &str, polkit: Polkit<'_>) -> Option<Stage> {
    let absent = missing(matches!(polkit, Polkit::Rules(_)));
    let absent =
        absent.or_else(|| (!switch::installed()).then(|| "needs openvswitch-switch".to_owned()));
    if let Some(why) = absent {
        println!("skipped: {test} {why}; run: bash scripts/setup.sh");
        return None;
    }
    let init = PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"));
    if test_ran_inside(test, &init, LIMIT) {
        return None;
    }
    let directory = tempfile::Builder::new()
        .prefix("blockhost-bus-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    let world = World::create(directory.path(), &built_programs(), PROGRAMS).expect("a world");
    let switch = Switch::start(&world.layout.switch_sockets());
    let agent = start_agent(&world).expect("the agent starts");
    let bus = SystemBus::start(&world, polkit).expect("the bus starts");
    Some(Stage {
        bus,
        agent,
        switch,
        world,
        _directory: directory,
    })
}

impl Stage {
    /// A bridge of the userspace datapath, made by the agent.
    fn bridge(&self, name: &str) {
        let options = r#"options={"datapath_type":"netdev"}"#;
        let bridge = format!("bridge={name}");
        let words = ["agent", "call", "ovs-add-br", &bridge, options];
        self.world
            .run("blockhost", &words, Duration::from_secs(60))
            .expect("a bridge");
    }

    fn records(&self) -> Vec<Value> {
        let words = ["ledger", "export", "--jsonl"];
        let text = self
            .world
            .run("blockhost", &words, Duration::from_secs(60))
            .expect("an export")
            .stdout;
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// Writes down every signal of ours from now on.
    fn listen(&self) -> Service {
        let words = ["monitor", "--system", "--dest", NAME, "--object-path", PATH];
        let start = client(As::Blockhost, "gdbus", &words);
        let mut listener = Service::start(&self.world, "signals", start).expect("gdbus starts");
        let log = listener.log().to_owned();
        let ready = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("is owned by"));
        listener
            .wait_until("listening", Duration::from_secs(20), ready)
            .expect("gdbus listens");
        listener
    }

    fn end(mut self) {
        self.bus
            .service
            .stop(Duration::from_secs(20))
            .expect("ends when it is asked to");
        self.agent.stop(Duration::from_secs(30)).expect("ends");
    }
}

fn signals(listener: &Service) -> String {
    std::fs::read_to_string(listener.log()).expect("a log")
}

/// A container's interface as Proxmox makes it; the other end stands for the container.
fn veth(name: &str) {
    let peer = format!("{name}p");
    for words in [
        vec!["link", "add", name, "type", "veth", "peer", "name", &peer],
        vec!["link", "set", name, "up"],
        vec!["link", "set", &peer, "up"],
    ] {
        run(with_args("ip", &words), Duration::from_secs(10)).expect("a device");
    }
}

/// What a method with one string as its answer says, as JSON.
fn asked(who: As, method: &str, arguments: &[&str]) -> Value {
    let mut ask = client(
        who,
        "busctl",
        &[
            "--json=short",
            "call",
            "--timeout=60",
            NAME,
            PATH,
            NAME,
            method,
        ],
    );
    ask.args(arguments);
    let output =
        run(ask, Duration::from_secs(90)).unwrap_or_else(|error| panic!("{method}: {error}"));
    let answer: Value = serde_json::from_str(&output.stdout).expect("busctl prints JSON");
    match answer["data"][0].as_str() {
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
        None => answer["data"][0].clone(),
    }
}

/// What a refused call is called, as gdbus says it.
fn refusal(who: As, method: &str, arguments: &[&str]) -> String {
    let method = format!("{NAME}.{method}");
    let mut ask = client(
        who,
        "gdbus",
        &[
            "call",
            "--system",
            "--timeout",
            "60",
            "--dest",
            NAME,
            "--object-path",
            PATH,
            "--method",
            &method,
        ],
    );
    ask.args(arguments);
    match run(ask, Duration::from_secs(90)) {
        Err(RunError::Failed { stderr, .. }) => stderr,
        other => panic!("{method} {arguments:?} was not refused: {other:?}"),
    }
}

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
    veth("vethx");

    // Permitted by the rule, for ports only.
    assert_eq!(
        asked(As::Blockhost, "AddPort", &["ss", "ovsbr0", "vethx"]),
        json!(1)
    );
    let ports = stage.switch.vsctl("list-ports ovsbr0");
    assert_eq!(ports, "vethx");
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
            &["ovsbr0", "vethx"]
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
    // What is another's is refused with its own name.
    for (arguments, name) in [
        (["veth100i0", "web-2", "101"], "Conflict"),
        (["nothing", "web-1", "100"], "NotFound"),
        (["ovsbr0", "web-1", "100"], "InvalidArgument"),
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
    assert_eq!(stage.switch.vsctl("list-ports ovsbr0"), "vethx");
    let refused = refusal(As::Root, "RemoveContainerInterface", &["vi100"]);
    assert!(refused.contains("Error.NotFound"), "{refused}");
    // A port of no container is not taken away by that name.
    let refused = refusal(As::Root, "RemoveContainerInterface", &["vethx"]);
    assert!(refused.contains("Error.NotFound"), "{refused}");
    call(As::Blockhost, "DelPort", &["ss", "ovsbr0", "vethx"]).expect("removed");
    assert_eq!(stage.switch.vsctl("list-ports ovsbr0"), "");
    // The agent's own policy holds for what comes over the bus, too.
    let refused = refusal(As::Root, "AddPort", &["elsewhere", "vethx"]);
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
fn hostile_callers_get_refusals_and_others_their_answers() {
    let Some(mut stage) = stage(
        "hostile_callers_get_refusals_and_others_their_answers",
        Polkit::Absent,
    ) else {
        return;
    };
    stage.bridge("ovsbr0");
    let changes = |stage: &Stage| {
        let records = stage.records();
        records
            .iter()
            .filter(|record| record["operation"] != "query")
            .count()
    };
    let before = changes(&stage);
    // Wrong types, missing and extra arguments, unknown names; raw, past every client's own checks.
    const HOSTILE: &str = "\
import dbus, sys
bus = dbus.SystemBus()
def refused(method, signature, *args):
    try:
        bus.call_blocking('dev.ovs.PortAgent1', '/dev/ovs/PortAgent1', 'dev.ovs.PortAgent1', method, signature, args, timeout=60)
    except dbus.exceptions.DBusException as error:
        return error.get_dbus_name()
    raise SystemExit('%s %s was not refused' % (method, str(args)[:80]))
ours = 'dev.ovs.PortAgent1.Error.'
theirs = 'org.freedesktop.DBus.Error.'
huge = 'x' * (16 << 20)
evil = ['', huge, '../../etc/passwd', '-x', 'a\\nb', '\\u202e', 'ovsbr0 ', '*', '%s%n', \"'; drop\", 'all', 'LOCAL']
for text in evil:
    for method, rest in [('GetBridgeTopology', ()), ('ValidateBridgeConnectivity', ())]:
        assert refused(method, 's', text) == ours + 'NotFound', (method, text[:20])
    assert refused('DumpFlows', 's', text) == ours + 'InvalidArgument', text[:20]
    assert refused('AddPort', 'ss', text, 'vi100') == ours + 'InvalidArgument', text[:20]
    assert refused('AddPort', 'ss', 'ovsbr0', text) == ours + 'InvalidArgument', text[:20]
    assert refused('DelPort', 'ss', text, 'vi100') == ours + 'InvalidArgument', text[:20]
    assert refused('CreateContainerInterface', 'ssu', text, 'c', 100) == ours + 'InvalidArgument', text[:20]
    assert refused('RemoveContainerInterface', 's', text) == ours + 'InvalidArgument', text[:20]
    assert refused('GetBlockByHash', 's', text) == ours + 'InvalidArgument', text[:20]
for text in ['', huge]:
    assert refused('GetBlocksByCategory', 's', text) == ours + 'InvalidArgument'
for vmid in [0, 99, 1000000, 4294967295]:
    assert refused('CreateContainerInterface', 'ssu', 'veth1', 'c', vmid) == ours + 'InvalidArgument'
for first, last in [(0, 1), (2, 1), (0, 0), (18446744073709551615, 1)]:
    assert refused('GetBlocksByHeight', 'tt', first, last) == ours + 'InvalidArgument'
assert refused('GetBlockByHash', 's', 'ab' * 32) == ours + 'NotFound'
for method, signature, args in [
    ('AddPort', 's', ('a',)), ('AddPort', 'si', ('a', 1)), ('AddPort', 'as', (['a', 'b'],)), ('AddPort', '', ()),
    ('CreateContainerInterface', 'sss', ('a', 'b', '100')), ('CreateContainerInterface', 'ssi', ('a', 'b', -1)),
    ('GetBlocksByHeight', 'xx', (1, 2)), ('GetBridgeTopology', 'v', (dbus.String('a'),)), ('DumpFlows', 'ay', (b'a',)),
]:
    assert refused(method, signature, *args) == theirs + 'InvalidArgs', (method, signature)
for method in ['Nothing', 'addPort', 'ADDPORT', 'ping2', 'AddPort_2', 'add_port_2']:
    assert refused(method, '', ) == theirs + 'UnknownMethod', method
try:
    bus.call_blocking('dev.ovs.PortAgent1', '/dev/ovs/PortAgent1', 'org.freedesktop.DBus.Properties', 'Set', 'ssv',
        ('dev.ovs.PortAgent1', 'LedgerHeight', dbus.UInt64(7)))
    raise SystemExit('a property was set')
except dbus.exceptions.DBusException as error:
    assert error.get_dbus_name() == theirs + 'UnknownProperty', error
";
    let words = ["-c", "import dbus"];
    if run(
        client(As::Root, "/usr/bin/python3", &words),
        Duration::from_secs(20),
    )
    .is_err()
    {
        println!("skipped: needs the package python3-dbus");
        return;
    }
    let hostile = || {
        let script = client(As::Root, "/usr/bin/python3", &["-c", HOSTILE]);
        run(script, Duration::from_secs(240)).expect("every one refused by its name");
    };
    hostile();
    // The allocator keeps some of what it was made to hold once; twice as much must not be twice as large.
    let memory = resident(stage.bus.service.pid());
    hostile();
    assert_eq!(changes(&stage), before, "nothing was changed anywhere");

    // A flood of questions that nobody waits for; somebody else is answered meanwhile.
    const FLOOD: &str = "\
import dbus, dbus.lowlevel, time
bus = dbus.SystemBus()
end = time.time() + 8
sent = 0
while time.time() < end:
    for _ in range(60):
        message = dbus.lowlevel.MethodCallMessage('dev.ovs.PortAgent1', '/dev/ovs/PortAgent1', 'dev.ovs.PortAgent1', 'GetSystemNetworkState')
        message.set_no_reply(True)
        bus.send_message(message)
        sent += 1
    bus.flush()
    time.sleep(0.01)
print(sent)
";
    let flooder = client(As::Blockhost, "/usr/bin/python3", &["-c", FLOOD]);
    let mut flooder = Service::start(&stage.world, "flood", flooder).expect("python starts");
    for _ in 0..20 {
        let state = asked(As::Root, "GetSystemNetworkState", &[]);
        assert_eq!(state["ovs_bridges"][0]["name"], "ovsbr0", "{state}");
    }
    let _ = flooder.wait_until("ending", Duration::from_secs(60), || false);
    let sent = std::fs::read_to_string(flooder.log()).expect("a log");
    assert!(
        sent.trim().parse::<u32>().is_ok_and(|sent| sent > 1000),
        "{sent}"
    );
    stage.bus.service.check().expect("it runs");
    assert_eq!(
        call(As::Root, "Ping", &[]).expect("answered").stdout.trim(),
        "s \"pong\""
    );
    let settled = || resident(stage.bus.service.pid()) < memory + (64 << 10);
    assert!(
        eventually(settled),
        "{} KiB, {memory} before",
        resident(stage.bus.service.pid())
    );

    // A killed service comes back to the same answers; the agent's death is an error with a name, not an end.
    stage
        .bus
        .restart_service(&stage.world)
        .expect("it starts again");
    asked(As::Root, "GetBridgeTopology", &["s", "ovsbr0"]);
    stage.agent.kill();
    let refused = refusal(As::Root, "ListPorts", &[]);
    assert!(refused.contains("Error.Unavailable"), "{refused}");
    let state = asked(As::Root, "GetSystemNetworkState", &[]);
    assert_eq!(state["ovs_bridges"], Value::Null);
    assert_eq!(
        state["problems"][0]["part"], "switch",
        "it is there and cannot be read: {state}"
    );
    let refused = refusal(As::Root, "AddPort", &["ovsbr0", "vi100"]);
    assert!(refused.contains("Error.Unavailable"), "{refused}");
    assert_eq!(
        asked(As::Root, "VerifyBlockchainIntegrity", &[])["ok"],
        true,
        "the ledger needs no agent"
    );
    stage
        .bus
        .service
        .stop(Duration::from_secs(20))
        .expect("ends");
}

/// Resident memory in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a size");
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number")
}
