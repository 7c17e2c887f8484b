//! The socket under attack: every limit and every rule of the wire, against a real agent.

mod common;

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use blockhost_proto::corpus::hostile_requests;
use common::{Agent, BLOCKHOST, Client, frame, wait_for};
use serde_json::{Value, json};

const INFO: &str = r#"{"action":"agent-info"}"#;
const NOBODY: u32 = 65_534;

fn info() -> Value {
    json!({"action": "agent-info"})
}

#[test]
fn every_hostile_request_is_refused_with_its_code_and_others_are_unharmed() {
    let agent = Agent::start("limits: {refusals_per_minute: 100000}\n");
    let mut bystander = agent.client();
    let mut client = agent.client();
    for hostile in hostile_requests() {
        client.send(&hostile.bytes);
        if hostile.ends_connection() {
            client
                .stream
                .shutdown(std::net::Shutdown::Write)
                .expect("shutdown");
        }
        let answer = client
            .answer()
            .unwrap_or_else(|| panic!("{}: no answer", hostile.name));
        assert_eq!(answer["ok"], false, "{}", hostile.name);
        assert_eq!(
            answer["code"],
            hostile.expected_code.as_str(),
            "{}: {answer}",
            hostile.name
        );
        assert!(
            answer.get("receipt").is_none(),
            "{}: nothing was executed",
            hostile.name
        );
        if hostile.ends_connection() {
            assert!(
                client.is_closed(),
                "{}: the stream cannot be read on",
                hostile.name
            );
            client = agent.client();
        }
        assert_eq!(bystander.call(&info())["ok"], true, "{}", hostile.name);
    }
    // The records may still be on their way: an executed action behind them proves they have arrived.
    let done = bystander.call(&json!({"action": "ledger-append",
        "params": {"category": "chain", "action": "marker", "data": {}}}));
    assert_eq!(done["ok"], true, "{done}");
    let records = agent.world.records();
    let refused = records
        .iter()
        .filter(|record| record["action"] == "request-refused")
        .count();
    assert_eq!(
        refused,
        hostile_requests().len(),
        "each refusal is on record"
    );
    assert!(
        records.iter().all(|record| record["phase"] != "intent"),
        "nothing was executed"
    );
}

#[test]
fn a_stranger_learns_nothing_but_forbidden() {
    let agent = Agent::start("");
    let mut stranger = agent.client_as(NOBODY, BLOCKHOST);
    for request in [
        info(),
        json!({"action": "qm-start", "params": {"vmid": 100}}),
        json!({"action": "no-such-action"}),
        json!({"action": "qm-start", "params": {"vmid": "x"}}),
        json!({"action": "qm-start", "params": {"vmid": 100}, "dry_run": true}),
    ] {
        let answer = stranger.call(&request);
        assert_eq!(answer["code"], "forbidden", "{request} -> {answer}");
    }
    assert!(
        agent
            .world
            .records()
            .iter()
            .all(|record| record["phase"] != "intent")
    );
}

#[test]
fn a_user_with_a_rule_for_one_family_gets_nothing_else() {
    let agent = Agent::start("rules:\n  - user: 65534\n    actions: [\"ledger-*\", agent-info]\n");
    let mut client = agent.client_as(NOBODY, BLOCKHOST);
    assert_eq!(client.call(&info())["ok"], true);
    assert_eq!(
        client.call(&json!({"action": "generate-wallet", "params": {"name": "hot"}}))["code"],
        "forbidden"
    );
    assert_eq!(
        agent.client().call(&info())["code"],
        "forbidden",
        "root has no rule in this policy"
    );
}

#[test]
fn values_outside_the_allowlists_are_forbidden() {
    let agent = Agent::start("allow: {vmids: {first: 100, last: 199}, firewall_ports: [\"80\"]}\n");
    let mut client = agent.client();
    for (action, params) in [
        ("qm-start", json!({"vmid": 200})),
        ("iptables-open", json!({"port": 22, "comment": "x"})),
        (
            "ip6-route-add",
            json!({"address": "fd77::1/128", "dev": "eth0"}),
        ),
        (
            "qm-create",
            json!({"vmid": 100, "name": "a", "args": [["--net0", "virtio,bridge=vmbr7"]]}),
        ),
        (
            "qm-create",
            json!({"vmid": 100, "name": "a", "args": [["--scsi0", "secret:8"]]}),
        ),
        (
            "qm-importdisk",
            json!({"vmid": 100, "disk_path": "/etc/shadow", "storage": "local"}),
        ),
    ] {
        let answer = client.call(&json!({"action": action, "params": params}));
        assert_eq!(answer["code"], "forbidden", "{action}: {answer}");
    }
}

#[test]
fn a_dry_run_does_and_records_nothing() {
    let agent = Agent::start("");
    let mut client = agent.client();
    let answer = client.call(&json!({"action": "generate-wallet", "params": {"name": "hot"}, "dry_run": true, "id": "d"}));
    assert_eq!(
        (&answer["ok"], &answer["id"]),
        (&json!(true), &json!("d")),
        "{answer}"
    );
    assert!(
        answer["output"]
            .as_str()
            .is_some_and(|text| text.contains("keys")),
        "{answer}"
    );
    assert!(!agent.world.layout.etc().join("hot.key").exists());
    assert!(agent.world.records().is_empty());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let agent = Agent::start("");
    let mut client = agent.client();
    let mut bytes = Vec::new();
    for i in 0..20 {
        let request = if i % 3 == 0 {
            // Slower than agent-info: through ledger and compartment.
            json!({"action": "qm-list", "id": i.to_string()})
        } else {
            json!({"action": "agent-info", "id": i.to_string()})
        };
        bytes.extend(frame(request.to_string().as_bytes()));
    }
    client.send(&bytes);
    for i in 0..20 {
        assert_eq!(client.answer().expect("an answer")["id"], i.to_string());
    }
}

#[test]
fn a_request_byte_by_byte_is_a_request() {
    let agent = Agent::start("");
    let mut client = agent.client();
    for byte in frame(INFO.as_bytes()) {
        client.send(&[byte]);
    }
    assert_eq!(client.answer().expect("an answer")["ok"], true);
}

#[test]
fn a_client_that_shuts_its_side_after_writing_gets_its_answer() {
    let agent = Agent::start("");
    let mut client = agent.client();
    client.request(&json!({"action": "qm-list"}));
    client
        .stream
        .shutdown(std::net::Shutdown::Write)
        .expect("shutdown");
    assert!(client.answer().is_some());
    assert!(client.is_closed());
}

#[test]
fn a_frame_over_the_limit_is_refused_before_it_arrives() {
    let agent = Agent::start("limits: {request_bytes: 2048}\n");
    let mut client = agent.client();
    client.send(&2049u32.to_be_bytes());
    assert_eq!(client.answer().expect("an answer")["code"], "bad_frame");
    assert!(client.is_closed());
}

#[test]
fn half_a_frame_is_given_up_after_its_time() {
    let agent = Agent::start("limits: {frame_s: 1}\n");
    let mut client = agent.client();
    let began = Instant::now();
    client.send(&frame(INFO.as_bytes())[..9]);
    let answer = client.answer().expect("an answer");
    assert_eq!(answer["code"], "bad_frame", "{answer}");
    assert!(client.is_closed());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900), "after {took:?}");
}

#[test]
fn a_dripping_client_cannot_stretch_the_time_of_a_frame() {
    let agent = Agent::start("limits: {frame_s: 1}\n");
    let mut client = agent.client();
    client.send(&1000u32.to_be_bytes());
    // Half of it would take longer than anybody is patient here.
    let closed = (0..500).any(|_| {
        use std::io::Write;
        std::thread::sleep(Duration::from_millis(100));
        client.stream.write_all(b" ").is_err()
    });
    assert!(closed, "it was still listening");
}

#[test]
fn an_idle_connection_is_closed_and_an_active_one_is_not() {
    let agent = Agent::start("limits: {idle_s: 2}\n");
    let idle_time = Duration::from_secs(2);
    let mut idle = agent.client();
    let closes = std::thread::spawn(move || idle.is_closed());
    let mut active = agent.client();
    let (mut asked, mut kept_up_to) = (Instant::now(), Duration::ZERO);
    while !closes.is_finished() || kept_up_to < idle_time * 2 {
        let began = Instant::now();
        match active.try_call(&info()) {
            Some(answer) => {
                assert_eq!(answer["ok"], true, "{answer}");
                kept_up_to += began - asked;
            }
            // On a busy machine this test may itself have said nothing for too long.
            None => {
                assert!(asked.elapsed() > idle_time, "it was active");
                active = agent.client();
                kept_up_to = Duration::ZERO;
            }
        }
        asked = Instant::now();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(closes.join().expect("no silence"));
}

#[test]
fn the_connection_past_the_limit_is_told_and_the_others_stay() {
    let agent = Agent::start("limits: {connections_per_uid: 5}\n");
    // The connection by which it was found ready may still be counted for a moment.
    let admitted = || {
        let mut client = agent.client();
        let answer = client.try_call(&info())?;
        (answer["ok"] == true).then_some(client)
    };
    let mut kept: Vec<Client> = (0..5).map(|_| wait_for(admitted)).collect();
    let mut extra = agent.client();
    assert_eq!(extra.answer().expect("a reason")["code"], "busy");
    assert!(extra.is_closed());
    assert!(
        kept.iter_mut()
            .all(|client| client.call(&info())["ok"] == true)
    );
    // Another user is not affected, and a closed connection makes room.
    assert!(
        agent
            .client_as(NOBODY, BLOCKHOST)
            .try_call(&info())
            .is_some()
    );
    kept.pop();
    wait_for(admitted);
}

#[test]
fn one_request_too_many_in_flight_ends_the_connection_after_the_answers() {
    let agent = Agent::start("limits: {in_flight: 4}\n");
    let mut client = agent.client();
    let one = frame(json!({"action": "qm-list"}).to_string().as_bytes());
    client.send(&one.repeat(5));
    for _ in 0..4 {
        // Whether there is a backend here or not: each of them was taken.
        assert_ne!(client.answer().expect("an answer")["code"], "busy");
    }
    assert_eq!(client.answer().expect("the last word")["code"], "busy");
    assert!(client.is_closed());
}

#[test]
fn a_client_that_never_reads_harms_nobody() {
    // Who had to wait for it to be given up would wait for ten minutes.
    let agent = Agent::start("limits: {write_stall_s: 600}\n");
    let deaf = agent.client();
    deaf.stream.set_nonblocking(true).expect("non-blocking");
    let many = frame(INFO.as_bytes()).repeat(1000);
    let mut sent = 0usize;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        use std::io::Write;
        match (&deaf.stream).write(&many) {
            Ok(n) => sent += n,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    assert!(
        sent < 64 << 20,
        "the agent stopped reading at some point, not after {sent} bytes"
    );
    assert_eq!(agent.client().call(&info())["ok"], true);
    let front = agent.pid("front").expect("a front");
    let kilobytes: u64 = common::status(front, "VmRSS")
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("VmRSS");
    assert!(kilobytes < 32 << 10, "{kilobytes} KiB");
}

#[test]
fn stalled_frames_cost_no_memory() {
    let agent = Agent::start("");
    let pids = || {
        let roles = common::ROLES.iter().filter_map(|role| agent.pid(role));
        roles.chain([agent.supervisor()])
    };
    let own = || pids().map(common::own_kib).sum::<u64>();
    let before = own();
    let mut clients: Vec<Client> = (0..60).map(|_| agent.client()).collect();
    for client in &mut clients {
        client.send(&(1u32 << 20).to_be_bytes());
    }
    std::thread::sleep(Duration::from_millis(300));
    let after = own();
    assert!(
        after <= before + (8 << 10),
        "{before} KiB before, {after} KiB with stalled clients"
    );
    let pss = |pid: i32| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
        let text = text.expect("smaps_rollup");
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("a number")
    };
    let all: u64 = pids().map(pss).sum();
    assert!(all <= 24 << 10, "{all} KiB in all");
}

#[test]
fn an_executed_request_has_a_receipt_that_names_its_outcome() {
    let agent = Agent::start("");
    let answer = agent
        .client()
        .call(&json!({"action": "generate-wallet", "params": {"name": "hot"}}));
    assert_eq!(answer["ok"], true, "{answer}");
    let index =
        usize::try_from(answer["receipt"]["index"].as_u64().expect("an index")).expect("small");
    let records = agent.world.records();
    let (intent, outcome) = (&records[index - 1], &records[index]);
    assert_eq!(
        (&intent["phase"], &outcome["phase"]),
        (&json!("intent"), &json!("outcome"))
    );
    assert_eq!(intent["op_id"], outcome["op_id"]);
    assert_eq!(outcome["metadata"]["address"], answer["address"]);
    assert_eq!(outcome["user"], "root");
    assert!(
        outcome["exe"]
            .as_str()
            .is_some_and(|exe| exe.contains("agent_protocol")),
        "{outcome}"
    );
}

#[test]
fn an_event_carries_its_callers_identity_and_cannot_pass_for_the_agents_own() {
    let agent = Agent::start("rules:\n  - user: 65534\n    actions: [ledger-append]\n");
    let mut client = agent.client_as(NOBODY, BLOCKHOST);
    let event = |action: &str| {
        json!({"action": "ledger-append",
        "params": {"category": "chain", "action": action, "data": {"uid": 0, "user": "root"}}})
    };
    assert_eq!(client.call(&event("subscription-seen"))["ok"], true);
    assert_eq!(client.call(&event("qm-start"))["code"], "bad_params");
    assert_eq!(client.call(&event("request-refused"))["ok"], true);
    let records = agent.world.records();
    let seen = records
        .iter()
        .find(|record| record["action"] == "subscription-seen")
        .expect("the event");
    assert_eq!(seen["uid"], NOBODY);
    assert_eq!(seen["phase"], "event");
    let forged = records.iter().filter(|record| {
        record["action"] == "request-refused"
            && record["plugin_id"] == "agent"
            && record["uid"] == NOBODY
    });
    assert_eq!(
        forged.count(),
        1,
        "only the refusal of qm-start is the agent's own"
    );
}

#[test]
fn the_socket_belongs_to_the_group_and_nobody_else() {
    use std::os::unix::fs::MetadataExt;
    let agent = Agent::start("");
    let metadata = std::fs::metadata(agent.world.layout.agent_socket()).expect("the socket");
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o777),
        (0, BLOCKHOST, 0o660)
    );
    let path = agent.world.layout.agent_socket();
    let refused = std::thread::spawn(move || {
        let nobody = rustix::thread::Uid::from_raw(NOBODY);
        let nogroup = rustix::thread::Gid::from_raw(NOBODY);
        rustix::thread::set_thread_groups(&[]).expect("setgroups");
        rustix::thread::set_thread_res_gid(nogroup, nogroup, nogroup).expect("setgid");
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("setuid");
        UnixStream::connect(path).is_err()
    });
    assert!(refused.join().expect("the thread"));
}
