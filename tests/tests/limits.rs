//! Limits of a machine from the socket down: asked of the real agent, looked for in the QEMU that it runs and in the
//! kernel's traffic control.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use blockhost_proto::action::Action;
use blockhost_proto::client::blocking::Client;
use blockhost_tests::command::{run, with_args};
use blockhost_tests::namespace::test_ran_inside;
use blockhost_tests::world::services::start_agent;
use blockhost_tests::world::{AGENT_ONLY, World, built_programs};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(240);

fn output(words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    run(with_args(words[0], &words[1..]), Duration::from_secs(10))
        .expect(words[0])
        .stdout
}

/// What QEMU says that a drive may do per second.
fn in_qemu(world: &World, drive: &str) -> (u64, u64) {
    let socket = world.layout.run().join("qm/100/qmp.sock");
    let mut stream = UnixStream::connect(socket).expect("QEMU's monitor");
    stream
        .set_read_timeout(Some(Duration::from_secs(120)))
        .expect("a time limit");
    let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
    let mut ask = |command: &Value| {
        writeln!(stream, "{command}").expect("asked");
        loop {
            let line = lines.next().expect("an answer").expect("a line");
            let mut answer: Value = serde_json::from_str(&line).expect("JSON");
            if !answer["error"].is_null() {
                panic!("{answer}");
            }
            if !answer["return"].is_null() {
                return answer["return"].take();
            }
        }
    };
    ask(&json!({"execute": "qmp_capabilities"}));
    let limits = ask(&json!({"execute": "qom-get", "arguments":
        {"path": format!("/objects/limits-{drive}"), "property": "limits"}}));
    let number = |key: &str| limits[key].as_u64().expect("a number");
    (number("iops-read"), number("iops-write"))
}

/// Bytes per second of all token buckets there are.
fn in_the_kernel() -> Vec<u64> {
    let queues: Value = serde_json::from_str(&output("tc -j -d qdisc show")).expect("JSON");
    let mut rates: Vec<u64> = queues
        .as_array()
        .expect("a list")
        .iter()
        .filter(|queue| queue["kind"] == "tbf")
        .filter_map(|queue| queue["options"]["rate"].as_u64())
        .collect();
    rates.sort_unstable();
    rates
}

/// Whether what its interface may send is held to its own addresses.
fn guarded() -> bool {
    output("tc filter show dev tap100i0 ingress").contains("direct-action")
}

#[test]
fn limits_asked_of_the_agent_are_in_force_in_qemu_and_in_the_kernel() {
    let init = PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"));
    let name = "limits_asked_of_the_agent_are_in_force_in_qemu_and_in_the_kernel";
    if test_ran_inside(name, &init, LIMIT) {
        return;
    }
    let dir = tempfile::Builder::new()
        .prefix("blockhost-limits-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    let programs = [AGENT_ONLY, &["blockhost-vm-stop-all"]].concat();
    let world = World::create(dir.path(), &built_programs(), &programs).expect("a world");
    world.network().expect("a bridge");
    let mut agent = start_agent(&world).expect("the agent starts");
    let mut client = Client::connect(world.layout.agent_socket()).expect("the agent accepts");
    let mut ask = |name: &str, params: Value| {
        let action = Action::from_parts(name, &params).expect("a good request");
        client.call(&action)
    };

    ask(
        "qm-create",
        json!({"vmid": 100, "name": "a", "args": ["--memory", "64", "--scsi0", "local:1", "--net0", "virtio,bridge=vmbr0,firewall=1", "--ipconfig0", "ip=10.77.0.9/24"]}),
    )
    .expect("created");
    let refused = ask("tc-rate-limit", json!({"vmid": 100, "rate_in_kbps": 8000}));
    assert!(refused.is_err(), "a machine that is off has no interface");
    ask("vm-throttle", json!({"vmid": 100, "iops_rd": 300})).expect("limited before its start");
    ask("qm-start", json!({"vmid": 100})).expect("started");
    assert_eq!(in_qemu(&world, "scsi0"), (300, 0));
    assert!(guarded());

    ask(
        "vm-throttle",
        json!({"vmid": 100, "iops_wr": 200, "rate_in_kbps": 8000, "rate_out_kbps": 800}),
    )
    .expect("limited while it runs");
    assert_eq!(
        in_qemu(&world, "scsi0"),
        (300, 200),
        "what is not named stays"
    );
    assert_eq!(in_the_kernel(), [100_000, 1_000_000]);

    ask("vm-throttle", json!({"vmid": 100, "reset": true})).expect("freed");
    assert_eq!(in_qemu(&world, "scsi0"), (0, 0));
    assert!(in_the_kernel().is_empty());
    assert!(guarded(), "that is no limit");

    // It has no system that would listen.
    let words = ["--timeout", "1", "--json"];
    let stopped = world.run("blockhost-vm-stop-all", &words, Duration::from_secs(120));
    let stopped: Value = serde_json::from_str(&stopped.expect("stopped").stdout).expect("JSON");
    assert_eq!(
        stopped,
        json!({"shut_down": [], "forced": ["VM 100"], "failed": []})
    );
    let state = ask("qm-status", json!({"vmid": 100}))
        .expect("asked")
        .output;
    assert!(state.contains("stopped"), "{state}");
    agent.stop(Duration::from_secs(20)).expect("ends");
}
