//! Flows and meters on a real switch, seen with the switch's own tools.

mod compartment_world;
mod ovs_world;

use std::os::unix::net::{UnixListener, UnixStream};

use blockhost_proto::action::Action;
use blockhost_proto::response::ErrorCode;
use ovs_world::{Switch, failed, veth, with_switch};
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

/// Flows to `count` addresses from 10.0.0.0 on, as one flow with rows.
fn many(count: u32, action: &str) -> Value {
    let rows: Vec<Value> = (0..count)
        .map(|n| json!([std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string()]))
        .collect();
    json!([{"priority": 100, "match": {"dl_type": "ip"}, "actions": [action], "columns": ["/match/nw_dst"], "rows": rows}])
}

#[test]
fn one_flow_that_the_switch_refuses_and_nothing_changes() {
    with_switch(
        "one_flow_that_the_switch_refuses_and_nothing_changes",
        |switch| {
            switch.bridge("br0");
            let set = |flows: &Value| {
                switch.ask(
                    "ovs-set-flows",
                    &json!({"bridge": "br0", "owner": "a", "flows": flows}),
                )
            };
            set(&many(20, "normal")).expect("good flows");
            let before = switch.flows("br0");
            let mut flows: Vec<Value> = (0..50u32)
                .map(|n| json!({"priority": n + 1, "actions": ["drop"]}))
                .collect();
            flows[30] = json!({"priority": 31, "actions": [{"meter": 99}, "normal"]});
            failed(
                set(&json!(flows)),
                ErrorCode::Failed,
                "flow 30 (table 0, priority 31): there is no such meter",
            );
            assert_eq!(before, switch.flows("br0"), "half of a bundle");
            // Refused before anything is sent.
            flows[30] = json!({"priority": 31, "actions": [{"output": "nowhere"}]});
            failed(
                set(&json!(flows)),
                ErrorCode::Failed,
                "flow 30: the bridge has no port nowhere",
            );
            let wide = json!([{"match": {"dl_type": "ipv6"}, "actions": [{"load": {"value": 1, "into": {"field": "ipv6_dst"}}}, "normal"]}]);
            failed(set(&wide), ErrorCode::Failed, "at most 64 bits");
            // One port by number and by name is one flow to the switch.
            let twice = json!([
                {"match": {"in_port": 65534}, "actions": ["drop"]},
                {"match": {"in_port": "br0"}, "actions": ["drop"]},
            ]);
            if Action::from_parts(
                "ovs-set-flows",
                &json!({"bridge": "br0", "owner": "a", "flows": twice}),
            )
            .is_ok()
            {
                failed(set(&twice), ErrorCode::BadParams, "flow 1");
            }
            assert_eq!(before, switch.flows("br0"));
            let missing = json!({"bridge": "br9", "owner": "a", "flows": []});
            failed(
                switch.ask("ovs-set-flows", &missing),
                ErrorCode::NotFound,
                "no bridge br9",
            );
        },
    );
}

#[test]
fn owners_keep_out_of_each_others_flows() {
    with_switch("owners_keep_out_of_each_others_flows", |switch| {
        switch.bridge("br0");
        let set = |owner: &str, flows: &Value| {
            switch.ask(
                "ovs-set-flows",
                &json!({"bridge": "br0", "owner": owner, "flows": flows}),
            )
        };
        let untouched = switch.flows("br0");
        assert_eq!(
            untouched,
            ["priority=0 actions=NORMAL"],
            "the switch's own flow"
        );
        let base = json!([{"priority": 0, "actions": ["drop"]}, {"priority": 10, "match": {"dl_type": "arp"}, "actions": ["normal"]}]);
        let done = set("base", &base).expect("the default flow may be replaced");
        assert_eq!(done.extra["added"], 2);
        set("vm.100", &many(5, "normal")).expect("another owner");
        failed(
            set("vm.100", &base),
            ErrorCode::Conflict,
            "another owner (base)",
        );
        assert_eq!(
            switch.flows("br0").len(),
            7,
            "a refused change changed something"
        );
        switch.ofctl(&["add-flow", "br0", "priority=77,actions=drop"]);
        failed(
            set("vm.100", &json!([{"priority": 77, "actions": ["normal"]}])),
            ErrorCode::Conflict,
            "(cookie 0x0)",
        );

        let owners = |switch: &Switch| {
            switch.list(&json!({"bridge": "br0"}))["bridges"][0]["owners"].clone()
        };
        let counted: Vec<(Value, Value)> = owners(switch)
            .as_array()
            .expect("a list")
            .iter()
            .map(|owner| (owner["owner"].clone(), owner["flows"].clone()))
            .collect();
        for expected in [
            (json!("base"), json!(2)),
            (json!("vm.100"), json!(5)),
            (Value::Null, json!(1)),
        ] {
            assert!(counted.contains(&expected), "{counted:?}");
        }
        let listed = switch.list(&json!({"bridge": "br0", "flows": true, "owner": "base"}));
        let flows = listed["bridges"][0]["flows"].as_array().expect("flows");
        assert_eq!(flows.len(), 2);
        assert_eq!(flows[0]["match"], json!({"dl_type": "0x806"}));

        set("base", &json!([])).expect("removed");
        let left = switch.flows("br0");
        assert_eq!(left.len(), 7, "{left:?}");
        assert!(
            left.contains(&untouched[0]),
            "the bridge lost the flow that it had by itself"
        );
        set("vm.100", &json!([])).expect("removed");
        let ids = switch.vsctl("get Bridge br0 external_ids");
        assert_eq!(
            ids, "{blockhost-owner=root-agent}",
            "owners without flows are remembered"
        );
    });
}

#[test]
fn what_is_asked_for_and_what_became_of_it_are_listed_and_a_change_by_hand_shows() {
    with_switch(
        "what_is_asked_for_and_what_became_of_it_are_listed_and_a_change_by_hand_shows",
        |switch| {
            switch.bridge("br0");
            switch.vsctl("add-port br0 int0 -- set Interface int0 type=internal");
            let flows = json!([
                {"priority": 5, "match": {"in_port": "int0", "dl_type": "arp"}, "actions": ["normal"]},
                {"priority": 6, "match": {"dl_type": "ip", "nw_dst": "10.0.0.0/8"}, "actions": [{"output": "int0"}]},
                {"priority": 7, "match": {"dl_dst": "01:00:00:00:00:00/01:00:00:00:00:00"}, "actions": ["drop"]},
            ]);
            let params = json!({"bridge": "br0", "owner": "web", "flows": flows});
            let set = || switch.must("ovs-set-flows", &params);
            set();
            let Ok(Action::OvsSetFlows(wanted)) = Action::from_parts("ovs-set-flows", &params)
            else {
                panic!("of the catalog");
            };
            let port = |what: &str| {
                let listed = switch.list(&json!({"bridge": "br0"}));
                let ports = listed["bridges"][0]["ports"]
                    .as_array()
                    .expect("ports")
                    .clone();
                let port = ports
                    .into_iter()
                    .find(|port| port["name"] == "int0")
                    .expect("it");
                port[what].clone()
            };
            let owner = || {
                let listed = switch.list(&json!({"bridge": "br0"}));
                let owners = listed["bridges"][0]["owners"]
                    .as_array()
                    .expect("owners")
                    .clone();
                owners
                    .into_iter()
                    .find(|owner| owner["owner"] == "web")
                    .expect("it")
            };
            let number = u16::try_from(port("ofport").as_u64().expect("a number")).expect("small");
            let asked = wanted.flows.fingerprint(|_| Some(number)).expect("numbers");
            assert_eq!(
                (&owner()["asked"], &owner()["as_set"]),
                (&json!(asked.as_str()), &json!(true))
            );
            assert_ne!(
                wanted.flows.fingerprint(|_| Some(number + 1)),
                Some(asked),
                "other ports are another wish"
            );
            assert_eq!(wanted.flows.fingerprint(|_| None), None);

            // The same places, and as many.
            switch.ofctl(&["mod-flows", "br0", "arp,in_port=int0,actions=drop"]);
            assert_eq!(
                (&owner()["flows"], &owner()["as_set"]),
                (&json!(3), &json!(false))
            );
            assert_eq!(set().extra["changed"], 1);
            assert_eq!(owner()["as_set"], true);
            switch.ofctl(&["del-flows", "br0", "arp,in_port=int0"]);
            assert_eq!(owner()["as_set"], false);
            // Whatever somebody wrote there is no proof of anything.
            set();
            let key = format!("blockhost-asked-{:012x}", wanted.owner.cookie());
            for torn in ["x", "x_y", "0"] {
                switch.vsctl(&format!("set Bridge br0 external_ids:{key}={torn}"));
                assert_ne!(owner()["as_set"], true, "{torn}");
            }
            set();
            assert_eq!(owner()["as_set"], true);

            assert_eq!(port("limits"), Value::Null);
            let qos = json!({"bridge": "br0", "port": "int0", "max_kbps": 1000,
                "queues": [{"queue": 7, "min_kbps": 3, "priority": 2}, {"queue": 1, "max_kbps": 5, "burst_kbit": 8}],
                "ingress_kbps": 9, "ingress_burst_kbit": 4});
            switch.must("ovs-set-qos", &qos);
            let limits = json!({"max_kbps": 1000, "ingress_kbps": 9, "ingress_burst_kbit": 4,
                "queues": [{"queue": 1, "max_kbps": 5, "burst_kbit": 8}, {"queue": 7, "min_kbps": 3, "priority": 2}]});
            assert_eq!(port("limits"), limits);
            let row = switch.vsctl("get Port int0 qos");
            switch.vsctl(&format!("set QoS {row} other_config:max-rate=1500"));
            assert_eq!(port("limits")["foreign"], true, "not in kilobits");
            switch.must("ovs-set-qos", &json!({"bridge": "br0", "port": "int0"}));
            assert_eq!(port("limits"), Value::Null);
        },
    );
}

/// Runs one change of flows through a relay on the bridge's socket; how many bytes went to the switch.
fn counting<T>(switch: &Switch, change: impl FnOnce() -> T) -> (T, u64) {
    let socket = switch.directory().join("br0.mgmt");
    let moved = switch.directory().join("br0.moved");
    std::fs::rename(&socket, &moved).expect("a new name");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let result = std::thread::scope(|scope| {
        let relay = scope.spawn(|| {
            let (mut agent, _) = listener.accept().expect("the agent");
            let mut bridge = UnixStream::connect(&moved).expect("the bridge");
            let (mut back, mut to) = (
                bridge.try_clone().expect("a copy"),
                agent.try_clone().expect("a copy"),
            );
            scope.spawn(move || std::io::copy(&mut back, &mut to));
            let sent = std::io::copy(&mut agent, &mut bridge).expect("bytes");
            bridge.shutdown(std::net::Shutdown::Both).expect("an end");
            sent
        });
        let result = change();
        (result, relay.join().expect("no panic"))
    });
    std::fs::rename(&moved, &socket).expect("the old name");
    result
}

#[test]
fn a_bridge_that_becomes_secure_or_open_again_keeps_its_flows_and_meters() {
    let test = "a_bridge_that_becomes_secure_or_open_again_keeps_its_flows_and_meters";
    with_switch(test, |switch| {
        switch.bridge("br0");
        let meters = [
            json!({"bridge": "br0", "meter": 1, "rate": 1000, "burst": 100}),
            json!({"bridge": "br0", "meter": 2, "rate": 7, "unit": "pktps"}),
        ];
        for meter in &meters {
            switch.must("ovs-set-meter", meter);
        }
        veth("one");
        switch.must("ovs-add-port", &json!({"bridge": "br0", "port": "one"}));
        let all = json!({"bridge": "br0", "owner": "zoo", "flows": zoo()});
        switch.must("ovs-set-flows", &all);
        let more = json!({"bridge": "br0", "owner": "more", "flows": moved_fields()});
        switch.must("ovs-set-flows", &more);
        // What somebody else has set is kept as well.
        switch.ofctl(&[
            "add-flow",
            "br0",
            "cookie=0x77,priority=99,tcp,actions=normal",
        ]);
        let seen = |switch: &Switch| {
            let list = switch.list(&json!({"bridge": "br0"}));
            let bridge = &list["bridges"][0];
            let owners = bridge["owners"].as_array().expect("owners").iter();
            let owners: Vec<Value> = owners
                .map(|owner| json!([owner["owner"], owner["flows"], owner["as_set"]]))
                .collect();
            let meters = bridge["meters"].as_array().expect("meters").iter();
            let meters: Vec<Value> = meters
                .map(|meter| json!([meter["meter"], meter["unit"], meter["rate"], meter["burst"]]))
                .collect();
            (with_owner(switch.flows("br0")), owners, meters)
        };
        let before = seen(switch);
        assert!(before.1.iter().any(|owner| owner[2] == true), "{before:?}");
        for mode in ["secure", "standalone", "secure"] {
            let options = json!({"bridge": "br0", "options": {"fail_mode": mode}});
            switch.must("ovs-add-br", &options);
            assert_eq!(switch.vsctl("get Bridge br0 fail_mode"), mode);
            assert_eq!(seen(switch), before, "{mode}");
        }
        // Without flows of anybody a bridge that stands alone is a learning switch, and a secure one passes nothing.
        for owner in ["zoo", "more"] {
            let nothing = json!({"bridge": "br0", "owner": owner, "flows": []});
            switch.must("ovs-set-flows", &nothing);
        }
        switch.ofctl(&["del-flows", "br0"]);
        for (mode, flows) in [("standalone", 1), ("secure", 0), ("standalone", 1)] {
            let options = json!({"bridge": "br0", "options": {"fail_mode": mode}});
            switch.must("ovs-add-br", &options);
            assert_eq!(switch.flows("br0").len(), flows, "{mode}");
        }
    });
}

#[test]
fn ten_thousand_flows_arrive_and_a_change_of_ten_sends_ten() {
    with_switch(
        "ten_thousand_flows_arrive_and_a_change_of_ten_sends_ten",
        |switch| {
            switch.bridge("br0");
            let set = |flows: &Value| {
                switch.must(
                    "ovs-set-flows",
                    &json!({"bridge": "br0", "owner": "many", "flows": flows}),
                )
            };
            assert_eq!(set(&many(10_000, "normal")).extra["added"], 10_000);
            assert_eq!(switch.flows("br0").len(), 10_001);
            // Ten others: five that do something else, five gone.
            let mut flows = many(9_990, "normal");
            let mut other = many(5, "drop");
            other[0]["rows"] = (9_990..9_995u32)
                .map(|n| json!([std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string()]))
                .collect();
            flows.as_array_mut().expect("a list").push(other[0].clone());
            let (done, sent) = counting(switch, || set(&flows));
            assert_eq!(
                [
                    &done.extra["changed"],
                    &done.extra["removed"],
                    &done.extra["unchanged"],
                    &done.extra["added"]
                ],
                [5, 5, 9_990, 0]
            );
            assert!(sent < 10_000, "{sent} bytes for a change of ten");
            assert_eq!(switch.flows("br0").len(), 9_996);
            let listed = switch
                .must("ovs-list", &json!({"bridge": "br0", "flows": true}))
                .output;
            assert!(listed.len() < 1 << 20, "{} bytes", listed.len());
            let listed: Value = serde_json::from_str(&listed).expect("JSON");
            let bridge = &listed["bridges"][0];
            let shown = bridge["flows"].as_array().expect("flows").len();
            assert_eq!(
                shown as u64 + bridge["flows_left_out"].as_u64().expect("a number"),
                9_996
            );
            assert_eq!(set(&json!([])).extra["removed"], 9_995);
        },
    );
}
