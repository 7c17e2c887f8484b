//! The switch as one thing: its sockets, connections to its database kept for the next action, and whose rows are whose.
//! Used by everything here that decides; speaks through `ovsdb` and `openflow`.

use std::collections::HashSet;
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

/// A bridge that has to be there, with these columns; the list of its ports grows with them.
///
/// # Errors
/// `not_found`.
pub fn bridge(
    db: &mut Ovsdb,
    name: &str,
    columns: &[&str],
    deadline: Instant,
) -> Result<(Uuid, Row), Failure> {
    let row = super::ovsdb::named(db, "Bridge", name, columns, deadline)?;
    identified(row).ok_or_else(|| no_bridge(name))
}

fn no_bridge(name: &str) -> Failure {
    let message =
        format!("there is no bridge {name} on the switch; ovs-list shows those there are");
    Failure::new(ErrorCode::NotFound, message)
}

/// A row with its UUID.
pub fn identified(row: Option<Row>) -> Option<(Uuid, Row)> {
    row.and_then(|row| Some((row.uuid()?, row)))
}

/// A port as it was found.
#[derive(Debug)]
pub struct FoundPort {
    /// Its row's.
    pub uuid: Uuid,
    /// [`PORT`].
    pub row: Row,
    /// The bridge that it is on.
    pub on: String,
    /// Its device is made by the switch, and goes with it.
    pub internal: bool,
}

/// What there is under the name of a port that is on a bridge, or is to be.
#[derive(Debug)]
pub struct Place {
    /// The bridge's.
    pub bridge: Uuid,
    /// The port of that name, on whatever bridge.
    pub port: Option<FoundPort>,
    /// The interface of that name, of whatever port; [`interface_columns`].
    pub interface: Option<(Uuid, Row)>,
}

/// Looks there. What is asked and answered does not grow with the number of ports.
///
/// # Errors
/// `not_found` without the bridge.
pub fn place(db: &mut Ovsdb, on: &str, name: &str, deadline: Instant) -> Result<Place, Failure> {
    let columns = interface_columns(db);
    let mut transaction = Transaction::new();
    let bridge = transaction.select("Bridge", equals("name", on), &["_uuid"]);
    let port = transaction.select("Port", equals("name", name), PORT);
    let interface = transaction.select("Interface", equals("name", name), &columns);
    let mut answers = db.transact(transaction, deadline)?;
    let (bridge, _) = identified(answers.row(bridge)).ok_or_else(|| no_bridge(on))?;
    let interface = identified(answers.row(interface));
    let kind = interface.as_ref().and_then(|(_, row)| row.text("type"));
    let internal = kind == Some("internal");
    let mut port = identified(answers.row(port)).map(|(uuid, row)| FoundPort {
        uuid,
        row,
        on: String::new(),
        internal,
    });
    if let Some(port) = &mut port {
        let mut transaction = Transaction::new();
        let holds = json!([["ports", "includes", port.uuid.to_json()]]);
        let slot = transaction.select("Bridge", holds, &["name"]);
        let row = db.transact(transaction, deadline)?.row(slot);
        let on = row.as_ref().and_then(|row| row.text("name"));
        port.on = on.unwrap_or_default().to_owned();
    }
    Ok(Place {
        bridge,
        port,
        interface,
    })
}

/// A port that has to be on this bridge, and the bridge's UUID.
///
/// # Errors
/// `not_found`.
pub fn port_on(
    db: &mut Ovsdb,
    name: &str,
    on: &str,
    deadline: Instant,
) -> Result<(Uuid, FoundPort), Failure> {
    let missing = |text| Failure::new(ErrorCode::NotFound, text);
    let place = place(db, on, name, deadline)?;
    match place.port {
        Some(port) if port.on == on => Ok((place.bridge, port)),
        Some(port) => Err(missing(format!(
            "port {name} is not on bridge {on} but on {}",
            blockhost_proto::escape::shown(&port.on)
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

/// Makes the transaction fail if there is no bridge of that name.
pub fn present(transaction: &mut Transaction, bridge: &str) -> Slot {
    let row = json!([{"name": bridge}]);
    transaction.guard("Bridge", equals("name", bridge), &["name"], row)
}

/// Makes the transaction fail if there is a row of that name already.
pub fn absent(transaction: &mut Transaction, table: &str, name: &str) -> Slot {
    transaction.guard(table, equals("name", name), &["name"], json!([]))
}

/// The interfaces of a bridge, of all these rows of ports.
#[must_use]
pub fn interfaces_of(bridge: &Row, ports: &[Row]) -> HashSet<Uuid> {
    let own: HashSet<Uuid> = bridge.references("ports").into_iter().collect();
    let ports = ports.iter();
    ports
        .filter(|port| port.uuid().is_some_and(|uuid| own.contains(&uuid)))
        .flat_map(|port| port.references("interfaces"))
        .collect()
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
