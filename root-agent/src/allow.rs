//! Allowlists: which bridges, storages, devices, files and numbers an action may name on this host.
//! Checked in the front and again in each compartment.

use std::net::IpAddr;
use std::path::PathBuf;

use blockhost_proto::action::Action;
use blockhost_proto::qm::QmOptions;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{
    HostIpv6, IfName, ImagePath, Port, RESERVED_WALLETS, StorageName, Vmid,
};
use serde::{Deserialize, Serialize};

use crate::compartment::Failure;

/// `allow:` of the policy file. Defaults are those of the reference infrastructure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allowlists {
    /// Bridges a virtual network card may be attached to.
    pub bridges: Vec<String>,
    /// Devices a host route may point to.
    pub route_devices: Vec<String>,
    /// Storages that disks may live on.
    pub storages: Vec<String>,
    /// Storages that cloud-init snippets may be named from.
    pub snippet_storages: Vec<String>,
    /// Directories disk images are imported from, absolute, below the root of the installation.
    pub image_dirs: Vec<PathBuf>,
    /// Wallet names `generate-wallet` refuses and `addressbook-save` protects.
    pub reserved_wallets: Vec<String>,
    /// Ports that may be opened, as `22` or `1000-2000`.
    pub firewall_ports: Vec<PortRange>,
    /// Machines the agent may touch.
    pub vmids: VmidRange,
    /// Host routes may only be made inside these prefixes; empty means any global unicast or ULA address.
    pub route_prefixes: Vec<Prefix>,
}

/// `first-last` ports, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

/// Machine numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmidRange {
    /// First vmid.
    pub first: u32,
    /// Last vmid.
    pub last: u32,
}

/// An address prefix such as `fd77:b10c::/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    /// Network address.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub length: u8,
}

impl Default for Allowlists {
    fn default() -> Self {
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        Self {
            bridges: names(&["vmbr0"]),
            route_devices: names(&["vmbr0"]),
            storages: names(&["local", "local-lvm"]),
            snippet_storages: names(&["local"]),
            image_dirs: vec![PathBuf::from("/var/lib/blockhost/images")],
            reserved_wallets: names(&RESERVED_WALLETS),
            firewall_ports: vec![PortRange {
                first: 1,
                last: u16::MAX,
            }],
            vmids: VmidRange {
                first: 100,
                last: 999_999,
            },
            route_prefixes: Vec::new(),
        }
    }
}

impl Allowlists {
    /// Whether this host lets the action name what it names.
    ///
    /// # Errors
    /// `forbidden`, with the value, the list and its key in the policy file.
    pub fn check(&self, action: &Action) -> Result<(), Failure> {
        match action {
            Action::QmStart(a) => self.vmid(a.vmid),
            Action::QmStop(a) => self.vmid(a.vmid),
            Action::QmTemplate(a) => self.vmid(a.vmid),
            Action::QmShutdown(a) => self.vmid(a.vmid),
            Action::QmDestroy(a) => self.vmid(a.vmid),
            Action::QmCreate(a) => self.vmid(a.vmid).and_then(|()| self.options(&a.args.0)),
            Action::QmSet(a) => self.vmid(a.vmid).and_then(|()| self.options(&a.options)),
            Action::QmImportdisk(a) => {
                self.vmid(a.vmid)?;
                self.image(&a.disk_path)?;
                self.storage(&a.storage)
            }
            Action::QmClone(a) => self.vmid(a.vmid).and_then(|()| self.vmid(a.newid)),
            Action::QmResize(a) => self.vmid(a.vmid),
            Action::QmStatus(a) => self.vmid(a.vmid),
            Action::QmConfig(a) => self.vmid(a.vmid),
            Action::QmGuestPing(a) => self.vmid(a.vmid),
            Action::QmGuestExec(a) => self.vmid(a.vmid),
            Action::Ip6RouteAdd(a) => self.route(a.address, &a.dev),
            Action::Ip6RouteDel(a) => self.route(a.address, &a.dev),
            Action::IptablesOpen(a) => self.port(a.port),
            Action::IptablesClose(a) => self.port(a.port),
            Action::GenerateWallet(a) => {
                let name = a.name.to_string();
                one_of(&name, &self.reserved_wallets).map_or(Ok(()), |_| {
                    let message =
                        format!("the wallet name `{name}` is reserved (allow.reserved_wallets)");
                    Err(Failure::new(ErrorCode::Forbidden, message))
                })
            }
            // Which entries of the address book may change depends on its present contents: the keys compartment knows.
            Action::AddressbookSave(_)
            | Action::LedgerAppend(_)
            | Action::AgentInfo(_)
            | Action::QmList(_) => Ok(()),
        }
    }

    fn vmid(&self, vmid: Vmid) -> Result<(), Failure> {
        let VmidRange { first, last } = self.vmids;
        if (first..=last).contains(&vmid.get()) {
            return Ok(());
        }
        Err(not_allowed(
            "machine",
            &vmid.to_string(),
            &format!("{first}-{last}"),
            "vmids",
        ))
    }

    fn storage(&self, storage: &StorageName) -> Result<(), Failure> {
        listed("storage", storage.as_str(), &self.storages, "storages")
    }

    fn options(&self, options: &QmOptions) -> Result<(), Failure> {
        options
            .bridges()
            .try_for_each(|bridge| listed("bridge", bridge.as_str(), &self.bridges, "bridges"))?;
        options
            .storages()
            .try_for_each(|storage| self.storage(storage))?;
        options.snippets().try_for_each(|snippet| {
            listed(
                "snippet storage",
                snippet.storage().as_str(),
                &self.snippet_storages,
                "snippet_storages",
            )
        })
    }

    fn image(&self, image: &ImagePath) -> Result<(), Failure> {
        if self
            .image_dirs
            .iter()
            .any(|directory| image.below(directory).is_some())
        {
            return Ok(());
        }
        let directories: Vec<String> = self
            .image_dirs
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        Err(not_allowed(
            "image path",
            image.as_ref(),
            &directories.join(", "),
            "image_dirs",
        ))
    }

    fn route(&self, address: HostIpv6, device: &IfName) -> Result<(), Failure> {
        listed(
            "route device",
            device.as_str(),
            &self.route_devices,
            "route_devices",
        )?;
        let address = IpAddr::V6(address.address());
        if self.route_prefixes.is_empty()
            || self
                .route_prefixes
                .iter()
                .any(|prefix| prefix.contains(address))
        {
            return Ok(());
        }
        let prefixes: Vec<String> = self
            .route_prefixes
            .iter()
            .map(|&prefix| prefix.into())
            .collect();
        Err(not_allowed(
            "address",
            &address.to_string(),
            &prefixes.join(", "),
            "route_prefixes",
        ))
    }

    fn port(&self, port: Port) -> Result<(), Failure> {
        let port = port.get();
        if self
            .firewall_ports
            .iter()
            .any(|range| (range.first..=range.last).contains(&port))
        {
            return Ok(());
        }
        let ranges: Vec<String> = self
            .firewall_ports
            .iter()
            .map(|&range| range.into())
            .collect();
        Err(not_allowed(
            "port",
            &port.to_string(),
            &ranges.join(", "),
            "firewall_ports",
        ))
    }
}

fn one_of<'a>(name: &str, list: &'a [String]) -> Option<&'a String> {
    list.iter().find(|entry| entry.as_str() == name)
}

fn listed(what: &str, name: &str, list: &[String], key: &str) -> Result<(), Failure> {
    one_of(name, list)
        .map(|_| ())
        .ok_or_else(|| not_allowed(what, name, &list.join(", "), key))
}

fn not_allowed(what: &str, given: &str, allowed: &str, key: &str) -> Failure {
    let allowed = if allowed.is_empty() { "none" } else { allowed };
    Failure::new(
        ErrorCode::Forbidden,
        format!(
            "{what} {given} is not allowed on this host; allowed: {allowed} (allow.{key} of root-agent.yaml)"
        ),
    )
}

/// Digits only: `str::parse` would take a sign.
fn digits(text: &str) -> Option<u16> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

impl TryFrom<String> for PortRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        match (digits(first.trim()), digits(last.trim())) {
            (Some(first), Some(last)) if first > 0 && first <= last => Ok(Self { first, last }),
            _ => Err(format!(
                "`{}` is no port range; write `22` or `1000-2000`",
                text.escape_default()
            )),
        }
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        format!("{}-{}", range.first, range.last)
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let error = || {
            format!(
                "`{}` is no prefix; write it like `fd77:b10c::/64`",
                text.escape_default()
            )
        };
        let (address, length) = text.split_once('/').ok_or_else(error)?;
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let length = digits(length)
            .and_then(|n| u8::try_from(n).ok())
            .ok_or_else(error)?;
        if length > if address.is_ipv4() { 32 } else { 128 } {
            return Err(error());
        }
        Ok(Self { address, length })
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        format!("{}/{}", prefix.address, prefix.length)
    }
}

impl Prefix {
    /// Whether the address lies in the prefix.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ours, theirs, width) = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u128::from(a.to_bits()), u128::from(b.to_bits()), 32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let shift = width - u32::from(self.length);
        // A shift by the whole width is prefix 0: everything matches.
        ours.checked_shr(shift) == theirs.checked_shr(shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_port_ranges_are_refused() {
        for text in [
            "", "0", "+80", "80-", "-80", "90-80", "65536", "80,90", "eighty",
        ] {
            assert!(PortRange::try_from(text.to_owned()).is_err(), "{text}");
        }
        assert_eq!(
            PortRange::try_from("22".to_owned()),
            Ok(PortRange {
                first: 22,
                last: 22
            })
        );
    }

    #[test]
    fn a_prefix_holds_its_addresses_and_no_others() {
        let prefix = Prefix::try_from("fd77:b10c::/64".to_owned()).expect("a prefix");
        assert!(prefix.contains("fd77:b10c::1".parse().expect("address")));
        assert!(!prefix.contains("fd77:b10d::1".parse().expect("address")));
        assert!(!prefix.contains("10.0.0.1".parse().expect("address")));
        let all = Prefix::try_from("::/0".to_owned()).expect("a prefix");
        assert!(all.contains("2001:db8::1".parse().expect("address")));
        assert!(Prefix::try_from("10.0.0.0/33".to_owned()).is_err());
    }
}
