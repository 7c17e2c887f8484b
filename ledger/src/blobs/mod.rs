//! Confidential payloads beside the log: `blobs/ab/<sha256>`, each an `age` file that a record commits to by the hash of
//! its ciphertext. Encrypting is the caller's; the root agent's ledger process writes and erases here, anybody verifies.

mod store;

use crate::dir::{FileError, LedgerDir, on};
use crate::merkle::{Hash, hex, sha256};
use crate::record::{Draft, Phase};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
pub use store::{EraseError, PutError, Quota, Store, Write};

/// Sub-directory of the blobs.
pub const BLOBS: &str = "blobs";
/// Largest blob that is read back, in bytes. The catalog's limit for what is taken in is smaller.
pub const MAX_BLOB_BYTES: usize = 1 << 20;
/// Part of the product that these records name. A client's event always says `event`.
pub const PLUGIN: &str = "ledger";
/// Action of a record that commits to a blob.
pub const PUT: &str = "ledger-blob";
/// Action of the records about an erasure.
pub const SHRED: &str = "ledger-shred";
/// Free space of the file system that blobs leave to the log, in bytes.
pub const KEPT_FREE_BYTES: u64 = 32 << 20;

/// What the log says about one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Height of the first record that commits to it.
    pub height: u64,
    /// Size of the ciphertext, in bytes.
    pub bytes: u64,
    /// What became of it.
    pub state: State,
}

/// Whether a blob is to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is.
    Kept,
    /// The record of that height announced its erasure, and nothing says yet that it was done.
    Shredding(u64),
    /// The record of that height says that it was erased (0 where it was done in this run).
    Shredded(u64),
}

/// Everything that the log says about blobs. Feed it the records in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlobIndex {
    blobs: BTreeMap<Hash, Blob>,
    /// Number and bytes of those that were not shredded.
    kept: (u64, u64),
    /// Shreddings under way, by their `op_id`.
    open: HashMap<String, Hash>,
}

impl BlobIndex {
    /// Takes in what a record says, if it is about blobs. Almost all are not, and cost a comparison.
    pub fn see(&mut self, index: u64, record: &[u8]) {
        if !concerns_blobs(record) {
            return;
        }
        let Ok(record) = serde_json::from_slice::<Value>(record) else {
            return;
        };
        // What a client calls so is its own event.
        if record["plugin_id"] != PLUGIN {
            return;
        }
        let height = index + 1;
        let op_id = record["op_id"].as_str().unwrap_or_default();
        let named = record["resource"].as_str().and_then(parse_resource);
        match (record["action"].as_str(), record["phase"].as_str()) {
            (Some(PUT), Some("event")) => {
                let blob = &record["metadata"]["blob"];
                let hash = blob["sha256"].as_str().and_then(parse_hash);
                if let (Some(hash), Some(bytes)) = (hash, blob["bytes"].as_u64()) {
                    self.committed(hash, height, bytes);
                }
            }
            (Some(SHRED), Some("intent")) => {
                if let Some(hash) = named {
                    self.open.insert(op_id.to_owned(), hash);
                    self.set(hash, State::Shredding(height));
                }
            }
            (Some(SHRED), Some("shred")) => {
                if let Some(hash) = named {
                    self.set(hash, State::Shredded(height));
                }
            }
            (Some(SHRED), Some("outcome")) => {
                // One that failed, or was refused, left the blob as it was.
                if let Some(hash) = self.open.remove(op_id) {
                    self.set(hash, State::Kept);
                }
            }
            _ => {}
        }
    }

    /// What the log says about a blob.
    #[must_use]
    pub fn get(&self, hash: &Hash) -> Option<&Blob> {
        self.blobs.get(hash)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Hash, &Blob)> {
        self.blobs.iter()
    }

    /// Number and bytes of those that are to be there.
    #[must_use]
    pub fn kept(&self) -> (u64, u64) {
        self.kept
    }

    fn committed(&mut self, hash: Hash, height: u64, bytes: u64) {
        self.blobs.entry(hash).or_insert_with(|| {
            self.kept = (self.kept.0 + 1, self.kept.1.saturating_add(bytes));
            Blob {
                height,
                bytes,
                state: State::Kept,
            }
        });
    }

    /// What was shredded stays so, whatever comes later.
    fn set(&mut self, hash: Hash, state: State) {
        if let Some(blob) = self.blobs.get_mut(&hash)
            && !matches!(blob.state, State::Shredded(_))
        {
            blob.state = state;
            if let State::Shredded(_) = state {
                self.kept = (self.kept.0 - 1, self.kept.1.saturating_sub(blob.bytes));
            }
        }
    }
}

/// Can this record be one about blobs? Keys are sorted, so `action` is the first field of every record.
#[must_use]
pub fn concerns_blobs(record: &[u8]) -> bool {
    record
        .strip_prefix(b"{\"action\":\"ledger-")
        .is_some_and(|rest| rest.starts_with(b"blob\"") || rest.starts_with(b"shred\""))
}

/// The `resource` of a record about that blob.
#[must_use]
pub fn resource(hash: &Hash) -> String {
    format!("blob:{}", hex(hash))
}

/// The blob that a record's `resource` names.
#[must_use]
pub fn parse_resource(resource: &str) -> Option<Hash> {
    parse_hash(resource.strip_prefix("blob:")?)
}

/// 64 lower-case hexadecimal digits.
#[must_use]
pub fn parse_hash(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * hash.len() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(hash)
}

/// The `metadata` of the record that commits to a blob. `event` says what happened, `data` what may be read by all.
#[must_use]
pub fn metadata(
    hash: &Hash,
    bytes: usize,
    event: &str,
    data: &Map<String, Value>,
) -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert(
        "blob".to_owned(),
        json!({"bytes": bytes, "sha256": hex(hash)}),
    );
    metadata.insert("event".to_owned(), event.into());
    if !data.is_empty() {
        metadata.insert("data".to_owned(), Value::Object(data.clone()));
    }
    metadata
}

/// The record "this blob was erased", from the heading of its intent.
#[must_use]
pub fn shred_record(intent: &Draft, hash: &Hash, facts: Map<String, Value>) -> Draft {
    let mut metadata = facts;
    metadata.insert("sha256".to_owned(), hex(hash).into());
    Draft {
        phase: Phase::Shred,
        metadata,
        ..intent.clone()
    }
}

/// The bytes of a blob, or `None` when it is not there; the caller compares the hash.
///
/// # Errors
/// The system refused, or the file is larger than any blob.
pub fn read(ledger: &LedgerDir, hash: &Hash) -> Result<Option<Vec<u8>>, FileError> {
    let name = hex(hash);
    match sub_of(ledger, &name)? {
        Some(dir) => dir.read(&name, MAX_BLOB_BYTES),
        None => Ok(None),
    }
}

/// What is wrong with the files, and what is worth knowing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Blobs that are there and as they were.
    pub present: u64,
    /// Blobs that were shredded, by record.
    pub shredded: u64,
    /// Height of the record concerned, file, what is wrong with it.
    pub problems: Vec<(Option<u64>, String, String)>,
    /// What a start of the agent will mend, or of no consequence.
    pub notes: Vec<String>,
}

/// Compares the files with what the log says.
///
/// # Errors
/// The directory cannot be read.
pub fn check(ledger: &LedgerDir, index: &BlobIndex) -> Result<Findings, FileError> {
    let mut findings = Findings::default();
    for (hash, blob) in index.iter() {
        let name = hex(hash);
        let place = format!("{BLOBS}/{}/{name}", &name[..2]);
        let mut wrong = |what: String| {
            findings
                .problems
                .push((Some(blob.height), place.clone(), what));
        };
        let found = read(ledger, hash);
        match (found, blob.state) {
            (Ok(None), State::Shredded(_)) => findings.shredded += 1,
            (Ok(None), State::Shredding(by)) => findings.notes.push(format!(
                "{place}: erased by the shredding that record {by} began; the next start of the agent records that it is done"
            )),
            (Ok(None), State::Kept) => wrong(
                "the blob that this record commits to is missing, and no shred record says that it was erased".to_owned(),
            ),
            (Ok(Some(bytes)), State::Kept | State::Shredding(_)) if sha256(&bytes) == *hash => {
                findings.present += 1;
            }
            (Ok(Some(_)), State::Kept | State::Shredding(_)) => wrong(
                "the blob is not the one that this record commits to: it was altered".to_owned(),
            ),
            (Ok(Some(_)), State::Shredded(by)) => wrong(format!(
                "the blob is there although record {by} says that it was shredded: it was put back"
            )),
            (Err(error), _) => wrong(format!("the blob cannot be read: {error}")),
        }
    }
    for (_, name) in files(ledger)? {
        let known = parse_hash(&name).is_some_and(|hash| index.get(&hash).is_some());
        if let Some((_, hash)) = name.split_once('.')
            && name.starts_with("lost-")
            && parse_hash(hash).is_some()
        {
            findings.notes.push(format!(
                "{BLOBS}: the payload {hash} was set aside when a loss was accepted; it stays until somebody removes it"
            ));
        } else if !known {
            findings.notes.push(format!(
                "{BLOBS}: no record commits to {:?}; what a killed writer left is removed when the agent starts",
                name.chars().take(80).collect::<String>()
            ));
        }
    }
    Ok(findings)
}

/// The directory that holds a blob of that name, where there is one.
fn sub_of(ledger: &LedgerDir, name: &str) -> Result<Option<LedgerDir>, FileError> {
    let sub = ledger.sub(BLOBS).and_then(|blobs| blobs.sub(&name[..2]));
    match sub {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every file in the directories of blobs.
fn files(ledger: &LedgerDir) -> Result<Vec<(LedgerDir, String)>, FileError> {
    let blobs = match ledger.sub(BLOBS) {
        Ok(blobs) => blobs,
        Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut list = Vec::new();
    for name in blobs.names()? {
        if name.len() != 2 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            continue;
        }
        let dir = blobs.sub(&name)?;
        for file in dir.names()? {
            if file != "." && file != ".." {
                list.push((dir.try_clone()?, file));
            }
        }
    }
    Ok(list)
}

/// Calls `visit` with every file in the directories of blobs; what it changed is made durable.
pub(crate) fn each(
    ledger: &LedgerDir,
    visit: &mut dyn FnMut(&LedgerDir, &str) -> Result<(), FileError>,
) -> Result<(), FileError> {
    for (dir, name) in files(ledger)? {
        visit(&dir, &name)?;
        dir.sync()?;
    }
    Ok(())
}

fn remove(dir: &LedgerDir, name: &str) -> Result<(), FileError> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(on("remove", name)(errno)),
    }
}
