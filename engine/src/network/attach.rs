//! Plans how the host's end of a container's interface gets onto the switch, and which port and files go when it leaves.
//! Pure: from what is wanted and what was observed to actions; the bus service carries them out.

use blockhost_proto::action::{OvsAddPort, VethRename};
use blockhost_proto::qm::MacAddress;
use blockhost_proto::value::{
    EventName, IfIndex, Integer as _, Param as _, PortKind, SwitchIfName, Trunks, VlanTag, Vmid,
};

use super::bindings::{self, Binding};
use super::observe::{Link, Observed, Port, Switch};

/// The bridge where nothing else says which.
const USUAL_BRIDGE: &str = "ovsbr0";

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The host's end, by any of its names.
    pub device: SwitchIfName,
    /// What the container is called.
    pub container: EventName,
    /// Its number.
    pub vmid: Vmid,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// Gives the device the name that people know; nothing where it has it, or where the device is not of that kind.
    pub rename: Option<VethRename>,
    /// Puts it onto the switch.
    pub add: OvsAddPort,
    /// Whether it was there already, so that a failure later does not take it away.
    pub attached_before: bool,
    /// Which of the container's interfaces it is.
    pub index: IfIndex,
}

/// Why it cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// No device, or no switch.
    #[error("{0}")]
    NotFound(String),
    /// Not what it should be.
    #[error("{0}")]
    Unsuitable(String),
    /// Somebody else has it.
    #[error("{0}")]
    Taken(String),
}

/// Plans; `known` are the bindings there are.
///
/// # Errors
/// [`AttachError`] in a sentence for whoever asked.
pub fn plan(
    wanted: &Wanted,
    observed: &Observed,
    known: &[Binding],
) -> Result<Attachment, AttachError> {
    let Wanted {
        device,
        container,
        vmid,
    } = wanted;
    let link = observed.link(device.as_str()).ok_or_else(|| {
        AttachError::NotFound(format!("there is no network device {device} on this host"))
    })?;
    if link.kind.as_deref() != Some("veth") {
        return Err(AttachError::Unsuitable(format!(
            "{device} is no host's end of a container's interface (a veth)"
        )));
    }
    let first: SwitchIfName = link.name.parse().map_err(|_| {
        AttachError::Unsuitable(format!(
            "the device {device} has a first name that no port may have"
        ))
    })?;
    let meant = names_of(link).find_map(meant_by);
    if let Some((owner, _)) = names_of(link)
        .filter_map(meant_by)
        .find(|(of, _)| of != vmid)
    {
        return Err(AttachError::Taken(format!(
            "{first} belongs to container {owner}, not to {vmid}"
        )));
    }
    let switch = observed.switch.as_ref().ok_or_else(|| {
        AttachError::NotFound(
            "there is no switch (Open vSwitch) on this host, or it does not answer".to_owned(),
        )
    })?;
    let port = switch.port(&link.name);
    if let Some((bridge, port)) = port
        && let Some(owner) = port.vmid.filter(|owner| *owner != vmid.get())
    {
        return Err(AttachError::Taken(format!(
            "{first} is on bridge {} for container {owner} already",
            blockhost_proto::escape::shown(&bridge.name)
        )));
    }
    if port.is_none()
        && let Some(master) = &link.master
        && master != "ovs-system"
    {
        return Err(AttachError::Taken(format!(
            "{first} is on bridge {} already, which is not the switch's; take it off there first",
            blockhost_proto::escape::shown(master)
        )));
    }
    let index = match (meant, port) {
        (Some((_, index)), _) => index,
        // Somebody who may has said whose it is already.
        (None, Some((_, port))) if port.vmid == Some(vmid.get()) => {
            free_index(*vmid, &first, known)?
        }
        (None, _) => {
            return Err(AttachError::Unsuitable(format!(
                "nothing says that {first} belongs to container {vmid}: it is called neither veth{vmid}i0 nor vi{vmid}; attach it with AddPort if it is to be a port"
            )));
        }
    };
    let name = bindings::interface_name(*vmid, index);
    let other = observed
        .link(&name)
        .filter(|other| other.index != link.index);
    if let Some(other) = other {
        return Err(AttachError::Taken(format!(
            "{name} is another device already ({})",
            blockhost_proto::escape::shown(&other.name)
        )));
    }
    let bridge = match port {
        Some((bridge, _)) => named(&bridge.name)?,
        None => bridge_for(observed)?,
    };
    let (tag, trunks, attached_mac) = match port {
        Some((_, port)) => kept(port)?,
        None => (None, None, None),
    };
    Ok(Attachment {
        rename: (managed_name(&link.name).is_some() && !link.is_called(&name)).then_some(
            VethRename {
                vmid: *vmid,
                index: Some(index),
            },
        ),
        add: OvsAddPort {
            bridge,
            port: first,
            tag,
            trunks,
            vmid: Some(*vmid),
            kind: PortKind::System,
            attached_mac,
            iface_id: Some(container.clone()),
        },
        attached_before: port.is_some(),
        index,
    })
}

/// VLAN, trunks and hardware address of a port.
type Kept = (Option<VlanTag>, Option<Trunks>, Option<MacAddress>);

/// What a port keeps that is on the switch already: the agent empties what it is not told, and a port without its VLAN is in
/// all of them.
fn kept(port: &Port) -> Result<Kept, AttachError> {
    let name = port.name.as_deref().unwrap_or_default();
    let strange = |what: &str| {
        AttachError::Unsuitable(format!(
            "port {} has {what}, which is not set here and would be lost; take it off the switch first",
            blockhost_proto::escape::shown(name)
        ))
    };
    let tag = port
        .tag
        .map(|tag| {
            let vlan = VlanTag::from_json(&tag.into());
            vlan.map_err(|_| strange(&format!("the VLAN tag {tag}")))
        })
        .transpose()?;
    let trunks = (!port.trunks.is_empty())
        .then(|| {
            let trunks = Trunks::from_json(&port.trunks.as_slice().into());
            trunks.map_err(|_| strange("trunks of another kind"))
        })
        .transpose()?;
    let mac = port.attached_mac.as_deref().map(|mac| {
        MacAddress::read(mac).ok_or_else(|| strange("a hardware address of another form"))
    });
    Ok((tag, trunks, mac.transpose()?))
}

/// What attaches a device that is no container's, with nothing of its own.
///
/// # Errors
/// [`AttachError::Taken`] where it is a port already, unless it is one like that: it would lose its VLAN and whose it is.
pub fn plain(
    bridge: SwitchIfName,
    port: SwitchIfName,
    switch: &Switch,
) -> Result<OvsAddPort, AttachError> {
    // Of a bridge's own port the agent says what is wrong with it.
    if port != bridge
        && let Some((on, there)) = switch.port(port.as_str())
    {
        let shown = blockhost_proto::escape::shown(&on.name);
        if on.name != bridge.as_str() {
            let what = format!("port {port} is on bridge {shown} already; nothing was changed");
            return Err(AttachError::Taken(what));
        }
        let bare = there.tag.is_none()
            && there.trunks.is_empty()
            && there.vmid.is_none()
            && there.iface_id.is_none()
            && there.attached_mac.is_none();
        if !bare {
            return Err(AttachError::Taken(format!(
                "port {port} is on bridge {shown} already, with a VLAN or as a machine's, which it would lose; nothing was changed"
            )));
        }
    }
    Ok(OvsAddPort {
        bridge,
        port,
        tag: None,
        trunks: None,
        vmid: None,
        kind: PortKind::System,
        attached_mac: None,
        iface_id: None,
    })
}

/// Whether a port may be taken off where nobody watches over it: not one that the host may be reached by.
///
/// # Errors
/// [`AttachError::Taken`] for such a one, and where nobody could look.
pub fn is_free_to_go(
    bridge: &SwitchIfName,
    port: &SwitchIfName,
    observed: &Observed,
) -> Result<(), AttachError> {
    let switch = observed.switch.as_ref();
    let Some((on, there)) = switch.and_then(|switch| switch.port(port.as_str())) else {
        return Ok(());
    };
    if there.vmid.is_some() || meant_by(port.as_str()).is_some() {
        return Ok(());
    }
    let own = match (&observed.links, observed.link(&on.name)) {
        (None, _) => Some("what of this host hangs on it could not be looked at".to_owned()),
        (_, link) => {
            let mut addresses = link.into_iter().flat_map(|link| &link.addresses);
            let own = addresses.find(|address| !address.starts_with("fe80"));
            own.map(|address| format!("{} has the address {address} of this host", on.name))
        }
    };
    own.map_or(Ok(()), |why| {
        Err(AttachError::Taken(format!(
            "port {port} may be what this host is reached by: {why}; `blockhost net uplink detach --bridge {bridge} --uplink {port}` or \
             `blockhost apply` take it off so that it comes back where that cuts you off"
        )))
    })
}

/// Whether a port is a container's: this binding's, or any machine's where there is no binding.
#[must_use]
pub fn is_of(port: &Port, binding: Option<&Binding>) -> bool {
    match binding {
        Some(binding) => port.vmid == Some(binding.vmid.get()),
        None => port.vmid.is_some(),
    }
}

fn names_of(link: &Link) -> impl Iterator<Item = &str> {
    let others = link.altnames.iter().map(String::as_str);
    std::iter::once(link.name.as_str()).chain(others)
}

/// The container that a host's end belongs to by its name: only root names devices.
fn meant_by(name: &str) -> Option<(Vmid, IfIndex)> {
    managed_name(name)
        .or_else(|| bindings::parse_name(name))
        .or_else(|| firewall_name(name))
}

/// `fwln<vmid>o<index>`, what the switch sees of an interface behind Proxmox's firewall.
fn firewall_name(name: &str) -> Option<(Vmid, IfIndex)> {
    let (vmid, index) = name.strip_prefix("fwln")?.split_once('o')?;
    Some((Vmid::from_decimal(vmid)?, IfIndex::from_decimal(index)?))
}

/// `veth<vmid>i<index>`, as Proxmox names the host's ends.
fn managed_name(name: &str) -> Option<(Vmid, IfIndex)> {
    let (vmid, index) = name.strip_prefix("veth")?.split_once('i')?;
    Some((Vmid::from_decimal(vmid)?, IfIndex::from_decimal(index)?))
}

/// The number that this device has already, or the first free one.
fn free_index(
    vmid: Vmid,
    device: &SwitchIfName,
    known: &[Binding],
) -> Result<IfIndex, AttachError> {
    let of_container = || known.iter().filter(|binding| binding.vmid == vmid);
    if let Some(binding) = of_container().find(|binding| binding.device == *device) {
        return Ok(binding.index);
    }
    (IfIndex::MIN..=IfIndex::MAX)
        .filter_map(IfIndex::from_checked)
        .find(|index| of_container().all(|binding| binding.index != *index))
        .ok_or_else(|| AttachError::Taken(format!("container {vmid} has 32 interfaces already")))
}

fn named(bridge: &str) -> Result<SwitchIfName, AttachError> {
    bridge.parse().map_err(|_| {
        AttachError::Unsuitable(format!(
            "the bridge {} has a name that is not supported",
            blockhost_proto::escape::shown(bridge)
        ))
    })
}

/// The only bridge, or the usual one.
fn bridge_for(observed: &Observed) -> Result<SwitchIfName, AttachError> {
    let bridges = observed
        .switch
        .as_ref()
        .map_or(&[][..], |switch| &switch.bridges);
    match bridges {
        [] => Err(AttachError::NotFound(
            "the switch has no bridge; make one with ovs-add-br".to_owned(),
        )),
        [only] => named(&only.name),
        several if several.iter().any(|bridge| bridge.name == USUAL_BRIDGE) => named(USUAL_BRIDGE),
        _ => Err(AttachError::Unsuitable(format!(
            "the switch has several bridges and none is called {USUAL_BRIDGE}; attach with AddPort instead"
        ))),
    }
}

#[cfg(test)]
#[path = "attach_tests.rs"]
mod tests;
