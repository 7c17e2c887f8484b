//! Ports attached and detached. A port is added together with what it belongs to (`external_ids`), and success is what the
//! switch says of it, not that the database took the row: a device that does not exist is taken too.

use std::time::Instant;

use blockhost_proto::action::{OvsAddPort, OvsDelPort};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::PortKind;
use serde_json::{Map, Value, json};

use super::bridges::{after_undo, carry_out_deletion};
use super::carried::Carried;
use super::done;
use super::error::SwitchError;
use super::ovsdb::Ovsdb;
use super::rows::{Row, Transaction, Uuid, equals, is_row, label, set, text_map};
use super::switch::{
    FoundPort, OWNER, PORT, Switch, absent, complaint, is_ours, place, port_on, present, unchanged,
};
use crate::compartment::{Done, Failure, JobCtx, before_undo};

/// Attaches a port.
///
/// # Errors
/// `not_found` without the bridge, `conflict` where the name is taken, `failed` with the switch's words where the device
/// does not work; the row is removed again then.
pub fn add(switch: &Switch, action: &OvsAddPort, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    let (name, deadline) = (action.port.as_str(), ctx.deadline);
    if action.port == action.bridge {
        // With a tag or other belongings the host itself would be off the bridge.
        let message = format!("port {name} is the bridge's own, which is not attached or changed");
        return Err(Failure::new(ErrorCode::Forbidden, message));
    }
    switch.database(deadline, |db| {
        // Most often it is new. What stands in its way is looked for when something does.
        if let Some(done) = attach(db, action, deadline)? {
            return Ok(done);
        }
        let place = place(db, action.bridge.as_str(), name, deadline)?;
        match (place.port, place.interface) {
            (None, None) => {
                let done = attach(db, action, deadline)?;
                done.ok_or_else(|| SwitchError::Raced.into())
            }
            (None, Some(_)) => Err(taken(format!(
                "{name} is the name of an interface of another port, such as a bond; nothing was changed"
            ))),
            (Some(port), _) if port.on != action.bridge.as_str() => Err(taken(format!(
                "port {name} is on bridge {} already; nothing was changed",
                blockhost_proto::escape::shown(&port.on)
            ))),
            (Some(port), _) if !is_ours(&port.row) => Err(taken(format!(
                "port {name} is on bridge {} and was not attached by this agent; nothing was changed",
                action.bridge
            ))),
            (Some(_), None) => Err(taken(format!(
                "port {name} has no interface of its own name; a bond is not changed here"
            ))),
            (Some(port), Some(interface)) => change(db, &port, &interface, action, deadline),
        }
    })
}

fn taken(message: String) -> Failure {
    Failure::new(ErrorCode::Conflict, message)
}

/// The VLAN columns. What is not given is emptied.
fn vlans(action: &OvsAddPort) -> Map<String, Value> {
    let tags = |tags: Vec<u16>| set(tags.into_iter().map(Value::from));
    let trunks: Vec<u16> = action
        .trunks
        .iter()
        .flat_map(|trunks| trunks.iter().map(|tag| tag.get()))
        .collect();
    // With a tag alone the switch would ignore the trunks.
    let mode = match (action.tag, trunks.is_empty()) {
        (Some(_), true) => Some("access"),
        (Some(_), false) => Some("native-untagged"),
        (None, false) => Some("trunk"),
        (None, true) => None,
    };
    let mut row = Map::new();
    row.insert(
        "tag".into(),
        tags(action.tag.iter().map(|tag| tag.get()).collect()),
    );
    row.insert("trunks".into(), tags(trunks));
    row.insert("vlan_mode".into(), set(mode.map(Value::from)));
    row
}

const KEYS: [&str; 3] = ["vm-id", "iface-id", "attached-mac"];

/// What the port belongs to.
fn belongings(action: &OvsAddPort) -> Vec<(&'static str, String)> {
    let values = [
        action.vmid.map(|vmid| vmid.to_string()),
        action.iface_id.as_ref().map(ToString::to_string),
        action
            .attached_mac
            .as_ref()
            .map(|mac| mac.to_string().to_ascii_lowercase()),
    ];
    KEYS.into_iter()
        .zip(values)
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

/// Attaches a new port, in two exchanges of a length that does not depend on how many ports there are; nothing where there is no
/// such bridge, or something of that name.
fn attach(db: &mut Ovsdb, action: &OvsAddPort, deadline: Instant) -> Result<Option<Done>, Failure> {
    let name = action.port.as_str();
    let mut t = Transaction::new();
    present(&mut t, action.bridge.as_str());
    absent(&mut t, "Port", name);
    absent(&mut t, "Interface", name);
    let mut interface = json!({"name": name, "external_ids": text_map(belongings(action))});
    if action.kind == PortKind::Internal {
        interface["type"] = "internal".into();
    }
    t.insert("Interface", "interface", interface);
    let mut row = vlans(action);
    row.insert("name".into(), name.into());
    row.insert("interfaces".into(), label("interface"));
    row.insert("external_ids".into(), text_map([OWNER]));
    let port = t.insert("Port", "port", row.into());
    t.mutate(
        "Bridge",
        equals("name", action.bridge.as_str()),
        "ports",
        "insert",
        set([label("port")]),
    );
    let announced = Ovsdb::announce(&mut t);
    let mut answers = match db.transact(t, deadline) {
        Err(SwitchError::Raced) => return Ok(None),
        other => other?,
    };
    let (port, announced) = (answers.inserted(port)?, answers.announced(announced)?);
    match settled(db, name, announced, before_undo(deadline)) {
        Ok(number) => Ok(Some(attached(action, number, true))),
        Err(failure) => {
            let undone = take_away(db, &port, deadline);
            Err(after_undo(failure, undone))
        }
    }
}

fn attached(action: &OvsAddPort, number: i64, created: bool) -> Done {
    done(
        format!(
            "port {} is on bridge {} as number {number}",
            action.port, action.bridge
        ),
        [("ofport", number.into()), ("created", created.into())],
    )
}

/// Waits for the switch; the port's number, or what is wrong with it.
fn settled(db: &mut Ovsdb, name: &str, announced: i64, until: Instant) -> Result<i64, Failure> {
    let mut columns = vec!["ofport", "error"];
    // Older switches lack the one.
    columns.retain(|column| db.has("Interface", column));
    let mut slot = None;
    let condition = equals("name", name);
    let ask = |t: &mut Transaction| slot = Some(t.select("Interface", condition, &columns));
    let mut answers = db.await_switch(announced, ask, until)?;
    let row = slot.and_then(|slot| answers.row(slot));
    match (
        complaint(row.as_ref()),
        row.and_then(|row| row.integer("ofport")),
    ) {
        (None, Some(number)) => Ok(number),
        (what, _) => {
            let what = what.unwrap_or_default();
            let message = format!("the switch cannot use the device {name}: {what}");
            Err(Failure::new(ErrorCode::Failed, message))
        }
    }
}

/// That row and no other of its name: somebody may have made one meanwhile.
fn take_away(db: &mut Ovsdb, port: &Uuid, deadline: Instant) -> Result<(), Failure> {
    let mut t = Transaction::new();
    t.mutate(
        "Bridge",
        json!([["ports", "includes", port.to_json()]]),
        "ports",
        "delete",
        set([port.to_json()]),
    );
    Ovsdb::announce(&mut t);
    db.transact(t, deadline)?;
    Ok(())
}

/// Brings a port that is there to what is asked.
fn change(
    db: &mut Ovsdb,
    FoundPort { uuid, row, .. }: &FoundPort,
    (id, interface): &(Uuid, Row),
    action: &OvsAddPort,
    deadline: Instant,
) -> Result<Done, Failure> {
    let name = action.port.as_str();
    let internal = interface.text("type") == Some("internal");
    if internal != (action.kind == PortKind::Internal) {
        return Err(taken(format!(
            "port {name} exists and is of another kind; delete it first"
        )));
    }
    let mut t = Transaction::new();
    unchanged(&mut t, "Port", uuid, row, &["external_ids"]);
    t.update("Port", is_row(uuid), vlans(action).into());
    let keys = set(KEYS.map(Value::from));
    t.mutate("Interface", is_row(id), "external_ids", "delete", keys);
    let pairs = text_map(belongings(action));
    t.mutate("Interface", is_row(id), "external_ids", "insert", pairs);
    let announced = Ovsdb::announce(&mut t);
    let announced = db.transact(t, deadline)?.announced(announced)?;
    let number = settled(db, name, announced, deadline)?;
    Ok(attached(action, number, false))
}

/// Detaches a port.
///
/// # Errors
/// `not_found`, `forbidden` for one that this agent did not attach, `conflict` for one whose device the host is reached by,
/// and for an uplink while the way out leads over its bridge, unless another uplink there carries on.
pub fn delete(
    switch: &Switch,
    carried: &Carried,
    action: &OvsDelPort,
    ctx: &JobCtx<'_>,
) -> Result<Done, Failure> {
    let name = action.port.to_string();
    switch.database(ctx.deadline, |db| {
        let (on, port) = port_on(db, &name, action.bridge.as_str(), ctx.deadline)?;
        let FoundPort {
            uuid,
            row,
            internal,
            ..
        } = port;
        if !is_ours(&row) || action.port == action.bridge {
            return Err(Failure::new(
                ErrorCode::Forbidden,
                format!("port {name} was not attached by ovs-add-port, so it is not detached here"),
            ));
        }
        if ctx.allow.names_uplink(&name) {
            let left = uplinks_beside(db, &on, (&uuid, &row), ctx)?;
            let device = action.bridge.as_str();
            carried.another_way_out(&format!("port {name}"), device, &left)?;
        }
        if internal {
            carried.nothing_of_the_host(&format!("port {name}"), &[&name], ctx.allow)?;
        }
        let mut t = Transaction::new();
        unchanged(&mut t, "Port", &uuid, &row, &["external_ids", "qos"]);
        t.mutate(
            "Bridge",
            is_row(&on),
            "ports",
            "delete",
            set([uuid.to_json()]),
        );
        let limited = !row.references("qos").is_empty();
        carry_out_deletion(db, t, "port", limited, ctx.deadline)?;
        Ok(done(
            format!("port {name} is off bridge {}", action.bridge),
            [],
        ))
    })
}

/// The other uplinks of a bridge that work and are on the same VLANs as this port: what passed there passes by them as well.
fn uplinks_beside(
    db: &mut Ovsdb,
    bridge: &Uuid,
    (uuid, port): (&Uuid, &Row),
    ctx: &JobCtx<'_>,
) -> Result<Vec<String>, SwitchError> {
    let mut t = Transaction::new();
    let bridge = t.select("Bridge", is_row(bridge), &["ports"]);
    let ports = t.select("Port", json!([]), PORT);
    let interfaces = t.select("Interface", json!([]), &["_uuid", "name", "ofport"]);
    let mut answers = db.transact(t, ctx.deadline)?;
    let there = answers
        .row(bridge)
        .map_or_else(Vec::new, |row| row.references("ports"));
    let mut beside = answers.rows(ports);
    let vlans = ["tag", "trunks", "vlan_mode"];
    beside.retain(|other| {
        let is_other = |other: Uuid| other != *uuid && there.contains(&other);
        other.uuid().is_some_and(is_other) && vlans.iter().all(|by| other.raw(by) == port.raw(by))
    });
    let mut devices = answers.rows(interfaces);
    devices.retain(|device| {
        device.integer("ofport").is_some_and(|number| number > 0)
            // Alone on its port, not in a bond.
            && device.uuid().is_some_and(|device| {
                beside.iter().any(|other| other.references("interfaces") == [device.clone()])
            })
    });
    let names = devices.iter().filter_map(|device| device.text("name"));
    let uplinks = names.filter(|name| ctx.allow.names_uplink(name));
    Ok(uplinks.map(str::to_owned).collect())
}
