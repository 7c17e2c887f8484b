//! NetworkManager, by D-Bus: whether it runs, what it manages. It is never started by a look.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use zbus::{Connection, OwnedVariant, wire::OwnedObjectPath};

use super::ObserveError;

const SERVICE: &str = "org.freedesktop.NetworkManager";
const PATH: &str = "/org/freedesktop/NetworkManager";
const SETTINGS: &str = "org.freedesktop.NetworkManager.Settings";
const SETTINGS_PATH: &str = "/org/freedesktop/NetworkManager/Settings";
const DEVICE: &str = "org.freedesktop.NetworkManager.Device";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Devices asked for one by one; the others are counted.
const MAX_DEVICES: usize = 512;

type Properties = HashMap<String, OwnedVariant>;

/// NetworkManager as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkManager {
    /// Its version.
    pub version: String,
    /// `connected`, `disconnected`, `connecting`, ...
    pub state: String,
    /// `full`, `limited`, `portal`, `none` or `unknown`.
    pub connectivity: String,
    /// Connections that are active.
    pub active_connections: usize,
    /// Connections that it knows.
    pub total_connections: usize,
    /// Devices that it knows.
    pub devices: usize,
    /// Those it was asked about.
    pub device_list: Vec<ManagedDevice>,
}

/// A device as NetworkManager sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedDevice {
    /// Its object on the bus; checkpoints name it.
    pub path: String,
    /// Its interface.
    pub interface: String,
    /// Whether NetworkManager changes it.
    pub managed: bool,
    /// NetworkManager's number for what it is (1 Ethernet, 13 bridge, 24 Open vSwitch interface, ...).
    pub device_type: u32,
    /// NetworkManager's number for its state (100: activated).
    pub state: u32,
}

/// What NetworkManager says; `None` where it does not run.
///
/// # Errors
/// [`ObserveError::Bus`] where it runs and does not answer.
pub async fn network_manager(bus: &Connection) -> Result<Option<NetworkManager>, ObserveError> {
    read(bus)
        .await
        .map_err(|error| ObserveError::bus("NetworkManager", &error))
}

/// NetworkManager's own description of what it can do, XML.
///
/// # Errors
/// [`ObserveError::Bus`] where it does not answer.
pub async fn introspection(bus: &Connection) -> Result<String, ObserveError> {
    let asked = async {
        bus.call_method(
            Some(SERVICE),
            PATH,
            Some("org.freedesktop.DBus.Introspectable"),
            "Introspect",
            &(),
        )
        .await?
        .body()
        .deserialize()
    };
    asked
        .await
        .map_err(|error| ObserveError::bus("NetworkManager", &error))
}

async fn read(bus: &Connection) -> zbus::Result<Option<NetworkManager>> {
    let owned: bool = bus
        .call_method(
            Some("org.freedesktop.DBus"),
            "/org/freedesktop/DBus",
            Some("org.freedesktop.DBus"),
            "NameHasOwner",
            &(SERVICE),
        )
        .await?
        .body()
        .deserialize()?;
    if !owned {
        return Ok(None);
    }
    let about = all(bus, PATH, SERVICE).await?;
    let settings = all(bus, SETTINGS_PATH, SETTINGS).await?;
    let devices = paths(&about, "AllDevices").or_else(|| paths(&about, "Devices"));
    let devices = devices.unwrap_or_default();
    let mut device_list = Vec::new();
    for path in devices.iter().take(MAX_DEVICES) {
        // It may have gone since.
        if let Ok(device) = all(bus, path, DEVICE).await {
            device_list.push(ManagedDevice {
                path: path.clone(),
                interface: text(&device, "Interface").unwrap_or_default(),
                managed: flag(&device, "Managed"),
                device_type: number(&device, "DeviceType"),
                state: number(&device, "State"),
            });
        }
    }
    let count = |of: &Properties, name| paths(of, name).map_or(0, |paths| paths.len());
    Ok(Some(NetworkManager {
        version: text(&about, "Version").unwrap_or_default(),
        state: state(number(&about, "State")).to_owned(),
        connectivity: connectivity(number(&about, "Connectivity")).to_owned(),
        active_connections: count(&about, "ActiveConnections"),
        total_connections: count(&settings, "Connections"),
        devices: devices.len(),
        device_list,
    }))
}

async fn all(bus: &Connection, path: &str, interface: &str) -> zbus::Result<Properties> {
    bus.call_method(
        Some(SERVICE),
        path,
        Some(PROPERTIES),
        "GetAll",
        &(interface),
    )
    .await?
    .body()
    .deserialize()
}

fn text(of: &Properties, name: &str) -> Option<String> {
    String::try_from(of.get(name)?.try_clone().ok()?).ok()
}

fn number(of: &Properties, name: &str) -> u32 {
    of.get(name)
        .and_then(|value| u32::try_from(value).ok())
        .unwrap_or_default()
}

fn flag(of: &Properties, name: &str) -> bool {
    of.get(name)
        .and_then(|value| bool::try_from(value).ok())
        .unwrap_or_default()
}

fn paths(of: &Properties, name: &str) -> Option<Vec<String>> {
    let list = Vec::<OwnedObjectPath>::try_from(of.get(name)?.try_clone().ok()?).ok()?;
    Some(list.iter().map(|path| path.as_str().to_owned()).collect())
}

/// `NMState`.
fn state(number: u32) -> &'static str {
    match number {
        10 => "asleep",
        20 => "disconnected",
        30 => "disconnecting",
        40 => "connecting",
        50 => "connected_local",
        60 => "connected_site",
        70 => "connected",
        _ => "unknown",
    }
}

/// `NMConnectivityState`.
fn connectivity(number: u32) -> &'static str {
    match number {
        1 => "none",
        2 => "portal",
        3 => "limited",
        4 => "full",
        _ => "unknown",
    }
}
