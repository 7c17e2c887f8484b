//! Bridges, ports and queues on a real switch: what is answered is what the switch does, what failed leaves nothing, and
//! what somebody else made stays.

mod compartment_world;
mod ovs_world;

use blockhost_proto::response::ErrorCode;
use blockhost_root_agent::compartment::{Done, Failure};
use compartment_world::tool;
use ovs_world::{Switch, eventually, veth, with_switch};
use serde_json::{Value, json};

fn failed(result: Result<Done, Failure>, code: ErrorCode, text: &str) {
    let failure = result.expect_err("it must not succeed");
    assert_eq!(failure.code, code, "{}", failure.message);
    assert!(failure.message.contains(text), "{}", failure.message);
    assert!(!failure.message.contains('\n'), "{}", failure.message);
}

/// Everything in the database that a failed action must not change.
fn rows(switch: &Switch) -> Vec<String> {
    let tables = ["Bridge", "Port", "Interface", "QoS", "Queue"];
    let columns = [
        "name,ports,external_ids",
        "name,external_ids,qos",
        "name,external_ids",
        "_uuid",
        "_uuid",
    ];
    tables
        .iter()
        .zip(columns)
        .map(|(table, columns)| switch.vsctl(&format!("--columns={columns} list {table}")))
        .collect()
}

#[test]
fn a_bridge_is_there_when_it_is_said_to_be_and_gone_when_it_is_said_to_be() {
    with_switch(
        "a_bridge_is_there_when_it_is_said_to_be_and_gone_when_it_is_said_to_be",
        |switch| {
            let options = json!({"datapath_type": "netdev", "fail_mode": "secure", "hwaddr": "02:00:00:00:0A:01", "mtu": 1400, "mcast_snooping": true});
            let params = json!({"bridge": "br0", "options": options});
            assert_eq!(switch.must("ovs-add-br", &params).extra["created"], true);
            assert!(tool("ip link show br0").contains("02:00:00:00:0a:01"));
            assert!(tool("ip link show br0").contains("mtu 1400"));
            assert_eq!(switch.vsctl("get Bridge br0 fail_mode"), "secure");
            assert_eq!(
                switch.flows("br0"),
                Vec::<String>::new(),
                "secure means no flow by itself"
            );
            assert_eq!(
                switch.must("ovs-add-br", &params).extra["created"],
                false,
                "the same again"
            );
            let other = json!({"bridge": "br0", "options": {"datapath_type": "system"}});
            failed(
                switch.ask("ovs-add-br", &other),
                ErrorCode::Conflict,
                "another datapath_type",
            );
            switch.must("ovs-del-br", &json!({"bridge": "br0"}));
            assert_eq!(switch.vsctl("list-br"), "");
            assert_eq!(switch.vsctl("list Port"), "", "rows are left");
            failed(
                switch.ask("ovs-del-br", &json!({"bridge": "br0"})),
                ErrorCode::NotFound,
                "no bridge br0",
            );
        },
    );
}

#[test]
fn a_bridge_that_the_host_is_reached_by_or_leaves_by_is_not_deleted() {
    with_switch(
        "a_bridge_that_the_host_is_reached_by_or_leaves_by_is_not_deleted",
        |switch| {
            let gone = |switch: &Switch| switch.ask("ovs-del-br", &json!({"bridge": "br0"}));
            for (given, taken, told) in [
                (
                    &["ip addr add 198.51.100.2/24 dev br0"][..],
                    &["ip addr del 198.51.100.2/24 dev br0"][..],
                    "198.51.100.2/24",
                ),
                (
                    &["ip addr add 2001:db8::2/64 dev br0 nodad"],
                    &["ip addr del 2001:db8::2/64 dev br0"],
                    "2001:db8::2/64",
                ),
                // Of the policy's own networks, but the host's way out leads by it.
                (
                    &[
                        "ip addr add 10.1.0.2/24 dev br0",
                        "ip route add default via 10.1.0.1",
                    ],
                    &["ip route del default via 10.1.0.1"],
                    "10.1.0.2/24",
                ),
                (
                    &["ip -6 route add default via fe80::1 dev br0"],
                    &["ip -6 route del default via fe80::1 dev br0"],
                    "default route by fe80::1",
                ),
                (
                    &["ip route add default dev br0"],
                    &["ip route del default dev br0"],
                    "default route 0.0.0.0/0",
                ),
            ] {
                switch.bridge("br0");
                tool("ip link set br0 up");
                given.iter().for_each(|words| drop(tool(words)));
                let before = rows(switch);
                failed(gone(switch), ErrorCode::Conflict, told);
                assert_eq!(rows(switch), before, "{told}");
                taken.iter().for_each(|words| drop(tool(words)));
                // What is left are addresses that the policy lets be given and taken, and no way out but by another device.
                gone(switch).map_err(|failure| failure.message).expect(told);
                assert_eq!(switch.vsctl("list-br"), "");
            }
            // The same of a device that the switch made for a port: it goes with the port, and with the bridge.
            switch.bridge("br0");
            let port = json!({"bridge": "br0", "port": "inside", "kind": "internal"});
            switch.must("ovs-add-port", &port);
            tool("ip link set inside up");
            tool("ip addr add 198.51.100.3/24 dev inside");
            let off = || switch.ask("ovs-del-port", &json!({"bridge": "br0", "port": "inside"}));
            let before = rows(switch);
            for refused in [gone(switch), off()] {
                failed(refused, ErrorCode::Conflict, "198.51.100.3/24 of inside");
                assert_eq!(rows(switch), before);
            }
            tool("ip addr del 198.51.100.3/24 dev inside");
            tool("ip route add default via 198.51.100.1 dev inside onlink");
            for refused in [gone(switch), off()] {
                let way = "the default route by 198.51.100.1 of inside";
                failed(refused, ErrorCode::Conflict, way);
            }
            tool("ip route del default");
            off().map_err(|failure| failure.message).expect("off");
            gone(switch)
                .map_err(|failure| failure.message)
                .expect("gone");
            // The way out that is left is another device's.
            veth("uplink");
            switch.bridge("br0");
            for device in ["br0", "uplink"] {
                tool(&format!("ip link set {device} up"));
                tool(&format!(
                    "ip -6 route append default via fe80::1 dev {device}"
                ));
            }
            gone(switch)
                .map_err(|failure| failure.message)
                .expect("gone");
        },
    );
}

#[test]
fn an_uplink_stays_on_its_bridge_while_the_way_out_leads_over_that() {
    let test = "an_uplink_stays_on_its_bridge_while_the_way_out_leads_over_that";
    with_switch(test, |switch| {
        switch.world.policy.allow.uplinks = vec!["up0".to_owned()];
        switch.bridge("br0");
        for device in ["up0", "other"] {
            veth(device);
            switch.must("ovs-add-port", &json!({"bridge": "br0", "port": device}));
        }
        tool("ip link set br0 up");
        tool("ip addr add 198.51.100.3/24 dev br0");
        let off = |port: &str| switch.ask("ovs-del-port", &json!({"bridge": "br0", "port": port}));
        let on = |port: &str| switch.must("ovs-add-port", &json!({"bridge": "br0", "port": port}));
        tool("ip route add default via 198.51.100.1 dev br0");
        failed(
            off("up0"),
            ErrorCode::Conflict,
            "the default route by 198.51.100.1 of br0",
        );
        assert!(switch.vsctl("list-ports br0").contains("up0"));
        // What nobody named as an uplink goes, and the uplink where there is another way out, as in the middle of a move.
        off("other")
            .map_err(|failure| failure.message)
            .expect("off");
        tool("ip addr add 203.0.113.3/24 dev other");
        tool("ip route append default via 203.0.113.1 dev other metric 7");
        off("up0").map_err(|failure| failure.message).expect("off");
        on("up0");
        tool("ip route del default via 203.0.113.1 dev other");
        failed(off("up0"), ErrorCode::Conflict, "default route");
        // A device that stands on the bridge leads over the uplink as well.
        tool("ip route del default");
        tool("ip link add link br0 name above type macvlan");
        tool("ip addr add 192.0.2.3/24 dev above");
        tool("ip link set above up");
        tool("ip route add default via 192.0.2.1 dev above");
        failed(off("up0"), ErrorCode::Conflict, "of above");
        tool("ip route del default");
        off("up0").map_err(|failure| failure.message).expect("off");
    });
}

#[test]
fn an_uplink_goes_while_another_one_carries_on() {
    with_switch("an_uplink_goes_while_another_one_carries_on", |switch| {
        switch.world.policy.allow.uplinks = ["up0", "up1"].map(str::to_owned).to_vec();
        switch.bridge("br0");
        for device in ["up0", "up1", "other"] {
            veth(device);
        }
        let on = |port: &str, tag: Option<u16>| {
            let mut params = json!({"bridge": "br0", "port": port});
            if let Some(tag) = tag {
                params["tag"] = tag.into();
            }
            switch.must("ovs-add-port", &params);
        };
        let off = |port: &str| switch.ask("ovs-del-port", &json!({"bridge": "br0", "port": port}));
        let stays = || failed(off("up0"), ErrorCode::Conflict, "the default route");
        tool("ip link set br0 up");
        tool("ip addr add 198.51.100.3/24 dev br0");
        tool("ip route add default via 198.51.100.1 dev br0");
        on("up0", None);
        on("other", None);
        stays();
        on("up1", Some(7));
        stays();
        on("up1", None);
        tool("ip link set up1-peer down");
        assert!(eventually(|| {
            switch.list(&json!({}))["bridges"][0]["ports"]
                .as_array()
                .is_some_and(|ports| {
                    ports
                        .iter()
                        .any(|port| port["name"] == "up1" && port["link"] == "down")
                })
        }));
        stays();
        tool("ip link set up1-peer up");
        tool("ip link set up1 down");
        stays();
        tool("ip link set up1 up");
        let mut refused = None;
        let gone = || match off("up0") {
            Ok(_) => true,
            Err(failure) => {
                refused = Some(failure);
                false
            }
        };
        // Its carrier comes a moment after it is up.
        assert!(eventually(gone), "{refused:?}");
        assert_eq!(switch.vsctl("list-ports br0"), "other\nup1");
        // It is the last one now.
        failed(off("up1"), ErrorCode::Conflict, "the default route");
    });
}

#[test]
fn a_bridge_that_the_switch_cannot_make_is_an_error_and_leaves_no_rows() {
    with_switch(
        "a_bridge_that_the_switch_cannot_make_is_an_error_and_leaves_no_rows",
        |switch| {
            if std::path::Path::new("/sys/module/openvswitch").exists() {
                println!("skipped: the kernel can do what was meant to fail");
                return;
            }
            failed(
                switch.ask("ovs-add-br", &json!({"bridge": "br0"})),
                ErrorCode::Failed,
                "kernel module",
            );
            assert_eq!(switch.vsctl("list Bridge"), "");
            assert_eq!(switch.vsctl("list Interface"), "");
        },
    );
}

#[test]
fn what_somebody_else_made_is_neither_changed_nor_deleted() {
    with_switch(
        "what_somebody_else_made_is_neither_changed_nor_deleted",
        |switch| {
            veth("theirs");
            switch.vsctl("add-br foreign -- set Bridge foreign datapath_type=netdev");
            switch.vsctl("add-port foreign theirs tag=7");
            switch.vsctl("set Port theirs qos=@q -- --id=@q create QoS type=linux-htb other-config:max-rate=1000000");
            switch.bridge("ours");
            let before = rows(switch);
            let bridge = json!({"bridge": "foreign", "options": {"datapath_type": "netdev", "fail_mode": "secure"}});
            failed(
                switch.ask("ovs-add-br", &bridge),
                ErrorCode::Conflict,
                "not made by this agent",
            );
            failed(
                switch.ask("ovs-del-br", &json!({"bridge": "foreign"})),
                ErrorCode::Forbidden,
                "not made by this agent",
            );
            let port = json!({"bridge": "foreign", "port": "theirs"});
            failed(
                switch.ask("ovs-add-port", &port),
                ErrorCode::Conflict,
                "not attached by this agent",
            );
            failed(
                switch.ask("ovs-del-port", &port),
                ErrorCode::Forbidden,
                "not attached",
            );
            failed(
                switch.ask("ovs-set-qos", &port),
                ErrorCode::Conflict,
                "QoS that was not made by this agent",
            );
            failed(
                switch.ask("ovs-add-port", &json!({"bridge": "ours", "port": "theirs"})),
                ErrorCode::Conflict,
                "on bridge foreign",
            );
            failed(
                switch.ask("ovs-del-port", &json!({"bridge": "ours", "port": "theirs"})),
                ErrorCode::NotFound,
                "on foreign",
            );
            failed(
                switch.ask("ovs-del-port", &json!({"bridge": "ours", "port": "ours"})),
                ErrorCode::Forbidden,
                "not attached by ovs-add-port",
            );
            let own = json!({"bridge": "ours", "port": "ours", "kind": "internal", "tag": 7});
            failed(
                switch.ask("ovs-add-port", &own),
                ErrorCode::Forbidden,
                "the bridge's own",
            );
            failed(
                switch.ask("ovs-add-br", &json!({"bridge": "theirs"})),
                ErrorCode::Conflict,
                "name of a port",
            );
            assert_eq!(before, rows(switch));
        },
    );
}

#[test]
fn a_port_carries_what_it_belongs_to_and_a_second_add_changes_it() {
    with_switch(
        "a_port_carries_what_it_belongs_to_and_a_second_add_changes_it",
        |switch| {
            switch.bridge("br0");
            veth("vi100");
            let first = json!({"bridge": "br0", "port": "vi100", "tag": 10, "vmid": 100, "iface_id": "eth0", "attached_mac": "02:00:00:00:01:64"});
            let done = switch.must("ovs-add-port", &first);
            assert_eq!(done.extra["created"], true);
            assert_eq!(
                switch.vsctl("get Interface vi100 ofport"),
                done.extra["ofport"].to_string()
            );
            let ids = switch.vsctl("get Interface vi100 external_ids");
            assert_eq!(
                ids,
                "{attached-mac=\"02:00:00:00:01:64\", iface-id=eth0, vm-id=\"100\"}"
            );
            assert_eq!(switch.vsctl("get Port vi100 tag vlan_mode"), "10\naccess");

            let second = json!({"bridge": "br0", "port": "vi100", "tag": 5, "trunks": [30, 20], "vmid": 101});
            let again = switch.must("ovs-add-port", &second);
            assert_eq!(again.extra["created"], false);
            assert_eq!(again.extra["ofport"], done.extra["ofport"]);
            assert_eq!(
                switch.vsctl("get Interface vi100 external_ids"),
                "{vm-id=\"101\"}"
            );
            assert_eq!(
                switch.vsctl("get Port vi100 tag trunks vlan_mode"),
                "5\n[20, 30]\nnative-untagged"
            );

            let listed = switch.list(&json!({"bridge": "br0"}));
            let ports = listed["bridges"][0]["ports"].as_array().expect("ports");
            let port = ports
                .iter()
                .find(|port| port["name"] == "vi100")
                .expect("the port");
            assert_eq!(
                (&port["vmid"], &port["tag"], &port["trunks"]),
                (&json!(101), &json!(5), &json!([20, 30]))
            );
            assert!(port["counters"]["rx_packets"].is_u64(), "{port}");

            switch.must(
                "ovs-add-port",
                &json!({"bridge": "br0", "port": "inside", "kind": "internal"}),
            );
            tool("ip link show inside");
            failed(
                switch.ask("ovs-add-port", &json!({"bridge": "br0", "port": "inside"})),
                ErrorCode::Conflict,
                "of another kind",
            );
            for port in ["vi100", "inside"] {
                switch.must("ovs-del-port", &json!({"bridge": "br0", "port": port}));
                failed(
                    switch.ask("ovs-del-port", &json!({"bridge": "br0", "port": port})),
                    ErrorCode::NotFound,
                    port,
                );
            }
            assert_eq!(switch.vsctl("list-ports br0"), "");
        },
    );
}

#[test]
fn a_port_without_its_device_is_an_error_and_leaves_no_row() {
    with_switch(
        "a_port_without_its_device_is_an_error_and_leaves_no_row",
        |switch| {
            switch.bridge("br0");
            let before = rows(switch);
            let params = json!({"bridge": "br0", "port": "nowhere", "vmid": 100});
            let failure = switch
                .ask("ovs-add-port", &params)
                .expect_err("no such device");
            assert_eq!(failure.code, ErrorCode::Failed);
            assert!(
                failure.message.contains("nowhere") && failure.message.contains("No such device"),
                "{}",
                failure.message
            );
            assert!(
                failure.message.ends_with("it was taken away again"),
                "{}",
                failure.message
            );
            assert_eq!(before, rows(switch));
            failed(
                switch.ask("ovs-add-port", &json!({"bridge": "br9", "port": "x"})),
                ErrorCode::NotFound,
                "no bridge br9",
            );
            // The name is not burnt.
            veth("nowhere");
            switch.must("ovs-add-port", &params);
        },
    );
}

#[test]
fn queues_are_made_in_the_kernel_and_their_rows_go_with_them() {
    with_switch(
        "queues_are_made_in_the_kernel_and_their_rows_go_with_them",
        |switch| {
            switch.bridge("br0");
            veth("vi100");
            veth("vi101");
            for port in ["vi100", "vi101"] {
                switch.must("ovs-add-port", &json!({"bridge": "br0", "port": port}));
            }
            let queues = json!([
                {"queue": 0, "min_kbps": 1000, "max_kbps": 2000},
                {"queue": 1, "min_kbps": 3000, "max_kbps": 8000, "burst_kbit": 100, "priority": 1},
            ]);
            let params = json!({"bridge": "br0", "port": "vi100", "max_kbps": 10000, "queues": queues, "ingress_kbps": 5000, "ingress_burst_kbit": 500});
            let classes = || tool("tc class show dev vi100");
            for round in 0..3 {
                switch.must("ovs-set-qos", &params);
                assert!(
                    eventually(|| classes().contains("rate 3Mbit ceil 8Mbit")),
                    "round {round}: {}",
                    classes()
                );
                assert!(
                    classes().contains("rate 10Mbit ceil 10Mbit"),
                    "{}",
                    classes()
                );
                assert_eq!(
                    switch.vsctl("--columns=_uuid list QoS").lines().count(),
                    1,
                    "rows pile up"
                );
            }
            assert_eq!(
                switch.vsctl("get Interface vi100 ingress_policing_rate ingress_policing_burst"),
                "5000\n500"
            );
            // An orphan, as an ovs-vsctl del-port would leave it.
            switch.must(
                "ovs-set-qos",
                &json!({"bridge": "br0", "port": "vi101", "max_kbps": 77}),
            );
            switch.vsctl("del-port br0 vi101");
            assert_ne!(
                switch.vsctl("--columns=_uuid find QoS other_config:max-rate=77000"),
                ""
            );
            switch.must("ovs-set-qos", &json!({"bridge": "br0", "port": "vi100"}));
            assert!(eventually(|| !classes().contains("htb")), "{}", classes());
            assert_eq!(switch.vsctl("list QoS"), "", "rows are left");
            assert_eq!(switch.vsctl("list Queue"), "", "rows are left");
            assert_eq!(
                switch.vsctl("get Interface vi100 ingress_policing_rate"),
                "0"
            );

            switch.must("ovs-set-qos", &params);
            switch.must("ovs-del-br", &json!({"bridge": "br0"}));
            assert_eq!(switch.vsctl("list Queue"), "", "rows outlive their bridge");
        },
    );
}

#[test]
fn an_empty_switch_lists_nothing_and_a_missing_bridge_is_not_found() {
    with_switch(
        "an_empty_switch_lists_nothing_and_a_missing_bridge_is_not_found",
        |switch| {
            assert_eq!(switch.list(&json!({})), json!({"bridges": []}));
            failed(
                switch.ask("ovs-list", &json!({"bridge": "br0"})),
                ErrorCode::NotFound,
                "no bridge br0",
            );
            // A bridge that the switch could not make is listed with its error and does not hide the others.
            switch.bridge("br0");
            switch.vsctl("--no-wait add-br broken -- set Bridge broken datapath_type=nonsense");
            let listed = switch.list(&json!({}));
            let named = |name: &str| {
                let bridges = listed["bridges"].as_array().expect("bridges");
                bridges
                    .iter()
                    .find(|bridge| bridge["name"] == name)
                    .cloned()
                    .unwrap_or(Value::Null)
            };
            assert!(named("broken")["error"].is_string(), "{listed}");
            assert_eq!(named("br0")["ours"], true, "{listed}");
            assert!(named("br0")["error"].is_null(), "{listed}");
        },
    );
}
