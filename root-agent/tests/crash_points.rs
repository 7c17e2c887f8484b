//! kill -9 at every step of a request: the process that is there is stopped exactly at the step (see
//! `src/failpoint.rs`), then it or others are killed. Afterwards the ledger tells the truth, no file is half written, the
//! client has an answer or an end, and the same request works.
//!
//! The short form kills the process that is there and the whole agent; with `BLOCKHOST_ATTACK=long` each other process too.

mod common;
mod crash_world;

use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::Command;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::verify::{Trust, verify};
use common::{Agent, Client, ROLES, World, signal_process, wait_for};
use crash_world::{Step, armed, in_namespace, killed_at, verify_ledger};
use rustix::process::Signal;
use serde_json::{Value, json};

const FRONT: &[Step] = &[
    ("front", "front-framed", "generate-wallet"),
    ("front", "front-authorised", "generate-wallet"),
    ("front", "front-queued", "generate-wallet"),
    ("front", "front-answering", "generate-wallet"),
    ("front", "front-answered", "generate-wallet"),
];

const INTENT: &[Step] = &[
    ("ledger", "gate-heard", "generate-wallet"),
    ("ledger", "ledger-intent-writing", "generate-wallet"),
    ("ledger", "ledger-intent-half", "generate-wallet"),
    ("ledger", "ledger-intent-written", "generate-wallet"),
    ("ledger", "ledger-intent-synced", "generate-wallet"),
    ("ledger", "gate-recorded", "generate-wallet"),
];

const OUTCOME: &[Step] = &[
    ("ledger", "gate-finished", "generate-wallet"),
    ("ledger", "ledger-outcome-writing", "generate-wallet"),
    ("ledger", "ledger-outcome-half", "generate-wallet"),
    ("ledger", "ledger-outcome-written", "generate-wallet"),
    ("ledger", "ledger-outcome-synced", "generate-wallet"),
    ("ledger", "gate-answering", "generate-wallet"),
];

const EXECUTION: &[Step] = &[
    ("keys", "compartment-taken", "generate-wallet"),
    ("keys", "keys-created", "crash.key"),
    ("keys", "keys-written", "crash.key"),
    ("keys", "keys-renamed", "crash.key"),
    ("keys", "keys-created", "addressbook.json"),
    ("keys", "keys-written", "addressbook.json"),
    ("keys", "keys-renamed", "addressbook.json"),
    ("keys", "compartment-done", "generate-wallet"),
    ("keys", "compartment-sent", "generate-wallet"),
];

#[test]
fn killed_in_the_front_at_any_step_a_request_is_answered_once_or_not_at_all() {
    walk(FRONT);
}

#[test]
fn killed_at_any_step_of_the_intent_nothing_was_executed_unrecorded() {
    walk(INTENT);
}

#[test]
fn killed_at_any_step_of_the_outcome_the_ledger_closes_what_was_done() {
    walk(OUTCOME);
}

#[test]
fn killed_at_any_step_of_the_execution_no_file_is_half_written_and_the_same_request_works() {
    walk(EXECUTION);
}

fn walk(steps: &[Step]) {
    let long = std::env::var_os("BLOCKHOST_ATTACK").is_some_and(|word| word == "long");
    for &step in steps {
        let mut victims = vec![step.0, "supervisor"];
        if long {
            victims.extend(
                ["front", "ledger", "keys", "net"]
                    .iter()
                    .filter(|&&r| r != step.0),
            );
        }
        for victim in victims {
            println!("{} in {}: kill {victim}", step.1, step.0);
            interrupt(step, victim);
        }
    }
}

fn wallet() -> Value {
    json!({"action": "generate-wallet", "params": {"name": "crash"}})
}

/// One life with a request that is interrupted at a step by the death of `victim`, and what must hold afterwards.
fn interrupt((role, point, detail): Step, victim: &str) {
    let mut agent = armed(World::new(""), &format!("{role} stop {point} {detail}"));
    let mut client = agent.client();
    client.request(&wallet());
    let reached = format!("fail point {point} reached");
    wait_for(|| agent.world.log().contains(&reached).then_some(()));

    let agent = if victim == "supervisor" {
        let pids: Vec<i32> = ROLES.iter().filter_map(|role| agent.pid(role)).collect();
        signal_process(agent.supervisor(), Signal::KILL);
        agent.wait();
        wait_for(|| pids.iter().all(|pid| !alive(*pid)).then_some(()));
        Agent::start_in(agent.into_world())
    } else {
        // The stopped one would be killed by its deadline much later; here it goes right after the victim.
        let mut order = vec![victim];
        order.extend((victim != role && victim != "ledger").then_some(role));
        for role in order {
            let old = agent.pid(role).expect(role);
            signal_process(old, Signal::KILL);
            agent.wait_for_new(role, old);
        }
        agent.wait_until_ready();
        agent
    };
    let answer = read_or_end(&mut client.stream);
    check(&agent, answer.as_ref(), point, victim);

    let again = agent.client().call(&wallet());
    let finished = again["ok"] == true || again["code"] == "conflict";
    assert!(finished, "the same request again: {again}");
    let other = json!({"action": "generate-wallet", "params": {"name": "other"}});
    assert_eq!(agent.client().call(&other)["ok"], true, "the lock is lost");
    let key = read(&agent.world.layout.etc().join("crash.key"));
    assert_eq!(key.trim_end().len(), 64, "a whole key");
    let book: Value =
        serde_json::from_str(&read(&agent.world.layout.etc().join("addressbook.json")))
            .expect("a whole address book");
    assert!(book.get("crash").is_some(), "{book}");
    verify_ledger(&agent.world);
}

fn alive(pid: i32) -> bool {
    // A zombie of a dead supervisor is gone as soon as its new parent looks.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    })
}

/// An answer, or the end of the stream; anything else is a hang.
fn read_or_end(stream: &mut std::os::unix::net::UnixStream) -> Option<Value> {
    let mut header = [0; 4];
    let mut read = |buffer: &mut [u8]| match stream.read_exact(buffer) {
        Ok(()) => true,
        Err(error) => {
            let ended = matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
            );
            assert!(ended, "the client is left hanging: {error}");
            false
        }
    };
    if !read(&mut header) {
        return None;
    }
    let mut body = vec![0; u32::from_be_bytes(header) as usize];
    read(&mut body).then(|| serde_json::from_slice(&body).expect("JSON"))
}

/// What the ledger, the files and the answer say must agree.
fn check(agent: &Agent, answer: Option<&Value>, point: &str, victim: &str) {
    let world = &agent.world;
    let records = wait_for(|| {
        let records = world.records();
        open_intents(&records).is_empty().then_some(records)
    });
    let of = |phase: &str| -> Vec<&Value> {
        let wanted = |r: &&Value| r["action"] == "generate-wallet" && r["phase"] == phase;
        records.iter().filter(wanted).collect()
    };
    let (intents, outcomes) = (of("intent"), of("outcome"));
    let found = format!("{point}, {victim} killed: {outcomes:?}, answer {answer:?}");
    assert!(intents.len() <= 1, "{found}");
    assert_eq!(
        intents.len(),
        outcomes.len(),
        "one outcome for one intent; {found}"
    );
    let key = world.layout.etc().join("crash.key");
    assert!(
        !key.exists() || !intents.is_empty(),
        "done without a record; {found}"
    );
    for outcome in &outcomes {
        let metadata = &outcome["metadata"];
        let (result, code) = (&metadata["result"], &metadata["code"]);
        let truthful = match result.as_str() {
            Some("ok") => key.exists(),
            Some("error") => code == "internal",
            Some("unknown") => true,
            _ => false,
        };
        assert!(truthful, "{found}");
    }
    match answer {
        Some(answer) if answer["ok"] == true => {
            let index = usize::try_from(answer["receipt"]["index"].as_u64().expect("a receipt"));
            let record = &records[index.expect("an index")];
            assert_eq!(record["metadata"]["result"], "ok", "{found}");
        }
        Some(answer) => assert_eq!(answer["code"], "internal", "{found}"),
        None => {}
    }
    // The new life of keys sweeps before it works.
    wait_for(|| (world.unfinished() == 0).then_some(()));
    verify_ledger(world);
}

fn open_intents(records: &[Value]) -> Vec<&Value> {
    let closed = |op: &Value| {
        let closes = |r: &&Value| r["phase"] == "outcome" && r["op_id"] == *op;
        records.iter().filter(closes).count() == 1
    };
    let intents = records.iter().filter(|record| record["phase"] == "intent");
    intents.filter(|intent| !closed(&intent["op_id"])).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_rule_that_is_half_there_when_net_dies_is_completed_or_removed_by_the_same_request() {
    let params = json!({"port": 4711, "comment": "half"});
    let open = json!({"action": "iptables-open", "params": params});
    let close = json!({"action": "iptables-close", "params": params});
    let rules = |agent: &Agent| {
        ["iptables-save", "ip6tables-save"].map(|tool| in_namespace(agent, &[tool], "4711"))
    };
    let step = ("net", "net-rule-added", "IPv4");
    let (agent, answer) = killed_at("", World::new(""), step, &open);
    assert_eq!(answer["code"], "internal", "{answer}");
    assert_eq!(
        rules(&agent).iter().sum::<usize>(),
        1,
        "killed between the two"
    );
    assert_eq!(agent.client().call(&open)["ok"], true);
    assert_eq!(rules(&agent), [1, 1], "one rule each");
    assert_eq!(agent.client().call(&close)["ok"], true);
    assert_eq!(rules(&agent), [0, 0]);
    drop(agent);

    let step = ("net", "net-rule-removed", "");
    let mut agent = armed(World::new(""), "net stop net-rule-removed IPv4");
    assert_eq!(agent.client().call(&open)["ok"], true);
    let mut client = agent.client();
    client.request(&close);
    wait_for(|| agent.world.log().contains(step.1).then_some(()));
    let old = agent.pid("net").expect("net");
    signal_process(old, Signal::KILL);
    agent.wait_for_new("net", old);
    agent.wait_until_ready();
    assert_eq!(client.answer().expect("an answer")["code"], "internal");
    assert_eq!(
        rules(&agent).iter().sum::<usize>(),
        1,
        "killed between the two"
    );
    assert_eq!(agent.client().call(&close)["ok"], true, "the other half");
    assert_eq!(rules(&agent), [0, 0]);
    assert_eq!(agent.client().call(&close)["code"], "not_found");
    verify_ledger(&agent.world);
}

#[test]
fn what_was_done_before_its_process_died_is_closed_as_internal_and_can_be_asked_again() {
    let route =
        json!({"action": "ip6-route-add", "params": {"address": "fd77::1/128", "dev": "lo"}});
    let policy = "allow: {route_devices: [lo]}\n";
    let step = ("net", "compartment-done", "ip6-route-add");
    let (agent, answer) = killed_at("ip link set lo up", World::new(policy), step, &route);
    assert_eq!(answer["code"], "internal", "{answer}");
    let routes = |agent: &Agent| in_namespace(agent, &["ip", "-6", "route"], "fd77::1");
    assert_eq!(routes(&agent), 1, "it was done");
    assert_eq!(agent.client().call(&route)["ok"], true);
    assert_eq!(routes(&agent), 1);
    drop(agent);

    let start = json!({"action": "qm-start", "params": {"vmid": 100}});
    let script = r#"echo "$1" >>"$BLOCKHOST_ROOT/var/lib/blockhost/calls""#;
    let step = ("vm", "compartment-done", "qm-start");
    let (agent, answer) = killed_at("", World::with_qm(script, ""), step, &start);
    assert_eq!(answer["code"], "internal", "{answer}");
    let answer = agent.client().call(&start);
    assert_eq!(answer["ok"], true, "the machine's lock is lost: {answer}");
    let calls = read(&agent.world.layout.state().join("calls"));
    assert_eq!(
        calls.lines().filter(|line| *line == "start").count(),
        2,
        "{calls}"
    );
    assert_eq!(open_intents(&agent.world.records()), Vec::<&Value>::new());
}

#[test]
fn a_program_that_is_killed_with_its_compartment_does_not_live_on_and_is_closed_as_internal() {
    let script = r#"case $1 in
start) echo $$ >"$BLOCKHOST_ROOT/var/lib/blockhost/pid"; sleep 1000 ;;
*) echo 'status: stopped' ;;
esac"#;
    let mut agent = Agent::start_in(World::with_qm(script, ""));
    let mut client = agent.client();
    client.request(&json!({"action": "qm-start", "params": {"vmid": 100}}));
    let pid_file = agent.world.layout.state().join("pid");
    let program: i32 = wait_for(|| std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok());
    let old = agent.pid("vm").expect("vm");
    signal_process(old, Signal::KILL);
    assert_eq!(client.answer().expect("an answer")["code"], "internal");
    wait_for(|| (!alive(program)).then_some(()));
    agent.wait_for_new("vm", old);
    agent.wait_until_ready();
    let status = json!({"action": "qm-status", "params": {"vmid": 100}});
    assert_eq!(
        agent.client().call(&status)["ok"],
        true,
        "the machine's lock is lost"
    );
    verify_ledger(&agent.world);
}

#[test]
fn a_disk_that_fails_to_sync_stops_all_actions_until_the_ledger_is_opened_again() {
    let mut agent = armed(World::new(""), "ledger refuse ledger-sync");
    let etc = agent.world.layout.etc();
    for name in ["one", "two"] {
        let answer = agent
            .client()
            .call(&json!({"action": "generate-wallet", "params": {"name": name}}));
        assert_eq!(answer["code"], "failed", "{answer}");
        assert!(
            answer["error"]
                .as_str()
                .expect("text")
                .contains("nothing was executed"),
            "{answer}"
        );
        assert!(
            !etc.join(format!("{name}.key")).exists(),
            "{name} was made unrecorded"
        );
    }
    assert_eq!(
        agent.client().call(&json!({"action": "agent-info"}))["ok"],
        true
    );
    // A restart by an operator: the next life of the ledger reads what is really there.
    let old = agent.pid("ledger").expect("ledger");
    signal_process(old, Signal::KILL);
    agent.wait_for_new("ledger", old);
    agent.wait_until_ready();
    assert_eq!(agent.client().call(&wallet())["ok"], true);
    let records = agent.world.records();
    assert_eq!(open_intents(&records), Vec::<&Value>::new());
    let unknown = records
        .iter()
        .filter(|r| r["metadata"]["result"] == "unknown");
    assert!(
        unknown.count() <= 1,
        "only what was written before the refusal can be there"
    );
    verify_ledger(&agent.world);
}

/// An agent whose ledger is on a small disk of its own, and where that is. A machine's start ends when it is told to.
fn agent_on_a_small_disk() -> (Agent, String) {
    let script = r#"case $1 in
start) touch "$BLOCKHOST_ROOT/var/lib/blockhost/began-$2"
  until [ -e "$BLOCKHOST_ROOT/var/lib/blockhost/go-$2" ]; do sleep 0.02; done ;;
*) echo 'status: stopped' ;;
esac"#;
    let world = World::with_qm(script, "");
    let ledger = world.layout.ledger();
    std::fs::create_dir_all(&ledger).expect("a directory");
    let mount = format!(
        "mount -t tmpfs -o size=3m,mode=750 none '{}'",
        ledger.display()
    );
    let agent = Agent::start_wrapped(world, &mount);
    let inside = format!("/proc/{}/root{}", agent.supervisor(), ledger.display());
    (agent, inside)
}

/// The start of a machine that has begun and does not end by itself.
fn slow_start(agent: &Agent, vmid: u32) -> Client {
    let mut client = agent.client();
    client.request(&json!({"action": "qm-start", "params": {"vmid": vmid}}));
    let began = agent.world.layout.state().join(format!("began-{vmid}"));
    wait_for(|| began.exists().then_some(()));
    client
}

fn finishes_with_its_outcome(agent: &Agent, vmid: u32, slow: &mut Client) {
    let go = agent.world.layout.state().join(format!("go-{vmid}"));
    std::fs::write(go, "").expect("written");
    let answer = slow.answer().expect("an answer");
    assert_eq!(answer["ok"], true, "{answer}");
    assert!(
        answer["receipt"]["index"].is_u64(),
        "the room for outcomes was kept: {answer}"
    );
}

/// What is preallocated may still be used; then there is an end.
fn refused_wallet(agent: &Agent) -> (String, Value) {
    let refused = (0..20_000).find_map(|number| {
        let name = format!("full-{number}");
        let answer = agent
            .client()
            .call(&json!({"action": "generate-wallet", "params": {"name": name}}));
        (answer["ok"] != true).then_some((name, answer))
    });
    refused.expect("the disk is full at last")
}

#[test]
fn what_is_refused_on_a_full_disk_takes_no_room_of_outcomes_and_fills_no_log() {
    let (agent, inside) = agent_on_a_small_disk();
    let mut slow: Vec<(u32, Client)> = (100..104)
        .map(|vmid| (vmid, slow_start(&agent, vmid)))
        .collect();
    fill(&Path::new(&inside).join("filler"));
    refused_wallet(&agent);
    // There is nothing to prune. Its intents and outcomes would fill the room for outcomes many times.
    let mut root = agent.client();
    let size = || agent.client().call(&json!({"action": "agent-info"}))["ledger"]["size"].clone();
    let params = json!({"before": 5000, "reason": "a test"});
    let prune = json!({"action": "ledger-prune", "params": params});
    while root.call(&prune).get("receipt").is_some() {}
    let before = size();
    for _ in 0..1000 {
        let answer = root.call(&prune);
        assert_eq!(answer["code"], "not_found", "{answer}");
        assert!(answer.get("receipt").is_none(), "{answer}");
    }
    assert_eq!(size(), before);
    // Each outcome is recorded and each new action refused: that is one trouble, not many.
    for (vmid, client) in &mut slow {
        finishes_with_its_outcome(&agent, *vmid, client);
        let wallet = json!({"action": "generate-wallet", "params": {"name": "none"}});
        assert_eq!(agent.client().call(&wallet)["code"], "failed");
    }
    let log = agent.world.log();
    let said = log.lines().filter(|line| line.contains("no space for"));
    // Once at first, and once a minute.
    assert!(said.count() <= 3, "{log}");
    assert!(!log.contains("recording again"), "{log}");
}

#[test]
fn a_full_disk_refuses_actions_keeps_outcomes_and_is_over_when_there_is_space() {
    let (agent, inside) = agent_on_a_small_disk();
    let mut slow = slow_start(&agent, 100);
    let filler = Path::new(&inside).join("filler");
    fill(&filler);
    let (name, answer) = refused_wallet(&agent);
    assert_eq!(answer["code"], "failed", "{answer}");
    assert!(
        !agent
            .world
            .layout
            .etc()
            .join(format!("{name}.key"))
            .exists()
    );
    finishes_with_its_outcome(&agent, 100, &mut slow);
    std::fs::remove_file(&filler).expect("removed");
    assert_eq!(
        agent.client().call(&wallet())["ok"],
        true,
        "space is noticed"
    );
    let directory = LedgerDir::open(Path::new(&inside)).expect("the ledger");
    let trust = Trust::default();
    let report = verify(&directory, &trust, &mut |_, _| ()).expect("readable");
    assert!(report.ok, "{:?}", report.problems);
}

fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).expect("a file");
    let block = [0x55u8; 4096];
    while file.write_all(&block).is_ok() {}
}

#[test]
fn no_program_that_is_packaged_has_fail_points() {
    #[expect(clippy::disallowed_methods, reason = "asks cargo for the tree")]
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "-e",
            "normal,build",
            "--prefix",
            "none",
            "--offline",
            "--locked",
        ])
        .args(["--workspace", "-f", "{p} [{f}]", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .output()
        .expect("cargo");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(
        output.status.success() && text.contains("blockhost-root-agent"),
        "{text}"
    );
    let with: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("fail-points"))
        .collect();
    assert!(with.is_empty(), "{with:?}");
    // The agent of these tests has them: the line above would see it.
    let bytes = std::fs::read(env!("CARGO_BIN_EXE_blockhost-root-agent")).expect("the agent");
    let marker = b"blockhost fail point";
    assert!(bytes.windows(marker.len()).any(|window| window == marker));
}
