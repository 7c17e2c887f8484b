//! The whole check: frames, chain, heights, tree, every commit's signature, the published checkpoint, block files and
//! index, and a checkpoint kept elsewhere. Says the first wrong height and why. Needs no privileges and no agent.

use crate::blobs::{self, BlobIndex};
use crate::block_index;
use crate::blocks::{self, BLOCK_RECORDS, BlockChain, BlockHead, Comparison};
use crate::dir::{self, LedgerDir};
use crate::history::Cache;
use crate::merkle::{Hash, hex};
use crate::note::{Checkpoint, Vkey, short_name};
use crate::parallel::{Bundles, check_sealed};
use crate::policy::Policy;
use crate::reader::{ReadError, being_written, key_beside, steady};
use crate::record;
use crate::scan::{self, Body, Plan, Scan, ScanError, Signatures, Visit};
use crate::sealed::Records;
use crate::sealed_file::SealedError;
use serde::Serialize;
use serde_json::Value;
use std::collections::HashSet;

/// Largest block file: 256 records of at most 64 KiB, and their hashes.
const MAX_BLOCK_FILE: usize = 20 << 20;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// First height concerned, when there is one.
    pub height: Option<u64>,
    /// Where it was found: a file of the ledger.
    pub place: String,
    /// What is wrong, in a sentence.
    pub what: String,
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Nothing is wrong.
    pub ok: bool,
    /// Number of committed records that are consistent.
    pub records: u64,
    /// Root over them, hexadecimal.
    pub root: String,
    /// Number of commits, each with a verified signature.
    pub commits: u64,
    /// Number of segment files.
    pub segments: u64,
    /// Number of block files compared byte by byte.
    pub blocks: u64,
    /// Number of confidential payloads that are there and as they were.
    pub blobs: u64,
    /// Number of confidential payloads that a record says were shredded.
    pub shredded: u64,
    /// Size of the published checkpoint.
    pub published: Option<u64>,
    /// The key that signatures were checked with.
    pub key: Option<String>,
    /// The key came from outside of the ledger's directory.
    pub key_given: bool,
    /// Size of the largest checkpoint kept elsewhere that the history was compared with.
    pub trusted: Option<u64>,
    /// The keys of the log: number, verifier key, and how many records there were when it began.
    pub epochs: Vec<(u32, String, u64)>,
    /// Size of the newest head that enough witnesses cosigned, when a policy was given.
    pub witnessed: Option<u64>,
    /// Records whose payloads were pruned: of these the hashes were checked.
    pub pruned: Vec<crate::prune::Range>,
    /// What is wrong, the first wrong height first.
    pub problems: Vec<Problem>,
    /// What is not wrong but worth knowing.
    pub notes: Vec<String>,
}

/// What to compare with from outside of the ledger's directory.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The verifier key, kept elsewhere: the first key of the log.
    pub key: Option<Vkey>,
    /// Later keys that were kept elsewhere too, in order: the log must name exactly these before any others.
    pub later_keys: Vec<Vkey>,
    /// More signed checkpoints, kept elsewhere.
    pub checkpoints: Vec<String>,
    /// Witnesses and how many of them must have cosigned the head.
    pub witnesses: Option<Policy>,
    /// A signed checkpoint, kept elsewhere: detects truncation, rollback and rewriting even with the current key.
    pub checkpoint: Option<String>,
}

/// Verifies everything. `progress` is told bytes done and bytes in all.
///
/// # Errors
/// Only when the ledger cannot be read at all; what is wrong with it is in the report.
pub fn verify(
    ledger: &LedgerDir,
    trust: &Trust,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport, ReadError> {
    let mut report = verify_once(ledger, trust, progress)?;
    // A writer at work may publish between two of our steps; what is really wrong is still wrong a moment later.
    for _ in 0..3 {
        let settled = report
            .problems
            .iter()
            .all(|problem| problem.place.starts_with(dir::SEGMENTS));
        if report.ok || settled || !being_written(ledger) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        report = verify_once(ledger, trust, progress)?;
    }
    Ok(report)
}

fn verify_once(
    ledger: &LedgerDir,
    trust: &Trust,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport, ReadError> {
    let mut check = Check {
        problems: Vec::new(),
        notes: Vec::new(),
    };
    let key = match &trust.key {
        Some(key) => Some(key.clone()),
        None => key_beside(ledger).unwrap_or_else(|error| {
            check.problem(None, dir::VKEY, error.to_string());
            None
        }),
    };
    // Published files first: they never run ahead of the segments.
    let published = check.published(ledger, dir::CHECKPOINT, "published");
    let published_size = published.as_ref().map(|claim| claim.head.size);
    let mut claims: Vec<Claim> = published.into_iter().collect();
    // A log without witnesses has no such file.
    if ledger.identity(dir::COSIGNED)?.is_some() {
        claims.extend(check.published(ledger, dir::COSIGNED, "cosigned"));
    }
    let kept = trust.checkpoint.iter().chain(&trust.checkpoints);
    let kept: Vec<Claim> = kept.filter_map(|note| check.trusted(note)).collect();
    let trusted = kept.iter().map(|claim| claim.head.size).max();
    claims.extend(kept);
    let wanted: Vec<u64> = claims.iter().map(|claim| claim.head.size).collect();
    let blocks = || ledger.sub(dir::BLOCKS).ok();
    let mut chain = Chain::beside(blocks());
    let scanned = steady(ledger, || {
        chain = Chain::beside(blocks());
        let plan = &mut Plan {
            key: key.as_ref(),
            signatures: Signatures::All,
            roots_at: wanted.clone(),
            visit: &mut chain,
            progress,
        };
        scan::scan(ledger, plan)
    });
    let Chain {
        chain,
        blobs,
        mut same,
        given_up,
        ..
    } = chain;
    check.notes.extend(given_up);
    let mut report = VerifyReport {
        ok: false,
        records: 0,
        root: hex(&crate::merkle::empty_root()),
        commits: 0,
        segments: 0,
        blocks: 0,
        published: published_size,
        blobs: 0,
        shredded: 0,
        key: key.as_ref().map(ToString::to_string),
        key_given: trust.key.is_some(),
        trusted,
        epochs: Vec::new(),
        witnessed: None,
        pruned: Vec::new(),
        problems: Vec::new(),
        notes: Vec::new(),
    };
    match scanned {
        Err(ScanError::File(error)) => return Err(error.into()),
        Err(ScanError::Fault(fault)) => {
            report.records = fault.good;
            let place = fault.segment.clone();
            check.problem(
                Some(fault.height),
                &place,
                format!("byte {}: {}", fault.offset, fault.why),
            );
        }
        Ok(scan) => {
            report.records = scan.size();
            report.root = hex(&scan.frontier.root());
            report.commits = scan.commits;
            report.segments = scan.segments.len() as u64;
            let (wrong, sealed) = check_sealed(&scan, &SealedBlocks::of(ledger, &chain), progress);
            same.extend(sealed);
            for (height, error) in wrong {
                let place = match &error {
                    SealedError::File(error) => error.file.clone(),
                    SealedError::Damaged { file, .. } => file.clone(),
                };
                let what = match error {
                    SealedError::File(error) => error.to_string(),
                    SealedError::Damaged { why, .. } => why,
                };
                let place = format!("{}/{place}", dir::SEGMENTS);
                check.problem(Some(height), &place, what);
            }
            report.pruned = check.pruned(&scan);
            for claim in &claims {
                check.reaches(&scan, claim);
            }
            check.keys(&scan, &trust.later_keys);
            report.epochs = epochs_of(&scan);
            if let Some(policy) = &trust.witnesses {
                report.witnessed = check.witnesses(policy, &scan, &claims);
            }
            if scan.torn_bytes > 0 {
                check.notes.push(format!(
                    "{} bytes behind the last commit: an append going on or interrupted; not part of the history",
                    scan.torn_bytes
                ));
            }
            let found = blobs::check(ledger, &blobs)?;
            (report.blobs, report.shredded) = (found.present, found.shredded);
            for (height, place, what) in found.problems {
                check.problem(height, &place, what);
            }
            check.notes.extend(found.notes);
            let origin = key.as_ref().map(Vkey::name);
            report.blocks = check.blocks(
                ledger,
                &scan,
                (&chain, &same),
                origin,
                report.published.unwrap_or(0),
            )?;
        }
    }
    if key.is_none() {
        check.problem(
            None,
            dir::VKEY,
            "there is no verifier key: no signature was checked; give it with --key".to_owned(),
        );
    } else if !report.key_given {
        check.notes.push("the key was read beside the ledger: this shows that nothing is inconsistent, not that it is authentic; give the key kept elsewhere with --key".to_owned());
    }
    check
        .problems
        .sort_by_key(|problem| problem.height.unwrap_or(u64::MAX));
    report.ok = check.problems.is_empty();
    report.problems = check.problems;
    report.notes = check.notes;
    Ok(report)
}

/// A head that the history is compared with. Its signature is checked when the log's keys are known.
struct Claim {
    note: String,
    head: Checkpoint,
    place: &'static str,
    how: &'static str,
}

impl Claim {
    fn read(note: String, place: &'static str, how: &'static str) -> Result<Self, String> {
        let head = Checkpoint::parse_unverified(&note).map_err(|error| error.to_string())?;
        Ok(Self {
            note,
            head,
            place,
            how,
        })
    }
}

fn epochs_of(scan: &Scan) -> Vec<(u32, String, u64)> {
    let list = scan.epochs.iter().flat_map(|epochs| epochs.list());
    list.map(|epoch| (epoch.number, epoch.key.to_string(), epoch.after))
        .collect()
}

/// Follows the heads of blocks, and what is said of blobs. The records of logs are compared with their block files while
/// they are at hand; a file that is not found to be the same then is looked at once more, by itself.
#[derive(Default)]
struct Chain {
    chain: BlockChain,
    blobs: BlobIndex,
    blocks: Option<LedgerDir>,
    comparison: Option<Comparison>,
    /// Numbers of the blocks whose files are what the segments say.
    same: HashSet<u64>,
    /// What root gave up, in words.
    given_up: Vec<String>,
}

impl Chain {
    fn beside(blocks: Option<LedgerDir>) -> Self {
        Self {
            blocks,
            ..Self::default()
        }
    }
}

impl Visit for Chain {
    fn record(&mut self, index: u64, leaf: &Hash, bytes: &[u8]) {
        self.sealed_matters(index, bytes);
        if index.is_multiple_of(BLOCK_RECORDS) {
            let file = self.blocks.as_ref().and_then(|blocks| {
                let name = blocks::file_name(index / BLOCK_RECORDS + 1);
                blocks.read(&name, MAX_BLOCK_FILE).ok()?
            });
            self.comparison = file.map(Comparison::of);
        }
        if let Some(comparison) = &mut self.comparison {
            comparison.record(leaf, bytes);
        }
        let timestamp = record::timestamp_of(bytes).unwrap_or(0);
        if let Some(head) = self.chain.push(*leaf, timestamp)
            && self.comparison.take().is_some_and(|file| file.is_of(head))
        {
            self.same.insert(head.block_id);
        }
    }

    fn sealed_matters(&mut self, index: u64, bytes: &[u8]) {
        if let Some(record) = crate::loss::said_in(bytes) {
            let (facts, height) = (&record["metadata"], index + 1);
            self.given_up.push(format!(
                "record {height} says that root gave up what was behind record {}: {}; heads known then: {}. Checkpoints kept elsewhere may be beyond it",
                facts["kept_records"], facts["reason"], facts["known_heads"]
            ));
        }
        self.blobs.see(index, bytes);
    }

    fn sealed_record(&mut self, leaf: &Hash, bytes: &[u8]) {
        let timestamp = record::timestamp_of(bytes).unwrap_or(0);
        self.chain.push(*leaf, timestamp);
    }

    fn sealed_block(&mut self, root: &Hash, timestamp: i64) {
        self.chain.push_block(*root, timestamp);
    }
}

/// Compares sealed bundles with the files of their blocks, while their records are at hand.
struct SealedBlocks<'a> {
    blocks: Option<LedgerDir>,
    chain: &'a BlockChain,
}

impl<'a> SealedBlocks<'a> {
    fn of(ledger: &LedgerDir, chain: &'a BlockChain) -> Self {
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
        let file = self
            .blocks
            .as_ref()?
            .read(&head.file_name(), MAX_BLOCK_FILE);
        let mut file = Comparison::of(file.ok()??);
        for (leaf, record) in leaves.iter().zip(records.iter()) {
            file.record(leaf, record);
        }
        file.is_of(head).then_some(head.block_id)
    }
}

struct Check {
    problems: Vec<Problem>,
    notes: Vec<String>,
}

impl Check {
    fn problem(&mut self, height: Option<u64>, place: &str, what: String) {
        self.problems.push(Problem {
            height,
            place: place.to_owned(),
            what,
        });
    }

    /// A head that was published, if there is one.
    fn published(
        &mut self,
        ledger: &LedgerDir,
        place: &'static str,
        how: &'static str,
    ) -> Option<Claim> {
        let text = match ledger.read(place, 64 * 1024) {
            Ok(bytes) => String::from_utf8(bytes?).map_err(|_| "it is not text".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let claim = text.and_then(|note| Claim::read(note, place, how));
        claim.map_err(|error| self.problem(None, place, error)).ok()
    }

    fn trusted(&mut self, note: &str) -> Option<Claim> {
        let place = "the trusted checkpoint";
        Claim::read(note.to_owned(), place, "kept elsewhere")
            .map_err(|error| self.problem(None, place, error))
            .ok()
    }

    /// Are the keys that were kept elsewhere the log's?
    fn keys(&mut self, scan: &Scan, later: &[Vkey]) {
        let Some(epochs) = &scan.epochs else { return };
        for (number, kept) in (2_u32..).zip(later) {
            let found = epochs.list().iter().find(|epoch| epoch.number == number);
            let what = match found {
                Some(found) if found.key == *kept => continue,
                Some(found) => format!(
                    "epoch {number} has the key {}, the key kept elsewhere is {}: the history was rewritten from the record that began it",
                    short_name(&found.key),
                    short_name(kept)
                ),
                None => format!(
                    "the log does not reach epoch {number}, whose key {} was kept elsewhere: its end was cut off or an old copy was put back",
                    short_name(kept)
                ),
            };
            let height = found.map(|found| found.after);
            self.problem(height, dir::SEGMENTS, what);
        }
    }

    /// The newest head that enough witnesses cosigned.
    fn witnesses(&mut self, policy: &Policy, scan: &Scan, claims: &[Claim]) -> Option<u64> {
        let is_ours = |claim: &&Claim| {
            scan.roots.contains(&(claim.head.size, claim.head.root))
                && scan
                    .epochs
                    .as_ref()
                    .is_some_and(|epochs| epochs.open(&claim.note).is_ok())
        };
        let witnessed = claims
            .iter()
            .filter(is_ours)
            .filter(|claim| policy.check(&claim.note).is_ok_and(|found| found.enough))
            .map(|claim| claim.head.size)
            .max();
        match witnessed {
            None => self.problem(
                None,
                dir::COSIGNED,
                "no head of this log is cosigned by enough witnesses of the policy".to_owned(),
            ),
            Some(size) if size < scan.frontier.size() => self.notes.push(format!(
                "witnesses have cosigned the first {size} of {} records; the rest stands on the log's own word so far",
                scan.frontier.size()
            )),
            Some(_) => {}
        }
        witnessed
    }

    /// Does the history contain what a checkpoint says, and was it signed by the key of its time?
    fn reaches(&mut self, scan: &Scan, claim: &Claim) {
        let (checkpoint, place, how) = (&claim.head, claim.place, claim.how);
        let size = scan.frontier.size();
        // Beyond the end the key may be one of an epoch that was cut off; that it is cut off is said below.
        if checkpoint.size <= size
            && let Some(epochs) = &scan.epochs
            && let Err(error) = epochs.open(&claim.note)
        {
            return self.problem(None, place, error.to_string());
        }
        if size < checkpoint.size {
            let what = format!(
                "the head {how} has {} records, the ledger has only {size}: its end was cut off or an old copy was put back",
                checkpoint.size
            );
            self.problem(Some(size + 1), place, what);
        } else if !scan.roots.contains(&(checkpoint.size, checkpoint.root)) {
            let what = format!(
                "the first {} records do not have the root of the head {how}: the history was rewritten",
                checkpoint.size
            );
            self.problem(None, place, what);
        }
    }

    /// Says what is gone, and what should be.
    fn pruned(&mut self, scan: &Scan) -> Vec<crate::prune::Range> {
        let ranges = crate::prune::ranges(scan.gone());
        for range in &ranges {
            self.notes.push(format!(
                "the payloads of records {} to {} were pruned, as record {} says: their hashes and signatures were checked, their contents are gone",
                range.first, range.last, range.by
            ));
        }
        let waiting = scan
            .segments
            .iter()
            .filter(|segment| matches!(&segment.body, Body::Sealed(file) if file.has_payloads()));
        for pruned in waiting.filter_map(|segment| scan.prunes.get(&segment.first)) {
            self.notes.push(format!(
                "record {} says that records {} to {} are pruned, but they are there: an interrupted pruning, which the agent finishes when it starts",
                pruned.by, pruned.first_height, pruned.last_height()
            ));
        }
        ranges
    }

    /// Compares every block file, and the index, with what the segments say they must be.
    fn blocks(
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
