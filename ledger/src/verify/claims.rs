//! What the history is compared with: heads that were published, cosigned or kept elsewhere, keys kept elsewhere, and what
//! records say of payloads that are gone.

use super::Check;
use crate::dir::{self, LedgerDir};
use crate::note::{Checkpoint, Vkey, short_name};
use crate::policy::Policy;
use crate::scan::{Body, Scan};

/// A head that the history is compared with. Its signature is checked when the log's keys are known.
pub(super) struct Claim {
    pub note: String,
    pub head: Checkpoint,
    pub place: &'static str,
    pub how: &'static str,
}

impl Claim {
    pub fn read(note: String, place: &'static str, how: &'static str) -> Result<Self, String> {
        let head = Checkpoint::parse_unverified(&note).map_err(|error| error.to_string())?;
        Ok(Self {
            note,
            head,
            place,
            how,
        })
    }
}

impl Check {
    /// A head that was published, if there is one.
    pub fn published(
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

    pub fn trusted(&mut self, note: &str) -> Option<Claim> {
        let place = "the trusted checkpoint";
        Claim::read(note.to_owned(), place, "kept elsewhere")
            .map_err(|error| self.problem(None, place, error))
            .ok()
    }

    /// Are the keys that were kept elsewhere the log's?
    pub fn keys(&mut self, scan: &Scan, later: &[Vkey]) {
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
    pub fn witnesses(&mut self, policy: &Policy, scan: &Scan, claims: &[Claim]) -> Option<u64> {
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
    pub fn reaches(&mut self, scan: &Scan, claim: &Claim) {
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
    pub fn pruned(&mut self, scan: &Scan) -> Vec<crate::prune::Range> {
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
}
