//! Token buckets: how often something may happen a minute and at once, and how often it was held back.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::policy::rates::Rate;

/// Buckets remembered at once; sockets let in groups, so more than this is an attack on our memory.
const MAX_BUCKETS: usize = 4096;
/// Parts of a token that are counted.
const TOKEN: u64 = 1_000_000;

/// One bucket for each key.
#[derive(Debug)]
pub struct Meter<K> {
    buckets: HashMap<K, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Millionths of a token.
    level: u64,
    full: u64,
    per_minute: u64,
    filled: Instant,
    held_back: u64,
}

impl<K> Default for Meter<K> {
    fn default() -> Self {
        Self {
            buckets: HashMap::new(),
        }
    }
}

impl<K: Hash + Eq> Meter<K> {
    /// Takes a token.
    ///
    /// Gives how many were held back since the last one passed.
    ///
    /// # Errors
    /// The time until there is a token again.
    pub fn take(&mut self, key: K, rate: Rate, now: Instant) -> Result<u64, Duration> {
        let Rate::Limited { per_minute, burst } = rate else {
            return Ok(0);
        };
        if self.buckets.len() >= MAX_BUCKETS && !self.buckets.contains_key(&key) {
            self.forget(now);
        }
        let full = u64::from(burst) * TOKEN;
        let bucket = self.buckets.entry(key).or_insert(Bucket {
            level: full,
            full,
            per_minute: per_minute.into(),
            filled: now,
            held_back: 0,
        });
        // The rate may be another than last time.
        (bucket.full, bucket.per_minute) = (full, per_minute.into());
        bucket.fill(now);
        if bucket.level < TOKEN {
            bucket.held_back += 1;
            return Err(bucket.time_to_token());
        }
        bucket.level -= TOKEN;
        Ok(std::mem::take(&mut bucket.held_back))
    }

    /// Full buckets say nothing. If all are in use, everybody starts anew: memory counts for more than fairness.
    fn forget(&mut self, now: Instant) {
        self.buckets.retain(|_, bucket| {
            bucket.fill(now);
            bucket.level < bucket.full || bucket.held_back > 0
        });
        if self.buckets.len() >= MAX_BUCKETS {
            self.buckets.clear();
        }
    }
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_micros();
        let elapsed_us = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let gained = elapsed_us.saturating_mul(self.per_minute) / 60;
        if gained > 0 {
            self.level = self.level.saturating_add(gained);
            self.filled = now;
        }
        self.level = self.level.min(self.full);
    }

    fn time_to_token(&self) -> Duration {
        let missing = TOKEN.saturating_sub(self.level);
        let time = (missing * 60).checked_div(self.per_minute);
        time.map_or(Duration::MAX, Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rates::{Class, Rates};

    const THIRTY: Rate = Rate::Limited {
        per_minute: 30,
        burst: 30,
    };

    #[test]
    fn a_flood_is_cut_to_the_rate_and_counted() {
        let mut meter = Meter::default();
        let start = Instant::now();
        let passed = (0..100)
            .filter(|_| meter.take(7, THIRTY, start).is_ok())
            .count();
        assert_eq!(passed, 30);
        assert_eq!(
            meter.take(7, THIRTY, start + Duration::from_secs(3)),
            Ok(70)
        );
        assert_eq!(
            meter.take(8, THIRTY, start),
            Ok(0),
            "another user is not affected"
        );
    }

    #[test]
    fn who_waits_as_long_as_told_gets_through_and_not_before() {
        let mut meter = Meter::default();
        let rate = Rate::Limited {
            per_minute: 7,
            burst: 2,
        };
        let start = Instant::now();
        meter.take((), rate, start).expect("first");
        meter.take((), rate, start).expect("second");
        let wait = meter.take((), rate, start).expect_err("empty");
        assert!(wait > Duration::from_secs(8), "{wait:?}");
        let early = start + wait - Duration::from_millis(5);
        meter.take((), rate, early).expect_err("too early");
        let late = start + wait + Duration::from_millis(1);
        assert_eq!(meter.take((), rate, late), Ok(2));
    }

    #[test]
    fn many_small_waits_gain_as_much_as_a_long_one() {
        let mut meter = Meter::default();
        let rate = Rate::Limited {
            per_minute: 1000,
            burst: 2,
        };
        let start = Instant::now();
        let passed = (0..60_000)
            .filter(|&ms| {
                let now = start + Duration::from_millis(ms);
                meter.take((), rate, now).is_ok()
            })
            .count();
        assert!((998..=1002).contains(&passed), "{passed}");
    }

    #[test]
    fn a_rate_of_nothing_lets_nothing_through() {
        let never = Rate::Limited {
            per_minute: 0,
            burst: 0,
        };
        let now = Instant::now();
        assert_eq!(Meter::default().take((), never, now), Err(Duration::MAX));
    }

    #[test]
    fn how_often_somebody_was_held_back_outlives_a_bucket_that_is_full_again() {
        let mut meter = Meter::default();
        let now = Instant::now();
        let quick = Rate::Limited {
            per_minute: 60_000,
            burst: 1,
        };
        meter.take(0, quick, now).expect("the only one");
        meter.take(0, quick, now).expect_err("none left");
        for user in 1..MAX_BUCKETS {
            meter.take(user, quick, now).expect("the first");
        }
        // All are full again, and only the first has something to say.
        let later = now + Duration::from_secs(1);
        meter.take(MAX_BUCKETS, quick, later).expect("the first");
        assert_eq!(meter.buckets.len(), 2);
        assert_eq!(meter.take(0, quick, later), Ok(1));
    }

    #[test]
    fn a_rate_that_was_lowered_holds_at_once() {
        let mut meter = Meter::default();
        let now = Instant::now();
        let rate = |burst| Rate::Limited {
            per_minute: 1,
            burst,
        };
        meter.take((), rate(1000), now).expect("a thousand");
        meter.take((), rate(1), now).expect("one of one");
        meter.take((), rate(1), now).expect_err("none left");
    }

    #[test]
    fn more_users_than_there_can_be_cost_bounded_memory_and_free_nobody_who_is_empty() {
        let mut meter = Meter::default();
        let now = Instant::now();
        let once = Rate::Limited {
            per_minute: 1,
            burst: 1,
        };
        meter.take(0, once, now).expect("the only one");
        for user in 1..20_000u32 {
            let later = now + Duration::from_millis(10);
            let generous = Rate::Limited {
                per_minute: 60_000,
                burst: 1,
            };
            let _ = meter.take(
                user,
                generous,
                later + Duration::from_millis(u64::from(user)),
            );
            assert!(meter.buckets.len() <= MAX_BUCKETS);
        }
        let soon = now + Duration::from_secs(21);
        meter.take(0, once, soon).expect_err("still empty");
    }

    #[test]
    fn a_table_full_of_users_that_wait_is_emptied_for_a_new_one_and_not_for_one_of_them() {
        let mut meter = Meter::default();
        let now = Instant::now();
        let once = Rate::Limited {
            per_minute: 1,
            burst: 1,
        };
        for user in 0..MAX_BUCKETS {
            meter.take(user, once, now).expect("the only one");
        }
        assert_eq!(meter.buckets.len(), MAX_BUCKETS);
        meter.take(0, once, now).expect_err("empty");
        assert_eq!(meter.buckets.len(), MAX_BUCKETS);
        meter.take(MAX_BUCKETS, once, now).expect("a new one");
        assert_eq!(meter.buckets.len(), 1);
    }

    #[test]
    fn a_thousand_purchases_in_one_block_pass_at_the_usual_rates() {
        let mut meter = Meter::default();
        let rates = Rates::default();
        let now = Instant::now();
        for machine in 0..1000 {
            for (class, times) in [
                (Class::Create, 6),
                (Class::Change, 20),
                (Class::Event, 20),
                (Class::Read, 200),
            ] {
                for _ in 0..times {
                    meter
                        .take(class, rates.of(class), now)
                        .unwrap_or_else(|wait| panic!("{class:?} of machine {machine}: {wait:?}"));
                }
            }
        }
    }
}
