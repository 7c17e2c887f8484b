//! A complaint that would fill the log if it were made as often as there is reason to.

use std::time::{Duration, Instant};

/// Between two complaints about the same thing.
const EVERY: Duration = Duration::from_secs(60);

/// When it was last said, and how often it was not.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// How often there was reason since it was last said, where it is to be said now.
    pub fn say(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now < said + EVERY) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }

    /// There is no more reason. True when there was.
    pub fn over(&mut self) -> bool {
        self.unsaid = 0;
        self.said.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_once_then_at_a_bounded_rate_and_counted() {
        let mut complaint = Seldom::default();
        let start = Instant::now();
        assert_eq!(complaint.say(start), Some(0));
        let said = (1..=120)
            .filter_map(|s| complaint.say(start + Duration::from_secs(s)))
            .collect::<Vec<_>>();
        assert_eq!(said, [59, 59]);
        assert!(complaint.over() && !complaint.over());
        assert_eq!(complaint.say(start), Some(0), "new trouble is news");
    }
}
