//! Port security: what a container may send, and what nobody may send in its name.

use super::network_world::document::{GATEWAY, between, into, out_of, prepared};

/// What routers tell one another, each from the container's own address.
fn routers_words() -> Vec<String> {
    let v4 =
        |kind: &str, to: &str, rest: &str| format!("{kind},nw_src=10.0.1.100,nw_dst={to}{rest}");
    let v6 =
        |kind: &str, to: &str, rest: &str| format!("{kind},ipv6_src=fd77::100,ipv6_dst={to}{rest}");
    let mut words = vec![
        v4("icmp", "10.0.1.101", ",icmp_type=5,icmp_code=1"),
        v4("icmp", "224.0.0.1", ",icmp_type=9"),
    ];
    for protocol in [88, 89, 103, 112] {
        words.push(v4(&format!("ip,nw_proto={protocol}"), "224.0.0.18", ""));
        words.push(v4(&format!("ip,nw_proto={protocol}"), "10.0.1.1", ""));
        words.push(v6(&format!("ipv6,nw_proto={protocol}"), "ff02::12", ""));
    }
    for port in [520, 521, 646, 698] {
        words.push(v4("udp", "10.0.1.1", &format!(",udp_dst={port}")));
        words.push(v6("udp6", "fd77::1", &format!(",udp_dst={port}")));
    }
    for port in [1985, 2029, 3222, 6696] {
        words.push(v4("udp", "224.0.0.102", &format!(",udp_dst={port}")));
        words.push(v4("udp", "255.255.255.255", &format!(",udp_dst={port}")));
        words.push(v6("udp6", "ff02::66", &format!(",udp_dst={port}")));
    }
    words
}

#[test]
fn a_container_may_send_only_what_is_its_own() {
    let Some(ground) = prepared("security::a_container_may_send_only_what_is_its_own") else {
        return;
    };
    let new = &["trk,new"][..];
    let own = out_of(0x64);
    let v4 = |src: &str| format!("{own},tcp,nw_src={src},nw_dst=198.18.0.1,tp_dst=993");
    let v6 = |src: &str| format!("{own},tcp6,ipv6_src={src},ipv6_dst=2001:db8:5::1,tp_dst=993");
    ground
        .trace("vi100", &v4("10.0.1.100"), new)
        .leaves_by(&["uplink0"])
        .with("ct(commit,zone=10)");
    ground
        .trace("vi100", &v6("fd77::100"), new)
        .leaves_by(&["uplink0"])
        .with("ct(commit,zone=10)");
    for (port, packet) in [
        ("vi100", v4("10.0.1.101")),
        ("vi100", v4("0.0.0.0")),
        ("vi100", v6("fd77::101")),
        ("vi100", v6("fe80::1")),
        ("vi100", v6("::")),
        ("vi101", v4("10.0.1.100")),
        ("vi100", v4("10.0.1.100").replace("01:64", "01:65")),
        ("vi100", format!("{},dl_vlan=100", v4("10.0.1.100"))),
        ("vi103", format!("{},dl_vlan=100", v4("10.0.1.100").replace("01:64", "01:67"))),
        ("vi100", format!("{own},dl_type=0x88cc")),
        ("vi100", format!("{own},dl_type=0x8847")),
        ("vi100", "dl_src=02:00:00:00:01:64,dl_dst=01:80:c2:00:00:00,dl_type=0x1234".to_owned()),
        ("vi100", "dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:01:65,arp,arp_op=2,arp_spa=10.0.1.1,arp_sha=02:00:00:00:00:01".to_owned()),
    ] {
        ground.trace(port, &packet, new).is_dropped();
    }
    // Its own link-local address, which nobody told the policy.
    ground
        .trace("vi100", &v6("fe80::ff:fe00:164"), new)
        .leaves_by(&["uplink0"]);

    let arp = |spa: &str, sha: &str, op: u8, tpa: &str| {
        format!(
            "dl_src=02:00:00:00:01:64,dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_op={op},arp_spa={spa},arp_sha={sha},arp_tpa={tpa}"
        )
    };
    let mac = "02:00:00:00:01:64";
    // Its tenant and those outside hear it, other tenants do not.
    let heard = ["ovsbr0", "uplink0", "vi101", "vr0"];
    ground
        .trace("vi100", &arp("10.0.1.100", mac, 1, "10.0.1.1"), &[])
        .leaves_by(&heard);
    ground
        .trace("vi100", &arp("0.0.0.0", mac, 1, "10.0.1.100"), &[])
        .leaves_by(&heard);
    ground
        .trace("vi100", &arp("0.0.0.0", mac, 1, "10.0.1.1"), &[])
        .is_dropped();
    ground
        .trace("vi100", &arp("10.0.1.1", mac, 2, "10.0.1.101"), &[])
        .is_dropped();
    ground
        .trace(
            "vi100",
            &arp("10.0.1.100", "02:00:00:00:01:65", 2, "10.0.1.101"),
            &[],
        )
        .is_dropped();

    let nd = |kind: u8, src: &str, target: &str, option: &str| {
        let field = if kind == 135 { "nd_sll" } else { "nd_tll" };
        format!(
            "dl_src={mac},dl_dst=33:33:ff:00:00:01,icmp6,icmp_type={kind},nw_ttl=255,ipv6_src={src},ipv6_dst=ff02::1:ff00:1,nd_target={target},{field}={option}"
        )
    };
    ground
        .trace("vi100", &nd(135, "fd77::100", "fd77::1", mac), &[])
        .leaves_by(&heard);
    ground
        .trace(
            "vi100",
            &nd(135, "::", "fd77::100", "00:00:00:00:00:00"),
            &[],
        )
        .leaves_by(&heard);
    ground
        .trace("vi100", &nd(136, "fd77::100", "fd77::100", mac), &[])
        .leaves_by(&heard);
    ground
        .trace(
            "vi100",
            &nd(136, "fe80::ff:fe00:164", "fd77::100", mac),
            &[],
        )
        .leaves_by(&heard);
    for spoofed in [
        nd(135, "fd77::101", "fd77::1", mac),
        nd(135, "fd77::100", "fd77::1", "02:00:00:00:01:65"),
        nd(135, "::", "fd77::1", "00:00:00:00:00:00"),
        nd(136, "fd77::100", "fd77::1", mac),
        nd(136, "fd77::1", "fd77::1", mac),
        nd(136, "fd77::100", "fd77::100", "02:00:00:00:01:65"),
        format!(
            "dl_src={mac},dl_dst=33:33:00:00:00:01,icmp6,icmp_type=134,ipv6_src=fe80::ff:fe00:164,ipv6_dst=ff02::1"
        ),
        format!(
            "dl_src={mac},dl_dst=02:00:00:00:01:65,icmp6,icmp_type=137,ipv6_src=fe80::ff:fe00:164,ipv6_dst=fd77::101"
        ),
    ] {
        ground.trace("vi100", &spoofed, new).is_dropped();
    }
    let routers = routers_words();
    assert!(routers.len() > 20);
    for word in &routers {
        let packet = format!("{own},{word}");
        ground.trace("vi100", &packet, new).is_dropped();
    }
    // A client may have the same port.
    let answer = format!("{own},udp,nw_src=10.0.1.100,nw_dst=198.18.0.1,udp_src=53,udp_dst=1985");
    ground
        .trace("vi100", &answer, new)
        .leaves_by(&["uplink0"])
        .with("ct(commit,zone=10)");
    // Who asks for routers asks those outside.
    let asks = format!(
        "dl_src={mac},dl_dst=33:33:00:00:00:02,icmp6,icmp_type=133,ipv6_src=fe80::ff:fe00:164,ipv6_dst=ff02::2"
    );
    ground
        .trace("vi100", &asks, &[])
        .leaves_by(&["uplink0", "ovsbr0"]);
    ground.stop();
}

#[test]
fn addresses_are_asked_for_outside_and_answered_by_nobody_inside() {
    let Some(ground) =
        prepared("security::addresses_are_asked_for_outside_and_answered_by_nobody_inside")
    else {
        return;
    };
    let asks = |mac: u8| {
        format!(
            "dl_src=02:00:00:00:01:{mac:02x},dl_dst=ff:ff:ff:ff:ff:ff,udp,nw_src=0.0.0.0,nw_dst=255.255.255.255,udp_src=68,udp_dst=67"
        )
    };
    let asks6 = "dl_src=02:00:00:00:01:64,dl_dst=33:33:00:01:00:02,udp6,ipv6_src=fe80::ff:fe00:164,ipv6_dst=ff02::1:2,udp_src=546,udp_dst=547";
    ground
        .trace("vi100", &asks(0x64), &[])
        .leaves_by(&["uplink0", "ovsbr0"]);
    ground
        .trace("vi100", asks6, &[])
        .leaves_by(&["uplink0", "ovsbr0"]);
    // Nobody said that this one uses DHCP.
    ground.trace("vi101", &asks(0x65), &[]).is_dropped();
    let answers = |port: &str, to: &str| {
        let packet = format!(
            "dl_src={GATEWAY},dl_dst={to},udp,nw_src=10.0.1.1,nw_dst=10.0.1.100,udp_src=67,udp_dst=68"
        );
        ground.trace(port, &packet, &["trk,new"])
    };
    answers("uplink0", "02:00:00:00:01:64").leaves_by(&["vi100"]);
    answers("uplink0", "ff:ff:ff:ff:ff:ff")
        .leaves_by(&["ovsbr0", "vi100", "vi101", "vi102", "vr0"]);
    answers("uplink0", "02:00:00:00:01:65").is_dropped();
    let answer6 = format!(
        "{},udp6,ipv6_src=fe80::1,ipv6_dst=fe80::ff:fe00:164,udp_src=547,udp_dst=546",
        into(0x64)
    );
    ground
        .trace("uplink0", &answer6, &["trk,new"])
        .leaves_by(&["vi100"]);
    // A container that plays the server.
    let plays = "dl_src=02:00:00:00:01:64,dl_dst=02:00:00:00:01:65,udp,nw_src=10.0.1.100,nw_dst=10.0.1.101,udp_src=67,udp_dst=68";
    ground.trace("vi100", plays, &["trk,new"]).is_dropped();
    let plays6 = "dl_src=02:00:00:00:01:64,dl_dst=02:00:00:00:01:65,udp6,ipv6_src=fd77::100,ipv6_dst=fd77::101,udp_src=547,udp_dst=546";
    ground.trace("vi100", plays6, &["trk,new"]).is_dropped();
    ground.stop();
}

#[test]
fn neighbour_discovery_stays_on_the_link_and_carries_nothing_around_the_rules() {
    let Some(ground) = prepared(
        "security::neighbour_discovery_stays_on_the_link_and_carries_nothing_around_the_rules",
    ) else {
        return;
    };
    let mac = "02:00:00:00:01:64";
    let speaks = |kind: u8, ttl: u8, to: &str, dst: &str| {
        let nd = match kind {
            135 => format!(",nd_target=fd77::1,nd_sll={mac}"),
            136 => format!(",nd_target=fd77::100,nd_tll={mac}"),
            _ => String::new(),
        };
        format!(
            "dl_src={mac},dl_dst={to},icmp6,icmp_type={kind},nw_ttl={ttl},ipv6_src=fd77::100,ipv6_dst={dst}{nd}"
        )
    };
    let group = "33:33:00:00:00:01";
    let heard = &["ovsbr0", "uplink0", "vi101", "vr0"][..];
    let outside = &["ovsbr0", "uplink0"][..];
    let mut good = Vec::new();
    for kind in [135, 136] {
        good.push((speaks(kind, 255, group, "ff02::1"), heard));
        let neighbours = ["fe80::1", "fd77::1", "2001:db8::1"];
        good.extend(neighbours.map(|dst| (speaks(kind, 255, GATEWAY, dst), &["uplink0"][..])));
    }
    good.push((speaks(133, 255, group, "ff02::2"), outside));
    good.extend([131, 132, 143].map(|kind| (speaks(kind, 1, group, "ff02::16"), outside)));
    good.push((speaks(131, 1, group, "ff05::77"), outside));
    for (packet, ports) in good {
        ground.trace("vi100", &packet, &[]).leaves_by(ports);
    }

    let mut bad = Vec::new();
    for kind in [135, 136] {
        // What a router would pass on.
        bad.push(speaks(kind, 64, GATEWAY, "2001:db8:5::1"));
        bad.push(speaks(kind, 254, "02:00:00:00:01:65", "fd77::101"));
        // To groups of more than the link, and to one as if it were many or many as if they were one.
        bad.extend(["ff05::1", "ff0e::1", "ff01::1"].map(|dst| speaks(kind, 255, group, dst)));
        bad.push(speaks(kind, 255, GATEWAY, "ff0e::1"));
        bad.push(speaks(kind, 255, GATEWAY, "ff02::1"));
        bad.push(speaks(kind, 255, group, "2001:db8:5::1"));
    }
    for kind in [133, 131, 132, 143] {
        bad.push(speaks(kind, 255, GATEWAY, "2001:db8:5::1"));
        bad.push(speaks(kind, 255, "02:00:00:00:01:65", "fd77::101"));
        bad.push(speaks(kind, 255, group, "2001:db8:5::1"));
        bad.push(speaks(kind, 255, GATEWAY, "ff02::2"));
    }
    for kind in [133, 143] {
        let own = speaks(kind, 255, GATEWAY, "2001:db8:5::1");
        bad.push(own.replace("ipv6_src=fd77::100", "ipv6_src=::"));
    }
    bad.retain(|packet| {
        let fate = ground.trace("vi100", packet, &["trk,new"]);
        !fate.ports.is_empty()
    });
    assert_eq!(bad, Vec::<String>::new(), "they leave");

    // From outside: by those of the link only.
    let comes = |kind: u8, ttl: u8| {
        let nd = match kind {
            135 => format!(",nd_target=fd77::100,nd_sll={GATEWAY}"),
            136 => format!(",nd_target=fd77::1,nd_tll={GATEWAY}"),
            _ => String::new(),
        };
        format!(
            "{},icmp6,icmp_type={kind},nw_ttl={ttl},ipv6_src=fe80::1,ipv6_dst=fd77::100{nd}",
            into(0x64)
        )
    };
    for (kind, ttl) in [(135, 255), (136, 255), (134, 255), (130, 1)] {
        let packet = comes(kind, ttl);
        ground.trace("uplink0", &packet, &[]).leaves_by(&["vi100"]);
        for far in [2, 64, 254] {
            let packet = comes(kind, far);
            ground.trace("uplink0", &packet, &["trk,new"]).is_dropped();
        }
    }
    ground.stop();
}

#[test]
fn what_goes_around_the_rules_counts_against_the_senders_rate() {
    let Some(ground) =
        prepared("security::what_goes_around_the_rules_counts_against_the_senders_rate")
    else {
        return;
    };
    let packets = |n: u8| {
        let mac = format!("02:00:00:00:01:{n:02x}");
        let from = format!("dl_src={mac},dl_dst=33:33:00:00:00:01");
        let nd = format!("nw_ttl=255,ipv6_src=fd77::{n},ipv6_dst=ff02::1");
        [
            format!(
                "dl_src={mac},dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_op=1,arp_spa=10.0.1.{n},arp_sha={mac},arp_tpa=10.0.1.1"
            ),
            format!(
                "dl_src={mac},dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_op=1,arp_spa=0.0.0.0,arp_sha={mac},arp_tpa=10.0.1.{n}"
            ),
            format!("{from},icmp6,icmp_type=135,{nd},nd_target=fd77::1,nd_sll={mac}"),
            format!("{from},icmp6,icmp_type=136,{nd},nd_target=fd77::{n},nd_tll={mac}"),
            format!("{from},icmp6,icmp_type=133,{nd}"),
            format!("{from},icmp6,icmp_type=143,{nd}"),
        ]
    };
    for packet in packets(100) {
        let fate = ground.trace("vi100", &packet, &[]);
        assert!(
            fate.actions.starts_with("meter("),
            "{packet}\n{}",
            fate.text
        );
        assert!(fate.ports.contains("uplink0"), "{packet}\n{}", fate.text);
    }
    let asks = "dl_src=02:00:00:00:01:64,dl_dst=ff:ff:ff:ff:ff:ff,udp,nw_src=0.0.0.0,nw_dst=255.255.255.255,udp_src=68,udp_dst=67";
    let asks6 = "dl_src=02:00:00:00:01:64,dl_dst=33:33:00:01:00:02,udp6,ipv6_src=fe80::ff:fe00:164,ipv6_dst=ff02::1:2,udp_src=546,udp_dst=547";
    for packet in [asks, asks6] {
        let fate = ground.trace("vi100", packet, &[]);
        assert!(
            fate.actions.starts_with("meter("),
            "{packet}\n{}",
            fate.text
        );
        fate.leaves_by(&["ovsbr0", "uplink0"]);
    }
    // One without a rate.
    for packet in packets(102) {
        let fate = ground.trace("vi102", &packet, &[]);
        assert!(fate.ports.contains("uplink0"), "{packet}\n{}", fate.text);
        fate.without("meter(");
    }
    ground.stop();
}

#[test]
fn a_container_gives_nobody_addresses_from_any_port() {
    let Some(ground) = prepared("security::a_container_gives_nobody_addresses_from_any_port")
    else {
        return;
    };
    let from = between(0x64, 0x65);
    let answers = |source: u16, port: u16, port6: u16| {
        [
            format!("{from},udp,nw_src=10.0.1.100,nw_dst=10.0.1.101,udp_src={source},udp_dst={port}"),
            format!("{from},udp,nw_src=10.0.1.100,nw_dst=255.255.255.255,udp_src={source},udp_dst={port}")
                .replace("dl_dst=02:00:00:00:01:65", "dl_dst=ff:ff:ff:ff:ff:ff"),
            format!("{from},udp6,ipv6_src=fd77::100,ipv6_dst=fd77::101,udp_src={source},udp_dst={port6}"),
            format!("{from},udp6,ipv6_src=fe80::ff:fe00:164,ipv6_dst=fe80::ff:fe00:165,udp_src={source},udp_dst={port6}"),
        ]
    };
    let mut bad: Vec<String> = [67, 547, 68, 546, 4011, 40000]
        .into_iter()
        .flat_map(|source| answers(source, 68, 546))
        .collect();
    bad.retain(|packet| {
        let fate = ground.trace("vi100", packet, &["trk,new"]);
        !fate.ports.is_empty()
    });
    assert_eq!(bad, Vec::<String>::new(), "they leave");
    // What comes in pieces shows its port only where they are put together: as if it had none before.
    for (kind, port) in [("udp", 68), ("udp6", 546)] {
        let flow = format!(
            "table=0,priority=49999,in_port={},{kind},tp_dst={port},actions=set_field:100->reg0,set_field:10->reg1,set_field:1->reg2,goto_table:1",
            ground.number("vi100")
        );
        ground.switch.ofctl(&["add-flow", "ovsbr0", &flow]);
    }
    for packet in answers(40000, 68, 546) {
        ground.trace("vi100", &packet, &["trk,new"]).is_dropped();
    }
    // Ports beside it, and a lease that is asked for again, from the server alone.
    for packet in answers(40000, 69, 545) {
        let fate = ground.trace("vi100", &packet, &["trk,new"]);
        assert!(fate.ports.contains("vi101"), "{packet}\n{}", fate.text);
    }
    let again = format!(
        "{},udp,nw_src=10.0.1.100,nw_dst=10.0.1.1,udp_src=68,udp_dst=67",
        out_of(0x64)
    );
    ground
        .trace("vi100", &again, &["trk,new"])
        .leaves_by(&["uplink0"]);
    ground.stop();
}

#[test]
fn nobody_outside_looks_for_neighbours_in_a_containers_name() {
    let Some(ground) =
        prepared("security::nobody_outside_looks_for_neighbours_in_a_containers_name")
    else {
        return;
    };
    let asks = |src: &str, vlan: &str, to: u8, dst: &str| {
        format!(
            "{}{vlan},icmp6,icmp_type=135,nw_ttl=255,ipv6_src={src},ipv6_dst={dst},nd_target={dst},nd_sll={GATEWAY}",
            into(to)
        )
    };
    for port in ["uplink0", "ovsbr0"] {
        for src in ["fd77::101", "fe80::ff:fe00:165", "fd77::102"] {
            let packet = asks(src, "", 0x64, "fd77::100");
            ground.trace(port, &packet, &[]).is_dropped();
            let all = packet.replace("dl_dst=02:00:00:00:01:64", "dl_dst=33:33:ff:00:01:00");
            ground.trace(port, &all, &[]).is_dropped();
        }
        let tagged = asks("fd78::104", ",dl_vlan=100", 0x67, "fd78::103");
        ground.trace(port, &tagged, &[]).is_dropped();
    }
    // Others do, and who has such an address in another VLAN.
    for src in ["fd77::1", "fe80::1", "fd78::104"] {
        let packet = asks(src, "", 0x64, "fd77::100");
        ground.trace("uplink0", &packet, &[]).leaves_by(&["vi100"]);
    }
    let tagged = asks("fd77::101", ",dl_vlan=100", 0x67, "fd78::103");
    ground.trace("uplink0", &tagged, &[]).leaves_by(&["vi103"]);
    ground.stop();
}
