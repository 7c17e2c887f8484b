//! What a record is: from the caller's draft to the canonical bytes that are hashed and stored, and the few fields that
//! are read back from those bytes without parsing them. Where records are stored is known by `segment`.

use crate::jcs::{self, JcsError};
use crate::merkle::{Hash, hex, hex_digits, sha256};
use memchr::memmem::Finder;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// Version of the record format, field `v`.
pub const VERSION: i64 = 1;
/// Largest record, in bytes.
pub const MAX_RECORD_BYTES: usize = 65_535;
/// `prev_hash` of the first record.
pub const GENESIS_PREV: Hash = [0; 32];
/// Largest text field outside of the metadata, in bytes.
const MAX_TEXT_BYTES: usize = 4096;
/// Largest name (plugin, category, operation, action, op_id), in bytes.
const MAX_NAME_BYTES: usize = 128;

/// Why a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Something privileged is about to happen.
    Intent,
    /// It happened, failed or was refused; same `op_id` as its intent.
    Outcome,
    /// Something worth recording that is no action of the agent.
    Event,
    /// The next signing key.
    Epoch,
    /// A torn tail was cut at start.
    Recovery,
    /// Old payloads were deleted.
    Prune,
    /// A confidential payload was made unreadable.
    Shred,
    /// A head was anchored elsewhere.
    Anchor,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Intent,
        Self::Outcome,
        Self::Event,
        Self::Epoch,
        Self::Recovery,
        Self::Prune,
        Self::Shred,
        Self::Anchor,
    ];

    /// The phase with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == word)
    }

    /// The word in the record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Outcome => "outcome",
            Self::Event => "event",
            Self::Epoch => "epoch",
            Self::Recovery => "recovery",
            Self::Prune => "prune",
            Self::Shred => "shred",
            Self::Anchor => "anchor",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record before the writer gives it its height, time and place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Why it is written.
    pub phase: Phase,
    /// Joins an intent and its outcome: `[A-Za-z0-9_.:-]`; may be empty for other phases (then the field is left out).
    pub op_id: String,
    /// Which part of the product: qm, net, wallet, ledger, ...
    pub plugin_id: String,
    /// network, settings, users, storage, compute, chain, or another word.
    pub category: String,
    /// create, modify, delete, apply, query.
    pub operation: String,
    /// Name of the catalog action.
    pub action: String,
    /// What it acts on; may be empty.
    pub resource: String,
    /// Name of the user who asked.
    pub user: String,
    /// Uid of the user who asked.
    pub uid: u32,
    /// Process that asked, when known.
    pub pid: Option<i32>,
    /// Its program, when known.
    pub exe: Option<String>,
    /// Its systemd unit, when known.
    pub unit: Option<String>,
    /// Details. Never secrets.
    pub metadata: Map<String, Value>,
}

/// Why a draft cannot become a record. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A value has no canonical bytes.
    #[error("record not written: {0}")]
    Value(#[from] JcsError),
    /// A name is empty, too long, or has other characters than `[A-Za-z0-9_.:-]`.
    #[error(
        "record not written: {field} is {given:?}; it must be 1 to {MAX_NAME_BYTES} of A-Z a-z 0-9 _ . : -"
    )]
    Name {
        /// Which field.
        field: &'static str,
        /// What it was, escaped and cut.
        given: String,
    },
    /// A text is too long.
    #[error("record not written: {field} has {bytes} bytes, at most {MAX_TEXT_BYTES} are allowed")]
    Text {
        /// Which field.
        field: &'static str,
        /// How long it was.
        bytes: usize,
    },
}

/// What the writer adds to a draft.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'a> {
    /// Height of the record, from 1.
    pub height: u64,
    /// Leaf hash of the record before it.
    pub prev_hash: &'a Hash,
    /// Time in microseconds since 1970 UTC.
    pub ts_us: i64,
    /// Name of this host.
    pub hostname: &'a str,
}

impl Draft {
    /// Says whether [`Writer::append`](crate::writer::Writer::append) would take this draft, so that one bad draft need
    /// not fail a whole batch.
    ///
    /// # Errors
    /// What is wrong with it, naming the field.
    pub fn check(&self) -> Result<(), RecordError> {
        let stamp = Stamp {
            height: 1,
            prev_hash: &GENESIS_PREV,
            ts_us: 0,
            hostname: "",
        };
        self.encode(&stamp).map(|_| ())
    }

    /// The canonical bytes. Metadata that would make the record too large is replaced by its digest and a note; for an
    /// outcome also metadata without canonical bytes (what happened must be recorded, whatever it said).
    ///
    /// # Errors
    /// A field is outside of its limits.
    pub fn encode(&self, stamp: &Stamp<'_>) -> Result<Vec<u8>, RecordError> {
        self.check_names()?;
        let canonical = match jcs::to_record_vec_under("metadata", &self.metadata) {
            Ok(canonical) => canonical,
            Err(why) if self.phase == Phase::Outcome => {
                let note = json!({ "metadata_refused": why.to_string().replace('\u{7f}', "?") });
                return self.build(stamp, &jcs::to_record_vec(&note)?);
            }
            Err(why) => return Err(why.into()),
        };
        let record = self.build(stamp, &canonical)?;
        if record.len() <= MAX_RECORD_BYTES {
            return Ok(record);
        }
        let note = json!({
            "metadata_bytes": canonical.len(),
            "metadata_omitted": "too large for one record",
            "metadata_sha256": hex(&sha256(&canonical)),
        });
        self.build(stamp, &jcs::to_record_vec(&note)?)
    }

    fn check_names(&self) -> Result<(), RecordError> {
        let joined = matches!(self.phase, Phase::Intent | Phase::Outcome);
        for (field, name, required) in [
            ("op_id", &self.op_id, joined),
            ("plugin_id", &self.plugin_id, true),
            ("category", &self.category, true),
            ("operation", &self.operation, true),
            ("action", &self.action, true),
        ] {
            let absent = name.is_empty() && !required;
            if !absent && (!jcs::is_record_key(name) || name.len() > MAX_NAME_BYTES) {
                return Err(RecordError::Name {
                    field,
                    given: name.escape_default().take(80).collect(),
                });
            }
        }
        for (field, text) in [
            ("resource", Some(&self.resource)),
            ("user", Some(&self.user)),
            ("exe", self.exe.as_ref()),
            ("unit", self.unit.as_ref()),
        ] {
            if let Some(text) = text
                && text.len() > MAX_TEXT_BYTES
            {
                return Err(RecordError::Text {
                    field,
                    bytes: text.len(),
                });
            }
        }
        Ok(())
    }

    fn build(&self, stamp: &Stamp<'_>, canonical: &[u8]) -> Result<Vec<u8>, RecordError> {
        let timestamp = stamp.ts_us.div_euclid(1_000_000);
        let content = format!("{}:{}:{timestamp}", self.plugin_id, self.operation);
        // All keys, sorted: members are written one by one, and `metadata` as it was encoded.
        let mut out = jcs::Members::with_capacity(canonical.len() + 768);
        out.text("action", &self.action)?;
        out.text("category", &self.category)?;
        out.text("content_hash", &hex(&sha256(content.as_bytes())))?;
        out.text("data_hash", &hex(&sha256(canonical)))?;
        if let Some(exe) = &self.exe {
            out.text("exe", exe)?;
        }
        out.number("height", i64::try_from(stamp.height).unwrap_or(i64::MAX))?;
        out.text("hostname", stamp.hostname)?;
        out.canonical("metadata", canonical);
        if !self.op_id.is_empty() {
            out.text("op_id", &self.op_id)?;
        }
        out.text("operation", &self.operation)?;
        out.text("phase", self.phase.as_str())?;
        if let Some(pid) = self.pid {
            out.number("pid", pid.into())?;
        }
        out.text("plugin_id", &self.plugin_id)?;
        out.text("prev_hash", &hex(stamp.prev_hash))?;
        out.text("resource", &self.resource)?;
        out.number("timestamp", timestamp)?;
        out.number("ts_us", stamp.ts_us)?;
        out.number("uid", self.uid.into())?;
        if let Some(unit) = &self.unit {
            out.text("unit", unit)?;
        }
        out.text("user", &self.user)?;
        out.number("v", VERSION)?;
        Ok(out.finish())
    }
}

// Canonical bytes can be read without parsing: keys are sorted, the only nested value is `metadata` (or `payload`), and
// a quote inside a string is always escaped. So before `metadata` the first match, and after it the last match, of
// `"key":` is the field itself.

/// A text that is looked for in every record; getting ready to search costs as much as the search.
pub(crate) type Needle = LazyLock<Finder<'static>>;

/// What [`last_place`] and [`late_text`] look for.
macro_rules! needle {
    ($name:ident, $text:literal) => {
        pub(crate) static $name: crate::record::Needle =
            std::sync::LazyLock::new(|| memchr::memmem::Finder::new($text));
    };
}
pub(crate) use needle;

needle!(PREV_KEY, b"\"prev_hash\":\"");
needle!(HEIGHT_KEY, b"\"height\":");
needle!(TIMESTAMP_KEY, b"\"timestamp\":");
needle!(PHASE_KEY, b"\"phase\":\"");
needle!(OP_ID_KEY, b"\"op_id\":\"");

/// The height written in a record.
pub(crate) fn height_of(record: &[u8]) -> Option<u64> {
    let at = HEIGHT_KEY.find(record)? + HEIGHT_KEY.needle().len();
    let digits = record[at..].split(|b| !b.is_ascii_digit()).next()?;
    crate::note::parse_decimal(std::str::from_utf8(digits).ok()?)
}

/// What joins a record to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    Intent,
    Outcome,
}

/// For an intent or an outcome: which of the two, and its `op_id`.
pub(crate) fn joined(record: &[u8]) -> Option<(Joined, &[u8])> {
    let joined = match late_text(record, &PHASE_KEY)? {
        b"intent" => Joined::Intent,
        b"outcome" => Joined::Outcome,
        _ => return None,
    };
    Some((joined, late_text(record, &OP_ID_KEY)?))
}

/// Where `needle` stands for the last time. Looks near the end first, where what is asked for mostly is; searching
/// forwards is several times as fast as backwards.
pub(crate) fn last_place(record: &[u8], needle: &Finder<'_>) -> Option<usize> {
    const NEAR: usize = 448;
    let near = record.len().saturating_sub(NEAR);
    let last_from = |start: usize| {
        let mut found = start + needle.find(&record[start..])?;
        while let Some(more) = needle.find(&record[found + 1..]) {
            found += 1 + more;
        }
        Some(found)
    };
    last_from(near).or_else(|| if near == 0 { None } else { last_from(0) })
}

/// A text field that sorts after `metadata` and `payload` and is written without escapes: `phase`, `op_id` excepted
/// when a payload is there, `prev_hash`.
///
/// `opening` is all of `"key":"`: the key alone, in its quotes, can also be the whole value of a later field.
pub(crate) fn late_text<'a>(record: &'a [u8], opening: &Finder<'_>) -> Option<&'a [u8]> {
    let text = &record[last_place(record, opening)? + opening.needle().len()..];
    Some(&text[..memchr::memchr(b'"', text).unwrap_or(text.len())])
}

/// The time written in a record, in seconds since 1970 UTC. Sorts after everything nested.
pub(crate) fn timestamp_of(record: &[u8]) -> Option<i64> {
    let at = last_place(record, &TIMESTAMP_KEY)? + TIMESTAMP_KEY.needle().len();
    let digits = record[at..]
        .split(|b| !b.is_ascii_digit() && *b != b'-')
        .next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Does this record name `prev` as the one before it?
pub(crate) fn follows(record: &[u8], prev: &Hash) -> bool {
    late_text(record, &PREV_KEY) == Some(&hex_digits(prev)[..])
}

#[cfg(test)]
mod tests;
