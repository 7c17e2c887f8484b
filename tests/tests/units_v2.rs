//! The target that ships, booted: Debian's kernel, control groups v2 alone, systemd and our units. What the kernel enforces of a
//! sold machine's limits there, before and after a restart of the agent, and of a container's. One boot for all of it.

mod units_world;

use blockhost_tests::booted_kernel::BootedKernel;
use blockhost_tests::small_root;
use blockhost_tests::systemd::{File, Installation};
use blockhost_tests::world::built_programs;
use serde_json::{Value, json};
use units_world::{AGENT, CONTAINERS, installed};

const GROUPS: &str = "/sys/fs/cgroup/system.slice";
const MACHINES: &str = "blockhost-machines.service";

/// What LXC and its archives take of this host.
const LXC: [&str; 10] = [
    "/bin/gzip",
    "/bin/tar",
    "/usr/bin/find",
    "/usr/bin/lxc-attach",
    "/usr/bin/lxc-info",
    "/usr/bin/lxc-start",
    "/usr/bin/lxc-stop",
    "/usr/bin/lxc-usernsexec",
    "/usr/bin/newgidmap",
    "/usr/bin/newuidmap",
];

/// With LXC where this host has it.
fn booted(with_containers: bool) -> Option<BootedKernel> {
    let built = built_programs();
    let programs = [
        "blockhost",
        "blockhost-root-agent",
        "blockhost-qm",
        "blockhost-pct",
        "blockhost-containers",
    ];
    let programs = programs.map(|name| (installed(name), built.join(name)));
    let archive = with_containers.then(small_root::archive);
    let file = |path, bytes| File {
        path,
        bytes,
        mode: 0o644,
    };
    let ids = b"blockhost-ct:16777216:131072\n";
    // Where LXC mounts a container's root has to be there.
    let mut files = vec![
        file("/etc/subuid", &ids[..]),
        file("/etc/subgid", &ids[..]),
        file("/usr/lib/x86_64-linux-gnu/lxc/rootfs/README", b""),
    ];
    files.extend(
        archive
            .iter()
            .map(|bytes| file("/units/small.tar.gz", bytes)),
    );
    let enabled = ["blockhost-root-agent.socket", CONTAINERS];
    let installation = Installation {
        programs: &programs,
        files: &files,
        enabled: &enabled,
    };
    let lxc: &[&str] = if with_containers { &LXC } else { &[] };
    match BootedKernel::boot(lxc, &installation) {
        Ok(booted) => Some(booted),
        Err(reason) => {
            println!("skipped: {}", reason.0);
            None
        }
    }
}

/// Asks the agent from inside, as root.
fn succeeds(booted: &BootedKernel, action: &str, params: &Value) -> Value {
    let text = booted.output(&format!("blockhost agent call {action} '{params}' --json"));
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(answer["ok"], true, "{answer}\n{}", booted.journal());
    answer
}

/// Files of a group below a unit's, as they stand there now.
fn bounds<const N: usize>(booted: &BootedKernel, group: &str, files: [&str; N]) -> [String; N] {
    files.map(|file| {
        let text = booted.output(&format!("cat {GROUPS}/{group}/{file}"));
        text.trim().to_owned()
    })
}

#[test]
fn limits_of_what_was_sold_are_in_force_on_the_target_that_ships_and_outlive_the_services() {
    let missing = small_root::missing();
    let Some(booted) = booted(missing.is_none()) else {
        return;
    };
    let kinds = booted.output("cut -d' ' -f3 /proc/mounts | grep cgroup");
    assert_eq!(kinds.trim(), "cgroup2", "one hierarchy and no other");
    machines_are_limited(&booted);
    the_place_for_machines_can_be_made_again(&booted);
    match missing {
        Some(why) => println!("no containers: {why}"),
        None => containers_are_limited(&booted),
    }
}

fn create(booted: &BootedKernel, vmid: u32) {
    let args = json!(["--memory", "64", "--scsi0", "local:1"]);
    let machine = json!({"vmid": vmid, "name": "unit", "args": args});
    succeeds(booted, "qm-create", &machine);
}

fn start(booted: &BootedKernel, vmid: u32) -> String {
    succeeds(booted, "qm-start", &json!({ "vmid": vmid })).to_string()
}

/// Changes limits of a machine that runs; what was said of it.
fn throttle(booted: &BootedKernel, vmid: u32, limit: &str) -> String {
    let params = json!({"vmid": vmid, "cpulimit": limit, "cpuunits": 50});
    succeeds(booted, "vm-throttle", &params).to_string()
}

fn machines_are_limited(booted: &BootedKernel) {
    create(booted, 100);
    throttle(booted, 100, "0.5");
    let said = start(booted, 100);
    assert!(!said.contains("limit"), "{said}");
    let group = format!("{MACHINES}/vm-100");
    let [max, weight, memory, swap, threads] = bounds(
        booted,
        &group,
        [
            "cpu.max",
            "cpu.weight",
            "memory.max",
            "memory.swap.max",
            "pids.max",
        ],
    );
    assert_eq!((max.as_str(), weight.as_str()), ("50000 100000", "50"));
    // The guest's and an eighth, what QEMU has beside it, and what it translates.
    let bytes = ((64 + 8 + 512 + 1024) << 20).to_string();
    assert_eq!(
        (memory, swap, threads),
        (bytes.clone(), bytes, "257".to_owned())
    );
    let lives = || bounds(booted, &group, ["cgroup.procs"]);
    let processes = lives();
    let pid: u32 = processes[0].parse().expect("one process");
    let name = booted.output(&format!("cat /proc/{pid}/comm"));
    assert!(name.starts_with("qemu-system"), "{name}");

    let said = throttle(booted, 100, "0.25");
    assert!(!said.contains("not in force"), "{said}");
    assert_eq!(bounds(booted, &group, ["cpu.max"]), ["25000 100000"]);

    let agent = || booted.output(&format!("systemctl show -P MainPID {AGENT}"));
    let before = agent();
    let _ = booted.output(&format!("systemctl restart {AGENT}"));
    assert_ne!(agent(), before);
    assert_eq!(lives(), processes);
    let said = throttle(booted, 100, "0.5");
    assert!(!said.contains("not in force"), "{said}");
    assert_eq!(bounds(booted, &group, ["cpu.max"]), ["50000 100000"]);
    create(booted, 101);
    let said = start(booted, 101);
    assert!(!said.contains("limit"), "{said}");
    let threads = bounds(booted, &format!("{MACHINES}/vm-101"), ["pids.max"]);
    assert_eq!(threads, ["257"]);

    // Neither stopping the unit nor starting it again is anything to its machines, nor to where the next ones go.
    for verb in ["stop", "start", "restart", "stop"] {
        let _ = booted.output(&format!("systemctl {verb} {MACHINES}"));
        assert_eq!(lives(), processes);
        assert_eq!(bounds(booted, &group, ["cpu.max"]), ["50000 100000"]);
    }
    for vmid in [100, 101] {
        succeeds(booted, "qm-stop", &json!({ "vmid": vmid }));
        assert!(
            booted
                .run(&format!("ls {GROUPS}/{MACHINES}/vm-{vmid}"))
                .is_err()
        );
    }
    let _ = booted.output(&format!("systemctl start {MACHINES}"));
    let said = start(booted, 101);
    assert!(!said.contains("limit"), "{said}");
    succeeds(booted, "qm-stop", &json!({"vmid": 101}));
    // For all of them together.
    let bound = format!("systemctl set-property --runtime {MACHINES} MemoryMax=4G");
    let _ = booted.output(&bound);
    let all = bounds(booted, MACHINES, ["memory.max", "cgroup.subtree_control"]);
    assert_eq!(
        all,
        [(4_u64 << 30).to_string(), "cpu memory pids".to_owned()]
    );
}

/// As after an upgrade from when there was none: a machine is in the agent's own group. That is said, it goes on, and is managed.
fn the_place_for_machines_can_be_made_again(booted: &BootedKernel) {
    let _ = booted.output(&format!("systemctl stop {MACHINES}"));
    let _ = booted.output(&format!(
        "kill $(cat {GROUPS}/{MACHINES}/.control/cgroup.procs)"
    ));
    let gone = format!("until [ ! -e {GROUPS}/{MACHINES} ]; do sleep 0.1; done");
    let _ = booted.output(&gone);
    let said = start(booted, 100);
    assert!(
        said.contains("systemctl restart blockhost-machines.service"),
        "{said}"
    );
    assert!(said.contains("not in force"), "{said}");
    let own = format!("{AGENT}/vm-100");
    let processes = bounds(booted, &own, ["cgroup.procs"]);
    let _ = booted.output(&format!("systemctl restart {MACHINES} {AGENT}"));
    assert_eq!(bounds(booted, &own, ["cgroup.procs"]), processes);
    let said = start(booted, 101);
    assert!(!said.contains("limit"), "{said}");
    let threads = bounds(booted, &format!("{MACHINES}/vm-101"), ["pids.max"]);
    assert_eq!(threads, ["257"]);
    for vmid in [100, 101] {
        succeeds(booted, "qm-stop", &json!({ "vmid": vmid }));
    }
    assert!(booted.run(&format!("ls {GROUPS}/{own}")).is_err());
}

fn containers_are_limited(booted: &BootedKernel) {
    let cache = "/var/lib/blockhost/pct-storage/local/template/cache";
    let _ = booted.output(&format!(
        "mkdir -p {cache} && cp /units/small.tar.gz {cache}/"
    ));
    let options = json!({"rootfs": "local:1", "memory": "128", "cores": "1"});
    let container = json!({"vmid": 200, "template": "local:vztmpl/small.tar.gz", "hostname": "unit", "options": options});
    succeeds(booted, "pct-create", &container);
    succeeds(booted, "pct-start", &json!({"vmid": 200}));
    let group = format!("{CONTAINERS}/ct-200/limited");
    let limits = bounds(booted, &group, ["memory.max", "pids.max", "cpu.max"]);
    assert_eq!(limits, ["134217728", "8192", "100000 100000"]);
    let payload = format!("{group}/payload");
    let processes = bounds(booted, &payload, ["cgroup.procs"]);
    // As an upgrade does it.
    let _ = booted.output(&format!("systemctl reload {CONTAINERS}"));
    let look = json!({"vmid": 200, "command": "hostname"});
    assert_eq!(succeeds(booted, "pct-exec", &look)["stdout"], "unit\n");
    assert_eq!(bounds(booted, &payload, ["cgroup.procs"]), processes);

    // The service is killed: systemd before version 254 cannot start it beside its containers, and tries again until it can.
    let _ = booted.output(&format!(
        "systemctl kill -s KILL --kill-whom=main {CONTAINERS}"
    ));
    let tried =
        format!("until [ $(systemctl show -P NRestarts {CONTAINERS}) -ge 1 ]; do sleep 0.2; done");
    let _ = booted.output(&tried);
    assert_eq!(bounds(booted, &payload, ["cgroup.procs"]), processes);
    let _ = booted.output(&format!("echo 1 >{GROUPS}/{CONTAINERS}/ct-200/cgroup.kill"));
    let back = format!("until systemctl is-active {CONTAINERS}; do sleep 1; done");
    let _ = booted.output(&back);
    succeeds(booted, "pct-start", &json!({"vmid": 200}));
    assert_eq!(succeeds(booted, "pct-exec", &look)["stdout"], "unit\n");
}
