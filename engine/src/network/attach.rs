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

/// What a port keeps that is on the switch already: the agent empties what it is not told, and a port without its VLAN is in
/// all of them.
fn kept(port: &Port) -> Result<(Option<VlanTag>, Option<Trunks>, Option<MacAddress>), AttachError> {
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
mod tests {
    use super::*;
    use serde_json::json;

    fn observed(links: &serde_json::Value, switch: &serde_json::Value) -> Observed {
        let links: Vec<Link> = links
            .as_array()
            .expect("a list")
            .iter()
            .zip(1..)
            .map(|(link, index)| {
                let mut whole = json!({"index": index, "altnames": [], "kind": "veth", "alias": null, "mac": null,
                    "mtu": 1500, "up": true, "operstate": "up", "carrier": true, "master": null, "lower": null,
                    "addresses": [], "counters": {"rx_packets": 0, "rx_bytes": 0, "rx_dropped": 0, "rx_errors": 0,
                    "tx_packets": 0, "tx_bytes": 0, "tx_dropped": 0, "tx_errors": 0}});
                for (key, value) in link.as_object().expect("a link") {
                    whole[key] = value.clone();
                }
                serde_json::from_value(whole).expect("a link")
            })
            .collect();
        let switch: Switch = serde_json::from_value(json!({"bridges": switch})).expect("a switch");
        Observed {
            links: Some(links),
            switch: Some(switch),
            ..Observed::default()
        }
    }

    fn wanted(device: &str) -> Wanted {
        Wanted {
            device: device.parse().expect("a name"),
            container: "web-1".parse().expect("a name"),
            vmid: Vmid::from_decimal("100").expect("a number"),
        }
    }

    #[test]
    fn a_managed_device_is_renamed_by_its_number_and_attached_under_its_own_name() {
        let seen = observed(&json!([{"name": "veth100i1"}]), &json!([{"name": "br-a"}]));
        let plan = plan(&wanted("veth100i1"), &seen, &[]).expect("a plan");
        assert_eq!(
            plan.rename.map(|rename| rename.wanted_name()).as_deref(),
            Some("vi100_1")
        );
        assert_eq!(
            (plan.add.port.as_str(), plan.add.bridge.as_str()),
            ("veth100i1", "br-a")
        );
        assert_eq!(
            plan.add.iface_id.map(|id| id.to_string()).as_deref(),
            Some("web-1")
        );
    }

    #[test]
    fn the_second_time_nothing_is_renamed_and_the_port_stays_where_it_is() {
        let seen = observed(
            &json!([{"name": "veth100i0", "altnames": ["vi100"], "master": "ovs-system"}]),
            &json!([{"name": "ovsbr0"}, {"name": "other", "ports": [{"name": "veth100i0", "vmid": 100}]}]),
        );
        let plan = plan(&wanted("vi100"), &seen, &[]).expect("a plan");
        assert!(plan.rename.is_none() && plan.attached_before);
        assert_eq!(plan.add.bridge.as_str(), "other");
    }

    #[test]
    fn what_is_anothers_or_no_containers_is_refused() {
        let bridges = json!([{"name": "ovsbr0", "ports": [{"name": "vethx", "vmid": 101}]}]);
        let links = json!([
            {"name": "veth101i0"}, {"name": "eth0", "kind": null}, {"name": "vethx"},
            {"name": "veth100i5", "master": "fwbr100i0"}, {"name": "veth100i0"}, {"name": "other", "altnames": ["vi100"]},
            {"name": "vethy"}, {"name": "docker7", "altnames": ["lan"]}, {"name": "vi102"}, {"name": "fwln101o0"},
            {"name": "veth100i6", "altnames": ["vi101"]}
        ]);
        let seen = observed(&links, &bridges);
        let refused = |device: &str| plan(&wanted(device), &seen, &[]).expect_err("refused");
        assert!(matches!(refused("veth101i0"), AttachError::Taken(_)));
        assert!(matches!(refused("eth0"), AttachError::Unsuitable(_)));
        assert!(matches!(refused("vethx"), AttachError::Taken(_)));
        assert!(matches!(refused("veth100i5"), AttachError::Taken(_)));
        assert!(
            matches!(refused("veth100i0"), AttachError::Taken(_)),
            "vi100 is another device"
        );
        for nobodys in ["vethy", "docker7", "lan"] {
            assert!(
                matches!(refused(nobodys), AttachError::Unsuitable(_)),
                "{nobodys}"
            );
        }
        for anothers in ["vi102", "fwln101o0", "veth100i6", "vi101"] {
            assert!(
                matches!(refused(anothers), AttachError::Taken(_)),
                "{anothers}"
            );
        }
        assert!(matches!(refused("nothing"), AttachError::NotFound(_)));
    }

    #[test]
    fn a_port_that_is_attached_again_keeps_its_vlan_and_its_address() {
        let port = json!({"name": "vi100", "vmid": 100, "tag": 7, "trunks": [8, 9], "attached_mac": "02:00:00:00:01:64"});
        let with = |port: serde_json::Value| {
            let bridges = json!([{"name": "ovsbr0", "ports": [port]}]);
            plan(
                &wanted("vi100"),
                &observed(&json!([{"name": "vi100"}]), &bridges),
                &[],
            )
        };
        let add = with(port.clone()).expect("a plan").add;
        assert_eq!(add.tag, VlanTag::from_checked(7));
        let trunks = add
            .trunks
            .as_ref()
            .map(|trunks| trunks.iter().map(|tag| tag.get()).collect());
        assert_eq!(trunks, Some(vec![8, 9]));
        assert_eq!(add.attached_mac, MacAddress::read("02:00:00:00:01:64"));
        // What cannot be said again would be lost, so nothing is done.
        for (key, value) in [
            ("tag", json!(0)),
            ("tag", json!(-7)),
            ("trunks", json!([0])),
            ("trunks", json!([7, 5000])),
            ("attached_mac", json!("somewhere")),
        ] {
            let mut port = port.clone();
            port[key] = value;
            assert!(
                matches!(with(port.clone()), Err(AttachError::Unsuitable(_))),
                "{port}"
            );
        }
    }

    #[test]
    fn a_plain_port_takes_nothing_from_one_that_is_there() {
        let at = |bridge: &str, port: &serde_json::Value| {
            let bridges = json!([{"name": "ovsbr0", "ports": [port]}, {"name": "ovsbr1"}]);
            let seen = observed(&json!([]), &bridges);
            let names = (
                bridge.parse().expect("a name"),
                "vi100".parse().expect("a name"),
            );
            plain(names.0, names.1, seen.switch.as_ref().expect("a switch"))
        };
        let bare = json!({"name": "vi100"});
        at("ovsbr0", &bare).expect("the same again");
        at("ovsbr0", &json!({"name": "vi101", "tag": 7})).expect("another one's");
        assert!(matches!(at("ovsbr1", &bare), Err(AttachError::Taken(_))));
        for (key, value) in [
            ("tag", json!(7)),
            ("trunks", json!([7])),
            ("vmid", json!(100)),
            ("iface_id", json!("web-1")),
            ("attached_mac", json!("02:00:00:00:01:64")),
        ] {
            let mut port = bare.clone();
            port[key] = value;
            assert!(
                matches!(at("ovsbr0", &port), Err(AttachError::Taken(_))),
                "{port}"
            );
        }
    }

    #[test]
    fn which_bridge_is_never_guessed() {
        let links = json!([{"name": "vi100"}]);
        let with = |bridges| plan(&wanted("vi100"), &observed(&links, &bridges), &[]);
        assert!(matches!(with(json!([])), Err(AttachError::NotFound(_))));
        let two = json!([{"name": "a"}, {"name": "b"}]);
        assert!(matches!(with(two), Err(AttachError::Unsuitable(_))));
        let usual = json!([{"name": "a"}, {"name": "ovsbr0"}]);
        assert_eq!(with(usual).expect("a plan").add.bridge.as_str(), "ovsbr0");
    }

    fn binding(device: &str, index: u64) -> Binding {
        Binding {
            vmid: Vmid::from_decimal("100").expect("a number"),
            index: IfIndex::from_checked(index).expect("a number"),
            device: device.parse().expect("a name"),
            bridge: "ovsbr0".parse().expect("a name"),
            container: "web-1".parse().expect("a name"),
            created: String::new(),
        }
    }

    #[test]
    fn a_port_of_the_container_with_another_name_gets_the_first_free_number_and_keeps_it() {
        let port = json!({"name": "vethy", "vmid": 100});
        let bridges = json!([{"name": "ovsbr0", "ports": [port]}]);
        let seen = observed(&json!([{"name": "vethy"}]), &bridges);
        let index = |known: &[Binding]| {
            plan(&wanted("vethy"), &seen, known)
                .expect("a plan")
                .index
                .get()
        };
        assert_eq!(index(&[]), 0);
        assert_eq!(index(&[binding("a", 0), binding("b", 2)]), 1);
        assert_eq!(index(&[binding("a", 0), binding("vethy", 2)]), 2);
    }

    #[test]
    fn every_name_that_a_host_s_end_of_the_container_has_will_do() {
        let bridges = json!([{"name": "ovsbr0"}]);
        for (link, index) in [
            (json!({"name": "veth100i3"}), 3),
            (json!({"name": "vi100_2"}), 2),
            (json!({"name": "fwln100o1"}), 1),
            (json!({"name": "lxc7", "altnames": ["vi100"]}), 0),
        ] {
            let name = link["name"].as_str().expect("a name").to_owned();
            let seen = observed(&json!([link]), &bridges);
            let plan = plan(&wanted(&name), &seen, &[]).expect("a plan");
            assert_eq!(plan.index.get(), index, "{name}");
            assert_eq!(plan.rename.is_some(), name == "veth100i3", "{name}");
        }
    }

    #[test]
    fn a_binding_that_is_older_than_its_port_says_nothing_about_it() {
        let port = |vmid: serde_json::Value| -> Port {
            serde_json::from_value(json!({"name": "veth100i0", "vmid": vmid})).expect("a port")
        };
        let known = binding("veth100i0", 0);
        assert!(is_of(&port(json!(100)), Some(&known)));
        assert!(
            !is_of(&port(json!(101)), Some(&known)),
            "it is another machine's now"
        );
        assert!(
            !is_of(&port(json!(null)), Some(&known)),
            "it is no machine's now"
        );
        assert!(is_of(&port(json!(101)), None) && !is_of(&port(json!(null)), None));
    }
}
