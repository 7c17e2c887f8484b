//! A sealed segment in a scan: its hashes, keys and cosignatures, and whether its payloads may be gone. Its records are
//! checked when they are read, all of them by `verify`.

use super::{Body, Plan, Scan, ScanError, Segment, Signatures, fault, fault_at};
use crate::dir::LedgerDir;
use crate::merkle::{Hash, hex};
use crate::sealed;
use crate::sealed_file::{SealedError, SealedFile};
use crate::segment::Cosigned;
use std::sync::Arc;

/// A sealed segment is good as a whole or not at all: what was read of it before the fault is not.
pub(super) fn from_its_beginning(error: ScanError, (good, root): (u64, Hash)) -> ScanError {
    match error {
        ScanError::Fault(mut fault) => {
            (fault.good, fault.root) = (good, root);
            ScanError::Fault(fault)
        }
        other => other,
    }
}

impl Scan {
    /// Adds a sealed segment by its hashes.
    pub(super) fn read_sealed(
        &mut self,
        dir: &Arc<LedgerDir>,
        first: u64,
        name: &str,
        plan: &mut Plan<'_>,
    ) -> Result<(), ScanError> {
        let broken = |scan: &Scan, error| match error {
            SealedError::File(error) => ScanError::File(error),
            SealedError::Damaged { place, file, why } => {
                fault_at(scan, &file, 0, first.saturating_add(place + 1), why)
            }
        };
        let file = SealedFile::open(dir, first).map_err(|error| broken(self, error))?;
        let seal = &file.seal;
        if seal.root_before != self.frontier.root() || seal.prev != self.last_leaf() {
            let why = "it does not continue the segment before it".to_owned();
            return Err(fault(self, name, 0, why));
        }
        let mut read: Option<(usize, sealed::Records)> = None;
        for place in &seal.matters {
            if let Some(record) = file.kept(u64::from(*place)) {
                let index = first + u64::from(*place);
                self.note_pruning(index, record);
                plan.visit.sealed_matters(index, record);
                continue;
            }
            let (bundle, index) = crate::history::split(u64::from(*place));
            if read.as_ref().is_none_or(|(number, _)| *number != bundle) {
                let records = file.records(bundle);
                read = Some((bundle, records.map_err(|error| broken(self, error))?));
            }
            if let Some(record) = read.as_ref().and_then(|(_, records)| records.get(index)) {
                self.note_pruning(first + u64::from(*place), record);
                plan.visit.sealed_matters(first + u64::from(*place), record);
            }
        }
        let good = self.frontier.clone();
        let mut asked: Vec<(u64, Hash)> = Vec::new();
        for (number, bundle) in seal.bundles.iter().enumerate() {
            let records = seal.records_in(number);
            let end = self.frontier.size() + records;
            let whole = records == sealed::BUNDLE_RECORDS
                && self.frontier.size().is_multiple_of(sealed::BUNDLE_RECORDS);
            let inside = |size: &u64| (self.frontier.size() + 1..end).contains(size);
            let epoch = seal.epochs.iter().any(|(_, commit)| inside(&commit.size));
            if whole && !epoch && !plan.roots_at.iter().any(inside) {
                self.frontier.push_subtree(8, bundle.root);
                self.note_root(plan);
                asked.push((end, self.frontier.root()));
                plan.visit.sealed_block(&bundle.root, bundle.timestamp);
                continue;
            }
            let leaves = file.leaves(number).map_err(|error| broken(self, error))?;
            for leaf in &leaves {
                self.frontier.push(*leaf);
                self.note_root(plan);
                asked.push((self.frontier.size(), self.frontier.root()));
            }
            if whole {
                plan.visit.sealed_block(&bundle.root, bundle.timestamp);
                continue;
            }
            let records = file.records(number).map_err(|error| broken(self, error))?;
            for (leaf, bytes) in leaves.iter().zip(records.iter()) {
                plan.visit.sealed_record(leaf, bytes);
            }
        }
        let commit = seal.commit;
        if commit.size != self.frontier.size() || commit.root != self.frontier.root() {
            self.frontier = good;
            let why = format!(
                "the commit signs {} records with root {}, but the hashes kept here have another root: they were changed",
                commit.size,
                hex(&commit.root),
            );
            return Err(fault(self, name, 0, why));
        }
        if let Err(why) = self.sealed_trust(&file, &asked, plan) {
            self.frontier = good;
            return Err(fault(self, name, 0, why));
        }
        let last = file.last_leaf().map_err(|error| broken(self, error))?;
        self.last_commit = Some(commit);
        self.commits += 1;
        self.segments.push(Segment {
            first,
            last,
            body: Body::Sealed(Arc::new(file)),
        });
        Ok(())
    }

    /// Follows the keys and the cosignatures of a sealed segment. `roots` are those of all sizes that matter.
    fn sealed_trust(
        &mut self,
        file: &SealedFile,
        roots: &[(u64, Hash)],
        plan: &Plan<'_>,
    ) -> Result<(), String> {
        let seal = &file.seal;
        let all = plan.signatures == Signatures::All;
        for (place, commit) in &seal.epochs {
            if !roots.contains(&(commit.size, commit.root)) {
                return Err("the commit that begins an epoch is of another history".to_owned());
            }
            let record = file.record(u64::from(*place));
            let record = record.map_err(|error| error.to_string())?;
            if let Some(epochs) = &mut self.epochs {
                epochs.accept(commit, Some(&record), true)?;
            }
        }
        let begins = seal.epochs.last();
        if let Some(epochs) = &mut self.epochs
            && begins.is_none_or(|(_, commit)| commit.size < seal.commit.size)
        {
            epochs.accept(&seal.commit, None, all)?;
        }
        if seal.cosigned.is_empty() {
            return Ok(());
        }
        let cosigned = Cosigned::decode(&seal.cosigned).filter(|head| head.size <= self.size());
        let cosigned =
            cosigned.ok_or("its cosignatures are of a head that the log does not have")?;
        let newest = self.cosigned.as_ref().map_or(0, |newest| newest.size);
        if cosigned.size >= newest {
            self.cosigned = Some(cosigned);
        }
        Ok(())
    }

    /// Is there a record for each segment without payloads?
    pub(super) fn may_be_gone(&self) -> Result<(), ScanError> {
        for segment in &self.segments {
            let Body::Sealed(file) = &segment.body else {
                continue;
            };
            let said = match self.prunes.get(&segment.first) {
                Some(pruned) => file.believe(pruned),
                None if file.has_payloads() => Ok(()),
                None => Err(file.missing()),
            };
            match said {
                Ok(()) => {}
                Err(SealedError::File(error)) => return Err(error.into()),
                Err(SealedError::Damaged {
                    file: name, why, ..
                }) => {
                    let mut told = fault_at(self, &name, 0, segment.first + 1, why);
                    if let ScanError::Fault(fault) = &mut told {
                        fault.good = segment.first;
                        fault.root = file.seal.root_before;
                        // Good as a whole or not at all.
                        fault.good_bytes = 0;
                    }
                    return Err(told);
                }
            }
        }
        Ok(())
    }
}
