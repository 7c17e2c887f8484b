//! Limits and queues of ports. QoS and Queue rows live on in the database when nothing points to them any more, so what
//! this agent made and nobody uses is collected here.

use std::collections::HashMap;
use std::time::Instant;

use blockhost_proto::action::OvsSetQos;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::Queue;
use serde_json::{Map, Value, json};

use super::done;
use super::error::SwitchError;
use super::ovsdb::Ovsdb;
use super::rows::{Row, Transaction, Uuid, equals, is_row, label, map, set, text_map};
use super::switch::{FoundPort, OWNER, Switch, is_ours, port_on, unchanged};
use crate::compartment::{Done, Failure, JobCtx};

/// What a QoS row says.
pub const SHAPE: &[&str] = &["_uuid", "type", "queues", "other_config", "external_ids"];
/// What a Queue row says.
pub const QUEUE: &[&str] = &["_uuid", "other_config"];

/// On a port whose policing this agent set: it may be taken away again.
const POLICED: (&str, &str) = ("blockhost-policed", "yes");

/// Sets a port's limit and queues.
///
/// # Errors
/// `not_found`, or `conflict` where somebody else's QoS is in place.
pub fn set_qos(switch: &Switch, action: &OvsSetQos, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    let name = action.port.to_string();
    switch.database(ctx.deadline, |db| {
        let (_, port) = port_on(db, &name, action.bridge.as_str(), ctx.deadline)?;
        let FoundPort { uuid, row, .. } = port;
        refuse_foreign(db, &name, &row, ctx.deadline)?;
        let mut t = Transaction::new();
        unchanged(&mut t, "Port", &uuid, &row, &["qos"]);
        let qos = shape(&mut t, action);
        t.update("Port", is_row(&uuid), json!({"qos": qos}));
        police(&mut t, &uuid, &row, action);
        let announced = Ovsdb::announce(&mut t);
        let announced = db.transact(t, ctx.deadline)?.announced(announced)?;
        collect_garbage(db, ctx.deadline)?;
        db.await_switch(announced, |_| (), ctx.deadline)?;
        let count = action.queues.iter().count();
        Ok(done(
            format!("port {name} has {count} queues"),
            [("queues", count.into())],
        ))
    })
}

fn refuse_foreign(
    db: &mut Ovsdb,
    name: &str,
    port: &Row,
    deadline: Instant,
) -> Result<(), Failure> {
    for uuid in port.references("qos") {
        let mut t = Transaction::new();
        let slot = t.select("QoS", is_row(&uuid), &["external_ids"]);
        let row = db.transact(t, deadline)?.row(slot);
        if row.is_some_and(|row| !is_ours(&row)) {
            return Err(Failure::new(
                ErrorCode::Conflict,
                format!(
                    "port {name} has a QoS that was not made by this agent; nothing was changed"
                ),
            ));
        }
    }
    Ok(())
}

/// Makes the rows and returns what `Port.qos` has to be.
fn shape(t: &mut Transaction, action: &OvsSetQos) -> Value {
    if action.max_kbps.is_none() && action.queues.is_empty() {
        return set([]);
    }
    let owner = text_map([OWNER]);
    let mut queues = Vec::new();
    for queue in action.queues.iter() {
        let name = format!("queue{}", queue.queue);
        let row = json!({"other_config": text_map(rates(queue)), "external_ids": owner});
        t.insert("Queue", &name, row);
        queues.push((queue.queue.get().into(), label(&name)));
    }
    let limit = action.max_kbps.map(|rate| ("max-rate", bits(rate.get())));
    let row = json!({
        "type": "linux-htb",
        "queues": map(queues),
        "other_config": text_map(limit),
        "external_ids": owner,
    });
    t.insert("QoS", "qos", row);
    label("qos")
}

fn rates(queue: &Queue) -> Vec<(&'static str, String)> {
    [
        ("min-rate", queue.min_kbps.map(|rate| bits(rate.get()))),
        ("max-rate", queue.max_kbps.map(|rate| bits(rate.get()))),
        ("burst", queue.burst_kbit.map(|burst| bits(burst.get()))),
        (
            "priority",
            queue.priority.map(|priority| priority.to_string()),
        ),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .collect()
}

/// The database counts bits here, and kilobits in the policing columns.
fn bits(kilobits: u32) -> String {
    (u64::from(kilobits) * 1000).to_string()
}

fn police(t: &mut Transaction, uuid: &Uuid, row: &Row, action: &OvsSetQos) {
    let ours = is_ours(row) || row.entry("external_ids", POLICED.0).is_some();
    if action.ingress_kbps.is_none() && !ours {
        return;
    }
    let rate = action.ingress_kbps.map_or(0, |rate| rate.get());
    let burst = action.ingress_burst_kbit.map_or(0, |burst| burst.get());
    let columns = json!({"ingress_policing_rate": rate, "ingress_policing_burst": burst});
    t.update("Interface", equals("name", action.port.as_str()), columns);
    let key = set([json!(POLICED.0)]);
    t.mutate("Port", is_row(uuid), "external_ids", "delete", key);
    if rate > 0 {
        let pair = text_map([POLICED]);
        t.mutate("Port", is_row(uuid), "external_ids", "insert", pair);
    }
}

/// All QoS and Queue rows, to be read back.
#[derive(Debug, Default)]
pub struct Shapes {
    /// QoS rows.
    pub qos: HashMap<Uuid, Row>,
    /// Queue rows.
    pub queues: HashMap<Uuid, Row>,
}

/// A value that this agent would not have written.
struct Foreign;

impl Shapes {
    /// Limits and queues of a port in the words of `ovs-set-qos`, so that the two can be compared; `null` without any.
    /// What this agent would not have set so has `foreign` beside it.
    #[must_use]
    pub fn of(&self, port: &Row, interface: Option<&Row>) -> Value {
        let mut shown = Map::new();
        let mut foreign = false;
        for uuid in port.references("qos") {
            let read = self.qos.get(&uuid).ok_or(Foreign);
            foreign |= read.and_then(|row| self.read(row, &mut shown)).is_err();
        }
        for (column, key) in [
            ("ingress_policing_rate", "ingress_kbps"),
            ("ingress_policing_burst", "ingress_burst_kbit"),
        ] {
            match interface.and_then(|row| row.integer(column)) {
                Some(0) | None => {}
                Some(rate) => {
                    shown.insert(key.to_owned(), rate.into());
                }
            }
        }
        if foreign {
            shown.insert("foreign".to_owned(), true.into());
        }
        if shown.is_empty() {
            Value::Null
        } else {
            shown.into()
        }
    }

    fn read(&self, qos: &Row, shown: &mut Map<String, Value>) -> Result<(), Foreign> {
        let mut config = kilobits(qos, &[("max-rate", "max_kbps")])?;
        shown.append(&mut config);
        let mut queues = Vec::new();
        for (number, uuid) in qos.pairs("queues") {
            let uuid = Uuid::from_json(uuid).ok_or(Foreign)?;
            let row = self.queues.get(&uuid).ok_or(Foreign)?;
            let mut queue = kilobits(
                row,
                &[
                    ("min-rate", "min_kbps"),
                    ("max-rate", "max_kbps"),
                    ("burst", "burst_kbit"),
                    ("priority", "priority"),
                ],
            )?;
            let number = number.as_u64().ok_or(Foreign)?;
            queue.insert("queue".to_owned(), number.into());
            queues.push((number, Value::Object(queue)));
        }
        queues.sort_by_key(|(number, _)| *number);
        if !queues.is_empty() {
            let queues = queues.into_iter().map(|(_, queue)| queue).collect();
            shown.insert("queues".to_owned(), queues);
        }
        let ours = is_ours(qos) && qos.text("type") == Some("linux-htb");
        ours.then_some(()).ok_or(Foreign)
    }
}

/// The settings of a row under the names of the catalog.
fn kilobits(row: &Row, known: &[(&str, &str)]) -> Result<Map<String, Value>, Foreign> {
    let mut found = Map::new();
    for (key, text) in row.pairs("other_config") {
        let (key, text) = (key.as_str().ok_or(Foreign)?, text.as_str());
        let (_, name) = known
            .iter()
            .find(|(known, _)| *known == key)
            .ok_or(Foreign)?;
        let number: u64 = text.and_then(|text| text.parse().ok()).ok_or(Foreign)?;
        let number = match *name {
            "priority" => number,
            _ if number.is_multiple_of(1000) => number / 1000,
            _ => return Err(Foreign),
        };
        found.insert((*name).to_owned(), number.into());
    }
    Ok(found)
}

/// Deletes QoS and Queue rows of this agent that nothing points to.
///
/// # Errors
/// [`SwitchError`].
pub fn collect_garbage(db: &mut Ovsdb, deadline: Instant) -> Result<(), SwitchError> {
    let mut t = Transaction::new();
    let ours = || json!([["external_ids", "includes", text_map([OWNER])]]);
    let qos = t.select("QoS", ours(), &["_uuid", "queues"]);
    let queues = t.select("Queue", ours(), &["_uuid"]);
    let every_qos = t.select("QoS", json!([]), &["_uuid", "queues"]);
    let ports = t.select("Port", json!([]), &["qos"]);
    let mut answers = db.transact(t, deadline)?;
    let used: Vec<Uuid> = answers
        .rows(ports)
        .iter()
        .flat_map(|row| row.references("qos"))
        .collect();
    let dead: Vec<Uuid> = answers
        .rows(qos)
        .iter()
        .filter_map(Row::uuid)
        .filter(|uuid| !used.contains(uuid))
        .collect();
    let alive: Vec<Uuid> = answers
        .rows(every_qos)
        .iter()
        .filter(|row| row.uuid().is_some_and(|uuid| !dead.contains(&uuid)))
        .flat_map(|row| {
            row.pairs("queues")
                .filter_map(|(_, v)| Uuid::from_json(v))
                .collect::<Vec<_>>()
        })
        .collect();
    let idle: Vec<Uuid> = answers
        .rows(queues)
        .iter()
        .filter_map(Row::uuid)
        .filter(|uuid| !alive.contains(uuid))
        .collect();
    if dead.is_empty() && idle.is_empty() {
        return Ok(());
    }
    let mut t = Transaction::new();
    // Should someone have begun to use one meanwhile, the database refuses, and the next time will do.
    for uuid in &dead {
        t.delete("QoS", is_row(uuid));
    }
    for uuid in &idle {
        t.delete("Queue", is_row(uuid));
    }
    match db.transact(t, deadline) {
        Ok(_) | Err(SwitchError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
