//! Limits of machines that really run: what QEMU itself says of them.

#[allow(dead_code, reason = "not all of it is used here")]
mod common;

use std::time::Duration;

use blockhost_hypervisor::host::Host;
use blockhost_hypervisor::machine::Vmid;
use blockhost_hypervisor::monitor::Monitor;
use blockhost_proto::layout::Layout;
use common::World;
use qapi::qmp;
use serde_json::Value;

/// What QEMU holds for a drive: reads and writes per second, 0 for no limit.
fn limits(world: &World, vmid: &str, drive: &str) -> (u64, u64) {
    let limits = ask(
        world,
        vmid,
        &qmp::qom_get {
            path: format!("/objects/limits-{drive}"),
            property: "limits".to_owned(),
        },
    );
    let number = |key: &str| {
        limits[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key}: {limits}"))
    };
    assert_eq!(number("iops-total"), 0);
    (number("iops-read"), number("iops-write"))
}

fn ask<C: qapi::Command>(world: &World, vmid: &str, command: &C) -> C::Ok {
    let host = Host {
        family: blockhost_hypervisor::host::Family::Machines,
        layout: Layout::new(world.path("")),
        node: "test".to_owned(),
        pins: None,
    };
    let vmid: Vmid = vmid.parse().unwrap();
    let mut monitor = Monitor::open(&host, vmid, Duration::from_secs(120)).unwrap();
    monitor.run(command).unwrap()
}

/// The node that the device reads and writes through, of which kind.
fn top(world: &World, vmid: &str, device: &str) -> Value {
    let blocks = serde_json::to_value(ask(world, vmid, &qmp::query_block {})).unwrap();
    let block = blocks
        .as_array()
        .unwrap()
        .iter()
        .find(|block| {
            block["qdev"]
                .as_str()
                .is_some_and(|qdev| qdev.ends_with(device))
        })
        .unwrap_or_else(|| panic!("no {device} in {blocks}"))
        .clone();
    block["inserted"].clone()
}

#[test]
fn limits_of_a_running_machine_reach_qemu_at_once_and_hold_after_a_restart() {
    let Some(world) = World::new() else { return };
    let Some(image) = world.guest_image() else {
        return;
    };
    world.guest("100", &image);
    world.ok(&["start", "100"]);
    assert_eq!(limits(&world, "100", "scsi0"), (0, 0));
    let node = top(&world, "100", "scsi0");
    assert_eq!(node["drv"], "throttle", "{node}");
    assert_eq!(node["node-name"], "drive-scsi0", "{node}");
    world.wait_agent("100");

    let disk = "local:100/vm-100-disk-0.qcow2";
    let both = format!("{disk},iops_rd=300,iops_wr=200");
    let said = world.ok(&["set", "100", "--scsi0", &both]);
    assert!(!said.contains("not in force"), "{said}");
    assert_eq!(limits(&world, "100", "scsi0"), (300, 200));
    // The guest still has its disk.
    world.ok(&["guest", "exec", "100", "--", "/bin/sh", "-c", "true"]);

    world.ok(&["set", "100", "--scsi0", &format!("{disk},iops_wr=50")]);
    assert_eq!(
        limits(&world, "100", "scsi0"),
        (0, 50),
        "one of them is gone"
    );
    world.ok(&["set", "100", "--memory", "200"]);
    assert_eq!(
        limits(&world, "100", "scsi0"),
        (0, 50),
        "nothing else changes them"
    );

    world.ok(&["stop", "100"]);
    world.ok(&["set", "100", "--scsi0", &both]);
    world.ok(&["start", "100"]);
    assert_eq!(limits(&world, "100", "scsi0"), (300, 200));
    world.ok(&["set", "100", "--scsi0", disk]);
    assert_eq!(limits(&world, "100", "scsi0"), (0, 0));

    world.ok(&["resize", "100", "scsi0", "+1G"]);
    let size = top(&world, "100", "scsi0")["image"]["virtual-size"].clone();
    assert!(
        size.as_u64().unwrap() > 1 << 30,
        "grown below the limits: {size}"
    );
    world.ok(&["stop", "100"]);
}

#[test]
fn limits_on_the_processor_are_kept_and_what_is_not_in_force_is_said() {
    let Some(world) = World::new() else { return };
    let Some(image) = world.guest_image() else {
        return;
    };
    world.guest("100", &image);
    world.ok(&["set", "100", "--cpulimit", "0.50", "--cpuunits", "50"]);
    let config = world.ok(&["config", "100"]);
    assert!(
        config.contains("cpulimit: 0.5\n") && config.contains("cpuunits: 50\n"),
        "{config}"
    );
    let started = world.ok(&["start", "100"]);
    let group = world.field("100", "cgroup");
    let in_force = std::fs::read_to_string(format!("{group}/cpu.max"));
    match in_force {
        Ok(max) => assert_eq!(max.trim(), "50000 100000"),
        Err(_) => assert!(
            started.contains("limits on the processor of VM 100 are stored but not in force"),
            "{started}"
        ),
    }
    let removed = world.ok(&["set", "100", "--delete", "cpulimit,cpuunits"]);
    assert!(
        removed.contains("not in force") || group.starts_with('/'),
        "{removed}"
    );
    assert!(!world.ok(&["config", "100"]).contains("cpu"));
    for bad in ["129", "-1", "0,5", "1 --args x"] {
        world.fails(6, &["set", "100", "--cpulimit", bad]);
    }
    world.ok(&["stop", "100"]);
}
