//! `veth-rename`: an alternative name for the host's end of a container's interface. Its own name stays, because the
//! container manager finds it by that name when it changes or removes it, and a switch's port would be dead after its
//! next start. Every tool finds a device by either name.

use std::sync::{Mutex, PoisonError};

use blockhost_proto::action::VethRename;
use blockhost_proto::response::ErrorCode;
use rustix::io::Errno;
use serde_json::{Map, Value};

use crate::compartment::{Done, Failure};
use blockhost_netlink::{Netlink, NetlinkError};

/// A route socket of its own: naming a device does not wait for routes.
#[derive(Debug)]
pub(super) struct Names(Mutex<Netlink>);

impl Names {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Netlink::open().map(|netlink| Self(Mutex::new(netlink)))
    }

    pub(super) fn give(&self, action: &VethRename) -> Result<Done, Failure> {
        let (managed, wanted) = (action.managed_name(), action.wanted_name());
        let mut netlink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: NetlinkError| {
            let message = format!("{managed} was not given the name {wanted}: {error}");
            Failure::new(ErrorCode::Failed, message)
        };
        let named = netlink.link(&wanted).map_err(failed)?;
        let Some(link) = netlink
            .link(&managed)
            .map_err(failed)?
            .filter(|link| link.name == managed)
        else {
            return match named {
                // The embedded backend names its devices so from the start.
                Some(link) if link.name == wanted => Ok(done(&wanted, "is its first name")),
                _ => {
                    let message = format!(
                        "there is no device {managed}; container {} has no such interface, or it is not running",
                        action.vmid
                    );
                    Err(Failure::new(ErrorCode::NotFound, message))
                }
            };
        };
        match named {
            Some(other) if other.index == link.index => return Ok(done(&wanted, &link.name)),
            Some(other) => {
                let message = format!(
                    "the name {wanted} belongs to the device {}, which is not {managed}; remove that name first",
                    other.name
                );
                return Err(Failure::new(ErrorCode::Conflict, message));
            }
            None => {}
        }
        if link.kind.as_deref() != Some("veth") {
            let message = format!("{managed} is no virtual ethernet pair; it was left alone");
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        match netlink.altname_add(link.index, &wanted) {
            Ok(()) => Ok(done(&wanted, &managed)),
            Err(error) if error.refusal() == Some(Errno::EXIST) => {
                let message = format!("the name {wanted} was taken by another device just now");
                Err(Failure::new(ErrorCode::Conflict, message))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

fn done(wanted: &str, first: &str) -> Done {
    let mut extra = Map::new();
    extra.insert("name".to_owned(), Value::from(wanted));
    Done {
        output: format!("{wanted}: {first}"),
        extra,
    }
}
