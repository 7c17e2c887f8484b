//! Configuration files of this room, each a typed struct: `db.yaml`, our part of `blockhost.yaml`,
//! `broker-allocation.json`. Reading never changes anything; what is unknown is a warning.

mod blockhost;
mod broker;
mod db;
mod net;
pub mod sizes;
mod tree;

pub use blockhost::{BlockhostConfig, VmDefaults};
pub use broker::BrokerAllocation;
pub use db::{DbConfig, Ip4Pool, Ip6Pool};
pub use net::{Ipv4Net, Ipv6Net};
pub use sizes::{Size, Sizes};
pub use tree::{ConfigError, Section, Warning};

use blockhost_proto::Layout;

use crate::record::{Status, VmRecord};

/// Everything the commands of this room read.
#[derive(Debug, Clone)]
pub struct Config {
    /// `db.yaml`.
    pub db: DbConfig,
    /// Our part of `blockhost.yaml`.
    pub host: BlockhostConfig,
    /// `broker-allocation.json`, where there is one: without it machines get no IPv6 address.
    pub broker: Option<BrokerAllocation>,
    /// What tells this machine from all others (`/etc/machine-id`), where it says so.
    pub machine_id: Option<String>,
    /// What was found and not understood.
    pub warnings: Vec<Warning>,
}

impl Config {
    /// Reads all files of the world.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line and key.
    pub fn load(layout: &Layout) -> Result<Self, ConfigError> {
        let mut warnings = Vec::new();
        let db = DbConfig::load(layout, &mut warnings)?;
        let host = BlockhostConfig::load(layout, &mut warnings)?;
        let broker = BrokerAllocation::load(layout)?;
        if let (Some(broker), Some(pool)) = (&broker, &db.ipv6_pool) {
            pool.check(&broker.prefix)?;
        }
        Ok(Self {
            db,
            host,
            broker,
            machine_id: machine_id(layout),
            warnings,
        })
    }

    /// This host among those that share a database: `proxmox.node`, or its own name.
    #[must_use]
    pub fn node(&self) -> String {
        self.host
            .node
            .clone()
            .unwrap_or_else(crate::record::host_name)
    }

    /// Whether a record's machine is on this host. Databases of a single host name none; in one that hosts share, a record
    /// that names none is nobody's.
    #[must_use]
    pub fn is_here(&self, node: Option<&str>) -> bool {
        node.map_or(self.db.server.is_none(), |node| node == self.node())
    }

    /// Whether a record is one that no host may act on.
    #[must_use]
    pub fn is_nobodys(&self, record: &VmRecord) -> bool {
        self.db.server.is_some() && record.node.is_none() && record.status != Status::Destroyed
    }
}

/// That of the world, or of the host that a private world is on.
fn machine_id(layout: &Layout) -> Option<String> {
    const FILE: &str = "/etc/machine-id";
    let text = std::fs::read_to_string(layout.join(FILE))
        .or_else(|_| std::fs::read_to_string(FILE))
        .ok()?;
    let id = text.trim();
    let whole = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| id.to_owned())
}

#[cfg(test)]
mod tests;
