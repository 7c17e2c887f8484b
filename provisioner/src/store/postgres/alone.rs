//! The one engine of a shared database: machines are named after subscriptions, so that two engines, on one contract or on
//! two, would take each other's for their own. Whoever holds the lock is it, as long as the connection lasts.

use std::time::Duration;

use postgres::Client;

use super::PostgresStore;
use crate::store::StoreError;

/// Held by the engine.
const ENGINE_LOCK: i64 = 0x626c_6f63_6b65_6e67;
/// A server that does not answer within it holds nothing for us any more, as far as we know.
const ANSWER: Duration = Duration::from_secs(10);

/// The place of the one engine.
pub struct Alone {
    client: Client,
}

impl std::fmt::Debug for Alone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Alone")
    }
}

impl PostgresStore {
    /// Takes the place of the one engine; `None` while another one has it.
    ///
    /// # Errors
    /// [`StoreError::Server`], [`StoreError::Stranger`].
    pub fn alone(&self) -> Result<Option<Alone>, StoreError> {
        let mut client = self.session()?;
        let row = client.query_one("SELECT pg_try_advisory_lock($1)", &[&ENGINE_LOCK]);
        let free: bool = row.and_then(|row| row.try_get(0)).map_err(|e| {
            self.address
                .failed("does not say whether another engine works with it", &e)
        })?;
        Ok(free.then_some(Alone { client }))
    }
}

impl Alone {
    /// Whether the place is still ours: the connection lives.
    #[must_use]
    pub fn is_held(&mut self) -> bool {
        self.client.is_valid(ANSWER).is_ok()
    }
}
