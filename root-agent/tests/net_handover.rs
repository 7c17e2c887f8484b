//! An uplink's addresses and routes given to a bridge and back, in real network namespaces: compared with what `ip` shows,
//! with a connection that goes on, interrupted at every step, and undone where it fails.

mod common;
mod compartment_world;
mod crash_world;
mod ovs_world;
mod second_net;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use blockhost_proto::Action;
use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{Done, Failure, Handler, net};
use blockhost_root_agent::policy::Policy;
use common::World as AgentWorld;
use compartment_world::{World, in_namespace, tool};
use crash_world::{killed_at, output_in_namespace, verify_ledger};
use ovs_world::{eventually, with_switch};
use second_net::SecondNet;
use serde_json::{Value, json};

struct Net {
    world: World,
    handler: Box<dyn Handler>,
}

impl Net {
    fn new() -> Self {
        let mut world = World::new();
        world.policy = policy();
        let handler = world.start(net::prepare).expect("a net compartment");
        Self { world, handler }
    }

    fn ask(&self, params: &Value) -> Result<Done, Failure> {
        let result = self.world.ask(&*self.handler, "link-handover", params);
        if let Err(failure) = &result {
            println!("{}", failure.message);
        }
        result
    }

    fn hand_over(&self, from: &str, to: &str) -> Done {
        let result = self.ask(&json!({"from": from, "to": to}));
        result.unwrap_or_else(|f| panic!("{}", f.message))
    }
}

fn policy() -> Policy {
    Policy::parse("allow: {uplinks: [eth0], bridges: [br0]}\n", "p").expect("a policy")
}

/// What an uplink has: two addresses of one network, one with a lifetime, one with a label; both default routes with
/// metrics; a static one in a table of its own, one with a preferred source and an MTU, one only for the link.
const LOAD: &[&str] = &[
    "ip addr add 192.0.2.2/24 dev eth0",
    "ip addr add 192.0.2.3/24 dev eth0 label eth0:1",
    "ip addr add 198.51.100.9/32 dev eth0 valid_lft 9000 preferred_lft 8000",
    "ip addr add fd99::2/64 dev eth0 nodad",
    "ip addr add fd99::3/64 dev eth0 nodad",
    "ip addr add fd98::1/64 dev eth0 nodad noprefixroute",
    "ip route add default via 192.0.2.1 dev eth0 metric 100",
    "ip route add 10.50.0.0/16 via 192.0.2.1 dev eth0 table 77",
    "ip route add 10.51.0.0/16 via 192.0.2.1 dev eth0 src 192.0.2.3 mtu 1400 proto static",
    "ip route add 10.52.0.0/24 dev eth0 scope link metric 7",
    "ip route add 10.53.0.0/24 via 203.0.113.1 dev eth0 onlink",
    "ip -6 route add default via fd99::1 dev eth0 metric 512",
    "ip -6 route add fd50::/48 via fd99::1 dev eth0 table 77 metric 9",
];

/// `eth0` with its wire in the other namespace, where 192.0.2.1 and fd99::1 answer, and a bridge `br0`.
fn uplink(second: &SecondNet) {
    tool("ip link set lo up");
    tool(&format!(
        "ip link add eth0 type veth peer name wire netns {}",
        second.pid()
    ));
    // As hardware has one: a switch takes no other for its own.
    tool("ip link set eth0 address 00:16:3e:00:00:07 up");
    second.run("ip link set wire up");
    second.run("ip addr add 192.0.2.1/24 dev wire");
    second.run("ip addr add fd99::1/64 dev wire nodad");
    for words in LOAD {
        tool(words);
    }
}

fn bridge() {
    tool("ip link add br0 type bridge forward_delay 0 stp_state 0");
    tool("ip link set br0 up");
}

/// Everything beyond the link that a device carries, without what differs by device or time.
fn carried(device: &str) -> Vec<String> {
    carried_as(&|words| tool(words), device)
}

fn carried_as(run: &dyn Fn(&str) -> String, device: &str) -> Vec<String> {
    let list = |words: &str| -> Vec<Value> { serde_json::from_str(&run(words)).expect("JSON") };
    let mut found = Vec::new();
    for link in list("ip -j addr show") {
        if link["ifname"] != device {
            continue;
        }
        for address in link["addr_info"].as_array().expect("addresses") {
            if address["local"]
                .as_str()
                .is_some_and(|a| a.starts_with("fe80"))
            {
                continue;
            }
            let label = address["label"].as_str().unwrap_or_default();
            let lasts = address["valid_life_time"].as_u64() < Some(u64::from(u32::MAX));
            found.push(format!(
                "{}/{} scope {} label {} lasts {} noprefixroute {}",
                address["local"],
                address["prefixlen"],
                address["scope"],
                label.replace(device, "DEV"),
                !lasts,
                address["noprefixroute"]
            ));
        }
    }
    let mut routes = Vec::new();
    for family in ["-4", "-6"] {
        for route in list(&format!("ip {family} -j -d route show table all")) {
            for mut route in hops(route) {
                let kernel = route["table"] == "local" || route["dst"] == "fe80::/64";
                if route["dev"] != device || kernel || route["type"] == "multicast" {
                    continue;
                }
                let route = route.as_object_mut().expect("a route");
                for differs in ["dev", "flags", "pref"] {
                    route.remove(differs);
                }
                routes.push(format!("{family} {}", Value::Object(route.clone())));
            }
        }
    }
    routes.sort();
    found.extend(routes);
    found
}

/// Two IPv6 routes that differ only by their devices are shown as one.
fn hops(mut route: Value) -> Vec<Value> {
    let Some(Value::Array(hops)) = route.as_object_mut().and_then(|r| r.remove("nexthops")) else {
        return vec![route];
    };
    let of_hop = |hop: &Value| {
        let mut one = route.clone();
        one["gateway"] = hop["gateway"].clone();
        one["dev"] = hop["dev"].clone();
        one
    };
    hops.iter().map(of_hop).collect()
}

fn hardware(device: &str) -> String {
    let links: Value =
        serde_json::from_str(&tool(&format!("ip -j link show dev {device}"))).expect("JSON");
    links[0]["address"].as_str().expect("an address").to_owned()
}

#[test]
fn all_that_an_uplink_carries_goes_to_a_bridge_and_comes_back_as_it_was() {
    in_namespace(
        "all_that_an_uplink_carries_goes_to_a_bridge_and_comes_back_as_it_was",
        || {
            let second = SecondNet::new();
            uplink(&second);
            bridge();
            let before = carried("eth0");
            assert!(before.len() >= 15, "{before:#?}");
            let own = hardware("eth0");
            tool("ip link set eth0 master br0");
            let net = Net::new();
            let done = net.hand_over("eth0", "br0");
            assert_eq!(carried("br0"), before, "as it was, in its order");
            assert_eq!(carried("eth0"), Vec::<String>::new());
            assert_eq!(hardware("br0"), own);
            assert_eq!(done.extra["addresses"].as_array().map(Vec::len), Some(6));
            let (reached, text) = compartment_world::try_tool("ping -c 1 -W 5 192.0.2.1");
            assert!(reached, "{text}");
            let again = net.hand_over("eth0", "br0");
            assert_eq!(again.extra["routes"], 0, "the same again does nothing");
            assert_eq!(carried("br0"), before);
            tool("ip link set eth0 nomaster");
            tool("ip link set br0 address 02:00:00:00:00:09");
            net.hand_over("br0", "eth0");
            assert_eq!(carried("eth0"), before, "and back");
            assert_eq!(hardware("eth0"), own, "what its network knows it by");
            assert_eq!(carried("br0"), Vec::<String>::new());
        },
    );
}

#[test]
fn what_a_bridge_had_before_stays_when_the_rest_goes_back() {
    in_namespace(
        "what_a_bridge_had_before_stays_when_the_rest_goes_back",
        || {
            let second = SecondNet::new();
            uplink(&second);
            bridge();
            for words in [
                "ip addr add 10.77.0.1/24 dev br0",
                "ip addr add fd77::1/64 dev br0 nodad",
                "ip route add 10.78.0.0/24 via 10.77.0.9 dev br0",
                "ip -6 route add fd77::100/128 dev br0",
            ] {
                tool(words);
            }
            let (uplinks, bridges) = (carried("eth0"), carried("br0"));
            let net = Net::new();
            net.hand_over("eth0", "br0");
            let keep = ["10.77.0.1/24", "fd77::1/64"];
            let back = json!({"from": "br0", "to": "eth0", "keep": keep});
            net.ask(&back).unwrap_or_else(|f| panic!("{}", f.message));
            assert_eq!(carried("eth0"), uplinks);
            assert_eq!(carried("br0"), bridges);
        },
    );
}

#[test]
fn a_handover_that_fails_leaves_everything_as_it_was() {
    in_namespace("a_handover_that_fails_leaves_everything_as_it_was", || {
        let second = SecondNet::new();
        uplink(&second);
        bridge();
        let net = Net::new();
        let (before, own) = (carried("eth0"), hardware("br0"));
        let fails = |why: &str| {
            let failure = net.ask(&json!({"from": "eth0", "to": "br0"})).unwrap_err();
            assert!(failure.message.contains(why), "{}", failure.message);
            assert_eq!(carried("eth0"), before);
            assert_eq!(carried("br0"), Vec::<String>::new());
            assert_eq!(hardware("br0"), own);
            failure.code
        };
        // The IPv4 addresses were given by then.
        std::fs::write("/proc/sys/net/ipv6/conf/br0/disable_ipv6", "1").expect("the switch");
        assert_eq!(fails("IPv6 is disabled"), ErrorCode::Failed);
        std::fs::write("/proc/sys/net/ipv6/conf/br0/disable_ipv6", "0").expect("the switch");
        // All addresses and some routes were: this source is the link's own, which the bridge has not.
        let own = || tool("ip -6 -o addr show dev eth0 scope link");
        assert!(eventually(|| !own().contains("tentative")));
        let own = own();
        let own = own.split_whitespace().nth(3).expect("an address");
        let own = own.split('/').next().expect("an address");
        tool(&format!(
            "ip -6 route add fd51::/48 via fd99::1 dev eth0 src {own} metric 8"
        ));
        let before = carried("eth0");
        let failure = net.ask(&json!({"from": "eth0", "to": "br0"})).unwrap_err();
        assert!(failure.message.contains("fd51::/48"), "{}", failure.message);
        assert!(failure.message.contains("as before"), "{}", failure.message);
        assert_eq!(carried("eth0"), before);
        assert_eq!(carried("br0"), Vec::<String>::new());
    });
}

#[test]
fn a_route_over_several_devices_stops_the_move_before_anything_is_touched() {
    in_namespace(
        "a_route_over_several_devices_stops_the_move_before_anything_is_touched",
        || {
            let second = SecondNet::new();
            uplink(&second);
            bridge();
            tool("ip addr add 10.9.0.1/24 dev br0");
            tool(
                "ip route add 10.60.0.0/16 nexthop via 192.0.2.1 dev eth0 nexthop via 10.9.0.2 dev br0",
            );
            let before = tool("ip -j addr") + &tool("ip -j route show table all");
            let net = Net::new();
            let failure = net.ask(&json!({"from": "eth0", "to": "br0"})).unwrap_err();
            assert_eq!(failure.code, ErrorCode::Conflict);
            assert!(failure.message.contains("10.60.0.0/16"));
            let after = tool("ip -j addr") + &tool("ip -j route show table all");
            assert_eq!(before, after);
        },
    );
}

#[test]
fn only_between_a_named_uplink_and_a_bridge_is_anything_handed_over() {
    let ask = |policy: &Policy, from: &str, to: &str| {
        let action = Action::from_parts("link-handover", &json!({"from": from, "to": to}));
        let checked = policy.allow.check(&action.expect("valid"));
        checked.map_err(|failure| failure.code)
    };
    let usual = Policy::default();
    for (from, to) in [("vmbr0", "ovsbr0"), ("eth0", "vmbr0"), ("lo", "vmbr0")] {
        assert_eq!(ask(&usual, from, to), Err(ErrorCode::Forbidden), "{from}");
    }
    let named = policy();
    for (from, to, allowed) in [
        ("eth0", "br0", true),
        ("br0", "eth0", true),
        ("eth0", "ovsbr0", true),
        ("br0", "ovsbr0", false),
        ("eth0", "eth1", false),
        ("eth1", "br0", false),
        ("eth0", "vi100", false),
    ] {
        assert_eq!(ask(&named, from, to).is_ok(), allowed, "{from} to {to}");
    }
    in_namespace(
        "only_between_a_named_uplink_and_a_bridge_is_anything_handed_over",
        || {
            // A name alone makes no bridge and no Ethernet device.
            tool("ip link add br0 type veth peer name other");
            tool("ip tuntap add dev eth0 mode tun");
            let net = Net::new();
            for (from, to) in [("br0", "eth0"), ("eth0", "br0")] {
                let failure = net.ask(&json!({"from": from, "to": to})).unwrap_err();
                assert_eq!(failure.code, ErrorCode::Conflict, "{from}");
            }
            let failure = net.ask(&json!({"from": "gone", "to": "br0"})).unwrap_err();
            assert_eq!(failure.code, ErrorCode::NotFound);
        },
    );
}

/// Answers everything that arrives on one connection, from the other namespace.
fn echo(second: &SecondNet) -> SocketAddr {
    let namespace =
        std::fs::File::open(format!("/proc/{}/ns/net", second.pid())).expect("a namespace");
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(kind))
            .expect("entered");
        let listener = TcpListener::bind("192.0.2.1:0").expect("a port");
        tell.send(listener.local_addr().expect("an address"))
            .expect("told");
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
    });
    told.recv().expect("it listens")
}

/// A connection that must outlive what happens to its device.
struct Connection(TcpStream);

impl Connection {
    fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("connected");
        stream
            .set_read_timeout(Some(Duration::from_secs(120)))
            .expect("a timeout");
        let mut this = Self(stream);
        this.is_alive("at first");
        this
    }

    fn is_alive(&mut self, when: &str) {
        self.0.write_all(b"still there?").expect(when);
        let mut answer = [0; 12];
        self.0.read_exact(&mut answer).expect(when);
        assert_eq!(&answer, b"still there?", "{when}");
    }
}

/// Pings 500 times a second while something happens; says what got lost.
fn measured(what: &str, body: impl FnOnce()) {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests drive the host's own tools"
    )]
    let flood = std::process::Command::new("ping")
        .args(["-i", "0.002", "-w", "2", "-q", "192.0.2.1"])
        .stdout(std::process::Stdio::piped())
        .spawn();
    std::thread::sleep(Duration::from_millis(300));
    body();
    let output = flood.expect("ping").wait_with_output().expect("an end");
    let text = String::from_utf8(output.stdout).expect("text");
    let line = text.lines().find(|line| line.contains("transmitted"));
    println!("{what}: {}", line.unwrap_or("no measurement"));
}

#[test]
fn a_connection_goes_on_while_its_uplink_becomes_a_port_of_a_bridge_and_back() {
    in_namespace(
        "a_connection_goes_on_while_its_uplink_becomes_a_port_of_a_bridge_and_back",
        || {
            let second = SecondNet::new();
            uplink(&second);
            bridge();
            let net = Net::new();
            let mut connection = Connection::open(echo(&second));
            measured("uplink to Linux bridge", || {
                tool("ip link set eth0 master br0");
                net.hand_over("eth0", "br0");
            });
            connection.is_alive("on the bridge");
            measured("Linux bridge to uplink", || {
                tool("ip link set eth0 nomaster");
                net.hand_over("br0", "eth0");
            });
            connection.is_alive("back on the uplink");
        },
    );
}

#[test]
fn a_connection_goes_on_while_its_uplink_becomes_a_port_of_a_switch_and_back() {
    with_switch(
        "a_connection_goes_on_while_its_uplink_becomes_a_port_of_a_switch_and_back",
        |switch| {
            let second = SecondNet::new();
            uplink(&second);
            switch.bridge("ovsbr0");
            let before = carried("eth0");
            let net = Net::new();
            let mut connection = Connection::open(echo(&second));
            let port = json!({"bridge": "ovsbr0", "port": "eth0"});
            measured("uplink to switch", || {
                switch.must("ovs-add-port", &port);
                net.hand_over("eth0", "ovsbr0");
            });
            assert_eq!(carried("ovsbr0"), before);
            connection.is_alive("on the switch");
            measured("switch to uplink", || {
                // In this order: with its port the switch changes the address of its device, which loses its routes by it.
                net.hand_over("ovsbr0", "eth0");
                switch.must("ovs-del-port", &port);
            });
            assert_eq!(carried("eth0"), before);
            connection.is_alive("back on the uplink");
            assert!(eventually(|| carried("ovsbr0").is_empty()));
        },
    );
}

#[test]
fn killed_at_any_step_nothing_is_lost_and_either_direction_ends_the_move() {
    let request = |from: &str, to: &str| json!({"action": "link-handover", "params": {"from": from, "to": to}});
    let mut preparation = vec![
        "ip link add eth0 type veth peer name wire",
        "ip link set eth0 up",
        "ip link set wire up",
        "ip link add br0 type bridge",
    ];
    preparation.extend(LOAD);
    let preparation = preparation.join(" && ");
    for step in ["hardware", "up", "given", "routed", "unrouted", "taken"] {
        for back in [false, true] {
            let world = AgentWorld::new("allow: {uplinks: [eth0], bridges: [br0]}\n");
            let point = ("net", "net-handover", step);
            let (agent, answer) = killed_at(&preparation, world, point, &request("eth0", "br0"));
            assert_eq!(answer["code"], "internal", "{answer}");
            let look = |device: &str| {
                let run = |words: &str| output_in_namespace(&agent, words);
                carried_as(&run, device)
            };
            let sorted = |mut list: Vec<String>| {
                list.sort();
                list.dedup();
                list
            };
            let all = sorted([look("eth0"), look("br0")].concat());
            let (from, to) = if back {
                ("br0", "eth0")
            } else {
                ("eth0", "br0")
            };
            let answer = agent.client().call(&request(from, to));
            assert_eq!(answer["ok"], true, "{step}: {answer}");
            assert_eq!(look(from), Vec::<String>::new(), "{step}");
            assert_eq!(sorted(look(to)), all, "{step}: nothing was lost");
            assert!(all.len() >= 15, "{all:#?}");
            verify_ledger(&agent.world);
        }
    }
}
