//! Allowlists: which bridges, storages, devices, files and numbers an action may name on this host.
//! Checked in the front and again in each compartment.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
