//! Flows that a switch would refuse, loop, take for something else, or that hand packets to others.

/// Each is one flow of `ovs-set-flows`.
pub(super) const FLOWS: &[(&str, &str)] = &[
    ("a text", r#""actions=normal""#),
    ("a list", "[]"),
    ("nothing", "{}"),
    ("no actions", r#"{"actions":[]}"#),
    ("actions as text", r#"{"actions":"normal"}"#),
    ("actions null", r#"{"actions":null}"#),
    ("an unknown key", r#"{"actions":["normal"],"cookie":1}"#),
    ("flags", r#"{"actions":["normal"],"send_flow_rem":true}"#),
    ("table 254", r#"{"table":254,"actions":["normal"]}"#),
    (
        "table 256, which wraps to 0",
        r#"{"table":256,"actions":["normal"]}"#,
    ),
    (
        "priority 65536",
        r#"{"priority":65536,"actions":["normal"]}"#,
    ),
    (
        "priority as text",
        r#"{"priority":"1","actions":["normal"]}"#,
    ),
    (
        "a timeout of zero",
        r#"{"idle_timeout":0,"actions":["normal"]}"#,
    ),
    ("a match as text", r#"{"match":"ip","actions":["normal"]}"#),
    (
        "an unknown field",
        r#"{"match":{"nw_tos":4},"actions":["normal"]}"#,
    ),
    (
        "a field of the database",
        r#"{"match":{"cookie":1},"actions":["normal"]}"#,
    ),
    ("reg16", r#"{"match":{"reg16":1},"actions":["normal"]}"#),
    ("reg01", r#"{"match":{"reg01":1},"actions":["normal"]}"#),
    (
        "in_port LOCAL",
        r#"{"match":{"in_port":"LOCAL"},"actions":["normal"]}"#,
    ),
    (
        "in_port 0",
        r#"{"match":{"in_port":0},"actions":["normal"]}"#,
    ),
    (
        "in_port of the controller",
        r#"{"match":{"in_port":65533},"actions":["normal"]}"#,
    ),
    (
        "in_port as a list",
        r#"{"match":{"in_port":[1]},"actions":["normal"]}"#,
    ),
    (
        "a smuggled second match",
        r#"{"match":{"dl_src":"02:00:00:00:00:01,priority=9"},"actions":["normal"]}"#,
    ),
    (
        "a mask with bits beside it",
        r#"{"match":{"dl_src":"02:00:00:00:00:01/ff:00:00:00:00:00"},"actions":["normal"]}"#,
    ),
    (
        "a mask of nothing",
        r#"{"match":{"dl_src":"00:00:00:00:00:00/00:00:00:00:00:00"},"actions":["normal"]}"#,
    ),
    (
        "dl_type in words that mislead",
        r#"{"match":{"dl_type":"tcp"},"actions":["normal"]}"#,
    ),
    (
        "dl_type of a length",
        r#"{"match":{"dl_type":100},"actions":["normal"]}"#,
    ),
    (
        "a tag of zero",
        r#"{"match":{"vlan":0},"actions":["normal"]}"#,
    ),
    (
        "a priority without a tag",
        r#"{"match":{"vlan_pcp":1},"actions":["normal"]}"#,
    ),
    (
        "ports without a protocol",
        r#"{"match":{"dl_type":"ip","tp_dst":80},"actions":["normal"]}"#,
    ),
    (
        "ports of ICMP",
        r#"{"match":{"dl_type":"ip","nw_proto":"icmp","tp_dst":80},"actions":["normal"]}"#,
    ),
    (
        "a protocol without a family",
        r#"{"match":{"nw_proto":"tcp"},"actions":["normal"]}"#,
    ),
    (
        "an address without a family",
        r#"{"match":{"nw_src":"10.0.0.1"},"actions":["normal"]}"#,
    ),
    (
        "an IPv4 address of IPv6",
        r#"{"match":{"dl_type":"ipv6","nw_src":"10.0.0.1"},"actions":["normal"]}"#,
    ),
    (
        "host bits",
        r#"{"match":{"dl_type":"ip","nw_src":"10.0.0.1/8"},"actions":["normal"]}"#,
    ),
    (
        "prefix 33",
        r#"{"match":{"dl_type":"ip","nw_src":"10.0.0.0/33"},"actions":["normal"]}"#,
    ),
    (
        "prefix 0, which is no condition",
        r#"{"match":{"dl_type":"ip","nw_src":"0.0.0.0/0"},"actions":["normal"]}"#,
    ),
    (
        "a netmask",
        r#"{"match":{"dl_type":"ip","nw_src":"10.0.0.0/255.0.0.0"},"actions":["normal"]}"#,
    ),
    (
        "a mapped address",
        r#"{"match":{"dl_type":"ipv6","ipv6_src":"::ffff:10.0.0.1"},"actions":["normal"]}"#,
    ),
    (
        "a zone",
        r#"{"match":{"dl_type":"ipv6","ipv6_src":"fe80::1%eth0"},"actions":["normal"]}"#,
    ),
    (
        "a port of 65536",
        r#"{"match":{"dl_type":"ip","nw_proto":"tcp","tp_dst":65536},"actions":["normal"]}"#,
    ),
    (
        "a masked value with bits outside",
        r#"{"match":{"reg0":{"value":3,"mask":2}},"actions":["normal"]}"#,
    ),
    (
        "a masked value with a third key",
        r#"{"match":{"reg0":{"value":2,"mask":2,"x":1}},"actions":["normal"]}"#,
    ),
    (
        "a register of 2^32",
        r#"{"match":{"reg0":4294967296},"actions":["normal"]}"#,
    ),
    (
        "metadata of 2^53",
        r#"{"match":{"metadata":9007199254740992},"actions":["normal"]}"#,
    ),
    (
        "ct_state as text",
        r#"{"match":{"dl_type":"ip","ct_state":"+trk+est"},"actions":["normal"]}"#,
    ),
    (
        "ct_state of nothing",
        r#"{"match":{"dl_type":"ip","ct_state":{}},"actions":["normal"]}"#,
    ),
    (
        "an unknown state",
        r#"{"match":{"dl_type":"ip","ct_state":{"open":true}},"actions":["normal"]}"#,
    ),
    (
        "untracked and new",
        r#"{"match":{"dl_type":"ip","ct_state":{"trk":false,"new":true}},"actions":["normal"]}"#,
    ),
    (
        "neighbour discovery of ICMP",
        r#"{"match":{"dl_type":"ip","nw_proto":"icmp","icmp_type":135,"nd_target":"fd00::1"},"actions":["normal"]}"#,
    ),
    (
        "ARP of IP",
        r#"{"match":{"dl_type":"ip","arp_op":1},"actions":["normal"]}"#,
    ),
    ("allow", r#"{"actions":["allow"]}"#),
    ("delay", r#"{"actions":[{"delay":10}]}"#),
    ("fragment", r#"{"actions":["fragment"]}"#),
    ("controller", r#"{"actions":["controller"]}"#),
    (
        "controller with a length",
        r#"{"actions":[{"controller":65535}]}"#,
    ),
    ("learn", r#"{"actions":[{"learn":{"table":1}}]}"#),
    ("note", r#"{"actions":[{"note":"00"}]}"#),
    ("a group", r#"{"actions":[{"group":1}]}"#),
    (
        "an action with two keys",
        r#"{"actions":[{"output":1,"resubmit":1}]}"#,
    ),
    ("an action without a key", r#"{"actions":[{}]}"#),
    ("words with arguments", r#"{"actions":["output:1"]}"#),
    ("capitals", r#"{"actions":["NORMAL"]}"#),
    ("drop and more", r#"{"actions":["drop","normal"]}"#),
    (
        "output to the controller",
        r#"{"actions":[{"output":"CONTROLLER"}]}"#,
    ),
    (
        "output to the controller's number",
        r#"{"actions":[{"output":65533}]}"#,
    ),
    (
        "output to a register",
        r#"{"actions":[{"output":"NXM_NX_REG0[0..15]"}]}"#,
    ),
    (
        "resubmit to itself",
        r#"{"table":3,"actions":[{"resubmit":3}]}"#,
    ),
    (
        "resubmit backwards",
        r#"{"table":3,"actions":[{"resubmit":0}]}"#,
    ),
    (
        "goto backwards",
        r#"{"table":3,"actions":[{"goto_table":2}]}"#,
    ),
    (
        "goto in the middle",
        r#"{"actions":[{"goto_table":2},"normal"]}"#,
    ),
    ("a meter behind", r#"{"actions":["normal",{"meter":1}]}"#),
    (
        "set_field of two",
        r#"{"actions":[{"set_field":{"reg0":1,"reg1":1}}]}"#,
    ),
    (
        "set_field of a mask",
        r#"{"actions":[{"set_field":{"reg0":{"value":1,"mask":1}}}]}"#,
    ),
    (
        "set_field of the state",
        r#"{"match":{"dl_type":"ip"},"actions":[{"set_field":{"ct_state":{"trk":true}}}]}"#,
    ),
    (
        "set_field of the type",
        r#"{"actions":[{"set_field":{"dl_type":"ip"}}]}"#,
    ),
    (
        "set_field of what the packet lacks",
        r#"{"actions":[{"set_field":{"tp_dst":80}}]}"#,
    ),
    (
        "set_field of a tag that is not there",
        r#"{"actions":[{"set_field":{"vlan":5}}]}"#,
    ),
    (
        "set_field of in_port",
        r#"{"actions":[{"set_field":{"in_port":1}}]}"#,
    ),
    (
        "a tag popped twice",
        r#"{"match":{"vlan":5},"actions":["pop_vlan","pop_vlan"]}"#,
    ),
    (
        "a hop less of ARP",
        r#"{"match":{"dl_type":"arp"},"actions":["dec_ttl"]}"#,
    ),
    (
        "load beyond the field",
        r#"{"actions":[{"load":{"value":1,"into":{"field":"reg0","start":32}}}]}"#,
    ),
    (
        "load of more bits than there are",
        r#"{"actions":[{"load":{"value":1,"into":{"field":"reg0","start":31,"bits":2}}}]}"#,
    ),
    (
        "load that does not fit",
        r#"{"actions":[{"load":{"value":4,"into":{"field":"reg0","bits":2}}}]}"#,
    ),
    (
        "load as text",
        r#"{"actions":[{"load":"5->NXM_NX_REG0[]"}]}"#,
    ),
    (
        "move of unequal parts",
        r#"{"actions":[{"move":{"from":{"field":"reg0","bits":8},"into":{"field":"reg1","bits":9}}}]}"#,
    ),
    (
        "move into the state",
        r#"{"actions":[{"move":{"from":{"field":"reg0"},"into":{"field":"ct_mark"}}}]}"#,
    ),
    (
        "ct of ARP",
        r#"{"match":{"dl_type":"arp"},"actions":[{"ct":{"zone":1}}]}"#,
    ),
    (
        "ct with a helper",
        r#"{"match":{"dl_type":"ip"},"actions":[{"ct":{"commit":true,"alg":"ftp"}}]}"#,
    ),
    (
        "ct into its own table",
        r#"{"table":2,"match":{"dl_type":"ip"},"actions":[{"ct":{"table":2}}]}"#,
    ),
    (
        "a zone of 65536",
        r#"{"match":{"dl_type":"ip"},"actions":[{"ct":{"zone":65536}}]}"#,
    ),
    (
        "a mark without commit",
        r#"{"match":{"dl_type":"ip"},"actions":[{"ct":{"mark":1}}]}"#,
    ),
    (
        "nat without commit",
        r#"{"match":{"dl_type":"ip"},"actions":[{"ct":{"nat":{"src":"192.0.2.1"}}}]}"#,
    ),
    (
        "nat both ways",
        r#"{"match":{"dl_type":"ip"},"actions":[{"ct":{"commit":true,"nat":{"src":"192.0.2.1","dst":"192.0.2.2"}}}]}"#,
    ),
    (
        "nat of another family",
        r#"{"match":{"dl_type":"ip"},"actions":[{"ct":{"commit":true,"nat":{"src":"fd00::1"}}}]}"#,
    ),
    (
        "nat backwards",
        r#"{"match":{"dl_type":"ip"},"actions":[{"ct":{"commit":true,"nat":{"src":"192.0.2.9-192.0.2.1"}}}]}"#,
    ),
    (
        "nat with ports and nothing else",
        r#"{"match":{"dl_type":"ip"},"actions":[{"ct":{"commit":true,"nat":{"ports":"1-2"}}}]}"#,
    ),
    (
        "nat to loopback",
        r#"{"match":{"dl_type":"ip"},"actions":[{"ct":{"commit":true,"nat":{"dst":"127.0.0.1"}}}]}"#,
    ),
    (
        "nat with a second option",
        r#"{"match":{"dl_type":"ip"},"actions":[{"ct":{"commit":true,"nat":{"src":"192.0.2.1,persistent"}}}]}"#,
    ),
    (
        "conjunction zero",
        r#"{"actions":[{"conjunction":{"id":0,"clause":1,"of":2}}]}"#,
    ),
    (
        "conjunction beyond its clauses",
        r#"{"actions":[{"conjunction":{"id":1,"clause":3,"of":2}}]}"#,
    ),
    (
        "conjunction of one",
        r#"{"actions":[{"conjunction":{"id":1,"clause":1,"of":1}}]}"#,
    ),
    (
        "conjunction and output",
        r#"{"actions":[{"conjunction":{"id":1,"clause":1,"of":2}},"normal"]}"#,
    ),
    (
        "rows without columns",
        r#"{"actions":["drop"],"rows":[[1]]}"#,
    ),
    (
        "columns without rows",
        r#"{"actions":["drop"],"columns":["/priority"]}"#,
    ),
    (
        "no rows",
        r#"{"actions":["drop"],"columns":["/priority"],"rows":[]}"#,
    ),
    (
        "a short row",
        r#"{"actions":["drop"],"columns":["/priority","/table"],"rows":[[1]]}"#,
    ),
    (
        "a row that is no list",
        r#"{"actions":["drop"],"columns":["/priority"],"rows":[1]}"#,
    ),
    (
        "a column twice",
        r#"{"actions":["drop"],"columns":["/priority","/priority"],"rows":[[1,2]]}"#,
    ),
    (
        "a column that is filled already",
        r#"{"priority":1,"actions":["drop"],"columns":["/priority"],"rows":[[2]]}"#,
    ),
    (
        "a column over the actions",
        r#"{"actions":["drop"],"columns":["/actions"],"rows":[[["normal"]]]}"#,
    ),
    (
        "a column of the whole",
        r#"{"actions":["drop"],"columns":[""],"rows":[[1]]}"#,
    ),
    (
        "a column with an escape",
        r#"{"actions":["drop"],"columns":["/match~1x"],"rows":[[1]]}"#,
    ),
    (
        "a column of a column",
        r#"{"actions":["drop"],"columns":["/columns"],"rows":[[["/x"]]]}"#,
    ),
    (
        "a column that leads nowhere",
        r#"{"actions":["drop"],"columns":["/actions/7/output"],"rows":[[1]]}"#,
    ),
    (
        "rows in rows",
        r#"{"actions":["drop"],"columns":["/rows"],"rows":[[[1]]]}"#,
    ),
    (
        "two rows alike",
        r#"{"actions":["drop"],"columns":["/priority"],"rows":[[1],[1]]}"#,
    ),
];
