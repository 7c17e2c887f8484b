//! Flows: what is taken comes back the same, what a switch would refuse is refused, and its own tool agrees.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::*;

fn set(flows: Value) -> Result<FlowSet, String> {
    FlowSet::from_json(&flows).map_err(|error| error.to_string())
}

fn flow(matching: Value, actions: Value) -> Result<FlowSet, String> {
    set(json!([{"match": matching, "actions": actions}]))
}

/// One flow for every field and every action, in forms that differ in syntax.
fn everything() -> Vec<Value> {
    let tcp = json!({"dl_type": "ip", "nw_proto": "tcp", "tp_dst": 443});
    let matches = [
        json!({}),
        json!({"in_port": 7, "dl_src": "02:00:00:00:00:01", "dl_dst": "01:00:00:00:00:00/01:00:00:00:00:00"}),
        json!({"vlan": 7, "vlan_pcp": 3}),
        json!({"vlan": "none"}),
        json!({"dl_type": "ip", "nw_src": "10.0.0.0/8", "nw_dst": "255.255.255.255", "ip_dscp": 46, "nw_ttl": 64, "nw_frag": "later"}),
        json!({"dl_type": "ip", "nw_proto": "udp", "tp_src": {"value": 1024, "mask": 64512}, "tp_dst": 67}),
        json!({"dl_type": "ipv6", "nw_proto": "sctp", "tp_src": 1, "ipv6_src": "fd00::/8", "ipv6_dst": "fd00::1"}),
        json!({"dl_type": "ip", "nw_proto": "icmp", "icmp_type": 8, "icmp_code": 0}),
        json!({"dl_type": "ipv6", "nw_proto": "icmp6", "icmp_type": 135, "nd_target": "fd00::1", "nd_sll": "02:00:00:00:00:01"}),
        json!({"dl_type": "ipv6", "nw_proto": "icmp6", "icmp_type": 136, "nd_target": "fd00::1", "nd_tll": "02:00:00:00:00:01"}),
        json!({"dl_type": "arp", "arp_op": 1, "arp_spa": "10.0.0.1", "arp_tpa": "10.0.0.0/24", "arp_sha": "02:00:00:00:00:01", "arp_tha": "00:00:00:00:00:00"}),
        json!({"dl_type": 34525, "ct_state": {"trk": true, "new": true, "inv": false}, "ct_zone": 7, "ct_mark": 1}),
        json!({"tun_id": 77, "tun_src": "192.0.2.1", "tun_dst": "192.0.2.0/24", "metadata": {"value": 1, "mask": 3}, "pkt_mark": 9, "conj_id": 5}),
        json!({"reg0": 1, "reg15": {"value": 2, "mask": 2}}),
    ];
    let actions = [
        json!(["drop"]),
        json!(["normal"]),
        json!(["flood", "in_port", "local", "pop_queue"]),
        json!([{"meter": 5}, "dec_ttl", {"set_queue": 3}, {"output": 9}]),
        json!([{"set_field": {"dl_dst": "02:00:00:00:00:02"}}, {"set_field": {"nw_dst": "10.0.0.9"}}, {"set_field": {"tp_dst": 8443}}, {"set_field": {"reg3": 4}}, {"set_field": {"ip_dscp": 10}}, {"set_field": {"nw_ttl": 3}}, {"set_field": {"tun_id": 3}}, {"resubmit": 4}]),
        json!([{"load": {"value": 5, "into": {"field": "reg2", "start": 4, "bits": 8}}}, {"move": {"from": {"field": "nw_src"}, "into": {"field": "reg5"}}}, {"move": {"from": {"field": "dl_src"}, "into": {"field": "dl_dst"}}}, {"goto_table": 253}]),
        json!([{"push_vlan": 9}, {"set_field": {"vlan": 10}}, {"set_field": {"vlan_pcp": 1}}, {"output": 3}, "pop_vlan", {"output": 4}]),
        json!([{"ct": {"commit": true, "zone": 4, "table": 9, "mark": 6, "nat": {"src": "192.0.2.1-192.0.2.9", "ports": "1024-2048"}}}]),
        json!([{"ct": {"zone": 4, "table": 9, "nat": {}}}]),
        json!([{"ct": {"commit": true, "nat": {"dst": "192.0.2.1"}}}]),
        json!([{"conjunction": {"id": 7, "clause": 1, "of": 2}}, {"conjunction": {"id": 8, "clause": 2, "of": 3}}]),
    ];
    let plain = matches
        .into_iter()
        .enumerate()
        .map(|(n, matching)| json!({"table": 1, "priority": n, "match": matching, "actions": ["normal"]}));
    let busy = actions.into_iter().enumerate().map(|(n, actions)| {
        json!({"table": 2, "priority": 100 + n, "idle_timeout": 5, "hard_timeout": 9, "match": tcp, "actions": actions})
    });
    plain.chain(busy).collect()
}

#[test]
fn a_flow_comes_back_from_its_canonical_form() {
    let flows = set(Value::Array(everything())).unwrap();
    assert_eq!(flows.len(), everything().len());
    let again = FlowSet::from_json(&flows.to_json().unwrap()).unwrap();
    assert_eq!(flows, again);
    let used: Vec<Field> = flows
        .iter()
        .flat_map(|f| f.matching.fields().map(|(field, _)| field))
        .collect();
    for field in Field::ALL.iter().filter(|f| !f.name().starts_with("reg")) {
        assert!(used.contains(field), "no example has {}", field.name());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test that compares with the switch's tool"
)]
/// The switch's own parser: what it prints of each flow, or why it refuses one.
fn ofctl(lines: &[String]) -> Option<Result<Vec<String>, String>> {
    let child = Command::new("ovs-ofctl")
        .args(["-O", "OpenFlow13,OpenFlow15", "parse-flows", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: ovs-ofctl is not installed");
        return None;
    };
    let text = lines.join("\n") + "\n";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let shown = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Some(if output.status.success() {
        Ok(shown(output.stdout)
            .lines()
            .filter(|line| line.contains("actions="))
            .map(str::to_owned)
            .collect())
    } else {
        Err(shown(output.stderr))
    })
}

#[test]
fn the_switchs_own_tool_takes_every_flow_that_is_taken_here() {
    let flows = set(Value::Array(everything())).unwrap();
    let lines: Vec<String> = flows.iter().map(ToString::to_string).collect();
    match ofctl(&lines) {
        None => {}
        Some(Ok(printed)) => assert_eq!(printed.len(), lines.len(), "{printed:#?}"),
        Some(Err(why)) => panic!("{why}\n{lines:#?}"),
    }
}

#[test]
fn a_field_whose_conditions_are_missing_is_refused() {
    for matching in [
        json!({"tp_dst": 80}),
        json!({"dl_type": "ip", "tp_dst": 80}),
        json!({"dl_type": "ip", "nw_proto": "icmp", "tp_dst": 80}),
        json!({"nw_src": "10.0.0.1"}),
        json!({"dl_type": "ipv6", "nw_src": "10.0.0.1"}),
        json!({"dl_type": "arp", "nw_src": "10.0.0.1"}),
        json!({"dl_type": "ip", "ipv6_dst": "fd00::1"}),
        json!({"nw_proto": "tcp"}),
        json!({"dl_type": "ip", "arp_op": 1}),
        json!({"dl_type": "ipv6", "nw_proto": "icmp", "icmp_type": 8}),
        json!({"dl_type": "ipv6", "nw_proto": "icmp6", "icmp_type": 136, "nd_sll": "02:00:00:00:00:01"}),
        json!({"dl_type": "ipv6", "nw_proto": "icmp6", "nd_target": "fd00::1"}),
        json!({"vlan_pcp": 1}),
        json!({"vlan": "none", "vlan_pcp": 1}),
        json!({"ct_state": {"trk": false, "new": true}}),
    ] {
        assert!(
            flow(matching.clone(), json!(["normal"])).is_err(),
            "{matching}"
        );
    }
}

#[test]
fn no_flow_can_send_a_packet_in_circles() {
    for action in [
        json!({"goto_table": 5}),
        json!({"goto_table": 4}),
        json!({"resubmit": 5}),
        json!({"resubmit": 0}),
        json!({"ct": {"table": 5}}),
    ] {
        let flows = json!([{"table": 5, "match": {"dl_type": "ip"}, "actions": [action]}]);
        let error = set(flows).expect_err("a jump back");
        assert!(error.contains("circles"), "{error}");
    }
}

#[test]
fn ten_thousand_flows_fit_one_frame_and_mean_what_they_would_one_by_one() {
    let rows: Vec<Value> = (0..10_000u32)
        .map(|n| {
            json!([
                format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255),
                format!("vi{}", 100 + n),
                n
            ])
        })
        .collect();
    let compact = json!([{
        "table": 3, "priority": 50, "match": {"dl_type": "ip"},
        "actions": [{"set_field": {}}, {}],
        "columns": ["/match/nw_dst", "/actions/1/output", "/actions/0/set_field/reg1"], "rows": rows,
    }]);
    let request = json!({"action": "ovs-set-flows", "params": {"bridge": "ovsbr0", "owner": "a", "flows": compact}});
    let text = request.to_string();
    assert!(
        text.len() < crate::wire::MAX_FRAME / 2,
        "{} bytes",
        text.len()
    );
    let request = crate::request::decode_request(text.as_bytes()).unwrap();
    let crate::Action::OvsSetFlows(action) = &request.action else {
        panic!("another action");
    };
    assert_eq!(action.flows.len(), 10_000);
    let last = action.flows.iter().last().unwrap();
    let plain = set(json!([{
        "table": 3, "priority": 50, "match": {"dl_type": "ip", "nw_dst": "10.0.39.15"},
        "actions": [{"set_field": {"reg1": 9999}}, {"output": "vi10099"}],
    }]));
    assert_eq!(last, plain.unwrap().iter().next().unwrap());
    assert_eq!(
        crate::Action::from_parts("ovs-set-flows", &request.action.params()).unwrap(),
        request.action
    );
    // What the ledger keeps is a digest, not a megabyte.
    let kept = Value::Object(request.action.ledger_metadata()).to_string();
    assert!(kept.len() < 40_000, "{}", kept.len());
}

#[test]
fn a_small_request_cannot_grow_without_bound() {
    let rows: Vec<Value> = (0..FlowSet::MAX).map(|n| json!([n])).collect();
    let many: Vec<Value> = (0..64).map(|_| json!({"output": 1})).collect();
    let filled = json!([{"actions": many, "columns": ["/priority"], "rows": rows}]);
    assert!(set(filled).unwrap_err().contains("8 MiB"));
    let short: Vec<Value> = (0..40).map(|_| json!("flood")).collect();
    let parts = json!([{"actions": short, "columns": ["/match/reg0"], "rows": rows}]);
    assert!(set(parts).unwrap_err().contains("262144"));
    let one_more: Vec<Value> = (0..=FlowSet::MAX).map(|n| json!([n])).collect();
    let rows = json!([{"actions": ["drop"], "columns": ["/match/reg0"], "rows": one_more}]);
    assert!(set(rows).is_err());
}

#[test]
fn an_owner_has_its_own_cookie_and_all_of_ours_are_marked() {
    let cookie = |name: &str| name.parse::<crate::value::FlowOwner>().unwrap().cookie();
    assert_ne!(cookie("vm-100"), cookie("vm-101"));
    assert_eq!(cookie("vm-100") >> 48, 0xb10c);
}

#[test]
fn a_row_means_what_the_flow_written_out_means_whatever_the_rows_before_it() {
    let cells = [
        json!("10.0.0.1"),
        json!("10.0.0.0/8"),
        json!("fd00::1"),
        json!("10.0.0.1/8"),
        json!(80),
        json!(65_536),
        json!({"value": 4096, "mask": 61440}),
        json!({"value": 1, "mask": 2}),
        json!("tcp"),
        json!("udp"),
        json!("ip"),
        json!("ipv6"),
        json!(null),
        json!([]),
        json!(135),
        json!(7),
    ];
    let bases = [
        (
            json!({"dl_type": "ip", "nw_proto": "tcp"}),
            ["nw_dst", "tp_dst"],
            json!(["10.9.9.9", 22]),
        ),
        (
            json!({"dl_type": "ip", "tp_dst": 7}),
            ["nw_proto", "nw_src"],
            json!(["tcp", "10.9.9.9"]),
        ),
        (
            json!({"nw_proto": "tcp", "tp_dst": 7}),
            ["dl_type", "reg0"],
            json!(["ip", 1]),
        ),
        (
            json!({"dl_type": "ipv6", "nw_proto": "icmp6"}),
            ["icmp_type", "ipv6_src"],
            json!([135, "fd00::9"]),
        ),
        (json!({"vlan_pcp": 1}), ["vlan", "in_port"], json!([5, 6])),
    ];
    for (matching, columns, first) in bases {
        for one in &cells {
            for other in &cells {
                let row = json!([one, other]);
                let compact = set(json!([{"match": matching, "actions": ["normal"],
                    "columns": columns.map(|column| format!("/match/{column}")), "rows": [first, row]}]));
                let mut plain = vec![];
                for row in [&first, &row] {
                    let mut whole = matching.clone();
                    whole[columns[0]] = row[0].clone();
                    whole[columns[1]] = row[1].clone();
                    plain.push(json!({"match": whole, "actions": ["normal"]}));
                }
                match (compact, set(plain.into())) {
                    (Ok(compact), Ok(plain)) => {
                        assert!(
                            compact.iter().eq(plain.iter()),
                            "{matching} {columns:?} {row}"
                        );
                    }
                    (Err(compact), Err(plain)) => {
                        // Both say why; the one also in which row.
                        assert!(
                            compact.contains("row 1") || compact.contains("flow 1"),
                            "{compact}"
                        );
                        assert!(!plain.is_empty());
                    }
                    (compact, plain) => {
                        panic!("{matching} {columns:?} {row}: {compact:?} {plain:?}")
                    }
                }
            }
        }
    }
}
