//! A machine's network cards on the host side: the tap device and its place in a Linux bridge. Bridges are the same for
//! containers.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use blockhost_proto::qm::{IpConfig, MacAddress, NetDevice, QmOption};

use crate::config::VmConfig;
use crate::error::{Error, Result};
use crate::exec::{self, Run};
use crate::guard::Guard;
use crate::machine::Vmid;
use crate::sys;

/// One network card of a configuration, with its index.
pub fn cards(config: &VmConfig) -> Result<Vec<(u32, NetDevice)>> {
    config
        .numbered("net")
        .into_iter()
        .map(
            |(index, value)| match QmOption::parse(&format!("net{index}"), value) {
                Ok(QmOption::Net(_, device)) => Ok((index, device)),
                Ok(_) => Err(Error::option(format!("net{index}"), "no network card")),
                Err(e) => Err(Error::option(format!("net{index}"), e.to_string())),
            },
        )
        .collect()
}

/// The addresses that a card is configured with.
///
/// # Errors
/// [`Error::Option`] when what is stored is none.
pub fn addresses(config: &VmConfig, index: u32) -> Result<Option<IpConfig>> {
    let key = format!("ipconfig{index}");
    let Some(value) = config.get(&key) else {
        return Ok(None);
    };
    let read = IpConfig::read(value);
    let wrong = || format!("stored value '{}' is not valid", value.escape_default());
    read.map(Some).ok_or_else(|| Error::option(key, wrong()))
}

/// What holds a card with `firewall=1` to its own addresses; `None` for others.
///
/// # Errors
/// [`Error::Option`] where there is no hardware address to hold it to.
pub(crate) fn guard(
    key: &str,
    firewall: Option<bool>,
    mac: Option<MacAddress>,
    of: impl FnOnce(MacAddress) -> Guard,
) -> Result<Option<Guard>> {
    if firewall != Some(true) {
        return Ok(None);
    }
    let missing = "firewall=1 needs a hardware address; set the option again and it gets one";
    let mac = mac.ok_or_else(|| Error::option(key, missing))?;
    Ok(Some(of(mac)))
}

/// Name of the tap device, as in Proxmox.
pub fn tap_name(vmid: Vmid, index: u32) -> String {
    format!("tap{vmid}i{index}")
}

/// Runs `ip`.
pub(crate) fn ip(args: &[&str]) -> Result<exec::Finished> {
    Run::new(exec::find("ip", "iproute2")?, args.iter().copied()).status()
}

/// What a bridge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeKind {
    /// The kernel's own.
    Linux,
    /// A switch's: its ports are added in the switch.
    Switch,
}

/// Looks what a bridge is.
///
/// # Errors
/// [`Error::Environment`] when it is missing or something else.
pub fn bridge_kind(bridge: &str) -> Result<BridgeKind> {
    let found = ip(&["-json", "-details", "link", "show", "dev", bridge])?;
    if !found.status.success() {
        return Err(Error::Environment(format!(
            "bridge '{bridge}' does not exist: create it (ip link add {bridge} type bridge) or set another bridge in netN"
        )));
    }
    let links: serde_json::Value = serde_json::from_str(&found.output).unwrap_or_default();
    match links
        .pointer("/0/linkinfo/info_kind")
        .and_then(serde_json::Value::as_str)
    {
        Some("bridge") => Ok(BridgeKind::Linux),
        // The second is what a switch without its kernel module makes.
        Some("openvswitch" | "tun") => Ok(BridgeKind::Switch),
        other => Err(Error::Environment(format!(
            "'{bridge}' is no bridge but {}",
            other.unwrap_or("an ordinary interface")
        ))),
    }
}

/// Insists that the bridge is there and is a Linux bridge.
///
/// # Errors
/// [`Error::Environment`] saying what it is instead.
pub fn check_bridge(bridge: &str) -> Result<()> {
    match bridge_kind(bridge)? {
        BridgeKind::Linux => Ok(()),
        BridgeKind::Switch => Err(Error::Environment(format!(
            "'{bridge}' is an Open vSwitch bridge, which blockhost-qm cannot use yet; use a Linux bridge"
        ))),
    }
}

/// Puts a device that has just been made into a Linux bridge and switches it on, in one VLAN where a tag is given. What guards
/// it is in force before the first frame.
///
/// # Errors
/// When the kernel refuses; a tag needs a bridge that knows VLANs.
pub(crate) fn join(
    name: &str,
    bridge: &str,
    mtu: Option<u16>,
    tag: Option<u16>,
    guard: Option<&Guard>,
) -> Result<()> {
    if let Some(guard) = guard {
        guard.put_in_force(name)?;
    }
    let mtu = mtu.map(|mtu| mtu.to_string());
    let mut args = vec!["link", "set", "dev", name, "master", bridge];
    if let Some(mtu) = &mtu {
        args.extend(["mtu", mtu]);
    }
    args.push("up");
    ip(&args)?.success()?;
    let Some(tag) = tag else { return Ok(()) };
    let tag = tag.to_string();
    let bridge_tool = exec::find("bridge", "iproute2")?;
    let vlan = |args: &[&str]| Run::new(&bridge_tool, args.iter().copied()).status();
    let _ = vlan(&["vlan", "del", "dev", name, "vid", "1"])?;
    let added = vlan(&["vlan", "add", "dev", name, "vid", &tag, "pvid", "untagged"])?;
    added.success().map_err(|e| {
        Error::Environment(format!("tag={tag} needs a VLAN-aware bridge (ip link set {bridge} type bridge vlan_filtering 1): {e}"))
    })?;
    Ok(())
}

/// Creates the tap device of a card, puts it into its bridge and switches it on. The device lives as long as the
/// returned descriptor or a copy of it.
///
/// # Errors
/// [`Error::Environment`] when the bridge or `/dev/net/tun` is missing.
pub fn plug(vmid: Vmid, index: u32, card: &NetDevice, ip: Option<IpConfig>) -> Result<OwnedFd> {
    let key = format!("net{index}");
    if card.rate_kbps.is_some() {
        return Err(Error::option(
            key.as_str(),
            "rate is not supported by this backend; use the vm-throttle action",
        ));
    }
    let guard = guard(&key, card.firewall, card.mac, |mac| {
        Guard::new(mac, ip.and_then(|ip| ip.ip4), ip.and_then(|ip| ip.ip6))
    })?;
    let bridge = card.bridge.to_string();
    check_bridge(&bridge)?;
    let name = tap_name(vmid, index);
    let tap = sys::open_tap(&name).map_err(|e| {
        Error::Environment(format!(
            "tap device '{name}' cannot be made (/dev/net/tun, CAP_NET_ADMIN): {e}"
        ))
    })?;
    let mtu = card.mtu.filter(|mtu| *mtu > 1);
    join(&name, &bridge, mtu, card.tag, guard.as_ref())?;
    Ok(tap)
}
