//! Measured times, and rounds: what is measured takes turns, so that what else this machine does meets all alike.

use std::time::Duration;

use crate::scenario::ScenarioError;

/// Measured times, sorted.
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub(super) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// All of several rounds together.
    pub(super) fn join(rounds: Vec<Self>) -> Self {
        Self::new(rounds.into_iter().flat_map(|round| round.0).collect())
    }

    pub(super) fn p50(&self) -> Duration {
        self.at(50)
    }

    pub(super) fn p99(&self) -> Duration {
        self.at(99)
    }

    fn at(&self, percent: usize) -> Duration {
        let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or_default()
    }
}

/// Something that can be done again and again, and timed each time.
pub(super) trait Round {
    /// Does it `count` times, after what it needs to warm up; every one must succeed.
    fn round(&mut self, count: usize) -> Result<Times, ScenarioError>;
}

impl<F: FnMut(usize) -> Result<Times, ScenarioError>> Round for F {
    fn round(&mut self, count: usize) -> Result<Times, ScenarioError> {
        self(count)
    }
}

/// `count` times each, in ten turns. The answers are in the order of `rounds`.
pub(super) fn in_turns(
    count: usize,
    rounds: &mut [&mut dyn Round],
) -> Result<Vec<Times>, ScenarioError> {
    const TURNS: usize = 10;
    let mut taken: Vec<Vec<Times>> = rounds.iter().map(|_| Vec::new()).collect();
    for _ in 0..TURNS {
        for (round, taken) in rounds.iter_mut().zip(&mut taken) {
            taken.push(round.round(count.div_ceil(TURNS))?);
        }
    }
    Ok(taken.into_iter().map(Times::join).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_times() {
        let times = Times::new((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(times.p50(), Duration::from_millis(51));
        assert_eq!(times.p99(), Duration::from_millis(100));
    }

    #[test]
    fn turns_keep_the_times_of_each_apart() {
        let mut short = |count| Ok(Times::new(vec![Duration::from_micros(1); count]));
        let mut long = |count| Ok(Times::new(vec![Duration::from_micros(9); count]));
        let taken = in_turns(100, &mut [&mut short, &mut long]).expect("nothing fails");
        let p99: Vec<_> = taken.iter().map(|times| times.p99().as_micros()).collect();
        assert_eq!(p99, [1, 9]);
        assert_eq!(taken[0].0.len(), 100);
    }
}
