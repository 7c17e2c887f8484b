//! Questions to the ledger and their answers. An answer is always read from the segments and hashed again; the index only
//! says where to look, so a wrong index can hide a record and never invent one. `Means::Verified` looks everywhere
//! itself and may therefore call its answer complete. Called by the command line and by `service`.

pub use crate::fields::Fields;
use crate::index::{Index, IndexError};
use crate::merkle::{Frontier, Hash, hex, leaf_hash};
use crate::reader::{ReadError, Reader};
use crate::record::Phase;
use serde::Serialize;
use std::ops::RangeInclusive;

/// Leaf hashes that are read at one time.
const STRETCH: usize = 8192;

/// Which resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// This one.
    Exact(String),
    /// Those whose name begins so, for example `vm:`.
    Prefix(String),
}

impl Resource {
    /// As people write it: `vm:100`, or `vm:*` for all that begin so.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.strip_suffix('*').map_or_else(
            || Self::Exact(text.to_owned()),
            |prefix| Self::Prefix(prefix.to_owned()),
        )
    }

    fn fits(&self, resource: &str) -> bool {
        match self {
            Self::Exact(text) => text == resource,
            Self::Prefix(text) => resource.starts_with(text.as_str()),
        }
    }
}

/// What is asked for; what is `None` does not matter. All of it must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// First and last height, from 1.
    pub heights: Option<RangeInclusive<u64>>,
    /// Not before this time, in microseconds since 1970 UTC.
    pub since_us: Option<i64>,
    /// Before this time, in microseconds since 1970 UTC.
    pub until_us: Option<i64>,
    /// network, settings, users, storage, compute, chain, ...
    pub category: Option<String>,
    /// Part of the product: qm, net, event, agent, ...
    pub plugin: Option<String>,
    /// Name of the catalog action or of the event.
    pub action: Option<String>,
    /// create, modify, delete, apply, query.
    pub operation: Option<String>,
    /// Name of the user who asked.
    pub user: Option<String>,
    /// What it acts on.
    pub resource: Option<Resource>,
    /// Why the record was written.
    pub phase: Option<Phase>,
    /// Joins an intent and its outcome.
    pub op_id: Option<String>,
    /// The record's own hash.
    pub hash: Option<Hash>,
    /// Anywhere in the record.
    pub text: Option<Text>,
}

/// A text that a record must contain in a key or a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// As the canonical bytes would have it.
    needle: Vec<u8>,
    ignore_case: bool,
}

impl Text {
    /// `text` as it reads in a record. Without `ignore_case` every letter counts; with it those of ASCII do not.
    #[must_use]
    pub fn new(text: &str, ignore_case: bool) -> Self {
        // Canonical JSON escapes quotes, backslashes and controls; the rest is as it is.
        let quoted = serde_json::Value::from(text).to_string();
        let inner = quoted.as_bytes();
        let mut needle = inner[1..inner.len() - 1].to_vec();
        if ignore_case {
            needle.make_ascii_lowercase();
        }
        Self {
            needle,
            ignore_case,
        }
    }

    fn fits(&self, record: &[u8]) -> bool {
        let find = |bytes: &[u8]| memchr::memmem::find(bytes, &self.needle).is_some();
        if self.ignore_case {
            find(&record.to_ascii_lowercase())
        } else {
            find(record)
        }
    }
}

impl Filter {
    /// Does this record have what is asked for?
    #[must_use]
    pub fn fits(&self, height: u64, leaf: &Hash, record: &[u8]) -> bool {
        let heights = self.heights.as_ref();
        if heights.is_some_and(|heights| !heights.contains(&height))
            || self.hash.is_some_and(|hash| hash != *leaf)
            || self.text.as_ref().is_some_and(|text| !text.fits(record))
        {
            return false;
        }
        let fields = Fields::of(record);
        let is = |wanted: &Option<String>, field: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == field)
        };
        is(&self.category, &fields.category)
            && is(&self.plugin, &fields.plugin_id)
            && is(&self.action, &fields.action)
            && is(&self.operation, &fields.operation)
            && is(&self.user, &fields.user)
            && is(&self.op_id, &fields.op_id)
            && self.since_us.is_none_or(|since| fields.ts_us >= since)
            && self.until_us.is_none_or(|until| fields.ts_us < until)
            && self
                .phase
                .is_none_or(|phase| fields.phase == phase.as_str())
            && self
                .resource
                .as_ref()
                .is_none_or(|resource| resource.fits(&fields.resource))
    }

    /// The heights concerned in a ledger of `size` records; `None` when there are none.
    pub(crate) fn within(&self, size: u64) -> Option<(u64, u64)> {
        let (first, last) = self
            .heights
            .as_ref()
            .map_or((1, size), |heights| (*heights.start(), *heights.end()));
        let (first, last) = (first.max(1), last.min(size));
        (first <= last).then_some((first, last))
    }
}

/// Which end of the history comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The newest first.
    #[default]
    Newest,
    /// The oldest first.
    Oldest,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// What is asked for.
    pub filter: Filter,
    /// From which end.
    pub order: Order,
    /// At most this many records.
    pub limit: usize,
}

/// Where to look.
#[derive(Debug)]
pub enum Means<'a> {
    /// Where the index says. It may be wrong: what it does not know is not found.
    Index(&'a Index),
    /// At every record of the range.
    Scan,
    /// At every record of the range, and every hash up to the signed head.
    Verified,
}

/// A record that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its height, from 1.
    pub height: u64,
    /// Its hash, computed from the bytes.
    pub hash: Hash,
    /// Its exact bytes.
    pub record: Vec<u8>,
}

/// How much an answer says about what is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "means", rename_all = "lowercase")]
pub enum Coverage {
    /// The index chose: a record that it does not know is missing.
    Index,
    /// Every record of these heights was looked at.
    Scan {
        /// First height.
        from: u64,
        /// Last height.
        to: u64,
    },
    /// Every record of these heights was looked at and belongs to this signed head: nothing is missing in between.
    Verified {
        /// First height.
        from: u64,
        /// Last height.
        to: u64,
        /// Records under the head.
        head_size: u64,
        /// Root of the head, hexadecimal.
        head_root: String,
    },
    /// No height was concerned.
    Nothing,
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index => f.write_str("as the index says; --verified looks everywhere itself"),
            Self::Scan { from, to } => write!(f, "all records from {from} to {to} were looked at"),
            Self::Verified {
                from,
                to,
                head_size,
                head_root,
            } => write!(
                f,
                "complete: verified from {from} to {to} against head {head_size}, root {head_root}"
            ),
            Self::Nothing => f.write_str("no record has such a height"),
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The records, in the order asked for.
    pub found: Vec<Found>,
    /// What it says about the others.
    pub coverage: Coverage,
    /// There may be more beyond the last one found: ask again from the height behind it.
    pub more: bool,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The ledger.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The index; the question can be asked without it.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The hashes do not give the signed root.
    #[error(
        "the {size} record hashes have root {found}, but {signed} is signed: run `blockhost ledger verify`"
    )]
    Root {
        /// Records under the head.
        size: u64,
        /// What the hashes give, hexadecimal.
        found: String,
        /// What the head says, hexadecimal.
        signed: String,
    },
}

/// Answers a question. `progress` is told records looked at and records in range.
///
/// # Errors
/// [`QueryError`]; a damaged index is reported and not repaired here.
pub fn run(
    reader: &Reader,
    means: &Means<'_>,
    query: &Query,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Answer, QueryError> {
    let head = match means {
        Means::Verified if reader.size() > 0 => Some(signed_root(reader)?),
        _ => None,
    };
    let Some((first, last)) = query.filter.within(reader.size()) else {
        return Ok(Answer {
            found: Vec::new(),
            coverage: Coverage::Nothing,
            more: false,
        });
    };
    let mut picked = Picked {
        reader,
        query,
        found: Vec::new(),
    };
    if let Means::Index(index) = means {
        let more = index.candidates(&query.filter, query.order, first, last, &mut |height| {
            picked.look(height)
        })?;
        return Ok(Answer {
            found: picked.found,
            coverage: Coverage::Index,
            more,
        });
    }
    let total = last - first + 1;
    let mut reached = None;
    for step in 0..total {
        let height = match query.order {
            Order::Newest => last - step,
            Order::Oldest => first + step,
        };
        if step % 4096 == 0 {
            progress(step, total);
        }
        if !picked.look(height)? {
            break;
        }
        reached = Some(height);
    }
    progress(total, total);
    // With no room left, the records behind the last one that was looked at are not part of the answer.
    let (from, to) = match (reached, query.order) {
        (None, _) => (first, first),
        (Some(height), Order::Newest) => (height, last),
        (Some(height), Order::Oldest) => (first, height),
    };
    let coverage = match (reached, head) {
        (None, _) => Coverage::Nothing,
        (Some(_), None) => Coverage::Scan { from, to },
        (Some(_), Some(root)) => Coverage::Verified {
            from,
            to,
            head_size: reader.size(),
            head_root: hex(&root),
        },
    };
    Ok(Answer {
        found: picked.found,
        more: reached.is_none() || (from, to) != (first, last),
        coverage,
    })
}

/// Records that are looked at faster than an index is opened.
pub(crate) const FEW: u64 = 4096;

/// Answers a question with the index in `index` where that is worth it, looking at every record otherwise; an index that
/// turns out to be damaged is made anew. `without` is told why there is none.
///
/// # Errors
/// [`QueryError`]; never because of the index.
pub fn best(
    reader: &Reader,
    index: Option<&std::path::Path>,
    query: &Query,
    progress: &mut dyn FnMut(u64, u64),
    without: &mut dyn FnMut(&IndexError),
) -> Result<Answer, QueryError> {
    let plain = Filter {
        heights: query.filter.heights.clone(),
        text: query.filter.text.clone(),
        ..Filter::default()
    };
    if let Some(path) = index
        && reader.size() > FEW
        && query.filter != plain
    {
        for attempt in 0..2 {
            let answer = Index::open(path, reader, progress)
                .map_err(QueryError::from)
                .and_then(|index| run(reader, &Means::Index(&index), query, progress));
            let error = match answer {
                Err(QueryError::Index(IndexError::Read(error))) => return Err(error.into()),
                Err(QueryError::Index(error)) => error,
                answer => return answer,
            };
            let damaged = matches!(error, IndexError::Sqlite { .. }) && attempt == 0;
            if !(damaged && Index::rebuild(path, reader, progress).is_ok()) {
                without(&error);
                break;
            }
        }
    }
    run(reader, &Means::Scan, query, progress)
}

/// Reads a hash as people copy it: 64 hexadecimal digits.
///
/// # Errors
/// A sentence for whoever wrote it.
pub fn parse_hash(text: &str) -> Result<Hash, String> {
    let digits = text.as_bytes();
    let wrong = || "a hash has 64 hexadecimal digits".to_owned();
    if digits.len() != 64 {
        return Err(wrong());
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |d: u8| char::from(d).to_digit(16);
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            return Err(wrong());
        };
        *byte = u8::try_from(high * 16 + low).map_err(|_| wrong())?;
    }
    Ok(hash)
}

/// Collects what fits until there is enough.
struct Picked<'a> {
    reader: &'a Reader,
    query: &'a Query,
    found: Vec<Found>,
}

impl Picked<'_> {
    /// Looks at one record; false when no more is wanted (and it was not looked at).
    fn look(&mut self, height: u64) -> Result<bool, ReadError> {
        if self.found.len() >= self.query.limit {
            return Ok(false);
        }
        let Some(record) = self.reader.get_unpruned(height - 1)? else {
            return Ok(true);
        };
        let hash = leaf_hash(&record);
        if self.query.filter.fits(height, &hash, &record) {
            self.found.push(Found {
                height,
                hash,
                record,
            });
        }
        Ok(true)
    }
}

/// The root over all record hashes, which must be the one that is signed.
fn signed_root(reader: &Reader) -> Result<Hash, QueryError> {
    let head = reader.head()?;
    // Hash by hash, and not from the roots of sealed files: it is for a result that is to be proved.
    let mut frontier = Frontier::new();
    for from in (0..head.size).step_by(STRETCH) {
        let to = (from + STRETCH as u64).min(head.size);
        for leaf in reader.leaves(from, to)? {
            frontier.push(leaf);
        }
    }
    let root = frontier.root();
    if root == head.root && head.size == reader.size() {
        Ok(root)
    } else {
        Err(QueryError::Root {
            size: head.size,
            found: hex(&root),
            signed: hex(&head.root),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_sought_as_it_stands_in_the_record() {
        let record = r#"{"metadata":{"say":"He \"said\" Größe\n"}}"#.as_bytes();
        for (text, ignore_case, found) in [
            ("\"said\"", false, true),
            ("Größe\n", false, true),
            ("he \"SAID\"", false, false),
            ("he \"SAID\"", true, true),
            ("other", true, false),
        ] {
            assert_eq!(Text::new(text, ignore_case).fits(record), found, "{text}");
        }
    }

    #[test]
    fn heights_outside_of_the_ledger_concern_nothing() {
        let within = |from, to| {
            Filter {
                heights: Some(from..=to),
                ..Filter::default()
            }
            .within(10)
        };
        assert_eq!(within(0, u64::MAX), Some((1, 10)));
        assert_eq!(within(11, 20), None);
        assert_eq!(within(5, 4), None);
        assert_eq!(Filter::default().within(0), None);
    }
}
