//! The day's budget: what one user did within an hour is one finding, and of each day (UTC) at most so many are told.

use super::Score;
use std::collections::BTreeMap;

/// Within this many seconds the unusual things of one user are one finding.
const ONE_FINDING_S: i64 = 3600;
/// For this long the same of the same user is told again only when it stands out half as much again.
const TOLD_S: i64 = 7 * 86_400;
/// Findings of a day that are kept while it lasts; the weakest go first.
const MAX_KEPT: usize = 1000;

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Most findings a day.
    pub per_day: usize,
    /// Least score of a record that is told, in thousandths.
    pub least: i64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            per_day: 5,
            // Best on the lives that the evaluation tunes on (ledger/tests/anomalies).
            least: 19_662,
        }
    }
}

/// Something unusual: the record that stands out most, and how many more of the same user and hour do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Leaf index of the record that stands out most.
    pub index: u64,
    /// Its score, with what it is made of.
    pub score: Score,
    /// Leaf index of the last record of the finding.
    pub last: u64,
    /// Records that stand out, this one too.
    pub records: u64,
}

/// Follows the scores and gives the findings of each day when it is over.
#[derive(Debug, Clone)]
pub struct Days {
    budget: Budget,
    day: i64,
    open: BTreeMap<u64, (i64, Finding)>,
    closed: Vec<Finding>,
    /// When and with what score something was told last, by user and what it was about.
    told: BTreeMap<(u64, u64), (i64, i64)>,
}

impl Days {
    /// With a budget.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            day: i64::MIN,
            open: BTreeMap::new(),
            closed: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    /// Takes the next record's score; the findings of the day before, when this is the first one of another day.
    pub fn push(&mut self, index: u64, score: Score) -> Vec<Finding> {
        let day = score.time_s.div_euclid(86_400);
        let told = if day == self.day {
            Vec::new()
        } else {
            self.end_of_day()
        };
        self.day = day;
        if score.total < self.budget.least || score.total <= 0 {
            return told;
        }
        let time_s = score.time_s;
        if let Some((last_s, finding)) = self.open.get_mut(&score.who)
            && time_s.saturating_sub(*last_s) <= ONE_FINDING_S
        {
            *last_s = time_s;
            finding.last = index;
            finding.records += 1;
            if score.total > finding.score.total {
                (finding.index, finding.score) = (index, score);
            }
            return told;
        }
        let who = score.who;
        let finding = Finding {
            index,
            score,
            last: index,
            records: 1,
        };
        if let Some((_, before)) = self.open.insert(who, (time_s, finding)) {
            self.closed.push(before);
        }
        if self.open.len() + self.closed.len() >= 2 * MAX_KEPT {
            self.close_all();
            self.closed.truncate(MAX_KEPT);
        }
        told
    }

    /// The findings of the day so far, oldest first; another day may begin.
    pub fn end_of_day(&mut self) -> Vec<Finding> {
        self.close_all();
        let mut told: Vec<Finding> = Vec::new();
        for finding in std::mem::take(&mut self.closed) {
            if told.len() < self.budget.per_day && self.is_news(&finding.score) {
                told.push(finding);
            }
        }
        told.sort_by_key(|finding| finding.index);
        told
    }

    fn is_news(&mut self, score: &Score) -> bool {
        let (time_s, total) = (score.time_s, score.total);
        self.told
            .retain(|_, (then_s, _)| time_s.saturating_sub(*then_s) < TOLD_S);
        if score.about == 0 {
            return true;
        }
        let key = (score.who, score.about);
        if self
            .told
            .get(&key)
            .is_some_and(|(_, before)| total < before + before / 2)
        {
            return false;
        }
        self.told.insert(key, (time_s, total));
        true
    }

    /// Puts everything into one list, the strongest first.
    fn close_all(&mut self) {
        let open = std::mem::take(&mut self.open);
        self.closed
            .extend(open.into_values().map(|(_, finding)| finding));
        self.closed
            .sort_by_key(|finding| (-finding.score.total, finding.index));
    }
}
