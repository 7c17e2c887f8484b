//! Documents that are made up, for properties that must hold for all.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::model::{has, mac};

const KEYS: [&str; 3] = [
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
    "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=",
];

fn container() -> impl Strategy<Value = Value> {
    (
        100u32..105,
        any::<bool>(),
        select(vec!["br0", "br1"]),
        proptest::option::of(16u32..64),
        proptest::option::of(select(vec!["a", "b"])),
        proptest::option::of(1u16..4),
        proptest::option::of(1u8..9),
        any::<bool>(),
    )
        .prop_map(|(id, running, bridge, memory, hostname, tag, address, two)| {
            let mut properties = json!({"template": "local:vztmpl/d.tar.zst", "storage": "local", "rootfs_size": 4});
            if let Some(memory) = memory {
                properties["memory"] = memory.into();
            }
            if let Some(hostname) = hostname {
                properties["hostname"] = hostname.into();
            }
            let mut one = json!({"bridge": bridge});
            if let Some(tag) = tag {
                one["tag"] = tag.into();
            }
            if let Some(last) = address {
                one["ip"] = format!("10.0.0.{last}/24").into();
                one["mac"] = mac(last).into();
            }
            let mut interfaces = vec![one];
            if two {
                interfaces.push(json!({"name": "lan", "bridge": "br1"}));
            }
            json!({"id": id, "running": running, "interfaces": interfaces, "properties": properties})
        })
}

fn bridges() -> impl Strategy<Value = Value> {
    let port = (
        select(vec!["eth1", "eth2", "int1"]),
        proptest::option::of(1u16..4),
    )
        .prop_map(|(name, tag)| {
            let mut port =
                json!({"name": name, "type": if name == "int1" { "internal" } else { "system" }});
            if let Some(tag) = tag {
                port["tag"] = tag.into();
            }
            port
        });
    (
        proptest::option::of(select(vec!["standalone", "secure"])),
        proptest::collection::vec(port, 0..3),
        proptest::option::of(1u8..9),
    )
        .prop_map(|(mode, ports, address)| {
            let mut seen = std::collections::BTreeSet::new();
            let ports: Vec<Value> = ports
                .into_iter()
                .filter(|port| seen.insert(port["name"].to_string()))
                .collect();
            let mut first = json!({"name": "br0", "type": "ovs-bridge", "ports": ports});
            if let Some(mode) = mode {
                first["fail_mode"] = mode.into();
            }
            if let (Some(last), true) = (address, has("link-set")) {
                first["ipv4"] = json!({"addresses": [format!("10.0.0.{last}/24")]});
            }
            json!({"interfaces": [first, {"name": "br1"}]})
        })
}

fn tunnel() -> impl Strategy<Value = Value> {
    (
        select(vec!["wg0", "wg1"]),
        1u8..4,
        proptest::option::of(1300u16..1400),
        proptest::option::of(subsequence(KEYS.to_vec(), 0..=3)),
        any::<bool>(),
    )
        .prop_map(|(name, last, mtu, peers, keys)| {
            let mut tunnel = json!({"name": name, "addresses": [format!("10.8.0.{last}/24")]});
            if let Some(mtu) = mtu {
                tunnel["mtu"] = mtu.into();
            }
            if let Some(peers) = peers {
                tunnel["peers"] = peers
                    .iter()
                    .zip(1..)
                    .map(|(key, at)| {
                        let mut peer =
                            json!({"public_key": key, "allowed_ips": [format!("10.9.{at}.0/24")]});
                        if keys {
                            peer["preshared"] = if at == 1 { "generate" } else { KEYS[0] }.into();
                        } else {
                            peer["endpoint"] = "192.0.2.9:51820".into();
                        }
                        peer
                    })
                    .collect();
            }
            tunnel
        })
}

fn flows() -> impl Strategy<Value = Value> {
    (
        select(vec!["web", "db"]),
        proptest::collection::btree_map(1u16..5, select(vec!["drop", "normal"]), 1..4),
    )
        .prop_map(|(owner, flows)| {
            let flows: Vec<Value> = flows
                .iter()
                .map(|(priority, action)| json!({"priority": priority, "actions": [action]}))
                .collect();
            json!({"bridge": "br0", "owner": owner, "flows": flows})
        })
}

fn assignment() -> impl Strategy<Value = Value> {
    (
        select(vec!["vm-100", "vm-101", "web"]),
        1u8..6,
        proptest::option::of(10u8..14),
    )
        .prop_map(|(holder, private, public)| {
            let mut item = json!({"holder": holder, "private": format!("10.0.0.{private}")});
            if let Some(public) = public {
                item["public"] = format!("203.0.113.{public}").into();
            }
            item
        })
}

fn unique(items: Vec<Value>, key: &str) -> Vec<Value> {
    let mut seen = std::collections::BTreeSet::new();
    items
        .into_iter()
        .filter(|item| seen.insert(item[key].to_string()))
        .collect()
}

/// Devices of the mesh that these bridges and tunnels make possible.
fn mesh(plugins: &Value, some: bool) -> Value {
    let list = |section: &str, key: &str| plugins[section][key].as_array().cloned();
    let bridges = list("net", "interfaces").unwrap_or_default();
    let bridges = bridges.iter().filter(|bridge| bridge["ipv4"].is_object());
    let bridges: Vec<Value> = bridges
        .map(|bridge| json!({"name": bridge["name"]}))
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    let tunnels: Vec<Value> = list("wireguard", "tunnels")
        .unwrap_or_default()
        .iter()
        .filter_map(|tunnel| {
            let peers = tunnel["peers"].as_array()?;
            let networks = peers.iter().map(|peer| peer["allowed_ips"][0].clone());
            let networks = networks.filter(|network| some && seen.insert(network.to_string()));
            let networks: Vec<Value> = networks.collect();
            // What the others know no way back to, where there is anything beyond the tunnel.
            let hidden = if networks.is_empty() {
                vec![]
            } else {
                vec!["10.20.0.0/24"]
            };
            Some(json!({"name": tunnel["name"], "networks": networks, "masquerade": hidden}))
        })
        .collect();
    json!({"bridges": bridges, "tunnels": tunnels})
}

/// A document in which everything can be had.
pub fn document() -> impl Strategy<Value = Value> {
    (
        bridges(),
        proptest::collection::vec(container(), 0..4),
        proptest::collection::vec(tunnel(), 0..3),
        proptest::collection::vec(flows(), 0..3),
        proptest::collection::vec(assignment(), 0..4),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(bridges, containers, tunnels, flows, assignments, networks, announce)| {
                let mut document = json!({"version": 1, "plugins": {
                    "net": bridges,
                    "lxc": {"containers": unique(containers, "id")},
                    "wireguard": {"tunnels": unique(tunnels, "name")},
                    "ovsflows": {"flows": unique(flows, "owner")},
                }});
                document["plugins"]["mesh"] = mesh(&document["plugins"], networks);
                if has("nat-list") {
                    // No two with one private or public address.
                    let list = unique(unique(assignments, "holder"), "private");
                    let mut public = std::collections::BTreeSet::new();
                    let list: Vec<Value> = list
                        .into_iter()
                        .filter(|item| {
                            item["public"].is_null() || public.insert(item["public"].to_string())
                        })
                        .collect();
                    document["plugins"]["publicip"] = json!({
                        "pools": [{"range": "203.0.113.10-203.0.113.20"}], "assignments": list,
                    });
                    if announce {
                        let on = json!({"uplink": "eth9", "behind": "br1"});
                        document["plugins"]["publicip"]["pools"][0]["announce"] = on;
                    }
                }
                document
            },
        )
}

/// The same plugins with nothing in them.
pub fn nothing() -> Value {
    let mut document = json!({"version": 1, "plugins": {"net": {}, "lxc": {}, "wireguard": {}, "mesh": {}, "ovsflows": {}}});
    if has("nat-list") {
        document["plugins"]["publicip"] = json!({});
    }
    document
}
