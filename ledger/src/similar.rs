//! Past operations like a given one, and how they ended: nearest neighbours over the footprint features in one byte
//! each, compared with all of them. Pure; the command is `cli::similar`.

use crate::features::math::hash;
use crate::features::{FEATURES, Facts, Vector};
use std::collections::HashMap;

/// Features in one byte each, scaled so that what matters for likeness weighs alike.
pub type Small = [i8; FEATURES];

/// What one unit of a feature is, by index: how many hundredths of it fill a step of the byte. Times weigh little:
/// alike is what does alike, whenever it was.
const fn weight(index: usize) -> i64 {
    match index {
        0..=5 => 60,
        6..=17 => 40,
        18 | 19 => 10,
        20..=27 => 3,
        28..=35 => 2,
        36..=38 | 40..=46 => 8,
        39 | 47 => 3,
        _ => 60,
    }
}

/// A vector in bytes.
#[must_use]
pub fn small(vector: &Vector) -> Small {
    let mut small = [0; FEATURES];
    for (index, (to, from)) in small.iter_mut().zip(vector.0).enumerate() {
        let scaled = i64::from(from) * weight(index) / 1000;
        *to = i8::try_from(scaled.clamp(-127, 127)).unwrap_or(0);
    }
    small
}

/// Sum of the differences.
#[must_use]
pub fn distance(a: &Small, b: &Small) -> u32 {
    let mut sum = 0_u16;
    for (a, b) in a.iter().zip(b) {
        sum = sum.saturating_add(u16::from(a.abs_diff(*b)));
    }
    u32::from(sum)
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It worked.
    Ok,
    /// It failed or was refused.
    Failed,
    /// Nothing says how: still running, or an event.
    Unknown,
}

impl Ending {
    /// In a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// An operation like the one asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Like {
    /// Leaf index of its intent or event.
    pub index: u64,
    /// How different it is; 0 for the same features.
    pub distance: u32,
    /// How it ended.
    pub ending: Ending,
}

/// All operations so far: their features and how they ended.
#[derive(Debug, Default)]
pub struct Operations {
    begun: Vec<(u64, u64, Small)>,
    endings: HashMap<u64, Ending>,
}

impl Operations {
    /// Takes the next record. An outcome belongs to the operation that it ends.
    pub fn push(&mut self, index: u64, record: &[u8], vector: &Vector) {
        let facts = Facts::read(record);
        let ending = match facts.meta.failed {
            true => Ending::Failed,
            false => Ending::Ok,
        };
        if facts.phase == hash(b"outcome") {
            self.endings.insert(facts.op_id, ending);
            return;
        }
        if facts.meta.has_result {
            // A refusal is an event that says by itself how it ended.
            self.endings.insert(index | EVENT, ending);
        }
        let op = if facts.op_id == 0 {
            index | EVENT
        } else {
            facts.op_id
        };
        self.begun.push((index, op, small(vector)));
    }

    /// The `most` operations most like the one that record `index` belongs to, of those begun before it; the nearest
    /// first, of equals the newest. `None` when the record is of no operation.
    #[must_use]
    pub fn like(&self, index: u64, most: usize) -> Option<Vec<Like>> {
        let at = self.begun.partition_point(|(other, ..)| *other < index);
        let (_, _, wanted) = self.begun.get(at).filter(|(other, ..)| *other == index)?;
        let mut all: Vec<Like> = self.begun[..at]
            .iter()
            .map(|(index, op, small)| Like {
                index: *index,
                distance: distance(wanted, small),
                ending: self.ending(*op),
            })
            .collect();
        let order = |like: &Like| (like.distance, std::cmp::Reverse(like.index));
        if all.len() > most {
            all.select_nth_unstable_by_key(most, order);
            all.truncate(most);
        }
        all.sort_by_key(order);
        Some(all)
    }

    fn ending(&self, op: u64) -> Ending {
        self.endings.get(&op).copied().unwrap_or(Ending::Unknown)
    }
}

/// Marks the key of what has no operation of its own.
const EVENT: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{Generations, History};
    use crate::record::{Draft, Phase, Stamp};
    use serde_json::json;

    fn record(height: u64, phase: Phase, op: u64, action: &str, result: Option<&str>) -> Vec<u8> {
        let mut metadata = serde_json::Map::new();
        match result {
            Some(result) => metadata.insert("result".into(), json!(result)),
            None => metadata.insert(format!("of-{action}"), json!(1)),
        };
        let draft = Draft {
            phase,
            op_id: format!("op{op}"),
            plugin_id: "qm".into(),
            category: "compute".into(),
            operation: if action == "qm-destroy" {
                "delete"
            } else {
                "create"
            }
            .into(),
            action: action.into(),
            resource: format!("vm:{op}"),
            user: "u".into(),
            uid: 1,
            pid: None,
            exe: None,
            unit: None,
            metadata,
        };
        let ts_us = i64::try_from(height).expect("small") * 60_000_000;
        draft
            .encode(&Stamp {
                height,
                prev_hash: &[0; 32],
                ts_us,
                hostname: "h",
            })
            .expect("a record")
    }

    #[test]
    fn the_likest_are_of_the_same_kind_and_say_how_they_ended() {
        let mut operations = Operations::default();
        let mut features = Generations::<History>::new(0);
        let mut index = 0;
        for op in 0..60 {
            let action = if op % 3 == 0 {
                "qm-destroy"
            } else {
                "qm-create"
            };
            let result = if op % 3 == 0 { "error" } else { "ok" };
            for (phase, result) in [(Phase::Intent, None), (Phase::Outcome, Some(result))] {
                let record = record(index + 1, phase, op, action, result);
                let vector = features.push(&record);
                operations.push(index, &record, &vector);
                index += 1;
            }
        }
        let like = operations.like(2 * 57, 10).expect("an intent");
        assert_eq!(like.len(), 10);
        assert!(
            like.iter()
                .all(|like| like.index % 6 == 0 && like.ending == Ending::Failed),
            "{like:?}"
        );
        assert!(
            like.iter().all(|like| like.index < 114),
            "only the past: {like:?}"
        );
        assert_eq!(
            operations.like(2 * 57 + 1, 10),
            None,
            "an outcome is no operation"
        );
        assert!(operations.like(0, 10).is_some_and(|like| like.is_empty()));
    }
}
