//! The derived view that operators read with `ls`, `jq` and `grep`: one JSON file for every 256 records, and an index.
//! Pure rendering and the running state for it; files are written by `writer::Writer::publish`, compared by `verify`.

use crate::features::Vector;
use crate::jcs::{self, JcsError};
use crate::merkle::{Frontier, Hash, hex, hex_digits, sha256};
use serde_json::{Value, json};

pub use crate::block_index::{
    INDEX, PAGE_BLOCKS, page_blocks, page_name, render_index, render_page,
};

/// Most records in one block.
pub const BLOCK_RECORDS: u64 = 256;

/// What a block says about itself; its hash covers exactly these fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockHead {
    /// Number of the block, from 1.
    pub block_id: u64,
    /// Time of its last record, in seconds since 1970 UTC.
    pub timestamp: i64,
    /// `block_hash` of the block before it; zeros for the first.
    pub previous_hash: Hash,
    /// Height of its first record.
    pub first_height: u64,
    /// Root of the tree up to and including its last record.
    pub merkle_root: Hash,
    /// Number of records in that tree.
    pub tree_size: u64,
}

impl BlockHead {
    pub(crate) fn value(&self) -> Value {
        json!({
            "block_id": self.block_id,
            "first_height": self.first_height,
            "merkle_root": hex(&self.merkle_root),
            "previous_hash": hex(&self.previous_hash),
            "timestamp": self.timestamp,
            "tree_size": self.tree_size,
        })
    }

    /// The JCS bytes of the same.
    fn canonical(&self) -> Vec<u8> {
        let write = || {
            let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            let mut out = jcs::Members::with_capacity(320);
            out.number("block_id", number(self.block_id))?;
            out.number("first_height", number(self.first_height))?;
            out.text("merkle_root", &hex(&self.merkle_root))?;
            out.text("previous_hash", &hex(&self.previous_hash))?;
            out.number("timestamp", self.timestamp)?;
            out.number("tree_size", number(self.tree_size))?;
            Ok::<_, JcsError>(out.finish())
        };
        // Fixed keys and numbers within range: this cannot fail; were it to, nothing is the bytes of no block.
        write().unwrap_or_default()
    }

    /// SHA-256 of the JCS bytes of the head: of the block without `block_hash` and `footprints`.
    #[must_use]
    pub fn hash(&self) -> Hash {
        sha256(&self.canonical())
    }

    /// File name of the block.
    #[must_use]
    pub fn file_name(&self) -> String {
        file_name(self.block_id)
    }
}

/// File name of a block.
#[must_use]
pub fn file_name(block_id: u64) -> String {
    format!("block_{block_id:010}.json")
}

/// The number of the block that a file name announces.
pub(crate) fn id_of(name: &str) -> Option<u64> {
    let id = name.strip_prefix("block_")?.strip_suffix(".json")?;
    let id = id.parse().ok().filter(|id| *id > 0)?;
    (file_name(id) == name).then_some(id)
}

/// The whole block file: the head's fields, `block_hash`, and the records with their `hash`, one a line; without the
/// features, which [`with_features`] adds.
#[must_use]
pub fn render_block<'a>(
    head: &BlockHead,
    records: impl Iterator<Item = (Hash, &'a [u8])>,
) -> Vec<u8> {
    let mut out = head_line(head);
    let mut separator: &[u8] = b"\n";
    for (leaf, record) in records {
        out.extend_from_slice(separator);
        out.extend_from_slice(record.strip_suffix(b"}").unwrap_or(record));
        out.extend_from_slice(b",\"hash\":\"");
        out.extend_from_slice(&hex_digits(&leaf));
        out.extend_from_slice(b"\"}");
        separator = b",\n";
    }
    out.extend_from_slice(b"\n]}\n");
    out
}

/// The first line of a block file: the head's fields and its hash.
fn head_line(head: &BlockHead) -> Vec<u8> {
    let fields = head.canonical();
    let mut out = fields.strip_suffix(b"}").unwrap_or(&fields).to_vec();
    let hash = hex(&sha256(&fields));
    out.extend_from_slice(format!(",\"block_hash\":\"{hash}\",\"footprints\":[").as_bytes());
    out
}

const FEATURES: &[u8] = b",\"vector_features\":";

/// A rendered block file with `vector_features` behind the `hash` of each record, in order.
#[must_use]
pub fn with_features(file: &[u8], vectors: &[Option<Vector>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(file.len() + vectors.len() * 400);
    let mut vectors = vectors.iter();
    each_line(file, |number, line, end| {
        let vector = if number == 0 {
            None
        } else {
            vectors.next().copied().flatten()
        };
        match (line.strip_suffix(b"}"), vector) {
            (Some(record), Some(vector)) if line != b"]}" => {
                out.extend_from_slice(record);
                out.extend_from_slice(FEATURES);
                vector.write_json(&mut out);
                out.push(b'}');
            }
            _ => out.extend_from_slice(line),
        }
        out.extend_from_slice(end);
    });
    out
}

/// The same file without features: what the segments alone say. A line with anything else than 64 numbers as they are
/// written stays as it is, and is then not what the segments say.
#[must_use]
pub fn without_features(file: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(file.len());
    each_line(file, |_, line, end| {
        match split_features(line) {
            Some((record, _)) => {
                out.extend_from_slice(record);
                out.push(b'}');
            }
            None => out.extend_from_slice(line),
        }
        out.extend_from_slice(end);
    });
    out
}

/// The features in a block file, by record; `None` for a record without.
#[must_use]
pub fn features_in(file: &[u8]) -> Vec<Option<Vector>> {
    let mut vectors = Vec::new();
    each_line(file, |number, line, _| {
        if number > 0 && line != b"]}" && !line.is_empty() {
            vectors.push(split_features(line).map(|(_, vector)| vector));
        }
    });
    vectors
}

/// Compares a block file with the records of its block as they are read, byte by byte and without making the file again.
/// Whatever it does not find to be the same is compared by making it: `verify` then also says what differs.
pub(crate) struct Comparison<'f> {
    file: &'f [u8],
    /// Length of the first line, without its end.
    head: usize,
    /// What comes before it is the same.
    at: usize,
    records: u64,
    same: bool,
}

impl<'f> Comparison<'f> {
    /// Of the file of a block whose records are about to come.
    pub fn of(file: &'f [u8]) -> Self {
        let head = memchr::memchr(b'\n', file).unwrap_or(file.len());
        Self {
            file,
            head,
            at: head,
            records: 0,
            same: true,
        }
    }

    /// The next record.
    pub fn record(&mut self, leaf: &Hash, record: &[u8]) {
        if self.same {
            let rest = self.file.get(self.at..).unwrap_or_default();
            match behind_record(rest, self.records > 0, leaf, record) {
                Some(after) => self.at = self.file.len() - after.len(),
                None => self.same = false,
            }
            self.records += 1;
        }
    }

    /// After the last record: is the file that of the block with this head, features apart?
    pub fn is_of(&self, head: &BlockHead) -> bool {
        let wanted = head.tree_size.checked_sub(head.first_height - 1);
        self.same
            && wanted == Some(self.records)
            && self.file.get(self.at..) == Some(b"\n]}\n")
            && self.file.get(..self.head) == Some(&head_line(head))
    }
}

/// What stands in a block file behind this record, if that is what the file goes on with.
fn behind_record<'f>(rest: &'f [u8], comma: bool, leaf: &Hash, record: &[u8]) -> Option<&'f [u8]> {
    let separator: &[u8] = if comma { b",\n" } else { b"\n" };
    let rest = rest.strip_prefix(separator)?;
    let rest = rest.strip_prefix(record.strip_suffix(b"}").unwrap_or(record))?;
    let rest = rest.strip_prefix(b",\"hash\":\"")?;
    let rest = rest.strip_prefix(&hex_digits(leaf)[..])?;
    let rest = rest.strip_prefix(b"\"")?;
    let rest = match rest.strip_prefix(FEATURES) {
        Some(list) => Vector::parse_front(list)?.1,
        None => rest,
    };
    rest.strip_prefix(b"}")
}

fn split_features(line: &[u8]) -> Option<(&[u8], Vector)> {
    // 64 numbers of at most 7 characters, and what is around them.
    let tail = line.len().saturating_sub(600);
    let at = line[tail..]
        .windows(FEATURES.len())
        .rposition(|window| window == FEATURES)?;
    let (record, features) = line.split_at(tail + at);
    let list = features.strip_prefix(FEATURES)?.strip_suffix(b"}")?;
    Some((record, Vector::parse_json(list)?))
}

/// Calls `each` with the number of the line, the line, and what ends it: a comma and a new line, or less.
fn each_line(file: &[u8], mut each: impl FnMut(usize, &[u8], &[u8])) {
    for (number, line) in file.split_inclusive(|b| *b == b'\n').enumerate() {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b",").unwrap_or(text);
        each(number, text, &line[text.len()..]);
    }
}

/// Follows the log record by record and knows the heads of all blocks.
#[derive(Debug, Clone, Default)]
pub struct BlockChain {
    closed: Vec<BlockHead>,
    frontier: Frontier,
    last_timestamp: i64,
}

impl BlockChain {
    /// Adds the next record; the head of its block when it is full now.
    pub fn push(&mut self, leaf: Hash, timestamp: i64) -> Option<&BlockHead> {
        self.frontier.push(leaf);
        self.last_timestamp = timestamp;
        if !self.frontier.size().is_multiple_of(BLOCK_RECORDS) {
            return None;
        }
        let head = self.head_here();
        self.closed.push(head);
        self.closed.last()
    }

    /// Adds all records up to the last one of `frontier`, none of them of a later block than the next; the head of the
    /// block when it is full now. `timestamp` is of the last of them.
    pub(crate) fn grow(&mut self, frontier: &Frontier, timestamp: i64) -> Option<&BlockHead> {
        self.frontier.clone_from(frontier);
        self.last_timestamp = timestamp;
        if !self.frontier.size().is_multiple_of(BLOCK_RECORDS) {
            return None;
        }
        let head = self.head_here();
        self.closed.push(head);
        self.closed.last()
    }

    /// Adds a whole block at once: the root of the tree over its 256 records, and the time of the last of them.
    /// Nothing happens when the block before it is not full.
    pub fn push_block(&mut self, root: Hash, timestamp: i64) {
        if self.frontier.push_subtree(8, root) {
            self.last_timestamp = timestamp;
            let head = self.head_here();
            self.closed.push(head);
        }
    }

    /// Heads of the blocks that are full.
    #[must_use]
    pub fn closed(&self) -> &[BlockHead] {
        &self.closed
    }

    /// Head of the block that is being filled, if it has a record.
    #[must_use]
    pub fn open(&self) -> Option<BlockHead> {
        (!self.frontier.size().is_multiple_of(BLOCK_RECORDS)).then(|| self.head_here())
    }

    fn head_here(&self) -> BlockHead {
        let number = self.closed.len() as u64;
        BlockHead {
            block_id: number + 1,
            timestamp: self.last_timestamp,
            previous_hash: self.closed.last().map_or([0; 32], BlockHead::hash),
            first_height: number * BLOCK_RECORDS + 1,
            merkle_root: self.frontier.root(),
            tree_size: self.frontier.size(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::leaf_hash;

    #[test]
    fn a_block_parses_back_and_its_hash_is_of_the_head_fields_alone() {
        let record = b"{\"a\":1}";
        let mut chain = BlockChain::default();
        chain.push(leaf_hash(record), 1_700_000_000);
        let head = chain.open().expect("one record");
        let bytes = render_block(&head, [(leaf_hash(record), &record[..])].into_iter());
        let mut block: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(
            block["footprints"][0],
            json!({"a": 1, "hash": hex(&leaf_hash(record))})
        );
        let map = block.as_object_mut().expect("object");
        map.remove("footprints");
        let hash = map.remove("block_hash").expect("has a hash");
        assert_eq!(hash, hex(&sha256(&jcs::to_vec(&block).expect("canonical"))));
        assert_eq!(head.canonical(), jcs::to_vec(&block).expect("canonical"));
    }

    #[test]
    fn a_block_file_is_the_same_to_both_comparisons_whatever_byte_is_changed_added_or_removed() {
        let records: [&[u8]; 3] = [b"{\"a\":1}", b"{\"a\":\"x,y\"}", b"{\"b\":[1,2]}"];
        let mut chain = BlockChain::default();
        for record in records {
            chain.push(leaf_hash(record), 1_700_000_000);
        }
        let head = chain.open().expect("three records");
        let pairs = || {
            records
                .into_iter()
                .map(|record| (leaf_hash(record), record))
        };
        let plain = render_block(&head, pairs());
        let mut vector = Vector([0; 64]);
        vector.0[..5].copy_from_slice(&[1500, -20, 32_767, i16::MIN, 100]);
        let full = with_features(&plain, &[Some(vector), None, Some(vector)]);
        let streamed = |file: &[u8]| {
            let mut file = Comparison::of(file);
            for (leaf, record) in pairs() {
                file.record(&leaf, record);
            }
            file.is_of(&head)
        };
        assert!(streamed(&plain) && streamed(&full));
        for place in 0..=full.len() {
            for byte in [b'0', b',', b'-', b'}', b'\n', 0] {
                let mut changed = full.clone();
                if let Some(old) = changed.get_mut(place) {
                    *old = byte;
                }
                let mut longer = full.clone();
                longer.insert(place, byte);
                for file in [&changed, &longer, &full[..place].to_vec()] {
                    let made = without_features(file) == plain;
                    // What is the same here must be the same there; never the other way round.
                    assert!(!streamed(file) || made, "byte {place}");
                    assert!(streamed(file) || !made || file != &full, "byte {place}");
                }
            }
        }
        let mut fewer = Comparison::of(&plain);
        fewer.record(&leaf_hash(records[0]), records[0]);
        assert!(!fewer.is_of(&head));
    }

    #[test]
    fn blocks_close_at_256_records_and_name_the_one_before() {
        let mut chain = BlockChain::default();
        assert!(chain.open().is_none());
        for i in 0..600_u64 {
            chain.push(
                leaf_hash(&i.to_be_bytes()),
                1_700_000_000 + i64::try_from(i).expect("small"),
            );
        }
        assert_eq!(chain.closed().len(), 2);
        let open = chain.open().expect("88 records");
        assert_eq!(
            (open.block_id, open.first_height, open.tree_size),
            (3, 513, 600)
        );
        assert_eq!(open.previous_hash, chain.closed()[1].hash());
        assert_eq!(chain.closed()[0].previous_hash, [0; 32]);
        let index: Value =
            serde_json::from_slice(&render_index("o", chain.closed(), Some(&open))).expect("JSON");
        assert_eq!(index["blocks"].as_array().expect("array").len(), 3);
        assert_eq!(index["tree_size"], 600);
    }
}
