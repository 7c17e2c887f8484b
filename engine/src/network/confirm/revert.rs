//! Taking a change back: what was begun of it, in the opposite order, through the root agent, as often as it takes. Run by
//! whoever made the change, by the process that watches over it, or by the next one that finds its record.

use std::time::{Duration, Instant};

use blockhost_ledger::failpoint;
use blockhost_proto::Action;
use blockhost_proto::client::CallError;
use blockhost_proto::client::tokio::Client;
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use serde_json::json;
use zbus::Connection;

use super::plan::Undo;
use super::record::{Ended, Known, Phase, RecordError, now};
use super::store::{Held, Store};
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
/// How often a definite no is heard before it is believed; with the pauses that takes a quarter of a minute.
const REFUSALS: u32 = 8;
/// How long it may fail: the switch may not be running yet.
const FAILING: Duration = Duration::from_secs(600);
/// How often recording it in the ledger is tried: what happened is there already, action by action.
const RECORDING: u32 = 3;

/// What is left to do when the way back is refused.
#[derive(Debug)]
struct Refused;

/// Takes a change back whose record says that it is being taken back, and closes it. Returns only when that is done, or when
/// the root agent has refused it for good, which [`Ended::stuck`] says: an agent that is away is waited for.
///
/// `maker` is the lock of whoever makes changes, where the caller has it. Otherwise it is taken at the end, so that no
/// process that was stopped half-way carries out one more step afterwards. `remembered` is the record as the caller knew it,
/// for where it cannot be read any more: then all of it is taken back.
///
/// # Errors
/// [`RecordError`] where the record cannot be read or removed.
pub async fn take_back(
    store: &Store,
    layout: &Layout,
    id: &str,
    reason: &str,
    maker: Option<&Held>,
    remembered: Option<&Known>,
) -> Result<Ended, RecordError> {
    let known = match (store.read(Phase::Reverting, id), remembered) {
        (Ok(known), _) => known,
        (Err(error), None) => return Err(error),
        (Err(error), Some(known)) => {
            let why = [("change", &id as &dyn std::fmt::Display), ("error", &error)];
            crate::log::warn(
                "taking a change back from memory: its record cannot be read",
                &why,
            );
            known.clone().all_begun()
        }
    };
    let mut problems = Vec::new();
    let mut own = None;
    let mut done = once(layout, &known, &mut problems).await;
    failpoint::reach("net-change", b"reverted");
    if done.is_ok() && maker.is_none() {
        match exclusively(store, layout, &known, &mut problems).await? {
            Ok(held) => own = Some(held),
            Err(refused) => done = Err(refused),
        }
    }
    if let (Ok(()), Some(checkpoint)) = (&done, known.checkpoint()) {
        problems.extend(roll_back(checkpoint).await);
    }
    let ended = Ended {
        id: id.to_owned(),
        what: known.record.plan.what.clone(),
        confirmed: false,
        reason: Some(reason.to_owned()),
        at: now(),
        problems,
        stuck: done.is_err(),
    };
    tell(layout, &ended).await;
    if ended.stuck {
        store.remember(&ended);
        store.advance(id, Phase::Reverting, Phase::Stuck)?;
    } else {
        store.close(Phase::Reverting, &ended)?;
    }
    drop(own);
    Ok(ended)
}

/// Waits until nobody makes the change any more, and takes back what was done of it meanwhile.
async fn exclusively(
    store: &Store,
    layout: &Layout,
    known: &Known,
    problems: &mut Vec<String>,
) -> Result<Result<Held, Refused>, RecordError> {
    let mut waited = false;
    loop {
        match store.lock_maker() {
            Ok(held) => {
                if waited {
                    let id = &known.record.id;
                    let newest = match store.read(Phase::Reverting, id) {
                        Ok(newest) => newest,
                        // Whoever made it has ended it.
                        Err(error) if !store.is(Phase::Reverting, id) => return Err(error),
                        Err(_) => known.clone().all_begun(),
                    };
                    return Ok(once(layout, &newest, problems).await.map(|()| held));
                }
                return Ok(Ok(held));
            }
            Err(RecordError::Busy) => {
                waited = true;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Everything that was begun, from the last to the first. What comes before is needed for what follows, so there is no going
/// on without it.
async fn once(layout: &Layout, known: &Known, problems: &mut Vec<String>) -> Result<(), Refused> {
    let steps = known.record.plan.steps.iter().enumerate().rev();
    for (number, step) in steps.filter(|(number, _)| known.started(*number)) {
        for undo in &step.inverse {
            until_done(layout, undo, problems).await?;
            failpoint::reach("net-change", format!("undone-{number}").as_bytes());
        }
    }
    Ok(())
}

/// Why one attempt did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Obstacle {
    /// Nobody answers, or not now: it may take as long as it takes.
    Away(String),
    /// It was tried and failed.
    Fails(String),
    /// A definite no.
    Refuses(String),
}

impl Obstacle {
    fn of(error: &CallError) -> Self {
        let text = error.to_string();
        match error.code() {
            None | Some(ErrorCode::Busy) => Self::Away(text),
            Some(ErrorCode::Failed | ErrorCode::Internal | ErrorCode::Timeout) => Self::Fails(text),
            Some(_) => Self::Refuses(text),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Away(text) | Self::Fails(text) | Self::Refuses(text) => text,
        }
    }
}

/// How often and how long one part of the way back has not succeeded.
#[derive(Debug, Default)]
struct Patience {
    refused: u32,
    failing_since: Option<Instant>,
}

impl Patience {
    /// Whether there is no hope left.
    fn ends_with(&mut self, obstacle: &Obstacle, now: Instant) -> bool {
        match obstacle {
            Obstacle::Away(_) => false,
            Obstacle::Fails(_) => {
                let since = *self.failing_since.get_or_insert(now);
                now.saturating_duration_since(since) >= FAILING
            }
            Obstacle::Refuses(_) => {
                self.refused += 1;
                self.refused >= REFUSALS
            }
        }
    }
}

/// One part of it.
async fn until_done(
    layout: &Layout,
    undo: &Undo,
    problems: &mut Vec<String>,
) -> Result<(), Refused> {
    let mut pause = PAUSES[0];
    let mut patience = Patience::default();
    let mut told = None;
    loop {
        let why = match attempt(layout, undo).await {
            Ok(()) => return Ok(()),
            Err(why) => why,
        };
        if told.as_ref() != Some(&why) {
            crate::log::warn(
                "taking a change of the network back: trying again",
                &[("action", &undo.call), ("error", &why.text())],
            );
            problems.push(format!("{}: {}", undo.call.0.name(), why.text()));
        }
        if patience.ends_with(&why, Instant::now()) {
            problems.push(format!("{} was given up", undo.call.0.name()));
            return Err(Refused);
        }
        told = Some(why);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES[1]);
    }
}

async fn attempt(layout: &Layout, undo: &Undo) -> Result<(), Obstacle> {
    if let Some(condition) = &undo.only_if {
        let links = observe::links().map_err(|error| Obstacle::Fails(error.to_string()))?;
        if !verify::holds(condition, &links) {
            return Ok(());
        }
    }
    match ask(layout, &undo.call.0).await {
        Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(()),
        other => other.map_err(|error| Obstacle::of(&error)),
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
    let action = match (ended.confirmed, ended.stuck) {
        (true, _) => "network-change-confirmed",
        (false, true) => "network-change-stuck",
        (false, false) => "network-change-reverted",
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: ErrorCode) -> Obstacle {
        Obstacle::of(&CallError::Refused {
            code,
            message: "no".to_owned(),
        })
    }

    #[test]
    fn a_definite_no_is_believed_after_a_while_and_an_agent_that_is_away_is_waited_for() {
        let begun = Instant::now();
        let heard = |obstacle: &Obstacle, times: u32, later: Duration| {
            let mut patience = Patience::default();
            (0..times).any(|_| patience.ends_with(obstacle, begun))
                || patience.ends_with(obstacle, begun + later)
        };
        for code in [
            ErrorCode::Forbidden,
            ErrorCode::BadParams,
            ErrorCode::Conflict,
            ErrorCode::UnknownAction,
        ] {
            assert!(
                !heard(&refused(code), REFUSALS - 2, Duration::ZERO),
                "{code:?}"
            );
            assert!(heard(&refused(code), REFUSALS, Duration::ZERO), "{code:?}");
        }
        for code in [ErrorCode::Failed, ErrorCode::Internal, ErrorCode::Timeout] {
            assert!(!heard(&refused(code), 1000, FAILING / 2), "{code:?}");
            assert!(heard(&refused(code), 1, FAILING), "{code:?}");
        }
        let gone = Obstacle::of(&CallError::Connect {
            path: "/run/x".into(),
            source: std::io::ErrorKind::NotFound.into(),
        });
        for away in [gone, refused(ErrorCode::Busy)] {
            assert!(!heard(&away, 1000, FAILING * 100), "{away:?}");
        }
    }
}
