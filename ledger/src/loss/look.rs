//! What of a ledger is intact, and what is wrong behind it: read by whoever wants to know, and again before anything is
//! given up. Changes nothing.

use super::aside::{behind, faulty};
use crate::dir::{self, FileError, LedgerDir, on};
use crate::merkle::Hash;
use crate::note::{Checkpoint, Vkey};
use crate::prune::{self, Gone};
use crate::scan::{self, Fault, Plan, Scan, ScanError, Signatures};
use rustix::fs::AtFlags;
use rustix::io::Errno;

/// What is intact and what is wrong behind it.
#[derive(Debug)]
pub struct Look {
    /// Records that are committed, signed and consistent.
    pub size: u64,
    /// Root over these.
    pub root: Hash,
    /// What is wrong with the segments.
    pub fault: Option<Box<Fault>>,
    /// The published head and the cosigned one, as their files say.
    pub known: [Option<(u64, Hash)>; 2],
    /// What is wrong with these files, or with the segments measured by them.
    pub known_faults: Vec<String>,
    /// Bytes of segments behind the intact part.
    pub lost_bytes: u64,
    /// Segments of the intact part of which only hashes, and what a pruning keeps, are there, and no intact record says
    /// that they were pruned. Where a loss cut that record off, they are as they were.
    pub gone: Vec<Gone>,
    pub(super) scan: Scan,
}

impl Look {
    /// Is there anything that keeps the agent from starting?
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.fault.is_some() || !self.known_faults.is_empty() || !self.gone.is_empty()
    }

    /// Records of the intact part whose payloads are gone without a record that says so.
    #[must_use]
    pub fn without_payloads(&self) -> u64 {
        self.gone.iter().map(|gone| gone.pruned.records).sum()
    }

    /// Everything that is wrong, as one text.
    #[must_use]
    pub fn why(&self) -> String {
        let fault = self.fault.iter().map(ToString::to_string);
        let gone = self.gone.iter().map(|gone| {
            let (first, last) = (gone.pruned.first_height, gone.pruned.last_height());
            format!(
                "the payloads of records {first} to {last} are gone, their hashes are there, and no intact record says that they were pruned"
            )
        });
        fault
            .chain(self.known_faults.iter().cloned())
            .chain(gone)
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// Reads everything and checks every signature; `key` is the log's first. Changes nothing.
///
/// # Errors
/// The system refused.
pub fn look(ledger: &LedgerDir, key: Option<&Vkey>) -> Result<Look, FileError> {
    let mut known = [None, None];
    let mut notes = Vec::new();
    let mut known_faults = Vec::new();
    for (known, name) in known.iter_mut().zip([dir::CHECKPOINT, dir::COSIGNED]) {
        let Some(bytes) = ledger.read(name, 64 * 1024)? else {
            continue;
        };
        let Ok(note) = String::from_utf8(bytes) else {
            known_faults.push(format!("{name}: it is not text"));
            continue;
        };
        match Checkpoint::parse_unverified(&note) {
            Ok(head) => {
                *known = Some((head.size, head.root));
                notes.push((name, note, head));
            }
            Err(error) => known_faults.push(format!("{name}: {error}")),
        }
    }
    let roots_at: Vec<u64> = notes.iter().map(|(.., head)| head.size).collect();
    let (mut scan, mut fault) = read(ledger, key, &roots_at, &[])?;
    // What a lost record said is judged apart, so that it is not taken for the end of what is intact.
    let mut gone = prune::unexplained(&scan)?;
    if !gone.is_empty() {
        (scan, fault) = read(ledger, key, &roots_at, &gone)?;
    }
    let (size, root) = match &fault {
        Some(fault) => (fault.good, fault.root),
        None => (scan.size(), scan.frontier.root()),
    };
    gone.retain(|gone| gone.pruned.last_height() <= size);
    for (name, note, head) in &notes {
        if head.size > size {
            known_faults.push(format!(
                "{name}: it says {} records, {size} are intact",
                head.size
            ));
        } else if !scan.roots.contains(&(head.size, head.root)) {
            known_faults.push(format!(
                "{name}: the first {} records have another root",
                head.size
            ));
        } else if let Some(Err(error)) = scan.epochs.as_ref().map(|epochs| epochs.open(note)) {
            known_faults.push(format!("{name}: {error}"));
        }
    }
    let lost_bytes = match &fault {
        Some(fault) => bytes_behind(ledger, fault)?,
        None => 0,
    };
    Ok(Look {
        size,
        root,
        fault,
        known,
        known_faults,
        lost_bytes,
        gone,
        scan,
    })
}

/// The scan and where it ended, taking the payloads that are `gone` for pruned.
fn read(
    ledger: &LedgerDir,
    key: Option<&Vkey>,
    roots_at: &[u64],
    gone: &[Gone],
) -> Result<(Scan, Option<Box<Fault>>), FileError> {
    let mut plan = Plan {
        key,
        signatures: Signatures::All,
        roots_at: roots_at.to_vec(),
        visit: &mut (),
        progress: &mut |_, _| {},
    };
    let mut scan = Scan::starting(&plan);
    scan.prunes = prune::given(gone);
    match scan::scan_into(ledger, &mut plan, &mut scan) {
        Ok(()) => Ok((scan, None)),
        Err(ScanError::Fault(fault)) => Ok((scan, Some(fault))),
        Err(ScanError::File(error)) => Err(error),
    }
}
fn bytes_behind(ledger: &LedgerDir, fault: &Fault) -> Result<u64, FileError> {
    let segments = match ledger.sub(dir::SEGMENTS) {
        Ok(segments) => segments,
        Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(0),
        Err(error) => return Err(error),
    };
    let length = |name: &str| match rustix::fs::statat(&segments, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(u64::try_from(stat.st_size).unwrap_or(0)),
        Err(Errno::NOENT) => Ok(0),
        Err(errno) => Err(on("look at", name)(errno)),
    };
    let mut bytes = 0_u64;
    for name in behind(&segments, fault)? {
        bytes = bytes.saturating_add(length(&name)?);
    }
    if fault.good_bytes > 0 {
        bytes = bytes.saturating_add(length(faulty(fault))?.saturating_sub(fault.good_bytes));
    }
    Ok(bytes)
}
