//! Flows and meters on a real switch, seen with the switch's own tools.

mod compartment_world;
mod ovs_world;

use blockhost_proto::action::Action;
use ovs_world::{Switch, veth, with_switch};
use serde_json::{Value, json};

/// Every match field and every action at least once.
fn zoo() -> Value {
    json!([
        {"priority": 1, "match": {"in_port": 1}, "actions": ["drop"]},
        {"priority": 2, "match": {"in_port": "one", "dl_src": "02:00:00:00:01:64", "dl_dst": "01:00:00:00:00:00/01:00:00:00:00:00"}, "actions": ["normal"]},
        {"priority": 3, "match": {"dl_type": "arp", "arp_op": 1, "arp_spa": "10.0.1.100", "arp_tpa": "10.0.0.0/8", "arp_sha": "02:00:00:00:01:64", "arp_tha": "00:00:00:00:00:00"}, "actions": ["flood"]},
        {"priority": 4, "match": {"dl_type": "ip", "nw_src": "10.0.0.0/8", "nw_dst": "192.0.2.1", "nw_proto": "tcp", "tp_src": 80, "tp_dst": {"value": 1024, "mask": 64512}}, "actions": ["in_port", "local"]},
        {"priority": 5, "match": {"dl_type": "ip", "nw_proto": "udp", "tp_src": 68, "tp_dst": 67, "ip_dscp": 46, "nw_ttl": 3, "nw_frag": "not_later"}, "actions": ["dec_ttl", {"output": "one"}]},
        {"priority": 6, "match": {"dl_type": "ipv6", "nw_proto": "sctp", "tp_dst": 5, "ipv6_src": "2001:db8::/32", "ipv6_dst": "fd77::1", "nw_frag": "first"}, "actions": [{"output": 7}]},
        {"priority": 7, "match": {"dl_type": "ip", "nw_proto": "icmp", "icmp_type": 8, "icmp_code": 0}, "actions": [{"set_queue": 3}, "pop_queue", "normal"]},
        {"priority": 8, "match": {"dl_type": "ipv6", "nw_proto": "icmp6", "icmp_type": 135, "nd_target": "fd77::/64", "nd_sll": "02:00:00:00:00:01"}, "actions": ["normal"]},
        {"priority": 9, "match": {"dl_type": "ipv6", "nw_proto": "icmp6", "icmp_type": 136, "icmp_code": 0, "nd_target": "fd77::1", "nd_tll": "02:00:00:00:00:01"}, "actions": ["normal"]},
        {"priority": 10, "match": {"vlan": "none"}, "actions": [{"push_vlan": 100}, "normal"]},
        {"priority": 11, "match": {"vlan": 200, "vlan_pcp": 5}, "actions": [{"set_field": {"vlan": 300}}, {"set_field": {"vlan_pcp": 2}}, "normal"]},
        {"priority": 12, "match": {"vlan": 201}, "actions": ["pop_vlan", "normal"]},
        {"priority": 13, "match": {"dl_type": "ip", "ct_state": {"trk": true, "new": true, "inv": false}, "ct_zone": 10, "ct_mark": 5}, "actions": [{"ct": {"commit": true, "zone": 10, "mark": 7, "table": 4}}]},
        {"priority": 14, "match": {"dl_type": "ip", "ct_mark": {"value": 1, "mask": 1}}, "actions": [{"ct": {"zone": 9, "nat": {}, "table": 5}}]},
        {"priority": 15, "match": {"dl_type": "ip"}, "actions": [{"ct": {"commit": true, "zone": 9, "nat": {"src": "192.0.2.1-192.0.2.9", "ports": "1000-2000"}}}, "normal"]},
        {"priority": 16, "match": {"dl_type": "ip"}, "actions": [{"ct": {"commit": true, "nat": {"dst": "10.0.0.9"}}}, "normal"]},
        {"priority": 17, "match": {"dl_type": "ipv6"}, "actions": [{"ct": {"commit": true, "nat": {"src": "fd77::1-fd77::9"}, "mark": 3}}, "normal"]},
        {"priority": 18, "match": {"metadata": 77, "reg0": 100, "reg3": {"value": 4096, "mask": 61440}, "reg15": 1}, "actions": [{"set_field": {"reg0": 100}}, {"load": {"value": 5, "into": {"field": "reg1", "start": 4, "bits": 8}}}, {"move": {"from": {"field": "reg1"}, "into": {"field": "reg2"}}}, {"resubmit": 3}]},
        {"priority": 19, "match": {"metadata": {"value": 1, "mask": 255}, "tun_id": 5, "tun_src": "10.0.0.1", "tun_dst": "10.0.0.0/24", "pkt_mark": 9}, "actions": [{"set_field": {"tun_id": 9}}, {"set_field": {"metadata": 3}}, {"goto_table": 9}]},
        {"priority": 20, "match": {"dl_type": "ip", "nw_proto": "tcp"}, "actions": [{"set_field": {"dl_dst": "02:00:00:00:00:09"}}, {"set_field": {"dl_src": "02:00:00:00:00:08"}}, {"set_field": {"nw_src": "10.9.9.9"}}, {"set_field": {"nw_dst": "10.9.9.8"}}, {"set_field": {"tp_dst": 8080}}, {"set_field": {"ip_dscp": 10}}, {"set_field": {"nw_ttl": 64}}, {"set_field": {"pkt_mark": 5}}, "normal"]},
        {"priority": 21, "match": {"dl_type": "ipv6", "nw_proto": "udp"}, "actions": [{"set_field": {"ipv6_dst": "fd77::5"}}, {"set_field": {"tp_src": 53}}, {"move": {"from": {"field": "dl_src"}, "into": {"field": "dl_dst"}}}, {"load": {"value": 77, "into": {"field": "metadata", "start": 32, "bits": 16}}}, "normal"]},
        {"priority": 22, "match": {"dl_type": "ip", "nw_src": "10.1.0.0/16"}, "actions": [{"conjunction": {"id": 44, "clause": 1, "of": 2}}]},
        {"priority": 22, "match": {"dl_type": "ip", "nw_dst": "10.2.0.0/16"}, "actions": [{"conjunction": {"id": 44, "clause": 2, "of": 2}}]},
        {"priority": 22, "match": {"conj_id": 44}, "actions": ["normal"]},
        {"priority": 23, "table": 5, "idle_timeout": 600, "hard_timeout": 3600, "match": {"dl_type": 35020}, "actions": [{"meter": 1}, "normal"]},
        {"priority": 24, "match": {"dl_type": "arp"}, "actions": [{"set_field": {"arp_op": 2}}, {"set_field": {"arp_sha": "02:00:00:00:00:01"}}, {"move": {"from": {"field": "arp_spa"}, "into": {"field": "arp_tpa"}}}, "in_port"]},
        {"priority": 0, "actions": ["drop"]},
    ])
}

/// One flow that moves every field that can be moved to itself, and one that loads a bit into each.
fn moved_fields() -> Value {
    let groups: [(Value, &[&str]); 7] = [
        (
            json!({}),
            &["dl_dst", "dl_src", "metadata", "tun_id", "pkt_mark", "reg7"],
        ),
        (
            json!({"dl_type": "arp"}),
            &["arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha"],
        ),
        (
            json!({"dl_type": "ip", "nw_proto": "tcp"}),
            &["nw_src", "nw_dst", "ip_dscp", "nw_ttl", "tp_src", "tp_dst"],
        ),
        (
            json!({"dl_type": "ipv6", "nw_proto": "udp"}),
            &["ipv6_src", "ipv6_dst", "tp_src", "tp_dst"],
        ),
        (
            json!({"dl_type": "ip", "nw_proto": "sctp"}),
            &["tp_src", "tp_dst"],
        ),
        (
            json!({"dl_type": "ip", "nw_proto": "icmp"}),
            &["icmp_type", "icmp_code"],
        ),
        (
            json!({"dl_type": "ipv6", "nw_proto": "icmp6", "icmp_type": 135}),
            &["icmp_type", "icmp_code", "nd_target", "nd_sll"],
        ),
    ];
    let flow = |(matching, fields): &(Value, &[&str])| {
        let actions = fields.iter().flat_map(|field| {
            let whole = json!({"field": field});
            let bit = json!({"field": field, "start": 0, "bits": 1});
            [
                json!({"move": {"from": whole, "into": whole}}),
                json!({"load": {"value": 1, "into": bit}}),
            ]
        });
        json!({"match": matching, "priority": 5, "actions": actions.chain([json!("normal")]).collect::<Vec<_>>()})
    };
    groups.iter().map(flow).collect()
}

#[test]
fn what_the_types_say_is_what_the_switch_holds() {
    with_switch("what_the_types_say_is_what_the_switch_holds", |switch| {
        switch.bridge("br0");
        switch.must(
            "ovs-set-meter",
            &json!({"bridge": "br0", "meter": 1, "rate": 1000, "burst": 100}),
        );
        veth("one");
        switch.must("ovs-add-port", &json!({"bridge": "br0", "port": "one"}));
        for flows in [zoo(), moved_fields()] {
            let count = flows.as_array().expect("a list").len();
            let params = json!({"bridge": "br0", "owner": "zoo", "flows": flows});
            let done = switch.must("ovs-set-flows", &params);
            assert_eq!(done.extra["added"], count, "{}", done.output);
            assert_eq!(
                with_owner(switch.flows("br0")),
                reference(switch, &params),
                "as the switch's own tool would have done it"
            );
            let again = switch.must("ovs-set-flows", &params);
            assert_eq!(
                again.extra["unchanged"], count,
                "a flow is not recognised: {}",
                again.output
            );
        }
    });
}

/// Without what the switch put there itself.
fn with_owner(mut flows: Vec<String>) -> Vec<String> {
    flows.retain(|flow| flow.starts_with("cookie="));
    flows
}

/// The same flows in the words of `ovs-ofctl`, put into the same bridge by `ovs-ofctl`, as it prints them then.
fn reference(switch: &Switch, params: &Value) -> Vec<String> {
    let Ok(Action::OvsSetFlows(action)) = Action::from_parts("ovs-set-flows", params) else {
        panic!("not valid");
    };
    let file = switch.directory().join("flows.txt");
    let cookie = action.owner.cookie();
    let text: Vec<String> = action
        .flows
        .iter()
        .map(|flow| format!("cookie={cookie:#x},{flow}\n"))
        .collect();
    std::fs::write(&file, text.concat()).expect("a file");
    switch.ofctl(&[
        "--bundle",
        "replace-flows",
        "br0",
        file.to_str().expect("text"),
    ]);
    switch.flows("br0")
}
