//! The ledger over the bus: what the ledger's own service answers, read where it holds up nobody.

use blockhost_ledger::service::{Page, Service, ServiceError};

use super::access::Caller;
use super::desk::{Answer, Desk};
use super::error::BusError;

impl Desk {
    /// Work that reads files or computes, away from the tasks that answer.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Service) -> Result<T, ServiceError> + Send + 'static,
    ) -> Answer<T> {
        let ledger = self.ledger.clone();
        Ok(tokio::task::spawn_blocking(move || work(&ledger)).await??)
    }

    pub(super) async fn blocks_by_category(
        &self,
        caller: Caller,
        category: String,
    ) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        let blocks = self
            .aside(move |ledger| ledger.blocks_by_category(&category, Page::default()))
            .await?;
        Ok(serde_json::to_string(&blocks)?)
    }

    pub(super) async fn blocks_by_height(
        &self,
        caller: Caller,
        first: u64,
        last: u64,
    ) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        let blocks = self
            .aside(move |ledger| ledger.blocks_by_height(first, last))
            .await?;
        Ok(serde_json::to_string(&blocks)?)
    }

    pub(super) async fn block_by_hash(&self, caller: Caller, hash: String) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        let block = self
            .aside(move |ledger| ledger.block_by_hash(&hash))
            .await?;
        let block =
            block.ok_or_else(|| BusError::NotFound("no record has this hash".to_owned()))?;
        Ok(serde_json::to_string(&block)?)
    }

    pub(super) async fn verify_integrity(&self, caller: Caller) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        let alone = self.verifying.clone().try_lock_owned().map_err(|_| {
            BusError::Busy("a verification is under way already; wait for its end".to_owned())
        })?;
        let report = self
            .aside(move |ledger| {
                // Until the end, also where the caller has left.
                let _alone = alone;
                ledger.verify_blockchain_integrity(&mut |_, _| {})
            })
            .await?;
        Ok(serde_json::to_string(&report)?)
    }

    pub(super) async fn blockchain_stats(&self, caller: Caller) -> Answer<String> {
        let _ticket = self.enter(&caller).await?;
        let stats = self.aside(Service::blockchain_stats).await?;
        Ok(serde_json::to_string(&stats)?)
    }
}
