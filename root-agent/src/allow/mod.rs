//! Allowlists: which bridges, storages, devices, files and numbers an action may name, on this host (`allow:`) and for
//! the caller of one rule (`only:`). Checked in the front, at the gate and in each compartment by the one function here.
//! The lists themselves and their defaults stand in [`lists`], the ranges they are made of in [`range`], how a name is found on
//! one in [`names`], what a clone has that nobody names in [`brought`].

mod brought;
mod lists;
mod names;
mod range;

use std::net::IpAddr;

use blockhost_proto::action::Action;
use blockhost_proto::pct::PctOptions;
use blockhost_proto::qm::QmOptions;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{
    HostIpv6, IfName, ImagePath, MachinePrefix, NatAddress, Port, RouteNet, StorageName,
    SwitchIfName, TemplateRef, Text as _, Vmid, WgName,
};

pub use self::lists::{Allowlists, Only};
pub use self::names::{alternative_of, is_machines};
use self::names::{
    attachable, below, in_ranges, inside, like, listed, machine_of, not_allowed, numbered, one_of,
    width,
};
pub use self::range::{PortRange, Prefix, Setting, VmidRange, Vmids};
use crate::compartment::Failure;

/// A value that is on none of its list's entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAllowed {
    /// What was named and what could be.
    sentence: String,
    /// Key of the list.
    key: &'static str,
}

impl NotAllowed {
    /// As an answer about a clone of that machine, which nobody gave the value to.
    pub fn brought(&self, source: Vmid) -> Failure {
        Failure::new(
            ErrorCode::Forbidden,
            format!(
                "VM {source} has what a clone of it must not have: {} ({} of root-agent.yaml); change it there, or have another \
                 machine cloned",
                self.sentence, self.key
            ),
        )
    }

    /// As an answer; `place` is where the list stands in the policy file.
    pub fn at(&self, place: &str) -> Failure {
        Failure::new(
            ErrorCode::Forbidden,
            format!(
                "{} ({place}.{} of root-agent.yaml)",
                self.sentence, self.key
            ),
        )
    }
}

impl Allowlists {
    /// Whether this host lets the action name what it names.
    ///
    /// # Errors
    /// `forbidden`, with the value, the list and its key in the policy file.
    pub fn check(&self, action: &Action) -> Result<(), Failure> {
        self.holds(action).map_err(|denied| denied.at("allow"))
    }

    /// Whether everything that the action names is on these lists.
    ///
    /// # Errors
    /// The first value that is not.
    pub fn holds(&self, action: &Action) -> Result<(), NotAllowed> {
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
            Action::QmClone(a) => {
                self.source(a.vmid.get())?;
                self.vmid(a.newid)
            }
            Action::QmResize(a) => self.vmid(a.vmid),
            Action::QmStatus(a) => self.vmid(a.vmid),
            Action::QmConfig(a) => self.vmid(a.vmid),
            Action::QmMetrics(a) => a.vmid.map_or(Ok(()), |vmid| self.vmid(vmid)),
            Action::QmGuestPing(a) => self.vmid(a.vmid),
            Action::QmGuestExec(a) => self.vmid(a.vmid),
            Action::PctCreate(a) => {
                self.vmid(a.vmid)?;
                self.template(&a.template)?;
                self.container(&a.options)
            }
            Action::PctStart(a) => self.vmid(a.vmid),
            Action::PctStop(a) => self.vmid(a.vmid),
            Action::PctShutdown(a) => self.vmid(a.vmid),
            Action::PctDestroy(a) => self.vmid(a.vmid),
            Action::PctStatus(a) => self.vmid(a.vmid),
            Action::PctConfig(a) => self.vmid(a.vmid),
            Action::PctSet(a) => self.vmid(a.vmid).and_then(|()| self.container(&a.options)),
            Action::PctExec(a) => self.vmid(a.vmid),
            Action::VmThrottle(a) => self.vmid(a.vmid),
            Action::PveSetThrottle(a) => self.vmid(a.vmid),
            Action::TcRateLimit(a) => self.vmid(a.vmid),
            Action::VirtCustomize(a) => {
                self.image(&a.image_path)?;
                a.commands
                    .host_paths()
                    .try_for_each(|path| self.image(path))
            }
            Action::Ip6RouteAdd(a) => self.route(a.address, &a.dev),
            Action::Ip6RouteDel(a) => self.route(a.address, &a.dev),
            Action::RouteSet(a) => self.network_route(a.dest, &a.dev),
            Action::RouteDel(a) => self.network_route(a.dest, &a.dev),
            Action::RouteFromSet(a) => self.source_route(a.from, &a.dev),
            Action::RouteFromDel(a) => self.source_route(a.from, &a.dev),
            Action::IptablesOpen(a) => self.port(a.port),
            Action::IptablesClose(a) => self.port(a.port),
            Action::IptablesSet(a) => a.rules.iter().try_for_each(|rule| self.port(rule.port)),
            Action::NatSet(a) => {
                let mut pairs = a.pairs.iter();
                pairs.try_for_each(|pair| self.translation(pair.public, pair.private))
            }
            Action::NatMap(a) => self.translation(a.public, a.private),
            Action::NatUnmap(a) => self.translation(a.public, a.private),
            Action::ProxySet(a) => {
                self.proxy(a.address, &a.dev)?;
                self.route_device(&a.behind)
            }
            Action::ProxyDel(a) => self.proxy(a.address, &a.dev),
            Action::MasqueradeSet(a) => {
                self.tunnel(&a.dev)?;
                a.networks.iter().try_for_each(|network| {
                    inside(
                        "private network",
                        network.address(),
                        network.length(),
                        &self.nat_private,
                        "nat_private",
                    )
                })
            }
            Action::SysctlSet(a) => {
                if !self.host_settings.contains(&Setting(a.setting)) {
                    let all: Vec<&str> = self.host_settings.iter().map(|s| s.0.as_str()).collect();
                    let setting = a.setting.as_str();
                    return Err(not_allowed(
                        "setting",
                        setting,
                        &all.join(", "),
                        "host_settings",
                    ));
                }
                a.dev.as_ref().map_or(Ok(()), |dev| {
                    listed("uplink", dev.as_str(), &self.uplinks, "uplinks")
                })
            }
            Action::VethRename(a) => self.vmid(a.vmid),
            Action::LinkSet(a) => {
                self.device(&a.dev)?;
                let mut addresses = a.addresses.iter().flat_map(|list| list.iter());
                addresses
                    .try_for_each(|address| self.link_address(address.address(), address.length()))
            }
            Action::LinkHandover(a) => self.handover(&a.from, &a.to),
            Action::OvsAddBr(a) => self.switch(&a.bridge),
            Action::OvsDelBr(a) => self.switch(&a.bridge),
            Action::OvsAddPort(a) => {
                self.switch_port(&a.bridge, &a.port)?;
                a.vmid.map_or(Ok(()), |vmid| self.vmid(vmid))
            }
            Action::OvsDelPort(a) => self.switch_port(&a.bridge, &a.port),
            Action::OvsSetFlows(a) => self.switch(&a.bridge),
            Action::OvsSetQos(a) => self.switch_port(&a.bridge, &a.port),
            Action::OvsSetMeter(a) => self.switch(&a.bridge),
            Action::OvsList(a) => a
                .bridge
                .as_ref()
                .map_or(Ok(()), |bridge| self.switch(bridge)),
            // What a process is in is no secret; the compartment refuses the host's own.
            Action::ContainerLook(_) => Ok(()),
            Action::ContainerAttach(a) => {
                self.container_port(&a.port)?;
                like(
                    "interface in a container",
                    a.interface.as_str(),
                    &self.container_interfaces,
                    "container_interfaces",
                )?;
                a.addresses.iter().try_for_each(|address| {
                    inside(
                        "address in a container",
                        address.address(),
                        address.length(),
                        &self.container_addresses,
                        "container_addresses",
                    )
                })
            }
            Action::ContainerDetach(a) => self.container_port(&a.port),
            Action::WgSetup(a) => {
                self.tunnel(&a.name)?;
                a.listen_port.map_or(Ok(()), |port| {
                    in_ranges("port", port, &self.wg_ports, "wg_ports")
                })?;
                a.addresses.iter().try_for_each(|address| {
                    inside(
                        "tunnel address",
                        address.address(),
                        address.length(),
                        &self.wg_addresses,
                        "wg_addresses",
                    )
                })
            }
            Action::WgSetPeers(a) => self.tunnel(&a.name),
            Action::WgTeardown(a) => self.tunnel(&a.name),
            Action::WgShow(a) => self.tunnel(&a.name),
            Action::GenerateWallet(a) => {
                let name = a.name.to_string();
                one_of(&name, &self.reserved_wallets).map_or(Ok(()), |_| {
                    Err(NotAllowed {
                        sentence: format!("the wallet name `{name}` is reserved"),
                        key: "reserved_wallets",
                    })
                })
            }
            Action::BrokerRenew(a) => inside(
                "prefix",
                IpAddr::V6(a.prefix.address()),
                a.prefix.length(),
                &self.broker_prefixes,
                "broker_prefixes",
            ),
            // Which entries of the address book may change depends on its present contents: the keys compartment knows.
            Action::AddressbookSave(_)
            | Action::NatList(_)
            | Action::MasqueradeList(_)
            | Action::IptablesList(_)
            | Action::LedgerAppend(_)
            | Action::LedgerCosign(_)
            | Action::LedgerRotateKey(_)
            | Action::LedgerAnchored(_)
            | Action::LedgerBlob(_)
            | Action::LedgerShred(_)
            | Action::LedgerPrune(_)
            | Action::AgentInfo(_)
            | Action::QmList(_)
            | Action::PctList(_) => Ok(()),
        }
    }

    fn vmid(&self, vmid: Vmid) -> Result<(), NotAllowed> {
        numbered("machine", vmid.get(), &self.vmids, "vmids")
    }

    /// A machine that others may be made from.
    fn source(&self, vmid: u32) -> Result<(), NotAllowed> {
        let (list, key) = match &self.clone_from {
            list if list.is_empty() => (&self.vmids, "vmids"),
            list => (list, "clone_from"),
        };
        numbered("to clone machine", vmid, list, key)
    }

    fn storage(&self, storage: &StorageName) -> Result<(), NotAllowed> {
        listed("storage", storage.as_str(), &self.storages, "storages")
    }

    fn options(&self, options: &QmOptions) -> Result<(), NotAllowed> {
        options
            .bridges()
            .try_for_each(|bridge| listed("bridge", bridge.as_str(), &self.bridges, "bridges"))?;
        options
            .storages()
            .try_for_each(|storage| self.storage(storage))?;
        options.bases().try_for_each(|vmid| self.source(vmid))?;
        options.snippets().try_for_each(|snippet| {
            listed(
                "snippet storage",
                snippet.storage().as_str(),
                &self.snippet_storages,
                "snippet_storages",
            )
        })
    }

    fn container(&self, options: &PctOptions) -> Result<(), NotAllowed> {
        options
            .bridges()
            .try_for_each(|bridge| listed("bridge", bridge.as_str(), &self.bridges, "bridges"))?;
        options
            .root_storage()
            .map_or(Ok(()), |storage| self.storage(storage))
    }

    fn template(&self, template: &TemplateRef) -> Result<(), NotAllowed> {
        match template {
            TemplateRef::Stored { storage, .. } => listed(
                "template storage",
                storage.as_str(),
                &self.template_storages,
                "template_storages",
            ),
            TemplateRef::File(path) => {
                below("template path", path, &self.template_dirs, "template_dirs")
            }
        }
    }

    fn image(&self, image: &ImagePath) -> Result<(), NotAllowed> {
        below("image path", image, &self.image_dirs, "image_dirs")
    }

    fn route(&self, address: HostIpv6, device: &IfName) -> Result<(), NotAllowed> {
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

    /// A device that may have routes or addresses, and a network that is private or one of the host's own.
    fn network_route(&self, dest: RouteNet, dev: &IfName) -> Result<(), NotAllowed> {
        self.route_device(dev)?;
        let networks = [self.route_networks.as_slice(), &self.public_pools].concat();
        let (address, length) = (dest.address(), dest.length());
        inside("network", address, length, &networks, "route_networks").map_err(|denied| {
            if lists::is_private(address) {
                return denied;
            }
            let hint = "addresses that machines of this host get have to be inside public_pools, public networks behind the \
                 device inside route_networks";
            NotAllowed {
                sentence: format!("{}; {hint}", denied.sentence),
                key: "public_pools",
            }
        })
    }

    fn route_device(&self, dev: &IfName) -> Result<(), NotAllowed> {
        if one_of(dev.as_str(), &self.route_devices).is_none() {
            like("device", dev.as_str(), &self.link_devices, "link_devices")?;
        }
        machine_of(dev.as_str()).map_or(Ok(()), |vmid| self.vmid(vmid))
    }

    /// A tunnel, and a network that routes may be about. Never one of `public_pools`: those are reached by the uplink.
    fn source_route(&self, from: MachinePrefix, dev: &WgName) -> Result<(), NotAllowed> {
        self.tunnel(dev)?;
        inside(
            "network",
            IpAddr::V6(from.address()),
            from.length(),
            &self.route_networks,
            "route_networks",
        )
    }

    /// Whether what is at a device of that name may be given another way.
    pub fn names_way(&self, device: &str) -> bool {
        IfName::read(device).is_some_and(|dev| self.route_device(&dev).is_ok())
    }

    /// Whether a route that goes out of such a device may be put in another's place.
    pub fn names_route(&self, dest: RouteNet, device: &str) -> bool {
        IfName::read(device).is_some_and(|dev| self.network_route(dest, &dev).is_ok())
    }

    /// Whether addresses of the network are given to machines one by one.
    pub fn is_public(&self, dest: RouteNet) -> bool {
        let pools = &self.public_pools;
        inside("", dest.address(), dest.length(), pools, "public_pools").is_ok()
    }

    /// Whether a host route that goes out of such a device may be put in another's place.
    pub fn names_route_device(&self, device: &str) -> bool {
        one_of(device, &self.route_devices).is_some()
    }

    fn port(&self, port: Port) -> Result<(), NotAllowed> {
        in_ranges("port", port, &self.firewall_ports, "firewall_ports")
    }

    fn translation(&self, public: NatAddress, private: NatAddress) -> Result<(), NotAllowed> {
        let one = |what, address: NatAddress, list: &[Prefix], key| {
            let address = address.address();
            inside(what, address, width(address), list, key)
        };
        one("public address", public, &self.public_pools, "public_pools")?;
        one("private address", private, &self.nat_private, "nat_private")
    }

    /// A public address, and where the host meets others.
    fn proxy(&self, address: NatAddress, dev: &IfName) -> Result<(), NotAllowed> {
        listed("uplink", dev.as_str(), &self.uplinks, "uplinks")?;
        let host = address.address();
        inside(
            "public address",
            host,
            width(host),
            &self.public_pools,
            "public_pools",
        )
    }

    fn switch(&self, bridge: &SwitchIfName) -> Result<(), NotAllowed> {
        listed("switch", bridge.as_str(), &self.ovs_bridges, "ovs_bridges")
    }

    fn switch_port(&self, bridge: &SwitchIfName, port: &SwitchIfName) -> Result<(), NotAllowed> {
        self.switch(bridge)?;
        attachable(port.as_str(), &self.ovs_ports)?;
        machine_of(port.as_str()).map_or(Ok(()), |vmid| self.vmid(vmid))
    }

    fn container_port(&self, port: &SwitchIfName) -> Result<(), NotAllowed> {
        like(
            "port of a container",
            port.as_str(),
            &self.container_ports,
            "container_ports",
        )?;
        machine_of(port.as_str()).map_or(Ok(()), |vmid| self.vmid(vmid))
    }

    fn device(&self, dev: &IfName) -> Result<(), NotAllowed> {
        like("device", dev.as_str(), &self.link_devices, "link_devices")?;
        machine_of(dev.as_str()).map_or(Ok(()), |vmid| self.vmid(vmid))
    }

    fn link_address(&self, address: IpAddr, length: u8) -> Result<(), NotAllowed> {
        let networks = &self.link_addresses;
        inside("address", address, length, networks, "link_addresses")
    }

    /// Whether a device may be given such an address, and lose it.
    pub fn names_address(&self, address: IpAddr, length: u8) -> bool {
        self.link_address(address, length).is_ok()
    }

    /// Whether the addresses of a device of that name may be set: as a device or as a tunnel.
    pub fn names_device(&self, name: &str) -> bool {
        let tunnel = |name: WgName| self.tunnel(&name).is_ok();
        IfName::read(name).is_some_and(|dev| self.device(&dev).is_ok())
            || WgName::read(name).is_some_and(tunnel)
    }

    /// Between an uplink that was named by hand and a bridge of either kind, or another uplink.
    fn handover(&self, from: &IfName, to: &IfName) -> Result<(), NotAllowed> {
        let known = |dev: &IfName| {
            let bridges = self.bridges.iter().chain(&self.ovs_bridges);
            let mut all = bridges.chain(&self.uplinks);
            all.any(|entry| entry == dev.as_str())
        };
        let uplink = |dev: &IfName| self.names_uplink(dev.as_str());
        if known(from) && known(to) && (uplink(from) || uplink(to)) {
            return Ok(());
        }
        let what = "a handover between an uplink and a bridge";
        let given = format!("({from}, {to})");
        Err(not_allowed(
            what,
            &given,
            &self.uplinks.join(", "),
            "uplinks",
        ))
    }

    /// Whether a device of that name leads out of the host.
    pub fn names_uplink(&self, name: &str) -> bool {
        one_of(name, &self.uplinks).is_some()
    }

    /// Whether a device of that name is a bridge, of either kind.
    pub fn names_bridge(&self, name: &str) -> bool {
        let mut bridges = self.bridges.iter().chain(&self.ovs_bridges);
        bridges.any(|entry| entry == name)
    }

    /// Whether `link_devices` has a device of that name itself, and not what many names begin with.
    pub fn names_by_hand(&self, name: &str) -> bool {
        one_of(name, &self.link_devices).is_some()
    }

    fn tunnel(&self, name: &WgName) -> Result<(), NotAllowed> {
        like("tunnel", name.as_str(), &self.wg_names, "wg_names")
    }
}

#[cfg(test)]
mod tests;
