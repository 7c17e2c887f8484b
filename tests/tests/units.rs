//! The units as systemd itself carries them out: the agent, its machines and images, the engine and garbage collection at work
//! inside their own sandboxes. Needs no systemd on the machine, it brings its own.

#[path = "../../root-agent/tests/image_world/mod.rs"]
mod image_world;
mod units_world;

use std::path::Path;

use blockhost_tests::systemd::File;
use blockhost_tests::world::built_programs;
use serde_json::json;
use units_world::{AGENT, POOLS, booted, booted_with, call, drop_in, succeeds, wait_for};

#[test]
fn the_agent_does_all_its_work_inside_its_units_sandbox() {
    let policy = File {
        path: "/etc/blockhost/root-agent.yaml",
        bytes: b"allow: {host_settings: [ipv6-forwarding]}\n",
        mode: 0o644,
    };
    let Some(booted) = booted(&["blockhost-root-agent.socket"], &[policy]) else {
        return;
    };
    let _ = booted.output(&["ip", "link", "add", "vmbr0", "type", "bridge"]);
    let _ = booted.output(&["ip", "link", "set", "vmbr0", "up"]);
    assert_eq!(
        booted.property(AGENT, "ActiveState"),
        "inactive",
        "nobody has asked yet"
    );

    // The first client starts it: socket activation, readiness, every kind of work.
    succeeds(&booted, "agent-info", &json!({}));
    assert_eq!(booted.property(AGENT, "ActiveState"), "active");
    succeeds(&booted, "generate-wallet", &json!({"name": "unit"}));
    let key = booted.output(&["stat", "-c", "%U:%G %a", "/etc/blockhost/unit.key"]);
    assert_eq!(
        key.trim(),
        "root:blockhost 640",
        "whatever mask the unit sets"
    );
    succeeds(
        &booted,
        "ip6-route-add",
        &json!({"address": "fd77:b10c::7/128", "dev": "vmbr0"}),
    );
    let routes = booted.output(&["ip", "-6", "route", "show", "dev", "vmbr0"]);
    assert!(routes.contains("fd77:b10c::7"), "{routes}");
    succeeds(
        &booted,
        "iptables-open",
        &json!({"port": 8443, "comment": "unit"}),
    );
    let rules = booted.output(&["iptables-save"]);
    assert!(rules.contains("8443"), "{rules}");
    succeeds(&booted, "qm-list", &json!({}));
    let forwarding = || booted.output(&["cat", "/proc/sys/net/ipv6/conf/all/forwarding"]);
    for on in [true, false] {
        let params = json!({"setting": "ipv6-forwarding", "on": on});
        assert_eq!(succeeds(&booted, "sysctl-set", &params)["before"], !on);
        assert_eq!(forwarding().trim(), if on { "1" } else { "0" });
    }

    // A reload, a crash and a restart: the socket stays, the work goes on.
    let main = booted.property(AGENT, "MainPID");
    let _ = booted.output(&["systemctl", "reload", AGENT]);
    succeeds(&booted, "agent-info", &json!({}));
    assert_eq!(
        booted.property(AGENT, "MainPID"),
        main,
        "a reload is no restart"
    );
    let _ = booted.output(&["systemctl", "kill", "--kill-whom=main", "-s", "KILL", AGENT]);
    wait_for("systemd did not start it again", &booted, || {
        booted.property(AGENT, "MainPID") != main
            && booted.property(AGENT, "ActiveState") == "active"
    });
    succeeds(&booted, "agent-info", &json!({}));
    let _ = booted.output(&["systemctl", "restart", AGENT]);
    succeeds(&booted, "generate-wallet", &json!({"name": "again"}));
    let verified = booted.output(&["/usr/bin/blockhost", "ledger", "verify"]);
    assert!(!verified.is_empty());
    let _ = booted.output(&["systemctl", "stop", AGENT]);
    assert_eq!(
        booted.property(AGENT, "Result"),
        "success",
        "{}",
        booted.journal()
    );
}

#[test]
fn a_machine_lives_in_a_control_group_of_its_own_and_survives_the_agents_restart() {
    let cache = built_programs().join("test-guest");
    let image = match blockhost_hypervisor::testguest::image(&cache) {
        Ok(image) => std::fs::read(image).expect("the guest's image"),
        Err(reason) => {
            println!("skipped: no guest image: {reason}");
            return;
        }
    };
    let files = [File {
        path: "/units/guest.img",
        bytes: &image,
        mode: 0o644,
    }];
    let Some(booted) = booted(&["blockhost-root-agent.socket"], &files) else {
        return;
    };
    let place = "/var/lib/blockhost/images/guest.img";
    let _ = booted.output(&["cp", "/units/guest.img", place]);
    let _ = booted.output(&["chown", "blockhost:blockhost", place]);
    let args = json!([
        ["--memory", "128"],
        ["--scsihw", "virtio-scsi-pci"],
        ["--agent", "1"],
        ["--serial0", "socket"]
    ]);
    succeeds(
        &booted,
        "qm-create",
        &json!({"vmid": 100, "name": "unit", "args": args}),
    );
    let imported = succeeds(
        &booted,
        "qm-importdisk",
        &json!({"vmid": 100, "disk_path": "guest.img", "storage": "local"}),
    );
    let options = json!({"scsi0": imported["volume"], "boot": "order=scsi0"});
    succeeds(&booted, "qm-set", &json!({"vmid": 100, "options": options}));
    succeeds(&booted, "qm-start", &json!({"vmid": 100}));
    let group = "/sys/fs/cgroup/system.slice/blockhost-machines.service/vm-100/cgroup.procs";
    let machine = booted.output(&["cat", group]);
    assert!(!machine.trim().is_empty(), "QEMU is in its own group");
    wait_for("the guest's agent does not answer", &booted, || {
        call(&booted, "qm-guest-ping", &json!({"vmid": 100}))["ok"] == true
    });
    // The machine's record is known to be of this process; what stands in the way of a limit is said as it is.
    let limit = json!({"vmid": 100, "cpulimit": "0.5"});
    let limited = succeeds(&booted, "vm-throttle", &limit)["output"].to_string();
    assert!(!limited.contains("its record is gone"), "{limited}");
    let _ = booted.output(&["systemctl", "restart", AGENT]);
    assert_eq!(
        booted.output(&["cat", group]),
        machine,
        "the same process still runs"
    );
    wait_for("the guest's agent answers no more", &booted, || {
        call(&booted, "qm-guest-ping", &json!({"vmid": 100}))["ok"] == true
    });
    // One that hangs and whose process the unit hides from the agent, which is not the one that started it any more.
    let _ = booted.output(&["kill", "-STOP", machine.trim()]);
    succeeds(&booted, "qm-stop", &json!({"vmid": 100}));
    let state = format!("{}", call(&booted, "qm-status", &json!({"vmid": 100})));
    assert!(state.contains("stopped"), "{state}");
    let left = booted.output(&["sh", "-c", &format!("cat {group} 2>/dev/null; true")]);
    assert!(left.trim().is_empty(), "QEMU is still in its group: {left}");
}

#[test]
fn images_are_customised_inside_the_units_sandbox_with_its_drop_in() {
    if let Some(why) = image_world::missing() {
        println!("skipped: {why}");
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let made = place.path().join("debian.qcow2");
    image_world::make(&made, 0);
    let image = std::fs::read(&made).expect("the image");
    let drop_in = drop_in("images.conf");
    let files = [
        File {
            path: "/units/debian.qcow2",
            bytes: &image,
            mode: 0o644,
        },
        File {
            path: "/units/blockhost-root-agent.service.d/images.conf",
            bytes: &drop_in,
            mode: 0o644,
        },
    ];
    let Some(booted) = booted(&["blockhost-root-agent.socket"], &files) else {
        return;
    };
    let images = "/var/lib/blockhost/images";
    let script = format!(
        "cp /units/debian.qcow2 {images}/ && mkdir {images}/site && echo page >{images}/site/index.html \
         && chown -R blockhost {images}/site {images}/debian.qcow2"
    );
    let _ = booted.output(&["sh", "-c", &script]);
    let commands = json!([
        ["copy-in", "site:/srv"],
        ["run-command", "echo inside >/etc/ran"]
    ]);
    let params = json!({"image_path": "debian.qcow2", "commands": commands});
    succeeds(&booted, "virt-customize", &params);
    let after = image_world::Inside::of(&booted.path(&format!("{images}/debian.qcow2")));
    assert_eq!(after.read("/etc/ran"), "inside\n");
    assert_eq!(after.read("/srv/site/index.html"), "page\n");
    assert_eq!(
        after.stat("/srv/site"),
        Some((0o755, 0, 0)),
        "the unit's UMask= closes the guest's directories"
    );
}

#[test]
fn on_proxmox_the_drop_in_leaves_no_device_and_no_capability_out_of_reach() {
    let drop_in = drop_in("proxmox.conf");
    let file = File {
        path: "/units/blockhost-root-agent.service.d/proxmox.conf",
        bytes: &drop_in,
        mode: 0o644,
    };
    let Some(booted) = booted(&[], &[file]) else {
        return;
    };
    for (property, wanted) in [
        ("DevicePolicy", "auto"),
        ("DeviceAllow", ""),
        ("SystemCallFilter", "~"),
        ("InaccessiblePaths", ""),
        ("RestrictNamespaces", "no"),
    ] {
        assert_eq!(booted.property(AGENT, property), wanted, "{property}");
    }
    let capabilities = booted.property(AGENT, "CapabilityBoundingSet");
    assert!(capabilities.contains("cap_sys_admin"), "{capabilities}");
}

#[test]
fn garbage_collection_runs_inside_its_units_sandbox() {
    let pools = File {
        path: "/etc/blockhost/db.yaml",
        bytes: POOLS,
        mode: 0o644,
    };
    let Some(booted) = booted(&["blockhost-root-agent.socket"], &[pools]) else {
        return;
    };
    let _ = booted.output(&["systemctl", "start", "blockhost-gc.service"]);
    assert_eq!(
        booted.property("blockhost-gc.service", "Result"),
        "success",
        "{}",
        booted.journal()
    );
    // A database over TCP is a matter of the network alone: no drop-in is needed to speak to it. Nobody listens at this port.
    let line = "db_url: 'postgres://blockhost@127.0.0.1:9/blockhost'";
    let append = format!("echo \"{line}\" >> /etc/blockhost/db.yaml");
    let _ = booted.output(&["sh", "-c", &append]);
    assert!(
        booted
            .run(&["systemctl", "start", "blockhost-gc.service"])
            .is_err()
    );
    let onboot = "blockhost-onboot.service";
    let _ = booted.output(&["systemctl", "start", "--no-block", onboot]);
    for unit in ["blockhost-gc.service", onboot] {
        wait_for("the server was not asked", &booted, || {
            booted.said(unit).contains("Connection refused")
        });
    }
    let _ = booted.output(&["systemctl", "stop", onboot]);
}

/// As the package installs it.
const MANIFEST: &[u8] = include_bytes!("../../provisioner/provisioner.json");

/// anvil's first account, which it gives money to; known to everybody, good on a local chain only.
const DEPLOYER: &[u8] = b"ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80\n";

#[test]
fn the_engine_works_inside_its_units_sandbox() {
    let anvil = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../engine/contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
    if !anvil.exists() {
        println!(
            "skipped: no anvil under engine/contracts/node_modules; run: bash scripts/setup.sh"
        );
        return;
    }
    let file = |path, bytes, mode| File { path, bytes, mode };
    let web3 =
        b"blockchain: {chain_id: 31337, rpc_url: 'http://127.0.0.1:8545', poll_interval_s: 1}\n\
        deployer: {private_key_file: /etc/blockhost/deployer.key}\n";
    let host = b"server: {key_file: /etc/blockhost/server.key}\npublic_secret: sign-this\n\
        deployer: {key_file: /etc/blockhost/deployer.key}\n";
    let chain = b"[Service]\nExecStart=/usr/bin/anvil --quiet --chain-id 31337\n";
    let files = [
        file("/units/chain.service", chain, 0o644),
        file("/etc/blockhost/db.yaml", POOLS, 0o644),
        file("/etc/blockhost/web3-defaults.yaml", web3, 0o644),
        file("/etc/blockhost/blockhost.yaml", host, 0o644),
        file("/usr/share/blockhost/provisioner.json", MANIFEST, 0o644),
        file("/etc/blockhost/deployer.key", DEPLOYER, 0o644),
        file("/etc/blockhost/server.key", DEPLOYER, 0o644),
    ];
    let extra = [("/usr/bin/anvil".to_owned(), anvil)];
    let enabled = ["blockhost-root-agent.socket", "chain.service"];
    let Some(booted) = booted_with(&enabled, &files, &extra) else {
        return;
    };
    let deploy = [
        "/usr/bin/blockhost-deploy-contracts",
        "--write-config",
        "--dev-stablecoin",
    ];
    wait_for("the contracts cannot be deployed", &booted, || {
        booted.run(&deploy).is_ok()
    });
    let _ = booted.output(&["systemctl", "start", "blockhost-engine.service"]);
    let engine = "blockhost-engine.service";
    assert_eq!(
        booted.property(engine, "ActiveState"),
        "active",
        "it said that it is ready"
    );
    let log = || booted.said(engine);
    wait_for("it does not take over events", &booted, || {
        log().contains("events taken over")
    });
    let _ = booted.output(&["systemctl", "stop", engine]);
    assert_eq!(
        booted.property(engine, "Result"),
        "success",
        "{}",
        booted.journal()
    );
    let log = log();
    for refused in [
        "Operation not permitted",
        "EPERM",
        "Permission denied",
        "Read-only file system",
    ] {
        assert!(!log.contains(refused), "{log}");
    }
}
