//! Routes to networks in real network namespaces, compared with what `ip` says.

mod compartment_world;

use blockhost_ledger::failpoint;
use blockhost_proto::Action;
use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{Handler, net};
use blockhost_root_agent::policy::Policy;
use compartment_world::{World, as_net_compartment, in_namespace, said, tool};
use serde_json::{Value, json};

struct Net {
    world: World,
    handler: Box<dyn Handler>,
}

impl Net {
    /// Two devices, `wg0` and `ovsbr0`, with addresses of their own.
    fn new() -> Self {
        for (device, addresses) in [
            ("wg0", ["10.8.0.1/24", "fd08::1/64"]),
            ("ovsbr0", ["10.7.0.1/24", "fd07::1/64"]),
        ] {
            tool(&format!("ip link add {device} type bridge"));
            tool(&format!("ip link set {device} up"));
            for address in addresses {
                tool(&format!("ip addr add {address} dev {device}"));
            }
        }
        let world = World::new();
        let handler = world.start(net::prepare).expect("a net compartment");
        Self { world, handler }
    }

    fn ask(&self, verb: &str, params: &Value) -> Result<String, ErrorCode> {
        said(self.world.ask(&*self.handler, verb, params))
    }
}

/// The routes to a network in all tables, without what differs by state.
fn routes(dest: &str) -> Vec<Value> {
    let family = if dest.contains(':') { "-6" } else { "-4" };
    let text = tool(&format!(
        "ip {family} -j -d route show table all exact {dest}"
    ));
    let mut list: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    for route in &mut list {
        let route = route.as_object_mut().expect("a route");
        for differs in ["flags", "pref", "type"] {
            route.remove(differs);
        }
    }
    list
}

#[test]
fn a_route_is_set_replaced_and_deleted_in_both_families() {
    in_namespace(
        "a_route_is_set_replaced_and_deleted_in_both_families",
        || {
            let net = Net::new();
            let dest = "10.90.0.0/24";
            let through = json!({"dest": dest, "dev": "wg0", "via": "10.8.0.2", "src": "10.8.0.1"});
            net.ask("route-set", &through).expect("set");
            let expected = json!({
                "dst": dest, "gateway": "10.8.0.2", "dev": "wg0", "prefsrc": "10.8.0.1", "metric": 1024,
                "protocol": "177", "scope": "global", "table": "main",
            });
            assert_eq!(routes(dest), [expected]);
            let again = net.ask("route-set", &through).expect("again");
            assert!(again.contains("as before"), "{again}");
            let direct = json!({"dest": dest, "dev": "ovsbr0"});
            net.ask("route-set", &direct).expect("replaced");
            let now = routes(dest);
            assert_eq!(now.len(), 1, "{now:?}");
            assert_eq!(
                (&now[0]["dev"], &now[0]["scope"]),
                (&json!("ovsbr0"), &json!("link"))
            );
            assert_eq!(
                net.ask("route-del", &json!({"dest": dest, "dev": "wg0"})),
                Err(ErrorCode::NotFound)
            );
            net.ask("route-del", &direct).expect("deleted");
            assert_eq!(net.ask("route-del", &direct), Err(ErrorCode::NotFound));
            assert!(routes(dest).is_empty());

            let dest = "fd90::/64";
            for (params, gateway) in [
                (
                    json!({"dest": dest, "dev": "wg0", "via": "fd08::2"}),
                    json!("fd08::2"),
                ),
                (json!({"dest": dest, "dev": "wg0"}), Value::Null),
                (
                    json!({"dest": dest, "dev": "ovsbr0", "via": "fe80::9"}),
                    json!("fe80::9"),
                ),
            ] {
                net.ask("route-set", &params).expect("set");
                let now = routes(dest);
                assert_eq!(now.len(), 1, "{now:?}");
                assert_eq!(
                    (&now[0]["dev"], &now[0]["gateway"]),
                    (&params["dev"], &gateway)
                );
            }
            net.ask("route-del", &json!({"dest": dest, "dev": "ovsbr0"}))
                .expect("deleted");
            assert!(routes(dest).is_empty());
        },
    );
}

#[test]
fn metrics_keep_routes_apart_and_what_somebody_else_made_is_left_alone() {
    in_namespace(
        "metrics_keep_routes_apart_and_what_somebody_else_made_is_left_alone",
        || {
            let net = Net::new();
            for (dest, via) in [("10.90.0.0/24", "10.8.0.2"), ("fd90::/64", "fd08::2")] {
                tool(&format!(
                    "ip route add {dest} via {via} dev wg0 metric 1024"
                ));
                tool(&format!(
                    "ip route add {dest} via {via} dev wg0 metric 8 table 77"
                ));
                let before = routes(dest);
                let set = json!({"dest": dest, "dev": "ovsbr0"});
                assert_eq!(net.ask("route-set", &set), Err(ErrorCode::Conflict));
                let delete = json!({"dest": dest, "dev": "wg0"});
                assert_eq!(net.ask("route-del", &delete), Err(ErrorCode::NotFound));
                assert_eq!(routes(dest), before);
                for metric in [7, 8] {
                    let set = json!({"dest": dest, "dev": "ovsbr0", "metric": metric});
                    net.ask("route-set", &set).expect("another metric");
                }
                assert_eq!(routes(dest).len(), before.len() + 2);
                for metric in [7, 8] {
                    let delete = json!({"dest": dest, "dev": "ovsbr0", "metric": metric});
                    net.ask("route-del", &delete).expect("deleted");
                }
                assert_eq!(routes(dest), before);
            }
        },
    );
}

#[test]
fn a_route_that_only_refuses_and_one_out_of_a_device_that_is_not_theirs_stay() {
    in_namespace(
        "a_route_that_only_refuses_and_one_out_of_a_device_that_is_not_theirs_stay",
        || {
            let net = Net::new();
            tool("ip link set lo up");
            for dest in ["10.90.0.0/24", "fd90::/64"] {
                let set = json!({"dest": dest, "dev": "wg0"});
                for kind in ["blackhole", "unreachable", "prohibit", "local"] {
                    // A network that is the host's own, as a proxy has it.
                    let of = match kind {
                        "local" => "dev lo table main",
                        _ => "",
                    };
                    tool(&format!("ip route add {kind} {dest} {of} metric 1024"));
                    let before = routes(dest);
                    assert_eq!(before.len(), 1, "{before:?}");
                    assert_eq!(net.ask("route-set", &set), Err(ErrorCode::Conflict));
                    assert_eq!(routes(dest), before);
                    assert_eq!(net.ask("route-del", &set), Err(ErrorCode::NotFound));
                    tool(&format!("ip route del {kind} {dest} {of} metric 1024"));
                }
            }
            // Made by this agent, for somebody who may name that device.
            tool("ip link add eth9 type bridge");
            tool("ip link set eth9 up");
            tool("ip route add 10.90.0.0/24 dev eth9 metric 1024 proto 177");
            let before = routes("10.90.0.0/24");
            let set = json!({"dest": "10.90.0.0/24", "dev": "wg0"});
            assert_eq!(net.ask("route-set", &set), Err(ErrorCode::Conflict));
            assert_eq!(routes("10.90.0.0/24"), before);
        },
    );
}

#[test]
fn no_part_of_a_network_at_a_device_of_others_and_no_router_is_led_elsewhere() {
    in_namespace(
        "no_part_of_a_network_at_a_device_of_others_and_no_router_is_led_elsewhere",
        || {
            let mut net = Net::new();
            for words in [
                "ip link add eth0 type veth peer name wire",
                "ip link set wire up",
                "ip link set eth0 up",
                "ip addr add 192.168.1.10/24 dev eth0",
                "ip addr add 203.0.113.2/24 dev eth0",
                "ip route add default via 192.168.1.1 dev eth0",
                "ip route add 198.51.100.0/24 via 203.0.113.1 dev eth0",
                "ip route add 10.0.0.0/8 via 192.168.1.254 dev eth0",
                "ip addr add fd99::10/64 dev eth0 nodad",
                "ip -6 route add default via fd99::1 dev eth0",
                "ip route add 10.91.0.0/24 dev eth0 proto 177 metric 1024",
            ] {
                tool(words);
            }
            let lists = ["ip -j route", "ip -j -6 route show root fc00::/7"];
            let before = lists.map(tool);
            for (dest, metric) in [
                ("192.168.1.1/32", 1024),
                ("192.168.1.0/25", 1024),
                ("192.168.1.53/32", 1024),
                ("fd99::1/128", 1024),
                ("fd99::/120", 1024),
                // Before the kernel's own, and before somebody else's.
                ("fd99::/64", 1),
                ("10.91.0.0/24", 1),
                ("10.91.0.0/25", 1024),
            ] {
                let set = json!({"dest": dest, "dev": "ovsbr0", "metric": metric});
                assert_eq!(
                    net.ask("route-set", &set),
                    Err(ErrorCode::Conflict),
                    "{dest}"
                );
                assert_eq!(lists.map(tool), before, "{dest}");
            }
            // Of what is behind a router a part may be here, and what comes after takes nothing.
            for (dest, metric) in [
                ("10.92.0.0/24", 1024),
                ("192.168.0.0/16", 1),
                ("10.91.0.0/24", 2000),
            ] {
                let set = json!({"dest": dest, "dev": "ovsbr0", "metric": metric});
                net.ask("route-set", &set).expect("nobody's");
            }
            // Machines get addresses of the uplink's own network, where the policy says so; its router's is none.
            let pool = "203.0.113.0/24".to_owned();
            let machine = json!({"dest": "203.0.113.7/32", "dev": "ovsbr0"});
            assert_eq!(net.ask("route-set", &machine), Err(ErrorCode::Conflict));
            net.world.policy.allow.public_pools = vec![pool.try_into().expect("a prefix")];
            net.ask("route-set", &machine).expect("of the pool");
            let router = json!({"dest": "203.0.113.1/32", "dev": "ovsbr0"});
            assert_eq!(net.ask("route-set", &router), Err(ErrorCode::Conflict));
        },
    );
}

#[test]
fn a_route_that_comes_between_the_look_and_the_change_is_not_replaced() {
    in_namespace(
        "a_route_that_comes_between_the_look_and_the_change_is_not_replaced",
        || {
            let net = Net::new();
            tool("ip link add eth9 type bridge");
            tool("ip link set eth9 up");
            for dest in ["10.90.0.0/24", "fd90::/64"] {
                failpoint::meanwhile("net-route-judged", move || {
                    tool(&format!("ip route add {dest} dev eth9 metric 1024"));
                });
                let set = json!({"dest": dest, "dev": "wg0"});
                assert_eq!(net.ask("route-set", &set), Err(ErrorCode::Conflict));
                let now = routes(dest);
                assert_eq!(now.len(), 1, "{now:?}");
                assert_eq!(now[0]["dev"], "eth9");
            }
        },
    );
}

#[test]
fn what_the_kernel_refuses_is_said_and_changes_nothing() {
    in_namespace(
        "what_the_kernel_refuses_is_said_and_changes_nothing",
        || {
            let net = Net::new();
            let dest = "10.90.0.0/24";
            let good = json!({"dest": dest, "dev": "wg0", "via": "10.8.0.2"});
            net.ask("route-set", &good).expect("set");
            let before = routes(dest);
            for params in [
                json!({"dest": dest, "dev": "wg0", "via": "203.0.113.1"}),
                json!({"dest": dest, "dev": "wg0", "src": "203.0.113.9"}),
            ] {
                assert_eq!(net.ask("route-set", &params), Err(ErrorCode::Failed));
                assert_eq!(routes(dest), before);
            }
            let gone = json!({"dest": dest, "dev": "gone"});
            assert_eq!(net.ask("route-set", &gone), Err(ErrorCode::NotFound));
            tool("ip link set ovsbr0 down");
            let down = json!({"dest": dest, "dev": "ovsbr0"});
            assert_eq!(net.ask("route-set", &down), Err(ErrorCode::Failed));
            assert_eq!(routes(dest), before);
        },
    );
}

#[test]
fn networks_and_devices_outside_the_policys_lists_are_forbidden() {
    let ask = |policy: &str, dest: &str, dev: &str| {
        let allow = Policy::parse(policy, "p").expect("a policy").allow;
        let params = json!({"dest": dest, "dev": dev});
        ["route-set", "route-del"].map(|verb| {
            let action = Action::from_parts(verb, &params).expect("valid");
            allow.check(&action).is_ok()
        })
    };
    for (policy, dest, dev, allowed) in [
        ("", "10.90.0.0/24", "wg0", true),
        ("", "fd90::/64", "ovsbr0", true),
        ("", "10.90.0.0/24", "vmbr0", true),
        ("", "10.90.0.0/24", "eth0", false),
        ("", "10.90.0.0/24", "lo", false),
        ("", "203.0.113.0/24", "wg0", false),
        ("", "2001:db8::/32", "wg0", false),
        ("", "172.0.0.0/8", "wg0", false),
        (
            "allow: {public_pools: [203.0.113.0/24]}",
            "203.0.113.7/32",
            "wg0",
            true,
        ),
        (
            "allow: {public_pools: [203.0.113.0/24]}",
            "203.0.112.0/23",
            "wg0",
            false,
        ),
        (
            "allow: {route_networks: ['10.90.0.0/16']}",
            "10.91.0.0/24",
            "wg0",
            false,
        ),
        (
            "allow: {vmids: {first: 200, last: 300}}",
            "10.90.0.0/24",
            "vi100",
            false,
        ),
    ] {
        assert_eq!(
            ask(policy, dest, dev),
            [allowed; 2],
            "{policy} {dest} {dev}"
        );
    }
}

#[test]
fn the_compartments_own_rights_are_enough_for_routes_to_networks() {
    as_net_compartment(
        "the_compartments_own_rights_are_enough_for_routes_to_networks",
        || {
            tool("ip link add wg0 type bridge");
            tool("ip link set wg0 up");
            let handler = compartment_world::bare_handler(net::prepare);
            let params = json!({"dest": "10.90.0.0/24", "dev": "wg0"});
            for verb in ["route-set", "route-del"] {
                let result = compartment_world::ask_bare(&*handler, verb, &params);
                result.unwrap_or_else(|failure| panic!("{}", failure.message));
            }
            assert!(routes("10.90.0.0/24").is_empty());
        },
    );
}
