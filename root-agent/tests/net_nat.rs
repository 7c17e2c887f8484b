//! Address translation in real network namespaces: rules compared with `iptables-save`, packets really sent.

mod compartment_world;
mod second_net;

use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{Handler, net};
use compartment_world::{World, as_net_compartment, in_namespace, said, tool, try_tool};
use second_net::SecondNet;
use serde_json::{Value, json};

struct Net {
    world: World,
    handler: Box<dyn Handler>,
}

impl Net {
    fn new() -> Self {
        let world = World::new();
        let handler = world.start(net::prepare).expect("a net compartment");
        Self { world, handler }
    }

    fn with_pools(pools: &[&str]) -> Self {
        let mut world = World::new();
        let pool = |text: &&str| {
            blockhost_root_agent::allow::Prefix::try_from((*text).to_owned()).expect("a prefix")
        };
        world.policy.allow.public_pools = pools.iter().map(pool).collect();
        let handler = world.start(net::prepare).expect("a net compartment");
        Self { world, handler }
    }

    fn ask(&self, verb: &str, public: &str, private: &str) -> Result<String, ErrorCode> {
        let params = json!({"public": public, "private": private, "comment": "vm-100"});
        said(self.world.ask(&*self.handler, verb, &params))
    }
}

const PUBLIC: &str = "203.0.113.7";
const PRIVATE: &str = "10.0.0.7";

/// Rules of a table as `iptables-save` prints them, without counters.
fn rules(tool_name: &str) -> Vec<String> {
    tool(&format!("{tool_name} -t nat"))
        .lines()
        .filter(|line| line.starts_with("-A"))
        .map(|line| line.replace('"', ""))
        .collect()
}

#[test]
fn a_pair_is_two_rules_and_three_jumps_and_again_adds_nothing() {
    in_namespace(
        "a_pair_is_two_rules_and_three_jumps_and_again_adds_nothing",
        || {
            tool("iptables-nft -t nat -A POSTROUTING -j MASQUERADE");
            let net = Net::new();
            net.ask("nat-map", PUBLIC, PRIVATE).expect("mapped");
            let wanted = [
                "-A PREROUTING -j BLOCKHOST-DNAT",
                "-A OUTPUT -j BLOCKHOST-DNAT",
                "-A POSTROUTING -j BLOCKHOST-SNAT",
                "-A POSTROUTING -j MASQUERADE",
                "-A BLOCKHOST-DNAT -d 203.0.113.7/32 -m comment --comment vm-100 -j DNAT --to-destination 10.0.0.7",
                "-A BLOCKHOST-SNAT -s 10.0.0.7/32 -m comment --comment vm-100 -j SNAT --to-source 203.0.113.7",
            ];
            assert_eq!(rules("iptables-nft-save"), wanted);
            net.ask("nat-map", PUBLIC, PRIVATE).expect("mapped again");
            assert_eq!(rules("iptables-nft-save"), wanted);
            assert!(rules("ip6tables-nft-save").is_empty());
            net.ask("nat-unmap", PUBLIC, PRIVATE).expect("unmapped");
            assert_eq!(rules("iptables-nft-save"), wanted[..4]);
            assert_eq!(
                net.ask("nat-unmap", PUBLIC, PRIVATE),
                Err(ErrorCode::NotFound)
            );
        },
    );
}

#[test]
fn ipv6_has_its_own_rules_and_filter_rules_stay() {
    in_namespace("ipv6_has_its_own_rules_and_filter_rules_stay", || {
        tool("iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT");
        let net = Net::new();
        net.ask("nat-map", "2001:db8::7", "fd00::7")
            .expect("mapped");
        assert_eq!(
            rules("ip6tables-nft-save")[3..],
            [
                "-A BLOCKHOST-DNAT -d 2001:db8::7/128 -m comment --comment vm-100 -j DNAT --to-destination fd00::7",
                "-A BLOCKHOST-SNAT -s fd00::7/128 -m comment --comment vm-100 -j SNAT --to-source 2001:db8::7",
            ]
        );
        assert!(rules("iptables-nft-save").is_empty());
        assert!(tool("iptables-nft-save -t filter").contains("--dport 22 -j ACCEPT"));
    });
}

#[test]
fn pairs_are_listed_from_the_rules_themselves_and_a_half_one_is_said_to_be_half() {
    in_namespace(
        "pairs_are_listed_from_the_rules_themselves_and_a_half_one_is_said_to_be_half",
        || {
            let net = Net::new();
            let list = || -> Value {
                let done = net.world.ask(&*net.handler, "nat-list", &json!({}));
                serde_json::from_str(&done.expect("a list").output).expect("JSON")
            };
            assert_eq!(list(), json!([]));
            assert!(rules("iptables-save").is_empty(), "a look makes nothing");
            net.ask("nat-map", PUBLIC, PRIVATE).expect("mapped");
            net.ask("nat-map", "2001:db8::7", "fd00::7")
                .expect("mapped");
            tool(
                "iptables -t nat -A BLOCKHOST-DNAT -d 203.0.113.9 -j DNAT --to-destination 10.0.0.9",
            );
            let six = json!({"public": "2001:db8::7", "private": "fd00::7", "comment": "vm-100", "whole": true});
            let four = |whole: bool| json!({"public": PUBLIC, "private": PRIVATE, "comment": "vm-100", "whole": whole});
            assert_eq!(list(), json!([four(true), six]));
            tool("iptables -t nat -F BLOCKHOST-SNAT");
            assert_eq!(list(), json!([four(false), six]));
            net.ask("nat-map", PUBLIC, PRIVATE).expect("mended");
            assert_eq!(list(), json!([four(true), six]));
            net.ask("nat-unmap", PUBLIC, PRIVATE).expect("unmapped");
            assert_eq!(list(), json!([six]));
            // The rule by hand is not listed, and said to be there.
            let clean = |action: &str| {
                let done = net.world.ask(&*net.handler, action, &json!({}));
                done.expect("a list").extra["clean"].clone()
            };
            assert_eq!(clean("nat-list"), false);
            tool("iptables -t nat -F BLOCKHOST-DNAT");
            assert_eq!(clean("nat-list"), true);
            assert_eq!(clean("iptables-list"), true);
            tool("iptables -N BLOCKHOST-INPUT");
            tool("iptables -A BLOCKHOST-INPUT -p tcp --dport 23 -j ACCEPT");
            assert_eq!(clean("iptables-list"), false);
        },
    );
}

#[test]
fn a_whole_list_of_pairs_leaves_no_other_pair_and_none_of_its_connections() {
    in_namespace(
        "a_whole_list_of_pairs_leaves_no_other_pair_and_none_of_its_connections",
        || {
            let (outside, _machine) = wires();
            tool("iptables-nft -t nat -A POSTROUTING -o nowhere -j MASQUERADE");
            let net = Net::new();
            let set = |pairs: Value| {
                let done = net
                    .world
                    .ask(&*net.handler, "nat-set", &json!({ "pairs": pairs }));
                done.unwrap_or_else(|failure| panic!("{}", failure.message))
                    .output
            };
            net.ask("nat-map", PUBLIC, PRIVATE).expect("mapped");
            outside.run("ping -c 1 -W 5 203.0.113.7");
            tool(
                "iptables-nft -t nat -A BLOCKHOST-DNAT -d 203.0.113.9 -j DNAT --to-destination 10.0.0.9",
            );
            assert!(tool("conntrack -L").contains(PUBLIC));
            // The address goes from one holder to another in one step.
            let said = set(json!([
                {"public": PUBLIC, "private": "10.0.0.8", "comment": "vm-101"},
                {"public": "2001:db8::7", "private": "fd00::7", "comment": "vm-100"},
            ]));
            assert!(said.contains("2 made, 2 taken away"), "{said}");
            assert!(!tool("conntrack -L").contains(PUBLIC), "of the one before");
            let saved = rules("iptables-nft-save");
            assert_eq!(
                saved[3..],
                [
                    "-A POSTROUTING -o nowhere -j MASQUERADE",
                    "-A BLOCKHOST-DNAT -d 203.0.113.7/32 -m comment --comment vm-101 -j DNAT --to-destination 10.0.0.8",
                    "-A BLOCKHOST-SNAT -s 10.0.0.8/32 -m comment --comment vm-101 -j SNAT --to-source 203.0.113.7",
                ]
            );
            assert_eq!(rules("ip6tables-nft-save").len(), 5);
            set(json!([]));
            assert_eq!(rules("iptables-nft-save"), saved[..4]);
        },
    );
}

/// Others on the uplink's own network, who ask there for public addresses; and a machine.
fn on_the_link() -> (SecondNet, SecondNet) {
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

#[test]
fn an_address_of_the_uplinks_own_network_is_answered_for_while_it_is_announced() {
    in_namespace(
        "an_address_of_the_uplinks_own_network_is_answered_for_while_it_is_announced",
        || {
            let (outside, _machine) = on_the_link();
            let net = Net::with_pools(&["203.0.113.0/24", "2001:db8::/64"]);
            let ask = |name: &str, address: &str| {
                let mut params = json!({"address": address, "dev": "eth0"});
                if name == "proxy-set" {
                    params["behind"] = "ovsbr0".into();
                }
                net.world
                    .ask(&*net.handler, name, &params)
                    .map_err(|failure| {
                        println!("{}", failure.message);
                        failure.code
                    })
            };
            let pings = |address: &str| outside.try_run(&format!("ping -c 1 -W 2 {address}")).0;
            net.ask("nat-map", PUBLIC, PRIVATE).expect("mapped");
            assert!(!pings(PUBLIC), "nobody says where it is");
            ask("proxy-set", PUBLIC).expect("announced");
            ask("proxy-set", PUBLIC).expect("the same again");
            assert!(pings(PUBLIC));
            assert!(
                !tool("ip -4 addr").contains(PUBLIC),
                "no service of the host is reached by it"
            );
            assert!(!pings("203.0.113.8"), "another address");
            assert_eq!(tool("ip neigh show proxy").lines().count(), 1);
            // IPv6 only where this host forwards it.
            const SIX: &str = "2001:db8::7";
            net.ask("nat-map", SIX, "fd00::7").expect("mapped");
            assert_eq!(ask("proxy-set", SIX).err(), Some(ErrorCode::Failed));
            assert!(!tool("ip -6 route").contains(SIX), "nothing of it was done");
            let forwarding = json!({"setting": "ipv6-forwarding", "on": true});
            let on = net.world.ask(&*net.handler, "sysctl-set", &forwarding);
            on.map_err(|failure| failure.message).expect("on");
            ask("proxy-set", SIX).expect("announced");
            assert!(pings(SIX));
            for address in [PUBLIC, SIX] {
                ask("proxy-del", address).expect("given up");
                assert_eq!(ask("proxy-del", address).err(), Some(ErrorCode::NotFound));
            }
            outside.run("ip neigh flush all");
            outside.run("ip -6 neigh flush all");
            assert!(!pings(PUBLIC) && !pings(SIX));
            assert_eq!(tool("ip neigh show proxy"), "");
            assert!(!tool("ip route").contains(PUBLIC));

            // What somebody else set stays.
            tool("ip neigh add proxy 203.0.113.9 dev eth0");
            assert_eq!(
                ask("proxy-set", "203.0.113.9").err(),
                Some(ErrorCode::Conflict)
            );
            assert_eq!(
                ask("proxy-del", "203.0.113.9").err(),
                Some(ErrorCode::NotFound)
            );
            tool("ip route add 203.0.113.10 dev ovsbr0 metric 1024");
            assert_eq!(
                ask("proxy-set", "203.0.113.10").err(),
                Some(ErrorCode::Conflict)
            );
            assert_eq!(tool("ip neigh show proxy").lines().count(), 1);
            // Killed between route and answer: the request completes it, and gives up what is half there.
            net.world
                .ask(
                    &*net.handler,
                    "route-set",
                    &json!({"dest": "203.0.113.11/32", "dev": "ovsbr0"}),
                )
                .expect("a route");
            ask("proxy-del", "203.0.113.11").expect("given up");
            assert!(!tool("ip route").contains("203.0.113.11"));
        },
    );
}

#[test]
fn only_named_uplinks_announce_and_only_addresses_of_the_pools() {
    let policy = |text: &str| {
        blockhost_root_agent::policy::Policy::parse(text, "p")
            .expect("a policy")
            .allow
    };
    let allow = policy("allow: {uplinks: [eth0], public_pools: ['203.0.113.0/28']}\n");
    let ask = |address: &str, dev: &str, behind: &str| {
        let params = json!({"address": address, "dev": dev, "behind": behind});
        let action = blockhost_proto::Action::from_parts("proxy-set", &params).expect("valid");
        allow.check(&action).is_ok()
    };
    assert!(ask(PUBLIC, "eth0", "ovsbr0"));
    assert!(!ask("203.0.113.16", "eth0", "ovsbr0"), "of no pool");
    assert!(!ask(PUBLIC, "eth1", "ovsbr0"), "no uplink");
    assert!(
        !ask(PUBLIC, "ovsbr1", "ovsbr0"),
        "a bridge that nobody named as an uplink"
    );
    assert!(!ask(PUBLIC, "eth0", "eth1"), "a device that has no routes");
}

#[test]
fn an_address_that_is_taken_is_a_conflict_and_nothing_changes() {
    in_namespace(
        "an_address_that_is_taken_is_a_conflict_and_nothing_changes",
        || {
            let net = Net::new();
            net.ask("nat-map", PUBLIC, PRIVATE).expect("mapped");
            let before = rules("iptables-nft-save");
            assert_eq!(
                net.ask("nat-map", PUBLIC, "10.0.0.8"),
                Err(ErrorCode::Conflict)
            );
            assert_eq!(
                net.ask("nat-map", "203.0.113.8", PRIVATE),
                Err(ErrorCode::Conflict)
            );
            assert_eq!(
                net.ask("nat-unmap", PUBLIC, "10.0.0.8"),
                Err(ErrorCode::NotFound)
            );
            assert_eq!(rules("iptables-nft-save"), before);
        },
    );
}

#[test]
fn one_pair_more_than_the_limit_is_refused_and_those_that_stand_can_be_asked_for_again() {
    in_namespace(
        "one_pair_more_than_the_limit_is_refused_and_those_that_stand_can_be_asked_for_again",
        || {
            let mut net = Net::new();
            net.world.policy.limits.firewall_rules = 1;
            net.ask("nat-map", PUBLIC, PRIVATE).expect("mapped");
            let before = rules("iptables-nft-save");
            assert_eq!(
                net.ask("nat-map", "203.0.113.8", "10.0.0.8"),
                Err(ErrorCode::Conflict)
            );
            assert_eq!(rules("iptables-nft-save"), before);
            net.ask("nat-map", PUBLIC, PRIVATE).expect("it stands");
            net.ask("nat-unmap", PUBLIC, PRIVATE).expect("unmapped");
            net.ask("nat-map", "203.0.113.8", "10.0.0.8")
                .expect("mapped");
        },
    );
}

#[test]
fn half_a_pair_left_by_somebody_is_made_whole_and_removed_whole() {
    in_namespace(
        "half_a_pair_left_by_somebody_is_made_whole_and_removed_whole",
        || {
            let net = Net::new();
            net.ask("nat-map", PUBLIC, PRIVATE).expect("mapped");
            let whole = rules("iptables-nft-save");
            tool("iptables-nft -t nat -F BLOCKHOST-SNAT");
            net.ask("nat-map", PUBLIC, PRIVATE).expect("mended");
            assert_eq!(rules("iptables-nft-save"), whole);
            tool("iptables-nft -t nat -F BLOCKHOST-SNAT");
            net.ask("nat-unmap", PUBLIC, PRIVATE).expect("removed");
            assert_eq!(rules("iptables-nft-save"), whole[..3]);
        },
    );
}

/// Somebody outside, a machine inside, this namespace between them.
fn wires() -> (SecondNet, SecondNet) {
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

#[test]
fn packets_go_both_ways_while_the_pair_stands_and_its_connections_are_forgotten_with_it() {
    in_namespace(
        "packets_go_both_ways_while_the_pair_stands_and_its_connections_are_forgotten_with_it",
        || {
            let (outside, machine) = wires();
            let net = Net::new();
            assert!(
                !outside.try_run("ping -c 1 -W 1 203.0.113.7").0,
                "no pair yet"
            );
            net.ask("nat-map", PUBLIC, PRIVATE).expect("mapped");
            outside.run("ping -c 1 -W 5 203.0.113.7");
            // The outside has no way back to 10.0.0.7: an answer proves that the machine appeared as the public one.
            machine.run("ping -c 1 -W 5 198.51.100.2");
            tool("ping -c 1 -W 5 203.0.113.7");
            let remembered = || {
                let (listed, text) = try_tool("conntrack -L");
                assert!(listed, "{text}");
                text.lines().filter(|line| line.contains(PUBLIC)).count()
            };
            assert!(remembered() >= 3);
            tool("ping -c 1 -W 5 198.51.100.2");
            let output = net.ask("nat-unmap", PUBLIC, PRIVATE).expect("unmapped");
            assert!(output.contains("of its connections forgotten"), "{output}");
            assert_eq!(remembered(), 0, "{output}");
            // An agent that died before it forgot them: rules gone, connections there.
            net.ask("nat-map", PUBLIC, PRIVATE).expect("mapped");
            outside.run("ping -c 1 -W 5 203.0.113.7");
            for chain in ["BLOCKHOST-DNAT", "BLOCKHOST-SNAT"] {
                tool(&format!("iptables-nft -t nat -F {chain}"));
            }
            assert!(remembered() > 0);
            assert_eq!(
                net.ask("nat-unmap", PUBLIC, PRIVATE),
                Err(ErrorCode::NotFound)
            );
            assert_eq!(remembered(), 0, "the next owner gets its packets");
            assert!(
                tool("conntrack -L").contains("dst=198.51.100.2"),
                "a connection of others went too"
            );
            assert!(
                !outside.try_run("ping -c 1 -W 1 203.0.113.7").0,
                "the pair is gone"
            );
        },
    );
}

#[test]
fn the_whole_of_it_works_as_the_compartment_runs() {
    as_net_compartment("the_whole_of_it_works_as_the_compartment_runs", || {
        // Such a user can make no world of its own, and needs none.
        let world = World::at(std::path::Path::new("/"));
        let handler = world.start(net::prepare).expect("a net compartment");
        let net = Net { world, handler };
        net.ask("nat-map", PUBLIC, PRIVATE).expect("mapped");
        let output = net.ask("nat-unmap", PUBLIC, PRIVATE).expect("unmapped");
        assert!(
            output.contains("0 of its connections forgotten"),
            "{output}"
        );
    });
}

#[test]
fn an_address_outside_the_pools_is_refused_and_none_is_in_a_pool_until_one_is_named() {
    use blockhost_root_agent::allow::{Allowlists, Prefix};
    let action = |public: &str, private: &str| {
        let params: Value = json!({"public": public, "private": private, "comment": "a"});
        blockhost_proto::Action::from_parts("nat-map", &params).expect("valid")
    };
    let mut allow = Allowlists::default();
    let code = |allow: &Allowlists, public, private| {
        allow.check(&action(public, private)).map_err(|f| f.code)
    };
    assert_eq!(code(&allow, PUBLIC, PRIVATE), Err(ErrorCode::Forbidden));
    allow.public_pools = vec![Prefix::try_from("203.0.113.0/28".to_owned()).expect("a prefix")];
    assert_eq!(code(&allow, PUBLIC, PRIVATE), Ok(()));
    assert_eq!(
        code(&allow, "203.0.113.16", PRIVATE),
        Err(ErrorCode::Forbidden)
    );
    assert_eq!(
        code(&allow, PUBLIC, "198.51.100.1"),
        Err(ErrorCode::Forbidden)
    );
}

/// The mark of the agent's tunnels on a device that stands for one.
fn as_a_tunnel(name: &str) {
    #[expect(clippy::disallowed_methods, reason = "the alias has a space in it")]
    let named = std::process::Command::new("ip")
        .args(["link", "set", name, "alias", "blockhost: tunnel"])
        .status();
    assert!(named.expect("ip").success());
}

#[test]
fn what_leaves_by_a_tunnel_leaves_as_the_host_so_that_the_other_side_needs_no_way_back() {
    in_namespace(
        "what_leaves_by_a_tunnel_leaves_as_the_host_so_that_the_other_side_needs_no_way_back",
        || {
            let (_outside, machine) = wires();
            let far = SecondNet::new();
            // A wire in the place of a tunnel: it is known by what stands beside it.
            tool(&format!(
                "ip link add wg0 type veth peer name far netns {}",
                far.pid()
            ));
            for words in ["addr add 10.8.0.1/24 dev wg0", "link set wg0 up"] {
                tool(&format!("ip {words}"));
            }
            for words in ["addr add 10.8.0.2/24 dev far", "link set far up"] {
                far.run(&format!("ip {words}"));
            }
            let net = Net::new();
            let set = |dev: &str, networks: Value| {
                let params = json!({"dev": dev, "networks": networks});
                let done = net.world.ask(&*net.handler, "masquerade-set", &params);
                done.map(|done| done.output).map_err(|failure| {
                    println!("{}", failure.message);
                    failure.code
                })
            };
            let list = || -> Value {
                let done = net.world.ask(&*net.handler, "masquerade-list", &json!({}));
                serde_json::from_str(&done.expect("a list").output).expect("JSON")
            };
            let reaches = || machine.try_run("ping -c 1 -W 1 10.8.0.2").0;
            // Somebody else's tunnel, and one that is not there.
            let mine = json!(["10.0.0.0/24"]);
            assert_eq!(set("wg0", mine.clone()), Err(ErrorCode::Conflict));
            assert_eq!(set("wg1", mine.clone()), Err(ErrorCode::NotFound));
            tool("ip link set wg0 alias blockhost:");
            assert_eq!(set("wg0", mine.clone()), Err(ErrorCode::Conflict));
            assert!(rules("iptables-nft-save").is_empty());
            as_a_tunnel("wg0");

            assert!(!reaches(), "nobody there knows the way back");
            set("wg0", mine.clone()).expect("hidden");
            assert!(reaches());
            let again = set("wg0", mine.clone()).expect("the same again");
            assert!(again.contains("as before"), "{again}");
            // A machine with a public address is known there as the host, too.
            net.ask("nat-map", PUBLIC, PRIVATE).expect("mapped");
            assert!(reaches());
            let saved = rules("iptables-nft-save");
            let places = ["MASQ", "SNAT"].map(|name| {
                let jump = format!("-A POSTROUTING -j BLOCKHOST-{name}");
                saved.iter().position(|rule| *rule == jump).expect("a jump")
            });
            assert!(places[0] < places[1], "{saved:?}");
            let whole =
                |whole: bool| json!([{"dev": "wg0", "network": "10.0.0.0/24", "whole": whole}]);
            assert_eq!(list(), whole(true));
            tool("iptables-nft -t nat -D POSTROUTING -j BLOCKHOST-MASQ");
            assert_eq!(list(), whole(false));
            tool("iptables-nft -t nat -A POSTROUTING -j BLOCKHOST-MASQ");
            assert_eq!(list(), whole(false), "too late");
            set("wg0", mine.clone()).expect("mended");
            assert_eq!(list(), whole(true));
            assert_eq!(rules("iptables-nft-save"), saved);

            // Another network of the machine's, and another way out, stay as they are.
            machine.run("ip addr add 10.0.1.7/24 dev far");
            tool("ip route add 10.0.1.0/24 dev lan");
            assert!(!machine.try_run("ping -c 1 -W 1 -I 10.0.1.7 10.8.0.2").0);
            net.ask("nat-unmap", PUBLIC, PRIVATE).expect("unmapped");
            assert!(!machine.try_run("ping -c 1 -W 1 198.51.100.2").0);

            // What nobody here made stays, and the pairs' whole list touches none of it.
            tool("iptables-nft -t nat -A BLOCKHOST-MASQ -s 10.99.0.0/24 -j ACCEPT");
            let params = json!({"pairs": []});
            net.world
                .ask(&*net.handler, "nat-set", &params)
                .expect("no pairs");
            assert_eq!(list(), whole(true));
            set("wg0", json!(["10.0.1.0/24", "fd00::/64"])).expect("others");
            assert!(!reaches());
            assert!(machine.try_run("ping -c 1 -W 1 -I 10.0.1.7 10.8.0.2").0);
            assert!(
                rules("ip6tables-nft-save")
                    .contains(&"-A BLOCKHOST-MASQ -s fd00::/64 -o wg0 -j MASQUERADE".to_owned())
            );
            tool("ip link del wg0");
            set("wg0", json!([])).expect("also without the tunnel");
            assert_eq!(list(), json!([]));
            assert!(tool("iptables-nft-save -t nat").contains("10.99.0.0/24"));
        },
    );
}

#[test]
fn more_networks_than_the_limit_of_one_family_are_refused_in_both() {
    in_namespace(
        "more_networks_than_the_limit_of_one_family_are_refused_in_both",
        || {
            let mut net = Net::new();
            tool("ip link add wg0 type bridge");
            as_a_tunnel("wg0");
            net.world.policy.limits.firewall_rules = 1;
            let set = |networks: Value| {
                let params = json!({"dev": "wg0", "networks": networks});
                let done = net.world.ask(&*net.handler, "masquerade-set", &params);
                done.map(drop).map_err(|failure| failure.code)
            };
            let both = || ["iptables-nft-save", "ip6tables-nft-save"].map(rules);
            set(json!(["10.0.0.0/24", "fd00::/64"])).expect("one of each");
            let before = both();
            for more in [
                json!(["10.0.1.0/24", "fd00::/64", "fd01::/64"]),
                json!(["10.0.0.0/24", "10.0.1.0/24", "fd01::/64"]),
                json!(["fd00::/64", "fd01::/64"]),
            ] {
                assert_eq!(set(more.clone()), Err(ErrorCode::Conflict), "{more}");
                assert_eq!(both(), before, "{more}");
            }
            set(json!(["10.0.1.0/24", "fd01::/64"])).expect("others");
            assert_ne!(both(), before);
        },
    );
}

#[test]
fn only_private_networks_are_hidden_and_only_behind_named_tunnels() {
    let allowed = |text: &str, dev: &str, network: &str| {
        let params = json!({"dev": dev, "networks": [network]});
        let action = blockhost_proto::action::Action::from_parts("masquerade-set", &params);
        let policy = blockhost_root_agent::policy::Policy::parse(text, "p").expect("a policy");
        policy.allow.check(&action.expect("valid")).is_ok()
    };
    for (text, dev, network, good) in [
        ("", "wg0", "10.20.0.0/24", true),
        ("", "wg0", "fd20::/64", true),
        ("", "wg0", "203.0.113.0/24", false),
        ("", "wg0", "8.0.0.0/8", false),
        ("", "eth0", "10.20.0.0/24", false),
        ("allow: {wg_names: [mesh0]}\n", "wg0", "10.20.0.0/24", false),
        (
            "allow: {nat_private: [10.20.0.0/16]}\n",
            "wg0",
            "10.20.0.0/24",
            true,
        ),
        (
            "allow: {nat_private: [10.20.0.0/16]}\n",
            "wg0",
            "10.0.0.0/8",
            false,
        ),
    ] {
        assert_eq!(allowed(text, dev, network), good, "{text}{dev} {network}");
    }
}
