//! How a name, a number, a network or a path is looked for on a list, and which names are machines'. Who may what is decided in
//! the module above.

use std::net::IpAddr;
use std::path::PathBuf;

use blockhost_proto::value::{IfIndex, ImagePath, Port, Vmid};

use super::{NotAllowed, PortRange, Prefix, Vmids};

pub(super) fn in_ranges(
    what: &str,
    port: Port,
    list: &[PortRange],
    key: &'static str,
) -> Result<(), NotAllowed> {
    let port = port.get();
    if list
        .iter()
        .any(|range| (range.first..=range.last).contains(&port))
    {
        return Ok(());
    }
    let ranges: Vec<String> = list.iter().map(|&range| range.into()).collect();
    Err(not_allowed(
        what,
        &port.to_string(),
        &ranges.join(", "),
        key,
    ))
}

pub(super) fn numbered(
    what: &str,
    vmid: u32,
    list: &Vmids,
    key: &'static str,
) -> Result<(), NotAllowed> {
    if list.contains(vmid) {
        return Ok(());
    }
    Err(not_allowed(what, &vmid.to_string(), &list.to_string(), key))
}

pub(super) const fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// A network that lies wholly in one of the prefixes.
pub(super) fn inside(
    what: &str,
    address: IpAddr,
    length: u8,
    list: &[Prefix],
    key: &'static str,
) -> Result<(), NotAllowed> {
    if list
        .iter()
        .any(|prefix| prefix.contains(address) && length >= prefix.length)
    {
        return Ok(());
    }
    let prefixes: Vec<String> = list.iter().map(|&prefix| prefix.into()).collect();
    let given = format!("{address}/{length}");
    Err(not_allowed(what, &given, &prefixes.join(", "), key))
}

/// The machine whose interface has this name by construction: `vi100`, `vi100_1`, and what Proxmox calls its own.
pub(super) fn machine_of(port: &str) -> Option<Vmid> {
    let known = [
        ("vi", "_"),
        ("veth", "i"),
        ("tap", "i"),
        ("fwln", "o"),
        ("fwln", "i"),
        ("fwpr", "p"),
    ];
    known.iter().find_map(|(kind, mark)| {
        let rest = port.strip_prefix(kind)?;
        let (number, interface) = match rest.split_once(mark) {
            Some(parts) => parts,
            None if *kind == "vi" => (rest, "0"),
            None => return None,
        };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = number.trim_start_matches('0');
        (digits(number) && digits(interface))
            .then(|| number.parse::<Vmid>().ok())
            .flatten()
    })
}

/// Whether a machine's interface has this name by construction.
pub fn is_machines(name: &str) -> bool {
    machine_of(name).is_some()
}

/// The name that the container manager gave a device which `veth-rename` makes known by this one.
pub fn alternative_of(name: &str) -> Option<String> {
    let number = name.strip_prefix("vi")?;
    let (vmid, index) = number.split_once('_').unwrap_or((number, "0"));
    let (vmid, index): (Vmid, IfIndex) = (vmid.parse().ok()?, index.parse().ok()?);
    Some(format!("veth{vmid}i{index}"))
}

/// A port's name on the list. Of devices that are called as machines' are, what many names begin with stands for machines' alone:
/// Docker's veth, a VPN's tap or libvirt's virbr0 are somebody else's, and have to be named whole.
pub(super) fn attachable(port: &str, list: &[String]) -> Result<(), NotAllowed> {
    const LIKE_MACHINES: [&str; 5] = ["vi", "veth", "tap", "fwln", "fwpr"];
    let in_doubt = LIKE_MACHINES.iter().any(|kind| port.starts_with(kind)) && !is_machines(port);
    if !in_doubt || one_of(port, list).is_some() {
        return like("switch port", port, list, "ovs_ports");
    }
    Err(NotAllowed {
        sentence: format!(
            "switch port {port} is not allowed: it is no machine's, and only names that are given whole stand for others'"
        ),
        key: "ovs_ports",
    })
}

/// On the list by name, or by the beginning of it where the entry ends with `*`.
pub(super) fn like(
    what: &str,
    name: &str,
    list: &[String],
    key: &'static str,
) -> Result<(), NotAllowed> {
    let covered = list.iter().any(|entry| match entry.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => entry == name,
    });
    if covered {
        Ok(())
    } else {
        Err(not_allowed(what, name, &list.join(", "), key))
    }
}

pub(super) fn one_of<'a>(name: &str, list: &'a [String]) -> Option<&'a String> {
    list.iter().find(|entry| entry.as_str() == name)
}

pub(super) fn listed(
    what: &str,
    name: &str,
    list: &[String],
    key: &'static str,
) -> Result<(), NotAllowed> {
    one_of(name, list)
        .map(|_| ())
        .ok_or_else(|| not_allowed(what, name, &list.join(", "), key))
}

/// A path is allowed when it names something below one of the directories.
pub(super) fn below(
    what: &str,
    path: &ImagePath,
    directories: &[PathBuf],
    key: &'static str,
) -> Result<(), NotAllowed> {
    if directories
        .iter()
        .any(|directory| path.below(directory).is_some())
    {
        return Ok(());
    }
    let allowed: Vec<String> = directories
        .iter()
        .map(|directory| directory.display().to_string())
        .collect();
    Err(not_allowed(what, path.as_ref(), &allowed.join(", "), key))
}

pub(super) fn not_allowed(what: &str, given: &str, allowed: &str, key: &'static str) -> NotAllowed {
    let allowed = if allowed.is_empty() { "none" } else { allowed };
    NotAllowed {
        sentence: format!("{what} {given} is not allowed; allowed: {allowed}"),
        key,
    }
}
