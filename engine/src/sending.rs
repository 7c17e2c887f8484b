//! Sending exactly once: signed bytes are in the journal before the network sees them, a transaction that waits is
//! replaced by one with the same nonce, and nothing new is signed while one may still be mined. All transactions of all
//! of the host's accounts go this way, the daemon's and the commands': one journal, one lock per account for choosing a
//! nonce. What is sent, and whether it is still wanted, is known by the callers: [`crate::handler`], [`crate::anchor`],
//! [`crate::funds`].

pub mod young;

use crate::chain::tx::{self, Call, Fees, NonceLock, Wallet};
use crate::chain::{Address, B256, Chain, ChainError, U256};
use crate::config::EngineSection;
use crate::failpoint;
use crate::log;
use crate::outbox::{JournalTx, Outbox, OutboxError, TxState, now_ms};
use alloy::providers::Provider;
use alloy::rpc::types::TransactionReceipt;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// Between two looks for a receipt.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Milliseconds for which the nonce has to look used up by another before anything new is signed: behind one address
/// there may be several nodes, and the one that is asked for receipts may be behind the one that counts nonces.
const OVERTAKEN_FOR_MS: i64 = 10_000;
/// A replacement pays at most so many times what the chain asks for now: fees are not why it waits then.
const MOST_TIMES_CURRENT: u128 = 4;
const WEI_PER_GWEI: u128 = 1_000_000_000;
/// How long a command that an operator watches waits for a block.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// Milliseconds for which whoever signed is left alone with a transaction that should have been replaced by then.
const ORPHANED_AFTER_MS: i64 = 60_000;

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
        "account {account} has {} eth and needs up to {} eth for the amount and its gas",
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
    /// Not in a block after a while; it may still come.
    #[error(
        "transaction {hash} is not mined after {} minutes; the engine goes on with it, so don't send it again but look it up",
        PATIENCE.as_secs() / 60
    )]
    Waiting {
        /// Its hash.
        hash: B256,
    },
    /// The engine is to end.
    #[error("the engine is stopping")]
    Stopped,
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

enum Seen {
    Mined(Box<TransactionReceipt>, Box<JournalTx>),
    Overtaken,
    Waiting,
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
        let has = tx::balance(chain, from).await?;
        let needs = most_spent(call.value, gas_limit, fees);
        if has < needs {
            // Signed, it would wait for money, and everything after it behind it.
            return Err(SendError::Poor {
                account: from,
                has,
                needs,
            });
        }
        failpoint::reach("send", &format!("signing {}", self.purpose));
        let _ours = sender.choosing.lock().await;
        let _others = NonceLock::acquire(&sender.lock_dir, from)
            .await
            .map_err(SendError::Lock)?;
        // What was signed before and did not reach the network, or was taken back, leaves a gap that would hold up everything
        // after it.
        let mined = tx::mined_nonce(chain, from).await?;
        let mut next = tx::pending_nonce(chain, from).await?;
        let unsettled = self.outbox.unsettled_txs(chain.chain_id(), from, mined)?;
        for earlier in unsettled {
            self.send(&earlier).await;
            next = next.max(earlier.signed.nonce + 1);
        }
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

    /// Waits until one of these transactions, which share a purpose, is in a block. `None` when none can be any more.
    ///
    /// # Errors
    /// [`SendError::Reverted`] when it is in a block without effect; others, when it is not known what became of it.
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
                    for row in &sent {
                        self.outbox.settle(&row.signed, TxState::Dead, None)?;
                    }
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
            } else if now_ms().saturating_sub(acted_ms) > replace_after_ms {
                acted_ms = now_ms();
                self.hurry(newest).await?;
            }
            self.pause(LOOK_EVERY).await?;
        }
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
    /// again and replaced like anything else; whether its purpose is still wanted is decided by whoever comes back to it.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn tend(&self) -> Result<(), SendError> {
        let from = self.sender.wallet.address();
        let patience = millis(self.replace_after_s).saturating_add(ORPHANED_AFTER_MS);
        let mut newest: BTreeMap<u64, JournalTx> = BTreeMap::new();
        for row in self.outbox.live_txs(self.chain.chain_id(), from)? {
            newest.insert(row.signed.nonce, row);
        }
        newest.retain(|_, row| now_ms().saturating_sub(row.signed_ms) > patience);
        for row in newest.into_values() {
            let own = Sending {
                job: row.job,
                purpose: &row.purpose,
                ..*self
            };
            match own.look(&own.known(std::slice::from_ref(&row))?).await? {
                Seen::Mined(receipt, row) => match own.settled(*receipt, &row) {
                    Ok(_) | Err(SendError::Reverted { .. }) => {}
                    Err(e) => return Err(e),
                },
                Seen::Waiting => own.hurry(&row).await?,
                Seen::Overtaken => {}
            }
        }
        Ok(())
    }
}

/// The most that a transaction can take from its account.
#[must_use]
pub fn most_spent(value: U256, gas_limit: u64, fees: Fees) -> U256 {
    let gas = U256::from(gas_limit).saturating_mul(U256::from(fees.most()));
    value.saturating_add(gas)
}

fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}

/// Signs, sends and waits, for commands that an operator watches. Where the engine has no directory yet there is nobody
/// to compete with, and nothing that outlives this program.
///
/// # Errors
/// Those of the endpoints; [`ChainError::Unexpected`] when the transaction reverted or was not mined in time.
pub async fn execute(
    chain: &Chain,
    wallet: &Wallet,
    state_dir: &Path,
    what: &'static str,
    call: &Call,
) -> Result<TransactionReceipt, ChainError> {
    let defaults = EngineSection::default();
    let unexpected = |e: SendError| match e {
        SendError::Chain(e) => e,
        e => ChainError::Unexpected {
            what,
            detail: e.to_string(),
        },
    };
    let outbox = if state_dir.is_dir() {
        Outbox::open_to_send(&state_dir.join("outbox.db"))
    } else {
        Outbox::in_memory()
    };
    let outbox = outbox.map_err(|e| unexpected(e.into()))?;
    let sender = Sender::new(wallet.clone(), state_dir.to_owned());
    let (_running, stop) = watch::channel(false);
    let purpose = format!("{what} {}", hand_mark().map_err(unexpected)?);
    let sending = Sending {
        chain,
        outbox: &outbox,
        sender: &sender,
        stop: &stop,
        replace_after_s: defaults.replace_after_s,
        job: 0,
        purpose: &purpose,
        max_fee_gwei: defaults.max_fee_gwei,
    };
    let signed = sending.sign_new(call.clone()).await.map_err(unexpected)?;
    let hash = signed.signed.hash;
    match tokio::time::timeout(PATIENCE, sending.follow(vec![signed])).await {
        Ok(Ok(Some(receipt))) => Ok(receipt),
        Ok(Ok(None)) => Err(ChainError::Unexpected {
            what,
            detail: format!(
                "the nonce of transaction {hash} went to one that this host did not sign; nothing happened"
            ),
        }),
        Ok(Err(e)) => Err(unexpected(e)),
        Err(_) => Err(unexpected(SendError::Waiting { hash })),
    }
}

/// Something that no other command has in its purpose.
fn hand_mark() -> Result<String, SendError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|e| SendError::Lock(std::io::Error::other(e.to_string())))?;
    Ok(hex::encode(bytes))
}
