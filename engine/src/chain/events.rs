//! Events of the subscription contract, decoded and typed; and reverts put into words.

use super::bindings::AccessCredentialNFT::AccessCredentialNFTErrors;
use super::bindings::BlockhostSubscriptions::{
    BlockhostSubscriptionsErrors, BlockhostSubscriptionsEvents, SubscriptionCancelled,
    SubscriptionCreated, SubscriptionExtended,
};
use super::rpc::LONGEST_QUOTE;
use super::{Address, B256, Bytes, U256};
use alloy::rpc::json_rpc::ErrorPayload;
use alloy::rpc::types::Log;
use alloy::sol_types::{SolEvent, SolEventInterface, SolInterface};
use serde::{Deserialize, Serialize};

/// Where in the chain an event stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Height of the block.
    pub block_number: u64,
    /// Hash of the block: the same height holds something else after a reorganisation.
    pub block_hash: B256,
    /// Hash of the transaction.
    pub tx_hash: B256,
    /// Index of the log in the block.
    pub log_index: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub enum Event {
    /// Somebody bought a machine.
    SubscriptionCreated {
        /// Which subscription.
        subscription_id: u64,
        /// Of which plan.
        plan_id: String,
        /// Who bought it.
        subscriber: Address,
        /// Until when it is paid, seconds since 1970.
        expires_at: i64,
        /// What was paid, in base units of the token.
        paid_amount: String,
        /// With which token.
        payment_token: Address,
        /// The buyer's signature, encrypted to the server.
        user_encrypted: Bytes,
    },
    /// Somebody paid for more days.
    SubscriptionExtended {
        /// Which subscription.
        subscription_id: u64,
        /// Who paid.
        extended_by: Address,
        /// Until when it is paid now, seconds since 1970.
        new_expires_at: i64,
        /// What was paid, in base units of the token.
        paid_amount: String,
        /// With which token.
        payment_token: Address,
    },
    /// The owner of the contract ended it.
    SubscriptionCancelled {
        /// Which subscription.
        subscription_id: u64,
        /// Whose it was.
        subscriber: Address,
    },
    /// Plans, payment methods, withdrawals: recorded, nothing more.
    Other {
        /// Name of the event.
        name: String,
        /// Its arguments in words.
        detail: String,
    },
}

impl Event {
    /// The name in the ABI.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::SubscriptionCreated { .. } => "SubscriptionCreated",
            Self::SubscriptionExtended { .. } => "SubscriptionExtended",
            Self::SubscriptionCancelled { .. } => "SubscriptionCancelled",
            Self::Other { name, .. } => name,
        }
    }

    /// The subscription it is about; 0 for events about none.
    #[must_use]
    pub fn subscription_id(&self) -> u64 {
        match self {
            Self::SubscriptionCreated {
                subscription_id, ..
            }
            | Self::SubscriptionExtended {
                subscription_id, ..
            }
            | Self::SubscriptionCancelled {
                subscription_id, ..
            } => *subscription_id,
            Self::Other { .. } => 0,
        }
    }
}

/// An event and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Where it stands.
    pub position: Position,
    /// What happened.
    pub event: Event,
}

/// Why a log could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The node sent a log without its place: it is pending, not mined.
    #[error("the node sent a log that is not in a block")]
    NotMined,
    /// A number beyond what anything here can hold.
    #[error("{what} is {value}, which is beyond all bounds")]
    TooLarge {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: U256,
    },
}

/// First topics of all events that this ABI knows.
pub fn topics() -> impl Iterator<Item = B256> {
    let selectors = BlockhostSubscriptionsEvents::SELECTORS.iter();
    selectors.map(|selector| B256::from(*selector))
}

/// Whether the second topic of such an event is the id of a subscription.
#[must_use]
pub fn is_about_a_subscription(topic: B256) -> bool {
    [
        SubscriptionCreated::SIGNATURE_HASH,
        SubscriptionExtended::SIGNATURE_HASH,
        SubscriptionCancelled::SIGNATURE_HASH,
    ]
    .contains(&topic)
}

/// Decodes one log of the subscription contract. `Ok(None)` for an event that this ABI does not know.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(log: &Log) -> Result<Option<Located>, DecodeError> {
    let (Some(block_number), Some(block_hash), Some(tx_hash), Some(log_index)) = (
        log.block_number,
        log.block_hash,
        log.transaction_hash,
        log.log_index,
    ) else {
        return Err(DecodeError::NotMined);
    };
    let Ok(decoded) = BlockhostSubscriptionsEvents::decode_log(&log.inner) else {
        return Ok(None);
    };
    let event = typed(decoded.data)?;
    Ok(Some(Located {
        position: Position {
            block_number,
            block_hash,
            tx_hash,
            log_index,
        },
        event,
    }))
}

fn typed(event: BlockhostSubscriptionsEvents) -> Result<Event, DecodeError> {
    use BlockhostSubscriptionsEvents as E;
    Ok(match event {
        E::SubscriptionCreated(SubscriptionCreated {
            subscriptionId,
            planId,
            subscriber,
            expiresAt,
            paidAmount,
            paymentToken,
            userEncrypted,
        }) => Event::SubscriptionCreated {
            subscription_id: small("subscriptionId", subscriptionId)?,
            plan_id: planId.to_string(),
            subscriber,
            expires_at: time(expiresAt),
            paid_amount: paidAmount.to_string(),
            payment_token: paymentToken,
            user_encrypted: userEncrypted,
        },
        E::SubscriptionExtended(SubscriptionExtended {
            subscriptionId,
            extendedBy,
            newExpiresAt,
            paidAmount,
            paymentToken,
            ..
        }) => Event::SubscriptionExtended {
            subscription_id: small("subscriptionId", subscriptionId)?,
            extended_by: extendedBy,
            new_expires_at: time(newExpiresAt),
            paid_amount: paidAmount.to_string(),
            payment_token: paymentToken,
        },
        E::SubscriptionCancelled(SubscriptionCancelled {
            subscriptionId,
            subscriber,
            ..
        }) => Event::SubscriptionCancelled {
            subscription_id: small("subscriptionId", subscriptionId)?,
            subscriber,
        },
        E::PlanCreated(e) => other("PlanCreated", &e),
        E::PlanUpdated(e) => other("PlanUpdated", &e),
        E::PrimaryStablecoinSet(e) => other("PrimaryStablecoinSet", &e),
        E::PaymentMethodAdded(e) => other("PaymentMethodAdded", &e),
        E::PaymentMethodUpdated(e) => other("PaymentMethodUpdated", &e),
        E::FundsWithdrawn(e) => other("FundsWithdrawn", &e),
        E::SlippageUpdated(e) => other("SlippageUpdated", &e),
        E::MinLiquidityUpdated(e) => other("MinLiquidityUpdated", &e),
        E::OwnershipTransferred(e) => other("OwnershipTransferred", &e),
    })
}

fn other(name: &str, detail: &dyn std::fmt::Debug) -> Event {
    Event::Other {
        name: name.to_owned(),
        detail: format!("{detail:?}").chars().take(2000).collect(),
    }
}

fn small(what: &'static str, value: U256) -> Result<u64, DecodeError> {
    u64::try_from(value).map_err(|_| DecodeError::TooLarge { what, value })
}

/// Seconds since 1970, cut to what calendars can hold: the year 9999. Whoever pays for more is served until then; an
/// error instead would let one buyer of a cheap plan stop the processing of everybody's events.
fn time(value: U256) -> i64 {
    const LAST: i64 = 253_402_207_200;
    i64::try_from(value).map_or(LAST, |t| t.min(LAST))
}

/// What a node's error means; reverts with a custom error of ours are named with their arguments.
#[must_use]
pub fn explain_revert(payload: &ErrorPayload) -> String {
    let said = || payload.message.chars().take(LONGEST_QUOTE).collect();
    let Some(data) = payload.as_revert_data() else {
        return said();
    };
    if let Ok(error) = BlockhostSubscriptionsErrors::abi_decode(&data) {
        return format!("reverted with {error:?}");
    }
    if let Ok(error) = AccessCredentialNFTErrors::abi_decode(&data) {
        return format!("reverted with {error:?}");
    }
    said()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::sol_types::SolEvent;
    use proptest::prelude::*;

    fn log(data: alloy::primitives::LogData) -> Log {
        Log {
            inner: alloy::primitives::Log {
                address: Address::ZERO,
                data,
            },
            block_hash: Some(B256::repeat_byte(1)),
            block_number: Some(5),
            transaction_hash: Some(B256::repeat_byte(2)),
            log_index: Some(3),
            ..Log::default()
        }
    }

    fn created(id: U256, expires: U256) -> alloy::primitives::LogData {
        SubscriptionCreated {
            subscriptionId: id,
            planId: U256::from(1),
            subscriber: Address::repeat_byte(9),
            expiresAt: expires,
            paidAmount: U256::MAX,
            paymentToken: Address::ZERO,
            userEncrypted: Bytes::from_static(b"\x04"),
        }
        .encode_log_data()
    }

    #[test]
    fn an_id_beyond_all_bounds_is_an_error_and_a_time_is_the_last_one() {
        assert!(matches!(
            decode(&log(created(U256::MAX, U256::from(1)))),
            Err(DecodeError::TooLarge {
                what: "subscriptionId",
                ..
            })
        ));
        for time in [U256::MAX, U256::from(253_402_207_201_u64)] {
            assert!(matches!(
                decode(&log(created(U256::from(1), time)))
                    .unwrap()
                    .unwrap()
                    .event,
                Event::SubscriptionCreated {
                    expires_at: 253_402_207_200,
                    ..
                }
            ));
        }
    }

    #[test]
    fn a_log_outside_a_block_is_refused() {
        let mut pending = log(created(U256::from(1), U256::from(1)));
        pending.block_hash = None;
        assert!(matches!(decode(&pending), Err(DecodeError::NotMined)));
    }

    #[test]
    fn a_purchase_keeps_every_field() {
        let located = decode(&log(created(U256::from(42), U256::from(1000))))
            .unwrap()
            .unwrap();
        assert_eq!(
            (located.event.name(), located.event.subscription_id()),
            ("SubscriptionCreated", 42)
        );
        assert_eq!(located.position.log_index, 3);
        let text = serde_json::to_string(&located.event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), located.event);
    }

    proptest! {
        #[test]
        fn logs_of_any_bytes_never_panic(topics in prop::collection::vec(any::<[u8; 32]>(), 0..5), data: Vec<u8>) {
            let topics = topics.into_iter().map(B256::from).collect();
            let _ = decode(&log(alloy::primitives::LogData::new_unchecked(topics, data.into())));
        }
    }
}
