//! Which transactions of the chain are an administrator's commands. A node is not believed: whoever controls one could
//! show any transaction, and anybody can encrypt to the host. So the signature is checked here, over the chain's id and
//! the very bytes that are read. Of everybody else's transactions nothing is read: chains have kinds of their own.

use crate::chain::rpc::{Endpoint, describe};
use crate::chain::{Address, B256, Bytes};
use alloy::consensus::Transaction as _;
use alloy::consensus::TxEnvelope;
use alloy::consensus::transaction::SignerRecoverable as _;
use alloy::eips::Encodable2718 as _;
use alloy::primitives::{U64, keccak256};
use alloy::providers::Provider as _;
use alloy::rpc::types::{BlockNumberOrTag, Transaction};
use serde::Deserialize;
use serde_json::Value;

/// Bytes of a command; longer data is none.
const MAX_DATA: usize = 4096;
/// Blocks that one look reads.
const AT_ONCE: u64 = 50;
/// How far back the first look goes at most.
const FIRST_LOOK: u64 = 600;
/// How far back it goes when the history moved.
const STEP_BACK: u64 = 64;

/// Whom commands come from and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// The administrator's wallet.
    pub from: Address,
    /// Where commands are sent to; anywhere where it is missing.
    pub to: Option<Address>,
    /// The chain.
    pub chain_id: u64,
}

/// Data that an administrator sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The transaction.
    pub tx_hash: B256,
    /// Its block.
    pub block: u64,
    /// What may be a command.
    pub data: Bytes,
}

/// As much of a block as is looked at.
#[derive(Debug, Deserialize)]
struct Block {
    hash: B256,
    timestamp: U64,
    /// Hashes, or transactions as the chain writes them.
    transactions: Vec<Value>,
}

impl Filter {
    /// The same for a transaction as a node writes it. What is not even said to be an administrator's may be of a kind that
    /// this program does not know.
    fn admits_one(&self, written: Value) -> Option<(B256, Bytes)> {
        let says = |key: &str| written[key].as_str()?.parse::<Address>().ok();
        let (from, to) = (says("from")?, says("to")?);
        if from != self.from || self.to.is_some_and(|wanted| wanted != to) {
            return None;
        }
        let transaction = serde_json::from_value::<Transaction>(written).ok()?;
        self.admits(transaction.inner.inner())
    }

    /// The data of a transaction that is a command by all that can be seen from outside.
    #[must_use]
    pub fn admits(&self, transaction: &TxEnvelope) -> Option<(B256, Bytes)> {
        let data = transaction.input();
        let here = transaction.chain_id() == Some(self.chain_id);
        let meant = match self.to {
            Some(to) => transaction.to() == Some(to),
            None => transaction.to().is_some(),
        };
        if !here || !meant || data.is_empty() || data.len() > MAX_DATA {
            return None;
        }
        if transaction.recover_signer().ok()? != self.from {
            return None;
        }
        Some((keccak256(transaction.encoded_2718()), data.clone()))
    }
}

/// How far the chain was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reader {
    last: Option<(u64, B256)>,
}

/// Why blocks could not be read.
#[derive(Debug, thiserror::Error)]
#[error("reading blocks: {host} {reason}")]
pub struct ReadError {
    host: String,
    reason: String,
}

impl Reader {
    /// Reads the blocks since the last look up to `head`, and gives what an administrator sent. The first look goes back
    /// as far as a command may be old.
    ///
    /// # Errors
    /// [`ReadError`]; the next look begins at the same place.
    pub async fn look(
        &mut self,
        node: &Endpoint,
        head: u64,
        filter: &Filter,
        not_before_s: u64,
    ) -> Result<Vec<Sent>, ReadError> {
        let first = head.saturating_sub(FIRST_LOOK);
        let mut from = match self.last {
            None => first,
            Some((number, hash)) => {
                let block = read(node, number, false).await?;
                if block.is_some_and(|block| block.hash == hash) {
                    number + 1
                } else {
                    number.saturating_sub(STEP_BACK)
                }
            }
        };
        // After a long sleep, what was missed is too old anyway.
        from = from.max(first);
        let begin = from;
        let mut sent = Vec::new();
        let to = head.min(from.saturating_add(AT_ONCE - 1));
        while from <= to {
            let block = match read(node, from, true).await {
                Ok(Some(block)) => block,
                Ok(None) => break,
                // What was read up to there counts: a node that fails now and then is read to the end, too.
                Err(_) if from > begin => break,
                Err(e) => return Err(e),
            };
            if block.timestamp.to::<u64>() >= not_before_s {
                for transaction in block.transactions {
                    if let Some((tx_hash, data)) = filter.admits_one(transaction) {
                        sent.push(Sent {
                            tx_hash,
                            block: from,
                            data,
                        });
                    }
                }
            }
            self.last = Some((from, block.hash));
            from += 1;
        }
        Ok(sent)
    }

    /// Whether the last look reached this head.
    #[must_use]
    pub fn is_at(&self, head: u64) -> bool {
        self.last.is_some_and(|(number, _)| number >= head)
    }
}

async fn read(node: &Endpoint, number: u64, whole: bool) -> Result<Option<Block>, ReadError> {
    let number = BlockNumberOrTag::Number(number);
    node.provider()
        .raw_request("eth_getBlockByNumber".into(), (number, whole))
        .await
        .map_err(|e| ReadError {
            host: node.host().to_owned(),
            reason: describe(&e),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::U256;
    use crate::chain::tx::{Call, Fees, Wallet, sign};
    use crate::crypto::keys::PrivateKey;
    use alloy::eips::Decodable2718 as _;

    fn transaction(wallet: &Wallet, chain_id: u64, to: Option<Address>, data: &[u8]) -> TxEnvelope {
        let call = Call {
            to,
            value: U256::ZERO,
            data: data.to_vec().into(),
        };
        let fees = Fees::Dynamic { max: 1, tip: 1 };
        let signed = sign(wallet, chain_id, &call, 0, 100_000, fees).unwrap();
        TxEnvelope::decode_2718(&mut signed.raw.as_ref()).unwrap()
    }

    #[test]
    fn only_the_administrators_own_signature_for_this_chain_and_place_counts() {
        let admin = Wallet::new(&PrivateKey::generate().unwrap());
        let other = Wallet::new(&PrivateKey::generate().unwrap());
        let (here, there) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let filter = Filter {
            from: admin.address(),
            to: Some(here),
            chain_id: 7,
        };
        let good = transaction(&admin, 7, Some(here), b"data");
        let (hash, data) = filter.admits(&good).unwrap();
        assert_eq!((hash, data.as_ref()), (*good.tx_hash(), b"data".as_slice()));
        for (bad, why) in [
            (transaction(&other, 7, Some(here), b"data"), "another signs"),
            (
                transaction(&admin, 8, Some(here), b"data"),
                "of another chain",
            ),
            (transaction(&admin, 7, Some(there), b"data"), "to elsewhere"),
            (transaction(&admin, 7, None, b"data"), "makes a contract"),
            (transaction(&admin, 7, Some(here), b""), "says nothing"),
            (
                transaction(&admin, 7, Some(here), &[0; MAX_DATA + 1]),
                "says too much",
            ),
        ] {
            assert_eq!(filter.admits(&bad), None, "{why}");
        }
        let anywhere = Filter { to: None, ..filter };
        assert!(
            anywhere
                .admits(&transaction(&admin, 7, Some(there), b"data"))
                .is_some()
        );
        assert_eq!(
            anywhere.admits(&transaction(&admin, 7, None, b"data")),
            None
        );
    }
}
