//! Taking a change back: what was begun of it, in the opposite order, through the root agent, as often as it takes. Run by
//! whoever made the change, by the process that watches over it, or by the next one that finds its record.

use std::time::Duration;

use blockhost_ledger::failpoint;
use blockhost_proto::Action;
use blockhost_proto::client::CallError;
use blockhost_proto::client::tokio::Client;
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use serde_json::json;
use zbus::Connection;

use super::plan::Undo;
use super::record::{Ended, Held, Known, Phase, RecordError, Store, now};
use super::{manager, verify};
use crate::agent::{self, Kind};
use crate::network::observe;

/// How what came of a change is recorded.
const TAKEN_BACK: Kind = Kind {
    category: "network",
    operation: None,
};

/// Between two attempts, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];
/// How long NetworkManager may take to go back. It does so by its own timer otherwise.
const MANAGER: Duration = Duration::from_secs(20);
/// How often recording it in the ledger is tried: what happened is there already, action by action.
const RECORDING: u32 = 3;

/// Takes a change back whose record says that it is being taken back, and closes it. Returns only when that is done: an
/// agent that is away is waited for.
///
/// `maker` is the lock of whoever makes changes, where the caller has it. Otherwise it is taken at the end, so that no
/// process that was stopped half-way carries out one more step afterwards.
///
/// # Errors
/// [`RecordError`] where the record cannot be read or removed.
pub async fn take_back(
    store: &Store,
    layout: &Layout,
    id: &str,
    reason: &str,
    maker: Option<&Held>,
) -> Result<Ended, RecordError> {
    let known = store.read(Phase::Reverting, id)?;
    let mut problems = Vec::new();
    once(layout, &known, &mut problems).await;
    failpoint::reach("net-change", b"reverted");
    let own = match maker {
        Some(_) => None,
        None => Some(exclusively(store, layout, id, &mut problems).await?),
    };
    if let Some(checkpoint) = known.checkpoint() {
        problems.extend(roll_back(checkpoint).await);
    }
    let ended = Ended {
        id: id.to_owned(),
        what: known.record.plan.what.clone(),
        confirmed: false,
        reason: Some(reason.to_owned()),
        at: now(),
        problems,
    };
    tell(layout, &ended).await;
    store.close(Phase::Reverting, &ended)?;
    drop(own);
    Ok(ended)
}

/// Waits until nobody makes the change any more, and takes back what was done of it meanwhile.
async fn exclusively(
    store: &Store,
    layout: &Layout,
    id: &str,
    problems: &mut Vec<String>,
) -> Result<Held, RecordError> {
    let mut waited = false;
    loop {
        match store.lock_maker() {
            Ok(held) => {
                if waited {
                    once(layout, &store.read(Phase::Reverting, id)?, problems).await;
                }
                return Ok(held);
            }
            Err(RecordError::Busy) => {
                waited = true;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Everything that was begun, from the last to the first.
async fn once(layout: &Layout, known: &Known, problems: &mut Vec<String>) {
    let steps = known.record.plan.steps.iter().enumerate().rev();
    for (number, step) in steps.filter(|(number, _)| known.started(*number)) {
        for undo in &step.inverse {
            until_done(layout, undo, problems).await;
            failpoint::reach("net-change", format!("undone-{number}").as_bytes());
        }
    }
}

/// One part of it. What comes before is needed for what follows, so there is no going on without it.
async fn until_done(layout: &Layout, undo: &Undo, problems: &mut Vec<String>) {
    let mut pause = PAUSES[0];
    let mut told = None;
    loop {
        let why = match attempt(layout, undo).await {
            Ok(()) => return,
            Err(why) => why,
        };
        if told.as_ref() != Some(&why) {
            crate::log::warn(
                "taking a change of the network back: trying again",
                &[("action", &undo.call), ("error", &why)],
            );
            problems.push(format!("{}: {why}", undo.call.0.name()));
            told = Some(why);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES[1]);
    }
}

async fn attempt(layout: &Layout, undo: &Undo) -> Result<(), String> {
    if let Some(condition) = &undo.only_if {
        let links = observe::links().map_err(|error| error.to_string())?;
        if !verify::holds(condition, &links) {
            return Ok(());
        }
    }
    match ask(layout, &undo.call.0).await {
        Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(()),
        other => other.map_err(|error| error.to_string()),
    }
}

async fn ask(layout: &Layout, action: &Action) -> Result<(), CallError> {
    let mut client = Client::connect_layout(layout).await?;
    client.call(action).await.map(drop)
}

/// NetworkManager goes back to what it knows.
async fn roll_back(checkpoint: &str) -> Option<String> {
    let ask = async {
        let bus = Connection::system().await.map_err(|e| e.to_string())?;
        manager::roll_back(&bus, checkpoint)
            .await
            .map_err(|e| e.to_string())
    };
    match tokio::time::timeout(MANAGER, ask).await {
        Ok(Ok(left)) if left.is_empty() => None,
        Ok(Ok(left)) => Some(format!(
            "NetworkManager could not go back for {}",
            left.join(", ")
        )),
        Ok(Err(error)) => Some(error),
        Err(_) => Some("NetworkManager did not go back in time".to_owned()),
    }
}

/// Puts on record how a change ended.
pub(super) async fn tell(layout: &Layout, ended: &Ended) {
    let action = if ended.confirmed {
        "network-change-confirmed"
    } else {
        "network-change-reverted"
    };
    let data =
        json!({"what": ended.what, "reason": ended.reason, "problems": ended.problems.len()});
    for attempt in 1..=RECORDING {
        let resource = format!("net-change:{}", ended.id);
        match agent::record_in(layout, TAKEN_BACK, action, &resource, data.clone()).await {
            Ok(_) => return,
            Err(error) if attempt == RECORDING => crate::log::warn(
                "the end of a change of the network is not in the ledger",
                &[("change", &ended.id), ("error", &error)],
            ),
            Err(_) => tokio::time::sleep(PAUSES[0]).await,
        }
    }
}
