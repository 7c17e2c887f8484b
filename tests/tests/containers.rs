//! Containers through the real agent: `pct-*` in the vm compartment, as confined as on a host, the unprivileged service that
//! has the containers, real LXC.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use blockhost_tests::command::{command, run, with_args};
use blockhost_tests::namespace::test_ran_inside;
use blockhost_tests::small_root;
use blockhost_tests::world::services::{Service, start_agent, start_containers};
use blockhost_tests::world::{AGENT_ONLY, World, built_programs};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(240);
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2mSbTmfL0yJ0Yx5b5lQ9PZ3O8wq3E6m7yqk5Yw1p8k me@here";
const TEMPLATE: &str = "local:vztmpl/small.tar.gz";

struct Ground {
    world: World,
    agent: Service,
    containers: Service,
    dir: tempfile::TempDir,
}

/// A world with agent and containers' service, or `None` where the test ran already or cannot run.
fn ground(test: &str) -> Option<Ground> {
    if let Some(why) = small_root::missing() {
        println!("skipped: {why}");
        return None;
    }
    let init = PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"));
    if test_ran_inside(test, &init, LIMIT) {
        return None;
    }
    let dir = tempfile::Builder::new()
        .prefix("blockhost-ct-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    let world = World::create(dir.path(), &built_programs(), AGENT_ONLY).expect("a world");
    world.network().expect("a bridge");
    let containers = start_containers(&world).expect("the service starts");
    let agent = start_agent(&world).expect("the agent starts");
    small_template(&world, dir.path());
    Some(Ground {
        world,
        agent,
        containers,
        dir,
    })
}

impl Ground {
    /// Asks as the services do, and gives the whole answer.
    fn ask(&self, action: &str, params: &Value) -> Value {
        const CLIENT: &str = "\
import json, socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
b = sys.argv[2].encode()
s.sendall(struct.pack('>I', len(b)) + b)
n = struct.unpack('>I', s.recv(4, socket.MSG_WAITALL))[0]
print(s.recv(n, socket.MSG_WAITALL).decode())
";
        let request = json!({"action": action, "params": params}).to_string();
        let socket = self.world.layout.agent_socket().display().to_string();
        let client: Command = self
            .world
            .as_blockhost("python3", &["-c", CLIENT, &socket, &request]);
        let output = run(client, Duration::from_secs(120)).expect("an answer");
        serde_json::from_str(&output.stdout).expect("JSON")
    }

    fn succeeds(&self, action: &str, params: Value) -> Value {
        let answer = self.ask(action, &params);
        assert_eq!(answer["ok"], true, "{action} {params}: {answer}");
        answer
    }

    fn refused(&self, code: &str, action: &str, params: Value) -> String {
        let answer = self.ask(action, &params);
        assert_eq!(answer["code"], code, "{action} {params}: {answer}");
        answer["error"].as_str().unwrap_or_default().to_owned()
    }

    fn create(&self, vmid: u32, options: &[(&str, &str)]) -> Value {
        let mut params = json!({"vmid": vmid, "template": TEMPLATE, "hostname": format!("web-{vmid}"),
            "options": {"rootfs": "local:1"}});
        for (key, value) in options {
            params["options"][*key] = json!(value);
        }
        self.succeeds("pct-create", params)
    }

    fn status(&self, vmid: u32) -> String {
        self.succeeds("pct-status", json!({"vmid": vmid}))["output"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn answers(&self, address: &str) -> bool {
        run(
            with_args("ping", &["-c", "1", "-W", "5", address]),
            Duration::from_secs(10),
        )
        .is_ok()
    }
}

/// Makes `local:vztmpl/small.tar.gz`.
fn small_template(world: &World, dir: &Path) {
    let cache = world
        .layout
        .state()
        .join("pct-storage/local/template/cache");
    std::fs::create_dir_all(&cache).expect("a directory");
    small_root::pack(dir, &cache.join("small.tar.gz"));
}

#[test]
fn containers_live_behind_the_agent_from_creation_to_destruction() {
    let Some(ground) = ground("containers_live_behind_the_agent_from_creation_to_destruction")
    else {
        return;
    };
    let vmid = json!({"vmid": 100});
    ground.create(
        100,
        &[
            ("memory", "128"),
            (
                "net0",
                "name=eth0,bridge=vmbr0,ip=10.77.0.50/24,gw=10.77.0.1",
            ),
            ("ssh-public-keys", KEY),
        ],
    );
    ground.refused(
        "conflict",
        "pct-create",
        json!({"vmid": 100, "template": TEMPLATE, "hostname": "x", "options": {"rootfs": "local:1"}}),
    );
    assert!(ground.status(100).contains("stopped"));
    ground.refused(
        "conflict",
        "pct-exec",
        json!({"vmid": 100, "command": "true"}),
    );
    ground.succeeds("pct-start", vmid.clone());
    ground.succeeds("pct-start", vmid.clone());
    assert!(ground.answers("10.77.0.50"));

    // The host's end has its name from the start: naming it changes nothing, however often.
    for _ in 0..2 {
        assert_eq!(
            ground.succeeds("veth-rename", vmid.clone())["name"],
            "vi100"
        );
    }
    let link = run(
        with_args("ip", &["-o", "link", "show", "vi100"]),
        Duration::from_secs(5),
    )
    .expect("resolves");
    assert!(link.stdout.contains("master vmbr0"), "{}", link.stdout);
    ground.refused("not_found", "veth-rename", json!({"vmid": 100, "index": 1}));

    let done = ground.succeeds(
        "pct-exec",
        json!({"vmid": 100, "command": "hostname; cat /root/.ssh/authorized_keys; echo no >&2; exit 3"}),
    );
    assert_eq!(done["exitcode"], 3);
    assert_eq!(done["stdout"], format!("web-100\n{KEY}\n"));
    assert_eq!(done["stderr"], "no\n");
    let secret = ground.succeeds(
        "pct-exec",
        json!({"vmid": 100, "command": "echo $((40 + 2))", "secret": true}),
    );
    assert_eq!(secret["stdout"], "42\n");
    ground.refused(
        "timeout",
        "pct-exec",
        json!({"vmid": 100, "command": "sleep 60", "timeout": 1}),
    );
    let list = ground.succeeds("pct-list", json!({}));
    let list: Value = serde_json::from_str(list["output"].as_str().expect("text")).expect("JSON");
    assert_eq!(
        list,
        json!([{"vmid": 100, "name": "web-100", "status": "running", "lock": null}])
    );
    ground.succeeds(
        "pct-set",
        json!({"vmid": 100, "options": {"memory": 256, "onboot": 1}}),
    );
    let config = ground.succeeds("pct-config", vmid.clone());
    let config: Value =
        serde_json::from_str(config["output"].as_str().expect("text")).expect("JSON");
    assert_eq!(
        (
            &config["memory"],
            &config["onboot"],
            &config["unprivileged"]
        ),
        (&json!("256"), &json!("1"), &json!("1"))
    );
    ground.refused("conflict", "pct-destroy", vmid.clone());
    ground.succeeds("pct-shutdown", json!({"vmid": 100, "timeout": 30}));
    ground.succeeds("pct-shutdown", json!({"vmid": 100, "timeout": 30}));
    assert!(ground.status(100).contains("stopped"));
    ground.succeeds("pct-stop", vmid.clone());
    ground.succeeds("pct-destroy", vmid.clone());
    assert!(!ground.world.layout.containers().join("100").exists());
    for action in [
        "pct-start",
        "pct-stop",
        "pct-status",
        "pct-config",
        "pct-destroy",
    ] {
        ground.refused("not_found", action, vmid.clone());
    }
}

#[test]
fn a_container_outlives_agent_and_service_and_both_find_it_again() {
    let Some(mut ground) = ground("a_container_outlives_agent_and_service_and_both_find_it_again")
    else {
        return;
    };
    ground.create(101, &[("net0", "name=eth0,bridge=vmbr0,ip=10.77.0.51/24")]);
    ground.succeeds("pct-start", json!({"vmid": 101}));
    let pid = |ground: &Ground| {
        let status = ground
            .world
            .as_root("blockhost-pct", &["status", "101", "--verbose", "1"]);
        run(status, Duration::from_secs(10))
            .expect("a status")
            .stdout
    };
    let before = pid(&ground);
    ground.agent.kill();
    ground.containers.kill();
    assert!(ground.answers("10.77.0.51"), "both are gone and it runs");
    ground.agent = start_agent(&ground.world).expect("the agent starts");
    let said = ground.refused("failed", "pct-status", json!({"vmid": 101}));
    assert!(said.contains("blockhost-containers"), "{said}");
    ground.containers = start_containers(&ground.world).expect("the service starts");
    assert_eq!(pid(&ground), before);
    let done = ground.succeeds("pct-exec", json!({"vmid": 101, "command": "hostname"}));
    assert_eq!(done["stdout"], "web-101\n");
    ground.succeeds("pct-stop", json!({"vmid": 101}));
    assert!(!ground.answers("10.77.0.51"));
    ground.succeeds("pct-destroy", json!({"vmid": 101}));
}

#[test]
fn what_an_archive_or_an_option_wants_of_the_host_is_refused_through_the_agent_too() {
    let Some(ground) =
        ground("what_an_archive_or_an_option_wants_of_the_host_is_refused_through_the_agent_too")
    else {
        return;
    };
    let cache = ground
        .world
        .layout
        .state()
        .join("pct-storage/local/template/cache");
    let evil = cache.join("evil.tar");
    let victim = ground.dir.path().join("victim");
    std::fs::write(&victim, "precious").expect("written");
    let stage = ground.dir.path().display().to_string();
    let mut tar = command("tar");
    tar.args([
        "-C",
        &stage,
        "--transform",
        "s,^victim,../../../../../../etc/cron.d/evil,",
        "-P",
        "-cf",
    ]);
    tar.arg(&evil).arg("victim");
    run(tar, Duration::from_secs(10)).expect("packed");
    let create = |template: &str, options: Value| json!({"vmid": 102, "template": template, "hostname": "x", "options": options});
    let said = ground.refused(
        "failed",
        "pct-create",
        create("local:vztmpl/evil.tar", json!({"rootfs": "local:1"})),
    );
    assert!(said.contains("leads out of the root file system"), "{said}");
    assert!(!Path::new("/etc/cron.d/evil").exists());
    assert!(!ground.world.layout.containers().join("102").exists());
    ground.refused("not_found", "pct-status", json!({"vmid": 102}));
    for options in [
        json!({"rootfs": "local:1", "mp0": "/,mp=/host"}),
        json!({"rootfs": "/srv"}),
        json!({"rootfs": "local:1", "unprivileged": 0}),
        json!({"rootfs": "local:1", "features": "mount=nfs"}),
    ] {
        ground.refused("bad_params", "pct-create", create(TEMPLATE, options));
    }
    ground.refused(
        "forbidden",
        "pct-create",
        create(
            TEMPLATE,
            json!({"rootfs": "local:1", "net0": "name=eth0,bridge=other"}),
        ),
    );
}
