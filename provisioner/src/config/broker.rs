//! `broker-allocation.json`: the IPv6 prefix of this host, as the broker (or the setup, by hand) gave it.
//! The file belongs to the broker's client; keys that are not ours are its business.

use std::net::Ipv6Addr;

use blockhost_proto::Layout;

use super::{ConfigError, Ipv6Net, Section};

/// What machines draw their IPv6 addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerAllocation {
    /// The prefix.
    pub prefix: Ipv6Net,
    /// The guests' gateway; the host's address on the bridge. Default: the first address of the prefix.
    pub gateway: Option<Ipv6Addr>,
}

impl BrokerAllocation {
    /// Reads the file of this world; a host without one has no IPv6 pool.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line and key.
    pub fn load(layout: &Layout) -> Result<Option<Self>, ConfigError> {
        let file = layout.etc().join("broker-allocation.json");
        match Section::load(&file) {
            Ok(section) => Self::read(section).map(Some),
            Err(ConfigError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Reads the parsed file.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line and key.
    pub fn read(mut section: Section) -> Result<Self, ConfigError> {
        let (prefix, _) = section
            .parsed::<Ipv6Net>("prefix")?
            .ok_or_else(|| section.missing("prefix"))?;
        let gateway = match section.parsed::<Ipv6Addr>("gateway")? {
            Some((gateway, line)) => {
                let link_local = gateway.segments()[0] & 0xffc0 == 0xfe80;
                if !prefix.contains(gateway) && !link_local {
                    return Err(section.invalid(
                        "gateway",
                        line,
                        format!("{gateway} is not in {prefix}"),
                    ));
                }
                Some(gateway)
            }
            None => prefix.at(1),
        };
        Ok(Self { prefix, gateway })
    }
}
