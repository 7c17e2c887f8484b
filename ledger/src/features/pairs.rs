//! Counts of what was seen in which context, for the surprises. A fixed table; old counts weigh half after every
//! [`HALVING`] records.

use super::math::{ln_ratio, pair};
use super::table::{Table, Worth};

/// Records after which a count weighs half.
const HALVING: u64 = 8192;
/// One occurrence; counts keep four bits of their fractions.
const ONE: u32 = 16;

#[derive(Debug, Clone, Default)]
struct Count {
    /// Occurrences, and different things seen below this key, in sixteenths.
    count: u32,
    types: u32,
    /// Halvings that are accounted for.
    age: u32,
}

impl Worth for Count {
    fn worth(&self) -> u64 {
        // Newer before more: an old count would be halved by now.
        (u64::from(self.age) << 6) + u64::from(self.count.checked_ilog2().unwrap_or(0))
    }
}

impl Count {
    /// (count, types) as they weigh at `age`. What was seen once is never wholly forgotten.
    fn at(&self, age: u32) -> (u64, u64) {
        let by = age.saturating_sub(self.age).min(31);
        let halve = |n: u32| u64::from(if n == 0 { 0 } else { (n >> by).max(1) });
        (halve(self.count), halve(self.types))
    }

    fn bring_to(&mut self, age: u32) {
        let (count, types) = self.at(age);
        self.count = u32::try_from(count).unwrap_or(u32::MAX);
        self.types = u32::try_from(types).unwrap_or(u32::MAX);
        self.age = self.age.max(age);
    }
}

/// Counts of what was seen in which context. Prediction by partial matching with one context, method C: what was never
/// seen in a context gets the share of firsts there were in it, spread as the thing is elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Pairs {
    table: Table<Count>,
    seen: u64,
}

impl Pairs {
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(1 << 14),
            seen: 0,
        }
    }

    fn age(&self) -> u32 {
        u32::try_from(self.seen / HALVING).unwrap_or(u32::MAX)
    }

    fn weights(&self, key: u64) -> (u64, u64) {
        let age = self.age();
        self.table.get(key).map_or((0, 0), |count| count.at(age))
    }

    /// -ln P(`what`) anywhere, in thousandths.
    pub(crate) fn rarity(&self, kind: u64, what: u64) -> i64 {
        let (n, types) = self.weights(pair(kind, 0));
        let (count, _) = self.weights(pair(pair(kind, 0), what));
        if n == 0 {
            return 0;
        }
        let one = u64::from(ONE);
        if count == 0 {
            return ln_ratio(n + types + one, one / 2);
        }
        known(n + types + one, count)
    }

    /// -ln P(`what` | `context`), in thousandths.
    pub(crate) fn surprise(&self, kind: u64, context: u64, what: u64) -> i64 {
        let (n, types) = self.weights(pair(kind, context));
        if n == 0 {
            return self.rarity(kind, what);
        }
        let (count, _) = self.weights(pair(pair(kind, context), what));
        if count > 0 {
            return known(n + types, count);
        }
        ln_ratio(n + types, types) + self.rarity(kind, what) / 2
    }

    /// Counts `what` in `context` and anywhere.
    pub(crate) fn note(&mut self, kind: u64, context: u64, what: u64) {
        self.note_in(pair(kind, context), what);
        if context != 0 {
            self.note_in(pair(kind, 0), what);
        }
    }

    fn note_in(&mut self, context: u64, what: u64) {
        let age = self.age();
        let count = self.table.entry(pair(context, what));
        let first = count.count == 0;
        count.bring_to(age);
        count.count = count.count.saturating_add(ONE);
        let total = self.table.entry(context);
        total.bring_to(age);
        total.count = total.count.saturating_add(ONE);
        if first {
            total.types = total.types.saturating_add(ONE);
        }
    }

    /// One more record went by.
    pub(crate) fn tick(&mut self) {
        self.seen += 1;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.table.bytes()
    }
}

/// What was seen c times among n counts as c*c of n: what comes back is usual, even when it is seldom.
fn known(n: u64, count: u64) -> i64 {
    let squared = count.saturating_mul(count) / u64::from(ONE);
    ln_ratio(n.saturating_add(squared), squared.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_never_did_is_surprising_unless_that_user_always_does_new_things() {
        let mut pairs = Pairs::new();
        for n in 0..1000_u64 {
            pairs.note(1, 10, 5);
            pairs.note(1, 20, 1000 + n);
            pairs.tick();
        }
        let (steady, changing) = (pairs.surprise(1, 10, 77), pairs.surprise(1, 20, 77));
        assert!(steady > 2 * changing, "{steady} {changing}");
        assert!(pairs.surprise(1, 10, 5) < 10);
        // Forgotten by half again and again, and still not new.
        for _ in 0..20 * HALVING {
            pairs.tick();
        }
        assert!(pairs.surprise(1, 10, 5) < pairs.surprise(1, 10, 77));
    }
}
