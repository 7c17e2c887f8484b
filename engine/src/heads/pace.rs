//! How long to wait before the next look, and before the next attempt at an endpoint. Pure.

use std::time::Duration;

/// Between two looks that a node's word asked for, however often it speaks.
pub const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// Looks in a row for a block that was told of and that the nodes we ask do not show.
const MOST_CHASES: u8 = 10;
/// After the first round of endpoints that failed.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two rounds of attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Times that blocks came without a word about them, before a subscription counts as dead.
const MOST_MISSED: u32 = 3;

/// What was told so far. Only a hint to look: neither that there is a block, nor which.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// How often.
    pub times: u64,
    /// The number of the newest block, it was said.
    pub head: u64,
}

/// When to look at the chain again.
#[derive(Debug)]
pub struct Pace {
    poll: Duration,
    told: Told,
    chases: u8,
}

impl Pace {
    /// Looks at least every `poll`.
    #[must_use]
    pub fn new(poll: Duration) -> Self {
        Self {
            poll,
            told: Told::default(),
            chases: 0,
        }
    }

    /// The longest pause after a look that saw `head`, or failed, when `told` was known before it. The node that tells and
    /// the one that is asked may be two: a block that was told of and is not there yet is looked for again, some times.
    pub fn after(&mut self, told: Told, head: Option<u64>) -> Duration {
        if told.times != self.told.times {
            self.told = told;
            self.chases = 0;
        }
        let is_there = head.is_some_and(|head| head >= told.head);
        if told.times == 0 || is_there || self.chases >= MOST_CHASES {
            return self.poll;
        }
        self.chases += 1;
        self.poll.min(LEAST_PAUSE)
    }
}

/// Notices a subscription that is open and says nothing while the chain goes on.
#[derive(Debug, Default)]
pub struct Pulse {
    head: u64,
    times: u64,
    missed: u32,
}

impl Pulse {
    /// One beat: the newest block that our own looks saw, and how often this subscription told of one. True when it is
    /// dead.
    pub fn beat(&mut self, head: u64, times: u64) -> bool {
        if times != self.times {
            self.missed = 0;
        } else if head > self.head && self.head > 0 {
            self.missed += 1;
        }
        (self.head, self.times) = (head, times);
        self.missed >= MOST_MISSED
    }
}

/// The pause after `failures` attempts in a row at this many endpoints: each is tried once before anybody waits. `jitter` in
/// 0..=1 spreads it by a fifth to both sides, so that hosts that lost a node together do not return together.
#[must_use]
pub fn pause(failures: u32, endpoints: usize, jitter: f64) -> Duration {
    let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX).max(1);
    if failures == 0 || !failures.is_multiple_of(endpoints) {
        return Duration::ZERO;
    }
    let rounds = failures / endpoints;
    FIRST_PAUSE
        .saturating_mul(2_u32.saturating_pow(rounds - 1))
        .min(LONGEST_PAUSE)
        .mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLL: Duration = Duration::from_secs(3600);

    #[test]
    fn a_block_that_was_told_of_and_is_not_there_is_looked_for_again_but_not_for_ever() {
        let mut pace = Pace::new(POLL);
        let told = Told { times: 1, head: 10 };
        assert_eq!(pace.after(told, Some(10)), POLL);
        assert_eq!(pace.after(told, Some(9)), LEAST_PAUSE);
        // A node that tells of a block at the end of time.
        let lie = Told {
            times: 2,
            head: u64::MAX,
        };
        let looks = (0..100)
            .take_while(|_| pace.after(lie, Some(11)) < POLL)
            .count();
        assert_eq!(looks, usize::from(MOST_CHASES));
        assert_eq!(pace.after(lie, None), POLL);
    }

    #[test]
    fn a_failed_look_is_tried_again_soon_only_when_something_was_told() {
        let mut pace = Pace::new(POLL);
        let told = Told { times: 1, head: 10 };
        assert_eq!(Pace::new(POLL).after(Told::default(), None), POLL);
        assert_eq!(pace.after(told, None), LEAST_PAUSE);
        let mut short = Pace::new(Duration::from_millis(500));
        assert_eq!(short.after(told, None), Duration::from_millis(500));
    }

    #[test]
    fn a_subscription_that_is_silent_while_blocks_come_is_dead_and_a_chain_that_stands_still_is_not()
     {
        let mut pulse = Pulse::default();
        for _ in 0..100 {
            assert!(!pulse.beat(7, 1), "nothing comes, nothing is told");
        }
        assert!(!pulse.beat(8, 1));
        assert!(!pulse.beat(9, 1));
        assert!(!pulse.beat(10, 2), "it told of something");
        assert!(!pulse.beat(11, 2));
        assert!(!pulse.beat(12, 2));
        assert!(!pulse.beat(12, 2));
        assert!(pulse.beat(13, 2));
    }

    #[test]
    fn every_endpoint_is_tried_before_anybody_waits_and_the_wait_grows_to_a_minute() {
        assert_eq!(pause(1, 2, 0.5), Duration::ZERO);
        assert_eq!(pause(2, 2, 0.5), Duration::from_secs(1));
        assert_eq!(pause(3, 2, 0.5), Duration::ZERO);
        assert_eq!(pause(4, 2, 0.5), Duration::from_secs(2));
        assert_eq!(pause(1000, 1, 0.5), LONGEST_PAUSE);
    }

    proptest! {
        #[test]
        fn no_pause_is_longer_than_a_minute_and_a_fifth(failures: u32, endpoints in 0usize..10, jitter: f64) {
            prop_assume!(!jitter.is_nan());
            let pause = pause(failures, endpoints, jitter);
            prop_assert!(pause <= LONGEST_PAUSE.mul_f64(1.2));
        }
    }
}
