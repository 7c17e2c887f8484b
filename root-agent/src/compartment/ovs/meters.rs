//! Meters: set, changed, removed. A meter that flows use is not removed, because the switch would remove those flows too.

use blockhost_proto::action::OvsSetMeter;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::MeterUnit;

use super::done;
use super::error::SwitchError;
use super::openflow::connection::Conversation;
use super::openflow::message::{Meter, MeterChange, flow_request, kind, meter_request, part};
use super::openflow::stats::{self, Torn};
use super::switch::{Switch, bridge};
use crate::compartment::{Done, Failure, JobCtx};

/// Sets or removes a meter.
///
/// # Errors
/// `not_found` for one that is to be removed and is not there, `conflict` while flows use it, `failed` with the switch's
/// reason.
pub fn set_meter(switch: &Switch, action: &OvsSetMeter, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
    let name = action.bridge.as_str();
    switch.database(ctx.deadline, |db| {
        bridge(db, name, &["_uuid"], ctx.deadline).map(drop)
    })?;
    let mut talk = switch.talk(name, ctx.deadline)?;
    let id = action.meter.get();
    let mut exists = false;
    talk.statistics(&meter_request(part::METER_CONFIG), |body| {
        stats::meters(body, |meter| exists |= meter.id == id).map_err(torn)
    })?;
    let meter = Meter {
        id,
        packets: action.unit == MeterUnit::Pktps,
        rate: action.rate.map_or(0, |rate| rate.get()),
        burst: action.burst.map(|burst| burst.get()),
    };
    let change = match (action.rate.is_some(), exists) {
        (true, true) => MeterChange::Modify,
        (true, false) => MeterChange::Add,
        (false, true) => {
            refuse_used(&mut talk, id)?;
            MeterChange::Delete
        }
        (false, false) => {
            let message = format!("there is no meter {id} on bridge {name}");
            return Err(Failure::new(ErrorCode::NotFound, message));
        }
    };
    talk.change(kind::METER_MOD, &meter.body(change))?
        .map_err(|error| {
            let message = format!("the switch refused meter {id} on bridge {name}: {error}");
            Failure::new(ErrorCode::Failed, message)
        })?;
    let what = if change == MeterChange::Delete {
        "gone"
    } else {
        "set"
    };
    Ok(done(
        format!("meter {id} of bridge {name} is {what}"),
        [("created", (!exists).into())],
    ))
}

fn refuse_used(talk: &mut Conversation, id: u32) -> Result<(), Failure> {
    let mut users = 0u32;
    talk.statistics(&flow_request(0, 0), |body| {
        stats::flows(body, |flow| {
            if stats::meter_of(&flow.entry.instructions) == Some(id) {
                users += 1;
            }
        })
        .map_err(torn)
    })?;
    if users == 0 {
        return Ok(());
    }
    let message = format!(
        "meter {id} is used by {users} flows, which the switch would delete with it; replace them first"
    );
    Err(Failure::new(ErrorCode::Conflict, message))
}

/// Statistics that make no sense.
pub fn torn(error: Torn) -> SwitchError {
    SwitchError::nonsense("ovs-vswitchd", error.to_string())
}
