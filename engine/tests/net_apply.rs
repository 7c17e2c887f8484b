//! A document that moves an uplink, applied on a real switch with the real agent: who is killed and whenever, everything is
//! as it was or as the document says; and what becomes of a way back that is refused, or whose record cannot be read.

mod net_world;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use net_world::{Running, World, guards, in_namespaces, kill, program, stopped, wait_for};
use serde_json::{Value, json};

/// Every moment of an apply with a hand-over.
const POINTS: [&str; 11] = [
    "recorded",
    "watched",
    "starting-0",
    "done-0",
    "starting-1",
    "done-1",
    "starting-2",
    "done-2",
    "judged",
    "confirming",
    "confirmed",
];

/// The uplink, the bridge, and the addresses that they carry.
const ALLOW: &str = "  uplinks: [eth0]\n  ovs_ports: [eth0]\n  ovs_bridges: [ovsbr0]\n  link_devices: [ovsbr0]\n  \
    link_addresses: [10.0.0.0/8, 192.0.2.0/24, 198.51.100.0/24, 'fc00::/7']\n";

fn in_world(test: &str, body: impl FnOnce(&mut World)) {
    in_namespaces(test, || body(&mut World::with(ALLOW)));
}

fn document(world: &World, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut bridge = json!({"name": "ovsbr0", "type": "ovs-bridge", "datapath": "netdev", "uplink": "eth0",
        "ipv4": {"addresses": ["192.0.2.2/24", "192.0.2.3/24", "198.51.100.9/32"]},
        "ipv6": {"addresses": ["fd99::2/64"]}});
    change(&mut bridge);
    let path = world.layout.root().join("state.json");
    let document = json!({"version": 1, "plugins": {"net": {"interfaces": [bridge]}}});
    std::fs::write(&path, document.to_string()).expect("a document");
    path
}

fn apply<'a>(file: &'a std::path::Path, more: &[&'a str]) -> Vec<&'a str> {
    let file = file.to_str().expect("text");
    [&["apply", "--yes", "--json", file], more].concat()
}

/// Starts an apply that stops at a fail point.
fn stopped_at(world: &World, file: &std::path::Path, point: &str) -> Running {
    let at = ("BLOCKHOST_FAIL_POINT", point);
    stopped(world, &apply(file, &[]), at, "net-change")
}

fn started(world: &World, words: &[&str]) -> std::process::Child {
    world
        .command(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("blockhost")
}

fn waits_for_the_operator(world: &World) {
    wait_for("it waits for the operator", || {
        let (status, _) = world.json(&["net", "status", "--json"]);
        (status["open"][0]["state"] == "waiting for you").then_some(())
    });
}

#[test]
fn a_document_with_an_uplink_moves_it_once_and_connections_go_on() {
    in_world(
        "a_document_with_an_uplink_moves_it_once_and_connections_go_on",
        |world| {
            let mut connection = world.connection();
            let file = document(world, |_| {});
            let (diff, code) = world.json(&["diff", "--json", file.to_str().expect("text")]);
            assert_eq!((&diff["counts"]["create"], code), (&json!(1), 2), "{diff}");
            let (report, code) = world.json(&apply(&file, &[]));
            assert_eq!(
                (&report["outcomes"][0]["fate"], code),
                (&json!("done"), 0),
                "{report}"
            );
            connection.is_alive("on the bridge");
            assert_eq!(world.vsctl("list-ports ovsbr0").trim(), "eth0");
            world.is_over();
            let records = world.records().len();
            let (again, code) = world.json(&apply(&file, &[]));
            assert_eq!((&again["outcomes"], code), (&json!([]), 0), "{again}");
            let new = world.records();
            let changes = new
                .iter()
                .skip(records)
                .filter(|record| record["operation"] != "query");
            assert_eq!(changes.count(), 0, "a second apply changes nothing");

            // An address more: judged, too. One whose gateway somebody needs: not even begun.
            let more = document(world, |bridge| {
                bridge["ipv4"]["addresses"] = json!([
                    "192.0.2.2/24",
                    "192.0.2.3/24",
                    "198.51.100.9/32",
                    "10.77.0.1/24"
                ]);
            });
            let (report, code) = world.json(&apply(&more, &[]));
            assert_eq!(
                (&report["outcomes"][0]["fate"], code),
                (&json!("done"), 0),
                "{report}"
            );
            connection.is_alive("with another address");
            let before = world.snapshot();
            let less = document(world, |bridge| {
                bridge["ipv4"]["addresses"] = json!(["10.77.0.1/24"])
            });
            let (report, code) = world.json(&apply(&less, &[]));
            assert_eq!(code, 1, "{report}");
            assert!(
                report["outcomes"][0]["error"]
                    .to_string()
                    .contains("would lose the route"),
                "{report}"
            );
            assert_eq!(world.snapshot(), before);
            connection.is_alive("in the end");
        },
    );
}

#[test]
fn an_apply_that_is_killed_at_any_step_is_taken_back_or_finished_and_the_next_one_completes_it() {
    in_world(
        "an_apply_that_is_killed_at_any_step_is_taken_back_or_finished_and_the_next_one_completes_it",
        |world| {
            let before = world.snapshot();
            let mut connection = world.connection();
            let file = document(world, |_| {});
            for point in POINTS {
                let mut apply = stopped_at(world, &file, point);
                if point == "recorded" {
                    assert_eq!(guards(), Vec::<u32>::new(), "nobody watches yet");
                }
                apply.kill();
                match point {
                    "recorded" => {
                        let (found, _) = world.json(&["net", "recover", "--wait", "--json"]);
                        assert!(found[0]["reverted"]["id"].is_string(), "{found}");
                    }
                    // It was decided: whoever watches finishes it.
                    "confirmed" => break,
                    _ => {}
                }
                world.is_again(&before, point);
                world.is_over();
                connection.is_alive(point);
            }
            world.is_over();
            assert_eq!(world.vsctl("list-ports ovsbr0").trim(), "eth0", "it stays");
            let (status, _) = world.json(&["net", "status", "--json"]);
            assert_eq!(status["last"]["confirmed"], true, "{status}");
            let file_of = |name: &str| std::fs::read_to_string(world.layout.state().join(name));
            assert!(
                file_of("applied/state.json")
                    .expect("a record")
                    .contains("\"running\":{")
            );
            let (report, code) = world.json(&apply(&file, &[]));
            assert_eq!((&report["outcomes"], code), (&json!([]), 0), "{report}");
            let interrupted = world.records();
            let told = interrupted
                .iter()
                .any(|record| record["action"] == "state-apply-interrupted");
            assert!(told, "what was killed is on record with the next one");
            connection.is_alive("in the end");
        },
    );
}

#[test]
fn with_everybody_killed_the_next_apply_takes_it_back_first_and_then_makes_it() {
    in_world(
        "with_everybody_killed_the_next_apply_takes_it_back_first_and_then_makes_it",
        |world| {
            let before = world.snapshot();
            let file = document(world, |_| {});
            for point in ["done-0", "done-1", "starting-2", "done-2"] {
                let mut apply = stopped_at(world, &file, point);
                guards().into_iter().for_each(kill);
                apply.kill();
                let (found, _) = world.json(&["net", "recover", "--wait", "--json"]);
                assert!(found[0]["reverted"]["id"].is_string(), "{point}: {found}");
                assert_eq!(world.snapshot(), before, "{point}");
            }
            let mut killed = stopped_at(world, &file, "done-1");
            guards().into_iter().for_each(kill);
            killed.kill();
            let (report, code) = world.json(&apply(&file, &[]));
            assert_eq!(
                (&report["outcomes"][0]["fate"], code),
                (&json!("done"), 0),
                "{report}"
            );
            assert_eq!(world.vsctl("list-ports ovsbr0").trim(), "eth0");
            world.is_over();
        },
    );
}

#[test]
fn what_nobody_confirms_is_taken_back_whoever_is_killed_meanwhile() {
    in_world(
        "what_nobody_confirms_is_taken_back_whoever_is_killed_meanwhile",
        |world| {
            let before = world.snapshot();
            let file = document(world, |_| {});
            let ended = |child: std::process::Child| -> Value {
                let output = child.wait_with_output().expect("an end");
                serde_json::from_slice(&output.stdout).expect("JSON")
            };
            let report = ended(started(world, &apply(&file, &["--confirm-within", "5"])));
            assert_eq!(report["outcomes"][0]["fate"], "rolled_back", "{report}");
            world.is_again(&before, "nobody confirmed");

            let mut killed = Running(started(world, &apply(&file, &["--confirm-within", "5"])));
            waits_for_the_operator(world);
            killed.kill();
            world.is_again(&before, "killed while it waited");
            world.is_over();

            let confirmed = started(world, &apply(&file, &["--confirm-within", "60"]));
            waits_for_the_operator(world);
            let (said, code) = world.json(&["net", "confirm", "--json"]);
            assert_eq!((&said["confirmed"], code), (&json!(true), 0));
            let report = ended(confirmed);
            assert_eq!(report["outcomes"][0]["fate"], "done", "{report}");
            assert_eq!(world.vsctl("list-ports ovsbr0").trim(), "eth0");
        },
    );
}

#[test]
fn a_way_back_that_is_refused_ends_stuck_and_the_operator_resolves_it() {
    in_world(
        "a_way_back_that_is_refused_ends_stuck_and_the_operator_resolves_it",
        |world| {
            let before = world.snapshot();
            let file = document(world, |_| {});
            let policy = std::fs::read_to_string(world.layout.agent_policy()).expect("a policy");
            let stuck = |world: &mut World| {
                let mut waiting =
                    Running(started(world, &apply(&file, &["--confirm-within", "6"])));
                waits_for_the_operator(world);
                waiting.kill();
                world.kill_agent();
                let narrow = policy.replace("uplinks: [eth0]", "uplinks: []");
                std::fs::write(world.layout.agent_policy(), narrow).expect("a policy");
                world.start_agent();
                let state = wait_for("it is stuck", || {
                    let (status, _) = world.json(&["net", "status", "--json"]);
                    (status["open"][0]["state"] == "stuck").then_some(status)
                });
                assert_eq!(state["last"]["stuck"], true, "{state}");
                assert!(
                    state["last"]["problems"]
                        .to_string()
                        .contains("link-handover"),
                    "{state}"
                );
                wait_for("nobody tries any more", || {
                    guards().is_empty().then_some(())
                });
                state["open"][0]["id"].as_str().expect("an id").to_owned()
            };
            let id = stuck(world);
            let (refused, code) = world.json(&net_world::attach(&["--json"]));
            assert_eq!(code, 1, "{refused}");
            assert!(refused["error"].to_string().contains(&id), "{refused}");
            std::fs::write(world.layout.agent_policy(), &policy).expect("a policy");
            world.kill_agent();
            world.start_agent();
            let (found, code) = world.json(&["net", "recover", "--json"]);
            assert_eq!(code, 0, "{found}");
            assert_eq!(found[0]["reverted"]["id"], json!(id));
            world.is_again(&before, "the way back is open again");

            let id = stuck(world);
            for wrong in ["00000000", "../../etc", "", "stuck"] {
                let output = world.blockhost(&["net", "abandon", "--id", wrong]);
                assert!(!output.status.success(), "{wrong}");
            }
            let (ended, code) = world.json(&["net", "abandon", "--id", &id, "--json"]);
            assert_eq!((&ended["stuck"], code), (&json!(true), 0), "{ended}");
            world.is_over();
            assert_eq!(
                world.vsctl("list-ports ovsbr0").trim(),
                "eth0",
                "it is as it was left"
            );
        },
    );
}

#[test]
fn a_record_that_cannot_be_read_any_more_does_not_end_the_way_back() {
    in_world(
        "a_record_that_cannot_be_read_any_more_does_not_end_the_way_back",
        |world| {
            let before = world.snapshot();
            let mut waiting = Running(started(
                world,
                &net_world::attach(&["--confirm-within", "5", "--json"]),
            ));
            waits_for_the_operator(world);
            // From now on others could have written it.
            let directory = world.layout.state().join("net-change");
            std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).expect("a mode");
            waiting.kill();
            world.is_again(&before, "taken back from memory");
            std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o700)).expect("a mode");
            world.is_over();
        },
    );
}

#[test]
fn what_somebody_wrote_into_a_record_reaches_no_terminal_unescaped() {
    let directory = tempfile::tempdir().expect("a directory");
    let layout = blockhost_proto::layout::Layout::new(directory.path());
    let records = layout.state().join("net-change");
    std::fs::create_dir_all(&records).expect("a directory");
    std::fs::set_permissions(&records, PermissionsExt::from_mode(0o700)).expect("a mode");
    let evil = "a\u{1b}[2J\nlast\tfake\r\u{7}\u{9b}1m\u{202e}";
    let last = json!({"id": evil, "what": evil, "confirmed": false, "reason": evil, "at": evil, "problems": [evil]});
    let plan = json!({"what": evil, "steps": [], "expect": {}, "devices": [], "notes": []});
    let deadline = json!({"boot_id": "", "at_ms": u64::MAX / 2});
    let record = json!({"version": 1, "id": "0123abcd", "begun": evil, "pid": 1, "plan": plan, "deadline": deadline});
    for (name, text) in [
        ("last.json", last.to_string()),
        ("stuck-0123abcd.json", format!("{record}\n")),
    ] {
        std::fs::write(records.join(name), text).expect("a file");
        std::fs::set_permissions(records.join(name), PermissionsExt::from_mode(0o600))
            .expect("a mode");
    }
    let output = program(env!("CARGO_BIN_EXE_blockhost"))
        .args(["net", "status"])
        .env_clear()
        .env("BLOCKHOST_ROOT", directory.path())
        .output()
        .expect("blockhost");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(
        text.chars().all(|c| matches!(c, ' '..='~' | '\n' | '\t')),
        "{text:?}"
    );
    assert_eq!(
        text.lines().count(),
        3,
        "the change, how the last one ended, its problem: {text}"
    );
    assert!(
        text.starts_with("0123abcd\t") && text.contains("\tstuck\t"),
        "{text}"
    );
}

const DAEMON: &str = "/usr/bin/dbus-daemon";

const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
<allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
<allow receive_type="signal"/><allow receive_type="method_return"/><allow receive_type="error"/></policy></busconfig>"#;

/// A bus of this world's own, and the service on it.
struct Bus {
    _daemon: Running,
    address: String,
}

impl Bus {
    fn start(world: &World) -> Self {
        let socket = world.layout.root().join("bus");
        let file = world.layout.root().join("bus.conf");
        let text = BUS.replace("SOCKET", socket.to_str().expect("text"));
        std::fs::write(&file, text).expect("a file");
        let daemon = program(DAEMON)
            .arg(format!("--config-file={}", file.display()))
            .arg("--nofork")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a bus");
        let daemon = Running(daemon);
        wait_for("the bus", || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        Self {
            _daemon: daemon,
            address: format!("unix:path={}", socket.display()),
        }
    }

    fn service(&self, world: &World, point: Option<&str>) -> (Running, PathBuf) {
        let log = world.layout.root().join("bus.log");
        let mut command = program(env!("CARGO_BIN_EXE_blockhost-bus"));
        command
            .env_clear()
            .env("BLOCKHOST_ROOT", world.layout.root())
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.address)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("a log"));
        if let Some(point) = point {
            command.env("BLOCKHOST_FAIL_POINT", point);
        }
        let running = Running(command.spawn().expect("blockhost-bus"));
        wait_for("the service", || {
            let text = std::fs::read_to_string(&log).expect("a log");
            text.contains("bus service started").then_some(())
        });
        (running, log)
    }

    fn apply(&self, file: &std::path::Path) -> std::process::Child {
        let document = std::fs::read_to_string(file).expect("a document");
        program("busctl")
            .arg(format!("--address={}", self.address))
            .args([
                "--timeout=60",
                "call",
                "dev.ovs.PortAgent1",
                "/dev/ovs/PortAgent1",
                "dev.ovs.PortAgent1",
            ])
            .args(["ApplyState", "s", &document])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("busctl")
    }
}

#[test]
fn a_bus_service_that_is_killed_while_it_applies_leaves_everything_as_it_was() {
    const TEST: &str = "a_bus_service_that_is_killed_while_it_applies_leaves_everything_as_it_was";
    if !std::path::Path::new(DAEMON).exists() {
        println!("skipped: {TEST} needs the package dbus-daemon");
        return;
    }
    in_world(TEST, |world| {
        let before = world.snapshot();
        let bus = Bus::start(world);
        let file = document(world, |_| {});
        // Who watches takes it back; with that killed as well, the service's next start does.
        for (point, everybody) in [
            ("done-1", false),
            ("starting-2", true),
            ("done-2", false),
            ("judged", true),
        ] {
            let (mut service, log) = bus.service(world, Some(point));
            let mut call = Running(bus.apply(&file));
            wait_for(point, || {
                let text = std::fs::read_to_string(&log).expect("a log");
                text.contains("fail point net-change reached").then_some(())
            });
            if everybody {
                guards().into_iter().for_each(kill);
            }
            service.kill();
            call.kill();
            let again = everybody.then(|| bus.service(world, None));
            world.is_again(&before, point);
            world.is_over();
            drop(again);
        }
        let (_service, _) = bus.service(world, None);
        let output = bus.apply(&file).wait_with_output().expect("an end");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(
            output.status.success() && text.contains("\\\"fate\\\":\\\"done\\\""),
            "{text}"
        );
        assert_eq!(world.vsctl("list-ports ovsbr0").trim(), "eth0");
        world.is_over();
    });
}
