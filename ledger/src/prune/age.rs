//! How long ago a record was written, by what the ledger itself has lived through since: whatever the clock says now, or
//! said then. Pure; asked where a segment is chosen for pruning.
//!
//! The times of later blocks, one after the other, cover time as a chain of steps covers a way. A step backwards, or one
//! that is longer than a tenth of the time that payloads are kept, is no evidence: the clock may have been set, or the
//! host was off. What is covered twice counts once, so a clock that comes and goes adds nothing.

use std::collections::BTreeMap;
use std::time::Duration;

/// Steps of more than this part of the time that payloads are kept do not count.
const STEP: i64 = 10;

/// The time that is covered behind a block. Blocks are shown from the newest to the oldest.
#[derive(Debug)]
pub(super) struct Lived {
    /// Most seconds of a step.
    step: i64,
    /// Time of the block that was shown last.
    later: Option<i64>,
    /// Ends of what is covered, by beginning; none touches another.
    covered: BTreeMap<i64, i64>,
    seconds: i64,
}

impl Lived {
    /// Of no block yet. `kept` is how long payloads are kept.
    pub fn against(kept: Duration) -> Self {
        Self {
            step: i64::try_from(kept.as_secs()).unwrap_or(i64::MAX) / STEP,
            later: None,
            covered: BTreeMap::new(),
            seconds: 0,
        }
    }

    /// Goes back to the block before, whose last record is of this time (in seconds since 1970).
    pub fn back(&mut self, time: i64) {
        if let Some(later) = self.later.replace(time)
            && let Some(step) = later.checked_sub(time)
            && (1..=self.step).contains(&step)
        {
            self.cover(time, later);
        }
    }

    /// How long ago the block was written that was shown last, at least.
    pub fn passed(&self) -> Duration {
        Duration::from_secs(self.seconds.unsigned_abs())
    }

    fn cover(&mut self, mut from: i64, mut to: i64) {
        while let Some((&begin, &end)) = self.covered.range(..=to).next_back()
            && end >= from
        {
            self.covered.remove(&begin);
            self.seconds -= end - begin;
            (from, to) = (from.min(begin), to.max(end));
        }
        self.covered.insert(from, to);
        self.seconds += to - from;
    }
}

/// How many of the oldest blocks were written at least `kept` ago. `times` are those of all blocks in order, the one that is
/// being filled, too.
pub(super) fn old(times: impl DoubleEndedIterator<Item = i64>, kept: Duration) -> u64 {
    let (mut lived, mut old) = (Lived::against(kept), 0);
    for time in times.rev() {
        if old == 0 {
            lived.back(time);
        }
        // Those before an old one are older.
        old += u64::from(lived.passed() >= kept);
    }
    old
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 24 * 3600;
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    /// A day in November.
    const NOW: i64 = 20_000 * DAY;

    /// A block a day, from so many days ago until now.
    fn daily(days: i64) -> Vec<i64> {
        (0..=days).map(|day| NOW - (days - day) * DAY).collect()
    }

    fn old_of(times: &[i64]) -> u64 {
        old(times.iter().copied(), YEAR)
    }

    #[test]
    fn a_block_is_old_when_as_much_time_has_passed_since_as_payloads_are_kept() {
        assert_eq!(old_of(&daily(364)), 0);
        assert_eq!(old_of(&daily(365)), 1);
        assert_eq!(old_of(&daily(375)), 11);
        assert_eq!(old_of(&[]), 0);
        let all = daily(3);
        assert_eq!(old(all.into_iter(), Duration::ZERO), 4, "nothing is kept");
        assert_eq!(old([i64::MIN, i64::MAX, 0].into_iter(), YEAR), 0);
    }

    #[test]
    fn a_clock_that_leaps_ahead_makes_nothing_old() {
        let mut times = daily(300);
        // Ten years, for a week; then somebody sees it.
        times.extend((0..7).map(|day| NOW + 3650 * DAY + day * DAY));
        assert_eq!(old_of(&times), 0);
        times.extend((1..61).map(|day| NOW + day * DAY));
        // The week counts once more than it was: those days were lived through.
        assert_eq!(old_of(&times), 1);
        // Again and again, also from a time that it has at each start: nothing counts twice.
        let mut times = daily(300);
        for start in 0..500 {
            let noise = [0, 1, 2].map(|minute| minute * 60 + start % 3);
            times.extend(noise);
            times.extend(noise.map(|second| NOW + 3650 * DAY + second));
            times.extend(noise.map(|second| NOW + second));
        }
        assert_eq!(old_of(&times), 0);
    }

    #[test]
    fn a_time_of_the_future_or_of_1970_in_between_keeps_nothing_from_growing_old() {
        for wrong in [NOW + 3650 * DAY, 5] {
            let mut times = daily(500);
            let right = old_of(&times);
            times[20] = wrong;
            times[135] = wrong;
            times[300] = wrong;
            // A step from the one before to the one behind is missing each time.
            let found = old_of(&times);
            assert!((right - 4..=right).contains(&found), "{found} of {right}");
        }
    }

    #[test]
    fn what_was_not_lived_through_does_not_count() {
        // Off for two years, and before that for a week now and then.
        let mut times: Vec<i64> = (0..200)
            .map(|at| NOW - 1000 * DAY + at * DAY / 10)
            .collect();
        times.extend(daily(200));
        assert_eq!(old_of(&times), 0);
        let weekly: Vec<i64> = (0..=60).map(|week| NOW + week * 7 * DAY).collect();
        assert_eq!(old_of(&weekly), 8);
    }

    proptest! {
        /// Against the same in small: each second that a step covers, marked.
        #[test]
        fn what_is_covered_is_counted_once(times in prop::collection::vec(0_i64..300, 0..60), kept in 0_u64..200) {
            let kept = Duration::from_secs(kept);
            let step = i64::try_from(kept.as_secs()).expect("small") / STEP;
            let mut marked = std::collections::BTreeSet::new();
            let mut lived = Lived::against(kept);
            let mut later: Option<i64> = None;
            for time in times.iter().rev() {
                if let Some(later) = later && later > *time && later - time <= step {
                    marked.extend(*time..later);
                }
                later = Some(*time);
                lived.back(*time);
                prop_assert_eq!(lived.passed().as_secs(), marked.len() as u64);
            }
        }
    }
}
