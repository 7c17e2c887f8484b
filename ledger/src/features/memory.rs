//! What a history remembers beside the counts of `pairs`: what each user did lately, times, owners, durations.

use super::facts::Facts;
use super::math::{ln_1p, ln_ratio};
use super::table::Worth;

/// Lengths of the windows of the rates: a minute, an hour's twelfth, an hour, a day.
const WINDOWS_S: [i64; 4] = [60, 300, 3600, 86_400];
const HOUR_S: i64 = 3600;
/// Hours with an action of a user that show at which hours it is usual.
const ENOUGH_HOURS: u64 = 10;

/// How many records of a user fall into a window, and how many usually do when there are any.
#[derive(Debug, Clone, Default)]
struct Rate {
    window: i64,
    count: u32,
    closed: u32,
    /// Mean and variance of the counts of earlier windows, in 256ths.
    mean: u64,
    variance: u64,
}

impl Rate {
    /// Counts one and says how far the window is above the usual, in thousandths of a standard deviation.
    fn add(&mut self, window: i64) -> i64 {
        if window != self.window {
            if self.count > 0 {
                self.close();
            }
            (self.window, self.count) = (window, 0);
        }
        self.count = self.count.saturating_add(1).min(1 << 20);
        // Before there is a usual, a few at once are nothing.
        let (mean, variance) = if self.closed < 3 {
            (self.mean.max(4 << 8), self.variance.max(16 << 8))
        } else {
            (self.mean, self.variance)
        };
        let above = (i64::from(self.count) << 8) - mean.cast_signed();
        let deviation = ((variance + mean + 256) << 8).isqrt().max(1).cast_signed();
        above * 1000 / deviation
    }

    fn close(&mut self) {
        let count = u64::from(self.count) << 8;
        if self.closed == 0 {
            self.mean = count;
        }
        let off = count.abs_diff(self.mean);
        let square = ((u128::from(off) * u128::from(off)) >> 8).min(1 << 50);
        let square = u64::try_from(square).unwrap_or(u64::MAX);
        self.mean = self.mean - self.mean / 8 + count / 8;
        self.variance = self.variance - self.variance / 8 + square / 8;
        self.closed = self.closed.saturating_add(1);
    }
}

/// Different things within an hour and the one before, counted in two small bitmaps.
#[derive(Debug, Clone, Default)]
struct Spread {
    hour: i64,
    now: [u64; 4],
    before: [u64; 4],
    /// About the most that there usually are, in sixteenths, and of how many hours.
    peak: u64,
    hours: u32,
}

impl Spread {
    fn at(&mut self, hour: i64) {
        if hour != self.hour {
            if self.now != [0; 4] {
                let count = 16 * self.count();
                // One large hour does not make the next one usual.
                self.peak = if self.hours < 8 {
                    self.peak.max(count)
                } else if count > self.peak {
                    self.peak + (count - self.peak) / 4
                } else {
                    self.peak - (self.peak - count) / 32
                };
                self.hours = self.hours.saturating_add(1);
            }
            self.before = if hour == self.hour + 1 {
                self.now
            } else {
                [0; 4]
            };
            (self.hour, self.now) = (hour, [0; 4]);
        }
    }

    fn add(&mut self, what: u64) {
        let bit = what >> 56;
        if let Some(word) = self.now.get_mut(usize::try_from(bit / 64).unwrap_or(0)) {
            *word |= 1 << (bit % 64);
        }
    }

    /// ln of how many times more than the most before, in thousandths; below that 0. Up to two are no spread.
    fn excess(&self) -> i64 {
        ln_ratio(16 * (1 + self.count()), self.peak.max(32) + 16).max(0)
    }

    fn count(&self) -> u64 {
        let both = self.now.iter().zip(&self.before);
        both.map(|(a, b)| u64::from((a | b).count_ones())).sum()
    }
}

/// At which hours of the day (UTC) something happens: on how many days, not how often, so that a burst does not make
/// its own hour usual.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hours([u16; 24], i64);

impl Hours {
    fn total(&self) -> u64 {
        self.0.iter().map(|n| u64::from(*n)).sum()
    }

    /// -ln P(hour) beside an even spread, in thousandths: the hours before and after count half.
    fn surprise(&self, time_s: i64) -> i64 {
        let of_day = of_day(time_s);
        let at = |hour: usize| u64::from(self.0[hour % 24]);
        // This very hour was counted when its first record came.
        let counted = u64::from(self.1 == time_s.div_euclid(HOUR_S));
        let here = 2 * at(of_day).saturating_sub(counted) + at(of_day + 1) + at(of_day + 23);
        ln_ratio(4 * self.total() + 24, here + 1) - ln_ratio(24, 1)
    }

    fn note(&mut self, time_s: i64) {
        let hour = time_s.div_euclid(HOUR_S);
        if hour == self.1 {
            return;
        }
        self.1 = hour;
        self.0[of_day(time_s)] += 1;
        if self.0[of_day(time_s)] >= 1024 {
            self.0.iter_mut().for_each(|n| *n /= 2);
        }
    }
}

/// The hour of the day, 0 to 23.
fn of_day(time_s: i64) -> usize {
    usize::try_from(time_s.div_euclid(HOUR_S).rem_euclid(24)).unwrap_or(0)
}

/// What one user did lately.
#[derive(Debug, Clone, Default)]
pub(crate) struct User {
    records: u32,
    hours: Hours,
    touched: Spread,
    failed_on: Spread,
    deleted: Spread,
    deletes: u64,
    /// Failures among the latest, in 1024ths, and in a row.
    failing: u64,
    in_a_row: u64,
    last_action: u64,
    last_s: i64,
    last_class: u64,
    last_number: Option<u64>,
    neighbours: u64,
}

impl Worth for User {
    fn worth(&self) -> u64 {
        self.last_s.max(0).cast_unsigned()
    }
}

/// What a user's latest records are like, with the one that was just counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lately {
    pub(crate) hour: i64,
    pub(crate) resources: i64,
    pub(crate) failed_on: i64,
    pub(crate) deleted: u64,
    pub(crate) deleting: i64,
    pub(crate) failing: i64,
    pub(crate) in_a_row: u64,
    pub(crate) neighbours: u64,
    pub(crate) before: u64,
    pub(crate) since_s: u64,
}

impl User {
    /// Counts a record. Outcomes tell of failures and are otherwise the operation that was counted already.
    pub(crate) fn add(&mut self, facts: &Facts, is_outcome: bool, deletes: bool) -> Lately {
        let hour = facts.time_s.div_euclid(HOUR_S);
        let mut lately = Lately {
            before: self.last_action,
            since_s: seconds_since(facts.time_s, self.last_s),
            hour: self.hours.surprise(facts.time_s),
            ..Lately::default()
        };
        for spread in [&mut self.touched, &mut self.failed_on, &mut self.deleted] {
            spread.at(hour);
        }
        if facts.meta.has_result {
            let share = if facts.meta.failed { 1024 } else { 0 };
            self.failing = (self.failing * 7 + share) / 8;
            self.in_a_row = if facts.meta.failed {
                self.in_a_row + 1
            } else {
                0
            };
        }
        if facts.meta.failed {
            self.failed_on.add(facts.resource);
        }
        if !is_outcome {
            self.records = self.records.saturating_add(1);
            self.hours.note(facts.time_s);
            self.touched.add(facts.resource);
            if deletes {
                self.deleted.add(facts.resource);
                self.deletes += 1;
            }
            self.follow_number(facts);
            self.last_action = facts.action;
            self.last_s = facts.time_s;
        }
        lately.resources = self.touched.excess();
        lately.failed_on = self.failed_on.excess();
        lately.deleting = self.deleted.excess();
        lately.deleted = self.deleted.count();
        lately.failing = i64::try_from(self.failing * 1000 / 1024).unwrap_or(0);
        lately.in_a_row = self.in_a_row;
        lately.neighbours = self.neighbours;
        lately
    }

    /// How many resources of one kind came in steps of at most 2.
    fn follow_number(&mut self, facts: &Facts) {
        let step = self
            .last_number
            .zip(facts.number)
            .map(|(a, b)| a.abs_diff(b));
        match step {
            Some(0) if self.last_class == facts.class => {}
            Some(1 | 2) if self.last_class == facts.class => self.neighbours += 1,
            _ => self.neighbours = 0,
        }
        (self.last_class, self.last_number) = (facts.class, facts.number);
    }
}

pub(crate) fn seconds_since(now_s: i64, then_s: i64) -> u64 {
    now_s.saturating_sub(then_s).max(0).cast_unsigned()
}

/// When something was done last, and how often in a row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Last {
    pub(crate) time_s: i64,
    pub(crate) tries: u32,
}

impl Worth for Last {
    fn worth(&self) -> u64 {
        self.time_s.max(0).cast_unsigned()
    }
}

/// Who created a resource.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owner {
    pub(crate) tenant: u64,
    pub(crate) time_s: i64,
}

impl Worth for Owner {
    fn worth(&self) -> u64 {
        self.time_s.max(0).cast_unsigned()
    }
}

/// How many records of one kind of a user fall into each window.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rates {
    windows: [Rate; 4],
    hours: Hours,
    last_s: i64,
}

impl Worth for Rates {
    fn worth(&self) -> u64 {
        self.last_s.max(0).cast_unsigned()
    }
}

impl Rates {
    /// -ln P(hour | what is counted here), once there is enough of it.
    pub(crate) fn hour(&self, time_s: i64) -> Option<i64> {
        (self.hours.total() >= ENOUGH_HOURS).then(|| self.hours.surprise(time_s))
    }

    /// Counts one, and says of each window how far it is above the usual.
    pub(crate) fn add(&mut self, time_s: i64) -> [i64; 4] {
        self.last_s = time_s;
        self.hours.note(time_s);
        let mut all = [0; 4];
        for ((window, rate), z) in WINDOWS_S.iter().zip(&mut self.windows).zip(&mut all) {
            *z = rate.add(time_s.div_euclid(*window));
        }
        all
    }
}

/// How wide the address ranges of an action usually are, in sixteenths of bits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Width {
    widest: i64,
    seen: u32,
}

impl Worth for Width {
    fn worth(&self) -> u64 {
        u64::from(self.seen)
    }
}

impl Width {
    /// ln of how many times wider than the widest before, in thousandths; nothing before there were some.
    pub(crate) fn add(&mut self, bits: u32) -> i64 {
        let wider = i64::from(bits) * 16 - self.widest;
        let excess = if self.seen < 5 {
            0
        } else {
            wider.max(0) * 693 / 16
        };
        // One wide range does not make the next one usual.
        self.widest += wider / if wider > 0 && self.seen >= 5 { 8 } else { 32 };
        if self.seen < 5 {
            self.widest = self.widest.max(i64::from(bits) * 16);
        }
        self.seen = self.seen.saturating_add(1);
        excess
    }
}

/// How long an action usually takes: mean and mean deviation of the logarithm, in thousandths.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usual {
    mean: i64,
    deviation: i64,
    seen: u32,
}

impl Worth for Usual {
    fn worth(&self) -> u64 {
        u64::from(self.seen)
    }
}

impl Usual {
    /// How far this duration is from the usual, in thousandths of the usual deviation.
    pub(crate) fn add(&mut self, duration_us: u64) -> i64 {
        let log = ln_1p(duration_us / 1000);
        if self.seen == 0 {
            (self.mean, self.deviation) = (log, 500);
        }
        let off = log - self.mean;
        let z = if self.seen < 5 {
            0
        } else {
            off * 1000 / (self.deviation + 300)
        };
        self.mean += off / 16;
        self.deviation += (off.abs() - self.deviation) / 16;
        self.seen = self.seen.saturating_add(1);
        z
    }
}

#[cfg(test)]
mod tests;
