//! Minting exactly once. Three guards: the signed bytes are in the journal before the network sees them, so a second
//! attempt sends the same transaction; while its nonce is not used up by another, nothing new is signed; and before
//! anything is signed the chain is asked whether this machine's credential is there already.

use super::{Context, StepError};
use crate::chain::bindings::AccessCredentialNFT;
use crate::chain::logs::{self, ChunkSize};
use crate::chain::tx::{self, Call, Fees, NonceLock, Wallet};
use crate::chain::{Address, B256, Bytes, ChainError, U256};
use crate::crypto::buyer::BuyerKey;
use crate::log;
use crate::outbox::{Job, JournalTx, TxState, now_ms};
use alloy::providers::Provider;
use alloy::rpc::types::TransactionReceipt;
use alloy::sol_types::{SolCall, SolEvent};
use std::path::PathBuf;
use std::time::Duration;

const PURPOSE: &str = "mint";
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

/// What the mint is for.
pub(super) struct Wanted<'a> {
    pub name: &'a str,
    pub to: Address,
    pub key: &'a BuyerKey,
    pub access: &'a super::created::Access,
    pub sealed: Bytes,
}

/// Mints, or finds what was minted, and gives the token id.
pub(super) async fn mint(
    context: &Context,
    job: &Job,
    wanted: &Wanted<'_>,
) -> Result<u64, StepError> {
    loop {
        let mut sent = context.outbox.journaled(job.id, PURPOSE)?;
        if sent.is_empty() {
            if let Some(token) = find_minted(context, job, wanted).await? {
                log::warn(
                    "the credential was minted already",
                    &[("job", &job.id), ("token", &token)],
                );
                return Ok(token);
            }
            let mint = AccessCredentialNFT::mintCall {
                to: wanted.to,
                userEncrypted: wanted.sealed.clone(),
            };
            let call = Call {
                to: Some(context.nft_contract),
                data: mint.abi_encode().into(),
            };
            sent = vec![sign_new(context, job, call).await?];
        }
        if let Some(receipt) = follow(context, job, sent).await? {
            return token_in(context, &receipt);
        }
        // Its nonce went to another transaction of this account: as good as never signed.
        log::warn(
            "a mint was overtaken by another transaction of the account; signing anew",
            &[("job", &job.id)],
        );
    }
}

/// Chooses a nonce, signs, writes down. Sending is left to [`follow`].
async fn sign_new(context: &Context, job: &Job, call: Call) -> Result<JournalTx, StepError> {
    let (chain, sender) = (&context.chain, &context.sender);
    let from = sender.wallet.address();
    let gas_limit = tx::estimate_gas(chain, from, &call).await?;
    let fees = tx::current_fees(chain).await?;
    if fees.most() > most_fee(context) {
        return Err(StepError::Retry(format!(
            "the node asks for {} gwei per unit of gas, more than engine.max_fee_gwei allows",
            fees.most() / WEI_PER_GWEI
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
            send(context, &earlier).await;
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
    context
        .outbox
        .journal(job.id, PURPOSE, chain.chain_id(), from, &call, &signed)?;
    let row = JournalTx {
        signed,
        call,
        signed_ms: now_ms(),
    };
    log::info(
        "mint signed",
        &[
            ("job", &job.id),
            ("tx", &row.signed.hash),
            ("nonce", &row.signed.nonce),
        ],
    );
    // Still under the lock: whoever chooses next must see it in the node's pool.
    tx::broadcast(chain, &row.signed.raw).await?;
    Ok(row)
}

fn most_fee(context: &Context) -> u128 {
    u128::from(context.settings.max_fee_gwei).saturating_mul(WEI_PER_GWEI)
}

/// Sends again what may not have arrived. A refusal shows in what the chain says next, so it is only logged.
async fn send(context: &Context, row: &JournalTx) {
    if let Err(e) = tx::broadcast(&context.chain, &row.signed.raw).await {
        log::warn(
            "sending a signed transaction again",
            &[("tx", &row.signed.hash), ("error", &e)],
        );
    }
}

/// Waits until one of these transactions, which share a purpose, is in a block. `None` when none can be any more.
async fn follow(
    context: &Context,
    job: &Job,
    mut sent: Vec<JournalTx>,
) -> Result<Option<TransactionReceipt>, StepError> {
    let mut first = true;
    let mut overtaken_since = None;
    let mut acted_ms = sent.last().map_or(0, |row| row.signed_ms);
    let replace_after_ms =
        i64::try_from(context.settings.replace_after_s.saturating_mul(1000)).unwrap_or(i64::MAX);
    loop {
        match look(context, &sent).await? {
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
                    "the mint {} was reverted by the contract",
                    row.signed.hash
                )));
            }
            Seen::Overtaken
                if now_ms() - *overtaken_since.get_or_insert_with(now_ms) < OVERTAKEN_FOR_MS =>
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
        let newest = sent
            .last()
            .ok_or_else(|| StepError::Park("a mint without a transaction".into()))?;
        if first {
            // After a crash: perhaps it was signed and never sent.
            send(context, newest).await;
            first = false;
        } else if now_ms().saturating_sub(acted_ms) > replace_after_ms {
            acted_ms = now_ms();
            match better_fees(context, newest).await? {
                Some(fees) => sent.push(replace(context, job, newest, fees).await?),
                None => send(context, newest).await,
            }
        }
        context.pause(LOOK_EVERY).await?;
    }
}

/// Higher fees for a transaction that waits, unless it pays much more than is asked for already: on a chain that stands
/// still, bidding on would spend the whole account once it moves again.
async fn better_fees(context: &Context, old: &JournalTx) -> Result<Option<Fees>, StepError> {
    let fees = old.signed.fees.bumped();
    let current = tx::current_fees(&context.chain).await?.most();
    let limit = current
        .saturating_mul(MOST_TIMES_CURRENT)
        .min(most_fee(context));
    Ok((fees.most() <= limit).then_some(fees))
}

/// Signs the same with the same nonce and higher fees: at most one of the two can ever be mined.
async fn replace(
    context: &Context,
    job: &Job,
    old: &JournalTx,
    fees: Fees,
) -> Result<JournalTx, StepError> {
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
        job.id,
        PURPOSE,
        chain.chain_id(),
        wallet.address(),
        &old.call,
        &signed,
    )?;
    log::warn(
        "no receipt yet; replaced with higher fees",
        &[
            ("job", &job.id),
            ("old", &old.signed.hash),
            ("new", &signed.hash),
        ],
    );
    let row = JournalTx {
        signed,
        call: old.call.clone(),
        signed_ms: now_ms(),
    };
    send(context, &row).await;
    Ok(row)
}

enum Seen {
    Mined(Box<TransactionReceipt>, JournalTx),
    Overtaken,
    Waiting,
}

async fn look(context: &Context, sent: &[JournalTx]) -> Result<Seen, StepError> {
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

fn token_in(context: &Context, receipt: &TransactionReceipt) -> Result<u64, StepError> {
    let token = receipt
        .logs()
        .iter()
        .filter(|log| log.inner.address == context.nft_contract)
        .find_map(|log| AccessCredentialNFT::CredentialMinted::decode_log(&log.inner).ok())
        .map(|event| event.tokenId)
        .ok_or_else(|| {
            StepError::Park(format!(
                "the receipt of {} holds no CredentialMinted event",
                receipt.transaction_hash
            ))
        })?;
    small(token)
}

fn small(token: U256) -> Result<u64, StepError> {
    u64::try_from(token)
        .map_err(|_| StepError::Park(format!("token id {token} is beyond all bounds")))
}

/// A credential of this machine that was minted to the buyer since the purchase: one that opens with the buyer's key,
/// names the same access and belongs to no other machine. Found when the outbox was lost, not in normal work.
async fn find_minted(
    context: &Context,
    job: &Job,
    wanted: &Wanted<'_>,
) -> Result<Option<u64>, StepError> {
    let contract = context.nft_contract;
    let from = job.block_number;
    let recipient = B256::left_padding_from(wanted.to.as_slice());
    let topics = [AccessCredentialNFT::CredentialMinted::SIGNATURE_HASH];
    let logs = context
        .chain
        .call("looking for minted credentials", |node| async move {
            let head = node.get_block_number().await?;
            logs::fetch_all(
                &node,
                contract,
                from,
                head,
                &topics,
                &mut ChunkSize::new(2000),
            )
            .await
        })
        .await?;
    let mut others: Option<Vec<u64>> = None;
    for log in logs
        .iter()
        .filter(|log| log.topics().get(2) == Some(&recipient))
    {
        let Some(Ok(token)) = log
            .topics()
            .get(1)
            .map(|topic| small(U256::from_be_bytes(topic.0)))
        else {
            continue;
        };
        // Minted by another job of this outbox, perhaps a moment ago and not yet in the database.
        let ours = match log.transaction_hash {
            Some(hash) => context.outbox.job_of_tx(hash)?,
            None => None,
        };
        if ours.is_some_and(|other| other != job.id) {
            continue;
        }
        if others.is_none() {
            others = Some(context.machines.tokens_of_others(wanted.name).await?);
        }
        let taken = others
            .as_ref()
            .is_some_and(|others| others.contains(&token));
        if !taken && opens(context, wanted, token).await? {
            return Ok(Some(token));
        }
    }
    Ok(None)
}

async fn opens(context: &Context, wanted: &Wanted<'_>, token: u64) -> Result<bool, StepError> {
    let contract = context.nft_contract;
    let read = context
        .chain
        .call("reading a credential", |node| async move {
            let nft = AccessCredentialNFT::new(contract, node);
            nft.getUserEncrypted(U256::from(token))
                .call()
                .await
                .map_err(crate::cli::mint_nft::contract_error)
        })
        .await;
    let sealed = match read {
        Ok(sealed) => sealed,
        // Burnt in the meantime, or not of this contract's kind: not ours.
        Err(ChainError::Refused { .. }) => return Ok(false),
        Err(e) => return Err(e.into()),
    };
    let Ok(plain) = wanted.key.decrypt(&sealed) else {
        return Ok(false);
    };
    Ok(serde_json::from_slice::<super::created::Access>(&plain)
        .is_ok_and(|access| access == *wanted.access))
}
