//! Networks that leave by a tunnel as the host, in real network namespaces: rules compared with `iptables-save`, packets really sent.

mod compartment_world;
mod nat_world;
mod second_net;

use blockhost_proto::response::ErrorCode;
use compartment_world::{in_namespace, tool};
use nat_world::{Net, PRIVATE, PUBLIC, rules, wires};
use second_net::SecondNet;
use serde_json::{Value, json};

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
            let answered = || machine.try_run("ping -c 1 -W 60 10.8.0.2").0;
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
            assert!(answered());
            let again = set("wg0", mine.clone()).expect("the same again");
            assert!(again.contains("as before"), "{again}");
            // A machine with a public address is known there as the host, too.
            net.ask("nat-map", PUBLIC, PRIVATE).expect("mapped");
            assert!(answered());
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
