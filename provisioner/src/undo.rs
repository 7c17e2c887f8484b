//! Taking back a creation: in reverse order, collecting what could not be undone, touching nothing that is not ours.
//! Used when a create fails, when one is run again after a crash, and by the garbage collector.

use std::path::Path;

use blockhost_proto::value::HostIpv6;

use crate::backend::{Backend, BackendError};
use crate::config::Config;
use crate::plan::snippet_name;
use crate::record::{Holder, Reservation, Step};
use crate::store::{Store, StoreError};

/// What was taken back, and what could not be.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// Done, one sentence each.
    pub undone: Vec<String>,
    /// Not done, with the reason and what to do.
    pub failed: Vec<String>,
    /// Whether some of it was not done for want of the agent.
    pub agent_away: bool,
}

/// Why a step was not taken back.
struct Problem {
    text: String,
    agent_away: bool,
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self {
            text,
            agent_away: false,
        }
    }
}

impl Report {
    /// True when nothing is left behind.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failed.is_empty()
    }
}

/// Takes back what a dead creator left, after taking its reservation over: a name may be in the making again by now, on
/// the same address. `None` when it is no longer ours to undo.
///
/// # Errors
/// [`StoreError`], before anything is touched.
pub fn undo_abandoned(
    store: &dyn Store,
    backend: &dyn Backend,
    config: &Config,
    snippets: &Path,
    left: &Reservation,
) -> Result<Option<Report>, StoreError> {
    let Some(ours) = store.take_over(left, &Holder::current())? else {
        return Ok(None);
    };
    let backend = (!ours.mock).then_some(backend);
    Ok(Some(undo(store, backend, config, snippets, &ours)))
}

/// Takes back every step that `reservation` says was begun, then frees its number and addresses. When something could
/// not be taken back, the reservation stays, so that nobody else gets the number, and a later run tries again.
pub fn undo(
    store: &dyn Store,
    backend: Option<&dyn Backend>,
    config: &Config,
    snippets: &Path,
    reservation: &Reservation,
) -> Report {
    let mut report = Report::default();
    let mut steps = reservation.steps.clone();
    steps.sort_unstable();
    for step in steps.into_iter().rev() {
        let result = match step {
            Step::Snippet => remove_snippet(snippets, reservation),
            Step::Clone | Step::Start | Step::Route if backend.is_none() => Ok(None),
            Step::Route => backend.map_or(Ok(None), |b| remove_route(b, config, reservation)),
            Step::Start => Ok(None),
            Step::Clone => backend.map_or(Ok(None), |b| remove_machine(b, reservation)),
        };
        match result {
            Ok(Some(done)) => report.undone.push(done),
            Ok(None) => {}
            Err(problem) => {
                report.agent_away |= problem.agent_away;
                report.failed.push(problem.text);
            }
        }
    }
    if report.is_clean() {
        match store.release(&reservation.name) {
            Ok(()) => report.undone.push(format!(
                "freed VM number {} and address {}",
                reservation.vmid, reservation.ip
            )),
            Err(e) => report.failed.push(format!(
                "the reservation of {} could not be dropped: {e}",
                reservation.name
            )),
        }
    }
    report
}

fn remove_snippet(snippets: &Path, reservation: &Reservation) -> Result<Option<String>, Problem> {
    let path = snippets.join(snippet_name(&reservation.name));
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(Some("removed its cloud-init file".into())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("{} could not be removed: {e}", path.display()).into()),
    }
}

fn remove_route(
    backend: &dyn Backend,
    config: &Config,
    reservation: &Reservation,
) -> Result<Option<String>, Problem> {
    let Some(address) = reservation.ipv6.and_then(|a| HostIpv6::try_from(a).ok()) else {
        return Ok(None);
    };
    match backend.route_del(address, &config.host.bridge) {
        Ok(()) => Ok(Some(format!("removed the route to {address}"))),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(Problem {
            text: format!("the route to {address} could not be removed: {e}"),
            agent_away: e.is_agent_away(),
        }),
    }
}

/// Stops and destroys the machine, if it is the one we made: a number whose machine has another name is somebody else's.
fn remove_machine(
    backend: &dyn Backend,
    reservation: &Reservation,
) -> Result<Option<String>, Problem> {
    let Reservation { vmid, name, .. } = reservation;
    let fail = |e: BackendError| Problem {
        text: format!("VM {vmid} could not be destroyed: {e}"),
        agent_away: e.is_agent_away(),
    };
    let Some(config) = backend.config(*vmid).map_err(fail)? else {
        return Ok(None);
    };
    let found = config.get("name").map_or("", String::as_str);
    if found != name.as_str() {
        return Err(format!(
            "VM {vmid} is called \"{found}\", not {name}: it was left alone; look at it yourself"
        )
        .into());
    }
    backend.stop(*vmid).map_err(fail)?;
    match backend.destroy(*vmid, false) {
        Ok(()) => Ok(Some(format!("destroyed VM {vmid}"))),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(fail(e)),
    }
}
