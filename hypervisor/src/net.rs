//! A machine's network cards on the host side: the tap device and its place in a Linux bridge.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use blockhost_proto::qm::{NetDevice, QmOption};

use crate::config::VmConfig;
use crate::error::{Error, Result};
use crate::exec::{self, Run};
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

/// Name of the tap device, as in Proxmox.
pub fn tap_name(vmid: Vmid, index: u32) -> String {
    format!("tap{vmid}i{index}")
}

fn ip(args: &[&str]) -> Result<exec::Finished> {
    Run::new(exec::find("ip", "iproute2")?, args.iter().copied()).status()
}

/// Insists that the bridge is there and is a Linux bridge.
///
/// # Errors
/// [`Error::Environment`] saying what it is instead.
pub fn check_bridge(bridge: &str) -> Result<()> {
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
        Some("bridge") => Ok(()),
        Some("openvswitch") => Err(Error::Environment(format!(
            "'{bridge}' is an Open vSwitch bridge, which blockhost-qm cannot use yet; use a Linux bridge"
        ))),
        other => Err(Error::Environment(format!(
            "'{bridge}' is no Linux bridge but {}",
            other.unwrap_or("an ordinary interface")
        ))),
    }
}

/// Creates the tap device of a card, puts it into its bridge and switches it on. The device lives as long as the
/// returned descriptor or a copy of it.
///
/// # Errors
/// [`Error::Environment`] when the bridge or `/dev/net/tun` is missing.
pub fn plug(vmid: Vmid, index: u32, card: &NetDevice) -> Result<OwnedFd> {
    let key = format!("net{index}");
    if card.rate_kbps.is_some() {
        return Err(Error::option(
            key,
            "rate is not supported by this backend; use the vm-throttle action",
        ));
    }
    let bridge = card.bridge.to_string();
    check_bridge(&bridge)?;
    let name = tap_name(vmid, index);
    let tap = sys::open_tap(&name).map_err(|e| {
        Error::Environment(format!(
            "tap device '{name}' cannot be made (/dev/net/tun, CAP_NET_ADMIN): {e}"
        ))
    })?;
    let mtu = card.mtu.filter(|mtu| *mtu > 1).map(|mtu| mtu.to_string());
    let mut args = vec!["link", "set", "dev", &name, "master", &bridge];
    if let Some(mtu) = &mtu {
        args.extend(["mtu", mtu]);
    }
    args.push("up");
    ip(&args)?.success()?;
    if let Some(tag) = card.tag {
        let tag = tag.to_string();
        let bridge_tool = exec::find("bridge", "iproute2")?;
        let vlan = |args: &[&str]| Run::new(&bridge_tool, args.iter().copied()).status();
        let _ = vlan(&["vlan", "del", "dev", &name, "vid", "1"])?;
        let added = vlan(&["vlan", "add", "dev", &name, "vid", &tag, "pvid", "untagged"])?;
        added.success().map_err(|e| {
            Error::Environment(format!("tag={tag} needs a VLAN-aware bridge (ip link set {bridge} type bridge vlan_filtering 1): {e}"))
        })?;
    }
    Ok(tap)
}
