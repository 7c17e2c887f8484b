//! The ledger as a service offers it: the five questions that the bus interface asks (`GetBlocksByCategory`,
//! `GetBlocksByHeight`, `GetBlockByHash`, `VerifyBlockchainIntegrity`, `GetBlockchainStats`), with answers of bounded size
//! in plain serde types. A *block* here is one record, as the interface has always called it. No bus is known here.

use crate::dir::LedgerDir;
use crate::index::Index;
use crate::merkle::hex;
use crate::note::Vkey;
use crate::query::{self, Coverage, FEW, Filter, Found, Order, Query, QueryError, parse_hash};
use crate::reader::{ReadError, Reader};
use crate::stats::{Stats, stats};
use crate::verify::{Trust, VerifyReport, verify};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Blocks in an answer when nothing else is asked for.
pub const DEFAULT_BLOCKS: usize = 100;
/// Most blocks in one answer.
pub const MAX_BLOCKS: usize = 1000;
/// Bytes of records after which an answer ends, with the record that reached them.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;
/// How long what was read is used again: an answer is at most this old.
const FRESH: Duration = Duration::from_secs(1);

/// One record, with the names that the interface uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Block {
    /// Place in the history, from 1.
    pub height: u64,
    /// RFC 6962 leaf hash of the record, computed from its bytes, hexadecimal.
    pub hash: String,
    /// Hash of the record before it.
    pub prev_hash: String,
    /// Seconds since 1970 UTC.
    pub timestamp: i64,
    /// Part of the product that wrote it.
    pub producer: String,
    /// network, settings, users, storage, compute, chain, ...
    pub category: String,
    /// Catalog action or name of the event.
    pub action: String,
    /// intent, outcome, event, ...
    pub phase: String,
    /// create, modify, delete, apply, query.
    pub operation: String,
    /// What it acts on.
    pub resource: String,
    /// Joins intent and outcome; empty without.
    pub op_id: String,
    /// Who asked.
    pub user: String,
    /// On which host.
    pub hostname: String,
    /// Process that asked, when known.
    pub pid: Option<i64>,
    /// The details.
    pub data: Value,
}

impl Block {
    fn of(found: &Found) -> Self {
        let mut record: Value = serde_json::from_slice(&found.record).unwrap_or_default();
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        Self {
            height: found.height,
            hash: hex(&found.hash),
            prev_hash: text("prev_hash"),
            timestamp: record["timestamp"].as_i64().unwrap_or_default(),
            producer: text("plugin_id"),
            category: text("category"),
            action: text("action"),
            phase: text("phase"),
            operation: text("operation"),
            resource: text("resource"),
            op_id: text("op_id"),
            user: text("user"),
            hostname: text("hostname"),
            pid: record["pid"].as_i64(),
            data: record
                .get_mut("metadata")
                .map(Value::take)
                .unwrap_or_default(),
        }
    }
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocks {
    /// The records, in the order that was asked for.
    pub blocks: Vec<Block>,
    /// There may be more: ask again from this height on (downwards for the newest first, upwards for heights).
    pub next: Option<u64>,
    /// Records in the ledger when it was asked.
    pub ledger_height: u64,
    /// What the answer says about records that are not in it.
    pub coverage: Coverage,
}

/// Which part of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Page {
    /// Begin at this height instead of the end: `next` of the page before.
    pub from: Option<u64>,
    /// At most this many, between 1 and [`MAX_BLOCKS`]; [`DEFAULT_BLOCKS`] if nothing is said.
    pub limit: Option<usize>,
}

impl Page {
    fn limit(self) -> usize {
        self.limit.unwrap_or(DEFAULT_BLOCKS).clamp(1, MAX_BLOCKS)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// What was asked makes no sense.
    #[error("{what}")]
    Argument {
        /// A sentence for whoever asked.
        what: String,
    },
    /// The ledger cannot answer.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl From<ReadError> for ServiceError {
    fn from(error: ReadError) -> Self {
        Self::Query(error.into())
    }
}

/// Answers questions about one ledger; may be shared by threads.
#[derive(Debug)]
pub struct Service {
    dir: PathBuf,
    key: Option<Vkey>,
    index: Option<PathBuf>,
    last: Mutex<Option<(Instant, Arc<Reader>)>>,
}

impl Service {
    /// The ledger in `dir`; `key` if it is known from elsewhere; `index` is where the index may be kept, in a directory
    /// that is this process's own (see [`crate::index::default_path`]).
    #[must_use]
    pub fn new(dir: PathBuf, key: Option<Vkey>, index: Option<PathBuf>) -> Self {
        Self {
            dir,
            key,
            index,
            last: Mutex::new(None),
        }
    }

    /// `GetBlocksByCategory`: the newest first.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn blocks_by_category(&self, category: &str, page: Page) -> Result<Blocks, ServiceError> {
        if category.is_empty() || category.len() > 128 {
            return Err(argument("a category has 1 to 128 bytes"));
        }
        let heights = page.from.map(|from| 1..=from);
        let filter = Filter {
            category: Some(category.to_owned()),
            heights,
            ..Filter::default()
        };
        self.blocks(filter, Order::Newest, page)
    }

    /// `GetBlocksByHeight`: from the first to the last height, both included, from 1.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn blocks_by_height(&self, first: u64, last: u64) -> Result<Blocks, ServiceError> {
        if first == 0 || last < first {
            return Err(argument(
                "heights begin with 1, and the last one is not before the first",
            ));
        }
        let filter = Filter {
            heights: Some(first..=last),
            ..Filter::default()
        };
        let page = Page {
            from: None,
            limit: Some(MAX_BLOCKS),
        };
        self.blocks(filter, Order::Oldest, page)
    }

    /// `GetBlockByHash`: by the record's own hash, 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn block_by_hash(&self, hash: &str) -> Result<Option<Block>, ServiceError> {
        let hash = parse_hash(hash).map_err(|what| ServiceError::Argument { what })?;
        let filter = Filter {
            hash: Some(hash),
            ..Filter::default()
        };
        let page = Page {
            from: None,
            limit: Some(1),
        };
        let answer = self.blocks(filter, Order::Newest, page)?;
        Ok(answer.blocks.into_iter().next())
    }

    /// `VerifyBlockchainIntegrity`: everything, which takes its time.
    ///
    /// # Errors
    /// The ledger cannot be read at all; what is wrong with it is in the report.
    pub fn verify_blockchain_integrity(
        &self,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<VerifyReport, ServiceError> {
        let trust = Trust {
            key: self.key.clone(),
            ..Trust::default()
        };
        Ok(verify(&self.ledger()?, &trust, progress)?)
    }

    /// `GetBlockchainStats`.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn blockchain_stats(&self) -> Result<Stats, ServiceError> {
        let reader = self.reader()?;
        let quiet = &mut |_, _| {};
        let ledger = self.ledger()?;
        let index = self.index.as_deref().filter(|_| reader.size() > FEW);
        let index = index.and_then(|path| Index::open(path, &reader, quiet).ok());
        match stats(&ledger, &reader, index.as_ref(), quiet) {
            Err(QueryError::Index(_)) => Ok(stats(&ledger, &reader, None, quiet)?),
            answer => Ok(answer?),
        }
    }

    fn blocks(&self, filter: Filter, order: Order, page: Page) -> Result<Blocks, ServiceError> {
        let reader = self.reader()?;
        let query = Query {
            filter,
            order,
            limit: page.limit(),
        };
        let index = self.index.as_deref();
        let answer = query::best(&reader, index, &query, &mut |_, _| {}, &mut |_| {})?;
        let mut blocks = Vec::new();
        let mut bytes = 0;
        for found in &answer.found {
            blocks.push(Block::of(found));
            bytes += found.record.len();
            if bytes >= MAX_ANSWER_BYTES {
                break;
            }
        }
        let more = answer.more || blocks.len() < answer.found.len();
        let next = blocks
            .last()
            .filter(|_| more)
            .map(|block| match order {
                Order::Newest => block.height - 1,
                Order::Oldest => block.height + 1,
            })
            .filter(|height| *height > 0);
        Ok(Blocks {
            blocks,
            next,
            ledger_height: reader.size(),
            coverage: answer.coverage,
        })
    }

    fn ledger(&self) -> Result<LedgerDir, ServiceError> {
        LedgerDir::open(&self.dir).map_err(|error| ReadError::from(error).into())
    }

    /// What is committed, read anew when what was read before is older than a moment.
    fn reader(&self) -> Result<Arc<Reader>, ServiceError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, reader)) = &*last
            && read.elapsed() < FRESH
        {
            return Ok(Arc::clone(reader));
        }
        let reader = Arc::new(Reader::open(self.ledger()?, self.key.clone())?);
        *last = Some((Instant::now(), Arc::clone(&reader)));
        Ok(reader)
    }
}

fn argument(what: &str) -> ServiceError {
    ServiceError::Argument {
        what: what.to_owned(),
    }
}
