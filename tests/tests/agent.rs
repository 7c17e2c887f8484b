//! The real agent, started as on a host, against clients that mean it no good. Everything is looked at from outside:
//! sockets, routing table, files, the ledger.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blockhost_proto::corpus::{Hostile, hostile_requests};
use blockhost_tests::command::{command, run, with_args};
use blockhost_tests::namespace::test_ran_inside;
use blockhost_tests::world::services::{Service, start_agent};
use blockhost_tests::world::{AGENT_ONLY, World, built_programs};
use rustix::process::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(240);

fn init() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_blockhost-world-init"))
}

/// A world with a running agent, or `None` in the outer process, where the test has run already.
struct Ground {
    world: World,
    agent: Service,
    _dir: tempfile::TempDir,
}

fn ground(test: &str) -> Option<Ground> {
    if test_ran_inside(test, &init(), LIMIT) {
        return None;
    }
    let dir = tempfile::Builder::new()
        .prefix("blockhost-agent-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    let world = World::create(dir.path(), &built_programs(), AGENT_ONLY).expect("a world");
    world.network().expect("a bridge");
    let agent = start_agent(&world).expect("the agent starts");
    Some(Ground {
        world,
        agent,
        _dir: dir,
    })
}

fn connect(world: &World) -> UnixStream {
    let stream = UnixStream::connect(world.layout.agent_socket()).expect("the agent accepts");
    stream
        .set_read_timeout(Some(Duration::from_secs(120)))
        .expect("a time limit");
    stream
}

fn read_answer(stream: &mut UnixStream) -> std::io::Result<Value> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let mut body = vec![0; u32::from_be_bytes(header) as usize];
    stream.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body).expect("the agent answers JSON"))
}

fn ask(stream: &mut UnixStream, request: &Value) -> Value {
    let body = request.to_string();
    stream
        .write_all(&u32::try_from(body.len()).expect("short").to_be_bytes())
        .expect("written");
    stream.write_all(body.as_bytes()).expect("written");
    read_answer(stream).expect("an answer")
}

fn route_add(address: &str) -> Value {
    json!({"action": "ip6-route-add", "params": {"address": address, "dev": "vmbr0"}})
}

fn output(words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    run(with_args(words[0], &words[1..]), Duration::from_secs(10))
        .expect(words[0])
        .stdout
}

/// Everything an action of the catalog could have changed.
fn state_of_the_host(world: &World) -> String {
    let etc = output(&format!(
        "find {} {} -printf %p|%m|%u|%s\\n",
        world.layout.etc().display(),
        world.layout.state().display()
    ));
    // One of the agent's processes makes its own empty directory there, a moment after the agent is ready.
    let mut files: Vec<&str> = etc
        .lines()
        .filter(|line| !line.contains("/unfinished|"))
        .collect();
    files.sort_unstable();
    // The kernel looks a little later whether a link that is up carries anything.
    let links = output("ip -o link");
    let words = links.split_ascii_whitespace();
    let links: Vec<&str> = words
        .filter(|word| !matches!(*word, "UP" | "DOWN" | "UNKNOWN"))
        .collect();
    [
        output("ip -6 route"),
        links.join(" "),
        output("iptables-save"),
        files.join("\n"),
    ]
    .join("\n--\n")
}

fn ledger_records(world: &World) -> Vec<Value> {
    let dir = blockhost_ledger::dir::LedgerDir::open(&world.layout.ledger())
        .expect("the ledger can be opened");
    let reader = blockhost_ledger::reader::Reader::open(dir, None).expect("the ledger can be read");
    reader
        .records(0)
        .map(|item| serde_json::from_slice(&item.expect("a record").1).expect("JSON"))
        .collect()
}

#[test]
fn every_hostile_request_is_refused_with_its_code_and_changes_nothing() {
    let Some(mut ground) =
        ground("every_hostile_request_is_refused_with_its_code_and_changes_nothing")
    else {
        return;
    };
    let mut honest = connect(&ground.world);
    let before = state_of_the_host(&ground.world);
    let mut wrong = Vec::new();
    for Hostile {
        name,
        bytes,
        expected_code,
    } in hostile_requests()
    {
        let mut stream = connect(&ground.world);
        // The agent may close before it has read all of a frame that is too long.
        let _ = stream.write_all(bytes);
        match read_answer(&mut stream) {
            Ok(answer) if answer["ok"] == false && answer["code"] == expected_code.as_str() => {}
            Ok(answer) => wrong.push(format!(
                "{name}: expected {}, got {answer}",
                expected_code.as_str()
            )),
            Err(error) => wrong.push(format!(
                "{name}: expected {}, got {error}",
                expected_code.as_str()
            )),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} answered wrongly:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(
        state_of_the_host(&ground.world),
        before,
        "something was executed"
    );
    assert_eq!(
        ask(&mut honest, &json!({"action": "agent-info"}))["ok"],
        true,
        "an honest connection was harmed"
    );
    ground.agent.check().expect("the agent lives");
    let records = ledger_records(&ground.world);
    let refused = records
        .iter()
        .filter(|record| record["metadata"].to_string().contains("\"bad_"))
        .count();
    assert!(
        refused > 0,
        "no refusal is in the ledger of {} records",
        records.len()
    );
    assert!(
        refused < hostile_requests().len(),
        "refusals are recorded without a limit: {refused}"
    );
}

#[test]
fn an_action_is_in_the_ledger_before_and_after_and_its_receipt_points_there() {
    let Some(ground) =
        ground("an_action_is_in_the_ledger_before_and_after_and_its_receipt_points_there")
    else {
        return;
    };
    let answer = ask(&mut connect(&ground.world), &route_add("fd77:b10c::77/128"));
    assert_eq!(answer["ok"], true, "{answer}");
    assert!(
        output("ip -6 route").contains("fd77:b10c::77 dev vmbr0"),
        "the route is not in the kernel"
    );
    let records = ledger_records(&ground.world);
    let of = |phase: &str| {
        records
            .iter()
            .position(|record| record["action"] == "ip6-route-add" && record["phase"] == phase)
            .expect(phase)
    };
    let (intent, outcome) = (of("intent"), of("outcome"));
    assert!(intent < outcome);
    assert_eq!(records[intent]["op_id"], records[outcome]["op_id"]);
    assert_eq!(answer["receipt"]["index"], json!(outcome), "{answer}");
    assert_eq!(records[intent]["user"], "root");
}

#[test]
fn a_group_member_that_no_rule_names_is_forbidden_everything() {
    let Some(ground) = ground("a_group_member_that_no_rule_names_is_forbidden_everything") else {
        return;
    };
    let script = "import socket,struct,sys\n\
        s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
        b=sys.argv[2].encode(); s.sendall(struct.pack('>I',len(b))+b)\n\
        n=struct.unpack('>I',s.recv(4))[0]; d=b''\n\
        while len(d)<n: d+=s.recv(n-len(d))\n\
        print(d.decode())";
    for request in [
        route_add("fd77:b10c::78/128"),
        json!({"action": "agent-info"}),
        json!({"action": "qm-list"}),
    ] {
        let mut client = command("setpriv");
        client
            .args([
                "--reuid=65534",
                "--regid=blockhost",
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
                script,
            ])
            .arg(ground.world.layout.agent_socket())
            .arg(request.to_string());
        let answer = run(client, Duration::from_secs(20))
            .expect("connects, being of the group")
            .stdout;
        assert!(answer.contains("\"forbidden\""), "{request}: {answer}");
    }
    assert!(
        !output("ip -6 route").contains("fd77:b10c::78"),
        "a stranger's route was made"
    );
    let mut stranger = command("setpriv");
    stranger
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            script,
        ])
        .arg(ground.world.layout.agent_socket())
        .arg("{}");
    run(stranger, Duration::from_secs(20)).expect_err("nobody outside the group may connect");
}

#[test]
fn sixty_stalled_clients_do_not_keep_another_from_its_answer() {
    let Some(ground) = ground("sixty_stalled_clients_do_not_keep_another_from_its_answer") else {
        return;
    };
    let stalled: Vec<UnixStream> = (0..60)
        .map(|_| {
            let mut stream = connect(&ground.world);
            stream
                .write_all(&(1_u32 << 20).to_be_bytes())
                .expect("announced");
            stream.write_all(b"{\"action\":").expect("begun");
            stream
        })
        .collect();
    let mut honest = connect(&ground.world);
    for number in 1..=20 {
        let answer = ask(
            &mut honest,
            &route_add(&format!("fd77:b10c::5:{number:x}/128")),
        );
        assert_eq!(answer["ok"], true, "{answer}");
        // Whoever had to wait for them to be given up would hear nothing before they do.
        if number == 1 {
            let told = |stream: &UnixStream| {
                stream.set_nonblocking(true).expect("a mode");
                let mut peek = stream;
                let silent = peek
                    .read(&mut [0; 1])
                    .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
                stream.set_nonblocking(false).expect("a mode");
                !silent
            };
            let told = stalled.iter().filter(|stream| told(stream)).count();
            assert_eq!(told, 0, "it was answered after them");
        }
    }
    // A started frame has its time; then its sender is told and closed.
    for mut stream in stalled {
        let ended = match read_answer(&mut stream) {
            Ok(answer) => answer["ok"] == false,
            Err(error) => error.kind() == std::io::ErrorKind::UnexpectedEof,
        };
        assert!(ended, "a stalled client is still served");
    }
}

#[test]
fn a_killed_agent_starts_again_and_its_ledger_still_verifies() {
    let Some(mut ground) = ground("a_killed_agent_starts_again_and_its_ledger_still_verifies")
    else {
        return;
    };
    for round in 0..3 {
        // Killed while requests are under way.
        let mut stream = connect(&ground.world);
        for number in 0..50 {
            let body = route_add(&format!("fd77:b10c::{round}:{number:x}/128")).to_string();
            stream
                .write_all(&u32::try_from(body.len()).expect("short").to_be_bytes())
                .expect("written");
            stream.write_all(body.as_bytes()).expect("written");
        }
        ground.agent.kill();
        wait_until_alone();
        ground.agent = start_agent(&ground.world).expect("it starts again over what it left");
    }
    let records = ledger_records(&ground.world);
    for intent in records.iter().filter(|record| record["phase"] == "intent") {
        let closed = records
            .iter()
            .any(|record| record["phase"] == "outcome" && record["op_id"] == intent["op_id"]);
        assert!(closed, "an intent without outcome: {intent}");
    }
    verify(&ground.world);
}

/// The processes of a killed supervisor end by themselves.
fn wait_until_alone() {
    let end = Instant::now() + Duration::from_secs(120);
    while output("ps -eo comm")
        .lines()
        .any(|comm| comm.starts_with("blockhost-root"))
    {
        assert!(
            Instant::now() < end,
            "processes of the agent outlive their supervisor"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn verify(world: &World) {
    let dir = blockhost_ledger::dir::LedgerDir::open(&world.layout.ledger())
        .expect("the ledger can be opened");
    let trust = blockhost_ledger::verify::Trust::default();
    let report =
        blockhost_ledger::verify::verify(&dir, &trust, &mut |_, _| ()).expect("it can be read");
    assert!(report.ok, "{:?}", report.problems);
}

#[test]
fn sigterm_removes_the_socket_and_ends_every_process() {
    let Some(mut ground) = ground("sigterm_removes_the_socket_and_ends_every_process") else {
        return;
    };
    let socket = ground.world.layout.agent_socket();
    assert!(Path::new(&socket).exists());
    let status = ground
        .agent
        .stop(Duration::from_secs(40))
        .expect("it ends in time")
        .expect("a status");
    assert!(status.success(), "it ended with {status}");
    assert!(!socket.exists(), "the socket is left behind");
    wait_until_alone();
    verify(&ground.world);
}

#[test]
fn a_policy_that_is_damaged_at_a_reload_leaves_the_old_one_in_force() {
    let Some(mut ground) =
        ground("a_policy_that_is_damaged_at_a_reload_leaves_the_old_one_in_force")
    else {
        return;
    };
    let policy = ground.world.layout.agent_policy();
    let path = ground.agent.log().to_owned();
    std::fs::write(&policy, "rulez: [}\n").expect("written");
    ground.agent.signal(Signal::HUP);
    let log = || std::fs::read_to_string(&path).expect("a log");
    ground
        .agent
        .wait_until("refusing it", Duration::from_secs(20), || {
            log().contains("was not changed")
        })
        .expect("the agent lives and says so");
    assert_eq!(
        ask(
            &mut connect(&ground.world),
            &json!({"action": "agent-info"})
        )["ok"],
        true
    );
    let log = log();
    assert!(
        log.contains("root-agent.yaml"),
        "the log does not name the file:\n{log}"
    );
}
