//! How far back a record's features look: to the beginning of the generation before its own, no further. So they can be
//! computed again from a bounded piece of the log, after a restart, in parallel, and when older payloads were pruned.

use super::{Facts, History, Vector};

/// Records of one generation: one segment.
pub const GENERATION_RECORDS: u64 = 65_536;

/// The first record (leaf index) that has to be replayed for the features of record `index`.
#[must_use]
pub fn replay_from(index: u64) -> u64 {
    (index / GENERATION_RECORDS).saturating_sub(1) * GENERATION_RECORDS
}

/// Follows the log record by record. Two histories: the one that answers knows the generation before, the other one is
/// growing up to follow it.
#[derive(Debug, Clone)]
pub struct Generations {
    next: u64,
    length: u64,
    old: History,
    young: Option<History>,
}

impl Generations {
    /// To be fed from record [`replay_from`]`(index)` on, for the features of record `index` and those after it.
    #[must_use]
    pub fn new(index: u64) -> Self {
        Self {
            next: replay_from(index),
            length: GENERATION_RECORDS,
            old: History::default(),
            young: None,
        }
    }

    /// Leaf index of the record that must come next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The features of the next record.
    pub fn push(&mut self, record: &[u8]) -> Vector {
        self.push_facts(&Facts::read(record))
    }

    /// As [`Generations::push`], for a record that was read already.
    pub fn push_facts(&mut self, facts: &Facts) -> Vector {
        if self.next > 0 && self.next.is_multiple_of(self.length) {
            if let Some(young) = self.young.take() {
                self.old = young;
            }
            self.young = Some(History::default());
        }
        self.next += 1;
        if let Some(young) = &mut self.young {
            young.push(facts);
        }
        self.old.push(facts)
    }

    /// Bytes that it takes at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        2 * self.old.bytes()
    }

    #[cfg(test)]
    pub(crate) fn with_length(from: u64, length: u64) -> Self {
        Self {
            next: (from / length).saturating_sub(1) * length,
            length,
            ..Self::new(0)
        }
    }
}
