//! The way out for what comes from machines, in real network namespaces, compared with what `ip` says.

mod compartment_world;

use blockhost_ledger::failpoint;
use blockhost_netlink::Netlink;
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

/// A device that stands for a tunnel of the agent: the routes see no difference.
fn tunnel(name: &str) {
    tool(&format!("ip link add {name} type bridge"));
    tool(&format!("ip link set {name} up"));
    let mut netlink = Netlink::open().expect("netlink");
    let link = netlink.link(name).expect("a look").expect("a device");
    netlink
        .link_alias(link.index, "blockhost: tunnel")
        .expect("an alias");
}

impl Net {
    /// Two tunnels, a bridge with machines, and an uplink with a default route.
    fn new() -> Self {
        tunnel("wg-broker");
        tunnel("wg1");
        for words in [
            "ip link set lo up",
            "ip link add ovsbr0 type bridge",
            "ip link set ovsbr0 up",
            "ip addr add fd77::1/64 dev ovsbr0 nodad",
            "ip link add eth0 type veth peer name wire",
            "ip link set wire up",
            "ip link set eth0 up",
            "ip addr add fd99::10/64 dev eth0 nodad",
            "ip -6 route add default via fd99::1 dev eth0",
        ] {
            tool(words);
        }
        let world = World::new();
        let handler = world.start(net::prepare).expect("a net compartment");
        Self { world, handler }
    }

    fn ask(&self, verb: &str, params: &Value) -> Result<String, ErrorCode> {
        said(self.world.ask(&*self.handler, verb, params))
    }
}

fn way(from: &str, dev: &str) -> Value {
    json!({"from": from, "dev": dev})
}

/// The default routes that are for one source only.
fn sources() -> Vec<String> {
    let text = tool("ip -6 -d route show default");
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| line.contains(" from "))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

/// Which device a packet of a machine's goes out of.
fn out_of(to: &str, from: &str) -> String {
    let text = tool(&format!("ip -j -6 route get {to} from {from} iif ovsbr0"));
    let list: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    list[0]["dev"].as_str().expect("a device").to_owned()
}

#[test]
fn what_comes_from_machines_goes_out_of_the_tunnel_and_what_the_host_sends_does_not() {
    in_namespace(
        "what_comes_from_machines_goes_out_of_the_tunnel_and_what_the_host_sends_does_not",
        || {
            let net = Net::new();
            assert_eq!(out_of("2001:db8::1", "fd77::9"), "eth0");
            net.ask("route-from-set", &way("fd77::/64", "wg-broker"))
                .expect("set");
            let now = sources();
            assert!(
                now.len() == 1
                    && now[0].contains(
                        "from fd77::/64 dev wg-broker proto 177 scope global metric 1024"
                    ),
                "{now:?}"
            );
            assert_eq!(out_of("2001:db8::1", "fd77::9"), "wg-broker");
            assert_eq!(out_of("2001:db8::1", "fd78::9"), "eth0");
            assert_eq!(
                out_of("fd99::1", "fd77::9"),
                "eth0",
                "has a route of its own"
            );
            let own = tool("ip -6 route get 2001:db8::1");
            assert!(own.contains("dev eth0"), "{own}");
            let again = net
                .ask("route-from-set", &way("fd77::/64", "wg-broker"))
                .expect("again");
            assert!(again.contains("as before"), "{again}");
            net.ask("route-from-set", &way("fd77::/64", "wg1"))
                .expect("replaced");
            let now = sources();
            assert!(now.len() == 1 && now[0].contains("dev wg1"), "{now:?}");
            let gone = net.ask("route-from-del", &way("fd77::/64", "wg-broker"));
            assert_eq!(gone, Err(ErrorCode::NotFound));
            net.ask("route-from-del", &way("fd77::/64", "wg1"))
                .expect("deleted");
            assert!(sources().is_empty());
            assert_eq!(out_of("2001:db8::1", "fd77::9"), "eth0");
        },
    );
}

#[test]
fn somebody_elses_way_and_somebody_elses_network_are_left_alone() {
    in_namespace(
        "somebody_elses_way_and_somebody_elses_network_are_left_alone",
        || {
            let net = Net::new();
            let wanted = way("fd77::/64", "wg-broker");
            for foreign in ["dev eth0", "dev wg-broker"] {
                tool(&format!(
                    "ip -6 route add default from fd77::/64 {foreign} metric 1024"
                ));
                let before = sources();
                assert_eq!(net.ask("route-from-set", &wanted), Err(ErrorCode::Conflict));
                assert_eq!(net.ask("route-from-del", &wanted), Err(ErrorCode::NotFound));
                assert_eq!(sources(), before);
                tool(&format!(
                    "ip -6 route del default from fd77::/64 {foreign} metric 1024"
                ));
            }
            // The uplink's own network, a part of it, and one around it: the host and its neighbours have addresses there.
            for from in ["fd99::/64", "fd99::/120", "fd99::/32"] {
                let set = net.ask("route-from-set", &way(from, "wg-broker"));
                assert_eq!(set, Err(ErrorCode::Conflict), "{from}");
            }
            assert!(sources().is_empty());
            // One that comes between the look and the change.
            failpoint::meanwhile("net-source-judged", || {
                tool("ip -6 route add default from fd77::/64 dev eth0 metric 1024");
            });
            assert_eq!(net.ask("route-from-set", &wanted), Err(ErrorCode::Conflict));
            let now = sources();
            assert!(now.len() == 1 && now[0].contains("eth0"), "{now:?}");
        },
    );
}

#[test]
fn only_a_tunnel_of_the_agents_that_is_up_leads_out() {
    in_namespace("only_a_tunnel_of_the_agents_that_is_up_leads_out", || {
        let net = Net::new();
        tool("ip link add wg9 type bridge");
        tool("ip link set wg9 up");
        tool("ip link set wg1 down");
        for (dev, code) in [
            ("wg9", ErrorCode::Conflict),
            ("wg8", ErrorCode::NotFound),
            ("wg1", ErrorCode::Failed),
        ] {
            let set = net.ask("route-from-set", &way("fd77::/64", dev));
            assert_eq!(set, Err(code), "{dev}");
        }
        assert!(sources().is_empty());
    });
}

#[test]
fn sources_and_tunnels_outside_the_policys_lists_are_forbidden() {
    let lists = |policy: &str| Policy::parse(policy, "p").expect("a policy").allow;
    for (policy, from, dev, allowed) in [
        ("", "fd77::/64", "wg-broker", true),
        ("", "2001:db8::/64", "wg-broker", false),
        ("", "fd77::/64", "eth0", false),
        ("", "fd77::/64", "ovsbr0", false),
        (
            "allow: {route_networks: ['2001:db8::/48']}",
            "2001:db8::/64",
            "wg-broker",
            true,
        ),
        (
            "allow: {route_networks: ['2001:db8::/48']}",
            "2001:db8::/47",
            "wg-broker",
            false,
        ),
        (
            "allow: {public_pools: ['2001:db8::/48']}",
            "2001:db8::/64",
            "wg-broker",
            false,
        ),
        ("allow: {wg_names: [wg0]}", "fd77::/64", "wg-broker", false),
    ] {
        for verb in ["route-from-set", "route-from-del"] {
            let action = Action::from_parts(verb, &way(from, dev)).expect("valid");
            assert_eq!(
                lists(policy).check(&action).is_ok(),
                allowed,
                "{policy} {verb} {from} {dev}"
            );
        }
    }
}

#[test]
fn the_compartments_own_rights_are_enough_for_the_way_out() {
    as_net_compartment(
        "the_compartments_own_rights_are_enough_for_the_way_out",
        || {
            tunnel("wg-broker");
            let handler = compartment_world::bare_handler(net::prepare);
            for verb in ["route-from-set", "route-from-del"] {
                let params = way("fd77::/64", "wg-broker");
                let result = compartment_world::ask_bare(&*handler, verb, &params);
                result.unwrap_or_else(|failure| panic!("{}", failure.message));
            }
            assert!(sources().is_empty());
        },
    );
}
