//! The engine's view of the machines' database: what the steps of a job read and set. The database itself is the
//! provisioner's; here it is opened per call, away from the runtime's threads, because it waits for file locks.

use crate::chain::Address;
use blockhost_proto::layout::Layout;
use blockhost_proto::value::{EthAddress, VmName};
use blockhost_provisioner::config::Config;
use blockhost_provisioner::record::{Status, VmRecord};
use blockhost_provisioner::store::{self, Store, StoreError};
use blockhost_provisioner::time::Time;

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
        let layout = self.layout.clone();
        let name: VmName = name
            .parse()
            .map_err(|e| MachinesError::Value(format!("{e}")))?;
        tokio::task::spawn_blocking(move || {
            let config = Config::load(&layout).map_err(|e| MachinesError::Config(e.to_string()))?;
            let store = store::open(&config)?;
            work(&store, &name)
        })
        .await?
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

    /// Notes that the guest's GECOS field names this wallet and token.
    ///
    /// # Errors
    /// [`MachinesError`].
    pub async fn set_access(
        &self,
        name: &str,
        wallet: Address,
        token: u64,
    ) -> Result<(), MachinesError> {
        let wallet: EthAddress = wallet
            .to_string()
            .parse()
            .map_err(|e| MachinesError::Value(format!("{e}")))?;
        self.with(name, move |store, name| {
            Ok(store
                .set_access(name, wallet, Some(token), true)
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
}
