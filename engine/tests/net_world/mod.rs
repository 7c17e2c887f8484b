//! A host of a test's own: namespaces, a switch with the userspace datapath, the real root agent, an uplink `eth0` whose
//! other end is a second network namespace with a gateway that answers, all gone with the test.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

mod outside;
mod switch;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use blockhost_proto::layout::Layout;
use serde_json::Value;
use tempfile::TempDir;

use outside::{Connection, answer, second_namespace};
use switch::start_switch;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const INSIDE: &str = "BLOCKHOST_TEST_INSIDE";
const PATIENCE: Duration = Duration::from_secs(120);
pub const BLOCKHOST: u32 = 64_102;

/// What the uplink carries.
const LOAD: [&str; 9] = [
    "ip addr add 192.0.2.2/24 dev eth0",
    "ip addr add 192.0.2.3/24 dev eth0 label eth0:1",
    "ip addr add fd99::2/64 dev eth0 nodad",
    "ip route add default via 192.0.2.1 dev eth0 metric 100",
    "ip route add 10.50.0.0/16 via 192.0.2.1 dev eth0 table 77",
    "ip route add 10.51.0.0/16 via 192.0.2.1 dev eth0 src 192.0.2.3 mtu 1400 proto static",
    "ip -6 route add default via fd99::1 dev eth0 metric 512",
    "ip -6 route add fd50::/48 via fd99::1 dev eth0 table 77 metric 9",
    "ip addr add 198.51.100.9/32 dev eth0",
];

#[expect(clippy::disallowed_methods, reason = "tests start the real programs")]
pub fn program(path: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(path)
}

/// The agent that is built beside the engine.
fn agent_program() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_blockhost")).with_file_name("blockhost-root-agent")
}

/// Runs `body` in namespaces of its own; says so where it cannot.
pub fn in_world(test: &str, body: impl FnOnce(&mut World)) {
    in_namespaces(test, || body(&mut World::new()));
}

/// The same without a world.
pub fn in_namespaces(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        run("ip link set lo up");
        return body();
    }
    let missing = [
        (!rustix::process::geteuid().is_root(), "it needs root"),
        (
            !Path::new(SCHEMA).exists(),
            "it needs the package openvswitch-switch",
        ),
        (
            !agent_program().exists(),
            "build blockhost-root-agent first",
        ),
    ];
    if let Some((_, why)) = missing.iter().find(|(missing, _)| *missing) {
        println!("skipped: {test}: {why}");
        return;
    }
    let status = program("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--fork",
        ])
        .args(["--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare");
    assert!(status.success(), "{test} failed in its namespaces");
}

/// Runs a tool; it must succeed.
pub fn run(words: &str) -> String {
    let mut words_of = words.split_whitespace();
    let output = program(words_of.next().expect("a program"))
        .args(words_of)
        .output()
        .expect(words);
    let text = String::from_utf8(output.stdout).expect("text");
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{words}: {text}{error}");
    text
}

pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A child that ends with its holder.
pub struct Running(pub Child);

impl Running {
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct World {
    pub layout: Layout,
    pub outside: Running,
    /// For our commands, beside the root; what comes later counts.
    pub environment: Vec<(&'static str, &'static str)>,
    agent: Option<Running>,
    _switch: [Running; 2],
    _directory: TempDir,
}

impl World {
    pub fn new() -> Self {
        Self::with("  uplinks: [eth0]\n  ovs_ports: [eth0]\n  ovs_bridges: [ovsbr0]\n")
    }

    pub fn with(allow: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("blockhost-net-")
            .tempdir_in("/run")
            .expect("a directory");
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("mode");
        let layout = Layout::new(directory.path());
        for path in [
            layout.etc(),
            layout.state(),
            layout.run(),
            layout.switch_sockets(),
        ] {
            std::fs::create_dir_all(path).expect("directories");
        }
        std::fs::set_permissions(layout.etc(), PermissionsExt::from_mode(0o750)).expect("mode");
        chown(layout.etc(), Some(0), Some(BLOCKHOST)).expect("owner");
        let ids = ["agent", "blockhost", "vm", "image"]
            .into_iter()
            .zip(64_101..);
        let ids: String = ids
            .map(|(name, id)| format!("  {name}: {{uid: {id}, gid: {id}}}\n"))
            .collect();
        let policy = format!("identities:\n{ids}allow:\n{allow}");
        std::fs::write(layout.agent_policy(), policy).expect("policy");
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")
            .expect("ping sockets");
        let switch = start_switch(&layout);
        let outside = second_namespace();
        let mut world = Self {
            layout,
            outside,
            environment: vec![("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")],
            agent: None,
            _switch: switch,
            _directory: directory,
        };
        world.uplink();
        world.start_agent();
        world
    }

    fn uplink(&self) {
        let pid = self.outside.0.id();
        run(&format!(
            "ip link add eth0 type veth peer name wire netns {pid}"
        ));
        run("ip link set eth0 up");
        for words in [
            "ip link set lo up",
            "ip link set wire up",
            "ip addr add 192.0.2.1/24 dev wire",
            "ip addr add fd99::1/64 dev wire nodad",
        ] {
            self.outside(words);
        }
        for words in LOAD {
            run(words);
        }
        // Link-local addresses come when they were checked to be unique; a snapshot has them from the beginning.
        wait_for("a link-local address", || {
            let text = run("ip -6 addr show dev eth0 scope link");
            (text.contains("fe80") && !text.contains("tentative")).then_some(())
        });
    }

    /// A command on the other end of the wire.
    pub fn outside(&self, words: &str) -> String {
        run(&format!("nsenter -t {} -n {words}", self.outside.0.id()))
    }

    pub fn start_agent(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.layout.root().join("agent.log"))
            .expect("a log");
        let child = program(agent_program())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("BLOCKHOST_ROOT", self.layout.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the agent");
        self.agent = Some(Running(child));
        wait_for("the agent answers", || {
            let ended = self
                .agent
                .as_mut()
                .and_then(|agent| agent.0.try_wait().ok().flatten());
            assert!(ended.is_none(), "the agent ended: {}", self.agent_log());
            self.blockhost(&["agent", "info"])
                .status
                .success()
                .then_some(())
        });
    }

    /// SIGKILL to the agent; its compartments die with it.
    pub fn kill_agent(&mut self) {
        self.agent = None;
    }

    pub fn agent_log(&self) -> String {
        std::fs::read_to_string(self.layout.root().join("agent.log")).unwrap_or_default()
    }

    /// The operator's command.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = program(env!("CARGO_BIN_EXE_blockhost"));
        command
            .args(words)
            .env_clear()
            .env("BLOCKHOST_ROOT", self.layout.root())
            .stdin(Stdio::null());
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    pub fn blockhost(&self, words: &[&str]) -> std::process::Output {
        self.command(words).output().expect("blockhost")
    }

    /// The same; JSON and exit code.
    pub fn json(&self, words: &[&str]) -> (Value, i32) {
        let output = self.blockhost(words);
        let code = output.status.code().expect("an exit code");
        let error = String::from_utf8(output.stderr).expect("text");
        if !error.is_empty() {
            println!("{error}");
        }
        let value = serde_json::from_slice(&output.stdout);
        (value.unwrap_or_else(|_| panic!("{words:?}: {error}")), code)
    }

    pub fn vsctl(&self, words: &str) -> String {
        let socket = self.layout.switch_sockets().join("db.sock");
        run(&format!(
            "ovs-vsctl --timeout=20 --db=unix:{} {words}",
            socket.display()
        ))
    }

    /// Everything that must be as before: addresses, routes, hardware addresses, the switch's configuration.
    pub fn snapshot(&self) -> String {
        let mut text = Vec::new();
        let links: Vec<Value> = serde_json::from_str(&run("ip -j addr")).expect("JSON");
        for link in &links {
            let name = link["ifname"].as_str().expect("a name");
            if name.starts_with("ovs-netdev") {
                continue;
            }
            let up = link["flags"].to_string().contains("\"UP\"");
            text.push(format!(
                "{name} {} up {up} mtu {} master {}",
                link["address"], link["mtu"], link["master"]
            ));
            for a in link["addr_info"].as_array().expect("addresses") {
                text.push(format!(
                    "  {name} {}/{} {} {} {}",
                    a["local"], a["prefixlen"], a["scope"], a["label"], a["valid_life_time"]
                ));
            }
        }
        for family in ["-4", "-6"] {
            let routes: Vec<Value> =
                serde_json::from_str(&run(&format!("ip {family} -j -d route show table all")))
                    .expect("JSON");
            let mut lines: Vec<String> = routes
                .iter()
                .filter(|route| route["table"] != "local" && route["type"] != "multicast")
                .map(|route| {
                    let mut route = route.clone();
                    route.as_object_mut().expect("a route").remove("flags");
                    route.to_string()
                })
                .collect();
            lines.sort();
            text.extend(lines);
        }
        for (table, columns) in [
            ("Open_vSwitch", "_uuid,bridges,external_ids,other_config"),
            (
                "Bridge",
                "_uuid,name,ports,external_ids,other_config,datapath_type,fail_mode,mirrors,controller",
            ),
            (
                "Port",
                "_uuid,name,interfaces,tag,trunks,vlan_mode,external_ids,other_config,qos",
            ),
            (
                "Interface",
                "_uuid,name,type,options,external_ids,other_config,mtu_request,ingress_policing_rate",
            ),
        ] {
            let mut rows: Vec<String> = self
                .vsctl(&format!(
                    "--format=csv --no-headings --columns={columns} list {table}"
                ))
                .lines()
                .map(|line| format!("{table} {line}"))
                .collect();
            rows.sort();
            text.extend(rows);
        }
        text.join("\n")
    }

    /// Waits until it is as it was.
    pub fn is_again(&self, before: &str, what: &str) {
        let until = Instant::now() + PATIENCE;
        let mut now = self.snapshot();
        while now != before && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
            now = self.snapshot();
        }
        assert_eq!(now, before, "{what}\n{}", self.agent_log());
    }

    /// No record is left, and nobody watches any more.
    pub fn is_over(&self) {
        wait_for("the change is over", || {
            let (status, _) = self.json(&["net", "status", "--json"]);
            (status["open"] == serde_json::json!([]) && guards().is_empty()).then_some(())
        });
    }

    pub fn records(&self) -> Vec<Value> {
        use blockhost_ledger::{dir::LedgerDir, reader::Reader};
        let directory = LedgerDir::open(&self.layout.ledger()).expect("a ledger");
        let reader = Reader::open(directory, None).expect("a ledger");
        let all = reader.records(0).map(|record| record.expect("a record").1);
        all.map(|bytes| serde_json::from_slice(&bytes).expect("JSON"))
            .collect()
    }

    /// A connection that must outlive what happens to its device.
    pub fn connection(&self) -> Connection {
        Connection::open(self.echo())
    }

    /// Takes connections outside and answers on them.
    pub fn echo(&self) -> SocketAddr {
        let path = format!("/proc/{}/ns/net", self.outside.0.id());
        let namespace = std::fs::File::open(path).expect("a namespace");
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            let fd = std::os::fd::AsFd::as_fd(&namespace);
            rustix::thread::move_into_link_name_space(fd, Some(kind)).expect("entered");
            let listener = TcpListener::bind("192.0.2.1:0").expect("a port");
            tell.send(listener.local_addr().expect("an address"))
                .expect("told");
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || answer(stream));
            }
        });
        told.recv().expect("it listens")
    }
}

/// Processes that watch over a change, of this test's namespace; one that is dying is one.
pub fn guards() -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let name = line.split(|byte| *byte == 0).next().unwrap_or_default();
        if name.ends_with(b"blockhost-net-revert") {
            found.push(pid);
        }
    }
    found
}

/// SIGKILL.
pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// The command that most of them make.
const ATTACH: [&str; 9] = [
    "net",
    "uplink",
    "attach",
    "--bridge",
    "ovsbr0",
    "--uplink",
    "eth0",
    "--datapath",
    "netdev",
];

pub fn attach<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&ATTACH[..], more].concat()
}

/// Starts a change that stops at a fail point, of its own or of the process that watches over it.
pub fn stopped_at(world: &World, variable: &str, point: &str, more: &[&str]) -> Running {
    stopped(world, &attach(more), (variable, point), "net-change")
}

/// Starts a command with the variable that has it stop at a fail point, and waits until it, or a process of its, is there.
/// `subject` is what its log calls the point.
pub fn stopped(
    world: &World,
    words: &[&str],
    (variable, point): (&str, &str),
    subject: &str,
) -> Running {
    let path = world.layout.root().join("command.log");
    let log = std::fs::File::create(&path).expect("a log");
    let child = world
        .command(words)
        .env(variable, point)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("blockhost");
    let mut running = Running(child);
    let reached = format!("fail point {subject} reached");
    wait_for(point, || {
        let text = std::fs::read_to_string(&path).expect("a log");
        let ended = running.0.try_wait().expect("a child");
        assert!(ended.is_none(), "{point} was not reached: {text}");
        text.contains(&reached).then_some(())
    });
    running
}
