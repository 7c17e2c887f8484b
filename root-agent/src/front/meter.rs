//! Token buckets per user: how often something may happen a minute, and how often it was suppressed.

use std::collections::HashMap;
use std::time::Instant;

/// Users remembered at once; the socket lets in a group, so more than this is an attack on our memory.
const MAX_USERS: usize = 1024;

/// One bucket per user.
#[derive(Debug, Default)]
pub struct Meter {
    buckets: HashMap<u32, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Thousandths of a token.
    level: u64,
    filled: Instant,
    suppressed: u64,
}

impl Meter {
    /// Takes a token. `Some(n)`: it may happen, and `n` were suppressed since the last time. `None`: suppressed.
    pub fn take(&mut self, uid: u32, per_minute: u32, now: Instant) -> Option<u64> {
        if self.buckets.len() >= MAX_USERS && !self.buckets.contains_key(&uid) {
            self.buckets.clear();
        }
        let full = u64::from(per_minute) * 1000;
        let bucket = self.buckets.entry(uid).or_insert(Bucket {
            level: full,
            filled: now,
            suppressed: 0,
        });
        let elapsed_ms = u64::try_from(now.saturating_duration_since(bucket.filled).as_millis())
            .unwrap_or(u64::MAX);
        let gained = elapsed_ms.saturating_mul(u64::from(per_minute)) / 60;
        if gained > 0 {
            bucket.level = bucket.level.saturating_add(gained).min(full);
            bucket.filled = now;
        }
        if bucket.level < 1000 {
            bucket.suppressed += 1;
            return None;
        }
        bucket.level -= 1000;
        Some(std::mem::take(&mut bucket.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_rate_and_counted() {
        let mut meter = Meter::default();
        let start = Instant::now();
        let passed = (0..100)
            .filter(|_| meter.take(7, 30, start).is_some())
            .count();
        assert_eq!(passed, 30);
        assert_eq!(meter.take(7, 30, start + Duration::from_secs(3)), Some(70));
        assert_eq!(
            meter.take(8, 30, start),
            Some(0),
            "another user is not affected"
        );
    }

    #[test]
    fn a_rate_of_zero_suppresses_everything() {
        assert_eq!(Meter::default().take(1, 0, Instant::now()), None);
    }
}
