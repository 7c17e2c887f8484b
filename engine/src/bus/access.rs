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

/// Calls of one user under way, over however many connections.
const MAX_PER_USER: usize = 16;
/// Calls of all users under way. Root's share is beside it.
const MAX_ALL: usize = 64;
/// Connections whose user is remembered; the bus never gives a connection's name to another.
const REMEMBERED: usize = 1024;
/// How long the bus may take to say who somebody is.
const WHO: Duration = Duration::from_secs(5);

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

/// Counts the calls under way, by user: connections are free, and one user may have many.
#[derive(Debug, Clone, Default)]
pub(super) struct Turnstile {
    inside: Arc<Mutex<HashMap<u32, usize>>>,
    users: Arc<Mutex<HashMap<String, u32>>>,
}

/// One call under way; dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Ticket {
    turnstile: Turnstile,
    uid: u32,
}

impl Turnstile {
    /// Lets the caller in.
    pub(super) async fn enter(
        &self,
        bus: &Connection,
        caller: &Caller,
    ) -> Result<Ticket, BusError> {
        let known = lock(&self.users).get(&caller.name).copied();
        let uid = match known {
            Some(uid) => uid,
            None => self.ask(bus, &caller.name).await?,
        };
        self.let_in(uid)
    }

    async fn ask(&self, bus: &Connection, name: &str) -> Result<u32, BusError> {
        let why = match tokio::time::timeout(WHO, uid_of(bus, name)).await {
            Ok(Ok(uid)) => {
                let mut users = lock(&self.users);
                if users.len() >= REMEMBERED {
                    users.clear();
                }
                users.insert(name.to_owned(), uid);
                return Ok(uid);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", WHO.as_secs()),
        };
        Err(BusError::NotAuthorized(sentence(&format!(
            "the bus does not say who calls: {why}"
        ))))
    }

    fn let_in(&self, uid: u32) -> Result<Ticket, BusError> {
        let mut inside = lock(&self.inside);
        let others = inside.iter().filter(|(other, _)| **other != 0);
        if uid != 0 && others.map(|(_, calls)| calls).sum::<usize>() >= MAX_ALL {
            return Err(BusError::Busy(format!(
                "{MAX_ALL} calls are under way; try again in a moment"
            )));
        }
        let own = inside.entry(uid).or_default();
        if *own >= MAX_PER_USER {
            return Err(BusError::Busy(format!(
                "{MAX_PER_USER} calls of yours are under way; wait for their answers"
            )));
        }
        *own += 1;
        Ok(Ticket {
            turnstile: self.clone(),
            uid,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inside = lock(&self.turnstile.inside);
        match inside.get_mut(&self.uid) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                inside.remove(&self.uid);
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

    #[test]
    fn a_user_that_floods_is_busy_over_any_number_of_connections_and_others_are_let_in() {
        let turnstile = Turnstile::default();
        let mut inside: Vec<_> = (0..MAX_PER_USER)
            .map(|_| turnstile.let_in(1000).expect("let in"))
            .collect();
        let refused = turnstile.let_in(1000).expect_err("too many");
        assert!(matches!(refused, BusError::Busy(_)));
        let other = turnstile.let_in(1001).expect("let in");
        inside.pop();
        inside.push(turnstile.let_in(1000).expect("one has left"));
        drop((inside, other));
        assert!(
            lock(&turnstile.inside).is_empty(),
            "nothing is kept of who left"
        );
    }

    #[test]
    fn many_users_together_are_held_to_a_number_and_leave_root_its_share() {
        let turnstile = Turnstile::default();
        let enter = |uid: usize| turnstile.let_in(u32::try_from(uid).expect("small"));
        let inside: Vec<_> = (0..MAX_ALL)
            .map(|n| enter(1 + n % 10).expect("let in"))
            .collect();
        assert!(enter(999).is_err());
        let root: Vec<_> = (0..MAX_PER_USER).map(|_| enter(0).expect("root")).collect();
        assert!(enter(0).is_err(), "root, too, waits for its answers");
        drop(inside);
        assert!(enter(999).is_ok());
        drop(root);
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
