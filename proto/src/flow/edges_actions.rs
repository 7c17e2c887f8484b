//! The edges of what a flow may do: actions, their places, and what they take.

use serde_json::{Value, json};

use super::edges_rules::flow;

/// Actions under one match that are good, and ones that are not with what is said.
fn does(matching: &Value, good: &[Value], bad: &[(Value, &str)]) {
    for actions in good {
        if let Err(error) = flow(matching, actions) {
            panic!("{matching} {actions}: {error}");
        }
    }
    for (actions, why) in bad {
        let error = flow(matching, actions).expect_err(&actions.to_string());
        assert!(error.contains(why), "{matching} {actions}: {error}");
    }
}

#[test]
fn actions_stand_in_their_places_and_do_what_the_packet_allows() {
    let any = json!({});
    let tagged = json!({"vlan": 7});
    let four = json!({"dl_type": "ip"});
    let into = |field: &str| json!({ "field": field });
    does(
        &any,
        &[
            json!(["drop"]),
            json!([{"meter": 1}, "normal"]),
            json!(["normal", {"goto_table": 1}]),
            json!([{"push_vlan": 7}, {"set_field": {"vlan_pcp": 1}}, {"set_field": {"vlan": 8}}, "pop_vlan"]),
        ],
        &[
            (json!(["drop", "normal"]), "it stands alone"),
            (json!(["normal", "drop"]), "it stands alone"),
            (json!(["normal", {"meter": 1}]), "it stands first"),
            (json!([{"goto_table": 1}, "normal"]), "it stands last"),
            (json!([{"goto_table": 0}]), "goto_table"),
            (json!(["dec_ttl"]), "dl_type ip or ipv6"),
            (json!(["pop_vlan"]), "must name the vlan"),
            (
                json!([{"push_vlan": 7}, "pop_vlan", "pop_vlan"]),
                "must name the vlan",
            ),
            (json!([{"set_field": {"vlan": 7}}]), "must name the vlan"),
            (json!([{"set_field": {"nw_dst": "10.0.0.1"}}]), "dl_type ip"),
            (
                json!([{"load": {"value": 1, "into": into("nw_dst")}}]),
                "dl_type ip",
            ),
            (
                json!([{"move": {"from": into("nw_src"), "into": into("reg0")}}]),
                "dl_type ip",
            ),
            (
                json!([{"move": {"from": into("reg0"), "into": into("nw_src")}}]),
                "dl_type ip",
            ),
            (json!([{"ct": {}}]), "dl_type ip or ipv6"),
        ],
    );
    does(
        &tagged,
        &[json!(["pop_vlan"]), json!([{"set_field": {"vlan": 8}}])],
        &[
            (
                json!(["pop_vlan", {"set_field": {"vlan": 8}}]),
                "must name the vlan",
            ),
            (
                json!(["pop_vlan", {"set_field": {"vlan_pcp": 1}}]),
                "must name the vlan",
            ),
            (json!([{"set_field": {"vlan": "none"}}]), "from 1 to 4094"),
        ],
    );
    does(
        &four,
        &[
            json!(["dec_ttl"]),
            json!([{"set_field": {"nw_dst": "10.0.0.1"}}]),
            json!([{"set_field": {"reg0": 0}}]),
        ],
        &[
            (
                json!([{"set_field": {"nw_dst": "10.0.0.0/8"}}]),
                "an IPv4 address",
            ),
            (json!([{"set_field": {"nw_proto": 6}}]), "can be written"),
            (
                json!([{"set_field": {"reg0": {"value": 0, "mask": 1}}}]),
                "within the field",
            ),
        ],
    );
}

#[test]
fn tracking_translates_to_addresses_of_the_packets_family() {
    let nat =
        |side: &str, addresses: &str| json!([{"ct": {"commit": true, "nat": {side: addresses}}}]);
    let ports =
        |ports: &str| json!([{"ct": {"commit": true, "nat": {"src": "10.0.0.1", "ports": ports}}}]);
    let four = json!({"dl_type": "ip"});
    does(
        &four,
        &[
            nat("src", "10.0.0.1"),
            nat("dst", "10.0.0.1-10.0.0.1"),
            nat("dst", "10.0.0.1-10.0.0.9"),
            ports("1-1"),
            ports("1-65535"),
            json!([{"ct": {"nat": {}}}]),
            json!([{"ct": {"commit": true, "mark": 1}}]),
            json!([{"ct": {"zone": 65535, "table": 1}}]),
        ],
        &[
            (nat("src", "fd00::1"), "of the family that the match names"),
            (nat("src", "10.0.0.9-10.0.0.1"), "of one family"),
            (nat("src", "10.0.0.1-fd00::1"), "of one family"),
            (nat("src", "10.0.0.0/24"), "of one family"),
            (ports("0-1"), "ports as first-last"),
            (ports("2-1"), "ports as first-last"),
            (ports("1-65536"), "ports as first-last"),
            (ports("1"), "ports as first-last"),
            (json!([{"ct": {"nat": {"ports": "1-2"}}}]), "src or dst"),
            (
                json!([{"ct": {"commit": true, "nat": {"src": "10.0.0.1", "dst": "10.0.0.1"}}}]),
                "src or dst",
            ),
            (json!([{"ct": {"mark": 1}}]), "ct without commit"),
            (
                json!([{"ct": {"nat": {"src": "10.0.0.1"}}}]),
                "ct without commit",
            ),
            (json!([{"ct": {"zone": 65536}}]), "zone"),
            (json!([{"ct": {"table": 0}}]), "ct"),
        ],
    );
    does(
        &json!({"dl_type": "ipv6"}),
        &[nat("src", "fd00::1"), nat("dst", "fd00::1-fd00::9")],
        &[
            (nat("src", "10.0.0.1"), "of the family that the match names"),
            (nat("dst", "fd00::9-fd00::1"), "of one family"),
        ],
    );
}

#[test]
fn loads_and_moves_stay_inside_their_fields() {
    let load = |value: u64, into: Value| json!([{"load": {"value": value, "into": into}}]);
    let copy = |from: Value, into: Value| json!([{"move": {"from": from, "into": into}}]);
    let part = |start: u8, bits: u8| json!({"field": "reg2", "start": start, "bits": bits});
    does(
        &json!({}),
        &[
            load(255, part(0, 8)),
            load(0xffff_ffff, part(0, 32)),
            load(1, part(31, 1)),
            load(1, json!({"field": "reg2", "start": 31})),
            load((1 << 53) - 1, json!({"field": "metadata"})),
            copy(json!({"field": "ct_mark"}), json!({"field": "reg1"})),
            copy(part(0, 8), part(8, 8)),
        ],
        &[
            (load(256, part(0, 8)), "fits into the bits"),
            (load(1 << 32, part(0, 32)), "fits into the bits"),
            (
                load(1 << 53, json!({"field": "metadata"})),
                "fits into the bits",
            ),
            (load(1, part(32, 1)), "inside its width"),
            (load(1, part(31, 2)), "inside its width"),
            (load(1, part(4, 32)), "inside its width"),
            (load(1, part(0, 0)), "inside its width"),
            (load(1, part(0, 33)), "inside its width"),
            (load(1, json!({"field": "ct_mark"})), "can be written"),
            (load(1, json!({"field": "vlan"})), "written by set_field"),
            (
                copy(json!({"field": "ct_zone"}), json!({"field": "reg1"})),
                "can be copied",
            ),
            (
                copy(json!({"field": "dl_type"}), json!({"field": "reg1"})),
                "can be copied",
            ),
            (copy(part(0, 8), part(8, 9)), "as many bits"),
        ],
    );
}

#[test]
fn a_conjunction_has_two_to_64_clauses_and_a_number() {
    let part = |id: u64, clause: u64, of: u64| json!([{"conjunction": {"id": id, "clause": clause, "of": of}}]);
    let rule = "clause from 1 to of";
    does(
        &json!({}),
        &[part(1, 1, 2), part(1, 2, 2), part(u32::MAX.into(), 64, 64)],
        &[
            (part(0, 1, 2), rule),
            (part(1 << 32, 1, 2), rule),
            (part(1, 0, 2), rule),
            (part(1, 3, 2), rule),
            (part(1, 1, 1), rule),
            (part(1, 1, 65), rule),
            (part(1, 2, 1), rule),
        ],
    );
}

#[test]
fn names_that_people_expect_are_refused_with_what_to_do_instead() {
    for (name, why) in [
        ("allow", "use normal or output"),
        ("accept", "use normal or output"),
        ("permit", "use normal or output"),
        ("delay", "queue or MTU"),
        ("jitter", "queue or MTU"),
        ("fragment", "queue or MTU"),
        ("controller", "does not write it"),
        ("learn", "does not write it"),
        ("note", "does not write it"),
        ("group", "does not write it"),
        ("sample", "does not write it"),
    ] {
        for action in [json!(name), json!({ name: 1 })] {
            let error = flow(&json!({}), &json!([action])).expect_err(name);
            assert!(error.contains(why), "{name}: {error}");
        }
    }
    let error = flow(&json!({}), &json!([{"nonsense": 1}])).expect_err("no action");
    assert!(
        !error.contains("queue or MTU") && !error.contains("does not write it"),
        "{error}"
    );
}
