//! What comes back after a start of the machine, by the very command that the unit runs: `blockhost net restore` with the real
//! agent, switch, tunnel daemon and kernel, whose state was thrown away. Looked at with the tools of others.

mod state_ground;

use std::collections::BTreeMap;

use blockhost_tests::world::services::{Service, start_agent};
use rustix::process::Signal;
use serde_json::{Value, json};
use state_ground::{Ground, eventually, ground, tool, tunnel_daemon};

const PEER: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const SHARED: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

fn document() -> Value {
    json!({"version": 1, "plugins": {
        "net": {"interfaces": [{"name": "ovsbr0", "datapath": "netdev", "fail_mode": "secure",
            "ports": [{"name": "int0", "type": "internal", "tag": 7}], "ipv4": {"addresses": ["10.0.0.1/24"]}}]},
        "wireguard": {"tunnels": [{"name": "wg0", "addresses": ["10.8.0.1/24"], "listen_port": 51820, "mtu": 1380,
            "peers": [{"public_key": PEER, "allowed_ips": ["10.8.0.2/32", "10.90.0.0/24"], "endpoint": "192.0.2.2:51999",
                "preshared": SHARED}]}]},
        "mesh": {"bridges": [{"name": "ovsbr0"}], "tunnels": [{"name": "wg0", "networks": ["10.90.0.0/24"]}]},
        "lxc": {"containers": [{"id": "100", "bridge": "ovsbr0", "properties": {
            "template": "local:vztmpl/debian-12.tar.zst", "hostname": "web-1", "memory": 64, "storage": "local",
            "rootfs_size": 4, "ip": "10.0.0.100/24"}}]},
        "publicip": {
            "pools": [{"range": "203.0.113.0/28", "gateway": "203.0.113.1", "exclude": ["203.0.113.14"],
                "announce": {"uplink": "up0", "behind": "ovsbr0"}}],
            "assignments": [{"holder": "vm-100", "private": "10.0.0.100"}]},
        "ovsflows": {"flows": [{"bridge": "ovsbr0", "owner": "web", "flows": [
            {"priority": 10, "match": {"in_port": "vi100"}, "actions": ["normal"]}, {"priority": 1, "actions": ["drop"]}]}]}}})
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines
}

/// Everything that a start of the machine takes, in the words of others' tools.
fn snapshot(ground: &Ground) -> BTreeMap<&'static str, Vec<String>> {
    let device = |name: &str| {
        let text = tool(&format!("ip -br addr show dev {name}"));
        let words: Vec<&str> = text.split_whitespace().collect();
        let state = words[1];
        let addresses = words[2..].iter().filter(|word| !word.starts_with("fe80"));
        format!(
            "{name} {state} {}",
            addresses.copied().collect::<Vec<_>>().join(" ")
        )
    };
    let setting = |key: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{key}"));
        format!("{key}={}", text.expect("a setting").trim())
    };
    let ours = |command: &str| {
        let lines = sorted(&tool(command));
        let ours = lines.into_iter().filter(|l| l.contains("BLOCKHOST"));
        ours.filter(|l| l.starts_with("-A")).collect::<Vec<_>>()
    };
    let wg = |what: &str| format!("{what}: {}", tool(&format!("wg show wg0 {what}")).trim());
    let running = ground.world.layout.state().join("ct/100.run").exists();
    BTreeMap::from([
        ("ports", sorted(&ground.switch.vsctl("list-ports ovsbr0"))),
        (
            "rows",
            vec![
                ground.switch.vsctl("get bridge ovsbr0 fail_mode"),
                ground.switch.vsctl("get port int0 tag"),
                ground
                    .switch
                    .vsctl("get interface vi100 external_ids:vm-id"),
                ground.switch.vsctl("get interface vi100 error"),
            ],
        ),
        (
            "flows",
            sorted(
                &ground
                    .switch
                    .ofctl(&["--names", "--no-stats", "dump-flows", "ovsbr0"]),
            )
            .into_iter()
            .filter(|line| line.contains("actions="))
            .collect(),
        ),
        ("devices", vec![device("ovsbr0"), device("wg0")]),
        ("routes", sorted(&tool("ip route show"))),
        ("answers", sorted(&tool("ip neigh show proxy"))),
        (
            "forwarding",
            [
                "ovsbr0/forwarding",
                "ovsbr0/rp_filter",
                "wg0/forwarding",
                "wg0/rp_filter",
            ]
            .map(setting)
            .to_vec(),
        ),
        (
            "tunnel",
            [
                "private-key",
                "listen-port",
                "preshared-keys",
                "allowed-ips",
                "endpoints",
            ]
            .map(wg)
            .to_vec(),
        ),
        ("rules", ours("iptables-nft-save")),
        ("containers", vec![running.to_string()]),
    ])
}

/// How much of the switch's database a start leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    Stay,
    Gone,
}

/// Nothing forwards, and there is an uplink with an address, as the system's own configuration makes them at a start.
fn as_the_system_starts() {
    for key in ["ipv4/ip_forward", "ipv4/conf/default/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{key}"), "0").expect("a setting");
    }
    tool("ip link add up0 type veth peer name out0");
    for device in ["up0", "out0"] {
        tool(&format!("ip link set {device} up"));
    }
    tool("ip addr add 203.0.113.14/28 dev up0");
}

/// Takes everything that a start of the machine takes.
fn start_again(ground: &mut Ground, daemon: Service, rows: Rows) {
    ground.agent.signal(Signal::KILL);
    eventually("the agent is dead", || ground.agent.check().is_err());
    drop(daemon);
    eventually("the tunnel's device is gone", || {
        !tool("ip -br link").contains("wg0")
    });
    std::fs::remove_file(ground.world.layout.state().join("ct/100.run")).expect("it ran");
    tool("ip link del vi100");
    tool("nft flush ruleset");
    tool("ip link del up0");
    match rows {
        Rows::Stay => {
            ground.switch.ofctl(&["del-flows", "ovsbr0"]);
            tool("ip addr flush dev ovsbr0");
            tool("ip link set ovsbr0 down");
            for key in ["forwarding", "rp_filter"] {
                let path = format!("/proc/sys/net/ipv4/conf/ovsbr0/{key}");
                std::fs::write(path, "0").expect("a setting");
            }
        }
        Rows::Gone => {
            ground.switch.vsctl("del-br ovsbr0");
        }
    }
    assert!(!tool("ip route show").contains("ovsbr0"));
    as_the_system_starts();
    ground.agent = start_agent(&ground.world).expect("the agent starts again");
}

/// What the unit runs, as the user that it runs as.
fn restore(ground: &Ground) -> (i32, Value) {
    let ended = ground.blockhost(&["net", "restore", "--json"]);
    (ended.code, ended.json())
}

fn fates(done: &Value) -> BTreeMap<String, String> {
    let outcomes = done["state"]["outcomes"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    outcomes
        .map(|outcome| (text(&outcome["resource"]), text(&outcome["fate"])))
        .collect()
}

/// Another run finds nothing to do, and asks for nothing that changes anything.
fn nothing_is_left_to_do(ground: &Ground) {
    let size = ground.changes_on_record();
    let (code, again) = restore(ground);
    assert_eq!(code, 0, "{again:#}");
    assert_eq!(again["state"]["outcomes"], json!([]), "{again:#}");
    assert_eq!(again["said"], json!([]), "{again:#}");
    assert_eq!(ground.changes_on_record(), size, "{again:#}");
}

fn applied(ground: &Ground) -> (Service, BTreeMap<&'static str, Vec<String>>) {
    as_the_system_starts();
    let daemon = tunnel_daemon(ground, "wg0").expect("wireguard-go was looked for");
    let file = ground.document("state.json", &document().to_string());
    ground.converge(&file, &[]);
    let opened = ground.blockhost(&["agent", "call", "iptables-open", "port=443", "comment=web"]);
    assert_eq!(opened.code, 0, "{opened:?}");
    let before = snapshot(ground);
    assert!(before["tunnel"][2].contains(SHARED), "{before:#?}");
    assert!(before["answers"][0].contains("203.0.113.2"), "{before:#?}");
    (daemon, before)
}

fn can_run(test: &str) -> bool {
    let can = blockhost_tests::namespace::find("wireguard-go").is_some();
    if !can {
        println!("skipped: {test} needs wireguard-go");
    }
    can
}

#[test]
fn after_a_start_everything_comes_back_by_the_units_command_and_what_fails_stops_only_what_needs_it()
 {
    const TEST: &str = "after_a_start_everything_comes_back_by_the_units_command_and_what_fails_stops_only_what_needs_it";
    if !can_run(TEST) {
        return;
    }
    let Some(mut ground) = ground(TEST) else {
        return;
    };
    let (daemon, before) = applied(&ground);
    start_again(&mut ground, daemon, Rows::Stay);

    let size = ground.changes_on_record();
    let looked = ground.blockhost(&["net", "restore", "--dry-run"]);
    assert_eq!(looked.code, 0, "{looked:?}");
    for part in ["443/tcp", "~ net/ovsbr0", "+ wireguard/wg0", "~ lxc/100"] {
        assert!(looked.text.contains(part), "{part}: {}", looked.text);
    }
    assert_eq!(ground.changes_on_record(), size, "a look changes nothing");

    // The program that makes the tunnel's device is not there yet.
    let (code, first) = restore(&ground);
    assert_eq!(code, 1, "{first:#}");
    let became = fates(&first);
    for resource in [
        "net/ovsbr0",
        "lxc/100",
        "publicip/vm-100",
        "ovsflows/ovsbr0/web",
    ] {
        assert_eq!(became[resource], "done", "{first:#}");
    }
    // Not taken back: its keys would go along, and it would come back as another.
    assert_eq!(became["wireguard/wg0"], "failed", "{first:#}");
    assert_eq!(became["mesh/wg0"], "skipped", "{first:#}");
    let _daemon = tunnel_daemon(&ground, "wg0").expect("a daemon");
    let (code, second) = restore(&ground);
    assert_eq!(code, 0, "{second:#}");
    assert_eq!(
        fates(&second).into_keys().collect::<Vec<_>>(),
        ["mesh/wg0", "wireguard/wg0"],
        "only what was missing"
    );
    assert_eq!(snapshot(&ground), before);
    nothing_is_left_to_do(&ground);
    let footprints = ground.blockhost(&["ledger", "list", "--action", "state-restored", "--json"]);
    assert!(
        footprints.text.contains("state:wireguard"),
        "{footprints:?}"
    );
    assert!(!ground.log().contains(SHARED));

    // A rule by hand in our chain is no reason to find nothing to do.
    tool("iptables-nft -A BLOCKHOST-INPUT -p tcp --dport 23 -j ACCEPT");
    let (code, third) = restore(&ground);
    assert_eq!(code, 0, "{third:#}");
    assert_eq!(snapshot(&ground), before);
    let file = ground.document("again.json", &document().to_string());
    ground.converge(&file, &[]);
}

#[test]
fn a_restoration_that_is_killed_is_ended_by_the_next_one_also_when_the_switch_lost_its_rows() {
    const TEST: &str =
        "a_restoration_that_is_killed_is_ended_by_the_next_one_also_when_the_switch_lost_its_rows";
    if !can_run(TEST) {
        return;
    }
    let Some(mut ground) = ground(TEST) else {
        return;
    };
    let (daemon, before) = applied(&ground);
    start_again(&mut ground, daemon, Rows::Gone);
    let _daemon = tunnel_daemon(&ground, "wg0").expect("a daemon");
    ground.hold("start", true);
    let command = ground
        .world
        .as_blockhost("blockhost", &["net", "restore", "--json"]);
    let killed = Service::start(&ground.world, "restore", command).expect("a restoration");
    ground.wait_until_held("start");
    killed.signal(Signal::KILL);
    drop(killed);
    ground.hold("start", false);
    // What the agent was doing it ends; whoever comes waits for that.
    let (code, done) = restore(&ground);
    assert_eq!(code, 0, "{done:#}");
    assert_eq!(snapshot(&ground), before);
    nothing_is_left_to_do(&ground);
}
