//! Bridges made and deleted: three rows in one transaction, success only when the switch has acted. A bridge that this
//! agent did not make is never deleted or changed here.

use std::time::Instant;

use blockhost_proto::action::{OvsAddBr, OvsDelBr};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::{BridgeOptions, FailMode};
use serde_json::{Map, Value, json};

use super::carried::Carried;
use super::error::SwitchError;
use super::kept::{self, Kept};
use super::ovsdb::{Ovsdb, named};
use super::rows::{Row, Transaction, Uuid, equals, is_row, label, set, text_map};
use super::switch::{
    BRIDGE, OWNER, Switch, absent, bridge, complaint, identified, interface_columns, interfaces_of,
    is_ours, unchanged,
};
use super::{done, qos};
use crate::compartment::{Done, Failure, JobCtx, before_undo};
use crate::failpoint;

/// Makes a bridge.
///
/// # Errors
/// `conflict` when the name is taken, `failed` when the switch cannot make it; nothing is left behind then.
pub fn add(switch: &Switch, action: &OvsAddBr, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    let name = action.bridge.to_string();
    switch.database(ctx.deadline, |db| {
        let found = identified(named(db, "Bridge", &name, BRIDGE, ctx.deadline)?);
        match found {
            Some((_, row)) if !is_ours(&row) => Err(conflict(format!(
                "bridge {name} exists and was not made by this agent; nothing was changed"
            ))),
            Some((uuid, row)) => {
                same_datapath(&name, &row, &action.options)?;
                let fail_mode = row.text("fail_mode").unwrap_or("standalone");
                let other = |mode: FailMode| mode.as_str() != fail_mode;
                let kept = match action.options.fail_mode {
                    Some(mode) if other(mode) => Some(Kept::of(switch, &name, ctx.deadline)?),
                    _ => None,
                };
                let there = (&uuid, &row);
                match kept.filter(|kept| !kept.is_empty()) {
                    Some(kept) => over(switch, db, action, there, kept, ctx.deadline)?,
                    None => {
                        let announced = change(db, action, there, false, ctx.deadline)?;
                        settled(db, &name, announced, ctx.deadline)?;
                    }
                }
                let mut done = done(
                    format!("bridge {name} is there"),
                    [("created", false.into())],
                );
                // What was asked for has been reached: a failure would have who takes a change back try it for ever.
                if kept::lost(&row) && !kept::reappeared(switch, db, &name, there, ctx.deadline) {
                    done.output.push_str(kept::FORGOTTEN);
                    done.extra.insert("flows_lost".into(), true.into());
                }
                Ok(done)
            }
            None => make(db, &name, &action.options, ctx.deadline),
        }
    })
}

fn conflict(message: String) -> Failure {
    Failure::new(ErrorCode::Conflict, message)
}

/// The columns of the bridge's row that the options stand for.
fn columns(options: &BridgeOptions) -> Map<String, Value> {
    let mut row = Map::new();
    if let Some(kind) = options.datapath_type {
        row.insert("datapath_type".into(), kind.to_string().into());
    }
    if let Some(mode) = options.fail_mode {
        row.insert("fail_mode".into(), mode.to_string().into());
    }
    if let Some(snooping) = options.mcast_snooping {
        row.insert("mcast_snooping_enable".into(), snooping.into());
    }
    row
}

fn make(
    db: &mut Ovsdb,
    name: &str,
    options: &BridgeOptions,
    deadline: Instant,
) -> Result<Done, Failure> {
    let mut t = Transaction::new();
    for table in ["Bridge", "Port", "Interface"] {
        absent(&mut t, table, name);
    }
    let mut interface = json!({"name": name, "type": "internal"});
    if let Some(mtu) = options.mtu {
        interface["mtu_request"] = mtu.get().into();
    }
    let owner = text_map([OWNER]);
    t.insert("Interface", "interface", interface);
    let port = json!({"name": name, "interfaces": label("interface"), "external_ids": owner});
    t.insert("Port", "port", port);
    let mut row = columns(options);
    row.insert("name".into(), name.into());
    row.insert("ports".into(), label("port"));
    row.insert("external_ids".into(), owner);
    if let Some(address) = &options.hwaddr {
        row.insert(
            "other_config".into(),
            text_map([("hwaddr", address.to_string().to_ascii_lowercase())]),
        );
    }
    t.insert("Bridge", "bridge", row.into());
    let bridges = set([label("bridge")]);
    t.mutate("Open_vSwitch", json!([]), "bridges", "insert", bridges);
    let announced = Ovsdb::announce(&mut t);
    let mut answers = match db.transact(t, deadline) {
        // A port of another bridge may have the name too.
        Err(SwitchError::Raced) => {
            return Err(conflict(format!(
                "{name} is the name of a port on the switch already; nothing was changed"
            )));
        }
        other => other?,
    };
    let announced = answers.announced(announced)?;
    match settled(db, name, announced, before_undo(deadline)) {
        Ok(()) => Ok(done(
            format!("bridge {name} is there"),
            [("created", true.into())],
        )),
        Err(failure) => {
            let undone = take_away(db, name, deadline);
            Err(after_undo(failure, undone))
        }
    }
}

/// Adds to a failure what became of the attempt to undo.
pub(super) fn after_undo(mut failure: Failure, undone: Result<(), Failure>) -> Failure {
    match undone {
        Ok(()) => failure.message.push_str("; it was taken away again"),
        Err(why) => {
            failure
                .message
                .push_str("; and it could not be taken away again: ");
            failure.message.push_str(&why.message);
        }
    }
    failure
}

/// Waits for the switch; an error when the bridge does not work.
fn settled(db: &mut Ovsdb, name: &str, announced: i64, until: Instant) -> Result<(), Failure> {
    acted(db, name, announced, until)?.map_or(Ok(()), Err)
}

/// Waits until the switch has acted; what is wrong with the bridge then.
fn acted(
    db: &mut Ovsdb,
    name: &str,
    announced: i64,
    until: Instant,
) -> Result<Option<Failure>, SwitchError> {
    let columns = interface_columns(db);
    let mut slots = None;
    let mut answers = db.await_switch(
        announced,
        |t| {
            let interface = t.select("Interface", equals("name", name), &columns);
            let bridge = t.select("Bridge", equals("name", name), &["datapath_id"]);
            slots = Some((interface, bridge));
        },
        until,
    )?;
    let (interface, bridge) = slots.map_or((None, None), |(i, b)| (answers.row(i), answers.row(b)));
    let message = if bridge
        .as_ref()
        .and_then(|row| row.text("datapath_id"))
        .is_none()
    {
        Some(format!(
            "the switch could not make bridge {name}; datapath_type system needs the kernel module openvswitch (netdev does not), and the log of ovs-vswitchd says more"
        ))
    } else {
        let what = complaint(interface.as_ref());
        what.map(|what| format!("the switch could not make the interface of bridge {name}: {what}"))
    };
    Ok(message.map(|message| Failure::new(ErrorCode::Failed, message)))
}

/// Removes the bridge just made.
fn take_away(db: &mut Ovsdb, name: &str, deadline: Instant) -> Result<(), Failure> {
    let (uuid, _) = bridge(db, name, &["_uuid"], deadline)?;
    let mut t = Transaction::new();
    unlink(&mut t, &uuid);
    Ovsdb::announce(&mut t);
    db.transact(t, deadline)?;
    Ok(())
}

fn unlink(t: &mut Transaction, bridge: &Uuid) {
    let gone = set([bridge.to_json()]);
    t.mutate("Open_vSwitch", json!([]), "bridges", "delete", gone);
}

/// Brings a bridge that is there to another `fail_mode`, and its flows and meters over it, whatever becomes of the change. Those of
/// an agent that is killed meanwhile are marked as lost, by the same transaction.
fn over(
    switch: &Switch,
    db: &mut Ovsdb,
    action: &OvsAddBr,
    (uuid, row): (&Uuid, &Row),
    kept: Kept,
    deadline: Instant,
) -> Result<(), Failure> {
    let name = action.bridge.as_str();
    let until = before_undo(deadline);
    failpoint::reach("ovs-fail-mode-kept", name.as_bytes());
    let acted = match change(db, action, (uuid, row), kept.has_flows(), until) {
        Ok(announced) => {
            failpoint::reach("ovs-fail-mode-committed", name.as_bytes());
            acted(db, name, announced, until)
        }
        // Nothing was changed.
        Err(error @ (SwitchError::Raced | SwitchError::Refused(_))) => return Err(error.into()),
        // The answer is missing, and the change may have been made.
        Err(error) => Err(error),
    };
    failpoint::reach("ovs-fail-mode-awaited", name.as_bytes());
    let back = kept.put_back(switch, name, deadline);
    match (acted, back) {
        (Ok(complaint), Ok(())) => {
            // Those lost before are not back.
            if !kept::lost(row) {
                kept::found_again(db, uuid, deadline)?;
            }
            complaint.map_or(Ok(()), Err)
        }
        (Ok(complaint), Err(lost)) => Err(and_too(complaint, lost)),
        (Err(error), Ok(())) => {
            let mut failure = Failure::from(error);
            failure.message.push_str(
                "; its flows and meters were put back, but the switch may still forget them when it acts: look with ovs-list, and set them again",
            );
            Err(failure)
        }
        (Err(error), Err(lost)) => Err(and_too(Some(error.into()), lost)),
    }
}

/// Both of two failures, as the first.
fn and_too(first: Option<Failure>, second: Failure) -> Failure {
    let Some(mut failure) = first else {
        return second;
    };
    failure.message.push_str("; and ");
    failure.message.push_str(&second.message);
    failure
}

/// Has the options of a bridge that is there written down; the number by which the switch says that it has acted.
fn change(
    db: &mut Ovsdb,
    action: &OvsAddBr,
    (uuid, row): (&Uuid, &Row),
    forgets: bool,
    deadline: Instant,
) -> Result<i64, SwitchError> {
    let (name, options) = (action.bridge.as_str(), &action.options);
    let mut t = Transaction::new();
    unchanged(&mut t, "Bridge", uuid, row, &["external_ids"]);
    t.update("Bridge", is_row(uuid), columns(options).into());
    if forgets {
        kept::mark(&mut t, uuid);
    }
    if let Some(address) = &options.hwaddr {
        let key = set([json!("hwaddr")]);
        t.mutate("Bridge", is_row(uuid), "other_config", "delete", key);
        let pair = text_map([("hwaddr", address.to_string().to_ascii_lowercase())]);
        t.mutate("Bridge", is_row(uuid), "other_config", "insert", pair);
    }
    if let Some(mtu) = options.mtu {
        let row = json!({"mtu_request": mtu.get()});
        t.update("Interface", equals("name", name), row);
    }
    let announced = Ovsdb::announce(&mut t);
    db.transact(t, deadline)?.announced(announced)
}

/// Insists that a bridge has the datapath that is asked for: that is not changed.
fn same_datapath(name: &str, row: &Row, options: &BridgeOptions) -> Result<(), Failure> {
    let now = row
        .text("datapath_type")
        .filter(|kind| !kind.is_empty())
        .unwrap_or("system");
    match options.datapath_type {
        Some(kind) if kind.to_string() != now => Err(conflict(format!(
            "bridge {name} exists with another datapath_type; delete it first"
        ))),
        _ => Ok(()),
    }
}

/// Deletes a bridge.
///
/// # Errors
/// `not_found`, `forbidden` for one that this agent did not make, `conflict` for one that the host is reached by.
pub fn delete(
    switch: &Switch,
    carried: &Carried,
    action: &OvsDelBr,
    ctx: &JobCtx<'_>,
) -> Result<Done, Failure> {
    let name = action.bridge.to_string();
    switch.database(ctx.deadline, |db| {
        let columns = ["_uuid", "external_ids", "ports"];
        let (uuid, row) = bridge(db, &name, &columns, ctx.deadline)?;
        if !is_ours(&row) {
            return Err(Failure::new(
                ErrorCode::Forbidden,
                format!("bridge {name} was not made by this agent, so it is not deleted here"),
            ));
        }
        let mut devices = internal_devices(db, &row, ctx.deadline)?;
        if !devices.contains(&name) {
            devices.push(name.clone());
        }
        let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
        carried.nothing_of_the_host(&format!("bridge {name}"), &devices, ctx.allow)?;
        let mut t = Transaction::new();
        unchanged(&mut t, "Bridge", &uuid, &row, &["external_ids", "ports"]);
        unlink(&mut t, &uuid);
        carry_out_deletion(db, t, "bridge", true, ctx.deadline)?;
        Ok(done(format!("bridge {name} is gone"), []))
    })
}

/// The devices that the switch itself made for ports of a bridge, and takes away with them.
fn internal_devices(
    db: &mut Ovsdb,
    bridge: &Row,
    deadline: Instant,
) -> Result<Vec<String>, SwitchError> {
    let mut t = Transaction::new();
    let ports = t.select("Port", json!([]), &["_uuid", "interfaces"]);
    let internal = equals("type", "internal");
    let interfaces = t.select("Interface", internal, &["_uuid", "name"]);
    let mut answers = db.transact(t, deadline)?;
    let of_it = interfaces_of(bridge, &answers.rows(ports));
    let all = answers.rows(interfaces).into_iter();
    let is_of_it = |row: &Row| row.uuid().is_some_and(|uuid| of_it.contains(&uuid));
    Ok(all
        .filter(is_of_it)
        .filter_map(|row| row.text("name").map(str::to_owned))
        .collect())
}

/// Commits a deletion and waits until the switch has carried it out. Where it had limits, the rows that nothing refers to
/// any more go with it; looking for them takes longer the more ports there are.
pub(super) fn carry_out_deletion(
    db: &mut Ovsdb,
    mut t: Transaction,
    what: &str,
    limited: bool,
    deadline: Instant,
) -> Result<(), Failure> {
    let announced = Ovsdb::announce(&mut t);
    let announced = db.transact(t, deadline)?.announced(announced)?;
    if limited {
        qos::collect_garbage(db, deadline)?;
    }
    db.await_switch(announced, |_| (), deadline)
        .map_err(|error| {
            let mut failure = Failure::from(error);
            let prefix = format!("the {what} is deleted from the configuration, but ");
            failure.message.insert_str(0, &prefix);
            failure
        })?;
    Ok(())
}
