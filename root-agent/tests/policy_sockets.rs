//! Role sockets: made by the agent or passed by systemd, named by rules, changed by a reload, gone after the end.

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::{Agent, BLOCKHOST, Client, World, signal_process, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

const WATCHER: u32 = 65_001;
const WATCHERS: u32 = 65_100;

const LANE: &str = "sockets: {lane: {group: 65100}}\n\
                    rules: [{user: 0, actions: ['*']}, {socket: lane, actions: [agent-info, qm-list]}]\n";

fn info() -> Value {
    json!({"action": "agent-info"})
}

fn file(world: &World, name: &str) -> PathBuf {
    world.layout.run().join(name)
}

fn at(world: &World, name: &str) -> Client {
    Client::connect_as(file(world, name), WATCHER, WATCHERS, &[]).expect("connect")
}

fn reload(agent: &Agent, policy: &str) {
    let done = || agent.world.log().matches("policy reloaded").count();
    let before = done();
    agent.world.write_policy(policy);
    agent.signal(Signal::HUP);
    wait_for(|| (done() > before).then_some(()));
}

#[test]
fn who_comes_by_a_role_socket_may_what_its_rule_says_and_nothing_else() {
    let agent = Agent::start(LANE);
    let metadata = std::fs::metadata(file(&agent.world, "lane.sock")).expect("made");
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o777),
        (0, WATCHERS, 0o660)
    );
    let mut watcher = at(&agent.world, "lane.sock");
    assert_eq!(watcher.call(&info())["ok"], true);
    let denied = watcher.call(&json!({"action": "generate-wallet", "params": {"name": "hot"}}));
    assert_eq!(denied["code"], "forbidden");
    let listed = watcher.call(&json!({"action": "qm-list"}));
    assert_ne!(listed["code"], "forbidden", "{listed}");
    // The same user by the main socket is a stranger.
    let main = agent.world.layout.agent_socket();
    let mut by_main = Client::connect_as(main, WATCHER, BLOCKHOST, &[]).expect("connect");
    assert_eq!(by_main.call(&info())["code"], "forbidden");
    let refused = Client::connect_as(file(&agent.world, "lane.sock"), WATCHER, BLOCKHOST, &[]);
    assert!(refused.is_err(), "not of the socket's group");
    // A rule without a socket is for its user by any.
    let mut root = Client::on(UnixStream::connect(file(&agent.world, "lane.sock")).expect("root"));
    assert_eq!(
        root.call(&json!({"action": "generate-wallet", "params": {"name": "hot"}}))["ok"],
        true
    );
    let records = agent.world.records();
    let intent = |action: &str| {
        let of_action = |record: &&Value| record["action"] == action && record["phase"] == "intent";
        records.iter().find(of_action).expect("an intent")["metadata"]["right"].clone()
    };
    assert_eq!(
        intent("qm-list"),
        json!({"rule": 2, "gid": WATCHERS, "socket": "lane"})
    );
    assert_eq!(
        intent("generate-wallet"),
        json!({"rule": 1, "gid": 0, "socket": "lane"})
    );
}

#[test]
fn a_reload_opens_moves_and_closes_sockets() {
    let agent = Agent::start("");
    let front = agent.pid("front").expect("front");
    reload(&agent, LANE);
    let mut early = at(&agent.world, "lane.sock");
    assert_eq!(early.call(&info())["ok"], true);
    // Other permissions under the same name: the socket stays the same.
    let inode = |name: &str| {
        std::fs::metadata(file(&agent.world, name))
            .expect("there")
            .ino()
    };
    let before = inode("lane.sock");
    reload(
        &agent,
        "sockets: {lane: {group: 0, mode: '0600'}}\nrules: [{socket: lane, actions: [agent-info]}]\n",
    );
    let metadata = std::fs::metadata(file(&agent.world, "lane.sock")).expect("there");
    assert_eq!((metadata.gid(), metadata.mode() & 0o777), (0, 0o600));
    assert_eq!(inode("lane.sock"), before);
    let shut_out = Client::connect_as(file(&agent.world, "lane.sock"), WATCHER, WATCHERS, &[]);
    assert!(shut_out.is_err(), "not for the group any more");
    assert_eq!(early.call(&info())["ok"], true, "open connections stay");
    // Another file.
    reload(
        &agent,
        "sockets: {lane: {group: 65100, path: other.sock}}\nrules: [{socket: lane, actions: [agent-info]}]\n",
    );
    assert!(!file(&agent.world, "lane.sock").exists());
    assert_eq!(at(&agent.world, "other.sock").call(&info())["ok"], true);
    // None: who came by it is a stranger now.
    reload(&agent, "");
    assert!(!file(&agent.world, "other.sock").exists());
    wait_for(|| (early.call(&info())["code"] == "forbidden").then_some(()));
    assert_eq!(agent.client().call(&info())["ok"], true);
    assert_eq!(
        agent.pid("front"),
        Some(front),
        "nobody had to be killed for it"
    );
}

#[test]
fn a_reload_that_cannot_make_a_socket_changes_nothing() {
    let agent = Agent::start(LANE);
    std::fs::write(file(&agent.world, "taken.sock"), "").expect("file");
    agent.world.write_policy(
        "sockets: {new: {group: 65100}, taken: {group: 65100}}\nrules: [{user: 0, actions: [qm-list]}]\n",
    );
    agent.signal(Signal::HUP);
    wait_for(|| agent.world.log().contains("was not changed").then_some(()));
    assert!(
        agent.world.log().contains("not a socket"),
        "{}",
        agent.world.log()
    );
    assert!(
        !file(&agent.world, "new.sock").exists(),
        "nothing half made"
    );
    assert_eq!(at(&agent.world, "lane.sock").call(&info())["ok"], true);
    assert_eq!(
        agent.client().call(&info())["ok"],
        true,
        "the old rules hold"
    );
}

#[test]
fn sockets_are_gone_after_the_end_and_stale_ones_are_replaced() {
    let mut agent = Agent::start(LANE);
    agent.signal(Signal::KILL);
    agent.wait();
    let lane = file(&agent.world, "lane.sock");
    assert!(lane.exists(), "left behind by a killed agent");
    let mut agent = Agent::start_in(agent.into_world());
    assert_eq!(at(&agent.world, "lane.sock").call(&info())["ok"], true);
    assert!(agent.stop().success());
    assert!(!lane.exists());
    assert!(!agent.world.layout.agent_socket().exists());
    // One that somebody answers on is not taken away.
    let theirs = UnixListener::bind(&lane).expect("bind");
    let output = agent
        .world
        .command()
        .stderr(Stdio::piped())
        .output()
        .expect("run");
    assert!(!output.status.success());
    assert!(lane.exists() && !agent.world.layout.agent_socket().exists());
    drop(theirs);
}

#[test]
fn a_restarted_front_listens_on_all_sockets_again() {
    let agent = Agent::start(LANE);
    let front = agent.pid("front").expect("front");
    signal_process(front, Signal::KILL);
    agent.wait_for_new("front", front);
    assert_eq!(at(&agent.world, "lane.sock").call(&info())["ok"], true);
    assert_eq!(agent.client().call(&info())["ok"], true);
}

/// An agent that is given these listeners as systemd does; empty `names` leaves `LISTEN_FDNAMES` out.
fn activated(world: &World, listeners: &[UnixListener], names: &str) -> Child {
    let mut script = String::new();
    for (place, listener) in (3..).zip(listeners) {
        rustix::io::fcntl_setfd(listener, rustix::io::FdFlags::empty()).expect("inheritable");
        let raw = listener.as_raw_fd();
        assert!(
            raw >= 3 + i32::try_from(listeners.len()).expect("few"),
            "would be overwritten"
        );
        script.push_str(&format!("exec {place}<&{raw}; "));
    }
    let count = listeners.len();
    if !names.is_empty() {
        script.push_str(&format!("export LISTEN_FDNAMES={names}; "));
    }
    script.push_str(&format!(
        "export LISTEN_FDS={count} LISTEN_PID=$$; exec '{}' run",
        env!("CARGO_BIN_EXE_blockhost-root-agent")
    ));
    let log = std::fs::File::create(world.log_path()).expect("log");
    #[expect(
        clippy::disallowed_methods,
        reason = "a shell places the descriptors and names its own pid, as systemd does; dash knows one-digit ones only"
    )]
    let mut command = Command::new("bash");
    command
        .args(["-c", &script])
        .env("BLOCKHOST_ROOT", world.layout.root())
        .stderr(log)
        .spawn()
        .expect("bash")
}

/// A listener whose descriptor is out of the way of those that are placed.
fn listener(path: &std::path::Path) -> UnixListener {
    let listener = UnixListener::bind(path).expect("bind");
    let high = rustix::io::fcntl_dupfd_cloexec(&listener, 100).expect("dup");
    drop(listener);
    UnixListener::from(high)
}

fn end(mut child: Child) -> std::process::ExitStatus {
    signal_process(i32::try_from(child.id()).expect("pid"), Signal::TERM);
    wait_for(|| child.try_wait().expect("wait"))
}

#[test]
fn sockets_of_systemd_are_told_apart_by_their_names() {
    let world = World::new(
        "sockets: {made: {group: 65100}}\n\
         rules: [{user: 0, socket: root-agent, actions: ['*']}, {user: 0, socket: lane, actions: [agent-info]}]\n",
    );
    let (main, lane) = (world.layout.agent_socket(), file(&world, "by-systemd.sock"));
    let child = activated(
        &world,
        &[listener(&lane), listener(&main)],
        "lane:root-agent",
    );
    let mut by_lane = Client::on(UnixStream::connect(&lane).expect("connect"));
    let mut by_main = Client::on(UnixStream::connect(&main).expect("connect"));
    let wallet = json!({"action": "generate-wallet", "params": {"name": "hot"}});
    assert_eq!(by_lane.call(&info())["ok"], true, "{}", world.log());
    assert_eq!(by_lane.call(&wallet)["code"], "forbidden");
    assert_eq!(by_main.call(&wallet)["ok"], true);
    let made = file(&world, "made.sock");
    let kind = std::fs::symlink_metadata(&made)
        .expect("made here")
        .file_type();
    assert!(kind.is_socket());
    assert!(end(child).success(), "{}", world.log());
    assert!(main.exists() && lane.exists(), "systemd's sockets stay");
    assert!(!made.exists());
}

#[test]
fn sockets_without_a_name_of_their_own_stop_the_start() {
    for names in [
        "",
        "lane:lane",
        "lane",
        "lane:UPPER",
        "root-agent:root-agent",
    ] {
        let world = World::new("");
        let paths = ["a.sock", "b.sock"].map(|name| file(&world, name));
        let listeners = paths.each_ref().map(|path| listener(path));
        let mut child = activated(&world, &listeners, names);
        let status = wait_for(|| child.try_wait().expect("wait"));
        assert!(!status.success(), "{names}");
        let log = world.log();
        assert!(log.contains("FileDescriptorName"), "{names}: {log}");
    }
}
