//! `sysctl-set`: the few settings of the host that no device of ours has. Those of IPv4 go by netlink; for IPv6 the kernel has
//! no request that sets them, so one directory of `/proc/sys` is opened before confinement, and files of two names in it are
//! all that is ever written.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use blockhost_netlink::route::MAIN_TABLE;
use blockhost_netlink::{Link, Netlink, NetlinkError};
use blockhost_proto::action::SysctlSet;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{HostSetting, IfName};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use serde_json::Map;

use super::devices::named;
use crate::allow::Allowlists;
use crate::beneath::open_beneath;
use crate::compartment::{Done, Failure};
use crate::failpoint;

/// Settings of IPv6, one directory for each device.
pub(crate) const DIRECTORY: &str = "/proc/sys/net/ipv6/conf";
/// All devices at once.
const ALL: &str = "all";

/// A file of that directory. There is no way to name another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Forwarding,
    ProxyNdp,
    AcceptRa,
}

impl Key {
    const fn file(self) -> &'static str {
        match self {
            Self::Forwarding => "forwarding",
            Self::ProxyNdp => "proxy_ndp",
            Self::AcceptRa => "accept_ra",
        }
    }
}

/// Routers are listened to although the host is one itself.
const ALSO_AS_A_ROUTER: &str = "2";
/// They are listened to as long as it is none.
const AS_A_HOST: &str = "1";

/// The directory, or why there is none: a host without IPv6 has everything else.
#[derive(Debug)]
pub(super) struct Settings {
    directory: Result<OwnedFd, Errno>,
    netlink: Mutex<Netlink>,
}

impl Settings {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            directory: open(Path::new(DIRECTORY), flags, Mode::empty()),
            netlink: Mutex::new(Netlink::open()?),
        })
    }

    pub(super) fn set(&self, action: &SysctlSet, allow: &Allowlists) -> Result<Done, Failure> {
        let mut netlink = self.netlink.lock().unwrap_or_else(PoisonError::into_inner);
        let SysctlSet { setting, on, .. } = *action;
        let link = match &action.dev {
            Some(dev) => Some(plainly_named(&mut netlink, dev)?),
            None => None,
        };
        if !on {
            not_in_use(&mut netlink, setting, link.as_ref())?;
        }
        let (before, kept) = match (setting, &link) {
            (HostSetting::Ipv4Forwarding, Some(link)) => {
                if link.forwards != on {
                    // What is believed of sources stays: hosts with two uplinks get answers by the other one.
                    netlink
                        .link_forward(link.index, on, false)
                        .map_err(|error| unchanged(setting, &error.to_string()))?;
                }
                (link.forwards, Vec::new())
            }
            (HostSetting::Ipv6Proxy, Some(link)) => {
                (self.switch(&link.name, Key::ProxyNdp, on)?, Vec::new())
            }
            (HostSetting::Ipv6Forwarding, None) => {
                let before = self.is_on(ALL, Key::Forwarding)?;
                let kept = match on && !before {
                    true => self.keep_routers(&mut netlink, allow)?,
                    false => Vec::new(),
                };
                failpoint::reach("net-setting", b"judged");
                (self.switch(ALL, Key::Forwarding, on)?, kept)
            }
            _ => {
                let what = "the request does not fit the setting";
                return Err(unchanged(setting, what));
            }
        };
        let of = link.map_or_else(String::new, |link| format!(" of {}", link.name));
        let is = if on { "on" } else { "off" };
        let mut output = format!("{setting}{of} is {is}");
        if before == on {
            output.push_str(", as before");
        }
        if !kept.is_empty() {
            let list = kept.join(", ");
            output.push_str(&format!("; {list} keep listening to their routers"));
        }
        let mut extra = Map::new();
        extra.insert("before".into(), before.into());
        Ok(Done { output, extra })
    }

    /// Has solicitations answered on a device, for those addresses that are said one by one.
    pub(super) fn answer_for_ipv6(&self, link: &Link) -> Result<(), Failure> {
        if !self.is_on(ALL, Key::Forwarding)? {
            let message = "this host does not forward IPv6, so it answers no neighbour solicitations for others: switch it on \
                 with sysctl-set (ipv6-forwarding)";
            return Err(Failure::new(ErrorCode::Failed, message.to_owned()));
        }
        if !self.is_on(ALL, Key::ProxyNdp)? {
            self.switch(&link.name, Key::ProxyNdp, true)?;
        }
        Ok(())
    }

    /// A host that becomes a router forgets what routers told it, unless the device says that it goes on listening. Answers the
    /// devices that were told so.
    fn keep_routers(
        &self,
        netlink: &mut Netlink,
        allow: &Allowlists,
    ) -> Result<Vec<String>, Failure> {
        let setting = HostSetting::Ipv6Forwarding;
        let unread = |error: NetlinkError| unchanged(setting, &error.to_string());
        let links = netlink.links().map_err(unread)?;
        let anywhere = std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
        let table = netlink.routes_like(anywhere).map_err(unread)?;
        let mut told = Vec::new();
        for link in &links {
            let listens = match self.read(&link.name, Key::AcceptRa) {
                Ok(text) => text == AS_A_HOST,
                // Gone since, or without IPv6.
                Err(_) => continue,
            };
            if !listens {
                continue;
            }
            let leads_out = table.iter().any(|(device, route)| {
                let way_out = route.destination().is_none() && route.leads();
                *device == link.index
                    && way_out
                    && route.protocol() == RTPROT_RA
                    && route.table() == MAIN_TABLE
            });
            if allow.names_uplink(&link.name) {
                told.push(link.name.clone());
            } else if leads_out {
                let dev = &link.name;
                let message = format!(
                    "{setting} was not switched on: the host's own way out by {dev} comes from a router's advertisements, which a \
                     router does not listen to; name {dev} in allow.uplinks of root-agent.yaml, then it goes on listening there"
                );
                return Err(Failure::new(ErrorCode::Conflict, message));
            }
        }
        for dev in &told {
            self.write(dev, Key::AcceptRa, ALSO_AS_A_ROUTER)?;
        }
        Ok(told)
    }

    /// Brings a switch to that state; how it was before.
    fn switch(&self, dev: &str, key: Key, on: bool) -> Result<bool, Failure> {
        let before = self.is_on(dev, key)?;
        if before != on {
            self.write(dev, key, if on { "1" } else { "0" })?;
            if self.is_on(dev, key)? != on {
                let message = format!(
                    "the kernel took {} of {dev} and did not keep it",
                    key.file()
                );
                return Err(Failure::new(ErrorCode::Failed, message));
            }
        }
        Ok(before)
    }

    fn is_on(&self, dev: &str, key: Key) -> Result<bool, Failure> {
        self.read(dev, key).map(|text| text != "0")
    }

    fn file(&self, dev: &str, key: Key, flags: OFlags) -> Result<OwnedFd, Failure> {
        let failed = |error: Errno| {
            let why = match error {
                Errno::ROFS => "it is mounted read-only for this process".to_owned(),
                Errno::NOENT => {
                    "there is none: this kernel has no IPv6, or the device none".to_owned()
                }
                other => other.to_string(),
            };
            let message = format!("{DIRECTORY}/{dev}/{} cannot be used: {why}", key.file());
            Failure::new(ErrorCode::Failed, message)
        };
        let directory = self.directory.as_ref().map_err(|error| failed(*error))?;
        let path = format!("{dev}/{}", key.file());
        open_beneath(directory, &path, flags).map_err(failed)
    }

    fn read(&self, dev: &str, key: Key) -> Result<String, Failure> {
        let file = self.file(dev, key, OFlags::RDONLY)?;
        let mut bytes = [0; 16];
        let read = rustix::io::read(&file, &mut bytes).map_err(|error| unread(dev, key, error))?;
        let text = std::str::from_utf8(&bytes[..read]).unwrap_or_default();
        Ok(text.trim().to_owned())
    }

    fn write(&self, dev: &str, key: Key, value: &str) -> Result<(), Failure> {
        let file = self.file(dev, key, OFlags::WRONLY)?;
        rustix::io::write(&file, value.as_bytes())
            .map(drop)
            .map_err(|error| unread(dev, key, error))
    }
}

/// Made of a router's advertisement.
const RTPROT_RA: u8 = 9;

fn unread(dev: &str, key: Key, error: Errno) -> Failure {
    let message = format!("{DIRECTORY}/{dev}/{}: {error}", key.file());
    Failure::new(ErrorCode::Failed, message)
}

fn unchanged(setting: HostSetting, why: &str) -> Failure {
    Failure::new(
        ErrorCode::Failed,
        format!("{setting} was not changed: {why}"),
    )
}

/// The directories of settings have first names only, and an alternative one is not what the policy means by an uplink.
fn plainly_named(netlink: &mut Netlink, dev: &IfName) -> Result<Link, Failure> {
    let link = named(netlink, dev)?;
    if link.name == dev.as_str() {
        return Ok(link);
    }
    let message = format!("{dev} is another name of {}; give that one", link.name);
    Err(Failure::new(ErrorCode::NotFound, message))
}

/// Addresses that are answered for stand on it.
fn not_in_use(
    netlink: &mut Netlink,
    setting: HostSetting,
    link: Option<&Link>,
) -> Result<(), Failure> {
    let v4 = setting == HostSetting::Ipv4Forwarding;
    let proxies = netlink
        .proxies()
        .map_err(|error| unchanged(setting, &error.to_string()))?;
    let on_it = |device: u32| link.is_none_or(|link| link.index == device);
    let stands = proxies
        .iter()
        .find(|proxy| proxy.ours && proxy.address.is_ipv4() == v4 && on_it(proxy.device));
    let Some(stands) = stands else {
        return Ok(());
    };
    let message = format!(
        "{setting} was not switched off: {} is answered for with it; end that first (proxy-del)",
        stands.address
    );
    Err(Failure::new(ErrorCode::Conflict, message))
}
