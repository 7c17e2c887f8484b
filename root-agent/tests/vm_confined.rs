//! Containers and limits through a whole agent: the vm compartment is confined, and `pct` and traffic control work all
//! the same, with what the agent lets it reach and no more.

mod common;

use common::{Agent, World};
use serde_json::{Value, json};

/// Says what it was called with, and does a little of what Proxmox's programs do.
const BACKEND: &str = r#"#!/bin/sh
echo "${0##*/} $*" >>"$BLOCKHOST_ROOT/var/lib/blockhost/called"
case "$1" in
status) echo 'status: running' ;;
config) printf 'name: a\nnet0: virtio,bridge=vmbr0\n' ;;
create) cat "$3" >"$BLOCKHOST_ROOT/var/lib/blockhost/template" || exit 1 ;;
exec) shift 3; exec "$@" ;;
esac
exit 0
"#;

fn agent() -> Option<Agent> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: an agent needs root");
        return None;
    }
    let world = World::new("");
    let mut programs = Vec::new();
    for name in ["qm", "pct"] {
        let path = world.script(name, BACKEND);
        programs.push(format!("{name}: {}", path.display()));
    }
    world.write_policy(&format!(
        "backend: embedded\nprograms: {{{}}}\nallow: {{template_dirs: [/srv/templates]}}\n",
        programs.join(", ")
    ));
    let templates = world.layout.root().join("srv/templates");
    std::fs::create_dir_all(&templates).expect("a directory");
    std::fs::write(templates.join("a.tar"), "an archive").expect("a template");
    std::fs::write(world.layout.root().join("srv/secret.tar"), "no").expect("a file");
    Some(Agent::start_in(world))
}

fn ask(agent: &Agent, action: &str, params: Value) -> Value {
    agent
        .client()
        .call(&json!({"action": action, "params": params}))
}

/// A command of the host in the agent's network.
fn there(agent: &Agent, words: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "the test looks at the kernel")]
    let output = std::process::Command::new("nsenter")
        .args(["--net", "--target", &agent.supervisor().to_string(), "--"])
        .args(words.split(' '))
        .output()
        .expect("nsenter is installed");
    assert!(output.status.success(), "{words}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_confined_compartment_creates_containers_and_runs_commands_in_them() {
    let Some(agent) = agent() else { return };
    let create = |template: &str| {
        ask(
            &agent,
            "pct-create",
            json!({"vmid": 100, "template": template, "hostname": "a", "options": {"rootfs": "local:1"}}),
        )
    };
    let made = create("a.tar");
    assert_eq!(made["ok"], true, "{made}");
    let read = std::fs::read_to_string(agent.world.layout.state().join("template"));
    assert_eq!(read.expect("read by pct"), "an archive");
    assert_eq!(create("/srv/secret.tar")["code"], "forbidden");
    assert_eq!(create("other:vztmpl/a.tar")["code"], "forbidden");

    let ran = ask(
        &agent,
        "pct-exec",
        json!({"vmid": 100, "command": "echo hunter2; echo b >&2; exit 3", "secret": true}),
    );
    assert_eq!(ran["exitcode"], 3, "{ran}");
    assert_eq!(
        (&ran["stdout"], &ran["stderr"]),
        (&json!("hunter2\n"), &json!("b\n"))
    );
    let records = Value::Array(agent.world.records()).to_string();
    assert!(records.contains("pct-exec") && !records.contains("hunter2"));
    let called = std::fs::read_to_string(agent.world.layout.state().join("called"));
    assert!(!called.expect("calls").contains("hunter2"));
}

#[test]
fn a_confined_compartment_limits_the_taps_of_its_machines() {
    let Some(agent) = agent() else { return };
    let limit = |params: Value| ask(&agent, "vm-throttle", params);
    let refused = limit(json!({"vmid": 100, "rate_in_kbps": 8000}));
    assert_eq!(refused["code"], "conflict", "there is no tap: {refused}");
    there(&agent, "ip link add tap100i0 type veth peer name machine");
    let done = limit(json!({"vmid": 100, "rate_in_kbps": 8000, "rate_out_kbps": 800}));
    assert_eq!(done["ok"], true, "{done}");
    let queues: Value = serde_json::from_str(&there(&agent, "tc -j -d qdisc show")).expect("JSON");
    let mut rates: Vec<u64> = queues
        .as_array()
        .expect("a list")
        .iter()
        .filter(|queue| queue["kind"] == "tbf")
        .filter_map(|queue| queue["options"]["rate"].as_u64())
        .collect();
    rates.sort_unstable();
    assert_eq!(rates, [100_000, 1_000_000], "{queues}");
    let reset = limit(json!({"vmid": 100, "reset": true}));
    assert_eq!(reset["ok"], true, "{reset}");
    assert!(!there(&agent, "tc -j -d qdisc show").contains("tbf"));
}
