//! The engine's view of the machines' database: what the steps of a job read and set. The database itself is the
//! provisioner's; here it is opened per call, away from the runtime's threads, because it waits for file locks.

use crate::alone::Held;
use crate::chain::Address;
use crate::status::{MachinesPart, Pool};
use blockhost_proto::layout::Layout;
use blockhost_proto::value::{EthAddress, VmName};
use blockhost_provisioner::config::Config;
use blockhost_provisioner::record::{Reservation, Status, VmRecord};
use blockhost_provisioner::store::{self, Identity, Pools, PostgresStore, Store, StoreError};
use blockhost_provisioner::time::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum MachinesError {
    /// Its configuration.
    #[error("{0}")]
    Config(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A name or address that cannot be.
    #[error("{0}")]
    Value(String),
    /// The thread that asked it ended early.
    #[error("asking the machines' database broke off: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// Whether this engine may work with the database.
#[derive(Debug)]
pub enum Place {
    /// It is this host's alone.
    NotShared,
    /// Several hosts share it, and this engine is the one.
    Ours(Held),
    /// Another engine is.
    Taken,
}

/// The database of one world.
#[derive(Debug, Clone)]
pub struct Machines {
    layout: Layout,
}

/// Name of the machine of a subscription: `blockhost-` and the id, at least three digits.
#[must_use]
pub fn machine_name(subscription_id: u64) -> String {
    format!("blockhost-{subscription_id:03}")
}

/// The subscription whose machine has this name; none for machines of other kinds.
#[must_use]
pub fn subscription_of(name: &str) -> Option<u64> {
    let id = name.strip_prefix("blockhost-")?.parse().ok()?;
    // `blockhost-07` and `blockhost-+7` are numbers, and nobody's name here.
    (machine_name(id) == name).then_some(id)
}

impl Machines {
    /// The database of this world; opened when needed.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self {
            layout: layout.clone(),
        }
    }

    async fn with<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&dyn Store, &VmName) -> Result<T, MachinesError> + Send + 'static,
    ) -> Result<T, MachinesError> {
        let name: VmName = name
            .parse()
            .map_err(|e| MachinesError::Value(format!("{e}")))?;
        self.open(move |_, store| work(store, &name)).await
    }

    async fn open<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Config, &dyn Store) -> Result<T, MachinesError> + Send + 'static,
    ) -> Result<T, MachinesError> {
        let layout = self.layout.clone();
        tokio::task::spawn_blocking(move || {
            let config = Config::load(&layout).map_err(|e| MachinesError::Config(e.to_string()))?;
            let store = store::open(&config)?;
            work(&config, &store)
        })
        .await?
    }

    /// How many machines there are, and what is left for more.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub async fn inventory(&self) -> Result<MachinesPart, MachinesError> {
        self.open(|config, store| {
            Ok(inventory(
                &Pools::of(config),
                &store.list(None)?,
                &store.reservations()?,
                Time::now(),
            ))
        })
        .await
    }

    /// The place of the one engine where several hosts share the database; the inner `None` while another one has it.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub async fn alone(&self) -> Result<Place, MachinesError> {
        let layout = self.layout.clone();
        tokio::task::spawn_blocking(move || {
            let config = Config::load(&layout).map_err(|e| MachinesError::Config(e.to_string()))?;
            let Some(address) = &config.db.server else {
                return Ok(Place::NotShared);
            };
            let own = Identity::of(&config)?;
            let store = PostgresStore::open_as(own, address.clone(), Pools::of(&config))?;
            Ok(store
                .alone()?
                .map_or(Place::Taken, |alone| Place::Ours(Held::new(alone))))
        })
        .await?
    }

    /// All machines, those that are gone too, and whether each is on this host.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub async fn all_with_place(&self) -> Result<Vec<(VmRecord, bool)>, MachinesError> {
        self.open(|config, store| {
            let records = store.list(None)?.into_iter();
            Ok(records
                .map(|record| {
                    let here = config.is_here(record.node.as_deref());
                    (record, here)
                })
                .collect())
        })
        .await
    }

    /// All machines, those that are gone too.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub async fn all(&self) -> Result<Vec<VmRecord>, MachinesError> {
        self.open(|_, store| Ok(store.list(None)?)).await
    }

    /// Machines that have an IPv6 address, or are promised one in the making.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub async fn with_ipv6(&self) -> Result<Vec<(String, Ipv6Addr)>, MachinesError> {
        self.open(|_, store| {
            let (records, promised) = store.everything()?;
            let living = records
                .into_iter()
                .filter(|record| record.status != Status::Destroyed)
                .map(|record| (record.vm_name, record.ipv6_address));
            let promised = promised.into_iter().map(|one| (one.name, one.ipv6));
            Ok(living
                .chain(promised)
                .filter_map(|(name, address)| Some((name.to_string(), address?)))
                .collect())
        })
        .await
    }

    /// The record of a machine, if there is one.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub async fn get(&self, name: &str) -> Result<Option<VmRecord>, MachinesError> {
        self.with(name, |store, name| match store.get(name) {
            Ok(record) => Ok(Some(record)),
            Err(StoreError::UnknownVm { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        })
        .await
    }

    /// The same, and whether the machine is on this host.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub async fn find(&self, name: &str) -> Result<Option<(VmRecord, bool)>, MachinesError> {
        let Some(record) = self.get(name).await? else {
            return Ok(None);
        };
        self.open(|config, _| {
            let here = config.is_here(record.node.as_deref());
            Ok(Some((record, here)))
        })
        .await
    }

    /// Sets until when a machine is paid, seconds since 1970: exactly what the chain says.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub async fn set_expiry(&self, name: &str, seconds: i64) -> Result<VmRecord, MachinesError> {
        self.with(name, move |store, name| {
            Ok(store.extend_expiry(name, Time::from_unix(seconds))?)
        })
        .await
    }

    /// Notes that a token of a machine is on the chain.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub async fn set_token(&self, name: &str, token: u64) -> Result<(), MachinesError> {
        self.with(name, move |store, name| Ok(store.mint_token(token, name)?))
            .await
    }

    /// The machine that stands in the way of noting a token, where there is one: it is recorded with it.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub async fn take_token(
        &self,
        name: &str,
        token: u64,
    ) -> Result<Option<VmName>, MachinesError> {
        self.with(name, move |store, name| {
            match store.mint_token(token, name) {
                Ok(()) => Ok(None),
                Err(StoreError::TokenTaken { holder, .. }) => Ok(Some(holder)),
                Err(e) => Err(e.into()),
            }
        })
        .await
    }

    /// A token is not this machine's after all: its record names none, and another machine may have it.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub async fn disown_token(&self, name: &str, token: u64) -> Result<(), MachinesError> {
        self.with(
            name,
            move |store, name| Ok(store.disown_token(token, name)?),
        )
        .await
    }

    /// Notes whose a machine is, and whether the guest's GECOS field names this wallet and token already.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub async fn set_access(
        &self,
        name: &str,
        wallet: Address,
        token: u64,
        guest_knows: bool,
    ) -> Result<(), MachinesError> {
        let wallet: EthAddress = wallet
            .to_string()
            .parse()
            .map_err(|e| MachinesError::Value(format!("{e}")))?;
        self.with(name, move |store, name| {
            Ok(store
                .set_access(name, wallet, Some(token), guest_knows)
                .map(drop)?)
        })
        .await
    }

    /// The tokens of all machines but this one.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub async fn tokens_of_others(&self, name: &str) -> Result<Vec<u64>, MachinesError> {
        self.with(name, |store, name| {
            Ok(store
                .list(None)?
                .into_iter()
                .filter(|vm| vm.vm_name != *name)
                .filter_map(|vm| vm.nft_token_id)
                .collect())
        })
        .await
    }
}

fn inventory(
    pools: &Pools,
    records: &[VmRecord],
    making: &[Reservation],
    now: Time,
) -> MachinesPart {
    let mut by_status = BTreeMap::new();
    for record in records {
        *by_status.entry(record.status.to_string()).or_default() += 1;
    }
    let living = || records.iter().filter(|record| exists(Some(record)));
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let expiring = living()
        .filter(|record| record.status == Status::Active && record.expires_at <= now.plus_days(1));
    let vmids: BTreeSet<u32> = living()
        .map(|record| record.vmid.get())
        .chain(making.iter().map(|making| making.vmid.get()))
        .chain(pools.template.map(|template| template.get()))
        .filter(|vmid| pools.vmids.contains(vmid))
        .collect();
    let ips: BTreeSet<Ipv4Addr> = living()
        .filter_map(|record| record.ip_address)
        .chain(making.iter().map(|making| making.ip))
        .chain([pools.ip.gateway])
        .filter(|ip| (pools.ip.start..=pools.ip.end).contains(ip))
        .collect();
    let pool = |name, size: u64, used: usize| Pool {
        name,
        size,
        free: size.saturating_sub(count(used)),
    };
    let vmid_size = u64::from(pools.vmids.end().saturating_sub(*pools.vmids.start())) + 1;
    let ip_size = u64::from(u32::from(pools.ip.end).saturating_sub(u32::from(pools.ip.start))) + 1;
    let mut sizes = vec![
        pool("vmid", vmid_size, vmids.len()),
        pool("ipv4", ip_size, ips.len()),
    ];
    if let Some((_, offsets, _)) = &pools.ipv6 {
        let used = living()
            .filter(|record| record.ipv6_address.is_some())
            .count()
            + making.iter().filter(|making| making.ipv6.is_some()).count();
        let size = offsets
            .end()
            .saturating_sub(*offsets.start())
            .saturating_add(1);
        sizes.push(pool("ipv6", size, used));
    }
    MachinesPart {
        by_status,
        in_the_making: count(making.len()),
        expire_within_a_day: count(expiring.count()),
        pools: sizes,
    }
}

/// Whether a machine is there to be used: neither gone nor never made.
#[must_use]
pub fn exists(record: Option<&VmRecord>) -> bool {
    record.is_some_and(|record| record.status != Status::Destroyed)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_padded_to_three_digits_and_grow_beyond() {
        assert_eq!(super::machine_name(1), "blockhost-001");
        assert_eq!(super::machine_name(12_345), "blockhost-12345");
    }

    #[test]
    fn a_name_leads_back_to_its_subscription_and_no_other_name_does() {
        for id in [1, 42, 999, 1000, u64::MAX] {
            assert_eq!(super::subscription_of(&super::machine_name(id)), Some(id));
        }
        for other in [
            "web-1",
            "blockhost-",
            "blockhost-7",
            "blockhost-0007",
            "blockhost-+07",
            "blockhost-x01",
        ] {
            assert_eq!(super::subscription_of(other), None, "{other}");
        }
    }
}
