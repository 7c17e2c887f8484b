//! What has to be done about a container. Pure: from what the document wants and what there is to actions of the catalog.
//! What the manager decides (hardware addresses, names of devices) is not guessed: after a start reality is looked at again.

use blockhost_proto::pct::{ContainerNet, PctOptions};
use blockhost_proto::value::Param;
use serde_json::{Map, Value, json};

use super::{
    Container, Found, FoundInterface, FoundPort, Interface, MARK, Mode, mesh, promised_name,
};
use crate::state::change::{OnlyIf, Planned, Step, step};
use crate::state::kind::Entry;

/// It is not there.
pub(super) fn create(wanted: &Container) -> Planned {
    let vmid = wanted.vmid;
    let mut planned = Planned::nothing(true);
    let Some(template) = &wanted.template else {
        planned
            .block("it does not exist and properties.template does not say what to make it from");
        return planned;
    };
    let Some((storage, size)) = &wanted.rootfs else {
        planned.block("it does not exist, and properties.storage and rootfs_size do not say where to make it and how large");
        return planned;
    };
    let hostname = wanted
        .hostname
        .as_ref()
        .map_or_else(|| format!("ct{vmid}"), ToString::to_string);
    let mut options = Map::new();
    for (key, value) in &wanted.options {
        options.insert((*key).to_owned(), value.clone().into());
    }
    for (interface, index) in wanted.interfaces.iter().zip(0u8..) {
        let text = interface.net.to_string();
        options.insert(format!("net{index}"), text.into());
    }
    options.insert("rootfs".into(), format!("{storage}:{size}").into());
    options.insert("unprivileged".into(), 1.into());
    options.insert("tags".into(), MARK.into());
    let params = json!({
        "vmid": vmid.get(), "template": template.to_string(), "hostname": hostname, "options": options,
    });
    let destroy = simple(
        format!("destroy container {vmid}"),
        "pct-destroy",
        vmid.get(),
    )
    .map(|step| step.only_if(OnlyIf::ContainerIsOurs(vmid)));
    let created = destroy.and_then(|destroy| {
        Ok(step(format!("Created container {vmid}"), "pct-create", &params)?.undone_by(destroy))
    });
    planned.step(created.map(Step::then_look));
    if wanted.running {
        planned.step(start(vmid.get()));
    }
    for (interface, index) in wanted.interfaces.iter().zip(0u8..) {
        planned.notes.push(format!(
            "{} becomes {} on {}",
            interface.net.name,
            promised_name(vmid, index),
            interface.bridge
        ));
    }
    planned
}

fn simple(say: String, action: &str, vmid: u32) -> Result<Step, String> {
    step(say, action, &json!({ "vmid": vmid }))
}

fn start(vmid: u32) -> Result<Step, String> {
    let stop = simple(format!("stop container {vmid}"), "pct-stop", vmid)?;
    let start = simple(format!("Started container {vmid}"), "pct-start", vmid)?;
    Ok(start.undone_by(stop).then_look())
}

/// It is there.
pub(super) fn change(wanted: &Container, found: &Found, before: Option<&Entry>) -> Planned {
    let mut planned = Planned::nothing(found.ours);
    at_creation_only(wanted, found, before, &mut planned);
    if !set(wanted, found, &mut planned) {
        // Interfaces that are plugged anew are looked at afterwards.
        return planned;
    }
    let vmid = wanted.vmid.get();
    match (wanted.running, found.is_running()) {
        (true, false) => {
            planned.differs("running", false, true);
            planned.step(start(vmid));
        }
        (false, true) => {
            planned.differs("running", true, false);
            let down = simple(format!("Shut down container {vmid}"), "pct-shutdown", vmid);
            let up = simple(format!("start container {vmid}"), "pct-start", vmid);
            planned.step(down.and_then(|down| Ok(down.undone_by(up?).then_look())));
        }
        (true, true) => {
            for (interface, index) in wanted.interfaces.iter().zip(0u8..) {
                if let Some(there) = found.interfaces.get(&index) {
                    connect(wanted, interface, index, there, found, &mut planned);
                }
            }
        }
        (false, false) => {}
    }
    planned
}

/// What cannot be changed in place.
fn at_creation_only(
    wanted: &Container,
    found: &Found,
    before: Option<&Entry>,
    planned: &mut Planned,
) {
    if let Some((storage, size)) = &wanted.rootfs
        && let Some(rootfs) = found.options.get("rootfs")
    {
        let on = rootfs.split(':').next().unwrap_or_default();
        let gib = rootfs
            .split(',')
            .find_map(|part| part.strip_prefix("size=")?.strip_suffix('G'))
            .and_then(|text| text.parse::<u32>().ok());
        if on != storage || gib.is_some_and(|gib| gib != *size) {
            let is = gib.map_or_else(|| on.to_owned(), |gib| format!("{on}:{gib}"));
            planned.differs("properties.rootfs", is, format!("{storage}:{size}"));
            planned.block("the place and size of its root file system are fixed when it is made; destroy it or change the document");
        }
    }
    let made_from = before.and_then(|entry| entry.wanted["properties"]["template"].as_str());
    if let (Some(template), Some(made_from)) = (&wanted.template, made_from)
        && template.to_string() != made_from
    {
        let note = format!(
            "it was made from {made_from} and stays so; {template} is for its next creation"
        );
        planned.notes.push(note);
    }
    let more = found
        .interfaces
        .keys()
        .filter(|index| usize::from(**index) >= wanted.interfaces.len());
    for index in more {
        let note = format!(
            "net{index} is not in the document; interfaces are added and changed here, not removed"
        );
        planned.notes.push(note);
    }
}

/// Options of the manager. False when interfaces change.
fn set(wanted: &Container, found: &Found, planned: &mut Planned) -> bool {
    let (mut to, mut back) = (Map::new(), Map::new());
    let hostname = wanted
        .hostname
        .as_ref()
        .map(|name| ("hostname", name.to_string()));
    let plain = wanted
        .options
        .iter()
        .map(|(key, value)| (*key, value.clone()));
    for (key, value) in plain.chain(hostname) {
        let is = found.options.get(key);
        let same = is.is_some_and(|is| *is == value || canonical(key, is) == value);
        if !same {
            let from = is.map_or(Value::Null, |is| is.clone().into());
            planned.differs(format!("properties.{key}"), from.clone(), value.clone());
            to.insert(key.to_owned(), value.into());
            if !from.is_null() {
                back.insert(key.to_owned(), from);
            }
        }
    }
    let mut rewired = false;
    for (interface, index) in wanted.interfaces.iter().zip(0u8..) {
        let key = format!("net{index}");
        let is = found.interfaces.get(&index).map(|there| there.net.as_str());
        let Some(text) = rewire(interface, is, index, found, planned) else {
            continue;
        };
        rewired = true;
        to.insert(key.clone(), text.into());
        if let Some(old) = is {
            back.insert(key, without_type(old).into());
        }
    }
    if to.is_empty() {
        return true;
    }
    let vmid = wanted.vmid.get();
    let names: Vec<&str> = to.keys().map(String::as_str).collect();
    let say = format!("Changed {} of container {vmid}", names.join(", "));
    let mut made = step(say, "pct-set", &json!({"vmid": vmid, "options": to}));
    // An option that was not there before cannot be unset; with none to put back nothing can be undone.
    if back.len() == to.len() {
        let say = format!("put back {} of container {vmid}", names.join(", "));
        let undo = step(say, "pct-set", &json!({"vmid": vmid, "options": back}));
        made = made.and_then(|step| Ok(step.undone_by(undo?)));
    }
    planned.step(made.map(|step| if rewired { step.then_look() } else { step }));
    !rewired
}

/// An option as the catalog writes it; as it is where the catalog does not know it so.
fn canonical(key: &str, value: &str) -> String {
    PctOptions::from_json(&json!({ key: value }))
        .ok()
        .and_then(|options| match &options.to_json()?[key] {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        })
        .unwrap_or_else(|| value.to_owned())
}

fn without_type(net: &str) -> String {
    let parts: Vec<&str> = net.split(',').filter(|part| *part != "type=veth").collect();
    parts.join(",")
}

/// The option that an interface should have, where it has another. What the document leaves to the manager stays.
fn rewire(
    interface: &Interface,
    is: Option<&str>,
    index: u8,
    found: &Found,
    planned: &mut Planned,
) -> Option<String> {
    let there = is.and_then(|is| ContainerNet::read(&without_type(is)));
    let Some(there) = there else {
        planned.differs(
            format!("net{index}"),
            is.map(str::to_owned),
            interface.net.to_string(),
        );
        return Some(interface.net.to_string());
    };
    let mut wanted = interface.net.clone();
    wanted.mac = wanted.mac.or(there.mac);
    wanted.firewall = wanted.firewall.or(there.firewall);
    wanted.rate_kbps = wanted.rate_kbps.or(there.rate_kbps);
    wanted.mtu = mesh::mtu(interface, there.mtu, found);
    if wanted == there {
        return None;
    }
    planned.differs(format!("net{index}"), there.to_string(), wanted.to_string());
    Some(wanted.to_string())
}

fn net_of(there: &FoundInterface) -> Option<ContainerNet> {
    ContainerNet::read(&without_type(&there.net))
}

/// Name and port of an interface of a running container.
fn connect(
    wanted: &Container,
    interface: &Interface,
    index: u8,
    there: &FoundInterface,
    found: &Found,
    planned: &mut Planned,
) {
    let vmid = wanted.vmid.get();
    let Some(host_end) = &there.host_end else {
        return;
    };
    let promised = promised_name(wanted.vmid, index);
    if !there.named {
        planned.differs(
            format!("net{index}.veth"),
            host_end.clone(),
            promised.clone(),
        );
        let params = json!({"vmid": vmid, "index": index});
        let named = step(
            format!("Named {host_end} {promised}"),
            "veth-rename",
            &params,
        );
        planned.step(named.map(Step::leaving_nothing));
    }
    let bridge = interface.bridge.as_str();
    if !found
        .bridges
        .get(bridge)
        .is_some_and(|about| about.on_switch)
    {
        // The manager attaches to bridges of the kernel by itself.
        return;
    }
    let mac = net_of(there)
        .and_then(|net| net.mac)
        .map(|mac| mac.to_string());
    // Most often nothing is to be done, and none of this is needed.
    let params = || {
        let mut params = json!({"bridge": bridge, "port": host_end, "vmid": vmid});
        let name = interface.net.name.as_str();
        if name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        {
            params["iface_id"] = name.into();
        }
        if let Some(mac) = &mac {
            params["attached_mac"] = mac.clone().into();
        }
        if let Some(tag) = interface.net.tag {
            params["tag"] = tag.into();
        }
        params
    };
    let field = || format!("net{index}.port");
    match &there.port {
        None => {
            planned.differs(field(), Value::Null, format!("{host_end} on {bridge}"));
            planned.step(attach(&params(), None));
        }
        Some(port) if port.bridge != bridge && port.ours => {
            planned.differs(field(), port.bridge.clone(), bridge);
            let say = format!("Detached {} from {}", port.name, port.bridge);
            let detach = json!({"bridge": port.bridge, "port": port.name});
            let undo = attach(&as_it_is(vmid, port), None);
            let detached = step(say, "ovs-del-port", &detach);
            planned.step(detached.and_then(|step| Ok(step.undone_by(undo?))));
            planned.step(attach(&params(), None));
        }
        Some(port) if port.ours => {
            if port.tag != interface.net.tag {
                planned.differs(format!("{}.tag", field()), port.tag, interface.net.tag);
            }
            if mac.is_some() && port.attached_mac != mac {
                planned.differs(
                    format!("{}.attached_mac", field()),
                    port.attached_mac.clone(),
                    mac.clone(),
                );
            }
            if port.tag != interface.net.tag || (mac.is_some() && port.attached_mac != mac) {
                let mut params = params();
                params["port"] = port.name.clone().into();
                planned.step(attach(&params, Some(as_it_is(vmid, port))));
            }
        }
        // The manager's own, which follows its configuration.
        Some(_) => {}
    }
}

/// A step that attaches, or brings an attached port to these values; taken back to what it was before.
fn attach(params: &Value, before: Option<Value>) -> Result<Step, String> {
    let (port, bridge) = (&params["port"], &params["bridge"]);
    let (port, bridge) = (port.as_str().unwrap_or("?"), bridge.as_str().unwrap_or("?"));
    let undo = match &before {
        None => step(
            format!("detach {port} from {bridge}"),
            "ovs-del-port",
            &json!({"bridge": bridge, "port": port}),
        ),
        Some(before) => step(
            format!("put back {port} of {bridge}"),
            "ovs-add-port",
            before,
        ),
    }?;
    let say = match before {
        None => format!("Attached {port} to {bridge}"),
        Some(_) => format!("Changed {port} of {bridge}"),
    };
    Ok(step(say, "ovs-add-port", params)?.undone_by(undo))
}

fn as_it_is(vmid: u32, port: &FoundPort) -> Value {
    let mut params = json!({"bridge": port.bridge, "port": port.name, "vmid": vmid});
    if let Some(tag) = port.tag {
        params["tag"] = tag.into();
    }
    if let Some(mac) = &port.attached_mac {
        params["attached_mac"] = mac.clone().into();
    }
    params
}

/// It should not be there any more.
pub(super) fn delete(id: &str, found: &Found) -> Planned {
    let mut planned = Planned::nothing(found.ours);
    let Ok(vmid) = id
        .parse::<u64>()
        .map_err(|e| e.to_string())
        .and_then(|id| blockhost_proto::value::Vmid::try_from(id).map_err(|e| e.to_string()))
    else {
        planned.block("it is no number of a container");
        return planned;
    };
    planned.differs("id", id, Value::Null);
    if found.is_running() {
        let stop = simple(format!("Stopped container {id}"), "pct-stop", vmid.get());
        let start = simple(format!("start container {id}"), "pct-start", vmid.get());
        planned.step(stop.and_then(|stop| Ok(stop.undone_by(start?))));
    }
    for port in found.interfaces.values().filter_map(|i| i.port.as_ref()) {
        if port.ours {
            let say = format!("Detached {} from {}", port.name, port.bridge);
            let params = json!({"bridge": port.bridge, "port": port.name});
            let undo = attach(&as_it_is(vmid.get(), port), None);
            let detached = step(say, "ovs-del-port", &params);
            planned.step(detached.and_then(|step| Ok(step.undone_by(undo?))));
        }
    }
    let destroyed = simple(
        format!("Destroyed container {id}"),
        "pct-destroy",
        vmid.get(),
    );
    planned.step(destroyed.map(|step| step.only_if(OnlyIf::ContainerIsOurs(vmid))));
    planned
}

/// What is wrong with its interfaces that no step of ours makes right.
pub(super) fn complaints(wanted: &Container, found: &Found) -> Vec<String> {
    if !wanted.running {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    for (interface, index) in wanted.interfaces.iter().zip(0u8..) {
        let name = &interface.net.name;
        let bridge = interface.bridge.as_str();
        let Some(there) = found
            .interfaces
            .get(&index)
            .filter(|i| i.host_end.is_some())
        else {
            wrong.push(format!("the host's end of {name} is not there"));
            continue;
        };
        if !found
            .bridges
            .get(bridge)
            .is_some_and(|about| about.on_switch)
        {
            continue;
        }
        match &there.port {
            None => wrong.push(format!("{name} is not attached to {bridge}")),
            Some(port) if port.bridge != bridge => {
                wrong.push(format!(
                    "{name} is attached to {} and not to {bridge}",
                    port.bridge
                ));
            }
            Some(port) if !port.works => {
                let why = port.error.as_deref().unwrap_or("it has no number");
                wrong.push(format!("the switch cannot use {}: {why}", port.name));
            }
            Some(port) if !port.link_up => wrong.push(format!("{} has no carrier", port.name)),
            Some(_) => {}
        }
    }
    wrong
}

/// What somebody should know about a container that is as it should be.
pub(super) fn remarks(wanted: &Container, found: &Found) -> Vec<String> {
    let mut remarks = Vec::new();
    if !wanted.running {
        return remarks;
    }
    for (interface, index) in wanted.interfaces.iter().zip(0u8..) {
        let there = found.interfaces.get(&index);
        let port = there.and_then(|there| there.port.as_ref());
        if port.is_some_and(|port| !port.heard) {
            let name = &interface.net.name;
            remarks.push(format!(
                "nothing came from {name} yet, so the switch has learned no address of it"
            ));
        }
        if interface.mode == Mode::Netmaker {
            let mtu = there.and_then(|there| there.mtu);
            remarks.extend(mesh::missing(interface, mtu, found));
        }
    }
    remarks
}

#[cfg(test)]
mod tests;
