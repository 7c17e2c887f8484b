//! What becomes of what was signed: waiting for its block, replacing what waits too long, and telling what can never be
//! mined any more. Nothing new is chosen or signed for a nonce of its own here.

use super::{SendError, Sending};
use crate::chain::B256;
use crate::chain::nonce::{self, Holder};
use crate::chain::tx::{self, Fees};
use crate::failpoint;
use crate::log;
use crate::outbox::{JournalTx, TxState, now_ms};
use alloy::providers::Provider;
use alloy::rpc::types::TransactionReceipt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Between two looks for a receipt.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Milliseconds for which the nonce has to look used up by another before blocks are read for which one it was: behind one
/// address there may be several nodes, and the one that is asked for receipts may be behind the one that counts nonces.
const OVERTAKEN_FOR_MS: i64 = 10_000;
/// A replacement pays at most so many times what the chain asks for now: fees are not why it waits then.
const MOST_TIMES_CURRENT: u128 = 4;
/// Replacements that are due, at `replace_after_s` each, before whoever waits is told to come back: ten minutes, and what
/// keeps the first of them from its block is not their fee.
const MOST_DUE: i64 = 7;
/// Milliseconds for which whoever signed is left alone with a transaction that should have been replaced by then.
const ORPHANED_AFTER_MS: i64 = 60_000;

enum Seen {
    Mined(Box<TransactionReceipt>, Box<JournalTx>),
    Overtaken,
    Waiting,
}

impl Sending<'_> {
    /// Waits until one of these transactions, which share a purpose, is in a block. `None` when none can be any more. Where
    /// that takes long, the caller has other things to do: it comes back with what is in the journal, and each time they are
    /// sent again or replaced.
    ///
    /// # Errors
    /// [`SendError::Reverted`] when it is in a block without effect; [`SendError::Waiting`] when it is in none for long;
    /// others, when it is not known what became of it.
    pub async fn follow(
        &self,
        sent: Vec<JournalTx>,
    ) -> Result<Option<TransactionReceipt>, SendError> {
        let Some(newest) = sent.last() else {
            return Err(SendError::Empty {
                purpose: self.purpose.to_owned(),
            });
        };
        let mut first = true;
        let mut overtaken_since = None;
        let mut acted_ms = newest.signed_ms;
        let replace_after_ms = millis(self.replace_after_s);
        let patience_ms = replace_after_ms.saturating_mul(MOST_DUE);
        let signed_first = sent.iter().map(|row| row.signed_ms).min();
        let patient_until = signed_first.map_or(0, |ms| ms.saturating_add(patience_ms));
        let waiting = SendError::Waiting {
            hash: newest.signed.hash,
            minutes: u64::try_from(patience_ms / 60_000).unwrap_or(0),
        };
        loop {
            let sent = self.known(&sent)?;
            match self.look(&sent).await? {
                Seen::Mined(receipt, row) => return self.settled(*receipt, &row).map(Some),
                Seen::Overtaken
                    if now_ms() - *overtaken_since.get_or_insert_with(now_ms)
                        < OVERTAKEN_FOR_MS =>
                {
                    self.pause(LOOK_EVERY).await?;
                    continue;
                }
                Seen::Overtaken => {
                    if self.overtaken(&sent).await?.is_none() {
                        if now_ms() > patient_until {
                            return Err(waiting);
                        }
                        overtaken_since = None;
                        self.pause(LOOK_EVERY).await?;
                        continue;
                    }
                    self.bury(&sent)?;
                    return Ok(None);
                }
                Seen::Waiting => overtaken_since = None,
            }
            let newest = sent.last().ok_or_else(|| SendError::Empty {
                purpose: self.purpose.to_owned(),
            })?;
            acted_ms = acted_ms.max(newest.signed_ms);
            if first {
                // After a crash: perhaps it was signed and never sent.
                self.send(newest).await;
                first = false;
                if now_ms() <= patient_until {
                    self.pause(LOOK_EVERY).await?;
                    continue;
                }
            }
            if now_ms().saturating_sub(acted_ms) > replace_after_ms {
                acted_ms = now_ms();
                self.hurry(newest).await?;
            }
            if now_ms() > patient_until {
                return Err(waiting);
            }
            self.pause(LOOK_EVERY).await?;
        }
    }

    /// Whether blocks have other transactions with the nonces of these: not having a receipt of them proves nothing. Gives how
    /// many blocks there are on top of the latest of those.
    async fn overtaken(&self, sent: &[JournalTx]) -> Result<Option<u64>, SendError> {
        let (node, head) = self.chain.select().await?;
        let from = self.sender.wallet.address();
        let nonces: BTreeSet<u64> = sent.iter().map(|row| row.signed.nonce).collect();
        let mut depth = u64::MAX;
        for nonce in nonces {
            match nonce::holder(node, from, nonce, None).await? {
                Holder::Nobody => return Ok(None),
                Holder::Transaction { hash, block } => {
                    if sent.iter().any(|row| row.signed.hash == hash) {
                        return Err(SendError::no_receipt(node, hash, block));
                    }
                    depth = depth.min(head.saturating_sub(block));
                }
            }
        }
        Ok(Some(depth))
    }

    /// These, and what another process signed in their place.
    fn known(&self, sent: &[JournalTx]) -> Result<Vec<JournalTx>, SendError> {
        let (chain_id, from) = (self.chain.chain_id(), self.sender.wallet.address());
        let mut by_hash = BTreeMap::new();
        for row in sent {
            if by_hash.contains_key(&row.signed.hash) {
                continue;
            }
            for sibling in self.outbox.siblings(chain_id, from, row)? {
                by_hash.insert(sibling.signed.hash, sibling);
            }
        }
        let mut all: Vec<JournalTx> = by_hash.into_values().collect();
        all.sort_by_key(|row| (row.signed_ms, row.signed.fees.most()));
        Ok(all)
    }

    fn settled(
        &self,
        receipt: TransactionReceipt,
        row: &JournalTx,
    ) -> Result<TransactionReceipt, SendError> {
        failpoint::reach("send", &format!("mined {}", self.purpose));
        let state = if receipt.status() {
            TxState::Mined
        } else {
            TxState::Reverted
        };
        self.outbox
            .settle(&row.signed, state, receipt.block_number)?;
        failpoint::reach("send", &format!("settled {}", self.purpose));
        if receipt.status() {
            return Ok(receipt);
        }
        Err(SendError::Reverted {
            purpose: self.purpose.to_owned(),
            hash: row.signed.hash,
        })
    }

    /// Replaces a transaction that waits by one that pays more, or sends it again where it pays enough already.
    async fn hurry(&self, newest: &JournalTx) -> Result<(), SendError> {
        match self.better_fees(newest).await? {
            Some(fees) => self.replace(newest, fees).await,
            None => {
                self.send(newest).await;
                Ok(())
            }
        }
    }

    /// Higher fees for a transaction that waits, unless it pays much more than is asked for already: on a chain that stands
    /// still, bidding on would spend the whole account once it moves again.
    async fn better_fees(&self, old: &JournalTx) -> Result<Option<Fees>, SendError> {
        let fees = old.signed.fees.bumped();
        let current = tx::current_fees(self.chain).await?.most();
        let limit = current
            .saturating_mul(MOST_TIMES_CURRENT)
            .min(self.most_fee());
        Ok((fees.most() <= limit).then_some(fees))
    }

    /// Signs the same with the same nonce and higher fees: at most one of the two can ever be mined.
    async fn replace(&self, old: &JournalTx, fees: Fees) -> Result<(), SendError> {
        let (chain, wallet) = (self.chain, &self.sender.wallet);
        let signed = tx::sign(
            wallet,
            chain.chain_id(),
            &old.call,
            old.signed.nonce,
            old.signed.gas_limit,
            fees,
        )?;
        self.outbox.journal(
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
        self.send(&self.row(signed, old.call.clone())).await;
        Ok(())
    }

    async fn look(&self, sent: &[JournalTx]) -> Result<Seen, SendError> {
        let from = self.sender.wallet.address();
        let hashes: Vec<B256> = sent.iter().map(|row| row.signed.hash).collect();
        // Nonce first, receipts second, one node: a nonce that is used up by one of ours then shows its receipt too.
        let (used, receipts) = self
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
                return Ok(Seen::Mined(Box::new(receipt), Box::new(row.clone())));
            }
        }
        let overtaken = sent.iter().all(|row| used > row.signed.nonce);
        Ok(if overtaken {
            Seen::Overtaken
        } else {
            Seen::Waiting
        })
    }

    /// Waits, or ends early because the program is to end.
    async fn pause(&self, time: Duration) -> Result<(), SendError> {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            Ok(_) = stop.wait_for(|stop| *stop) => Err(SendError::Stopped),
        }
    }

    /// Looks after what others signed for this account and left behind: a command that was interrupted, say. It is sent
    /// again and replaced like anything else; whether its purpose is still wanted is decided by whoever comes back to it. What
    /// was overtaken, and has so many `confirmations` on top that no reorganisation undoes that, is dead with that: perhaps
    /// nobody comes back to it.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn tend(&self, confirmations: u64) -> Result<(), SendError> {
        let from = self.sender.wallet.address();
        let patience = millis(self.replace_after_s).saturating_add(ORPHANED_AFTER_MS);
        let mut newest: BTreeMap<u64, JournalTx> = BTreeMap::new();
        for row in self.outbox.live_txs(self.chain.chain_id(), from)? {
            newest.insert(row.signed.nonce, row);
        }
        newest.retain(|_, row| now_ms().saturating_sub(row.signed_ms) > patience);
        let mut unknown = None;
        for row in newest.into_values() {
            let own = Sending {
                job: row.job,
                purpose: &row.purpose,
                ..*self
            };
            let sent = own.known(std::slice::from_ref(&row))?;
            match own.look(&sent).await? {
                Seen::Mined(receipt, row) => match own.settled(*receipt, &row) {
                    Ok(_) | Err(SendError::Reverted { .. }) => {}
                    Err(e) => return Err(e),
                },
                Seen::Waiting => own.hurry(&row).await?,
                Seen::Overtaken => match own.overtaken(&sent).await {
                    Ok(Some(depth)) if depth >= confirmations => own.bury(&sent)?,
                    Ok(_) => {}
                    // Those with later nonces are looked after all the same.
                    Err(e) => unknown = unknown.or(Some(e)),
                },
            }
        }
        unknown.map_or(Ok(()), Err)
    }

    /// Another transaction has their nonce.
    fn bury(&self, sent: &[JournalTx]) -> Result<(), SendError> {
        for row in sent {
            self.outbox.settle(&row.signed, TxState::Dead, None)?;
        }
        Ok(())
    }
}

fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}
