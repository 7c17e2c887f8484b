//! How long a document is compared with what there is: no agent and no host in it, only reading and planning.

use std::collections::BTreeMap;
use std::time::Instant;

use blockhost_engine::state::Document;
use blockhost_engine::state::kind::Known;
use blockhost_engine::state::lxc::{Found, FoundBridge, FoundInterface, FoundPort, Lxc};
use blockhost_engine::state::plugin::{Adapter, StatePlugin};
use serde_json::{Value, json};

use super::times::Times;
use crate::scenario::ScenarioError;

const CONTAINERS: u32 = 1000;
const ROUNDS: usize = 30;

fn document() -> String {
    let containers: Vec<Value> = (100..100 + CONTAINERS)
        .map(|id| {
            json!({"id": id.to_string(), "veth": format!("vi{id}"), "bridge": "ovsbr0", "running": true, "properties": {
                "network_type": "bridge", "template": "local:vztmpl/debian-12.tar.zst", "hostname": format!("ct{id}"),
                "memory": 512, "swap": 0, "cores": 1, "storage": "local", "rootfs_size": 8, "unprivileged": true,
                "features": "nesting=1", "nameserver": "9.9.9.9", "onboot": true, "ip": format!("10.0.{}.{}/16", id / 250, id % 250 + 1)}})
        })
        .collect();
    json!({"version": 1, "plugins": {"lxc": {"containers": containers}}}).to_string()
}

fn found() -> BTreeMap<String, Found> {
    (100..100 + CONTAINERS)
        .map(|id| {
            let options = [
                ("hostname", format!("ct{id}")),
                ("memory", "512".into()),
                ("swap", "0".into()),
                ("cores", "1".into()),
                ("features", "nesting=1".into()),
                ("nameserver", "9.9.9.9".into()),
                ("onboot", "1".into()),
                ("rootfs", format!("local:{id}/vm-{id}-disk-0.raw,size=8G")),
            ];
            let mac = format!("02:00:00:00:{:02X}:{:02X}", id / 250, id % 250);
            let port = FoundPort {
                name: format!("vi{id}"),
                bridge: "ovsbr0".into(),
                ours: true,
                tag: None,
                attached_mac: Some(mac.clone()),
                works: true,
                link_up: true,
                error: None,
                heard: true,
            };
            let interface = FoundInterface {
                net: format!(
                    "name=eth0,bridge=ovsbr0,hwaddr={mac},ip=10.0.{}.{}/16,type=veth",
                    id / 250,
                    id % 250 + 1
                ),
                host_end: Some(format!("vi{id}")),
                mtu: None,
                named: true,
                port: Some(port),
            };
            let bridge = FoundBridge {
                on_switch: true,
                addresses: Vec::new(),
                forwards: true,
            };
            let found = Found {
                status: "running".into(),
                ours: true,
                options: options.map(|(key, value)| (key.to_owned(), value)).into(),
                interfaces: [(0, interface)].into(),
                bridges: [("ovsbr0".to_owned(), bridge)].into(),
                forwards_v6: true,
                narrowest: None,
            };
            (id.to_string(), found)
        })
        .collect()
}

/// From the text of the document to the empty plan, for a thousand containers that are all as they should be.
pub(super) fn thousand_containers() -> Result<Times, ScenarioError> {
    let wrong = |error: String| ScenarioError::Wrong(format!("state: {error}"));
    let text = document();
    let current = Adapter(Lxc).current(found());
    let plugins: Vec<Box<dyn StatePlugin>> = vec![Box::new(Adapter(Lxc))];
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let document = Document::parse("bench", &text).map_err(|e| wrong(e.to_string()))?;
        let desired = document
            .desired(&plugins)
            .map_err(|e| wrong(e.to_string()))?;
        let desired = desired
            .get("lxc")
            .ok_or_else(|| wrong("no section".into()))?;
        let changes = plugins[0].diff(&current, desired, &Known::new(), true);
        times.push(begun.elapsed());
        if let Some(change) = changes.iter().find(|change| change.is_pending()) {
            return Err(wrong(format!(
                "{} differs: {:?}",
                change.resource, change.fields
            )));
        }
    }
    Ok(Times::new(times))
}
