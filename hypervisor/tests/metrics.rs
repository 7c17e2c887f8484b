//! Counters of machines that really run: they grow with what the guest does, and a machine that hangs is a row that says so.

#[allow(dead_code, reason = "not all of it is used here")]
mod common;

use std::time::{Duration, Instant};

use blockhost_hypervisor::exec::Finished;
use blockhost_hypervisor::runtime;
use common::World;
use serde_json::{Value, json};

fn rows(world: &World, args: &[&str]) -> Vec<Value> {
    let words = [&["metrics"], args].concat();
    let text = world.ok(&words);
    match serde_json::from_str(&text) {
        Ok(Value::Array(rows)) => rows,
        _ => panic!("no array: {text}"),
    }
}

fn one(world: &World, vmid: &str) -> Value {
    let mut rows = rows(world, &[vmid]);
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or_else(|| panic!("{key}: {row}"))
}

#[test]
fn counters_grow_with_what_the_guest_does_and_end_with_its_run() {
    let Some(world) = World::new() else { return };
    let Some(image) = world.guest_image() else {
        return;
    };
    world.guest("100", &image);
    world.ok(&["create", "101", "--name", "off", "--memory", "64"]);
    world.ok(&["template", "101"]);
    world.ok(&[
        "create", "102", "--name", "off", "--memory", "64", "--cores", "2",
    ]);
    world.ok(&["start", "100"]);
    world.wait_agent("100");

    let before = one(&world, "100");
    assert_eq!(
        (&before["state"], &before["guest_agent"], &before["name"]),
        (&json!("running"), &json!(true), &json!("probe"))
    );
    assert_eq!(number(&before, "memory_total"), 192 << 20);
    assert!(number(&before, "memory_used") > 8 << 20, "{before}");
    assert!(number(&before, "cpu_ms") > 0 && number(&before, "started") > 0);
    assert!(number(&before, "disk_total") > number(&before, "disk_used"));
    assert!(number(&before, "disk_used") > 0);
    // The guest sends router solicitations and the like as soon as it is up; what it receives depends on others.
    number(&before, "net_in_bytes");
    number(&before, "net_out_bytes");

    let work = "dd if=/dev/sda of=/dev/null bs=64k count=64; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
    world.ok(&["guest", "exec", "100", "--", "/bin/sh", "-c", work]);
    let after = one(&world, "100");
    assert_eq!(after["started"], before["started"]);
    for key in ["at_ms", "cpu_ms", "disk_reads", "disk_read_bytes"] {
        assert!(
            number(&after, key) > number(&before, key),
            "{key}: {before} {after}"
        );
    }
    // What has not been written yet is 0, and known.
    number(&after, "disk_writes");
    number(&after, "disk_written_bytes");
    let read = number(&after, "disk_read_bytes") - number(&before, "disk_read_bytes");
    assert!(read < 1 << 30, "of this machine only: {read}");

    let all = rows(&world, &[]);
    let shown: Vec<(u64, &str)> = all
        .iter()
        .map(|row| (number(row, "vmid"), row["state"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, [(100, "running"), (102, "stopped")], "no template");
    assert_eq!(
        (&all[1]["cpu_ms"], &all[1]["cpus"]),
        (&Value::Null, &json!(2))
    );

    world.ok(&["stop", "100"]);
    let off = one(&world, "100");
    assert_eq!(
        (&off["state"], number(&off, "started")),
        (&json!("stopped"), 0)
    );
    assert_eq!(
        (&off["disk_reads"], &off["net_in_bytes"]),
        (&Value::Null, &Value::Null)
    );
    world.fails(2, &["metrics", "999"]);
    world.fails(6, &["metrics", "--all"]);
}

#[test]
fn a_machine_that_hangs_or_whose_configuration_is_damaged_does_not_hide_the_others() {
    let Some(world) = World::new() else { return };
    let Some(image) = world.guest_image() else {
        return;
    };
    for vmid in ["100", "101"] {
        world.guest(vmid, &image);
        world.ok(&["start", vmid]);
    }
    world.wait_agent("101");
    world.ok(&["create", "102", "--name", "broken", "--memory", "64"]);
    let conf = world.path("var/lib/blockhost/qm/102.conf");
    std::fs::write(&conf, "no configuration\u{1}\n").unwrap();
    let pid: i32 = world.field("100", "pid").parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let all = rows(&world, &[]);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let states: Vec<&str> = all
        .iter()
        .map(|row| row["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["unresponsive", "running", "damaged"]);
    assert_eq!(all[0]["guest_agent"], false);
    assert_eq!(all[1]["guest_agent"], true);
    for vmid in ["100", "101"] {
        world.ok(&["stop", vmid]);
    }
}

/// As in the agent's unit, whose ProtectProc= shows root only what root may trace, and which has not the capability to.
#[test]
fn a_process_that_proc_hides_from_root_is_counted_all_the_same() {
    let Some(world) = World::new() else { return };
    let Some(image) = world.guest_image() else {
        return;
    };
    world.guest("100", &image);
    world.ok(&["start", "100"]);
    let pid = world.field("100", "pid");
    let looked = hidden(&world, &format!("cat /proc/{pid}/statm"));
    if looked.status.success() {
        eprintln!("skipped: this kernel's hidepid hides nothing from root");
        world.ok(&["stop", "100"]);
        return;
    }
    assert!(looked.errors.contains("No such file"), "{}", looked.errors);
    let done = hidden_qm(&world, "metrics 100");
    let rows: Value = serde_json::from_str(&done).unwrap();
    assert!(
        number(&rows[0], "cpu_ms") > 0 && number(&rows[0], "memory_used") > 1 << 20,
        "{rows}"
    );
    world.ok(&["stop", "100"]);
}

/// Runs a command where /proc shows it nothing of the machines.
fn hidden(world: &World, command: &str) -> Finished {
    let script = format!(
        "mount -t proc -o hidepid=invisible proc /proc && exec setpriv --regid=64999 --clear-groups --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace {command}"
    );
    world.inside("unshare", &["--mount", "sh", "-c", &script])
}

/// Runs our program there; what it printed.
fn hidden_qm(world: &World, words: &str) -> String {
    let done = hidden(
        world,
        &format!("{} {words}", env!("CARGO_BIN_EXE_blockhost-qm")),
    );
    assert!(done.status.success(), "{words}: {}", done.errors);
    done.output
}

#[test]
fn a_machine_that_does_not_answer_is_ended_also_where_its_process_is_hidden_from_root() {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(world) = World::new() else { return };
    world.ok(&["create", "100", "--memory", "64", "--scsi0", "local:1"]);
    let record = world.path("run/blockhost/qm/100/process.json");
    for recorded in [true, false] {
        hidden_qm(&world, "start 100");
        let number_of: i32 = world.field("100", "pid").parse().unwrap();
        let pid = Pid::from_raw(number_of).unwrap();
        let group = world.field("100", "cgroup");
        let rows: Value = serde_json::from_str(&hidden_qm(&world, "metrics 100")).unwrap();
        assert!(number(&rows[0], "started") > 0, "{rows}");
        if !recorded {
            std::fs::remove_file(&record).unwrap();
        }
        kill_process(pid, Signal::STOP).unwrap();
        if !recorded && !group.starts_with('/') {
            eprintln!("skipped: without a record: {group}");
            kill_process(pid, Signal::KILL).unwrap();
            continue;
        }
        hidden_qm(&world, "stop 100");
        // Its lock is free a moment before the process is gone.
        let end = Instant::now() + Duration::from_secs(60);
        while runtime::start_time(number_of).is_some() {
            assert!(Instant::now() < end, "it lives");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(world.ok(&["status", "100"]), "status: stopped\n");
    }
}
