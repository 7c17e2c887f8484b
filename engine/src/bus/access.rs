//! Who may: how many calls a caller may have under way, and polkit's answer for what changes anything. Root may without
//! polkit; nobody else may where polkit is not there or does not answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blockhost_proto::escape;
use zbus::message::{Flags, Header};
use zbus::{Connection, Variant};

use super::error::{BusError, sentence};
use crate::log;

const POLKIT: &str = "org.freedesktop.PolicyKit1";
const AUTHORITY: &str = "/org/freedesktop/PolicyKit1/Authority";
const BUS: &str = "org.freedesktop.DBus";

/// Calls of one caller under way.
const MAX_PER_CALLER: usize = 16;
/// Calls of all callers under way.
const MAX_ALL: usize = 64;

/// How long polkit may take where it asks nobody.
const QUIET: Duration = Duration::from_secs(25);
/// How long a person may take to enter a password.
const WITH_A_PERSON: Duration = Duration::from_secs(120);

/// What needs permission; the names are those of the installed file of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// Ports of bridges.
    ManagePorts,
    /// Interfaces of containers.
    ManageContainers,
    /// Everything that a document of the declarative state can say.
    ApplyState,
}

impl Permission {
    /// The polkit action.
    pub(super) const fn action(self) -> &'static str {
        match self {
            Self::ManagePorts => "dev.ovs.portagent1.manage-ports",
            Self::ManageContainers => "dev.ovs.portagent1.manage-containers",
            Self::ApplyState => "dev.ovs.portagent1.apply-state",
        }
    }
}

/// Whoever calls.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Its name on the bus, which no other connection ever has.
    name: String,
    /// Whether a person may be asked.
    interactive: bool,
}

impl Caller {
    pub(super) fn of(header: &Header<'_>) -> Result<Self, BusError> {
        let sender = header
            .sender()
            .ok_or_else(|| BusError::NotAuthorized("the call has no sender".to_owned()))?;
        Ok(Self {
            name: sender.to_string(),
            interactive: header
                .primary()
                .flags()
                .contains(Flags::ALLOW_INTERACTIVE_AUTH),
        })
    }
}

/// Counts the calls under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Turnstile(Arc<Mutex<HashMap<String, usize>>>);

/// One call under way; dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Ticket {
    turnstile: Turnstile,
    name: String,
}

impl Turnstile {
    /// Lets the caller in.
    pub(super) fn enter(&self, caller: &Caller) -> Result<Ticket, BusError> {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.values().sum::<usize>() >= MAX_ALL {
            return Err(BusError::Busy(format!(
                "{MAX_ALL} calls are under way; try again in a moment"
            )));
        }
        let own = inside.get(&caller.name).copied().unwrap_or(0);
        if own >= MAX_PER_CALLER {
            return Err(BusError::Busy(format!(
                "{MAX_PER_CALLER} calls of yours are under way; wait for their answers"
            )));
        }
        inside.insert(caller.name.clone(), own + 1);
        Ok(Ticket {
            turnstile: self.clone(),
            name: caller.name.clone(),
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inside = self
            .turnstile
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match inside.get_mut(&self.name) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                inside.remove(&self.name);
            }
        }
    }
}

/// Lets through whom polkit lets through; the caller's uid, for the record.
///
/// # Errors
/// [`BusError::NotAuthorized`] in every other case, whatever went wrong.
pub(super) async fn authorise(
    bus: &Connection,
    caller: &Caller,
    permission: Permission,
) -> Result<u32, BusError> {
    let denied = |why: String| {
        log::warn(
            "denied",
            &[
                ("caller", &caller.name),
                ("action", &permission.action()),
                ("why", &why),
            ],
        );
        BusError::NotAuthorized(sentence(&format!("{}: {why}", permission.action())))
    };
    let uid = uid_of(bus, &caller.name)
        .await
        .map_err(|error| denied(format!("the bus does not say who calls: {error}")))?;
    if uid == 0 {
        return Ok(uid);
    }
    let limit = if caller.interactive {
        WITH_A_PERSON
    } else {
        QUIET
    };
    match tokio::time::timeout(limit, ask_polkit(bus, caller, permission)).await {
        Ok(Ok((true, _))) => Ok(uid),
        Ok(Ok((false, true))) if !caller.interactive => Err(denied(
            "a password is needed; allow interactive authorization in the call, or ask for a polkit rule".to_owned(),
        )),
        Ok(Ok((false, _))) => Err(denied("polkit does not permit it".to_owned())),
        Ok(Err(error)) => Err(denied(format!(
            "polkit cannot be asked, so only root may: {}",
            escape::shown_up_to(&error.to_string(), 200)
        ))),
        Err(_) => Err(denied(format!(
            "polkit did not answer within {} s",
            limit.as_secs()
        ))),
    }
}

async fn uid_of(bus: &Connection, name: &str) -> zbus::Result<u32> {
    bus.call_method(
        Some(BUS),
        "/org/freedesktop/DBus",
        Some(BUS),
        "GetConnectionUnixUser",
        &(name),
    )
    .await?
    .body()
    .deserialize()
}

/// Whether it is permitted, and whether a person could permit it.
async fn ask_polkit(
    bus: &Connection,
    caller: &Caller,
    permission: Permission,
) -> zbus::Result<(bool, bool)> {
    let subject = (
        "system-bus-name",
        HashMap::from([("name", Variant::from(caller.name.as_str()))]),
    );
    let details: HashMap<&str, &str> = HashMap::new();
    let flags = u32::from(caller.interactive);
    let answer = bus
        .call_method(
            Some(POLKIT),
            AUTHORITY,
            Some("org.freedesktop.PolicyKit1.Authority"),
            "CheckAuthorization",
            &(subject, permission.action(), details, flags, ""),
        )
        .await?;
    let ((permitted, challenge, _),): ((bool, bool, HashMap<String, String>),) =
        answer.body().deserialize()?;
    Ok((permitted, challenge))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str) -> Caller {
        Caller {
            name: name.to_owned(),
            interactive: false,
        }
    }

    #[test]
    fn a_caller_that_floods_is_busy_and_others_are_let_in() {
        let turnstile = Turnstile::default();
        let mut inside: Vec<_> = (0..MAX_PER_CALLER)
            .map(|_| turnstile.enter(&caller(":1.1")).expect("let in"))
            .collect();
        let refused = turnstile.enter(&caller(":1.1")).expect_err("too many");
        assert!(matches!(refused, BusError::Busy(_)));
        let other = turnstile.enter(&caller(":1.2")).expect("let in");
        inside.pop();
        inside.push(turnstile.enter(&caller(":1.1")).expect("one has left"));
        drop((inside, other));
        assert!(
            turnstile.0.lock().expect("whole").is_empty(),
            "nothing is kept of who left"
        );
    }

    #[test]
    fn many_callers_together_are_held_to_a_number() {
        let turnstile = Turnstile::default();
        let inside: Vec<_> = (0..MAX_ALL)
            .map(|n| {
                turnstile
                    .enter(&caller(&format!(":1.{n}")))
                    .expect("let in")
            })
            .collect();
        assert!(turnstile.enter(&caller(":1.999")).is_err());
        drop(inside);
        assert!(turnstile.enter(&caller(":1.999")).is_ok());
    }

    #[test]
    fn every_permission_is_an_action_of_the_installed_file_and_no_other_is_there() {
        let file = include_str!("../../../packaging/polkit/dev.ovs.portagent1.policy");
        let all = [
            Permission::ManagePorts,
            Permission::ManageContainers,
            Permission::ApplyState,
        ];
        for permission in all {
            let line = format!("<action id=\"{}\">", permission.action());
            assert!(file.contains(&line), "{line}");
        }
        assert_eq!(file.matches("<action id=").count(), all.len());
        assert!(
            !file.contains(">yes<"),
            "nobody is permitted without a password"
        );
    }
}
