//! Histories of before: block files as earlier programs wrote them, checked as far as they can be, and turned into events.
//! Pure: bytes in, findings and events out. Finding the files, knowing what is imported already and sending the rest to
//! the agent is the command line's (`cli::import`).
//!
//! What such a file can show: `content_hash` and `data_hash` of each footprint, and that each block names the one before.
//! How `block_hash` was computed was never written down; where one of the known ways gives it, it is confirmed.

use crate::jcs;
use crate::merkle::{Hash, hex, leaf_hash, sha256};
use crate::plugin::{Event, Operation, Registry, redact};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// Largest block file that is read.
pub const MAX_FILE_BYTES: usize = 16 << 20;
/// Largest footprint that is read.
const MAX_FOOTPRINT_BYTES: usize = 1 << 20;
/// Most footprints of a block.
const MAX_FOOTPRINTS: usize = 100_000;
/// Name of the events.
pub const ACTION: &str = "footprint-imported";
/// What their resource begins with; a hash follows that no other footprint has.
pub const RESOURCE: &str = "footprint:";

/// A block file that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockFile {
    /// Number of the block.
    pub block_id: u64,
    /// Its hash, as the file says.
    pub block_hash: String,
    /// Hash of the block before, as the file says.
    pub previous_hash: String,
    /// One of the known ways to compute it gives `block_hash`.
    pub confirmed: bool,
    /// The footprints that are whole, in order.
    pub footprints: Vec<Footprint>,
    /// What is wrong with others.
    pub damage: Vec<String>,
}

/// A footprint whose hashes are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// Tells it from every other one: of its block's hash, its place and its text.
    pub id: Hash,
    /// Place in the block, from 0.
    pub position: usize,
    plugin_id: String,
    operation: String,
    timestamp: u64,
    data_hash: String,
    content_hash: String,
    metadata: Map<String, Value>,
}

/// Why a file is no block file at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Larger than anything is read.
    #[error("it has {bytes} bytes; at most {MAX_FILE_BYTES} are read")]
    TooLarge {
        /// How large.
        bytes: usize,
    },
    /// Not UTF-8.
    #[error("it is not UTF-8 from byte {at}")]
    NotText {
        /// First wrong byte.
        at: usize,
    },
    /// Not the shape of a block.
    #[error("it is not a block: {what}")]
    Shape {
        /// What is wrong, escaped.
        what: String,
    },
}

#[derive(Deserialize)]
struct RawBlock<'a> {
    block_id: u64,
    #[serde(borrow)]
    previous_hash: Cow<'a, str>,
    #[serde(borrow)]
    block_hash: Cow<'a, str>,
    #[serde(borrow)]
    footprints: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawFootprint<'a> {
    #[serde(borrow)]
    plugin_id: Cow<'a, str>,
    #[serde(borrow)]
    operation: Cow<'a, str>,
    timestamp: u64,
    #[serde(borrow)]
    data_hash: Cow<'a, str>,
    #[serde(borrow)]
    content_hash: Cow<'a, str>,
    #[serde(borrow)]
    metadata: &'a RawValue,
}

impl BlockFile {
    /// Reads a block file.
    ///
    /// # Errors
    /// It is no block file; a damaged footprint is in `damage` instead.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImportError> {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(ImportError::TooLarge { bytes: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| ImportError::NotText {
            at: error.valid_up_to(),
        })?;
        let raw: RawBlock<'_> = serde_json::from_str(text).map_err(|error| shape(&error))?;
        let fail = |what: &str| ImportError::Shape { what: what.into() };
        if raw.block_id == 0 || raw.block_id > (1 << 53) - 1 {
            return Err(fail("block_id is not a number from 1"));
        }
        for (name, hash) in [
            ("previous_hash", &raw.previous_hash),
            ("block_hash", &raw.block_hash),
        ] {
            if !is_hash(hash) {
                return Err(fail(&format!("{name} is not 64 hexadecimal digits")));
            }
        }
        if raw.footprints.len() > MAX_FOOTPRINTS {
            return Err(fail("it has more than 100000 footprints"));
        }
        let mut block = Self {
            block_id: raw.block_id,
            block_hash: raw.block_hash.into_owned(),
            previous_hash: raw.previous_hash.into_owned(),
            confirmed: false,
            footprints: Vec::new(),
            damage: Vec::new(),
        };
        for (position, raw) in raw.footprints.iter().enumerate() {
            match Footprint::parse(&block.block_hash, position, raw.get()) {
                Ok(footprint) => block.footprints.push(footprint),
                Err(why) => block.damage.push(format!("footprint {position}: {why}")),
            }
        }
        block.confirmed = confirm(text, &block.block_hash);
        Ok(block)
    }

    /// Says what is wrong if this is not the block behind `before`: the number and hash of that one.
    #[must_use]
    pub fn follows(&self, before: Option<(u64, &str)>) -> Option<String> {
        match before {
            None if self.block_id == 1 && self.previous_hash != "0".repeat(64) => {
                Some("the first block names a block before it".to_owned())
            }
            Some((id, _)) if self.block_id != id + 1 => Some(format!(
                "block {} follows block {id}: blocks are missing or doubled",
                self.block_id
            )),
            Some((id, hash)) if self.previous_hash != hash => Some(format!(
                "previous_hash is not the block_hash of block {id}: one of the two was changed"
            )),
            _ => None,
        }
    }
}

impl Footprint {
    fn parse(block_hash: &str, position: usize, text: &str) -> Result<Self, String> {
        if text.len() > MAX_FOOTPRINT_BYTES {
            return Err(format!(
                "it has {} bytes; at most {MAX_FOOTPRINT_BYTES} are read",
                text.len()
            ));
        }
        // Strict first: what has a key twice means two things, and its hashes could be of either.
        let strict = blockhost_proto::json::parse(text.as_bytes()).map_err(|e| e.to_string())?;
        let raw: RawFootprint<'_> =
            serde_json::from_str(text).map_err(|error| shape(&error).to_string())?;
        for (name, word) in [("plugin_id", &raw.plugin_id), ("operation", &raw.operation)] {
            let good = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
            if !(1..=64).contains(&word.len()) || !word.bytes().all(good) {
                return Err(format!("{name} is not 1 to 64 of A-Z a-z 0-9 _ . : -"));
            }
        }
        if raw.timestamp > (1 << 53) - 1 {
            return Err("timestamp is no time in seconds".to_owned());
        }
        let content = format!("{}:{}:{}", raw.plugin_id, raw.operation, raw.timestamp);
        if raw.content_hash != hex(&sha256(content.as_bytes())) {
            return Err(
                "content_hash is not that of plugin_id, operation and timestamp".to_owned(),
            );
        }
        let Some(Value::Object(metadata)) = strict.get("metadata") else {
            return Err("metadata is not an object".to_owned());
        };
        // As the text has it, or with sorted keys: programs wrote both.
        let ways = [compact(raw.metadata.get()), sorted(&strict["metadata"])];
        if !ways
            .iter()
            .any(|way| raw.data_hash == hex(&sha256(way.as_bytes())))
        {
            return Err(
                "data_hash is not that of the metadata: one of the two was changed".to_owned(),
            );
        }
        if let Some(hash) = strict.get("hash") {
            let mut record = strict.clone();
            if let Some(record) = record.as_object_mut() {
                record.remove("hash");
                record.remove("vector_features");
            }
            let whole = jcs::to_record_vec(&record).map(|bytes| hex(&leaf_hash(&bytes)));
            if whole.ok().as_deref() != hash.as_str() {
                return Err("hash is not that of the record".to_owned());
            }
        }
        let id = format!("{block_hash}\n{position}\n{}", compact(text));
        Ok(Self {
            id: sha256(id.as_bytes()),
            position,
            metadata: metadata.clone(),
            plugin_id: raw.plugin_id.into_owned(),
            operation: raw.operation.into_owned(),
            timestamp: raw.timestamp,
            data_hash: raw.data_hash.into_owned(),
            content_hash: raw.content_hash.into_owned(),
        })
    }

    /// What the event acts on.
    #[must_use]
    pub fn resource(&self) -> String {
        format!("{RESOURCE}{}", hex(&self.id))
    }

    /// The event that stands for it: the original's hashes, and its metadata as far as the ledger can hold it.
    #[must_use]
    pub fn event(&self, block: &BlockFile, registry: &Registry) -> Event {
        let category = registry.find(&self.plugin_id).map(|plugin| plugin.name());
        let mut metadata = Map::new();
        metadata.insert("plugin".into(), self.plugin_id.as_str().into());
        metadata.insert("operation".into(), self.operation.as_str().into());
        metadata.insert(
            "original".into(),
            json!({
                "block_id": block.block_id, "block_hash": block.block_hash, "block_confirmed": block.confirmed,
                "position": self.position, "timestamp": self.timestamp,
                "data_hash": self.data_hash, "content_hash": self.content_hash,
            }),
        );
        let mut event = Event {
            category: category.unwrap_or("imported").to_owned(),
            action: ACTION.to_owned(),
            resource: Some(self.resource()),
            operation: Operation::of(&self.operation).unwrap_or(Operation::Apply),
            metadata,
        };
        let mut original = self.metadata.clone();
        let redacted = redact(&mut original);
        let mut whole = event.clone();
        whole
            .metadata
            .insert("metadata".into(), tame(&Value::Object(original)));
        if redacted > 0 {
            whole.metadata.insert("redacted".into(), redacted.into());
        }
        match whole.check() {
            Ok(()) => whole,
            Err(why) => {
                // `data_hash` still says which metadata it was, to whoever kept it.
                let why = why.to_string();
                event
                    .metadata
                    .insert("metadata_omitted".into(), tame(&why.into()));
                event
            }
        }
    }
}

/// Values in the ledger's form: numbers that it cannot hold and characters that it excludes become text.
fn tame(value: &Value) -> Value {
    match value {
        Value::Number(number) => {
            let size = number
                .as_u64()
                .or_else(|| number.as_i64().map(i64::unsigned_abs));
            if size.is_some_and(|size| size < 1 << 53) {
                value.clone()
            } else {
                number.to_string().into()
            }
        }
        Value::String(text) => text.replace(['\0', '\u{7f}'], "\u{fffd}").into(),
        Value::Array(items) => items.iter().map(tame).collect(),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| (key.clone(), tame(value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// The ways that are known: of the canonical block without its hash; of its head alone, as this product does.
fn confirm(text: &str, block_hash: &str) -> bool {
    // Not strict, because of the number of values; the footprints are looked at strictly, one by one.
    let Ok(Value::Object(mut block)) = serde_json::from_str(text) else {
        return false;
    };
    block.remove("block_hash");
    let whole = sorted(&Value::Object(block.clone()));
    block.remove("footprints");
    let head = sorted(&Value::Object(block));
    [whole, head]
        .iter()
        .any(|way| block_hash == hex(&sha256(way.as_bytes())))
}

/// JSON text without the white space between its parts; numbers and texts as they are.
fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut inside, mut escaped) = (false, false);
    for c in json.chars() {
        if inside {
            out.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => inside = false,
                _ => {}
            }
        } else if !matches!(c, ' ' | '\t' | '\n' | '\r') {
            out.push(c);
            inside = c == '"';
        }
    }
    out
}

/// Compact JSON with sorted keys, whatever order maps are kept in.
fn sorted(value: &Value) -> String {
    let mut out = String::new();
    write_sorted(value, &mut out);
    out
}

fn write_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            out.push('{');
            for (at, key) in keys.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_sorted(&map[key], out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_sorted(item, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

fn is_hash(text: &str) -> bool {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() == 64 && text.bytes().all(digit)
}

/// What serde found, without anything of the file that a terminal would obey.
fn shape(error: &serde_json::Error) -> ImportError {
    let what = error.to_string().escape_debug().take(200).collect();
    ImportError::Shape { what }
}
