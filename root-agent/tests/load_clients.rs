//! Clients in masses: many, large, slow, dying, flooding. Others are answered all the while, in order, and when it is over
//! every process has the descriptors and threads that it had, and no more memory than a stated bound allows.
//!
//! Nothing here asserts a time. The short form is part of the tests; `BLOCKHOST_ATTACK=long` asks a million times.

mod common;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use common::{Agent, Client, ROLES, World, frame, own_kib, wait_for};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

/// What a process may keep of a storm. glibc gives back what is above twice the largest block that it ever took from the system by
/// itself, and a full frame is in one of up to 2 MiB.
const KEPT_KIB: u64 = 8 << 10;

fn long() -> bool {
    std::env::var_os("BLOCKHOST_ATTACK").is_some_and(|word| word == "long")
}

fn info() -> Value {
    json!({"action": "agent-info"})
}

/// Memory of its own in KiB, descriptors, threads.
type Footprint = BTreeMap<&'static str, (u64, usize, usize)>;

fn footprint(agent: &Agent) -> Footprint {
    let count = |pid: i32, what: &str| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/{what}"));
        entries.map_or(0, Iterator::count)
    };
    let of = |pid: i32| (own_kib(pid), count(pid, "fd"), count(pid, "task"));
    let mut all: Footprint = ROLES
        .iter()
        .map(|&role| (role, of(agent.pid(role).expect(role))))
        .collect();
    all.insert("supervisor", of(agent.supervisor()));
    all
}

/// Waits until descriptors, threads and memory are what they were: a connection's descriptor is closed before its buffers are
/// given back.
fn as_before(agent: &Agent, before: &Footprint) {
    let counts = |all: &Footprint| -> Vec<(usize, usize)> {
        all.values()
            .map(|&(_, fds, threads)| (fds, threads))
            .collect()
    };
    let mut said = false;
    let kept = |after: &Footprint| {
        let mut all = after.iter();
        all.any(|(role, (kib, ..))| *kib > before[role].0 + KEPT_KIB)
    };
    wait_for(|| {
        let after = footprint(agent);
        let same = counts(&after) == counts(before) && !kept(&after);
        if !same && !std::mem::replace(&mut said, true) {
            println!("not yet as before: {before:?}, now {after:?}");
        }
        same.then_some(())
    });
}

/// A client that was there first and never stops asking: every answer has to come, in order.
struct Honest {
    client: Client,
    asked: u64,
}

impl Honest {
    fn new(agent: &Agent) -> Self {
        Self {
            client: agent.client(),
            asked: 0,
        }
    }

    fn asks(&mut self) {
        for _ in 0..3 {
            let id = format!("honest-{}", self.asked);
            self.asked += 1;
            let answer = self.client.call(&json!({"action": "agent-info", "id": id}));
            assert_eq!(answer["ok"], true, "{answer}");
            assert_eq!(answer["id"], id.as_str(), "out of order");
        }
    }
}

fn start(policy: &str) -> (Agent, Honest, Footprint) {
    let agent = Agent::start(policy);
    let mut honest = Honest::new(&agent);
    // What is made at the first use (buffers, an arena) is there before the first look.
    for _ in 0..200 {
        honest.asks();
    }
    let before = footprint(&agent);
    (agent, honest, before)
}

#[test]
fn sixty_clients_with_full_frames_are_all_answered_and_leave_nothing_behind() {
    let (agent, mut honest, before) = start("limits: {frame_s: 600}\n");
    let mut body = info().to_string().into_bytes();
    body.resize(1 << 20, b' ');
    let full = frame(&body);
    let mut clients: Vec<Client> = (0..60).map(|_| agent.client()).collect();
    // In slices, so that all frames are half there at once.
    for slice in full.chunks(128 << 10) {
        for client in &mut clients {
            client.send(slice);
        }
        honest.asks();
    }
    for client in &mut clients {
        assert_eq!(client.answer().expect("an answer")["ok"], true);
    }
    drop(clients);
    honest.asks();
    as_before(&agent, &before);
}

#[test]
fn clients_that_write_byte_by_byte_get_their_answers_and_delay_nobody() {
    let (agent, mut honest, before) = start("limits: {frame_s: 120}\n");
    let mut clients: Vec<Client> = (0..40).map(|_| agent.client()).collect();
    let requests: Vec<Vec<u8>> = (0..clients.len())
        .map(|number| {
            frame(
                json!({"action": "agent-info", "id": number.to_string()})
                    .to_string()
                    .as_bytes(),
            )
        })
        .collect();
    for place in 0..requests.iter().map(Vec::len).max().unwrap_or(0) {
        for (client, request) in clients.iter_mut().zip(&requests) {
            if let Some(byte) = request.get(place) {
                client.send(&[*byte]);
            }
        }
        honest.asks();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = client.answer().expect("an answer");
        assert_eq!(answer["id"], number.to_string(), "{answer}");
    }
    drop(clients);
    as_before(&agent, &before);
}

#[test]
fn ten_thousand_connections_are_turned_away_politely_and_the_first_one_notices_nothing() {
    const MANY: usize = 10_000;
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: Some(MANY as u64 + 500),
        maximum: limit.maximum.map(|most| most.max(MANY as u64 + 500)),
    };
    setrlimit(Resource::Nofile, wanted).expect("descriptors for the clients");
    let (agent, mut honest, before) = start("");
    let path = agent.world.layout.agent_socket();
    let mut crowd = Vec::with_capacity(MANY);
    for number in 0..MANY {
        crowd.push(UnixStream::connect(&path).expect("the listener accepts"));
        if number % 250 == 0 {
            honest.asks();
        }
    }
    // The first of the crowd were let in, the others got one answer and the end.
    let (mut admitted, mut refused) = (0, 0);
    for (number, stream) in crowd.into_iter().enumerate() {
        let mut client = Client::on(stream);
        match client.try_call(&info()) {
            Some(answer) if answer["ok"] == true => admitted += 1,
            Some(answer) => {
                assert_eq!(answer["code"], "busy", "{answer}");
                refused += 1;
            }
            // Closed before the request could be written: the answer was there to read all the same.
            None => match client.answer() {
                Some(answer) => {
                    assert_eq!(answer["code"], "busy", "{answer}");
                    refused += 1;
                }
                None => panic!("connection {number} was dropped without a word"),
            },
        }
        if number % 250 == 0 {
            honest.asks();
        }
    }
    assert!(
        admitted >= 1 && refused > MANY / 2,
        "{admitted} in, {refused} turned away"
    );
    as_before(&agent, &before);
    assert_eq!(agent.client().call(&info())["ok"], true, "room again");
}

#[test]
fn clients_that_die_at_every_byte_in_either_direction_leave_nothing_behind() {
    let (agent, mut honest, before) = start("");
    // One that the front answers by itself, one that goes all the way and back.
    let far = json!({"action": "iptables-close", "params": {"port": 9, "comment": "nobody"}});
    for request in [info(), far] {
        let bytes = frame(request.to_string().as_bytes());
        for cut in 0..=bytes.len() {
            // Gone at once.
            agent.client().send(&bytes[..cut]);
            // Done talking, still listening: an answer that says so, or nothing to say.
            let mut client = agent.client();
            client.send(&bytes[..cut]);
            client.stream.shutdown(Shutdown::Write).expect("shut down");
            let answer = client.answer();
            match cut {
                0 => assert_eq!(answer, None),
                _ if cut < bytes.len() => assert_eq!(answer.expect("told")["code"], "bad_frame"),
                _ => assert!(answer.is_some(), "a whole request is answered"),
            }
            honest.asks();
        }
        let length = {
            let mut client = agent.client();
            client.call(&request).to_string().len() + 4
        };
        for taken in (0..length).step_by(if long() { 1 } else { 7 }) {
            let mut client = agent.client();
            client.send(&bytes);
            client.send(&bytes);
            let mut part = vec![0; taken];
            client
                .stream
                .read_exact(&mut part)
                .expect("a part of the answer");
            drop(client);
            honest.asks();
        }
    }
    as_before(&agent, &before);
}

/// Sends `count` requests with a full window on one connection; every answer has to be the next one.
fn flood(agent: &Agent, count: u64, request: impl Fn(&str) -> Value, judge: impl Fn(&Value)) {
    const WINDOW: u64 = 16;
    let mut client = agent.client();
    let (mut sent, mut heard) = (0, 0);
    while heard < count {
        let mut burst = Vec::new();
        while sent < count && sent - heard < WINDOW {
            burst.extend(frame(request(&sent.to_string()).to_string().as_bytes()));
            sent += 1;
        }
        client.send(&burst);
        while heard < sent {
            let answer = client.answer().expect("an answer");
            assert_eq!(answer["id"], heard.to_string(), "out of order");
            judge(&answer);
            heard += 1;
        }
    }
}

#[test]
fn a_flood_of_requests_is_answered_in_order_and_nothing_grows() {
    let (agent, mut honest, _) = start("");
    let total: u64 = if long() { 1_000_000 } else { 50_000 };
    let flooders = 4;
    let run = |each: u64, honest: &mut Honest| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..flooders)
                .map(|_| {
                    scope.spawn(|| {
                        let request = |id: &str| json!({"action": "agent-info", "id": id});
                        flood(&agent, each, request, |answer| {
                            assert_eq!(answer["ok"], true)
                        });
                    })
                })
                .collect();
            while threads.iter().any(|thread| !thread.is_finished()) {
                honest.asks();
            }
            for thread in threads {
                thread.join().expect("a flooder");
            }
        });
    };
    run(1_000, &mut honest);
    honest.asks();
    let before = footprint(&agent);
    run(total / flooders, &mut honest);
    as_before(&agent, &before);
}

#[test]
fn a_flood_of_recorded_actions_grows_the_ledger_on_disk_and_no_process() {
    let policy = "allow: {route_devices: [lo]}\n";
    let (agent, mut honest, _) = start(policy);
    let total: u64 = if long() { 40_000 } else { 1_500 };
    let run = |count| {
        let request = |id: &str| {
            json!({"action": "ip6-route-del", "id": id,
                "params": {"address": "fd77::9/128", "dev": "lo"}})
        };
        let mut seen = std::collections::BTreeMap::new();
        let judged = std::cell::RefCell::new(&mut seen);
        flood(&agent, count, request, |answer| {
            let code = answer["code"].as_str().unwrap_or("ok").to_owned();
            *judged.borrow_mut().entry(code).or_insert(0u64) += 1;
        });
        seen
    };
    run(300);
    honest.asks();
    let before = footprint(&agent);
    let mut codes = std::collections::BTreeMap::new();
    // Whoever says nothing for minutes is hung up on, also who was there first.
    for _ in 0..total / 500 {
        codes.append(&mut run(500));
        honest.asks();
    }
    // Past its rate a caller is told to wait; what was executed is on record.
    assert!(codes.contains_key("not_found"), "{codes:?}");
    assert!(
        codes
            .keys()
            .all(|code| code == "not_found" || code == "busy"),
        "{codes:?}"
    );
    as_before(&agent, &before);
}

#[test]
fn a_flood_of_nonsense_fills_neither_log_nor_ledger() {
    let (agent, mut honest, before) = start("");
    let total: u64 = if long() { 200_000 } else { 10_000 };
    flood(
        &agent,
        total,
        |id| json!({"action": "no-such-thing", "id": id, "params": {"x": "y\nforged"}}),
        |answer| assert_eq!(answer["ok"], false),
    );
    honest.asks();
    let refusals = || {
        let records = agent.world.records();
        records
            .iter()
            .filter(|r| r["action"] == "request-refused")
            .count()
    };
    let recorded = refusals();
    assert!(
        (1..=200).contains(&recorded),
        "{recorded} refusals on record"
    );
    let log = agent.world.log();
    assert!(log.len() < 256 << 10, "{} bytes of log", log.len());
    assert!(
        !log.lines().any(|line| line.starts_with("forged")),
        "a forged line"
    );
    as_before(&agent, &before);
}

#[test]
fn clients_that_never_read_are_stopped_and_their_answers_do_not_pile_up() {
    let (agent, mut honest, before) = start("limits: {write_stall_s: 1}\n");
    let bytes = frame(info().to_string().as_bytes()).repeat(16);
    let mut clients: Vec<UnixStream> = (0..30)
        .map(|_| {
            let stream = UnixStream::connect(agent.world.layout.agent_socket()).expect("connect");
            stream.set_nonblocking(true).expect("non-blocking");
            stream
        })
        .collect();
    // Until each has been closed in its face, or takes no more.
    let mut rounds = 0;
    while !clients.is_empty() && rounds < 4_000 {
        clients.retain_mut(|stream| match stream.write(&bytes) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        rounds += 1;
        if rounds % 50 == 0 {
            honest.asks();
        }
    }
    let (peak, ..) = footprint(&agent)["front"];
    let (was, ..) = before["front"];
    // Two high-water marks a client, were all of them at it at once.
    assert!(
        peak < was + 30 * (2 << 10) + KEPT_KIB,
        "{was} KiB before, {peak} KiB at most"
    );
    drop(clients);
    as_before(&agent, &before);
}

#[test]
fn a_client_that_reads_nothing_is_closed_however_busily_it_writes() {
    let (agent, mut honest, before) = start("limits: {write_stall_s: 1, frame_s: 600}\n");
    let mut client = agent.client();
    let bytes = frame(info().to_string().as_bytes()).repeat(16);
    // More than a socket holds, less than what makes the agent stop reading. On a slow machine it is closed meanwhile.
    for _ in 0..40 {
        let _ = client.stream.write_all(&bytes);
        honest.asks();
    }
    // A byte of a frame now and then is no sign of life.
    let _ = client.stream.write_all(&1_000_000u32.to_be_bytes());
    wait_for(|| client.stream.write_all(b" ").is_err().then_some(()));
    drop(client);
    as_before(&agent, &before);
}

#[test]
fn a_frame_that_does_not_arrive_is_late_also_for_a_client_that_reads_nothing() {
    let (agent, mut honest, before) = start("limits: {write_stall_s: 600, frame_s: 1}\n");
    let mut client = agent.client();
    for _ in 0..40 {
        client.send(&frame(info().to_string().as_bytes()).repeat(16));
        honest.asks();
    }
    client.send(&1_000_000u32.to_be_bytes());
    let closed = |answer: Option<Value>| answer.is_some_and(|a| a["code"] == "bad_frame");
    wait_for(|| {
        let log = agent.world.log();
        log.contains("did not arrive whole").then_some(())
    });
    assert!((0..=640).any(|_| closed(client.answer())), "it is told so");
    drop(client);
    as_before(&agent, &before);
}

#[test]
fn a_connection_is_idle_also_after_an_answer_that_took_longer_than_it_may_be_idle() {
    let agent = Agent::start_in(World::with_qm("sleep 4", "limits: {idle_s: 3}\n"));
    let mut client = agent.client();
    let started = client.call(&json!({"action": "qm-start", "params": {"vmid": 100}}));
    assert_eq!(started["ok"], true, "{started}");
    // Nobody else comes by whose connection would have it looked at.
    assert_eq!(
        client.stream.read(&mut [0]).expect("no time-out"),
        0,
        "closed"
    );
}
