//! Sending exactly once: signed bytes are in the journal before the network sees them, a transaction that waits is
//! replaced by one with the same nonce, and nothing new is signed while one may still be mined. All transactions of all
//! of the host's accounts go this way, the daemon's and the commands': one journal, one lock per account for choosing a
//! nonce. What becomes of it is [`follow`]'s. What is sent, and whether it is still wanted, is known by the callers: [`crate::handler`], [`crate::anchor`],
//! [`crate::funds`].

mod follow;
mod hand;
pub mod young;

pub(crate) use hand::PATIENCE;
pub use hand::execute;

use crate::chain::rpc::Endpoint;
use crate::chain::tx::{self, Call, Fees, NonceLock, Wallet};
use crate::chain::{Address, B256, Chain, ChainError, U256};
use crate::failpoint;
use crate::log;
use crate::outbox::{JournalTx, Outbox, OutboxError, now_ms};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use tokio::sync::watch;

const WEI_PER_GWEI: u128 = 1_000_000_000;
/// Transactions of the account that wait in a node's pool and were not signed by this host, at most.
const MOST_FOREIGN: u64 = 16;
/// Looks at an account whose transactions are mined meanwhile.
const MOST_LOOKS: u32 = 5;

/// Why something could not be sent, or what became of it is not known yet.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The endpoints, or what they refuse.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The journal.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The lock of the account's nonces.
    #[error("locking the account's nonce: {0}")]
    Lock(std::io::Error),
    /// Gas costs more than is configured.
    #[error(
        "the node asks for {asked} gwei per unit of gas, more than the configured {limit} (max_fee_gwei)"
    )]
    TooDear {
        /// What it asks for.
        asked: u128,
        /// What may be paid.
        limit: u64,
    },
    /// The account cannot pay.
    #[error(
        "account {account} has {} eth and needs up to {} eth for the amount, its gas, and what it signed before that is in no \
         block yet",
        crate::wallets::amount::format(.has, 18), crate::wallets::amount::format(.needs, 18)
    )]
    Poor {
        /// Which account.
        account: Address,
        /// What it has, in wei.
        has: U256,
        /// What it needs, in wei.
        needs: U256,
    },
    /// In a block, and undone by the contract.
    #[error("the {purpose} {hash} was reverted by the contract")]
    Reverted {
        /// What it was for.
        purpose: String,
        /// Its hash.
        hash: B256,
    },
    /// Nothing to follow.
    #[error("a {purpose} without a transaction")]
    Empty {
        /// What it was for.
        purpose: String,
    },
    /// In a block, and the node does not say what it did there.
    #[error(
        "transaction {hash} is in block {block}, and {host} has no receipt of it; nothing is signed in its place. \
         If this stays so, put a node that has the receipts of its blocks first in blockchain.rpc_urls"
    )]
    NoReceipt {
        /// Its hash.
        hash: B256,
        /// Which block.
        block: u64,
        /// Which node.
        host: String,
    },
    /// Not in a block after a while; it may still come.
    #[error(
        "transaction {hash} is not mined after {minutes} minutes; the engine goes on with it, so don't send it again but look it up"
    )]
    Waiting {
        /// Its hash.
        hash: B256,
        /// How long it was waited for.
        minutes: u64,
    },
    /// The engine is to end.
    #[error("the engine is stopping")]
    Stopped,
}

impl SendError {
    /// Ours is in a block of this node, which has no receipt of it. Another node may have one, and is asked next.
    pub(crate) fn no_receipt(node: &Endpoint, hash: B256, block: u64) -> Self {
        node.pass_over();
        Self::NoReceipt {
            hash,
            block,
            host: node.host().to_owned(),
        }
    }
}

/// One of the host's accounts, and the one way to choose its nonces.
#[derive(Debug)]
pub struct Sender {
    wallet: Wallet,
    lock_dir: PathBuf,
    choosing: tokio::sync::Mutex<()>,
}

impl Sender {
    /// An account whose nonce lock lies in `lock_dir`.
    #[must_use]
    pub fn new(wallet: Wallet, lock_dir: PathBuf) -> Self {
        Self {
            wallet,
            lock_dir,
            choosing: tokio::sync::Mutex::new(()),
        }
    }

    /// The account.
    #[must_use]
    pub fn wallet(&self) -> &Wallet {
        &self.wallet
    }
}

/// One purpose to send transactions for.
#[derive(Debug, Clone, Copy)]
pub struct Sending<'a> {
    /// Where to.
    pub chain: &'a Chain,
    /// Where what is signed is kept.
    pub outbox: &'a Outbox,
    /// Whose transactions.
    pub sender: &'a Sender,
    /// True once the program is to end.
    pub stop: &'a watch::Receiver<bool>,
    /// Seconds without a receipt before a transaction is replaced by one that pays more.
    pub replace_after_s: u64,
    /// The job it is for; 0 for what no event of the chain asked for.
    pub job: i64,
    /// What for: within a job, what has one purpose happens once.
    pub purpose: &'a str,
    /// The most that a unit of gas may cost, in gwei.
    pub max_fee_gwei: u64,
}

impl Sending<'_> {
    /// Chooses a nonce, signs, writes down. Waiting for it is left to [`Self::follow`].
    ///
    /// # Errors
    /// [`SendError`]. After some of them the transaction is in the journal and may still be mined.
    pub async fn sign_new(&self, call: Call) -> Result<JournalTx, SendError> {
        self.sign_with_spare(call, 0).await
    }

    /// The same for a call that may need so much more gas in its block than it does now.
    ///
    /// # Errors
    /// [`SendError`], as with [`Self::sign_new`].
    pub async fn sign_with_spare(
        &self,
        call: Call,
        spare_gas: u64,
    ) -> Result<JournalTx, SendError> {
        let (chain, sender) = (self.chain, self.sender);
        let from = sender.wallet.address();
        let estimated = tx::estimate_gas(chain, from, &call).await?;
        let gas_limit = estimated.saturating_add(spare_gas);
        let fees = tx::current_fees(chain).await?;
        if fees.most() > self.most_fee() {
            return Err(SendError::TooDear {
                asked: fees.most() / WEI_PER_GWEI,
                limit: self.max_fee_gwei,
            });
        }
        failpoint::reach("send", &format!("signing {}", self.purpose));
        let _ours = sender.choosing.lock().await;
        let _others = NonceLock::acquire(&sender.lock_dir, from)
            .await
            .map_err(SendError::Lock)?;
        let (mined, has) = self.account().await?;
        let unsettled = self.outbox.unsettled_txs(chain.chain_id(), from, mined)?;
        let needs = promised(&unsettled).saturating_add(most_spent(call.value, gas_limit, fees));
        if has < needs {
            // Signed, it would wait for money, and everything after it behind it.
            return Err(SendError::Poor {
                account: from,
                has,
                needs,
            });
        }
        // What was signed before and did not reach the network, or was taken back, leaves a gap that would hold up everything
        // after it.
        for earlier in &unsettled {
            self.send(earlier).await;
        }
        let taken: BTreeSet<u64> = unsettled.iter().map(|row| row.signed.nonce).collect();
        let known = u64::try_from(taken.len()).unwrap_or(u64::MAX);
        let most = mined.saturating_add(known).saturating_add(MOST_FOREIGN);
        let pending = tx::pending_nonce(chain, from, most).await?;
        let next = free_nonce(pending.max(mined), &taken);
        let signed = tx::sign(
            &sender.wallet,
            chain.chain_id(),
            &call,
            next,
            gas_limit,
            fees,
        )?;
        self.outbox.journal(
            self.job,
            self.purpose,
            chain.chain_id(),
            from,
            &call,
            &signed,
        )?;
        let row = self.row(signed, call);
        log::info(
            &format!("{} signed", self.purpose),
            &[
                ("job", &self.job),
                ("tx", &row.signed.hash),
                ("nonce", &row.signed.nonce),
            ],
        );
        failpoint::reach("send", &format!("signed {}", self.purpose));
        // Still under the lock: whoever chooses next must see it in the node's pool.
        self.send(&row).await;
        failpoint::reach("send", &format!("sent {}", self.purpose));
        Ok(row)
    }

    /// How many transactions of the account are in blocks, and what it has there: both of one moment.
    async fn account(&self) -> Result<(u64, U256), SendError> {
        let from = self.sender.wallet.address();
        let mut mined = tx::mined_nonce(self.chain, from).await?;
        let mut looks = 0;
        loop {
            let has = tx::balance(self.chain, from).await?;
            let again = tx::mined_nonce(self.chain, from).await?;
            looks += 1;
            if again <= mined || looks >= MOST_LOOKS {
                // The lower count: what is in a block then counts as still to be paid, at the worst.
                return Ok((again.min(mined), has));
            }
            mined = again;
        }
    }

    fn row(&self, signed: tx::Signed, call: Call) -> JournalTx {
        JournalTx {
            signed,
            call,
            signed_ms: now_ms(),
            job: self.job,
            purpose: self.purpose.to_owned(),
        }
    }

    fn most_fee(&self) -> u128 {
        u128::from(self.max_fee_gwei).saturating_mul(WEI_PER_GWEI)
    }

    /// Sends again what may not have arrived. A refusal shows in what the chain says next, so it is only logged.
    async fn send(&self, row: &JournalTx) {
        if let Err(e) = tx::broadcast(self.chain, &row.signed.raw).await {
            log::warn(
                "sending a signed transaction again",
                &[("tx", &row.signed.hash), ("error", &e)],
            );
        }
    }
}

/// The first nonce from `from` on that none of ours has. Behind a stranger's that has vanished, ours wait until it is filled.
fn free_nonce(from: u64, taken: &BTreeSet<u64>) -> u64 {
    let mut free = (from..).filter(|nonce| !taken.contains(nonce));
    free.next().unwrap_or(from)
}

/// The most that these can take from their account. Of those that share a nonce at most one is mined.
fn promised(rows: &[JournalTx]) -> U256 {
    let mut by_nonce: BTreeMap<u64, U256> = BTreeMap::new();
    for row in rows {
        let most = most_spent(row.call.value, row.signed.gas_limit, row.signed.fees);
        let known = by_nonce.entry(row.signed.nonce).or_default();
        *known = most.max(*known);
    }
    let sums = by_nonce.into_values();
    sums.fold(U256::ZERO, U256::saturating_add)
}

/// The most that a transaction can take from its account.
#[must_use]
pub fn most_spent(value: U256, gas_limit: u64, fees: Fees) -> U256 {
    let gas = U256::from(gas_limit).saturating_mul(U256::from(fees.most()));
    value.saturating_add(gas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_nonce_that_is_free_is_in_the_first_gap_or_behind_everything() {
        for (from, taken, free) in [
            (5, &[][..], 5),
            (5, &[5, 6, 7], 8),
            (5, &[6, 7], 5),
            (5, &[5, 7], 6),
            // What is in a block already, and what the node knows better.
            (5, &[3, 4, 5, 9], 6),
            (8, &[5, 6, 7], 8),
        ] {
            let taken: BTreeSet<u64> = taken.iter().copied().collect();
            assert_eq!(free_nonce(from, &taken), free, "{from} {taken:?}");
        }
    }
}
