//! The units as systemd itself carries them out: scores of `systemd-analyze security`, and every service at work inside
//! its own sandbox. The second needs no systemd on the machine, it brings its own.

#[path = "../../root-agent/tests/image_world/mod.rs"]
mod image_world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blockhost_tests::command::{run, with_args};
use blockhost_tests::small_root;
use blockhost_tests::systemd::{Booted, File, Installation};
use blockhost_tests::world::{PROGRAMS, built_programs};
use serde_json::{Value, json};

const AGENT: &str = "blockhost-root-agent.service";
const CONTAINERS: &str = "blockhost-containers.service";

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
    ("blockhost-onboot.service", 15),
    ("blockhost-net-recover.service", 15),
    ("blockhost-net-restore.service", 15),
    ("blockhost-containers-watch.service", 15),
    ("blockhost-wireguard@.service", 15),
];

/// `db.yaml`.
const POOLS: &[u8] = b"db_file: /var/lib/blockhost/vms.json\nvmid_range: {start: 100, end: 199}\n\
    ip_pool: {network: 192.168.122.0/24, start: 200, end: 250, gateway: 192.168.122.1}\n";

fn packaged(unit: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging/systemd")
        .join(unit)
}

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
        "the kernel lets a container mount /proc only where all of /proc is to be seen",
    ),
    (
        "ProtectKernelTunables=",
        "the same: parts of /proc and /sys would be mounted over",
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

/// A system with the product installed, or `None` where none can be had.
fn booted(enabled: &[&str], files: &[File<'_>]) -> Option<Booted> {
    booted_with(enabled, files, &[])
}

/// The same with further programs.
fn booted_with(
    enabled: &[&str],
    files: &[File<'_>],
    extra: &[(String, PathBuf)],
) -> Option<Booted> {
    let built = built_programs();
    // As the packages have them.
    let place = |name: &str| match name {
        "blockhost-root-agent" => format!("/usr/sbin/{name}"),
        "blockhost-qm" | "blockhost-pct" | "blockhost-containers" => {
            format!("/usr/lib/blockhost/{name}")
        }
        _ => format!("/usr/bin/{name}"),
    };
    let mut programs: Vec<(String, PathBuf)> = PROGRAMS
        .iter()
        .map(|name| (place(name), built.join(name)))
        .collect();
    programs.extend_from_slice(extra);
    let installation = Installation {
        programs: &programs,
        files,
        enabled,
    };
    match Booted::boot(
        Path::new(env!("CARGO_BIN_EXE_blockhost-systemd-init")),
        &installation,
    ) {
        Ok(booted) => Some(booted),
        Err(reason) => {
            println!("skipped: {}", reason.0);
            None
        }
    }
}

/// Asks the agent from inside, as root, with nothing of ours in between.
fn call(booted: &Booted, action: &str, params: &Value) -> Value {
    const CLIENT: &str = "\
import json, socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect('/run/blockhost/root-agent.sock')
b = sys.argv[1].encode()
s.sendall(struct.pack('>I', len(b)) + b)
n = struct.unpack('>I', s.recv(4, socket.MSG_WAITALL))[0]
print(s.recv(n, socket.MSG_WAITALL).decode())
";
    let request = json!({"action": action, "params": params}).to_string();
    let words = ["/usr/bin/python3", "-c", CLIENT, &request];
    match booted.run_within(&words, Duration::from_secs(600)) {
        Ok(output) => serde_json::from_str(&output.stdout).expect("the agent answers JSON"),
        Err(error) => panic!("{action}: {error}\n{}", booted.journal()),
    }
}

fn succeeds(booted: &Booted, action: &str, params: &Value) -> Value {
    let answer = call(booted, action, params);
    assert_eq!(
        answer["ok"],
        true,
        "{action}: {answer}\n{}",
        booted.journal()
    );
    answer
}

fn wait_for(what: &str, booted: &Booted, mut ready: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(900);
    while !ready() {
        assert!(Instant::now() < until, "{what}:\n{}", booted.journal());
        std::thread::sleep(Duration::from_millis(50));
    }
}

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
fn a_tunnel_in_a_process_of_its_own_is_the_agents_inside_the_sandboxes_of_both_units() {
    const TUNNEL: &str = "blockhost-wireguard@wg0.service";
    for needed in ["/usr/bin/wireguard-go", "/dev/net/tun"] {
        if !Path::new(needed).exists() {
            println!("skipped: no {needed}");
            return;
        }
    }
    let policy = File {
        path: "/etc/blockhost/root-agent.yaml",
        bytes: b"wireguard: userspace\n",
        mode: 0o644,
    };
    let Some(booted) = booted(&["blockhost-root-agent.socket"], &[policy]) else {
        return;
    };
    let setup = json!({"name": "wg0", "addresses": ["10.8.0.1/24"], "listen_port": 51820});
    // What to do is said where nobody has done it.
    let missing = call(&booted, "wg-setup", &setup)["error"].to_string();
    assert!(
        missing.contains("systemctl enable --now blockhost-wireguard@wg0"),
        "{missing}"
    );
    let _ = booted.output(&["systemctl", "start", TUNNEL]);
    let socket = booted.path("/run/wireguard/wg0.sock");
    let serves = || wait_for("the tunnel's process serves nobody", &booted, || socket.exists());
    serves();
    let place = booted.output(&["stat", "-c", "%U %a", "/run/wireguard"]);
    assert_eq!(place.trim(), "blockhost-agent 700", "the keys' way");
    let made = succeeds(&booted, "wg-setup", &setup);
    assert_eq!(made["listen_port"], 51820, "{made}");
    let addresses = booted.output(&["ip", "addr", "show", "dev", "wg0"]);
    assert!(addresses.contains("10.8.0.1/24"), "{addresses}");
    let peer = json!({"public_key": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", "allowed_ips": ["10.8.0.2/32"], "endpoint": "192.0.2.1:51820"});
    let peers = json!({"name": "wg0", "peers": [peer]});
    succeeds(&booted, "wg-set-peers", &peers);

    // The process goes with its tunnel, and another one is there for the next.
    let first = booted.property(TUNNEL, "InvocationID");
    succeeds(&booted, "wg-teardown", &json!({"name": "wg0"}));
    wait_for("systemd did not start it again", &booted, || {
        let state = booted.property(TUNNEL, "ActiveState");
        booted.property(TUNNEL, "InvocationID") != first && state == "active"
    });
    serves();
    wait_for("the next tunnel is not made", &booted, || {
        call(&booted, "wg-setup", &setup)["ok"] == true
    });
    let _ = booted.output(&["systemctl", "stop", TUNNEL]);
    let links = booted.output(&["ip", "-o", "link"]);
    assert!(!links.contains("wg0"), "{links}");
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
    let group = format!("/sys/fs/cgroup/system.slice/{AGENT}/vm-100/cgroup.procs");
    let machine = booted.output(&["cat", &group]);
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
        booted.output(&["cat", &group]),
        machine,
        "the same process still runs"
    );
    wait_for("the guest's agent answers no more", &booted, || {
        call(&booted, "qm-guest-ping", &json!({"vmid": 100}))["ok"] == true
    });
    succeeds(&booted, "qm-stop", &json!({"vmid": 100}));
}

#[test]
fn containers_run_inside_their_units_sandbox_and_survive_a_restart_of_both() {
    if let Some(why) = small_root::missing() {
        println!("skipped: {why}");
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let made = place.path().join("small.tar.gz");
    small_root::pack(place.path(), &made);
    let archive = std::fs::read(&made).expect("the archive");
    let files = [File {
        path: "/units/small.tar.gz",
        bytes: &archive,
        mode: 0o644,
    }];
    let enabled = ["blockhost-root-agent.socket", CONTAINERS];
    let Some(booted) = booted(&enabled, &files) else {
        return;
    };
    let _ = booted.output(&["ip", "link", "add", "vmbr0", "type", "bridge"]);
    let _ = booted.output(&["ip", "link", "set", "vmbr0", "up"]);
    let cache = "/var/lib/blockhost/pct-storage/local/template/cache";
    let _ = booted.output(&["mkdir", "-p", cache]);
    let _ = booted.output(&["cp", "/units/small.tar.gz", cache]);
    succeeds(
        &booted,
        "pct-create",
        &json!({"vmid": 100, "template": "local:vztmpl/small.tar.gz", "hostname": "unit",
            "options": {"rootfs": "local:1", "net0": "name=eth0,bridge=vmbr0", "onboot": 1}}),
    );
    // As at a start of the host.
    let onboot = "blockhost-onboot.service";
    let _ = booted.output(&["systemctl", "start", onboot]);
    assert_eq!(booted.property(onboot, "Result"), "success");
    let group =
        format!("/sys/fs/cgroup/system.slice/{CONTAINERS}/ct-100/limited/payload/cgroup.procs");
    let processes = booted.output(&["cat", &group]);
    assert!(!processes.trim().is_empty(), "it is in its own group");
    nobody_can_take_a_monitors_name(&booted);
    the_service_has_a_filter_and_no_privileges(&booted);
    for _ in 0..2 {
        let done = succeeds(
            &booted,
            "pct-exec",
            &json!({"vmid": 100, "command": "hostname; grep NoNewPrivs /proc/self/status"}),
        );
        assert_eq!(done["stdout"], "unit\nNoNewPrivs:\t0\n", "{done}");
        let name = succeeds(&booted, "veth-rename", &json!({"vmid": 100}));
        assert_eq!(name["name"], "vi100");
        let _ = booted.output(&["systemctl", "restart", CONTAINERS]);
        let _ = booted.output(&["systemctl", "restart", AGENT]);
        assert_eq!(
            booted.output(&["cat", &group]),
            processes,
            "the same processes still run"
        );
    }
    succeeds(
        &booted,
        "pct-shutdown",
        &json!({"vmid": 100, "timeout": 300}),
    );
    succeeds(&booted, "pct-destroy", &json!({"vmid": 100}));
}

/// In the host's network, where every user may take a name, there is none of a monitor.
fn nobody_can_take_a_monitors_name(booted: &Booted) {
    let host = booted.output(&["cat", "/proc/net/unix"]);
    assert!(!host.contains("/100/command"), "{host}");
    let main = booted.property(CONTAINERS, "MainPID");
    let own = booted.output(&["cat", &format!("/proc/{main}/net/unix")]);
    assert!(own.contains("/100/command"), "{own}");
}

/// Its user is changed by a program that is root's: what that leaves is looked at, and what containers inherit.
fn the_service_has_a_filter_and_no_privileges(booted: &Booted) {
    let main = booted.property(CONTAINERS, "MainPID");
    let status = booted.output(&["cat", &format!("/proc/{main}/status")]);
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let words = line.unwrap_or_else(|| panic!("{key}: {status}"));
        words
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let user = booted.output(&["id", "-u", "blockhost-ct"]);
    assert_eq!(field("Uid:"), vec![user.trim(); 4]);
    assert_eq!(field("Groups:"), Vec::<String>::new());
    for set in ["CapPrm:", "CapEff:", "CapAmb:", "CapInh:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("Seccomp:"), ["2"]);
    assert_eq!(field("NoNewPrivs:"), ["0"]);
    // The log of the host's kernel is refused to containers by the unit: their own filters say nothing of it.
    let look = "/bin/busybox dmesg 2>&1; echo looked";
    let done = succeeds(booted, "pct-exec", &json!({"vmid": 100, "command": look}));
    let said = done["stdout"].as_str().unwrap_or_default();
    assert!(
        said.contains("not permitted") && said.contains("looked"),
        "{done}"
    );
}

/// A drop-in of ours, where the administrator would copy it.
fn drop_in(name: &str) -> Vec<u8> {
    std::fs::read(packaged(&format!("drop-ins/{name}"))).expect("a drop-in")
}

/// Stands for a container: a process in a network of its own, in which it is as soon as it counts as started.
const SLEEPER: &[u8] =
    b"[Service]\nType=exec\nPrivateNetwork=yes\nExecStart=/usr/bin/sleep infinity\n";

#[test]
fn wires_are_laid_inside_the_units_sandbox_with_its_drop_in() {
    let drop_in = drop_in("containers.conf");
    let file = |path, bytes| File {
        path,
        bytes,
        mode: 0o644,
    };
    let place = "/units/blockhost-root-agent.service.d/containers.conf";
    let files = [
        file(place, drop_in.as_slice()),
        file("/units/sleeper.service", SLEEPER),
        file(
            "/etc/blockhost/root-agent.yaml",
            b"containers: {attach: true}\n",
        ),
    ];
    let Some(booted) = booted(&["blockhost-root-agent.socket", "sleeper.service"], &files) else {
        return;
    };
    let pid = booted.property("sleeper.service", "MainPID");
    let pid: u32 = pid.parse().expect("a process");
    let looked = succeeds(&booted, "container-look", &json!({"pid": pid}));
    let id = "ab".repeat(32);
    let wire = json!({
        "container": id, "pid": pid, "netns": looked["netns"], "port": "bhc1", "interface": "bh0",
        "addresses": ["10.101.0.7/24"], "gateway4": "10.101.0.1", "mtu": 1400,
    });
    assert_eq!(succeeds(&booted, "container-attach", &wire)["new"], true);
    assert_eq!(succeeds(&booted, "container-attach", &wire)["new"], false);
    let gone = json!({"container": id, "port": "bhc1"});
    succeeds(&booted, "container-detach", &gone);
}

/// Speaks as Docker does, of one container that has a label of ours.
const MANAGER: &[u8] = br#"
import http.server, json, os, socketserver, subprocess, sys, time
ID = 'ab' * 32
PID = int(subprocess.check_output(['systemctl', 'show', '-P', 'MainPID', 'sleeper.service']))
class Answer(http.server.BaseHTTPRequestHandler):
    def address_string(self):
        return 'somebody'
    def do_GET(self):
        path = self.path.split('?')[0]
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        if path.endswith('/events'):
            self.end_headers()
            self.wfile.flush()
            time.sleep(600)
            return
        body = {'Id': ID, 'State': {'Running': True, 'Pid': PID, 'StartedAt': 'now'}, 'HostConfig': {'NetworkMode': 'none'}}
        if path.endswith('/containers/json'):
            body = [{'Id': ID, 'Names': ['/web'], 'Labels': {'blockhost.network': 'mesh'}, 'State': 'running'}]
        text = json.dumps(body).encode()
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
os.umask(0o117)
server = Server('/run/manager.sock', Answer)
os.chown('/run/manager.sock', 0, int(sys.argv[1]))
server.serve_forever()
"#;

#[test]
fn containers_of_another_manager_are_watched_inside_the_units_sandbox_and_nothing_else_can_be_asked()
 {
    const WATCH: &str = "blockhost-containers-watch.service";
    let agent = drop_in("containers.conf");
    let file = |path, bytes| File {
        path,
        bytes,
        mode: 0o644,
    };
    // As the documentation says: the rule, the section, and the group that may speak to the manager.
    let files = [
        file(
            "/units/blockhost-root-agent.service.d/containers.conf",
            agent.as_slice(),
        ),
        file(
            "/units/blockhost-containers-watch.service.d/group.conf",
            b"[Service]\nSupplementaryGroups=games\n",
        ),
        file("/units/sleeper.service", SLEEPER),
        file("/etc/manager.py", MANAGER),
        file(
            "/units/manager.service",
            b"[Unit]\nAfter=sleeper.service\n[Service]\nExecStart=/usr/bin/python3 /etc/manager.py 60\n",
        ),
        file(
            "/etc/blockhost/root-agent.yaml",
            b"containers: {attach: true}\nrules:\n  - user: blockhost-watch\n    actions: [container-*, ovs-list, ovs-add-port, ovs-del-port]\n",
        ),
        file(
            "/etc/blockhost/network.yaml",
            b"containers:\n  socket: /run/manager.sock\n  networks: {mesh: {bridge: ovsbr1, ipv4: 10.101.0.0/24}}\n",
        ),
        file("/etc/blockhost/hot.key", b"secret"),
    ];
    let enabled = [
        "blockhost-root-agent.socket",
        "sleeper.service",
        "manager.service",
    ];
    let Some(booted) = booted(&enabled, &files) else {
        return;
    };
    assert_eq!(
        booted.property(WATCH, "ActiveState"),
        "inactive",
        "off by default"
    );
    let _ = booted.output(&["systemctl", "start", WATCH]);
    // There is no switch here: the container was found, its network was looked at by the agent, and why it gets no wire is said.
    wait_for("the container is not spoken of", &booted, || {
        let said = booted.all_said();
        said.contains("\"name\":\"web\"") && said.contains("the switch does not answer")
    });
    let said = booted.all_said();
    assert!(!said.contains("you may not use"), "{said}");
    let pid = booted.property(WATCH, "MainPID");
    let inside = |words: &[&str]| {
        let own = ["nsenter", "-t", pid.as_str(), "-m", "--"];
        booted.run_within(&[&own[..], words].concat(), Duration::from_secs(20))
    };
    let seen = inside(&["ls", "/etc/blockhost"])
        .expect("a directory")
        .stdout;
    assert_eq!(seen.trim(), "network.yaml", "keys are out of its sight");
    // Root's own look passes by the mode of what stands in its place.
    let hidden = inside(&["ls", "/var/lib/blockhost-ledger/"]).map(|output| output.stdout);
    assert!(hidden.is_ok_and(|seen| seen.trim().is_empty()));
    let groups = booted.output(&[
        "grep",
        "-E",
        "^(Uid|Groups|CapEff):",
        &format!("/proc/{pid}/status"),
    ]);
    assert!(groups.contains("CapEff:\t0000000000000000"), "{groups}");
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
}

/// What somebody who was killed left: one step that may have happened.
const LEFT: &[u8] = br#"{"version":1,"id":"0123abcd","begun":"","pid":1,"deadline":{"boot_id":"another","at_ms":1},"plan":{"what":"a route","expect":{},"devices":[],"notes":[],"steps":[{"forward":{"action":"ip6-route-add","params":{"address":"fd00:b10c::7/128","dev":"vmbr0"}},"inverse":[{"only_if":{"carries":{"dev":"lo","mac":null,"addresses":["127.0.0.1/8"]}},"call":{"action":"ip6-route-del","params":{"address":"fd00:b10c::7/128","dev":"vmbr0"}}}]}]}}
{"started":0}
"#;

#[test]
fn a_change_of_the_network_that_was_left_is_taken_back_inside_its_units_sandbox() {
    let left = File {
        path: "/etc/blockhost/left.json",
        bytes: LEFT,
        mode: 0o644,
    };
    let Some(booted) = booted(&["blockhost-root-agent.socket"], &[left]) else {
        return;
    };
    let owned = ["install", "-o", "blockhost", "-g", "blockhost", "-m"];
    let directory = "/var/lib/blockhost/net-change";
    let record = format!("{directory}/pending-0123abcd.json");
    let made = booted.output(&[&owned[..], &["0700", "-d", directory]].concat());
    let put = booted.output(&[&owned[..], &["0600", "/etc/blockhost/left.json", &record]].concat());
    println!("{made:?} {put:?}");
    let _ = booted.output(&["systemctl", "start", "blockhost-net-recover.service"]);
    let last = format!("{directory}/last.json");
    wait_for("nothing was taken back", &booted, || {
        booted.run(&["test", "-e", &last]).is_ok()
    });
    let gone = booted.run_within(&["test", "!", "-e", &record], Duration::from_secs(10));
    assert!(gone.is_ok(), "{}", booted.journal());
    let told = booted
        .run_within(&["cat", &last], Duration::from_secs(10))
        .expect("it");
    assert!(
        told.stdout.contains("\"confirmed\":false"),
        "{}",
        told.stdout
    );
    assert!(told.stdout.contains("\"problems\":[]"), "{}", told.stdout);
}

#[test]
fn what_was_opened_is_open_again_after_a_start_inside_the_units_sandbox() {
    const RESTORE: &str = "blockhost-net-restore.service";
    let enabled = ["blockhost-root-agent.socket", RESTORE];
    let Some(booted) = booted(&enabled, &[]) else {
        return;
    };
    wait_for("nothing was ever opened", &booted, || {
        booted.property(RESTORE, "ActiveState") == "active"
    });
    for (port, comment) in [(8443, "unit"), (22, "knock-1")] {
        let params = json!({"port": port, "comment": comment});
        succeeds(&booted, "iptables-open", &params);
    }
    // As after a start of the machine: no rules, and the unit has not run.
    let _ = booted.output(&["nft", "flush", "ruleset"]);
    let _ = booted.output(&["systemctl", "restart", RESTORE]);
    let rules = booted.output(&["iptables-save"]);
    assert!(rules.contains("8443"), "{rules}\n{}", booted.journal());
    assert!(!rules.contains("knock"), "{rules}");
    let result = booted.property(RESTORE, "Result");
    assert_eq!(result, "success", "{}", booted.journal());
}

/// What an apply left: a bridge whose containers the host routes.
const APPLIED: &[u8] =
    br#"{"version":1,"running":null,"plugins":{"mesh":{"ovsbr0":{"finished":true,"wanted":{"name":"ovsbr0"}}}}}"#;

#[test]
fn what_was_applied_is_so_again_after_a_start_inside_the_units_sandbox() {
    const RESTORE: &str = "blockhost-net-restore.service";
    let applied = File {
        path: "/etc/blockhost/applied.json",
        bytes: APPLIED,
        mode: 0o644,
    };
    let Some(booted) = booted(&["blockhost-root-agent.socket"], &[applied]) else {
        return;
    };
    for words in [
        "ip link add ovsbr0 type bridge",
        "ip link set ovsbr0 up",
        "ip addr add 10.77.0.1/24 dev ovsbr0",
        "install -o blockhost -g blockhost -m 0750 -d /var/lib/blockhost/applied",
        "install -o blockhost -g blockhost -m 0640 /etc/blockhost/applied.json /var/lib/blockhost/applied/state.json",
        "systemctl start blockhost-net-restore.service",
    ] {
        let _ = booted.output(&words.split(' ').collect::<Vec<_>>());
    }
    let result = booted.property(RESTORE, "Result");
    assert_eq!(result, "success", "{}", booted.journal());
    for key in ["forwarding", "rp_filter"] {
        let path = format!("/proc/sys/net/ipv4/conf/ovsbr0/{key}");
        let value = booted.output(&["cat", &path]);
        assert_eq!(value.trim(), "1", "{key}\n{}", booted.journal());
    }
    // Where all is well another run changes nothing.
    let _ = booted.output(&["systemctl", "restart", RESTORE]);
    // What a program writes is in the journal a moment after its end.
    wait_for("something was changed", &booted, || {
        let said = booted.said(RESTORE);
        said.contains("Nothing to do: 1 as they should be.")
    });
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
