//! Sending exactly once: signed bytes are in the journal before the network sees them, a transaction that waits is
//! replaced by one with the same nonce, and nothing new is signed while one may still be mined. What is sent, and whether
//! it is still wanted, is known by the callers: [`super::mint`] and [`crate::anchor`].

use super::{Context, StepError};
use crate::chain::B256;
use crate::chain::tx::{self, Call, Fees, NonceLock, Wallet};
use crate::log;
use crate::outbox::{JournalTx, TxState, now_ms};
use alloy::providers::Provider;
use alloy::rpc::types::TransactionReceipt;
use std::path::PathBuf;
use std::time::Duration;

/// Between two looks for a receipt.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Milliseconds for which the nonce has to look used up by another before anything new is signed: behind one address
/// there may be several nodes, and the one that is asked for receipts may be behind the one that counts nonces.
const OVERTAKEN_FOR_MS: i64 = 10_000;
/// A replacement pays at most so many times what the chain asks for now: fees are not why it waits then.
const MOST_TIMES_CURRENT: u128 = 4;
const WEI_PER_GWEI: u128 = 1_000_000_000;

/// The account that owns the contracts, and the one way to choose its nonces.
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
pub(crate) struct Sending<'a> {
    pub context: &'a Context,
    /// The job it is for; 0 for what no event of the chain asked for.
    pub job: i64,
    pub purpose: &'static str,
    /// The most that a unit of gas may cost, in gwei.
    pub max_fee_gwei: u64,
}

enum Seen {
    Mined(Box<TransactionReceipt>, JournalTx),
    Overtaken,
    Waiting,
}

impl Sending<'_> {
    /// Chooses a nonce, signs, writes down. Sending is left to [`Self::follow`].
    pub(crate) async fn sign_new(&self, call: Call) -> Result<JournalTx, StepError> {
        let context = self.context;
        let (chain, sender) = (&context.chain, &context.sender);
        let from = sender.wallet.address();
        let gas_limit = tx::estimate_gas(chain, from, &call).await?;
        let fees = tx::current_fees(chain).await?;
        if fees.most() > self.most_fee() {
            return Err(StepError::Retry(format!(
                "the node asks for {} gwei per unit of gas, more than the configured {} (max_fee_gwei)",
                fees.most() / WEI_PER_GWEI,
                self.max_fee_gwei
            )));
        }
        let _ours = sender.choosing.lock().await;
        let _others = NonceLock::acquire(&sender.lock_dir, from)
            .await
            .map_err(|e| StepError::Retry(format!("locking the account's nonce: {e}")))?;
        // What was signed before and did not reach the network leaves a gap that would hold up everything after it.
        let mined = tx::mined_nonce(chain, from).await?;
        let mut next = tx::pending_nonce(chain, from).await?;
        for earlier in context.outbox.live_txs(chain.chain_id(), from)? {
            if earlier.signed.nonce >= mined {
                self.send(&earlier).await;
                next = next.max(earlier.signed.nonce + 1);
            }
        }
        let signed = tx::sign(
            &sender.wallet,
            chain.chain_id(),
            &call,
            next,
            gas_limit,
            fees,
        )?;
        context.outbox.journal(
            self.job,
            self.purpose,
            chain.chain_id(),
            from,
            &call,
            &signed,
        )?;
        let row = JournalTx {
            signed,
            call,
            signed_ms: now_ms(),
        };
        log::info(
            &format!("{} signed", self.purpose),
            &[
                ("job", &self.job),
                ("tx", &row.signed.hash),
                ("nonce", &row.signed.nonce),
            ],
        );
        // Still under the lock: whoever chooses next must see it in the node's pool.
        tx::broadcast(chain, &row.signed.raw).await?;
        Ok(row)
    }

    fn most_fee(&self) -> u128 {
        u128::from(self.max_fee_gwei).saturating_mul(WEI_PER_GWEI)
    }

    /// Sends again what may not have arrived. A refusal shows in what the chain says next, so it is only logged.
    async fn send(&self, row: &JournalTx) {
        if let Err(e) = tx::broadcast(&self.context.chain, &row.signed.raw).await {
            log::warn(
                "sending a signed transaction again",
                &[("tx", &row.signed.hash), ("error", &e)],
            );
        }
    }

    /// Waits until one of these transactions, which share a purpose, is in a block. `None` when none can be any more.
    pub(crate) async fn follow(
        &self,
        mut sent: Vec<JournalTx>,
    ) -> Result<Option<TransactionReceipt>, StepError> {
        let context = self.context;
        let mut first = true;
        let mut overtaken_since = None;
        let mut acted_ms = sent.last().map_or(0, |row| row.signed_ms);
        let replace_after_ms = i64::try_from(context.settings.replace_after_s.saturating_mul(1000))
            .unwrap_or(i64::MAX);
        loop {
            match self.look(&sent).await? {
                Seen::Mined(receipt, row) => {
                    let state = if receipt.status() {
                        TxState::Mined
                    } else {
                        TxState::Reverted
                    };
                    context.outbox.settle(&row.signed, state)?;
                    if receipt.status() {
                        return Ok(Some(*receipt));
                    }
                    return Err(StepError::Retry(format!(
                        "the {} {} was reverted by the contract",
                        self.purpose, row.signed.hash
                    )));
                }
                Seen::Overtaken
                    if now_ms() - *overtaken_since.get_or_insert_with(now_ms)
                        < OVERTAKEN_FOR_MS =>
                {
                    context.pause(LOOK_EVERY).await?;
                    continue;
                }
                Seen::Overtaken => {
                    for row in &sent {
                        context.outbox.settle(&row.signed, TxState::Dead)?;
                    }
                    return Ok(None);
                }
                Seen::Waiting => overtaken_since = None,
            }
            let newest = sent.last().ok_or_else(|| {
                StepError::Park(format!("a {} without a transaction", self.purpose))
            })?;
            if first {
                // After a crash: perhaps it was signed and never sent.
                self.send(newest).await;
                first = false;
            } else if now_ms().saturating_sub(acted_ms) > replace_after_ms {
                acted_ms = now_ms();
                match self.better_fees(newest).await? {
                    Some(fees) => sent.push(self.replace(newest, fees).await?),
                    None => self.send(newest).await,
                }
            }
            context.pause(LOOK_EVERY).await?;
        }
    }

    /// Higher fees for a transaction that waits, unless it pays much more than is asked for already: on a chain that stands
    /// still, bidding on would spend the whole account once it moves again.
    async fn better_fees(&self, old: &JournalTx) -> Result<Option<Fees>, StepError> {
        let fees = old.signed.fees.bumped();
        let current = tx::current_fees(&self.context.chain).await?.most();
        let limit = current
            .saturating_mul(MOST_TIMES_CURRENT)
            .min(self.most_fee());
        Ok((fees.most() <= limit).then_some(fees))
    }

    /// Signs the same with the same nonce and higher fees: at most one of the two can ever be mined.
    async fn replace(&self, old: &JournalTx, fees: Fees) -> Result<JournalTx, StepError> {
        let context = self.context;
        let (chain, wallet) = (&context.chain, context.wallet());
        let signed = tx::sign(
            wallet,
            chain.chain_id(),
            &old.call,
            old.signed.nonce,
            old.signed.gas_limit,
            fees,
        )?;
        context.outbox.journal(
            self.job,
            self.purpose,
            chain.chain_id(),
            wallet.address(),
            &old.call,
            &signed,
        )?;
        log::warn(
            "no receipt yet; replaced with higher fees",
            &[
                ("job", &self.job),
                ("old", &old.signed.hash),
                ("new", &signed.hash),
            ],
        );
        let row = JournalTx {
            signed,
            call: old.call.clone(),
            signed_ms: now_ms(),
        };
        self.send(&row).await;
        Ok(row)
    }

    async fn look(&self, sent: &[JournalTx]) -> Result<Seen, StepError> {
        let context = self.context;
        let from = context.wallet().address();
        let hashes: Vec<B256> = sent.iter().map(|row| row.signed.hash).collect();
        // Nonce first, receipts second, one node: a nonce that is used up by one of ours then shows its receipt too.
        let (used, receipts) = context
            .chain
            .call("looking for a receipt", |node| {
                let hashes = hashes.clone();
                async move {
                    let used = node.get_transaction_count(from).await?;
                    let mut receipts = Vec::with_capacity(hashes.len());
                    for hash in hashes {
                        receipts.push(node.get_transaction_receipt(hash).await?);
                    }
                    Ok((used, receipts))
                }
            })
            .await?;
        for (row, receipt) in sent.iter().zip(receipts) {
            if let Some(receipt) = receipt {
                return Ok(Seen::Mined(Box::new(receipt), row.clone()));
            }
        }
        let overtaken = sent.iter().all(|row| used > row.signed.nonce);
        Ok(if overtaken {
            Seen::Overtaken
        } else {
            Seen::Waiting
        })
    }
}
