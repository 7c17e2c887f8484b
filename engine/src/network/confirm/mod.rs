//! Confirm or revert: every change that can cut the operator off. What would take it back is durable and watched over by a
//! process of its own before anything is changed; afterwards it is judged on four levels, and it stays only if all are good
//! and, where that was asked for, the operator says so. [`run`] is for commands, the bus service and the declarative state.

pub mod guard;
pub mod manager;
pub mod plan;
pub mod probe;
pub mod record;
pub mod recover;
mod report;
pub mod reshape;
mod revert;
pub mod store;
mod trial;
pub mod uplink;
pub mod verify;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use blockhost_ledger::failpoint;
use blockhost_proto::client::CallError;
use blockhost_proto::client::tokio::Client;
use blockhost_proto::layout::Layout;
use zbus::Connection;

use crate::network::observe::{Observed, observe};
use guard::{Guard, GuardError};
use plan::{Plan, PlanError};
use probe::Target;
use record::{Deadline, Ended, Note, Phase, Record, RecordError, now};
use reshape::Reshape;
use store::{Held, Store};
use trial::Trial;
use uplink::Uplink;

pub use report::{Outcome, Report, StepReport};

/// How long everything may take until it is judged.
pub const APPLY: Duration = Duration::from_secs(60);
/// NetworkManager's own timer ends so much later than ours.
const LATER: Duration = Duration::from_secs(15);
/// How often NetworkManager is told that a change stays, where it does not answer.
const TELLING: u32 = 4;
/// The least and the most that an operator may be given.
pub const CONFIRM: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(3600)];

/// What is to be changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// An uplink is put on a bridge.
    Attach(Uplink),
    /// It is taken off it.
    Detach(Uplink),
    /// A bridge that carries addresses of the host is changed, as the declarative state does.
    Reshape(Reshape),
}

impl Change {
    /// What has to be done for it.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn plan(&self, observed: &Observed) -> Result<Plan, PlanError> {
        match self {
            Self::Attach(uplink) => uplink::attach(observed, uplink),
            Self::Detach(uplink) => uplink::detach(observed, uplink),
            Self::Reshape(change) => reshape::plan(observed, change),
        }
    }
}

/// How it is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// What has to be reachable afterwards, beside the default gateways that are reachable now.
    pub probes: Vec<Target>,
    /// The operator says that it stays, within this time; otherwise it stays when everything is well.
    pub confirm_within: Option<Duration>,
    /// Do not wait for the operator here.
    pub no_wait: bool,
    /// Plan and rehearse only.
    pub dry_run: bool,
    /// How long it may take to become well.
    pub settle: Duration,
    /// The program that watches over it, where it is not beside this one.
    pub guard: Option<PathBuf>,
    /// A connection to the system bus, where there is one already.
    pub bus: Option<Connection>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            probes: Vec::new(),
            confirm_within: None,
            no_wait: false,
            dry_run: false,
            settle: Duration::from_secs(10),
            guard: None,
            bus: None,
        }
    }
}

/// Where a change stands, for whoever watches.
#[derive(Debug, Clone)]
pub enum Stage<'a> {
    /// It begins.
    Begun(&'a Plan),
    /// A step is done.
    Step(&'a StepReport),
    /// Everything is well; the operator has so long to confirm this change.
    Waiting(&'a str, Duration),
    /// It is being taken back, because.
    Reverting(&'a str),
}

/// Why nothing was changed, or in [`ChangeError::NotTakenBack`] what was.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The record.
    #[error("nothing was changed: {0}")]
    Record(#[from] RecordError),
    /// Nobody would have watched over it.
    #[error("nothing was changed: {0}")]
    Guard(#[from] GuardError),
    /// The agent does not allow a step, or the way back.
    #[error("nothing was changed: the root agent does not accept {action}: {source}")]
    Refused {
        /// The action.
        action: String,
        /// Its answer.
        source: CallError,
    },
    /// Another change is not over.
    #[error(
        "nothing was changed: change {0} is not over; confirm it (`blockhost net confirm`) or wait until it is taken back"
    )]
    Open(String),
    /// An earlier change could not be taken back.
    #[error(
        "nothing was changed: change {0} could not be taken back; `blockhost net status` says why, `blockhost net recover` tries again, and `blockhost net abandon --id {0}` leaves everything as it is now"
    )]
    Stuck(String),
    /// There would be no telling whether it works.
    #[error(
        "nothing was changed: no default gateway answers, so there is nothing to tell by whether the host is still reachable; give --probe ADDRESS[:PORT], or --confirm-within SECONDS to tell it yourself"
    )]
    NothingToTellBy,
    /// What this user writes down could not be carried out by those who may have to.
    #[error(
        "nothing was changed: the revert record has to belong to user {0}, whose services may have to carry it out; run this as that user, for instance `runuser -u blockhost -- blockhost ...`"
    )]
    NotOurs(u32),
    /// Too short, or too long.
    #[error("nothing was changed: the time to confirm is between {} and {} s", CONFIRM[0].as_secs(), CONFIRM[1].as_secs())]
    Time,
    /// The change failed and its record could not be read or closed.
    #[error(
        "the change was not taken back to its end: {0}; run `blockhost net recover`, and see docs/recover.md"
    )]
    NotTakenBack(#[source] RecordError),
}

/// Makes a change, or takes it back.
///
/// # Errors
/// [`ChangeError`] where it was not begun. One that was begun ends with a [`Report`], whatever became of it.
pub async fn run(
    layout: &Layout,
    change: &Change,
    options: &Options,
    tell: &mut (dyn FnMut(Stage<'_>) + Send),
) -> Result<Report, ChangeError> {
    if let Some(time) = options.confirm_within
        && !(CONFIRM[0]..=CONFIRM[1]).contains(&time)
    {
        return Err(ChangeError::Time);
    }
    if let Ok((uid, _)) = guard::owner(layout)
        && uid != rustix::process::geteuid().as_raw()
    {
        return Err(ChangeError::NotOurs(uid));
    }
    let store = Store::new(layout);
    let held = alone(&store, layout).await?;
    let bus = match &options.bus {
        Some(bus) => Some(bus.clone()),
        None => Connection::system().await.ok(),
    };
    let before = observe(layout, bus.as_ref()).await;
    let plan = change.plan(&before)?;
    let wanted = trial::Reachable::now(&before, &options.probes).await;
    if wanted.is_empty() && options.confirm_within.is_none() && !plan.devices.is_empty() {
        return Err(ChangeError::NothingToTellBy);
    }
    rehearse(layout, &plan).await?;
    if options.dry_run {
        return Ok(Report::planned(&plan));
    }
    let record = Record::new(plan, APPLY)?;
    let journal = store.write(&record)?;
    failpoint::reach("net-change", b"recorded");
    let guard = match Guard::start(layout, &record.id, options.guard.clone()) {
        Ok(guard) => guard,
        Err(error) => {
            // Nothing was begun, so there is nothing to take back.
            let ended = ended(&record, Some(error.to_string()), Vec::new());
            store.close(Phase::Pending, &ended)?;
            return Err(error.into());
        }
    };
    failpoint::reach("net-change", b"watched");
    tell(Stage::Begun(&record.plan));
    let mut trial = Trial {
        layout,
        store: &store,
        options,
        bus: bus.as_ref(),
        before: &before,
        wanted,
        plan: &record.plan,
        id: &record.id,
        journal,
        guard,
        report: Report::begun(&record),
        receipts: Vec::new(),
    };
    let begun = Instant::now();
    let judged = trial.carry_out(tell).await;
    trial.report.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    match judged {
        Ok(()) => decide(trial, &record, held, tell).await,
        Err(why) => back(trial, why, false, held, tell).await,
    }
}

/// The lock, when no earlier change is left; one that nobody looks after is taken back first.
async fn alone(store: &Store, layout: &Layout) -> Result<Held, ChangeError> {
    store.create()?;
    for _ in 0..2 {
        let held = store.lock_maker_soon().await?;
        let Some((phase, id)) = store.open_changes()?.into_iter().next() else {
            store.tidy();
            return Ok(held);
        };
        drop(held);
        if phase == Phase::Stuck {
            return Err(ChangeError::Stuck(id));
        }
        if !recover::is_over(layout, &id).await? {
            return Err(ChangeError::Open(id));
        }
    }
    Err(RecordError::Busy.into())
}

/// Asks the agent about every step and the way back, without doing anything: a way back that is not allowed is none.
async fn rehearse(layout: &Layout, plan: &Plan) -> Result<(), ChangeError> {
    let refused = |action: &blockhost_proto::Action, source| ChangeError::Refused {
        action: action.name().to_owned(),
        source,
    };
    let calls = plan.steps.iter().flat_map(|step| {
        let inverse = step.inverse.iter().map(|undo| &undo.call.0);
        std::iter::once(&step.forward.0).chain(inverse)
    });
    let mut client = None;
    for action in calls {
        let client = match &mut client {
            Some(client) => client,
            none => {
                let new = Client::connect_layout(layout).await;
                none.insert(new.map_err(|source| refused(action, source))?)
            }
        };
        let answer = client.dry_run(action).await;
        answer.map_err(|source| refused(action, source))?;
    }
    Ok(())
}

/// Everything is well: it stays, or the operator decides.
async fn decide(
    mut trial: Trial<'_>,
    record: &Record,
    held: Held,
    tell: &mut (dyn FnMut(Stage<'_>) + Send),
) -> Result<Report, ChangeError> {
    if let Some(time) = trial.options.confirm_within {
        if let Err(why) = trial.hand_to_operator(time).await {
            return back(trial, why, false, held, tell).await;
        }
        tell(Stage::Waiting(&record.id, time));
        if trial.options.no_wait {
            trial.report.outcome = Outcome::Waiting;
            return Ok(trial.report);
        }
        if let Some(why) = trial.operator_decides().await {
            return back(trial, why, false, held, tell).await;
        }
        drop(held);
        return Ok(trial.ended_elsewhere().await);
    }
    match stays(trial.layout, trial.store, &record.id).await {
        Ok(true) => {
            trial.report.outcome = Outcome::Confirmed;
            trial.guard.gone().await;
            Ok(trial.report)
        }
        Ok(false) => {
            drop(held);
            Ok(trial.ended_elsewhere().await)
        }
        Err(why) => {
            let gone_back = trial.store.is(Phase::Reverting, &record.id);
            back(trial, why, gone_back, held, tell).await
        }
    }
}

/// Closes a change that stays; `false` where it is no longer open. The words of the error are why it cannot stay.
async fn stays(layout: &Layout, store: &Store, id: &str) -> Result<bool, String> {
    let known = match store.read(Phase::Pending, id) {
        Ok(known) => known,
        Err(_) if !store.is(Phase::Pending, id) => return Ok(false),
        Err(error) => return Err(error.to_string()),
    };
    if known.deadline().left().is_zero() {
        return Ok(false);
    }
    failpoint::reach("net-change", b"confirming");
    // Who wins this decides. NetworkManager hears of it afterwards: one that is told to keep what is then taken back after
    // all would have nothing to go back to.
    let moved = store.advance(id, Phase::Pending, Phase::Confirmed);
    if !moved.map_err(|error| error.to_string())? {
        return Ok(false);
    }
    failpoint::reach("net-change", b"confirmed");
    finish(layout, store, id)
        .await
        .map_err(|error| error.to_string())?;
    if store.is(Phase::Reverting, id) {
        return Err(
            "NetworkManager has gone back to its checkpoint, or cannot be told to keep it"
                .to_owned(),
        );
    }
    Ok(true)
}

/// Ends a change of which it is decided that it stays: NetworkManager gives its checkpoint up, the ledger is told, the file
/// goes. Any number of times, by anybody. Where NetworkManager has gone back already, by its own timer, or cannot be told, it
/// does not stay, and is then marked as being taken back.
async fn finish(layout: &Layout, store: &Store, id: &str) -> Result<(), RecordError> {
    let known = match store.read(Phase::Confirmed, id) {
        Err(_) if !store.is(Phase::Confirmed, id) => return Ok(()),
        other => other?,
    };
    if let Some(checkpoint) = known.checkpoint().filter(|_| !known.kept()) {
        if !manager_keeps(checkpoint, known.deadline()).await
            && store.advance(id, Phase::Confirmed, Phase::Reverting)?
        {
            return Ok(());
        }
        let _ = store.note(Phase::Confirmed, id, &Note::Kept);
    }
    failpoint::reach("net-change", b"kept");
    let ended = Ended {
        confirmed: true,
        ..ended(&known.record, None, Vec::new())
    };
    revert::tell(layout, &ended).await;
    // It is decided. What is left of it in the directory is ended by the next one.
    let _ = store.close(Phase::Confirmed, &ended);
    Ok(())
}

/// Has NetworkManager give up its checkpoint; `false` where it went back or will do so.
async fn manager_keeps(checkpoint: &str, deadline: &Deadline) -> bool {
    for _ in 0..TELLING {
        let told = async {
            let bus = Connection::system().await.map_err(|_| false)?;
            let given_up = manager::destroy(&bus, checkpoint).await;
            given_up.map_err(|error| error.answered)
        };
        match told.await {
            Ok(()) => return true,
            // There is none. In the time that it had, it was given up, by somebody who died over it; later it went back.
            Err(true) => return !deadline.left().is_zero(),
            Err(false) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
    false
}

fn ended(record: &Record, reason: Option<String>, problems: Vec<String>) -> Ended {
    Ended {
        id: record.id.clone(),
        what: record.plan.what.clone(),
        confirmed: false,
        reason,
        at: now(),
        problems,
        stuck: false,
    }
}

/// Takes it back here, or waits for whoever does. With `gone_back` it is marked as being taken back already, by this process.
async fn back(
    mut trial: Trial<'_>,
    why: String,
    gone_back: bool,
    held: Held,
    tell: &mut (dyn FnMut(Stage<'_>) + Send),
) -> Result<Report, ChangeError> {
    tell(Stage::Reverting(&why));
    let won = trial
        .store
        .advance(trial.id, Phase::Pending, Phase::Reverting)
        .map_err(ChangeError::NotTakenBack)?;
    if !won && !gone_back {
        drop(held);
        return Ok(trial.ended_elsewhere().await);
    }
    failpoint::reach("net-change", b"reverting");
    let ended = revert::take_back(trial.store, trial.layout, trial.id, &why, Some(&held), None)
        .await
        .map_err(ChangeError::NotTakenBack)?;
    trial.report.reverted(&ended);
    trial.guard.gone().await;
    Ok(trial.report)
}

/// The operator says that it stays.
///
/// # Errors
/// [`ConfirmError`].
pub async fn confirm(layout: &Layout, id: Option<&str>) -> Result<Ended, ConfirmError> {
    let store = Store::new(layout);
    let mut open = store.open_changes()?;
    open.retain(|(phase, name)| *phase == Phase::Pending && id.is_none_or(|id| id == name));
    let Some((_, id)) = open.pop() else {
        return Err(ConfirmError::Nothing);
    };
    let known = store.read(Phase::Pending, &id)?;
    if known.waiting().is_none() {
        return Err(ConfirmError::NotYet(id));
    }
    match stays(layout, &store, &id).await {
        Ok(true) => Ok(Ended {
            confirmed: true,
            ..ended(&known.record, None, Vec::new())
        }),
        Ok(false) => Err(ConfirmError::Nothing),
        Err(why) => Err(ConfirmError::Cannot(id, why)),
    }
}

/// Why nothing was confirmed.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    /// No change waits.
    #[error(
        "no change of the network waits to be confirmed; `blockhost net status` shows how the last one ended"
    )]
    Nothing,
    /// It is still being made.
    #[error("change {0} is not judged yet; it waits for you when it is")]
    NotYet(String),
    /// It cannot stay.
    #[error("change {0} cannot be confirmed: {1}; it will be taken back")]
    Cannot(String, String),
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
}
