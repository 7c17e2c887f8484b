//! The derived view beside the segments: block files, byte by byte, and their index. What is read anyway is compared while
//! it is at hand; a file that is not found to be the same then is made again, to say what differs.

use super::{Check, MAX_BLOCK_FILE};
use crate::blobs::BlobIndex;
use crate::block_index;
use crate::blocks::{self, BLOCK_RECORDS, BlockChain, BlockHead, Comparison};
use crate::dir::{self, LedgerDir};
use crate::history::Cache;
use crate::merkle::{Frontier, Hash};
use crate::parallel::{Bundles, Pool};
use crate::reader::ReadError;
use crate::record;
use crate::scan::{Scan, Stretch, Visit};
use crate::sealed::Records;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, OnceLock};

/// Comparisons that may wait for a worker: each holds the memory of its records.
const WAITING: usize = 8;

/// Follows the heads of blocks, and what is said of blobs. The records of logs are compared with their block files by
/// workers while they are at hand.
pub(super) struct Chain<'p> {
    pub chain: BlockChain,
    pub blobs: BlobIndex,
    /// What root gave up, with the index of the record that says so, in words.
    pub given_up: Vec<(u64, String)>,
    pool: &'p Pool,
    blocks: Option<Arc<LedgerDir>>,
    /// Records of the block that is not full yet, and the time of the last one.
    open: Vec<Stretch>,
    timestamp: i64,
    comparing: VecDeque<Arc<Compared>>,
    same: HashSet<u64>,
}

/// A block, its records, and whether its file is what they say.
struct Compared {
    blocks: Arc<LedgerDir>,
    head: BlockHead,
    records: Vec<Stretch>,
    same: OnceLock<bool>,
}

impl Compared {
    fn same(&self) -> bool {
        let look = || {
            let compare = |mut file: Comparison<'_>| {
                for (leaf, record) in self.records.iter().flat_map(Stretch::records) {
                    file.record(leaf, record);
                }
                file.is_of(&self.head)
            };
            with_file(&self.blocks, &self.head, compare).unwrap_or(false)
        };
        *self.same.get_or_init(look)
    }
}

/// Shows the file of a block, if it can be read.
fn with_file<R>(
    blocks: &LedgerDir,
    head: &BlockHead,
    look: impl FnOnce(Comparison<'_>) -> R,
) -> Option<R> {
    thread_local! {
        // The same memory for all of them: it costs more to get it than to read into it.
        static FILE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    FILE.with_borrow_mut(|file| {
        let read = blocks.read_into(&head.file_name(), MAX_BLOCK_FILE, file);
        read.is_ok_and(|there| there)
            .then(|| look(Comparison::of(file)))
    })
}

impl<'p> Chain<'p> {
    pub fn beside(blocks: Option<LedgerDir>, pool: &'p Pool) -> Self {
        Self {
            chain: BlockChain::default(),
            blobs: BlobIndex::default(),
            given_up: Vec::new(),
            pool,
            blocks: blocks.map(Arc::new),
            open: Vec::new(),
            timestamp: 0,
            comparing: VecDeque::new(),
            same: HashSet::new(),
        }
    }

    /// Numbers of the blocks whose files are what the segments say.
    pub fn same(&mut self) -> HashSet<u64> {
        self.settle(0);
        std::mem::take(&mut self.same)
    }

    /// Waits until at most so many comparisons wait.
    fn settle(&mut self, most: usize) {
        while self.comparing.len() > most
            && let Some(first) = self.comparing.pop_front()
        {
            if first.same() {
                self.same.insert(first.head.block_id);
            }
        }
    }
}

impl Visit for Chain<'_> {
    fn records(&mut self, first: u64, records: &Stretch) {
        for (number, record) in records.own() {
            self.sealed_matters(first + number as u64, record);
        }
        if let Some(last) = records.frames().last() {
            let last = records.piece.payload(last);
            self.timestamp = record::timestamp_of(last).unwrap_or(0);
        }
        match self.open.last_mut() {
            Some(last) if last.goes_on_with(&records.piece, records.frames.start) => {
                last.frames.end = records.frames.end;
            }
            _ => self.open.push(records.clone()),
        }
    }

    fn grown(&mut self, frontier: &Frontier) {
        let Some(head) = self.chain.grow(frontier, self.timestamp) else {
            return;
        };
        let records = std::mem::take(&mut self.open);
        let Some(blocks) = &self.blocks else {
            return;
        };
        let compared = Arc::new(Compared {
            blocks: Arc::clone(blocks),
            head: head.clone(),
            records,
            same: OnceLock::new(),
        });
        self.comparing.push_back(Arc::clone(&compared));
        self.pool.run(move || {
            compared.same();
        });
        self.settle(WAITING);
    }

    fn sealed_matters(&mut self, index: u64, bytes: &[u8]) {
        if let Some(record) = crate::loss::said_in(bytes) {
            let (facts, height) = (&record["metadata"], index + 1);
            let said = format!(
                "record {height} says that root gave up what was behind record {}: {}; heads known then: {}. Checkpoints kept elsewhere may be beyond it",
                facts["kept_records"], facts["reason"], facts["known_heads"]
            );
            self.given_up.push((index, said));
        }
        self.blobs.see(index, bytes);
    }

    fn sealed_record(&mut self, leaf: &Hash, bytes: &[u8]) {
        self.open.clear();
        let timestamp = record::timestamp_of(bytes).unwrap_or(0);
        self.chain.push(*leaf, timestamp);
    }

    fn sealed_block(&mut self, root: &Hash, timestamp: i64) {
        self.open.clear();
        self.chain.push_block(*root, timestamp);
    }
}

/// Compares sealed bundles with the files of their blocks, while their records are at hand.
pub(super) struct SealedBlocks<'a> {
    blocks: Option<LedgerDir>,
    chain: &'a BlockChain,
}

impl<'a> SealedBlocks<'a> {
    pub fn of(ledger: &LedgerDir, chain: &'a BlockChain) -> Self {
        Self {
            blocks: ledger.sub(dir::BLOCKS).ok(),
            chain,
        }
    }
}

impl Bundles for SealedBlocks<'_> {
    fn same(&self, first: u64, leaves: &[Hash], records: &Records) -> Option<u64> {
        let number = usize::try_from(first / BLOCK_RECORDS).ok()?;
        let head = self.chain.closed().get(number)?;
        if first + 1 != head.first_height {
            return None;
        }
        let compare = |mut file: Comparison<'_>| {
            for (leaf, record) in leaves.iter().zip(records.iter()) {
                file.record(leaf, record);
            }
            file.is_of(head)
        };
        let same = with_file(self.blocks.as_ref()?, head, compare)?;
        same.then_some(head.block_id)
    }
}

impl Check {
    /// Compares every block file, and the index, with what the segments say they must be.
    pub fn blocks(
        &mut self,
        ledger: &LedgerDir,
        scan: &Scan,
        (chain, same): (&BlockChain, &HashSet<u64>),
        origin: Option<&str>,
        published: u64,
    ) -> Result<u64, ReadError> {
        let dir = match ledger.sub(dir::BLOCKS) {
            Ok(dir) => dir,
            Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) && published == 0 => {
                return Ok(0);
            }
            Err(error) => {
                self.problem(None, dir::BLOCKS, error.to_string());
                return Ok(0);
            }
        };
        let mut heads: Vec<BlockHead> = chain.closed().to_vec();
        heads.extend(chain.open());
        let mut compared = 0;
        for head in &heads {
            let place = format!("{}/{}", dir::BLOCKS, head.file_name());
            if same.contains(&head.block_id) {
                compared += 1;
                continue;
            }
            if scan.pruned(head.first_height - 1).is_some() {
                if dir.identity(&head.file_name())?.is_some() {
                    self.notes.push(format!(
                        "{place} is of records that were pruned; the agent removes it when it starts"
                    ));
                }
                continue;
            }
            let Some(found) = dir.read(&head.file_name(), MAX_BLOCK_FILE)? else {
                if published >= head.first_height {
                    self.problem(
                        Some(head.first_height),
                        &place,
                        "the block file is missing; it is rebuilt when the agent starts".to_owned(),
                    );
                }
                continue;
            };
            compared += 1;
            // Features are derived once more, from the records; a file may be of before there were any.
            let found = blocks::without_features(&found);
            // What the published checkpoint does not cover may be of a moment ago.
            let earlier = if head.tree_size > published {
                earlier_head(head, &found, scan)
            } else {
                None
            };
            let expected = earlier.unwrap_or_else(|| head.clone());
            let rendered = match render(scan, &expected) {
                // It was said already that the segment is damaged.
                Err(ReadError::Changed { .. } | ReadError::File(_)) => continue,
                other => other?,
            };
            if rendered != found {
                let height = first_difference(scan, &expected, &found)?;
                let what = "the block file is not what the segments say; remove it, it is rebuilt when the agent starts";
                self.problem(Some(height), &place, what.to_owned());
            }
        }
        let known: HashSet<String> = heads.iter().map(BlockHead::file_name).collect();
        for name in dir.names()? {
            if name.starts_with("block_") && !known.contains(&name) {
                self.problem(
                    None,
                    &format!("{}/{name}", dir::BLOCKS),
                    "a block file of records that the ledger does not have".to_owned(),
                );
            }
        }
        if let Some(origin) = origin {
            self.index(&dir, scan, chain, origin, published)?;
        }
        Ok(compared)
    }

    fn index(
        &mut self,
        dir: &LedgerDir,
        scan: &Scan,
        chain: &BlockChain,
        origin: &str,
        published: u64,
    ) -> Result<(), ReadError> {
        let place = format!("{}/{}", dir::BLOCKS, blocks::INDEX);
        let Some(found) = dir.read(blocks::INDEX, 1 << 30)? else {
            if published > 0 {
                self.problem(
                    None,
                    &place,
                    "the index is missing; it is rewritten when the agent starts".to_owned(),
                );
            }
            return Ok(());
        };
        let size = serde_json::from_slice::<Value>(&found)
            .ok()
            .and_then(|index| index.get("tree_size")?.as_u64());
        let size = size.unwrap_or(0).min(scan.size());
        let full = usize::try_from(size / BLOCK_RECORDS)
            .unwrap_or(usize::MAX)
            .min(chain.closed().len());
        let closed = &chain.closed()[..full];
        let mut open = None;
        if !size.is_multiple_of(BLOCK_RECORDS) {
            let base = chain.closed().get(full).cloned().or_else(|| chain.open());
            open = base.and_then(|base| head_at(scan, &base, size));
        }
        if let Some((page, what)) = block_index::wrong_page(dir, origin, chain.closed(), full)? {
            let place = format!("{}/{page}", dir::BLOCKS);
            let what = format!("{what}; remove it, it is rewritten when the agent starts");
            self.problem(None, &place, what);
        }
        if blocks::render_index(origin, closed, open.as_ref()) != found {
            self.problem(None, &place, "the index is not what the segments say; remove it, it is rewritten when the agent starts".to_owned());
        }
        Ok(())
    }
}

/// The head of the same block with fewer records, if that is what the file claims to be.
fn earlier_head(head: &BlockHead, found: &[u8], scan: &Scan) -> Option<BlockHead> {
    let size = serde_json::from_slice::<Value>(found)
        .ok()?
        .get("tree_size")?
        .as_u64()?;
    if (head.first_height..head.tree_size).contains(&size) {
        head_at(scan, head, size)
    } else {
        None
    }
}

/// The head that `head`'s block had when the tree had `size` records.
fn head_at(scan: &Scan, head: &BlockHead, size: u64) -> Option<BlockHead> {
    if size == head.tree_size {
        return Some(head.clone());
    }
    let last = bytes_of(scan, size.checked_sub(1)?).ok()??;
    Some(BlockHead {
        tree_size: size,
        merkle_root: scan.root_of_range(0, size).ok()?,
        timestamp: record::timestamp_of(&last)?,
        ..head.clone()
    })
}

fn bytes_of(scan: &Scan, index: u64) -> Result<Option<Vec<u8>>, ReadError> {
    let Some(place) = scan.place(index) else {
        return Ok(None);
    };
    match place.read(&Cache::default()) {
        Ok((_, bytes)) => Ok(Some(bytes)),
        Err(error) => Err(ReadError::of(index, scan.size(), error)),
    }
}

fn render(scan: &Scan, head: &BlockHead) -> Result<Vec<u8>, ReadError> {
    let mut records = Vec::new();
    let cache = Cache::default();
    for index in head.first_height - 1..head.tree_size {
        if let Some(place) = scan.place(index) {
            let read = place.read(&cache);
            records.push(read.map_err(|error| ReadError::of(index, scan.size(), error))?);
        }
    }
    Ok(blocks::render_block(
        head,
        records
            .iter()
            .map(|(leaf, bytes)| (*leaf, bytes.as_slice())),
    ))
}

/// The first height whose line in a block file differs.
fn first_difference(scan: &Scan, head: &BlockHead, found: &[u8]) -> Result<u64, ReadError> {
    let expected = render(scan, head)?;
    // The first line is the head's; records follow, one a line, with a comma behind all but the last.
    let lines = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let records = bytes.split(|b| *b == b'\n').skip(1);
        records
            .map(|line| line.strip_suffix(b",").unwrap_or(line).to_vec())
            .collect()
    };
    let same = lines(&expected)
        .iter()
        .zip(lines(found))
        .take_while(|(a, b)| **a == *b)
        .count();
    let records = head.tree_size + 1 - head.first_height;
    // All records alike: then it is the head that was changed.
    Ok(if same as u64 > records {
        head.first_height
    } else {
        head.first_height + same as u64
    })
}
