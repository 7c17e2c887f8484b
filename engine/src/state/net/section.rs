//! The section `net` of the document, both ways.

use std::collections::BTreeMap;

use blockhost_proto::value::{InterfaceAddress, Param, PortKind, SwitchIfName};
use serde_json::{Map, Value, json};

use super::{Bridge, Port, Wanted};
use crate::state::fields::{Fields, Place, Wrong, wrong_value};

/// Takes the section apart.
pub(super) fn read(mut section: Fields<'_>) -> Result<BTreeMap<String, Wanted>, Wrong> {
    let mut all = BTreeMap::new();
    let mut ports_seen: BTreeMap<String, String> = BTreeMap::new();
    for (item, place) in section.list("interfaces")? {
        let mut fields = Fields::new(item, place.clone())?;
        let bridge = bridge(&mut fields)?;
        for (item, place) in fields.list("ports")? {
            let port = port(&bridge.name, item, place.clone())?;
            let other = ports_seen.insert(port.name.to_string(), bridge.name.to_string());
            if let Some(other) = other {
                return Err(Wrong::new(
                    place,
                    format!("this device is a port of {other} already"),
                ));
            }
            if Some(&port.name) == bridge.uplink.as_ref() {
                let problem = "this is the bridge's uplink already; leave it out here";
                return Err(Wrong::new(place, problem));
            }
            if port.name == bridge.name {
                let problem = "a bridge has a port of its own name by itself; leave it out";
                return Err(Wrong::new(place, problem));
            }
            all.insert(format!("{}/{}", port.bridge, port.name), Wanted::Port(port));
        }
        if let Some(uplink) = &bridge.uplink {
            let wrong = |problem| Err(Wrong::new(place.key("uplink"), problem));
            if *uplink == bridge.name {
                return wrong("a bridge is not its own uplink".to_owned());
            }
            let other = ports_seen.insert(uplink.to_string(), bridge.name.to_string());
            if let Some(other) = other {
                return wrong(format!("this device is a port of {other} already"));
            }
        }
        fields.finish()?;
        let name = bridge.name.to_string();
        if all.insert(name, Wanted::Bridge(bridge)).is_some() {
            return Err(Wrong::new(place.key("name"), "this bridge is there twice"));
        }
    }
    section.finish()?;
    Ok(all)
}

fn bridge(fields: &mut Fields<'_>) -> Result<Bridge, Wrong> {
    let name = fields.need("name")?;
    fields.word("type", &[("ovs-bridge", ())])?;
    let mut addresses: Option<Vec<InterfaceAddress>> = None;
    for (key, v4) in [("ipv4", true), ("ipv6", false)] {
        let Some(mut family) = fields.object(key)? else {
            continue;
        };
        for (item, place) in family.list("addresses")? {
            let address = InterfaceAddress::from_json(item)
                .map_err(|error| wrong_value(place.clone(), &error))?;
            if address.address().is_ipv4() != v4 {
                return Err(Wrong::new(place, format!("this is no address of {key}")));
            }
            let list = addresses.get_or_insert_default();
            if list
                .iter()
                .any(|other| other.address() == address.address())
            {
                return Err(Wrong::new(place, "this address is there twice"));
            }
            list.push(address);
        }
        addresses.get_or_insert_default();
        family.finish()?;
    }
    if let Some(list) = &mut addresses {
        list.sort();
    }
    Ok(Bridge {
        name,
        datapath: fields.get("datapath")?,
        fail_mode: fields.get("fail_mode")?,
        mtu: fields.get("mtu")?,
        uplink: fields.get("uplink")?,
        addresses,
    })
}

/// A port is its name, or an object with more about it.
fn port(bridge: &SwitchIfName, item: &Value, place: Place) -> Result<Port, Wrong> {
    if item.is_string() {
        let name = SwitchIfName::from_json(item).map_err(|error| wrong_value(place, &error))?;
        return Ok(Port {
            bridge: bridge.clone(),
            name,
            kind: PortKind::System,
            tag: None,
            trunks: None,
        });
    }
    let mut fields = Fields::new(item, place)?;
    let port = Port {
        bridge: bridge.clone(),
        name: fields.need("name")?,
        kind: fields.get("type")?.unwrap_or(PortKind::System),
        tag: fields.get("tag")?,
        trunks: fields.get("trunks")?,
    };
    fields.finish()?;
    Ok(port)
}

/// As it is printed and recorded.
pub(super) fn show(wanted: &Wanted) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            map.insert(key.to_owned(), value);
        }
    };
    match wanted {
        Wanted::Bridge(bridge) => {
            put("name", bridge.name.to_json());
            put("type", Some("ovs-bridge".into()));
            put("datapath", bridge.datapath.to_json());
            put("fail_mode", bridge.fail_mode.to_json());
            put("mtu", bridge.mtu.to_json());
            put("uplink", bridge.uplink.to_json());
            if let Some(addresses) = &bridge.addresses {
                let of = |v4: bool| {
                    let family = addresses.iter().filter(|a| a.address().is_ipv4() == v4);
                    let list: Vec<String> = family.map(ToString::to_string).collect();
                    Some(json!({ "addresses": list }))
                };
                put("ipv4", of(true));
                put("ipv6", of(false));
            }
        }
        Wanted::Port(port) => {
            put("bridge", port.bridge.to_json());
            put("name", port.name.to_json());
            put("type", port.kind.to_json());
            put("tag", port.tag.to_json());
            put("trunks", port.trunks.to_json());
        }
    }
    Value::Object(map)
}

/// Back from what was recorded.
pub(super) fn revive(shown: &Value) -> Option<Wanted> {
    let mut fields = Fields::new(shown, Place::top()).ok()?;
    if shown["type"] == "ovs-bridge" {
        return bridge(&mut fields).ok().map(Wanted::Bridge);
    }
    let bridge: SwitchIfName = fields.need("bridge").ok()?;
    let mut item = shown.clone();
    item.as_object_mut()?.remove("bridge");
    port(&bridge, &item, Place::top()).ok().map(Wanted::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(value: &Value) -> Result<BTreeMap<String, Wanted>, Wrong> {
        read(Fields::new(value, Place::top().key("net"))?)
    }

    #[test]
    fn a_bridge_and_its_ports_are_resources_of_their_own_and_come_back_from_the_record() {
        let value = json!({"interfaces": [{"name": "ovsbr0", "type": "ovs-bridge", "datapath": "netdev",
            "uplink": "eth0", "ports": ["eth1", {"name": "int0", "type": "internal", "tag": 7}],
            "ipv4": {"addresses": ["10.0.0.1/24"]}, "ipv6": {"addresses": ["fd00::1/64"]}}]});
        let all = section(&value).expect("good");
        let names: Vec<&str> = all.keys().map(String::as_str).collect();
        assert_eq!(names, ["ovsbr0", "ovsbr0/eth1", "ovsbr0/int0"]);
        for wanted in all.values() {
            assert_eq!(revive(&show(wanted)).as_ref(), Some(wanted));
        }
    }

    #[test]
    fn addresses_that_the_document_does_not_speak_of_are_not_its_to_remove() {
        let of = |value: Value| match section(&json!({"interfaces": [value]}))
            .expect("good")
            .remove("a")
        {
            Some(Wanted::Bridge(bridge)) => bridge.addresses,
            _ => panic!("a bridge"),
        };
        assert_eq!(of(json!({"name": "a"})), None);
        assert_eq!(
            of(json!({"name": "a", "ipv4": {"addresses": []}})),
            Some(Vec::new())
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (item, place) in [
            (json!({"name": "--x"}), "net.interfaces[0].name"),
            (
                json!({"name": "a", "type": "bond"}),
                "net.interfaces[0].type",
            ),
            (
                json!({"name": "a", "datapath": "fast"}),
                "net.interfaces[0].datapath",
            ),
            (
                json!({"name": "a", "ports": ["a"]}),
                "net.interfaces[0].ports[0]",
            ),
            (
                json!({"name": "a", "ports": ["b", "b"]}),
                "net.interfaces[0].ports[1]",
            ),
            (
                json!({"name": "a", "ports": [{"name": "b", "vlan": 7}]}),
                "net.interfaces[0].ports[0].vlan",
            ),
            (
                json!({"name": "a", "ipv4": {"addresses": ["fd00::1/64"]}}),
                "net.interfaces[0].ipv4.addresses[0]",
            ),
            (
                json!({"name": "a", "ipv4": {"addresses": ["127.0.0.1/8"]}}),
                "net.interfaces[0].ipv4.addresses[0]",
            ),
            (
                json!({"name": "a", "ipv4": {"gateway": "10.0.0.1"}}),
                "net.interfaces[0].ipv4.gateway",
            ),
            (
                json!({"name": "a", "uplink": "a"}),
                "net.interfaces[0].uplink",
            ),
            (
                json!({"name": "a", "uplink": "b", "ports": ["b"]}),
                "net.interfaces[0].ports[0]",
            ),
            (
                json!({"name": "a", "uplink": ["b"]}),
                "net.interfaces[0].uplink",
            ),
            (json!([]), "net.interfaces[0]"),
        ] {
            let wrong = section(&json!({"interfaces": [item.clone()]})).expect_err("wrong");
            assert_eq!(wrong.place.to_string(), place, "{item}");
        }
        let twice =
            json!({"interfaces": [{"name": "a", "ports": ["c"]}, {"name": "b", "ports": ["c"]}]});
        assert_eq!(
            section(&twice).expect_err("twice").place.to_string(),
            "net.interfaces[1].ports[0]"
        );
    }
}
