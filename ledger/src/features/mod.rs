//! Footprint features: 64 numbers for every record, a pure function of it and of a bounded past before it. Replaying the
//! log gives the same numbers, bit for bit, on any machine: integers only, no clock. Called by the writer of the block
//! files, by `anomaly` and by `similar`.

mod facts;
mod feed;
mod generations;
pub(crate) mod math;
mod memory;
mod names;
mod pairs;
pub(crate) mod table;

pub use facts::Facts;
pub(crate) use feed::Feed;
pub use generations::{GENERATION_RECORDS, Generations, Past, replay_from};
pub use names::NAMES;

use math::{hash, ln_1p, ln_ratio, pair};
use memory::{Last, Owner, Rates, User, Usual, Width, seconds_since};
use pairs::Pairs;
use table::Table;

/// How many features a record has.
pub const FEATURES: usize = 64;
/// The same operation again within this many seconds is a retry.
const RETRY_S: u64 = 600;

/// The features of one record, in thousandths; each within +-32.767.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vector(pub [i16; FEATURES]);

impl Vector {
    fn set(&mut self, index: usize, thousandths: i64) {
        let limit = i64::from(i16::MAX);
        let value = thousandths.clamp(-limit, limit);
        if let Some(place) = self.0.get_mut(index) {
            *place = i16::try_from(value).unwrap_or(0);
        }
    }

    /// Reads exactly what [`Vector::write_json`] writes.
    #[must_use]
    pub fn parse_json(text: &[u8]) -> Option<Self> {
        let (vector, rest) = Self::parse_front(text)?;
        rest.is_empty().then_some(vector)
    }

    /// The list that `text` begins with, and what stands behind it. The shortest way of writing a number is the only one.
    pub(crate) fn parse_front(text: &[u8]) -> Option<(Self, &[u8])> {
        let mut vector = Self([0; FEATURES]);
        let mut rest = text.strip_prefix(b"[")?;
        let mut index = 0;
        while let Some(place) = vector.0.get_mut(index) {
            // Most are zeros, and stand side by side.
            if index + 4 < FEATURES
                && let Some(after) = rest.strip_prefix(b"0,0,0,0,")
            {
                (rest, index) = (after, index + 4);
                continue;
            }
            let end = if index + 1 < FEATURES { b',' } else { b']' };
            (*place, rest) = match rest {
                // Of the others, most are a single digit.
                [digit @ b'0'..=b'9', then, after @ ..] if *then == end => {
                    (i16::from(digit - b'0') * 1000, after)
                }
                // Then those between, with three decimals.
                [
                    whole @ b'0'..=b'9',
                    b'.',
                    a @ b'0'..=b'9',
                    b @ b'0'..=b'9',
                    c @ b'1'..=b'9',
                    then,
                    after @ ..,
                ] if *then == end => {
                    let digits = [whole, a, b, c].map(|digit| i16::from(digit - b'0'));
                    (
                        digits.iter().fold(0, |value, digit| value * 10 + digit),
                        after,
                    )
                }
                _ => {
                    let (value, after) = thousandths(rest)?;
                    (value, after.strip_prefix(&[end])?)
                }
            };
            index += 1;
        }
        Some((vector, rest))
    }

    /// As a JSON list of numbers with at most 3 decimals, in the shortest way of writing them: what `jq` prints too.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        for (index, value) in self.0.iter().enumerate() {
            out.push(if index == 0 { b'[' } else { b',' });
            if *value < 0 {
                out.push(b'-');
            }
            let digits = value.unsigned_abs();
            // At most 32, so at most two digits.
            let (whole, fraction) = (digits / 1000, digits % 1000);
            if whole >= 10 {
                out.push(digit(whole / 10));
            }
            out.push(digit(whole % 10));
            let decimals = [
                digit(fraction / 100),
                digit(fraction / 10 % 10),
                digit(fraction % 10),
            ];
            let shown = decimals.iter().rposition(|b| *b != b'0');
            if let Some(shown) = shown.and_then(|last| decimals.get(..=last)) {
                out.push(b'.');
                out.extend_from_slice(shown);
            }
        }
        out.push(b']');
    }
}

fn digit(n: u16) -> u8 {
    b"0123456789"[usize::from(n % 10)]
}

/// The number that `text` begins with, in thousandths.
fn thousandths(text: &[u8]) -> Option<(i16, &[u8])> {
    let (negative, mut rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut value = 0_i32;
    let mut take = |rest: &mut &[u8]| -> bool {
        let [digit @ b'0'..=b'9', after @ ..] = *rest else {
            return false;
        };
        value = value * 10 + i32::from(digit - b'0');
        *rest = after;
        true
    };
    let leading_zero = rest.first() == Some(&b'0');
    if !take(&mut rest) {
        return None;
    }
    if !leading_zero {
        take(&mut rest);
    }
    let mut decimals = 0;
    if let [b'.', after @ ..] = rest {
        let digits = after;
        rest = after;
        while decimals < 3 && take(&mut rest) {
            decimals += 1;
        }
        if decimals == 0 || digits.get(decimals - 1) == Some(&b'0') {
            return None;
        }
    }
    for _ in decimals..3 {
        value *= 10;
    }
    if negative && value == 0 {
        return None;
    }
    let value = i16::try_from(if negative { -value } else { value }).ok()?;
    Some((value, rest))
}

/// Everything remembered of the records before: less than a mebibyte, whatever they were.
#[derive(Debug, Clone)]
pub struct History {
    pairs: Pairs,
    users: Table<User>,
    lasts: Table<Last>,
    owners: Table<Owner>,
    durations: Table<Usual>,
    rates: Table<Rates>,
    widths: Table<Width>,
    /// Resources that were created and not deleted, as far as is known.
    living: u64,
}

impl Default for History {
    fn default() -> Self {
        Self {
            pairs: Pairs::new(),
            users: Table::new(256),
            lasts: Table::new(1 << 12),
            owners: Table::new(1 << 12),
            durations: Table::new(256),
            rates: Table::new(1024),
            widths: Table::new(256),
            living: 0,
        }
    }
}

/// Kinds of pairs that surprises are counted for, in the order of features 20 to 27, the hour left out.
const PLUGIN_USER: u64 = 1;
const ACTION_USER: u64 = 2;
const CLASS_USER: u64 = 3;
const TENANT_USER: u64 = 4;
const NEXT_ACTION: u64 = 5;
const KEYS_PLUGIN: u64 = 6;
const CALLER_PLUGIN: u64 = 7;
const USER: u64 = 8;

impl History {
    /// The features of the next record.
    pub fn push(&mut self, facts: &Facts) -> Vector {
        let mut vector = Vector([0; FEATURES]);
        plain(&mut vector, facts);
        self.behaviour(&mut vector, facts);
        vector
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.pairs.bytes()
            + self.users.bytes()
            + self.lasts.bytes()
            + self.owners.bytes()
            + self.durations.bytes()
            + self.rates.bytes()
            + self.widths.bytes()
    }

    /// Features 20 to 47, and remembers the record.
    fn behaviour(&mut self, vector: &mut Vector, facts: &Facts) {
        let user = pair(facts.uid, facts.user);
        let caller = pair(user, facts.caller);
        let is_outcome = facts.phase == hash(b"outcome");
        let operation = Operation::of(facts.operation);
        // What a refused or failed request asked for did not happen.
        let happens = !is_outcome && !facts.meta.failed;
        let deletes = happens && operation == Operation::Delete;
        let tenant = self.tenant(facts);
        let lately = self.users.entry(user).add(facts, is_outcome, deletes);

        let keys = pair(facts.action, facts.meta.key_set);
        let surprises = [
            (20, PLUGIN_USER, user, facts.plugin),
            (21, ACTION_USER, user, facts.action),
            (22, CLASS_USER, user, facts.class),
            (23, TENANT_USER, user, tenant),
            (25, NEXT_ACTION, lately.before, facts.action),
            (26, KEYS_PLUGIN, pair(facts.phase, facts.plugin), keys),
            (27, CALLER_PLUGIN, facts.plugin, caller),
        ];
        for (index, kind, context, what) in surprises {
            if what != 0 {
                vector.set(index, self.pairs.surprise(kind, context, what));
            }
        }
        let new_user = self.pairs.surprise(USER, 0, user);
        vector.set(
            20,
            self.pairs
                .surprise(PLUGIN_USER, user, facts.plugin)
                .max(new_user),
        );
        vector.set(24, lately.hour);
        vector.set(47, self.pairs.surprise(ACTION_USER, 0, facts.action));
        if !is_outcome {
            let rates = self.rates.entry(pair(user, facts.action));
            if let Some(hour) = rates.hour(facts.time_s) {
                vector.set(24, hour);
            }
            for (index, z) in (28..).zip(rates.add(facts.time_s)) {
                vector.set(index, z);
            }
        }
        self.times(vector, facts, user, lately.since_s, is_outcome);

        vector.set(36, lately.failing);
        vector.set(37, ln_1p(lately.in_a_row));
        if let Some(duration_us) = facts.meta.duration_us {
            vector.set(39, self.durations.entry(facts.action).add(duration_us));
        }
        vector.set(40, lately.resources);
        vector.set(41, lately.deleting);
        if facts.meta.ranges > 0 {
            let widths = self.widths.entry(facts.action);
            vector.set(42, widths.add(facts.meta.range_bits));
        }
        vector.set(43, ln_1p(u64::from(facts.meta.longest)));
        vector.set(44, ln_1p(lately.neighbours));
        vector.set(45, lately.failed_on);
        let share = lately.deleted * 1000 / (self.living + lately.deleted + 4);
        vector.set(46, i64::try_from(share).unwrap_or(1000));

        if !is_outcome {
            for (_, kind, context, what) in surprises {
                if what != 0 {
                    self.pairs.note(kind, context, what);
                }
            }
            self.pairs.note(USER, 0, user);
            self.own(facts, user, operation, happens);
        }
        self.pairs.tick();
    }

    /// Whom a record is about: the tenant it names, else who created the resource, as far as is known.
    fn tenant(&self, facts: &Facts) -> u64 {
        match facts.meta.tenant {
            0 => self
                .owners
                .get(facts.resource)
                .map_or(0, |owner| owner.tenant),
            tenant => tenant,
        }
    }

    fn own(&mut self, facts: &Facts, user: u64, operation: Operation, happens: bool) {
        if !happens || facts.resource == 0 || facts.category != hash(b"compute") {
            return;
        }
        match operation {
            Operation::Create => {
                let tenant = if facts.meta.tenant == 0 {
                    user
                } else {
                    facts.meta.tenant
                };
                *self.owners.entry(facts.resource) = Owner {
                    tenant,
                    time_s: facts.time_s,
                };
                self.living = self.living.saturating_add(1);
            }
            Operation::Delete => {
                self.owners.remove(facts.resource);
                self.living = self.living.saturating_sub(1);
            }
            _ => {}
        }
    }

    /// Features 32 to 35 and 38: how long ago, how often again.
    fn times(
        &mut self,
        vector: &mut Vector,
        facts: &Facts,
        user: u64,
        since_user_s: u64,
        is_outcome: bool,
    ) {
        let keys = [
            pair(31, facts.action),
            pair(user, facts.action),
            pair(32, facts.resource),
        ];
        vector.set(32, ln_1p(since_user_s));
        for (index, key) in (33..).zip(keys) {
            let then = self.lasts.get(key).map_or(0, |last| last.time_s);
            vector.set(index, ln_1p(seconds_since(facts.time_s, then)));
        }
        if is_outcome {
            return;
        }
        for key in keys {
            self.lasts.entry(key).time_s = facts.time_s;
        }
        let again = self
            .lasts
            .entry(pair(pair(user, facts.action), facts.resource));
        let soon = seconds_since(facts.time_s, again.time_s) <= RETRY_S;
        again.tries = if soon {
            again.tries.saturating_add(1)
        } else {
            0
        };
        again.time_s = facts.time_s;
        vector.set(38, ln_1p(u64::from(again.tries)));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Create,
    Update,
    Delete,
    Query,
    Other,
}

impl Operation {
    fn of(hashed: u64) -> Self {
        let words: [(&[u8], Self); 5] = [
            (b"create", Self::Create),
            (b"modify", Self::Update),
            (b"apply", Self::Update),
            (b"delete", Self::Delete),
            (b"query", Self::Query),
        ];
        let found = words.iter().find(|(word, _)| hash(word) == hashed);
        found.map_or(Self::Other, |(_, operation)| *operation)
    }
}

/// Features 0 to 19 and 48 to 63: of the record alone.
fn plain(vector: &mut Vector, facts: &Facts) {
    let meta = &facts.meta;
    let part = |n: u64, of: u64| {
        i64::try_from(n * 1000 / of.max(1))
            .unwrap_or(1000)
            .min(1000)
    };
    let flag = |set: bool| if set { 1000 } else { 0 };
    vector.set(
        0,
        i64::try_from(((facts.plugin >> 32) * 1000) >> 32).unwrap_or(0),
    );
    let operation = Operation::of(facts.operation);
    let kinds = [
        Operation::Create,
        Operation::Update,
        Operation::Delete,
        Operation::Query,
    ];
    for (index, kind) in (1..).zip(kinds) {
        vector.set(index, flag(operation == kind));
    }
    vector.set(5, flag(meta.is_object));
    let bytes = u64::try_from(facts.bytes).unwrap_or(u64::MAX).min(65_535);
    vector.set(6, ln_ratio(bytes + 1, 1) * 1000 / ln_ratio(65_536, 1));
    vector.set(7, part(meta.paths.len() as u64, u64::from(meta.keys)));
    let values = [meta.strings, meta.numbers, meta.bools, meta.nulls].map(u64::from);
    let all = values.iter().sum();
    for (index, count) in (8..).zip(values) {
        vector.set(index, part(count, all));
    }
    vector.set(12, part(u64::from(meta.keys.min(64)), 64));
    vector.set(13, part(u64::from(meta.depth), 32));
    vector.set(14, flag(meta.failed));
    vector.set(15, flag(meta.has_right));
    vector.set(16, flag(meta.lists > 0));
    vector.set(17, flag(meta.other_socket));
    let hour = facts.time_s.div_euclid(3600).rem_euclid(24);
    // 1970 began on a Thursday; a week begins on Sunday, as in the seed's example.
    let day = (facts.time_s.div_euclid(86_400) + 4).rem_euclid(7);
    vector.set(18, hour * 1000 / 24);
    vector.set(19, day * 1000 / 7);
    let mut folded = [0_i64; 16];
    for path in &meta.paths {
        let slot = usize::try_from(path >> 60).unwrap_or(0);
        folded[slot] += if path & 1 == 0 { 1 } else { -1 };
    }
    let length = (meta.paths.len() as u64 * 1_000_000)
        .isqrt()
        .max(1)
        .cast_signed();
    for (index, sum) in (48..).zip(folded) {
        vector.set(index, sum * 1_000_000 / length);
    }
}

#[cfg(test)]
mod tests;
