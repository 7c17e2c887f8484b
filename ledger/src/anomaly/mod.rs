//! What is unusual: a score for every record from its features and from how such features were before, and of each day
//! the few records that stand out most, with reasons. Advice only: nothing is ever refused because of it. Pure; the
//! command is `cli::anomalies`.

mod days;
mod words;

pub use days::{Budget, Days, Finding};
pub use words::reasons;

use crate::features::math::{hash, ln_ratio, pair};
use crate::features::table::{Table, Worth};
use crate::features::{Facts, History, Past, Vector};

/// A feature that can be unusual, and what one unit of it can add at most (in hundredths of a nat): how often a value
/// was exceeded says nothing of values that are all small.
type Watched = (usize, i64);

/// Features that can be unusual, by what they have in common: of each family only the strongest counts, so that one
/// fact that shows in four numbers is one reason and not four. With the family's weight.
const FAMILIES: [(&[Watched], i64); 8] = [
    (&[(20, 100), (21, 100), (22, 100), (47, 100)], 4),
    (&[(23, 100)], 5),
    (&[(27, 100)], 4),
    (&[(24, 300)], 3),
    (&[(25, 100), (26, 100)], 2),
    (&[(28, 100), (29, 100), (30, 100), (31, 100)], 3),
    (&[(36, 300), (37, 200), (38, 200), (45, 500)], 3),
    (
        &[
            (40, 400),
            (41, 1000),
            (42, 100),
            (43, 200),
            (44, 200),
            (46, 600),
        ],
        4,
    ),
];
/// Features that are compared with those of the same action alone.
const WITHIN_ACTION: [usize; 1] = [43];
/// Features that an outcome tells something about; the rest is the intent's.
const OF_OUTCOMES: [usize; 3] = [36, 37, 45];
/// What happens once in this many records is not unusual: 2.3 is ln 10.
const COMMON: i64 = 2300;
/// Records before which nothing is said: everything is new to a new log.
const LEARNING_RECORDS: u64 = 500;

/// How often a feature was how high.
#[derive(Debug, Clone)]
struct Tail {
    bins: [u32; Self::BINS],
    all: u32,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            bins: [0; Self::BINS],
            all: 0,
        }
    }
}

impl Worth for Tail {
    fn worth(&self) -> u64 {
        u64::from(self.all)
    }
}

impl Tail {
    const BINS: usize = 128;

    /// Thousandths as a bin: narrow ones up to 8, wide ones above.
    fn bin(value: i16) -> usize {
        let value = usize::try_from(value.max(0)).unwrap_or(0);
        let bin = if value < 8000 {
            value / 100
        } else {
            80 + (value - 8000) / 550
        };
        bin.min(Self::BINS - 1)
    }

    /// -ln of the share of values before that were as high, in thousandths; then counts this one.
    fn push(&mut self, value: i16) -> i64 {
        let bin = Self::bin(value);
        let above: u64 = self.bins[bin..].iter().map(|n| u64::from(*n)).sum();
        let unlikely = ln_ratio(u64::from(self.all) + 1, above + 1);
        self.bins[bin] += 1;
        self.all += 1;
        // Old values weigh half after a while; what is new stays new for as long.
        if self.all >= 1 << 15 {
            self.bins.iter_mut().for_each(|n| *n /= 2);
            self.all = self.bins.iter().sum();
        }
        unlikely
    }
}

/// How unusual a record is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Score {
    /// Sum over the families of features, in thousandths of a natural logarithm: how unlikely, weighed.
    pub total: i64,
    /// The strongest feature of each family that is unusual, and what it added; the strongest first.
    pub parts: Vec<(usize, i64)>,
    /// Who it is grouped with: the user.
    pub who: u64,
    /// What was done and what is unusual about it: told once, the same is not told again soon. 0 for nothing.
    pub about: u64,
    /// Seconds since 1970 UTC.
    pub time_s: i64,
}

/// Scores records by how unusual their features are among those before.
#[derive(Debug, Clone)]
pub struct Scorer {
    history: History,
    tails: Table<Tail>,
    seen: u64,
}

impl Default for Scorer {
    fn default() -> Self {
        Self {
            history: History::default(),
            tails: Table::new(512),
            seen: 0,
        }
    }
}

impl Past for Scorer {
    type Answer = (Vector, Score);

    fn take(&mut self, facts: &Facts) -> (Vector, Score) {
        let vector = self.history.push(facts);
        let is_outcome = facts.phase == hash(b"outcome");
        let mut score = Score {
            who: pair(facts.uid, facts.user),
            time_s: facts.time_s,
            ..Score::default()
        };
        for (features, weight) in FAMILIES {
            let mut strongest = (0, 0);
            for (feature, most) in features {
                if is_outcome && !OF_OUTCOMES.contains(feature) {
                    continue;
                }
                let value = vector.0.get(*feature).copied().unwrap_or(0);
                let among = if WITHIN_ACTION.contains(feature) {
                    facts.action
                } else {
                    1
                };
                let tail = self.tails.entry(pair(among, *feature as u64));
                let unlikely = tail.push(value).min(i64::from(value) * most / 100);
                let part = (unlikely - COMMON).max(0) * weight;
                if part > strongest.1 {
                    strongest = (*feature, part);
                }
            }
            if strongest.1 > 0 {
                score.total += strongest.1;
                score.parts.push(strongest);
            }
        }
        score.parts.sort_by_key(|(feature, part)| (-part, *feature));
        if let Some((feature, _)) = score.parts.first() {
            // Who is new here is told once, whatever they do first.
            let is_new = score
                .parts
                .iter()
                .any(|(feature, _)| matches!(feature, 20 | 27));
            score.about = if is_new {
                7
            } else {
                pair(facts.action, aspect(*feature))
            };
        }
        self.seen += 1;
        if self.seen <= LEARNING_RECORDS {
            score.total = 0;
        }
        (vector, score)
    }
}

/// What kind of unusual a feature stands for.
fn aspect(feature: usize) -> u64 {
    match feature {
        23 => 1,
        24 => 2,
        28..=31 => 3,
        36..=38 | 45 => 4,
        40..=44 | 46 => 5,
        _ => 6,
    }
}
