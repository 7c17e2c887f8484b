//! Address translation in real network namespaces: rules compared with `iptables-save`, packets really sent.

mod compartment_world;
mod nat_world;
mod second_net;

use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::net;
use compartment_world::{World, as_net_compartment, in_namespace, tool, try_tool};
use nat_world::{Net, PRIVATE, PUBLIC, on_the_link, rules, wires};
use serde_json::{Value, json};

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
