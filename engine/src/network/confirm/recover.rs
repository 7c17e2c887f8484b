//! Changes that nobody looks after any more: after a crash of everything, or another start of the machine. Called by the
//! daemon, by every `blockhost net` command and by a unit at the start of the machine.

use std::time::Duration;

use blockhost_proto::layout::Layout;

use super::record::{Ended, Phase, RecordError, Store};
use super::revert::take_back;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(200);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// It was taken back now.
    Reverted(Ended),
    /// Somebody looks after it.
    LookedAfter(String),
}

/// Takes back every change that nobody looks after. With `wait` it also waits for those that somebody does.
///
/// # Errors
/// [`RecordError`]; a record that cannot be read stops everything until somebody has looked at it.
pub async fn all(layout: &Layout, wait: bool) -> Result<Vec<Found>, RecordError> {
    let store = Store::new(layout);
    let mut found = Vec::new();
    for (_, id) in store.open_changes()? {
        loop {
            match one(layout, &store, &id).await? {
                Some(Found::LookedAfter(_)) if wait => tokio::time::sleep(EVERY).await,
                other => {
                    found.extend(other);
                    break;
                }
            }
        }
    }
    Ok(found)
}

/// Takes this one back if nobody looks after it; whether it is over.
pub(super) async fn now(layout: &Layout, id: &str) -> Result<bool, RecordError> {
    let found = one(layout, &Store::new(layout), id).await?;
    Ok(!matches!(found, Some(Found::LookedAfter(_))))
}

async fn one(layout: &Layout, store: &Store, id: &str) -> Result<Option<Found>, RecordError> {
    let looked_after = || Ok(Some(Found::LookedAfter(id.to_owned())));
    // In the order that the watching process takes them: nobody waits for a lock while it holds one that another wants.
    let _guard = match store.lock_guard() {
        Err(RecordError::Busy) => return looked_after(),
        other => other?,
    };
    let maker = match store.lock_maker() {
        Err(RecordError::Busy) => return looked_after(),
        other => other?,
    };
    let moved = store.advance(id, Phase::Pending, Phase::Reverting)?;
    if !moved && !store.is(Phase::Reverting, id) {
        return Ok(None);
    }
    let reason = "it was found with nobody looking after it";
    let ended = take_back(store, layout, id, reason, Some(&maker)).await?;
    Ok(Some(Found::Reverted(ended)))
}

/// Whether there is anything to look at. Needs no rights to say no.
#[must_use]
pub fn is_needed(layout: &Layout) -> bool {
    Store::new(layout)
        .open_changes()
        .is_ok_and(|open| !open.is_empty())
}
