//! The end of a host: what runs on it is shut down in order before the agent and the containers' service go. A real systemd
//! goes down, one that this brings.

mod units_world;

use std::time::Duration;

use blockhost_tests::command::{command, run};
use blockhost_tests::small_root;
use blockhost_tests::systemd::{Booted, File};
use serde_json::json;
use units_world::{CONTAINERS, booted, packaged, succeeds, wait_for};

const STOP_ALL: &str = "blockhost-stop-all.service";

/// Everything that a shutdown stops, and nothing of what it does afterwards with the machine below.
const DOWN: &[u8] = b"[Unit]\nDefaultDependencies=no\nRequires=shutdown.target\nAfter=shutdown.target\nAllowIsolate=yes\n";

/// An upgrade from a version that had no such unit, as far as `dpkg` runs scripts for it.
fn upgraded(booted: &Booted) {
    let script = |words: &str| {
        let ran = format!("DPKG_MAINTSCRIPT_PACKAGE=blockhost /tmp/blockhost/DEBIAN/{words}");
        let _ = booted.output(&["sh", "-c", &ran]);
    };
    let place = "/usr/lib/systemd/system";
    let _ = booted.output(&[
        "sh",
        "-c",
        &format!("mkdir -p {place}; cp /units/blockhost-onboot.service {place}"),
    ]);
    let tree = booted.path("/tmp/blockhost");
    let units = tree.join("usr/lib/systemd/system");
    std::fs::create_dir_all(&units).expect("a directory");
    for unit in ["blockhost-onboot.service", STOP_ALL] {
        std::fs::copy(packaged(unit), units.join(unit)).expect(unit);
    }
    let mut build = command(packaged("../units-and-scripts.sh"));
    build.arg("blockhost").arg(&tree);
    run(build, Duration::from_secs(60)).expect("the scripts are made");
    script("preinst upgrade 1");
    let _ = booted.output(&["cp", "-r", "/tmp/blockhost/usr", "/"]);
    script("postinst configure 1");
    let enabled = booted.output(&["find", "/etc/systemd/system", "-name", "blockhost-*"]);
    assert_eq!(
        enabled,
        format!("/etc/systemd/system/multi-user.target.wants/{STOP_ALL}\n"),
        "{}",
        booted.journal()
    );
}

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
    let enabled = ["blockhost-root-agent.socket", CONTAINERS];
    let Some(booted) = booted(&enabled, &files) else {
        return;
    };
    assert_eq!(booted.property(STOP_ALL, "ActiveState"), "inactive");
    upgraded(&booted);
    assert_eq!(booted.property(STOP_ALL, "ActiveState"), "active");
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
    assert!(
        !said.contains("force") && !said.contains("CT 102"),
        "{said}"
    );
    for unit in [STOP_ALL, CONTAINERS, "blockhost-root-agent.service"] {
        assert_eq!(booted.property(unit, "ActiveState"), "inactive", "{unit}");
    }
}
