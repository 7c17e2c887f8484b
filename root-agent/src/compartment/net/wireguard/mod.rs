//! `wg-*`: tunnels with everything that belongs to them: device, addresses, private key, peers. Key and device are in one
//! process because what makes the one needs the other; the keys stand in a directory of their own that this process alone
//! may open. What is to change is decided in [`plan`], the two ways to tell a device are in [`backend`].

mod backend;
mod keys;
mod plan;
mod uapi;

use std::sync::{Mutex, MutexGuard, PoisonError};

use blockhost_proto::action::{WgSetPeers, WgSetup, WgShow, WgTeardown};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{Preshared, WgKey, WgName};
use rustix::io::Errno;
use serde_json::{Map, Value, json};

use super::addresses;
use crate::allow::Allowlists;
use crate::compartment::{Done, Failure, StartInfo};
use backend::{Backend, BackendError};
use blockhost_netlink::{Address, Link, Netlink, NetlinkError};
use keys::{Keys, Origin, Shared};
use plan::Wanted;

/// What WireGuard's own tools choose: room for the outer headers in 1500 bytes.
const MTU: u32 = 1420;

/// The alias that marks a device as one of ours.
const ALIAS: &str = "blockhost: tunnel";

/// A device that this agent has marked as a tunnel of its own.
pub(super) fn is_ours(link: &Link) -> bool {
    link.alias.as_deref() == Some(ALIAS)
}

/// All tunnels.
#[derive(Debug)]
pub(super) struct Tunnels {
    inner: Mutex<Inner>,
    /// The keys, or why there are none: routes must work where this directory is not.
    keys: Result<Keys, String>,
}

#[derive(Debug)]
struct Inner {
    links: Netlink,
    backend: Backend,
}

fn failed(what: &str) -> impl Fn(NetlinkError) -> Failure {
    move |error| {
        let (code, why) = match error.refusal() {
            Some(Errno::OPNOTSUPP | Errno::NOENT) => (
                ErrorCode::Failed,
                "this kernel has no WireGuard; install its module, or the package wireguard-go with `wireguard: userspace` in root-agent.yaml and blockhost-wireguard@".to_owned(),
            ),
            Some(Errno::ADDRINUSE) => (
                ErrorCode::Conflict,
                "the port is in use by another program; choose another".to_owned(),
            ),
            _ => (ErrorCode::Failed, error.to_string()),
        };
        Failure::new(code, format!("{what}: {why}"))
    }
}

fn told(what: &str) -> impl Fn(BackendError) -> Failure {
    move |error| match error {
        BackendError::Kernel(error) => failed(what)(error),
        BackendError::Daemon(error) => Failure::new(ErrorCode::Failed, format!("{what}: {error}")),
    }
}

impl Tunnels {
    /// Opens sockets and the directory of the keys; called before confinement.
    pub(super) fn open(start: &StartInfo<'_>) -> Result<Self, NetlinkError> {
        let inner = Inner {
            links: Netlink::open()?,
            backend: Backend::open(start.policy.wireguard, start.layout)?,
        };
        Ok(Self {
            inner: Mutex::new(inner),
            keys: Keys::open(&start.layout.wireguard_keys(), start.identities.agent),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> Result<&Keys, Failure> {
        self.keys.as_ref().map_err(|why| {
            let message =
                format!("tunnels cannot be changed: {why}; repair that and restart the agent");
            Failure::new(ErrorCode::Failed, message)
        })
    }

    pub(super) fn setup(&self, action: &WgSetup, allow: &Allowlists) -> Result<Done, Failure> {
        let keys = self.keys()?;
        let name = &action.name;
        let mut inner = self.lock();
        let (link, made) = inner.device(name)?;
        // A key for a device that is not ours would make it look like ours.
        let result = keys.private(name).and_then(|private| {
            let port = inner.bring_to(action, &link, &private, allow)?;
            Ok((port, private.public()))
        });
        if made && result.is_err() {
            // Nothing of a tunnel that was never complete stays but its key, which nobody has seen.
            let _ = inner.links.link_delete(link.index);
        }
        let (port, public) = result?;
        let mut extra = Map::new();
        extra.insert("public_key".into(), public.to_string().into());
        extra.insert("listen_port".into(), port.into());
        Ok(Done {
            output: format!("{name} listens on port {port}, public key {public}"),
            extra,
        })
    }

    pub(super) fn set_peers(&self, action: &WgSetPeers) -> Result<Done, Failure> {
        let keys = self.keys()?;
        let name = &action.name;
        let mut inner = self.lock();
        inner.ours(name)?;
        let (made, given) = (
            keys.shared(name, Origin::Generated)?,
            keys.shared(name, Origin::Given)?,
        );
        let (mut generated, mut entrusted) = (Shared::default(), Shared::default());
        let mut answered = Shared::default();
        let mut wanted = Vec::new();
        for peer in action.peers.iter() {
            let preshared = match &peer.preshared {
                None => None,
                Some(Preshared::Given(key)) => {
                    entrusted.insert(peer.public_key, *key);
                    Some(*key)
                }
                Some(Preshared::Generate) => {
                    let key = match made.get(&peer.public_key) {
                        Some(key) => key,
                        None => keys::random()?,
                    };
                    generated.insert(peer.public_key, key);
                    answered.insert(peer.public_key, key);
                    Some(key)
                }
                Some(Preshared::Kept) => {
                    let sources = [(&given, &mut entrusted), (&made, &mut generated)];
                    let kept = sources.into_iter().find_map(|(known, keep)| {
                        let key = known.get(&peer.public_key)?;
                        keep.insert(peer.public_key, key);
                        Some(key)
                    });
                    Some(kept.ok_or_else(|| no_key(name, &peer.public_key))?)
                }
            };
            wanted.push(Wanted::new(peer, preshared));
        }
        // Before the device: a key that was answered must be known after a crash, and one that it has after a start.
        if generated != made {
            keys.keep_shared(name, Origin::Generated, &generated)?;
        }
        if entrusted != given {
            keys.keep_shared(name, Origin::Given, &entrusted)?;
        }
        let what = format!("the peers of {name} were not set");
        let device = inner.backend.get(name).map_err(told(&what))?;
        let changes = plan::changes(&device, &wanted);
        if !changes.is_empty() {
            inner.backend.change(name, &changes).map_err(told(&what))?;
        }
        let mut extra = Map::new();
        if !answered.is_empty() {
            extra.insert("preshared_keys".into(), answered.to_json());
        }
        Ok(Done {
            output: format!(
                "{name} has {} peers, {} changed",
                wanted.len(),
                changes.len()
            ),
            extra,
        })
    }

    pub(super) fn teardown(&self, action: &WgTeardown) -> Result<Done, Failure> {
        let keys = self.keys()?;
        let name = &action.name;
        let mut inner = self.lock();
        let link = match inner.ours(name) {
            Ok(link) => Some(link),
            Err(failure) if failure.code == ErrorCode::NotFound => None,
            Err(failure) => return Err(failure),
        };
        if let Some(link) = &link {
            let what = format!("{name} was not removed");
            inner.links.link_delete(link.index).map_err(failed(&what))?;
        }
        // The device first: a key without a device is harmless, a device without its key is nobody's.
        if !keys.forget(name)? && link.is_none() {
            return Err(not_found(name));
        }
        Ok(Done {
            output: format!("{name} is gone, with its keys"),
            ..Done::default()
        })
    }

    pub(super) fn show(&self, action: &WgShow) -> Result<Done, Failure> {
        let keys = self.keys()?;
        let name = &action.name;
        let mut inner = self.lock();
        let link = match inner.ours(name) {
            // A daemon that was started for a tunnel that nobody has made yet.
            Err(failure) if failure.code == ErrorCode::Conflict && inner.is_free(name)? => {
                return Err(not_found(name));
            }
            other => other?,
        };
        let what = format!("{name} cannot be shown");
        let device = inner.backend.get(name).map_err(told(&what))?;
        let addresses = inner.links.addresses(link.index).map_err(failed(&what))?;
        let text = |key: [u8; 32]| WgKey::new(key).map(|key| key.to_string());
        // A look makes no key: it would not be the one that the device has.
        let public = keys
            .known(name)?
            .map(|private| private.public().to_string());
        let peers: Vec<Value> = device
            .peers
            .iter()
            .map(|peer| {
                json!({
                    "public_key": text(peer.public_key),
                    "endpoint": peer.endpoint.map(|endpoint| endpoint.to_string()),
                    "allowed_ips": peer.allowed_ips.iter().map(|(address, length)| format!("{address}/{length}")).collect::<Vec<_>>(),
                    "keepalive": (peer.keepalive != 0).then_some(peer.keepalive),
                    "preshared": peer.preshared != [0; 32],
                    "last_handshake": (peer.last_handshake_s != 0).then_some(peer.last_handshake_s),
                    "rx_bytes": peer.rx_bytes,
                    "tx_bytes": peer.tx_bytes,
                })
            })
            .collect();
        let shown = json!({
            "name": name.as_str(),
            "public_key": public,
            "listen_port": device.listen_port,
            "mtu": link.mtu,
            "up": link.up,
            "addresses": addresses.iter().map(|a| format!("{}/{}", a.address, a.length)).collect::<Vec<_>>(),
            "peers": peers,
        });
        Ok(Done {
            output: shown.to_string(),
            ..Done::default()
        })
    }
}

fn not_found(name: &WgName) -> Failure {
    let message = format!("there is no tunnel {name} of this agent; wg-setup makes one");
    Failure::new(ErrorCode::NotFound, message)
}

fn no_key(name: &WgName, peer: &WgKey) -> Failure {
    let message = format!(
        "no shared key is kept for peer {peer} of {name}; give it, or have one generated; nothing was changed"
    );
    Failure::new(ErrorCode::NotFound, message)
}

impl Inner {
    /// The device of that name if it is a tunnel of ours.
    fn ours(&mut self, name: &WgName) -> Result<Link, Failure> {
        let what = format!("{name} cannot be looked up");
        let found = self.links.link(name.as_str()).map_err(failed(&what))?;
        let link = found
            .filter(|link| link.name == name.as_str())
            .ok_or_else(|| not_found(name))?;
        if self.backend.is_tunnel(&link) && is_ours(&link) {
            Ok(link)
        } else {
            let message =
                format!("{name} is a device that this agent did not make; it was left alone");
            Err(Failure::new(ErrorCode::Conflict, message))
        }
    }

    /// Our device of that name, made where that is our part; true when it was made now.
    fn device(&mut self, name: &WgName) -> Result<(Link, bool), Failure> {
        match self.ours(name) {
            Err(failure) if failure.code == ErrorCode::NotFound => {}
            Err(failure) if failure.code == ErrorCode::Conflict => {
                return self.adopt(name, failure).map(|link| (link, false));
            }
            other => return other.map(|link| (link, false)),
        }
        let what = format!("{name} was not made");
        self.backend
            .make(&mut self.links, name, ALIAS)
            .map_err(told(&what))?;
        self.ours(name).map(|link| (link, true))
    }

    /// Whether `wg-setup` would take the device of that name for its own.
    fn is_free(&mut self, name: &WgName) -> Result<bool, Failure> {
        let what = format!("{name} cannot be looked up");
        match self.links.link(name.as_str()).map_err(failed(&what))? {
            Some(link) => self.backend.may_adopt(&link, name).map_err(told(&what)),
            None => Ok(false),
        }
    }

    /// A device that a daemon was started for and that nobody has marked yet.
    fn adopt(&mut self, name: &WgName, otherwise: Failure) -> Result<Link, Failure> {
        let what = format!("{name} was not set up");
        let found = self.links.link(name.as_str()).map_err(failed(&what))?;
        let Some(link) = found else {
            return Err(otherwise);
        };
        if !self.backend.may_adopt(&link, name).map_err(told(&what))? {
            return Err(otherwise);
        }
        self.links
            .link_alias(link.index, ALIAS)
            .map_err(failed(&what))?;
        self.ours(name)
    }

    /// Makes a device what the action says; returns the port it listens on.
    fn bring_to(
        &mut self,
        action: &WgSetup,
        link: &Link,
        private: &keys::Private,
        allow: &Allowlists,
    ) -> Result<u16, Failure> {
        let name = &action.name;
        let what = format!("{name} was not set up");
        let wanted: Vec<Address> = action
            .addresses
            .iter()
            .map(|a| Address {
                address: a.address(),
                length: a.length(),
            })
            .collect();
        let claimed = addresses::claimed(&mut self.links, link.index, &wanted, allow);
        if let Some(whose) = claimed.map_err(failed(&what))? {
            let message = format!("{what}: {whose}");
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        let port = action.listen_port.map(blockhost_proto::value::Port::get);
        self.backend
            .set(name, private.bytes(), port)
            .map_err(told(&what))?;
        let mtu = action.mtu.map_or(MTU, |mtu| u32::from(mtu.get()));
        self.links
            .link_up(link.index, Some(mtu))
            .map_err(failed(&what))?;
        addresses::bring_to(&mut self.links, link.index, &wanted, |_| true)
            .map_err(failed(&what))?;
        let device = self.backend.get(name).map_err(told(&what))?;
        Ok(device.listen_port)
    }
}
