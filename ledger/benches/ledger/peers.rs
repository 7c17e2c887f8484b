//! Others that keep the same 800 bytes durably on the same file system.

use crate::ours::realistic;
use crate::{Anyhow, Store};
use rusqlite::{Connection, params};
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

/// What durability costs by itself.
pub(crate) struct Bare(File);

impl Bare {
    pub fn open(path: &Path) -> Anyhow<Self> {
        Ok(Self(
            OpenOptions::new().create(true).append(true).open(path)?,
        ))
    }
}

impl Store for Bare {
    fn keep(&mut self, batch: usize) -> Anyhow<()> {
        let bytes: Vec<u8> = (0..batch).flat_map(|_| realistic(0)).collect();
        self.0.write_all(&bytes)?;
        Ok(self.0.sync_data()?)
    }
}

/// A table with a chain of hashes, as somebody would build it who has SQLite: WAL, synchronous=FULL.
pub(crate) struct Sqlite {
    connection: Connection,
    last: Vec<u8>,
    count: u64,
}

impl Sqlite {
    pub fn open(path: &Path) -> Anyhow<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch("CREATE TABLE record (height INTEGER PRIMARY KEY, bytes BLOB NOT NULL, hash BLOB NOT NULL)")?;
        Ok(Self {
            connection,
            last: vec![0; 32],
            count: 0,
        })
    }
}

impl Store for Sqlite {
    fn keep(&mut self, batch: usize) -> Anyhow<()> {
        let transaction = self.connection.transaction()?;
        for _ in 0..batch {
            let bytes = realistic(self.count);
            self.last = Sha256::new()
                .chain_update(&self.last)
                .chain_update(&bytes)
                .finalize()
                .to_vec();
            transaction
                .prepare_cached("INSERT INTO record (bytes, hash) VALUES (?, ?)")?
                .execute(params![bytes, self.last])?;
            self.count += 1;
        }
        Ok(transaction.commit()?)
    }
}

/// A transaction for each record, as callers do that know nothing of each other.
pub(crate) struct OneByOne<S>(pub S);

impl<S: Store> Store for OneByOne<S> {
    fn keep(&mut self, batch: usize) -> Anyhow<()> {
        (0..batch).try_for_each(|_| self.0.keep(1))
    }
}
