//! Where to look for records: an SQLite file that anybody who may read the ledger builds for himself and may delete at any
//! time. It holds nothing that `query` believes: answers are read from the segments. Built by `build`; a file that does
//! not belong to this ledger, is damaged, or has another version is made anew.
//!
//! A row per record with its fields as numbers; the texts behind them once, in `word`. Of what records have in common (phase,
//! action, user, ...) there are few combinations: each is a row of `kind`. Texts that hardly ever repeat (op_id, hash) are kept
//! as 64 of their bits: that can send a reader to a record too many, never past one.

mod build;
mod numbers;
mod plan;

use crate::merkle::{Hash, sha256};
use crate::query::{Filter, Order};
use crate::reader::{ReadError, Reader};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Version of the tables. Another one: the index is made anew.
const VERSION: i64 = 2;
/// `application_id` of the file: "BHix".
const APPLICATION: i64 = 0x4248_6978;
/// How long one process waits for another that writes to the index.
const PATIENCE: Duration = Duration::from_secs(5);
/// Heights that are asked of SQLite at a time.
const PAGE: usize = 1024;

const TABLES: [&str; 5] = [
    "CREATE TABLE log (version INTEGER NOT NULL, size INTEGER NOT NULL, leaf BLOB NOT NULL)",
    "CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)",
    "CREATE TABLE kind (id INTEGER PRIMARY KEY, phase INTEGER NOT NULL, category INTEGER NOT NULL, plugin INTEGER NOT NULL, operation INTEGER NOT NULL, action INTEGER NOT NULL, user INTEGER NOT NULL, UNIQUE (phase, category, plugin, operation, action, user))",
    "CREATE TABLE record (height INTEGER PRIMARY KEY, ts INTEGER NOT NULL, kind INTEGER NOT NULL, resource INTEGER NOT NULL, op INTEGER NOT NULL, hash INTEGER NOT NULL)",
    "CREATE TABLE tally (field INTEGER NOT NULL, word INTEGER NOT NULL, count INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (field, word)) WITHOUT ROWID",
];
const INDEXES: [&str; 3] = [
    "CREATE INDEX record_resource ON record (resource)",
    "CREATE INDEX record_op ON record (op)",
    "CREATE INDEX record_hash ON record (hash)",
];

/// Why there is no index. Questions can be answered without one.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// SQLite.
    #[error("the index {}: {source}; it is disposable, delete it", path.display())]
    Sqlite {
        /// Its file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The system.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process is building it.
    #[error("the index {} is being built by another process", path.display())]
    Busy {
        /// Its file.
        path: PathBuf,
    },
    /// The directory is not the caller's alone.
    #[error("{} is not a directory that only you can write to: no index is kept there", path.display())]
    Shared {
        /// The directory.
        path: PathBuf,
    },
    /// The ledger.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Fields whose values are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Why it was written.
    Phase,
    /// Its category.
    Category,
    /// Part of the product.
    Plugin,
    /// create, modify, ...
    Operation,
    /// Catalog action or event.
    Action,
    /// Who asked.
    User,
}

impl Counted {
    /// All of them, in the order of the columns of `kind`.
    pub const ALL: [Self; 6] = [
        Self::Phase,
        Self::Category,
        Self::Plugin,
        Self::Operation,
        Self::Action,
        Self::User,
    ];

    /// Column name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Phase => "phase",
            Self::Category => "category",
            Self::Plugin => "plugin",
            Self::Operation => "operation",
            Self::Action => "action",
            Self::User => "user",
        }
    }

    const fn number(self) -> usize {
        self as usize
    }
}

/// How often a value occurs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The value.
    pub text: String,
    /// Records that have it.
    pub count: u64,
    /// Height of the first one.
    pub first: u64,
    /// Height of the last one.
    pub last: u64,
}

/// The index, as far as the ledger reached when it was opened.
#[derive(Debug)]
pub struct Index {
    db: Connection,
    path: PathBuf,
    built: Built,
}

/// What opening the index took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Built {
    /// Nothing: it was up to date.
    Current,
    /// Records that were new.
    Added(u64),
    /// All of it, and why.
    Anew(&'static str),
}

/// Where the index of the ledger in `dir` is kept for whoever runs this: `$XDG_CACHE_HOME/blockhost` or
/// `~/.cache/blockhost`, for a service `$CACHE_DIRECTORY` (systemd's `CacheDirectory=`). `None`: nowhere.
#[must_use]
pub fn default_path(dir: &Path) -> Option<PathBuf> {
    let of = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let cache = of("CACHE_DIRECTORY")
        .or_else(|| of("XDG_CACHE_HOME").map(|path| path.join("blockhost")))
        .or_else(|| of("HOME").map(|path| path.join(".cache/blockhost")))?;
    let dir = std::path::absolute(dir).ok()?;
    let name = crate::merkle::hex(&sha256(dir.as_os_str().as_encoded_bytes()));
    Some(cache.join(format!("ledger-{}.db", &name[..16])))
}

impl Index {
    /// Opens the index in the file `path` and brings it up to what `reader` sees; makes it anew when it does not belong
    /// to this ledger or is damaged. `progress` is told records done and records to do.
    ///
    /// # Errors
    /// [`IndexError`]; the ledger can be searched without an index.
    pub fn open(
        path: &Path,
        reader: &Reader,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, IndexError> {
        // Before anything in it is used: root may look with the environment of somebody else.
        if path.exists() {
            build::check_directory(path)?;
        }
        let why = match Self::existing(path, reader) {
            Ok(Some(index)) => return Ok(index),
            Ok(None) => "behind",
            Err(why) => why,
        };
        build::prepare_directory(path)?;
        let _lock = build::lock(path)?;
        // Somebody else may have done it while we waited.
        let why = match Self::existing(path, reader) {
            Ok(Some(index)) => return Ok(index),
            Ok(None) => match build::add(path, reader, progress) {
                Ok(added) => {
                    let mut index = Self::existing(path, reader)
                        .ok()
                        .flatten()
                        .ok_or_else(|| IndexError::Busy { path: path.into() })?;
                    index.built = Built::Added(added);
                    return Ok(index);
                }
                Err(IndexError::Sqlite { .. }) => "damaged",
                Err(other) => return Err(other),
            },
            Err(found) if why == "behind" => found,
            Err(_) => why,
        };
        build::anew(path, reader, progress)?;
        match Self::existing(path, reader) {
            Ok(Some(mut index)) => {
                index.built = Built::Anew(why);
                Ok(index)
            }
            _ => Err(IndexError::Busy { path: path.into() }),
        }
    }

    /// What opening it took.
    #[must_use]
    pub fn built(&self) -> &Built {
        &self.built
    }

    /// Makes the whole index anew, for whoever found it wrong (or measures).
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn rebuild(
        path: &Path,
        reader: &Reader,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), IndexError> {
        build::prepare_directory(path)?;
        let _lock = build::lock(path)?;
        build::anew(path, reader, progress)
    }

    /// The index if it covers this ledger; `None` if records have to be added; why it has to be made anew otherwise.
    fn existing(path: &Path, reader: &Reader) -> Result<Option<Self>, &'static str> {
        if !path.exists() {
            return Err("there was none");
        }
        let db = connect(path).map_err(|_| "damaged")?;
        let (size, leaf) = state(&db)?;
        let mine = reader.size();
        // The hash of a record stands for the whole history before it.
        let belongs = if size == 0 {
            true
        } else if size <= mine {
            reader.leaf(size - 1) == Some(leaf)
        } else if mine == 0 {
            true
        } else {
            // Built by somebody who has seen more, or of a ledger that was cut since.
            let sql = "SELECT hash FROM record WHERE height = ?";
            let hash: Option<i64> = db
                .query_row(sql, [signed(mine)], |row| row.get(0))
                .optional()
                .map_err(|_| "damaged")?;
            hash.is_some() && hash == reader.leaf(mine - 1).map(|leaf| short(&leaf))
        };
        if !belongs {
            return Err("it is of another history");
        }
        Ok((size >= mine).then(|| Self {
            db,
            path: path.to_owned(),
            built: Built::Current,
        }))
    }

    /// Calls `look` with the heights between `first` and `last` that may fit, until it says false; true when some are
    /// left. What is told is at least all that fit, if the index is what it was built to be.
    pub(crate) fn candidates(
        &self,
        filter: &Filter,
        order: Order,
        first: u64,
        last: u64,
        look: &mut dyn FnMut(u64) -> Result<bool, ReadError>,
    ) -> Result<bool, IndexError> {
        let fail = |source| self.fail(source);
        let Some(plan) = self.plan(filter, first, last).map_err(fail)? else {
            return Ok(false);
        };
        let (mut first, mut last) = (plan.first, plan.last);
        let direction = match order {
            Order::Newest => "DESC",
            Order::Oldest => "ASC",
        };
        let sql = format!(
            "SELECT height FROM record WHERE {}height BETWEEN ? AND ? ORDER BY height {direction} LIMIT {PAGE}",
            plan.conditions
        );
        let mut statement = self.db.prepare(&sql).map_err(fail)?;
        while first <= last {
            let mut values = plan.values.clone();
            values.extend([Value::from(signed(first)), Value::from(signed(last))]);
            // A page at a time, so that no reader holds up whoever adds records.
            let page: Vec<i64> = statement
                .query_map(rusqlite::params_from_iter(values), |row| row.get(0))
                .and_then(Iterator::collect)
                .map_err(fail)?;
            for height in &page {
                let height = u64::try_from(*height).unwrap_or(0).clamp(first, last);
                if !look(height)? {
                    return Ok(true);
                }
                match order {
                    Order::Newest => last = height - 1,
                    Order::Oldest => first = height + 1,
                }
            }
            if page.len() < PAGE {
                break;
            }
        }
        Ok(false)
    }

    /// How often each value of a field occurs, the most frequent first, at most `limit`.
    ///
    /// # Errors
    /// SQLite.
    pub fn tallies(&self, field: Counted, limit: usize) -> Result<Vec<Tally>, IndexError> {
        let sql = "SELECT text, count, first, last FROM tally JOIN word ON word.id = tally.word WHERE field = ? ORDER BY count DESC, text LIMIT ?";
        let query = || {
            let mut statement = self.db.prepare_cached(sql)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![field.number() as i64, limit], |row| {
                Ok(Tally {
                    text: row.get(0)?,
                    count: unsigned(row.get(1)?),
                    first: unsigned(row.get(2)?),
                    last: unsigned(row.get(3)?),
                })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        query().map_err(|source| self.fail(source))
    }

    /// How many records are newer than this time, in microseconds since 1970 UTC.
    ///
    /// # Errors
    /// SQLite.
    pub fn since(&self, after_us: i64) -> Result<u64, IndexError> {
        self.db
            .query_row(
                "SELECT count(*) FROM record WHERE ts > ?",
                [after_us],
                |row| row.get(0),
            )
            .map(unsigned)
            .map_err(|source| self.fail(source))
    }

    fn fail(&self, source: rusqlite::Error) -> IndexError {
        IndexError::Sqlite {
            path: self.path.clone(),
            source,
        }
    }
}

/// Opens the file with a schema that cannot do anything but hold rows.
///
/// Writable also for reading: after a process was killed, whoever comes next undoes its half of a transaction.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW,
    )?;
    db.busy_timeout(PATIENCE)?;
    db.pragma_update(None, "trusted_schema", false)?;
    db.pragma_update(None, "cell_size_check", true)?;
    Ok(db)
}

/// How far the index reaches, if its tables are ours.
fn state(db: &Connection) -> Result<(u64, Hash), &'static str> {
    let number = |pragma| db.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    if number("application_id") != Ok(APPLICATION) {
        return Err("damaged");
    }
    if number("user_version") != Ok(VERSION) {
        return Err("it is of another version");
    }
    let schema = || -> rusqlite::Result<Vec<String>> {
        let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid LIMIT 20";
        db.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
    };
    let expected: Vec<&str> = TABLES.iter().chain(&INDEXES).copied().collect();
    if schema().map_err(|_| "damaged")? != expected {
        return Err("damaged");
    }
    let row = db.query_row("SELECT size, leaf FROM log", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Hash>(1)?))
    });
    let (size, leaf) = row.map_err(|_| "damaged")?;
    Ok((u64::try_from(size).map_err(|_| "damaged")?, leaf))
}

/// 64 bits of a hash.
fn short(hash: &Hash) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(first)
}

fn signed(height: u64) -> i64 {
    i64::try_from(height).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
