//! The whole check: frames, chain, heights, tree, every commit's signature, the published checkpoint, block files and
//! index, and a checkpoint kept elsewhere. Says the first wrong height and why. Needs no privileges and no agent.

mod claims;
mod features;
mod view;

pub use features::verify_features;

use crate::blobs;
use crate::dir::{self, LedgerDir};
use crate::merkle::hex;
use crate::note::Vkey;
use crate::parallel::{Pool, check_sealed};
use crate::policy::Policy;
use crate::reader::{ReadError, being_written, key_beside, steady};
use crate::scan::{self, Plan, Scan, ScanError, Signatures};
use crate::sealed_file::SealedError;
use claims::Claim;
use serde::Serialize;
use view::{Chain, SealedBlocks};

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
    /// Number of records whose features were computed again and compared, where that was asked for.
    pub features: Option<u64>,
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
    Pool::beside(|pool| verify_beside(ledger, trust, progress, pool))
}

fn verify_beside(
    ledger: &LedgerDir,
    trust: &Trust,
    progress: &mut dyn FnMut(u64, u64),
    pool: &Pool,
) -> Result<VerifyReport, ReadError> {
    let mut report = verify_once(ledger, trust, progress, pool)?;
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
        report = verify_once(ledger, trust, progress, pool)?;
    }
    Ok(report)
}

fn verify_once(
    ledger: &LedgerDir,
    trust: &Trust,
    progress: &mut dyn FnMut(u64, u64),
    pool: &Pool,
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
    let mut chain = Chain::beside(blocks(), pool);
    let scanned = steady(ledger, || {
        chain = Chain::beside(blocks(), pool);
        let plan = &mut Plan {
            key: key.as_ref(),
            signatures: Signatures::All,
            roots_at: wanted.clone(),
            visit: &mut chain,
            progress,
        };
        scan::scan_beside(ledger, plan, pool)
    });
    let mut same = chain.same();
    let Chain {
        chain,
        blobs,
        given_up,
        ..
    } = chain;
    // What is told while signatures are still being checked may turn out not to be history.
    let history = match &scanned {
        Err(ScanError::Fault(fault)) => fault.good,
        _ => u64::MAX,
    };
    let given_up = given_up.into_iter().filter(|(index, _)| *index < history);
    check.notes.extend(given_up.map(|(_, said)| said));
    let mut report = VerifyReport {
        ok: false,
        records: 0,
        root: hex(&crate::merkle::empty_root()),
        commits: 0,
        segments: 0,
        blocks: 0,
        features: None,
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

fn epochs_of(scan: &Scan) -> Vec<(u32, String, u64)> {
    let list = scan.epochs.iter().flat_map(|epochs| epochs.list());
    list.map(|epoch| (epoch.number, epoch.key.to_string(), epoch.after))
        .collect()
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
}
