//! WireGuard tunnels of the root agent, as its `wg-show` answers them. No secret key is among it.

use blockhost_proto::action::{Action, WgShow};
use blockhost_proto::client::tokio::Client;
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{Text as _, WgName};
use serde::{Deserialize, Serialize};

use super::{Link, ObserveError};

const ACTION: &str = "wg-show";

/// What the agent writes beside the devices of its tunnels.
const ALIAS: &str = "blockhost: tunnel";

/// A tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Its device.
    pub name: String,
    /// Our public key in it.
    pub public_key: Option<String>,
    /// UDP port.
    pub listen_port: u16,
    /// Largest packet inside.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its addresses with the length of their networks.
    pub addresses: Vec<String>,
    /// The other sides.
    pub peers: Vec<Peer>,
}

/// The other side of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its public key.
    pub public_key: Option<String>,
    /// Where it was last heard of, or is expected.
    pub endpoint: Option<String>,
    /// The networks behind it.
    pub allowed_ips: Vec<String>,
    /// Seconds between keepalive packets.
    pub keepalive: Option<u16>,
    /// Whether a shared key is used beside the pair.
    pub preshared: bool,
    /// Seconds since 1970 of the last handshake.
    pub last_handshake: Option<u64>,
    /// Bytes that came from it.
    pub rx_bytes: u64,
    /// Bytes that went to it.
    pub tx_bytes: u64,
}

/// The agent's tunnels among these devices. None of them, where there is no such device.
///
/// # Errors
/// [`ObserveError`] where the agent cannot be asked about one that is there.
pub async fn tunnels(layout: &Layout, links: &[Link]) -> Result<Vec<Tunnel>, ObserveError> {
    let names: Vec<WgName> = links
        .iter()
        .filter(|link| link.alias.as_deref() == Some(ALIAS))
        .filter_map(|link| WgName::read(&link.name))
        .collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut client = Client::connect_layout(layout).await?;
    let mut found = Vec::new();
    for name in names {
        match client.call(&Action::WgShow(WgShow { name })).await {
            Ok(reply) => {
                let tunnel =
                    serde_json::from_str(&reply.output).map_err(|error| ObserveError::Answer {
                        action: ACTION,
                        reason: error.to_string(),
                    })?;
                found.push(tunnel);
            }
            // It went between the two looks.
            Err(error) if error.code() == Some(ErrorCode::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}
