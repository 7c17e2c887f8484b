//! What a flow comes back as and what it is in the words of the switch's tool, each field and action once.

use serde_json::{Value, json};

use super::*;
use crate::value::Param;

fn read(matching: &Value, actions: &Value) -> FlowSet {
    let flows = json!([{"table": 1, "priority": 5, "match": matching, "actions": actions}]);
    FlowSet::from_json(&flows).unwrap_or_else(|error| panic!("{flows}: {error}"))
}

/// The conditions of the flow as text.
fn conditions(matching: Value) -> String {
    let text = read(&matching, &json!(["drop"]))
        .iter()
        .next()
        .unwrap()
        .to_string();
    text.strip_prefix("table=1,priority=5")
        .and_then(|text| text.strip_suffix(",actions=drop"))
        .unwrap_or_else(|| panic!("{text}"))
        .to_owned()
}

#[test]
fn a_match_in_the_words_of_the_tool() {
    let ip = |proto: &str, field: &str| json!({"dl_type": "ip", "nw_proto": proto, field: 7});
    for (matching, text) in [
        (json!({}), ""),
        (json!({"in_port": 7}), ",in_port=7"),
        (json!({"in_port": "vi100"}), ",in_port=\"vi100\""),
        (
            json!({"dl_src": "02:00:00:00:00:FE"}),
            ",dl_src=02:00:00:00:00:fe",
        ),
        (
            json!({"dl_dst": "01:00:00:00:00:00/01:00:00:00:00:00"}),
            ",dl_dst=01:00:00:00:00:00/01:00:00:00:00:00",
        ),
        (json!({"vlan": "none"}), ",vlan_tci=0x0000/0x1fff"),
        (
            json!({"vlan": 7, "vlan_pcp": 3}),
            ",vlan_tci=0x1007/0x1fff,dl_vlan_pcp=0x3",
        ),
        (
            json!({"dl_type": "ip", "nw_frag": "later"}),
            ",dl_type=0x800,ip_frag=later",
        ),
        (
            json!({"dl_type": "ip", "nw_src": "10.0.0.0/8"}),
            ",dl_type=0x800,nw_src=10.0.0.0/255.0.0.0",
        ),
        (
            json!({"dl_type": "ipv6", "ipv6_dst": "fd00::1"}),
            ",dl_type=0x86dd,ipv6_dst=fd00::1",
        ),
        (
            ip("tcp", "tp_src"),
            ",dl_type=0x800,nw_proto=0x6,tcp_src=0x7",
        ),
        (
            ip("tcp", "tp_dst"),
            ",dl_type=0x800,nw_proto=0x6,tcp_dst=0x7",
        ),
        (
            ip("udp", "tp_src"),
            ",dl_type=0x800,nw_proto=0x11,udp_src=0x7",
        ),
        (
            ip("udp", "tp_dst"),
            ",dl_type=0x800,nw_proto=0x11,udp_dst=0x7",
        ),
        (
            ip("sctp", "tp_src"),
            ",dl_type=0x800,nw_proto=0x84,sctp_src=0x7",
        ),
        (
            ip("sctp", "tp_dst"),
            ",dl_type=0x800,nw_proto=0x84,sctp_dst=0x7",
        ),
        (
            ip("icmp", "icmp_type"),
            ",dl_type=0x800,nw_proto=0x1,icmp_type=0x7",
        ),
        (
            ip("icmp", "icmp_code"),
            ",dl_type=0x800,nw_proto=0x1,icmp_code=0x7",
        ),
        (
            json!({"dl_type": "ipv6", "nw_proto": "icmp6", "icmp_type": 1, "icmp_code": 2}),
            ",dl_type=0x86dd,nw_proto=0x3a,icmpv6_type=0x1,icmpv6_code=0x2",
        ),
        (json!({"reg0": {"value": 2, "mask": 6}}), ",reg0=0x2/0x6"),
        (
            json!({"ct_state": {"trk": true, "new": false}}),
            ",ct_state=0x20/0x21",
        ),
    ] {
        assert_eq!(conditions(matching), text);
    }
}

#[test]
fn actions_in_the_words_of_the_tool() {
    let tcp = json!({"dl_type": "ip", "nw_proto": "tcp", "vlan": 7});
    let udp = json!({"dl_type": "ip", "nw_proto": "udp"});
    let part =
        |field: &str, start: u8, bits: u8| json!({"field": field, "start": start, "bits": bits});
    let load =
        |field: &str, bits: u8| json!([{"load": {"value": 5, "into": part(field, 0, bits)}}]);
    let ct = |ct: Value| json!([{ "ct": ct }]);
    for (matching, actions, text) in [
        (
            &tcp,
            json!(["normal", "flood", "in_port", "local"]),
            "NORMAL,FLOOD,IN_PORT,LOCAL",
        ),
        (
            &tcp,
            json!(["dec_ttl", "pop_vlan", "pop_queue"]),
            "dec_ttl,pop_vlan,pop_queue",
        ),
        (
            &tcp,
            json!([{"meter": 5}, {"set_queue": 3}, {"output": 9}]),
            "meter:5,set_queue:3,output:9",
        ),
        (
            &tcp,
            json!([{"output": "vi100"}, {"resubmit": 4}]),
            "output:\"vi100\",resubmit(,4)",
        ),
        (&tcp, json!([{"goto_table": 253}]), "goto_table:253"),
        (
            &tcp,
            json!([{"set_field": {"vlan": 10}}]),
            "set_field:0x100a->vlan_vid",
        ),
        (
            &tcp,
            json!([{"set_field": {"vlan_pcp": 1}}]),
            "set_field:1->vlan_pcp",
        ),
        (
            &tcp,
            json!([{"set_field": {"tp_dst": 443}}]),
            "set_field:0x1bb->tcp_dst",
        ),
        (
            &udp,
            json!([{"set_field": {"tp_src": 53}}]),
            "set_field:0x35->udp_src",
        ),
        (
            &tcp,
            json!([{"set_field": {"nw_dst": "10.0.0.9"}}]),
            "set_field:10.0.0.9->nw_dst",
        ),
        (
            &tcp,
            json!([{"push_vlan": 9}]),
            "push_vlan:0x8100,set_field:0x1009->vlan_vid",
        ),
        (&tcp, load("reg2", 8), "load:0x5->reg2[0..7]"),
        (&tcp, load("dl_dst", 8), "load:0x5->eth_dst[0..7]"),
        (&tcp, load("dl_src", 8), "load:0x5->eth_src[0..7]"),
        (&tcp, load("nw_src", 8), "load:0x5->ip_src[0..7]"),
        (&tcp, load("nw_dst", 8), "load:0x5->ip_dst[0..7]"),
        (&tcp, load("metadata", 8), "load:0x5->metadata[0..7]"),
        (&udp, load("tp_dst", 16), "load:0x5->udp_dst[0..15]"),
        (
            &tcp,
            json!([{"move": {"from": part("nw_src", 8, 16), "into": part("reg5", 0, 16)}}]),
            "move:ip_src[8..23]->reg5[0..15]",
        ),
        (
            &tcp,
            ct(json!({"zone": 4, "table": 9, "nat": {}})),
            "ct(zone=4,table=9,nat)",
        ),
        (
            &tcp,
            ct(
                json!({"commit": true, "mark": 6, "nat": {"src": "192.0.2.1-192.0.2.9", "ports": "1024-2048"}}),
            ),
            "ct(commit,zone=0,nat(src=192.0.2.1-192.0.2.9:1024-2048),exec(set_field:0x6->ct_mark))",
        ),
        (
            &tcp,
            ct(json!({"commit": true, "nat": {"dst": "192.0.2.1"}})),
            "ct(commit,zone=0,nat(dst=192.0.2.1))",
        ),
        (
            &json!({"dl_type": "ipv6"}),
            ct(json!({"commit": true, "nat": {"dst": "fd00::1", "ports": "1-2"}})),
            "ct(commit,zone=0,nat(dst=[fd00::1]:1-2))",
        ),
        (
            &json!({"dl_type": "ipv6"}),
            ct(json!({"commit": true, "nat": {"src": "fd00::1-fd00::9"}})),
            "ct(commit,zone=0,nat(src=fd00::1-fd00::9))",
        ),
        (
            &tcp,
            json!([{"conjunction": {"id": 7, "clause": 1, "of": 2}}]),
            "conjunction(7,1/2)",
        ),
    ] {
        let flows = read(matching, &actions);
        let printed = flows.iter().next().unwrap().to_string();
        let (_, printed) = printed.split_once(",actions=").unwrap();
        assert_eq!(printed, text);
    }
    let timed = json!([{"idle_timeout": 5, "hard_timeout": 9, "actions": ["drop"]}]);
    let timed = FlowSet::from_json(&timed).unwrap();
    assert_eq!(
        timed.iter().next().unwrap().to_string(),
        "table=0,priority=32768,idle_timeout=5,hard_timeout=9,actions=drop"
    );
}

#[test]
fn a_flow_comes_back_in_its_canonical_form() {
    for (given, canonical) in [
        (
            json!({"dl_src": "02:00:00:00:00:FE"}),
            json!({"dl_src": "02:00:00:00:00:fe"}),
        ),
        (
            json!({"dl_src": "02:00:00:00:00:FE/ff:ff:ff:ff:ff:ff"}),
            json!({"dl_src": "02:00:00:00:00:fe"}),
        ),
        (
            json!({"dl_src": "02:00:00:00:00:00/FE:00:00:00:00:00"}),
            json!({"dl_src": "02:00:00:00:00:00/fe:00:00:00:00:00"}),
        ),
        (json!({"dl_type": 2048}), json!({"dl_type": "ip"})),
        (json!({"dl_type": 35020}), json!({"dl_type": 35020})),
        (json!({"vlan": "none"}), json!({"vlan": "none"})),
        (json!({"vlan": 7}), json!({"vlan": 7})),
        (json!({"in_port": "vi100"}), json!({"in_port": "vi100"})),
        (
            json!({"reg0": {"value": 3, "mask": 4_294_967_295_u32}}),
            json!({"reg0": 3}),
        ),
        (
            json!({"reg0": {"value": 3, "mask": 7}}),
            json!({"reg0": {"value": 3, "mask": 7}}),
        ),
        (
            json!({"ct_state": {"trk": true, "new": false}}),
            json!({"ct_state": {"new": false, "trk": true}}),
        ),
        (
            json!({"dl_type": "ip", "nw_src": "10.0.0.0/8", "nw_dst": "10.0.0.1/32"}),
            json!({"dl_type": "ip", "nw_src": "10.0.0.0/8", "nw_dst": "10.0.0.1"}),
        ),
    ] {
        let flows = read(&given, &json!(["drop"])).to_json().unwrap();
        assert_eq!(flows[0]["match"], canonical, "{given}");
    }
    let all = read(&json!({}), &json!(["drop"])).to_json().unwrap();
    assert_eq!(all[0].get("match"), None);
}
