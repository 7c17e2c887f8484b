//! Crashes, signals, restarts and sockets: the agent comes back, the ledger tells the truth.

mod common;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Agent, PATIENCE, World, signal_process, status, wait_for};
use rustix::process::Signal;
use serde_json::json;

fn info() -> serde_json::Value {
    json!({"action": "agent-info"})
}

#[test]
fn every_process_that_is_killed_comes_back_and_works() {
    let mut agent = Agent::start("");
    for role in [
        "net", "ovs", "keys", "vm", "image", "attach", "front", "ledger",
    ] {
        let old = agent.pid(role).expect(role);
        signal_process(old, Signal::KILL);
        agent.wait_for_new(role, old);
        agent.wait_until_ready();
        for (name, action) in [
            ("keys", "generate-wallet"),
            ("vm", "qm-list"),
            ("net", "iptables-close"),
        ] {
            let params = match action {
                "generate-wallet" => json!({"name": format!("after-{role}")}),
                "iptables-close" => json!({"port": 80, "comment": "x"}),
                _ => json!({}),
            };
            let answer = agent
                .client()
                .call(&json!({"action": action, "params": params}));
            assert!(
                answer["receipt"]["index"].is_u64(),
                "{name} after {role} was killed: {answer}"
            );
        }
    }
    let records = agent.world.records();
    for role in ["net", "ovs", "keys", "vm", "image", "attach"] {
        let resource = format!("agent:{role}");
        let lost = records
            .iter()
            .any(|r| r["action"] == "compartment-lost" && r["resource"] == resource.as_str());
        assert!(lost, "the death of {role} is on record");
    }
}

#[test]
fn after_the_whole_agent_is_killed_the_next_one_starts_over_the_stale_socket() {
    let mut agent = Agent::start("");
    assert_eq!(
        agent
            .client()
            .call(&json!({"action": "generate-wallet", "params": {"name": "a"}}))["ok"],
        true
    );
    agent.signal(Signal::KILL);
    agent.wait();
    assert!(
        agent.world.layout.agent_socket().exists(),
        "a killed agent cannot clean up"
    );
    let world = agent.into_world();
    let agent = Agent::start_in(world);
    let size = agent.client().call(&info())["ledger"]["size"]
        .as_u64()
        .expect("a size");
    assert!(size >= 2, "the records of the first life are there");
}

#[test]
fn sigterm_ends_in_order_and_leaves_no_socket() {
    let mut agent = Agent::start("");
    let answer = agent.client().call(&json!({"action": "qm-list"}));
    assert!(answer["receipt"]["index"].is_u64(), "{answer}");
    assert!(agent.stop().success(), "{}", agent.world.log());
    assert!(!agent.world.layout.agent_socket().exists());
    assert!(
        agent.world.layout.ledger().join("checkpoint").exists(),
        "the head is published"
    );
}

#[test]
fn a_second_agent_does_not_take_a_live_socket() {
    let agent = Agent::start("");
    let output = agent
        .world
        .command()
        .stderr(Stdio::piped())
        .output()
        .expect("run");
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("another agent answers there"), "{text}");
    assert_eq!(
        agent.client().call(&info())["ok"],
        true,
        "the first one is unharmed"
    );
}

#[test]
fn a_file_in_the_sockets_place_is_not_removed() {
    let world = World::new("");
    std::fs::write(world.layout.agent_socket(), "precious").expect("write");
    let output = world
        .command()
        .stderr(Stdio::piped())
        .output()
        .expect("run");
    assert!(!output.status.success());
    assert_eq!(
        std::fs::read_to_string(world.layout.agent_socket()).expect("still there"),
        "precious"
    );
}

#[test]
fn a_start_waits_for_what_a_killed_agent_has_left_to_go() {
    let world = World::new("");
    // Its front, which answers until it hears that the supervisor is dead.
    let going = UnixListener::bind(world.layout.agent_socket()).expect("bind");
    let mut agent = Agent::spawn_in(world);
    std::thread::sleep(Duration::from_secs(1));
    drop(going);
    agent.wait_until_ready();
    assert!(agent.stop().success(), "{}", agent.world.log());
}

#[test]
fn a_passed_socket_is_used_and_left_alone() {
    let world = World::new("");
    let path = world.layout.agent_socket();
    let listener = UnixListener::bind(&path).expect("bind");
    // A shell moves the socket to descriptor 3 and names its own pid, as systemd does before it executes. It gets it as its
    // standard input: no other test's programs inherit it, whatever its number is here.
    #[expect(
        clippy::disallowed_methods,
        reason = "the test starts the program under test"
    )]
    let mut command = Command::new("sh");
    let script = format!(
        "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec '{}' run",
        env!("CARGO_BIN_EXE_blockhost-root-agent")
    );
    let log = std::fs::File::create(world.log_path()).expect("log");
    command
        .args(["-c", &script])
        .env("BLOCKHOST_ROOT", world.layout.root())
        .stdin(std::os::fd::OwnedFd::from(listener))
        .stderr(log);
    let mut child = command.spawn().expect("sh");
    drop(command);
    let mut client =
        common::Client::on(std::os::unix::net::UnixStream::connect(&path).expect("connect"));
    let answer = client.try_call(&info());
    signal_process(i32::try_from(child.id()).expect("pid"), Signal::TERM);
    let status = wait_for(|| child.try_wait().expect("wait"));
    assert_eq!(answer.expect("an answer")["ok"], true, "{}", world.log());
    assert!(status.success(), "{}", world.log());
    assert!(path.exists(), "systemd's socket stays");
}

#[test]
fn a_reload_takes_a_good_policy_and_refuses_a_bad_one() {
    let agent = Agent::start("");
    let mut client = agent.client();
    let dry = json!({"action": "qm-start", "params": {"vmid": 500}, "dry_run": true});
    assert_eq!(client.call(&dry)["ok"], true);
    agent
        .world
        .write_policy("allow: {vmids: {first: 100, last: 199}}\n");
    agent.signal(Signal::HUP);
    wait_for(|| (client.call(&dry)["code"] == "forbidden").then_some(()));
    agent.world.write_policy("allow: {vmid: 5}\n");
    agent.signal(Signal::HUP);
    wait_for(|| {
        agent
            .world
            .log()
            .contains("the policy was not changed")
            .then_some(())
    });
    assert!(agent.world.log().contains("vmid"), "the key is named");
    assert_eq!(
        client.call(&dry)["code"],
        "forbidden",
        "the old policy is in force"
    );
}

#[test]
fn an_unknown_policy_key_stops_the_start_with_its_name() {
    let world = World::new("bridgez: [vmbr0]\n");
    let output = world
        .command()
        .stderr(Stdio::piped())
        .output()
        .expect("run");
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("bridgez"), "{text}");
    assert!(!world.layout.agent_socket().exists());
}

#[test]
fn a_policy_too_long_to_be_handed_on_is_refused_whole_and_kept_out_at_reload() {
    let long = format!("allow: {{bridges: [vmbr0{}]}}\n", ", vmbr0".repeat(10_000));
    // Short as a file: an alias stands for a list.
    let names = "[vmbr0".to_owned() + &", vmbr0".repeat(500) + "]";
    let rule = "- {user: 0, actions: ['*'], only: {bridges: *b}}\n";
    let unfolded = format!(
        "allow: {{bridges: &b {names}}}\nrules:\n- {{user: 0, actions: ['*']}}\n{}",
        rule.repeat(40)
    );
    let agent = Agent::start("");
    let front = agent.pid("front");
    for (number, policy) in (1..).zip([long, unfolded]) {
        agent.world.write_policy(&policy);
        agent.signal(Signal::HUP);
        let refused = || agent.world.log().matches("was not changed").count();
        wait_for(|| (refused() == number).then_some(()));
        assert_eq!(agent.pid("front"), front, "nobody was killed for it");
        assert_eq!(agent.client().call(&info())["ok"], true);
    }
    assert!(
        agent.world.log().contains("write fewer rules"),
        "{}",
        agent.world.log()
    );
}

#[test]
fn a_policy_that_others_may_write_stops_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new("");
    std::fs::set_permissions(
        world.layout.agent_policy(),
        PermissionsExt::from_mode(0o666),
    )
    .expect("mode");
    let output = world
        .command()
        .stderr(Stdio::piped())
        .output()
        .expect("run");
    assert!(!output.status.success());
}

/// A world that an agent was at work in, and whose ledger no crash explains.
fn damaged() -> World {
    let mut agent = Agent::start("");
    for name in ["a", "b", "c"] {
        agent
            .client()
            .call(&json!({"action": "generate-wallet", "params": {"name": name}}));
    }
    assert!(agent.stop().success());
    let world = agent.into_world();
    let log = world.layout.ledger().join("seg/000000000000.log");
    let mut bytes = std::fs::read(&log).expect("the log");
    bytes[200] ^= 1;
    std::fs::write(&log, bytes).expect("write");
    world
}

#[test]
fn the_start_fails_with_the_ledgers_reason_also_when_the_others_notice_its_end_first() {
    let world = damaged();
    // It has let go of the others and says why a moment later.
    let armed = world.layout.root().join("fail-point");
    std::fs::write(&armed, "ledger refuse ledger-refused").expect("written");
    let output = world
        .command()
        .stderr(Stdio::piped())
        .output()
        .expect("run");
    assert!(!output.status.success() && !armed.exists());
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("ledger did not start"), "{text}");
}

#[test]
fn a_damaged_ledger_stops_the_start() {
    let world = damaged();
    let output = world
        .command()
        .stderr(Stdio::piped())
        .output()
        .expect("run");
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("ledger"), "{text}");
    assert!(
        !world.layout.agent_socket().exists(),
        "the socket is not left behind"
    );
}

#[test]
fn systemd_is_told() {
    let world = World::new("");
    let path = world.layout.root().join("notify");
    let notify = std::os::unix::net::UnixDatagram::bind(&path).expect("bind");
    notify.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut command = world.command();
    let log = std::fs::File::create(world.log_path()).expect("log");
    let mut child = command
        .env("NOTIFY_SOCKET", &path)
        .stderr(log)
        .spawn()
        .expect("run");
    let hear = || {
        let mut buffer = [0; 256];
        let n = notify.recv(&mut buffer).expect("a message");
        std::str::from_utf8(&buffer[..n]).expect("text").to_owned()
    };
    let pid = i32::try_from(child.id()).expect("pid");
    assert_eq!(hear(), "READY=1");
    signal_process(pid, Signal::HUP);
    assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(hear(), "READY=1");
    signal_process(pid, Signal::TERM);
    assert_eq!(hear(), "STOPPING=1");
    assert!(wait_for(|| child.try_wait().expect("wait")).success());
}

#[test]
fn a_damaged_ledger_keeps_the_agent_shut_until_root_accepts_exactly_what_is_lost() {
    use blockhost_ledger::dir::LedgerDir;
    use blockhost_ledger::loss::{Loss, REQUEST, look};
    let mut agent = Agent::start("");
    for n in 0..20 {
        let event = json!({"action": "ledger-append", "params": {"category": "chain", "action": "e", "data": {"n": n}}});
        assert_eq!(agent.client().call(&event)["ok"], true);
    }
    assert!(agent.stop().success(), "{}", agent.world.log());
    let world = agent.into_world();
    let log = world.layout.ledger().join("seg/000000000000.log");
    let mut bytes = std::fs::read(&log).expect("the log");
    bytes[8000] ^= 1;
    std::fs::write(&log, &bytes).expect("written");
    let refused = |world: &World| {
        let output = world
            .command()
            .stderr(Stdio::piped())
            .output()
            .expect("run");
        assert!(!output.status.success());
        String::from_utf8(output.stderr).expect("text")
    };
    let text = refused(&world);
    assert!(text.contains("accept-loss"), "{text}");
    let directory = LedgerDir::open(&world.layout.ledger()).expect("the ledger");
    let vkey = std::fs::read_to_string(world.layout.ledger().join("vkey")).expect("the key");
    let key = blockhost_ledger::note::Vkey::parse(vkey.trim()).expect("a key");
    let intact = look(&directory, Some(&key)).expect("readable");
    assert!(intact.fault.is_some() && intact.size > 1, "{intact:?}");
    let keys = world.layout.ledger_keys();
    let wrong = Loss::new(intact.size - 1, intact.root, "a test", 1).expect("good");
    wrong.store(&keys).expect("stored");
    let text = refused(&world);
    assert!(text.contains("cannot be carried out"), "{text}");
    assert!(
        keys.join(REQUEST).exists(),
        "a request that was refused is kept for root to mend"
    );
    assert_eq!(
        std::fs::read(&log).expect("the log"),
        bytes,
        "and nothing was changed"
    );
    let right = Loss::new(intact.size, intact.root, "a test", 2).expect("good");
    right.store(&keys).expect("stored");
    let agent = Agent::start_in(world);
    assert!(!keys.join(REQUEST).exists(), "it is consumed");
    let records = agent.world.records();
    let record = &records[usize::try_from(intact.size).expect("small")];
    assert_eq!(
        (
            &record["action"],
            &record["phase"],
            &record["metadata"]["reason"],
            &record["metadata"]["request"]
        ),
        (
            &"ledger-accept-loss".into(),
            &"recovery".into(),
            &"a test".into(),
            &right.id.clone().into()
        )
    );
    let aside = world_file(&agent, "seg/lost-2.000000000000.log");
    assert_eq!(aside, bytes, "what was given up is set aside");
    assert_eq!(agent.client().call(&info())["ok"], true);
}

fn world_file(agent: &Agent, name: &str) -> Vec<u8> {
    std::fs::read(agent.world.layout.ledger().join(name)).expect(name)
}

/// The child's end of its control socket, as the child has it: the only one of its sockets that keeps messages apart.
fn control_of(pid: i32) -> std::io::Result<OwnedFd> {
    use rustix::net::{SocketType, sockopt::socket_type};
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let pidfd = pidfd_open(Pid::from_raw(pid).expect("a pid"), PidfdFlags::empty())?;
    let own = std::fs::read_dir(format!("/proc/{pid}/fd"))?;
    for number in own.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()) {
        let fd = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty())?;
        if socket_type(&fd) == Ok(SocketType::SEQPACKET) {
            return Ok(fd);
        }
    }
    panic!("{pid} has no control socket");
}

#[test]
fn a_child_that_hangs_up_on_the_supervisor_and_lives_on_is_killed_and_comes_back() {
    let agent = Agent::start("");
    for role in ["keys", "front", "ledger"] {
        let old = agent.pid(role).expect(role);
        let control = match control_of(old) {
            Ok(control) => control,
            Err(error) => {
                println!("skipped: the descriptors of another process are out of reach: {error}");
                return;
            }
        };
        // The supervisor reads its end, and the child notices nothing.
        rustix::net::shutdown(&control, rustix::net::Shutdown::Write).expect("shutdown");
        drop(control);
        agent.wait_for_new(role, old);
        wait_for(|| {
            let answer = agent.client().try_call(&info())?;
            (answer["ok"] == true).then_some(())
        });
        let said = format!("{role} closed its control socket; killed");
        assert!(agent.world.log().contains(&said), "{}", agent.world.log());
    }
}

#[test]
fn a_burst_of_connections_does_not_cost_the_front_its_life() {
    const MANY: u64 = 400;
    let agent = Agent::start("limits: {connections_per_uid: 450, connections: 450}\n");
    let front = agent.pid("front").expect("front");
    let mut crowd: Vec<_> = (0..MANY).map(|_| agent.client()).collect();
    let mut watch = agent.client();
    let before = wait_for(|| {
        let counters = &watch.call(&info())["counters"];
        let open = counters["open_connections"].as_u64()?;
        (open > MANY).then(|| counters["requests"].as_u64())?
    });
    // The supervisor is held up while it is asked who they all are, and then the front while it is told.
    let supervisor = agent.supervisor();
    let state = |pid, letter| wait_for(|| status(pid, "State").starts_with(letter).then_some(()));
    signal_process(supervisor, Signal::STOP);
    state(supervisor, 'T');
    for client in &mut crowd {
        client.request(&json!({"action": "ledger-append",
            "params": {"category": "chain", "action": "marker", "data": {}}}));
    }
    // Each look is a request as well.
    let mut looks = 0;
    wait_for(|| {
        looks += 1;
        let answer = watch.call(&info());
        let asked = answer["counters"]["requests"].as_u64()?;
        (asked >= before + MANY + looks).then_some(())
    });
    signal_process(front, Signal::STOP);
    state(front, 'T');
    // There has to be room for another word, too.
    signal_process(supervisor, Signal::HUP);
    signal_process(supervisor, Signal::CONT);
    wait_for(|| {
        let log = agent.world.log();
        log.contains("policy reloaded").then_some(())
    });
    // It has answered what it was asked when it sleeps again.
    for _ in 0..3 {
        state(supervisor, 'S');
        std::thread::sleep(Duration::from_millis(50));
    }
    signal_process(front, Signal::CONT);
    for client in &mut crowd {
        assert_eq!(client.answer().expect("an answer")["ok"], true);
    }
    assert_eq!(agent.pid("front"), Some(front), "{}", agent.world.log());
}
