//! Containers of another manager: processes, namespaces, wires.

use super::values::NOT_A_DEVICE;
use super::{Hostile, action};

const ID: &str = "4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01";

/// What is wrong, the member that is, its value as JSON.
const WRONG: &[(&str, &str, &str)] = &[
    ("the first process of the host", "pid", "1"),
    ("no process", "pid", "0"),
    ("the caller's own process", "pid", r#""self""#),
    ("a group of processes", "pid", "-4242"),
    ("a process as text", "pid", r#""4242""#),
    ("a process that cannot be", "pid", "4194305"),
    ("a process that wraps to another", "pid", "4294971538"),
    ("a namespace as path", "netns", r#""/proc/1/ns/net""#),
    ("no namespace", "netns", "0"),
    ("a namespace that wraps", "netns", "4294967296"),
    ("a short id", "container", r#""4c01db0b339c""#),
    ("a name for an id", "container", r#""web""#),
    (
        "an id in capitals",
        "container",
        r#""4C01DB0B339C4C01DB0B339C4C01DB0B339C4C01DB0B339C4C01DB0B339C4C01""#,
    ),
    (
        "a path for an id",
        "container",
        r#""../../../../etc/passwd""#,
    ),
    ("a switch's word for a port", "port", r#""LOCAL""#),
    (
        "an address without prefix",
        "addresses",
        r#"["10.101.0.7"]"#,
    ),
    (
        "an address twice",
        "addresses",
        r#"["10.101.0.7/24","10.101.0.7/16"]"#,
    ),
    ("a multicast address", "addresses", r#"["224.0.0.1/24"]"#),
    ("an MTU without room for IPv6", "mtu", "1279"),
    (
        "a group's hardware address",
        "mac",
        r#""01:00:5e:00:00:01""#,
    ),
    ("a router out of reach", "gateway4", r#""10.102.0.1""#),
    ("a router of the other family", "gateway4", r#""fd00::1""#),
    (
        "a router of the other family, of the link",
        "gateway4",
        r#""fe80::1""#,
    ),
    ("a router with prefix", "gateway4", r#""10.101.0.1/24""#),
    (
        "a router of the other family",
        "gateway6",
        r#""10.101.0.1""#,
    ),
    ("a router out of reach", "gateway6", r#""fd00::1""#),
    ("a namespace to move to", "to", "1"),
];

pub(super) fn containers() -> Vec<Hostile> {
    let good = [
        ("container", format!("\"{ID}\"")),
        ("pid", "4242".to_owned()),
        ("netns", "4026532281".to_owned()),
        ("port", r#""bhcabc""#.to_owned()),
        ("interface", r#""bh0""#.to_owned()),
        ("addresses", r#"["10.101.0.7/24"]"#.to_owned()),
    ];
    let with = |member: &str, value: &str| {
        let others = good.iter().filter(|(name, _)| *name != member);
        let mut members: Vec<String> = others
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        members.push(format!("\"{member}\":{value}"));
        format!("{{{}}}", members.join(","))
    };
    let mut list = Vec::new();
    for (name, member, value) in WRONG {
        let name = format!("attach: {member}: {name}");
        list.push(action(name, "container-attach", &with(member, value)));
    }
    for (name, value) in NOT_A_DEVICE {
        for member in ["port", "interface"] {
            let value = format!("\"{value}\"");
            let name = format!("attach: {member} {name}");
            list.push(action(name, "container-attach", &with(member, &value)));
        }
        list.push(action(
            format!("detach: port {name}"),
            "container-detach",
            &format!(r#"{{"container":"{ID}","port":"{value}"}}"#),
        ));
    }
    for (name, params) in [
        ("the first process", r#"{"pid":1}"#),
        ("nobody", "{}"),
        ("a namespace to look for", r#"{"pid":4242,"netns":1}"#),
    ] {
        list.push(action(format!("look: {name}"), "container-look", params));
    }
    list
}
