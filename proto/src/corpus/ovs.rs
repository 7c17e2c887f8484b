//! Switches: names that are reserved or options, values that a switch would read differently. Flows are in `flows`.

use super::flows::FLOWS;
use super::{Hostile, action};

/// Parameters as they follow `"bridge":"ovsbr0",`.
const PARAMS: &[(&str, &str, &str)] = &[
    (
        "options as text",
        "ovs-add-br",
        r#""options":"datapath_type=netdev""#,
    ),
    ("options as a list", "ovs-add-br", r#""options":["netdev"]"#),
    (
        "a column of the database",
        "ovs-add-br",
        r#""options":{"controller":"tcp:192.0.2.1:6653"}"#,
    ),
    (
        "external ids that are not its own",
        "ovs-add-br",
        r#""options":{"external_ids":{"blockhost":"1"}}"#,
    ),
    (
        "a datapath that does not exist",
        "ovs-add-br",
        r#""options":{"datapath_type":"dpdk"}"#,
    ),
    (
        "a fail mode that does not exist",
        "ovs-add-br",
        r#""options":{"fail_mode":"open"}"#,
    ),
    (
        "a multicast hardware address",
        "ovs-add-br",
        r#""options":{"hwaddr":"01:00:5e:00:00:01"}"#,
    ),
    (
        "an all-zero hardware address",
        "ovs-add-br",
        r#""options":{"hwaddr":"00:00:00:00:00:00"}"#,
    ),
    (
        "a hardware address of five bytes",
        "ovs-add-br",
        r#""options":{"hwaddr":"02:00:00:00:00"}"#,
    ),
    (
        "an MTU without IPv6",
        "ovs-add-br",
        r#""options":{"mtu":1279}"#,
    ),
    (
        "an MTU as text",
        "ovs-add-br",
        r#""options":{"mtu":"1500"}"#,
    ),
    (
        "snooping as a number",
        "ovs-add-br",
        r#""options":{"mcast_snooping":1}"#,
    ),
    ("options to a deletion", "ovs-del-br", r#""options":{}"#),
    ("tag zero", "ovs-add-port", r#""port":"vi100","tag":0"#),
    ("tag 4095", "ovs-add-port", r#""port":"vi100","tag":4095"#),
    ("tag as text", "ovs-add-port", r#""port":"vi100","tag":"7""#),
    ("tag true", "ovs-add-port", r#""port":"vi100","tag":true"#),
    (
        "trunks as a text",
        "ovs-add-port",
        r#""port":"vi100","trunks":"1,2""#,
    ),
    ("no trunks", "ovs-add-port", r#""port":"vi100","trunks":[]"#),
    (
        "a trunk twice",
        "ovs-add-port",
        r#""port":"vi100","trunks":[7,7]"#,
    ),
    (
        "a trunk out of range",
        "ovs-add-port",
        r#""port":"vi100","trunks":[1,4095]"#,
    ),
    (
        "a port type with a remote end",
        "ovs-add-port",
        r#""port":"vi100","kind":"vxlan""#,
    ),
    (
        "a patch port",
        "ovs-add-port",
        r#""port":"vi100","kind":"patch""#,
    ),
    (
        "a mirror",
        "ovs-add-port",
        r#""port":"vi100","mirror":true"#,
    ),
    (
        "a vmid of 99",
        "ovs-add-port",
        r#""port":"vi100","vmid":99"#,
    ),
    (
        "an interface id with a quote",
        "ovs-add-port",
        r#""port":"vi100","iface_id":"a\"b""#,
    ),
    ("no port", "ovs-del-port", r#""tag":1"#),
    (
        "queues as an object",
        "ovs-set-qos",
        r#""port":"vi100","queues":{"1":{}}"#,
    ),
    (
        "a queue twice",
        "ovs-set-qos",
        r#""port":"vi100","queues":[{"queue":1,"max_kbps":1},{"queue":1,"max_kbps":2}]"#,
    ),
    (
        "a queue without a rate",
        "ovs-set-qos",
        r#""port":"vi100","queues":[{"queue":1}]"#,
    ),
    (
        "a queue that promises more than it allows",
        "ovs-set-qos",
        r#""port":"vi100","queues":[{"queue":1,"min_kbps":2,"max_kbps":1}]"#,
    ),
    (
        "a queue with another key",
        "ovs-set-qos",
        r#""port":"vi100","queues":[{"queue":1,"max_kbps":1,"dscp":1}]"#,
    ),
    (
        "a rate of zero",
        "ovs-set-qos",
        r#""port":"vi100","max_kbps":0"#,
    ),
    (
        "a rate that wraps",
        "ovs-set-qos",
        r#""port":"vi100","max_kbps":4294967296"#,
    ),
    (
        "a burst without a rate",
        "ovs-set-qos",
        r#""port":"vi100","ingress_burst_kbit":1"#,
    ),
    ("meter zero", "ovs-set-meter", r#""meter":0,"rate":1"#),
    ("meter 65536", "ovs-set-meter", r#""meter":65536,"rate":1"#),
    (
        "a meter in another unit",
        "ovs-set-meter",
        r#""meter":1,"rate":1,"unit":"mbps""#,
    ),
    (
        "a meter's burst without a rate",
        "ovs-set-meter",
        r#""meter":1,"burst":1"#,
    ),
    (
        "a meter's rate as a float",
        "ovs-set-meter",
        r#""meter":1,"rate":1.5"#,
    ),
    ("flows as a number", "ovs-list", r#""flows":1"#),
    ("an owner with a capital", "ovs-list", r#""owner":"VM""#),
    (
        "an owner with a slash",
        "ovs-set-flows",
        r#""owner":"a/b","flows":[]"#,
    ),
    (
        "an owner that is an option",
        "ovs-set-flows",
        r#""owner":"-a","flows":[]"#,
    ),
    (
        "an owner with a newline",
        "ovs-set-flows",
        r#""owner":"a\n","flows":[]"#,
    ),
    ("no owner", "ovs-set-flows", r#""flows":[]"#),
    ("no flows", "ovs-set-flows", r#""owner":"a""#),
    (
        "flows as text",
        "ovs-set-flows",
        r#""owner":"a","flows":"actions=normal""#,
    ),
    (
        "flows as an object",
        "ovs-set-flows",
        r#""owner":"a","flows":{"actions":["normal"]}"#,
    ),
    (
        "a cookie",
        "ovs-set-flows",
        r#""owner":"a","flows":[],"cookie":1"#,
    ),
];

const NOT_A_SWITCH_NAME: &[(&str, &str)] = &[
    ("empty", ""),
    ("an option", "--all"),
    ("a number, which is a port's number", "5"),
    ("beginning with a digit", "0x1"),
    ("the reserved word LOCAL", "LOCAL"),
    ("the reserved word in_port", "in_port"),
    ("the reserved word controller", "Controller"),
    ("the reserved word normal", "normal"),
    ("the reserved word any", "any"),
    ("a path", "../x"),
    ("a slash", "ovs/br0"),
    ("a space", "ovs br0"),
    ("a newline", "ovsbr0\\n"),
    ("a NUL", "ovsbr0\\u0000"),
    ("a quote", "ovs\\\"br0"),
    ("a comma", "ovs,br0"),
    ("a colon", "ssl:br0"),
    ("sixteen bytes", "abcdefghijklmnop"),
    ("a look-alike letter", "\u{43e}vsbr0"),
];

/// One flow each.
pub(super) fn switches() -> Vec<Hostile> {
    let with = |inner: &str| format!(r#"{{"bridge":"ovsbr0",{inner}}}"#);
    let mut list: Vec<Hostile> = PARAMS
        .iter()
        .map(|(name, verb, params)| action(format!("{verb}: {name}"), verb, &with(params)))
        .collect();
    for (name, flow) in FLOWS {
        list.push(action(
            format!("flow: {name}"),
            "ovs-set-flows",
            &with(&format!(r#""owner":"a","flows":[{flow}]"#)),
        ));
    }
    for (name, value) in NOT_A_SWITCH_NAME {
        list.push(action(
            format!("switch: {name}"),
            "ovs-add-br",
            &format!(r#"{{"bridge":"{value}"}}"#),
        ));
        list.push(action(
            format!("switch port: {name}"),
            "ovs-add-port",
            &with(&format!(r#""port":"{value}""#)),
        ));
        list.push(action(
            format!("flow to a port: {name}"),
            "ovs-set-flows",
            &with(&format!(
                r#""owner":"a","flows":[{{"actions":[{{"output":"{value}"}}]}}]"#
            )),
        ));
    }
    let actions = vec!["\"flood\""; 65].join(",");
    list.push(action(
        "flow: 65 actions",
        "ovs-set-flows",
        &with(&format!(
            r#""owner":"a","flows":[{{"actions":[{actions}]}}]"#
        )),
    ));
    let twice = r#"{"match":{"reg0":1},"actions":["drop"]}"#;
    list.push(action(
        "flow: the same match twice",
        "ovs-set-flows",
        &with(&format!(r#""owner":"a","flows":[{twice},{twice}]"#)),
    ));
    list
}
