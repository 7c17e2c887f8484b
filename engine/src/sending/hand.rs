//! Sending for commands that an operator watches: signed, sent, and waited for, in one call.

use super::{SendError, Sender, Sending};
use crate::chain::tx::{Call, Wallet};
use crate::chain::{Chain, ChainError};
use crate::config::EngineSection;
use crate::outbox::Outbox;
use alloy::rpc::types::TransactionReceipt;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;

/// How long a command that an operator watches waits for a block.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

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
        Err(_) => Err(unexpected(SendError::Waiting {
            hash,
            minutes: PATIENCE.as_secs() / 60,
        })),
    }
}

/// Something that no other command has in its purpose.
fn hand_mark() -> Result<String, SendError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|e| SendError::Lock(std::io::Error::other(e.to_string())))?;
    Ok(hex::encode(bytes))
}
