//! Whether the ledger's head is to be anchored now, or whether something is wrong. Pure; looking and doing are
//! [`super::run`]'s. What the chain says is the truth about what was anchored; what the ledger says about it only makes
//! more careful.

use crate::config::LedgerAnchorSection;
use blockhost_ledger::merkle::Hash;
use std::fmt;

/// Records that anchoring leaves in the ledger itself: they are no reason to anchor again.
const OWN_RECORDS: u64 = 1;

/// The newest head of the ledger that the contract knows. All zero when there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OnChain {
    /// Number of records.
    pub size: u64,
    /// RFC 6962 root.
    pub root: Hash,
    /// When, in seconds since 1970, by the block.
    pub time_s: u64,
}

/// What was seen of chain and ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The contract's newest head.
    pub chain: OnChain,
    /// Records in the ledger.
    pub size: u64,
    /// The root of the ledger's first `chain.size` records, once they were read.
    pub root_then: Option<Hash>,
    /// Size of the newest head that the ledger itself has on record as anchored; 0 for none.
    pub recorded: u64,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing now.
    Wait(Waiting),
    /// The records have to be read before anything else can be said.
    Read,
    /// Anchor the head.
    Anchor,
    /// This is not the history that was anchored. Anchors nothing.
    Alarm(Alarm),
}

/// Why nothing is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing, or not enough, is new.
    NotDue,
    /// The node does not know an anchor that was confirmed: it is behind, or not telling the truth.
    NodeForgot {
        /// What it knows.
        known: u64,
        /// What was confirmed.
        recorded: u64,
    },
}

/// The ledger is not the one that was anchored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// It has fewer records.
    Shorter {
        /// Records there are.
        size: u64,
        /// Records that were anchored.
        anchored: u64,
    },
    /// The same number of records has another root.
    Rewritten {
        /// That number.
        anchored: u64,
    },
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shorter { size, anchored } => write!(
                f,
                "the ledger has {size} records, but {anchored} were anchored on the chain: its end was cut off or an old copy was put back"
            ),
            Self::Rewritten { anchored } => write!(
                f,
                "the first {anchored} records of the ledger are not those that were anchored on the chain: the history was rewritten"
            ),
        }
    }
}

/// Decides. `now_s` are seconds since 1970 by this host's clock, which is only used for how long ago the last anchor is.
#[must_use]
pub fn plan(seen: &Seen, now_s: u64, settings: &LedgerAnchorSection) -> Plan {
    let anchored = seen.chain.size;
    if anchored > seen.size {
        return Plan::Alarm(Alarm::Shorter {
            size: seen.size,
            anchored,
        });
    }
    if anchored > 0 {
        match seen.root_then {
            None => return Plan::Read,
            Some(root) if root != seen.chain.root => {
                return Plan::Alarm(Alarm::Rewritten { anchored });
            }
            Some(_) => {}
        }
    }
    if anchored < seen.recorded {
        return Plan::Wait(Waiting::NodeForgot {
            known: anchored,
            recorded: seen.recorded,
        });
    }
    let new = (seen.size - anchored).saturating_sub(if anchored > 0 { OWN_RECORDS } else { 0 });
    let waited_s = now_s.saturating_sub(seen.chain.time_s);
    let due = new >= settings.every_records
        || new > 0 && waited_s >= settings.every_hours.saturating_mul(3600);
    // The first anchor of a log is due at once: the chain's time is 0.
    if due {
        Plan::Anchor
    } else {
        Plan::Wait(Waiting::NotDue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 2_000_000_000;
    const SETTINGS: LedgerAnchorSection = LedgerAnchorSection {
        every_records: 100,
        every_hours: 24,
        max_fee_gwei: 1,
        look_every_s: 1,
    };

    fn seen(chain: (u64, u8, u64), size: u64, root_then: Option<u8>, recorded: u64) -> Seen {
        Seen {
            chain: OnChain {
                size: chain.0,
                root: [chain.1; 32],
                time_s: NOW - chain.2,
            },
            size,
            root_then: root_then.map(|byte| [byte; 32]),
            recorded,
        }
    }

    fn of(seen: &Seen) -> Plan {
        plan(seen, NOW, &SETTINGS)
    }

    #[test]
    fn what_is_due_and_what_is_wrong() {
        let first = |size| Seen {
            chain: OnChain::default(),
            ..seen((0, 0, 0), size, None, 0)
        };
        let day = 24 * 3600;
        let forgot = |known, recorded| Plan::Wait(Waiting::NodeForgot { known, recorded });
        for (seen, expected) in [
            (first(0), Plan::Wait(Waiting::NotDue)),
            (first(1), Plan::Anchor),
            (
                seen((50, 1, 0), 150, Some(1), 50),
                Plan::Wait(Waiting::NotDue),
            ),
            (seen((50, 1, 0), 151, Some(1), 50), Plan::Anchor),
            (
                seen((50, 1, day - 1), 60, Some(1), 50),
                Plan::Wait(Waiting::NotDue),
            ),
            (seen((50, 1, day), 60, Some(1), 50), Plan::Anchor),
            // Only its own record is new: an idle host does not pay every day for having paid the day before.
            (
                seen((50, 1, 9 * day), 51, Some(1), 50),
                Plan::Wait(Waiting::NotDue),
            ),
            (seen((50, 1, day), 60, None, 50), Plan::Read),
            (
                seen((50, 1, 0), 60, Some(2), 50),
                Plan::Alarm(Alarm::Rewritten { anchored: 50 }),
            ),
            (
                seen((50, 1, 0), 50, Some(2), 50),
                Plan::Alarm(Alarm::Rewritten { anchored: 50 }),
            ),
            (
                seen((50, 1, 0), 49, None, 0),
                Plan::Alarm(Alarm::Shorter {
                    size: 49,
                    anchored: 50,
                }),
            ),
            // A node that lost anchors, all of them or the newest, is no reason to pay again.
            (
                Seen {
                    recorded: 40,
                    ..first(900)
                },
                forgot(0, 40),
            ),
            (seen((30, 1, day), 900, Some(1), 40), forgot(30, 40)),
            // An anchor that is not on record here yet is as good as one that is.
            (seen((50, 1, day), 60, Some(1), 0), Plan::Anchor),
        ] {
            assert_eq!(of(&seen), expected, "{seen:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_anchored_that_the_contract_would_refuse_or_that_is_there_already(
            anchored in 0_u64..1000, size in 0_u64..1000, same in any::<bool>(), read in any::<bool>(),
            recorded in 0_u64..1000, ago in any::<u64>(), now in any::<u64>(),
        ) {
            let chain = OnChain { size: anchored, root: [1; 32], time_s: now.saturating_sub(ago) };
            let seen = Seen { chain, size, root_then: read.then_some([if same { 1 } else { 2 }; 32]), recorded };
            if plan(&seen, now, &SETTINGS) == Plan::Anchor {
                prop_assert!(size > anchored && recorded <= anchored);
                prop_assert!(anchored == 0 || read && same);
            }
        }

        #[test]
        fn whatever_the_clocks_say_a_history_that_was_changed_is_never_passed_over(
            anchored in 1_u64..1000, size in 0_u64..1000, now in any::<u64>(), time_s in any::<u64>(), recorded in any::<u64>(),
        ) {
            let chain = OnChain { size: anchored, root: [1; 32], time_s };
            let seen = Seen { chain, size, root_then: Some([2; 32]), recorded };
            prop_assert!(matches!(plan(&seen, now, &SETTINGS), Plan::Alarm(_)));
        }
    }
}
