//! Building and signing transactions, and reading what became of them. Signing is separate from sending, so that
//! the signed bytes can be stored before the network sees them.

use super::rpc::{Chain, ChainError, Incredible};
use super::{Address, B256, Bytes, U256};
use crate::crypto::keys::PrivateKey;
use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope, TxLegacy};
use alloy::eips::Encodable2718;
use alloy::eips::eip2930::AccessList;
use alloy::network::TransactionBuilder;
use alloy::primitives::TxKind;
use alloy::providers::Provider;
use alloy::rpc::types::{BlockNumberOrTag, TransactionReceipt, TransactionRequest};
use alloy::signers::SignerSync;
use alloy::signers::local::PrivateKeySigner;
use alloy::transports::TransportErrorKind;
use std::fs::File;
use std::path::Path;

/// How much a replacement pays more, in percent; nodes ask for at least 10.
const BUMP_PERCENT: u128 = 25;

/// An account that can sign.
#[derive(Debug, Clone)]
pub struct Wallet {
    signer: PrivateKeySigner,
}

impl Wallet {
    /// The account of a private key.
    ///
    /// # Panics
    /// Never: a [`PrivateKey`] is always a valid scalar.
    #[must_use]
    pub fn new(key: &PrivateKey) -> Self {
        let bytes = key.to_bytes();
        Self {
            signer: PrivateKeySigner::from_slice(bytes.as_slice())
                .expect("a private key is a valid scalar"),
        }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// Signs a text as wallets do (`personal_sign`): 65 bytes r, s, v.
    ///
    /// # Errors
    /// What the signer says; a local key does not fail.
    pub fn sign_message(&self, message: &[u8]) -> Result<[u8; 65], alloy::signers::Error> {
        Ok(self.signer.sign_message_sync(message)?.as_bytes())
    }
}

/// What a transaction costs per unit of gas, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fees {
    /// EIP-1559.
    Dynamic {
        /// At most this in all.
        max: u128,
        /// Of it, at most this to the block's producer.
        tip: u128,
    },
    /// Chains without a base fee.
    Legacy {
        /// The price.
        price: u128,
    },
}

impl Fees {
    /// Fees that a node accepts in place of these.
    #[must_use]
    pub fn bumped(self) -> Self {
        // +1: a quarter of a very small number is nothing.
        let more = |fee: u128| {
            let part = fee.saturating_mul(BUMP_PERCENT) / 100;
            fee.saturating_add(part).saturating_add(1)
        };
        match self {
            Self::Dynamic { max, tip } => Self::Dynamic {
                max: more(max),
                tip: more(tip),
            },
            Self::Legacy { price } => Self::Legacy { price: more(price) },
        }
    }

    /// The most that a unit of gas can cost with these.
    #[must_use]
    pub fn most(self) -> u128 {
        match self {
            Self::Dynamic { max, .. } => max,
            Self::Legacy { price } => price,
        }
    }
}

/// What is to be done on the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The contract or account; none creates a contract.
    pub to: Option<Address>,
    /// Call data or init code.
    pub data: Bytes,
    /// Wei that go along.
    pub value: U256,
}

impl Call {
    /// Asks a contract to do something, without money.
    #[must_use]
    pub fn contract(to: Address, data: impl Into<Bytes>) -> Self {
        Self {
            to: Some(to),
            data: data.into(),
            value: U256::ZERO,
        }
    }

    /// Puts a contract on the chain.
    #[must_use]
    pub fn create(data: impl Into<Bytes>) -> Self {
        Self {
            to: None,
            data: data.into(),
            value: U256::ZERO,
        }
    }

    /// Pays the chain's own coin.
    #[must_use]
    pub fn pay(to: Address, value: U256) -> Self {
        Self {
            to: Some(to),
            data: Bytes::new(),
            value,
        }
    }
}

/// A signed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Its hash.
    pub hash: B256,
    /// The bytes for `eth_sendRawTransaction`.
    pub raw: Bytes,
    /// The account's nonce in it.
    pub nonce: u64,
    /// What it pays.
    pub fees: Fees,
    /// The most gas it may use.
    pub gas_limit: u64,
}

/// Signs a call. Pure: the same input gives the same bytes (RFC 6979).
///
/// # Errors
/// [`ChainError::Unexpected`] if the signer fails.
pub fn sign(
    wallet: &Wallet,
    chain_id: u64,
    call: &Call,
    nonce: u64,
    gas_limit: u64,
    fees: Fees,
) -> Result<Signed, ChainError> {
    let to = call.to.map_or(TxKind::Create, TxKind::Call);
    let input = call.data.clone();
    let envelope = match fees {
        Fees::Dynamic { max, tip } => {
            let tx = TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: max,
                max_priority_fee_per_gas: tip,
                to,
                value: call.value,
                access_list: AccessList::default(),
                input,
            };
            let signature = sign_hash(wallet, tx.signature_hash())?;
            TxEnvelope::from(tx.into_signed(signature))
        }
        Fees::Legacy { price } => {
            let tx = TxLegacy {
                chain_id: Some(chain_id),
                nonce,
                gas_price: price,
                gas_limit,
                to,
                value: call.value,
                input,
            };
            let signature = sign_hash(wallet, tx.signature_hash())?;
            TxEnvelope::from(tx.into_signed(signature))
        }
    };
    Ok(Signed {
        hash: *envelope.tx_hash(),
        raw: envelope.encoded_2718().into(),
        nonce,
        fees,
        gas_limit,
    })
}

fn sign_hash(wallet: &Wallet, hash: B256) -> Result<alloy::primitives::Signature, ChainError> {
    wallet
        .signer
        .sign_hash_sync(&hash)
        .map_err(|e| ChainError::Unexpected {
            what: "signing a transaction",
            detail: e.to_string(),
        })
}

/// Gas the call needs, with a fifth to spare; fails when the call would revert.
///
/// # Errors
/// [`ChainError::Refused`] with the decoded revert.
pub async fn estimate_gas(chain: &Chain, from: Address, call: &Call) -> Result<u64, ChainError> {
    let mut request = TransactionRequest::default()
        .with_from(from)
        .with_value(call.value)
        .with_input(call.data.clone());
    request.to = Some(call.to.map_or(TxKind::Create, TxKind::Call));
    let gas = chain
        .call("estimating gas", |node| {
            let request = request.clone();
            async move { node.estimate_gas(request).await }
        })
        .await?;
    Ok(gas.saturating_add(gas / 5))
}

/// Current fees.
///
/// # Errors
/// Those of the endpoints.
pub async fn current_fees(chain: &Chain) -> Result<Fees, ChainError> {
    let block = chain
        .call("reading the newest block", |node| async move {
            node.get_block_by_number(BlockNumberOrTag::Latest).await
        })
        .await?
        .ok_or_else(|| ChainError::Unexpected {
            what: "reading the newest block",
            detail: "there is none".into(),
        })?;
    if let Some(base) = block.header.base_fee_per_gas {
        // Not every node offers the call; one gwei is what most take.
        let tip = chain
            .call("reading the usual tip", |node| async move {
                node.get_max_priority_fee_per_gas().await
            })
            .await
            .unwrap_or(1_000_000_000);
        return Ok(Fees::Dynamic {
            max: (u128::from(base) * 2).saturating_add(tip),
            tip,
        });
    }
    let price = chain
        .call("reading the gas price", |node| async move {
            node.get_gas_price().await
        })
        .await?;
    Ok(Fees::Legacy { price })
}

/// Transactions of the account that are in blocks: the next nonce that is not used up.
///
/// # Errors
/// Those of the endpoints.
pub async fn mined_nonce(chain: &Chain, address: Address) -> Result<u64, ChainError> {
    chain
        .call("reading the account's nonce", |node| async move {
            node.get_transaction_count(address).await
        })
        .await
}

/// The same with those that wait in the node's pool. A node that counts more than `most` is not believed, and the next is
/// asked: what is signed for a nonce far ahead can't be mined, nor anything after it.
///
/// # Errors
/// Those of the endpoints.
pub async fn pending_nonce(chain: &Chain, address: Address, most: u64) -> Result<u64, ChainError> {
    chain
        .call("reading the account's pending nonce", |node| async move {
            let count = node.get_transaction_count(address).pending().await?;
            if count > most {
                return Err(TransportErrorKind::custom(Incredible(format!(
                    "counts {count} transactions of {address} with those that wait, and there can hardly be more than {most}"
                ))));
            }
            Ok(count)
        })
        .await
}

/// Hands signed bytes to the network. That a node knows them already is success.
///
/// # Errors
/// Those of the endpoints.
pub async fn broadcast(chain: &Chain, raw: &Bytes) -> Result<(), ChainError> {
    let sent = chain
        .call("sending a transaction", |node| {
            let raw = raw.clone();
            async move { node.send_raw_transaction(&raw).await.map(drop) }
        })
        .await;
    match sent {
        Err(ChainError::Refused { message, .. }) if is_known(&message) => Ok(()),
        other => other,
    }
}

fn is_known(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("already known")
        || message.contains("already imported")
        || message.contains("known transaction")
}

/// The receipt, once mined.
///
/// # Errors
/// Those of the endpoints.
pub async fn receipt(chain: &Chain, hash: B256) -> Result<Option<TransactionReceipt>, ChainError> {
    chain
        .call("reading a receipt", |node| async move {
            node.get_transaction_receipt(hash).await
        })
        .await
}

/// Only one process at a time may choose a nonce for an account.
#[derive(Debug)]
pub struct NonceLock {
    _file: Option<File>,
}

impl NonceLock {
    /// Waits for the lock of `address` in the directory `dir`. Where the directory does not exist (before setup)
    /// nobody else can be there to compete, and nothing is locked.
    ///
    /// # Errors
    /// What the system says about the lock file.
    pub async fn acquire(dir: &Path, address: Address) -> std::io::Result<Self> {
        let path = dir.join(format!("nonce-{address:#x}.lock"));
        let file = match crate::shared::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self { _file: None }),
            Err(e) => return Err(e),
        };
        let file = tokio::task::spawn_blocking(move || {
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).map(|()| file)
        })
        .await
        .map_err(std::io::Error::other)??;
        Ok(Self { _file: Some(file) })
    }
}

/// Wei of an account, or base units of the chain's own coin elsewhere.
///
/// # Errors
/// Those of the endpoints.
pub async fn balance(chain: &Chain, address: Address) -> Result<U256, ChainError> {
    chain
        .call("reading a balance", |node| async move {
            node.get_balance(address).await
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wallet() -> Wallet {
        Wallet::new(&PrivateKey::from_hex(&"01".repeat(32)).unwrap())
    }

    #[test]
    fn signing_the_same_call_again_gives_the_same_hash() {
        let call = Call::contract(Address::ZERO, Bytes::from_static(b"data"));
        let fees = Fees::Dynamic { max: 10, tip: 1 };
        let first = sign(&wallet(), 31337, &call, 7, 21000, fees).unwrap();
        assert_eq!(
            first,
            sign(&wallet(), 31337, &call, 7, 21000, fees).unwrap()
        );
        assert_ne!(
            first.hash,
            sign(&wallet(), 31337, &call, 7, 21000, fees.bumped())
                .unwrap()
                .hash
        );
    }

    #[test]
    fn a_replacement_always_pays_more_even_from_nothing() {
        assert_eq!(
            Fees::Dynamic { max: 0, tip: 0 }.bumped(),
            Fees::Dynamic { max: 1, tip: 1 }
        );
        assert_eq!(
            Fees::Legacy { price: 100 }.bumped(),
            Fees::Legacy { price: 126 }
        );
    }
}
