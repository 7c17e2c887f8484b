//! Carrying out an accepted loss, up to the records that say so, and on from wherever it was killed.

use super::aside::{aside, cut, set_aside_blocks};
use super::{ACTION, BEGUN, Look, Loss, look};
use crate::blobs::BlobIndex;
use crate::dir::{self, FileError, LedgerDir, SHARED_FILE, on};
use crate::failpoint;
use crate::history::{Cache, Place};
use crate::keys::Signers;
use crate::merkle::{Hash, hex};
use crate::note::short_name;
use crate::prune::Gone;
use crate::record::{Draft, Phase};
use crate::refusal::OpenError;
use crate::scan::Scan;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use serde_json::{Map, Value, json};

/// Some hundred bytes for each segment whose payloads are gone.
const MAX_BEGUN_BYTES: usize = 64 << 20;

/// A loss that is being carried out, as [`BEGUN`] says: what would be forgotten on the way is in it.
#[derive(Debug)]
pub(crate) struct Begun {
    loss: Loss,
    known: Value,
    why: String,
    lost_bytes: u64,
    /// Whether anything is given up, beside payloads that are gone already.
    cut: bool,
    /// What has to be said anew: these payloads were pruned, and the record that said so is lost.
    gone: Vec<Gone>,
    /// Its own record is written, and those about `gone` are not.
    recorded: bool,
}

impl Begun {
    fn read(ledger: &LedgerDir) -> Result<Option<Self>, OpenError> {
        let Some(bytes) = ledger.read(BEGUN, MAX_BEGUN_BYTES)? else {
            return Ok(None);
        };
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let loss = Loss::of(&value["loss"])
            .map_err(|why| OpenError::Loss(format!("{BEGUN} in its directory: {why}")))?;
        let gone = value["gone"].as_array().into_iter().flatten();
        let gone = gone.map(Gone::parse).collect::<Option<Vec<Gone>>>();
        Ok(Some(Self {
            gone: gone.ok_or_else(|| OpenError::Loss(format!("{BEGUN} in its directory: gone")))?,
            cut: value["cut"] != false,
            recorded: false,
            loss,
            known: value["known"].clone(),
            why: value["why"].as_str().unwrap_or_default().to_owned(),
            lost_bytes: value["lost_bytes"].as_u64().unwrap_or(0),
        }))
    }

    fn write(&self, ledger: &LedgerDir) -> Result<(), FileError> {
        let gone: Vec<Value> = self.gone.iter().map(Gone::json).collect();
        let text = json!({"loss": self.loss.json(), "known": self.known, "why": self.why,
            "lost_bytes": self.lost_bytes, "cut": self.cut, "gone": gone});
        ledger.replace(BEGUN, text.to_string().as_bytes(), SHARED_FILE, true)
    }

    /// Sets aside payloads that only lost records speak of: a writer would remove them.
    pub fn keep_blobs(&self, ledger: &LedgerDir, index: &BlobIndex) -> Result<(), FileError> {
        let wanted = |hash: &Hash| index.get(hash).is_some();
        crate::blobs::each(
            ledger,
            &mut |dir, name| match crate::blobs::parse_hash(name).filter(|hash| !wanted(hash)) {
                Some(_) => aside(dir, name, &self.loss),
                None => Ok(()),
            },
        )
    }

    /// What a scan takes for pruned until the records say so.
    pub fn gone(&self) -> &[Gone] {
        &self.gone
    }

    /// The records that say so: of the loss, then of each segment whose payloads were pruned, as a pruning says it.
    pub fn drafts(&self) -> Vec<Draft> {
        let of_loss = self.draft();
        let mut heading = of_loss.clone();
        heading.metadata = Map::from_iter([("accepted_loss".to_owned(), json!(self.loss.id))]);
        let mut drafts: Vec<Draft> = self.gone.iter().map(|gone| gone.draft(&heading)).collect();
        if !self.recorded {
            drafts.insert(0, of_loss);
        }
        drafts
    }

    fn draft(&self) -> Draft {
        let mut metadata = Map::new();
        metadata.insert("accepted_at".to_owned(), json!(self.loss.time_s));
        metadata.insert("kept_records".to_owned(), json!(self.loss.size));
        metadata.insert("kept_root".to_owned(), json!(hex(&self.loss.root)));
        metadata.insert("known_heads".to_owned(), self.known.clone());
        metadata.insert("lost_bytes".to_owned(), json!(self.lost_bytes));
        metadata.insert("reason".to_owned(), json!(self.loss.reason));
        metadata.insert("request".to_owned(), json!(self.loss.id));
        metadata.insert("why".to_owned(), json!(self.why));
        if self.loss.without_payloads > 0 {
            let records = json!(self.loss.without_payloads);
            metadata.insert("without_payloads".to_owned(), records);
        }
        Draft {
            action: ACTION.to_owned(),
            resource: "ledger:log".to_owned(),
            metadata,
            ..crate::recover::recovery_draft(0, 0, "")
        }
    }

    /// It is on record.
    pub fn done(&self, ledger: &LedgerDir) -> Result<(), FileError> {
        failpoint::reach("loss-recorded", b"");
        match rustix::fs::unlinkat(ledger, BEGUN, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => ledger.sync(),
            Err(errno) => Err(on("remove", BEGUN)(errno)),
        }
    }

    fn is_recorded(&self, scan: &Scan) -> bool {
        let read = |place: Place| place.read(&Cache::default()).ok();
        let record = scan.place(self.loss.size).and_then(read);
        let record = record.and_then(|(_, bytes)| said_in(&bytes));
        record.is_some_and(|record| record["metadata"]["request"] == self.loss.id)
    }
}

/// Can this record say that a loss was accepted? Keys are sorted, so `action` comes first.
#[must_use]
pub(crate) fn concerns_loss(record: &[u8]) -> bool {
    record.starts_with(b"{\"action\":\"ledger-accept-loss\"")
}

/// The record, if it is one of ours that says that a loss was accepted.
pub(crate) fn said_in(record: &[u8]) -> Option<Value> {
    if !concerns_loss(record) {
        return None;
    }
    let record: Value = serde_json::from_slice(record).ok()?;
    let ours = record["plugin_id"] == "ledger" && record["phase"] == Phase::Recovery.as_str();
    ours.then_some(record)
}

/// Carries out what root accepted, up to the record, which the caller appends; `None` when nothing has to be given up.
/// Interrupted anywhere, the same request goes on; without one the ledger stays shut.
pub(crate) fn settle(
    ledger: &LedgerDir,
    signers: &Signers,
    loss: Option<&Loss>,
) -> Result<Option<Begun>, OpenError> {
    let mut begun = Begun::read(ledger)?;
    if begun.is_none() && loss.is_none() {
        return Ok(None);
    }
    let found = look(ledger, Some(signers.first()))?;
    if let Some(mut recorded) = begun.take_if(|begun| begun.is_recorded(&found.scan)) {
        // A batch that goes over the end of a segment is written in two parts.
        let left: Vec<Gone> = found.gone.clone();
        let only_that = found.fault.is_none() && found.known_faults.is_empty();
        if only_that && !left.is_empty() && left.iter().all(|gone| recorded.gone.contains(gone)) {
            recorded.gone = left;
            recorded.recorded = true;
            return Ok(Some(recorded));
        }
        recorded.done(ledger)?;
    }
    if begun.is_none() && !found.is_damaged() {
        return Ok(None);
    }
    let Some(loss) = loss else {
        return match begun {
            Some(begun) => Err(OpenError::Loss(format!(
                "giving up what is behind record {} was begun and is not finished",
                begun.loss.size
            ))),
            None => Ok(None),
        };
    };
    if (found.size, found.root) != (loss.size, loss.root) {
        return Err(OpenError::Loss(format!(
            "the request keeps {} records with root {}, but {} with root {} are intact",
            loss.size,
            hex(&loss.root),
            found.size,
            hex(&found.root)
        )));
    }
    if found.without_payloads() != loss.without_payloads {
        return Err(OpenError::Loss(format!(
            "the request accepts that the payloads of {} records are gone, but those of {} are, with no intact record that says why",
            loss.without_payloads,
            found.without_payloads()
        )));
    }
    if let Some(epochs) = &found.scan.epochs {
        let epoch = epochs.of_size(found.size.saturating_add(1));
        if !signers.have(epoch) {
            return Err(OpenError::NoKey {
                epoch: epoch.number,
                key: short_name(&epoch.key),
            });
        }
    }
    let cuts = found.fault.is_some() || !found.known_faults.is_empty();
    let begun = match begun {
        // What was known when it began is not on disk any more.
        Some(before) => Begun {
            loss: loss.clone(),
            cut: before.cut || cuts,
            gone: found.gone,
            ..before
        },
        None => Begun {
            loss: loss.clone(),
            known: known(&found),
            why: found.why().chars().take(2000).collect(),
            lost_bytes: found.lost_bytes,
            cut: cuts,
            gone: found.gone,
            recorded: false,
        },
    };
    begun.write(ledger)?;
    failpoint::reach("loss-begun", b"");
    if !begun.cut {
        return Ok(Some(begun));
    }
    cut(ledger, found.fault.as_deref(), loss)?;
    failpoint::reach("loss-cut", b"");
    set_aside_blocks(ledger, loss)?;
    for name in [dir::CHECKPOINT, dir::COSIGNED] {
        aside(ledger, name, loss)?;
        failpoint::reach("loss-head-set-aside", name.as_bytes());
    }
    ledger.sync()?;
    Ok(Some(begun))
}

fn known(found: &Look) -> Value {
    let mut known = Map::new();
    for (head, name) in found.known.iter().zip(["published", "cosigned"]) {
        if let Some((size, root)) = head.filter(|(size, _)| *size < 1 << 53) {
            known.insert(name.to_owned(), json!({"root": hex(&root), "size": size}));
        }
    }
    Value::Object(known)
}
