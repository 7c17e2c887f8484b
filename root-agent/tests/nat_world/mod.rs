//! A net compartment and the networks around it, for tests of address translation.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{Handler, net};
use serde_json::json;

use crate::compartment_world::{World, said, tool};
use crate::second_net::SecondNet;

pub struct Net {
    pub world: World,
    pub handler: Box<dyn Handler>,
}

impl Net {
    pub fn new() -> Self {
        let world = World::new();
        let handler = world.start(net::prepare).expect("a net compartment");
        Self { world, handler }
    }

    pub fn with_pools(pools: &[&str]) -> Self {
        let mut world = World::new();
        let pool = |text: &&str| {
            blockhost_root_agent::allow::Prefix::try_from((*text).to_owned()).expect("a prefix")
        };
        world.policy.allow.public_pools = pools.iter().map(pool).collect();
        let handler = world.start(net::prepare).expect("a net compartment");
        Self { world, handler }
    }

    pub fn ask(&self, verb: &str, public: &str, private: &str) -> Result<String, ErrorCode> {
        let params = json!({"public": public, "private": private, "comment": "vm-100"});
        said(self.world.ask(&*self.handler, verb, &params))
    }
}

pub const PUBLIC: &str = "203.0.113.7";
pub const PRIVATE: &str = "10.0.0.7";

/// Rules of a table as `iptables-save` prints them, without counters.
pub fn rules(tool_name: &str) -> Vec<String> {
    tool(&format!("{tool_name} -t nat"))
        .lines()
        .filter(|line| line.starts_with("-A"))
        .map(|line| line.replace('"', ""))
        .collect()
}

/// Others on the uplink's own network, who ask there for public addresses; and a machine.
pub fn on_the_link() -> (SecondNet, SecondNet) {
    let (outside, machine) = (SecondNet::new(), SecondNet::new());
    for (net, device, own, theirs) in [
        (
            &outside,
            "eth0",
            ["203.0.113.2/24", "2001:db8::2/64"],
            ["203.0.113.1/24", "2001:db8::1/64"],
        ),
        (
            &machine,
            "ovsbr0",
            ["10.0.0.1/24", "fd00::1/64"],
            ["10.0.0.7/24", "fd00::7/64"],
        ),
    ] {
        tool(&format!(
            "ip link add {device} type veth peer name far netns {}",
            net.pid()
        ));
        tool(&format!("ip link set {device} up"));
        net.run("ip link set far up");
        for (own, theirs) in own.iter().zip(theirs) {
            let nodad = if own.contains(':') { "nodad" } else { "" };
            tool(&format!("ip addr add {own} dev {device} {nodad}"));
            net.run(&format!("ip addr add {theirs} dev far {nodad}"));
        }
    }
    machine.run("ip route add default via 10.0.0.1");
    machine.run("ip -6 route add default via fd00::1");
    tool("sysctl -qw net.ipv4.conf.ovsbr0.forwarding=1");
    (outside, machine)
}

/// Somebody outside, a machine inside, this namespace between them.
pub fn wires() -> (SecondNet, SecondNet) {
    let (outside, machine) = (SecondNet::new(), SecondNet::new());
    for (net, device, own, theirs) in [
        (&outside, "wan", "198.51.100.1/24", "198.51.100.2/24"),
        (&machine, "lan", "10.0.0.1/24", "10.0.0.7/24"),
    ] {
        tool(&format!(
            "ip link add {device} type veth peer name far netns {}",
            net.pid()
        ));
        tool(&format!("ip addr add {own} dev {device}"));
        tool(&format!("ip link set {device} up"));
        net.run(&format!("ip addr add {theirs} dev far"));
        net.run("ip link set far up");
    }
    outside.run("ip route add 203.0.113.0/24 via 198.51.100.1");
    machine.run("ip route add default via 10.0.0.1");
    tool("ip route add default via 198.51.100.2");
    tool("sysctl -qw net.ipv4.ip_forward=1");
    (outside, machine)
}
