//! An action that keeps the machine compartment busy for three seconds, for real: a machine without a disk ignores the
//! power button, so `qm-shutdown` with a limit of three seconds takes exactly that long.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::load::Connection;
use super::wire::{Wire, frame};
use crate::scenario::ScenarioError;
use crate::world::World;

const VMID: u32 = 900;

/// Runs `body` while the three seconds pass.
pub(super) fn while_three_seconds_pass<T>(
    world: &World,
    body: impl FnOnce() -> Result<T, ScenarioError>,
) -> Result<T, ScenarioError> {
    let socket = world.layout.agent_socket();
    let mut connection = Connection::open(Wire::Frames, &socket)?;
    let create = json!({"action": "qm-create", "params": {"vmid": VMID, "name": "bench",
        "args": ["--memory", "64", "--cores", "1", "--serial0", "socket"]}});
    expect_ok(&mut connection, &create)?;
    expect_ok(
        &mut connection,
        &json!({"action": "qm-start", "params": {"vmid": VMID}}),
    )?;
    // The firmware gives up looking for a disk within a second or two; after that the machine is idle.
    thread::sleep(Duration::from_secs(4));

    let begun = Instant::now();
    let shutdown = thread::spawn(move || {
        connection.ask(&frame(
            &json!({"action": "qm-shutdown", "params": {"vmid": VMID, "timeout": 3}}),
        ))
    });
    thread::sleep(Duration::from_millis(300));
    let result = body();
    let measured = begun.elapsed();
    let answer = shutdown
        .join()
        .map_err(|_| ScenarioError::Wrong("the waiting thread broke".to_owned()))??
        .1;
    let took = begun.elapsed();

    let mut connection = Connection::open(Wire::Frames, &socket)?;
    expect_ok(
        &mut connection,
        &json!({"action": "qm-stop", "params": {"vmid": VMID}}),
    )?;
    expect_ok(
        &mut connection,
        &json!({"action": "qm-destroy", "params": {"vmid": VMID}}),
    )?;
    if took < Duration::from_millis(2800) || took < measured {
        return Err(ScenarioError::Wrong(format!(
            "the action that should take 3 s took {} ms: {}",
            took.as_millis(),
            answer.escape_ascii()
        )));
    }
    result
}

fn expect_ok(
    connection: &mut Connection,
    request: &serde_json::Value,
) -> Result<(), ScenarioError> {
    connection.ask_well(&frame(request)).map(|_| ())
}
