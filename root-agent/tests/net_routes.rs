//! Host routes in real network namespaces, compared with what `ip` itself would have done.

mod compartment_world;

use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{Done, Failure, Handler, net};
use compartment_world::{
    World, again, as_net_compartment, code, in_namespace, is_root, said, tool,
};
use serde_json::{Value, json};

const ADDRESS: &str = "fd77:b10c::100/128";

struct Net {
    world: World,
    handler: Box<dyn Handler>,
}

impl Net {
    /// Two devices that are up, `one` and `two`, and `asleep`, which is down.
    fn new() -> Self {
        for (name, peer) in [
            ("one", "one-peer"),
            ("two", "two-peer"),
            ("asleep", "asleep-peer"),
        ] {
            tool(&format!("ip link add {name} type veth peer name {peer}"));
            if name != "asleep" {
                tool(&format!("ip link set {name} up"));
                tool(&format!("ip link set {peer} up"));
            }
        }
        Self::bare()
    }

    fn bare() -> Self {
        let mut world = World::new();
        world.policy.allow.route_devices = ["one", "two", "asleep"].map(str::to_owned).to_vec();
        let handler = world.start(net::prepare).expect("a net compartment");
        Net { world, handler }
    }

    fn route(&self, verb: &str, dev: &str) -> Result<String, ErrorCode> {
        let params = json!({"address": ADDRESS, "dev": dev});
        said(
            self.world
                .ask(&*self.handler, &format!("ip6-route-{verb}"), &params),
        )
    }
}

/// Everything the kernel has to this destination, without what differs by time.
fn routes() -> Value {
    serde_json::from_str(&tool(&format!("ip -j -6 route show {ADDRESS}"))).expect("JSON of ip")
}

fn devices() -> Vec<String> {
    let routes = routes();
    let list = routes.as_array().expect("an array");
    list.iter()
        .map(|route| route["dev"].as_str().expect("a device").to_owned())
        .collect()
}

#[test]
fn a_route_to_a_missing_device_is_not_found() {
    in_namespace("a_route_to_a_missing_device_is_not_found", || {
        let net = Net::new();
        assert_eq!(net.route("add", "nowhere"), Err(ErrorCode::NotFound));
        assert_eq!(net.route("del", "nowhere"), Err(ErrorCode::NotFound));
        assert_eq!(routes(), json!([]));
    });
}

#[test]
fn a_route_out_of_a_device_that_is_down_fails_and_leaves_nothing() {
    in_namespace(
        "a_route_out_of_a_device_that_is_down_fails_and_leaves_nothing",
        || {
            let net = Net::new();
            let params = json!({"address": ADDRESS, "dev": "asleep"});
            let failure = net
                .world
                .ask(&*net.handler, "ip6-route-add", &params)
                .unwrap_err();
            assert_eq!(failure.code, ErrorCode::Failed, "{}", failure.message);
            assert!(
                failure.message.contains("asleep is down"),
                "{}",
                failure.message
            );
            assert_eq!(routes(), json!([]));
        },
    );
}

#[test]
fn a_device_without_ipv6_is_named_as_the_reason() {
    in_namespace("a_device_without_ipv6_is_named_as_the_reason", || {
        let net = Net::new();
        std::fs::write("/proc/sys/net/ipv6/conf/one/disable_ipv6", "1").expect("the switch");
        let params = json!({"address": ADDRESS, "dev": "one"});
        let failure = net
            .world
            .ask(&*net.handler, "ip6-route-add", &params)
            .unwrap_err();
        assert_eq!(failure.code, ErrorCode::Failed);
        assert!(
            failure.message.contains("IPv6 is disabled"),
            "{}",
            failure.message
        );
    });
}

#[test]
fn an_alternative_name_does_not_pass_for_the_device() {
    in_namespace("an_alternative_name_does_not_pass_for_the_device", || {
        let net = Net::new();
        tool("ip link property add dev one altname vmbr0");
        assert_eq!(net.route("add", "vmbr0"), Err(ErrorCode::NotFound));
        assert_eq!(routes(), json!([]));
    });
}

#[test]
fn what_is_added_is_what_ip_replace_would_have_made() {
    in_namespace("what_is_added_is_what_ip_replace_would_have_made", || {
        let net = Net::new();
        net.route("add", "one").expect("a route");
        let ours = routes();
        assert_eq!(ours.as_array().expect("an array").len(), 1);
        tool(&format!("ip -6 route del {ADDRESS} dev one"));
        tool(&format!("ip -6 route replace {ADDRESS} dev one"));
        assert_eq!(ours, routes());
        net.route("add", "one").expect("the same again");
        assert_eq!(ours, routes(), "a second add changes nothing");
        tool(&format!("ip -6 route replace {ADDRESS} dev two"));
        let moved_by_ip = routes();
        tool(&format!("ip -6 route replace {ADDRESS} dev one"));
        net.route("add", "two").expect("moved");
        assert_eq!(moved_by_ip, routes());
        assert_eq!(devices(), ["two"], "one address, one device");
    });
}

#[test]
fn deleting_touches_neither_another_device_nor_another_prefix_nor_anyone_elses_route() {
    in_namespace(
        "deleting_touches_neither_another_device_nor_another_prefix_nor_anyone_elses_route",
        || {
            let net = Net::new();
            net.route("add", "one").expect("a route");
            assert_eq!(net.route("del", "two"), Err(ErrorCode::NotFound));
            assert_eq!(devices(), ["one"]);
            net.route("del", "one").expect("deleted");
            assert_eq!(
                net.route("del", "one"),
                Err(ErrorCode::NotFound),
                "absent is not found"
            );

            tool("ip -6 route add fd77:b10c::/64 dev one");
            tool(&format!("ip -6 route add {ADDRESS} dev one metric 7"));
            tool(&format!(
                "ip -6 route add {ADDRESS} dev one proto static metric 1023"
            ));
            tool(&format!("ip -6 route add {ADDRESS} dev one table 77"));
            let before = tool("ip -j -6 route show table all");
            assert_eq!(net.route("del", "one"), Err(ErrorCode::NotFound));
            assert_eq!(before, tool("ip -j -6 route show table all"));
        },
    );
}

#[test]
fn a_route_through_a_gateway_is_not_ours_to_delete() {
    in_namespace("a_route_through_a_gateway_is_not_ours_to_delete", || {
        let net = Net::new();
        tool("ip -6 address add fd99::1/64 dev one nodad");
        tool(&format!("ip -6 route add {ADDRESS} via fd99::2 dev one"));
        let before = routes();
        assert_eq!(net.route("del", "one"), Err(ErrorCode::NotFound));
        assert_eq!(before, routes());
    });
}

#[test]
fn what_somebody_else_made_or_goes_out_of_anothers_device_is_not_replaced() {
    in_namespace(
        "what_somebody_else_made_or_goes_out_of_anothers_device_is_not_replaced",
        || {
            let net = Net::new();
            tool("ip link add eth0 type veth peer name wire");
            tool("ip link set eth0 up");
            tool("ip -6 address add fd99::1/64 dev one nodad");
            for theirs in [
                "via fd99::2 dev one",
                "via fd99::2 dev one metric 2000",
                "dev one proto static",
                "dev eth0",
            ] {
                tool(&format!("ip -6 route add {ADDRESS} {theirs}"));
                let before = routes();
                for device in ["one", "two"] {
                    assert_eq!(
                        net.route("add", device),
                        Err(ErrorCode::Conflict),
                        "{theirs}"
                    );
                }
                assert_eq!(before, routes(), "{theirs}");
                tool(&format!("ip -6 route del {ADDRESS} {theirs}"));
            }
            for kind in ["blackhole", "unreachable", "prohibit"] {
                tool(&format!("ip -6 route add {kind} {ADDRESS}"));
                assert_eq!(net.route("add", "one"), Err(ErrorCode::Conflict), "{kind}");
                tool(&format!("ip -6 route del {kind} {ADDRESS}"));
                // Around it: what is for no machine goes nowhere.
                tool(&format!("ip -6 route add {kind} fd77:b10c::/64"));
                net.route("add", "one").expect("a machine's own");
                net.route("del", "one").expect("deleted");
                tool(&format!("ip -6 route del {kind} fd77:b10c::/64"));
            }
            // One that comes first takes what it took before.
            tool(&format!("ip -6 route add {ADDRESS} dev eth0 metric 7"));
            net.route("add", "one").expect("beside it");
        },
    );
}

#[test]
fn a_router_of_the_hosts_own_routes_is_nobodys_machine() {
    in_namespace(
        "a_router_of_the_hosts_own_routes_is_nobodys_machine",
        || {
            let net = Net::new();
            tool("ip -6 addr add 2001:db8::2/64 dev one nodad");
            tool("ip -6 route add default via 2001:db8::1 dev one");
            tool("ip -6 route add 2001:db8:9::/48 via 2001:db8::9 dev one table 7");
            let add = |address: &str, dev: &str| {
                let params = json!({"address": format!("{address}/128"), "dev": dev});
                let result = net.world.ask(&*net.handler, "ip6-route-add", &params);
                result.map(drop).map_err(|failure| {
                    println!("{}", failure.message);
                    failure.code
                })
            };
            let before = tool("ip -6 route show table all");
            for router in ["2001:db8::1", "2001:db8::9"] {
                assert_eq!(add(router, "two"), Err(ErrorCode::Conflict), "{router}");
            }
            assert_eq!(tool("ip -6 route show table all"), before);
            // Where it is already, and machines in the network around it.
            add("2001:db8::1", "one").expect("its own device");
            add("2001:db8::100", "two").expect("a machine");
            // What leads through a machine was made by us and counts for nothing.
            tool("ip -6 route add 2001:db8:a::/48 via 2001:db8::100 dev two proto 177");
            add("2001:db8::100", "one").expect("the machine moves");
        },
    );
}

#[test]
fn the_compartments_own_rights_are_enough_and_nothing_less_is() {
    as_net_compartment(
        "the_compartments_own_rights_are_enough_and_nothing_less_is",
        || {
            if is_root() {
                panic!("meant to run as another user");
            }
            tool("ip link add one type veth peer name one-peer");
            tool("ip link set one up");
            let handler = net_handler();
            handler("add", "one").expect("a route");
            assert_eq!(devices(), ["one"]);
            handler("del", "one").expect("deleted");
        },
    );
}

/// The handler without a world: another user cannot make one in /run.
fn net_handler() -> impl Fn(&str, &str) -> Result<Done, Failure> {
    use blockhost_proto::{action::Action, layout::Layout};
    use blockhost_root_agent::compartment::{Backend, Identities, Identity, JobCtx, StartInfo};
    use blockhost_root_agent::policy::Policy;
    let (layout, policy) = (Layout::new("/"), Policy::default());
    let id = Identity {
        uid: 65534,
        gid: 65534,
    };
    let identities = Identities {
        agent: id,
        blockhost: id,
        vm: id,
        image: id,
    };
    let start = StartInfo {
        layout: &layout,
        policy: &policy,
        identities,
        backend: Backend::Embedded,
    };
    let handler = net::prepare(&start).expect("a net compartment");
    move |verb, dev| {
        let action = Action::from_parts(
            &format!("ip6-route-{verb}"),
            &json!({"address": ADDRESS, "dev": dev}),
        )
        .expect("valid");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
        let ctx = JobCtx {
            deadline,
            allow: &policy.allow,
            limits: &policy.limits,
            layout: &layout,
            caller_uid: 0,
        };
        handler.run(&action, &ctx)
    }
}

#[test]
fn without_the_capability_the_kernel_refuses_and_the_answer_says_why() {
    let wrapper = [
        "unshare",
        "--net",
        "--",
        "setpriv",
        "--inh-caps=-all",
        "--bounding-set=-all",
        "--",
    ];
    again(
        "without_the_capability_the_kernel_refuses_and_the_answer_says_why",
        &wrapper,
        || {
            let net = net_handler();
            assert_eq!(
                code(net("add", "one")),
                ErrorCode::NotFound,
                "no such device here, and looking needs no right"
            );
            let failure = net("add", "lo").unwrap_err();
            assert!(
                failure.message.contains("CAP_NET_ADMIN"),
                "{}",
                failure.message
            );
            assert_eq!(code(Err(failure)), ErrorCode::Failed);
        },
    );
}
