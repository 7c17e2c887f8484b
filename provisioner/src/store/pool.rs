//! Which number and which addresses come next: pure functions over what is in use.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use blockhost_proto::value::Vmid;

use super::StoreError;
use crate::config::{Config, Ip4Pool, Ipv6Net};

/// What may be given out.
#[derive(Debug, Clone)]
pub struct Pools {
    /// Numbers.
    pub vmids: RangeInclusive<u32>,
    /// A number that is never given out.
    pub template: Option<Vmid>,
    /// IPv4 addresses.
    pub ip: Ip4Pool,
    /// IPv6: prefix, first and last offset, and the gateway, which is never given out.
    pub ipv6: Option<(Ipv6Net, RangeInclusive<u64>, Option<Ipv6Addr>)>,
}

impl Pools {
    /// The pools of a configuration. IPv6 needs both a pool and a broker's prefix.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let ipv6 = match (&config.db.ipv6_pool, &config.broker) {
            (Some(pool), Some(broker)) => {
                Some((broker.prefix, pool.start..=pool.end, broker.gateway))
            }
            _ => None,
        };
        Self {
            vmids: config.db.vmids.clone(),
            template: Some(config.host.template_vmid),
            ip: config.db.ip_pool,
            ipv6,
        }
    }

    /// The number to give out: `next` or the first free one after it, round the range.
    ///
    /// # Errors
    /// [`StoreError::Exhausted`], [`StoreError::Unavailable`] for a wanted one.
    pub fn vmid(
        &self,
        wanted: Option<Vmid>,
        next: u32,
        used: &BTreeSet<u32>,
    ) -> Result<Vmid, StoreError> {
        let free = |number: u32| {
            !used.contains(&number) && self.template.is_none_or(|t| t.get() != number)
        };
        if let Some(vmid) = wanted {
            let reason = if !self.vmids.contains(&vmid.get()) {
                "it is outside vmid_range"
            } else if free(vmid.get()) {
                return Ok(vmid);
            } else {
                "it is in use"
            };
            return Err(StoreError::Unavailable {
                what: "VM number",
                value: vmid.to_string(),
                reason,
            });
        }
        let (start, end) = (*self.vmids.start(), *self.vmids.end());
        let next = if self.vmids.contains(&next) {
            next
        } else {
            start
        };
        (next..=end)
            .chain(start..next)
            .find(|number| free(*number))
            .and_then(|number| Vmid::try_from(number).ok())
            .ok_or_else(|| StoreError::Exhausted {
                what: "VM numbers",
                range: format!("{start} to {end}"),
            })
    }

    /// The lowest free IPv4 address.
    ///
    /// # Errors
    /// As [`Pools::vmid`].
    pub fn ip(
        &self,
        wanted: Option<Ipv4Addr>,
        used: &BTreeSet<Ipv4Addr>,
    ) -> Result<Ipv4Addr, StoreError> {
        let Ip4Pool {
            network,
            start,
            end,
            gateway,
        } = self.ip;
        if let Some(address) = wanted {
            let reason = if !network.is_host(address) || address == gateway {
                "it is not a machine's address in the network"
            } else if used.contains(&address) {
                "it is in use"
            } else {
                return Ok(address);
            };
            return Err(StoreError::Unavailable {
                what: "IPv4 address",
                value: address.to_string(),
                reason,
            });
        }
        (start.to_bits()..=end.to_bits())
            .map(Ipv4Addr::from_bits)
            .find(|address| !used.contains(address))
            .ok_or_else(|| StoreError::Exhausted {
                what: "IPv4 addresses",
                range: format!("{start} to {end}"),
            })
    }

    /// The lowest free IPv6 address; `None` on a host without a prefix.
    ///
    /// # Errors
    /// As [`Pools::vmid`].
    pub fn ipv6(
        &self,
        wanted: Option<Ipv6Addr>,
        used: &BTreeSet<Ipv6Addr>,
    ) -> Result<Option<Ipv6Addr>, StoreError> {
        let unavailable = |address: Ipv6Addr, reason| {
            Err(StoreError::Unavailable {
                what: "IPv6 address",
                value: address.to_string(),
                reason,
            })
        };
        let Some((prefix, offsets, gateway)) = &self.ipv6 else {
            return match wanted {
                None => Ok(None),
                Some(address) => unavailable(
                    address,
                    "this host has no IPv6 prefix (broker-allocation.json)",
                ),
            };
        };
        let free = |address: &Ipv6Addr| !used.contains(address) && *gateway != Some(*address);
        if let Some(address) = wanted {
            return if !prefix.contains(address) {
                unavailable(address, "it is outside the broker's prefix")
            } else if free(&address) {
                Ok(Some(address))
            } else {
                unavailable(address, "it is in use")
            };
        }
        match offsets
            .clone()
            .filter_map(|offset| prefix.at(offset))
            .find(free)
        {
            Some(address) => Ok(Some(address)),
            None => Err(StoreError::Exhausted {
                what: "IPv6 addresses",
                range: format!(
                    "offsets {} to {} of {prefix}",
                    offsets.start(),
                    offsets.end()
                ),
            }),
        }
    }
}
