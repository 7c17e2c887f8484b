//! How every database of the engine is opened: durable, patient, and in the newest format, or not at all. What is in them is
//! the outbox's and the administrators' commands'.

use rusqlite::{Connection, TransactionBehavior};
use std::time::Duration;

/// How long somebody else may have it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a database cannot be used.
#[derive(Debug, PartialEq)]
pub enum Unusable {
    /// SQLite says so.
    Database(rusqlite::Error),
    /// Written by a newer program: it has this format.
    Newer(i64),
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Sets a connection up and brings its database to the newest format, in one step. `formats` are the changes that lead to
/// format 1, 2 and so on.
///
/// # Errors
/// [`Unusable`].
pub fn prepare(mut connection: Connection, formats: &[&str]) -> Result<Connection, Unusable> {
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What is acknowledged must survive the power cut, not only the crash.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let missing = usize::try_from(found)
        .ok()
        .and_then(|found| formats.get(found..))
        .ok_or(Unusable::Newer(found))?;
    for change in missing {
        transaction.execute_batch(change)?;
    }
    if !missing.is_empty() {
        transaction.pragma_update(None, "user_version", newest(formats))?;
    }
    transaction.commit()?;
    Ok(connection)
}

/// The newest format that these changes lead to.
#[must_use]
pub fn newest(formats: &[&str]) -> i64 {
    i64::try_from(formats.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [&str; 2] = [
        "CREATE TABLE a (x INTEGER) STRICT;",
        "ALTER TABLE a ADD COLUMN y INTEGER;",
    ];

    #[test]
    fn a_database_is_brought_forward_once_from_wherever_it_is_and_never_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let open = |formats: &[&str]| prepare(Connection::open(&path).unwrap(), formats).map(drop);
        open(&FORMATS[..1]).unwrap();
        open(&FORMATS).unwrap();
        open(&FORMATS).unwrap();
        assert_eq!(open(&FORMATS[..1]), Err(Unusable::Newer(2)));
        // A change that fails leaves the format before it.
        let broken = [
            FORMATS[0],
            FORMATS[1],
            "CREATE TABLE b (x INTEGER) STRICT; nonsense",
        ];
        assert!(matches!(open(&broken), Err(Unusable::Database(_))));
        open(&FORMATS).unwrap();
        let other = Connection::open(&path).unwrap();
        other.pragma_update(None, "user_version", -1).unwrap();
        assert_eq!(open(&FORMATS), Err(Unusable::Newer(-1)));
    }
}
