//! Settings of the host's network in real network namespaces: what is switched, what a router's advertisement left behind, and
//! what is refused.

mod compartment_world;
mod second_net;

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{Handler, net};
use blockhost_root_agent::policy::Policy;
use compartment_world::{World, in_namespace, tool};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use second_net::SecondNet;
use serde_json::{Value, json};

struct Net {
    world: World,
    handler: Box<dyn Handler>,
}

impl Net {
    fn with_uplinks(uplinks: &[&str]) -> Self {
        let mut world = World::new();
        world.policy.allow.uplinks = uplinks.iter().map(|name| (*name).to_owned()).collect();
        let handler = world.start(net::prepare).expect("a net compartment");
        Self { world, handler }
    }

    /// What was before, or how it was refused.
    fn switch(&self, setting: &str, dev: Option<&str>, on: bool) -> Result<bool, ErrorCode> {
        let mut params = json!({"setting": setting, "on": on});
        if let Some(dev) = dev {
            params["dev"] = dev.into();
        }
        let done = self.world.ask(&*self.handler, "sysctl-set", &params);
        match done {
            Ok(done) => Ok(done.extra["before"] == true),
            Err(failure) => {
                println!("{}", failure.message);
                Err(failure.code)
            }
        }
    }
}

fn setting(key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/sys/net/{key}")).expect("a setting");
    text.trim().to_owned()
}

fn wire(name: &str) {
    tool(&format!(
        "ip link add {name} type veth peer name {name}-far"
    ));
    tool(&format!("ip link set {name} up"));
    tool(&format!("ip link set {name}-far up"));
}

#[test]
fn a_switch_is_switched_says_what_was_before_and_touches_nothing_else() {
    in_namespace(
        "a_switch_is_switched_says_what_was_before_and_touches_nothing_else",
        || {
            wire("eth0");
            wire("eth1");
            let all = || tool("sysctl -a --pattern ^net.ipv[46].conf.*");
            let net = Net::with_uplinks(&["eth0"]);
            for (name, dev, key) in [
                ("ipv4-forwarding", Some("eth0"), "ipv4/conf/eth0/forwarding"),
                ("ipv6-proxy", Some("eth0"), "ipv6/conf/eth0/proxy_ndp"),
            ] {
                let before = all();
                for (on, was) in [(true, false), (true, true), (false, true), (false, false)] {
                    assert_eq!(net.switch(name, dev, on), Ok(was), "{name}");
                    assert_eq!(setting(key), if on { "1" } else { "0" });
                    let now = all();
                    let differ = before.lines().zip(now.lines()).filter(|(a, b)| a != b);
                    assert_eq!(differ.count(), usize::from(on), "{name}");
                }
            }
            assert_eq!(net.switch("ipv6-forwarding", None, true), Ok(false));
            assert_eq!(setting("ipv6/conf/eth1/forwarding"), "1", "of all devices");
            assert_eq!(setting("ipv4/conf/eth1/forwarding"), "0");
            assert_eq!(net.switch("ipv6-forwarding", None, false), Ok(true));
            assert_eq!(setting("ipv6/conf/all/forwarding"), "0");
        },
    );
}

/// A router's advertisement, as it comes from the other end of a wire.
fn advertise(from: &SecondNet, device: &str) {
    let file = std::fs::File::open(format!("/proc/{}/ns/net", from.pid())).expect("a namespace");
    let index = link_index(from, device);
    std::thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("inside");
        let family = AddressFamily::INET6;
        let socket = socket(family, SocketType::RAW, Some(ipproto::ICMPV6)).expect("a socket");
        sockopt::set_ipv6_multicast_hops(&socket, 255).expect("hops");
        // Type, code, checksum (the kernel's), hop limit, flags, lifetime of 1800 s, and two times that are not said.
        let advertisement = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let to = SocketAddrV6::new(everybody, 0, 0, index);
        sendto(&socket, &advertisement, SendFlags::empty(), &to).expect("sent");
    })
    .join()
    .expect("no panic");
}

fn link_index(of: &SecondNet, device: &str) -> u32 {
    let line = of.run(&format!("ip -o link show {device}"));
    let number = line
        .split(':')
        .next()
        .and_then(|text| text.trim().parse().ok());
    number.unwrap_or_else(|| panic!("{line}"))
}

fn way_out() -> String {
    tool("ip -6 route show default")
}

/// A host that has its way out from a router at `device`.
fn advertised(device: &str) -> SecondNet {
    let router = SecondNet::new();
    let pid = router.pid();
    tool(&format!(
        "ip link add {device} type veth peer name far netns {pid}"
    ));
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/accept_ra"), "1").expect("a setting");
    router.run("ip link set far up");
    tool(&format!("ip link set {device} up"));
    let deadline = Instant::now() + Duration::from_secs(60);
    // Addresses of the link are tried out first.
    while !way_out().contains("proto ra") {
        assert!(Instant::now() < deadline, "{}", way_out());
        if router
            .run("ip -6 addr show dev far scope link -tentative")
            .contains("fe80")
        {
            advertise(&router, "far");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    router
}

#[test]
fn an_uplink_keeps_the_way_out_that_its_router_told_and_goes_on_listening() {
    in_namespace(
        "an_uplink_keeps_the_way_out_that_its_router_told_and_goes_on_listening",
        || {
            // What happens without this agent: the kernel forgets the way.
            let router = advertised("eth0");
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("a setting");
            assert_eq!(way_out(), "");
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "0").expect("a setting");
            tool("ip link del eth0");
            drop(router);

            let router = advertised("eth0");
            let net = Net::with_uplinks(&["eth0"]);
            assert_eq!(net.switch("ipv6-forwarding", None, true), Ok(false));
            assert!(way_out().contains("proto ra"), "{}", way_out());
            assert_eq!(setting("ipv6/conf/eth0/accept_ra"), "2");
            // And a later word of the router's is heard.
            tool("ip -6 route flush default");
            let deadline = Instant::now() + Duration::from_secs(60);
            while !way_out().contains("proto ra") {
                assert!(Instant::now() < deadline, "it is not listened to");
                advertise(&router, "far");
                std::thread::sleep(Duration::from_millis(100));
            }
        },
    );
}

#[test]
fn a_way_out_that_would_be_forgotten_stands_against_forwarding() {
    in_namespace(
        "a_way_out_that_would_be_forgotten_stands_against_forwarding",
        || {
            let _router = advertised("lan9");
            wire("eth0");
            let net = Net::with_uplinks(&["eth0"]);
            let asked = net.switch("ipv6-forwarding", None, true);
            assert_eq!(asked, Err(ErrorCode::Conflict));
            assert_eq!(setting("ipv6/conf/all/forwarding"), "0");
            assert_eq!(setting("ipv6/conf/lan9/accept_ra"), "1");
            assert!(way_out().contains("proto ra"), "{}", way_out());
            // Where somebody else listens to routers the kernel forgets nothing.
            std::fs::write("/proc/sys/net/ipv6/conf/lan9/accept_ra", "2").expect("a setting");
            assert_eq!(net.switch("ipv6-forwarding", None, true), Ok(false));
            assert!(way_out().contains("proto ra"), "{}", way_out());
        },
    );
}

#[test]
fn what_announced_addresses_stand_on_is_not_switched_off() {
    in_namespace(
        "what_announced_addresses_stand_on_is_not_switched_off",
        || {
            wire("eth0");
            wire("ovsbr0");
            let net = Net::with_uplinks(&["eth0"]);
            net.switch("ipv6-forwarding", None, true).expect("on");
            let ask = |name: &str, address: &str| {
                let mut params = json!({"address": address, "dev": "eth0"});
                if name == "proxy-set" {
                    params["behind"] = "ovsbr0".into();
                }
                let done = net.world.ask(&*net.handler, name, &params);
                done.map_err(|failure| failure.message).expect(name);
            };
            ask("proxy-set", "203.0.113.7");
            ask("proxy-set", "2001:db8::7");
            assert_eq!(setting("ipv6/conf/eth0/proxy_ndp"), "1", "by itself");
            let switches = [
                ("ipv4-forwarding", Some("eth0")),
                ("ipv6-proxy", Some("eth0")),
                ("ipv6-forwarding", None),
            ];
            for (name, dev) in switches {
                assert_eq!(net.switch(name, dev, false), Err(ErrorCode::Conflict));
                assert_eq!(net.switch(name, dev, true), Ok(true), "{name} stayed");
            }
            ask("proxy-del", "203.0.113.7");
            ask("proxy-del", "2001:db8::7");
            for (name, dev) in switches {
                assert_eq!(net.switch(name, dev, false), Ok(true), "{name}");
            }
        },
    );
}

#[test]
fn only_listed_settings_of_uplinks_are_switched_and_forwarding_ipv6_has_to_be_listed_by_hand() {
    let policy = |text: &str| Policy::parse(text, "p").map(|policy| policy.allow);
    let allowed = |text: &str, params: Value| {
        let action = blockhost_proto::action::Action::from_parts("sysctl-set", &params);
        let lists = policy(text).expect("a policy");
        lists.check(&action.expect("valid")).is_ok()
    };
    let proxy = |dev: &str| json!({"setting": "ipv6-proxy", "dev": dev, "on": true});
    let all = || json!({"setting": "ipv6-forwarding", "on": true});
    for (text, params, good) in [
        ("", proxy("eth0"), false),
        ("allow: {uplinks: [eth0]}\n", proxy("eth0"), true),
        ("allow: {uplinks: [eth0]}\n", proxy("eth1"), false),
        ("allow: {uplinks: [eth0]}\n", all(), false),
        ("allow: {host_settings: [ipv6-forwarding]}\n", all(), true),
        (
            "allow: {uplinks: [eth0], host_settings: [ipv6-forwarding]}\n",
            proxy("eth0"),
            false,
        ),
        (
            "allow: {uplinks: [eth0], host_settings: []}\n",
            proxy("eth0"),
            false,
        ),
    ] {
        assert_eq!(allowed(text, params.clone()), good, "{text}{params}");
    }
    for wrong in [
        "ip_forward",
        "net.ipv6.conf.all.forwarding",
        "'*'",
        "IPV6-PROXY",
    ] {
        let text = format!("allow: {{host_settings: [{wrong}]}}\n");
        assert!(policy(&text).is_err(), "{text}");
    }
}

#[test]
fn another_name_of_a_device_and_a_missing_one_are_refused() {
    in_namespace(
        "another_name_of_a_device_and_a_missing_one_are_refused",
        || {
            wire("veth100i0");
            tool("ip link property add dev veth100i0 altname vi100");
            let net = Net::with_uplinks(&["vi100", "eth7"]);
            for name in ["ipv6-proxy", "ipv4-forwarding"] {
                for dev in ["vi100", "eth7"] {
                    assert_eq!(net.switch(name, Some(dev), true), Err(ErrorCode::NotFound));
                }
            }
        },
    );
}
