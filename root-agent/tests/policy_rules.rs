//! Rules against a real agent: what a caller may name, how often, who is never let in, and what a reload changes.

mod common;

use std::process::{Command, Stdio};

use common::{AGENT, Agent, BLOCKHOST, Client, IMAGE, VM, World, signal_process, status, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

const TENANT: u32 = 65_001;
const OTHER: u32 = 65_002;

fn info() -> Value {
    json!({"action": "agent-info"})
}

fn start(vmid: u32) -> Value {
    json!({"action": "qm-start", "params": {"vmid": vmid}})
}

fn wallet(name: &str) -> Value {
    json!({"action": "generate-wallet", "params": {"name": name}})
}

fn refusals(world: &World) -> Vec<Value> {
    let mut records = world.records();
    records.retain(|record| record["action"] == "request-refused");
    records
}

#[test]
fn machines_of_others_are_forbidden_and_ones_own_are_not() {
    let agent = Agent::start_in(World::with_qm(
        "true",
        "rules:\n\
         - {user: 65001, actions: ['qm-*'], only: {vmids: [{first: 200, last: 299}]}}\n\
         - {user: 65002, actions: ['qm-*'], only: {vmids: [{first: 300, last: 399}]}}\n",
    ));
    let mut tenant = agent.client_as(TENANT, BLOCKHOST);
    let mut other = agent.client_as(OTHER, BLOCKHOST);
    assert_eq!(tenant.call(&start(250))["ok"], true);
    assert_eq!(other.call(&start(350))["ok"], true);
    for (theirs, vmid) in [(true, 350), (false, 250), (true, 100)] {
        let client = if theirs { &mut tenant } else { &mut other };
        let answer = client.call(&start(vmid));
        assert_eq!(answer["code"], "forbidden", "{answer}");
        let why = answer["error"].as_str().expect("a sentence");
        assert!(why.contains("only.vmids"), "{why}");
        assert!(answer.get("receipt").is_none(), "nothing was executed");
    }
    // A dry run tells no more than the request itself would.
    let mut dry = start(350);
    dry["dry_run"] = json!(true);
    assert_eq!(tenant.call(&dry)["code"], "forbidden");
    assert_eq!(
        tenant.call(&json!({"action": "qm-list"}))["code"],
        "forbidden",
        "it shows the machines of others"
    );
    let intents: Vec<Value> = agent
        .world
        .records()
        .into_iter()
        .filter(|record| record["phase"] == "intent")
        .collect();
    let by = |index: usize| {
        (
            &intents[index]["resource"],
            &intents[index]["metadata"]["right"]["rule"],
        )
    };
    assert_eq!(intents.len(), 2);
    assert_eq!(by(0), (&json!("vm:250"), &json!(1)));
    assert_eq!(by(1), (&json!("vm:350"), &json!(2)));
}

#[test]
fn who_asks_too_often_is_told_how_long_to_wait_and_others_are_not() {
    let agent = Agent::start(
        "rules:\n\
         - {user: 65001, actions: [generate-wallet, agent-info, 'ip6-*'], rates: {create: {per_minute: 1, burst: 3}}}\n\
         - {user: 65002, actions: [generate-wallet]}\n\
         - {user: 65002, actions: [agent-info], rates: {read: {per_minute: 1, burst: 2}}}\n\
         limits: {refusals_per_minute: 2}\n",
    );
    let mut tenant = agent.client_as(TENANT, BLOCKHOST);
    for name in ["a", "b", "c"] {
        assert_eq!(tenant.call(&wallet(name))["ok"], true);
    }
    for _ in 0..5 {
        let answer = tenant.call(&wallet("d"));
        assert_eq!(answer["code"], "busy", "{answer}");
        let why = answer["error"].as_str().expect("a sentence");
        let seconds: u64 = why
            .split("wait ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("{why}"));
        // A minute, less what the test has taken so far.
        assert!((2..=61).contains(&seconds), "{why}");
    }
    assert!(!agent.world.layout.etc().join("d.key").exists());
    // Another class is not touched by it, nor is looking, nor is anybody else, nor a second connection a way around.
    let route =
        json!({"action": "ip6-route-add", "params": {"address": "fd00::1/128", "dev": "vmbr0"}});
    assert_ne!(tenant.call(&route)["code"], "busy");
    for _ in 0..1000 {
        assert_eq!(tenant.call(&info())["ok"], true);
    }
    let mut second = agent.client_as(TENANT, BLOCKHOST);
    assert_eq!(second.call(&wallet("d"))["code"], "busy");
    let mut other = agent.client_as(OTHER, BLOCKHOST);
    for name in ["e", "f", "g", "h"] {
        assert_eq!(other.call(&wallet(name))["ok"], true);
    }
    assert_eq!(other.call(&info())["ok"], true);
    assert_eq!(other.call(&info())["ok"], true);
    assert_eq!(other.call(&info())["code"], "busy");
    assert_eq!(
        refusals(&agent.world)
            .iter()
            .filter(|record| record["uid"] == TENANT)
            .count(),
        2,
        "recorded at the rate of refusals"
    );
}

#[test]
fn a_burst_used_up_under_one_rule_goes_on_under_another_that_permits() {
    let agent = Agent::start(
        "rules:\n\
         - {user: 65001, actions: [generate-wallet], rates: {create: {per_minute: 1, burst: 1}}}\n\
         - {group: 65100, actions: [generate-wallet], rates: {create: {per_minute: 1, burst: 2}}}\n",
    );
    let path = agent.world.layout.agent_socket();
    let mut client = Client::connect_as(path, TENANT, BLOCKHOST, &[65_100]).expect("connect");
    for name in ["a", "b", "c"] {
        assert_eq!(client.call(&wallet(name))["ok"], true, "{name}");
    }
    assert_eq!(client.call(&wallet("d"))["code"], "busy");
    let rules: Vec<Value> = agent
        .world
        .records()
        .iter()
        .filter(|record| record["phase"] == "intent")
        .map(|record| record["metadata"]["right"]["groups"].clone())
        .collect();
    assert_eq!(rules[0], json!([65_100]), "what it went by is on record");
}

#[test]
fn processes_of_the_agents_own_users_are_refused_whatever_the_rules_say() {
    let agent = Agent::start(
        "rules: [{socket: root-agent, actions: ['*']}, {user: 0, actions: ['*']}, {group: 64102, actions: ['*']}]\n\
         limits: {refusals_per_minute: 1000}\n",
    );
    for (uid, gid) in [
        (AGENT, BLOCKHOST),
        (VM, BLOCKHOST),
        (IMAGE, BLOCKHOST),
        (0, AGENT),
    ] {
        let answer = agent.process_hears(uid, gid, &info());
        assert_eq!(answer["code"], "forbidden", "uid {uid} gid {gid}: {answer}");
        let why = answer["error"].as_str().expect("a sentence");
        assert!(why.contains("own processes"), "{why}");
    }
    for (uid, gid) in [
        (0, 0),
        (0, BLOCKHOST),
        (BLOCKHOST, BLOCKHOST),
        (TENANT, BLOCKHOST),
    ] {
        let answer = agent.process_hears(uid, gid, &info());
        assert_eq!(answer["ok"], true, "uid {uid} gid {gid}: {answer}");
    }
    let done = agent.client().call(&wallet("marker"));
    assert_eq!(done["ok"], true, "{done}");
    let mut seen: Vec<u64> = refusals(&agent.world)
        .iter()
        .map(|record| record["uid"].as_u64().expect("uid"))
        .collect();
    seen.sort_unstable();
    let mut expected = [0, AGENT, VM, IMAGE].map(u64::from);
    expected.sort_unstable();
    assert_eq!(seen, expected, "each is on record");
}

#[test]
fn a_rule_for_one_of_the_agents_own_users_stops_the_start_and_says_why() {
    for subject in ["user: 64101", "user: 64103", "group: 64104"] {
        let world = World::new(&format!("rules: [{{{subject}, actions: [agent-info]}}]\n"));
        let output = world
            .command()
            .stderr(Stdio::piped())
            .output()
            .expect("run");
        assert!(!output.status.success(), "{subject}");
        let text = String::from_utf8(output.stderr).expect("text");
        assert!(
            text.contains("rule 1") && text.contains("taken over"),
            "{text}"
        );
    }
}

#[test]
fn a_reload_holds_for_the_next_request_of_an_open_connection() {
    let agent = Agent::start_in(World::with_qm(
        "true",
        "rules: [{user: 65001, actions: ['*']}]\n",
    ));
    let qm = agent.world.layout.root().join("qm");
    let base = format!("backend: embedded\nprograms: {{qm: {}}}\n", qm.display());
    let mut open = agent.client_as(TENANT, BLOCKHOST);
    assert_eq!(open.call(&start(100))["ok"], true);
    let reload = |policy: &str| {
        let before = agent.world.log().matches("policy reloaded").count();
        agent.world.write_policy(&format!("{base}{policy}"));
        agent.signal(Signal::HUP);
        wait_for(|| (agent.world.log().matches("policy reloaded").count() > before).then_some(()));
    };
    // Who, what, how often, and back again.
    reload("rules: [{user: 65001, actions: ['*'], only: {vmids: {first: 200, last: 299}}}]\n");
    wait_for(|| (open.call(&start(100))["code"] == "forbidden").then_some(()));
    assert_eq!(open.call(&start(200))["ok"], true);
    reload("rules: [{user: 65001, actions: ['*']}]\nrates: {change: {per_minute: 1, burst: 1}}\n");
    wait_for(|| (open.call(&start(200))["code"] == "busy").then_some(()));
    reload("rules: [{user: 65002, actions: ['*']}]\n");
    wait_for(|| (open.call(&info())["code"] == "forbidden").then_some(()));
    reload("rules: [{user: 65001, actions: ['*']}]\n");
    wait_for(|| (open.call(&start(100))["ok"] == true).then_some(()));
    // A bad one changes nothing and is on record with the reason.
    agent.world.write_policy(&format!(
        "{base}rules: [{{user: nobody-of-that-name, actions: ['*']}}]\n"
    ));
    agent.signal(Signal::HUP);
    wait_for(|| agent.world.log().contains("was not changed").then_some(()));
    assert_eq!(open.call(&start(100))["ok"], true);
    let records = agent.world.records();
    let of = |action: &str| -> Vec<&Value> {
        records
            .iter()
            .filter(|record| record["action"] == action)
            .collect()
    };
    assert_eq!(of("policy-changed").len(), 4);
    assert_eq!(of("policy-refused").len(), 1);
    let reason = of("policy-refused")[0]["metadata"]["reason"].to_string();
    assert!(reason.contains("nobody-of-that-name"), "{reason}");
    let digests: std::collections::BTreeSet<String> = of("policy-changed")
        .iter()
        .map(|record| record["metadata"]["sha256"].to_string())
        .collect();
    assert_eq!(digests.len(), 4, "each is told from the others");
    // Who kept the file can say which one it was.
    agent
        .world
        .write_policy(&format!("{base}rules: [{{user: 65002, actions: ['*']}}]\n"));
    #[expect(clippy::disallowed_methods, reason = "the program under test")]
    let output = Command::new(env!("CARGO_BIN_EXE_blockhost-root-agent"))
        .args(["check-policy", "--json"])
        .env("BLOCKHOST_ROOT", agent.world.layout.root())
        .output()
        .expect("run");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        of("policy-changed")[2]["metadata"]["sha256"],
        shown["sha256"]
    );
}

#[test]
fn what_changes_at_a_restart_only_is_not_in_force_in_a_process_that_was_started_anew() {
    let mut agent = Agent::start("backend: embedded\n");
    const NONE: &str = "0000000000000000";
    let old = agent.pid("attach").expect("attach");
    assert_eq!(status(old, "CapEff"), NONE);
    agent.world.write_policy(
        "backend: embedded\ncontainers: {attach: true}\nwireguard: userspace\nimages: {network: true}\n",
    );
    agent.signal(Signal::HUP);
    wait_for(|| agent.world.log().contains("policy reloaded").then_some(()));
    let log = agent.world.log();
    assert!(
        log.contains("wireguard, programs, images, containers and identities change at the next"),
        "{log}"
    );
    // Pid and capabilities of one that is confined: its filter is the last thing that a process puts on.
    let confined = |old| {
        wait_for(|| {
            let pid = agent.pid("attach").filter(|&pid| pid != old)?;
            let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = |key| text.lines().find_map(|line| line.strip_prefix(key));
            (line("Seccomp:")?.trim() == "2")
                .then(|| Some((pid, line("CapEff:")?.trim().to_owned())))?
        })
    };
    signal_process(old, Signal::KILL);
    let (new, capabilities) = confined(old);
    assert_eq!(capabilities, NONE, "attach was switched on");
    // Nor in any of them, when all are started anew with the ledger.
    let ledger = agent.pid("ledger").expect("ledger");
    signal_process(ledger, Signal::KILL);
    agent.wait_for_new("ledger", ledger);
    assert_eq!(confined(new).1, NONE);
    // The restart that it takes.
    agent.stop();
    let agent = Agent::start_in(agent.into_world());
    let pid = agent.pid("attach").expect("attach");
    assert_ne!(status(pid, "CapEff"), NONE);
}

#[test]
fn whoever_gets_a_rule_by_a_reload_is_in_the_ledger_by_name() {
    const NOBODY: u32 = 65_534;
    let accounts = std::fs::read_to_string("/etc/passwd").expect("accounts");
    let named = |line: &str| line.starts_with("nobody:x:65534:");
    if !accounts.lines().any(named) {
        println!("skipped: this host has no user nobody");
        return;
    }
    let agent = Agent::start("rules: [{user: 0, actions: ['*']}]\n");
    let refused = agent.client_as(NOBODY, BLOCKHOST).call(&wallet("before"));
    assert_eq!(refused["code"], "forbidden", "{refused}");
    // Refusals are answered before they are on record.
    wait_for(|| (refusals(&agent.world).len() == 1).then_some(()));
    agent
        .world
        .write_policy("rules: [{user: 0, actions: ['*']}, {user: nobody, actions: ['*']}]\n");
    agent.signal(Signal::HUP);
    wait_for(|| agent.world.log().contains("policy reloaded").then_some(()));
    let done = agent.client_as(NOBODY, BLOCKHOST).call(&wallet("after"));
    assert_eq!(done["ok"], true, "{done}");
    let records = agent.world.records();
    let users: Vec<&Value> = records
        .iter()
        .filter(|record| record["uid"] == NOBODY)
        .map(|record| &record["user"])
        .collect();
    assert_eq!(users, ["uid:65534", "nobody", "nobody"]);
}
