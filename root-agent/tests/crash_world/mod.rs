//! What the tests that kill the agent's processes at a named step share: an agent that stops there, and a look at its
//! network from outside.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

use std::process::Command;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::verify::{Trust, verify};
use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Agent, World, signal_process, wait_for};

/// A step: the process that is there, the point, what it is reached with.
pub type Step = (&'static str, &'static str, &'static str);

/// An agent of which one process stops at the point that the line names.
pub fn armed(world: World, line: &str) -> Agent {
    armed_after("", world, line)
}

/// The same after a shell command in the agent's namespaces.
pub fn armed_after(preparation: &str, world: World, line: &str) -> Agent {
    let file = world.layout.root().join("fail-point");
    std::fs::write(&file, line).expect("written");
    let agent = Agent::start_wrapped(world, preparation);
    assert!(!file.exists(), "no process was armed by {line}");
    agent
}

/// Fails the test where the ledger does not verify.
pub fn verify_ledger(world: &World) {
    let directory = LedgerDir::open(&world.layout.ledger()).expect("the ledger");
    let trust = Trust::default();
    let report = verify(&directory, &trust, &mut |_, _| ()).expect("readable");
    assert!(report.ok, "{:?}", report.problems);
}

/// Has that request's process killed at that point; the agent that is whole again, and the answer.
pub fn killed_at(
    preparation: &str,
    world: World,
    (role, point, detail): Step,
    request: &Value,
) -> (Agent, Value) {
    let line = format!("{role} stop {point} {detail}");
    let mut agent = armed_after(preparation, world, &line);
    let mut client = agent.client();
    client.request(request);
    let reached = format!("fail point {point} reached");
    wait_for(|| agent.world.log().contains(&reached).then_some(()));
    let old = agent.pid(role).expect(role);
    signal_process(old, Signal::KILL);
    agent.wait_for_new(role, old);
    agent.wait_until_ready();
    (agent, client.answer().expect("an answer"))
}

/// What a tool prints in the agent's network namespace.
pub fn output_in_namespace(agent: &Agent, words: &str) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "looks from outside, with the host's tools"
    )]
    let output = Command::new("nsenter")
        .arg(format!("--net=/proc/{}/ns/net", agent.supervisor()))
        .args(words.split_whitespace())
        .output()
        .expect("nsenter");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{words}");
    text
}

/// Lines of a tool's output in the agent's network namespace that contain the words.
pub fn in_namespace(agent: &Agent, words: &[&str], wanted: &str) -> usize {
    let text = output_in_namespace(agent, &words.join(" "));
    text.lines().filter(|line| line.contains(wanted)).count()
}
