//! A world with a real root agent and a real switch (userspace datapath), and namespaces on its ports: what the planner
//! wants goes through the agent's socket, and packets are real.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

pub mod document;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use blockhost_engine::network::flows::{Compiled, Observed, Policy, compile, plan};
use blockhost_proto::action::Action;
use blockhost_proto::client::blocking::Client;
use blockhost_proto::client::{CallError, Reply};
use blockhost_tests::command::{run, with_args};
use blockhost_tests::namespace::test_ran_inside;
use blockhost_tests::switch::{self, Switch, eventually};
use blockhost_tests::world::services::{Service, start_agent};
use blockhost_tests::world::{AGENT_ONLY, World, built_programs};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(240);

/// Everything that runs.
pub struct Ground {
    pub switch: Switch,
    pub agent: Service,
    pub world: World,
    dir: tempfile::TempDir,
}

/// A world with a bridge `ovsbr0`, or `None` where the test has run inside already or cannot.
pub fn ground(test: &str) -> Option<Ground> {
    if !switch::installed() {
        println!("skipped: {test} needs the package openvswitch-switch");
        return None;
    }
    let init = PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"));
    if test_ran_inside(test, &init, LIMIT) {
        return None;
    }
    // Named network namespaces are files in /run.
    tool("mount -t tmpfs -o mode=755 tmpfs /run");
    let dir = tempfile::Builder::new()
        .prefix("blockhost-network-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    let world = World::create(dir.path(), &built_programs(), AGENT_ONLY).expect("a world");
    let mut policy = OpenOptions::new()
        .append(true)
        .open(world.layout.agent_policy())
        .expect("the agent's policy");
    policy
        .write_all(b"allow: {ovs_bridges: [ovsbr0], ovs_ports: ['vi*', 'vr*', 'uplink*']}\n")
        .expect("written");
    let switch = Switch::start(&world.layout.switch_sockets());
    let agent = start_agent(&world).expect("the agent starts");
    let ground = Ground {
        switch,
        agent,
        world,
        dir,
    };
    let options = json!({"datapath_type": "netdev", "fail_mode": "secure"});
    ground.must(
        "ovs-add-br",
        json!({"bridge": "ovsbr0", "options": options}),
    );
    Some(ground)
}

/// A tool of the host, which must succeed.
pub fn tool(words: &str) -> String {
    try_tool(words).unwrap_or_else(|error| panic!("{words}: {error}"))
}

/// A tool of the host.
pub fn try_tool(words: &str) -> Result<String, String> {
    let words: Vec<&str> = words.split_whitespace().collect();
    run(with_args(words[0], &words[1..]), Duration::from_secs(30))
        .map(|output| output.stdout)
        .map_err(|error| error.to_string())
}

/// Runs `body` in a thread that is in a network namespace.
pub fn inside<T: Send>(namespace: &str, body: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd;
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).expect("a namespace");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("inside");
            body()
        });
        thread.join().expect("no panic inside")
    })
}

/// Whether a ping comes back that has to: asked again for as long as a busy machine may need.
pub fn reaches(namespace: &str, more: &str) -> bool {
    eventually(|| pings(namespace, more))
}

/// Whether a ping comes back: one packet, waited for a second. For what must not; the rest is for [`reaches`].
pub fn pings(namespace: &str, more: &str) -> bool {
    try_tool(&format!(
        "ip netns exec {namespace} ping -n -c 1 -W 1 {more}"
    ))
    .is_ok()
}

impl Ground {
    pub fn ask(&self, name: &str, params: &Value) -> Result<Reply, CallError> {
        let action = Action::from_parts(name, params).unwrap_or_else(|error| panic!("{error}"));
        self.call(&action)
    }

    pub fn call(&self, action: &Action) -> Result<Reply, CallError> {
        let mut client = Client::connect_layout(&self.world.layout).expect("the agent accepts");
        client.call(action)
    }

    pub fn must(&self, name: &str, params: Value) -> Reply {
        self.ask(name, &params)
            .unwrap_or_else(|error| panic!("{name} {params}: {error}\n{}", self.switch.log()))
    }

    pub fn observed(&self) -> Observed {
        let listed = self.must("ovs-list", json!({}));
        Observed::read(&serde_json::from_str(&listed.output).expect("JSON")).expect("as told")
    }

    /// Plans for the document and has the agent do it; the answers of each step.
    pub fn apply(&self, document: &Value) -> Vec<(Action, Reply)> {
        let policy = Policy::read(document, "ovsflows").unwrap_or_else(|error| panic!("{error}"));
        let compiled = compile(&policy).unwrap_or_else(|error| panic!("{error}"));
        let steps = plan(&compiled, &self.observed()).unwrap_or_else(|error| panic!("{error}"));
        steps
            .actions
            .into_iter()
            .map(|action| {
                let reply = self
                    .call(&action)
                    .unwrap_or_else(|error| panic!("{}: {error}", action.params()));
                (action, reply)
            })
            .collect()
    }

    pub fn compiled(document: &Value) -> Compiled {
        let policy = Policy::read(document, "ovsflows").expect("a good policy");
        compile(&policy).expect("compiled").remove(0)
    }

    /// A port whose other end is in a namespace of its own: `eth0` with this hardware address and these addresses. Without an
    /// IPv6 address its kernel knows no IPv6, and says nothing of its own accord.
    pub fn attach(&self, port: &str, namespace: &str, mac: &str, addresses: &[&str]) {
        Self::end_in(port, namespace, mac, addresses);
        self.must("ovs-add-port", json!({"bridge": "ovsbr0", "port": port}));
    }

    /// The same on the bridge `far`, which is somebody else's.
    pub fn far(&self, port: &str, namespace: &str, mac: &str, addresses: &[&str], more: &str) {
        Self::end_in(port, namespace, mac, addresses);
        self.switch.vsctl(&format!("add-port far {port} {more}"));
    }

    fn end_in(port: &str, namespace: &str, mac: &str, addresses: &[&str]) {
        tool(&format!("ip netns add {namespace}"));
        tool(&format!(
            "ip link add {port} type veth peer name eth0 address {mac} netns {namespace}"
        ));
        tool(&format!("ip link set {port} up"));
        let within = |words: &str| tool(&format!("ip netns exec {namespace} {words}"));
        // The userspace switch has nobody who would fill in checksums later.
        within("ethtool -K eth0 tx off");
        within("sysctl -q -w net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0");
        if !addresses.iter().any(|address| address.contains(':')) {
            within(
                "sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
            );
        }
        within("ip link set lo up");
        within("ip link set eth0 up");
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            within(&format!("ip addr add {address} dev eth0 {nodad}"));
        }
    }

    /// A port without anybody behind it, for traces.
    pub fn dangle(&self, port: &str) {
        tool(&format!("ip link add {port} type veth peer name {port}p"));
        tool(&format!("ip link set {port} up"));
        self.must("ovs-add-port", json!({"bridge": "ovsbr0", "port": port}));
    }

    /// The number of a port for OpenFlow.
    pub fn number(&self, port: &str) -> String {
        self.switch.vsctl(&format!("get Interface {port} ofport"))
    }

    /// What becomes of a packet that comes in by a port, with these states of its connection.
    pub fn trace(&self, port: &str, packet: &str, states: &[&str]) -> Fate {
        // The switch's own names of some fields depend on the protocol.
        let mut packet = format!("in_port={},{packet}", self.number(port));
        if packet.contains(",udp") {
            packet = packet.replace(",tp_", ",udp_");
        }
        packet = packet.replace("icmp6,icmp_type", "icmp6,icmpv6_type");
        let mut words = vec!["ofproto/trace", "ovsbr0", packet.as_str()];
        for state in states {
            words.extend(["--ct-next", state]);
        }
        let text = self.switch.run("ovs-appctl", &words);
        Fate::read(text, &self.datapath_ports())
    }

    /// Names of ports by their numbers in the datapath.
    fn datapath_ports(&self) -> BTreeMap<String, String> {
        let text = self.switch.run("ovs-appctl", &["dpif/show"]);
        text.lines()
            .filter_map(|line| {
                let (name, rest) = line.trim().split_once(' ')?;
                let (_, number) = rest.split(':').next()?.split_once('/')?;
                Some((number.to_owned(), name.to_owned()))
            })
            .collect()
    }

    /// Packets that hit a table's flows of some priority.
    pub fn hits(&self, table: u8, priority: u32, of_port: &str) -> u64 {
        let of = format!("table={table},in_port={}", self.number(of_port));
        let text = self
            .switch
            .ofctl(&["--no-names", "dump-flows", "ovsbr0", &of]);
        text.lines()
            .filter(|line| line.contains(&format!("priority={priority},")))
            .filter_map(|line| {
                let (_, rest) = line.split_once("n_packets=")?;
                rest.split(',').next()?.parse::<u64>().ok()
            })
            .sum()
    }

    pub fn stop(mut self) {
        self.agent.stop(Duration::from_secs(20)).expect("ends");
    }
}

/// What becomes of a packet.
#[derive(Debug)]
pub struct Fate {
    /// Names of the ports that it leaves by.
    pub ports: BTreeSet<String>,
    /// The datapath's actions of the last round.
    pub actions: String,
    /// All that the switch said.
    pub text: String,
}

impl Fate {
    fn read(text: String, names: &BTreeMap<String, String>) -> Self {
        let actions = text
            .lines()
            .filter_map(|line| line.strip_prefix("Datapath actions: "))
            .next_back()
            .unwrap_or_default()
            .to_owned();
        let mut depth = 0;
        let mut ports = BTreeSet::new();
        for word in actions.split(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            c == ',' && depth == 0
        }) {
            if let Some(name) = names.get(word) {
                ports.insert(name.clone());
            }
        }
        Self {
            ports,
            actions,
            text,
        }
    }

    /// It leaves by these ports and no others.
    pub fn leaves_by(&self, ports: &[&str]) -> &Self {
        let wanted: BTreeSet<String> = ports.iter().map(|port| (*port).to_owned()).collect();
        assert_eq!(self.ports, wanted, "{}", self.text);
        self
    }

    /// It leaves by none.
    pub fn is_dropped(&self) {
        self.leaves_by(&[]);
    }

    /// On its way this was done to it, in any round.
    pub fn with(&self, words: &str) -> &Self {
        assert!(self.text.contains(words), "without {words}:\n{}", self.text);
        self
    }

    pub fn without(&self, words: &str) -> &Self {
        assert!(!self.text.contains(words), "with {words}:\n{}", self.text);
        self
    }
}
