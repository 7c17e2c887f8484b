//! Notes how far the chain was read, with that block's time and the payments in it that are in no record yet, for who judges
//! machines by the clock: the garbage collector. The daemon calls it after each look.

use std::time::{Duration, Instant};

use alloy::providers::Provider;
use alloy::rpc::types::BlockNumberOrTag;
use blockhost_proto::Layout;
use blockhost_provisioner::chain_seen::ChainSeen;
use blockhost_provisioner::time::Time;

use crate::chain::{Address, Chain};
use crate::log;
use crate::machines::machine_name;
use crate::outbox::Outbox;

/// What is noted needs not be newer: machines are judged once a night.
const EVERY: Duration = Duration::from_mins(1);

/// Notes the reading of one contract.
#[derive(Debug)]
pub struct Seen {
    layout: Layout,
    contract: Address,
    noted: Option<Instant>,
    last_error: String,
}

impl Seen {
    /// Nothing is noted yet.
    #[must_use]
    pub const fn new(layout: Layout, contract: Address) -> Self {
        Self {
            layout,
            contract,
            noted: None,
            last_error: String::new(),
        }
    }

    /// Notes how far the outbox is, at most once a minute. What goes wrong is said, and tried again after the next look: the
    /// old note stays meanwhile, by which less is suspended and not more.
    pub async fn note(&mut self, chain: &Chain, outbox: &Outbox) {
        if self.noted.is_some_and(|noted| noted.elapsed() < EVERY) {
            return;
        }
        match self.try_note(chain, outbox).await {
            Ok(done) => {
                self.noted = done.then(Instant::now);
                self.last_error.clear();
            }
            Err(problem) if problem != self.last_error => {
                log::error(
                    "how far the chain was read cannot be noted",
                    &[("error", &problem)],
                );
                self.last_error = problem;
            }
            Err(_) => {}
        }
    }

    /// False when nothing was read yet, or the node that answers does not know what was read.
    async fn try_note(&self, chain: &Chain, outbox: &Outbox) -> Result<bool, String> {
        let cursor = outbox.cursor(chain.chain_id(), self.contract);
        let Some(cursor) = cursor.map_err(|e| e.to_string())? else {
            return Ok(false);
        };
        let (node, _) = chain.select().await.map_err(|e| e.to_string())?;
        let block = node
            .provider()
            .get_block_by_number(BlockNumberOrTag::Number(cursor.number))
            .await
            .map_err(|e| crate::chain::rpc::describe(&e))?;
        let Some(block) = block.filter(|block| block.header.hash == cursor.hash) else {
            return Ok(false);
        };
        // After the cursor: each payment up to there is among them, or in its record by now.
        let owed = outbox.owed(chain.chain_id(), self.contract);
        let owed = owed.map_err(|e| e.to_string())?.into_iter();
        let seen = ChainSeen {
            block: cursor.number,
            block_time: Time::from_unix(i64::try_from(block.header.timestamp).unwrap_or(i64::MAX)),
            at: Time::now(),
            owed: owed
                .map(|(id, until)| (machine_name(id), Time::from_unix(until)))
                .collect(),
        };
        let layout = self.layout.clone();
        // It waits for the disk.
        let written = tokio::task::spawn_blocking(move || seen.write(&layout)).await;
        written
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        Ok(true)
    }
}
