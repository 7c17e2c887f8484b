//! The `net` compartment: routes, devices, their names and addresses, and tunnels by netlink, ports of the host's firewall and address
//! translation by `iptables-restore`. Runs as the agent's own user with `CAP_NET_ADMIN` alone; everything it needs is
//! opened in [`prepare`], but for the keys of tunnels, in a directory of its own.

pub(super) mod addresses;
mod claims;
mod devices;
mod firewall;
#[cfg(any(test, feature = "fuzz"))]
pub(super) mod fuzz;
mod handover;
mod masquerade;
mod nat;
mod networks;
mod proxy;
mod routes;
mod rules;
pub(crate) mod settings;
mod sources;
mod translate;
mod veth;
mod wireguard;

use std::path::PathBuf;

use blockhost_proto::action::Action;
use blockhost_proto::response::ErrorCode;

use super::{Done, Failure, Handler, JobCtx, StartInfo};
use devices::Devices;
use firewall::Firewall;
use networks::Networks;
use proxy::Proxies;
use routes::Routes;
use settings::Settings;
use sources::Sources;
use translate::Tracker;
use veth::Names;
use wireguard::Tunnels;

struct Net {
    routes: Routes,
    networks: Networks,
    sources: Sources,
    proxies: Proxies,
    settings: Settings,
    names: Names,
    devices: Devices,
    tracker: Tracker,
    tunnels: Tunnels,
    /// The firewall program, or why there is none: routes must work on a host without iptables.
    firewall: Result<Firewall, String>,
}

/// Opens the netlink socket and the xtables binary; called before confinement.
///
/// # Errors
/// One sentence when there is no netlink socket to be had, or the policy names a program that cannot be trusted.
pub fn prepare(start: &StartInfo<'_>) -> Result<Box<dyn Handler>, String> {
    let routes =
        Routes::open().map_err(|error| format!("the net compartment cannot start: {error}"))?;
    let networks =
        Networks::open().map_err(|error| format!("the net compartment cannot start: {error}"))?;
    let sources =
        Sources::open().map_err(|error| format!("the net compartment cannot start: {error}"))?;
    let proxies =
        Proxies::open().map_err(|error| format!("the net compartment cannot start: {error}"))?;
    let settings =
        Settings::open().map_err(|error| format!("the net compartment cannot start: {error}"))?;
    let names =
        Names::open().map_err(|error| format!("the net compartment cannot start: {error}"))?;
    let devices =
        Devices::open().map_err(|error| format!("the net compartment cannot start: {error}"))?;
    let tracker = Tracker::open();
    let tunnels = Tunnels::open(start)
        .map_err(|error| format!("the net compartment cannot start: {error}"))?;
    let configured = start.policy.programs.xtables.as_deref();
    let firewall = match Firewall::open(configured, start.layout.root()) {
        Err(error) if configured.is_some() => {
            return Err(format!(
                "the policy's programs.xtables is not usable: {error}"
            ));
        }
        opened => opened.map_err(|error| error.to_string()),
    };
    Ok(Box::new(Net {
        routes,
        networks,
        sources,
        proxies,
        settings,
        names,
        devices,
        tracker,
        tunnels,
        firewall,
    }))
}

impl Net {
    fn firewall(&self) -> Result<&Firewall, Failure> {
        self.firewall.as_ref().map_err(|why| Failure::new(ErrorCode::Failed, format!("the firewall cannot be changed: {why}; install the package iptables and restart the agent")))
    }
}

impl Handler for Net {
    fn quick(&self, action: &Action) -> bool {
        matches!(
            action,
            Action::Ip6RouteAdd(_) | Action::Ip6RouteDel(_) | Action::VethRename(_)
        )
    }

    fn run(&self, action: &Action, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        match action {
            Action::Ip6RouteAdd(route) => self.routes.add(route.address, &route.dev, ctx.allow),
            Action::Ip6RouteDel(route) => self.routes.delete(route.address, &route.dev),
            Action::RouteSet(route) => self.networks.set(route, ctx.allow),
            Action::RouteDel(route) => self.networks.delete(route),
            Action::RouteFromSet(route) => self.sources.set(route, ctx.allow),
            Action::RouteFromDel(route) => self.sources.delete(route),
            Action::ProxySet(proxy) => {
                self.proxies
                    .set(proxy, &self.networks, &self.settings, ctx.allow)
            }
            Action::ProxyDel(proxy) => self.proxies.delete(proxy, &self.networks),
            Action::IptablesOpen(port) => {
                self.firewall()?
                    .open_port(port, ctx.limits.firewall_rules, ctx.deadline)
            }
            Action::IptablesClose(port) => self.firewall()?.close_port(port, ctx.deadline),
            Action::IptablesSet(all) => {
                self.firewall()?
                    .set_ports(all, ctx.limits.firewall_rules, ctx.deadline)
            }
            Action::NatSet(all) => self.firewall()?.set_pairs(
                all,
                &self.tracker,
                ctx.limits.firewall_rules,
                ctx.deadline,
            ),
            Action::IptablesList(_) => self.firewall()?.open_ports(ctx.deadline),
            Action::NatList(_) => self.firewall()?.pairs(ctx.deadline),
            Action::NatMap(pair) => {
                self.firewall()?
                    .map(pair, ctx.limits.firewall_rules, ctx.deadline)
            }
            Action::NatUnmap(pair) => self.firewall()?.unmap(pair, &self.tracker, ctx.deadline),
            Action::MasqueradeSet(hidden) => {
                let firewall = self.firewall()?;
                self.devices.is_our_tunnel(hidden)?;
                firewall.masquerade(hidden, ctx.limits.firewall_rules, ctx.deadline)
            }
            Action::MasqueradeList(_) => self.firewall()?.masquerades(ctx.deadline),
            Action::SysctlSet(setting) => self.settings.set(setting, ctx.allow),
            Action::VethRename(interface) => self.names.give(interface),
            Action::LinkSet(device) => self.devices.set(device, ctx.allow),
            Action::LinkHandover(pair) => self.devices.hand_over(pair, ctx.allow, ctx.deadline),
            Action::WgSetup(tunnel) => self.tunnels.setup(tunnel, ctx.allow),
            Action::WgSetPeers(tunnel) => self.tunnels.set_peers(tunnel),
            Action::WgTeardown(tunnel) => self.tunnels.teardown(tunnel),
            Action::WgShow(tunnel) => self.tunnels.show(tunnel),
            other => Err(Failure::new(
                ErrorCode::Internal,
                format!(
                    "{} was sent to the net compartment, which cannot do it",
                    other.name()
                ),
            )),
        }
    }

    fn programs(&self) -> Vec<PathBuf> {
        self.firewall
            .iter()
            .map(|firewall| firewall.program().to_path_buf())
            .collect()
    }
}
