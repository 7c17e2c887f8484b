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

/// What is known of the records before, and what it says of the next one.
pub trait Past: Default + Clone {
    /// What it says.
    type Answer;
    /// Takes the next record.
    fn take(&mut self, facts: &Facts) -> Self::Answer;
}

impl Past for History {
    type Answer = Vector;

    fn take(&mut self, facts: &Facts) -> Vector {
        self.push(facts)
    }
}

/// Follows the log record by record. Two pasts: the one that answers knows the generation before, the other one is
/// growing up to follow it.
#[derive(Debug, Clone)]
pub struct Generations<P = History> {
    next: u64,
    length: u64,
    old: P,
    young: Option<P>,
}

impl<P: Past> Generations<P> {
    /// To be fed from record [`replay_from`]`(index)` on, for what is said of record `index` and those after it.
    #[must_use]
    pub fn new(index: u64) -> Self {
        Self {
            next: replay_from(index),
            length: GENERATION_RECORDS,
            old: P::default(),
            young: None,
        }
    }

    /// Leaf index of the record that must come next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What the past says of the next record.
    pub fn push(&mut self, record: &[u8]) -> P::Answer {
        let facts = Facts::read(record);
        if self.next > 0 && self.next.is_multiple_of(self.length) {
            if let Some(young) = self.young.take() {
                self.old = young;
            }
            self.young = Some(P::default());
        }
        self.next += 1;
        if let Some(young) = &mut self.young {
            young.take(&facts);
        }
        self.old.take(&facts)
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
