//! State, MTU and addresses of devices in real network namespaces, compared with what `ip` says.

mod common;
mod compartment_world;
mod crash_world;

use blockhost_ledger::failpoint;
use blockhost_proto::Action;
use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{Done, Failure, Handler, net};
use blockhost_root_agent::policy::Policy;
use common::World as AgentWorld;
use compartment_world::{World, as_net_compartment, code, in_namespace, tool};
use crash_world::{in_namespace as in_agents_namespace, killed_at};
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

    fn ask(&self, params: &Value) -> Result<Done, Failure> {
        let result = self.world.ask(&*self.handler, "link-set", params);
        if let Err(failure) = &result {
            println!("{}", failure.message);
        }
        result
    }

    fn set(&self, params: &Value) -> Done {
        self.ask(params).unwrap_or_else(|f| panic!("{}", f.message))
    }
}

/// Addresses beyond the link, with their prefix lengths, as `ip` shows them.
fn addresses(device: &str) -> Vec<String> {
    let links: Value =
        serde_json::from_str(&tool(&format!("ip -j addr show dev {device} scope global")))
            .expect("JSON");
    let all = links.as_array().into_iter().flatten();
    let mut list: Vec<String> = all
        .flat_map(|link| link["addr_info"].as_array().cloned().unwrap_or_default())
        // What is filtered out leaves an empty object behind.
        .filter_map(|a| Some(format!("{}/{}", a["local"].as_str()?, a["prefixlen"])))
        .collect();
    list.sort();
    list
}

fn link(device: &str) -> Value {
    let links: Value =
        serde_json::from_str(&tool(&format!("ip -j link show dev {device}"))).expect("JSON");
    links[0].clone()
}

fn routes() -> [String; 3] {
    let of_six = "ip -j -6 route show";
    let lists = [
        "ip -j route".to_owned(),
        format!("{of_six} default"),
        format!("{of_six} root fc00::/7"),
    ];
    lists.map(|words| tool(&words))
}

fn is_up(device: &str) -> bool {
    let flags = link(device)["flags"].clone();
    flags.as_array().expect("flags").contains(&json!("UP"))
}

#[test]
fn a_bridge_is_brought_to_its_state_and_the_answer_is_what_ip_shows() {
    in_namespace(
        "a_bridge_is_brought_to_its_state_and_the_answer_is_what_ip_shows",
        || {
            tool("ip link add ovsbr0 type bridge");
            let net = Net::new();
            let wanted = ["10.77.0.1/24", "fd77::1/64"];
            let request = json!({"dev": "ovsbr0", "up": true, "mtu": 1400, "addresses": wanted});
            let done = net.set(&request);
            assert_eq!(addresses("ovsbr0"), wanted);
            assert!(is_up("ovsbr0"));
            assert_eq!(link("ovsbr0")["mtu"], 1400);
            assert_eq!(
                Value::Object(done.extra),
                json!({"up": true, "mtu": 1400, "addresses": wanted, "forward": false})
            );
            // Without the device's own lines: a bridge has timers that run.
            let before = tool("ip -o addr show dev ovsbr0 scope global");
            net.set(&request);
            let again = tool("ip -o addr show dev ovsbr0 scope global");
            assert_eq!(before, again, "the same again changes nothing");
            let done = net.set(&json!({"dev": "ovsbr0", "up": false}));
            assert_eq!(done.extra["up"], false);
            assert!(!is_up("ovsbr0"));
            assert_eq!(link("ovsbr0")["mtu"], 1400, "what is not given stays");
        },
    );
}

#[test]
fn only_the_difference_is_applied_and_what_stays_is_not_touched() {
    in_namespace(
        "only_the_difference_is_applied_and_what_stays_is_not_touched",
        || {
            tool("ip link add ovsbr0 type bridge");
            tool("ip link set ovsbr0 up");
            for address in [
                "10.0.0.1/24",
                "10.0.0.2/24",
                "10.1.0.1/16",
                "fd00::1/64",
                "fd01::1/64",
            ] {
                tool(&format!("ip addr add {address} dev ovsbr0"));
            }
            // What somebody chose for an address that stays.
            tool("ip addr change fd00::1/64 dev ovsbr0 noprefixroute");
            let net = Net::new();
            let wanted = ["10.0.0.2/24", "10.2.0.1/24", "fd00::1/64", "fd01::1/48"];
            net.set(&json!({"dev": "ovsbr0", "addresses": wanted}));
            // The first of a network takes the second with it; it is given again.
            assert_eq!(addresses("ovsbr0"), wanted);
            let text = tool("ip addr show dev ovsbr0");
            let kept = text.lines().find(|line| line.contains("fd00::1/64"));
            assert!(kept.expect("it stays").contains("noprefixroute"), "{text}");
            assert!(text.contains("fe80::"), "the link's own stays: {text}");
            net.set(&json!({"dev": "ovsbr0", "addresses": []}));
            assert!(addresses("ovsbr0").is_empty());
        },
    );
}

#[test]
fn what_fails_half_way_is_taken_back() {
    in_namespace("what_fails_half_way_is_taken_back", || {
        tool("ip link add ovsbr0 type bridge");
        tool("ip link set ovsbr0 up mtu 1400");
        tool("ip addr add 10.0.0.1/24 dev ovsbr0");
        std::fs::write("/proc/sys/net/ipv6/conf/ovsbr0/disable_ipv6", "1").expect("the switch");
        let net = Net::new();
        let failure = net
            .ask(&json!({"dev": "ovsbr0", "mtu": 1500, "addresses": ["10.0.1.1/24", "fd00::1/64"]}))
            .unwrap_err();
        assert_eq!(failure.code, ErrorCode::Failed);
        assert!(failure.message.contains("IPv6 is disabled"));
        assert_eq!(addresses("ovsbr0"), ["10.0.0.1/24"]);
        assert_eq!(link("ovsbr0")["mtu"], 1400);
    });
}

#[test]
fn a_device_forwards_alone_and_believes_no_source_that_it_would_not_answer_there() {
    in_namespace(
        "a_device_forwards_alone_and_believes_no_source_that_it_would_not_answer_there",
        || {
            tool("ip link add ovsbr0 type bridge");
            tool("ip link add ovsbr1 type bridge");
            let setting = |device: &str, name: &str| {
                let path = format!("/proc/sys/net/ipv4/conf/{device}/{name}");
                let text = std::fs::read_to_string(path).expect("a setting");
                text.trim().to_owned()
            };
            let net = Net::new();
            let done = net.set(&json!({"dev": "ovsbr0", "forward": true}));
            assert_eq!(done.extra["forward"], true);
            assert!(done.output.contains("forwards IPv4"), "{}", done.output);
            assert_eq!(setting("ovsbr0", "forwarding"), "1");
            assert_eq!(setting("ovsbr0", "rp_filter"), "1");
            for other in ["ovsbr1", "lo", "all", "default"] {
                assert_eq!(setting(other, "forwarding"), "0", "{other}");
            }
            // Somebody else made it believe everything.
            std::fs::write("/proc/sys/net/ipv4/conf/ovsbr0/rp_filter", "2").expect("a setting");
            net.set(&json!({"dev": "ovsbr0", "forward": true}));
            assert_eq!(setting("ovsbr0", "rp_filter"), "1");
            net.set(&json!({"dev": "ovsbr0", "up": true}));
            assert_eq!(
                setting("ovsbr0", "forwarding"),
                "1",
                "what is not given stays"
            );
            let failure = net.ask(&json!({"dev": "lo", "forward": true}));
            assert_eq!(code(failure), ErrorCode::Conflict);
            net.set(&json!({"dev": "ovsbr0", "forward": false}));
            assert_eq!(setting("ovsbr0", "forwarding"), "0");
        },
    );
}

#[test]
fn hardware_other_programs_tunnels_and_devices_by_another_name_are_left_alone() {
    in_namespace(
        "hardware_other_programs_tunnels_and_devices_by_another_name_are_left_alone",
        || {
            tool("ip link add ovsbr1 type vxlan id 7 dstport 4789 dev lo");
            tool("ip tuntap add dev wg0 mode tun");
            tool("ip link add other type bridge");
            tool("ip link property add dev other altname ovsbr0");
            tool("ip link property add dev other altname vi100");
            let before = tool("ip -j addr");
            let net = Net::new();
            for (device, expected) in [
                ("lo", ErrorCode::Conflict),
                ("ovsbr1", ErrorCode::Conflict),
                ("wg0", ErrorCode::Conflict),
                ("ovsbr0", ErrorCode::NotFound),
                ("vi100", ErrorCode::NotFound),
                ("nowhere", ErrorCode::NotFound),
            ] {
                let request = json!({"dev": device, "up": true, "addresses": ["10.0.0.1/24"]});
                assert_eq!(code(net.ask(&request)), expected, "{device}");
            }
            assert_eq!(before, tool("ip -j addr"));
        },
    );
}

/// A host at a private network by `eth0`, with its router, and a bridge of the policy.
fn host_behind_a_router() {
    for words in [
        "ip link add eth0 type veth peer name wire",
        "ip link set wire up",
        "ip link set eth0 up",
        "ip addr add 192.168.1.10/24 dev eth0",
        "ip route add default via 192.168.1.1 dev eth0",
        "ip addr add fd99::10/64 dev eth0 nodad",
        "ip -6 route add default via fd99::1 dev eth0",
        "ip link add ovsbr0 type bridge",
        "ip link set ovsbr0 up",
    ] {
        tool(words);
    }
}

#[test]
fn the_hosts_own_addresses_stay_on_a_bridge_that_they_were_handed_over_to() {
    in_namespace(
        "the_hosts_own_addresses_stay_on_a_bridge_that_they_were_handed_over_to",
        || {
            host_behind_a_router();
            tool("ip addr add 203.0.113.2/24 dev eth0");
            tool("ip addr add 10.77.0.1/24 dev ovsbr0");
            let mut net = Net::new();
            net.world.policy.allow.uplinks = vec!["eth0".to_owned()];
            let moved = json!({"from": "eth0", "to": "ovsbr0"});
            let moved = net.world.ask(&*net.handler, "link-handover", &moved);
            moved.unwrap_or_else(|failure| panic!("{}", failure.message));
            let before = routes();
            let own = ["192.168.1.10/24", "203.0.113.2/24", "fd99::10/64"];
            let has = |own: &str| addresses("ovsbr0").contains(&own.to_owned());
            let stays = || {
                assert!(own.iter().all(|own| has(own)) && is_up("ovsbr0"));
                assert_eq!(before, routes());
            };
            stays();
            for request in [
                json!({"dev": "ovsbr0", "addresses": []}),
                json!({"dev": "ovsbr0", "addresses": ["10.77.0.1/24"]}),
                json!({"dev": "ovsbr0", "addresses": ["10.77.0.1/24", "192.168.1.10/24"]}),
                json!({"dev": "ovsbr0", "addresses": ["192.168.1.10/25"]}),
                json!({"dev": "ovsbr0", "up": false}),
                json!({"dev": "ovsbr0", "up": false, "mtu": 1400}),
            ] {
                let failure = net.ask(&request).unwrap_err();
                assert_eq!(failure.code, ErrorCode::Conflict, "{request}");
                stays();
            }
            // What is the bridge's to have comes and goes beside them, as far as the list can name them.
            net.world.policy.allow.link_addresses =
                ["192.168.0.0/16", "10.0.0.0/8", "203.0.113.0/24", "fd00::/8"]
                    .map(|text| {
                        blockhost_root_agent::allow::Prefix::try_from(text.to_owned())
                            .expect("a prefix")
                    })
                    .to_vec();
            let request =
                json!({"dev": "ovsbr0", "addresses": ["10.78.0.1/24", own[0], own[1], own[2]]});
            net.set(&request);
            assert!(!has("10.77.0.1/24") && own.iter().all(|own| has(own)));
            let request = json!({"dev": "ovsbr0", "addresses": [own[0], own[2]]});
            net.set(&request);
            let last = json!({"dev": "ovsbr0", "addresses": [own[2]]});
            assert_eq!(code(net.ask(&last)), ErrorCode::Conflict, "the way out");
            assert!(has(own[0]));
        },
    );
}

#[test]
fn an_address_that_comes_between_the_look_and_the_change_stays() {
    in_namespace(
        "an_address_that_comes_between_the_look_and_the_change_stays",
        || {
            tool("ip link add ovsbr0 type bridge");
            tool("ip link set ovsbr0 up");
            tool("ip addr add 10.77.0.1/24 dev ovsbr0");
            let net = Net::new();
            failpoint::meanwhile("net-device-judged", || {
                tool("ip addr add 203.0.113.2/24 dev ovsbr0");
            });
            net.set(&json!({"dev": "ovsbr0", "addresses": []}));
            assert_eq!(addresses("ovsbr0"), ["203.0.113.2/24"]);
        },
    );
}

#[test]
fn an_address_of_a_router_or_of_a_network_at_another_device_is_not_given_to_one_of_ours() {
    in_namespace(
        "an_address_of_a_router_or_of_a_network_at_another_device_is_not_given_to_one_of_ours",
        || {
            host_behind_a_router();
            tool("ip link add vi200 type veth peer name inside200");
            tool("ip addr add 10.20.0.1/24 dev vi200");
            tool("ip link set vi200 up");
            tool("ip link set inside200 up");
            let mut net = Net::new();
            let state = || (["eth0", "ovsbr0", "vi200"].map(addresses), routes());
            let before = state();
            for address in [
                // The router, a neighbour, a half of the network, the host's own address with one.
                "192.168.1.1/32",
                "192.168.1.53/32",
                "192.168.1.129/25",
                "192.168.1.10/25",
                "fd99::1/128",
                "fd99::53/120",
            ] {
                let request = json!({"dev": "ovsbr0", "addresses": [address]});
                assert_eq!(code(net.ask(&request)), ErrorCode::Conflict, "{address}");
                assert_eq!(before, state());
            }
            // Of machines that the caller may not touch neither; of others it is the caller's own affair.
            let theirs = json!({"dev": "vi100", "addresses": ["10.20.0.9/32"]});
            tool("ip link add vi100 type veth peer name inside100");
            tool("ip link set vi100 up");
            let everything = net.world.policy.allow.clone();
            let narrow = Policy::parse("allow: {vmids: {first: 100, last: 100}}\n", "p");
            net.world.policy.allow = narrow.expect("a policy").allow;
            assert_eq!(code(net.ask(&theirs)), ErrorCode::Conflict);
            net.world.policy.allow = everything;
            net.set(&theirs);
            // One address on several devices is how machines get a router; networks around another are no part of it.
            net.set(&json!({"dev": "vi100", "addresses": ["10.20.0.1/32"]}));
            net.set(&json!({"dev": "ovsbr0", "addresses": ["192.168.2.1/24", "192.168.3.1/32", "fd98::1/64"]}));
        },
    );
}

#[test]
fn other_programs_bridges_and_pairs_that_begin_like_ours_are_left_alone() {
    in_namespace(
        "other_programs_bridges_and_pairs_that_begin_like_ours_are_left_alone",
        || {
            tool("ip link add virbr0 type bridge");
            tool("ip addr add 192.168.122.1/24 dev virbr0");
            tool("ip link add vip type veth peer name vip-peer");
            tool("ip link add wg-bridge type bridge");
            let mut net = Net::new();
            let before = tool("ip -j addr");
            for device in ["virbr0", "vip", "vip-peer", "wg-bridge"] {
                let request = json!({"dev": device, "up": true, "addresses": []});
                assert_eq!(code(net.ask(&request)), ErrorCode::Conflict, "{device}");
            }
            assert_eq!(before, tool("ip -j addr"));
            // Whoever names one by hand means it.
            net.world
                .policy
                .allow
                .link_devices
                .push("virbr0".to_owned());
            net.set(&json!({"dev": "virbr0", "addresses": ["192.168.123.1/24"]}));
        },
    );
}

#[test]
fn a_machines_interface_is_found_by_either_of_its_names() {
    in_namespace(
        "a_machines_interface_is_found_by_either_of_its_names",
        || {
            tool("ip link add vi100 type veth peer name inside0");
            tool("ip link add veth101i2 type veth peer name inside1");
            tool("ip link property add dev veth101i2 altname vi101_2");
            let net = Net::new();
            net.set(&json!({"dev": "vi100", "up": true}));
            net.set(&json!({"dev": "vi101_2", "up": true, "addresses": ["10.0.0.1/32"]}));
            assert!(is_up("vi100") && is_up("veth101i2"));
            assert_eq!(addresses("veth101i2"), ["10.0.0.1/32"]);
        },
    );
}

#[test]
fn devices_and_addresses_that_the_policy_does_not_list_are_forbidden() {
    let allow = Policy::default().allow;
    let ask = |params: Value| {
        let action = Action::from_parts("link-set", &params).expect("valid");
        allow.check(&action).map_err(|failure| failure.code)
    };
    for device in ["ovsbr0", "vi100", "vi100_3", "wg0"] {
        assert_eq!(ask(json!({"dev": device, "up": true})), Ok(()), "{device}");
    }
    for device in ["lo", "eth0", "vmbr0", "tap100i0", "ovsbr", "VI100"] {
        let refused = ask(json!({"dev": device, "up": true}));
        assert_eq!(refused, Err(ErrorCode::Forbidden), "{device}");
    }
    for (address, allowed) in [
        ("10.0.0.1/24", true),
        ("fd00::1/64", true),
        ("192.168.0.0/15", false),
        ("203.0.113.1/32", false),
        ("2001:db8::1/64", false),
    ] {
        let asked = ask(json!({"dev": "ovsbr0", "addresses": [address]}));
        assert_eq!(asked.is_ok(), allowed, "{address}");
    }
    let narrow = Policy::parse("allow: {vmids: {first: 200, last: 300}}\n", "p")
        .expect("a policy")
        .allow;
    let other = Action::from_parts("link-set", &json!({"dev": "vi100", "up": false}));
    assert!(narrow.check(&other.expect("valid")).is_err(), "another's");
}

#[test]
fn the_compartments_own_rights_are_enough_for_devices() {
    as_net_compartment("the_compartments_own_rights_are_enough_for_devices", || {
        tool("ip link add ovsbr0 type bridge");
        let handler = compartment_world::bare_handler(net::prepare);
        let request = json!({"dev": "ovsbr0", "up": true, "mtu": 1400, "forward": true, "addresses": ["10.0.0.1/24", "fd00::1/64"]});
        let result = compartment_world::ask_bare(&*handler, "link-set", &request);
        result.unwrap_or_else(|failure| panic!("{}", failure.message));
        assert_eq!(addresses("ovsbr0"), ["10.0.0.1/24", "fd00::1/64"]);
    });
}

#[test]
fn killed_between_an_address_given_and_another_taken_the_same_request_ends_it() {
    let preparation = "ip link add ovsbr0 type bridge && ip link set ovsbr0 up && ip addr add 10.0.0.1/24 dev ovsbr0";
    let request =
        json!({"action": "link-set", "params": {"dev": "ovsbr0", "addresses": ["10.0.1.1/24"]}});
    for step in ["given", "taken"] {
        let world = AgentWorld::new("");
        let (agent, answer) = killed_at(preparation, world, ("net", "net-address", step), &request);
        assert_eq!(answer["code"], "internal", "{answer}");
        let there = |address: &str| in_agents_namespace(&agent, &["ip", "addr"], address);
        assert_eq!(there("10.0.1.1/24"), 1, "never without an address");
        assert_eq!(agent.client().call(&request)["ok"], true);
        assert_eq!((there("10.0.0.1/24"), there("10.0.1.1/24")), (0, 1));
    }
}
