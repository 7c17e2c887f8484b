//! What has to be done about a bridge or a port. Pure. What could cut this host off is refused here, or marked so that it is
//! confirmed or taken back: a device with addresses becomes a port only as the bridge's uplink, a bridge that carries
//! addresses of the host is changed with care, and one that carries something of others is not deleted.

use blockhost_proto::value::{Param, SwitchIfName, Text as _};
use serde_json::{Map, Value, json};

use super::{Bridge, Found, FoundBridge, FoundPort, Port};
use crate::network::confirm::uplink::Uplink;
use crate::state::change::{Careful, Planned, Step, step};

/// A bridge. Its uplink comes first, and brings along most of what the document says of the bridge: the rest is seen then.
pub(super) fn bridge(wanted: &Bridge, found: Option<&Found>) -> Planned {
    let name = wanted.name.as_str();
    if let Some(uplink) = &wanted.uplink
        && !matches!(found, Some(Found::Port(_)))
    {
        let on_it = |bridge: &FoundBridge| bridge.ports.iter().any(|port| port == uplink.as_str());
        match found {
            Some(Found::Bridge(bridge)) if on_it(bridge) => {}
            Some(Found::Bridge(bridge)) if !bridge.ours => return attach(wanted, uplink, false),
            _ => return attach(wanted, uplink, true),
        }
    }
    match found {
        None | Some(Found::Device(_)) => create(wanted),
        Some(Found::Bridge(found)) => change(wanted, found),
        Some(Found::Port(port)) => {
            let mut planned = Planned::nothing(false);
            planned.block(format!("{name} is a port of {}, not a bridge", port.bridge));
            planned
        }
    }
}

/// The step stands for what `network::confirm` plans when it looks: bridge, port, and the move of all that the uplink carries.
fn attach(wanted: &Bridge, uplink: &SwitchIfName, ours: bool) -> Planned {
    let name = wanted.name.as_str();
    let mut planned = Planned::nothing(ours);
    planned.differs("uplink", Value::Null, uplink.as_str());
    planned.notes.push(format!(
        "what {uplink} carries becomes the bridge's; it is taken back unless all is well then, see docs/uplinks.md"
    ));
    let params = json!({"bridge": name, "port": uplink});
    let say = format!("Put {uplink} onto {name} with all that it carries");
    planned.step(step(say, "ovs-add-port", &params));
    planned.careful = Some(Careful::Uplink(Uplink {
        bridge: wanted.name.clone(),
        uplink: uplink.clone(),
        datapath: wanted.datapath.map(|kind| kind.as_str().to_owned()),
        keep: Vec::new(),
    }));
    planned
}

fn options(datapath: Option<Value>, fail_mode: Option<Value>, mtu: Option<Value>) -> Value {
    let mut options = Map::new();
    for (key, value) in [
        ("datapath_type", datapath),
        ("fail_mode", fail_mode),
        ("mtu", mtu),
    ] {
        if let Some(value) = value {
            options.insert(key.to_owned(), value);
        }
    }
    options.into()
}

fn create(wanted: &Bridge) -> Planned {
    let name = wanted.name.as_str();
    let mut planned = Planned::nothing(true);
    let options = options(
        wanted.datapath.to_json(),
        wanted.fail_mode.to_json(),
        wanted.mtu.to_json(),
    );
    let undo = step(
        format!("delete bridge {name}"),
        "ovs-del-br",
        &json!({"bridge": name}),
    );
    let made = step(
        format!("Made bridge {name}"),
        "ovs-add-br",
        &json!({"bridge": name, "options": options}),
    );
    planned.step(made.and_then(|step| Ok(step.undone_by(undo?).then_look())));
    if let Some(addresses) = wanted.addresses.as_ref().filter(|list| !list.is_empty()) {
        let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        planned.step(set_addresses(name, &list, None, true));
    }
    planned
}

/// Addresses are worth nothing on a device that is down.
fn set_addresses(
    name: &str,
    list: &[String],
    before: Option<&FoundBridge>,
    up: bool,
) -> Result<Step, String> {
    let say = match list {
        [] => format!("Took all addresses off {name}"),
        _ => format!("Set the addresses of {name}: {}", list.join(", ")),
    };
    let made = step(
        say,
        "link-set",
        &json!({"dev": name, "up": up, "addresses": list}),
    )?;
    match before {
        // They go with the bridge.
        None => Ok(made.leaving_nothing()),
        Some(before) => {
            let params = json!({"dev": name, "up": before.up, "addresses": before.addresses});
            Ok(made.undone_by(step(
                format!("put back the addresses of {name}"),
                "link-set",
                &params,
            )?))
        }
    }
}

fn change(wanted: &Bridge, found: &FoundBridge) -> Planned {
    let name = wanted.name.as_str();
    let mut planned = Planned::nothing(found.ours);
    if let Some(datapath) = wanted.datapath
        && datapath.as_str() != found.datapath
    {
        planned.differs("datapath", found.datapath.clone(), datapath.as_str());
        planned.block(
            "the datapath of a bridge is fixed when it is made; delete it or change the document",
        );
    }
    let (mut to, mut back) = (Map::new(), Map::new());
    if let Some(mode) = wanted.fail_mode
        && mode.as_str() != found.fail_mode
    {
        planned.differs("fail_mode", found.fail_mode.clone(), mode.as_str());
        to.insert("fail_mode".into(), mode.as_str().into());
        back.insert("fail_mode".into(), found.fail_mode.clone().into());
    }
    if let (Some(mtu), Some(is)) = (wanted.mtu, found.mtu)
        && u32::from(mtu.get()) != is
    {
        planned.differs("mtu", is, mtu.get());
        to.insert("mtu".into(), mtu.get().into());
        back.insert("mtu".into(), is.into());
    }
    if !to.is_empty() {
        let undo = step(
            format!("put back the options of {name}"),
            "ovs-add-br",
            &json!({"bridge": name, "options": back}),
        );
        let set = step(
            format!("Changed bridge {name}"),
            "ovs-add-br",
            &json!({"bridge": name, "options": to}),
        );
        planned.step(set.and_then(|step| Ok(step.undone_by(undo?))));
    }
    if let Some(addresses) = &wanted.addresses {
        let mut list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        list.sort();
        if list != found.addresses || (!found.up && !list.is_empty()) {
            planned.differs("addresses", found.addresses.clone(), list.clone());
            let up = found.up || !list.is_empty();
            planned.step(set_addresses(name, &list, Some(found), up));
        }
    }
    // What the host is reached by is not changed without a way back that somebody watches over.
    let carries = !found.addresses.is_empty() || wanted.uplink.is_some();
    if carries && found.ours && !planned.steps.is_empty() && planned.blocked.is_none() {
        planned.careful = Some(Careful::Bridge(wanted.name.clone()));
    }
    planned
}

/// A port.
pub(super) fn port(wanted: &Port, found: Option<&Found>) -> Planned {
    let (bridge, name) = (wanted.bridge.as_str(), wanted.name.as_str());
    let mut planned = Planned::nothing(true);
    let params = json_of(wanted);
    match found {
        Some(Found::Device(device)) if !device.addresses.is_empty() => {
            let addresses = device.addresses.join(", ");
            planned.block(format!(
                "{name} carries addresses of this host ({addresses}), which it would lose as a port: make it the bridge's uplink (`uplink: {name}`), which moves them, or take them off"
            ));
        }
        Some(Found::Bridge(_)) => planned.block(format!("{name} is a bridge, not a port")),
        Some(Found::Port(there)) if there.bridge != bridge => {
            planned.ours = there.ours;
            planned.block(format!(
                "{name} is a port of {} now; take it off there first",
                there.bridge
            ));
        }
        Some(Found::Port(there)) => {
            planned.ours = there.ours;
            differences(wanted, there, &mut planned);
            if !planned.fields.is_empty() {
                let before = json_as_it_is(name, there);
                let undo = step(
                    format!("put back port {name} of {bridge}"),
                    "ovs-add-port",
                    &before,
                );
                let set = step(
                    format!("Changed port {name} of {bridge}"),
                    "ovs-add-port",
                    &params,
                );
                planned.step(set.and_then(|step| Ok(step.undone_by(undo?))));
                with_care(&wanted.bridge, there, &mut planned);
            }
        }
        None | Some(Found::Device(_)) => {
            let internal = wanted.kind.as_str() == "internal";
            if found.is_none() && !internal {
                // It may be made by then: a tunnel of the same document, for instance.
                planned.notes.push(format!("there is no device {name} yet"));
            }
            let undo = step(
                format!("detach {name} from {bridge}"),
                "ovs-del-port",
                &json!({"bridge": bridge, "port": name}),
            );
            let made = step(
                format!("Attached {name} to {bridge}"),
                "ovs-add-port",
                &params,
            );
            planned.step(made.and_then(|step| Ok(step.undone_by(undo?))));
        }
    }
    planned
}

/// What the host may be reached by is not changed without a way back that somebody watches over.
fn with_care(bridge: &SwitchIfName, port: &FoundPort, planned: &mut Planned) {
    if port.leads_here && port.ours && planned.blocked.is_none() {
        planned.careful = Some(Careful::Bridge(bridge.clone()));
    }
}

fn json_of(port: &Port) -> Value {
    let mut params = json!({"bridge": port.bridge, "port": port.name, "kind": port.kind});
    if let Some(tag) = port.tag.to_json() {
        params["tag"] = tag;
    }
    if let Some(trunks) = port.trunks.to_json() {
        params["trunks"] = trunks;
    }
    params
}

fn json_as_it_is(name: &str, port: &FoundPort) -> Value {
    let mut params = json!({"bridge": port.bridge, "port": name, "kind": port.kind});
    if let Some(tag) = port.tag {
        params["tag"] = tag.into();
    }
    if !port.trunks.is_empty() {
        params["trunks"] = port.trunks.clone().into();
    }
    params
}

fn differences(wanted: &Port, found: &FoundPort, planned: &mut Planned) {
    if wanted.kind.as_str() != found.kind {
        planned.differs("type", found.kind.clone(), wanted.kind.as_str());
        planned.block("the type of a port is fixed when it is attached; take it off first");
    }
    let tag = wanted.tag.map(|tag| u64::from(tag.get()));
    if tag != found.tag {
        planned.differs("tag", found.tag, tag);
    }
    let trunks: Vec<u64> = wanted
        .trunks
        .iter()
        .flat_map(|trunks| trunks.iter().map(|tag| u64::from(tag.get())))
        .collect();
    if trunks != found.trunks {
        planned.differs("trunks", found.trunks.clone(), trunks);
    }
}

/// A bridge or a port that is in the document no longer.
pub(super) fn delete(id: &str, found: &Found) -> Planned {
    let mut planned = Planned::nothing(true);
    match (found, id.split_once('/')) {
        (Found::Bridge(bridge), None) => {
            planned.ours = bridge.ours;
            planned.differs("name", id, Value::Null);
            if !bridge.addresses.is_empty() {
                planned.notes.push(format!(
                    "the host loses {} with it",
                    bridge.addresses.join(", ")
                ));
            }
            let gone = step(
                format!("Deleted bridge {id}"),
                "ovs-del-br",
                &json!({"bridge": id}),
            );
            let undo = options(
                Some(bridge.datapath.clone().into()),
                Some(bridge.fail_mode.clone().into()),
                None,
            );
            let undo = step(
                format!("make bridge {id} again"),
                "ovs-add-br",
                &json!({"bridge": id, "options": undo}),
            );
            planned.step(gone.and_then(|step| Ok(step.undone_by(undo?))));
        }
        (Found::Port(port), Some((bridge, name))) => {
            planned.ours = port.ours && port.bridge == bridge;
            planned.differs("name", name, Value::Null);
            let gone = step(
                format!("Detached {name} from {bridge}"),
                "ovs-del-port",
                &json!({"bridge": bridge, "port": name}),
            );
            let undo = step(
                format!("attach {name} to {bridge} again"),
                "ovs-add-port",
                &json_as_it_is(name, port),
            );
            planned.step(gone.and_then(|step| Ok(step.undone_by(undo?))));
            if let Some(bridge) = SwitchIfName::read(bridge) {
                with_care(&bridge, port, &mut planned);
            }
        }
        _ => {}
    }
    planned
}
