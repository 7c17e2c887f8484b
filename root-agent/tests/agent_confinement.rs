//! What each process holds, read back from the kernel, not from our own tables.

mod common;

use common::{AGENT, Agent, BLOCKHOST, IMAGE, ROLES, status};

#[test]
fn every_process_holds_its_capabilities_and_no_others() {
    let agent = Agent::start("backend: embedded\n");
    let net_admin = 1u64 << 12;
    let vm = [0, 1, 3, 5, 6, 7, 12]
        .iter()
        .fold(0u64, |set, bit| set | 1 << bit);
    for (role, wanted, ambient) in [
        ("front", 0, 0),
        ("ledger", 0, 0),
        ("keys", 0, 0),
        ("ovs", 0, 0),
        ("image", 0, 0),
        ("attach", 0, 0),
        ("net", net_admin, net_admin),
        ("vm", vm, 0),
    ] {
        let pid = agent.pid(role).expect(role);
        for key in ["CapEff", "CapPrm", "CapBnd"] {
            let set = u64::from_str_radix(&status(pid, key), 16).expect("hex");
            assert_eq!(set, wanted, "{role} {key} {set:#x}");
        }
        let set = u64::from_str_radix(&status(pid, "CapAmb"), 16).expect("hex");
        assert_eq!(set, ambient, "{role} CapAmb");
    }
}

#[test]
fn where_wires_are_switched_on_one_process_holds_what_they_take_and_no_other_more_than_before() {
    let agent = Agent::start("backend: embedded\ncontainers: {attach: true}\n");
    let [net_admin, sys_ptrace, sys_admin] = [1u64 << 12, 1 << 19, 1 << 21];
    for (role, wanted) in [
        ("attach", net_admin | sys_ptrace | sys_admin),
        ("net", net_admin),
        ("front", 0),
        ("ovs", 0),
    ] {
        let pid = agent.pid(role).expect(role);
        for key in ["CapEff", "CapPrm", "CapBnd"] {
            let set = u64::from_str_radix(&status(pid, key), 16).expect("hex");
            assert_eq!(set, wanted, "{role} {key} {set:#x}");
        }
    }
    let pid = agent.pid("attach").expect("attach");
    assert_eq!(u64::from_str_radix(&status(pid, "CapAmb"), 16), Ok(0));
    // One thread: where it is, the process is.
    assert_eq!(status(pid, "Threads"), "1");
}

#[test]
fn every_process_is_who_it_should_be_without_supplementary_groups() {
    let agent = Agent::start("backend: embedded\n");
    let all = |id: u32| format!("{id} {id} {id} {id}");
    for (role, uid, gid) in [
        ("front", AGENT, AGENT),
        ("net", AGENT, AGENT),
        ("ledger", 0, BLOCKHOST),
        ("keys", 0, BLOCKHOST),
        ("vm", 0, BLOCKHOST),
        ("ovs", 0, AGENT),
        ("image", IMAGE, IMAGE),
        ("attach", AGENT, AGENT),
    ] {
        let pid = agent.pid(role).expect(role);
        assert_eq!(status(pid, "Uid"), all(uid), "{role}");
        assert_eq!(status(pid, "Gid"), all(gid), "{role}");
        assert_eq!(status(pid, "Groups"), "", "{role}");
    }
}

#[test]
fn every_process_is_filtered_and_cannot_gain_privileges() {
    let agent = Agent::start("");
    for role in ROLES {
        let pid = agent.pid(role).expect(role);
        assert_eq!(status(pid, "NoNewPrivs"), "1", "{role}");
        assert_eq!(status(pid, "Seccomp"), "2", "{role}");
    }
    assert_eq!(status(agent.supervisor(), "NoNewPrivs"), "1");
}

/// Soft and hard value of a line of `/proc/PID/limits`; they have to be the same.
fn limit(pid: i32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let mut words = line.expect(name).split_whitespace();
    let (soft, hard) = (words.next().expect("soft"), words.next().expect("hard"));
    assert_eq!(soft, hard, "{name} of {pid} can be raised");
    soft.to_owned()
}

#[test]
fn every_process_has_limits_that_it_cannot_raise() {
    let agent = Agent::start("backend: embedded\n");
    let (small, memory) = ((64 << 20).to_string(), (1u64 << 30).to_string());
    let segment = (16u64 << 30).to_string();
    let free = "unlimited";
    for (role, files, file_size, address_space) in [
        ("front", "1024", small.as_str(), memory.as_str()),
        ("ledger", "256", &segment, &memory),
        ("keys", "256", &small, &memory),
        ("net", "256", &small, &memory),
        ("ovs", "256", &small, &memory),
        ("image", "256", free, free),
        ("attach", "32", &small, &memory),
        ("vm", "8192", free, free),
    ] {
        let pid = agent.pid(role).expect(role);
        assert_eq!(limit(pid, "Max open files"), files, "{role}");
        assert_eq!(limit(pid, "Max file size"), file_size, "{role}");
        assert_eq!(limit(pid, "Max address space"), address_space, "{role}");
        assert_eq!(limit(pid, "Max core file size"), "0", "{role}");
        if role != "vm" {
            assert_eq!(limit(pid, "Max processes"), "1024", "{role}");
        }
    }
}

#[test]
fn no_process_can_be_looked_into_by_its_siblings_or_dumps_its_memory() {
    use std::os::unix::fs::MetadataExt;
    let agent = Agent::start("");
    let mut pids: Vec<i32> = ROLES.iter().filter_map(|role| agent.pid(role)).collect();
    pids.push(agent.supervisor());
    for pid in pids {
        // What is not dumpable belongs to root in /proc, whoever it runs as.
        let owner = std::fs::metadata(format!("/proc/{pid}/maps")).expect("maps");
        assert_eq!((owner.uid(), owner.gid()), (0, 0), "{pid}");
    }
}

#[test]
fn what_a_compartment_executes_has_its_restrictions_too() {
    let agent = Agent::start_in(common::World::with_qm(
        r#"cp /proc/self/status "$BLOCKHOST_ROOT/var/lib/blockhost/status""#,
        "",
    ));
    let answer = agent
        .client()
        .call(&serde_json::json!({"action": "qm-start", "params": {"vmid": 100}}));
    assert_eq!(answer["ok"], true, "{answer}");
    let text = std::fs::read_to_string(agent.world.layout.state().join("status")).expect("status");
    let line = |key: &str| -> String {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.expect(key)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let parent = agent.pid("vm").expect("vm");
    for key in [
        "Uid:",
        "Gid:",
        "Groups:",
        "CapBnd:",
        "CapAmb:",
        "NoNewPrivs:",
        "Seccomp:",
    ] {
        assert_eq!(
            line(key),
            status(parent, key.trim_end_matches(':')),
            "{key}"
        );
    }
    // Root's own file capabilities: what is left of them is what the bounding set has.
    assert_eq!(line("CapEff:"), line("CapBnd:"));
    let filters = |words: &str| words.parse::<u32>().expect("a number");
    assert!(
        filters(&line("Seccomp_filters:")) >= filters(&status(parent, "Seccomp_filters")),
        "a program has fewer filters than its compartment"
    );
}

#[test]
fn no_process_holds_a_descriptor_it_does_not_need() {
    let agent = Agent::start("");
    for (role, sockets) in [
        // Control, gate, listener.
        ("front", 3),
        // Control, front and six compartments.
        ("ledger", 8),
        // Control, channel for reading and for answering, and netlink: one for each part of the work that speaks it.
        // Routes, names, tunnels' links and their keys' family, connections, devices, moves, routes to networks, answers for
        // public addresses, ways out by source, the host's settings.
        ("net", 14),
        ("keys", 3),
        ("vm", 4),
        // As others, and netlink: what a bridge carries is looked at before it goes.
        ("ovs", 4),
        ("image", 3),
        ("attach", 3),
    ] {
        let pid = agent.pid(role).expect(role);
        // The connection that found the agent ready may still be closing.
        let kinds = common::wait_for(|| {
            let kinds = descriptors(pid);
            let count = kinds.iter().filter(|kind| *kind == "socket").count();
            (count <= sockets).then_some(kinds)
        });
        assert!(
            kinds.iter().all(|kind| !kind.ends_with(".key")),
            "{role} holds {kinds:?}"
        );
    }
}

fn descriptors(pid: i32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("fd");
    entries
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|link| {
            let text = link.to_str().expect("text");
            text.split(':').next().unwrap_or(text).to_owned()
        })
        .collect()
}

#[test]
fn the_children_have_no_environment_of_the_starter() {
    let agent = Agent::start("");
    for role in ROLES {
        let pid = agent.pid(role).expect(role);
        let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("environ");
        assert!(environment.is_empty(), "{role}");
    }
}

#[test]
fn the_children_die_with_the_supervisor() {
    let mut agent = Agent::start("");
    let pids: Vec<i32> = ROLES
        .iter()
        .map(|role| agent.pid(role).expect(role))
        .collect();
    agent.signal(rustix::process::Signal::KILL);
    agent.wait();
    for pid in pids {
        common::wait_for(|| {
            (!std::path::Path::new(&format!("/proc/{pid}/status")).exists()).then_some(())
        });
    }
}

#[test]
fn what_a_compartment_starts_is_confined_with_it() {
    // Each line tries what it must not; the answer goes where it may write.
    let attempts = r#"try() { name=$1; shift; if "$@" >/dev/null 2>&1; then echo "$name: done"; else echo "$name: refused"; fi; }
{
try read-shadow cat /etc/shadow
try read-root ls /root
try read-ledger cat "$BLOCKHOST_ROOT/var/lib/blockhost-ledger/checkpoint"
try read-wallets ls "$BLOCKHOST_ROOT/etc/blockhost"
try write-etc touch /etc/blockhost-was-here
try write-tmp touch /tmp/blockhost-was-here
try mount mount -t tmpfs none /mnt
try namespace unshare -m true
try hostname hostname elsewhere
try state ls "$BLOCKHOST_ROOT/var/lib/blockhost"
} >"$BLOCKHOST_ROOT/var/lib/blockhost/attempts""#;
    let agent = Agent::start_in(common::World::with_qm(attempts, ""));
    let answer = agent
        .client()
        .call(&serde_json::json!({"action": "qm-start", "params": {"vmid": 100}}));
    assert_eq!(answer["ok"], true, "{answer}");
    let text =
        std::fs::read_to_string(agent.world.layout.state().join("attempts")).expect("attempts");
    let done: Vec<&str> = text
        .lines()
        .filter(|line| line.ends_with(": done"))
        .collect();
    assert_eq!(text.lines().count(), 10, "{text}");
    assert_eq!(done, ["state: done"], "{text}");
}

#[test]
fn the_signing_key_is_out_of_reach_of_root_without_capabilities() {
    use std::os::unix::fs::PermissionsExt;
    let agent = Agent::start("");
    // The test's own directory has to let everybody pass.
    let root = agent.world.layout.root();
    std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).expect("mode");
    let key = agent.world.layout.ledger_keys().join("epoch-1.key");
    let book = agent.world.layout.agent_policy();
    let read = |path: &std::path::Path| {
        #[expect(
            clippy::disallowed_methods,
            reason = "the test needs a process as the keys compartment is one"
        )]
        let mut command = std::process::Command::new("setpriv");
        let status = command
            .args(["--reuid=0", &format!("--regid={BLOCKHOST}")])
            .args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"])
            .arg("cat")
            .arg(path)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        status.expect("setpriv").success()
    };
    assert!(key.exists());
    assert!(read(&book), "what keys may read");
    assert!(!read(&key), "what it may not");
}

/// What the unit leaves the agent, as `setpriv` writes it.
fn bounding_set() -> String {
    let unit = include_str!("../../packaging/systemd/blockhost-root-agent.service");
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.expect("a bounding set").split_whitespace();
    let names = names.map(|name| name.trim_start_matches("CAP_").to_lowercase());
    names.fold("-all".to_owned(), |set, name| format!("{set},+{name}"))
}

#[test]
fn the_program_of_an_unprivileged_client_is_on_record_also_with_what_the_unit_leaves_the_agent() {
    const TENANT: u32 = 65_001;
    let set = bounding_set();
    assert!(!set.contains("ptrace"), "{set}");
    let world = common::World::new(
        "rules: [{user: 65001, actions: [generate-wallet]}, {user: 0, actions: ['*']}]\n",
    );
    // As `ProtectProc=invisible` has it: what a process may not trace it does not see.
    let proc = "mount -t proc -o hidepid=invisible proc /proc";
    #[expect(
        clippy::disallowed_methods,
        reason = "asks whether the test can be run"
    )]
    let mounted = std::process::Command::new("unshare")
        .args(["--mount", "--", "sh", "-c", proc])
        .status()
        .expect("unshare");
    if !mounted.success() {
        println!("skipped: this machine mounts no /proc for a test");
        return;
    }
    let wrapped =
        format!("{proc} && exec setpriv --inh-caps=-all --bounding-set={set} --no-new-privs --");
    let agent = Agent::start_wrapped(world, &wrapped);
    let supervisor = agent.supervisor();
    let held = u64::from_str_radix(&status(supervisor, "CapEff"), 16).expect("hex");
    assert_eq!(held & 1 << 19, 0, "CAP_SYS_PTRACE is not there");
    let wallet =
        |name: &str| serde_json::json!({"action": "generate-wallet", "params": {"name": name}});
    let done = agent.process_hears(TENANT, BLOCKHOST, &wallet("one"));
    assert_eq!(done["ok"], true, "{done}");
    let records = agent.world.records();
    let mine = |record: &&serde_json::Value| record["uid"] == TENANT;
    let seen: Vec<_> = records.iter().filter(mine).map(|r| &r["exe"]).collect();
    let python = std::fs::canonicalize("/usr/bin/python3").expect("python3");
    let python = python.to_str().expect("text");
    assert_eq!(seen, [python, python]);
    // It looked as somebody else, and is itself again, with all that it had, and as closed as before.
    let ids = |id: u32| format!("{id} {id} {id} {id}");
    assert_eq!(status(supervisor, "Uid"), ids(0));
    assert_eq!(status(supervisor, "Gid"), ids(0));
    assert_eq!(
        u64::from_str_radix(&status(supervisor, "CapEff"), 16),
        Ok(held)
    );
    let after = agent.client().call(&wallet("two"));
    assert_eq!(after["ok"], true, "{after}");
}
