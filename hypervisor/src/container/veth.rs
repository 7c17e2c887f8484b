//! The host's end of a container's interface. We make the pair ourselves, the end inside at once in the container's name
//! space, so the host's end has its name from the start: `vi<vmid>`, and `vi<vmid>_<n>` for all but the first.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use blockhost_proto::pct::ContainerNet;

use crate::error::{Error, IoContext, Result};
use crate::exec::Run;
use crate::guard::Guard;
use crate::machine::Vmid;
use crate::net::{self, BridgeKind};

/// Name of the host's end.
pub fn host_name(vmid: Vmid, index: u32) -> String {
    match index {
        0 => format!("vi{vmid}"),
        index => format!("vi{vmid}_{index}"),
    }
}

/// Insists that the interfaces can be made here, before anything is started.
///
/// # Errors
/// [`Error::Environment`] naming the bridge.
pub fn check(nets: &[(u32, ContainerNet)]) -> Result<()> {
    nets.iter()
        .try_for_each(|(_, net)| net::bridge_kind(net.bridge.as_ref()).map(drop))
}

/// Makes all pairs of a starting container; what is to be said about them. They vanish with the container.
///
/// # Errors
/// When one cannot be made.
pub fn plug(vmid: Vmid, nets: &[(u32, ContainerNet)], space: &OwnedFd) -> Result<Vec<String>> {
    not_our_own(space)?;
    let mut notes = Vec::new();
    for (index, net) in nets {
        notes.extend(plug_one(vmid, *index, net, space)?);
    }
    Ok(notes)
}

/// The service says whose name space this is; if it were the host's, addresses would be set on the host.
fn not_our_own(space: &OwnedFd) -> Result<()> {
    let path = "/proc/self/ns/net";
    let own = rustix::fs::stat(path).at("cannot inspect", path)?;
    let given = rustix::fs::fstat(space).at("cannot inspect", "a name space")?;
    if (own.st_dev, own.st_ino) == (given.st_dev, given.st_ino) {
        return Err(Error::Failed(
            "the service handed out the host's own network; nothing was plugged in".to_owned(),
        ));
    }
    Ok(())
}

fn plug_one(
    vmid: Vmid,
    index: u32,
    card: &ContainerNet,
    space: &OwnedFd,
) -> Result<Option<String>> {
    let name = host_name(vmid, index);
    let bridge = card.bridge.to_string();
    let kind = net::bridge_kind(&bridge)?;
    // Of a container that ended a moment ago; it is stopped, or this start would have been refused.
    let _ = net::ip(&["link", "delete", "dev", &name, "type", "veth"])?;
    let mac = card.mac.map(|mac| mac.to_string());
    let mtu = card.mtu.map(|mtu| mtu.to_string());
    let inside = card.name.to_string();
    let target = format!("/proc/self/fd/{}", space.as_raw_fd());
    let mut args = vec!["link", "add", "dev", &name];
    if let Some(mtu) = &mtu {
        args.extend(["mtu", mtu]);
    }
    args.extend(["type", "veth", "peer", "name", &inside]);
    if let Some(mac) = &mac {
        args.extend(["address", mac]);
    }
    if let Some(mtu) = &mtu {
        args.extend(["mtu", mtu]);
    }
    args.extend(["netns", &target]);
    let ip = crate::exec::find("ip", "iproute2")?;
    Run::new(ip, args.iter().copied())
        .keep([space.as_fd()])
        .output()?;
    let open = without_ipv6(&name).err();
    if kind == BridgeKind::Linux {
        let key = format!("net{index}");
        let guard = net::guard(&key, card.firewall, card.mac, |mac| {
            Guard::new(mac, card.ip4, card.ip6)
        })?;
        net::join(&name, &bridge, None, card.tag, guard.as_ref())?;
        return Ok(None);
    }
    // Whoever adds the port may not be allowed to switch it on.
    net::ip(&["link", "set", "dev", &name, "up"])?.success()?;
    let mut note = format!(
        "{name} is up but in no bridge: '{bridge}' is a switch's; add the port there (ovs-add-port, or ovs-vsctl add-port {bridge} {name})"
    );
    if let Some(e) = open {
        note.push_str(&format!(
            "; until then this host listens to IPv6 from the container there ({e})"
        ));
    }
    Ok(Some(note))
}

/// The host itself has no address on its end and must get none from what the container advertises. Called before it is up.
fn without_ipv6(name: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    match std::fs::write(&path, "1") {
        Ok(()) => Ok(()),
        // A host without IPv6.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).at("cannot write", path),
    }
}
