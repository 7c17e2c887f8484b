//! What must survive: nonces that were used, before what they asked for is done, and the rules that may stand in the
//! firewall, before they do. A database of its own beside the outbox.

use super::knocks::Rule;
use crate::sqlite::{self, Unusable};
use blockhost_proto::layout::Layout;
use rusqlite::{Connection, params};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What leads to each format.
const FORMATS: [&str; 1] = [SCHEMA];

const SCHEMA: &str = "
CREATE TABLE nonces (nonce TEXT PRIMARY KEY, tx_hash TEXT NOT NULL, at_s INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE rules (
    port INTEGER NOT NULL,
    proto TEXT NOT NULL,
    source TEXT NOT NULL,
    PRIMARY KEY (port, proto, source)
) STRICT, WITHOUT ROWID;
";

/// Why it could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database.
    #[error("{path}: {source}", path = .path.display())]
    Database {
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Written by a newer program, or by another.
    #[error("{path} has format {found}, this program knows {known}; use the newer program", path = .path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// Something in it cannot be read back.
    #[error("{path} holds a rule that cannot be: {rule}; look at it with sqlite3", path = .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// The rule.
        rule: String,
    },
}

/// The open database.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Store {
    /// `/var/lib/blockhost/admin.db`.
    #[must_use]
    pub fn path(layout: &Layout) -> PathBuf {
        layout.state().join("admin.db")
    }

    /// Opens it, creating it where needed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(layout: &Layout) -> Result<Self, StoreError> {
        let path = Self::path(layout);
        let prepared = Connection::open(&path)
            .map_err(Unusable::from)
            .and_then(|connection| sqlite::prepare(connection, &FORMATS));
        let connection = prepared.map_err(|e| match e {
            Unusable::Database(source) => StoreError::Database {
                path: path.clone(),
                source,
            },
            Unusable::Newer(found) => StoreError::Newer {
                path: path.clone(),
                found,
                known: sqlite::newest(&FORMATS),
            },
        })?;
        Ok(Self {
            path,
            connection: Mutex::new(connection),
        })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // Every change is one statement: a panic in between left nothing half done.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |source| StoreError::Database {
            path: path.clone(),
            source,
        }
    }

    /// Uses a nonce up. False when it was used before.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn use_nonce(&self, nonce: &str, tx_hash: &str, now_s: i64) -> Result<bool, StoreError> {
        self.connection()
            .execute(
                "INSERT OR IGNORE INTO nonces VALUES (?, ?, ?)",
                params![nonce, tx_hash, now_s],
            )
            .map(|rows| rows == 1)
            .map_err(self.failed())
    }

    /// The rules that may stand.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rules(&self) -> Result<BTreeSet<Rule>, StoreError> {
        let rows: Vec<(i64, String, String)> = self
            .connection()
            .prepare_cached("SELECT port, proto, source FROM rules")
            .and_then(|mut select| {
                select
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                    .collect()
            })
            .map_err(self.failed())?;
        rows.into_iter()
            .map(|(port, proto, source)| {
                let read = || {
                    Some(Rule {
                        port: u64::try_from(port).ok()?.try_into().ok()?,
                        proto: proto.parse().ok()?,
                        source: match source.as_str() {
                            "" => None,
                            source => Some(source.parse().ok()?),
                        },
                    })
                };
                read().ok_or_else(|| StoreError::Content {
                    path: self.path.clone(),
                    rule: format!("{port} {proto} {source}"),
                })
            })
            .collect()
    }

    /// Notes that a rule is about to be made.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn about_to_open(&self, rule: &Rule) -> Result<(), StoreError> {
        let (port, proto, source) = columns(rule);
        self.connection()
            .execute(
                "INSERT OR IGNORE INTO rules VALUES (?, ?, ?)",
                params![port, proto, source],
            )
            .map(drop)
            .map_err(self.failed())
    }

    /// Notes that a rule is gone.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn closed(&self, rule: &Rule) -> Result<(), StoreError> {
        let (port, proto, source) = columns(rule);
        self.connection()
            .execute(
                "DELETE FROM rules WHERE port = ? AND proto = ? AND source = ?",
                params![port, proto, source],
            )
            .map(drop)
            .map_err(self.failed())
    }
}

fn columns(rule: &Rule) -> (i64, &'static str, String) {
    let source = rule
        .source
        .map_or_else(String::new, |source| source.to_string());
    (i64::from(u16::from(rule.port)), rule.proto.as_str(), source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_used_once_also_after_a_restart_and_rules_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        std::fs::create_dir_all(layout.state()).unwrap();
        let rule = |source: Option<&str>| Rule {
            port: 22u64.try_into().unwrap(),
            proto: blockhost_proto::value::L4Proto::Tcp,
            source: source.map(|source| source.parse().unwrap()),
        };
        {
            let store = Store::open(&layout).unwrap();
            assert!(store.use_nonce("n", "0x1", 1).unwrap());
            assert!(!store.use_nonce("n", "0x2", 2).unwrap());
            for rule in [rule(None), rule(Some("192.0.2.0/24")), rule(None)] {
                store.about_to_open(&rule).unwrap();
            }
        }
        let store = Store::open(&layout).unwrap();
        assert!(!store.use_nonce("n", "0x3", 3).unwrap());
        assert_eq!(
            store.rules().unwrap(),
            [rule(None), rule(Some("192.0.2.0/24"))].into()
        );
        store.closed(&rule(None)).unwrap();
        store.closed(&rule(None)).unwrap();
        assert_eq!(store.rules().unwrap(), [rule(Some("192.0.2.0/24"))].into());
        store
            .connection()
            .execute("INSERT INTO rules VALUES (99999, 'tcp', '')", [])
            .unwrap();
        assert!(matches!(store.rules(), Err(StoreError::Content { .. })));
    }
}
