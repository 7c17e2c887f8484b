//! What flows use and what they come to: meters, and one container's whole pipeline as the switch traces it.

mod compartment_world;
mod ovs_world;

use blockhost_proto::response::ErrorCode;
use ovs_world::{failed, veth, with_switch};
use serde_json::{Value, json};

#[test]
fn a_meter_is_set_changed_and_kept_while_flows_use_it() {
    with_switch(
        "a_meter_is_set_changed_and_kept_while_flows_use_it",
        |switch| {
            switch.bridge("br0");
            let meter = |more: Value| {
                let mut params = json!({"bridge": "br0", "meter": 3});
                params
                    .as_object_mut()
                    .expect("an object")
                    .extend(more.as_object().expect("an object").clone());
                switch.ask("ovs-set-meter", &params)
            };
            let text = || switch.ofctl(&["dump-meters", "br0"]);
            failed(meter(json!({})), ErrorCode::NotFound, "no meter 3");
            meter(json!({"rate": 1000, "burst": 200})).expect("set");
            assert!(
                text().contains("meter=3 kbps burst stats bands="),
                "{}",
                text()
            );
            assert!(text().contains("rate=1000 burst_size=200"), "{}", text());
            meter(json!({"rate": 50, "unit": "pktps"})).expect("changed");
            assert!(
                text().contains("meter=3 pktps stats bands=") && text().contains("rate=50"),
                "{}",
                text()
            );
            let flows = |flows: Value| {
                switch.must(
                    "ovs-set-flows",
                    &json!({"bridge": "br0", "owner": "a", "flows": flows}),
                )
            };
            flows(json!([{"priority": 5, "actions": [{"meter": 3}, "normal"]}]));
            failed(meter(json!({})), ErrorCode::Conflict, "used by 1 flows");
            assert!(text().contains("meter=3"), "{}", text());
            let listed = switch.list(&json!({"bridge": "br0"}));
            assert_eq!(listed["bridges"][0]["meters"][0]["rate"], 50);
            assert_eq!(listed["bridges"][0]["meters"][0]["dropped"], 0);
            flows(json!([]));
            meter(json!({})).expect("removed");
            assert!(!text().contains("meter=3"), "{}", text());
        },
    );
}

/// One container's pipeline: port security, connection tracking, access, queues.
fn pipeline() -> Value {
    let mac = "02:00:00:00:01:64";
    json!([
        {"priority": 1000, "match": {"dl_type": 35020}, "actions": ["drop"]},
        {"priority": 900, "match": {"in_port": "vi100", "dl_src": mac, "dl_type": "arp", "arp_spa": "10.0.1.100", "arp_sha": mac}, "actions": [{"resubmit": 3}]},
        {"priority": 900, "match": {"in_port": "vi100", "dl_src": mac, "dl_type": "ip", "nw_src": "10.0.1.100"}, "actions": [{"set_field": {"reg0": 100}}, {"resubmit": 1}]},
        {"priority": 901, "match": {"in_port": "vi100", "dl_src": mac, "dl_type": "ip", "nw_proto": "udp", "nw_src": "0.0.0.0", "nw_dst": "255.255.255.255", "tp_src": 68, "tp_dst": 67}, "actions": ["normal"]},
        {"priority": 800, "match": {"in_port": "vi100"}, "actions": ["drop"]},
        {"priority": 700, "match": {"in_port": "uplink", "dl_type": "ip", "nw_src": "203.0.113.0/24"}, "actions": [{"meter": 1}, {"resubmit": 1}]},
        {"priority": 600, "match": {"dl_type": "ip"}, "actions": [{"resubmit": 1}]},
        {"priority": 600, "match": {"dl_type": "ipv6"}, "actions": [{"resubmit": 1}]},
        {"priority": 600, "match": {"dl_type": "arp"}, "actions": [{"resubmit": 3}]},
        {"priority": 0, "actions": ["drop"]},
        {"table": 1, "priority": 100, "match": {"dl_type": "ip"}, "actions": [{"ct": {"table": 2, "zone": 10}}]},
        {"table": 1, "priority": 100, "match": {"dl_type": "ipv6"}, "actions": [{"ct": {"table": 2, "zone": 10}}]},
        {"table": 2, "priority": 300, "match": {"dl_type": "ip", "ct_state": {"trk": true, "inv": true}}, "actions": ["drop"]},
        {"table": 2, "priority": 300, "match": {"dl_type": "ipv6", "ct_state": {"trk": true, "inv": true}}, "actions": ["drop"]},
        {"table": 2, "priority": 250, "match": {"dl_type": "ipv6", "nw_proto": "icmp6", "icmp_type": 135}, "actions": [{"resubmit": 3}]},
        {"table": 2, "priority": 250, "match": {"dl_type": "ipv6", "nw_proto": "icmp6", "icmp_type": 136}, "actions": [{"resubmit": 3}]},
        {"table": 2, "priority": 200, "match": {"dl_type": "ip", "ct_state": {"trk": true, "est": true}}, "actions": [{"resubmit": 3}]},
        {"table": 2, "priority": 201, "match": {"dl_type": "ip", "ct_state": {"trk": true, "rel": true}}, "actions": [{"resubmit": 3}]},
        {"table": 2, "priority": 200, "match": {"dl_type": "ipv6", "ct_state": {"trk": true, "est": true}}, "actions": [{"resubmit": 3}]},
        {"table": 2, "priority": 201, "match": {"dl_type": "ipv6", "ct_state": {"trk": true, "rel": true}}, "actions": [{"resubmit": 3}]},
        {"table": 2, "priority": 150, "match": {"in_port": "vi100", "dl_type": "ip", "ct_state": {"trk": true, "new": true}}, "actions": [{"ct": {"commit": true, "zone": 10}}, {"resubmit": 3}]},
        {"table": 2, "priority": 0, "actions": ["drop"]},
        {"table": 3, "priority": 350, "match": {"dl_type": "ip", "nw_proto": "tcp", "tp_dst": 80}, "actions": [{"set_queue": 1}, "normal"]},
        {"table": 3, "priority": 350, "match": {"dl_type": "ip", "nw_proto": "tcp", "tp_dst": 22}, "actions": [{"set_queue": 0}, "normal"]},
        {"table": 3, "priority": 0, "actions": ["normal"]},
    ])
}

#[test]
fn a_containers_pipeline_lets_through_what_it_should_and_nothing_else() {
    with_switch(
        "a_containers_pipeline_lets_through_what_it_should_and_nothing_else",
        |switch| {
            switch.bridge("br0");
            for port in ["uplink", "vi100"] {
                veth(port);
                switch.must("ovs-add-port", &json!({"bridge": "br0", "port": port}));
            }
            switch.must(
                "ovs-set-meter",
                &json!({"bridge": "br0", "meter": 1, "rate": 1000}),
            );
            switch.must(
                "ovs-set-flows",
                &json!({"bridge": "br0", "owner": "vm.100", "flows": pipeline()}),
            );
            let port = |name: &str| switch.vsctl(&format!("get Interface {name} ofport"));
            let (uplink, vi100) = (port("uplink"), port("vi100"));
            let trace = |packet: &str, state: &str| {
                let mut words = vec!["ofproto/trace", "br0", packet];
                if !state.is_empty() {
                    words.extend(["--ct-next", state]);
                }
                switch.run("ovs-appctl", &words)
            };
            let passes = |packet: &str, state: &str| {
                let text = trace(packet, state);
                let last = text
                    .lines()
                    .rfind(|line| line.starts_with("Datapath actions:"))
                    .expect("a verdict")
                    .to_owned();
                (!last.ends_with("drop"), text)
            };
            let own = format!("in_port={vi100},dl_src=02:00:00:00:01:64,dl_dst=02:00:00:00:00:01");
            let from_out =
                format!("in_port={uplink},dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:01:64");
            for (packet, state, good) in [
                (
                    format!("{own},tcp,nw_src=10.0.1.100,nw_dst=192.0.2.1,tp_dst=80"),
                    "trk,new",
                    true,
                ),
                (
                    format!("{own},tcp,nw_src=10.0.1.101,nw_dst=192.0.2.1,tp_dst=80"),
                    "trk,new",
                    false,
                ),
                (
                    format!("{own},tcp6,ipv6_src=fd77::1,ipv6_dst=fd77::2,tp_dst=80"),
                    "trk,new",
                    false,
                ),
                (
                    format!(
                        "{own},udp,nw_src=0.0.0.0,nw_dst=255.255.255.255,udp_src=68,udp_dst=67"
                    ),
                    "",
                    true,
                ),
                (
                    format!("{own},arp,arp_spa=10.0.1.100,arp_sha=02:00:00:00:01:64,arp_op=1"),
                    "",
                    true,
                ),
                (
                    format!("{own},arp,arp_spa=10.0.1.1,arp_sha=02:00:00:00:01:64,arp_op=2"),
                    "",
                    false,
                ),
                (
                    format!(
                        "in_port={vi100},dl_src=02:00:00:00:01:65,tcp,nw_src=10.0.1.100,nw_dst=192.0.2.1"
                    ),
                    "",
                    false,
                ),
                (
                    format!("{from_out},tcp,nw_src=192.0.2.1,nw_dst=10.0.1.100,tp_dst=22"),
                    "trk,new",
                    false,
                ),
                (
                    format!("{from_out},tcp,nw_src=192.0.2.1,nw_dst=10.0.1.100,tp_src=80"),
                    "trk,est",
                    true,
                ),
                (
                    format!("{from_out},tcp,nw_src=192.0.2.1,nw_dst=10.0.1.100"),
                    "trk,inv",
                    false,
                ),
                (
                    format!("{from_out},tcp,nw_src=203.0.113.9,nw_dst=10.0.1.100"),
                    "trk,est",
                    true,
                ),
                (format!("{from_out},dl_type=0x88cc"), "", false),
            ] {
                let (passed, text) = passes(&packet, state);
                assert_eq!(passed, good, "{packet}\n{text}");
            }
            let text = trace(
                &format!("{own},tcp,nw_src=10.0.1.100,nw_dst=192.0.2.1,tp_dst=80"),
                "trk,new",
            );
            assert!(
                text.contains("set_queue:1") && text.contains("ct(commit,zone=10)"),
                "{text}"
            );
            let text = trace(
                &format!("{from_out},tcp,nw_src=203.0.113.9,nw_dst=10.0.1.100"),
                "trk,est",
            );
            assert!(text.contains("meter:"), "{text}");
        },
    );
}
