//! Queues, time limits and crashes while something runs, with a `qm` that is slow on purpose.

mod common;

use std::time::Duration;

use common::{Agent, World, own_kib, signal_process, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Runs until the file `go` exists; says on the way that it has begun.
const HELD: &str = r#"echo "$*" >>"$BLOCKHOST_ROOT/var/lib/blockhost/called"
while [ ! -e "$BLOCKHOST_ROOT/var/lib/blockhost/go" ]; do sleep 0.2; done"#;

fn start(vmid: u32) -> Value {
    json!({"action": "qm-start", "params": {"vmid": vmid}, "id": format!("start-{vmid}")})
}

fn called(world: &World) -> Vec<String> {
    let text = std::fs::read_to_string(world.layout.state().join("called")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn wait_for_call(world: &World, line: &str) {
    wait_for(|| {
        called(world)
            .iter()
            .any(|call| call.starts_with(line))
            .then_some(())
    });
}

fn go(world: &World) {
    std::fs::write(world.layout.state().join("go"), "").expect("go");
}

fn phases(world: &World, action: &str) -> Vec<String> {
    let records = world.records();
    let of_action = records.iter().filter(|record| record["action"] == action);
    of_action
        .map(|record| {
            format!(
                "{} {}",
                record["phase"].as_str().expect("phase"),
                record["resource"].as_str().expect("resource")
            )
        })
        .collect()
}

#[test]
fn a_running_action_does_not_delay_one_on_another_resource() {
    let agent = Agent::start_in(World::with_qm(HELD, ""));
    let mut slow = agent.client();
    slow.request(&start(100));
    wait_for_call(&agent.world, "start 100");
    // It is held until it is told to go on: any answer before that is one that did not wait for it.
    let mut client = agent.client();
    assert_eq!(
        client.call(&json!({"action": "generate-wallet", "params": {"name": "hot"}}))["ok"],
        true
    );
    // Neither another machine: it is running at the same time.
    client.request(&start(101));
    wait_for_call(&agent.world, "start 101");
    go(&agent.world);
    assert_eq!(slow.answer().expect("an answer")["ok"], true);
    assert_eq!(client.answer().expect("an answer")["ok"], true);
}

#[test]
fn two_actions_on_one_machine_run_one_after_the_other_in_order_of_arrival() {
    let agent = Agent::start_in(World::with_qm(HELD, ""));
    let (mut first, mut second) = (agent.client(), agent.client());
    first.request(&start(100));
    wait_for_call(&agent.world, "start 100");
    second.request(&json!({"action": "qm-destroy", "params": {"vmid": 100}}));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        phases(&agent.world, "qm-destroy").len(),
        0,
        "what waits is not even announced"
    );
    go(&agent.world);
    assert_eq!(first.answer().expect("an answer")["ok"], true);
    assert!(second.answer().is_some());
    assert_eq!(
        phases(&agent.world, "qm-start"),
        ["intent vm:100", "outcome vm:100"]
    );
    assert_eq!(
        phases(&agent.world, "qm-destroy"),
        ["intent vm:100", "outcome vm:100"]
    );
}

#[test]
fn a_restarted_front_does_not_let_two_actions_on_one_machine_run_at_once() {
    let agent = Agent::start_in(World::with_qm(HELD, ""));
    let mut lost = agent.client();
    lost.request(&start(100));
    wait_for_call(&agent.world, "start 100");
    let front = agent.pid("front").expect("front");
    signal_process(front, Signal::KILL);
    assert!(lost.answer().is_none(), "its front is gone");
    agent.wait_for_new("front", front);
    // The new front knows nothing of the old one's job; the gate does.
    let (mut again, mut other) = (agent.client(), agent.client());
    again.request(&json!({"action": "qm-destroy", "params": {"vmid": 100}}));
    other.request(&start(101));
    wait_for_call(&agent.world, "start 101");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(phases(&agent.world, "qm-destroy").len(), 0);
    assert!(
        called(&agent.world)
            .iter()
            .all(|call| call.starts_with("start")),
        "{:?}",
        called(&agent.world)
    );
    go(&agent.world);
    assert!(again.answer().is_some() && other.answer().is_some());
    let of_100: Vec<Value> = agent
        .world
        .records()
        .into_iter()
        .filter(|record| record["resource"] == "vm:100")
        .map(|record| json!([record["action"], record["phase"]]))
        .collect();
    assert_eq!(
        of_100,
        [
            json!(["qm-start", "intent"]),
            json!(["qm-start", "outcome"]),
            json!(["qm-destroy", "intent"]),
            json!(["qm-destroy", "outcome"]),
        ]
    );
}

#[test]
fn guests_that_never_answer_do_not_hold_up_other_machines() {
    let hangs = format!("if [ \"$1\" = guest ]; then\n{HELD}\nfi");
    let agent = Agent::start_in(World::with_qm(&hangs, ""));
    let mut waiting: Vec<_> = (0..20).map(|_| agent.client()).collect();
    for (vmid, client) in (100..).zip(&mut waiting) {
        client.request(
            &json!({"action": "qm-guest-exec", "params": {"vmid": vmid, "command": "true"}}),
        );
    }
    wait_for(|| (called(&agent.world).len() == 20).then_some(()));
    let answer = agent.client().call(&start(200));
    assert_eq!(answer["ok"], true, "{answer}");
    assert_eq!(phases(&agent.world, "qm-start").len(), 2);
    go(&agent.world);
    assert!(waiting.iter_mut().all(|client| client.answer().is_some()));
}

#[test]
fn an_action_over_its_time_is_ended_with_timeout() {
    let agent = Agent::start_in(World::with_qm(HELD, "time_limits: {qm-start: 1}\n"));
    // By itself it would never end.
    let answer = agent.client().call(&start(100));
    assert_eq!(answer["code"], "timeout", "{answer}");
    assert!(
        answer["receipt"]["index"].is_u64(),
        "it was executed, so it is on record"
    );
}

#[test]
fn a_killed_compartment_fails_its_running_requests_and_no_others() {
    let agent = Agent::start_in(World::with_qm(HELD, ""));
    let mut client = agent.client();
    client.request(&start(100));
    wait_for_call(&agent.world, "start 100");
    let old = agent.pid("vm").expect("vm");
    signal_process(old, Signal::KILL);
    let answer = client.answer().expect("an answer");
    assert_eq!(answer["code"], "internal", "{answer}");
    let index =
        usize::try_from(answer["receipt"]["index"].as_u64().expect("a receipt")).expect("small");
    assert_eq!(agent.world.records()[index]["metadata"]["code"], "internal");
    // On the same connection, by the next compartment.
    go(&agent.world);
    agent.wait_for_new("vm", old);
    assert_eq!(client.call(&start(100))["ok"], true);
}

#[test]
fn sigterm_lets_a_running_action_finish_and_answer() {
    let mut agent = Agent::start_in(World::with_qm(HELD, ""));
    let mut client = agent.client();
    client.request(&start(100));
    wait_for_call(&agent.world, "start 100");
    agent.signal(Signal::TERM);
    wait_for(|| (!agent.world.layout.agent_socket().exists()).then_some(()));
    go(&agent.world);
    assert_eq!(client.answer().expect("an answer")["ok"], true);
    assert!(agent.wait().success());
    assert_eq!(
        phases(&agent.world, "qm-start"),
        ["intent vm:100", "outcome vm:100"]
    );
}

#[test]
fn sigterm_does_not_wait_for_ever_and_the_ledger_says_what_was_left() {
    let mut agent = Agent::start_in(World::with_qm(HELD, "limits: {drain_s: 1}\n"));
    let mut client = agent.client();
    client.request(&start(100));
    wait_for_call(&agent.world, "start 100");
    assert!(agent.stop().success());
    go(&agent.world);
    let records = agent.world.records();
    let outcome = records
        .iter()
        .find(|record| record["phase"] == "outcome")
        .expect("an outcome");
    assert_eq!(outcome["metadata"]["code"], "internal", "{outcome}");
}

#[test]
fn after_kill_9_of_everything_an_open_intent_is_closed_as_unknown() {
    let mut agent = Agent::start_in(World::with_qm(HELD, ""));
    let mut client = agent.client();
    client.request(&start(100));
    wait_for_call(&agent.world, "start 100");
    agent.signal(Signal::KILL);
    agent.wait();
    go(&agent.world);
    let agent = Agent::start_in(agent.into_world());
    let records = agent.world.records();
    let outcome = records
        .iter()
        .find(|record| record["phase"] == "outcome")
        .expect("an outcome");
    assert_eq!(outcome["metadata"]["result"], "unknown");
    assert_eq!(outcome["op_id"], records[0]["op_id"]);
}

#[test]
fn a_killed_ledger_closes_what_ran_as_unknown_and_everything_works_again() {
    let mut agent = Agent::start_in(World::with_qm(HELD, ""));
    let mut client = agent.client();
    client.request(&start(100));
    wait_for_call(&agent.world, "start 100");
    let old = agent.pid("ledger").expect("ledger");
    signal_process(old, Signal::KILL);
    assert!(
        client.answer().is_none(),
        "without the ledger there is no answer"
    );
    agent.wait_for_new("ledger", old);
    go(&agent.world);
    agent.wait_until_ready();
    assert_eq!(agent.client().call(&start(101))["ok"], true);
    let records = agent.world.records();
    let unknown = records
        .iter()
        .filter(|record| record["metadata"]["result"] == "unknown")
        .count();
    assert_eq!(unknown, 1);
}

#[test]
fn a_client_that_leaves_does_not_stop_what_it_asked_for() {
    let agent = Agent::start_in(World::with_qm(HELD, ""));
    let mut client = agent.client();
    client.request(&start(100));
    drop(client);
    wait_for_call(&agent.world, "start 100");
    go(&agent.world);
    wait_for(|| (phases(&agent.world, "qm-start").len() == 2).then_some(()));
}

#[test]
fn who_asks_and_hangs_up_again_and_again_does_not_fill_the_agent_with_requests() {
    let policy = "limits: {connections_per_uid: 4, in_flight: 2}\n";
    let agent = Agent::start_in(World::with_qm(HELD, policy));
    let mut watch = agent.client();
    let mut under_way = || {
        let answer = watch.call(&json!({"action": "agent-info"}));
        answer["counters"]["in_flight"].as_u64().expect("a number")
    };
    // Four connections with two requests each are all that this user could wait for.
    for round in 1..=8 {
        let mut client = agent.client();
        client.request(&start(100 + round));
        wait_for(|| (under_way() >= u64::from(round)).then_some(()));
    }
    wait_for(|| {
        let answer = agent.client().try_call(&start(100))?;
        (answer["code"] == "busy" && answer["error"].as_str()?.contains("wait for answers"))
            .then_some(())
    });
    assert_eq!(under_way(), 8);
    go(&agent.world);
    wait_for(|| (under_way() == 0).then_some(()));
    assert_eq!(agent.client().call(&start(100))["ok"], true, "room again");
}

#[test]
fn large_answers_behind_one_that_does_not_come_cost_bounded_memory_and_nobody_else_an_answer() {
    const CLIENTS: u32 = 3;
    const BEHIND: u64 = 30;
    let script = format!(
        "if [ $1 = config ]; then exec cat \"$BLOCKHOST_ROOT/var/lib/blockhost/big\"; fi\n{HELD}"
    );
    let world = World::with_qm(&script, "");
    let big = format!("args: {}\n", "a".repeat(900 << 10));
    std::fs::write(world.layout.state().join("big"), big).expect("a large configuration");
    let agent = Agent::start_in(world);
    let front = agent.pid("front").expect("front");
    let mut watch = agent.client();
    let mut counter = |name: &str| {
        let answer = watch.call(&json!({"action": "agent-info"}));
        answer["counters"][name].as_u64().expect("a number")
    };
    let before = own_kib(front);
    // The first request of each does not end, so that all later answers wait for their turn.
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| agent.client()).collect();
    for (vmid, client) in (100..).zip(&mut clients) {
        client.request(&start(vmid));
        for _ in 0..BEHIND {
            client.request(&json!({"action": "qm-config", "params": {"vmid": 200}, "id": "big"}));
        }
    }
    let all = u64::from(CLIENTS) * BEHIND;
    wait_for(|| (counter("succeeded") == all).then_some(()));
    // Together they are 80 MiB; one user may have 48 waiting.
    let after = own_kib(front);
    assert!(
        after < before + (64 << 10),
        "{before} KiB before, {after} KiB after"
    );
    go(&agent.world);
    let mut kept = 0;
    for client in &mut clients {
        let Some(first) = client.answer() else {
            continue;
        };
        assert_eq!(first["ok"], true, "{first}");
        for _ in 0..BEHIND {
            let answer = client.answer().expect("all the others, too");
            assert_eq!(answer["id"], "big", "{}", answer["error"]);
        }
        kept += 1;
    }
    assert!((1..CLIENTS).contains(&kept), "{kept} of {CLIENTS} kept");
    assert_eq!(agent.pid("front"), Some(front), "{}", agent.world.log());
    assert!(agent.world.log().contains("unread answers of yours"));
}

fn under_way(agent: &Agent) -> u64 {
    let answer = agent.client().call(&json!({"action": "agent-info"}));
    answer["counters"]["in_flight"].as_u64().expect("a number")
}

fn stop(vmid: u32) -> Value {
    json!({"action": "qm-stop", "params": {"vmid": vmid}})
}

#[test]
fn what_waits_for_its_turn_ends_with_its_connection_and_not_when_its_client_has_said_all() {
    let agent = Agent::start_in(World::with_qm(HELD, ""));
    let (mut first, mut half, mut gone) = (agent.client(), agent.client(), agent.client());
    first.request(&start(100));
    wait_for_call(&agent.world, "start 100");
    gone.request(&json!({"action": "qm-destroy", "params": {"vmid": 100}}));
    gone.request(&json!({"action": "qm-destroy", "params": {"vmid": 100}}));
    half.request(&stop(100));
    let shut = half.stream.shutdown(std::net::Shutdown::Write);
    shut.expect("shutdown");
    wait_for(|| (under_way(&agent) == 4).then_some(()));
    drop(gone);
    wait_for(|| (under_way(&agent) == 2).then_some(()));
    go(&agent.world);
    assert_eq!(first.answer().expect("an answer")["ok"], true);
    assert_eq!(half.answer().expect("an answer")["ok"], true);
    assert_eq!(
        phases(&agent.world, "qm-stop"),
        ["intent vm:100", "outcome vm:100"]
    );
    assert!(phases(&agent.world, "qm-destroy").is_empty());
    let records = agent.world.records();
    let refused = records.iter().filter(|record| {
        let text = record.to_string();
        record["action"] == "request-refused"
            && text.contains("qm-destroy")
            && text.contains("the connection ended while this waited")
    });
    assert_eq!(refused.count(), 2, "{records:?}");
}

#[test]
fn what_waits_for_longer_than_it_may_take_is_told_that_it_did_not_happen() {
    let agent = Agent::start_in(World::with_qm(HELD, "time_limits: {qm-stop: 1}\n"));
    let (mut first, mut late) = (agent.client(), agent.client());
    first.request(&start(100));
    wait_for_call(&agent.world, "start 100");
    let answer = late.call(&stop(100));
    assert_eq!(answer["code"], "busy", "{answer}");
    let error = answer["error"].as_str().expect("a sentence");
    assert!(error.contains("nothing was executed"), "{answer}");
    // What it stood in the way of comes next, on the same connection.
    late.request(&json!({"action": "qm-destroy", "params": {"vmid": 100}}));
    wait_for(|| (under_way(&agent) == 2).then_some(()));
    go(&agent.world);
    assert_eq!(first.answer().expect("an answer")["ok"], true);
    assert_eq!(late.answer().expect("an answer")["ok"], true);
    assert!(phases(&agent.world, "qm-stop").is_empty());
}

#[test]
fn one_user_cannot_queue_up_at_one_machine_without_end() {
    let agent = Agent::start_in(World::with_qm(HELD, ""));
    let mut clients: Vec<_> = (0..3).map(|_| agent.client()).collect();
    clients[0].request(&start(100));
    wait_for_call(&agent.world, "start 100");
    for client in &mut clients {
        (0..25).for_each(|_| client.request(&stop(100)));
    }
    // One runs and 64 wait; eleven were refused, and other machines have room.
    wait_for(|| (under_way(&agent) == 65).then_some(()));
    clients[0].request(&start(101));
    wait_for_call(&agent.world, "start 101");
    go(&agent.world);
    let answers = clients.iter_mut().zip([27, 25, 25]);
    let answers: Vec<Value> = answers
        .flat_map(|(client, count)| {
            let answer = |_| client.answer().expect("an answer");
            (0..count).map(answer).collect::<Vec<_>>()
        })
        .collect();
    let refused: Vec<&Value> = answers.iter().filter(|a| a["ok"] == false).collect();
    assert_eq!(refused.len(), 11, "{refused:?}");
    for answer in refused {
        let error = answer["error"].as_str().expect("a sentence");
        assert!(
            answer["code"] == "busy" && error.contains("wait for vm:100"),
            "{answer}"
        );
    }
    assert_eq!(agent.client().call(&stop(100))["ok"], true, "room again");
}

#[test]
fn a_template_is_cloned_by_many_at_once_and_what_would_end_it_waits_for_all() {
    let agent = Agent::start_in(World::with_qm(HELD, ""));
    let clone = |newid: u32| json!({"action": "qm-clone", "params": {"vmid": 9000, "newid": newid, "name": "a"}});
    let mut clones: Vec<_> = (0..3).map(|_| agent.client()).collect();
    for (newid, client) in (100..).zip(&mut clones) {
        client.request(&clone(newid));
    }
    // Each looks at the template first.
    let begun = |world: &World| {
        let calls = called(world);
        calls
            .iter()
            .filter(|call| *call == "config 9000 --current 1")
            .count()
    };
    wait_for(|| (begun(&agent.world) == 3).then_some(()));
    let mut destroys = agent.client();
    destroys.request(&json!({"action": "qm-destroy", "params": {"vmid": 9000, "template": true}}));
    wait_for(|| (under_way(&agent) == 4).then_some(()));
    assert!(phases(&agent.world, "qm-destroy").is_empty());
    go(&agent.world);
    for client in &mut clones {
        assert_eq!(client.answer().expect("an answer")["ok"], true);
    }
    assert!(destroys.answer().is_some());
    let records = agent.world.records();
    let last_clone = records.iter().rposition(|r| r["action"] == "qm-clone");
    let destroy = records.iter().position(|r| r["action"] == "qm-destroy");
    assert!(destroy.is_some() && last_clone < destroy, "{records:?}");
}
