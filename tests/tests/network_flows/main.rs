//! Compiled policies in a real switch, set through a real root agent: accepted whole, and what passes and what does not,
//! as the switch itself traces it.

#[path = "../network_world/mod.rs"]
mod network_world;
mod security;

use blockhost_engine::network::flows::{Policy, clear, compile};
use network_world::document::{GATEWAY, between, document, into, prepared};
use serde_json::{Value, json};

#[test]
fn a_compiled_policy_is_accepted_whole_and_set_again_changes_nothing() {
    let Some(ground) =
        prepared("a_compiled_policy_is_accepted_whole_and_set_again_changes_nothing")
    else {
        return;
    };
    let there = ground.switch.flows("ovsbr0");
    assert!(there.len() > 200, "{} flows", there.len());
    for (action, reply) in ground.apply(&document()) {
        if let blockhost_proto::action::Action::OvsSetFlows(set) = action {
            for key in ["added", "changed", "removed"] {
                assert_eq!(
                    reply.extra[key], 0,
                    "{} is not recognised: {}",
                    set.owner, reply.output
                );
            }
        }
    }
    assert_eq!(there, ground.switch.flows("ovsbr0"));

    // One rule less: only that container's flows change, and only by that rule.
    let mut less = document();
    less["bridges"][0]["containers"][0]["in"]["accept"]
        .as_array_mut()
        .expect("rules")
        .pop();
    for (action, reply) in ground.apply(&less) {
        if let blockhost_proto::action::Action::OvsSetFlows(set) = action {
            let expected = if set.owner.as_str() == "net.ct.100" {
                2
            } else {
                0
            };
            assert_eq!(reply.extra["removed"], expected, "{}", set.owner);
            assert_eq!(reply.extra["added"], 0, "{}", set.owner);
        }
    }

    // The documentation's own example, with a bridge's worth of other ports.
    let mut without = document();
    without["bridges"][0]["containers"]
        .as_array_mut()
        .expect("containers")
        .truncate(1);
    without["bridges"][0]["limits"] = json!([]);
    ground.apply(&without);
    let listed: Value =
        serde_json::from_str(&ground.must("ovs-list", json!({"bridge": "ovsbr0"})).output)
            .expect("JSON");
    let bridge = &listed["bridges"][0];
    let owners: Vec<&str> = bridge["owners"]
        .as_array()
        .expect("owners")
        .iter()
        .filter_map(|o| o["owner"].as_str())
        .collect();
    assert!(
        owners.contains(&"net.ct.100") && !owners.contains(&"net.ct.102"),
        "{owners:?}"
    );
    assert_eq!(
        bridge["meters"].as_array().expect("meters").len(),
        2,
        "the limit's meter is gone"
    );

    let policy = Policy::read(&without, "ovsflows").expect("good");
    let name = &compile(&policy).expect("compiled")[0].bridge;
    for action in clear(name, &ground.observed()).expect("a plan") {
        ground
            .call(&action)
            .unwrap_or_else(|error| panic!("{}: {error}", action.params()));
    }
    assert_eq!(
        ground.switch.flows("ovsbr0"),
        Vec::<String>::new(),
        "a secure bridge is left with nothing"
    );
    ground.stop();
}

#[test]
fn from_outside_only_what_is_accepted_or_known_gets_in() {
    let Some(ground) = prepared("from_outside_only_what_is_accepted_or_known_gets_in") else {
        return;
    };
    let v4 = |src: &str, port: u16| {
        format!(
            "{},tcp,nw_src={src},nw_dst=10.0.1.100,tp_dst={port}",
            into(0x64)
        )
    };
    let v6 = |src: &str, port: u16| {
        format!(
            "{},tcp6,ipv6_src={src},ipv6_dst=fd77::100,tp_dst={port}",
            into(0x64)
        )
    };
    let stranger = ["198.18.0.1", "2001:db8:5::1"];
    let office = ["203.0.113.70", "2001:db8:ff::7"];
    let packets = |from: [&str; 2], port: u16| [v4(from[0], port), v6(from[1], port)];
    for (from, port, good) in [
        (stranger, 80, true),
        (stranger, 8000, true),
        (stranger, 8099, true),
        (stranger, 8100, false),
        (stranger, 7999, false),
        (stranger, 22, false),
        (office, 22, true),
        (office, 23, false),
    ] {
        for packet in packets(from, port) {
            let fate = ground.trace("uplink0", &packet, &["trk,new"]);
            fate.leaves_by(if good { &["vi100"] } else { &[] });
            if good {
                fate.with("ct(commit,zone=10)");
            }
        }
    }
    for packet in packets(stranger, 22) {
        ground
            .trace("uplink0", &packet, &["trk,est"])
            .leaves_by(&["vi100"]);
        ground
            .trace("uplink0", &packet, &["trk,est,rpl"])
            .leaves_by(&["vi100"]);
        ground
            .trace("uplink0", &packet, &["trk,rel,new"])
            .leaves_by(&["vi100"]);
        ground.trace("uplink0", &packet, &["trk,inv"]).is_dropped();
    }
    // Dropped whatever is accepted; the host's own packets need a rule, too.
    ground
        .trace("uplink0", &v4("198.51.100.9", 80), &["trk,new"])
        .is_dropped();
    let host = v4("10.0.1.1", 22).replace(GATEWAY, "02:00:00:00:00:fe");
    ground.trace("ovsbr0", &host, &["trk,new"]).is_dropped();
    for (packet, good) in [
        (
            format!(
                "{},icmp,nw_src=198.18.0.1,nw_dst=10.0.1.100,icmp_type=8",
                into(0x64)
            ),
            true,
        ),
        (
            format!(
                "{},icmp6,icmp_type=128,ipv6_src=2001:db8:5::1,ipv6_dst=fd77::100",
                into(0x64)
            ),
            true,
        ),
        (
            format!(
                "{},icmp,nw_src=198.18.0.1,nw_dst=10.0.1.101,icmp_type=8",
                into(0x65)
            ),
            false,
        ),
        (
            format!(
                "{},udp,nw_src=198.18.0.1,nw_dst=10.0.1.100,tp_dst=80",
                into(0x64)
            ),
            false,
        ),
    ] {
        ground
            .trace("uplink0", &packet, &["trk,new"])
            .leaves_by(if good { &["vi100"] } else { &[] });
    }
    // In a container's name from outside.
    let pretends = v4("198.18.0.1", 80).replace(GATEWAY, "02:00:00:00:01:65");
    ground
        .trace("uplink0", &pretends, &["trk,new"])
        .is_dropped();
    let claims = |to: &str| {
        format!("dl_src={GATEWAY},dl_dst={to},arp,arp_op=2,arp_spa=10.0.1.101,arp_sha={GATEWAY}")
    };
    ground
        .trace("uplink0", &claims("02:00:00:00:01:64"), &[])
        .is_dropped();
    let claims6 = format!(
        "{},icmp6,icmp_type=136,nw_ttl=255,ipv6_src=fe80::1,ipv6_dst=fd77::100,nd_target=fd77::101,nd_tll={GATEWAY}",
        into(0x64)
    );
    ground.trace("uplink0", &claims6, &[]).is_dropped();
    // ARP and ND of others, and routers' advertisements.
    let asks = format!(
        "dl_src={GATEWAY},dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_op=1,arp_spa=10.0.1.1,arp_sha={GATEWAY},arp_tpa=10.0.1.100"
    );
    ground
        .trace("uplink0", &asks, &[])
        .leaves_by(&["ovsbr0", "vi100", "vi101", "vi102", "vr0"]);
    let advert = format!(
        "dl_src={GATEWAY},dl_dst=33:33:00:00:00:01,icmp6,icmp_type=134,nw_ttl=255,ipv6_src=fe80::1,ipv6_dst=ff02::1"
    );
    ground
        .trace("uplink0", &advert, &[])
        .leaves_by(&["ovsbr0", "vi100", "vi101", "vi102", "vr0"]);
    // Other broadcasts stay outside; the host and the world reach each other.
    let shouts = format!(
        "dl_src={GATEWAY},dl_dst=ff:ff:ff:ff:ff:ff,udp,nw_src=10.0.1.1,nw_dst=255.255.255.255,tp_dst=9"
    );
    ground
        .trace("uplink0", &shouts, &["trk,new"])
        .leaves_by(&["ovsbr0"]);
    let to_host = format!(
        "dl_src={GATEWAY},dl_dst=02:00:00:00:00:fe,tcp,nw_src=198.18.0.1,nw_dst=10.0.1.254,tp_dst=22"
    );
    ground
        .trace("uplink0", &to_host, &["trk,new"])
        .leaves_by(&["ovsbr0"])
        .without("ct(");
    let from_host = format!(
        "dl_src=02:00:00:00:00:fe,dl_dst={GATEWAY},tcp,nw_src=10.0.1.254,nw_dst=198.18.0.1,tp_dst=22"
    );
    ground
        .trace("ovsbr0", &from_host, &[])
        .leaves_by(&["uplink0"])
        .without("ct(");
    ground.stop();
}

#[test]
fn tenants_do_not_reach_each_other_by_any_address() {
    let Some(ground) = prepared("tenants_do_not_reach_each_other_by_any_address") else {
        return;
    };
    let new = &["trk,new"][..];
    let ip = |from: u8, to: u8, src: &str, dst: &str| {
        format!(
            "{},tcp,nw_src={src},nw_dst={dst},tp_dst=993",
            between(from, to)
        )
    };
    let ip6 = |from: u8, to: u8, src: &str, dst: &str| {
        format!(
            "{},tcp6,ipv6_src={src},ipv6_dst={dst},tp_dst=993",
            between(from, to)
        )
    };
    // Within the tenant everything, also where nothing may go outside, and without the tenant's translation.
    ground
        .trace("vi100", &ip(0x64, 0x65, "10.0.1.100", "10.0.1.101"), new)
        .leaves_by(&["vi101"]);
    ground
        .trace("vi101", &ip6(0x65, 0x64, "fd77::101", "fd77::100"), new)
        .leaves_by(&["vi100"]);
    // Not to another, new or said to be known.
    for state in ["trk,new", "trk,est", "trk,rel"] {
        ground
            .trace(
                "vi100",
                &ip(0x64, 0x66, "10.0.1.100", "10.0.1.102"),
                &[state],
            )
            .is_dropped();
        ground
            .trace(
                "vi102",
                &ip6(0x66, 0x64, "fd77::102", "fd77::100"),
                &[state],
            )
            .is_dropped();
        ground
            .trace(
                "vi100",
                &ip(0x64, 0x67, "10.0.1.100", "10.0.1.104"),
                &[state],
            )
            .is_dropped();
        ground
            .trace(
                "vi103",
                &ip(0x67, 0x64, "10.0.1.100", "10.0.1.101"),
                &[state],
            )
            .is_dropped();
    }
    let arp = format!(
        "{},arp,arp_op=1,arp_spa=10.0.1.100,arp_sha=02:00:00:00:01:64,arp_tpa=10.0.1.102",
        between(0x64, 0x66)
    );
    ground.trace("vi100", &arp, &[]).is_dropped();
    // What is for one container does not come to it around its rules and its rate, with what goes to all: new or known.
    for state in ["trk,new", "trk,est"] {
        for group in [
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "33:33:00:00:00:01",
        ] {
            for packet in [
                ip(0x64, 0x65, "10.0.1.100", "10.0.1.101"),
                ip6(0x64, 0x65, "fd77::100", "fd77::101"),
                ip6(0x64, 0x65, "fd77::100", "fe80::ff:fe00:165"),
            ] {
                let packet = packet.replace("dl_dst=02:00:00:00:01:65", &format!("dl_dst={group}"));
                for packet in [packet.replace(",tcp", ",udp"), packet] {
                    ground.trace("vi100", &packet, &[state]).is_dropped();
                }
            }
        }
    }
    let shouts = "dl_src=02:00:00:00:01:64,dl_dst=ff:ff:ff:ff:ff:ff,udp,nw_src=10.0.1.100,nw_dst=10.0.1.255,tp_dst=9";
    ground
        .trace("vi100", shouts, new)
        .leaves_by(&["ovsbr0", "uplink0", "vi101", "vr0"]);
    let calls = "dl_src=02:00:00:00:01:64,dl_dst=33:33:00:00:00:fb,udp6,ipv6_src=fd77::100,ipv6_dst=ff02::fb,tp_dst=5353";
    ground
        .trace("vi100", calls, new)
        .leaves_by(&["ovsbr0", "uplink0", "vi101", "vr0"]);
    // A tenant whose containers need rules among themselves, too.
    for (packet, good) in [
        (ip(0x68, 0x67, "10.0.1.104", "10.0.1.100"), false),
        (
            ip(0x68, 0x67, "10.0.1.104", "10.0.1.100").replace("993", "443"),
            true,
        ),
        (
            ip6(0x68, 0x67, "fd78::104", "fd78::103").replace("993", "443"),
            true,
        ),
        (ip6(0x68, 0x67, "fd78::104", "fd78::103"), false),
    ] {
        ground
            .trace("vi104", &packet, new)
            .leaves_by(if good { &["vi103"] } else { &[] });
    }
    let quiet = "dl_src=02:00:00:00:01:68,dl_dst=ff:ff:ff:ff:ff:ff,udp,nw_src=10.0.1.104,nw_dst=10.0.1.255,tp_dst=9";
    ground
        .trace("vi104", quiet, new)
        .leaves_by(&["ovsbr0", "uplink0"])
        .with("push_vlan(vid=100");
    // An unknown destination goes outside and nowhere else.
    let unknown = format!(
        "{},tcp,nw_src=10.0.1.100,nw_dst=10.0.1.77,tp_dst=993",
        between(0x64, 0x99)
    );
    ground.trace("vi100", &unknown, new).leaves_by(&["uplink0"]);
    ground.stop();
}
