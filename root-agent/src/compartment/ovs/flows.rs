//! The flows of one owner replaced: what is there is read, only the difference is sent, in one bundle that happens whole or
//! not at all. [`plan`] decides and is pure; other owners' flows are never touched.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use blockhost_proto::action::OvsSetFlows;
use blockhost_proto::escape;
use blockhost_proto::flow::{FlowAction, FlowSet, PortRef};
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::Sha256Hex;
use serde_json::json;

use super::carried::Carried;
use super::meters::torn;
use super::openflow::connection::BundleError;
use super::openflow::encode::Encoder;
use super::openflow::message::{Change, Entry, Put, flow_mod, flow_request, kind};
use super::openflow::stats::{self, Meaning};
use super::ovsdb::Ovsdb;
use super::rows::{Row, Transaction, Uuid, is_row, set, text_map};
use super::switch::{BRIDGE, Switch, bridge, interfaces_of, unchanged};
use super::{done, kept};
use crate::compartment::{Done, Failure, JobCtx};

/// Key in a bridge's `external_ids` under which the owner of a cookie stands.
pub const COOKIE_KEY: &str = "blockhost-flows-";
/// Key under which stands what this owner asked for last, and what became of it: [`FlowSet::fingerprint`] and [`digest`].
const ASKED_KEY: &str = "blockhost-asked-";

/// The cookies whose owners a bridge knows.
pub fn known_cookies(bridge: &Row) -> impl Iterator<Item = u64> {
    let keys = bridge.pairs("external_ids");
    keys.filter_map(|(key, _)| {
        u64::from_str_radix(key.as_str()?.strip_prefix(COOKIE_KEY)?, 16).ok()
    })
}

/// What an owner asked for last, and what the switch said of that when it was set.
pub fn asked(bridge: &Row, cookie: u64) -> Option<(&str, &str)> {
    let known = bridge.entry("external_ids", &format!("{ASKED_KEY}{cookie:012x}"));
    known?.split_once(' ')
}

/// How long the switch may take for a port that it was just given.
const SETTLING: Duration = Duration::from_secs(3);

/// One change of the bundle, and the number of the flow of the request that it comes from.
pub type Step = (Change, Entry, Option<usize>);

/// What has to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order: what goes, then what comes.
    pub steps: Vec<Step>,
    /// New flows.
    pub added: usize,
    /// Flows that do something else now.
    pub changed: usize,
    /// Flows that are gone.
    pub removed: usize,
    /// Flows that stay as they are, with their counters.
    pub unchanged: usize,
}

/// Why there is no plan.
#[derive(Debug, PartialEq, Eq)]
pub enum PlanError {
    /// Two flows of the request are one to the switch.
    Twice(usize),
    /// Another owner has a flow in the same place.
    Taken(usize, u64),
    /// A match that cannot be read back.
    Torn,
}

type Place = (u8, u16, Meaning);

fn place(entry: &Entry) -> Result<Place, PlanError> {
    let meaning = Meaning::read(&entry.oxm).map_err(|_| PlanError::Torn)?;
    Ok((entry.table, entry.priority, meaning))
}

/// Hash of all that a switch says of some flows, but for their counters and their owner; the order of the flows and of the
/// fields in their matches changes nothing.
///
/// # Errors
/// [`PlanError::Torn`] for a match that cannot be read.
pub fn digest<'a>(entries: impl Iterator<Item = &'a Entry>) -> Result<Sha256Hex, PlanError> {
    let mut all = Vec::new();
    for entry in entries {
        let (table, priority, meaning) = place(entry)?;
        let mut bytes = Vec::new();
        bytes.u8(table);
        bytes.u16(priority);
        bytes.u16(entry.idle_timeout);
        bytes.u16(entry.hard_timeout);
        for (class, number, value, mask) in meaning.fields() {
            bytes.u16(class);
            bytes.u8(number);
            for part in [Some(value), mask] {
                let part = part.unwrap_or_default();
                bytes.u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
                bytes.extend_from_slice(part);
            }
        }
        // Longer than any field: what follows is never taken for one.
        bytes.u32(u32::MAX);
        bytes.extend_from_slice(&entry.instructions);
        all.push(bytes);
    }
    all.sort_unstable();
    let mut text = Vec::new();
    for bytes in &all {
        text.u64(bytes.len() as u64);
        text.extend_from_slice(bytes);
    }
    Ok(Sha256Hex::of(&text))
}

/// The flow that the switch itself puts into an empty bridge without controller: everything, as a learning switch.
#[must_use]
pub fn default_flow() -> Entry {
    let mut instructions = Vec::new();
    instructions.u16(4);
    instructions.u16(24);
    instructions.u32(0);
    instructions.u16(0);
    instructions.u16(16);
    instructions.u32(0xffff_fffa);
    instructions.zeros(8);
    Entry {
        table: 0,
        priority: 0,
        cookie: 0,
        idle_timeout: 0,
        hard_timeout: 0,
        oxm: Vec::new(),
        instructions,
    }
}

/// The difference between what an owner wants and what is there. `standalone` bridges get their default flow back when
/// the owner's flow in its place goes.
///
/// # Errors
/// [`PlanError`].
pub fn plan(
    wanted: &[Entry],
    observed: &[Entry],
    cookie: u64,
    standalone: bool,
) -> Result<Plan, PlanError> {
    let mut places = HashMap::with_capacity(wanted.len());
    for (index, entry) in wanted.iter().enumerate() {
        if places.insert(place(entry)?, index).is_some() {
            return Err(PlanError::Twice(index));
        }
    }
    let mut plan = Plan::default();
    let mut settled = HashSet::new();
    let mut changed = HashSet::new();
    let default = default_flow();
    let mut restore = false;
    for there in observed {
        let place = place(there)?;
        let ours = there.cookie == cookie;
        match places.get(&place) {
            Some(&index) if ours => {
                let same = |entry: &Entry| {
                    entry.instructions == there.instructions
                        && entry.idle_timeout == there.idle_timeout
                        && entry.hard_timeout == there.hard_timeout
                };
                if wanted.get(index).is_some_and(same) {
                    settled.insert(index);
                } else {
                    changed.insert(index);
                }
            }
            Some(&index) if *there != default => return Err(PlanError::Taken(index, there.cookie)),
            None if ours => {
                restore |= standalone && place.0 == 0 && place.1 == 0 && place.2.is_everything();
                plan.steps.push((Change::DeleteStrict, there.clone(), None));
                plan.removed += 1;
            }
            _ => {}
        }
    }
    if restore {
        plan.steps.push((Change::Add, default, None));
    }
    for (index, entry) in wanted.iter().enumerate() {
        if !settled.contains(&index) {
            plan.steps.push((Change::Add, entry.clone(), Some(index)));
        }
    }
    plan.unchanged = settled.len();
    plan.changed = changed.len();
    plan.added = wanted.len() - plan.unchanged - plan.changed;
    Ok(plan)
}

/// Replaces an owner's flows.
///
/// # Errors
/// `not_found` for the bridge or a port, `conflict` where another owner's flow is in the way, `failed` with the flow and
/// the switch's reason; nothing has changed then.
pub fn set_flows(
    switch: &Switch,
    carried: &Carried,
    action: &OvsSetFlows,
    ctx: &JobCtx<'_>,
) -> Result<Done, Failure> {
    let name = action.bridge.as_str();
    let cookie = action.owner.cookie();
    let (uuid, row) = switch.database(ctx.deadline, |db| bridge(db, name, BRIDGE, ctx.deadline))?;
    let named = named_ports(&action.flows);
    let ports = match named.is_empty() {
        true => HashMap::new(),
        false => settled_ports(switch, carried, &row, &named, ctx)?,
    };
    let key = format!("{COOKIE_KEY}{cookie:012x}");
    if row
        .entry("external_ids", &key)
        .is_some_and(|owner| owner != action.owner.as_str())
    {
        let message = format!(
            "the owner {} has the cookie of another owner; choose another name",
            action.owner
        );
        return Err(Failure::new(ErrorCode::Conflict, message));
    }
    let encoder = Encoder {
        cookie,
        port: &|name| ports.get(name.as_str()).copied(),
    };
    let wanted: Vec<Entry> = action
        .flows
        .iter()
        .enumerate()
        .map(|(index, flow)| {
            encoder.entry(flow).map_err(|error| {
                Failure::new(
                    ErrorCode::Failed,
                    format!("flow {index}: {error}; nothing was changed"),
                )
            })
        })
        .collect::<Result<_, _>>()?;
    let mut talk = switch.talk(name, ctx.deadline)?;
    let mut observed = Vec::new();
    talk.statistics(&flow_request(0, 0), |body| {
        stats::flows(body, |flow| observed.push(flow.entry)).map_err(torn)
    })?;
    let standalone =
        row.text("fail_mode") != Some("secure") && row.references("controller").is_empty();
    let plan =
        plan(&wanted, &observed, cookie, standalone).map_err(|error| refused(&error, &row))?;
    let bodies: Vec<Vec<u8>> = plan
        .steps
        .iter()
        .map(|(change, entry, _)| flow_mod(*change, entry))
        .collect();
    // Written before they are set: a flow whose cookie nobody can explain is worse than a name without flows, and what is said to have
    // been set and is not there is only set again.
    let asked = action
        .flows
        .fingerprint(|name| ports.get(name.as_str()).copied())
        .zip(digest(wanted.iter()).ok())
        .map(|(asked, set)| format!("{asked} {set}"));
    let asked_key = format!("{ASKED_KEY}{cookie:012x}");
    let known = [
        (&*key, Some(action.owner.as_str())),
        (&*asked_key, asked.as_deref()),
    ];
    if !wanted.is_empty() {
        remember(switch, &uuid, &row, &known, ctx)?;
    }
    if !bodies.is_empty() {
        talk.bundle(kind::FLOW_MOD, &bodies).map_err(|error| {
            if error.changed_nothing() {
                // An owner without flows would be missed for ever where a bridge has lost some.
                let before = known
                    .each_ref()
                    .map(|(key, _)| (*key, row.entry("external_ids", key)));
                let _ = write_down(switch, &uuid, &row, &before, ctx);
            }
            broken(error, &plan)
        })?;
    }
    if wanted.is_empty() {
        let nothing = [(&*key, None), (&*asked_key, None)];
        remember(switch, &uuid, &row, &nothing, ctx)?;
    }
    let has = |known: u64| known == cookie || observed.iter().any(|flow| flow.cookie == known);
    if kept::lost(&row) && known_cookies(&row).all(has) {
        switch.database(ctx.deadline, |db| {
            Ok(kept::found_again(db, &uuid, ctx.deadline)?)
        })?;
    }
    let Plan {
        added,
        changed,
        removed,
        unchanged,
        ..
    } = plan;
    Ok(done(
        format!(
            "{} flows of {} on bridge {name}: {added} added, {changed} changed, {removed} removed",
            wanted.len(),
            action.owner
        ),
        [
            ("added", added.into()),
            ("changed", changed.into()),
            ("removed", removed.into()),
            ("unchanged", unchanged.into()),
        ],
    ))
}

fn named_ports(flows: &FlowSet) -> HashSet<&str> {
    let ports = flows.iter().flat_map(|flow| {
        let outputs = flow.actions.iter().filter_map(|action| match action {
            FlowAction::Output(port) => Some(port),
            _ => None,
        });
        outputs.chain(flow.matching.in_port())
    });
    ports
        .filter_map(|port| match port {
            PortRef::Name(name) => Some(name.as_str()),
            _ => None,
        })
        .collect()
}

/// The numbers of the bridge's ports that work, by name. One of `named` that somebody has just attached has none for a moment, nor
/// one whose device has just come: that is waited for, and others get at the database meanwhile.
fn settled_ports(
    switch: &Switch,
    carried: &Carried,
    bridge: &Row,
    named: &HashSet<&str>,
    ctx: &JobCtx<'_>,
) -> Result<HashMap<String, u16>, Failure> {
    let until = ctx.deadline.min(Instant::now() + SETTLING);
    loop {
        let (ports, fresh, failed) =
            switch.database(ctx.deadline, |db| port_numbers(db, bridge, ctx))?;
        let is_named = |name: &&String| named.contains(name.as_str());
        let waits = fresh.iter().any(|name| is_named(&name))
            || carried.is_one_there(failed.iter().filter(is_named));
        if !waits || Instant::now() >= until {
            return Ok(ports);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Numbers of ports that work, names of those that have none yet, and of those that failed.
type Ports = (HashMap<String, u16>, Vec<String>, Vec<String>);

/// The numbers of the bridge's ports that work, by name; the names of those of which the switch has not said it yet, and of those
/// whose devices it could not open, which it tries again when they come.
fn port_numbers(db: &mut Ovsdb, bridge: &Row, ctx: &JobCtx<'_>) -> Result<Ports, Failure> {
    let mut t = Transaction::new();
    let ports = t.select("Port", json!([]), &["_uuid", "interfaces"]);
    let interfaces = t.select("Interface", json!([]), &["_uuid", "name", "ofport"]);
    let mut answers = db.transact(t, ctx.deadline)?;
    let mine = interfaces_of(bridge, &answers.rows(ports));
    let number = |row: &Row| {
        let number = u16::try_from(row.integer("ofport")?)
            .ok()
            .filter(|number| *number > 0)?;
        Some((row.text("name")?.to_owned(), number))
    };
    let rows = answers.rows(interfaces);
    let rows = rows
        .iter()
        .filter(|row| row.uuid().is_some_and(|uuid| mine.contains(&uuid)));
    let names = |is_it: fn(Option<i64>) -> bool| {
        let found = rows.clone().filter(|row| is_it(row.integer("ofport")));
        found
            .filter_map(|row| row.text("name").map(str::to_owned))
            .collect()
    };
    let fresh = names(|number| number.is_none());
    let failed = names(|number| number.is_some_and(|number| number <= 0));
    Ok((rows.clone().filter_map(number).collect(), fresh, failed))
}

/// Writes down whose cookie it is and what was asked for, or strikes it out.
fn remember(
    switch: &Switch,
    uuid: &Uuid,
    row: &Row,
    entries: &[(&str, Option<&str>)],
    ctx: &JobCtx<'_>,
) -> Result<(), Failure> {
    let as_known = |(key, value): &(&str, Option<&str>)| row.entry("external_ids", key) == *value;
    if entries.iter().all(as_known) {
        return Ok(());
    }
    write_down(switch, uuid, row, entries, ctx)
}

fn write_down(
    switch: &Switch,
    uuid: &Uuid,
    row: &Row,
    entries: &[(&str, Option<&str>)],
    ctx: &JobCtx<'_>,
) -> Result<(), Failure> {
    switch.database(ctx.deadline, |db| {
        let mut t = Transaction::new();
        unchanged(&mut t, "Bridge", uuid, row, &["name"]);
        let keys = entries.iter().map(|(key, _)| json!(key));
        t.mutate(
            "Bridge",
            is_row(uuid),
            "external_ids",
            "delete",
            set(keys.collect::<Vec<_>>()),
        );
        let pairs: Vec<(&str, &str)> = entries
            .iter()
            .filter_map(|(key, value)| Some((*key, (*value)?)))
            .collect();
        if !pairs.is_empty() {
            t.mutate(
                "Bridge",
                is_row(uuid),
                "external_ids",
                "insert",
                text_map(pairs),
            );
        }
        db.transact(t, ctx.deadline)?;
        Ok(())
    })
}

fn refused(error: &PlanError, bridge: &Row) -> Failure {
    match error {
        PlanError::Twice(index) => Failure::new(
            ErrorCode::BadParams,
            format!(
                "flow {index} has the table, priority and match of an earlier one, once port names are numbers; nothing was changed"
            ),
        ),
        PlanError::Taken(index, cookie) => {
            let owner = bridge.entry("external_ids", &format!("{COOKIE_KEY}{cookie:012x}"));
            let whose = owner.map_or_else(|| format!("cookie {cookie:#x}"), escape::shown);
            Failure::new(
                ErrorCode::Conflict,
                format!(
                    "flow {index} has the table, priority and match of a flow of another owner ({whose}); nothing was changed"
                ),
            )
        }
        PlanError::Torn => Failure::new(
            ErrorCode::Failed,
            "the switch describes a flow in a way that makes no sense; nothing was changed",
        ),
    }
}

fn broken(error: BundleError, plan: &Plan) -> Failure {
    let which = |step: usize| match plan.steps.get(step) {
        Some((_, entry, Some(index))) => {
            format!(
                "flow {index} (table {}, priority {})",
                entry.table, entry.priority
            )
        }
        _ => "the removal of an earlier flow".to_owned(),
    };
    match error {
        BundleError::Message { index, error } => Failure::new(
            ErrorCode::Failed,
            format!(
                "the switch refused {}: {error}; nothing was changed",
                which(index)
            ),
        ),
        BundleError::TooLong { index } => Failure::new(
            ErrorCode::BadParams,
            format!(
                "{} is longer than one OpenFlow message; nothing was changed",
                which(index)
            ),
        ),
        BundleError::Switch(error) => {
            let lost = !matches!(error, super::error::SwitchError::Refused(_));
            let mut failure = Failure::from(error);
            if lost {
                failure
                    .message
                    .push_str("; whether the flows are set is not known: set them again");
            }
            failure
        }
    }
}
