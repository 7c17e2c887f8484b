//! Compiled policies in a real switch: rates, queues, VLANs, sets of networks, routers, translations, packets in pieces,
//! as the switch itself traces them.

mod network_world;

use network_world::document::{GATEWAY, document, into, out_of, prepared};
use serde_json::json;

const NEW: &[&str] = &["trk,new"];

#[test]
fn rates_are_meters_of_sender_receiver_and_noisy_sources() {
    let Some(ground) = prepared("rates_are_meters_of_sender_receiver_and_noisy_sources") else {
        return;
    };
    let meters = ground.switch.ofctl(&["dump-meters", "ovsbr0"]);
    for words in [
        "kbps burst stats",
        "pktps",
        "rate=100000",
        "rate=5000",
        "rate=1000 burst_size=100",
    ] {
        assert!(meters.contains(words), "{words}: {meters}");
    }
    let out = format!(
        "{},tcp,nw_src=10.0.1.100,nw_dst=198.18.0.1,tp_dst=993",
        out_of(0x64)
    );
    let out6 = format!(
        "{},tcp6,ipv6_src=fd77::100,ipv6_dst=2001:db8:5::1,tp_dst=993",
        out_of(0x64)
    );
    for packet in [&out, &out6] {
        ground
            .trace("vi100", packet, NEW)
            .leaves_by(&["uplink0"])
            .with("meter(");
    }
    let other = format!(
        "{},tcp,nw_src=10.0.1.102,nw_dst=198.18.0.1,tp_dst=993",
        out_of(0x66)
    );
    ground
        .trace("vi102", &other, NEW)
        .leaves_by(&["uplink0"])
        .without("meter(");
    let inward = format!(
        "{},tcp,nw_src=198.18.0.1,nw_dst=10.0.1.100,tp_dst=80",
        into(0x64)
    );
    ground
        .trace("uplink0", &inward, NEW)
        .leaves_by(&["vi100"])
        .with("meter(");
    let inward = format!(
        "{},tcp,nw_src=198.18.0.1,nw_dst=10.0.1.101,tp_dst=80",
        into(0x65)
    );
    ground
        .trace("uplink0", &inward, &["trk,est"])
        .leaves_by(&["vi101"])
        .without("meter(");
    let noisy = format!(
        "{},tcp,nw_src=203.0.113.5,nw_dst=10.0.1.101,tp_dst=80",
        into(0x65)
    );
    let noisy6 = format!(
        "{},tcp6,ipv6_src=2001:db8:bad::5,ipv6_dst=fd77::101,tp_dst=80",
        into(0x65)
    );
    for packet in [&noisy, &noisy6] {
        let fate = ground.trace("uplink0", packet, &["trk,est"]);
        fate.leaves_by(&["vi101"]).with("meter(");
    }
    // In a tenant's VLAN as well.
    let tagged = format!(
        "{},dl_vlan=100,tcp,nw_src=203.0.113.5,nw_dst=10.0.1.100,tp_dst=443",
        into(0x67)
    );
    ground
        .trace("uplink0", &tagged, NEW)
        .leaves_by(&["vi103"])
        .with("meter(");
    ground.stop();
}

#[test]
fn services_go_into_their_queues_and_a_tenants_rest_into_its_own() {
    let Some(ground) = prepared("services_go_into_their_queues_and_a_tenants_rest_into_its_own")
    else {
        return;
    };
    let rows = ground.switch.vsctl("--columns=other_config list Queue");
    assert!(
        rows.contains("max-rate=\"500000000\"") && rows.contains("max-rate=\"50000000\""),
        "{rows}"
    );
    for (port, packet, states, queue) in [
        (
            "vi100",
            format!(
                "{},tcp,nw_src=10.0.1.100,nw_dst=198.18.0.1,tp_dst=80",
                out_of(0x64)
            ),
            NEW,
            Some(1),
        ),
        (
            "vi100",
            format!(
                "{},tcp6,ipv6_src=fd77::100,ipv6_dst=2001:db8:5::1,tp_dst=80",
                out_of(0x64)
            ),
            NEW,
            Some(1),
        ),
        (
            "vi100",
            format!(
                "{},tcp,nw_src=10.0.1.100,nw_dst=198.18.0.1,tp_dst=81",
                out_of(0x64)
            ),
            NEW,
            None,
        ),
        (
            "uplink0",
            format!(
                "{},tcp,nw_src=198.18.0.1,nw_dst=10.0.1.100,tp_dst=80",
                into(0x64)
            ),
            NEW,
            Some(5),
        ),
        (
            "uplink0",
            format!(
                "{},tcp,nw_src=198.18.0.1,nw_dst=10.0.1.100,tp_src=80",
                into(0x64)
            ),
            &["trk,est"],
            None,
        ),
        (
            "vi103",
            format!(
                "{},tcp,nw_src=10.0.1.100,nw_dst=198.18.0.1,tp_dst=80",
                out_of(0x67)
            ),
            NEW,
            Some(2),
        ),
        (
            "vi103",
            format!(
                "{},icmp6,icmp_type=128,ipv6_src=fd78::103,ipv6_dst=2001:db8:5::1",
                out_of(0x67)
            ),
            NEW,
            Some(2),
        ),
    ] {
        let fate = ground.trace(port, &packet, states);
        match queue {
            Some(queue) => fate.with(&format!("set_queue:{queue}")),
            None => fate.without("set_queue"),
        };
        assert_eq!(fate.ports.len(), 1, "{}", fate.text);
    }
    ground.stop();
}

#[test]
fn a_tenants_packets_have_its_tag_outside_and_none_inside() {
    let Some(ground) = prepared("a_tenants_packets_have_its_tag_outside_and_none_inside") else {
        return;
    };
    let out = format!(
        "{},tcp,nw_src=10.0.1.100,nw_dst=198.18.0.1,tp_dst=993",
        out_of(0x67)
    );
    ground
        .trace("vi103", &out, NEW)
        .leaves_by(&["uplink0"])
        .with("push_vlan(vid=100")
        .with("zone=12");
    let arp = "dl_src=02:00:00:00:01:67,dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_op=1,arp_spa=10.0.1.100,arp_sha=02:00:00:00:01:67,arp_tpa=10.0.1.1";
    let fate = ground.trace("vi103", arp, &[]);
    fate.leaves_by(&["ovsbr0", "uplink0", "vi104"])
        .with("push_vlan(vid=100");
    // The container's own copy goes out before the tag comes on.
    let (inside, outside) = fate.actions.split_once("push_vlan").expect("a tag");
    assert!(
        !inside.is_empty() && outside.contains(','),
        "{}",
        fate.actions
    );

    let inward = |tag: &str, mac: u8, address: &str| {
        format!(
            "{},{tag}tcp,nw_src=198.18.0.1,nw_dst={address},tp_dst=443",
            into(mac)
        )
    };
    let good = ground.trace("uplink0", &inward("dl_vlan=100,", 0x67, "10.0.1.100"), NEW);
    good.leaves_by(&["vi103"]).with("pop_vlan").with("zone=12");
    // The same hardware address from the wrong network is nobody's.
    for (tag, mac, address) in [
        ("", 0x67, "10.0.1.100"),
        ("dl_vlan=101,", 0x67, "10.0.1.100"),
        ("dl_vlan=100,", 0x64, "10.0.1.100"),
        ("dl_vlan=101,", 0x64, "10.0.1.100"),
    ] {
        ground
            .trace("uplink0", &inward(tag, mac, address), NEW)
            .is_dropped();
        ground
            .trace("uplink0", &inward(tag, mac, address), &["trk,est"])
            .is_dropped();
    }
    let asks = |tag: &str| {
        format!(
            "dl_src={GATEWAY},dl_dst=ff:ff:ff:ff:ff:ff,{tag}arp,arp_op=1,arp_spa=10.0.1.1,arp_sha={GATEWAY},arp_tpa=10.0.1.104"
        )
    };
    ground
        .trace("uplink0", &asks("dl_vlan=100,"), &[])
        .leaves_by(&["ovsbr0", "vi103", "vi104"]);
    ground
        .trace("uplink0", &asks("dl_vlan=101,"), &[])
        .leaves_by(&["ovsbr0"]);
    // The same address in two networks: each has its own.
    let claims = format!(
        "dl_src={GATEWAY},dl_dst=02:00:00:00:01:68,dl_vlan=100,arp,arp_op=2,arp_spa=10.0.1.100,arp_sha={GATEWAY}"
    );
    ground.trace("uplink0", &claims, &[]).is_dropped();
    // A tag inside a tag is no way in, neither for the outer network nor for the inner one.
    for tags in [
        "8100006481000001",
        "8100006481000064",
        "8100000181000064",
        "81000064",
        "88a8006481000064",
    ] {
        let packet = format!("020000000167020000000001{tags}0800{}", "00".repeat(50));
        let from = format!("in_port={}", ground.number("uplink0"));
        let text = ground
            .switch
            .run("ovs-appctl", &["ofproto/trace", "ovsbr0", &from, &packet]);
        assert!(
            !text.contains(&format!("output:{}", ground.number("vi103"))),
            "{text}"
        );
    }
    ground.stop();
}

#[test]
fn services_and_networks_take_their_routers_in_both_families() {
    let Some(ground) = prepared("services_and_networks_take_their_routers_in_both_families") else {
        return;
    };
    let v4 = |proto: &str, to: &str, port: u16| {
        format!(
            "{},{proto},nw_src=10.0.1.100,nw_dst={to},tp_dst={port},nw_ttl=64",
            out_of(0x64)
        )
    };
    let v6 = |proto: &str, to: &str, port: u16| {
        format!(
            "{},{proto}6,ipv6_src=fd77::100,ipv6_dst={to},tp_dst={port},nw_ttl=64",
            out_of(0x64)
        )
    };
    for (proto, port) in [
        ("udp", 53),
        ("tcp", 53),
        ("tcp", 853),
        ("udp", 853),
        ("tcp", 443),
        ("udp", 443),
    ] {
        for packet in [
            v4(proto, "198.18.0.1", port),
            v6(proto, "2001:db8:5::1", port),
        ] {
            for state in ["trk,new", "trk,est"] {
                let fate = ground.trace("vi100", &packet, &[state]);
                fate.leaves_by(&["vr0"])
                    .with("dst=02:00:00:00:0a:01")
                    .with("ttl=63");
            }
        }
    }
    // Networks of a set, at their edges, and beside them.
    for (packet, port) in [
        (v4("tcp", "192.0.2.255", 993), "vr0"),
        (v4("tcp", "198.51.100.127", 993), "vr0"),
        (v4("tcp", "198.51.100.128", 993), "uplink0"),
        (v4("icmp", "192.0.2.1", 0).replace(",tp_dst=0", ""), "vr0"),
        (v6("tcp", "2001:db8:1ff::1", 993), "vr0"),
        (v6("tcp", "2001:db8:200::1", 993), "uplink0"),
        (v4("tcp", "203.0.113.65", 993), "ovsbr0"),
        (v6("tcp", "2001:db8:ff::1", 993), "ovsbr0"),
    ] {
        let fate = ground.trace("vi100", &packet, NEW);
        fate.leaves_by(&[port]);
        match port {
            "vr0" => fate.with("dst=02:00:00:00:0a:01").with("ttl=63"),
            // By the host's own routing, which takes the hop away itself.
            "ovsbr0" => fate
                .with("pkt_mark")
                .with("02:00:00:00:00:fd")
                .without("ttl=63"),
            _ => fate.without("ttl=63"),
        };
    }
    // Another container has no routes.
    let other = format!(
        "{},udp,nw_src=10.0.1.102,nw_dst=192.0.2.1,tp_dst=53",
        out_of(0x66)
    );
    ground.trace("vi102", &other, NEW).leaves_by(&["uplink0"]);
    // What it may not begin takes no other way either.
    let mail = v4("tcp", "192.0.2.1", 25);
    ground.trace("vi100", &mail, NEW).is_dropped();
    // What comes back from the router is looked at like everything from outside.
    let back = |src: &str| {
        format!(
            "dl_src=02:00:00:00:0a:01,dl_dst=02:00:00:00:01:64,udp,nw_src={src},nw_dst=10.0.1.100,tp_src=53,tp_dst=4000"
        )
    };
    ground
        .trace("vr0", &back("198.18.0.1"), &["trk,est,rpl"])
        .leaves_by(&["vi100"]);
    ground.trace("vr0", &back("198.18.0.1"), NEW).is_dropped();
    ground.stop();
}

#[test]
fn a_container_that_may_begin_little_begins_only_that() {
    let Some(ground) = prepared("a_container_that_may_begin_little_begins_only_that") else {
        return;
    };
    let v4 = |proto: &str, to: &str, port: u16| {
        format!(
            "{},{proto},nw_src=10.0.1.101,nw_dst={to},tp_dst={port}",
            out_of(0x65)
        )
    };
    let v6 = |to: &str, port: u16| {
        format!(
            "{},tcp6,ipv6_src=fd77::101,ipv6_dst={to},tp_dst={port}",
            out_of(0x65)
        )
    };
    for (packet, good) in [
        (v4("tcp", "192.0.2.9", 443), true),
        (v4("tcp", "198.51.100.129", 443), true),
        (v6("2001:db8:100::9", 443), true),
        (v4("tcp", "192.0.2.9", 444), false),
        (v4("udp", "192.0.2.9", 443), false),
        (v4("tcp", "198.18.0.1", 443), false),
        (v4("tcp", "203.0.113.70", 443), false),
        (v6("2001:db8:ff::9", 443), false),
    ] {
        let fate = ground.trace("vi101", &packet, NEW);
        fate.leaves_by(if good { &["uplink0"] } else { &[] });
        if good {
            fate.with("ct(commit,zone=10)");
        } else {
            fate.without("commit");
        }
    }
    ground.stop();
}

#[test]
fn a_translated_container_is_seen_by_its_address_and_reached_by_its_ports() {
    let Some(ground) =
        prepared("a_translated_container_is_seen_by_its_address_and_reached_by_its_ports")
    else {
        return;
    };
    let out = format!(
        "{},tcp,nw_src=10.0.1.102,nw_dst=198.18.0.1,tp_dst=993",
        out_of(0x66)
    );
    ground
        .trace("vi102", &out, &["trk,new", "trk,new"])
        .leaves_by(&["uplink0"])
        .with("ct(commit,zone=11,nat(src=203.0.113.200)")
        .with("ct(zone=11,nat)");
    // IPv6 is not translated.
    let out6 = format!(
        "{},tcp6,ipv6_src=fd77::102,ipv6_dst=2001:db8:5::1,tp_dst=993",
        out_of(0x66)
    );
    ground
        .trace("vi102", &out6, NEW)
        .leaves_by(&["uplink0"])
        .with("ct(commit,zone=11)");
    let inward = |port: u16| {
        format!(
            "{},tcp,nw_src=198.18.0.1,nw_dst=203.0.113.200,tp_dst={port}",
            into(0x66)
        )
    };
    ground
        .trace("uplink0", &inward(8080), &["trk,new", "trk,new"])
        .leaves_by(&["vi102"])
        .with("nat(dst=10.0.1.102:80)");
    ground.trace("uplink0", &inward(8081), NEW).is_dropped();
    let direct = format!(
        "{},tcp,nw_src=198.18.0.1,nw_dst=10.0.1.102,tp_dst=80",
        into(0x66)
    );
    ground.trace("uplink0", &direct, NEW).is_dropped();
    // Who asks for the public address is answered by the switch.
    let asks = format!(
        "dl_src={GATEWAY},dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_op=1,arp_spa=203.0.113.1,arp_sha={GATEWAY},arp_tpa=203.0.113.200"
    );
    let fate = ground.trace("uplink0", &asks, &[]);
    fate.leaves_by(&["uplink0"]);
    for words in [
        "arp_op=2",
        "arp_spa=203.0.113.200",
        "arp_tpa=203.0.113.1",
        "arp_sha=02:00:00:00:01:66",
        "eth_dst=02:00:00:00:00:01",
    ] {
        let shown = words
            .replace("arp_op=2", "op=2")
            .replace("arp_spa", "sip")
            .replace("arp_tpa", "tip")
            .replace("arp_sha", "sha")
            .replace("eth_dst", "dst");
        assert!(
            fate.text.contains(words) || fate.text.contains(&shown),
            "{words}: {}",
            fate.text
        );
    }
    ground.stop();
}

#[test]
fn packets_in_pieces_are_looked_at_or_dropped_as_the_policy_says() {
    let Some(ground) = prepared("packets_in_pieces_are_looked_at_or_dropped_as_the_policy_says")
    else {
        return;
    };
    let first = format!(
        "{},udp,nw_src=10.0.1.102,nw_dst=198.18.0.1,nw_frag=first",
        out_of(0x66)
    )
    .replace("nw_frag", "ip_frag");
    let later6 = format!(
        "{},ipv6,ipv6_src=fd77::102,ipv6_dst=2001:db8:5::1,ip_frag=later",
        out_of(0x66)
    );
    ground
        .trace("vi102", &first, &["trk,new", "trk,new"])
        .leaves_by(&["uplink0"])
        .with("ct(");
    let mut strict = document();
    strict["bridges"][0]["fragments"] = json!("drop");
    ground.apply(&strict);
    ground.trace("vi102", &first, NEW).is_dropped();
    ground.trace("vi102", &later6, NEW).is_dropped();
    let whole = format!(
        "{},udp6,ipv6_src=fd77::102,ipv6_dst=2001:db8:5::1,tp_dst=9",
        out_of(0x66)
    );
    ground.trace("vi102", &whole, NEW).leaves_by(&["uplink0"]);
    ground.stop();
}
