//! The built-in plugins: one table each (what they are called, which words they know, which field of the data names the
//! resource), and the two shapes of data that all of them take.

use super::{Event, LedgerPlugin, NAME_RULE, Operation, PluginError, is_name};
use serde_json::{Map, Value};

/// A plugin that is a table.
#[derive(Debug, Clone)]
pub struct Domain {
    name: String,
    categories: &'static [&'static str],
    /// The first of these fields that the data has names the resource: `("vmid", "vm")` makes `vm:100`.
    resources: &'static [(&'static str, &'static str)],
}

/// Machines and containers.
#[must_use]
pub fn compute() -> Domain {
    domain(
        "compute",
        &["compute", "vm", "qm", "lxc", "container", "image"],
        &[
            ("vmid", "vm"),
            ("vm", "vm"),
            ("container_id", "ct"),
            ("container", "ct"),
            ("id", "ct"),
            ("image", "image"),
        ],
    )
}

/// Bridges, ports, flows, tunnels.
#[must_use]
pub fn network() -> Domain {
    domain(
        "network",
        &[
            "network",
            "net",
            "bridge",
            "interface",
            "connection",
            "port",
            "ovs",
            "flow_stats",
            "netmaker",
            "wireguard",
            "firewall",
        ],
        &[
            ("port_name", "port"),
            ("port", "port"),
            ("interface", "interface"),
            ("ifname", "interface"),
            ("bridge_name", "bridge"),
            ("bridge", "bridge"),
            ("connection", "connection"),
            ("network", "network"),
            ("tunnel", "tunnel"),
            ("container_id", "ct"),
        ],
    )
}

/// Configuration and policy.
#[must_use]
pub fn settings() -> Domain {
    domain(
        "settings",
        &["settings", "config", "policy", "service", "systemd"],
        &[
            ("setting", "setting"),
            ("file", "file"),
            ("policy", "policy"),
            ("service", "service"),
            ("unit", "unit"),
        ],
    )
}

/// Who may, and who came.
#[must_use]
pub fn users() -> Domain {
    domain(
        "users",
        &["users", "user", "group", "auth", "authentication"],
        &[("user", "user"), ("group", "group"), ("address", "address")],
    )
}

/// File systems, volumes, disks.
#[must_use]
pub fn storage() -> Domain {
    domain(
        "storage",
        &[
            "storage",
            "filesystem",
            "mount",
            "volume",
            "disk",
            "snapshot",
        ],
        &[
            ("volume", "volume"),
            ("disk", "disk"),
            ("mount", "mount"),
            ("mountpoint", "mount"),
            ("pool", "pool"),
            ("snapshot", "snapshot"),
        ],
    )
}

/// Contracts, subscriptions, tokens.
#[must_use]
pub fn chain() -> Domain {
    domain(
        "chain",
        &["chain", "contract", "subscription", "nft"],
        &[
            ("subscription", "subscription"),
            ("subscription_id", "subscription"),
            ("token_id", "nft"),
            ("tx", "tx"),
            ("contract", "contract"),
        ],
    )
}

fn domain(
    name: &str,
    categories: &'static [&'static str],
    resources: &'static [(&'static str, &'static str)],
) -> Domain {
    Domain {
        name: name.to_owned(),
        categories,
        resources,
    }
}

/// For a category that nobody knows: its own name, and no field that names the resource.
pub(super) fn free(category: &str) -> Result<Domain, PluginError> {
    if is_name(category) {
        Ok(domain(category, &[], &[]))
    } else {
        Err(PluginError::shape("category", NAME_RULE))
    }
}

impl LedgerPlugin for Domain {
    fn name(&self) -> &str {
        &self.name
    }

    fn categories(&self) -> &[&str] {
        self.categories
    }

    fn process_data(&self, data: &Value) -> Result<Vec<Event>, PluginError> {
        let map = data
            .as_object()
            .ok_or_else(|| PluginError::shape("data", "an object"))?;
        match (map.get("actions"), map.get("action")) {
            (Some(actions), None) => self.state_actions(map, actions),
            (None, Some(action)) => Ok(vec![self.single(map, action)?]),
            _ => Err(PluginError::shape(
                "data",
                "either `action` with `data`, or `actions` of a change of state",
            )),
        }
    }
}

impl Domain {
    /// `{action, data, resource?, operation?}`: something happened.
    fn single(&self, map: &Map<String, Value>, action: &Value) -> Result<Event, PluginError> {
        for key in map.keys() {
            if !["action", "data", "resource", "operation"].contains(&key.as_str()) {
                let rule = "action, data, resource and operation are known here";
                return Err(PluginError::shape(key.escape_debug().to_string(), rule));
            }
        }
        let action = text(action, "action")?.to_owned();
        let mut metadata = match map.get("data") {
            None => Map::new(),
            Some(Value::Object(data)) => data.clone(),
            Some(_) => return Err(PluginError::shape("data", "an object")),
        };
        let operation = match map.get("operation") {
            None => Operation::of(&action).unwrap_or(Operation::Apply),
            Some(word) => Operation::of(text(word, "operation")?).ok_or_else(|| {
                PluginError::shape("operation", "create, modify, delete, apply or query")
            })?,
        };
        let resource = match map.get("resource") {
            Some(resource) => Some(text(resource, "resource")?.to_owned()),
            None => self.resource_of(&metadata),
        };
        self.stamp(&mut metadata, operation);
        Ok(Event {
            category: self.name.clone(),
            action,
            resource,
            operation,
            metadata,
        })
    }

    /// `{plugin, actions: [{"Create": {resource, config}}, ...], metadata?, result?}`: a state was applied, an event for
    /// each thing that changed.
    fn state_actions(
        &self,
        map: &Map<String, Value>,
        actions: &Value,
    ) -> Result<Vec<Event>, PluginError> {
        let items = actions
            .as_array()
            .ok_or_else(|| PluginError::shape("actions", "an array"))?;
        let plugin = match map.get("plugin") {
            None => self.name.as_str(),
            Some(plugin) => text(plugin, "plugin")?,
        };
        let mut events = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let path = format!("actions[{at}]");
            let one = "an object with one of Create, Modify and Delete";
            let single = item.as_object().filter(|item| item.len() == 1);
            let (word, body) = single
                .and_then(|item| item.iter().next())
                .ok_or_else(|| PluginError::shape(&path, one))?;
            let operation = match word.as_str() {
                "Create" => Operation::Create,
                "Modify" | "Update" => Operation::Modify,
                "Delete" => Operation::Delete,
                _ => return Err(PluginError::shape(&path, one)),
            };
            let path = format!("{path}.{word}");
            let body = body
                .as_object()
                .ok_or_else(|| PluginError::shape(&path, "an object"))?;
            let named = body.get("resource").and_then(name_of);
            let resource = named.ok_or_else(|| {
                PluginError::shape(format!("{path}.resource"), "a name or a number")
            })?;
            let mut metadata = body.clone();
            for shared in ["metadata", "result"] {
                if let Some(value) = map.get(shared) {
                    metadata.insert(shared.to_owned(), value.clone());
                }
            }
            self.stamp(&mut metadata, operation);
            metadata.insert("plugin".to_owned(), plugin.into());
            events.push(Event {
                category: self.name.clone(),
                action: format!("{}-{}", self.name, operation.as_str()),
                resource: Some(format!("{plugin}:{resource}")),
                operation,
                metadata,
            });
        }
        Ok(events)
    }

    fn stamp(&self, metadata: &mut Map<String, Value>, operation: Operation) {
        let name = || self.name.as_str().into();
        metadata.entry("plugin").or_insert_with(name);
        metadata.insert("operation".to_owned(), operation.as_str().into());
    }

    fn resource_of(&self, data: &Map<String, Value>) -> Option<String> {
        self.resources.iter().find_map(|(field, kind)| {
            let name = data.get(*field).and_then(name_of)?;
            Some(format!("{kind}:{name}"))
        })
    }
}

/// A name as part of a resource.
fn name_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) if number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

fn text<'a>(value: &'a Value, path: &str) -> Result<&'a str, PluginError> {
    value
        .as_str()
        .ok_or_else(|| PluginError::shape(path, "a text"))
}
