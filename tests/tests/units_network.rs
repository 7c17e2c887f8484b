//! Services of networks and containers at work inside their own sandboxes, as systemd itself carries the units out. Needs no
//! systemd on the machine, it brings its own.

mod units_world;

use std::path::Path;
use std::time::Duration;

use blockhost_tests::small_root;
use blockhost_tests::systemd::{Booted, File};
use serde_json::json;
use units_world::{AGENT, CONTAINERS, booted, call, drop_in, succeeds, wait_for};

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
    let serves = || {
        wait_for("the tunnel's process serves nobody", &booted, || {
            socket.exists()
        })
    };
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
fn containers_run_inside_their_units_sandbox_and_survive_a_restart_of_both() {
    if let Some(why) = small_root::missing() {
        println!("skipped: {why}");
        return;
    }
    let archive = small_root::archive();
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
        // As an upgrade does it, then as an operator does.
        let main = booted.property(CONTAINERS, "MainPID");
        let _ = booted.output(&["systemctl", "reload", CONTAINERS]);
        let again = succeeds(
            &booted,
            "pct-exec",
            &json!({"vmid": 100, "command": "hostname"}),
        );
        assert_eq!(again["stdout"], "unit\n", "{again}");
        assert_eq!(booted.property(CONTAINERS, "MainPID"), main);
        let lives = booted.output(&["cat", &format!("/proc/{main}/cgroup")]);
        assert!(!lives.contains("service/service/service"), "{lives}");
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

/// The switch's services, with the relations that Debian's have, and nothing of its start-up scripts.
const SWITCH: [(&str, &[u8]); 3] = [
    (
        "/units/ovsdb-server.service",
        b"[Service]\nType=forking\nRuntimeDirectory=openvswitch\nRuntimeDirectoryPreserve=yes\n\
          PIDFile=/run/openvswitch/ovsdb-server.pid\n\
          ExecStartPre=/usr/bin/ovsdb-tool create /run/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema\n\
          ExecStart=/usr/sbin/ovsdb-server /run/openvswitch/conf.db --remote=punix:/run/openvswitch/db.sock --no-chdir --detach --pidfile\n\
          ExecStartPost=/usr/bin/ovs-vsctl --no-wait init\n",
    ),
    (
        "/units/ovs-vswitchd.service",
        b"[Unit]\nRequires=ovsdb-server.service\nAfter=ovsdb-server.service\nBefore=network.target\nPartOf=openvswitch-switch.service\n\
          [Service]\nType=forking\nRestart=on-failure\nPIDFile=/run/openvswitch/ovs-vswitchd.pid\n\
          ExecStart=/usr/sbin/ovs-vswitchd --no-chdir --detach --pidfile\n",
    ),
    (
        "/units/openvswitch-switch.service",
        b"[Unit]\nBefore=network.target\nAfter=ovs-vswitchd.service\nRequires=ovs-vswitchd.service\n\
          [Service]\nType=oneshot\nExecStart=/bin/true\nRemainAfterExit=yes\n",
    ),
];

#[test]
fn a_switch_that_is_started_again_gets_its_flows_and_passes_nothing_before() {
    const RESTORE: &str = "blockhost-net-restore.service";
    if !blockhost_tests::switch::installed() {
        println!("skipped: needs the package openvswitch-switch");
        return;
    }
    let policy = json!({"bridge": "ovsbr0", "outside": [{"port": "ovsbr0"}], "tenants": [{"name": "a", "zone": 7}]});
    let document = json!({"version": 1, "plugins": {
        "net": {"interfaces": [{"name": "ovsbr0", "datapath": "netdev"}]}, "ovsflows": {"bridges": [policy]}}});
    let document = document.to_string();
    let file = |path, bytes| File {
        path,
        bytes,
        mode: 0o644,
    };
    let mut files = vec![file("/etc/blockhost/document.json", document.as_bytes())];
    files.extend(SWITCH.map(|(path, bytes)| file(path, bytes)));
    let Some(booted) = booted(&["blockhost-root-agent.socket"], &files) else {
        return;
    };
    let tool = |words: &str| booted.output(&words.split(' ').collect::<Vec<_>>());
    // As `systemctl enable` does it, whose links would not be where this system's units are.
    let text = std::fs::read_to_string(units_world::packaged(RESTORE)).expect("a unit");
    let install = text.lines().find(|line| line.starts_with("WantedBy="));
    assert!(
        install.is_some_and(|line| line.contains("ovs-vswitchd.service")),
        "{text}"
    );
    let wants = "/units/ovs-vswitchd.service.wants";
    let _ = tool(&format!("mkdir {wants}"));
    let _ = tool(&format!("ln -s /units/{RESTORE} {wants}/{RESTORE}"));
    let _ = tool("systemctl daemon-reload");
    let _ = tool("systemctl start openvswitch-switch.service");
    assert_eq!(
        booted.property(RESTORE, "Result"),
        "success",
        "{}",
        booted.journal()
    );
    let _ = tool("runuser -u blockhost -- blockhost apply --yes /etc/blockhost/document.json");
    let flows = || -> Vec<String> {
        let text = tool("ovs-ofctl -O OpenFlow15 --no-stats dump-flows ovsbr0");
        let flows = text.lines().filter(|line| line.contains("actions="));
        let mut flows: Vec<String> = flows.map(|line| line.trim().to_owned()).collect();
        flows.sort();
        flows
    };
    let all = flows();
    assert!(all.len() > 10, "{all:#?}");
    assert_eq!(
        tool("ovs-vsctl get bridge ovsbr0 fail_mode").trim(),
        "secure"
    );
    // By whatever name it is restarted, and where it only dies.
    for words in [
        "systemctl restart ovs-vswitchd.service",
        "systemctl restart openvswitch-switch.service",
        "systemctl kill --signal=KILL ovs-vswitchd.service",
    ] {
        let before = booted.property(RESTORE, "InvocationID");
        let _ = tool(words);
        wait_for(
            &format!("nothing is restored after: {words}"),
            &booted,
            || {
                booted.property(RESTORE, "InvocationID") != before
                    && booted.property(RESTORE, "ActiveState") == "active"
            },
        );
        assert_eq!(flows(), all, "{words}");
    }
    // Until then nothing passes: an empty table drops.
    let _ = tool(&format!("rm {wants}/{RESTORE}"));
    let _ = tool("systemctl daemon-reload");
    let _ = tool(&format!("systemctl stop {RESTORE}"));
    let _ = tool("systemctl restart ovs-vswitchd.service");
    assert_eq!(flows(), Vec::<String>::new());
}
