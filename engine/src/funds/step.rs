//! One transaction of an order: what it does, as it is stored, shown and put on the chain. Deciding is
//! [`super::plan`]'s, doing is [`super::teller`]'s.

use crate::chain::bindings::{BlockhostSubscriptions, IERC20};
use crate::chain::tx::Call;
use crate::chain::{Address, B256, Bytes, U256};
use crate::wallets::{Book, Token};
use alloy::sol_types::SolCall;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// An account of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name in the address book.
    pub name: String,
    /// Its address, when the step was planned; another one later stops the step.
    pub address: Address,
}

/// What a transaction does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Deed {
    /// Pays somebody.
    Transfer {
        /// With what.
        token: Token,
        /// How much, in base units.
        amount: U256,
        /// Whom.
        to: Address,
    },
    /// Takes all of a token out of the subscription contract.
    Withdraw {
        /// The contract.
        contract: Address,
        /// What.
        token: Token,
        /// What was there when it was planned.
        amount: U256,
        /// Who gets it.
        to: Address,
    },
    /// Lets a contract take so much.
    Approve {
        /// Of what.
        token: Token,
        /// How much, in base units.
        amount: U256,
        /// Which contract.
        spender: Address,
    },
    /// Swaps a token for the chain's own coin. The least that has to come out is decided when it is signed.
    Swap {
        /// What.
        token: Token,
        /// How much, in base units.
        amount: U256,
        /// Uniswap's router.
        router: Address,
        /// How much less than quoted is still taken, in hundredths of a percent.
        slippage_bps: u16,
    },
    /// Asks one of the host's contracts for something else.
    Invoke {
        /// Which.
        contract: Address,
        /// With what.
        data: Bytes,
    },
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Who sends it.
    pub from: Account,
    /// What it does.
    #[serde(flatten)]
    pub deed: Deed,
    /// Why, in a few words.
    pub why: String,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The transaction.
    pub tx: B256,
    /// The block it is in.
    pub block: u64,
    /// What its gas cost, in wei.
    pub fee: U256,
    /// How much moved, by the chain's own account, in base units.
    pub amount: Option<U256>,
    /// What a swap brought, in wei.
    pub received: Option<U256>,
}

impl Step {
    /// The call, for everything but a swap, which needs a quote.
    #[must_use]
    pub fn call(&self) -> Option<Call> {
        Some(match &self.deed {
            Deed::Transfer { token, amount, to } => match token.address {
                None => Call::pay(*to, *amount),
                Some(contract) => Call::contract(
                    contract,
                    IERC20::transferCall {
                        to: *to,
                        value: *amount,
                    }
                    .abi_encode(),
                ),
            },
            Deed::Withdraw {
                contract,
                token,
                to,
                ..
            } => Call::contract(
                *contract,
                BlockhostSubscriptions::withdrawFundsCall {
                    token: token.address?,
                    to: *to,
                }
                .abi_encode(),
            ),
            Deed::Approve {
                token,
                amount,
                spender,
            } => Call::contract(
                token.address?,
                IERC20::approveCall {
                    spender: *spender,
                    value: *amount,
                }
                .abi_encode(),
            ),
            Deed::Invoke { contract, data } => Call::contract(*contract, data.clone()),
            Deed::Swap { .. } => return None,
        })
    }

    /// The verb of the deed, as the ledger writes it.
    #[must_use]
    pub const fn verb(&self) -> &'static str {
        match self.deed {
            Deed::Transfer { .. } => "funds-paid",
            Deed::Withdraw { .. } => "funds-withdrawn",
            Deed::Approve { .. } => "funds-approved",
            Deed::Swap { .. } => "funds-swapped",
            Deed::Invoke { .. } => "contract-called",
        }
    }

    /// One line about it, with names where the address book has them.
    #[must_use]
    pub fn describe(&self, book: &Book) -> String {
        let name = |address: &Address| match book.name_of(*address) {
            Some(name) => name.to_string(),
            // Only in a forecast: nothing is ever paid there.
            None if address.is_zero() => "a wallet that is made first".into(),
            None => address.to_string(),
        };
        let from = &self.from.name;
        let what = match &self.deed {
            Deed::Transfer { token, amount, to } => {
                format!("{from} pays {} {token} to {}", token.show(amount), name(to))
            }
            Deed::Withdraw {
                token, amount, to, ..
            } => format!(
                "{from} withdraws all {token} of the contract ({}) to {}",
                token.show(amount),
                name(to)
            ),
            Deed::Approve {
                token,
                amount,
                spender,
            } => format!("{from} lets {spender} take {} {token}", token.show(amount)),
            Deed::Swap { token, amount, .. } => {
                format!("{from} swaps {} {token} for eth", token.show(amount))
            }
            Deed::Invoke { contract, .. } => format!("{from} calls {contract}"),
        };
        format!("{what}: {}", self.why)
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut value = json!({
            "from": self.from.name, "account": self.from.address.to_string(), "why": self.why,
            "do": match self.deed {
                Deed::Transfer { .. } => "transfer",
                Deed::Withdraw { .. } => "withdraw",
                Deed::Approve { .. } => "approve",
                Deed::Swap { .. } => "swap",
                Deed::Invoke { .. } => "invoke",
            },
        });
        let mut set = |key: &str, text: String| value[key] = text.into();
        match &self.deed {
            Deed::Transfer { token, amount, to }
            | Deed::Withdraw {
                token, amount, to, ..
            } => {
                set("token", token.to_string());
                set("amount", token.show(amount));
                set("units", amount.to_string());
                set("to", to.to_string());
            }
            Deed::Approve {
                token,
                amount,
                spender,
            } => {
                set("token", token.to_string());
                set("amount", token.show(amount));
                set("units", amount.to_string());
                set("to", spender.to_string());
            }
            Deed::Swap {
                token,
                amount,
                router,
                ..
            } => {
                set("token", token.to_string());
                set("amount", token.show(amount));
                set("units", amount.to_string());
                set("to", router.to_string());
            }
            Deed::Invoke { contract, .. } => set("to", contract.to_string()),
        }
        value
    }
}

impl Outcome {
    /// For programs and for the ledger.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut value = json!({
            "tx": self.tx.to_string(), "block": self.block, "fee_wei": self.fee.to_string(),
        });
        if let Some(amount) = &self.amount {
            value["moved"] = amount.to_string().into();
        }
        if let Some(received) = &self.received {
            value["received_wei"] = received.to_string().into();
        }
        value
    }
}
