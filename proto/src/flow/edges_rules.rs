//! The edges of what a flow may match: fields, their conditions, and how flows are written.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::value::Param;

fn set(flows: Value) -> Result<FlowSet, String> {
    FlowSet::from_json(&flows).map_err(|error| error.to_string())
}

pub(super) fn flow(matching: &Value, actions: &Value) -> Result<FlowSet, String> {
    set(json!([{"match": matching, "actions": actions}]))
}

/// Matches that are good, and ones that are not with what is said.
fn matches(good: &[Value], bad: &[(Value, &str)]) {
    for matching in good {
        if let Err(error) = flow(matching, &json!(["normal"])) {
            panic!("{matching}: {error}");
        }
    }
    for (matching, why) in bad {
        let error = flow(matching, &json!(["normal"])).expect_err(&matching.to_string());
        assert!(error.contains(why), "{matching}: {error}");
    }
}

#[test]
fn hardware_addresses_and_masks_are_six_pairs_of_digits_and_no_bit_is_outside_the_mask() {
    let own = "six bytes as 02:00:00:00:00:01";
    matches(
        &[
            json!({"dl_src": "02:ab:CD:00:00:fe"}),
            json!({"dl_src": "00:00:00:00:00:00"}),
            json!({"dl_src": "02:00:00:00:00:01/ff:ff:ff:ff:ff:ff"}),
            json!({"dl_src": "02:00:00:00:00:00/02:00:00:00:00:00"}),
            json!({"dl_src": "00:00:00:00:00:00/01:00:00:00:00:00"}),
        ],
        &[
            (json!({"dl_src": "2:00:00:00:00:00"}), own),
            (json!({"dl_src": "+2:00:00:00:00:00"}), own),
            (json!({"dl_src": "0g:00:00:00:00:00"}), own),
            (json!({"dl_src": "02:00:00:00:00"}), own),
            (json!({"dl_src": "02:00:00:00:00:00:00"}), own),
            (
                json!({"dl_src": "00:00:00:00:00:00/00:00:00:00:00:00"}),
                own,
            ),
            (
                json!({"dl_src": "02:00:00:00:00:01/02:00:00:00:00:00"}),
                own,
            ),
            (json!({"dl_src": "02:00:00:00:00:01/"}), own),
            (json!({"dl_src": 2}), own),
        ],
    );
}

#[test]
fn numbers_with_masks_are_objects_of_both_and_no_bit_is_outside_the_mask() {
    let own = "without value bits outside the mask";
    matches(
        &[
            json!({"reg0": 0}),
            json!({"reg0": 0xffff_ffff_u32}),
            json!({"reg0": {"value": 2, "mask": 3}}),
            json!({"reg0": {"value": 0, "mask": 1}}),
            json!({"metadata": (1_u64 << 53) - 1}),
        ],
        &[
            (json!({"reg0": 1_u64 << 32}), own),
            (json!({"reg0": {"value": 0, "mask": 0}}), own),
            (json!({"reg0": {"value": 2, "mask": 1}}), own),
            (json!({"reg0": {"value": 1}}), own),
            (json!({"reg0": {"value": 1, "mask": 1, "more": 1}}), own),
            (json!({"reg0": {"value": 1, "mask": 1_u64 << 32}}), own),
            (json!({"reg0": -1}), own),
            (json!({"metadata": 1_u64 << 53}), own),
        ],
    );
}

#[test]
fn each_syntax_has_its_ends_and_says_its_rule() {
    let ip = |field: &str, value: Value| json!({"dl_type": "ip", field: value});
    matches(
        &[
            json!({"vlan": 1}),
            json!({"vlan": 4094}),
            json!({"vlan": "none"}),
            json!({"dl_type": 1536}),
            json!({"dl_type": 65535}),
            ip("nw_proto", json!(255)),
            ip("ip_dscp", json!(63)),
            ip("nw_frag", json!("not_later")),
            json!({"ct_state": {"trk": false}}),
            json!({"ct_state": {"trk": true, "new": false}}),
            json!({"ct_state": {"new": true}}),
        ],
        &[
            (json!({"vlan": 0}), "from 1 to 4094"),
            (json!({"vlan": 4095}), "from 1 to 4094"),
            (json!({"vlan": "any"}), "from 1 to 4094"),
            (json!({"dl_type": 1535}), "from 1536 to 65535"),
            (json!({"dl_type": 65536}), "from 1536 to 65535"),
            (json!({"dl_type": "mpls"}), "ip, ipv6, arp"),
            (ip("nw_proto", json!(256)), "from 0 to 255"),
            (ip("ip_dscp", json!(64)), "an integer within the field"),
            (ip("nw_frag", json!("maybe")), "no, yes, first"),
            (ip("nw_src", json!("10.0.0.1/8")), "without host bits"),
            (
                json!({"dl_type": "ipv6", "ipv6_src": "10.0.0.1"}),
                "an IPv6 address",
            ),
            (json!({"ct_state": {}}), "nothing but trk"),
            (
                json!({"ct_state": {"trk": false, "new": true}}),
                "nothing but trk",
            ),
            (
                json!({"ct_state": {"trk": false, "new": false}}),
                "nothing but trk",
            ),
            (json!({"ct_state": {"lost": true}}), "new, est, rel"),
            (json!({"ct_state": {"new": 1}}), "new, est, rel"),
        ],
    );
}

#[test]
fn a_match_says_what_a_field_needs() {
    let v6 = |proto: &str, kind: Value| json!({"dl_type": "ipv6", "nw_proto": proto, "icmp_type": kind, "nd_target": "fd00::1"});
    let sll = |kind: u8| {
        let mut matching = v6("icmp6", json!(kind));
        matching["nd_sll"] = json!("02:00:00:00:00:01");
        matching
    };
    let tll = |kind: u8| {
        let mut matching = v6("icmp6", json!(kind));
        matching["nd_tll"] = json!("02:00:00:00:00:01");
        matching
    };
    matches(
        &[
            v6("icmp6", json!(135)),
            v6("icmp6", json!(136)),
            sll(135),
            tll(136),
        ],
        &[
            (json!({"vlan_pcp": 1}), "the match must name the vlan"),
            (json!({"nw_src": "10.0.0.1"}), "dl_type ip"),
            (json!({"ipv6_src": "fd00::1"}), "dl_type ipv6"),
            (json!({"nw_ttl": 1}), "dl_type ip or ipv6"),
            (json!({"arp_op": 1}), "dl_type arp"),
            (
                json!({"dl_type": "ip", "tp_src": 1}),
                "nw_proto tcp, udp or sctp",
            ),
            (
                json!({"dl_type": "ip", "icmp_type": 1}),
                "with nw_proto icmp",
            ),
            (v6("icmp6", json!(134)), "icmp_type 135 or 136"),
            (sll(136), "icmp6 and icmp_type 135"),
            (tll(135), "icmp6 and icmp_type 136"),
        ],
    );
    assert!(Match::default().is_empty());
}

#[test]
fn a_row_is_as_good_as_the_flow_written_out() {
    let rows = |matching: Value, column: &str, rows: Value| {
        set(json!([{"match": matching, "actions": ["normal"], "columns": [column], "rows": rows}]))
    };
    for (matching, column, good, bad) in [
        (
            json!({"nw_src": "10.0.0.1"}),
            "dl_type",
            json!("ip"),
            json!("ipv6"),
        ),
        (
            json!({"dl_type": "ip", "tp_dst": 1}),
            "nw_proto",
            json!("tcp"),
            json!("icmp"),
        ),
        (
            json!({"dl_type": "ipv6", "nw_proto": "icmp6", "nd_target": "fd00::1"}),
            "icmp_type",
            json!(135),
            json!(134),
        ),
        (json!({"vlan_pcp": 1}), "vlan", json!(7), json!("none")),
        (json!({}), "vlan", json!(7), json!(4095)),
        (json!({}), "reg0", json!(7), json!(1_u64 << 32)),
    ] {
        let column = format!("/match/{column}");
        assert!(
            rows(matching.clone(), &column, json!([[good]])).is_ok(),
            "{column}"
        );
        let error = rows(matching, &column, json!([[good], [bad]])).expect_err(&column);
        assert!(error.contains("row 1"), "{error}");
    }
    for wrong in [json!([[1], []]), json!([[1], [2, 3]]), json!([[1], 2])] {
        let error = rows(json!({}), "/match/reg0", wrong).expect_err("another length");
        assert!(
            error.contains("row 1") && error.contains("another length"),
            "{error}"
        );
    }
    for key in ["columns", "rows"] {
        let half = json!([{"actions": ["drop"], key: [[1]]}]);
        let error = set(half).expect_err("half");
        assert!(error.contains("flow with rows"), "{error}");
    }
}

#[test]
fn what_cannot_be_written_is_what_a_switch_goes_by() {
    let fixed: BTreeSet<&str> = Field::ALL
        .iter()
        .filter(|field| !field.writable())
        .map(|field| field.name())
        .collect();
    let expected = [
        "conj_id", "ct_mark", "ct_state", "ct_zone", "dl_type", "nw_frag", "nw_proto", "tun_dst",
        "tun_src",
    ];
    assert_eq!(fixed, BTreeSet::from(expected));
    for field in Field::ALL {
        assert!(field.rule().len() > 20, "{}", field.name());
    }
}

#[test]
fn ports_and_types_have_a_header_for_each_protocol() {
    for (field, proto, header) in [
        (Field::TpSrc, Some(6), (0x8000, 13)),
        (Field::TpDst, Some(6), (0x8000, 14)),
        (Field::TpSrc, Some(17), (0x8000, 15)),
        (Field::TpDst, Some(17), (0x8000, 16)),
        (Field::TpSrc, Some(132), (0x8000, 17)),
        (Field::TpDst, Some(132), (0x8000, 18)),
        (Field::IcmpType, Some(1), (0x8000, 19)),
        (Field::IcmpCode, Some(1), (0x8000, 20)),
        (Field::IcmpType, Some(58), (0x8000, 29)),
        (Field::IcmpCode, Some(58), (0x8000, 30)),
        (Field::DlDst, None, (0x8000, 3)),
        (Field::Reg0, Some(17), (1, 0)),
    ] {
        assert_eq!(field.oxm(proto), header, "{} {proto:?}", field.name());
    }
}

#[test]
fn the_names_of_ports_are_those_of_matches_and_outputs_and_count_for_the_fingerprint() {
    let flows = set(json!([
        {"match": {"in_port": "vi100"}, "actions": [{"output": "vi101"}, {"output": 7}]},
        {"match": {"in_port": 3}, "actions": [{"output": "vi100"}]},
    ]))
    .unwrap();
    let names: Vec<String> = flows
        .port_names()
        .into_iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["vi100", "vi101"]);
    let print = |first: Option<u16>, second: u16| {
        flows.fingerprint(|name| match name.as_str() {
            "vi100" => first,
            _ => Some(second),
        })
    };
    assert_eq!(print(None, 2), None);
    let one = print(Some(1), 2).expect("both are known");
    assert_eq!(print(Some(1), 2), Some(one.clone()));
    assert_ne!(print(Some(2), 1), Some(one.clone()));
    let none = set(json!([])).unwrap().fingerprint(|_| None);
    assert!(none.is_some_and(|none| none != one), "no flows, no names");
}
