//! The section `lxc` of the document, both ways. Every value is checked by the rule that the catalog has for it.

use std::collections::BTreeMap;

use blockhost_proto::pct::{ContainerNet, PctOptions};
use blockhost_proto::value::{IfName, Param, StorageName, SwitchIfName, TemplateRef, Vmid};
use serde_json::{Map, Value, json};

use super::{Container, Interface, Mode, promised_name};
use crate::state::fields::{Fields, Place, Wrong};

const MODES: [(&str, Mode); 2] = [("bridge", Mode::Bridge), ("netmaker", Mode::Netmaker)];

/// Options that the manager knows by the same name and that can be changed later.
const PLAIN: [&str; 7] = [
    "memory",
    "swap",
    "cores",
    "features",
    "nameserver",
    "searchdomain",
    "onboot",
];

/// What an interface may say besides bridge and mode, in the order of the manager's option.
const NET_KEYS: [(&str, &str); 7] = [
    ("mac", "hwaddr"),
    ("ip", "ip"),
    ("gw", "gw"),
    ("ip6", "ip6"),
    ("gw6", "gw6"),
    ("tag", "tag"),
    ("mtu", "mtu"),
];

/// Takes the section apart.
pub(super) fn read(mut section: Fields<'_>) -> Result<BTreeMap<String, Container>, Wrong> {
    let mut containers = BTreeMap::new();
    for (item, place) in section.list("containers")? {
        let container = container(item, place.clone())?;
        let id = container.vmid.to_string();
        if containers.insert(id, container).is_some() {
            return Err(Wrong::new(place.key("id"), "this container is there twice"));
        }
    }
    section.finish()?;
    Ok(containers)
}

/// Reads one container.
pub(super) fn container(item: &Value, place: Place) -> Result<Container, Wrong> {
    let mut fields = Fields::new(item, place.clone())?;
    let vmid: Vmid = fields.number("id")?;
    let running = fields.get("running")?.unwrap_or(true);
    let none = json!({});
    let mut properties = match fields.object("properties")? {
        Some(properties) => properties,
        None => Fields::new(&none, place.key("properties"))?,
    };
    let template: Option<TemplateRef> = properties.get("template")?;
    let hostname = properties.get("hostname")?;
    let rootfs = rootfs(&mut properties)?;
    if properties.get::<bool>("unprivileged")? == Some(false) {
        let problem = "must be true: root of a privileged container is root of the host";
        return Err(properties.wrong("unprivileged", problem));
    }
    let options = options(&mut properties)?;
    let interfaces = interfaces(vmid, &mut fields, &mut properties)?;
    properties.finish()?;
    fields.finish()?;
    Ok(Container {
        vmid,
        running,
        template,
        hostname,
        rootfs,
        options,
        interfaces,
    })
}

fn rootfs(properties: &mut Fields<'_>) -> Result<Option<(String, u32)>, Wrong> {
    let storage: Option<StorageName> = properties.get("storage")?;
    let size = match properties.raw("rootfs_size") {
        None => None,
        Some(value) => {
            let text = value
                .as_u64()
                .map(|number| number.to_string())
                .or_else(|| value.as_str().map(str::to_owned))
                .unwrap_or_default();
            let digits = text.strip_suffix('G').unwrap_or(&text);
            let number: Option<u32> = digits.parse().ok();
            // As the manager's own rule for the whole option has it.
            let good = number.filter(|n| {
                n.to_string() == digits && option("rootfs", &json!(format!("local:{n}"))).is_ok()
            });
            let Some(number) = good else {
                let problem = "must be a whole number of GiB from 1 to 65536, such as 8 or \"8G\"";
                return Err(properties.wrong("rootfs_size", problem));
            };
            Some(number)
        }
    };
    match (storage, size) {
        (Some(storage), Some(size)) => Ok(Some((storage.to_string(), size))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(properties.wrong("storage", "means nothing without rootfs_size")),
        (None, Some(_)) => Err(properties.wrong("rootfs_size", "means nothing without storage")),
    }
}

/// All options in the manager's words. They are read at once, which takes as long as one; one by one only to say which is wrong.
fn options(properties: &mut Fields<'_>) -> Result<BTreeMap<&'static str, String>, Wrong> {
    let mut given = Map::new();
    for key in PLAIN {
        if let Some(value) = properties.raw(key) {
            given.insert(key.to_owned(), in_managers_words(value));
        }
    }
    if given.is_empty() {
        return Ok(BTreeMap::new());
    }
    let given = Value::Object(given);
    let shown = match PctOptions::from_json(&given) {
        Ok(options) => options.to_json().unwrap_or_default(),
        Err(together) => {
            for key in PLAIN.iter().filter(|key| !given[**key].is_null()) {
                option(key, &given[*key]).map_err(|why| properties.wrong(key, why))?;
            }
            return Err(Wrong::new(properties.place().clone(), together.to_string()));
        }
    };
    let there = PLAIN.into_iter().filter(|key| !given[*key].is_null());
    Ok(there.map(|key| (key, text_of(&shown[key]))).collect())
}

/// True and false are the manager's 1 and 0.
fn in_managers_words(value: &Value) -> Value {
    value
        .as_bool()
        .map_or_else(|| value.clone(), |flag| Value::from(u8::from(flag)))
}

fn text_of(shown: &Value) -> String {
    match shown {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// One option in the manager's words.
fn option(key: &str, value: &Value) -> Result<String, String> {
    let options = PctOptions::from_json(&json!({ key: value })).map_err(|e| e.to_string())?;
    Ok(text_of(&options.to_json().unwrap_or_default()[key]))
}

/// One interface at the top of the container, or a list of them.
fn interfaces(
    vmid: Vmid,
    fields: &mut Fields<'_>,
    properties: &mut Fields<'_>,
) -> Result<Vec<Interface>, Wrong> {
    let listed = fields.list("interfaces")?;
    let mut shorthand = Map::new();
    for key in ["veth", "bridge"] {
        if let Some(value) = fields.raw(key) {
            shorthand.insert(key.to_owned(), value.clone());
        }
    }
    let from_properties = [
        "network_type",
        "mac",
        "ip",
        "gw",
        "ip6",
        "gw6",
        "tag",
        "mtu",
    ];
    for key in from_properties {
        if let Some(value) = properties.raw(key) {
            shorthand.insert(key.to_owned(), value.clone());
        }
    }
    if listed.is_empty() {
        if shorthand.is_empty() {
            return Ok(Vec::new());
        }
        if !shorthand.contains_key("bridge") {
            let problem =
                "the key \"bridge\" is missing: what should its interface be attached to?";
            return Err(Wrong::new(fields.place().clone(), problem));
        }
        let place = fields.place().clone();
        let interface = interface(vmid, 0, &shorthand.into(), place.clone()).map_err(|wrong| {
            // Most of the shorthand's keys stand among the properties.
            let key = match wrong.place.parts().last() {
                Some(crate::state::fields::Part::Key(key)) => key.clone(),
                _ => return wrong,
            };
            if from_properties.contains(&key.as_str()) {
                Wrong::new(place.key("properties").key(&key), wrong.problem)
            } else {
                wrong
            }
        })?;
        return Ok(vec![interface]);
    }
    if let Some(key) = shorthand.keys().next() {
        let problem =
            format!("{key} of a container with a list of interfaces belongs into the list");
        return Err(Wrong::new(fields.place().key("interfaces"), problem));
    }
    let mut interfaces: Vec<Interface> = Vec::new();
    for (index, (item, place)) in listed.into_iter().enumerate() {
        let Some(index) = u8::try_from(index).ok().filter(|index| *index < 32) else {
            return Err(Wrong::new(place, "a container has at most 32 interfaces"));
        };
        let interface = interface(vmid, index, item, place.clone())?;
        if interfaces
            .iter()
            .any(|other| other.net.name == interface.net.name)
        {
            let problem = "another interface of this container has this name";
            return Err(Wrong::new(place.key("name"), problem));
        }
        interfaces.push(interface);
    }
    Ok(interfaces)
}

fn interface(vmid: Vmid, index: u8, item: &Value, place: Place) -> Result<Interface, Wrong> {
    let mut fields = Fields::new(item, place.clone())?;
    let name: Option<IfName> = fields.get("name")?;
    let name = name.map_or_else(|| format!("eth{index}"), |name| name.to_string());
    let bridge: SwitchIfName = fields.need("bridge")?;
    let mode = fields.word("network_type", &MODES)?.unwrap_or(Mode::Bridge);
    let promised = promised_name(vmid, index);
    if let Some(veth) = fields.raw("veth")
        && veth.as_str() != Some(promised.as_str())
    {
        let problem = format!("the host's end of this interface is called {promised}");
        return Err(fields.wrong("veth", problem));
    }
    let mut text = format!("name={name},bridge={bridge}");
    let mut words: Vec<(&str, &str, String)> = Vec::new();
    for (key, manager) in NET_KEYS {
        let Some(value) = fields.raw(key) else {
            continue;
        };
        let word = match value {
            Value::String(word) => word.clone(),
            Value::Number(number) => number.to_string(),
            other => {
                let kind = blockhost_proto::json::kind(other);
                return Err(fields.wrong(key, format!("must be a text, not {kind}")));
            }
        };
        // A comma would begin another part of the option.
        if word.contains(',') {
            return Err(invalid(&fields, key, &word));
        }
        text.push_str(&format!(",{manager}={word}"));
        words.push((key, manager, word));
    }
    let net = ContainerNet::read(&text);
    if net.is_none() {
        // Which of them it is; gateways are checked together with their address.
        let reads = |manager: &str, word: &str| {
            ContainerNet::read(&format!("name={name},bridge={bridge},{manager}={word}")).is_some()
        };
        let alone = words.iter().filter(|(key, _, _)| !key.starts_with("gw"));
        for (key, manager, word) in alone {
            if !reads(manager, word) {
                return Err(invalid(&fields, key, word));
            }
        }
    }
    fields.finish()?;
    let Some(net) = net else {
        let problem = "the name, the addresses and the gateways do not fit together: a gateway needs an address of its own family and is not the address itself";
        return Err(Wrong::new(place, problem));
    };
    Ok(Interface { bridge, mode, net })
}

fn invalid(fields: &Fields<'_>, key: &str, word: &str) -> Wrong {
    let given = blockhost_proto::escape::shown(word);
    fields.wrong(key, format!("\"{given}\" is no valid {key}"))
}

/// A container as the document could have it: canonical.
pub(super) fn show(container: &Container) -> Value {
    let mut properties = Map::new();
    if let Some(template) = &container.template {
        properties.insert("template".into(), template.to_string().into());
    }
    if let Some(hostname) = &container.hostname {
        properties.insert("hostname".into(), hostname.to_string().into());
    }
    if let Some((storage, size)) = &container.rootfs {
        properties.insert("storage".into(), storage.clone().into());
        properties.insert("rootfs_size".into(), (*size).into());
    }
    for (key, text) in &container.options {
        let number = text.parse::<u64>().ok().filter(|n| n.to_string() == *text);
        let value = number.map_or_else(|| Value::from(text.clone()), Value::from);
        properties.insert((*key).to_owned(), value);
    }
    let mut shown = Map::new();
    shown.insert("id".into(), container.vmid.to_string().into());
    shown.insert("running".into(), container.running.into());
    match container.interfaces.as_slice() {
        [] => {}
        [one] if one.net.name.as_str() == "eth0" => {
            shown.insert("veth".into(), promised_name(container.vmid, 0).into());
            let mut map = show_interface(one);
            map.remove("name");
            if let Some(bridge) = map.remove("bridge") {
                shown.insert("bridge".into(), bridge);
            }
            properties.extend(map);
        }
        more => {
            let list = more
                .iter()
                .zip(0u8..)
                .map(|(interface, index)| {
                    let mut map = show_interface(interface);
                    let name = promised_name(container.vmid, index);
                    map.insert("veth".into(), name.into());
                    Value::Object(map)
                })
                .collect();
            shown.insert("interfaces".into(), list);
        }
    }
    shown.insert("properties".into(), properties.into());
    shown.into()
}

fn show_interface(interface: &Interface) -> Map<String, Value> {
    let mut map = Map::new();
    let mode = MODES.iter().find(|(_, mode)| *mode == interface.mode);
    map.insert("network_type".into(), mode.map_or("bridge", |m| m.0).into());
    for part in interface.net.to_string().split(',') {
        let Some((manager, value)) = part.split_once('=') else {
            continue;
        };
        let key = NET_KEYS
            .iter()
            .find(|(_, word)| *word == manager)
            .map_or(manager, |(key, _)| key);
        let number = matches!(key, "tag" | "mtu").then(|| value.parse::<u64>().ok());
        let value = number
            .flatten()
            .map_or_else(|| Value::from(value), Value::from);
        map.insert(key.to_owned(), value);
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(item: Value) -> Result<Container, Wrong> {
        container(&item, Place::top().key("c"))
    }

    fn full() -> Value {
        json!({"id": "100", "veth": "vi100", "bridge": "ovsbr0", "running": true, "properties": {
            "network_type": "netmaker", "template": "local:vztmpl/debian-12.tar.zst", "hostname": "web-1",
            "memory": 512, "swap": 0, "cores": 2, "storage": "local", "rootfs_size": "8G", "unprivileged": true,
            "features": "nesting=1", "nameserver": "9.9.9.9", "searchdomain": "example.org", "onboot": true,
            "ip": "10.0.0.100/24", "gw": "10.0.0.1"}})
    }

    #[test]
    fn the_container_of_the_seed_is_read_and_shown_again() {
        let container = one(full()).expect("good");
        assert_eq!(container.options["onboot"], "1");
        assert_eq!(
            container.interfaces[0].net.to_string(),
            "name=eth0,bridge=ovsbr0,ip=10.0.0.100/24,gw=10.0.0.1"
        );
        let shown = show(&container);
        assert_eq!(shown["properties"]["network_type"], "netmaker");
        assert_eq!(shown["properties"]["rootfs_size"], 8);
        assert_eq!(one(shown).expect("readable"), container);
    }

    #[test]
    fn several_interfaces_are_read_and_shown_again() {
        let item = json!({"id": 100, "interfaces": [
            {"name": "eth0", "veth": "vi100", "bridge": "ovsbr0", "ip": "dhcp"},
            {"name": "lan", "veth": "vi100_1", "bridge": "vmbr1", "tag": 7, "mac": "02:00:00:00:00:64"}]});
        let container = one(item).expect("good");
        assert_eq!(container.interfaces[1].net.tag, Some(7));
        assert_eq!(one(show(&container)).expect("readable"), container);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let with = |key: &str, value: Value| {
            let mut item = full();
            item["properties"][key] = value;
            one(item)
        };
        for (key, value) in [
            ("memory", json!("lots")),
            ("memory", json!(1)),
            ("cores", json!(1.5)),
            ("unprivileged", json!(false)),
            ("features", json!("mount=nfs")),
            ("rootfs_size", json!("8T")),
            ("rootfs_size", json!(0)),
            ("rootfs_size", json!("08")),
            ("template", json!("/etc/passwd")),
            ("hostname", json!("-x")),
            ("network_type", json!("host")),
            ("ip", json!("10.0.0.100/24,hwaddr=02:00:00:00:00:01")),
            ("ip", json!("10.0.0.300/24")),
            ("gw", json!("10.0.0.1,bridge=vmbr9")),
            ("nameserver", json!("9.9.9.9\n")),
            ("mp0", json!("/etc,mp=/x")),
            ("hookscript", json!("local:snippets/x")),
        ] {
            let wrong = with(key, value.clone()).expect_err(&format!("{key}: {value}"));
            assert_eq!(
                wrong.place.to_string(),
                format!("c.properties.{key}"),
                "{value}"
            );
        }
        for (item, place) in [
            (json!({"id": 99}), "c.id"),
            (json!({"id": 100, "veth": "vi101", "bridge": "a"}), "c.veth"),
            (json!({"id": 100, "bridge": "--help"}), "c.bridge"),
            (json!({"id": 100, "running": "yes"}), "c.running"),
            (
                json!({"id": 100, "interfaces": [{"bridge": "a"}, {"name": "eth0", "bridge": "a"}]}),
                "c.interfaces[1].name",
            ),
            (
                json!({"id": 100, "interfaces": [{"bridge": "a", "odd": 1}]}),
                "c.interfaces[0].odd",
            ),
            (
                json!({"id": 100, "bridge": "a", "interfaces": [{"bridge": "a"}]}),
                "c.interfaces",
            ),
        ] {
            assert_eq!(
                one(item.clone()).expect_err("wrong").place.to_string(),
                place,
                "{item}"
            );
        }
    }
}
