//! Numbers of words and kinds: those that an index has, and new ones for what it does not have yet. Called by `build`, which
//! writes the new ones before the rows that use them.

use super::{Counted, signed};
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Texts and kinds kept at hand when records are added to an existing index.
const KEPT_WORDS: usize = 4096;
/// Fields of a kind.
pub(super) const FIELDS: usize = Counted::ALL.len();

/// The words that records have in common, by [`Counted`].
pub(super) type Kind = [i64; FIELDS];

/// What has to be added before the rows that use it.
#[derive(Default)]
pub(super) struct New {
    pub words: Vec<(i64, String)>,
    pub kinds: Vec<(i64, Kind)>,
}

/// Gives numbers to words and kinds.
pub(super) trait Numbers {
    fn word(&mut self, text: &str, new: &mut New) -> i64;
    fn kind(&mut self, kind: Kind, new: &mut New) -> i64;
}

/// Of an index that has none yet.
#[derive(Default)]
pub(super) struct Fresh {
    words: HashMap<String, i64>,
    kinds: HashMap<Kind, i64, BuildHasherDefault<Mixed>>,
}

impl Numbers for Fresh {
    fn word(&mut self, text: &str, new: &mut New) -> i64 {
        if let Some(id) = self.words.get(text) {
            return *id;
        }
        let id = signed(self.words.len() as u64 + 1);
        self.words.insert(text.to_owned(), id);
        new.words.push((id, text.to_owned()));
        id
    }

    fn kind(&mut self, kind: Kind, new: &mut New) -> i64 {
        let next = signed(self.kinds.len() as u64 + 1);
        *self.kinds.entry(kind).or_insert_with(|| {
            new.kinds.push((next, kind));
            next
        })
    }
}

/// Of an index that has some.
pub(super) struct Added<'d> {
    db: &'d Connection,
    known: Fresh,
    next_word: i64,
    next_kind: i64,
    pub failed: Option<rusqlite::Error>,
}

impl<'d> Added<'d> {
    pub fn to(db: &'d Connection) -> rusqlite::Result<Self> {
        let next = |table: &str| {
            let sql = format!("SELECT coalesce(max(id), 0) + 1 FROM {table}");
            db.query_row(&sql, [], |row| row.get(0))
        };
        Ok(Self {
            db,
            known: Fresh::default(),
            next_word: next("word")?,
            next_kind: next("kind")?,
            failed: None,
        })
    }

    fn stored(&mut self, sql: &str, values: impl rusqlite::Params) -> Option<i64> {
        let find = self.db.prepare_cached(sql);
        let stored = find.and_then(|mut find| find.query_row(values, |row| row.get(0)).optional());
        stored.unwrap_or_else(|error| {
            self.failed = Some(error);
            None
        })
    }

    /// After a batch: a word that it adds is not in the table before, so it may only be forgotten now.
    pub fn batch_done(&mut self) {
        if self.known.words.len() + self.known.kinds.len() > KEPT_WORDS {
            self.known = Fresh::default();
        }
    }
}

impl Numbers for Added<'_> {
    fn word(&mut self, text: &str, new: &mut New) -> i64 {
        if let Some(id) = self.known.words.get(text) {
            return *id;
        }
        let stored = self.stored("SELECT id FROM word WHERE text = ?", [text]);
        let id = stored.unwrap_or_else(|| {
            new.words.push((self.next_word, text.to_owned()));
            self.next_word += 1;
            self.next_word - 1
        });
        self.known.words.insert(text.to_owned(), id);
        id
    }

    fn kind(&mut self, kind: Kind, new: &mut New) -> i64 {
        if let Some(id) = self.known.kinds.get(&kind) {
            return *id;
        }
        let stored = self.stored(FIND_KIND, rusqlite::params_from_iter(kind));
        let id = stored.unwrap_or_else(|| {
            new.kinds.push((self.next_kind, kind));
            self.next_kind += 1;
            self.next_kind - 1
        });
        self.known.kinds.insert(kind, id);
        id
    }
}

const FIND_KIND: &str = "SELECT id FROM kind WHERE phase = ? AND category = ? AND plugin = ? AND operation = ? AND action = ? AND user = ?";

/// Hashes small numbers that we gave out ourselves.
#[derive(Default)]
pub(super) struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number.cast_unsigned());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}
