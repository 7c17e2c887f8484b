//! The two ways to tell a WireGuard device what to be: the kernel by netlink, a daemon by its control socket.

use std::path::PathBuf;

use blockhost_proto::layout::Layout;
use blockhost_proto::value::WgName;

use super::uapi::{self, UapiError};
use crate::policy::WireguardChoice;
use blockhost_netlink::wireguard::{Device, PeerChange};
use blockhost_netlink::{Link, Netlink, NetlinkError};

/// Why a device was not told.
#[derive(Debug)]
pub(super) enum BackendError {
    Kernel(NetlinkError),
    Daemon(UapiError),
}

/// Where devices live.
#[derive(Debug)]
pub(super) enum Backend {
    Kernel(Netlink),
    /// The directory of the daemons' sockets.
    Userspace(PathBuf),
}

impl Backend {
    pub(super) fn open(choice: WireguardChoice, layout: &Layout) -> Result<Self, NetlinkError> {
        match choice {
            WireguardChoice::Kernel => Netlink::open_generic().map(Self::Kernel),
            WireguardChoice::Userspace => Ok(Self::Userspace(layout.wireguard_sockets())),
        }
    }

    /// Whether a device is of the kind that tunnels are here.
    pub(super) fn is_tunnel(&self, link: &Link) -> bool {
        let kind = match self {
            Self::Kernel(_) => "wireguard",
            Self::Userspace(_) => "tun",
        };
        link.kind.as_deref() == Some(kind)
    }

    /// Whether an unmarked device was made for us: a daemon makes its device itself when it starts, and one of the
    /// kernel's is left so by an agent that died while it made it.
    pub(super) fn may_adopt(&self, link: &Link, name: &WgName) -> Result<bool, BackendError> {
        match self {
            Self::Userspace(sockets) if self.is_tunnel(link) && link.alias.is_none() => {
                match uapi::get(sockets, name) {
                    Ok(_) => Ok(true),
                    // A tun device of something else.
                    Err(UapiError::NoDaemon(_)) => Ok(false),
                    Err(error) => Err(BackendError::Daemon(error)),
                }
            }
            Self::Kernel(_) => Ok(self.is_tunnel(link) && link.is_unfinished()),
            Self::Userspace(_) => Ok(false),
        }
    }

    pub(super) fn make(
        &self,
        links: &mut Netlink,
        name: &WgName,
        alias: &str,
    ) -> Result<(), BackendError> {
        match self {
            Self::Kernel(_) => links
                .link_create(name.as_str(), "wireguard", alias)
                .map_err(BackendError::Kernel),
            Self::Userspace(_) => Err(BackendError::Daemon(UapiError::NoDaemon(name.clone()))),
        }
    }

    pub(super) fn get(&mut self, name: &WgName) -> Result<Device, BackendError> {
        match self {
            Self::Kernel(netlink) => netlink
                .wireguard_get(name.as_str())
                .map_err(BackendError::Kernel),
            Self::Userspace(sockets) => uapi::get(sockets, name).map_err(BackendError::Daemon),
        }
    }

    pub(super) fn set(
        &mut self,
        name: &WgName,
        private_key: &[u8; 32],
        port: Option<u16>,
    ) -> Result<(), BackendError> {
        match self {
            Self::Kernel(netlink) => netlink
                .wireguard_set(name.as_str(), private_key, port)
                .map_err(BackendError::Kernel),
            Self::Userspace(sockets) => {
                uapi::set(sockets, name, private_key, port).map_err(BackendError::Daemon)
            }
        }
    }

    pub(super) fn change(
        &mut self,
        name: &WgName,
        changes: &[PeerChange],
    ) -> Result<(), BackendError> {
        match self {
            Self::Kernel(netlink) => netlink
                .wireguard_change(name.as_str(), changes)
                .map_err(BackendError::Kernel),
            Self::Userspace(sockets) => {
                uapi::change(sockets, name, changes).map_err(BackendError::Daemon)
            }
        }
    }
}
