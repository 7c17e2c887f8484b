//! Containers: made, started, named and attached, each with its interfaces. The types and the plugin itself are here, the
//! section in `section`, what there is in `look`, what has to be done in `plan`, the routed mode in `mesh`.

mod look;
mod mesh;
mod plan;
mod section;

use std::collections::BTreeMap;

use blockhost_proto::pct::ContainerNet;
use blockhost_proto::value::{SwitchIfName, TemplateRef, VmName, Vmid};
use serde::Serialize;
use serde_json::Value;

use super::change::{Planned, ResourceRef};
use super::fields::{Fields, Wrong};
use super::host::{Host, HostError};
use super::kind::{Entry, Kind, Scope};

/// The tag that containers made here bear, so that they are known even when the record is lost.
pub const MARK: &str = "blockhost-state";

/// Whether a container's configuration bears our mark.
#[must_use]
pub fn is_marked(config: &Value) -> bool {
    let tags = config["tags"].as_str().unwrap_or_default();
    tags.split([';', ',', ' ']).any(|tag| tag == MARK)
}

/// How an interface is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// To what else is on the bridge.
    Bridge,
    /// By the host, which routes for it, into the mesh that the host is in.
    Netmaker,
}

/// One interface as the document has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The bridge.
    pub bridge: SwitchIfName,
    /// How it is connected.
    pub mode: Mode,
    /// As the container manager is told.
    pub net: ContainerNet,
}

/// A container as the document has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its number.
    pub vmid: Vmid,
    /// Whether it runs.
    pub running: bool,
    /// What it is made from; for its creation only.
    pub template: Option<TemplateRef>,
    /// Its host name.
    pub hostname: Option<VmName>,
    /// Where its root file system is, and its size in GiB.
    pub rootfs: Option<(String, u32)>,
    /// Options that can be changed later, in the manager's words.
    pub options: BTreeMap<&'static str, String>,
    /// Its interfaces, `net0` first.
    pub interfaces: Vec<Interface>,
}

/// A port of the switch as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundPort {
    /// Its name on the switch.
    pub name: String,
    /// On which bridge.
    pub bridge: String,
    /// Attached through the agent.
    pub ours: bool,
    /// Its VLAN.
    pub tag: Option<u16>,
    /// Hardware address of the container's end, as it was said when it was attached.
    pub attached_mac: Option<String>,
    /// Whether the switch can use it.
    pub works: bool,
    /// Whether there is a carrier.
    pub link_up: bool,
    /// What the switch minds.
    pub error: Option<String>,
    /// Whether anything came in by it yet.
    pub heard: bool,
}

/// One interface as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundInterface {
    /// As the manager has it: `name=eth0,bridge=...`.
    pub net: String,
    /// First name of the host's end, if it is there.
    pub host_end: Option<String>,
    /// The largest packet that the host's end takes, which was made with the container's end.
    pub mtu: Option<u32>,
    /// Whether the host's end is found under the name that is promised, `vi100`.
    pub named: bool,
    /// Its port, if it has one.
    pub port: Option<FoundPort>,
}

/// A bridge as it is, as far as containers care.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FoundBridge {
    /// It is a bridge of the switch; otherwise the container manager attaches by itself.
    pub on_switch: bool,
    /// The host's addresses on it.
    pub addresses: Vec<String>,
    /// Whether IPv4 packets that come in by it are forwarded.
    pub forwards: bool,
}

/// A container as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// `running`, `stopped`, or what else the manager says.
    pub status: String,
    /// It bears our mark.
    pub ours: bool,
    /// Its options, in the manager's words, without interfaces and marks.
    pub options: BTreeMap<String, String>,
    /// Its interfaces by number.
    pub interfaces: BTreeMap<u8, FoundInterface>,
    /// The bridges that it is on.
    #[serde(skip)]
    pub bridges: BTreeMap<String, FoundBridge>,
    /// Whether the host forwards IPv6.
    #[serde(skip)]
    pub forwards_v6: bool,
    /// The tunnel that carries least of those that the host forwards from, and its MTU.
    #[serde(skip)]
    pub narrowest: Option<(String, u32)>,
}

impl Found {
    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.status == "running"
    }
}

/// What the host's end of an interface is called: `vi100`, `vi100_1`.
#[must_use]
pub fn promised_name(vmid: Vmid, index: u8) -> String {
    match index {
        0 => format!("vi{vmid}"),
        _ => format!("vi{vmid}_{index}"),
    }
}

/// What container managers call it: `veth100i0`.
#[must_use]
pub fn managed_name(vmid: Vmid, index: u8) -> String {
    format!("veth{vmid}i{index}")
}

/// The container that a port or device belongs to by its name.
#[must_use]
pub fn owner_of(name: &str) -> Option<String> {
    let rest = name.strip_prefix("vi")?;
    let id = rest.split_once('_').map_or(rest, |(id, _)| id);
    let number: u32 = id.parse().ok()?;
    (number.to_string() == id).then(|| id.to_owned())
}

/// Containers.
#[derive(Debug, Clone, Copy)]
pub struct Lxc;

impl Kind for Lxc {
    const NAME: &'static str = "lxc";
    const MADE_AGAIN: bool = false;
    const HANDOVER: &'static str = "to hand it over: blockhost agent call pct-set '{\"vmid\": ID, \"options\": {\"tags\": \"blockhost-state\"}}'";
    type Wanted = Container;
    type Found = Found;

    fn read(&self, section: Fields<'_>) -> Result<BTreeMap<String, Container>, Wrong> {
        section::read(section)
    }

    fn show(&self, wanted: &Container) -> Value {
        section::show(wanted)
    }

    fn revive(&self, _id: &str, shown: &Value) -> Option<Container> {
        section::container(shown, super::fields::Place::top()).ok()
    }

    fn look(
        &self,
        host: &mut dyn Host,
        scope: Scope<'_>,
    ) -> Result<BTreeMap<String, Found>, HostError> {
        look::look(host, scope)
    }

    fn plan(
        &self,
        _id: &str,
        wanted: &Container,
        found: Option<&Found>,
        before: Option<&Entry>,
    ) -> Planned {
        match found {
            None => plan::create(wanted),
            Some(found) => plan::change(wanted, found, before),
        }
    }

    fn plan_delete(&self, id: &str, found: &Found, _before: &Entry) -> Planned {
        plan::delete(id, found)
    }

    fn needs(&self, _id: &str, wanted: &Container) -> Vec<ResourceRef> {
        let mut needs = Vec::new();
        for interface in &wanted.interfaces {
            let bridge = interface.bridge.as_str();
            needs.push(ResourceRef::new("net", bridge));
            if interface.mode == Mode::Netmaker {
                needs.push(ResourceRef::new("mesh", bridge));
            }
        }
        needs
    }

    fn complaints(&self, wanted: &Container, found: &Found) -> Vec<String> {
        plan::complaints(wanted, found)
    }

    fn remarks(&self, wanted: &Container, found: &Found) -> Vec<String> {
        plan::remarks(wanted, found)
    }
}
