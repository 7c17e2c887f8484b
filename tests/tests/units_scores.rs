//! What systemd itself says of the units: no one is more exposed than promised, and what it holds against those that are exposed is
//! argued item by item. Needs no systemd that runs.

mod units_world;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use blockhost_tests::command::{run, with_args};
use serde_json::Value;
use units_world::{AGENT, CONTAINERS, drop_in, packaged};

/// Exposure, in tenths, that a unit may have at most.
const SCORES: &[(&str, u32)] = &[
    ("blockhost-root-agent.service", 25),
    ("blockhost-engine.service", 15),
    ("blockhost-bus.service", 15),
    ("blockhost-gc.service", 15),
    ("blockhost-broker.service", 15),
    ("blockhost-witness.service", 15),
    ("blockhost-ledger-submit.service", 15),
    // An ordinary user with name spaces; what it is made of stands in CONTAINERS_NEED.
    ("blockhost-containers.service", 45),
    ("blockhost-containers-network.service", 15),
    ("blockhost-machines.service", 15),
    ("blockhost-onboot.service", 15),
    ("blockhost-stop-all.service", 15),
    ("blockhost-net-recover.service", 15),
    ("blockhost-net-restore.service", 15),
    ("blockhost-containers-watch.service", 15),
    ("blockhost-wireguard@.service", 15),
];

#[test]
fn no_unit_is_more_exposed_than_promised() {
    for (unit, limit) in SCORES {
        let file = packaged(unit);
        let threshold = format!("--threshold={limit}");
        let words = ["security", "--offline=true", "--no-pager", &threshold];
        let mut analyze = with_args("systemd-analyze", &words);
        analyze.arg(&file);
        if let Err(error) = run(analyze, Duration::from_secs(30)) {
            panic!("{unit} is above {}.{}: {error}", limit / 10, limit % 10);
        }
    }
}

/// All that systemd holds against the containers' unit, and what would be broken without it. A filter, a mount or a
/// capability that is taken from the unit is taken from every container: they are its children.
const CONTAINERS_NEED: &[(&str, &str)] = &[
    ("RestrictNamespaces=~user", "what a container is made of"),
    ("RestrictNamespaces=~pid", "what a container is made of"),
    ("RestrictNamespaces=~net", "what a container is made of"),
    ("RestrictNamespaces=~uts", "what a container is made of"),
    ("RestrictNamespaces=~mnt", "what a container is made of"),
    ("RestrictNamespaces=~cgroup", "what a container is made of"),
    ("RestrictNamespaces=~ipc", "what a container is made of"),
    ("ProtectHostname=", "a container has a name of its own"),
    (
        "PrivateUsers=",
        "the ids of containers would not be there to be mapped",
    ),
    (
        "ProtectProc=",
        "newuidmap looks at a process in /proc as root without the right to trace it",
    ),
    (
        "ProcSubset=",
        "whether such a /proc hides something, so that no container may mount its own, is for each kernel to say",
    ),
    (
        "ProtectKernelTunables=",
        "mounts over parts of /proc and /sys, and the kernel then lets no container mount its own",
    ),
    (
        "ProtectKernelLogs=",
        "the same; syslog(2) is filtered instead",
    ),
    (
        "ProtectControlGroups=",
        "the same of /sys; containers have control groups of their own",
    ),
    (
        "NoNewPrivileges=",
        "newuidmap here, and sudo in containers, are setuid",
    ),
    (
        "CapabilityBoundingSet=~CAP_SET(UID|GID|PCAP)",
        "newuidmap and newgidmap map ids",
    ),
    (
        "CapabilityBoundingSet=~CAP_(DAC_*|FOWNER|IPC_OWNER)",
        "as root they write to a file of this unit's user",
    ),
    (
        "CapabilityBoundingSet=~CAP_SYS_ADMIN",
        "and it is about a name space of this unit's user",
    ),
    (
        "RestrictSUIDSGID=",
        "archives and package managers in containers make setuid programs",
    ),
    ("RestrictAddressFamilies=~AF_UNIX", "programs in containers"),
    (
        "RestrictAddressFamilies=~AF_(INET|INET6)",
        "programs in containers",
    ),
    (
        "RestrictAddressFamilies=~AF_NETLINK",
        "a container configures its own network",
    ),
    (
        "RestrictAddressFamilies=~AF_PACKET",
        "DHCP clients in containers",
    ),
    (
        "IPAddressDeny=",
        "holds for the control group, so for containers",
    ),
    (
        "SystemCallFilter=~@mount",
        "a container's first process mounts",
    ),
    (
        "SystemCallFilter=~@privileged",
        "chown and setuid in containers",
    ),
    (
        "SystemCallFilter=~@reboot",
        "how a container is shut down from inside: reboot(2) in a pid name space",
    ),
    (
        "SystemCallFilter=~@resources",
        "nice and the like in containers",
    ),
    ("SystemCallFilter=~@debug", "debuggers in containers"),
    ("SystemCallArchitectures=", "32-bit programs in containers"),
    (
        "MemoryDenyWriteExecute=",
        "just-in-time compilers in containers",
    ),
    (
        "LockPersonality=",
        "32-bit programs and debuggers in containers",
    ),
    (
        "RootDirectory=/RootImage=",
        "newuidmap reads the host's /etc/subuid",
    ),
    (
        "Delegate=",
        "control groups of containers are below this unit's",
    ),
    (
        "DeviceAllow=",
        "/dev/fuse, for containers with that feature",
    ),
];

/// What the agent's unit comes to with the drop-in for containers of other managers.
const WITH_CONTAINERS: u32 = 30;

/// What of it the drop-in costs: entering another network takes it, and no request of the kernel's puts an address there
/// from outside.
const DROP_IN_NEEDS: [&str; 3] = [
    "CapabilityBoundingSet=~CAP_SYS_ADMIN",
    "CapabilityBoundingSet=~CAP_SYS_PTRACE",
    "RestrictNamespaces=~net",
];

/// What systemd holds against a unit; `None` where its measure is another than the one that these lists were made with.
fn held_against(unit: &Path) -> Option<BTreeSet<String>> {
    let version = run(
        with_args("systemd-analyze", &["--version"]),
        Duration::from_secs(30),
    );
    let version = version.expect("systemd").stdout;
    if !version.starts_with("systemd 252 ") {
        println!(
            "skipped: another measure than Debian 12's: {}",
            version.lines().next()?
        );
        return None;
    }
    // Whatever the unit comes to, the list is wanted and not a verdict.
    let words = [
        "security",
        "--offline=true",
        "--json=short",
        "--threshold=100",
    ];
    let mut analyze = with_args("systemd-analyze", &words);
    analyze.arg(unit);
    let list = run(analyze, Duration::from_secs(30))
        .expect("a list")
        .stdout;
    let list: Vec<Value> = serde_json::from_str(&list).expect("JSON");
    let exposed = |item: &&Value| {
        let exposure = item["exposure"]
            .as_str()
            .and_then(|text| text.parse::<f64>().ok());
        exposure.is_some_and(|exposure| exposure > 0.0)
    };
    let name = |item: &Value| item["name"].as_str().expect("a name").to_owned();
    Some(list.iter().filter(exposed).map(name).collect())
}

#[test]
fn nothing_is_held_against_the_containers_unit_that_no_container_needs() {
    let Some(held) = held_against(&packaged(CONTAINERS)) else {
        return;
    };
    let argued = CONTAINERS_NEED.iter().map(|(item, _)| (*item).to_owned());
    assert_eq!(held, argued.collect());
}

#[test]
fn the_drop_in_for_containers_costs_the_agent_three_things_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let merged = directory.path().join(AGENT);
    let unit = std::fs::read(packaged(AGENT)).expect("the unit");
    std::fs::write(&merged, [unit, drop_in("containers.conf")].concat()).expect("written");
    let (Some(without), Some(with)) = (held_against(&packaged(AGENT)), held_against(&merged))
    else {
        return;
    };
    let more: Vec<&String> = with.difference(&without).collect();
    assert_eq!(more, DROP_IN_NEEDS.iter().collect::<Vec<_>>());
}

#[test]
fn with_the_drop_in_for_containers_the_agent_is_exposed_as_much_as_promised_and_no_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let merged = directory.path().join(AGENT);
    let unit = std::fs::read(packaged(AGENT)).expect("the unit");
    std::fs::write(&merged, [unit, drop_in("containers.conf")].concat()).expect("written");
    let threshold = format!("--threshold={WITH_CONTAINERS}");
    let words = ["security", "--offline=true", "--no-pager", &threshold];
    let mut analyze = with_args("systemd-analyze", &words);
    analyze.arg(&merged);
    if let Err(error) = run(analyze, Duration::from_secs(30)) {
        panic!("the drop-in costs more: {error}");
    }
}

#[test]
fn every_service_unit_has_a_promised_score() {
    for entry in std::fs::read_dir(packaged("")).expect("units") {
        let name = entry
            .expect("an entry")
            .file_name()
            .into_string()
            .expect("text");
        let known = SCORES.iter().any(|(unit, _)| *unit == name);
        assert!(
            known || !name.ends_with(".service"),
            "{name} has no score in SCORES"
        );
    }
}
