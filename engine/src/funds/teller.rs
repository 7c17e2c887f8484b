//! Does what was ordered: step by step, each exactly once, across crashes of this process at any moment. One order at a
//! time on a host, whichever process does it. What to do is [`super::plan`]'s.

pub use super::error::FundsError;
use super::look;
use super::plan::least_out;
use super::step::{Deed, Outcome, Step};
use super::undone::Before;
use crate::chain::bindings::{IERC20, IUniswapV2Router02};
use crate::chain::tx::Call;
use crate::chain::{Chain, ChainError, U256};
use crate::config::Config;
use crate::outbox::{Order, OrderState, Outbox, StepRow, StepState};
use crate::sending::{SendError, Sender, Sending};
use crate::wallets::{Book, BookError, Party};
use crate::{failpoint, log, shared};
use alloy::providers::Provider;
use alloy::rpc::types::{BlockNumberOrTag, TransactionReceipt};
use alloy::sol_types::{SolCall, SolEvent};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Attempts at a step of the funds manager before it is given up.
const MAX_ATTEMPTS: u32 = 5;
/// Seconds, by the chain's clock, for which a signed swap can be mined.
const SWAP_WITHIN_S: u64 = 600;
/// A pair writes its two price counters once per block, perhaps for the first time: an estimate in a block in which
/// somebody else has traded does not contain that, and the swap would run out of gas in the next.
const SWAP_SPARE_GAS: u64 = 60_000;
/// Milliseconds after which steps that a person ordered and that were never begun are not begun any more.
const STALE_AFTER_MS: i64 = 3_600_000;
/// After so long, waiting for another program is said.
const LONG: Duration = Duration::from_secs(2);
/// Transactions of orders belong to no job.
const NO_JOB: i64 = 0;

/// Kinds of orders.
pub mod kind {
    /// The daily round.
    pub const ROUND: &str = "round";
    /// Gas for the server.
    pub const GAS: &str = "gas";
    /// What a person ordered.
    pub const HAND: &str = "hand";
}

/// Everything that is needed to pay.
#[derive(Debug)]
pub struct Teller {
    /// The configuration.
    pub config: Config,
    /// The chain.
    pub chain: Chain,
    /// Where orders and signed transactions are kept.
    pub outbox: Arc<Outbox>,
    /// True once the program is to end.
    pub stop: watch::Receiver<bool>,
}

/// Only one process at a time does what was ordered.
#[derive(Debug)]
pub struct Counter {
    _file: File,
}

impl Teller {
    /// Waits until nobody else of this host pays.
    ///
    /// # Errors
    /// [`FundsError::Lock`].
    pub async fn counter(&self) -> Result<Counter, FundsError> {
        let path = self.lock_path();
        let fail = |source| FundsError::Lock {
            path: path.clone(),
            source,
        };
        let file = shared::open(&path).map_err(fail)?;
        let mut stop = self.stop.clone();
        tokio::select! {
            // A lock that is free is taken, also when the program is to end.
            biased;
            locked = shared::lock(&file) => locked.map_err(fail)?,
            Ok(_) = stop.wait_for(|stop| *stop) => return Err(SendError::Stopped.into()),
        }
        shared::sign(&file);
        Ok(Counter { _file: file })
    }

    /// The same for a command that somebody watches: `tell` hears who is waited for, and that has an end.
    ///
    /// # Errors
    /// [`FundsError::Busy`], [`FundsError::Lock`].
    pub async fn counter_within(
        &self,
        limit: Duration,
        tell: impl FnOnce(&str),
    ) -> Result<Counter, FundsError> {
        let who = || {
            let signed = shared::signed_by(&self.lock_path());
            signed.unwrap_or_else(|| "a program that did not say its name".into())
        };
        let begun = Instant::now();
        let soon = LONG.min(limit);
        if let Ok(counter) = tokio::time::timeout(soon, self.counter()).await {
            return counter;
        }
        tell(&who());
        let left = limit.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, self.counter()).await {
            Ok(counter) => counter,
            Err(_) => Err(FundsError::Busy {
                who: who(),
                seconds: limit.as_secs(),
            }),
        }
    }

    fn lock_path(&self) -> PathBuf {
        self.config.layout.state().join("funds.lock")
    }

    /// Stores an order before anything of it is done.
    ///
    /// # Errors
    /// [`FundsError::Outbox`], [`FundsError::Step`].
    pub fn order(&self, kind: &str, stage: &str, steps: &[Step]) -> Result<i64, FundsError> {
        let bodies = bodies(steps)?;
        Ok(self
            .outbox
            .open_order(self.chain.chain_id(), kind, stage, &bodies)?)
    }

    /// Does the steps of an order that are left, in order. The order stays open; what ends it is the caller's.
    ///
    /// # Errors
    /// [`FundsError`]. For what a person ordered, [`FundsError::Failed`] gives up the rest of it.
    pub async fn carry_out(&self, _counter: &Counter, order: &Order) -> Result<(), FundsError> {
        for row in self.outbox.steps_of(order.id)? {
            if row.state != StepState::Planned {
                continue;
            }
            failpoint::reach("funds", &format!("before {}.{}", order.id, row.number));
            let step = parse(&row)?;
            match self.perform(order, &row, &step).await {
                Ok(outcome) => {
                    let text = serde_json::to_string(&outcome).map_err(|e| unreadable(&row, &e))?;
                    self.outbox.finish_order_step(order.id, row.number, &text)?;
                    failpoint::reach("funds", &format!("after {}.{}", order.id, row.number));
                    self.put_on_record(&row, &step, &outcome).await;
                }
                Err(e) => self.failed(order, &row, e)?,
            }
        }
        Ok(())
    }

    /// Keeps what went wrong with a step. An error that may be over soon, or after which the transaction may still be mined,
    /// leaves the step as it is.
    pub(super) fn failed(
        &self,
        order: &Order,
        row: &StepRow,
        error: FundsError,
    ) -> Result<(), FundsError> {
        let final_ones = matches!(
            error,
            FundsError::Sending(
                SendError::Reverted { .. }
                    | SendError::Chain(ChainError::Refused { .. } | ChainError::Unexpected { .. })
                    | SendError::Poor { .. }
            ) | FundsError::Chain(ChainError::Refused { .. })
                | FundsError::Book(_)
                | FundsError::Useless(_)
        );
        if !final_ones || self.outbox.is_live(NO_JOB, &purpose(row))? {
            return Err(error);
        }
        let reason = error.to_string();
        if order.kind != kind::ROUND {
            self.outbox.give_up_step(order.id, row.number, &reason)?;
            self.outbox
                .end_order(order.id, OrderState::Abandoned, Some(&reason))?;
            let steps = self.outbox.steps_of(order.id)?;
            return Err(FundsError::Failed {
                number: row.number,
                of: steps.len(),
                done: steps
                    .iter()
                    .filter(|step| step.state == StepState::Done)
                    .count(),
                reason,
            });
        }
        self.outbox.fail_attempt(order.id, row.number, &reason)?;
        if row.attempt + 1 < MAX_ATTEMPTS {
            return Err(error);
        }
        // One who cannot be paid must not keep the others waiting; the money stays and is in the next round.
        self.outbox.give_up_step(order.id, row.number, &reason)?;
        log::error(
            "a payment is given up; what it was for is in the next round",
            &[
                ("order", &order.id),
                ("step", &row.number),
                ("reason", &reason),
            ],
        );
        Ok(())
    }

    async fn perform(
        &self,
        order: &Order,
        row: &StepRow,
        step: &Step,
    ) -> Result<Outcome, FundsError> {
        let purpose = purpose(row);
        let sender = self.sender(step)?;
        let sending = self.sending(&sender, &purpose);
        let mut sent = self.outbox.journaled(NO_JOB, &purpose)?;
        if sent.is_empty() {
            let stale = order.kind == kind::HAND
                && crate::outbox::now_ms().saturating_sub(order.created_ms) > STALE_AFTER_MS;
            if stale {
                return Err(FundsError::Useless(
                    "it was interrupted too long ago to be begun now".into(),
                ));
            }
            if row.attempt > 0 {
                match self.before(row, step.from.address).await? {
                    Before::Nothing => {}
                    Before::Happened(receipt) => return self.outcome(step, &receipt).await,
                    Before::Open => {
                        return Err(FundsError::Unsettled {
                            order: order.id,
                            number: row.number,
                        });
                    }
                }
            }
            let call = self.call(step).await?;
            let spare = match step.deed {
                Deed::Swap { .. } => SWAP_SPARE_GAS,
                _ => 0,
            };
            sent = vec![sending.sign_with_spare(call, spare).await?];
        }
        match sending.follow(sent).await? {
            Some(receipt) => self.outcome(step, &receipt).await,
            None => Err(FundsError::Sending(SendError::Chain(
                ChainError::Unexpected {
                    what: "following a transaction",
                    detail: "its nonce went to one that this host did not sign; nothing happened"
                        .into(),
                },
            ))),
        }
    }

    /// To send for one purpose from an account.
    pub(super) fn sending<'a>(&'a self, sender: &'a Sender, purpose: &'a str) -> Sending<'a> {
        Sending {
            chain: &self.chain,
            outbox: &self.outbox,
            sender,
            stop: &self.stop,
            replace_after_s: self.config.host.engine.replace_after_s,
            job: NO_JOB,
            purpose,
            max_fee_gwei: self.config.host.fund_manager.max_fee_gwei,
        }
    }

    /// The key of a step's account, if it is still the one that was meant.
    fn sender(&self, step: &Step) -> Result<Sender, FundsError> {
        let book = Book::load(&self.config.layout)?;
        let party: Party = step
            .from
            .name
            .parse()
            .unwrap_or(Party::Address(step.from.address));
        let wallet = book.wallet(&self.config, &party)?;
        if wallet.address() != step.from.address {
            return Err(BookError::OtherKey {
                name: step.from.name.clone(),
                found: wallet.address(),
                expected: step.from.address,
            }
            .into());
        }
        Ok(Sender::new(wallet, self.config.layout.state()))
    }

    /// What is to be signed, with the price of this moment for a swap.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn call(&self, step: &Step) -> Result<Call, ChainError> {
        let Deed::Swap {
            token,
            amount,
            router,
            slippage_bps,
        } = &step.deed
        else {
            return step.call().ok_or_else(|| ChainError::Unexpected {
                what: "reading an order",
                detail: "the chain's own coin is no contract".into(),
            });
        };
        let (router, amount) = (*router, *amount);
        let token = token.address.unwrap_or_default();
        let wrapped = look::wrapped(&self.chain, router).await?;
        let quoted = look::quote(&self.chain, router, amount, token, wrapped).await?;
        let least = least_out(quoted, *slippage_bps);
        if least.is_zero() {
            return Err(ChainError::Refused {
                what: "asking Uniswap's router for a price",
                host: router.to_string(),
                message: "it would give nothing".into(),
                code: 0,
            });
        }
        let deadline = self.chain_time().await?.saturating_add(SWAP_WITHIN_S);
        failpoint::reach("funds", "quoted");
        Ok(Call::contract(
            router,
            IUniswapV2Router02::swapExactTokensForETHCall {
                amountIn: amount,
                amountOutMin: least,
                path: vec![token, wrapped],
                to: step.from.address,
                deadline: U256::from(deadline),
            }
            .abi_encode(),
        ))
    }

    async fn chain_time(&self) -> Result<u64, ChainError> {
        let block = self
            .chain
            .call("reading the newest block", |node| async move {
                node.get_block_by_number(BlockNumberOrTag::Latest).await
            })
            .await?;
        block
            .map(|block| block.header.timestamp)
            .ok_or_else(|| ChainError::Unexpected {
                what: "reading the newest block",
                detail: "there is none".into(),
            })
    }

    /// What the chain says about it.
    async fn outcome(
        &self,
        step: &Step,
        receipt: &TransactionReceipt,
    ) -> Result<Outcome, FundsError> {
        let moved = |token, to| {
            let logs = receipt.logs().iter();
            logs.filter(|log| Some(log.inner.address) == token)
                .filter_map(|log| IERC20::Transfer::decode_log(&log.inner).ok())
                .filter(|event| Some(event.to) == to)
                .try_fold(U256::ZERO, |sum, event| sum.checked_add(event.value))
        };
        let mut received = None;
        let amount = match &step.deed {
            Deed::Transfer { token, amount, to } => match token.address {
                None => Some(*amount),
                contract => moved(contract, Some(*to)),
            },
            Deed::Withdraw { token, to, .. } => moved(token.address, Some(*to)),
            Deed::Swap { amount, router, .. } => {
                let wrapped = look::wrapped(&self.chain, *router).await?;
                received = moved(Some(wrapped), Some(*router));
                Some(*amount)
            }
            Deed::Approve { .. } | Deed::Invoke { .. } => None,
        };
        let silent = matches!(&step.deed, Deed::Transfer { amount, .. } if !amount.is_zero())
            && amount.is_none_or(|amount| amount.is_zero());
        if silent {
            // Some tokens say no instead of reverting.
            return Err(FundsError::Useless(format!(
                "{} is in a block, and the token moved nothing",
                receipt.transaction_hash
            )));
        }
        let gas = U256::from(receipt.gas_used);
        Ok(Outcome {
            tx: receipt.transaction_hash,
            block: receipt.block_number.unwrap_or(0),
            fee: gas.saturating_mul(U256::from(receipt.effective_gas_price)),
            amount,
            received,
        })
    }
}

/// What a step's transactions are journaled under: another one only after the one before is known to be without effect.
#[must_use]
pub fn purpose(row: &StepRow) -> String {
    format!("funds {}.{}.{}", row.order, row.number, row.attempt)
}

/// A stored step.
///
/// # Errors
/// [`FundsError::Step`].
pub fn parse(row: &StepRow) -> Result<Step, FundsError> {
    serde_json::from_str(&row.body).map_err(|e| unreadable(row, &e))
}

fn unreadable(row: &StepRow, reason: &dyn std::fmt::Display) -> FundsError {
    FundsError::Step {
        order: row.order,
        number: row.number,
        reason: reason.to_string(),
    }
}

/// Steps as they are stored.
///
/// # Errors
/// [`FundsError::Step`].
pub fn bodies(steps: &[Step]) -> Result<Vec<String>, FundsError> {
    let body = |step: &Step| {
        serde_json::to_string(step).map_err(|e| FundsError::Step {
            order: 0,
            number: 0,
            reason: e.to_string(),
        })
    };
    steps.iter().map(body).collect()
}
