//! The switch as one thing: its sockets, connections to its database kept for the next action, and whose rows are whose.
//! Used by everything here that decides; speaks through `ovsdb` and `openflow`.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use blockhost_proto::response::ErrorCode;
use serde_json::{Value, json};

use super::error::SwitchError;
use super::line::Sockets;
use super::openflow::connection::Conversation;
use super::ovsdb::Ovsdb;
use super::rows::{Row, Slot, Transaction, Uuid, equals};
use crate::compartment::Failure;

/// Key and value in `external_ids` of everything this agent made: what does not have it is not deleted here.
pub const OWNER: (&str, &str) = ("blockhost-owner", "root-agent");
/// Idle connections kept.
const KEPT: usize = 4;

/// The switch of this host.
#[derive(Debug)]
pub struct Switch {
    sockets: Sockets,
    idle: Mutex<Vec<Ovsdb>>,
}

impl Switch {
    /// The switch whose sockets lie in `directory`; nothing is connected yet.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            sockets: Sockets::new(directory),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Works with the database on a connection of its own.
    ///
    /// # Errors
    /// What `work` returns, or that there is no database to be reached.
    pub fn database<T>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&mut Ovsdb) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut db = match self.kept() {
            Some(db) => db,
            None => Ovsdb::connect(&self.sockets, deadline)?,
        };
        let result = work(&mut db);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if db.is_usable() && idle.len() < KEPT {
            idle.push(db);
        }
        result
    }

    /// A connection of an earlier action; those that the server has closed meanwhile are let go.
    fn kept(&self) -> Option<Ovsdb> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(Ovsdb::is_usable);
        idle.pop()
    }

    /// Begins an OpenFlow conversation with a bridge.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub fn talk(&self, bridge: &str, deadline: Instant) -> Result<Conversation, SwitchError> {
        Conversation::open(&self.sockets, bridge, deadline)
    }
}

/// Whether this agent made the row.
#[must_use]
pub fn is_ours(row: &Row) -> bool {
    row.entry("external_ids", OWNER.0) == Some(OWNER.1)
}

/// Names and ports of a bridge, as far as the actions need them.
pub const BRIDGE: &[&str] = &[
    "_uuid",
    "name",
    "ports",
    "datapath_type",
    "fail_mode",
    "controller",
    "external_ids",
];

/// The columns that say what a port is.
pub const PORT: &[&str] = &[
    "_uuid",
    "name",
    "interfaces",
    "tag",
    "trunks",
    "vlan_mode",
    "qos",
    "external_ids",
];

/// The columns that say what an interface is.
pub fn interface_columns(db: &Ovsdb) -> Vec<&'static str> {
    let mut columns = vec![
        "_uuid",
        "name",
        "type",
        "ofport",
        "external_ids",
        "statistics",
        "link_state",
        "mac_in_use",
        "error",
        "ingress_policing_rate",
        "ingress_policing_burst",
    ];
    // Older switches lack some.
    columns.retain(|column| *column == "_uuid" || db.has("Interface", column));
    columns
}

/// A bridge that has to be there.
///
/// # Errors
/// `not_found`.
pub fn bridge(db: &mut Ovsdb, name: &str, deadline: Instant) -> Result<(Uuid, Row), Failure> {
    let row = super::ovsdb::named(db, "Bridge", name, BRIDGE, deadline)?;
    identified(row).ok_or_else(|| {
        let message =
            format!("there is no bridge {name} on the switch; ovs-list shows those there are");
        Failure::new(ErrorCode::NotFound, message)
    })
}

/// A row with its UUID.
pub fn identified(row: Option<Row>) -> Option<(Uuid, Row)> {
    row.and_then(|row| Some((row.uuid()?, row)))
}

/// The port of that name and the name of the bridge it is on, if there is one.
///
/// # Errors
/// [`SwitchError`].
pub fn port(
    db: &mut Ovsdb,
    name: &str,
    deadline: Instant,
) -> Result<Option<(Uuid, Row, String)>, SwitchError> {
    let row = super::ovsdb::named(db, "Port", name, PORT, deadline)?;
    let Some((uuid, row)) = identified(row) else {
        return Ok(None);
    };
    let mut transaction = Transaction::new();
    let condition = json!([["ports", "includes", uuid.to_json()]]);
    let slot = transaction.select("Bridge", condition, &["name"]);
    let bridge = db.transact(transaction, deadline)?.row(slot);
    let bridge = bridge.and_then(|row| row.text("name").map(str::to_owned));
    Ok(Some((uuid, row, bridge.unwrap_or_default())))
}

/// A port that has to be on this bridge.
///
/// # Errors
/// `not_found`.
pub fn port_on(
    db: &mut Ovsdb,
    name: &str,
    on: &str,
    deadline: Instant,
) -> Result<(Uuid, Row), Failure> {
    let missing = |text| Failure::new(ErrorCode::NotFound, text);
    match port(db, name, deadline)? {
        Some((uuid, row, bridge)) if bridge == on => Ok((uuid, row)),
        Some((_, _, bridge)) => Err(missing(format!(
            "port {name} is not on bridge {on} but on {}",
            blockhost_proto::escape::shown(&bridge)
        ))),
        None => Err(missing(format!("there is no port {name} on bridge {on}"))),
    }
}

/// Makes the transaction fail if the row's columns are not what they were when `row` was read.
pub fn unchanged(
    transaction: &mut Transaction,
    table: &str,
    uuid: &Uuid,
    row: &Row,
    columns: &[&str],
) -> Slot {
    let expected: serde_json::Map<String, Value> = columns
        .iter()
        .map(|column| ((*column).to_owned(), row.raw(column)))
        .collect();
    let condition = equals("_uuid", uuid.to_json());
    transaction.guard(table, condition, columns, json!([expected]))
}

/// Makes the transaction fail if there is a row of that name already.
pub fn absent(transaction: &mut Transaction, table: &str, name: &str) -> Slot {
    transaction.guard(table, equals("name", name), &["name"], json!([]))
}

/// What the switch says is wrong with an interface it was told to use; `None` when it works.
#[must_use]
pub fn complaint(interface: Option<&Row>) -> Option<String> {
    let Some(row) = interface else {
        return Some("its row has gone again".to_owned());
    };
    if let Some(error) = row.text("error") {
        return Some(blockhost_proto::escape::shown_up_to(error, 200));
    }
    match row.integer("ofport") {
        Some(1..) => None,
        _ => Some("the switch gave it no port number; its log says why".to_owned()),
    }
}
