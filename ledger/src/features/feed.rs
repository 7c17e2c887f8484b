//! The features of the records in block files: computed once, kept while their block is written again and again, found
//! anew after a restart. Called by the writer when it publishes, after the answers.

use super::{Generations, Vector, replay_from};
use crate::blocks::{BLOCK_RECORDS, with_features};
use std::collections::BTreeMap;

/// Follows the log for the writer.
#[derive(Debug)]
pub(crate) struct Feed {
    generations: Generations,
    /// Features of records of blocks that are not published in full, by leaf index.
    kept: BTreeMap<u64, Vector>,
}

impl Feed {
    /// After a start with `size` records: replays what the features of those to come rest on, and of those in the blocks
    /// that are still to be written, whose numbers are `blocks` in order.
    pub(crate) fn open<E>(
        size: u64,
        blocks: &[u64],
        mut read: impl FnMut(u64) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let first = blocks
            .first()
            .map_or(size, |id| (id - 1) * BLOCK_RECORDS)
            .min(size);
        let mut feed = Self {
            generations: Generations::new(first),
            kept: BTreeMap::new(),
        };
        for index in replay_from(first)..size {
            let vector = feed.generations.push(&read(index)?);
            if blocks.binary_search(&(index / BLOCK_RECORDS + 1)).is_ok() {
                feed.kept.insert(index, vector);
            }
        }
        Ok(feed)
    }

    /// The features of the record with this leaf index: the next one, or one that is kept.
    fn vector(&mut self, index: u64, record: &[u8]) -> Option<Vector> {
        if self.generations.next() == index {
            let vector = self.generations.push(record);
            self.kept.insert(index, vector);
        }
        self.kept.get(&index).copied()
    }

    /// A block's file with the features of its records.
    pub(crate) fn add_to<'a>(
        &mut self,
        id: u64,
        file: &[u8],
        records: impl Iterator<Item = &'a [u8]>,
    ) -> Vec<u8> {
        let first = (id - 1) * BLOCK_RECORDS;
        let vectors: Vec<Option<Vector>> = (first..)
            .zip(records)
            .map(|(index, record)| self.vector(index, record))
            .collect();
        with_features(file, &vectors)
    }

    /// The block is full and written: what was kept for it is not needed any more.
    pub(crate) fn written(&mut self, id: u64) {
        let first = (id - 1) * BLOCK_RECORDS;
        let records: Vec<u64> = self
            .kept
            .range(first..first + BLOCK_RECORDS)
            .map(|(index, _)| *index)
            .collect();
        for index in records {
            self.kept.remove(&index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::without_features;

    fn record(index: u64) -> Vec<u8> {
        format!(
            "{{\"action\":\"a{}\",\"phase\":\"intent\",\"timestamp\":{}}}",
            index % 7,
            index * 50
        )
        .into_bytes()
    }

    fn file(from: u64, to: u64) -> Vec<u8> {
        let lines: Vec<String> = (from..to)
            .map(|index| {
                let record = String::from_utf8(record(index)).expect("text");
                let record = record.strip_suffix('}').expect("an object");
                format!("{record},\"hash\":\"{index:064x}\"}}")
            })
            .collect();
        format!("{{\"footprints\":[\n{}\n]}}\n", lines.join(",\n")).into_bytes()
    }

    fn published(feed: &mut Feed, id: u64, to: u64) -> Vec<u8> {
        let from = (id - 1) * BLOCK_RECORDS;
        let records: Vec<Vec<u8>> = (from..to).map(record).collect();
        feed.add_to(id, &file(from, to), records.iter().map(Vec::as_slice))
    }

    #[test]
    fn a_block_has_the_same_features_whenever_it_is_written() {
        let nothing = |_| Err("nothing to read");
        let mut steady = Feed::open(0, &[], nothing).expect("empty");
        let once = published(&mut steady, 1, 256);
        steady.written(1);
        assert!(steady.kept.is_empty());
        published(&mut steady, 2, 300);
        let open = published(&mut steady, 2, 400);
        // Started again in the middle of the second block, and with both blocks lost.
        let read = |index| Ok::<_, &str>(record(index));
        let mut later = Feed::open(350, &[2], read).expect("read");
        assert_eq!(published(&mut later, 2, 400), open);
        let mut all = Feed::open(400, &[1, 2], read).expect("read");
        assert_eq!(published(&mut all, 1, 256), once);
        assert_eq!(published(&mut all, 2, 400), open);
        assert_eq!(without_features(&open), file(256, 400));
        assert!(Feed::open(10, &[1], nothing).is_err());
    }
}
