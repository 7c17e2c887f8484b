//! Changes that nobody looks after any more: after a crash of everything, or another start of the machine. Called by the
//! daemon, by every `blockhost net` command and by a unit at the start of the machine.

use std::time::Duration;

use blockhost_proto::layout::Layout;

use crate::log;

use super::record::{Ended, Phase, RecordError, is_id, now};
use super::revert::{take_back, tell};
use super::store::Store;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(200);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// It was taken back now.
    Reverted(Ended),
    /// It was decided that it stays, and that was ended now.
    Finished(String),
    /// The root agent refuses to take it back.
    Stuck(Ended),
    /// Somebody looks after it.
    LookedAfter(String),
}

/// Ends every change that nobody looks after: takes it back, or finishes what was decided. With `wait` it also waits for those
/// that somebody does. What could not be taken back before is tried again.
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

/// The same for a service that starts, in words for its log. It waits: who looks after a change now may be dying just then, and
/// nobody would look again.
pub async fn at_start(layout: Layout) {
    let found = match all(&layout, true).await {
        Ok(found) => found,
        Err(error) => return log::error("changes of the network", &[("error", &error)]),
    };
    for one in found {
        match one {
            Found::Reverted(ended) => log::warn(
                "a change of the network was taken back",
                &[("change", &ended.id), ("what", &ended.what)],
            ),
            Found::Stuck(ended) => log::error(
                "a change of the network cannot be taken back; see `blockhost net status`",
                &[("change", &ended.id), ("what", &ended.what)],
            ),
            Found::Finished(id) => log::info("a change of the network stays", &[("change", &id)]),
            Found::LookedAfter(_) => {}
        }
    }
}

/// Ends this one if nobody looks after it; whether it is over.
pub(super) async fn is_over(layout: &Layout, id: &str) -> Result<bool, RecordError> {
    let found = one(layout, &Store::new(layout), id).await?;
    Ok(!matches!(
        found,
        Some(Found::LookedAfter(_) | Found::Stuck(_))
    ))
}

async fn one(layout: &Layout, store: &Store, id: &str) -> Result<Option<Found>, RecordError> {
    let looked_after = || Ok(Some(Found::LookedAfter(id.to_owned())));
    // In the order that the watching process takes them: nobody waits for a lock while it holds one that another wants.
    let _guard = match store.lock_guard() {
        Err(RecordError::Busy) => return looked_after(),
        other => other?,
    };
    let maker = match store.lock_maker_soon().await {
        Err(RecordError::Busy) => return looked_after(),
        other => other?,
    };
    if store.is(Phase::Confirmed, id) {
        super::finish(layout, store, id).await?;
        if !store.is(Phase::Reverting, id) {
            return Ok(Some(Found::Finished(id.to_owned())));
        }
    }
    let moved = store.advance(id, Phase::Pending, Phase::Reverting)?
        || store.advance(id, Phase::Stuck, Phase::Reverting)?;
    if !moved && !store.is(Phase::Reverting, id) {
        return Ok(None);
    }
    let reason = "it was found with nobody looking after it";
    let ended = take_back(store, layout, id, reason, Some(&maker), None).await?;
    Ok(Some(if ended.stuck {
        Found::Stuck(ended)
    } else {
        Found::Reverted(ended)
    }))
}

/// Whether there is anything that can be ended without a decision. Needs no rights to say no.
#[must_use]
pub fn is_needed(layout: &Layout) -> bool {
    let open = Store::new(layout).open_changes();
    open.is_ok_and(|open| open.iter().any(|(phase, _)| *phase != Phase::Stuck))
}

/// Somebody has looked at a change that cannot be taken back, and says that it is over as it is.
///
/// # Errors
/// [`RecordError`]; `None` where there is no such change that is stuck.
pub async fn abandon(layout: &Layout, id: &str) -> Result<Option<Ended>, RecordError> {
    let store = Store::new(layout);
    if !is_id(id) || !store.is(Phase::Stuck, id) {
        return Ok(None);
    }
    let _guard = store.lock_guard_soon().await?;
    let _maker = store.lock_maker_soon().await?;
    let what = store
        .read(Phase::Stuck, id)
        .map(|known| known.record.plan.what);
    let ended = Ended {
        id: id.to_owned(),
        // A record that cannot be read must not stop anybody from ending it.
        what: what.unwrap_or_else(|_| "a change whose record cannot be read".to_owned()),
        confirmed: false,
        reason: Some(
            "it could not be taken back, and was left as it is by the operator".to_owned(),
        ),
        at: now(),
        problems: Vec::new(),
        stuck: true,
    };
    tell(layout, &ended).await;
    store.close(Phase::Stuck, &ended)?;
    Ok(Some(ended))
}
