//! The end of a host: what runs on it is shut down in order before the agent and the containers' service go. A real systemd
//! goes down, one that this brings.

mod units_world;

use blockhost_tests::small_root;
use blockhost_tests::systemd::File;
use serde_json::json;
use units_world::{CONTAINERS, booted, succeeds, wait_for};

const STOP_ALL: &str = "blockhost-stop-all.service";

/// Everything that a shutdown stops, and nothing of what it does afterwards with the machine below.
const DOWN: &[u8] = b"[Unit]\nDefaultDependencies=no\nRequires=shutdown.target\nAfter=shutdown.target\nAllowIsolate=yes\n";

#[test]
fn containers_are_shut_down_with_their_host_and_by_nothing_else() {
    if let Some(why) = small_root::missing() {
        println!("skipped: {why}");
        return;
    }
    let archive = small_root::archive();
    let cache = "/var/lib/blockhost/pct-storage/local/template/cache";
    let file = |path, bytes| File {
        path,
        bytes,
        mode: 0o644,
    };
    let files = [
        file("/units/small.tar.gz", archive.as_slice()),
        file("/units/down.target", DOWN),
    ];
    let enabled = ["blockhost-root-agent.socket", CONTAINERS, STOP_ALL];
    let Some(booted) = booted(&enabled, &files) else {
        return;
    };
    let _ = booted.output(&["mkdir", "-p", cache]);
    let _ = booted.output(&["cp", "/units/small.tar.gz", cache]);
    for vmid in [100, 101, 102] {
        succeeds(
            &booted,
            "pct-create",
            &json!({"vmid": vmid, "template": "local:vztmpl/small.tar.gz", "hostname": "unit",
                "options": {"rootfs": "local:1"}}),
        );
    }
    for vmid in [100, 101] {
        succeeds(&booted, "pct-start", &json!({"vmid": vmid}));
    }
    // Its first process has read what to do at its end when its children run.
    for vmid in [100, 101] {
        wait_for("the container does not run", &booted, || {
            let look = json!({"vmid": vmid, "command": "/bin/busybox pidof sleep"});
            succeeds(&booted, "pct-exec", &look)["exitcode"] == 0
        });
    }
    let word = |vmid: u32| booted.path(&format!("/var/lib/blockhost-ct/{vmid}/rootfs/root/down"));
    let status = |vmid: u32| {
        let answer = succeeds(&booted, "pct-status", &json!({"vmid": vmid}));
        answer["output"].as_str().unwrap_or_default().to_owned()
    };

    // Neither who stops or restarts it nor who restarts what it stands on ends a container.
    for verb in ["stop", "restart"] {
        let refused = booted.run(&["systemctl", verb, STOP_ALL]);
        assert!(refused.is_err(), "systemctl {verb} was taken");
    }
    for unit in [
        CONTAINERS,
        "blockhost-root-agent.service",
        "blockhost-root-agent.socket",
    ] {
        let _ = booted.output(&["systemctl", "restart", unit]);
    }
    for vmid in [100, 101] {
        assert!(status(vmid).contains("running"), "{}", booted.journal());
        assert!(!word(vmid).exists());
    }

    let _ = booted.output(&["systemctl", "--no-block", "isolate", "down.target"]);
    wait_for("the host does not go down", &booted, || {
        booted.property("down.target", "ActiveState") == "active"
    });
    for vmid in [100, 101] {
        assert!(
            word(vmid).exists(),
            "CT {vmid} was killed: {}",
            booted.said(STOP_ALL)
        );
    }
    assert!(!word(102).exists(), "it did not run");
    let said = booted.said(STOP_ALL);
    assert!(
        said.contains("CT 100 is shut down") && said.contains("CT 101 is shut down"),
        "{said}"
    );
    assert!(!said.contains("force") && !said.contains("102"), "{said}");
    for unit in [STOP_ALL, CONTAINERS, "blockhost-root-agent.service"] {
        assert_eq!(booted.property(unit, "ActiveState"), "inactive", "{unit}");
    }
}
