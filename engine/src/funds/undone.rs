//! Money that had moved and has not any more: a reorganisation took its transaction back. The step is done again with the
//! same signed bytes, or, where another transaction has its nonce now, as another attempt; either way it is on record.

use super::Manager;
use super::teller::{FundsError, Teller, parse, purpose};
use crate::agent::{self, Kind};
use crate::chain::nonce::{self, Holder};
use crate::chain::rpc::{Endpoint, describe};
use crate::chain::tx;
use crate::chain::{Address, B256, ChainError};
use crate::log;
use crate::outbox::{StepKey, StepRow};
use crate::sending::SendError;
use crate::sending::young::{self, TakenBack};
use alloy::providers::Provider;
use alloy::rpc::types::TransactionReceipt;
use serde_json::json;
use std::collections::BTreeMap;

impl Manager {
    /// Looks for movements that the chain has forgotten, and lets them happen again.
    pub(super) async fn look_for_undone(&self) -> Result<(), FundsError> {
        let Teller { chain, outbox, .. } = &self.teller;
        for gone in young::look(chain, outbox, step_of).await? {
            let hash = gone.row.signed.hash;
            let what = if gone.reverted {
                "a transaction that was done is undone after a reorganisation"
            } else {
                "a transaction that was done was taken back by a reorganisation; it is made again"
            };
            log::error(
                what,
                &[
                    ("tx", &hash),
                    ("block", &gone.block),
                    ("purpose", &gone.row.purpose),
                ],
            );
            if let Err(e) = self.note_undone(&gone).await {
                log::warn(
                    "that money did not move is not in the ledger",
                    &[("tx", &hash), ("error", &e)],
                );
            }
            match step_of(&gone.row.purpose).filter(|_| gone.reopened) {
                // An order does its steps one after the other; it is open again.
                Some(step) if gone.reverted => self.fail_undone(step, &gone)?,
                Some(_) => {}
                None if gone.reverted => {}
                // Nobody waits for it.
                None => {
                    if let Err(e) = tx::broadcast(chain, &gone.row.signed.raw).await {
                        log::warn(
                            "sending a transaction again that was taken back",
                            &[("tx", &hash), ("error", &e)],
                        );
                    }
                }
            }
        }
        Ok(())
    }

    /// In a block without effect: as if it had been so from the start.
    fn fail_undone(&self, key: StepKey, gone: &TakenBack) -> Result<(), FundsError> {
        let outbox = &self.teller.outbox;
        let Some(order) = outbox.order(key.order)? else {
            return Ok(());
        };
        let steps = outbox.steps_of(key.order)?;
        let Some(row) = steps.iter().find(|row| row.number == key.number) else {
            return Ok(());
        };
        let error = SendError::Reverted {
            purpose: gone.row.purpose.clone(),
            hash: gone.row.signed.hash,
        };
        // What comes of it is in the outbox; that it failed was just logged.
        let _ = self.teller.failed(&order, row, error.into());
        Ok(())
    }

    async fn note_undone(&self, gone: &TakenBack) -> Result<(), FundsError> {
        let mut data = json!({
            "tx": gone.row.signed.hash.to_string(),
            "block": gone.block,
            "chain_id": self.teller.chain.chain_id(),
            "again": !gone.reverted,
        });
        let mut resource = format!("transaction:{}", gone.row.signed.hash);
        if let Some(key) = step_of(&gone.row.purpose) {
            data["order"] = key.order.into();
            data["step"] = key.number.into();
            let steps = self.teller.outbox.steps_of(key.order)?;
            if let Some(row) = steps.iter().find(|row| row.number == key.number) {
                resource = format!("wallet:{}", parse(row)?.from.name);
            }
        }
        let kind = Kind {
            category: "chain",
            operation: None,
        };
        let layout = &self.teller.config.layout;
        agent::record_in(layout, kind, "funds-taken-back", &resource, data).await?;
        Ok(())
    }
}

/// What became of the earlier attempts at a step.
pub(super) enum Before {
    /// None had its effect, and none can have it any more, whatever history wins.
    Nothing,
    /// They are not deep enough in the chain to say that.
    Open,
    /// One of them had it.
    Happened(Box<TransactionReceipt>),
}

impl Teller {
    /// Looks at everything that was signed for earlier attempts at a step: their nonces have to be used up as deep in the
    /// chain as an event has to be to count, and by others than by what would have had the effect.
    ///
    /// # Errors
    /// [`FundsError`], also where the node cannot tell.
    pub(super) async fn before(&self, row: &StepRow, from: Address) -> Result<Before, FundsError> {
        let mut signed: BTreeMap<u64, Vec<B256>> = BTreeMap::new();
        for attempt in 0..row.attempt {
            let purpose = purpose(&StepRow {
                attempt,
                ..row.clone()
            });
            for row in self.outbox.signed_for(self.chain.chain_id(), &purpose)? {
                let with_nonce = signed.entry(row.signed.nonce).or_default();
                with_nonce.push(row.signed.hash);
            }
        }
        let Some(highest) = signed.keys().max().copied() else {
            return Ok(Before::Nothing);
        };
        let (node, head) = self.chain.select().await?;
        let deep = head.saturating_sub(self.config.confirmations());
        let used = node.provider().get_transaction_count(from).number(deep);
        let used = used.await.map_err(|e| ChainError::Unexpected {
            what: "reading the account's nonce",
            detail: format!("{} {}", node.host(), describe(&e)),
        })?;
        if used <= highest {
            return Ok(Before::Open);
        }
        for (nonce, hashes) in signed {
            if let Some(receipt) = self.effect(node, from, nonce, &hashes).await? {
                return Ok(Before::Happened(Box::new(receipt)));
            }
        }
        Ok(Before::Nothing)
    }

    /// The receipt of the one of these that is in a block and was not undone there. All have this nonce, which is used.
    async fn effect(
        &self,
        node: &Endpoint,
        from: Address,
        nonce: u64,
        hashes: &[B256],
    ) -> Result<Option<TransactionReceipt>, FundsError> {
        for hash in hashes {
            let receipt = young::receipt(node, *hash).await.map_err(|e| match e {
                // Nothing was tried: it is asked again.
                SendError::Chain(e) => FundsError::Chain(e),
                e => e.into(),
            })?;
            if let Some(receipt) = receipt {
                return Ok(receipt.status().then_some(receipt));
            }
        }
        match nonce::holder(node, from, nonce, None).await? {
            Holder::Transaction { hash, block } if hashes.contains(&hash) => {
                Err(SendError::no_receipt(node, hash, block).into())
            }
            Holder::Transaction { .. } => Ok(None),
            // It was used a moment ago: whoever answers now is behind, or the history moves.
            Holder::Nobody => Err(ChainError::Unexpected {
                what: "finding out which transaction used a nonce",
                detail: format!(
                    "{} counts nonce {nonce} of {from} as used, and then as not used; it is asked again",
                    node.host()
                ),
            }
            .into()),
        }
    }
}

/// The step of an order that a transaction is for, read from its purpose.
pub(super) fn step_of(purpose: &str) -> Option<StepKey> {
    let mut parts = purpose.strip_prefix("funds ")?.split('.');
    let key = StepKey {
        order: parts.next()?.parse().ok()?,
        number: parts.next()?.parse().ok()?,
        attempt: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_is_read_back_as_the_step_it_names_and_nothing_else_is_one() {
        let row = StepRow {
            order: 12,
            number: 3,
            body: String::new(),
            state: crate::outbox::StepState::Done,
            attempt: 2,
            last_error: None,
            outcome: None,
            recorded: true,
        };
        let key = StepKey {
            order: 12,
            number: 3,
            attempt: 2,
        };
        assert_eq!(step_of(&purpose(&row)), Some(key));
        for other in [
            "anchor",
            "mint",
            "funds 1.2",
            "funds 1.2.3.4",
            "funds a.b.c",
            "deploying 0abc",
        ] {
            assert_eq!(step_of(other), None, "{other}");
        }
    }
}
