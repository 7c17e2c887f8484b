//! Minting exactly once. Three guards: the signed bytes are in the journal before the network sees them, so a second
//! attempt sends the same transaction; while its nonce is not used up by another, nothing new is signed; and before
//! anything is signed the chain is asked whether this machine's credential is there already.

use super::{Context, StepError};
use crate::chain::bindings::AccessCredentialNFT;
use crate::chain::logs::{self, ChunkSize};
use crate::chain::tx::Call;
use crate::chain::{Address, B256, Bytes, ChainError, U256};
use crate::crypto::buyer::BuyerKey;
use crate::log;
use crate::outbox::Job;
use alloy::providers::Provider;
use alloy::rpc::types::TransactionReceipt;
use alloy::sol_types::{SolCall, SolEvent};

const PURPOSE: &str = "mint";
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
    let sending = context.sending(job.id, PURPOSE, context.settings.max_fee_gwei);
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
            let call = Call::contract(context.nft_contract, mint.abi_encode());
            sent = vec![sending.sign_new(call).await?];
        }
        if let Some(receipt) = sending.follow(sent).await? {
            return token_in(context, &receipt);
        }
        // Its nonce went to another transaction of this account: as good as never signed.
        log::warn(
            "a mint was overtaken by another transaction of the account; signing anew",
            &[("job", &job.id)],
        );
    }
}

fn token_in(context: &Context, receipt: &TransactionReceipt) -> Result<u64, StepError> {
    minted_token(context.nft_contract, receipt).map_err(StepError::Park)
}

/// The token that a mint of ours made, read from its receipt; or what is wrong with that.
pub(crate) fn minted_token(nft: Address, receipt: &TransactionReceipt) -> Result<u64, String> {
    let token = receipt
        .logs()
        .iter()
        .filter(|log| log.inner.address == nft)
        .find_map(|log| AccessCredentialNFT::CredentialMinted::decode_log(&log.inner).ok())
        .map(|event| event.tokenId)
        .ok_or_else(|| {
            format!(
                "the receipt of {} holds no CredentialMinted event",
                receipt.transaction_hash
            )
        })?;
    small(token)
}

fn small(token: U256) -> Result<u64, String> {
    u64::try_from(token).map_err(|_| format!("token id {token} is beyond all bounds"))
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
    // Only this buyer's: after a rush, the others' are many.
    let event = AccessCredentialNFT::CredentialMinted::SIGNATURE_HASH;
    let topics = [Some(event), None, Some(recipient)];
    let logs = context
        .chain
        .call("looking for minted credentials", |node| async move {
            let head = node.get_block_number().await?;
            logs::fetch_all(
                &node,
                contract,
                from,
                head,
                topics,
                &mut ChunkSize::new(2000),
            )
            .await
        })
        .await?;
    let mut others: Option<Vec<u64>> = None;
    for log in &logs {
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
