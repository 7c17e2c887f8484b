//! NetworkManager's checkpoints: its own way back, beside ours, for the devices that it manages. It takes back what it did
//! itself, by its own timer, also when everything of ours is dead.

use std::time::Duration;

use blockhost_proto::escape;
use zbus::Connection;
use zbus::wire::{ObjectPath, OwnedObjectPath};

use crate::network::observe::NetworkManager;

const SERVICE: &str = "org.freedesktop.NetworkManager";
const PATH: &str = "/org/freedesktop/NetworkManager";

/// No flags: nothing that others make meanwhile is deleted with it.
const PLAIN: u32 = 0;

/// What NetworkManager refused.
#[derive(Debug, thiserror::Error)]
#[error(
    "NetworkManager does not {what}: {reason}; where polkit forbids it, the rule 50-blockhost-networkmanager.rules is missing"
)]
pub struct ManagerError {
    what: &'static str,
    reason: String,
    /// It was asked and said no: there is no such checkpoint.
    pub answered: bool,
}

fn failed(what: &'static str) -> impl FnOnce(zbus::Error) -> ManagerError {
    move |error| ManagerError {
        what,
        reason: escape::shown_up_to(&error.to_string(), 300),
        answered: matches!(&error, zbus::Error::MethodError(name, _, _)
            if name.as_str().starts_with("org.freedesktop.NetworkManager.")),
    }
}

/// The objects of those devices that it manages.
#[must_use]
pub fn managed(manager: Option<&NetworkManager>, devices: &[String]) -> Vec<String> {
    let all = manager.iter().flat_map(|manager| &manager.device_list);
    all.filter(|device| device.managed && devices.contains(&device.interface))
        .map(|device| device.path.clone())
        .collect()
}

/// Has it make a checkpoint, which it goes back to by itself after `time`.
///
/// # Errors
/// [`ManagerError`].
pub async fn checkpoint(
    bus: &Connection,
    devices: &[String],
    time: Duration,
) -> Result<String, ManagerError> {
    let make = async {
        let mut paths = Vec::new();
        for device in devices {
            paths.push(ObjectPath::try_from(device.as_str())?);
        }
        let answer = bus
            .call_method(
                Some(SERVICE),
                PATH,
                Some(SERVICE),
                "CheckpointCreate",
                &(paths, seconds(time), PLAIN),
            )
            .await?;
        answer.body().deserialize::<OwnedObjectPath>()
    };
    let path = make.await.map_err(failed("make a checkpoint"))?;
    Ok(path.as_str().to_owned())
}

/// Gives it other time, from now.
///
/// # Errors
/// [`ManagerError`].
pub async fn adjust(bus: &Connection, path: &str, time: Duration) -> Result<(), ManagerError> {
    let ask = async {
        let path = ObjectPath::try_from(path)?;
        let body = (path, seconds(time));
        bus.call_method(
            Some(SERVICE),
            PATH,
            Some(SERVICE),
            "CheckpointAdjustRollbackTimeout",
            &body,
        )
        .await
    };
    ask.await
        .map(drop)
        .map_err(failed("change the time of a checkpoint"))
}

/// Everything stays as it is.
///
/// # Errors
/// [`ManagerError`].
pub async fn destroy(bus: &Connection, path: &str) -> Result<(), ManagerError> {
    let ask = async {
        let path = ObjectPath::try_from(path)?;
        bus.call_method(
            Some(SERVICE),
            PATH,
            Some(SERVICE),
            "CheckpointDestroy",
            &(path),
        )
        .await
    };
    ask.await.map(drop).map_err(failed("give up a checkpoint"))
}

/// Goes back; the devices for which it says that it could not.
///
/// # Errors
/// [`ManagerError`], also where it went back by itself before.
pub async fn roll_back(bus: &Connection, path: &str) -> Result<Vec<String>, ManagerError> {
    let ask = async {
        let path = ObjectPath::try_from(path)?;
        let answer = bus
            .call_method(
                Some(SERVICE),
                PATH,
                Some(SERVICE),
                "CheckpointRollback",
                &(path),
            )
            .await?;
        answer
            .body()
            .deserialize::<std::collections::HashMap<String, u32>>()
    };
    let result = ask.await.map_err(failed("go back to a checkpoint"))?;
    let not_done = result.into_iter().filter(|(_, code)| *code != 0);
    Ok(not_done
        .map(|(device, code)| format!("{device} ({code})"))
        .collect())
}

/// Whole seconds, at least one: 0 means never to it.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1000))
        .unwrap_or(u32::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_always_has_an_end() {
        assert_eq!(seconds(Duration::ZERO), 1);
        assert_eq!(seconds(Duration::from_millis(1500)), 2);
    }
}
